#pragma once
// From a float graph and what was decided about it to a reference graph: the same for calibrated
// and for trained graphs, and for those whose weights alone are quantized.

#include <functional>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/observe/observer.h"
#include "octet/quant/workflow/report.h"

namespace octet::quant {

// What a reference graph is made from.
struct ReferenceSource {
  const graph::Graph& graph;
  const GraphDecisions& decisions;
  const BackendConfig& backend;                             // which decided
  std::vector<ops::QType> qtypes;                           // by group
  std::function<QParams(graph::ValueId)> constant_qparams;  // of a constant that becomes codes
};

// Every value may be there as float, as codes, or both, each made when first asked for.
graph::Graph build_reference(const ReferenceSource& source, ConversionReport& report);

// The reference graph with integer operators (graph::merge_qdq) where that was decided. What was
// decided to stay float but runs as a table of codes is reported as quantized.
graph::Graph lower_reference(const graph::Graph& reference, const graph::Graph& source,
                             const GraphDecisions& decisions, ConversionReport& report);

// What is decided about: batch norms and added constants are folded into the layers before them,
// activations fused, constants of add and mul in second place.
graph::Graph quantizable_form(const graph::Graph& graph);

// Asks the observer that was decided on for a constant.
QParams observe_constant(const graph::Graph& graph, const GraphDecisions& decisions,
                         graph::ValueId constant);

// Error listing the nodes that stayed float, if any computes.
void require_nothing_left_float(const ConversionReport& report);

// Error listing why each node stays float if none is quantized.
void require_something_quantized(const graph::Graph& graph, const GraphDecisions& decisions,
                                 const char* who);

}  // namespace octet::quant
