#include "octet/graph/graph.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace octet::graph {
namespace {

using testing::expect_error;

const TensorType kFloat23(DType::float32, Shape{2, 3});

// x -> relu -> linear(weight) -> y
struct Small {
  Graph g;
  ValueId x, w, r, y;
  Small() {
    x = g.add_input("x", kFloat23);
    w = g.add_constant("w", Tensor::ones({4, 3}));
    r = g.add_call("r", "relu", {x}, {}, std::nullopt, "act");
    y = g.add_call("y", "linear", {r, w}, {}, std::nullopt, "fc");
    g.set_outputs({y});
  }
  Node& node(ValueId v) { return g.node(g.value(v).producer); }
};

}  // namespace

TEST(Graph, BuildsNodesWithInferredTypes) {
  Small s;
  EXPECT_EQ(s.g.nodes().size(), 4u);
  EXPECT_EQ(s.g.inputs(), std::vector<ValueId>{s.x});
  EXPECT_EQ(to_string(s.g.type(s.y)), "Float(2, 4)");
  EXPECT_EQ(s.node(s.y).scope, "fc");
  EXPECT_TRUE(s.node(s.y).attrs.has("activation")) << "defaults are filled in";
  EXPECT_TRUE(s.g.is_constant(s.w));
  EXPECT_FALSE(s.g.is_constant(s.r));
  EXPECT_EQ(s.g.find("y"), s.y);
  EXPECT_EQ(s.g.find("z"), std::nullopt);
  expect_error(ErrorCode::invalid_argument, {"%x"}, [&] { s.g.constant(s.x); });
  expect_error(ErrorCode::invalid_argument, {"none"}, [&] { s.g.constant(kNone); });
  s.g.check();
}

TEST(Graph, NamesAreMadeUniqueAndPrintable) {
  Graph g;
  const struct {
    const char *wanted, *got;
  } cases[] = {{"a", "a"},
               {"a", "a_1"},
               {"a", "a_2"},
               {"a_1", "a_1_1"},
               {"", "v"},
               {"x y%(,)", "x_y____"},
               {"m/n.o:p-q_r", "m/n.o:p-q_r"},
               {"\xc3\xa4", "__"}};
  for (const auto& c : cases)
    EXPECT_EQ(g.value(g.add_input(c.wanted, kFloat23)).name, c.got) << c.wanted;
  auto parts =
      g.add_calls("p", "split", {0}, {{"sizes", std::vector<int64_t>{1, 2}}, {"dim", int64_t{1}}});
  EXPECT_EQ(g.value(parts[0]).name, "p");
  EXPECT_EQ(g.value(parts[1]).name, "p_1");
}

TEST(Graph, NamesOfSizesAreMadePrintable) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("batch size"), Dim("a,b)"), Dim("7"),
                                                           Dim(""), Dim("[N+1]*2")}));
  EXPECT_EQ(to_string(g.type(x)), "Float(batch_size, a_b_, size7, size, [N+1]*2)");
}

TEST(Graph, RenameWantsAFreePrintableName) {
  Small s;
  s.g.rename(s.r, "act");
  EXPECT_EQ(s.g.find("act"), s.r);
  EXPECT_EQ(s.g.find("r"), std::nullopt);
  s.g.rename(s.r, "act");
  expect_error(ErrorCode::invalid_argument, {"%y"}, [&] { s.g.rename(s.r, "y"); });
  for (const char* bad : {"", "a b", "%"}) EXPECT_THROW(s.g.rename(s.r, bad), Error) << bad;
}

TEST(Graph, ErrorsOfAddCallNameTheNode) {
  Small s;
  expect_error(ErrorCode::invalid_argument, {"layer1.fc", "linear", "3 features", "5"}, [&] {
    s.g.add_call("z", "linear", {s.r, s.g.add_constant("v", Tensor::ones({4, 5}))}, {},
                 std::nullopt, "layer1.fc");
  });
  expect_error(ErrorCode::invalid_argument, {"bad", "relu"},
               [&] { s.g.add_call("bad", "relu", {}); });
  expect_error(ErrorCode::invalid_argument, {"bad", "99"},
               [&] { s.g.add_call("bad", "relu", {99}); });
  expect_error(ErrorCode::invalid_argument, {"bad", "-2"},
               [&] { s.g.add_call("bad", "relu", {-2}); });
  expect_error(ErrorCode::unsupported, {"'relo'", "did you mean 'relu'"},
               [&] { s.g.add_call("bad", "relo", {s.x}); });
  expect_error(ErrorCode::invalid_argument, {"'slope'"}, [&] {
    s.g.add_call("bad", "relu", {s.x}, {{"slope", 1.0}});
  });
  expect_error(ErrorCode::invalid_argument, {"bad", "split", "2 results"}, [&] {
    Small t;
    t.g.add_call("bad", "split", {t.x}, {{"sizes", std::vector<int64_t>{1, 1}}});
  });
}

TEST(Graph, OmittedOperandsAtTheEndAreDropped) {
  Small s;
  ValueId y = s.g.add_call("z", "linear", {s.r, s.w, kNone});
  EXPECT_EQ(s.node(y).inputs.size(), 2u);
}

TEST(Graph, CheckFindsEveryKindOfDamage) {
  const struct {
    const char* what;
    std::function<void(Small&)> damage;
    std::vector<std::string> parts;
  } cases[] = {
      {"an operand that comes later",
       [](Small& s) { s.node(s.r).inputs[0] = s.y; },
       {"%r = relu", "before its use"}},
      {"an operand that is the result",
       [](Small& s) { s.node(s.r).inputs[0] = s.r; },
       {"%r = relu", "before its use"}},
      {"an operand out of range", [](Small& s) { s.node(s.r).inputs[0] = 77; }, {"%r = relu"}},
      {"a negative operand", [](Small& s) { s.node(s.r).inputs[0] = -5; }, {"%r = relu"}},
      {"a missing operand", [](Small& s) { s.node(s.r).inputs.clear(); }, {"%r = relu", "missing"}},
      {"an unknown operator", [](Small& s) { s.node(s.r).op = "rule"; }, {"%r = rule", "'rule'"}},
      {"another operator", [](Small& s) { s.node(s.r).op = "argmax"; }, {"%r = argmax"}},
      {"an unknown attribute",
       [](Small& s) { s.node(s.r).attrs.set("k", int64_t{1}); },
       {"%r = relu", "'k'"}},
      {"a missing attribute",
       [](Small& s) { s.node(s.y).attrs.erase("activation"); },
       {"%y = linear", "incomplete"}},
      {"an attribute of another kind",
       [](Small& s) { s.node(s.y).attrs.set("activation", 1.0); },
       {"%y = linear", "activation"}},
      {"a constant of another shape",
       [](Small& s) {
         s.node(s.w).value = Tensor::ones({4, 4});
       },
       {"%w = constant", "Float(4, 4)", "Float(4, 3)"}},
      {"a constant of another dtype",
       [](Small& s) {
         s.node(s.w).value = Tensor::ones({4, 3}, DType::int64);
       },
       {"%w", "Long"}},
      {"a constant without data",
       [](Small& s) { s.node(s.w).value = Tensor(); },
       {"%w", "missing"}},
      {"a constant with operands", [](Small& s) { s.node(s.w).inputs = {s.x}; }, {"%w = constant"}},
      {"a result less", [](Small& s) { s.node(s.r).outputs.clear(); }, {"no results"}},
      {"a result of another node", [](Small& s) { s.node(s.y).outputs = {s.r}; }, {"result"}},
      {"a result too many", [](Small& s) { s.node(s.y).outputs.push_back(s.y); }, {"%y"}},
      {"a result out of range", [](Small& s) { s.node(s.y).outputs = {50}; }, {"50"}},
      {"a call that became an input", [](Small& s) { s.node(s.r).kind = NodeKind::input; }, {"%r"}},
      {"an input that became a constant",
       [](Small& s) { s.node(s.x).kind = NodeKind::constant; },
       {"%x"}},
      {"an output that is not there",
       [](Small& s) {
         s.g.set_outputs({s.y, 9});
       },
       {"output"}},
      {"an omitted output", [](Small& s) { s.g.set_outputs({kNone}); }, {"output"}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    Small s;
    c.damage(s);
    expect_error(ErrorCode::corrupt, c.parts, [&] { s.g.check(); });
  }
}

TEST(Graph, CheckComparesRecordedTypesWithInference) {
  auto graph_with = [](TensorType type) {
    Graph g;
    ValueId x = g.add_input("x", kFloat23);
    Node node;
    node.op = "relu";
    node.inputs = {x};
    g.add_raw(node, {{"y", type}});
    return g;
  };
  graph_with(kFloat23).check();
  expect_error(ErrorCode::corrupt, {"%y = relu", "Float(2, 4)", "Float(2, 3)"}, [&] {
    graph_with({DType::float32, Shape{2, 4}}).check();
  });
  expect_error(ErrorCode::corrupt, {"%y"}, [&] {
    graph_with({DType::float64, Shape{2, 3}}).check();
  });
  expect_error(ErrorCode::corrupt, {"%y", "without qparams"}, [&] {
    graph_with({DType::quint8, Shape{2, 3}}).check();
  });
  auto q = Quantizer::per_tensor(1, 0, DType::quint8);
  expect_error(ErrorCode::corrupt, {"%y", "with qparams"}, [&] {
    graph_with({DType::float32, Shape{2, 3}, q}).check();
  });
  Graph g;
  auto channels = Quantizer::per_channel({1, 1}, {0, 0}, 1, DType::qint8);
  g.add_input("x", TensorType(DType::qint8, Shape{2, 3}, channels));
  expect_error(ErrorCode::corrupt, {"%x", "2 channels"}, [&] { g.check(); });
}

TEST(Graph, AddRawRefusesTakenAndOddNames) {
  Small s;
  Node node;
  node.kind = NodeKind::input;
  for (const char* name : {"x", "", "a b", "a\n"})
    EXPECT_THROW(s.g.add_raw(node, {{name, kFloat23}}), Error) << name;
}

TEST(Graph, CountsUsesAndFindsUsers) {
  Small s;
  ValueId z = s.g.add_call("z", "add", {s.r, s.r});
  s.g.set_outputs({s.y, s.r, s.y});
  auto uses = s.g.use_counts();
  EXPECT_EQ(uses[s.x], 1);
  EXPECT_EQ(uses[s.r], 4);  // linear, twice add, an output
  EXPECT_EQ(uses[s.y], 2);
  EXPECT_EQ(uses[z], 0);
  EXPECT_EQ(s.g.users(s.r), (std::vector<NodeId>{s.g.value(s.y).producer, s.g.value(z).producer}));
  EXPECT_TRUE(s.g.users(z).empty());
}

TEST(Rewriter, CopiesEverything) {
  Small s;
  s.g.name = "small";
  s.g.metadata["k"] = "v";
  s.node(s.x).note = "an input's note";
  s.node(s.w).note = "a note";
  s.node(s.y).note = "another";
  Graph copy = Rewriter(s.g).run([](Rewriter&, const Node&) { return false; });
  EXPECT_EQ(print(copy, {.full = true}), print(s.g, {.full = true}));
  EXPECT_EQ(copy.metadata, s.g.metadata);
  EXPECT_EQ(copy.constant(*copy.find("w")).raw_data(), s.g.constant(s.w).raw_data())
      << "constants are shared";
  copy.check();
}

TEST(Rewriter, ReplacesAndLeavesOut) {
  Small s;
  Graph out = Rewriter(s.g).run([&](Rewriter& r, const Node& node) {
    if (node.op != "relu") return false;
    r.map(node.outputs[0], r(node.inputs[0]));
    return true;
  });
  EXPECT_EQ(out.nodes().size(), 3u);
  EXPECT_EQ(out.producer(*out.find("y")).inputs[0], *out.find("x"));
  expect_error(ErrorCode::internal, {"%r", "dropped"}, [&] {
    Rewriter(s.g).run([](Rewriter&, const Node& node) { return node.op == "relu"; });
  });
}

TEST(Rewriter, KeepsTheNamesOfSeveralResults) {
  Graph g;
  ValueId x = g.add_input("x", kFloat23);
  auto ids = g.add_calls("top", "topk", {x}, {{"k", int64_t{2}}});
  g.rename(ids[1], "where");
  g.set_outputs({ids[1]});
  Graph copy = Rewriter(g).run([](Rewriter&, const Node&) { return false; });
  EXPECT_EQ(print(copy), print(g));
}

}  // namespace octet::graph
