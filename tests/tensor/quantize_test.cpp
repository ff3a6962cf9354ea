// Quantizing tensors, and what views do to qparams.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "octet/tensor/affine.h"
#include "octet/tensor/tensor.h"
#include "tests/expect_error.h"
#include "tests/limits.h"

namespace octet {
namespace {

using testing::expect_error;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

TEST(Quantize, PerTensorFollowsTheFormula) {
  Floats values = {0, 0.25f, 0.75f, -0.25f, 1000, -1000, kInf, -kInf, std::nanf(""), 0.5f, 1.25f};
  Tensor x = Tensor::from(values, {static_cast<int64_t>(values.size())});
  const struct {
    DType dtype;
    int64_t z;
  } rows[] = {{DType::quint8, 10}, {DType::qint8, -3}, {DType::qint32, 1000}};
  for (auto [dtype, z] : rows) {
    Tensor q = quantize_per_tensor(x, 0.5, z, dtype);
    EXPECT_EQ(q.dtype(), dtype);
    EXPECT_EQ(q.q_scale(), 0.5);
    EXPECT_EQ(q.q_zero_point(), z);
    EXPECT_EQ(q.qscheme(), QScheme::per_tensor_affine);
    Tensor codes = q.int_repr(), back = q.dequantize();
    EXPECT_EQ(codes.dtype(), code_dtype(dtype));
    for (int64_t i = 0; i < x.numel(); ++i) {
      int32_t expected =
          affine::quantize(values[static_cast<size_t>(i)], 0.5f, static_cast<int32_t>(z),
                           static_cast<int32_t>(qmin(dtype)), static_cast<int32_t>(qmax(dtype)));
      EXPECT_EQ(codes.at({i}), expected) << values[static_cast<size_t>(i)];
      EXPECT_EQ(back.at({i}), affine::dequantize(expected, 0.5f, static_cast<int32_t>(z)));
      EXPECT_EQ(q.at({i}), back.at({i}));
    }
  }
  Tensor q = quantize_per_tensor(x, 0.5, 10, DType::quint8);
  EXPECT_EQ(q.int_repr().to_vector<uint8_t>(),
            (std::vector<uint8_t>{10, 10, 12, 10, 255, 0, 255, 0, 10, 11, 12}));
}

TEST(Quantize, PerChannelAlongEveryAxis) {
  Tensor x = Tensor::randn({3, 4, 5}, 1);
  for (int64_t axis : {0, 1, 2, -1}) {
    int64_t a = axis < 0 ? axis + 3 : axis;
    std::vector<double> scales;
    Ints zeros;
    for (int64_t c = 0; c < x.size(axis); ++c) {
      scales.push_back(0.01 * static_cast<double>(c + 1));
      zeros.push_back(c - 2);
    }
    // A strided source must give the same as a plain one.
    for (const Tensor& source : {x, x.transpose(0, 2).contiguous().transpose(0, 2)}) {
      Tensor q = quantize_per_channel(source, scales, zeros, axis, DType::qint8);
      EXPECT_EQ(q.q_per_channel_axis(), a);
      EXPECT_EQ(q.q_per_channel_scales(), scales);
      EXPECT_EQ(q.q_per_channel_zero_points(), zeros);
      Tensor back = q.dequantize();
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < 4; ++j)
          for (int64_t k = 0; k < 5; ++k) {
            auto c = static_cast<size_t>(a == 0 ? i : a == 1 ? j : k);
            int32_t code =
                affine::quantize(static_cast<float>(x.at({i, j, k})), static_cast<float>(scales[c]),
                                 static_cast<int32_t>(zeros[c]), -128, 127);
            ASSERT_EQ(q.int_repr().at({i, j, k}), code);
            auto value = static_cast<float>(static_cast<double>(code - zeros[c]) * scales[c]);
            ASSERT_EQ(back.at({i, j, k}), value);
            ASSERT_EQ(q.at({i, j, k}), value);
          }
    }
  }
}

// A per-channel tensor whose every element tells its channel: quantizing 1 with scale 1/(c+1) gives
// code c+1.
Tensor marked(const Shape& shape, int64_t axis) {
  std::vector<double> scales;
  for (int64_t c = 0; c < shape[static_cast<size_t>(axis)]; ++c)
    scales.push_back(1.0 / static_cast<double>(c + 1));
  return quantize_per_channel(Tensor::ones(shape), scales, Ints(scales.size(), 0), axis,
                              DType::qint8);
}

// Every element still dequantizes to 1 with the qparams the view says it has.
void expect_ones(const Tensor& t) {
  for (float v : t.dequantize().to_vector<float>()) ASSERT_FLOAT_EQ(v, 1);
}

TEST(Quantize, ViewsKeepTheChannelAxis) {
  Tensor q = marked({3, 4, 5}, 1);
  const struct {
    Tensor view;
    int64_t axis;
  } rows[] = {{q.permute({1, 2, 0}), 0},
              {q.permute({0, 2, 1}), 2},
              {q.transpose(0, 1), 0},
              {q.unsqueeze(0), 2},
              {q.unsqueeze(1), 2},
              {q.unsqueeze(2), 1},
              {q.unsqueeze(-1), 1},
              {q.slice(0, 1, 3), 1},
              {q.slice(1, 1, 4, 2), 1},
              {q.select(0, 1), 0},
              {q.select(2, 1), 1},
              {q.reshape({3, 4, 5, 1}), 1},
              {q.reshape({3, 1, 4, 5}), 2},
              {q.permute({1, 0, 2}).flatten(1), 0},
              {q.reshape({3, 4, -1}), 1},
              {q.clone(), 1},
              {q.contiguous(MemoryFormat::channels_last), 1},
              {q.transpose(0, 2).contiguous(), 1},
              {q.expand({2, 3, 4, 5}), 2},
              {marked({3, 4, 1}, 1).expand({3, 4, 6}), 1}};
  for (const auto& [view, axis] : rows) {
    EXPECT_EQ(view.q_per_channel_axis(), axis) << to_string(view.shape());
    EXPECT_EQ(static_cast<int64_t>(view.q_per_channel_scales().size()), view.size(axis))
        << to_string(view.shape());
    expect_ones(view);
    expect_ones(view.clone());
  }
  expect_error(ErrorCode::invalid_argument, {"channel axis 1", "(3, 4, 5)"},
               [&] { q.reshape({60}); });
  expect_error(ErrorCode::invalid_argument, {"channel axis"}, [&] { q.reshape({12, 5}); });
}

TEST(Quantize, OneChannelOfManyIsPerTensor) {
  Tensor one = marked({3, 4}, 1).select(1, 2);
  EXPECT_EQ(one.qscheme(), QScheme::per_tensor_affine);
  EXPECT_EQ(one.q_scale(), 1.0 / 3);
  expect_ones(one);
}

TEST(Quantize, ExpandingTheChannelAxisRepeatsItsQparams) {
  Tensor q = marked({1, 3}, 0).expand({4, 3});
  EXPECT_EQ(q.q_per_channel_scales().size(), 4u);
  expect_ones(q);
}

TEST(Quantize, IntReprSharesMemoryAndMakeQuantizedTakesItBack) {
  Tensor q = quantize_per_tensor(Tensor::randn({4, 5}, 2), 0.1, 3, DType::quint8);
  EXPECT_EQ(q.int_repr().raw_data(), q.raw_data());
  Tensor again = make_quantized(q.int_repr(), q.quantizer());
  EXPECT_EQ(again.raw_data(), q.raw_data());
  EXPECT_TRUE(equal(again, q));
  Tensor slice = make_quantized(q.int_repr().slice(0, 1, 3), q.quantizer());
  EXPECT_TRUE(equal(slice, q.slice(0, 1, 3)));
  EXPECT_TRUE(
      equal(make_quantized(q.int_repr().transpose(0, 1), q.quantizer()), q.transpose(0, 1)));
  expect_error(ErrorCode::invalid_argument, {"float32"}, [] {
    make_quantized(Tensor::zeros({2}), Quantizer::per_tensor(1, 0, DType::qint8));
  });
}

TEST(Quantize, AsksForQparamsOnlyWhereTheyAre) {
  Tensor plain = Tensor::zeros({2}), whole = quantize_per_tensor(plain, 1, 0, DType::qint8),
         split = marked({2}, 0);
  expect_error(ErrorCode::invalid_argument, {"q_scale", "float32"}, [&] { plain.q_scale(); });
  expect_error(ErrorCode::invalid_argument, {"q_scale", "per channel"}, [&] { split.q_scale(); });
  expect_error(ErrorCode::invalid_argument, {"q_per_channel_axis", "per tensor"},
               [&] { whole.q_per_channel_axis(); });
  expect_error(ErrorCode::invalid_argument, {"int_repr"}, [&] { plain.int_repr(); });
  expect_error(ErrorCode::invalid_argument, {"qscheme"}, [&] { plain.qscheme(); });
  EXPECT_EQ(plain.quantizer(), nullptr);
  expect_error(ErrorCode::invalid_argument, {"int64"},
               [] { quantize_per_tensor(Tensor::arange(2), 1, 0, DType::qint8); });
  expect_error(ErrorCode::invalid_argument, {"1 scales", "(2)"},
               [&] { quantize_per_channel(plain, {1}, {0}, 0, DType::qint8); });
  expect_error(ErrorCode::invalid_argument, {"dimension 1"}, [&] {
    quantize_per_channel(plain, {1, 1}, {0, 0}, 1, DType::qint8);
  });
}

TEST(Quantize, TakesEveryFloatingDtype) {
  for (DType d : {DType::float64, DType::float16, DType::bfloat16})
    EXPECT_EQ(
        quantize_per_tensor(Tensor::full({2}, 1.5, d), 0.5, 0, DType::qint8).int_repr().at({1}), 3);
}

}  // namespace
}  // namespace octet
