#pragma once
// Several qconfigs of each layer side by side (torch.ao.ns._numeric_suite_fx of PyTorch 2.0: the
// n-shadows API): which one serves a layer best, before any is chosen. Every layer of the float
// model runs as it is, and beside it, on the same float input, once with each of its qconfigs.
//
//   debug::fx::QConfigMultiMapping qconfigs;
//   qconfigs.set_global({quant::get_default_qconfig(), quant::default_dynamic_qconfig()});
//   auto shadowed = debug::fx::prepare_n_shadows_model(model, {example}, qconfigs);
//   for (const Tensor& batch : data) (*shadowed)(batch);  // calibrates all of them
//   debug::fx::convert_n_shadows_model(*shadowed);
//   debug::fx::loggers_set_enabled(*shadowed, true);
//   for (const Tensor& batch : data) (*shadowed)(batch);
//   debug::fx::print_comparisons_n_shadows_model(
//       debug::fx::extract_results_n_shadows_model(*shadowed));

#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "octet/debug/numeric_suite_fx.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/qconfig_mapping.h"

namespace octet::debug::fx {

// Several QConfigMappings at once: each setter takes the qconfigs to be compared, of which
// duplicates and nullopts are left out. Mapping i holds the i-th of each; where a key has fewer
// qconfigs than another, it is left float in the rest.
class QConfigMultiMapping {
 public:
  using QConfigs = std::vector<std::optional<quant::QConfig>>;
  QConfigMultiMapping& set_global(const QConfigs& qconfigs);
  QConfigMultiMapping& set_object_type(const quant::ObjectType& type, const QConfigs& qconfigs);
  QConfigMultiMapping& set_module_name_regex(const std::string& regex, const QConfigs& qconfigs);
  QConfigMultiMapping& set_module_name(const std::string& path, const QConfigs& qconfigs);
  QConfigMultiMapping& set_module_name_object_type_order(const std::string& path,
                                                         const quant::ObjectType& type, int index,
                                                         const QConfigs& qconfigs);
  static QConfigMultiMapping from_list_qconfig_mapping(std::vector<quant::QConfigMapping> mappings);

  std::vector<quant::QConfigMapping> qconfig_mappings_list;

 private:
  template <typename Set>
  QConfigMultiMapping& insert(const QConfigs& qconfigs, Set&& set);
};

// Logs how far a shadow is from the layer it stands beside: the SQNR of each call
// (comparisons["sqnr"]) and `error` over all of them; the tensors only if save_activations.
class OutputComparisonLogger : public OutputLogger {
 public:
  using OutputLogger::forward;
  using OutputLogger::OutputLogger;
  // The shadow's result and the layer's; returns the former.
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;

  std::vector<double> comparisons;
  ErrorStatistics error;
};

// The model with its shadows, prepared; the model itself is not changed. Its results are the
// model's. Modules: shadow_wrapper_L_Q (layer L prepared with its qconfig Q, from 1), loggers
// shadow_L_Q (Q 0: the layer itself). Loggers start disabled and keep no tensors
// (loggers_set_save_activations). Layers are what prepare_fx would quantize. Error if a mapping has
// nothing to quantize, and those of prepare_fx.
GraphModulePtr prepare_n_shadows_model(
    const nn::ModulePtr& model, const std::vector<Tensor>& example_inputs,
    const QConfigMultiMapping& qconfig_multi_mapping,
    const quant::BackendConfig& backend = quant::get_native_backend_config());

// Converts the shadows, in place. Error not_calibrated if the model was not run.
void convert_n_shadows_model(nn::Module& model);

// Turns all loggers of the model on or off; says whether they keep tensors.
void loggers_set_enabled(nn::Module& model, bool enabled);
void loggers_set_save_activations(nn::Module& model, bool save_activations);

// What the loggers found: results["model"]["node_output"]["subgraph_L_Q"][0], Q 0 being the float
// layer; comparisons["sqnr"] has one number for each call.
NSResultsType extract_results_n_shadows_model(const nn::Module& model);

// A table: a row for each layer, a column with the mean SQNR (dB) for each of its qconfigs, which
// are counted from 0 there.
void print_comparisons_n_shadows_model(const NSResultsType& results, std::ostream& out);
void print_comparisons_n_shadows_model(const NSResultsType& results);  // to standard output

}  // namespace octet::debug::fx
