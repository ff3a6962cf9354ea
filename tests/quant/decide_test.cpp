#include "octet/quant/decide/decide.h"
#include "tests/graph_text.h"

#include <gtest/gtest.h>

#include <set>

#include "octet/graph/graph.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::ValueId;
using testing::expect_error;
using testing::image;
using testing::kConvBody;
using testing::parse_body;

// With a MinMax observer for activations.
struct Decided {
  Graph g;
  std::vector<NodeDecision> d;
  explicit Decided(const std::string& body, const std::vector<std::string>& skip = {})
      : g(parse_body(body)),
        d(decide(g, QConfig{default_observer(), default_weight_observer()},
                 get_native_backend_config(), {.skip = skip})) {}
  ValueId id(const std::string& name) const { return *g.find(name); }
  const NodeDecision& node(const std::string& name) const { return d[g.value(id(name)).producer]; }
  bool quantized(const std::string& name) const { return node(name).mode.has_value(); }
  std::string reason(const std::string& name) const { return node(name).reason; }
};

using Names = std::set<std::string>;

}  // namespace

// Codes are multiplied by floats, channel by channel; the larger of two is one of codes.
TEST(Decide, AConstantStaysFloatWhereTheOperatorTakesItSo) {
  const Graph g = parse_body(
      "%x: Float(4, 4) = input\n%c: Float(4) = constant [1, 2, 3, 4]\n"
      "%m: Float(4, 4) = constant\n"
      "%a: Float(4, 4) = mul(%x, %c)\n%b: Float(4, 4) = maximum(%x, %m)\nreturn (%a, %b)");
  const BackendConfig backend = get_native_backend_config();
  const auto role = [&](const char* value) {
    const graph::Node& node = g.producer(*g.find(value));
    return operand_role(g, node, 1, backend.find_op(node.op));
  };
  EXPECT_EQ(role("a"), OperandRole::parameter);
  EXPECT_EQ(role("b"), OperandRole::activation);
}

TEST(Decide, WhatStaysFloatHasAReason) {
  const struct {
    std::string body;
    const char* node;
    std::vector<std::string> parts;
  } cases[] = {
      {kConvBody + image("z", "exp(%y)") + "return (%z)",
       "z",
       {"exp could run on codes", "range too widely"}},
      {kConvBody +
           "%n: Float(2) = constant [1, 2]\n%z: Float(1, 2, 4, 4), %m: Float(2), %v: Float(2) "
           "= batch_norm_training(%y, %n, %n)\n"
           "return (%z)",
       "z",
       {"batch_norm_training has no quantized form in the backend 'native'"}},
      {kConvBody + image("a", "exp(%y)") + image("z", "relu(%a)") + "return (%z)",
       "z",
       {"no quantized layer gives it codes or takes them"}},
      {kConvBody + image("a", "exp(%y)") + image("z", "add(%a, %a)") + "return (%z)",
       "z",
       {"no quantized layer gives it codes or takes them"}},
      {kConvBody + image("a", "exp(%y)") + image("z", "sigmoid(%a)") + "return (%z)",
       "z",
       {"no quantized layer gives it codes or takes them"}},
      {kConvBody + "%z: Float(1, 2, 4, 1), %i: Long(1, 2, 4, 1) = topk(%y, k=1)\nreturn (%z)",
       "z",
       {"topk has no quantized form in the backend"}},
      {kConvBody + "%z: Long(1, 1, 4, 4) = argmax(%y, dim=1)\nreturn (%z)",
       "z",
       {"argmax has no quantized form"}},
      {kConvBody + "%v: Float(2, 2, 1, 1) = input\n" + image("z", "conv2d(%y, %v)") + "return (%z)",
       "z",
       {"weight", "parameter"}},
      {kConvBody + "%v: Float(2) = input\n" + image("z", "conv2d(%y, %w, %v)") + "return (%z)",
       "z",
       {"bias", "constant"}},
      {kConvBody + "%v: Float(2) = input\n" + image("z", "prelu(%y, %v)") + "return (%z)",
       "z",
       {"slope", "parameter"}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.body);
    Decided p(c.body);
    EXPECT_FALSE(p.quantized(c.node));
    for (const auto& part : c.parts)
      EXPECT_NE(p.reason(c.node).find(part), std::string::npos) << p.reason(c.node);
    EXPECT_TRUE(p.quantized("y"));
    EXPECT_EQ(p.reason("y"), "");
  }
}

TEST(Decide, FunctionsOfOneValueJoinIntoATable) {
  const std::string body =
      kConvBody + "%a: Float(1) = constant [0.5]\n%b: Float(1) = constant [3]\n" +
      image("m", "mul(%y, %a)") + image("p", "add(%m, %b)") + image("h", "hardswish(%p)") +
      image("z", "conv2d(%h, %w)") + "return (%z)";
  Decided d(body);
  for (const char* name : {"m", "p"}) {
    EXPECT_TRUE(d.node(name).joins_next) << name;
  }
  EXPECT_FALSE(d.node("h").joins_next);
  // Another reader of a value in between needs its codes.
  Decided two(kConvBody + "%a: Float(1) = constant [0.5]\n" + image("m", "mul(%y, %a)") +
              image("h", "hardswish(%m)") + image("z", "conv2d(%h, %w)") +
              image("u", "conv2d(%m, %w)") + "return (%z, %u)");
  EXPECT_FALSE(two.node("m").joins_next);
  // One factor per channel is no function of one code.
  Decided channels(kConvBody + "%a: Float(2, 1, 1) = constant [0.5, 2]\n" +
                   image("m", "mul(%y, %a)") + image("h", "hardswish(%m)") +
                   image("z", "conv2d(%h, %w)") + "return (%z)");
  EXPECT_FALSE(channels.node("m").joins_next);
}

TEST(Decide, RowsOfAConstantTableStayFloat) {
  Decided p(kConvBody +
            "%t: Float(10, 4) = constant\n%i: Long(2) = input\n%e: Float(2, 4) = index_select(%t, "
            "%i, dim=0)\nreturn (%y, %e)");
  EXPECT_EQ(p.reason("e"), "its operand is a constant");
}

TEST(Decide, IslandsAreQuantizedIfTheyAreAskedFor) {
  const std::string body = kConvBody + image("a", "exp(%y)") + image("s", "sigmoid(%a)") +
                           image("z", "mul(%s, %a)") + "return (%z)";
  Decided p(body);
  EXPECT_FALSE(p.quantized("z"));
  Graph g = parse_body(body);
  const std::vector<NodeDecision> all =
      decide(g, get_default_qconfig(), get_native_backend_config(), {.leave_islands_float = false});
  EXPECT_TRUE(all[g.value(*g.find("z")).producer].mode);
}

TEST(Decide, AMappingIsAskedByNameOperatorAndNumber) {
  Graph g = parse_body(kConvBody + "%z: Float(1, 2, 4, 4) = conv2d(%y, %w)  @ net.head\n" +
                       image("s", "sigmoid(%z)") + "return (%s)");
  const auto quantized = [&](const QConfigMapping& mapping) {
    const std::vector<NodeDecision> d = decide(g, mapping, get_native_backend_config());
    Names names;
    for (size_t n = 0; n < g.nodes().size(); ++n)
      if (d[n].mode) names.insert(g.value(g.nodes()[n].outputs[0]).name);
    return names;
  };
  const QConfigMapping all = get_default_qconfig();
  EXPECT_EQ(quantized(all), (Names{"s", "y", "z"}));
  EXPECT_EQ(quantized(QConfigMapping(all).set_module_name("net.head", std::nullopt)), (Names{"y"}));
  EXPECT_EQ(quantized(QConfigMapping(all).set_object_type("sigmoid", std::nullopt)),
            (Names{"y", "z"}));
  expect_error(ErrorCode::not_found, {"net.heda", "net.head"},
               [&] { quantized(QConfigMapping(all).set_module_name("net.heda", std::nullopt)); });
}

TEST(Decide, PreluRunsOnCodesOnlyWhereSomebodyTakesThem) {
  const std::string prelu =
      kConvBody + "%s: Float(1, 2, 1, 1) = constant [9, 0.1]\n" + image("p", "prelu(%y, %s)");
  Decided alone(prelu + image("z", "exp(%p)") + "return (%z)");
  EXPECT_FALSE(alone.quantized("p"));
  EXPECT_NE(alone.reason("p").find("nothing that reads its result takes codes"), std::string::npos);
  EXPECT_TRUE(Decided(prelu + image("z", "conv2d(%p, %w)") + "return (%z)").quantized("p"));
  EXPECT_FALSE(Decided(prelu + "return (%p)").quantized("p"));
}

TEST(Decide, SkipsByNameGlobAndExpression) {
  std::string body =
      kConvBody + "%z: Float(1, 2, 4, 4) = conv2d(%y, %w)  @ net.head.conv\nreturn (%z)";
  const struct {
    const char* pattern;
    bool y, z;
  } cases[] = {{"net.conv", false, true}, {"net.head.*", true, false},
               {"*conv", false, false},   {"re:^net\\.conv$", false, true},
               {"re:head", true, false},  {"z", true, false}};
  for (const auto& c : cases) {
    Decided p(body, {c.pattern});
    EXPECT_EQ(p.quantized("y"), c.y) << c.pattern;
    EXPECT_EQ(p.quantized("z"), c.z) << c.pattern;
    for (const char* name : {"y", "z"})
      if (!p.quantized(name)) {
        EXPECT_EQ(p.reason(name), std::string("skipped by '") + c.pattern + "'");
      }
  }
  expect_error(ErrorCode::not_found, {"'net.covn'", "did you mean 'net.conv'"}, [&] {
    Decided p(body, {"net.conv", "net.covn"});
  });
  expect_error(ErrorCode::not_found, {"'re:nothing'"}, [&] { Decided p(body, {"re:nothing"}); });
  expect_error(ErrorCode::invalid_argument, {"'re:('"}, [&] { Decided p(body, {"re:("}); });
}

}  // namespace octet::quant
