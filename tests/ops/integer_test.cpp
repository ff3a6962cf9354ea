// Operators on plain integers: codes in and out of quantized tensors, and exact products.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/ops/op.h"
#include "tests/expect_error.h"

namespace octet::ops {
namespace {

using testing::expect_error;

// Codes over their whole range, most of them at its ends: sums are as large as they can be.
Tensor codes(const Shape& shape, int seed, DType dtype) {
  const double low = dtype == DType::int8 ? -128 : 0;
  Tensor t = Tensor::rand(shape, static_cast<uint64_t>(seed), 0, 1).clone();
  for (int64_t i = 0; i < t.numel(); ++i) {
    const float v = t.data<float>()[i];
    t.data<float>()[i] = static_cast<float>(v < 0.1 ? low : low + 255 - std::floor(v * 4));
  }
  return t.to(dtype);
}

int64_t value(const Tensor& t, const std::vector<int64_t>& at) {
  return static_cast<int64_t>(t.at(at));
}

TEST(IntegerOps, CodesOutOfAQuantizedTensorAndIntoAnother) {
  const Tensor x =
      quantize_per_tensor(Tensor::from<float>({-1, 0, 2.5f}, {3}), 0.5f, 10, DType::quint8);
  const Tensor plain = call("int_repr", {x});
  EXPECT_EQ(plain.to_vector<uint8_t>(), (std::vector<uint8_t>{8, 10, 15}));
  const Tensor y = call("make_quantized", {plain}, {},
                        QType{DType::quint8, Quantizer::per_tensor(2, 8, DType::quint8)});
  EXPECT_EQ(y.dequantize().to_vector<float>(), (std::vector<float>{0, 4, 14}));
  expect_error(ErrorCode::invalid_argument, {"make_quantized", "Byte"}, [&] {
    call("make_quantized", {plain}, {},
         QType{DType::qint8, Quantizer::per_tensor(2, 8, DType::qint8)});
  });
  expect_error(ErrorCode::invalid_argument, {"int_repr", "Float"},
               [] { call("int_repr", {Tensor::zeros({1})}); });
}

TEST(IntegerOps, ConvIntegerOfThreeDimensions) {
  const Tensor x = codes({2, 3, 4, 5, 6}, 1, DType::uint8),
               w = codes({4, 3, 2, 3, 2}, 2, DType::int8);
  const std::vector<int64_t> stride{2, 1, 3}, dilation{1, 2, 1}, padding{1, 0, 2, 0, 1, 1};
  const Tensor y = call("conv_integer",
                        {x, w, Tensor::scalar(200, DType::uint8),
                         Tensor::from(std::vector<int8_t>{1, -128, 127, 0}, {4})},
                        {{"stride", stride}, {"dilation", dilation}, {"padding", padding}});
  ASSERT_EQ(y.shape(), (Shape{2, 4, 2, 2, 3}));
  ASSERT_EQ(y.dtype(), DType::int32);
  const int64_t zeros[] = {1, -128, 127, 0};
  for (int64_t i = 0; i < y.numel(); ++i) {
    const int64_t n = i / 48, o = i / 12 % 4, at[] = {i / 6 % 2, i / 3 % 2, i % 3};
    int64_t sum = 0;
    for (int64_t k = 0; k < 36; ++k) {
      const int64_t c = k / 12, tap[] = {k / 6 % 2, k / 2 % 3, k % 2}, size[] = {4, 5, 6};
      int64_t p[3];
      bool inside = true;
      for (size_t d = 0; d < 3; ++d) {
        p[d] = at[d] * stride[d] + tap[d] * dilation[d] - padding[d];
        inside = inside && p[d] >= 0 && p[d] < size[d];
      }
      if (inside)
        sum += (value(x, {n, c, p[0], p[1], p[2]}) - 200) *
               (value(w, {o, c, tap[0], tap[1], tap[2]}) - zeros[o]);
    }
    ASSERT_EQ(y.data<int32_t>()[i], sum) << i;
  }
}

TEST(IntegerOps, MatmulIntegerBroadcastsBatchesAndVectors) {
  const Tensor a = codes({2, 1, 3, 5}, 1, DType::uint8), b = codes({4, 5, 2}, 2, DType::uint8);
  const Tensor y = call("matmul_integer", {a, b, Tensor::from(std::vector<uint8_t>{255, 0, 7}, {3}),
                                           Tensor::from(std::vector<uint8_t>{1, 200}, {2})});
  ASSERT_EQ(y.shape(), (Shape{2, 4, 3, 2}));
  const int64_t az[] = {255, 0, 7}, bz[] = {1, 200};
  for (int64_t i = 0; i < y.numel(); ++i) {
    int64_t sum = 0;
    for (int64_t p = 0; p < 5; ++p)
      sum += (value(a, {i / 24, 0, i / 2 % 3, p}) - az[i / 2 % 3]) *
             (value(b, {i / 6 % 4, p, i % 2}) - bz[i % 2]);
    ASSERT_EQ(y.data<int32_t>()[i], sum) << i;
  }
  EXPECT_EQ(
      call("matmul_integer", {codes({5}, 1, DType::int8), codes({5}, 2, DType::int8)}).shape(),
      Shape{});
}

TEST(IntegerOps, WhatDoesNotFit) {
  const Attrs window{{"stride", std::vector<int64_t>{1}},
                     {"dilation", std::vector<int64_t>{1}},
                     {"padding", std::vector<int64_t>{0, 0}}};
  const Tensor x = Tensor::zeros({1, 2, 4}, DType::uint8),
               w = Tensor::zeros({3, 2, 2}, DType::int8);
  expect_error(ErrorCode::invalid_argument, {"conv_integer", "x is Float"}, [&] {
    call("conv_integer", {x.to(DType::float32), w}, window);
  });
  expect_error(ErrorCode::invalid_argument, {"x_zero_point is Char"}, [&] {
    call("conv_integer", {x, w, Tensor::scalar(0, DType::int8)}, window);
  });
  expect_error(ErrorCode::invalid_argument, {"weight_zero_point", "1 or 3 numbers"}, [&] {
    call("conv_integer", {x, w, Tensor(), Tensor::zeros({2}, DType::int8)}, window);
  });
  expect_error(ErrorCode::invalid_argument, {"groups=2", "do not fit"}, [&] {
    call("conv_integer", {x, w}, Attrs(window).set("groups", int64_t{2}));
  });
  expect_error(ErrorCode::invalid_argument, {"matmul_integer", "inner sizes 4 and 2"}, [&] {
    call("matmul_integer", {x, w});
  });
}

}  // namespace
}  // namespace octet::ops
