#pragma once
// What the kernel tests share: one run per instruction set, buffers that catch stray writes, and
// the arithmetic of the contract written once more, as plainly as possible and in other words than
// octet/kernels/isa/scalar.cpp.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "octet/base/cpu.h"
#include "octet/kernels/kernels.h"

namespace octet {
// How GoogleTest shows a parameter.
inline void PrintTo(Isa isa, std::ostream* out) { *out << to_string(isa); }
}  // namespace octet

namespace octet::kernels {

// A suite derived from this runs every test once per instruction set; those this CPU lacks are
// skipped, and say so.
class EveryIsa : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!cpu_supports(GetParam()))
      GTEST_SKIP() << "this CPU does not have " << to_string(GetParam());
  }
  const KernelTable& kernels() const { return table(GetParam()); }
};

#define OCTET_FOR_EVERY_ISA(suite)                               \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::ValuesIn(kIsas), \
                           [](const auto& info) { return std::string(to_string(info.param)); })

// Reproducible random numbers.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  // A whole number from lo to hi, both included.
  int64_t integer(int64_t lo, int64_t hi) {
    return std::uniform_int_distribution<int64_t>(lo, hi)(engine_);
  }
  bool chance(double p) { return std::bernoulli_distribution(p)(engine_); }
  float real(float lo, float hi) { return std::uniform_real_distribution<float>(lo, hi)(engine_); }
  // Of every magnitude between the two.
  float magnitude(float lo, float hi) { return std::exp(real(std::log(lo), std::log(hi))); }
  template <typename T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[integer(0, static_cast<int64_t>(values.size()) - 1)];
  }
  // Bytes of every value; one time in five only the extremes, which would saturate 16-bit sums.
  std::vector<uint8_t> bytes(size_t n) {
    std::vector<uint8_t> result(n);
    const int style = static_cast<int>(integer(0, 4));
    for (auto& x : result)
      x = static_cast<uint8_t>(style == 0 ? one_of({0, 255, 127, 128}) : integer(0, 255));
    return result;
  }
  std::vector<int8_t> weights(size_t n) {
    std::vector<int8_t> result(n);
    const int style = static_cast<int>(integer(0, 4));
    for (auto& x : result)
      x = static_cast<int8_t>(style == 0 ? one_of({-128, 127}) : integer(-128, 127));
    return result;
  }

 private:
  std::mt19937 engine_;
};

// Input bytes as a Buffer gives them: 64 readable bytes after the end, of which nothing must come
// of.
inline std::vector<uint8_t> with_slack(std::vector<uint8_t> data, Random& random) {
  for (int i = 0; i < 64; ++i) data.push_back(static_cast<uint8_t>(random.integer(0, 255)));
  return data;
}

// An output area between two walls. Tests compare all of it, walls and gaps between rows included.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes + 2 * kWall, 0xa5) {}
  uint8_t* data() { return bytes_.data() + kWall; }
  int8_t* signed_data() { return reinterpret_cast<int8_t*>(data()); }
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data());
  }
  template <typename T>
  T get(size_t i) const {
    T value;
    std::memcpy(&value, bytes_.data() + kWall + i * sizeof(T), sizeof(T));
    return value;
  }
  template <typename T>
  void put(size_t i, T value) {
    std::memcpy(data() + i * sizeof(T), &value, sizeof(T));
  }
  bool operator==(const Guarded&) const = default;
  // Nothing was written outside the area.
  bool walls_stand() const {
    const auto is_wall = [](uint8_t x) { return x == 0xa5; };
    return std::all_of(bytes_.begin(), bytes_.begin() + kWall, is_wall) &&
           std::all_of(bytes_.end() - kWall, bytes_.end(), is_wall);
  }
  // "byte 12 is 3, expected 4", for failures.
  std::string difference(const Guarded& expected) const {
    for (size_t i = 0; i < bytes_.size(); ++i)
      if (bytes_[i] != expected.bytes_[i])
        return "byte " + std::to_string(static_cast<int64_t>(i) - static_cast<int64_t>(kWall)) +
               " is " + std::to_string(bytes_[i]) + ", expected " +
               std::to_string(expected.bytes_[i]);
    return "no difference";
  }

 private:
  static constexpr size_t kWall = 128;
  std::vector<uint8_t> bytes_;
};

#define EXPECT_SAME_BYTES(got, expected) \
  EXPECT_TRUE((got) == (expected)) << (got).difference(expected)
#define ASSERT_SAME_BYTES(got, expected) \
  ASSERT_TRUE((got) == (expected)) << (got).difference(expected)

// clamp(rne(v) + zero_point, lo, hi), in double where nothing overflows; NaN is lo.
inline uint8_t reference_code(float v, int32_t zero_point, int32_t lo, int32_t hi) {
  if (std::isnan(v)) return static_cast<uint8_t>(lo);
  const double code = std::nearbyint(static_cast<double>(v)) + zero_point;
  return static_cast<uint8_t>(static_cast<int32_t>(std::clamp<double>(code, lo, hi)));
}

inline uint8_t reference_quantize(float x, float inv_scale, int32_t zp, int32_t lo, int32_t hi) {
  const float v = x * inv_scale;
  return std::isnan(v) ? reference_code(0, zp, lo, hi) : reference_code(v, zp, lo, hi);
}

// Bounds, zero point and signedness of one side of a kernel.
struct Range {
  int32_t zero_point = 0, lo = 0, hi = 255;
  bool is_signed = false;
};

inline Range random_range(Random& random, bool is_signed) {
  Range r;
  r.is_signed = is_signed;
  r.lo = is_signed ? -128 : 0;
  r.hi = r.lo + 255;
  r.zero_point = static_cast<int32_t>(random.integer(r.lo, r.hi));
  if (random.chance(0.3)) r.lo = r.zero_point;                                      // fused relu
  if (random.chance(0.3)) r.hi = static_cast<int32_t>(random.integer(r.lo, r.hi));  // fused relu6
  if (random.chance(0.1)) r.zero_point = is_signed ? -128 : 0;
  return r;
}

inline int32_t code_at(const uint8_t* x, int64_t i, bool is_signed) {
  return is_signed ? static_cast<int8_t>(x[i]) : x[i];
}

}  // namespace octet::kernels
