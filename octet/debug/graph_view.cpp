#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/debug/graph_view_impl.h"
#include "octet/debug/n_shadows.h"
#include "octet/nn/registry.h"
#include "octet/quant/observe/fake_quantize.h"

namespace octet::debug::fx {

using graph::Graph;
using graph::GraphModule;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using quant::ObjectType;

View::View(const GraphModule& module)
    : gm(module), g(module.with_values(module.graph())), uses(g.use_counts()) {}

nn::ModulePtr View::module(const Node& node) const {
  return node.kind == NodeKind::module ? gm.submodule(node.scope) : nullptr;
}

bool View::is_observer(const Node& node) const {
  const nn::ModulePtr m = module(node);
  return m && quant::is_activation_post_process(*m);
}

bool View::is_computed(const Node& node) const {
  return node.kind == NodeKind::call || node.kind == NodeKind::module;
}

ObjectType View::type(const Node& node) const {
  if (const nn::ModulePtr m = module(node)) return {std::type_index(m->class_type())};
  return {node.op};
}

std::string View::type_name(const Node& node) const {
  const nn::ModulePtr m = module(node);
  if (!m) return node.op;
  return nn::is_own_class(*m) ? nn::registered_name(*m) : nn::class_name(m->class_type());
}

std::string View::name(const Node& node) const {
  std::string name = g.value(node.outputs.at(0)).name;
  const std::string codes = ".quantized";
  if (g.type(node.outputs[0]).is_quantized() && name.ends_with(codes))
    name.resize(name.size() - codes.size());
  return name;
}

const Node& View::node_before(const Node& node) const { return g.producer(node.inputs.at(0)); }

std::string View::fqn(const Node& node) const {
  return is_observer(node) ? fqn(node_before(node)) : node.scope;
}

bool View::is_constant(ValueId id) const {
  const Node& node = g.producer(id);
  return node.kind == NodeKind::constant || (is_observer(node) && is_constant(node.inputs[0]));
}

const Tensor& View::constant(ValueId id) const {
  const Node& node = g.producer(id);
  return node.kind == NodeKind::constant ? node.value : constant(node.inputs[0]);
}

std::vector<size_t> View::data_operands(const Node& node) const {
  std::vector<size_t> result;
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (node.inputs[i] != kNone && !is_constant(node.inputs[i])) result.push_back(i);
  return result;
}

// -- graphs with more modules ---------------------------------------------------------------------

std::vector<Tensor> Instrumented::call_module(const Node& node,
                                              const std::vector<Tensor>& operands) {
  const nn::ModulePtr module = submodule(node.scope);
  if (!training() && dynamic_cast<const quant::Observer*>(module.get())) return operands;
  return (*module)(operands);
}

ValueId Instrument::call(const std::string& name, const nn::ModulePtr& module,
                         const std::string& class_name, std::vector<ValueId> operands,
                         const std::vector<TensorType>& types, bool numbered) {
  return calls(name, module, class_name, std::move(operands), types, numbered).at(0);
}

std::vector<ValueId> Instrument::calls(const std::string& name, const nn::ModulePtr& module,
                                       const std::string& class_name, std::vector<ValueId> operands,
                                       const std::vector<TensorType>& types, bool numbered) {
  std::string stem = name;
  std::replace(stem.begin(), stem.end(), '.', '_');  // a path of one part
  std::string path = numbered ? "" : stem;
  for (int k = 0; path.empty() || view_.gm.has_submodule(path) ||
                  std::any_of(modules_.begin(), modules_.end(),
                              [&](const auto& m) { return m.first == path; });
       ++k)
    path = fmt::format("{}_{}", stem, k);
  modules_.emplace_back(path, module);
  return rewriter_.out().add_module(path, path, class_name, std::move(operands), types);
}

ValueId Instrument::log(ValueId value, const std::string& name, const MakeLogger& logger,
                        OutputLogger::Place place) {
  const std::shared_ptr<OutputLogger> module = logger(std::move(place));
  return call(name, module, module->type_name(), {value}, {rewriter_.out().type(value)});
}

GraphModulePtr Instrument::run(
    const std::function<bool(graph::Rewriter&, const graph::Node&)>& visit) {
  Graph graph = rewriter_.run(visit);
  auto& root = const_cast<GraphModule&>(view_.gm);  // its modules are shared, not changed
  auto result = nn::make<Instrumented>(view_.gm.graph(), root);
  for (const auto& [path, module] : modules_) result->put_module(path, module);
  result->set_graph(std::move(graph));
  result->train(view_.gm.training());
  return result;
}

void collect(const nn::Module& model, NSResultsType& results) {
  for (const auto& [name, child] : model.children()) {
    if (!child) continue;
    collect(*child, results);
    const auto* logger = dynamic_cast<const OutputLogger*>(child.get());
    if (!logger) continue;
    NSSingleResultType result = logger->place.result;
    result.values = logger->stats;
    if (const auto* compared = dynamic_cast<const OutputComparisonLogger*>(logger))
      result.comparisons["sqnr"] = compared->comparisons;
    auto& list = results[logger->place.ref_name][result.type][logger->place.model_name];
    list.push_back(std::move(result));
    std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
      return std::pair(a.index_of_arg, a.index_within_arg) <
             std::pair(b.index_of_arg, b.index_within_arg);
    });
  }
}

}  // namespace octet::debug::fx
