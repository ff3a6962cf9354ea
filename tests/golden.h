#pragma once
// Reading the golden files of tests/golden, and the inputs that scripts/oracle makes on its side
// (observers.py, dynamic.py).

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/base/random.h"

namespace octet::testing {

inline nlohmann::json load_golden(const std::string& name) {
  std::ifstream file("tests/golden/" + name);
  EXPECT_TRUE(file) << "run the tests from the repository's root";
  return nlohmann::json::parse(file)["cases"];
}

// float32 values stored as eight hexadecimal digits each.
inline std::vector<float> from_bits(const std::string& text) {
  std::vector<float> result;
  for (size_t i = 0; i + 8 <= text.size(); i += 8)
    result.push_back(
        std::bit_cast<float>(static_cast<uint32_t>(std::stoul(text.substr(i, 8), nullptr, 16))));
  return result;
}

// values() of scripts/oracle/observers.py.
inline std::vector<float> golden_values(const std::string& kind, uint64_t seed, int64_t n,
                                        double scale, double offset) {
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

// codes() and scales() of scripts/oracle/dynamic.py.
inline std::vector<int8_t> golden_codes(uint64_t seed, int64_t n) {
  Random random(seed);
  std::vector<int8_t> result(static_cast<size_t>(n));
  for (int8_t& q : result) q = static_cast<int8_t>(std::floor(random.uniform() * 256.0) - 128.0);
  return result;
}
inline std::vector<double> golden_scales(uint64_t seed, int64_t n) {
  Random random(seed);
  std::vector<double> result(static_cast<size_t>(n));
  for (double& s : result) s = static_cast<float>(0.001 + 0.02 * random.uniform());
  return result;
}

}  // namespace octet::testing
