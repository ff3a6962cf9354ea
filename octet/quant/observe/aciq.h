#pragma once
// Analytical clipping: the range follows from one number, the mean distance of the values from
// their centre, as if they had a Laplace distribution.

#include <cmath>

#include "octet/quant/observe/histogram.h"

namespace octet::quant {

// The range with the least expected squared error of a Laplace distribution with the histogram's
// mean distance b (R. Banner et al., "Post training 4-bit quantization of convolutional networks
// for rapid-deployment", NeurIPS 2019, section 3.1). Clipping at a distance a costs 2 b^2 e^(-a/b),
// rounding to n codes (2a/n)^2 / 12; the sum is least where (a/b) e^(a/b) = 3 n^2. Values of one
// sign, as a relu leaves them, are half of such a distribution around 0, whose codes lie twice as
// dense: 12 n^2; zeros, which are what the relu cut off, do not count in b. Never wider than
// [min, max]. Symmetric schemes have their centre at 0. Error not_calibrated if the histogram is
// empty.
inline Range aciq_range(const Histogram& histogram, const ObserverOptions& options) {
  if (histogram.empty()) fail(ErrorCode::not_calibrated, "aciq_range: the histogram is empty");
  const Range full{histogram.min(), histogram.max()};
  if (histogram.constant()) return full;
  const bool one_sided = full.min >= 0 || full.max <= 0;
  const auto mean_of = [&](auto&& f) {
    double sum = 0, count = 0;
    for (int64_t i = 0; i < histogram.size(); ++i) {
      const bool holds_zero = histogram.edge(i) <= 0 && histogram.edge(i + 1) > 0;
      if (one_sided && holds_zero) continue;
      const auto n = static_cast<double>(histogram.count(i));
      sum += n * f((histogram.edge(i) + histogram.edge(i + 1)) / 2);
      count += n;
    }
    return count > 0 ? sum / count : 0;
  };
  double centre = 0;
  if (!one_sided && !is_symmetric(options.qscheme)) centre = mean_of([](double x) { return x; });
  const double b = mean_of([&](double x) { return std::abs(x - centre); });
  const CodeRange codes = code_range(options);
  const auto n = static_cast<double>(codes.quant_max - codes.quant_min + 1);
  const double target = (one_sided && !is_symmetric(options.qscheme) ? 12 : 3) * n * n;
  double t = std::log(target);  // Newton's method for t + log t = log(target)
  for (int i = 0; i < 30; ++i) t -= (t + std::log(t) - std::log(target)) / (1 + 1 / t);
  const double lo = std::max<double>(full.min, centre - t * b),
               hi = std::min<double>(full.max, centre + t * b);
  return {static_cast<float>(lo), static_cast<float>(hi)};
}

// Options, errors and cost as HistogramObserver's.
class ACIQObserver : public HistogramObserver {
 public:
  explicit ACIQObserver(ObserverOptions options = {}, std::string label = "")
      : HistogramObserver("ACIQObserver", options, label) {}

 protected:
  Range choose_range() const override { return aciq_range(histogram(), options()); }
};

}  // namespace octet::quant
