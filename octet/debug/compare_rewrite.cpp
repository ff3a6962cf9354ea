#include <algorithm>
#include <cmath>
#include <map>

#include "octet/base/error.h"
#include "octet/debug/compare_impl.h"
#include "octet/graph/passes/merge_qdq.h"

namespace octet::debug::detail {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

Tensor per_channel_weight(const Tensor& weight, int64_t axis, DType dtype) {
  PairSums sums;
  add_pair(sums, weight, weight, axis, 1);
  std::vector<double> scales;
  std::vector<int64_t> zeros(sums.xx.size(), 0);
  const auto most = static_cast<float>(qmax(dtype));
  for (size_t c = 0; c < sums.xx.size(); ++c) {
    const float magnitude = std::max(-sums.x_min[c], sums.x_max[c]);
    scales.push_back(std::max(magnitude / most, 0x1p-23F));
  }
  return quantize_per_channel(weight, scales, zeros, axis, dtype);
}

std::optional<Graph> with_quantizers(const Graph& q, const Quantizers& quantizers) {
  const auto keeps = [&](const Node& node) {
    const ops::Op* op = node.kind == NodeKind::call ? ops::find(node.op) : nullptr;
    return op && op->rule() == ops::QRule::same && q.type(node.outputs[0]).is_quantized();
  };
  std::map<ValueId, QuantizerPtr> wanted;  // of values whose qparams are their own; the first holds
  for (const auto& [value, quantizer] : quantizers) {
    ValueId v = value;
    while (keeps(q.producer(v))) {  // those of its operand
      const ValueId before = q.producer(v).inputs[0];
      if (!same_qparams(q.type(v), q.type(before))) return std::nullopt;
      v = before;
    }
    if (!q.type(v).is_quantized() || q.type(v).dtype != q.type(value).dtype ||
        q.producer(v).kind != NodeKind::call)
      return std::nullopt;
    wanted.emplace(v, quantizer);
  }
  try {
    graph::Rewriter rewriter(q);
    Graph g = rewriter.run([&](graph::Rewriter& r, const Node& node) {
      if (node.kind != NodeKind::call) return false;
      std::optional<ops::QType> want = graph::want_of(q, node);
      if (const auto it = wanted.find(node.outputs[0]); it != wanted.end())
        want->quantizer = it->second;
      else if (keeps(node))
        want.reset();  // whatever follows from the operand's
      else
        return false;
      const auto results = r.out().add_calls(q.value(node.outputs[0]).name, node.op,
                                             r.operands(node), node.attrs, want, node.scope);
      for (size_t i = 0; i < results.size(); ++i) r.map(node.outputs[i], results[i]);
      return true;
    });
    g.check();
    return g;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<Graph> with_weight(const Graph& q, NodeId id, const Tensor& weight) {
  const Node& node = q.node(id);
  const auto place = weight_operand(q, node);
  if (!place) return std::nullopt;
  const Tensor& old = q.constant(node.inputs[*place]);
  if (!old.is_quantized() || old.shape() != weight.shape() || old.dtype() != DType::qint8)
    return std::nullopt;
  try {
    graph::Rewriter rewriter(q);
    return rewriter.run([&](graph::Rewriter& r, const Node& n) {
      if (&n != &node) return false;
      std::vector<ValueId> operands = r.operands(n);
      operands[*place] =
          r.out().add_constant(q.value(n.inputs[*place]).name,
                               per_channel_weight(weight, weight_axis(n, weight), old.dtype()));
      const auto results = r.out().add_calls(q.value(n.outputs[0]).name, n.op, operands, n.attrs,
                                             graph::want_of(q, n), n.scope);
      for (size_t i = 0; i < results.size(); ++i) r.map(n.outputs[i], results[i]);
      return true;
    });
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<Graph> with_float(const Graph& f, const Graph& q, const Match& match,
                                const std::set<NodeId>& nodes) {
  std::vector<ValueId> floats(f.values().size(), kNone);  // in the new graph
  std::set<NodeId> of_q;
  for (NodeId n : nodes) {
    if (match.node[n] < 0 || match.bias_apart[n]) return std::nullopt;
    of_q.insert(match.node[n]);
  }
  try {
    graph::Rewriter rewriter(q);
    NodeId at = -1;
    return rewriter.run([&](graph::Rewriter& r, const Node& n) {
      ++at;
      const auto found =
          std::find_if(nodes.begin(), nodes.end(), [&](NodeId id) { return match.node[id] == at; });
      if (found == nodes.end()) return false;
      const Node& node = f.node(*found);
      const auto data_of_q = [&](size_t k) {  // the k-th operand that is no constant
        for (ValueId v : n.inputs)
          if (v != kNone && !q.is_constant(v) && k-- == 0) return v;
        return kNone;
      };
      std::vector<ValueId> operands;
      size_t k = 0;
      for (ValueId v : node.inputs) {
        if (v == kNone) {
          operands.push_back(kNone);
        } else if (f.is_constant(v)) {
          operands.push_back(r.out().add_constant(f.value(v).name + ".float", f.constant(v)));
        } else if (const ValueId other = data_of_q(k++); floats[v] != kNone) {
          operands.push_back(floats[v]);
        } else if (other == kNone) {
          throw Error(ErrorCode::unsupported, "an operand has no counterpart");
        } else if (q.type(other).is_quantized()) {
          operands.push_back(
              r.out().add_call(q.value(other).name + ".floats", "dequantize", {r(other)}));
        } else {
          operands.push_back(r(other));
        }
      }
      const auto results = r.out().add_calls(f.value(node.outputs[0]).name, node.op, operands,
                                             node.attrs, std::nullopt, node.scope);
      r.out().node(r.out().value(results[0]).producer).stays_float = true;
      for (size_t i = 0; i < results.size(); ++i) {
        floats[node.outputs[i]] = results[i];
        const TensorType& type = q.type(n.outputs[i]);
        r.map(n.outputs[i],
              type.is_quantized()
                  ? r.out().add_call(f.value(node.outputs[i]).name + ".quantized", "quantize",
                                     {results[i]}, {}, ops::QType{type.dtype, type.quantizer})
                  : results[i]);
      }
      return true;
    });
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<Graph> with_codes(const Graph& q, NodeId id, const ops::QType& result) {
  const Node& node = q.node(id);
  const std::optional<size_t> place = weight_operand(q, node);
  const auto codes_of = [&](ValueId v) {
    const Node& producer = q.producer(v);
    return producer.op == "dequantize" ? producer.inputs[0] : kNone;
  };
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (const ValueId v = node.inputs[i]; v != kNone && !q.is_constant(v) && codes_of(v) == kNone)
      return std::nullopt;
  ValueId made = kNone;
  try {
    graph::Rewriter rewriter(q);
    return graph::remove_dead(rewriter.run([&](graph::Rewriter& r, const Node& n) {
      // What made codes of the floats finds them made.
      if (made != kNone && n.op == "quantize" && n.inputs[0] == node.outputs[0] &&
          same_qparams(q.type(n.outputs[0]), r.out().type(made))) {
        r.map(n.outputs[0], made);
        return true;
      }
      if (&n != &node) return false;
      std::vector<ValueId> operands;
      for (size_t i = 0; i < n.inputs.size(); ++i) {
        const ValueId v = n.inputs[i];
        if (v == kNone)
          operands.push_back(kNone);
        else if (place && i == *place)
          operands.push_back(r.out().add_constant(
              q.value(v).name + ".codes",
              per_channel_weight(q.constant(v), weight_axis(n, q.constant(v)), DType::qint8)));
        else
          operands.push_back(q.is_constant(v) ? r(v) : r(codes_of(v)));
      }
      made = r.out().add_call(q.value(n.outputs[0]).name + ".codes", n.op, operands, n.attrs,
                              result, n.scope);
      r.map(n.outputs[0], r.out().add_call(q.value(n.outputs[0]).name, "dequantize", {made}));
      return true;
    }));
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace octet::debug::detail
