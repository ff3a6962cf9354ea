#pragma once
// The float layers that have a weight, and a dispatch over them.

#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/ops/conv_impl.h"

namespace octet::quant {

template <typename Layer>
inline constexpr bool is_conv = !std::is_same_v<Layer, nn::Linear>;

// The dimension of the weight that holds output channels.
template <typename Layer>
constexpr int64_t channel_axis() {
  if constexpr (is_conv<Layer>)
    return Layer::output_channel_axis();
  else
    return 0;
}

// The dimension of the weight that per-channel scales lie along.
template <typename Layer>
int64_t weight_scale_axis(const Layer& layer) {
  if constexpr (is_conv<Layer>)
    return ops::weight_scale_axis(Layer::is_transposed, layer.weight.type(), layer.options.groups);
  else
    return 0;
}

template <typename Layer>
std::string layer_op() {
  if constexpr (is_conv<Layer>)
    return Layer::op_name();
  else
    return "linear";
}

template <typename Layer>
Attrs layer_attrs(const Layer& layer, bool relu = false) {
  Attrs attrs;
  if constexpr (is_conv<Layer>) attrs = layer.op_attrs();
  return attrs.set("activation", std::string(relu ? "relu" : "none"));
}

// Of the pad operator before the layer's; empty: there is none.
template <typename Layer>
Attrs layer_pads(const Layer& layer) {
  if constexpr (is_conv<Layer>)
    return layer.pad_attrs();
  else
    return {};
}

// Calls fn with the layer as what it is; false if it is none of them.
template <typename Fn>
bool visit_layer(nn::Module& module, Fn&& fn) {
  auto as = [&]<typename Layer>(Layer*) {
    auto* layer = dynamic_cast<Layer*>(&module);
    if (layer) fn(*layer);
    return layer != nullptr;
  };
  return as(static_cast<nn::Linear*>(nullptr)) || as(static_cast<nn::Conv2d*>(nullptr)) ||
         as(static_cast<nn::Conv1d*>(nullptr)) || as(static_cast<nn::Conv3d*>(nullptr)) ||
         as(static_cast<nn::ConvTranspose1d*>(nullptr)) ||
         as(static_cast<nn::ConvTranspose2d*>(nullptr)) ||
         as(static_cast<nn::ConvTranspose3d*>(nullptr));
}

}  // namespace octet::quant
