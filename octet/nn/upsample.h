#pragma once
// Resizing images.

#include <string>
#include <vector>

#include "octet/nn/module.h"

namespace octet::functional {

// x (N, C, spatial...) resized to `size` or by `scale_factor`: one number per spatial dimension, or
// one for all. mode: "nearest", "nearest-exact", "linear" (1 spatial dimension), "bilinear",
// "bicubic" (2), "trilinear" (3). align_corners: the corners' centers meet, instead of their edges.
struct InterpolateOptions {
  std::vector<int64_t> size = {};
  std::vector<double> scale_factor = {};
  std::string mode = "nearest";
  bool align_corners = false;
};
Tensor interpolate(const Tensor& x, const InterpolateOptions& options);
// PyTorch's older name for it.
inline Tensor upsample(const Tensor& x, const InterpolateOptions& options) {
  return interpolate(x, options);
}

}  // namespace octet::functional

namespace octet::nn {

class Upsample : public Module {
 public:
  explicit Upsample(functional::InterpolateOptions options);
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<Upsample> from_config(const Attrs& c);
  functional::InterpolateOptions options;
};

}  // namespace octet::nn
