#include "tests/kernels/winograd_images.h"

namespace octet::kernels {
namespace {

// One 3x3 convolution with all its operands, and what should come out.
struct WinogradConvolution {
  WinogradArgs args;
  WinogradCase images;
  std::vector<uint8_t> x, pad;
  std::vector<int8_t> w;  // [n][9][channels]
  std::vector<int32_t> bias;
  std::vector<float> multiplier;
  Guarded expected{0};

  WinogradConvolution(Random& random, int64_t channels, int64_t n, int64_t h, int64_t width,
                      int64_t dilation_h = 1, int64_t dilation_w = 1)
      : images(random, args, 4, channels, h, width, dilation_h, dilation_w) {
    args.flip = random.chance(0.7) ? 0x80 : 0;
    x = with_slack(random.bytes(static_cast<size_t>(images.images * h * width * channels)), random);
    pad = with_slack(std::vector<uint8_t>(static_cast<size_t>(channels),
                                          static_cast<uint8_t>(random.integer(0, 255))),
                     random);
    w = random.weights(static_cast<size_t>(n * 9 * channels));
    for (int64_t i = 0; i < n; ++i) {
      bias.push_back(static_cast<int32_t>(random.integer(-50000, 50000)));
      multiplier.push_back(random.magnitude(1e-5f, 1e-2f));
    }
    const Range y = random_range(random, random.chance(0.4));
    args.finish.shape.n = n;
    args.finish.zero_point = y.zero_point, args.finish.lo = y.lo, args.finish.hi = y.hi;
    args.finish.ldc = n + random.integer(0, 5);
    args.finish.bias = bias.data();
    args.finish.multiplier = multiplier.data();
    args.a = x.data();
    args.pad = pad.data();
  }

  size_t output_bytes() const { return static_cast<size_t>(images.pixels(args) * args.finish.ldc); }

  void compute_expected() {
    expected = Guarded(output_bytes());
    for (int64_t p = 0; p < images.pixels(args); ++p)
      for (int64_t n = 0; n < args.finish.shape.n; ++n) {
        int64_t acc = bias[static_cast<size_t>(n)];
        for (int64_t t = 0; t < 9; ++t) {
          const int64_t at = WinogradCase::place(args, p, t);
          const uint8_t* from = at < 0 ? pad.data() : &x[static_cast<size_t>(at)];
          for (int64_t c = 0; c < args.channels; ++c)
            acc += static_cast<int8_t>(from[c] ^ args.flip) *
                   w[static_cast<size_t>((n * 9 + t) * args.channels + c)];
        }
        const float v =
            static_cast<float>(static_cast<int32_t>(acc)) * multiplier[static_cast<size_t>(n)];
        expected.put(static_cast<size_t>(p * args.finish.ldc + n),
                     reference_code(v, args.finish.zero_point, args.finish.lo, args.finish.hi));
      }
  }

  // In ranges of `step` tiles (0: all at once) and of `columns` times 2 * gemm_nr channels, the
  // weights packed a panel at a time.
  Guarded run(const KernelTable& kernels, int64_t step = 0, int64_t columns = 100) {
    const int64_t n = args.finish.shape.n;
    Guarded packed(kernels.winograd_packed_bytes(args.channels, n)), y(output_bytes()),
        scratch(kernels.winograd_scratch_bytes(args.channels));
    for (int64_t n0 = 0; n0 < n; n0 += kernels.gemm_nr)
      kernels.winograd_pack(args.channels, n, &w[static_cast<size_t>(n0 * 9 * args.channels)], n0,
                            std::min(n, n0 + kernels.gemm_nr), packed.data());
    WinogradArgs a = args;
    a.weights = packed.data();
    a.finish.c = y.data();
    images.in_ranges(step, n, columns * 2 * kernels.gemm_nr,
                     [&](auto... range) { kernels.winograd(a, scratch.data(), range...); });
    EXPECT_TRUE(scratch.walls_stand()) << describe();
    EXPECT_TRUE(packed.walls_stand()) << describe();
    return y;
  }

  std::string describe() const { return WinogradCase::describe(args, args.finish.shape.n); }
};

class WinogradTest : public EveryIsa {
 protected:
  void SetUp() override {
    EveryIsa::SetUp();
    if (!IsSkipped() && !kernels().winograd)
      GTEST_SKIP() << to_string(GetParam()) << " has no such kernel";
  }
};

TEST_P(WinogradTest, RandomShapesAreExactAndWriteNothingElse) {
  Random random(1);
  for (int i = 0; i < 150; ++i) {
    WinogradConvolution conv(random, random.integer(1, 90), random.integer(1, 90),
                             random.integer(1, 15), random.integer(1, 15), random.integer(1, 3),
                             random.integer(1, 3));
    conv.compute_expected();
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << " in case " << i << ": " << conv.describe();
  }
}

TEST_P(WinogradTest, EveryChannelCountAroundTheVectorsIsExact) {
  Random random(2);
  for (int64_t c = 1; c <= 70; ++c) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>(c, 3), {3, c}}) {
      WinogradConvolution conv(random, in, out, 7, 6);
      conv.compute_expected();
      const Guarded y = conv.run(kernels());
      ASSERT_SAME_BYTES(y, conv.expected) << conv.describe();
    }
  }
}

TEST_P(WinogradTest, AnySplitGivesTheSameBytes) {
  Random random(3);
  WinogradConvolution conv(random, 20, 150, 21, 19);
  conv.compute_expected();
  for (const int64_t step : {1, 5, 7, 40})
    for (const int64_t columns : {1, 2}) {
      const Guarded y = conv.run(kernels(), step, columns);
      ASSERT_SAME_BYTES(y, conv.expected) << step << " tiles, " << columns << " columns";
    }
}

TEST_P(WinogradTest, ManyChannelsAreSummedInParts) {
  Random random(5);
  for (const int64_t channels : {511, 512, 513, 1024, 1030, 1537}) {
    WinogradConvolution conv(random, channels, 40, 9, 6);
    for (int8_t& w : conv.w) w = static_cast<int8_t>(w / 3);  // 9 * 512 * 42 * 128 < 2^25
    conv.compute_expected();
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << conv.describe();
  }
}

// Their weights are fetched ahead where few tiles meet many of them (more than 500 KB).
TEST_P(WinogradTest, WeightsThatAreFetchedAheadAreExact) {
  Random random(6);
  for (const auto& [channels, n] : {std::pair<int64_t, int64_t>(96, 79), {129, 150}, {200, 107}})
    for (const int64_t side : {1, 8, 15, 21}) {
      WinogradConvolution conv(random, channels, n, side, side);
      conv.compute_expected();
      for (const int64_t columns : {1, 100}) {
        const Guarded y = conv.run(kernels(), 0, columns);
        ASSERT_SAME_BYTES(y, conv.expected) << conv.describe();
      }
    }
}

// What is largest in each step: transformed codes and weights of 16 bits, sums of almost 2^25.
TEST_P(WinogradTest, TheLargestCodesWeightsAndSumsAreExact) {
  Random random(4);
  constexpr int64_t kChannels = 227;  // 9 * 227 * 128 * 128 = 2^25 - 81,920
  for (int signs = 0; signs < 32; ++signs) {
    WinogradConvolution conv(random, kChannels, 5, 8, 8);
    const auto sign = [&](int64_t y, int64_t x) {
      return signs == 0 ? 0 : signs == 1 ? (y + x) % 2 : static_cast<int64_t>(random.chance(0.5));
    };
    // The same pattern in all channels, so that nothing cancels.
    for (int64_t p = 0; p < conv.images.images * 64; ++p)
      std::fill_n(conv.x.begin() + p * kChannels, kChannels,
                  static_cast<uint8_t>(sign(p / 8, p % 8) ? 255 : 0));
    for (int64_t t = 0; t < 5 * 9; ++t)
      std::fill_n(conv.w.begin() + t * kChannels, kChannels,
                  static_cast<int8_t>(sign(t / 3, t % 3) ? 127 : -128));
    conv.args.flip = 0x80;
    // The upper bits of the sums; then the last ones, where the bias brings sums into the range.
    std::fill(conv.multiplier.begin(), conv.multiplier.end(), 0x1p-18f);
    conv.compute_expected();
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.expected) << "pattern " << signs;
    std::fill(conv.multiplier.begin(), conv.multiplier.end(), 1.0f);
    for (const int32_t sum : {9 * 227 * 128 * 128, -9 * 227 * 128 * 127, 0}) {
      std::fill(conv.bias.begin(), conv.bias.end(), -sum);
      conv.compute_expected();
      const Guarded exact = conv.run(kernels());
      ASSERT_SAME_BYTES(exact, conv.expected) << "pattern " << signs << ", sums around " << sum;
    }
  }
}

OCTET_FOR_EVERY_ISA(WinogradTest);

}  // namespace
}  // namespace octet::kernels
