#include "octet/quant/observe/qconfig.h"

#include <algorithm>
#include <array>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"

namespace octet::quant {
namespace {

constexpr double kQnnpackEps = 0x1p-12;
const char* const kFused = "FusedMovingAvgObsFakeQuantize";

ObserverFactory histogram() { return ObserverFactory("HistogramObserver"); }
ObserverFactory moving_average() { return ObserverFactory("MovingAverageMinMaxObserver"); }
ObserverFactory moving_average_per_channel() {
  return ObserverFactory("MovingAveragePerChannelMinMaxObserver");
}

// Symmetric qint8, the scheme of weights.
ObserverFactory symmetric(const ObserverFactory& observer) {
  bool per_channel = is_per_channel(observer.options().qscheme);
  return observer.with_dtype(DType::qint8)
      .with_qscheme(per_channel ? ObserverScheme::per_channel_symmetric
                                : ObserverScheme::per_tensor_symmetric);
}

// All codes, said outright, as PyTorch's fake-quantize modules do.
ObserverFactory all_codes(const ObserverFactory& observer) {
  return observer.with_quant_range(qmin(observer.options().dtype), qmax(observer.options().dtype));
}

ObserverFactory float_qparams(const ObserverFactory& observer) {
  return observer.with_qscheme(ObserverScheme::per_channel_affine_float_qparams).with_ch_axis(0);
}

ObserverFactory float16_placeholder() {
  return default_placeholder_observer().with_dtype(DType::float16);
}

// Our kernels never saturate, so activations use all codes. Of the real networks in
// docs/numerics.md the one that histograms harm most keeps its accuracy with percentiles, and none
// of the others loses more than 1.3 dB more than with histograms.
QConfig native() {
  return {ObserverFactory("PercentileObserver").with_own_averages(true),
          symmetric(ObserverFactory("PerChannelMSEObserver")).with_quant_range(-127, 127)};
}
// Activations of 16 bits, whose codes are too fine for clipping to pay.
QConfig a16w8() {
  return {histogram().with_dtype(DType::quint16).with_own_averages(true), native().weight};
}
QConfig fbgemm() {
  return {histogram().with_reduce_range(true), default_per_channel_weight_observer()};
}
QConfig onednn() { return {histogram(), default_per_channel_weight_observer()}; }
QConfig qnnpack() { return {histogram(), default_weight_observer()}; }

struct NamedQConfig {
  const char* name;
  QConfig (*make)();
};

constexpr std::array<NamedQConfig, 27> kQConfigs = {{
    {"native", native},
    {"a16w8", a16w8},
    {"fbgemm", fbgemm},
    {"x86", fbgemm},
    {"onednn", onednn},
    {"qnnpack", qnnpack},
    {"default_qconfig", default_qconfig},
    {"default_per_channel_qconfig", default_per_channel_qconfig},
    {"default_debug_qconfig", default_debug_qconfig},
    {"default_reuse_input_qconfig", default_reuse_input_qconfig},
    {"default_symmetric_qnnpack_qconfig", default_symmetric_qnnpack_qconfig},
    {"default_per_channel_symmetric_qnnpack_qconfig",
     default_per_channel_symmetric_qnnpack_qconfig},
    {"default_dynamic_qconfig", default_dynamic_qconfig},
    {"per_channel_dynamic_qconfig", per_channel_dynamic_qconfig},
    {"float16_dynamic_qconfig", float16_dynamic_qconfig},
    {"float16_static_qconfig", float16_static_qconfig},
    {"float_qparams_weight_only_qconfig", float_qparams_weight_only_qconfig},
    {"float_qparams_weight_only_qconfig_4bit", float_qparams_weight_only_qconfig_4bit},
    {"default_qat_qconfig", default_qat_qconfig},
    {"default_qat_qconfig_v2", default_qat_qconfig_v2},
    {"default_dynamic_qat_qconfig", default_dynamic_qat_qconfig},
    {"default_weight_only_qconfig", default_weight_only_qconfig},
    {"default_activation_only_qconfig", default_activation_only_qconfig},
    {"default_symmetric_qnnpack_qat_qconfig", default_symmetric_qnnpack_qat_qconfig},
    {"default_per_channel_symmetric_qnnpack_qat_qconfig",
     default_per_channel_symmetric_qnnpack_qat_qconfig},
    {"default_embedding_qat_qconfig", default_embedding_qat_qconfig},
    {"default_embedding_qat_qconfig_4bit", default_embedding_qat_qconfig_4bit},
}};

}  // namespace

std::string to_string(const QConfig& qconfig) {
  return fmt::format("QConfig(activation={}, weight={})", to_string(qconfig.activation),
                     to_string(qconfig.weight));
}

QConfig get_default_qconfig(std::string_view name) {
  for (const NamedQConfig& q : kQConfigs)
    if (name == q.name) return q.make();
  OCTET_FAIL(not_found, "unknown qconfig '{}'{} (known: {})", name,
             did_you_mean(name, qconfig_names()), fmt::join(qconfig_names(), ", "));
}

std::vector<std::string> qconfig_names() {
  std::vector<std::string> names;
  for (const NamedQConfig& q : kQConfigs) names.push_back(q.name);
  return names;
}

QConfig get_default_qat_qconfig(std::string_view name, int version) {
  static const std::vector<std::string> known = {"native", "fbgemm", "x86", "onednn", "qnnpack"};
  OCTET_CHECK(std::find(known.begin(), known.end(), name) != known.end(), not_found,
              "unknown QAT qconfig '{}'{} (known: {})", name, did_you_mean(name, known),
              fmt::join(known, ", "));
  OCTET_CHECK(version == 0 || version == 1, invalid_argument,
              "get_default_qat_qconfig: version {}; expected 0 (FakeQuantize) or 1 (fused)",
              version);
  ObserverFactory activation = all_codes(moving_average())
                                   .with_reduce_range(name == "fbgemm" || name == "x86")
                                   .with_own_averages(name == "native");
  ObserverFactory weight =
      name == "qnnpack" ? default_weight_fake_quant() : default_per_channel_weight_fake_quant();
  if (name == "native") weight = weight.with_quant_range(-127, 127);
  const char* module = version == 0 ? "FakeQuantize" : kFused;
  return {activation.fake_quantize(module), weight.fake_quantize(module)};
}

// -- qconfigs -------------------------------------------------------------------------------------
QConfig default_qconfig() { return {default_observer(), default_weight_observer()}; }
QConfig default_per_channel_qconfig() {
  return {default_observer(), default_per_channel_weight_observer()};
}
QConfig default_debug_qconfig() { return {default_debug_observer(), default_weight_observer()}; }
QConfig default_reuse_input_qconfig() {
  return {default_reuse_input_observer(), ObserverFactory("NoopObserver")};
}

QConfig default_symmetric_qnnpack_qconfig() {
  return {histogram().with_dtype(DType::qint8).with_eps(kQnnpackEps),
          weight_observer_range_neg_127_to_127()};
}

QConfig default_per_channel_symmetric_qnnpack_qconfig() {
  return {default_symmetric_qnnpack_qconfig().activation,
          per_channel_weight_observer_range_neg_127_to_127()};
}

QConfig default_dynamic_qconfig() {
  return {default_dynamic_quant_observer(), default_weight_observer()};
}

QConfig per_channel_dynamic_qconfig() {
  return {default_dynamic_quant_observer(), default_per_channel_weight_observer()};
}

QConfig float16_dynamic_qconfig() {
  return {float16_placeholder().with_is_dynamic(true), float16_placeholder()};
}
QConfig float16_static_qconfig() { return {float16_placeholder(), float16_placeholder()}; }

QConfig float_qparams_weight_only_qconfig() {
  return {default_placeholder_observer(), default_float_qparams_observer()};
}

QConfig float_qparams_weight_only_qconfig_4bit() {
  return {default_placeholder_observer(), default_float_qparams_observer_4bit()};
}

QConfig default_qat_qconfig() { return {default_fake_quant(), default_weight_fake_quant()}; }
QConfig default_qat_qconfig_v2() {
  return {default_fused_act_fake_quant(), default_fused_wt_fake_quant()};
}
QConfig default_dynamic_qat_qconfig() {
  return {default_dynamic_fake_quant(), default_weight_fake_quant()};
}
QConfig default_weight_only_qconfig() {
  return {ObserverFactory("Identity"), default_weight_fake_quant()};
}
QConfig default_activation_only_qconfig() {
  return {default_fake_quant(), ObserverFactory("Identity")};
}

QConfig default_symmetric_qnnpack_qat_qconfig() {
  return {all_codes(moving_average().with_dtype(DType::qint8))
              .with_eps(kQnnpackEps)
              .fake_quantize(kFused),
          fused_wt_fake_quant_range_neg_127_to_127()};
}

QConfig default_per_channel_symmetric_qnnpack_qat_qconfig() {
  return {default_symmetric_qnnpack_qat_qconfig().activation,
          fused_per_channel_wt_fake_quant_range_neg_127_to_127()};
}

QConfig default_embedding_qat_qconfig() {
  return {ObserverFactory("NoopObserver").with_dtype(DType::float32),
          default_embedding_fake_quant()};
}

QConfig default_embedding_qat_qconfig_4bit() {
  return {ObserverFactory("NoopObserver").with_dtype(DType::float32),
          default_embedding_fake_quant_4bit()};
}

// -- observers ------------------------------------------------------------------------------------
ObserverFactory default_observer() {
  return ObserverFactory("MinMaxObserver").with_quant_range(0, 127);
}
ObserverFactory default_histogram_observer() { return histogram().with_quant_range(0, 127); }
ObserverFactory default_weight_observer() { return symmetric(ObserverFactory("MinMaxObserver")); }
ObserverFactory default_per_channel_weight_observer() {
  return symmetric(ObserverFactory("PerChannelMinMaxObserver"));
}

ObserverFactory weight_observer_range_neg_127_to_127() {
  return default_weight_observer().with_quant_range(-127, 127).with_eps(kQnnpackEps);
}

ObserverFactory per_channel_weight_observer_range_neg_127_to_127() {
  return default_per_channel_weight_observer().with_quant_range(-127, 127).with_eps(kQnnpackEps);
}

ObserverFactory default_placeholder_observer() { return ObserverFactory("PlaceholderObserver"); }
ObserverFactory default_debug_observer() { return ObserverFactory("RecordingObserver"); }

ObserverFactory default_dynamic_quant_observer() {
  return default_placeholder_observer().with_dtype(DType::quint8).with_is_dynamic(true);
}

ObserverFactory default_float_qparams_observer() {
  return float_qparams(ObserverFactory("PerChannelMinMaxObserver"));
}

ObserverFactory default_float_qparams_observer_4bit() {
  return default_float_qparams_observer().with_dtype(DType::quint4x2);
}

ObserverFactory default_fixed_qparams_range_0to1_observer() {
  return ObserverFactory("FixedQParamsObserver").with_fixed_qparams(1.0 / 256, 0);
}

ObserverFactory default_fixed_qparams_range_neg1to1_observer() {
  return ObserverFactory("FixedQParamsObserver").with_fixed_qparams(2.0 / 256, 128);
}

ObserverFactory default_affine_fixed_qparams_observer() {
  return default_fixed_qparams_range_0to1_observer();
}
ObserverFactory default_symmetric_fixed_qparams_observer() {
  return default_fixed_qparams_range_neg1to1_observer();
}
ObserverFactory default_reuse_input_observer() { return ObserverFactory("ReuseInputObserver"); }

// -- fake-quantize modules ------------------------------------------------------------------------
ObserverFactory default_fake_quant() {
  return all_codes(moving_average()).with_reduce_range(true).fake_quantize();
}
ObserverFactory default_weight_fake_quant() {
  return all_codes(symmetric(moving_average())).fake_quantize();
}

ObserverFactory default_per_channel_weight_fake_quant() {
  return all_codes(symmetric(moving_average_per_channel())).fake_quantize();
}

ObserverFactory default_dynamic_fake_quant() {
  return all_codes(moving_average()).with_averaging_constant(1).fake_quantize();
}

ObserverFactory default_histogram_fake_quant() {
  return all_codes(histogram()).with_reduce_range(true).fake_quantize();
}

ObserverFactory default_embedding_fake_quant() {
  return all_codes(float_qparams(moving_average_per_channel()))
      .with_averaging_constant(1)
      .fake_quantize();
}

ObserverFactory default_embedding_fake_quant_4bit() {
  return all_codes(default_embedding_fake_quant().with_dtype(DType::quint4x2));
}

ObserverFactory default_fixed_qparams_range_0to1_fake_quant() {
  return default_fixed_qparams_range_0to1_observer().fake_quantize("FixedQParamsFakeQuantize");
}

ObserverFactory default_fixed_qparams_range_neg1to1_fake_quant() {
  return default_fixed_qparams_range_neg1to1_observer().fake_quantize("FixedQParamsFakeQuantize");
}

ObserverFactory default_affine_fixed_qparams_fake_quant() {
  return default_fixed_qparams_range_0to1_fake_quant();
}
ObserverFactory default_symmetric_fixed_qparams_fake_quant() {
  return default_fixed_qparams_range_neg1to1_fake_quant();
}
ObserverFactory default_fused_act_fake_quant() {
  return all_codes(moving_average()).fake_quantize(kFused);
}
ObserverFactory default_fused_wt_fake_quant() {
  return default_weight_fake_quant().fake_quantize(kFused);
}

ObserverFactory default_fused_per_channel_wt_fake_quant() {
  return default_per_channel_weight_fake_quant().fake_quantize(kFused);
}

ObserverFactory fused_wt_fake_quant_range_neg_127_to_127() {
  return default_fused_wt_fake_quant().with_quant_range(-127, 127).with_eps(kQnnpackEps);
}

ObserverFactory fused_per_channel_wt_fake_quant_range_neg_127_to_127() {
  return default_fused_per_channel_wt_fake_quant().with_quant_range(-127, 127).with_eps(
      kQnnpackEps);
}

}  // namespace octet::quant
