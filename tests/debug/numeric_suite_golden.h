#pragma once
// What the tests of the numeric suites against PyTorch share (scripts/oracle/numeric_suite.py).

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/debug/metrics.h"

namespace octet::testing {

using nlohmann::json;

// describe() of the oracle: "" if the tensor is the one that it describes, to 1e-5; else how it
// differs.
inline std::string difference_of(const Tensor& t, const json& expected) {
  if (t.shape() != expected["shape"].get<Shape>())
    return fmt::format("shape {}, not {}", to_string(t.shape()), expected["shape"].dump());
  const std::vector<double> v = t.detach().dequantize().to(DType::float64).to_vector<double>();
  if (expected.contains("values")) {
    double largest = 0;
    for (double x : expected["values"].get<std::vector<double>>())
      largest = std::max(largest, std::abs(x));
    for (size_t i = 0; i < v.size(); ++i)
      if (!(std::abs(v[i] - expected["values"][i].get<double>()) <= 1e-5 * largest))
        return fmt::format("value {} is {}, not {}", i, v[i], expected["values"][i].dump());
    return "";
  }
  double squares = 0, product = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    squares += v[i] * v[i];
    product += v[i] * (static_cast<double>(i * 7919 % 1000) / 1000 - 0.5);
  }
  const double norm = expected["norm"], probe = expected["probe"];
  if (!(std::abs(std::sqrt(squares) - norm) <= 1e-5 * norm))
    return fmt::format("norm {}, not {}", std::sqrt(squares), norm);
  if (!(std::abs(product - probe) <= 1e-5 * norm))
    return fmt::format("probe {}, not {}", product, probe);
  return "";
}

// pair() of the oracle: the tensors and PyTorch's metrics of them. The noise of SQNR and L2 error
// is a difference of float32 in PyTorch.
inline std::string difference_of(const Tensor& x, const Tensor& y, const json& expected) {
  if (std::string d = difference_of(x, expected["float"]); !d.empty()) return "float: " + d;
  if (std::string d = difference_of(y, expected["quantized"]); !d.empty()) return "quantized: " + d;
  const double got[] = {debug::compute_sqnr(x, y), debug::compute_normalized_l2_error(x, y),
                        debug::compute_cosine_similarity(x, y)};
  for (int i = 0; i < 3; ++i) {
    const json& metric = expected["metrics"][i];
    if (metric.is_null() ? std::isfinite(got[i])
                         : !(std::abs(got[i] - metric.get<double>()) <=
                             1e-5 * std::max(1.0, std::abs(metric.get<double>()))))
      return fmt::format("metric {} is {}, not {}", i, got[i], metric.dump());
  }
  return "";
}

}  // namespace octet::testing
