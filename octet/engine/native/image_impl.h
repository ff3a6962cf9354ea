#pragma once
// What convolutions of codes and of floats share: sizes of images, and copies with their padding
// written out.

#include <algorithm>
#include <cstring>

#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"

namespace octet::native {

using engine_detail::Window;

// dst = src with the sign bit of every byte flipped: qint8 codes as quint8 ones. flip_signs_here:
// on the calling thread.
inline void flip_signs_here(const uint8_t* src, uint8_t* dst, int64_t n) {
  constexpr int64_t kAtOnce = 32;  // a loop of known length, which the compiler makes vectors of
  for (; n >= kAtOnce; n -= kAtOnce, src += kAtOnce, dst += kAtOnce)
    for (int64_t i = 0; i < kAtOnce; ++i) dst[i] = src[i] ^ 0x80;
  for (int64_t i = 0; i < n; ++i) dst[i] = src[i] ^ 0x80;
}
inline void flip_signs(const void* src, uint8_t* dst, int64_t n) {
  const auto* s = static_cast<const uint8_t*>(src);
  parallel_ranges(n, 1 << 16,
                  [&](int64_t i0, int64_t i1) { flip_signs_here(s + i0, dst + i0, i1 - i0); });
}

struct ConvShape {
  int64_t images, h, w, c, oh, ow, oc;
  int64_t pixels() const { return oh * ow; }
};

inline ConvShape conv_shape(const std::vector<Shape>& in, const std::vector<Shape>& out) {
  return {in[0][0], in[0][2], in[0][3], in[0][1], out[0][2], out[0][3], out[0][1]};
}

// The part of an image that its windows cover, padding included.
struct PaddedImage {
  int64_t h = 0, w = 0, c = 0;
  PaddedImage() = default;
  PaddedImage(const Window& v, const ConvShape& s)
      : h((s.oh - 1) * v.sh + (v.kh - 1) * v.dh + 1), w((s.ow - 1) * v.sw + v.kw), c(s.c) {}
  int64_t bytes() const { return h * w * c; }

  // Writes `images` of them, of images x of shape s; with x's sign bits flipped if `flip`; `zero`
  // is the padding.
  void write(const Window& v, const ConvShape& s, const uint8_t* x, bool flip, uint8_t zero,
             uint8_t* to) const {
    const int64_t left = std::min(v.pw, w) * c, inside = std::min(s.w * c, w * c - left),
                  row_bytes = w * c;
    parallel_ranges(s.images * h, (1 << 16) / (row_bytes + 1) + 1, [&](int64_t r0, int64_t r1) {
      for (int64_t r = r0; r < r1; ++r) {
        const int64_t y = r % h - v.ph;
        uint8_t* row = to + r * row_bytes;
        if (y < 0 || y >= s.h) {
          std::memset(row, zero, row_bytes);
          continue;
        }
        const uint8_t* from = x + (r / h * s.h + y) * s.w * c;
        std::memset(row, zero, left);
        if (flip)
          flip_signs_here(from, row + left, inside);
        else
          std::memcpy(row + left, from, inside);
        std::memset(row + left + inside, zero, row_bytes - left - inside);
      }
    });
  }
};

}  // namespace octet::native
