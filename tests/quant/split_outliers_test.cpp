#include "octet/quant/algorithms/split_outliers.h"

#include <gtest/gtest.h>

#include "octet/quant/tune/recipe.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;

// A convolution and a linear layer, each with one channel whose weights are `times` as large.
Graph network(float times) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(32), 6, 6}));
  Tensor conv = Tensor::rand({24, 32, 3, 3}, 1, -1, 1), linear = Tensor::rand({8, 24}, 2, -1, 1);
  for (int64_t o = 0; o < 24; ++o)
    for (int64_t t = 0; t < 9; ++t) conv.data<float>()[(o * 32 + 5) * 9 + t] *= times;
  for (int64_t o = 0; o < 8; ++o) linear.data<float>()[o * 24 + 7] *= times;
  ValueId y = g.add_call("conv", "conv2d", {x, g.add_constant("conv.weight", conv)},
                         {{"activation", "relu"}}, std::nullopt, "conv");
  y = g.add_call("pool", "adaptive_avg_pool2d", {y});
  y = g.add_call("flat", "flatten", {y});
  g.set_outputs({g.add_call(
      "fc", "linear",
      {y, g.add_constant("fc.weight", linear), g.add_constant("fc.bias", Tensor::randn({8}, 3))},
      {}, std::nullopt, "fc")});
  return g;
}

quant::Batches samples() { return {{Tensor::randn({16, 32, 6, 6}, 5)}}; }

Tensor run(const Graph& g) { return runtime::compile(g).run(samples()[0])[0].dequantize(); }

TEST(SplitOutliers, LargestWeightsAreHalvedAndTheFunctionStays) {
  const Graph g = network(7);
  quant::SplitOutliersReport report;
  const Graph split = quant::split_outliers(g, {.ratio = 0.25}, &report);
  ASSERT_EQ(report.layers.size(), 2u);
  EXPECT_EQ(report.layers[0].layer, "conv");
  // 8 of 32 channels may be split: 7 is, then two of 3.5; four of 1.75 are no outliers any more.
  EXPECT_EQ(report.layers[0].channels, std::vector<int64_t>(3, 5));
  EXPECT_NEAR(report.layers[0].after, report.layers[0].before / 4, 1e-6);
  EXPECT_GT(sqnr(run(g), run(split)), 120) << "what is left is the order of sums";
}

TEST(SplitOutliers, HalvesAreExact) {
  // Small whole numbers: sums are exact in any order.
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(8)}));
  Tensor w = Tensor::rand({5, 8}, 1, -3, 3);
  for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] = std::round(w.data<float>()[i]);
  for (int64_t o = 0; o < 5; ++o) w.data<float>()[o * 8 + 2] = static_cast<float>(25 + o);
  g.set_outputs({g.add_call("y", "linear", {x, g.add_constant("w", w)})});
  quant::SplitOutliersReport report;
  const Graph split = quant::split_outliers(g, {.ratio = 1}, &report);
  EXPECT_EQ(report.layers.at(0).channels.size(), 7u);
  const Tensor in = Tensor::arange(40).to(DType::float32).reshape({5, 8});
  EXPECT_TRUE(equal(runtime::compile(g).run({in})[0], runtime::compile(split).run({in})[0]));
}

TEST(SplitOutliers, AsManyChannelsAsTheRatioAllows) {
  quant::SplitOutliersReport report;
  quant::split_outliers(network(64), {.ratio = 0.125}, &report);
  EXPECT_EQ(report.layers.at(0).channels.size(), 4u);
  EXPECT_EQ(report.layers.at(1).channels.size(), 3u);
  quant::split_outliers(network(64), {.ratio = 1e-3}, &report);
  EXPECT_EQ(report.layers.at(0).channels.size(), 1u) << "one at least";
}

TEST(SplitOutliers, WithoutOutliersTheGraphIsAsItWas) {
  quant::SplitOutliersReport report;
  const Graph g = network(1), split = quant::split_outliers(g, {}, &report);
  EXPECT_TRUE(report.layers.empty());
  EXPECT_EQ(graph::print(split), graph::print(g));
  expect_error(ErrorCode::invalid_argument, {"split_outliers", "ratio"},
               [&] { quant::split_outliers(g, {.ratio = 0}); });
}

// A planted outlier of a weight with one scale: the step of a recipe wins back what it costs.
TEST(SplitOutliers, WinsBackWhatAnOutlierCosts) {
  const Graph g = network(7);
  const Tensor expected = run(g);
  const auto decibels = [&](const std::vector<quant::Recipe::Step>& steps) {
    quant::QConfig q = quant::get_default_qconfig();
    q.weight = quant::weight_observer_range_neg_127_to_127().with_quant_range(-15, 15);
    quant::Recipe recipe{.mapping = q, .steps = steps};
    quant::calibrate(g, recipe, samples());
    return sqnr(expected, run(quant::apply(g, quant::Recipe::from_json(recipe.to_json()))));
  };
  const double without = decibels({}), with = decibels({{"split_outliers", {{"ratio", 0.25}}}});
  EXPECT_GT(with, without + 6) << without;
}

}  // namespace
}  // namespace octet::testing
