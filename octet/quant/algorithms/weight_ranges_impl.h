#pragma once
// The weights that share a scale.

#include <vector>

#include "octet/quant/algorithms/layerwise_impl.h"

namespace octet::quant {

// The options of the observer of a layer's weight.
const ObserverOptions& weight_observer_options(const ObservedGraphModule& prepared,
                                               const PreparedLayer& layer);

// A weight by channel of its observer, or all of it.
struct ChannelView {
  std::vector<std::vector<float>> values;
  ChannelView(const Tensor& weight, const ObserverOptions& options);
};

// Whether a range was set for the weight: its scale does not follow from it any more.
bool has_weight_range(const ObservedGraphModule& prepared, const PreparedLayer& layer);

}  // namespace octet::quant
