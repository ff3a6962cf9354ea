#include <algorithm>
#include <map>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/graph/merge_qdq.h"
#include "octet/ops/conv_impl.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/workflow/reference_impl.h"
#include "octet/quant/workflow/weight_scales_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

ObserverFactory weight_observer(const Graph& graph, ValueId weight,
                                const ObserverFactory& factory) {
  if (!is_per_channel(factory.options().qscheme)) return factory;
  for (graph::NodeId user : graph.users(weight)) {
    const Node& node = graph.node(user);
    if (!node.op.starts_with("conv_transpose") || node.inputs[1] != weight) continue;
    return factory.with_ch_axis(
        ops::weight_scale_axis(true, graph.type(weight), node.attrs.get_int("groups")));
  }
  return factory;
}

namespace {

// Builds the reference graph: every value may be there as float, as codes, or both, each made when
// first asked for.
class ReferenceBuilder {
 public:
  ReferenceBuilder(const Chosen& chosen, ConversionReport& report)
      : chosen_(chosen),
        g_(chosen.graph),
        report_(report),
        as_float_(g_.values().size(), kNone),
        as_codes_(g_.values().size(), kNone),
        is_output_(g_.values().size(), false) {
    for (ValueId v : g_.outputs()) is_output_[v] = true;
  }

  Graph build() {
    out_.name = g_.name;
    out_.metadata = g_.metadata;
    const Placement& p = chosen_.placement;
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& node = g_.nodes()[i];
      ValueId y = node.outputs[0];
      if (node.kind == NodeKind::input)
        as_float_[y] = out_.add_input(g_.value(y).name, g_.type(y));
      else if (node.kind == NodeKind::call)
        call(node, p.quantized[i], p.reason[i]);
    }
    std::vector<ValueId> outputs;
    for (ValueId v : g_.outputs()) outputs.push_back(float_of(v));
    out_.set_outputs(std::move(outputs));
    return std::move(out_);
  }

 private:
  const ops::QType& qtype(ValueId v) const { return chosen_.qtypes[chosen_.placement.group[v]]; }

  // Codes have the value's name, but for results of the graph: there the float result has it, as in
  // the float graph.
  std::string code_name(ValueId v) const {
    return g_.value(v).name + (is_output_[v] ? ".quantized" : "");
  }
  std::string float_name(ValueId v) const {
    return g_.value(v).name + (is_output_[v] ? "" : ".dequantized");
  }

  ValueId float_of(ValueId v) {
    if (v == kNone || as_float_[v] != kNone) return v == kNone ? kNone : as_float_[v];
    if (g_.is_constant(v))
      return as_float_[v] = out_.add_constant(g_.value(v).name, g_.constant(v));
    return as_float_[v] = out_.add_call(float_name(v), "dequantize", {as_codes_[v]});
  }

  // dequantize(quantize(v)): what a quantized operator reads.
  ValueId dequantized(ValueId v) {
    if (as_codes_[v] == kNone)
      as_codes_[v] =
          out_.add_call(g_.value(v).name + ".quantized", "quantize", {as_float_[v]}, {}, qtype(v));
    return out_.add_call(g_.value(v).name + ".dequantized", "dequantize", {as_codes_[v]});
  }

  ValueId quantized_weight(ValueId v, const std::string& node) {
    auto [it, fresh] = weights_.emplace(v, kNone);
    if (fresh) {
      const std::string& name = g_.value(v).name;
      QParams q = chosen_.weight_qparams(v);
      for (const std::string& w : q.warnings)
        report_.warnings.push_back(fmt::format("{}: {}", node, w));
      it->second = out_.add_constant(name, quantize_to(g_.constant(v), q));
    }
    return out_.add_call(g_.value(v).name + ".dequantized", "dequantize", {it->second});
  }

  void call(const Node& node, bool quantized, const std::string& reason) {
    std::string label = node_name(g_, node);
    report_.entries.push_back({label, node.op, quantized, reason});
    const std::string& name = g_.value(node.outputs[0]).name;
    std::vector<ValueId> operands;
    if (!quantized) {
      for (ValueId v : node.inputs) operands.push_back(float_of(v));
      auto results = out_.add_calls(name, node.op, operands, node.attrs, std::nullopt, node.scope);
      out_.node(out_.value(results[0]).producer).note = "float: " + reason;
      for (size_t i = 0; i < results.size(); ++i) as_float_[node.outputs[i]] = results[i];
      return;
    }
    bool weighted = has_weight(node);
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      if (v == kNone)
        operands.push_back(kNone);
      else if (weighted && i == 1)
        operands.push_back(quantized_weight(v, label));
      else if (g_.is_constant(v))
        operands.push_back(float_of(v));
      else
        operands.push_back(dequantized(v));
    }
    auto results =
        out_.add_calls(name + ".float", node.op, operands, node.attrs, std::nullopt, node.scope);
    for (size_t i = 0; i < results.size(); ++i) {
      ValueId v = node.outputs[i];
      as_codes_[v] = out_.add_call(code_name(v), "quantize", {results[i]}, {}, qtype(v));
    }
  }

  const Chosen& chosen_;
  const Graph& g_;
  ConversionReport& report_;
  Graph out_;
  std::vector<ValueId> as_float_, as_codes_;
  std::vector<bool> is_output_;
  std::map<ValueId, ValueId> weights_;  // weight -> its codes, shared by all uses
};

bool only_moves(const std::string& op) {
  static const std::set<std::string> ops{
      "reshape", "flatten", "permute",  "unsqueeze", "squeeze",      "slice", "split",
      "expand",  "tile",    "identity", "dropout",   "index_select", "cat"};
  return ops.count(op) != 0;
}

}  // namespace

Graph build_reference(const Chosen& chosen, ConversionReport& report) {
  return raise_weight_scales(graph::remove_dead(ReferenceBuilder(chosen, report).build()), report);
}

void require_nothing_left_float(const ConversionReport& report) {
  std::vector<std::string> lines;
  for (const auto& e : report.left_float())
    lines.push_back(fmt::format("{} ({}): {}", e.node, e.op, e.reason));
  OCTET_CHECK(lines.empty(), unsupported, "{} nodes stay float, which strict forbids: {}",
              lines.size(), fmt::join(lines, "; "));
}

int64_t ConversionReport::quantized() const {
  return std::count_if(entries.begin(), entries.end(), [](const Entry& e) { return e.quantized; });
}

std::vector<ConversionReport::Entry> ConversionReport::left_float() const {
  std::vector<Entry> result;
  for (const Entry& e : entries)
    if (!e.quantized && !only_moves(e.op)) result.push_back(e);
  return result;
}

}  // namespace octet::quant
