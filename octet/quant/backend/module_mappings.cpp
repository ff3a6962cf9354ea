#include "octet/quant/backend/module_mappings.h"

#include <algorithm>

#include "octet/nn/registry.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/modules/embedding.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/stubs.h"

namespace octet::quant {

nn::ModulePtr ModuleMapping::make(nn::Module& module) const {
  auto it = entries_.find(std::type_index(module.class_type()));
  return it == entries_.end() ? nullptr : it->second.make(module);
}

ModuleMapping& ModuleMapping::map(std::type_index from, const Replacement& to) {
  entries_[from] = {nn::class_name(from), nn::class_name(to.type()),
                    [to](nn::Module& module) { return to(module); }};
  return *this;
}

std::vector<std::pair<std::string, std::string>> ModuleMapping::names() const {
  std::vector<std::pair<std::string, std::string>> result;
  for (const auto& [type, entry] : entries_) result.emplace_back(entry.from, entry.to);
  std::sort(result.begin(), result.end());
  return result;
}

namespace {

// `replacement` gives what is made of a pattern's module; null: nothing.
template <typename Fn>
ModuleMapping single_modules(const BackendConfig& backend, Fn&& replacement) {
  ModuleMapping mapping;
  for (const BackendPatternConfig& c : backend.configs()) {
    if (c.pattern.size() != 1 || !c.pattern[0].is_module()) continue;
    if (const Replacement* to = replacement(c)) mapping.map(*c.pattern[0].type(), *to);
  }
  return mapping;
}

const BackendConfig& native() {
  static const BackendConfig backend = get_native_backend_config();
  return backend;
}

}  // namespace

ModuleMapping mapping_of(const BackendConfig& backend, QuantMode mode) {
  return single_modules(backend, [mode](const BackendPatternConfig& c) {
    const bool takes_mode =
        std::any_of(c.dtype_configs.begin(), c.dtype_configs.end(),
                    [mode](const DTypeConfig& d) { return mode_of(d) == mode; });
    return takes_mode ? c.quantized_module(mode) : nullptr;
  });
}

ModuleMapping qat_mapping_of(const BackendConfig& backend) {
  return single_modules(backend, [](const BackendPatternConfig& c) {
    return c.qat_module ? &*c.qat_module : nullptr;
  });
}

ModuleMapping reference_mapping_of(const BackendConfig& backend) {
  return single_modules(backend, [](const BackendPatternConfig& c) {
    return c.reference_quantized_module ? &*c.reference_quantized_module : nullptr;
  });
}

ModuleMapping eager_mapping_of(const BackendConfig& backend, QuantMode mode) {
  using namespace nn;
  ModuleMapping mapping = mapping_of(backend, mode)
                              .map<Embedding, quantized::Embedding>()
                              .map<EmbeddingBag, quantized::EmbeddingBag>()
                              .map<qat::Embedding, quantized::Embedding>()
                              .map<qat::EmbeddingBag, quantized::EmbeddingBag>();
  if (mode == QuantMode::statically)
    mapping.map<QuantStub, quantized::Quantize>()
        .map<DeQuantStub, quantized::DeQuantize>()
        .map<FloatFunctional, QFunctional>();
  return mapping;
}

const ModuleMapping& get_default_static_quant_module_mappings() {
  static const ModuleMapping mapping = eager_mapping_of(native(), QuantMode::statically);
  return mapping;
}

const ModuleMapping& get_default_qat_module_mappings() {
  static const ModuleMapping mapping = qat_mapping_of(native());
  return mapping;
}

const ModuleMapping& get_default_dynamic_quant_module_mappings() {
  static const ModuleMapping mapping = eager_mapping_of(native(), QuantMode::dynamically);
  return mapping;
}

const ModuleMapping& get_default_weight_only_quant_module_mappings() {
  static const ModuleMapping mapping = eager_mapping_of(native(), QuantMode::weight_only);
  return mapping;
}

const ModuleMapping& get_default_static_quant_reference_module_mappings() {
  static const ModuleMapping mapping = reference_mapping_of(native());
  return mapping;
}

}  // namespace octet::quant
