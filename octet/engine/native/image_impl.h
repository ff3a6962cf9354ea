#pragma once
// What convolutions of codes and of floats share: sizes of images, and copies with their padding
// written out.

#include <algorithm>
#include <cstring>

#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/scratch_impl.h"

namespace octet::native {

using engine_detail::flip_signs;
using engine_detail::flip_signs_here;
using engine_detail::Window;

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
