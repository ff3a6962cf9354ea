#include "octet/debug/numeric_suite.h"

#include <algorithm>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/dropout.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/module_mappings.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/observe/fake_quantize.h"

namespace octet::debug {

using nn::Module;
using nn::ModulePtr;

namespace {

// The path of a key and its last part: "conv", "weight".
std::pair<std::string, std::string> parted(const std::string& key) {
  const size_t dot = key.rfind('.');
  if (dot == std::string::npos) return {"", key};
  return {key.substr(0, dot), key.substr(dot + 1)};
}

std::string joined(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

// Of the key with this last part in `dict` the one for `path`: there or one part below; null if
// there is none.
template <typename Value>
const Value* match(const std::map<std::string, Value>& dict, const std::string& path,
                   const std::string& last) {
  if (auto it = dict.find(joined(path, last)); it != dict.end()) return &it->second;
  for (const auto& [key, value] : dict) {
    const auto [at, name] = parted(key);
    if (name == last && parted(at).first == path && !at.empty()) return &value;
  }
  return nullptr;
}

}  // namespace

// -- weights --------------------------------------------------------------------------------------

ComparedWeights compare_weights(const StateDict& float_dict, const StateDict& quantized_dict) {
  ComparedWeights result;
  for (const auto& [key, value] : quantized_dict) {
    const auto [path, name] = parted(key);
    // weight_ih_l0 and its like of recurrent layers
    if (name != "weight" && !name.starts_with("weight_ih_l") && !name.starts_with("weight_hh_l"))
      continue;
    if (const Tensor* w = match(float_dict, path, name))
      result[key] = {{"float", w->detach()}, {"quantized", value}};
  }
  return result;
}

ComparedWeights compare_weights(Module& float_model, Module& quantized_model) {
  return compare_weights(float_model.state_dict(), quantized_model.state_dict());
}

// -- loggers --------------------------------------------------------------------------------------

void Logger::log(const Tensor&) {
  OCTET_FAIL(invalid_argument, "{}: not for single results: use OutputLogger", type_name());
}
void Logger::log(const Tensor&, const Tensor&) {
  OCTET_FAIL(invalid_argument, "{}: not for pairs of results: use ShadowLogger", type_name());
}
Tensor Logger::forward(Tensor x) {
  log(x);
  return x;
}

void OutputLogger::log(const Tensor& x) { stats["tensor_val"].push_back(x.detach()); }

namespace {
// What a result that is not the first is called.
std::string numbered(const std::string& name, size_t result) {
  return name + "." + std::to_string(result);
}
}  // namespace

void OutputLogger::log_results(const std::vector<Tensor>& xs) {
  log(xs.at(0));
  for (size_t i = 1; i < xs.size(); ++i) stats[numbered("tensor_val", i)].push_back(xs[i].detach());
}

void ShadowLogger::log_results(const std::vector<Tensor>& xs, const std::vector<Tensor>& ys) {
  log(xs.at(0), ys.at(0));
  for (size_t i = 1; i < std::min(xs.size(), ys.size()); ++i) {
    stats[numbered("quantized", i)].push_back(xs[i].detach());
    stats[numbered("float", i)].push_back(ys[i].detach());
  }
}

void ErrorLogger::log_results(const std::vector<Tensor>& xs, const std::vector<Tensor>& ys) {
  log(xs.at(0), ys.at(0));
  for (size_t i = 1; i < std::min(xs.size(), ys.size()); ++i) {
    if (further.size() < i) further.emplace_back();
    further[i - 1].add(ys[i], xs[i]);
  }
}

void ShadowLogger::log(const Tensor& x, const Tensor& y) {
  stats["quantized"].push_back(x.detach());
  stats["float"].push_back(y.detach());
}

namespace {
void collect_stats(const Module& module, const std::string& path, LoggerDict& out) {
  for (const auto& [name, child] : module.children())
    if (auto* logger = dynamic_cast<const Logger*>(child.get())) {
      out[joined(path, "stats")] = logger->stats;
      break;
    }
  for (const auto& [name, child] : module.children())
    if (child) collect_stats(*child, joined(path, name), out);
}
}  // namespace

LoggerDict get_logger_dict(const Module& model, const std::string& prefix) {
  LoggerDict result;
  collect_stats(model, prefix, result);
  return result;
}

// -- shadows --------------------------------------------------------------------------------------

namespace {
Tensor dequantized(const Tensor& x) { return x.defined() && x.is_quantized() ? x.dequantize() : x; }
std::vector<Tensor> dequantized(std::vector<Tensor> xs) {
  for (Tensor& x : xs) x = dequantized(x);
  return xs;
}
void add_parts(Module& shadow, ModulePtr q_module, ModulePtr float_module,
               const MakeLogger& logger) {
  shadow.train(q_module->training());
  shadow.add_child("orig_module", std::move(q_module));
  shadow.add_child("shadow_module", std::move(float_module));
  shadow.add_child("logger", logger());
}
void log_both(const Module& shadow, const std::vector<Tensor>& xs, const std::vector<Tensor>& ys) {
  shadow.submodule("logger")->as<Logger>().log_results(xs, ys);
}
}  // namespace

Shadow::Shadow(ModulePtr q_module, ModulePtr float_module, const MakeLogger& logger) {
  add_parts(*this, std::move(q_module), std::move(float_module), logger);
}

Tensor Shadow::forward(Tensor x) {
  Tensor output = (*submodule("orig_module"))(x);
  log_both(*this, {output}, {(*submodule("shadow_module"))(dequantized(x))});
  return output;
}

std::vector<Tensor> Shadow::forward(std::vector<Tensor> inputs) {
  std::vector<Tensor> outputs = (*submodule("orig_module"))(inputs);
  std::vector<Tensor> shadows = (*submodule("shadow_module"))(dequantized(inputs));
  log_both(*this, outputs, shadows);
  return outputs;
}

ShadowFunctional::ShadowFunctional(ModulePtr q_module, ModulePtr float_module,
                                   const MakeLogger& logger) {
  add_parts(*this, std::move(q_module), std::move(float_module), logger);
}

Tensor ShadowFunctional::apply(const char* op, const std::vector<Tensor>& operands,
                               const Attrs& attrs) {
  Tensor output = submodule("orig_module")->operation(op, operands, attrs);
  log_both(*this, {output},
           {submodule("shadow_module")->operation(op, dequantized(operands), attrs)});
  return output;
}

Tensor ShadowFunctional::apply_scalar(const char* op, const Tensor& x, double y) {
  return apply(op, {x}, {{"value", y}});
}

namespace {

// Whether both are built of the same classes.
bool same_classes(Module& a, Module& b) {
  std::vector<std::type_index> of_a, of_b;
  for (auto& [path, m] : a.named_modules()) of_a.emplace_back(m->class_type());
  for (auto& [path, m] : b.named_modules()) of_b.emplace_back(m->class_type());
  return of_a == of_b;
}

}  // namespace

void prepare_model_with_stubs(Module& float_module, Module& q_module,
                              const std::set<std::type_index>& module_swap_list,
                              const MakeLogger& logger) {
  std::vector<std::pair<std::string, ModulePtr>> shadows;
  for (const auto& [name, q_child] : q_module.children()) {
    if (!q_child || !float_module.has_submodule(name)) continue;
    ModulePtr float_child = float_module.submodule(name);
    if (!module_swap_list.count(std::type_index(float_child->class_type())))
      prepare_model_with_stubs(*float_child, *q_child, module_swap_list, logger);
    else if (!same_classes(*q_child, *float_child))
      shadows.emplace_back(name,
                           dynamic_cast<nn::quantized::FloatFunctional*>(q_child.get())
                               ? ModulePtr(nn::make<ShadowFunctional>(q_child, float_child, logger))
                               : ModulePtr(nn::make<Shadow>(q_child, float_child, logger)));
  }
  for (auto& [name, shadow] : shadows) q_module.set_submodule(name, std::move(shadow));
}

LoggerDict compare_model_stub(Module& float_model, Module& q_model,
                              const std::set<std::type_index>& module_swap_list,
                              const std::vector<Tensor>& data, const MakeLogger& logger) {
  autograd::NoGrad no_grad;
  prepare_model_with_stubs(float_model, q_model, module_swap_list, logger);
  (void)q_model(data);
  return get_logger_dict(q_model);
}

// -- results --------------------------------------------------------------------------------------

bool is_compared_output(const Module& module) {
  static const std::vector<const quant::ModuleMapping*> from = {
      &quant::get_default_static_quant_module_mappings(), &quant::get_default_qat_module_mappings(),
      &quant::get_default_dynamic_quant_module_mappings()};
  static const std::set<std::type_index> to = [] {
    std::set<std::type_index> types = {typeid(nn::quantized::Quantize),
                                       typeid(nn::quantized::DeQuantize)};
    const quant::BackendConfig backend = quant::get_native_backend_config();
    for (const quant::BackendPatternConfig& config : backend.configs()) {
      if (config.qat_module) types.insert(config.qat_module->type());
      for (const auto& [mode, made] : config.quantized_modules) types.insert(made.type());
    }
    return types;
  }();
  return to.count(std::type_index(module.class_type())) ||
         std::any_of(from.begin(), from.end(),
                     [&](const quant::ModuleMapping* mapping) { return mapping->has(module); });
}

namespace {

bool is_functional(const Module& m) {
  return dynamic_cast<const nn::quantized::FloatFunctional*>(&m) != nullptr;
}

void log_outputs(Module& m, const std::vector<Tensor>&, std::vector<Tensor>& outputs) {
  m.submodule(quant::kActivationPostProcess)->as<Logger>().log_results(outputs);
}

void attach_loggers(Module& m, const std::string& path, const MakeLogger& logger,
                    const std::function<bool(const Module&)>& allow) {
  OCTET_CHECK(!m.has_submodule(quant::kActivationPostProcess), invalid_argument,
              "prepare_model_outputs: {} has an {} already: give a model that is not prepared",
              path.empty() ? m.type_name() : "'" + path + "'", quant::kActivationPostProcess);
  if (dynamic_cast<nn::Dropout*>(&m) || dynamic_cast<quant::DeQuantStub*>(&m)) return;
  if (m.qconfig.type() == typeid(nullptr)) return;  // left float on purpose
  const bool functional = is_functional(m);
  const bool whole = functional || dynamic_cast<nn::intrinsic::FusedModule*>(&m) ||
                     (m.children().empty() && allow(m));
  if (whole) {
    m.add_child(quant::kActivationPostProcess, logger());
    // A FloatFunctional calls its child by itself.
    if (!functional) m.add_forward_hook(quant::kActivationPostProcess, log_outputs);
    return;
  }
  for (const auto& [name, child] : std::vector(m.children()))
    if (child) attach_loggers(*child, joined(path, name), logger, allow);
}

}  // namespace

void prepare_model_outputs(Module& float_module, Module& q_module, const MakeLogger& logger,
                           const std::function<bool(const Module&)>& allow) {
  attach_loggers(float_module, "", logger, allow);
  attach_loggers(q_module, "", logger, allow);
}

LoggerDict get_matching_activations(const Module& float_module, const Module& q_module) {
  const LoggerDict floats = get_logger_dict(float_module);
  LoggerDict result;
  for (const auto& [key, stats] : get_logger_dict(q_module)) {
    const auto values = stats.find("tensor_val");
    if (values == stats.end() || values->second.empty()) continue;
    const LoggerStats* found = match(floats, parted(key).first, "stats");
    if (!found || !found->count("tensor_val")) continue;
    LoggerStats& both = result[key];
    for (const auto& [name, tensors] : stats) {  // "tensor_val", "tensor_val.1" ...
      const std::string prefix = "tensor_val";
      if (name.rfind(prefix, 0) != 0 || !found->count(name)) continue;
      both["float" + name.substr(prefix.size())] = found->at(name);
      both["quantized" + name.substr(prefix.size())] = tensors;
    }
  }
  return result;
}

LoggerDict compare_model_outputs(Module& float_model, Module& q_model,
                                 const std::vector<Tensor>& data, const MakeLogger& logger,
                                 const std::function<bool(const Module&)>& allow) {
  autograd::NoGrad no_grad;
  prepare_model_outputs(float_model, q_model, logger, allow);
  (void)float_model(data);
  (void)q_model(data);
  return get_matching_activations(float_model, q_model);
}

}  // namespace octet::debug
