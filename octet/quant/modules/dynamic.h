#pragma once
// Dynamically quantized modules (torch.nn.quantized.dynamic): float tensors in and out; the weight
// is quantized ahead, the input at each call from its own range, and the product is taken in
// integers (docs/numerics.md, "Run-time choice" and "dynamic linear"). A float16 weight computes in
// float32. Beside them the weight-only forms, which compute in float32 with the dequantized weight
// (Linear: exactly, on 24 bits of the input).
//
// from_float(module) takes the float layer (or a QAT one, or one fused with a relu) with a qconfig
// whose weight says how.

#include <memory>
#include <string>

#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/weighted.h"

namespace octet::nn::quantized {

namespace dynamic {

class DynamicModule : public WeightedModule {
 public:
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
};

template <typename Float, bool with_relu>
class DynamicLayer : public DynamicModule {
 public:
  using FloatModule = Float;
  static constexpr bool fused_relu = with_relu;
  DynamicLayer(const Float& layer, Tensor weight, Tensor bias);
};

#define OCTET_DYNAMIC(Name, Float, relu)                           \
  class Name : public DynamicLayer<Float, relu> {                  \
   public:                                                         \
    using DynamicLayer::DynamicLayer;                              \
    static std::shared_ptr<Name> from_float(Module& module);       \
    static std::shared_ptr<Name> from_config(const Attrs& config); \
  };
OCTET_DYNAMIC(Linear, nn::Linear, false)
OCTET_DYNAMIC(LinearReLU, nn::Linear, true)
OCTET_DYNAMIC(Conv1d, nn::Conv1d, false)
OCTET_DYNAMIC(Conv2d, nn::Conv2d, false)
OCTET_DYNAMIC(Conv3d, nn::Conv3d, false)
OCTET_DYNAMIC(ConvTranspose1d, nn::ConvTranspose1d, false)
OCTET_DYNAMIC(ConvTranspose2d, nn::ConvTranspose2d, false)
OCTET_DYNAMIC(ConvTranspose3d, nn::ConvTranspose3d, false)
OCTET_DYNAMIC(ConvReLU1d, nn::Conv1d, true)
OCTET_DYNAMIC(ConvReLU2d, nn::Conv2d, true)
OCTET_DYNAMIC(ConvReLU3d, nn::Conv3d, true)
#undef OCTET_DYNAMIC

}  // namespace dynamic

namespace weight_only {

template <typename Float, bool with_relu>
class WeightOnlyLayer : public WeightedModule {
 public:
  using FloatModule = Float;
  static constexpr bool fused_relu = with_relu;
  WeightOnlyLayer(const Float& layer, Tensor weight, Tensor bias);
  Tensor forward(Tensor x) override { return call(x); }
  std::string type_name() const override;  // "WeightOnlyQuantizedLinear"
  std::string extra_repr() const override;
};

#define OCTET_WEIGHT_ONLY(Name, Float, relu)                       \
  class Name : public WeightOnlyLayer<Float, relu> {               \
   public:                                                         \
    using WeightOnlyLayer::WeightOnlyLayer;                        \
    static std::shared_ptr<Name> from_float(Module& module);       \
    static std::shared_ptr<Name> from_config(const Attrs& config); \
  };
OCTET_WEIGHT_ONLY(Linear, nn::Linear, false)
OCTET_WEIGHT_ONLY(Conv1d, nn::Conv1d, false)
OCTET_WEIGHT_ONLY(Conv2d, nn::Conv2d, false)
OCTET_WEIGHT_ONLY(Conv3d, nn::Conv3d, false)
OCTET_WEIGHT_ONLY(ConvTranspose1d, nn::ConvTranspose1d, false)
OCTET_WEIGHT_ONLY(ConvTranspose2d, nn::ConvTranspose2d, false)
OCTET_WEIGHT_ONLY(ConvTranspose3d, nn::ConvTranspose3d, false)
OCTET_WEIGHT_ONLY(LinearReLU, nn::Linear, true)
OCTET_WEIGHT_ONLY(ConvReLU1d, nn::Conv1d, true)
OCTET_WEIGHT_ONLY(ConvReLU2d, nn::Conv2d, true)
OCTET_WEIGHT_ONLY(ConvReLU3d, nn::Conv3d, true)
#undef OCTET_WEIGHT_ONLY

}  // namespace weight_only

// The layer in float arithmetic on the dequantized weight (torch.nn.quantized.reference): what a
// reference graph calls, and what lowering replaces. The same computation as weight_only; the name
// says that lowering is still to come.
namespace reference {

#define OCTET_REFERENCE(Name, Float, relu)                         \
  class Name : public weight_only::WeightOnlyLayer<Float, relu> {  \
   public:                                                         \
    using WeightOnlyLayer::WeightOnlyLayer;                        \
    static std::shared_ptr<Name> from_float(Module& module);       \
    static std::shared_ptr<Name> from_config(const Attrs& config); \
    std::string type_name() const override;                        \
  };
OCTET_REFERENCE(Linear, nn::Linear, false)
OCTET_REFERENCE(Conv1d, nn::Conv1d, false)
OCTET_REFERENCE(Conv2d, nn::Conv2d, false)
OCTET_REFERENCE(Conv3d, nn::Conv3d, false)
OCTET_REFERENCE(ConvTranspose1d, nn::ConvTranspose1d, false)
OCTET_REFERENCE(ConvTranspose2d, nn::ConvTranspose2d, false)
OCTET_REFERENCE(ConvTranspose3d, nn::ConvTranspose3d, false)
OCTET_REFERENCE(LinearReLU, nn::Linear, true)
OCTET_REFERENCE(ConvReLU1d, nn::Conv1d, true)
OCTET_REFERENCE(ConvReLU2d, nn::Conv2d, true)
OCTET_REFERENCE(ConvReLU3d, nn::Conv3d, true)
#undef OCTET_REFERENCE

}  // namespace reference
}  // namespace octet::nn::quantized
