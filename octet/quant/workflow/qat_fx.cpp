#include "octet/quant/workflow/qat_fx.h"

#include "octet/base/check_impl.h"
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

QatGraph::QatGraph(Graph source, GraphDecisions decisions, BackendConfig backend)
    : GraphModule(std::move(source)),
      decisions_(std::move(decisions)),
      backend_(std::move(backend)) {
  const Graph& g = graph();
  watched_.assign(g.values().size(), false);
  by_quantized_.assign(g.values().size(), false);
  for (size_t i = 0; i < decisions_.groups.size(); ++i) {
    const GraphDecisions::Group& group = decisions_.groups[i];
    for (ValueId v : group.watch) watched_[static_cast<size_t>(v)] = true;
    const std::string label = group.is_fixed() ? "" : g.value(group.watch[0]).name;
    add_child(group_module(static_cast<int>(i)), group.observer.make_module(label));
  }
  for (size_t n = 0; n < g.nodes().size(); ++n)
    if (decisions_.is_static(static_cast<graph::NodeId>(n)))
      for (ValueId v : g.nodes()[n].outputs) by_quantized_[static_cast<size_t>(v)] = true;
  for (const auto& [constant, observer] : decisions_.constants) {
    std::string name = fmt::format("weight_fake_quant_{}", constant_modules_.size());
    add_child(name, observer.make_module(g.value(constant).name));
    constant_modules_[constant] = name;
  }
}

std::vector<Tensor> QatGraph::forward(std::vector<Tensor> inputs) {
  fake_.assign(graph().values().size(), Tensor());
  ++batches_;
  std::vector<Tensor> outputs = GraphModule::forward(std::move(inputs));
  for (size_t i = 0; i < outputs.size(); ++i) {  // a result that is codes leaves as their values
    ValueId v = graph().outputs()[i];
    if (by_quantized_[v] && decisions_.group[static_cast<size_t>(v)] >= 0)
      outputs[i] = fake_quantized(v, outputs[i]);
  }
  fake_.clear();
  return outputs;
}

Tensor QatGraph::fake_quantized(ValueId id, const Tensor& value) {
  Tensor& fake = fake_[static_cast<size_t>(id)];
  if (fake.defined()) return fake;
  const int group = decisions_.group[static_cast<size_t>(id)];
  if (watched_[static_cast<size_t>(id)] || decisions_.groups[static_cast<size_t>(group)].is_fixed())
    return fake = (*submodule(group_module(group)))(value);
  ops::QType q = group_qtype(group);
  return fake =
             ops::call("fake_quantize_per_tensor",
                       {value, Tensor::from<float>({static_cast<float>(q.quantizer->scale())}),
                        Tensor::from<int32_t>({static_cast<int32_t>(q.quantizer->zero_point())})},
                       {{"quant_min", qmin(q.dtype)}, {"quant_max", qmax(q.dtype)}});
}

Tensor QatGraph::operand(const Node& node, size_t i, const std::vector<Tensor>& values) {
  const ValueId v = node.inputs[i];
  const graph::NodeId id = graph().value(node.outputs[0]).producer;
  const bool quantized = decisions_.nodes[static_cast<size_t>(id)].mode.has_value();
  if (auto it = constant_modules_.find(v);
      it != constant_modules_.end() && quantized &&
      operand_role(graph(), node, i, backend_.find_op(node.op)) != OperandRole::parameter)
    return (*submodule(it->second))(values[static_cast<size_t>(v)]);
  // Quantized operators read codes; float ones too, where only codes are there.
  const size_t at = static_cast<size_t>(v);
  if (graph().is_constant(v) || decisions_.group[at] < 0 ||
      !(decisions_.is_static(id) || by_quantized_[at]))
    return values[at];
  return fake_quantized(v, values[at]);
}

QParams QatGraph::constant_qparams(ValueId constant) const {
  return qparams_of(*submodule(constant_modules_.at(constant)));
}

ops::QType QatGraph::group_qtype(int group) const {
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
  return prepare_qat_fx(source, QConfigMapping(qconfig), options);
}

std::shared_ptr<QatGraph> prepare_qat_fx(const Graph& source, const QConfigMapping& mapping,
                                         const PrepareOptions& options) {
  // what nothing uses would see no data
  Graph fused = graph::remove_dead(quantizable_form(source));
  GraphDecisions decisions = decide(fused, mapping, options.backend, {options.skip});
  require_something_quantized(fused, decisions, "prepare_qat_fx");
  return nn::make<QatGraph>(std::move(fused), std::move(decisions), options.backend);
}

Graph convert_to_reference_fx(const QatGraph& trained, ConversionReport* report) {
  OCTET_CHECK(trained.has_seen_data(), not_calibrated,
              "convert_fx: {} was not trained: call forward() on training data first",
              trained.graph().name);
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  r = {};
  Graph g = trained.to_graph();
  ReferenceSource source{g, trained.decisions(), trained.backend(), {}, [&](ValueId v) {
                           return trained.constant_qparams(v);
                         }};
  for (size_t i = 0; i < trained.decisions().groups.size(); ++i)
    source.qtypes.push_back(trained.group_qtype(static_cast<int>(i)));
  return build_reference(source, r);
}

Graph convert_fx(const QatGraph& trained, ConversionReport* report, bool strict) {
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  Graph reference = convert_to_reference_fx(trained, &r);
  if (strict) require_nothing_left_float(r);
  return lower_reference(reference, trained.graph(), trained.decisions(), r);
}

}  // namespace octet::quant
