#include "octet/ops/unary.h"
#include "tests/limits.h"

#include <cmath>
#include <limits>

#include "octet/base/parallel.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

struct UnaryCase {
  std::string op;
  Attrs attrs;
  std::function<double(double)> f;  // the textbook formula
};

const std::vector<UnaryCase>& unary_cases() {
  static const std::vector<UnaryCase> all = {
      {"relu", {}, [](double x) { return std::max(x, 0.0); }},
      {"relu6", {}, [](double x) { return std::min(std::max(x, 0.0), 6.0); }},
      {"clamp",
       {{"min", -1.0}, {"max", 1.5}},
       [](double x) { return std::min(std::max(x, -1.0), 1.5); }},
      {"clamp", {{"min", 0.25}}, [](double x) { return std::max(x, 0.25); }},
      {"sigmoid", {}, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"silu", {}, [](double x) { return x / (1 + std::exp(-x)); }},
      {"tanh", {}, [](double x) { return std::tanh(x); }},
      {"exp", {}, [](double x) { return std::exp(x); }},
      {"log", {}, [](double x) { return std::log(x); }},
      {"sqrt", {}, [](double x) { return std::sqrt(x); }},
      {"rsqrt", {}, [](double x) { return 1 / std::sqrt(x); }},
      {"reciprocal", {}, [](double x) { return 1 / x; }},
      {"neg", {}, [](double x) { return -x; }},
      {"abs", {}, [](double x) { return std::fabs(x); }},
      {"erf", {}, [](double x) { return std::erf(x); }},
      {"floor", {}, [](double x) { return std::floor(x); }},
      {"ceil", {}, [](double x) { return std::ceil(x); }},
      {"round", {}, [](double x) { return std::nearbyint(x); }},
      {"sign", {}, [](double x) { return x > 0   ? 1.0
                                         : x < 0 ? -1.0
                                                 : 0.0; }},
      {"sin", {}, [](double x) { return std::sin(x); }},
      {"cos", {}, [](double x) { return std::cos(x); }},
      {"tan", {}, [](double x) { return std::tan(x); }},
      {"atan", {}, [](double x) { return std::atan(x); }},
      {"asin", {}, [](double x) { return std::asin(x); }},
      {"acos", {}, [](double x) { return std::acos(x); }},
      {"sinh", {}, [](double x) { return std::sinh(x); }},
      {"cosh", {}, [](double x) { return std::cosh(x); }},
      {"asinh", {}, [](double x) { return std::asinh(x); }},
      {"acosh", {}, [](double x) { return std::acosh(x); }},
      {"atanh", {}, [](double x) { return std::atanh(x); }},
      {"mish", {}, [](double x) { return x * std::tanh(std::log1p(std::exp(x))); }},
      {"softsign", {}, [](double x) { return x / (1 + std::fabs(x)); }},
      {"softplus", {{"beta", 2.0}}, [](double x) { return std::log1p(std::exp(2 * x)) / 2; }},
      {"gelu", {}, [](double x) { return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0))); }},
      {"gelu",
       {{"approximate", "tanh"}},
       [](double x) {
         return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       }},
      {"hardswish", {}, [](double x) { return x * std::min(std::max(x + 3, 0.0), 6.0) / 6; }},
      {"hardsigmoid", {}, [](double x) { return std::min(std::max(x / 6 + 0.5, 0.0), 1.0); }},
      {"hardsigmoid",
       {{"alpha", 0.2}, {"beta", 0.4}},
       [](double x) { return std::min(std::max(0.2 * x + 0.4, 0.0), 1.0); }},
      {"leaky_relu", {}, [](double x) { return x >= 0 ? x : 0.01 * x; }},
      {"leaky_relu", {{"negative_slope", 0.2}}, [](double x) { return x >= 0 ? x : 0.2 * x; }},
      {"elu", {{"alpha", 0.7}}, [](double x) { return x > 0 ? x : 0.7 * std::expm1(x); }},
      {"celu", {{"alpha", 0.7}}, [](double x) { return x > 0 ? x : 0.7 * std::expm1(x / 0.7); }},
      {"selu",
       {},
       [](double x) {
         return 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * std::expm1(x));
       }},
      {"threshold",
       {{"threshold", 0.5}, {"value", 20.0}},
       [](double x) { return x > 0.5 ? x : 20.0; }},
  };
  return all;
}

Attrs complete(const UnaryCase& c) { return ops::get(c.op).complete(c.attrs); }

TEST(Unary, FollowsTheFormula) {
  Tensor x = Tensor::rand({997}, 1, -8, 8);
  for (const UnaryCase& c : unary_cases()) {
    Tensor y = ops::call(c.op, {x}, c.attrs);
    ASSERT_EQ(y.shape(), x.shape());
    for (int64_t i = 0; i < x.numel(); ++i) {
      double v = x.data<float>()[i], expected = c.f(v), got = y.data<float>()[i];
      if (std::isnan(expected))
        EXPECT_TRUE(std::isnan(got)) << c.op << " of " << v;
      else
        EXPECT_NEAR(got, expected, 1e-6 * (1 + std::fabs(expected))) << c.op << " of " << v;
    }
  }
}

TEST(Unary, ComputesInDoubleForDoubles) {
  Tensor x = Tensor::rand({97}, 2, 0.1, 4).to(DType::float64);
  for (const UnaryCase& c : unary_cases()) {
    // its default alpha is 0.16666667, not 1/6
    if (c.op == "hardsigmoid" && c.attrs.size() == 0) continue;
    Tensor y = ops::call(c.op, {x}, c.attrs);
    ASSERT_EQ(y.dtype(), DType::float64);
    for (int64_t i = 0; i < x.numel(); ++i) {
      const double got = y.data<double>()[i], expected = c.f(x.data<double>()[i]);
      if (std::isnan(expected))
        EXPECT_TRUE(std::isnan(got)) << c.op;
      else
        EXPECT_NEAR(got, expected, 1e-13 * (1 + std::fabs(got))) << c.op;
    }
  }
}

TEST(Unary, TheScalarFunctionIsTheOperator) {
  Tensor x = Tensor::rand({257}, 3, -9, 9);
  for (const UnaryCase& c : unary_cases()) {
    ASSERT_TRUE(ops::is_unary(c.op));
    auto f = ops::unary_function(c.op, complete(c));
    Tensor y = ops::call(c.op, {x}, c.attrs);
    for (int64_t i = 0; i < x.numel(); ++i) {
      float expected = y.data<float>()[i], got = f(x.data<float>()[i]);
      EXPECT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected))) << c.op;
      float single = ops::apply_unary(c.op, complete(c), x.data<float>()[i]);
      EXPECT_TRUE(single == got || std::isnan(got));
    }
  }
  EXPECT_FALSE(ops::is_unary("add"));
  EXPECT_FALSE(ops::is_unary("logical_not"));
  expect_error(ErrorCode::invalid_argument, {"add"}, [] { ops::unary_function("add", {}); });
}

TEST(Unary, AnyLayoutGivesTheSameNumbers) {
  Random random(4);
  for (int trial = 0; trial < 300; ++trial) {
    const UnaryCase& c =
        unary_cases()[random.integer(0, static_cast<int64_t>(unary_cases().size()) - 1)];
    Tensor x = Tensor::rand(random_shape(random, 0, 5), random.next(), -5, 5);
    expect_equal(ops::call(c.op, {random_layout(random, x)}, c.attrs),
                 ops::call(c.op, {x}, c.attrs), c.op);
  }
}

TEST(Unary, ChannelsLastStaysChannelsLast) {
  Tensor x = Tensor::randn({2, 3, 4, 5}, 5).clone(MemoryFormat::channels_last);
  EXPECT_TRUE(ops::call("relu", {x}).is_contiguous(MemoryFormat::channels_last));
}

TEST(Unary, NanPassesThroughAndInfinitiesClamp) {
  Tensor x = floats({kNan, kInf, -kInf});
  for (const char* op :
       {"relu", "relu6", "hardsigmoid", "sigmoid", "tanh", "leaky_relu", "gelu", "sign", "abs"})
    EXPECT_TRUE(std::isnan(ops::call(op, {x}).at({0}))) << op;
  EXPECT_EQ(ops::call("relu6", {x}).at({1}), 6);
  EXPECT_EQ(ops::call("relu", {x}).at({2}), 0);
  EXPECT_EQ(ops::call("sigmoid", {x}).at({2}), 0);
  EXPECT_EQ(ops::call("tanh", {x}).at({1}), 1);
  EXPECT_EQ(ops::call("gelu", {x}).at({2}), 0);
  EXPECT_EQ(ops::call("softplus", {x}).at({1}), kInf);
}

TEST(Unary, RoundsHalfToEven) {
  expect_equal(ops::call("round", {floats({-2.5f, -1.5f, -0.5f, 0.5f, 1.5f, 2.5f, 0.4999f})}),
               floats({-2, -2, -0.f, 0, 2, 2, 0}));
}

TEST(Unary, IntegersWhereItIsExact) {
  Tensor x = longs({-3, 0, 5, 9});
  expect_equal(ops::call("relu", {x}), longs({0, 0, 5, 9}));
  expect_equal(ops::call("relu6", {x}), longs({0, 0, 5, 6}));
  expect_equal(ops::call("neg", {x}), longs({3, 0, -5, -9}));
  expect_equal(ops::call("abs", {x.to(DType::int8)}), longs({3, 0, 5, 9}).to(DType::int8));
  expect_equal(ops::call("sign", {x.to(DType::int32)}), longs({-1, 0, 1, 1}).to(DType::int32));
  expect_equal(ops::call("floor", {x}), x);
  // max=inf saturates
  expect_equal(ops::call("clamp", {x}, {{"min", -1.0}}), longs({-1, 0, 5, 9}));
  expect_error(ErrorCode::invalid_argument, {"exp", "'x'", "Long(4)", "to()"},
               [&] { ops::call("exp", {x}); });
}

TEST(Unary, HalfPrecisionComputesInFloat32) {
  Tensor x = Tensor::rand({50}, 6, -3, 3).to(DType::float16);
  for (const char* op : {"sigmoid", "gelu", "relu", "neg"})
    expect_equal(ops::call(op, {x}), ops::call(op, {x.to(DType::float32)}).to(DType::float16), op);
}

TEST(Unary, ThreadsDoNotMatter) {
  int before = num_threads();
  Tensor x = Tensor::randn({3, 100003}, 7);
  set_num_threads(1);
  Tensor one = ops::call("gelu", {x});
  set_num_threads(3);
  expect_equal(ops::call("gelu", {x}), one);
  set_num_threads(before);
}

TEST(Unary, LogicalNot) {
  Tensor y = ops::call("logical_not", {floats({0, 1, -0.f, 0.5f})});
  EXPECT_EQ(y.dtype(), DType::bool_);
  EXPECT_EQ(y.to_vector<bool>(), (std::vector<bool>{true, false, true, false}));
  EXPECT_EQ(ops::call("logical_not", {Tensor::ones({1}, DType::bool_)}).item(), 0);
}

// -- quantized ------------------------------------------------------------------------------------

TEST(UnaryQuantized, EveryByteIsQuantizeOfFOfDequantize) {
  Random random(8);
  for (int trial = 0; trial < 2500; ++trial) {
    const UnaryCase& c = unary_cases()[trial % unary_cases().size()];
    QType from = random_qtype(random, random_byte_dtype(random)),
          to = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, random_shape(random, 1, 4, 5), from);
    Tensor y = ops::call(c.op, {random_layout(random, x)}, c.attrs, to);
    auto f = ops::unary_function(c.op, complete(c));
    Tensor expected = Tensor::empty(x.shape(), to.dtype, to.quantizer);
    Tensor real = x.dequantize();
    for (int64_t i = 0; i < x.numel(); ++i) {
      int32_t q = affine::quantize(
          f(real.data<float>()[i]), static_cast<float>(to.quantizer->scale()),
          static_cast<int32_t>(to.quantizer->zero_point()), static_cast<int32_t>(qmin(to.dtype)),
          static_cast<int32_t>(qmax(to.dtype)));
      static_cast<uint8_t*>(expected.raw_data())[i] = static_cast<uint8_t>(q);
    }
    ASSERT_TRUE(equal(y, expected))
        << c.op << " " << to_string(x.type()) << " -> " << to_string(y.type());
  }
}

TEST(UnaryQuantized, ReluAndClampKeepQParamsAndClampCodes) {
  auto q = Quantizer::per_tensor(0.5, 10, DType::quint8);
  Tensor x = make_quantized(Tensor::from<uint8_t>({0, 9, 10, 11, 22, 23, 255}), q);
  auto codes = [&](const char* op, const Attrs& attrs = {}) {
    Tensor y = ops::call(op, {x}, attrs);
    EXPECT_EQ(*y.quantizer(), *q);
    return y.to_vector<uint8_t>();
  };
  EXPECT_EQ(codes("relu"), (std::vector<uint8_t>{10, 10, 10, 11, 22, 23, 255}));
  EXPECT_EQ(codes("relu6"), (std::vector<uint8_t>{10, 10, 10, 11, 22, 22, 22}));
  EXPECT_EQ(codes("clamp", {{"min", -0.5}, {"max", 6.5}}),
            (std::vector<uint8_t>{9, 9, 10, 11, 22, 23, 23}));
  EXPECT_EQ(codes("clamp"), (std::vector<uint8_t>{0, 9, 10, 11, 22, 23, 255}));
}

TEST(UnaryQuantized, PerChannelAndInt32CodesClampExactly) {
  auto q = Quantizer::per_channel({0.5, 0.1}, {1, -3}, 1, DType::qint8);
  Tensor x = make_quantized(Tensor::from<int8_t>({-5, -5, 0, 0, 100, 100}).reshape({3, 2}), q);
  EXPECT_EQ(ops::call("relu", {x}).to_vector<int8_t>(),
            (std::vector<int8_t>{1, -3, 1, 0, 100, 100}));
  EXPECT_EQ(ops::call("relu6", {x}).to_vector<int8_t>(),
            (std::vector<int8_t>{1, -3, 1, 0, 13, 57}));
  // float32 cannot tell these codes apart; clamping them must.
  Tensor wide = make_quantized(Tensor::from<int32_t>({-7, 2147483647, 2147483646}),
                               Quantizer::per_tensor(1e-3, 0, DType::qint32));
  EXPECT_EQ(ops::call("relu", {wide}).to_vector<int32_t>(),
            (std::vector<int32_t>{0, 2147483647, 2147483646}));
}

TEST(UnaryQuantized, BoundedFunctionsHaveFixedQParams) {
  EXPECT_EQ(infer_text("sigmoid", {"QUInt8(N, 3) scale=0.1 zero_point=7"}),
            "QUInt8(N, 3) scale=0.00390625 zero_point=0");
  EXPECT_EQ(infer_text("hardsigmoid", {"QInt8(4) scale=0.1 zero_point=7"}),
            "QInt8(4) scale=0.00390625 zero_point=-128");
  EXPECT_EQ(infer_text("tanh", {"QUInt8(4) scale=0.1 zero_point=7"}),
            "QUInt8(4) scale=0.0078125 zero_point=128");
  EXPECT_EQ(infer_text("tanh", {"QInt8(4) scale=0.1 zero_point=7"}),
            "QInt8(4) scale=0.0078125 zero_point=0");
  QType other{DType::quint8, Quantizer::per_tensor(0.01, 3, DType::quint8)};
  EXPECT_EQ(infer_text("sigmoid", {"QUInt8(4) scale=0.1 zero_point=7"}, {}, other),
            "QUInt8(4) scale=0.01 zero_point=3");
  EXPECT_FALSE(ops::fixed_qtype("gelu", DType::quint8));
}

TEST(UnaryQuantized, OthersNeedQParams) {
  Tensor x = quantize_per_tensor(Tensor::randn({4}, 9), 0.1, 128, DType::quint8);
  expect_error(ErrorCode::invalid_argument, {"gelu", "scale and zero point"},
               [&] { ops::call("gelu", {x}); });
}

TEST(UnaryTypes, SymbolicDimsPass) {
  for (const UnaryCase& c : unary_cases())
    EXPECT_EQ(infer_text(c.op, {"Float(N, 3, H, W)"}, c.attrs), "Float(N, 3, H, W)") << c.op;
  EXPECT_EQ(infer_text("logical_not", {"Float(N, 3)"}), "Bool(N, 3)");
  EXPECT_EQ(infer_text("relu", {"QInt8(N, 3) axis=1 scale=[0.5, 1, 2] zero_point=0"}),
            "QInt8(N, 3) axis=1 scale=[0.5, 1, 2] zero_point=0");
}

TEST(UnaryTypes, BadAttributesAreErrors) {
  expect_error(ErrorCode::invalid_argument, {"gelu", "approximate=\"fast\"", "\"tanh\""}, [] {
    infer_text("gelu", {"Float(3)"}, {{"approximate", "fast"}});
  });
  expect_error(ErrorCode::invalid_argument, {"threshold", "value"}, [] {
    infer_text("threshold", {"Float(3)"}, {{"threshold", 1.0}});
  });
}

}  // namespace
}  // namespace octet::testing
