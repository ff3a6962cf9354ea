#include "octet/quant/algorithms/smooth_quant.h"

#include <gtest/gtest.h>

#include <cmath>

#include "examples/models/character_transformer.h"
#include "octet/graph/trace.h"
#include "octet/quant/tune/tune.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using Batches = std::vector<std::vector<Tensor>>;

constexpr int64_t kWidth = 48;

// layer_norm -> linear, relu -> linear, and a second linear on the norm; the norm makes four
// features a hundred times as large as the others. Weights are small there.
Graph block_with_outliers() {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(6), Dim(kWidth)}));
  Tensor gamma = Tensor::rand({kWidth}, 1, 0.8, 1.2);
  const auto weight = [&](const char* name, int64_t out, int64_t in, uint64_t seed) {
    Tensor w = Tensor::randn({out, in}, seed);
    for (int64_t i = 0; i < w.numel(); ++i)
      w.data<float>()[i] *= in == kWidth && i % in % 12 == 0 ? 0.002F : 0.2F;
    return g.add_constant(name, w);
  };
  for (int64_t j = 0; j < kWidth; j += 12) gamma.data<float>()[j] *= 100;
  const ValueId n = g.add_call(
      "n", "layer_norm",
      {x, g.add_constant("gamma", gamma), g.add_constant("beta", Tensor::randn({kWidth}, 2))});
  ValueId y = g.add_call(
      "fc1", "linear",
      {n, weight("fc1.weight", 64, kWidth, 3), g.add_constant("fc1.bias", Tensor::randn({64}, 4))});
  y = g.add_call("r", "relu", {y});
  y = g.add_call("fc2", "linear", {y, weight("fc2.weight", 16, 64, 5)});
  const ValueId z = g.add_call("side", "linear", {n, weight("side.weight", 16, kWidth, 6)});
  g.set_outputs({g.add_call("sum", "add", {y, z})});
  return g;
}

Batches token_batches() {
  return {{Tensor::randn({8, 6, kWidth}, 20)}, {Tensor::randn({3, 6, kWidth}, 21)}};
}

void expect_same(const Graph& a, const Graph& b) {
  for (const auto& batch : token_batches())
    EXPECT_TRUE(
        allclose(runtime::compile(a).run(batch)[0], runtime::compile(b).run(batch)[0], 1e-4, 1e-4));
}

double noise_of(const Graph& want, const Graph& got) {
  double sum = 0;
  for (const auto& batch : token_batches()) {
    const auto x = runtime::compile(want).run(batch)[0].to_vector<float>(),
               y = runtime::compile(got).run(batch)[0].dequantize().to_vector<float>();
    for (size_t i = 0; i < x.size(); ++i) sum += std::pow(double(x[i]) - double(y[i]), 2);
  }
  return sum;
}

double int8_noise(const Graph& want, const Graph& g) {
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig_mapping());
  for (const auto& batch : token_batches()) prepared->forward(batch);
  return noise_of(want, quant::convert_fx(prepared)->graph());
}

TEST(SmoothQuant, BothSidesGetTheGeometricMean) {
  const Graph g = block_with_outliers();
  quant::SmoothQuantReport report;
  const Graph smooth = quant::smooth_quant(g, token_batches(), {}, &report);
  expect_same(g, smooth);
  ASSERT_EQ(report.entries.size(), 2u);
  EXPECT_EQ(report.entries[0].source, "n");
  EXPECT_EQ(report.entries[0].layers, (std::vector<std::string>{"fc1", "side"}));
  EXPECT_EQ(report.entries[1].source, "r");
  // With alpha 1/2 the largest value of a feature becomes sqrt(max |x| max |w|), as its weights do.
  std::vector<double> values(kWidth, 0.0), weights(kWidth, 0.0);
  const auto program = runtime::compile(g, {.every_value = true});
  for (const auto& batch : token_batches())
    program.run_watched(batch, {*g.find("n")}, [&](ValueId, const Tensor& t) {
      const auto v = t.contiguous().to_vector<float>();
      for (size_t i = 0; i < v.size(); ++i)
        values[i % kWidth] = std::max<double>(values[i % kWidth], std::abs(v[i]));
    });
  for (const char* name : {"fc1.weight", "side.weight"}) {
    const auto w = g.constant(*g.find(name)).to_vector<float>();
    for (size_t i = 0; i < w.size(); ++i)
      weights[i % kWidth] = std::max<double>(weights[i % kWidth], std::abs(w[i]));
  }
  for (size_t j = 0; j < kWidth; ++j)
    EXPECT_NEAR(report.entries[0].factors[j] / std::sqrt(values[j] / weights[j]), 1, 1e-3) << j;
}

TEST(SmoothQuant, WinsBackWhatOutliersCost) {
  const Graph g = block_with_outliers();
  const double plain = int8_noise(g, g),
               smooth = int8_noise(g, quant::smooth_quant(g, token_batches()));
  EXPECT_LT(smooth, 0.1 * plain);
}

TEST(SmoothQuant, LeavesValuesThatOthersRead) {
  Graph g = block_with_outliers();
  g.set_outputs({g.outputs()[0], *g.find("n")});
  quant::SmoothQuantReport report;
  quant::smooth_quant(g, token_batches(), {}, &report);
  ASSERT_EQ(report.entries.size(), 1u);
  EXPECT_EQ(report.entries[0].source, "r");
  expect_error(ErrorCode::invalid_argument, {"no samples"}, [&] { quant::smooth_quant(g, {}); });
  expect_error(ErrorCode::invalid_argument, {"alpha"},
               [&] { quant::smooth_quant(g, token_batches(), {.alpha = 1.5}); });
}

// The same function with two features of each layer norm 200 times as large.
Graph with_planted_outliers(Graph g) {
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const graph::Node node = g.node(static_cast<graph::NodeId>(i));
    if (node.kind != graph::NodeKind::call || node.op != "layer_norm") continue;
    const auto multiply = [&](ValueId constant, float factor) {
      graph::Node& holder = g.node(g.value(constant).producer);
      Tensor t = holder.value.clone();
      const int64_t features = t.size(t.dim() - 1);
      for (int64_t j = 0; j < t.numel(); ++j)
        if (j % features == 3 || j % features == 17) t.data<float>()[j] *= factor;
      holder.value = t;
    };
    multiply(node.inputs[1], 200);
    multiply(node.inputs[2], 200);
    for (const graph::NodeId reader : g.users(node.outputs[0]))
      multiply(g.node(reader).inputs[1], 1.F / 200);
  }
  return g;
}

TEST(SmoothQuant, WinsBackThePerplexityThatPlantedOutliersCost) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "the quick brown fox jumps over the lazy dog; ";
  const std::vector<int64_t> codes = models::character_codes(text);
  manual_seed(1);
  auto model = nn::make<models::CharacterTransformer>(
      models::CharacterTransformerOptions{.hidden = 32, .layers = 2, .heads = 2, .steps = 16});
  models::train_on_text(*model, codes, 100, 8, 1e-2);
  model->eval();
  const Graph g =
      graph::trace(*model, {TensorType(DType::int64, {Dim("N"), Dim(16)})}, {.into_layers = true})
          ->graph();
  const auto samples = models::CharacterSamples::spread(codes, 64, 16);
  const Batches batches{{samples.characters}};
  const quant::TuneMetric metric = quant::perplexity_metric({samples.next});
  const auto perplexity = [&](const Graph& network) {
    return -metric.score({}, {runtime::compile(network).run(batches[0])});
  };
  const auto int8 = [&](const Graph& network) {
    quant::QConfig q = quant::get_default_qconfig();
    q.activation = quant::ObserverFactory("MinMaxObserver");
    // A mask's -infinity has no codes.
    auto prepared =
        quant::prepare_fx(network, quant::QConfigMapping().set_object_type("linear", q));
    prepared->forward(batches[0]);
    return perplexity(quant::convert_fx(prepared)->graph());
  };
  const Graph planted = with_planted_outliers(g);
  const double whole = perplexity(planted), lost = int8(planted) - whole,
               left = int8(quant::smooth_quant(planted, batches)) - whole;
  EXPECT_NEAR(whole, perplexity(g), 1e-3 * whole);
  EXPECT_GT(lost, 0.05);
  EXPECT_LT(left, 0.1 * lost);
}

TEST(AWQ, LowersTheErrorOfFewBits) {
  const Graph g = block_with_outliers();
  quant::SmoothQuantReport report;
  const Graph scaled = quant::awq(g, token_batches(), {.bits = 4}, &report);
  expect_same(g, scaled);
  EXPECT_EQ(report.entries.size(), 2u);
  const auto four_bits = [&](const Graph& graph) {
    return noise_of(
        g, quant::quantize_weight_only_fx(
               graph, quant::default_per_channel_weight_observer().with_quant_range(-7, 7)));
  };
  EXPECT_LT(four_bits(scaled), 0.7 * four_bits(g));
  expect_error(ErrorCode::invalid_argument, {"bits"},
               [&] { quant::awq(g, token_batches(), {.bits = 1}); });
}

}  // namespace
}  // namespace octet::testing
