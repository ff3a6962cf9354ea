#include "octet/quant/observe/range_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::quant {
namespace {

// The expected error in closed form. Lengths are in bins, counted from the lower edge of bin 0.
//
// Let the codes' values be v_1 < ... < v_L, S apart, and t_b = (v_{b-1} + v_b) / 2 the boundaries
// between them. A value x costs (x - v_L)^2 if it lies above all boundaries; each boundary above it
// changes that by
//   (x - v_{b-1})^2 - (x - v_b)^2 = -2 S (t_b - x),
// and so, with G(t) = sum of (t - x) over the values x < t,
//   error = sum of (x - v_L)^2  -  2 S * sum over b of G(t_b).
// With uniform density inside a bin G is quadratic there: a + b u + c u^2, u in [0, 1). A range
// thus costs one look-up per code, however many bins there are.
class ErrorCurve {
 public:
  explicit ErrorCurve(const Histogram& h)
      : width_(h.width()), first_(static_cast<double>(h.first_bin())) {
    int64_t n = h.size();
    low_ = static_cast<double>(h.min()) / width_ - first_;
    high_ = static_cast<double>(h.max()) / width_ - first_;
    pieces_.resize(static_cast<size_t>(n));
    double below = 0, g = 0;  // count below the bin's lower edge, and G there
    for (int64_t i = 0; i < n; ++i) {
      double count = static_cast<double>(h.count(i));
      // Values lie in [from, to] of the bin: all of it but in the first and the last.
      double from = i == 0 ? low_ : 0.0, to = i == n - 1 ? high_ - static_cast<double>(i) : 1.0;
      double curve = to > from ? count / (2 * (to - from)) : 0.0;
      pieces_[static_cast<size_t>(i)] = {g + curve * from * from, below - 2 * curve * from, curve};
      double middle = static_cast<double>(i) + (from + to) / 2;
      sum0_ += count;
      sum1_ += count * middle;
      sum2_ += count * (middle * middle + (to - from) * (to - from) / 12);
      if (i == n - 1) g_high_ = g + below * to + count * (to - from) / 2;
      g += below + count * (1 - (from + to) / 2);
      below += count;
    }
  }

  // In the data's own unit, squared.
  double operator()(double scale, int64_t zero_point, int64_t lo, int64_t hi) const {
    double step = scale / width_;
    double last = step * static_cast<double>(hi - zero_point) - first_;
    // the lowest of hi - lo boundaries
    double t0 = step * (static_cast<double>(lo - zero_point) + 0.5) - first_;
    int64_t count = hi - lo;
    // Boundaries up to low_ add nothing; those beyond high_ add G(high) + N (t - high); [j0, j1)
    // are between.
    int64_t j0 = steps_to(low_, t0, step, count), j1 = steps_to(high_, t0, step, count);
    double sums[4] = {0, 0, 0, 0};
    int64_t j = j0;
    for (; j + 4 <= j1; j += 4)
      for (int64_t k = 0; k < 4; ++k) sums[k] += at(t0 + static_cast<double>(j + k) * step);
    for (; j < j1; ++j) sums[0] += at(t0 + static_cast<double>(j) * step);
    double g = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (j1 < count) {
      double beyond = static_cast<double>(count - j1);
      double mean = t0 + step * (static_cast<double>(j1) + (beyond - 1) / 2);
      g += beyond * (g_high_ + sum0_ * (mean - high_));
    }
    double error = sum2_ - 2 * last * sum1_ + last * last * sum0_ - 2 * step * g;
    return std::max(error, 0.0) * width_ * width_;
  }

 private:
  struct Piece {
    double a, b, c;
  };

  // The number of boundaries t0 + j*step below t, at most count.
  static int64_t steps_to(double t, double t0, double step, int64_t count) {
    double j = std::ceil((t - t0) / step);
    if (!(j > 0)) return 0;
    return j < static_cast<double>(count) ? static_cast<int64_t>(j) : count;
  }

  double at(double t) const {
    t = std::clamp(t, low_, high_);
    size_t i = std::min(static_cast<size_t>(t), pieces_.size() - 1);
    double u = t - static_cast<double>(i);
    const Piece& p = pieces_[i];
    return p.a + u * (p.b + u * p.c);
  }

  double width_, first_;
  double low_, high_, g_high_ = 0;
  double sum0_ = 0, sum1_ = 0, sum2_ = 0;
  std::vector<Piece> pieces_;
};

double constant_error(const Histogram& h, float scale, int64_t z, int64_t lo, int64_t hi) {
  double q =
      std::clamp(std::nearbyint(static_cast<double>(h.min()) / scale) + static_cast<double>(z),
                 static_cast<double>(lo), static_cast<double>(hi));
  double d = static_cast<double>(h.min()) - (q - static_cast<double>(z)) * scale;
  return d * d * static_cast<double>(h.total());
}

struct Point {
  double lo, hi, error;
};

class Search {
 public:
  Search(const Histogram& h, const ObserverOptions& options, CodeRange codes)
      : curve_(h),
        options_(options),
        codes_(codes),
        bin_(h.width()),
        min_(std::min(h.min(), 0.0f)),
        max_(std::max(h.max(), 0.0f)) {
    if (is_symmetric(options.qscheme)) {
      max_ = std::max(-min_, max_);
      min_ = 0;  // one number, hi, says it all
    }
  }

  RangeChoice shrink(int steps) {
    for (int k = steps; k >= 1; --k) {
      double share = static_cast<double>(k) / steps;
      evaluate(min_ * share, max_ * share);
    }
    return {static_cast<float>(best_.lo), static_cast<float>(best_.hi), best_.error};
  }

  RangeChoice run() {
    evaluate(min_, max_);  // first, so that only a better range replaces it
    std::vector<double> los = ends(-min_, max_ > 0), his = ends(max_, min_ < 0);
    std::vector<Point> grid;
    grid.reserve(los.size() * his.size());
    for (double lo : los)
      for (double hi : his) grid.push_back(evaluate(-lo, hi));
    // The best, and the best of those well apart from it: the error may have several valleys.
    std::sort(grid.begin(), grid.end(), [](const Point& a, const Point& b) {
      return a.error != b.error ? a.error < b.error : a.hi != b.hi ? a.hi > b.hi : a.lo < b.lo;
    });
    std::vector<Point> starts;
    for (const Point& p : grid) {
      if (starts.size() == kStarts) break;
      bool apart = std::all_of(starts.begin(), starts.end(), [&](const Point& s) {
        return std::abs(p.hi - s.hi) > 0.25 * s.hi || std::abs(p.lo - s.lo) > 0.25 * -s.lo;
      });
      if (apart) starts.push_back(p);
    }
    for (const Point& p : starts) descend(p, 0.1);
    // Few values, or values on a lattice of their own, make the error jagged: scales a little off
    // may fit them better.
    const Point around{best_.lo, best_.hi, best_.error};
    for (int k = -kFine; k <= kFine; ++k) {
      double factor = 1 + 0.025 * k / kFine;
      evaluate(around.lo * factor, around.hi * factor);
    }
    descend(best_, 0.025 / kFine);
    return {static_cast<float>(best_.lo), static_cast<float>(best_.hi), best_.error};
  }

 private:
  static constexpr size_t kStarts = 3;
  static constexpr int kFine = 80;

  // Candidate distances of one end from 0: the full one, then smaller by a factor each, down to the
  // bins' width; and 0.
  std::vector<double> ends(double full, bool other_side) const {
    // 2^(-1/4) if both ends move, else 2^(-1/64).
    double factor = other_side ? 0.8408964152537145 : 0.9892280131939755;
    std::vector<double> values;
    for (double v = full; v > 2 * bin_; v *= factor) values.push_back(v);
    if (values.empty() && full > 0) values.push_back(full);
    if (other_side || values.empty()) values.push_back(0);
    return values;
  }

  Point evaluate(double lo, double hi) {
    lo = std::clamp(lo, static_cast<double>(min_), 0.0);
    hi = std::clamp(hi, 0.0, static_cast<double>(max_));
    float flo = static_cast<float>(lo), fhi = static_cast<float>(hi);
    if (is_symmetric(options_.qscheme)) flo = -fhi;
    ScaleZeroPoint q = choose_qparams(flo, fhi, options_);
    Point p{lo, hi, curve_(q.scale, q.zero_point, codes_.quant_min, codes_.quant_max)};
    if (p.error < best_.error || best_.error < 0) best_ = {flo, fhi, p.error};
    return p;
  }

  // Pattern search (Hooke and Jeeves 1961): try the eight neighbours a step away, go to the best,
  // halve the step. The first step is a fraction of the ends.
  void descend(Point p, double fraction) {
    double step_lo = fraction * -p.lo, step_hi = fraction * p.hi;
    bool fixed_lo = min_ == 0;
    while (std::max(step_lo, step_hi) > bin_ / 32) {
      for (int move = 0; move < 4; ++move) {
        Point next = p;
        for (int i = -1; i <= 1; ++i)
          for (int j = -1; j <= 1; ++j) {
            if ((i == 0 && j == 0) || (fixed_lo && i != 0)) continue;
            Point q = evaluate(p.lo + i * step_lo, p.hi + j * step_hi);
            if (q.error < next.error) next = q;
          }
        if (!(next.error < p.error)) break;
        p = next;
      }
      step_lo /= 2;
      step_hi /= 2;
    }
  }

  ErrorCurve curve_;
  const ObserverOptions& options_;
  CodeRange codes_;
  double bin_;
  float min_, max_;
  Point best_{0, 0, -1};
};

}  // namespace

double expected_error(const Histogram& h, float scale, int64_t zero_point, int64_t lo, int64_t hi) {
  OCTET_CHECK(!h.empty(), not_calibrated, "expected_error: the histogram is empty");
  OCTET_CHECK(scale > 0 && lo < hi && hi - lo < 65536, invalid_argument,
              "expected_error: scale {}, codes {}..{}; expected scale > 0 and 2 to 65536 codes",
              scale, lo, hi);
  if (h.constant()) return constant_error(h, scale, zero_point, lo, hi);
  return ErrorCurve(h)(scale, zero_point, lo, hi);
}

namespace {

// What needs no search: empty and constant histograms, and more codes than the histogram can tell
// apart.
std::optional<RangeChoice> without_search(const Histogram& h, const ObserverOptions& options,
                                          CodeRange codes, const char* who) {
  OCTET_CHECK(!h.empty(), not_calibrated, "{}: the histogram is empty", who);
  if (h.constant()) {
    ScaleZeroPoint q = choose_qparams(h.min(), h.max(), options);
    return RangeChoice{h.min(), h.max(),
                       constant_error(h, q.scale, q.zero_point, codes.quant_min, codes.quant_max)};
  }
  if (codes.quant_max - codes.quant_min >= 4096) {
    double s = choose_qparams(h.min(), h.max(), options).scale;
    return RangeChoice{h.min(), h.max(), s * s / 12 * static_cast<double>(h.total())};
  }
  return std::nullopt;
}

}  // namespace

RangeChoice search_range(const Histogram& h, const ObserverOptions& options,
                         std::optional<CodeRange> given) {
  const CodeRange codes = given.value_or(running_codes(options));
  if (auto range = without_search(h, options, codes, "search_range")) return *range;
  return Search(h, options, codes).run();
}

RangeChoice shrink_range(const Histogram& h, const ObserverOptions& options, int steps,
                         std::optional<CodeRange> given) {
  OCTET_CHECK(steps >= 1, invalid_argument, "shrink_range: {} steps; expected 1 or more", steps);
  const CodeRange codes = given.value_or(running_codes(options));
  if (auto range = without_search(h, options, codes, "shrink_range")) return *range;
  return Search(h, options, codes).shrink(steps);
}

RangeChoice least_error_range(std::span<const float> values, const ObserverOptions& options,
                              int steps) {
  OCTET_CHECK(steps >= 1, invalid_argument, "least_error_range: expected 1 step or more, got {}",
              steps);
  float min = 0, max = 0;
  for (const float v : values) min = std::min(min, v), max = std::max(max, v);
  RangeChoice best{min, max, 0};
  const CodeRange codes = code_range(options);
  if (values.empty() || codes.quant_max - codes.quant_min >= 4096) return best;
  best.error = std::numeric_limits<double>::infinity();
  for (int i = steps; i >= 1; --i) {
    const float part = static_cast<float>(i) / static_cast<float>(steps);
    const RangeChoice range{min * part, max * part, 0};
    const ScaleZeroPoint q = choose_qparams(range.min, range.max, options);
    const auto zero = static_cast<float>(q.zero_point);
    const kernels::SquaredErrors e =
        kernels::table().squared_errors({.scale = q.scale,
                                         .inverse = 1.F / q.scale,
                                         .lo = static_cast<float>(codes.quant_min) - zero,
                                         .hi = static_cast<float>(codes.quant_max) - zero},
                                        values.data(), std::ssize(values));
    if (e.all < best.error) best = {range.min, range.max, e.all};
    // A narrower symmetric range clips more, so no other one can be better.
    if (is_symmetric(options.qscheme) && e.clipped >= best.error) break;
  }
  return best;
}

}  // namespace octet::quant
