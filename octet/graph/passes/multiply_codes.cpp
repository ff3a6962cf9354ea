#include "octet/graph/passes/multiply_codes.h"

#include "octet/base/check_impl.h"
#include "octet/graph/passes/merge_qdq.h"

namespace octet::graph {
namespace {

// The codes behind a dequantize, or kNone.
ValueId codes_of(const Graph& g, ValueId value) {
  if (value == kNone) return kNone;
  const Node& p = g.producer(value);
  return p.kind == NodeKind::call && p.op == "dequantize" ? p.inputs[0] : kNone;
}

bool on_codes(Rewriter& r, const Node& node) {
  const Graph& g = r.source();
  const ops::Op* form = ops::find_form(node.op, WeightForm::dynamic);
  if (!form) return false;
  const ValueId x = codes_of(g, node.inputs[0]), w = codes_of(g, node.inputs[1]);
  const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : kNone;
  const ValueId bias_codes = codes_of(g, bias);
  const bool constant_bias =
      bias == kNone || g.is_constant(bias) || (bias_codes != kNone && g.is_constant(bias_codes));
  if (x == kNone || g.is_constant(x) || w == kNone || !g.is_constant(w) || !constant_bias)
    return false;
  std::vector<std::optional<TensorType>> types{g.type(x), g.type(w)};
  if (bias != kNone) types.push_back(g.type(bias));
  const Attrs attrs = form->complete(node.attrs);
  try {
    form->infer(types, attrs, std::nullopt, "");
  } catch (const Error&) {
    return false;
  }
  std::vector<ValueId> operands{r(x), r(w)};
  if (bias_codes != kNone)
    operands.push_back(
        r.out().add_constant(g.value(bias).name, g.constant(bias_codes).dequantize()));
  else if (bias != kNone)
    operands.push_back(r(bias));
  r.map(node.outputs[0], r.out().add_call(g.value(node.outputs[0]).name, form->name(), operands,
                                          attrs, std::nullopt, node.scope));
  return true;
}

}  // namespace

Graph multiply_codes(const Graph& graph) {
  Rewriter rewriter(graph);
  return remove_dead(rewriter.run([](Rewriter& r, const Node& node) {
    return node.kind == NodeKind::call && on_codes(r, node);
  }));
}

}  // namespace octet::graph
