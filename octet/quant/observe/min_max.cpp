#include "octet/quant/observe/min_max.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/quant/observe/scan_impl.h"

namespace octet::quant {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

ObserverOptions check(const ObserverOptions& options, std::string_view name,
                      const std::string& label, bool per_channel) {
  std::string who = label.empty() ? std::string(name) : fmt::format("{} of '{}'", name, label);
  OCTET_CHECK(is_per_channel(options.qscheme) == per_channel, invalid_argument,
              "{}: qscheme {}; expected {}", who, to_string(options.qscheme),
              per_channel ? "per_channel_affine or per_channel_symmetric"
                          : "per_tensor_affine or per_tensor_symmetric");
  validate(options, who);
  return options;
}

// f(average + f(c * f(value - average))), in float32. Differences beyond float32 are halved first.
float move(float average, float value, float c) {
  float d = value - average;
  if (std::isfinite(d)) return average + c * d;
  return average + c * (value * 0.5f - average * 0.5f) * 2;
}

// The moving average over a's batches, then b's: b's recurrence, started from a's average in place
// of b's first value, ends (1-c)^batches * (a - first) further on.
float chain(float a, float b, float b_first, int64_t b_batches, double c) {
  double keep = std::pow(1 - c, static_cast<double>(b_batches));
  return static_cast<float>(b + keep * (static_cast<double>(a) - b_first));
}

Tensor as_tensor(const std::vector<float>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())});
}

}  // namespace

// -- per tensor -----------------------------------------------------------------------------------
MinMaxObserver::MinMaxObserver(ObserverOptions options, std::string label)
    : Observer(check(options, "MinMaxObserver", label, false), label) {}

void MinMaxObserver::observe_floats(const Tensor& x) {
  Tensor d = detail::dense(x);
  detail::Extent e = detail::scan(d.data<float>(), d.numel());
  if (!e.finite) fail_not_finite(x);
  update(e.min, e.max);
}

void MinMaxObserver::update(float min, float max) {
  min_ = empty_ ? min : std::min(min_, min);
  max_ = empty_ ? max : std::max(max_, max);
  empty_ = false;
}

void MinMaxObserver::merge_same(const Observer& other) {
  const auto& o = static_cast<const MinMaxObserver&>(other);
  update(o.min_, o.max_);
}

QParams MinMaxObserver::calculate_qparams() const {
  if (empty()) fail_not_calibrated();
  return quant::calculate_qparams(std::vector{min_}, std::vector{max_}, options(), label());
}

Tensor MinMaxObserver::min_val() const { return Tensor::scalar(empty_ ? kInf : min_); }
Tensor MinMaxObserver::max_val() const { return Tensor::scalar(empty_ ? -kInf : max_); }

std::map<std::string, Tensor> MinMaxObserver::extra_state() const {
  return {{"min_val", MinMaxObserver::min_val()}, {"max_val", MinMaxObserver::max_val()}};
}

void MinMaxObserver::set_extra_state(const std::map<std::string, Tensor>& state) {
  float min = floats_of(state, "min_val", 1)[0], max = floats_of(state, "max_val", 1)[0];
  const bool empty = min == kInf && max == -kInf;
  if (!empty) check_range({min}, {max});
  empty_ = empty;
  min_ = min;
  max_ = max;
}

MovingAverageMinMaxObserver::MovingAverageMinMaxObserver(ObserverOptions options, std::string label)
    : MinMaxObserver(check(options, "MovingAverageMinMaxObserver", label, false), label) {}

void MovingAverageMinMaxObserver::update(float min, float max) {
  if (empty_) {
    first_min_ = min_ = min;
    first_max_ = max_ = max;
  } else {
    float c = static_cast<float>(options().averaging_constant);
    min_ = move(min_, min, c);
    max_ = std::max(move(max_, max, c), min_);  // rounding could cross them
  }
  empty_ = false;
  ++batches_;
}

void MovingAverageMinMaxObserver::merge_same(const Observer& other) {
  const auto& o = static_cast<const MovingAverageMinMaxObserver&>(other);
  if (empty_) {
    min_ = o.min_, max_ = o.max_;
    first_min_ = o.first_min_, first_max_ = o.first_max_;
    empty_ = false;
  } else {
    double c = options().averaging_constant;
    min_ = chain(min_, o.min_, o.first_min_, o.batches_, c);
    max_ = std::max(chain(max_, o.max_, o.first_max_, o.batches_, c), min_);
  }
  batches_ += o.batches_;
}

void MovingAverageMinMaxObserver::reset() {
  MinMaxObserver::reset();
  batches_ = 0;
}

std::map<std::string, Tensor> MovingAverageMinMaxObserver::extra_state() const {
  auto state = MinMaxObserver::extra_state();
  state["first_min_val"] = Tensor::scalar(empty_ ? kInf : first_min_);
  state["first_max_val"] = Tensor::scalar(empty_ ? -kInf : first_max_);
  state["num_batches"] = Tensor::scalar(static_cast<double>(batches_), DType::int64);
  return state;
}

void MovingAverageMinMaxObserver::set_extra_state(const std::map<std::string, Tensor>& state) {
  float min = floats_of(state, "first_min_val", 1)[0],
        max = floats_of(state, "first_max_val", 1)[0];
  int64_t batches = int_of(state, "num_batches");
  MinMaxObserver::set_extra_state(state);
  first_min_ = min;
  first_max_ = max;
  batches_ = batches;
}

// -- per channel ----------------------------------------------------------------------------------
PerChannelMinMaxObserver::PerChannelMinMaxObserver(ObserverOptions options, std::string label)
    : PerChannelMinMaxObserver("PerChannelMinMaxObserver", options, label) {}
PerChannelMinMaxObserver::PerChannelMinMaxObserver(std::string_view name, ObserverOptions options,
                                                   std::string label)
    : Observer(check(options, name, label, true), label) {}

void PerChannelMinMaxObserver::check_channels(size_t channels) const {
  OCTET_CHECK(empty() || min_.size() == channels, invalid_argument,
              "{}: {} channels along axis {}, before there were {}", title(), channels,
              options().ch_axis, min_.size());
}

void PerChannelMinMaxObserver::scan(const Tensor& x) {
  int64_t axis = options().ch_axis;
  OCTET_CHECK(axis < x.dim(), invalid_argument, "{}: ch_axis is {}, but the tensor has shape {}",
              title(), axis, octet::to_string(x.shape()));
  int64_t channels = x.size(axis);
  check_channels(static_cast<size_t>(channels));
  Tensor d = x.contiguous();
  const float* p = d.data<float>();
  int64_t outer = 1, inner = 1;
  for (int64_t i = 0; i < axis; ++i) outer *= x.size(i);
  for (int64_t i = axis + 1; i < x.dim(); ++i) inner *= x.size(i);

  batch_min_.assign(static_cast<size_t>(channels), kInf);
  batch_max_.assign(static_cast<size_t>(channels), -kInf);
  bool finite = true;
  if (inner == 1) {
    finite = detail::scan_columns(p, outer, channels, batch_min_.data(), batch_max_.data());
  } else {
    for (int64_t o = 0; o < outer; ++o)
      for (size_t c = 0; c < batch_min_.size(); ++c, p += inner) {
        detail::Extent e = detail::scan(p, inner);
        finite = finite && e.finite;
        batch_min_[c] = std::min(batch_min_[c], e.min);
        batch_max_[c] = std::max(batch_max_[c], e.max);
      }
  }
  if (!finite) fail_not_finite(x);
  for (float& v : batch_min_) v += 0.0f;  // -0 reads as 0
  for (float& v : batch_max_) v += 0.0f;
}

void PerChannelMinMaxObserver::observe_floats(const Tensor& x) {
  scan(x);
  update(batch_min_, batch_max_);
}

void PerChannelMinMaxObserver::update(const std::vector<float>& min,
                                      const std::vector<float>& max) {
  if (empty()) {
    min_ = min;
    max_ = max;
    return;
  }
  for (size_t c = 0; c < min_.size(); ++c) {
    min_[c] = std::min(min_[c], min[c]);
    max_[c] = std::max(max_[c], max[c]);
  }
}

void PerChannelMinMaxObserver::merge_same(const Observer& other) {
  const auto& o = static_cast<const PerChannelMinMaxObserver&>(other);
  check_channels(o.min_.size());
  update(o.min_, o.max_);
}

QParams PerChannelMinMaxObserver::calculate_qparams() const {
  if (empty()) fail_not_calibrated();
  return quant::calculate_qparams(min_, max_, options(), label());
}

Tensor PerChannelMinMaxObserver::min_val() const { return as_tensor(min_); }
Tensor PerChannelMinMaxObserver::max_val() const { return as_tensor(max_); }

void PerChannelMinMaxObserver::reset() {
  min_.clear();
  max_.clear();
}

std::map<std::string, Tensor> PerChannelMinMaxObserver::extra_state() const {
  return {{"min_val", as_tensor(min_)}, {"max_val", as_tensor(max_)}};
}

void PerChannelMinMaxObserver::set_extra_state(const std::map<std::string, Tensor>& state) {
  std::vector<float> min = floats_of(state, "min_val", -1);
  std::vector<float> max = floats_of(state, "max_val", static_cast<int64_t>(min.size()));
  check_range(min, max);
  min_ = std::move(min);
  max_ = std::move(max);
}

MovingAveragePerChannelMinMaxObserver::MovingAveragePerChannelMinMaxObserver(
    ObserverOptions options, std::string label)
    : PerChannelMinMaxObserver(check(options, "MovingAveragePerChannelMinMaxObserver", label, true),
                               label) {}

void MovingAveragePerChannelMinMaxObserver::update(const std::vector<float>& min,
                                                   const std::vector<float>& max) {
  if (empty()) {
    first_min_ = min_ = min;
    first_max_ = max_ = max;
  } else {
    float k = static_cast<float>(options().averaging_constant);
    for (size_t c = 0; c < min_.size(); ++c) {
      min_[c] = move(min_[c], min[c], k);
      max_[c] = std::max(move(max_[c], max[c], k), min_[c]);
    }
  }
  ++batches_;
}

void MovingAveragePerChannelMinMaxObserver::merge_same(const Observer& other) {
  const auto& o = static_cast<const MovingAveragePerChannelMinMaxObserver&>(other);
  check_channels(o.min_.size());
  if (empty()) {
    min_ = o.min_, max_ = o.max_;
    first_min_ = o.first_min_, first_max_ = o.first_max_;
  } else {
    double k = options().averaging_constant;
    for (size_t c = 0; c < min_.size(); ++c) {
      min_[c] = chain(min_[c], o.min_[c], o.first_min_[c], o.batches_, k);
      max_[c] = std::max(chain(max_[c], o.max_[c], o.first_max_[c], o.batches_, k), min_[c]);
    }
  }
  batches_ += o.batches_;
}

void MovingAveragePerChannelMinMaxObserver::reset() {
  PerChannelMinMaxObserver::reset();
  batches_ = 0;
}

std::map<std::string, Tensor> MovingAveragePerChannelMinMaxObserver::extra_state() const {
  auto state = PerChannelMinMaxObserver::extra_state();
  state["first_min_val"] = as_tensor(empty() ? std::vector<float>() : first_min_);
  state["first_max_val"] = as_tensor(empty() ? std::vector<float>() : first_max_);
  state["num_batches"] = Tensor::scalar(static_cast<double>(batches_), DType::int64);
  return state;
}

void MovingAveragePerChannelMinMaxObserver::set_extra_state(
    const std::map<std::string, Tensor>& state) {
  std::vector<float> min = floats_of(state, "first_min_val", -1);
  std::vector<float> max = floats_of(state, "first_max_val", static_cast<int64_t>(min.size()));
  floats_of(state, "min_val", static_cast<int64_t>(min.size()));
  int64_t batches = int_of(state, "num_batches");
  PerChannelMinMaxObserver::set_extra_state(state);
  first_min_ = std::move(min);
  first_max_ = std::move(max);
  batches_ = batches;
}

}  // namespace octet::quant
