#include "octet/quant/observe/calibrators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/quant/observe/range_search.h"

namespace octet::quant {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The histogram's counts in coarser bins of width 2^exponent, of which number `zero` begins at 0.
struct Counts {
  std::vector<double> c;
  int64_t zero;
};

// Over [min, max] widened to 0, or of |x|.
Counts coarser(const Histogram& h, int exponent, bool absolute) {
  const int shift = std::min(exponent - h.exponent(), 62);
  const int64_t lo = h.first_bin() >> shift, hi = (h.first_bin() + h.size() - 1) >> shift;
  if (absolute) {  // bin -1 - k holds the negative values of bin k
    Counts folded{std::vector<double>(static_cast<size_t>(std::max(hi, -1 - lo) + 1), 0.0), 0};
    for (int64_t i = 0; i < h.size(); ++i) {
      int64_t k = (h.first_bin() + i) >> shift;
      folded.c[static_cast<size_t>(k < 0 ? -1 - k : k)] += static_cast<double>(h.count(i));
    }
    return folded;
  }
  const int64_t first = std::min<int64_t>(lo, 0), last = std::max<int64_t>(hi, -1);
  Counts all{std::vector<double>(static_cast<size_t>(last - first + 1), 0.0), -first};
  for (int64_t i = 0; i < h.size(); ++i)
    all.c[static_cast<size_t>(((h.first_bin() + i) >> shift) - first)] +=
        static_cast<double>(h.count(i));
  return all;
}

double x_log_x(double x) { return x > 0 ? x * std::log(x) : 0; }

// KL(P || Q) of any window in `levels` look-ups. With N values in all, W in the window, and S_j
// values in m_j bins that are not empty at level j:
//   sum of P log(P / Q) = (sum of p log p) / N - log N
//                         - sum over j of P_j (log S_j - log m_j - log W),  p = N P.
class Divergence {
 public:
  explicit Divergence(std::vector<double> c)
      : c_(std::move(c)), sum_(c_.size() + 1), used_(c_.size() + 1), entropy_(c_.size() + 1) {
    for (size_t k = 0; k < c_.size(); ++k) {
      sum_[k + 1] = sum_[k] + c_[k];
      used_[k + 1] = used_[k] + (c_[k] > 0);
      entropy_[k + 1] = entropy_[k] + x_log_x(c_[k]);
    }
  }

  // Of bins [a, b), b - a >= levels.
  double operator()(int64_t a, int64_t b, int64_t levels) const {
    const double all = sum_.back(), below = at(sum_, a), inside = at(sum_, b) - below,
                 above = all - below - inside;
    if ((below > 0 && at(c_, a) == 0) || (above > 0 && at(c_, b - 1) == 0) || inside == 0)
      return kInfinity;
    double entropy = at(entropy_, b) - at(entropy_, a);
    entropy += x_log_x(at(c_, a) + below) - x_log_x(at(c_, a));
    entropy += x_log_x(at(c_, b - 1) + above) - x_log_x(at(c_, b - 1));
    double cross = 0;
    int64_t from = a;
    for (int64_t j = 0; j < levels; ++j) {
      int64_t to = a + ((j + 1) * (b - a) + levels - 1) / levels;
      double s = at(sum_, to) - at(sum_, from), m = at(used_, to) - at(used_, from);
      double p = s + (j == 0 ? below : 0) + (j == levels - 1 ? above : 0);
      if (s > 0) cross += p * std::log(s / (m * inside));
      from = to;
    }
    return (entropy - cross) / all - std::log(all);
  }

 private:
  static double at(const std::vector<double>& v, int64_t i) { return v[static_cast<size_t>(i)]; }
  std::vector<double> c_, sum_, used_, entropy_;
};

// The number of values below t, taking the density as uniform inside a bin.
class Cumulative {
 public:
  explicit Cumulative(const Histogram& h) : h_(h), below_(static_cast<size_t>(h.size()) + 1, 0.0) {
    for (int64_t i = 0; i < h.size(); ++i)
      below_[static_cast<size_t>(i) + 1] =
          below_[static_cast<size_t>(i)] + static_cast<double>(h.count(i));
  }

  double operator()(double t) const {
    if (t <= h_.min()) return 0;
    if (t >= h_.max()) return below_.back();
    int64_t i =
        std::clamp<int64_t>(static_cast<int64_t>((t - h_.edge(0)) / h_.width()), 0, h_.size() - 1);
    double from = lower(i), to = upper(i);
    double share = to > from ? std::clamp((t - from) / (to - from), 0.0, 1.0) : 1.0;
    return below_[static_cast<size_t>(i)] + share * static_cast<double>(h_.count(i));
  }

  // The least t with `count` values below it.
  double inverse(double count) const {
    if (count <= 0) return h_.min();
    if (count >= below_.back()) return h_.max();
    int64_t i = std::upper_bound(below_.begin(), below_.end(), count) - below_.begin() - 1;
    // Values that lie above an empty stretch start at their own bin.
    double share = (count - below_[static_cast<size_t>(i)]) / static_cast<double>(h_.count(i));
    return lower(i) + share * (upper(i) - lower(i));
  }

 private:
  double lower(int64_t i) const { return std::max<double>(h_.edge(i), h_.min()); }
  double upper(int64_t i) const { return std::min<double>(h_.edge(i + 1), h_.max()); }
  const Histogram& h_;
  std::vector<double> below_;
};

}  // namespace

Range entropy_range(const Histogram& h, const ObserverOptions& options) {
  OCTET_CHECK(!h.empty(), not_calibrated, "entropy_range: the histogram is empty");
  const Range full{h.min(), h.max()};
  if (h.constant()) return full;
  const CodeRange codes = code_range(options);
  const bool symmetric = is_symmetric(options.qscheme);
  const double largest =
      std::max(std::abs(static_cast<double>(h.min())), std::abs(static_cast<double>(h.max())));
  const int exponent =
      std::max(h.exponent(), std::ilogb(largest / static_cast<double>(options.bins)));
  auto [c, zero] = coarser(h, exponent, symmetric);
  const int64_t size = static_cast<int64_t>(c.size());
  const int64_t all_codes = codes.quant_max - codes.quant_min + 1,
                levels = symmetric ? (all_codes + 1) / 2 : all_codes;
  if (size < levels) return full;
  if (zero < size) {
    double left = zero > 0 ? c[static_cast<size_t>(zero - 1)] : 0,
           right = zero + 1 < size ? c[static_cast<size_t>(zero + 1)] : 0;
    double& at_zero = c[static_cast<size_t>(zero)];
    at_zero = std::min(at_zero, std::max(left, right));
  }
  const Divergence divergence(std::move(c));
  const int64_t steps = std::max(zero, size - zero);
  double best = kInfinity;
  int64_t best_step = steps;
  for (int64_t t = steps; t >= 1; --t) {
    int64_t a = std::max<int64_t>(zero - t, 0), b = std::min(zero + t, size);
    if (b - a < levels) break;
    double d = divergence(a, b, levels);
    if (d < best) {
      best = d;
      best_step = t;
    }
  }
  const double threshold = std::ldexp(static_cast<double>(best_step), exponent);
  if (symmetric) {
    float m = static_cast<float>(std::min(threshold, largest));
    return {-m, m};
  }
  return {static_cast<float>(std::max<double>(-threshold, h.min())),
          static_cast<float>(std::min<double>(threshold, h.max()))};
}

Range percentile_range(const Histogram& h, const ObserverOptions& options) {
  OCTET_CHECK(!h.empty(), not_calibrated, "percentile_range: the histogram is empty");
  if (h.constant() || options.percentile >= 100) return {h.min(), h.max()};
  const Cumulative cumulative(h);
  const double total = static_cast<double>(h.total()), inside = options.percentile / 100 * total;
  if (!is_symmetric(options.qscheme)) {
    float lo = static_cast<float>(cumulative.inverse((total - inside) / 2));
    float hi = static_cast<float>(cumulative.inverse((total + inside) / 2));
    return {lo, std::max(lo, hi)};
  }
  // Bisected: the count within [-t, t] never falls as t grows.
  double lo = 0, hi = std::max(std::abs(static_cast<double>(h.min())),
                               std::abs(static_cast<double>(h.max())));
  for (int i = 0; i < 60; ++i) {
    double t = (lo + hi) / 2;
    (cumulative(t) - cumulative(-t) < inside ? lo : hi) = t;
  }
  float m = static_cast<float>(hi);
  return {-m, m};
}

Range mse_range(const Histogram& h, const ObserverOptions& options,
                std::optional<CodeRange> codes) {
  RangeChoice choice = shrink_range(h, options, 100, codes);
  return {choice.min, choice.max};
}

}  // namespace octet::quant
