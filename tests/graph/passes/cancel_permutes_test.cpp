// Permutations that meet their inverse go, and the results are the same bits.
#include "octet/graph/passes/cancel_permutes.h"

#include <gtest/gtest.h>

#include "octet/runtime/program.h"

namespace octet::graph {
namespace {

std::string ops_of(const Graph& g) {
  std::string text;
  for (const Node& node : g.nodes())
    if (node.kind == NodeKind::call) text += (text.empty() ? "" : " ") + node.op;
  return text;
}

// The pass gives these operators, and what the graph gave.
void expect_ops(const std::string& body, const std::string& ops) {
  const Graph g = parse("graph g {\n" + body + "\n}\n",
                        {{"w", Tensor::randn({4, 4, 1, 1}, 1)}, {"c", Tensor::randn({4}, 2)}});
  const Graph fewer = cancel_permutes(g);
  fewer.check();
  EXPECT_EQ(ops_of(fewer), ops) << print(fewer);
  const Tensor x = Tensor::randn({2, 4, 5, 6}, 3);
  const auto before = runtime::compile(g).run({x}), after = runtime::compile(fewer).run({x});
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(equal(before[i], after[i])) << ops << ", result " << i;
    EXPECT_EQ(fewer.value(fewer.outputs()[i]).name, g.value(g.outputs()[i]).name);
  }
}

const std::string kConvOfPermuted =
    "%x: Float(2, 4, 5, 6) = input\n%w: Float(4, 4, 1, 1) = constant\n"
    "%c: Float(4) = constant\n%a: Float(2, 4, 5, 6) = conv2d(%x, %w)\n"
    "%b: Float(2, 5, 6, 4) = permute(%a, dims=[0, 2, 3, 1])\n";
const std::string kBack = "%f: Float(2, 4, 5, 6) = permute(%e, dims=[0, 3, 1, 2])\n";

TEST(CancelPermutes, BehindABiasAndAnActivation) {
  expect_ops(kConvOfPermuted +
                 "%d: Float(2, 5, 6, 4) = add(%b, %c)\n%e: Float(2, 5, 6, 4) = relu(%d)\n" + kBack +
                 "%y: Float(2, 4, 5, 6) = conv2d(%f, %w)\nreturn (%y)",
             "conv2d add relu conv2d");
}

TEST(CancelPermutes, ThroughAResidualSumAndAConcatenation) {
  expect_ops(kConvOfPermuted +
                 "%d: Float(2, 5, 6, 4) = tanh(%b)\n%e0: Float(2, 5, 6, 4) = add(%b, %d)\n"
                 "%e: Float(2, 5, 6, 8) = cat(%e0, %b, dim=-1)\n"
                 "%f: Float(2, 8, 5, 6) = permute(%e, dims=[0, 3, 1, 2])\nreturn (%f)",
             "conv2d tanh add cat");
}

TEST(CancelPermutes, AMeanOverWhatWasThePixelsNeedsNone) {
  expect_ops(
      kConvOfPermuted +
          "%e: Float(2, 5, 6, 4) = relu(%b)\n%f: Float(2, 4, 5, 6) = permute(%e, dims=[0, 3, "
          "1, 2])\n%g: Float(2, 4, 5, 6) = conv2d(%f, %w)\n%h: Float(2, 5, 6, 4) = "
          "permute(%g, dims=[0, 2, 3, 1])\n"
          "%y: Float(2, 4) = mean(%h, dim=[1, 2], keepdim=false)\nreturn (%y)",
      "conv2d relu conv2d mean");
}

TEST(CancelPermutes, PadsAndSoftmaxSpeakOfOtherDimensions) {
  expect_ops(kConvOfPermuted +
                 "%d: Float(2, 7, 6, 4) = pad(%b, pads=[0, 1, 0, 0, 0, 1, 0, 0])\n"
                 "%e: Float(2, 7, 6, 4) = softmax(%d, dim=-1)\n"
                 "%f: Float(2, 4, 7, 6) = permute(%e, dims=[0, 3, 1, 2])\nreturn (%f)",
             "conv2d pad softmax");
}

TEST(CancelPermutes, AValueThatIsAResultStaysAsItIs) {
  expect_ops(kConvOfPermuted + "%e: Float(2, 5, 6, 4) = relu(%b)\n" + kBack +
                 "%y: Float(2, 4, 5, 6) = conv2d(%f, %w)\nreturn (%e, %y)",
             "conv2d relu conv2d permute");
}

TEST(CancelPermutes, WithoutFewerTheGraphStaysAsItIs) {
  const std::string attention =
      "%x: Float(2, 4, 5, 6) = input\n%a: Float(2, 5, 4, 6) = permute(%x, dims=[0, 2, 1, 3])\n"
      "%b: Float(2, 5, 6, 4) = permute(%x, dims=[0, 2, 3, 1])\n%t: Float() = constant 0.5\n"
      "%s: Float(2, 5, 4, 6) = mul(%a, %t)\n%y: Float(2, 5, 4, 4) = matmul(%s, %b)\nreturn (%y)";
  expect_ops(attention, "permute permute mul matmul");
}

}  // namespace
}  // namespace octet::graph
