// Observers against PyTorch 1.13: tests/golden/observers_*.json, made by scripts/oracle/observers.py.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "octet/base/random.h"
#include "octet/quant/observe/histogram.h"
#include "octet/quant/observe/min_max.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/observe/range_search.h"
#include "octet/tensor/affine.h"

namespace octet::quant {
namespace {

using nlohmann::json;

json load(const std::string& name) {
  std::ifstream file("tests/golden/" + name);
  EXPECT_TRUE(file) << "run the tests from the repository's root";
  return json::parse(file)["cases"];
}

double exact(const json& hex) { return std::strtod(hex.get<std::string>().c_str(), nullptr); }

// The generator of scripts/oracle/observers.py.
std::vector<float> values(const std::string& kind, uint64_t seed, int64_t n, double scale, double offset) {
  Random random(seed);
  std::vector<float> result(static_cast<size_t>(n));
  for (float& v : result) {
    double first = random.uniform(), normal = first;
    for (int k = 1; k < 12; ++k) normal = normal + random.uniform();
    normal = normal - 6.0;
    double base = kind == "normal"    ? normal
                  : kind == "uniform" ? first * 2.0 - 1.0
                  : kind == "relu"    ? std::max(normal, 0.0)
                  : kind == "cubic"   ? normal * normal * normal
                  : kind == "hollow"  ? (normal < 0 ? normal - 4.0 : normal + 4.0)
                                      : std::nearbyint(normal * 8.0) / 8.0;
    v = static_cast<float>(base * scale + offset);
  }
  return result;
}

// Codes of 4 bits are quint8 with 0..15.
DType dtype_of_case(const json& c) { return parse_dtype(c["dtype"] == "quint4x2" ? "quint8" : c["dtype"].get<std::string>()); }

ObserverOptions options_of(const json& c) {
  ObserverOptions o;
  o.dtype = dtype_of_case(c);
  if (c["dtype"] == "quint4x2") o.quant_min = 0, o.quant_max = 15;
  o.qscheme = parse_observer_scheme(c["qscheme"].get<std::string>());
  if (c.contains("quant_min")) o.quant_min = c["quant_min"].get<int64_t>();
  if (c.contains("quant_max")) o.quant_max = c["quant_max"].get<int64_t>();
  o.reduce_range = c.value("reduce_range", false);
  o.eps = c.value("eps", 0x1p-23);
  o.ch_axis = c.value("ch_axis", int64_t{0});
  o.averaging_constant = c.value("averaging_constant", 0.01);
  if (c.contains("fixed")) {
    o.scale = c["fixed"]["scale"].get<double>();
    o.zero_point = c["fixed"]["zero_point"].get<int64_t>();
  }
  return o;
}

ObserverPtr observed(const json& c) {
  auto observer = make_observer(c["observer"].get<std::string>(), options_of(c), "golden");
  Shape shape = c["shape"].get<Shape>();
  double scale = c["scale"];
  for (uint64_t b = 0; b < c["batches"]; ++b) {
    observer->observe(
        Tensor::from(values(c["kind"], c["seed"].get<uint64_t>() + b, numel(shape), scale, c["offset"]), shape));
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

void compare_float_qparams(const json& c, const Observer& observer) {
  std::vector<float> min = observer.min_val().to_vector<float>(), max = observer.max_val().to_vector<float>();
  std::vector<double> scales, zero_points;
  for (size_t i = 0; i < min.size(); ++i) {
    FloatQParams q = choose_float_qparams(min[i], max[i], observer.options());
    scales.push_back(q.scale);
    zero_points.push_back(q.zero_point);
  }
  expect_bits(c["scales"], scales, "scale");
  expect_bits(c["zero_points"], zero_points, "zero_point");
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
    if (is_float_qparams(observer->options().qscheme)) {
      compare_float_qparams(c, *observer);
      if (testing::Test::HasFailure()) return;
      continue;
    }
    QParams q = observer->calculate_qparams();
    expect_bits(c["scales"], q.quantizer->scales(), "scale");
    EXPECT_EQ(c["zero_points"].get<std::vector<int64_t>>(), q.quantizer->zero_points());
    EXPECT_EQ(c["codes"][0], q.quant_min);
    EXPECT_EQ(c["codes"][1], q.quant_max);
    EXPECT_EQ(octet::to_string(q.dtype), c["dtype"]);
    if (testing::Test::HasFailure()) return;
  }
}

// Squared error of really quantizing the values.
double real_error(const std::vector<float>& x, float scale, int64_t z, CodeRange codes) {
  double sum = 0;
  for (float v : x) {
    int32_t q = affine::quantize(v, scale, static_cast<int32_t>(z), static_cast<int32_t>(codes.quant_min),
                                 static_cast<int32_t>(codes.quant_max));
    double d = static_cast<double>(v) - static_cast<double>(q - z) * static_cast<double>(scale);
    sum += d * d;
  }
  return sum;
}

}  // namespace

TEST(GoldenObserver, MinMaxAndMovingAverage) { compare_all("observers_min_max.json"); }

TEST(GoldenObserver, PerChannelAndMovingAveragePerChannel) { compare_all("observers_per_channel.json"); }

TEST(GoldenObserver, FixedQParamsFloatQParamsAndTheQnnpackFamily) { compare_all("observers_more.json"); }

TEST(GoldenHistogramObserver, QuantizesAtLeastAsWellAsPyTorchsSearch) {
  double gain = 0;
  int n = 0;
  for (const json& c : load("observers_histogram.json")) {
    SCOPED_TRACE(c.dump());
    std::vector<float> x = values(c["kind"], c["seed"], c["shape"][0], c["scale"], c["offset"]);
    QParams q = observed(c)->calculate_qparams();
    CodeRange codes{q.quant_min, q.quant_max};
    EXPECT_EQ(codes, (CodeRange{c["codes"][0], c["codes"][1]}));
    double theirs = real_error(x, static_cast<float>(exact(c["scales"][0])), c["zero_points"][0], codes);
    EXPECT_NEAR(theirs, c["error"].get<double>(), 1e-9 * theirs);
    double ours = real_error(x, static_cast<float>(q.quantizer->scale()), q.quantizer->zero_point(), codes);
    EXPECT_LE(ours, theirs * (1 + 1e-6));
    gain += std::log(theirs / ours);
    ++n;
  }
  EXPECT_GE(n, 90);
  RecordProperty("mean_error_ratio", std::to_string(std::exp(gain / n)));
}

}  // namespace octet::quant
