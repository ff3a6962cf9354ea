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

namespace {
[[maybe_unused]] const bool g_dynamic_registered = [] {
  for_each_type(quant::WeightedForms(), []<typename Forms>() {
    const std::string scope = "octet::nn::quantized::", name = Forms::name;
    quant::register_form<typename Forms::Dynamic>(scope + "dynamic::" + name);
    quant::register_form<typename Forms::WeightOnly>(scope + "weight_only::" + name);
    quant::register_form<typename Forms::Reference>(scope + "reference::" + name);
  });
  return true;
}();
}  // namespace

}  // namespace octet::nn::quantized
