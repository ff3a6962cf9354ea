#include "cli/calibrate.h"

#include <fmt/format.h>

#include <cmath>

#include "octet/base/progress.h"

namespace octet::cli {
int64_t samples_at_once(const graph::Graph& graph, const Dataset& dataset) {
  return batch_size(dataset, debug::samples_at_once(graph));
}

debug::CalibrationQuality calibrate(quant::ObservedGraphModule& prepared, const Dataset& dataset,
                                    const std::string& path, int64_t count) {
  Progress bar("calibrating", count);
  return debug::calibrate(prepared, {.name = path,
                                     .count = count,
                                     .fixed_batch = dataset.fixed_batch(),
                                     .get =
                                         [&](int64_t begin, int64_t size) {
                                           return ordered_inputs(prepared.graph(),
                                                                 dataset.get(begin, size));
                                         },
                                     .progress = [&](int64_t size) { bar.advance(size); }});
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
