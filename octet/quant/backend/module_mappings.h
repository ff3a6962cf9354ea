#pragma once
// Which class of module becomes which (torch.ao.quantization.quantization_mappings): what a
// BackendConfig says of single modules. A mapping is a value: take a default, change it, hand it to
// prepare_qat or convert.

#include <functional>
#include <map>
#include <string>
#include <typeindex>
#include <vector>

#include "octet/nn/module.h"

namespace octet::quant {

class BackendConfig;
class Replacement;
enum class QuantMode;

// From the class of a module to how its replacement is made of it.
class ModuleMapping {
 public:
  using Make = std::function<nn::ModulePtr(nn::Module& module)>;

  // `To` has `static std::shared_ptr<To> from_float(nn::Module&)`. Replaces what was there.
  template <typename From, typename To>
  ModuleMapping& map() {
    entries_[std::type_index(typeid(From))] = {
        nn::class_name(typeid(From)), nn::class_name(typeid(To)),
        [](nn::Module& m) -> nn::ModulePtr { return To::from_float(m); }};
    return *this;
  }
  ModuleMapping& map(std::type_index from, const Replacement& to);
  template <typename From>
  ModuleMapping& remove() {
    entries_.erase(std::type_index(typeid(From)));
    return *this;
  }
  bool has(const nn::Module& module) const {
    return entries_.count(std::type_index(module.class_type())) != 0;
  }
  bool has(std::type_index type) const { return entries_.count(type) != 0; }
  // The replacement; null if the class is not mapped.
  nn::ModulePtr make(nn::Module& module) const;
  // "Conv2d -> Conv2d", sorted: for messages and documentation.
  std::vector<std::pair<std::string, std::string>> names() const;

 private:
  struct Entry {
    std::string from, to;
    Make make;
  };
  std::map<std::type_index, Entry> entries_;
};

// What the backend makes of single modules in this mode.
ModuleMapping mapping_of(const BackendConfig& backend, QuantMode mode);
ModuleMapping qat_mapping_of(const BackendConfig& backend);
ModuleMapping reference_mapping_of(const BackendConfig& backend);
// With what eager mode alone has: stubs and functionals, which are static, and tables of embeddings
// in every mode.
ModuleMapping eager_mapping_of(const BackendConfig& backend, QuantMode mode);

// PyTorch's defaults: eager mode's mappings of the native backend.

// Static: float, fused and QAT modules to quantized ones.
const ModuleMapping& get_default_static_quant_module_mappings();
// Float and fused modules to QAT ones.
const ModuleMapping& get_default_qat_module_mappings();
// Float modules to dynamically quantized ones.
const ModuleMapping& get_default_dynamic_quant_module_mappings();
// Float modules to ones that compute in float with quantized weights.
const ModuleMapping& get_default_weight_only_quant_module_mappings();
// Float and fused modules to reference ones.
const ModuleMapping& get_default_static_quant_reference_module_mappings();

}  // namespace octet::quant
