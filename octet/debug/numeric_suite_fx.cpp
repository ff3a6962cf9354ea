#include "octet/debug/numeric_suite_fx.h"

#include <algorithm>
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/debug/graph_view_impl.h"
#include "octet/nn/activation.h"
#include "octet/nn/norm.h"
#include "octet/nn/shape.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx.h"

namespace octet::debug::fx {

using graph::GraphModule;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::Rewriter;
using graph::ValueId;
using nn::Module;
using quant::ObjectType;

// -- matching -------------------------------------------------------------------------------------

RelatedOps get_base_name_to_sets_of_related_ops() {
  std::vector<std::vector<ObjectType>> groups;
  auto has = [](const std::vector<ObjectType>& group, const ObjectType& type) {
    return std::find(group.begin(), group.end(), type) != group.end();
  };
  // All of these are one; so is what any of them was one with.
  auto relate = [&](const std::vector<ObjectType>& types) {
    std::vector<ObjectType> all;
    auto add = [&](const std::vector<ObjectType>& more) {
      for (const ObjectType& type : more)
        if (!has(all, type)) all.push_back(type);
    };
    add(types);
    std::erase_if(groups, [&](const std::vector<ObjectType>& group) {
      const bool one = std::any_of(types.begin(), types.end(),
                                   [&](const ObjectType& type) { return has(group, type); });
      if (one) add(group);
      return one;
    });
    groups.push_back(std::move(all));
  };
  static const quant::BackendConfig backend = quant::get_native_backend_config();
  for (const quant::BackendPatternConfig& config : backend.configs()) {
    std::vector<ObjectType> types = {config.pattern.front()};
    if (config.root_module) types.emplace_back(*config.root_module);
    if (config.fused_module) types.emplace_back(*config.fused_module);
    if (config.qat_module) types.emplace_back(config.qat_module->type());
    if (config.reference_quantized_module)
      types.emplace_back(config.reference_quantized_module->type());
    for (const auto& [mode, module] : config.quantized_modules) types.emplace_back(module.type());
    for (const auto& [mode, lowered] : config.quantized_ops) types.emplace_back(lowered.op);
    relate(types);
  }
  for (const ops::Op* op : ops::all())
    if (op->traits().layer) relate({ObjectType(op->traits().layer), ObjectType(op->name())});
  // standalone modules
  relate({typeid(quant::ObservedGraphModule), typeid(GraphModule)});
  RelatedOps sets;
  for (size_t i = 0; i < groups.size(); ++i) sets[std::to_string(i)] = std::move(groups[i]);
  return sets;
}

namespace {
const std::string* set_of(const RelatedOps& sets, const ObjectType& type) {
  for (const auto& [name, types] : sets)
    if (std::find(types.begin(), types.end(), type) != types.end()) return &name;
  return nullptr;
}
}  // namespace

void add_op_to_sets_of_related_ops(RelatedOps& sets, const ObjectType& op,
                                   const std::optional<ObjectType>& related_op) {
  if (!related_op) {
    size_t number = 0;
    while (sets.count(std::to_string(number))) ++number;
    sets[std::to_string(number)] = {op};
    return;
  }
  const std::string* set = set_of(sets, *related_op);
  OCTET_CHECK(set, not_found, "add_op_to_sets_of_related_ops: {} is in no set",
              quant::to_string(*related_op));
  sets[*set].push_back(op);
}

std::vector<ObjectType> get_unmatchable_types_map() {
  return {"quantize",
          "dequantize",
          "requantize",
          "lookup",
          "identity",
          "clone",
          "to",
          "reshape",
          "permute",
          "unsqueeze",
          "squeeze",
          "expand",
          "slice",
          "tile",
          typeid(nn::Identity),
          typeid(nn::Flatten),
          typeid(nn::Unflatten)};
}

namespace {

bool matches(const View& v, const Node& end, const quant::Pattern& pattern,
             const std::set<NodeId>& seen, std::vector<const Node*>& chain) {
  chain.clear();
  const Node* node = &end;
  for (size_t i = pattern.size(); i-- > 0;) {
    if (!v.is_computed(*node) || seen.count(v.g.value(node->outputs.at(0)).producer) ||
        v.type(*node) != pattern[i])
      return false;
    chain.push_back(node);
    if (i == 0) return true;
    if (node->inputs.empty() || node->inputs[0] == kNone ||
        v.uses[static_cast<size_t>(node->inputs[0])] != 1)
      return false;
    node = &v.node_before(*node);
    if (node->outputs.size() != 1) return false;
  }
  return true;
}

// The subgraphs that can be matched, from the outputs backwards, in an order that is the same for
// graphs of the same structure.
std::vector<NSSubgraph> matchable_subgraphs(const View& v, const MatchOptions& options) {
  static const quant::BackendConfig backend = quant::get_native_backend_config();
  static const std::vector<const quant::BackendPatternConfig*> patterns = backend.by_length();
  auto id = [&](const Node& node) { return v.g.value(node.outputs.at(0)).producer; };
  std::vector<NSSubgraph> result;
  std::set<NodeId> seen;
  std::vector<NodeId> stack;
  for (ValueId output : v.g.outputs()) stack.push_back(v.g.value(output).producer);
  while (!stack.empty()) {
    const NodeId end = stack.back();
    stack.pop_back();
    if (seen.count(end)) continue;
    // An observer belongs to what it observes, a relu to the layer before it.
    std::vector<const Node*> nodes = {&v.g.node(end)};
    if (v.is_observer(*nodes[0])) {
      const Node& before = v.node_before(*nodes[0]);
      if (v.is_computed(before) && before.outputs.size() == 1 && !v.is_observer(before) &&
          !seen.count(id(before)))
        nodes.push_back(&before);
    }
    std::vector<const Node*> chain;
    for (const quant::BackendPatternConfig* config : patterns)
      if (config->pattern.size() > 1 && matches(v, *nodes.back(), config->pattern, seen, chain)) {
        nodes.insert(nodes.end(), chain.begin() + 1, chain.end());
        break;
      }
    for (const Node* node : nodes) seen.insert(id(*node));
    const Node& start = *nodes.back();
    for (ValueId operand : start.inputs)
      if (operand != kNone) stack.push_back(v.g.value(operand).producer);
    if (!v.is_computed(start) || v.is_observer(start)) continue;
    if (dynamic_cast<OutputLogger*>(v.module(start).get())) continue;
    const auto& skipped = options.unmatchable_types_map;
    if (std::find(skipped.begin(), skipped.end(), v.type(start)) != skipped.end()) continue;
    result.push_back({.start_node = id(start), .end_node = end, .base_op_node = id(start)});
  }
  return result;
}

using Pairs = std::vector<std::pair<std::string, std::pair<NSSubgraph, NSSubgraph>>>;

Pairs matching(const View& a, const View& b, const MatchOptions& options) {
  const std::vector<NSSubgraph> of_a = matchable_subgraphs(a, options),
                                of_b = matchable_subgraphs(b, options);
  Pairs pairs;
  std::map<std::string, int> counts;
  for (size_t i = 0; i < std::max(of_a.size(), of_b.size()); ++i) {
    auto described = [](const View& v, const std::vector<NSSubgraph>& all, size_t k) {
      if (k >= all.size()) return std::string("nothing");
      const Node& node = v.g.node(all[k].base_op_node);
      return fmt::format("%{} ({})", v.name(node), v.type_name(node));
    };
    const char* const what =
        "get_matching_subgraph_pairs: {} of one graph and {} of the other are not related: give "
        "two "
        "graphs of one model, or name related types with add_op_to_sets_of_related_ops";
    OCTET_CHECK(i < of_a.size() && i < of_b.size(), invalid_argument, fmt::runtime(what),
                described(a, of_a, i), described(b, of_b, i));
    const ObjectType type_a = a.type(a.g.node(of_a[i].base_op_node)),
                     type_b = b.type(b.g.node(of_b[i].base_op_node));
    const std::string* set = set_of(options.base_name_to_sets_of_related_ops, type_a);
    const std::string* set_b = set_of(options.base_name_to_sets_of_related_ops, type_b);
    if (!set || set != set_b) {
      OCTET_CHECK(type_a == type_b, invalid_argument, fmt::runtime(what), described(a, of_a, i),
                  described(b, of_b, i));
      continue;  // nothing is known of it
    }
    pairs.emplace_back(fmt::format("base_op_{}_{}", *set, counts[*set]++),
                       std::pair(of_a[i], of_b[i]));
  }
  std::reverse(pairs.begin(), pairs.end());
  return pairs;
}

// The paths of matching layers, by the pairs' names: those in model a, for both. (Where a module is
// called twice, convert makes two of it.)
std::map<std::string, std::string> paths_of(const View& a, const Pairs& pairs) {
  std::map<std::string, std::string> paths;
  for (const auto& [name, pair] : pairs) paths[name] = a.fqn(a.g.node(pair.first.base_op_node));
  return paths;
}

// The results with layers named after the nodes of one model.
NSResultsType rekeyed(NSResultsType&& results, const std::string& model_name) {
  NSResultsType named;
  for (auto& [key, by_type] : results) {
    std::string name = key;
    for (const auto& [type, by_model] : by_type)
      if (auto it = by_model.find(model_name); it != by_model.end() && !it->second.empty())
        name = it->second[0].ref_node_name;
    named[name] = std::move(by_type);
  }
  return named;
}

}  // namespace

Pairs get_matching_subgraph_pairs(const GraphModule& gm_a, const GraphModule& gm_b,
                                  const MatchOptions& options) {
  return matching(View(gm_a), View(gm_b), options);
}

// -- weights --------------------------------------------------------------------------------------

namespace {

bool is_layer(const std::string& op) {
  const auto all = ops::all();
  return std::any_of(all.begin(), all.end(), [&](const ops::Op* other) {
    return other->traits().layer && (other->name() == op || other->traits().layer == op);
  });
}

// "weight_ih_l0" before "weight_hh_l0", layer by layer.
bool recurrent_before(const std::string& a, const std::string& b) {
  const size_t part = std::string("weight_ih").size();
  return std::pair(a.substr(part), b) < std::pair(b.substr(part), a);
}

std::vector<Tensor> weights_of(Module& module) {
  if (dynamic_cast<nn::intrinsic::FusedModule*>(&module)) return weights_of(*module.submodule("0"));
  if (dynamic_cast<nn::LayerNorm*>(&module)) return {};
  std::map<std::string, Tensor> tensors = module.extra_state();
  for (const auto& [name, tensor] : module.own_tensors())
    if (tensor->defined()) tensors.emplace(name, *tensor);
  if (auto it = tensors.find("weight"); it != tensors.end() && it->second.dim() >= 2)
    return {it->second.detach()};
  std::vector<std::string> names;
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with("weight_ih") || name.starts_with("weight_hh")) names.push_back(name);
  std::sort(names.begin(), names.end(), recurrent_before);
  std::vector<Tensor> result;
  for (const std::string& name : names) result.push_back(tensors.at(name).detach());
  return result;
}

std::vector<Tensor> weights_of(const View& v, const Node& node) {
  if (const nn::ModulePtr module = v.module(node)) return weights_of(*module);
  const auto at = ops::get(node.op).param_index("weight");
  if (!at || *at >= node.inputs.size() || !is_layer(node.op)) return {};
  const ValueId weight = node.inputs[*at];
  if (weight == kNone || !v.is_constant(weight)) return {};
  return {v.constant(weight)};
}

NSSingleResultType result_of(const View& v, const char* type, const Node& ref, const Node& ref_type,
                             const Node& prev, const std::string& fqn) {
  return {.type = type,
          .ref_node_name = v.name(ref),
          .ref_node_target_type = v.type_name(ref_type),
          .prev_node_name = v.name(prev),
          .prev_node_target_type = v.is_computed(prev) ? v.type_name(prev) : "",
          .fqn = fqn};
}

}  // namespace

NSResultsType extract_weights(const std::string& model_name_a, const GraphModule& model_a,
                              const std::string& model_name_b, const GraphModule& model_b,
                              const MatchOptions& options) {
  const View a(model_a), b(model_b);
  NSResultsType results;
  const Pairs pairs = matching(a, b, options);
  const std::map<std::string, std::string> paths = paths_of(a, pairs);
  auto extract = [&](const View& v, const std::string& model, const std::string& name, NodeId id) {
    const Node& node = v.g.node(id);
    std::vector<Tensor> values = weights_of(v, node);
    if (values.empty()) return;
    NSSingleResultType result = result_of(v, "weight", node, node, node, paths.at(name));
    result.values = std::move(values);
    results[name]["weight"][model] = {std::move(result)};
  };
  for (const auto& [name, pair] : pairs) {
    extract(a, model_name_a, name, pair.first.base_op_node);
    extract(b, model_name_b, name, pair.second.base_op_node);
  }
  return rekeyed(std::move(results), model_name_b);
}

// -- loggers --------------------------------------------------------------------------------------

Tensor OutputLogger::forward(Tensor x) {
  if (enabled && save_activations) stats.push_back(x.detach());
  return x;
}

std::string OutputLogger::extra_repr() const {
  const NSSingleResultType& r = place.result;
  return fmt::format(
      "ref_name={}, model_name={}, prev_node_name={}, ref_node_name={}, ref_node_target_type={}, "
      "results_type={}, index_within_arg={}, index_of_arg={}, fqn={}",
      place.ref_name, place.model_name, r.prev_node_name, r.ref_node_name, r.ref_node_target_type,
      r.type, r.index_within_arg, r.index_of_arg, r.fqn);
}

namespace {

// Which operand an input logger is for: that of cat is one list of tensors.
void set_operand(NSSingleResultType& result, const Node& node, size_t operand) {
  const bool listed = node.kind == NodeKind::call && ops::get(node.op).params().at(0).variadic;
  (listed ? result.index_within_arg : result.index_of_arg) = static_cast<int64_t>(operand);
}

// How many results both layers of a pair have.
size_t common_results(const View& a, const View& b, const std::pair<NSSubgraph, NSSubgraph>& pair) {
  return std::min(a.g.node(pair.first.base_op_node).outputs.size(),
                  b.g.node(pair.second.base_op_node).outputs.size());
}

// `results`: of a pair, common_results.
GraphModulePtr with_loggers(const View& v, const std::string& model, const Pairs& pairs,
                            NSSubgraph std::pair<NSSubgraph, NSSubgraph>::*side,
                            const std::map<std::string, std::string>& paths,
                            const std::function<size_t(const Pairs::value_type&)>& results,
                            const MakeLogger& logger, bool inputs) {
  std::map<NodeId, const Pairs::value_type*> starts, ends, bases;
  for (const auto& pair : pairs) {
    starts[(pair.second.*side).start_node] = &pair;
    ends[(pair.second.*side).end_node] = &pair;
    bases[(pair.second.*side).base_op_node] = &pair;
  }
  Instrument instrument(v);
  return instrument.run([&](Rewriter& r, const Node& node) {
    const NodeId id = v.g.value(node.outputs.at(0)).producer;
    auto start = starts.find(id), end = ends.find(id);
    if (inputs && start != starts.end()) {
      const NSSubgraph& subgraph = start->second->second.*side;
      for (size_t i : v.data_operands(node)) {
        NSSingleResultType result =
            result_of(v, "node_input", node, v.g.node(subgraph.base_op_node),
                      v.g.producer(node.inputs[i]), paths.at(start->second->first));
        set_operand(result, node, i);
        r.map(node.inputs[i], instrument.log(r(node.inputs[i]), v.name(node) + "_ns_logger", logger,
                                             {model, start->second->first, std::move(result)}));
      }
    }
    r.copy(node);
    // The results behind the first, which others observe and fuse.
    if (const auto base = bases.find(id); base != bases.end())
      for (size_t k = 1; k < results(*base->second); ++k) {
        NSSingleResultType result =
            result_of(v, "node_output", node, node, node, paths.at(base->second->first));
        result.index_within_arg = static_cast<int64_t>(k);
        r.map(node.outputs[k], instrument.log(r(node.outputs[k]), v.name(node) + "_ns_logger",
                                              logger, {model, base->second->first, result}));
      }
    if (end != ends.end()) {
      const NSSubgraph& subgraph = end->second->second.*side;
      r.map(node.outputs[0],
            instrument.log(r(node.outputs[0]), v.name(node) + "_ns_logger", logger,
                           {model, end->second->first,
                            result_of(v, "node_output", node, v.g.node(subgraph.base_op_node), node,
                                      paths.at(end->second->first))}));
    }
    return true;
  });
}

}  // namespace

std::pair<GraphModulePtr, GraphModulePtr> add_loggers(
    const std::string& name_a, const GraphModulePtr& model_a, const std::string& name_b,
    const GraphModulePtr& model_b, const MakeLogger& logger, bool should_log_inputs,
    const MatchOptions& options) {
  const View a(*model_a), b(*model_b);
  const Pairs pairs = matching(a, b, options);
  const std::map<std::string, std::string> paths = paths_of(a, pairs);
  using Pair = std::pair<NSSubgraph, NSSubgraph>;
  const auto results = [&](const Pairs::value_type& p) { return common_results(a, b, p.second); };
  return {with_loggers(a, name_a, pairs, &Pair::first, paths, results, logger, should_log_inputs),
          with_loggers(b, name_b, pairs, &Pair::second, paths, results, logger, should_log_inputs)};
}

NSResultsType extract_logger_info(const Module& model_a, const Module& model_b,
                                  const std::string& model_name_to_use_for_layer_names) {
  NSResultsType results;
  collect(model_a, results);
  collect(model_b, results);
  return rekeyed(std::move(results), model_name_to_use_for_layer_names);
}

// -- shadows --------------------------------------------------------------------------------------

namespace {

// Puts copies of a's subgraphs beside b's nodes.
class Shadows {
 public:
  Shadows(const View& a, const View& b, std::string name_a, std::string name_b,
          const MakeLogger& logger, bool inputs)
      : a_(a),
        b_(b),
        name_a_(std::move(name_a)),
        name_b_(std::move(name_b)),
        logger_(logger),
        inputs_(inputs),
        instrument_(b) {}

  GraphModulePtr run(const Pairs& pairs) {
    paths_ = paths_of(a_, pairs);
    for (const auto& pair : pairs) {
      if (!can_shadow(pair.second)) continue;
      starts_[pair.second.second.start_node] = &pair;
      ends_[pair.second.second.end_node] = &pair;
      bases_[pair.second.second.base_op_node] = &pair;
    }
    return instrument_.run([&](Rewriter& r, const Node& node) { return visit(r, node); });
  }

 private:
  // From start to end, without observers.
  std::vector<const Node*> nodes_of(const NSSubgraph& subgraph) const {
    std::vector<const Node*> nodes;
    for (const Node* node = &a_.g.node(subgraph.end_node);; node = &a_.node_before(*node)) {
      const nn::ModulePtr module = a_.module(*node);
      if (!dynamic_cast<quant::Observer*>(module.get())) nodes.push_back(node);
      if (node == &a_.g.node(subgraph.start_node)) break;
    }
    std::reverse(nodes.begin(), nodes.end());
    return nodes;
  }

  bool can_shadow(const std::pair<NSSubgraph, NSSubgraph>& pair) const {
    const std::vector<const Node*> nodes = nodes_of(pair.first);
    for (size_t i = 1; i < nodes.size(); ++i)
      if (a_.data_operands(*nodes[i]) != std::vector<size_t>{0}) return false;
    return a_.data_operands(*nodes[0]).size() ==
           b_.data_operands(b_.g.node(pair.second.start_node)).size();
  }

  // A value of the new graph as a has it.
  ValueId cast(const std::string& name, ValueId value, const TensorType& wanted) {
    graph::Graph& g = instrument_.rewriter().out();
    const TensorType given = g.type(value);
    if (given.is_quantized() && wanted.is_quantized() && given.dtype == wanted.dtype &&
        *given.quantizer == *wanted.quantizer)
      return value;
    if (given.is_quantized()) value = g.add_call(name + "_dtype_cast", "dequantize", {value});
    if (wanted.is_quantized())
      value = g.add_call(name + "_dtype_cast", "quantize", {value}, {},
                         ops::QType{wanted.dtype, wanted.quantizer});
    return value;
  }

  // A constant of a, behind its fake-quantize module if it has one.
  ValueId constant(const std::string& name, ValueId of_a) {
    const Node& node = a_.g.producer(of_a);
    if (node.kind == NodeKind::constant)
      return instrument_.rewriter().out().add_constant(a_.g.value(of_a).name + "_shadow_copy",
                                                       node.value);
    const ValueId value = constant(name, node.inputs[0]);
    if (dynamic_cast<quant::Observer*>(a_.module(node).get())) return value;
    return instrument_.call(name + "_shadow_copy", a_.module(node), node.op, {value},
                            {a_.g.type(of_a)});
  }

  std::vector<ValueId> copy(const std::string& name, const Node& node,
                            const std::vector<ValueId>& data) {
    std::vector<ValueId> operands;
    size_t next = 0;
    for (ValueId operand : node.inputs)
      operands.push_back(operand == kNone          ? kNone
                         : a_.is_constant(operand) ? constant(name, operand)
                                                   : data.at(next++));
    std::vector<TensorType> types;
    for (ValueId output : node.outputs) types.push_back(a_.g.type(output));
    if (node.kind == NodeKind::module)
      return instrument_.calls(name + "_shadow_copy", a_.module(node), node.op, operands, types);
    return instrument_.rewriter().out().add_calls(name + "_shadow_copy", node.op, operands,
                                                  node.attrs, graph::want_of(a_.g, node),
                                                  node.scope);
  }

  void shadow(Rewriter& r, const Pairs::value_type& pair) {
    const auto& [subgraph_a, subgraph_b] = pair.second;
    const std::vector<const Node*> nodes = nodes_of(subgraph_a);
    const Node& start_b = b_.g.node(subgraph_b.start_node);
    const Node& base_a = a_.g.node(subgraph_a.base_op_node);
    const std::string name = b_.name(start_b);
    const std::vector<size_t> of_a = a_.data_operands(*nodes[0]), of_b = b_.data_operands(start_b);
    std::vector<ValueId> data;
    for (size_t i = 0; i < of_a.size(); ++i) {
      const ValueId value_b = start_b.inputs[of_b[i]], value_a = nodes[0]->inputs[of_a[i]];
      if (inputs_) {
        NSSingleResultType result =
            result_of(b_, "node_input", start_b, b_.g.node(subgraph_b.base_op_node),
                      b_.g.producer(value_b), paths_.at(pair.first));
        set_operand(result, start_b, of_b[i]);
        r.map(value_b, instrument_.log(r(value_b), name + "_ns_logger_b_inp", logger_,
                                       {name_b_, pair.first, std::move(result)}));
      }
      data.push_back(cast(name, r(value_b), a_.g.type(value_a)));
      if (!inputs_) continue;
      NSSingleResultType result = result_of(a_, "node_input", *nodes[0], base_a,
                                            a_.g.producer(value_a), paths_.at(pair.first));
      set_operand(result, *nodes[0], of_a[i]);
      data.back() = instrument_.log(data.back(), name + "_ns_logger_a_inp", logger_,
                                    {name_a_, pair.first, std::move(result)});
    }
    std::vector<ValueId> further;
    for (const Node* node : nodes) {
      const std::vector<ValueId> made = copy(name, *node, data);
      if (node == &base_a) further.assign(made.begin() + 1, made.end());
      data = {made.at(0)};
    }
    NSSingleResultType result =
        result_of(a_, "node_output", *nodes.back(), base_a, *nodes.back(), paths_.at(pair.first));
    result.ref_node_name = result.prev_node_name = r.out().value(data[0]).name;
    instrument_.log(data[0], name + "_ns_logger_a", logger_, {name_a_, pair.first, result});
    for (size_t k = 1; k < common_results(a_, b_, pair.second); ++k) {
      result.index_within_arg = static_cast<int64_t>(k);
      instrument_.log(further.at(k - 1), name + "_ns_logger_a", logger_,
                      {name_a_, pair.first, result});
    }
  }

  bool visit(Rewriter& r, const Node& node) {
    const NodeId id = b_.g.value(node.outputs.at(0)).producer;
    if (auto start = starts_.find(id); start != starts_.end()) shadow(r, *start->second);
    r.copy(node);
    if (const auto base = bases_.find(id); base != bases_.end())
      for (size_t k = 1; k < common_results(a_, b_, base->second->second); ++k) {
        NSSingleResultType result =
            result_of(b_, "node_output", node, node, node, paths_.at(base->second->first));
        result.index_within_arg = static_cast<int64_t>(k);
        r.map(node.outputs[k],
              instrument_.log(r(node.outputs[k]), b_.name(node) + "_ns_logger_b", logger_,
                              {name_b_, base->second->first, std::move(result)}));
      }
    auto end = ends_.find(id);
    if (end == ends_.end()) return true;
    const Node& base = b_.g.node(end->second->second.second.base_op_node);
    r.map(node.outputs[0],
          instrument_.log(
              r(node.outputs[0]), b_.name(node) + "_ns_logger_b", logger_,
              {name_b_, end->second->first,
               result_of(b_, "node_output", node, base, node, paths_.at(end->second->first))}));
    return true;
  }

  const View &a_, &b_;
  const std::string name_a_, name_b_;
  const MakeLogger& logger_;
  const bool inputs_;
  Instrument instrument_;
  std::map<std::string, std::string> paths_;
  std::map<NodeId, const Pairs::value_type*> starts_, ends_, bases_;  // of b
};

}  // namespace

GraphModulePtr add_shadow_loggers(const std::string& name_a, const GraphModulePtr& model_a,
                                  const std::string& name_b, const GraphModulePtr& model_b,
                                  const MakeLogger& logger, bool should_log_inputs,
                                  const MatchOptions& options) {
  const View a(*model_a), b(*model_b);
  const Pairs pairs = matching(a, b, options);
  return Shadows(a, b, name_a, name_b, logger, should_log_inputs).run(pairs);
}

NSResultsType extract_shadow_logger_info(const Module& model_a_shadows_b,
                                         const std::string& model_name_to_use_for_layer_names) {
  NSResultsType results;
  collect(model_a_shadows_b, results);
  return rekeyed(std::move(results), model_name_to_use_for_layer_names);
}

namespace {
// Not the places that topk gives beside the values.
bool has_numbers(const Tensor& x) { return x.is_quantized() || is_floating(x.dtype()); }

// The values that a model's loggers kept of the last call, by ref_name and number of the result, of
// one model name.
std::map<std::pair<std::string, int64_t>, NSSingleResultType> take(Module& model,
                                                                   const std::string& model_name) {
  NSResultsType results;
  collect(model, results);
  for (auto& [path, module] : model.named_modules())
    if (auto* logger = dynamic_cast<OutputLogger*>(module)) logger->stats.clear();
  std::map<std::pair<std::string, int64_t>, NSSingleResultType> values;
  for (auto& [name, by_type] : results)
    if (auto it = by_type["node_output"].find(model_name); it != by_type["node_output"].end())
      for (NSSingleResultType& result : it->second)
        if (!result.values.empty() && has_numbers(result.values[0]))
          values[{name, result.index_within_arg}] = std::move(result);
  return values;
}
}  // namespace

std::map<std::string, LayerError> split_layer_errors(
    const GraphModulePtr& float_model, const GraphModulePtr& quantized,
    const std::vector<std::vector<Tensor>>& samples, const MatchOptions& options) {
  autograd::NoGrad no_grad;
  const MakeLogger logger = logger_class<OutputLogger>();
  auto [a, b] = add_loggers("float", float_model, "quantized", quantized, logger, false, options);
  // The quantized layers as shadows of the float ones.
  GraphModulePtr both =
      add_shadow_loggers("quantized", quantized, "float", float_model, logger, false, options);
  std::map<std::string, LayerError> errors;
  for (const std::vector<Tensor>& sample : samples) {
    for (const GraphModulePtr& model : {a, b, both}) (void)(*model)(sample);
    auto expected = take(*a, "float"), within = take(*b, "quantized");
    for (auto& [name, alone] : take(*both, "quantized")) {
      const NSSingleResultType& y = within.at(name);
      const std::string number = name.second ? ":" + std::to_string(name.second) : "";
      errors[y.ref_node_name + number] +=
          split_layer_error(expected.at(name).values.at(0), alone.values.at(0), y.values.at(0));
    }
  }
  return errors;
}

// -- comparing ------------------------------------------------------------------------------------

namespace {
// Indices are compared as floats.
Tensor as_numbers(const Tensor& x) { return has_numbers(x) ? x : x.to(DType::float32); }
}  // namespace

void extend_logger_results_with_comparison(
    NSResultsType& results, const std::string& model_name_1, const std::string& model_name_2,
    const std::function<double(const Tensor&, const Tensor&)>& comparison_fn,
    const std::string& comparison_name) {
  for (auto& [layer, by_type] : results)
    for (auto& [type, by_model] : by_type) {
      for (const std::string& model : {model_name_1, model_name_2})
        OCTET_CHECK(by_model.count(model), not_found,
                    "extend_logger_results_with_comparison: layer '{}' has no {} of model '{}'",
                    layer, type, model);
      const auto& results_1 = by_model.at(model_name_1);
      for (NSSingleResultType& result_2 : by_model.at(model_name_2)) {
        auto result_1 = std::find_if(results_1.begin(), results_1.end(), [&](const auto& r) {
          return r.index_within_arg == result_2.index_within_arg &&
                 r.index_of_arg == result_2.index_of_arg;
        });
        OCTET_CHECK(result_1 != results_1.end(), not_found,
                    "extend_logger_results_with_comparison: layer '{}' has no operand {}:{} of "
                    "model '{}'",
                    layer, result_2.index_of_arg, result_2.index_within_arg, model_name_1);
        std::vector<double>& out = result_2.comparisons[comparison_name];
        out.clear();
        for (size_t i = 0; i < std::min(result_1->values.size(), result_2.values.size()); ++i)
          out.push_back(
              comparison_fn(as_numbers(result_1->values[i]), as_numbers(result_2.values[i])));
      }
    }
}

}  // namespace octet::debug::fx
