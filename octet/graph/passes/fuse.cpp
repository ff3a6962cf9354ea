#include "octet/graph/passes/fuse.h"

namespace octet::graph {
namespace {

// "relu", "relu6", or "" if the node is no such activation.
std::string activation_of(const Node& node) {
  if (node.op == "relu" || node.op == "relu6") return node.op;
  if (node.op != "clamp" || node.attrs.get_double("min") != 0) return "";
  double max = node.attrs.get_double("max");
  if (max >= 3.4e38) return "relu";
  return max == 6 ? "relu6" : "";
}

bool takes_activation(const Node& node) {
  return node.kind == NodeKind::call && !ops::get(node.op).attrs().empty() &&
         node.attrs.has("activation") && node.attrs.get_string("activation") == "none";
}

}  // namespace

Graph fuse_activations(const Graph& graph) {
  auto uses = graph.use_counts();
  // The activation each node is to absorb, found first: the fused node is emitted in the first
  // one's place.
  std::vector<const Node*> absorbed(graph.nodes().size(), nullptr);
  std::vector<bool> gone(graph.nodes().size(), false);
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& node = graph.nodes()[i];
    if (node.kind != NodeKind::call || activation_of(node).empty()) continue;
    NodeId before = graph.value(node.inputs[0]).producer;
    if (!takes_activation(graph.node(before)) || uses[node.inputs[0]] != 1 || absorbed[before])
      continue;
    // Between quantized types the activation must not change qparams that only the outer result
    // has.
    if (graph.type(node.inputs[0]) != graph.type(node.outputs[0])) continue;
    absorbed[before] = &node;
    gone[i] = true;
  }
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter& r, const Node& node) {
    auto id = static_cast<size_t>(&node - graph.nodes().data());
    if (gone[id]) return true;
    const Node* act = absorbed[id];
    if (!act) return false;
    Attrs attrs = node.attrs;
    attrs.set("activation", activation_of(*act));
    ValueId y = r.out().add_call(graph.value(act->outputs[0]).name, node.op, r.operands(node),
                                 attrs, want_of(graph, node), node.scope);
    r.map(node.outputs[0], y);
    r.map(act->outputs[0], y);
    return true;
  });
}

Graph constants_second(const Graph& graph) {
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::call || (node.op != "add" && node.op != "mul") ||
        !graph.is_constant(node.inputs[0]) || graph.is_constant(node.inputs[1]))
      return false;
    r.map(node.outputs[0], r.out().add_call(graph.value(node.outputs[0]).name, node.op,
                                            {r(node.inputs[1]), r(node.inputs[0])}, node.attrs,
                                            want_of(graph, node), node.scope));
    return true;
  });
}

}  // namespace octet::graph
