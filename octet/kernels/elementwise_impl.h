#pragma once
// Element by element on codes and floats. Four vectors of int32 or float32 lanes make one vector of
// codes; `map` runs an operation that gives rounded values over a range and narrows them. Inputs of
// codes may be read past their end (buffer slack), inputs of floats are not, nor those of add, mul
// and lookup, which may be written over: what is behind them may be another thread's.

#include "octet/kernels/codes_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

template <typename V>
struct Elementwise {
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kBytes = V::kBytes;

  // y[i] = code of op(i), where op(i, count) rounds elements i..i + count.
  template <typename Op>
  static OCTET_INLINE void map(void* out, int64_t i0, int64_t i1, const Codes<V>& codes, Op op) {
    uint8_t* y = static_cast<uint8_t*>(out);
    int64_t i = i0;
    for (; i + kBytes <= i1; i += kBytes)
      V::store(y + i, codes.narrow4(op(i, kLanes), op(i + kLanes, kLanes),
                                    op(i + 2 * kLanes, kLanes), op(i + 3 * kLanes, kLanes)));
    if (i == i1) return;
    I r[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    for (int v = 0; v < 4 && i + v * kLanes < i1; ++v) {
      const int64_t left = i1 - i - v * kLanes;
      r[v] = op(i + v * kLanes, left < kLanes ? left : kLanes);
    }
    V::store_bytes(y + i, codes.narrow4(r[0], r[1], r[2], r[3]), i1 - i);
  }

  template <bool kSigned>
  static OCTET_INLINE I centred(const void* x, int64_t i, I zero_point) {  // q - z
    return V::sub(V::template load_codes<kSigned>(static_cast<const uint8_t*>(x) + i), zero_point);
  }
  // The same of `count` codes, which are all that is read.
  template <bool kSigned>
  static OCTET_INLINE I centred(const void* x, int64_t i, I zero_point, int64_t count) {
    if (count == kLanes) return centred<kSigned>(x, i, zero_point);
    alignas(kLanes) uint8_t codes[kLanes] = {};
    __builtin_memcpy(codes, static_cast<const uint8_t*>(x) + i, static_cast<size_t>(count));
    return centred<kSigned>(codes, 0, zero_point);
  }
  static OCTET_INLINE F load(const float* x, int64_t count) {
    return count == kLanes ? V::load_f32(x) : V::load_f32(x, count);
  }

  static OCTET_INLINE int32_t value_of_b(const BinaryArgs& g) {
    const int32_t code =
        g.is_signed ? *static_cast<const int8_t*>(g.b) : *static_cast<const uint8_t*>(g.b);
    return code - g.qb.zero_point;
  }

  // kFits: no result reaches 2^31.
  template <bool kFits>
  static OCTET_INLINE I rounded(F v) {
    if constexpr (kFits)
      return V::round_below_2_31(v);
    else
      return V::round(v);
  }

  template <bool kSigned, bool kFits>
  static void add_range(const BinaryArgs& g, int64_t i0, int64_t i1) {
    const Codes<V> codes(g.zero_point, g.lo, g.hi);
    const I za = V::set(g.qa.zero_point), zb = V::set(g.qb.zero_point);
    const F sa = V::set(g.qa.scale), sb = V::set(g.qb.scale), inverse = V::set(g.inv_scale);
    const void *a = g.a, *b = g.b;
    if (g.b_step == 0) {
      const F one = V::mul(sb, V::to_float(V::set(value_of_b(g))));
      map(g.y, i0, i1, codes, [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
        const F x = V::mul(sa, V::to_float(centred<kSigned>(a, i, za, count)));
        return rounded<kFits>(V::mul(V::add(x, one), inverse));
      });
      return;
    }
    map(g.y, i0, i1, codes, [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
      const F x = V::mul(sa, V::to_float(centred<kSigned>(a, i, za, count)));
      return rounded<kFits>(
          V::mul(V::add(x, V::mul(sb, V::to_float(centred<kSigned>(b, i, zb, count)))), inverse));
    });
  }

  static void add(const BinaryArgs& g, int64_t i0, int64_t i1) {
    const bool fits =
        (__builtin_fabsf(g.qa.scale) + __builtin_fabsf(g.qb.scale)) * 256 * g.inv_scale < 0x1p30f;
    if (g.is_signed)
      fits ? add_range<true, true>(g, i0, i1) : add_range<true, false>(g, i0, i1);
    else
      fits ? add_range<false, true>(g, i0, i1) : add_range<false, false>(g, i0, i1);
  }

  template <bool kSigned>
  static void mul_range(const BinaryArgs& g, int64_t i0, int64_t i1) {
    const Codes<V> codes(g.zero_point, g.lo, g.hi);
    const I za = V::set(g.qa.zero_point), zb = V::set(g.qb.zero_point);
    const F multiplier = V::set(g.multiplier);
    const void *a = g.a, *b = g.b;
    if (g.b_step == 0) {
      const I one = V::set(value_of_b(g));
      map(g.y, i0, i1, codes, [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
        const I product = V::mul(centred<kSigned>(a, i, za, count), one);
        return V::round(V::mul(V::to_float(product), multiplier));
      });
      return;
    }
    map(g.y, i0, i1, codes, [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
      const I product =
          V::mul(centred<kSigned>(a, i, za, count), centred<kSigned>(b, i, zb, count));
      return V::round(V::mul(V::to_float(product), multiplier));
    });
  }

  static void mul(const BinaryArgs& g, int64_t i0, int64_t i1) {
    g.is_signed ? mul_range<true>(g, i0, i1) : mul_range<false>(g, i0, i1);
  }

  template <bool kSigned>
  static void add_floats_range(const AddFloatsArgs& g, int64_t n) {
    const Codes<V> codes(g.zero_point, g.lo, g.hi);
    const I z = V::set(g.q.zero_point);
    const F scale = V::set(g.q.scale), inverse = V::set(g.inv_scale);
    const void* x = g.x;
    const float* b = g.b;
    const auto add = [=](int64_t i, F floats) OCTET_INLINE_LAMBDA {
      const F value = V::mul(scale, V::to_float(centred<kSigned>(x, i, z)));
      return V::round_or_zero(V::mul(V::add(value, floats), inverse));
    };
    if (g.b_step == 0) {
      const F one = V::set(*b);
      map(g.y, 0, n, codes, [=](int64_t i, int64_t) OCTET_INLINE_LAMBDA { return add(i, one); });
      return;
    }
    map(g.y, 0, n, codes,
        [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA { return add(i, load(b + i, count)); });
  }

  static void add_floats(const AddFloatsArgs& g, int64_t n) {
    g.is_signed ? add_floats_range<true>(g, n) : add_floats_range<false>(g, n);
  }

  static void quantize(const float* x, void* y, int64_t n, float inv_scale, int32_t zp, int32_t lo,
                       int32_t hi) {
    const F inverse = V::set(inv_scale);
    map(y, 0, n, Codes<V>(zp, lo, hi), [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
      return V::round_or_zero(V::mul(load(x + i, count), inverse));
    });
  }

  static void quantize_divided(const float* x, void* y, int64_t n, float scale, int32_t zp,
                               int32_t lo, int32_t hi) {
    const F divisor = V::set(scale);
    map(y, 0, n, Codes<V>(zp, lo, hi), [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
      return V::round_or_zero(V::div(load(x + i, count), divisor));
    });
  }

  template <bool kSigned>
  static void dequantize_range(const void* x, float* y, int64_t n, float scale, int32_t zp) {
    const F s = V::set(scale);
    const I z = V::set(zp);
    int64_t i = 0;
#pragma GCC unroll 4
    for (; i + kLanes <= n; i += kLanes)
      V::store_f32(y + i, V::mul(s, V::to_float(centred<kSigned>(x, i, z))));
    if (i < n) V::store_f32(y + i, V::mul(s, V::to_float(centred<kSigned>(x, i, z))), n - i);
  }

  static void dequantize(const void* x, float* y, int64_t n, float scale, int32_t zp,
                         bool is_signed) {
    is_signed ? dequantize_range<true>(x, y, n, scale, zp)
              : dequantize_range<false>(x, y, n, scale, zp);
  }

  template <bool kSigned>
  static void requantize_range(const void* x, void* y, int64_t n, QParams from, float inv_scale,
                               const Codes<V>& codes) {
    const F scale = V::set(from.scale), inverse = V::set(inv_scale);
    const I z = V::set(from.zero_point);
    map(y, 0, n, codes, [=](int64_t i, int64_t) OCTET_INLINE_LAMBDA {
      return V::round_or_zero(
          V::mul(V::mul(scale, V::to_float(centred<kSigned>(x, i, z))), inverse));
    });
  }

  static void requantize(const void* x, void* y, int64_t n, QParams from, float inv_scale,
                         int32_t zp, int32_t lo, int32_t hi, bool is_signed) {
    const Codes<V> codes(zp, lo, hi);
    is_signed ? requantize_range<true>(x, y, n, from, inv_scale, codes)
              : requantize_range<false>(x, y, n, from, inv_scale, codes);
  }

  // A byte shuffle looks up 16 entries and gives 0 where the index has its top bit set. Counting
  // the index down by 16 (saturating, as signed) from 0..127 therefore meets the rows 0..x / 16 of
  // the table and then nothing; xor-ing rows that hold the difference to the row before leaves the
  // last one met. Indices of 128 and above are negative from the start: for them the same is done
  // with their top bit flipped and the upper half of the table.
  static void lookup(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t table[256]) {
    alignas(64) uint8_t rows[256];
    for (int i = 0; i < 256; ++i)
      rows[i] = static_cast<uint8_t>(i % 128 < 16 ? table[i] : table[i] ^ table[i - 16]);
    const I sixteen = V::set8(16), top = V::set8(-128);
    alignas(kBytes) uint8_t rest[kBytes] = {};
    for (int64_t i = 0; i < n; i += kBytes) {
      const bool whole = n - i >= kBytes;
      if (!whole) __builtin_memcpy(rest, x + i, static_cast<size_t>(n - i));
      I low = V::load(whole ? x + i : rest), high = V::bit_xor(low, top);
      I result = V::bit_xor(V::shuffle(V::broadcast128(rows), low),
                            V::shuffle(V::broadcast128(rows + 128), high));
#pragma GCC unroll 8
      for (int row = 1; row < 8; ++row) {
        low = V::subs_s8(low, sixteen);
        high = V::subs_s8(high, sixteen);
        result = V::bit_xor(result, V::shuffle(V::broadcast128(rows + 16 * row), low));
        result = V::bit_xor(result, V::shuffle(V::broadcast128(rows + 128 + 16 * row), high));
      }
      if (whole) {
        V::store(y + i, result);
      } else {
        V::store_bytes(y + i, result, n - i);
      }
    }
  }

  static void min_max(const float* x, int64_t n, float* mn, float* mx, int64_t* not_finite) {
    constexpr int kAtOnce = 4;  // independent chains
    F low[kAtOnce], high[kAtOnce];
    for (int v = 0; v < kAtOnce; ++v)
      low[v] = V::set(__builtin_inff()), high[v] = V::set(-__builtin_inff());
    int64_t bad = 0, i = 0;
    while (i + kAtOnce * kLanes <= n) {
      I count = V::zero();
      // Counts are taken out of their 32-bit lanes before they could overflow.
      for (int64_t steps = 0; steps < (1 << 24) && i + kAtOnce * kLanes <= n;
           ++steps, i += kAtOnce * kLanes) {
#pragma GCC unroll 4
        for (int v = 0; v < kAtOnce; ++v) {
          const F value = V::load_f32(x + i + v * kLanes);
          count = V::count_not_finite(count, value);
          low[v] = V::min(value, low[v]);  // the second operand where the first is NaN
          high[v] = V::max(value, high[v]);
        }
      }
      alignas(64) int32_t lanes[kLanes];
      V::store(lanes, count);
      for (int lane = 0; lane < kLanes; ++lane) bad += lanes[lane];
    }
    float least = V::least(V::min(V::min(low[0], low[1]), V::min(low[2], low[3])));
    float greatest = V::greatest(V::max(V::max(high[0], high[1]), V::max(high[2], high[3])));
    for (; i < n; ++i) {
      bad += !__builtin_isfinite(x[i]);
      if (x[i] < least) least = x[i];
      if (x[i] > greatest) greatest = x[i];
    }
    // -0 + 0 = +0: which of the two zeros was met first must not show.
    *mn = least + 0.0f;
    *mx = greatest + 0.0f;
    *not_finite = bad;
  }
};

}  // namespace
}  // namespace octet::kernels
