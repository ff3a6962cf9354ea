#include "octet/graph/explicit_weights.h"

namespace octet::graph {

Graph explicit_weights(const Graph& graph) {
  const std::string suffix = "_weight_only";
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::call || !node.op.ends_with(suffix)) return false;
    std::vector<ValueId> operands = r.operands(node);
    if (r.out().type(operands[1]).is_quantized())
      operands[1] = r.out().add_call(r.out().value(operands[1]).name + ".dequantized", "dequantize",
                                     {operands[1]}, {}, std::nullopt, node.scope);
    else
      operands[1] = r.out().add_call(r.out().value(operands[1]).name + ".float", "to",
                                     {operands[1]}, {{"dtype", std::string("float32")}});
    std::string name = graph.value(node.outputs[0]).name;
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
    r.map(node.outputs[0], r.out().add_call(name, node.op.substr(0, node.op.size() - suffix.size()),
                                            operands, node.attrs, std::nullopt, node.scope));
    return true;
  });
}

}  // namespace octet::graph
