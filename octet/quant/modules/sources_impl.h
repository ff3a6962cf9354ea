#pragma once
// Where the weights of a quantized layer come from: a float layer, a fused one, or one in
// quantization-aware training.

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/visit_impl.h"

namespace octet::quant {

template <typename Float>
struct WeightSource {
  const Float* layer = nullptr;
  Tensor weight, bias;              // float; a batch norm is folded in
  nn::ModulePtr weight_fake_quant;  // null unless in training
  std::shared_ptr<Float> own;       // `layer`, if it is no part of the module
};

// The batch norm that a QAT layer may have behind it; void for layers that have no such form.
template <typename Float, bool relu>
struct NormOf {
  using type = void;
};
template <>
struct NormOf<nn::Linear, false> {
  using type = nn::BatchNorm1d;
};
template <bool relu>
struct NormOf<nn::Conv1d, relu> {
  using type = nn::BatchNorm1d;
};
template <bool relu>
struct NormOf<nn::Conv2d, relu> {
  using type = nn::BatchNorm2d;
};
template <bool relu>
struct NormOf<nn::Conv3d, relu> {
  using type = nn::BatchNorm3d;
};

// The Float layer, with a relu behind if `relu`, that `module` is. Error if it is something else.
template <typename Float, bool relu>
WeightSource<Float> weight_source(nn::Module& module, const std::string& who) {
  if (auto* qat = dynamic_cast<nn::qat::QatLayer<Float, relu>*>(&module))
    return {qat, qat->weight, qat->bias, qat->weight_fake_quant.get()};
  using Norm = typename NormOf<Float, relu>::type;
  if constexpr (!std::is_void_v<Norm>) {
    if (auto* qat = dynamic_cast<nn::qat::QatBnLayer<Float, Norm, relu>*>(&module)) {
      FoldedWeights f = qat->folded();
      WeightSource<Float> source{qat, f.weight, f.bias, qat->weight_fake_quant.get()};
      if (!qat->bias.defined()) {  // folding made one
        nn::init::Skip skip;
        source.own = Float::from_config(qat->Float::config().set("bias", true));
        source.layer = source.own.get();
      }
      return source;
    }
  }
  const Float* layer = nullptr;
  if constexpr (relu) {
    auto* fused = dynamic_cast<nn::intrinsic::FusedModule*>(&module);
    if (fused && fused->size() == 2 && dynamic_cast<nn::ReLU*>(&(*fused)[1]))
      layer = dynamic_cast<Float*>(&(*fused)[0]);
  } else {
    layer = dynamic_cast<Float*>(&module);
  }
  OCTET_CHECK(layer, invalid_argument, "{}: from_float was given a {}; expected a {}{}", who,
              module.type_name(), nn::class_name(typeid(Float)), relu ? " fused with a ReLU" : "");
  return {layer, layer->weight, layer->bias, nullptr};
}

// A weight of that shape to be replaced when the state is loaded.
inline Tensor placeholder_weight(const Tensor& weight, const Attrs& config) {
  if (config.has("weight_dtype"))
    return Tensor::zeros(weight.shape(), parse_dtype(config.get_string("weight_dtype")));
  return quantize_per_tensor(Tensor::zeros(weight.shape()), 1, 0, DType::qint8);
}

}  // namespace octet::quant
