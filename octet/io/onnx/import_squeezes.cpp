// Recurrent layers of ONNX have a dimension of directions, which models squeeze away again: pairs
// of unsqueeze and squeeze go.
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {

using graph::Graph;
using graph::Node;
using graph::NodeKind;
using graph::Rewriter;

Graph cancel_squeezes(const Graph& g, const std::vector<bool>& named) {
  const auto is = [&](const Node& node, const char* op) {
    return node.kind == NodeKind::call && node.op == op && !node.attrs.any_operand();
  };
  // What each value is the same as.
  std::vector<ValueId> same(g.values().size());
  for (size_t i = 0; i < same.size(); ++i) same[i] = static_cast<ValueId>(i);
  std::vector<bool> output(g.values().size(), false);
  for (ValueId id : g.outputs()) output[id] = true;
  std::vector<std::string> taken(g.values().size());  // names that the sources take over
  for (const Node& node : g.nodes()) {
    if (!is(node, "squeeze")) continue;
    const Node& before = g.producer(same[node.inputs[0]]);
    if (!is(before, "unsqueeze")) continue;
    const auto axis = [](const Node& n, int64_t rank) {
      const int64_t d = n.attrs.get_int("dim");
      return d < 0 ? d + rank : d;
    };
    const int64_t rank = g.type(before.outputs[0]).dim();
    if (axis(node, rank) != axis(before, rank)) continue;
    const ValueId y = node.outputs[0], x = same[before.inputs[0]];
    // A name of the model's stays: the source takes it, or the pair stays.
    const bool takes = named[y] && !named[x] && taken[x].empty() &&
                       g.producer(x).kind == NodeKind::call && !output[x];
    if (output[y] && !takes) continue;
    same[y] = x;
    if (takes) taken[x] = g.value(y).name;
  }
  Rewriter rewriter(g);
  Graph made = rewriter.run([&](Rewriter& r, const Node& node) {
    if (node.outputs.size() == 1 && same[node.outputs[0]] != node.outputs[0]) {
      r.map(node.outputs[0], r(same[node.outputs[0]]));
      return true;
    }
    return false;
  });
  for (size_t id = 0; id < taken.size(); ++id)
    if (!taken[id].empty()) made.rename(rewriter(static_cast<ValueId>(id)), taken[id]);
  // States that nothing reads are called after the layer's result, whatever the model called them.
  const std::vector<int> uses = made.use_counts();
  std::vector<std::pair<ValueId, std::string>> states;
  for (const Node& node : made.nodes())
    for (size_t i = 1; i < node.outputs.size(); ++i)
      if (uses[node.outputs[i]] == 0 && (is(node, "lstm") || is(node, "gru") || is(node, "rnn")))
        states.emplace_back(node.outputs[i],
                            fmt::format("{}_{}", made.value(node.outputs[0]).name, i));
  for (const auto& [id, name] : states)
    if (!made.find(name)) made.rename(id, name);
  return made;
}

}  // namespace octet::io::onnx_impl
