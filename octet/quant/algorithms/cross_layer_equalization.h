#pragma once
// Cross-layer equalization of graphs (M. Nagel et al., "Data-Free Quantization Through Weight
// Equalization and Bias Correction", 2019, section 4.1; AIMET's cross_layer_equalization), and the
// absorption of high biases (section 4.1.3). quant::equalize does the first to modules, by lists.
//
//   graph::Graph equal = quant::cross_layer_equalization(float_graph, samples);
//   auto prepared = quant::prepare_fx(equal, quant::get_default_qconfig("qnnpack"));

#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

struct CrossLayerEqualizationOptions {
  // Turns through all groups at most; fewer where no factor moves by more than 1e-4 of itself.
  int turns = 100;
  // relu6 and clamps from 0 on do not let a scale pass. With samples, those whose limit these never
  // reach become relu, and others relu and a limit for each channel (minimum with a constant).
  // false: they end a group.
  bool replace_relu6 = true;
};

struct CrossLayerEqualizationReport {
  struct Group {
    std::vector<std::string> producers, consumers;  // layers (quant::node_name)
    std::vector<double>
        factors;  // by channel: of the producers' weights; consumers have 1 / factor
  };
  std::vector<Group> groups;
  std::vector<std::string> replaced_relu6;  // values that were relu6, or clamped
};

// The same function, up to rounding, with the channels between layers scaled so that their weights
// have like ranges on both sides and one scale for a tensor fits them all. Channel c between layers
// with range r1 (largest minus smallest weight, 0 counted in) before and r2 behind gets the factor
// sqrt(r2 / r1). Batch norms and added constants are folded first. Channels are followed from
// layers (convolutions, depthwise and transposed ones, linear) through what lets a positive factor
// pass:
// relu, leaky_relu, prelu, pools, means over positions, interpolate, pads with 0, reshapes that
// keep channels, a factor for each channel, and add, sub and maximum, whose operands get the same
// factors (r1 and r2 are then the largest of all layers that write or read them). Whatever else
// reads or writes a value leaves it as it is, and so do graph outputs. `samples`: batches of
// inputs, for replace_relu6 only; may be empty. Error invalid_argument for a quantized graph.
graph::Graph cross_layer_equalization(const graph::Graph& graph,
                                      const std::vector<std::vector<Tensor>>& samples = {},
                                      const CrossLayerEqualizationOptions& options = {},
                                      CrossLayerEqualizationReport* report = nullptr);

// Where each value of a channel behind a layer and its relu was above c > 0 for all samples, the
// layer's bias is lowered by c and the biases of the layers that read it raised by what c adds to
// their results: the same function as long as that holds, with a narrower range between. Only where
// nothing but layers read the channel, none of which pads it. Batch norms are folded first. Error
// invalid_argument without samples or for a quantized graph.
graph::Graph absorb_high_biases(const graph::Graph& graph,
                                const std::vector<std::vector<Tensor>>& samples);

}  // namespace octet::quant
