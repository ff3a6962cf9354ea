#include "octet/quant/modules/dynamic.h"

#include <fmt/format.h>

#include "octet/nn/registry.h"
#include "octet/quant/modules/sources_impl.h"

namespace octet::nn::quantized {
namespace {

template <typename Layer>
std::shared_ptr<Layer> layer_from_float(Module& module) {
  using Float = typename Layer::FloatModule;
  auto source = quant::weight_source<Float, Layer::fused_relu>(module, class_name(typeid(Layer)));
  return make<Layer>(*source.layer,
                     quant::quantize_weight(source.weight, module, source.weight_fake_quant,
                                            quant::weight_scale_axis(*source.layer)),
                     source.bias);
}

template <typename Layer>
std::shared_ptr<Layer> layer_from_config(const Attrs& config) {
  auto layer = Layer::FloatModule::from_config(config);
  auto made = make<Layer>(*layer, quant::placeholder_weight(layer->weight, config), layer->bias);
  if constexpr (requires { made->set_reduce_range(true); })
    made->set_reduce_range(config.get_bool("reduce_range"));
  return made;
}

}  // namespace

namespace dynamic {

std::string DynamicModule::type_name() const {
  return "DynamicQuantized" + class_name(this->class_type());
}

std::string DynamicModule::extra_repr() const {
  std::string s = WeightedModule::extra_repr() +
                  fmt::format(", dtype=torch.{}", octet::to_string(weight().dtype()));
  return weight().is_quantized() ? s + ", qscheme=" + qscheme_repr() : s;
}

Attrs DynamicModule::config() const {
  Attrs c = WeightedModule::config();
  return c.set("reduce_range", reduce_range());
}

template <typename Float, bool with_relu>
DynamicLayer<Float, with_relu>::DynamicLayer(const Float& layer, Tensor weight, Tensor bias)
    : DynamicModule(quant::layer_op<Float>() + "_dynamic", quant::layer_attrs(layer, with_relu),
                    quant::layer_pads(layer), layer.Float::extra_repr(), layer.Float::config(),
                    std::move(weight), std::move(bias)) {}

#define OCTET_DYNAMIC(Name)                                         \
  OCTET_MODULE(Name)                                                \
  template class DynamicLayer<Name::FloatModule, Name::fused_relu>; \
  std::shared_ptr<Name> Name::from_float(Module& module) {          \
    return layer_from_float<Name>(module);                          \
  }                                                                 \
  std::shared_ptr<Name> Name::from_config(const Attrs& config) {    \
    return layer_from_config<Name>(config);                         \
  }
OCTET_DYNAMIC(Linear)
OCTET_DYNAMIC(LinearReLU)
OCTET_DYNAMIC(Conv1d)
OCTET_DYNAMIC(Conv2d)
OCTET_DYNAMIC(Conv3d)
OCTET_DYNAMIC(ConvTranspose1d)
OCTET_DYNAMIC(ConvTranspose2d)
OCTET_DYNAMIC(ConvTranspose3d)
OCTET_DYNAMIC(ConvReLU1d)
OCTET_DYNAMIC(ConvReLU2d)
OCTET_DYNAMIC(ConvReLU3d)
#undef OCTET_DYNAMIC

}  // namespace dynamic

namespace weight_only {

template <typename Float, bool with_relu>
WeightOnlyLayer<Float, with_relu>::WeightOnlyLayer(const Float& layer, Tensor weight, Tensor bias)
    : WeightedModule(quant::layer_op<Float>() + "_weight_only",
                     quant::layer_attrs(layer, with_relu), quant::layer_pads(layer),
                     layer.Float::extra_repr(), layer.Float::config(), std::move(weight),
                     std::move(bias)) {}

template <typename Float, bool with_relu>
std::string WeightOnlyLayer<Float, with_relu>::type_name() const {
  return "WeightOnlyQuantized" + class_name(this->class_type());
}

template <typename Float, bool with_relu>
std::string WeightOnlyLayer<Float, with_relu>::extra_repr() const {
  return WeightedModule::extra_repr() + fmt::format(", dtype=torch.{}, qscheme={}",
                                                    octet::to_string(weight().dtype()),
                                                    qscheme_repr());
}

#define OCTET_WEIGHT_ONLY(Name)                                        \
  OCTET_MODULE(Name)                                                   \
  template class WeightOnlyLayer<Name::FloatModule, Name::fused_relu>; \
  std::shared_ptr<Name> Name::from_float(Module& module) {             \
    return layer_from_float<Name>(module);                             \
  }                                                                    \
  std::shared_ptr<Name> Name::from_config(const Attrs& config) {       \
    return layer_from_config<Name>(config);                            \
  }
OCTET_WEIGHT_ONLY(Linear)
OCTET_WEIGHT_ONLY(Conv1d)
OCTET_WEIGHT_ONLY(Conv2d)
OCTET_WEIGHT_ONLY(Conv3d)
OCTET_WEIGHT_ONLY(ConvTranspose1d)
OCTET_WEIGHT_ONLY(ConvTranspose2d)
OCTET_WEIGHT_ONLY(ConvTranspose3d)
OCTET_WEIGHT_ONLY(LinearReLU)
OCTET_WEIGHT_ONLY(ConvReLU1d)
OCTET_WEIGHT_ONLY(ConvReLU2d)
OCTET_WEIGHT_ONLY(ConvReLU3d)
#undef OCTET_WEIGHT_ONLY

}  // namespace weight_only

namespace reference {

#define OCTET_REFERENCE(Name)                                    \
  OCTET_MODULE(Name)                                             \
  std::shared_ptr<Name> Name::from_float(Module& module) {       \
    return layer_from_float<Name>(module);                       \
  }                                                              \
  std::shared_ptr<Name> Name::from_config(const Attrs& config) { \
    return layer_from_config<Name>(config);                      \
  }                                                              \
  std::string Name::type_name() const { return "QuantizedReference" #Name; }
OCTET_REFERENCE(Linear)
OCTET_REFERENCE(Conv1d)
OCTET_REFERENCE(Conv2d)
OCTET_REFERENCE(Conv3d)
OCTET_REFERENCE(ConvTranspose1d)
OCTET_REFERENCE(ConvTranspose2d)
OCTET_REFERENCE(ConvTranspose3d)
OCTET_REFERENCE(LinearReLU)
OCTET_REFERENCE(ConvReLU1d)
OCTET_REFERENCE(ConvReLU2d)
OCTET_REFERENCE(ConvReLU3d)
#undef OCTET_REFERENCE

}  // namespace reference
}  // namespace octet::nn::quantized
