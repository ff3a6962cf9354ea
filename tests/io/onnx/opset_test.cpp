// The lowest opset that says what a graph does, and what needs it.
#include <gtest/gtest.h>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/passes/multiply_codes.h"
#include "octet/io/onnx/export.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using Ints = std::vector<int64_t>;

// Exports, says which opset was taken and why, and expects the same graph back.
io::OnnxOpset opset_of(const Graph& g, const std::vector<Tensor>& inputs) {
  io::OnnxOpset opset;
  const Graph back = load_onnx(io::to_onnx_bytes(g, {}, &opset));
  EXPECT_EQ(graph::print(back, {.full = true}), graph::print(g, {.full = true}));
  const auto got = run_graph(back, inputs), want = run_graph(g, inputs);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(equal(got[i], want[i]));
  return opset;
}

Graph one_call(const char* op, const TensorType& type, const Attrs& attrs,
               const std::vector<TensorType>& others = {}) {
  Graph g;
  std::vector<ValueId> operands{g.add_input("x", type)};
  for (size_t i = 0; i < others.size(); ++i)
    operands.push_back(g.add_input("x" + std::to_string(i), others[i]));
  g.set_outputs({g.add_call("y", op, operands, attrs, std::nullopt, "node")});
  return g;
}

TensorType square() { return TensorType(DType::float32, {Dim("T"), Dim("T")}); }

TEST(OnnxOpset, IsThirteenWhereThatSaysIt) {
  const auto opset = opset_of(
      one_call("triu", TensorType(DType::float32, Shape{3, 4}), {{"diagonal", int64_t{-1}}}),
      {Tensor::randn({3, 4}, 1)});
  EXPECT_EQ(opset.version, 13);
  EXPECT_TRUE(opset.reasons.empty());
}

TEST(OnnxOpset, IsFourteenForTrianglesOfUnknownSize) {
  for (const char* op : {"triu", "tril"})
    for (int64_t diagonal : {0, 2}) {
      const auto opset =
          opset_of(one_call(op, square(), {{"diagonal", diagonal}}), {Tensor::randn({5, 5}, 1)});
      EXPECT_EQ(opset.version, 14);
      EXPECT_EQ(opset.reasons,
                std::vector<std::string>{std::string(op) + " of a matrix of unknown size"});
    }
}

TEST(OnnxOpset, IsSixteenForScattersThatAdd) {
  const TensorType x(DType::float32, Shape{4, 3}), i(DType::int64, Shape{2, 3}),
      u(DType::float32, Shape{2, 3});
  for (const auto& [reduction, version] :
       {std::pair{"none", 13}, {"add", 16}, {"mul", 16}, {"max", 18}, {"min", 18}}) {
    const auto opset = opset_of(
        one_call("scatter_elements", x,
                 {{"dim", int64_t{0}}, {"reduction", std::string(reduction)}}, {i, u}),
        {Tensor::randn({4, 3}, 1), Tensor::ones({2, 3}, DType::int64), Tensor::randn({2, 3}, 2)});
    EXPECT_EQ(opset.version, version) << reduction;
  }
}

TEST(OnnxOpset, IsEighteenForAntialias) {
  const auto opset = opset_of(one_call("interpolate", TensorType(DType::float32, Shape{1, 1, 8, 8}),
                                       {{"mode", std::string("linear")},
                                        {"antialias", true},
                                        {"scales", std::vector<double>{0.5, 0.5}}}),
                              {Tensor::randn({1, 1, 8, 8}, 1)});
  EXPECT_EQ(opset.version, 18);
  EXPECT_EQ(opset.reasons, std::vector<std::string>{"interpolate with antialias"});
}

// What became another form of node in between is written in that of the opset.
TEST(OnnxOpset, OtherNodesFollow) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(1), Dim(8), Dim(8)}));
  ValueId y = g.add_call("y", "interpolate", {x},
                         {{"mode", std::string("linear")},
                          {"antialias", true},
                          {"scales", std::vector<double>{0.5, 0.5}}},
                         std::nullopt, "resize");
  ValueId n = g.add_call("n", "layer_norm", {y}, {{"axis", int64_t{3}}}, std::nullopt, "norm");
  ValueId m = g.add_call("m", "mean", {n}, {{"dim", Ints{2, 3}}}, std::nullopt, "mean");
  g.set_outputs({g.add_call("z", "triu", {m}, {}, std::nullopt, "triangle")});
  const auto opset = opset_of(g, {Tensor::randn({2, 1, 8, 8}, 1)});
  EXPECT_EQ(opset.version, 18);
  EXPECT_EQ(opset.reasons, std::vector<std::string>{"interpolate with antialias"});
}

TEST(OnnxOpset, IsTwentyOneForWeightsOfFourBits) {
  for (const bool per_channel : {false, true})
    for (const DType dtype : {DType::qint4x2, DType::quint4x2}) {
      const int64_t zero = dtype == DType::qint4x2 ? 1 : 9;
      const Tensor w = Tensor::randn({3, 5}, 5);
      Graph g;
      ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(5)}));
      ValueId c = g.add_constant(
          "w", per_channel ? quantize_per_channel(w, {0.25, 0.5, 0.125}, {zero, 0, 2}, 0, dtype)
                           : quantize_per_tensor(w, 0.25, zero, dtype));
      g.set_outputs({g.add_call("y", "linear_weight_only", {x, c}, {}, std::nullopt, "fc")});
      const auto opset = opset_of(g, {Tensor::randn({2, 5}, 1)});
      EXPECT_EQ(opset.version, 21);
      EXPECT_EQ(opset.reasons, std::vector<std::string>{"a weight of 4 bits"});
    }
}

TEST(OnnxOpset, WeightsOfEightBitsNeedNoMore) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(5)}));
  ValueId w =
      g.add_constant("w", quantize_per_tensor(Tensor::randn({3, 5}, 5), 0.01f, 0, DType::qint8));
  ValueId b = g.add_constant("b", Tensor::randn({3}, 6));
  g.set_outputs({g.add_call("y", "linear_weight_only", {x, w, b}, {}, std::nullopt, "fc")});
  EXPECT_EQ(opset_of(g, {Tensor::randn({2, 5}, 1)}).version, 13);
}

}  // namespace
}  // namespace octet::testing
