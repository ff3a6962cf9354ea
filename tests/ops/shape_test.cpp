// Numbers about tensors, and attributes that operands give.
#include <gtest/gtest.h>

#include "octet/ops/op.h"
#include "tests/expect_error.h"

namespace octet::ops {
namespace {

using testing::expect_error;

std::vector<int64_t> ints(const Tensor& x) { return x.to_vector<int64_t>(); }
Tensor list(const std::vector<int64_t>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())});
}

TEST(ShapeOps, ShapeGivesTheSizesOfSomeDimensions) {
  const Tensor x = Tensor::zeros({2, 3, 4});
  EXPECT_EQ(ints(call("shape", {x})), (std::vector<int64_t>{2, 3, 4}));
  EXPECT_EQ(ints(call("shape", {x}, {{"start", int64_t{-2}}})), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(ints(call("shape", {x}, {{"start", int64_t{2}}, {"end", int64_t{1}}})),
            (std::vector<int64_t>{}));
}

TEST(ShapeOps, ArangeStopsBeforeTheEnd) {
  EXPECT_EQ(ints(call("arange", {}, {{"start", 2.}, {"end", 9.}, {"step", 3.}})),
            (std::vector<int64_t>{2, 5, 8}));
  EXPECT_EQ(call("arange", {}, {{"end", 1.}, {"step", 0.25}, {"dtype", std::string("float32")}})
                .to_vector<float>(),
            (std::vector<float>{0, 0.25f, 0.5f, 0.75f}));
  EXPECT_EQ(call("arange", {}, {{"start", 3.}, {"end", 1.}}).numel(), 0);
  expect_error(ErrorCode::invalid_argument, {"arange", "steps of 0"}, [] {
    call("arange", {}, {{"end", 1.}, {"step", 0.}});
  });
}

TEST(ShapeOps, NonzeroGivesPlacesInRowMajorOrder) {
  const Tensor y = call("nonzero", {Tensor::from<float>({0, 1, 0, 2, 0, 3}, {2, 3})});
  EXPECT_EQ(y.shape(), (Shape{2, 3}));
  EXPECT_EQ(ints(y), (std::vector<int64_t>{0, 1, 1, 1, 0, 2}));
}

TEST(ShapeOps, AnOperandGivesAnAttribute) {
  const Tensor x = Tensor::randn({2, 3, 4}, 1);
  EXPECT_TRUE(
      equal(call("reshape", {x, list({4, 6})}, {{"shape", FromOperand{1}}}), x.reshape({4, 6})));
  EXPECT_TRUE(equal(call("slice", {x, list({1}), list({3})},
                         {{"dim", int64_t{2}}, {"start", FromOperand{1}}, {"end", FromOperand{2}}}),
                    x.slice(2, 1, 3)));
  EXPECT_TRUE(equal(call("sum", {x, list({0, 2})}, {{"dim", FromOperand{1}}}),
                    call("sum", {x}, {{"dim", std::vector<int64_t>{0, 2}}})));
  expect_error(ErrorCode::invalid_argument, {"slice", "'dim' is 2 numbers; expected one"}, [&] {
    call("slice", {x, list({1, 2})},
         {{"dim", FromOperand{1}}, {"start", int64_t{0}}, {"end", int64_t{1}}});
  });
}

TEST(ShapeOps, AllowZeroHasZeroStandForItself) {
  const Tensor x = Tensor::zeros({0, 3});
  EXPECT_EQ(
      call("reshape", {x}, {{"shape", std::vector<int64_t>{5, 0}}, {"allow_zero", true}}).shape(),
      (Shape{5, 0}));
}

}  // namespace
}  // namespace octet::ops
