#include "octet/quant/workflow/quantize_fx.h"

#include <algorithm>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/graph/fuse.h"
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
  QConfig qconfig;
  Placement placement;
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
const Placement& PreparedGraph::placement() const { return impl_->placement; }
const QConfig& PreparedGraph::qconfig() const { return impl_->qconfig; }
const std::vector<ObserverPtr>& PreparedGraph::observers() const { return impl_->observers; }
int64_t PreparedGraph::batches() const { return impl_->batches; }
const SampleRanges& PreparedGraph::ranges() const { return impl_->ranges; }

std::vector<Tensor> PreparedGraph::forward(const std::vector<Tensor>& inputs) {
  Impl& p = *impl_;
  const int64_t batch = inputs.empty() || inputs[0].dim() == 0 ? 1 : inputs[0].size(0);
  auto results = p.program.run_watched(inputs, p.watched, [&](ValueId id, const Tensor& value) {
    if (p.observed[id]) p.observers[p.placement.group[id]]->observe(value);
    p.ranges.add(id, value, p.samples, batch);
  });
  ++p.batches;
  p.samples += batch;
  return results;
}

namespace {

// What can be known to be wrong with the observers before any data is seen.
void check_qconfig(const QConfig& qconfig) {
  OCTET_CHECK(qconfig.activation.chooses_qparams() && qconfig.weight.chooses_qparams(),
              invalid_argument,
              "prepare_fx: static quantization needs observers for activations and weights that "
              "choose qparams, got {}",
              to_string(qconfig));
  const ObserverOptions &a = qconfig.activation.options(), &w = qconfig.weight.options();
  OCTET_CHECK(!is_per_channel(a.qscheme), invalid_argument,
              "prepare_fx: activations have one scale per tensor; got {}: use a per-tensor "
              "observer for them",
              to_string(qconfig.activation));
  OCTET_CHECK(!is_float_qparams(w.qscheme), invalid_argument,
              "prepare_fx: float zero points are for embeddings; got {} for weights",
              to_string(qconfig.weight));
  for (const ObserverOptions* o : {&a, &w})
    OCTET_CHECK(o->dtype == DType::quint8 || o->dtype == DType::qint8, invalid_argument,
                "prepare_fx: {} are quantized to quint8 or qint8; got {}",
                o == &a ? "activations" : "weights",
                to_string(o == &a ? qconfig.activation : qconfig.weight));
  OCTET_CHECK(!is_per_channel(w.qscheme) || w.ch_axis == 0, invalid_argument,
              "prepare_fx: the output channels of weights are axis 0; got {}: use ch_axis=0",
              to_string(qconfig.weight));
}

// The qparams of a constant weight.
QParams observe_weight(const Graph& g, ValueId weight, const QConfig& qconfig) {
  auto observer = weight_observer(g, weight, qconfig.weight).make(g.value(weight).name);
  observer->observe(g.constant(weight));
  return observer->calculate_qparams();
}

}  // namespace

PreparedGraph prepare_fx(const Graph& source, const QConfig& qconfig,
                         const PrepareOptions& options) {
  check_qconfig(qconfig);
  for (const Node& node : source.nodes())
    for (ValueId v : node.outputs)
      OCTET_CHECK(!source.type(v).is_quantized(), invalid_argument,
                  "prepare_fx: {} is quantized already (%{}: {})", source.name,
                  source.value(v).name, to_string(source.type(v)));
  Graph fused = graph::fuse_activations(source);
  Placement placement = place(fused, options.skip, qconfig.activation.options().dtype);
  bool any = std::find(placement.quantized.begin(), placement.quantized.end(), true) !=
             placement.quantized.end();
  if (!any) {
    std::set<std::string> reasons;
    for (size_t i = 0; i < fused.nodes().size(); ++i)
      if (!placement.reason[i].empty())
        reasons.insert(
            fmt::format("{}: {}", node_name(fused, fused.nodes()[i]), placement.reason[i]));
    OCTET_FAIL(invalid_argument, "prepare_fx: nothing in {} can be quantized: {}", source.name,
               fmt::join(reasons, "; "));
  }
  // a NaN in a weight is better known now than after calibration
  for (size_t i = 0; i < fused.nodes().size(); ++i) {
    const Node& node = fused.nodes()[i];
    if (placement.quantized[i] && has_weight(node)) observe_weight(fused, node.inputs[1], qconfig);
  }
  runtime::Program program =
      runtime::compile(fused, {.engine = options.engine, .every_value = true});
  std::vector<ObserverPtr> observers;
  std::vector<ValueId> watched;
  std::vector<bool> observed(fused.values().size(), false);
  for (int g = 0; g < placement.groups; ++g) {
    const auto& values = placement.watch[g];
    if (values.empty()) {
      observers.push_back(nullptr);
      continue;
    }
    observers.push_back(qconfig.activation.make(fused.value(values[0]).name));
    watched.insert(watched.end(), values.begin(), values.end());
    for (ValueId v : values) observed[v] = true;
  }
  for (ValueId v : compared_operands(fused))
    if (!observed[v]) watched.push_back(v);
  return PreparedGraph(std::make_unique<PreparedGraph::Impl>(
      PreparedGraph::Impl{std::move(fused), qconfig, std::move(placement), std::move(observers),
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
    if (!observers[g]) {
      qtypes.push_back(*prepared.placement().fixed[g]);
    } else if (observers[g]->empty()) {
      missing.push_back(observers[g]->label());
      qtypes.push_back({});
    } else {
      QParams q = observers[g]->calculate_qparams();
      report.warnings.insert(report.warnings.end(), q.warnings.begin(), q.warnings.end());
      qtypes.push_back({q.dtype, q.quantizer});
    }
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
  Chosen chosen{prepared.graph(), prepared.placement(), observed_qtypes(prepared, r),
                [&](ValueId v) { return observe_weight(prepared.graph(), v, prepared.qconfig()); }};
  const std::vector<int>& group = prepared.placement().group;
  for (std::string& line : lost_ranges(prepared.graph(), prepared.ranges(), [&](ValueId v) {
         return group[v] < 0 ? std::nullopt
                             : std::optional(chosen.qtypes[static_cast<size_t>(group[v])]);
       }))
    r.warnings.push_back(std::move(line));
  return build_reference(chosen, r);
}

Graph convert_fx(const PreparedGraph& prepared, ConversionReport* report, bool strict) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  Graph reference = convert_to_reference_fx(prepared, &r);
  if (strict) require_nothing_left_float(r);
  return graph::merge_qdq(reference);
}

}  // namespace octet::quant
