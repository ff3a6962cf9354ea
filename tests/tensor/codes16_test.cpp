// quint16 and qint16 tensors.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/tensor/affine.h"
#include "octet/tensor/tensor.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;

TEST(Codes16, QuantizeClampsTo16Bits) {
  const Tensor x = Tensor::from<float>({-1e6f, -1, -0.25f, 0.25f, 0.75f, 20000.25f, 1e6f, NAN});
  EXPECT_EQ(quantize_per_tensor(x, 0.5, 3, DType::quint16).to_vector<uint16_t>(),
            (std::vector<uint16_t>{0, 1, 3, 3, 5, 40003, 65535, 3}));
  EXPECT_EQ(quantize_per_tensor(x, 0.5, -3, DType::qint16).to_vector<int16_t>(),
            (std::vector<int16_t>{-32768, -5, -3, -3, -1, 32767, 32767, -3}));
}

TEST(Codes16, EveryCodeSurvivesTheWayToFloatsAndBack) {
  for (DType dtype : {DType::quint16, DType::qint16}) {
    Tensor codes = Tensor::empty({65536}, DType::int32);
    for (int32_t i = 0; i < 65536; ++i)
      codes.data<int32_t>()[i] = static_cast<int32_t>(qmin(dtype)) + i;
    const QuantizerPtr q = Quantizer::per_tensor(0.0123, 77, dtype);
    const Tensor x = make_quantized(codes.to(code_dtype(dtype)), q, dtype);
    EXPECT_EQ(x.dtype(), dtype);
    EXPECT_EQ(x.nbytes(), 131072);
    EXPECT_TRUE(equal(x.int_repr().to(DType::int32), codes));
    EXPECT_TRUE(equal(quantize(x.dequantize(), q, dtype), x));
    EXPECT_EQ(x.at({0}), affine::dequantize(static_cast<int32_t>(qmin(dtype)), 0.0123f, 77));
  }
}

TEST(Codes16, ChannelsHaveScalesOfTheirOwn) {
  const Tensor x = Tensor::from<float>({1, 2, 1, 2}).reshape({2, 2});
  const Tensor q = quantize_per_channel(x, {0.5, 0.001}, {0, -5}, 0, DType::qint16);
  EXPECT_EQ(q.to_vector<int16_t>(), (std::vector<int16_t>{2, 4, 995, 1995}));
  EXPECT_TRUE(allclose(q.dequantize(), x, 1e-6));
}

TEST(Codes16, ViewsAndLayoutsShareTheCodes) {
  const Tensor x = quantize_per_tensor(Tensor::randn({1, 2, 3, 4}, 1), 1e-4, 1000, DType::quint16);
  const Tensor last = x.contiguous(MemoryFormat::channels_last);
  EXPECT_TRUE(equal(last, x));
  EXPECT_EQ(x.slice(3, 1, 3).int_repr().dtype(), DType::uint16);
  EXPECT_TRUE(equal(x.permute({0, 2, 3, 1}).dequantize(), x.dequantize().permute({0, 2, 3, 1})));
}

TEST(Codes16, ATypeIsReadAsItIsPrinted) {
  const TensorType type(DType::quint16, Shape{2, 3},
                        Quantizer::per_tensor(0.25, 65535, DType::quint16));
  EXPECT_EQ(to_string(type), "QUInt16(2, 3) scale=0.25 zero_point=65535");
  EXPECT_EQ(parse_type(to_string(type, false)), type);
  EXPECT_EQ(parse_type("QInt16(N) scale=1 zero_point=-32768").dtype, DType::qint16);
  const Tensor x = quantize_per_tensor(Tensor::from<float>({1}), 0.5, 0, DType::qint16);
  EXPECT_EQ(to_string(x),
            "tensor([1.], size=(1), dtype=qint16, per_tensor_affine, scale=0.5 zero_point=0)");
}

TEST(Codes16, ZeroPointsAreCodesOfTheDtype) {
  EXPECT_NO_THROW(Quantizer::per_tensor(1, 65535, DType::quint16));
  expect_error(ErrorCode::invalid_argument, {"zero_point -1", "quint16 holds 0..65535"},
               [] { Quantizer::per_tensor(1, -1, DType::quint16); });
  expect_error(ErrorCode::invalid_argument, {"zero_point 40000", "qint16 holds -32768..32767"},
               [] { Quantizer::per_tensor(1, 40000, DType::qint16); });
}

TEST(Codes16, PlainUint16HoldsTheCodes) {
  const Tensor x = Tensor::from<uint16_t>({0, 1, 65535});
  EXPECT_EQ(x.to(DType::float32).to_vector<float>(), (std::vector<float>{0, 1, 65535}));
  EXPECT_EQ(Tensor::from<float>({-3, 2.9f, 1e9f}).to(DType::uint16).to_vector<uint16_t>(),
            (std::vector<uint16_t>{0, 2, 65535}));
  EXPECT_EQ(make_quantized(x, Quantizer::per_tensor(1, 0, DType::quint16)).dtype(), DType::quint16);
  expect_error(ErrorCode::invalid_argument, {"codes are int64"}, [] {
    make_quantized(Tensor::arange(3), Quantizer::per_tensor(1, 0, DType::quint8));
  });
}

}  // namespace
}  // namespace octet
