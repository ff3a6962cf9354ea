#pragma once
// What functions on models and samples share: quantization algorithms and debugging aids.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "octet/graph/graph_module.h"
#include "octet/quant/workflow/fx.h"
#include "python/modules.h"

namespace octet::python {

using Batches = std::vector<std::vector<Tensor>>;

// Samples or batches as Python has them: an input each, or a tuple of inputs. Error, naming `who`,
// if there are none.
Batches batches_of(const py::iterable& samples, const char* who);
// The same of an argument that may be None: no samples then.
Batches maybe_batches_of(const py::object& samples, const char* who);

// A callback that is called without the GIL; null for None.
template <typename... Args>
std::function<void(Args...)> callback(const py::object& fn) {
  if (fn.is_none()) return nullptr;
  return [fn = keep(fn)](Args... args) {
    const Locked gil;
    (*fn)(py::cast(args)...);
  };
}

// What prepare_fx gave; Error for other models. The Python object keeps it alive.
quant::ObservedGraphModule& prepared_of(const py::object& prepared);
// A model as a graph module: what trace, prepare_fx or convert_fx gave, or a Graph; Error for other
// models.
std::shared_ptr<graph::GraphModule> graph_module_of(const py::object& model);

}  // namespace octet::python
