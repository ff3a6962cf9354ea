#include "octet/quant/workflow/dynamic_fx.h"

#include "octet/base/check_impl.h"
#include "octet/quant/workflow/reference_impl.h"

namespace octet::quant {

using graph::Graph;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

namespace {

// One qconfig for every call. What has no weight stays float as it is, and is not reported.
Graph quantize_weights(const Graph& source, const QConfig& qconfig, const PrepareOptions& options,
                       ConversionReport* report, const char* who) {
  OCTET_CHECK(qconfig.weight, invalid_argument, "{}: the qconfig has no observer for weights", who);
  const Graph fused = quantizable_form(source);
  const GraphDecisions decisions = decide(fused, qconfig, options.backend, {options.skip});
  OCTET_CHECK(!decisions.constants.empty(), invalid_argument,
              "{}: nothing in {} can be quantized so: it has no linear, recurrent or convolution "
              "node with a constant float weight{}",
              who, source.name, options.skip.empty() ? "" : " that is not skipped");
  ConversionReport local;
  ConversionReport& r = report ? *report : local;
  r = {};
  Graph result = build_reference({fused,
                                  decisions,
                                  options.backend,
                                  {},
                                  [&](ValueId v) { return observe_constant(fused, decisions, v); }},
                                 r);
  std::erase_if(r.entries, [&](const ConversionReport::Entry& e) {
    const BackendPatternConfig* config = options.backend.find_op(e.op);
    return !config || (!config->quantized_op(QuantMode::dynamically) &&
                       !config->quantized_op(QuantMode::weight_only));
  });
  for (size_t n = 0; n < result.nodes().size(); ++n)
    result.node(static_cast<graph::NodeId>(n)).note.clear();
  return result;
}

}  // namespace

Graph quantize_dynamic_fx(const Graph& graph, const QConfig& qconfig, const PrepareOptions& options,
                          ConversionReport* report) {
  return quantize_weights(
      graph, {default_dynamic_qconfig().activation, qconfig.weight.without_fake_quantize()},
      options, report, "quantize_dynamic_fx");
}

Graph quantize_weight_only_fx(const Graph& graph, const ObserverFactory& weight,
                              const PrepareOptions& options, ConversionReport* report) {
  return quantize_weights(graph, {ObserverFactory(), weight.without_fake_quantize()}, options,
                          report, "quantize_weight_only_fx");
}

}  // namespace octet::quant
