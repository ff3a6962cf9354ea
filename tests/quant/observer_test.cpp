#include "octet/quant/observe/observer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "octet/autograd/autograd.h"
#include "octet/nn/registry.h"
#include "octet/quant/observe/min_max.h"
#include "octet/quant/observe/qconfig.h"

namespace octet::quant {
namespace {

using Floats = std::vector<float>;

Error error_of(auto&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e;
  }
  return Error(ErrorCode::internal, "no error");
}

std::string message_of(auto&& fn) { return error_of(fn).what(); }

// The observers that choose qparams from data.
std::vector<std::string> calibrating_observers() {
  std::vector<std::string> names;
  for (const std::string& name : observer_names())
    if (ObserverFactory(name).chooses_qparams() && name != "FixedQParamsObserver")
      names.push_back(name);
  EXPECT_GE(names.size(), 8u);
  return names;
}

constexpr ObserverScheme kAffine = ObserverScheme::per_tensor_affine,
                         kSymmetric = ObserverScheme::per_tensor_symmetric;
constexpr ObserverScheme kChannelAffine = ObserverScheme::per_channel_affine;
constexpr ObserverScheme kChannelSymmetric = ObserverScheme::per_channel_symmetric;

}  // namespace

TEST(ChooseQParams, FollowsTheFormulas) {
  struct Case {
    float min, max;
    ObserverOptions options;
    float scale;
    int64_t zero_point;
  };
  const Case table[] = {
      {0, 255, {}, 1, 0},
      {-1, 1, {}, 2.0f / 255, 127},  // f(2/255) is a little large, so f(-1 / scale) = -127.49999
      {5, 10, {}, 10.0f / 255, 0},   // widened to 0
      {-10, -5, {}, 10.0f / 255, 255},
      {0, 0, {}, 0x1p-23f, 0},
      {-1, 1, {.dtype = DType::qint8}, 2.0f / 255, -1},
      {-1, 1, {.dtype = DType::qint8, .qscheme = kSymmetric}, 1 / 127.5f, 0},
      {-1,
       2,
       {.dtype = DType::qint8, .qscheme = kSymmetric, .quant_min = -127, .quant_max = 127},
       2.0f / 127,
       0},
      {-1, 2, {.qscheme = kSymmetric}, 2 / 127.5f, 128},
      {-1, 2, {.qscheme = kSymmetric, .quant_min = 0, .quant_max = 127}, 2 / 63.5f, 63},
      {0, 127, {.reduce_range = true}, 1, 0},
      {-64, 63, {.dtype = DType::qint8, .reduce_range = true}, 1, 0},
      {0, 1, {.eps = 0.5}, 0.5f, 0},
      {0, 1, {.quant_min = 0, .quant_max = 15}, 1.0f / 15, 0},
  };
  for (const Case& c : table) {
    auto [s, z] = choose_qparams(c.min, c.max, c.options);
    EXPECT_EQ(s, c.scale) << c.min << " " << c.max << " " << to_string(c.options);
    EXPECT_EQ(z, c.zero_point) << c.min << " " << c.max << " " << to_string(c.options);
  }
}

TEST(ChooseQParams, AScaleIsAlwaysANormalNumber) {
  const float huge = std::numeric_limits<float>::max(),
              tiny = std::numeric_limits<float>::denorm_min();
  for (float lo : {-huge, -1e30f, -1.0f, -1e-30f, -tiny, 0.0f, 1.0f})
    for (float hi : {0.0f, tiny, 1e-20f, 1.0f, 1e38f, huge})
      for (ObserverScheme scheme : {kAffine, kSymmetric})
        for (int64_t top : {1, 15, 255})
          for (double eps : {0x1p-23, 0x1p-126}) {
            if (lo > hi) continue;
            ObserverOptions options{
                .qscheme = scheme, .quant_min = 0, .quant_max = top, .eps = eps};
            auto [s, z] = choose_qparams(lo, hi, options);
            EXPECT_TRUE(std::isnormal(s) && std::isfinite(1 / s)) << lo << " " << hi;
            EXPECT_TRUE(z >= 0 && z <= top);
          }
}

TEST(ChooseFloatQParams, KeepsTheZeroPointAsAFloat) {
  ObserverOptions options{.qscheme = ObserverScheme::per_channel_affine_float_qparams};
  EXPECT_EQ(choose_float_qparams(1, 256, options), (FloatQParams{1, -1}));  // not widened to 0
  EXPECT_EQ(choose_float_qparams(-0.5f, 127, options), (FloatQParams{0.5f, 1}));
  // constant: code 0 is exactly it
  EXPECT_EQ(choose_float_qparams(3, 3, options), (FloatQParams{1, -3}));
  EXPECT_EQ(
      choose_float_qparams(-1, 2, {.qscheme = options.qscheme, .quant_min = 0, .quant_max = 15}),
      (FloatQParams{3.0f / 15, 1 / (3.0f / 15)}));
  const float huge = std::numeric_limits<float>::max();
  EXPECT_TRUE(std::isfinite(choose_float_qparams(-huge, huge, options).scale));
}

TEST(ChooseQParams, Of16BitsHaveTheSameRules) {
  const auto chosen = [](DType dtype, ObserverScheme scheme) {
    return choose_qparams(-1, 3, {.dtype = dtype, .qscheme = scheme});
  };
  EXPECT_EQ(chosen(DType::quint16, ObserverScheme::per_tensor_affine),
            (ScaleZeroPoint{4.0f / 65535, 16384}));
  EXPECT_EQ(chosen(DType::qint16, ObserverScheme::per_tensor_affine),
            (ScaleZeroPoint{4.0f / 65535, 16384 - 32768}));
  EXPECT_EQ(chosen(DType::quint16, kSymmetric), (ScaleZeroPoint{3 / 32767.5f, 32768}));
  EXPECT_EQ(chosen(DType::qint16, kSymmetric), (ScaleZeroPoint{3 / 32767.5f, 0}));
}

TEST(CodeRange, IsPyTorchs) {
  EXPECT_EQ(code_range({}), (CodeRange{0, 255}));
  EXPECT_EQ(code_range({.reduce_range = true}), (CodeRange{0, 127}));
  EXPECT_EQ(code_range({.dtype = DType::qint8, .reduce_range = true}), (CodeRange{-64, 63}));
  EXPECT_EQ(code_range({.dtype = DType::qint8, .quant_min = -127, .quant_max = 127}),
            (CodeRange{-127, 127}));
  EXPECT_EQ(code_range(
                {.dtype = DType::qint8, .quant_min = -127, .quant_max = 127, .reduce_range = true}),
            (CodeRange{-64, 63}));
  EXPECT_EQ(code_range({.dtype = DType::quint16}), (CodeRange{0, 65535}));
  EXPECT_EQ(code_range({.dtype = DType::qint16, .reduce_range = true}), (CodeRange{-16384, 16383}));
  EXPECT_EQ(code_range({.dtype = DType::qint32}), (CodeRange{-2147483648, 2147483647}));
}

TEST(ObserverOptions, AreCheckedBeforeAnyDataIsSeen) {
  const std::pair<ObserverOptions, const char*> table[] = {
      {{.dtype = DType::float32},
       "conv1: dtype float32; expected quint8, qint8, quint16, qint16 or qint32"},
      {{.quant_min = 0}, "conv1: quant_min is given without quant_max; give both or neither"},
      {{.quant_min = 1, .quant_max = 10},
       "conv1: codes 1..10; expected quant_min < quant_max with 0 between them"},
      {{.quant_min = -1, .quant_max = 10}, "conv1: codes -1..10; quint8 holds 0..255"},
      {{.dtype = DType::qint8, .quant_min = 0, .quant_max = 255},
       "conv1: codes 0..255; qint8 holds -128..127"},
      {{.quant_min = 0, .quant_max = 4095},
       "conv1: codes 0..4095; quint8 holds 0..255: for more codes give dtype quint16 or qint16"},
      {{.quant_min = 0, .quant_max = 1, .reduce_range = true},
       "conv1: reduce_range leaves only the code 0"},
      {{.dtype = DType::qint32, .reduce_range = true},
       "conv1: reduce_range is for 8 and 16 bits; dtype is qint32"},
      {{.eps = 0}, "conv1: eps 0; expected a number >= 2^-126 (1.18e-38) and <= 1e30"},
      {{.ch_axis = -1}, "conv1: ch_axis -1; count dimensions from the front, 0 or more"},
      {{.averaging_constant = 0}, "conv1: averaging_constant 0; expected a number > 0 and <= 1"},
      {{.bins = 8}, "conv1: bins 8; expected 16 to 65536"},
      {{.percentile = 0}, "conv1: percentile 0; expected a number > 0 and <= 100"},
      {{.is_dynamic = true}, "conv1: is_dynamic is for PlaceholderObserver"},
      {{.scale = 1},
       "conv1: scale and zero_point are for FixedQParamsObserver; this observer chooses its own"},
  };
  for (const auto& [options, text] : table)
    EXPECT_EQ(message_of([&] { validate(options, "conv1"); }), text);
  EXPECT_EQ(error_of([] { validate({.qscheme = kSymmetric, .reduce_range = true}, "x"); }).code(),
            ErrorCode::unsupported);
  EXPECT_EQ(message_of([] { parse_observer_scheme("affine"); }),
            "qscheme 'affine': expected one of per_tensor_affine, per_tensor_symmetric, "
            "per_channel_affine, "
            "per_channel_symmetric, per_channel_affine_float_qparams");
}

TEST(CalculateQParams, SaysWhichChannelsAreOdd) {
  ObserverOptions options{.dtype = DType::qint8, .qscheme = kChannelSymmetric};
  Floats lo = {-1, 0, -1, 0, 2, -1e-9f}, hi = {1, 0, 2, 0, 2, 1e-9f};
  QParams q = calculate_qparams(lo, hi, options, "conv1.weight");
  EXPECT_EQ(q.warnings,
            (std::vector<std::string>{
                "conv1.weight channels 1, 3 (2 of 6): all zeros; scale set to 1.19e-07",
                "conv1.weight channel 5: tiny range [-1e-09, 1e-09]; scale raised to eps, 1.19e-07",
                "conv1.weight channel 4: all values are 2; scale set to 0.0157"}));
  EXPECT_EQ(q.quantizer->axis(), 0);
  EXPECT_EQ(q.quantizer->scales().size(), 6u);
  EXPECT_EQ(
      calculate_qparams(Floats(100, 0.0f), Floats(100, 0.0f), options, "w").warnings[0],
      "w channels 0, 1, 2, 3, 4, 5, 6, 7, ... (100 of 100): all zeros; scale set to 1.19e-07");
  EXPECT_TRUE(calculate_qparams(Floats{-1, 2}, Floats{1, 3}, options, "w").warnings.empty());
}

TEST(CalculateQParams, RejectsRangesThatAreNone) {
  EXPECT_EQ(message_of([] { calculate_qparams(Floats{1}, Floats{0}, {}, "fc"); }),
            "fc: range [1, 0]; expected finite numbers, min <= max");
  EXPECT_NE(message_of([] {
              calculate_qparams(Floats{0, NAN}, Floats{0, NAN}, {.qscheme = kChannelAffine}, "fc");
            }).find("of channel 1"),
            std::string::npos);
  EXPECT_THROW(calculate_qparams(Floats{0, 1}, Floats{0, 1}, {}), Error);
  EXPECT_THROW(calculate_qparams(Floats{0, 1}, Floats{0}, {.qscheme = kChannelAffine}), Error);
  QParams q = calculate_qparams(Tensor::scalar(-1), Tensor::scalar(1), {});
  EXPECT_EQ(q.quantizer->zero_point(), 127);
}

TEST(Observer, WithoutDataIsNotCalibrated) {
  for (const std::string& name : calibrating_observers()) {
    auto o = make_observer(name);
    o->set_label("layer1.conv");
    EXPECT_TRUE(o->empty());
    o->observe(Tensor::zeros({0, 3}));  // an empty batch is no data
    EXPECT_TRUE(o->empty());
    Error e = error_of([&] { o->calculate_qparams(); });
    EXPECT_EQ(e.code(), ErrorCode::not_calibrated);
    EXPECT_EQ(e.what(),
              name +
                  " of 'layer1.conv' has seen no data; calibrate first: run the prepared model on "
                  "representative inputs");
  }
}

TEST(Observer, PoisonedDataIsAnErrorAndChangesNothing) {
  for (const std::string& name : calibrating_observers()) {
    auto o = make_observer(name);
    o->set_label("layer1");
    o->observe(Tensor::from(Floats{1, 2, 3, 4}, {2, 2}));
    std::string before = to_string(*o);
    std::string e = message_of([&] {
      o->observe(Tensor::from(Floats{1, NAN, 99, -INFINITY}, {2, 2}));
    });
    EXPECT_NE(e.find(name + " of 'layer1': 1 NaN and 1 infinite among 4 values"), std::string::npos)
        << e;
    EXPECT_EQ(to_string(*o), before);
    // Wherever it hides in a large tensor.
    for (int64_t at : {0, 31, 32, 999}) {
      Tensor x = Tensor::ones({2, 500});
      x.data<float>()[at] = INFINITY;
      EXPECT_THROW(o->observe(x), Error);
      EXPECT_THROW(o->observe(x.reshape({1000})), Error);
    }
  }
}

TEST(Observer, AllAnswerAlikeWhenResetClonedAndForwarded) {
  Tensor x = Tensor::randn({3, 4}, 1);
  for (const std::string& name : calibrating_observers()) {
    auto o = make_observer(name);
    Tensor y = o->forward(x);
    EXPECT_EQ(y.raw_data(), x.raw_data());
    auto copy = std::static_pointer_cast<Observer>(o->clone());
    EXPECT_EQ(to_string(*copy), to_string(*o));
    EXPECT_EQ(*copy->calculate_qparams().quantizer, *o->calculate_qparams().quantizer);
    copy->observe(Tensor::full({3, 4}, 50));
    EXPECT_NE(to_string(*copy), to_string(*o));
    copy->reset();
    EXPECT_TRUE(copy->empty());
    EXPECT_EQ(to_string(*copy), to_string(*make_observer(name)));
    copy->observe(x);
    EXPECT_EQ(*copy->calculate_qparams().quantizer, *o->calculate_qparams().quantizer);
    Tensor q = quantize(x, o->calculate_qparams().quantizer, o->calculate_qparams().dtype);
    EXPECT_LT(std::abs(q.at({1, 2}) - x.at({1, 2})), 0.02);
    EXPECT_THROW(o->observe(q), Error);  // already quantized
    EXPECT_THROW(o->observe(Tensor()), Error);
  }
}

TEST(Observer, PrintsLikePyTorch) {
  MinMaxObserver o;
  EXPECT_EQ(to_string(o), "MinMaxObserver(min_val=inf, max_val=-inf)");
  o.observe(Tensor::from({-1.5f, 2.25f}));
  EXPECT_EQ(to_string(o), "MinMaxObserver(min_val=-1.5, max_val=2.25)");
  PerChannelMinMaxObserver c;
  EXPECT_EQ(to_string(c), "PerChannelMinMaxObserver(min_val=[], max_val=[])");
  c.observe(Tensor::from(Floats{1, 2, 3, 4}, {2, 2}));
  EXPECT_EQ(to_string(c), "PerChannelMinMaxObserver(min_val=[1, 3], max_val=[2, 4])");
}

TEST(Observer, MergingIsSeeingBoth) {
  for (const std::string& name : calibrating_observers()) {
    auto a = make_observer(name), b = make_observer(name), both = make_observer(name),
         empty = make_observer(name);
    for (uint64_t k = 0; k < 7; ++k) {
      Tensor x = Tensor::rand({3, 50}, k, -1 - static_cast<double>(k), 2 + static_cast<double>(k));
      (k < 4 ? a : b)->observe(x);
      both->observe(x);
    }
    a->merge(*b);
    a->merge(*empty);
    empty->merge(*a);
    for (const auto* o : {a.get(), empty.get()}) {
      if (name.find("Moving") == std::string::npos) {
        EXPECT_EQ(to_string(*o), to_string(*both));
        EXPECT_EQ(*o->calculate_qparams().quantizer, *both->calculate_qparams().quantizer);
      } else {  // an average: up to rounding
        EXPECT_TRUE(allclose(o->min_val(), both->min_val(), 1e-6))
            << to_string(*o) << to_string(*both);
        EXPECT_TRUE(allclose(o->max_val(), both->max_val(), 1e-6));
      }
    }
    a->observe(Tensor::full({3, 50}, 9));  // and goes on from there
    both->observe(Tensor::full({3, 50}, 9));
    EXPECT_TRUE(allclose(a->max_val(), both->max_val(), 1e-6));
  }
}

TEST(Observer, StateDictsRestoreCalibrationExactly) {
  for (const std::string& name : calibrating_observers()) {
    auto seen = make_observer(name), restored = make_observer(name);
    auto fresh = make_observer(name)->state_dict();
    for (uint64_t k = 0; k < 3; ++k) seen->observe(Tensor::randn({3, 40}, k));
    restored->load_state_dict(seen->state_dict());
    EXPECT_EQ(to_string(*restored), to_string(*seen));
    // goes on as if nothing had happened
    for (auto& o : {seen, restored}) o->observe(Tensor::rand({3, 40}, 9, -7, 3));
    EXPECT_EQ(to_string(*restored), to_string(*seen));
    EXPECT_EQ(*restored->calculate_qparams().quantizer, *seen->calculate_qparams().quantizer);
    auto more = make_observer(name);
    more->observe(Tensor::randn({3, 40}, 20));
    for (auto& o : {seen, restored}) o->merge(*more);
    EXPECT_EQ(to_string(*restored), to_string(*seen));
    restored->load_state_dict(fresh);
    EXPECT_TRUE(restored->empty());
  }
}

TEST(Observer, ADamagedStateIsRefusedAndChangesNothing) {
  for (const std::string& name : calibrating_observers()) {
    auto o = make_observer(name);
    o->set_label("conv1");
    o->observe(Tensor::randn({2, 40}, 1));
    std::string before = to_string(*o);
    auto good = o->state_dict();
    for (const auto& [key, value] : good) {
      std::vector<Tensor> wrong = {Tensor::full(value.shape(), -3, DType::float64),
                                   Tensor::zeros({5, 5}, value.dtype())};
      if (value.dtype() == DType::float32) wrong.push_back(Tensor::full(value.shape(), NAN));
      for (const Tensor& w : wrong) {
        if (name.find("Moving") != std::string::npos && key.find("first") == 0 &&
            w.dtype() == DType::float32)
          continue;
        auto bad = good;
        bad[key] = w;
        std::string e = message_of([&] { o->load_state_dict(bad); });
        EXPECT_NE(e.find(name + " of 'conv1': its state in the state dict is damaged"),
                  std::string::npos)
            << key << e;
        EXPECT_EQ(to_string(*o), before);
      }
    }
  }
}

TEST(Observer, IsAModuleThatObservesAndReturnsItsInput) {
  for (const std::string& name : calibrating_observers()) {
    auto o = make_observer(name);
    Tensor x = Tensor::randn({2, 4}, 1);
    autograd::set_requires_grad(x);
    nn::Module& module = *o;
    Tensor y = module(x);
    EXPECT_EQ(y.id(), x.id());  // nothing is recorded
    EXPECT_FALSE(o->empty());
    EXPECT_EQ(nn::to_string(module), to_string(*o));
    auto again = nn::make_registered(nn::registered_name(module), module.config());
    EXPECT_EQ(again->as<Observer>().options(), o->options());
    EXPECT_EQ(again->type_name(), name);
  }
  auto o = make_observer(
      "histogram", {.dtype = DType::qint8, .reduce_range = true, .eps = 0.5, .bins = 99}, "fc");
  auto again = nn::make_registered(nn::registered_name(*o), o->config());
  EXPECT_EQ(again->as<Observer>().options(), o->options());
  EXPECT_EQ(again->as<Observer>().label(), "fc");
}

TEST(Observer, MergesOnlyItsLike) {
  MinMaxObserver a({}, "x");
  MovingAverageMinMaxObserver b({}, "y");
  EXPECT_EQ(message_of([&] { a.merge(b); }),
            "MinMaxObserver of 'x': cannot merge a MovingAverageMinMaxObserver of 'y'; the classes "
            "must be equal");
  MinMaxObserver c({.reduce_range = true});
  EXPECT_EQ(message_of([&] { a.merge(c); }),
            "MinMaxObserver of 'x': cannot merge an observer with other options: "
            "(reduce_range=true), this one has ()");
}

TEST(MinMaxObserver, IgnoresOrderAndLayout) {
  Tensor x = Tensor::randn({2, 3, 5, 7}, 3);
  MinMaxObserver whole, parts, last;
  whole.observe(x);
  for (int64_t i : {1, 0}) parts.observe(x.slice(0, i, i + 1));
  last.observe(x.permute({2, 3, 1, 0}));
  EXPECT_EQ(to_string(whole), to_string(parts));
  EXPECT_EQ(to_string(whole), to_string(last));
  MinMaxObserver integers;
  integers.observe(Tensor::from<int64_t>({-3, 12}));
  EXPECT_EQ(to_string(integers), "MinMaxObserver(min_val=-3, max_val=12)");
  MinMaxObserver zero;
  zero.observe(Tensor::from({-0.0f}));
  EXPECT_FALSE(std::signbit(zero.min_val().item()));
}

TEST(MovingAverageMinMaxObserver, MovesByTheConstant) {
  MovingAverageMinMaxObserver o({.averaging_constant = 0.25});
  o.observe(Tensor::from({-4.0f, 4.0f}));
  o.observe(Tensor::from({0.0f, 8.0f}));
  EXPECT_EQ(o.min_val().item(), -3);
  EXPECT_EQ(o.max_val().item(), 5);
}

TEST(MovingAverageMinMaxObserver, RoundingNeverPutsTheMinimumAboveTheMaximum) {
  MovingAverageMinMaxObserver o({.averaging_constant = 0.3}, "x");
  for (uint64_t k = 0; k < 2000; ++k) {  // one value a batch: both ends move together
    float v = static_cast<float>(k % 7) * 0.1f;
    o.observe(k < 1 ? Tensor::from({0.0f, 1e-7f}) : Tensor::from({v}));
  }
  EXPECT_LE(o.min_val().item(), o.max_val().item());
  EXPECT_NO_THROW(o.calculate_qparams());
}

TEST(PerChannelMinMaxObserver, ReducesAllButTheChannelAxis) {
  Tensor x = Tensor::randn({3, 4, 5, 2}, 4);
  for (int64_t axis = 0; axis < 4; ++axis) {
    PerChannelMinMaxObserver o(
        {.dtype = DType::qint8, .qscheme = kChannelSymmetric, .ch_axis = axis});
    o.observe(x);
    PerChannelMinMaxObserver strided(o.options());
    strided.observe(x.permute({3, 2, 1, 0}).clone().permute({3, 2, 1, 0}));
    EXPECT_EQ(to_string(o), to_string(strided));
    QParams q = o.calculate_qparams();
    EXPECT_EQ(q.quantizer->axis(), axis);
    ASSERT_EQ(o.min_val().numel(), x.size(axis));
    for (int64_t c = 0; c < x.size(axis); ++c) {
      MinMaxObserver one;
      one.observe(x.select(axis, c));
      EXPECT_EQ(o.min_val().at({c}), one.min_val().item());
      EXPECT_EQ(o.max_val().at({c}), one.max_val().item());
    }
    EXPECT_NO_THROW(quantize(x, q.quantizer, q.dtype));
  }
}

TEST(PerChannelMinMaxObserver, ChecksTheChannels) {
  PerChannelMinMaxObserver o({.qscheme = kChannelAffine, .ch_axis = 1}, "conv1.weight");
  EXPECT_EQ(
      message_of([&] { o.observe(Tensor::ones({4})); }),
      "PerChannelMinMaxObserver of 'conv1.weight': ch_axis is 1, but the tensor has shape (4)");
  o.observe(Tensor::ones({2, 3}));
  EXPECT_EQ(
      message_of([&] {
        o.observe(Tensor::ones({2, 4}));
      }),
      "PerChannelMinMaxObserver of 'conv1.weight': 4 channels along axis 1, before there were 3");
  PerChannelMinMaxObserver other(o.options());
  other.observe(Tensor::ones({2, 5}));
  EXPECT_THROW(o.merge(other), Error);
  EXPECT_THROW(PerChannelMinMaxObserver({.qscheme = kAffine}), Error);
  EXPECT_THROW(MinMaxObserver({.qscheme = kChannelAffine}), Error);
}

}  // namespace octet::quant
