#include <algorithm>
#include <map>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/quant/algorithms/blocks_impl.h"
#include "octet/quant/observe/observer.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

ValueId root_of(const Graph& g, ValueId v) {
  const Node& node = g.producer(v);
  return node.kind == NodeKind::call && node.op == "dequantize" ? node.inputs[0] : v;
}

namespace {

// By node: whether one value at most is computed by then and read later.
std::vector<bool> places_to_part(const Graph& g) {
  const auto count = std::ssize(g.nodes());
  std::vector<NodeId> last_use(g.values().size(), -1);
  for (NodeId n = 0; n < count; ++n)
    for (const ValueId v : g.node(n).inputs)
      if (v != kNone) last_use[static_cast<size_t>(root_of(g, v))] = n;
  std::vector<int> ends(static_cast<size_t>(count), 0);
  std::vector<bool> may(static_cast<size_t>(count));
  int alive = 0;
  for (NodeId n = 0; n < count; ++n) {
    const Node& node = g.node(n);
    if (node.kind == NodeKind::call && node.op != "dequantize")
      for (const ValueId v : node.outputs) {
        // What a dequantize makes of it is it.
        const NodeId last = last_use[static_cast<size_t>(v)];
        if (last <= n) continue;
        ++alive;
        ++ends[static_cast<size_t>(last)];
      }
    alive -= ends[static_cast<size_t>(n)];
    may[static_cast<size_t>(n)] = alive <= 1 && node.kind == NodeKind::call;
  }
  return may;
}

bool is_float_call(const Graph& g, NodeId n) {
  const Node& node = g.node(n);
  return node.kind == NodeKind::call && node.op != "dequantize" &&
         !g.type(node.outputs[0]).is_quantized();
}

Tensor fake_quantized(const Tensor& x, const TensorType& type) {
  const Quantizer& q = *type.quantizer;
  OCTET_CHECK(!q.is_per_channel(), internal, "an activation is quantized per channel");
  const CodeRange codes = code_range({.dtype = type.dtype});
  return ops::call(
      "fake_quantize_per_tensor",
      {x, Tensor::scalar(q.scale()), Tensor::scalar(double(q.zero_point()), DType::int64)},
      {{"quant_min", codes.quant_min}, {"quant_max", codes.quant_max}});
}

// Constants, inputs and dequantize are read where they are used.
bool is_computed(const Graph& g, NodeId n) {
  return g.node(n).kind == NodeKind::call && g.node(n).op != "dequantize";
}

}  // namespace

GraphFunction::GraphFunction(const Graph& g, NodeId first, NodeId last, const Layers& layers)
    : g_(g), first_(first), last_(last), layers_(layers) {
  for (NodeId n = first; n <= last; ++n) {
    if (!is_computed(g_, n)) continue;
    for (const ValueId v : g.node(n).inputs) {
      if (v == kNone) continue;
      const ValueId root = root_of(g, v);
      const bool inside =
          g.value(root).producer >= first && g.producer(root).kind != NodeKind::input;
      if (g.is_constant(root) || inside) continue;
      if (std::find(reads_.begin(), reads_.end(), root) == reads_.end()) reads_.push_back(root);
    }
  }
}

std::vector<Tensor> GraphFunction::operator()(const std::vector<Tensor>& inputs,
                                              const LayerFunction& of_layer,
                                              const std::vector<ValueId>& wanted) const {
  std::map<ValueId, Tensor> values;
  for (size_t i = 0; i < reads_.size(); ++i) values[reads_[i]] = inputs[i];
  const auto value = [&](ValueId v) {
    if (v == kNone) return Tensor();
    const ValueId root = root_of(g_, v);
    if (!g_.is_constant(root)) return values.at(root);
    const Tensor& t = g_.constant(root);
    return t.is_quantized() ? t.dequantize() : t;
  };
  for (NodeId n = first_; n <= last_; ++n) {
    if (!is_computed(g_, n)) continue;
    const Node& node = g_.node(n);
    if (node.op == "quantize") {
      values[node.outputs[0]] = fake_quantized(value(node.inputs[0]), g_.type(node.outputs[0]));
      continue;
    }
    // Fused activations have no gradient of their own.
    Attrs attrs = node.attrs;
    std::string activation = "none";
    if (attrs.has("activation")) {
      activation = attrs.get_string("activation");
      attrs.set("activation", "none");
    }
    std::vector<Tensor> results;
    if (const auto layer = layers_.find(n); layer != layers_.end()) {
      results = {of_layer(*layer->second, value(node.inputs[0]))};
    } else {
      std::vector<Tensor> operands;
      for (const ValueId v : node.inputs) operands.push_back(value(v));
      results = ops::call_all(node.op, operands, attrs);
    }
    if (activation != "none") results[0] = ops::call(activation, {results[0]});
    for (size_t i = 0; i < node.outputs.size(); ++i) values[node.outputs[i]] = results.at(i);
  }
  std::vector<Tensor> results;
  for (const ValueId v : wanted) results.push_back(value(v));
  return results;
}

std::vector<Block> find_blocks(const Graph& reference, const std::vector<NodeId>& layers,
                               int64_t most_layers) {
  const std::vector<bool> may = places_to_part(reference);
  std::vector<Block> blocks;
  NodeId first = 0;
  for (size_t next = 0; next < layers.size();) {
    Block block{first, layers[next], {}};
    const auto take_layers = [&] {
      while (next < layers.size() && layers[next] <= block.last) block.layers.push_back(next++);
    };
    while (!may[static_cast<size_t>(block.last)] || !is_float_call(reference, block.last)) {
      if (block.last + 1 == std::ssize(reference.nodes())) break;
      ++block.last;
    }
    const size_t begin = next;
    take_layers();
    if (std::ssize(block.layers) > most_layers || !is_float_call(reference, block.last)) {
      for (size_t i = begin; i < next; ++i) {
        blocks.push_back({first, layers[i], {i}});
        first = layers[i] + 1;
      }
      continue;
    }
    first = block.last + 1;
    blocks.push_back(std::move(block));
  }
  return blocks;
}

void for_each_block(ObservedGraphModule& prepared, const Samples& samples, int64_t most_layers,
                    const LayerwiseOptions& options, const char* who,
                    const std::function<void(const BlockStep&)>& visit) {
  autograd::NoGrad no_grad;
  LayerwiseRun run(prepared, samples, options, who);
  const Graph& g = run.codes.graph();
  GraphFunction::Layers layers;
  for (size_t i = 0; i < run.layers.size(); ++i) layers[run.code_nodes[i]] = &run.layers[i];
  const std::vector<Block> blocks = find_blocks(g, run.code_nodes, most_layers);
  NodeId f = 0, q = 0;
  for (size_t b = 0; b < blocks.size(); ++b) {
    const Block& block = blocks[b];
    const GraphFunction function(g, block.first, block.last, layers);
    BlockStep step;
    for (const size_t i : block.layers) {
      const Node& node = run.floats.graph().node(run.float_nodes[i]);
      step.layers.push_back(&run.layers[i]);
      step.parameters.emplace_back(
          run.floats.value(node.inputs[1], 0),
          run.floats.value(node.inputs.size() > 2 ? node.inputs[2] : kNone, 0));
    }
    for (; q < block.first; ++q) run.codes.compute(q);
    for (size_t i = 0; i < samples.size(); ++i) {
      auto& read = step.inputs.emplace_back();
      for (const ValueId v : function.reads()) {
        const Tensor t = run.codes.value(v, i);
        read.push_back(t.is_quantized() ? t.dequantize() : t);
      }
    }
    const ValueId target = run.float_value(g.node(block.last).outputs[0], who);
    for (; f <= run.floats.graph().value(target).producer; ++f) run.floats.compute(f);
    for (size_t i = 0; i < samples.size(); ++i) step.targets.push_back(run.floats.value(target, i));
    step.run = [&](const std::vector<Tensor>& inputs, const LayerFunction& layer) {
      return function(inputs, layer, {g.node(block.last).outputs[0]})[0];
    };
    visit(step);
    if (options.progress) options.progress(b + 1, blocks.size());
    for (; q <= block.last; ++q) {
      if (const auto layer = layers.find(q); layer != layers.end())
        run.compute_layer(prepared, q, *layer->second);
      else
        run.codes.compute(q);
    }
  }
}

}  // namespace octet::quant
