#pragma once
// Batch norms whose statistics are those of given samples (X. Sun et al., "Hybrid 8-bit Floating
// Point (HFP8) Training and Inference for Deep Neural Networks", 2019; AIMET's
// reestimate_bn_stats): training leaves moving averages, which are of other weights and batches.

#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

// The graph with the mean and variance (not the unbiased one) of each batch norm's operand over all
// samples and positions as its running_mean and running_var, in the order of the graph: a norm sees
// what the norms before it give with their new statistics. Norms whose statistics are not constants
// stay as they are. `samples`: batches of inputs in the graph's order, all of whose live values are
// kept. `names`: gets the results of the norms that changed. Error invalid_argument without
// samples.
graph::Graph reestimate_batch_norms(const graph::Graph& graph,
                                    const std::vector<std::vector<Tensor>>& samples,
                                    std::vector<std::string>* names = nullptr);

}  // namespace octet::quant
