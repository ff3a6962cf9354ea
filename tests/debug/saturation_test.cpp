// The forecast of sums in 16 bits: against the instruction itself where the CPU has it, against
// sums written out, and against ONNX Runtime on AVX2 (saturation_ort_test.cpp).
#include "octet/debug/saturation.h"

#include <gtest/gtest.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cmath>
#include <limits>

#include "octet/base/cpu.h"
#include "octet/base/random.h"
#include "octet/engine/registry.h"
#include "tests/engine/random_calls.h"

namespace octet::testing {
namespace {

#if defined(__x86_64__)
// 32 bytes: vpmaddubsw, vpmaddwd with ones, and the sum of the eight.
__attribute__((target("avx2"))) int64_t by_instruction(const uint8_t* x, const int8_t* w) {
  const __m256i pairs =
      _mm256_maddubs_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)),
                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
  int32_t sums[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums),
                      _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  int64_t sum = 0;
  for (int32_t s : sums) sum += s;
  return sum;
}

TEST(Saturation, TheSumIsThatOfTheInstruction) {
  if (!cpu_supports(Isa::avx2)) GTEST_SKIP() << "no AVX2";
  Random random(1);
  int64_t cut = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<uint8_t> x(32);
    std::vector<int8_t> w(32);
    const bool extreme = i % 2;
    for (size_t k = 0; k < 32; ++k) {
      x[k] = static_cast<uint8_t>(random.integer(extreme ? 200 : 0, 255));
      w[k] = static_cast<int8_t>(extreme ? random.integer(0, 1) ? 127 - random.integer(0, 9)
                                                                : -128 + random.integer(0, 9)
                                         : random.integer(-128, 127));
    }
    ASSERT_EQ(debug::saturating_dot(x, w, cut), by_instruction(x.data(), w.data()));
  }
  EXPECT_GT(cut, 1000);
}
#endif

TEST(Saturation, OnlyPairsBeyond16BitsAreCut) {
  int64_t cut = 0;
  const std::vector<uint8_t> x{255, 255, 255};
  EXPECT_EQ(debug::saturating_dot(x, std::vector<int8_t>{127, 127, 127}, cut), 32767 + 255 * 127);
  EXPECT_EQ(cut, 1);
  EXPECT_EQ(debug::saturating_dot(x, std::vector<int8_t>{-128, -128, -128}, cut),
            -32768 - 255 * 128);
  EXPECT_EQ(cut, 2);
  EXPECT_EQ(debug::saturating_dot(x, std::vector<int8_t>{127, -128, 1}, cut), 0);  // -255 + 255
  EXPECT_EQ(debug::saturating_dot(x, std::vector<int8_t>{64, 64, 1}, cut), 255 * 128 + 255);
  EXPECT_EQ(cut, 2);
}

// A quantized layer with weights of at most `most`, a graph of its own.
struct OneLayer {
  graph::Graph graph;
  Tensor x, weight;
};

OneLayer layer(Generator& g, bool linear, int8_t most, bool transposed = false) {
  OneLayer r;
  const int64_t groups = linear || g.chance(0.5) ? 1 : 2;
  const int64_t in = groups * g.integer(2, 5), out = groups * g.integer(1, 4);
  const int64_t kh = g.integer(1, 3), kw = g.integer(1, 3);
  const DType x_type = g.dtype();
  const Shape x_shape = linear ? Shape{3, in} : Shape{2, in, 6, 5};
  const Shape w_shape = linear       ? Shape{out, in}
                        : transposed ? Shape{in, out / groups, kh, kw}
                                     : Shape{out, in / groups, kh, kw};
  r.x = g.activation(x_shape, x_type);
  r.weight = Tensor::empty(w_shape, DType::qint8, Quantizer::per_tensor(0.02, 0, DType::qint8));
  for (int64_t i = 0; i < r.weight.numel(); ++i)
    static_cast<int8_t*>(r.weight.raw_data())[i] = static_cast<int8_t>(g.integer(-most, most));
  graph::Graph& graph = r.graph;
  const auto x = graph.add_input("x", r.x.type());
  std::vector<graph::ValueId> operands{x, graph.add_constant("w", r.weight),
                                       graph.add_constant("b", Tensor::rand({out}, 3, -9, 9))};
  Attrs attrs{{"activation", g.activation_name()}};
  if (!linear) {
    attrs.set("groups", groups);
    attrs.set("stride", std::vector<int64_t>{g.integer(1, 2), g.integer(1, 2)});
    if (!transposed)
      attrs.set("padding", std::vector<int64_t>{g.integer(0, 1), 0, 1, g.integer(0, 1)});
  }
  graph.set_outputs({graph.add_call("y",
                                    linear       ? "linear"
                                    : transposed ? "conv_transpose2d"
                                                 : "conv2d",
                                    operands, attrs, g.result(g.dtype()))});
  return r;
}

TEST(Saturation, LayersWhosePairsFitAreExact) {
  debug::forecast_saturation(runtime::compile(graph::Graph()), {});  // registers the engine
  int taken = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Generator g(seed);
    const OneLayer l = layer(g, seed % 3 == 0, 64, seed % 3 == 1);
    const runtime::Program exact = runtime::compile(l.graph, {.engine = "native"}),
                           other = runtime::compile(l.graph, {.engine = "saturating16"});
    for (const runtime::StepInfo& step : other.steps()) taken += step.engine == "saturating16";
    EXPECT_TRUE(equal(exact.run({l.x})[0], other.run({l.x})[0])) << "seed " << seed;
    const debug::SaturationReport r = debug::forecast_saturation(exact, {{l.x}});
    for (const debug::SaturationForecast& f : r.layers) {
      EXPECT_EQ(f.risky_pairs, 0);
      EXPECT_FALSE(f.saturates());
      EXPECT_EQ(f.error.noise(), 0);
    }
  }
  EXPECT_EQ(taken, 60);
}

TEST(Saturation, ConvolutionsPairNeighbouringChannelsOfAPosition) {
  // 2 x 2 window, 3 channels: 12 products, pairs (0 1)(2 | 0)(1 2) ... across positions.
  graph::Graph graph;
  Tensor codes =
      Tensor::empty({1, 3, 2, 2}, DType::quint8, Quantizer::per_tensor(1, 0, DType::quint8));
  Tensor weight =
      Tensor::empty({1, 3, 2, 2}, DType::qint8, Quantizer::per_tensor(1, 0, DType::qint8));
  auto* q = static_cast<uint8_t*>(codes.raw_data());
  auto* w = static_cast<int8_t*>(weight.raw_data());
  Random random(5);
  for (int i = 0; i < 12; ++i) {
    q[i] = static_cast<uint8_t>(random.integer(150, 255));
    w[i] = static_cast<int8_t>(random.integer(60, 127));
  }
  int64_t sum = 0, cut = 0, exact = 0;
  int32_t products[12];
  for (int position = 0; position < 4; ++position)
    for (int c = 0; c < 3; ++c) {
      products[position * 3 + c] = q[c * 4 + position] * w[c * 4 + position];
      exact += products[position * 3 + c];
    }
  for (int i = 0; i < 12; i += 2) {
    const int32_t pair = products[i] + products[i + 1];
    cut += pair > 32767;
    sum += std::min(pair, 32767);
  }
  ASSERT_GT(cut, 0);
  const auto in = graph.add_input("x", codes.type());
  graph.set_outputs(
      {graph.add_call("y", "conv2d", {in, graph.add_constant("w", weight), graph::kNone}, {},
                      ops::QType{DType::quint8, Quantizer::per_tensor(2000, 0, DType::quint8)})});
  const runtime::Program program = runtime::compile(graph, {.engine = "native"});
  const debug::SaturationReport r = debug::forecast_saturation(program, {{codes}});
  ASSERT_EQ(r.layers.size(), 1u);
  EXPECT_EQ(r.layers[0].weight_pairs, 6);
  EXPECT_EQ(r.layers[0].sums, 6);
  EXPECT_EQ(r.layers[0].saturated, cut);
  const double moved = std::nearbyint(static_cast<float>(exact) / 2000.0f) -
                       std::nearbyint(static_cast<float>(sum) / 2000.0f);
  EXPECT_EQ(r.layers[0].most_steps, moved);
  EXPECT_EQ(r.outputs.at(0).error.max_abs_error(), moved * 2000);
}

TEST(Saturation, RiskIsCountedInTheWeightsAlone) {
  graph::Graph graph;
  const auto in = graph.add_input(
      "x", TensorType(DType::quint8, Shape{1, 5}, Quantizer::per_tensor(1, 0, DType::quint8)));
  Tensor weight = Tensor::empty({2, 5}, DType::qint8, Quantizer::per_tensor(1, 0, DType::qint8));
  const int8_t w[10] = {127, 2, 64, 64, 127, 100, 29, -128, -1, 127};
  std::copy_n(w, 10, static_cast<int8_t*>(weight.raw_data()));
  graph.set_outputs(
      {graph.add_call("y", "linear", {in, graph.add_constant("w", weight)}, {},
                      ops::QType{DType::quint8, Quantizer::per_tensor(9, 0, DType::quint8)})});
  const debug::SaturationReport r =
      debug::forecast_saturation(runtime::compile(graph, {.engine = "native"}), {});
  ASSERT_EQ(r.layers.size(), 1u);
  // 255 * (127 + 2), 255 * (100 + 29) and 255 * -129 leave 16 bits; 255 * 128 does not, and the
  // fifth has no neighbour.
  EXPECT_EQ(r.layers[0].weight_pairs, 6);
  EXPECT_EQ(r.layers[0].risky_pairs, 3);
  EXPECT_TRUE(r.layers[0].saturates());
  EXPECT_EQ(r.layers[0].sums, 0);
}

TEST(Saturation, DynamicLayersSaturateLikeStaticOnes) {
  graph::Graph graph;
  const auto in = graph.add_input("x", TensorType(DType::float32, Shape{1, 2}));
  Tensor weight = Tensor::empty({1, 2}, DType::qint8, Quantizer::per_tensor(1, 0, DType::qint8));
  std::fill_n(static_cast<int8_t*>(weight.raw_data()), 2, 127);
  graph.set_outputs({graph.add_call("y", "linear_dynamic", {in, graph.add_constant("w", weight)})});
  const debug::SaturationReport r = debug::forecast_saturation(
      runtime::compile(graph, {.engine = "native"}), {{Tensor::ones({1, 2})}});
  ASSERT_EQ(r.layers.size(), 1u);
  EXPECT_EQ(r.layers[0].saturated, 1);
  EXPECT_NEAR(r.layers[0].error.max_abs_error(), (2 * 255 * 127 - 32767) / 255.0, 1e-3);
}

}  // namespace
}  // namespace octet::testing
