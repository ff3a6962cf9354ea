#include <algorithm>
#include <map>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/graph/fold_batch_norm.h"
#include "octet/graph/fuse.h"
#include "octet/graph/fuse_lookups.h"
#include "octet/graph/merge_qdq.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/workflow/reference_impl.h"
#include "octet/quant/workflow/weight_scales_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

Graph quantizable_form(const Graph& graph) {
  return graph::fuse_activations(
      graph::fold_batch_norm(graph::fold_biases(graph::constants_second(graph))));
}

QParams observe_constant(const Graph& graph, const GraphDecisions& decisions, ValueId constant) {
  auto observer =
      decisions.constants.at(constant).without_fake_quantize().make(graph.value(constant).name);
  observer->observe(graph.constant(constant));
  return observer->calculate_qparams();
}

namespace {

// Builds the reference graph: every value may be there as float, as codes, or both, each made when
// first asked for.
class ReferenceBuilder {
 public:
  ReferenceBuilder(const ReferenceSource& source, ConversionReport& report)
      : source_(source),
        g_(source.graph),
        report_(report),
        as_float_(g_.values().size(), kNone),
        as_codes_(g_.values().size(), kNone),
        is_output_(g_.values().size(), false) {
    for (ValueId v : g_.outputs()) is_output_[static_cast<size_t>(v)] = true;
  }

  Graph build() {
    out_.name = g_.name;
    out_.metadata = g_.metadata;
    for (size_t n = 0; n < g_.nodes().size(); ++n) {
      const Node& node = g_.nodes()[n];
      ValueId y = node.outputs[0];
      if (node.kind == NodeKind::input)
        as_float_[static_cast<size_t>(y)] = out_.add_input(g_.value(y).name, g_.type(y));
      else if (node.kind == NodeKind::call)
        call(node, source_.decisions.nodes[n]);
    }
    std::vector<ValueId> outputs;
    for (ValueId v : g_.outputs()) outputs.push_back(float_of(v));
    out_.set_outputs(std::move(outputs));
    return std::move(out_);
  }

 private:
  const ops::QType& qtype(ValueId v) const {
    return source_.qtypes[static_cast<size_t>(source_.decisions.group[static_cast<size_t>(v)])];
  }

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
    if (as_codes_[v] == kNone && g_.is_constant(v))
      as_codes_[v] = out_.add_constant(
          g_.value(v).name, quantize(g_.constant(v), qtype(v).quantizer, qtype(v).dtype));
    else if (as_codes_[v] == kNone)
      as_codes_[v] =
          out_.add_call(g_.value(v).name + ".quantized", "quantize", {as_float_[v]}, {}, qtype(v));
    return out_.add_call(g_.value(v).name + ".dequantized", "dequantize", {as_codes_[v]});
  }

  // The codes of a constant. Those of a linear layer's weight that is used with float arithmetic
  // are kept two to a byte if they are of 4 bits.
  ValueId quantized_constant(ValueId v, const std::string& node, bool in_four_bits) {
    auto [it, fresh] = constants_.emplace(v, kNone);
    if (fresh) {
      QParams q = source_.constant_qparams(v);
      for (const std::string& w : q.warnings)
        report_.warnings.push_back(fmt::format("{}: {}", node, w));
      Tensor codes = quantize_to(g_.constant(v), q);
      it->second = out_.add_constant(g_.value(v).name, in_four_bits ? packed(codes, q) : codes);
    }
    return it->second;
  }

  static Tensor packed(const Tensor& codes, const QParams& q) {
    for (const auto& [wide, four] :
         {std::pair{DType::qint8, DType::qint4x2}, std::pair{DType::quint8, DType::quint4x2}})
      if (codes.dtype() == wide && q.quant_min >= qmin(four) && q.quant_max <= qmax(four))
        return make_quantized(codes.int_repr(), q.quantizer, four);
    return codes;
  }

  void call(const Node& node, const NodeDecision& d) {
    const std::string label = node_name(g_, node);
    report_.entries.push_back({label, node.op, d.mode.has_value(), d.reason});
    if (d.mode == QuantMode::statically)
      on_codes(node, d, label);
    else
      on_floats(node, d, label);
  }

  // dequantize -> the operator -> quantize.
  void on_codes(const Node& node, const NodeDecision& d, const std::string& label) {
    const std::string& name = g_.value(node.outputs[0]).name;
    const BackendPatternConfig* config = source_.backend.find_op(node.op);
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      if (becomes_codes(node, i, config))
        operands.push_back(dequantized_constant(v, label));
      else if (v == kNone || group(v) < 0)
        operands.push_back(float_of(v));
      else
        operands.push_back(dequantized(v));
    }
    auto results = out_.add_calls(name + (group(node.outputs[0]) < 0 ? "" : ".float"), node.op,
                                  operands, node.attrs, std::nullopt, node.scope);
    if (d.joins_next)
      out_.node(out_.value(results[0]).producer).note = "one table of codes with the next operator";
    for (size_t i = 0; i < results.size(); ++i) {
      ValueId v = node.outputs[i];
      if (group(v) < 0)
        as_float_[static_cast<size_t>(v)] = results[i];
      else
        as_codes_[static_cast<size_t>(v)] =
            out_.add_call(code_name(v), "quantize", {results[i]}, {}, qtype(v));
    }
  }

  // An operator that stays float, or whose weights alone are codes.
  void on_floats(const Node& node, const NodeDecision& d, const std::string& label) {
    const BackendPatternConfig* config = source_.backend.find_op(node.op);
    const LoweredOp* lowered = d.mode && config ? config->quantized_op(*d.mode) : nullptr;
    const std::string op = lowered ? lowered->op : node.op;
    Attrs attrs = node.attrs;
    if (lowered)
      for (const auto& [key, value] : lowered->attrs) attrs.set(key, value);
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      if (!d.mode || !becomes_codes(node, i, config))
        operands.push_back(float_of(v));
      else
        operands.push_back(lowered ? quantized_constant(v, label, node.op == "linear")
                                   : dequantized_constant(v, label));
    }
    auto results = out_.add_calls(g_.value(node.outputs[0]).name, op, operands, attrs, std::nullopt,
                                  node.scope);
    if (!d.mode) out_.node(out_.value(results[0]).producer).note = "float: " + d.reason;
    for (size_t i = 0; i < results.size(); ++i)
      as_float_[static_cast<size_t>(node.outputs[i])] = results[i];
  }

  // Whether an operand is a constant that was decided to become codes.
  bool becomes_codes(const Node& node, size_t i, const BackendPatternConfig* config) const {
    const ValueId v = node.inputs[i];
    return v != kNone && source_.decisions.constants.count(v) &&
           operand_role(g_, node, i, config) != OperandRole::parameter;
  }
  ValueId dequantized_constant(ValueId v, const std::string& label) {
    return out_.add_call(g_.value(v).name + ".dequantized", "dequantize",
                         {quantized_constant(v, label, false)});
  }

  int group(ValueId v) const { return source_.decisions.group[static_cast<size_t>(v)]; }

  const ReferenceSource& source_;
  const Graph& g_;
  ConversionReport& report_;
  Graph out_;
  std::vector<ValueId> as_float_, as_codes_;
  std::vector<bool> is_output_;
  std::map<ValueId, ValueId> constants_;  // a constant -> its codes, shared by all uses
};

bool only_moves(const std::string& op) {
  static const std::set<std::string> ops{
      "reshape", "flatten", "permute",  "unsqueeze", "squeeze",      "slice", "split",
      "expand",  "tile",    "identity", "dropout",   "index_select", "cat"};
  return ops.count(op) != 0;
}

}  // namespace

Graph build_reference(const ReferenceSource& source, ConversionReport& report) {
  return raise_weight_scales(graph::remove_dead(ReferenceBuilder(source, report).build()), report);
}

Graph lower_reference(const Graph& reference, const Graph& source, const GraphDecisions& decisions,
                      ConversionReport& report) {
  std::set<std::string> stay_float;
  for (size_t n = 0; n < decisions.nodes.size(); ++n)
    if (source.nodes()[n].kind == NodeKind::call && !decisions.nodes[n].mode)
      stay_float.insert(source.value(source.nodes()[n].outputs[0]).name);
  Graph lowered = graph::merge_qdq(reference, [&](const Graph& g, const Node& node) {
    return !stay_float.count(g.value(node.outputs[0]).name);
  });
  // A function of codes that becomes codes again runs as a table, whatever was decided.
  const Graph with_tables = graph::fuse_lookups(lowered);
  for (size_t n = 0; n < lowered.nodes().size(); ++n) {
    Node& node = lowered.node(static_cast<graph::NodeId>(n));
    const std::string& name = lowered.value(node.outputs[0]).name;
    if (node.kind != NodeKind::call || !stay_float.count(name) || with_tables.find(name)) continue;
    node.note = "one table of codes with its neighbours";
    for (ConversionReport::Entry& e : report.entries)
      if (e.node == node_name(lowered, node)) e.quantized = true, e.reason.clear();
  }
  return lowered;
}

void require_something_quantized(const Graph& graph, const GraphDecisions& decisions,
                                 const char* who) {
  std::set<std::string> reasons;
  for (size_t n = 0; n < decisions.nodes.size(); ++n) {
    if (decisions.nodes[n].mode) return;
    if (graph.nodes()[n].kind == NodeKind::call)
      reasons.insert(
          fmt::format("{}: {}", node_name(graph, graph.nodes()[n]), decisions.nodes[n].reason));
  }
  OCTET_FAIL(invalid_argument, "{}: nothing in {} can be quantized: {}", who, graph.name,
             reasons.empty() ? "it calls nothing" : fmt::format("{}", fmt::join(reasons, "; ")));
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
