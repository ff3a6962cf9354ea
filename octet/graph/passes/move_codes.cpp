#include "octet/graph/passes/move_codes.h"

#include <algorithm>

#include "octet/graph/passes/merge_qdq.h"

namespace octet::graph {
namespace {

bool is_dequantize(const Node& node) {
  return node.kind == NodeKind::call && node.op == "dequantize";
}

bool takes_one_tensor(const Node& node) {
  return node.kind == NodeKind::call && node.outputs.size() == 1 && !node.inputs.empty() &&
         node.inputs[0] != kNone;
}

}  // namespace

Graph move_codes(const Graph& graph) {
  Rewriter rewriter(graph);
  return remove_dead(rewriter.run([](Rewriter& r, const Node& node) {
    if (!takes_one_tensor(node) || !only_moves(node)) return false;
    Graph& out = r.out();
    std::vector<ValueId> operands = r.operands(node);
    const Node& source = out.producer(operands[0]);
    if (!is_dequantize(source)) return false;
    const TensorType codes = out.type(source.inputs[0]);
    if (!is_activation_dtype(codes.dtype) || codes.quantizer->is_per_channel()) return false;
    operands[0] = source.inputs[0];
    const std::string& name = r.source().value(node.outputs[0]).name;
    const ValueId moved = out.add_call(name + "_codes", node.op, operands, node.attrs,
                                       ops::QType{codes.dtype, codes.quantizer}, node.scope);
    r.map(node.outputs[0], out.add_call(name, "dequantize", {moved}, {}, std::nullopt, node.scope));
    return true;
  }));
}

}  // namespace octet::graph
