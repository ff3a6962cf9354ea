#include "octet/quant/observe/histogram.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "octet/base/check_impl.h"
#include "octet/quant/observe/range_search.h"
#include "octet/quant/observe/scan_impl.h"

namespace octet::quant {
namespace {

// Interleaved sub-histograms: runs of equal values (the zeros after a ReLU) would otherwise wait for one counter.
constexpr int64_t kWays = 4;
// Values per round, so that no 16-bit counter overflows.
constexpr int64_t kRound = kWays * 65535;
// HistogramObserver's bins per bin asked for. At 2048 to 4096 bins a code of 8 bits spans about ten, and what is
// unknown about the values inside a bin hides differences between good ranges of some 0.05%; with four times as many it
// does not.
constexpr int64_t kFiner = 4;

// The number of the bin of width 2^e that holds x. Exact: x * 2^-e and its floor are.
int64_t bin_of(float x, int e) { return static_cast<int64_t>(std::floor(std::ldexp(static_cast<double>(x), -e))); }

}  // namespace

Histogram::Histogram(int64_t bins) : bins_(bins) {
  OCTET_CHECK(bins >= 16 && bins <= (1 << 20), invalid_argument, "histogram: {} bins; expected 16 to 2^20", bins);
}

double Histogram::width() const { return size_ > 1 ? std::ldexp(1.0, exponent_) : 0.0; }

double Histogram::edge(int64_t i) const {
  return size_ > 1 ? std::ldexp(static_cast<double>(first_ + i), exponent_) : static_cast<double>(min_);
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
  // Pair up neighbours, as often as the width doubled: bin k of the old grid lies in bin floor(k / 2^shift) of the new,
  // which is what an arithmetic shift computes. No count moves up, so the lowest goes first.
  int64_t used = old_size, shift = std::min(exponent_ - old_exponent, 62), first = old_first >> shift;
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

// Counts x[0..n) into counts[bin * ways + lane]. Every value lies in [min_, max_].
template <typename T>
void Histogram::add_to(const float* x, int64_t n, T* counts, int64_t ways) const {
  constexpr int64_t kBlock = 256;
  constexpr int64_t kBig = int64_t{1} << 30;
  int32_t bin[kBlock];
  auto count = [&](int64_t m) {
    int64_t j = 0;
    if (ways == kWays)
      for (; j + kWays <= m; j += kWays)
        for (int64_t lane = 0; lane < kWays; ++lane) ++counts[bin[j + lane] * kWays + lane];
    for (; j < m; ++j) ++counts[bin[j] * ways];
  };
  bool fast = std::abs(exponent_) <= 126 && first_ > -kBig && first_ + size_ < kBig;
  if (!fast) {  // a narrow range far from 0, or near float32's own limits
    double inverse = std::ldexp(1.0, -exponent_);
    for (int64_t i = 0; i < n; i += kBlock) {
      int64_t m = std::min(kBlock, n - i);
      for (int64_t j = 0; j < m; ++j)
        bin[j] =
            static_cast<int32_t>(static_cast<int64_t>(std::floor(static_cast<double>(x[i + j]) * inverse)) - first_);
      count(m);
    }
    return;
  }
  // floor(x / w) as truncation, less one where that went up. Multiplying by a power of two is exact, but for products
  // that underflow, which truncate to 0 all the same; the comparison is between exact numbers always.
  float inverse = std::ldexp(1.0f, -exponent_), width = std::ldexp(1.0f, exponent_);
  int32_t first = static_cast<int32_t>(first_);
  auto index = [&](float v) {
    int32_t k = static_cast<int32_t>(v * inverse);
    k += v < static_cast<float>(k) * width ? -1 : 0;
    return k - first;
  };
  int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    for (int64_t j = 0; j < kBlock; ++j) bin[j] = index(x[i + j]);
    count(kBlock);
  }
  for (int64_t j = 0; j < n - i; ++j) bin[j] = index(x[i + j]);
  count(n - i);
}

void Histogram::add(const float* x, int64_t n, float min, float max) {
  if (n <= 0) return;
  widen(min, max);
  total_ += static_cast<uint64_t>(n);
  if (constant()) {
    counts_[0] += static_cast<uint64_t>(n);
    return;
  }
  if (n < 4 * size_) {  // emptying the sub-histograms would cost more than they save
    add_to(x, n, counts_.data(), 1);
    return;
  }
  thread_local std::vector<uint16_t> partial;  // all 0 between calls
  if (partial.size() < counts_.size() * kWays) partial.assign(counts_.size() * kWays, 0);
  for (; n > 0; x += kRound, n -= kRound) {
    add_to(x, std::min(n, kRound), partial.data(), kWays);
    uint16_t* p = partial.data();
    for (int64_t i = 0; i < size_; ++i, p += kWays) {
      counts_[static_cast<size_t>(i)] += static_cast<uint64_t>(p[0]) + p[1] + p[2] + p[3];
      std::fill(p, p + kWays, uint16_t{0});
    }
  }
}

void Histogram::merge(const Histogram& other) {
  OCTET_CHECK(bins_ == other.bins_, invalid_argument, "histogram: cannot merge {} bins with {}", bins_, other.bins_);
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
      counts_[static_cast<size_t>(((other.first_ + i) >> shift) - first_)] += other.counts_[static_cast<size_t>(i)];
  }
}

void Histogram::restore(float min, float max, const std::vector<int64_t>& counts) {
  Histogram h(bins_);
  if (!counts.empty()) {
    OCTET_CHECK(std::isfinite(min) && std::isfinite(max) && min <= max, invalid_argument,
                "histogram: range [{}, {}]; expected finite numbers, min <= max", min, max);
    h.widen(min, max);
    OCTET_CHECK(h.size_ == static_cast<int64_t>(counts.size()), invalid_argument,
                "histogram: {} counts over [{}, {}]; expected {}", counts.size(), min, max, h.size_);
    for (size_t i = 0; i < counts.size(); ++i) {
      OCTET_CHECK(counts[i] >= 0, invalid_argument, "histogram: bin {} counts {}; expected 0 or more", i, counts[i]);
      h.counts_[i] = static_cast<uint64_t>(counts[i]);
      h.total_ += h.counts_[i];
    }
    OCTET_CHECK(counts.front() > 0 && counts.back() > 0, invalid_argument,
                "histogram: the bins of min and max are empty");
  }
  *this = std::move(h);
}

bool Histogram::operator==(const Histogram& other) const {
  return bins_ == other.bins_ && total_ == other.total_ && min_ == other.min_ && max_ == other.max_ &&
         exponent_ == other.exponent_ && first_ == other.first_ && size_ == other.size_ &&
         std::equal(counts_.begin(), counts_.begin() + size_, other.counts_.begin());
}

// -- the observer --------------------------------------------------------------------------------------
namespace {

ObserverOptions check(const char* name, const ObserverOptions& options, const std::string& label) {
  std::string who = label.empty() ? name : fmt::format("{} of '{}'", name, label);
  OCTET_CHECK(
      !is_per_channel(options.qscheme), unsupported,
      "{}: qscheme {}; expected per_tensor_affine or per_tensor_symmetric (per channel: PerChannelMinMaxObserver)", who,
      to_string(options.qscheme));
  validate(options, who);
  return options;
}

}  // namespace

HistogramObserver::HistogramObserver(ObserverOptions options, std::string label)
    : HistogramObserver("HistogramObserver", std::move(options), std::move(label)) {}

HistogramObserver::HistogramObserver(const char* name, ObserverOptions options, std::string label)
    : Observer(check(name, options, label), label), histogram_(kFiner * options.bins) {}

void HistogramObserver::observe_floats(const Tensor& x) {
  Tensor d = detail::dense(x);
  detail::Extent e = detail::scan(d.data<float>(), d.numel());
  if (!e.finite) fail_not_finite(x);
  histogram_.add(d.data<float>(), d.numel(), e.min, e.max);
}

void HistogramObserver::merge_same(const Observer& other) {
  histogram_.merge(static_cast<const HistogramObserver&>(other).histogram_);
}

QParams HistogramObserver::calculate_qparams() const {
  if (empty()) fail_not_calibrated();
  Range range = choose_range();
  return quant::calculate_qparams(std::vector{range.min}, std::vector{range.max}, options(), label());
}

Range HistogramObserver::choose_range() const {
  RangeChoice choice = search_range(histogram_, options());
  return {choice.min, choice.max};
}

std::map<std::string, Tensor> HistogramObserver::extra_state() const {
  std::vector<int64_t> counts;
  for (int64_t i = 0; i < histogram_.size(); ++i) counts.push_back(static_cast<int64_t>(histogram_.count(i)));
  return {{"min_val", min_val()},
          {"max_val", max_val()},
          {"histogram", Tensor::from(counts, {static_cast<int64_t>(counts.size())})}};
}

void HistogramObserver::set_extra_state(const std::map<std::string, Tensor>& state) {
  float min = floats_of(state, "min_val", 1)[0], max = floats_of(state, "max_val", 1)[0];
  auto counts = state.find("histogram");
  if (counts == state.end() || counts->second.dtype() != DType::int64) fail_state("histogram is not of int64");
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
