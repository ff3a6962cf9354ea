// com.microsoft's joined operators, taken apart.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using F = std::vector<float>;

double gelu(double x) { return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0))); }
double tanh_gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

void expect_near(const Tensor& got, const F& want, double tolerance = 1e-5) {
  const F numbers = got.reshape({-1}).to_vector<float>();
  ASSERT_EQ(numbers.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(numbers[i], want[i], tolerance) << i;
}

TEST(OnnxFused, ConvWithItsActivation) {
  struct {
    const char* name;
    std::vector<double> params;
    const char* op;
    F want;  // of -4, 0.5 and 8
  } cases[] = {{"Relu", {}, "relu", {0, 0.5, 8}},
               {"LeakyRelu", {0.25}, "leaky_relu", {-1, 0.5, 8}},
               {"Clip", {-1, 2}, "clamp", {-1, 0.5, 2}},
               {"Clip", {0, 6}, "relu6", {0, 0.5, 6}},
               {"HardSigmoid", {0.5, 0.25}, "hardsigmoid", {0, 0.5, 1}}};
  for (const auto& c : cases) {
    OnnxModel m;
    m.input("x", {1, 1, 3}).constant("w", Tensor::full({1, 1, 1}, 2));
    std::vector<std::pair<std::string, OnnxAttr>> attrs{{"activation", std::string(c.name)}};
    if (!c.params.empty()) attrs.emplace_back("activation_params", c.params);
    m.node("FusedConv", {"x", "w"}, {"y"}, attrs, "", kMicrosoft).output("y");
    graph::Graph g = m.import();
    EXPECT_EQ(ops_of(g), std::string("conv1d ") + c.op);
    expect_near(run_one(g, {Tensor::from(F{-2, 0.25, 4}, {1, 1, 3})}), c.want);
  }
}

TEST(OnnxFused, ConvAddsItsFourthOperandBeforeTheActivation) {
  OnnxModel m;
  m.input("x", {1, 1, 2}).input("z", {1, 1, 2}).constant("w", Tensor::ones({1, 1, 1}));
  m.node("FusedConv", {"x", "w", "", "z"}, {"y"}, {{"activation", std::string("Relu")}}, "",
         kMicrosoft);
  expect_near(run_one(m.output("y").import(),
                      {Tensor::from(F{1, 1}, {1, 1, 2}), Tensor::from(F{-3, 3}, {1, 1, 2})}),
              {0, 4});
}

TEST(OnnxFused, AnUnknownActivationIsNamed) {
  OnnxModel m;
  m.input("x", {1, 1, 2}).constant("w", Tensor::ones({1, 1, 1}));
  m.node("FusedConv", {"x", "w"}, {"y"}, {{"activation", std::string("Swish")}}, "conv",
         kMicrosoft);
  expect_error(ErrorCode::unsupported, {"FusedConv with the activation Swish", "conv"},
               [&] { m.output("y").import(); });
}

TEST(OnnxFused, MatMulWithTransposesAndAFactor) {
  const Tensor a = Tensor::from(F{1, 2, 3, 4, 5, 6}, {3, 2}),
               b = Tensor::from(F{1, 0, 2, 0, 1, 3}, {2, 3});
  for (bool constant : {false, true}) {
    OnnxModel m;
    m.input("a", {3, 2});
    if (constant)
      m.constant("b", b);
    else
      m.input("b", {2, 3});
    m.node("FusedMatMul", {"a", "b"}, {"y"},
           {{"transA", int64_t{1}}, {"transB", int64_t{1}}, {"alpha", 0.5}}, "", kMicrosoft);
    graph::Graph g = m.output("y").import();
    EXPECT_EQ(count_ops(g, "linear"), constant);
    std::vector<Tensor> inputs{a};
    if (!constant) inputs.push_back(b);
    // rows of a^T: (1, 3, 5) and (2, 4, 6); columns of b^T: (1, 0, 2) and (0, 1, 3)
    expect_near(run_one(g, inputs), {5.5, 9, 7, 11});
  }
}

TEST(OnnxFused, GemmWithItsActivation) {
  OnnxModel m;
  m.input("a", {1, 2}).constant("b", Tensor::from(F{1, 1, 1, -3}, {2, 2}));
  m.node("FusedGemm", {"a", "b"}, {"y"},
         {{"activation", std::string("LeakyRelu")}, {"activation_alpha", 0.5}}, "", kMicrosoft);
  expect_near(run_one(m.output("y").import(), {Tensor::from(F{1, 2}, {1, 2})}), {3, -2.5});
}

TEST(OnnxFused, Gelus) {
  for (const char* op : {"BiasGelu", "FastGelu"}) {
    OnnxModel m;
    m.input("x", {2}).constant("b", floats({0.5, -1}));
    m.node(op, {"x", "b"}, {"y"}, {}, "", kMicrosoft).output("y");
    const auto f = std::string(op) == "BiasGelu" ? gelu : tanh_gelu;
    expect_near(run_one(m.import(), {floats({1, 3})}),
                {static_cast<float>(f(1.5)), static_cast<float>(f(2))});
  }
  OnnxModel m;
  m.input("x", {1}).node("QuickGelu", {"x"}, {"y"}, {{"alpha", 2.0}}, "", kMicrosoft).output("y");
  expect_near(run_one(m.import(), {floats({1})}), {static_cast<float>(1 / (1 + std::exp(-2.0)))});
}

TEST(OnnxFused, SwishIsSiluWithoutAFactor) {
  for (const double alpha : {1.0, 2.0}) {
    OnnxModel m;
    m.input("x", {1}).node("Swish", {"x"}, {"y"}, {{"alpha", alpha}}).output("y");
    const graph::Graph g = m.import();
    EXPECT_EQ(count_ops(g, "silu"), alpha == 1 ? 1 : 0);
    expect_near(run_one(g, {floats({3})}), {static_cast<float>(3 / (1 + std::exp(-3 * alpha)))});
  }
}

TEST(OnnxFused, SkipLayerNormalizationAlsoGivesTheSum) {
  OnnxModel m;
  m.input("x", {1, 2}).input("s", {1, 2});
  m.constant("g", floats({2, 3})).constant("b", floats({10, 20})).constant("more", floats({1, 0}));
  m.node("SkipLayerNormalization", {"x", "s", "g", "b", "more"}, {"y", "", "", "sum"},
         {{"epsilon", 0.0}}, "", kMicrosoft)
      .output("y")
      .output("sum");
  const std::vector<Tensor> y =
      run_graph(m.import(), {Tensor::from(F{1, 2}, {1, 2}), Tensor::from(F{0, 4}, {1, 2})});
  expect_near(y[1], {2, 6});
  expect_near(y[0], {-2 + 10, 3 + 20});
}

TEST(OnnxFused, RmsNormsDivideByTheRootOfTheMeanSquare) {
  for (const char* op : {"RMSNormalization", "SimplifiedLayerNormalization"}) {
    OnnxModel m(23);
    m.input("x", {"N", 2}).constant("g", floats({1, 2}));
    m.node(op, {"x", "g"}, {"y"}, {{"epsilon", 0.0}}).output("y");
    const auto root = static_cast<float>(std::sqrt(12.5));
    expect_near(run_one(m.import(), {Tensor::from(F{3, 4}, {1, 2})}), {3 / root, 8 / root});
  }
}

TEST(OnnxFused, EmbedLayerNormalizationAddsThreeTables) {
  OnnxModel m;
  m.input("words", {"N", "S"}, kInt32).input("segments", {"N", "S"}, kInt32);
  m.input("mask", {"N", "S"}, kInt32);
  m.constant("word", Tensor::from(F{1, 2, 3, 4}, {2, 2}));
  m.constant("place", Tensor::from(F{0, 0, 10, 20, 5, 5}, {3, 2}));
  m.constant("segment", Tensor::from(F{0, 1, 0, 2}, {2, 2}));
  m.constant("g", floats({1, 1})).constant("b", floats({0, 0}));
  m.node("EmbedLayerNormalization",
         {"words", "segments", "word", "place", "segment", "g", "b", "mask"}, {"y", "count", "sum"},
         {}, "", kMicrosoft)
      .output("y")
      .output("count", kInt32)
      .output("sum");
  const auto list = [](const std::vector<int32_t>& v) { return Tensor::from(v, {1, 2}); };
  const std::vector<Tensor> y =
      runtime::compile(m.import()).run({list({1, 0}), list({0, 1}), list({1, 0})});
  expect_near(y[2], {3, 5, 11, 24});
  expect_near(y[0], {-1, 1, -1, 1}, 1e-4);
  EXPECT_EQ(y[1].to_vector<int32_t>(), (std::vector<int32_t>{1}));
}

}  // namespace
}  // namespace octet::testing
