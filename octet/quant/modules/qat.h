#pragma once
// Layers in quantization-aware training (torch.nn.qat, torch.nn.intrinsic.qat): float layers whose
// weight goes through a fake-quantize module, the child `weight_fake_quant`. The result is
// fake-quantized by the activation_post_process that prepare_qat adds.
//
// from_float(module) makes one from a float or fused layer with a qconfig whose weight has a
// fake-quantize module; the parameters are shared with it, not copied.

#include <memory>
#include <string>

#include "octet/quant/modules/intrinsic.h"

namespace octet::nn::qat {

// A float layer with a fake-quantized weight, and a relu behind if it was fused in.
template <typename Float, bool relu>
class QatLayer : public Float {
 public:
  using FloatModule = Float;
  static constexpr bool fused_relu = relu;
  QatLayer(const Float& layer, ModulePtr weight_fake_quant);
  Tensor forward(Tensor x) override;

  Slot weight_fake_quant;
};

#define OCTET_QAT(Name, Float, relu)                               \
  class Name : public QatLayer<Float, relu> {                      \
   public:                                                         \
    using QatLayer::QatLayer;                                      \
    static std::shared_ptr<Name> from_float(Module& module);       \
    static std::shared_ptr<Name> from_config(const Attrs& config); \
  };
OCTET_QAT(Linear, nn::Linear, false)
OCTET_QAT(Conv1d, nn::Conv1d, false)
OCTET_QAT(Conv2d, nn::Conv2d, false)
OCTET_QAT(Conv3d, nn::Conv3d, false)
OCTET_QAT(ConvTranspose1d, nn::ConvTranspose1d, false)
OCTET_QAT(ConvTranspose2d, nn::ConvTranspose2d, false)
OCTET_QAT(ConvTranspose3d, nn::ConvTranspose3d, false)
OCTET_QAT(LinearReLU, nn::Linear, true)
OCTET_QAT(ConvReLU1d, nn::Conv1d, true)
OCTET_QAT(ConvReLU2d, nn::Conv2d, true)
OCTET_QAT(ConvReLU3d, nn::Conv3d, true)
#undef OCTET_QAT

// What freeze_bn_stats and update_bn_stats act on.
class FreezableBatchNorm {
 public:
  virtual ~FreezableBatchNorm() = default;
  virtual void freeze_bn_stats() = 0;  // running statistics, which no longer move
  virtual void update_bn_stats() = 0;  // the batch's own, in training mode
};

// A layer with a batch norm behind (child `bn`), and a relu if it was fused in. The weight is
// fake-quantized as it will be when the batch norm is folded in: scaled by gamma / sqrt(running_var
// + eps); the result is divided by that again, then normalized (docs/numerics.md). Where gamma is 0
// the weight is left unscaled: nothing of it survives, and no NaN does.
template <typename Float, typename Norm, bool relu>
class QatBnLayer : public Float, public FreezableBatchNorm {
 public:
  using FloatModule = Float;
  static constexpr bool fused_relu = relu;
  QatBnLayer(const Float& layer, const Norm& norm, ModulePtr weight_fake_quant,
             bool freeze_bn = false);
  Tensor forward(Tensor x) override;
  Attrs config() const override;
  void train(bool mode = true) override;
  void freeze_bn_stats() override;
  void update_bn_stats() override;
  // The weights that convert() quantizes.
  quant::FoldedWeights folded() const;

  Slot bn;
  Slot weight_fake_quant;

 private:
  bool frozen_ = false;
};

#define OCTET_QAT(Name, Float, Norm, relu)                         \
  class Name : public QatBnLayer<Float, Norm, relu> {              \
   public:                                                         \
    using QatBnLayer::QatBnLayer;                                  \
    static std::shared_ptr<Name> from_float(Module& module);       \
    static std::shared_ptr<Name> from_config(const Attrs& config); \
  };
OCTET_QAT(ConvBn1d, nn::Conv1d, nn::BatchNorm1d, false)
OCTET_QAT(ConvBn2d, nn::Conv2d, nn::BatchNorm2d, false)
OCTET_QAT(ConvBn3d, nn::Conv3d, nn::BatchNorm3d, false)
OCTET_QAT(ConvBnReLU1d, nn::Conv1d, nn::BatchNorm1d, true)
OCTET_QAT(ConvBnReLU2d, nn::Conv2d, nn::BatchNorm2d, true)
OCTET_QAT(ConvBnReLU3d, nn::Conv3d, nn::BatchNorm3d, true)
OCTET_QAT(LinearBn1d, nn::Linear, nn::BatchNorm1d, false)
#undef OCTET_QAT

}  // namespace octet::nn::qat

namespace octet::quant {

// On all fused batch norms of a model (or on the module itself, so that they fit Module::apply).
void freeze_bn_stats(nn::Module& model);
void update_bn_stats(nn::Module& model);

}  // namespace octet::quant
