#pragma once
// Networks of frameworks that keep channels last (Keras, TensorFlow) come with a permutation before
// and behind each convolution. Here permutations are moved behind the element-wise operators,
// reductions and concatenations that follow them, until they meet their inverse and both go.

#include "octet/graph/graph.h"

namespace octet::graph {

// The graph with fewer permutations, or as it is if there would not be fewer. Results are the same
// bits; values that lie between two permutations that went have their dimensions in another order.
Graph cancel_permutes(const Graph& graph);

}  // namespace octet::graph
