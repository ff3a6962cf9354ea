#pragma once
// How precisely single layers of a recipe compute: what mixed precision chooses from.
//
//   quant::Recipe recipe{.mapping = quant::get_default_qconfig_mapping()};
//   quant::set_precision(recipe, "conv1", quant::Precision::bits16);

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "octet/quant/tune/recipe.h"

namespace octet::quant {

// The QConfig with symmetric weights in -2^(bits-1) .. 2^(bits-1)-1; 8 bits: as it is. Error unless
// bits is 2 to 8.
QConfig with_weight_bits(QConfig qconfig, int64_t bits);

// Changes the QConfig that the mapping gives the layer of this name (quant::node_name): that of its
// own entry, or else the global one. Error not_found where there is neither.
void change_qconfig(QConfigMapping& mapping, const std::string& layer,
                    const std::function<void(QConfig&)>& change);

// Of a layer: what its weight and its result are. Costs rise from the first to the last.
enum class Precision {
  bits4,    // weight of 4 bits, result of 8; as fast as 8 bits, half the weight in a file
  bits8,    // as the mapping says
  bits16,   // weight of 8 bits, result of 16
  float32,  // neither is quantized
};
const char* to_string(Precision precision);  // "4 bits", "8 bits", "16 bits", "float"

// Gives the layer of this name that precision: by an entry of the recipe's mapping, or, in float,
// of its `skip`. Its ranges stay; those of results whose codes are others now are to be chosen anew
// (keep_ranges). Errors of change_qconfig.
void set_precision(Recipe& recipe, const std::string& layer, Precision precision);

// One layer at a higher precision than it has now.
struct PrecisionChange {
  std::string layer;
  Precision to = Precision::float32;
  double gain = 0;  // what it is worth: of the noise at the outputs, say
  double cost = 0;  // above 0: time or bytes
};

// The greedy way up within a budget: one change after another, by index, each in place of what its
// layer had, the one with the most gain for what it costs more; the sum of the costs of what layers
// have is at most `budget` after each. What n changes give is a part of what n + 1 give, or the
// same layer higher. Error invalid_argument for a cost of 0 or less.
std::vector<size_t> greedy_changes(const std::vector<PrecisionChange>& changes, double budget);

// What layers have after the first `count` of these.
std::vector<size_t> changes_after(const std::vector<PrecisionChange>& changes,
                                  const std::vector<size_t>& order, size_t count);

// One change for each layer at most, with a sum of costs of at most `budget` and, as far as is
// found, the largest sum of gains: what greedy_changes gives; then, as long as the sum rises by it,
// a change is exchanged for those that are worth least for their cost, as many as have to go.
std::vector<size_t> choose_changes(const std::vector<PrecisionChange>& changes, double budget);

}  // namespace octet::quant
