// QuantizeLinear, DequantizeLinear and the operators on codes, in.
#include <gtest/gtest.h>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

Tensor codes8(const Shape& shape, int seed, DType dtype = DType::int8) {
  return Tensor::rand(shape, seed, dtype == DType::int8 ? -100 : 0,
                      dtype == DType::int8 ? 100 : 200)
      .to(dtype);
}
Tensor byte(int v) { return Tensor::scalar(v, DType::uint8); }

// An activation's pair: name -> name.q -> name.dq, scale 0.05 and zero point 128 unless given.
OnnxModel& pair(OnnxModel& m, const std::string& name, double scale = 0.05, int zero = 128) {
  m.constant(name + ".s", Tensor::scalar(scale)).constant(name + ".z", byte(zero));
  m.node("QuantizeLinear", {name, name + ".s", name + ".z"}, {name + ".q"});
  return m.node("DequantizeLinear", {name + ".q", name + ".s", name + ".z"}, {name + ".dq"});
}

// A per-channel int8 weight: name -> name.dq.
OnnxModel& weight(OnnxModel& m, const std::string& name, const Tensor& codes, int64_t axis) {
  std::vector<float> scales;
  for (int64_t i = 0; i < codes.size(axis); ++i)
    scales.push_back(0.01f * static_cast<float>(i + 1));
  m.constant(name, codes)
      .constant(name + ".s", floats(scales))
      .constant(name + ".z", Tensor::zeros({codes.size(axis)}, DType::int8));
  return m.node("DequantizeLinear", {name, name + ".s", name + ".z"}, {name + ".dq"},
                {{"axis", axis}});
}

OnnxModel& int_bias(OnnxModel& m, const std::string& name, int64_t n, float x_scale) {
  std::vector<float> scales;
  for (int64_t i = 0; i < n; ++i) scales.push_back(x_scale * (0.01f * static_cast<float>(i + 1)));
  m.constant(name, Tensor::arange(n, DType::int32)).constant(name + ".s", floats(scales));
  return m.node("DequantizeLinear", {name, name + ".s"}, {name + ".dq"}, {{"axis", int64_t{0}}});
}

graph::Graph merged(const OnnxModel& m) {
  graph::Graph g = graph::merge_qdq(graph::fuse_activations(m.import()));
  g.check();
  return g;
}

TEST(OnnxQuantized, ActivationPair) {
  OnnxModel m;
  m.input("x", {"N", 4});
  graph::Graph g = pair(m, "x").output("x.dq").import();
  EXPECT_EQ(ops_of(g), "quantize dequantize");
  EXPECT_EQ(to_string(g.type(*g.find("x.q"))), "QUInt8(N, 4) scale=0.05 zero_point=128");
  EXPECT_EQ(to_string(g.type(*g.find("x.dq"))), "Float(N, 4)");
}

TEST(OnnxQuantized, ZeroPointDecidesTheDtype) {
  OnnxModel none, sint;
  none.input("x", {4})
      .constant("s", Tensor::scalar(0.5))
      .node("QuantizeLinear", {"x", "s"}, {"q"})
      .node("DequantizeLinear", {"q", "s"}, {"y"});
  EXPECT_EQ(none.output("y").import().type(1).dtype, DType::quint8);
  sint.input("x", {4})
      .constant("s", Tensor::scalar(0.5))
      .constant("z", Tensor::scalar(-3, DType::int8));
  sint.node("QuantizeLinear", {"x", "s", "z"}, {"q"}).output("q", kInt8);
  graph::Graph g = sint.import();
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "QInt8(4) scale=0.5 zero_point=-3");
}

TEST(OnnxQuantized, ConvWithPerChannelWeightAndIntBias) {
  OnnxModel m;
  m.input("x", {1, 2, 5, 5});
  weight(int_bias(pair(m, "x"), "b", 3, 0.05f), "w", codes8({3, 2, 3, 3}, 1), 0);
  m.node("Conv", {"x.dq", "w.dq", "b.dq"}, {"h"}).node("Relu", {"h"}, {"r"});
  pair(m, "r", 0.1, 0).output("r.dq");
  graph::Graph g = m.import();
  EXPECT_EQ(ops_of(g), "quantize dequantize dequantize dequantize conv2d relu quantize dequantize");
  EXPECT_EQ(to_string(g.type(*g.find("w"))),
            "QInt8(3, 2, 3, 3) axis=0 scale=[0.01, 0.02, 0.03] zero_point=0");
  EXPECT_EQ(g.type(*g.find("b")).dtype, DType::qint32);
  EXPECT_EQ(g.constant(*g.find("b")).int_repr().to_vector<int32_t>(),
            (std::vector<int32_t>{0, 1, 2}));
  graph::Graph integer = merged(m);
  EXPECT_EQ(ops_of(integer), "quantize conv2d dequantize");
  Tensor x = Tensor::randn({1, 2, 5, 5}, 2);
  EXPECT_TRUE(allclose(run_one(integer, {x}), run_one(g, {x}), 0, 0.1001));  // one step
}

TEST(OnnxQuantized, GemmTransposesCodesAndAxis) {
  Tensor codes = codes8({4, 3}, 1);  // (in, out)
  OnnxModel m;
  m.input("x", {2, 4});
  weight(pair(m, "x"), "w", codes, 1).node("Gemm", {"x.dq", "w.dq"}, {"h"});
  pair(m, "h").output("h.dq");
  graph::Graph g = m.import();
  const Tensor& w = g.constant(*g.find("w"));
  EXPECT_EQ(w.shape(), (Shape{3, 4}));
  EXPECT_EQ(w.q_per_channel_axis(), 0);
  EXPECT_TRUE(equal(w.int_repr(), codes.transpose(0, 1)));
  EXPECT_EQ(ops_of(merged(m)), "quantize linear dequantize");
}

TEST(OnnxQuantized, MatMulWithAQuantizedMatrixIsLinear) {
  OnnxModel m;
  m.input("x", {1, 5, 4});
  weight(pair(m, "x"), "w", codes8({4, 3}, 1), 1).node("MatMul", {"x.dq", "w.dq"}, {"h"});
  pair(m, "h").output("h.dq");
  EXPECT_EQ(ops_of(merged(m)), "quantize linear dequantize");
}

TEST(OnnxQuantized, MatMulOfActivations) {
  OnnxModel m;
  m.input("a", {2, 4}).input("b", {4, 2});
  pair(pair(m, "a"), "b").node("MatMul", {"a.dq", "b.dq"}, {"h"});
  pair(m, "h").output("h.dq");
  EXPECT_EQ(ops_of(merged(m)), "quantize quantize matmul dequantize");
}

TEST(OnnxQuantized, MatMulPlusQuantizedBias) {
  OnnxModel m;
  m.input("x", {1, 5, 4});
  weight(int_bias(pair(m, "x"), "b", 3, 0.05f), "w", codes8({4, 3}, 1), 1);
  m.node("MatMul", {"x.dq", "w.dq"}, {"h"}).node("Add", {"h", "b.dq"}, {"s"});
  pair(m, "s").output("s.dq");
  graph::Graph g = merged(m);
  EXPECT_EQ(ops_of(g), "quantize linear dequantize");
  EXPECT_EQ(node_of(g, "linear").inputs.size(), 3u);
}

TEST(OnnxQuantized, TransposeOfAQuantizedWeightMovesTheCodes) {
  OnnxModel m;
  m.input("x", {2, 4});
  weight(pair(m, "x"), "w", codes8({3, 4}, 1), 0)
      .node("Transpose", {"w.dq"}, {"wt"})
      .node("MatMul", {"x.dq", "wt"}, {"h"});
  pair(m, "h").output("h.dq");
  graph::Graph g = merged(m);
  EXPECT_EQ(ops_of(g), "quantize linear dequantize");
  EXPECT_TRUE(equal(g.constant(*g.find("w")).int_repr(), codes8({3, 4}, 1)));
}

TEST(OnnxQuantized, FloatWeightsThroughAPairBecomeCodes) {
  OnnxModel m;
  m.input("x", {2, 4})
      .constant("wf", Tensor::randn({3, 4}, 1))
      .constant("s", Tensor::scalar(0.1))
      .constant("z", Tensor::scalar(0, DType::int8));
  pair(m, "x")
      .node("QuantizeLinear", {"wf", "s", "z"}, {"wq"})
      .node("DequantizeLinear", {"wq", "s", "z"}, {"wd"});
  m.node("Gemm", {"x.dq", "wd"}, {"h"}, {{"transB", int64_t{1}}});
  pair(m, "h").output("h.dq");
  graph::Graph g = merged(m);
  EXPECT_EQ(ops_of(g), "quantize linear dequantize");
  EXPECT_TRUE(equal(g.constant(*g.find("wq")),
                    quantize_per_tensor(Tensor::randn({3, 4}, 1), 0.1f, 0, DType::qint8)));
}

TEST(OnnxQuantized, OperatorsBetweenPairs) {
  OnnxModel m;
  m.input("x", {1, 2, 4, 4});
  pair(m, "x").node("MaxPool", {"x.dq"}, {"p"},
                    {{"kernel_shape", ints({2, 2})}, {"strides", ints({2, 2})}});
  pair(m, "p").node("GlobalAveragePool", {"p.dq"}, {"a"});
  pair(m, "a", 0.02).node("Flatten", {"a.dq"}, {"f"});
  pair(m, "f", 0.02).node("Add", {"f.dq", "f.dq"}, {"s"});
  pair(m, "s", 0.04).output("s.dq");
  EXPECT_EQ(ops_of(merged(m)), "quantize max_pool2d adaptive_avg_pool2d flatten add dequantize");
}

TEST(OnnxQuantized, DequantizedInputOfPlainCodes) {
  OnnxModel m;
  m.input("x", {2, 3}, kUint8)
      .constant("s", floats({0.5f, 1, 2}))
      .constant("z", Tensor::full({3}, 10, DType::uint8));
  m.node("DequantizeLinear", {"x", "s", "z"}, {"y"}, {{"axis", int64_t{-1}}}).output("y");
  Tensor y = run_one(m.import(), {Tensor::full({2, 3}, 12, DType::uint8)});
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{1, 2, 4, 1, 2, 4}));
}

TEST(OnnxQuantized, QLinearConvIsDequantizeConvQuantize) {
  OnnxModel m;
  m.input("x", {1, 2, 5, 5});
  pair(m, "x")
      .constant("w", codes8({3, 2, 3, 3}, 1))
      .constant("ws", floats({0.01f, 0.02f, 0.03f}))
      .constant("wz", Tensor::zeros({3}, DType::int8));
  m.constant("ys", Tensor::scalar(0.2))
      .constant("yz", byte(100))
      .constant("b", Tensor::arange(3, DType::int32));
  m.node("QLinearConv", {"x.q", "x.s", "x.z", "w", "ws", "wz", "ys", "yz", "b"}, {"y"},
         {{"pads", ints({1, 1, 1, 1})}})
      .output("y", kUint8);
  graph::Graph g = merged(m);
  EXPECT_EQ(ops_of(g), "quantize conv2d");
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "QUInt8(1, 3, 5, 5) scale=0.2 zero_point=100");
  EXPECT_EQ(g.type(*g.find("b")).quantizer->scales().size(), 3u);
}

TEST(OnnxQuantized, QLinearMatMulIsLinearForConstants) {
  OnnxModel m;
  m.input("x", {2, 4});
  pair(m, "x")
      .constant("w", codes8({4, 3}, 1, DType::uint8))
      .constant("ws", Tensor::scalar(0.01))
      .constant("wz", byte(100));
  m.node("QLinearMatMul", {"x.q", "x.s", "x.z", "w", "ws", "wz", "x.s", "x.z"}, {"y"})
      .output("y", kUint8);
  EXPECT_EQ(ops_of(merged(m)), "quantize linear");
}

TEST(OnnxQuantized, Mistakes) {
  auto model = [](const Tensor& scale, const Tensor& zero, int64_t axis = 1) {
    OnnxModel m;
    m.input("x", {2, 3})
        .constant("s", scale)
        .constant("z", zero)
        .node("QuantizeLinear", {"x", "s", "z"}, {"y"}, {{"axis", axis}}, "q");
    return m.output("y", kUint8);
  };
  auto import = [&](const OnnxModel& m) { return [m] { m.import(); }; };
  expect_error(ErrorCode::invalid_argument, {"'q'", "scale 0"},
               import(model(Tensor::scalar(0), byte(0))));
  expect_error(ErrorCode::corrupt, {"'q'", "4 scales along axis 1, which has size 3"},
               import(model(floats({1, 1, 1, 1}), Tensor::zeros({4}, DType::uint8))));
  expect_error(ErrorCode::corrupt, {"'q'", "axis 5"},
               import(model(floats({1, 1, 1}), Tensor::zeros({3}, DType::uint8), 5)));
  expect_error(ErrorCode::corrupt, {"'q'", "3 scales and 2 zero points"},
               import(model(floats({1, 1, 1}), Tensor::zeros({2}, DType::uint8))));
}

TEST(OnnxQuantized, CodesMayBeReadWithAnotherScale) {
  OnnxModel m;
  m.input("x", {2})
      .constant("s", Tensor::scalar(1))
      .constant("t", Tensor::scalar(2))
      .constant("z", byte(0));
  m.constant("three", byte(3)).node("QuantizeLinear", {"x", "s", "z"}, {"q"});
  m.node("DequantizeLinear", {"q", "t", "three"}, {"y"}).output("y");
  EXPECT_EQ(run_one(m.import(), {floats({1, 7})}).to_vector<float>(), (std::vector<float>{-4, 8}));
}

}  // namespace
}  // namespace octet::testing
