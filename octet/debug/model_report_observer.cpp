#include "octet/debug/model_report_observer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/quant/observe/scan_impl.h"

namespace octet::quant {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(),
                kLargest = std::numeric_limits<float>::max();

[[maybe_unused]] const bool g_model_report_observer_registered = [] {
  nn::register_module(typeid(ModelReportObserver), [](const Attrs& config) -> nn::ModulePtr {
    Attrs options = config;
    options.erase("label");
    return nn::make<ModelReportObserver>(
        options_from(options), config.has("label") ? config.get_string("label") : std::string());
  });
  return true;
}();

// The mean of n values and one more.
double mean(double average, int64_t n, double value) {
  return (average * static_cast<double>(n) + value) / static_cast<double>(n + 1);
}
double mean_of(double a, int64_t n, double b, int64_t m) {
  return n + m == 0 ? 0
                    : (a * static_cast<double>(n) + b * static_cast<double>(m)) /
                          static_cast<double>(n + m);
}

std::vector<int64_t> whole(const std::map<std::string, Tensor>& state, const std::string& key) {
  return state.at(key).to(DType::int64).to_vector<int64_t>();
}

}  // namespace

ModelReportObserver::ModelReportObserver(ObserverOptions options, std::string label)
    : Observer(options, label) {
  OCTET_CHECK(options.percentile >= 0 && options.percentile <= 100, invalid_argument,
              "{}: percentile {}; expected 0 to 100", title(), options.percentile);
  OCTET_CHECK(options.ch_axis >= 0, invalid_argument, "{}: ch_axis {}; expected 0 or more", title(),
              options.ch_axis);
  ModelReportObserver::reset();
}

void ModelReportObserver::reset() {
  batches_ = 0;
  average_range_ = 0;
  epoch_min_ = kInf;
  epoch_max_ = -kInf;
  min_.clear(), max_.clear(), ratio_.clear(), ratio_batches_.clear(), constant_.clear();
}

void ModelReportObserver::check_channels(size_t channels) const {
  OCTET_CHECK(empty() || min_.size() == channels, invalid_argument,
              "{}: {} channels along axis {}, before there were {}: give the detector "
              "the ch_axis that holds channels",
              title(), channels, options().ch_axis, min_.size());
}

void ModelReportObserver::observe_floats(const Tensor& x) {
  const int64_t axis = options().ch_axis;
  OCTET_CHECK(
      axis < x.dim(), invalid_argument,
      "{}: ch_axis is {}, but the tensor has shape {}: give the detector the ch_axis that holds "
      "channels",
      title(), axis, octet::to_string(x.shape()));
  const auto channels = static_cast<size_t>(x.size(axis));
  check_channels(channels);
  Tensor d = x.detach().contiguous();
  const float* p = d.data<float>();
  const detail::Extent whole = detail::scan(p, d.numel());
  if (!whole.finite) fail_not_finite(x);

  if (empty()) {
    min_.assign(channels, kInf), max_.assign(channels, -kInf);
    ratio_.assign(channels, 0.0), ratio_batches_.assign(channels, 0), constant_.assign(channels, 0);
  }
  epoch_min_ = std::min(epoch_min_, whole.min);
  epoch_max_ = std::max(epoch_max_, whole.max);
  average_range_ = mean(average_range_, batches_, static_cast<double>(whole.max) - whole.min);
  ++batches_;

  int64_t outer = 1, inner = 1;
  for (int64_t i = 0; i < axis; ++i) outer *= x.size(i);
  for (int64_t i = axis + 1; i < x.dim(); ++i) inner *= x.size(i);
  std::vector<float> values(static_cast<size_t>(outer * inner));
  const auto rank = static_cast<std::ptrdiff_t>(std::floor(
      // float32, as PyTorch
      static_cast<float>(options().percentile / 100) * static_cast<float>(values.size() - 1)));
  for (size_t c = 0; c < channels; ++c) {
    for (int64_t o = 0; o < outer; ++o) {
      const float* from =
          p + (o * static_cast<int64_t>(channels) + static_cast<int64_t>(c)) * inner;
      std::copy(from, from + inner, values.begin() + o * inner);
    }
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    const float min = *low + 0.0f, max = *high + 0.0f;  // -0 reads as 0
    std::nth_element(values.begin(), values.begin() + rank, values.end());
    const float percentile = values[static_cast<size_t>(rank)];
    min_[c] = std::min(min_[c], min);
    max_[c] = std::max(max_[c], max);
    constant_[c] += min == max;
    if (percentile == 0 && max == 0) continue;
    const float ratio = percentile == 0 ? kInf : max / percentile;
    ratio_[c] = mean(ratio_[c], ratio_batches_[c]++, std::clamp(ratio, -kLargest, kLargest));
  }
}

void ModelReportObserver::merge_same(const Observer& other) {
  const auto& o = static_cast<const ModelReportObserver&>(other);
  check_channels(o.min_.size());
  if (empty()) {
    set_extra_state(o.extra_state());
    return;
  }
  average_range_ = mean_of(average_range_, batches_, o.average_range_, o.batches_);
  batches_ += o.batches_;
  epoch_min_ = std::min(epoch_min_, o.epoch_min_);
  epoch_max_ = std::max(epoch_max_, o.epoch_max_);
  for (size_t c = 0; c < min_.size(); ++c) {
    min_[c] = std::min(min_[c], o.min_[c]);
    max_[c] = std::max(max_[c], o.max_[c]);
    ratio_[c] = mean_of(ratio_[c], ratio_batches_[c], o.ratio_[c], o.ratio_batches_[c]);
    ratio_batches_[c] += o.ratio_batches_[c];
    constant_[c] += o.constant_[c];
  }
}

double ModelReportObserver::get_batch_to_epoch_ratio() const {
  if (empty()) fail_not_calibrated();
  const double range = static_cast<double>(epoch_max_) - epoch_min_;
  return range == 0 ? 1 : average_range_ / range;
}

QParams ModelReportObserver::calculate_qparams() const { fail_no_qparams(); }

Tensor ModelReportObserver::min_val() const {
  return Tensor::from(min_, {static_cast<int64_t>(min_.size())});
}
Tensor ModelReportObserver::max_val() const {
  return Tensor::from(max_, {static_cast<int64_t>(max_.size())});
}

std::string ModelReportObserver::extra_repr() const {
  return fmt::format("ch_axis={}, percentile={}, batches={}", options().ch_axis,
                     options().percentile, batches_);
}

std::map<std::string, Tensor> ModelReportObserver::extra_state() const {
  const Shape channels{static_cast<int64_t>(min_.size())};
  return {{"num_batches_tracked", Tensor::scalar(static_cast<double>(batches_), DType::int64)},
          {"average_batch_activation_range", Tensor::scalar(average_range_, DType::float64)},
          {"epoch_activation_min", Tensor::scalar(epoch_min_)},
          {"epoch_activation_max", Tensor::scalar(epoch_max_)},
          {"min_val", min_val()},
          {"max_val", max_val()},
          {"average_percentile_ratio", Tensor::from(ratio_, channels)},
          {"percentile_batches_tracked", Tensor::from(ratio_batches_, channels)},
          {"constant_channels", Tensor::from(constant_, channels)}};
}

void ModelReportObserver::set_extra_state(const std::map<std::string, Tensor>& state) {
  const int64_t batches = int_of(state, "num_batches_tracked");
  std::vector<float> min = floats_of(state, "min_val", -1);
  const auto channels = static_cast<int64_t>(min.size());
  std::vector<float> max = floats_of(state, "max_val", channels);
  std::vector<double> ratio =
      state.at("average_percentile_ratio").to(DType::float64).to_vector<double>();
  std::vector<int64_t> ratio_batches = whole(state, "percentile_batches_tracked"),
                       constant = whole(state, "constant_channels");
  if (batches < 0 || (batches == 0) != min.empty())
    fail_state(fmt::format("{} batches, {} channels", batches, channels));
  if (ratio.size() != min.size() || ratio_batches.size() != min.size() ||
      constant.size() != min.size())
    fail_state(fmt::format("{} channels in min_val, others elsewhere", channels));
  if (batches > 0) check_range(min, max);
  const float low = floats_of(state, "epoch_activation_min", 1)[0],
              high = floats_of(state, "epoch_activation_max", 1)[0];
  average_range_ =
      state.at("average_batch_activation_range").to(DType::float64).to_vector<double>().at(0);
  batches_ = batches;
  epoch_min_ = low, epoch_max_ = high;
  min_ = std::move(min), max_ = std::move(max), ratio_ = std::move(ratio);
  ratio_batches_ = std::move(ratio_batches), constant_ = std::move(constant);
}

}  // namespace octet::quant
