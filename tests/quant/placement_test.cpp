#include "octet/quant/backend/placement.h"

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

struct Placed {
  Graph g;
  Placement p;
  explicit Placed(const std::string& body, const std::vector<std::string>& skip = {},
                  DType dtype = DType::quint8)
      : g(parse(body)), p(place(g, skip, dtype)) {}
  ValueId id(const std::string& name) const { return *g.find(name); }
  bool quantized(const std::string& name) const { return p.quantized[g.value(id(name)).producer]; }
  std::string reason(const std::string& name) const { return p.reason[g.value(id(name)).producer]; }
  int group(const std::string& name) const { return p.group[id(name)]; }
  std::set<std::string> watched(const std::string& name) const {
    std::set<std::string> names;
    for (ValueId v : p.watch[group(name)]) names.insert(g.value(v).name);
    return names;
  }
};

using Names = std::set<std::string>;

}  // namespace

TEST(Placement, OperatorsThatKeepQparamsShareAGroup) {
  Placed p(kConv + image("r", "relu(%y)") +
           image("m", "max_pool2d(%r, kernel=[3, 3], padding=[1, 1, 1, 1], stride=[1, 1])") +
           "%f: Float(1, 32) = reshape(%m, shape=[1, 32])\n%v: Float(3, 32) = constant\n%z: "
           "Float(1, 3) = linear(%f, "
           "%v)\nreturn (%z)");
  for (const char* name : {"r", "m", "f"}) EXPECT_EQ(p.group(name), p.group("y")) << name;
  EXPECT_NE(p.group("x"), p.group("y"));
  EXPECT_NE(p.group("z"), p.group("y"));
  EXPECT_EQ(p.watched("y"), Names{"y"}) << "what only rearranges is not watched";
  EXPECT_EQ(p.p.groups, 3);
}

TEST(Placement, CatSharesOneScaleWithItsOperands) {
  Placed p(kConv + image("z", "conv2d(%y, %w)") +
           "%c: Float(1, 4, 4, 4) = cat(%y, %z, dim=1)\nreturn (%c)");
  EXPECT_EQ(p.group("c"), p.group("y"));
  EXPECT_EQ(p.group("c"), p.group("z"));
  EXPECT_EQ(p.watched("c"), (Names{"y", "z"}));
}

TEST(Placement, ResultsThatLeaveTheOperandsRangeAreWatchedToo) {
  EXPECT_EQ(
      Placed(
          kConv +
          "%p: Float(1, 2, 6, 6) = pad(%y, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=9.)\nreturn (%p)")
          .watched("p"),
      (Names{"y", "p"}));
  EXPECT_EQ(
      Placed(kConv + "%p: Float(1, 2, 6, 6) = pad(%y, pads=[0, 0, 1, 1, 0, 0, 1, 1])\nreturn (%p)")
          .watched("p"),
      Names{"y"});
  EXPECT_EQ(Placed(kConv + image("c", "clamp(%y, max=3., min=1.)") + "return (%c)").watched("c"),
            (Names{"y", "c"}));
  EXPECT_EQ(Placed(kConv + image("c", "clamp(%y, max=3., min=-1.)") + "return (%c)").watched("c"),
            Names{"y"});
}

TEST(Placement, BoundedOperatorsHaveFixedQparams) {
  for (DType dtype : {DType::quint8, DType::qint8}) {
    Placed p(kConv + image("s", "sigmoid(%y)") + image("t", "tanh(%y)") + "return (%s, %t)", {},
             dtype);
    ASSERT_TRUE(p.p.fixed[p.group("s")] && p.p.fixed[p.group("t")]);
    EXPECT_EQ(*p.p.fixed[p.group("s")]->quantizer,
              *Quantizer::per_tensor(1.0 / 256, dtype == DType::qint8 ? -128 : 0, dtype));
    EXPECT_EQ(*p.p.fixed[p.group("t")]->quantizer,
              *Quantizer::per_tensor(1.0 / 128, dtype == DType::qint8 ? 0 : 128, dtype));
    EXPECT_TRUE(p.watched("s").empty());
  }
  Placed mixed(kConv + image("s", "sigmoid(%y)") +
               "%c: Float(1, 4, 4, 4) = cat(%y, %s, dim=1)\nreturn (%c)");
  EXPECT_FALSE(mixed.p.fixed[mixed.group("c")]);
  EXPECT_EQ(mixed.watched("c"), (Names{"s", "y"}));
}

TEST(Placement, WhatStaysFloatHasAReason) {
  const struct {
    std::string body;
    const char* node;
    std::vector<std::string> parts;
  } cases[] = {
      {kConv + "%c: Float(1) = constant [2]\n" + image("z", "mul(%y, %c)") + "return (%z)",
       "z",
       {"constant", "precision"}},
      {kConv + image("z", "exp(%y)") + "return (%z)",
       "z",
       {"exp could run on codes", "range too widely"}},
      {kConv + image("z", "softmax(%y)") + "return (%z)",
       "z",
       {"softmax could run on codes", "do not place it there yet"}},
      {kConv + image("z", "matmul(%y, %y)") + "return (%z)",
       "z",
       {"matmul could run on codes", "do not place it there yet"}},
      {kConv + "%n: Float(2) = constant [1, 2]\n%z: Float(1, 2, 4, 4), %m: Float(2), %v: Float(2) "
               "= batch_norm_training(%y, %n, %n)\n"
               "return (%z)",
       "z",
       {"batch_norm_training has no integer form"}},
      {kConv + image("a", "exp(%y)") + image("z", "relu(%a)") + "return (%z)",
       "z",
       {"operand is float"}},
      {kConv + image("a", "exp(%y)") + image("z", "add(%a, %a)") + "return (%z)",
       "z",
       {"no operand is quantized"}},
      {kConv + image("a", "exp(%y)") + image("z", "sigmoid(%a)") + "return (%z)",
       "z",
       {"operand is float"}},
      {kConv + "%c: Float(1, 2, 4, 4) = constant\n%z: Float(1, 4, 4, 4) = cat(%y, %c, "
               "dim=1)\nreturn (%z)",
       "z",
       {"operand is float"}},
      {kConv + "%z: Float(1, 2, 4, 1), %i: Long(1, 2, 4, 1) = topk(%y, k=1)\nreturn (%z)",
       "z",
       {"topk could run on codes"}},
      {kConv + "%z: Long(1, 1, 4, 4) = argmax(%y, dim=1)\nreturn (%z)", "z", {"not float32"}},
      {kConv + "%v: Float(2, 2, 1, 1) = input\n" + image("z", "conv2d(%y, %v)") + "return (%z)",
       "z",
       {"weight", "constant"}},
      {kConv + "%v: Float(2) = input\n" + image("z", "conv2d(%y, %w, %v)") + "return (%z)",
       "z",
       {"bias", "constant"}},
      {kConv + "%v: Float(2) = input\n" + image("z", "prelu(%y, %v)") + "return (%z)",
       "z",
       {"weight", "constant"}},
      {kConv +
           "%v: Long(1) = input\n%z: Float(1, 1, 4, 4) = index_select(%y, %v, dim=1)\nreturn (%z)",
       "z",
       {"operand"}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.body);
    Placed p(c.body);
    EXPECT_FALSE(p.quantized(c.node));
    EXPECT_EQ(p.group(c.node), -1);
    for (const auto& part : c.parts)
      EXPECT_NE(p.reason(c.node).find(part), std::string::npos) << p.reason(c.node);
    EXPECT_TRUE(p.quantized("y"));
    EXPECT_EQ(p.reason("y"), "");
  }
}

TEST(Placement, ThePartsOfASplitAreCodesAndWhatFollowsRunsOnThem) {
  Placed p(kConv +
           "%a: Float(1, 1, 4, 4), %b: Float(1, 1, 4, 4) = split(%y, dim=1, sizes=[1, 1])\n"
           "%s: Float(1, 1, 4, 4) = sigmoid(%b)\n%z: Float(1, 1, 4, 4) = mul(%a, %s)\nreturn (%z)");
  for (const char* name : {"a", "b", "s", "z"}) EXPECT_TRUE(p.quantized(name)) << name;
  EXPECT_EQ(p.group("a"), p.group("y"));
  EXPECT_EQ(p.group("b"), p.group("y"));
  EXPECT_EQ(p.watched("y"), Names{"y"});
}

TEST(Placement, ResizingAndMaximaKeepTheirOperandsCodes) {
  Placed p(kConv +
           "%u: Float(1, 2, 8, 8) = interpolate(%y, scales=[2., 2.])\n%m: Float(1, 1, 8, 8) = "
           "amax(%u, dim=[1])\nreturn (%m)");
  for (const char* name : {"u", "m"}) {
    EXPECT_TRUE(p.quantized(name)) << name << ": " << p.reason(name);
    EXPECT_EQ(p.group(name), p.group("y")) << name;
  }
}

TEST(Placement, WithoutALayerTheInputsAreCodes) {
  Placed p(
      "%x: Float(1, 2) = input\n%z: Float(1, 2) = input\n%c: Float(1, 4) = cat(%x, %z, dim=1)\n%r: "
      "Float(1, 4) = relu(%c)\n"
      "%e: Float(1, 4) = exp(%r)\nreturn (%e)");
  EXPECT_TRUE(p.quantized("c"));
  EXPECT_TRUE(p.quantized("r"));
  EXPECT_FALSE(p.quantized("e"));
  EXPECT_EQ(p.group("x"), p.group("c"));
}

TEST(Placement, PreluRunsOnCodesOnlyWhereSomebodyTakesThem) {
  const std::string prelu =
      kConv + "%s: Float(1, 2, 1, 1) = constant [9, 0.1]\n" + image("p", "prelu(%y, %s)");
  Placed alone(prelu + image("z", "exp(%p)") + "return (%z)");
  EXPECT_FALSE(alone.quantized("p"));
  EXPECT_NE(alone.reason("p").find("nothing that reads its result takes codes"), std::string::npos);
  EXPECT_EQ(alone.group("p"), -1);
  EXPECT_TRUE(Placed(prelu + image("z", "conv2d(%p, %w)") + "return (%z)").quantized("p"));
  EXPECT_TRUE(Placed(prelu + "return (%p)").quantized("p"));
}

TEST(Placement, KeepersBeforeAQuantizedLayerAreQuantized) {
  Placed p(
      "%x: Float(1, 2, 4, 4) = input\n%m: Float(1, 2, 2, 2) = max_pool2d(%x, kernel=[2, 2], "
      "stride=[2, 2])\n%w: "
      "Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n"
      "%y: Float(1, 2, 2, 2) = conv2d(%m, %w)\nreturn (%y)");
  EXPECT_TRUE(p.quantized("m"));
  EXPECT_EQ(p.group("m"), p.group("x"));
}

TEST(Placement, SkipsByNameGlobAndExpression) {
  std::string body = kConv + "%z: Float(1, 2, 4, 4) = conv2d(%y, %w)  @ net.head.conv\nreturn (%z)";
  const struct {
    const char* pattern;
    bool y, z;
  } cases[] = {{"net.conv", false, true}, {"net.head.*", true, false},
               {"*conv", false, false},   {"re:^net\\.conv$", false, true},
               {"re:head", true, false},  {"z", true, false}};
  for (const auto& c : cases) {
    Placed p(body, {c.pattern});
    EXPECT_EQ(p.quantized("y"), c.y) << c.pattern;
    EXPECT_EQ(p.quantized("z"), c.z) << c.pattern;
    for (const char* name : {"y", "z"})
      if (!p.quantized(name)) {
        EXPECT_EQ(p.reason(name), std::string("skipped by '") + c.pattern + "'");
      }
  }
  expect_error(ErrorCode::not_found, {"'net.covn'", "did you mean 'net.conv'"}, [&] {
    Placed p(body, {"net.conv", "net.covn"});
  });
  expect_error(ErrorCode::not_found, {"'re:nothing'"}, [&] { Placed p(body, {"re:nothing"}); });
  expect_error(ErrorCode::invalid_argument, {"'re:('"}, [&] { Placed p(body, {"re:("}); });
}

TEST(Placement, GroupsAreConsistent) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Graph g = testing::random_net(seed, true, 14);
    Placement p = place(g, {}, DType::quint8);
    for (size_t i = 0; i < g.nodes().size(); ++i) {
      const graph::Node& node = g.nodes()[i];
      if (node.kind != graph::NodeKind::call) continue;
      EXPECT_EQ(p.quantized[i], p.reason[i].empty()) << seed;
      if (!p.quantized[i]) continue;
      EXPECT_GE(p.group[node.outputs[0]], 0);
      EXPECT_GE(p.group[node.inputs[0]], 0);
    }
    for (int k = 0; k < p.groups; ++k)
      EXPECT_NE(p.watch[k].empty(), !p.fixed[k].has_value()) << seed << ": either watched or fixed";
  }
}

}  // namespace octet::quant
