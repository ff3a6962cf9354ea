#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "octet/base/random.h"
#include "octet/engine/geometry_impl.h"

namespace octet::engine_detail {
namespace {

Window3 window(int64_t kernel, int64_t stride, int64_t pad) {
  return {{1, kernel, kernel}, {1, stride, stride}, {0, pad, pad}, {0, pad, pad}, {1, 1, 1}};
}
Shape image(int64_t height, int64_t width) { return {1, 1, 1, height, width}; }

// Of how many taps of all pixels a product that skips them need not see.
int64_t skipped_taps(const PixelGroups& order) {
  int64_t count = 0, begin = 0;
  for (const auto& group : order.groups) {
    count += (group.end - begin) * std::popcount(group.skipped);
    begin = group.end;
  }
  return count;
}

TEST(Window, IsPointwiseWithoutPaddingAtAnyEdge) {
  EXPECT_TRUE(Window().is_pointwise());
  for (int64_t Window::*padding : {&Window::ph, &Window::pw, &Window::ph_end, &Window::pw_end}) {
    Window w;
    w.*padding = 1;
    EXPECT_FALSE(w.is_pointwise());
  }
}

TEST(PixelGroups, OfSmallImagesLeaveTheTapsOutsideAllFourEdges) {
  const PixelGroups order = pixel_groups(window(3, 1, 1), false, image(7, 7), image(7, 7));
  EXPECT_EQ(order.groups.size(), 5u);  // the inside, two rows with their corners, two columns
  EXPECT_EQ(skipped_taps(order), 3 * (7 + 7 + 5 + 5));
}

TEST(PixelGroups, OfWideImagesLeaveTheirPixelsWhereTheyAre) {
  const PixelGroups order = pixel_groups(window(3, 1, 1), false, image(5, 100), image(5, 100));
  EXPECT_TRUE(order.pixels.empty());
  ASSERT_EQ(order.groups.size(), 3u);
  EXPECT_EQ(order.groups[0].end, 100);
  EXPECT_EQ(order.groups[0].skipped, 0b000'000'111u);
  EXPECT_EQ(order.groups[1].end, 400);
  EXPECT_EQ(order.groups[1].skipped, 0u);
  EXPECT_EQ(order.groups[2].skipped, 0b111'000'000u);
}

TEST(PixelGroups, OfTransposedConvolutionsMeetNoTapBetweenElements) {
  const PixelGroups order = pixel_groups(window(2, 2, 0), true, image(5, 5), image(10, 10));
  EXPECT_EQ(order.groups.size(), 4u);
  EXPECT_EQ(skipped_taps(order), 3 * 100);
}

TEST(PixelGroups, AreNoneWhereNothingIsSkipped) {
  for (const auto& order : {pixel_groups(window(3, 1, 0), false, image(7, 7), image(5, 5)),
                            pixel_groups(window(1, 1, 0), false, image(7, 7), image(7, 7)),
                            pixel_groups(window(2, 1, 0), true, image(7, 7), image(8, 8))}) {
    EXPECT_TRUE(order.groups.empty());
    EXPECT_TRUE(order.pixels.empty());
  }
}

TEST(PixelGroups, NeverSkipAllTapsOfAPixel) {
  // of outputs at the corners no tap meets the image
  const PixelGroups plain = pixel_groups(window(2, 1, 3), false, image(2, 2), image(7, 7));
  const PixelGroups transposed = pixel_groups(window(2, 4, 0), true, image(3, 3), image(10, 10));
  for (const auto& order : {plain, transposed}) {
    ASSERT_FALSE(order.groups.empty());
    for (const auto& group : order.groups) EXPECT_LT(std::popcount(group.skipped), 4);
  }
}

// What is skipped is outside the image for every pixel of the group, and each pixel comes once.
TEST(PixelGroups, AgreeWithTheOffsetsOfRandomWindows) {
  Random random(3);
  const auto integer = [&](int64_t lo, int64_t hi) { return random.integer(lo, hi); };
  for (int i = 0; i < 300; ++i) {
    Window3 w;
    const bool transposed = integer(0, 2) == 0;
    Shape x{1, 1, 1, 0, 0}, y{1, 1, 1, 0, 0};
    for (size_t d = 1; d < 3; ++d) {
      w.kernel[d] = integer(1, 4);
      w.stride[d] = integer(1, 3);
      w.dilation[d] = integer(1, 2);
      w.begin[d] = integer(0, 3);
      x[d + 2] = integer(1, i % 5 == 0 ? 80 : 9);
      y[d + 2] = integer(1, i % 5 == 0 ? 80 : 9);
    }
    const PixelGroups order = pixel_groups(w, transposed, x, y);
    if (order.groups.empty()) continue;
    const TapOffsets offsets = tap_offsets(w, transposed, x, y),
                     ordered = order.in_order(offsets, w.taps());
    std::vector<int32_t> pixels = order.pixels;
    if (!pixels.empty()) {
      std::sort(pixels.begin(), pixels.end());
      std::vector<int32_t> all(static_cast<size_t>(y[3] * y[4]));
      std::iota(all.begin(), all.end(), 0);
      ASSERT_EQ(pixels, all);
    }
    ASSERT_EQ(order.groups.back().end, y[3] * y[4]);
    int64_t p = 0;
    for (const auto& group : order.groups)
      for (; p < group.end; ++p)
        for (int64_t t = 0; t < w.taps(); ++t)
          if (group.skipped >> t & 1) {
            ASSERT_EQ(ordered[static_cast<size_t>(p * w.taps() + t)], -1);
          }
  }
}

}  // namespace
}  // namespace octet::engine_detail
