#pragma once
// Outlier channel splitting (R. Zhao et al., "Improving Neural Network Quantization without
// Retraining using Outlier Channel Splitting", 2019, section 3.2): the function stays what it is,
// and the largest weights of a layer become half as large.
//
//   graph::Graph split = quant::split_outliers(float_graph, {.ratio = 0.05});
//   auto prepared = quant::prepare_fx(split, quant::get_default_qconfig("qnnpack"));

#include <cstdint>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

struct SplitOutliersOptions {
  double ratio = 0.05;  // channels that a layer may get at most, of those that it reads; above 0
  // A channel is split while its largest weight is more than this times the median channel's; 1 or
  // more.
  double outlier = 2;
};

struct SplitOutliersReport {
  struct Layer {
    std::string layer;              // quant::node_name
    std::vector<int64_t> channels;  // of its operand, by the order of splits; those may repeat
    double before = 0, after = 0;   // the weight's largest magnitude
  };
  std::vector<Layer> layers;
};

// In each linear layer and convolution without groups (not transposed) whose weight is a constant
// in float32:
//  y = sum_c w_c x_c = (w_k / 2) x_k + (w_k / 2) x_k + sum over c != k of w_c x_c,
// where k is the channel of the operand with the weight of the largest magnitude, again and again:
// at most max(1, floor(ratio * channels)) times, while that channel is an outlier. Halves are exact
// in binary; what is added in another order may round differently. The operand's channels are
// copied by index_select, which also copies codes; the layer computes as many products more.
// Batch norms are folded first. Error invalid_argument for options out of range.
graph::Graph split_outliers(const graph::Graph& graph, const SplitOutliersOptions& options = {},
                            SplitOutliersReport* report = nullptr);

}  // namespace octet::quant
