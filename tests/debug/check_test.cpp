// What is said of a float graph before it is quantized.
#include "octet/debug/check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/expect_error.h"

namespace octet::debug {
namespace {

using graph::Graph;
using testing::expect_error;

Graph net(const std::map<std::string, Tensor>& constants = {}) {
  std::map<std::string, Tensor> all{{"w", Tensor::randn({8, 3, 3, 3}, 1)},
                                    {"b", Tensor::randn({8}, 2)},
                                    {"v", Tensor::randn({5, 8}, 3)}};
  for (const auto& [name, value] : constants) all[name] = value;
  return graph::parse(
      "graph net {\n"
      "  %x: Float(N, 3, 8, 8) = input\n"
      "  %w: Float(8, 3, 3, 3) = constant\n"
      "  %b: Float(8) = constant\n"
      "  %v: Float(5, 8) = constant\n"
      "  %c: Float(N, 8, 6, 6) = conv2d(%x, %w, %b)  @ conv\n"
      "  %r: Float(N, 8, 6, 6) = relu(%c)  @ act\n"
      "  %p: Float(N, 8, 1, 1) = adaptive_avg_pool2d(%r, output_size=[1, 1])  @ pool\n"
      "  %f: Float(N, 8) = flatten(%p, start_dim=1)  @ flat\n"
      "  %l: Float(N, 5) = linear(%f, %v, none)  @ fc\n"
      "  %e: Float(N, 5) = exp(%l)  @ big\n"
      "  return (%e)\n"
      "}\n",
      all);
}

const std::vector<Tensor> kSample{Tensor::randn({1, 3, 8, 8}, 7)};

// The tensor with one value changed.
Tensor with(const Tensor& t, int64_t at, float value) {
  Tensor changed = t.clone();
  changed.data<float>()[at] = value;
  return changed;
}

std::string lines(const std::vector<std::string>& texts) {
  return fmt::format("{}", fmt::join(texts, "\n"));
}

const CheckedKind& kind_of(const Check& c, const std::string& op) {
  for (const CheckedKind& kind : c.kinds)
    if (kind.op == op) return kind;
  throw std::runtime_error("no " + op);
}

TEST(Check, WhatWillBeEightBitsIsWhatConvertMakes) {
  const Check c = check(net());
  EXPECT_TRUE(c.ok()) << c.problems[0].message;
  EXPECT_TRUE(c.warnings.empty()) << lines(c.warnings);
  ASSERT_TRUE(c.decided);
  c.prepared->forward(kSample);
  quant::ConversionReport report;
  const Graph int8 = quant::convert_fx(c.prepared, &report)->graph();
  EXPECT_EQ(c.nodes(), std::ssize(report.entries));
  EXPECT_EQ(c.quantized(), report.quantized());
  const CheckedKind& big = kind_of(c, "exp");
  EXPECT_EQ(big.quantized, 0);
  ASSERT_EQ(big.left_float.size(), 1u);
  EXPECT_EQ(big.left_float[0].nodes, std::vector<std::string>{"big"});
  EXPECT_EQ(big.left_float[0].reason, report.left_float().at(0).reason);
  EXPECT_EQ(kind_of(c, "conv2d").weight_bytes, 4 * (8 * 27 + 8));
  EXPECT_EQ(c.kinds[0].op, "conv2d") << "the most weights first";

  int64_t float_bytes = 0, int8_bytes = 0;
  for (const auto& [g, sum] : {std::pair{net(), &float_bytes}, {int8, &int8_bytes}})
    for (const graph::Node& node : g.nodes())
      if (node.kind == graph::NodeKind::constant) *sum += node.value.nbytes();
  EXPECT_EQ(c.float_weight_bytes, float_bytes);
  EXPECT_NEAR(static_cast<double>(c.quantized_weight_bytes), static_cast<double>(int8_bytes),
              0.05 * static_cast<double>(int8_bytes));
}

TEST(Check, TheMappingAndTheBackendAreHonoured) {
  CheckOptions options;
  options.prepare.skip = {"conv"};
  const Check c = check(net(), options);
  EXPECT_EQ(kind_of(c, "conv2d").quantized, 0);
  EXPECT_EQ(kind_of(c, "conv2d").left_float.at(0).reason, "skipped by 'conv'");
  EXPECT_EQ(kind_of(c, "linear").quantized, 1);
  options.prepare.skip = {"convv"};
  const Check wrong = check(net(), options);
  expect_error(ErrorCode::not_found, {"'convv'", "did you mean"}, [&] { wrong.require_ok(); });
  EXPECT_FALSE(wrong.decided);
  EXPECT_EQ(wrong.nodes(), 6) << "what there is is listed all the same";
}

TEST(Check, WeightsThatAreNotFiniteAreProblemsAndAllElseIsStillSaid) {
  const Tensor w = Tensor::randn({8, 3, 3, 3}, 1), v = Tensor::randn({5, 8}, 3);
  const Check c = check(net({{"w", with(with(w, 30, NAN), 40, INFINITY)}, {"v", with(v, 2, NAN)}}));
  ASSERT_EQ(c.problems.size(), 2u);
  expect_error(ErrorCode::invalid_argument,
               {"2 problems: (1) w of conv (conv2d): 1 NaN and 1 infinite of 216 values, the first "
                "at 30",
                "; (2) v of fc (linear): 1 NaN"},
               [&] { c.require_ok(); });
  EXPECT_TRUE(c.decided);
  EXPECT_EQ(c.quantized(), check(net()).quantized());
}

TEST(Check, OtherConstantsMayBeInfiniteButNotNaN) {
  const Tensor b = Tensor::randn({8}, 2);
  EXPECT_TRUE(check(net({{"b", with(b, 1, INFINITY)}})).warnings.empty());
  const Check c = check(net({{"b", with(b, 1, NAN)}}));
  ASSERT_EQ(c.warnings.size(), 1u);
  EXPECT_NE(c.warnings[0].find("b of conv (conv2d): 1 NaN of 8 values"), std::string::npos)
      << c.warnings[0];
}

TEST(Check, DegenerateChannelsAreWarnings) {
  Tensor w = Tensor::randn({8, 3, 3, 3}, 1);
  for (int64_t channel : {2, 5})
    for (int64_t i = 0; i < 27; ++i) w.data<float>()[channel * 27 + i] = 0;
  w = with(w, 3 * 27, 1000);
  const Check c = check(net({{"w", w}, {"v", Tensor::zeros({5, 8})}}));
  EXPECT_TRUE(c.ok());
  ASSERT_EQ(c.warnings.size(), 3u) << lines(c.warnings);
  EXPECT_EQ(c.warnings[0], "w of conv (conv2d): 2 of 8 output channels are all zero: 2, 5");
  EXPECT_NE(c.warnings[1].find("w of conv (conv2d): output channel 3 is up to "), std::string::npos)
      << c.warnings[1];
  EXPECT_NE(c.warnings[1].find("each channel has its own scale"), std::string::npos);
  EXPECT_NE(c.warnings[2].find("v of fc (linear): all 40 values are zero"), std::string::npos)
      << c.warnings[2];
  CheckOptions per_tensor;
  per_tensor.mapping = quant::get_default_qconfig_mapping("qnnpack");
  EXPECT_NE(check(net({{"w", w}}), per_tensor).warnings.at(1).find("quantize it per channel"),
            std::string::npos);
}

// The output channels of a transposed convolution are not its first dimension.
TEST(Check, ChannelsAreThoseOfTheOutput) {
  Tensor w = Tensor::ones({2, 3, 1, 1});
  w.data<float>()[1] = w.data<float>()[4] = 0;
  const Graph g = graph::parse(
      "graph up {\n"
      "  %x: Float(N, 2, 4, 4) = input\n"
      "  %w: Float(2, 3, 1, 1) = constant\n"
      "  %y: Float(N, 3, 4, 4) = conv_transpose2d(%x, %w, none)  @ up\n"
      "  return (%y)\n"
      "}\n",
      {{"w", w}});
  EXPECT_EQ(lines(check(g).warnings),
            "w of up (conv_transpose2d): 1 of 3 output channels is all zero: 1");
}

TEST(Check, NothingToQuantizeIsAProblemWithEveryReason) {
  const Check c =
      check(graph::parse("graph g {\n  %x: Float(N, 4) = input\n  %y: Float(N, 4) = exp(%x)\n"
                         "  return (%y)\n}\n"));
  expect_error(ErrorCode::invalid_argument, {"nothing in g can be quantized", "too widely"},
               [&] { c.require_ok(); });
  EXPECT_EQ(c.nodes(), 1);
  EXPECT_EQ(c.quantized(), 0);
  EXPECT_EQ(kind_of(c, "exp").left_float.at(0).nodes.size(), 1u);
}

TEST(Check, AQuantizedGraphIsAProblem) {
  const auto prepared = quant::prepare_fx(net(), quant::get_default_qconfig_mapping());
  prepared->forward(kSample);
  const Check c = check(quant::convert_fx(prepared)->graph());
  expect_error(ErrorCode::invalid_argument, {"quantized already"}, [&] { c.require_ok(); });
  EXPECT_FALSE(c.decided);
  EXPECT_FALSE(c.kinds.empty());
}

TEST(CheckRun, MeasuresATrialAndLeavesThePreparedGraphUncalibrated) {
  Check c = check(net());
  check_run(c, net(), kSample, true, 0.001);
  EXPECT_TRUE(c.ok());
  EXPECT_EQ(c.not_run, "");
  EXPECT_EQ(c.multiply_adds, 8 * 36 * 27 + 5 * 8);
  EXPECT_GT(c.float_ms, 0);
  EXPECT_GT(c.int8_ms, 0);
  EXPECT_GT(c.float_memory_bytes, c.int8_memory_bytes);
  expect_error(ErrorCode::not_calibrated, {}, [&] { quant::convert_fx(c.prepared); });
}

TEST(CheckRun, WhatFailsOnRealDataIsAProblem) {
  const std::vector<Tensor> wrong{Tensor::randn({1, 4, 8, 8}, 7)};
  Check c = check(net());
  check_run(c, net(), wrong, false);
  EXPECT_EQ(c.problems.size(), 1u);
  Check made_up = check(net());
  check_run(made_up, net(), wrong, true);
  EXPECT_TRUE(made_up.ok());
  EXPECT_NE(made_up.not_run, "");
}

}  // namespace
}  // namespace octet::debug
