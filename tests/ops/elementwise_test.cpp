#include <cmath>
#include <limits>

#include "octet/base/parallel.h"
#include "tests/limits.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

// The element of x that broadcasting puts at `index` of a larger shape.
double broadcast_at(const Tensor& x, const std::vector<int64_t>& index) {
  std::vector<int64_t> own(index.end() - x.dim(), index.end());
  for (int64_t d = 0; d < x.dim(); ++d)
    if (x.shape()[d] == 1) own[d] = 0;
  return x.at(own);
}

// Two shapes that broadcast, and what they broadcast to.
struct Shapes {
  Shape a, b, y;
};
Shapes random_shapes(Random& random) {
  Shapes s;
  s.y = random_shape(random, 0, 4, 5);
  auto part = [&](bool whole) {
    int64_t drop = whole ? 0 : random.integer(0, static_cast<int64_t>(s.y.size()));
    Shape shape(s.y.begin() + drop, s.y.end());
    for (int64_t& d : shape)
      if (!whole && random.integer(0, 2) == 0) d = 1;
    return shape;
  };
  bool first = random.integer(0, 1);
  s.a = part(first || random.integer(0, 1));
  s.b = part(!first || random.integer(0, 1));
  return s;
}

struct BinaryCase {
  std::string op;
  Attrs attrs;
  std::function<float(float, float)> f;
};
const std::vector<BinaryCase>& binary_cases() {
  static const std::vector<BinaryCase> all = {
      {"add", {}, [](float a, float b) { return a + b; }},
      {"add", {{"activation", "relu"}}, [](float a, float b) { return std::max(a + b, 0.0f); }},
      {"add",
       {{"activation", "relu6"}},
       [](float a, float b) { return std::min(std::max(a + b, 0.0f), 6.0f); }},
      {"sub", {}, [](float a, float b) { return a - b; }},
      {"mul", {}, [](float a, float b) { return a * b; }},
      {"mul", {{"activation", "relu"}}, [](float a, float b) { return std::max(a * b, 0.0f); }},
      {"div", {}, [](float a, float b) { return a / b; }},
      {"maximum", {}, [](float a, float b) { return std::max(a, b); }},
      {"minimum", {}, [](float a, float b) { return std::min(a, b); }},
      {"fmod", {}, [](float a, float b) { return std::fmod(a, b); }},
  };
  return all;
}

TEST(Elementwise, BroadcastsLikeALoop) {
  Random random(1);
  for (int trial = 0; trial < 600; ++trial) {
    const BinaryCase& c = binary_cases()[trial % binary_cases().size()];
    Shapes s = random_shapes(random);
    Tensor a = random_layout(random, Tensor::rand(s.a, random.next(), -4, 4));
    Tensor b = random_layout(random, Tensor::rand(s.b, random.next(), -4, 4));
    Tensor y = ops::call(c.op, {a, b}, c.attrs);
    ASSERT_EQ(y.shape(), s.y) << c.op << to_string(s.a) << to_string(s.b);
    for_each_index(s.y, [&](const std::vector<int64_t>& i) {
      ASSERT_EQ(y.at(i),
                c.f(static_cast<float>(broadcast_at(a, i)), static_cast<float>(broadcast_at(b, i))))
          << c.op;
    });
  }
}

TEST(Elementwise, IntegerArithmeticIsOnnxs) {
  Tensor a = longs({7, -7, 7, -7, 2}), b = longs({2, 2, -2, -2, 5});
  expect_equal(ops::call("add", {a, b}), longs({9, -5, 5, -9, 7}));
  expect_equal(ops::call("div", {a, b}), longs({3, -3, -3, 3, 0}));
  expect_equal(ops::call("fmod", {a, b}), longs({1, -1, 1, -1, 2}));
  expect_equal(ops::call("remainder", {a, b}), longs({1, 1, -1, -1, 2}));
  expect_equal(ops::call("pow", {longs({2, -3, 1, -1, 0}), longs({10, 3, -4, -3, 0})}),
               longs({1024, -27, 1, -1, 1}));
  expect_equal(ops::call("mul", {a.to(DType::int32), b.to(DType::int32)}),
               longs({14, -14, -14, 14, 10}).to(DType::int32));
  expect_equal(ops::call("add", {a, b}, {{"activation", "relu6"}}), longs({6, 0, 5, 0, 6}));
  expect_equal(ops::call("maximum", {a.to(DType::int8), b.to(DType::int8)}),
               longs({7, 2, 7, -2, 5}).to(DType::int8));
  int64_t least = std::numeric_limits<int64_t>::min();
  expect_equal(ops::call("div", {longs({least}), longs({-1})}), longs({least}));  // wraps
  expect_error(ErrorCode::invalid_argument, {"div", "division by zero"}, [&] {
    ops::call("div", {a, longs({0})});
  });
}

TEST(Elementwise, NarrowIntegersWrap) {
  const auto codes = [](std::initializer_list<double> values, DType dtype) {
    return Tensor::from(values).to(dtype);
  };
  EXPECT_TRUE(
      equal(ops::call("add", {codes({200, 255}, DType::uint8), codes({100, 1}, DType::uint8)}),
            codes({44, 0}, DType::uint8)));
  EXPECT_TRUE(equal(ops::call("sub", {codes({-128, 0}, DType::int8), codes({1, 1}, DType::int8)}),
                    codes({127, -1}, DType::int8)));
  EXPECT_TRUE(
      equal(ops::call("mul", {codes({256, 65535}, DType::uint16), codes({256, 2}, DType::uint16)}),
            codes({0, 65534}, DType::uint16)));
  EXPECT_TRUE(equal(ops::call("neg", {codes({-32768, 5}, DType::int16)}),
                    codes({-32768, -5}, DType::int16)));
}

TEST(Elementwise, FloatDivisionByZeroIsInfinite) {
  Tensor y = ops::call("div", {floats({1, -1, 0}), floats({0})});
  EXPECT_EQ(y.at({0}), std::numeric_limits<double>::infinity());
  EXPECT_EQ(y.at({1}), -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(y.at({2})));
}

TEST(Elementwise, PowTakesExponentsOfAnyDtype) {
  expect_equal(ops::call("pow", {floats({2, 3}), longs({3})}), floats({8, 9 * 3}));
  expect_equal(ops::call("pow", {floats({4, 9}), floats({0.5})}), floats({2, 3}));
  expect_equal(ops::call("pow", {longs({4, 9}), floats({0.5})}), longs({2, 3}));
}

TEST(Elementwise, NanWinsMaximumAndMinimum) {
  for (const char* op : {"maximum", "minimum"}) {
    EXPECT_TRUE(std::isnan(ops::call(op, {floats({kNan}), floats({1})}).item()));
    EXPECT_TRUE(std::isnan(ops::call(op, {floats({1}), floats({kNan})}).item()));
  }
}

TEST(Elementwise, ComparisonsAreBool) {
  Tensor a = floats({1, 2, 3, kNan}), b = floats({2, 2, 2, 2});
  using Bools = std::vector<bool>;
  auto compare = [&](const char* op) { return ops::call(op, {a, b}).to_vector<bool>(); };
  EXPECT_EQ(compare("equal"), (Bools{false, true, false, false}));
  EXPECT_EQ(compare("not_equal"), (Bools{true, false, true, true}));
  EXPECT_EQ(compare("greater"), (Bools{false, false, true, false}));
  EXPECT_EQ(compare("greater_equal"), (Bools{false, true, true, false}));
  EXPECT_EQ(compare("less"), (Bools{true, false, false, false}));
  EXPECT_EQ(compare("less_equal"), (Bools{true, true, false, false}));
  EXPECT_EQ(ops::call("equal", {Tensor::ones({2}, DType::bool_), Tensor::zeros({1}, DType::bool_)})
                .to_vector<bool>(),
            (Bools{false, false}));
  // 2^53 and its successor are one double.
  EXPECT_EQ(ops::call("less", {longs({9007199254740992}), longs({9007199254740993})}).item(), 1);
  // Codes are compared as what they stand for.
  Tensor q = quantize_per_tensor(floats({1, 2, 3}), 1, 5, DType::quint8);
  EXPECT_EQ(ops::call("greater", {q, floats({2})}).to_vector<bool>(), (Bools{false, false, true}));
}

TEST(Elementwise, Logic) {
  Tensor a = floats({0, 0, 2, 2}),
         b = Tensor::from<bool>(std::vector<bool>{false, true, false, true}, {4});
  using Bools = std::vector<bool>;
  EXPECT_EQ(ops::call("logical_and", {a, b}).to_vector<bool>(), (Bools{false, false, false, true}));
  EXPECT_EQ(ops::call("logical_or", {a, b}).to_vector<bool>(), (Bools{false, true, true, true}));
  EXPECT_EQ(ops::call("logical_xor", {a, b}).to_vector<bool>(), (Bools{false, true, true, false}));
}

TEST(Elementwise, WhereChoosesElementsOfAnyDtype) {
  Tensor condition = Tensor::from<bool>(std::vector<bool>{true, false}, {2, 1});
  for (DType d :
       {DType::float32, DType::float64, DType::float16, DType::int64, DType::int8, DType::bool_}) {
    Tensor a = longs({1, 2, 3}).to(d), b = longs({0}).to(d);
    expect_equal(ops::call("where", {condition, a, b}),
                 Tensor::from<int64_t>(std::vector<int64_t>{1, 2, 3, 0, 0, 0}, {2, 3}).to(d),
                 to_string(d));
  }
}

TEST(Elementwise, PreluWeightsRunAlongDimensionOne) {
  Tensor x = floats({-1, -2, -3, 4, -5, -6, -7, 8}, {1, 2, 2, 2});
  expect_equal(ops::call("prelu", {x, floats({0.5, 2})}),
               floats({-0.5, -1, -1.5, 4, -10, -12, -14, 8}, {1, 2, 2, 2}));
  expect_equal(ops::call("prelu", {x, floats({2})}),
               floats({-2, -4, -6, 4, -10, -12, -14, 8}, {1, 2, 2, 2}));
  expect_equal(ops::call("prelu", {x, floats({1, 3}, {1, 2})}),
               floats({-1, -6, -3, 4, -5, -18, -7, 8}, {1, 2, 2, 2}));
  expect_error(ErrorCode::invalid_argument, {"prelu", "(3)", "(1, 2, 2, 2)"}, [&] {
    ops::call("prelu", {x, floats({1, 2, 3})});
  });
}

TEST(Elementwise, ThreadsDoNotMatter) {
  int before = num_threads();
  Tensor a = Tensor::randn({5, 70001}, 1), b = Tensor::randn({5, 1}, 2);
  set_num_threads(1);
  Tensor one = ops::call("mul", {a, b});
  set_num_threads(3);
  expect_equal(ops::call("mul", {a, b}), one);
  set_num_threads(before);
}

TEST(Elementwise, ChannelsLastStaysChannelsLast) {
  Tensor a = Tensor::randn({2, 3, 4, 5}, 5).clone(MemoryFormat::channels_last),
         b = Tensor::randn({1, 3, 1, 1}, 6);
  EXPECT_TRUE(ops::call("mul", {a, b}).is_contiguous(MemoryFormat::channels_last));
  EXPECT_TRUE(ops::call("mul", {b, a}).is_contiguous(MemoryFormat::channels_last));
}

// -- quantized ------------------------------------------------------------------------------------

int32_t code_at(const Tensor& t, int64_t i) {
  return t.dtype() == DType::quint8 ? t.data<uint8_t>()[i] : t.data<int8_t>()[i];
}

// The contract of docs/numerics.md, number by number.
int32_t contract(const std::string& op, const std::string& activation, int32_t a,
                 const Quantizer& qa, int32_t b, const Quantizer& qb, const QType& out) {
  auto sa = static_cast<float>(qa.scale()), sb = static_cast<float>(qb.scale());
  auto s = static_cast<float>(out.quantizer->scale());
  auto z = static_cast<int32_t>(out.quantizer->zero_point());
  auto za = static_cast<int32_t>(qa.zero_point()), zb = static_cast<int32_t>(qb.zero_point());
  auto lo = static_cast<int32_t>(qmin(out.dtype)), hi = static_cast<int32_t>(qmax(out.dtype));
  int32_t six = affine::quantize(6, s, z, lo, hi);
  if (activation != "none") lo = z;
  if (activation == "relu6") hi = six;
  if (op == "mul") {
    float m = (sa * sb) * (1.0f / s);
    return affine::round_and_clamp(static_cast<float>((a - za) * (b - zb)) * m, z, lo, hi);
  }
  float da = affine::dequantize(a, sa, za), db = affine::dequantize(b, sb, zb);
  return affine::quantize(op == "add" ? da + db : da - db, s, z, lo, hi);
}

TEST(ElementwiseQuantized, AddSubMulFollowTheContract) {
  Random random(3);
  const char* ops_[] = {"add", "sub", "mul"};
  const char* activations[] = {"none", "relu", "relu6"};
  for (int trial = 0; trial < 3000; ++trial) {
    std::string op = ops_[trial % 3],
                activation = op == "sub" ? "none" : activations[random.integer(0, 2)];
    DType same = random_byte_dtype(random);
    bool mixed = random.integer(0, 4) == 0;
    auto dtype = [&] { return mixed ? random_byte_dtype(random) : same; };
    QType ta = random_qtype(random, dtype()), tb = random_qtype(random, dtype()),
          ty = random_qtype(random, dtype());
    Shapes s = random_shapes(random);
    Tensor a = random_codes(random, s.a, ta), b = random_codes(random, s.b, tb);
    Attrs attrs;
    if (op != "sub") attrs.set("activation", activation);
    Tensor y =
        ops::call(op, {random_layout(random, a), random_layout(random, b)}, attrs, ty).contiguous();
    ASSERT_EQ(y.shape(), s.y);
    Tensor wide_a = a.expand(s.y).contiguous(), wide_b = b.expand(s.y).contiguous();
    for (int64_t i = 0; i < y.numel(); ++i)
      ASSERT_EQ(code_at(y, i), contract(op, activation, code_at(wide_a, i), *ta.quantizer,
                                        code_at(wide_b, i), *tb.quantizer, ty))
          << op << " " << activation;
  }
}

TEST(ElementwiseQuantized, AllPairsOfCodesOfAHardCase) {
  // Scales whose sums fall on ties, and every pair of codes.
  QType ta{DType::quint8, Quantizer::per_tensor(0.5, 128, DType::quint8)};
  QType tb{DType::quint8, Quantizer::per_tensor(0.25, 3, DType::quint8)};
  Tensor a = Tensor::empty({256, 1}, DType::quint8, ta.quantizer),
         b = Tensor::empty({256}, DType::quint8, tb.quantizer);
  for (int i = 0; i < 256; ++i)
    a.data<uint8_t>()[i] = b.data<uint8_t>()[i] = static_cast<uint8_t>(i);
  for (double scale : {0.5, 1.0, 0.1, 1e-30, 1e30})
    for (const char* op : {"add", "sub", "mul"}) {
      QType ty{DType::quint8, Quantizer::per_tensor(scale, 100, DType::quint8)};
      Tensor y = ops::call(op, {a, b}, {}, ty);
      for (int p = 0; p < 256; ++p)
        for (int q = 0; q < 256; ++q)
          ASSERT_EQ(y.data<uint8_t>()[p * 256 + q],
                    contract(op, "none", p, *ta.quantizer, q, *tb.quantizer, ty))
              << op << " " << p << " " << q;
    }
}

TEST(ElementwiseQuantized, ScalesAtTheEndsOfFloat32) {
  auto q = [](double scale) {
    return QType{DType::qint8, Quantizer::per_tensor(scale, 0, DType::qint8)};
  };
  struct {
    double a, b, y;
  } table[] = {{3e38, 3e38, 1}, {1e-38, 1e-38, 1e-38}, {1e30, 1e30, 1e-38}, {1, 1, 1e-44}};
  Random random(5);
  for (auto [sa, sb, sy] : table)
    for (const char* op : {"add", "sub", "mul"}) {
      Tensor a = random_codes(random, {50}, q(sa)), b = random_codes(random, {50}, q(sb));
      Tensor y = ops::call(op, {a, b}, {}, q(sy));
      for (int64_t i = 0; i < 50; ++i)
        ASSERT_EQ(code_at(y, i), contract(op, "none", code_at(a, i), *a.quantizer(), code_at(b, i),
                                          *b.quantizer(), q(sy)));
    }
}

TEST(ElementwiseQuantized, OthersAreFloatArithmetic) {
  Random random(6);
  for (int trial = 0; trial < 600; ++trial) {
    const char* names[] = {"div", "maximum", "minimum", "pow", "prelu", "fmod"};
    std::string op = names[trial % 6];
    QType ta = random_qtype(random, random_byte_dtype(random)),
          tb = random_qtype(random, random_byte_dtype(random));
    QType ty = random.integer(0, 1) ? ta : random_qtype(random, random_byte_dtype(random));
    if (op == "prelu") tb = QType{DType::qint8, Quantizer::per_tensor(0.01, 0, DType::qint8)};
    Shapes s = random_shapes(random);
    if (op == "prelu") s.b = {1};
    Tensor a = random_codes(random, s.a, ta),
           b = random_codes(random, s.b, random.integer(0, 2) ? tb : ta);
    Tensor y = ops::call(op, {random_layout(random, a), b}, {}, ty);
    expect_equal(y.contiguous(), by_float(op, {a, b}, {}, ty), op);
  }
}

TEST(ElementwiseQuantized, MaximumOfOneSetOfQParamsComparesCodes) {
  auto q = Quantizer::per_tensor(1e-3, 5, DType::qint32);
  Tensor a = make_quantized(Tensor::from<int32_t>({2147483646, 3}), q);
  Tensor b = make_quantized(Tensor::from<int32_t>({2147483647, -3}), q);
  EXPECT_EQ(ops::call("maximum", {a, b}).to_vector<int32_t>(),
            (std::vector<int32_t>{2147483647, 3}));
  EXPECT_EQ(*ops::call("minimum", {a, b}).quantizer(), *q);
}

TEST(ElementwiseQuantized, WhereCopiesOrRequantizes) {
  Random random(7);
  for (int trial = 0; trial < 200; ++trial) {
    QType ta = random_qtype(random, DType::quint8),
          tb = trial % 2 ? ta : random_qtype(random, DType::qint8);
    QType ty = trial % 4 ? ta : random_qtype(random, DType::quint8);
    Shape shape = random_shape(random);
    Tensor a = random_codes(random, shape, ta), b = random_codes(random, shape, tb);
    Tensor condition =
        ops::call("greater", {Tensor::randn(shape, random.next()), Tensor::zeros({})});
    expect_equal(ops::call("where", {condition, a, b}, {}, ty),
                 by_float("where", {condition, a, b}, {}, ty));
  }
}

TEST(ElementwiseQuantized, FloatOperandsMayBeMixedIn) {
  Random random(8);
  for (const char* op : {"add", "mul", "sub"}) {
    QType t = random_qtype(random, DType::quint8);
    Tensor q = random_codes(random, {3, 4}, t), x = Tensor::randn({4}, 1);
    expect_equal(ops::call(op, {q, x}, {}, t), by_float(op, {q, x}, {}, t), op);
    expect_equal(ops::call(op, {x, q}, {}, t), by_float(op, {x, q}, {}, t), op);
    expect_error(ErrorCode::invalid_argument, {op, "scale and zero point"}, [&] {
      ops::call(op, {q, x});
    });
    expect_error(ErrorCode::invalid_argument, {op, "scale and zero point"}, [&] {
      ops::call(op, {x, q});
    });
  }
}

// -- types ----------------------------------------------------------------------------------------

TEST(ElementwiseTypes, SymbolicDimsPass) {
  struct {
    std::string op, a, b, y;
  } table[] = {
      {"add", "Float(N, 3, 8)", "Float(3, 1)", "Float(N, 3, 8)"},
      {"add", "Float(1, 3)", "Float(N, 1)", "Float(N, 3)"},
      {"mul", "Float(N, 3)", "Float(N, 3)", "Float(N, 3)"},
      {"div", "Long(N)", "Long()", "Long(N)"},
      {"less", "Float(N, 3)", "Float(3)", "Bool(N, 3)"},
      {"logical_and", "Bool(N, 3)", "Bool(1)", "Bool(N, 3)"},
      {"pow", "Float(N, 3)", "Long()", "Float(N, 3)"},
      {"prelu", "Float(N, C, 4)", "Float(16)", "Float(N, C, 4)"},
  };
  for (const auto& row : table) EXPECT_EQ(infer_text(row.op, {row.a, row.b}), row.y) << row.op;
  EXPECT_EQ(infer_text("where", {"Bool(N, 1)", "Float(4)", "Float()"}), "Float(N, 4)");
}

TEST(ElementwiseTypes, ErrorsNameTheOperatorAndTheShapes) {
  expect_error(ErrorCode::invalid_argument, {"add", "(2, 3)", "(4)", "broadcast"}, [] {
    infer_text("add", {"Float(2, 3)", "Float(4)"});
  });
  expect_error(ErrorCode::invalid_argument, {"mul", "Float(2)", "Long(2)", "to()"}, [] {
    infer_text("mul", {"Float(2)", "Long(2)"});
  });
  expect_error(ErrorCode::invalid_argument, {"add", "activation=\"gelu\"", "\"relu6\""}, [] {
    infer_text("add", {"Float(2)", "Float(2)"}, {{"activation", "gelu"}});
  });
  expect_error(ErrorCode::invalid_argument, {"where", "condition", "QUInt8"}, [] {
    infer_text("where", {"QUInt8(2) scale=1 zero_point=0", "Float(2)", "Float(2)"});
  });
  expect_error(ErrorCode::invalid_argument, {"add", "'b'", "missing"},
               [] { infer_text("add", {"Float(2)"}); });
}

}  // namespace
}  // namespace octet::testing
