#pragma once
// The numeric suite of graph mode (torch.ao.ns._numeric_suite_fx): two graphs of one model (float,
// prepared, quantized) matched layer by layer, their weights and values beside each other. Names
// and keys are PyTorch's.
//
//   namespace ns = debug::fx;
//   auto prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(), {example});
//   for (const Tensor& batch : data) (*prepared)(batch);
//   auto lowered = quant::convert_fx(prepared);
//   // Weights.
//   auto weights = ns::extract_weights("fp32", *prepared, "int8", *lowered);
//   ns::extend_logger_results_with_comparison(weights, "fp32", "int8", debug::compute_sqnr,
//                                             "sqnr");
//   std::cout << weights["conv"]["weight"]["int8"][0].comparisons["sqnr"][0] << " dB\n";
//   // Values, each graph on its own: errors add up.
//   auto [a, b] = ns::add_loggers("fp32", prepared, "int8", lowered);
//   (*a)(x), (*b)(x);
//   auto values = ns::extract_logger_info(*a, *b, "int8");
//   // Each float layer on what the quantized one is given: errors do not add up.
//   auto both = ns::add_shadow_loggers("fp32", prepared, "int8", lowered);
//   (*both)(x);
//   auto shadows = ns::extract_shadow_logger_info(*both, "int8");
//
// Loggers are modules in the graph, as observers are. The graphs given are not changed; modules
// (weights, quantized layers) are shared with them. What add_loggers returns shows nothing to
// observers, so that looking at a prepared model does not change what it was calibrated to.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "octet/debug/metrics.h"
#include "octet/graph/graph_module.h"
#include "octet/quant/backend/object_type.h"

namespace octet::debug::fx {

// What was found of one node in one model.
struct NSSingleResultType {
  std::string type;  // "weight", "node_output", "node_input"
  // The weight (several of a recurrent layer); or a tensor for each call.
  std::vector<Tensor> values = {};
  // The node that was asked about, by its name in the graph, and what it calls
  // ("octet::nn::Conv2d", "add"); the node whose value it is: for node_input, the operand's.
  std::string ref_node_name, ref_node_target_type;
  std::string prev_node_name, prev_node_target_type;
  // cat({x1, x2}): x2 has index_within_arg 1; add(x1, x2): x2 has index_of_arg 1.
  int64_t index_within_arg = 0, index_of_arg = 0;
  // The path of the module that is called, or whose forward calls the operator; of matched layers
  // that in model a.
  std::string fqn = "";
  // Of prepare_n_shadows_model: the shadow's qconfig, the number of the layer, and which of its
  // qconfigs it is, from 1; 0 is the float layer.
  std::string qconfig_str = "";
  int subgraph = 0, candidate = 0;
  // What extend_logger_results_with_comparison found, by its name, one number for each value; of
  // prepare_n_shadows_model's loggers "sqnr".
  std::map<std::string, std::vector<double>> comparisons = {};
};

// By layer (the node's name in the model that layers are named after), by type ("weight",
// "node_output", "node_input"), by model: results[layer][type][model][i]. Several only for
// node_input, in the order of operands, and for node_output of a layer with several results (an
// LSTM, split, topk): index_within_arg is the result's number (PyTorch has tuples of an LSTM's in
// one entry, and nothing of others).
using NSResultsType =
    std::map<std::string,
             std::map<std::string, std::map<std::string, std::vector<NSSingleResultType>>>>;

// -- matching -------------------------------------------------------------------------------------

// Types that are one operation in different forms, by a name: "3": {nn::Conv2d, ConvReLU2d,
// nn::quantized::Conv2d ...}. Modules and operators are never one.
using RelatedOps = std::map<std::string, std::vector<quant::ObjectType>>;
// What the native backend's patterns relate: float, fused, QAT, reference and quantized forms of a
// layer; operators and their forms with quantized weights (linear, linear_dynamic ...).
RelatedOps get_base_name_to_sets_of_related_ops();
// Adds a type to the set that related_op is in (Error if there is none), or as a set of its own.
void add_op_to_sets_of_related_ops(RelatedOps& sets, const quant::ObjectType& op,
                                   const std::optional<quant::ObjectType>& related_op);
// Types that have no counterpart to look for: quantize, dequantize, and what only moves elements.
// (Not flatten and cat, which PyTorch matches.)
std::vector<quant::ObjectType> get_unmatchable_types_map();

struct MatchOptions {
  RelatedOps base_name_to_sets_of_related_ops = fx::get_base_name_to_sets_of_related_ops();
  std::vector<quant::ObjectType> unmatchable_types_map = fx::get_unmatchable_types_map();
};

// A layer with what was or will be fused into it and its observer, from start to end; they follow
// each other through their first operands and results. `base` is the layer.
struct NSSubgraph {
  graph::NodeId start_node = -1, end_node = -1, base_op_node = -1;
};

// The layers of both graphs, pairwise, under names "base_op_SET_NUMBER" that are the same for
// graphs that match; in the order of execution. Both are gone through from their outputs; Error,
// naming the pair, where the next two are not related, or where one graph has no more. Operations
// that are in no set are passed over if they are the same in both.
std::vector<std::pair<std::string, std::pair<NSSubgraph, NSSubgraph>>> get_matching_subgraph_pairs(
    const graph::GraphModule& gm_a, const graph::GraphModule& gm_b,
    const MatchOptions& options = {});

// -- weights --------------------------------------------------------------------------------------

// The weights of matching layers: float32 or quantized tensors. Layers are named after model b.
NSResultsType extract_weights(const std::string& model_name_a, const graph::GraphModule& model_a,
                              const std::string& model_name_b, const graph::GraphModule& model_b,
                              const MatchOptions& options = {});

// -- loggers --------------------------------------------------------------------------------------

// Keeps every tensor that passes: memory grows with the data.
class OutputLogger : public nn::Module {
 public:
  // What it logs: `result` without values. ref_name matches loggers of two models.
  struct Place {
    std::string model_name, ref_name;
    NSSingleResultType result;
  };
  explicit OutputLogger(Place place) : place(std::move(place)) {}
  Tensor forward(Tensor x) override;  // keeps x and returns it
  std::string extra_repr() const override;

  Place place;
  std::vector<Tensor> stats;
  bool enabled = true;           // false: looks at nothing
  bool save_activations = true;  // false: keeps no tensors
};

using MakeLogger = std::function<std::shared_ptr<OutputLogger>(OutputLogger::Place)>;
// PyTorch's logger_cls: logger_class<OutputLogger>().
template <typename L>
MakeLogger logger_class() {
  return [](OutputLogger::Place place) { return nn::make<L>(std::move(place)); };
}

using GraphModulePtr = std::shared_ptr<graph::GraphModule>;

// Both models with loggers at all results of matching layers, and with should_log_inputs at their
// data operands too. For graphs in eval mode.
std::pair<GraphModulePtr, GraphModulePtr> add_loggers(
    const std::string& name_a, const GraphModulePtr& model_a, const std::string& name_b,
    const GraphModulePtr& model_b, const MakeLogger& logger = logger_class<OutputLogger>(),
    bool should_log_inputs = false, const MatchOptions& options = {});

// What all loggers of both models kept. Layers are named after the model of that name.
NSResultsType extract_logger_info(const nn::Module& model_a, const nn::Module& model_b,
                                  const std::string& model_name_to_use_for_layer_names);

// Model b with the layers of a beside its own, each on b's operands (dequantized, or quantized as a
// has them), and loggers at both results (and operands). Its results are b's. A layer is left
// without a shadow where one of a's operands within it is neither a constant nor b's, or where its
// qparams are not known.
GraphModulePtr add_shadow_loggers(const std::string& name_a, const GraphModulePtr& model_a,
                                  const std::string& name_b, const GraphModulePtr& model_b,
                                  const MakeLogger& logger = logger_class<OutputLogger>(),
                                  bool should_log_inputs = false, const MatchOptions& options = {});

NSResultsType extract_shadow_logger_info(const nn::Module& model_a_shadows_b,
                                         const std::string& model_name_to_use_for_layer_names);

// The error of each layer of `quantized`, by its name there (of further results ":1" and so on
// behind it; those of integers are left out), over all samples (the graphs' inputs):
// own, of the layer fed the float model's values (which it rounds to its operands' codes), and
// total, within the quantized model. The graphs run three times on each sample; memory does not
// grow with their number. Layers whose operands have no counterpart (add_shadow_loggers) are left
// out.
std::map<std::string, LayerError> split_layer_errors(
    const GraphModulePtr& float_model, const GraphModulePtr& quantized,
    const std::vector<std::vector<Tensor>>& samples, const MatchOptions& options = {});

// Adds comparison_fn(value of model 1, value of model 2) of every value to model 2's results, as
// comparisons[comparison_name]. Error if a layer lacks one of the models or an operand.
void extend_logger_results_with_comparison(
    NSResultsType& results, const std::string& model_name_1, const std::string& model_name_2,
    const std::function<double(const Tensor&, const Tensor&)>& comparison_fn,
    const std::string& comparison_name);

}  // namespace octet::debug::fx
