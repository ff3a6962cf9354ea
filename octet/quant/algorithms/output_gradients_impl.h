#pragma once
// Which way an error of a value moves the outputs of a float network: what sensitivity
// (debug/sensitivity.h) and choose_ranges (choose_ranges.h) weigh rounding errors with.

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "octet/autograd/autograd.h"
#include "octet/graph/graph_module.h"
#include "octet/nn/module.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"

namespace octet::quant {

// The float network, run call by call, with a zero added to some values. The gradients of these
// zeros are those of the values, whether or not anything else wants a gradient.
class OutputGradients : public graph::GraphModule {
 public:
  // `root` must outlive it.
  OutputGradients(graph::Graph graph, nn::Module& root, std::set<graph::ValueId> values)
      : GraphModule(std::move(graph), root), values_(std::move(values)) {
    eval();
  }

  // Runs a batch, and backward from a random combination of all float outputs (elements times
  // N(0, 1), others at each call). False if no output is float and depends on one of the values.
  bool run(const std::vector<Tensor>& batch) {
    taps_.clear();
    Tensor combination;
    for (const Tensor& output : forward(batch)) {
      if (!is_floating(output.dtype()) || !autograd::requires_grad(output)) continue;
      const Tensor part = (output * Tensor::randn(output.shape(), seed_++)).sum();
      combination = combination.defined() ? combination + part : part;
    }
    if (!combination.defined()) return false;
    autograd::backward(combination);
    return true;
  }

  // A value's gradient in the last run, and what it was, both contiguous. The gradient is undefined
  // where no output depends on the value; then there may be no value either.
  Tensor gradient(graph::ValueId id) const {
    const auto tap = taps_.find(id);
    const Tensor found = tap == taps_.end() ? Tensor() : autograd::grad(tap->second.zero);
    return found.defined() ? found.contiguous() : found;
  }
  const Tensor& value(graph::ValueId id) const { return taps_.at(id).value; }

 protected:
  Tensor result(graph::ValueId id, Tensor value) override {
    if (!values_.count(id)) return value;
    Tensor zero = Tensor::zeros(value.shape());
    autograd::set_requires_grad(zero);
    taps_[id] = {value.detach().contiguous(), zero};
    return ops::call("add", {value, zero});
  }

 private:
  struct Tap {
    Tensor value, zero;
  };
  const std::set<graph::ValueId> values_;
  std::map<graph::ValueId, Tap> taps_;
  uint64_t seed_ = 1;
};

}  // namespace octet::quant
