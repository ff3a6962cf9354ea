#include "octet/graph/passes/fuse.h"

#include <gtest/gtest.h>

#include "tests/graph/random_net.h"

namespace octet::graph {
namespace {

// The pass on a text without the first and last line.
std::string fused(const std::string& body) {
  std::string text = print(fuse_activations(parse("graph g {\n" + body + "}\n")), {.full = true});
  return text.substr(10, text.size() - 12);
}

const std::string kConv =
    "  %x: Float(1, 2, 4, 4) = input\n  %w: Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n";

}  // namespace

TEST(Fuse, ActivationsBecomePartOfTheOperatorBefore) {
  const struct {
    const char* name;
    std::string before, after;
  } cases[] = {
      {"conv2d and relu",
       kConv + "  %y: Float(1, 2, 4, 4) = conv2d(%x, %w)  @ conv\n  %r: Float(1, 2, 4, 4) = "
               "relu(%y)  @ act\n  return "
               "(%r)\n",
       kConv + "  %r: Float(1, 2, 4, 4) = conv2d(%x, %w, activation=\"relu\")  @ conv\n  return "
               "(%r)\n"},
      {"linear and relu6 as clamp",
       "  %x: Float(1, 2) = input\n  %w: Float(2, 2) = constant [1, 2, 3, 4]\n  %y: Float(1, 2) = "
       "linear(%x, %w)\n"
       "  %r: Float(1, 2) = clamp(%y, max=6., min=0.)\n  return (%r)\n",
       "  %x: Float(1, 2) = input\n  %w: Float(2, 2) = constant [1, 2, 3, 4]\n"
       "  %r: Float(1, 2) = linear(%x, %w, activation=\"relu6\")\n  return (%r)\n"},
      {"add and clamp from 0",
       "  %x: Float(2) = input\n  %y: Float(2) = add(%x, %x)\n  %r: Float(2) = clamp(%y, min=0.)\n "
       " return (%r)\n",
       "  %x: Float(2) = input\n  %r: Float(2) = add(%x, %x, activation=\"relu\")\n  return "
       "(%r)\n"},
      {"mul and relu6",
       "  %x: Float(2) = input\n  %y: Float(2) = mul(%x, %x)\n  %r: Float(2) = relu6(%y)\n  return "
       "(%r)\n",
       "  %x: Float(2) = input\n  %r: Float(2) = mul(%x, %x, activation=\"relu6\")\n  return "
       "(%r)\n"},
      {"only the first of two activations",
       "  %x: Float(2) = input\n  %y: Float(2) = add(%x, %x)\n  %r: Float(2) = relu6(%y)\n  %s: "
       "Float(2) = relu(%r)\n  "
       "return (%s)\n",
       "  %x: Float(2) = input\n  %r: Float(2) = add(%x, %x, activation=\"relu6\")\n  %s: Float(2) "
       "= relu(%r)\n  "
       "return (%s)\n"},
      {"quantized, with equal qparams",
       "  %x: QUInt8(2) scale=0.5 zero_point=3 = input\n  %y: QUInt8(2) scale=0.25 zero_point=1 = "
       "add(%x, %x)\n"
       "  %r: QUInt8(2) scale=0.25 zero_point=1 = relu(%y)\n  return (%r)\n",
       "  %x: QUInt8(2) scale=0.5 zero_point=3 = input\n"
       "  %r: QUInt8(2) scale=0.25 zero_point=1 = add(%x, %x, activation=\"relu\")\n  return "
       "(%r)\n"},
  };
  for (const auto& c : cases) EXPECT_EQ(fused(c.before), c.after) << c.name;
}

TEST(Fuse, LeavesEverythingElseAlone) {
  const std::string add = "  %x: Float(2) = input\n  %y: Float(2) = add(%x, %x)\n";
  const struct {
    const char* name;
    std::string text;
  } cases[] = {
      {"two users",
       add + "  %r: Float(2) = relu(%y)\n  %s: Float(2) = add(%y, %r)\n  return (%s)\n"},
      {"a result of the graph", add + "  %r: Float(2) = relu(%y)\n  return (%r, %y)\n"},
      {"other bounds", add + "  %r: Float(2) = clamp(%y, max=1., min=0.)\n  return (%r)\n"},
      {"from below 0", add + "  %r: Float(2) = clamp(%y, max=6., min=-1.)\n  return (%r)\n"},
      {"an activation that kernels do not have",
       add + "  %r: Float(2) = sigmoid(%y)\n  return (%r)\n"},
      {"an operator without activations",
       "  %x: Float(2) = input\n  %y: Float(2) = sub(%x, %x)\n  %r: Float(2) = relu(%y)\n  return "
       "(%r)\n"},
      {"an input", "  %x: Float(2) = input\n  %r: Float(2) = relu(%x)\n  return (%r)\n"},
      {"fused already",
       "  %x: Float(2) = input\n  %y: Float(2) = add(%x, %x, activation=\"relu\")\n  %r: Float(2) "
       "= relu6(%y)\n  "
       "return (%r)\n"},
      {"other qparams",
       "  %x: QUInt8(2) scale=0.5 zero_point=3 = input\n  %y: QUInt8(2) scale=0.25 zero_point=1 = "
       "add(%x, %x)\n"
       "  %r: QUInt8(2) scale=0.5 zero_point=1 = relu(%y)\n  return (%r)\n"},
  };
  for (const auto& c : cases) EXPECT_EQ(fused(c.text), c.text) << c.name;
}

TEST(Fuse, ComputesTheSame) {
  int fewer = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Graph g = testing::random_net(seed, false, 12), f = fuse_activations(g);
    f.check();
    fewer += f.nodes().size() < g.nodes().size();
    Tensor x = Tensor::randn({2, 3, 6, 6}, seed);
    auto want = testing::evaluate(g, {x}), got = testing::evaluate(f, {x});
    ASSERT_EQ(want.size(), got.size());
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_TRUE(allclose(got[i], want[i], 1e-5, 1e-5)) << seed;
      EXPECT_EQ(f.value(f.outputs()[i]).name, g.value(g.outputs()[i]).name);
    }
  }
  EXPECT_GT(fewer, 10);
}

}  // namespace octet::graph
