// The contract of every engine: for the same operands, every instruction set, layout and number of
// threads gives the bits of the reference engine. Each family is tried on thousands of random
// shapes and qparams; a failing case names its seed.
#include <gtest/gtest.h>

#include <functional>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"
#include "octet/engine/engine.h"
#include "octet/kernels/kernels.h"
#include "octet/ops/op.h"
#include "tests/engine/bits.h"
#include "tests/engine/defaults.h"
#include "tests/engine/slack.h"

namespace octet {
namespace {

using testing::Defaults;

// One operator call with random operands.
struct CodesCase {
  std::string op;
  std::vector<Tensor> inputs;
  Attrs attrs;
  std::optional<ops::QType> want;
};

class CodesGenerator {
 public:
  explicit CodesGenerator(uint64_t seed) : random_(seed) {}
  int64_t integer(int64_t lo, int64_t hi) { return random_.integer(lo, hi); }
  bool chance(double p) { return random_.uniform() < p; }
  double scale() { return static_cast<float>(std::pow(10.0, random_.uniform(-3.5, 0.5))); }

  QuantizerPtr per_tensor(DType dtype) {
    return Quantizer::per_tensor(
        scale(),
        chance(0.2) ? (chance(0.5) ? qmin(dtype) : qmax(dtype)) : integer(qmin(dtype), qmax(dtype)),
        dtype);
  }
  // Random codes; extreme ones often, so that 16-bit shortcuts would saturate.
  Tensor codes(const Shape& shape, DType dtype, QuantizerPtr q) {
    Tensor t = Tensor::empty(shape, dtype, std::move(q));
    auto* data = static_cast<uint8_t*>(t.raw_data());
    if (is_packed(dtype)) {
      for (size_t i = 0; i < storage_bytes(dtype, t.numel()); ++i)
        data[i] = static_cast<uint8_t>(integer(0, 255));
      return t;
    }
    double extreme = chance(0.3) ? 0.9 : 0.05;
    for (int64_t i = 0; i < t.numel(); ++i)
      data[i] = static_cast<uint8_t>(chance(extreme) ? (chance(0.5) ? qmin(dtype) : qmax(dtype))
                                                     : integer(qmin(dtype), qmax(dtype)));
    if (t.dim() == 4 && chance(0.5)) t = t.contiguous(MemoryFormat::channels_last);
    return t;
  }
  Tensor activation(const Shape& shape) { return codes(shape, dtype_, per_tensor(dtype_)); }
  Tensor weight(const Shape& shape, int64_t axis = 0) {
    return weight(shape, axis, chance(0.85) ? DType::qint8 : DType::quint8);
  }
  Tensor four_bit_weight(const Shape& shape) {
    return weight(shape, 0, chance(0.7) ? DType::qint4x2 : DType::quint4x2);
  }
  Tensor weight(const Shape& shape, int64_t axis, DType dtype) {
    if (chance(0.3)) return codes(shape, dtype, per_tensor(dtype)).contiguous();
    std::vector<double> scales;
    std::vector<int64_t> zeros;
    bool zero_points = chance(0.2);
    int64_t middle = (qmin(dtype) + qmax(dtype) + 1) / 2;
    for (int64_t i = 0; i < shape[axis]; ++i) {
      scales.push_back(scale());
      zeros.push_back(zero_points ? integer(qmin(dtype), qmax(dtype)) : middle);
    }
    return codes(shape, dtype, Quantizer::per_channel(scales, zeros, axis, dtype)).contiguous();
  }
  Tensor bias(int64_t n) {
    if (chance(0.3)) return {};
    return Tensor::rand({n}, random_.next(), -100, 100);
  }
  ops::QType result() {
    // The result's scale spreads: some results saturate, some use few codes.
    return {dtype_,
            Quantizer::per_tensor(static_cast<float>(std::pow(10.0, random_.uniform(-2, 3.5))),
                                  integer(qmin(dtype_), qmax(dtype_)), dtype_)};
  }
  std::string activation_name() { return chance(0.5) ? "none" : chance(0.7) ? "relu" : "relu6"; }
  void pick_dtype() { dtype_ = chance(0.75) ? DType::quint8 : DType::qint8; }
  DType dtype() const { return dtype_; }

 private:
  Random random_;
  DType dtype_ = DType::quint8;
};

std::vector<Tensor> evaluate(const CodesCase& c) {
  return ops::call_all(c.op, c.inputs, c.attrs, c.want);
}

constexpr int kAllCases = 21'000;  // of the tests below, about

// Runs `few` seeds (in `make bits` as many as are asked for) through the reference engine, then
// through every instruction set with changing thread counts, bytes behind the operands, and
// addresses of the first.
void expect_exact_codes(int few, const std::function<CodesCase(CodesGenerator&)>& make) {
  Defaults defaults;
  auto isas = supported_isas();
  const int cases = testing::bits_cases(few, kAllCases);
  for (int i = 0; i < cases; ++i) {
    const uint64_t seed = testing::bits_seed(i);
    CodesGenerator g(seed);
    g.pick_dtype();
    CodesCase c = make(g);
    set_engine("reference");
    auto expected = evaluate(c);
    set_engine("native");
    const Tensor x = c.inputs[0];
    for (size_t j = 0; j < isas.size(); ++j) {
      set_isa(isas[j]);
      set_num_threads(testing::bits_threads(i, 100));
      if (i % 4 == 3) {  // floats are where floats may be
        const size_t unit = x.is_quantized() ? 1 : 4;
        c.inputs[0] = testing::shifted(x, unit * (1 + static_cast<size_t>(i / 4) % (64 / unit)));
      }
      testing::fill_slack(c.inputs, 255 - 77 * static_cast<int>(j));
      auto got = evaluate(c);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t r = 0; r < got.size(); ++r)
        ASSERT_TRUE(equal(got[r], expected[r]))
            << c.op << ", seed " << seed << ", " << to_string(isas[j]) << ", " << num_threads()
            << " threads: x " << to_string(c.inputs[0].type()) << ", y "
            << to_string(expected[0].type());
    }
  }
}

CodesCase conv_case(CodesGenerator& g, int64_t in_per_group, int64_t out_per_group, int64_t groups,
                    int64_t largest) {
  int64_t kh = g.integer(1, largest), kw = g.integer(1, largest), dh = g.integer(1, 2),
          dw = g.integer(1, 2);
  std::vector<int64_t> pad{g.integer(0, 2), g.integer(0, 2), g.integer(0, 2), g.integer(0, 2)};
  int64_t h = std::max<int64_t>(dh * (kh - 1) + 1, g.integer(1, 9)),
          w = std::max<int64_t>(dw * (kw - 1) + 1, g.integer(1, 9));
  Attrs attrs{{"stride", std::vector<int64_t>{g.integer(1, 3), g.integer(1, 3)}},
              {"padding", pad},
              {"dilation", std::vector<int64_t>{dh, dw}},
              {"groups", groups},
              {"activation", g.activation_name()}};
  Tensor x = g.activation({g.integer(1, 3), in_per_group * groups, h, w});
  Tensor weight = g.weight({out_per_group * groups, in_per_group, kh, kw});
  return {"conv2d", {x, weight, g.bias(out_per_group * groups)}, attrs, g.result()};
}

CodesCase transposed_case(CodesGenerator& g) {
  int64_t groups = g.integer(1, 3), in = g.integer(1, 5), out = g.integer(1, 5),
          kh = g.integer(1, 3), kw = g.integer(1, 3);
  std::vector<int64_t> stride{g.integer(1, 3), g.integer(1, 3)},
      dilation{g.integer(1, 2), g.integer(1, 2)};
  std::vector<int64_t> pad{g.integer(0, 1), g.integer(0, 1), g.integer(0, 1), g.integer(0, 1)};
  Attrs attrs{{"stride", stride},
              {"padding", pad},
              {"output_padding",
               std::vector<int64_t>{g.integer(0, stride[0] - 1), g.integer(0, stride[1] - 1)}},
              {"dilation", dilation},
              {"groups", groups},
              {"activation", g.activation_name()}};
  Tensor x = g.activation({g.integer(1, 2), in * groups, g.integer(3, 5), g.integer(3, 5)});
  return {"conv_transpose2d",
          {x, g.weight({in * groups, out, kh, kw}, 1), g.bias(out * groups)},
          attrs,
          g.result()};
}

// The same call on float operands, with codes for weights.
CodesCase dynamic_case(CodesGenerator& g, CodesCase c) {
  c.op += "_dynamic";
  c.inputs[0] = c.inputs[0].dequantize();
  c.attrs.set("reduce_range", g.chance(0.3));
  c.want.reset();
  return c;
}

}  // namespace

TEST(Exactness, TransposedConv2d) { expect_exact_codes(200, transposed_case); }

TEST(Exactness, DynamicConv2d) {
  expect_exact_codes(200, [](CodesGenerator& g) {
    return dynamic_case(g, conv_case(g, g.integer(1, 6), g.integer(1, 12), g.integer(1, 3), 3));
  });
  expect_exact_codes(100, [](CodesGenerator& g) { return dynamic_case(g, transposed_case(g)); });
}

TEST(Exactness, DynamicLinear) {
  expect_exact_codes(1000, [](CodesGenerator& g) {
    int64_t in = g.integer(1, 150), out = g.integer(1, 80);
    Shape shape =
        g.chance(0.3) ? Shape{g.integer(1, 4), g.integer(1, 5), in} : Shape{g.integer(1, 30), in};
    return dynamic_case(g, {"linear",
                            {g.activation(shape), g.weight({out, in}), g.bias(out)},
                            {{"activation", g.activation_name()}},
                            {}});
  });
}

// A linear layer on floats, of weights of 8 or 4 bits.
CodesCase float_linear_case(CodesGenerator& g, const std::string& op, bool four_bit) {
  int64_t in = g.integer(1, 150), out = g.integer(1, 150);
  Shape shape =
      g.chance(0.3) ? Shape{g.integer(1, 4), g.integer(1, 5), in} : Shape{g.integer(1, 40), in};
  Tensor w = four_bit ? g.four_bit_weight({out, in}) : g.weight({out, in});
  if (!four_bit && g.chance(0.3)) {  // codes of 4 bits in a byte each, anywhere in its range
    auto* codes = static_cast<uint8_t*>(w.raw_data());
    const auto low =
        static_cast<uint8_t>(w.dtype() == DType::qint8 ? g.integer(-128, 112) : g.integer(0, 240));
    for (int64_t i = 0; i < w.numel(); ++i) codes[i] = static_cast<uint8_t>(low + codes[i] % 16);
  }
  return {op,
          {g.activation(shape).dequantize(), w, g.bias(out)},
          {{"activation", g.activation_name()}},
          {}};
}

TEST(Exactness, DynamicLinearOfFourBits) {
  expect_exact_codes(
      400, [](CodesGenerator& g) { return float_linear_case(g, "linear_dynamic", g.chance(0.7)); });
}

TEST(Exactness, WeightOnlyLinear) {
  expect_exact_codes(800, [](CodesGenerator& g) {
    CodesCase c = float_linear_case(g, "linear_weight_only", g.chance(0.5));
    // Rows of every magnitude, each with its own fixed point; some zeros, some not finite.
    Tensor& x = c.inputs[0];
    const int64_t k = x.size(-1);
    const double wide = g.chance(0.5) ? 30 : 1;
    for (int64_t row = 0; row < x.numel() / k; ++row)
      for (int64_t i = 0; i < k; ++i) {
        float& v = x.data<float>()[row * k + i];
        v = row % 7 == 3 ? 0
                         : v *
                               static_cast<float>(
                                   std::pow(10.0, static_cast<double>(row % 5 - 2) * wide / 3)) *
                               1.2345678f;
      }
    if (g.chance(0.1))
      x.data<float>()[g.integer(0, x.numel() - 1)] = g.chance(0.5) ? NAN : INFINITY;
    if (g.chance(0.1)) x.data<float>()[g.integer(0, x.numel() - 1)] = 3.4028235e38f;
    if (g.chance(0.1)) x.data<float>()[g.integer(0, x.numel() - 1)] = 1e-45f;
    return c;
  });
}

TEST(Exactness, WeightOnlyLinearOfLongRowsOfExtremesDoesNotOverflow) {
  expect_exact_codes(6, [](CodesGenerator& g) {
    const int64_t in = 65536;
    Tensor x = Tensor::empty({2, in});
    std::fill_n(x.data<float>(), x.numel(), g.chance(0.5) ? -1.0f : 1.9999999f);
    Tensor w = Tensor::empty({3, in}, DType::qint8,
                             Quantizer::per_tensor(0.01, g.chance(0.5) ? 127 : -128, DType::qint8));
    std::fill_n(w.data<int8_t>(), w.numel(), g.chance(0.5) ? int8_t{-128} : int8_t{127});
    return CodesCase{"linear_weight_only", {x, w}, {}, {}};
  });
}

TEST(Exactness, DynamicLstm) {
  expect_exact_codes(150, [](CodesGenerator& g) {
    const int64_t steps = g.integer(1, 5), batch = g.integer(1, 3), in = g.integer(1, 40),
                  hidden = g.integer(1, 150);
    auto floats = [&](Shape shape) {
      return Tensor::rand(std::move(shape), static_cast<uint64_t>(g.integer(0, 1 << 30)), -2, 2);
    };
    auto weight = [&](int64_t k) {
      Tensor w = g.codes({4 * hidden, k}, DType::qint8,
                         Quantizer::per_tensor(0.003, g.chance(0.2) ? 3 : 0, DType::qint8));
      return w.contiguous();
    };
    const bool bias = g.chance(0.7);
    return CodesCase{"lstm",
                     {floats({steps, batch, in}), floats({batch, hidden}), floats({batch, hidden}),
                      weight(in), weight(hidden), bias ? floats({4 * hidden}) : Tensor(),
                      bias ? floats({4 * hidden}) : Tensor()},
                     {{"reverse", g.chance(0.3)}, {"reduce_range", g.chance(0.3)}},
                     std::nullopt};
  });
}

TEST(Exactness, Conv2d) {
  expect_exact_codes(1200, [](CodesGenerator& g) {
    return conv_case(g, g.integer(1, 20), g.integer(1, 40), 1, 4);
  });
}

// The first layer of a network: windows over few channels, whose rows are one tap each where that
// is less work.
TEST(Exactness, Conv2dOfFewChannels) {
  expect_exact_codes(300, [](CodesGenerator& g) {
    const int64_t kh = g.integer(1, 7), kw = g.integer(1, 7), c = g.integer(1, 4),
                  oc = g.integer(1, 40), dh = g.integer(1, 2);
    Attrs attrs{{"stride", std::vector<int64_t>{g.integer(1, 3), g.integer(1, 3)}},
                {"padding", std::vector<int64_t>{g.integer(0, 4), g.integer(0, 4), g.integer(0, 4),
                                                 g.integer(0, 4)}},
                {"dilation", std::vector<int64_t>{dh, g.chance(0.9) ? 1 : 2}},
                {"activation", g.activation_name()}};
    const Tensor x = g.activation(
        {g.integer(1, 2), c, g.integer(dh * (kh - 1) + 1, 14), g.integer(2 * kw - 1, 14)});
    return CodesCase{"conv2d", {x, g.weight({oc, c, kh, kw}), g.bias(oc)}, attrs, g.result()};
  });
}

// Large enough for Winograd's algorithm, where the instruction set has it.
TEST(Exactness, Conv2dOf3x3) {
  struct Watch : KernelWatch {
    int winograd = 0;
    void ran(const Kernel& kernel) override {
      winograd += kernel.name().find("winograd") != std::string::npos;
    }
  } watch;
  expect_exact_codes(60, [](CodesGenerator& g) {
    const int64_t c = g.integer(16, 50), oc = g.integer(16, 70), dilation = g.integer(1, 3);
    std::vector<int64_t> pad;
    for (int side = 0; side < 4; ++side) pad.push_back(g.integer(0, 2 * dilation));
    const Tensor x = g.activation(
        {g.integer(1, 2), c, g.integer(2 * dilation + 1, 16), g.integer(2 * dilation + 1, 16)});
    const Attrs attrs{{"padding", pad},
                      {"dilation", std::vector<int64_t>{dilation, dilation}},
                      {"activation", g.activation_name()}};
    return CodesCase{"conv2d", {x, g.weight({oc, c, 3, 3}), g.bias(oc)}, attrs, g.result()};
  });
  EXPECT_EQ(watch.winograd > 0, kernels::table(supported_isas().back()).winograd != nullptr);
}

TEST(Exactness, GroupedConv2d) {
  expect_exact_codes(400, [](CodesGenerator& g) {
    return conv_case(g, g.integer(1, 9), g.integer(1, 9), g.integer(2, 5), 3);
  });
}

TEST(Exactness, DepthwiseConv2d) {
  expect_exact_codes(600,
                     [](CodesGenerator& g) { return conv_case(g, 1, 1, g.integer(2, 100), 5); });
}

TEST(Exactness, PointwiseConv2d) {
  expect_exact_codes(400, [](CodesGenerator& g) {
    int64_t in = g.integer(1, 70), out = g.integer(1, 70);
    Tensor x = g.activation({g.integer(1, 3), in, g.integer(1, 8), g.integer(1, 8)});
    return CodesCase{"conv2d",
                     {x, g.weight({out, in, 1, 1}), g.bias(out)},
                     {{"activation", g.activation_name()}},
                     g.result()};
  });
}

TEST(Exactness, Linear) {
  expect_exact_codes(2000, [](CodesGenerator& g) {
    int64_t in = g.integer(1, 150), out = g.integer(1, 80);
    Shape shape =
        g.chance(0.3) ? Shape{g.integer(1, 4), g.integer(1, 5), in} : Shape{g.integer(1, 30), in};
    return CodesCase{"linear",
                     {g.activation(shape), g.weight({out, in}), g.bias(out)},
                     {{"activation", g.activation_name()}},
                     g.result()};
  });
}

// The int32 accumulator holds 255*128*K exactly up to K = 65,793; a 16-bit one would not hold K =
// 2.
TEST(Exactness, LinearOfManyExtremeProductsDoesNotSaturate) {
  expect_exact_codes(40, [](CodesGenerator& g) {
    int64_t in = g.integer(3000, 5000);
    Tensor x = Tensor::empty({2, in}, DType::quint8, Quantizer::per_tensor(0.02, 0, DType::quint8));
    Tensor w = Tensor::empty({5, in}, DType::qint8, Quantizer::per_tensor(0.01, 0, DType::qint8));
    std::fill_n(x.data<uint8_t>(), x.numel(), uint8_t{255});
    std::fill_n(w.data<int8_t>(), w.numel(), int8_t{-128});
    return CodesCase{"linear",
                     {x, w},
                     {},
                     ops::QType{DType::quint8, Quantizer::per_tensor(200, 255, DType::quint8)}};
  });
}

TEST(Exactness, Add) {
  expect_exact_codes(2000, [](CodesGenerator& g) {
    Shape shape{g.integer(1, 3), g.integer(1, 40), g.integer(1, 7), g.integer(1, 7)};
    return CodesCase{"add",
                     {g.activation(shape), g.activation(shape)},
                     {{"activation", g.activation_name()}},
                     g.result()};
  });
}

TEST(Exactness, Mul) {
  expect_exact_codes(2000, [](CodesGenerator& g) {
    Shape shape{g.integer(1, 3), g.integer(1, 40), g.integer(1, 7)};
    return CodesCase{"mul",
                     {g.activation(shape), g.activation(shape)},
                     {{"activation", g.activation_name()}},
                     g.result()};
  });
}

// A bias, one number, or one for each row, as either operand.
TEST(Exactness, RepeatedOperandsOfAddAndMul) {
  expect_exact_codes(1000, [](CodesGenerator& g) {
    const Shape shape{g.integer(1, 3), g.integer(1, 9), g.integer(1, 70)};
    const Shape repeated[] = {
        {shape[2]}, {1}, {shape[0], shape[1], 1}, {shape[1], shape[2]}, {1, 1, shape[2]}};
    Tensor x = g.activation(shape), y = g.activation(repeated[g.integer(0, 4)]);
    if (g.chance(0.5)) std::swap(x, y);
    return CodesCase{
        g.chance(0.5) ? "add" : "mul", {x, y}, {{"activation", g.activation_name()}}, g.result()};
  });
}

TEST(Exactness, Matmul) {
  expect_exact_codes(1500, [](CodesGenerator& g) {
    const int64_t m = g.integer(1, 30), n = g.integer(1, 70), k = g.integer(1, 90),
                  batch = g.integer(1, 4), heads = g.integer(1, 3);
    const Shape batches[] = {{}, {heads}, {batch, heads}, {batch, 1}, {1, heads}};
    const int64_t i = g.integer(0, 4);
    // Broadcast against each other, the missing dimensions too.
    Shape a = batches[i], b = batches[g.chance(0.5) ? i : g.integer(0, 4)];
    a.insert(a.end(), {m, k});
    b.insert(b.end(), {k, n});
    Tensor x = g.activation(a), y = g.activation(b);
    if (g.chance(0.2))
      y = g.codes(b, y.dtype() == DType::quint8 ? DType::qint8 : DType::quint8,
                  g.per_tensor(y.dtype() == DType::quint8 ? DType::qint8 : DType::quint8));
    return CodesCase{"matmul", {x, y}, {}, g.result()};
  });
}

TEST(Exactness, Pools) {
  expect_exact_codes(2000, [](CodesGenerator& g) {
    std::vector<int64_t> kernel{g.integer(1, 4), g.integer(1, 4)};
    std::vector<int64_t> pad{g.integer(0, kernel[0] - 1), g.integer(0, kernel[1] - 1),
                             g.integer(0, kernel[0] - 1), g.integer(0, kernel[1] - 1)};
    Tensor x = g.activation({g.integer(1, 2), g.integer(1, 70), g.integer(4, 9), g.integer(4, 9)});
    Attrs attrs{{"kernel", kernel},
                {"stride", std::vector<int64_t>{g.integer(1, 3), g.integer(1, 3)}},
                {"padding", pad},
                {"ceil_mode", g.chance(0.3)}};
    switch (g.integer(0, 2)) {
      case 0:
        return CodesCase{"max_pool2d", {x}, attrs, std::nullopt};
      case 1: {
        attrs.set("count_include_pad", g.chance(0.5));
        auto want = g.chance(0.5) ? std::optional(g.result()) : std::nullopt;
        return CodesCase{"avg_pool2d", {x}, attrs, want};
      }
      default: {
        auto want = g.chance(0.5) ? std::optional(g.result()) : std::nullopt;
        return CodesCase{"adaptive_avg_pool2d",
                         {x},
                         {{"output_size", std::vector<int64_t>{g.integer(1, 4), g.integer(1, 4)}}},
                         want};
      }
    }
  });
}

TEST(Exactness, Cat) {
  expect_exact_codes(2000, [](CodesGenerator& g) {
    int64_t rank = g.integer(2, 4), dim = g.integer(0, rank - 1);
    Shape shape;
    for (int64_t d = 0; d < rank; ++d) shape.push_back(g.integer(1, 9));
    std::vector<Tensor> parts;
    ops::QType want = g.result();
    for (int64_t i = g.integer(1, 4); i > 0; --i) {
      shape[dim] = g.integer(1, 9);
      parts.push_back(g.chance(0.5) ? g.codes(shape, want.dtype, want.quantizer)
                                    : g.activation(shape));
    }
    return CodesCase{"cat", parts, {{"dim", dim}}, want};
  });
}

TEST(Exactness, UnaryOperators) {
  const std::vector<std::string> ops{"relu",        "relu6", "sigmoid",    "tanh", "hardswish",
                                     "hardsigmoid", "gelu",  "leaky_relu", "elu"};
  expect_exact_codes(2000, [&](CodesGenerator& g) {
    const std::string& op = ops[g.integer(0, static_cast<int64_t>(ops.size()) - 1)];
    Tensor x = g.activation({g.integer(1, 3), g.integer(1, 70), g.integer(1, 5), g.integer(1, 5)});
    bool own = ops::get(op).rule() == ops::QRule::own;
    return CodesCase{op, {x}, {}, own ? std::optional(g.result()) : std::nullopt};
  });
}

TEST(Exactness, QuantizeDequantizeRequantize) {
  expect_exact_codes(2000, [](CodesGenerator& g) {
    Shape shape{g.integer(1, 3), g.integer(1, 40), g.integer(1, 5), g.integer(1, 5)};
    Tensor x = g.activation(shape);
    switch (g.integer(0, 2)) {
      case 0:
        return CodesCase{"dequantize", {x}, {}, std::nullopt};
      case 1:
        return CodesCase{"requantize", {x}, {}, g.result()};
      default: {
        Tensor v = Tensor::rand(shape, static_cast<uint64_t>(g.integer(0, 1 << 30)), -300, 300);
        float* data = v.data<float>();
        const float odd[] = {NAN,   INFINITY, -INFINITY, 3e38f, -3e38f, 0.5f,
                             -0.5f, 1.5f,     2.5f,      -0.0f, 1e-40f};
        for (int64_t i = 0; i < v.numel(); i += 3) data[i] = odd[g.integer(0, 10)];
        return CodesCase{"quantize", {v}, {}, g.result()};
      }
    }
  });
}

// A sample's result does not depend on what else is in the batch.
TEST(Exactness, BatchSizeDoesNotMatter) {
  for (int i = 0; i < testing::bits_cases(200, kAllCases); ++i) {
    const uint64_t seed = testing::bits_seed(i);
    CodesGenerator g(seed);
    g.pick_dtype();
    CodesCase c = conv_case(g, g.integer(1, 8), g.integer(1, 40), 1, 3);
    Tensor whole = evaluate(c)[0];
    for (int64_t n = 0; n < c.inputs[0].size(0); ++n) {
      CodesCase one = c;
      one.inputs[0] = c.inputs[0].slice(0, n, n + 1);
      ASSERT_TRUE(equal(evaluate(one)[0], whole.slice(0, n, n + 1)))
          << "seed " << seed << ", sample " << n;
    }
  }
}

}  // namespace octet
