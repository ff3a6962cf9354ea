// The tape itself; the operators' gradients are tested with the operators.
#include "octet/autograd/autograd.h"

#include <gtest/gtest.h>

#include "tests/expect_error.h"

namespace octet::autograd {
namespace {

using testing::expect_error;

// y = a*x, on the tape.
Tensor scale(const Tensor& x, float a) {
  Tensor y = x.detach().clone();
  for (int64_t i = 0; i < y.numel(); ++i) y.data<float>()[i] *= a;
  record("scale", {x}, {y}, [a](const std::vector<Tensor>& dys) {
    NoGrad no_grad;
    return std::vector<Tensor>{scale(dys[0], a)};
  });
  return y;
}

Tensor leaf(std::vector<float> values) {
  Tensor x = Tensor::from(values, {static_cast<int64_t>(values.size())});
  set_requires_grad(x);
  return x;
}

TEST(GradientHook, IsCalledOnceTheGradientIsWholeAndBeforeEarlierCallsAreGoneThrough) {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  std::vector<std::string> order;
  // a is used first and last, b between.
  const auto noted = [&](const Tensor& x, const Tensor& other, const std::string& name) {
    Tensor y = x.detach().clone();
    record(name, {x, other}, {y}, [&order, name](const std::vector<Tensor>& dys) {
      order.push_back(name);
      return std::vector<Tensor>{dys[0], dys[0]};
    });
    return y;
  };
  const Tensor y = noted(noted(noted(scale(a, 2), a, "first"), b, "middle"), a, "last");
  const GradientHook of_a(a, [&] {
    order.push_back("a");
    EXPECT_EQ(grad(a).to_vector<float>(), (std::vector<float>{4, 4}));  // 2 + 1 + 1
  });
  const GradientHook of_b(b, [&] {
    order.push_back("b");
    EXPECT_EQ(grad(b).to_vector<float>(), (std::vector<float>{1, 1}));
  });
  backward(y, Tensor::ones({2}));
  EXPECT_EQ(order, (std::vector<std::string>{"last", "middle", "b", "first", "a"}));
}

TEST(GradientHook, IsCalledWhereTheLastUseGivesNoGradient) {
  const Tensor a = leaf({1, 2});
  int calls = 0;
  const GradientHook hook(a, [&] { ++calls; });
  const Tensor x = scale(a, 3);
  Tensor y = x.detach().clone();
  record("second alone", {a, x}, {y}, [](const std::vector<Tensor>& dys) {
    return std::vector<Tensor>{Tensor(), dys[0]};
  });
  backward(y, Tensor::ones({2}));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(grad(a).to_vector<float>(), (std::vector<float>{3, 3}));
  Tensor z = x.detach().clone();
  record("none", {a}, {z}, [](const std::vector<Tensor>&) { return std::vector<Tensor>(1); });
  zero_grad(a);
  backward(z, Tensor::ones({2}));
  EXPECT_EQ(calls, 1) << "no gradient came";
}

TEST(GradientHook, EndsWithItsObjectAndIsForLeavesThatRequireAGradient) {
  const Tensor a = leaf({1, 2});
  int calls = 0;
  {
    const GradientHook hook(a, [&] { ++calls; });
    backward(a, Tensor::ones({2}));
    expect_error(ErrorCode::invalid_argument, {"has one already"}, [&] { GradientHook(a, [] {}); });
  }
  backward(scale(a, 2), Tensor::ones({2}));
  EXPECT_EQ(calls, 1);
  expect_error(ErrorCode::invalid_argument, {"no leaf"}, [&] { GradientHook(scale(a, 2), [] {}); });
  expect_error(ErrorCode::invalid_argument, {"no leaf"},
               [&] { GradientHook(Tensor::ones({2}), [] {}); });
}

TEST(Autograd, SumsOfGradientsStayInTheLayoutTheyHave) {
  for (const Shape& shape : {Shape{2, 3, 4}, Shape{2, 3, 4, 5}, Shape{2, 3, 4, 5, 6}}) {
    const Tensor a = Tensor::randn(shape, 1).contiguous(MemoryFormat::channels_last);
    const Tensor sum = accumulate(a, Tensor::ones(shape));
    EXPECT_TRUE(sum.is_contiguous(MemoryFormat::channels_last)) << shape.size();
    const Tensor before = a.contiguous(), after = sum.contiguous();
    for (int64_t i = 0; i < a.numel(); ++i)
      ASSERT_EQ(after.data<float>()[i], before.data<float>()[i] + 1);
  }
}

TEST(Autograd, OnlyFloatsHaveGradients) {
  for (const DType dtype : {DType::uint8, DType::int32, DType::int64})
    expect_error(ErrorCode::invalid_argument, {"only float32 and float64"},
                 [&] { autograd::set_requires_grad(Tensor::zeros({2}, dtype)); });
}

TEST(Autograd, GradientsFollowTheChain) {
  Tensor x = leaf({1, 2});
  backward(scale(scale(x, 2), 3), Tensor::from({1.f, 10.f}));
  EXPECT_EQ(grad(x).to_vector<float>(), (std::vector<float>{6, 60}));
}

TEST(Autograd, GradientsOfSeveralUsesAndCallsAddUp) {
  Tensor x = leaf({1});
  Tensor a = scale(x, 2), y = scale(a, 5);
  record("none", {}, {}, nullptr);
  backward(y, {}, true);
  backward(y);
  backward(a.defined() ? scale(x, 1) : x);
  EXPECT_EQ(grad(x).to_vector<float>(), std::vector<float>{21});
  zero_grad(x);
  EXPECT_FALSE(grad(x).defined());
}

TEST(Autograd, NothingIsRecordedUnderNoGradOrWithoutALeaf) {
  Tensor x = leaf({1});
  NoGrad no_grad;
  EXPECT_FALSE(requires_grad(scale(x, 2)));
  EXPECT_FALSE(requires_grad(scale(Tensor::from({1.f}), 2)));
}

TEST(Autograd, ATapeIsUsedOnceUnlessRetained) {
  Tensor x = leaf({1});
  Tensor y = scale(x, 2);
  backward(y);
  expect_error(ErrorCode::invalid_argument, {"already used", "scale", "retain_graph"},
               [&] { backward(y); });
}

TEST(Autograd, WhatHasNoGradientIsAnError) {
  expect_error(ErrorCode::invalid_argument, {"requires a gradient"},
               [] { backward(Tensor::from({1.f})); });
  expect_error(ErrorCode::invalid_argument, {"shape (2)", "sum()"}, [] {
    backward(scale(leaf({1, 2}), 2));
  });
  expect_error(ErrorCode::invalid_argument, {"int64"},
               [] { set_requires_grad(Tensor::zeros({1}, DType::int64)); });
  expect_error(ErrorCode::invalid_argument, {"result of scale"},
               [] { set_requires_grad(scale(leaf({1}), 2)); });
}

TEST(Autograd, AVeryLongTapeIsTakenApartWithoutRecursion) {
  Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 300000; ++i) y = scale(y, 1);
  backward(y, {}, true);
  EXPECT_EQ(grad(x).to_vector<float>(), std::vector<float>{1});
}

}  // namespace
}  // namespace octet::autograd
