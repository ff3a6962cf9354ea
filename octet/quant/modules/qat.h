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
  QatLayer(const Float& layer, ModulePtr weight_fake_quant);
  static std::shared_ptr<QatLayer> from_float(Module& module);
  static std::shared_ptr<QatLayer> from_config(const Attrs& config);
  Tensor forward(Tensor x) override;

  Slot weight_fake_quant;
};

using Linear = QatLayer<nn::Linear>;
using Conv1d = QatLayer<nn::Conv1d>;
using Conv2d = QatLayer<nn::Conv2d>;
using Conv3d = QatLayer<nn::Conv3d>;
using ConvTranspose1d = QatLayer<nn::ConvTranspose1d>;
using ConvTranspose2d = QatLayer<nn::ConvTranspose2d>;
using ConvTranspose3d = QatLayer<nn::ConvTranspose3d>;
using LinearReLU = QatLayer<nn::Linear, true>;
using ConvReLU1d = QatLayer<nn::Conv1d, true>;
using ConvReLU2d = QatLayer<nn::Conv2d, true>;
using ConvReLU3d = QatLayer<nn::Conv3d, true>;

// What freeze_bn_stats and update_bn_stats act on.
class FreezableBatchNorm {
 public:
  virtual ~FreezableBatchNorm() = default;
  // The weights that convert() quantizes.
  virtual quant::FoldedWeights folded() const = 0;
  virtual void freeze_bn_stats() = 0;  // running statistics, which no longer move
  virtual void update_bn_stats() = 0;  // the batch's own, in training mode
  virtual bool is_bn_frozen() const = 0;
};

// A layer with a batch norm behind (child `bn`), and a relu if it was fused in. The weight is
// fake-quantized as it will be when the batch norm is folded in: scaled by gamma / sqrt(running_var
// + eps); the result is divided by that again, then normalized (docs/numerics.md). Where gamma is 0
// the weight is left unscaled: nothing of it survives, and no NaN does.
template <typename Float, typename Norm, bool relu>
class QatBnLayer : public Float, public FreezableBatchNorm {
 public:
  QatBnLayer(const Float& layer, const Norm& norm, ModulePtr weight_fake_quant,
             bool freeze_bn = false);
  static std::shared_ptr<QatBnLayer> from_float(Module& module);
  static std::shared_ptr<QatBnLayer> from_config(const Attrs& config);
  Tensor forward(Tensor x) override;
  Attrs config() const override;
  void train(bool mode = true) override;
  void freeze_bn_stats() override;
  void update_bn_stats() override;
  bool is_bn_frozen() const override { return frozen_; }
  quant::FoldedWeights folded() const override;

  Slot bn;
  Slot weight_fake_quant;

 private:
  bool frozen_ = false;
};

using ConvBn1d = QatBnLayer<nn::Conv1d, nn::BatchNorm1d>;
using ConvBn2d = QatBnLayer<nn::Conv2d, nn::BatchNorm2d>;
using ConvBn3d = QatBnLayer<nn::Conv3d, nn::BatchNorm3d>;
using ConvBnReLU1d = QatBnLayer<nn::Conv1d, nn::BatchNorm1d, true>;
using ConvBnReLU2d = QatBnLayer<nn::Conv2d, nn::BatchNorm2d, true>;
using ConvBnReLU3d = QatBnLayer<nn::Conv3d, nn::BatchNorm3d, true>;
using LinearBn1d = QatBnLayer<nn::Linear, nn::BatchNorm1d>;

}  // namespace octet::nn::qat

namespace octet::quant {

// On all fused batch norms of a model (or on the module itself, so that they fit Module::apply).
void freeze_bn_stats(nn::Module& model);
void update_bn_stats(nn::Module& model);

}  // namespace octet::quant
