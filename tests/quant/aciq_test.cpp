// ACIQObserver was added as an example of what an observer takes (CONTRIBUTING.md).
#include "octet/quant/observe/aciq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/base/random.h"
#include "octet/quant/observe/factory.h"

namespace octet::quant::aciq_test {

using Floats = std::vector<float>;

// Values of a Laplace distribution with mean distance 1 from 0.
Floats laplace(size_t n, uint64_t seed) {
  Random random(seed);
  Floats x(n);
  for (float& v : x) {
    const double u = random.uniform(-0.5, 0.5);
    v = static_cast<float>(-std::copysign(std::log(1 - 2 * std::abs(u)), u));
  }
  return x;
}

Histogram histogram_of(const Floats& x) {
  Histogram h(8192);
  h.add(x.data(), static_cast<int64_t>(x.size()));
  return h;
}

ObserverOptions bits(int n, ObserverScheme scheme) {
  ObserverOptions o{.qscheme = scheme};
  o.quant_min = 0;
  o.quant_max = (1 << n) - 1;
  return o;
}

// The mean squared error of clipping to [lo, hi] and rounding to 2^n codes.
double error(const Floats& x, double lo, double hi, int n) {
  const double step = (hi - lo) / ((1 << n) - 1);
  double sum = 0;
  for (float v : x) {
    const double y = lo + step * std::round((std::clamp<double>(v, lo, hi) - lo) / step);
    sum += (y - v) * (y - v);
  }
  return sum / static_cast<double>(x.size());
}

TEST(AciqRange, OfLaplaceValuesIsWithinAFewPercentOfTheBestClipping) {
  const Floats x = laplace(200000, 1);
  for (int n : {4, 8}) {
    SCOPED_TRACE(n);
    const Range range = aciq_range(histogram_of(x), bits(n, ObserverScheme::per_tensor_affine));
    // The paper's multiples of b for 4 and 8 bits.
    EXPECT_NEAR(range.max, n == 4 ? 5.03 : 9.89, 0.1);
    EXPECT_NEAR(range.min, -range.max, 0.1);
    double best = INFINITY;
    for (double t = 1; t < 14; t += 0.1) best = std::min(best, error(x, -t, t, n));
    EXPECT_LT(error(x, range.min, range.max, n), 1.05 * best);
  }
}

TEST(AciqRange, OfValuesOfOneSignStartsAtTheirEnd) {
  Floats x = laplace(200000, 2);
  for (float& v : x) v = std::max(v, 0.0f);
  const Range range = aciq_range(histogram_of(x), bits(4, ObserverScheme::per_tensor_affine));
  EXPECT_EQ(range.min, 0);
  double best = INFINITY;
  for (double t = 1; t < 14; t += 0.1) best = std::min(best, error(x, 0, t, 4));
  EXPECT_LT(error(x, 0, range.max, 4), 1.05 * best);
}

TEST(AciqRange, NeverLeavesTheDatasRange) {
  const Floats x = {-1, -0.9f, 0.5f, 0.8f, 1};
  const Range range = aciq_range(histogram_of(x), bits(8, ObserverScheme::per_tensor_affine));
  EXPECT_EQ(range, (Range{-1, 1}));
  EXPECT_EQ(aciq_range(histogram_of({2, 2}), {}), (Range{2, 2}));
  EXPECT_THROW(aciq_range(Histogram(), {}), Error);
}

TEST(AciqObserver, IsKnownByItsNamesAndGivesQParams) {
  const Floats x = laplace(10000, 3);
  for (const char* name : {"aciq", "ACIQObserver"}) {
    const ObserverPtr observer = ObserverFactory(name).make();
    observer->observe(Tensor::from(x, {static_cast<int64_t>(x.size())}));
    const Range range =
        aciq_range(dynamic_cast<HistogramObserver&>(*observer).histogram(), observer->options());
    const QParams q = observer->calculate_qparams();
    EXPECT_NEAR(q.scales[0], (range.max - range.min) / 255, 1e-6);
  }
}

}  // namespace octet::quant::aciq_test
