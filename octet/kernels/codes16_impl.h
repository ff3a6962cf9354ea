#pragma once
// Codes of 16 bits: between them and floats, and the way of products with 8-bit weights through
// planes of bytes. Plain loops for the compiler to vectorize: all of it is exact, or one IEEE
// operation at a time.

#include <type_traits>

#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

// clamp(rne(v) + zero_point, lo, hi) for codes of at most 16 bits. With lo and hi less the zero
// point whole numbers, clamping before rounding gives the same, and adding 1.5 * 2^23 rounds what
// is that small half to even. NaN gives lo.
struct RoundTo16 {
  float low, high;
  int32_t zero_point;
  RoundTo16(int32_t zero, int32_t lo, int32_t hi)
      : low(static_cast<float>(lo - zero)), high(static_cast<float>(hi - zero)), zero_point(zero) {}
  int32_t operator()(float v) const {
    constexpr float kMagic = 12582912.0f;
    v = v > low ? v : low;
    v = v < high ? v : high;
    return static_cast<int32_t>((v + kMagic) - kMagic) + zero_point;
  }
};

inline void quantize16(const float* __restrict x, void* out, int64_t n, float inv_scale, int32_t zp,
                       int32_t lo, int32_t hi) {
  auto* __restrict y = static_cast<uint16_t*>(out);
  const RoundTo16 round(zp, lo, hi);
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] * inv_scale;
    y[i] = static_cast<uint16_t>(round(v == v ? v : 0.0f));
  }
}

inline void dequantize16(const void* in, float* __restrict y, int64_t n, float scale, int32_t zp,
                         bool is_signed) {
  const auto each = [&](const auto* __restrict x) {
    for (int64_t i = 0; i < n; ++i) y[i] = scale * static_cast<float>(int32_t{x[i]} - zp);
  };
  if (is_signed)
    each(static_cast<const int16_t*>(in));
  else
    each(static_cast<const uint16_t*>(in));
}

inline void split_codes(const uint16_t* __restrict x, int64_t n, uint16_t flip,
                        uint8_t* __restrict high, uint8_t* __restrict low) {
  for (int64_t i = 0; i < n; ++i) {
    const auto v = static_cast<uint16_t>(x[i] ^ flip);
    high[i] = static_cast<uint8_t>(v >> 8);
    low[i] = static_cast<uint8_t>(v);
  }
}

inline void join_codes(const JoinCodesArgs& a, int64_t n) {
  const int32_t* __restrict low = a.low;
  const int32_t* __restrict high = a.high;
  const double* __restrict offsets = a.offsets;
  const float* __restrict multiplier = a.multiplier;
  const RoundTo16 round(a.zero_point, a.lo, a.hi);
  const auto store = [&](auto* __restrict y, const auto& sum) {
    for (int64_t i = 0; i < n; ++i)
      y[i] = static_cast<std::remove_reference_t<decltype(*y)>>(
          round(static_cast<float>(sum(i) + offsets[i]) * multiplier[i]));
  };
  const auto with = [&](const auto& sum) {
    if (a.wide)
      store(static_cast<uint16_t*>(a.y), sum);
    else
      store(static_cast<uint8_t*>(a.y), sum);
  };
  if (high)
    with([&](int64_t i) {
      return static_cast<double>(high[i]) * 256.0 + static_cast<double>(low[i]);
    });
  else
    with([&](int64_t i) { return static_cast<double>(low[i]); });
}

inline void depthwise_codes(const DepthwiseCodesArgs& a, int64_t pixel, int32_t* __restrict sums) {
  for (int64_t c = 0; c < a.channels; ++c) sums[c] = 0;
  const uint32_t flip = a.flip;
  for (int64_t t = 0; t < a.taps; ++t) {
    const int32_t offset = a.offsets[pixel * a.taps + t];
    const uint16_t* __restrict x = offset < 0 ? a.pad : a.a + offset;
    const int16_t* __restrict w = a.weights + t * a.ldw;
    for (int64_t c = 0; c < a.channels; ++c) sums[c] += static_cast<int32_t>(x[c] ^ flip) * w[c];
  }
}

// y[i] = op(a[i], b[i]) of codes less their zero points, rounded; b may be one number for all.
template <typename T, typename Op>
inline void binary16(const BinaryArgs& g, int64_t i0, int64_t i1, const Op& op) {
  const T* a = static_cast<const T*>(g.a);
  const T* b = static_cast<const T*>(g.b);
  T* y = static_cast<T*>(g.y);  // may be a or b, of which element i is read before it is written
  const RoundTo16 round(g.zero_point, g.lo, g.hi);
  const int32_t za = g.qa.zero_point, zb = g.qb.zero_point;
  if (g.b_step == 0) {
    const int32_t one = int32_t{b[0]} - zb;
#pragma GCC ivdep
    for (int64_t i = i0; i < i1; ++i) y[i] = static_cast<T>(round(op(int32_t{a[i]} - za, one)));
  } else {
#pragma GCC ivdep
    for (int64_t i = i0; i < i1; ++i)
      y[i] = static_cast<T>(round(op(int32_t{a[i]} - za, int32_t{b[i]} - zb)));
  }
}

inline void add16(const BinaryArgs& g, int64_t i0, int64_t i1) {
  const float sa = g.qa.scale, sb = g.qb.scale, inverse = g.inv_scale;
  const auto sum = [=](int32_t p, int32_t q) {
    return (sa * static_cast<float>(p) + sb * static_cast<float>(q)) * inverse;
  };
  if (g.is_signed)
    binary16<int16_t>(g, i0, i1, sum);
  else
    binary16<uint16_t>(g, i0, i1, sum);
}

inline void mul16(const BinaryArgs& g, int64_t i0, int64_t i1) {
  const float multiplier = g.multiplier;
  // Exact in double.
  const auto product = [=](int32_t p, int32_t q) {
    return static_cast<float>(static_cast<double>(p) * static_cast<double>(q)) * multiplier;
  };
  if (g.is_signed)
    binary16<int16_t>(g, i0, i1, product);
  else
    binary16<uint16_t>(g, i0, i1, product);
}

constexpr int64_t kPoolChannels = 256;  // whose results wait in the cache

template <typename T, bool largest>
inline void pool16(const PoolArgs& g, int64_t p0, int64_t p1) {
  const RoundTo16 round(g.zero_point, g.lo, g.hi);
  const int32_t least = static_cast<T>(-1) < 0 ? -32768 : 0;
  for (int64_t p = p0; p < p1; ++p)
    for (int64_t c0 = 0; c0 < g.channels; c0 += kPoolChannels) {
      const int64_t n = g.channels - c0 < kPoolChannels ? g.channels - c0 : kPoolChannels;
      int32_t result[kPoolChannels];
      int32_t inside = 0;
      for (int64_t c = 0; c < n; ++c) result[c] = largest ? least : 0;
      for (int64_t t = p * g.taps; t < (p + 1) * g.taps; ++t) {
        if (g.offsets[t] < 0) continue;
        ++inside;
        const T* __restrict x = static_cast<const T*>(g.a) + g.offsets[t] + c0;
        for (int64_t c = 0; c < n; ++c)
          result[c] = largest ? (x[c] > result[c] ? x[c] : result[c]) : result[c] + x[c];
      }
      T* __restrict y = static_cast<T*>(g.y) + p * g.ldy + c0;
      if constexpr (largest) {
        for (int64_t c = 0; c < n; ++c) y[c] = static_cast<T>(result[c]);
      } else {
        const float multiplier = g.multiplier[p];
        const int32_t zeros = inside * g.zx;
        for (int64_t c = 0; c < n; ++c)
          y[c] = static_cast<T>(round(static_cast<float>(result[c] - zeros) * multiplier));
      }
    }
}

inline void max_pool16(const PoolArgs& g, int64_t p0, int64_t p1) {
  g.is_signed ? pool16<int16_t, true>(g, p0, p1) : pool16<uint16_t, true>(g, p0, p1);
}
inline void average_pool16(const PoolArgs& g, int64_t p0, int64_t p1) {
  g.is_signed ? pool16<int16_t, false>(g, p0, p1) : pool16<uint16_t, false>(g, p0, p1);
}

}  // namespace
}  // namespace octet::kernels
