#pragma once
// Eager mode: the modules of a model are swapped, its forward stays as written
// (torch.ao.quantization).
//
//   model->eval();
//   model->qconfig = quant::get_default_qconfig();
//   auto fused    = quant::fuse_modules(model, {{"conv", "relu"}});      // fuse.h
//   auto prepared = quant::prepare(fused);                               // observers
//   for (const Tensor& batch : data) prepared->forward(batch);           // calibrate
//   auto int8     = quant::convert(prepared);                            // quantized modules
//
// Each function works on a deep copy and returns it, unless `inplace`. A model is any nn::Module;
// the place of a submodule (an nn::Slot, an entry of a Sequential) keeps its name while what fills
// it changes.

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <typeindex>
#include <vector>

#include "octet/nn/module.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/module_mappings.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/workflow/report.h"

namespace octet::quant {

// QConfigs for parts of a model: by submodule path, or by class. nullopt leaves the part float.
// PyTorch's qconfig_dict.
class QConfigSpec {
 public:
  QConfigSpec() = default;
  // The path of a submodule, "" for the whole model.
  QConfigSpec& set(const std::string& path, std::optional<QConfig> qconfig);
  // All modules of exactly this class.
  template <typename M>
  QConfigSpec& set_type(std::optional<QConfig> qconfig) {
    return set_type(typeid(M), std::move(qconfig));
  }
  QConfigSpec& set_type(const std::type_info& type, std::optional<QConfig> qconfig);
  bool empty() const { return by_path_.empty() && by_type_.empty(); }

  struct ByType {
    std::string name;
    std::optional<QConfig> qconfig;
  };
  const std::map<std::string, std::optional<QConfig>>& by_path() const { return by_path_; }
  const std::map<std::type_index, ByType>& by_type() const { return by_type_; }

 private:
  std::map<std::string, std::optional<QConfig>> by_path_;
  std::map<std::type_index, ByType> by_type_;
};

// Gives every submodule without a qconfig of its own that of the spec (path before class), else
// that of the module around it. `module.qconfig = nullptr` keeps a part float, and all in it. Error
// if a path or class of the spec is not in the model.
void propagate_qconfig(nn::Module& model, const QConfigSpec& spec = {});

// Modules that users quantize themselves. `Observed` has
//   struct Observed : nn::Module {
//     static std::shared_ptr<Observed> from_float(Float& module);
//   };
// and gets observers on its results, however many there are; `Quantized` has
//   struct Quantized : nn::Module {
//     static std::shared_ptr<Quantized> from_observed(Observed& module);
//   };
// The float module's qconfig is set before from_float is called.
class CustomModules {
 public:
  using Make = std::function<nn::ModulePtr(nn::Module&)>;
  template <typename Float, typename Observed>
  CustomModules& float_to_observed_custom_module_class() {
    float_to_observed[std::type_index(typeid(Float))] = [](nn::Module& m) -> nn::ModulePtr {
      return Observed::from_float(static_cast<Float&>(m));
    };
    return *this;
  }
  template <typename Observed, typename Quantized>
  CustomModules& observed_to_quantized_custom_module_class() {
    observed_to_quantized[std::type_index(typeid(Observed))] = [](nn::Module& m) -> nn::ModulePtr {
      return Quantized::from_observed(static_cast<Observed&>(m));
    };
    return *this;
  }
  std::map<std::type_index, Make> float_to_observed, observed_to_quantized;
};

// What prepare and convert do besides what the options say, unless those give a mapping: LSTM and
// LSTMCell become nn::quantizable ones and MultiheadAttention too; convert makes nn::quantized ones
// of them.
const CustomModules& default_custom_modules();

struct EagerOptions {
  bool inplace = false;
  CustomModules custom;
  // What can be quantized, to which dtypes, and what becomes what; by default
  // get_native_backend_config().
  std::optional<BackendConfig> backend_config = {};
  // What becomes what, in place of the backend's modules, whatever their dtypes; only these are
  // swapped.
  std::optional<ModuleMapping> mapping = {};
  // convert: the model need not be calibrated, because load_state_dict will set what calibration
  // would have found. Observers that saw no data give values that are unset: until then, calling a
  // module with such a value is an Error naming them.
  bool for_loading = false;
  // convert: what was done; and an Error that lists the modules that stayed float, if any computes.
  ConversionReport* report = nullptr;
  bool strict = false;
};

// The untyped forms of the functions below. They return the model, which is another object than the
// one given if the model itself (and not a part of it) was swapped.
nn::ModulePtr prepare_module(const nn::ModulePtr& model, const EagerOptions& options);
nn::ModulePtr prepare_qat_module(const nn::ModulePtr& model, const EagerOptions& options);
nn::ModulePtr convert_module(const nn::ModulePtr& model, const EagerOptions& options);
nn::ModulePtr quantize_dynamic_module(const nn::ModulePtr& model, const QConfigSpec& spec,
                                      DType dtype, const EagerOptions& options);
nn::ModulePtr quantize_weight_only_module(const nn::ModulePtr& model, const QConfigSpec& spec,
                                          DType dtype, const EagerOptions& options);

// The model as an M again. Error if it was swapped itself: ask for an nn::Module then.
template <typename M>
std::shared_ptr<M> typed(const nn::ModulePtr& model) {
  if (auto result = std::dynamic_pointer_cast<M>(model)) return result;
  fail(ErrorCode::invalid_argument, "the model itself became a " + model->type_name() +
                                        ": hold it as std::shared_ptr<nn::Module>, not as " +
                                        nn::class_name(typeid(M)));
}

// The model, or a copy that nn::make made where it did not make the model
// (std::make_shared<Net>()). In place that is an Error of the functions below.
template <typename M>
nn::ModulePtr working_on(const std::shared_ptr<M>& model, const EagerOptions& options) {
  return options.inplace ? model : nn::made_copy(model);
}

// Attaches an observer to the result of each module that will be quantized, as its qconfig says
// (child "activation_post_process"). The model must be in eval mode. Error if no qconfig selects
// anything, if the model was prepared before, or if a qconfig cannot be honoured: all before any
// data is seen.
template <typename M>
std::shared_ptr<M> prepare(const std::shared_ptr<M>& model, const EagerOptions& options = {}) {
  return typed<M>(prepare_module(working_on(model, options), options));
}

// For quantization-aware training: layers become their QAT forms (their weights are
// fake-quantized), and results are fake-quantized. The model must be in training mode.
template <typename M>
std::shared_ptr<M> prepare_qat(const std::shared_ptr<M>& model, const EagerOptions& options = {}) {
  return typed<M>(prepare_qat_module(working_on(model, options), options));
}

// Puts quantized modules where prepared ones are. Modules whose qconfig has an activation observer
// become static ones; those with a run-time (placeholder) activation dynamic; those with only a
// weight weight-only. Errors: not_calibrated, naming every observer that saw no data (unless
// for_loading); a quantized tensor that would reach a float operator or the reverse (seen during
// calibration), naming both ends and what mends it.
template <typename M>
std::shared_ptr<M> convert(const std::shared_ptr<M>& model, const EagerOptions& options = {}) {
  return typed<M>(convert_module(working_on(model, options), options));
}

// prepare, run, convert. `run` calibrates the prepared model.
template <typename M>
std::shared_ptr<M> quantize(const std::shared_ptr<M>& model, const std::function<void(M&)>& run,
                            const EagerOptions& options = {}) {
  auto prepared = prepare(model, options);
  run(*prepared);
  return convert(prepared, options);
}

// prepare_qat, run, convert. `run` trains the prepared model.
template <typename M>
std::shared_ptr<M> quantize_qat(const std::shared_ptr<M>& model, const std::function<void(M&)>& run,
                                const EagerOptions& options = {}) {
  auto prepared = prepare_qat(model, options);
  run(*prepared);
  prepared->eval();
  return convert(prepared, options);
}

// Dynamic quantization: no calibration. `spec` says which parts, by class or path, with QConfigs;
// types<...>() with the default ones for `dtype` (qint8, float16; quint8 and quint4x2 for
// embeddings). Empty: all Linear, recurrent (and, for quint8 and quint4x2, embedding) modules.
// Error if nothing in the model fits.
template <typename M>
std::shared_ptr<M> quantize_dynamic(const std::shared_ptr<M>& model, const QConfigSpec& spec = {},
                                    DType dtype = DType::qint8, const EagerOptions& options = {}) {
  return typed<M>(quantize_dynamic_module(working_on(model, options), spec, dtype, options));
}
// PyTorch's {nn.Linear, nn.LSTM}: quantize_dynamic(model, quant::types<nn::Linear, nn::LSTM>()).
template <typename... Ms>
QConfigSpec types(DType dtype = DType::qint8);

// Weights quantized, arithmetic in float32: smaller files, nothing to calibrate. Per-channel
// symmetric qint8 weights unless the spec says otherwise; quint8 rows of embeddings.
template <typename M>
std::shared_ptr<M> quantize_weight_only(const std::shared_ptr<M>& model,
                                        const QConfigSpec& spec = {}, DType dtype = DType::qint8,
                                        const EagerOptions& options = {}) {
  return typed<M>(quantize_weight_only_module(working_on(model, options), spec, dtype, options));
}

// The QConfig that quantize_dynamic uses for a dtype: qint8, float16, quint8 or quint4x2. Error for
// others.
QConfig dynamic_qconfig_for(DType dtype);

template <typename... Ms>
QConfigSpec types(DType dtype) {
  QConfigSpec spec;
  (spec.set_type<Ms>(dynamic_qconfig_for(dtype)), ...);
  return spec;
}

// Wraps each submodule that has a qconfig of its own in a QuantWrapper (torch's add_quant_dequant).
void add_quant_dequant(nn::Module& model);

}  // namespace octet::quant
