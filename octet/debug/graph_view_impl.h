#pragma once
// What the numeric suite of graph mode asks of a graph and its modules, and graphs with modules put
// between their nodes.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "octet/debug/numeric_suite_fx.h"

namespace octet::debug::fx {

struct View {
  explicit View(const graph::GraphModule& gm);
  const graph::GraphModule& gm;
  graph::Graph g;  // with its constants as they are now
  std::vector<int> uses;

  nn::ModulePtr module(const graph::Node& node) const;  // null for calls
  bool is_observer(const graph::Node& node) const;      // or a fake-quantize module
  bool is_computed(const graph::Node& node) const;      // a call or a module call
  quant::ObjectType type(const graph::Node& node) const;
  // "octet::nn::Conv2d", "add"; of classes that are not registered "Net".
  std::string type_name(const graph::Node& node) const;
  // What it is called: its first value, without what convert adds to the codes of a float value.
  std::string name(const graph::Node& node) const;
  // The path of the module that it calls or that calls it; of an observer, of what it observes.
  std::string fqn(const graph::Node& node) const;
  const graph::Node& node_before(const graph::Node& node) const;  // that makes its first operand
  // Through observers.
  bool is_constant(graph::ValueId id) const;
  const Tensor& constant(graph::ValueId id) const;
  // The operands that are not constants, by their number.
  std::vector<size_t> data_operands(const graph::Node& node) const;
};

// A graph over the modules of another and some more. Its observers are not shown anything in eval
// mode.
class Instrumented : public graph::GraphModule {
 public:
  using GraphModule::forward;
  using GraphModule::GraphModule;

 protected:
  std::vector<Tensor> call_module(const graph::Node& node,
                                  const std::vector<Tensor>& operands) override;
};

// Rewrites the graph of a View and collects the modules that are put into it.
class Instrument {
 public:
  explicit Instrument(const View& view) : view_(view), rewriter_(view.g) {}
  graph::Rewriter& rewriter() { return rewriter_; }
  // Calls a module on values of the new graph, under this name or, `numbered`, with the next free
  // number behind it. The first result.
  graph::ValueId call(const std::string& name, const nn::ModulePtr& module,
                      const std::string& class_name, std::vector<graph::ValueId> operands,
                      const std::vector<TensorType>& types, bool numbered = true);
  // The same, all results.
  std::vector<graph::ValueId> calls(const std::string& name, const nn::ModulePtr& module,
                                    const std::string& class_name,
                                    std::vector<graph::ValueId> operands,
                                    const std::vector<TensorType>& types, bool numbered = true);
  // A logger behind a value of the new graph.
  graph::ValueId log(graph::ValueId value, const std::string& name, const MakeLogger& logger,
                     OutputLogger::Place place);
  // The graph that visit makes, over the View's modules and those that were put in.
  GraphModulePtr run(const std::function<bool(graph::Rewriter&, const graph::Node&)>& visit);

 private:
  const View& view_;
  graph::Rewriter rewriter_;
  std::vector<std::pair<std::string, nn::ModulePtr>> modules_;
};

// Collects what the loggers within a model kept, by their ref_names.
void collect(const nn::Module& model, NSResultsType& results);

}  // namespace octet::debug::fx
