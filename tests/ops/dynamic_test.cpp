#include <cmath>

#include "octet/engine/engine.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

// A layer of every kind with a float and a per-channel qint8 weight.
struct Layer {
  std::string op;
  Shape x, w;
  int64_t axis, out;
  Attrs attrs;
};

std::vector<Layer> layers() {
  std::vector<Layer> all{{"linear", {3, 7}, {5, 7}, 0, 5, {}}};
  for (bool transposed : {false, true})
    for (size_t d = 1; d <= 3; ++d) {
      Layer l{(transposed ? "conv_transpose" : "conv") + std::to_string(d) + "d",
              {2, 4},
              {4, 2},
              0,
              4,
              {{"groups", int64_t{2}}}};
      if (transposed) l.axis = 1;
      for (size_t i = 0; i < d; ++i) {
        l.x.push_back(5);
        l.w.push_back(3);
      }
      l.attrs.set("stride", Ints(d, 2));
      l.attrs.set("padding", Ints(2 * d, 1));
      if (transposed) l.attrs.set("output_padding", Ints(d, 1));
      all.push_back(l);
    }
  return all;
}

Tensor quantized_weight(const Layer& l, uint64_t seed) {
  std::vector<double> scales;
  for (int64_t i = 0; i < l.w[l.axis]; ++i)
    scales.push_back(static_cast<float>(0.01 + 0.003 * static_cast<double>(i)));
  return quantize_per_channel(Tensor::randn(l.w, seed), scales, Ints(scales.size(), 0), l.axis,
                              DType::qint8);
}

// What a dynamic layer computes, in the float layer's own arithmetic, which is exact on such small
// integers: the products of the codes, then f(f(acc * f(s_x*s_w)) + bias).
Tensor by_the_formula(const Layer& l, const Tensor& x, const Tensor& w, const Tensor& bias,
                      bool reduce_range, bool onnx = false) {
  const float* v = x.data<float>();
  auto [min, max] = std::minmax_element(v, v + x.numel());
  auto q = onnx ? affine::choose_qparams_onnx(*min, *max)
                : affine::choose_qparams_dynamic(*min, *max, 0, 255, reduce_range);
  const auto code = onnx ? affine::quantize_divided : affine::quantize;
  const auto scale = static_cast<float>(q.scale);
  Tensor steps = Tensor::empty(x.shape());
  for (int64_t i = 0; i < x.numel(); ++i)
    steps.data<float>()[i] =
        static_cast<float>(code(v[i], scale, q.zero_point, 0, 255) - q.zero_point);
  Tensor acc = ops::call(l.op, {steps, w.int_repr().to(DType::float32)}, l.attrs).contiguous();
  const int64_t channels = l.out,
                inner = l.op == "linear" ? 1 : acc.numel() / acc.size(0) / channels;
  Tensor y = Tensor::empty(acc.shape());
  for (int64_t i = 0; i < y.numel(); ++i) {
    const int64_t c = i / inner % channels;
    const auto sw = static_cast<float>(w.quantizer()->scale(c % l.w[l.axis]));
    y.data<float>()[i] = acc.data<float>()[i] * (scale * sw) + bias.data<float>()[c];
  }
  return y;
}

TEST(Dynamic, EveryLayerFollowsTheFormula) {
  uint64_t seed = 1;
  for (const char* engine : {"native", "reference"}) {
    set_engine(engine);
    for (const Layer& l : layers())
      for (bool reduce_range : {false, true}) {
        Tensor x = Tensor::randn(l.x, seed++), w = quantized_weight(l, seed++),
               bias = Tensor::randn({l.out}, seed++);
        Attrs attrs = Attrs(l.attrs).set("reduce_range", reduce_range);
        Tensor y = ops::call(l.op + "_dynamic", {x, w, bias}, attrs);
        expect_equal(y, by_the_formula(l, x, w, bias, reduce_range), l.op + " " + engine);
        // half a step of x per product
        EXPECT_TRUE(allclose(y, ops::call(l.op, {x, w.dequantize(), bias}, l.attrs), 0, 0.4))
            << l.op;
        for (auto [name, most] : {std::pair{"relu", 1e30f}, std::pair{"relu6", 6.0f}}) {
          Tensor z =
              ops::call(l.op + "_dynamic", {x, w, bias}, Attrs(attrs).set("activation", name))
                  .contiguous();
          Tensor plain = y.contiguous();
          for (int64_t i = 0; i < z.numel(); ++i)
            ASSERT_EQ(z.data<float>()[i], std::min(most, std::max(0.0f, plain.data<float>()[i])));
        }
      }
    set_engine("native");
  }
}

TEST(Dynamic, EveryLayerFollowsTheFormulaByOnnxsRule) {
  uint64_t seed = 900;
  for (const char* engine : {"native", "reference", "onednn"}) {
    set_engine(engine);
    for (const Layer& l : layers()) {
      Tensor x = Tensor::randn(l.x, seed++), w = quantized_weight(l, seed++),
             bias = Tensor::randn({l.out}, seed++);
      Tensor y = ops::call(l.op + "_dynamic", {x, w, bias},
                           Attrs(l.attrs).set("rule", std::string("onnx")));
      expect_equal(y, by_the_formula(l, x, w, bias, false, true), l.op + " " + engine);
    }
    set_engine("native");
  }
}

// The products of the codes as they are, scaled as by_the_formula has it.
TEST(Dynamic, CodesAreTakenAsTheyAre) {
  uint64_t seed = 1900;
  for (const char* engine : {"native", "reference", "onednn"}) {
    set_engine(engine);
    for (const Layer& l : layers())
      for (DType dtype : {DType::quint8, DType::qint8}) {
        const Tensor x = quantize_per_tensor(Tensor::randn(l.x, seed++), 0.03f,
                                             dtype == DType::quint8 ? 100 : -7, dtype),
                     w = quantized_weight(l, seed++), bias = Tensor::randn({l.out}, seed++);
        const Tensor codes = x.int_repr().to(DType::float32).contiguous();
        Tensor whole = Tensor::empty(codes.shape());
        for (int64_t i = 0; i < whole.numel(); ++i)
          whole.data<float>()[i] =
              codes.data<float>()[i] - static_cast<float>(x.quantizer()->zero_point());
        const Tensor acc =
            ops::call(l.op, {whole, w.int_repr().to(DType::float32)}, l.attrs).contiguous();
        const int64_t inner = l.op == "linear" ? 1 : acc.numel() / acc.size(0) / l.out;
        Tensor want = Tensor::empty(acc.shape());
        for (int64_t i = 0; i < want.numel(); ++i) {
          const int64_t c = i / inner % l.out;
          const auto sw = static_cast<float>(w.quantizer()->scale(c % l.w[l.axis]));
          want.data<float>()[i] = acc.data<float>()[i] * (0.03f * sw) + bias.data<float>()[c];
        }
        const Tensor y = ops::call(l.op + "_dynamic", {x, w, bias}, l.attrs);
        EXPECT_EQ(y.dtype(), DType::float32);
        expect_equal(y, want, l.op + " " + engine);
      }
    set_engine("native");
  }
}

TEST(Dynamic, CodesPerChannelAreNotTaken) {
  const Layer l = layers()[0];
  const Tensor x =
      quantize_per_channel(Tensor::randn({3, 7}, 1), {0.1, 0.2, 0.3}, {0, 0, 0}, 0, DType::qint8);
  expect_error(ErrorCode::invalid_argument, {"linear_dynamic", "codes of 8 bits with one scale"},
               [&] {
                 ops::call("linear_dynamic", {x, quantized_weight(l, 1)});
               });
}

TEST(Dynamic, OnnxsRuleForARange) {
  auto check = [](float min, float max, double scale, int32_t zero_point) {
    const affine::RunTimeQParams q = affine::choose_qparams_onnx(min, max);
    EXPECT_EQ(q.scale, scale);
    EXPECT_EQ(q.zero_point, zero_point);
  };
  check(-3, 2.1f, (2.1f + 3) / 255, 150);
  check(1, 5.1f, 5.1f / 255, 0);  // the range holds 0
  check(-5.1f, -1, 5.1f / 255, 255);
  check(0, 0, 1, 0);
  check(-1e-30f, 1e-30f, 2e-30f / 255, 128);  // the smallest scale of PyTorch's rule is not here
}

TEST(Dynamic, UnknownRules) {
  Layer l = layers()[0];
  auto run = [&](const Attrs& attrs) {
    return [=] {
      ops::call("linear_dynamic", {Tensor::zeros({1, 7}), quantized_weight(l, 1)}, attrs);
    };
  };
  expect_error(ErrorCode::invalid_argument, {"linear_dynamic", "rule=\"tflite\"", "\"onnx\""},
               run({{"rule", std::string("tflite")}}));
  expect_error(ErrorCode::invalid_argument, {"reduce_range"},
               run({{"rule", std::string("onnx")}, {"reduce_range", true}}));
}

TEST(Dynamic, AnEmptyBatchGivesAnEmptyResult) {
  Layer l = layers()[0];
  EXPECT_EQ(ops::call("linear_dynamic", {Tensor::empty({0, 7}), quantized_weight(l, 1)}).shape(),
            (Shape{0, 5}));
}

TEST(Dynamic, ZerosGiveTheBias) {
  Layer l = layers()[0];
  Tensor bias = Tensor::randn({5}, 2);
  expect_equal(ops::call("linear_dynamic", {Tensor::zeros({1, 7}), quantized_weight(l, 1), bias}),
               bias.reshape({1, 5}));
}

TEST(Dynamic, ValuesThatAreNotFiniteAreCounted) {
  Layer l = layers()[0];
  Tensor w = quantized_weight(l, 1), x = Tensor::randn({2, 7}, 2);
  x.data<float>()[3] = NAN;
  x.data<float>()[9] = -INFINITY;
  for (const char* engine : {"native", "reference"}) {
    set_engine(engine);
    expect_error(ErrorCode::invalid_argument,
                 {"linear_dynamic", "2 of the input's values are NaN or infinite"}, [&] {
                   ops::call("linear_dynamic", {x, w});
                 });
    set_engine("native");
  }
}

TEST(Dynamic, Float16WeightsComputeInFloat32) {
  for (const Layer& l : layers())
    for (const char* form : {"_dynamic", "_weight_only"}) {
      Tensor x = Tensor::randn(l.x, 1), w = Tensor::randn(l.w, 2).to(DType::float16),
             bias = Tensor::randn({l.out}, 3);
      expect_equal(ops::call(l.op + form, {x, w, bias}, l.attrs),
                   ops::call(l.op, {x, w.to(DType::float32), bias}, l.attrs), l.op);
    }
}

TEST(WeightOnly, EveryLayerMultipliesByTheDequantizedWeight) {
  for (const Layer& l : layers()) {
    Tensor x = Tensor::randn(l.x, 1), w = quantized_weight(l, 2), bias = Tensor::randn({l.out}, 3);
    const Tensor got = ops::call(l.op + "_weight_only", {x, w, bias}, l.attrs),
                 expected = ops::call(l.op, {x, w.dequantize(), bias}, l.attrs);
    // Linear layers sum in a fixed point of their own (docs/numerics.md).
    if (l.op == "linear")
      EXPECT_TRUE(allclose(got, expected, 1e-6, 1e-6));
    else
      expect_equal(got, expected, l.op);
  }
}

// As a float sum rounds: to 2^-23 of the largest value of the row, whatever the others are.
TEST(WeightOnly, LinearIsAsExactAsFloat32) {
  const int64_t k = 1000, n = 20;
  for (const DType dtype : {DType::qint8, DType::qint4x2, DType::quint4x2}) {
    Tensor x = Tensor::randn({4, k}, 1), codes = Tensor::randn({n, k}, 2),
           bias = Tensor::randn({n}, 3);
    for (int64_t i = 0; i < x.numel(); ++i)
      x.data<float>()[i] *= i / k == 1 ? 1e-20f : i / k == 2 ? 1e20f : 1.0f;
    Tensor w = quantize_per_tensor(codes, 0.1, dtype == DType::quint4x2 ? 7 : 0, dtype),
           real = w.dequantize();
    const Tensor y = ops::call("linear_weight_only", {x, w, bias});
    for (int64_t m = 0; m < 4; ++m)
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0, size = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double product = static_cast<double>(x.data<float>()[m * k + i]) *
                                 static_cast<double>(real.data<float>()[j * k + i]);
          sum += product;
          size += std::abs(product);
        }
        sum += static_cast<double>(bias.data<float>()[j]);
        EXPECT_NEAR(y.data<float>()[m * n + j], sum, std::abs(sum) * 0x1p-23 + size * 0x1p-22)
            << to_string(dtype) << " " << m << " " << j;
      }
  }
}

TEST(WeightOnly, ARowThatIsNotFiniteIsNaNAndLeavesTheOthersAlone) {
  const Layer l = layers()[0];
  Tensor w = quantized_weight(l, 1), x = Tensor::randn({3, 7}, 2),
         good = ops::call("linear_weight_only", {x, w});
  for (const float bad : {NAN, INFINITY}) {
    Tensor with = x.clone();
    with.data<float>()[7 + 3] = bad;
    for (const char* activation : {"none", "relu"}) {
      const Tensor y =
          ops::call("linear_weight_only", {with, w}, {{"activation", std::string(activation)}});
      for (int64_t i = 0; i < 15; ++i) {
        const float v = y.data<float>()[i], expected = good.data<float>()[i];
        if (i / 5 == 1)
          EXPECT_TRUE(std::isnan(v)) << activation;
        else
          EXPECT_EQ(v, std::string(activation) == "relu" ? std::max(expected, 0.0f) : expected);
      }
    }
  }
}

TEST(WeightOnly, OtherWeightsAreDequantized) {
  Tensor x = Tensor::randn({2, 6}, 1), table = Tensor::randn({3, 6}, 2);
  Tensor w = quantize_per_channel_float(table, {0.1, 0.2, 0.3}, {7.5, 7, 6.25}, 0, DType::quint4x2);
  expect_equal(ops::call("linear_weight_only", {x, w}), ops::call("linear", {x, w.dequantize()}));
}

TEST(DynamicTypes, SymbolicBatchesPass) {
  EXPECT_EQ(infer_text("linear_dynamic", {"Float(N, T, 4)", "QInt8(3, 4) scale=0.1 zero_point=0"}),
            "Float(N, T, 3)");
  EXPECT_EQ(infer_text("conv2d_dynamic",
                       {"Float(N, 2, 5, 5)", "QInt8(3, 2, 3, 3) scale=0.1 zero_point=0"}),
            "Float(N, 3, 3, 3)");
}

TEST(DynamicTypes, ErrorsSayWhatIsExpected) {
  auto fails = [](const std::string& op, const std::vector<std::string>& inputs,
                  const std::vector<std::string>& parts,
                  const std::optional<QType>& want = std::nullopt) {
    expect_error(ErrorCode::invalid_argument, parts, [&] { infer_text(op, inputs, {}, want); });
  };
  const std::string w = "QInt8(3, 4) scale=0.1 zero_point=0";
  fails("linear_dynamic", {"Float(2, 5)", w}, {"linear_dynamic", "5 features", "expects 4"});
  fails("linear_weight_only", {"QUInt8(2, 4) scale=0.1 zero_point=0", w},
        {"linear_weight_only", "input is QUInt8", "expected float32"});
  fails("linear_dynamic", {"Float(2, 4)", "Float(3, 4)"},
        {"weight is Float(3, 4)", "expected qint8, quint8, qint4x2, quint4x2 or float16"});
  fails("linear_weight_only", {"Double(2, 4)", w},
        {"linear_weight_only", "input is Double", "computes in"});
  fails("linear_dynamic",
        {"Float(2, 4)", "QInt8(3, 4) axis=1 scale=[0.1, 0.1, 0.1, 0.1] zero_point=0"},
        {"axis 1", "(3, 4)", "axis 0"});
  fails("conv_transpose2d_dynamic",
        {"Float(1, 2, 4, 4)", "QInt8(2, 2, 1, 1) axis=0 scale=[0.1, 0.1] zero_point=0"},
        {"axis 0", "(2, 2, 1, 1)", "axis 1"});
  fails("linear_dynamic", {"Float(2, 4)", w}, {"no quantized form"},
        QType{DType::quint8, Quantizer::per_tensor(1, 0, DType::quint8)});
}

TEST(ChooseQparamsDynamic, RefusesRangesThatAreNone) {
  expect_error(ErrorCode::invalid_argument, {"range nan"},
               [] { affine::choose_qparams_dynamic(NAN, 1); });
  expect_error(ErrorCode::invalid_argument, {"range 2..1"},
               [] { affine::choose_qparams_dynamic(2, 1); });
}

}  // namespace
}  // namespace octet::testing
