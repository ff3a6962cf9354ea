#include "octet/quant/observe/qconfig.h"

#include <gtest/gtest.h>

#include "octet/quant/observe/histogram.h"

namespace octet::quant {
namespace {

std::string error_of(auto&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST(QConfig, DefaultsAreTheOnesUsersKnow) {
  const std::string per_channel =
      "PerChannelMinMaxObserver(dtype=qint8, qscheme=per_channel_symmetric";
  const std::string per_tensor = "MinMaxObserver(dtype=qint8, qscheme=per_tensor_symmetric)";
  const std::pair<const char*, std::string> table[] = {
      {"native",
       "PercentileObserver(own_averages=true), weight=PerChannelMSEObserver(dtype=qint8, "
       "qscheme=per_channel_symmetric, quant_min=-127, quant_max=127)"},
      {"fbgemm", "HistogramObserver(reduce_range=true), weight=" + per_channel + ")"},
      {"x86", "HistogramObserver(reduce_range=true), weight=" + per_channel + ")"},
      {"onednn", "HistogramObserver(), weight=" + per_channel + ")"},
      {"qnnpack", "HistogramObserver(), weight=" + per_tensor},
      {"default_qconfig", "MinMaxObserver(quant_min=0, quant_max=127), weight=" + per_tensor},
      {"default_per_channel_qconfig",
       "MinMaxObserver(quant_min=0, quant_max=127), weight=" + per_channel + ")"}};
  for (const auto& [name, text] : table)
    EXPECT_EQ(to_string(get_default_qconfig(name)), "QConfig(activation=" + text + ")") << name;
  EXPECT_EQ(get_default_qconfig(), get_default_qconfig("native"));
  EXPECT_EQ(get_default_qconfig("x86"), get_default_qconfig("fbgemm"));
  EXPECT_NE(get_default_qconfig("x86"), get_default_qconfig("onednn"));
  EXPECT_EQ(default_histogram_observer().options().quant_max, 127);
}

TEST(QConfig, EveryDefaultMakesWorkingObservers) {
  EXPECT_EQ(qconfig_names().size(), 27u);
  for (const std::string& name : qconfig_names()) {
    QConfig q = get_default_qconfig(name);
    for (const ObserverFactory& factory : {q.activation, q.weight}) {
      auto observer = factory.make("layer");
      observer->observe(Tensor::randn({4, 6}, 1));
      EXPECT_EQ(observer->label(), "layer");
      EXPECT_EQ(observer->chooses_qparams(), factory.chooses_qparams()) << name;
      if (!factory.chooses_qparams()) continue;
      QParams p = observer->calculate_qparams();
      EXPECT_EQ(p.dtype, factory.options().dtype);
      EXPECT_TRUE(p.warnings.empty());
    }
  }
}

TEST(QConfig, QatHasAVersionForEveryBackend) {
  for (const char* name : {"native", "fbgemm", "x86", "onednn", "qnnpack"})
    for (int version : {0, 1}) {
      QConfig q = get_default_qat_qconfig(name, version);
      for (const ObserverFactory& f : {q.activation, q.weight})
        EXPECT_EQ(f.fake_quantize_name(),
                  version ? "FusedMovingAvgObsFakeQuantize" : "FakeQuantize");
    }
  EXPECT_EQ(to_string(get_default_qat_qconfig()),
            "QConfig(activation=FusedMovingAvgObsFakeQuantize(observer=MovingAverageMinMaxObserver,"
            " quant_min=0, quant_max=255, own_averages=true), "
            "weight=FusedMovingAvgObsFakeQuantize(observer=MovingAveragePerChannelMinMaxObserver, "
            "dtype=qint8, qscheme=per_channel_symmetric, quant_min=-127, quant_max=127))");
  EXPECT_NE(error_of([] { get_default_qat_qconfig("fbgem"); }).find("did you mean 'fbgemm'?"),
            std::string::npos);
  EXPECT_NE(error_of([] { get_default_qat_qconfig("x86", 2); }).find("version 2; expected 0"),
            std::string::npos);
}

TEST(QConfig, UnknownNamesAreErrorsThatHelp) {
  std::string q = error_of([] { get_default_qconfig("fbgem"); });
  EXPECT_EQ(q.find("unknown qconfig 'fbgem'; did you mean 'fbgemm'? (known: native, a16w8, "
                   "fbgemm, x86, onednn, qnnpack, "
                   "default_qconfig, "),
            0u)
      << q;
  EXPECT_EQ(error_of([] { get_default_qconfig("tensorrt"); }).find("did you mean"),
            std::string::npos);
  std::string e = error_of([] { make_observer("HistogrammObserver", {}); });
  EXPECT_NE(e.find("did you mean 'HistogramObserver'?"), std::string::npos) << e;
  EXPECT_NE(e.find("minmax, moving-average, histogram, per-channel, moving-average-per-channel, "
                   "per-channel-mse, entropy, percentile, mse, aciq, fixed, placeholder, noop, "
                   "recording, reuse-input, identity"),
            std::string::npos)
      << e;
  EXPECT_EQ(activation_observer_names(),
            (std::vector<std::string>{"minmax", "moving-average", "histogram", "entropy",
                                      "percentile", "mse", "aciq"}));
}

TEST(ObserverFactory, MakesObserversByBothNames) {
  auto names = observer_names(), shorts = observer_short_names();
  ASSERT_EQ(names.size(), shorts.size());
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == "FixedQParamsObserver") continue;  // has no default
    EXPECT_EQ(make_observer(names[i])->type_name(), names[i]);
    EXPECT_EQ(make_observer(shorts[i])->type_name(), names[i]);
    EXPECT_EQ(ObserverFactory(shorts[i]), ObserverFactory(names[i]));
  }
}

TEST(ObserverFactory, WithArgsChangesACopy) {
  const ObserverFactory plain("histogram");
  ObserverFactory changed = plain.with_dtype(DType::qint8)
                                .with_qscheme(ObserverScheme::per_tensor_symmetric)
                                .with_quant_range(-127, 127)
                                .with_eps(0x1p-12)
                                .with_bins(4096);
  EXPECT_EQ(to_string(plain), "HistogramObserver()");
  EXPECT_EQ(
      to_string(changed),
      "HistogramObserver(dtype=qint8, qscheme=per_tensor_symmetric, quant_min=-127, quant_max=127, "
      "eps=0.000244140625, bins=4096)");
  EXPECT_NE(plain, changed);
  EXPECT_EQ(plain, changed.with_args({}));
  auto observer = changed.make("x");
  EXPECT_EQ(observer->options(), changed.options());
  EXPECT_EQ(to_string(ObserverFactory("per-channel").with_ch_axis(1).with_reduce_range(true)),
            "PerChannelMinMaxObserver(qscheme=per_channel_affine, reduce_range=true, ch_axis=1)");
  EXPECT_EQ(ObserverFactory("moving-average")
                .with_averaging_constant(0.5)
                .make()
                ->options()
                .averaging_constant,
            0.5);
}

TEST(ObserverFactory, WrapsAnObserverInAFakeQuantizeModule) {
  ObserverFactory f = ObserverFactory("moving-average").with_dtype(DType::qint8).fake_quantize();
  EXPECT_EQ(to_string(f), "FakeQuantize(observer=MovingAverageMinMaxObserver, dtype=qint8)");
  EXPECT_EQ(to_string(ObserverFactory("histogram").fake_quantize()),
            "FakeQuantize(observer=HistogramObserver)");
  EXPECT_EQ(f.without_fake_quantize(), ObserverFactory("moving-average").with_dtype(DType::qint8));
  EXPECT_NE(f, f.without_fake_quantize());
  EXPECT_EQ(f.fake_quantize("FusedMovingAvgObsFakeQuantize").fake_quantize_name(),
            "FusedMovingAvgObsFakeQuantize");
  EXPECT_NE(error_of([] {
              ObserverFactory("minmax").fake_quantize("FakeQuantise");
            }).find("did you mean 'FakeQuantize'"),
            std::string::npos);
  EXPECT_NE(error_of([] {
              ObserverFactory("minmax").fake_quantize("FusedMovingAvgObsFakeQuantize");
            }).find("expected MovingAverageMinMaxObserver"),
            std::string::npos);
  EXPECT_NE(error_of([] { ObserverFactory("minmax").fake_quantize("FixedQParamsFakeQuantize"); }),
            "no error");
  EXPECT_NE(error_of([] { default_fixed_qparams_range_0to1_observer().fake_quantize(); }),
            "no error");
  EXPECT_NE(error_of([] { ObserverFactory("noop").fake_quantize(); }), "no error");
}

TEST(ObserverFactory, NoneIsNoObserver) {
  ObserverFactory none;
  EXPECT_FALSE(none);
  EXPECT_EQ(to_string(none), "None");
  EXPECT_THROW(none.make("conv1"), Error);
  EXPECT_EQ(to_string(QConfig{}), "QConfig(activation=None, weight=None)");
}

TEST(ObserverFactory, ImpossibleOptionsFailWhenMadeNotAfterCalibration) {
  EXPECT_EQ(
      error_of([] {
        ObserverFactory("histogram").with_qscheme(ObserverScheme::per_channel_affine).make("conv1");
      }),
      "HistogramObserver of 'conv1': qscheme per_channel_affine; expected per_tensor_affine or "
      "per_tensor_symmetric "
      "(per channel: PerChannelMinMaxObserver)");
  EXPECT_NE(error_of([] {
              ObserverFactory("per-channel").with_qscheme(ObserverScheme::per_tensor_affine).make();
            }),
            "no error");
}

}  // namespace octet::quant
