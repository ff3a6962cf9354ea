#include "octet/debug/n_shadows.h"

#include <algorithm>
#include <iostream>
#include <numeric>

#include "octet/base/check_impl.h"
#include "octet/debug/graph_view_impl.h"
#include "octet/quant/workflow/fx.h"

namespace octet::debug::fx {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::Rewriter;
using graph::ValueId;
using nn::Module;
using quant::QConfig;
using quant::QConfigMapping;

// -- QConfigMultiMapping --------------------------------------------------------------------------

namespace {

// Everything that the mapping names, left float.
QConfigMapping left_float(const QConfigMapping& mapping) {
  QConfigMapping result;
  for (const auto& e : mapping.object_type_qconfigs()) result.set_object_type(e.type, std::nullopt);
  for (const auto& e : mapping.module_name_regex_qconfigs())
    result.set_module_name_regex(e.name, std::nullopt);
  for (const auto& e : mapping.module_name_qconfigs()) result.set_module_name(e.name, std::nullopt);
  for (const auto& e : mapping.module_name_object_type_order_qconfigs())
    result.set_module_name_object_type_order(e.path, e.type, e.index, std::nullopt);
  return result;
}

}  // namespace

template <typename Set>
QConfigMultiMapping& QConfigMultiMapping::insert(const QConfigs& qconfigs, Set&& set) {
  QConfigs wanted;
  for (const std::optional<QConfig>& q : qconfigs)
    if (q && std::find(wanted.begin(), wanted.end(), q) == wanted.end()) wanted.push_back(q);
  while (qconfig_mappings_list.size() < wanted.size())
    qconfig_mappings_list.push_back(
        qconfig_mappings_list.empty() ? QConfigMapping() : left_float(qconfig_mappings_list[0]));
  wanted.resize(qconfig_mappings_list.size());
  for (size_t i = 0; i < wanted.size(); ++i) set(qconfig_mappings_list[i], wanted[i]);
  return *this;
}

QConfigMultiMapping& QConfigMultiMapping::set_global(const QConfigs& qconfigs) {
  return insert(qconfigs, [](QConfigMapping& m, const auto& q) { m.set_global(q); });
}
QConfigMultiMapping& QConfigMultiMapping::set_object_type(const quant::ObjectType& type,
                                                          const QConfigs& qconfigs) {
  return insert(qconfigs, [&](QConfigMapping& m, const auto& q) { m.set_object_type(type, q); });
}
QConfigMultiMapping& QConfigMultiMapping::set_module_name_regex(const std::string& regex,
                                                                const QConfigs& qconfigs) {
  return insert(qconfigs,
                [&](QConfigMapping& m, const auto& q) { m.set_module_name_regex(regex, q); });
}
QConfigMultiMapping& QConfigMultiMapping::set_module_name(const std::string& path,
                                                          const QConfigs& qconfigs) {
  return insert(qconfigs, [&](QConfigMapping& m, const auto& q) { m.set_module_name(path, q); });
}
QConfigMultiMapping& QConfigMultiMapping::set_module_name_object_type_order(
    const std::string& path, const quant::ObjectType& type, int index, const QConfigs& qconfigs) {
  return insert(qconfigs, [&](QConfigMapping& m, const auto& q) {
    m.set_module_name_object_type_order(path, type, index, q);
  });
}
QConfigMultiMapping QConfigMultiMapping::from_list_qconfig_mapping(
    std::vector<QConfigMapping> mappings) {
  QConfigMultiMapping result;
  result.qconfig_mappings_list = std::move(mappings);
  return result;
}

// -- shadows --------------------------------------------------------------------------------------

std::vector<Tensor> OutputComparisonLogger::forward(std::vector<Tensor> inputs) {
  if (!enabled) return {inputs.at(0)};
  if (save_activations) stats.push_back(inputs[0].detach());
  ErrorStatistics one;
  one.add(inputs.at(1), inputs[0]);
  comparisons.push_back(one.sqnr());
  error.merge(one);
  return {inputs[0]};
}

namespace {

// The layer alone: a graph of its one node, whose inputs are the data that it takes.
GraphModulePtr alone(const View& v, const Node& node) {
  Graph g;
  g.name = v.name(node);
  std::vector<ValueId> operands;
  for (ValueId operand : node.inputs)
    operands.push_back(
        operand == kNone ? kNone
        : v.is_constant(operand)
            ? g.add_constant(v.g.value(operand).name, v.constant(operand))
            : g.add_input("x" + std::to_string(g.inputs().size()), v.g.type(operand)));
  std::vector<TensorType> types;
  for (ValueId output : node.outputs) types.push_back(v.g.type(output));
  std::vector<ValueId> results =
      node.kind == NodeKind::module
          ? g.add_module(g.name, node.scope, node.op, operands, types)
          : g.add_calls(g.name, node.op, operands, node.attrs, std::nullopt, node.scope);
  g.set_outputs({results.at(0)});
  auto layer = nn::make<graph::GraphModule>(std::move(g), const_cast<graph::GraphModule&>(v.gm));
  auto copy = std::dynamic_pointer_cast<graph::GraphModule>(layer->clone());
  copy->eval();
  return copy;
}

std::vector<TensorType> input_types(const graph::GraphModule& layer) {
  std::vector<TensorType> types;
  for (ValueId input : layer.graph().inputs()) types.push_back(layer.graph().type(input));
  return types;
}

}  // namespace

GraphModulePtr prepare_n_shadows_model(const nn::ModulePtr& model,
                                       const std::vector<Tensor>& example_inputs,
                                       const QConfigMultiMapping& qconfig_multi_mapping,
                                       const quant::BackendConfig& backend) {
  const auto& mappings = qconfig_multi_mapping.qconfig_mappings_list;
  OCTET_CHECK(!mappings.empty(), invalid_argument,
              "prepare_n_shadows_model: no qconfigs to compare: set_global({{...}})");
  const auto custom =
      quant::PrepareCustomConfig().set_leave_islands_float(false).set_join_tables(false);
  // What each mapping does with each layer; the float model is the same for all of them.
  std::vector<std::shared_ptr<quant::ObservedGraphModule>> prepared;
  for (const QConfigMapping& mapping : mappings)
    prepared.push_back(quant::prepare_fx(model, mapping, example_inputs, custom, backend));
  auto base = nn::make<graph::GraphModule>(prepared[0]->watched().graph, *prepared[0]);
  base->eval();

  const View v(*base);
  const std::vector<quant::ObjectType> skipped = get_unmatchable_types_map();
  Instrument instrument(v);
  int layer_count = 0;
  return instrument.run([&](Rewriter& r, const Node& node) {
    r.copy(node);
    if (!v.is_computed(node) || v.data_operands(node).empty() ||
        std::find(skipped.begin(), skipped.end(), v.type(node)) != skipped.end())
      return true;
    const std::string& name = v.g.value(node.outputs[0]).name;
    std::vector<std::pair<size_t, const QConfig*>> qconfigs;
    for (size_t i = 0; i < prepared.size(); ++i) {
      auto decision = prepared[i]->decisions().find(name);
      if (decision != prepared[i]->decisions().end() && decision->second.mode)
        qconfigs.emplace_back(i, &*decision->second.qconfig);
    }
    if (qconfigs.empty()) return true;

    const int layer = layer_count++;
    auto place = [&](size_t number, const QConfig* qconfig) {
      return OutputLogger::Place{fmt::format("subgraph_{}_{}", layer, number),
                                 "model",
                                 {.type = "node_output",
                                  .ref_node_name = v.name(node),
                                  .ref_node_target_type = v.type_name(node),
                                  .prev_node_name = v.name(node),
                                  .prev_node_target_type = v.type_name(node),
                                  .fqn = v.fqn(node),
                                  .qconfig_str = qconfig ? quant::to_string(*qconfig) : "",
                                  .subgraph = layer,
                                  .candidate = static_cast<int>(number)}};
    };
    auto quiet = [](const std::shared_ptr<OutputLogger>& logger) {
      logger->enabled = logger->save_activations = false;
      return logger;
    };
    const std::vector<TensorType> type = {v.g.type(node.outputs[0])};
    std::vector<ValueId> data;
    for (size_t i : v.data_operands(node)) data.push_back(r(node.inputs[i]));
    const ValueId result = r(node.outputs[0]);
    for (const auto& [i, qconfig] : qconfigs) {
      const GraphModulePtr single = alone(v, node);
      const auto shadow = quant::prepare_fx(single, QConfigMapping(*qconfig), input_types(*single),
                                            custom, backend);
      const ValueId shadowed = instrument.call(fmt::format("shadow_wrapper_{}_{}", layer, i + 1),
                                               shadow, shadow->type_name(), data, type, false);
      const auto logger = quiet(nn::make<OutputComparisonLogger>(place(i + 1, qconfig)));
      instrument.call(fmt::format("shadow_{}_{}", layer, i + 1), logger, logger->type_name(),
                      {shadowed, result}, type, false);
    }
    const auto logger = quiet(nn::make<OutputLogger>(place(0, nullptr)));
    r.map(node.outputs[0], instrument.call(fmt::format("shadow_{}_0", layer), logger,
                                           logger->type_name(), {result}, type, false));
    return true;
  });
}

void convert_n_shadows_model(Module& model) {
  for (const auto& [name, child] : std::vector(model.children()))
    if (auto shadow = std::dynamic_pointer_cast<quant::ObservedGraphModule>(child))
      model.set_submodule(name, quant::convert_fx(shadow));
}

namespace {
void for_each_logger(Module& model, const std::function<void(OutputLogger&)>& fn) {
  for (auto& [path, module] : model.named_modules())
    if (auto* logger = dynamic_cast<OutputLogger*>(module)) fn(*logger);
}
}  // namespace

void loggers_set_enabled(Module& model, bool enabled) {
  for_each_logger(model, [&](OutputLogger& logger) { logger.enabled = enabled; });
}

void loggers_set_save_activations(Module& model, bool save_activations) {
  for_each_logger(model, [&](OutputLogger& logger) { logger.save_activations = save_activations; });
}

NSResultsType extract_results_n_shadows_model(const Module& model) {
  NSResultsType results;
  collect(model, results);
  return results;
}

void print_comparisons_n_shadows_model(const NSResultsType& results, std::ostream& out) {
  std::map<std::pair<int, int>, const NSSingleResultType*> ordered;  // by layer and qconfig
  int most = 0;
  for (const auto& [name, by_type] : results)
    for (const auto& [type, by_model] : by_type)
      for (const auto& [model, list] : by_model)
        for (const NSSingleResultType& result : list) {
          ordered[{result.subgraph, result.candidate}] = &result;
          most = std::max(most, result.candidate);
        }
  std::vector<std::vector<std::string>> table = {{"node_name", "node_type", "fqn"}};
  for (int i = 0; i < most; ++i) table[0].push_back(std::to_string(i));
  for (const auto& [at, result] : ordered) {
    if (at.second == 0) {
      table.push_back({result->ref_node_name, result->ref_node_target_type, result->fqn});
      table.back().resize(table[0].size());
      continue;
    }
    const auto sqnr = result->comparisons.find("sqnr");
    if (sqnr == result->comparisons.end() || sqnr->second.empty()) continue;
    const double sum = std::accumulate(sqnr->second.begin(), sqnr->second.end(), 0.0);
    table.back()[2 + static_cast<size_t>(at.second)] =
        fmt::format("{:.2f}", sum / static_cast<double>(sqnr->second.size()));
  }
  for (const std::vector<std::string>& cells : table) {
    std::string line;
    for (size_t c = 0; c < cells.size(); ++c) {
      size_t width = 0;
      for (const auto& other : table) width = std::max(width, other[c].size());
      line += c < 3 ? fmt::format("{:<{}}  ", cells[c], width)
                    : fmt::format("{:>{}}  ", cells[c], width);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << "\n";
  }
}

void print_comparisons_n_shadows_model(const NSResultsType& results) {
  print_comparisons_n_shadows_model(results, std::cout);
}

}  // namespace octet::debug::fx
