// Layers whose operand is quantized when the model runs, as ONNX writes them in many nodes: they
// become octet's dynamic layers, with the same numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "octet/tensor/affine.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;
using OnnxAttrs = std::vector<std::pair<std::string, OnnxAttr>>;

Tensor codes(const Shape& shape, int seed, DType dtype) {
  const double low = dtype == DType::int8 ? -128 : 0;
  return Tensor::rand(shape, static_cast<uint64_t>(seed), low, low + 256).to(dtype);
}

// x less its zero point, by ONNX's definition, and the scale.
struct Centered {
  std::vector<int64_t> steps;
  float scale;
};
Centered quantized(const Tensor& x) {
  const float* v = x.data<float>();
  const float min = std::min(0.0f, *std::min_element(v, v + x.numel())),
              max = std::max(0.0f, *std::max_element(v, v + x.numel()));
  Centered r{{}, (max - min) / 255};
  const float zero = std::nearbyint(std::clamp(-min / r.scale, 0.0f, 255.0f));
  for (int64_t i = 0; i < x.numel(); ++i)
    r.steps.push_back(static_cast<int64_t>(
        std::clamp(std::nearbyint(v[i] / r.scale) + zero, 0.0f, 255.0f) - zero));
  return r;
}

struct Weight {
  DType dtype;
  int64_t zero;  // of every column
  bool per_column, bias;
};
const Weight kWeights[] = {{DType::int8, 0, false, false},
                           {DType::int8, 0, true, true},
                           {DType::uint8, 131, false, true},
                           {DType::uint8, 3, true, false}};

Tensor scales(const Weight& w, int64_t n) {
  return w.per_column ? Tensor::rand({n}, 5, 0.01, 0.02) : Tensor::scalar(0.013);
}
float scale_of(const Tensor& s, int64_t i) { return s.data<float>()[s.numel() == 1 ? 0 : i]; }

void expect_same(const graph::Graph& g, const Tensor& x, const Tensor& want) {
  EXPECT_TRUE(equal(run_one(g, {x}), want));
  EXPECT_TRUE(equal(runtime::compile(g).run({x})[0], want));
}

// The matrix product of x (2, 5, 7) by ONNX's definition of all its nodes.
Tensor expected_matmul(const Tensor& x, const Tensor& b, const Weight& w, const Tensor& bias) {
  const Centered q = quantized(x);
  const Tensor s = scales(w, 3);
  Tensor y = Tensor::empty({2, 5, 3});
  for (int64_t i = 0; i < y.numel(); ++i) {
    int64_t sum = 0;
    for (int64_t p = 0; p < 7; ++p)
      sum += q.steps[static_cast<size_t>(i / 3 * 7 + p)] *
             (static_cast<int64_t>(b.at({p, i % 3})) - w.zero);
    const float v = static_cast<float>(sum) * (q.scale * scale_of(s, i % 3));
    y.data<float>()[i] = w.bias ? v + bias.data<float>()[i % 3] : v;
  }
  return y;
}

TEST(OnnxDynamic, MatMulIntegerBecomesALinearLayer) {
  const Tensor x = Tensor::randn({2, 5, 7}, 1), bias = Tensor::randn({3}, 2);
  for (const Weight& w : kWeights)
    for (bool to_float : {false, true}) {
      const Tensor b = codes({7, 3}, 3, w.dtype);
      OnnxModel m;
      m.input("x", {2, 5, 7})
          .constant("b", b)
          .constant("bs", scales(w, 3))
          .constant("bias", bias)
          .constant("bz", w.per_column ? Tensor::full({3}, static_cast<double>(w.zero), w.dtype)
                                       : Tensor::scalar(static_cast<double>(w.zero), w.dtype));
      m.node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"});
      if (to_float) {
        m.node("MatMulIntegerToFloat", {"q", "b", "s", "bs", "z", "bz", w.bias ? "bias" : ""},
               {"y"}, {}, "", kMicrosoft);
      } else {
        m.node("MatMulInteger", {"q", "b", "z", "bz"}, {"i"})
            .node("Cast", {"i"}, {"f"}, {{"to", int64_t{kFloat}}})
            .node("Mul", {"bs", "s"}, {"ss"})
            .node("Mul", {"ss", "f"}, {w.bias ? "p" : "y"});
        if (w.bias) m.node("Add", {"bias", "p"}, {"y"});
      }
      const graph::Graph g = m.output("y").import();
      EXPECT_EQ(ops_of(g), "linear_dynamic");
      EXPECT_EQ(node_of(g, "linear_dynamic").attrs.get_string("rule"), "onnx");
      expect_same(g, x, expected_matmul(x, b, w, bias));
    }
}

TEST(OnnxDynamic, DynamicQuantizeMatMulBecomesALinearLayer) {
  const Tensor x = Tensor::randn({2, 5, 7}, 1), bias = Tensor::randn({3}, 2);
  for (const Weight& w : kWeights) {
    const Tensor b = codes({7, 3}, 3, w.dtype);
    OnnxModel m;
    m.input("x", {2, 5, 7})
        .constant("b", b)
        .constant("bs", scales(w, 3))
        .constant("bias", bias)
        .constant("bz", w.per_column ? Tensor::full({3}, static_cast<double>(w.zero), w.dtype)
                                     : Tensor::scalar(static_cast<double>(w.zero), w.dtype));
    m.node("DynamicQuantizeMatMul", {"x", "b", "bs", "bz", w.bias ? "bias" : ""}, {"y"}, {}, "",
           kMicrosoft);
    const graph::Graph g = m.output("y").import();
    EXPECT_EQ(ops_of(g), "linear_dynamic");
    expect_same(g, x, expected_matmul(x, b, w, bias));
  }
}

TEST(OnnxDynamic, ConvIntegerBecomesAConvolution) {
  const Tensor x = Tensor::randn({2, 4, 5, 5}, 1), bias = Tensor::randn({1, 6, 1, 1}, 2);
  for (const Weight& w : kWeights) {
    const Tensor k = codes({6, 2, 3, 3}, 3, w.dtype), s = scales(w, 6);
    OnnxModel m;
    m.input("x", {2, 4, 5, 5})
        .constant("k", k)
        .constant("ks", w.per_column ? s.reshape({6, 1, 1}) : s)
        .constant("kz", Tensor::scalar(static_cast<double>(w.zero), w.dtype))
        .constant("bias", bias);
    m.node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
        .node("ConvInteger", {"q", "k", "z", "kz"}, {"i"},
              {{"group", int64_t{2}}, {"pads", Ints{1, 0, 1, 0}}, {"strides", Ints{2, 1}}})
        .node("Cast", {"i"}, {"f"}, {{"to", int64_t{kFloat}}})
        .node("Mul", {"s", "ks"}, {"ss"})
        .node("Mul", {"f", "ss"}, {w.bias ? "p" : "y"});
    if (w.bias) m.node("Add", {"p", "bias"}, {"y"});
    const graph::Graph g = m.output("y").import();
    EXPECT_EQ(ops_of(g), "conv2d_dynamic");
    const Centered q = quantized(x);
    Tensor want = Tensor::empty({2, 6, 3, 3});
    for (int64_t i = 0; i < want.numel(); ++i) {
      const int64_t n = i / 54, o = i / 9 % 6;
      int64_t sum = 0;
      for (int64_t t = 0; t < 18; ++t) {
        const int64_t row = i / 3 % 3 * 2 + t / 3 % 3 - 1, column = i % 3 + t % 3,
                      c = o / 3 * 2 + t / 9;
        if (row < 0 || row >= 5) continue;  // padding is the zero point
        sum += q.steps[static_cast<size_t>(((n * 4 + c) * 5 + row) * 5 + column)] *
               (static_cast<int64_t>(k.at({o, t / 9, t / 3 % 3, t % 3})) - w.zero);
      }
      const float v = static_cast<float>(sum) * (q.scale * scale_of(s, o));
      want.data<float>()[i] = w.bias ? v + bias.data<float>()[o] : v;
    }
    expect_same(g, x, want);
  }
}

// Two layers of one quantization, one of whose results is needed as integers too.
TEST(OnnxDynamic, WhatElseReadsThePartsKeepsThem) {
  OnnxModel m;
  m.input("x", {1, 2}).constant("b", Tensor::from(std::vector<int8_t>{1, 2, 3, 4}, {2, 2}));
  m.constant("bs", Tensor::scalar(0.5))
      .node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
      .node("MatMulInteger", {"q", "b", "z"}, {"i"})
      .node("Cast", {"i"}, {"f"}, {{"to", int64_t{kFloat}}})
      .node("Mul", {"s", "bs"}, {"ss"})
      .node("Mul", {"f", "ss"}, {"y"});
  const graph::Graph g = m.output("y").output("i", kInt32).import();
  EXPECT_EQ(ops_of(g), "quantize_dynamic matmul_integer linear_dynamic");
  const std::vector<Tensor> got = run_graph(g, {Tensor::from<float>({0, 2.55f}, {1, 2})});
  EXPECT_EQ(got[1].to_vector<int32_t>(), (std::vector<int32_t>{765, 1020}));
}

TEST(OnnxDynamic, ScalesOfOtherTensorsAreNotTheLayers) {
  OnnxModel m;
  m.input("x", {1, 2})
      .input("t", {})
      .constant("b", Tensor::from(std::vector<int8_t>{1, 2, 3, 4}, {2, 2}))
      .node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
      .node("MatMulInteger", {"q", "b", "z"}, {"i"})
      .node("Cast", {"i"}, {"f"}, {{"to", int64_t{kFloat}}})
      .node("Mul", {"f", "t"}, {"y"});
  const graph::Graph g = m.output("y").import();
  EXPECT_EQ(count_ops(g, "linear_dynamic"), 0);
  const Tensor y = run_one(g, {Tensor::from<float>({0, 2.55f}, {1, 2}), Tensor::scalar(2)});
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{1530, 2040}));
}

// DynamicQuantizeLinear and DequantizeLinear around a float layer with a quantized weight.
TEST(OnnxDynamic, FloatLayersOnDequantizedCodes) {
  OnnxModel m;
  m.input("x", {2, 5})
      .constant("w", codes({5, 3}, 1, DType::int8))
      .constant("ws", floats({0.01f, 0.02f, 0.03f}))
      .constant("wz", Tensor::zeros({3}, DType::int8))
      .constant("bias", floats({1, 2, 3}));
  m.node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
      .node("DequantizeLinear", {"q", "s", "z"}, {"d"})
      .node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {{"axis", int64_t{1}}})
      .node("Gemm", {"d", "wd", "bias"}, {"y"});
  const graph::Graph g = m.output("y").import();
  EXPECT_EQ(ops_of(g), "linear_dynamic");
  const Tensor x = Tensor::randn({2, 5}, 2);
  const Centered q = quantized(x);
  Tensor steps = Tensor::empty({2, 5});
  for (int64_t i = 0; i < 10; ++i)
    steps.data<float>()[i] = static_cast<float>(q.steps[static_cast<size_t>(i)]) * q.scale;
  const Tensor w = ops::call("mul", {codes({5, 3}, 1, DType::int8).to(DType::float32),
                                     Tensor::from<float>({0.01f, 0.02f, 0.03f}, {3})});
  EXPECT_TRUE(allclose(run_one(g, {x}),
                       ops::call("add", {ops::call("matmul", {steps, w}), floats({1, 2, 3})}), 1e-6,
                       1e-6));
}

// ONNX's gates are input, output, forget, candidate; W and R are transposed.
TEST(OnnxDynamic, DynamicQuantizeLSTM) {
  for (bool per_row : {false, true})
    for (bool both : {false, true}) {
      const int64_t d = both ? 2 : 1, h = 4, n = 3;
      const Tensor w = codes({d, n, 4 * h}, 1, DType::int8),
                   r = codes({d, h, 4 * h}, 2, DType::int8), b = Tensor::randn({d, 8 * h}, 3),
                   x = Tensor::randn({5, 1, n}, 4);
      const Shape of_scales = per_row ? Shape{d, 4 * h} : Shape{d};
      const Tensor ws = Tensor::rand(of_scales, 5, 0.01, 0.02),
                   rs = Tensor::rand(of_scales, 6, 0.01, 0.02);
      OnnxModel m, parts;
      m.input("x", {5, 1, 3})
          .constant("w", w)
          .constant("r", r)
          .constant("b", b)
          .constant("ws", ws)
          .constant("rs", rs)
          .constant("z", Tensor::zeros(of_scales, DType::int8));
      const OnnxAttrs attrs{{"hidden_size", h},
                            {"direction", std::string(both ? "bidirectional" : "forward")}};
      m.node("DynamicQuantizeLSTM", {"x", "w", "r", "b", "", "", "", "", "ws", "z", "rs", "z"},
             {"y"}, attrs, "", kMicrosoft);
      const graph::Graph g = m.output("y").import();
      EXPECT_EQ(count_ops(g, "lstm"), d);
      const graph::Node& cell = node_of(g, "lstm");
      EXPECT_EQ(cell.attrs.get_string("rule"), "onnx");
      EXPECT_EQ(g.type(cell.inputs[3]).dtype, DType::qint8);
      // The float layer of the same weights, from which quantizing x and h differs little.
      auto numbers = [&](const Tensor& t, const Tensor& s) {
        const Shape shape = per_row ? Shape{d, 1, 4 * h} : Shape{d, 1, 1};
        return ops::call("mul", {t.to(DType::float32), s.reshape(shape)})
            .transpose(1, 2)
            .contiguous();
      };
      parts.input("x", {5, 1, 3})
          .constant("w", numbers(w, ws))
          .constant("r", numbers(r, rs))
          .constant("b", b);
      parts.node("LSTM", {"x", "w", "r", "b"}, {"y"}, attrs).output("y");
      EXPECT_TRUE(allclose(run_one(g, {x}), run_one(parts.import(), {x}), 0, 0.02));
      EXPECT_TRUE(equal(runtime::compile(g).run({x})[0], run_one(g, {x})));
    }
}

TEST(OnnxDynamic, QAttentionMultipliesCodes) {
  const Tensor w = codes({6, 12}, 1, DType::int8), bias = Tensor::randn({12}, 2),
               x = Tensor::randn({2, 3, 6}, 3);
  const Tensor mask = Tensor::from(std::vector<int32_t>{1, 1, 1, 1, 1, 0}, {2, 3});
  OnnxModel m;
  m.input("x", {2, 3, 6})
      .constant("w", w)
      .constant("b", bias)
      .constant("ws", Tensor::scalar(0.01))
      .constant("wz", Tensor::scalar(0, DType::int8))
      .constant("mask", mask);
  m.node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
      .node("QAttention", {"q", "w", "b", "s", "ws", "mask", "z", "wz"}, {"y"},
            {{"num_heads", int64_t{2}}}, "", kMicrosoft);
  const graph::Graph g = m.output("y").import();
  EXPECT_EQ(count_ops(g, "linear_dynamic"), 1);
  EXPECT_EQ(count_ops(g, "matmul_integer"), 0);
  // Queries, keys and values of two heads of two numbers each.
  const Centered q = quantized(x);
  auto qkv = [&](int64_t row, int64_t column) {
    int64_t sum = 0;
    for (int64_t p = 0; p < 6; ++p)
      sum += q.steps[static_cast<size_t>(row * 6 + p)] * static_cast<int64_t>(w.at({p, column}));
    return static_cast<double>(sum) * q.scale * 0.01f + bias.data<float>()[column];
  };
  Tensor want = Tensor::empty({2, 3, 4});
  for (int64_t i = 0; i < want.numel(); ++i) {
    const int64_t row = i / 4, batch = i / 12, head = i % 4 / 2;
    double total = 0, sum = 0;
    for (int64_t k = 0; k < 3; ++k) {
      double score = 0;
      for (int64_t e = 0; e < 2; ++e)
        score += qkv(row, head * 2 + e) * qkv(batch * 3 + k, 4 + head * 2 + e);
      const double weight =
          std::exp(score / std::sqrt(2.0) - (mask.at({batch, k}) == 0 ? 10000 : 0));
      total += weight;
      sum += weight * qkv(batch * 3 + k, 8 + i % 4);
    }
    want.data<float>()[i] = static_cast<float>(sum / total);
  }
  EXPECT_TRUE(allclose(run_one(g, {x}), want, 1e-4, 1e-5));
}

// Written as the nodes they were read from, and read again.
TEST(OnnxDynamic, LayersComeBackFromAnExport) {
  OnnxModel m;
  m.input("x", {2, 4, 5, 5})
      .constant("k", codes({6, 2, 3, 3}, 3, DType::uint8))
      .constant("ks", Tensor::rand({6, 1, 1}, 4, 0.01, 0.02))
      .constant("kz", Tensor::scalar(131, DType::uint8))
      .constant("bias", Tensor::randn({1, 6, 1, 1}, 2))
      .constant("b", codes({54, 3}, 5, DType::int8))
      .constant("bs", Tensor::scalar(0.01));
  m.node("DynamicQuantizeLinear", {"x"}, {"q", "s", "z"})
      .node("ConvInteger", {"q", "k", "z", "kz"}, {"i"}, {{"group", int64_t{2}}})
      .node("Cast", {"i"}, {"f"}, {{"to", int64_t{kFloat}}})
      .node("Mul", {"s", "ks"}, {"ss"})
      .node("Mul", {"f", "ss"}, {"p"})
      .node("Add", {"p", "bias"}, {"a"})
      .node("Relu", {"a"}, {"r"})
      .node("Flatten", {"r"}, {"flat"})
      .node("DynamicQuantizeMatMul", {"flat", "b", "bs"}, {"y"}, {}, "", kMicrosoft);
  const graph::Graph g = m.output("y").import();
  ASSERT_EQ(ops_of(g), "conv2d_dynamic relu flatten linear_dynamic");
  const graph::Graph back = io::import_onnx_bytes(io::to_onnx_bytes(g), "back.onnx");
  EXPECT_EQ(ops_of(back), ops_of(g));
  const Tensor x = Tensor::randn({2, 4, 5, 5}, 1);
  EXPECT_TRUE(equal(run_one(back, {x}), run_one(g, {x})));
}

TEST(OnnxDynamic, PyTorchsRuleGoesOutAsOnnxsButSevenBitsDoNot) {
  graph::Graph g;
  const graph::ValueId x = g.add_input("x", TensorType(DType::float32, {Dim(2), Dim(4)}));
  const graph::ValueId w =
      g.add_constant("w", quantize_per_tensor(Tensor::randn({3, 4}, 1), 0.02f, 0, DType::qint8));
  g.set_outputs({g.add_call("y", "linear_dynamic", {x, w})});
  const graph::Graph back = io::import_onnx_bytes(io::to_onnx_bytes(g));
  EXPECT_EQ(ops_of(back), "linear_dynamic");
  EXPECT_EQ(node_of(back, "linear_dynamic").attrs.get_string("rule"), "onnx");
  const Tensor data = Tensor::randn({2, 4}, 2);
  // A zero point may be one off: one step of x, 1/255 of its range, times the weights.
  EXPECT_TRUE(allclose(run_one(back, {data}), run_one(g, {data}), 0.0, 0.05));
  g.set_outputs({g.add_call("z", "linear_dynamic", {x, w}, {{"reduce_range", true}})});
  expect_error(ErrorCode::unsupported, {"linear_dynamic", "7 bits"}, [&] { io::to_onnx_bytes(g); });
}

}  // namespace
}  // namespace octet::testing
