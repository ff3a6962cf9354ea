#pragma once
// Transposing bytes; and quantize while turning planes into pixels: [channels][pixels] float32 to [pixels][channels] codes.
//
// The unit is a quad: a vector of pixels from each of four planes, quantized and packed, is a 4 x 4 byte transpose away
// from one 32-bit lane per pixel. Four quads and a 4 x 4 transpose of lanes make 16 channels of each pixel, one 16-byte
// store each. Pixels go in short runs so that the part of y being filled stays in L1; planes are read in whole lines.

#include <immintrin.h>

#include "octet/kernels/codes_impl.h"
#include "octet/kernels/elementwise_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

// 16 x 16 bytes at a time: four rounds of interleaving row i with row i + 8 are the transpose.
inline void transpose_bytes(const uint8_t* x, int64_t ldx, uint8_t* y, int64_t ldy, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += 16) {
    for (int64_t c = 0; c < columns; c += 16) {
      if (rows - r < 16 || columns - c < 16) {
        for (int64_t i = r; i < rows && i < r + 16; ++i)
          for (int64_t j = c; j < columns && j < c + 16; ++j) y[j * ldy + i] = x[i * ldx + j];
        continue;
      }
      __m128i a[16], b[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + (r + i) * ldx + c));
#pragma GCC unroll 4
      for (int round = 0; round < 4; ++round) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
          b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
          b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) a[i] = b[i];
      }
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(y + (c + i) * ldy + r), a[i]);
    }
  }
}

template <typename V>
struct PlanesToPixels {
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kRun = 64;  // pixels

  const float* x;
  uint8_t* y;
  int64_t channels, pixels;
  F inverse;
  Codes<V> codes;

  OCTET_INLINE I plane(int64_t c, int64_t p, int64_t count) const {
    const float* from = x + c * pixels + p;
    return V::round_or_zero(V::mul(count == kLanes ? V::load_f32(from) : V::load_f32(from, count), inverse));
  }

  // Lane p holds channels c..c + 4 of pixel p, the first in the lowest byte. Channels from `last` on are 0 or more.
  OCTET_INLINE I quad(int64_t c, int64_t last, int64_t p, int64_t count) const {
    alignas(16) static constexpr uint8_t kTranspose[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    const I packed = codes.pack4(plane(c, p, count), c + 1 < last ? plane(c + 1, p, count) : V::zero(),
                                 c + 2 < last ? plane(c + 2, p, count) : V::zero(),
                                 c + 3 < last ? plane(c + 3, p, count) : V::zero());
    return V::shuffle(packed, V::broadcast128(kTranspose));
  }

  template <int kGroup>
  OCTET_INLINE void store_sixteen(uint8_t* to, const I (&of)[4], int64_t count) const {
    constexpr int kGroups = V::kBytes / 16;
    if constexpr (kGroup < kGroups) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        if (4 * kGroup + j < count) V::template store_part<kGroups, kGroup>(to + (4 * kGroup + j) * channels, of[j]);
      store_sixteen<kGroup + 1>(to, of, count);
    }
  }

  OCTET_INLINE void sixteen(int64_t c, int64_t p, int64_t count) const {
    const I q0 = quad(c, c + 4, p, count), q1 = quad(c + 4, c + 8, p, count);
    const I q2 = quad(c + 8, c + 12, p, count), q3 = quad(c + 12, c + 16, p, count);
    const I low01 = V::unpacklo32(q0, q1), high01 = V::unpackhi32(q0, q1);
    const I low23 = V::unpacklo32(q2, q3), high23 = V::unpackhi32(q2, q3);
    const I of[4] = {V::unpacklo64(low01, low23), V::unpackhi64(low01, low23), V::unpacklo64(high01, high23),
                     V::unpackhi64(high01, high23)};
    store_sixteen<0>(y + p * channels + c, of, count);
  }

  OCTET_INLINE void few(int64_t c, int64_t p, int64_t count) const {
    alignas(64) uint32_t of[kLanes];
    V::store(of, quad(c, channels, p, count));
    uint8_t* to = y + p * channels + c;
    if (channels - c >= 4) {
      for (int64_t i = 0; i < count; ++i, to += channels) __builtin_memcpy(to, of + i, 4);
    } else {
      for (int64_t i = 0; i < count; ++i, to += channels)
        for (int64_t j = 0; j < channels - c; ++j) to[j] = static_cast<uint8_t>(of[i] >> (8 * j));
    }
  }

  OCTET_INLINE void three(int64_t p) const {  // an image: 3 channels, kLanes pixels
    alignas(16) static constexpr uint8_t kJoin[16] = {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 12, 13, 14, 15};
    const I packed = codes.pack4(plane(0, p, kLanes), plane(1, p, kLanes), plane(2, p, kLanes), V::zero());
    V::store_three_quarters(y + p * 3, V::join_12_bytes(V::shuffle(packed, V::broadcast128(kJoin))));
  }

  OCTET_INLINE void range(int64_t p0, int64_t p1) const {
    if (channels == 3)
      for (; p0 + kLanes <= p1; p0 += kLanes) three(p0);
    if (channels == 4)
      for (; p0 + kLanes <= p1; p0 += kLanes) V::store(y + p0 * 4, quad(0, 4, p0, kLanes));
    for (int64_t run = p0; run < p1; run += kRun) {
      const int64_t end = run + kRun < p1 ? run + kRun : p1;
      int64_t c = 0;
      for (; c + 16 <= channels; c += 16) {
        int64_t p = run;
        for (; p + kLanes <= end; p += kLanes) sixteen(c, p, kLanes);
        if (p < end) sixteen(c, p, end - p);
      }
      for (; c < channels; c += 4) {
        int64_t p = run;
        for (; p + kLanes <= end; p += kLanes) few(c, p, kLanes);
        if (p < end) few(c, p, end - p);
      }
    }
  }

  static void quantize(const float* x, void* y, int64_t channels, int64_t pixels, float inv_scale, int32_t zp,
                       int32_t lo, int32_t hi, int64_t p0, int64_t p1) {
    if (channels == 1)
      return Elementwise<V>::quantize(x + p0, static_cast<uint8_t*>(y) + p0, p1 - p0, inv_scale, zp, lo, hi);
    PlanesToPixels{x, static_cast<uint8_t*>(y), channels, pixels, V::set(inv_scale), Codes<V>(zp, lo, hi)}.range(p0,
                                                                                                                 p1);
  }
};

}  // namespace
}  // namespace octet::kernels
