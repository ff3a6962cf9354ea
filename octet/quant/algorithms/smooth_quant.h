#pragma once
// Scales moved from features of activations into the weights that read them: SmoothQuant (G. Xiao
// et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
// Models", 2023) for activations with a few large features, AWQ (J. Lin et al., "AWQ:
// Activation-aware Weight Quantization for LLM Compression and Acceleration", 2024) for weights of
// few bits.
//
//   graph::Graph smooth = quant::smooth_quant(float_graph, samples);
//   auto prepared = quant::prepare_fx(smooth, quant::get_default_qconfig());

#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

struct SmoothQuantReport {
  struct Entry {
    std::string source;               // the value whose features are scaled: a layer norm's result
    std::vector<std::string> layers;  // that read it (quant::node_name)
    std::vector<float> factors;  // by feature: the value is divided by them, the weights multiplied
  };
  std::vector<Entry> entries;
};

struct SmoothQuantOptions {
  double alpha = 0.5;  // 0: all of the range goes to the value, 1: to the weights
};

// Feature j of a value x that linear layers read is divided by
//  s_j = max |x_j|^alpha / max |w_j|^(1 - alpha)
// (1 where either is 0), over all samples and the weights of all that read it, and these weights
// are multiplied by s_j: the same function up to rounding. The division goes into what computes x:
// the weight and bias of a layer_norm over the last dimension, or of a linear layer, with a relu or
// without. A value that anything but linear layers with constant weights of their own reads stays
// as it is. Errors: invalid_argument without samples, or alpha outside 0..1.
graph::Graph smooth_quant(const graph::Graph& graph,
                          const std::vector<std::vector<Tensor>>& samples,
                          const SmoothQuantOptions& options = {},
                          SmoothQuantReport* report = nullptr);

struct AWQOptions {
  int bits = 4;            // of the weights' codes, symmetric
  int64_t group_size = 0;  // inputs that share a scale; 0: all of a row
  int steps = 20;          // values of alpha that are tried, 0 among them
};

// The same with s_j = (mean |x_j|)^alpha, divided by sqrt(max s * min s), and for each value the
// alpha in 0, 1/steps, ... with the least error of the layers' results when their weights are
// rounded to codes of so many bits: |(Q(W s) / s - W) x|^2 over all samples. Errors: as
// smooth_quant, and of bits outside 2..8.
graph::Graph awq(const graph::Graph& graph, const std::vector<std::vector<Tensor>>& samples,
                 const AWQOptions& options = {}, SmoothQuantReport* report = nullptr);

}  // namespace octet::quant
