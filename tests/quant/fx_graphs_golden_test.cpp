// The graphs that graph mode makes of small models (fx_models.h), node for node against PyTorch's (scripts/oracle/fx_graphs.py).
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <typeindex>
#include <vector>

#include "octet/graph/trace.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/observer.h"
#include "tests/golden.h"
#include "tests/quant/fx_models.h"

namespace octet::testing {
namespace {

using fx_models::Maker;
using nlohmann::json;

const json& cases() {
  static const json loaded = load_golden("fx_graphs.json");
  return loaded;
}

const json& golden(const std::string& name) {
  for (const json& c : cases())
    if (c["name"] == name) return c;
  throw std::out_of_range("fx_graphs.json has no " + name);
}

// -- graphs as text, from both sides ------------------------------------------------------------------------

// A node as the golden file has it. Operands: a node and which of its results, -1 if it has one.
struct FlatNode {
  std::string kind, target, class_name, dtype, activation;
  std::vector<std::pair<int, int>> inputs;
};

FlatNode flat_of(const json& node) {
  FlatNode n{node["kind"], node.value("target", ""), node.value("class", ""), node.value("dtype", ""), node.value("activation", ""), {}};
  const json inputs = node.value("inputs", json::array());
  for (const json& i : inputs)
    n.inputs.push_back(i.is_array() ? std::pair<int, int>(i[0], i[1]) : std::pair<int, int>(i, -1));
  return n;
}

std::string class_of(nn::Module& module) {
  const std::string name = module.type_name();
  if (dynamic_cast<graph::GraphModule*>(&module)) return "Standalone";
  if (dynamic_cast<quant::FakeQuantizeBase*>(&module)) return name;
  if (nn::class_name(typeid(module)) == name && std::string(typeid(module).name()).find("3qat") != std::string::npos) return "qat." + name;
  if (module.has_submodule("0") && module.submodule("0")->type_name().starts_with("QuantizedReference"))
    return name + "(" + module.submodule("0")->type_name() + ")";
  return name;
}

// octet's graph; `root` holds the modules that it calls.
std::vector<FlatNode> flat_of(const graph::Graph& g, nn::Module& root) {
  std::vector<FlatNode> nodes;
  std::map<graph::ValueId, std::pair<int, int>> where;
  std::map<nn::Module*, int> observers;
  for (const graph::Node& node : g.nodes()) {
    FlatNode n{.target = node.op};
    for (graph::ValueId id : node.inputs)
      if (id != graph::kNone) n.inputs.push_back(where.at(id));
    if (!node.outputs.empty()) {
      const DType dtype = g.type(node.outputs[0]).dtype;
      if (is_quantized(dtype)) n.dtype = to_string(dtype);
    }
    if (node.kind == graph::NodeKind::input) {
      n.kind = "input";
      n.target = std::to_string(std::find(g.inputs().begin(), g.inputs().end(), node.outputs[0]) - g.inputs().begin());
    } else if (node.kind == graph::NodeKind::constant) {
      n.kind = "constant";
      n.target = g.value(node.outputs[0]).name;
    } else if (node.kind == graph::NodeKind::call) {
      n.kind = "call";
      const graph::ValueId last = node.inputs.back();
      if ((node.op == "add" || node.op == "mul") && g.is_constant(last) && g.constant(last).dim() == 0) {  // x + 2
        n.target += "_scalar";
        n.inputs.pop_back();
      }
      if (node.attrs.has("activation") && node.attrs.get_string("activation") != "none")
        n.activation = node.attrs.get_string("activation");
    } else {
      n.kind = "module";
      n.target = node.scope;
      nn::ModulePtr module = root.submodule(node.scope);
      n.class_name = class_of(*module);
      if (std::dynamic_pointer_cast<quant::Observer>(module) || std::dynamic_pointer_cast<quant::FakeQuantizeBase>(module))
        n.target = fmt::format("observer {}", observers.emplace(module.get(), observers.size()).first->second);
    }
    nodes.push_back(n);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      where[node.outputs[i]] = {static_cast<int>(nodes.size()) - 1, node.outputs.size() > 1 ? static_cast<int>(i) : -1};
  }
  FlatNode output{.kind = "output"};
  for (graph::ValueId id : g.outputs()) output.inputs.push_back(where.at(id));
  nodes.push_back(output);
  return nodes;
}

// One line per node, in an order that depends on nothing but who uses what: the inputs, then what the results need, operands
// first, then what is computed for nothing. Observers are numbered in this order.
std::string text_of(const std::vector<FlatNode>& nodes) {
  std::vector<int> order, place(nodes.size(), -1);
  std::function<void(int)> visit = [&](int i) {
    if (place[static_cast<size_t>(i)] >= 0) return;
    for (auto [from, result] : nodes[static_cast<size_t>(i)].inputs) visit(from);
    place[static_cast<size_t>(i)] = static_cast<int>(order.size());
    order.push_back(i);
  };
  for (size_t i = 0; i < nodes.size(); ++i)
    if (nodes[i].kind == "input") visit(static_cast<int>(i));
  visit(static_cast<int>(nodes.size()) - 1);
  for (size_t i = 0; i < nodes.size(); ++i)
    if (nodes[i].kind != "constant") visit(static_cast<int>(i));

  std::string text;
  std::map<std::string, size_t> observers;
  for (int i : order) {
    const FlatNode& n = nodes[static_cast<size_t>(i)];
    std::vector<std::string> inputs;
    for (auto [from, result] : n.inputs)
      inputs.push_back(std::to_string(place[static_cast<size_t>(from)]) + (result < 0 ? "" : "." + std::to_string(result)));
    std::string what = n.target;
    if (what.starts_with("observer")) what = fmt::format("observer {}", observers.emplace(what, observers.size()).first->second);
    if (n.kind == "input" || n.kind == "constant") what = n.kind + " " + what;
    if (n.kind == "output") what = "output";
    if (n.kind == "module") what = n.class_name + " " + what;
    text += fmt::format("{}: {}", place[static_cast<size_t>(i)], what);
    if (n.kind != "input" && n.kind != "constant") text += fmt::format("({})", fmt::join(inputs, ", "));
    text += (n.activation.empty() ? "" : " +" + n.activation) + (n.dtype.empty() ? "" : " " + n.dtype) + "\n";
  }
  return text;
}

std::string text_of(const json& nodes) {
  std::vector<FlatNode> flat;
  for (const json& node : nodes) flat.push_back(flat_of(node));
  return text_of(flat);
}

// -- models, their inputs and configs -------------------------------------------------------------------------

// Inputs as a case lists them: shapes of floats, or ["index", shape, n].
std::vector<Tensor> inputs_of(const json& c) {
  std::vector<Tensor> inputs;
  for (const json& shape : c["inputs"]) {
    if (shape[0].is_string()) {
      const Shape of = shape[1].get<Shape>();
      std::vector<int64_t> index;
      for (int64_t i = 0; i < numel(of); ++i) index.push_back(i % shape[2].get<int64_t>());
      inputs.push_back(Tensor::from(index, of));
    } else {
      inputs.push_back(Tensor::randn(shape.get<Shape>(), 7 + inputs.size()));
    }
  }
  return inputs;
}

nn::ModulePtr model_of(const Maker& maker) {
  nn::ModulePtr model = maker.make();
  model->train(golden(maker.name)["config"].value("qat", false));
  return model;
}

graph::TraceOptions trace_options_of(const json& config) {
  graph::TraceOptions options;
  const json names = config.value("non_traceable_module_name", json::array());
  const json standalone = config.value("standalone_module_name", json::object());
  for (const json& path : names) options.leaf_modules.push_back(path);
  for (const auto& item : standalone.items()) options.leaf_modules.push_back(item.key());
  if (config.contains("non_traceable_module_class")) options.leaf_classes.insert(typeid(fx_models::DependsOnData));
  if (config.contains("custom")) options.leaf_classes.insert(typeid(fx_models::CustomModule));
  return options;
}

// -- what differs on purpose -----------------------------------------------------------------------------------

struct Difference {
  const char *model, *stage, *reason, *octet;  // octet: the whole graph as text
};

const std::vector<Difference> kDifferences = {
    {"UnusedBranch", "traced", "what no result needs is not in the graph", R"(0: input 0
1: Linear fc1(0)
2: output(1)
)"},
};

// The graph is PyTorch's, or what the table says; a row of the table that has become unnecessary is a failure too.
void expect_graph(const std::string& model, const std::string& stage, const std::string& actual) {
  const std::string expected = text_of(golden(model)[stage]);
  for (const Difference& d : kDifferences) {
    if (model != d.model || stage != d.stage) continue;
    EXPECT_EQ(actual, d.octet) << "differs from PyTorch on purpose: " << d.reason;
    EXPECT_NE(actual, expected) << "is PyTorch's after all: the difference need not be listed";
    return;
  }
  EXPECT_EQ(actual, expected) << "octet's graph against PyTorch's";
}

// -- the tests -------------------------------------------------------------------------------------------------

class GoldenFxGraphs : public ::testing::TestWithParam<Maker> {};

INSTANTIATE_TEST_SUITE_P(, GoldenFxGraphs, ::testing::ValuesIn(fx_models::makers()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(GoldenFxGraphsTable, BothSidesHaveTheSameModels) {
  ASSERT_EQ(cases().size(), fx_models::makers().size());
  for (size_t i = 0; i < cases().size(); ++i) EXPECT_EQ(cases()[i]["name"], fx_models::makers()[i].name);
}

TEST_P(GoldenFxGraphs, Traced) {
  const json& c = golden(GetParam().name);
  nn::ModulePtr model = model_of(GetParam());
  auto traced = graph::trace(*model, inputs_of(c), trace_options_of(c["config"]));
  expect_graph(GetParam().name, "traced", text_of(flat_of(traced->graph(), *traced)));
}

}  // namespace
}  // namespace octet::testing
