#pragma once
// Where the weights of a quantized layer come from: a float layer, a fused one, or one in
// quantization-aware training.

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/visit_impl.h"

namespace octet::quant {

template <typename Float>
struct WeightSource {
  const Float* layer = nullptr;
  Tensor weight, bias;              // float, a batch norm folded in; or quantized
  nn::ModulePtr weight_fake_quant;  // null unless in training
  std::shared_ptr<Float> own = {};  // `layer`, if it is no part of the module
  bool quantized = false;           // the weight needs no quantizing
};

// A float layer with another one's configuration; its weights are not set.
template <typename Float>
std::shared_ptr<Float> float_layer(const Attrs& config) {
  nn::init::Skip skip;
  return Float::from_config(config);
}

// That of a layer in training; without `layer` if `module` is none of this class.
template <typename Forms>
WeightSource<typename Forms::Float> trained_source(nn::Module& module) {
  using Float = typename Forms::Float;
  if (auto* qat = dynamic_cast<typename Forms::Qat*>(&module))
    return {qat, qat->weight, qat->bias, qat->weight_fake_quant.get()};
  if constexpr (has_bn<Forms>) {
    if (auto* qat = dynamic_cast<typename Forms::QatBn*>(&module)) {
      FoldedWeights f = qat->folded();
      WeightSource<Float> source{qat, f.weight, f.bias, qat->weight_fake_quant.get()};
      if (!qat->bias.defined()) {  // folding made one
        source.own = float_layer<Float>(qat->Float::config().set("bias", true));
        source.layer = source.own.get();
      }
      return source;
    }
  }
  return {};
}

// The layer `Forms`, float, fused, in training, reference or weight-only, that `module` is. Error
// if it is something else.
template <typename Forms>
WeightSource<typename Forms::Float> weight_source(nn::Module& module, const std::string& who) {
  using Float = typename Forms::Float;
  if (auto source = trained_source<Forms>(module); source.layer) return source;
  nn::quantized::WeightOnlyModule* quantized = dynamic_cast<typename Forms::Reference*>(&module);
  if (!quantized) quantized = dynamic_cast<typename Forms::WeightOnly*>(&module);
  if (quantized) {
    auto own = float_layer<Float>(quantized->config());
    return {own.get(), quantized->weight(), quantized->bias(), nullptr, own, true};
  }
  const Float* layer = nullptr;
  if constexpr (Forms::relu) {
    auto* fused = dynamic_cast<nn::intrinsic::FusedModule*>(&module);
    if (fused && fused->size() == 2 && dynamic_cast<nn::ReLU*>(&(*fused)[1]))
      layer = dynamic_cast<Float*>(&(*fused)[0]);
  } else {
    auto* fused = dynamic_cast<nn::intrinsic::FusedModule*>(&module);
    bool has_relu =
        fused && fused->size() > 0 && dynamic_cast<nn::ReLU*>(&(*fused)[fused->size() - 1]);
    if constexpr (fuses_relu<Float>)
      has_relu = has_relu || trained_source<FormsOf<Float, true>>(module).layer;
    OCTET_CHECK(!has_relu, invalid_argument, "{}: it has a relu and cannot become a {}",
                module.type_name(), who);
    layer = dynamic_cast<Float*>(&module);
  }
  OCTET_CHECK(layer, invalid_argument, "{}: from_float was given a {}; expected a {}{}", who,
              module.type_name(), nn::class_name(typeid(Float)),
              Forms::relu ? " fused with a ReLU" : "");
  return {layer, layer->weight, layer->bias, nullptr};
}

// A weight of that shape to be replaced when the state is loaded.
inline Tensor placeholder_weight(const Tensor& weight, const Attrs& config) {
  if (config.has("weight_dtype"))
    return Tensor::zeros(weight.shape(), parse_dtype(config.get_string("weight_dtype")));
  return quantize_per_tensor(Tensor::zeros(weight.shape()), 1, 0, DType::qint8);
}

}  // namespace octet::quant

namespace octet::nn::quantized {

template <typename Base, typename Float, bool relu>
QuantizedLayer<Base, Float, relu>::QuantizedLayer(const Float& layer, Tensor weight, Tensor bias)
    : Base(quant::layer_op<Float>(Base::form), quant::layer_attrs(layer, relu),
           quant::layer_pads(layer), layer.Float::extra_repr(), layer.Float::config(),
           std::move(weight), std::move(bias)) {}

template <typename Base, typename Float, bool relu>
std::shared_ptr<QuantizedLayer<Base, Float, relu>> QuantizedLayer<Base, Float, relu>::from_float(
    Module& module) {
  auto source =
      quant::weight_source<quant::FormsOf<Float, relu>>(module, class_name(typeid(QuantizedLayer)));
  const quant::QParams result = Base::result_of(module);
  if (!source.quantized)
    source.weight = quant::quantize_weight(source.weight, module, source.weight_fake_quant,
                                           quant::weight_scale_axis(*source.layer));
  auto made = make<QuantizedLayer>(*source.layer, source.weight, source.bias);
  made->set_result(result);
  if (source.quantized) made->train(module.training());
  return made;
}

template <typename Base, typename Float, bool relu>
std::shared_ptr<QuantizedLayer<Base, Float, relu>> QuantizedLayer<Base, Float, relu>::from_config(
    const Attrs& config) {
  auto layer = Float::from_config(config);
  auto made =
      make<QuantizedLayer>(*layer, quant::placeholder_weight(layer->weight, config), layer->bias);
  made->take_config(config);
  return made;
}

}  // namespace octet::nn::quantized
