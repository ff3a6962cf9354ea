#pragma once
// The numeric suite of eager mode (torch.ao.ns._numeric_suite): a float model beside the quantized
// one that was made of it, layer by layer. Names and keys are PyTorch's.
//
//   // Weights.
//   for (auto& [key, w] : debug::compare_weights(*model, *int8))
//     std::cout << key << " " << debug::compute_sqnr(w["float"], w["quantized"]) << "\n";
//   // Results of modules, each model on its own: errors add up.
//   for (auto& [key, y] : debug::compare_model_outputs(*model, *int8, {x}))
//     std::cout << key << " " << debug::compute_sqnr(y["float"][0], y["quantized"][0]) << "\n";
//   // Each quantized module beside its float one on the same input: errors do not add up.
//   for (auto& [key, y] : debug::compare_model_stub(*model, *int8, {typeid(nn::Conv2d)}, {x}))
//     std::cout << key << " " << debug::compute_sqnr(y["float"][0], y["quantized"][0]) << "\n";
//
// The last two change the models: they attach loggers and put Shadows into places. Work on clones
// to keep the models as they are. Loggers keep what they see, so memory grows with the data; for a
// logger that only keeps statistics give ErrorLogger, or a Logger of your own.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <typeindex>
#include <vector>

#include "octet/debug/metrics.h"
#include "octet/nn/module.h"
#include "octet/quant/modules/float_functional.h"

namespace octet::debug {

using StateDict = std::map<std::string, Tensor>;
// "float" and "quantized": a tensor each, or those of all calls, in order.
using ComparedWeights = std::map<std::string, std::map<std::string, Tensor>>;
using LoggerStats = std::map<std::string, std::vector<Tensor>>;
using LoggerDict = std::map<std::string, LoggerStats>;

// The weights of a quantized model beside the float ones: by key of the quantized state dict
// ("conv.weight"), the tensors "float" (float32) and "quantized" (quantized, of the same shape).
// A weight's float one is that of the same path, or of the path's part "0" (a layer fused in the
// float model alone). Keys without one are left out.
ComparedWeights compare_weights(const StateDict& float_dict, const StateDict& quantized_dict);
ComparedWeights compare_weights(nn::Module& float_model, nn::Module& quantized_model);

// Base of what sees results. log() gets the result of a module; of a Shadow, the quantized module's
// and the float module's. `stats` is what get_logger_dict collects.
class Logger : public nn::Module {
 public:
  LoggerStats stats;
  virtual void log(const Tensor& x);                   // Error unless overridden
  virtual void log(const Tensor& x, const Tensor& y);  // Error unless overridden
  // All results of a module (an LSTM's: outputs and states); of a Shadow, of both. The first goes
  // to log(); what is behind it, here nowhere.
  virtual void log_results(const std::vector<Tensor>& xs) { log(xs.at(0)); }
  virtual void log_results(const std::vector<Tensor>& xs, const std::vector<Tensor>& ys) {
    log(xs.at(0), ys.at(0));
  }
  // So that FloatFunctional can call it as its observer: logs x and returns it.
  Tensor forward(Tensor x) override;
};

// Keeps the results: stats["tensor_val"]; of a module's further ones "tensor_val.1" and so on,
// where PyTorch keeps tuples.
class OutputLogger : public Logger {
 public:
  OutputLogger() { stats["tensor_val"]; }
  using Logger::log;
  void log(const Tensor& x) override;
  using Logger::log_results;
  void log_results(const std::vector<Tensor>& xs) override;
};

// Keeps both results: stats["quantized"] and stats["float"], of further ones "quantized.1" and so
// on. (PyTorch's keeps the first row only where a result has several, and the first result.)
class ShadowLogger : public Logger {
 public:
  ShadowLogger() { stats["float"], stats["quantized"]; }
  using Logger::log;
  void log(const Tensor& x, const Tensor& y) override;
  using Logger::log_results;
  void log_results(const std::vector<Tensor>& xs, const std::vector<Tensor>& ys) override;
};

// For Shadows: keeps the statistics of the error instead of tensors, however much data it sees.
class ErrorLogger : public Logger {
 public:
  using Logger::log;
  void log(const Tensor& x, const Tensor& y) override { error.add(y, x); }
  using Logger::log_results;
  void log_results(const std::vector<Tensor>& xs, const std::vector<Tensor>& ys) override;
  ErrorStatistics error;
  std::vector<ErrorStatistics> further;  // of the results behind the first
};

using MakeLogger = std::function<std::shared_ptr<Logger>()>;
// PyTorch's logger_cls: logger_class<OutputLogger>().
template <typename L>
MakeLogger logger_class() {
  return [] { return nn::make<L>(); };
}

// A quantized module with its float one beside it: both compute, on the same input (dequantized for
// the float one), `logger` sees the results of both, and the quantized ones go on. Children:
// orig_module, shadow_module, logger.
class Shadow : public nn::Module {
 public:
  Shadow(nn::ModulePtr q_module, nn::ModulePtr float_module, const MakeLogger& logger);
  Tensor forward(Tensor x) override;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
};

// The same for FloatFunctionals: of their operations.
class ShadowFunctional : public nn::quantized::FloatFunctional {
 public:
  ShadowFunctional(nn::ModulePtr q_module, nn::ModulePtr float_module, const MakeLogger& logger);

 protected:
  Tensor apply(const char* op, const std::vector<Tensor>& operands, const Attrs& attrs) override;
  Tensor apply_scalar(const char* op, const Tensor& x, double y) override;
};

// Puts Shadows in the places of q_module where float_module has a module of a class in
// module_swap_list, unless it is the same class there (it stayed float). The float modules are
// shared with float_module. Modules of other classes are searched.
void prepare_model_with_stubs(nn::Module& float_module, nn::Module& q_module,
                              const std::set<std::type_index>& module_swap_list,
                              const MakeLogger& logger = logger_class<ShadowLogger>());

// prepare_model_with_stubs, one call of q_model, get_logger_dict: by path and ".stats"
// ("conv.stats"), what the loggers kept ("float", "quantized").
LoggerDict compare_model_stub(nn::Module& float_model, nn::Module& q_model,
                              const std::set<std::type_index>& module_swap_list,
                              const std::vector<Tensor>& data,
                              const MakeLogger& logger = logger_class<ShadowLogger>());

// What all loggers in the model kept, by path of the module they belong to and ".stats", behind
// `prefix` and a dot if it is not empty.
LoggerDict get_logger_dict(const nn::Module& model, const std::string& prefix = "");

// The classes whose results prepare_model_outputs logs by default: those that eager mode swaps
// (module_mappings.h), and what it makes of them.
bool is_compared_output(const nn::Module& module);

// Attaches a logger, as child "activation_post_process", to each module that `allow` admits and
// that has no submodules (fused modules and FloatFunctionals as a whole; no Dropout, no
// DeQuantStub), in both models. Error if the model has observers: compare the float model, not the
// prepared one.
void prepare_model_outputs(
    nn::Module& float_module, nn::Module& q_module,
    const MakeLogger& logger = logger_class<OutputLogger>(),
    const std::function<bool(const nn::Module&)>& allow = is_compared_output);

// After prepare_model_outputs and calls: what the loggers of both models kept at matching places,
// by the quantized model's key ("conv.stats"): "float" and "quantized", one tensor for each call;
// of modules with several results also "float.1", "quantized.1" and so on.
LoggerDict get_matching_activations(const nn::Module& float_module, const nn::Module& q_module);

// prepare_model_outputs, one call of each model, get_matching_activations.
LoggerDict compare_model_outputs(
    nn::Module& float_model, nn::Module& q_model, const std::vector<Tensor>& data,
    const MakeLogger& logger = logger_class<OutputLogger>(),
    const std::function<bool(const nn::Module&)>& allow = is_compared_output);

}  // namespace octet::debug
