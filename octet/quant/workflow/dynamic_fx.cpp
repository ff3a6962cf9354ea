#include "octet/quant/workflow/dynamic_fx.h"

#include "octet/base/check_impl.h"
#include "octet/graph/fuse.h"
#include "octet/graph/merge_qdq.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/workflow/reference_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

namespace {

// The same codes two to a byte if those in use (quant_min..quant_max) are of 4 bits.
Tensor in_four_bits(const Tensor& codes, const QParams& q) {
  for (const auto& [wide, packed] :
       {std::pair{DType::qint8, DType::qint4x2}, std::pair{DType::quint8, DType::quint4x2}})
    if (codes.dtype() == wide && q.quant_min >= qmin(packed) && q.quant_max <= qmax(packed))
      return make_quantized(codes.int_repr(), q.quantizer, packed);
  return codes;
}

// The places of a recurrent layer's weights. Its operator takes codes as they are, and is dynamic
// then.
std::vector<size_t> recurrent_weights(const Node& node) {
  const ops::Op& op = ops::get(node.op);
  std::vector<size_t> places;
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (op.params()[i].name.starts_with("w_") && node.inputs[i] != graph::kNone)
      places.push_back(i);
  return places;
}

// Every node with a weight that is a float32 constant gets the operator of the same name with this
// suffix.
Graph quantize_weights(const Graph& source, const ObserverFactory& weight,
                       const std::string& suffix, const PrepareOptions& options,
                       ConversionReport* report, const char* who) {
  OCTET_CHECK(weight, invalid_argument, "{}: the qconfig has no observer for weights", who);
  Graph fused = graph::fuse_activations(source);
  std::vector<std::string> skipped = skipped_nodes(fused, options.skip);
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  r = {};
  graph::Rewriter rewriter(fused);
  std::map<ValueId, ValueId> quantized;  // weights that several nodes use are quantized once
  Graph out = rewriter.run([&](graph::Rewriter& rw, const Node& node) {
    const bool recurrent =
        suffix == "_dynamic" && (node.op == "lstm" || node.op == "gru" || node.op == "rnn");
    if (node.kind != NodeKind::call || (!recurrent && !ops::find(node.op + suffix))) return false;
    std::string label = node_name(fused, node),
                why = skipped[static_cast<size_t>(fused.value(node.outputs[0]).producer)];
    if (!why.empty()) why = fmt::format("skipped by '{}'", why);
    const std::vector<size_t> places = recurrent ? recurrent_weights(node) : std::vector<size_t>{1};
    for (size_t i : places)
      if (ValueId w = node.inputs[i];
          why.empty() && (!fused.is_constant(w) || fused.type(w).dtype != DType::float32))
        why = "its weight is not a float32 constant";
    r.entries.push_back({label, node.op, why.empty(), why});
    if (!why.empty()) return false;
    std::vector<ValueId> operands = rw.operands(node);
    for (size_t i : places) {
      ValueId w = node.inputs[i];
      auto [it, fresh] = quantized.emplace(w, graph::kNone);
      if (fresh) {
        auto observer =
            weight_observer(fused, w, weight.without_fake_quantize()).make(fused.value(w).name);
        observer->observe(fused.constant(w));
        QParams q = observer->calculate_qparams();
        for (const std::string& line : q.warnings)
          r.warnings.push_back(fmt::format("{}: {}", label, line));
        Tensor codes = quantize_to(fused.constant(w), q);
        if (node.op == "linear") codes = in_four_bits(codes, q);
        it->second = rw.out().add_constant(fused.value(w).name + ".quantized", codes);
      }
      operands[i] = it->second;
    }
    auto results = rw.out().add_calls(fused.value(node.outputs[0]).name,
                                      recurrent ? node.op : node.op + suffix, operands, node.attrs,
                                      std::nullopt, node.scope);
    for (size_t i = 0; i < results.size(); ++i) rw.map(node.outputs[i], results[i]);
    return true;
  });
  OCTET_CHECK(!quantized.empty(), invalid_argument,
              "{}: nothing in {} can be quantized so: it has no linear{} or convolution "
              "node with a constant float weight{}",
              who, source.name, suffix == "_dynamic" ? ", recurrent" : "",
              options.skip.empty() ? "" : " that is not skipped");
  return graph::remove_dead(out);
}

}  // namespace

Graph quantize_dynamic_fx(const Graph& graph, const QConfig& qconfig, const PrepareOptions& options,
                          ConversionReport* report) {
  return quantize_weights(graph, qconfig.weight, "_dynamic", options, report,
                          "quantize_dynamic_fx");
}

Graph quantize_weight_only_fx(const Graph& graph, const ObserverFactory& weight,
                              const PrepareOptions& options, ConversionReport* report) {
  return quantize_weights(graph, weight, "_weight_only", options, report,
                          "quantize_weight_only_fx");
}

}  // namespace octet::quant
