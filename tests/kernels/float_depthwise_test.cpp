#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

// A depthwise convolution in float over one image, H x W x channels, with all its operands. Sums
// are one chain per channel in the order of the taps, from the bias on: their bits are defined.
struct FloatDepthwise {
  std::vector<float> image, weights, bias, pad;
  std::vector<int32_t> offsets;
  FloatDepthwiseArgs args;
  int64_t pixels = 0;

  FloatDepthwise(Random& random, int64_t height, int64_t width, int64_t channels, int64_t kernel,
                 int64_t stride, int64_t padding) {
    const auto numbers = [&](int64_t n) {
      std::vector<float> values(static_cast<size_t>(n));
      for (float& v : values) v = static_cast<float>(random.integer(-4000, 4000)) / 1024;
      return values;
    };
    image = numbers(height * width * channels + 16);  // a buffer can be read beyond its end
    weights = numbers(kernel * kernel * channels);
    pad.assign(static_cast<size_t>(channels), 0.0f);
    if (random.chance(0.7)) bias = numbers(channels);
    const int64_t out_h = (height + 2 * padding - kernel) / stride + 1,
                  out_w = (width + 2 * padding - kernel) / stride + 1;
    for (int64_t y = 0; y < out_h; ++y)
      for (int64_t x = 0; x < out_w; ++x)
        for (int64_t i = 0; i < kernel; ++i)
          for (int64_t j = 0; j < kernel; ++j) {
            const int64_t row = y * stride + i - padding, column = x * stride + j - padding;
            const bool inside = row >= 0 && row < height && column >= 0 && column < width;
            offsets.push_back(inside ? static_cast<int32_t>((row * width + column) * channels)
                                     : -1);
          }
    pixels = out_h * out_w;
    args = {.channels = channels,
            .taps = kernel * kernel,
            .a = image.data(),
            .offsets = offsets.data(),
            .pad = pad.data(),
            .weights = weights.data(),
            .ldc = channels + random.integer(0, 3),
            .bias = bias.empty() ? nullptr : bias.data()};
    if (random.chance(0.5)) args.lo = 0;
    if (random.chance(0.3)) args.hi = 6;
    if (kernel == 3 && stride <= 2 && random.chance(0.8)) args.slide = stride, args.width = out_w;
  }

  Guarded output() const { return Guarded(static_cast<size_t>(pixels * args.ldc) * sizeof(float)); }

  Guarded expected() const {
    Guarded y = output();
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t c = 0; c < args.channels; ++c) {
        float sum = args.bias ? args.bias[c] : 0.0f;
        for (int64_t t = 0; t < args.taps; ++t) {
          const int32_t offset = offsets[static_cast<size_t>(p * args.taps + t)];
          const float x = offset < 0 ? 0.0f : image[static_cast<size_t>(offset + c)];
          sum = std::fma(x, weights[static_cast<size_t>(t * args.channels + c)], sum);
        }
        y.put(static_cast<size_t>(p * args.ldc + c), std::clamp(sum + 0.0f, args.lo, args.hi));
      }
    return y;
  }

  // In runs of `step` pixels.
  Guarded run(const KernelTable& kernels, int64_t step) const {
    Guarded y = output();
    FloatDepthwiseArgs d = args;
    d.c = y.as<float>();
    for (int64_t p = 0; p < pixels; p += step)
      kernels.float_depthwise(d, p, std::min(pixels, p + step));
    return y;
  }
};

class FloatDepthwiseTest : public EveryIsa {};

TEST_P(FloatDepthwiseTest, WindowsThatSlideHaveTheBitsOfOneChain) {
  Random random(1);
  for (const int64_t stride : {1, 2})
    for (int64_t width = 3; width < 40; ++width)
      for (const int64_t channels : {1, 7, 8, 16, 21, 40}) {
        const FloatDepthwise conv(random, random.integer(3, 5), width, channels, 3, stride,
                                  random.integer(0, 1));
        ASSERT_SAME_BYTES(conv.run(kernels(), random.one_of<int64_t>({1, 5, 1000})),
                          conv.expected())
            << " width " << width << ", stride " << stride << ", channels " << channels;
      }
}

TEST_P(FloatDepthwiseTest, WindowsOfAnySizeHaveTheBitsOfOneChain) {
  Random random(2);
  for (int i = 0; i < 150; ++i) {
    const int64_t kernel =
        random.one_of<int64_t>({1, 2, 3, 5, 7, 9});  // 81 taps: in their own loop
    const FloatDepthwise conv(random, random.integer(kernel, 12), random.integer(kernel, 12),
                              random.integer(1, 70), kernel, random.integer(1, 3),
                              random.integer(0, kernel / 2));
    ASSERT_SAME_BYTES(conv.run(kernels(), random.one_of<int64_t>({1, 3, 1000})), conv.expected())
        << " case " << i << ", " << kernel << "x" << kernel << ", " << conv.args.channels
        << " channels";
  }
}

OCTET_FOR_EVERY_ISA(FloatDepthwiseTest);

}  // namespace
}  // namespace octet::kernels
