#include "octet/quant/workflow/quantize_fx.h"

#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/graph/merge_qdq.h"
#include "octet/quant/workflow/reference_impl.h"
#include "octet/runtime/program.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

struct PreparedGraph::Impl {
  Graph graph;
  GraphDecisions decisions;
  BackendConfig backend;
  std::vector<ObserverPtr> observers;  // by group
  std::vector<ValueId> watched;
  // by value: whether it is shown to its group's observer, not only watched
  std::vector<bool> observed;
  runtime::Program program;
  int64_t batches = 0, samples = 0;
  SampleRanges ranges;
};

PreparedGraph::PreparedGraph(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PreparedGraph::PreparedGraph(PreparedGraph&&) noexcept = default;
PreparedGraph& PreparedGraph::operator=(PreparedGraph&&) noexcept = default;
PreparedGraph::~PreparedGraph() = default;

const Graph& PreparedGraph::graph() const { return impl_->graph; }
const GraphDecisions& PreparedGraph::decisions() const { return impl_->decisions; }
const BackendConfig& PreparedGraph::backend() const { return impl_->backend; }
const std::vector<ObserverPtr>& PreparedGraph::observers() const { return impl_->observers; }
int64_t PreparedGraph::batches() const { return impl_->batches; }
const SampleRanges& PreparedGraph::ranges() const { return impl_->ranges; }

std::vector<Tensor> PreparedGraph::forward(const std::vector<Tensor>& inputs) {
  Impl& p = *impl_;
  const int64_t batch = inputs.empty() || inputs[0].dim() == 0 ? 1 : inputs[0].size(0);
  auto results = p.program.run_watched(inputs, p.watched, [&](ValueId id, const Tensor& value) {
    if (p.observed[id])
      p.observers[static_cast<size_t>(p.decisions.group[static_cast<size_t>(id)])]->observe(value);
    p.ranges.add(id, value, p.samples, batch);
  });
  ++p.batches;
  p.samples += batch;
  return results;
}

namespace {

// What can be known to be wrong with a qconfig before any data is seen.
void check_qconfig(const QConfig& qconfig) {
  const ObserverOptions &a = qconfig.activation.options(), &w = qconfig.weight.options();
  if (qconfig.activation.chooses_qparams())
    OCTET_CHECK(!is_per_channel(a.qscheme), invalid_argument,
                "prepare_fx: activations have one scale per tensor; got {}: use a per-tensor "
                "observer for them",
                to_string(qconfig.activation));
  if (!qconfig.weight.chooses_qparams()) return;
  OCTET_CHECK(!is_float_qparams(w.qscheme), invalid_argument,
              "prepare_fx: float zero points are for embeddings; got {} for weights",
              to_string(qconfig.weight));
  OCTET_CHECK(!is_per_channel(w.qscheme) || w.ch_axis == 0, invalid_argument,
              "prepare_fx: the output channels of weights are axis 0; got {}: use ch_axis=0",
              to_string(qconfig.weight));
}

}  // namespace

PreparedGraph prepare_fx(const Graph& source, const QConfig& qconfig,
                         const PrepareOptions& options) {
  OCTET_CHECK(qconfig.activation.chooses_qparams() && qconfig.weight.chooses_qparams(),
              invalid_argument,
              "prepare_fx: static quantization needs observers for activations and weights that "
              "choose qparams, got {}",
              to_string(qconfig));
  check_qconfig(qconfig);
  return prepare_fx(source, QConfigMapping(qconfig), options);
}

PreparedGraph prepare_fx(const Graph& source, const QConfigMapping& mapping,
                         const PrepareOptions& options) {
  for (const Node& node : source.nodes())
    for (ValueId v : node.outputs)
      OCTET_CHECK(!source.type(v).is_quantized(), invalid_argument,
                  "prepare_fx: {} is quantized already (%{}: {})", source.name,
                  source.value(v).name, to_string(source.type(v)));
  Graph fused = quantizable_form(source);
  GraphDecisions decisions = decide(fused, mapping, options.backend, {options.skip});
  require_something_quantized(fused, decisions, "prepare_fx");
  for (const NodeDecision& d : decisions.nodes)
    if (d.mode) check_qconfig(*d.qconfig);
  // a NaN in a weight is better known now than after calibration
  for (const auto& [constant, observer] : decisions.constants)
    observe_constant(fused, decisions, constant);
  runtime::Program program =
      runtime::compile(fused, {.engine = options.engine, .every_value = true});
  std::vector<ObserverPtr> observers;
  std::vector<ValueId> watched;
  std::vector<bool> observed(fused.values().size(), false);
  for (size_t g = 0; g < decisions.groups.size(); ++g) {
    const GraphDecisions::Group& group = decisions.groups[g];
    observers.push_back(group.observer.without_fake_quantize().make(
        group.is_fixed() ? "" : fused.value(group.watch[0]).name));
    watched.insert(watched.end(), group.watch.begin(), group.watch.end());
    for (ValueId v : group.watch) observed[static_cast<size_t>(v)] = true;
  }
  for (ValueId v : compared_operands(fused))
    if (!observed[static_cast<size_t>(v)]) watched.push_back(v);
  return PreparedGraph(std::make_unique<PreparedGraph::Impl>(PreparedGraph::Impl{
      std::move(fused), std::move(decisions), options.backend, std::move(observers),
      std::move(watched), std::move(observed), std::move(program)}));
}

// -- convert --------------------------------------------------------------------------------------

namespace {

// The qparams that the observers chose, by group. Error naming every one that saw no data.
std::vector<ops::QType> observed_qtypes(const PreparedGraph& prepared, ConversionReport& report) {
  std::vector<ops::QType> qtypes;
  std::vector<std::string> missing;
  const auto& observers = prepared.observers();
  for (size_t g = 0; g < observers.size(); ++g) {
    if (!prepared.decisions().groups[g].is_fixed() && observers[g]->empty()) {
      missing.push_back(observers[g]->label());
      qtypes.push_back({});
      continue;
    }
    QParams q = observers[g]->calculate_qparams();
    report.warnings.insert(report.warnings.end(), q.warnings.begin(), q.warnings.end());
    qtypes.push_back({q.dtype, q.quantizer});
  }
  OCTET_CHECK(missing.empty(), not_calibrated,
              "convert_fx: {} of {} observers saw no data ({}): calibrate first, by calling "
              "forward() on sample inputs",
              missing.size(), observers.size(), fmt::join(missing, ", "));
  return qtypes;
}

}  // namespace

Graph convert_to_reference_fx(const PreparedGraph& prepared, ConversionReport* report) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  r = {};
  const GraphDecisions& decisions = prepared.decisions();
  ReferenceSource source{
      prepared.graph(), decisions, prepared.backend(), observed_qtypes(prepared, r),
      [&](ValueId v) { return observe_constant(prepared.graph(), decisions, v); }};
  const std::vector<int>& group = decisions.group;
  for (std::string& line : lost_ranges(prepared.graph(), prepared.ranges(), [&](ValueId v) {
         return group[v] < 0 ? std::nullopt
                             : std::optional(source.qtypes[static_cast<size_t>(group[v])]);
       }))
    r.warnings.push_back(std::move(line));
  return build_reference(source, r);
}

Graph convert_fx(const PreparedGraph& prepared, ConversionReport* report, bool strict) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  Graph reference = convert_to_reference_fx(prepared, &r);
  if (strict) require_nothing_left_float(r);
  return lower_reference(reference, prepared.graph(), prepared.decisions(), r);
}

}  // namespace octet::quant
