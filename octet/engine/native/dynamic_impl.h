#pragma once
// The weights of dynamic layers, which quantize their operand at run time.

#include <optional>

#include "octet/engine/native/matrix_impl.h"

namespace octet::native {

// Everything that does not depend on the input's range or shape.
struct DynamicWeights {
  DynamicWeights(const OpSpec& spec, const engine_detail::WeightCodes& codes,
                 const WeightRows& rows, const kernels::GemmShape& shape, int64_t groups)
      : packed(as_integer(spec, codes), rows, shape, groups),
        rule(spec.attrs),
        activation(spec.attrs.get_string("activation")),
        label(spec.label) {
    if (const TensorType& x = spec.inputs[0]; x.is_quantized()) {
      flip_x = x.dtype == DType::qint8;
      x_codes = {x.quantizer->scale(),
                 static_cast<int32_t>(x.quantizer->zero_point()) + (flip_x ? 128 : 0)};
    }
    if (spec.has(2)) bias = spec.constants[2].to_vector<float>();
    for (int64_t n = 0; n < codes.out_channels; ++n)
      sums.push_back(
          // wrapping
          static_cast<int32_t>(packed.weight_sums[n] -
                               shape.taps * shape.k * codes.zero_points[n]));
  }
  // Without the terms of x's zero point, and with s_w alone for multiplier.
  static engine_detail::IntegerWeights as_integer(const OpSpec& spec,
                                                  const engine_detail::WeightCodes& codes) {
    engine_detail::IntegerWeights r;
    static_cast<engine_detail::WeightCodes&>(r) = codes;
    r.bias.assign(codes.out_channels, 0);
    r.multiplier = codes.scales;
    r.wide = engine_detail::wide_channels(codes, spec, 0, 255, {});
    return r;
  }
  int64_t out_channels() const { return packed.groups * packed.shape.n; }
  KernelDescription description() const {
    KernelDescription d = packed.description();
    if (!x_codes)
      d.at_run_time = fmt::format("x: float32 to {}, one scale for the tensor, from its own range",
                                  rule.describe());
    d.epilogue = fmt::format("to float32 by s_x*s_w{}{}", bias.empty() ? "" : ", bias in float32",
                             activation == "none" ? "" : ", " + activation);
    return d;
  }

  PackedWeights packed;
  // of q_w - z_w per output channel: what a step of x's zero point is worth
  std::vector<int32_t> sums;
  std::vector<float> bias;  // empty if there is none
  engine_detail::RunTimeRule rule;
  // Of x if it is codes already; of unsigned codes, which qint8 ones become first.
  std::optional<affine::RunTimeQParams> x_codes;
  bool flip_x = false;
  std::string activation, label;
};

}  // namespace octet::native
