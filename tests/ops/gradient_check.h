#pragma once
// Gradients against central differences: for random dy, d(sum(y*dy))/dx by autograd and by moving
// each x a little.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "octet/autograd/autograd.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {

// The sum of y * dy over all results, in double.
inline double weighted_sum(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys) {
  double sum = 0;
  for (size_t k = 0; k < ys.size(); ++k) {
    if (!dys[k].defined()) continue;
    std::vector<double> y = ys[k].detach().to(DType::float64).to_vector<double>(),
                        dy = dys[k].to(DType::float64).to_vector<double>();
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
  }
  return sum;
}

struct GradientCheck {
  double step = 1e-2;  // of the difference quotient
  // of |autograd - quotient| / max(1, largest |quotient|): float32 results of order 1
  double tolerance = 2e-2;
  std::vector<size_t> fixed;            // operands that are not varied: indices, conditions
  std::vector<size_t> outputs_without;  // results that have no gradient
};

// Checks fn's gradients by every float operand that is not fixed. The operands may lie anywhere in
// memory.
inline void check_gradient(const std::string& what,
                           const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& fn,
                           const std::vector<Tensor>& inputs, const GradientCheck& options = {}) {
  auto contains = [](const std::vector<size_t>& list, size_t i) {
    return std::find(list.begin(), list.end(), i) != list.end();
  };
  auto varied = [&](size_t i) {
    return inputs[i].defined() && is_floating(inputs[i].dtype()) && !contains(options.fixed, i);
  };
  std::vector<Tensor> leaves;
  for (size_t i = 0; i < inputs.size(); ++i) {
    leaves.push_back(inputs[i].defined() ? inputs[i].detach() : Tensor());
    if (varied(i)) autograd::set_requires_grad(leaves[i]);
  }
  std::vector<Tensor> ys = fn(leaves), dys(ys.size());
  uint64_t seed = 77;
  for (size_t k = 0; k < ys.size(); ++k) {
    if (contains(options.outputs_without, k) || !is_floating(ys[k].dtype())) continue;
    dys[k] = Tensor::randn(ys[k].shape(), ++seed).to(ys[k].dtype());
    ASSERT_TRUE(autograd::requires_grad(ys[k]))
        << what << ": result " << k << " is not on the tape";
    autograd::backward(ys[k], dys[k], true);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!varied(i)) continue;
    Tensor got = autograd::grad(leaves[i]);
    ASSERT_TRUE(got.defined()) << what << ": no gradient of operand " << i;
    ASSERT_EQ(got.shape(), inputs[i].shape()) << what << ", operand " << i;
    std::vector<double> by_autograd = got.to(DType::float64).to_vector<double>(), quotient;
    for (int64_t e = 0; e < inputs[i].numel(); ++e) {
      auto at = [&](double move) {
        std::vector<Tensor> moved = inputs;
        Tensor x = inputs[i].clone();
        if (x.dtype() == DType::float64)
          x.data<double>()[e] += move;
        else
          x.data<float>()[e] += static_cast<float>(move);
        moved[i] = x;
        autograd::NoGrad no_grad;
        return weighted_sum(fn(moved), dys);
      };
      quotient.push_back((at(options.step) - at(-options.step)) / (2 * options.step));
    }
    double scale = 1, worst = 0;
    size_t where = 0;
    for (double q : quotient) scale = std::max(scale, std::abs(q));
    for (size_t e = 0; e < quotient.size(); ++e)
      if (std::abs(by_autograd[e] - quotient[e]) > worst)
        worst = std::abs(by_autograd[e] - quotient[e]), where = e;
    EXPECT_LE(worst, options.tolerance * scale)
        << what << ": gradient of operand " << i << ", element " << where << ": autograd "
        << by_autograd[where] << ", difference quotient " << quotient[where];
  }
}

// The same for one operator call.
inline void check_op_gradient(const std::string& op, const std::vector<Tensor>& inputs,
                              const Attrs& attrs = {}, const GradientCheck& options = {}) {
  std::string what = op;
  for (const auto& [name, value] : attrs) what += " " + name + "=" + to_string(value);
  check_gradient(
      what, [&](const std::vector<Tensor>& xs) { return ops::call_all(op, xs, attrs); }, inputs,
      options);
}

}  // namespace octet::testing
