// Operators over sizes that the model leaves open: the graph has them as symbols, and what it
// computes is what the model with fixed sizes computes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

std::vector<std::string> result_types(const graph::Graph& g) {
  std::vector<std::string> types;
  for (graph::ValueId id : g.outputs()) types.push_back(to_string(g.type(id)));
  return types;
}

// The results on x are those of the model whose first input has x's sizes.
void expect_as_fixed(const OnnxModel& m, const Tensor& x) {
  io::OnnxImportOptions fixed;
  fixed.shapes = {{"x", x.shape()}};
  const std::vector<Tensor> want = run_graph(m.import(fixed), {x}),
                            got = run_graph(m.import(), {x});
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].shape(), want[i].shape());
    EXPECT_EQ(got[i].to_vector<float>(), want[i].to_vector<float>());
  }
}

OnnxModel split_model(int64_t opset, int parts) {
  OnnxModel m(opset);
  std::vector<std::string> names;
  for (int i = 0; i < parts; ++i) names.push_back(fmt::format("y{}", i));
  std::vector<std::pair<std::string, OnnxAttr>> attrs{{"axis", int64_t{1}}};
  if (opset >= 18) attrs.emplace_back("num_outputs", int64_t{parts});
  m.input("x", {2, "W"}).node("Split", {"x"}, names, attrs);
  for (const std::string& name : names) m.output(name);
  return m;
}

TEST(OnnxOpenSizes, EqualPartsOfASplitHaveOneSize) {
  const graph::Graph g = split_model(13, 2).import();
  EXPECT_EQ(result_types(g), (std::vector<std::string>{"Float(2, [W/2])", "Float(2, [W/2])"}));
  const Tensor x = Tensor::arange(12).to(DType::float32).reshape({2, 6});
  EXPECT_EQ(run_graph(g, {x})[1].to_vector<float>(), (std::vector<float>{3, 4, 5, 9, 10, 11}));
}

TEST(OnnxOpenSizes, EqualPartsMustMakeUpTheWhole) {
  const graph::Graph g = split_model(13, 2).import();
  EXPECT_THROW(run_graph(g, {Tensor::zeros({2, 5})}), Error);
}

TEST(OnnxOpenSizes, TheLastPartOfASplitMayBeSmallerSinceOpset18) {
  const OnnxModel m = split_model(18, 3);
  expect_as_fixed(m, Tensor::randn({2, 7}, 1));
  EXPECT_EQ(run_graph(m.import(), {Tensor::zeros({2, 7})})[2].shape(), (Shape{2, 1}));
}

TEST(OnnxOpenSizes, PartsOfAProductAreItsFactors) {
  OnnxModel m(13);
  m.input("x", {2, "W"})
      .constant("twice", longs({1, 2}))
      .node("Tile", {"x", "twice"}, {"t"})
      .node("Split", {"t"}, {"a", "b"}, {{"axis", int64_t{1}}})
      .node("Add", {"a", "b"}, {"y"})
      .output("y");
  const Tensor x = Tensor::arange(6).to(DType::float32).reshape({2, 3});
  EXPECT_EQ(run_graph(m.import(), {x})[0].to_vector<float>(),
            (std::vector<float>{0, 2, 4, 6, 8, 10}));
}

TEST(OnnxOpenSizes, SqueezeWithoutAxesKeepsTheOpenOnes) {
  OnnxModel m(13);
  m.input("x", {1, "N", 3, 1}).node("Squeeze", {"x"}, {"y"}).output("y");
  const graph::Graph g = m.import();
  EXPECT_EQ(result_types(g), std::vector<std::string>{"Float(N, 3)"});
  EXPECT_EQ(run_graph(g, {Tensor::zeros({1, 2, 3, 1})})[0].shape(), (Shape{2, 3}));
}

TEST(OnnxOpenSizes, SqueezeWithoutAxesRefusesAnOpenSizeThatIs1) {
  OnnxModel some(13), none(13);
  some.input("x", {1, "N", 3, 1}).node("Squeeze", {"x"}, {"y"}).output("y");
  none.input("x", {"N", 3}).node("Squeeze", {"x"}, {"y"}).output("y");
  EXPECT_EQ(run_graph(none.import(), {Tensor::zeros({2, 3})})[0].shape(), (Shape{2, 3}));
  expect_error(ErrorCode::invalid_argument, {"--shape"}, [&] {
    run_graph(some.import(), {Tensor::zeros({1, 1, 3, 1})});
  });
  expect_error(ErrorCode::invalid_argument, {"--shape"}, [&] {
    run_graph(none.import(), {Tensor::zeros({1, 3})});
  });
}

TEST(OnnxOpenSizes, SoftmaxOverSeveralDimensions) {
  for (const char* op : {"Softmax", "LogSoftmax", "Hardmax"}) {
    OnnxModel m(11);
    m.input("x", {2, 3, "H", "W"}).node(op, {"x"}, {"y"}, {{"axis", int64_t{1}}}).output("y");
    EXPECT_EQ(result_types(m.import()), std::vector<std::string>{"Float(2, 3, H, W)"}) << op;
    expect_as_fixed(m, Tensor::randn({2, 3, 4, 5}, 1));
  }
}

TEST(OnnxOpenSizes, PoolsOverVolumes) {
  OnnxModel m(13);
  m.input("x", {1, 2, "D", "H", "W"})
      .node("MaxPool", {"x"}, {"y"},
            {{"kernel_shape", ints({2, 3, 2})}, {"strides", ints({1, 2, 2})}})
      .output("y");
  expect_as_fixed(m, Tensor::randn({1, 2, 4, 5, 6}, 1));
}

TEST(OnnxOpenSizes, TheMeanOfASamePaddedWindowLeavesThePaddingOut) {
  for (const char* side : {"SAME_UPPER", "SAME_LOWER"}) {
    OnnxModel m(13);
    m.input("x", {1, 2, "H", "W"})
        .node("AveragePool", {"x"}, {"y"},
              {{"kernel_shape", ints({3, 2})},
               {"strides", ints({2, 2})},
               {"auto_pad", std::string(side)}})
        .output("y");
    for (const Shape& shape : {Shape{1, 2, 5, 5}, Shape{1, 2, 6, 4}}) {
      // Divided twice: a rounding more.
      const Tensor x = Tensor::randn(shape, 1);
      io::OnnxImportOptions fixed;
      fixed.dims = {{"H", shape[2]}, {"W", shape[3]}};
      const auto want = run_graph(m.import(fixed), {x})[0].to_vector<float>(),
                 got = run_graph(m.import(), {x})[0].to_vector<float>();
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6);
    }
  }
}

TEST(OnnxOpenSizes, AResizeToComputedSizesKeepsTheOthersNames) {
  OnnxModel m(13);
  m.input("x", {"N", 4, "H", "W"})
      .input("like", {1, "K"})
      .constant("i", longs({0}))
      .constant("j", longs({1}))
      .constant("rest", longs({4, 12}))
      .node("Shape", {"x"}, {"xs"})
      .node("Shape", {"like"}, {"ls"})
      .node("Gather", {"xs", "i"}, {"n"})
      .node("Gather", {"ls", "j"}, {"k"})
      .node("Concat", {"n", "rest", "k"}, {"sizes"}, {{"axis", int64_t{0}}})
      .node("Resize", {"x", "", "", "sizes"}, {"y"})
      .output("y");
  const graph::Graph g = m.import();
  EXPECT_EQ(result_types(g), std::vector<std::string>{"Float(N, 4, 12, K)"});
  EXPECT_EQ(run_graph(g, {Tensor::zeros({2, 4, 3, 3}), Tensor::zeros({1, 5})})[0].shape(),
            (Shape{2, 4, 12, 5}));
}

TEST(OnnxOpenSizes, TheNumberOfElementsIsComputedFromDimensionsThatAreProducts) {
  OnnxModel m(13);
  m.input("x", {2, "W"})
      .constant("twice", longs({1, 2}))
      .constant("zero", Tensor::from(std::vector<int64_t>{0}, {}))
      .node("Tile", {"x", "twice"}, {"t"})
      .node("Size", {"t"}, {"n"})
      .node("Add", {"n", "zero"}, {"y"})
      .output("y", kInt64);
  EXPECT_EQ(run_graph(m.import(), {Tensor::zeros({2, 5})})[0].item(), 20);
}

// -- sizes that a layer needs ---------------------------------------------------------------------

TEST(OnnxOpenSizes, AConvolutionFixesTheChannels) {
  OnnxModel m(13);
  m.input("x", {"N", "C", "H", "W"})
      .constant("w", Tensor::randn({4, 3, 3, 3}, 2))
      .node("Conv", {"x", "w"}, {"y"})
      .output("y");
  EXPECT_EQ(result_types(m.import()), std::vector<std::string>{"Float(N, 4, [H-2], [W-2])"});
  expect_as_fixed(m, Tensor::randn({2, 3, 5, 6}, 1));
  EXPECT_THROW(run_graph(m.import(), {Tensor::zeros({2, 4, 5, 6})}), Error);
}

TEST(OnnxOpenSizes, ALayerFixesTheFeatures) {
  OnnxModel matmul(13), gemm(13), lstm(13);
  matmul.input("x", {"N", "T", "F"})
      .constant("w", Tensor::randn({4, 3}, 2))
      .node("MatMul", {"x", "w"}, {"y"})
      .output("y");
  gemm.input("x", {"N", "F"})
      .constant("w", Tensor::randn({4, 3}, 2))
      .node("Gemm", {"x", "w"}, {"y"})
      .output("y");
  lstm.input("x", {"T", "N", "F"})
      .constant("w", Tensor::randn({1, 8, 4}, 2))
      .constant("r", Tensor::randn({1, 8, 2}, 3))
      .node("LSTM", {"x", "w", "r"}, {"y"}, {{"hidden_size", int64_t{2}}})
      .output("y");
  expect_as_fixed(matmul, Tensor::randn({2, 5, 4}, 1));
  expect_as_fixed(gemm, Tensor::randn({5, 4}, 1));
  expect_as_fixed(lstm, Tensor::randn({5, 2, 4}, 1));
}

TEST(OnnxOpenSizes, ADynamicLayerFixesTheFeatures) {
  OnnxModel m(13);
  m.input("x", {"N", "F"})
      .constant("w", Tensor::randn({4, 3}, 2).to(DType::int8))
      .constant("s", floats({0.5f}))
      .node("DynamicQuantizeLinear", {"x"}, {"q", "qs", "qz"})
      .node("MatMulInteger", {"q", "w", "qz"}, {"sums"})
      .node("Cast", {"sums"}, {"f"}, {{"to", kFloat}})
      .node("Mul", {"qs", "s"}, {"scale"})
      .node("Mul", {"f", "scale"}, {"y"})
      .output("y");
  EXPECT_EQ(count_ops(m.import(), "linear_dynamic"), 1);
  expect_as_fixed(m, Tensor::randn({5, 4}, 1));
}

// -- the cure -------------------------------------------------------------------------------------

TEST(OnnxOpenSizes, AnErrorAboutThemNamesTheOptionThatFixesThem) {
  OnnxModel m(13);
  m.input("x", {1, 2, "H", "W"})
      .node("MaxPool", {"x"}, {"y", "i"}, {{"kernel_shape", ints({2, 2})}})
      .output("y")
      .output("i", kInt64);
  expect_error(ErrorCode::unsupported,
               {"open sizes are fixed by --shape x=1x2xHxW, with numbers for H, W"},
               [&] { m.import(); });
}

TEST(OnnxOpenSizes, AnErrorOfAnOperatorThatNamesThemDoesToo) {
  OnnxModel m(13);
  m.input("x", {1, "C", 4, 4})
      .constant("a", Tensor::ones({2, 3}))
      .constant("b", Tensor::ones({1}))
      .node("PRelu", {"x", "a"}, {"y"})
      .output("y");
  expect_error(ErrorCode::invalid_argument, {"--shape x=1xCx4x4, with a number for C"},
               [&] { m.import(); });
}

}  // namespace
}  // namespace octet::testing
