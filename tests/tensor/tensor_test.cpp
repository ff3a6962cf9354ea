#include "octet/tensor/tensor.h"
#include "tests/limits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::expect_error;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

// 0, 1, 2, ... as float32 of a shape.
Tensor counting(const Shape& shape) {
  return Tensor::arange(numel(shape), DType::float32).reshape(shape);
}

// -- making ---------------------------------------------------------------------------------------

TEST(Tensor, MakersFillEveryDtype) {
  for (DType d : {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int64,
                  DType::int32, DType::int16, DType::int8, DType::uint8, DType::bool_}) {
    Tensor t = Tensor::ones({2, 3}, d);
    EXPECT_EQ(t.dtype(), d);
    EXPECT_EQ(t.nbytes(), static_cast<int64_t>(6 * element_size(d)));
    EXPECT_EQ(t.at({1, 2}), 1);
    EXPECT_EQ(Tensor::zeros({2}, d).at({1}), 0);
  }
  EXPECT_EQ(Tensor::full({2}, 7.5).to_vector<float>(), (Floats{7.5f, 7.5f}));
  EXPECT_EQ(Tensor::arange(4).to_vector<int64_t>(), (Ints{0, 1, 2, 3}));
  EXPECT_EQ(Tensor::scalar(3).shape(), Shape{});
  EXPECT_EQ(Tensor::from({1.0f, 2.0f}).shape(), Shape{2});
}

TEST(Tensor, RandomTensorsDependOnTheSeedAlone) {
  EXPECT_TRUE(equal(Tensor::randn({50}, 1), Tensor::randn({50}, 1)));
  EXPECT_FALSE(equal(Tensor::randn({50}, 1), Tensor::randn({50}, 2)));
  for (float v : Tensor::rand({1000}, 3, -2, 5).to_vector<float>()) {
    EXPECT_GE(v, -2);
    EXPECT_LE(v, 5);
  }
}

TEST(Tensor, ImpossibleMakingIsAnError) {
  expect_error(ErrorCode::invalid_argument, {"(2, -1)"}, [] { Tensor::empty({2, -1}); });
  expect_error(ErrorCode::invalid_argument, {"too many"}, [] {
    Tensor::empty({1LL << 40, 1LL << 40});
  });
  expect_error(ErrorCode::invalid_argument, {"too many"}, [] {
    Tensor::empty({1LL << 40, 1LL << 40, 0});
  });
  expect_error(ErrorCode::invalid_argument, {"2 values", "(3)"}, [] {
    Tensor::from(Floats{1, 2}, {3});
  });
  expect_error(ErrorCode::invalid_argument, {"qint8", "needs"},
               [] { Tensor::empty({2}, DType::qint8); });
  expect_error(ErrorCode::invalid_argument, {"cannot have"},
               [] { Tensor::empty({2}, DType::int8, Quantizer::per_tensor(1, 0, DType::qint8)); });
  expect_error(ErrorCode::invalid_argument, {"2 scales", "axis 0", "(3)"}, [] {
    Tensor::empty({3}, DType::qint8, Quantizer::per_channel({1, 1}, {0, 0}, 0, DType::qint8));
  });
}

TEST(Tensor, WrapSharesMemoryAndChecksItsSize) {
  Floats values = {1, 2, 3, 4, 5, 6};
  Buffer buffer = Buffer::wrap(values.data(), 24, nullptr);
  Tensor t = Tensor::wrap(buffer, {2, 3}, DType::float32);
  values[5] = 60;
  EXPECT_EQ(t.at({1, 2}), 60);
  Tensor strided = Tensor::wrap(buffer, {3, 2}, DType::float32, nullptr, {1, 3});
  EXPECT_EQ(strided.to_vector<float>(), (Floats{1, 4, 2, 5, 3, 60}));
  expect_error(ErrorCode::invalid_argument, {"24 bytes", "(7)"},
               [&] { Tensor::wrap(buffer, {7}, DType::float32); });
  expect_error(ErrorCode::invalid_argument, {"24 bytes"}, [&] {
    Tensor::wrap(buffer, {3, 2}, DType::float32, nullptr, {2, 2});
  });
  EXPECT_NO_THROW(Tensor::wrap(Buffer(), {0, 5}, DType::float32));
}

TEST(Tensor, BuffersAreAlignedAndHaveSlack) {
  for (int64_t n : {0, 1, 15, 16, 17}) {
    Tensor t = Tensor::empty({n});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.raw_data()) % 64, 0u);
    volatile const char* p = static_cast<const char*>(t.raw_data());
    for (size_t i = 0; i < kBufferSlack; ++i) EXPECT_EQ(p[t.nbytes() + static_cast<int64_t>(i)], 0);
  }
}

TEST(Tensor, UndefinedTensorsSaySo) {
  Tensor t;
  EXPECT_FALSE(t.defined());
  for (auto use :
       {+[](const Tensor& u) { u.shape(); }, +[](const Tensor& u) { u.dtype(); },
        +[](const Tensor& u) { u.raw_data(); }, +[](const Tensor& u) { u.clone(); },
        +[](const Tensor& u) { u.reshape({1}); }, +[](const Tensor& u) { u.permute({}); },
        +[](const Tensor& u) { u.slice(0, 0, 1); }, +[](const Tensor& u) { u.dequantize(); },
        +[](const Tensor& u) { u.type(); }, +[](const Tensor& u) { u.unsqueeze(0); },
        +[](const Tensor& u) { u.int_repr(); }, +[](const Tensor& u) { u.expand({2}); }})
    expect_error(ErrorCode::invalid_argument, {"undefined"}, [&] { use(t); });
}

// -- data -----------------------------------------------------------------------------------------

TEST(Tensor, CopiesShareClonesDoNot) {
  Tensor a = counting({2, 2}), b = a, c = a.clone();
  a.data<float>()[0] = 9;
  EXPECT_EQ(b.at({0, 0}), 9);
  EXPECT_EQ(c.at({0, 0}), 0);
}

TEST(Tensor, DataChecksTheType) {
  Tensor t = Tensor::zeros({2});
  expect_error(ErrorCode::invalid_argument, {"int32", "float32"}, [&] { t.data<int32_t>(); });
  Tensor q = quantize_per_tensor(t, 1, 0, DType::qint8);
  EXPECT_NO_THROW(q.data<int8_t>());
  expect_error(ErrorCode::invalid_argument, {"uint8", "qint8"}, [&] { q.data<uint8_t>(); });
}

TEST(Tensor, AtAndItemCheckTheirIndex) {
  Tensor t = counting({2, 3});
  EXPECT_EQ(t.at({1, 2}), 5);
  expect_error(ErrorCode::invalid_argument, {"index 3", "(2, 3)"}, [&] { t.at({0, 3}); });
  expect_error(ErrorCode::invalid_argument, {"index -1"}, [&] { t.at({-1, 0}); });
  expect_error(ErrorCode::invalid_argument, {"1 indices"}, [&] { t.at({0}); });
  expect_error(ErrorCode::invalid_argument, {"(2, 3)"}, [&] { t.item(); });
  EXPECT_EQ(Tensor::full({1, 1}, 4).item(), 4);
}

TEST(Tensor, ConvertsBetweenDtypes) {
  Tensor t = Tensor::from({-1.7f, 0.0f, 1.7f, 300.0f, kInf, -kInf, std::nanf("")});
  EXPECT_EQ(t.to(DType::int32).to_vector<int32_t>(),
            (std::vector<int32_t>{-1, 0, 1, 300, INT32_MAX, INT32_MIN, 0}));
  EXPECT_EQ(t.to(DType::uint8).to_vector<uint8_t>(),
            (std::vector<uint8_t>{0, 0, 1, 255, 255, 0, 0}));
  EXPECT_EQ(t.to(DType::bool_).to_vector<bool>(),
            (std::vector<bool>{true, false, true, true, true, true, true}));
  EXPECT_EQ(Tensor::from({int64_t{9007199254740993}}).to(DType::int64).to_vector<int64_t>(),
            (Ints{9007199254740993}));
  EXPECT_EQ(Tensor::from({int32_t{-5}}).to(DType::int64).item(), -5);
  EXPECT_EQ(Tensor::from({1.0f / 3}).to(DType::float16).to(DType::float32).item(),
            half_to_float(float_to_half(1.0f / 3)));
  EXPECT_EQ(Tensor::from({1.0f / 3}).to(DType::bfloat16).item(),
            bfloat16_to_float(float_to_bfloat16(1.0f / 3)));
  EXPECT_EQ(counting({2, 3}).transpose(0, 1).to(DType::int64).to_vector<int64_t>(),
            (Ints{0, 3, 1, 4, 2, 5}));
  expect_error(ErrorCode::invalid_argument, {"qint8", "quantize"}, [&] { t.to(DType::qint8); });
}

TEST(Tensor, CopyFrom) {
  Tensor a = Tensor::zeros({2, 3}), b = counting({3, 2}).transpose(0, 1);
  a.copy_from(b);
  EXPECT_EQ(a.to_vector<float>(), (Floats{0, 2, 4, 1, 3, 5}));
  Tensor column = a.slice(1, 1, 2);
  column.copy_from(Tensor::from(Floats{7, 8}, {2, 1}));
  EXPECT_EQ(a.to_vector<float>(), (Floats{0, 7, 4, 1, 8, 5}));
  expect_error(ErrorCode::invalid_argument, {"(3, 2)", "(2, 3)"}, [&] {
    a.copy_from(Tensor::zeros({3, 2}));
  });
  expect_error(ErrorCode::invalid_argument, {"int64"}, [&] {
    a.copy_from(Tensor::zeros({2, 3}, DType::int64));
  });
}

// -- views ----------------------------------------------------------------------------------------

TEST(View, Reshape) {
  Tensor t = counting({2, 6});
  EXPECT_EQ(t.reshape({3, 4}).at({2, 1}), 9);
  EXPECT_EQ(t.reshape({-1, 3}).shape(), (Shape{4, 3}));
  EXPECT_EQ(t.reshape({3, 4}).raw_data(), t.raw_data()) << "a view";
  EXPECT_EQ(t.transpose(0, 1).reshape({12}).to_vector<float>(),
            (Floats{0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11}));
  EXPECT_EQ(Tensor::scalar(3).reshape({1, 1}).item(), 3);
  EXPECT_EQ(Tensor::zeros({0, 3}).reshape({3, 0}).shape(), (Shape{3, 0}));
  for (const Shape& bad :
       {Shape{5}, Shape{-1, 5}, Shape{-1, -1}, Shape{-1, 0}, Shape{-2, -6}, Shape{-3, -4}})
    expect_error(ErrorCode::invalid_argument, {"reshape"}, [&] { t.reshape(bad); });
}

TEST(View, PermuteAndTranspose) {
  Tensor t = counting({2, 3, 4}), p = t.permute({2, 0, 1});
  EXPECT_EQ(p.shape(), (Shape{4, 2, 3}));
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t j = 0; j < 3; ++j)
      for (int64_t k = 0; k < 4; ++k) EXPECT_EQ(p.at({k, i, j}), t.at({i, j, k}));
  EXPECT_EQ(t.permute({-1, 0, 1}).shape(), p.shape());
  EXPECT_TRUE(equal(p.permute({1, 2, 0}), t));
  EXPECT_TRUE(equal(t.transpose(0, -1).transpose(2, 0), t));
  expect_error(ErrorCode::invalid_argument, {"repeated"}, [&] { t.permute({0, 0, 1}); });
  expect_error(ErrorCode::invalid_argument, {"2 dimensions"}, [&] { t.permute({0, 1}); });
  expect_error(ErrorCode::invalid_argument, {"dimension 3"}, [&] { t.transpose(0, 3); });
}

TEST(View, SliceAndSelect) {
  Tensor t = counting({10});
  EXPECT_EQ(t.slice(0, 2, 5).to_vector<float>(), (Floats{2, 3, 4}));
  EXPECT_EQ(t.slice(0, -3, 100).to_vector<float>(), (Floats{7, 8, 9}));
  EXPECT_EQ(t.slice(0, 0, -7).to_vector<float>(), (Floats{0, 1, 2}));
  EXPECT_EQ(t.slice(0, 1, 10, 4).to_vector<float>(), (Floats{1, 5, 9}));
  EXPECT_EQ(t.slice(0, 0, 10, INT64_MAX).to_vector<float>(), (Floats{0}));
  EXPECT_EQ(t.slice(0, 5, 2).shape(), Shape{0});
  EXPECT_EQ(t.slice(0, 20, 30).shape(), Shape{0});
  EXPECT_EQ(t.slice(0, 2, 8).slice(0, 1, 3).to_vector<float>(), (Floats{3, 4}));
  Tensor m = counting({3, 4});
  EXPECT_EQ(m.select(0, 1).to_vector<float>(), (Floats{4, 5, 6, 7}));
  EXPECT_EQ(m.select(1, -1).to_vector<float>(), (Floats{3, 7, 11}));
  EXPECT_EQ(m.slice(1, 1, 3).slice(0, 0, 3, 2).to_vector<float>(), (Floats{1, 2, 9, 10}));
  m.select(0, 0).data<float>()[1] = 50;
  EXPECT_EQ(m.at({0, 1}), 50) << "shares the data";
  expect_error(ErrorCode::invalid_argument, {"step 0"}, [&] { t.slice(0, 0, 1, 0); });
  expect_error(ErrorCode::invalid_argument, {"index 3"}, [&] { m.select(0, 3); });
}

TEST(View, SqueezeUnsqueezeFlattenExpand) {
  Tensor t = counting({2, 1, 3});
  EXPECT_EQ(t.squeeze(1).shape(), (Shape{2, 3}));
  EXPECT_EQ(t.squeeze(0).shape(), t.shape());
  for (int64_t d : {0, 1, 2, 3, -1, -4}) {
    Tensor u = t.unsqueeze(d);
    EXPECT_EQ(u.dim(), 4);
    EXPECT_EQ(u.size(d), 1);
    EXPECT_TRUE(equal(u.squeeze(d), t));
  }
  EXPECT_EQ(t.flatten().shape(), Shape{6});
  EXPECT_EQ(counting({2, 3, 4}).flatten(1).shape(), (Shape{2, 12}));
  EXPECT_EQ(counting({2, 3, 4}).flatten(0, 1).shape(), (Shape{6, 4}));
  EXPECT_EQ(Tensor::scalar(1).flatten().shape(), Shape{1});
  Tensor e = t.expand({4, 2, 5, 3});
  EXPECT_EQ(e.at({3, 1, 4, 2}), t.at({1, 0, 2}));
  EXPECT_EQ(e.contiguous().shape(), (Shape{4, 2, 5, 3}));
  for (const Shape& bad : {Shape{2, 3}, Shape{3, 1, 3}, Shape{2, -1, 3}, Shape{-1, 2, 1, 3}})
    expect_error(ErrorCode::invalid_argument, {"expand"}, [&] { t.expand(bad); });
}

TEST(View, ChannelsLast) {
  Tensor t = counting({2, 3, 4, 5}), n = t.contiguous(MemoryFormat::channels_last);
  EXPECT_EQ(n.strides(), (Ints{60, 1, 15, 3}));
  EXPECT_TRUE(n.is_contiguous(MemoryFormat::channels_last));
  EXPECT_FALSE(n.is_contiguous());
  EXPECT_TRUE(equal(n, t));
  EXPECT_TRUE(equal(n.contiguous(), t));
  EXPECT_EQ(n.contiguous(MemoryFormat::channels_last).raw_data(), n.raw_data());
  EXPECT_TRUE(Tensor::zeros({2, 1, 4, 5}).is_contiguous(MemoryFormat::channels_last))
      << "one channel is both";
  expect_error(ErrorCode::invalid_argument, {"(2, 3)"}, [] { channels_last_strides({2, 3}); });
}

// -- comparing ------------------------------------------------------------------------------------

TEST(Compare, Equal) {
  Tensor a = counting({2, 3});
  EXPECT_TRUE(equal(a, a.clone(MemoryFormat::contiguous)));
  EXPECT_FALSE(equal(a, a.reshape({3, 2})));
  EXPECT_FALSE(equal(a, a.to(DType::float64)));
  EXPECT_TRUE(equal(Tensor::from({std::nanf("1")}), Tensor::from({-std::nanf("2")})));
  Tensor q = quantize_per_tensor(a, 1, 0, DType::quint8);
  EXPECT_FALSE(equal(q, quantize_per_tensor(a, 1, 1, DType::quint8)));
  EXPECT_FALSE(
      equal(q, make_quantized(q.int_repr(), Quantizer::per_tensor(0.5, 0, DType::quint8))));
  EXPECT_TRUE(equal(Tensor::zeros({0}), Tensor::zeros({0})));
}

TEST(Compare, Allclose) {
  EXPECT_TRUE(allclose(Tensor::from({1.0f}), Tensor::from({1.000001f})));
  EXPECT_FALSE(allclose(Tensor::from({1.0f}), Tensor::from({1.1f})));
  EXPECT_TRUE(allclose(Tensor::from({1.0f}), Tensor::from({1.1f}), 0, 0.2));
  EXPECT_FALSE(allclose(Tensor::from({1.0f}), Tensor::from(Floats{1}, {1, 1})));
  EXPECT_TRUE(allclose(Tensor::from({kInf}), Tensor::from({kInf})));
  EXPECT_FALSE(allclose(Tensor::from({kInf}), Tensor::from({-kInf})));
  EXPECT_FALSE(allclose(Tensor::from({std::nanf("")}), Tensor::from({0.0f})));
  EXPECT_TRUE(
      allclose(quantize_per_tensor(Tensor::ones({2}), 0.5, 0, DType::qint8), Tensor::ones({2})));
}

}  // namespace
}  // namespace octet
