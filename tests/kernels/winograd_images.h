#pragma once
// Images, paddings, dilations and tiles of a random 3x3 convolution with a stride of 1, for tests
// of Winograd's algorithms.

#include <string>
#include <vector>

#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {

struct WinogradCase {
  int64_t images = 1;
  std::vector<WinogradTile> tiles;

  // Fills `to`, whose tiles have `side` x `side` results.
  WinogradCase(Random& random, WinogradImages& to, int64_t side, int64_t channels, int64_t h,
               int64_t w, int64_t dilation_h, int64_t dilation_w)
      : images(random.integer(1, 2)) {
    to.channels = channels;
    to.h = h, to.w = w;
    to.dilation_h = dilation_h, to.dilation_w = dilation_w;
    to.top = random.integer(0, 3), to.left = random.integer(0, 3);
    to.oh = std::max<int64_t>(1, h + to.top + random.integer(0, 3) - 2 * dilation_h);
    to.ow = std::max<int64_t>(1, w + to.left + random.integer(0, 3) - 2 * dilation_w);
    for (int64_t image = 0; image < images; ++image)
      for (const int64_t y : starts(to.oh, dilation_h, side))
        for (const int64_t x : starts(to.ow, dilation_w, side))
          tiles.push_back(
              {static_cast<int32_t>(image), static_cast<int32_t>(y), static_cast<int32_t>(x)});
    to.tiles = tiles.data();
  }

  static std::vector<int64_t> starts(int64_t size, int64_t dilation, int64_t side) {
    std::vector<int64_t> result;
    for (int64_t i = 0; i < size; ++i)
      if (i / dilation % side == 0) result.push_back(i);
    return result;
  }
  int64_t pixels(const WinogradImages& of) const { return images * of.oh * of.ow; }

  // Calls run(t0, t1, n0, n1) for ranges of `step` tiles (0: all at once) and of `columns` of n
  // channels.
  template <typename Run>
  void in_ranges(int64_t step, int64_t n, int64_t columns, Run&& run) const {
    const auto all = std::ssize(tiles);
    if (step == 0) step = all;
    for (int64_t t = 0; t < all; t += step)
      for (int64_t n0 = 0; n0 < n; n0 += columns)
        run(t, std::min(all, t + step), n0, std::min(n, n0 + columns));
  }

  // The element of x (of its first channel) that tap t of output pixel p meets, -1 outside.
  static int64_t place(const WinogradImages& of, int64_t p, int64_t t) {
    const int64_t row = p / of.ow % of.oh - of.top + t / 3 * of.dilation_h,
                  column = p % of.ow - of.left + t % 3 * of.dilation_w, image = p / of.ow / of.oh;
    const bool inside = row >= 0 && row < of.h && column >= 0 && column < of.w;
    return inside ? ((image * of.h + row) * of.w + column) * of.channels : -1;
  }
  static std::string describe(const WinogradImages& of, int64_t n) {
    return std::to_string(of.channels) + " to " + std::to_string(n) + " channels, " +
           std::to_string(of.h) + "x" + std::to_string(of.w) + ", dilation " +
           std::to_string(of.dilation_h) + "x" + std::to_string(of.dilation_w);
  }
};

}  // namespace octet::kernels
