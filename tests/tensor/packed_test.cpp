// quint4x2 and qint4x2 tensors, two codes to a byte, and zero points that are not whole.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/tensor/affine.h"
#include "octet/tensor/tensor.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;
using Doubles = std::vector<double>;

Tensor nibbles(const Shape& shape) {  // codes 0, 1, ... 15, 0, ...
  Tensor codes = Tensor::empty(shape, DType::uint8);
  for (int64_t i = 0; i < codes.numel(); ++i)
    codes.data<uint8_t>()[i] = static_cast<uint8_t>(i % 16);
  return make_quantized(codes, Quantizer::per_tensor(0.5, 3, DType::quint4x2), DType::quint4x2);
}

TEST(Packed, TwoCodesShareAByteTheFirstInTheLowBits) {
  Tensor t = nibbles({3, 3});
  EXPECT_EQ(t.nbytes(), 5);
  const auto* bytes = static_cast<const uint8_t*>(t.raw_data());
  EXPECT_EQ(bytes[0], 0x10);
  EXPECT_EQ(bytes[3], 0x76);
  EXPECT_EQ(bytes[4], 0x08);
  EXPECT_EQ(t.int_repr().dtype(), DType::uint8);
  EXPECT_EQ(t.to_vector<uint8_t>(), (std::vector<uint8_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Packed, QuantizeClampsToFourBits) {
  Tensor x = Tensor::from<float>({-100, -4, -3.9f, 0, 0.25f, 0.75f, 3.5f, 100, std::nanf("")});
  EXPECT_EQ(quantize_per_tensor(x, 0.5, 3, DType::quint4x2).to_vector<uint8_t>(),
            (std::vector<uint8_t>{0, 0, 0, 3, 3, 5, 10, 15, 3}));
  EXPECT_EQ(quantize_per_tensor(x, 0.5, 0, DType::qint4x2).to_vector<int8_t>(),
            (std::vector<int8_t>{-8, -8, -8, 0, 0, 2, 7, 7, 0}));
  Tensor back = quantize_per_tensor(x, 0.5, 0, DType::qint4x2).dequantize();
  EXPECT_EQ(back.to_vector<float>(), (std::vector<float>{-4, -4, -4, 0, 0, 1, 3.5f, 3.5f, 0}));
}

TEST(Packed, ViewsHaveTheElementsOfUnpackedViews) {
  Tensor t = nibbles({3, 5, 2});
  auto same = [](const Tensor& packed, const Tensor& codes) {
    EXPECT_TRUE(is_packed(packed.dtype()));
    EXPECT_TRUE(equal(packed.int_repr(), codes));
  };
  Tensor codes = t.int_repr();
  same(t.slice(1, 1, 4), codes.slice(1, 1, 4));
  same(t.slice(0, 1, 2), codes.slice(0, 1, 2));
  same(t.select(2, 1), codes.select(2, 1));
  same(t.permute({2, 0, 1}), codes.permute({2, 0, 1}));
  same(t.reshape({6, 5}), codes.reshape({6, 5}));
  same(t.unsqueeze(0), codes.unsqueeze(0));
  same(t.slice(1, 0, 1).expand({3, 4, 2}), codes.slice(1, 0, 1).expand({3, 4, 2}));
  same(t.clone(), codes);
  same(t.unsqueeze(0).contiguous(MemoryFormat::channels_last), codes.unsqueeze(0));
  EXPECT_EQ(t.at({0, 1, 1}), 0);
  EXPECT_EQ(t.at({2, 4, 1}), 5);
}

TEST(Packed, EqualComparesCodesAndQparams) {
  EXPECT_TRUE(equal(nibbles({3, 3}), nibbles({3, 3}).clone()));
  EXPECT_FALSE(equal(nibbles({3, 3}), nibbles({9})));
  Tensor other = nibbles({3, 3}).int_repr();
  other.data<uint8_t>()[8] = 1;
  EXPECT_FALSE(
      equal(nibbles({3, 3}), make_quantized(other, nibbles({1}).quantizer(), DType::quint4x2)));
}

TEST(Packed, PrintsValuesDtypeAndQparams) {
  EXPECT_EQ(to_string(nibbles({1, 3})),
            "tensor([[-1.5000, -1., -0.5000]], size=(1, 3), dtype=quint4x2, per_tensor_affine, "
            "scale=0.5 zero_point=3)");
  EXPECT_EQ(to_string(parse_type("QInt4x2(2, 3) scale=0.5 zero_point=-8"), false),
            "QInt4x2(2, 3) scale=0.5 zero_point=-8");
}

TEST(Packed, CodesOutsideFourBitsAreErrors) {
  auto q = Quantizer::per_tensor(1, 0, DType::quint4x2);
  expect_error(ErrorCode::invalid_argument, {"code 16", "element 1", "0..15"}, [&] {
    make_quantized(Tensor::from<uint8_t>({1, 16}), q, DType::quint4x2);
  });
  expect_error(ErrorCode::invalid_argument, {"int8 codes", "expected uint8"},
               [&] { make_quantized(Tensor::from<int8_t>({1}), q, DType::quint4x2); });
  expect_error(ErrorCode::invalid_argument, {"zero_point 16", "0..15"},
               [] { Quantizer::per_tensor(1, 16, DType::quint4x2); });
  expect_error(ErrorCode::invalid_argument, {"two codes to a byte", "int_repr"},
               [] { nibbles({3}).data<uint8_t>(); });
}

TEST(FloatQparams, FollowTheFormulas) {
  Tensor x = Tensor::randn({3, 40}, 1);
  Doubles scales{0.1f, 0.01f, 0.03f}, zeros{7.3f, -20.25f, 130.6f};
  for (DType dtype : {DType::quint8, DType::quint4x2}) {
    Tensor q = quantize_per_channel_float(x, scales, zeros, 0, dtype), codes = q.int_repr(),
           y = q.dequantize();
    EXPECT_EQ(q.qscheme(), QScheme::per_channel_affine_float_qparams);
    EXPECT_EQ(q.q_per_channel_float_zero_points(), zeros);
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t j = 0; j < 40; ++j) {
        const auto s = static_cast<float>(scales[r]), z = static_cast<float>(zeros[r]);
        const float inverse = 1.0f / s, steps = static_cast<float>(x.at({r, j})) * inverse + z;
        const double code =
            std::min<double>(static_cast<double>(qmax(dtype)),
                             std::max(0.0, std::nearbyint(static_cast<double>(steps))));
        ASSERT_EQ(codes.at({r, j}), code);
        ASSERT_EQ(static_cast<float>(y.at({r, j})), (static_cast<float>(code) - z) * s);
        ASSERT_EQ(q.at({r, j}), y.at({r, j}));
      }
  }
}

TEST(FloatQparams, PrintAndReadBack) {
  for (size_t rows : {1u, 2u, 9u}) {
    Doubles scales, zeros;
    for (size_t i = 0; i < rows; ++i) {
      scales.push_back(0.1 + static_cast<double>(i));
      zeros.push_back(static_cast<float>(i) * 1.7f - 3);
    }
    TensorType type(DType::quint8, Shape{static_cast<int64_t>(rows), 4},
                    Quantizer::per_channel_float(scales, zeros, 0, DType::quint8));
    EXPECT_EQ(parse_type(to_string(type, false)), type) << to_string(type, false);
  }
  EXPECT_EQ(to_string(*Quantizer::per_channel_float({0.5, 0.25}, {1.5, -2}, 0, DType::quint8)),
            "axis=0 scale=[0.5, 0.25] float_zero_point=[1.5, -2]");
}

TEST(FloatQparams, AreNoWholeZeroPoints) {
  auto q = Quantizer::per_channel_float({0.5}, {1}, 0, DType::quint8);
  EXPECT_FALSE(*q == *Quantizer::per_channel({0.5}, {1}, 0, DType::quint8));
  expect_error(ErrorCode::unsupported, {"not whole", "dequantize"}, [&] { q->zero_point(); });
  expect_error(ErrorCode::invalid_argument, {"channel 1", "zero_point nan"}, [] {
    Quantizer::per_channel_float({1, 1}, {0, std::nan("")}, 0, DType::quint8);
  });
  expect_error(ErrorCode::invalid_argument, {"channel 0", "scale 0"},
               [] { Quantizer::per_channel_float({0}, {0}, 0, DType::quint8); });
  expect_error(ErrorCode::invalid_argument, {"2 scales and 1 zero points"}, [] {
    Quantizer::per_channel_float({1, 1}, {0}, 0, DType::quint8);
  });
}

}  // namespace
}  // namespace octet
