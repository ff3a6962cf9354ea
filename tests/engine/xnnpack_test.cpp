// XNNPACK's kernels are octet's bits or they are not taken: random calls, extreme codes, scales and
// zero points among them, against the reference engine (or native, where that has no kernel).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/base/random.h"
#include "octet/engine/registry.h"
#include "octet/ops/op.h"

namespace octet {
namespace {

// One call and its operands; `packed` of them, from the second on, are constants.
struct Call {
  OpSpec spec;
  std::vector<Tensor> inputs;
};

Call call(const std::string& name, const std::vector<Tensor>& inputs, const Attrs& attrs,
          const ops::QType& want, bool constants) {
  const ops::Op& op = ops::get(name);
  std::vector<std::optional<TensorType>> types;
  std::vector<Tensor> known;
  for (size_t i = 0; i < inputs.size(); ++i) {
    types.push_back(inputs[i].defined() ? std::optional(inputs[i].type()) : std::nullopt);
    known.push_back(constants && i > 0 ? inputs[i] : Tensor());
  }
  const Attrs complete = op.complete(attrs);
  auto outputs = op.infer(types, complete, want, name);
  return {ops::make_spec(op, complete, types, std::move(known), std::move(outputs), name), inputs};
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}
  int64_t integer(int64_t lo, int64_t hi) { return random_.integer(lo, hi); }
  bool chance(double p) { return random_.uniform() < p; }
  double scale(double least = -3.5, double most = 0.5) {
    return static_cast<float>(std::pow(10.0, random_.uniform(least, most)));
  }
  DType dtype() { return chance(0.6) ? DType::quint8 : DType::qint8; }
  int64_t code(DType t, double extreme) {
    return chance(extreme) ? (chance(0.5) ? qmin(t) : qmax(t)) : integer(qmin(t), qmax(t));
  }
  Tensor codes(const Shape& shape, DType t, QuantizerPtr q) {
    Tensor x = Tensor::empty(shape, t, std::move(q));
    const double extreme = chance(0.3) ? 0.9 : 0.05;
    for (int64_t i = 0; i < x.numel(); ++i)
      static_cast<uint8_t*>(x.raw_data())[i] = static_cast<uint8_t>(code(t, extreme));
    return x;
  }
  QuantizerPtr quantizer(DType t) { return Quantizer::per_tensor(scale(), code(t, 0.2), t); }
  Tensor activation(const Shape& shape, DType t) { return codes(shape, t, quantizer(t)); }
  // Per tensor with any zero point, or per channel.
  Tensor weight(const Shape& shape) {
    const DType t = chance(0.8) ? DType::qint8 : DType::quint8;
    const int64_t middle = t == DType::qint8 ? 0 : 128;
    if (chance(0.5))
      return codes(shape, t,
                   Quantizer::per_tensor(scale(), chance(0.5) ? middle : code(t, 0.1), t));
    std::vector<double> scales;
    for (int64_t i = 0; i < shape[0]; ++i) scales.push_back(scale());
    return codes(shape, t,
                 Quantizer::per_channel(
                     scales, std::vector<int64_t>(static_cast<size_t>(shape[0]), middle), 0, t));
  }
  Tensor bias(int64_t n) {
    return chance(0.3) ? Tensor() : Tensor::rand({n}, random_.next(), -100, 100);
  }
  ops::QType result(DType t) { return {t, Quantizer::per_tensor(scale(-2, 3.5), code(t, 0.2), t)}; }
  std::string activation_name() { return chance(0.5) ? "none" : chance(0.7) ? "relu" : "relu6"; }

 private:
  Random random_;
};

// How many of the calls XNNPACK took; each of those must be exact.
template <typename Make>
int exact_calls(int cases, Make&& make) {
  int taken = 0;
  for (int seed = 0; seed < cases; ++seed) {
    Generator g(static_cast<uint64_t>(seed));
    const Call c = make(g);
    auto kernel = find_engine("xnnpack").make(c.spec);
    if (!kernel) continue;
    EXPECT_EQ(kernel->engine(), "xnnpack");
    ++taken;
    auto oracle = make_kernel(c.spec, "reference");
    if (!oracle) oracle = make_kernel(c.spec, "native");
    const Tensor want = run_kernel(*oracle, c.spec, c.inputs)[0];
    for (int again = 0; again < 2; ++again) {
      const Tensor got = run_kernel(*kernel, c.spec, c.inputs)[0];
      EXPECT_TRUE(equal(got, want))
          << c.spec.op << ", seed " << seed << ": x " << to_string(c.spec.inputs[0]) << ", y "
          << to_string(c.spec.outputs[0]);
      if (!equal(got, want)) return taken;
    }
  }
  return taken;
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
  return call("conv2d", {x, g.weight({out * groups, in, kh, kw}), g.bias(out * groups)}, attrs,
              g.result(x.dtype()), true);
}

}  // namespace

TEST(Xnnpack, Conv2dIsExact) {
  EXPECT_GT(exact_calls(600,
                        [](Generator& g) {
                          return conv(g, g.integer(1, 20), g.integer(1, 40), g.integer(1, 3), 4);
                        }),
            300);
}

TEST(Xnnpack, DepthwiseConv2dIsExact) {
  EXPECT_GT(exact_calls(400, [](Generator& g) { return conv(g, 1, 1, g.integer(2, 100), 5); }),
            100);
}

TEST(Xnnpack, LinearIsExact) {
  EXPECT_GT(
      exact_calls(800,
                  [](Generator& g) {
                    const int64_t in = g.integer(1, 300), out = g.integer(1, 80);
                    const Shape shape = g.chance(0.3) ? Shape{g.integer(1, 4), g.integer(1, 5), in}
                                                      : Shape{g.integer(1, 30), in};
                    const Tensor x = g.activation(shape, g.dtype());
                    return call("linear", {x, g.weight({out, in}), g.bias(out)},
                                {{"activation", g.activation_name()}}, g.result(x.dtype()), true);
                  }),
      400);
}

TEST(Xnnpack, MulIsExact) {
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
                                      {{"activation", g.activation_name()}}, {t, q()}, false);
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
  EXPECT_GT(exact_calls(
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
                  return call("max_pool2d", {x}, attrs, {x.dtype(), x.quantizer()}, false);
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
