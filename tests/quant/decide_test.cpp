#include "octet/quant/decide/decide.h"

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

Graph parse(const std::string& body) { return graph::parse("graph g {\n" + body + "\n}\n"); }

const std::string kConv =
    "%x: Float(1, 2, 4, 4) = input\n%w: Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n"
    "%y: Float(1, 2, 4, 4) = conv2d(%x, %w)  @ net.conv\n";
std::string image(const std::string& name, const std::string& call) {
  return "%" + name + ": Float(1, 2, 4, 4) = " + call + "\n";
}

// With a MinMax observer for activations of this dtype.
struct Decided {
  Graph g;
  GraphDecisions d;
  explicit Decided(const std::string& body, const std::vector<std::string>& skip = {},
                   DType dtype = DType::quint8)
      : g(parse(body)),
        d(decide(g, QConfig{default_observer().with_dtype(dtype), default_weight_observer()},
                 get_native_backend_config(), {skip})) {}
  ValueId id(const std::string& name) const { return *g.find(name); }
  const NodeDecision& node(const std::string& name) const {
    return d.nodes[g.value(id(name)).producer];
  }
  bool quantized(const std::string& name) const { return node(name).mode.has_value(); }
  std::string reason(const std::string& name) const { return node(name).reason; }
  int group(const std::string& name) const { return d.group[id(name)]; }
  std::set<std::string> watched(const std::string& name) const {
    std::set<std::string> names;
    for (ValueId v : d.groups[group(name)].watch) names.insert(g.value(v).name);
    return names;
  }
};

using Names = std::set<std::string>;

}  // namespace

TEST(Decide, OperatorsThatKeepQparamsShareAGroup) {
  Decided p(kConv + image("r", "relu(%y)") +
            image("m", "max_pool2d(%r, kernel=[3, 3], padding=[1, 1, 1, 1], stride=[1, 1])") +
            "%f: Float(1, 32) = reshape(%m, shape=[1, 32])\n%v: Float(3, 32) = constant\n%z: "
            "Float(1, 3) = linear(%f, "
            "%v)\nreturn (%z)");
  for (const char* name : {"r", "m", "f"}) EXPECT_EQ(p.group(name), p.group("y")) << name;
  EXPECT_NE(p.group("x"), p.group("y"));
  EXPECT_NE(p.group("z"), p.group("y"));
  EXPECT_EQ(p.watched("y"), Names{"r"})
      << "what a relu cuts off and what only rearranges are not watched";
  EXPECT_EQ(p.d.groups.size(), 3u);
}

TEST(Decide, CatSharesOneScaleWithItsOperands) {
  Decided p(kConv + image("z", "conv2d(%y, %w)") +
            "%c: Float(1, 4, 4, 4) = cat(%y, %z, dim=1)\nreturn (%c)");
  EXPECT_EQ(p.group("c"), p.group("y"));
  EXPECT_EQ(p.group("c"), p.group("z"));
  EXPECT_EQ(p.watched("c"), (Names{"y", "z"}));
}

TEST(Decide, ResultsThatLeaveTheOperandsRangeAreWatchedToo) {
  EXPECT_EQ(
      Decided(
          kConv +
          "%p: Float(1, 2, 6, 6) = pad(%y, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=9.)\nreturn (%p)")
          .watched("p"),
      (Names{"y", "p"}));
  EXPECT_EQ(
      Decided(kConv + "%p: Float(1, 2, 6, 6) = pad(%y, pads=[0, 0, 1, 1, 0, 0, 1, 1])\nreturn (%p)")
          .watched("p"),
      Names{"y"});
  for (const char* range : {"max=3., min=1.", "max=3., min=-1."})
    EXPECT_EQ(Decided(kConv + image("c", std::string("clamp(%y, ") + range + ")") + "return (%c)")
                  .watched("c"),
              Names{"c"})
        << "what the clamp cuts off needs no codes";
}

TEST(Decide, BoundedOperatorsHaveFixedQparams) {
  for (DType dtype : {DType::quint8, DType::qint8}) {
    Decided p(kConv + image("s", "sigmoid(%y)") + image("t", "tanh(%y)") + "return (%s, %t)", {},
              dtype);
    const auto qparams = [&](const char* name) {
      const GraphDecisions::Group& group = p.d.groups[p.group(name)];
      EXPECT_TRUE(group.is_fixed());
      return *group.observer.make(name)->calculate_qparams().quantizer;
    };
    EXPECT_EQ(qparams("s"),
              *Quantizer::per_tensor(1.0 / 256, dtype == DType::qint8 ? -128 : 0, dtype));
    EXPECT_EQ(qparams("t"),
              *Quantizer::per_tensor(1.0 / 128, dtype == DType::qint8 ? 0 : 128, dtype));
  }
  Decided mixed(kConv + image("s", "sigmoid(%y)") +
                "%c: Float(1, 4, 4, 4) = cat(%y, %s, dim=1)\nreturn (%c)");
  EXPECT_FALSE(mixed.d.groups[mixed.group("c")].is_fixed());
  EXPECT_EQ(mixed.watched("c"), (Names{"s", "y"}));
}

TEST(Decide, WhatStaysFloatHasAReason) {
  const struct {
    std::string body;
    const char* node;
    std::vector<std::string> parts;
  } cases[] = {
      {kConv + image("z", "exp(%y)") + "return (%z)",
       "z",
       {"exp could run on codes", "range too widely"}},
      {kConv + "%n: Float(2) = constant [1, 2]\n%z: Float(1, 2, 4, 4), %m: Float(2), %v: Float(2) "
               "= batch_norm_training(%y, %n, %n)\n"
               "return (%z)",
       "z",
       {"batch_norm_training has no quantized form in the backend 'native'"}},
      {kConv + image("a", "exp(%y)") + image("z", "relu(%a)") + "return (%z)",
       "z",
       {"no quantized layer gives it codes or takes them"}},
      {kConv + image("a", "exp(%y)") + image("z", "add(%a, %a)") + "return (%z)",
       "z",
       {"no quantized layer gives it codes or takes them"}},
      {kConv + image("a", "exp(%y)") + image("z", "sigmoid(%a)") + "return (%z)",
       "z",
       {"no quantized layer gives it codes or takes them"}},
      {kConv + "%z: Float(1, 2, 4, 1), %i: Long(1, 2, 4, 1) = topk(%y, k=1)\nreturn (%z)",
       "z",
       {"topk has no quantized form in the backend"}},
      {kConv + "%z: Long(1, 1, 4, 4) = argmax(%y, dim=1)\nreturn (%z)",
       "z",
       {"argmax has no quantized form"}},
      {kConv + "%v: Float(2, 2, 1, 1) = input\n" + image("z", "conv2d(%y, %v)") + "return (%z)",
       "z",
       {"weight", "parameter"}},
      {kConv + "%v: Float(2) = input\n" + image("z", "conv2d(%y, %w, %v)") + "return (%z)",
       "z",
       {"bias", "constant"}},
      {kConv + "%v: Float(2) = input\n" + image("z", "prelu(%y, %v)") + "return (%z)",
       "z",
       {"slope", "parameter"}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.body);
    Decided p(c.body);
    EXPECT_FALSE(p.quantized(c.node));
    EXPECT_EQ(p.group(c.node), -1);
    for (const auto& part : c.parts)
      EXPECT_NE(p.reason(c.node).find(part), std::string::npos) << p.reason(c.node);
    EXPECT_TRUE(p.quantized("y"));
    EXPECT_EQ(p.reason("y"), "");
  }
}

TEST(Decide, ConstantsOfAnAddOrMulStayFloat) {
  for (const char* op : {"add", "sub", "mul"}) {
    Decided p(kConv + "%c: Float(2, 1, 1) = constant [2, -300]\n" +
              image("z", std::string(op) + "(%y, %c)") + "return (%z)");
    EXPECT_TRUE(p.quantized("z")) << op << ": " << p.reason("z");
    EXPECT_EQ(p.group("c"), -1) << op;
    EXPECT_TRUE(p.d.constants.count(p.id("w")));
    EXPECT_FALSE(p.d.constants.count(p.id("c"))) << op;
  }
}

TEST(Decide, FunctionsOfOneValueJoinIntoATable) {
  const std::string body = kConv + "%a: Float(1) = constant [0.5]\n%b: Float(1) = constant [3]\n" +
                           image("m", "mul(%y, %a)") + image("p", "add(%m, %b)") +
                           image("h", "hardswish(%p)") + image("z", "conv2d(%h, %w)") +
                           "return (%z)";
  Decided d(body);
  for (const char* name : {"m", "p"}) {
    EXPECT_TRUE(d.node(name).joins_next) << name;
    EXPECT_EQ(d.group(name), -1) << name << " is not rounded to codes";
  }
  EXPECT_FALSE(d.node("h").joins_next);
  EXPECT_GE(d.group("h"), 0);
  // Another reader of a value in between needs its codes.
  Decided two(kConv + "%a: Float(1) = constant [0.5]\n" + image("m", "mul(%y, %a)") +
              image("h", "hardswish(%m)") + image("z", "conv2d(%h, %w)") +
              image("u", "conv2d(%m, %w)") + "return (%z, %u)");
  EXPECT_FALSE(two.node("m").joins_next);
  // One factor per channel is no function of one code.
  Decided channels(kConv + "%a: Float(2, 1, 1) = constant [0.5, 2]\n" + image("m", "mul(%y, %a)") +
                   image("h", "hardswish(%m)") + image("z", "conv2d(%h, %w)") + "return (%z)");
  EXPECT_FALSE(channels.node("m").joins_next);
}

// The default mapping's qconfig of a softmax is of the fixed range of its result, 0..1.
TEST(Decide, AFloatOperandOfASoftmaxHasARangeOfItsOwn) {
  Graph g = parse(kConv + image("e", "exp(%y)") + image("s", "softmax(%e, dim=1)") +
                  image("z", "conv2d(%s, %w)") + "return (%z)");
  GraphDecisions d = decide(g, get_default_qconfig_mapping(), get_native_backend_config());
  const auto group = [&](const char* name) { return d.groups[d.group[*g.find(name)]]; };
  EXPECT_FALSE(group("e").is_fixed());
  EXPECT_EQ(group("e").observer, get_default_qconfig().activation);
  EXPECT_TRUE(group("s").is_fixed());
}

TEST(Decide, AConstantOfACatSharesTheScaleOfAllAndIsWatched) {
  Decided p(kConv +
            "%c: Float(1, 2, 4, 4) = constant\n%z: Float(1, 4, 4, 4) = cat(%y, %c, "
            "dim=1)\nreturn (%z)");
  EXPECT_EQ(p.group("c"), p.group("y"));
  EXPECT_EQ(p.group("z"), p.group("y"));
  EXPECT_EQ(p.watched("z"), (Names{"y", "z"}));
}

TEST(Decide, RowsOfAConstantTableStayFloat) {
  Decided p(kConv +
            "%t: Float(10, 4) = constant\n%i: Long(2) = input\n%e: Float(2, 4) = index_select(%t, "
            "%i, dim=0)\nreturn (%y, %e)");
  EXPECT_EQ(p.reason("e"), "its operand is a constant");
}

TEST(Decide, IslandsAreQuantizedIfTheyAreAskedFor) {
  const std::string body = kConv + image("a", "exp(%y)") + image("s", "sigmoid(%a)") +
                           image("z", "mul(%s, %a)") + "return (%z)";
  Decided p(body);
  EXPECT_FALSE(p.quantized("z"));
  Graph g = parse(body);
  GraphDecisions all =
      decide(g, get_default_qconfig(), get_native_backend_config(), {.leave_islands_float = false});
  EXPECT_TRUE(all.nodes[g.value(*g.find("z")).producer].mode);
}

TEST(Decide, AMappingIsAskedByNameOperatorAndNumber) {
  Graph g = parse(kConv + "%z: Float(1, 2, 4, 4) = conv2d(%y, %w)  @ net.head\n" +
                  image("s", "sigmoid(%z)") + "return (%s)");
  const auto quantized = [&](const QConfigMapping& mapping) {
    GraphDecisions d = decide(g, mapping, get_native_backend_config());
    Names names;
    for (size_t n = 0; n < g.nodes().size(); ++n)
      if (d.nodes[n].mode) names.insert(g.value(g.nodes()[n].outputs[0]).name);
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

TEST(Decide, ThePartsOfASplitAreCodesAndWhatFollowsRunsOnThem) {
  Decided p(
      kConv +
      "%a: Float(1, 1, 4, 4), %b: Float(1, 1, 4, 4) = split(%y, dim=1, sizes=[1, 1])\n"
      "%s: Float(1, 1, 4, 4) = sigmoid(%b)\n%z: Float(1, 1, 4, 4) = mul(%a, %s)\nreturn (%z)");
  for (const char* name : {"a", "b", "s", "z"}) EXPECT_TRUE(p.quantized(name)) << name;
  EXPECT_EQ(p.group("a"), p.group("y"));
  EXPECT_EQ(p.group("b"), p.group("y"));
  EXPECT_EQ(p.watched("y"), Names{"y"});
}

TEST(Decide, ResizingAndMaximaKeepTheirOperandsCodes) {
  Decided p(kConv +
            "%u: Float(1, 2, 8, 8) = interpolate(%y, scales=[2., 2.])\n%m: Float(1, 1, 8, 8) = "
            "amax(%u, dim=[1])\nreturn (%m)");
  for (const char* name : {"u", "m"}) {
    EXPECT_TRUE(p.quantized(name)) << name << ": " << p.reason(name);
    EXPECT_EQ(p.group(name), p.group("y")) << name;
  }
}

TEST(Decide, WithoutALayerTheInputsAreCodes) {
  Decided p(
      "%x: Float(1, 2) = input\n%z: Float(1, 2) = input\n%c: Float(1, 4) = cat(%x, %z, dim=1)\n%r: "
      "Float(1, 4) = relu(%c)\n"
      "%e: Float(1, 4) = exp(%r)\nreturn (%e)");
  EXPECT_TRUE(p.quantized("c"));
  EXPECT_TRUE(p.quantized("r"));
  EXPECT_FALSE(p.quantized("e"));
  EXPECT_EQ(p.group("x"), p.group("c"));
}

TEST(Decide, PreluRunsOnCodesOnlyWhereSomebodyTakesThem) {
  const std::string prelu =
      kConv + "%s: Float(1, 2, 1, 1) = constant [9, 0.1]\n" + image("p", "prelu(%y, %s)");
  Decided alone(prelu + image("z", "exp(%p)") + "return (%z)");
  EXPECT_FALSE(alone.quantized("p"));
  EXPECT_NE(alone.reason("p").find("nothing that reads its result takes codes"), std::string::npos);
  EXPECT_EQ(alone.group("p"), -1);
  EXPECT_TRUE(Decided(prelu + image("z", "conv2d(%p, %w)") + "return (%z)").quantized("p"));
  EXPECT_TRUE(Decided(prelu + "return (%p)").quantized("p"));
}

TEST(Decide, KeepersBeforeAQuantizedLayerAreQuantized) {
  Decided p(
      "%x: Float(1, 2, 4, 4) = input\n%m: Float(1, 2, 2, 2) = max_pool2d(%x, kernel=[2, 2], "
      "stride=[2, 2])\n%w: "
      "Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n"
      "%y: Float(1, 2, 2, 2) = conv2d(%m, %w)\nreturn (%y)");
  EXPECT_TRUE(p.quantized("m"));
  EXPECT_EQ(p.group("m"), p.group("x"));
}

TEST(Decide, SkipsByNameGlobAndExpression) {
  std::string body = kConv + "%z: Float(1, 2, 4, 4) = conv2d(%y, %w)  @ net.head.conv\nreturn (%z)";
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

TEST(Decide, GroupsAreConsistent) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Graph g = testing::random_net(seed, true, 14);
    GraphDecisions d = decide(g, get_default_qconfig(), get_native_backend_config());
    for (size_t i = 0; i < g.nodes().size(); ++i) {
      const graph::Node& node = g.nodes()[i];
      if (node.kind != graph::NodeKind::call) continue;
      EXPECT_EQ(d.nodes[i].mode.has_value(), d.nodes[i].reason.empty()) << seed;
      if (!d.nodes[i].mode) continue;
      EXPECT_EQ(d.group[node.outputs[0]] < 0, d.nodes[i].joins_next) << seed;
      const bool joined = d.nodes[g.value(node.inputs[0]).producer].joins_next;
      EXPECT_TRUE(d.group[node.inputs[0]] >= 0 || joined || d.constants.count(node.inputs[0]))
          << seed;
    }
    for (const GraphDecisions::Group& group : d.groups)
      EXPECT_EQ(group.watch.empty(), group.observer.options().scale.has_value())
          << seed << ": either watched or fixed";
  }
}

}  // namespace octet::quant
