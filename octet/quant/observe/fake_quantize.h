#pragma once
// Modules that quantize and dequantize in training, so that a network learns to live with its codes
// (docs/numerics.md "Fake quantization and QAT"). Names and meanings are PyTorch's
// (torch.ao.quantization.fake_quantize).
//
//   nn::ModulePtr fq = quant::default_fake_quant().make_module("conv1");
//   // Observes x; y has 256 values at most; the gradient passes through.
//   Tensor y = (*fq)(x);
//   model->apply(quant::disable_observer);
//
// State: scale and zero_point (empty before the first data; then one of each, or one per channel),
// the flags fake_quant_enabled and observer_enabled (uint8), and that of the child
// activation_post_process, the observer.

#include <map>
#include <string>

#include "octet/nn/module.h"
#include "octet/quant/observe/factory.h"
#include "octet/quant/observe/observer.h"

namespace octet::quant {

class FakeQuantizeBase : public nn::Module {
 public:
  using nn::Module::forward;

  void enable_fake_quant(bool enabled = true);
  void disable_fake_quant() { enable_fake_quant(false); }
  void enable_observer(bool enabled = true);
  void disable_observer() { enable_observer(false); }
  bool is_fake_quant_enabled() const;
  bool is_observer_enabled() const;

  // The qparams that forward uses, with the observer's warnings. Error not_calibrated if there are
  // none yet. PyTorch's FusedMovingAvgObsFakeQuantize answers its observer's instead, which differ
  // from those it was trained with: observer().calculate_qparams() gives them.
  QParams calculate_qparams() const;

  Observer& observer() const { return activation_post_process.as<Observer>(); }
  const ObserverOptions& options() const { return observer().options(); }
  bool is_per_channel() const { return quant::is_per_channel(options().qscheme); }

  // Takes the qparams that the observer has now, as after the last data. Error not_calibrated if it
  // has seen none.
  virtual void follow_observer() = 0;

  // "fake_quant_enabled=1, observer_enabled=1, quant_min=0, quant_max=255, dtype=quint8,
  // qscheme=per_tensor_affine, scale=0.1 zero_point=3".
  std::string extra_repr() const override;
  // What makes it again: the observer's class ("observer"), options and label.
  Attrs config() const override;

  nn::Parameter fake_quant_enabled = buffer("fake_quant_enabled", Tensor::ones({1}, DType::uint8));
  nn::Parameter observer_enabled = buffer("observer_enabled", Tensor::ones({1}, DType::uint8));
  nn::Slot activation_post_process;

 protected:
  // `observer` makes the observer. Error unless it chooses qparams and its codes are of 20 bits at
  // most.
  FakeQuantizeBase(const ObserverFactory& observer, const std::string& label);
  // Scale (float32) and zero point (int32; float32 for float qparams); empty before the first data.
  virtual Tensor current_scale() const = 0;
  virtual Tensor current_zero_point() const = 0;
  // The observer, shown x (not what x was computed from).
  void observe(const Tensor& x) const { observer().observe(x.detach()); }
  // "FakeQuantize of 'conv1'".
  std::string title() const;
  [[noreturn]] void fail_not_calibrated() const;
};

// Fake quantization with the observer's qparams, which follow the data as long as the observer is
// enabled.
class FakeQuantize : public FakeQuantizeBase {
 public:
  explicit FakeQuantize(
      const ObserverFactory& observer = ObserverFactory("MovingAverageMinMaxObserver"),
      const std::string& label = "")
      : FakeQuantizeBase(observer, label) {}
  Tensor forward(Tensor x) override;
  void follow_observer() override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

 protected:
  Tensor current_scale() const override { return scale_; }
  Tensor current_zero_point() const override { return zero_point_; }
  void set(const std::vector<double>& scales, const std::vector<double>& zero_points);

 private:
  // Replaced, never written into: copies of the module share them.
  Tensor scale_ = Tensor::zeros({0}), zero_point_ = Tensor::zeros({0}, DType::int32);
};

// Fake quantization with the qparams of a FixedQParamsObserver; data changes nothing. Per tensor.
class FixedQParamsFakeQuantize : public FakeQuantize {
 public:
  explicit FixedQParamsFakeQuantize(const ObserverFactory& observer, const std::string& label = "");
  void follow_observer() override {}
};

// FakeQuantize with a moving-average observer and PyTorch's run-time choice of qparams, in double
// ("Run-time choice" in docs/numerics.md): no scale is below 6.1e-5, the zero point is that of the
// end of the range with the smaller rounding error, and symmetric schemes make the range of both
// signs as wide as the codes are.
class FusedMovingAvgObsFakeQuantize : public FakeQuantize {
 public:
  explicit FusedMovingAvgObsFakeQuantize(
      const ObserverFactory& observer = ObserverFactory("MovingAverageMinMaxObserver"),
      const std::string& label = "");

  void follow_observer() override;
};

// Learned step size quantization (S. Esser et al., "Learned Step Size Quantization", 2020;
// PyTorch's _LearnableFakeQuantize): scale and zero_point are parameters, (1) or (channels). While
// the observer is enabled they follow it; enable_param_learning() hands them to the optimizer.
// Symmetric schemes keep their zero point. State: also learning_enabled (uint8).
class LearnableFakeQuantize : public FakeQuantizeBase {
 public:
  // use_grad_scaling multiplies their gradients by 1 / sqrt(x.numel() * quant_max). Per-channel
  // schemes need `channels` (or one forward with the observer enabled) before an optimizer is given
  // the parameters.
  explicit LearnableFakeQuantize(
      const ObserverFactory& observer = ObserverFactory("MovingAverageMinMaxObserver"),
      const std::string& label = "", bool use_grad_scaling = false, int64_t channels = 1);
  Tensor forward(Tensor x) override;
  void follow_observer() override;
  Attrs config() const override;

  // learn scale and zero point; the observer is off, fake quantization on
  void enable_param_learning();
  void enable_static_estimate();     // take them from the observer; fake quantization on
  void enable_static_observation();  // only observe; forward returns x
  // Makes scale and zero_point as long as this, with equal values. Optimizers must be given them
  // anew.
  void set_channels(int64_t channels);

  nn::Parameter scale, zero_point;
  nn::Parameter learning_enabled = buffer("learning_enabled", Tensor::zeros({1}, DType::uint8));

 protected:
  Tensor current_scale() const override;
  Tensor current_zero_point() const override;

 private:
  void learn(bool enabled);
  void clamp_scale() const;  // to eps at least
  bool use_grad_scaling_;
};

// On all fake-quantize modules in a model (or on the module itself, so that they fit
// Module::apply).
void enable_fake_quant(nn::Module& model);
void disable_fake_quant(nn::Module& model);
void enable_observer(nn::Module& model);
void disable_observer(nn::Module& model);

// Is it an observer or a fake-quantize module, as QConfigs make them?
bool is_activation_post_process(const nn::Module& module);
// Does it choose qparams? Error if it is neither.
bool chooses_qparams(const nn::Module& module);
// Its qparams. Error as calculate_qparams(), or if it is neither.
QParams qparams_of(const nn::Module& module);

}  // namespace octet::quant
