// functional:: of every layer that has a module, with PyTorch's order of arguments: what the module
// computes.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "tests/expect_error.h"

namespace octet::nn {
namespace {

namespace F = functional;
using testing::expect_error;

Tensor normal(const Shape& shape, uint64_t seed = 1) { return Tensor::randn(shape, seed); }

// The function's result is the module's, bit for bit.
template <typename M>
void same(const std::shared_ptr<M>& module, const Tensor& x, const Tensor& by_function) {
  const Tensor y = (*module)(x);
  EXPECT_TRUE(equal(y.detach(), by_function.detach()))
      << to_string(*module) << " of " << octet::to_string(x.type());
}

// Every element is f of x's, to float32's accuracy.
void by_element(const std::string& what, const Tensor& x, const Tensor& y,
                const std::function<double(double)>& f) {
  ASSERT_EQ(x.shape(), y.shape()) << what;
  const std::vector<float> in = x.to_vector<float>(), out = y.to_vector<float>();
  for (size_t i = 0; i < in.size(); ++i)
    EXPECT_NEAR(out[i], f(in[i]), 1e-6 * std::max(1.0, std::fabs(f(in[i]))))
        << what << " of " << in[i];
}

TEST(Functional, ActivationsAreTheirFormulas) {
  const Tensor x = normal({3, 50}) * 3;
  auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  by_element("mish", x, F::mish(x),
             [](double v) { return v * std::tanh(std::log1p(std::exp(v))); });
  by_element("logsigmoid", x, F::logsigmoid(x), [&](double v) { return std::log(sigmoid(v)); });
  by_element("tanhshrink", x, F::tanhshrink(x), [](double v) { return v - std::tanh(v); });
  by_element("softshrink", x, F::softshrink(x), [](double v) {
    return v > 0.5 ? v - 0.5 : v < -0.5 ? v + 0.5 : 0;
  });
  by_element("hardshrink", x, F::hardshrink(x, 1),
             [](double v) { return std::fabs(v) > 1 ? v : 0; });
  by_element("threshold", x, F::threshold(x, 0.1, 20), [](double v) { return v > 0.1f ? v : 20; });
  by_element("softsign", x, F::softsign(x), [](double v) { return v / (1 + std::fabs(v)); });
  const Tensor half = F::glu(x);
  ASSERT_EQ(half.shape(), (Shape{3, 25}));
  EXPECT_NEAR(half.at({2, 7}), x.at({2, 7}) * sigmoid(x.at({2, 32})), 1e-6);
  EXPECT_TRUE(equal(F::softmin(x, 1), F::softmax(-x, 1)));
  expect_error(ErrorCode::invalid_argument, {"glu", "even size"}, [] { F::glu(normal({2, 3})); });
  expect_error(ErrorCode::invalid_argument, {"softshrink", "lambda=-1"},
               [&] { F::softshrink(x, -1); });
  // At 1000 and -1000 too.
  const Tensor far = Tensor::from<float>({1000, -1000});
  by_element("logsigmoid", far, F::logsigmoid(far), [](double v) { return std::min(v, 0.0); });
  by_element("mish", far, F::mish(far), [](double v) { return std::max(v, 0.0); });
  by_element("silu", far, F::silu(far), [](double v) { return std::max(v, 0.0); });
}

TEST(Functional, ActivationsAreTheirModules) {
  const Tensor x = normal({2, 4, 5}) * 3;
  same(make<ReLU>(), x, F::relu(x));
  same(make<ReLU6>(), x, F::relu6(x));
  same(make<LeakyReLU>(0.2), x, F::leaky_relu(x, 0.2));
  same(make<ELU>(0.5), x, F::elu(x, 0.5));
  same(make<CELU>(0.5), x, F::celu(x, 0.5));
  same(make<SELU>(), x, F::selu(x));
  same(make<GELU>("tanh"), x, F::gelu(x, "tanh"));
  same(make<SiLU>(), x, F::silu(x));
  same(make<Sigmoid>(), x, F::sigmoid(x));
  same(make<Tanh>(), x, F::tanh(x));
  same(make<Softplus>(2, 3), x, F::softplus(x, 2, 3));
  same(make<Softsign>(), x, F::softsign(x));
  same(make<Mish>(), x, F::mish(x));
  same(make<Hardsigmoid>(), x, F::hardsigmoid(x));
  same(make<Hardswish>(), x, F::hardswish(x));
  same(make<Hardtanh>(-2, 0.5), x, F::hardtanh(x, -2, 0.5));
  same(make<Softmax>(1), x, F::softmax(x, 1));
  same(make<LogSoftmax>(1), x, F::log_softmax(x, 1));
  auto prelu = make<PReLU>(4);
  same(prelu, x, F::prelu(x, prelu->weight));
}

// PyTorch's order: (x, weight, bias, stride, padding, dilation, groups), and for transposed ones
// (x, weight, bias, stride, padding, output_padding, groups, dilation).
TEST(Functional, Convolutions) {
  auto one =
      make<Conv1d>(4, 6, 3, ConvOptions<1>{.stride = 2, .padding = 1, .dilation = 2, .groups = 2});
  const Tensor line = normal({2, 4, 11});
  same(one, line, F::conv1d(line, one->weight, one->bias, 2, 1, 2, 2));
  auto two = make<Conv2d>(
      4, 6, Sizes<2>{3, 2},
      ConvOptions<2>{.stride = {2, 1}, .padding = {1, 0}, .dilation = {1, 2}, .groups = 2});
  const Tensor image = normal({2, 4, 9, 8});
  same(two, image, F::conv2d(image, two->weight, two->bias, {2, 1}, {1, 0}, {1, 2}, 2));
  auto three = make<Conv3d>(4, 6, 3, ConvOptions<3>{.padding = {1, 0, 2}, .bias = false});
  const Tensor volume = normal({2, 4, 5, 6, 4});
  same(three, volume, F::conv3d(volume, three->weight, {}, 1, {1, 0, 2}));

  auto t1 = make<ConvTranspose1d>(
      4, 6, 3,
      ConvOptions<1>{.stride = 3, .padding = 1, .dilation = 2, .groups = 2, .output_padding = 2});
  same(t1, line, F::conv_transpose1d(line, t1->weight, t1->bias, 3, 1, 2, 2, 2));
  auto t2 = make<ConvTranspose2d>(
      4, 6, 3, ConvOptions<2>{.stride = {2, 3}, .padding = {1, 0}, .output_padding = {1, 2}});
  same(t2, image, F::conv_transpose2d(image, t2->weight, t2->bias, {2, 3}, {1, 0}, {1, 2}));
  auto t3 = make<ConvTranspose3d>(4, 6, 2, ConvOptions<3>{.stride = 2});
  same(t3, volume, F::conv_transpose3d(volume, t3->weight, t3->bias, 2));
  // Without the batch dimension.
  const Tensor alone = volume.select(0, 1);
  same(three, alone, F::conv3d(alone, three->weight, {}, 1, {1, 0, 2}));
  same(t3, alone, F::conv_transpose3d(alone, t3->weight, t3->bias, 2));
  EXPECT_EQ(F::conv3d(alone, three->weight).dim(), 4);
}

TEST(Functional, Pools) {
  const Tensor line = normal({2, 4, 11}), image = normal({2, 4, 9, 8}),
               volume = normal({2, 4, 5, 6, 4});
  same(make<MaxPool1d>(
           3, MaxPoolOptions<1>{.stride = 2, .padding = 1, .dilation = 2, .ceil_mode = true}),
       line, F::max_pool1d(line, 3, 2, 1, 2, true));
  same(make<MaxPool2d>(Sizes<2>{3, 2}), image, F::max_pool2d(image, {3, 2}));
  same(make<MaxPool3d>(2, MaxPoolOptions<3>{.stride = {1, 2, 1}}), volume,
       F::max_pool3d(volume, 2, {1, 2, 1}));
  same(make<AvgPool1d>(3, AvgPoolOptions<1>{.stride = 2, .padding = 1, .count_include_pad = false}),
       line, F::avg_pool1d(line, 3, 2, 1, false, false));
  same(make<AvgPool2d>(3, AvgPoolOptions<2>{.padding = 1, .ceil_mode = true}), image,
       F::avg_pool2d(image, 3, {}, 1, true));
  same(make<AvgPool2d>(2, AvgPoolOptions<2>{.divisor_override = 3}), image,
       F::avg_pool2d(image, 2, {}, 0, false, true, 3));
  same(make<AvgPool3d>(2, AvgPoolOptions<3>{.divisor_override = 5}), volume,
       F::avg_pool3d(volume, 2, {}, 0, false, true, 5));
  same(make<AdaptiveAvgPool1d>(3), line, F::adaptive_avg_pool1d(line, 3));
  same(make<AdaptiveAvgPool2d>(Sizes<2>{-1, 3}), image, F::adaptive_avg_pool2d(image, {-1, 3}));
  same(make<AdaptiveAvgPool3d>(2), volume, F::adaptive_avg_pool3d(volume, 2));
  same(make<AdaptiveMaxPool1d>(3), line, F::adaptive_max_pool1d(line, 3));
  same(make<AdaptiveMaxPool2d>(Sizes<2>{2, -1}), image, F::adaptive_max_pool2d(image, {2, -1}));
  same(make<AdaptiveMaxPool3d>(2), volume, F::adaptive_max_pool3d(volume, 2));
  const Tensor alone = volume.select(0, 0);
  same(make<MaxPool3d>(2), alone, F::max_pool3d(alone, 2));
  EXPECT_EQ(F::adaptive_avg_pool3d(alone, {-1, 1, 2}).shape(), (Shape{4, 5, 1, 2}));
}

TEST(Functional, BatchNormMovesTheStatisticsItIsGiven) {
  const Tensor x = normal({5, 4, 3, 3}) * 2 + 1;
  auto norm = make<BatchNorm2d>(4, BatchNormOptions{.eps = 1e-3, .momentum = 0.3});
  norm->weight = Tensor::rand({4}, 7);
  norm->bias = Tensor::rand({4}, 8);
  Tensor mean = Tensor::zeros({4}), var = Tensor::ones({4});
  for (int step = 0; step < 2; ++step)
    same(norm, x, F::batch_norm(x, mean, var, norm->weight, norm->bias, true, 0.3, 1e-3));
  EXPECT_TRUE(equal(mean, norm->running_mean.detach()));
  EXPECT_TRUE(equal(var, norm->running_var.detach()));
  double sum = 0, squares = 0;
  for (int64_t n = 0; n < 5; ++n)
    for (int64_t i = 0; i < 9; ++i) {
      const double v = x.at({n, 0, i / 3, i % 3});
      sum += v, squares += v * v;
    }
  EXPECT_NEAR(var.at({0}), 0.49 + 0.51 * (squares - sum * sum / 45) / 44, 1e-5)
      << "0.7 * (0.7 + 0.3 v) + 0.3 v";
  norm->eval();
  same(norm, x, F::batch_norm(x, mean, var, norm->weight, norm->bias, false, 0.3, 1e-3));
  EXPECT_TRUE(equal(mean, norm->running_mean.detach())) << "not in eval mode";
  EXPECT_TRUE(allclose(
      F::batch_norm(x, {}, {}, {}, {}, true),
      (x - F::mean(x, {0, 2, 3}, true)) /
          F::sqrt(F::mean((x - F::mean(x, {0, 2, 3}, true)).pow(2), {0, 2, 3}, true) + 1e-5),
      1e-4, 1e-5));
  expect_error(ErrorCode::invalid_argument, {"batch_norm", "running_mean and running_var"},
               [&] { F::batch_norm(x, {}, {}); });
  expect_error(ErrorCode::invalid_argument, {"batch_norm", "4 channels", "weight has shape (3)"},
               [&] { F::batch_norm(x, mean, var, Tensor::ones({3})); });
}

TEST(Functional, OtherNormalizations) {
  const Tensor x = normal({3, 4, 5}) * 2 + 1;
  auto instance = make<InstanceNorm1d>(
      4, InstanceNormOptions{.momentum = 0.2, .affine = true, .track_running_stats = true});
  instance->weight = Tensor::rand({4}, 7);
  Tensor mean = Tensor::zeros({4}), var = Tensor::ones({4});
  same(instance, x, F::instance_norm(x, mean, var, instance->weight, instance->bias, true, 0.2));
  EXPECT_TRUE(equal(mean, instance->running_mean.detach()));
  EXPECT_TRUE(equal(var, instance->running_var.detach()));
  instance->eval();
  same(instance, x, F::instance_norm(x, mean, var, instance->weight, instance->bias, false));
  same(make<InstanceNorm1d>(4), x, F::instance_norm(x));
  auto group = make<GroupNorm>(2, 4, 1e-3);
  group->bias = Tensor::rand({4}, 9);
  same(group, x, F::group_norm(x, 2, group->weight, group->bias, 1e-3));
  auto layer = make<LayerNorm>(Shape{4, 5});
  layer->weight = Tensor::rand({4, 5}, 10);
  same(layer, x, F::layer_norm(x, {4, 5}, layer->weight, layer->bias));
  expect_error(ErrorCode::invalid_argument, {"layer_norm", "(3, 4, 5)", "(5, 4)"}, [&] {
    F::layer_norm(x, {5, 4});
  });
  // Vectors of length 1.
  const Tensor unit = F::normalize(x), flat = F::normalize(x, 1, -1),
               top = F::normalize(x, INFINITY, 0), cube = F::normalize(x, 3, 2);
  EXPECT_TRUE(allclose(F::sum(unit * unit, {1}), Tensor::ones({3, 5})));
  EXPECT_TRUE(allclose(F::sum(F::abs(flat), {2}), Tensor::ones({3, 4})));
  EXPECT_TRUE(allclose(F::amax(F::abs(top), {0}), Tensor::ones({4, 5})));
  EXPECT_TRUE(allclose(F::sum(F::abs(cube).pow(3), {2}), Tensor::ones({3, 4})));
  EXPECT_TRUE(equal(F::normalize(Tensor::zeros({2, 3})), Tensor::zeros({2, 3})))
      << "eps keeps 0 from 0/0";
}

TEST(Functional, Tables) {
  auto table = make<Embedding>(5, 3, -2);
  const Tensor index = Tensor::from<int64_t>({0, 3, 4, 3}).reshape({2, 2});
  same(table, index, F::embedding(index, table->weight, -2));
  autograd::backward(F::sum(F::embedding(index, table->weight, -2)));
  EXPECT_EQ(autograd::grad(table->weight).select(0, 3).contiguous().to_vector<float>(),
            (std::vector<float>{0, 0, 0}));
  EXPECT_EQ(autograd::grad(table->weight).select(0, 4).contiguous().to_vector<float>(),
            (std::vector<float>{1, 1, 1}));
  expect_error(ErrorCode::invalid_argument, {"embedding", "padding_idx=5"},
               [&] { F::embedding(index, table->weight, 5); });

  const Tensor flat = index.reshape({4}), offsets = Tensor::from<int64_t>({0, 1, 4}),
               weights = Tensor::rand({4}, 3);
  auto bags = make<EmbeddingBag>(
      5, 3, EmbeddingBagOptions{.mode = "sum", .include_last_offset = true, .padding_idx = 3});
  const Tensor by_module = (*bags)(std::vector<Tensor>{flat, offsets, weights}).at(0);
  const Tensor by_function =
      F::embedding_bag(flat, bags->weight, offsets, "sum", weights, true, -2);
  EXPECT_TRUE(equal(by_module.detach(), by_function.detach()));
  EXPECT_EQ(by_function.shape(), (Shape{2, 3}));
  same(make<EmbeddingBag>(*bags), index,
       F::embedding_bag(index, bags->weight, {}, "sum", {}, true, 3));

  EXPECT_TRUE(equal(F::one_hot(index, 5).select(0, 1),
                    Tensor::from<int64_t>({0, 0, 0, 0, 1, 0, 0, 0, 1, 0}).reshape({2, 5})));
  EXPECT_EQ(F::one_hot(index).shape(), (Shape{2, 2, 5}));
  expect_error(ErrorCode::invalid_argument, {"one_hot", "index 4", "num_classes=4"},
               [&] { F::one_hot(index, 4); });
}

TEST(Functional, ShapesProductsAndDropout) {
  const Tensor x = normal({2, 8, 3, 5});
  same(make<PixelShuffle>(2), x, F::pixel_shuffle(x, 2));
  same(make<PixelUnshuffle>(1), x, F::pixel_unshuffle(x, 1));
  same(make<ChannelShuffle>(4), x, F::channel_shuffle(x, 4));
  same(make<Unflatten>(1, std::vector<int64_t>{2, -1}), x, F::unflatten(x, 1, {2, -1}));
  same(make<Upsample>(F::InterpolateOptions{.scale_factor = {2}}), x,
       F::upsample(x, {.scale_factor = {2}}));
  auto bilinear = make<Bilinear>(3, 5, 2);
  const Tensor a = normal({4, 3}), b = normal({4, 5});
  EXPECT_TRUE(equal((*bilinear)({a, b}).at(0).detach(),
                    F::bilinear(a, b, bilinear->weight, bilinear->bias).detach()));
  EXPECT_TRUE(equal(F::bmm(normal({2, 3, 4}), normal({2, 4, 5})),
                    F::matmul(normal({2, 3, 4}), normal({2, 4, 5}))));
  expect_error(ErrorCode::invalid_argument, {"bmm", "(3, 4)"}, [] {
    F::bmm(normal({3, 4}), normal({2, 4, 5}));
  });
  manual_seed(5);
  const Tensor dropped = F::dropout2d(x, 0.5);
  manual_seed(5);
  same(make<Dropout2d>(0.5), x, dropped);
  EXPECT_TRUE(equal(F::dropout3d(x, 0.5, false), x));
  // pad's modes are PyTorch's names.
  const Tensor line = Tensor::from<float>({1, 2, 3}).reshape({1, 1, 3});
  auto padded = [&](const char* mode) { return F::pad(line, {2, 1}, mode).to_vector<float>(); };
  EXPECT_EQ(padded("constant"), (std::vector<float>{0, 0, 1, 2, 3, 0}));
  EXPECT_EQ(padded("reflect"), (std::vector<float>{3, 2, 1, 2, 3, 2}));
  EXPECT_EQ(padded("replicate"), (std::vector<float>{1, 1, 1, 2, 3, 3}));
  EXPECT_EQ(padded("circular"), (std::vector<float>{2, 3, 1, 2, 3, 1}));
  expect_error(ErrorCode::invalid_argument, {"pad", "edge", "replicate"}, [&] {
    F::pad(line, {1, 1}, "edge");
  });
}

TEST(Functional, SmoothL1WithoutACornerHasTheGradientOfL1) {
  const Tensor x = Tensor::from(std::vector<float>{1, 2, -3}, {3}),
               target = Tensor::from(std::vector<float>{1, 1, 1}, {3});
  autograd::set_requires_grad(x);
  autograd::backward(F::smooth_l1_loss(x, target, "sum", 0));
  EXPECT_EQ(autograd::grad(x).to_vector<float>(), (std::vector<float>{0, 1, -1}));
}

}  // namespace
}  // namespace octet::nn
