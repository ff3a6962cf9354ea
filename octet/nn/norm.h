#pragma once
// Normalizations. Names, arguments and state are torch.nn's.

#include <string>

#include "octet/nn/module.h"

namespace octet::nn {

struct BatchNormOptions {
  double eps = 1e-5;
  double momentum = 0.1;  // the weight of a new batch in the running statistics
  bool affine = true;
  bool track_running_stats = true;
};

// y = (x - mean) / sqrt(var + eps) * weight + bias for each channel (dimension 1). In training mode
// with the batch's own statistics (biased variance), which also move the running ones (unbiased
// variance); in eval mode with the running ones.
class BatchNorm : public Module {
 public:
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;

  // The same with a given choice of statistics, whatever the mode: what freeze_bn_stats needs.
  Tensor normalize(const Tensor& x, bool batch_statistics);

  int64_t num_features;
  BatchNormOptions options;
  Parameter weight, bias;  // (num_features); undefined unless affine
  // buffers (num_features); undefined unless track_running_stats
  Parameter running_mean, running_var;
  Parameter num_batches_tracked;  // buffer (), int64

 protected:
  BatchNorm(int64_t num_features, BatchNormOptions options);
  virtual void check_input(const Tensor& x) const = 0;
};

// x (N, C) or (N, C, L); (N, C, H, W); (N, C, D, H, W).
template <size_t N>
class BatchNormNd : public BatchNorm {
 public:
  explicit BatchNormNd(int64_t num_features, BatchNormOptions options = {})
      : BatchNorm(num_features, options) {}
  static std::shared_ptr<BatchNormNd> from_config(const Attrs& config);

 protected:
  void check_input(const Tensor& x) const override;
};
using BatchNorm1d = BatchNormNd<1>;
using BatchNorm2d = BatchNormNd<2>;
using BatchNorm3d = BatchNormNd<3>;

// Each sample's last dimensions, normalized_shape, to mean 0 and variance 1, then * weight + bias
// of that shape.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(Shape normalized_shape, double eps = 1e-5, bool elementwise_affine = true);
  explicit LayerNorm(int64_t size, double eps = 1e-5, bool elementwise_affine = true)
      : LayerNorm(Shape{size}, eps, elementwise_affine) {}
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<LayerNorm> from_config(const Attrs& config);
  Shape normalized_shape;
  double eps;
  Parameter weight, bias;  // undefined unless elementwise_affine
};

// Each of num_groups groups of channels of each sample to mean 0 and variance 1, then * weight +
// bias per channel.
class GroupNorm : public Module {
 public:
  GroupNorm(int64_t num_groups, int64_t num_channels, double eps = 1e-5, bool affine = true);
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<GroupNorm> from_config(const Attrs& config);
  int64_t num_groups, num_channels;
  double eps;
  Parameter weight, bias;  // (num_channels); undefined unless affine
};

// Each channel of each sample to mean 0 and variance 1, then * weight + bias. With
// track_running_stats, averages of the samples' statistics are kept and used in eval mode, as
// BatchNorm does. x may lack the batch dimension.
struct InstanceNormOptions {
  double eps = 1e-5, momentum = 0.1;
  bool affine = false;
  bool track_running_stats = false;
};
class InstanceNorm : public Module {
 public:
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  int64_t num_features;
  InstanceNormOptions options;
  Parameter weight, bias, running_mean, running_var, num_batches_tracked;  // as BatchNorm's

 protected:
  InstanceNorm(int64_t num_features, InstanceNormOptions options);
  virtual int64_t spatial() const = 0;
};
template <size_t N>
class InstanceNormNd : public InstanceNorm {
 public:
  static constexpr size_t spatial_dims = N;
  explicit InstanceNormNd(int64_t num_features, InstanceNormOptions options = {})
      : InstanceNorm(num_features, options) {}
  static std::shared_ptr<InstanceNormNd> from_config(const Attrs& config);

 protected:
  int64_t spatial() const override { return N; }
};
using InstanceNorm1d = InstanceNormNd<1>;
using InstanceNorm2d = InstanceNormNd<2>;
using InstanceNorm3d = InstanceNormNd<3>;

}  // namespace octet::nn
