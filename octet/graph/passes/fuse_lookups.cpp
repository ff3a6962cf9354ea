#include "octet/graph/passes/fuse_lookups.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "octet/graph/passes/merge_qdq.h"
#include "octet/ops/unary.h"

namespace octet::graph {
namespace {

bool eight_bit_codes(const TensorType& t) {
  return is_8_bit(t.dtype) && !t.quantizer->is_per_channel();
}

bool is_elementwise(const Node& node) {
  static const std::set<std::string> more{"quantize", "dequantize", "requantize", "lookup",
                                          "add",      "sub",        "mul",        "div",
                                          "pow",      "maximum",    "minimum"};
  return node.kind == NodeKind::call && node.outputs.size() == 1 &&
         (ops::is_unary(node.op) || more.count(node.op) != 0);
}

class Fuser {
 public:
  explicit Fuser(const Graph& g)
      : g_(g), root_(g.values().size(), kNone), depth_(g.values().size(), 0) {
    for (const Node& node : g.nodes())
      for (ValueId v : node.outputs) find_root(node, v);
  }

  Graph run() {
    bool any = false;
    std::vector<bool> fused(g_.values().size(), false);
    for (size_t v = 0; v < fused.size(); ++v) {
      auto id = static_cast<ValueId>(v);
      fused[v] =
          root_[v] != kNone && root_[v] != id && depth_[v] > 1 && eight_bit_codes(g_.type(id));
      any = any || fused[v];
    }
    if (!any) return g_;
    Rewriter rewriter(g_);
    Graph out = rewriter.run([&](Rewriter& r, const Node& node) {
      if (node.kind != NodeKind::call || !fused[static_cast<size_t>(node.outputs[0])]) return false;
      ValueId v = node.outputs[0];
      const TensorType& type = g_.type(v);
      const std::vector<int64_t> codes = table(v);
      if (same_qparams(g_.type(root_[v]), type) && is_identity(codes, type.dtype) &&
          !is_output(v)) {
        r.map(v, r(root_[v]));
        return true;
      }
      r.map(v, r.out().add_call(g_.value(v).name, "lookup", {r(root_[v])}, {{"table", codes}},
                                ops::QType{type.dtype, type.quantizer}, node.scope));
      return true;
    });
    return remove_dead(out);
  }

 private:
  // The codes that a value is a function of: others', or its own if it is codes; kNone for all
  // else.
  void find_root(const Node& node, ValueId v) {
    const TensorType& type = g_.type(v);
    root_[v] = node.kind != NodeKind::constant && eight_bit_codes(type) ? v : kNone;
    if (!is_elementwise(node) || (!eight_bit_codes(type) && type.dtype != DType::float32)) return;
    ValueId root = kNone;
    int depth = 0;
    for (ValueId x : node.inputs) {
      if (x == kNone) return;
      if (g_.is_constant(x)) {
        if (g_.constant(x).numel() != 1 || g_.type(x).is_quantized()) return;
        continue;
      }
      if (root_[x] == kNone || (root != kNone && root_[x] != root)) return;
      root = root_[x];
      depth = std::max(depth, depth_[x]);
    }
    if (root == kNone || g_.type(root).dims != type.dims) return;
    root_[v] = root;
    depth_[v] = depth + 1;
  }
  // The value for each code of its root, which is known.
  Tensor evaluate(ValueId v, std::map<ValueId, Tensor>& known) const {
    if (auto it = known.find(v); it != known.end()) return it->second;
    if (g_.is_constant(v)) return known[v] = g_.constant(v).reshape({1});
    const Node& node = g_.producer(v);
    std::vector<Tensor> operands;
    for (ValueId x : node.inputs) operands.push_back(evaluate(x, known));
    return known[v] = ops::call(node.op, operands, node.attrs, want_of(g_, node));
  }

  std::vector<int64_t> table(ValueId v) const {
    ValueId root = root_[v];
    const TensorType& type = g_.type(root);
    std::vector<uint8_t> bytes(256);
    std::iota(bytes.begin(), bytes.end(), uint8_t{0});
    Tensor codes = type.dtype == DType::qint8
                       ? Tensor::from(std::vector<int8_t>(bytes.begin(), bytes.end()), {256})
                       : Tensor::from(bytes, {256});
    std::map<ValueId, Tensor> known{{root, make_quantized(codes, type.quantizer)}};
    Tensor result = evaluate(v, known).int_repr().to(DType::int32);
    std::vector<int64_t> table;
    for (int32_t code : result.to_vector<int32_t>()) table.push_back(code);
    return table;
  }

  static bool is_identity(const std::vector<int64_t>& table, DType dtype) {
    for (int i = 0; i < 256; ++i)
      if (table[static_cast<size_t>(i)] != (dtype == DType::qint8 ? static_cast<int8_t>(i) : i))
        return false;
    return true;
  }
  // (Results of a graph keep their names.)
  bool is_output(ValueId v) const {
    return std::count(g_.outputs().begin(), g_.outputs().end(), v) != 0;
  }

  const Graph& g_;
  std::vector<ValueId> root_;
  std::vector<int> depth_;
};

}  // namespace

Graph fuse_lookups(const Graph& graph) { return Fuser(graph).run(); }

bool touches_codes(const Graph& graph, const Node& node) {
  for (const auto& list : {node.inputs, node.outputs})
    for (const ValueId v : list)
      if (v != kNone && graph.type(v).is_quantized()) return true;
  return false;
}

std::vector<bool> calls_on_codes(const Graph& graph) {
  const Graph with_tables = fuse_lookups(graph);
  std::vector<bool> on_codes;
  for (const Node& node : graph.nodes())
    on_codes.push_back(
        node.kind == NodeKind::call &&
        (touches_codes(graph, node) || !with_tables.find(graph.value(node.outputs[0]).name)));
  return on_codes;
}

}  // namespace octet::graph
