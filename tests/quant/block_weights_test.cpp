#include "octet/quant/algorithms/block_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using Batches = std::vector<std::vector<Tensor>>;

Graph two_linears() {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(40)}));
  ValueId y = g.add_call("a", "linear",
                         {x, g.add_constant("a.weight", Tensor::randn({48, 40}, 1)),
                          g.add_constant("a.bias", Tensor::randn({48}, 2))},
                         {{"activation", "relu"}});
  g.set_outputs(
      {g.add_call("b", "linear", {y, g.add_constant("b.weight", Tensor::randn({5, 48}, 3))})});
  return g;
}

Batches dependent_rows() {
  Batches batches;
  for (uint64_t i = 0; i < 3; ++i) {
    Tensor x = Tensor::randn({200, 40}, 10 + i);
    float* p = x.data<float>();
    for (int64_t j = 1; j < x.numel(); ++j) p[j] = 0.7F * p[j - 1] + 0.4F * p[j];
    batches.push_back({x});
  }
  return batches;
}

double noise_power(const Graph& want, const Graph& got) {
  double sum = 0;
  for (const auto& batch : dependent_rows()) {
    const auto x = runtime::compile(want).run(batch)[0].to_vector<float>(),
               y = runtime::compile(got).run(batch)[0].to_vector<float>();
    for (size_t i = 0; i < x.size(); ++i) sum += std::pow(double(x[i]) - double(y[i]), 2);
  }
  return sum;
}

// The last block of the first layer has 8 of its 16 inputs.
TEST(BlockWeights, TheNearestCodesOfEachBlockAreTheFormula) {
  const Graph g = two_linears();
  const Graph q =
      quant::quantize_block_weights(g, {}, {.bits = 4, .block_size = 16, .gptq = false});
  Graph rounded = g;
  for (const char* name : {"a.weight", "b.weight"}) {
    graph::Node& holder = rounded.node(rounded.value(*rounded.find(name)).producer);
    Tensor w = holder.value.clone();
    const int64_t k = w.size(1);
    for (int64_t o = 0; o < w.size(0); ++o)
      for (int64_t begin = 0; begin < k; begin += 16) {
        float* p = w.data<float>() + o * k + begin;
        const int64_t n = std::min<int64_t>(16, k - begin);
        const float lo = std::min(0.F, *std::min_element(p, p + n)),
                    hi = std::max(0.F, *std::max_element(p, p + n)), scale = (hi - lo) / 15;
        const float zero = std::nearbyintf(-lo / scale);
        for (int64_t i = 0; i < n; ++i)
          p[i] = (std::clamp(std::nearbyintf(p[i] / scale) + zero, 0.F, 15.F) - zero) * scale;
      }
    holder.value = w;
  }
  for (const auto& batch : dependent_rows())
    EXPECT_TRUE(allclose(runtime::compile(q).run(batch)[0], runtime::compile(rounded).run(batch)[0],
                         1e-4, 1e-4));
}

// Their zero point is the largest code: 0 has a code in every block.
TEST(BlockWeights, BlocksOfOneSignKeepTheirValues) {
  for (const float sign : {-1.F, 1.F}) {
    Tensor w = Tensor::rand({4, 32}, 1, 0.9, 1);
    for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] *= sign;
    Graph g;
    const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(32)}));
    g.set_outputs({g.add_call("a", "linear", {x, g.add_constant("a.weight", w)})});
    const Graph q =
        quant::quantize_block_weights(g, {}, {.bits = 8, .block_size = 16, .gptq = false});
    const Tensor one = Tensor::ones({1, 32});
    // Half a step for each of 32 products, and for the operand's own codes.
    EXPECT_TRUE(allclose(runtime::compile(q).run({one})[0], runtime::compile(g).run({one})[0], 0,
                         32 * 0.5 / 255 + 0.05));
  }
}

TEST(BlockWeights, GptqLowersTheErrorOfTwoToEightBits) {
  const Graph g = two_linears();
  for (const int bits : {2, 3, 4, 8}) {
    quant::BlockWeightReport report;
    const double nearest = noise_power(
        g, quant::quantize_block_weights(g, {}, {.bits = bits, .block_size = 16, .gptq = false}));
    const double gptq =
        noise_power(g, quant::quantize_block_weights(g, dependent_rows(),
                                                     {.bits = bits, .block_size = 16}, &report));
    EXPECT_LT(gptq, 0.6 * nearest) << bits;
    ASSERT_EQ(report.layers.size(), 2u);
    EXPECT_LT(report.layers[0].error, report.layers[0].nearest_error) << bits;
  }
}

TEST(BlockWeights, OperandsMayBeCodes) {
  const Graph g = two_linears();
  const Graph q = quant::quantize_block_weights(
      g, dependent_rows(),
      {.bits = 4, .block_size = 8, .activation = quant::ObserverFactory("MinMaxObserver")});
  int quantized = 0;
  for (const graph::Node& node : q.nodes()) quantized += node.op == "quantize" ? 1 : 0;
  EXPECT_EQ(quantized, 2);
  EXPECT_LT(noise_power(g, q),
            noise_power(g, quant::quantize_block_weights(
                               g, {}, {.bits = 4, .block_size = 8, .gptq = false})));
}

TEST(BlockWeights, SkippedLayersStayAndBadOptionsAreErrors) {
  const Graph g = two_linears();
  const Graph q = quant::quantize_block_weights(g, {}, {.gptq = false, .skip = {"a"}});
  EXPECT_EQ(q.producer(*q.find("a")).op, "linear");
  EXPECT_EQ(q.producer(q.outputs()[0]).op, "linear_blocks");
  expect_error(ErrorCode::invalid_argument, {"bits 5"},
               [&] { quant::quantize_block_weights(g, {}, {.bits = 5}); });
  expect_error(ErrorCode::invalid_argument, {"block_size 3"},
               [&] { quant::quantize_block_weights(g, {}, {.block_size = 3}); });
  expect_error(ErrorCode::invalid_argument, {"no samples"},
               [&] { quant::quantize_block_weights(g, {}); });
  expect_error(ErrorCode::invalid_argument, {"no linear layer"},
               [&] { quant::quantize_block_weights(g, {}, {.gptq = false, .skip = {"*"}}); });
}

}  // namespace
}  // namespace octet::testing
