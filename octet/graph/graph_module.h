#pragma once
// A graph as a module: its operators are called one by one and recorded by autograd, its module
// calls call the modules it holds, at their paths. What graph::trace returns, and how an imported
// network is trained:
//
//   auto model = nn::make<graph::GraphModule>(io::import_onnx("net.onnx"));
//   nn::optim::SGD optimizer(model->parameters(), {.lr = 0.01});
//   for (const Tensor& batch : data) {
//     optimizer.zero_grad();
//     autograd::backward(model->forward(batch).sum());
//     optimizer.step();
//   }
//   graph::Graph trained = model->to_graph();

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/nn/module.h"

namespace octet::graph {

class GraphModule : public nn::Module {
 public:
  // Of a graph without module calls. Parameters are the float32 constants that operators take as
  // weight or bias, and matrices that matmul takes; they keep their names. Statistics of batch
  // norms are buffers; other constants stay as they are. Error if the graph is quantized.
  explicit GraphModule(Graph graph);
  // Of a graph traced from `root`, or rewritten from such a graph: holds the modules that it calls,
  // at their paths, and the parameters and buffers of root that are constants of the graph under
  // their names (and what root preserves); all shared with root. Error naming the path if root has
  // no such module.
  GraphModule(Graph graph, nn::Module& root);

  // The graph's results for its inputs, in its order. In training mode batch norms use the batch's
  // statistics and move the running ones, and dropout drops.
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  Tensor forward(Tensor x) override;  // for one input: the first result

  // The structure, with the constants it was made with. Error if qparams in it are unset
  // (Module::await_state).
  const Graph& graph() const {
    if (!awaited_state().empty()) check_state();
    return graph_;
  }
  // Another graph over the same modules: for passes. Modules it does not call are dropped, with
  // drop_unused. Errors as of the constructor.
  void set_graph(Graph graph, bool drop_unused = true);
  // Keeps the module at this path though the graph does not call it, also in graph modules made
  // from this one.
  void preserve(const std::string& path);
  // Puts a module at a path, making the places on the way there.
  void put_module(const std::string& path, nn::ModulePtr module);
  // The graph of operators that this computes in eval mode, with the parameters and buffers as they
  // are now: what is compiled, saved and exported. Module calls are replaced by what the modules
  // call; those that cannot be traced stay.
  Graph to_graph() const;
  // The same for another graph whose constants have these names: that this one was cut from, say.
  Graph with_values(const Graph& other) const;
  // Whether that would change no constant of the other graph.
  bool has_values_of(const Graph& other) const;

  Attrs config() const override;
  static std::shared_ptr<GraphModule> from_config(const Attrs& config);
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

 protected:
  // Called when graph() has become another one.
  virtual void graph_changed() {}
  // Makes an empty one what config() said; constants are zero until the state is loaded.
  void load_config(const Attrs& config);
  // For those that put something between operators: what operand i of a call is to be, and what a
  // call's result is to be for those that use it.
  virtual Tensor operand(const Node& node, size_t i, const std::vector<Tensor>& values);
  virtual Tensor result(ValueId, Tensor value) { return value; }
  virtual std::vector<Tensor> call_module(const Node& node, const std::vector<Tensor>& operands) {
    return (*submodule(node.scope))(operands);
  }

 private:
  std::vector<Tensor> evaluate(const Node& node, std::vector<Tensor> operands);
  void own_constant(ValueId id, const Tensor& value, bool buffer);

  Graph graph_;
  std::vector<std::string> preserved_;
  std::map<ValueId, std::string> trained_;  // the constants that are parameters or buffers
};

// The graph without a softmax as its last operator, for losses that take scores before softmax;
// itself if there is none.
Graph without_final_softmax(const Graph& graph);

}  // namespace octet::graph
