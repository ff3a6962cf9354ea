#include "octet/quant/workflow/qat_fx.h"

#include "octet/base/check_impl.h"
#include "octet/graph/fuse.h"
#include "octet/graph/merge_qdq.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/reference_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

namespace {
std::string group_module(int group) { return fmt::format("activation_post_process_{}", group); }
}  // namespace

QatGraph::QatGraph(Graph source, Placement placement, const QConfig& qconfig)
    : GraphModule(std::move(source)), placement_(std::move(placement)) {
  const Graph& g = graph();
  watched_.assign(g.values().size(), false);
  by_quantized_.assign(g.values().size(), false);
  for (int i = 0; i < placement_.groups; ++i) {
    if (placement_.watch[i].empty()) continue;  // fixed qparams
    for (ValueId v : placement_.watch[i]) watched_[v] = true;
    add_child(group_module(i),
              qconfig.activation.make_module(g.value(placement_.watch[i][0]).name));
  }
  for (size_t n = 0; n < g.nodes().size(); ++n) {
    const Node& node = g.nodes()[n];
    if (!placement_.quantized[n] || node.kind != NodeKind::call) continue;
    for (ValueId v : node.outputs) by_quantized_[v] = true;
    if (!has_weight(node) || weight_modules_.count(node.inputs[1])) continue;
    ValueId w = node.inputs[1];
    std::string name = fmt::format("weight_fake_quant_{}", weight_modules_.size());
    add_child(name, weight_observer(g, w, qconfig.weight).make_module(g.value(w).name));
    weight_modules_[w] = name;
  }
}

std::vector<Tensor> QatGraph::forward(std::vector<Tensor> inputs) {
  fake_.assign(graph().values().size(), Tensor());
  ++batches_;
  std::vector<Tensor> outputs = GraphModule::forward(std::move(inputs));
  for (size_t i = 0; i < outputs.size(); ++i) {  // a result that is codes leaves as their values
    ValueId v = graph().outputs()[i];
    if (by_quantized_[v] && placement_.group[v] >= 0) outputs[i] = fake_quantized(v, outputs[i]);
  }
  fake_.clear();
  return outputs;
}

Tensor QatGraph::fake_quantized(ValueId id, const Tensor& value) {
  Tensor& fake = fake_[id];
  if (fake.defined()) return fake;
  int group = placement_.group[id];
  if (watched_[id]) return fake = (*submodule(group_module(group)))(value);
  ops::QType q = group_qtype(group);
  return fake =
             ops::call("fake_quantize_per_tensor",
                       {value, Tensor::from<float>({static_cast<float>(q.quantizer->scale())}),
                        Tensor::from<int32_t>({static_cast<int32_t>(q.quantizer->zero_point())})},
                       {{"quant_min", qmin(q.dtype)}, {"quant_max", qmax(q.dtype)}});
}

Tensor QatGraph::operand(const Node& node, size_t i, const std::vector<Tensor>& values) {
  ValueId v = node.inputs[i];
  bool quantized =
      placement_.quantized[static_cast<size_t>(graph().value(node.outputs[0]).producer)];
  if (auto it = weight_modules_.find(v); it != weight_modules_.end() && quantized && i == 1)
    return (*submodule(it->second))(values[v]);
  // Quantized operators read codes; float ones too, where only codes are there.
  if (graph().is_constant(v) || placement_.group[v] < 0 || !(quantized || by_quantized_[v]))
    return values[v];
  return fake_quantized(v, values[v]);
}

QParams QatGraph::weight_qparams(ValueId weight) const {
  return qparams_of(*submodule(weight_modules_.at(weight)));
}

ops::QType QatGraph::group_qtype(int group) const {
  if (placement_.watch[group].empty()) return *placement_.fixed[group];
  QParams q = qparams_of(*submodule(group_module(group)));
  return {q.dtype, q.quantizer};
}

std::shared_ptr<QatGraph> prepare_qat_fx(const Graph& source, const QConfig& qconfig,
                                         const PrepareOptions& options) {
  OCTET_CHECK(!qconfig.activation.fake_quantize_name().empty() &&
                  !qconfig.weight.fake_quantize_name().empty(),
              invalid_argument,
              "prepare_qat_fx: the qconfig must fake-quantize activations and weights, got {}: use "
              "get_default_qat_qconfig()",
              to_string(qconfig));
  // what nothing uses would see no data
  Graph fused = graph::remove_dead(graph::fuse_activations(source));
  Placement placement = place(fused, options.skip, qconfig.activation.options().dtype);
  OCTET_CHECK(std::find(placement.quantized.begin(), placement.quantized.end(), true) !=
                  placement.quantized.end(),
              invalid_argument, "prepare_qat_fx: nothing in {} can be quantized", source.name);
  return nn::make<QatGraph>(std::move(fused), std::move(placement), qconfig);
}

Graph convert_to_reference_fx(const QatGraph& trained, ConversionReport* report) {
  OCTET_CHECK(trained.has_seen_data(), not_calibrated,
              "convert_fx: {} was not trained: call forward() on training data first",
              trained.graph().name);
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  r = {};
  Graph g = trained.to_graph();
  Chosen chosen{g, trained.placement(), {}, [&](ValueId v) { return trained.weight_qparams(v); }};
  for (int i = 0; i < trained.placement().groups; ++i)
    chosen.qtypes.push_back(trained.group_qtype(i));
  return build_reference(chosen, r);
}

Graph convert_fx(const QatGraph& trained, ConversionReport* report, bool strict) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  Graph reference = convert_to_reference_fx(trained, &r);
  if (strict) require_nothing_left_float(r);
  return graph::merge_qdq(reference);
}

}  // namespace octet::quant
