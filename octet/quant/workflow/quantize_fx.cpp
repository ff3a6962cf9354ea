#include "octet/quant/workflow/quantize_fx.h"

#include <algorithm>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/graph/fuse.h"
#include "octet/graph/merge_qdq.h"
#include "octet/runtime/program.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

struct PreparedGraph::Impl {
  Graph graph;
  QConfig qconfig;
  Placement placement;
  std::vector<ObserverPtr> observers;  // by group
  std::vector<ValueId> watched;
  runtime::Program program;
  int64_t batches = 0;
};

PreparedGraph::PreparedGraph(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PreparedGraph::PreparedGraph(PreparedGraph&&) noexcept = default;
PreparedGraph& PreparedGraph::operator=(PreparedGraph&&) noexcept = default;
PreparedGraph::~PreparedGraph() = default;

const Graph& PreparedGraph::graph() const { return impl_->graph; }
const Placement& PreparedGraph::placement() const { return impl_->placement; }
const QConfig& PreparedGraph::qconfig() const { return impl_->qconfig; }
const std::vector<ObserverPtr>& PreparedGraph::observers() const { return impl_->observers; }
int64_t PreparedGraph::batches() const { return impl_->batches; }

std::vector<Tensor> PreparedGraph::forward(const std::vector<Tensor>& inputs) {
  Impl& p = *impl_;
  auto results = p.program.run_watched(inputs, p.watched, [&](ValueId id, const Tensor& value) {
    p.observers[p.placement.group[id]]->observe(value);
  });
  ++p.batches;
  return results;
}

namespace {

// What can be known to be wrong with the observers before any data is seen.
void check_qconfig(const QConfig& qconfig) {
  OCTET_CHECK(qconfig.activation.chooses_qparams() && qconfig.weight.chooses_qparams(), invalid_argument,
              "prepare_fx: static quantization needs observers for activations and weights that choose qparams, got {}", to_string(qconfig));
  const ObserverOptions &a = qconfig.activation.options(), &w = qconfig.weight.options();
  OCTET_CHECK(!is_per_channel(a.qscheme), invalid_argument,
              "prepare_fx: activations have one scale per tensor; got {}: use a per-tensor observer for them",
              to_string(qconfig.activation));
  OCTET_CHECK(!is_float_qparams(w.qscheme), invalid_argument,
              "prepare_fx: float zero points are for embeddings; got {} for weights", to_string(qconfig.weight));
  for (const ObserverOptions* o : {&a, &w})
    OCTET_CHECK(o->dtype == DType::quint8 || o->dtype == DType::qint8, invalid_argument,
                "prepare_fx: {} are quantized to quint8 or qint8; got {}", o == &a ? "activations" : "weights",
                to_string(o == &a ? qconfig.activation : qconfig.weight));
  OCTET_CHECK(!is_per_channel(w.qscheme) || w.ch_axis == 0, invalid_argument,
              "prepare_fx: the output channels of weights are axis 0; got {}: use ch_axis=0", to_string(qconfig.weight));
}

bool has_weight(const Node& node) { return ops::get(node.op).param_index("weight") == size_t{1}; }

// The qparams of a constant weight.
QParams observe_weight(const Graph& g, ValueId weight, const QConfig& qconfig) {
  auto observer = qconfig.weight.make(g.value(weight).name);
  observer->observe(g.constant(weight));
  return observer->calculate_qparams();
}

}  // namespace

PreparedGraph prepare_fx(const Graph& source, const QConfig& qconfig, const PrepareOptions& options) {
  check_qconfig(qconfig);
  for (const Node& node : source.nodes())
    for (ValueId v : node.outputs)
      OCTET_CHECK(!source.type(v).is_quantized(), invalid_argument, "prepare_fx: {} is quantized already (%{}: {})",
                  source.name, source.value(v).name, to_string(source.type(v)));
  Graph fused = graph::fuse_activations(source);
  Placement placement = place(fused, options.skip, qconfig.activation.options().dtype);
  bool any = std::find(placement.quantized.begin(), placement.quantized.end(), true) != placement.quantized.end();
  if (!any) {
    std::set<std::string> reasons;
    for (size_t i = 0; i < fused.nodes().size(); ++i)
      if (!placement.reason[i].empty())
        reasons.insert(fmt::format("{}: {}", node_name(fused, fused.nodes()[i]), placement.reason[i]));
    OCTET_FAIL(invalid_argument, "prepare_fx: nothing in {} can be quantized: {}", source.name, fmt::join(reasons, "; "));
  }
  for (size_t i = 0; i < fused.nodes().size(); ++i) {  // a NaN in a weight is better known now than after calibration
    const Node& node = fused.nodes()[i];
    if (placement.quantized[i] && has_weight(node)) observe_weight(fused, node.inputs[1], qconfig);
  }
  runtime::Program program = runtime::compile(fused, {options.engine});
  std::vector<ObserverPtr> observers;
  std::vector<ValueId> watched;
  for (int g = 0; g < placement.groups; ++g) {
    const auto& values = placement.watch[g];
    if (values.empty()) {
      observers.push_back(nullptr);
      continue;
    }
    observers.push_back(qconfig.activation.make(fused.value(values[0]).name));
    watched.insert(watched.end(), values.begin(), values.end());
  }
  return PreparedGraph(std::make_unique<PreparedGraph::Impl>(PreparedGraph::Impl{
      std::move(fused), qconfig, std::move(placement), std::move(observers), std::move(watched), std::move(program), 0}));
}

// -- convert -----------------------------------------------------------------------------------------

namespace {

// Builds the reference graph: every value may be there as float, as codes, or both, each made when first asked for.
class ReferenceBuilder {
 public:
  ReferenceBuilder(const PreparedGraph& prepared, ConversionReport& report)
      : prepared_(prepared), g_(prepared.graph()), report_(report), as_float_(g_.values().size(), kNone),
        as_codes_(g_.values().size(), kNone), is_output_(g_.values().size(), false) {
    for (ValueId v : g_.outputs()) is_output_[v] = true;
    choose_qparams();
  }

  Graph build() {
    out_.name = g_.name;
    out_.metadata = g_.metadata;
    const Placement& p = prepared_.placement();
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& node = g_.nodes()[i];
      ValueId y = node.outputs[0];
      if (node.kind == NodeKind::input) as_float_[y] = out_.add_input(g_.value(y).name, g_.type(y));
      else if (node.kind == NodeKind::call) call(node, p.quantized[i], p.reason[i]);
    }
    std::vector<ValueId> outputs;
    for (ValueId v : g_.outputs()) outputs.push_back(float_of(v));
    out_.set_outputs(std::move(outputs));
    return std::move(out_);
  }

 private:
  void choose_qparams() {
    std::vector<std::string> missing;
    const auto& observers = prepared_.observers();
    for (size_t g = 0; g < observers.size(); ++g) {
      if (!observers[g]) {
        qtypes_.push_back(*prepared_.placement().fixed[g]);
      } else if (observers[g]->empty()) {
        missing.push_back(observers[g]->label());
        qtypes_.push_back({});
      } else {
        QParams q = observers[g]->calculate_qparams();
        report_.warnings.insert(report_.warnings.end(), q.warnings.begin(), q.warnings.end());
        qtypes_.push_back({q.dtype, q.quantizer});
      }
    }
    OCTET_CHECK(missing.empty(), not_calibrated,
                "convert_fx: {} of {} observers saw no data ({}): calibrate first, by calling forward() on sample inputs",
                missing.size(), observers.size(), fmt::join(missing, ", "));
  }

  const ops::QType& qtype(ValueId v) const { return qtypes_[prepared_.placement().group[v]]; }

  // Codes have the value's name, but for results of the graph: there the float result has it, as in the float graph.
  std::string code_name(ValueId v) const { return g_.value(v).name + (is_output_[v] ? ".quantized" : ""); }
  std::string float_name(ValueId v) const { return g_.value(v).name + (is_output_[v] ? "" : ".dequantized"); }

  ValueId float_of(ValueId v) {
    if (v == kNone || as_float_[v] != kNone) return v == kNone ? kNone : as_float_[v];
    if (g_.is_constant(v)) return as_float_[v] = out_.add_constant(g_.value(v).name, g_.constant(v));
    return as_float_[v] = out_.add_call(float_name(v), "dequantize", {as_codes_[v]});
  }

  // dequantize(quantize(v)): what a quantized operator reads.
  ValueId dequantized(ValueId v) {
    if (as_codes_[v] == kNone)
      as_codes_[v] = out_.add_call(g_.value(v).name + ".quantized", "quantize", {as_float_[v]}, {}, qtype(v));
    return out_.add_call(g_.value(v).name + ".dequantized", "dequantize", {as_codes_[v]});
  }

  ValueId quantized_weight(ValueId v, const std::string& node) {
    auto [it, fresh] = weights_.emplace(v, kNone);
    if (fresh) {
      const std::string& name = g_.value(v).name;
      QParams q = observe_weight(g_, v, prepared_.qconfig());
      for (const std::string& w : q.warnings) report_.warnings.push_back(fmt::format("{}: {}", node, w));
      it->second = out_.add_constant(name, quantize(g_.constant(v), q.quantizer, q.dtype));
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
      if (v == kNone) operands.push_back(kNone);
      else if (weighted && i == 1) operands.push_back(quantized_weight(v, label));
      else if (g_.is_constant(v)) operands.push_back(float_of(v));
      else operands.push_back(dequantized(v));
    }
    ValueId y = out_.add_call(name + ".float", node.op, operands, node.attrs, std::nullopt, node.scope);
    ValueId v = node.outputs[0];
    as_codes_[v] = out_.add_call(code_name(v), "quantize", {y}, {}, qtype(v));
  }

  const PreparedGraph& prepared_;
  const Graph& g_;
  ConversionReport& report_;
  Graph out_;
  std::vector<ops::QType> qtypes_;  // by group
  std::vector<ValueId> as_float_, as_codes_;
  std::vector<bool> is_output_;
  std::map<ValueId, ValueId> weights_;  // weight -> its codes, shared by all uses
};

bool only_moves(const std::string& op) {
  static const std::set<std::string> ops{"reshape", "flatten", "permute", "unsqueeze", "squeeze",  "slice",
                                         "split",   "expand",  "tile",    "identity",  "dropout",  "index_select", "cat"};
  return ops.count(op) != 0;
}

}  // namespace

int64_t ConversionReport::quantized() const {
  return std::count_if(entries.begin(), entries.end(), [](const Entry& e) { return e.quantized; });
}

std::vector<ConversionReport::Entry> ConversionReport::left_float() const {
  std::vector<Entry> result;
  for (const Entry& e : entries)
    if (!e.quantized && !only_moves(e.op)) result.push_back(e);
  return result;
}

Graph convert_to_reference_fx(const PreparedGraph& prepared, ConversionReport* report) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  r = {};
  return graph::remove_dead(ReferenceBuilder(prepared, r).build());
}

Graph convert_fx(const PreparedGraph& prepared, ConversionReport* report, bool strict) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  Graph reference = convert_to_reference_fx(prepared, &r);
  if (strict) {
    std::vector<std::string> lines;
    for (const auto& e : r.left_float()) lines.push_back(fmt::format("{} ({}): {}", e.node, e.op, e.reason));
    OCTET_CHECK(lines.empty(), unsupported, "{} nodes stay float, which strict forbids: {}", lines.size(),
                fmt::join(lines, "; "));
  }
  return graph::merge_qdq(reference);
}

}  // namespace octet::quant
