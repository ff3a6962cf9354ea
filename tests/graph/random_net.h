#pragma once
// Small random networks, and the plainest way to run a graph: one ops::call per node.

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "octet/base/random.h"
#include "octet/graph/graph.h"

namespace octet::testing {

// A float network of convolutions, activations, pools, adds, muls and cats over images, with a
// linear head or an image as its result, and perhaps a second result. Its input is (N or 2, 3, 6,
// 6). `random` draws as octet::Random does.
template <typename Source>
graph::Graph random_net_of(Source& random, bool symbolic_batch, int nodes) {
  using graph::ValueId;
  graph::Graph g;
  Dim batch = symbolic_batch ? Dim("N") : Dim(2);
  std::vector<ValueId> images{
      g.add_input("x", TensorType(DType::float32, {batch, Dim(3), Dim(6), Dim(6)}))};
  auto channels = [&](ValueId v) { return g.type(v).dims[1].size(); };
  auto pick = [&] {
    return images[random.integer(std::max<int64_t>(0, static_cast<int64_t>(images.size()) - 3),
                                 static_cast<int64_t>(images.size()) - 1)];
  };
  auto weight = [&](const std::string& name, const Shape& shape, double scale) {
    return g.add_constant(name, Tensor::rand(shape, random.next(), -scale, scale));
  };
  for (int i = 0; i < nodes; ++i) {
    ValueId x = pick();
    int64_t c = channels(x);
    std::string name = "n" + std::to_string(i);
    switch (random.integer(0, 11)) {
      case 0:
      case 1:
      case 2: {
        int64_t out = random.integer(1, 7), k = random.integer(0, 1) ? 3 : 1, p = k / 2;
        Attrs attrs{{"padding", std::vector<int64_t>{p, p, p, p}}};
        std::vector<ValueId> operands{x, weight(name + ".weight", {out, c, k, k}, 0.5)};
        if (random.integer(0, 2)) operands.push_back(weight(name + ".bias", {out}, 0.5));
        images.push_back(
            g.add_call(name, "conv2d", operands, attrs, std::nullopt, "conv" + std::to_string(i)));
        break;
      }
      case 3:
        images.push_back(
            g.add_call(name, "conv2d", {x, weight(name + ".weight", {c, 1, 3, 3}, 0.5)},
                       {{"padding", std::vector<int64_t>{1, 1, 1, 1}}, {"groups", c}}));
        break;
      case 4:
        images.push_back(g.add_call(name, "relu", {x}));
        break;
      case 5: {
        const char* ops[] = {"sigmoid", "hardswish", "leaky_relu", "tanh", "relu6"};
        images.push_back(g.add_call(name, ops[random.integer(0, 4)], {x}));
        break;
      }
      case 6: {
        std::vector<int64_t> three{3, 3}, one{1, 1}, pad{1, 1, 1, 1};
        images.push_back(g.add_call(name, random.integer(0, 1) ? "max_pool2d" : "avg_pool2d", {x},
                                    {{"kernel", three}, {"stride", one}, {"padding", pad}}));
        break;
      }
      case 7:
      case 8: {
        ValueId y = pick();
        if (channels(y) == c)
          images.push_back(g.add_call(name, random.integer(0, 2) ? "add" : "mul", {x, y}));
        break;
      }
      case 9:
        images.push_back(g.add_call(name, "cat", {x, pick()}, {{"dim", int64_t{1}}}));
        break;
      case 10:
        images.push_back(g.add_call(name, "identity", {x}));
        break;
      default: {  // away from an image and back
        ValueId flat =
            g.add_call(name + ".flat", "reshape", {x}, {{"shape", std::vector<int64_t>{0, c, 36}}});
        images.push_back(
            g.add_call(name, "reshape", {flat}, {{"shape", std::vector<int64_t>{0, c, 6, 6}}}));
      }
    }
  }
  std::vector<ValueId> outputs{images.back()};
  if (random.integer(0, 1)) {
    ValueId pooled = g.add_call("pooled", "adaptive_avg_pool2d", {images.back()});
    ValueId flat = g.add_call("flat", "flatten", {pooled});
    outputs = {g.add_call("logits", "linear",
                          {flat, weight("fc.weight", {5, channels(images.back())}, 0.5),
                           weight("fc.bias", {5}, 0.5)})};
  }
  if (random.integer(0, 2) == 0) outputs.push_back(pick());
  g.set_outputs(outputs);
  return g;
}

inline graph::Graph random_net(uint64_t seed, bool symbolic_batch = false, int nodes = 8) {
  Random random(seed);
  graph::Graph g = random_net_of(random, symbolic_batch, nodes);
  g.name = "net" + std::to_string(seed);
  return g;
}

// Every value of a graph, node by node.
inline std::vector<Tensor> evaluate_values(const graph::Graph& g,
                                           const std::vector<Tensor>& inputs) {
  std::vector<Tensor> values(g.values().size());
  size_t next = 0;
  for (const graph::Node& node : g.nodes()) {
    if (node.kind == graph::NodeKind::input)
      values[node.outputs[0]] = inputs.at(next++);
    else if (node.kind == graph::NodeKind::constant)
      values[node.outputs[0]] = node.value;
    else {
      std::vector<Tensor> operands;
      for (graph::ValueId v : node.inputs)
        operands.push_back(v == graph::kNone ? Tensor() : values[v]);
      auto results = ops::call_all(node.op, operands, node.attrs, graph::want_of(g, node));
      for (size_t i = 0; i < results.size(); ++i) values[node.outputs[i]] = results[i];
    }
  }
  return values;
}

inline std::vector<Tensor> evaluate(const graph::Graph& g, const std::vector<Tensor>& inputs) {
  auto values = evaluate_values(g, inputs);
  std::vector<Tensor> results;
  for (graph::ValueId v : g.outputs()) results.push_back(values[v]);
  return results;
}

}  // namespace octet::testing
