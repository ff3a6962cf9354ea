#include "octet/nn/optim.h"

#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/ops/functional.h"
#include "tests/expect_error.h"

namespace octet::nn::optim {
namespace {

using testing::expect_error;

Tensor leaf(std::vector<float> values) {
  Tensor t = Tensor::from(values, {static_cast<int64_t>(values.size())});
  autograd::set_requires_grad(t);
  return t;
}

// One step towards `goal`.
void step(Optimizer& optimizer, const Tensor& x, const Tensor& goal) {
  optimizer.zero_grad();
  Tensor d = x - goal;
  autograd::backward(functional::sum(d * d));
  optimizer.step();
}

TEST(Optim, EveryOptimizerFindsAMinimum) {
  Tensor goal = Tensor::from({3.f, -1.f});
  auto run = [&](auto make) {
    Tensor x = leaf({0, 0});
    auto optimizer = make(x);
    for (int i = 0; i < 300; ++i) step(*optimizer, x, goal);
    EXPECT_TRUE(allclose(x.detach(), goal, 0, 1e-2)) << to_string(x);
  };
  run([](const Tensor& x) { return std::make_unique<SGD>(std::vector{x}, SGDOptions{.lr = 0.1}); });
  run([](const Tensor& x) {
    return std::make_unique<SGD>(std::vector{x},
                                 SGDOptions{.lr = 0.02, .momentum = 0.9, .nesterov = true});
  });
  run([](const Tensor& x) {
    return std::make_unique<Adam>(std::vector{x}, AdamOptions{.lr = 0.1});
  });
  run([](const Tensor& x) {
    return std::make_unique<Adam>(std::vector{x}, AdamOptions{.lr = 0.1, .amsgrad = true});
  });
  run([](const Tensor& x) {
    return std::make_unique<AdamW>(std::vector{x}, AdamOptions{.lr = 0.1, .weight_decay = 1e-5});
  });
}

TEST(Optim, ParametersWithoutAGradientStay) {
  Tensor used = leaf({1}), unused = leaf({1});
  Adam optimizer({used, unused}, {.lr = 0.1, .weight_decay = 1});
  step(optimizer, used, Tensor::from({0.f}));
  EXPECT_NE(used.item(), 1);
  EXPECT_EQ(unused.item(), 1);
}

TEST(Optim, GroupsHaveOptionsOfTheirOwn) {
  Tensor a = leaf({1}), b = leaf({1});
  SGD optimizer({a}, {.lr = 0.5});
  optimizer.add_param_group({{b}, {{"lr", 0.25}}});
  autograd::backward(a + b);
  optimizer.step();
  EXPECT_EQ(a.item(), 0.5);
  EXPECT_EQ(b.item(), 0.75);
}

TEST(Optim, AnInterruptedTrainingGoesOnAsIfItWasNot) {
  Tensor goal = Tensor::from({3.f, -1.f});
  auto check = [&](auto make) {
    Tensor straight = leaf({0, 0}), before = leaf({0, 0});
    auto a = make(straight), b = make(before);
    for (int i = 0; i < 3; ++i) step(*a, straight, goal), step(*b, before, goal);
    Tensor after = before.detach().clone();
    autograd::set_requires_grad(after);
    auto c = make(after);
    c->load_state_dict(b->state_dict());
    for (int i = 0; i < 3; ++i) step(*a, straight, goal), step(*c, after, goal);
    EXPECT_TRUE(equal(straight.detach(), after.detach()));
  };
  check([](const Tensor& x) {
    return std::make_unique<SGD>(std::vector{x}, SGDOptions{.lr = 0.1, .momentum = 0.9});
  });
  check([](const Tensor& x) {
    return std::make_unique<Adam>(std::vector{x}, AdamOptions{.lr = 0.1, .amsgrad = true});
  });
}

TEST(Optim, StateDictsOfOthersAreErrorsAndChangeNothing) {
  Tensor a = leaf({1, 2}), b = leaf({1, 2, 3});
  SGD one({a}, {.lr = 0.1, .momentum = 0.9}), other({b}, {.lr = 0.2, .momentum = 0.9});
  Adam adam({a}, {});
  step(other, b, Tensor::zeros({3}));
  expect_error(ErrorCode::invalid_argument, {"SGD", "state.0.momentum_buffer", "(3)", "(2)"},
               [&] { one.load_state_dict(other.state_dict()); });
  EXPECT_EQ(one.param_groups()[0].options.at("lr"), 0.1);
  expect_error(ErrorCode::invalid_argument, {"Adam", "param_groups.0.amsgrad"},
               [&] { adam.load_state_dict(one.state_dict()); });
  auto more = one.state_dict();
  more["extra"] = Tensor::scalar(1);
  expect_error(ErrorCode::invalid_argument, {"entries"}, [&] { one.load_state_dict(more); });
}

TEST(Optim, WrongArgumentsAreErrors) {
  Tensor a = leaf({1}), plain = Tensor::from({1.f});
  expect_error(ErrorCode::invalid_argument, {"require gradients"}, [&] { SGD({plain}, {}); });
  expect_error(ErrorCode::invalid_argument, {"nesterov"}, [&] { SGD({a}, {.nesterov = true}); });
  expect_error(ErrorCode::invalid_argument, {"lr=-1"}, [&] { SGD({a}, {.lr = -1}); });
  expect_error(ErrorCode::invalid_argument, {"beta1=1"}, [&] { Adam({a}, {.beta1 = 1}); });
  SGD optimizer({a}, {});
  expect_error(ErrorCode::invalid_argument, {"two groups"}, [&] {
    optimizer.add_param_group({{a}, {}});
  });
  expect_error(ErrorCode::invalid_argument, {"momentun", "momentum"}, [&] {
    optimizer.add_param_group({{leaf({1})}, {{"momentun", 0.9}}});
  });
  StepLR schedule(optimizer, 2);
  optimizer.add_param_group({{leaf({1})}, {}});
  expect_error(ErrorCode::invalid_argument, {"1 groups", "2 now"}, [&] { schedule.step(); });
  expect_error(ErrorCode::invalid_argument, {"OneCycleLR", "total_steps=0"},
               [&] { OneCycleLR(optimizer, {}); });
}

TEST(Optim, SchedulesCanGoOnToo) {
  Tensor a = leaf({1});
  SGD optimizer({a}, {.lr = 1});
  LambdaLR schedule(optimizer, [](int64_t epoch) { return 1.0 / static_cast<double>(epoch + 1); });
  schedule.step();
  EXPECT_EQ(schedule.get_last_lr(), std::vector<double>{0.5});
  auto state = schedule.state_dict();
  schedule.step();
  schedule.load_state_dict(state);
  EXPECT_EQ(schedule.last_epoch(), 1);
  EXPECT_EQ(schedule.get_last_lr(), std::vector<double>{0.5});
}

// Gradients may be shared by several tensors: clipping one must not change another.
TEST(Optim, ClippingDoesNotWriteIntoSharedGradients) {
  Tensor a = leaf({1}), b = leaf({1});
  autograd::backward((a + b) * 10.0);
  Tensor before = autograd::grad(b);
  EXPECT_EQ(clip_grad_norm({a}, 1), 10);
  EXPECT_NEAR(autograd::grad(a).item(), 1, 1e-6);
  EXPECT_EQ(before.item(), 10);
}

}  // namespace
}  // namespace octet::nn::optim
