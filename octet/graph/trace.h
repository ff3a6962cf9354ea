#pragma once
// Symbolic tracing: runs a model's forward on tensors that have types but no numbers, and writes
// down what it calls (torch.fx.symbolic_trace).
//
//   auto traced = graph::trace(*model, {TensorType(DType::float32, {Dim("N"), 3, 32, 32})});
//   std::cout << print(traced->graph());
//
// Calls of octet's own layers stay module calls, everything else (operators, methods of tensors,
// users' modules) is followed down to operators; each node's scope is the path of the module whose
// forward called it.

#include <set>
#include <string>
#include <typeindex>
#include <vector>

#include "octet/graph/graph_module.h"

namespace octet::graph {

struct TraceOptions {
  // Users' modules that are not followed: paths (names, globs or re: expressions) and classes.
  // Their calls stay module calls. The types of their results are found by running them on zeros in
  // eval mode, or Module::infer says them: modules that do so look at numbers and are never
  // followed.
  std::vector<std::string> leaf_modules;
  std::set<std::type_index> leaf_classes;
  // Follow octet's own layers too: a graph of operators, which can be compiled.
  bool into_layers = false;
  // The sizes that named dimensions have while the model is traced, where the model needs others
  // than the default (2 for the first dimension of an input, 32 for others). Each model with named
  // dimensions is traced twice, with these and with larger ones: what differs depends on the size.
  std::map<std::string, int64_t> sizes;
  std::vector<std::string> input_names;  // default: "x", or "x0", "x1", ...
};

// Modules are shared with the model, not copied, as are its parameters. Inputs are in forward's
// order; dims may be named; an input whose type has dtype and dims of an undefined tensor (nullopt)
// is left out. Errors: `unsupported` where forward needs numbers or a size in a way that the graph
// cannot hold, naming the operator, the module path and the line if it is known, and the ways out;
// those of the operators, with the module path.
std::shared_ptr<GraphModule> trace(nn::Module& model,
                                   const std::vector<std::optional<TensorType>>& inputs,
                                   const TraceOptions& options = {});
// With the types of example inputs (undefined: left out), whose first dimension is named "N" if all
// float inputs have it in common and the model can be traced so.
std::shared_ptr<GraphModule> trace(nn::Module& model, const std::vector<Tensor>& example_inputs,
                                   const TraceOptions& options = {});

// The types of a module's results for inputs of these types: what Module::infer says, or what
// tracing finds.
std::vector<TensorType> infer_types(nn::Module& module,
                                    const std::vector<std::optional<TensorType>>& inputs);

}  // namespace octet::graph
