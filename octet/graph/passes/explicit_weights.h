#pragma once
// Weight-only layers as other tools know them.

#include "octet/graph/graph.h"

namespace octet::graph {

// linear_weight_only(x, codes, bias) as linear(x, dequantize(codes), bias), and so with all
// operators of that kind: what reference layers compute, spelled out as Q/DQ.
Graph explicit_weights(const Graph& graph);

}  // namespace octet::graph
