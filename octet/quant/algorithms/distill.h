#pragma once
// Distillation without labels: the quantized network is trained to give what the float network
// gives (G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015),
// for a short time and with its ranges as they are. What rounding layer by layer or block by block
// cannot see, how errors of one layer meet those of another, it does.
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig_mapping());
//   for (const auto& batch : samples) prepared->forward(batch);
//   quant::gptq(*prepared, samples);
//   quant::distill(*prepared, samples, {.iterations = 400});
//   graph::Graph int8 = quant::convert_fx(prepared)->graph();

#include <functional>
#include <optional>
#include <vector>

#include "octet/quant/algorithms/step_team.h"
#include "octet/quant/workflow/fx.h"

namespace octet::quant {

struct DistillOptions {
  // What the float network computes, if not what the prepared graph does by now:
  // prepared->watched().graph from before its weights were changed.
  std::optional<graph::Graph> float_graph = {};
  int64_t iterations = 200;  // steps of Adam; 0: nothing changes
  // Of Adam, falling to 0 along half a cosine; a fourth of it from where the loss is twice what it
  // was at best, which is where it goes on from. A weight moves in units of its layer's root mean
  // square, a bias in units of a tenth of how its layer's results spread.
  double lr = 0.001;
  // Samples of a step, where the graph's inputs have an open first dimension; fewer where layers'
  // results on them would take more than 256 MB.
  int64_t batch = 32;
  uint64_t seed = 1;                                             // of the order of the samples
  std::function<void(int64_t done, int64_t all)> progress = {};  // after each step
  // Who learn together: a part of a step has its share of `batch`. Without them each process learns
  // all of it.
  StepTeam* team = nullptr;
};

// The mean loss on the samples that judge.
struct DistillReport {
  double before = 0, error = 0;  // error: now
};

// Trains the weights and biases of all layers with codes (straight-through estimator: rounding has
// the gradient 1, clamping 0) against the float network's outputs:
//  of an output that is a softmax along its last dimension the Kullback-Leibler divergence of the
//  float network's distribution from the quantized one's, before softmax (distillation_loss);
//  of others the mean squared difference over the mean square of the float network's;
// summed over the outputs. Ranges, of values and of weights, stay. Each eighth batch does not teach
// but judges, after each tenth of the steps: the best is kept, which is what there was before if
// nothing was a gain. (With fewer than eight batches all do both.) Layers that share their weight
// are not trained.
//
// convert_fx keeps the weights. `prepared`: a calibrated graph of operators. `samples`: batches of
// inputs in the graph's order; the float network's outputs on all are kept. The same on every run
// with the same options, whatever the number of processes. Errors: those of correct_bias;
// invalid_argument for options out of range; unsupported where layers' results on one sample take
// more than 1 GiB.
DistillReport distill(ObservedGraphModule& prepared,
                      const std::vector<std::vector<Tensor>>& samples,
                      const DistillOptions& options = {});

}  // namespace octet::quant
