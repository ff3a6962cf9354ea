#pragma once
// Rounding that looks at what a layer computes, not at its weights one by one: GPTQ (E. Frantar et
// al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023),
// refined by coordinate descent (K. Behdin et al., "QuantEase", 2023), with scales that are fitted
// to the codes in turns (I. Hubara et al., "Improving Post Training Neural Quantization: Layer-wise
// Calibration and Integer Programming", 2020: AdaQuant).
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig_mapping());
//   for (const auto& batch : samples) prepared->forward(batch);
//   quant::gptq(*prepared, samples);
//   graph::Graph int8 = quant::convert_fx(prepared)->graph();

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

struct GPTQOptions {
  // What the float network computes, if not what the prepared graph does by now:
  // prepared->watched().graph from before its weights were changed.
  std::optional<graph::Graph> float_graph = {};
  // So much of the mean of h's diagonal is added to it.
  double damping = 0.01;
  // Elements of a layer's result that h is computed from: this many, or 8 for each weight of a
  // channel if that is more.
  int64_t rows = 16384;
  // Ranges of weights that have not been chosen before (set_weight) are those with the least error
  // of the weights, weighted by h's diagonal; false: those of the observers.
  bool search_ranges = true;
  // Turns of coordinate descent at most, after GPTQ's one pass; 0: none.
  int sweeps = 20;
  // Turns in which scales are fitted to the codes, and codes to the scales.
  int learn_scales = 3;
  bool correct_bias = true;                                    // as quant::correct_bias does
  std::function<void(size_t done, size_t all)> progress = {};  // after each layer
};

struct GPTQReport {
  struct Entry {
    std::string layer;  // its name (quant::node_name)
    // (w - q) h (w - q)^T of the layer, rounded to the nearest code and as it is now.
    double nearest_error = 0, error = 0;
  };
  std::vector<Entry> layers;
  // Transposed convolutions, and layers that share their weight: only their biases are corrected.
  std::vector<std::string> skipped;
};

// In the order of the graph, the weight of each layer becomes values on its grid of codes with the
// least expected squared error of the layer's result, E |W x - Q x'|^2, x the layer's operand in
// the float network and x' that in the quantized one, all layers before which are done already.
// With
// h = E[x' x'^T] this is (W' - Q) h (W' - Q)^T and a constant, W' = E[W x x'^T] h^-1: GPTQ rounds
// column after column, the ones with the largest h_jj first, and moves the others so that they take
// the error back; coordinate descent then gives each code the best value while all others stay,
// until none changes. The bias is corrected.
//
// convert_fx keeps the weights. `prepared`: a calibrated graph of operators. `samples`: batches of
// inputs in the graph's order, all of whose live values are kept; a few hundred images, or lines of
// text, are enough. Errors: those of correct_bias.
GPTQReport gptq(ObservedGraphModule& prepared, const std::vector<std::vector<Tensor>>& samples,
                const GPTQOptions& options = {});

}  // namespace octet::quant
