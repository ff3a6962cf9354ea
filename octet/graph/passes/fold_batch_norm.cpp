#include "octet/graph/passes/fold_batch_norm.h"

#include <cmath>

namespace octet::graph {
namespace {

bool is_float_constant(const Graph& g, ValueId id) {
  return id != kNone && g.is_constant(id) && g.type(id).dtype == DType::float32;
}

bool is_transposed(const Node& layer) { return ops::get(layer.op).traits().transposed; }

// The layer whose result a norm or add takes for its first operand, if another can be folded into
// it; null otherwise.
const Node* layer_before(const Graph& g, const std::vector<int>& uses, const Node& norm) {
  const Node& layer = g.producer(norm.inputs[0]);
  if (layer.kind != NodeKind::call || uses[norm.inputs[0]] != 1) return nullptr;
  bool linear = layer.op == "linear";
  bool conv = layer.op == "conv1d" || layer.op == "conv2d" || layer.op == "conv3d";
  if (!conv && !is_transposed(layer) && !linear) return nullptr;
  if (linear && g.type(norm.inputs[0]).dim() != 2) return nullptr;
  if (layer.attrs.get_string("activation") != "none" || g.type(norm.outputs[0]).is_quantized())
    return nullptr;
  if (!is_float_constant(g, layer.inputs[1])) return nullptr;
  bool biased = layer.inputs.size() > 2 && layer.inputs[2] != kNone;
  if (biased && !is_float_constant(g, layer.inputs[2])) return nullptr;
  return &layer;
}

// The layer that a batch norm can be folded into; null otherwise.
const Node* foldable_layer(const Graph& g, const std::vector<int>& uses, const Node& norm) {
  if (norm.kind != NodeKind::call || norm.op != "batch_norm" || norm.inputs.size() != 5)
    return nullptr;
  for (size_t i = 1; i < 5; ++i)
    if (!is_float_constant(g, norm.inputs[i])) return nullptr;
  return layer_before(g, uses, norm);
}

// Whether a constant has one value for each of the channels of dimension 1 of a result, or one.
bool is_per_channel(const Graph& g, ValueId constant, ValueId result) {
  if (!is_float_constant(g, constant)) return false;
  const Shape shape = g.constant(constant).shape();
  const std::vector<Dim>& dims = g.type(result).dims;
  if (shape.size() > dims.size()) return false;
  for (size_t k = 0; k < shape.size(); ++k) {  // dimensions are aligned at the end
    const size_t d = dims.size() - shape.size() + k;
    if (shape[k] != 1 && (d != 1 || dims[1] != Dim(shape[k]))) return false;
  }
  return true;
}

// "conv.weight" -> "conv.bias"
std::string bias_name(const std::string& weight) {
  const std::string ending = "weight";
  if (!weight.ends_with(ending)) return weight + ".bias";
  return weight.substr(0, weight.size() - ending.size()) + "bias";
}

void fold_add(Rewriter& r, const Node& layer, const Node& add) {
  const Graph& g = r.source();
  const bool biased = layer.inputs.size() > 2 && layer.inputs[2] != kNone;
  const int64_t channels = g.type(add.outputs[0]).dims[1].size();
  const std::vector<float> shift = g.constant(add.inputs[1]).to_vector<float>();
  std::vector<float> bias = biased ? g.constant(layer.inputs[2]).to_vector<float>()
                                   : std::vector<float>(static_cast<size_t>(channels), 0);
  for (size_t c = 0; c < bias.size(); ++c) bias[c] += shift[shift.size() == 1 ? 0 : c];
  const std::string& name = g.value(layer.inputs[1]).name;
  const ValueId b =
      r.out().add_constant(biased ? g.value(layer.inputs[2]).name + ".with_add" : bias_name(name),
                           Tensor::from(bias, {channels}));
  r.map(add.outputs[0], r.out().add_call(g.value(add.outputs[0]).name, layer.op,
                                         {r(layer.inputs[0]), r(layer.inputs[1]), b}, layer.attrs,
                                         std::nullopt, layer.scope));
}

void fold(Rewriter& r, const Node& layer, const Node& norm) {
  const Graph& g = r.source();
  auto vector = [&](ValueId id) { return g.constant(id).to_vector<float>(); };
  std::vector<float> gamma = vector(norm.inputs[1]), beta = vector(norm.inputs[2]),
                     mean = vector(norm.inputs[3]), var = vector(norm.inputs[4]);
  const auto eps = static_cast<float>(norm.attrs.get_double("eps"));
  auto channels = static_cast<int64_t>(gamma.size());
  bool biased = layer.inputs.size() > 2 && layer.inputs[2] != kNone;
  std::vector<float> old_bias =
      biased ? vector(layer.inputs[2]) : std::vector<float>(gamma.size(), 0);
  Tensor weight = g.constant(layer.inputs[1]).clone();
  std::vector<float> bias(gamma.size());
  // In float32 and in PyTorch's order, as batch norms of modules are folded: the same bits.
  std::vector<float> scales(gamma.size());
  for (size_t i = 0; i < gamma.size(); ++i) {
    const float spread = 1.f / std::sqrt(var[i] + eps);
    scales[i] = gamma[i] * spread;
    const float centered = old_bias[i] - mean[i];
    bias[i] = (weight.dim() == 2 ? centered * scales[i] : centered * spread * gamma[i]) + beta[i];
  }
  // Slices of the weight with one output channel each: its rows, or of a transposed convolution
  // (in, out/groups, ...) the columns, which are other channels in every group.
  const bool transposed = is_transposed(layer);
  const int64_t rows = weight.size(0), columns = transposed ? weight.size(1) : 1,
                inner = rows * columns != 0 ? weight.numel() / (rows * columns) : 0;
  const int64_t group_rows = transposed ? rows / layer.attrs.get_int("groups") : 1;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < columns; ++j) {
      float* w = weight.data<float>() + (r * columns + j) * inner;
      const float scale = scales[static_cast<size_t>(r / group_rows * columns + j)];
      for (int64_t k = 0; k < inner; ++k) w[k] *= scale;
    }
  const std::string& name = g.value(layer.inputs[1]).name;
  ValueId w = r.out().add_constant(name, weight);
  ValueId b = r.out().add_constant(biased ? g.value(layer.inputs[2]).name : bias_name(name),
                                   Tensor::from(bias, {channels}));
  ValueId y = r.out().add_call(g.value(norm.outputs[0]).name, layer.op, {r(layer.inputs[0]), w, b},
                               layer.attrs, std::nullopt, layer.scope);
  r.map(norm.outputs[0], y);
}

}  // namespace

Graph fold_batch_norm(const Graph& graph) {
  std::vector<int> uses = graph.use_counts();
  // layers that come back where their norm stood
  std::vector<bool> absorbed(graph.nodes().size(), false);
  std::vector<const Node*> layer_of(graph.nodes().size(), nullptr);
  std::vector<int> left = uses;  // of constants: those that only folded nodes use are not copied
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node* layer = foldable_layer(graph, uses, graph.nodes()[i]);
    if (!layer) continue;
    layer_of[i] = layer;
    absorbed[static_cast<size_t>(layer - graph.nodes().data())] = true;
    for (size_t k = 1; k < 5; ++k) --left[graph.nodes()[i].inputs[k]];
    for (size_t k = 1; k < layer->inputs.size(); ++k)
      if (layer->inputs[k] != kNone) --left[layer->inputs[k]];
  }
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter& r, const Node& node) {
    auto id = static_cast<size_t>(&node - graph.nodes().data());
    if (node.kind == NodeKind::constant && uses[node.outputs[0]] > 0 && left[node.outputs[0]] == 0)
      return true;
    if (absorbed[id]) return true;
    if (!layer_of[id]) return false;
    fold(r, *layer_of[id], node);
    return true;
  });
}

Graph fold_biases(const Graph& graph) {
  const std::vector<int> uses = graph.use_counts();
  std::vector<bool> absorbed(graph.nodes().size(), false);
  std::vector<const Node*> layer_of(graph.nodes().size(), nullptr);
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& add = graph.nodes()[i];
    if (add.kind != NodeKind::call || add.op != "add" ||
        add.attrs.get_string("activation") != "none" ||
        graph.type(add.outputs[0]) != graph.type(add.inputs[0]) ||
        graph.type(add.outputs[0]).dim() < 2 || !graph.type(add.outputs[0]).dims[1].known() ||
        !is_per_channel(graph, add.inputs[1], add.outputs[0]))
      continue;
    layer_of[i] = layer_before(graph, uses, add);
    if (layer_of[i]) absorbed[static_cast<size_t>(layer_of[i] - graph.nodes().data())] = true;
  }
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter& r, const Node& node) {
    auto id = static_cast<size_t>(&node - graph.nodes().data());
    if (absorbed[id]) return true;
    if (!layer_of[id]) return false;
    fold_add(r, *layer_of[id], node);
    return true;
  });
}

}  // namespace octet::graph
