#include "octet/tensor/affine.h"
#include "tests/limits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "octet/base/random.h"

namespace octet::affine {
namespace {

constexpr int32_t kMin = std::numeric_limits<int32_t>::min(),
                  kMax = std::numeric_limits<int32_t>::max();

TEST(Affine, RoundsHalfToEven) {
  const struct {
    float in, out;
  } rows[] = {{0.5f, 0},        {1.5f, 2},       {2.5f, 2},
              {-0.5f, 0},       {-1.5f, -2},     {-2.5f, -2},
              {0.49999997f, 0}, {2.4999998f, 2}, {8388609.f, 8388609.f},
              {-7.1f, -7}};
  for (auto [in, out] : rows) EXPECT_EQ(rne(in), out) << in;
}

TEST(Affine, RoundAndClampHoldsForAnyFloat) {
  const struct {
    float v;
    int32_t z, lo, hi, out;
  } rows[] = {{2.5f, 0, 0, 255, 2},
              {3.5f, 0, 0, 255, 4},
              {-1, 10, 0, 255, 9},
              {300, 0, 0, 255, 255},
              {-300, 0, 0, 255, 0},
              {kInf, 3, 0, 255, 255},
              {-kInf, 3, 0, 255, 0},
              {kNan, 3, 0, 255, 3},
              {kNan, 300, 0, 255, 255},
              {3e38f, 0, -128, 127, 127},
              {-3e38f, 0, -128, 127, -128},
              {3e9f, kMax, kMin, kMax, kMax},
              {-3e9f, kMin, kMin, kMax, kMin},
              {2147483520.f, 127, kMin, kMax, 2147483647},
              {2147483520.f, 128, kMin, kMax, kMax},
              {-2147483648.f, 0, kMin, kMax, kMin},
              {-2147483648.f, 1, kMin, kMax, kMin + 1},
              {-2147483648.f, -1, kMin, kMax, kMin}};
  for (auto [v, z, lo, hi, out] : rows)
    EXPECT_EQ(round_and_clamp(v, z, lo, hi), out) << v << " + " << z;
}

// The definition, in exact arithmetic but for the two float32 roundings that numerics.md names.
int32_t quantize_by_definition(float x, float scale, int64_t z, int64_t lo, int64_t hi) {
  float inverse = 1.0f / scale;
  volatile float product = x * inverse;
  double q = std::nearbyint(static_cast<double>(product)) + static_cast<double>(z);
  return static_cast<int32_t>(
      std::min<double>(std::max<double>(q, static_cast<double>(lo)), static_cast<double>(hi)));
}

TEST(Affine, QuantizeFollowsTheDefinition) {
  Random random(7);
  for (int i = 0; i < 100000; ++i) {
    auto scale = static_cast<float>(std::exp(random.uniform(-12, 6)));
    auto x = static_cast<float>(random.normal() * std::exp(random.uniform(-8, 8)));
    auto z = static_cast<int32_t>(random.integer(0, 255));
    ASSERT_EQ(quantize(x, scale, z, 0, 255), quantize_by_definition(x, scale, z, 0, 255))
        << x << " / " << scale;
    ASSERT_EQ(quantize(x, scale, z - 128, -128, 127),
              quantize_by_definition(x, scale, z - 128, -128, 127));
  }
}

TEST(Affine, QuantizeMultipliesByTheInverse) {
  // 1/0.1f is 10 exactly in float32: 0.05f * 10 is the tie 0.5, and goes to even.
  EXPECT_EQ(quantize(0.05f, 0.1f, 0, -128, 127), 0);
  EXPECT_EQ(quantize(0.15f, 0.1f, 0, -128, 127), 2);
  EXPECT_EQ(quantize(0.25f, 0.1f, 0, -128, 127), 2);
  EXPECT_EQ(quantize(-0.05f, 0.1f, 0, -128, 127), 0);
  EXPECT_EQ(quantize(-0.15f, 0.1f, 0, -128, 127), -2);
}

TEST(Affine, TinyScalesSaturateAndKeepZero) {
  // 1/scale is infinite for the smallest subnormals: 0 must stay the zero point all the same.
  float tiny = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(quantize(0.0f, tiny, 7, 0, 255), 7);
  EXPECT_EQ(quantize(1.0f, tiny, 7, 0, 255), 255);
  EXPECT_EQ(quantize(-1.0f, tiny, 7, 0, 255), 0);
}

TEST(Affine, DequantizeIsScaleTimesTheDifference) {
  EXPECT_EQ(dequantize(130, 0.1f, 128), 0.2f);
  EXPECT_EQ(dequantize(0, 0.1f, 128), 0.1f * -128.0f);
  EXPECT_EQ(dequantize(kMax, 1.0f, kMin), 4294967296.0f) << "no int32 overflow";
  EXPECT_EQ(dequantize(kMin, 1.0f, kMax), -4294967296.0f);
}

TEST(Affine, EveryCodeSurvivesTheRoundTrip) {
  Random random(3);
  for (int i = 0; i < 200; ++i) {
    auto scale = static_cast<float>(std::exp(random.uniform(-20, 20)));
    auto z = static_cast<int32_t>(random.integer(0, 255));
    for (int32_t q = 0; q < 256; ++q)
      ASSERT_EQ(quantize(dequantize(q, scale, z), scale, z, 0, 255), q) << scale << " " << z;
  }
}

TEST(Affine, Requantize) {
  EXPECT_EQ(requantize(5, 0.5f, 0, 0, 255), 2);  // 2.5 to even
  EXPECT_EQ(requantize(7, 0.5f, 0, 0, 255), 4);
  EXPECT_EQ(requantize(-5, 0.5f, 10, 0, 255), 8);
  EXPECT_EQ(requantize(kMax, 1.0f, 0, 0, 255), 255);
  EXPECT_EQ(requantize(kMin, 1.0f, 0, -128, 127), -128);
  // The accumulator is rounded to float32 first: 2^24 + 1 becomes 2^24.
  EXPECT_EQ(requantize(16777217, 1.0f, 0, kMin, kMax), 16777216);
}

TEST(Affine, RequantizesSumsBeyondInt32) {
  EXPECT_EQ(requantize(int64_t{100} << 32, 1.0f / (int64_t{1} << 32), 3, 0, 255), 103);
  // Rounded to float32 once: 2^40 + 2^16 + 1 is above the middle of two floats, 2^40 + 2^16 is not.
  const int64_t middle = (int64_t{1} << 40) + (1 << 16);
  EXPECT_EQ(requantize(middle + 1, 1.0f / (1 << 17), 0, kMin, kMax), (1 << 23) + 1);
  EXPECT_EQ(requantize(middle, 1.0f / (1 << 17), 0, kMin, kMax), 1 << 23);
}

TEST(Affine, BiasIsInUnitsOfTheProductOfScales) {
  EXPECT_EQ(quantize_bias(1.0f, 0.5f, 0.25f), 8);
  EXPECT_EQ(quantize_bias(-0.3125f, 0.5f, 0.25f), -2);  // -2.5 to even
  EXPECT_EQ(quantize_bias(0.0f, 1e-30f, 1e-30f), 0);    // 0 / 0
  EXPECT_EQ(quantize_bias(-2147483648.0f, 1, 1), kMin);
  EXPECT_EQ(quantize_bias(2147483648.0f, 1, 1), 2147483648) << "need not fit int32";
  EXPECT_EQ(quantize_bias(1.0f, 0x1p-30f, 0x1p-31f), int64_t{1} << 61);
  EXPECT_EQ(quantize_bias(1.0f, 0x1p-30f, 0x1p-40f), kLargestBiasCode);
  EXPECT_EQ(quantize_bias(-1.0f, 1e-30f, 1e-30f), -kLargestBiasCode);
}

}  // namespace
}  // namespace octet::affine
