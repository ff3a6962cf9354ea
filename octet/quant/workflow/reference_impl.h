#pragma once
// From a float graph and what was chosen for it to a reference graph: the same for calibrated and
// for trained graphs.

#include <functional>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/quant/backend/placement.h"
#include "octet/quant/observe/observer.h"
#include "octet/quant/workflow/report.h"

namespace octet::quant {

// What a reference graph is made from.
struct Chosen {
  const graph::Graph& graph;
  const Placement& placement;
  std::vector<ops::QType> qtypes;                         // by group
  std::function<QParams(graph::ValueId)> weight_qparams;  // of a constant weight
};

// Every value may be there as float, as codes, or both, each made when first asked for.
graph::Graph build_reference(const Chosen& chosen, ConversionReport& report);

// Error listing the nodes that stayed float, if any computes.
void require_nothing_left_float(const ConversionReport& report);

// The observer of a weight: per channel along the axis of its output channels, which transposed
// convolutions have in another place. Depthwise ones have one output channel per input channel,
// along whose axis the scales are then.
ObserverFactory weight_observer(const graph::Graph& graph, graph::ValueId weight,
                                const ObserverFactory& factory);

}  // namespace octet::quant
