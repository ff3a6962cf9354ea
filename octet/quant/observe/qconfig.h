#pragma once
// QConfig: which observers watch a module's output and weight, and all the configurations known by
// name. Names and meanings are PyTorch's.

#include <string>
#include <string_view>
#include <vector>

#include "octet/quant/observe/factory.h"

namespace octet::quant {

// What to observe a module with. Either may be none.
struct QConfig {
  ObserverFactory activation;
  ObserverFactory weight;
  bool operator==(const QConfig&) const = default;
};

// "QConfig(activation=HistogramObserver(), weight=PerChannelMinMaxObserver(dtype=qint8, ...))".
std::string to_string(const QConfig& qconfig);

// As attributes ("activation.observer": "HistogramObserver", "weight.dtype": "qint8", ...) and
// back, exactly. Unknown names and values are an Error.
Attrs to_attrs(const QConfig& qconfig);
QConfig qconfig_from(const Attrs& attrs);

// The configurations users know, by name (docs/numerics.md "Defaults"):
//  native          Percentile quint8 affine         per-channel MSE symmetric qint8, -127..127
//  a16w8           Histogram quint16 affine         per-channel MSE symmetric qint8, -127..127
//  fbgemm, x86     Histogram quint8, reduce_range   per-channel symmetric qint8
//  onednn          Histogram quint8 affine          per-channel symmetric qint8
//  qnnpack         Histogram quint8 affine          per-tensor symmetric qint8
// and every function below that returns a QConfig and takes nothing: "default_qconfig",
// "float16_dynamic_qconfig", ... An unknown name is an Error listing the known ones and the nearest
// (PyTorch silently hands back default_qconfig).
QConfig get_default_qconfig(std::string_view name = "native");
std::vector<std::string> qconfig_names();

// For quantization-aware training: native, fbgemm, x86, onednn or qnnpack (Error for others), with
// moving averages in place of histograms. Version 1: FusedMovingAvgObsFakeQuantize; version 0:
// FakeQuantize.
QConfig get_default_qat_qconfig(std::string_view name = "native", int version = 1);

// -- PyTorch's named configurations ---------------------------------------------------------------
// Static.
QConfig default_qconfig();              // MinMax quint8 affine, 0..127 | per-tensor symmetric qint8
QConfig default_per_channel_qconfig();  // the same | per-channel symmetric qint8
QConfig default_debug_qconfig();        // Recording | per-tensor symmetric qint8
QConfig default_reuse_input_qconfig();
// Histogram qint8, eps 2^-12 | symmetric, -127..127
QConfig default_symmetric_qnnpack_qconfig();
QConfig default_per_channel_symmetric_qnnpack_qconfig();  // the same, weights per channel
// Dynamic: activations are quantized at run time.
QConfig default_dynamic_qconfig();      // quint8 | per-tensor symmetric qint8
QConfig per_channel_dynamic_qconfig();  // quint8 | per-channel symmetric qint8
QConfig float16_dynamic_qconfig();
QConfig float16_static_qconfig();
// Weights only, for embeddings: one float scale and float zero point per row.
QConfig float_qparams_weight_only_qconfig();
QConfig float_qparams_weight_only_qconfig_4bit();
// Quantization-aware training.
QConfig default_qat_qconfig();
QConfig default_qat_qconfig_v2();  // with fused modules
QConfig default_dynamic_qat_qconfig();
QConfig default_weight_only_qconfig();
QConfig default_activation_only_qconfig();
QConfig default_symmetric_qnnpack_qat_qconfig();
QConfig default_per_channel_symmetric_qnnpack_qat_qconfig();
QConfig default_embedding_qat_qconfig();
QConfig default_embedding_qat_qconfig_4bit();

// -- PyTorch's named observers --------------------------------------------------------------------
ObserverFactory default_observer();            // MinMax, codes 0..127
ObserverFactory default_histogram_observer();  // Histogram, codes 0..127
ObserverFactory default_weight_observer();     // MinMax qint8, symmetric
// PerChannelMinMax qint8, symmetric
ObserverFactory default_per_channel_weight_observer();
ObserverFactory weight_observer_range_neg_127_to_127();              // -127..127, eps 2^-12
ObserverFactory per_channel_weight_observer_range_neg_127_to_127();  // -127..127, eps 2^-12
ObserverFactory default_placeholder_observer();
ObserverFactory default_debug_observer();
ObserverFactory default_dynamic_quant_observer();
ObserverFactory default_float_qparams_observer();
ObserverFactory default_float_qparams_observer_4bit();
// quint8, 1/256, 0: sigmoid, softmax
ObserverFactory default_fixed_qparams_range_0to1_observer();
ObserverFactory default_fixed_qparams_range_neg1to1_observer();  // quint8, 2/256, 128: tanh
ObserverFactory default_affine_fixed_qparams_observer();         // older names of the same two
ObserverFactory default_symmetric_fixed_qparams_observer();
ObserverFactory default_reuse_input_observer();

// -- PyTorch's named fake-quantize modules --------------------------------------------------------
ObserverFactory default_fake_quant();  // moving average, quint8 with reduce_range
ObserverFactory default_weight_fake_quant();
ObserverFactory default_per_channel_weight_fake_quant();
ObserverFactory default_dynamic_fake_quant();  // of each batch by itself
ObserverFactory default_histogram_fake_quant();
ObserverFactory default_embedding_fake_quant();
ObserverFactory default_embedding_fake_quant_4bit();
ObserverFactory default_fixed_qparams_range_0to1_fake_quant();
ObserverFactory default_fixed_qparams_range_neg1to1_fake_quant();
ObserverFactory default_affine_fixed_qparams_fake_quant();  // older names of the same two
ObserverFactory default_symmetric_fixed_qparams_fake_quant();
ObserverFactory default_fused_act_fake_quant();
ObserverFactory default_fused_wt_fake_quant();
ObserverFactory default_fused_per_channel_wt_fake_quant();
ObserverFactory fused_wt_fake_quant_range_neg_127_to_127();
ObserverFactory fused_per_channel_wt_fake_quant_range_neg_127_to_127();

}  // namespace octet::quant
