// Linear and convolution layers add whole numbers of any size exactly: a bias far beyond what its
// products can give, more products than int32 holds. An oracle of 128-bit integers, written here,
// against the reference engine and the native one on every instruction set.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"
#include "octet/engine/engine.h"
#include "octet/ops/op.h"
#include "octet/tensor/affine.h"
#include "tests/engine/defaults.h"

namespace octet {
namespace {

using Ints = std::vector<int64_t>;
using Whole = __int128;

using testing::Defaults;

struct Layer {
  std::string op;
  Tensor x, weight, bias;
  Attrs attrs;
  std::optional<ops::QType> want;
};

std::vector<std::string> warnings_of(const Layer& l, const TensorType& y,
                                     std::string_view engine = "") {
  const ops::Op& op = ops::get(l.op);
  std::vector<std::optional<TensorType>> types{l.x.type(), l.weight.type()};
  if (l.bias.defined())
    types.emplace_back(l.bias.type());
  else
    types.emplace_back();
  return make_kernel(ops::make_spec(op, op.complete(l.attrs), types, {Tensor(), l.weight, l.bias},
                                    {y}, "fc1"),
                     engine)
      ->warnings();
}

Tensor run(const Layer& l) { return ops::call(l.op, {l.x, l.weight, l.bias}, l.attrs, l.want); }

// -- the oracle
// ----------------------------------------------------------------------------------------

// Leading spatial dimensions of 1 (or other `value`) up to three.
std::array<int64_t, 3> three(const Ints& sizes, int64_t value) {
  std::array<int64_t, 3> r{value, value, value};
  std::copy(sizes.begin(), sizes.end(), r.end() - static_cast<std::ptrdiff_t>(sizes.size()));
  return r;
}

// (q - z) of every element, z by slices along `axis`.
Ints differences(const Tensor& t, int64_t axis) {
  const bool packed = is_packed(t.dtype());
  const Tensor codes = packed ? t : t.contiguous().int_repr();
  const Shape shape = t.shape();
  int64_t inner = 1;
  for (size_t d = static_cast<size_t>(axis) + 1; d < shape.size(); ++d) inner *= shape[d];
  Ints r;
  for (int64_t i = 0; i < t.numel(); ++i) {
    const int64_t q = packed                         ? packed_code(t.raw_data(), t.dtype(), i)
                      : codes.dtype() == DType::int8 ? codes.data<int8_t>()[i]
                                                     : codes.data<uint8_t>()[i];
    r.push_back(q - t.quantizer()->zero_point(i / inner % shape[static_cast<size_t>(axis)]));
  }
  return r;
}

// The sums of products of every output. Plain: output o and tap k read i = o*stride - begin +
// k*dilation; a transposed convolution's input i and tap k add to output i*stride - begin +
// k*dilation.
std::vector<Whole> sums_of_products(const Layer& l, const Ints& x, const Ints& w, const Shape& y) {
  std::vector<Whole> sums(static_cast<size_t>(numel(y)));
  const Shape &xs = l.x.shape(), &ws = l.weight.shape();
  if (l.op.starts_with("linear")) {
    const int64_t k = ws[1], n = ws[0];
    for (int64_t i = 0; i < numel(y); ++i)
      for (int64_t j = 0; j < k; ++j) sums[i] += Whole{x[i / n * k + j]} * w[i % n * k + j];
    return sums;
  }
  const bool transposed = l.op.starts_with("conv_transpose");
  const int64_t groups = l.attrs.get_int("groups"), ci = xs[1] / groups, co = y[1] / groups;
  const auto in = three({xs.begin() + 2, xs.end()}, 1), out = three({y.begin() + 2, y.end()}, 1);
  const auto kernel = three({ws.begin() + 2, ws.end()}, 1),
             stride = three(l.attrs.get_ints("stride"), 1);
  const auto dilation = three(l.attrs.get_ints("dilation"), 1);
  const Ints& pad = l.attrs.get_ints("padding");
  const auto begin =
      three({pad.begin(), pad.begin() + static_cast<std::ptrdiff_t>(pad.size() / 2)}, 0);
  const auto &from = transposed ? in : out, &to = transposed ? out : in;
  std::array<int64_t, 3> a{}, k{}, b{};
  const auto inside = [&](size_t d) {
    b[d] = a[d] * stride[d] - begin[d] + k[d] * dilation[d];
    return b[d] >= 0 && b[d] < to[d];
  };
  const auto place = [](int64_t plane, const std::array<int64_t, 3>& size,
                        const std::array<int64_t, 3>& at) {
    return ((plane * size[0] + at[0]) * size[1] + at[1]) * size[2] + at[2];
  };
  for (a[0] = 0; a[0] < from[0]; ++a[0])
    for (a[1] = 0; a[1] < from[1]; ++a[1])
      for (a[2] = 0; a[2] < from[2]; ++a[2])
        for (k[0] = 0; k[0] < kernel[0]; ++k[0])
          for (k[1] = 0; k[1] < kernel[1]; ++k[1])
            for (k[2] = 0; k[2] < kernel[2]; ++k[2]) {
              if (!inside(0) || !inside(1) || !inside(2)) continue;
              const auto &i = transposed ? a : b, &o = transposed ? b : a;
              for (int64_t n = 0; n < xs[0]; ++n)
                for (int64_t g = 0; g < groups; ++g)
                  for (int64_t c = 0; c < ci; ++c)
                    for (int64_t m = 0; m < co; ++m) {
                      const int64_t row =
                          transposed ? (g * ci + c) * co + m : (g * co + m) * ci + c;
                      sums[place(n * y[1] + g * co + m, out, o)] +=
                          Whole{x[place(n * xs[1] + g * ci + c, in, i)]} * w[place(row, kernel, k)];
                    }
            }
  return sums;
}

// Of output channel n: transposed weights have the channels of one group.
float weight_scale(const Layer& l, int64_t n) {
  const Quantizer& q = *l.weight.quantizer();
  return static_cast<float>(
      q.scale(q.is_per_channel() ? n % static_cast<int64_t>(q.scales().size()) : 0));
}

// Channel of output element i.
int64_t channel(const Layer& l, const Shape& y, int64_t i) {
  if (l.op.starts_with("linear")) return i % y.back();
  return i / numel({y.begin() + 2, y.end()}) % y[1];
}

// Layers on floats: the codes are chosen from their range.
void expect_exact_dynamic(const Layer& l, const Tensor& y, const std::string& who) {
  const float* x = l.x.data<float>();
  float low = 0, high = 0;
  for (int64_t i = 0; i < l.x.numel(); ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  const affine::RunTimeQParams q = affine::choose_qparams_dynamic(low, high);
  const auto sx = static_cast<float>(q.scale);
  Ints codes;
  for (int64_t i = 0; i < l.x.numel(); ++i)
    codes.push_back(affine::quantize(x[i], sx, q.zero_point, 0, 255) - q.zero_point);
  const bool transposed = l.op.starts_with("conv_transpose");
  const std::vector<Whole> sums =
      sums_of_products(l, codes, differences(l.weight, transposed ? 1 : 0), y.shape());
  const std::string& activation = l.attrs.get_string("activation");
  const Tensor results = y.contiguous();
  for (int64_t i = 0; i < y.numel(); ++i) {
    const int64_t n = channel(l, y.shape(), i);
    float expected = static_cast<float>(sums[i]) * (sx * weight_scale(l, n));
    if (l.bias.defined()) expected += l.bias.data<float>()[n];
    if (activation != "none") expected = std::max(expected, 0.0f);
    if (activation == "relu6") expected = std::min(expected, 6.0f);
    ASSERT_EQ(results.data<float>()[i], expected)
        << who << ": " << l.op << " " << to_string(l.x.type()) << " by "
        << to_string(l.weight.type()) << ", element " << i;
  }
}

void expect_exact(const Layer& l, const Tensor& y, const std::string& who) {
  if (!l.x.is_quantized()) return expect_exact_dynamic(l, y, who);
  const bool transposed = l.op.starts_with("conv_transpose");
  const Tensor codes = y.contiguous().int_repr();
  const std::vector<Whole> sums = sums_of_products(
      l, differences(l.x, 0), differences(l.weight, transposed ? 1 : 0), y.shape());
  const Quantizer &qx = *l.x.quantizer(), &qy = *y.quantizer();
  const auto sx = static_cast<float>(qx.scale()), sy = static_cast<float>(qy.scale());
  const auto zy = static_cast<int64_t>(qy.zero_point());
  double lo = static_cast<double>(qmin(y.dtype())), hi = static_cast<double>(qmax(y.dtype()));
  const std::string& activation = l.attrs.get_string("activation");
  if (activation != "none") lo = std::max(lo, static_cast<double>(zy));
  if (activation == "relu6")
    hi = std::clamp(std::nearbyint(6.0f * (1.0f / sy)) + static_cast<double>(zy), lo, hi);
  for (int64_t i = 0; i < y.numel(); ++i) {
    const int64_t n = channel(l, y.shape(), i);
    const float sw = weight_scale(l, n), sxw = sx * sw;
    float multiplier = sxw / sy;
    Whole b = 0;
    double real_bias = 0;
    if (l.bias.defined()) {
      real_bias = l.bias.at({n});
      const auto value = static_cast<float>(real_bias);
      if (l.bias.is_quantized() && static_cast<float>(l.bias.quantizer()->scale(n)) == sxw) {
        b = l.bias.contiguous().int_repr().data<int32_t>()[n];
      } else if (const float v = std::nearbyint(value / sxw); std::abs(v) < 0x1p62f) {
        b = static_cast<Whole>(v);
      } else if (!std::isnan(v)) {  // docs/numerics.md: such a bias outweighs all products
        b = (v > 0 ? Whole{1} : Whole{-1}) << 62;
        multiplier = std::abs(value) / 0x1p62f / sy;
      }
    }
    const float v = std::nearbyint(static_cast<float>(sums[i] + b) * multiplier);
    const double expected = std::clamp(static_cast<double>(v) + static_cast<double>(zy), lo, hi);
    const double got =
        y.dtype() == DType::qint8 ? codes.data<int8_t>()[i] : codes.data<uint8_t>()[i];
    ASSERT_EQ(got, expected) << who << ": " << l.op << " " << to_string(l.x.type()) << " by "
                             << to_string(l.weight.type()) << ", element " << i << ", channel "
                             << n;
    // And right: what real numbers give, to a code, a step of the bias, and float32's precision.
    const double real =
        (static_cast<double>(sums[i]) * sx * sw + real_bias) / sy + static_cast<double>(zy);
    const double near = std::clamp(real, lo, hi);
    const double slack = 1 + sxw / sy + std::abs(real) * 1e-6 + std::abs(real_bias / sy) * 1e-6;
    if (std::abs(real) < 1e30 && activation != "relu6") {
      ASSERT_NEAR(got, near, slack) << who << ": " << l.op;
    }
  }
}

void expect_exact_everywhere(const Layer& l, const std::string& who) {
  Defaults defaults;
  set_engine("reference");
  const Tensor expected = run(l);
  expect_exact(l, expected, who + ", reference");
  if (::testing::Test::HasFatalFailure()) return;
  set_engine("native");
  for (Isa isa : supported_isas()) {
    set_isa(isa);
    ASSERT_TRUE(equal(run(l), expected))
        << who << ", " << to_string(isa) << ": " << l.op << " " << to_string(l.x.type()) << " by "
        << to_string(l.weight.type());
  }
}

// -- layers
// --------------------------------------------------------------------------------------------

class LayerGenerator {
 public:
  explicit LayerGenerator(uint64_t seed) : random_(seed) {}
  int64_t integer(int64_t lo, int64_t hi) { return random_.integer(lo, hi); }
  bool chance(double p) { return random_.uniform() < p; }
  float power(double lo, double hi) {
    return static_cast<float>(std::pow(10.0, random_.uniform(lo, hi)));
  }
  int64_t zero_point(DType dtype) {
    return chance(0.4) ? (chance(0.5) ? qmin(dtype) : qmax(dtype))
                       : integer(qmin(dtype), qmax(dtype));
  }
  DType eight_bits() { return chance(0.6) ? DType::quint8 : DType::qint8; }

  Tensor codes(const Shape& shape, DType dtype, QuantizerPtr q) {
    Tensor t = Tensor::empty(shape, dtype, std::move(q));
    auto* data = static_cast<uint8_t*>(t.raw_data());
    const double extreme = chance(0.3) ? 0.9 : 0.05;
    for (int64_t i = 0; i < t.numel(); ++i)
      data[i] = static_cast<uint8_t>(chance(extreme) ? (chance(0.5) ? qmin(dtype) : qmax(dtype))
                                                     : integer(qmin(dtype), qmax(dtype)));
    return t;
  }
  Tensor activation(const Shape& shape) {
    const DType dtype = eight_bits();
    return codes(shape, dtype, Quantizer::per_tensor(power(-4, 0), zero_point(dtype), dtype));
  }
  // Some channels are dead (all codes are the zero point), some have next to nothing; scales are
  // ordinary or tiny.
  Tensor weight(const Shape& shape, int64_t axis) {
    const DType dtype = chance(0.8) ? DType::qint8 : DType::quint8;
    const bool per_channel = chance(0.75), zero_points = chance(0.3), few_codes = chance(0.15);
    const int64_t middle = dtype == DType::quint8 ? 128 : 0,
                  channels = shape[static_cast<size_t>(axis)];
    std::vector<double> scales;
    Ints zeros;
    for (int64_t i = 0; i < (per_channel ? channels : 1); ++i) {
      scales.push_back(chance(0.3) ? power(-30, -6) : power(-4, 0));
      zeros.push_back(zero_points ? zero_point(dtype) : middle);
    }
    QuantizerPtr q = per_channel ? Quantizer::per_channel(scales, zeros, axis, dtype)
                                 : Quantizer::per_tensor(scales[0], zeros[0], dtype);
    Tensor t = codes(shape, dtype, q);
    auto* data = static_cast<uint8_t*>(t.raw_data());
    const int64_t inner = numel({shape.begin() + axis + 1, shape.end()});
    std::vector<bool> dead;
    for (int64_t i = 0; i < channels; ++i) dead.push_back(chance(0.3));
    for (int64_t i = 0; i < t.numel(); ++i) {
      const auto c = static_cast<size_t>(i / inner % channels);
      if (few_codes) data[i] = static_cast<uint8_t>(middle - 8 + data[i] % 16);
      if (dead[c]) data[i] = static_cast<uint8_t>(zeros[per_channel ? c : 0]);
    }
    return t;
  }
  // Float, or int32 codes in steps of s_x * s_w, or codes in other steps.
  Tensor bias(const Layer& l, int64_t n) {
    if (chance(0.1)) return {};
    if (chance(0.4)) {
      std::vector<double> scales;
      const bool other = chance(0.2);
      for (int64_t i = 0; i < n; ++i)
        scales.push_back(other ? 1e-3
                               : static_cast<float>(l.x.quantizer()->scale()) * weight_scale(l, i));
      for (double s : scales)
        if (!(s > 0)) return {};
      Tensor codes = Tensor::empty({n}, DType::int32);
      for (int64_t i = 0; i < n; ++i)
        codes.data<int32_t>()[i] =
            chance(0.3)   ? std::numeric_limits<int32_t>::max()
            : chance(0.3) ? std::numeric_limits<int32_t>::min()
                          : static_cast<int32_t>(integer(-1'000'000'000, 1'000'000'000));
      return make_quantized(
          codes, Quantizer::per_channel(scales, Ints(static_cast<size_t>(n), 0), 0, DType::qint32));
    }
    Tensor b = Tensor::empty({n});
    for (int64_t i = 0; i < n; ++i)
      b.data<float>()[i] = (chance(0.5) ? 1.0f : -1.0f) * (chance(0.2)   ? 0
                                                           : chance(0.1) ? power(-30, 30)
                                                                         : power(-3, 2));
    return b;
  }
  // The bias, or the products, are some of the result's codes.
  ops::QType result(const Layer& l) {
    const DType dtype = eight_bits();
    double largest = 0;
    if (l.bias.defined() && chance(0.7))
      for (int64_t i = 0; i < l.bias.numel(); ++i)
        largest = std::max(largest, std::abs(l.bias.at({i})));
    if (largest < 1e-35 || largest > 1e35) largest = power(-2, 3.5);
    return {dtype, Quantizer::per_tensor(
                       static_cast<float>(largest / static_cast<double>(integer(2, 250))),
                       zero_point(dtype), dtype)};
  }
  Tensor floats(const Shape& shape) {
    const float largest = power(-3, 3);
    return Tensor::rand(shape, random_.next(), chance(0.3) ? 0 : -largest,
                        chance(0.3) ? 0 : largest);
  }
  Tensor four_bit_weight(const Shape& shape) {
    const DType dtype = chance(0.5) ? DType::qint4x2 : DType::quint4x2;
    Tensor t =
        Tensor::empty(shape, dtype, Quantizer::per_tensor(power(-4, 0), zero_point(dtype), dtype));
    for (size_t i = 0; i < storage_bytes(dtype, t.numel()); ++i)
      static_cast<uint8_t*>(t.raw_data())[i] = static_cast<uint8_t>(integer(0, 255));
    return t;
  }
  std::string activation_name() { return chance(0.6) ? "none" : chance(0.7) ? "relu" : "relu6"; }

 private:
  Random random_;
};

Layer random_layer(LayerGenerator& g) {
  Layer l;
  const int64_t kind = g.integer(0, 9);
  int64_t channels = g.integer(1, 20);
  if (kind <= 2) {
    const int64_t k = g.integer(1, 90);
    l.op = "linear";
    l.x = g.activation({g.integer(1, 6), k});
    l.weight = g.weight({channels, k}, 0);
  } else {
    const bool transposed = kind >= 8, depthwise = kind == 6 || kind == 7;
    const int64_t spatial = g.chance(0.7)   ? 2
                            : g.chance(0.5) ? 1
                                            : 3,
                  largest = spatial == 3 ? 2 : 4;
    const int64_t groups = depthwise ? g.integer(2, 40) : g.chance(0.6) ? 1 : g.integer(2, 4);
    const int64_t ci = depthwise ? 1 : g.integer(1, 9), co = depthwise ? 1 : g.integer(1, 9);
    Shape x{g.integer(1, 2), ci * groups},
        w = transposed ? Shape{ci * groups, co} : Shape{co * groups, ci};
    Ints stride, dilation, pad, output_padding;
    for (int64_t d = 0; d < spatial; ++d) {
      w.push_back(g.integer(1, largest));
      dilation.push_back(g.integer(1, 2));
      stride.push_back(g.integer(1, 2));
      x.push_back(std::max((w.back() - 1) * dilation.back() + 1, g.integer(1, 5)) +
                  (transposed ? 1 : 0));
      output_padding.push_back(g.integer(0, stride.back() - 1));
    }
    for (int64_t d = 0; d < 2 * spatial; ++d) pad.push_back(g.integer(0, transposed ? 0 : 2));
    l.op = fmt::format("{}{}d", transposed ? "conv_transpose" : "conv", spatial);
    l.attrs.set("stride", stride)
        .set("dilation", dilation)
        .set("padding", pad)
        .set("groups", groups);
    if (transposed) l.attrs.set("output_padding", output_padding);
    l.x = g.activation(x);
    l.weight = g.weight(w, transposed ? 1 : 0);
    channels = co * groups;
  }
  l.attrs.set("activation", g.activation_name());
  if (g.chance(0.15) && !l.op.ends_with("1d") && !l.op.ends_with("3d")) {
    if (l.op == "linear" && g.chance(0.6)) l.weight = g.four_bit_weight(l.weight.shape());
    l.op += "_dynamic";
    l.x = g.floats(l.x.shape());
    if (g.chance(0.7)) l.bias = g.floats({channels});
    return l;
  }
  l.bias = g.bias(l, channels);
  l.want = g.result(l);
  return l;
}

Layer constant_layer(std::string op, const Shape& xs, const Shape& ws, DType dtype, int64_t x_code,
                     int64_t w_code) {
  Layer l;
  l.op = std::move(op);
  const int64_t z = x_code == qmin(dtype) ? qmax(dtype) : qmin(dtype);
  l.x = Tensor::empty(xs, dtype, Quantizer::per_tensor(0.02, z, dtype));
  std::fill_n(static_cast<uint8_t*>(l.x.raw_data()), l.x.numel(), static_cast<uint8_t>(x_code));
  l.weight = Tensor::empty(ws, DType::qint8,
                           Quantizer::per_tensor(0.01, w_code < 0 ? 127 : 0, DType::qint8));
  std::fill_n(l.weight.data<int8_t>(), l.weight.numel(), static_cast<int8_t>(w_code));
  l.attrs.set("activation", std::string("none"));
  l.want = ops::QType{DType::quint8, Quantizer::per_tensor(20'000, 128, DType::quint8)};
  return l;
}

}  // namespace

TEST(ExactSums, RandomLayersEqualA128BitOracleOnEveryIsa) {
  Defaults defaults;
  int64_t beyond = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    if (seed == 1000) set_num_threads(2);
    LayerGenerator g(seed);
    const Layer l = random_layer(g);
    expect_exact_everywhere(l, fmt::format("seed {}", seed));
    if (HasFatalFailure()) return;
    beyond += l.x.is_quantized() && !warnings_of(l, run(l).type()).empty();
  }
  EXPECT_GT(beyond, 400) << "of the layers have sums that can leave int32";
}

TEST(ExactSums, MoreProductsThanInt32Holds) {
  for (const int64_t w : {-128, 127})
    for (const int64_t x : {0, 255}) {
      expect_exact_everywhere(
          constant_layer("linear", {2, 70'001}, {3, 70'001}, DType::quint8, x, w), "linear");
      Layer conv =
          constant_layer("conv2d", {1, 8'000, 3, 4}, {2, 8'000, 3, 3}, DType::qint8, x - 128, w);
      conv.attrs.set("stride", Ints{1, 1})
          .set("dilation", Ints{1, 1})
          .set("padding", Ints{0, 0, 0, 0});
      conv.attrs.set("groups", int64_t{1});
      expect_exact_everywhere(conv, "conv2d");
      Layer depthwise =
          constant_layer("conv2d", {1, 2, 270, 271}, {2, 1, 270, 270}, DType::quint8, x, w);
      if (w == 127) {
        depthwise.attrs = conv.attrs;
        depthwise.attrs.set("groups", int64_t{2});
        expect_exact_everywhere(depthwise, "depthwise");
      }
    }
}

TEST(ExactSums, DynamicLayersOfMoreProductsThanInt32Holds) {
  Defaults defaults;
  for (const bool four_bits : {false, true})
    for (const float sign : {1.0f, -1.0f}) {
      const int64_t k = four_bits ? 600'000 : 70'000;
      const DType dtype = four_bits ? DType::qint4x2 : DType::qint8;
      Tensor w =
          Tensor::empty({2, k}, dtype, Quantizer::per_tensor(0.01, four_bits ? 7 : 0, dtype));
      std::fill_n(static_cast<uint8_t*>(w.raw_data()), storage_bytes(dtype, w.numel()),
                  static_cast<uint8_t>(four_bits ? 0x88 : 0x80));
      Tensor x = Tensor::empty({1, k});
      std::fill_n(x.data<float>(), k, sign);
      const Tensor bias = Tensor::from<float>({1, -2});
      const affine::RunTimeQParams q =
          affine::choose_qparams_dynamic(std::min(sign, 0.0f), std::max(sign, 0.0f));
      const auto sx = static_cast<float>(q.scale);
      const int32_t code = affine::quantize(sign, sx, q.zero_point, 0, 255);
      const Whole sum = Whole{k} * (code - q.zero_point) * (four_bits ? -15 : -128);
      ASSERT_GT(sum < 0 ? -sum : sum, Whole{1} << 31);
      for (const char* engine : {"reference", "native"})
        for (Isa isa : supported_isas()) {
          set_engine(engine);
          set_isa(isa);
          const Tensor y = ops::call("linear_dynamic", {x, w, bias});
          for (int64_t n = 0; n < 2; ++n) {
            const float exact = static_cast<float>(sum) * (sx * 0.01f);
            EXPECT_EQ(y.data<float>()[n], exact + bias.data<float>()[n])
                << engine << " " << to_string(isa);
          }
        }
    }
}

TEST(ExactSums, LstmOfMoreInputsThanInt32Holds) {
  Defaults defaults;
  const int64_t k = 70'000;
  Tensor w = Tensor::empty({8, k}, DType::qint8, Quantizer::per_tensor(1e-8, 0, DType::qint8));
  std::fill_n(w.data<int8_t>(), w.numel(), int8_t{-128});
  const Tensor h = Tensor::zeros({1, 2}),
               recurrent = quantize_per_tensor(Tensor::zeros({8, 2}), 0.01, 0, DType::qint8);
  const std::vector<Tensor> operands{
      Tensor::ones({1, 1, k}), h, h, w, recurrent, Tensor(), Tensor()};
  const double gate = -128e-8 * static_cast<double>(k), sigmoid = 1 / (1 + std::exp(-gate));
  for (Isa isa : supported_isas()) {
    set_isa(isa);
    const Tensor y = ops::call_all("lstm", operands, {})[0];
    EXPECT_NEAR(y.data<float>()[0], sigmoid * std::tanh(sigmoid * std::tanh(gate)), 1e-4)
        << to_string(isa);
  }
}

TEST(ExactSums, MatmulOfMoreProductsThanInt32Holds) {
  Defaults defaults;
  Random random(7);
  for (const DType ta : {DType::quint8, DType::qint8})
    for (const DType tb : {DType::quint8, DType::qint8})
      for (const bool cancel : {false, true}) {
        const int64_t k = 70'003, n = 5;
        Tensor a = Tensor::empty({2, 3, k}, ta, Quantizer::per_tensor(0.02, qmin(ta), ta));
        Tensor b = Tensor::empty(
            {2, k, n}, tb, Quantizer::per_tensor(0.01, cancel ? qmin(tb) + 100 : qmax(tb), tb));
        for (Tensor* t : {&a, &b})
          for (int64_t i = 0; i < t->numel(); ++i)
            static_cast<uint8_t*>(t->raw_data())[i] = static_cast<uint8_t>(
                t == &a && !cancel ? qmax(ta)
                : !cancel          ? qmin(tb)
                                   : random.integer(qmin(t->dtype()), qmax(t->dtype())));
        const ops::QType want{DType::quint8,
                              Quantizer::per_tensor(cancel ? 20'000 : 10'000, 250, DType::quint8)};
        const Ints da = differences(a, 0), db = differences(b, 0);
        const float multiplier = 0.02f * 0.01f / static_cast<float>(want.quantizer->scale());
        std::vector<uint8_t> expected;
        for (int64_t i = 0; i < 2 * 3 * n; ++i) {
          Whole sum = 0;
          for (int64_t j = 0; j < k; ++j)
            sum += Whole{da[i / n * k + j]} * db[(i / (3 * n) * k + j) * n + i % n];
          expected.push_back(static_cast<uint8_t>(
              affine::round_and_clamp(static_cast<float>(sum) * multiplier, 250, 0, 255)));
        }
        const auto check = [&](const std::string& who) {
          const Tensor y = ops::call("matmul", {a, b}, {}, want);
          for (int64_t i = 0; i < y.numel(); ++i)
            ASSERT_EQ(y.data<uint8_t>()[i], expected[static_cast<size_t>(i)])
                << who << ", element " << i;
        };
        set_engine("reference");
        check("reference");
        set_engine("native");
        for (Isa isa : supported_isas()) {
          set_isa(isa);
          check(std::string(to_string(isa)));
        }
      }
}

TEST(ExactSums, AverageOfMoreCodesThanInt32Holds) {
  Defaults defaults;
  const int64_t side = 2903;  // 255 * 2903^2 > 2^31
  Tensor x = Tensor::empty({1, 1, side, side}, DType::quint8,
                           Quantizer::per_tensor(0.5, 0, DType::quint8));
  std::fill_n(x.data<uint8_t>(), x.numel(), uint8_t{255});
  for (const char* engine : {"reference", "native"}) {
    set_engine(engine);
    const Tensor y = ops::call("adaptive_avg_pool2d", {x}, {{"output_size", Ints{1, 1}}});
    EXPECT_EQ(y.data<uint8_t>()[0], 255) << engine;
  }
}

TEST(ExactSums, KernelsNameTheLayerAndTheChannelsWhoseSumsCanLeaveInt32) {
  LayerGenerator g(1);
  Layer l;
  l.op = "linear";
  l.x = g.codes({1, 4}, DType::quint8, Quantizer::per_tensor(1, 0, DType::quint8));
  l.weight = g.codes({3, 4}, DType::qint8, Quantizer::per_tensor(1, 0, DType::qint8));
  l.bias = Tensor::from<float>({5, -4e9f, 2147483000.0f});
  l.want = ops::QType{DType::quint8, Quantizer::per_tensor(1e8, 100, DType::quint8)};
  for (const char* engine : {"native", "reference"}) {
    const std::vector<std::string> warnings = warnings_of(l, run(l).type(), engine);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_TRUE(warnings[0].starts_with("fc1: channels 1, 2 of 3: ")) << warnings[0];
  }
}

}  // namespace octet
