#include "octet/graph/passes/multiply_codes.h"

#include <gtest/gtest.h>

#include "octet/runtime/program.h"

namespace octet::graph {
namespace {

ops::QType qtype(double scale, int64_t zero, DType dtype) {
  return {dtype, Quantizer::per_tensor(scale, zero, dtype)};
}

// quantize, dequantize, linear with a dequantized weight, and perhaps a bias of int32 codes.
struct Net {
  Graph g;
  ValueId y = kNone;

  explicit Net(bool bias, DType dtype = DType::qint8) {
    const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(8)}));
    const ValueId q = g.add_call("q", "quantize", {x}, {}, qtype(0.05, 120, DType::quint8));
    std::vector<ValueId> operands{
        g.add_call("d", "dequantize", {q}),
        g.add_call(
            "wd", "dequantize",
            {g.add_constant("w", quantize_per_tensor(Tensor::randn({3, 8}, 1), 0.02f,
                                                     dtype == DType::quint8 ? 128 : 0, dtype))})};
    if (bias)
      operands.push_back(g.add_call(
          "bd", "dequantize",
          {g.add_constant("b",
                          make_quantized(Tensor::from(std::vector<int32_t>{100, -200, 300}, {3}),
                                         Quantizer::per_tensor(0.001, 0, DType::qint32)))}));
    y = g.add_call("y", "linear", operands, {{"activation", std::string("relu")}});
  }
};

const Node* find(const Graph& g, const std::string& op) {
  for (const Node& n : g.nodes())
    if (n.kind == NodeKind::call && n.op == op) return &n;
  return nullptr;
}

TEST(MultiplyCodes, ALayerWithAFloatResultMultipliesIntegers) {
  for (bool bias : {false, true})
    for (DType dtype : {DType::qint8, DType::quint8}) {
      Net net(bias, dtype);
      net.g.set_outputs({net.y});
      const Graph g = multiply_codes(net.g);
      g.check();
      const Node* layer = find(g, "linear_dynamic");
      ASSERT_TRUE(layer);
      EXPECT_FALSE(find(g, "linear"));
      EXPECT_FALSE(find(g, "dequantize"));
      EXPECT_EQ(layer->attrs.get_string("activation"), "relu");
      EXPECT_EQ(layer->inputs.size(), bias ? 3u : 2u);
      EXPECT_TRUE(g.type(layer->inputs[0]).is_quantized());
      const Tensor x = Tensor::randn({4, 8}, 2);
      EXPECT_TRUE(allclose(runtime::compile(g).run({x})[0], runtime::compile(net.g).run({x})[0],
                           1e-6, 1e-6));
    }
}

TEST(MultiplyCodes, LayersOnFloatsAreWeightOnly) {
  // 0.3: codes of -8 to 7, which 4 bits hold.
  for (float scale : {0.02f, 0.3f}) {
    Graph g;
    const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim(2), Dim(8)}));
    const Tensor codes =
        quantize_per_tensor(Tensor::rand({3, 8}, 1, -2, 2), scale, 0, DType::qint8);
    const ValueId w = g.add_call("wd", "dequantize", {g.add_constant("w", codes)});
    g.set_outputs({g.add_call("y", "linear", {x, w})});
    const Graph made = multiply_codes(g);
    made.check();
    ASSERT_TRUE(find(made, "linear_weight_only"));
    EXPECT_FALSE(find(made, "dequantize"));
    EXPECT_EQ(made.type(*made.find("w")).dtype, scale > 0.1f ? DType::qint4x2 : DType::qint8);
    EXPECT_TRUE(equal(made.constant(*made.find("w")).dequantize(), codes.dequantize()));
    const Tensor in = Tensor::randn({2, 8}, 2);
    EXPECT_TRUE(allclose(runtime::compile(made).run({in})[0], runtime::compile(g).run({in})[0],
                         1e-5, 1e-5));
  }
}

// Weights that others read as numbers stay bytes, and so do those of convolutions.
TEST(MultiplyCodes, WeightsThatStayBytes) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim(1), Dim(2), Dim(4), Dim(4)}));
  const ValueId w = g.add_call(
      "wd", "dequantize",
      {g.add_constant("w",
                      quantize_per_tensor(Tensor::randn({3, 2, 1, 1}, 1), 0.5f, 0, DType::qint8))});
  const ValueId v = g.add_call(
      "vd", "dequantize",
      {g.add_constant("v", quantize_per_tensor(Tensor::randn({3, 4}, 1), 0.5f, 0, DType::qint8))});
  g.set_outputs({g.add_call("y", "conv2d", {x, w}), g.add_call("z", "linear", {x, v}), v});
  const Graph made = multiply_codes(g);
  EXPECT_TRUE(find(made, "conv2d_weight_only"));
  EXPECT_TRUE(find(made, "linear_weight_only"));
  EXPECT_EQ(made.type(*made.find("w")).dtype, DType::qint8);
  EXPECT_EQ(made.type(*made.find("v")).dtype, DType::qint8);
}

}  // namespace
}  // namespace octet::graph
