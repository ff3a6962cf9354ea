// The operators that are methods of Tensor: the functions of the same names, recorded and traced
// like them.
#include "octet/autograd/autograd.h"
#include "octet/graph/trace.h"
#include "octet/nn/module.h"
#include "octet/ops/functional.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

namespace F = functional;

TEST(TensorMethods, AreTheFunctionsOfTheirNames) {
  const Tensor x = Tensor::randn({4, 6}, 1), y = Tensor::randn({4, 6}, 2),
               positive = F::abs(x) + 0.1;
  expect_equal(x.relu(), F::relu(x));
  expect_equal(x.sigmoid(), F::sigmoid(x));
  expect_equal(x.tanh(), F::tanh(x));
  expect_equal(x.exp(), F::exp(x));
  expect_equal(positive.log(), F::log(positive));
  expect_equal(positive.sqrt(), F::sqrt(positive));
  expect_equal(x.abs(), F::abs(x));
  expect_equal(x.neg(), -x);
  expect_equal(positive.pow(1.5), F::pow(positive, 1.5));
  expect_equal(x.clamp(-0.5, 0.25), F::clamp(x, -0.5, 0.25));
  expect_equal(x.softmax(1), F::softmax(x, 1));
  expect_equal(x.log_softmax(0), F::log_softmax(x, 0));
  expect_equal(x.add(y), x + y);
  expect_equal(x.sub(y), x - y);
  expect_equal(x.mul(y), x * y);
  expect_equal(x.div(positive), x / positive);
  expect_equal(x.matmul(y.t()), F::matmul(x, y.transpose(0, 1)));
  expect_equal(x.view({2, 12}), x.reshape({2, 12}));
  EXPECT_EQ(x.sum().shape(), Shape{});
  EXPECT_NEAR(x.sum().item(), F::sum(x, {0, 1}).item(), 1e-5);
  expect_equal(x.mean({1}), F::mean(x, {1}));
  EXPECT_EQ(x.mean({1}, true).shape(), (Shape{4, 1}));
  expect_equal(x.amax({0}), F::amax(x, {0}));
  expect_equal(x.amin({1}, true), F::amin(x, {1}, true));
  expect_equal(x.argmax(1), F::argmax(x, 1));
  const std::vector<Tensor> halves = x.chunk(2, 1), parts = x.split({1, 3});
  ASSERT_EQ(halves.size(), 2u);
  expect_equal(halves[1], x.slice(1, 3, 6));
  ASSERT_EQ(parts.size(), 2u);
  expect_equal(parts[1], x.slice(0, 1, 4));
}

TEST(TensorMethods, TTransposesTwoDimensionsAtMost) {
  const Tensor line = Tensor::randn({3}, 1);
  expect_equal(line.t(), line);
  EXPECT_EQ(Tensor::zeros({2, 5}).t().shape(), (Shape{5, 2}));
  expect_error(ErrorCode::invalid_argument, {"t:", "(1, 2, 3)", "transpose"}, [] {
    Tensor::zeros({1, 2, 3}).t();
  });
}

TEST(TensorMethods, AssignmentMakesANewTensorAndLeavesOtherHandlesAlone) {
  Tensor x = floats({1, 2, 3});
  const Tensor before = x;
  x += floats({1, 1, 1});
  x *= floats({2, 3, 4});
  x -= 1.0;
  x /= floats({1, 2, 5});
  expect_equal(x, floats({3, 4, 3}));
  x += 1;
  x -= floats({0, 1, 0});
  x *= 2;
  x /= 4;
  expect_equal(x, floats({2, 2, 2}));
  expect_equal(before, floats({1, 2, 3}));
  // A shape that grows by broadcasting is what x = x + y gives, too.
  Tensor row = floats({1, 2});
  row += Tensor::zeros({3, 1});
  EXPECT_EQ(row.shape(), (Shape{3, 2}));
}

TEST(TensorMethods, AreRecorded) {
  Tensor x = floats({1, 2, 3});
  autograd::set_requires_grad(x);
  Tensor y = x;
  y *= x;      // x^2
  y += 2 * x;  // x^2 + 2x
  y /= 2;
  autograd::backward(y.relu().sum());
  expect_equal(autograd::grad(x), floats({2, 3, 4}));
}

// Traced, they are calls of the operators.
struct Methods : nn::Module {
  Tensor forward(Tensor x) override {
    Tensor y = x.relu().mean({2, 3});
    y += x.amax({2, 3});
    y *= 0.5;
    return y.view({-1, 2, 2}).softmax(2).sum({1}).matmul(Tensor::ones({2, 3}));
  }
};

TEST(TensorMethods, AreTraced) {
  auto model = nn::make<Methods>();
  const Tensor x = Tensor::randn({3, 4, 5, 5}, 3);
  auto traced = graph::trace(*model, {x});
  std::vector<std::string> ops;
  for (const graph::Node& node : traced->graph().nodes())
    if (node.kind == graph::NodeKind::call) ops.push_back(node.op);
  EXPECT_EQ(ops, (std::vector<std::string>{"relu", "mean", "amax", "add", "mul", "reshape",
                                           "softmax", "sum", "matmul"}));
  const Tensor other = Tensor::randn({7, 4, 5, 5}, 4);
  expect_equal((*traced)(other), (*model)(other));
}

TEST(TensorMethods, OnCodesTheySayWhatTheOperatorsSay) {
  const Tensor q = quantize_per_tensor(floats({-1, 0.5, 2}), 0.1, 10, DType::quint8);
  expect_equal(q.relu(), F::relu(q));
  EXPECT_TRUE(q.amax().is_quantized());
  std::string said;
  try {
    q + q;
  } catch (const Error& e) {
    said = e.what();
  }
  ASSERT_NE(said, "");
  Tensor sum = q;
  expect_error(ErrorCode::invalid_argument, {said}, [&] { sum += q; });
  expect_equal(sum, q);
}

}  // namespace
}  // namespace octet::testing
