#pragma once
// What quantization-aware training needs beside the workflow itself: a forward pass on the integer
// kernels, and what each layer is doing.

#include <string>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

// The results of the network that convert_fx makes of `model` as it is now, run on its integer
// kernels, with the gradients of the fake-quantized network (the straight-through estimator, Y.
// Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013, here of
// the whole rounding error): what is trained is bit for bit what is converted. model is in training
// mode; its forward is run first, so that observers that are on see the inputs. Batch norms count
// with their running statistics. Costs a conversion and a compilation each time. Results that are
// codes are dequantized. Errors: those of forward and convert_fx.
std::vector<Tensor> integer_forward(const std::shared_ptr<ObservedGraphModule>& model,
                                    const std::vector<Tensor>& inputs);

// The QConfig with LearnableFakeQuantize in place of its fake quantizations, gradients scaled as in
// the paper: with enable_param_learning their scales and zero points are trained too.
QConfig with_learned_qparams(const QConfig& qconfig);
// enable_param_learning() of all LearnableFakeQuantize in the model: to be called when their scales
// are good ones (start_qat_from, or some batches with observers on), and before an optimizer is
// given the parameters. Its steps must be small beside a scale, which may be a thousandth. Error if
// the model has none.
void enable_param_learning(nn::Module& model);

// What the fake-quantize modules and batch norms of a model do.
struct QatState {
  struct FakeQuantizer {
    std::string path;        // of the module
    std::string value;       // what it stands at: its observer's label, or "" if that has none
    bool weight = false;     // of a constant, or a layer's child weight_fake_quant
    bool observes = false;   // its range follows what it sees
    bool quantizes = false;  // else it passes on what it is given
    bool learns = false;     // scale and zero point are trained
  };
  struct BatchNorm {
    std::string path;
    bool frozen = false;  // running statistics, which no longer move
  };
  std::vector<FakeQuantizer> fake_quantizers;
  std::vector<BatchNorm> batch_norms;
};
QatState qat_state(nn::Module& model);
// A line for each, under a line of names.
std::string to_string(const QatState& state);
// In one line: "observers on 3 of 9, fake quantization on 9, learned 0; batch norms frozen 1 of 2".
std::string summary(const QatState& state);

}  // namespace octet::quant
