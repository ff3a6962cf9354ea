#pragma once
// Reverse-mode differentiation by a tape, as in PyTorch.
//
//   Tensor w = Tensor::randn({3}, 1);
//   autograd::set_requires_grad(w);
//   // Operators record themselves while an operand requires a gradient.
//   Tensor loss = (w * w).sum();
//   autograd::backward(loss);
//   Tensor g = autograd::grad(w);         // 2w
//
// The tape hangs on tensors (Tensor::autograd_slot): dropping the loss drops it. Operators record
// through ops::call, the one door; this floor knows no operator.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet::autograd {

// Marks a float tensor as a leaf whose gradient backward() computes, or no longer. Error for other
// dtypes and for results of recorded calls. All handles of the tensor (copies, not views) see it.
void set_requires_grad(const Tensor& x, bool requires_grad = true);
// Whether x is such a leaf or was computed from one while recording was on.
bool requires_grad(const Tensor& x);
// Is x a leaf (not the result of a recorded call)?
bool is_leaf(const Tensor& x);

// The sum of the gradients of all backward() calls since the last zero_grad, of x's shape;
// undefined if there was none.
Tensor grad(const Tensor& x);
void set_grad(const Tensor& x, Tensor grad);
void zero_grad(const Tensor& x);  // back to undefined

// Adds d(sum(y * dy))/dx to the gradient of every leaf x that y was computed from. dy has y's
// shape; it may be left off for a y of one element (1 then). Frees the tape behind y unless
// retain_graph. Error if y does not require a gradient, was already used, or goes through an
// operator that has no gradient (naming it).
void backward(const Tensor& y, const Tensor& dy = {}, bool retain_graph = false);

// While it lives, each backward() that reaches the leaf x calls `ready` as soon as x's gradient is
// complete, as torch's register_post_accumulate_grad_hook does: before the tape's earlier calls
// have been gone through. A leaf that a used operator gives no gradient is left out. Error unless x
// is a leaf that requires a gradient, or if it has a hook.
class GradientHook {
 public:
  GradientHook(const Tensor& x, std::function<void()> ready);
  ~GradientHook();
  GradientHook(const GradientHook&) = delete;
  GradientHook& operator=(const GradientHook&) = delete;

 private:
  Tensor x_;
};

// Is recording on in this thread? It is unless a NoGrad lives.
bool enabled();

// Recording is off (or on) in this thread while it lives.
class GradMode {
 public:
  explicit GradMode(bool on);
  ~GradMode();
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool before_;
};
struct NoGrad : GradMode {
  NoGrad() : GradMode(false) {}
};

// -- for those who define gradients ---------------------------------------------------------------

// From the gradients of the results (undefined: zero) to those of the operands (undefined: none).
using BackwardFn = std::function<std::vector<Tensor>(const std::vector<Tensor>& dys)>;

// Puts a call on the tape: `outputs` were computed from `inputs` (undefined ones are allowed). Does
// nothing unless recording is on and an input requires a gradient. The function must not hold
// handles of `outputs` (they hold the tape): keep y.detach(). Outputs of dtypes without gradients
// (integers, quantized) are left alone.
void record(std::string name, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
            BackwardFn backward);

// a + b for gradients of equal shape; undefined stands for zero.
Tensor accumulate(const Tensor& a, const Tensor& b);

}  // namespace octet::autograd
