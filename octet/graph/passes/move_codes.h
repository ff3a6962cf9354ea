#pragma once
// Operators that only move elements, on codes in place of the floats they stand for.

#include "octet/graph/graph.h"

namespace octet::graph {

// op(dequantize(codes)) becomes dequantize(op(codes)) for every op that makes no new numbers
// (only_moves) and codes of 8 bits per tensor: the same bits, a quarter of the bytes to move; and a
// quantize that followed op now follows dequantize, where both may vanish (fuse_lookups). For
// compiling, as that is.
Graph move_codes(const Graph& graph);

}  // namespace octet::graph
