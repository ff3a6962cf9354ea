// Float inference gives the bits of the reference engine's chains of multiply-adds on every
// instruction set, with every number of threads, for every batch. A failing case names its seed.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <limits>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"
#include "octet/engine/engine.h"
#include "octet/ops/op.h"
#include "tests/engine/defaults.h"
#include "tests/engine/slack.h"

namespace octet {
namespace {

using testing::Defaults;

struct FloatCase {
  std::string op;
  std::vector<Tensor> inputs;
  Attrs attrs;
};

class FloatGenerator {
 public:
  explicit FloatGenerator(uint64_t seed) : random_(seed) {}
  int64_t integer(int64_t lo, int64_t hi) { return random_.integer(lo, hi); }
  bool chance(double p) { return random_.uniform() < p; }
  // Values of many magnitudes, whose sums cancel and underflow now and then; zeros of both signs.
  Tensor floats(const Shape& shape) {
    Tensor t = Tensor::empty(shape);
    auto* x = t.data<float>();
    const double spread = chance(0.3) ? 20 : 1;
    for (int64_t i = 0; i < t.numel(); ++i) {
      const double magnitude = std::pow(10.0, random_.uniform(-spread, 1));
      x[i] = static_cast<float>(chance(0.05)  ? (chance(0.5) ? 0.0 : -0.0)
                                : chance(0.5) ? magnitude
                                              : -magnitude);
    }
    return t.dim() == 4 && chance(0.5) ? t.contiguous(MemoryFormat::channels_last) : t;
  }
  Tensor bias(int64_t n) { return chance(0.3) ? Tensor() : floats({n}); }
  std::string activation() { return chance(0.6) ? "none" : chance(0.6) ? "relu" : "relu6"; }
  std::vector<int64_t> integers(size_t n, int64_t lo, int64_t hi) {
    std::vector<int64_t> v(n);
    for (int64_t& i : v) i = integer(lo, hi);
    return v;
  }

 private:
  Random random_;
};

void expect_exact_floats(int cases, const std::function<FloatCase(FloatGenerator&)>& make) {
  Defaults defaults;
  for (int seed = 0; seed < cases; ++seed) {
    FloatGenerator g(seed);
    const FloatCase c = make(g);
    set_engine("reference");
    const auto expected = ops::call_all(c.op, c.inputs, c.attrs);
    set_engine("native");
    set_num_threads(1 + seed / 50 % 3);
    for (Isa isa : supported_isas()) {
      set_isa(isa);
      testing::fill_slack(c.inputs, 255);  // of floats: NaN
      const auto got = ops::call_all(c.op, c.inputs, c.attrs);
      ASSERT_TRUE(equal(got[0], expected[0]))
          << c.op << ", seed " << seed << ", " << to_string(isa) << ", " << num_threads()
          << " threads: x " << to_string(c.inputs[0].type()) << ", y "
          << to_string(expected[0].type());
    }
  }
}

// Sizes of an image that a window of these sizes fits.
Shape image(FloatGenerator& g, int64_t channels, const std::vector<int64_t>& kernel,
            const std::vector<int64_t>& dilation) {
  Shape shape{g.integer(1, 3), channels};
  for (size_t d = 0; d < kernel.size(); ++d)
    shape.push_back(std::max<int64_t>(dilation[d] * (kernel[d] - 1) + 1,
                                      g.integer(1, kernel.size() == 2 ? 9 : 5)));
  return shape;
}

FloatCase conv(FloatGenerator& g, size_t spatial, int64_t in, int64_t out, int64_t groups) {
  const auto kernel = g.integers(spatial, 1, 3), dilation = g.integers(spatial, 1, 2);
  const Shape x = image(g, in * groups, kernel, dilation);
  Shape w{out * groups, in};
  w.insert(w.end(), kernel.begin(), kernel.end());
  return {fmt::format("conv{}d", spatial),
          {g.floats(x), g.floats(w), g.bias(out * groups)},
          {{"stride", g.integers(spatial, 1, 3)},
           {"padding", g.integers(2 * spatial, 0, 2)},
           {"dilation", dilation},
           {"groups", groups},
           {"activation", g.activation()}}};
}

FloatCase transposed(FloatGenerator& g, size_t spatial) {
  const int64_t groups = g.integer(1, 3), in = g.integer(1, 5),
                out = g.chance(0.3) ? 1 : g.integer(1, 40);
  const auto kernel = g.integers(spatial, 1, 3), stride = g.integers(spatial, 1, 3);
  std::vector<int64_t> output_padding;
  for (int64_t s : stride) output_padding.push_back(g.integer(0, s - 1));
  Shape x{g.integer(1, 2), in * groups}, w{in * groups, out};
  for (int64_t k : kernel) {
    x.push_back(g.integer(3, 6));
    w.push_back(k);
  }
  return {fmt::format("conv_transpose{}d", spatial),
          {g.floats(x), g.floats(w), g.bias(out * groups)},
          {{"stride", stride},
           {"padding", g.integers(2 * spatial, 0, 1)},
           {"output_padding", output_padding},
           {"dilation", g.integers(spatial, 1, 2)},
           {"groups", groups},
           {"activation", g.activation()}}};
}

TEST(FloatExactness, Conv2d) {
  expect_exact_floats(
      300, [](FloatGenerator& g) { return conv(g, 2, g.integer(1, 40), g.integer(1, 70), 1); });
}
// Around the fewest channels and the smallest images that go by Winograd's algorithm.
TEST(FloatExactness, Conv2dOf3x3) {
  expect_exact_floats(200, [](FloatGenerator& g) {
    const auto dilation = g.integers(2, 1, 3);
    const int64_t in = g.integer(14, 40), out = g.integer(14, 70);
    return FloatCase{
        "conv2d",
        {g.floats(image(g, in, {3, 3}, dilation)), g.floats({out, in, 3, 3}), g.bias(out)},
        {{"padding", g.integers(4, 0, 4)}, {"dilation", dilation}, {"activation", g.activation()}}};
  });
}
TEST(FloatExactness, GroupedAndDepthwiseConv2d) {
  expect_exact_floats(300, [](FloatGenerator& g) {
    return g.chance(0.5) ? conv(g, 2, 1, 1, g.integer(1, 80))
                         : conv(g, 2, g.integer(1, 6), g.integer(1, 20), g.integer(1, 4));
  });
}
TEST(FloatExactness, WideDepthwiseWindows) {  // more taps than the kernel keeps addresses of
  expect_exact_floats(20, [](FloatGenerator& g) {
    const int64_t c = g.integer(1, 40);
    return FloatCase{"conv2d",
                     {g.floats({1, c, 11, 11}), g.floats({c, 1, 9, 9}), g.bias(c)},
                     {{"padding", std::vector<int64_t>(4, 4)}, {"groups", c}}};
  });
}
TEST(FloatExactness, Conv3d) {
  expect_exact_floats(100, [](FloatGenerator& g) {
    return conv(g, 3, g.integer(1, 5), g.integer(1, 20), g.integer(1, 2));
  });
}
TEST(FloatExactness, ConvTranspose2d) {
  expect_exact_floats(300, [](FloatGenerator& g) { return transposed(g, 2); });
}
TEST(FloatExactness, ConvTranspose3d) {
  expect_exact_floats(60, [](FloatGenerator& g) { return transposed(g, 3); });
}
TEST(FloatExactness, Linear) {
  expect_exact_floats(300, [](FloatGenerator& g) {
    const int64_t n = g.chance(0.2) ? g.integer(100, 300) : g.integer(1, 80), k = g.integer(1, 100);
    return FloatCase{"linear",
                     {g.floats({g.chance(0.5) ? g.integer(1, 4) : g.integer(1, 40), k}),
                      g.floats({n, k}), g.bias(n)},
                     {{"activation", g.activation()}}};
  });
}
TEST(FloatExactness, Matmul) {
  expect_exact_floats(300, [](FloatGenerator& g) {
    const int64_t m = g.integer(1, 30), k = g.integer(1, 50), n = g.integer(1, 70),
                  b = g.integer(1, 3), h = g.integer(1, 3);
    const Shape batch = g.chance(0.5) ? Shape{b, h} : Shape{};
    Shape x = batch, w = g.chance(0.3)                     ? Shape{}
                         : g.chance(0.3) && !batch.empty() ? Shape{1, h}
                                                           : batch;
    x.insert(x.end(), {m, k});
    w.insert(w.end(), {k, n});
    return FloatCase{"matmul", {g.floats(x), g.floats(w)}, {}};
  });
}
TEST(FloatExactness, Pools) {
  expect_exact_floats(400, [](FloatGenerator& g) {
    const size_t spatial = g.chance(0.7) ? 2 : 3;
    const auto kernel = g.integers(spatial, 1, 3);
    const bool max = g.chance(0.5), adaptive = g.chance(0.3);
    const Tensor x = g.floats(image(g, g.integer(1, 70), kernel, std::vector<int64_t>(spatial, 1)));
    const std::string name = fmt::format("{}_pool{}d", max ? "max" : "avg", spatial);
    if (adaptive)
      return FloatCase{"adaptive_" + name, {x}, {{"output_size", g.integers(spatial, 1, 4)}}};
    std::vector<int64_t> pads;
    for (int64_t k : kernel) pads.push_back(g.integer(0, k / 2));
    pads.insert(pads.end(), pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(spatial));
    Attrs attrs{{"kernel", kernel},
                {"stride", g.integers(spatial, 1, 3)},
                {"padding", pads},
                {"ceil_mode", g.chance(0.5)}};
    if (!max) attrs.set("count_include_pad", g.chance(0.5));
    return FloatCase{name, {x}, attrs};
  });
}
TEST(FloatExactness, ArithmeticAndClamps) {
  expect_exact_floats(300, [](FloatGenerator& g) {
    const Shape shape{g.integer(1, 3), g.integer(1, 50)};
    if (g.chance(0.5))
      return FloatCase{g.chance(0.5) ? "add" : "mul",
                       {g.floats(shape), g.floats(shape)},
                       {{"activation", g.activation()}}};
    if (g.chance(0.5)) return FloatCase{g.chance(0.5) ? "relu" : "relu6", {g.floats(shape)}, {}};
    return FloatCase{"clamp",
                     {g.floats(shape)},
                     {{"min", g.chance(0.5) ? 0.5 : -1.0}, {"max", g.chance(0.5) ? -0.5 : 1.0}}};
  });
}

// The first image's result is the same alone and in a batch.
TEST(FloatExactness, ResultsDoNotDependOnTheBatch) {
  Defaults defaults;
  for (Isa isa : supported_isas()) {
    set_isa(isa);
    const Tensor x = Tensor::randn({5, 7, 9, 9}, 1), w = Tensor::randn({33, 7, 3, 3}, 2);
    const Attrs attrs{{"padding", std::vector<int64_t>(4, 1)}};
    EXPECT_TRUE(equal(ops::call("conv2d", {x, w}, attrs).slice(0, 0, 1),
                      ops::call("conv2d", {x.slice(0, 0, 1), w}, attrs)));
    const Tensor rows = Tensor::randn({29, 65}, 3), v = Tensor::randn({70, 65}, 4);
    EXPECT_TRUE(equal(ops::call("linear", {rows, v}).slice(0, 0, 1),
                      ops::call("linear", {rows.slice(0, 0, 1), v})));
  }
}

// A weight that is not finite must not make NaN of padding, nor of Winograd's differences.
TEST(FloatExactness, InfiniteWeightsMeetNoPadding) {
  Defaults defaults;
  for (const char* engine : {"native", "reference"})
    for (const int64_t channels : {1, 16}) {
      set_engine(engine);
      const Tensor w =
          Tensor::full({channels, channels, 3, 3}, std::numeric_limits<double>::infinity());
      const Tensor y = ops::call("conv2d", {Tensor::ones({1, channels, 4, 4}), w},
                                 {{"padding", std::vector<int64_t>(4, 1)}});
      for (float v : y.to_vector<float>())
        EXPECT_EQ(v, std::numeric_limits<float>::infinity()) << engine << ", " << channels;
    }
}

TEST(FloatExactness, ActivationsLetNanPass) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* engine : {"native", "reference"}) {
    Defaults defaults;
    set_engine(engine);
    const Tensor y =
        ops::call("linear", {Tensor::from<float>({nan}).reshape({1, 1}), Tensor::ones({3, 1})},
                  {{"activation", "relu"}});
    for (float v : y.to_vector<float>()) EXPECT_TRUE(std::isnan(v)) << engine;
  }
}

}  // namespace
}  // namespace octet
