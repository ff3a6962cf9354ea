#pragma once
// Linear layers. Names, arguments and initial weights are torch.nn's.

#include <string>

#include "octet/nn/module.h"

namespace octet::nn {

// y = x * weight^T + bias over the last dimension: x (..., in_features) -> (..., out_features).
// weight (out_features, in_features) and bias (out_features) start uniform in
// +-1/sqrt(in_features).
class Linear : public Module {
 public:
  Linear(int64_t in_features, int64_t out_features, bool bias = true);
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<Linear> from_config(const Attrs& config);

  int64_t in_features, out_features;
  Parameter weight;
  Parameter bias;  // undefined without one
};

// y[..., o] = sum over i, j of a[..., i] * weight[o, i, j] * b[..., j], + bias[o]. Inputs: a (...,
// in1_features) and b (..., in2_features). weight (out_features, in1_features, in2_features) and
// bias start uniform in +-1/sqrt(in1_features).
class Bilinear : public Module {
 public:
  Bilinear(int64_t in1_features, int64_t in2_features, int64_t out_features, bool bias = true);
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<Bilinear> from_config(const Attrs& config);
  int64_t in1_features, in2_features, out_features;
  Parameter weight;
  Parameter bias;  // undefined without one
};

// Returns its input.
class Identity : public Module {
 public:
  Tensor forward(Tensor x) override { return x; }
};

}  // namespace octet::nn
