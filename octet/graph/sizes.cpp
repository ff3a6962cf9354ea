#include <algorithm>

#include "octet/graph/sizes_impl.h"
#include "octet/ops/symbolic_impl.h"

namespace octet::graph {
namespace {

using Entries = std::vector<Dim>;
using Known = std::optional<Entries>;

constexpr int64_t kMostEntries = 64;
constexpr int kMostSteps = 100;  // from a value back to a shape

bool is_number(const Dim& d) { return d.name().empty(); }

Known entries_of(const Graph& g, ValueId id, int steps);

// Element by element; a list of one goes with each element of the other.
template <typename Fn>
Known each(const Known& a, const Known& b, Fn fn) {
  if (!a || !b || a->empty() || b->empty()) return std::nullopt;
  const size_t n = std::max(a->size(), b->size());
  if ((a->size() != n && a->size() != 1) || (b->size() != n && b->size() != 1)) return std::nullopt;
  Entries result;
  for (size_t i = 0; i < n; ++i) {
    const Dim &x = (*a)[a->size() == 1 ? 0 : i], &y = (*b)[b->size() == 1 ? 0 : i];
    std::optional<Dim> d;
    if (x != ops::unknown() && y != ops::unknown()) d = fn(x, y);
    result.push_back(d.value_or(ops::unknown()));
  }
  return result;
}

std::optional<Dim> product(const Dim& a, const Dim& b) {
  if (!is_number(a) || !is_number(b)) {
    const bool negative = (is_number(a) && a.size() < 0) || (is_number(b) && b.size() < 0);
    return negative ? std::nullopt : std::optional(multiply(a, b));
  }
  int64_t r = 0;
  return __builtin_mul_overflow(a.size(), b.size(), &r) ? std::nullopt : std::optional(Dim(r));
}

std::optional<Dim> sum(const Dim& a, const Dim& b, bool negate) {
  if (is_number(b)) {
    int64_t r = 0;
    if (b.size() == INT64_MIN) return std::nullopt;
    const int64_t n = negate ? -b.size() : b.size();
    if (!is_number(a)) return ops::plus(a, n);
    return __builtin_add_overflow(a.size(), n, &r) ? std::nullopt : std::optional(Dim(r));
  }
  if (negate) return ops::minus(a, b);
  return is_number(a) ? ops::plus(b, a.size()) : ops::plus(a, b);
}

std::optional<Dim> quotient(const Dim& a, const Dim& b) {
  if (is_number(b) && b.size() <= 0) return std::nullopt;
  if (is_number(a) && (a.size() < 0 || !is_number(b))) return std::nullopt;
  return ops::divided(a, b);
}

Known selected(const Known& data, const Known& index) {
  if (!data || !index) return std::nullopt;
  const auto n = static_cast<int64_t>(data->size());
  Entries result;
  for (const Dim& d : *index) {
    const int64_t i = d.size() < 0 ? d.size() + n : d.size();
    if (!is_number(d) || i < 0 || i >= n) return std::nullopt;
    result.push_back((*data)[i]);
  }
  return result;
}

Known shape_entries(const Graph& g, const Node& node) {
  const std::vector<Dim>& dims = g.type(node.inputs[0]).dims;
  const ops::DimRange range = ops::dim_range(node.attrs.get_int("start"), node.attrs.get_int("end"),
                                             static_cast<int64_t>(dims.size()));
  return Entries(dims.begin() + range.begin, dims.begin() + range.end);
}

Known computed(const Graph& g, const Node& node, int steps) {
  const auto operand = [&](size_t i) {
    return i < node.inputs.size() && node.inputs[i] != kNone
               ? entries_of(g, node.inputs[i], steps + 1)
               : std::nullopt;
  };
  const std::string& op = node.op;
  if (op == "shape") return shape_entries(g, node);
  if (op == "add")
    return each(operand(0), operand(1), [](auto& a, auto& b) { return sum(a, b, false); });
  if (op == "sub")
    return each(operand(0), operand(1), [](auto& a, auto& b) { return sum(a, b, true); });
  if (op == "mul") return each(operand(0), operand(1), product);
  if (op == "div") return each(operand(0), operand(1), quotient);
  if (op == "squeeze" || op == "unsqueeze" || op == "identity" || op == "to") return operand(0);
  if (op == "index_select") return selected(operand(0), operand(1));
  if (op == "cat") {
    Entries all;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      Known part = operand(i);
      const TensorType& t = g.type(node.inputs[i]);
      if (!part && (!t.is_static() || numel(t.shape()) > kMostEntries)) return std::nullopt;
      if (!part) part = Entries(static_cast<size_t>(numel(t.shape())), ops::unknown());
      all.insert(all.end(), part->begin(), part->end());
    }
    return all;
  }
  return std::nullopt;
}

Known entries_of(const Graph& g, ValueId id, int steps) {
  const TensorType& t = g.type(id);
  if (steps > kMostSteps || t.dtype != DType::int64 || t.dim() > 1) return std::nullopt;
  const Node& node = g.producer(id);
  if (node.kind == NodeKind::constant) {
    if (node.value.numel() > kMostEntries) return std::nullopt;
    const std::vector<int64_t> values = node.value.to_vector<int64_t>();
    return Entries(values.begin(), values.end());
  }
  if (node.kind != NodeKind::call || node.attrs.any_operand()) return std::nullopt;
  Known result = computed(g, node, steps);
  if (result && t.is_static() && static_cast<int64_t>(result->size()) != numel(t.shape()))
    return std::nullopt;
  return result;
}

}  // namespace

std::optional<std::vector<Dim>> sizes_of(const Graph& graph, ValueId id) {
  return id == kNone ? std::nullopt : entries_of(graph, id, 0);
}

ops::OperandSizes sizes_of_operands(const Graph& graph, const std::vector<ValueId>& inputs,
                                    const Attrs& attrs) {
  ops::OperandSizes sizes(inputs.size());
  for (const auto& [name, value] : attrs)
    if (const auto i = attrs.operand(name); i && *i < inputs.size())
      sizes[*i] = sizes_of(graph, inputs[*i]);
  return sizes;
}

}  // namespace octet::graph
