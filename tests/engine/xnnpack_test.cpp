// XNNPACK's kernels are octet's bits or they are not taken: random calls, extreme codes, scales and
// zero points among them, against the reference engine (or native, where that has no kernel).
#include <algorithm>

#include "tests/engine/random_calls.h"

namespace octet {
namespace {

using testing::Call;
using testing::call;
using testing::Generator;

template <typename Make>
int exact_calls(int cases, Make&& make) {
  return testing::exact_calls("xnnpack", cases, make);
}

// On Arm it has no mul, and no layers whose weights have zero points or are -128.
#if defined(__aarch64__)
constexpr int kShare = 5;
#else
constexpr int kShare = 1;
#endif
Tensor per_tensor_weight(Generator& g, const Shape& shape) {
  Tensor w = g.weight(shape);
  if (kShare != 1 && w.dtype() == DType::qint8)
    std::replace(w.data<int8_t>(), w.data<int8_t>() + w.numel(), int8_t{-128}, int8_t{-127});
  return w;
}

Call conv(Generator& g, int64_t in, int64_t out, int64_t groups, int64_t largest) {
  const int64_t kh = g.integer(1, largest), kw = g.integer(1, largest), dh = g.integer(1, 2),
                dw = g.integer(1, 2);
  const Attrs attrs{{"stride", std::vector<int64_t>{g.integer(1, 3), g.integer(1, 3)}},
                    {"padding", std::vector<int64_t>{g.integer(0, 2), g.integer(0, 2),
                                                     g.integer(0, 2), g.integer(0, 2)}},
                    {"dilation", std::vector<int64_t>{dh, dw}},
                    {"groups", groups},
                    {"activation", g.activation_name()}};
  const Tensor x = g.activation({g.integer(1, 3), in * groups, dh * (kh - 1) + g.integer(1, 7),
                                 dw * (kw - 1) + g.integer(1, 7)},
                                g.dtype());
  return call("conv2d", {x, per_tensor_weight(g, {out * groups, in, kh, kw}), g.bias(out * groups)},
              attrs, g.result(x.dtype()), true);
}

}  // namespace

TEST(Xnnpack, Conv2dIsExact) {
  EXPECT_GT(exact_calls(600,
                        [](Generator& g) {
                          return conv(g, g.integer(1, 20), g.integer(1, 40), g.integer(1, 3), 4);
                        }),
            300 / kShare);
}

TEST(Xnnpack, DepthwiseConv2dIsExact) {
  EXPECT_GT(exact_calls(400, [](Generator& g) { return conv(g, 1, 1, g.integer(2, 100), 5); }),
            100 / kShare);
}

TEST(Xnnpack, LinearIsExact) {
  EXPECT_GT(
      exact_calls(800,
                  [](Generator& g) {
                    const int64_t in = g.integer(1, 300), out = g.integer(1, 80);
                    const Shape shape = g.chance(0.3) ? Shape{g.integer(1, 4), g.integer(1, 5), in}
                                                      : Shape{g.integer(1, 30), in};
                    const Tensor x = g.activation(shape, g.dtype());
                    return call("linear", {x, per_tensor_weight(g, {out, in}), g.bias(out)},
                                {{"activation", g.activation_name()}}, g.result(x.dtype()), true);
                  }),
      400 / kShare);
}

TEST(Xnnpack, MulIsExact) {
  if (kShare != 1) GTEST_SKIP() << "there is none";
  EXPECT_GT(exact_calls(1000,
                        [](Generator& g) {
                          const Shape shape{g.integer(1, 4), g.integer(1, 500)};
                          const DType t = g.dtype();
                          // Powers of two among the scales: ties.
                          auto q = [&] {
                            return g.chance(0.5)
                                       ? g.quantizer(t)
                                       : Quantizer::per_tensor(
                                             std::ldexp(1.0, static_cast<int>(g.integer(-8, 0))),
                                             g.code(t, 0.2), t);
                          };
                          return call("mul", {g.codes(shape, t, q()), g.codes(shape, t, q())},
                                      {{"activation", g.activation_name()}}, ops::QType{t, q()},
                                      false);
                        }),
            500);
}

TEST(Xnnpack, ClampsAreExact) {
  EXPECT_GT(
      exact_calls(
          600,
          [](Generator& g) {
            const Tensor x = g.activation({g.integer(1, 4), g.integer(1, 500)}, g.dtype());
            const ops::QType same{x.dtype(), x.quantizer()};
            if (g.chance(0.4)) return call("relu", {x}, {}, same, false);
            if (g.chance(0.5)) return call("relu6", {x}, {}, same, false);
            const double lo = -g.scale(-2, 2);
            return call("clamp", {x}, {{"min", lo}, {"max", lo + g.scale(-2, 2)}}, same, false);
          }),
      200);
}

TEST(Xnnpack, MaxPool2dIsExact) {
  EXPECT_GT(
      exact_calls(
          600,
          [](Generator& g) {
            const int64_t kh = g.integer(1, 4), kw = g.integer(1, 4),
                          dilation = g.chance(0.8) ? 1 : 2;
            const Tensor x = g.activation(
                {g.integer(1, 3), g.integer(1, 70), dilation * (kh - 1) + g.integer(1, 8),
                 dilation * (kw - 1) + g.integer(1, 8)},
                g.dtype());
            const Attrs attrs{
                {"kernel", std::vector<int64_t>{kh, kw}},
                {"stride", std::vector<int64_t>{g.integer(1, 3), g.integer(1, 3)}},
                {"padding", std::vector<int64_t>{g.integer(0, kh / 2), g.integer(0, kw / 2),
                                                 g.integer(0, kh / 2), g.integer(0, kw / 2)}},
                {"dilation", std::vector<int64_t>{dilation, dilation}},
                {"ceil_mode", g.chance(0.2)}};
            return call("max_pool2d", {x}, attrs, ops::QType{x.dtype(), x.quantizer()}, false);
          }),
      200);
}

// What it would round otherwise, or would not hold, is left to the others.
TEST(Xnnpack, WhatWouldNotBeExactIsNotTaken) {
  const auto q = Quantizer::per_tensor(0.1, 7, DType::quint8);
  const ops::QType want{DType::quint8, q};
  Generator g(1);
  const Tensor x = g.codes({1, 4, 6, 6}, DType::quint8, q);
  const Engine& engine = find_engine("qnnpack");
  EXPECT_EQ(engine.name(), "xnnpack");
  EXPECT_EQ(engine.make(call("add", {x, x}, {}, want, false).spec), nullptr);
  const Attrs pool{{"kernel", std::vector<int64_t>{2, 2}}, {"stride", std::vector<int64_t>{2, 2}}};
  EXPECT_EQ(engine.make(call("avg_pool2d", {x}, pool, want, false).spec), nullptr);
  EXPECT_NE(engine.make(call("max_pool2d", {x}, pool, want, false).spec), nullptr);
  // A bias that no int32 holds.
  const Tensor row = g.codes({1, 8}, DType::quint8, q),
               w = g.codes({2, 8}, DType::qint8, Quantizer::per_tensor(0.01, 0, DType::qint8));
  const auto linear = [&](float bias) {
    return engine.make(call("linear", {row, w, Tensor::full({2}, bias)}, {}, want, true).spec);
  };
  EXPECT_NE(linear(1.0f), nullptr);
  EXPECT_EQ(linear(1e8f), nullptr);
}

}  // namespace octet
