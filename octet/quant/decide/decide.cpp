#include "octet/quant/decide/decide.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/activation.h"
#include "octet/ops/conv_impl.h"
#include "octet/ops/unary.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

// -- one call -------------------------------------------------------------------------------------

namespace {

constexpr const char* kWeights[] = {"weight", "w_ih", "w_hh", "w_hr"};

// Those of none where there is no such operator.
const ops::Traits& traits_of(const std::string& op_name) {
  static const ops::Traits none;
  const ops::Op* op = ops::find(op_name);
  return op ? op->traits() : none;
}

// Of the operator that a call is, of an operator or of a module that is one.
const ops::Traits& traits_of(const Node& node) {
  return traits_of(node.kind == NodeKind::module ? nn::operator_of(node.op) : node.op);
}

bool is_operand(const BackendPatternConfig& config, const char* what, size_t i) {
  auto it = config.input_type_to_index.find(what);
  return it != config.input_type_to_index.end() && it->second == static_cast<int>(i);
}

// Whether an operator on codes takes this constant as it is: mul by a float per channel, say.
bool takes_float_constant(const Graph& g, const Node& node, size_t i) {
  if (i == 0 || node.kind != NodeKind::call || !g.is_constant(node.inputs[i])) return false;
  const ops::QType any{DType::quint8, Quantizer::per_tensor(1, 0, DType::quint8)};
  std::vector<std::optional<TensorType>> types;
  for (ValueId v : node.inputs) {
    if (v == kNone) {
      types.push_back(std::nullopt);
      continue;
    }
    const TensorType& type = g.type(v);
    const bool codes = type.dtype == DType::float32 && !g.is_constant(v);
    types.push_back(codes ? TensorType(any.dtype, type.dims, any.quantizer) : type);
  }
  if (!types[0] || !types[0]->is_quantized()) return false;
  try {
    ops::get(node.op).infer(types, node.attrs, any, "");
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Whether a call's operands are what quantizing it takes. Weights, biases and slopes are constants.
bool operands_fit(const Graph& g, const Node& node, const BackendPatternConfig& config,
                  std::string* why) {
  for (const auto& [what, index] : config.input_type_to_index) {
    if (node.kind != NodeKind::call) break;
    const auto i = static_cast<size_t>(index);
    const ValueId v = i < node.inputs.size() ? node.inputs[i] : kNone;
    if (v == kNone && (i >= node.inputs.size() || ops::get(node.op).params().at(i).optional))
      continue;
    if (v == kNone || !g.is_constant(v) || g.type(v).dtype != DType::float32) {
      *why = fmt::format("its {} is not a float32 {}", what,
                         what == "bias" ? "constant" : "parameter");
      return false;
    }
  }
  if (config.observation_type == ObservationType::input_output_not_observed) return true;
  const ValueId x = node.inputs.empty() ? kNone : node.inputs[0];
  if (x == kNone || g.type(x).dtype != DType::float32) {
    *why = x == kNone ? "it has no operand"
                      : fmt::format("its operand is {}", to_string(g.type(x).dtype));
    return false;
  }
  const bool constant =
      node.kind == NodeKind::call && g.is_constant(x) &&
      std::all_of(node.inputs.begin(), node.inputs.end(), [&](ValueId v) {
        return v == kNone || g.is_constant(v) || g.type(v).dtype != DType::float32;
      });
  if (constant) {  // rows of a table, say
    *why = "its operand is a constant";
    return false;
  }
  for (ValueId v : node.outputs)
    if (g.type(v).dtype == DType::float32) return true;
  *why = "its result is not float32";
  return false;
}

// Whether an observer is of fixed qparams.
bool is_fixed(const ObserverFactory& observer) { return observer.options().scale.has_value(); }

// A layer with weights, or what else multiplies matrices; modules that users quantize count.
bool is_layer(const Node& node, const NodeDecision& d) {
  return d.custom || d.standalone || d.has_weights || d.mode != QuantMode::statically ||
         node.op == "matmul";
}

// Why a call of an operator for which the backend has no pattern stays float.
std::string why_no_pattern(const std::string& op, const BackendConfig& backend) {
  if (ops::find(op) && ops::get(op).traits().wide_range)
    return fmt::format("{} could run on codes, but its results range too widely for 8 bits", op);
  return fmt::format("{} has no quantized form in the backend '{}'", op, backend.name());
}

// What the mapping and the backend say of an operator or a class of modules, whatever its operands:
// `config` is the backend's pattern (null: none fits). Gives the dtypes that it will have.
const DTypeConfig* decide_op(const std::string& op, const BackendPatternConfig* config,
                             const BackendConfig& backend, NodeDecision& d) {
  if (!d.qconfig) {
    d.reason = "it has no qconfig";
    return nullptr;
  }
  if (!d.qconfig->activation && !d.qconfig->weight) {
    d.reason = "its qconfig has no observers";
    return nullptr;
  }
  if (!config) {
    d.reason = why_no_pattern(op, backend);
    return nullptr;
  }
  const std::optional<QuantMode> wanted = mode_of(*d.qconfig);
  bool has_mode = !wanted;
  for (const DTypeConfig& c : config->dtype_configs) has_mode = has_mode || mode_of(c) == *wanted;
  if (!has_mode) {
    d.reason = fmt::format("{} has no {} form", op, to_string(*wanted));
    return nullptr;
  }
  return config->find_dtype_config(*d.qconfig, &d.reason);
}

void quantize_as(const DTypeConfig& dtypes, NodeDecision& d) {
  d.reason.clear();
  d.mode = mode_of(dtypes);
  d.has_weights = dtypes.weight_dtype.dtype.has_value();
}

// The decision about a call of which the backend has `config` (null: no pattern fits) and to which
// the mapping gives `qconfig`.
NodeDecision decide_call(const Graph& graph, const Node& node,
                         const std::optional<QConfig>& qconfig, const BackendPatternConfig* config,
                         const BackendConfig& backend) {
  NodeDecision d{.qconfig = qconfig};
  const DTypeConfig* dtypes = decide_op(node.op, config, backend, d);
  if (dtypes && operands_fit(graph, node, *config, &d.reason)) quantize_as(*dtypes, d);
  return d;
}

}  // namespace

OperandRole operand_role(const Graph& graph, const Node& node, size_t i,
                         const BackendPatternConfig* config) {
  const ValueId v = node.inputs[i];
  if (v == kNone || graph.type(v).dtype != DType::float32) return OperandRole::other;
  if (!config) return OperandRole::activation;
  // Where no dtypes are given for weights (norms), they stay float.
  const bool quantizes_weights =
      std::any_of(config->dtype_configs.begin(), config->dtype_configs.end(),
                  [](const DTypeConfig& c) { return c.weight_dtype.dtype.has_value(); });
  for (const char* weight : kWeights)
    if (quantizes_weights && is_operand(*config, weight, i)) return OperandRole::weight;
  for (const auto& [what, index] : config->input_type_to_index)
    if (index == static_cast<int>(i)) return OperandRole::parameter;
  // What shares its operands' scale (cat) takes constants as codes of it.
  const bool shares = config->observation_type == ObservationType::output_share_observer_with_input;
  return !shares && takes_float_constant(graph, node, i) ? OperandRole::parameter
                                                         : OperandRole::activation;
}

ObservationType observation_type(const Node& node, const BackendPatternConfig* config,
                                 const QConfig& qconfig) {
  if (qconfig.activation.name() == "ReuseInputObserver")
    return ObservationType::output_share_observer_with_input;
  if (qconfig.activation.options().own_averages && traits_of(node).averages)
    return ObservationType::output_use_different_observer_as_input;
  if (!config) return ObservationType::output_use_different_observer_as_input;
  const auto tensors =
      std::count_if(node.inputs.begin(), node.inputs.end(), [](ValueId v) { return v != kNone; });
  return config->observation_type_of(static_cast<int>(tensors));
}

bool is_average(const nn::Module& module) {
  return traits_of(nn::operator_of(nn::class_name(module.class_type()))).averages;
}

namespace {
NodeId node_id(const Graph& g, const Node& node) { return g.value(node.outputs[0]).producer; }

// A function of one value, element by element, with a range of its own.
bool is_scalar_function(const Graph& g, const Node& node) {
  if (node.kind == NodeKind::module) return nn::is_scalar_function(node.op);
  if (node.op == "add" || node.op == "sub" || node.op == "mul")
    return g.is_constant(node.inputs[1]) && g.constant(node.inputs[1]).numel() == 1 &&
           (!node.attrs.has("activation") || node.attrs.get_string("activation") == "none");
  return ops::is_unary(node.op) && ops::get(node.op).rule() != ops::QRule::same;
}
}  // namespace

void join_tables(const Graph& graph, std::vector<NodeDecision>& decisions) {
  const auto joins = [&](NodeId n) {
    const NodeDecision& d = decisions[static_cast<size_t>(n)];
    return d.mode == QuantMode::statically && !d.custom && !d.standalone &&
           is_scalar_function(graph, graph.node(n));
  };
  for (size_t n = 0; n < decisions.size(); ++n) {
    if (!joins(static_cast<NodeId>(n))) continue;
    const ValueId v = graph.nodes()[n].outputs[0];
    const Node* next = only_reader(graph, v);
    decisions[n].joins_next = next && next->inputs[0] == v && joins(node_id(graph, *next));
  }
}

ObserverFactory operand_observer(const QConfig& qconfig, const QConfigMapping& mapping) {
  const std::optional<QConfig>& global = mapping.global_qconfig();
  if (!is_fixed(qconfig.activation) || !global || !global->activation.chooses_qparams() ||
      is_fixed(global->activation))
    return qconfig.activation;
  return global->activation.with_dtype(qconfig.activation.options().dtype);
}

void leave_islands_float(const Graph& graph, std::vector<NodeDecision>& decisions) {
  const auto is_static = [&](NodeId n) {
    return decisions[static_cast<size_t>(n)].mode == QuantMode::statically;
  };
  // Nodes that hand codes to one another.
  std::vector<NodeId> parent(decisions.size());
  std::iota(parent.begin(), parent.end(), 0);
  const auto find = [&](NodeId n) {
    while (parent[static_cast<size_t>(n)] != n) n = parent[static_cast<size_t>(n)];
    return n;
  };
  std::vector<bool> read(graph.values().size(), false);  // by an operator on codes
  for (size_t n = 0; n < decisions.size(); ++n) {
    if (!is_static(static_cast<NodeId>(n))) continue;
    for (ValueId v : graph.nodes()[n].inputs) {
      if (v == kNone) continue;
      read[static_cast<size_t>(v)] = true;
      const NodeId producer = graph.value(v).producer;
      if (is_static(producer))
        parent[static_cast<size_t>(find(static_cast<NodeId>(n)))] = find(producer);
    }
  }
  std::vector<bool> computes(decisions.size(), false);
  bool any = false;
  for (size_t n = 0; n < decisions.size(); ++n) {
    if (!decisions[n].mode || !is_layer(graph.nodes()[n], decisions[n])) continue;
    computes[static_cast<size_t>(find(static_cast<NodeId>(n)))] = any = true;
  }
  if (!any) return;
  for (size_t n = 0; n < decisions.size(); ++n) {
    if (!is_static(static_cast<NodeId>(n))) continue;
    const Node& node = graph.nodes()[n];
    if (!computes[static_cast<size_t>(find(static_cast<NodeId>(n)))])
      decisions[n].reason = "no quantized layer gives it codes or takes them";
    else if (!read[static_cast<size_t>(node.outputs[0])] && traits_of(node).computes_in_float)
      decisions[n].reason = "nothing that reads its result takes codes";
    if (!decisions[n].reason.empty()) decisions[n].mode.reset();
  }
}

// -- a graph --------------------------------------------------------------------------------------

std::vector<QConfigMapping::Target> targets_of(const Graph& graph) {
  std::vector<QConfigMapping::Target> targets;
  std::map<std::string, int> calls;
  for (const Node& node : graph.nodes()) {
    QConfigMapping::Target& target = targets.emplace_back();
    if (node.kind != NodeKind::call) continue;
    target.module_path = node_name(graph, node);
    target.op = node.op;
    target.index = calls[node.op]++;
  }
  return targets;
}

namespace {
// By node: the pattern that skips it, or "".
std::vector<std::string> skipped_nodes(const Graph& graph, const std::vector<std::string>& skip) {
  std::vector<std::string> skipped(graph.nodes().size());
  for (const std::string& pattern : skip) {
    bool any = false;
    std::vector<std::string> names;
    const NamePattern compiled(pattern);
    for (size_t i = 0; i < graph.nodes().size(); ++i) {
      const Node& node = graph.nodes()[i];
      if (node.kind != NodeKind::call && node.kind != NodeKind::module) continue;
      names.push_back(node_name(graph, node));
      bool hit =
          compiled.matches(names.back()) || compiled.matches(graph.value(node.outputs[0]).name);
      if (hit) skipped[i] = pattern;
      any |= hit;
    }
    OCTET_CHECK(any, not_found,
                "skip '{}' matches no node of {}{}; `octet inspect` lists the nodes", pattern,
                graph.name, did_you_mean(pattern, names));
  }
  return skipped;
}
}  // namespace

std::vector<NodeDecision> decide(const Graph& graph, const QConfigMapping& mapping,
                                 const BackendConfig& backend, const DecideOptions& options) {
  const std::vector<std::string> skipped = skipped_nodes(graph, options.skip);
  const std::vector<QConfigMapping::Target> targets =
      options.targets.empty() ? targets_of(graph) : options.targets;
  if (options.targets.empty()) mapping.require_matched(targets);
  std::vector<NodeDecision> decisions(graph.nodes().size());
  for (size_t n = 0; n < decisions.size(); ++n) {
    const Node& node = graph.nodes()[n];
    NodeDecision& d = decisions[n];
    if (node.kind != NodeKind::call && node.kind != NodeKind::module) continue;
    d.qconfig = mapping.find(targets[n]);
    if (!skipped[n].empty())
      d.reason = fmt::format("skipped by '{}'", skipped[n]);
    else if (!d.qconfig || !options.own || !options.own(node, d))
      d = decide_call(graph, node, d.qconfig,
                      options.pattern ? options.pattern(node) : backend.find_op(node.op), backend);
  }
  if (options.leave_islands_float) leave_islands_float(graph, decisions);
  if (options.join_tables) join_tables(graph, decisions);
  return decisions;
}

NodeDecision decide_module(const nn::Module& module, const std::optional<QConfig>& qconfig,
                           const BackendConfig& backend) {
  NodeDecision d{.qconfig = qconfig};
  const BackendPatternConfig* config = backend.find_module(module.class_type());
  if (const DTypeConfig* dtypes = decide_op(module.type_name(), config, backend, d))
    quantize_as(*dtypes, d);
  return d;
}

bool widens(const Node& node) {
  if (node.op == "add_scalar" || node.op == "mul_scalar") return true;
  if (node.op == "interpolate")
    return node.attrs.get_string("mode") == "cubic" ||
           node.attrs.get_string("coordinates") == "tf_crop_and_resize";
  if (node.attrs.has("divisor_override")) return node.attrs.get_int("divisor_override") != 0;
  if (node.op == "pad") return node.attrs.operand("value") || node.attrs.get_double("value") != 0;
  return node.op == "clamp" &&
         (node.attrs.get_double("min") > 0 || node.attrs.get_double("max") < 0);
}

const Node* only_reader(const Graph& graph, ValueId value) {
  if (std::count(graph.outputs().begin(), graph.outputs().end(), value)) return nullptr;
  const std::vector<NodeId> users = graph.users(value);
  return users.size() == 1 ? &graph.node(users[0]) : nullptr;
}

bool narrows(const Node& node) { return traits_of(node).narrows; }

std::string node_name(const Graph& graph, const Node& node) {
  return node.scope.empty() ? graph.value(node.outputs[0]).name : node.scope;
}

ObserverFactory weight_observer(const Graph& graph, ValueId weight,
                                const ObserverFactory& factory) {
  if (!is_per_channel(factory.options().qscheme)) return factory;
  for (NodeId user : graph.users(weight)) {
    const Node& node = graph.node(user);
    if (!traits_of(node).transposed || node.inputs[1] != weight) continue;
    return factory.with_ch_axis(
        ops::weight_scale_axis(true, graph.type(weight), node.attrs.get_int("groups")));
  }
  return factory;
}

}  // namespace octet::quant
