// Operators on plain integers: codes in and out of quantized tensors, and exact products.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "octet/engine/engine.h"
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

// The numbers that codes, scales and zero points stand for, (out, in); zero points may be
// undefined.
Tensor block_numbers(const Tensor& packed, const Tensor& scales, const Tensor& zeros, int64_t k,
                     int64_t block, int64_t bits) {
  const int64_t n = scales.size(0), blocks = scales.size(1);
  Tensor w = Tensor::empty({n, k});
  for (int64_t i = 0; i < n * k; ++i) {
    const int64_t at = i / k * blocks + i % k / block, in_block = i % k % block;
    const uint8_t byte = packed.data<uint8_t>()[(at * block + in_block) * bits / 8];
    const int code = byte >> (in_block * bits % 8) & ((1 << bits) - 1);
    const float zero =
        zeros.defined() ? zeros.data<float>()[at] : static_cast<float>(int64_t{1} << (bits - 1));
    w.data<float>()[i] = (static_cast<float>(code) - zero) * scales.data<float>()[at];
  }
  return w;
}

TEST(IntegerOps, LinearBlocksOfEveryWidth) {
  for (int64_t bits : {2, 4, 8})
    for (int64_t k : {64, 70, 5})
      for (bool zeros : {false, true})
        for (int64_t rows : {1, 19}) {
          SCOPED_TRACE(bits * 1000 + k);
          const int64_t n = 150, block = 16, blocks = (k + block - 1) / block;
          const Tensor packed =
              Tensor::rand({n, blocks, block * bits / 8}, 1, 0, 256).to(DType::uint8);
          const Tensor scales = Tensor::rand({n, blocks}, 2, 0.01, 0.02),
                       zero_points = zeros ? Tensor::rand({n, blocks}, 3, 0, 9) : Tensor(),
                       bias = Tensor::randn({n}, 4), x = Tensor::randn({rows, k}, 5);
          const Attrs attrs{{"in_features", k}, {"block_size", block}, {"bits", bits}};
          const std::vector<Tensor> operands{x, packed, scales, zero_points, bias};
          const Tensor y = call("linear_blocks", operands, attrs);
          const Tensor w = block_numbers(packed, scales, zero_points, k, block, bits);
          EXPECT_TRUE(allclose(y, call("linear", {x, w, bias}), 1e-5, 1e-4));
          set_engine("reference");  // which has no kernel: the operator's own evaluation
          EXPECT_TRUE(equal(call("linear_blocks", operands, attrs), y));
          set_engine("native");
        }
}

TEST(IntegerOps, LinearBlocksOfValuesThatAreNotFinite) {
  Tensor x = Tensor::ones({2, 16}).clone();
  x.data<float>()[3] = std::numeric_limits<float>::infinity();
  const Tensor y =
      call("linear_blocks", {x, Tensor::full({3, 1, 8}, 0x99, DType::uint8), Tensor::ones({3, 1})},
           {{"in_features", int64_t{16}}, {"block_size", int64_t{16}}});
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(std::isnan(y.data<float>()[i]));
    EXPECT_EQ(y.data<float>()[3 + i], 16);
  }
}

TEST(IntegerOps, LinearBlocksThatDoNotFit) {
  auto run = [](const Tensor& packed, const Tensor& scales, int64_t k, int64_t bits) {
    return [=] {
      call("linear_blocks", {Tensor::ones({1, k}), packed, scales},
           {{"in_features", k}, {"block_size", int64_t{16}}, {"bits", bits}});
    };
  };
  const Tensor packed = Tensor::zeros({3, 2, 8}, DType::uint8), scales = Tensor::ones({3, 2});
  expect_error(ErrorCode::invalid_argument, {"linear_blocks", "bits=3"},
               run(packed, scales, 32, 3));
  expect_error(ErrorCode::invalid_argument, {"linear_blocks", "codes is", "(3, 2, 16)"},
               run(packed, scales, 32, 8));
  expect_error(ErrorCode::invalid_argument, {"linear_blocks", "scales is", "Float(out, 3)"},
               run(packed, scales, 40, 4));
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
