#include "octet/quant/algorithms/gptq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/io/module_file.h"
#include "octet/quant/algorithms/reconstruction_impl.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/quant/few_bits.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using quant::ObservedGraphModule;

Graph linear_net(int64_t in, int64_t out) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(in)}));
  g.set_outputs({g.add_call("y", "linear",
                            {x, g.add_constant("y.weight", Tensor::randn({out, in}, 1)),
                             g.add_constant("y.bias", Tensor::randn({out}, 2))})});
  return g;
}

// A depthwise convolution between two others, the first with stride and dilation.
Graph conv_net() {
  Graph g;
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(12), Dim(12)}));
  const auto weight = [&](const char* name, const Shape& shape, uint64_t seed) {
    return g.add_constant(name, Tensor::randn(shape, seed));
  };
  ValueId y = g.add_call("a", "conv2d", {x, weight("a.weight", {8, 3, 3, 3}, 1)},
                         {{"padding", std::vector<int64_t>{1, 1, 1, 1}},
                          {"stride", std::vector<int64_t>{2, 1}},
                          {"dilation", std::vector<int64_t>{1, 2}}});
  y = g.add_call("ra", "relu", {y});
  y = g.add_call("b", "conv2d", {y, weight("b.weight", {8, 1, 3, 3}, 2), weight("b.bias", {8}, 3)},
                 {{"groups", int64_t{8}}});
  y = g.add_call("c", "conv2d", {y, weight("c.weight", {6, 4, 1, 1}, 4)}, {{"groups", int64_t{2}}});
  g.set_outputs({y});
  return g;
}

TEST(GPTQ, CholeskyAndItsSolutionAreTheTextbooks) {
  constexpr int64_t kSize = 150;  // more than two blocks
  const Tensor a = Tensor::randn({400, kSize}, 1);
  const Tensor h = ops::call("matmul", {a.transpose(0, 1).contiguous(), a});
  const Tensor l = quant::cholesky(h);
  EXPECT_EQ(l.at({3, 4}), 0);
  EXPECT_TRUE(allclose(ops::call("matmul", {l, l.transpose(0, 1).contiguous()}), h, 1e-4, 1e-2));
  const Tensor x = Tensor::randn({5, kSize}, 2);
  EXPECT_TRUE(allclose(quant::solve_cholesky(l, ops::call("matmul", {x, h})), x, 1e-3, 1e-3));
}

// Of one output with four weights of 3 bits all 4096 codes can be tried.
TEST(GPTQ, IsCloseToTheBestOfAllCodes) {
  const Batches samples = mixed({64, 4}, 5);
  const Graph g = linear_net(4, 8);
  auto prepared = prepared_with_bits(g, samples, 3);
  const auto report = quant::gptq(*prepared, samples, {.damping = 1e-6, .learn_scales = 0});
  ASSERT_EQ(report.layers.size(), 1u);
  EXPECT_LT(report.layers[0].error, report.layers[0].nearest_error);
  const quant::QParams q = prepared->weight_qparams("y");
  const Tensor w = g.constant(*g.find("y.weight"));
  double best_of_all = 0;
  std::vector<double> mean(4, 0.0), h(16, 0.0);
  double n = 0;
  for (const auto& batch : samples) {
    const auto values = batch[0].to_vector<float>();
    for (size_t i = 0; i < values.size(); i += 4, ++n)
      for (size_t a = 0; a < 4; ++a) {
        mean[a] += values[i + a];
        for (size_t b = 0; b < 4; ++b) h[a * 4 + b] += double(values[i + a]) * values[i + b];
      }
  }
  for (size_t a = 0; a < 4; ++a)
    for (size_t b = 0; b < 4; ++b) h[a * 4 + b] = h[a * 4 + b] / n - mean[a] * mean[b] / n / n;
  for (int64_t o = 0; o < 8; ++o) {
    double best = 1e30;
    for (int code = 0; code < 4096; ++code) {
      double e[4], sum = 0;
      for (int64_t a = 0; a < 4; ++a)
        e[a] = w.at({o, a}) - ((code >> (3 * a) & 7) - 4) * q.scales[static_cast<size_t>(o)];
      for (size_t a = 0; a < 4; ++a)
        for (size_t b = 0; b < 4; ++b) sum += e[a] * h[a * 4 + b] * e[b];
      best = std::min(best, sum);
    }
    best_of_all += best;
  }
  EXPECT_LT(report.layers[0].error, 1.2 * best_of_all);
  EXPECT_GT(report.layers[0].error, 0.95 * best_of_all);  // x' is x but for its codes
}

TEST(GPTQ, EveryPartOfItLowersTheError) {
  const Batches samples = mixed({32, 96}, 7);
  const Graph g = linear_net(96, 24);
  auto nearest = prepared_with_bits(g, samples, 4);
  const double plain = converted_error(g, nearest, samples);
  double last = plain;
  for (const auto& [sweeps, scales] : {std::pair{0, 0}, {20, 0}, {20, 3}}) {
    auto prepared = prepared_with_bits(g, samples, 4);
    quant::gptq(*prepared, samples, {.sweeps = sweeps, .learn_scales = scales});
    const double error = converted_error(g, prepared, samples);
    EXPECT_LT(error, last) << sweeps << " " << scales;
    last = error;
  }
  EXPECT_LT(last, 0.35 * plain);
}

TEST(GPTQ, ConversionKeepsTheWeights) {
  for (bool per_channel : {true, false}) {
    const Graph g = conv_net();
    const Batches samples = mixed({4, 3, 12, 12}, 9);
    auto prepared = prepared_with_bits(g, samples, 3, per_channel);
    const double before = converted_error(g, prepared, samples);
    const auto report = quant::gptq(*prepared, samples);
    EXPECT_EQ(report.layers.size(), 3u);
    EXPECT_TRUE(report.skipped.empty());
    const Graph now = prepared->watched().graph, int8 = quant::convert_fx(prepared)->graph();
    for (const char* name : {"a.weight", "b.weight", "c.weight"}) {
      const Tensor& codes = int8.constant(*int8.find(name));
      EXPECT_TRUE(equal(codes.dequantize(), now.constant(*now.find(name)))) << name;
      for (int8_t c : codes.int_repr().to_vector<int8_t>()) EXPECT_LE(std::abs(c), 4) << name;
    }
    EXPECT_LT(converted_error(g, prepared, samples), 0.7 * before);
    // Calibrating once more, and a file, change no weight.
    prepared->forward(samples[0]);
    TempDir dir;
    save_model(dir / "p.octet", *prepared);
    auto loaded = std::dynamic_pointer_cast<ObservedGraphModule>(load_model(dir / "p.octet"));
    ASSERT_TRUE(loaded);
    const Graph again = quant::convert_fx(loaded)->graph();
    for (const char* name : {"a.weight", "b.weight", "c.weight"})
      EXPECT_TRUE(equal(again.constant(*again.find(name)), int8.constant(*int8.find(name))));
  }
}

TEST(GPTQ, MendsWhatEarlierLayersLost) {
  // Two linear layers; the first's weights are 2 bits, the second's target is the float result.
  Graph g = linear_net(16, 16);
  const ValueId r = g.add_call("r", "relu", {g.outputs()[0]});
  g.set_outputs(
      {g.add_call("z", "linear", {r, g.add_constant("z.weight", Tensor::randn({4, 16}, 3))})});
  const Batches samples = mixed({256, 16}, 11);
  auto both = prepared_with_bits(g, samples, 3);
  quant::gptq(*both, samples);
  // The same without a view of the quantized network's operands.
  auto apart = prepared_with_bits(g, samples, 3);
  quant::gptq(*apart, samples, {.damping = 1e6, .learn_scales = 0, .correct_bias = false});
  EXPECT_LT(converted_error(g, both, samples), 0.6 * converted_error(g, apart, samples));
}

// Groups with many columns call operators that run on oneDNN, whose threads wait for each other.
TEST(GPTQ, LargeGroupsFinish) {
  Graph g;
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(64), Dim(12), Dim(12)}));
  g.set_outputs(
      {g.add_call("y", "conv2d", {x, g.add_constant("y.weight", Tensor::randn({64, 32, 3, 3}, 1))},
                  {{"groups", int64_t{2}}})});
  const Batches samples = mixed({8, 64, 12, 12}, 3);
  auto prepared = prepared_with_bits(g, samples, 4);
  const double before = converted_error(g, prepared, samples);
  quant::gptq(*prepared, samples);
  EXPECT_LT(converted_error(g, prepared, samples), before);
}

TEST(GPTQ, TransposedConvolutionsAreSkippedWithTheirBiasCorrected) {
  Graph g;
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(5), Dim(5)}));
  g.set_outputs({g.add_call("t", "conv_transpose2d",
                            {x, g.add_constant("t.weight", Tensor::randn({3, 4, 3, 3}, 1))})});
  const Batches samples = mixed({4, 3, 5, 5}, 2);
  auto prepared = prepared_with_bits(g, samples, 3);
  const auto report = quant::gptq(*prepared, samples);
  EXPECT_EQ(report.skipped, std::vector<std::string>{"t"});
  EXPECT_TRUE(prepared->graph().find("t.bias"));
}

}  // namespace
}  // namespace octet::testing
