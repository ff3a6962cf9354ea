#pragma once
// What doctor() knows of a network that it is given: the recipe that would make it, and the ranges
// that samples give.

#include <map>
#include <string>
#include <vector>

#include "octet/quant/tune/recipe.h"

namespace octet::quant::doctor_detail {

// The recipe in the network's metadata; else one read off the quantized network: the dtype of most
// activations, weights with one scale, layers with other bits, layers left float, all ranges.
// `notes` gets what it could not read.
Recipe recipe_of(const graph::Graph& float_graph, const graph::Graph& quantized,
                 std::vector<std::string>& notes);

// By value of the prepared graph: the label of the observer that chooses its range from data.
std::map<std::string, std::string> labels_of(const ObservedGraphModule& prepared);

// By the way of choosing ("minmax", "percentile", "mse", "histogram"), then by label.
using Ranges = std::map<std::string, std::map<std::string, Recipe::Range>>;
// The ranges that the samples give, of the recipe's network after its steps on the float graph.
Ranges fresh_ranges(const graph::Graph& graph, const Recipe& recipe, const Batches& samples);

}  // namespace octet::quant::doctor_detail
