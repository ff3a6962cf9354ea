#pragma once
// Ranges of weights, each channel's with the least squared error.

#include "octet/quant/observe/min_max.h"

namespace octet::quant {

// For each slice along ch_axis the range that quantizes its values with the least squared error
// (least_error_range, 100 steps), for weights, which are observed as a whole. Of several tensors
// the union of their ranges. Options, state and errors as PerChannelMinMaxObserver's. The cost is
// some dozen passes over the weight.
class PerChannelMSEObserver : public PerChannelMinMaxObserver {
 public:
  explicit PerChannelMSEObserver(ObserverOptions options = default_options(),
                                 std::string label = "")
      : PerChannelMinMaxObserver("PerChannelMSEObserver", options, label) {}

 protected:
  void observe_floats(const Tensor& x) override;
};

}  // namespace octet::quant
