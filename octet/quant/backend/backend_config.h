#pragma once
// BackendConfig: what a backend can quantize, and how (torch.ao.quantization.backend_config).
// prepare_fx, convert_fx and lowering are driven by it; docs/backends.md shows how to write one.
//
//   quant::BackendConfig backend("mine");
//   backend.set_backend_pattern_config(
//       quant::BackendPatternConfig({typeid(nn::Linear), "relu"})
//           .add_dtype_config({.input_dtype = {DType::quint8}, .output_dtype = {DType::quint8},
//           .weight_dtype = {DType::qint8}})
//           .set_fuser_method("LinearReLU").set_fused_module<nn::intrinsic::LinearReLU>());

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeindex>
#include <vector>

#include "octet/quant/backend/object_type.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/tensor/attrs.h"

namespace octet::quant {

// -- dtypes ---------------------------------------------------------------------------------------

// A dtype and what the backend asks of its qparams; nullopt: anything.
struct DTypeWithConstraints {
  std::optional<DType> dtype = {};
  // the codes in use, inclusive
  std::optional<int64_t> quant_min_lower_bound = {}, quant_max_upper_bound = {};
  std::optional<double> scale_min_lower_bound = {}, scale_max_upper_bound = {};
  std::optional<double> scale_exact_match = {};
  std::optional<int64_t> zero_point_exact_match = {};
  bool operator==(const DTypeWithConstraints&) const = default;
};

// One set of dtypes that a pattern runs in. No input or output dtype: float32. No weight or bias
// dtype: the pattern has no such operand, or leaves it float whatever the QConfig says.
struct DTypeConfig {
  DTypeWithConstraints input_dtype = {}, output_dtype = {}, weight_dtype = {};
  std::optional<DType> bias_dtype = {};
  bool is_dynamic = false;  // the input is quantized at run time
  bool operator==(const DTypeConfig&) const = default;
};

// The three ways of quantizing.
enum class QuantMode {
  statically,   // codes in and out
  dynamically,  // floats in and out, the input quantized at each call
  weight_only,  // floats in and out and in the arithmetic
};
const char* to_string(QuantMode mode);  // "static", "dynamic", "weight-only"
QuantMode mode_of(const DTypeConfig& config);
// What a QConfig asks for; nullopt: nothing is quantized.
std::optional<QuantMode> mode_of(const QConfig& qconfig);
// The dtype that a QConfig's activations have when they reach an operator: float32 unless they are
// quantized (or rounded to float16).
DType activation_dtype(const QConfig& qconfig);
DType weight_dtype(const QConfig& qconfig);

// Do a QConfig's observers give what a dtype config takes (PyTorch's
// _activation_post_process_satisfies_dtype_config_constraints and
// is_qconfig_supported_by_dtype_configs)? If not, `why` (unless null) is a reason: "activation
// dtype qint8; the backend takes quint8". Bounds of scales are compared with the observer's eps
// and, where qparams are fixed, with those; an exact scale needs a fixed one, an exact zero point a
// fixed or a symmetric one. Other scales are known after calibration only: satisfies().
bool check(const QConfig& qconfig, const DTypeConfig& config, std::string* why = nullptr);
// Do chosen qparams keep the constraints?
bool satisfies(const QParams& qparams, const DTypeWithConstraints& constraints,
               std::string* why = nullptr);

// -- patterns -------------------------------------------------------------------------------------

enum class ObservationType {
  output_use_different_observer_as_input,  // conv, linear, add
  // one observer for all operands and the result: cat, max pools, reshape
  output_share_observer_with_input,
  input_output_not_observed,  // floats (or indices) in, floats out: embeddings
};
const char* to_string(ObservationType type);  // the names above
ObservationType parse_observation_type(std::string_view name);

// Makes the module that takes a module's place. `result`: the qparams of its result, in static
// quantization; null otherwise.
using MakeModule = std::function<nn::ModulePtr(nn::Module& module, const QParams* result)>;

namespace detail {
// make(module) while the module's activation_post_process is an observer that chose `result`: what
// from_float looks at.
nn::ModulePtr with_result(nn::Module& module, const QParams* result,
                          nn::ModulePtr (*make)(nn::Module& module));
}  // namespace detail

// A class of modules that takes the place of another, and how it is made.
class Replacement {
 public:
  // `To` has `static std::shared_ptr<To> from_float(nn::Module&)`, which reads the module's qconfig
  // and, in static quantization, its activation_post_process (quant/modules/qparams.h). octet's
  // quantized classes take float, fused, QAT and reference modules.
  template <typename To>
  static Replacement of() {
    const MakeModule make = [](nn::Module& module, const QParams* result) {
      return detail::with_result(module, result,
                                 [](nn::Module& m) -> nn::ModulePtr { return To::from_float(m); });
    };
    return {typeid(To), std::make_shared<MakeModule>(make), true};
  }
  // By its own function. Such a one cannot be kept as JSON, and equals only its copies.
  template <typename To>
  static Replacement of(MakeModule make) {
    return {typeid(To), std::make_shared<MakeModule>(std::move(make)), false};
  }
  // A class known by OCTET_REPLACEMENT, or one of the native backend. Error not_found for others.
  static Replacement named(std::string_view class_name);

  std::type_index type() const { return type_; }
  // Error as that of the class's function.
  nn::ModulePtr operator()(nn::Module& module, const QParams* result = nullptr) const {
    return (*make_)(module, result);
  }
  // The name that named() takes. Error if it was made of a function, or if its class lacks
  // OCTET_MODULE or OCTET_REPLACEMENT.
  std::string name() const;
  bool operator==(const Replacement& other) const {
    return type_ == other.type_ && (by_class_ ? other.by_class_ : make_ == other.make_);
  }

 private:
  Replacement(std::type_index type, std::shared_ptr<const MakeModule> make, bool by_class)
      : type_(type), make_(std::move(make)), by_class_(by_class) {}
  std::type_index type_;
  std::shared_ptr<const MakeModule> make_;
  bool by_class_;
};

// In a .cpp file beside OCTET_MODULE(M): backend configs that name M can be kept as JSON and read
// again.
#define OCTET_REPLACEMENT(...)                                                         \
  static const ::octet::quant::ReplacementRegistration<__VA_ARGS__> OCTET_MODULE_JOIN( \
      octet_replacement_, __LINE__);
void register_replacement(const Replacement& replacement);  // Error if its class has one
template <typename To>
struct ReplacementRegistration {
  ReplacementRegistration() { register_replacement(Replacement::of<To>()); }
};

// Makes one module of the modules of a pattern (an operator stands as the nn module that calls it:
// "relu" as nn::ReLU). `qat`: they are in training mode.
class FuserMethod {
 public:
  using Fuse = std::function<nn::ModulePtr(bool qat, const std::vector<nn::ModulePtr>& parts)>;
  // By name, as octet's own are: "ConvBnReLU2d" (fuser_method_names()). Error not_found with the
  // nearest names.
  FuserMethod(std::string_view name);
  FuserMethod(const char* name) : FuserMethod(std::string_view(name)) {}
  FuserMethod(const std::string& name) : FuserMethod(std::string_view(name)) {}
  // A function. It cannot be kept as JSON, and equals only its copies.
  template <typename F>
  requires std::is_invocable_r_v < nn::ModulePtr, F, bool, const std::vector<nn::ModulePtr>
  & > FuserMethod(F fuse) : fuse_(std::make_shared<Fuse>(std::move(fuse))) {}

  nn::ModulePtr operator()(bool qat, const std::vector<nn::ModulePtr>& parts) const {
    return (*fuse_)(qat, parts);
  }
  const std::string& name() const { return name_; }  // "" for functions
  bool operator==(const FuserMethod& other) const {
    return name_ == other.name_ && (!name_.empty() || fuse_ == other.fuse_);
  }

 private:
  std::string name_;
  std::shared_ptr<const Fuse> fuse_;
};
// Makes a function known by name. Error if the name is taken.
void register_fuser_method(const std::string& name, FuserMethod::Fuse fuse);
std::vector<std::string> fuser_method_names();

// What a pattern of operators becomes when it is lowered: one call with these attributes beside its
// own.
struct LoweredOp {
  std::string op;
  Attrs attrs;
  bool operator==(const LoweredOp&) const = default;
};

// How one pattern is quantized. The setters return *this; the members are data and may be read and
// changed.
struct BackendPatternConfig {
  BackendPatternConfig() = default;
  BackendPatternConfig(Pattern pattern) : pattern(std::move(pattern)) {}
  BackendPatternConfig(ObjectType single) : pattern({std::move(single)}) {}

  Pattern pattern;  // in the order of the forward pass
  ObservationType observation_type = ObservationType::output_use_different_observer_as_input;
  std::vector<DTypeConfig> dtype_configs;  // any of them
  // The class that holds the weight: nn::Conv2d of intrinsic::ConvReLU2d.
  std::optional<std::type_index> root_module;
  // Taken in training; and in reference graphs, which compute in float on dequantized operands.
  std::optional<Replacement> qat_module, reference_quantized_module;
  // What the pattern is fused to: always in training mode; in eval mode the fuser method may give a
  // class with the batch norm folded in.
  std::optional<std::type_index> fused_module;
  std::optional<FuserMethod> fuser_method;
  // By the number of operands that are tensors, where that matters: add of a tensor and a number
  // keeps qparams.
  std::map<int, ObservationType> num_tensor_args_to_observation_type;
  // Which operands of an operator are weights and biases: {"weight", 1}, {"bias", 2}. A bias, and a
  // {"slope", 1} (prelu's), stays float.
  std::map<std::string, int> input_type_to_index;
  // The observer of the result whatever the QConfig says (sigmoid: 1/256, 0); result_observer()
  // below.
  ObserverFactory overwrite_output_observer;
  // Lowering: the module (of module patterns) or operator (of operator patterns) that runs
  // quantized, by mode. Without one the pattern stays as it is between quantize and dequantize,
  // which merge_qdq makes integer where the operator can be.
  std::map<QuantMode, Replacement> quantized_modules;
  std::map<QuantMode, LoweredOp> quantized_ops;

  BackendPatternConfig& set_observation_type(ObservationType type);
  BackendPatternConfig& add_dtype_config(DTypeConfig config);
  BackendPatternConfig& set_dtype_configs(std::vector<DTypeConfig> configs);
  template <typename M>
  BackendPatternConfig& set_root_module() {
    root_module = std::type_index(typeid(M));
    return *this;
  }
  BackendPatternConfig& set_qat_module(Replacement module);
  template <typename M>
  BackendPatternConfig& set_qat_module() {
    return set_qat_module(Replacement::of<M>());
  }
  BackendPatternConfig& set_reference_quantized_module(Replacement module);
  template <typename M>
  BackendPatternConfig& set_reference_quantized_module() {
    return set_reference_quantized_module(Replacement::of<M>());
  }
  template <typename M>
  BackendPatternConfig& set_fused_module() {
    fused_module = std::type_index(typeid(M));
    return *this;
  }
  BackendPatternConfig& set_fuser_method(FuserMethod method);
  BackendPatternConfig& set_num_tensor_args_to_observation_type(
      std::map<int, ObservationType> types);
  BackendPatternConfig& set_input_type_to_index(std::map<std::string, int> indices);
  BackendPatternConfig& set_overwrite_output_observer(ObserverFactory observer);
  BackendPatternConfig& set_quantized_module(QuantMode mode, Replacement module);
  template <typename M>
  BackendPatternConfig& set_quantized_module(QuantMode mode) {
    return set_quantized_module(mode, Replacement::of<M>());
  }
  // Error unsupported, with the nearest, if there is no such operator.
  BackendPatternConfig& set_quantized_op(QuantMode mode, const std::string& op, Attrs attrs = {});

  // Null where the pattern stays as it is.
  const Replacement* quantized_module(QuantMode mode) const;
  const LoweredOp* quantized_op(QuantMode mode) const;
  // The observation type of a call with so many tensors.
  ObservationType observation_type_of(int tensor_args) const;
  // The first dtype config that the QConfig's observers satisfy; null if none does: then `why` has
  // each one's reason.
  const DTypeConfig* find_dtype_config(const QConfig& qconfig, std::string* why = nullptr) const;

  bool operator==(const BackendPatternConfig&) const = default;
};

// The observer that a QConfig puts on the result of a pattern: its activation's, or the pattern's
// fixed one, for qint8 with the zero point moved by 128, and in a FixedQParamsFakeQuantize where
// the QConfig fake-quantizes.
ObserverFactory result_observer(const BackendPatternConfig& config, const QConfig& qconfig);

// -- backends -------------------------------------------------------------------------------------

class BackendConfig {
 public:
  explicit BackendConfig(std::string name = "") : name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  BackendConfig& set_name(std::string name);
  // Replaces the config of the same pattern, if there is one. Error if the pattern is empty.
  BackendConfig& set_backend_pattern_config(BackendPatternConfig config);
  BackendConfig& set_backend_pattern_configs(std::vector<BackendPatternConfig> configs);
  // Error not_found, with the backend's patterns of the same first item, if it has no such pattern.
  BackendConfig& remove(const Pattern& pattern);

  // Takes away what lowering makes of a class of modules, reference or float, in every pattern that
  // has it: they stay between dequantize and quantize. Error not_found if no pattern has.
  template <typename M>
  BackendConfig& do_not_lower() {
    return do_not_lower(typeid(M));
  }
  BackendConfig& do_not_lower(std::type_index type);

  // in the order they were added
  const std::vector<BackendPatternConfig>& configs() const { return configs_; }
  // The longest first; of one length the last added first: the order in which patterns are tried.
  std::vector<const BackendPatternConfig*> by_length() const;
  // Null if there is none. A class or an operator alone is the pattern of this one item.
  const BackendPatternConfig* find(const Pattern& pattern) const;
  BackendPatternConfig* find(const Pattern& pattern);  // to change it in place
  const BackendPatternConfig* find_module(std::type_index type) const;
  const BackendPatternConfig* find_op(std::string_view op) const;

  // Classes are kept by their registered names, functions by those of OCTET_REPLACEMENT and
  // register_fuser_method (octet's own have both). to_json: Error for a class that is not
  // registered and for a function without a name, naming the pattern. from_json: Error on unknown
  // keys, names and forms; what it gives equals what was kept.
  std::string to_json() const;
  static BackendConfig from_json(std::string_view text);

  bool operator==(const BackendConfig&) const = default;

 private:
  std::string name_;
  std::vector<BackendPatternConfig> configs_;
};

// The QConfig nearest to `qconfig` that the backend's static layers take: `qconfig` itself, or with
// the dtype, a symmetric qscheme, the codes and the least scale that one of their dtype configs
// asks for. `qconfig` where no such change is enough, and where it is not of static quantization.
QConfig fitting_qconfig(const QConfig& qconfig, const BackendConfig& backend);

// octet's own backend. Activations quint8 or qint8; weights qint8, per tensor or per channel;
// dynamic (also with float16 weights) and weight-only layers; tables of embeddings with 8 and 4
// bits.
BackendConfig get_native_backend_config();
// The same patterns and kernels under the names PyTorch's users know.
BackendConfig get_fbgemm_backend_config();
BackendConfig get_onednn_backend_config();  // activations quint8 only
// quint8 activations as native; qint8 ones and their weights as XNNPACK has them: scales of 2^-12
// and more, weights -127..127.
BackendConfig get_qnnpack_backend_config();
// qint8 with zero point 0. The compiler takes the reference graph (convert_to_reference_fx) or the
// file in ONNX's QDQ form; lowered, octet runs the same codes.
BackendConfig get_tensorrt_backend_config();
// By name: native, fbgemm, onednn, qnnpack (also called xnnpack), tensorrt. Error not_found with
// the nearest.
BackendConfig get_backend_config(std::string_view name);
std::vector<std::string> backend_config_names();

}  // namespace octet::quant
