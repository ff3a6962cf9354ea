// What the goldens do not say about layers and losses: chance, errors, states that are left off.
#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/nn.h"
#include "tests/expect_error.h"

namespace octet::nn {
namespace {

using testing::expect_error;

Tensor normals(const Shape& shape, uint64_t seed = 1) { return Tensor::randn(shape, seed); }

TEST(Dropout, ZeroesAShareInTrainingAndScalesTheRest) {
  manual_seed(3);
  auto layer = make<Dropout>(0.25);
  Tensor x = Tensor::ones({10000});
  autograd::set_requires_grad(x);
  Tensor y = (*layer)(x);
  int zeros = 0;
  for (float v : y.detach().to_vector<float>()) {
    EXPECT_TRUE(v == 0 || v == static_cast<float>(1 / 0.75));
    zeros += v == 0;
  }
  EXPECT_NEAR(zeros, 2500, 200);
  autograd::backward(y, Tensor::ones({10000}));
  EXPECT_TRUE(equal(autograd::grad(x), y.detach())) << "of ones, the gradient is the mask";
  EXPECT_FALSE(equal((*layer)(x).detach(), y.detach())) << "drawn anew";
  manual_seed(3);
  EXPECT_TRUE(equal((*layer)(x).detach(), y.detach()));
  layer->eval();
  EXPECT_TRUE(equal((*layer)(x).detach(), x.detach()));
}

TEST(Dropout, WholeChannelsAreZeroed) {
  Tensor y = make<Dropout2d>(0.5)->forward(Tensor::ones({8, 16, 3, 3}));
  int zeros = 0;
  for (int64_t n = 0; n < 8; ++n)
    for (int64_t c = 0; c < 16; ++c) {
      Tensor channel = y.select(0, n).select(0, c).contiguous();
      for (float v : channel.to_vector<float>()) EXPECT_EQ(v, channel.at({0, 0}));
      zeros += channel.at({0, 0}) == 0;
    }
  EXPECT_GT(zeros, 30);
  EXPECT_LT(zeros, 98);
  EXPECT_EQ(make<Dropout1d>(0.5)->forward(Tensor::ones({4, 3})).shape(), (Shape{4, 3}))
      << "without a batch";
}

TEST(Embedding, TheRowOfPaddingStartsZero) {
  Embedding layer(4, 3, -2);
  EXPECT_EQ(layer.padding_idx, 2);
  EXPECT_EQ(layer.weight.detach().select(0, 2).contiguous().to_vector<float>(),
            (std::vector<float>{0, 0, 0}));
  expect_error(ErrorCode::invalid_argument, {"padding_idx=4"}, [] { Embedding(4, 3, 4); });
}

TEST(Recurrent, StatesThatAreLeftOffAreZero) {
  auto lstm = make<LSTM>(3, 4, RecurrentOptions{.num_layers = 2});
  Tensor x = normals({5, 2, 3}), zero = Tensor::zeros({2, 2, 4});
  std::vector<Tensor> a = lstm->forward(std::vector<Tensor>{x}), b = lstm->forward({x, zero, zero});
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(equal(a[i].detach(), b[i].detach()));
  EXPECT_TRUE(equal((*lstm)(x).detach(), a[0].detach())) << "called with one tensor it gives y";
}

TEST(Recurrent, DropoutIsBetweenLayersInTrainingOnly) {
  auto gru = make<GRU>(3, 4, RecurrentOptions{.num_layers = 2, .dropout = 0.5});
  Tensor x = normals({5, 2, 3});
  EXPECT_FALSE(equal((*gru)(x).detach(), (*gru)(x).detach()));
  gru->eval();
  EXPECT_TRUE(equal((*gru)(x).detach(), (*gru)(x).detach()));
}

TEST(Recurrent, ParametersHavePyTorchsNames) {
  LSTM lstm(3, 4, {.num_layers = 2, .bidirectional = true, .proj_size = 2});
  EXPECT_EQ(lstm.parameter_of("weight_ih", 1, true).shape(), (Shape{16, 4}));
  EXPECT_EQ(lstm.parameter_of("weight_hr", 0, false).shape(), (Shape{2, 4}));
  EXPECT_EQ(lstm.state_dict().count("weight_hh_l1_reverse"), 1u);
  EXPECT_FALSE(GRU(3, 4, {.bias = false}).parameter_of("bias_ih", 0, false).defined());
}

TEST(Recurrent, WrongArgumentsAreErrors) {
  expect_error(ErrorCode::invalid_argument, {"proj_size=4"}, [] { LSTM(3, 4, {.proj_size = 4}); });
  expect_error(ErrorCode::invalid_argument, {"proj_size=2"}, [] { GRU(3, 4, {.proj_size = 2}); });
  expect_error(ErrorCode::invalid_argument, {"sigmoid", "tanh"},
               [] { RNN(3, 4, {.nonlinearity = "sigmoid"}); });
  LSTM lstm(3, 4);
  expect_error(ErrorCode::invalid_argument, {"LSTM", "(5, 2, 2)", "3"}, [&] {
    lstm.forward(normals({5, 2, 2}));
  });
  expect_error(ErrorCode::invalid_argument, {"LSTM", "state 0", "(1, 3, 4)", "(1, 2, 4)"}, [&] {
    lstm.forward({normals({5, 2, 3}), Tensor::zeros({1, 3, 4})});
  });
  expect_error(ErrorCode::invalid_argument, {"GRUCell", "3 inputs"}, [] {
    GRUCell(2, 2).forward({normals({1, 2}), Tensor::zeros({1, 2}), Tensor::zeros({1, 2})});
  });
}

TEST(Attention, WrongArgumentsAreErrors) {
  expect_error(ErrorCode::invalid_argument, {"embed_dim=5", "num_heads=2"},
               [] { MultiheadAttention(5, 2); });
  auto layer = make<MultiheadAttention>(4, 2);
  Tensor x = normals({3, 2, 4});
  expect_error(ErrorCode::invalid_argument, {"2 inputs"}, [&] { layer->forward({x, x}); });
  expect_error(ErrorCode::invalid_argument, {"key"}, [&] {
    layer->forward({x, normals({3, 1, 4}), x});
  });
  expect_error(ErrorCode::invalid_argument, {"attn_mask"}, [&] {
    layer->forward({x, x, x, {}, Tensor::zeros({3, 3, 3})});
  });
}

TEST(Layers, WrongShapesAreErrorsThatNameTheLayer) {
  expect_error(ErrorCode::invalid_argument, {"LayerNorm", "(3, 4)"}, [] {
    LayerNorm(Shape{3, 4}).forward(normals({2, 4, 3}));
  });
  expect_error(ErrorCode::invalid_argument, {"GroupNorm", "3 groups"}, [] { GroupNorm(3, 4); });
  expect_error(ErrorCode::invalid_argument, {"GroupNorm", "4 channels"}, [] {
    GroupNorm(2, 4).forward(normals({2, 6, 2}));
  });
  expect_error(ErrorCode::invalid_argument, {"InstanceNorm2d", "4 channels"}, [] {
    make<InstanceNorm2d>(4)->forward(normals({1, 3, 2, 2}));
  });
  expect_error(ErrorCode::invalid_argument, {"InstanceNorm1d", "more than one value"}, [] {
    make<InstanceNorm1d>(4)->forward(normals({2, 4, 1}));
  });
  expect_error(ErrorCode::invalid_argument, {"size or scale_factor"}, [] { Upsample({}); });
  expect_error(ErrorCode::invalid_argument, {"bilinear"}, [] {
    make<Upsample>(functional::InterpolateOptions{.size = {2}, .mode = "bilinear"})
        ->forward(normals({1, 2, 3}));
  });
  expect_error(ErrorCode::invalid_argument, {"Bilinear", "1 inputs"}, [] {
    Bilinear(2, 2, 2).forward(std::vector{normals({1, 2})});
  });
  expect_error(ErrorCode::invalid_argument, {"p=2"}, [] { Dropout(2); });
}

TEST(Loss, IgnoredTargetsMayHaveAnyScore) {
  Tensor x = Tensor::from({1.f, 2.f, -std::numeric_limits<float>::infinity(), 0.f});
  Tensor target = Tensor::from({int64_t{0}, int64_t{-100}});
  EXPECT_NEAR(functional::cross_entropy(x.reshape({2, 2}), target).item(), 1.3132617, 1e-6);
}

TEST(Loss, WrongArgumentsAreErrors) {
  Tensor x = normals({2, 3});
  auto classes = [](int64_t a, int64_t b) { return Tensor::from({a, b}); };
  expect_error(ErrorCode::invalid_argument, {"cross_entropy", "target 3", "3 classes"},
               [&] { functional::cross_entropy(x, classes(0, 3)); });
  expect_error(ErrorCode::invalid_argument, {"cross_entropy", "(2)"},
               [&] { functional::cross_entropy(x, Tensor::from({int64_t{1}})); });
  expect_error(ErrorCode::invalid_argument, {"label_smoothing=2"},
               [&] { functional::cross_entropy(x, classes(0, 1), {.label_smoothing = 2}); });
  expect_error(ErrorCode::invalid_argument, {"median"},
               [&] { functional::mse_loss(x, x, "median"); });
  expect_error(ErrorCode::invalid_argument, {"mse_loss", "one shape"},
               [&] { functional::mse_loss(x, normals({3})); });
  expect_error(ErrorCode::invalid_argument, {"MSELoss", "1 inputs"},
               [&] { make<MSELoss>()->forward(std::vector{x}); });
}

TEST(Loss, NoGradientFlowsToTheTeacher) {
  Tensor student = normals({2, 3}), teacher = normals({2, 3}, 2);
  autograd::set_requires_grad(student);
  autograd::set_requires_grad(teacher);
  autograd::backward(functional::distillation_loss(student, teacher, 2));
  EXPECT_TRUE(autograd::grad(student).defined());
  EXPECT_FALSE(autograd::grad(teacher).defined());
}

}  // namespace
}  // namespace octet::nn
