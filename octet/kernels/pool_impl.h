#pragma once
// Pools, channels in lanes: maximum on bytes, averages in int32 sums. A pixel's taps outside the
// image are skipped, so both loop over taps inside a block of channels and keep the block in
// registers.

#include "octet/kernels/codes_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

template <typename V>
struct Pool {
  using I = typename V::I;

  template <bool kSigned, int kVectors>
  static OCTET_INLINE void max_block(const PoolArgs& a, const int32_t* offsets, int64_t c,
                                     uint8_t* y, int64_t count) {
    I best[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) best[v] = kSigned ? V::set8(-128) : V::zero();
    for (int64_t t = 0; t < a.taps; ++t) {
      if (offsets[t] < 0) continue;
      const uint8_t* x = static_cast<const uint8_t*>(a.a) + offsets[t] + c;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const I codes = V::load(x + v * V::kBytes);
        best[v] = kSigned ? V::max_s8(best[v], codes) : V::max_u8(best[v], codes);
      }
    }
    if (kVectors == 1 && count < V::kBytes) return V::store_bytes(y, best[0], count);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) V::store(y + v * V::kBytes, best[v]);
  }

  template <bool kSigned>
  static void max_pixels(const PoolArgs& a, int64_t p0, int64_t p1) {
    for (int64_t p = p0; p < p1; ++p) {
      const int32_t* offsets = a.offsets + p * a.taps;
      uint8_t* y = static_cast<uint8_t*>(a.y) + p * a.ldy;
      int64_t c = 0;
      for (; c + 4 * V::kBytes <= a.channels; c += 4 * V::kBytes)
        max_block<kSigned, 4>(a, offsets, c, y + c, 4 * V::kBytes);
      for (; c < a.channels; c += V::kBytes)
        max_block<kSigned, 1>(a, offsets, c, y + c, a.channels - c);
    }
  }

  static void max_pool(const PoolArgs& a, int64_t p0, int64_t p1) {
    a.is_signed ? max_pixels<true>(a, p0, p1) : max_pixels<false>(a, p0, p1);
  }

  template <bool kSigned>
  static void average_pixels(const PoolArgs& a, int64_t p0, int64_t p1) {
    const Codes<V> codes(a.zero_point, a.lo, a.hi);
    for (int64_t p = p0; p < p1; ++p) {
      const int32_t* offsets = a.offsets + p * a.taps;
      uint8_t* y = static_cast<uint8_t*>(a.y) + p * a.ldy;
      uint32_t inside = 0;
      for (int64_t t = 0; t < a.taps; ++t) inside += offsets[t] >= 0;
      const I start = V::set(static_cast<int32_t>(0u - inside * static_cast<uint32_t>(a.zx)));
      const typename V::F multiplier = V::set(a.multiplier[p]);
      for (int64_t c = 0; c < a.channels; c += V::kBytes) {
        I sum[4] = {start, start, start, start};
        for (int64_t t = 0; t < a.taps; ++t) {
          if (offsets[t] < 0) continue;
          const uint8_t* x = static_cast<const uint8_t*>(a.a) + offsets[t] + c;
#pragma GCC unroll 4
          for (int v = 0; v < 4; ++v)
            sum[v] = V::add(sum[v], V::template load_codes<kSigned>(x + v * V::kLanes));
        }
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) sum[v] = V::round(V::mul(V::to_float(sum[v]), multiplier));
        const I bytes = codes.narrow4(sum[0], sum[1], sum[2], sum[3]);
        if (a.channels - c >= V::kBytes) {
          V::store(y + c, bytes);
        } else {
          V::store_bytes(y + c, bytes, a.channels - c);
        }
      }
    }
  }

  static void average_pool(const PoolArgs& a, int64_t p0, int64_t p1) {
    a.is_signed ? average_pixels<true>(a, p0, p1) : average_pixels<false>(a, p0, p1);
  }
};

}  // namespace
}  // namespace octet::kernels
