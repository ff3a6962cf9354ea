#pragma once
// The quantization arithmetic for one number, exactly as docs/numerics.md states it. The reference
// engine, the observers and the tests use these; kernels compute the same bits with vectors.

#include <cmath>
#include <cstdint>

namespace octet::affine {

// Round half to even, to an integer-valued float (the default rounding mode is assumed, as
// everywhere).
inline float rne(float v) { return std::nearbyint(v); }

// clamp(rne(v) + z, lo, hi) without overflow for any v; NaN gives z clamped.
inline int32_t round_and_clamp(float v, int32_t z, int32_t lo, int32_t hi) {
  if (std::isnan(v)) v = 0;
  // Compared in double, where the sum of an integer-valued float and an int32 is exact as far as
  // clamping needs.
  double q = static_cast<double>(rne(v)) + z;
  return q < lo ? lo : q > hi ? hi : static_cast<int32_t>(q);
}

// q = clamp(rne(f(x * f(1/s))) + z). Multiplies by the inverse, as PyTorch does: dividing differs
// on ties.
inline int32_t quantize(float x, float scale, int32_t z, int32_t lo, int32_t hi) {
  float inv = 1.0f / scale;
  return round_and_clamp(x * inv, z, lo, hi);
}

// q = clamp(rne(f(x / s)) + z): divided, as ONNX defines QuantizeLinear.
inline int32_t quantize_divided(float x, float scale, int32_t z, int32_t lo, int32_t hi) {
  return round_and_clamp(x / scale, z, lo, hi);
}

// With float qparams: q = clamp(rne(f(f(x * f(1/s)) + z))).
inline int32_t quantize_float(float x, float scale, float z, int32_t lo, int32_t hi) {
  float inv = 1.0f / scale;
  float v = x * inv;
  return round_and_clamp(std::isnan(v) ? z : v + z, 0, lo, hi);
}
// f(f(f(q) - z) * s)
inline float dequantize_float(int32_t q, float scale, float z) {
  return (static_cast<float>(q) - z) * scale;
}

// f(s * f(q - z))
inline float dequantize(int32_t q, float scale, int32_t z) {
  return scale * static_cast<float>(static_cast<int64_t>(q) - z);
}

// Requantizes an exact sum (bias already added): clamp(rne(f(f(sum) * m)) + z).
inline int32_t requantize(int64_t sum, float multiplier, int32_t z, int32_t lo, int32_t hi) {
  return round_and_clamp(static_cast<float>(sum) * multiplier, z, lo, hi);
}

// The whole number that a linear or conv layer adds for its bias: rne(f(bias / f(s_x * s_w))), in
// float32 as QNNPACK does, clamped to +-kLargestBiasCode. It need not fit int32: the sums it is
// added to are exact. 0 for NaN (0 / 0).
inline constexpr int64_t kLargestBiasCode = int64_t{1} << 62;
inline int64_t quantize_bias(float bias, float sx, float sw) {
  const float v = rne(bias / (sx * sw)), most = static_cast<float>(kLargestBiasCode);
  if (std::isnan(v)) return 0;
  return v >= most ? kLargestBiasCode : v <= -most ? -kLargestBiasCode : static_cast<int64_t>(v);
}

// The qparams of a tensor that is quantized when its values are known (dynamic quantization):
// docs/numerics.md, "Run-time choice", computed in double.
struct RunTimeQParams {
  double scale;
  int32_t zero_point;
};
// For values min..max and codes lo..hi; the range is widened to hold 0. `reduce_range` halves lo
// and hi; `symmetric` puts the zero point in the middle where the values have both signs. Error
// unless min <= max and both are finite.
RunTimeQParams choose_qparams_dynamic(float min, float max, int32_t lo = 0, int32_t hi = 255,
                                      bool reduce_range = false, bool symmetric = false);

// The same by ONNX's rule (DynamicQuantizeLinear), in float32 for codes 0..255: with the range
// widened to hold 0, s = f(f(max-min)/255), or 1 where max = min, and z = rne(clamp(f(-min/s))).
// Its codes are quantize_divided's. Error unless min <= max and both are finite.
RunTimeQParams choose_qparams_onnx(float min, float max);

}  // namespace octet::affine
