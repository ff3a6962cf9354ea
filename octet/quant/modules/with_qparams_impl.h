#pragma once
// The members of WithQParams, for the sources that make its classes: those of nn::Activations are
// made wherever the list is gone through.

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/modules/quantized.h"

namespace octet::nn::quantized {

using quant::QParams;

// The layer's result with these qparams (quantized.cpp).
Tensor compute(const Activation& activation, const Tensor& x, const ops::QType& result);
Tensor compute(const nn::PReLU& prelu, const Tensor& x, const ops::QType& result);
Tensor compute(const nn::LayerNorm& norm, const Tensor& x, const ops::QType& result);
Tensor compute(const nn::GroupNorm& norm, const Tensor& x, const ops::QType& result);
Tensor compute(const BatchNorm& norm, const Tensor& x, const ops::QType& result);
template <size_t N>
Tensor compute(const InstanceNormNd<N>& norm, const Tensor& x, const ops::QType& result);
template <size_t N>
Tensor compute(const AdaptivePoolNd<N, false>& average, const Tensor& x, const ops::QType& result);

template <typename Float, bool relu>
std::string WithQParams<Float, relu>::type_name() const {
  return "Quantized" + class_name(this->class_type());
}

template <typename Float, bool relu>
std::string WithQParams<Float, relu>::extra_repr() const {
  std::string s = Float::extra_repr();
  return fmt::format("{}{}scale={}, zero_point={}", s, s.empty() ? "" : ", ", scale, zero_point);
}

template <typename Float, bool relu>
std::map<std::string, Tensor> WithQParams<Float, relu>::extra_state() const {
  auto state = Float::extra_state();
  quant::save_qparams(state, scale, zero_point);
  return state;
}

template <typename Float, bool relu>
void WithQParams<Float, relu>::set_extra_state(const std::map<std::string, Tensor>& state) {
  quant::load_qparams(state, dtype, type_name(), scale, zero_point);
}

template <typename Float, bool relu>
Attrs WithQParams<Float, relu>::config() const {
  Attrs c = Float::config();
  return c.set("dtype", std::string(octet::to_string(dtype)));
}

template <typename Float, bool relu>
WithQParams<Float, relu>::WithQParams(const Float& layer, const QParams& result)
    : Float(layer),
      scale(result.quantizer->scale()),
      zero_point(result.quantizer->zero_point()),
      dtype(result.dtype) {
  this->qconfig.reset();
}

template <typename Float, bool relu>
std::shared_ptr<WithQParams<Float, relu>> WithQParams<Float, relu>::from_float(Module& module) {
  using Given = std::conditional_t<relu, intrinsic::Fused<Float, ReLU>, Float>;
  auto* given = dynamic_cast<Given*>(&module);
  OCTET_CHECK(given, invalid_argument, "{}: from_float was given a {}; expected a {}",
              class_name(typeid(WithQParams)), module.type_name(), class_name(typeid(Given)));
  ModulePtr layer;  // a copy whose parameters are its own
  if constexpr (relu)
    layer = (*given)[0].clone();
  else
    layer = given->clone();
  auto made = make<WithQParams>(layer->as<Float>(), quant::activation_qparams(module));
  made->remove_child(quant::kActivationPostProcess);
  made->remove_forward_hook(quant::kActivationPostProcess);
  made->requires_grad(false);
  return made;
}

template <typename Float, bool relu>
std::shared_ptr<WithQParams<Float, relu>> WithQParams<Float, relu>::from_config(
    const Attrs& config) {
  const DType dtype = parse_dtype(config.get_string("dtype"));
  std::shared_ptr<Float> layer;
  if constexpr (requires { Float::from_config(config); })
    layer = Float::from_config(config);
  else
    layer = make<Float>();
  auto made = make<WithQParams>(*layer, QParams{Quantizer::per_tensor(1, 0, dtype), dtype});
  made->requires_grad(false);
  return made;
}

// With a relu, the result's zero point is where that cuts: quantized values below it do not exist
// once they are clamped there.
template <typename Float, bool relu>
Tensor WithQParams<Float, relu>::forward(Tensor x) {
  Tensor y =
      compute(static_cast<const Float&>(*this), x, quant::result_type(scale, zero_point, dtype));
  return relu ? functional::relu(y) : y;
}

}  // namespace octet::nn::quantized
