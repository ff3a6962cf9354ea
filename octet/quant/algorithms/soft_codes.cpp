#include "octet/autograd/autograd.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "octet/quant/algorithms/soft_codes_impl.h"

namespace octet::quant {

namespace {

constexpr double kZeta = 1.1, kGamma = -0.1;  // where the sigmoid is stretched to
constexpr double kLastPower = 2;
constexpr double kScaleRate = 0.1;  // of lr

Tensor binary(const char* op, const Tensor& a, const Tensor& b) { return ops::call(op, {a, b}); }

}  // namespace

SoftCodes::SoftCodes(const Tensor& weight, const Tensor& scale, const Tensor& lo, const Tensor& hi,
                     bool learn_scale)
    : scale_(scale) {
  autograd::NoGrad no_grad;
  const Tensor position = weight / scale;
  // A weight beyond the last code may go to the one before it, too.
  base_ = binary("maximum", binary("minimum", ops::call("floor", {position}), hi - 1.0), lo);
  begin(position - base_, learn_scale);
}

SoftCodes::SoftCodes(const Tensor& codes, const Tensor& weight, const Tensor& scale,
                     const Tensor& lo, const Tensor& hi, bool learn_scale)
    : scale_(scale) {
  autograd::NoGrad no_grad;
  const Tensor position = weight / scale;
  Tensor lower = codes.clone();
  for (int64_t i = 0; i < lower.numel(); ++i)
    if (position.data<float>()[i] < codes.data<float>()[i]) lower.data<float>()[i] -= 1;
  base_ = binary("maximum", binary("minimum", lower, hi - 1.0), lo);
  begin(codes - base_, learn_scale);
}

void SoftCodes::begin(const Tensor& part, bool learn_scale) {
  // r(v) = part.
  const Tensor inside = functional::clamp(part, 0.02, 0.98);
  v_ = functional::neg(functional::log((kZeta - kGamma) / (inside - kGamma) - 1.0));
  autograd::set_requires_grad(v_);
  if (!learn_scale) return;
  growth_ = Tensor::zeros(scale_.shape());
  autograd::set_requires_grad(growth_);
}

void SoftCodes::update() {
  r_ = functional::clamp(functional::sigmoid(v_) * (kZeta - kGamma) + kGamma, 0, 1);
  now_ = growth_.defined() ? scale_ * functional::exp(growth_) : scale_;
}

Tensor SoftCodes::weight() const { return (base_ + r_) * now_; }

Tensor SoftCodes::penalty(double power) const {
  const Tensor sure = functional::pow(functional::abs(r_ * 2.0 - 1.0), power);
  return functional::sum(1.0 - sure);
}

Tensor SoftCodes::codes() const {
  autograd::NoGrad no_grad;
  Tensor codes = base_.clone();
  const Tensor v = v_.detach();
  for (int64_t i = 0; i < codes.numel(); ++i)
    if (v.data<float>()[i] >= 0) codes.data<float>()[i] += 1;
  return codes;
}

Tensor SoftCodes::scales() const {
  autograd::NoGrad no_grad;
  return growth_.defined() ? scale_ * functional::exp(growth_) : scale_;
}

void learn(std::vector<SoftCodes*> all, const std::vector<Tensor>& biases,
           const SoftTraining& training, const std::function<Tensor(int step, int64_t part)>& error,
           StepTeam* team) {
  const autograd::GradMode recording(true);
  std::vector<Tensor> roundings, scales, leaves = biases;
  for (const SoftCodes* s : all) {
    roundings.push_back(s->rounding());
    if (s->log_scale().defined()) scales.push_back(s->log_scale());
  }
  leaves.insert(leaves.end(), roundings.begin(), roundings.end());
  leaves.insert(leaves.end(), scales.begin(), scales.end());
  nn::optim::Adam optimizer(roundings, {.lr = training.lr});
  if (!biases.empty()) optimizer.add_param_group({biases, {}});
  if (!scales.empty()) optimizer.add_param_group({scales, {{"lr", kScaleRate * training.lr}}});
  const double warm = training.warm_up * training.iterations;
  const auto with_penalties = [&](Tensor loss, int step) {
    if (step < warm) return loss;
    const double rest = 1 - (step - warm) / (training.iterations - warm);
    const double power = kLastPower + (training.first_power - kLastPower) * rest;
    for (const SoftCodes* s : all) {
      const Tensor penalty = s->penalty(power) * training.regularization;
      loss = loss.defined() ? loss + penalty : penalty;
    }
    return loss;
  };
  const auto update = [&] {
    for (SoftCodes* s : all) s->update();
  };
  for (int step = 0; step < training.iterations; ++step) {
    optimizer.zero_grad();
    if (team) {
      backward_together(*team, leaves, [&](int64_t part) {
        update();  // each part records its own
        return error(step, part);
      });
      update();
      if (const Tensor rest = with_penalties({}, step); rest.defined()) autograd::backward(rest);
    } else {
      update();
      autograd::backward(with_penalties(error(step, 0), step));
    }
    optimizer.step();
  }
}

}  // namespace octet::quant
