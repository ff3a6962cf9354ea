#include "octet/quant/algorithms/hadamard.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/fuse.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

namespace {

bool may_rotate(const Graph& g, const std::vector<int>& uses, ValueId constant) {
  return constant != kNone && g.is_constant(constant) && uses[static_cast<size_t>(constant)] == 1;
}

bool is_linear(const Graph& g, const std::vector<int>& uses, const Node& node) {
  return node.kind == NodeKind::call && node.op == "linear" &&
         may_rotate(g, uses, node.inputs[1]) &&
         g.constant(node.inputs[1]).dtype() == DType::float32;
}

// Whether a linear layer computes the value and linear layers alone read it.
bool is_in_chain(const Graph& g, const std::vector<int>& uses, ValueId v) {
  const Node& source = g.producer(v);
  if (!is_linear(g, uses, source) || source.attrs.get_string("activation") != "none") return false;
  if (source.inputs.size() > 2 && source.inputs[2] != kNone &&
      !may_rotate(g, uses, source.inputs[2]))
    return false;
  const std::vector<NodeId> readers = g.users(v);
  // An output of the graph has one more use.
  if (readers.empty() || std::ssize(readers) != uses[static_cast<size_t>(v)]) return false;
  return std::all_of(readers.begin(), readers.end(), [&](NodeId n) {
    return is_linear(g, uses, g.node(n)) && g.node(n).inputs[0] == v;
  });
}

Tensor& constant_of(Graph& g, ValueId v) { return g.node(g.value(v).producer).value; }

}  // namespace

Tensor hadamard_rows(const Tensor& x, int64_t block) {
  OCTET_CHECK(block >= 1 && (block & (block - 1)) == 0 && x.dim() == 2 && x.size(1) % block == 0,
              invalid_argument,
              "hadamard_rows: block {}, x {}; expected a power of two that divides the columns",
              block, to_string(x.type()));
  Tensor y = x.contiguous().clone();
  float* all = y.data<float>();
  const double norm = 1 / std::sqrt(static_cast<double>(block));
  std::vector<double> values(static_cast<size_t>(block));
  for (int64_t begin = 0; begin < y.numel(); begin += block) {
    std::copy_n(all + begin, block, values.begin());
    for (size_t half = 1; half < values.size(); half *= 2)
      for (size_t i = 0; i < values.size(); i += 2 * half)
        for (size_t j = i; j < i + half; ++j) {
          const double a = values[j], b = values[j + half];
          values[j] = a + b;
          values[j + half] = a - b;
        }
    for (int64_t i = 0; i < block; ++i)
      all[begin + i] = static_cast<float>(values[static_cast<size_t>(i)] * norm);
  }
  return y;
}

Graph hadamard_rotation(const Graph& graph, std::vector<std::string>* rotated) {
  Graph g = graph::fold_biases(graph::constants_second(graph));
  const std::vector<int> uses = g.use_counts();
  for (size_t i = 0; i < g.values().size(); ++i) {
    const auto v = static_cast<ValueId>(i);
    if (!is_in_chain(g, uses, v)) continue;
    const Node source = g.producer(v);
    const int64_t features = g.constant(source.inputs[1]).size(0), block = features & -features;
    if (block == 1) continue;
    // R is symmetric: R W is the transpose of W^T R.
    Tensor& weight = constant_of(g, source.inputs[1]);
    weight = hadamard_rows(weight.transpose(0, 1), block).transpose(0, 1).contiguous();
    if (source.inputs.size() > 2 && source.inputs[2] != kNone) {
      Tensor& bias = constant_of(g, source.inputs[2]);
      bias = hadamard_rows(bias.reshape({1, features}), block).reshape({features});
    }
    for (const NodeId n : g.users(v)) {
      Tensor& reader = constant_of(g, g.node(n).inputs[1]);
      reader = hadamard_rows(reader, block);
    }
    if (rotated) rotated->push_back(g.value(v).name);
  }
  return g;
}

}  // namespace octet::quant
