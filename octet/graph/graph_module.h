#pragma once
// A graph as a module, so that an imported network can be trained: its float weights are parameters, its operators are
// called one by one and recorded by autograd.
//
//   auto model = nn::make<graph::GraphModule>(import_onnx("net.onnx").graph);
//   nn::optim::SGD optimizer(model->parameters(), {.lr = 0.01});
//   ... loss, backward, step ...
//   graph::Graph trained = model->to_graph();

#include <map>
#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/nn/module.h"

namespace octet::graph {

class GraphModule : public nn::Module {
 public:
  // Parameters are the float32 constants that operators take as weight or bias, and matrices that matmul takes; they keep
  // their names. Statistics of batch norms are buffers; other constants stay as they are. Error if the graph is quantized.
  explicit GraphModule(Graph graph);

  // The graph's results for its inputs, in its order. In training mode batch norms use the batch's statistics and move
  // the running ones, and dropout drops.
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  Tensor forward(Tensor x) override;  // for one input: the first result

  // The structure, with the constants it was made with.
  const Graph& graph() const { return graph_; }
  // The graph with the parameters and buffers as they are now.
  Graph to_graph() const;
  // The same for another graph whose constants have these names: that this one was cut from, say.
  Graph with_values(const Graph& other) const;

 protected:
  // For those that put something between operators: what operand i of a call is to be, and what a call's result is to be
  // for those that use it.
  virtual Tensor operand(const Node& node, size_t i, const std::vector<Tensor>& values);
  virtual Tensor result(ValueId id, Tensor value) { return (void)id, value; }

 private:
  std::vector<Tensor> evaluate(const Node& node, std::vector<Tensor> operands);

  Graph graph_;
  std::map<ValueId, std::string> trained_;  // the constants that are parameters or buffers
};

// The graph without a softmax as its last operator, for losses that take scores before softmax; itself if there is none.
Graph without_final_softmax(const Graph& graph);

}  // namespace octet::graph
