#pragma once
// Dynamically quantized modules (torch.nn.quantized.dynamic): float tensors in and out; the weight
// is quantized ahead, the input at each call from its own range, and the product is taken in
// integers (docs/numerics.md, "Run-time choice" and "dynamic linear"). A float16 weight computes in
// float32. Beside them the weight-only forms, which compute in float32 with the dequantized weight
// (Linear: exactly, on 24 bits of the input).

#include <memory>
#include <string>

#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/weighted.h"

namespace octet::nn::quantized {

class DynamicModule : public WeightedModule {
 public:
  static constexpr WeightForm form = WeightForm::dynamic;
  Tensor forward(Tensor x) override { return call(x); }
  std::string type_name() const override;  // "DynamicQuantizedLinear"
  std::string extra_repr() const override;
  Attrs config() const override;
  // Inputs are quantized to 0..127 instead of 0..255, as PyTorch does for fbgemm. Off: octet's
  // kernels do not saturate.
  void set_reduce_range(bool on) { set_op_attr("reduce_range", on); }
  bool reduce_range() const {
    return op_attrs().has("reduce_range") && op_attrs().get_bool("reduce_range");
  }

 protected:
  using WeightedModule::WeightedModule;
  void take_config(const Attrs& config) { set_reduce_range(config.get_bool("reduce_range")); }
};

class WeightOnlyModule : public WeightedModule {
 public:
  static constexpr WeightForm form = WeightForm::weight_only;
  Tensor forward(Tensor x) override { return call(x); }
  std::string type_name() const override;  // "WeightOnlyQuantizedLinear"
  std::string extra_repr() const override;

 protected:
  using WeightedModule::WeightedModule;
};

// The layer in float arithmetic on the dequantized weight (torch.nn.quantized.reference): what a
// reference graph calls, and what lowering replaces. The same computation as weight_only; the name
// says that lowering is still to come.
class ReferenceModule : public WeightOnlyModule {
 public:
  std::string type_name() const override;  // "QuantizedReferenceLinear"

 protected:
  using WeightOnlyModule::WeightOnlyModule;
};

namespace dynamic {
using Linear = DynamicLayer<nn::Linear>;
using Conv1d = DynamicLayer<nn::Conv1d>;
using Conv2d = DynamicLayer<nn::Conv2d>;
using Conv3d = DynamicLayer<nn::Conv3d>;
using ConvTranspose1d = DynamicLayer<nn::ConvTranspose1d>;
using ConvTranspose2d = DynamicLayer<nn::ConvTranspose2d>;
using ConvTranspose3d = DynamicLayer<nn::ConvTranspose3d>;
using LinearReLU = DynamicLayer<nn::Linear, true>;
using ConvReLU1d = DynamicLayer<nn::Conv1d, true>;
using ConvReLU2d = DynamicLayer<nn::Conv2d, true>;
using ConvReLU3d = DynamicLayer<nn::Conv3d, true>;
}  // namespace dynamic

namespace weight_only {
using Linear = WeightOnlyLayer<nn::Linear>;
using Conv1d = WeightOnlyLayer<nn::Conv1d>;
using Conv2d = WeightOnlyLayer<nn::Conv2d>;
using Conv3d = WeightOnlyLayer<nn::Conv3d>;
using ConvTranspose1d = WeightOnlyLayer<nn::ConvTranspose1d>;
using ConvTranspose2d = WeightOnlyLayer<nn::ConvTranspose2d>;
using ConvTranspose3d = WeightOnlyLayer<nn::ConvTranspose3d>;
using LinearReLU = WeightOnlyLayer<nn::Linear, true>;
using ConvReLU1d = WeightOnlyLayer<nn::Conv1d, true>;
using ConvReLU2d = WeightOnlyLayer<nn::Conv2d, true>;
using ConvReLU3d = WeightOnlyLayer<nn::Conv3d, true>;
}  // namespace weight_only

namespace reference {
using Linear = ReferenceLayer<nn::Linear>;
using Conv1d = ReferenceLayer<nn::Conv1d>;
using Conv2d = ReferenceLayer<nn::Conv2d>;
using Conv3d = ReferenceLayer<nn::Conv3d>;
using ConvTranspose1d = ReferenceLayer<nn::ConvTranspose1d>;
using ConvTranspose2d = ReferenceLayer<nn::ConvTranspose2d>;
using ConvTranspose3d = ReferenceLayer<nn::ConvTranspose3d>;
using LinearReLU = ReferenceLayer<nn::Linear, true>;
using ConvReLU1d = ReferenceLayer<nn::Conv1d, true>;
using ConvReLU2d = ReferenceLayer<nn::Conv2d, true>;
using ConvReLU3d = ReferenceLayer<nn::Conv3d, true>;
}  // namespace reference

}  // namespace octet::nn::quantized
