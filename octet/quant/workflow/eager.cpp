#include "octet/quant/workflow/eager.h"

#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/embedding.h"
#include "octet/nn/registry.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/modules/attention.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/lstm.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/flow_impl.h"
#include "octet/quant/workflow/weight_scales_impl.h"

namespace octet::quant {

using nn::Module;
using nn::ModulePtr;

// -- qconfigs -------------------------------------------------------------------------------------

QConfigSpec& QConfigSpec::set(const std::string& path, std::optional<QConfig> qconfig) {
  by_path_[path] = std::move(qconfig);
  return *this;
}

QConfigSpec& QConfigSpec::set_type(const std::type_info& type, std::optional<QConfig> qconfig) {
  by_type_[std::type_index(type)] = {nn::class_name(type), std::move(qconfig)};
  return *this;
}

namespace {

std::type_index type_of(const Module& m) { return std::type_index(m.class_type()); }

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

std::any as_any(const std::optional<QConfig>& qconfig) {
  return qconfig ? std::any(*qconfig) : std::any(nullptr);
}

// The order of precedence: the module's own, its path's, its class's, that of the module around it.
void propagate(Module& m, const std::string& path, const QConfigSpec& spec,
               const std::any& around) {
  if (!m.qconfig.has_value()) {
    if (auto it = spec.by_path().find(path); it != spec.by_path().end())
      m.qconfig = as_any(it->second);
    else if (auto t = spec.by_type().find(type_of(m)); t != spec.by_type().end())
      m.qconfig = as_any(t->second.qconfig);
    else
      m.qconfig = around;
  }
  for (const auto& [name, child] : m.children())
    if (child && !is_activation_post_process(*child))
      propagate(*child, join(path, name), spec, m.qconfig);
}

}  // namespace

void propagate_qconfig(Module& model, const QConfigSpec& spec) {
  std::vector<std::string> paths, classes;
  std::set<std::type_index> types;
  for (auto& [path, module] : model.named_modules()) {
    paths.push_back(path);
    if (types.insert(type_of(*module)).second)
      classes.push_back(nn::class_name(module->class_type()));
  }
  for (const auto& [path, qconfig] : spec.by_path())
    OCTET_CHECK(std::find(paths.begin(), paths.end(), path) != paths.end(), not_found,
                "qconfig for '{}': {} has no such submodule{}", path, model.type_name(),
                did_you_mean(path, paths));
  for (const auto& [type, entry] : spec.by_type())
    OCTET_CHECK(types.count(type), not_found,
                "qconfig for the class {}: {} has no such module; its classes are {}", entry.name,
                model.type_name(), fmt::join(classes, ", "));
  propagate(model, "", spec, {});
}

// -- what is done with a module -------------------------------------------------------------------

const CustomModules& default_custom_modules() {
  static const CustomModules modules = [] {
    CustomModules c;
    c.float_to_observed_custom_module_class<nn::LSTM, nn::quantizable::LSTM>();
    c.float_to_observed_custom_module_class<nn::LSTMCell, nn::quantizable::LSTMCell>();
    c.float_to_observed_custom_module_class<nn::MultiheadAttention,
                                            nn::quantizable::MultiheadAttention>();
    c.observed_to_quantized_custom_module_class<nn::quantizable::LSTM, nn::quantized::LSTM>();
    c.observed_to_quantized_custom_module_class<nn::quantizable::MultiheadAttention,
                                                nn::quantized::MultiheadAttention>();
    return c;
  }();
  return modules;
}

namespace {

// Tables of embeddings are quantized by rows and give floats, or stay as they are.
bool is_table(const Module& m) {
  return dynamic_cast<const nn::Embedding*>(&m) || dynamic_cast<const nn::EmbeddingBag*>(&m);
}

// What only eager mode has, so that no backend knows it.
bool is_eager_only(const Module& m) {
  return dynamic_cast<const QuantStub*>(&m) || dynamic_cast<const DeQuantStub*>(&m) ||
         dynamic_cast<const nn::quantized::FloatFunctional*>(&m);
}

// What a module's qconfig asks for.
std::optional<QuantMode> wanted_mode(const Module& m) {
  const QConfig* q = qconfig_of(m);
  if (!q || (is_table(m) && !quantizes_rows(*q))) return std::nullopt;
  return is_table(m) ? QuantMode::weight_only : mode_of(*q);
}

// What the options' backend, or their mapping in its place, makes of modules.
class Forms {
 public:
  explicit Forms(const EagerOptions& options)
      : given_(options.mapping ? &*options.mapping : nullptr),
        backend_(options.backend_config ? *options.backend_config : get_native_backend_config()) {
    for (QuantMode mode : {QuantMode::statically, QuantMode::dynamically, QuantMode::weight_only})
      by_mode_[mode] = eager_mapping_of(backend_, mode);
    qat_ = qat_mapping_of(backend_);
  }
  // Whether there is a quantized form, in any mode.
  bool has(const Module& m) const {
    if (runs_as_it_is(m)) return false;
    const auto has_form = [&](const auto& entry) { return entry.second.has(m); };
    return (given_ && given_->has(m)) || std::any_of(by_mode_.begin(), by_mode_.end(), has_form);
  }
  bool has(const Module& m, QuantMode mode) const { return of(mode).has(m); }
  const ModuleMapping& of(QuantMode mode) const { return given_ ? *given_ : by_mode_.at(mode); }
  const ModuleMapping& qat() const { return given_ ? *given_ : qat_; }

  NodeDecision decide(const Module& m) const {
    const std::optional<QuantMode> wanted = wanted_mode(m);
    if (wanted && (given_ || is_eager_only(m) || !backend_.find_module(m.class_type())))
      return {.mode = wanted};
    if (is_table(m) && qconfig_of(m) && !wanted)
      return {.reason = "rows of embeddings need float_qparams_weight_only_qconfig()"};
    std::optional<QConfig> qconfig;
    if (const QConfig* q = qconfig_of(m))
      qconfig = is_table(m) ? QConfig{ObserverFactory(), q->weight} : *q;
    else if (m.qconfig.has_value())
      return {.reason = "its qconfig is nullptr"};
    return decide_module(m, qconfig, backend_);
  }

  // The observer of a module's result: that of its qconfig, or the fixed qparams of functions whose
  // range is known.
  ObserverFactory result_observer(const Module& m) const {
    const BackendPatternConfig* config = backend_.find_module(m.class_type());
    const QConfig& q = *qconfig_of(m);
    return config ? quant::result_observer(*config, q) : q.activation;
  }

 private:
  // An average without qparams of its own, on its operand's codes.
  bool runs_as_it_is(const Module& m) const {
    const QConfig* q = qconfig_of(m);
    return !given_ && is_average(m) && !(q && q->activation.options().own_averages);
  }

  const ModuleMapping* given_;
  const BackendConfig backend_;
  std::map<QuantMode, ModuleMapping> by_mode_;
  ModuleMapping qat_;
};

// Of its own: "weight", or several: "weight_ih_l0", "in_proj_weight".
bool has_weight(const Module& m) {
  for (auto& [name, tensor] : const_cast<Module&>(m).own_tensors())
    if (tensor->defined() && name.find("weight") != std::string::npos && tensor->dim() >= 2)
      return true;
  return false;
}

// Networks made of observed parts, which take and give codes as a whole. No tensor is followed
// inside them: the first states, masks and what attention computes in float come from nowhere.
bool is_composite(const Module& m) {
  return dynamic_cast<const nn::quantizable::LSTM*>(&m) ||
         dynamic_cast<const nn::quantizable::LSTMCell*>(&m) ||
         dynamic_cast<const nn::quantizable::MultiheadAttention*>(&m);
}

// Error where a qconfig cannot be honoured, before any data is seen.
void check_qconfig(const Module& m, const std::string& path, const QConfig& q, bool qat) {
  std::string who = path.empty() ? m.type_name() : path;
  if (mode_of(q) == QuantMode::statically) {
    const ObserverOptions& a = q.activation.options();
    OCTET_CHECK(!is_per_channel(a.qscheme), invalid_argument,
                "{}: results have one scale per tensor; got {}: use a per-tensor "
                "observer for activations",
                who, to_string(q.activation));
    OCTET_CHECK(
        !q.activation.chooses_qparams() || is_activation_dtype(a.dtype), unsupported,
        "{}: results are quantized to codes of 8 or 16 bits (quint8, qint8, quint16, qint16); got "
        "{}",
        who, to_string(q.activation));
  }
  OCTET_CHECK(
      !quantizes_rows(q) || is_table(m) || !get_default_dynamic_quant_module_mappings().has(m),
      invalid_argument, "{}: float zero points are for embeddings; got {}", who,
      to_string(q.weight));
  if (!q.weight || !has_weight(m) || is_table(m)) return;
  OCTET_CHECK(!qat || !q.weight.fake_quantize_name().empty(), invalid_argument,
              "{}: prepare_qat needs a qconfig whose weight is fake-quantized, got {}: use "
              "get_default_qat_qconfig()",
              who, to_string(q));
}

// -- hooks ----------------------------------------------------------------------------------------

constexpr const char* kFlowHook = "octet.flow";
constexpr const char* kInputObserver = "activation_pre_process";  // of dynamic layers in training

// What a module is to the tensors that flow through it in calibration.
enum class Role {
  none,
  container,
  quantized,
  source,
  functional,
  floating,
  dequantizing,
  composite
};
constexpr const char* kRoles[] = {"none",       "container", "quantized",    "source",
                                  "functional", "floating",  "dequantizing", "composite"};

// What prepare() leaves with the model and with each module it follows.
struct Prepared {
  std::shared_ptr<Flow> flow;
  Role role = Role::none;
  std::string path;
};

// Result i's observer: "activation_post_process", then "activation_post_process_1", ...
std::string observer_name(size_t i) {
  return i == 0 ? kActivationPostProcess
                : std::string(kActivationPostProcess) + "_" + std::to_string(i);
}

// Results go through the module's observers; those of further results are made when they are first
// seen.
void observe_results(Module& m, const std::vector<Tensor>&, std::vector<Tensor>& outputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].defined() || !is_floating(outputs[i].dtype())) continue;
    std::string name = observer_name(i);
    if (!m.has_submodule(name)) {
      if (!qconfig_of(m)) continue;
      m.add_child(name, qconfig_of(m)->activation.make_module(m.type_name() + " result " +
                                                              std::to_string(i)));
    }
    outputs[i] = (*m.submodule(name))(outputs[i]);
  }
}

void attach_observer(Module& m, const std::string& path, const ObserverFactory& observer) {
  m.add_child(kActivationPostProcess, observer.make_module(path.empty() ? m.type_name() : path));
  m.add_forward_hook(kActivationPostProcess, observe_results);
}

void observe_input(Module& m, std::vector<Tensor>& inputs) {
  inputs[0] = (*m.submodule(kInputObserver))(inputs[0]);
}

// In training a dynamic layer sees the input that it will quantize at run time.
void attach_input_observer(Module& m, const std::string& path) {
  m.add_child(kInputObserver, qconfig_of(m)->activation.make_module(path + " input"));
  m.add_forward_pre_hook(kInputObserver, observe_input);
}

// Names the module while it runs.
void follow_container(Module& m, const std::string& path, const std::shared_ptr<Flow>& flow) {
  m.add_forward_pre_hook(
      kFlowHook, [flow, path](Module&, std::vector<Tensor>&) { flow->running.push_back(path); });
  m.add_forward_hook(kFlowHook,
                     [flow, path](Module&, const std::vector<Tensor>&, std::vector<Tensor>&) {
                       // left by an exception
                       while (!flow->running.empty() && flow->running.back() != path)
                         flow->running.pop_back();
                       if (!flow->running.empty()) flow->running.pop_back();
                     });
}

// A module that will be quantized: takes quantized inputs (the first `wanted`), gives quantized
// results.
void follow_quantized(Module& m, const std::string& path, const std::shared_ptr<Flow>& flow,
                      size_t wanted) {
  m.add_forward_pre_hook(kFlowHook, [=](Module& module, std::vector<Tensor>& inputs) {
    const std::string source = inputs.empty() ? "" : Flow::scale_source(inputs[0]);
    if (!source.empty()) flow->scale_sources[path].insert(source);
    for (size_t i = 0; i < inputs.size(); ++i) {
      Tensor& x = inputs[i];
      if (i < wanted && x.defined() && is_floating(x.dtype()) && !Flow::marked(x))
        flow->problem(
            fmt::format("'{}' ({}) will be quantized but its input stays {}: put a QuantStub "
                        "before it, or leave it "
                        "float (qconfig = nullptr)",
                        path, module.type_name(), octet::to_string(x.dtype())));
      x = Flow::unmarked(x);
    }
  });
  m.add_forward_hook(kFlowHook,
                     [=](Module&, const std::vector<Tensor>&, std::vector<Tensor>& outputs) {
                       for (Tensor& y : outputs) flow->mark(y, path);
                     });
}

// A module whose inputs and results are float after convert().
void follow_float(Module& m, const std::string& path, const std::shared_ptr<Flow>& flow,
                  bool dequantizes) {
  m.add_forward_pre_hook(kFlowHook, [=](Module& module, std::vector<Tensor>& inputs) {
    for (Tensor& x : inputs) {
      if (!dequantizes && Flow::marked(x))
        flow->problem(
            fmt::format("'{}' ({}) stays float but its input will be quantized, from '{}': put a "
                        "DeQuantStub between",
                        path, module.type_name(), Flow::producer(x)));
      x = Flow::unmarked(x);
    }
  });
}

// FloatFunctional observes its results itself.
void follow_functional(nn::quantized::FloatFunctional& functional, const std::string& path,
                       const std::shared_ptr<Flow>& flow) {
  functional.set_follow(
      [flow, path](const char* op, std::vector<Tensor>& operands) {
        for (Tensor& x : operands) {
          if (!Flow::marked(x))
            flow->problem(fmt::format(
                "'{}.{}' will be quantized but an operand stays {}: put a QuantStub before it",
                path, op, octet::to_string(x.dtype())));
          x = Flow::unmarked(x);
        }
      },
      [flow, path](Tensor& y) { flow->mark(y, path); });
}

void follow(Module& m, const std::string& path, Role role, const std::shared_ptr<Flow>& flow) {
  m.prepared = Prepared{flow, role, path};
  switch (role) {
    case Role::none:
      return;
    case Role::container:
      return follow_container(m, path, flow);
    case Role::quantized:
      return follow_quantized(m, path, flow, SIZE_MAX);
    case Role::source:
      return follow_quantized(m, path, flow, 0);
    // x and states; query, key and value: no masks
    case Role::composite:
      return follow_quantized(m, path, flow, 3);
    case Role::functional:
      return follow_functional(m.as<nn::quantized::FloatFunctional>(), path, flow);
    case Role::floating:
      return follow_float(m, path, flow, false);
    case Role::dequantizing:
      return follow_float(m, path, flow, true);
  }
}

// Saved models know what prepare() did to each module, and what calibration has found so far.
std::optional<Attrs> save_prepared(const Module& m) {
  Attrs data;
  if (const auto* prepared = std::any_cast<Prepared>(&m.prepared)) {
    data.set("role", std::string(kRoles[static_cast<size_t>(prepared->role)]))
        .set("path", prepared->path);
    const auto& problems = prepared->flow->problems();
    if (prepared->path.empty() && !problems.empty())
      data.set("problems", fmt::format("{}", fmt::join(problems, "\n")));
    const auto& sources = prepared->flow->scale_sources;
    if (auto it = sources.find(prepared->path); it != sources.end())
      data.set("scale_sources", fmt::format("{}", fmt::join(it->second, "\n")));
  }
  if (m.has_forward_hook(kActivationPostProcess)) data.set("observes_results", true);
  if (m.has_forward_hook(kInputObserver)) data.set("observes_input", true);
  return data.size() ? std::optional<Attrs>(data) : std::nullopt;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < text.size();) {
    const size_t end = std::min(text.find('\n', i), text.size());
    lines.push_back(text.substr(i, end - i));
    i = end + 1;
  }
  return lines;
}

void load_prepared(Module& root, Module& m, const Attrs& data) {
  if (data.has("observes_results")) m.add_forward_hook(kActivationPostProcess, observe_results);
  if (data.has("observes_input")) m.add_forward_pre_hook(kInputObserver, observe_input);
  if (!data.has("role")) return;
  const auto* role = std::find(std::begin(kRoles), std::end(kRoles), data.get_string("role"));
  OCTET_CHECK(role != std::end(kRoles), invalid_argument, "prepared: unknown role '{}'",
              data.get_string("role"));
  if (!std::any_cast<Prepared>(&root.prepared)) root.prepared = Prepared{std::make_shared<Flow>()};
  std::shared_ptr<Flow> flow = std::any_cast<Prepared>(&root.prepared)->flow;
  follow(m, data.get_string("path"), static_cast<Role>(role - kRoles), flow);
  if (data.has("problems"))
    for (const std::string& line : lines_of(data.get_string("problems"))) flow->problem(line);
  if (data.has("scale_sources"))
    for (const std::string& line : lines_of(data.get_string("scale_sources")))
      flow->scale_sources[data.get_string("path")].insert(line);
}

[[maybe_unused]] const bool g_registered =
    (nn::register_annotation("prepared", {save_prepared, load_prepared}), true);

// Takes away what prepare() added.
void strip(Module& m) {
  for (size_t i = 0; m.remove_child(observer_name(i)); ++i) {
  }
  m.remove_child(kInputObserver);
  for (const char* name : {kActivationPostProcess, kInputObserver, kFlowHook})
    m.remove_forward_hook(name);
  m.prepared.reset();
}

// -- prepare --------------------------------------------------------------------------------------

class Preparer {
 public:
  Preparer(const EagerOptions& options, bool qat)
      : options_(options), forms_(options), qat_(qat), flow_(std::make_shared<Flow>()) {}

  ModulePtr run(const ModulePtr& model) {
    const char* who = qat_ ? "prepare_qat" : "prepare";
    model->require_made(who);
    for (auto& [path, module] : model->named_modules())
      OCTET_CHECK(!is_activation_post_process(*module) ||
                      path.find("weight_fake_quant") != std::string::npos,
                  invalid_argument,
                  "{}: the model is prepared already ('{}' is a {}): convert it, or prepare the "
                  "float model",
                  who, path, module->type_name());
    OCTET_CHECK(model->training() == qat_, invalid_argument,
                "{}: the model is in {} mode: call {} first", who,
                model->training() ? "training" : "eval", qat_ ? "train()" : "eval()");
    ModulePtr root = options_.inplace ? model : model->clone();
    propagate_qconfig(*root);
    bool any = false;
    for (auto& [path, module] : root->named_modules()) {
      const QConfig* q = qconfig_of(*module);
      any = any || q;
      if (q) check_qconfig(*module, path, *q, qat_);
    }
    OCTET_CHECK(any, invalid_argument,
                "{}: no module of {} has a qconfig, so nothing was selected: set model->qconfig = "
                "quant::{}() first, or that of the submodules to quantize",
                who, root->type_name(), qat_ ? "get_default_qat_qconfig" : "get_default_qconfig");
    place(root, "");
    OCTET_CHECK(selected_, invalid_argument,
                "{}: {} has a qconfig but no module that can be quantized", who, root->type_name());
    if (!root->prepared.has_value()) follow(*root, "", Role::none);
    return root;
  }

 private:
  // What stands in this place after preparing.
  void place(ModulePtr& at, const std::string& path) {
    if (auto it = done_.find(at.get()); it != done_.end()) {  // one module in two places
      at = it->second;
      return;
    }
    ModulePtr before = at;
    prepare(at, path);
    done_[before.get()] = at;
    done_[at.get()] = at;
    keep_.push_back(before);
  }

  void prepare(ModulePtr& at, const std::string& path) {
    Module& m = *at;
    const std::optional<QuantMode> wanted = wanted_mode(m);
    if (auto it = options_.custom.float_to_observed.find(type_of(m));
        it != options_.custom.float_to_observed.end() && wanted) {
      ModulePtr observed = it->second(m);
      OCTET_CHECK(observed, invalid_argument,
                  "{}: from_float of the observed custom module of a {} gave nothing", path,
                  m.type_name());
      if (!observed->qconfig.has_value()) observed->qconfig = m.qconfig;
      observed->train(m.training());
      at = observed;
      selected_ = true;
      if (wanted == QuantMode::statically) {
        attach_observer(*at, path, forms_.result_observer(*at));
        follow(*at, path, Role::source);
      }
      return;
    }
    if (wanted == QuantMode::statically && prepare_composite(at, path)) return;
    if (dynamic_cast<DeQuantStub*>(&m)) return follow(m, path, Role::dequantizing);
    if (dynamic_cast<nn::quantized::FloatFunctional*>(&m))
      return prepare_functional(m, path, wanted);
    const std::optional<QuantMode> mode = forms_.decide(m).mode;
    if (qat_ && mode) {
      if (ModulePtr qat = forms_.qat().make(m)) {
        qat->take_hooks(m, m);
        at = qat;
      }
    }
    if (!forms_.has(*at)) return prepare_children(at, path);
    bool stub = dynamic_cast<QuantStub*>(at.get()) != nullptr;
    if (!mode) return follow(*at, path, stub ? Role::dequantizing : Role::floating);
    selected_ = true;
    if (mode == QuantMode::statically && forms_.has(*at, QuantMode::statically)) {
      attach_observer(*at, path, forms_.result_observer(*at));
      follow(*at, path, stub ? Role::source : Role::quantized);
    } else {
      if (qat_ && mode == QuantMode::dynamically && qconfig_of(*at)->activation.chooses_qparams())
        attach_input_observer(*at, path);
      follow(*at, path, Role::floating);
    }
  }

  bool prepare_composite(ModulePtr& at, const std::string& path) {
    const auto& becomes = default_custom_modules().float_to_observed;
    if (auto it = becomes.find(type_of(*at)); it != becomes.end() && !options_.mapping) {
      ModulePtr observed = it->second(*at);
      observed->qconfig = at->qconfig;
      propagate(*observed, "", {}, {});
      observed->take_hooks(*at, *at);
      at = observed;
    }
    if (!is_composite(*at)) return false;
    ++inside_;
    prepare_children(at, path);
    --inside_;
    follow(*at, path, Role::composite);
    return true;
  }

  void follow(Module& m, const std::string& path, Role role) {
    if (inside_ == 0) quant::follow(m, path, role, flow_);
  }

  void prepare_functional(Module& m, const std::string& path, std::optional<QuantMode> wanted) {
    if (wanted != QuantMode::statically) return;
    selected_ = true;
    m.add_child(kActivationPostProcess, forms_.result_observer(m).make_module(path));
    follow(m, path, Role::functional);
  }

  void prepare_children(ModulePtr& at, const std::string& path) {
    if (at->children().empty()) return;
    std::vector<std::string> names;
    for (const auto& [name, child] : at->children())
      if (child) names.push_back(name);
    for (const std::string& name : names) {
      ModulePtr child = at->submodule(name), now = child;
      place(now, join(path, name));
      if (now != child) at->set_submodule(name, now);
    }
    if (!path.empty() && !is_composite(*at)) follow(*at, path, Role::container);
  }

  const EagerOptions& options_;
  const Forms forms_;
  bool qat_;
  std::shared_ptr<Flow> flow_;
  bool selected_ = false;
  int inside_ = 0;  // of a composite module
  std::map<const Module*, ModulePtr> done_;
  std::vector<ModulePtr> keep_;  // so that no new module gets the address of an old one
};

// -- convert --------------------------------------------------------------------------------------

class Converter {
 public:
  explicit Converter(const EagerOptions& options) : options_(options), forms_(options) {}

  ModulePtr run(const ModulePtr& model, const char* who) {
    model->require_made(who);
    ModulePtr root = options_.inplace ? model : model->clone();
    std::shared_ptr<Flow> flow;
    if (const auto* prepared = std::any_cast<Prepared>(&root->prepared)) {
      check_flow(*prepared, who);
      flow = prepared->flow;
    }
    const std::vector<std::string> unset = check_calibrated(*root, who);
    place(root, "");
    if (flow) raise_scales(*root, *flow);
    await_values(*root, unset);
    OCTET_CHECK(converted_ > 0, invalid_argument,
                "{}: nothing in {} was prepared for quantization: call prepare() first, or "
                "quantize_dynamic()",
                who, root->type_name());
    if (options_.report) *options_.report = report_;
    auto left = report_.left_float();
    if (options_.strict && !left.empty()) {
      std::vector<std::string> lines;
      for (const auto& e : left)
        lines.push_back(fmt::format("{} ({}): {}", e.node, e.op, e.reason));
      OCTET_FAIL(unsupported, "{}: strict, but {} modules stay float: {}", who, left.size(),
                 fmt::join(lines, "; "));
    }
    return root;
  }

 private:
  static void check_flow(const Prepared& prepared, const char* who) {
    const auto& problems = prepared.flow->problems();
    if (problems.empty()) return;
    std::vector<std::string> shown(
        problems.begin(), problems.begin() + std::min<std::ptrdiff_t>(3, std::ssize(problems)));
    OCTET_FAIL(invalid_argument, "{}: {}{}", who, fmt::join(shown, "; "),
               problems.size() > 3 ? fmt::format("; and {} more", problems.size() - 3) : "");
  }

  // Each layer's weight scales, by the scale that its input has now.
  void raise_scales(Module& root, const Flow& flow) {
    for (const auto& [path, sources] : flow.scale_sources) {
      if (!path.empty() && !root.has_submodule(path)) continue;
      Module& layer = path.empty() ? root : *root.submodule(path);
      for (const std::string& source : sources) {
        if (!root.has_submodule(source)) continue;
        const auto state = root.submodule(source)->extra_state();
        if (auto scale = state.find("scale"); scale != state.end())
          raise_weight_scales(layer, scale->second.item(), path, report_);
      }
    }
  }

  // The paths of the modules whose observers saw no data: an Error unless they are to be loaded.
  // Then these observers are shown a placeholder, each another one, so that no two of them have the
  // same qparams.
  std::vector<std::string> check_calibrated(Module& root, const char* who) {
    std::vector<std::string> empty, owners;
    for (auto& [path, module] : root.named_modules()) {
      if (path.find("weight_fake_quant") != std::string::npos ||
          dynamic_cast<FakeQuantizeBase*>(module))
        continue;
      auto* observer = dynamic_cast<Observer*>(module);
      if (!observer || !observer->empty()) continue;
      std::string owner = path.substr(0, path.find(kActivationPostProcess));
      if (!owner.empty() && owner.back() == '.') owner.pop_back();
      Module& layer = owner.empty() ? root : *root.submodule(owner);
      auto* functional = dynamic_cast<nn::quantized::FloatFunctional*>(&layer);
      if (functional && functional->only_scalars()) continue;
      empty.push_back(
          fmt::format("{} ({})", owner.empty() ? root.type_name() : owner, observer->type_name()));
      owners.push_back(owner);
      if (options_.for_loading) show_placeholder(root, path, static_cast<float>(owners.size()));
    }
    if (options_.for_loading) return owners;
    OCTET_CHECK(empty.empty(), not_calibrated,
                "{}: {} observer{} saw no data: {}: run the prepared model on calibration data "
                "first, or leave the part float (qconfig = nullptr); to load a state dict instead: "
                "{{.for_loading = true}}",
                who, empty.size(), empty.size() == 1 ? "" : "s", fmt::join(empty, ", "));
    return {};
  }

  // To the observer at the path, or to the fake-quantize module that it belongs to.
  static void show_placeholder(Module& root, const std::string& path, float most) {
    Tensor range = Tensor::from<float>({0, most});
    size_t dot = path.rfind('.');
    Module& around = dot == std::string::npos ? root : *root.submodule(path.substr(0, dot));
    auto* fake_quantize = dynamic_cast<FakeQuantizeBase*>(&around);
    if (!fake_quantize) return root.submodule(path)->as<Observer>().observe(range);
    fake_quantize->enable_observer();
    fake_quantize->forward(range);
  }

  // Until they are loaded, the modules that these have become refuse to run.
  static void await_values(Module& root, const std::vector<std::string>& owners) {
    std::vector<std::string> names;
    for (const std::string& owner : owners)
      names.push_back(owner.empty() ? root.type_name() : owner);
    const std::string message = fmt::format(
        "convert was told for_loading, so scale and zero_point of {} are unset: call "
        "load_state_dict first",
        fmt::join(names, ", "));
    for (std::string path : owners) {
      while (!path.empty() && !root.has_submodule(path))
        path.resize(path.find('.') == std::string::npos ? 0 : path.rfind('.'));
      (path.empty() ? root : *root.submodule(path)).await_state(message);
    }
  }

  void place(ModulePtr& at, const std::string& path) {
    if (auto it = done_.find(at.get()); it != done_.end()) {
      at = it->second;
      return;
    }
    ModulePtr before = at;
    convert(at, path);
    done_[before.get()] = at;
    done_[at.get()] = at;
    keep_.push_back(before);
  }

  void convert(ModulePtr& at, const std::string& path) {
    Module& m = *at;
    if (auto it = options_.custom.observed_to_quantized.find(type_of(m));
        it != options_.custom.observed_to_quantized.end()) {
      ModulePtr quantized = it->second(m);
      OCTET_CHECK(quantized, invalid_argument,
                  "{}: from_observed of the quantized custom module of a {} gave nothing", path,
                  m.type_name());
      return swap(at, quantized, path);
    }
    const NodeDecision decision = forms_.decide(m);
    const bool stub = dynamic_cast<DeQuantStub*>(&m) != nullptr;
    const bool observed = m.has_submodule(kActivationPostProcess);
    const std::optional<QuantMode> mode = stub ? QuantMode::statically : decision.mode;
    if (mode && (stub || observed || mode != QuantMode::statically)) {
      try {
        if (ModulePtr quantized = forms_.of(*mode).make(m)) return swap(at, quantized, path);
      } catch (const Error& e) {
        throw Error(e.code(), fmt::format("{}: {}", path.empty() ? m.type_name() : path, e.what()));
      }
    }
    std::vector<std::string> names;
    for (const auto& [name, child] : m.children())
      if (child && !is_activation_post_process(*child)) names.push_back(name);
    for (const std::string& name : names) {
      ModulePtr child = m.submodule(name), now = child;
      place(now, join(path, name));
      if (now != child) m.set_submodule(name, now);
    }
    strip(m);
    const std::optional<QuantMode> wanted = wanted_mode(m);
    if (names.empty() || has_weight(m)) note_float(m, path, decision);
    m.qconfig.reset();
    const auto& becomes = default_custom_modules().observed_to_quantized;
    if (auto it = becomes.find(type_of(m));
        it != becomes.end() && wanted == QuantMode::statically) {
      ModulePtr quantized = it->second(m);
      quantized->take_hooks(m, m);
      quantized->eval();
      at = quantized;
    }
  }

  void swap(ModulePtr& at, const ModulePtr& quantized, const std::string& path) {
    if (quantized != at) {
      strip(*at);
      strip(*quantized);
      quantized->take_hooks(*at, *at);
    }
    quantized->eval();
    quantized->qconfig.reset();
    for (auto& [name, module] : quantized->named_modules()) module->qconfig.reset();
    report_.entries.push_back({path, quantized->type_name(), true, ""});
    converted_ += !dynamic_cast<DeQuantStub*>(at.get());
    at = quantized;
  }

  // A leaf that stays as it is: does it compute in float, and why?
  void note_float(const Module& m, const std::string& path, const NodeDecision& decision) {
    std::string reason;
    if (has_weight(m) || (is_table(m) && qconfig_of(m)))
      reason = !decision.reason.empty()
                   ? decision.reason
                   : fmt::format("{} has no {} form", m.type_name(), to_string(*decision.mode));
    report_.entries.push_back({path, m.type_name(), reason.empty(), reason});
  }

  const EagerOptions& options_;
  const Forms forms_;
  ConversionReport report_;
  int converted_ = 0;
  std::map<const Module*, ModulePtr> done_;
  std::vector<ModulePtr> keep_;
};

}  // namespace

ModulePtr prepare_module(const ModulePtr& model, const EagerOptions& options) {
  return Preparer(options, false).run(model);
}
ModulePtr prepare_qat_module(const ModulePtr& model, const EagerOptions& options) {
  return Preparer(options, true).run(model);
}
ModulePtr convert_module(const ModulePtr& model, const EagerOptions& options) {
  return Converter(options).run(model, "convert");
}

// -- without calibration --------------------------------------------------------------------------

QConfig dynamic_qconfig_for(DType dtype) {
  switch (dtype) {
    case DType::qint8:
      return default_dynamic_qconfig();
    case DType::float16:
      return float16_dynamic_qconfig();
    case DType::quint8:
      return float_qparams_weight_only_qconfig();
    case DType::quint4x2:
      return float_qparams_weight_only_qconfig_4bit();
    default:
      OCTET_FAIL(invalid_argument,
                 "quantize_dynamic: dtype {}; expected qint8 or float16 (or, for embeddings, "
                 "quint8 or quint4x2)",
                 to_string(dtype));
  }
}

namespace {

// `qconfig` is for all but tables of embeddings, `table` for those; nullopt: for none.
ModulePtr quantize_now(const ModulePtr& model, QConfigSpec spec, const ModuleMapping& mapping,
                       const std::optional<QConfig>& qconfig, const std::optional<QConfig>& table,
                       const EagerOptions& options, const char* who) {
  model->require_made(who);
  ModulePtr root = options.inplace ? model : model->clone();
  const ModuleMapping& used = options.mapping ? *options.mapping : mapping;
  if (spec.empty()) {
    std::set<std::type_index> present;
    for (auto& [path, module] : root->named_modules()) {
      const std::optional<QConfig>& given = is_table(*module) ? table : qconfig;
      if (given && used.has(*module) && present.insert(type_of(*module)).second)
        spec.set_type(module->class_type(), given);
    }
    OCTET_CHECK(!spec.empty(), invalid_argument, "{}: {} has no module that can be quantized so",
                who, root->type_name());
  }
  for (const auto& [type, entry] : spec.by_type()) {
    std::set<std::string> known;  // QAT classes have the float ones' names
    for (const auto& [from, to] : used.names()) known.insert(from);
    OCTET_CHECK(!entry.qconfig || used.has(type), unsupported,
                "{}: {} modules cannot be quantized so; those that can are {}", who, entry.name,
                fmt::join(known, ", "));
  }
  root->eval();
  propagate_qconfig(*root, spec);
  for (auto& [path, module] : root->named_modules()) {
    auto by_path = spec.by_path().find(path);
    auto by_type = spec.by_type().find(type_of(*module));
    const bool named = by_path != spec.by_path().end() || by_type != spec.by_type().end();
    if (const QConfig* q = qconfig_of(*module); named && q)
      OCTET_CHECK(!is_table(*module) || quantizes_rows(*q), invalid_argument,
                  "{}: '{}' ({}): rows of embeddings have float zero points; got {}: use dtype "
                  "quint8 or quint4x2",
                  who, path, module->type_name(), to_string(*q));
  }
  EagerOptions convert_options = options;
  convert_options.inplace = true;
  convert_options.mapping = used;
  return Converter(convert_options).run(root, who);
}

}  // namespace

ModulePtr quantize_dynamic_module(const ModulePtr& model, const QConfigSpec& spec, DType dtype,
                                  const EagerOptions& options) {
  const bool tables = dtype == DType::quint8 || dtype == DType::quint4x2;
  std::optional<QConfig> qconfig = dynamic_qconfig_for(dtype), none;
  return quantize_now(model, spec, get_default_dynamic_quant_module_mappings(),
                      tables ? none : qconfig, tables ? qconfig : none, options,
                      "quantize_dynamic");
}

ModulePtr quantize_weight_only_module(const ModulePtr& model, const QConfigSpec& spec, DType dtype,
                                      const EagerOptions& options) {
  OCTET_CHECK(dtype == DType::qint8, unsupported, "quantize_weight_only: dtype {}; expected qint8",
              to_string(dtype));
  QConfig qconfig{ObserverFactory(), default_per_channel_weight_observer()};
  return quantize_now(model, spec, get_default_weight_only_quant_module_mappings(), qconfig,
                      float_qparams_weight_only_qconfig(), options, "quantize_weight_only");
}

void add_quant_dequant(Module& model) {
  std::vector<std::string> names;
  for (const auto& [name, child] : model.children())
    if (child) names.push_back(name);
  for (const std::string& name : names) {
    ModulePtr child = model.submodule(name);
    if (child->children().empty() && qconfig_of(*child) && !dynamic_cast<QuantStub*>(child.get()) &&
        !dynamic_cast<DeQuantStub*>(child.get()))
      model.set_submodule(name, nn::make<QuantWrapper>(child));
    else
      add_quant_dequant(*child);
  }
}

}  // namespace octet::quant
