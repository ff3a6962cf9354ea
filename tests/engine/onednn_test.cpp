// oneDNN's kernels of codes are octet's bits or they are not taken: random calls, extreme codes,
// scales and zero points among them, against the reference engine. ctest runs these tests once more
// for each of oneDNN's older instruction sets (tests/CMakeLists.txt).
#include <dnnl.hpp>

#include "octet/base/parallel.h"
#include "tests/engine/defaults.h"
#include "tests/engine/random_calls.h"

namespace octet {
namespace {

using testing::Call;
using testing::call;
using testing::Generator;

// Whether oneDNN multiplies bytes without sums of 16 bits in between.
bool has_vnni() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto vnni = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_vnni);
  return (isa & vnni) == vnni;
}

// Without VNNI only small weights are taken, which every third case has.
void expect_exact(int cases, int least_taken, int least_without_vnni,
                  const std::function<Call(Generator&)>& make) {
  testing::Defaults defaults;
  for (const Isa isa : supported_isas()) {
    set_isa(isa);
    set_num_threads(isa == Isa::scalar ? 1 : 2);
    const int taken = testing::exact_calls("onednn", isa == Isa::scalar ? cases / 4 : cases, make);
    if (isa != Isa::scalar) {
      EXPECT_GE(taken, has_vnni() ? least_taken : least_without_vnni);
    }
    if (::testing::Test::HasFailure()) return;
  }
}

// Of every third case the codes are -64..64, two products of which fit 16 bits.
Tensor weight(Generator& g, const Shape& shape, size_t axis = 0) {
  Tensor w = g.weight(shape, axis);
  if (!g.chance(0.34)) return w;
  auto* codes = static_cast<uint8_t*>(w.raw_data());
  const int64_t middle = w.dtype() == DType::qint8 ? 0 : 128;
  for (int64_t i = 0; i < w.numel(); ++i)
    codes[i] = static_cast<uint8_t>(middle + g.integer(-64, 64));
  return w;
}

std::vector<int64_t> several(Generator& g, size_t count, int64_t lo, int64_t hi) {
  std::vector<int64_t> values;
  for (size_t i = 0; i < count; ++i) values.push_back(g.integer(lo, hi));
  return values;
}

// A convolution of `spatial` dimensions; `in` and `out` channels of a group.
Call conv(Generator& g, size_t spatial, int64_t in, int64_t out, int64_t groups, int64_t largest) {
  const auto kernel = several(g, spatial, 1, largest), dilation = several(g, spatial, 1, 2);
  const Attrs attrs{{"stride", several(g, spatial, 1, 3)},
                    {"padding", several(g, 2 * spatial, 0, 2)},
                    {"dilation", dilation},
                    {"groups", groups},
                    {"activation", g.activation_name()}};
  Shape x{g.integer(1, 3), in * groups}, w{out * groups, in};
  for (size_t d = 0; d < spatial; ++d) {
    x.push_back(dilation[d] * (kernel[d] - 1) + g.integer(1, 7));
    w.push_back(kernel[d]);
  }
  const Tensor image = g.activation(x, g.dtype());
  return call("conv" + std::to_string(spatial) + "d", {image, weight(g, w), g.bias(out * groups)},
              attrs, g.result(image.dtype()), true);
}

Call transposed_conv(Generator& g, size_t spatial) {
  const int64_t groups = g.integer(1, 3), in = g.integer(1, 20), out = g.integer(1, 20);
  const auto kernel = several(g, spatial, 1, 3), stride = several(g, spatial, 1, 3);
  std::vector<int64_t> more;
  for (int64_t s : stride) more.push_back(g.integer(0, s - 1));
  const Attrs attrs{{"stride", stride},       {"padding", several(g, 2 * spatial, 0, 1)},
                    {"output_padding", more}, {"dilation", several(g, spatial, 1, 2)},
                    {"groups", groups},       {"activation", g.activation_name()}};
  Shape x{g.integer(1, 2), in * groups}, w{in * groups, out};
  for (size_t d = 0; d < spatial; ++d) {
    x.push_back(g.integer(3, 6));
    w.push_back(kernel[d]);
  }
  const Tensor image = g.activation(x, g.dtype());
  return call("conv_transpose" + std::to_string(spatial) + "d",
              {image, weight(g, w, 1), g.bias(out * groups)}, attrs, g.result(image.dtype()), true);
}

Call linear(Generator& g, bool dynamic) {
  const int64_t in = g.integer(1, 300), out = g.integer(1, 80);
  const Shape shape =
      g.chance(0.3) ? Shape{g.integer(1, 4), g.integer(1, 5), in} : Shape{g.integer(1, 30), in};
  const Tensor x = g.activation(shape, g.dtype()), w = weight(g, {out, in}), bias = g.bias(out);
  Attrs attrs{{"activation", g.activation_name()}};
  if (!dynamic) return call("linear", {x, w, bias}, attrs, g.result(x.dtype()), true);
  attrs.set("reduce_range", g.chance(0.3));
  return call("linear_dynamic", {x.dequantize(), w, bias}, attrs, std::nullopt, true);
}

}  // namespace

TEST(OneDnn, Conv2dIsExact) {
  expect_exact(500, 200, 50,
               [](Generator& g) { return conv(g, 2, g.integer(1, 40), g.integer(1, 40), 1, 4); });
}

TEST(OneDnn, PointwiseConv2dIsExact) {
  expect_exact(300, 120, 30,
               [](Generator& g) { return conv(g, 2, g.integer(1, 140), g.integer(1, 140), 1, 1); });
}

TEST(OneDnn, GroupedConv2dIsExact) {
  expect_exact(300, 120, 30, [](Generator& g) {
    return conv(g, 2, g.integer(1, 17), g.integer(1, 17), g.integer(2, 5), 3);
  });
}

TEST(OneDnn, DepthwiseConv2dIsExact) {
  expect_exact(400, 160, 40, [](Generator& g) { return conv(g, 2, 1, 1, g.integer(2, 100), 5); });
  // several outputs of each input channel
  expect_exact(200, 80, 20,
               [](Generator& g) { return conv(g, 2, 1, g.integer(2, 4), g.integer(2, 40), 3); });
}

TEST(OneDnn, Conv1dAndConv3dAreExact) {
  expect_exact(200, 80, 20, [](Generator& g) {
    return conv(g, 1, g.integer(1, 20), g.integer(1, 20), g.integer(1, 3), 5);
  });
  expect_exact(150, 60, 15, [](Generator& g) {
    return conv(g, 3, g.integer(1, 10), g.integer(1, 10), g.integer(1, 3), 3);
  });
}

TEST(OneDnn, TransposedConvIsExact) {
  expect_exact(200, 60, 15, [](Generator& g) { return transposed_conv(g, 2); });
  expect_exact(60, 15, 4, [](Generator& g) { return transposed_conv(g, 1); });
  expect_exact(60, 15, 4, [](Generator& g) { return transposed_conv(g, 3); });
}

TEST(OneDnn, LinearIsExact) {
  expect_exact(600, 400, 80, [](Generator& g) { return linear(g, false); });
}

TEST(OneDnn, DynamicLinearIsExact) {
  expect_exact(600, 400, 80, [](Generator& g) { return linear(g, true); });
}

TEST(OneDnn, MatmulIsExact) {
  expect_exact(400, 200, 0, [](Generator& g) {
    const int64_t m = g.integer(1, 40), k = g.integer(1, 200), n = g.integer(1, 60);
    Shape a{m, k}, b{k, n};
    for (int64_t i = g.integer(0, 2); i > 0; --i) {
      const int64_t batch = g.integer(1, 4);
      a.insert(a.begin(), batch);
      b.insert(b.begin(), batch);
    }
    const Tensor x = g.activation(a, g.dtype());
    return call("matmul", {x, g.activation(b, g.dtype())}, {}, g.result(x.dtype()), false);
  });
}

TEST(OneDnn, MaxPoolIsExact) {
  expect_exact(400, 200, 200, [](Generator& g) {
    const size_t spatial = g.chance(0.7) ? 2 : 3;
    const auto kernel = several(g, spatial, 1, 4), dilation = several(g, spatial, 1, 2);
    Shape x{g.integer(1, 3), g.integer(1, 70)};
    std::vector<int64_t> padding;
    for (size_t d = 0; d < 2 * spatial; ++d)
      padding.push_back(g.integer(0, kernel[d % spatial] / 2));
    for (size_t d = 0; d < spatial; ++d)
      x.push_back(dilation[d] * (kernel[d] - 1) + g.integer(1, 8));
    const Tensor image = g.activation(x, g.dtype());
    const ops::QType same{image.dtype(), image.quantizer()};
    if (g.chance(0.2)) {
      std::vector<int64_t> one(spatial, 1);
      return call("adaptive_max_pool" + std::to_string(spatial) + "d", {image},
                  {{"output_size", one}}, same, false);
    }
    const Attrs attrs{{"kernel", kernel},
                      {"stride", several(g, spatial, 1, 3)},
                      {"padding", padding},
                      {"dilation", dilation},
                      {"ceil_mode", g.chance(0.2)}};
    return call("max_pool" + std::to_string(spatial) + "d", {image}, attrs, same, false);
  });
}

// Sums beyond 2^24, which float32 does not hold: those of products are whole, a convolution's are
// not, which is therefore left to others.
TEST(OneDnn, SumsThatFloatsDoNotHoldAreExactOrNotTaken) {
#if defined(__x86_64__)
  constexpr bool kWhole = true;
#else
  constexpr bool kWhole = false;  // its plainest kernels add up in float32
#endif
  Generator g(1);
  const auto q = Quantizer::per_tensor(0.1, 0, DType::quint8);
  const auto qw = Quantizer::per_tensor(0.01, 0, DType::qint8);
  const ops::QType want{DType::quint8, Quantizer::per_tensor(300, 3, DType::quint8)};
  for (const int64_t k : {500, 600, 4096, 33000}) {
    const auto filled = [&](Shape shape, DType t, const QuantizerPtr& quantizer, int64_t most) {
      Tensor x = Tensor::empty(shape, t, quantizer);
      for (int64_t i = 0; i < x.numel(); ++i)
        static_cast<uint8_t*>(x.raw_data())[i] = static_cast<uint8_t>(most - g.integer(0, 1));
      return x;
    };
    const Tensor x = filled({3, k}, DType::quint8, q, 255),
                 w = filled({5, k}, DType::qint8, qw, 64);
    const Tensor large = filled({5, k}, DType::qint8, qw, 127);
    const ops::QType y{DType::quint8, Quantizer::per_tensor(0.1 * 0.01 * 64 * k, 3, DType::quint8)};
    EXPECT_EQ(testing::exact_calls("onednn", 1,
                                   [&](Generator&) {
                                     return call("linear", {x, w}, {}, y, true);
                                   }),
              kWhole || 64 * k * 255 <= 1 << 24 ? 1 : 0)
        << k;
    EXPECT_EQ(testing::exact_calls("onednn", 1,
                                   [&](Generator&) {
                                     return call("linear", {x, large}, {}, y, true);
                                   }),
              has_vnni() ? 1 : 0)
        << k;
    const Tensor columns = filled({k, 7}, DType::qint8, qw, 127);
    EXPECT_EQ(testing::exact_calls("onednn", 1,
                                   [&](Generator&) {
                                     return call("matmul", {x, columns}, {}, y, false);
                                   }),
              has_vnni() ? 1 : 0)
        << k;
    const Tensor image = filled({1, k, 2, 2}, DType::quint8, q, 255);
    EXPECT_EQ(
        testing::exact_calls("onednn", 1,
                             [&](Generator&) {
                               return call("conv2d", {image, w.reshape({5, k, 1, 1})}, {}, y, true);
                             }),
        64 * k * 255 <= 1 << 24 ? 1 : 0)
        << k;
  }
}

// What would not be exact is left to the others: two products that saturate 16 bits, sums that
// leave int32, weights' zero points in windows, averages.
TEST(OneDnn, WhatWouldNotBeExactIsNotTaken) {
  Generator g(1);
  const auto q = Quantizer::per_tensor(0.1, 7, DType::quint8);
  const ops::QType want{DType::quint8, q};
  const Engine& engine = find_engine("onednn");
  const Tensor row = g.codes({1, 8}, DType::quint8, q);
  const auto linear = [&](int8_t first, int8_t second, float bias) {
    Tensor w = Tensor::empty({2, 8}, DType::qint8, Quantizer::per_tensor(0.01, 0, DType::qint8));
    std::fill_n(w.data<int8_t>(), 16, int8_t{0});
    w.data<int8_t>()[8] = first;
    w.data<int8_t>()[15] = second;
    return engine.make(call("linear", {row, w, Tensor::full({2}, bias)}, {}, want, true).spec);
  };
  EXPECT_NE(linear(64, 64, 1.0f), nullptr);
  EXPECT_NE(linear(127, -127, 1.0f), nullptr);
  EXPECT_NE(linear(-128, 0, 1.0f), nullptr);
  EXPECT_EQ(linear(65, 64, 1.0f) != nullptr, has_vnni());
  EXPECT_EQ(linear(-65, -64, 1.0f) != nullptr, has_vnni());
  EXPECT_EQ(linear(1, 1, 1e8f), nullptr);  // no int32 holds the bias

  const Tensor x = g.codes({1, 4, 6, 6}, DType::quint8, q);
  const auto conv = [&](int64_t zero_point) {
    Tensor w = Tensor::empty({2, 4, 3, 3}, DType::qint8,
                             Quantizer::per_tensor(0.01, zero_point, DType::qint8));
    std::fill_n(w.data<int8_t>(), w.numel(), int8_t{5});
    return engine.make(call("conv2d", {x, w}, {}, want, true).spec);
  };
  EXPECT_NE(conv(0), nullptr);
  EXPECT_EQ(conv(1), nullptr);
  const Attrs pool{{"kernel", std::vector<int64_t>{2, 2}}, {"stride", std::vector<int64_t>{2, 2}}};
  EXPECT_EQ(engine.make(call("avg_pool2d", {x}, pool, want, false).spec), nullptr);
  EXPECT_NE(engine.make(call("max_pool2d", {x}, pool, want, false).spec), nullptr);
}

}  // namespace octet
