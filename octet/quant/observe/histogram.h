#pragma once
// A histogram that is the same whatever the order and batching of its data, and the observer built
// on it.

#include <cstdint>
#include <vector>

#include "octet/quant/observe/observer.h"

namespace octet::quant {

// Exact counts of finite floats in bins of one grid: bin k of width w = 2^e holds the values with
// k*w <= x < (k+1)*w. The width follows from the range of the data alone,
//  e = floor(log2((max - min) / bins)),
// so `bins` to 2*bins + 2 bins lie over [min, max]. When the range grows, e can only grow, and a
// bin of the coarser grid is the exact union of two of the finer one; so the state is a function of
// the multiset of values seen, however they were ordered, batched or merged. Memory is bounded by
// the number of bins, whatever the ranges.
class Histogram {
 public:
  // bins: the least number of bins, 16..2^20 (Error).
  explicit Histogram(int64_t bins = 2048);

  // Adds x[0..n); false, with nothing added, if one is NaN or infinite. Large arrays are split over
  // the threads. Allocates on the first call of a thread and where more threads or bins are needed
  // than before.
  bool add(const float* x, int64_t n);
  // Adds all of other's counts; other has the same `bins` (Error).
  void merge(const Histogram& other);
  void clear();
  // What was seen, from min(), max() and the counts of all bins, lowest first; as from an empty one
  // if there are none. Error unless they are what a histogram of `bins` bins can hold.
  void restore(float min, float max, const std::vector<int64_t>& counts);

  bool empty() const { return total_ == 0; }
  uint64_t total() const { return total_; }  // values seen
  float min() const { return min_; }         // exact; set unless empty
  float max() const { return max_; }
  bool constant() const { return min_ == max_; }

  // Bins over [min, max], lowest first. All values equal (or none seen): one bin of width 0.
  int64_t size() const { return size_; }
  uint64_t count(int64_t i) const { return counts_[static_cast<size_t>(i)]; }
  int exponent() const { return exponent_; }    // the width is 2^exponent; 0 while constant
  int64_t first_bin() const { return first_; }  // the grid's number of bin 0; 0 while constant
  double width() const;                         // 0 while constant
  // The lower edge of bin i; edge(size()) is the upper edge of the last. Exact.
  double edge(int64_t i) const;

  // Same values seen (as far as a histogram can tell): equal counts on equal bins, equal min, max
  // and `bins`.
  bool operator==(const Histogram& other) const;

 private:
  void widen(float min, float max);
  bool count_inside(const float* x, int64_t n);

  int64_t bins_;
  uint64_t total_ = 0;
  float min_ = 0, max_ = 0;
  int exponent_ = 0;
  int64_t first_ = 0, size_ = 0;
  // [2 * bins_ + 3] once there is data; the first size_ in use, the rest 0
  std::vector<uint64_t> counts_;
};

struct Range {
  float min, max;
  bool operator==(const Range&) const = default;
};

// Keeps a histogram of all data and chooses the range [lo, hi] within [min, max] whose quantizer
// has the least expected squared error on it (see range_search.h). Per-tensor schemes only (Error).
// Independent of order, batching and threads; merge() is exact. Keeps at least 4 * options.bins
// bins over the data's range, in at most 64 bytes for each of options.bins: 131 kB with the default
// 2048. Needs some 2 ms for calculate_qparams.
//
// Differs from PyTorch's in that the counts are exact (PyTorch 1.13 drops the values beyond
// int(min) and int(max) and redistributes counts when the range grows), in the width of bins, and
// in the search, which finds ranges at least as good.
class HistogramObserver : public Observer {
 public:
  explicit HistogramObserver(ObserverOptions options = {}, std::string label = "");
  bool empty() const override { return histogram_.empty(); }
  QParams calculate_qparams() const override;
  Tensor min_val() const override;  // exact, of all data
  Tensor max_val() const override;
  void reset() override { histogram_.clear(); }
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

  const Histogram& histogram() const { return histogram_; }

  // Tells it that its quantizer clamps to code_range(options()), as fake quantization does, and not
  // to running_codes(): the range is searched for these codes.
  void clamp_to_code_range() { clamps_ = true; }

 protected:
  // For observers that keep the same histogram and choose the range by another rule; `name` is the
  // class's.
  HistogramObserver(const char* name, ObserverOptions options, const std::string& label);
  // The range to quantize; the histogram is not empty.
  virtual Range choose_range() const;
  void observe_floats(const Tensor& x) override;
  void merge_same(const Observer& other) override;
  // The codes that its quantizer clamps to.
  CodeRange codes() const { return clamps_ ? code_range(options()) : running_codes(options()); }

 private:
  Histogram histogram_;
  bool clamps_ = false;
};

}  // namespace octet::quant
