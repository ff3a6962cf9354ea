#pragma once
// What is known of a graph's integers before it runs: shapes, and arithmetic on them.

#include <optional>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::graph {

// The entries of a value that is an int64 scalar or short list, if it is computed from constants
// and shapes; some of them symbolic, or ops::unknown(). nullopt: nothing is known.
std::optional<std::vector<Dim>> sizes_of(const Graph& graph, ValueId id);

// That of each operand that gives an attribute (ops::Types::sizes).
ops::OperandSizes sizes_of_operands(const Graph& graph, const std::vector<ValueId>& inputs,
                                    const Attrs& attrs);

}  // namespace octet::graph
