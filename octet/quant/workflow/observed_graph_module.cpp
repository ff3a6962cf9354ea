#include <algorithm>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/graph/trace.h"
#include "octet/nn/registry.h"
#include "octet/quant/backend/json_impl.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx_impl.h"
#include "octet/runtime/program.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using nn::Module;

OCTET_MODULE(ObservedGraphModule)

ObservedGraphModule::ObservedGraphModule(Graph graph, Module& root, Preparation preparation)
    : GraphModule(std::move(graph), root), made_(std::move(preparation)) {}

std::map<std::string, std::optional<QConfig>> ObservedGraphModule::qconfig_map() const {
  std::map<std::string, std::optional<QConfig>> result;
  for (const auto& [name, decision] : decisions()) result[name] = decision.qconfig;
  return result;
}

std::map<std::string, std::pair<std::string, std::string>> ObservedGraphModule::node_name_to_scope()
    const {
  std::map<std::string, std::pair<std::string, std::string>> result;
  for (const Node& node : graph().nodes()) {
    if (node.kind != NodeKind::call && node.kind != NodeKind::module) continue;
    auto known = made_.class_names.find(node.scope);
    result[graph().value(node.outputs[0]).name] = {
        node.scope, known != made_.class_names.end() ? known->second : node.op};
  }
  return result;
}

// -- what calibration shows to which observer -----------------------------------------------------

namespace {

// As widens() of the calls that the node, of a module, makes. Nobody knows what users' modules do.
bool module_widens(const Graph& g, const Node& node, Module& module) {
  if (!nn::is_own_class(module)) return true;
  std::vector<std::optional<TensorType>> types;
  for (ValueId v : node.inputs)
    types.push_back(v == kNone ? std::nullopt : std::optional(g.type(v)));
  const Graph calls = graph::trace(module, types, {.into_layers = true})->graph();
  return std::any_of(calls.nodes().begin(), calls.nodes().end(),
                     [](const Node& n) { return n.kind == NodeKind::call && widens(n); });
}

// Whether an observer's value is read by nothing but a call that cuts it to a range and shares the
// observer.
bool is_narrowed(const Graph& g, const Node& observer) {
  const Node* cut = only_reader(g, observer.outputs[0]);
  if (!cut || !narrows(*cut)) return false;
  const Node* next = only_reader(g, cut->outputs[0]);
  return next && next->kind == NodeKind::module && next->scope == observer.scope;
}

}  // namespace

// Not what lies within what the same observer has been shown, nor what is cut to it. (Not whatever
// has one observer before and behind it: in cat({conv(x), x}) the conv has.)
bool ObservedGraphModule::is_shown(const Node& observer) const {
  const Graph& g = graph();
  if (is_narrowed(g, observer)) return false;
  const Node& producer = g.producer(observer.inputs[0]);
  if (producer.kind != NodeKind::call && producer.kind != NodeKind::module) return true;
  const auto decision = decisions().find(g.value(producer.outputs[0]).name);
  if (decision == decisions().end() || !decision->second.keeps_qparams) return true;
  if (producer.kind == NodeKind::module ? module_widens(g, producer, *submodule(producer.scope))
                                        : widens(producer))
    return true;
  return std::any_of(producer.inputs.begin(), producer.inputs.end(), [&](ValueId x) {
    if (x == kNone || g.type(x).dtype != DType::float32) return false;
    const Node& before = g.producer(x);
    return before.kind != NodeKind::module || before.scope != observer.scope ||
           g.is_constant(before.inputs[0]) || is_narrowed(g, before);
  });
}

ObservedGraphModule::Watched ObservedGraphModule::watched() const {
  Watched w = watched_as_prepared();
  w.graph = with_values(w.graph);
  return w;
}

ObservedGraphModule::Watched ObservedGraphModule::watched_as_prepared() const {
  const Graph& g = graph();
  Watched w;
  std::vector<std::pair<ValueId, const Node*>> observers;
  graph::Rewriter rewriter(g);
  w.graph = rewriter.run([&](graph::Rewriter& r, const Node& node) {
    if (!is_observer_call(*this, node)) return false;
    r.map(node.outputs[0], r(node.inputs[0]));
    observers.emplace_back(r(node.inputs[0]), &node);
    return true;
  });
  w.observer.resize(w.graph.values().size());
  w.shown.assign(w.graph.values().size(), false);
  w.source.assign(w.graph.values().size(), kNone);
  for (size_t v = g.values().size(); v-- > 0;)
    if (const auto id = static_cast<ValueId>(v); rewriter.mapped(id)) w.source[rewriter(id)] = id;
  for (const auto& [v, node] : observers) {
    if (!w.observer[v].empty()) continue;  // other readers have it as codes of another dtype
    w.observer[v] = node->scope;
    w.shown[v] = is_shown(*node);
  }
  return w;
}

// -- calibration ----------------------------------------------------------------------------------

struct ObservedGraphModule::Calibration {
  const ObservedGraphModule* owner;  // a clone has another one
  Watched watched;
  std::vector<bool> shown;  // by node of the observed graph: an observer that is shown values
  std::vector<ValueId> of_source;  // by value of the observed graph: the one whose range is kept
  // By watched value: the observers that are shown it. There are two where its readers have it as
  // codes of two dtypes.
  std::vector<std::vector<std::string>> observers;
  // Of a graph of operators: what runs, and the values it shows.
  std::optional<runtime::Program> program;
  std::vector<ValueId> values;
  int64_t batch = 1;  // of the call under way
};

ObservedGraphModule::Calibration& ObservedGraphModule::calibration() {
  const bool check = made_.compiled && !(weight_check_.fixed > 0 && weight_check_.done);
  weight_check_.done = true;
  if (calibration_ && calibration_->owner == this &&
      (!check || has_values_of(calibration_->watched.graph)))
    return *calibration_;
  auto c = std::make_shared<Calibration>(Calibration{this, watched(), {}, {}, {}, {}, {}});
  const Watched& w = c->watched;
  std::vector<ValueId> watched_at(graph().values().size(), kNone);
  for (size_t v = 0; v < w.source.size(); ++v)
    watched_at[static_cast<size_t>(w.source[v])] = static_cast<ValueId>(v);
  c->observers.resize(w.graph.values().size());
  for (const Node& node : graph().nodes()) {
    const bool observes = is_observer_call(*this, node);
    if (observes) watched_at[node.outputs[0]] = watched_at[node.inputs[0]];
    c->shown.push_back(observes && is_shown(node));
    if (c->shown.back()) c->observers[watched_at[node.inputs[0]]].push_back(node.scope);
  }
  std::vector<bool> compared(w.graph.values().size(), false);
  for (ValueId v : compared_operands(w.graph)) compared[static_cast<size_t>(v)] = true;
  std::map<std::string, int> values_of;  // by observer
  for (const std::string& path : w.observer)
    if (!path.empty()) ++values_of[path];
  c->of_source.assign(graph().values().size(), kNone);
  for (size_t v = 0; v < w.observer.size(); ++v) {
    const auto id = static_cast<ValueId>(v);
    const bool constant = w.graph.is_constant(id);
    const bool has_range = !constant && (!w.observer[v].empty() || compared[v]);
    if (has_range) c->of_source[static_cast<size_t>(w.source[v])] = id;
    // The observer of a weight is shown it by convert_fx.
    if (constant ? values_of[w.observer[v]] > 1 : has_range) c->values.push_back(id);
  }
  if (made_.compiled)
    c->program = runtime::compile(w.graph, {.engine = made_.engine, .every_value = true});
  calibration_ = std::move(c);
  return *calibration_;
}

std::vector<Tensor> ObservedGraphModule::forward(std::vector<Tensor> inputs) {
  if (training()) return GraphModule::forward(std::move(inputs));
  Calibration& c = calibration();
  c.batch = inputs.empty() || inputs[0].dim() == 0 ? 1 : inputs[0].size(0);
  std::vector<Tensor> results;
  if (c.program)
    results = c.program->run_watched(inputs, c.values, [&](ValueId id, const Tensor& value) {
      const auto v = static_cast<size_t>(id);
      for (const std::string& path : c.observers[v]) (*submodule(path))(value);
      if (!c.watched.graph.is_constant(id)) ranges_.add(id, value, samples_, c.batch);
    });
  else
    results = GraphModule::forward(std::move(inputs));
  samples_ += c.batch;
  return results;
}

std::vector<Tensor> ObservedGraphModule::call_module(const Node& node,
                                                     const std::vector<Tensor>& operands) {
  const nn::ModulePtr module = submodule(node.scope);
  const auto id = static_cast<size_t>(graph().value(node.outputs[0]).producer);
  if (!training() && dynamic_cast<const Observer*>(module.get()) && !calibration_->shown[id])
    return operands;
  return (*module)(operands);
}

Tensor ObservedGraphModule::result(ValueId id, Tensor value) {
  if (training() || !value.defined() || value.is_symbolic()) return value;
  if (const ValueId v = calibration_->of_source[static_cast<size_t>(id)]; v != kNone)
    ranges_.add(v, value, samples_, calibration_->batch);
  return value;
}

// -- layers' weights and biases -------------------------------------------------------------------

const Node& ObservedGraphModule::layer_node(const std::string& layer) const {
  const auto v = graph().find(layer);
  OCTET_CHECK(v, not_found, "%{} is no value of the prepared graph", layer);
  const Node& node = graph().producer(*v);
  OCTET_CHECK(node.kind == NodeKind::call, unsupported,
              "%{}: expected a call of an operator; weights of modules are theirs", layer);
  return node;
}

const std::string& ObservedGraphModule::weight_observer_of(const Node& layer) const {
  const ValueId w = layer.inputs.size() > 1 ? layer.inputs[1] : kNone;
  OCTET_CHECK(w != kNone && is_observer_call(*this, graph().producer(w)) &&
                  graph().is_constant(graph().producer(w).inputs[0]),
              not_found, "%{} has no observed weight", graph().value(layer.outputs[0]).name);
  return graph().producer(w).scope;
}

QParams ObservedGraphModule::weight_qparams(const std::string& layer) const {
  const Node& node = layer_node(layer);
  const nn::ModulePtr observer = submodule(weight_observer_of(node))->clone();
  if (observer->as<Observer>().empty()) {
    const ValueId weight = graph().producer(node.inputs[1]).inputs[0];
    auto& self = const_cast<ObservedGraphModule&>(*this);  // nothing is changed
    observer->as<Observer>().observe(self.tensor(graph().value(weight).name).detach());
  }
  return observer->as<Observer>().calculate_qparams();
}

void ObservedGraphModule::set_parameter(const std::string& name, const Tensor& value) {
  Tensor& old = tensor(name);
  OCTET_CHECK(value.shape() == old.shape() && value.dtype() == old.dtype(), invalid_argument,
              "'{}' is {}; expected {}", name, octet::to_string(value.type()),
              octet::to_string(old.type()));
  const bool trained = autograd::requires_grad(old);
  old = value.detach().clone();
  autograd::set_requires_grad(old, trained);
  weight_check_.done = false;
}

void ObservedGraphModule::set_weight(const std::string& layer, const Tensor& weight,
                                     const std::vector<float>& min, const std::vector<float>& max) {
  const Node& node = layer_node(layer);
  const std::string path = weight_observer_of(node);
  const auto& old = submodule(path)->as<Observer>();
  const bool per_channel = is_per_channel(old.options().qscheme);
  const char* name = per_channel ? "PerChannelMinMaxObserver" : "MinMaxObserver";
  const ObserverPtr observer = make_observer(name, old.options(), old.label());
  const auto count = static_cast<int64_t>(min.size());
  const auto tensor_of = [&](const std::vector<float>& v) {
    return Tensor::from(v, per_channel ? Shape{count} : Shape{});
  };
  observer->set_extra_state({{"min_val", tensor_of(min)}, {"max_val", tensor_of(max)}});
  observer->eval();
  const std::string constant = graph().value(graph().producer(node.inputs[1]).inputs[0]).name;
  if (weight.defined()) set_parameter(constant, weight);
  put_module(path, observer);
  Graph changed = graph();
  for (size_t n = 0; n < changed.nodes().size(); ++n) {
    Node& call = changed.node(static_cast<graph::NodeId>(n));
    if (call.kind == NodeKind::module && call.scope == path) call.op = name;
  }
  set_graph(std::move(changed), false);
}

void ObservedGraphModule::set_bias(const std::string& layer, const Tensor& bias) {
  const Node& node = layer_node(layer);
  (void)weight_observer_of(node);
  const ValueId old = node.inputs.size() > 2 ? node.inputs[2] : kNone;
  if (old != kNone && graph().users(old).size() == 1) {
    const std::string& name = graph().value(old).name;
    for (const auto& [own, value] : named_parameters())
      if (own == name) return set_parameter(name, bias);
    OCTET_CHECK(bias.type() == graph().type(old), invalid_argument, "'{}' is {}; expected {}", name,
                octet::to_string(bias.type()), octet::to_string(graph().type(old)));
    Graph changed = graph();
    changed.node(changed.value(old).producer).value = bias.detach().clone();
    return set_graph(std::move(changed), false);
  }
  // A constant of its own. Values get other numbers, by which ranges are kept.
  const Graph before = watched().graph;
  graph::Rewriter rewriter(graph());
  Graph changed = rewriter.run([&](graph::Rewriter& r, const Node& n) {
    if (&n != &node) return false;
    std::vector<ValueId> operands = r.operands(n);
    operands.resize(3, kNone);
    operands[2] = r.out().add_constant(layer + ".bias", bias.detach().clone());
    r.map(n.outputs[0], r.out().add_call(layer, n.op, operands, n.attrs, std::nullopt, n.scope));
    return true;
  });
  set_graph(std::move(changed), false);
  const Graph after = watched().graph;
  std::map<ValueId, ValueId> renumbered;
  for (size_t v = 0; v < before.values().size(); ++v)
    if (const auto now = after.find(before.values()[v].name))
      renumbered[static_cast<ValueId>(v)] = *now;
  ranges_.renumber(renumbered);
}

// -- saving ---------------------------------------------------------------------------------------

namespace {

constexpr const char* kModes[] = {"static", "dynamic", "weight-only"};

std::vector<int64_t> wide(const std::vector<int>& v) { return {v.begin(), v.end()}; }
std::vector<int> narrow(const std::vector<int64_t>& v) { return {v.begin(), v.end()}; }

// {"qconfigs": [QCONFIG, ...], "decisions": [{"name": ..., "qconfig": 0, "mode": "static", ...}],
//  "classes": {PATH: CLASS}}: a decision names its qconfig by number.
std::string to_json(const ObservedGraphModule::Preparation& made) {
  std::vector<QConfig> qconfigs;
  OrderedJson root{{"qconfigs", OrderedJson::array()},
                   {"decisions", OrderedJson::array()},
                   {"classes", made.class_names}};
  for (const auto& [name, d] : made.decisions) {
    OrderedJson json{{"name", name}};
    if (d.qconfig) {
      auto at = std::find(qconfigs.begin(), qconfigs.end(), *d.qconfig);
      json["qconfig"] = at - qconfigs.begin();
      if (at == qconfigs.end()) {
        qconfigs.push_back(*d.qconfig);
        root["qconfigs"].push_back(qconfig_to_json(*d.qconfig));
      }
    }
    if (d.mode) json["mode"] = kModes[static_cast<int>(*d.mode)];
    if (!d.reason.empty()) json["reason"] = d.reason;
    for (const auto& [key, flag] : {std::pair{"custom", d.custom},
                                    {"standalone", d.standalone},
                                    {"has_weights", d.has_weights},
                                    {"keeps_qparams", d.keeps_qparams},
                                    {"joins_next", d.joins_next}})
      if (flag) json[key] = true;
    root["decisions"].push_back(std::move(json));
  }
  return root.dump();
}

void from_json(const std::string& text, ObservedGraphModule::Preparation& made) {
  const std::string who = "ObservedGraphModule";
  const JsonDocument root_document = parse_json(text, who);
  const Json& root = *root_document;
  check_keys(root, {"qconfigs", "decisions", "classes"}, who);
  for (const char* key : {"qconfigs", "decisions", "classes"})
    OCTET_CHECK(root.contains(key), corrupt, "{}: no '{}'", who, key);
  for (const auto& [path, name] : root["classes"].items())
    made.class_names[path] = text_of(name, who);
  std::vector<QConfig> qconfigs;
  for (const Json& json : list_of(root.at("qconfigs"), who))
    qconfigs.push_back(qconfig_from_json(json, who));
  for (const Json& json : list_of(root.at("decisions"), who)) {
    check_keys(json,
               {"name", "qconfig", "mode", "reason", "custom", "standalone", "has_weights",
                "keeps_qparams", "joins_next"},
               who);
    NodeDecision d;
    if (json.contains("qconfig")) {
      const int64_t number = integer_of(json["qconfig"], who);
      OCTET_CHECK(number >= 0 && number < std::ssize(qconfigs), corrupt, "{}: no qconfig {}", who,
                  number);
      d.qconfig = qconfigs[static_cast<size_t>(number)];
    }
    if (json.contains("mode")) {
      const std::string mode = text_of(json["mode"], who);
      const auto* at = std::find(std::begin(kModes), std::end(kModes), mode);
      OCTET_CHECK(at != std::end(kModes), corrupt, "{}: no mode '{}'", who, mode);
      d.mode = static_cast<QuantMode>(at - kModes);
    }
    if (json.contains("reason")) d.reason = text_of(json["reason"], who);
    for (const auto& [key, flag] : {std::pair{"custom", &d.custom},
                                    {"standalone", &d.standalone},
                                    {"has_weights", &d.has_weights},
                                    {"keeps_qparams", &d.keeps_qparams},
                                    {"joins_next", &d.joins_next}})
      if (json.contains(key)) *flag = bool_of(json[key], who);
    OCTET_CHECK(json.contains("name"), corrupt, "{}: a decision without a name", who);
    made.decisions[text_of(json["name"], who)] = std::move(d);
  }
}

}  // namespace

Attrs ObservedGraphModule::config() const {
  Attrs c = GraphModule::config();
  return c.set("decisions", to_json(made_))
      .set("compiled", made_.compiled)
      .set("input_quantized_indexes", wide(made_.input_quantized_indexes))
      .set("output_quantized_indexes", wide(made_.output_quantized_indexes));
}

std::shared_ptr<ObservedGraphModule> ObservedGraphModule::from_config(const Attrs& config) {
  Attrs graph_config;
  for (const char* key : {"graph", "parameters", "buffers", "preserved"})
    graph_config.set(key, config.get(key));
  Preparation made{.input_quantized_indexes = narrow(config.get_ints("input_quantized_indexes")),
                   .output_quantized_indexes = narrow(config.get_ints("output_quantized_indexes")),
                   .compiled = config.get_bool("compiled")};
  from_json(config.get_string("decisions"), made);
  Module none;
  auto module = nn::make<ObservedGraphModule>(Graph(), none, std::move(made));
  module->load_config(graph_config);
  return module;
}

}  // namespace octet::quant
