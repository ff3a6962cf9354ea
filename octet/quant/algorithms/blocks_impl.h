#pragma once
// A run of the float and the quantized network side by side, block by block: what lies between two
// places where one value alone goes on.

#include <functional>
#include <map>
#include <vector>

#include "octet/quant/algorithms/layerwise_impl.h"

namespace octet::quant {

// Nodes of a reference graph, one after another.
struct Block {
  graph::NodeId first = 0, last = 0;  // last computes the result, a float value
  std::vector<size_t> layers;         // by number, one or more
};

// Of a reference graph whose layers are these nodes, in order: behind each block one value alone
// goes on (constants and the graph's inputs and outputs do not count), and no block could be
// parted. One with more than `most_layers` layers is parted behind each layer. What comes behind
// the last layer's block is in none.
std::vector<Block> find_blocks(const graph::Graph& reference,
                               const std::vector<graph::NodeId>& layers, int64_t most_layers);

// A layer's result before its activation, of its operand.
using LayerFunction = std::function<Tensor(const PreparedLayer& layer, const Tensor& x)>;

// The value that a dequantize reads, or v itself.
graph::ValueId root_of(const graph::Graph& g, graph::ValueId v);

// Nodes first..last of a reference graph as a function. What is quantized is fake-quantized;
// autograd records it. The graph and the layers, by their nodes, outlive it.
class GraphFunction {
 public:
  using Layers = std::map<graph::NodeId, const PreparedLayer*>;
  GraphFunction(const graph::Graph& g, graph::NodeId first, graph::NodeId last,
                const Layers& layers);
  // What is computed before and read here, or is an input of the graph: not constants.
  const std::vector<graph::ValueId>& reads() const { return reads_; }
  // The values `wanted`, of those that it reads.
  std::vector<Tensor> operator()(const std::vector<Tensor>& inputs, const LayerFunction& of_layer,
                                 const std::vector<graph::ValueId>& wanted) const;

 private:
  const graph::Graph& g_;
  graph::NodeId first_, last_;
  const Layers& layers_;
  std::vector<graph::ValueId> reads_;
};

// What an algorithm sees of a block, with all blocks before it as they have been left.
struct BlockStep {
  std::vector<const PreparedLayer*> layers;
  std::vector<std::pair<Tensor, Tensor>>
      parameters;  // of each: float weight and bias, or undefined
  std::vector<std::vector<Tensor>>
      inputs;                   // by batch: what the block reads, of the quantized network
  std::vector<Tensor> targets;  // by batch: the float network's result
  // The block's result. What is quantized in it is fake-quantized; autograd records it.
  std::function<Tensor(const std::vector<Tensor>& inputs, const LayerFunction& layer)> run;
};

// Calls `visit` for each block in order; it may set weights and biases of the block's layers in
// `prepared`. Otherwise as for_each_layer; progress counts blocks.
void for_each_block(ObservedGraphModule& prepared, const Samples& samples, int64_t most_layers,
                    const LayerwiseOptions& options, const char* who,
                    const std::function<void(const BlockStep&)>& visit);

}  // namespace octet::quant
