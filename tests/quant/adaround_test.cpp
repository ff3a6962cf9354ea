#include "octet/quant/algorithms/adaround.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/quant/algorithms/blocks_impl.h"
#include "octet/quant/algorithms/gptq.h"
#include "octet/quant/algorithms/reconstruction_impl.h"
#include "octet/quant/algorithms/soft_codes_impl.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/quant/few_bits.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using quant::AdaRoundReport;
using quant::ObservedGraphModule;

Graph one_linear() {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(6)}));
  g.set_outputs(
      {g.add_call("y", "linear", {x, g.add_constant("y.weight", Tensor::randn({8, 6}, 1))})});
  return g;
}

// conv -> relu -> [conv -> relu -> conv, + what went in, relu] -> conv.
Graph residual_net() {
  Graph g;
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(8), Dim(8)}));
  const auto conv = [&](const char* name, ValueId in, int64_t out, int64_t channels,
                        uint64_t seed) {
    Tensor w = Tensor::randn({out, channels, 3, 3}, seed);
    for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] *= 0.2F;
    return g.add_call(name, "conv2d", {in, g.add_constant(std::string(name) + ".weight", w)},
                      {{"padding", std::vector<int64_t>{1, 1, 1, 1}}});
  };
  const ValueId a = g.add_call("ra", "relu", {conv("a", x, 8, 3, 1)});
  const ValueId b = g.add_call("rb", "relu", {conv("b", a, 8, 8, 2)});
  const ValueId s = g.add_call("s", "add", {conv("c", b, 8, 8, 3), a});
  g.set_outputs({conv("d", g.add_call("rs", "relu", {s}), 4, 8, 4)});
  return g;
}

TEST(SoftCodes, BeginWhereTheWeightIsAndEndOnCodes) {
  const Tensor w = Tensor::from(std::vector<float>{0.26F, -0.14F, 0.9F, -5.F}, {2, 2});
  const Tensor scale = Tensor::full({2, 1}, 0.5), lo = Tensor::full({2, 1}, -4.0),
               hi = Tensor::full({2, 1}, 3.0);
  quant::SoftCodes soft(w, scale, lo, hi, false);
  soft.update();
  // -5 lies beyond the last code, -4.
  EXPECT_TRUE(allclose(soft.weight().slice(0, 0, 1), w.slice(0, 0, 1), 0, 1e-6));
  EXPECT_NEAR(soft.weight().at({1, 1}), -2, 0.02);
  EXPECT_EQ(soft.codes().to_vector<float>(), (std::vector<float>{1, 0, 2, -4}));
  // 1 - |2r - 1|^2 of r = 0.52, 0.72, 0.8 and 0.02.
  double penalty = 0;
  for (const double r : {0.52, 0.72, 0.8, 0.02}) penalty += 1 - std::pow(2 * r - 1, 2);
  EXPECT_NEAR(soft.penalty(2).item(), penalty, 1e-4);
}

TEST(SoftCodes, OfAWeightOnItsCodeTheOtherOneIsTheOneAbove) {
  const Tensor codes = Tensor::from(std::vector<float>{2}, {1, 1}),
               scale = Tensor::full({1, 1}, 0.5), lo = Tensor::full({1, 1}, -4.0),
               hi = Tensor::full({1, 1}, 3.0);
  quant::SoftCodes soft(codes, Tensor::full({1, 1}, 1.0), scale, lo, hi, false);
  soft.update();
  EXPECT_GT(soft.weight().item(), 1.0);
  EXPECT_LT(soft.weight().item(), 1.02);
  EXPECT_EQ(soft.codes().item(), 2);
}

// Of six weights of one output, each code below or above can be tried.
TEST(AdaRound, FindsNearlyTheBestOfAllRoundings) {
  const Batches samples = mixed({64, 6}, 5);
  const Graph g = one_linear();
  auto prepared = prepared_with_bits(g, samples, 3);
  const AdaRoundReport report = quant::adaround(*prepared, samples);
  ASSERT_EQ(report.entries.size(), 1u);
  const quant::QParams q = prepared->weight_qparams("y");
  const auto run = prepared_with_bits(g, samples, 3);
  double best_of_all = 0;
  quant::for_each_layer(*run, samples, {}, "test", [&](const quant::LayerStep& step) {
    const auto problem = quant::make_problems(step, quant::choose_rows(step, 1 << 20), 0.01).at(0);
    for (int64_t o = 0; o < 8; ++o) {
      const double scale = q.scales[static_cast<size_t>(o)];
      double best = INFINITY;
      for (int choice = 0; choice < 64; ++choice) {
        double e[6], sum = 0;
        for (int64_t j = 0; j < 6; ++j) {
          const double w = problem.w.at({o, j});
          e[j] = w - scale * std::clamp(std::floor(w / scale) + (choice >> j & 1), -4.0, 3.0);
        }
        for (int64_t i = 0; i < 6; ++i)
          for (int64_t j = 0; j < 6; ++j) sum += e[i] * e[j] * problem.h.at({i, j});
        best = std::min(best, sum);
      }
      best_of_all += best;
    }
  });
  EXPECT_LT(report.entries[0].error, 1.05 * best_of_all);
  EXPECT_LT(best_of_all, 0.9 * report.entries[0].before);
}

TEST(AdaRound, BlocksEndWhereOneValueGoesOn) {
  const Batches samples = mixed({4, 3, 8, 8}, 2);
  const auto prepared = prepared_with_bits(residual_net(), samples, 3);
  std::vector<std::vector<std::string>> blocks;
  quant::for_each_block(*prepared, samples, 16, {}, "test", [&](const quant::BlockStep& step) {
    auto& names = blocks.emplace_back();
    for (const quant::PreparedLayer* layer : step.layers) names.push_back(layer->label);
    EXPECT_EQ(step.inputs.size(), samples.size());
  });
  EXPECT_EQ(blocks, (std::vector<std::vector<std::string>>{{"ra"}, {"rb", "c"}, {"d"}}));
}

TEST(AdaRound, LayersAndBlocksLowerTheErrorOfTheNetwork) {
  const Graph g = residual_net();
  const Batches samples = mixed({8, 3, 8, 8}, 3);
  auto nearest = prepared_with_bits(g, samples, 3);
  const double before = converted_error(g, nearest, samples);
  auto layers = prepared_with_bits(g, samples, 3);
  quant::adaround(*layers, samples, {.iterations = 200});
  const double by_layers = converted_error(g, layers, samples);
  EXPECT_LT(by_layers, 0.6 * before);
  auto blocks = prepared_with_bits(g, samples, 3);
  const Graph float_graph = blocks->watched().graph;
  quant::gptq(*blocks, samples, {.float_graph = float_graph});
  const auto report =
      quant::adaround(*blocks, samples,
                      {.float_graph = float_graph, .blocks = true, .iterations = 100, .batch = 8});
  ASSERT_EQ(report.entries.size(), 3u);
  for (const auto& entry : report.entries) EXPECT_LE(entry.error, entry.before);
  EXPECT_LT(report.entries[1].error, report.entries[1].before);
  EXPECT_LT(converted_error(g, blocks, samples), by_layers);
}

TEST(AdaRound, LearnedScalesLowerTheErrorOfOneScalePerRow) {
  const Batches samples = mixed({64, 6}, 9);
  auto fixed = prepared_with_bits(one_linear(), samples, 3),
       learned = prepared_with_bits(one_linear(), samples, 3);
  const double a = quant::adaround(*fixed, samples).entries[0].error,
               b = quant::adaround(*learned, samples, {.learn_scales = true}).entries[0].error;
  EXPECT_LT(b, a);
}

TEST(AdaRound, OptionsOutOfRangeAreErrors) {
  const Batches samples = mixed({8, 6}, 9);
  auto prepared = prepared_with_bits(one_linear(), samples, 3);
  expect_error(ErrorCode::invalid_argument, {"lr"},
               [&] { quant::adaround(*prepared, samples, {.lr = 0}); });
  expect_error(ErrorCode::invalid_argument, {"no samples"},
               [&] { quant::adaround(*prepared, {}); });
}

}  // namespace
}  // namespace octet::testing
