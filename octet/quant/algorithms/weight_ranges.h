#pragma once
// Ranges of weights narrower than their largest value, which few bits need: what is clipped costs
// less than what finer steps gain.
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig_mapping());
//   quant::choose_weight_ranges(*prepared, {.criterion = quant::WeightRangeCriterion::mse});

#include <functional>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

enum class WeightRangeCriterion {
  // Of the range shrunk to 1/steps, 2/steps, ... of itself the one with the least squared error of
  // the weights (M. Nagel et al., "A White Paper on Neural Network Quantization", 2021, section
  // 3.1), each channel's if there is a scale for each.
  mse,
  // The least expected error of clipping at s and rounding to b bits (C. Sakr et al., "Optimal
  // Clipping and Magnitude-aware Differentiation for Improved Quantization-aware Training", 2022,
  // equation 6), by the fixed point
  //  s = E[|w| 1(|w| > s)] / (4^-b / 3 E[1(0 < |w| <= s)] + E[1(|w| > s)]).
  octav,
};

struct WeightRangeOptions {
  WeightRangeCriterion criterion = WeightRangeCriterion::mse;
  int steps = 100;  // of mse
};

// For each layer whose weight becomes codes, sets the range from which its scale follows. Weights
// do not change. `prepared`: a graph of operators; it need not be calibrated.
void choose_weight_ranges(ObservedGraphModule& prepared, const WeightRangeOptions& options = {});

// OCTAV's s for these values and 2^bits codes; 0 if all are 0.
double octav_clip(const std::vector<float>& values, double bits);

}  // namespace octet::quant
