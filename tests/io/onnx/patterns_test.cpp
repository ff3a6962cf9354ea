// Operators that exporters write as many nodes come back as one.
#include <gtest/gtest.h>

#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

Tensor constant(double v) { return Tensor::scalar(v); }

// Imports with and without the patterns; both must compute the same. Returns the operators with
// them.
std::string fused_ops(const OnnxModel& m, const Tensor& x) {
  graph::Graph fused = m.import();
  io::OnnxImportOptions plain;
  plain.fuse_patterns = false;
  graph::Graph parts = m.import(plain);
  EXPECT_GT(parts.nodes().size(), fused.nodes().size());
  EXPECT_TRUE(allclose(run_one(fused, {x}), run_one(parts, {x}), 1e-5, 1e-5));
  EXPECT_EQ(fused.value(fused.outputs()[0]).name, "y");
  return ops_of(fused);
}

struct Norm {
  bool weight = true, bias = true, two_subs = false, mul = false;
  std::vector<int64_t> axes = {-1};
  double exponent = 2;
};

OnnxModel layer_norm(const Norm& n) {
  OnnxModel m;
  Shape tail = n.axes.size() == 1 ? Shape{6} : Shape{4, 6};
  m.input("x", {2, 4, 6}).constant("two", constant(n.exponent)).constant("eps", constant(1e-5));
  m.constant("w", Tensor::randn(tail, 1)).constant("b", Tensor::randn(tail, 2));
  m.node("ReduceMean", {"x"}, {"mean"}, {{"axes", n.axes}}).node("Sub", {"x", "mean"}, {"d"});
  if (n.two_subs) m.node("Sub", {"x", "mean"}, {"d2"});
  std::string d = n.two_subs ? "d2" : "d";
  if (n.mul)
    m.node("Mul", {d, d}, {"sq"});
  else
    m.node("Pow", {d, "two"}, {"sq"});
  m.node("ReduceMean", {"sq"}, {"var"}, {{"axes", n.axes}})
      .node("Add", {"var", "eps"}, {"ve"})
      .node("Sqrt", {"ve"}, {"sd"});
  m.node("Div", {"d", "sd"}, {n.weight || n.bias ? "n" : "y"});
  if (n.weight) m.node("Mul", {"w", "n"}, {n.bias ? "nw" : "y"});
  if (n.bias) m.node("Add", {n.weight ? "nw" : "n", "b"}, {"y"});
  return m.output("y");
}

TEST(OnnxPatterns, LayerNorm) {
  Tensor x = Tensor::randn({2, 4, 6}, 5);
  EXPECT_EQ(fused_ops(layer_norm({}), x), "layer_norm");
  EXPECT_EQ(fused_ops(layer_norm({.bias = false}), x), "layer_norm");
  EXPECT_EQ(fused_ops(layer_norm({.weight = false, .bias = false}), x), "layer_norm");
  EXPECT_EQ(fused_ops(layer_norm({.weight = false}), x), "layer_norm");
  EXPECT_EQ(fused_ops(layer_norm({.two_subs = true}), x), "layer_norm");
  EXPECT_EQ(fused_ops(layer_norm({.mul = true}), x), "layer_norm");
  EXPECT_EQ(fused_ops(layer_norm({.axes = {-2, -1}}), x), "layer_norm");
  graph::Graph g = layer_norm({}).import();
  EXPECT_EQ(node_of(g, "layer_norm").attrs.get_double("eps"), 1e-5);
}

TEST(OnnxPatterns, AlmostLayerNorms) {
  EXPECT_EQ(count_ops(layer_norm({.exponent = 3}).import(), "layer_norm"), 0);
  EXPECT_EQ(
      count_ops(layer_norm({.weight = false, .bias = false, .axes = {1}}).import(), "layer_norm"),
      0);
}

enum class Order { late_half, early_half, half_on_gate };

OnnxModel erf_gelu(Order order, bool divide) {
  OnnxModel m;
  m.input("x", {2, 3})
      .constant("c", constant(divide ? 1.41421356 : 0.70710678))
      .constant("one", constant(1))
      .constant("half", constant(0.5));
  m.node(divide ? "Div" : "Mul", {"x", "c"}, {"s"})
      .node("Erf", {"s"}, {"e"})
      .node("Add", {"e", "one"}, {"g"});
  if (order == Order::late_half) m.node("Mul", {"x", "g"}, {"p"}).node("Mul", {"p", "half"}, {"y"});
  if (order == Order::early_half)
    m.node("Mul", {"half", "x"}, {"p"}).node("Mul", {"p", "g"}, {"y"});
  if (order == Order::half_on_gate)
    m.node("Mul", {"g", "half"}, {"p"}).node("Mul", {"x", "p"}, {"y"});
  return m.output("y");
}

TEST(OnnxPatterns, Gelu) {
  Tensor x = Tensor::randn({2, 3}, 1);
  for (Order order : {Order::late_half, Order::early_half, Order::half_on_gate})
    for (bool divide : {true, false}) EXPECT_EQ(fused_ops(erf_gelu(order, divide), x), "gelu");
}

TEST(OnnxPatterns, TanhGelu) {
  for (bool power : {true, false}) {
    OnnxModel m;
    m.input("x", {2, 3})
        .constant("three", constant(3))
        .constant("a", constant(0.044715))
        .constant("b", constant(0.7978845608));
    m.constant("one", constant(1)).constant("half", constant(0.5));
    if (power)
      m.node("Pow", {"x", "three"}, {"x3"});
    else
      m.node("Mul", {"x", "x"}, {"x2"}).node("Mul", {"x2", "x"}, {"x3"});
    m.node("Mul", {"x3", "a"}, {"t"})
        .node("Add", {"x", "t"}, {"i"})
        .node("Mul", {"i", "b"}, {"u"})
        .node("Tanh", {"u"}, {"h"});
    m.node("Add", {"h", "one"}, {"g"})
        .node("Mul", {"x", "half"}, {"p"})
        .node("Mul", {"p", "g"}, {"y"})
        .output("y");
    EXPECT_EQ(fused_ops(m, Tensor::randn({2, 3}, 1)), "gelu");
    EXPECT_EQ(node_of(m.import(), "gelu").attrs.get_string("approximate"), "tanh");
  }
}

TEST(OnnxPatterns, AlmostGelu) {
  OnnxModel m;
  m.input("x", {2})
      .constant("c", constant(1.5))
      .constant("one", constant(1))
      .constant("half", constant(0.5))
      .node("Div", {"x", "c"}, {"s"});
  m.node("Erf", {"s"}, {"e"})
      .node("Add", {"e", "one"}, {"g"})
      .node("Mul", {"x", "g"}, {"p"})
      .node("Mul", {"p", "half"}, {"y"})
      .output("y");
  EXPECT_EQ(count_ops(m.import(), "gelu"), 0);
}

TEST(OnnxPatterns, HardSwish) {
  Tensor x = Tensor::randn({2, 3}, 1);
  OnnxModel clip, sigmoid;
  clip.input("x", {2, 3})
      .constant("3", constant(3))
      .constant("0", constant(0))
      .constant("6", constant(6))
      .node("Add", {"x", "3"}, {"a"});
  clip.node("Clip", {"a", "0", "6"}, {"c"})
      .node("Mul", {"x", "c"}, {"p"})
      .node("Div", {"p", "6"}, {"y"})
      .output("y");
  EXPECT_EQ(fused_ops(clip, x), "hardswish");
  sigmoid.input("x", {2, 3})
      .node("HardSigmoid", {"x"}, {"s"}, {{"alpha", 1.0 / 6}})
      .node("Mul", {"x", "s"}, {"y"})
      .output("y");
  EXPECT_EQ(fused_ops(sigmoid, x), "hardswish");
}

// The sigmoid of another value is no gate.
TEST(OnnxPatterns, Silu) {
  const Tensor x = Tensor::randn({2, 3}, 1);
  for (bool x_first : {true, false}) {
    OnnxModel m;
    m.input("x", {2, 3}).node("Sigmoid", {"x"}, {"s"});
    m.node("Mul", x_first ? std::vector<std::string>{"x", "s"} : std::vector<std::string>{"s", "x"},
           {"y"})
        .output("y");
    EXPECT_EQ(fused_ops(m, x), "silu");
  }
  OnnxModel other;
  other.input("x", {2, 3}).node("Neg", {"x"}, {"n"}).node("Sigmoid", {"n"}, {"s"});
  other.node("Mul", {"x", "s"}, {"y"}).output("y");
  EXPECT_EQ(count_ops(other.import(), "silu"), 0);
}

TEST(OnnxPatterns, MatMulAndBias) {
  for (const Shape& shape : {Shape{5}, Shape{1, 5}}) {
    OnnxModel m;
    m.input("x", {2, 4})
        .constant("w", Tensor::randn({4, 5}, 1))
        .constant("b", Tensor::randn(shape, 2));
    m.node("MatMul", {"x", "w"}, {"h"}).node("Add", {"b", "h"}, {"y"}, {}, "sum").output("y");
    EXPECT_EQ(fused_ops(m, Tensor::randn({2, 4}, 3)), "linear");
    EXPECT_EQ(node_of(m.import(), "linear").inputs.size(), 3u);
  }
}

TEST(OnnxPatterns, AMatMulThatIsUsedTwiceKeepsItsAdd) {
  OnnxModel m;
  m.input("x", {2, 4})
      .constant("w", Tensor::randn({4, 5}, 1))
      .constant("b", Tensor::randn({5}, 2))
      .node("MatMul", {"x", "w"}, {"h"});
  m.node("Add", {"h", "b"}, {"y"}).node("Relu", {"h"}, {"z"}).output("y").output("z");
  EXPECT_EQ(ops_of(m.import()), "linear add relu");
}

TEST(OnnxPatterns, ZeroPaddingBeforeAConvolution) {
  OnnxModel m;
  m.input("x", {1, 2, 5, 5})
      .constant("p", longs({0, 0, 1, 0, 0, 0, 2, 1}))
      .constant("w", Tensor::randn({3, 2, 3, 3}, 1));
  m.node("Pad", {"x", "p"}, {"a"})
      .node("Conv", {"a", "w"}, {"y"}, {{"pads", ints({0, 1, 0, 0})}})
      .output("y");
  EXPECT_EQ(fused_ops(m, Tensor::randn({1, 2, 5, 5}, 2)), "conv2d");
  EXPECT_EQ(node_of(m.import(), "conv2d").attrs.get_ints("padding"),
            (std::vector<int64_t>{1, 1, 2, 1}));
}

TEST(OnnxPatterns, OtherPaddingStays) {
  OnnxModel m;
  m.input("x", {1, 2, 5, 5})
      .constant("p", longs({0, 0, 1, 1, 0, 0, 1, 1}))
      .constant("w", Tensor::randn({3, 2, 3, 3}, 1));
  m.node("Pad", {"x", "p"}, {"a"}, {{"mode", std::string("edge")}})
      .node("Conv", {"a", "w"}, {"y"})
      .output("y");
  EXPECT_EQ(ops_of(m.import()), "pad conv2d");
}

}  // namespace
}  // namespace octet::testing
