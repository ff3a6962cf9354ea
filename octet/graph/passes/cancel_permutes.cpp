#include "octet/graph/passes/cancel_permutes.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "octet/graph/passes/merge_qdq.h"

namespace octet::graph {
namespace {

using Order = std::vector<int64_t>;  // dimension i of the result is dimension order[i] of the base

bool is_identity(const Order& order) {
  for (size_t i = 0; i < order.size(); ++i)
    if (order[i] != static_cast<int64_t>(i)) return false;
  return true;
}

Order inverse(const Order& order) {
  Order back(order.size());
  for (size_t i = 0; i < order.size(); ++i) back[order[i]] = static_cast<int64_t>(i);
  return back;
}

int64_t count_permutes(const Graph& g) {
  return std::count_if(g.nodes().begin(), g.nodes().end(),
                       [](const Node& node) { return node.op == "permute"; });
}

// Operators of which each result is computed from the elements in its place.
bool is_binary(const std::string& op) {
  static const std::set<std::string> known{"add", "sub", "mul", "div", "maximum", "minimum", "pow"};
  return known.count(op) != 0;
}
bool is_unary(const Node& node) {
  const ops::Op& op = ops::get(node.op);
  return node.inputs.size() == 1 &&
         (op.scalar() || node.op == "clamp" || node.op == "identity" || node.op == "to" ||
          node.op == "quantize" || node.op == "dequantize" || node.op == "requantize");
}
bool is_reduction(const std::string& op) {
  static const std::set<std::string> known{"mean", "sum", "amax", "amin", "prod"};
  return known.count(op) != 0;
}

class Sinker {
 public:
  explicit Sinker(const Graph& g) : g_(g), rewriter_(g), out_(rewriter_.out()) {}

  Graph run() {
    Graph result = rewriter_.run([&](Rewriter&, const Node& node) { return visit(node); });
    return remove_dead(result);
  }

 private:
  // A value that is `base` with its dimensions in another order, as long as nothing needs it so.
  struct Sunk {
    ValueId base;
    Order order;
  };

  const Sunk* sunk(ValueId v) const {
    auto it = sunk_.find(v);
    return it == sunk_.end() ? nullptr : &it->second;
  }

  // Writes the permutation of a value that is needed as it was.
  void materialize(ValueId v) {
    if (v == kNone || rewriter_.mapped(v)) return;
    const Sunk* s = sunk(v);
    if (!s) return;
    const std::string& name = g_.value(v).name;
    if (auto taken = out_.find(name)) out_.rename(*taken, free_name(name + ".base"));
    rewriter_.map(v, out_.add_call(name, "permute", {s->base}, {{"dims", s->order}}, std::nullopt,
                                   g_.producer(v).scope));
  }
  std::string free_name(const std::string& wanted) const {
    std::string name = wanted;
    for (int i = 1; out_.find(name); ++i) name = wanted + "_" + std::to_string(i);
    return name;
  }

  bool per_channel(ValueId v) const {
    const TensorType& t = g_.type(v);
    return t.quantizer && t.quantizer->is_per_channel();
  }

  // The operand as a neighbour of something in this order: itself, an equally sunk value's base, or
  // a constant whose dimensions can be put in that order.
  std::optional<ValueId> in_order(ValueId v, const Order& order) {
    if (const Sunk* s = sunk(v)) return s->order == order ? std::optional(s->base) : std::nullopt;
    if (!g_.is_constant(v) || per_channel(v)) return std::nullopt;
    const Tensor& value = g_.constant(v);
    if (value.numel() == 1 && value.dim() == 0) return rewriter_(v);
    if (value.dim() > static_cast<int64_t>(order.size())) return std::nullopt;
    Shape shape(order.size() - value.dim(), 1);
    shape.insert(shape.end(), value.shape().begin(), value.shape().end());
    return out_.add_constant(g_.value(v).name,
                             value.reshape(shape).permute(inverse(order)).contiguous());
  }

  void sink(const Node& node, std::vector<ValueId> operands, const Attrs& attrs, Order order) {
    const ValueId base = out_.add_call(g_.value(node.outputs[0]).name, node.op, std::move(operands),
                                       attrs, want_of(g_, node), node.scope);
    sunk_[node.outputs[0]] = {base, std::move(order)};
  }

  bool permute(const Node& node) {
    const ValueId x = node.inputs[0];
    if (per_channel(x)) return false;
    Order order = node.attrs.get_ints("dims");
    for (int64_t& d : order) d = ops::normalize_dim(d, g_.type(x).dim(), "permute");
    if (const Sunk* s = sunk(x)) {
      Order both = order;
      for (int64_t& d : both) d = s->order[d];
      if (is_identity(both)) {
        rewriter_.map(node.outputs[0], s->base);
        return true;
      }
      materialize(x);  // two that are no inverses stay as they are
    }
    sunk_[node.outputs[0]] = {rewriter_(x), order};
    return true;
  }

  bool elementwise(const Node& node) {
    const Sunk* first = nullptr;
    for (ValueId v : node.inputs)
      if (const Sunk* s = v == kNone ? nullptr : sunk(v); s && !first) first = s;
    const Order order = first->order;
    // What broadcasts must not have more dimensions than what is permuted.
    if (g_.type(node.outputs[0]).dim() != static_cast<int64_t>(order.size())) return false;
    std::vector<ValueId> operands;
    for (ValueId v : node.inputs) {
      const auto operand = v == kNone ? std::nullopt : in_order(v, order);
      if (!operand) return false;
      operands.push_back(*operand);
    }
    sink(node, std::move(operands), node.attrs, order);
    return true;
  }

  bool reduction(const Node& node) {
    const Sunk s = *sunk(node.inputs[0]);
    const auto rank = static_cast<int64_t>(s.order.size());
    std::vector<int64_t> dims = node.attrs.get_ints("dim");
    if (dims.empty()) return false;
    std::set<int64_t> reduced;
    for (int64_t& d : dims) {
      d = s.order[ops::normalize_dim(d, rank, node.op)];
      reduced.insert(d);
    }
    Attrs attrs = node.attrs;
    attrs.set("dim", dims);
    if (node.attrs.get_bool("keepdim")) {
      sink(node, {s.base}, attrs, s.order);
      return true;
    }
    Order left;  // of the dimensions that are left, counted among themselves
    for (int64_t d : s.order)
      if (!reduced.count(d))
        left.push_back(d - std::distance(reduced.begin(), reduced.lower_bound(d)));
    if (is_identity(left))
      rewriter_.map(node.outputs[0], out_.add_call(g_.value(node.outputs[0]).name, node.op,
                                                   {s.base}, attrs, want_of(g_, node), node.scope));
    else
      sink(node, {s.base}, attrs, left);
    return true;
  }

  bool cat(const Node& node) {
    const Sunk* first = sunk(node.inputs[0]);
    if (!first) return false;
    const Order order = first->order;
    std::vector<ValueId> operands;
    for (ValueId v : node.inputs) {
      const Sunk* s = sunk(v);
      if (!s || s->order != order) return false;
      operands.push_back(s->base);
    }
    Attrs attrs = node.attrs;
    attrs.set("dim", order[ops::normalize_dim(node.attrs.get_int("dim"),
                                              static_cast<int64_t>(order.size()), "cat")]);
    sink(node, std::move(operands), attrs, order);
    return true;
  }

  bool pad(const Node& node) {
    const Sunk s = *sunk(node.inputs[0]);
    const size_t rank = s.order.size();
    const std::vector<int64_t>& pads = node.attrs.get_ints("pads");
    std::vector<int64_t> moved(2 * rank);
    for (size_t i = 0; i < rank; ++i) {
      moved[s.order[i]] = pads[i];
      moved[s.order[i] + rank] = pads[i + rank];
    }
    Attrs attrs = node.attrs;
    attrs.set("pads", moved);
    sink(node, {s.base}, attrs, s.order);
    return true;
  }

  bool visit(const Node& node) {
    bool done = moved(node);
    if (&node != &g_.nodes().back()) return done;
    if (!done) rewriter_.copy(node);
    for (ValueId v : g_.outputs()) {
      materialize(v);
      keep_name(v);
    }
    return true;
  }

  // A result of the graph that has become another value, under its own name.
  void keep_name(ValueId v) {
    const std::string& name = g_.value(v).name;
    const ValueId now = rewriter_(v);
    if (out_.value(now).name == name) return;
    if (auto taken = out_.find(name)) out_.rename(*taken, free_name(name + ".base"));
    const bool is_result = std::any_of(g_.outputs().begin(), g_.outputs().end(), [&](ValueId o) {
      return o != v && rewriter_.mapped(o) && rewriter_(o) == now;
    });
    if (is_result || out_.producer(now).kind != NodeKind::call)
      rewriter_.map(v,
                    out_.add_call(name, "identity", {now}, {}, std::nullopt, g_.producer(v).scope));
    else
      out_.rename(now, name);
  }

  // Whether the node was dealt with; else its operands are as it needs them.
  bool moved(const Node& node) {
    if (node.kind == NodeKind::call && !node.stays_float && !node.attrs.any_operand() &&
        node.outputs.size() == 1 && !per_channel(node.outputs[0])) {
      if (node.op == "permute" && permute(node)) return true;
      const bool any = std::any_of(node.inputs.begin(), node.inputs.end(),
                                   [&](ValueId v) { return v != kNone && sunk(v); });
      if (any && (is_unary(node) || is_binary(node.op)) && elementwise(node)) return true;
      if (any && is_reduction(node.op) && reduction(node)) return true;
      if (any && node.op == "softmax") {
        const Sunk s = *sunk(node.inputs[0]);
        Attrs attrs = node.attrs;
        attrs.set("dim", s.order[ops::normalize_dim(node.attrs.get_int("dim"),
                                                    static_cast<int64_t>(s.order.size()), "")]);
        sink(node, {s.base}, attrs, s.order);
        return true;
      }
      if (any && node.op == "cat" && cat(node)) return true;
      if (any && node.op == "pad" && pad(node)) return true;
    }
    for (ValueId v : node.inputs) materialize(v);
    if (node.kind == NodeKind::call)
      for (ValueId v : node.outputs)
        if (auto taken = out_.find(g_.value(v).name))
          out_.rename(*taken, free_name(g_.value(v).name + ".base"));
    return false;
  }

  const Graph& g_;
  Rewriter rewriter_;
  Graph& out_;
  std::map<ValueId, Sunk> sunk_;
};

}  // namespace

Graph cancel_permutes(const Graph& graph) {
  if (count_permutes(graph) < 2) return graph;
  Graph fewer = Sinker(graph).run();
  return count_permutes(fewer) < count_permutes(graph) ? fewer : graph;
}

}  // namespace octet::graph
