#include "octet/quant/observe/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/observe/range_search.h"
#include "octet/tensor/affine.h"

namespace octet::quant {
namespace {

using Floats = std::vector<float>;

Floats normals(int64_t n, uint64_t seed, double scale = 1, double offset = 0) {
  Random r(seed);
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(r.normal() * scale + offset);
  return x;
}

Histogram of(const Floats& x, int64_t bins = 2048) {
  Histogram h(bins);
  h.add(x.data(), static_cast<int64_t>(x.size()));
  return h;
}

Tensor tensor(const Floats& x) { return Tensor::from(x, {static_cast<int64_t>(x.size())}); }

// Counts by the definition, one value at a time, in double.
void expect_counts_by_definition(const Histogram& h, const Floats& x) {
  std::vector<uint64_t> counts(static_cast<size_t>(h.size()));
  for (float v : x) {
    double k = std::floor(std::ldexp(static_cast<double>(v), -h.exponent()));
    ++counts.at(static_cast<size_t>(static_cast<int64_t>(k) - h.first_bin()));
  }
  for (int64_t i = 0; i < h.size(); ++i)
    ASSERT_EQ(h.count(i), counts[static_cast<size_t>(i)]) << "bin " << i;
}

double real_error(const Floats& x, const ScaleZeroPoint& q, CodeRange codes) {
  double sum = 0;
  for (float v : x) {
    int32_t code = affine::quantize(v, q.scale, static_cast<int32_t>(q.zero_point),
                                    static_cast<int32_t>(codes.quant_min),
                                    static_cast<int32_t>(codes.quant_max));
    double d = static_cast<double>(v) -
               static_cast<double>(code - q.zero_point) * static_cast<double>(q.scale);
    sum += d * d;
  }
  return sum;
}

// Data of every kind of range.
std::vector<Floats> all_sorts() {
  const float tiny = std::numeric_limits<float>::denorm_min(),
              huge = std::numeric_limits<float>::max();
  Floats wild = {1e-30f, -1e-30f, 1e30f, -3e29f, 0.0f, 1.0f, -tiny};
  return {normals(3000, 1),
          normals(3000, 2, 1e-3, 5),   // far from 0 for its width
          normals(3000, 3, 0.2, 1e6),  // bins beyond int32
          normals(3000, 4, 1e-41),     // denormals
          normals(3000, 5, 1e37),
          {huge, -huge, 0.0f, 1.0f},  // wider than float32
          wild,
          {tiny, 2 * tiny, 0.0f, 5 * tiny},
          {1.0f, std::nextafter(1.0f, 2.0f), 1.0f},  // neighbours
          {-0.0f, 3.0f, 0.0f},
          {-7.0f, -1.0f, 0.0f, 9.0f}};
}

}  // namespace

TEST(Histogram, CountsEveryValueInItsBin) {
  for (const Floats& x : all_sorts()) {
    Histogram h = of(x);
    EXPECT_EQ(h.total(), x.size());
    expect_counts_by_definition(h, x);
    EXPECT_LE(h.edge(0), h.min());
    EXPECT_LT(h.min(), h.edge(1));
    EXPECT_LE(h.edge(h.size() - 1), h.max());
    EXPECT_LT(h.max(), h.edge(h.size()));
  }
}

TEST(Histogram, LargeBatchesCountAsSmallOnesDo) {  // with the kernel, and one by one
  Floats x = normals(700'000, 6);
  for (size_t i = 0; i < x.size(); i += 2) x[i] = 0;  // one bin gets 350,000
  Histogram large = of(x), small;
  for (size_t i = 0; i < x.size(); i += 1000) small.add(&x[i], 1000);
  EXPECT_EQ(large, small);
  expect_counts_by_definition(large, x);
}

TEST(Histogram, CountsTheSameOnAnyNumberOfThreadsAndIsa) {
  Floats x = normals(600'000, 21);
  for (size_t i = 0; i < x.size(); i += 3) x[i] = 0;
  x[550'000] = 9;  // the range grows by a value in the last thread's share
  const int64_t half = 300'000;
  const Histogram all = of(x);
  const int threads_before = num_threads();
  const Isa isa_before = current_isa();
  for (Isa isa : supported_isas())
    for (int threads : {1, 2, 3}) {
      set_isa(isa);
      set_num_threads(threads);
      Histogram h;
      EXPECT_TRUE(h.add(x.data(), half));
      EXPECT_TRUE(h.add(x.data() + half, half));
      EXPECT_EQ(h, all) << to_string(isa) << ", " << threads << " threads";
    }
  set_isa(isa_before);
  set_num_threads(threads_before);
  expect_counts_by_definition(all, x);
}

TEST(Histogram, TakesInNothingOfABatchThatIsNotFinite) {
  Floats x = normals(300'000, 22);
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    for (size_t n : {size_t{10}, x.size()}) {
      Histogram h = of(x), before = h;
      Floats y(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(n));
      y.back() = bad;
      EXPECT_FALSE(h.add(y.data(), static_cast<int64_t>(n)));
      EXPECT_EQ(h, before);
      Histogram empty;
      EXPECT_FALSE(empty.add(y.data(), static_cast<int64_t>(n)));
      EXPECT_EQ(empty, Histogram());
      // nor is anything left over for the next one
      EXPECT_TRUE(h.add(x.data(), static_cast<int64_t>(x.size())));
      for (int64_t i = 0; i < h.size(); ++i)
        ASSERT_EQ(h.count(i), 2 * before.count(i)) << "bin " << i;
    }
  }
}

TEST(Histogram, HasAtLeastTheWantedNumberOfBinsOverTheRange) {
  for (int64_t bins : {16, 100, 2048, 5000})
    for (const Floats& x : all_sorts()) {
      Histogram h = of(x, bins);
      double range = static_cast<double>(h.max()) - h.min();
      EXPECT_GE(range / h.width(), static_cast<double>(bins) * (1 - 1e-12));
      EXPECT_LE(range / h.width(), static_cast<double>(2 * bins));
      EXPECT_GE(h.size(), bins);
      EXPECT_LE(h.size(), 2 * bins + 2);
    }
}

TEST(Histogram, KeepsItsResolutionWhenTheFirstDataWasNarrow) {
  Histogram h;
  for (double scale : {1e-6, 1e-2, 1.0, 300.0}) {
    Floats x = normals(1000, 7, scale);
    h.add(x.data(), 1000);
  }
  EXPECT_GE((static_cast<double>(h.max()) - h.min()) / h.width(), 2048);
}

TEST(Histogram, DependsOnTheValuesSeenOnly) {
  for (const Floats& sort : all_sorts()) {
    Floats x = sort;
    const Histogram all = of(x);
    Random r(8);
    for (int round = 0; round < 5; ++round) {
      for (size_t i = x.size(); i > 1; --i) std::swap(x[i - 1], x[r.next() % i]);
      Histogram h;
      for (size_t i = 0; i < x.size();) {
        size_t n = std::min<size_t>(x.size() - i, 1 + r.next() % (round < 2 ? 3 : 900));
        h.add(&x[i], static_cast<int64_t>(n));
        i += n;
      }
      ASSERT_EQ(h, all);
      ASSERT_FALSE(std::signbit(h.min() + h.max()) && h.min() + h.max() == 0);
    }
    std::sort(x.begin(), x.end(), [](float a, float b) { return std::abs(a) < std::abs(b); });
    Histogram h;  // the range grows with every value
    for (float v : x) h.add(&v, 1);
    ASSERT_EQ(h, all);
  }
}

TEST(Histogram, MergingIsSeeingBoth) {
  std::vector<Floats> sorts = all_sorts();
  sorts.push_back({4.0f, 4.0f});  // constant
  sorts.push_back({0.0f});
  for (const Floats& a : sorts)
    for (const Floats& b : sorts) {
      Floats both = a;
      both.insert(both.end(), b.begin(), b.end());
      Histogram h = of(a);
      h.merge(of(b));
      ASSERT_EQ(h, of(both));
      h.merge(Histogram());
      ASSERT_EQ(h, of(both));
      Histogram empty;
      empty.merge(h);
      ASSERT_EQ(empty, h);
    }
  Histogram h = of({1, 2, 3});
  h.merge(h);
  EXPECT_EQ(h, of({1, 2, 3, 1, 2, 3}));
  EXPECT_THROW(h.merge(Histogram(4096)), Error);
}

TEST(Histogram, WildRangesCostNoMemoryAndNoCounts) {  // PyTorch asks for 400 GB here
  Histogram h;
  for (float top : {1e-30f, 1e-3f, 10.0f, 1e6f, 1e30f}) {
    float x[2] = {0, top};
    h.add(x, 2);
    EXPECT_LE(h.size(), 4098);
  }
  EXPECT_EQ(h.total(), 10u);
  EXPECT_EQ(h.count(0), 9u);
  EXPECT_EQ(h.count(h.size() - 1), 1u);
}

TEST(Histogram, ConstantDataIsOneBinOfNoWidth) {
  Histogram h;
  float c = -2.5f;
  for (int i = 0; i < 3; ++i) h.add(&c, 1);
  EXPECT_EQ(h.size(), 1);
  EXPECT_EQ(h.count(0), 3u);
  EXPECT_EQ(h.width(), 0);
  EXPECT_EQ(h.edge(0), -2.5);
  float x[2] = {0, 1};
  h.add(x, 2);
  EXPECT_EQ(h.total(), 5u);
  EXPECT_EQ(h, of({0, -2.5, -2.5, 1, -2.5}));
  h.clear();
  EXPECT_TRUE(h.empty());
  EXPECT_EQ(h, Histogram());
}

TEST(HistogramObserver, IsIndependentOfOrderBatchesAndThreads) {
  Floats x = normals(40'000, 9, 3.0, 1.0);
  HistogramObserver whole({}, "x");
  whole.observe(tensor(x));
  for (int threads : {1, 2, 3}) {
    set_num_threads(threads);
    std::vector<HistogramObserver> parts(8, HistogramObserver({}, "x"));
    parallel_for(8, [&](int64_t i) {
      Floats part(x.rbegin() + i * 5000, x.rbegin() + (i + 1) * 5000);
      parts[static_cast<size_t>(i)].observe(tensor(part));
    });
    for (size_t i = 1; i < parts.size(); ++i) parts[0].merge(parts[i]);
    EXPECT_EQ(parts[0].histogram(), whole.histogram());
    EXPECT_EQ(*parts[0].calculate_qparams().quantizer, *whole.calculate_qparams().quantizer);
  }
}

TEST(HistogramObserver, ReadsAnyLayoutAndFloatType) {
  Tensor x = Tensor::randn({2, 3, 4, 5}, 10);
  HistogramObserver a, b, c;
  a.observe(x);
  b.observe(x.clone(MemoryFormat::channels_last));
  c.observe(x.permute({3, 1, 0, 2}));
  EXPECT_EQ(a.histogram(), b.histogram());
  EXPECT_EQ(a.histogram(), c.histogram());
  HistogramObserver wide, half;
  wide.observe(x.to(DType::float64));
  EXPECT_EQ(a.histogram(), wide.histogram());
  half.observe(x.to(DType::float16));
  EXPECT_EQ(half.histogram().total(), 120u);
}

TEST(HistogramObserver, CutsOffOutliersThatCostMoreThanTheyAreWorth) {
  Floats x = normals(1'000'000, 11);
  x[5] = 12.0f;
  HistogramObserver o;
  o.observe(tensor(x));
  EXPECT_EQ(o.max_val().item(), 12.0);
  QParams q = o.calculate_qparams();
  double top = q.quantizer->scale() * static_cast<double>(255 - q.quantizer->zero_point());
  EXPECT_LT(top, 7);
  EXPECT_GT(top, 4);
  EXPECT_TRUE(q.warnings.empty());
}

TEST(HistogramObserver, ErrorAndRangeMatchWhatQuantizingTheDataCosts) {
  for (const ObserverOptions& options :
       {ObserverOptions{}, ObserverOptions{.reduce_range = true},
        ObserverOptions{.dtype = DType::qint8, .qscheme = ObserverScheme::per_tensor_symmetric},
        ObserverOptions{.quant_min = 0, .quant_max = 15}})
    for (double offset : {0.0, 2.0, -30.0}) {
      Floats x = normals(200'000, 12, 1.0, offset);
      Histogram h = of(x);
      CodeRange codes = running_codes(options);
      RangeChoice best = search_range(h, options);
      ScaleZeroPoint q = choose_qparams(best.min, best.max, options);
      double real = real_error(x, q, codes);
      EXPECT_NEAR(best.error / real, 1, 0.01);
      EXPECT_DOUBLE_EQ(best.error,
                       expected_error(h, q.scale, q.zero_point, codes.quant_min, codes.quant_max));
      double full = real_error(x, choose_qparams(h.min(), h.max(), options), codes);
      EXPECT_LE(real, full);
      if (!is_symmetric(options.qscheme)) {
        EXPECT_GE(best.min, std::min(h.min(), 0.0f));
        EXPECT_LE(best.max, std::max(h.max(), 0.0f));
      }
      // No range on a grid of its own is much better.
      for (int i = 0; i <= 40; ++i)
        for (int j = 0; j <= 40; ++j) {
          ScaleZeroPoint p = choose_qparams(h.min() * static_cast<float>(i) / 40,
                                            h.max() * static_cast<float>(j) / 40, options);
          EXPECT_GE(expected_error(h, p.scale, p.zero_point, codes.quant_min, codes.quant_max),
                    best.error * 0.985);
        }
    }
}

TEST(HistogramObserver, WithReduceRangeSearchesTheCodesThatRun) {
  for (double offset : {0.0, 1.5, -0.7}) {
    Floats x = normals(200'000, 31, 1.0, offset);
    auto error = [&](bool reduce_range) {
      HistogramObserver o({.reduce_range = reduce_range});
      o.observe(tensor(x));
      QParams q = o.calculate_qparams();
      Tensor y = quantize(tensor(x), q.quantizer, q.dtype).dequantize();  // as it runs: 0..255
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i)
        sum += std::pow(static_cast<double>(x[i]) - y.data<float>()[i], 2);
      return sum;
    };
    // (Zero points end at 127: the scale must reach the lowest value by 127 codes.)
    EXPECT_LE(error(true), (offset < 0 ? 1.5 : 1.1) * error(false)) << offset;
  }
}

TEST(HistogramObserver, InAFakeQuantizeModuleSearchesTheCodesThatThatClampsTo) {
  Floats x = normals(200'000, 32);
  auto fake = default_histogram_fake_quant().make_module("x");  // reduce_range: 0..127
  Tensor y = (*fake)(tensor(x));
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i)
    sum += std::pow(static_cast<double>(x[i]) - y.data<float>()[i], 2);
  EXPECT_LT(sum / static_cast<double>(x.size()), std::pow(8.0 / 127, 2) / 12)
      << "about the error of 128 codes over 8 sigma";
}

TEST(HistogramObserver, HandlesConstantsAndExtremes) {
  struct Case {
    Floats values;
    bool warns;
  };
  const float huge = std::numeric_limits<float>::max();
  for (const Case& c : {Case{{0, 0, 0}, true}, Case{{5, 5}, true}, Case{{-5}, true},
                        Case{{1e-12f, -2e-12f}, true}, Case{{huge, -huge}, false},
                        Case{{1e-30f, 1e30f, -1e30f}, false}, Case{{1, 1.0000001f}, false}})
    for (ObserverScheme scheme :
         {ObserverScheme::per_tensor_affine, ObserverScheme::per_tensor_symmetric}) {
      HistogramObserver o({.dtype = DType::qint8, .qscheme = scheme}, "conv1");
      o.observe(tensor(c.values));
      QParams q = o.calculate_qparams();
      EXPECT_TRUE(std::isnormal(static_cast<float>(q.quantizer->scale())));
      EXPECT_EQ(q.warnings.size(), c.warns ? 1u : 0u) << c.values[0];
      for (const std::string& line : q.warnings) EXPECT_EQ(line.rfind("conv1: ", 0), 0u) << line;
    }
}

TEST(HistogramObserver, WithVeryManyCodesTakesTheFullRange) {
  HistogramObserver o({.dtype = DType::qint32});
  o.observe(tensor(normals(1000, 13)));
  double steps = 4294967296.0;
  EXPECT_NEAR(o.calculate_qparams().quantizer->scale(),
              std::max((o.max_val().item() - o.min_val().item()) / steps, 0x1p-23), 1e-9);
}

TEST(HistogramObserver, RejectsWhatItCannotDo) {
  EXPECT_THROW(HistogramObserver({.qscheme = ObserverScheme::per_channel_affine}), Error);
  EXPECT_THROW(HistogramObserver({.bins = 4}), Error);
  HistogramObserver o({}, "fc");
  o.observe(Tensor::from({1.0f, 2.0f}));
  Histogram before = o.histogram();
  try {
    o.observe(Tensor::from({1.0f, NAN, 9.0f, INFINITY, -INFINITY}));
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "HistogramObserver of 'fc': 1 NaN and 2 infinite among 5 values (shape (5)); a "
                 "range cannot be chosen: "
                 "find the layer or the input they come from");
  }
  EXPECT_EQ(o.histogram(), before);  // nothing was taken in
}

}  // namespace octet::quant
