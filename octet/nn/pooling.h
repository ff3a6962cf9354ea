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
  Tensor forward(Tensor x) override;
  Attrs op_attrs() const override { return {{"output_size", output_size.list()}}; }
  std::string extra_repr() const override;
  Attrs config() const override { return op_attrs(); }
  Sizes<N> output_size;

 protected:
  std::string kind() const override { return maximum ? "adaptive_max_pool" : "adaptive_avg_pool"; }
};

template <typename Pool, size_t N>
std::shared_ptr<Pool> max_pool_from(const Attrs& c);
template <typename Pool, size_t N>
std::shared_ptr<Pool> avg_pool_from(const Attrs& c);

#define OCTET_POOLS(N)                                                          \
  class MaxPool##N##d : public MaxPoolNd<N> {                                   \
   public:                                                                      \
    using MaxPoolNd::MaxPoolNd;                                                 \
    static std::shared_ptr<MaxPool##N##d> from_config(const Attrs& c) {         \
      return max_pool_from<MaxPool##N##d, N>(c);                                \
    }                                                                           \
  };                                                                            \
  class AvgPool##N##d : public AvgPoolNd<N> {                                   \
   public:                                                                      \
    using AvgPoolNd::AvgPoolNd;                                                 \
    static std::shared_ptr<AvgPool##N##d> from_config(const Attrs& c) {         \
      return avg_pool_from<AvgPool##N##d, N>(c);                                \
    }                                                                           \
  };                                                                            \
  class AdaptiveAvgPool##N##d : public AdaptivePoolNd<N, false> {               \
   public:                                                                      \
    using AdaptivePoolNd::AdaptivePoolNd;                                       \
    static std::shared_ptr<AdaptiveAvgPool##N##d> from_config(const Attrs& c) { \
      return make<AdaptiveAvgPool##N##d>(Sizes<N>(c.get_ints("output_size")));  \
    }                                                                           \
  };                                                                            \
  class AdaptiveMaxPool##N##d : public AdaptivePoolNd<N, true> {                \
   public:                                                                      \
    using AdaptivePoolNd::AdaptivePoolNd;                                       \
    static std::shared_ptr<AdaptiveMaxPool##N##d> from_config(const Attrs& c) { \
      return make<AdaptiveMaxPool##N##d>(Sizes<N>(c.get_ints("output_size")));  \
    }                                                                           \
  };
OCTET_POOLS(1)
OCTET_POOLS(2)
OCTET_POOLS(3)
#undef OCTET_POOLS

}  // namespace octet::nn
