#include <algorithm>
#include <cmath>
#include <map>

#include "octet/debug/compare_impl.h"

namespace octet::debug::detail {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

bool is_conversion(const Node& node) {
  return node.kind == NodeKind::call &&
         (node.op == "quantize" || node.op == "dequantize" || node.op == "requantize");
}

std::optional<size_t> weight_operand(const Graph& g, const Node& node) {
  if (node.kind != NodeKind::call) return std::nullopt;
  const ops::Op* op = ops::find(node.op);
  if (!op) return std::nullopt;
  if (auto i = op->param_index("weight"); i && *i < node.inputs.size()) {
    const ValueId w = node.inputs[*i];
    if (w != kNone && g.is_constant(w) && g.constant(w).dim() >= 2) return i;
    return std::nullopt;
  }
  if (node.op == "matmul" && node.inputs.size() == 2 && g.is_constant(node.inputs[1]) &&
      g.constant(node.inputs[1]).dim() == 2)
    return size_t{1};
  return std::nullopt;
}

int64_t weight_axis(const Node& node, const Tensor& weight) {
  if (node.op == "matmul") return 1;
  const ops::Op* op = ops::find(node.op);
  const bool transposed = op && op->traits().transposed;
  // A depthwise one has all its output channels along the first dimension.
  return transposed && weight.dim() > 1 && weight.size(1) > 1 ? 1 : 0;
}

int64_t channel_axis(const Node& node, int64_t dims) {
  if (node.op.starts_with("linear") || node.op == "matmul" || dims < 3) return dims - 1;
  return dims >= 4 || node.op.starts_with("conv") ? 1 : dims - 1;
}

namespace {

// The float layer that an operator with a quantized weight computes, or its own name.
std::string layer_of(const std::string& op) {
  const ops::Op* found = ops::find(op);
  return found && found->traits().layer ? found->traits().layer : op;
}

bool same_rank(const Graph& f, ValueId a, const Graph& q, ValueId b) {
  const TensorType &x = f.type(a), &y = q.type(b);
  if (x.dim() != y.dim() || x.dtype != DType::float32) return false;
  if (!y.is_quantized() && !is_floating(y.dtype)) return false;
  for (size_t d = 0; d < x.dims.size(); ++d)
    if (x.dims[d].known() && y.dims[d].known() && x.dims[d].size() != y.dims[d].size())
      return false;
  return true;
}

class Matcher {
 public:
  Matcher(const Graph& f, const Graph& q) : f_(f), q_(q) {
    m_.of.assign(q.values().size(), kNone);
    m_.floats.assign(f.values().size(), kNone);
    m_.codes.assign(f.values().size(), kNone);
    m_.node.assign(f.nodes().size(), -1);
    m_.bias_apart.assign(f.nodes().size(), false);
    for (size_t n = 0; n < f.nodes().size(); ++n)
      if (const Node& node = f.nodes()[n]; node.kind == NodeKind::call && !node.scope.empty())
        by_scope_.emplace(node.scope, static_cast<NodeId>(n));
  }

  Match run() {
    for (size_t i = 0; i < std::min(f_.inputs().size(), q_.inputs().size()); ++i)
      put(q_.inputs()[i], f_.inputs()[i]);
    for (size_t n = 0; n < q_.nodes().size(); ++n) {
      const Node& node = q_.nodes()[n];
      if (node.kind != NodeKind::call) continue;
      if (is_conversion(node)) {
        ValueId v = m_.of[node.inputs[0]];
        if (v == kNone) v = by_name(node.outputs[0]);
        if (v != kNone) put(node.outputs[0], v);
        continue;
      }
      if (is_bias(node)) continue;
      if (!match_by_name(static_cast<NodeId>(n))) match_by_place(static_cast<NodeId>(n));
    }
    return m_;
  }

 private:
  void put(ValueId of_q, ValueId of_f) {
    m_.of[of_q] = of_f;
    ValueId& place = (q_.type(of_q).is_quantized() ? m_.codes : m_.floats)[of_f];
    if (place == kNone) place = of_q;
  }

  ValueId by_name(ValueId of_q) const {
    std::string name = q_.value(of_q).name;
    for (const char* ending : {".quantized", ".dequantized", ".requantized"})
      if (name.ends_with(ending)) name.resize(name.size() - std::string(ending).size());
    const auto id = f_.find(name);
    if (!id || f_.producer(*id).kind != NodeKind::call || !same_rank(f_, *id, q_, of_q))
      return kNone;
    return *id;
  }

  // Whether the call adds the bias that is an operand of the float layer; then its result is what
  // stands for that layer's, and what it was added to stands for nothing.
  bool is_bias(const Node& node) {
    if (node.op != "add" || node.inputs.size() != 2) return false;
    const bool first = q_.is_constant(node.inputs[0]);
    if (first == q_.is_constant(node.inputs[1])) return false;
    const ValueId x = m_.of[node.inputs[first ? 1 : 0]];
    if (x == kNone || !same_rank(f_, x, q_, node.outputs[0])) return false;
    const NodeId n = f_.value(x).producer;
    const auto bias = [](const Graph& g, const Node& layer) {
      const ops::Op* op = layer.kind == NodeKind::call ? ops::find(layer.op) : nullptr;
      const auto i = op ? op->param_index("bias") : std::nullopt;
      return i && *i < layer.inputs.size() && layer.inputs[*i] != kNone &&
             g.is_constant(layer.inputs[*i]);
    };
    if (m_.node[n] < 0 || m_.bias_apart[n] || !bias(f_, f_.node(n)) ||
        bias(q_, q_.node(m_.node[n])))
      return false;
    for (ValueId& v : m_.of)
      if (v == x) v = kNone;
    m_.floats[x] = m_.codes[x] = kNone;
    m_.bias_apart[n] = true;
    put(node.outputs[0], x);
    return true;
  }

  bool is_taken(NodeId n) const { return m_.node[n] >= 0; }
  void take(NodeId of_f, NodeId of_q) {
    m_.node[of_f] = of_q;
    const Node &x = f_.node(of_f), &y = q_.node(of_q);
    for (size_t i = 0; i < std::min(x.outputs.size(), y.outputs.size()); ++i)
      if (same_rank(f_, x.outputs[i], q_, y.outputs[i])) put(y.outputs[i], x.outputs[i]);
  }

  // Names tell, where the operator is the same too.
  bool match_by_name(NodeId n) {
    const Node& node = q_.node(n);
    NodeId found = -1;
    if (ValueId v = by_name(node.outputs[0]); v != kNone) found = f_.value(v).producer;
    if (found < 0 || is_taken(found) || f_.node(found).op != layer_of(node.op)) {
      const auto scope = by_scope_.find(node.scope);
      if (scope == by_scope_.end()) return false;
      found = scope->second;
    }
    if (is_taken(found) || f_.node(found).op != layer_of(node.op) ||
        !same_rank(f_, f_.node(found).outputs[0], q_, node.outputs[0]) || !reads_the_same(found, n))
      return false;
    take(found, n);
    return true;
  }

  // No operand that is known is another's.
  bool reads_the_same(NodeId of_f, NodeId of_q) const {
    const std::vector<ValueId> x = data(f_, f_.node(of_f)), y = data(q_, q_.node(of_q));
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (m_.of[y[i]] != kNone && m_.of[y[i]] != x[i] && !cut_to(m_.of[y[i]], x[i])) return false;
    return true;
  }

  static std::vector<ValueId> data(const Graph& g, const Node& node) {
    std::vector<ValueId> ids;
    for (ValueId v : node.inputs)
      if (v != kNone && !g.is_constant(v)) ids.push_back(v);
    return ids;
  }

  // Whether `to` is `from` cut to a range (an activation that codes with that range make needless).
  bool cut_to(ValueId from, ValueId to) const {
    const Node& node = f_.producer(to);
    const ops::Op* op = node.kind == NodeKind::call ? ops::find(node.op) : nullptr;
    return op && op->traits().narrows && node.inputs[0] == from;
  }

  // The same operator on the same operands; of several, the one with the nearest weight.
  void match_by_place(NodeId n) {
    const Node& node = q_.node(n);
    const std::vector<ValueId> operands = data(q_, node);
    if (operands.empty() || node.outputs.empty()) return;
    for (ValueId v : operands)
      if (m_.of[v] == kNone) return match_by_weight(n);
    NodeId best = -1;
    double best_noise = INFINITY;
    for (size_t c = 0; c < f_.nodes().size(); ++c) {
      const Node& other = f_.nodes()[c];
      if (other.kind != NodeKind::call || is_taken(static_cast<NodeId>(c)) ||
          other.op != layer_of(node.op))
        continue;
      const std::vector<ValueId> theirs = data(f_, other);
      if (theirs.size() != operands.size()) continue;
      bool same = same_rank(f_, other.outputs[0], q_, node.outputs[0]);
      for (size_t i = 0; same && i < theirs.size(); ++i)
        same = m_.of[operands[i]] == theirs[i] || cut_to(m_.of[operands[i]], theirs[i]);
      if (!same) continue;
      const double noise = weight_noise(other, node);
      if (noise < best_noise || best < 0) best = static_cast<NodeId>(c), best_noise = noise;
    }
    if (best < 0) return;
    const std::vector<ValueId> theirs = data(f_, f_.node(best));
    for (size_t i = 0; i < theirs.size(); ++i)
      if (m_.of[operands[i]] != theirs[i]) put(operands[i], theirs[i]);
    take(best, n);
  }

  // Where it is not known what a layer reads, its weight tells which it is.
  void match_by_weight(NodeId n) {
    constexpr double kAlike = 15;  // dB
    const Node& node = q_.node(n);
    const auto j = weight_operand(q_, node);
    if (!j) return;
    NodeId best = -1;
    double best_db = kAlike;
    for (size_t c = 0; c < f_.nodes().size(); ++c) {
      const Node& other = f_.nodes()[c];
      const auto i = weight_operand(f_, other);
      if (!i || is_taken(static_cast<NodeId>(c)) || other.op != layer_of(node.op) ||
          !same_rank(f_, other.outputs[0], q_, node.outputs[0]))
        continue;
      const Tensor& w = f_.constant(other.inputs[*i]);
      if (w.shape() != q_.constant(node.inputs[*j]).shape()) continue;
      PairSums sums;
      add_pair(sums, w.dequantize(), q_.constant(node.inputs[*j]), -1, 1);
      if (sums.sqnr() > best_db) best = static_cast<NodeId>(c), best_db = sums.sqnr();
    }
    if (best < 0) return;
    const std::vector<ValueId> theirs = data(f_, f_.node(best)), ours = data(q_, node);
    for (size_t i = 0; i < std::min(theirs.size(), ours.size()); ++i)
      if (m_.of[ours[i]] == kNone && same_rank(f_, theirs[i], q_, ours[i])) put(ours[i], theirs[i]);
    take(best, n);
  }

  double weight_noise(const Node& a, const Node& b) const {
    const auto i = weight_operand(f_, a), j = weight_operand(q_, b);
    if (!i || !j) return 0;
    const Tensor &x = f_.constant(a.inputs[*i]), &y = q_.constant(b.inputs[*j]);
    if (x.shape() != y.shape()) return INFINITY;
    PairSums sums;
    add_pair(sums, x.dequantize(), y, -1, 1);
    return sums.noise();
  }

  const Graph &f_, &q_;
  Match m_;
  std::map<std::string, NodeId> by_scope_;
};

}  // namespace

Match match(const Graph& f, const Graph& q) { return Matcher(f, q).run(); }

}  // namespace octet::debug::detail
