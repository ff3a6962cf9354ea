#include "octet/tensor/quantizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;

TEST(Quantizer, PerTensor) {
  auto q = Quantizer::per_tensor(0.5, 3, DType::quint8);
  EXPECT_EQ(q->scheme(), QScheme::per_tensor_affine);
  EXPECT_FALSE(q->is_per_channel());
  EXPECT_EQ(q->axis(), -1);
  for (int64_t channel : {0, 5}) {
    EXPECT_EQ(q->scale(channel), 0.5);
    EXPECT_EQ(q->zero_point(channel), 3);
  }
}

TEST(Quantizer, PerChannel) {
  auto q = Quantizer::per_channel({0.5, 0.25}, {3, -4}, 1, DType::qint8);
  EXPECT_TRUE(q->is_per_channel());
  EXPECT_EQ(q->axis(), 1);
  EXPECT_EQ(q->scale(1), 0.25);
  EXPECT_EQ(q->zero_point(1), -4);
  EXPECT_EQ(q->with_axis(3)->axis(), 3);
  EXPECT_EQ(q->with_axis(3)->scales(), q->scales());
  EXPECT_EQ(Quantizer::per_tensor(1, 0, DType::qint8)->with_axis(3)->axis(), -1);
}

TEST(Quantizer, ScalesAreFinitePositiveAndFitFloat32) {
  for (double scale :
       {0.0, -1.0, std::numeric_limits<double>::infinity(), std::nan(""), 1e-60, 1e60}) {
    expect_error(ErrorCode::invalid_argument, {"scale"},
                 [&] { Quantizer::per_tensor(scale, 0, DType::qint8); });
    expect_error(ErrorCode::invalid_argument, {"channel 1", "scale"}, [&] {
      Quantizer::per_channel({1, scale}, {0, 0}, 0, DType::qint8);
    });
  }
  EXPECT_NO_THROW(Quantizer::per_tensor(1e-40, 0, DType::qint8));
}

TEST(Quantizer, ZeroPointsLieAmongTheCodes) {
  const struct {
    DType dtype;
    int64_t lo, hi;
  } rows[] = {
      {DType::quint8, 0, 255}, {DType::qint8, -128, 127}, {DType::qint32, INT32_MIN, INT32_MAX}};
  for (auto [dtype, lo, hi] : rows) {
    for (int64_t z : {lo, hi}) EXPECT_NO_THROW(Quantizer::per_tensor(1, z, dtype));
    for (int64_t z : {lo - 1, hi + 1})
      expect_error(ErrorCode::invalid_argument, {"zero_point", to_string(dtype)},
                   [&] { Quantizer::per_tensor(1, z, dtype); });
  }
  expect_error(ErrorCode::invalid_argument, {"float32"},
               [] { Quantizer::per_tensor(1, 0, DType::float32); });
}

TEST(Quantizer, ListsMustMatch) {
  expect_error(ErrorCode::invalid_argument, {"2 scales", "1 zero"}, [] {
    Quantizer::per_channel({1, 1}, {0}, 0, DType::qint8);
  });
  expect_error(ErrorCode::invalid_argument, {"0 scales"},
               [] { Quantizer::per_channel({}, {}, 0, DType::qint8); });
  expect_error(ErrorCode::invalid_argument, {"axis -1"},
               [] { Quantizer::per_channel({1}, {0}, -1, DType::qint8); });
}

TEST(Quantizer, Equality) {
  auto a = Quantizer::per_channel({0.5, 0.25}, {0, 0}, 0, DType::qint8);
  EXPECT_EQ(*a, *Quantizer::per_channel({0.5, 0.25}, {0, 0}, 0, DType::qint8));
  EXPECT_NE(*a, *a->with_axis(1));
  EXPECT_NE(*a, *Quantizer::per_channel({0.5, 0.5}, {0, 0}, 0, DType::qint8));
  EXPECT_NE(*a, *Quantizer::per_tensor(0.5, 0, DType::qint8));
}

TEST(Quantizer, Prints) {
  auto f = [](float v) { return static_cast<double>(v); };
  EXPECT_EQ(to_string(*Quantizer::per_tensor(f(0.031f), 128, DType::quint8)),
            "scale=0.031 zero_point=128");
  EXPECT_EQ(to_string(*Quantizer::per_channel({f(0.001f), f(0.0021f)}, {0, 0}, 0, DType::qint8)),
            "axis=0 scale=[0.001, 0.0021] zero_point=0");
  EXPECT_EQ(to_string(*Quantizer::per_channel({0.5, 0.25}, {1, 2}, 1, DType::qint8)),
            "axis=1 scale=[0.5, 0.25] zero_point=[1, 2]");
  auto many = Quantizer::per_channel({0.5, 0.25, 1, 2, 4}, {1, 2, 3, 4, -5}, 0, DType::qint8);
  EXPECT_EQ(to_string(*many), "axis=0 scale=[5: 0.25..4] zero_point=[5: -5..4]");
  EXPECT_EQ(to_string(*many, false),
            "axis=0 scale=[0.5, 0.25, 1, 2, 4] zero_point=[1, 2, 3, 4, -5]");
}

}  // namespace
}  // namespace octet
