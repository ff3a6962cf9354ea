#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/fuse.h"
#include "octet/nn/registry.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/scan_impl.h"
#include "octet/quant/workflow/fx_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using nn::Module;

namespace {

// What is decided about: batch norms and added constants are folded into the layers before them,
// activations fused, constants of add and mul in second place.
Graph quantizable_form(const Graph& graph) {
  return graph::fuse_activations(
      graph::fold_batch_norm(graph::fold_biases(graph::constants_second(graph))));
}

void require_float(const Graph& graph, const char* who) {
  for (const graph::Value& value : graph.values())
    OCTET_CHECK(!value.type.is_quantized(), invalid_argument,
                "{}: {} is quantized already (%{}: {})", who, graph.name, value.name,
                to_string(value.type));
}

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
  // Of a network that is a graph of operators.
  FxPreparer(std::shared_ptr<GraphModule> model, const QConfigMapping& mapping,
             const PrepareOptions& options, bool qat, const char* who)
      : FxPreparer({std::move(model), {}}, mapping, no_customs(), options.backend, qat) {
    of_operators_ = &options;
    who_ = who;
  }

  std::shared_ptr<ObservedGraphModule> run() {
    check_is_float();
    if (!of_operators_) {
      mapping_.require_matched(targets_of(*model_, classes_));
      fuse_patterns(*model_, backend_);
    }
    g_ = model_->graph();
    check_indexes();
    decide_all();
    require_something();
    graph::Rewriter rewriter(g_);
    Graph observed =
        rewriter.run([&](graph::Rewriter& r, const Node& node) { return visit(r, node); });
    observe_outputs(observed);
    for (const std::string& path : custom_.preserved_attributes) model_->preserve(path);
    ObservedGraphModule::Preparation made{
        .decisions = std::move(decisions_),
        .class_names = {},
        .input_quantized_indexes = custom_.input_quantized_indexes,
        .output_quantized_indexes = custom_.output_quantized_indexes,
        .compiled = of_operators_ && !qat_,
        .engine = of_operators_ ? of_operators_->engine : "",
        .backend = backend_};
    for (const auto& [path, type] : classes_) made.class_names[path] = nn::class_name(*type);
    return nn::make<ObservedGraphModule>(std::move(observed), *model_, std::move(made));
  }

 private:
  static const PrepareCustomConfig& no_customs() {
    static const PrepareCustomConfig none;
    return none;
  }

  static constexpr const char* kPrefix = "activation_post_process_";

  void check_is_float() const {
    for (auto& [path, module] : model_->named_modules())
      OCTET_CHECK(!is_activation_post_process(*module), invalid_argument,
                  "{}: the model is prepared already ('{}' is a {}): convert it, or "
                  "prepare the float model",
                  who_, path, module->type_name());
    require_float(model_->graph(), who_);
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
    DecideOptions options{.leave_islands_float = custom_.leave_islands_float,
                          .join_tables = custom_.join_tables,
                          .pattern = [&](const Node& node) { return config_of(node); },
                          .own = [&](const Node& node, NodeDecision& d) { return own(node, d); }};
    if (of_operators_)
      options.skip = of_operators_->skip;
    else
      options.targets = targets_of(*model_, classes_);
    std::vector<NodeDecision> decisions = decide(g_, mapping_, backend_, options);
    for (size_t n = 0; n < decisions.size(); ++n) {
      if (!is_call(g_.nodes()[n])) continue;
      if (of_operators_ && decisions[n].qconfig) check_qconfig(g_.nodes()[n], decisions[n]);
      decision(g_.nodes()[n]) = std::move(decisions[n]);
    }
  }

  static bool is_call(const Node& node) {
    return node.kind == NodeKind::call || node.kind == NodeKind::module;
  }

  // Standalone and custom modules.
  bool own(const Node& node, NodeDecision& d) const {
    const std::optional<QuantMode> wanted = mode_of(*d.qconfig);
    d.standalone = standalone(node) != nullptr;
    d.custom = !d.standalone && wanted && custom_make(node, *wanted);
    if (d.standalone) d.mode = QuantMode::statically;
    if (d.custom) d.mode = wanted;
    return d.standalone || d.custom;
  }

  // What can be known to be wrong with a qconfig before any data is seen.
  void check_qconfig(const Node& node, const NodeDecision& d) const {
    const ObserverFactory &activation = d.qconfig->activation, &weight = d.qconfig->weight;
    const std::string who = fmt::format("{}: {}", who_, node_name(g_, node));
    if (qat_)
      for (const ObserverFactory* f : {&activation, &weight})
        OCTET_CHECK(!f->chooses_qparams() || !f->fake_quantize_name().empty(), invalid_argument,
                    "{}: the qconfig must fake-quantize activations and weights, got {}: use "
                    "get_default_qat_qconfig()",
                    who, to_string(*d.qconfig));
    OCTET_CHECK(!activation.chooses_qparams() || !is_per_channel(activation.options().qscheme),
                invalid_argument,
                "{}: activations have one scale per tensor; got {}: use a per-tensor observer for "
                "them",
                who, to_string(activation));
    const BackendPatternConfig* config = config_of(node);
    const bool has_weights =
        config && std::any_of(config->dtype_configs.begin(), config->dtype_configs.end(),
                              [](const DTypeConfig& c) {
                                return mode_of(c) == QuantMode::statically && c.weight_dtype.dtype;
                              });
    if (!has_weights || !weight.chooses_qparams()) return;
    OCTET_CHECK(!is_float_qparams(weight.options().qscheme), invalid_argument,
                "{}: float zero points are for embeddings; got {} for weights", who,
                to_string(weight));
    OCTET_CHECK(!is_per_channel(weight.options().qscheme) || weight.options().ch_axis == 0,
                invalid_argument,
                "{}: the output channels of weights are axis 0; got {}: use "
                "ch_axis=0",
                who, to_string(weight));
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
  ValueId observe(graph::Rewriter& r, ValueId value, const ObserverFactory& factory) {
    std::string path = kPrefix + std::to_string(next_observer_++);
    put_observer(path, factory, r.out().value(value).name);
    return call_observer(r, value, path);
  }

  void put_observer(const std::string& path, const ObserverFactory& factory,
                    const std::string& label) {
    // A QConfig for training calibrates with its observers.
    nn::ModulePtr module =
        (qat_ || !of_operators_ ? factory : factory.without_fake_quantize()).make_module(label);
    module->train(qat_);
    model_->put_module(path, module);
  }

  ValueId call_observer(graph::Rewriter& r, ValueId value, const std::string& path) {
    ValueId y = r.out().add_module(path, path, model_->submodule(path)->type_name(), {value},
                                   {r.out().type(value)})[0];
    path_of_[y] = path;
    return y;
  }

  const ObserverOptions& options_of(const std::string& observer) const {
    const Module& module = *model_->submodule(observer);
    if (auto* plain = dynamic_cast<const Observer*>(&module)) return plain->options();
    return dynamic_cast<const FakeQuantizeBase&>(module).options();
  }
  bool is_fixed(const std::string& observer) const {
    return options_of(observer).scale.has_value();
  }

  // Operand `v` as codes of the qconfig's dtype: already observed so, or with an observer of its
  // own, shared by all who need it.
  ValueId observed(graph::Rewriter& r, ValueId v, const ObserverFactory& factory) {
    ValueId now = r(v);
    if (inner_codes_.count(now)) return now;
    auto is_there = [&](ValueId id) {
      auto it = path_of_.find(id);
      return it != path_of_.end() && options_of(it->second).dtype == factory.options().dtype &&
             chooses_qparams(*model_->submodule(it->second)) == factory.chooses_qparams();
    };
    if (is_there(now)) return now;
    auto key = std::make_tuple(now, factory.options().dtype, factory.chooses_qparams());
    if (auto it = observed_.find(key); it != observed_.end()) return it->second;
    return observed_[key] = observe(r, now, factory);
  }

  // One observer for all of them: the calls of the others become calls of the first. If that is of
  // fixed qparams and another is not, that one takes its place; if all are, and differ, a new one
  // does.
  void unite(graph::Rewriter& r, const std::vector<std::string>& paths, const QConfig& qconfig) {
    const std::string& keep = paths[0];
    if (is_fixed(keep)) {
      auto other = std::find_if(paths.begin(), paths.end(),
                                [&](const std::string& path) { return !is_fixed(path); });
      const bool differ = std::any_of(paths.begin(), paths.end(), [&](const std::string& path) {
        return is_fixed(path) && *qparams_of(*model_->submodule(path)).quantizer !=
                                     *qparams_of(*model_->submodule(keep)).quantizer;
      });
      if (other != paths.end())
        model_->put_module(keep, model_->submodule(*other));
      else if (differ && !qconfig.activation.options().scale)
        put_observer(keep, qconfig.activation, keep);
    }
    for (auto& [value, path] : path_of_) {
      if (std::find(paths.begin(), paths.end(), path) == paths.end()) continue;
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
      r.map(node.outputs[0], observe(r, r(node.outputs[0]), input_factory(node.outputs[0])));
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
      unite(r, paths, q);
      for (ValueId v : node.outputs)
        if (g_.type(v).dtype == DType::float32) r.map(v, call_observer(r, r(v), paths[0]));
      return;
    }
    if (type == ObservationType::input_output_not_observed) return;
    ObserverFactory factory = config ? result_observer(*config, q) : q.activation;
    for (ValueId v : node.outputs)
      if (g_.type(v).dtype == DType::float32) r.map(v, observe(r, r(v), factory));
  }

  bool joins_next(ValueId v) {
    const Node& producer = g_.producer(v);
    return is_call(producer) && decision(producer).joins_next;
  }

  // A parameter that an operator takes as weight: one observer for all who use it.
  ValueId observed_weight(graph::Rewriter& r, ValueId v, const ObserverFactory& factory) {
    auto [it, fresh] = weights_.emplace(v, kNone);
    if (fresh) it->second = observe(r, r(v), weight_observer(g_, v, factory));
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
      put_observer(path, q->activation, g.value(v).name);
      v = g.add_module(path, path, model_->submodule(path)->type_name(), {v}, {g.type(v)})[0];
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
  const PrepareOptions* of_operators_ = nullptr;  // of a graph of operators; null for a model
  Graph g_;
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

std::shared_ptr<ObservedGraphModule> prepare_graph(const Graph& source,
                                                   const QConfigMapping& mapping,
                                                   const PrepareOptions& options, bool qat,
                                                   const char* who) {
  require_float(source, who);
  // What nothing uses would see no data.
  auto model = nn::make<GraphModule>(graph::remove_dead(quantizable_form(source)));
  model->train(qat);
  auto prepared = FxPreparer(model, mapping, options, qat, who).run();
  if (qat) return prepared;
  // A NaN in a weight is better known now than after calibration.
  const Graph& g = prepared->graph();
  for (const Node& node : g.nodes()) {
    if (!is_observer_call(*prepared, node) || !g.is_constant(node.inputs[0])) continue;
    const Tensor weight = g.constant(node.inputs[0]).contiguous();
    if (weight.numel() == 0) continue;
    // The observer says what is wrong. To be shown a weight may take it long.
    if (weight.dtype() != DType::float32 ||
        !detail::scan(weight.data<float>(), weight.numel()).finite)
      prepared->submodule(node.scope)->clone()->as<Observer>().observe(weight);
  }
  return prepared;
}

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
std::shared_ptr<ObservedGraphModule> prepare_fx(const Graph& graph, const QConfigMapping& mapping,
                                                const PrepareOptions& options) {
  return prepare_graph(graph, mapping, options, false, "prepare_fx");
}
std::shared_ptr<ObservedGraphModule> prepare_qat_fx(const Graph& graph,
                                                    const QConfigMapping& mapping,
                                                    const PrepareOptions& options) {
  return prepare_graph(graph, mapping, options, true, "prepare_qat_fx");
}

}  // namespace octet::quant
