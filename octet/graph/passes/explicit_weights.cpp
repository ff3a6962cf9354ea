#include "octet/graph/passes/explicit_weights.h"

namespace octet::graph {

Graph explicit_weights(const Graph& graph) {
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::call) return false;
    const ops::Traits& traits = ops::get(node.op).traits();
    if (traits.form != WeightForm::weight_only) return false;
    std::vector<ValueId> operands = r.operands(node);
    if (r.out().type(operands[1]).is_quantized())
      operands[1] = r.out().add_call(r.out().value(operands[1]).name + ".dequantized", "dequantize",
                                     {operands[1]}, {}, std::nullopt, node.scope);
    else
      operands[1] = r.out().add_call(r.out().value(operands[1]).name + ".float", "to",
                                     {operands[1]}, {{"dtype", std::string("float32")}});
    std::string name = graph.value(node.outputs[0]).name;
    if (name.ends_with(node.op))
      name.replace(name.size() - node.op.size(), name.npos, traits.layer);
    r.map(node.outputs[0],
          r.out().add_call(name, traits.layer, operands, node.attrs, std::nullopt, node.scope));
    return true;
  });
}

}  // namespace octet::graph
