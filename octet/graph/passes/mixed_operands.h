#pragma once
// Sums and products of operands of two kinds.

#include "octet/graph/graph.h"

namespace octet::graph {

// For compiling: a graph that is kept says what it was given. Results are the same bits.
//
// Where add, sub and mul take 8-bit codes and a constant of the other signedness (biases of a QDQ
// network: activations uint8, constants int8), the constant takes the dtype of the codes. Its codes
// and its zero point move by 128, so it stands for the same numbers.
//
// quantize(add(dequantize(codes), floats)), the operands in either order, becomes add(codes,
// floats): one operator, whose kernel writes no floats.
Graph settle_mixed_operands(const Graph& graph);

}  // namespace octet::graph
