#include "octet/debug/calibration.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/debug/compare_networks.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using debug::CalibrationQuality;

constexpr int64_t kCount = 64;

// Each sample is normally distributed, times its factor.
Tensor samples_of(const FaultNet& net, int64_t count,
                  const std::function<double(int64_t)>& factor) {
  Shape shape{count};
  shape.insert(shape.end(), net.input.begin(), net.input.end());
  Tensor x = Tensor::randn(shape, 5);
  const int64_t size = x.numel() / count;
  for (int64_t i = 0; i < x.numel(); ++i)
    x.data<float>()[i] *= static_cast<float>(factor(i / size));
  return x;
}

CalibrationQuality quality_of(const FaultNet& net, const Tensor& x,
                              const std::string& observer = "PercentileObserver",
                              int64_t batch = 4) {
  quant::QConfig qconfig = quant::get_default_qconfig();
  qconfig.activation = quant::ObserverFactory(observer).with_args(qconfig.activation.options());
  const auto prepared = quant::prepare_fx(net.graph, qconfig);
  debug::CalibrationWatch watch(*prepared);
  const int64_t count = x.size(0);
  for (int64_t i = 0; i < count; i += batch) {
    if (i > 0 && i == count / 2) watch.half_way(i);
    prepared->forward({x.slice(0, i, std::min(i + batch, count)).contiguous()});
  }
  return watch.finish(count);
}

const CalibrationQuality::Value& input_of(const CalibrationQuality& q) {
  for (const CalibrationQuality::Value& v : q.values)
    if (v.name == "x") return v;
  ADD_FAILURE() << "no input";
  return q.values.at(0);
}

// -- the loop -------------------------------------------------------------------------------------

debug::CalibrationData calibration_data(const Tensor& x) {
  return {.name = "x.npz",
          .count = x.size(0),
          .fixed_batch = 4,
          .get = [x](int64_t begin, int64_t size) {
            return std::vector<Tensor>{x.slice(0, begin, begin + size).contiguous()};
          }};
}

TEST(Calibrate, SaysWhatAWatchOfTheSameSamplesSays) {
  const FaultNet net = make_fault_net(fault_net_kinds()[0]);
  const Tensor x = samples_of(net, kCount, [](int64_t i) { return i < kCount / 2 ? 0.5 : 1.5; });
  const auto prepared = quant::prepare_fx(net.graph, quant::get_default_qconfig());
  debug::CalibrationData data = calibration_data(x);
  int64_t shown = 0;
  data.progress = [&](int64_t size) { shown += size; };
  const CalibrationQuality found = debug::calibrate(*prepared, data), by_hand = quality_of(net, x);
  EXPECT_EQ(shown, kCount);
  EXPECT_EQ(found.warnings, by_hand.warnings);
  EXPECT_EQ(found.moving, by_hand.moving);
  EXPECT_EQ(found.clipped, by_hand.clipped);
}

TEST(Calibrate, AnErrorNamesTheSamplesThatCannotBeUsed) {
  const FaultNet net = make_fault_net(fault_net_kinds()[0]);
  Tensor x = samples_of(net, 16, [](int64_t) { return 1.0; });
  x.data<float>()[9 * x.numel() / 16] = NAN;
  auto prepared = quant::prepare_fx(net.graph, quant::get_default_qconfig());
  expect_error(ErrorCode::invalid_argument, {"x.npz, samples 8 to 11: ", "NaN"},
               [&] { debug::calibrate(*prepared, calibration_data(x)); });
  debug::CalibrationData none = calibration_data(x);
  none.count = 0;
  expect_error(ErrorCode::invalid_argument, {"x.npz has no samples"},
               [&] { debug::calibrate(*prepared, none); });
}

TEST(Calibrate, WhereNoRangeDependsOnSamplesThereIsNothingToSay) {
  const FaultNet net = make_fault_net(fault_net_kinds()[0]);
  const auto prepared = quant::prepare_fx(net.graph, quant::default_dynamic_qconfig());
  const CalibrationQuality found = debug::calibrate(
      *prepared, calibration_data(samples_of(net, 4, [](int64_t) { return 1.0; })));
  EXPECT_TRUE(found.values.empty());
  EXPECT_EQ(found.warnings, std::vector<std::string>{});
}

TEST(Calibrate, LargeValuesRunFewAtATime) {
  const auto graph_of = [](int64_t size) {
    return graph::parse("graph g {\n%x: Float(N, " + std::to_string(size) +
                        ") = input\nreturn (%x)\n}\n");
  };
  EXPECT_EQ(debug::samples_at_once(graph_of(16)), 32);
  EXPECT_EQ(debug::samples_at_once(graph_of(int64_t{4} << 20)), 8);
  EXPECT_EQ(debug::samples_at_once(graph_of(int64_t{1} << 30)), 1);
}

class CalibrationSets : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Networks, CalibrationSets, ::testing::ValuesIn(fault_net_kinds()),
                         [](const auto& info) { return info.param; });

TEST_P(CalibrationSets, EnoughLikeSamplesAreEnough) {
  const FaultNet net = make_fault_net(GetParam());
  for (const char* observer : {"PercentileObserver", "HistogramObserver", "MinMaxObserver"}) {
    const CalibrationQuality q =
        quality_of(net, samples_of(net, kCount, [](int64_t) { return 1.0; }), observer);
    EXPECT_EQ(q.warnings, std::vector<std::string>{}) << observer;
    EXPECT_EQ(q.suggested, kCount);
    EXPECT_EQ(q.influences.size(), 0u);
  }
}

TEST_P(CalibrationSets, SamplesThatGrowMoveTheRangesAndAreCutOff) {
  const FaultNet net = make_fault_net(GetParam());
  const CalibrationQuality q = quality_of(
      net, samples_of(net, kCount, [](int64_t i) { return i < kCount / 2 ? 0.5 : 1.5; }));
  EXPECT_NEAR(input_of(q).moved, 2.0 / 3, 0.1);
  EXPECT_GT(q.clipped, 0.01);
  EXPECT_GT(q.suggested, kCount);
  const auto is_said = [&](const std::string& part) {
    return std::any_of(q.warnings.begin(), q.warnings.end(),
                       [&](const std::string& w) { return w.find(part) != std::string::npos; });
  };
  EXPECT_TRUE(is_said("cut off"));
  if (GetParam() == "transformer") return;  // behind its layer norm ranges are alike
  EXPECT_GT(q.moving, 0.5);
  EXPECT_TRUE(is_said("still moved"));
}

TEST_P(CalibrationSets, TheSampleThatSetsRangesIsNamed) {
  const FaultNet net = make_fault_net(GetParam());
  const Tensor x = samples_of(net, kCount, [](int64_t i) { return i == 9 ? 12.0 : 1.0; });
  const CalibrationQuality q = quality_of(net, x, "MinMaxObserver");
  ASSERT_FALSE(q.influences.empty());
  EXPECT_EQ(q.influences[0].sample, 9);
  EXPECT_EQ(input_of(q).sample, 9);
  EXPECT_GT(input_of(q).times, 6);
  EXPECT_LT(input_of(q).times, 16);
  ASSERT_FALSE(q.warnings.empty());
  EXPECT_NE(q.warnings.back().find("sample 9 alone"), std::string::npos) << q.warnings.back();
}

TEST(Calibration, ClippedIsTheShareOfTheOtherHalf) {
  const FaultNet net = make_fault_net("plain");
  Tensor x = samples_of(net, 32, [](int64_t) { return 1.0; });
  const int64_t half = x.numel() / 2;
  float* p = x.data<float>();
  for (int64_t i = 0; i < x.numel(); ++i) p[i] = i < half || i % 8 != 0 ? 0.001F * (i % 1000) : 5;
  const CalibrationQuality q = quality_of(net, x, "PercentileObserver", 16);
  EXPECT_NEAR(input_of(q).clipped, 1.0 / 8, 1e-3);
}

TEST(Calibration, WhatTheObserverCutsOffSetsNoRange) {
  const FaultNet net = make_fault_net("plain");
  Tensor x = samples_of(net, kCount, [](int64_t) { return 1.0; });
  x.data<float>()[9 * (x.numel() / kCount) + 3] = 1000;
  EXPECT_GT(input_of(quality_of(net, x, "MinMaxObserver")).times, 100);
  EXPECT_LT(input_of(quality_of(net, x)).times, CalibrationQuality::kAlone);
}

TEST(Calibration, BatchesDoNotMatter) {
  const FaultNet net = make_fault_net("residual");
  const Tensor x = samples_of(net, kCount, [](int64_t i) { return 1.0 + 0.1 * (i % 7); });
  const CalibrationQuality a = quality_of(net, x, "HistogramObserver", 1),
                           b = quality_of(net, x, "HistogramObserver", 32);
  ASSERT_EQ(a.values.size(), b.values.size());
  for (size_t i = 0; i < a.values.size(); ++i) {
    EXPECT_EQ(a.values[i].name, b.values[i].name);
    EXPECT_EQ(a.values[i].moved, b.values[i].moved);
    EXPECT_EQ(a.values[i].clipped, b.values[i].clipped);
    EXPECT_EQ(a.values[i].sample, b.values[i].sample);
  }
}

TEST(Calibration, FewSamplesAreFew) {
  const FaultNet net = make_fault_net("plain");
  const CalibrationQuality one = quality_of(net, samples_of(net, 1, [](int64_t) { return 1.0; }));
  ASSERT_EQ(one.warnings.size(), 1u);
  EXPECT_NE(one.warnings[0].find("1 sample is few; give 32"), std::string::npos) << one.warnings[0];
  EXPECT_TRUE(std::isnan(one.moving));
}

TEST(Calibration, WithoutSamplesIsAnError) {
  const FaultNet net = make_fault_net("plain");
  const auto prepared = quant::prepare_fx(net.graph, quant::get_default_qconfig());
  expect_error(ErrorCode::not_calibrated, {"no samples"},
               [&] { debug::CalibrationWatch(*prepared).finish(0); });
}

}  // namespace
}  // namespace octet::testing
