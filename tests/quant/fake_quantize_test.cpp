#include "octet/quant/observe/fake_quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "octet/autograd/autograd.h"
#include "octet/base/parallel.h"
#include "octet/nn/containers.h"
#include "octet/nn/linear.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "octet/quant/observe/qconfig.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

using octet::testing::expect_error;
using Floats = std::vector<float>;

Tensor scale_of(float s) { return Tensor::from({s}); }
Tensor zero_of(int32_t z) { return Tensor::from<int32_t>({z}); }

std::vector<std::pair<const char*, ObserverFactory>> all_kinds() {
  ObserverFactory moving("moving-average");
  return {{"FakeQuantize", moving.fake_quantize()},
          {"FakeQuantize", default_per_channel_weight_fake_quant()},
          {"FakeQuantize", default_embedding_fake_quant()},
          {"FakeQuantize", default_histogram_fake_quant()},
          {"FusedMovingAvgObsFakeQuantize", default_fused_act_fake_quant()},
          {"FusedMovingAvgObsFakeQuantize", default_fused_per_channel_wt_fake_quant()},
          {"LearnableFakeQuantize",
           moving.fake_quantize("LearnableFakeQuantize").with_grad_scaling(true)},
          {"FixedQParamsFakeQuantize", default_fixed_qparams_range_neg1to1_fake_quant()}};
}

}  // namespace

// As after a step whose ranges came from elsewhere: the observer's state is set, and followed.
TEST(FakeQuantize, FollowsTheObserverWhenAskedTo) {
  const auto check = [](auto&& fake) {
    fake(Tensor::from({-1.0F, 1.0F}));
    const double before = fake.calculate_qparams().scales.at(0);
    auto state = fake.observer().extra_state();
    state.at("min_val") = Tensor::full(state.at("min_val").shape(), -4);
    state.at("max_val") = Tensor::full(state.at("max_val").shape(), 4);
    fake.observer().set_extra_state(state);
    EXPECT_EQ(fake.calculate_qparams().scales.at(0), before);
    fake.std::remove_cvref_t<decltype(fake)>::follow_observer();
    EXPECT_NEAR(fake.calculate_qparams().scales.at(0), 4 * before, 1e-6);
  };
  const ObserverFactory moving("moving-average");
  check(FakeQuantize(moving));
  check(FusedMovingAvgObsFakeQuantize(moving));
  check(LearnableFakeQuantize(moving));
}

TEST(FakeQuantizeOperators, AreQuantizeThenDequantize) {
  Tensor x = Tensor::randn({3, 4, 5, 6}, 1);
  x.data<float>()[0] = NAN;
  x.data<float>()[1] = INFINITY;
  x.data<float>()[2] = -INFINITY;
  x.data<float>()[3] = std::numeric_limits<float>::max();
  const Attrs codes{{"quant_min", int64_t{0}}, {"quant_max", int64_t{255}}};
  Tensor y = ops::call("fake_quantize_per_tensor", {x, scale_of(0.013f), zero_of(100)}, codes);
  EXPECT_TRUE(equal(y, quantize_per_tensor(x, 0.013f, 100, DType::quint8).dequantize()));

  std::vector<double> scales = {0.01f, 0.5f, 0.02f, 3.0f};
  Tensor z = Tensor::from<int32_t>({0, 10, 128, 255});
  Tensor c = ops::call("fake_quantize_per_channel",
                       {x, Tensor::from<float>({0.01f, 0.5f, 0.02f, 3.0f}), z},
                       Attrs(codes).set("axis", int64_t{1}));
  EXPECT_TRUE(
      equal(c, quantize_per_channel(x, scales, {0, 10, 128, 255}, 1, DType::quint8).dequantize()));
}

TEST(FakeQuantizeOperators, DoNotDependOnLayoutAndThreads) {
  Tensor x = Tensor::randn({4, 6, 50, 70}, 2), dy = Tensor::randn({4, 6, 50, 70}, 3);
  auto run = [&](const Tensor& given, int64_t axis) {
    Tensor v = given.detach(), n = Tensor::full({axis < 0 ? 1 : 6}, 0.03),
           z = Tensor::full({axis < 0 ? 1 : 6}, 3);
    for (const Tensor* t : {&v, &n, &z}) autograd::set_requires_grad(*t);
    Tensor y = ops::call("fake_quantize_learnable", {v, n, z},
                         {{"axis", axis}, {"quant_min", int64_t{-8}}, {"quant_max", int64_t{7}}});
    autograd::backward(y, dy);
    return std::vector<Tensor>{y.detach(), autograd::grad(v), autograd::grad(n), autograd::grad(z)};
  };
  const int threads = num_threads();
  for (int64_t axis : {-1, 1}) {
    auto expected = run(x, axis);
    for (int t : {1, 3}) {
      set_num_threads(t);
      for (const Tensor& given : {x, x.contiguous(MemoryFormat::channels_last),
                                  x.permute({3, 2, 1, 0}).clone().permute({3, 2, 1, 0})}) {
        auto got = run(given, axis);
        for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(equal(got[i], expected[i])) << i;
      }
    }
    set_num_threads(threads);
  }
}

TEST(FakeQuantizeOperators, TheGradientPassesWhereTheCodeIsNotClamped) {
  // codes -3 (clamped) -2 0 3 4 (clamped)
  Tensor x = Tensor::from({-3.0f, -2.4f, 0.0f, 3.4f, 4.0f});
  autograd::set_requires_grad(x);
  Tensor y = ops::call("fake_quantize_per_tensor", {x, scale_of(1), zero_of(0)},
                       {{"quant_min", int64_t{-2}}, {"quant_max", int64_t{3}}});
  EXPECT_EQ(y.detach().to_vector<float>(), (Floats{-2, -2, 0, 3, 3}));
  autograd::backward(y, Tensor::from({1.0f, 2.0f, 3.0f, 4.0f, 5.0f}));
  EXPECT_EQ(autograd::grad(x).to_vector<float>(), (Floats{0, 2, 3, 4, 0}));
}

TEST(FakeQuantizeOperators, LearnedStepsFollowTheFormulas) {
  // s = 0.5, z = -1 (a negative one, which PyTorch's backward rounds otherwise), codes -4..3.
  Tensor x = Tensor::from({-9.0f, -0.3f, 0.6f, 9.0f}), s = scale_of(0.5f),
         z = Tensor::from({-1.2f});
  for (const Tensor* t : {&x, &s, &z}) autograd::set_requires_grad(*t);
  Tensor y =
      ops::call("fake_quantize_learnable", {x, s, z},
                {{"quant_min", int64_t{-4}}, {"quant_max", int64_t{3}}, {"grad_factor", 0.5}});
  EXPECT_EQ(y.detach().to_vector<float>(), (Floats{-1.5f, -0.5f, 0.5f, 2}));
  autograd::backward(y, Tensor::from({1.0f, 1.0f, 1.0f, 10.0f}));
  EXPECT_EQ(autograd::grad(x).to_vector<float>(), (Floats{0, 1, 1, 0}));
  double inside = (-0.5f - -0.3f) / 0.5 + (0.5f - 0.6f) / 0.5;
  EXPECT_NEAR(autograd::grad(s).item(), 0.5 * (-3 + inside + 10 * 4), 1e-5);
  EXPECT_NEAR(autograd::grad(z).item(), 0.5 * (-0.5 - 10 * 0.5), 1e-6);
}

TEST(FakeQuantizeOperators, RefuseQParamsThatAreNone) {
  Tensor x = Tensor::ones({2, 3});
  auto call = [&](const char* op, Tensor s, Tensor z, Attrs attrs = {}) {
    return ops::call(op, {x, s, z}, attrs);
  };
  auto refuse = [&](std::vector<std::string> parts, auto&&... args) {
    expect_error(ErrorCode::invalid_argument, parts, [&] { call(args...); });
  };
  refuse({"fake_quantize_per_tensor", "the scale is 0"}, "fake_quantize_per_tensor", scale_of(0),
         zero_of(0));
  refuse({"the scale is nan"}, "fake_quantize_per_tensor", scale_of(NAN), zero_of(0));
  refuse({"the zero point is 256", "0..255"}, "fake_quantize_per_tensor", scale_of(1),
         zero_of(256));
  refuse({"2 scales", "expected 1 of each"}, "fake_quantize_per_tensor", Tensor::ones({2}),
         Tensor::zeros({2}, DType::int32));
  refuse({"2 scales", "expected 3 of each", "dimension 1 of shape (2, 3)"},
         "fake_quantize_per_channel", Tensor::ones({2}), Tensor::zeros({2}, DType::int32),
         Attrs{{"axis", int64_t{1}}});
  refuse({"the scale of channel 1 is -1"}, "fake_quantize_per_channel", Tensor::from({1.0f, -1.0f}),
         Tensor::zeros({2}, DType::int32));
  refuse({"codes 5..5"}, "fake_quantize_per_tensor", scale_of(1), zero_of(0),
         Attrs{{"quant_min", int64_t{5}}, {"quant_max", int64_t{5}}});
}

TEST(FakeQuantize, ObservesAndFakeQuantizes) {
  for (auto& [name, factory] : all_kinds()) {
    nn::ModulePtr module = factory.make_module("conv1");
    EXPECT_EQ(module->type_name(), name);
    auto& f = module->as<FakeQuantizeBase>();
    EXPECT_EQ(f.observer().label(), "conv1");
    EXPECT_TRUE(chooses_qparams(*module));
    EXPECT_TRUE(is_activation_post_process(*module));
    Tensor x = Tensor::randn({4, 6}, 5);
    Tensor y = (*module)(x);
    EXPECT_FALSE(equal(x, y));
    QParams q = qparams_of(*module);
    if (q.quantizer) {
      Tensor codes = quantize(x, q.quantizer, q.dtype).int_repr().to(DType::int32);
      for (int32_t& v : std::span(codes.data<int32_t>(), 24))
        v = std::clamp<int32_t>(v, static_cast<int32_t>(q.quant_min),
                                static_cast<int32_t>(q.quant_max));
      Tensor numbers = make_quantized(codes.to(code_dtype(q.dtype)), q.quantizer).dequantize();
      // With float zero points PyTorch's two products differ: in float of tensors, in double of
      // fake quantization.
      const bool rows = q.quantizer->has_float_zero_points();
      EXPECT_TRUE(rows ? allclose(numbers, y, 1e-6, 1e-6) : equal(numbers, y))
          << to_string(*module);
    }
    f.disable_observer();
    f.forward(x * 100.0);
    EXPECT_EQ(qparams_of(*module).scales, q.scales);
    f.disable_fake_quant();
    EXPECT_EQ(f.forward(x).id(), x.id());
    EXPECT_EQ(f.forward(Tensor::zeros({0, 6})).numel(), 0);
  }
}

TEST(FakeQuantize, WithoutDataIsNotCalibrated) {
  for (auto& [name, factory] : all_kinds()) {
    if (std::string(name) == "FixedQParamsFakeQuantize") continue;
    auto module = factory.make_module("conv1");
    expect_error(ErrorCode::not_calibrated,
                 {name, "of 'conv1' has no scale yet", "enable_observer"},
                 [&] { qparams_of(*module); });
    EXPECT_NE(nn::to_string(*module).find("scale=None"), std::string::npos);
  }
  auto module = default_fake_quant().make_module("x");
  disable_observer(*module);
  expect_error(ErrorCode::not_calibrated, {"FakeQuantize of 'x'"},
               [&] { (*module)(Tensor::ones({2})); });
}

TEST(FakeQuantize, AStateDictGoesOnWhereTheOtherWas) {
  for (auto& [name, factory] : all_kinds()) {
    auto a = factory.make_module("a"), b = factory.make_module("b");
    for (uint64_t k = 0; k < 3; ++k) (*a)(Tensor::randn({4, 6}, k));
    a->as<FakeQuantizeBase>().disable_fake_quant();
    auto state = a->state_dict();
    for (const char* key : {"scale", "zero_point", "fake_quant_enabled", "observer_enabled"})
      EXPECT_TRUE(state.count(key)) << key;
    b->load_state_dict(state);
    EXPECT_FALSE(b->as<FakeQuantizeBase>().is_fake_quant_enabled());
    for (auto& m : {a, b}) enable_fake_quant(*m);
    EXPECT_EQ(qparams_of(*a).scales, qparams_of(*b).scales);
    Tensor x = Tensor::randn({4, 6}, 9);
    EXPECT_TRUE(equal((*a)(x), (*b)(x)));
    EXPECT_EQ(qparams_of(*a).zero_points, qparams_of(*b).zero_points);
  }
}

TEST(FakeQuantize, ADamagedStateIsRefused) {
  auto module = default_fake_quant().make_module("fc");
  (*module)(Tensor::randn({9}, 1));
  auto state = module->state_dict();
  for (const auto& [key, value] : std::vector<std::pair<std::string, Tensor>>{
           {"scale", scale_of(-1)}, {"scale", Tensor::ones({2})}, {"zero_point", zero_of(-1)}}) {
    auto bad = state;
    bad[key] = value;
    expect_error(ErrorCode::invalid_argument, {"FakeQuantize of 'fc'", "the state dict has"},
                 [&] { module->load_state_dict(bad); });
  }
}

TEST(FakeQuantize, ACloneLivesItsOwnLife) {
  for (auto& [name, factory] : all_kinds()) {
    auto module = factory.make_module();
    Tensor x = Tensor::randn({4, 6}, 1);
    Tensor y = (*module)(x);
    auto copy = module->clone();
    EXPECT_TRUE(equal((*copy)(x), (*module)(x)));
    std::string before = nn::to_string(*module);
    (*copy)(x * 1000.0);
    disable_fake_quant(*copy);
    EXPECT_EQ(nn::to_string(*module), before) << name;
  }
}

TEST(FakeQuantize, IsMadeAgainFromItsConfig) {
  for (auto& [name, factory] : all_kinds()) {
    auto module = factory.make_module("conv1");
    auto again = nn::make_registered(nn::registered_name(*module), module->config());
    EXPECT_EQ(nn::to_string(*again), nn::to_string(*module));
    EXPECT_EQ(again->as<FakeQuantizeBase>().options(), factory.options());
    EXPECT_EQ(again->config(), module->config());
  }
}

TEST(FakeQuantize, SwitchesReachAWholeModel) {
  auto a = default_fake_quant().make_module(), b = default_fused_act_fake_quant().make_module();
  auto model = nn::make<nn::Sequential>(a, nn::Linear(3, 3), nn::make<nn::Sequential>(b));
  auto flags = [&] {
    std::vector<bool> v;
    for (auto& m : {a, b}) {
      v.push_back(m->as<FakeQuantizeBase>().is_observer_enabled());
      v.push_back(m->as<FakeQuantizeBase>().is_fake_quant_enabled());
    }
    return v;
  };
  disable_observer(*model);
  EXPECT_EQ(flags(), (std::vector<bool>{false, true, false, true}));
  model->apply(disable_fake_quant);
  EXPECT_EQ(flags(), (std::vector<bool>(4, false)));
  model->apply(enable_observer);
  enable_fake_quant(*model);
  EXPECT_EQ(flags(), (std::vector<bool>(4, true)));
}

TEST(FakeQuantize, PrintsLikePyTorch) {
  auto module = ObserverFactory("minmax").fake_quantize().make_module();
  (*module)(Tensor::from({-1.0f, 4.1f}));
  EXPECT_EQ(nn::to_string(*module),
            "FakeQuantize(fake_quant_enabled=1, observer_enabled=1, quant_min=0, quant_max=255, "
            "dtype=quint8, "
            "qscheme=per_tensor_affine, scale=0.02 zero_point=50\n"
            "  (activation_post_process): MinMaxObserver(min_val=-1, max_val=4.1)\n)");
}

TEST(FakeQuantize, RefusesWhatItCannotDo) {
  expect_error(ErrorCode::invalid_argument, {"conv1", "20 bits"}, [] {
    ObserverFactory("minmax").with_dtype(DType::qint32).fake_quantize().make_module("conv1");
  });
  expect_error(ErrorCode::unsupported, {"LearnableFakeQuantize", "float qparams"}, [] {
    default_float_qparams_observer().fake_quantize("LearnableFakeQuantize").make_module();
  });
  expect_error(ErrorCode::invalid_argument, {"Linear", "expected an observer"},
               [] { qparams_of(*nn::make<nn::Linear>(1, 1)); });
}

TEST(LearnableFakeQuantize, LearnsOnlyWhenItIsTold) {
  auto module = default_fake_quant().fake_quantize("LearnableFakeQuantize").make_module();
  auto& f = module->as<LearnableFakeQuantize>();
  Tensor x = Tensor::randn({50}, 1);
  f.enable_static_estimate();
  EXPECT_FALSE(autograd::requires_grad(f.forward(x)));
  float seen = f.scale.data<float>()[0];
  f.enable_static_observation();
  EXPECT_EQ(f.forward(x).id(), x.id());
  f.enable_param_learning();
  EXPECT_EQ(f.learning_enabled.data<uint8_t>()[0], 1);
  Tensor y = f.forward(x * 3.0);
  EXPECT_EQ(f.scale.data<float>()[0], seen);  // the observer is off
  autograd::backward(y, Tensor::ones({50}));
  EXPECT_NE(autograd::grad(f.scale).item(), 0);
  f.scale.data<float>()[0] = -1;  // an optimizer's step too far
  EXPECT_NO_THROW(f.forward(x));
  EXPECT_EQ(f.scale.data<float>()[0], 0x1p-23f);
}

TEST(LearnableFakeQuantize, HasAParameterPerChannel) {
  auto factory = default_per_channel_weight_fake_quant().fake_quantize("LearnableFakeQuantize");
  auto module = factory.make_module();
  auto& f = module->as<LearnableFakeQuantize>();
  f.forward(Tensor::randn({5, 3}, 1));
  EXPECT_EQ(f.scale.shape(), Shape{5});
  EXPECT_TRUE(autograd::requires_grad(f.zero_point));
  auto fresh = factory.make_module();
  fresh->as<LearnableFakeQuantize>().set_channels(5);
  fresh->load_state_dict(module->state_dict());
  EXPECT_TRUE(equal(fresh->as<LearnableFakeQuantize>().scale.detach(), f.scale.detach()));
}

}  // namespace octet::quant
