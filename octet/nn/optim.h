#pragma once
// Optimizers and learning-rate schedules: torch.optim's names, arguments and arithmetic.
//
//   nn::optim::SGD optimizer(model->parameters(), {.lr = 0.1, .momentum = 0.9});
//   nn::optim::CosineAnnealingLR schedule(optimizer, epochs);
//   for (int epoch = 0; epoch < epochs; ++epoch) {
//     for (const Batch& batch : loader) {
//       optimizer.zero_grad();
//       autograd::backward(loss(model->forward(batch.inputs.at("images")), batch.labels));
//       optimizer.step();
//     }
//     schedule.step();
//   }
//
// Steps run in float32 and change the parameters in place.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "octet/base/buffer.h"
#include "octet/tensor/tensor.h"

namespace octet::nn::optim {

// The options that all optimizers have by name, as one group of parameters has them: {"lr", 0.1}
// ...
using Options = std::map<std::string, double>;

struct ParamGroup {
  std::vector<Tensor> params;  // float32 leaves that require gradients
  Options options;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // Moves every parameter that has a gradient.
  void step();
  // Forgets all gradients.
  void zero_grad();
  // More parameters, with options that differ from the optimizer's: {{weights}, {{"weight_decay",
  // 0}}}. Error for an unknown option, a parameter that is in a group already, is not float32 or
  // does not require a gradient.
  void add_param_group(ParamGroup group);
  std::vector<ParamGroup>& param_groups() { return groups_; }

  // What a training that is interrupted needs: "state.0.momentum_buffer", "param_groups.0.lr" ...
  // Parameters are counted over all groups. load_state_dict: Error if keys or shapes do not fit;
  // nothing is changed then.
  std::map<std::string, Tensor> state_dict() const;
  void load_state_dict(const std::map<std::string, Tensor>& state);

 protected:
  Optimizer(std::string name, Options defaults)
      : name_(std::move(name)), defaults_(std::move(defaults)) {}
  // Tensors of one parameter's past by name, made at its first step.
  using State = std::map<std::string, Tensor>;
  virtual void update(Tensor& param, const Tensor& grad, const Options& options, State& state) = 0;
  // The names of the state of a parameter under these options; "step" is a number, others have the
  // parameter's shape.
  virtual std::vector<std::string> state_names(const Options& options) const = 0;

 private:
  std::string name_;
  Options defaults_;
  std::vector<ParamGroup> groups_;
  std::map<const void*, State> state_;  // by the parameter's id
  KeepFreedBlocks keep_;                // every step allocates what the last one freed
};

// v = momentum*v + (1-dampening)*g, p -= lr*v (nesterov: lr*(g + momentum*v)), with g = gradient +
// weight_decay*p.
struct SGDOptions {
  double lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
};
class SGD : public Optimizer {
 public:
  SGD(std::vector<Tensor> params, const SGDOptions& options);

 protected:
  void update(Tensor& param, const Tensor& grad, const Options& options, State& state) override;
  std::vector<std::string> state_names(const Options& options) const override;
};

// Kingma and Ba 2014; weight decay is added to the gradient.
struct AdamOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool amsgrad = false;
};
class Adam : public Optimizer {
 public:
  Adam(std::vector<Tensor> params, const AdamOptions& options = {});

 protected:
  Adam(std::string name, std::vector<Tensor> params, const AdamOptions& options);
  void update(Tensor& param, const Tensor& grad, const Options& options, State& state) override;
  std::vector<std::string> state_names(const Options& options) const override;
  bool decoupled_ = false;  // weight decay is a step of its own
};

// Loshchilov and Hutter 2017: weight decay shrinks the parameters by lr*weight_decay.
struct AdamWOptions : AdamOptions {
  AdamWOptions() { weight_decay = 1e-2; }
};
class AdamW : public Adam {
 public:
  AdamW(std::vector<Tensor> params, const AdamOptions& options = AdamWOptions());
};

// Scales the gradients so that their common norm (2; infinity: the largest element) is at most
// max_norm, and returns what it was.
double clip_grad_norm(const std::vector<Tensor>& params, double max_norm, double norm_type = 2);

// -- schedules -----------------------------------------------------------------------------------

// Sets the learning rates: at once for epoch 0, then for the next epoch (or batch) at every step().
class LRScheduler {
 public:
  virtual ~LRScheduler() = default;
  void step();
  int64_t last_epoch() const { return epoch_; }
  std::vector<double> get_last_lr() const;  // one per group
  std::map<std::string, Tensor> state_dict() const {
    return {{"last_epoch", Tensor::scalar(static_cast<double>(epoch_), DType::int64)}};
  }
  void load_state_dict(const std::map<std::string, Tensor>& state);

 protected:
  explicit LRScheduler(Optimizer& optimizer);
  // The group's rate at an epoch; `base` is the one that the optimizer was made with.
  virtual double lr(double base, int64_t epoch, size_t group) const = 0;
  virtual void set(ParamGroup& group, size_t index, int64_t epoch);
  void start() { apply(); }  // by the constructors of the schedules
  Optimizer& optimizer_;
  std::vector<double> base_;

 private:
  void apply();
  int64_t epoch_ = 0;
};

// base * gamma^(epoch / step_size)
class StepLR : public LRScheduler {
 public:
  StepLR(Optimizer& optimizer, int64_t step_size, double gamma = 0.1);

 protected:
  double lr(double base, int64_t epoch, size_t) const override;
  int64_t step_size_;
  double gamma_;
};

// base * gamma^(milestones passed)
class MultiStepLR : public LRScheduler {
 public:
  MultiStepLR(Optimizer& optimizer, std::vector<int64_t> milestones, double gamma = 0.1);

 protected:
  double lr(double base, int64_t epoch, size_t) const override;
  std::vector<int64_t> milestones_;
  double gamma_;
};

// eta_min + (base - eta_min) * (1 + cos(pi * epoch / T_max)) / 2
class CosineAnnealingLR : public LRScheduler {
 public:
  CosineAnnealingLR(Optimizer& optimizer, int64_t T_max, double eta_min = 0);

 protected:
  double lr(double base, int64_t epoch, size_t) const override;
  int64_t T_max_;
  double eta_min_;
};

// base times a factor that goes evenly from start_factor to end_factor in total_iters steps: a
// warm-up.
class LinearLR : public LRScheduler {
 public:
  LinearLR(Optimizer& optimizer, double start_factor = 1.0 / 3, double end_factor = 1,
           int64_t total_iters = 5);

 protected:
  double lr(double base, int64_t epoch, size_t) const override;
  double start_, end_;
  int64_t total_;
};

// base * factor(epoch)
class LambdaLR : public LRScheduler {
 public:
  LambdaLR(Optimizer& optimizer, std::function<double(int64_t)> factor);

 protected:
  double lr(double base, int64_t epoch, size_t) const override { return base * factor_(epoch); }
  std::function<double(int64_t)> factor_;
};

// Up from max_lr/div_factor to max_lr in pct_start of total_steps, then down to that start /
// final_div_factor, along cosines; the momentum (or beta1) the other way round (Smith and Topin
// 2017). step() after every batch; Error beyond total_steps.
struct OneCycleOptions {
  double max_lr = 0.1;
  int64_t total_steps = 0;
  double pct_start = 0.3;
  bool linear = false;  // lines instead of cosines
  bool cycle_momentum = true;
  double base_momentum = 0.85, max_momentum = 0.95, div_factor = 25, final_div_factor = 1e4;
};
class OneCycleLR : public LRScheduler {
 public:
  OneCycleLR(Optimizer& optimizer, const OneCycleOptions& options);

 protected:
  double lr(double base, int64_t epoch, size_t) const override;
  void set(ParamGroup& group, size_t index, int64_t epoch) override;
  // From `first` by way of `top` to `last`, at an epoch.
  double at(int64_t epoch, double first, double top, double last) const;
  OneCycleOptions options_;
};

}  // namespace octet::nn::optim
