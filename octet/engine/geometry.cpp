#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/engine/geometry_impl.h"
#include "octet/tensor/affine.h"

namespace octet::engine_detail {
namespace {

Window window(const OpSpec& spec, int64_t kh, int64_t kw) {
  const auto& stride = spec.attrs.get_ints("stride");
  const auto& pad = spec.attrs.get_ints("padding");
  Window w{kh, kw, stride[0], stride[1], pad[0], pad[1], pad[2], pad[3]};
  if (spec.attrs.has("dilation")) {
    w.dh = spec.attrs.get_ints("dilation")[0];
    w.dw = spec.attrs.get_ints("dilation")[1];
  }
  return w;
}

}  // namespace

Window conv_window(const OpSpec& spec) {
  Shape weight = spec.inputs[1].shape();
  return window(spec, weight[2], weight[3]);
}

Window pool_window(const OpSpec& spec) {
  const auto& kernel = spec.attrs.get_ints("kernel");
  return window(spec, kernel[0], kernel[1]);
}

std::vector<int32_t> tap_offsets(const Window& w, int64_t h, int64_t width, int64_t channels, int64_t oh, int64_t ow) {
  OCTET_CHECK(h * width * channels < (int64_t{1} << 31), unsupported, "an image of {}x{}x{} is too large for 32-bit offsets",
              h, width, channels);
  std::vector<int32_t> offsets(oh * ow * w.taps());
  int32_t* out = offsets.data();
  for (int64_t y = 0; y < oh; ++y)
    for (int64_t x = 0; x < ow; ++x)
      for (int64_t i = 0; i < w.kh; ++i)
        for (int64_t j = 0; j < w.kw; ++j) {
          int64_t iy = y * w.sh - w.ph + i * w.dh, ix = x * w.sw - w.pw + j * w.dw;
          bool inside = iy >= 0 && iy < h && ix >= 0 && ix < width;
          *out++ = inside ? static_cast<int32_t>((iy * width + ix) * channels) : -1;
        }
  return offsets;
}

CodeRange activation_range(const std::string& activation, const TensorType& y) {
  auto lo = static_cast<int32_t>(qmin(y.dtype)), hi = static_cast<int32_t>(qmax(y.dtype));
  auto z = static_cast<int32_t>(y.quantizer->zero_point());
  if (activation == "none") return {lo, hi};
  if (activation == "relu") return {std::max(lo, z), hi};
  if (activation == "relu6")
    return {std::max(lo, z), affine::quantize(6.0f, static_cast<float>(y.quantizer->scale()), z, lo, hi)};
  OCTET_FAIL(invalid_argument, "unknown activation '{}': expected none, relu or relu6", activation);
}

bool is_integer_call(const OpSpec& spec) {
  auto eight_bit = [](const TensorType& t) { return t.dtype == DType::quint8 || t.dtype == DType::qint8; };
  const TensorType &x = spec.inputs[0], &w = spec.inputs[1], &y = spec.outputs[0];
  if (!eight_bit(x) || x.quantizer->is_per_channel() || !eight_bit(y) || y.quantizer->is_per_channel()) return false;
  if (!eight_bit(w) || !spec.constants[1].defined()) return false;
  if (w.quantizer->is_per_channel() && w.quantizer->axis() != 0) return false;
  if (!spec.has(2)) return true;
  DType bias = spec.inputs[2].dtype;
  return spec.constants[2].defined() && (bias == DType::float32 || bias == DType::qint32);
}

IntegerWeights integer_weights(const OpSpec& spec) {
  const Quantizer &qx = *spec.inputs[0].quantizer, &qy = *spec.outputs[0].quantizer;
  Tensor weight = spec.constants[1].contiguous();
  const Quantizer& qw = *weight.quantizer();
  IntegerWeights r;
  r.out_channels = weight.size(0);
  r.x_signed = spec.inputs[0].dtype == DType::qint8;
  r.y_signed = spec.outputs[0].dtype == DType::qint8;
  r.x_zero_point = static_cast<int32_t>(qx.zero_point());
  r.y_zero_point = static_cast<int32_t>(qy.zero_point());
  CodeRange range = activation_range(spec.attrs.get_string("activation"), spec.outputs[0]);
  r.lo = range.lo;
  r.hi = range.hi;

  int32_t shift = weight.dtype() == DType::quint8 ? 128 : 0;
  r.codes.resize(weight.numel());
  const auto* bytes = static_cast<const uint8_t*>(weight.raw_data());
  for (size_t i = 0; i < r.codes.size(); ++i) r.codes[i] = static_cast<int8_t>(bytes[i] ^ (shift ? 0x80 : 0));

  // All in float32: f(s_x*s_w), then f(that/s_y), as QNNPACK and ONNX Runtime compute it.
  float sx = static_cast<float>(qx.scale()), sy = static_cast<float>(qy.scale());
  Tensor bias = spec.has(2) ? spec.constants[2].contiguous() : Tensor();
  int64_t saturated = 0;
  for (int64_t n = 0; n < r.out_channels; ++n) {
    float sw = static_cast<float>(qw.scale(n)), sxw = sx * sw;
    r.multiplier.push_back(sxw / sy);
    r.zero_points.push_back(static_cast<int32_t>(qw.zero_point(n)) - shift);
    r.any_zero_point |= r.zero_points.back() != 0;
    int32_t b = 0;
    if (bias.defined() && bias.dtype() == DType::qint32 && static_cast<float>(bias.quantizer()->scale(n)) == sxw &&
        bias.quantizer()->zero_point(n) == 0) {
      b = bias.data<int32_t>()[n];
    } else if (bias.defined()) {
      bool clamped = false;
      b = affine::quantize_bias(static_cast<float>(bias.at({n})), sx, sw, &clamped);
      saturated += clamped;
    }
    r.bias.push_back(b);
  }
  if (saturated)
    r.warnings.push_back(fmt::format(
        "{}: the bias of {} of {} channels does not fit int32 at scale s_x*s_w and was clamped; their weights are nearly "
        "zero beside their bias",
        spec.label, saturated, r.out_channels));
  return r;
}

}  // namespace octet::engine_detail
