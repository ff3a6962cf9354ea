#pragma once
// Fusion: an activation that follows a conv, linear, add or mul becomes part of it.

#include "octet/graph/graph.h"

namespace octet::graph {

// relu, relu6 and clamp(0, inf) or clamp(0, 6) whose operand is a conv1d, conv2d, linear, add or
// mul that nothing else uses become that node's `activation` attribute. The fused node keeps its
// scope and takes the activation's name.
Graph fuse_activations(const Graph& graph);

// add and mul of a constant and a value have the constant for their second operand, where operators
// on codes take it as floats.
Graph constants_second(const Graph& graph);

}  // namespace octet::graph
