#include "octet/tensor/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "octet/base/random.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;

constexpr DType kAll[] = {DType::float32, DType::float64, DType::float16, DType::bfloat16,
                          DType::int64,   DType::int32,   DType::int16,   DType::int8,
                          DType::uint8,   DType::bool_,   DType::quint8,  DType::qint8,
                          DType::qint32};

TEST(DType, NamesRoundTrip) {
  for (DType d : kAll) {
    EXPECT_EQ(parse_dtype(to_string(d)), d);
    EXPECT_EQ(parse_type_name(type_name(d)), d);
  }
  EXPECT_EQ(to_string(DType::bool_), "bool");
  EXPECT_EQ(type_name(DType::quint8), "QUInt8");
  EXPECT_EQ(type_name(DType::int64), "Long");
}

TEST(DType, UnknownNamesListTheKnown) {
  expect_error(ErrorCode::invalid_argument, {"'int9'", "float32", "qint32"},
               [] { parse_dtype("int9"); });
  expect_error(ErrorCode::invalid_argument, {"'Flot'", "Float", "QInt32"},
               [] { parse_type_name("Flot"); });
  expect_error(ErrorCode::invalid_argument, {"''"}, [] { parse_dtype(""); });
}

TEST(DType, Sizes) {
  const size_t sizes[] = {4, 8, 2, 2, 8, 4, 2, 1, 1, 1, 1, 1, 4};
  for (size_t i = 0; i < std::size(kAll); ++i)
    EXPECT_EQ(element_size(kAll[i]), sizes[i]) << to_string(kAll[i]);
}

TEST(DType, CodesAndKinds) {
  for (DType d : kAll) {
    bool quantized = d == DType::quint8 || d == DType::qint8 || d == DType::qint32;
    bool floating =
        d == DType::float32 || d == DType::float64 || d == DType::float16 || d == DType::bfloat16;
    EXPECT_EQ(is_quantized(d), quantized);
    EXPECT_EQ(is_floating(d), floating);
    if (quantized) continue;
    expect_error(ErrorCode::invalid_argument, {to_string(d)}, [&] { qmin(d); });
    expect_error(ErrorCode::invalid_argument, {to_string(d)}, [&] { qmax(d); });
    expect_error(ErrorCode::invalid_argument, {to_string(d)}, [&] { code_dtype(d); });
  }
  EXPECT_EQ(qmin(DType::quint8), 0);
  EXPECT_EQ(qmax(DType::quint8), 255);
  EXPECT_EQ(qmin(DType::qint8), -128);
  EXPECT_EQ(qmax(DType::qint8), 127);
  EXPECT_EQ(qmin(DType::qint32), -2147483648LL);
  EXPECT_EQ(qmax(DType::qint32), 2147483647LL);
  EXPECT_EQ(code_dtype(DType::quint8), DType::uint8);
  EXPECT_EQ(code_dtype(DType::qint8), DType::int8);
  EXPECT_EQ(code_dtype(DType::qint32), DType::int32);
}

// -- half and bfloat16 against an oracle in double ------------------------------------------------

// A 16-bit float format: 1 sign bit, `exponent` bits, the rest mantissa.
struct Format {
  int exponent, mantissa;
  int bias() const { return (1 << (exponent - 1)) - 1; }

  // The number the bits stand for, from the definition of IEEE 754.
  double value(uint16_t bits) const {
    double sign = bits >> 15 ? -1 : 1;
    int e = bits >> mantissa & ((1 << exponent) - 1), m = bits & ((1 << mantissa) - 1);
    if (e == (1 << exponent) - 1)
      return m ? std::nan("") : sign * std::numeric_limits<double>::infinity();
    if (e == 0) return sign * std::ldexp(m, 1 - bias() - mantissa);
    return sign * std::ldexp((1 << mantissa) + m, e - bias() - mantissa);
  }

  // The nearest number of the format, ties to the one with an even last bit. Neighbouring finite
  // numbers are neighbouring bit patterns, and infinity comes after the largest as if it were the
  // next power of two.
  uint16_t nearest(double x) const {
    uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    x = std::abs(x);
    int top = ((1 << exponent) - 1) << mantissa;  // infinity's pattern
    int low = 0, high = top;                      // value(low) <= x
    auto at = [&](int bits) {
      return bits == top ? std::ldexp(1.0, bias() + 1) : value(static_cast<uint16_t>(bits));
    };
    if (x >= at(top)) return static_cast<uint16_t>(sign | top);
    while (high - low > 1) {
      int middle = (low + high) / 2;
      (at(middle) <= x ? low : high) = middle;
    }
    double down = x - at(low), up = at(high) - x;  // exact in double
    bool take_high = up < down || (up == down && low % 2 == 1);
    return static_cast<uint16_t>(sign | (take_high ? high : low));
  }
};

constexpr Format kHalf{5, 10}, kBfloat16{8, 7};

void check_decoding(const Format& format, float (*decode)(uint16_t)) {
  for (int bits = 0; bits < 65536; ++bits) {
    double expected = format.value(static_cast<uint16_t>(bits));
    float got = decode(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(got), expected) << bits;
      ASSERT_EQ(std::signbit(got), std::signbit(expected)) << bits;
    }
  }
}

void check_encoding(const Format& format, uint16_t (*encode)(float), float (*decode)(uint16_t)) {
  auto check = [&](float x) {
    ASSERT_EQ(encode(x), format.nearest(x)) << x << " bits " << std::bit_cast<uint32_t>(x);
  };
  int top = ((1 << format.exponent) - 1) << format.mantissa;
  for (int bits = 0; bits < top; ++bits) {
    float x = decode(static_cast<uint16_t>(bits));
    // Each number, the tie between it and the next (exact in float32: one more bit), and the floats
    // around both.
    double next = bits + 1 == top ? std::ldexp(1.0, format.bias() + 1)
                                  : format.value(static_cast<uint16_t>(bits + 1));
    auto tie = static_cast<float>((static_cast<double>(x) + next) / 2);
    for (float v : {x, tie})
      for (float w : {v, std::nextafter(v, 0.0f), std::nextafter(v, INFINITY)}) {
        check(w);
        check(-w);
      }
  }
  Random random(1);
  for (int i = 0; i < 300000; ++i) {
    float x = std::bit_cast<float>(static_cast<uint32_t>(random.next()));
    if (std::isnan(x))
      ASSERT_TRUE(std::isnan(decode(encode(x))));
    else
      check(x);
  }
  for (float x : {0.0f, -0.0f, INFINITY, -INFINITY, std::numeric_limits<float>::max(),
                  std::numeric_limits<float>::denorm_min()})
    check(x);
  for (uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xffffffffu, 0x7fffffffu, 0xff800001u}) {
    uint16_t bits = encode(std::bit_cast<float>(nan));
    EXPECT_TRUE(std::isnan(decode(bits))) << "a NaN must not round to infinity: " << nan;
    EXPECT_EQ(bits >> 15, static_cast<int>(nan >> 31));
  }
}

TEST(Half, DecodesEveryPattern) { check_decoding(kHalf, half_to_float); }
TEST(Half, EncodesToTheNearest) { check_encoding(kHalf, float_to_half, half_to_float); }
TEST(BFloat16, DecodesEveryPattern) { check_decoding(kBfloat16, bfloat16_to_float); }
TEST(BFloat16, EncodesToTheNearest) {
  check_encoding(kBfloat16, float_to_bfloat16, bfloat16_to_float);
}

TEST(Half, KnownValues) {
  EXPECT_EQ(float_to_half(1.0f), 0x3c00);
  EXPECT_EQ(float_to_half(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(0x1p-24f), 0x0001);
  EXPECT_EQ(float_to_half(0x1p-25f), 0x0000);
  EXPECT_EQ(float_to_bfloat16(3.14159274f), 0x4049);
}

}  // namespace
}  // namespace octet
