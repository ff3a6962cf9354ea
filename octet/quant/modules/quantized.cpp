#include "octet/quant/modules/quantized.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/sources_impl.h"

namespace octet::nn::quantized {

using quant::QParams;

// -- layers with a weight -------------------------------------------------------------------------

StaticModule::StaticModule(std::string op, Attrs attrs, Attrs pads, std::string repr, Attrs config,
                           Tensor weight, Tensor bias, const QParams& result)
    : WeightedModule(std::move(op), std::move(attrs), std::move(pads), std::move(repr),
                     std::move(config), std::move(weight), std::move(bias)),
      scale(result.quantizer->scale()),
      zero_point(result.quantizer->zero_point()),
      dtype(result.dtype) {}

Tensor StaticModule::forward(Tensor x) {
  OCTET_CHECK(x.is_quantized(), invalid_argument,
              "{}: the input is {}; expected a quantized tensor: put a QuantStub before "
              "the layer, or leave it float (qconfig = nullptr)",
              type_name(), octet::to_string(x.type()));
  return call(x, quant::result_type(scale, zero_point, dtype));
}

std::string StaticModule::type_name() const { return "Quantized" + class_name(this->class_type()); }

std::string StaticModule::extra_repr() const {
  std::string s =
      WeightedModule::extra_repr() + fmt::format(", scale={}, zero_point={}", scale, zero_point);
  return op() == "linear" ? s + ", qscheme=" + qscheme_repr() : s;
}

std::map<std::string, Tensor> StaticModule::extra_state() const {
  auto state = WeightedModule::extra_state();
  quant::save_qparams(state, scale, zero_point);
  return state;
}

void StaticModule::set_extra_state(const std::map<std::string, Tensor>& state) {
  double new_scale = scale;
  int64_t new_zero = zero_point;
  quant::load_qparams(state, dtype, type_name(), new_scale, new_zero);
  WeightedModule::set_extra_state(state);
  scale = new_scale;
  zero_point = new_zero;
}

Attrs StaticModule::config() const {
  Attrs c = WeightedModule::config();
  return c.set("dtype", std::string(octet::to_string(dtype)));
}

namespace {

template <typename Layer>
std::shared_ptr<Layer> layer_from_float(Module& module) {
  using Float = typename Layer::FloatModule;
  auto source = quant::weight_source<Float, Layer::fused_relu>(module, class_name(typeid(Layer)));
  QParams result = quant::activation_qparams(module);
  return make<Layer>(*source.layer,
                     quant::quantize_weight(source.weight, module, source.weight_fake_quant,
                                            quant::weight_scale_axis(*source.layer)),
                     source.bias, result);
}

QParams placeholder_result(const Attrs& config) {
  DType dtype = parse_dtype(config.get_string("dtype"));
  return {Quantizer::per_tensor(1, 0, dtype), dtype};
}

template <typename Layer>
std::shared_ptr<Layer> layer_from_config(const Attrs& config) {
  auto layer = Layer::FloatModule::from_config(config);
  return make<Layer>(*layer, quant::placeholder_weight(layer->weight, config), layer->bias,
                     placeholder_result(config));
}

}  // namespace

template <typename Float, bool relu>
StaticLayer<Float, relu>::StaticLayer(const Float& layer, Tensor weight, Tensor bias,
                                      const QParams& result)
    : StaticModule(quant::layer_op<Float>(), quant::layer_attrs(layer, relu),
                   quant::layer_pads(layer), layer.Float::extra_repr(), layer.Float::config(),
                   std::move(weight), std::move(bias), result) {}

#define OCTET_STATIC(Name)                                         \
  OCTET_MODULE(Name)                                               \
  template class StaticLayer<Name::FloatModule, Name::fused_relu>; \
  std::shared_ptr<Name> Name::from_float(Module& module) {         \
    return layer_from_float<Name>(module);                         \
  }                                                                \
  std::shared_ptr<Name> Name::from_config(const Attrs& config) {   \
    return layer_from_config<Name>(config);                        \
  }
OCTET_STATIC(Linear)
OCTET_STATIC(Conv1d)
OCTET_STATIC(Conv2d)
OCTET_STATIC(Conv3d)
OCTET_STATIC(ConvTranspose1d)
OCTET_STATIC(ConvTranspose2d)
OCTET_STATIC(ConvTranspose3d)
OCTET_STATIC(LinearReLU)
OCTET_STATIC(ConvReLU1d)
OCTET_STATIC(ConvReLU2d)
OCTET_STATIC(ConvReLU3d)
#undef OCTET_STATIC

// -- layers without a quantized weight ------------------------------------------------------------

template <typename Float>
std::string WithQParams<Float>::type_name() const {
  return "Quantized" + class_name(this->class_type());
}

template <typename Float>
std::string WithQParams<Float>::extra_repr() const {
  std::string s = Float::extra_repr();
  return fmt::format("{}{}scale={}, zero_point={}", s, s.empty() ? "" : ", ", scale, zero_point);
}

template <typename Float>
std::map<std::string, Tensor> WithQParams<Float>::extra_state() const {
  auto state = Float::extra_state();
  quant::save_qparams(state, scale, zero_point);
  return state;
}

template <typename Float>
void WithQParams<Float>::set_extra_state(const std::map<std::string, Tensor>& state) {
  quant::load_qparams(state, dtype, type_name(), scale, zero_point);
}

template <typename Float>
Attrs WithQParams<Float>::config() const {
  Attrs c = Float::config();
  return c.set("dtype", std::string(octet::to_string(dtype)));
}

namespace {

template <typename Layer, typename Float>
std::shared_ptr<Layer> with_qparams(const Float& layer, const QParams& result) {
  auto made = make<Layer>(layer, result);
  made->remove_child(quant::kActivationPostProcess);
  made->remove_forward_hook(quant::kActivationPostProcess);
  made->requires_grad(false);
  return made;
}

// A copy of the float layer whose parameters are its own.
template <typename Float>
std::shared_ptr<Float> own_copy(const Module& layer) {
  return std::static_pointer_cast<Float>(layer.clone());
}

template <typename Float>
Float& expect_class(Module& module, const char* who) {
  auto* layer = dynamic_cast<Float*>(&module);
  OCTET_CHECK(layer, invalid_argument, "{}: from_float was given a {}; expected a {}", who,
              module.type_name(), class_name(typeid(Float)));
  return *layer;
}

// The float layer's class and configuration without the "dtype" of the result.
template <typename Float>
std::shared_ptr<Float> float_from(const Attrs& config) {
  if constexpr (requires { Float::from_config(config); })
    return Float::from_config(config);
  else
    return make<Float>();
}

}  // namespace

#define OCTET_STATIC(Name, ...)                                                                \
  OCTET_MODULE(Name)                                                                           \
  template class WithQParams<nn::Name>;                                                        \
  std::shared_ptr<Name> Name::from_float(Module& module) {                                     \
    expect_class<nn::Name>(module, #Name);                                                     \
    return with_qparams<Name>(*own_copy<nn::Name>(module), quant::activation_qparams(module)); \
  }                                                                                            \
  std::shared_ptr<Name> Name::from_config(const Attrs& c) {                                    \
    return with_qparams<Name>(*float_from<nn::Name>(c), placeholder_result(c));                \
  }                                                                                            \
  Tensor Name::forward(Tensor x) { return __VA_ARGS__; }
#define OCTET_STATIC_UNARY(Name) OCTET_STATIC(Name, ops::call(op_name(), {x}, op_attrs(), result()))
OCTET_STATIC_UNARY(ELU)
OCTET_STATIC_UNARY(CELU)
OCTET_STATIC_UNARY(GELU)
OCTET_STATIC_UNARY(Hardswish)
OCTET_STATIC_UNARY(LeakyReLU)
OCTET_STATIC_UNARY(Sigmoid)
OCTET_STATIC_UNARY(Hardsigmoid)
OCTET_STATIC_UNARY(Tanh)
OCTET_STATIC_UNARY(Softmax)
OCTET_STATIC_UNARY(LogSoftmax)
OCTET_STATIC_UNARY(SELU)
OCTET_STATIC_UNARY(Softplus)
OCTET_STATIC_UNARY(Softsign)

namespace {

Tensor batch_norm(const BatchNorm& bn, const Tensor& x, const ops::QType& result) {
  Tensor gamma = bn.weight.defined() ? Tensor(bn.weight) : Tensor::ones({bn.num_features});
  Tensor beta = bn.bias.defined() ? Tensor(bn.bias) : Tensor::zeros({bn.num_features});
  return ops::call("batch_norm", {x, gamma, beta, bn.running_mean, bn.running_var},
                   {{"eps", bn.options.eps}}, result);
}

// With running statistics it is a batch norm.
Tensor instance_norm(const InstanceNorm& norm, int64_t spatial, const Tensor& given,
                     const ops::QType& result) {
  const bool unbatched = given.dim() == spatial + 1;
  const Tensor x = unbatched ? given.unsqueeze(0) : given;
  Tensor y;
  if (norm.options.track_running_stats) {
    Tensor gamma = norm.weight.defined() ? Tensor(norm.weight) : Tensor::ones({norm.num_features});
    Tensor beta = norm.bias.defined() ? Tensor(norm.bias) : Tensor::zeros({norm.num_features});
    y = ops::call("batch_norm", {x, gamma, beta, norm.running_mean, norm.running_var},
                  {{"eps", norm.options.eps}}, result);
  } else {
    y = ops::call("instance_norm", {x, norm.weight, norm.bias}, {{"eps", norm.options.eps}},
                  result);
  }
  return unbatched ? y.squeeze(0) : y;
}

// Its product and its sigmoid in float: the sigmoid's codes would be too few.
Tensor silu(const Tensor& x, const ops::QType& result) {
  Tensor numbers = x.is_quantized() ? ops::call("dequantize", {x}) : x;
  return ops::call("quantize", {numbers * ops::call("sigmoid", {numbers})}, {}, result);
}

}  // namespace

OCTET_STATIC(PReLU, ops::call("prelu", {x, weight.detach()}, {}, result()))
OCTET_STATIC(SiLU, silu(x, result()))
OCTET_STATIC(LayerNorm,
             ops::call("layer_norm", {x, weight, bias},
                       {{"axis", -static_cast<int64_t>(normalized_shape.size())}, {"eps", eps}},
                       result()))
OCTET_STATIC(GroupNorm, ops::call("group_norm", {x, weight, bias},
                                  {{"groups", num_groups}, {"eps", eps}}, result()))
OCTET_STATIC(InstanceNorm1d, instance_norm(*this, spatial(), x, result()))
OCTET_STATIC(InstanceNorm2d, instance_norm(*this, spatial(), x, result()))
OCTET_STATIC(InstanceNorm3d, instance_norm(*this, spatial(), x, result()))
OCTET_STATIC(BatchNorm1d, batch_norm(*this, x, result()))
OCTET_STATIC(BatchNorm2d, batch_norm(*this, x, result()))
OCTET_STATIC(BatchNorm3d, batch_norm(*this, x, result()))
#undef OCTET_STATIC_UNARY
#undef OCTET_STATIC

// The result's zero point is where relu cuts: quantized values below it do not exist once they are
// clamped there.
#define OCTET_STATIC_BN_RELU(Name, Norm)                                                         \
  OCTET_MODULE(Name)                                                                             \
  std::shared_ptr<Name> Name::from_float(Module& module) {                                       \
    auto& fused = expect_class<intrinsic::Name>(module, #Name);                                  \
    return with_qparams<Name>(*own_copy<nn::Norm>(fused[0]), quant::activation_qparams(module)); \
  }                                                                                              \
  std::shared_ptr<Name> Name::from_config(const Attrs& c) {                                      \
    return with_qparams<Name>(*nn::Norm::from_config(c), placeholder_result(c));                 \
  }                                                                                              \
  Tensor Name::forward(Tensor x) { return functional::relu(batch_norm(*this, x, result())); }
OCTET_STATIC_BN_RELU(BNReLU2d, BatchNorm2d)
OCTET_STATIC_BN_RELU(BNReLU3d, BatchNorm3d)
#undef OCTET_STATIC_BN_RELU

}  // namespace octet::nn::quantized
