#include "octet/graph/passes/merge_qdq.h"

#include <algorithm>

#include "octet/base/check_impl.h"

namespace octet::graph {
namespace {

bool is(const Node& node, const char* op) { return node.kind == NodeKind::call && node.op == op; }

class Merger {
 public:
  Merger(const Graph& g, const MergePredicate& allow) : g_(g), allow_(allow), rewriter_(g) {}

  Graph run() {
    // In the order of definition: a quantize is met after its operand's node, which by then may
    // have been merged into it.
    plan();
    return remove_dead(
        rewriter_.run([&](Rewriter& r, const Node& node) { return visit(r, node); }));
  }

 private:
  // The quantize node a call's result goes to, if all its uses are quantize nodes of equal qparams;
  // null otherwise.
  const Node* only_quantize(ValueId value) const {
    if (std::count(g_.outputs().begin(), g_.outputs().end(), value)) return nullptr;
    const Node* found = nullptr;
    for (NodeId user : g_.users(value)) {
      const Node& node = g_.node(user);
      if (!is(node, "quantize")) return nullptr;
      if (found && !same_qparams(g_.type(found->outputs[0]), g_.type(node.outputs[0])))
        return nullptr;
      if (!found) found = &node;
    }
    return found;
  }

  // The quantized value behind a dequantize, or kNone.
  ValueId codes_of(ValueId value) const {
    if (value == kNone) return kNone;
    const Node& p = g_.producer(value);
    return is(p, "dequantize") ? p.inputs[0] : kNone;
  }

  // Operands of the integer form; empty if the node cannot be merged.
  std::vector<ValueId> integer_operands(const Node& node) const {
    const ops::Op& op = ops::get(node.op);
    if (op.rule() == ops::QRule::float_only || node.op == "quantize" || node.op == "dequantize")
      return {};
    std::vector<ValueId> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      ValueId codes = codes_of(v);
      // A constant may be a bias, slopes or statistics; whether the operator takes it, fits() says.
      bool plain = v != kNone && (!is_floating(g_.type(v).dtype));  // an index or a mask
      if (v == kNone || codes != kNone)
        operands.push_back(codes);
      else if (g_.is_constant(v) || plain)
        operands.push_back(v);
      else
        return {};
    }
    // The first operand that is no mask, as where has one.
    auto first = std::find_if(operands.begin(), operands.end(), [&](ValueId v) {
      return v == kNone || g_.type(v).is_quantized() || is_floating(g_.type(v).dtype);
    });
    ValueId x = first == operands.end() ? kNone : *first;
    if (x == kNone || !g_.type(x).is_quantized() || g_.type(x).quantizer->is_per_channel())
      return {};
    return operands;
  }

  // Whether the operator takes these operands as codes: some do not where it takes their numbers
  // (per-channel weights along another axis than the output channels).
  bool fits(const Node& node, const std::vector<ValueId>& operands, const TensorType& want) const {
    std::vector<std::optional<TensorType>> types;
    for (ValueId v : operands)
      types.push_back(v == kNone ? std::nullopt : std::optional(g_.type(v)));
    try {
      ops::get(node.op).infer(types, node.attrs, ops::QType{want.dtype, want.quantizer}, "");
    } catch (const Error&) {
      return false;
    }
    return true;
  }

  void plan() {
    merged_.assign(g_.nodes().size(), {});
    absorbed_.assign(g_.nodes().size(), false);
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& node = g_.nodes()[i];
      if (splits_codes(node)) {
        for (ValueId part : node.outputs)
          for (NodeId user : g_.users(part))
            absorbed_[user] = absorbed_[user] || is(g_.node(user), "quantize");
        continue;
      }
      if (node.kind != NodeKind::call || node.outputs.size() != 1) continue;
      auto operands = integer_operands(node);
      if (operands.empty() || (allow_ && !allow_(g_, node))) continue;
      const Node* q = only_quantize(node.outputs[0]);
      if (!q || g_.type(q->outputs[0]).quantizer->is_per_channel() ||
          !fits(node, operands, g_.type(q->outputs[0])))
        continue;
      merged_[i] = {std::move(operands), q};
      for (NodeId user : g_.users(node.outputs[0])) absorbed_[user] = true;
    }
  }

  // A split of numbers that were codes of one scale, and some part of which becomes codes again.
  bool splits_codes(const Node& node) const {
    if (!is(node, "split") || (allow_ && !allow_(g_, node))) return false;
    ValueId codes = codes_of(node.inputs[0]);
    if (codes == kNone || g_.type(codes).quantizer->is_per_channel()) return false;
    for (ValueId part : node.outputs)
      for (NodeId user : g_.users(part))
        if (is(g_.node(user), "quantize") &&
            !g_.type(g_.node(user).outputs[0]).quantizer->is_per_channel())
          return true;
    return false;
  }

  // The parts are codes; who reads numbers gets them from a dequantize of its own.
  void split_codes(Rewriter& r, const Node& node) {
    const TensorType& from = g_.type(codes_of(node.inputs[0]));
    auto name_of = [&](ValueId part) {
      for (NodeId user : g_.users(part))
        if (is(g_.node(user), "quantize") && same_qparams(from, g_.type(g_.node(user).outputs[0])))
          return g_.value(g_.node(user).outputs[0]).name;
      return g_.value(part).name + ".codes";
    };
    auto parts = r.out().add_calls(name_of(node.outputs[0]), node.op, {r(codes_of(node.inputs[0]))},
                                   node.attrs, std::nullopt, node.scope);
    for (size_t i = 0; i < parts.size(); ++i) {
      ValueId part = node.outputs[i];
      if (i > 0 && !r.out().find(name_of(part))) r.out().rename(parts[i], name_of(part));
      r.map(part, r.out().add_call(g_.value(part).name, "dequantize", {parts[i]}));
      for (NodeId user : g_.users(part)) {
        if (!is(g_.node(user), "quantize")) continue;
        ValueId y = g_.node(user).outputs[0];
        const TensorType& to = g_.type(y);
        if (same_qparams(from, to))
          r.map(y, parts[i]);
        else if (to.quantizer->is_per_channel())
          r.map(y, r.out().add_call(g_.value(y).name, "quantize", {r(part)}, {},
                                    ops::QType{to.dtype, to.quantizer}));
        else
          r.map(y, r.out().add_call(g_.value(y).name, "requantize", {parts[i]}, {},
                                    ops::QType{to.dtype, to.quantizer}, node.scope));
      }
    }
  }

  bool visit(Rewriter& r, const Node& node) {
    auto id = static_cast<size_t>(&node - g_.nodes().data());
    if (absorbed_[id]) return true;  // mapped when its operand was merged
    if (splits_codes(node)) {
      split_codes(r, node);
      return true;
    }
    if (is(node, "quantize")) return fold_pair(r, node);
    if (is(node, "shape") && codes_of(node.inputs[0]) != kNone) {  // codes have the same sizes
      r.map(node.outputs[0],
            r.out().add_call(g_.value(node.outputs[0]).name, "shape", {r(codes_of(node.inputs[0]))},
                             node.attrs, std::nullopt, node.scope));
      return true;
    }
    const Merge& merge = merged_[id];
    if (!merge.quantize) return false;
    const TensorType& want = g_.type(merge.quantize->outputs[0]);
    const std::string& name = g_.value(merge.quantize->outputs[0]).name;
    std::vector<ValueId> operands;
    for (ValueId v : merge.operands) operands.push_back(r(v));
    ops::QType qtype{want.dtype, want.quantizer};
    ValueId y = kNone;
    const TensorType codes = r.out().type(operands[0]);
    if (only_moves(node) && !same_qparams(codes, want)) {
      // Nothing is lost by moving first; the requantization is then of what the graph asks for.
      y = r.out().add_call(name + ".codes", node.op, operands, node.attrs, std::nullopt,
                           node.scope);
      y = r.out().add_call(name, "requantize", {y}, {}, qtype, node.scope);
    } else {
      y = r.out().add_call(name, node.op, operands, node.attrs, qtype, node.scope);
    }
    for (NodeId user : g_.users(node.outputs[0])) r.map(g_.node(user).outputs[0], y);
    return true;
  }

  bool fold_pair(Rewriter& r, const Node& node) {
    ValueId codes = codes_of(node.inputs[0]);
    if (codes == kNone) return false;
    const TensorType &from = g_.type(codes), &to = g_.type(node.outputs[0]);
    if (same_qparams(from, to)) {
      r.map(node.outputs[0], r(codes));
      return true;
    }
    if (from.quantizer->is_per_channel() || to.quantizer->is_per_channel()) return false;
    r.map(node.outputs[0],
          r.out().add_call(g_.value(node.outputs[0]).name, "requantize", {r(codes)}, {},
                           ops::QType{to.dtype, to.quantizer}, node.scope));
    return true;
  }

  struct Merge {
    std::vector<ValueId> operands;
    const Node* quantize = nullptr;
  };
  const Graph& g_;
  const MergePredicate& allow_;
  Rewriter rewriter_;
  std::vector<Merge> merged_;
  std::vector<bool> absorbed_;
};

}  // namespace

bool only_moves(const Node& node) {
  const ops::Op& op = ops::get(node.op);
  if (op.rule() == ops::QRule::same && !op.variadic_outputs() &&
      (op.traits().moves || op.traits().selects))
    return true;
  return (node.op == "pad" && !node.attrs.operand("value") &&
          node.attrs.get_double("value") == 0) ||
         (node.op == "interpolate" && node.attrs.get_string("mode") == "nearest" &&
          node.attrs.get_string("coordinates") != "tf_crop_and_resize");
}

Graph merge_qdq(const Graph& graph, const MergePredicate& allow) {
  return Merger(graph, allow).run();
}

Graph remove_dead(const Graph& graph) {
  std::vector<bool> live(graph.values().size(), false);
  for (ValueId id : graph.outputs()) live[id] = true;
  for (size_t i = graph.nodes().size(); i-- > 0;) {
    const Node& node = graph.nodes()[i];
    bool needed = node.kind == NodeKind::input;
    for (ValueId id : node.outputs) needed |= live[id];
    if (!needed) continue;
    for (ValueId id : node.outputs) live[id] = true;
    for (ValueId id : node.inputs)
      if (id != kNone) live[id] = true;
  }
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter&, const Node& node) { return !live[node.outputs[0]]; });
}

}  // namespace octet::graph
