#pragma once
// Losses, as functions (torch.nn.functional's) and modules (torch.nn's). `reduction` is "mean",
// "sum" or "none".

#include <string>

#include "octet/nn/module.h"

namespace octet::functional {

// -sum over classes of target * log_softmax(input). input (N, C, ...) or (C); target either class
// indices, int64 (N, ...) or (), or probabilities of input's shape. weight (C): the weight of each
// class. Indices that equal ignore_index count nothing. label_smoothing (0 to 1) moves that share
// of every target to all classes evenly. The mean is weighted by the targets' classes; with
// probabilities it divides by N. Error for an index that is no class.
struct CrossEntropyOptions {
  Tensor weight = {};
  int64_t ignore_index = -100;
  std::string reduction = "mean";
  double label_smoothing = 0;
};
Tensor cross_entropy(const Tensor& input, const Tensor& target,
                     const CrossEntropyOptions& options = {});

// The same for logarithms of probabilities and class indices: -weight[target] * input[target].
Tensor nll_loss(const Tensor& log_probabilities, const Tensor& target, const Tensor& weight = {},
                int64_t ignore_index = -100, const std::string& reduction = "mean");

Tensor mse_loss(const Tensor& input, const Tensor& target, const std::string& reduction = "mean");
Tensor l1_loss(const Tensor& input, const Tensor& target, const std::string& reduction = "mean");
// d^2/(2*beta) where |d| < beta, else |d| - beta/2, of d = input - target. beta 0 is l1_loss.
Tensor smooth_l1_loss(const Tensor& input, const Tensor& target,
                      const std::string& reduction = "mean", double beta = 1);
// d^2/2 where |d| <= delta, else delta * (|d| - delta/2).
Tensor huber_loss(const Tensor& input, const Tensor& target, const std::string& reduction = "mean",
                  double delta = 1);
// -(pos_weight * y * log(s) + (1 - y) * log(1 - s)) * weight with s = sigmoid(input), without
// overflow. weight and pos_weight broadcast.
Tensor binary_cross_entropy_with_logits(const Tensor& input, const Tensor& target,
                                        const Tensor& weight = {},
                                        const std::string& reduction = "mean",
                                        const Tensor& pos_weight = {});
// target * (log(target) - input), 0 where target is 0; input and (if log_target) target are
// logarithms of probabilities. reduction may also be "batchmean": the sum divided by the size of
// dimension 0.
Tensor kl_div(const Tensor& input, const Tensor& target, const std::string& reduction = "mean",
              bool log_target = false);

// Distillation (Hinton et al. 2015): temperature^2 times the divergence of the student's softened
// distribution from the teacher's, averaged over the batch. Both (N, C) before softmax; no gradient
// flows to the teacher.
Tensor distillation_loss(const Tensor& student, const Tensor& teacher, double temperature = 1);

}  // namespace octet::functional

namespace octet::nn {

// A loss module takes input and target and gives one tensor.
class Loss : public Module {
 public:
  using Module::operator();
  Tensor operator()(const Tensor& input, const Tensor& target) {
    return Module::operator()({input, target}).at(0);
  }
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;  // Error unless there are two
  std::string extra_repr() const override;

  std::string reduction;

 protected:
  explicit Loss(std::string reduction) : reduction(std::move(reduction)) {}
  virtual Tensor compute(const Tensor& input, const Tensor& target) = 0;
};

class CrossEntropyLoss : public Loss {
 public:
  explicit CrossEntropyLoss(functional::CrossEntropyOptions options = {});
  Attrs config() const override;  // the class weights are in the state dict
  static std::shared_ptr<CrossEntropyLoss> from_config(const Attrs& c);
  int64_t ignore_index;
  double label_smoothing;
  Parameter weight;  // buffer (C); undefined without class weights

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override;
};

class NLLLoss : public Loss {
 public:
  explicit NLLLoss(Tensor weight = {}, int64_t ignore_index = -100, std::string reduction = "mean");
  Attrs config() const override;
  static std::shared_ptr<NLLLoss> from_config(const Attrs& c);
  int64_t ignore_index;
  Parameter weight;  // buffer (C); undefined without class weights

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override;
};

class MSELoss : public Loss {
 public:
  explicit MSELoss(std::string reduction = "mean") : Loss(std::move(reduction)) {}
  Attrs config() const override;
  static std::shared_ptr<MSELoss> from_config(const Attrs& c);

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override {
    return functional::mse_loss(input, target, reduction);
  }
};

class L1Loss : public Loss {
 public:
  explicit L1Loss(std::string reduction = "mean") : Loss(std::move(reduction)) {}
  Attrs config() const override;
  static std::shared_ptr<L1Loss> from_config(const Attrs& c);

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override {
    return functional::l1_loss(input, target, reduction);
  }
};

class SmoothL1Loss : public Loss {
 public:
  explicit SmoothL1Loss(std::string reduction = "mean", double beta = 1)
      : Loss(std::move(reduction)), beta(beta) {}
  Attrs config() const override;
  static std::shared_ptr<SmoothL1Loss> from_config(const Attrs& c);
  double beta;

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override {
    return functional::smooth_l1_loss(input, target, reduction, beta);
  }
};

class HuberLoss : public Loss {
 public:
  explicit HuberLoss(std::string reduction = "mean", double delta = 1)
      : Loss(std::move(reduction)), delta(delta) {}
  Attrs config() const override;
  static std::shared_ptr<HuberLoss> from_config(const Attrs& c);
  double delta;

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override {
    return functional::huber_loss(input, target, reduction, delta);
  }
};

class BCEWithLogitsLoss : public Loss {
 public:
  explicit BCEWithLogitsLoss(Tensor weight = {}, std::string reduction = "mean",
                             Tensor pos_weight = {});
  Attrs config() const override;
  static std::shared_ptr<BCEWithLogitsLoss> from_config(const Attrs& c);
  Parameter weight, pos_weight;  // buffers; undefined if not given

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override;
};

class KLDivLoss : public Loss {
 public:
  explicit KLDivLoss(std::string reduction = "mean", bool log_target = false)
      : Loss(std::move(reduction)), log_target(log_target) {}
  Attrs config() const override;
  static std::shared_ptr<KLDivLoss> from_config(const Attrs& c);
  bool log_target;

 protected:
  Tensor compute(const Tensor& input, const Tensor& target) override {
    return functional::kl_div(input, target, reduction, log_target);
  }
};

}  // namespace octet::nn
