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

}  // namespace octet::graph
