#include "octet/quant/algorithms/distill.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "octet/quant/algorithms/gptq.h"
#include "tests/expect_error.h"
#include "tests/quant/few_bits.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using quant::DistillReport;

// linear -> relu -> linear, and of that what `last` makes ("": nothing).
Graph two_layers(const char* last) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(12)}));
  const auto linear = [&](const char* name, ValueId in, const Shape& shape, uint64_t seed) {
    Tensor w = Tensor::randn(shape, seed);
    for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] *= 0.3F;
    return g.add_call(name, "linear", {in, g.add_constant(std::string(name) + ".weight", w)});
  };
  const ValueId h = g.add_call("h", "relu", {linear("a", x, {16, 12}, 1)});
  const ValueId y = linear("b", h, {6, 16}, 2);
  g.set_outputs({*last ? g.add_call("last", last, {y}, {{"dim", -1}}) : y});
  return g;
}

TEST(Distill, LowersTheErrorOfRounding) {
  const Graph g = two_layers("");
  const Batches samples = mixed({64, 12}, 5);
  auto prepared = prepared_with_bits(g, samples, 3);
  const double before = converted_error(g, prepared, samples);
  const DistillReport report = quant::distill(*prepared, samples, {.batch = 8});
  EXPECT_LT(report.error, 0.6 * report.before);
  EXPECT_LT(converted_error(g, prepared, samples), 0.6 * before);
}

// Their weights are not the float network's any more, which is given.
TEST(Distill, GoesOnWhereRoundingLayerByLayerHasEnded) {
  const Graph g = two_layers("");
  const Batches samples = mixed({64, 12}, 5);
  auto prepared = prepared_with_bits(g, samples, 3);
  const Graph float_graph = prepared->watched().graph;
  // Its biases are left to what follows.
  quant::gptq(*prepared, samples, {.float_graph = float_graph, .correct_bias = false});
  const double before = converted_error(g, prepared, samples);
  const DistillReport report =
      quant::distill(*prepared, samples, {.float_graph = float_graph, .batch = 8});
  EXPECT_LT(report.error, report.before);
  EXPECT_LT(converted_error(g, prepared, samples), before);
}

TEST(Distill, TakesWhatASoftmaxReads) {
  const Graph g = two_layers("softmax");
  const Batches samples = mixed({64, 12}, 7);
  auto prepared = prepared_with_bits(g, samples, 3);
  const double before = converted_error(g, prepared, samples);
  const DistillReport report = quant::distill(*prepared, samples, {.batch = 8});
  EXPECT_LT(report.error, 0.9 * report.before);
  EXPECT_LT(converted_error(g, prepared, samples), before);
}

TEST(Distill, KeepsRangesAndGivesTheSameOnEveryRun) {
  const Graph g = two_layers("");
  const Batches samples = mixed({64, 12}, 9);
  std::vector<std::vector<float>> weights;
  for (int run = 0; run < 2; ++run) {
    auto prepared = prepared_with_bits(g, samples, 4);
    const std::vector<double> scales = prepared->weight_qparams("h").scales;
    quant::distill(*prepared, samples, {.iterations = 30, .batch = 8});
    EXPECT_EQ(prepared->weight_qparams("h").scales, scales);
    const Graph made = quant::convert_fx(prepared)->graph();
    std::vector<float>& all = weights.emplace_back();
    for (const graph::Node& node : made.nodes())
      if (node.kind == graph::NodeKind::constant && node.value.is_quantized())
        for (const float w : node.value.dequantize().to_vector<float>()) all.push_back(w);
  }
  EXPECT_EQ(weights[0], weights[1]);
}

TEST(Distill, LeavesEverythingWhereNothingIsAGain) {
  const Graph g = two_layers("");
  const Batches samples = mixed({64, 12}, 11);
  auto prepared = prepared_with_bits(g, samples, 8);
  const double before = converted_error(g, prepared, samples);
  // Steps so long only make it worse, a fourth of them too.
  const DistillReport report =
      quant::distill(*prepared, samples, {.iterations = 10, .lr = 1e12, .batch = 8});
  EXPECT_EQ(report.error, report.before);
  EXPECT_EQ(converted_error(g, prepared, samples), before);
}

TEST(Distill, OptionsOutOfRangeAreErrors) {
  const Batches samples = mixed({8, 12}, 9);
  auto prepared = prepared_with_bits(two_layers(""), samples, 8);
  expect_error(ErrorCode::invalid_argument, {"lr 0"},
               [&] { quant::distill(*prepared, samples, {.lr = 0}); });
  expect_error(ErrorCode::invalid_argument, {"no samples"}, [&] { quant::distill(*prepared, {}); });
}

}  // namespace
}  // namespace octet::testing
