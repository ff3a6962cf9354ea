#pragma once
// What both of Winograd's algorithms do with their tiles (winograd_impl.h, float_winograd_impl.h).

#include "octet/kernels/codes_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

struct WinogradTiles {
  static OCTET_INLINE int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }
  // Bytes from a plane of transformed numbers to the next: an odd number of cache lines, so that
  // the planes of a tile do not meet in the same sets of a cache.
  static OCTET_INLINE int64_t plane(int64_t bytes) { return (round_up(bytes, 64) / 64 | 1) * 64; }

  // The addresses of the kSide x kSide pixels that a tile sees.
  template <int kSide, typename T>
  static OCTET_INLINE void locate(const WinogradImages& g, const T* a, const T* pad,
                                  const WinogradTile& tile, const T* (&at)[kSide * kSide]) {
    const T* image = a + tile.image * g.h * g.w * g.channels;
    for (int64_t i = 0; i < kSide; ++i) {
      const int64_t y = tile.y - g.top + i * g.dilation_h;
      for (int64_t j = 0; j < kSide; ++j) {
        const int64_t x = tile.x - g.left + j * g.dilation_w;
        const bool inside = y >= 0 && y < g.h && x >= 0 && x < g.w;
        at[i * kSide + j] = inside ? image + (y * g.w + x) * g.channels : pad;
      }
    }
  }

  // How many of `most` results, the first at `first` and the others in steps, lie before `end`.
  static OCTET_INLINE int64_t inside(int64_t first, int64_t step, int64_t end, int64_t most) {
    const int64_t count = (end - first + step - 1) / step;
    return count < most ? count : most;
  }
};

}  // namespace
}  // namespace octet::kernels
