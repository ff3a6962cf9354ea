#include <cmath>
#include <limits>

#include "octet/base/parallel.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

struct ReduceCase {
  std::string op;
  std::function<double(const std::vector<double>&)> f;
};

double total(const std::vector<double>& v, const std::function<double(double)>& f) {
  double sum = 0;
  for (double x : v) sum += f(x);
  return sum;
}

const std::vector<ReduceCase>& reduce_cases() {
  using V = std::vector<double>;
  static const std::vector<ReduceCase> all = {
      {"mean",
       [](const V& v) {
         return total(v, [](double x) { return x; }) / static_cast<double>(v.size());
       }},
      {"sum", [](const V& v) { return total(v, [](double x) { return x; }); }},
      {"prod",
       [](const V& v) {
         double p = 1;
         for (double x : v) p *= x;
         return p;
       }},
      {"amax", [](const V& v) { return *std::max_element(v.begin(), v.end()); }},
      {"amin", [](const V& v) { return *std::min_element(v.begin(), v.end()); }},
      {"reduce_l1", [](const V& v) { return total(v, [](double x) { return std::fabs(x); }); }},
      {"reduce_l2", [](const V& v) { return std::sqrt(total(v, [](double x) { return x * x; })); }},
      {"sum_square", [](const V& v) { return total(v, [](double x) { return x * x; }); }},
      {"log_sum", [](const V& v) { return std::log(total(v, [](double x) { return x; })); }},
      {"log_sum_exp",
       [](const V& v) { return std::log(total(v, [](double x) { return std::exp(x); })); }},
  };
  return all;
}

// The elements that are reduced to the result's element at `index` (of a result with keepdim).
std::vector<double> gather(const Tensor& x, const std::vector<bool>& reduced,
                           const std::vector<int64_t>& index) {
  std::vector<double> values;
  for_each_index(x.shape(), [&](const std::vector<int64_t>& i) {
    for (size_t d = 0; d < i.size(); ++d)
      if (!reduced[d] && i[d] != index[d]) return;
    values.push_back(x.at(i));
  });
  return values;
}

struct Dims {
  std::vector<int64_t> dim;
  std::vector<bool> reduced;
  Shape kept;
};
Dims random_dims(Random& random, const Shape& shape) {
  Dims d;
  d.reduced.assign(shape.size(), false);
  for (size_t i = 0; i < shape.size(); ++i)
    if (random.integer(0, 1)) {
      d.reduced[i] = true;
      d.dim.push_back(static_cast<int64_t>(i) -
                      (random.integer(0, 1) ? static_cast<int64_t>(shape.size()) : 0));
    }
  if (d.dim.empty()) d.reduced.assign(shape.size(), true);
  d.kept = shape;
  for (size_t i = 0; i < shape.size(); ++i)
    if (d.reduced[i]) d.kept[i] = 1;
  return d;
}

TEST(Reduce, FollowsTheFormulaOverAnyDimensionsAndLayouts) {
  Random random(1);
  for (int trial = 0; trial < 600; ++trial) {
    const ReduceCase& c = reduce_cases()[trial % reduce_cases().size()];
    Tensor x = Tensor::rand(random_shape(random, 0, 4, 5), random.next(), 0.1, 2);
    Dims dims = random_dims(random, x.shape());
    bool keepdim = random.integer(0, 1);
    Tensor y =
        ops::call(c.op, {random_layout(random, x)}, {{"dim", dims.dim}, {"keepdim", keepdim}});
    if (!keepdim) {
      int64_t rank = 0;
      for (bool r : dims.reduced) rank += !r;
      ASSERT_EQ(y.dim(), rank);
      y = y.reshape(dims.kept);
    }
    ASSERT_EQ(y.shape(), dims.kept);
    for_each_index(dims.kept, [&](const std::vector<int64_t>& i) {
      double expected = c.f(gather(x, dims.reduced, i));
      ASSERT_NEAR(y.at(i), expected, 1e-6 * (1 + std::fabs(expected))) << c.op;
    });
  }
}

TEST(Reduce, LayoutAndThreadsDoNotMatter) {
  int before = num_threads();
  Tensor x = Tensor::randn({4, 50, 40, 30}, 2);
  for (const std::vector<int64_t>& dim : {std::vector<int64_t>{2, 3}, {1}, {0, 2}, {}}) {
    set_num_threads(1);
    Tensor one = ops::call("sum", {x}, {{"dim", dim}});
    set_num_threads(3);
    expect_equal(ops::call("sum", {x.clone(MemoryFormat::channels_last)}, {{"dim", dim}}), one);
  }
  set_num_threads(before);
}

TEST(Reduce, SumsArePrecise) {
  // One million times 0.1: float32 sums would be off by hundreds.
  Tensor y = ops::call("sum", {Tensor::full({1000000}, 0.1)}, {{"keepdim", false}});
  EXPECT_NEAR(y.item(), 100000.0015, 0.01);
}

TEST(Reduce, Integers) {
  Tensor x = longs({1, -2, 3, 4}, {2, 2});
  expect_equal(ops::call("sum", {x}, {{"keepdim", false}}), longs({6}).reshape({}));
  expect_equal(ops::call("prod", {x}, {{"dim", std::vector<int64_t>{0}}}), longs({3, -8}, {1, 2}));
  expect_equal(ops::call("mean", {longs({-3, -4})}), longs({-3}));
  expect_equal(ops::call("amax", {x.to(DType::int8)}, {{"dim", std::vector<int64_t>{1}}}),
               longs({1, 4}, {2, 1}).to(DType::int8));
  expect_equal(ops::call("reduce_l1", {x}), longs({10}, {1, 1}));
  int64_t big = int64_t{1} << 60;
  // more digits than a double
  expect_equal(ops::call("sum", {longs({big + 1, big})}), longs({2 * big + 1}));
}

TEST(Reduce, SpecialNumbers) {
  const float inf = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* op : {"amax", "amin", "mean", "sum"})
    EXPECT_TRUE(std::isnan(ops::call(op, {floats({1, nan, 2})}).item())) << op;
  EXPECT_EQ(ops::call("log_sum_exp", {floats({1000, 1000})}).item(),
            static_cast<float>(1000 + std::log(2.0)));
  EXPECT_EQ(ops::call("log_sum_exp", {floats({-inf, -inf})}).item(), -inf);
  EXPECT_EQ(ops::call("log_sum_exp", {floats({0, inf})}).item(), inf);
  EXPECT_EQ(ops::call("sum", {Tensor::zeros({0})}).item(), 0);
  expect_error(ErrorCode::invalid_argument, {"amax", "(0, 3)"}, [] {
    ops::call("amax", {Tensor::zeros({0, 3})}, {{"dim", std::vector<int64_t>{0}}});
  });
}

TEST(Reduce, HalfPrecision) {
  Tensor x = Tensor::rand({4, 9}, 3).to(DType::float16);
  for (const char* op : {"amax", "mean", "reduce_l2"})
    expect_equal(ops::call(op, {x}), ops::call(op, {x.to(DType::float32)}).to(DType::float16), op);
}

TEST(Reduce, ArgmaxTakesTheFirstOrTheLastOfEquals) {
  Tensor x = floats({1, 5, 5, 2, 0, 0, -1, -1}, {2, 4});
  expect_equal(ops::call("argmax", {x}, {{"dim", int64_t{1}}}), longs({1, 0}, {2, 1}));
  expect_equal(
      ops::call("argmax", {x}, {{"dim", int64_t{-1}}, {"keepdim", false}, {"select_last", true}}),
      longs({2, 1}));
  expect_equal(ops::call("argmin", {x}, {{"dim", int64_t{1}}}), longs({0, 2}, {2, 1}));
  expect_equal(ops::call("argmin", {x}, {{"dim", int64_t{0}}, {"keepdim", false}}),
               longs({1, 1, 1, 1}));
  Tensor q = quantize_per_tensor(x, 0.5, 7, DType::qint8);
  expect_equal(ops::call("argmax", {q}, {{"dim", int64_t{1}}}), longs({1, 0}, {2, 1}));
  // Codes of several channels do not compare; their values do.
  Tensor p = quantize_per_channel(floats({1, 2}, {1, 2}), {0.01, 1.0}, {0, 0}, 1, DType::qint8);
  expect_equal(ops::call("argmax", {p}, {{"dim", int64_t{1}}}), longs({1}, {1, 1}));
}

TEST(Reduce, Cumsum) {
  Tensor x = longs({1, 2, 3, 4, 5, 6}, {2, 3});
  expect_equal(ops::call("cumsum", {x}, {{"dim", int64_t{1}}}), longs({1, 3, 6, 4, 9, 15}, {2, 3}));
  expect_equal(ops::call("cumsum", {x.transpose(0, 1)}, {{"dim", int64_t{1}}}),
               longs({1, 5, 2, 7, 3, 9}, {3, 2}));
  expect_equal(ops::call("cumsum", {x.to(DType::float32)}, {{"dim", int64_t{-2}}}),
               floats({1, 2, 3, 5, 7, 9}, {2, 3}));
}

// -- quantized ------------------------------------------------------------------------------------

TEST(ReduceQuantized, MeanIsAnIntegerSum) {
  Random random(4);
  for (int trial = 0; trial < 600; ++trial) {
    QType tx = random_qtype(random, random_byte_dtype(random));
    bool other = trial % 3 == 0;
    QType ty = other ? random_qtype(random, random_byte_dtype(random)) : tx;
    Tensor x = random_codes(random, random_shape(random, 1, 4, 5), tx);
    Dims dims = random_dims(random, x.shape());
    Attrs attrs{{"dim", dims.dim}};
    Tensor y = other ? ops::call("mean", {random_layout(random, x)}, attrs, ty)
                     : ops::call("mean", {random_layout(random, x)}, attrs);
    ASSERT_EQ(y.dtype(), ty.dtype);
    ASSERT_EQ(*y.quantizer(), *ty.quantizer);
    Tensor codes = x.int_repr(), result = y.int_repr();
    for_each_index(dims.kept, [&](const std::vector<int64_t>& i) {
      std::vector<double> q = gather(codes, dims.reduced, i);
      double sum = 0;
      for (double v : q) sum += v - static_cast<double>(x.q_zero_point());
      float m = 1.0f / static_cast<float>(q.size());
      if (other) m = static_cast<float>(x.q_scale()) * m / static_cast<float>(y.q_scale());
      ASSERT_EQ(result.at(i), affine::round_and_clamp(static_cast<float>(sum) * m,
                                                      static_cast<int32_t>(y.q_zero_point()),
                                                      static_cast<int32_t>(qmin(y.dtype())),
                                                      static_cast<int32_t>(qmax(y.dtype()))));
    });
  }
}

TEST(ReduceQuantized, ExtremesAreCodes) {
  Random random(5);
  for (int trial = 0; trial < 200; ++trial) {
    QType t = random_qtype(random, random_byte_dtype(random));
    Tensor x = random_codes(random, random_shape(random), t);
    Dims dims = random_dims(random, x.shape());
    const char* op = trial % 2 ? "amax" : "amin";
    expect_equal(ops::call(op, {random_layout(random, x)}, {{"dim", dims.dim}}),
                 by_float(op, {x}, {{"dim", dims.dim}}, t));
  }
}

TEST(ReduceQuantized, OthersAreFloatArithmetic) {
  Random random(6);
  for (int trial = 0; trial < 200; ++trial) {
    const ReduceCase& c = reduce_cases()[trial % reduce_cases().size()];
    if (c.op == "mean") continue;
    QType t = random_qtype(random, DType::quint8), ty = random_qtype(random, DType::quint8);
    Tensor x = random_codes(random, random_shape(random), t);
    Dims dims = random_dims(random, x.shape());
    expect_equal(ops::call(c.op, {x}, {{"dim", dims.dim}}, ty),
                 by_float(c.op, {x}, {{"dim", dims.dim}}, ty), c.op);
  }
}

TEST(ReduceQuantized, PerChannelAxesFollow) {
  Tensor x = quantize_per_channel(Tensor::randn({2, 3, 4}, 7), {0.1, 0.2, 0.3}, {0, 1, 2}, 1,
                                  DType::qint8);
  Attrs last{{"dim", std::vector<int64_t>{2}}, {"keepdim", false}},
      first{{"dim", std::vector<int64_t>{0}}, {"keepdim", false}};
  EXPECT_EQ(ops::call("amax", {x}, last).q_per_channel_axis(), 1);
  EXPECT_EQ(ops::call("amax", {x}, first).q_per_channel_axis(), 0);
  expect_equal(ops::call("amax", {x}, first).dequantize(),
               ops::call("amax", {x.dequantize()}, first));
  expect_error(ErrorCode::invalid_argument, {"amax", "per channel", "dimension 1"},
               [&] { ops::call("amax", {x}); });
  QType t{DType::quint8, Quantizer::per_tensor(0.1, 3, DType::quint8)};
  expect_equal(ops::call("amax", {x}, {}, t), by_float("amax", {x}, {}, t));
  expect_equal(ops::call("mean", {x}, {}, t), by_float("mean", {x}, {}, t));
}

// -- types ----------------------------------------------------------------------------------------

TEST(ReduceTypes, SymbolicDimsPass) {
  std::vector<int64_t> planes{2, 3}, first{0};
  for (const ReduceCase& c : reduce_cases()) {
    EXPECT_EQ(infer_text(c.op, {"Float(N, 3, H, W)"}, {{"dim", planes}}), "Float(N, 3, 1, 1)")
        << c.op;
    EXPECT_EQ(infer_text(c.op, {"Float(N, 3, H, W)"}, {{"dim", planes}, {"keepdim", false}}),
              "Float(N, 3)");
    EXPECT_EQ(infer_text(c.op, {"Float(N, 3)"}, {{"keepdim", false}}), "Float()");
  }
  EXPECT_EQ(infer_text("mean", {"QUInt8(N, 3) scale=0.5 zero_point=3"}, {{"dim", first}}),
            "QUInt8(1, 3) scale=0.5 zero_point=3");
  EXPECT_EQ(infer_text("argmax", {"Float(N, 3, W)"}, {{"dim", int64_t{1}}}), "Long(N, 1, W)");
  EXPECT_EQ(infer_text("cumsum", {"Float(N, 3, W)"}, {{"dim", int64_t{1}}}), "Float(N, 3, W)");
}

TEST(ReduceTypes, ErrorsNameTheOperator) {
  auto fails = [](const char* op, std::vector<int64_t> dim, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts, [&] {
      infer_text(op, {"Float(2, 3)"}, {{"dim", dim}});
    });
  };
  fails("mean", {2}, {"mean", "dimension 2", "2-d"});
  fails("sum", {-3}, {"sum", "dimension -3"});
  fails("prod", {1, -1}, {"prod", "dimension -1", "twice"});
  expect_error(ErrorCode::invalid_argument, {"argmax", "dimension 5"}, [] {
    infer_text("argmax", {"Float(2, 3)"}, {{"dim", int64_t{5}}});
  });
  expect_error(ErrorCode::invalid_argument, {"sum", "scale and zero point"},
               [] { infer_text("sum", {"QUInt8(2) scale=1 zero_point=0"}); });
}

}  // namespace
}  // namespace octet::testing
