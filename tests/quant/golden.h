#pragma once
// What the tests against PyTorch share: reading tests/golden and making the data of scripts/oracle/observers.py.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/base/random.h"
#include "octet/quant/observe/observer.h"

namespace octet::quant {

using nlohmann::json;

inline json load(const std::string& name) {
  std::ifstream file("tests/golden/" + name);
  EXPECT_TRUE(file) << "run the tests from the repository's root";
  return json::parse(file)["cases"];
}

inline double exact(const json& hex) { return std::strtod(hex.get<std::string>().c_str(), nullptr); }

// The generator of scripts/oracle/observers.py.
inline std::vector<float> values(const std::string& kind, uint64_t seed, int64_t n, double scale, double offset) {
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

inline DType dtype_of_case(const json& c) { return parse_dtype(c["dtype"].get<std::string>()); }

inline ObserverOptions options_of(const json& c) {
  ObserverOptions o;
  o.dtype = dtype_of_case(c);
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

}  // namespace octet::quant
