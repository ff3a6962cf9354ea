#pragma once
// Batch normalization with constant statistics is a scale and a shift per channel, which the layer
// before it can take over.

#include "octet/graph/graph.h"

namespace octet::graph {

// Folds batch_norm(conv1d | conv2d | linear) into the layer: w' = w*gamma/sqrt(var+eps),
// b' = (b-mean)*gamma/sqrt(var+eps) + beta, in float32, in PyTorch's order. Only where the
// layer's float weight, bias and the norm's operands are constants, the layer has no activation and
// nothing else uses its result; a linear layer only with 2-d results, whose channels are the
// features. The folded layer takes the norm's name and keeps its own scope.
Graph fold_batch_norm(const Graph& graph);

// Folds add(layer, constant) into the layer's bias, where the constant has one value or one for
// each output channel; the layers, and the conditions on them, are those of fold_batch_norm.
Graph fold_biases(const Graph& graph);

}  // namespace octet::graph
