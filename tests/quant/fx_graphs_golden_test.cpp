// The graphs that graph mode makes of small models (fx_models.h), node for node against PyTorch's
// (scripts/oracle/fx_graphs.py).
#include <gtest/gtest.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "octet/graph/trace.h"
#include "tests/quant/fx_golden.h"

namespace octet::testing {
namespace {

// -- graphs as text, from both sides --------------------------------------------------------------

// One line per node, in an order that depends on nothing but who uses what: the inputs, then what
// the results need, operands first, then what is computed for nothing. Observers are numbered in
// this order.
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
      inputs.push_back(std::to_string(place[static_cast<size_t>(from)]) +
                       (result < 0 ? "" : "." + std::to_string(result)));
    std::string what = n.target;
    if (what.starts_with("observer"))
      what = fmt::format("observer {}", observers.emplace(what, observers.size()).first->second);
    if (n.kind == "input" || n.kind == "constant") what = n.kind + " " + what;
    if (n.kind == "output") what = "output";
    if (n.kind == "module") what = n.class_name + " " + what;
    text += fmt::format("{}: {}", place[static_cast<size_t>(i)], what);
    if (n.kind != "input" && n.kind != "constant")
      text += fmt::format("({})", fmt::join(inputs, ", "));
    text += (n.activation.empty() ? "" : " +" + n.activation) +
            (n.dtype.empty() ? "" : " " + n.dtype) + "\n";
  }
  return text;
}

// PyTorch keeps operator and relu apart until it lowers them; octet's graphs have one operator with
// an activation from fuse_fx on. Written octet's way: a relu (call or module) that alone uses the
// operator becomes its activation.
std::vector<FlatNode> with_activations(const std::vector<FlatNode>& nodes) {
  static const std::set<std::string> kOps = {"add",    "add_scalar", "mul",    "mul_scalar",
                                             "linear", "conv1d",     "conv2d", "conv3d"};
  std::vector<int> uses(nodes.size(), 0), place(nodes.size());
  for (const FlatNode& n : nodes)
    for (auto [from, result] : n.inputs) ++uses[static_cast<size_t>(from)];
  std::vector<FlatNode> fused;
  for (size_t i = 0; i < nodes.size(); ++i) {
    FlatNode n = nodes[i];
    for (auto& [from, result] : n.inputs) from = place[static_cast<size_t>(from)];
    const bool relu =
        (n.kind == "call" && n.target == "relu") || (n.kind == "module" && n.class_name == "ReLU");
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

// octet's reference graphs hold quantized weights, PyTorch's quantize them at each run. Written
// octet's way.
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

std::shared_ptr<quant::ObservedGraphModule> calibrated(const Maker& maker) {
  auto prepared = prepared_of(maker, model_of(maker));
  (*prepared)(inputs_of(golden(maker.name)));
  prepared->eval();
  return prepared;
}

// -- what differs on purpose ----------------------------------------------------------------------

// octet: the whole graph as text, "; " between the nodes. A reason that begins with "bug:" says
// that the difference is not wanted; such a row may go as soon as the graph is PyTorch's.
struct GraphDifference {
  const char *model, *stage, *reason, *octet;
};

const std::vector<GraphDifference> kGraphDifferences = {
#include "tests/quant/fx_differences.inc"
};

// The graph is PyTorch's, or what the table says (stage: "lowered", or "lowered PATH" of one
// inside); a row of the table that has become unnecessary is a failure too.
void expect_graph(const std::string& model, const std::string& stage, const std::string& expected,
                  const std::string& actual) {
  for (const GraphDifference& d : kGraphDifferences) {
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

// -- the tests ------------------------------------------------------------------------------------

class GoldenFxGraphs : public ::testing::TestWithParam<Maker> {};

INSTANTIATE_TEST_SUITE_P(, GoldenFxGraphs, ::testing::ValuesIn(fx_models::makers()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(GoldenFxGraphsTable, BothSidesHaveTheSameModels) {
  ASSERT_EQ(cases().size(), fx_models::makers().size());
  for (size_t i = 0; i < cases().size(); ++i)
    EXPECT_EQ(cases()[i]["name"], fx_models::makers()[i].name);
}

// The graph that `make` gives, and those of the modules inside that have one; or its error.
void expect_graphs(const std::string& model, const std::string& stage,
                   const std::function<std::shared_ptr<graph::GraphModule>()>& make) {
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
    expect_graph(model, stage + " " + path, text_of(nodes, stage),
                 text_of(flat_of(inner.graph(), inner)));
  }
}

TEST_P(GoldenFxGraphs, Traced) {
  const json& c = golden(GetParam().name);
  nn::ModulePtr model = model_of(GetParam());
  const quant::PrepareCustomConfig custom = custom_of(c["config"]);
  graph::TraceOptions options{.leaf_modules = custom.non_traceable_names,
                              .leaf_classes = custom.non_traceable_classes};
  for (const auto& [path, inner] : custom.standalone_names) options.leaf_modules.push_back(path);
  if (c["config"].contains("custom")) options.leaf_classes.insert(typeid(fx_models::CustomModule));
  expect_graphs(GetParam().name, "traced",
                [&] { return graph::trace(*model, inputs_of(c), options); });
}

TEST_P(GoldenFxGraphs, Fused) {
  const json& c = golden(GetParam().name);
  expect_graphs(GetParam().name, "fused", [&] {
    return quant::fuse_fx(model_of(GetParam()), inputs_of(c), quant::get_native_backend_config(),
                          custom_of(c["config"]));
  });
}

TEST_P(GoldenFxGraphs, Prepared) {
  expect_graphs(GetParam().name, "prepared",
                [&] { return prepared_of(GetParam(), model_of(GetParam())); });
}

TEST_P(GoldenFxGraphs, Reference) {
  auto custom = convert_custom_of(golden(GetParam().name)["config"]);
  expect_graphs(GetParam().name, "reference",
                [&] { return quant::convert_to_reference_fx(calibrated(GetParam()), custom); });
}

TEST_P(GoldenFxGraphs, Lowered) {
  auto custom = convert_custom_of(golden(GetParam().name)["config"]);
  expect_graphs(GetParam().name, "lowered",
                [&] { return quant::convert_fx(calibrated(GetParam()), custom); });
}

}  // namespace
}  // namespace octet::testing
