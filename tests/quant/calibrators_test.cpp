#include "octet/quant/observe/calibrators.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "octet/base/random.h"
#include "octet/quant/observe/factory.h"
#include "octet/quant/observe/range_search.h"

namespace octet::quant {
namespace {

using Floats = std::vector<float>;
constexpr ObserverScheme kSymmetric = ObserverScheme::per_tensor_symmetric;

Histogram histogram_of(const Floats& x, int64_t bins = 8192) {
  Histogram h(bins);
  h.add(x.data(), static_cast<int64_t>(x.size()));
  return h;
}

// A bell with one value in a thousand far out.
Floats bell(size_t n, uint64_t seed, float outlier = 40) {
  Tensor t = Tensor::randn({static_cast<int64_t>(n)}, seed);
  Floats x = t.to_vector<float>();
  for (size_t i = 0; i < n; i += 1000) x[i] = outlier;
  return x;
}

Floats relu(Floats x) {
  for (float& v : x) v = std::max(v, 0.0f);
  return x;
}

// KL by the definition of entropy_range's comment, for data >= 0 and one window of `t` bins of
// equal width.
double divergence(std::vector<double> c, size_t t, size_t levels) {
  std::vector<double> p(c.begin(), c.begin() + static_cast<std::ptrdiff_t>(t)), q(t, 0.0);
  for (size_t k = t; k < c.size(); ++k) p[t - 1] += c[k];
  std::vector<double> sum(levels), used(levels);
  for (size_t k = 0; k < t; ++k) {
    sum[k * levels / t] += c[k];
    used[k * levels / t] += c[k] > 0;
  }
  for (size_t k = 0; k < t; ++k)
    if (c[k] > 0) q[k] = sum[k * levels / t] / used[k * levels / t];
  double np = 0, nq = 0, kl = 0;
  for (size_t k = 0; k < t; ++k) np += p[k], nq += q[k];
  for (size_t k = 0; k < t; ++k)
    if (p[k] > 0) kl += q[k] > 0 ? p[k] / np * std::log((p[k] / np) / (q[k] / nq)) : INFINITY;
  return kl;
}

}  // namespace

TEST(EntropyRange, IsTheWindowOfLeastDivergence) {
  for (uint64_t seed : {1, 2, 3}) {
    Floats x = relu(bell(20000, seed));
    x.back() = 64 - 1e-3f;  // max: the bins of the search are 64 / 2048 wide
    ObserverOptions options{.dtype = DType::quint8, .quant_min = 0, .quant_max = 63, .bins = 512};
    // 512 to 1024 bins over |x|: width 2^-4, as ilogb(64 / 512) is -3 only from 64 on.
    const double width = 0x1p-4;
    std::vector<double> c(1024, 0.0);
    for (float v : x) ++c[static_cast<size_t>(v / width)];
    c[0] = std::min(c[0], c[1]);
    double best = INFINITY;
    size_t best_t = 0;
    for (size_t t = c.size(); t >= 64; --t)
      if (double d = divergence(c, t, 64); d < best - 1e-12) best = d, best_t = t;
    Range r = entropy_range(histogram_of(x, 4 * 512), options);
    EXPECT_EQ(r.min, 0);
    EXPECT_NEAR(r.max, static_cast<float>(static_cast<double>(best_t) * width), 1e-6);
    EXPECT_LT(r.max, 60);  // it does clip
  }
}

TEST(EntropyRange, SymmetricWindowsAreOfTheMagnitudes) {
  Floats x = bell(50000, 7), mirrored = x;
  for (float& v : mirrored) v = -v;
  ObserverOptions options{.dtype = DType::qint8, .qscheme = kSymmetric};
  Range r = entropy_range(histogram_of(x), options);
  EXPECT_EQ(r.min, -r.max);
  EXPECT_GT(r.max, 2);
  EXPECT_LE(r.max, 40);
  Floats magnitudes = x;
  for (float& v : magnitudes) v = std::abs(v);
  EXPECT_EQ(r, entropy_range(histogram_of(magnitudes), options));
}

TEST(EntropyRange, WithoutAChoiceIsTheFullRange) {
  EXPECT_EQ(entropy_range(histogram_of({3, 3}), {}), (Range{3, 3}));
  EXPECT_EQ(entropy_range(histogram_of({-1, 2}), {.dtype = DType::qint32}), (Range{-1, 2}));
  Floats far = {1000, 1000.001f, 1000.002f};  // the window reaches down to 0
  EXPECT_EQ(entropy_range(histogram_of(far), {}).max, far[2]);
  Floats zeros(1000, 0.0f);
  zeros[0] = 8;
  EXPECT_EQ(entropy_range(histogram_of(zeros), {}), (Range{0, 8}));
}

TEST(PercentileRange, HoldsThePercentageOfTheValues) {
  Floats x = bell(100000, 3, 1);
  Histogram h = histogram_of(x);
  for (double percentile : {50.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    for (ObserverScheme scheme : {ObserverScheme::per_tensor_affine, kSymmetric}) {
      ObserverOptions options{.dtype = DType::qint8, .qscheme = scheme, .percentile = percentile};
      Range r = percentile_range(h, options);
      double inside = 0, below = 0;
      for (float v : x) inside += v >= r.min && v <= r.max, below += v < r.min;
      double n = static_cast<double>(x.size());
      EXPECT_NEAR(inside / n, percentile / 100, 5e-4) << percentile << " " << to_string(scheme);
      if (scheme != kSymmetric) {
        EXPECT_NEAR(below / n, (1 - percentile / 100) / 2, 5e-4);
      } else if (percentile < 100) {
        EXPECT_EQ(r.min, -r.max);
      }
    }
  }
}

TEST(PercentileRange, IsExactOnUniformData) {
  Floats x;
  for (int i = 0; i < 4096; ++i) x.push_back(static_cast<float>(i) / 1024);  // 0..4, evenly
  Range r = percentile_range(histogram_of(x), {.percentile = 50});
  EXPECT_NEAR(r.min, 1, 1e-3);
  EXPECT_NEAR(r.max, 3, 1e-3);
  EXPECT_NEAR(percentile_range(histogram_of(x), {.qscheme = kSymmetric, .percentile = 50}).max, 2,
              1e-3);
  EXPECT_EQ(percentile_range(histogram_of({2, 2}), {.percentile = 50}), (Range{2, 2}));
}

TEST(MSERange, IsTheBestShareOfTheFullRange) {
  for (const Floats& x : {bell(20000, 5), relu(bell(20000, 6)), bell(20000, 8, 4)}) {
    Histogram h = histogram_of(x);
    for (const ObserverOptions& options :
         {ObserverOptions{}, ObserverOptions{.dtype = DType::qint8, .qscheme = kSymmetric},
          ObserverOptions{.quant_min = 0, .quant_max = 15}}) {
      CodeRange codes = code_range(options);
      auto error = [&](Range r) {
        ScaleZeroPoint q = choose_qparams(r.min, r.max, options);
        return expected_error(h, q.scale, q.zero_point, codes.quant_min, codes.quant_max);
      };
      float lo = std::min(h.min(), 0.0f), hi = std::max(h.max(), 0.0f);
      if (is_symmetric(options.qscheme)) {
        hi = std::max(-lo, hi);
        lo = -hi;
      }
      double best = INFINITY;
      for (int k = 1; k <= 100; ++k) {
        double share = k / 100.0;
        best =
            std::min(best, error({static_cast<float>(lo * share), static_cast<float>(hi * share)}));
      }
      double ours = error(mse_range(h, options));
      EXPECT_NEAR(ours, best, 1e-9 * best);
      EXPECT_GE(ours, search_range(h, options).error * (1 - 1e-9));
    }
  }
}

// Weights of 4 bits, one far larger than the others: each channel by itself.
TEST(PerChannelMSE, IsTheBestShareOfEachChannelsRange) {
  const ObserverOptions options{.dtype = DType::qint8,
                                .qscheme = ObserverScheme::per_channel_symmetric,
                                .quant_min = -8,
                                .quant_max = 7};
  Tensor w = Tensor::randn({3, 500}, 5);
  w.data<float>()[7] = 9;
  const ObserverPtr observer = make_observer("PerChannelMSEObserver", options);
  observer->observe(w);
  const std::vector<float> max = observer->max_val().to_vector<float>();
  const auto error = [&](int64_t channel, float lo, float hi) {
    const ScaleZeroPoint q = choose_qparams(lo, hi, options);
    double sum = 0;
    for (int64_t i = 0; i < 500; ++i) {
      const float v = w.data<float>()[channel * 500 + i];
      const float code = std::clamp(std::nearbyintf(v / q.scale), -8.F, 7.F);
      sum += std::pow(static_cast<double>(v - code * q.scale), 2);
    }
    return sum;
  };
  for (int64_t c = 0; c < 3; ++c) {
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < 500; ++i) {
      lo = std::min(lo, w.data<float>()[c * 500 + i]);
      hi = std::max(hi, w.data<float>()[c * 500 + i]);
    }
    double least = INFINITY;
    for (int part = 1; part <= 100; ++part)
      least = std::min(least, error(c, lo * static_cast<float>(part) / 100,
                                    hi * static_cast<float>(part) / 100));
    const float chosen = max[static_cast<size_t>(c)];
    EXPECT_LT(chosen, hi) << "channel " << c;
    EXPECT_NEAR(error(c, lo * chosen / hi, chosen), least, 1e-4 * least) << "channel " << c;
  }
}

TEST(PerChannelMSE, AlongAnotherAxisIsTheSameOfTheTransposed) {
  const Tensor w = Tensor::randn({6, 40}, 9);
  ObserverOptions options{.dtype = DType::qint8, .qscheme = ObserverScheme::per_channel_symmetric};
  const ObserverPtr rows = make_observer("PerChannelMSEObserver", options);
  rows->observe(w);
  options.ch_axis = 1;
  const ObserverPtr columns = make_observer("PerChannelMSEObserver", options);
  columns->observe(w.transpose(0, 1));
  EXPECT_EQ(rows->max_val().to_vector<float>(), columns->max_val().to_vector<float>());
  EXPECT_EQ(rows->min_val().to_vector<float>(), columns->min_val().to_vector<float>());
}

TEST(Calibrators, DoNotDependOnOrderAndBatching) {
  Floats x = bell(6000, 11);
  Floats sorted = x;
  std::sort(sorted.begin(), sorted.end());
  for (const char* name : {"entropy", "percentile", "mse"}) {
    auto whole = make_observer(name), parts = make_observer(name), left = make_observer(name),
         right = make_observer(name);
    whole->observe(Tensor::from(x, {2000, 3}));
    for (size_t i = 0; i < sorted.size(); i += 600)
      parts->observe(Tensor::from(Floats(sorted.begin() + static_cast<std::ptrdiff_t>(i),
                                         sorted.begin() + static_cast<std::ptrdiff_t>(i + 600)),
                                  {600}));
    left->observe(Tensor::from(Floats(x.begin(), x.begin() + 17), {17}));
    right->observe(Tensor::from(Floats(x.begin() + 17, x.end()), {5983}));
    right->merge(*left);
    QParams q = whole->calculate_qparams();
    EXPECT_EQ(*q.quantizer, *parts->calculate_qparams().quantizer) << name;
    EXPECT_EQ(*q.quantizer, *right->calculate_qparams().quantizer) << name;
    auto full = make_observer("minmax");
    full->observe(Tensor::from(x, {6000}));
    EXPECT_LE(q.quantizer->scale(), full->calculate_qparams().quantizer->scale()) << name;
  }
}

}  // namespace octet::quant
