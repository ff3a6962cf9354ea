#include "octet/quant/modules/dynamic.h"

#include <fmt/format.h>

#include "octet/nn/registry.h"
#include "octet/quant/modules/sources_impl.h"

namespace octet::nn::quantized {

std::string DynamicModule::type_name() const {
  return "DynamicQuantized" + class_name(class_type());
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

std::string WeightOnlyModule::type_name() const {
  return "WeightOnlyQuantized" + class_name(class_type());
}

std::string WeightOnlyModule::extra_repr() const {
  return WeightedModule::extra_repr() + fmt::format(", dtype=torch.{}, qscheme={}",
                                                    octet::to_string(weight().dtype()),
                                                    qscheme_repr());
}

std::string ReferenceModule::type_name() const {
  return "QuantizedReference" + class_name(class_type());
}

template class QuantizedLayer<DynamicModule, nn::Linear>;
template class QuantizedLayer<DynamicModule, nn::Conv1d>;
template class QuantizedLayer<DynamicModule, nn::Conv2d>;
template class QuantizedLayer<DynamicModule, nn::Conv3d>;
template class QuantizedLayer<DynamicModule, nn::ConvTranspose1d>;
template class QuantizedLayer<DynamicModule, nn::ConvTranspose2d>;
template class QuantizedLayer<DynamicModule, nn::ConvTranspose3d>;
template class QuantizedLayer<DynamicModule, nn::Linear, true>;
template class QuantizedLayer<DynamicModule, nn::Conv1d, true>;
template class QuantizedLayer<DynamicModule, nn::Conv2d, true>;
template class QuantizedLayer<DynamicModule, nn::Conv3d, true>;

template class QuantizedLayer<WeightOnlyModule, nn::Linear>;
template class QuantizedLayer<WeightOnlyModule, nn::Conv1d>;
template class QuantizedLayer<WeightOnlyModule, nn::Conv2d>;
template class QuantizedLayer<WeightOnlyModule, nn::Conv3d>;
template class QuantizedLayer<WeightOnlyModule, nn::ConvTranspose1d>;
template class QuantizedLayer<WeightOnlyModule, nn::ConvTranspose2d>;
template class QuantizedLayer<WeightOnlyModule, nn::ConvTranspose3d>;
template class QuantizedLayer<WeightOnlyModule, nn::Linear, true>;
template class QuantizedLayer<WeightOnlyModule, nn::Conv1d, true>;
template class QuantizedLayer<WeightOnlyModule, nn::Conv2d, true>;
template class QuantizedLayer<WeightOnlyModule, nn::Conv3d, true>;

template class QuantizedLayer<ReferenceModule, nn::Linear>;
template class QuantizedLayer<ReferenceModule, nn::Conv1d>;
template class QuantizedLayer<ReferenceModule, nn::Conv2d>;
template class QuantizedLayer<ReferenceModule, nn::Conv3d>;
template class QuantizedLayer<ReferenceModule, nn::ConvTranspose1d>;
template class QuantizedLayer<ReferenceModule, nn::ConvTranspose2d>;
template class QuantizedLayer<ReferenceModule, nn::ConvTranspose3d>;
template class QuantizedLayer<ReferenceModule, nn::Linear, true>;
template class QuantizedLayer<ReferenceModule, nn::Conv1d, true>;
template class QuantizedLayer<ReferenceModule, nn::Conv2d, true>;
template class QuantizedLayer<ReferenceModule, nn::Conv3d, true>;

namespace {
[[maybe_unused]] const bool g_dynamic_registered = [] {
  for_each_type(quant::WeightedForms(), []<typename Forms>() {
    const std::string scope = "octet::nn::quantized::", name = Forms::name;
    register_module<typename Forms::Dynamic>(scope + "dynamic::" + name);
    register_module<typename Forms::WeightOnly>(scope + "weight_only::" + name);
    register_module<typename Forms::Reference>(scope + "reference::" + name);
  });
  return true;
}();
}  // namespace

}  // namespace octet::nn::quantized
