#pragma once
// Pools over 1, 2 and 3 spatial dimensions. Names and arguments are torch.nn's; x (N, C,
// spatial...), or without N.

#include <string>

#include "octet/nn/module.h"
#include "octet/ops/sizes.h"

namespace octet::nn {

// A module that is one operator on images of N spatial dimensions.
template <size_t N>
class PoolNd : public Module {
 public:
  Tensor forward(Tensor x) override;
  virtual Attrs op_attrs() const = 0;

 protected:
  virtual std::string kind() const = 0;  // "max_pool"
};

template <size_t N>
struct MaxPoolOptions {
  OptionalSizes<N> stride = {};  // the kernel's size if not given
  Sizes<N> padding = 0;          // never wins
  Sizes<N> dilation = 1;
  bool ceil_mode = false;
};

template <size_t N>
class MaxPoolNd : public PoolNd<N> {
 public:
  explicit MaxPoolNd(Sizes<N> kernel_size, MaxPoolOptions<N> options = {});
  static std::shared_ptr<MaxPoolNd> from_config(const Attrs& config);
  Attrs op_attrs() const override;
  std::string extra_repr() const override;
  Attrs config() const override { return op_attrs(); }
  Sizes<N> kernel_size, stride, padding, dilation;
  bool ceil_mode;

 protected:
  std::string kind() const override { return "max_pool"; }
};

template <size_t N>
struct AvgPoolOptions {
  OptionalSizes<N> stride = {};
  Sizes<N> padding = 0;
  bool ceil_mode = false;
  bool count_include_pad = true;
  int64_t divisor_override = 0;  // 0: the number of elements (not for AvgPool1d)
};

template <size_t N>
class AvgPoolNd : public PoolNd<N> {
 public:
  explicit AvgPoolNd(Sizes<N> kernel_size, AvgPoolOptions<N> options = {});
  static std::shared_ptr<AvgPoolNd> from_config(const Attrs& config);
  Attrs op_attrs() const override;
  std::string extra_repr() const override;
  Attrs config() const override;
  Sizes<N> kernel_size, stride, padding;
  bool ceil_mode, count_include_pad;
  int64_t divisor_override;

 protected:
  std::string kind() const override { return "avg_pool"; }
};

// Over an even grid of output_size cells; -1 (PyTorch's None) keeps a dimension's size.
template <size_t N, bool maximum>
class AdaptivePoolNd : public PoolNd<N> {
 public:
  explicit AdaptivePoolNd(Sizes<N> output_size) : output_size(output_size) {}
  static std::shared_ptr<AdaptivePoolNd> from_config(const Attrs& c) {
    return make<AdaptivePoolNd>(Sizes<N>(c.get_ints("output_size")));
  }
  Tensor forward(Tensor x) override;
  Attrs op_attrs() const override { return {{"output_size", output_size.list()}}; }
  std::string extra_repr() const override;
  Attrs config() const override { return op_attrs(); }
  Sizes<N> output_size;

 protected:
  std::string kind() const override { return maximum ? "adaptive_max_pool" : "adaptive_avg_pool"; }
};

using MaxPool1d = MaxPoolNd<1>;
using MaxPool2d = MaxPoolNd<2>;
using MaxPool3d = MaxPoolNd<3>;
using AvgPool1d = AvgPoolNd<1>;
using AvgPool2d = AvgPoolNd<2>;
using AvgPool3d = AvgPoolNd<3>;
using AdaptiveAvgPool1d = AdaptivePoolNd<1, false>;
using AdaptiveAvgPool2d = AdaptivePoolNd<2, false>;
using AdaptiveAvgPool3d = AdaptivePoolNd<3, false>;
using AdaptiveMaxPool1d = AdaptivePoolNd<1, true>;
using AdaptiveMaxPool2d = AdaptivePoolNd<2, true>;
using AdaptiveMaxPool3d = AdaptivePoolNd<3, true>;

}  // namespace octet::nn
