#include "cli/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "octet/base/error.h"
#include "octet/base/progress.h"
#include "octet/quant/observe/min_max.h"

namespace octet::cli {
namespace {

// Whether ranges depend on how the samples are cut into batches: moving averages do.
bool counts_batches(quant::ObservedGraphModule& prepared) {
  const auto modules = prepared.named_modules();
  return std::any_of(modules.begin(), modules.end(), [](const auto& named) {
    const nn::Module* m = named.second;
    return dynamic_cast<const quant::MovingAverageMinMaxObserver*>(m) ||
           dynamic_cast<const quant::MovingAveragePerChannelMinMaxObserver*>(m);
  });
}

}  // namespace

int64_t samples_at_once(const graph::Graph& graph, const Dataset& dataset) {
  constexpr int64_t kBytes = int64_t{128} << 20;
  int64_t largest = 1;
  for (size_t v = 0; v < graph.values().size(); ++v) {
    const auto id = static_cast<graph::ValueId>(v);
    if (graph.is_constant(id)) continue;
    int64_t bytes = sizeof(float);
    for (const Dim& d : graph.type(id).dims) bytes *= d.known() ? d.size() : 1;
    largest = std::max(largest, bytes);
  }
  return batch_size(dataset, std::clamp<int64_t>(kBytes / largest, 1, kMostAtOnce));
}

debug::CalibrationQuality calibrate(quant::ObservedGraphModule& prepared, const Dataset& dataset,
                                    const std::string& path, int64_t count) {
  Progress bar("calibrating", count);
  const bool fixed = counts_batches(prepared);
  // Two batches or more, so that there is a half.
  const int64_t step =
      fixed ? batch_size(dataset, kMostAtOnce)
            : batch_size(dataset, std::min(samples_at_once(prepared.graph(), dataset),
                                           std::max<int64_t>(1, count / 2)));
  debug::CalibrationWatch watch(prepared);
  bool halved = false;
  for (int64_t i = 0; i < count; i += step) {
    if (!halved && i > 0 && 2 * (i + step) > count) {
      watch.half_way(i);
      halved = true;
    }
    Batch batch = dataset.get(i, std::min(step, count - i));
    try {
      prepared.forward(ordered_inputs(prepared.graph(), batch));
    } catch (const Error& e) {  // a NaN, say: where to look for it
      fail(e.code(),
           fmt::format("{}, samples {} to {}: {}", path, i, i + batch.size - 1, e.what()));
    }
    bar.advance(batch.size);
  }
  return watch.finish(count);
}

JsonValue calibration_json(const debug::CalibrationQuality& q) {
  JsonValue values = JsonValue::array(), influences = JsonValue::array();
  for (const debug::CalibrationQuality::Value& v : q.values)
    values.push_back(JsonValue::object({{"value", v.name},
                                        {"moved", v.moved},
                                        {"clipped", v.clipped},
                                        {"largest_sample", v.sample},
                                        {"times", v.times}}));
  for (const debug::CalibrationQuality::Influence& i : q.influences)
    influences.push_back(JsonValue::object(
        {{"sample", i.sample}, {"ranges", i.values}, {"value", i.value}, {"times", i.times}}));
  return JsonValue::object({{"samples", q.samples},
                            {"half", q.half},
                            {"moving", q.moving},
                            {"clipped", q.clipped},
                            {"suggested_samples", q.suggested},
                            {"influences", influences},
                            {"values", values}});
}

std::string calibration_text(const debug::CalibrationQuality& q) {
  std::string text =
      fmt::format("{} sample{}, {} ranges", q.samples, q.samples == 1 ? "" : "s", q.values.size());
  if (!std::isnan(q.moving))
    text +=
        fmt::format("; {:.0f}% of them moved by more than {:.0f}% in the last {} samples",
                    100 * q.moving, 100 * debug::CalibrationQuality::kMoves, q.samples - q.half);
  if (!std::isnan(q.clipped))
    text += fmt::format(", of which the first {} samples' ranges cut off {:.2g}%", q.half,
                        100 * q.clipped);
  if (!q.influences.empty())
    text += fmt::format("; sample {} alone sets {} of them", q.influences[0].sample,
                        q.influences[0].values);
  return text;
}

}  // namespace octet::cli
