// How tensors print.
#include <gtest/gtest.h>

#include <limits>

#include "octet/tensor/tensor.h"

namespace octet {
namespace {

TEST(Print, Floats) {
  EXPECT_EQ(to_string(Tensor::from({1.0f, 2.5f, -3.0f})), "tensor([1., 2.5000, -3.])");
  EXPECT_EQ(to_string(Tensor::from(std::vector<float>{1, 2, 3, 4}, {2, 2})),
            "tensor([[1., 2.],\n        [3., 4.]])");
  EXPECT_EQ(to_string(Tensor::scalar(2)), "tensor(2.)");
  EXPECT_EQ(to_string(Tensor::from({1e-7f, 1.5e8f})), "tensor([1.0000e-07, 1.5000e+08])");
}

TEST(Print, NotANumberAndInfinity) {
  float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_string(Tensor::from({inf, -inf, std::numeric_limits<float>::quiet_NaN()})),
            "tensor([inf, -inf, nan])");
}

TEST(Print, WhatDiffersFromAPlainFloatTensor) {
  EXPECT_EQ(to_string(Tensor::from({int64_t{1}, int64_t{2}})),
            "tensor([1, 2], size=(2), dtype=int64)");
  EXPECT_EQ(to_string(Tensor::from(std::vector<uint8_t>{200}, {1})),
            "tensor([200], size=(1), dtype=uint8)");
  EXPECT_EQ(to_string(Tensor::zeros({1}, DType::bool_)), "tensor([false], size=(1), dtype=bool)");
  Tensor q = quantize_per_tensor(Tensor::from({0.5f, 1.0f}), 0.5, 10, DType::quint8);
  EXPECT_EQ(
      to_string(q),
      "tensor([0.5000, 1.], size=(2), dtype=quint8, per_tensor_affine, scale=0.5 zero_point=10)");
}

TEST(Print, EmptyAndUndefined) {
  EXPECT_EQ(to_string(Tensor()), "tensor(undefined)");
  EXPECT_EQ(to_string(Tensor::zeros({0, 3})), "tensor([], size=(0, 3))");
}

TEST(Print, LongTensorsAreAbridged) {
  EXPECT_EQ(to_string(Tensor::arange(1001, DType::float32)),
            "tensor([0., 1., 2., ..., 998., 999., 1000.])");
  EXPECT_EQ(to_string(Tensor::arange(1000, DType::float32)).find("..."), std::string::npos);
}

TEST(Print, FollowsStrides) {
  Tensor t = Tensor::from(std::vector<float>{1, 2, 3, 4}, {2, 2}).transpose(0, 1);
  EXPECT_EQ(to_string(t), "tensor([[1., 3.],\n        [2., 4.]])");
}

}  // namespace
}  // namespace octet
