#pragma once
// What the parts of graph mode share.

#include <map>
#include <string>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

// A deep copy of the model, traced; and the classes of its modules, by path, which the graph does
// not know.
struct Traced {
  std::shared_ptr<GraphModule> model;
  std::map<std::string, const std::type_info*> classes;
};
// With what `custom` keeps as leaves, and users' classes that the backend has patterns for. Error
// if a path or class that custom names is not in the model.
Traced trace_copy(const nn::ModulePtr& model, const std::vector<std::optional<TensorType>>& inputs,
                  const PrepareCustomConfig& custom, const BackendConfig& backend,
                  const std::vector<Tensor>& examples = {});

// Fuses the sequences that the backend's patterns of several items describe, in place.
void fuse_patterns(GraphModule& model, const BackendConfig& backend);

// How a QConfigMapping knows each call of a graph (module and operator calls), by node. The class
// of an operator's caller counts too, but for the model itself (as in PyTorch).
std::vector<QConfigMapping::Target> targets_of(
    const GraphModule& model, const std::map<std::string, const std::type_info*>& classes = {});

// The module that a module call calls; null for other nodes.
nn::Module* module_of(const GraphModule& model, const graph::Node& node);
// The class by which mappings and backends know it: of fused modules the class of the layer in it,
// for mappings.
std::type_index mapped_type(const nn::Module& module);

// prepare_fx or prepare_qat_fx of a graph of operators, in the name of `who`.
std::shared_ptr<ObservedGraphModule> prepare_graph(const graph::Graph& source,
                                                   const QConfigMapping& mapping,
                                                   const PrepareOptions& options, bool qat,
                                                   const char* who);

// Is it a call of an observer or fake-quantize module?
bool is_observer_call(const GraphModule& model, const graph::Node& node);

}  // namespace octet::quant
