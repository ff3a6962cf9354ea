#pragma once
// Something that travels with tensors (ops::TensorTrace) and wants to see the calls of modules that
// they take part in too.

#include <functional>
#include <memory>
#include <vector>

#include "octet/nn/module.h"
#include "octet/ops/op.h"

namespace octet::nn {

class ModuleTrace : public ops::TensorTrace {
 public:
  using Next = std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs)>;
  // Called in place of the module; `next` runs its forward and its hooks.
  virtual std::vector<Tensor> on_module(Module& module, const std::vector<Tensor>& inputs,
                                        const Next& next) = 0;
};

// While it lives, `trace` sees this thread's calls of modules with tensors that nothing follows,
// too: a module called with numbers known beforehand (a table of positions) has parameters like
// others. Null: nobody sees them.
class SeeAllModules {
 public:
  explicit SeeAllModules(std::shared_ptr<ModuleTrace> trace);
  ~SeeAllModules();
  SeeAllModules(const SeeAllModules&) = delete;
  SeeAllModules& operator=(const SeeAllModules&) = delete;

 private:
  std::shared_ptr<ModuleTrace> before_;
};

// While it lives, this thread is in a call of the module: its forward is the plain function
// (Module::forward). Module's operator() has one; the tracer, which runs the model's own forward,
// another. It costs no allocation.
class InCall {
 public:
  explicit InCall(const Module& module);
  ~InCall();
  InCall(const InCall&) = delete;
  InCall& operator=(const InCall&) = delete;
  // Is the innermost one on this thread the module's?
  static bool is_in(const Module& module);

 private:
  const Module& module_;
  const InCall* around_;
};

}  // namespace octet::nn
