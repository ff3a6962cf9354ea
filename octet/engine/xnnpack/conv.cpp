// Convolutions and linear layers. XNNPACK's end of a sum is octet's: the int32 sum becomes float,
// is multiplied by one float and rounded to even. It is given octet's own multiplier as its scale
// of the weight, and scales of 1 beside it, which leaves it nothing to round.
#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "octet/base/check_impl.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/xnnpack/xnnpack_impl.h"

namespace octet::xnnpack {
namespace {

using engine_detail::IntegerWeights;

// The call in XNNPACK's terms. It has two kinds of convolution: on int8, with a scale per channel
// and no zero points of weights, and on uint8, with one scale and one zero point.
struct Terms {
  bool is_signed = false, flip_x = false, flip_y = false;
  int32_t x_zero_point = 0, y_zero_point = 0, lo = 0, hi = 0, weight_zero_point = 0;
  std::vector<int32_t> bias;
  std::vector<float> multiplier;  // per channel, or one for all
};

// Empty: XNNPACK would give other bits, or none.
std::optional<Terms> terms(const IntegerWeights& w) {
  // Its sums wrap where octet's do not.
  if (!w.wide.empty() || w.out_channels == 0 || w.codes.empty()) return std::nullopt;
  auto all_equal = [](const auto& values) {
    return std::all_of(values.begin(), values.end(), [&](auto v) { return v == values[0]; });
  };
  const bool one_scale = all_equal(w.multiplier) && all_equal(w.zero_points);
  Terms t;
  t.is_signed = !w.any_zero_point && (!one_scale || kOnArm || (w.x_signed && w.y_signed));
  if (!t.is_signed && (!one_scale || kOnArm)) return std::nullopt;
  for (float m : w.multiplier)
    if (!(m >= std::numeric_limits<float>::min() && m < 256)) return std::nullopt;  // it refuses
  t.flip_x = w.x_signed != t.is_signed;
  t.flip_y = w.y_signed != t.is_signed;
  const int32_t from_x = !t.flip_x ? 0 : t.is_signed ? -128 : 128;
  const int32_t from_y = !t.flip_y ? 0 : t.is_signed ? -128 : 128;
  t.x_zero_point = w.x_zero_point + from_x;
  t.y_zero_point = w.y_zero_point + from_y;
  t.lo = w.lo + from_y;
  t.hi = w.hi + from_y;
  t.weight_zero_point = t.is_signed ? 0 : w.zero_points[0] + 128;
  t.bias.assign(w.bias.begin(), w.bias.end());  // they fit: no sum leaves int32
  t.multiplier = w.multiplier;
  return t;
}

struct Geometry {
  engine_detail::Window window;
  int64_t groups = 1, in = 1, out = 1;  // channels of one group
};

// Weights (out, in, taps) as XNNPACK wants them: (out, taps, in), of its signedness.
std::vector<uint8_t> laid_out(const IntegerWeights& w, const Geometry& g, bool is_signed) {
  const int64_t taps = g.window.taps();
  std::vector<uint8_t> codes(w.codes.size());
  for (int64_t n = 0; n < g.groups * g.out; ++n)
    for (int64_t i = 0; i < g.in; ++i)
      for (int64_t k = 0; k < taps; ++k)
        codes[static_cast<size_t>((n * taps + k) * g.in + i)] =
            static_cast<uint8_t>(w.codes[static_cast<size_t>((n * g.in + i) * taps + k)]) ^
            (is_signed ? 0 : 0x80);
  return codes;
}

template <typename T, typename Create, typename... Scale>
Operator create_conv(Create create_operator, const Terms& t, const Geometry& g,
                     const std::vector<uint8_t>& codes, Scale... scale) {
  auto u32 = [](int64_t v) { return static_cast<uint32_t>(v); };
  auto size = [](int64_t v) { return static_cast<size_t>(v); };
  auto code = [](int32_t v) { return static_cast<T>(v); };
  const engine_detail::Window& v = g.window;
  return create(create_operator, u32(v.ph), u32(v.pw_end), u32(v.ph_end), u32(v.pw), u32(v.kh),
                u32(v.kw), u32(v.sh), u32(v.sw), u32(v.dh), u32(v.dw), u32(g.groups), size(g.in),
                size(g.out), size(g.groups * g.in), size(g.groups * g.out), code(t.x_zero_point),
                1.0f, scale..., reinterpret_cast<const T*>(codes.data()), t.bias.data(),
                code(t.y_zero_point), 1.0f, code(t.lo), code(t.hi), 0);
}

// `of_shapes` gives (images, height, width) of x.
std::unique_ptr<Kernel> make(const OpSpec& spec, const Geometry& g, Layout layout,
                             std::function<std::array<size_t, 3>(const Shape&)> of_shape) {
  const IntegerWeights w = engine_detail::integer_weights(spec);
  const std::optional<Terms> t = terms(w);
  if (!t) return nullptr;
  const bool depthwise = g.groups > 1 && g.in == 1 && g.out == 1;
  // Without AVX2 its depthwise kernels add two products of int8 in int16, which holds all pairs but
  // that of -128 * -128 twice; on Arm others do so too, it seems.
  if (t->is_signed && (depthwise || kOnArm) &&
      std::find(w.codes.begin(), w.codes.end(), -128) != w.codes.end())
    return nullptr;
  const std::vector<uint8_t> codes = laid_out(w, g, t->is_signed);
  Operator op = t->is_signed ? create_conv<int8_t>(xnn_create_convolution2d_nhwc_qc8, *t, g, codes,
                                                   static_cast<const float*>(t->multiplier.data()))
                             : create_conv<uint8_t>(xnn_create_convolution2d_nhwc_qu8, *t, g, codes,
                                                    static_cast<uint8_t>(t->weight_zero_point),
                                                    t->multiplier[0]);
  if (!op) return nullptr;
  XnnKernel::Traits traits;
  traits.name = fmt::format("{}{} {}", spec.op, depthwise ? " depthwise" : "",
                            t->is_signed ? "int8" : "uint8");
  traits.input = traits.output = layout;
  traits.packs = true;
  traits.packed_bytes = codes.size();
  traits.flip_x = t->flip_x;
  traits.flip_y = t->flip_y;
  traits.description = {.arithmetic = KernelDescription::Arithmetic::integers,
                        .loop = t->is_signed ? "xnnpack qc8 (s8s8)" : "xnnpack qu8 (u8u8)",
                        .accumulator = "int32",
                        .at_run_time = "",
                        .epilogue = "bias, requantize",
                        .rounding = "XNNPACK's, where it gives octet's results",
                        .weight_bits = 8};
  return std::make_unique<XnnKernel>(
      std::move(traits), std::move(op),
      [is_signed = t->is_signed, of_shape](const std::vector<Shape>& in,
                                           const std::vector<Shape>&) -> XnnKernel::Setup {
        const std::array<size_t, 3> s = of_shape(in[0]);
        return [=](xnn_operator_t o, const std::vector<const void*>& x, void* y) {
          return is_signed ? xnn_setup_convolution2d_nhwc_qc8(o, s[0], s[1], s[2],
                                                              static_cast<const int8_t*>(x[0]),
                                                              static_cast<int8_t*>(y), nullptr)
                           : xnn_setup_convolution2d_nhwc_qu8(o, s[0], s[1], s[2],
                                                              static_cast<const uint8_t*>(x[0]),
                                                              static_cast<uint8_t*>(y), nullptr);
        };
      });
}

}  // namespace

std::unique_ptr<Kernel> make_conv(const OpSpec& spec) {
  if (!engine_detail::is_8_bit_call(spec)) return nullptr;
  const Shape w = spec.inputs[1].shape();
  Geometry g{engine_detail::conv_window(spec), spec.attrs.get_int("groups"), w[1], w[0]};
  g.out /= g.groups;
  return make(spec, g, Layout::channels_last, [](const Shape& x) {
    return std::array{static_cast<size_t>(x[0]), static_cast<size_t>(x[2]),
                      static_cast<size_t>(x[3])};
  });
}

// Its fully connected operator has no scale per channel; a pointwise convolution of an image for
// each row is the same product.
std::unique_ptr<Kernel> make_linear(const OpSpec& spec) {
  if (!engine_detail::is_8_bit_call(spec)) return nullptr;
  const Shape w = spec.inputs[1].shape();
  return make(spec, {{}, 1, w[1], w[0]}, Layout::row_major, [](const Shape& x) {
    const int64_t rows = numel({x.begin(), x.end() - 1});
    return std::array{static_cast<size_t>(rows), size_t{1}, size_t{1}};
  });
}

}  // namespace octet::xnnpack
