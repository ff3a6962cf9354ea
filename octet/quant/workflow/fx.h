#pragma once
// Graph mode (torch.ao.quantization.quantize_fx): a model is traced, or a network comes as a graph
// (from ONNX, say), and the graph is rewritten.
//
//   model->eval();
//   // Observers.
//   auto prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(), {example});
//   for (const Tensor& batch : data) (*prepared)(batch);  // calibrate
//   auto int8 = quant::convert_fx(prepared);              // quantized modules
//   runtime::Program fast = runtime::compile(int8->to_graph());
//
// What the model calls is found by graph::trace, so nothing in it needs stubs or FloatFunctionals.
// Everything is driven by a QConfigMapping (what to quantize, how) and a BackendConfig (what can
// be). Each function works on a deep copy. A graph goes the same way:
//
//   auto prepared = quant::prepare_fx(io::import_onnx("net.onnx"), quant::get_default_qconfig());
//   for (const Tensor& batch : data) (*prepared)(batch);
//   graph::Graph int8 = quant::convert_fx(prepared)->graph();

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <typeindex>
#include <vector>

#include "octet/graph/graph_module.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/trace.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/qconfig_mapping.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/workflow/findings.h"
#include "octet/quant/workflow/report.h"

namespace octet::quant {

class PrepareCustomConfig;

// How a standalone module is quantized: on its own, as one unit of the model around it. What is
// left out is taken from that.
struct StandaloneModuleConfig {
  std::optional<QConfigMapping> qconfig_mapping = {};
  // which of its inputs and outputs are codes
  std::shared_ptr<const PrepareCustomConfig> prepare_custom_config = {};
  std::optional<BackendConfig> backend_config = {};
};

// torch.ao.quantization.fx.custom_config.PrepareCustomConfig. Paths and classes that the model does
// not have are errors.
class PrepareCustomConfig {
 public:
  using Make = std::function<nn::ModulePtr(nn::Module&)>;

  PrepareCustomConfig& set_standalone_module_name(const std::string& path,
                                                  StandaloneModuleConfig config = {}) {
    standalone_names[path] = std::move(config);
    return *this;
  }
  template <typename M>
  PrepareCustomConfig& set_standalone_module_class(StandaloneModuleConfig config = {}) {
    standalone_classes[std::type_index(typeid(M))] = std::move(config);
    return *this;
  }
  // Modules that users quantize themselves, when their qconfig asks for that mode. `Observed` has
  //   struct Observed : nn::Module {
  //     static std::shared_ptr<Observed> from_float(Float& module);
  //   };
  // The float module's qconfig is set before. Its float results, however many there are, get
  // observers.
  template <typename Float, typename Observed>
  PrepareCustomConfig& set_float_to_observed_mapping(QuantMode mode = QuantMode::statically) {
    float_to_observed[mode][std::type_index(typeid(Float))] = [](nn::Module& m) -> nn::ModulePtr {
      return Observed::from_float(static_cast<Float&>(m));
    };
    return *this;
  }
  // Modules whose forward is not followed (TraceOptions); they stay float, unless the backend has a
  // pattern for their class (such classes need not be named here).
  PrepareCustomConfig& set_non_traceable_module_names(std::vector<std::string> paths) {
    non_traceable_names = std::move(paths);
    return *this;
  }
  template <typename... Ms>
  PrepareCustomConfig& set_non_traceable_module_classes() {
    (non_traceable_classes.insert(std::type_index(typeid(Ms))), ...);
    return *this;
  }
  // Inputs that are codes and results that stay codes after convert, by number. During calibration
  // they are floats.
  PrepareCustomConfig& set_input_quantized_indexes(std::vector<int> indexes) {
    input_quantized_indexes = std::move(indexes);
    return *this;
  }
  PrepareCustomConfig& set_output_quantized_indexes(std::vector<int> indexes) {
    output_quantized_indexes = std::move(indexes);
    return *this;
  }
  // Submodules that the graph does not call but that are to be kept, by path.
  PrepareCustomConfig& set_preserved_attributes(std::vector<std::string> paths) {
    preserved_attributes = std::move(paths);
    return *this;
  }

  // Operators and modules that exchange codes with no layer stay float (decide.h); PyTorch
  // quantizes them.
  PrepareCustomConfig& set_leave_islands_float(bool leave) {
    leave_islands_float = leave;
    return *this;
  }

  // Functions of one value after one another become one table of codes (decide.h); PyTorch rounds
  // to codes between them.
  PrepareCustomConfig& set_join_tables(bool join) {
    join_tables = join;
    return *this;
  }

  bool leave_islands_float = true, join_tables = true;
  std::map<std::string, StandaloneModuleConfig> standalone_names;
  std::map<std::type_index, StandaloneModuleConfig> standalone_classes;
  std::map<QuantMode, std::map<std::type_index, Make>> float_to_observed;
  std::vector<std::string> non_traceable_names;
  std::set<std::type_index> non_traceable_classes;
  std::vector<int> input_quantized_indexes, output_quantized_indexes;
  std::vector<std::string> preserved_attributes;
};

class ConvertCustomConfig {
 public:
  using Make = std::function<nn::ModulePtr(nn::Module&)>;
  // `Quantized` has
  //   struct Quantized : nn::Module {
  //     static std::shared_ptr<Quantized> from_observed(Observed& module);
  //   };
  // The observed module's qconfig and its child activation_post_process (the observer of its first
  // result) are there. In static quantization the quantized module takes and gives codes.
  template <typename Observed, typename Quantized>
  ConvertCustomConfig& set_observed_to_quantized_mapping(QuantMode mode = QuantMode::statically) {
    observed_to_quantized[mode][std::type_index(typeid(Observed))] =
        [](nn::Module& m) -> nn::ModulePtr {
      return Quantized::from_observed(static_cast<Observed&>(m));
    };
    return *this;
  }
  // The model need not be calibrated, because load_state_dict will set what calibration would have
  // found. What observers that saw no data would have said is unset: until then, calling the model
  // and reading its graph is an Error naming that.
  bool for_loading = false;
  std::map<QuantMode, std::map<std::type_index, Make>> observed_to_quantized = {};
};

// A graph with observers (or fake-quantize modules) as module calls "activation_post_process_0",
// ...: what prepare_fx returns. Calling it calibrates. In eval mode a graph of operators runs as a
// compiled program, and autograd records nothing; other graphs are run call by call. Where an
// operator keeps qparams, its operand's observer stands behind its result too, but is not shown
// that again: what a pool or a reshape gives lies within what it was given. (PyTorch shows it.)
class ObservedGraphModule : public graph::GraphModule {
 public:
  // What prepare_fx decided, besides the graph.
  struct Preparation {
    // By the name of a call's (first) result in the graph.
    std::map<std::string, NodeDecision> decisions;
    std::map<std::string, std::string> class_names;  // of the model's modules, by path
    std::vector<int> input_quantized_indexes, output_quantized_indexes;
    bool compiled = false;  // eval mode runs a compiled program
    // What calibrates ("": the process's choice), and what convert_fx asks unless it is given
    // another one; these are not saved.
    std::string engine;
    BackendConfig backend = get_native_backend_config();
  };
  ObservedGraphModule(graph::Graph graph, nn::Module& root, Preparation preparation);
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  using GraphModule::forward;

  // By the name of a call's (first) result in graph().
  const std::map<std::string, NodeDecision>& decisions() const { return made_.decisions; }
  std::map<std::string, std::optional<QConfig>> qconfig_map() const;
  // The path and class of the module whose forward calls a node, or that it calls
  // (graph::Node::scope).
  std::map<std::string, std::pair<std::string, std::string>> node_name_to_scope() const;
  const Preparation& preparation() const { return made_; }

  // The graph without its observers, which stand at its values.
  struct Watched {
    graph::Graph graph;
    std::vector<std::string> observer;   // by value: the path of its observer; "": it has none
    std::vector<bool> shown;             // by value: calibration shows it to that observer
    std::vector<graph::ValueId> source;  // by value: the one of graph() that it stands for
  };
  // With constants as they are now.
  Watched watched() const;
  // With constants as they were when it was prepared: for what looks at places alone. Copies none.
  Watched watched_as_prepared() const;
  // Of the observed values and of operands of cat, add and sub, by value of watched(): what eval
  // mode has seen. convert_fx warns of what they show to be lost.
  const SampleRanges& ranges() const { return ranges_; }
  void set_ranges(SampleRanges ranges) { ranges_ = std::move(ranges); }
  // The number that ranges() gives the next sample; forward counts on from there. For those who
  // show some samples of many, or out of order.
  void set_next_sample(int64_t number) { samples_ = number; }

  // -- what algorithms change between calibration and convert_fx (quant/algorithms) ---------------
  // Of a layer (a call of an operator with an observed weight) by its name in graph(). state_dict
  // and files keep what these set. Error not_found for other names, unsupported for module calls.
  //
  // The qparams that convert_fx will give the weight: from the range that was set, or of the weight
  // as it is now.
  QParams weight_qparams(const std::string& layer) const;
  // Sets the weight, of the old one's shape (undefined: it stays), and the range from which its
  // scale follows whatever the weight: (channels), or one of each per tensor. A weight on the grid
  // of weight_qparams() keeps its values in convert_fx. All layers that read the weight get it.
  void set_weight(const std::string& layer, const Tensor& weight, const std::vector<float>& min,
                  const std::vector<float>& max);
  // Sets the layer's bias (channels), which need not have had one, and that of no other layer.
  void set_bias(const std::string& layer, const Tensor& bias);

  Attrs config() const override;
  static std::shared_ptr<ObservedGraphModule> from_config(const Attrs& config);

 protected:
  void graph_changed() override { calibration_.reset(); }

 private:
  friend class FixedWeights;
  struct Calibration;
  // Of FixedWeights, which a copy of the network does not have.
  struct WeightCheck {
    WeightCheck() = default;
    WeightCheck(const WeightCheck&) {}
    WeightCheck& operator=(const WeightCheck&) { return *this; }
    int fixed = 0;      // how many live
    bool done = false;  // within them, the weights are known to be the program's
  };
  std::vector<Tensor> call_module(const graph::Node& node,
                                  const std::vector<Tensor>& operands) override;
  Tensor result(graph::ValueId id, Tensor value) override;
  bool is_shown(const graph::Node& observer) const;
  Calibration& calibration();
  const graph::Node& layer_node(const std::string& layer) const;
  const std::string& weight_observer_of(const graph::Node& layer) const;
  void set_parameter(const std::string& name, const Tensor& value);

  Preparation made_;
  std::shared_ptr<Calibration> calibration_;  // made when first run
  WeightCheck weight_check_;
  SampleRanges ranges_;
  int64_t samples_ = 0;  // seen in eval mode
};

// While one lives, nobody writes into the weights of `prepared`. A call in eval mode otherwise
// looks whether that was done, which reads all of them twice: 10% of what an image of ResNet-50
// takes. (What the network's own functions set is seen all the same.)
class FixedWeights {
 public:
  explicit FixedWeights(ObservedGraphModule& prepared) : check_(prepared.weight_check_) {
    if (check_.fixed++ == 0) check_.done = false;
  }
  ~FixedWeights() { --check_.fixed; }
  FixedWeights(const FixedWeights&) = delete;
  FixedWeights& operator=(const FixedWeights&) = delete;

 private:
  ObservedGraphModule::WeightCheck& check_;
};

using graph::GraphModule;

// The traced model with sequences fused as the backend's patterns say (conv + bn + relu ...): in
// eval mode batch norms are folded, in training mode they stay parts of fused modules.
std::shared_ptr<GraphModule> fuse_fx(const nn::ModulePtr& model,
                                     const std::vector<Tensor>& example_inputs,
                                     const BackendConfig& backend = get_native_backend_config(),
                                     const PrepareCustomConfig& custom = {});

// Traces, fuses, decides and attaches observers: one per value, shared where an operator keeps
// qparams. The model must be in eval mode; it is not changed. `example_inputs` only give types:
// their first dimension is the batch, which may have any size later (graph::trace). Errors, all
// before any data is seen: those of graph::trace; a name of the mapping that matches nothing; a
// model prepared already; nothing that can be quantized (with each reason).
std::shared_ptr<ObservedGraphModule> prepare_fx(
    const nn::ModulePtr& model, const QConfigMapping& mapping,
    const std::vector<Tensor>& example_inputs, const PrepareCustomConfig& custom = {},
    const BackendConfig& backend = get_native_backend_config());
// With input types, whose dims may be named: TensorType(DType::float32, {Dim("N"), Dim("T"), 64}).
std::shared_ptr<ObservedGraphModule> prepare_fx(
    const nn::ModulePtr& model, const QConfigMapping& mapping,
    const std::vector<TensorType>& inputs, const PrepareCustomConfig& custom = {},
    const BackendConfig& backend = get_native_backend_config());

// For quantization-aware training: layers become their QAT forms, observers fake-quantize. The
// model must be in training mode.
std::shared_ptr<ObservedGraphModule> prepare_qat_fx(
    const nn::ModulePtr& model, const QConfigMapping& mapping,
    const std::vector<Tensor>& example_inputs, const PrepareCustomConfig& custom = {},
    const BackendConfig& backend = get_native_backend_config());
std::shared_ptr<ObservedGraphModule> prepare_qat_fx(
    const nn::ModulePtr& model, const QConfigMapping& mapping,
    const std::vector<TensorType>& inputs, const PrepareCustomConfig& custom = {},
    const BackendConfig& backend = get_native_backend_config());

// The same for a network that is a graph of operators. Batch norms and added constants are folded
// into the layers before them and activations fused first. A call is known to the mapping by its
// name (as a module's), its operator (object type) and its number among the calls of that operator.
// What can be known to be wrong is reported here, before any sample is read: a graph that is
// quantized already, a NaN in a weight, a qconfig that cannot be honoured, a name or pattern that
// matches nothing, and if nothing can be quantized.
struct PrepareOptions {
  std::vector<std::string> skip = {};  // nodes that stay float: names, globs, or re:expressions
  std::string engine = {};             // the engine that calibrates; "" is the process's choice
  BackendConfig backend = get_native_backend_config();  // what can be quantized
};
std::shared_ptr<ObservedGraphModule> prepare_fx(const graph::Graph& graph,
                                                const QConfigMapping& mapping,
                                                const PrepareOptions& options = {});
std::shared_ptr<ObservedGraphModule> prepare_qat_fx(const graph::Graph& graph,
                                                    const QConfigMapping& mapping,
                                                    const PrepareOptions& options = {});

// Without calibration: only weights are quantized. Linear and convolution nodes with a constant
// float weight become their dynamic forms (linear_dynamic, ...): inputs are quantized at each call
// from their own range, results are float (docs/numerics.md "Run-time choice"). So do lstm, gru and
// rnn, which keep their names and take codes. Everything else stays as it is. Per-channel weight
// observers run along the output channels. Weights of linear nodes whose quant_min..quant_max are
// of 4 bits (-8..7; quint8: 0..15) are kept two codes to a byte. Error if there is no such node.
// The report lists the nodes that have a weight.
graph::Graph quantize_dynamic_fx(const graph::Graph& graph,
                                 const QConfig& qconfig = default_dynamic_qconfig(),
                                 const PrepareOptions& options = {},
                                 ConversionReport* report = nullptr);
// The same nodes with quantized weights and float arithmetic (linear_weight_only, ...): smaller
// files.
graph::Graph quantize_weight_only_fx(
    const graph::Graph& graph,
    const ObserverFactory& weight = default_per_channel_weight_observer(),
    const PrepareOptions& options = {}, ConversionReport* report = nullptr);

// -- convert: three passes ------------------------------------------------------------------------

// 1. Observers become quantize and dequantize, layers with weights their reference forms: float
// arithmetic on dequantized codes, which any backend can take. Dynamic and weight-only layers are
// there already as what they will be. Inputs keep their names; results are float under theirs,
// unless they were prepared to stay codes. Error not_calibrated naming every observer that saw no
// data, unless custom.for_loading. Without `backend`: the one that prepare_fx was given.
std::shared_ptr<GraphModule> convert_to_reference_fx(
    const std::shared_ptr<ObservedGraphModule>& prepared, const ConvertCustomConfig& custom = {},
    const std::optional<BackendConfig>& backend = {}, ConversionReport* report = nullptr);

// 2. and 3. dequantize -> module -> quantize becomes the module that the backend's pattern names
// for it (quantized_modules); modules that keep qparams take codes; dequantize -> operator ->
// quantize becomes the operator on codes (graph::merge_qdq). `merge` may forbid it for single
// nodes, which then stay between dequantize and quantize. To change, add or take away one rule,
// change that pattern of the backend.
std::shared_ptr<GraphModule> lower(const std::shared_ptr<GraphModule>& reference,
                                   const BackendConfig& backend = get_native_backend_config(),
                                   const graph::MergePredicate& merge = nullptr);

// All of them. With `strict`, an Error that lists the calls that stayed float, if any computes.
std::shared_ptr<GraphModule> convert_fx(const std::shared_ptr<ObservedGraphModule>& prepared,
                                        const ConvertCustomConfig& custom = {},
                                        const std::optional<BackendConfig>& backend = {},
                                        ConversionReport* report = nullptr, bool strict = false);
inline std::shared_ptr<GraphModule> convert_fx(const std::shared_ptr<ObservedGraphModule>& prepared,
                                               ConversionReport* report, bool strict = false) {
  return convert_fx(prepared, ConvertCustomConfig(), std::nullopt, report, strict);
}

}  // namespace octet::quant
