#pragma once
// Rounding that is learned: each weight goes to the code below or above it, whichever serves the
// result of its layer (M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training
// Quantization", 2020: AdaRound) or of the block of layers that it is in (Y. Li et al., "BRECQ:
// Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021), with scales that
// may be learned too (I. Hubara et al., "Improving Post Training Neural Quantization: Layer-wise
// Calibration and Integer Programming", 2020: AdaQuant).
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig_mapping());
//   for (const auto& batch : samples) prepared->forward(batch);
//   quant::adaround(*prepared, samples, {.blocks = true});
//   graph::Graph int8 = quant::convert_fx(prepared)->graph();

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "octet/quant/algorithms/step_team.h"
#include "octet/quant/workflow/fx.h"

namespace octet::quant {

struct AdaRoundOptions {
  // What the float network computes, if not what the prepared graph does by now:
  // prepared->watched().graph from before its weights were changed.
  std::optional<graph::Graph> float_graph = {};
  // What is to be like the float network's: false: each layer's result before its activation;
  // true: each block's.
  bool blocks = false;
  // A block with more layers than this is taken layer by layer.
  int64_t most_layers = 16;
  int iterations = 1000;  // of Adam, for each layer or block; 0: all go to the nearest code
  double lr = 0.01;       // of Adam
  // Samples of a step, with `blocks`: as many whole batches as have so many, or a part of one if
  // the graph's inputs have an open first dimension.
  int64_t batch = 32;
  // The weight of the regularizer: 1 is as much for each weight as each one's share of the error
  // before. By default 0.5, and 10 with `blocks`, where gptq has left so small an error that with
  // less no weight goes to a code in the end.
  std::optional<double> regularization = {};
  double warm_up = 0.2;     // the share of iterations without it; none with `blocks`
  double first_power = 20;  // of the regularizer, which falls to 2
  // The scales of weights too: fitted to the codes in turns with these, as gptq does; with `blocks`
  // by Adam, their logarithms with 0.1 of lr.
  bool learn_scales = false;
  bool correct_bias = true;  // as quant::correct_bias does; with `blocks` it is learned
  uint64_t seed = 1;         // of the samples that steps take
  std::function<void(size_t done, size_t all)> progress = {};  // after each layer or block
  // Who learn together, with `blocks`: a part of a step has its share of `batch`. Without them each
  // process learns all of it.
  StepTeam* team = nullptr;
};

struct AdaRoundReport {
  struct Entry {
    std::vector<std::string> layers;  // whose weights were learned (quant::node_name)
    // Of the result, before and now: with `blocks` the mean squared error on all samples, else
    // (w - q) h (w - q)^T as of gptq, with the nearest codes before.
    double before = 0, error = 0;
  };
  std::vector<Entry> entries;
  // Layers that share their weight and, without `blocks`, transposed convolutions: their weights go
  // to the nearest codes.
  std::vector<std::string> skipped;
};

// In the order of the graph, each weight w on the grid of its scale s becomes
//  s (floor(w / s) + r(v)),  r(v) = min(1, max(0, 1.2 sigmoid(v) - 0.1)),
// and Adam finds the v with the least
//  error + regularization * sum of (1 - |2 r(v) - 1|^b),
// b falling from first_power to 2, so that in the end each r is 0 or 1; the code is then the nearer
// one. The error is the squared difference to the float network's result, computed from what the
// quantized network has by then: activations are rounded, all layers before are done. Without
// `blocks` it is the layer's expected one, (w - q) h (w - q)^T (reconstruction_impl.h), whose
// gradient needs no samples; what is left of it is then taken by coordinate descent. With `blocks`
// a step runs the block on some samples; a block is what lies between two places where one value
// alone goes on, so that a residual block is one, and a layer in a chain is one, with its
// activation. Its weights start from the codes that they have, the nearest or what a pass before
// (gptq) has made of them, and go to those or to the ones next to them, towards w: r begins beside
// the code that there is, not where w is, because learning from there in few iterations ends worse
// than gptq. Where it is no gain on all samples, the block stays as it was.
//
// convert_fx keeps the weights. `prepared`: a calibrated graph of operators. `samples`: batches of
// inputs in the graph's order, all of whose live values are kept; a few hundred images are enough.
// The same on every run with the same options, whatever the number of processes. Errors: those of
// correct_bias; invalid_argument for options out of range.
AdaRoundReport adaround(ObservedGraphModule& prepared,
                        const std::vector<std::vector<Tensor>>& samples,
                        const AdaRoundOptions& options = {});

}  // namespace octet::quant
