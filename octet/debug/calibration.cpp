#include "octet/debug/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/quant/observe/histogram.h"
#include "octet/quant/observe/passive.h"
#include "octet/quant/workflow/statistics.h"

namespace octet::debug {

using graph::ValueId;
using quant::HistogramObserver;
using quant::Observer;

namespace {

constexpr int64_t kLeastSamples = 16, kMostSuggested = 1024;
constexpr double kMostMoving = 0.5;     // of the values
constexpr double kMostClipped = 0.002;  // of the elements
constexpr double kSettled = 0.1;        // what ranges may move by
constexpr double kFarWider = 8;         // a range that one sample sets, in times
constexpr double kManyRanges = 0.1;     // of the values: that one sample may set
constexpr int64_t kFewestBatches = 8;
constexpr int64_t kMostAtOnce = 32;  // samples of a batch

// The observers that choose a range from data, once each, by path, with the values that they are
// shown.
std::map<std::string, std::vector<ValueId>> range_observers(
    const quant::ObservedGraphModule& prepared,
    const quant::ObservedGraphModule::Watched& watched) {
  std::map<std::string, std::vector<ValueId>> all;
  for (size_t v = 0; v < watched.observer.size(); ++v) {
    const auto id = static_cast<ValueId>(v);
    const std::string& path = watched.observer[v];
    if (path.empty() || !watched.shown[v] || watched.graph.is_constant(id)) continue;
    const auto* observer = dynamic_cast<const Observer*>(prepared.submodule(path).get());
    if (observer && observer->chooses_qparams() &&
        !dynamic_cast<const quant::FixedQParamsObserver*>(observer))
      all[path].push_back(id);
  }
  return all;
}

std::pair<float, float> chosen_range(const Observer& observer) {
  const quant::QParams q = observer.calculate_qparams();
  return {static_cast<float>(q.scales[0] * (static_cast<double>(q.quant_min) - q.zero_points[0])),
          static_cast<float>(q.scales[0] * (static_cast<double>(q.quant_max) - q.zero_points[0]))};
}

// Elements in bins that lie beyond the range.
uint64_t count_beyond(const quant::Histogram& h, float low, float high) {
  uint64_t n = 0;
  for (int64_t i = 0; i < h.size(); ++i) {
    const double from = h.constant() ? h.min() : h.edge(i),
                 to = h.constant() ? h.max() : h.edge(i + 1);
    if (from >= high || to <= low) n += h.count(i);
  }
  return n;
}

double span_of(const quant::SampleRanges::Range& r) {
  return r.empty() ? 0 : std::max(r.max, 0.F) - std::min(r.min, 0.F);
}

}  // namespace

void CalibrationWatch::half_way(int64_t samples) {
  half_ = samples;
  for (const auto& [path, values] : range_observers(prepared_, prepared_.watched_as_prepared())) {
    const auto& observer = dynamic_cast<const Observer&>(*prepared_.submodule(path));
    if (observer.empty()) continue;
    Half& half = at_half_[path];
    std::tie(half.low, half.high) = chosen_range(observer);
    if (const auto* h = dynamic_cast<const HistogramObserver*>(&observer)) {
      half.values = h->histogram().total();
      half.beyond = count_beyond(h->histogram(), half.low, half.high);
    }
  }
}

namespace {
// How many samples to take, and the warnings. `compared`: there are ranges of half of the samples.
void give_advice(CalibrationQuality& quality, bool compared) {
  const int64_t samples = quality.samples;
  quality.suggested = samples;
  if (compared) {
    const double median = quality.values[quality.values.size() / 2].moved;
    double doublings = 0;
    if (quality.moving > kMostMoving || quality.clipped > kMostClipped)
      doublings = std::max(1.0, std::ceil(std::log2(median / kSettled)));
    quality.suggested = std::max(
        samples, std::min(kMostSuggested, static_cast<int64_t>(static_cast<double>(samples) *
                                                               std::exp2(doublings))));
  }
  if (samples < kLeastSamples) quality.suggested = std::max(quality.suggested, 2 * kLeastSamples);
  const std::string give = fmt::format("; give {} or more", quality.suggested);
  if (samples < kLeastSamples)
    quality.warnings.push_back(fmt::format("calibration: {} sample{} {} few{}", samples,
                                           samples == 1 ? "" : "s", samples == 1 ? "is" : "are",
                                           give));
  // One sample that sets many ranges explains why these moved.
  const CalibrationQuality::Influence* one = nullptr;
  for (const CalibrationQuality::Influence& i : quality.influences)
    if (static_cast<double>(i.values) >= kManyRanges * static_cast<double>(quality.values.size()) ||
        (std::isfinite(i.times) && i.times >= kFarWider)) {
      one = &i;
      break;
    }
  if (one)
    quality.warnings.push_back(fmt::format(
        "calibration: sample {} alone sets {} of {} ranges; without it that of %{} is {}; take it "
        "out if it is wrong, give more like it if it is right",
        one->sample, one->values, quality.values.size(), one->value,
        std::isfinite(one->times) ? fmt::format("{:.3g} times narrower", one->times)
                                  : std::string("empty")));
  if (one && one->sample >= quality.half) return;
  if (quality.moving > kMostMoving) {
    const CalibrationQuality::Value& most = quality.values[0];
    quality.warnings.push_back(fmt::format(
        "calibration: {:.0f}% of the ranges still moved by more than {:.0f}% in the last {} of {} "
        "samples, most of all %{} by {:.0f}%{}",
        100 * quality.moving, 100 * CalibrationQuality::kMoves, samples - quality.half, samples,
        most.name, 100 * most.moved, give));
  }
  if (quality.clipped > kMostClipped)
    quality.warnings.push_back(
        fmt::format("calibration: ranges of the first {} samples cut off {:.2g}% of the values of "
                    "the other {}{}",
                    quality.half, 100 * quality.clipped, samples - quality.half, give));
}
}  // namespace

CalibrationQuality CalibrationWatch::finish(int64_t samples) const {
  CalibrationQuality quality{.samples = samples, .half = half_};
  const auto watched = prepared_.watched_as_prepared();
  std::map<int64_t, CalibrationQuality::Influence> influences;
  double clipped = 0;
  int64_t moving = 0, compared = 0;
  uint64_t counted = 0;  // elements
  const auto observers = range_observers(prepared_, watched);
  if (observers.empty()) return quality;  // no range depends on samples: all are dynamic, say
  for (const auto& [path, values] : observers) {
    const auto& observer = dynamic_cast<const Observer&>(*prepared_.submodule(path));
    if (observer.empty()) continue;
    CalibrationQuality::Value value{.name = observer.label()};
    const auto [low, high] = chosen_range(observer);
    const double span = static_cast<double>(high) - low;
    if (const auto at = at_half_.find(path); at != at_half_.end()) {
      const Half& half = at->second;
      value.moved = (std::abs(low - half.low) + std::abs(high - half.high)) / span;
      ++compared;
      moving += value.moved > CalibrationQuality::kMoves;
      const auto* h = dynamic_cast<const HistogramObserver*>(&observer);
      if (h && h->histogram().total() > half.values) {
        const uint64_t all = count_beyond(h->histogram(), half.low, half.high),
                       rest = h->histogram().total() - half.values;
        const double own = static_cast<double>(half.beyond) /
                           static_cast<double>(std::max<uint64_t>(1, half.values));
        value.clipped =
            std::max(0.0, static_cast<double>(all > half.beyond ? all - half.beyond : 0) /
                                  static_cast<double>(rest) -
                              own);
        clipped += value.clipped * static_cast<double>(rest);
        counted += rest;
      }
    }
    // Of all the values that it is shown, as one.
    quant::SampleRanges::Range without;
    double largest = 0;
    for (const ValueId v : values) {
      const quant::SampleRanges::Ranges* r = prepared_.ranges().find(v);
      if (!r) continue;
      const bool outlier = r->outlier_sample >= 0;
      const int64_t sample = outlier ? r->outlier_sample : r->largest_sample;
      without.add(r->rest);
      if (outlier && r->largest_sample != sample) without.add(r->largest);
      if (r->all().magnitude() <= largest) continue;
      largest = r->all().magnitude();
      value.sample = sample;
    }
    // Codes end between values: a range is no wider than by one of them.
    if (value.sample >= 0 && samples > 1)
      value.times =
          span_of(without) > 0 ? std::max(1.0, span * (254.0 / 255) / span_of(without)) : INFINITY;
    if (value.times >= CalibrationQuality::kAlone) {
      CalibrationQuality::Influence& i = influences[value.sample];
      i.sample = value.sample;
      ++i.values;
      if (value.times > i.times) i.times = value.times, i.value = value.name;
    }
    quality.values.push_back(std::move(value));
  }
  OCTET_CHECK(!quality.values.empty(), not_calibrated,
              "calibration quality: the observers have seen no samples");
  std::stable_sort(quality.values.begin(), quality.values.end(),
                   [](const auto& a, const auto& b) { return a.moved > b.moved; });
  for (auto& [sample, influence] : influences) quality.influences.push_back(influence);
  std::stable_sort(quality.influences.begin(), quality.influences.end(),
                   [](const auto& a, const auto& b) { return a.values > b.values; });
  if (compared > 0) quality.moving = static_cast<double>(moving) / static_cast<double>(compared);
  if (counted > 0) quality.clipped = clipped / static_cast<double>(counted);
  give_advice(quality, compared > 0);
  return quality;
}

int64_t samples_at_once(const graph::Graph& graph) {
  constexpr int64_t kBytes = int64_t{128} << 20;
  int64_t largest = 1;
  for (size_t v = 0; v < graph.values().size(); ++v) {
    const auto id = static_cast<ValueId>(v);
    if (graph.is_constant(id)) continue;
    int64_t bytes = sizeof(float);
    for (const Dim& d : graph.type(id).dims) bytes *= d.known() ? d.size() : 1;
    largest = std::max(largest, bytes);
  }
  return std::clamp<int64_t>(kBytes / largest, 1, kMostAtOnce);
}

CalibrationPlan make_plan(int64_t samples, int64_t step) {
  OCTET_CHECK(samples > 0 && step > 0, invalid_argument,
              "a calibration of {} samples in batches of {}: expected 1 or more of both", samples,
              step);
  CalibrationPlan plan{samples, step, 0};
  // The first batch, but the very first, whose end lies beyond the half.
  for (int64_t i = step; i < samples && plan.half == 0; i += step)
    if (2 * (i + step) > samples) plan.half = i;
  return plan;
}

CalibrationPlan make_plan(const quant::ObservedGraphModule& prepared, const CalibrationData& data) {
  OCTET_CHECK(data.count > 0, invalid_argument, "calibrate: {} has no samples", data.name);
  int64_t step = data.fixed_batch;
  // Of one size where ranges depend on it; else eight batches or more, so that there is a half, and
  // work for several processes.
  if (!step && !quant::order_dependent_observer(prepared).empty()) step = kMostAtOnce;
  if (!step)
    step = std::min(samples_at_once(prepared.graph()),
                    std::max<int64_t>(1, data.count / kFewestBatches));
  return make_plan(data.count, step);
}

void show(quant::ObservedGraphModule& prepared, const CalibrationData& data, int64_t begin,
          int64_t size) {
  const std::vector<Tensor> inputs = data.get(begin, size);
  try {
    prepared.forward(inputs);
  } catch (const Error& e) {  // a NaN, say: where to look for it
    fail(e.code(),
         fmt::format("{}, samples {} to {}: {}", data.name, begin, begin + size - 1, e.what()));
  }
  if (data.progress) data.progress(size);
}

CalibrationQuality calibrate(quant::ObservedGraphModule& prepared, const CalibrationData& data) {
  const CalibrationPlan plan = make_plan(prepared, data);
  CalibrationWatch watch(prepared);
  const quant::FixedWeights fixed(prepared);
  for (int64_t i = 0; i < plan.samples; i += plan.step) {
    if (i > 0 && i == plan.half) watch.half_way(i);
    show(prepared, data, i, std::min(plan.step, plan.samples - i));
  }
  return watch.finish(plan.samples);
}

}  // namespace octet::debug
