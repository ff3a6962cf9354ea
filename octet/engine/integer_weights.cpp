#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/integer_weights_impl.h"

namespace octet::engine_detail {

CodeRange activation_range(const std::string& activation, const TensorType& y) {
  auto lo = static_cast<int32_t>(qmin(y.dtype)), hi = static_cast<int32_t>(qmax(y.dtype));
  auto z = static_cast<int32_t>(y.quantizer->zero_point());
  if (activation == "none") return {lo, hi};
  if (activation == "relu") return {std::max(lo, z), hi};
  if (activation == "relu6")
    return {std::max(lo, z),
            affine::quantize(6.0f, static_cast<float>(y.quantizer->scale()), z, lo, hi)};
  OCTET_FAIL(invalid_argument, "unknown activation '{}': expected none, relu or relu6", activation);
}

namespace {

// Of a depthwise transposed convolution, whose output channel c is made of input channel c
// (ops/conv_impl.h).
bool scaled_by_input(const OpSpec& spec) {
  const TensorType& w = spec.inputs[1];
  return spec.transposed && w.quantizer->is_per_channel() && w.quantizer->axis() == 0 &&
         w.dims[1] == Dim(1) && w.dims[0] == Dim(spec.attrs.get_int("groups"));
}

bool has_weight_codes(const OpSpec& spec) {
  const TensorType& w = spec.inputs[1];
  const bool four_bit = is_packed(w.dtype) && spec.layer == "linear";
  const bool sixteen_bit = is_16_bit(w.dtype) && spec.form == WeightForm::in_float;
  if ((!is_8_bit(w.dtype) && !four_bit && !sixteen_bit) || !spec.constants[1].defined() ||
      w.quantizer->has_float_zero_points())
    return false;
  return !w.quantizer->is_per_channel() ||
         w.quantizer->axis() == (spec.transposed && !scaled_by_input(spec) ? 1 : 0);
}

}  // namespace

bool is_integer_call(const OpSpec& spec) {
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  if (!is_activation_dtype(x.dtype) || x.quantizer->is_per_channel() ||
      !is_activation_dtype(y.dtype) || y.quantizer->is_per_channel())
    return false;
  if (!has_weight_codes(spec)) return false;
  if (!spec.has(2)) return true;
  DType bias = spec.inputs[2].dtype;
  return spec.constants[2].defined() && (bias == DType::float32 || bias == DType::qint32);
}

bool is_8_bit_call(const OpSpec& spec) {
  return is_8_bit(spec.inputs[0].dtype) && is_8_bit(spec.inputs[1].dtype) &&
         is_8_bit(spec.outputs[0].dtype) && is_integer_call(spec);
}

bool is_dynamic_call(const OpSpec& spec) {
  const TensorType& x = spec.inputs[0];
  const bool codes =
      spec.form == WeightForm::dynamic && is_8_bit(x.dtype) && !x.quantizer->is_per_channel();
  if ((x.dtype != DType::float32 && !codes) || spec.outputs[0].dtype != DType::float32)
    return false;
  if (!has_weight_codes(spec)) return false;
  return !spec.has(2) || (spec.constants[2].defined() && spec.inputs[2].dtype == DType::float32);
}

bool is_weight_only_call(const OpSpec& spec) {
  if (spec.layer != "linear" || spec.form != WeightForm::weight_only || !is_dynamic_call(spec))
    return false;
  const Shape w = spec.inputs[1].shape();
  return w[0] > 0 && w[1] > 0 && w[1] <= kMaxWeightOnlyInputs;
}

int fixed_point_exponent(float most) { return most == 0 ? 0 : 22 - std::ilogb(most); }

void WeightCodes::narrow() {
  if (four_bit || codes.empty()) return;
  const auto [least, most] = std::minmax_element(codes.begin(), codes.end());
  const int8_t low = *least;
  if (*most - low > 15) return;
  four_bit = true;
  any_zero_point = false;
  Buffer moved = Buffer::allocate(codes.size());
  auto* to = reinterpret_cast<int8_t*>(moved.data());
  std::transform(codes.begin(), codes.end(), to,
                 [&](int8_t q) { return static_cast<int8_t>(q - low); });
  codes = {to, codes.size()};
  owner = std::move(moved);
  for (int32_t& z : zero_points) {
    z -= low;
    any_zero_point |= z != 0;
  }
}

WeightCodes weight_codes(const OpSpec& spec) {
  Tensor weight = spec.constants[1].contiguous();
  const Quantizer& q = *weight.quantizer();
  WeightCodes r;
  // Transposed weights have the channels of one group, and their scales hold in every group.
  const int64_t group_channels = spec.transposed ? weight.size(1) : weight.size(0);
  r.out_channels = group_channels * (spec.transposed ? spec.attrs.get_int("groups") : 1);
  r.four_bit = is_packed(weight.dtype());
  const int32_t shift = weight.dtype() == DType::quint8    ? -128
                        : weight.dtype() == DType::quint16 ? -32768
                        : weight.dtype() == DType::qint4x2 ? 8
                                                           : 0;
  const auto count = static_cast<size_t>(weight.numel());
  const auto* bytes = static_cast<const uint8_t*>(weight.raw_data());
  r.owner = weight.buffer();
  if (is_16_bit(weight.dtype())) {
    const auto* codes = static_cast<const int16_t*>(weight.raw_data());
    if (shift != 0) {
      r.owner = Buffer::allocate(2 * count);
      auto* shifted = reinterpret_cast<int16_t*>(r.owner.data());
      std::transform(codes, codes + count, shifted,
                     [](int16_t q) { return static_cast<int16_t>(q ^ 0x8000); });
      codes = shifted;
    }
    r.codes16 = {codes, count};
  } else if (r.four_bit || shift != 0) {
    r.owner = Buffer::allocate(count);
    auto* shifted = reinterpret_cast<uint8_t*>(r.owner.data());
    for (size_t i = 0; i < count; ++i)
      shifted[i] = static_cast<uint8_t>(
          r.four_bit ? packed_code(bytes, weight.dtype(), static_cast<int64_t>(i)) + shift
                     : bytes[i] ^ 0x80);
    bytes = shifted;
  }
  if (r.codes16.empty()) r.codes = {reinterpret_cast<const int8_t*>(bytes), count};
  const int64_t period = scaled_by_input(spec) ? r.out_channels : group_channels;
  for (int64_t n = 0; n < r.out_channels; ++n) {
    r.scales.push_back(static_cast<float>(q.scale(n % period)));
    r.zero_points.push_back(static_cast<int32_t>(q.zero_point(n % period)) + shift);
    r.any_zero_point |= r.zero_points.back() != 0;
  }
  return r;
}

RunTimeRule::RunTimeRule(const Attrs& attrs)
    : onnx(attrs.get_string("rule") == "onnx"), reduce_range(attrs.get_bool("reduce_range")) {}

affine::RunTimeQParams RunTimeRule::qparams(float min, float max, int64_t not_finite,
                                            const std::string& label) const {
  OCTET_CHECK(not_finite == 0, invalid_argument,
              "{}: {} of the input's values are NaN or infinite; expected finite ones, whose range "
              "gives the scale",
              label, not_finite);
  return onnx ? affine::choose_qparams_onnx(min, max)
              : affine::choose_qparams_dynamic(min, max, 0, 255, reduce_range);
}

uint8_t RunTimeRule::code(float x, const affine::RunTimeQParams& q) const {
  const auto scale = static_cast<float>(q.scale);
  return static_cast<uint8_t>(onnx ? affine::quantize_divided(x, scale, q.zero_point, 0, 255)
                                   : affine::quantize(x, scale, q.zero_point, 0, 255));
}

void RunTimeRule::codes(const kernels::KernelTable& table, const float* x, uint8_t* y, int64_t n,
                        const affine::RunTimeQParams& q) const {
  const auto scale = static_cast<float>(q.scale);
  if (onnx)
    table.quantize_divided(x, y, n, scale, q.zero_point, 0, 255);
  else
    table.quantize(x, y, n, 1.0f / scale, q.zero_point, 0, 255);
}

std::string RunTimeRule::describe() const {
  return fmt::format("{} codes of quint8{}", reduce_range ? 128 : 256,
                     onnx ? " by ONNX's rule" : "");
}

namespace {

// "conv1: channels 3, 7 of 64: ..."
std::string wide_warning(const std::string& label, const IntegerWeights& w) {
  const std::ptrdiff_t count = std::min<std::ptrdiff_t>(8, std::ssize(w.wide));
  const std::vector<int64_t> shown(w.wide.begin(), w.wide.begin() + count);
  int64_t largest = 0;
  for (int64_t n : w.wide)
    if (std::abs(w.bias[n]) > std::abs(largest)) largest = w.bias[n];
  return fmt::format(
      "{}: channel{} {}{} of {}: sums can leave int32 (bias codes up to {} at scale s_x*s_w, {} "
      "products); "
      "octet's are exact, other tools' may wrap or saturate",
      label, w.wide.size() == 1 ? "" : "s", fmt::join(shown, ", "),
      std::ssize(w.wide) > count ? fmt::format(" and {} more", std::ssize(w.wide) - count) : "",
      w.out_channels, largest, std::ssize(w.codes) / w.out_channels);
}

// The sums of a channel's q_w - z_w above 0 and of those below (as a positive number).
struct SignedSums {
  int64_t above = 0, below = 0;
};

SignedSums signed_sums(const WeightCodes& w, const OpSpec& spec, int64_t channel) {
  // The codes lie in `rows` runs of `run`, `step` apart.
  int64_t rows = 1, run = w.count() / w.out_channels, step = 0, first = channel * run;
  if (spec.transposed) {
    const Shape shape = spec.inputs[1].shape();
    const int64_t group_channels = shape[1], group = channel / group_channels;
    rows = shape[0] / spec.attrs.get_int("groups");
    run = numel({shape.begin() + 2, shape.end()});
    step = group_channels * run;
    first = group * rows * step + channel % group_channels * run;
  }
  SignedSums sums;
  for (int64_t row = 0; row < rows; ++row, first += step)
    for (int64_t i = first; i < first + run; ++i) {
      const int64_t d = w.code(i) - w.zero_points[channel];
      (d > 0 ? sums.above : sums.below) += std::abs(d);
    }
  return sums;
}

// The least and the most that a channel's sum can be, for codes 0..top of x.
struct SumRange {
  SumRange(const SignedSums& s, int64_t bias, int64_t z_x, int64_t top = 255)
      : least(bias - s.above * z_x - s.below * (top - z_x)),
        most(bias + s.above * (top - z_x) + s.below * z_x) {}
  int64_t least, most;
};

}  // namespace

int64_t largest_sum(const WeightCodes& w, const OpSpec& spec, int32_t z_least, int32_t z_most,
                    std::span<const int64_t> bias) {
  int64_t largest = 0;
  const int64_t top = is_16_bit(spec.inputs[0].dtype) ? 65535 : 255;
  for (int64_t n = 0; n < w.out_channels; ++n) {
    const SignedSums s = signed_sums(w, spec, n);
    for (int64_t z : {z_least, z_most}) {
      const SumRange range(s, bias.empty() ? 0 : bias[n], z, top);
      largest = std::max({largest, std::abs(range.least), std::abs(range.most)});
    }
  }
  return largest;
}

std::vector<int64_t> wide_channels(const WeightCodes& w, const OpSpec& spec, int32_t z_least,
                                   int32_t z_most, std::span<const int64_t> bias) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const int64_t lowest = w.four_bit ? 0 : -128, highest = w.four_bit ? 15 : 127;
  const int64_t products = w.out_channels ? std::ssize(w.codes) / w.out_channels : 0;
  const int64_t farthest_x = std::max(255 - z_least, z_most);
  std::vector<int64_t> wide;
  for (int64_t n = 0; n < w.out_channels; ++n) {
    const int64_t b = bias.empty() ? 0 : bias[n], z = w.zero_points[n];
    // Almost always the worst weights there could be show that the sum fits; only otherwise the
    // channel's own are asked.
    const int64_t worst = products * farthest_x * std::max(highest - z, z - lowest);
    if (std::abs(b) <= kMost && worst <= kMost - std::abs(b)) continue;
    const SignedSums s = signed_sums(w, spec, n);
    const auto leaves = [&](int64_t zx) {
      const SumRange range(s, b, zx);
      return range.most > kMost || range.least < -kMost - 1;
    };
    if (leaves(z_least) || leaves(z_most)) wide.push_back(n);
  }
  return wide;
}

IntegerWeights integer_weights(const OpSpec& spec) {
  const Quantizer &qx = *spec.inputs[0].quantizer, &qy = *spec.outputs[0].quantizer;
  IntegerWeights r;
  static_cast<WeightCodes&>(r) = weight_codes(spec);
  r.x_signed = spec.inputs[0].dtype == DType::qint8;
  r.y_signed = spec.outputs[0].dtype == DType::qint8;
  r.x_dtype = spec.inputs[0].dtype;
  r.y_dtype = spec.outputs[0].dtype;
  r.x_zero_point = static_cast<int32_t>(qx.zero_point());
  r.y_zero_point = static_cast<int32_t>(qy.zero_point());
  CodeRange range = activation_range(spec.attrs.get_string("activation"), spec.outputs[0]);
  r.lo = range.lo;
  r.hi = range.hi;

  // All in float32: f(s_x*s_w), then f(that/s_y), as QNNPACK and ONNX Runtime compute it.
  float sx = static_cast<float>(qx.scale()), sy = static_cast<float>(qy.scale());
  const Tensor bias = spec.has(2) ? spec.constants[2].contiguous() : Tensor();
  const int32_t* codes =
      bias.defined() && bias.dtype() == DType::qint32 ? bias.data<int32_t>() : nullptr;
  for (int64_t n = 0; n < r.out_channels; ++n) {
    float sw = r.scales[n], sxw = sx * sw;
    float multiplier = sxw / sy;
    int64_t b = 0;
    if (codes && static_cast<float>(bias.quantizer()->scale(n)) == sxw &&
        bias.quantizer()->zero_point(n) == 0) {
      b = codes[n];
    } else if (bias.defined()) {
      const auto value = static_cast<float>(bias.at({n}));
      b = affine::quantize_bias(value, sx, sw);
      if (std::abs(b) == affine::kLargestBiasCode)
        multiplier = std::abs(value) / static_cast<float>(affine::kLargestBiasCode) / sy;
    }
    r.multiplier.push_back(multiplier);
    r.bias.push_back(b);
  }
  if (!is_8_bit(r.x_dtype) || !r.codes16.empty()) return r;  // all of whose sums are int64
  const int32_t z = r.unsigned_zero_point();
  r.wide = wide_channels(r, spec, z, z, r.bias);
  if (!r.wide.empty()) r.warnings.push_back(wide_warning(spec.label, r));
  return r;
}

bool is_integer_matmul(const OpSpec& spec) {
  if (spec.op != "matmul") return false;
  for (const TensorType* t : {&spec.inputs[0], &spec.inputs[1], &spec.outputs[0]})
    if (!is_activation_dtype(t->dtype) || t->quantizer->is_per_channel() || t->dim() < 2)
      return false;
  return true;
}

bool is_8_bit_matmul(const OpSpec& spec) {
  return is_integer_matmul(spec) && is_8_bit(spec.inputs[0].dtype) &&
         is_8_bit(spec.inputs[1].dtype) && is_8_bit(spec.outputs[0].dtype);
}

float matmul_multiplier(const OpSpec& spec) {
  auto scale = [](const TensorType& t) { return static_cast<float>(t.quantizer->scale()); };
  return scale(spec.inputs[0]) * scale(spec.inputs[1]) / scale(spec.outputs[0]);
}

BlockShape::BlockShape(const Attrs& attrs, const TensorType& codes, const TensorType& scales,
                       const std::string& who)
    : k(attrs.get_int("in_features")),
      block(attrs.get_int("block_size")),
      bits(attrs.get_int("bits")) {
  constexpr int64_t kMost = int64_t{1} << 28;
  OCTET_CHECK(bits == 2 || bits == 4 || bits == 8, invalid_argument,
              "{}: bits={}; expected 2, 4 or 8", who, bits);
  OCTET_CHECK(
      k >= 1 && k <= kMost && block >= 1 && block <= kMaxWeightOnlyInputs && block * bits % 8 == 0,
      invalid_argument,
      "{}: in_features={}, block_size={}; expected positive numbers, and blocks of whole "
      "bytes and at most {} codes",
      who, k, block, kMaxWeightOnlyInputs);
  blocks = (k + block - 1) / block;
  OCTET_CHECK(scales.dtype == DType::float32 && scales.dim() == 2 && scales.dims[1] == Dim(blocks),
              invalid_argument, "{}: scales is {}; expected Float(out, {})", who, to_string(scales),
              blocks);
  n = scales.dims[0].size();
  const std::vector<Dim> expected{Dim(n), Dim(blocks), Dim(block * bits / 8)};
  OCTET_CHECK(codes.dtype == DType::uint8 && codes.dims == expected, invalid_argument,
              "{}: codes is {}; expected {}", who, to_string(codes),
              to_string(TensorType(DType::uint8, expected)));
}

BlockWeights::BlockWeights(const Attrs& attrs, const Tensor& packed, const Tensor& of_blocks,
                           const Tensor& zeros)
    : BlockShape(attrs, packed.type(), of_blocks.type(), "linear_blocks"),
      codes(static_cast<size_t>(blocks * n * block)),
      scales(static_cast<size_t>(blocks * n)),
      zero_points(scales.size(), static_cast<float>(int64_t{1} << (bits - 1))) {
  const Tensor bytes = packed.contiguous(), s = of_blocks.contiguous(),
               z = zeros.defined() ? zeros.contiguous() : Tensor();
  const int shift = bits == 8 ? 128 : 0;
  const int64_t per_byte = 8 / bits, row_bytes = block / per_byte;
  for (int64_t row = 0; row < n; ++row)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t from = row * blocks + b, to = b * n + row;
      scales[static_cast<size_t>(to)] = s.data<float>()[from];
      if (z.defined()) zero_points[static_cast<size_t>(to)] = z.data<float>()[from];
      zero_points[static_cast<size_t>(to)] -= static_cast<float>(shift);
      const uint8_t* source = bytes.data<uint8_t>() + from * row_bytes;
      for (int64_t i = 0; i < std::min(block, k - b * block); ++i)
        codes[static_cast<size_t>(to * block + i)] = static_cast<int8_t>(
            (source[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1)) - shift);
    }
}

}  // namespace octet::engine_detail
