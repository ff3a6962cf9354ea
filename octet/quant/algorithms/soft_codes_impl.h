#pragma once
// Weights between two codes, as AdaRound learns them.

#include <functional>
#include <vector>

#include "octet/nn/optim.h"
#include "octet/quant/algorithms/step_team.h"
#include "octet/tensor/tensor.h"

namespace octet::quant {

// A weight on grids, whose scales and least and greatest codes (zero points taken off) broadcast to
// its shape. Recorded by autograd.
class SoftCodes {
 public:
  SoftCodes(const Tensor& weight, const Tensor& scale, const Tensor& lo, const Tensor& hi,
            bool learn_scale);
  // Between `codes` and those next to them on the weight's side; r begins beside the code.
  SoftCodes(const Tensor& codes, const Tensor& weight, const Tensor& scale, const Tensor& lo,
            const Tensor& hi, bool learn_scale);

  // Of this step: call it before weight() and penalty().
  void update();
  Tensor weight() const;               // scale * (base + r(v))
  Tensor penalty(double power) const;  // the sum of 1 - |2 r(v) - 1|^power

  const Tensor& rounding() const { return v_; }        // a leaf
  const Tensor& log_scale() const { return growth_; }  // a leaf, undefined unless it is learned

  Tensor codes() const;   // the nearer of the two
  Tensor scales() const;  // as they are now

 private:
  void begin(const Tensor& part, bool learn_scale);

  Tensor scale_, base_;  // base: the lower of the two codes
  Tensor v_, growth_;    // scale_ * exp(growth_) is what there is now
  Tensor r_, now_;       // of this step
};

struct SoftTraining {
  int iterations = 1000;
  double lr = 0.01, regularization = 0.5, warm_up = 0.2, first_power = 20;
};

// Adam on all of these and on `biases` (leaves). `error`, of the step's number and of one of the
// team's parts of it (0 without a team): what is to be small, as a number of weights.
void learn(std::vector<SoftCodes*> all, const std::vector<Tensor>& biases,
           const SoftTraining& training, const std::function<Tensor(int step, int64_t part)>& error,
           StepTeam* team = nullptr);

}  // namespace octet::quant
