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

TEST(MultiplyCodes, LayersOnFloatsStay) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim(2), Dim(8)}));
  const ValueId w = g.add_call(
      "wd", "dequantize",
      {g.add_constant("w", quantize_per_tensor(Tensor::randn({3, 8}, 1), 0.02f, 0, DType::qint8))});
  g.set_outputs({g.add_call("y", "linear", {x, w})});
  EXPECT_FALSE(find(multiply_codes(g), "linear_dynamic"));
}

}  // namespace
}  // namespace octet::graph
