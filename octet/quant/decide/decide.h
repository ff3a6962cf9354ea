#pragma once
// The one place that says what is quantized, how, and why the rest stays float. It asks two things:
// the QConfigMapping for what the user wants of a call, and the BackendConfig for what can be done
// with it. All of graph mode is decided here, for graphs with and without module calls, and each
// module of eager mode, which has its qconfig with it and no graph around it:
//
//   std::vector<quant::NodeDecision> d = quant::decide(
//       graph, quant::get_default_qconfig_mapping(), quant::get_native_backend_config());
//   for (size_t n = 0; n < graph.nodes().size(); ++n)
//     if (!d[n].mode) std::cout << d[n].reason << "\n";
//
// Which values share an observer follows from the decisions (workflow/fx_prepare.cpp).

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/qconfig_mapping.h"

namespace octet::quant {

// What was decided about one call.
struct NodeDecision {
  std::optional<QConfig> qconfig = {};  // what the mapping gives it
  std::optional<QuantMode> mode = {};   // how it will be quantized; nullopt: it stays float
  std::string reason = {};              // why it stays float; "" if it does not
  bool custom = false, standalone = false;
  bool has_weights = false;  // which become codes
  // its result shares its operand's observer, as the backend says
  bool keeps_qparams = false;
  // its result goes as floats into the next call: both are functions of one code, and together a
  // table of 256 (graph/fuse_lookups.h)
  bool joins_next = false;
};

// What a quantized call does with an operand.
enum class OperandRole {
  other,       // it is absent, or no float32: an index, a mask
  activation,  // it becomes codes with qparams from calibration (or from itself: a constant)
  weight,      // it becomes codes with qparams from itself
  parameter,   // it stays float: a bias, slopes, statistics, the constant of an add or mul
};
OperandRole operand_role(const graph::Graph& graph, const graph::Node& node, size_t i,
                         const BackendPatternConfig* config);

// How the results of a call with that many tensors for operands are observed: as the backend says,
// but that a qconfig may give averages qparams of their own (ObserverOptions::own_averages).
ObservationType observation_type(const graph::Node& node, const BackendPatternConfig* config,
                                 const QConfig& qconfig);
// Whether a module is such an average.
bool is_average(const nn::Module& module);

// The second pass: leaves float what no layer with weights and no matmul is connected with through
// codes, for making codes of its operands costs more than it gains; and softmax and prelu, which
// compute in float, where no operator takes their codes (a prelu that is a result of the graph
// stays quantized). Does nothing where no layer is quantized. Graph mode and graphs have it on
// unless told otherwise. `decisions` by node.
void leave_islands_float(const graph::Graph& graph, std::vector<NodeDecision>& decisions);

// The third pass: functions of one value that only the next such function reads (mul and add by a
// number, then a hardswish) join into one table of codes, so that nothing is rounded between them.
// Graph mode and graphs have it on unless told otherwise. `decisions` by node.
void join_tables(const graph::Graph& graph, std::vector<NodeDecision>& decisions);

// What observes an operand that nothing has made codes of yet: the call's own observer, or the
// mapping's global one where that is of fixed qparams, which are those of the result (of a softmax,
// say, whose operand is not within 0..1. PyTorch clamps it to that).
ObserverFactory operand_observer(const QConfig& qconfig, const QConfigMapping& mapping);

struct DecideOptions {
  // Nodes that stay float: exact names, globs, or re:expressions (base/text.h NamePattern). A
  // pattern that matches no node is an Error with the nearest names.
  std::vector<std::string> skip = {};
  bool leave_islands_float = true, join_tables = true;
  // How the mapping knows each call, by node; by default targets_of(graph), and a name of the
  // mapping that matches none of them is an Error.
  std::vector<QConfigMapping::Target> targets = {};
  // What the backend can do with a call (null: nothing); by default BackendConfig::find_op.
  std::function<const BackendPatternConfig*(const graph::Node&)> pattern = {};
  // Decides about calls that are the user's own, custom and standalone modules, which the mapping
  // gives this qconfig; false for all others.
  std::function<bool(const graph::Node&, NodeDecision&)> own = {};
};

// The decision about each node.
std::vector<NodeDecision> decide(const graph::Graph& graph, const QConfigMapping& mapping,
                                 const BackendConfig& backend, const DecideOptions& options = {});

// The decision about a module that eager mode may swap, with the qconfig that it was given.
NodeDecision decide_module(const nn::Module& module, const std::optional<QConfig>& qconfig,
                           const BackendConfig& backend);

// How a mapping knows the calls of a graph of operators: by their names (as a module's), by their
// operator and by their number among the calls of that operator.
std::vector<QConfigMapping::Target> targets_of(const graph::Graph& graph);

// Whether an operator that keeps qparams may give values outside the range of its operand (which
// always includes 0): a pad with another value than 0, a clamp that does not hold 0, cubic
// interpolation, an average with a divisor of its own, a number added or multiplied.
bool widens(const graph::Node& node);

// The one node that reads a value; null if there are others, or if it is a result of the graph.
const graph::Node* only_reader(const graph::Graph& graph, graph::ValueId value);

// Whether the call, of an operator or module, cuts its operand's values to a range: relu, relu6,
// clamp. The operand's codes need not hold more than its result, so that alone is observed.
bool narrows(const graph::Node& node);

// The name users know a node by: its scope (module path or ONNX node name), or its result's name.
std::string node_name(const graph::Graph& graph, const graph::Node& node);

// The observer of a weight: per channel along the axis of its output channels, which transposed
// convolutions have in another place. Depthwise ones have one output channel per input channel,
// along whose axis the scales are then.
ObserverFactory weight_observer(const graph::Graph& graph, graph::ValueId weight,
                                const ObserverFactory& factory);

}  // namespace octet::quant
