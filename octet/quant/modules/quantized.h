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
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/weighted.h"

namespace octet::nn::quantized {

// Linear and convolution layers with the activation that was fused into them, if any ("none",
// "relu").
class StaticModule : public WeightedModule {
 public:
  Tensor forward(Tensor x) override;
  std::string type_name() const override;  // "QuantizedConvReLU2d"
  std::string extra_repr() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  Attrs config() const override;

  double scale;
  int64_t zero_point;
  DType dtype;  // of the result

 protected:
  StaticModule(std::string op, Attrs attrs, Attrs pads, std::string repr, Attrs config,
               Tensor weight, Tensor bias, const quant::QParams& result);
};

// The quantized form of the float layer `Float`.
template <typename Float, bool relu>
class StaticLayer : public StaticModule {
 public:
  using FloatModule = Float;
  static constexpr bool fused_relu = relu;
  StaticLayer(const Float& layer, Tensor weight, Tensor bias, const quant::QParams& result);
};

#define OCTET_STATIC(Name, Float, relu)                            \
  class Name : public StaticLayer<Float, relu> {                   \
   public:                                                         \
    using StaticLayer::StaticLayer;                                \
    static std::shared_ptr<Name> from_float(Module& module);       \
    static std::shared_ptr<Name> from_config(const Attrs& config); \
  };
OCTET_STATIC(Linear, nn::Linear, false)
OCTET_STATIC(Conv1d, nn::Conv1d, false)
OCTET_STATIC(Conv2d, nn::Conv2d, false)
OCTET_STATIC(Conv3d, nn::Conv3d, false)
OCTET_STATIC(ConvTranspose1d, nn::ConvTranspose1d, false)
OCTET_STATIC(ConvTranspose2d, nn::ConvTranspose2d, false)
OCTET_STATIC(ConvTranspose3d, nn::ConvTranspose3d, false)
OCTET_STATIC(LinearReLU, nn::Linear, true)
OCTET_STATIC(ConvReLU1d, nn::Conv1d, true)
OCTET_STATIC(ConvReLU2d, nn::Conv2d, true)
OCTET_STATIC(ConvReLU3d, nn::Conv3d, true)
#undef OCTET_STATIC

// Quantized forms of layers without a quantized weight: the float layer with qparams for its
// result. Its operator dequantizes, computes in float32 and quantizes (or goes through a table of
// 256 codes).
template <typename Float>
class WithQParams : public Float {
 public:
  WithQParams(const Float& layer, const quant::QParams& result)
      : Float(layer),
        scale(result.quantizer->scale()),
        zero_point(result.quantizer->zero_point()),
        dtype(result.dtype) {
    this->qconfig.reset();
  }
  std::string type_name() const override;
  std::string extra_repr() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  Attrs config() const override;

  double scale;
  int64_t zero_point;
  DType dtype;

 protected:
  ops::QType result() const { return quant::result_type(scale, zero_point, dtype); }
};

#define OCTET_STATIC(Name)                                         \
  class Name : public WithQParams<nn::Name> {                      \
   public:                                                         \
    using WithQParams::WithQParams;                                \
    Tensor forward(Tensor x) override;                             \
    static std::shared_ptr<Name> from_float(Module& module);       \
    static std::shared_ptr<Name> from_config(const Attrs& config); \
  };
OCTET_STATIC(ELU)
OCTET_STATIC(CELU)
OCTET_STATIC(GELU)
OCTET_STATIC(Hardswish)
OCTET_STATIC(LeakyReLU)
OCTET_STATIC(PReLU)
OCTET_STATIC(Sigmoid)
OCTET_STATIC(Hardsigmoid)
OCTET_STATIC(Tanh)
OCTET_STATIC(Softmax)
OCTET_STATIC(LogSoftmax)
OCTET_STATIC(SELU)
OCTET_STATIC(SiLU)
OCTET_STATIC(Softplus)
OCTET_STATIC(Softsign)
OCTET_STATIC(BatchNorm1d)
OCTET_STATIC(BatchNorm2d)
OCTET_STATIC(BatchNorm3d)
OCTET_STATIC(LayerNorm)
OCTET_STATIC(GroupNorm)
OCTET_STATIC(InstanceNorm1d)
OCTET_STATIC(InstanceNorm2d)
OCTET_STATIC(InstanceNorm3d)
#undef OCTET_STATIC

// Batch norm and relu; from_float takes an intrinsic::BNReLU2d.
class BNReLU2d : public WithQParams<nn::BatchNorm2d> {
 public:
  using WithQParams::WithQParams;
  Tensor forward(Tensor x) override;
  static std::shared_ptr<BNReLU2d> from_float(Module& module);
  static std::shared_ptr<BNReLU2d> from_config(const Attrs& config);
};
class BNReLU3d : public WithQParams<nn::BatchNorm3d> {
 public:
  using WithQParams::WithQParams;
  Tensor forward(Tensor x) override;
  static std::shared_ptr<BNReLU3d> from_float(Module& module);
  static std::shared_ptr<BNReLU3d> from_config(const Attrs& config);
};

}  // namespace octet::nn::quantized
