#pragma once
// Bias correction (M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
// Correction", 2019, section 4.2): rounding moves the mean of a layer's result, and the bias takes
// that back.
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig_mapping());
//   for (const auto& batch : samples) prepared->forward(batch);
//   quant::correct_bias(*prepared, samples);
//   graph::Graph int8 = quant::convert_fx(prepared)->graph();

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

struct BiasCorrectionOptions {
  // What the float network computes, if not what the prepared graph does by now:
  // prepared->watched().graph from before its weights were changed.
  std::optional<graph::Graph> float_graph = {};
  std::function<void(size_t done, size_t all)> progress = {};  // after each layer
};

// Empirical (appendix D): in the order of the graph, each layer whose weight becomes codes gets for
// each channel
//  b += E[k(W x + b) - k(Q(W) x' + b)],
// x the layer's operand in the float network and x' that in the quantized one, all layers before
// which are corrected already. Unlike in the paper, k cuts its operand to what the layer's
// activation (relu, relu6) and the codes of its result keep, and the mean is over the samples and
// positions that a bias moves: where either operand lies within, or the two are cut to different
// ends. A mean over all of them is also that of values that are cut off, and what is kept moves by
// it: it took the output of a U-Net of 119 layers (ISNet) from an SQNR of 35 dB to 6. A channel
// whose squared error of what is kept would not fall keeps its bias.
// `prepared`: a calibrated graph of operators. `samples`: batches of inputs in the graph's order,
// all of whose live values are kept. Errors: not_calibrated; unsupported for a graph of module
// calls; invalid_argument without samples or for another network's float_graph.
void correct_bias(ObservedGraphModule& prepared, const std::vector<std::vector<Tensor>>& samples,
                  const BiasCorrectionOptions& options = {});

struct AnalyticBiasCorrectionReport {
  std::vector<std::string> corrected;  // names of layers (quant::node_name)
  std::vector<std::string> unknown;  // those whose operand's mean does not follow from batch norms
};

// Analytic (section 4.2.1), without data: b -= (Q(W) - W) E[x], summed over the taps, where E[x]
// follows from the batch norms of `float_graph`, the graph that was prepared. Behind one, a channel
// is normal with mean beta and standard deviation |gamma|; a relu, relu6 or clamp cuts that (the
// mean and variance of a clipped normal distribution); averages keep the mean, add adds means and
// variances, cat and reshapes that keep channels carry them on. Layers whose operand is something
// else stay as they are.
AnalyticBiasCorrectionReport correct_bias_analytically(ObservedGraphModule& prepared,
                                                       const graph::Graph& float_graph);

// Mean and variance of a normal variable cut to [low, high], which may be infinite.
struct ClippedNormal {
  double mean, variance;
};
ClippedNormal clipped_normal(double mean, double standard_deviation, double low, double high);

}  // namespace octet::quant
