#pragma once
// What native conv2d and linear share: packed weights of one or more groups with the zero-point terms folded in.

#include <algorithm>
#include <cstring>

#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/native_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {

// Weights of `groups` matrix products of [n][taps][k], packed for the ISA in force when they were made.
struct PackedWeights {
  const kernels::KernelTable* table = nullptr;
  decltype(kernels::KernelTable::gemm) gemm = nullptr;  // of the table, for codes of 8 or of 4 bits
  kernels::GemmShape shape;                             // of one group
  int64_t groups = 1;
  size_t group_bytes = 0;
  Buffer packed;
  std::vector<int32_t> bias;  // quantized bias - z_x*sum(q_w) + K*z_x*z_w
  std::vector<float> multiplier;
  std::vector<int32_t> weight_zero_points;  // empty if all are 0
  int32_t x_zero_point = 0;                 // of unsigned codes
  bool flip_x = false;                      // x is qint8: flip its sign bit first
  int32_t y_zero_point = 0, lo = 0, hi = 255;

  // w: [groups*n][taps][k].
  PackedWeights(const engine_detail::IntegerWeights& weights, const std::vector<int8_t>& w, const kernels::GemmShape& s,
                int64_t group_count)
      : table(&kernels::table()), shape(s), groups(group_count), bias(weights.bias), multiplier(weights.multiplier) {
    const bool four_bit = weights.four_bit;
    gemm = four_bit ? table->gemm4 : table->gemm;
    group_bytes = ((four_bit ? table->gemm4_packed_bytes : table->gemm_packed_bytes)(s) + 63) / 64 * 64;
    packed = Buffer::allocate(group_bytes * groups);
    x_zero_point = weights.x_zero_point + (weights.x_signed ? 128 : 0);
    flip_x = weights.x_signed;
    y_zero_point = weights.y_zero_point;
    lo = weights.lo;
    hi = weights.hi;
    if (weights.any_zero_point) weight_zero_points = weights.zero_points;
    int64_t length = s.taps * s.k;
    for (int64_t g = 0; g < groups; ++g)
      (four_bit ? table->gemm4_pack : table->gemm_pack)(s, w.data() + g * s.n * length,
                                                        reinterpret_cast<char*>(packed.data()) + g * group_bytes);
    for (int64_t n = 0; n < groups * s.n; ++n) {
      int64_t sum = 0;
      for (int64_t i = 0; i < length; ++i) sum += w[n * length + i];
      // Wrapping, as the accumulator does.
      int64_t fold = -x_zero_point * sum + length * x_zero_point * static_cast<int64_t>(weights.zero_points[n]);
      bias[n] = static_cast<int32_t>(static_cast<uint32_t>(bias[n]) + static_cast<uint32_t>(fold));
    }
  }

  // Everything of the arguments that does not depend on the call's operands, for one group.
  kernels::GemmArgs arguments(int64_t group) const {
    kernels::GemmArgs a;
    a.shape = shape;
    a.b = reinterpret_cast<const char*>(packed.data()) + group * group_bytes;
    a.bias = bias.data() + group * shape.n;
    a.multiplier = multiplier.data() + group * shape.n;
    if (!weight_zero_points.empty()) a.b_zero_points = weight_zero_points.data() + group * shape.n;
    a.zero_point = y_zero_point;
    a.lo = lo;
    a.hi = hi;
    return a;
  }
};

// The matrix product of one group of a convolution: n output channels, taps of k input channels each.
inline kernels::GemmShape conv_gemm_shape(const engine_detail::WeightCodes& weights, const OpSpec& spec) {
  const Shape w = spec.inputs[1].shape();
  const int64_t groups = spec.attrs.get_int("groups");
  kernels::GemmShape s;
  s.n = weights.out_channels / groups;
  s.k = engine_detail::is_transposed(spec) ? w[0] / groups : w[1];
  s.taps = engine_detail::conv_window3(spec).taps();
  return s;
}

// A convolution's codes as [out channels][taps][in channels of the group].
inline std::vector<int8_t> taps_first(const engine_detail::WeightCodes& weights, const OpSpec& spec) {
  const kernels::GemmShape s = conv_gemm_shape(weights, spec);
  const bool transposed = engine_detail::is_transposed(spec);
  std::vector<int8_t> r(weights.codes.size());
  int8_t* to = r.data();
  for (int64_t o = 0; o < weights.out_channels; ++o)
    for (int64_t t = 0; t < s.taps; ++t)
      for (int64_t i = 0; i < s.k; ++i) {
        const int64_t row = transposed ? (o / s.n * s.k + i) * s.n + o % s.n : o * s.k + i;
        *to++ = weights.codes[row * s.taps + t];
      }
  return r;
}

// The taps of every output pixel of images whose channels lie together; empty for pointwise convolutions.
inline std::vector<int32_t> conv_offsets(const engine_detail::Window3& w, bool transposed, const Shape& x, const Shape& y) {
  // (A transposed one's output_padding may add to the image.)
  if (w.is_pointwise() && std::equal(x.begin() + 2, x.end(), y.begin() + 2, y.end())) return {};
  return engine_detail::tap_offsets(w, transposed, engine_detail::with_3_spatial(x), engine_detail::with_3_spatial(y));
}

// dst = src with the sign bit of every byte flipped: qint8 codes as quint8 ones.
inline void flip_signs(const void* src, uint8_t* dst, int64_t n) {
  const auto* s = static_cast<const uint8_t*>(src);
  parallel_ranges(n, 1 << 16, [&](int64_t i0, int64_t i1) {
    for (int64_t i = i0; i < i1; ++i) dst[i] = s[i] ^ 0x80;
  });
}

}  // namespace octet::native
