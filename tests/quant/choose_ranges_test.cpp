#include "octet/quant/algorithms/choose_ranges.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "octet/graph/graph.h"
#include "octet/quant/observe/histogram.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

using Batches = std::vector<std::vector<Tensor>>;

// y = fc2(relu(fc1(x))), whose hidden value has a rare peak. The second layer reads the peak with
// the weight `peak`, all else with 1.
graph::Graph network(float peak) {
  constexpr int64_t kWidth = 16;
  graph::Graph g;
  const auto x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(kWidth)}));
  std::vector<float> first(kWidth * kWidth, 0), second(kWidth * kWidth, 0);
  for (size_t i = 0; i < kWidth; ++i) {
    first[i * kWidth + i] = i == 0 ? 60.0f : 1.0f;
    for (size_t j = 0; j < kWidth; ++j) second[i * kWidth + j] = j == 0 ? peak : i == j ? 1.0f : 0;
  }
  const auto w1 = g.add_constant("w1", Tensor::from(first, {kWidth, kWidth}));
  const auto w2 = g.add_constant("w2", Tensor::from(second, {kWidth, kWidth}));
  const auto a = g.add_call("a", "linear", {x, w1}, {}, std::nullopt, "fc1");
  const auto b = g.add_call("b", "relu", {a});
  g.set_outputs({g.add_call("y", "linear", {b, w2}, {}, std::nullopt, "fc2")});
  return g;
}

// The first input is 0 but for one sample in 20, where it is 1.
Batches batches() {
  Batches all;
  for (uint64_t i = 0; i < 4; ++i) {
    Tensor x = Tensor::randn({20, 16}, i + 1);
    for (int64_t n = 0; n < 20; ++n) x.data<float>()[n * 16] = n == 0 ? 1.0f : 0.0f;
    all.push_back({x});
  }
  return all;
}

std::shared_ptr<ObservedGraphModule> calibrated(const graph::Graph& g, const char* observer) {
  QConfig q = get_default_qconfig();
  q.activation = ObserverFactory(observer).with_args(q.activation.options());
  auto prepared = prepare_fx(g, q);
  for (const auto& batch : batches()) prepared->forward(batch);
  return prepared;
}

double noise(const graph::Graph& g, const std::shared_ptr<ObservedGraphModule>& prepared) {
  const auto before = runtime::compile(g), after = runtime::compile(convert_fx(prepared)->graph());
  double sum = 0;
  for (const auto& batch : batches()) {
    const Tensor x = before.run(batch)[0].contiguous(), y = after.run(batch)[0].contiguous();
    for (int64_t i = 0; i < x.numel(); ++i) {
      const double d = static_cast<double>(x.data<float>()[i]) - y.data<float>()[i];
      sum += d * d;
    }
  }
  return sum;
}

const std::vector<ObserverFactory>& wide_and_narrow() {
  static const std::vector<ObserverFactory> both = {
      ObserverFactory("percentile").with_percentile(100),
      ObserverFactory("percentile").with_percentile(99)};
  return both;
}

// Of the hidden value: the percentile that was chosen; -1 if the observer stayed.
double percentile_of(const std::vector<ChosenRange>& chosen, const std::string& value) {
  for (const ChosenRange& c : chosen)
    if (c.value == value) return c.observer.options().percentile;
  return -1;
}

}  // namespace

TEST(ChooseRanges, KeepsAPeakThatTheOutputDependsOnAndCutsOneThatItDoesNot) {
  auto depends = calibrated(network(1), "mse"), not_at_all = calibrated(network(0), "mse");
  const ChooseRangesOptions options{.candidates = wide_and_narrow(), .probes = 8};
  EXPECT_NE(percentile_of(choose_ranges(*depends, batches(), options), "b"), 99);
  EXPECT_EQ(percentile_of(choose_ranges(*not_at_all, batches(), options), "b"), 99);
}

TEST(ChooseRanges, LessensTheNoiseOfTheOutput) {
  const graph::Graph g = network(0);
  const double before = noise(g, calibrated(g, "mse"));
  auto chosen = calibrated(g, "mse");
  choose_ranges(*chosen, batches(), {.candidates = wide_and_narrow()});
  EXPECT_LT(noise(g, chosen), 0.5 * before);
}

TEST(ChooseRanges, SaysWhatItEstimatesAndIsTheSameAgain) {
  auto a = calibrated(network(0), "mse"), b = calibrated(network(0), "mse");
  const ChooseRangesOptions options{.candidates = wide_and_narrow()};
  const auto first = choose_ranges(*a, batches(), options),
             second = choose_ranges(*b, batches(), options);
  ASSERT_FALSE(first.empty());
  ASSERT_EQ(first.size(), second.size());
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_LT(first[i].after, first[i].before) << first[i].value;
    EXPECT_EQ(first[i].value, second[i].value);
    EXPECT_EQ(first[i].observer, second[i].observer);
    EXPECT_EQ(first[i].after, second[i].after);
  }
}

TEST(ChooseRanges, TheHistogramStaysSoThatItCanBeChosenFromAgain) {
  auto prepared = calibrated(network(0), "mse");
  const auto watched = prepared->watched();
  const std::string path = watched.observer[static_cast<size_t>(*watched.graph.find("b"))];
  const auto histogram = [&] {
    return dynamic_cast<HistogramObserver&>(*prepared->submodule(path)).histogram();
  };
  const Histogram before = histogram();
  choose_ranges(*prepared, batches(), {.candidates = wide_and_narrow()});
  EXPECT_EQ(prepared->submodule(path)->type_name(), "PercentileObserver");
  EXPECT_TRUE(histogram() == before);
}

TEST(ChooseRanges, LeavesObserversWithoutAHistogramAlone) {
  auto prepared = calibrated(network(0), "minmax");
  EXPECT_TRUE(choose_ranges(*prepared, batches()).empty());
}

TEST(ChooseRanges, WrongUseIsAnError) {
  auto prepared = calibrated(network(0), "mse");
  testing::expect_error(ErrorCode::invalid_argument, {"no samples"},
                        [&] { choose_ranges(*prepared, {}); });
  testing::expect_error(ErrorCode::invalid_argument, {"0 candidates"},
                        [&] { choose_ranges(*prepared, batches(), {.candidates = {}}); });
  testing::expect_error(ErrorCode::invalid_argument, {"keeps no histogram"}, [&] {
    choose_ranges(*prepared, batches(), {.candidates = {ObserverFactory("minmax")}});
  });
}

}  // namespace octet::quant
