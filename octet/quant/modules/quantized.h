#pragma once
// Statically quantized modules (torch.nn.quantized, torch.nn.intrinsic.quantized): quantized
// tensors in and out, integer arithmetic between (docs/numerics.md), one operator each. `scale` and
// `zero_point` are those of the result.
//
// from_float(module) makes one from a prepared module: a float layer with a qconfig and a
// calibrated activation_post_process, or a QAT layer with a weight_fake_quant. Error naming what is
// missing.

#include <memory>
#include <string>

#include "octet/nn/activation.h"
#include "octet/nn/norm.h"
#include "octet/nn/pooling.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/weighted.h"

namespace octet::nn::quantized {

// Linear and convolution layers with the activation that was fused into them, if any ("none",
// "relu").
class StaticModule : public WeightedModule {
 public:
  static constexpr WeightForm form = WeightForm::in_float;
  Tensor forward(Tensor x) override;
  std::string type_name() const override;  // "QuantizedConvReLU2d"
  std::string extra_repr() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  Attrs config() const override;

  double scale = 1;
  int64_t zero_point = 0;
  DType dtype = DType::quint8;  // of the result

 protected:
  using WeightedModule::WeightedModule;
  static quant::QParams result_of(const Module& m) { return quant::activation_qparams(m); }
  void set_result(const quant::QParams& result);
  void take_config(const Attrs& config);
};

using Linear = StaticLayer<nn::Linear>;
using Conv1d = StaticLayer<nn::Conv1d>;
using Conv2d = StaticLayer<nn::Conv2d>;
using Conv3d = StaticLayer<nn::Conv3d>;
using ConvTranspose1d = StaticLayer<nn::ConvTranspose1d>;
using ConvTranspose2d = StaticLayer<nn::ConvTranspose2d>;
using ConvTranspose3d = StaticLayer<nn::ConvTranspose3d>;
using LinearReLU = StaticLayer<nn::Linear, true>;
using ConvReLU1d = StaticLayer<nn::Conv1d, true>;
using ConvReLU2d = StaticLayer<nn::Conv2d, true>;
using ConvReLU3d = StaticLayer<nn::Conv3d, true>;

// Quantized forms of layers without a quantized weight: the float layer with qparams for its
// result, and with a relu behind it if `relu`. Its operator dequantizes, computes in float32 and
// quantizes (or goes through a table of 256 codes).
template <typename Float, bool relu = false>
class WithQParams : public Float {
 public:
  WithQParams(const Float& layer, const quant::QParams& result);
  // Takes the float layer; of one with a relu, the layer and the relu fused.
  static std::shared_ptr<WithQParams> from_float(Module& module);
  static std::shared_ptr<WithQParams> from_config(const Attrs& config);
  Tensor forward(Tensor x) override;
  std::string type_name() const override;
  std::string extra_repr() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  Attrs config() const override;

  double scale;
  int64_t zero_point;
  DType dtype;
};

using ELU = WithQParams<nn::ELU>;
using CELU = WithQParams<nn::CELU>;
using GELU = WithQParams<nn::GELU>;
using Hardswish = WithQParams<nn::Hardswish>;
using LeakyReLU = WithQParams<nn::LeakyReLU>;
using PReLU = WithQParams<nn::PReLU>;
using Sigmoid = WithQParams<nn::Sigmoid>;
using Hardsigmoid = WithQParams<nn::Hardsigmoid>;
using Tanh = WithQParams<nn::Tanh>;
using Softmax = WithQParams<nn::Softmax>;
using LogSoftmax = WithQParams<nn::LogSoftmax>;
using SELU = WithQParams<nn::SELU>;
using SiLU = WithQParams<nn::SiLU>;
using Softplus = WithQParams<nn::Softplus>;
using Softsign = WithQParams<nn::Softsign>;
using BatchNorm1d = WithQParams<nn::BatchNorm1d>;
using BatchNorm2d = WithQParams<nn::BatchNorm2d>;
using BatchNorm3d = WithQParams<nn::BatchNorm3d>;
using LayerNorm = WithQParams<nn::LayerNorm>;
using GroupNorm = WithQParams<nn::GroupNorm>;
using InstanceNorm1d = WithQParams<nn::InstanceNorm1d>;
using InstanceNorm2d = WithQParams<nn::InstanceNorm2d>;
using InstanceNorm3d = WithQParams<nn::InstanceNorm3d>;
// Of averages with qparams of their own (ObserverOptions::own_averages); others run on codes as
// they are.
using AdaptiveAvgPool1d = WithQParams<nn::AdaptiveAvgPool1d>;
using AdaptiveAvgPool2d = WithQParams<nn::AdaptiveAvgPool2d>;
using AdaptiveAvgPool3d = WithQParams<nn::AdaptiveAvgPool3d>;
using BNReLU2d = WithQParams<nn::BatchNorm2d, true>;
using BNReLU3d = WithQParams<nn::BatchNorm3d, true>;

}  // namespace octet::nn::quantized
