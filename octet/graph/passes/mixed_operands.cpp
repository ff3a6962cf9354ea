#include "octet/graph/passes/mixed_operands.h"

#include <algorithm>

#include "octet/graph/passes/merge_qdq.h"

namespace octet::graph {
namespace {

bool is_byte_per_tensor(const TensorType& t) {
  return (t.dtype == DType::quint8 || t.dtype == DType::qint8) && !t.quantizer->is_per_channel();
}

bool is_call(const Node& node, const char* op) {
  return node.kind == NodeKind::call && node.op == op;
}

// The operand, 0 or 1, that is a constant of the other signedness; -1 if neither is.
int other_constant(const Graph& g, const Node& node) {
  if (!is_call(node, "add") && !is_call(node, "sub") && !is_call(node, "mul")) return -1;
  for (const int c : {1, 0}) {
    const ValueId constant = node.inputs[static_cast<size_t>(c)],
                  x = node.inputs[static_cast<size_t>(1 - c)];
    if (!g.is_constant(constant) || g.is_constant(x)) continue;
    const TensorType &of_x = g.type(x), &own = g.type(constant);
    if (is_byte_per_tensor(own) && is_byte_per_tensor(of_x) && own.dtype != of_x.dtype &&
        g.type(node.outputs[0]).dtype == of_x.dtype)
      return c;
  }
  return -1;
}

// An add whose operands are a dequantize and floats, and whose only user is a quantize.
struct FloatSum {
  const Node* add = nullptr;
  size_t codes = 0;  // which operand is the dequantize
};

// The sum that a quantize reads; no `add` if it reads something else.
FloatSum float_sum(const Graph& g, const Node& quantize) {
  if (!is_call(quantize, "quantize") || !is_byte_per_tensor(g.type(quantize.outputs[0]))) return {};
  const ValueId sum = quantize.inputs[0];
  const Node& add = g.producer(sum);
  if (!is_call(add, "add") || g.users(sum).size() != 1 || std::ranges::count(g.outputs(), sum) > 0)
    return {};
  const TensorType& type = g.type(quantize.outputs[0]);
  for (const size_t i : {0, 1}) {
    const Node& source = g.producer(add.inputs[i]);
    if (!is_call(source, "dequantize") || g.type(add.inputs[1 - i]).dtype != DType::float32)
      continue;
    const TensorType& codes = g.type(source.inputs[0]);
    if (is_byte_per_tensor(codes) && codes.dtype == type.dtype && codes.dims == type.dims)
      return {&add, i};
  }
  return {};
}

Tensor with_other_signedness(const Tensor& t) {
  const bool to_signed = t.dtype() == DType::quint8;
  const DType dtype = to_signed ? DType::qint8 : DType::quint8;
  const Quantizer& q = *t.quantizer();
  Tensor moved = Tensor::empty(
      t.shape(), dtype,
      Quantizer::per_tensor(q.scale(), q.zero_point() + (to_signed ? -128 : 128), dtype));
  const Tensor codes = t.contiguous();
  const auto* from = static_cast<const uint8_t*>(codes.raw_data());
  std::transform(from, from + t.numel(), static_cast<uint8_t*>(moved.raw_data()),
                 [](uint8_t code) { return static_cast<uint8_t>(code ^ 0x80); });
  return moved;
}

void take_other_signedness(Rewriter& r, const Node& node, size_t operand) {
  const Graph& g = r.source();
  const ValueId constant = node.inputs[operand], result = node.outputs[0];
  std::vector<ValueId> operands = r.operands(node);
  operands[operand] = r.out().add_constant(g.value(constant).name + "_codes",
                                           with_other_signedness(g.constant(constant)));
  r.map(result, r.out().add_call(g.value(result).name, node.op, operands, node.attrs,
                                 want_of(g, node), node.scope));
}

void merge_sum(Rewriter& r, const Node& quantize, const FloatSum& sum) {
  const Graph& g = r.source();
  std::vector<ValueId> operands = r.operands(*sum.add);
  operands[sum.codes] = r(g.producer(sum.add->inputs[sum.codes]).inputs[0]);
  r.map(quantize.outputs[0],
        r.out().add_call(g.value(quantize.outputs[0]).name, "add", operands, sum.add->attrs,
                         want_of(g, quantize), sum.add->scope));
}

}  // namespace

Graph settle_mixed_operands(const Graph& graph) {
  const auto is_mixed = [&](const Node& node) {
    return other_constant(graph, node) >= 0 || float_sum(graph, node).add;
  };
  if (std::ranges::none_of(graph.nodes(), is_mixed)) return graph;
  Rewriter rewriter(graph);
  return remove_dead(rewriter.run([](Rewriter& r, const Node& node) {
    if (const int c = other_constant(r.source(), node); c >= 0)
      take_other_signedness(r, node, static_cast<size_t>(c));
    else if (const FloatSum sum = float_sum(r.source(), node); sum.add)
      merge_sum(r, node, sum);
    else
      return false;
    return true;
  }));
}

}  // namespace octet::graph
