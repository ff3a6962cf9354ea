#include "octet/quant/observe/histogram.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/kernels/kernels.h"
#include "octet/quant/observe/range_search.h"
#include "octet/quant/observe/scan_impl.h"

namespace octet::quant {
namespace {

// HistogramObserver's bins per bin asked for. At 2048 to 4096 bins a code of 8 bits spans about
// ten, and what is unknown about the values inside a bin hides differences between good ranges of
// some 0.05%; with four times as many it does not.
constexpr int64_t kFiner = 4;

// The number of the bin of width 2^e that holds x. Exact: x * 2^-e and its floor are.
int64_t bin_of(float x, int e) {
  return static_cast<int64_t>(std::floor(std::ldexp(static_cast<double>(x), -e)));
}

}  // namespace

Histogram::Histogram(int64_t bins) : bins_(bins) {
  OCTET_CHECK(bins >= 16 && bins <= (1 << 20), invalid_argument,
              "histogram: {} bins; expected 16 to 2^20", bins);
}

double Histogram::width() const { return size_ > 1 ? std::ldexp(1.0, exponent_) : 0.0; }

double Histogram::edge(int64_t i) const {
  return size_ > 1 ? std::ldexp(static_cast<double>(first_ + i), exponent_)
                   : static_cast<double>(min_);
}

void Histogram::clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  total_ = 0;
  exponent_ = 0;
  first_ = size_ = 0;
  min_ = max_ = 0;
}

// Extends the range to hold [min, max] and moves the counts to the grid of the new range, in place.
void Histogram::widen(float min, float max) {
  if (!empty()) {
    min = std::min(min_, min);
    max = std::max(max_, max);
    if (min == min_ && max == max_) return;
  } else if (counts_.empty()) {
    counts_.assign(static_cast<size_t>(2 * bins_ + 3), 0);
  }
  const bool was_empty = empty(), was_constant = constant();
  const float old_min = min_;
  const int old_exponent = exponent_;
  const int64_t old_first = first_, old_size = size_;
  min_ = min;
  max_ = max;
  if (constant()) {  // nothing was seen before: an equal value would not have got here
    size_ = 1;
    return;
  }
  double range = static_cast<double>(max) - static_cast<double>(min);
  exponent_ = std::ilogb(range / static_cast<double>(bins_));
  first_ = bin_of(min, exponent_);
  size_ = bin_of(max, exponent_) - first_ + 1;
  if (was_empty) return;
  uint64_t* c = counts_.data();
  if (was_constant) {
    std::swap(c[0], c[bin_of(old_min, exponent_) - first_]);
    return;
  }
  // Pair up neighbours, as often as the width doubled: bin k of the old grid lies in bin floor(k /
  // 2^shift) of the new, which is what an arithmetic shift computes. No count moves up, so the
  // lowest goes first.
  int64_t used = old_size, shift = std::min(exponent_ - old_exponent, 62),
          first = old_first >> shift;
  if (shift > 0) {
    for (int64_t i = 0; i < old_size; ++i) {
      uint64_t count = std::exchange(c[i], 0);
      c[((old_first + i) >> shift) - first] += count;
    }
    used = ((old_first + old_size - 1) >> shift) - first + 1;
  }
  // Then make room below.
  if (int64_t up = first - first_; up > 0) {
    std::copy_backward(c, c + used, c + used + up);
    std::fill(c, c + std::min(up, used), 0);
  }
}

// Adds x[0..n) if all of it lies within [min_, max_]. False, with nothing added, if it does not, or
// where counting one by one is as quick or the grid is not the kernel's: a narrow range far from 0,
// or one near float32's own limits.
bool Histogram::count_inside(const float* x, int64_t n) {
  constexpr int64_t kBig = int64_t{1} << 30;
  constexpr int64_t kGrain = 1 << 16;  // values for a thread: some 20 us
  constexpr int64_t kGroup = 16;
  if (size_ < 2 || 4 * n < size_ || n > std::numeric_limits<uint32_t>::max() ||
      std::abs(exponent_) > 126 || first_ <= -kBig || first_ + size_ >= kBig)
    return false;
  const int64_t stride = (size_ + kernels::HistogramArgs::kSpare + kGroup - 1) / kGroup * kGroup;
  const int64_t grain = kGrain * wake_cost(),
                slices = std::clamp<int64_t>((n + grain - 1) / grain, 1, num_threads());
  thread_local std::vector<uint32_t> scratch;  // counts of each slice, all 0 between calls
  if (scratch.size() < static_cast<size_t>(stride * slices))
    scratch.resize(static_cast<size_t>(stride * slices));
  uint32_t* const partial = scratch.data();
  std::atomic<bool> inside{true};
  parallel_for(slices, [&](int64_t i) {
    const int64_t begin = n * i / slices, end = n * (i + 1) / slices;
    const kernels::HistogramArgs args{.lo = min_,
                                      .hi = max_,
                                      .inverse = std::ldexp(1.0f, -exponent_),
                                      .first = static_cast<int32_t>(first_),
                                      .bins = static_cast<int32_t>(size_),
                                      .counts = partial + i * stride};
    if (!kernels::table().histogram(args, x + begin, end - begin)) inside = false;
  });
  if (!inside) {
    std::fill(partial, partial + stride * slices, 0u);
    return false;
  }
  for (int64_t slice = 0; slice < slices; ++slice) {
    uint32_t* p = partial + slice * stride;
    for (int64_t i = 0; i < size_; i += kGroup, p += kGroup) {
      uint32_t any = 0;  // bins far from the mean are mostly empty
      for (int64_t j = 0; j < kGroup; ++j) any |= p[j];
      if (any == 0) continue;
      const int64_t used = std::min(kGroup, size_ - i);
      for (int64_t j = 0; j < used; ++j)
        counts_[static_cast<size_t>(i + j)] += std::exchange(p[j], 0u);
    }
  }
  total_ += static_cast<uint64_t>(n);
  return true;
}

bool Histogram::add(const float* x, int64_t n) {
  // Ranges rarely grow after the first batches: a pass over the data to learn its range is spared
  // then.
  if (n <= 0 || count_inside(x, n)) return true;
  const detail::Extent e = detail::scan(x, n);
  if (!e.finite) return false;
  widen(e.min, e.max);
  if (count_inside(x, n)) return true;
  total_ += static_cast<uint64_t>(n);
  if (constant()) {
    counts_[0] += static_cast<uint64_t>(n);
    return true;
  }
  const double inverse = std::ldexp(1.0, -exponent_);
  for (int64_t i = 0; i < n; ++i)
    ++counts_[static_cast<size_t>(
        static_cast<int64_t>(std::floor(static_cast<double>(x[i]) * inverse)) - first_)];
  return true;
}

void Histogram::merge(const Histogram& other) {
  OCTET_CHECK(bins_ == other.bins_, invalid_argument, "histogram: cannot merge {} bins with {}",
              bins_, other.bins_);
  if (other.empty()) return;
  if (&other == this) {
    merge(Histogram(other));
    return;
  }
  widen(other.min_, other.max_);
  total_ += other.total_;
  if (constant()) {
    counts_[0] += other.counts_[0];
  } else if (other.constant()) {
    counts_[static_cast<size_t>(bin_of(other.min_, exponent_) - first_)] += other.counts_[0];
  } else {
    int shift = std::min(exponent_ - other.exponent_, 62);
    for (int64_t i = 0; i < other.size_; ++i)
      counts_[static_cast<size_t>(((other.first_ + i) >> shift) - first_)] +=
          other.counts_[static_cast<size_t>(i)];
  }
}

void Histogram::restore(float min, float max, const std::vector<int64_t>& counts) {
  Histogram h(bins_);
  if (!counts.empty()) {
    OCTET_CHECK(std::isfinite(min) && std::isfinite(max) && min <= max, invalid_argument,
                "histogram: range [{}, {}]; expected finite numbers, min <= max", min, max);
    h.widen(min, max);
    OCTET_CHECK(h.size_ == static_cast<int64_t>(counts.size()), invalid_argument,
                "histogram: {} counts over [{}, {}]; expected {}", counts.size(), min, max,
                h.size_);
    for (size_t i = 0; i < counts.size(); ++i) {
      OCTET_CHECK(counts[i] >= 0, invalid_argument,
                  "histogram: bin {} counts {}; expected 0 or more", i, counts[i]);
      h.counts_[i] = static_cast<uint64_t>(counts[i]);
      h.total_ += h.counts_[i];
    }
    OCTET_CHECK(counts.front() > 0 && counts.back() > 0, invalid_argument,
                "histogram: the bins of min and max are empty");
  }
  *this = std::move(h);
}

bool Histogram::operator==(const Histogram& other) const {
  return bins_ == other.bins_ && total_ == other.total_ && min_ == other.min_ &&
         max_ == other.max_ && exponent_ == other.exponent_ && first_ == other.first_ &&
         size_ == other.size_ &&
         std::equal(counts_.begin(), counts_.begin() + size_, other.counts_.begin());
}

// -- the observer ---------------------------------------------------------------------------------
namespace {

ObserverOptions check(const char* name, const ObserverOptions& options, const std::string& label) {
  std::string who = label.empty() ? name : fmt::format("{} of '{}'", name, label);
  OCTET_CHECK(!is_per_channel(options.qscheme), unsupported,
              "{}: qscheme {}; expected per_tensor_affine or per_tensor_symmetric (per channel: "
              "PerChannelMinMaxObserver)",
              who, to_string(options.qscheme));
  validate(options, who);
  return options;
}

}  // namespace

HistogramObserver::HistogramObserver(ObserverOptions options, std::string label)
    : HistogramObserver("HistogramObserver", options, label) {}

HistogramObserver::HistogramObserver(const char* name, ObserverOptions options,
                                     const std::string& label)
    : Observer(check(name, options, label), label), histogram_(kFiner * options.bins) {}

void HistogramObserver::observe_floats(const Tensor& x) {
  Tensor d = detail::dense(x);
  if (!histogram_.add(d.data<float>(), d.numel())) fail_not_finite(x);
}

void HistogramObserver::merge_same(const Observer& other) {
  histogram_.merge(static_cast<const HistogramObserver&>(other).histogram_);
}

QParams HistogramObserver::calculate_qparams() const {
  if (empty()) fail_not_calibrated();
  Range range = choose_range();
  return quant::calculate_qparams(std::vector{range.min}, std::vector{range.max}, options(),
                                  label());
}

Range HistogramObserver::choose_range() const {
  RangeChoice choice = search_range(histogram_, options(), codes());
  return {choice.min, choice.max};
}

std::map<std::string, Tensor> HistogramObserver::extra_state() const {
  std::vector<int64_t> counts;
  for (int64_t i = 0; i < histogram_.size(); ++i)
    counts.push_back(static_cast<int64_t>(histogram_.count(i)));
  return {{"min_val", min_val()},
          {"max_val", max_val()},
          {"histogram", Tensor::from(counts, {static_cast<int64_t>(counts.size())})}};
}

void HistogramObserver::set_extra_state(const std::map<std::string, Tensor>& state) {
  float min = floats_of(state, "min_val", 1)[0], max = floats_of(state, "max_val", 1)[0];
  auto counts = state.find("histogram");
  if (counts == state.end() || counts->second.dtype() != DType::int64)
    fail_state("histogram is not of int64");
  try {
    histogram_.restore(min, max, counts->second.to_vector<int64_t>());
  } catch (const Error& e) {
    fail_state(e.what());
  }
}

Tensor HistogramObserver::min_val() const {
  return Tensor::scalar(empty() ? std::numeric_limits<float>::infinity() : histogram_.min());
}

Tensor HistogramObserver::max_val() const {
  return Tensor::scalar(empty() ? -std::numeric_limits<float>::infinity() : histogram_.max());
}

}  // namespace octet::quant
