#include <limits>

#include "tests/kernels/kernel_test_util.h"
#include "tests/limits.h"

namespace octet::kernels {
namespace {

// Floats of the usual size, near and on the ties, with now and then a special one.
std::vector<float> random_floats(Random& random, size_t n, float scale) {
  std::vector<float> x(n);
  for (auto& v : x) {
    v = random.real(-200, 200) * scale;
    if (random.chance(0.3)) v = (static_cast<float>(random.integer(-300, 300)) + 0.5f) * scale;
    if (random.chance(0.1))
      v = random.one_of(
          {0.0f, -0.0f, kInf, -kInf, kNan, 3e38f, -3e38f, 1e-42f, 3e9f, -3e9f, 2147483648.0f});
  }
  return x;
}

int64_t random_length(Random& random) {
  return random.chance(0.5) ? random.integer(1, 70) : random.integer(1, 400);
}

class ElementwiseTest : public EveryIsa {
 protected:
  // Random operands through add or mul; `combine` is the contract's formula up to the rounding.
  template <typename Combine>
  void expect_binary(void (*kernel)(const BinaryArgs&, int64_t, int64_t), uint32_t seed,
                     Combine combine) {
    Random random(seed);
    for (int i = 0; i < 700; ++i) {
      const int64_t n = random_length(random);
      const Range ra = random_range(random, random.chance(0.5)),
                  rb = random_range(random, ra.is_signed);
      const Range ry = random_range(random, ra.is_signed);
      BinaryArgs g;
      g.b_step = random.chance(0.2) ? 0 : 1;
      const auto a = with_slack(random.bytes(static_cast<size_t>(n)), random);
      const auto b = with_slack(random.bytes(static_cast<size_t>(g.b_step ? n : 1)), random);
      g.qa = {random.magnitude(1e-3f, 1), ra.zero_point};
      g.qb = {random.chance(0.3) ? g.qa.scale : random.magnitude(1e-3f, 1), rb.zero_point};
      if (random.chance(0.3)) g.qb.scale = -g.qb.scale;  // a - b
      const float sy = random.chance(0.1)   ? 1e-20f     // sums far above every code, and int32
                       : random.chance(0.3) ? g.qa.scale * 2
                                            : random.magnitude(1e-3f, 1);
      g.inv_scale = 1.0f / sy;
      g.multiplier = g.qa.scale * g.qb.scale * g.inv_scale;
      g.zero_point = ry.zero_point, g.lo = ry.lo, g.hi = ry.hi;
      g.is_signed = ry.is_signed;
      const int64_t i0 = random.integer(0, n - 1), i1 = random.integer(i0, n);
      Guarded y(static_cast<size_t>(n)), expected(static_cast<size_t>(n));
      g.a = a.data();
      g.b = b.data();
      g.y = y.data();
      kernel(g, i0, i1);
      for (int64_t j = i0; j < i1; ++j) {
        const int32_t qa = code_at(a.data(), j, g.is_signed) - g.qa.zero_point;
        const int32_t qb = code_at(b.data(), j * g.b_step, g.is_signed) - g.qb.zero_point;
        expected.put(static_cast<size_t>(j),
                     reference_code(combine(g, qa, qb), g.zero_point, g.lo, g.hi));
      }
      ASSERT_SAME_BYTES(y, expected)
          << " in case " << i << ", elements " << i0 << ".." << i1 << ", b_step " << g.b_step;
    }
  }
};

TEST_P(ElementwiseTest, AddOfRandomCodesIsExactAndWritesNothingElse) {
  expect_binary(kernels().add, 1, [](const BinaryArgs& g, int32_t a, int32_t b) {
    const float x = g.qa.scale * static_cast<float>(a), z = g.qb.scale * static_cast<float>(b),
                sum = x + z;
    return sum * g.inv_scale;
  });
}

TEST_P(ElementwiseTest, MulOfRandomCodesIsExactAndWritesNothingElse) {
  expect_binary(kernels().mul, 2, [](const BinaryArgs& g, int32_t a, int32_t b) {
    return static_cast<float>(a * b) * g.multiplier;
  });
}

TEST_P(ElementwiseTest, AddOfEveryPairOfCodesIsExact) {
  std::vector<uint8_t> a, b;
  for (int i = 0; i < 65536; ++i)
    a.push_back(static_cast<uint8_t>(i >> 8)), b.push_back(static_cast<uint8_t>(i));
  a.resize(a.size() + 64), b.resize(b.size() + 64);
  for (bool is_signed : {false, true}) {
    // Equal scales and a halving output make every odd sum a tie.
    BinaryArgs g;
    g.qa = {0.25f, 3};
    g.qb = {0.25f, -7};
    g.inv_scale = 2;
    g.is_signed = is_signed;
    g.zero_point = is_signed ? 0 : 128, g.lo = is_signed ? -128 : 0, g.hi = g.lo + 255;
    Guarded y(65536), expected(65536);
    g.a = a.data(), g.b = b.data(), g.y = y.data();
    kernels().add(g, 0, 65536);
    for (int i = 0; i < 65536; ++i) {
      const int twice = code_at(a.data(), i, is_signed) - 3 + code_at(b.data(), i, is_signed) + 7;
      expected.put(i, reference_code(static_cast<float>(twice) / 2, g.zero_point, g.lo, g.hi));
    }
    ASSERT_SAME_BYTES(y, expected) << (is_signed ? "signed" : "unsigned");
  }
}

TEST_P(ElementwiseTest, AddMayOverwriteItsFirstOperand) {
  Random random(3);
  const auto a = with_slack(random.bytes(333), random), b = with_slack(random.bytes(333), random);
  BinaryArgs g;
  g.qa = {0.1f, 3}, g.qb = {0.07f, 200}, g.inv_scale = 8, g.zero_point = 50;
  Guarded y(333);
  g.a = a.data(), g.b = b.data(), g.y = y.data();
  kernels().add(g, 0, 333);
  Guarded in_place(333);
  std::copy_n(a.data(), 333, in_place.data());
  g.a = g.y = in_place.data();
  kernels().add(g, 0, 333);
  EXPECT_SAME_BYTES(in_place, y);
}

TEST_P(ElementwiseTest, LookupReplacesEveryCodeByItsEntry) {
  Random random(4);
  for (int i = 0; i < 700; ++i) {
    const int64_t n = random_length(random);
    const auto x = with_slack(random.bytes(static_cast<size_t>(n)), random);
    const auto entries = random.bytes(256);
    Guarded y(static_cast<size_t>(n)), expected(static_cast<size_t>(n));
    kernels().lookup(x.data(), y.data(), n, entries.data());
    for (int64_t j = 0; j < n; ++j) expected.put(static_cast<size_t>(j), entries[x[j]]);
    ASSERT_SAME_BYTES(y, expected) << " of " << n;
  }
}

TEST_P(ElementwiseTest, LookupKnowsAll256Codes) {
  std::vector<uint8_t> x(256 + 64), entries(256);
  for (int i = 0; i < 256; ++i)
    x[i] = static_cast<uint8_t>(i), entries[i] = static_cast<uint8_t>(i * 167 + 13);
  Guarded y(256), expected(256);
  kernels().lookup(x.data(), y.data(), 256, entries.data());
  std::copy(entries.begin(), entries.end(), expected.data());
  EXPECT_SAME_BYTES(y, expected);
}

TEST_P(ElementwiseTest, LookupInPlaceGivesTheSame) {
  Random random(5);
  const auto x = random.bytes(777), entries = random.bytes(256);
  Guarded y(777), in_place(777);
  std::copy(x.begin(), x.end(), in_place.data());
  kernels().lookup(in_place.data(), in_place.data(), 777, entries.data());
  for (int i = 0; i < 777; ++i) y.put(i, entries[x[i]]);
  EXPECT_SAME_BYTES(in_place, y);
}

TEST_P(ElementwiseTest, QuantizeOfRandomFloatsIsExactAndWritesNothingElse) {
  Random random(6);
  for (int i = 0; i < 700; ++i) {
    const int64_t n = random_length(random);
    const float scale = random.magnitude(1e-4f, 10);
    const auto x = random_floats(random, static_cast<size_t>(n), scale);
    const Range r = random_range(random, random.chance(0.5));
    Guarded y(static_cast<size_t>(n)), expected(static_cast<size_t>(n));
    kernels().quantize(x.data(), y.data(), n, 1 / scale, r.zero_point, r.lo, r.hi);
    for (int64_t j = 0; j < n; ++j)
      expected.put(static_cast<size_t>(j),
                   reference_quantize(x[j], 1 / scale, r.zero_point, r.lo, r.hi));
    ASSERT_SAME_BYTES(y, expected) << " in case " << i << " of " << n;
  }
}

TEST_P(ElementwiseTest, QuantizeDividedIsExactAndWritesNothingElse) {
  Random random(16);
  for (int i = 0; i < 700; ++i) {
    const int64_t n = random_length(random);
    const float scale = random.magnitude(1e-4f, 10);
    const auto x = random_floats(random, static_cast<size_t>(n), scale);
    const Range r = random_range(random, random.chance(0.5));
    Guarded y(static_cast<size_t>(n)), expected(static_cast<size_t>(n));
    kernels().quantize_divided(x.data(), y.data(), n, scale, r.zero_point, r.lo, r.hi);
    for (int64_t j = 0; j < n; ++j)
      expected.put(static_cast<size_t>(j),
                   reference_quantize(x[j] / scale, 1, r.zero_point, r.lo, r.hi));
    ASSERT_SAME_BYTES(y, expected) << " in case " << i << " of " << n;
  }
}

TEST_P(ElementwiseTest, QuantizeSendsNanToTheZeroPointAndInfinitiesToTheEnds) {
  const std::vector<float> x = {kNan, -kNan, kInf, -kInf, 3e38f, -3e38f, 0.0f, -0.0f};
  Guarded y(8);
  kernels().quantize(x.data(), y.data(), 8, 10, 77, 0, 255);
  EXPECT_EQ(std::vector<int>(y.data(), y.data() + 8),
            (std::vector<int>{77, 77, 255, 0, 255, 0, 77, 77}));
  kernels().quantize(x.data(), y.data(), 8, 10, -5, -128, 127);
  EXPECT_EQ(std::vector<int>(y.signed_data(), y.signed_data() + 8),
            (std::vector<int>{-5, -5, 127, -128, 127, -128, -5, -5}));
  kernels().quantize(x.data(), y.data(), 8, 10, 3, 10, 20);  // the zero point itself is clamped
  EXPECT_EQ(std::vector<int>(y.data(), y.data() + 8),
            (std::vector<int>{10, 10, 20, 10, 20, 10, 10, 10}));
}

TEST_P(ElementwiseTest, QuantizeRoundsTiesToEven) {
  std::vector<float> x;
  std::vector<int> expected;
  for (int i = -100; i < 100; ++i)
    x.push_back(static_cast<float>(i) + 0.5f), expected.push_back(100 + i + (i & 1));
  Guarded y(200);
  kernels().quantize(x.data(), y.data(), 200, 1, 100, 0, 255);
  EXPECT_EQ(std::vector<int>(y.data(), y.data() + 200), expected);
}

TEST_P(ElementwiseTest, DequantizeOfRandomCodesIsExactAndWritesNothingElse) {
  Random random(7);
  for (int i = 0; i < 700; ++i) {
    const int64_t n = random_length(random);
    const Range r = random_range(random, random.chance(0.5));
    const float scale = random.magnitude(1e-8f, 1e4f);
    const auto x = with_slack(random.bytes(static_cast<size_t>(n)), random);
    Guarded y(static_cast<size_t>(n) * 4), expected(static_cast<size_t>(n) * 4);
    kernels().dequantize(x.data(), y.as<float>(), n, scale, r.zero_point, r.is_signed);
    for (int64_t j = 0; j < n; ++j)
      expected.put(static_cast<size_t>(j),
                   scale * static_cast<float>(code_at(x.data(), j, r.is_signed) - r.zero_point));
    ASSERT_SAME_BYTES(y, expected) << " in case " << i << " of " << n;
  }
}

TEST_P(ElementwiseTest, RequantizeIsDequantizeThenQuantize) {
  Random random(8);
  for (int i = 0; i < 700; ++i) {
    const int64_t n = random_length(random);
    const Range from = random_range(random, random.chance(0.5)),
                to = random_range(random, from.is_signed);
    const QParams q{random.magnitude(1e-3f, 1), from.zero_point};
    const float inv_scale =
        random.chance(0.3) ? 1 / (2 * q.scale) : random.one_of({random.magnitude(1, 1e3f), kInf});
    const auto x = with_slack(random.bytes(static_cast<size_t>(n)), random);
    Guarded y(static_cast<size_t>(n)), expected(static_cast<size_t>(n));
    kernels().requantize(x.data(), y.data(), n, q, inv_scale, to.zero_point, to.lo, to.hi,
                         from.is_signed);
    for (int64_t j = 0; j < n; ++j) {
      const float value =
          q.scale * static_cast<float>(code_at(x.data(), j, from.is_signed) - q.zero_point);
      expected.put(static_cast<size_t>(j),
                   reference_quantize(value, inv_scale, to.zero_point, to.lo, to.hi));
    }
    ASSERT_SAME_BYTES(y, expected) << " in case " << i << " of " << n;
  }
}

TEST_P(ElementwiseTest, AddFloatsIsDequantizeThenAddThenQuantize) {
  Random random(10);
  for (int i = 0; i < 700; ++i) {
    const int64_t n = random_length(random);
    const Range from = random_range(random, random.chance(0.5)),
                to = random_range(random, from.is_signed);
    const auto x = with_slack(random.bytes(static_cast<size_t>(n)), random);
    AddFloatsArgs g;
    g.q = {random.magnitude(1e-3f, 1), from.zero_point};
    g.b_step = random.chance(0.2) ? 0 : 1;
    const std::vector<float> b =
        random_floats(random, static_cast<size_t>(g.b_step ? n : 1), g.q.scale);
    g.inv_scale =
        random.chance(0.3) ? 1 / (2 * g.q.scale) : random.one_of({random.magnitude(1, 1e3f), kInf});
    g.zero_point = to.zero_point, g.lo = to.lo, g.hi = to.hi;
    g.is_signed = to.is_signed;
    Guarded y(static_cast<size_t>(n)), expected(static_cast<size_t>(n));
    g.x = x.data();
    g.b = b.data();
    g.y = y.data();
    kernels().add_floats(g, n);
    for (int64_t j = 0; j < n; ++j) {
      const float value =
          g.q.scale * static_cast<float>(code_at(x.data(), j, g.is_signed) - g.q.zero_point);
      expected.put(static_cast<size_t>(j),
                   reference_quantize(value + b[static_cast<size_t>(j * g.b_step)], g.inv_scale,
                                      g.zero_point, g.lo, g.hi));
    }
    ASSERT_SAME_BYTES(y, expected) << " in case " << i << " of " << n;
  }
}

TEST_P(ElementwiseTest, PlanesQuantizeIntoPixelsExactlyAndWriteNothingElse) {
  Random random(9);
  for (int i = 0; i < 700; ++i) {
    const int64_t channels =
        random.chance(0.4) ? random.one_of<int64_t>({1, 2, 3, 4, 16, 32}) : random.integer(1, 70);
    const int64_t pixels = random.integer(1, 150);
    const float scale = random.magnitude(1e-3f, 1);
    const auto x = random_floats(random, static_cast<size_t>(channels * pixels), scale);
    const Range r = random_range(random, random.chance(0.5));
    const int64_t p0 = random.chance(0.5) ? 0 : random.integer(0, pixels - 1);
    const int64_t p1 = random.chance(0.5) ? pixels : random.integer(p0, pixels);
    Guarded y(static_cast<size_t>(channels * pixels)),
        expected(static_cast<size_t>(channels * pixels));
    kernels().quantize_nchw_to_nhwc(x.data(), y.data(), channels, pixels, 1 / scale, r.zero_point,
                                    r.lo, r.hi, p0, p1);
    for (int64_t p = p0; p < p1; ++p)
      for (int64_t c = 0; c < channels; ++c)
        expected.put(static_cast<size_t>(p * channels + c),
                     reference_quantize(x[c * pixels + p], 1 / scale, r.zero_point, r.lo, r.hi));
    ASSERT_SAME_BYTES(y, expected) << " in case " << i << ": " << channels << " channels, pixels "
                                   << p0 << ".." << p1 << " of " << pixels;
  }
}

TEST_P(ElementwiseTest, TransposeTurnsEveryByteAndWritesNothingElse) {
  Random random(12);
  for (int i = 0; i < 300; ++i) {
    const int64_t rows = random.integer(1, 70),
                  columns = random.chance(0.5) ? random.integer(1, 30) : random.integer(1, 150);
    const auto x = random.bytes(static_cast<size_t>(rows * columns));
    Guarded y(x.size()), expected(x.size());
    kernels().transpose(x.data(), columns, y.data(), rows, rows, columns);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        expected.put(static_cast<size_t>(c * rows + r), x[static_cast<size_t>(r * columns + c)]);
    ASSERT_SAME_BYTES(y, expected) << " in case " << i << ": " << rows << " x " << columns;
  }
}

struct Extremes {
  float mn = 0, mx = 0;
  int64_t not_finite = -1;
};

Extremes min_max(const KernelTable& kernels, const std::vector<float>& x) {
  Extremes e;
  kernels.min_max(x.data(), static_cast<int64_t>(x.size()), &e.mn, &e.mx, &e.not_finite);
  return e;
}

TEST_P(ElementwiseTest, MinMaxOfRandomFloatsIgnoresNanAndCountsWhatIsNotFinite) {
  Random random(10);
  for (int i = 0; i < 700; ++i) {
    auto x = random_floats(random, static_cast<size_t>(random_length(random)), 1);
    if (random.chance(0.5))
      for (auto& v : x) v = std::isfinite(v) ? v : 1;
    const Extremes got = min_max(kernels(), x);
    Extremes expected{kInf, -kInf, 0};
    for (float v : x) {
      expected.not_finite += !std::isfinite(v);
      expected.mn = std::fmin(expected.mn, v);
      expected.mx = std::fmax(expected.mx, v);
    }
    ASSERT_EQ(got.mn, expected.mn) << "case " << i;
    ASSERT_EQ(got.mx, expected.mx) << "case " << i;
    ASSERT_EQ(got.not_finite, expected.not_finite) << "case " << i;
  }
}

TEST_P(ElementwiseTest, MinMaxOfOnlyNansIsTheEmptyRange) {
  for (size_t n : {1, 5, 64, 200}) {
    const Extremes got = min_max(kernels(), std::vector<float>(n, kNan));
    EXPECT_EQ(got.mn, kInf);
    EXPECT_EQ(got.mx, -kInf);
    EXPECT_EQ(got.not_finite, static_cast<int64_t>(n));
  }
}

TEST_P(ElementwiseTest, MinMaxOfMixedZerosIsPositiveZero) {
  for (size_t n : {2, 100, 257}) {
    for (size_t negative : {size_t{0}, n / 2, n - 1}) {
      std::vector<float> x(n, 0.0f);
      x[negative] = -0.0f;
      const Extremes got = min_max(kernels(), x);
      EXPECT_FALSE(std::signbit(got.mn));
      EXPECT_FALSE(std::signbit(got.mx));
    }
  }
}

TEST_P(ElementwiseTest, TransposeOfAPartOfAMatrixLeavesTheRest) {
  for (auto [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 1}, {16, 16}, {17, 40}, {64, 31}, {5, 100}}) {
    const int64_t ldx = columns + 3, ldy = rows + 2;
    std::vector<uint8_t> x(static_cast<size_t>(rows * ldx)),
        y(static_cast<size_t>(columns * ldy), 7);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint8_t>(i * 37 + i / 11);
    kernels().transpose(x.data(), ldx, y.data(), ldy, rows, columns);
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t r = 0; r < ldy; ++r)
        ASSERT_EQ(y[static_cast<size_t>(c * ldy + r)],
                  r < rows ? x[static_cast<size_t>(r * ldx + c)] : 7)
            << rows << "x" << columns;
  }
}

OCTET_FOR_EVERY_ISA(ElementwiseTest);

}  // namespace
}  // namespace octet::kernels
