#pragma once
// From explicit quantize/dequantize pairs ("QDQ", a reference graph) to integer operators.

#include <functional>

#include "octet/graph/graph.h"

namespace octet::graph {

// Decides per node whether its dequantize -> op -> quantize may become one integer operator.
using MergePredicate = std::function<bool(const Graph&, const Node&)>;

// Rewrites dequantize -> op -> quantize into the operator on codes, for every operator that has a
// quantized form and whose operands are all dequantized (constant weights and biases included),
// unless the predicate forbids it. Operators that only move codes (reshape, max_pool2d ...) keep
// their operand's qparams; a requantize follows where the graph asks for others.
// quantize(dequantize(x)) becomes x, or requantize(x) where the qparams differ. Nodes that nothing
// needs any more are dropped. What it computes is docs/numerics.md's integer arithmetic in place of
// float arithmetic on dequantized values: results differ from the reference graph's by at most one
// step.
Graph merge_qdq(const Graph& graph, const MergePredicate& allow = nullptr);

// Whether a call makes no new numbers (reshape, permute, max_pool2d ...): codes go through it as
// they are.
bool only_moves(const Node& call);

// Drops nodes whose results are not used. Inputs of the graph stay.
Graph remove_dead(const Graph& graph);

}  // namespace octet::graph
