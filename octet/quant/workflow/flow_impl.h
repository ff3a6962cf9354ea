#pragma once
// Follows tensors through the calibration of an eager model, to know where a quantized tensor would
// reach a float operator and where a float one a quantized module. Eager mode has no graph: without
// this the user learns it when the converted model runs.

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "octet/ops/op.h"

namespace octet::quant {

class Flow : public std::enable_shared_from_this<Flow> {
 public:
  // What is wrong, in the order it was seen; each once.
  const std::vector<std::string>& problems() const { return problems_; }
  void problem(const std::string& text) {
    if (seen_.insert(text).second) problems_.push_back(text);
  }

  // Says that x will be quantized after convert(); `producer` names the module it comes from, whose
  // result has the same scale unless an operator with a scale of its own came between.
  void mark(Tensor& x, const std::string& producer, bool same_scale = true);
  static bool marked(const Tensor& x);
  static std::string producer(const Tensor& x);
  // The module whose result has x's scale; "" if there is none, or that is not known.
  static std::string scale_source(const Tensor& x);

  // By module: those whose results it read as its first input, where their scale is its input's.
  std::map<std::string, std::set<std::string>> scale_sources;
  // Another handle on x, known to autograd but not marked.
  static Tensor unmarked(const Tensor& x);

  // The modules being run, innermost last.
  std::vector<std::string> running;

 private:
  std::set<std::string> seen_;
  std::vector<std::string> problems_;
};

}  // namespace octet::quant
