#pragma once
// Quantization of a graph without calibration: only weights are quantized now.

#include "octet/quant/workflow/quantize_fx.h"

namespace octet::quant {

// Linear and convolution nodes with a constant float weight become their dynamic forms
// (linear_dynamic, ...): inputs are quantized at each call from their own range, results are float
// (docs/numerics.md "Run-time choice"). So do lstm, gru and rnn, which keep their names and take
// codes. Everything else stays as it is. Per-channel weight observers run along the output
// channels. Weights of linear nodes whose quant_min..quant_max are of 4 bits (-8..7; quint8: 0..15)
// are kept two codes to a byte. `skip` as for prepare_fx. Error if there is no such node. The
// report lists the nodes that have a weight.
graph::Graph quantize_dynamic_fx(const graph::Graph& graph,
                                 const QConfig& qconfig = default_dynamic_qconfig(),
                                 const PrepareOptions& options = {},
                                 ConversionReport* report = nullptr);

// The same nodes with quantized weights and float arithmetic (linear_weight_only, ...): smaller
// files.
graph::Graph quantize_weight_only_fx(
    const graph::Graph& graph,
    const ObserverFactory& weight = default_per_channel_weight_observer(),
    const PrepareOptions& options = {}, ConversionReport* report = nullptr);

}  // namespace octet::quant
