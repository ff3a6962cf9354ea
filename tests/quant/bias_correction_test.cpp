#include "octet/quant/algorithms/bias_correction.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "octet/base/random.h"
#include "octet/io/module_file.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/quant/few_bits.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using quant::ObservedGraphModule;

// conv -> relu -> conv without a bias -> mean over positions, and weights of 3 bits.
Graph two_layers() {
  Graph g;
  const Attrs pad{{"padding", std::vector<int64_t>{1, 1, 1, 1}}};
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(6), Dim(6)}));
  const ValueId w1 = g.add_constant("a.weight", Tensor::rand({8, 3, 3, 3}, 1, -0.4, 0.5));
  const ValueId b1 = g.add_constant("a.bias", Tensor::rand({8}, 2, -0.2, 0.4));
  const ValueId w2 = g.add_constant("b.weight", Tensor::rand({5, 8, 3, 3}, 3, -0.5, 0.4));
  ValueId y = g.add_call("a", "conv2d", {x, w1, b1}, pad);
  y = g.add_call("r", "relu", {y});
  y = g.add_call("b", "conv2d", {y, w2}, pad);
  g.set_outputs({y});
  return g;
}

Batches random_batches() {
  Batches batches;
  for (uint64_t i = 0; i < 4; ++i) batches.push_back({Tensor::rand({4, 3, 6, 6}, 10 + i, -1, 2)});
  return batches;
}

// The largest difference between the channels' means of the float and the quantized network's first
// result over all samples.
double mean_error(const Graph& float_graph, ObservedGraphModule& prepared, const Batches& samples) {
  const auto shared = std::static_pointer_cast<ObservedGraphModule>(prepared.clone());
  const runtime::Program a = runtime::compile(float_graph),
                         b = runtime::compile(quant::convert_to_reference_fx(shared)->graph());
  std::vector<double> difference(5, 0.0);
  double worst = 0;
  for (const auto& batch : samples) {
    const auto x = a.run(batch)[0].to_vector<float>(), y = b.run(batch)[0].to_vector<float>();
    for (size_t i = 0; i < x.size(); ++i) difference[i / 36 % 5] += double(x[i]) - double(y[i]);
  }
  for (double d : difference) worst = std::max(worst, std::abs(d) / (16 * 36));
  return worst;
}

TEST(BiasCorrection, MeansOfTheLastLayerAreTheFloatOnes) {
  const Graph g = two_layers();
  const Batches samples = random_batches();
  auto prepared = prepared_with_bits(g, samples, 3);
  const double before = mean_error(g, *prepared, samples);
  quant::correct_bias(*prepared, samples);
  EXPECT_GT(before, 0.1);
  // What is left is the rounding of the result's codes.
  EXPECT_LT(mean_error(g, *prepared, samples), 0.01 * before);
}

// linear(x, [[6/7, 0.4], [6/7, 0.4]]) on codes of 3 bits and a step of 2/7: 6/7 is one of them, 0.4
// becomes 2/7.
std::shared_ptr<ObservedGraphModule> one_layer(const char* activation, const Tensor& x) {
  Graph g;
  const ValueId in = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(2)}));
  const ValueId w =
      g.add_constant("w", Tensor::from<float>({6 / 7.F, 0.4F, 6 / 7.F, 0.4F}, {2, 2}));
  const ValueId b = g.add_constant("b", Tensor::from<float>({0, 0}, {2}));
  ValueId y = g.add_call("y", "linear", {in, w, b});
  if (activation) y = g.add_call("a", activation, {y});
  g.set_outputs({y});
  auto prepared = prepared_with_bits(g, {{x}}, 3);
  prepared->set_weight(activation ? "a" : "y", {}, {-1, -1}, {1, 1});
  return prepared;
}

float corrected_bias(const char* activation, const Tensor& x) {
  const auto prepared = one_layer(activation, x);
  quant::correct_bias(*prepared, {{x}});
  const Graph g = prepared->watched().graph;
  return g.constant(*g.find("b")).to_vector<float>()[0];
}

// The second feature, which alone is rounded, is there where the result is below 0.
TEST(BiasCorrection, WhatAnActivationCutsOffMovesNoBias) {
  const Tensor x = Tensor::from<float>({4, 0, 3, 0, 2, 0, -9, 3, -9, 6}, {5, 2});
  constexpr float kStep = 15.F / 255;  // of the operand, whose rounding is corrected too
  for (const char* activation : {"relu", "relu6"})
    EXPECT_NEAR(corrected_bias(activation, x), 0, kStep) << activation;
  EXPECT_NEAR(corrected_bias(nullptr, x), (0.4F - 2 / 7.F) * 9 / 5, kStep);
}

// It is there where the result is above 0: the mean of these two is what the bias takes back.
TEST(BiasCorrection, WhatAnActivationKeepsMovesTheBias) {
  const Tensor x = Tensor::from<float>({4, 3, 3, 6, -9, 0, -8, 0, -7, 0}, {5, 2});
  constexpr float kStep = 15.F / 255;
  EXPECT_NEAR(corrected_bias("relu", x), (0.4F - 2 / 7.F) * 9 / 2, kStep);
}

// One of two results is beyond the range of its codes, where nothing moves it: a bias that brings
// the mean of both right would only move the other one away.
TEST(BiasCorrection, WhatCodesCutOffMovesNoBias) {
  const Tensor seen = Tensor::from<float>({4, 0, 2, 0}, {2, 2}),
               beyond = Tensor::from<float>({4, 0, 4, 40}, {2, 2});
  const auto prepared = one_layer("relu", seen);
  quant::correct_bias(*prepared, {{beyond}});
  const Graph g = prepared->watched().graph;
  EXPECT_NEAR(g.constant(*g.find("b")).to_vector<float>()[0], 0, 4.F / 255);
}

TEST(BiasCorrection, KeepsWeightsAndFollowsAnotherFloatGraph) {
  const Graph g = two_layers();
  const Batches samples = random_batches();
  auto prepared = prepared_with_bits(g, samples, 3);
  const Graph float_graph = prepared->watched().graph;
  const quant::QParams qparams = prepared->weight_qparams("b");
  // All weights are zero, so the bias has to be the mean.
  prepared->set_weight("b", Tensor::zeros({5, 8, 3, 3}), std::vector<float>(5, -1),
                       std::vector<float>(5, 1));
  quant::correct_bias(*prepared, samples, {.float_graph = float_graph});
  EXPECT_LT(mean_error(g, *prepared, samples), 0.05);  // the step of the result
  EXPECT_NE(prepared->weight_qparams("b").scales, qparams.scales);
}

TEST(BiasCorrection, ALayerGetsTheBiasThatItHadNot) {
  const Batches samples = random_batches();
  auto prepared = prepared_with_bits(two_layers(), samples, 3);
  const size_t ranges = prepared->ranges().find(0) ? 1 : 0;
  quant::correct_bias(*prepared, samples);
  const Graph int8 = quant::convert_fx(prepared)->graph();
  ASSERT_TRUE(int8.find("b"));
  const graph::Node& conv = int8.producer(*int8.find("b"));
  const graph::Node& layer = conv.op == "dequantize" ? int8.producer(conv.inputs[0]) : conv;
  ASSERT_EQ(layer.inputs.size(), 3u);
  EXPECT_EQ(int8.constant(layer.inputs[2]).shape(), Shape{5});
  // What calibration saw is kept under the values' new numbers.
  const Graph watched = prepared->watched().graph;
  EXPECT_EQ(ranges, 1u);
  ASSERT_NE(prepared->ranges().find(*watched.find("x")), nullptr);
  EXPECT_NEAR(prepared->ranges().find(*watched.find("x"))->all().max, 2, 0.1);
}

TEST(BiasCorrection, FilesKeepIt) {
  const Batches samples = random_batches();
  auto prepared = prepared_with_bits(two_layers(), samples, 3);
  prepared->set_weight("r", {}, std::vector<float>(8, -0.3F), std::vector<float>(8, 0.3F));
  quant::correct_bias(*prepared, samples);
  TempDir dir;
  save_model(dir / "prepared.octet", *prepared);
  auto loaded = std::dynamic_pointer_cast<ObservedGraphModule>(load_model(dir / "prepared.octet"));
  ASSERT_TRUE(loaded);
  const auto x = samples[0];
  EXPECT_TRUE(equal(quant::convert_fx(prepared)->forward(x)[0].dequantize(),
                    quant::convert_fx(loaded)->forward(x)[0].dequantize()));
}

TEST(BiasCorrection, RefusesWhatItCannotDo) {
  const Graph g = two_layers();
  auto fresh = quant::prepare_fx(g, quant::get_default_qconfig_mapping());
  expect_error(ErrorCode::not_calibrated, {"saw no data"},
               [&] { quant::correct_bias(*fresh, random_batches()); });
  auto prepared = prepared_with_bits(g, random_batches(), 3);
  expect_error(ErrorCode::invalid_argument, {"correct_bias", "no samples"},
               [&] { quant::correct_bias(*prepared, {}); });
  expect_error(ErrorCode::invalid_argument, {"another network"},
               [&] { quant::correct_bias(*prepared, random_batches(), {.float_graph = Graph()}); });
}

TEST(BiasCorrection, ClippedNormalIsTheIntegral) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (const auto& [mean, deviation, low, high] :
       {std::tuple{0.0, 1.0, 0.0, kInf}, std::tuple{-0.7, 2.0, 0.0, 6.0},
        std::tuple{3.0, 0.5, 0.0, 2.5}, std::tuple{1.0, 1.5, -1.0, 1.0}}) {
    double first = 0, second = 0;
    constexpr int kSteps = 200000;
    for (int i = 0; i < kSteps; ++i) {
      const double z = -10 + 20 * (i + 0.5) / kSteps,
                   p = std::exp(-z * z / 2) / std::sqrt(2 * M_PI) * 20 / kSteps,
                   x = std::clamp(mean + deviation * z, low, high);
      first += p * x;
      second += p * x * x;
    }
    const quant::ClippedNormal got = quant::clipped_normal(mean, deviation, low, high);
    EXPECT_NEAR(got.mean, first, 1e-6) << mean;
    EXPECT_NEAR(got.variance, second - first * first, 1e-5) << mean;
  }
}

TEST(BiasCorrection, AConstantIsClippedToTheRange) {
  for (const auto& [mean, want] : {std::pair{7.0, 6.0}, {-1.0, 0.0}, {3.0, 3.0}}) {
    EXPECT_EQ(quant::clipped_normal(mean, 0, 0, 6).mean, want);
    EXPECT_EQ(quant::clipped_normal(mean, 0, 0, 6).variance, 0);
  }
}

// x -> batch norm of known statistics -> relu -> 1x1 convolution: the shift of the mean is known.
TEST(BiasCorrection, AnalyticFollowsFromBatchNorms) {
  constexpr int64_t kChannels = 4;
  Graph g;
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(kChannels), Dim(3), Dim(3)}));
  const auto per_channel = [&](const char* name, uint64_t seed, double low, double high) {
    return g.add_constant(name, Tensor::rand({kChannels}, seed, low, high));
  };
  const ValueId w0 = g.add_constant("c.weight", Tensor::rand({kChannels, kChannels, 1, 1}, 1));
  ValueId y = g.add_call("c", "conv2d", {x, w0});
  y = g.add_call("n", "batch_norm",
                 {y, per_channel("gamma", 2, 0.5, 2), per_channel("beta", 3, -1, 1),
                  per_channel("mean", 4, -1, 1), per_channel("var", 5, 0.5, 1)});
  y = g.add_call("r", "relu", {y});
  const ValueId w1 = g.add_constant("d.weight", Tensor::rand({6, kChannels, 1, 1}, 6, -1, 1));
  const ValueId b1 = g.add_constant("d.bias", Tensor::rand({6}, 7));
  y = g.add_call("d", "conv2d", {y, w1, b1});
  g.set_outputs({y});
  auto prepared = prepared_with_bits(g, {{Tensor::randn({8, kChannels, 3, 3}, 8)}}, 3);
  const auto report = quant::correct_bias_analytically(*prepared, g);
  EXPECT_EQ(report.corrected, std::vector<std::string>{"d"});
  ASSERT_EQ(report.unknown.size(), 1u);  // the layer that reads the input
  const Graph now = prepared->with_values(prepared->graph());
  for (int64_t o = 0; o < 6; ++o) {
    double expected = g.constant(b1).at({o});
    for (int64_t i = 0; i < kChannels; ++i) {
      const double mean = quant::clipped_normal(g.constant(*g.find("beta")).at({i}),
                                                g.constant(*g.find("gamma")).at({i}), 0,
                                                std::numeric_limits<double>::infinity())
                              .mean;
      const double code =
          std::clamp(std::round(g.constant(w1).at({o, i, 0, 0}) /
                                prepared->weight_qparams("d").scales[static_cast<size_t>(o)]),
                     -4.0, 3.0);
      const double error = code * prepared->weight_qparams("d").scales[static_cast<size_t>(o)] -
                           g.constant(w1).at({o, i, 0, 0});
      expected -= error * mean;
    }
    EXPECT_NEAR(now.constant(*now.find("d.bias")).at({o}), expected, 1e-5);
  }
}

}  // namespace
}  // namespace octet::testing
