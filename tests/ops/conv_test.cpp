#include <gtest/gtest.h>

#include "octet/engine/engine.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

// A convolution by its definition, in double: every product is visited from the side of x and
// weight, not of y.
struct Direct {
  bool transposed;
  Ints stride, padding, dilation;
  int64_t groups;

  // Calls fn(n, c_in, c_out, place in x, place in weight, place in y) for every product whose
  // places are inside.
  void each(const Shape& x, const Shape& w, const Shape& y,
            const std::function<void(const Ints&, const Ints&, const Ints&)>& fn) const {
    const size_t spatial = stride.size();
    const int64_t in = x[1] / groups, out = y[1] / groups;
    Shape loop{x[0], groups, in, out};
    const Shape& outer = transposed ? x : y;  // the side that is strided over
    loop.insert(loop.end(), outer.begin() + 2, outer.end());
    loop.insert(loop.end(), w.begin() + 2, w.end());
    for_each_index(loop, [&](const Ints& i) {
      Ints a{i[0], i[1] * in + i[2]}, b{i[0], i[1] * out + i[3]};
      Ints k = transposed ? Ints{a[1], i[3]} : Ints{b[1], i[2]};
      Ints &near = transposed ? a : b, &far = transposed ? b : a;
      const Shape& limit = transposed ? y : x;
      for (size_t d = 0; d < spatial; ++d) {
        int64_t o = i[4 + d], tap = i[4 + spatial + d],
                place = o * stride[d] - padding[d] + tap * dilation[d];
        if (place < 0 || place >= limit[d + 2]) return;
        near.push_back(o);
        far.push_back(place);
        k.push_back(tap);
      }
      fn(a, k, b);
    });
  }
};

struct RandomConv {
  std::string op;
  Direct direct;
  Shape x, w;
  int64_t out_channels;
  Attrs attrs;
};

RandomConv random_conv(Random& random, int64_t spatial, bool transposed) {
  RandomConv c;
  c.op = (transposed ? "conv_transpose" : "conv") + std::to_string(spatial) + "d";
  Direct& d = c.direct;
  d.transposed = transposed;
  d.groups = random.integer(1, 3);
  int64_t in = random.integer(1, 3), out = random.integer(1, 3);
  c.out_channels = out * d.groups;
  c.x = {random.integer(1, 2), in * d.groups};
  c.w = transposed ? Shape{in * d.groups, out} : Shape{out * d.groups, in};
  Ints end, output_padding;
  for (int64_t i = 0; i < spatial; ++i) {
    int64_t k = random.integer(1, 3);
    d.stride.push_back(random.integer(1, 3));
    d.dilation.push_back(random.integer(1, 2));
    int64_t reach = d.dilation[i] * (k - 1) + 1;
    d.padding.push_back(random.integer(0, reach - 1));
    end.push_back(random.integer(0, reach - 1));
    output_padding.push_back(random.integer(0, std::max(d.stride[i], d.dilation[i]) - 1));
    c.w.push_back(k);
    c.x.push_back(random.integer(reach, reach + 3));
  }
  Ints padding = d.padding;
  padding.insert(padding.end(), end.begin(), end.end());
  c.attrs = {
      {"stride", d.stride}, {"padding", padding}, {"dilation", d.dilation}, {"groups", d.groups}};
  if (transposed) c.attrs.set("output_padding", output_padding);
  return c;
}

struct EngineChoice {
  explicit EngineChoice(const char* name) { set_engine(name); }
  ~EngineChoice() { set_engine("native"); }
};

struct Dimensions : ::testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(Dimensions, FloatEqualsTheDefinition) {
  auto [spatial, transposed] = GetParam();
  for (const char* engine : {"native", "reference"}) {
    EngineChoice choice(engine);
    Random random(7);
    for (int trial = 0; trial < 60; ++trial) {
      RandomConv c = random_conv(random, spatial, transposed);
      Tensor x = Tensor::randn(c.x, random.next()), w = Tensor::randn(c.w, random.next());
      Tensor bias = Tensor::randn({c.out_channels}, random.next());
      std::string activation = trial % 3 == 0 ? "none" : trial % 3 == 1 ? "relu" : "relu6";
      c.attrs.set("activation", activation);
      Tensor y = ops::call(c.op, {random_layout(random, x), w, bias}, c.attrs);
      std::vector<double> sums(y.numel());
      auto strides = contiguous_strides(y.shape());
      auto place = [&](const Ints& i) {
        int64_t at = 0;
        for (size_t d = 0; d < i.size(); ++d) at += i[d] * strides[d];
        return at;
      };
      for_each_index(y.shape(), [&](const Ints& i) { sums[place(i)] = bias.at({i[1]}); });
      c.direct.each(c.x, c.w, y.shape(), [&](const Ints& a, const Ints& k, const Ints& b) {
        sums[place(b)] += x.at(a) * w.at(k);
      });
      for_each_index(y.shape(), [&](const Ints& i) {
        double expected = sums[place(i)];
        if (activation != "none") expected = std::max(0.0, expected);
        if (activation == "relu6") expected = std::min(6.0, expected);
        ASSERT_NEAR(y.at(i), expected, 1e-5) << engine << " " << c.op << " trial " << trial << " "
                                             << to_string(c.x) << to_string(c.w);
      });
    }
  }
}

TEST_P(Dimensions, QuantizedEqualsTheContract) {
  auto [spatial, transposed] = GetParam();
  Random random(8);
  for (int trial = 0; trial < 60; ++trial) {
    RandomConv c = random_conv(random, spatial, transposed);
    QType tx = random_qtype(random, random_byte_dtype(random)), ty = random_qtype(random, tx.dtype);
    const int64_t axis = transposed ? 1 : 0;
    std::vector<double> scales;
    std::vector<int64_t> zeros;
    for (int64_t i = 0; i < c.w[axis]; ++i) {
      scales.push_back(static_cast<float>(std::exp2(random.uniform(-8, 0))));
      zeros.push_back(random.integer(-5, 5));
    }
    Tensor x = random_codes(random, c.x, tx);
    Tensor w = random_codes(
        random, c.w, {DType::qint8, Quantizer::per_channel(scales, zeros, axis, DType::qint8)});
    Tensor bias = Tensor::rand({c.out_channels}, random.next(), -2, 2);
    bool relu = random.integer(0, 1);
    if (relu) c.attrs.set("activation", "relu");
    Tensor y = ops::call(c.op, {random_layout(random, x), w, bias}, c.attrs, ty);
    ASSERT_EQ(*y.quantizer(), *ty.quantizer);
    // In the definition's own order, with the scale of channel j within its group.
    std::vector<int32_t> acc(y.numel());
    auto strides = contiguous_strides(y.shape());
    auto place = [&](const Ints& i) {
      int64_t at = 0;
      for (size_t d = 0; d < i.size(); ++d) at += i[d] * strides[d];
      return at;
    };
    const Tensor xc = x.int_repr(), wc = w.int_repr(), yc = y.int_repr();
    auto zx = static_cast<int32_t>(x.q_zero_point());
    c.direct.each(c.x, c.w, y.shape(), [&](const Ints& a, const Ints& k, const Ints& b) {
      acc[place(b)] += (static_cast<int32_t>(xc.at(a)) - zx) *
                       (static_cast<int32_t>(wc.at(k)) - static_cast<int32_t>(zeros[k[axis]]));
    });
    const auto sx = static_cast<float>(x.q_scale()), sy = static_cast<float>(y.q_scale());
    const auto zy = static_cast<int32_t>(y.q_zero_point()),
               lo = static_cast<int32_t>(qmin(ty.dtype)), hi = static_cast<int32_t>(qmax(ty.dtype));
    for_each_index(y.shape(), [&](const Ints& i) {
      const int64_t j = transposed ? i[1] % c.w[1] : i[1];
      const auto sw = static_cast<float>(scales[j]);
      const int64_t b = affine::quantize_bias(static_cast<float>(bias.at({i[1]})), sx, sw);
      const float m = sx * sw / sy;
      const float v = static_cast<float>(acc[place(i)] + b) * m;
      const int32_t expected = affine::round_and_clamp(v, zy, relu ? std::max(lo, zy) : lo, hi);
      ASSERT_EQ(static_cast<int32_t>(yc.at(i)), expected) << c.op << " trial " << trial;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Conv, Dimensions,
                         ::testing::Combine(::testing::Values(1, 2, 3), ::testing::Bool()),
                         [](const auto& i) {
                           return (std::get<1>(i.param) ? std::string("Transposed")
                                                        : std::string("Plain")) +
                                  std::to_string(std::get<0>(i.param)) + "d";
                         });

TEST(ConvTypes, TransposedSizesFollowPyTorchs) {
  EXPECT_EQ(
      infer_text(
          "conv_transpose2d", {"Float(N, 4, 5, 6)", "Float(4, 3, 3, 2)"},
          {{"stride", Ints{2, 3}}, {"padding", Ints{1, 0, 1, 0}}, {"output_padding", Ints{1, 2}}}),
      "Float(N, 3, 10, 19)");
  EXPECT_EQ(infer_text("conv_transpose1d", {"Float(N, 4, 5)", "Float(4, 2, 3)"},
                       {{"groups", int64_t{2}}}),
            "Float(N, 4, 7)");
  EXPECT_EQ(infer_text("conv_transpose3d", {"Float(N, 4, 2, 2, 2)", "Float(4, 2, 3, 3, 3)"}),
            "Float(N, 2, 4, 4, 4)");
  EXPECT_EQ(infer_text("conv3d", {"Float(N, 4, 5, 5, 5)", "Float(2, 4, 3, 2, 1)"}),
            "Float(N, 2, 3, 4, 5)");
}

TEST(ConvTypes, ErrorsSayWhatIsExpected) {
  auto fails = [](const std::string& op, const std::vector<std::string>& inputs, const Attrs& attrs,
                  const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts, [&] { infer_text(op, inputs, attrs); });
  };
  fails("conv_transpose2d", {"Float(1, 4, 5, 5)", "Float(3, 4, 3, 3)"}, {},
        {"conv_transpose2d", "4 channels", "expects 3"});
  fails("conv_transpose2d", {"Float(1, 4, 5, 5)", "Float(4, 2, 3, 3)"}, {{"groups", int64_t{3}}},
        {"4 input channels in 3 groups"});
  fails("conv_transpose2d", {"Float(1, 4, 5, 5)", "Float(4, 2, 3, 3)"},
        {{"output_padding", Ints{1, 0}}}, {"output_padding 1", "less than the stride 1"});
  fails("conv_transpose2d", {"Float(1, 4, 1, 1)", "Float(4, 2, 3, 3)"},
        {{"padding", Ints{2, 2, 2, 2}}}, {"leaves nothing"});
  fails("conv_transpose2d", {"Float(1, 4, 5, 5)", "Float(4, 2, 3, 3)", "Float(4)"}, {},
        {"bias", "2 output channels"});
  fails("conv3d", {"Float(1, 4, 5, 5)", "Float(4, 2, 3, 3)"}, {}, {"conv3d", "5-d input"});
  fails("conv3d", {"Float(1, 4, 5, 5, 5)", "Float(4, 4, 3, 3, 3)"}, {{"padding", Ints{1, 1, 1}}},
        {"padding", "expected 6 numbers"});
}

TEST(ConvTypes, TheAxisOfPerChannelWeightsIsTheOutputChannels) {
  ops::QType want{DType::quint8, Quantizer::per_tensor(1, 0, DType::quint8)};
  std::string x = "QUInt8(1, 2, 5, 5) scale=1.0 zero_point=0";
  std::string along0 = "QInt8(2, 2, 3, 3) axis=0 scale=[1.0, 2.0] zero_point=0";
  std::string along1 = "QInt8(2, 2, 3, 3) axis=1 scale=[1.0, 2.0] zero_point=0";
  EXPECT_NO_THROW(infer_text("conv2d", {x, along0}, {}, want));
  EXPECT_NO_THROW(infer_text("conv_transpose2d", {x, along1}, {}, want));
  expect_error(ErrorCode::invalid_argument, {"axis 1", "(2, 2, 3, 3)", "axis 0"}, [&] {
    infer_text("conv2d", {x, along1}, {}, want);
  });
  expect_error(ErrorCode::invalid_argument, {"axis 0", "(2, 2, 3, 3)", "axis 1"}, [&] {
    infer_text("conv_transpose2d", {x, along0}, {}, want);
  });
}

}  // namespace
}  // namespace octet::testing
