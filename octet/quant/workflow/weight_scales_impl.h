#pragma once
// Scales of weights are kept so large that a layer's bias is an int32 in steps of s_x * s_w, and
// its sums with it: a channel whose weights are next to nothing beside its bias would have a scale
// so small that files for other tools could not hold the bias (octet's own sums are exact whatever
// the scales are).

#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/nn/module.h"
#include "octet/quant/workflow/report.h"

namespace octet::quant {

// The weight of a linear layer or convolution that reads codes of scale `x_scale` and adds `bias`
// (float32, or undefined: none), with the scales raised where that is needed. Scales are per tensor
// or per output channel, those of transposed convolutions per output channel of a group. A raised
// scale is the smallest whose bias code leaves int32 the room for the channel's products, half of
// int32 at most. A warning naming `label` and the channels goes to the report.
Tensor raise_weight_scales(const Tensor& weight, const Tensor& bias, double x_scale,
                           const std::string& label, ConversionReport& report);

// The same for the module, if it is a quantized layer with weight and bias.
void raise_weight_scales(nn::Module& module, double x_scale, const std::string& label,
                         ConversionReport& report);

// The same for every layer of a reference graph: dequantize -> linear or convolution, its weight a
// dequantized constant.
graph::Graph raise_weight_scales(const graph::Graph& reference, ConversionReport& report);

}  // namespace octet::quant
