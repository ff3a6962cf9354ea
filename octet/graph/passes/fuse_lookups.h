#pragma once
// Functions of one 8-bit code as one table of 256.

#include "octet/graph/graph.h"

namespace octet::graph {

// Where codes are a function, element by element, of other codes alone (a gelu spelled out as div,
// erf, add and mul with dequantize and quantize between, say), they become lookup(codes): the table
// is what those operators compute for each of the 256 codes, so results are the same bits. The
// graph itself if there is no such place. For compiling: a graph that is kept should say what it
// computes.
Graph fuse_lookups(const Graph& graph);

// By node: whether it is a call that runs on codes: one of its operands or results is quantized, or
// it is part of a function that fuse_lookups makes a table of.
std::vector<bool> calls_on_codes(const Graph& graph);
// Whether one of its operands or results is quantized.
bool touches_codes(const Graph& graph, const Node& node);

}  // namespace octet::graph
