#include <cmath>
#include <limits>

#include "octet/base/parallel.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

TEST(Softmax, FollowsTheFormulaAlongAnyDimension) {
  Random random(1);
  for (int trial = 0; trial < 200; ++trial) {
    Tensor x = Tensor::rand(random_shape(random, 1, 4), random.next(), -6, 6);
    int64_t dim = random.integer(-x.dim(), x.dim() - 1), at = dim < 0 ? dim + x.dim() : dim;
    Tensor y = ops::call("softmax", {random_layout(random, x)}, {{"dim", dim}});
    Tensor log = ops::call("log_softmax", {random_layout(random, x)}, {{"dim", dim}});
    for_each_index(x.shape(), [&](std::vector<int64_t> i) {
      double own = x.at(i), sum = 0;
      auto j = i;
      for (j[at] = 0; j[at] < x.size(at); ++j[at]) sum += std::exp(x.at(j));
      ASSERT_NEAR(y.at(i), std::exp(own) / sum, 1e-7);
      ASSERT_NEAR(log.at(i), own - std::log(sum), 2e-6);
    });
  }
}

TEST(Softmax, DoesNotOverflow) {
  expect_equal(ops::call("softmax", {floats({1000, 1000, -1000})}), floats({0.5, 0.5, 0}));
  const float inf = std::numeric_limits<float>::infinity();
  expect_equal(ops::call("softmax", {floats({0, -inf})}), floats({1, 0}));  // a masked element
  expect_equal(ops::call("log_softmax", {floats({0, -inf})}), floats({0, -inf}));
  EXPECT_EQ(ops::call("softmax", {Tensor::zeros({2, 0})}).numel(), 0);
  EXPECT_EQ(ops::call("softmax", {Tensor::scalar(3)}).item(), 1);
}

TEST(Softmax, ThreadsDoNotMatter) {
  int before = num_threads();
  Tensor x = Tensor::randn({300, 1000}, 2);
  set_num_threads(1);
  Tensor one = ops::call("softmax", {x});
  set_num_threads(3);
  expect_equal(ops::call("softmax", {x}), one);
  set_num_threads(before);
}

TEST(SoftmaxQuantized, FixedQParamsUnlessOthersAreGiven) {
  EXPECT_EQ(infer_text("softmax", {"QUInt8(N, 9) scale=0.1 zero_point=3"}),
            "QUInt8(N, 9) scale=0.00390625 zero_point=0");
  EXPECT_EQ(infer_text("softmax", {"QInt8(N, 9) scale=0.1 zero_point=3"}),
            "QInt8(N, 9) scale=0.00390625 zero_point=-128");
  Random random(3);
  for (int trial = 0; trial < 300; ++trial) {
    const char* op = trial % 2 ? "softmax" : "log_softmax";
    QType ty = random_qtype(random, random_byte_dtype(random));
    Tensor x =
        random_codes(random, random_shape(random), random_qtype(random, random_byte_dtype(random)));
    expect_equal(ops::call(op, {random_layout(random, x)}, {}, ty), by_float(op, {x}, {}, ty), op);
  }
}

TEST(SoftmaxTypes, DimensionsAndErrors) {
  EXPECT_EQ(infer_text("softmax", {"Float(N, 10)"}), "Float(N, 10)");
  EXPECT_EQ(infer_text("log_softmax", {"Double(N, 10)"}, {{"dim", int64_t{0}}}), "Double(N, 10)");
  expect_error(ErrorCode::invalid_argument, {"softmax", "dimension 2", "2-d"}, [] {
    infer_text("softmax", {"Float(N, 10)"}, {{"dim", int64_t{2}}});
  });
  expect_error(ErrorCode::invalid_argument, {"softmax", "Long(3)"},
               [] { infer_text("softmax", {"Long(3)"}); });
}

}  // namespace
}  // namespace octet::testing
