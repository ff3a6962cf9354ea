// Codes of 16 bits: every engine, instruction set and number of threads against the formulas of
// docs/numerics.md, computed here in 64 bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "octet/base/random.h"
#include "octet/engine/engine.h"
#include "octet/ops/op.h"
#include "tests/engine/bits.h"
#include "tests/engine/defaults.h"
#include "tests/engine/slack.h"

namespace octet {
namespace {

using testing::Defaults;

struct Sample {
  std::string op;
  std::vector<Tensor> inputs;
  Attrs attrs;
  std::optional<ops::QType> want;
};

class Samples {
 public:
  explicit Samples(uint64_t seed) : random_(seed) {}
  int64_t integer(int64_t lo, int64_t hi) { return random_.integer(lo, hi); }
  bool chance(double p) { return random_.uniform() < p; }
  double scale(double least, double most) {
    return static_cast<float>(std::pow(10.0, random_.uniform(least, most)));
  }
  // Of values between layers; `wide`: of 16 bits.
  DType dtype(bool wide) {
    return wide ? (chance(0.5) ? DType::quint16 : DType::qint16)
                : (chance(0.5) ? DType::quint8 : DType::qint8);
  }
  DType dtype() { return dtype(chance(0.7)); }
  int64_t code(DType t, double extreme) {
    return chance(extreme) ? (chance(0.5) ? qmin(t) : qmax(t)) : integer(qmin(t), qmax(t));
  }
  Tensor codes(const Shape& shape, DType t, QuantizerPtr q) {
    const double extreme = chance(0.3) ? 0.9 : 0.05;
    Tensor plain = Tensor::empty(shape, DType::int32);
    for (int64_t i = 0; i < plain.numel(); ++i)
      plain.data<int32_t>()[i] = static_cast<int32_t>(code(t, extreme));
    Tensor x = make_quantized(plain.to(code_dtype(t)), std::move(q));
    return x.dim() == 4 && chance(0.5) ? x.contiguous(MemoryFormat::channels_last) : x;
  }
  Tensor activation(const Shape& shape, DType t) {
    return codes(shape, t, Quantizer::per_tensor(scale(-5, -1), code(t, 0.2), t));
  }
  Tensor weight(const Shape& shape, DType t, int64_t axis = 0) {
    const int64_t middle = qmin(t) < 0 ? 0 : (qmax(t) + 1) / 2;
    if (chance(0.3))
      return codes(shape, t, Quantizer::per_tensor(scale(-4, 0), code(t, 0.1), t)).contiguous();
    std::vector<double> scales;
    std::vector<int64_t> zeros;
    const bool zero_points = chance(0.2);
    for (int64_t i = 0; i < shape[static_cast<size_t>(axis)]; ++i) {
      scales.push_back(scale(-4, 0));
      zeros.push_back(zero_points ? code(t, 0.1) : middle);
    }
    return codes(shape, t, Quantizer::per_channel(scales, zeros, axis, t)).contiguous();
  }
  Tensor bias(int64_t n) {
    return chance(0.3) ? Tensor() : Tensor::rand({n}, random_.next(), -100, 100);
  }
  ops::QType result(DType t, double least, double most) {
    return {t, Quantizer::per_tensor(scale(least, most), code(t, 0.2), t)};
  }
  std::string activation_name() { return chance(0.5) ? "none" : chance(0.7) ? "relu" : "relu6"; }

 private:
  Random random_;
};

// -- the formulas ---------------------------------------------------------------------------------

int64_t code_at(const Tensor& x, std::vector<int64_t> index) {
  return static_cast<int64_t>(x.int_repr().at(index));
}

int64_t to_code(float v, const TensorType& y, int64_t lo, int64_t hi) {
  const double q =
      static_cast<double>(std::nearbyint(v)) + static_cast<double>(y.quantizer->zero_point());
  return static_cast<int64_t>(std::clamp(q, static_cast<double>(lo), static_cast<double>(hi)));
}

// The lowest and the highest code under a fused activation.
std::pair<int64_t, int64_t> clamps(const TensorType& y, const std::string& activation) {
  const auto inverse = 1.0f / static_cast<float>(y.quantizer->scale());
  const int64_t six = to_code(6.0f * inverse, y, qmin(y.dtype), qmax(y.dtype));
  return {activation == "none" ? qmin(y.dtype) : std::max(qmin(y.dtype), y.quantizer->zero_point()),
          activation == "relu6" ? six : qmax(y.dtype)};
}

// What a layer makes of the exact sum of channel c.
int64_t layer_code(const Sample& s, const TensorType& y, int64_t sum, int64_t c, int64_t scale_of) {
  const auto sx = static_cast<float>(s.inputs[0].quantizer()->scale()),
             sw = static_cast<float>(s.inputs[1].quantizer()->scale(scale_of)),
             sy = static_cast<float>(y.quantizer->scale());
  const float sxw = sx * sw;
  if (s.inputs.size() > 2 && s.inputs[2].defined())
    sum += std::llrint(std::nearbyint(static_cast<float>(s.inputs[2].at({c})) / sxw));
  const auto [lo, hi] = clamps(y, s.attrs.get_string("activation"));
  return to_code(static_cast<float>(sum) * (sxw / sy), y, lo, hi);
}

Tensor linear_codes(const Sample& s, const TensorType& y) {
  const Tensor x = s.inputs[0].reshape({-1, s.inputs[0].size(-1)}), w = s.inputs[1];
  Tensor codes = Tensor::empty({x.size(0), w.size(0)}, DType::int32);
  for (int64_t i = 0; i < x.size(0); ++i)
    for (int64_t n = 0; n < w.size(0); ++n) {
      int64_t sum = 0;
      for (int64_t k = 0; k < x.size(1); ++k)
        sum += (code_at(x, {i, k}) - x.q_zero_point()) *
               (code_at(w, {n, k}) - w.quantizer()->zero_point(n));
      codes.data<int32_t>()[i * w.size(0) + n] = static_cast<int32_t>(layer_code(s, y, sum, n, n));
    }
  return codes.reshape(y.shape());
}

Tensor conv_codes(const Sample& s, const TensorType& type) {
  const Tensor &x = s.inputs[0], &w = s.inputs[1];
  const auto &stride = s.attrs.get_ints("stride"), &pad = s.attrs.get_ints("padding"),
             &dilation = s.attrs.get_ints("dilation");
  const Shape shape = type.shape();
  const int64_t groups = s.attrs.get_int("groups"), per_group = shape[1] / groups;
  Tensor codes = Tensor::empty(shape, DType::int32);
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t c = 0; c < shape[1]; ++c)
      for (int64_t oy = 0; oy < shape[2]; ++oy)
        for (int64_t ox = 0; ox < shape[3]; ++ox) {
          int64_t sum = 0;
          for (int64_t i = 0; i < w.size(1); ++i)
            for (int64_t ky = 0; ky < w.size(2); ++ky)
              for (int64_t kx = 0; kx < w.size(3); ++kx) {
                const int64_t iy = oy * stride[0] - pad[0] + ky * dilation[0],
                              ix = ox * stride[1] - pad[1] + kx * dilation[1];
                if (iy < 0 || iy >= x.size(2) || ix < 0 || ix >= x.size(3)) continue;
                sum += (code_at(x, {n, c / per_group * w.size(1) + i, iy, ix}) - x.q_zero_point()) *
                       (code_at(w, {c, i, ky, kx}) - w.quantizer()->zero_point(c));
              }
          codes.data<int32_t>()[((n * shape[1] + c) * shape[2] + oy) * shape[3] + ox] =
              static_cast<int32_t>(layer_code(s, type, sum, c, c));
        }
  return codes;
}

Tensor matmul_codes(const Sample& s, const TensorType& type) {
  const Tensor &a = s.inputs[0], &b = s.inputs[1];
  const auto sa = static_cast<float>(a.q_scale()), sb = static_cast<float>(b.q_scale()),
             sy = static_cast<float>(type.quantizer->scale());
  Tensor codes = Tensor::empty(type.shape(), DType::int32);
  for (int64_t i = 0; i < a.size(0); ++i)
    for (int64_t j = 0; j < b.size(1); ++j) {
      int64_t sum = 0;
      for (int64_t k = 0; k < a.size(1); ++k)
        sum += (code_at(a, {i, k}) - a.q_zero_point()) * (code_at(b, {k, j}) - b.q_zero_point());
      codes.data<int32_t>()[i * b.size(1) + j] = static_cast<int32_t>(to_code(
          static_cast<float>(sum) * (sa * sb / sy), type, qmin(type.dtype), qmax(type.dtype)));
    }
  return codes;
}

// a op b of one shape.
Tensor binary_codes(const Sample& s, const TensorType& type) {
  const Tensor &a = s.inputs[0], &b = s.inputs[1];
  const auto sa = static_cast<float>(a.q_scale()), sb = static_cast<float>(b.q_scale()),
             inverse = 1.0f / static_cast<float>(type.quantizer->scale());
  const auto [lo, hi] = clamps(type, s.op == "sub" ? "none" : s.attrs.get_string("activation"));
  const std::vector<int32_t> qa = a.int_repr().to(DType::int32).to_vector<int32_t>(),
                             qb = b.int_repr().to(DType::int32).to_vector<int32_t>();
  Tensor codes = Tensor::empty(type.shape(), DType::int32);
  for (size_t i = 0; i < qa.size(); ++i) {
    const int64_t p = qa[i] - a.q_zero_point(), q = qb[i] - b.q_zero_point();
    float v = 0;
    if (s.op == "mul") {
      v = static_cast<float>(p * q) * ((sa * sb) * inverse);
    } else {
      const float da = sa * static_cast<float>(p), db = sb * static_cast<float>(q);
      v = (s.op == "add" ? da + db : da - db) * inverse;
    }
    codes.data<int32_t>()[i] = static_cast<int32_t>(to_code(v, type, lo, hi));
  }
  return codes;
}

// -- every engine against them --------------------------------------------------------------------

using Oracle = std::function<Tensor(const Sample&, const TensorType&)>;

// The results of reference, and of native on every instruction set, against the oracle's codes; or
// native's against reference's where there is no oracle.
void expect_codes(int few, const std::function<Sample(Samples&)>& make, const Oracle& oracle) {
  Defaults defaults;
  constexpr int kAllCases = 21'000;  // as many of these for each of exactness_test.cpp's
  const int cases = testing::bits_cases(few, kAllCases);
  for (int i = 0; i < cases; ++i) {
    const uint64_t seed = testing::bits_seed(i);
    Samples g(seed);
    Sample s = make(g);
    s.attrs = ops::get(s.op).complete(s.attrs);
    set_engine("reference");
    const Tensor first = ops::call(s.op, s.inputs, s.attrs, s.want);
    if (oracle) {
      const Tensor want = oracle(s, first.type());
      ASSERT_TRUE(equal(first.int_repr().to(DType::int32), want))
          << s.op << ", seed " << seed << ": x " << to_string(s.inputs[0].type()) << ", w "
          << to_string(s.inputs.back().defined() ? s.inputs.back().type() : s.inputs[0].type())
          << ", y " << to_string(first.type());
    }
    set_engine("native");
    for (Isa isa : supported_isas()) {
      set_isa(isa);
      set_num_threads(testing::bits_threads(i, 40));
      testing::fill_slack(s.inputs, seed % 2 == 0 ? 255 : 127);
      // Weights keep what they were packed into: a new handle is packed anew.
      std::vector<Tensor> inputs = s.inputs;
      for (Tensor& t : inputs)
        if (t.defined())
          t = t.clone(t.dim() == 4 && !t.is_contiguous() ? MemoryFormat::channels_last
                                                         : MemoryFormat::contiguous);
      ASSERT_TRUE(equal(ops::call(s.op, inputs, s.attrs, s.want), first))
          << s.op << ", seed " << seed << ", " << to_string(isa) << ": x "
          << to_string(s.inputs[0].type()) << ", y " << to_string(first.type());
    }
  }
}

Sample conv_sample(Samples& g, int64_t in, int64_t out, int64_t groups) {
  const int64_t kh = g.integer(1, 3), kw = g.integer(1, 3), dh = g.integer(1, 2),
                dw = g.integer(1, 2);
  const int64_t h = std::max<int64_t>(dh * (kh - 1) + 1, g.integer(1, 5)),
                w = std::max<int64_t>(dw * (kw - 1) + 1, g.integer(1, 5));
  Attrs attrs{{"stride", std::vector<int64_t>{g.integer(1, 2), g.integer(1, 2)}},
              {"padding", std::vector<int64_t>{g.integer(0, 2), g.integer(0, 2), g.integer(0, 2),
                                               g.integer(0, 2)}},
              {"dilation", std::vector<int64_t>{dh, dw}},
              {"groups", groups},
              {"activation", g.activation_name()}};
  const DType x = g.dtype(), y = g.dtype(is_8_bit(x) || g.chance(0.6));
  return {"conv2d",
          {g.activation({g.integer(1, 2), in * groups, h, w}, x),
           g.weight({out * groups, in, kh, kw}, g.dtype(g.chance(0.2))), g.bias(out * groups)},
          attrs,
          g.result(y, -5, 0)};
}

}  // namespace

TEST(Codes16, LinearIsExact) {
  expect_codes(
      250,
      [](Samples& g) {
        const int64_t in = g.integer(1, 60), out = g.integer(1, 40);
        const DType x = g.dtype(), y = g.dtype(is_8_bit(x) || g.chance(0.6));
        return Sample{"linear",
                      {g.activation({g.integer(1, 30), in}, x),
                       g.weight({out, in}, g.dtype(g.chance(0.2))), g.bias(out)},
                      {{"activation", g.activation_name()}},
                      g.result(y, -5, 0)};
      },
      linear_codes);
}

TEST(Codes16, Conv2dIsExact) {
  expect_codes(
      120, [](Samples& g) { return conv_sample(g, g.integer(1, 6), g.integer(1, 9), 1); },
      conv_codes);
}

TEST(Codes16, GroupedConv2dIsExact) {
  expect_codes(
      60,
      [](Samples& g) { return conv_sample(g, g.integer(1, 3), g.integer(1, 4), g.integer(2, 3)); },
      conv_codes);
}

TEST(Codes16, DepthwiseConv2dIsExact) {
  expect_codes(
      100, [](Samples& g) { return conv_sample(g, 1, 1, g.integer(2, 40)); }, conv_codes);
}

TEST(Codes16, WideConv2dOfManyChannelsIsThatOfReference) {
  expect_codes(
      6, [](Samples& g) { return conv_sample(g, g.integer(30, 70), g.integer(120, 300), 1); },
      nullptr);
  expect_codes(
      4, [](Samples& g) { return conv_sample(g, 1, 1, g.integer(500, 700)); }, nullptr);
}

TEST(Codes16, TransposedAndOtherConvolutionsAreThoseOfReference) {
  expect_codes(
      80,
      [](Samples& g) {
        const int64_t groups = g.integer(1, 2), in = g.integer(1, 4), out = g.integer(1, 4);
        const DType x = g.dtype(), y = g.dtype(is_8_bit(x) || g.chance(0.6));
        Attrs attrs{{"stride", std::vector<int64_t>{g.integer(1, 3), g.integer(1, 2)}},
                    {"padding", std::vector<int64_t>{0, g.integer(0, 1), 0, g.integer(0, 1)}},
                    {"output_padding", std::vector<int64_t>{0, 0}},
                    {"dilation", std::vector<int64_t>{1, g.integer(1, 2)}},
                    {"groups", groups},
                    {"activation", g.activation_name()}};
        return Sample{
            "conv_transpose2d",
            {g.activation({1, in * groups, 4, 3}, x),
             g.weight({in * groups, out, 2, 3}, g.dtype(g.chance(0.2)), 1), g.bias(out * groups)},
            attrs,
            g.result(y, -5, 0)};
      },
      nullptr);
  expect_codes(
      30,
      [](Samples& g) {
        const DType x = g.dtype(true);
        return Sample{"conv1d",
                      {g.activation({2, 3, 9}, x), g.weight({4, 3, 3}, DType::qint8), g.bias(4)},
                      {{"stride", std::vector<int64_t>{g.integer(1, 2)}},
                       {"padding", std::vector<int64_t>{1, 0}},
                       {"dilation", std::vector<int64_t>{1}}},
                      g.result(g.dtype(), -5, 0)};
      },
      nullptr);
}

// Sums of 65535 * 128 * K leave int32 from K = 256 on, those of 16-bit weights from K = 1.
TEST(Codes16, SumsOfExtremeCodesDoNotWrap) {
  expect_codes(
      30,
      [](Samples& g) {
        const int64_t in = g.integer(500, 1500);
        const DType tx = g.dtype(true), tw = g.dtype(g.chance(0.3));
        const auto filled = [](const Shape& shape, DType t, int64_t code, double scale) {
          return make_quantized(Tensor::full(shape, static_cast<double>(code), code_dtype(t)),
                                Quantizer::per_tensor(scale, qmin(t) < 0 ? qmin(t) : 0, t));
        };
        const bool high = g.chance(0.7);
        return Sample{"linear",
                      {filled({2, in}, tx, high ? qmax(tx) : qmin(tx), 0x1p-16),
                       filled({5, in}, tw, g.chance(0.5) ? qmin(tw) : qmax(tw), 0x1p-7)},
                      {},
                      g.result(g.dtype(true), -2, 2)};
      },
      linear_codes);
}

TEST(Codes16, MatmulIsExact) {
  expect_codes(
      100,
      [](Samples& g) {
        const int64_t k = g.integer(1, 40);
        const DType a = g.dtype(), b = g.dtype(is_8_bit(a) || g.chance(0.5));
        return Sample{
            "matmul",
            {g.activation({g.integer(1, 9), k}, a), g.activation({k, g.integer(1, 9)}, b)},
            {},
            g.result(g.dtype(), -4, 0)};
      },
      matmul_codes);
}

TEST(Codes16, AddSubAndMulAreExact) {
  for (const char* op : {"add", "sub", "mul"})
    expect_codes(
        150,
        [op](Samples& g) {
          const Shape shape{g.integer(1, 3), g.integer(1, 9), g.integer(1, 30)};
          const DType a = g.dtype(), b = g.chance(0.6) ? a : g.dtype(),
                      y = g.chance(0.6) ? a : g.dtype();
          Sample s{op, {g.activation(shape, a), g.activation(shape, b)}, {}, g.result(y, -4, 0)};
          if (std::string(op) != "sub") s.attrs.set("activation", g.activation_name());
          return s;
        },
        binary_codes);
}

TEST(Codes16, PoolsAndMeansAreThoseOfReference) {
  expect_codes(
      100,
      [](Samples& g) {
        const DType t = g.dtype(true);
        const Tensor x = g.activation({2, g.integer(1, 9), 6, 7}, t);
        Attrs attrs{{"kernel", std::vector<int64_t>{2, 3}},
                    {"stride", std::vector<int64_t>{1, 2}},
                    {"padding", std::vector<int64_t>{1, 1, 0, 1}}};
        const auto own = g.chance(0.5) ? std::optional(g.result(t, -4, -1)) : std::nullopt;
        switch (g.integer(0, 4)) {
          case 0:
            return Sample{"max_pool2d", {x}, attrs, std::nullopt};
          case 1:
            return Sample{"avg_pool2d", {x}, attrs, own};
          case 2:
            return Sample{"amax", {x}, {{"dim", std::vector<int64_t>{1}}}, std::nullopt};
          default:
            return Sample{"mean", {x}, {{"dim", std::vector<int64_t>{2, 3}}}, own};
        }
      },
      nullptr);
}

TEST(Codes16, FunctionsAreQuantizeOfTheFunctionOfDequantize) {
  Defaults defaults;
  for (const char* op :
       {"sigmoid", "tanh", "hardswish", "gelu", "relu", "leaky_relu", "requantize"})
    for (DType from : {DType::quint16, DType::qint16, DType::quint8})
      for (DType to : {DType::quint16, DType::qint16, DType::qint8}) {
        if (is_8_bit(from) && is_8_bit(to)) continue;
        Samples g(7);
        const Tensor x = g.activation({3, 1000}, from);
        const ops::QType want = g.result(to, -4, -2);
        const Tensor floats =
            std::string(op) == "requantize" ? x.dequantize() : ops::call(op, {x.dequantize()});
        const Tensor expected = quantize(floats, want.quantizer, to);
        for (const char* engine : {"reference", "native"}) {
          set_engine(engine);
          EXPECT_TRUE(equal(ops::call(op, {x}, {}, want), expected))
              << op << " " << engine << " " << to_string(from) << " to " << to_string(to);
        }
      }
}

TEST(Codes16, FunctionsHaveNativeKernels) {
  Samples g(9);
  for (const char* op : {"sigmoid", "tanh", "hardswish", "relu"}) {
    const Tensor x = g.activation({1, 300}, DType::quint16);
    const ops::QType want = g.result(DType::qint16, -4, -2);
    const OpSpec spec = ops::make_spec(ops::get(op), ops::get(op).complete({}), {x.type()}, {},
                                       {TensorType(want.dtype, x.shape(), want.quantizer)}, "y");
    const auto kernel = make_kernel(spec, "native");
    ASSERT_TRUE(kernel) << op;
    EXPECT_TRUE(equal(run_kernel(*kernel, spec, {x})[0],
                      quantize(ops::call(op, {x.dequantize()}), want.quantizer, want.dtype)));
  }
}

TEST(Codes16, WhatMovesElementsKeepsCodes) {
  Defaults defaults;
  for (DType t : {DType::quint16, DType::qint16}) {
    Samples g(3);
    const Tensor x = g.activation({2, 3, 4, 5}, t),
                 other = make_quantized(g.activation({2, 3, 4, 5}, t).int_repr().contiguous(),
                                        x.quantizer());
    const auto plain = [](const Tensor& q) { return q.int_repr().to(DType::int32); };
    const std::vector<std::tuple<std::string, std::vector<Tensor>, Attrs>> moves = {
        {"reshape", {x}, {{"shape", std::vector<int64_t>{6, 20}}}},
        {"permute", {x}, {{"dims", std::vector<int64_t>{0, 2, 3, 1}}}},
        {"slice", {x}, {{"dim", 3}, {"start", 1}, {"end", 4}}},
        {"cat", {x, other}, {{"dim", 1}}},
        {"tile", {x}, {{"repeats", std::vector<int64_t>{1, 2, 1, 2}}}},
        {"maximum", {x, other}, {}},
        {"flip", {x}, {{"dims", std::vector<int64_t>{1}}}}};
    for (const char* engine : {"reference", "native"}) {
      set_engine(engine);
      for (const auto& [op, operands, attrs] : moves) {
        if (!ops::find(op)) continue;
        std::vector<Tensor> integers;
        for (const Tensor& operand : operands) integers.push_back(plain(operand));
        const Tensor y = ops::call(op, operands, attrs);
        EXPECT_EQ(y.dtype(), t) << op;
        EXPECT_TRUE(equal(plain(y), ops::call(op, integers, attrs))) << op << " " << engine;
      }
      // A pad is the code of 0.
      const Tensor y =
          ops::call("pad", {x}, {{"pads", std::vector<int64_t>{0, 0, 1, 0, 0, 0, 0, 2}}});
      EXPECT_EQ(code_at(y, {0, 0, 0, 0}), x.q_zero_point());
      EXPECT_EQ(code_at(y, {1, 2, 1, 0}), code_at(x, {1, 2, 0, 0}));
    }
  }
}

TEST(Codes16, NativeHasKernelsForWeightsOf8And16Bits) {
  Samples g(1);
  const Tensor x = g.activation({4, 32}, DType::quint16);
  for (DType weight : {DType::qint8, DType::qint16}) {
    const Tensor w = g.weight({8, 32}, weight);
    const ops::QType want = g.result(DType::quint16, -4, -3);
    const OpSpec spec = ops::make_spec(
        ops::get("linear"), ops::get("linear").complete({}), {x.type(), w.type(), std::nullopt},
        {Tensor(), w, Tensor()}, {TensorType(want.dtype, Shape{4, 8}, want.quantizer)}, "layer");
    const auto kernel = make_kernel(spec, "native");
    ASSERT_TRUE(kernel);
    EXPECT_EQ(kernel->engine(), "native");
    EXPECT_EQ(kernel->description().weight_bits, weight == DType::qint8 ? 8 : 16);
  }
}

}  // namespace octet
