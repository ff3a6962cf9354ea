#include <fmt/format.h>

#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

// One depthwise convolution with all its operands, and what should come out.
struct Convolution {
  int64_t pixels = 1, channels = 1, taps = 9;
  DepthwiseArgs args;
  std::vector<uint8_t> image, pad;
  std::vector<int8_t> w;
  std::vector<int32_t> offsets, bias;
  std::vector<float> multiplier;
  Guarded expected{0};

  Convolution(Random& random, int64_t pixels_, int64_t channels_, int64_t taps_)
      : pixels(pixels_), channels(channels_), taps(taps_) {
    const int64_t bytes = channels * random.integer(1, 20) + random.integer(0, 10);
    image = with_slack(random.bytes(static_cast<size_t>(bytes)), random);
    pad = with_slack(std::vector<uint8_t>(static_cast<size_t>(channels),
                                          static_cast<uint8_t>(random.integer(0, 255))),
                     random);
    w = random.weights(static_cast<size_t>(taps * channels));
    for (int64_t i = 0; i < pixels * taps; ++i)
      offsets.push_back(
          random.chance(0.2) ? -1 : static_cast<int32_t>(random.integer(0, bytes - channels)));
    for (int64_t c = 0; c < channels; ++c) {
      bias.push_back(static_cast<int32_t>(random.integer(-50000, 50000)));
      multiplier.push_back(random.magnitude(1e-4f, 1e-1f));
    }
    const Range y = random_range(random, random.chance(0.4));
    args.zero_point = y.zero_point, args.lo = y.lo, args.hi = y.hi;
    args.channels = channels;
    args.taps = taps;
    args.ldc = channels + random.integer(0, 5);
    args.a = image.data();
    args.offsets = offsets.data();
    args.pad = pad.data();
    args.bias = bias.data();
    args.multiplier = multiplier.data();
  }

  size_t output_bytes() const { return static_cast<size_t>(pixels * args.ldc); }

  void compute_expected() {
    expected = Guarded(output_bytes());
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        int64_t acc = bias[c];
        for (int64_t t = 0; t < taps; ++t) {
          const int32_t offset = offsets[p * taps + t];
          acc += (offset < 0 ? pad[c] : image[offset + c]) * w[t * channels + c];
        }
        const float v = static_cast<float>(static_cast<int32_t>(acc)) * multiplier[c];
        expected.put(static_cast<size_t>(p * args.ldc + c),
                     reference_code(v, args.zero_point, args.lo, args.hi));
      }
    }
  }

  Guarded run(const KernelTable& kernels, int64_t step = 0) {
    Guarded packed(kernels.depthwise_packed_bytes(channels, taps)), y(output_bytes());
    kernels.depthwise_pack(channels, taps, w.data(), packed.data());
    DepthwiseArgs d = args;
    d.weights = packed.data();
    d.c = y.data();
    if (step == 0) step = pixels;
    for (int64_t p = 0; p < pixels; p += step) kernels.depthwise(d, p, std::min(pixels, p + step));
    return y;
  }

  std::string describe() const {
    return std::to_string(pixels) + " pixels, " + std::to_string(channels) + " channels, " +
           std::to_string(taps) + " taps";
  }
};

class DepthwiseTest : public EveryIsa {};

TEST_P(DepthwiseTest, RandomShapesAreExactAndWriteNothingElse) {
  Random random(1);
  for (int i = 0; i < 700; ++i) {
    const int64_t taps = random.chance(0.4) ? 9 : random.chance(0.1) ? 25 : random.integer(1, 30);
    Convolution conv(random, random.integer(1, 12), random.integer(1, 200), taps);
    conv.compute_expected();
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << " in case " << i << ": " << conv.describe();
  }
}

TEST_P(DepthwiseTest, EveryChannelCountAroundTheVectorsIsExact) {
  Random random(2);
  for (int64_t channels = 1; channels <= 140; ++channels) {
    for (int64_t taps : {1, 4, 9, 25}) {
      Convolution conv(random, 3, channels, taps);
      conv.compute_expected();
      const Guarded y = conv.run(kernels());
      ASSERT_SAME_BYTES(y, conv.expected) << conv.describe();
    }
  }
}

TEST_P(DepthwiseTest, ManyPixelsAreExact) {
  Random random(3);
  for (int64_t channels : {5, 32, 96, 130}) {
    Convolution conv(random, 1000, channels, 9);
    conv.compute_expected();
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << conv.describe();
  }
}

TEST_P(DepthwiseTest, ThousandsOfTapsAreExact) {
  Random random(6);
  for (int64_t taps : {1023, 1024, 1025, 3000}) {
    Convolution conv(random, 3, 70, taps);
    conv.compute_expected();
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << conv.describe();
  }
}

TEST_P(DepthwiseTest, MultipliersOfEveryMagnitudeClampToTheRange) {
  Random random(7);
  for (float multiplier :
       {0.0f, 1e-30f, 0.99999994f, 1.0f, 3.0f, 1e6f, 1e20f, 3e38f, INFINITY, -1.0f, -3e38f}) {
    Convolution conv(random, 3, 70, 9);
    std::fill(conv.multiplier.begin(), conv.multiplier.end(), multiplier);
    conv.bias[3] = INT32_MAX, conv.bias[4] = INT32_MIN, conv.bias[5] = 0;
    conv.compute_expected();
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << conv.describe() << " multiplier " << multiplier;
  }
}

TEST_P(DepthwiseTest, ExtremeCodesOverManyTapsDoNotSaturate) {
  Random random(4);
  for (int8_t weight : {int8_t{-128}, int8_t{127}}) {
    for (int64_t taps : {9, 25, 49}) {
      Convolution conv(random, 4, 70, taps);
      std::fill(conv.image.begin(), conv.image.end(), 255);
      std::fill(conv.pad.begin(), conv.pad.end(), 255);
      std::fill(conv.w.begin(), conv.w.end(), weight);
      std::fill(conv.bias.begin(), conv.bias.end(), -255 * weight * static_cast<int32_t>(taps) + 7);
      std::fill(conv.multiplier.begin(), conv.multiplier.end(), 1.0f);
      conv.args.zero_point = 0, conv.args.lo = 0, conv.args.hi = 255;
      const Guarded y = conv.run(kernels());
      Guarded expected(conv.output_bytes());
      for (int64_t p = 0; p < 4; ++p)
        for (int64_t c = 0; c < 70; ++c)
          expected.put(static_cast<size_t>(p * conv.args.ldc + c), uint8_t{7});
      ASSERT_SAME_BYTES(y, expected) << conv.describe();
    }
  }
}

TEST_P(DepthwiseTest, SplittingThePixelsChangesNothing) {
  Random random(5);
  for (int i = 0; i < 40; ++i) {
    Convolution conv(random, random.integer(2, 40), random.integer(1, 100),
                     random.one_of<int64_t>({3, 9, 16}));
    conv.compute_expected();
    const Guarded y = conv.run(kernels(), random.integer(1, 7));
    ASSERT_SAME_BYTES(y, conv.expected) << conv.describe();
  }
}

// A 3x3 convolution over an image of h x w pixels. Its offsets say the same, for
// compute_expected(); kernels do not get them.
Convolution sliding(Random& random, int64_t channels, int64_t h, int64_t w) {
  const int64_t slide = random.chance(0.7) ? 1 : 2,
                slide_rows = random.chance(0.7) ? 1 : random.integer(2, 3),
                top = random.integer(0, 2), left = random.integer(0, 2),
                rows = std::max<int64_t>(1, (h + top + random.integer(-2, 1)) / slide_rows),
                width = std::max<int64_t>(1, (w + left + random.integer(-2, 1)) / slide);
  Convolution conv(random, rows * width, channels, 9);
  conv.image = with_slack(random.bytes(static_cast<size_t>(h * w * channels)), random);
  conv.args.a = conv.image.data();
  for (int64_t p = 0; p < conv.pixels; ++p)
    for (int64_t t = 0; t < 9; ++t) {
      const int64_t y = p / width * slide_rows - top + t / 3, x = p % width * slide - left + t % 3;
      const bool inside = y >= 0 && y < h && x >= 0 && x < w;
      conv.offsets[static_cast<size_t>(p * 9 + t)] =
          inside ? static_cast<int32_t>((y * w + x) * channels) : -1;
    }
  conv.args.offsets = nullptr;
  conv.args.slide = slide, conv.args.slide_rows = slide_rows;
  conv.args.width = width, conv.args.h = h, conv.args.w = w;
  conv.args.top = top, conv.args.left = left;
  conv.compute_expected();
  return conv;
}

std::string describe_sliding(const Convolution& conv) {
  const DepthwiseArgs& d = conv.args;
  return fmt::format("{}, slides by {} rows, {} columns, {} a row, image {}x{}, padding {}, {}",
                     conv.describe(), d.slide_rows, d.slide, d.width, d.h, d.w, d.top, d.left);
}

TEST_P(DepthwiseTest, SlidingWindowsAreExactForAnySplit) {
  Random random(8);
  for (int i = 0; i < 300; ++i) {
    Convolution conv =
        sliding(random, random.integer(1, 150), random.integer(1, 9), random.integer(1, 20));
    const Guarded y = conv.run(kernels(), random.chance(0.5) ? 0 : random.integer(1, 30));
    ASSERT_SAME_BYTES(y, conv.expected) << " in case " << i << ": " << describe_sliding(conv);
  }
}

TEST_P(DepthwiseTest, SlidingWindowsOfEveryChannelCountAreExact) {
  Random random(9);
  for (int64_t channels = 1; channels <= 140; ++channels) {
    Convolution conv = sliding(random, channels, 5, 6);
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << describe_sliding(conv);
  }
}

TEST_P(DepthwiseTest, SlidingWindowsOfLongRowsAreExact) {
  Random random(10);
  for (int64_t w : {83, 126, 127, 253, 254, 600}) {
    for (int64_t channels : {3, 32, 70}) {
      Convolution conv = sliding(random, channels, random.integer(1, 6), w);
      const Guarded y = conv.run(kernels(), random.chance(0.5) ? 0 : random.integer(1, 1000));
      ASSERT_SAME_BYTES(y, conv.expected) << describe_sliding(conv);
    }
  }
}

TEST_P(DepthwiseTest, SlidingWindowsWithExtremeCodesAndMultipliersAreExact) {
  Random random(11);
  for (float multiplier : {0.0f, 0.99999994f, 1.0f, 1e6f, INFINITY, -3e38f}) {
    for (int64_t channels : {16, 64, 70, 100}) {
      Convolution conv = sliding(random, channels, 6, 7);
      std::fill(conv.multiplier.begin(), conv.multiplier.end(), multiplier);
      std::fill(conv.image.begin(), conv.image.end(), 255);
      std::fill(conv.w.begin(), conv.w.end(), random.chance(0.5) ? -128 : 127);
      conv.bias[3] = INT32_MAX, conv.bias[4] = INT32_MIN;
      conv.compute_expected();
      const Guarded y = conv.run(kernels());
      ASSERT_SAME_BYTES(y, conv.expected) << describe_sliding(conv) << ", " << multiplier;
    }
  }
}

OCTET_FOR_EVERY_ISA(DepthwiseTest);

}  // namespace
}  // namespace octet::kernels
