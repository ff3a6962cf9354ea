#include "octet/quant/algorithms/weight_ranges.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/quant/algorithms/weight_ranges_impl.h"
#include "octet/quant/observe/range_search.h"

namespace octet::quant {

ChannelView::ChannelView(const Tensor& weight, const ObserverOptions& options) {
  if (!is_per_channel(options.qscheme)) {
    values.push_back(weight.contiguous().to_vector<float>());
    return;
  }
  const int64_t axis = options.ch_axis;
  for (int64_t c = 0; c < weight.size(axis); ++c)
    values.push_back(weight.slice(axis, c, c + 1).contiguous().to_vector<float>());
}

namespace {

struct FloatRange {
  float min = 0, max = 0;
};

FloatRange full_range(const std::vector<float>& values) {
  FloatRange r;
  for (float v : values) {
    r.min = std::min(r.min, v);
    r.max = std::max(r.max, v);
  }
  return r;
}

}  // namespace

double octav_clip(const std::vector<float>& values, double bits) {
  double sum = 0, count = 0;
  for (float v : values)
    if (v != 0) sum += std::abs(static_cast<double>(v)), ++count;
  if (count == 0) return 0;
  double s = sum / count;
  const double rounding = std::pow(4.0, -bits) / 3;
  for (int turn = 0; turn < 100; ++turn) {
    double above = 0, clipped = 0;
    for (float v : values) {
      const double x = std::abs(static_cast<double>(v));
      if (x > s) above += x, ++clipped;
    }
    const double next = above / (rounding * (count - clipped) + clipped);
    if (clipped == 0 || std::abs(next - s) <= 1e-9 * s) break;
    s = next;
  }
  return s;
}

void choose_weight_ranges(ObservedGraphModule& prepared, const WeightRangeOptions& options) {
  OCTET_CHECK(options.steps >= 1, invalid_argument,
              "choose_weight_ranges: expected 1 step or more, got {}", options.steps);
  for (const PreparedLayer& layer : static_layers(prepared, "choose_weight_ranges")) {
    const ObserverOptions& observer = weight_observer_options(prepared, layer);
    const ChannelView channels(constant_now(prepared, layer.weight), observer);
    std::vector<float> min(channels.values.size()), max(channels.values.size());
    const CodeRange codes = code_range(observer);
    const double bits = std::log2(static_cast<double>(codes.quant_max - codes.quant_min + 1));
    parallel_for(std::ssize(channels.values), [&](int64_t c) {
      const auto i = static_cast<size_t>(c);
      FloatRange range;
      if (options.criterion == WeightRangeCriterion::mse) {
        const RangeChoice chosen = least_error_range(channels.values[i], observer, options.steps);
        range = {chosen.min, chosen.max};
      } else {
        const auto clip = static_cast<float>(octav_clip(channels.values[i], bits));
        const FloatRange full = full_range(channels.values[i]);
        range = {std::max(full.min, -clip), std::min(full.max, clip)};
      }
      min[i] = range.min;
      max[i] = range.max;
    });
    prepared.set_weight(layer.name, {}, min, max);
  }
}

}  // namespace octet::quant
