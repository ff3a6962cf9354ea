// Winograd's float convolutions against a convolution in double, and against the scalar table's
// bits. That they are what docs/numerics.md says is tests/engine/float_exactness_test.cpp's.
#include <array>
#include <cmath>

#include "tests/kernels/winograd_images.h"

namespace octet::kernels {
namespace {

struct FloatConvolution {
  FloatWinogradArgs args;
  WinogradCase images;
  std::vector<float> x, pad, w, bias;  // w: [n][channels][9]

  FloatConvolution(Random& random, int64_t channels, int64_t n, int64_t h, int64_t width,
                   int64_t dilation_h = 1, int64_t dilation_w = 1)
      : images(random, args, 2, channels, h, width, dilation_h, dilation_w),
        x(floats(random, images.images * h * width * channels)),
        pad(static_cast<size_t>(channels)),
        w(floats(random, n * channels * 9)),
        bias(floats(random, n)) {
    args.n = n;
    args.ldc = n + random.integer(0, 5);
    args.a = x.data();
    args.pad = pad.data();
    if (random.chance(0.7)) args.bias = bias.data();
    if (random.chance(0.3)) args.lo = 0, args.hi = 6;
  }

  static std::vector<float> floats(Random& random, int64_t n) {
    std::vector<float> r(static_cast<size_t>(n));
    const float least = random.chance(0.3) ? 1e-6f : 1e-2f;
    for (float& v : r) v = random.magnitude(least, 1) * (random.chance(0.5) ? 1.0f : -1.0f);
    return r;
  }
  size_t output_bytes() const {
    return static_cast<size_t>(images.pixels(args) * args.ldc) * sizeof(float);
  }

  // In ranges of `step` tiles (0: all at once) and of `columns` times 2 * float_gemm_nr channels.
  Guarded run(const KernelTable& kernels, int64_t step = 0, int64_t columns = 100) const {
    const int64_t n = args.n;
    Guarded packed(kernels.float_winograd_packed_bytes(args.channels, n)), y(output_bytes()),
        scratch(kernels.float_winograd_scratch_bytes(args.channels));
    for (int64_t n0 = 0; n0 < n; n0 += 2 * kernels.float_gemm_nr)
      kernels.float_winograd_pack(args.channels, n, &w[static_cast<size_t>(n0 * args.channels * 9)],
                                  n0, std::min(n, n0 + 2 * kernels.float_gemm_nr),
                                  packed.as<float>());
    FloatWinogradArgs a = args;
    a.weights = packed.as<float>();
    a.c = y.as<float>();
    images.in_ranges(step, n, columns * 2 * kernels.float_gemm_nr,
                     [&](auto... range) { kernels.float_winograd(a, scratch.data(), range...); });
    EXPECT_TRUE(scratch.walls_stand()) << describe();
    EXPECT_TRUE(packed.walls_stand()) << describe();
    return y;
  }
  std::string describe() const { return WinogradCase::describe(args, args.n); }

  // Output (p, n) in double, and as the chain of the matrix product has it.
  struct Direct {
    double exact = 0;
    float chain = 0;
  };
  Direct direct(int64_t p, int64_t n) const {
    Direct sum;
    if (args.bias) sum.exact = sum.chain = bias[static_cast<size_t>(n)];
    for (int64_t t = 0; t < 9; ++t) {
      const int64_t at = WinogradCase::place(args, p, t);
      for (int64_t c = 0; at >= 0 && c < args.channels; ++c) {
        const float value = x[static_cast<size_t>(at + c)],
                    weight = w[static_cast<size_t>((n * args.channels + c) * 9 + t)];
        sum.exact += static_cast<double>(value) * weight;
        sum.chain = std::fma(value, weight, sum.chain);
      }
    }
    return sum;
  }
};

// The matrices of F(2x2, 3x3) with the magnitudes of their elements, of a square's columns and then
// of its rows, on magnitudes.
using Square = std::array<std::array<double, 4>, 4>;
using Line = std::array<double, 4>;
Line of_x(const Line& d) { return {d[0] + d[2], d[1] + d[2], d[2] + d[1], d[1] + d[3]}; }
Line of_weight(const Line& g) {
  const double sum = (g[0] + g[1] + g[2]) / 2;
  return {g[0], sum, sum, g[2]};
}
Line of_y(const Line& m) { return {m[0] + m[1] + m[2], m[1] + m[2] + m[3]}; }
Square both_ways(const Square& from, Line (*transform)(const Line&)) {
  Square half{}, to{};
  for (size_t j = 0; j < 4; ++j) {
    const Line column = transform({from[0][j], from[1][j], from[2][j], from[3][j]});
    for (size_t i = 0; i < 4; ++i) half[i][j] = column[i];
  }
  for (size_t i = 0; i < 4; ++i) to[i] = transform(half[i]);
  return to;
}

class FloatWinogradTest : public EveryIsa {};

TEST_P(FloatWinogradTest, RandomShapesHaveTheBitsOfTheScalarTableAndWriteNothingElse) {
  Random random(1);
  for (int i = 0; i < 150; ++i) {
    const FloatConvolution conv(random, random.integer(1, 90), random.integer(1, 90),
                                random.integer(1, 15), random.integer(1, 15), random.integer(1, 3),
                                random.integer(1, 3));
    const Guarded y = conv.run(kernels());
    ASSERT_SAME_BYTES(y, conv.run(table(Isa::scalar)))
        << " in case " << i << ": " << conv.describe();
  }
}

TEST_P(FloatWinogradTest, EveryChannelCountAroundTheVectorsHasTheScalarTablesBits) {
  Random random(2);
  for (int64_t c = 1; c <= 70; ++c) {
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>(c, 3), {3, c}}) {
      const FloatConvolution conv(random, in, out, 7, 6);
      const Guarded y = conv.run(kernels());
      ASSERT_SAME_BYTES(y, conv.run(table(Isa::scalar))) << conv.describe();
    }
  }
}

TEST_P(FloatWinogradTest, AnySplitGivesTheSameBits) {
  Random random(3);
  // More steps of k than a product takes at a time, more tiles than a block has.
  for (const int64_t channels : {20, 600}) {
    const FloatConvolution conv(random, channels, channels == 20 ? 150 : 40, 21, 19);
    const Guarded whole = conv.run(kernels());
    for (const int64_t step : {1, 5, 7, 40})
      for (const int64_t columns : {1, 2}) {
        const Guarded y = conv.run(kernels(), step, columns);
        ASSERT_SAME_BYTES(y, whole) << step << " tiles, " << columns << " columns";
      }
  }
}

// With |A|, |B| and |G| for the matrices' magnitudes, and so many roundings at most on the way of a
// product to its result (2 of x's transform, 4 of the weight's, 4 of y's, a chain of c steps that
// begins with a bias), the error is at most
//  (c + 11) 2^-24 |A|^T [(|G| |g| |G|^T) * (|B|^T |d| |B|) + bias] |A|
// (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1).
TEST_P(FloatWinogradTest, ErrorsAreWithinTheAlgorithmsBound) {
  Random random(4);
  for (int i = 0; i < 20; ++i) {
    FloatConvolution conv(random, random.integer(1, 100), 8, random.integer(3, 9),
                          random.integer(3, 9), random.integer(1, 2), random.integer(1, 2));
    conv.args.lo = -INFINITY, conv.args.hi = INFINITY;
    const WinogradImages& g = conv.args;
    const Guarded y = conv.run(kernels());
    for (const WinogradTile& tile : conv.images.tiles)
      for (int64_t n = 0; n < conv.args.n; ++n) {
        Square m{};
        if (conv.args.bias) m[1][1] = std::abs(conv.bias[static_cast<size_t>(n)]);
        for (int64_t c = 0; c < g.channels; ++c) {
          Square d{}, w{};
          for (int64_t k = 0; k < 16; ++k) {
            const int64_t row = tile.y - g.top + k / 4 * g.dilation_h,
                          column = tile.x - g.left + k % 4 * g.dilation_w;
            const auto r = static_cast<size_t>(k / 4), s = static_cast<size_t>(k % 4);
            if (row >= 0 && row < g.h && column >= 0 && column < g.w)
              d[r][s] = std::abs(conv.x[static_cast<size_t>(
                  ((tile.image * g.h + row) * g.w + column) * g.channels + c)]);
            if (r < 3 && s < 3)
              w[r][s] = std::abs(
                  conv.w[static_cast<size_t>((n * g.channels + c) * 9 + k / 4 * 3 + k % 4)]);
          }
          d = both_ways(d, of_x);
          w = both_ways(w, of_weight);
          for (size_t k = 0; k < 16; ++k) m[k / 4][k % 4] += d[k / 4][k % 4] * w[k / 4][k % 4];
        }
        m = both_ways(m, of_y);
        for (int64_t k = 0; k < 4; ++k) {
          const int64_t row = tile.y + k / 2 * g.dilation_h, column = tile.x + k % 2 * g.dilation_w;
          if (row >= g.oh || column >= g.ow) continue;
          const int64_t p = (tile.image * g.oh + row) * g.ow + column;
          const auto got = y.get<float>(static_cast<size_t>(p * conv.args.ldc + n));
          const double bound = static_cast<double>(g.channels + 11) * 0x1p-24 * 1.001 *
                               m[static_cast<size_t>(k / 2)][static_cast<size_t>(k % 2)];
          ASSERT_NEAR(got, conv.direct(p, n).exact, bound) << conv.describe() << ", pixel " << p;
        }
      }
  }
}

// Chains are a ninth as long as those of the matrix product, which makes up for the transforms.
TEST_P(FloatWinogradTest, ErrorsAreOnAverageBelowThoseOfTheMatrixProduct) {
  Random random(5);
  for (const float least : {-1.0f, 0.0f})  // 0: as behind a relu
    for (const int64_t channels : {16, 64, 256}) {
      FloatConvolution conv(random, channels, 16, 12, 12);
      for (float& v : conv.x) v = random.real(least, 1);
      for (float& v : conv.w) v = random.real(-1, 1);
      conv.args.bias = nullptr;
      conv.args.lo = -INFINITY, conv.args.hi = INFINITY;
      const Guarded y = conv.run(kernels());
      double winograd = 0, chain = 0;
      for (int64_t p = 0; p < conv.images.pixels(conv.args); ++p)
        for (int64_t n = 0; n < conv.args.n; ++n) {
          const auto got = y.get<float>(static_cast<size_t>(p * conv.args.ldc + n));
          const auto expected = conv.direct(p, n);
          winograd += std::pow(got - expected.exact, 2);
          chain += std::pow(expected.chain - expected.exact, 2);
        }
      EXPECT_LT(std::sqrt(winograd / chain), 0.95) << channels << " channels from " << least;
    }
}

OCTET_FOR_EVERY_ISA(FloatWinogradTest);

}  // namespace
}  // namespace octet::kernels
