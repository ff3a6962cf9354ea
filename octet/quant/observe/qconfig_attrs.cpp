// QConfigs as data: what saved models keep of Module::qconfig.
#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/quant/observe/qconfig.h"

namespace octet::quant {
namespace {

constexpr const char* kObserver = "observer";
constexpr const char* kFakeQuantize = "fake_quantize";
constexpr const char* kGradScaling = "grad_scaling";

void put(Attrs& to, const std::string& prefix, const ObserverFactory& factory) {
  if (!factory) return;
  Attrs attrs = to_attrs(factory.options());
  attrs.set(kObserver, factory.name());
  if (!factory.fake_quantize_name().empty()) attrs.set(kFakeQuantize, factory.fake_quantize_name());
  if (factory.grad_scaling()) attrs.set(kGradScaling, true);
  for (const auto& [name, value] : attrs) to.set(prefix + name, value);
}

ObserverFactory take(const Attrs& from, const std::string& prefix) {
  Attrs options;
  for (const auto& [name, value] : from)
    if (name.starts_with(prefix)) options.set(name.substr(prefix.size()), value);
  if (options.size() == 0) return {};
  Attrs kept = options;
  for (const char* name : {kObserver, kFakeQuantize, kGradScaling}) options.erase(name);
  ObserverFactory factory(kept.get_string(kObserver), options_from(options));
  if (kept.has(kFakeQuantize)) factory = factory.fake_quantize(kept.get_string(kFakeQuantize));
  if (kept.has(kGradScaling)) factory = factory.with_grad_scaling(kept.get_bool(kGradScaling));
  return factory;
}

// A module's qconfig: unset, nullptr ("leave it float": no attributes), or a QConfig.
constexpr const char* kKind = "kind";

std::optional<Attrs> save(const nn::Module& module) {
  const std::any& q = module.qconfig;
  if (!q.has_value()) return std::nullopt;
  if (q.type() == typeid(std::nullptr_t)) return Attrs{{kKind, std::string("none")}};
  const auto* qconfig = std::any_cast<QConfig>(&q);
  OCTET_CHECK(qconfig, invalid_argument, "its qconfig holds a {}; expected a QConfig or nullptr",
              nn::class_name(q.type()));
  return to_attrs(*qconfig).set(kKind, std::string("QConfig"));
}

void load(nn::Module&, nn::Module& module, const Attrs& data) {
  const std::string& kind = data.get_string(kKind);
  OCTET_CHECK(kind == "none" || kind == "QConfig", invalid_argument, "qconfig: unknown kind '{}'",
              kind);
  Attrs attrs = data;
  attrs.erase(kKind);
  module.qconfig = kind == "none" ? std::any(nullptr) : std::any(qconfig_from(attrs));
}

[[maybe_unused]] const bool g_qconfig_attrs_registered =
    (nn::register_annotation("qconfig", {save, load}), true);

}  // namespace

Attrs to_attrs(const QConfig& qconfig) {
  Attrs attrs;
  put(attrs, "activation.", qconfig.activation);
  put(attrs, "weight.", qconfig.weight);
  return attrs;
}

QConfig qconfig_from(const Attrs& attrs) {
  for (const auto& [name, value] : attrs)
    OCTET_CHECK(name.starts_with("activation.") || name.starts_with("weight."), invalid_argument,
                "qconfig: unknown name '{}'; expected activation.* or weight.*", name);
  return {take(attrs, "activation."), take(attrs, "weight.")};
}

}  // namespace octet::quant
