// The backends that octet knows: which patterns they quantize, in which dtypes, and to what.

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/nn.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/modules/attention.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/embedding.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/recurrent.h"
#include "octet/quant/modules/with_qparams_impl.h"

namespace octet::quant {

namespace nnq = nn::quantized;
namespace nnqat = nn::qat;
namespace nnqd = nn::quantized::dynamic;
namespace nnqr = nn::quantized::reference;

namespace {

using Config = BackendPatternConfig;
constexpr QuantMode kStatic = QuantMode::statically, kDynamic = QuantMode::dynamically,
                    kWeightOnly = QuantMode::weight_only;

// -- dtypes ---------------------------------------------------------------------------------------

struct DTypes {
  std::vector<DTypeConfig> layers;     // conv and linear
  std::vector<DTypeConfig> operators;  // without weights, or with float ones
  std::vector<DTypeConfig> recurrent;
  std::vector<DTypeConfig> embeddings;
};

DTypeConfig static_layer(const DTypeWithConstraints& activation,
                         const DTypeWithConstraints& weight) {
  return {.input_dtype = activation,
          .output_dtype = activation,
          .weight_dtype = weight,
          .bias_dtype = DType::float32};
}
DTypeConfig dynamic_layer(DType activation, DType weight) {
  return {.input_dtype = {activation},
          .output_dtype = {DType::float32},
          .weight_dtype = {weight},
          .bias_dtype = DType::float32,
          .is_dynamic = true};
}
DTypeConfig weight_only_layer(DType weight) {
  return {
      .input_dtype = {DType::float32}, .output_dtype = {DType::float32}, .weight_dtype = {weight}};
}
DTypeConfig activations_only(const DTypeWithConstraints& activation) {
  return {.input_dtype = activation, .output_dtype = activation};
}

// Each of these activations, for layers with the weight beside it; and what all of octet's kernels
// can besides. Operators without weights have each activation once.
DTypes dtypes(const std::vector<std::pair<DTypeWithConstraints, DTypeWithConstraints>>&
                  activations_and_weights) {
  DTypes d;
  for (const auto& [activation, weight] : activations_and_weights) {
    d.layers.push_back(static_layer(activation, weight));
    const DTypeConfig alone = activations_only(activation);
    if (std::find(d.operators.begin(), d.operators.end(), alone) == d.operators.end())
      d.operators.push_back(alone);
  }
  d.recurrent = {dynamic_layer(DType::quint8, DType::qint8),
                 dynamic_layer(DType::float16, DType::float16)};
  d.layers.insert(d.layers.end(), d.recurrent.begin(), d.recurrent.end());
  d.layers.push_back(weight_only_layer(DType::qint8));
  d.embeddings = {weight_only_layer(DType::quint8), weight_only_layer(DType::quint4x2)};
  return d;
}

// -- layers with weights --------------------------------------------------------------------------

// A pattern whose weight lies in a Forms::Float, with all that can become of it.
template <typename Forms>
Config weighted(Pattern pattern, const DTypes& d) {
  Config c(std::move(pattern));
  c.set_dtype_configs(d.layers).template set_root_module<typename Forms::Float>();
  c.template set_reference_quantized_module<typename Forms::Reference>();
  c.template set_quantized_module<typename Forms::Static>(kStatic);
  c.template set_quantized_module<typename Forms::Dynamic>(kDynamic);
  return c.template set_quantized_module<typename Forms::WeightOnly>(kWeightOnly);
}

// The operator and the operator with a relu behind, as module or function.
void add_layer_op(BackendConfig& b, const DTypes& d, const std::string& op) {
  auto add = [&](Pattern pattern, const Attrs& attrs) {
    Config c(std::move(pattern));
    c.set_dtype_configs(d.layers).set_input_type_to_index({{"weight", 1}, {"bias", 2}});
    c.set_quantized_op(kStatic, op, attrs);
    for (const auto& [mode, form] :
         {std::pair{kDynamic, WeightForm::dynamic}, {kWeightOnly, WeightForm::weight_only}})
      c.set_quantized_op(mode, ops::find_form(op, form)->name(), attrs);
    b.set_backend_pattern_config(c);
  };
  const Attrs relu = {{"activation", std::string("relu")}};
  add({op}, {});
  add({op, typeid(nn::ReLU)}, relu);
  add({op, "relu"}, relu);
}

// intrinsic::ConvReLU2d is made by the fuser method "ConvReLU2d".
template <typename Fused>
Config fusion(Pattern pattern, const std::vector<DTypeConfig>& dtypes) {
  Config c(std::move(pattern));
  return c.set_dtype_configs(dtypes).template set_fused_module<Fused>().set_fuser_method(
      nn::class_name(typeid(Fused)));
}

const std::vector<ObjectType>& relus() {
  static const std::vector<ObjectType> types = {typeid(nn::ReLU), "relu"};
  return types;
}

// The layer (with its relu), and what it is trained as.
template <typename Forms>
void add_layer(BackendConfig& b, const DTypes& d) {
  const ObjectType root = typeid(typename Forms::Float);
  if constexpr (Forms::relu)
    for (const ObjectType& relu : relus())
      b.set_backend_pattern_config(fusion<typename Forms::Layer>({root, relu}, d.layers));
  b.set_backend_pattern_config(weighted<Forms>({typeid(typename Forms::Layer)}, d)
                                   .template set_qat_module<typename Forms::Qat>());
  b.set_backend_pattern_config(weighted<Forms>({typeid(typename Forms::Qat)}, d));
}

// The layer with a batch norm behind it (and a relu behind that).
template <typename Forms>
void add_layer_bn(BackendConfig& b, const DTypes& d) {
  const ObjectType root = typeid(typename Forms::Float), norm = typeid(typename Forms::Norm);
  if constexpr (has_bn<Forms>) {
    std::vector<Pattern> patterns = {{root, norm}};
    if (Forms::relu) patterns = {{root, norm, relus()[0]}, {root, norm, relus()[1]}};
    for (const Pattern& pattern : patterns)
      b.set_backend_pattern_config(fusion<typename Forms::LayerBn>(pattern, d.layers));
    Config until_trained(typeid(typename Forms::LayerBn));
    b.set_backend_pattern_config(until_trained.set_dtype_configs(d.layers)
                                     .template set_root_module<typename Forms::Float>()
                                     .template set_qat_module<typename Forms::QatBn>());
    b.set_backend_pattern_config(weighted<Forms>({typeid(typename Forms::QatBn)}, d));
  } else if (!Forms::relu) {
    b.set_backend_pattern_config(
        weighted<Forms>({root, norm}, d).set_fuser_method("ConvTransposeBn"));
  }
}

void add_layers(BackendConfig& b, const DTypes& d) {
  for_each_type(WeightedForms(), [&]<typename Forms>() { add_layer<Forms>(b, d); });
  for_each_type(WeightedForms(), [&]<typename Forms>() { add_layer_bn<Forms>(b, d); });
  for (const char* op : {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
                         "conv_transpose3d", "linear"})
    add_layer_op(b, d, op);
  // The last layer of attention, which dynamic quantization leaves float.
  std::vector<DTypeConfig> only_static = d.layers;
  std::erase_if(only_static, [](const DTypeConfig& c) { return mode_of(c) != kStatic; });
  b.set_backend_pattern_config(
      weighted<FormsOf<nn::Linear>>({typeid(nn::NonDynamicallyQuantizableLinear)}, d)
          .set_dtype_configs(only_static)
          .set_qat_module<nnqat::Linear>());
}

// -- operators without weights --------------------------------------------------------------------

// Operands and result share one scale. Modules run on codes as they are.
Config sharing(Pattern pattern, const DTypes& d) {
  Config c(std::move(pattern));
  return c.set_dtype_configs(d.operators)
      .set_observation_type(ObservationType::output_share_observer_with_input);
}

// The result has qparams of its own.
Config own(Pattern pattern, const DTypes& d) {
  Config c(std::move(pattern));
  return c.set_dtype_configs(d.operators);
}

void add_binary(BackendConfig& b, const DTypes& d) {
  auto different = ObservationType::output_use_different_observer_as_input,
       share = ObservationType::output_share_observer_with_input;
  for (const char* op : {"add", "mul"}) {
    auto add = [&](Pattern pattern, const Attrs& attrs) {
      Config c = own(std::move(pattern), d)
                     .set_num_tensor_args_to_observation_type(
                         {{0, different}, {1, share}, {2, different}});
      b.set_backend_pattern_config(c.set_quantized_op(kStatic, op, attrs));
    };
    add({op}, {});
    for (const ObjectType& relu : relus()) add({op, relu}, {{"activation", std::string("relu")}});
  }
  // With a number for the second operand they are operators of their own, which keep the codes.
  for (const char* op : {"add_scalar", "mul_scalar"}) {
    b.set_backend_pattern_config(sharing({op}, d));
    for (const ObjectType& relu : relus()) b.set_backend_pattern_config(sharing({op, relu}, d));
  }
  b.set_backend_pattern_config(own({"matmul"}, d));
}

// The module with qparams takes the module's place.
template <typename Module>
void add_own(BackendConfig& b, const DTypes& d) {
  b.set_backend_pattern_config(
      own({typeid(Module)}, d).template set_quantized_module<nnq::WithQParams<Module>>(kStatic));
}

// Operators whose ranges suit 8 bits. exp, log, div, comparisons and the like stay float.
void add_own_ops(BackendConfig& b, const DTypes& d) {
  for_each_type(nn::Activations(), [&]<typename Activation>() {
    if (ops::get(Activation().op_name()).rule() != ops::QRule::own) return;
    add_own<Activation>(b, d);
    b.set_backend_pattern_config(own({Activation().op_name()}, d));
  });
  add_own<nn::PReLU>(b, d);
  add_own<nn::InstanceNorm1d>(b, d);
  add_own<nn::InstanceNorm2d>(b, d);
  add_own<nn::InstanceNorm3d>(b, d);
  add_own<nn::GroupNorm>(b, d);
  add_own<nn::LayerNorm>(b, d);
  b.set_backend_pattern_config(own({"sub"}, d));
  b.set_backend_pattern_config(own({"prelu"}, d).set_input_type_to_index({{"slope", 1}}));
  for (const char* op : {"instance_norm", "group_norm", "layer_norm"})
    b.set_backend_pattern_config(
        own({op}, d).set_input_type_to_index({{"weight", 1}, {"bias", 2}}));
}

// The results of bounded range: 0 to 1, or -1 to 1.
void add_fixed_qparams_ops(BackendConfig& b, const DTypes& d) {
  for_each_type(nn::Activations(), [&]<typename Activation>() {
    const ops::Op& op = ops::get(Activation().op_name());
    if (op.rule() != ops::QRule::fixed) return;
    const ObserverFactory observer = op.traits().fixed_zero_point == 0
                                         ? default_fixed_qparams_range_0to1_observer()
                                         : default_fixed_qparams_range_neg1to1_observer();
    b.set_backend_pattern_config(own({op.name()}, d).set_overwrite_output_observer(observer));
    Config c = own({typeid(Activation)}, d).set_overwrite_output_observer(observer);
    b.set_backend_pattern_config(
        c.template set_quantized_module<nnq::WithQParams<Activation>>(kStatic));
  });
}

// Where the qconfig gives averages qparams of their own, the module with qparams takes the module's
// place.
template <size_t N>
void add_average(BackendConfig& b, const DTypes& d) {
  using Average = nn::AdaptivePoolNd<N, false>;
  Config c = sharing({typeid(Average)}, d);
  b.set_backend_pattern_config(c.template set_quantized_module<nnq::WithQParams<Average>>(kStatic));
}

void add_sharing(BackendConfig& b, const DTypes& d) {
  add_average<1>(b, d);
  add_average<2>(b, d);
  add_average<3>(b, d);
  const std::vector<ObjectType> types = {
      typeid(nn::AdaptiveMaxPool1d), typeid(nn::AdaptiveMaxPool2d), typeid(nn::AdaptiveMaxPool3d),
      typeid(nn::AvgPool1d), typeid(nn::AvgPool2d), typeid(nn::AvgPool3d), typeid(nn::MaxPool1d),
      typeid(nn::MaxPool2d), typeid(nn::MaxPool3d), typeid(nn::Hardtanh), typeid(nn::Identity),
      typeid(nn::ReLU), typeid(nn::ReLU6), typeid(nn::Flatten), typeid(nn::Unflatten),
      typeid(nn::PixelShuffle), typeid(nn::PixelUnshuffle), typeid(nn::ChannelShuffle),
      typeid(nn::Upsample),
      // PyTorch gives dropout's result an observer of its own; after training it is its operand.
      typeid(nn::Dropout), typeid(nn::Dropout1d), typeid(nn::Dropout2d), typeid(nn::Dropout3d),
      "dropout", "cat", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
      "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d",
      "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "mean", "amax", "amin",
      "maximum", "minimum", "relu", "relu6", "clamp", "interpolate", "pad", "identity", "clone",
      "expand", "tile", "flatten", "reshape", "permute", "squeeze", "unsqueeze", "slice", "split",
      "index_select", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "tril", "triu"};
  for (const ObjectType& type : types) b.set_backend_pattern_config(sharing({type}, d));
}

template <typename Norm>
void add_norm_relu(BackendConfig& b, const DTypes& d) {
  using Fused = nn::intrinsic::Fused<Norm, nn::ReLU>;
  for (const ObjectType& relu : relus())
    b.set_backend_pattern_config(fusion<Fused>({typeid(Norm), relu}, d.operators));
  b.set_backend_pattern_config(
      own({typeid(Fused)}, d).template set_quantized_module<nnq::WithQParams<Norm, true>>(kStatic));
}

void add_batch_norms(BackendConfig& b, const DTypes& d) {
  add_own<nn::BatchNorm1d>(b, d);
  add_own<nn::BatchNorm2d>(b, d);
  add_own<nn::BatchNorm3d>(b, d);
  add_norm_relu<nn::BatchNorm2d>(b, d);
  add_norm_relu<nn::BatchNorm3d>(b, d);
  b.set_backend_pattern_config(
      own({"batch_norm"}, d)
          .set_input_type_to_index(
              {{"weight", 1}, {"bias", 2}, {"running_mean", 3}, {"running_var", 4}}));
}

// -- floats in and out ----------------------------------------------------------------------------

template <typename Network>
void add_recurrent(BackendConfig& b, const DTypes& d) {
  Config c(typeid(Network));
  c.set_dtype_configs(d.recurrent).template set_root_module<Network>();
  c.template set_reference_quantized_module<nnqr::ReferenceRecurrent<Network>>();
  b.set_backend_pattern_config(
      c.template set_quantized_module<nnqd::DynamicRecurrent<Network>>(kDynamic));
}

void add_recurrent_networks(BackendConfig& b, const DTypes& d) {
  add_recurrent<nn::LSTM>(b, d);
  add_recurrent<nn::GRU>(b, d);
  add_recurrent<nn::RNN>(b, d);
  add_recurrent<nn::LSTMCell>(b, d);
  add_recurrent<nn::GRUCell>(b, d);
  add_recurrent<nn::RNNCell>(b, d);
  for (const auto& [op, weight] :
       {std::pair{"lstm", 3}, std::pair{"gru", 2}, std::pair{"rnn", 2}}) {
    Config on_tensors(Pattern{ObjectType(op)});
    std::map<std::string, int> weights = {{"w_ih", weight}, {"w_hh", weight + 1}};
    if (op == std::string("lstm")) weights["w_hr"] = 7;
    b.set_backend_pattern_config(on_tensors.set_dtype_configs(d.recurrent)
                                     .set_input_type_to_index(std::move(weights))
                                     .set_quantized_op(kDynamic, op));
  }
  Config attention(typeid(nn::MultiheadAttention));
  b.set_backend_pattern_config(attention.set_dtype_configs(d.recurrent)
                                   .set_quantized_module<nnqd::MultiheadAttention>(kDynamic));
}

template <typename Table, typename Qat, typename Reference, typename Quantized>
void add_table(BackendConfig& b, const DTypes& d) {
  Config c(typeid(Qat));
  c.set_dtype_configs(d.embeddings)
      .set_observation_type(ObservationType::input_output_not_observed);
  c.template set_root_module<Table>().template set_reference_quantized_module<Reference>();
  b.set_backend_pattern_config(c.template set_quantized_module<Quantized>(kWeightOnly));
  c.pattern = {typeid(Table)};
  b.set_backend_pattern_config(c.template set_qat_module<Qat>());
}

void add_embeddings(BackendConfig& b, const DTypes& d) {
  add_table<nn::Embedding, nnqat::Embedding, nnqr::Embedding, nnq::Embedding>(b, d);
  add_table<nn::EmbeddingBag, nnqat::EmbeddingBag, nnqr::EmbeddingBag, nnq::EmbeddingBag>(b, d);
}

// -- fuser methods --------------------------------------------------------------------------------

using Parts = std::vector<nn::ModulePtr>;

template <typename Fused>
nn::ModulePtr fuse(bool, const Parts& parts) {
  return nn::make<Fused>(parts);
}

nn::ModulePtr fold(const Parts& parts) {
  return fuse_conv_bn_eval(*parts.at(0), parts.at(1)->as<nn::BatchNorm>());
}

template <typename Forms>
nn::ModulePtr fuse_bn(bool qat, const Parts& parts) {
  if (qat) return nn::make<typename Forms::LayerBn>(parts);
  if constexpr (Forms::relu)
    return nn::make<typename Forms::Layer>(Parts{fold(parts), parts.at(2)});
  else
    return fold(parts);
}

nn::ModulePtr fuse_transposed_bn(bool qat, const Parts& parts) {
  OCTET_CHECK(!qat, unsupported,
              "fuse: {} and {} are fused in eval mode only: train them apart, or call eval() first",
              parts.at(0)->type_name(), parts.at(1)->type_name());
  return fold(parts);
}

[[maybe_unused]] const bool g_registered = [] {
  for_each_type(WeightedForms(), []<typename Forms>() {
    if constexpr (Forms::relu) register_fuser_method(Forms::name, fuse<typename Forms::Layer>);
    if constexpr (has_bn<Forms>) register_fuser_method(Forms::bn_name, fuse_bn<Forms>);
  });
  register_fuser_method("BNReLU2d", fuse<nn::intrinsic::BNReLU2d>);
  register_fuser_method("BNReLU3d", fuse<nn::intrinsic::BNReLU3d>);
  register_fuser_method("ConvTransposeBn", fuse_transposed_bn);
  return true;
}();

// -- whole backends -------------------------------------------------------------------------------

BackendConfig everything(const char* name, const DTypes& d) {
  BackendConfig b(name);
  add_layers(b, d);
  add_binary(b, d);
  add_own_ops(b, d);
  add_fixed_qparams_ops(b, d);
  add_sharing(b, d);
  add_batch_norms(b, d);
  add_recurrent_networks(b, d);
  add_embeddings(b, d);
  return b;
}

const DTypeWithConstraints kQUInt8 = {.dtype = DType::quint8}, kQInt8 = {.dtype = DType::qint8},
                           kQUInt16 = {.dtype = DType::quint16}, kQInt16 = {.dtype = DType::qint16};

struct Builtin {
  const char* name;
  BackendConfig (*make)();
};
constexpr Builtin kBuiltins[] = {
    {"native", get_native_backend_config},     {"fbgemm", get_fbgemm_backend_config},
    {"onednn", get_onednn_backend_config},     {"qnnpack", get_qnnpack_backend_config},
    {"tensorrt", get_tensorrt_backend_config},
};

}  // namespace

BackendConfig get_native_backend_config() {
  return everything("native", dtypes({{kQUInt8, kQInt8},
                                      {kQInt8, kQInt8},
                                      {kQUInt16, kQInt8},
                                      {kQInt16, kQInt8},
                                      {kQUInt16, kQInt16},
                                      {kQInt16, kQInt16}}));
}
BackendConfig get_fbgemm_backend_config() {
  return everything("fbgemm", dtypes({{kQUInt8, kQInt8}, {kQInt8, kQInt8}}));
}
BackendConfig get_onednn_backend_config() {
  return everything("onednn", dtypes({{kQUInt8, kQInt8}}));
}

BackendConfig get_qnnpack_backend_config() {
  // XNNPACK requantizes by multipliers that must not be smaller, and its weights leave out -128.
  const DTypeWithConstraints activation = {.dtype = DType::qint8, .scale_min_lower_bound = 0x1p-12};
  const DTypeWithConstraints weight = {.dtype = DType::qint8,
                                       .quant_min_lower_bound = -127,
                                       .quant_max_upper_bound = 127,
                                       .scale_min_lower_bound = 0x1p-12};
  return everything("qnnpack", dtypes({{activation, weight}, {kQUInt8, kQInt8}}));
}

BackendConfig get_tensorrt_backend_config() {
  const DTypeWithConstraints symmetric = {.dtype = DType::qint8, .zero_point_exact_match = 0};
  DTypes d;
  d.layers = {static_layer(symmetric, symmetric)};
  d.operators = {activations_only(symmetric)};
  BackendConfig b("tensorrt");
  add_layers(b, d);
  add_binary(b, d);
  add_sharing(b, d);
  return b;
}

BackendConfig get_backend_config(std::string_view name) {
  if (name == "xnnpack") name = "qnnpack";  // the library behind PyTorch's qnnpack of today
  for (const Builtin& builtin : kBuiltins)
    if (name == builtin.name) return builtin.make();
  OCTET_FAIL(not_found, "unknown backend '{}'{} (known: {})", name,
             did_you_mean(name, backend_config_names()), fmt::join(backend_config_names(), ", "));
}

std::vector<std::string> backend_config_names() {
  std::vector<std::string> names;
  for (const Builtin& builtin : kBuiltins) names.push_back(builtin.name);
  return names;
}

}  // namespace octet::quant
