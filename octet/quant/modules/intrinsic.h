#pragma once
// Fused modules (torch.nn.intrinsic): what fuse_modules puts in place of a sequence. They compute
// what the sequence does and tell prepare and convert that it becomes one quantized operator. Their
// parts are children "0", "1", "2".

#include <string>

#include "octet/nn/containers.h"
#include "octet/quant/modules/forms.h"

namespace octet::nn::intrinsic {

// A sequence that is quantized as one. Its parts are "0", "1", ...; other children (its observer)
// are not run by forward.
class FusedModule : public Sequential {
 public:
  using Sequential::Sequential;
  Tensor forward(Tensor x) override;
  using Sequential::forward;
  size_t size() const;

 protected:
  // Error unless each part has the class that the fused module expects of it.
  template <typename... Parts>
  void expect_parts() {
    size_t i = 0;
    (expect_part(
         i++, [](Module& m) { return dynamic_cast<Parts*>(&m) != nullptr; },
         class_name(typeid(Parts))),
     ...);
  }

  static void expect_count(size_t given, size_t expected);

 private:
  void expect_part(size_t i, bool (*fits)(Module&), const std::string& expected) const;
};

template <typename... Parts>
class Fused : public FusedModule {
 public:
  Fused() = default;  // for loading: the parts are put in afterwards
  explicit Fused(std::vector<ModulePtr> parts) {
    expect_count(parts.size(), sizeof...(Parts));
    for (ModulePtr& part : parts) append(std::move(part));
    this->template expect_parts<Parts...>();
    train((*this)[0].training());
  }
};

using LinearReLU = Fused<Linear, ReLU>;
using ConvReLU1d = Fused<Conv1d, ReLU>;
using ConvReLU2d = Fused<Conv2d, ReLU>;
using ConvReLU3d = Fused<Conv3d, ReLU>;
// PyTorch has no fusion of these.
using ConvTransposeReLU1d = Fused<ConvTranspose1d, ReLU>;
using ConvTransposeReLU2d = Fused<ConvTranspose2d, ReLU>;
using ConvTransposeReLU3d = Fused<ConvTranspose3d, ReLU>;
using BNReLU2d = Fused<BatchNorm2d, ReLU>;
using BNReLU3d = Fused<BatchNorm3d, ReLU>;
// In training mode the batch norm stays a part of its own.
using LinearBn1d = Fused<Linear, BatchNorm1d>;
using ConvBn1d = Fused<Conv1d, BatchNorm1d>;
using ConvBn2d = Fused<Conv2d, BatchNorm2d>;
using ConvBn3d = Fused<Conv3d, BatchNorm3d>;
using ConvBnReLU1d = Fused<Conv1d, BatchNorm1d, ReLU>;
using ConvBnReLU2d = Fused<Conv2d, BatchNorm2d, ReLU>;
using ConvBnReLU3d = Fused<Conv3d, BatchNorm3d, ReLU>;

}  // namespace octet::nn::intrinsic

namespace octet::quant {

// Conv, transposed conv or linear followed by batch norm as one layer (docs/numerics.md): w' = w *
// gamma / sqrt(var + eps) along the output channels, b' = (b - mean) * gamma / sqrt(var + eps) +
// beta, computed in float32 as PyTorch does. `channel_axis` is the dimension of w that holds output
// channels: 0, or 1 for transposed convs, where it holds those of one of `groups` groups.
struct FoldedWeights {
  Tensor weight, bias;
};
FoldedWeights fuse_conv_bn_weights(const Tensor& weight, const Tensor& bias,
                                   const nn::BatchNorm& bn, int64_t channel_axis = 0,
                                   int64_t groups = 1);
// Copies of a conv (any class of nn/conv.h) or linear layer with the batch norm folded in. Error if
// the channels differ or the batch norm has no running statistics.
nn::ModulePtr fuse_conv_bn_eval(nn::Module& layer, const nn::BatchNorm& bn);

}  // namespace octet::quant
