#include "octet/debug/graph_page.h"

#include "octet/base/json_impl.h"
#include "octet/debug/compare_impl.h"
#include "octet/debug/page_impl.h"
#include "octet/graph/passes/fuse_lookups.h"

namespace octet::debug {
namespace {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

const char* const kGraphScript =
#include "octet/debug/graph_script.raw"
    ;

// How the page colours a node.
const char* state_of(const Node& node, bool on_codes) {
  if (node.kind == NodeKind::input) return "input";
  if (detail::is_conversion(node)) return "conversion";
  return on_codes ? "codes" : "float";
}

OrderedJson value_json(const Graph& g, ValueId v) {
  const TensorType& type = g.type(v);
  std::string dims;
  for (const Dim& d : type.dims) dims += (dims.empty() ? "" : ", ") + to_string(d);
  OrderedJson json{
      {"name", g.value(v).name}, {"dtype", to_string(type.dtype)}, {"shape", "(" + dims + ")"}};
  if (type.quantizer) json["qparams"] = to_string(*type.quantizer);
  if (g.is_constant(v)) json["bytes"] = g.constant(v).nbytes();
  return json;
}

// Inputs, calls and outputs are the page's nodes, in the graph's order; constants belong to the
// calls that read them.
OrderedJson graph_json(const Graph& g, const std::string& name) {
  const std::vector<bool> on_codes = graph::calls_on_codes(g);
  std::vector<int64_t> item(g.nodes().size(), -1);  // by node
  std::vector<bool> counted(g.values().size(), false);
  int64_t all_bytes = 0;
  OrderedJson items = OrderedJson::array();
  for (size_t n = 0; n < g.nodes().size(); ++n) {
    const Node& node = g.nodes()[n];
    if (node.kind == NodeKind::constant) continue;
    item[n] = static_cast<int64_t>(items.size());
    OrderedJson operands = OrderedJson::array(), reads = OrderedJson::array(),
                makes = OrderedJson::array();
    int64_t bytes = 0;
    for (const ValueId v : node.inputs) {
      if (v == kNone) continue;
      reads.push_back(value_json(g, v));
      const int64_t from = item[static_cast<size_t>(g.value(v).producer)];
      if (from >= 0) {
        operands.push_back(from);
        reads.back()["from"] = from;
      } else if (!counted[static_cast<size_t>(v)]) {  // what several read counts once
        counted[static_cast<size_t>(v)] = true;
        bytes += g.constant(v).nbytes();
      }
    }
    for (const ValueId v : node.outputs) makes.push_back(value_json(g, v));
    all_bytes += bytes;
    OrderedJson json{{"name", node.scope.empty() ? g.value(node.outputs.at(0)).name : node.scope},
                     {"op", node.kind == NodeKind::input ? "input" : node.op},
                     {"state", state_of(node, on_codes[n])},
                     {"operands", operands},
                     {"reads", reads},
                     {"makes", makes}};
    if (bytes) json["bytes"] = bytes;
    OrderedJson attrs = OrderedJson::object();
    for (const auto& [key, value] : node.attrs) attrs[key] = to_string(value);
    if (!attrs.empty()) json["attrs"] = attrs;
    if (!node.note.empty()) json["note"] = node.note;
    if (node.stays_float) json["stays_float"] = true;
    items.push_back(std::move(json));
  }
  for (const ValueId v : g.outputs()) {
    OrderedJson value = value_json(g, v), operands = OrderedJson::array();
    const int64_t from = item[static_cast<size_t>(g.value(v).producer)];
    if (from >= 0) {
      operands.push_back(from);
      value["from"] = from;
    }
    items.push_back({{"name", g.value(v).name},
                     {"op", "output"},
                     {"state", "output"},
                     {"operands", operands},
                     {"reads", OrderedJson::array({value})},
                     {"makes", OrderedJson::array()}});
  }
  return {{"file", name}, {"graph", g.name}, {"bytes", all_bytes}, {"items", items}};
}

}  // namespace

std::string html_graph(const Graph& g, const std::string& name) {
  return detail::make_page(
      {{{"TITLE", "octet inspect"},
        {"HEADING", "The typed graph"},
        {"SECTIONS", ""},
        {"ONE", "a node"},
        {"MANY", "nodes"},
        {"NOUN", "Node"},
        {"TABLE", "Nodes"},
        {"COLOUR", "what they compute on"},
        {"JUMP", "Next in float"},
        {"FILTER", "name, operator, type or reason"},
        {"FOOTER",
         "In 8 bits: the node reads or makes codes (x = scale * (code - zero_point)), or is part "
         "of a function of codes that runs as one table. The types are those of the results."}},
       graph_json(g, name).dump(-1, ' ', false, OrderedJson::error_handler_t::replace),
       kGraphScript});
}

}  // namespace octet::debug
