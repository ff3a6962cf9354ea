#include "octet/graph/passes/explicit_weights.h"

#include <gtest/gtest.h>

namespace octet::graph {
namespace {

TEST(ExplicitWeights, WeightOnlyOperatorsBecomeTheFloatOnesOnDequantizedWeights) {
  Graph g = parse(R"(graph net {
  %x: Float(N, 3) = input
  %w: QInt8(2, 3) scale=0.5 zero_point=0 = constant
  %b: Float(2) = constant [1, 2]
  %y: Float(N, 2) = linear_weight_only(%x, %w, %b, activation="relu")  @ fc
  %z: Float(N, 2) = relu(%y)
  return (%z)
}
)");
  EXPECT_EQ(print(explicit_weights(g)), R"(graph net {
  %x: Float(N, 3) = input
  %w: QInt8(2, 3) scale=0.5 zero_point=0 = constant
  %b: Float(2) = constant [1, 2]
  %w.dequantized: Float(2, 3) = dequantize(%w)  @ fc
  %y: Float(N, 2) = linear(%x, %w.dequantized, %b, activation="relu")  @ fc
  %z: Float(N, 2) = relu(%y)
  return (%z)
}
)");
}

TEST(ExplicitWeights, OtherGraphsStayAsTheyAre) {
  Graph g = parse(R"(graph net {
  %x: Float(N, 3) = input
  %y: Float(N, 3) = relu(%x)
  return (%y)
}
)");
  EXPECT_EQ(print(explicit_weights(g)), print(g));
}

}  // namespace
}  // namespace octet::graph
