#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

struct Pooling {
  int64_t pixels, channels, taps;
  PoolArgs args;
  std::vector<uint8_t> image;
  std::vector<int32_t> offsets;
  std::vector<float> multiplier;

  Pooling(Random& random, int64_t pixels_, int64_t channels_, int64_t taps_)
      : pixels(pixels_), channels(channels_), taps(taps_) {
    const int64_t bytes = channels * random.integer(1, 20) + random.integer(0, 10);
    image = with_slack(random.bytes(static_cast<size_t>(bytes)), random);
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t inside = random.integer(0, taps - 1);  // at least this one
      for (int64_t t = 0; t < taps; ++t)
        offsets.push_back(t != inside && random.chance(0.3)
                              ? -1
                              : static_cast<int32_t>(random.integer(0, bytes - channels)));
      multiplier.push_back(
          random.one_of({1.0f / static_cast<float>(taps), 0.5f, random.magnitude(1e-4f, 1.0f)}));
    }
    const Range y = random_range(random, random.chance(0.5));
    args.channels = channels;
    args.taps = taps;
    args.a = image.data();
    args.offsets = offsets.data();
    args.ldy = channels + random.integer(0, 5);
    args.is_signed = y.is_signed;
    args.zx = static_cast<int32_t>(random.integer(y.is_signed ? -128 : 0, y.is_signed ? 127 : 255));
    args.multiplier = multiplier.data();
    args.zero_point = y.zero_point, args.lo = y.lo, args.hi = y.hi;
  }

  // Runs a kernel of pools, `step` pixels at a time, and compares with reduce(codes of the taps
  // inside, pixel).
  template <typename Reduce>
  void expect(void (*kernel)(const PoolArgs&, int64_t, int64_t), int64_t step, Reduce reduce) {
    Guarded y(static_cast<size_t>(pixels * args.ldy)),
        expected(static_cast<size_t>(pixels * args.ldy));
    args.y = y.data();
    for (int64_t p = 0; p < pixels; p += step) kernel(args, p, std::min(pixels, p + step));
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        std::vector<int32_t> inside;
        for (int64_t t = 0; t < taps; ++t)
          if (const int32_t offset = offsets[p * taps + t]; offset >= 0)
            inside.push_back(code_at(image.data(), offset + c, args.is_signed));
        expected.put(static_cast<size_t>(p * args.ldy + c),
                     static_cast<uint8_t>(reduce(inside, p)));
      }
    }
    ASSERT_SAME_BYTES(y, expected)
        << pixels << " pixels, " << channels << " channels, " << taps << " taps";
  }

  void expect_maximum(const KernelTable& kernels, int64_t step) {
    expect(kernels.max_pool, step, [](const std::vector<int32_t>& codes, int64_t) {
      return *std::max_element(codes.begin(), codes.end());
    });
  }

  void expect_average(const KernelTable& kernels, int64_t step) {
    expect(kernels.average_pool, step, [&](const std::vector<int32_t>& codes, int64_t p) {
      int32_t sum = 0;
      for (int32_t q : codes) sum += q - args.zx;
      return reference_code(static_cast<float>(sum) * multiplier[p], args.zero_point, args.lo,
                            args.hi);
    });
  }
};

class PoolTest : public EveryIsa {};

TEST_P(PoolTest, MaximumOfRandomWindowsIsExactAndWritesNothingElse) {
  Random random(1);
  for (int i = 0; i < 700; ++i) {
    Pooling pool(random, random.integer(1, 12), random.integer(1, 150), random.integer(1, 12));
    ASSERT_NO_FATAL_FAILURE(pool.expect_maximum(kernels(), random.integer(1, pool.pixels)));
  }
}

TEST_P(PoolTest, AverageOfRandomWindowsIsExactAndWritesNothingElse) {
  Random random(2);
  for (int i = 0; i < 700; ++i) {
    Pooling pool(random, random.integer(1, 12), random.integer(1, 150), random.integer(1, 12));
    ASSERT_NO_FATAL_FAILURE(pool.expect_average(kernels(), random.integer(1, pool.pixels)));
  }
}

TEST_P(PoolTest, ManyChannelsAndLargeWindowsAreExact) {
  Random random(3);
  for (int64_t channels : {256, 257, 300, 511, 512}) {
    Pooling pool(random, 2, channels, 49);
    ASSERT_NO_FATAL_FAILURE(pool.expect_maximum(kernels(), 2));
    ASSERT_NO_FATAL_FAILURE(pool.expect_average(kernels(), 2));
  }
}

TEST_P(PoolTest, AverageOfAThousandExtremeCodesDoesNotSaturate) {
  Random random(4);
  for (int32_t zx : {0, 255}) {
    Pooling pool(random, 1, 70, 1024);
    std::fill(pool.image.begin(), pool.image.end(), zx == 0 ? 255 : 0);
    pool.args.is_signed = false;
    pool.args.zx = zx;
    pool.multiplier[0] = 1.0f / 1024;
    pool.args.zero_point = 128, pool.args.lo = 0, pool.args.hi = 255;
    ASSERT_NO_FATAL_FAILURE(pool.expect_average(kernels(), 1));
  }
}

TEST_P(PoolTest, AverageWithAMultiplierBeyondEveryCodeClamps) {
  Random random(5);
  for (float multiplier : {1e10f, 3e38f, INFINITY, -INFINITY, 0.0f}) {
    Pooling pool(random, 3, 70, 4);
    std::fill(pool.multiplier.begin(), pool.multiplier.end(), multiplier);
    ASSERT_NO_FATAL_FAILURE(pool.expect_average(kernels(), 3));
  }
}

OCTET_FOR_EVERY_ISA(PoolTest);

}  // namespace
}  // namespace octet::kernels
