// The graphs that graph mode makes of small models (fx_models.h), node for node against PyTorch's (scripts/oracle/fx_graphs.py).
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "octet/graph/trace.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/observer.h"
#include "octet/quant/workflow/fx.h"
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
    return "QuantizedReference" + name;
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
      // PyTorch's packed weights have numbers for names; octet's may have one behind the parameter's name.
      if (!n.dtype.empty() && n.target.ends_with("_1")) n.target.resize(n.target.size() - 2);
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

// PyTorch keeps operator and relu apart until it lowers them; octet's graphs have one operator with an activation from fuse_fx
// on. Written octet's way: a relu (call or module) that alone uses the operator becomes its activation.
std::vector<FlatNode> with_activations(const std::vector<FlatNode>& nodes) {
  static const std::set<std::string> kOps = {"add", "add_scalar", "mul", "mul_scalar", "linear", "conv1d", "conv2d", "conv3d"};
  std::vector<int> uses(nodes.size(), 0), place(nodes.size());
  for (const FlatNode& n : nodes)
    for (auto [from, result] : n.inputs) ++uses[static_cast<size_t>(from)];
  std::vector<FlatNode> fused;
  for (size_t i = 0; i < nodes.size(); ++i) {
    FlatNode n = nodes[i];
    for (auto& [from, result] : n.inputs) from = place[static_cast<size_t>(from)];
    const bool relu = (n.kind == "call" && n.target == "relu") || (n.kind == "module" && n.class_name == "ReLU");
    if (relu && uses[static_cast<size_t>(nodes[i].inputs[0].first)] == 1) {
      FlatNode& root = fused[static_cast<size_t>(n.inputs[0].first)];
      if (root.kind == "call" && kOps.count(root.target) && root.activation.empty()) {
        root.activation = "relu";
        place[i] = n.inputs[0].first;
        continue;
      }
    }
    place[i] = static_cast<int>(fused.size());
    fused.push_back(n);
  }
  return fused;
}

// octet's reference graphs hold quantized weights, PyTorch's quantize them at each run. Written octet's way.
void quantize_constants(std::vector<FlatNode>& nodes) {
  for (FlatNode& n : nodes) {
    if (n.kind != "call" || n.target != "quantize") continue;
    const FlatNode& x = nodes[static_cast<size_t>(n.inputs[0].first)];
    if (x.kind == "constant") n = {.kind = "constant", .target = x.target, .dtype = n.dtype};
  }
}

std::string text_of(const json& nodes, const std::string& stage) {
  std::vector<FlatNode> flat;
  for (const json& node : nodes) flat.push_back(flat_of(node));
  if (stage == "traced") return text_of(flat);
  if (stage.starts_with("reference")) quantize_constants(flat);
  return text_of(with_activations(flat));
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

std::optional<quant::QConfig> qconfig_of(const std::string& name, bool qat) {
  if (name == "none") return std::nullopt;
  if (name == "dynamic") return quant::default_dynamic_qconfig();
  if (name == "float_qparams") return quant::float_qparams_weight_only_qconfig();
  if (name == "per_channel") return quant::get_default_qconfig("fbgemm");
  return qat ? quant::get_default_qat_qconfig("qnnpack") : quant::get_default_qconfig("qnnpack");
}

// mapping() of the oracle.
quant::QConfigMapping mapping_of(const json& config) {
  const bool qat = config.value("qat", false);
  quant::QConfigMapping m = qat ? quant::get_default_qat_qconfig_mapping("qnnpack") : quant::get_default_qconfig_mapping("qnnpack");
  for (const auto& [key, value] : config.items()) {
    if (key == "global") m = quant::QConfigMapping().set_global(qconfig_of(value, qat));
    if (key == "object_type")
      for (const auto& [type, q] : value.items()) m.set_object_type(quant::ObjectType(type), qconfig_of(q, qat));
    if (key == "module_name_regex")
      for (const auto& [pattern, q] : value.items()) m.set_module_name_regex(pattern, qconfig_of(q, qat));
    if (key == "module_name")
      for (const auto& [path, q] : value.items()) m.set_module_name(path, qconfig_of(q, qat));
    if (key == "module_name_object_type_order")
      for (const json& e : value)
        m.set_module_name_object_type_order(e[0], quant::ObjectType(e[1].get<std::string>()), e[2], qconfig_of(e[3], qat));
  }
  return m;
}

// prepare_custom() of the oracle.
quant::PrepareCustomConfig custom_of(const json& config) {
  quant::PrepareCustomConfig c;
  for (const auto& [key, value] : config.items()) {
    if (key == "input_quantized_idxs") c.set_input_quantized_indexes(value);
    if (key == "output_quantized_idxs") c.set_output_quantized_indexes(value);
    if (key == "preserved_attributes") c.set_preserved_attributes(value);
    if (key == "non_traceable_module_name") c.set_non_traceable_module_names(value);
    if (key == "non_traceable_module_class") c.set_non_traceable_module_classes<fx_models::DependsOnData>();
    if (key == "custom") c.set_float_to_observed_mapping<fx_models::CustomModule, fx_models::ObservedCustomModule>();
    if (key == "standalone_module_name")
      for (const auto& [path, inner] : value.items())
        c.set_standalone_module_name(path, {.prepare_custom_config = std::make_shared<quant::PrepareCustomConfig>(custom_of(inner))});
  }
  return c;
}

quant::ConvertCustomConfig convert_custom_of(const json& config) {
  quant::ConvertCustomConfig c;
  if (config.contains("custom")) c.set_observed_to_quantized_mapping<fx_models::ObservedCustomModule, fx_models::StaticQuantCustomModule>();
  return c;
}

std::shared_ptr<quant::ObservedGraphModule> prepared_of(const Maker& maker) {
  const json& c = golden(maker.name);
  auto prepare = [&](auto function) {
    return function(model_of(maker), mapping_of(c["config"]), inputs_of(c), custom_of(c["config"]), quant::get_native_backend_config());
  };
  using Function = std::shared_ptr<quant::ObservedGraphModule> (*)(const nn::ModulePtr&, const quant::QConfigMapping&, const std::vector<Tensor>&,
                                                                   const quant::PrepareCustomConfig&, const quant::BackendConfig&);
  return prepare(c["config"].value("qat", false) ? Function(quant::prepare_qat_fx) : Function(quant::prepare_fx));
}

std::shared_ptr<quant::ObservedGraphModule> calibrated(const Maker& maker) {
  auto prepared = prepared_of(maker);
  (*prepared)(inputs_of(golden(maker.name)));
  prepared->eval();
  return prepared;
}

// -- what differs on purpose -----------------------------------------------------------------------------------

// octet: the whole graph as text, "; " between the nodes. A reason that begins with "bug:" says that the difference is not wanted;
// such a row may go as soon as the graph is PyTorch's.
struct Difference {
  const char *model, *stage, *reason, *octet;
};

const std::vector<Difference> kDifferences = {
#include "tests/quant/fx_differences.inc"
};

// The graph is PyTorch's, or what the table says (stage: "lowered", or "lowered PATH" of one inside); a row of the table that
// has become unnecessary is a failure too.
void expect_graph(const std::string& model, const std::string& stage, const std::string& expected, const std::string& actual) {
  for (const Difference& d : kDifferences) {
    if (model != d.model || stage != d.stage) continue;
    const bool bug = std::string_view(d.reason).starts_with("bug:");
    if (bug && actual == expected) return;
    std::string line = actual.substr(0, actual.size() - 1);
    for (size_t at; (at = line.find('\n')) != std::string::npos;) line.replace(at, 1, "; ");
    EXPECT_EQ(line, d.octet) << "differs from PyTorch: " << d.reason;
    EXPECT_NE(actual, expected) << "is PyTorch's after all: the difference need not be listed";
    return;
  }
  EXPECT_EQ(actual, expected) << "octet's graph of " << stage << " against PyTorch's";
}

// -- the tests -------------------------------------------------------------------------------------------------

class GoldenFxGraphs : public ::testing::TestWithParam<Maker> {};

INSTANTIATE_TEST_SUITE_P(, GoldenFxGraphs, ::testing::ValuesIn(fx_models::makers()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(GoldenFxGraphsTable, BothSidesHaveTheSameModels) {
  ASSERT_EQ(cases().size(), fx_models::makers().size());
  for (size_t i = 0; i < cases().size(); ++i) EXPECT_EQ(cases()[i]["name"], fx_models::makers()[i].name);
}

// The graph that `make` gives, and those of the modules inside that have one; or its error.
void expect_graphs(const std::string& model, const std::string& stage, const std::function<std::shared_ptr<graph::GraphModule>()>& make) {
  const std::string expected = text_of(golden(model)[stage], stage);
  std::shared_ptr<graph::GraphModule> made;
  try {
    made = make();
  } catch (const Error& e) {
    expect_graph(model, stage, expected, std::string("Error: ") + e.what() + "\n");
    return;
  }
  graph::GraphModule& actual = *made;
  expect_graph(model, stage, expected, text_of(flat_of(actual.graph(), actual)));
  const json inside = golden(model).value("inside", json::object()).value(stage, json::object());
  for (const auto& [path, nodes] : inside.items()) {
    auto& inner = actual.submodule(path)->as<graph::GraphModule>();
    expect_graph(model, stage + " " + path, text_of(nodes, stage), text_of(flat_of(inner.graph(), inner)));
  }
}

TEST_P(GoldenFxGraphs, Traced) {
  const json& c = golden(GetParam().name);
  nn::ModulePtr model = model_of(GetParam());
  const quant::PrepareCustomConfig custom = custom_of(c["config"]);
  graph::TraceOptions options{.leaf_modules = custom.non_traceable_names, .leaf_classes = custom.non_traceable_classes};
  for (const auto& [path, inner] : custom.standalone_names) options.leaf_modules.push_back(path);
  if (c["config"].contains("custom")) options.leaf_classes.insert(typeid(fx_models::CustomModule));
  expect_graphs(GetParam().name, "traced", [&] { return graph::trace(*model, inputs_of(c), options); });
}

TEST_P(GoldenFxGraphs, Fused) {
  const json& c = golden(GetParam().name);
  expect_graphs(GetParam().name, "fused", [&] {
    return quant::fuse_fx(model_of(GetParam()), inputs_of(c), quant::get_native_backend_config(), custom_of(c["config"]));
  });
}

TEST_P(GoldenFxGraphs, Prepared) {
  expect_graphs(GetParam().name, "prepared", [&] { return prepared_of(GetParam()); });
}

TEST_P(GoldenFxGraphs, Reference) {
  auto custom = convert_custom_of(golden(GetParam().name)["config"]);
  expect_graphs(GetParam().name, "reference", [&] { return quant::convert_to_reference_fx(calibrated(GetParam()), custom); });
}

TEST_P(GoldenFxGraphs, Lowered) {
  auto custom = convert_custom_of(golden(GetParam().name)["config"]);
  expect_graphs(GetParam().name, "lowered", [&] { return quant::convert_fx(calibrated(GetParam()), custom); });
}

}  // namespace
}  // namespace octet::testing
