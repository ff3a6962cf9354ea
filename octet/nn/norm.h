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

// y = (x - mean) / sqrt(var + eps) * weight + bias for each channel (dimension 1). In training mode with the batch's own
// statistics (biased variance), which also move the running ones (unbiased variance); in eval mode with the running ones.
class BatchNorm : public Module {
 public:
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;

  // The same with a given choice of statistics, whatever the mode: what freeze_bn_stats needs.
  Tensor normalize(const Tensor& x, bool batch_statistics);

  int64_t num_features;
  BatchNormOptions options;
  Parameter weight, bias;                // (num_features); undefined unless affine
  Parameter running_mean, running_var;   // buffers (num_features); undefined unless track_running_stats
  Parameter num_batches_tracked;         // buffer (), int64

 protected:
  BatchNorm(int64_t num_features, BatchNormOptions options);
  virtual void check_input(const Tensor& x) const = 0;
};

class BatchNorm1d : public BatchNorm {  // x (N, C) or (N, C, L)
 public:
  explicit BatchNorm1d(int64_t num_features, BatchNormOptions options = {}) : BatchNorm(num_features, options) {}
  static std::shared_ptr<BatchNorm1d> from_config(const Attrs& config);

 protected:
  void check_input(const Tensor& x) const override;
};
class BatchNorm2d : public BatchNorm {  // x (N, C, H, W)
 public:
  explicit BatchNorm2d(int64_t num_features, BatchNormOptions options = {}) : BatchNorm(num_features, options) {}
  static std::shared_ptr<BatchNorm2d> from_config(const Attrs& config);

 protected:
  void check_input(const Tensor& x) const override;
};
class BatchNorm3d : public BatchNorm {  // x (N, C, D, H, W)
 public:
  explicit BatchNorm3d(int64_t num_features, BatchNormOptions options = {}) : BatchNorm(num_features, options) {}
  static std::shared_ptr<BatchNorm3d> from_config(const Attrs& config);

 protected:
  void check_input(const Tensor& x) const override;
};

}  // namespace octet::nn
