#pragma once
// What the tests against PyTorch share: reading tests/golden and making the data of
// scripts/oracle/observers.py.

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/quant/observe/observer.h"
#include "tests/golden.h"

namespace octet::quant {

using nlohmann::json;

inline json load(const std::string& name) { return testing::load_golden(name); }

inline double exact(const json& hex) {
  return std::strtod(hex.get<std::string>().c_str(), nullptr);
}

inline std::vector<float> values(const std::string& kind, uint64_t seed, int64_t n, double scale,
                                 double offset) {
  return testing::golden_values(kind, seed, n, scale, offset);
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
