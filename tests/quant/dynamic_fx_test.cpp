// Dynamic and weight-only quantization of graphs: which nodes change, and that results are those of
// the modules.
#include "octet/quant/workflow/fx.h"

#include <gtest/gtest.h>

#include "octet/quant/modules/dynamic.h"
#include "octet/quant/workflow/eager.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::quant {
namespace {

using testing::expect_error;

// y = linear(linear(x, w), w) with one weight.
graph::Graph tied(const nn::Linear& layer) {
  graph::Graph g;
  auto x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(layer.weight.size(1))}));
  auto w = g.add_constant("w", layer.weight.detach().clone()),
       b = g.add_constant("b", layer.bias.detach().clone());
  auto y = g.add_call("y", "linear", {x, w, b});
  g.set_outputs({g.add_call("z", "linear", {y, w, b})});
  return g;
}

TEST(DynamicFx, GivesTheModulesBits) {
  nn::ModulePtr layer = nn::make<nn::Linear>(4, 4);
  graph::Graph g = quantize_dynamic_fx(tied(layer->as<nn::Linear>()), default_dynamic_qconfig());
  auto module = quantize_dynamic(layer);
  Tensor x = Tensor::randn({3, 4}, 1);
  Tensor expected = (*module)((*module)(x));
  EXPECT_TRUE(equal(runtime::compile(g).run({x})[0], expected));
}

TEST(DynamicFx, AWeightOfTwoNodesIsQuantizedOnce) {
  graph::Graph g = quantize_dynamic_fx(tied(nn::Linear(4, 4)));
  int weights = 0;
  for (const auto& node : g.nodes())
    weights += node.kind == graph::NodeKind::constant && node.value.is_quantized();
  EXPECT_EQ(weights, 1);
}

TEST(DynamicFx, WeightOnlyIsTheFloatGraphOnDequantizedWeights) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    graph::Graph source = testing::random_net(seed);
    ConversionReport report;
    graph::Graph g;
    try {
      g = quantize_weight_only_fx(source, default_per_channel_weight_observer(), {}, &report);
    } catch (const Error&) {
      continue;  // a net without layers
    }
    Tensor x = Tensor::randn({2, 3, 6, 6}, seed);
    Tensor got = runtime::compile(g).run({x})[0], expected = testing::evaluate(g, {x})[0];
    EXPECT_TRUE(allclose(got, expected, 1e-4, 1e-5)) << seed;  // the order of float sums
    EXPECT_GT(report.quantized(), 0);
  }
}

// Two codes to a byte, in the graph and in its file; the numbers are those of the same codes in
// bytes.
TEST(DynamicFx, LinearWeightsOfFourBitsAreKeptInFour) {
  const graph::Graph source = tied(nn::Linear(40, 40));
  const Tensor x = Tensor::randn({3, 40}, 1);
  const ObserverFactory weight = default_per_channel_weight_observer().with_quant_range(-8, 7);
  for (const bool dynamic : {true, false}) {
    const graph::Graph g = dynamic ? quantize_dynamic_fx(source, {ObserverFactory(), weight})
                                   : quantize_weight_only_fx(source, weight);
    Tensor packed;
    graph::Rewriter rewriter(g);
    const graph::Graph bytes = rewriter.run([&](graph::Rewriter& r, const graph::Node& node) {
      if (node.kind != graph::NodeKind::constant || !node.value.is_quantized()) return false;
      packed = node.value;
      r.map(node.outputs[0],
            r.out().add_constant(
                "bytes", make_quantized(packed.int_repr(), packed.quantizer(), DType::qint8)));
      return true;
    });
    ASSERT_TRUE(packed.defined());
    EXPECT_EQ(packed.dtype(), DType::qint4x2);
    const Tensor y = runtime::compile(g).run({x})[0];
    EXPECT_TRUE(equal(y, runtime::compile(bytes).run({x})[0]));
    EXPECT_TRUE(equal(y, runtime::compile(g, {.engine = "reference"}).run({x})[0]));
    const Tensor expected = runtime::compile(source).run({x})[0];
    EXPECT_FALSE(allclose(y, expected, 1e-3, 1e-3));
    EXPECT_TRUE(allclose(y, expected, 0, 0.3));
  }
}

TEST(DynamicFx, WhatIsSkippedAndWhatCannotBeIsReported) {
  ConversionReport report;
  graph::Graph source = tied(nn::Linear(4, 4));
  quantize_dynamic_fx(source, default_dynamic_qconfig(), {{"y"}, ""}, &report);
  ASSERT_EQ(report.entries.size(), 2u);
  EXPECT_EQ(report.entries[0].reason, "skipped by 'y'");
  EXPECT_TRUE(report.entries[1].quantized);
  expect_error(ErrorCode::invalid_argument,
               {"quantize_dynamic_fx", "nothing in", "y: skipped by '*'"}, [&] {
                 quantize_dynamic_fx(source, default_dynamic_qconfig(), {{"*"}, ""});
               });
}

}  // namespace
}  // namespace octet::quant
