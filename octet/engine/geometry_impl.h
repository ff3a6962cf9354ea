#pragma once
// What conv2d, linear and pool calls mean in numbers, shared by the engines: window geometry, and the integer form of
// weights, biases and multipliers that docs/numerics.md prescribes.

#include <cstdint>
#include <string>
#include <vector>

#include "octet/engine/engine.h"

namespace octet::engine_detail {

// A 2-d window sliding over an image. Padding and dilation as in conv2d's attributes: [top, left, bottom, right].
struct Window {
  int64_t kh = 1, kw = 1, sh = 1, sw = 1, ph = 0, pw = 0, ph_end = 0, pw_end = 0, dh = 1, dw = 1;
  int64_t taps() const { return kh * kw; }
  bool is_pointwise() const { return taps() == 1 && sh == 1 && sw == 1 && ph == 0 && pw == 0 && ph_end == 0 && pw_end == 0; }
  bool operator==(const Window&) const = default;
};

// Reads stride, padding, dilation (if there) from the attributes; kernel from `kernel` or the weight's shape.
Window conv_window(const OpSpec& spec);   // weight shape from the spec's inputs
Window pool_window(const OpSpec& spec);

// Byte offsets of the taps of every output pixel in an NHWC image: [oh*ow][taps], -1 outside the image.
std::vector<int32_t> tap_offsets(const Window& w, int64_t h, int64_t width, int64_t channels, int64_t oh, int64_t ow);

// The integer form of a quantized conv2d or linear call.
struct IntegerWeights {
  int64_t out_channels = 0;
  std::vector<int8_t> codes;          // weight codes in the weight's own order, quint8 shifted to int8
  std::vector<int32_t> zero_points;   // of the weights, per output channel (shifted likewise)
  bool any_zero_point = false;
  std::vector<int32_t> bias;          // quantized: clamp_i32(rne(bias / (s_x*s_w)))
  std::vector<float> multiplier;      // f(f(s_x*s_w)/s_y)
  int32_t x_zero_point = 0;
  bool x_signed = false, y_signed = false;
  int32_t y_zero_point = 0, lo = 0, hi = 255;
  std::vector<std::string> warnings;
};

// True if the call is quantized throughout: 8-bit x and y per tensor, 8-bit constant weight (per tensor, or per channel
// along axis 0), bias absent, float32 or qint32 and constant.
bool is_integer_call(const OpSpec& spec);
IntegerWeights integer_weights(const OpSpec& spec);

// The codes a fused activation ("none", "relu", "relu6") clamps the result to.
struct CodeRange {
  int32_t lo, hi;
};
CodeRange activation_range(const std::string& activation, const TensorType& y);

}  // namespace octet::engine_detail
