#pragma once
// Sizes for the symbolic dimensions of a graph's inputs.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::graph {

// By an input's name, a size of 1 or more for each of its dimensions, or kOpenSize, which leaves
// the dimension as it is. The name "" stands for the only input of a graph that has one.
using InputShapes = std::map<std::string, Shape>;
inline constexpr int64_t kOpenSize = -1;

// The graph with these sizes for symbolic dimensions of its inputs; all types are inferred anew. A
// name that several inputs have ("N") gets its size in all of them. Errors: not_found for an input
// that the graph does not have; invalid_argument naming the input, the expected and the given sizes
// where the number of dimensions is another, a known size would change, or one name would get two
// sizes; and whatever an operator says to its operands' new sizes.
Graph with_input_shapes(const Graph& graph, const InputShapes& shapes);

// The sizes of dimensions, by name, that `shapes` gives to inputs of these names and dimensions.
// Errors as above.
std::map<std::string, int64_t> sizes_of_dims(
    const std::vector<std::pair<std::string, std::vector<Dim>>>& inputs, const InputShapes& shapes);

}  // namespace octet::graph
