#pragma once
// What conv and linear layers have in common for templates, and a dispatch over them.

#include "octet/nn/registry.h"
#include "octet/ops/conv_impl.h"
#include "octet/quant/modules/forms.h"

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
std::string layer_op(WeightForm form = WeightForm::in_float) {
  std::string op = "linear";
  if constexpr (is_conv<Layer>) op = Layer::op_name();
  return form == WeightForm::in_float ? op : ops::find_form(op, form)->name();
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
  bool found = false;
  for_each_type(WeightedForms(), [&]<typename Forms>() {
    if constexpr (!Forms::relu) {
      auto* layer = found ? nullptr : dynamic_cast<typename Forms::Float*>(&module);
      if (layer) fn(*layer);
      found = found || layer;
    }
  });
  return found;
}

// Registers a class that others make by its from_float. They see a declaration: this call, in the
// source that defines the class's members, is what makes the compiler write them.
template <typename M>
void register_form(const std::string& name) {
  [[gnu::used]] static const auto from_float = &M::from_float;
  nn::register_module<M>(name);
}

}  // namespace octet::quant
