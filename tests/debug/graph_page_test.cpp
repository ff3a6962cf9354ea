// The page of a graph: what it holds, whether it is valid HTML, and what a browser makes of it.
#include "octet/debug/graph_page.h"

#include <gtest/gtest.h>

#include "tests/debug/compare_networks.h"
#include "tests/debug/page_test_util.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;

// A residual network in 8 bits of which one layer stays float.
Graph mostly_quantized() {
  const FaultNet net = make_fault_net("residual");
  return quantize_fault_net(net, fault_samples(net), "MinMaxObserver", {net.victim}).after;
}

// A chain of so many additions with branches.
Graph long_graph(int n) {
  Graph g;
  g.name = "long";
  ValueId before = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(8)})), x = before;
  for (int i = 0; i < n; ++i) {
    const std::string name = "block" + std::to_string(i / 4) + ".op" + std::to_string(i % 4);
    const ValueId y =
        i % 4 == 3 ? g.add_call(name, "add", {x, before}) : g.add_call(name, "relu", {x});
    if (i % 4 == 3) before = y;
    x = y;
  }
  g.set_outputs({x});
  return g;
}

const Json* item_of(const Json& data, const std::string& name) {
  for (const Json& item : data["items"])
    if (item["name"] == name) return &item;
  return nullptr;
}

TEST(GraphPage, EveryNodeHasItsTypesAndWhatItComputesOn) {
  const Graph g = mostly_quantized();
  const Json data = data_of(debug::html_graph(g, "net.octet"));
  EXPECT_EQ(data["file"], "net.octet");
  size_t shown = g.inputs().size() + g.outputs().size();
  for (const graph::Node& node : g.nodes()) {
    if (node.kind != graph::NodeKind::call) continue;
    ++shown;
    const Json* item =
        item_of(data, node.scope.empty() ? g.value(node.outputs[0]).name : node.scope);
    ASSERT_TRUE(item) << graph::describe(g, node);
    if (node.op == "quantize" || node.op == "dequantize") continue;
    EXPECT_EQ((*item)["op"], node.op);
    EXPECT_EQ((*item)["makes"][0]["dtype"], to_string(g.type(node.outputs[0]).dtype));
    EXPECT_EQ((*item)["reads"].size(), node.inputs.size());
  }
  EXPECT_EQ(data["items"].size(), shown);
  const Json& victim = *item_of(data, "victim");
  EXPECT_EQ(victim["state"], "float");
  EXPECT_NE(victim["note"].get<std::string>().find("skipped"), std::string::npos) << victim;
  const Json& stem = *item_of(data, "stem");
  EXPECT_EQ(stem["state"], "codes");
  EXPECT_EQ(stem["makes"][0]["dtype"], "quint8");
  EXPECT_NE(stem["makes"][0]["qparams"].get<std::string>().find("scale="), std::string::npos);
  EXPECT_EQ(stem["attrs"]["activation"], "\"relu\"");
  EXPECT_EQ(stem["bytes"], 8 * 3 * 3 * 3 + 4 * 8) << "weight codes and a bias of 32 bits";
}

TEST(GraphPage, OperandsAreTheNodesThatMakeThem) {
  const Json data = data_of(debug::html_graph(long_graph(8), "long"));
  const Json& add = *item_of(data, "block1.op3");
  ASSERT_EQ(add["operands"].size(), 2u);
  EXPECT_EQ(data["items"][add["operands"][0].get<size_t>()]["name"], "block1.op2");
  EXPECT_EQ(data["items"][add["operands"][1].get<size_t>()]["name"], "block0.op3");
  const Json& output = data["items"].back();
  EXPECT_EQ(output["op"], "output");
  EXPECT_EQ(data["items"][output["operands"][0].get<size_t>()]["name"], "block1.op3");
}

TEST(GraphPage, WeightsThatSeveralReadAreCountedOnce) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(8)}));
  const ValueId w = g.add_constant("w", Tensor::ones({8, 8}));
  const ValueId a = g.add_call("a", "linear", {x, w}), b = g.add_call("b", "linear", {a, w});
  g.set_outputs({b});
  EXPECT_EQ(data_of(debug::html_graph(g, "g"))["bytes"], 8 * 8 * 4);
}

TEST(GraphPage, NoNameEndsTheScript) {
  const std::string page =
      debug::html_graph(long_graph(1), "</script><script>alert(1)</script>@DATA@");
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_EQ(data_of(page)["file"], "</script><script>alert(1)</script>@DATA@");
}

TEST(GraphPage, NeedsNoNetwork) {
  const std::string page = debug::html_graph(mostly_quantized(), "net");
  for (const char* part : {"src=", "https://", "@import", "href=\"http"})
    EXPECT_EQ(page.find(part), std::string::npos) << part;
}

TEST(GraphPage, IsValidHtml) { expect_valid_html(debug::html_graph(mostly_quantized(), "net")); }

TEST(GraphPage, TextHasTheContrastOfWcagAa) {
  expect_contrast(debug::html_graph(mostly_quantized(), "net"), 3);
}

TEST(GraphPage, APageOfThousandsOfNodesStaysUnderFiveMegabytes) {
  EXPECT_LT(debug::html_graph(long_graph(5000), "long").size(), 5'000'000u);
}

TEST(BrowserGraphPage, OpensWithoutErrorsWithinTwoSeconds) {
  OCTET_NEED_BROWSER();
  for (int n : {1, 130, 5000}) expect_opens(debug::html_graph(long_graph(n), "long"));
}

TEST(BrowserGraphPage, ShowsOperatorsTypesAndReasons) {
  OCTET_NEED_BROWSER();
  const std::string dom = dom_of(TempDir(), debug::html_graph(mostly_quantized(), "net.octet"));
  for (const char* part : {"net.octet: ", "operators in 8 bits", "Node victim", "conv2d, in float",
                           "Note: skipped by", "Results", "Operands", "Attributes", "Read by",
                           "quint8 (N, 8, 12, 12)", "scale=", "aria-sort=\"ascending\""})
    EXPECT_NE(dom.find(part), std::string::npos) << part;
  EXPECT_EQ(said(dom, "error"), "");
}

TEST(BrowserGraphPage, WhatTheScriptMakesIsValidHtmlToo) {
  OCTET_NEED_BROWSER();
  expect_valid_html(dom_of(TempDir(), debug::html_graph(mostly_quantized(), "net")));
}

TEST(BrowserGraphPage, ThousandsOfNodesMoveFluidly) {
  OCTET_NEED_BROWSER();
  EXPECT_EQ(move_around(debug::html_graph(long_graph(5000), "long")), "Node block2.op1")
      << "ten nodes behind the input";
}

TEST(BrowserGraphPage, LightAndDarkAreDrawn) {
  OCTET_NEED_BROWSER();
  expect_light_and_dark(debug::html_graph(mostly_quantized(), "net"));
}

TEST(BrowserGraphPage, AxeFindsAFieldWithoutALabel) {
  OCTET_NEED_AXE();
  std::string page = debug::html_graph(long_graph(4), "long");
  page.replace(page.find("for=\"filter\""), 12, "");
  EXPECT_EQ(broken_rules(page), "label (#filter)");
}

TEST(BrowserGraphPage, AxeFindsNothing) {
  OCTET_NEED_AXE();
  expect_accessible(debug::html_graph(mostly_quantized(), "net"));
}

}  // namespace
}  // namespace octet::testing
