#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/registry.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using nn::Module;

// -- the result -----------------------------------------------------------------------------------

OCTET_MODULE(ObservedGraphModule)

ObservedGraphModule::ObservedGraphModule(Graph graph, Module& root,
                                         std::map<std::string, NodeDecision> decisions,
                                         std::map<std::string, std::string> class_names,
                                         std::vector<int> input_quantized_indexes,
                                         std::vector<int> output_quantized_indexes)
    : GraphModule(std::move(graph), root),
      decisions_(std::move(decisions)),
      class_names_(std::move(class_names)),
      input_quantized_(std::move(input_quantized_indexes)),
      output_quantized_(std::move(output_quantized_indexes)) {}

std::map<std::string, std::optional<QConfig>> ObservedGraphModule::qconfig_map() const {
  std::map<std::string, std::optional<QConfig>> result;
  for (const auto& [name, decision] : decisions_) result[name] = decision.qconfig;
  return result;
}

std::map<std::string, std::pair<std::string, std::string>> ObservedGraphModule::node_name_to_scope()
    const {
  std::map<std::string, std::pair<std::string, std::string>> result;
  for (const Node& node : graph().nodes()) {
    if (node.kind != NodeKind::call && node.kind != NodeKind::module) continue;
    auto known = class_names_.find(node.scope);
    result[graph().value(node.outputs[0]).name] = {
        node.scope, known != class_names_.end() ? known->second : node.op};
  }
  return result;
}

namespace {
// As widens() of a call of its operator; some that never do are counted in.
bool widens(const Module& module) {
  const std::string name = module.type_name();
  if (name.starts_with("AvgPool")) return module.config().get_int("divisor_override") != 0;
  return name == "Hardtanh" || name == "Upsample" || name.find("Pad") != std::string::npos;
}
}  // namespace

std::vector<Tensor> ObservedGraphModule::call_module(const Node& node,
                                                     const std::vector<Tensor>& operands) {
  const nn::ModulePtr module = submodule(node.scope);
  if (dynamic_cast<const Observer*>(module.get()) && !operands.empty()) {
    if (is_narrowed(node)) return operands;
    const Node& producer = graph().producer(node.inputs[0]);
    const bool made = producer.kind == NodeKind::call || producer.kind == NodeKind::module;
    const auto decision =
        made ? decisions_.find(graph().value(producer.outputs[0]).name) : decisions_.end();
    const bool may_widen =
        producer.kind == NodeKind::module ? widens(*submodule(producer.scope)) : widens(producer);
    // Not whatever has one observer before and behind it: in cat({conv(x), x}) the conv has.
    if (decision != decisions_.end() && decision->second.keeps_qparams && !may_widen &&
        producer.inputs[0] != kNone) {
      const Node& before = graph().producer(producer.inputs[0]);
      // of what it has been shown
      if (before.kind == NodeKind::module && before.scope == node.scope && !is_narrowed(before))
        return operands;
    }
  }
  return (*module)(operands);
}

bool ObservedGraphModule::is_narrowed(const Node& observer) {
  const Graph& g = graph();
  if (narrowed_.size() != g.nodes().size()) {
    narrowed_.assign(g.nodes().size(), false);
    for (size_t n = 0; n < narrowed_.size(); ++n)
      narrowed_[n] = g.nodes()[n].kind == NodeKind::module && reads_narrowed(g.nodes()[n]);
  }
  return narrowed_[static_cast<size_t>(g.value(observer.outputs[0]).producer)];
}

bool ObservedGraphModule::reads_narrowed(const Node& observer) const {
  const Graph& g = graph();
  const Node* cut = only_reader(g, observer.outputs[0]);
  if (!cut || !narrows(*cut)) return false;
  const Node* next = only_reader(g, cut->outputs[0]);
  return next && next->kind == NodeKind::module && next->scope == observer.scope;
}

namespace {
constexpr const char* kModes[] = {"static", "dynamic", "weight-only"};

std::vector<int64_t> wide(const std::vector<int>& v) { return {v.begin(), v.end()}; }
std::vector<int> narrow(const std::vector<int64_t>& v) { return {v.begin(), v.end()}; }
}  // namespace

// Decisions as "decision.NAME" = "mode;number of the qconfig;flags;reason", QConfigs as
// "qconfig.NUMBER.ATTRIBUTE".
Attrs ObservedGraphModule::config() const {
  Attrs c = GraphModule::config();
  std::vector<QConfig> qconfigs;
  for (const auto& [name, d] : decisions_) {
    std::string number = "none";
    if (d.qconfig) {
      auto at = std::find(qconfigs.begin(), qconfigs.end(), *d.qconfig);
      number = std::to_string(at - qconfigs.begin());
      if (at == qconfigs.end()) qconfigs.push_back(*d.qconfig);
    }
    c.set("decision." + name,
          fmt::format("{};{};{}{}{}{};{}", d.mode ? kModes[static_cast<int>(*d.mode)] : "float",
                      number, d.custom ? "c" : "", d.standalone ? "s" : "",
                      d.keeps_qparams ? "k" : "", d.joins_next ? "j" : "", d.reason));
  }
  for (size_t i = 0; i < qconfigs.size(); ++i)
    for (const auto& [key, value] : to_attrs(qconfigs[i]))
      c.set(fmt::format("qconfig.{}.{}", i, key), value);
  for (const auto& [path, name] : class_names_) c.set("class." + path, name);
  return c.set("input_quantized_indexes", wide(input_quantized_))
      .set("output_quantized_indexes", wide(output_quantized_));
}

std::shared_ptr<ObservedGraphModule> ObservedGraphModule::from_config(const Attrs& config) {
  Attrs graph_config;
  std::map<int, Attrs> qconfigs;
  for (const char* key : {"graph", "parameters", "buffers", "preserved"})
    graph_config.set(key, config.get(key));
  for (const auto& [key, value] : config) {
    if (!key.starts_with("qconfig.")) continue;
    size_t dot = key.find('.', 8);
    qconfigs[std::stoi(key.substr(8, dot - 8))].set(key.substr(dot + 1), value);
  }
  std::map<std::string, NodeDecision> decisions;
  for (const auto& [key, value] : config) {
    if (!key.starts_with("decision.")) continue;
    const std::string& text = std::get<std::string>(value);
    std::vector<std::string> parts;
    size_t begin = 0;
    for (int i = 0; i < 3; ++i) {
      size_t end = text.find(';', begin);
      OCTET_CHECK(end != std::string::npos, corrupt, "ObservedGraphModule: {} = '{}'", key, text);
      parts.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    NodeDecision d;
    for (int m = 0; m < 3; ++m)
      if (parts[0] == kModes[m]) d.mode = static_cast<QuantMode>(m);
    if (parts[1] != "none") {
      auto at = qconfigs.find(std::stoi(parts[1]));
      OCTET_CHECK(at != qconfigs.end(), corrupt, "ObservedGraphModule: {} has no qconfig {}", key,
                  parts[1]);
      d.qconfig = qconfig_from(at->second);
    }
    d.custom = parts[2].find('c') != std::string::npos;
    d.standalone = parts[2].find('s') != std::string::npos;
    d.keeps_qparams = parts[2].find('k') != std::string::npos;
    d.joins_next = parts[2].find('j') != std::string::npos;
    d.reason = text.substr(begin);
    decisions[key.substr(9)] = std::move(d);
  }
  std::map<std::string, std::string> class_names;
  for (const auto& [key, value] : config)
    if (key.starts_with("class.")) class_names[key.substr(6)] = std::get<std::string>(value);
  Module none;
  auto module =
      nn::make<ObservedGraphModule>(Graph(), none, std::move(decisions), std::move(class_names),
                                    narrow(config.get_ints("input_quantized_indexes")),
                                    narrow(config.get_ints("output_quantized_indexes")));
  module->load_config(graph_config);
  return module;
}

// -- preparing ------------------------------------------------------------------------------------

namespace {

class FxPreparer {
 public:
  FxPreparer(Traced traced, const QConfigMapping& mapping, const PrepareCustomConfig& custom,
             const BackendConfig& backend, bool qat)
      : model_(std::move(traced.model)),
        classes_(std::move(traced.classes)),
        mapping_(mapping),
        custom_(custom),
        backend_(backend),
        qat_(qat),
        who_(qat ? "prepare_qat_fx" : "prepare_fx") {}

  std::shared_ptr<ObservedGraphModule> run() {
    check_is_float();
    mapping_.require_matched(targets_of(*model_, classes_));
    fuse_patterns(*model_, backend_);
    g_ = model_->graph();
    targets_ = targets_of(*model_, classes_);
    check_indexes();
    decide_all();
    require_something();
    graph::Rewriter rewriter(g_);
    Graph observed =
        rewriter.run([&](graph::Rewriter& r, const Node& node) { return visit(r, node); });
    observe_outputs(observed);
    std::map<std::string, std::string> class_names;
    for (const auto& [path, type] : classes_) class_names[path] = nn::class_name(*type);
    for (const std::string& path : custom_.preserved_attributes) model_->preserve(path);
    return nn::make<ObservedGraphModule>(std::move(observed), *model_, std::move(decisions_),
                                         std::move(class_names), custom_.input_quantized_indexes,
                                         custom_.output_quantized_indexes);
  }

 private:
  static constexpr const char* kPrefix = "activation_post_process_";

  void check_is_float() const {
    for (auto& [path, module] : model_->named_modules())
      OCTET_CHECK(!is_activation_post_process(*module), invalid_argument,
                  "{}: the model is prepared already ('{}' is a {}): convert it, or "
                  "prepare the float model",
                  who_, path, module->type_name());
    for (const Node& node : model_->graph().nodes())
      for (ValueId v : node.outputs)
        OCTET_CHECK(!model_->graph().type(v).is_quantized(), invalid_argument,
                    "{}: {} is quantized already (%{}: {})", who_, model_->graph().name,
                    model_->graph().value(v).name, to_string(model_->graph().type(v)));
  }

  void check_indexes() const {
    auto check = [&](const std::vector<int>& indexes, size_t count, const char* what) {
      for (int i : indexes)
        OCTET_CHECK(i >= 0 && static_cast<size_t>(i) < count, invalid_argument,
                    "{}: {}_quantized_indexes has {}; the model has {} {}s", who_, what, i, count,
                    what);
    };
    check(custom_.input_quantized_indexes, g_.inputs().size(), "input");
    check(custom_.output_quantized_indexes, g_.outputs().size(), "output");
  }

  const std::string& name_of(const Node& node) const { return g_.value(node.outputs[0]).name; }
  NodeDecision& decision(const Node& node) { return decisions_[name_of(node)]; }

  const BackendPatternConfig* config_of(const Node& node) const {
    if (Module* module = module_of(*model_, node))
      return backend_.find_module(std::type_index(module->class_type()));
    return backend_.find_op(node.op);
  }

  const StandaloneModuleConfig* standalone(const Node& node) const {
    Module* module = module_of(*model_, node);
    if (!module) return nullptr;
    if (auto it = custom_.standalone_names.find(node.scope); it != custom_.standalone_names.end())
      return &it->second;
    auto it = custom_.standalone_classes.find(std::type_index(module->class_type()));
    return it == custom_.standalone_classes.end() ? nullptr : &it->second;
  }

  const PrepareCustomConfig::Make* custom_make(const Node& node, QuantMode mode) const {
    Module* module = module_of(*model_, node);
    auto of_mode = custom_.float_to_observed.find(mode);
    if (!module || of_mode == custom_.float_to_observed.end()) return nullptr;
    auto it = of_mode->second.find(std::type_index(module->class_type()));
    return it == of_mode->second.end() ? nullptr : &it->second;
  }

  void decide_all() {
    std::vector<NodeDecision> decisions(g_.nodes().size());
    for (size_t n = 0; n < decisions.size(); ++n) decisions[n] = decide(n);
    if (custom_.leave_islands_float) leave_islands_float(g_, decisions);
    if (custom_.join_tables) join_tables(g_, decisions);
    for (size_t n = 0; n < decisions.size(); ++n)
      if (is_call(g_.nodes()[n])) decision(g_.nodes()[n]) = std::move(decisions[n]);
  }

  static bool is_call(const Node& node) {
    return node.kind == NodeKind::call || node.kind == NodeKind::module;
  }

  NodeDecision decide(size_t n) const {
    const Node& node = g_.nodes()[n];
    NodeDecision d;
    if (!is_call(node)) return d;
    d.qconfig = mapping_.find(targets_[n]);
    if (d.qconfig && standalone(node)) {
      d.standalone = true;
      d.mode = QuantMode::statically;
      return d;
    }
    const std::optional<QuantMode> wanted = d.qconfig ? mode_of(*d.qconfig) : std::nullopt;
    if (wanted && custom_make(node, *wanted)) {
      d.custom = true;
      d.mode = wanted;
      return d;
    }
    return decide_call(g_, node, d.qconfig, config_of(node), backend_);
  }

  void require_something() const {
    std::set<std::string> reasons;
    for (const auto& [name, d] : decisions_) {
      if (d.mode) return;
      reasons.insert(fmt::format("{}: {}", name, d.reason));
    }
    OCTET_FAIL(invalid_argument, "{}: nothing in {} can be quantized: {}", who_, g_.name,
               reasons.empty() ? "it calls nothing" : fmt::format("{}", fmt::join(reasons, "; ")));
  }

  // -- observers ----------------------------------------------------------------------------------

  // A call of a new observer; its result.
  ValueId observe(graph::Rewriter& r, ValueId value, const ObserverFactory& factory,
                  bool training) {
    std::string path = kPrefix + std::to_string(next_observer_++);
    nn::ModulePtr module = factory.make_module(r.out().value(value).name);
    module->train(training);
    model_->put_module(path, module);
    return call_observer(r, value, path);
  }

  ValueId call_observer(graph::Rewriter& r, ValueId value, const std::string& path) {
    ValueId y = r.out().add_module(path, path, model_->submodule(path)->type_name(), {value},
                                   {r.out().type(value)})[0];
    path_of_[y] = path;
    return y;
  }

  static DType dtype_of(const Module& post_process) {
    if (auto* observer = dynamic_cast<const Observer*>(&post_process))
      return observer->options().dtype;
    return dynamic_cast<const FakeQuantizeBase&>(post_process).options().dtype;
  }

  // Operand `v` as codes of the qconfig's dtype: already observed so, or with an observer of its
  // own, shared by all who need it.
  ValueId observed(graph::Rewriter& r, ValueId v, const ObserverFactory& factory) {
    ValueId now = r(v);
    if (inner_codes_.count(now)) return now;
    auto is_there = [&](ValueId id) {
      auto it = path_of_.find(id);
      return it != path_of_.end() &&
             dtype_of(*model_->submodule(it->second)) == factory.options().dtype &&
             chooses_qparams(*model_->submodule(it->second)) == factory.chooses_qparams();
    };
    if (is_there(now)) return now;
    auto key = std::make_tuple(now, factory.options().dtype, factory.chooses_qparams());
    if (auto it = observed_.find(key); it != observed_.end()) return it->second;
    return observed_[key] = observe(r, now, factory, qat_);
  }

  // One observer for both: `drop`'s calls become calls of `keep`.
  void unite(graph::Rewriter& r, const std::string& keep, const std::string& drop) {
    if (keep == drop) return;
    for (auto& [value, path] : path_of_) {
      if (path != drop) continue;
      path = keep;
      Node& node = r.out().node(r.out().value(value).producer);
      node.scope = keep;
      node.op = model_->submodule(keep)->type_name();
    }
  }

  bool visit(graph::Rewriter& r, const Node& node) {
    if (node.kind == NodeKind::constant) return false;
    if (node.kind == NodeKind::input) {
      r.copy(node);
      auto index =
          std::find(g_.inputs().begin(), g_.inputs().end(), node.outputs[0]) - g_.inputs().begin();
      const auto& quantized = custom_.input_quantized_indexes;
      if (std::find(quantized.begin(), quantized.end(), static_cast<int>(index)) == quantized.end())
        return true;
      r.map(node.outputs[0], observe(r, r(node.outputs[0]), input_factory(node.outputs[0]), qat_));
      return true;
    }
    NodeDecision& d = decision(node);
    if (!d.mode) {
      r.copy(node);
      note_last(r, node);
      return true;
    }
    if (Module* module = module_of(*model_, node)) module->qconfig = *d.qconfig;
    if (d.standalone) return emit_standalone(r, node);
    if (*d.mode == QuantMode::statically)
      emit_static(r, node, d);
    else
      emit_weights(r, node, d);
    return true;
  }

  // An input that is codes is observed as the first who uses it would.
  ObserverFactory input_factory(ValueId input) {
    for (graph::NodeId user : g_.users(input)) {
      const NodeDecision& d = decisions_.at(name_of(g_.node(user)));
      if (d.mode == QuantMode::statically && d.qconfig->activation.chooses_qparams())
        return d.qconfig->activation;
    }
    auto global = mapping_.global_qconfig();
    OCTET_CHECK(global && global->activation.chooses_qparams(), invalid_argument,
                "{}: input %{} is to be quantized but nothing that uses "
                "it is: set a global qconfig",
                who_, g_.value(input).name);
    return global->activation;
  }

  // The node that was added last keeps its name as the decisions know it.
  void note_last(graph::Rewriter& r, const Node& node) {
    const std::string& now = r.out().value(r(node.outputs[0])).name;
    if (now == name_of(node)) return;
    decisions_[now] = decisions_[name_of(node)];
    decisions_.erase(name_of(node));
  }

  // Adds the call with these operands; its results.
  std::vector<ValueId> add(graph::Rewriter& r, const Node& node,
                           const std::vector<ValueId>& operands) {
    std::vector<ValueId> results;
    if (node.kind == NodeKind::module) {
      std::vector<TensorType> types;
      for (ValueId v : node.outputs) types.push_back(g_.type(v));
      results = r.out().add_module(name_of(node), node.scope,
                                   model_->submodule(node.scope)->type_name(), operands, types);
    } else {
      results =
          r.out().add_calls(name_of(node), node.op, operands, node.attrs, std::nullopt, node.scope);
    }
    for (size_t i = 0; i < results.size(); ++i) {
      const std::string& own = g_.value(node.outputs[i]).name;
      if (i > 0 && !r.out().find(own)) r.out().rename(results[i], own);
      r.map(node.outputs[i], results[i]);
    }
    note_last(r, node);
    return results;
  }

  void emit_static(graph::Rewriter& r, const Node& node, NodeDecision& d) {
    const QConfig q = *d.qconfig;
    const BackendPatternConfig* config = d.custom ? nullptr : config_of(node);
    const ObservationType type = observation_type(node, config, q);
    const bool reuses = q.activation.name() == "ReuseInputObserver";
    std::vector<ValueId> operands;
    std::vector<std::string> paths;  // of the operands' observers
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      const OperandRole role = operand_role(g_, node, i, config);
      if (role == OperandRole::weight)
        operands.push_back(observed_weight(r, v, q.weight));
      else if (role != OperandRole::activation)
        operands.push_back(r(v));
      if (role != OperandRole::activation) continue;
      if (joins_next(v)) {
        operands.push_back(r(v));
        continue;
      }
      ValueId x = reuses ? r(v) : observed(r, v, operand_observer(q, mapping_));
      if (auto it = path_of_.find(x); it != path_of_.end()) paths.push_back(it->second);
      operands.push_back(x);
    }
    swap(node, d, config);
    if (type == ObservationType::output_share_observer_with_input && paths.empty()) {
      std::string why = "its operand is float";
      std::vector<ValueId> results = add(r, node, operands);
      NodeDecision& now = decisions_[r.out().value(results[0]).name];
      now.mode.reset();
      now.reason = why;
      return;
    }
    d.keeps_qparams = type == ObservationType::output_share_observer_with_input && !reuses;
    const bool joins = d.joins_next;
    std::vector<ValueId> results = add(r, node, operands);
    if (joins) return;
    if (type == ObservationType::output_share_observer_with_input) {
      for (const std::string& path : paths) unite(r, paths[0], path);
      for (ValueId v : node.outputs)
        if (g_.type(v).dtype == DType::float32) r.map(v, call_observer(r, r(v), paths[0]));
      return;
    }
    if (type == ObservationType::input_output_not_observed) return;
    ObserverFactory factory = config ? result_observer(*config, q) : q.activation;
    for (ValueId v : node.outputs)
      if (g_.type(v).dtype == DType::float32) r.map(v, observe(r, r(v), factory, qat_));
  }

  bool joins_next(ValueId v) {
    const Node& producer = g_.producer(v);
    return is_call(producer) && decision(producer).joins_next;
  }

  // A parameter that an operator takes as weight: one observer for all who use it.
  ValueId observed_weight(graph::Rewriter& r, ValueId v, const ObserverFactory& factory) {
    auto [it, fresh] = weights_.emplace(v, kNone);
    if (fresh) it->second = observe(r, r(v), weight_observer(g_, v, factory), qat_);
    return it->second;
  }

  // Dynamic and weight-only: the weight is quantized, results stay float.
  void emit_weights(graph::Rewriter& r, const Node& node, NodeDecision& d) {
    const QConfig q = *d.qconfig;
    const BackendPatternConfig* config = d.custom ? nullptr : config_of(node);
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      if (config && operand_role(g_, node, i, config) == OperandRole::weight)
        operands.push_back(observed_weight(r, v, q.weight));
      else if (i == 0 && *d.mode == QuantMode::dynamically && v != kNone &&
               g_.type(v).dtype == DType::float32)
        operands.push_back(observed(r, v, q.activation));
      else
        operands.push_back(r(v));
    }
    swap(node, d, config);
    add(r, node, operands);
  }

  // The module's observed or QAT form takes its place.
  void swap(const Node& node, const NodeDecision& d, const BackendPatternConfig* config) {
    Module* module = module_of(*model_, node);
    if (!module || swapped_.count(module)) return;
    nn::ModulePtr made;
    if (d.custom) {
      for (auto& [path, part] : module->named_modules())
        if (!part->qconfig.has_value()) part->qconfig = *d.qconfig;
      made = (*custom_make(node, *d.mode))(*module);
      OCTET_CHECK(made, invalid_argument,
                  "{}: from_float of the observed custom module of '{}' ({}) gave nothing", who_,
                  node.scope, module->type_name());
    } else if (qat_ && config && config->qat_module && module->qconfig.has_value() &&
               d.qconfig->weight) {
      OCTET_CHECK(!d.qconfig->weight.fake_quantize_name().empty(), invalid_argument,
                  "{}: '{}': a qconfig whose weight is fake-quantized is "
                  "needed, got {}: use get_default_qat_qconfig_mapping()",
                  who_, node.scope, to_string(*d.qconfig));
      made = (*config->qat_module)(*module);
    }
    if (!made) return;
    made->qconfig = *d.qconfig;
    made->train(module->training());
    if (made.get() != module) made->take_hooks(*module, *module);
    nn::ModulePtr keep = model_->submodule(node.scope);
    kept_.push_back(keep);
    model_->put_module(node.scope, made);
    swapped_.insert(made.get());
  }

  // A unit of its own: prepared by itself, with its inputs and results as codes where its config
  // says so.
  bool emit_standalone(graph::Rewriter& r, const Node& node) {
    const StandaloneModuleConfig& config = *standalone(node);
    NodeDecision& d = decision(node);
    static const PrepareCustomConfig none;
    const PrepareCustomConfig& custom =
        config.prepare_custom_config ? *config.prepare_custom_config : none;
    std::vector<std::optional<TensorType>> types;
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      types.push_back(v == kNone ? std::nullopt : std::optional(g_.type(v)));
      const auto& quantized = custom.input_quantized_indexes;
      bool codes =
          std::find(quantized.begin(), quantized.end(), static_cast<int>(i)) != quantized.end();
      operands.push_back(codes ? observed(r, v, d.qconfig->activation) : r(v));
    }
    nn::ModulePtr module = model_->submodule(node.scope);
    QConfigMapping mapping =
        config.qconfig_mapping ? *config.qconfig_mapping : QConfigMapping(*d.qconfig);
    BackendConfig backend = config.backend_config ? *config.backend_config : backend_;
    auto prepared =
        FxPreparer(trace_copy(module, types, custom, backend), mapping, custom, backend, qat_)
            .run();
    kept_.push_back(module);
    model_->put_module(node.scope, prepared);
    add(r, node, operands);
    // A result that will be codes has been observed inside.
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const auto& quantized = custom.output_quantized_indexes;
      if (std::find(quantized.begin(), quantized.end(), static_cast<int>(i)) == quantized.end())
        continue;
      inner_codes_.insert(r(node.outputs[i]));
    }
    return true;
  }

  // Results of the graph that are to stay codes and are not observed yet.
  void observe_outputs(Graph& g) {
    std::vector<ValueId> outputs = g.outputs();
    for (int index : custom_.output_quantized_indexes) {
      ValueId& v = outputs[static_cast<size_t>(index)];
      if (path_of_.count(v)) continue;
      const Node& producer = g_.producer(g_.outputs()[static_cast<size_t>(index)]);
      auto q = producer.kind == NodeKind::input
                   ? mapping_.global_qconfig()
                   : decisions_[g.value(g.node(g.value(v).producer).outputs[0]).name].qconfig;
      OCTET_CHECK(q && q->activation.chooses_qparams(), invalid_argument,
                  "{}: result {} is to be quantized but %{} has no qconfig", who_, index,
                  g.value(v).name);
      std::string path = kPrefix + std::to_string(next_observer_++);
      nn::ModulePtr module = q->activation.make_module(g.value(v).name);
      module->train(qat_);
      model_->put_module(path, module);
      v = g.add_module(path, path, module->type_name(), {v}, {g.type(v)})[0];
    }
    g.set_outputs(std::move(outputs));
  }

  std::shared_ptr<GraphModule> model_;
  std::map<std::string, const std::type_info*> classes_;
  const QConfigMapping& mapping_;
  const PrepareCustomConfig& custom_;
  const BackendConfig& backend_;
  bool qat_;
  const char* who_;
  Graph g_;
  std::vector<QConfigMapping::Target> targets_;
  std::map<std::string, NodeDecision> decisions_;
  int next_observer_ = 0;
  std::map<ValueId, std::string> path_of_;  // observed values of the new graph: their observer
  // values of the new graph that got an observer for their users
  std::map<std::tuple<ValueId, DType, bool>, ValueId> observed_;
  std::map<ValueId, ValueId> weights_;
  std::set<ValueId> inner_codes_;  // results of standalone modules that are codes
  std::set<const Module*> swapped_;
  std::vector<nn::ModulePtr> kept_;
};

std::shared_ptr<ObservedGraphModule> prepare(const nn::ModulePtr& model,
                                             const QConfigMapping& mapping,
                                             const std::vector<TensorType>* inputs,
                                             const std::vector<Tensor>& examples,
                                             const PrepareCustomConfig& custom,
                                             const BackendConfig& backend, bool qat) {
  const char* who = qat ? "prepare_qat_fx" : "prepare_fx";
  OCTET_CHECK(model, invalid_argument, "{}: no model", who);
  OCTET_CHECK(model->training() == qat, invalid_argument,
              "{}: the model is in {} mode: call {} first", who,
              model->training() ? "training" : "eval", qat ? "train()" : "eval()");
  OCTET_CHECK(inputs || !examples.empty(), invalid_argument,
              "{}: example inputs are needed, one for each input of forward", who);
  std::vector<std::optional<TensorType>> types;
  if (inputs) types.assign(inputs->begin(), inputs->end());
  return FxPreparer(trace_copy(model, types, custom, backend, examples), mapping, custom, backend,
                    qat)
      .run();
}

}  // namespace

std::shared_ptr<ObservedGraphModule> prepare_fx(const nn::ModulePtr& model,
                                                const QConfigMapping& mapping,
                                                const std::vector<Tensor>& example_inputs,
                                                const PrepareCustomConfig& custom,
                                                const BackendConfig& backend) {
  return prepare(model, mapping, nullptr, example_inputs, custom, backend, false);
}
std::shared_ptr<ObservedGraphModule> prepare_fx(const nn::ModulePtr& model,
                                                const QConfigMapping& mapping,
                                                const std::vector<TensorType>& inputs,
                                                const PrepareCustomConfig& custom,
                                                const BackendConfig& backend) {
  return prepare(model, mapping, &inputs, {}, custom, backend, false);
}
std::shared_ptr<ObservedGraphModule> prepare_qat_fx(const nn::ModulePtr& model,
                                                    const QConfigMapping& mapping,
                                                    const std::vector<Tensor>& example_inputs,
                                                    const PrepareCustomConfig& custom,
                                                    const BackendConfig& backend) {
  return prepare(model, mapping, nullptr, example_inputs, custom, backend, true);
}
std::shared_ptr<ObservedGraphModule> prepare_qat_fx(const nn::ModulePtr& model,
                                                    const QConfigMapping& mapping,
                                                    const std::vector<TensorType>& inputs,
                                                    const PrepareCustomConfig& custom,
                                                    const BackendConfig& backend) {
  return prepare(model, mapping, &inputs, {}, custom, backend, true);
}

}  // namespace octet::quant
