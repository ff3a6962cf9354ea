// Observers against PyTorch 1.13: tests/golden/observers_*.json, made by
// scripts/oracle/observers.py.

#include <gtest/gtest.h>

#include <cmath>

#include "octet/quant/observe/histogram.h"
#include "octet/quant/observe/min_max.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/observe/range_search.h"
#include "octet/tensor/affine.h"
#include "tests/quant/golden.h"

namespace octet::quant {
namespace {

ObserverPtr observed(const json& c) {
  auto observer = make_observer(c["observer"].get<std::string>(), options_of(c), "golden");
  Shape shape = c["shape"].get<Shape>();
  double scale = c["scale"];
  for (uint64_t b = 0; b < c["batches"]; ++b) {
    observer->observe(Tensor::from(
        values(c["kind"], c["seed"].get<uint64_t>() + b, numel(shape), scale, c["offset"]), shape));
    scale = scale * c["growth"].get<double>();
  }
  return observer;
}

void expect_bits(const json& hexes, const std::vector<double>& got, const char* what) {
  ASSERT_EQ(hexes.size(), got.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(exact(hexes[i]), got[i]) << what << " " << i;
}

std::vector<double> doubles(const Tensor& t) {
  std::vector<float> v = t.to_vector<float>();
  return {v.begin(), v.end()};
}

void compare_all(const std::string& file) {
  json cases = load(file);
  ASSERT_GT(cases.size(), 100u);
  for (const json& c : cases) {
    SCOPED_TRACE(c.dump());
    auto observer = observed(c);
    if (c.contains("min")) {
      expect_bits(c["min"], doubles(observer->min_val()), "min_val");
      expect_bits(c["max"], doubles(observer->max_val()), "max_val");
    }
    QParams q = observer->calculate_qparams();
    expect_bits(c["scales"], q.scales, "scale");
    if (is_float_qparams(observer->options().qscheme)) {
      expect_bits(c["zero_points"], q.zero_points, "zero_point");
      EXPECT_EQ(q.quantizer->float_zero_points(), q.zero_points);
    } else {
      EXPECT_EQ(c["zero_points"].get<std::vector<double>>(), q.zero_points);
    }
    EXPECT_EQ(q.quantizer->scales(), q.scales);
    EXPECT_EQ(c["codes"][0], q.quant_min);
    EXPECT_EQ(c["codes"][1], q.quant_max);
    EXPECT_EQ(q.dtype, dtype_of_case(c));
    if (::testing::Test::HasFailure()) return;
  }
}

// Squared error of really quantizing the values.
double real_error(const std::vector<float>& x, float scale, int64_t z, CodeRange codes) {
  double sum = 0;
  for (float v : x) {
    int32_t q =
        affine::quantize(v, scale, static_cast<int32_t>(z), static_cast<int32_t>(codes.quant_min),
                         static_cast<int32_t>(codes.quant_max));
    double d = static_cast<double>(v) - static_cast<double>(q - z) * static_cast<double>(scale);
    sum += d * d;
  }
  return sum;
}

}  // namespace

TEST(GoldenObserver, MinMaxAndMovingAverage) { compare_all("observers_min_max.json"); }

TEST(GoldenObserver, PerChannelAndMovingAveragePerChannel) {
  compare_all("observers_per_channel.json");
}

TEST(GoldenObserver, FixedQParamsFloatQParamsAndTheQnnpackFamily) {
  compare_all("observers_more.json");
}

TEST(GoldenHistogramObserver, QuantizesAtLeastAsWellAsPyTorchsSearch) {
  double gain = 0;
  int n = 0;
  for (const json& c : load("observers_histogram.json")) {
    SCOPED_TRACE(c.dump());
    std::vector<float> x = values(c["kind"], c["seed"], c["shape"][0], c["scale"], c["offset"]);
    QParams q = observed(c)->calculate_qparams();
    CodeRange codes{q.quant_min, q.quant_max};
    EXPECT_EQ(codes, (CodeRange{c["codes"][0], c["codes"][1]}));
    double theirs =
        real_error(x, static_cast<float>(exact(c["scales"][0])), c["zero_points"][0], codes);
    EXPECT_NEAR(theirs, c["error"].get<double>(), 1e-9 * theirs);
    // Both as they run: with reduce_range codes go beyond those that the scale was made for.
    const CodeRange running = running_codes(observed(c)->options());
    theirs = real_error(x, static_cast<float>(exact(c["scales"][0])), c["zero_points"][0], running);
    double ours =
        real_error(x, static_cast<float>(q.quantizer->scale()), q.quantizer->zero_point(), running);
    EXPECT_LE(ours, theirs * (1 + 1e-6));
    gain += std::log(theirs / ours);
    ++n;
  }
  EXPECT_GE(n, 90);
  RecordProperty("mean_error_ratio", std::to_string(std::exp(gain / n)));
}

}  // namespace octet::quant
