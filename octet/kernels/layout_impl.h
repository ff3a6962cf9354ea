#pragma once
// Planes into pixels: codes as they are, and float32 [channels][pixels] quantized on the way to
// [pixels][channels] codes.
//
// The unit is a quad: a vector of pixels from each of four planes, quantized and packed, is a 4 x 4
// byte transpose away from one 32-bit lane per pixel. Four quads and a 4 x 4 transpose of lanes
// make 16 channels of each pixel, one 16-byte store each. Pixels go in short runs so that the part
// of y being filled stays in L1; planes are read in whole lines.

#include "octet/kernels/bytes16_impl.h"
#include "octet/kernels/codes_impl.h"
#include "octet/kernels/elementwise_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

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
    return V::round_or_zero(
        V::mul(count == kLanes ? V::load_f32(from) : V::load_f32(from, count), inverse));
  }

  // Lane p holds channels c..c + 4 of pixel p, the first in the lowest byte. Channels from `last`
  // on are 0 or more.
  OCTET_INLINE I quad(int64_t c, int64_t last, int64_t p, int64_t count) const {
    alignas(16) static constexpr uint8_t kTranspose[16] = {0, 4, 8,  12, 1, 5, 9,  13,
                                                           2, 6, 10, 14, 3, 7, 11, 15};
    const I packed =
        codes.pack4(plane(c, p, count), c + 1 < last ? plane(c + 1, p, count) : V::zero(),
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
        if (4 * kGroup + j < count)
          V::template store_part<kGroups, kGroup>(to + (4 * kGroup + j) * channels, of[j]);
      store_sixteen<kGroup + 1>(to, of, count);
    }
  }

  OCTET_INLINE void sixteen(int64_t c, int64_t p, int64_t count) const {
    const I q0 = quad(c, c + 4, p, count), q1 = quad(c + 4, c + 8, p, count);
    const I q2 = quad(c + 8, c + 12, p, count), q3 = quad(c + 12, c + 16, p, count);
    const I low01 = V::unpacklo32(q0, q1), high01 = V::unpackhi32(q0, q1);
    const I low23 = V::unpacklo32(q2, q3), high23 = V::unpackhi32(q2, q3);
    const I of[4] = {V::unpacklo64(low01, low23), V::unpackhi64(low01, low23),
                     V::unpacklo64(high01, high23), V::unpackhi64(high01, high23)};
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
    alignas(16) static constexpr uint8_t kJoin[16] = {0,  4, 8, 1,  5,  9,  2,  6,
                                                      10, 3, 7, 11, 12, 13, 14, 15};
    const I packed =
        codes.pack4(plane(0, p, kLanes), plane(1, p, kLanes), plane(2, p, kLanes), V::zero());
    V::store_three_quarters(y + p * 3,
                            V::join_12_bytes(V::shuffle(packed, V::broadcast128(kJoin))));
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

  static void quantize(const float* x, void* y, int64_t channels, int64_t pixels, float inv_scale,
                       int32_t zp, int32_t lo, int32_t hi, int64_t p0, int64_t p1) {
    if (channels == 1)
      return Elementwise<V>::quantize(x + p0, static_cast<uint8_t*>(y) + p0, p1 - p0, inv_scale, zp,
                                      lo, hi);
    PlanesToPixels{x,      static_cast<uint8_t*>(y), channels,
                   pixels, V::set(inv_scale),        Codes<V>(zp, lo, hi)}
        .range(p0, p1);
  }
};

// y[c][r] = x[r][c] for 16 rows and 8 columns.
OCTET_INLINE void transpose_16x8(const uint8_t* x, int64_t ldx, uint8_t* y, int64_t ldy) {
  using B = Bytes16;
  B::I a[16], b[8];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = B::load_half(x + i * ldx);
#pragma GCC unroll 8
  // rows 2i, 2i+1: columns 0..8
  for (int i = 0; i < 8; ++i) b[i] = B::unpacklo8(a[2 * i], a[2 * i + 1]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // rows 4i..4i+4: columns 0..4, 4..8
    a[2 * i] = B::unpacklo16(b[2 * i], b[2 * i + 1]);
    a[2 * i + 1] = B::unpackhi16(b[2 * i], b[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)  // rows 8i..8i+8: columns 0..2, 2..4, 4..6, 6..8
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      b[4 * i + 2 * j] = B::unpacklo32(a[4 * i + j], a[4 * i + j + 2]);
      b[4 * i + 2 * j + 1] = B::unpackhi32(a[4 * i + j], a[4 * i + j + 2]);
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    B::store(y + 2 * j * ldy, B::unpacklo64(b[j], b[j + 4]));
    B::store(y + (2 * j + 1) * ldy, B::unpackhi64(b[j], b[j + 4]));
  }
}

void transpose_bytes(const uint8_t* x, int64_t ldx, uint8_t* y, int64_t ldy, int64_t rows,
                     int64_t columns) {
  int64_t r = 0;
  if (columns >= 8)
    for (; r + 16 <= rows; r += 16)
      // the last eight may overlap those before
      for (int64_t c = 0;; c = c + 16 <= columns ? c + 8 : columns - 8) {
        transpose_16x8(x + r * ldx + c, ldx, y + c * ldy + r, ldy);
        if (c + 8 >= columns) break;
      }
  for (; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) y[c * ldy + r] = x[r * ldx + c];
}

}  // namespace
}  // namespace octet::kernels
