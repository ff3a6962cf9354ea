#pragma once
// Cross-layer equalization (Nagel et al., Data-Free Quantization Through Weight Equalization and
// Bias Correction, 2019, section 4.1; torch.ao.quantization._equalize): the channels between two
// layers get weights of like range on both sides, so that one scale per tensor fits them all. The
// model computes what it did.
//
//   auto equal = quant::equalize(model, {{"conv1", "bn1", "conv2"}, {"conv2", "fc"}});

#include <memory>
#include <vector>

#include "octet/nn/module.h"
#include "octet/quant/workflow/fuse.h"

namespace octet::quant {

struct EqualizeOptions {
  // The lists are gone through again and again until the norms of what the weights moved by in one
  // turn add up to less, or, however slow that is, 1000 times.
  double threshold = 1e-4;
  bool inplace = false;
  // Inputs of the model. If given, its first result is computed before and after: an Error names
  // the lists by which it changed. Otherwise modules that are declared between two layers of a list
  // must let a scale pass (below).
  std::vector<Tensor> sample = {};
};

nn::ModulePtr equalize_untyped(const nn::ModulePtr& model, const FuseList& lists,
                               const EqualizeOptions& options);

// Each list has the paths of layers that follow each other: Conv1d, 2d, 3d, transposed ones,
// Linear, and these fused with ReLU. Where channel c leaves the first with range r1 (largest minus
// smallest weight, 0 counted in) and enters the second with range r2, the first's weights and bias
// are multiplied by sqrt(r2/r1) and the second's weights by sqrt(r1/r2). Depthwise convolutions may
// stand between: of three layers, each gets the range cbrt(r1*r2*r3). Longer lists are taken apart
// where a layer mixes channels: {a, b, c} is {a, b}, {b, c}. A Linear behind Flatten may have
// several features per channel. Batch norms in a list are folded into the layer before them and
// become Identity. Channels with a range of 0 stay as they are.
//
// What stands between the layers must let a positive scale pass: f(s*x) = s*f(x), as ReLU,
// LeakyReLU, PReLU, Dropout, and pools do, but ReLU6, other activations and normalizations do not;
// and nothing else may use what the first layer computes. Errors: a path is not there, or not a
// float layer, or used in several places; a batch norm that is not folded; layers whose channels do
// not fit; a layer that would be scaled towards two others; weights that are not finite.
template <typename M>
std::shared_ptr<M> equalize(const std::shared_ptr<M>& model, const FuseList& lists,
                            const EqualizeOptions& options = {}) {
  return typed<M>(equalize_untyped(model, lists, options));
}

}  // namespace octet::quant
