#include "octet/tensor/type.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/random.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;

TEST(Shape, NumelAndText) {
  EXPECT_EQ(numel({}), 1);
  EXPECT_EQ(numel({2, 3, 4}), 24);
  EXPECT_EQ(numel({2, 0}), 0);
  EXPECT_EQ(to_string(Shape{}), "()");
  EXPECT_EQ(to_string(Shape{2, 3}), "(2, 3)");
}

TEST(Dim, KnownAndSymbolic) {
  EXPECT_TRUE(Dim(3).known());
  EXPECT_FALSE(Dim("N").known());
  EXPECT_EQ(to_string(Dim(3)), "3");
  EXPECT_EQ(to_string(Dim("N")), "N");
  EXPECT_NE(Dim(3), Dim("N"));
}

TEST(Dim, Products) {
  EXPECT_EQ(multiply(3, 4), Dim(12));
  EXPECT_EQ(multiply(Dim("N"), 49), Dim("N*49"));
  EXPECT_EQ(multiply(49, Dim("N")), Dim("N*49"));
  EXPECT_EQ(multiply(1, Dim("N")), Dim("N"));
  EXPECT_EQ(multiply(Dim("N"), 1), Dim("N"));
  EXPECT_EQ(multiply(Dim("N"), Dim("M")), Dim("N*M"));
}

TEST(TensorType, StaticShapes) {
  TensorType known(DType::float32, Shape{2, 3});
  EXPECT_TRUE(known.is_static());
  EXPECT_EQ(known.shape(), (Shape{2, 3}));
  TensorType free(DType::float32, std::vector<Dim>{Dim("N"), Dim(3)});
  EXPECT_FALSE(free.is_static());
  expect_error(ErrorCode::invalid_argument, {"'N'", "Float(N, 3)"}, [&] { free.shape(); });
}

TEST(TensorType, EqualityLooksAtQparams) {
  TensorType a(DType::quint8, Shape{2}, Quantizer::per_tensor(0.5, 1, DType::quint8));
  TensorType b(DType::quint8, Shape{2}, Quantizer::per_tensor(0.5, 1, DType::quint8));
  TensorType c(DType::quint8, Shape{2}, Quantizer::per_tensor(0.5, 2, DType::quint8));
  EXPECT_EQ(a, b);
  EXPECT_FALSE(a == c);
  EXPECT_FALSE(a == TensorType(DType::quint8, Shape{2}));
}

TEST(TensorType, PrintsAndReads) {
  const char* texts[] = {"Float(2, 3)",
                         "Float()",
                         "Long(N)",
                         "Bool(N, seq, N*49)",
                         "Half(0, 1)",
                         "BFloat16(1)",
                         "QUInt8(N, 3, 8, 8) scale=0.031 zero_point=128",
                         "QInt8(2) scale=1 zero_point=-128",
                         "QInt8(2, 3) axis=0 scale=[0.001, 0.0021] zero_point=0",
                         "QInt8(2, 3) axis=0 scale=[0.001, 2e-30] zero_point=[0, 3]",
                         "QInt32(4) scale=1e-06 zero_point=0"};
  for (const char* text : texts) EXPECT_EQ(to_string(parse_type(text), false), text);
  EXPECT_EQ(parse_type("Float(2, 3)"), TensorType(DType::float32, Shape{2, 3}));
  EXPECT_EQ(parse_type("QUInt8(N) scale=0.5 zero_point=1").quantizer->zero_point(), 1);
}

// What is saved is what is loaded: scales to the last bit, be they float32 numbers or any double.
TEST(TensorType, RoundTripsEveryScale) {
  Random random(11);
  for (int i = 0; i < 20000; ++i) {
    double scale = std::exp(random.uniform(-60, 60));
    if (i % 2) scale = static_cast<double>(static_cast<float>(scale));
    TensorType type(DType::quint8, std::vector<Dim>{Dim("N"), Dim(3)},
                    Quantizer::per_tensor(scale, random.integer(0, 255), DType::quint8));
    ASSERT_EQ(parse_type(to_string(type, false)), type) << to_string(type, false);
  }
  for (int i = 0; i < 300; ++i) {
    std::vector<double> scales;
    std::vector<int64_t> zeros;
    for (int c = 0; c < 7; ++c) {
      scales.push_back(std::exp(random.uniform(-20, 20)));
      zeros.push_back(i % 2 ? 0 : random.integer(INT32_MIN, INT32_MAX));
    }
    TensorType type(DType::qint32, Shape{2, 7},
                    Quantizer::per_channel(scales, zeros, 1, DType::qint32));
    ASSERT_EQ(parse_type(to_string(type, false)), type);
  }
}

TEST(TensorType, OneChannelStaysPerChannel) {
  TensorType type(DType::qint8, Shape{1, 2}, Quantizer::per_channel({0.5}, {0}, 0, DType::qint8));
  EXPECT_EQ(parse_type(to_string(type, false)), type);
}

TEST(TensorType, AbridgedTextIsNotReadBack) {
  TensorType type(DType::qint8, Shape{9},
                  Quantizer::per_channel(std::vector<double>(9, 0.5), std::vector<int64_t>(9, 0), 0,
                                         DType::qint8));
  EXPECT_EQ(parse_type(to_string(type, false)), type);
  expect_error(ErrorCode::invalid_argument, {"abridged"},
               [&] { parse_type(to_string(type, true)); });
}

TEST(TensorType, BadTextIsAnError) {
  for (const char* text : {"",
                           "Float",
                           "Float(",
                           "Float)",
                           ")Float(",
                           "Flot(2)",
                           "Float( )",
                           "Float(2, )",
                           "Float(, 2)",
                           "Float(2,,3)",
                           "QInt8(2)",
                           "QInt8(2) scale=1",
                           "QInt8(2) scale= zero_point=0",
                           "QInt8(2) scale=[] zero_point=0",
                           "QInt8(2) scale=x zero_point=0",
                           "QInt8(2) scale=0 zero_point=0",
                           "QInt8(2) scale=1 zero_point=400",
                           "QInt8(2) scale=1 zero_point=[]",
                           "QInt8(2) axis=0 scale=[1, 2] zero_point=[1, 2, 3]",
                           "QInt8(2) axis=0 scale=[] zero_point=[]",
                           "QInt8(2) scale=1 zero_point=nan",
                           "QInt8(2) scale=[1 zero_point=",
                           "Float(99999999999999999999)",
                           "QInt8(2) axis=0 scale=[1, 2] zero_point=[]"})
    EXPECT_THROW(parse_type(text), Error) << text;
}

}  // namespace
}  // namespace octet
