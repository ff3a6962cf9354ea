// The counting of floats by bin.

#include <limits>

#include "kernel_test_util.h"
#include "tests/limits.h"

namespace octet::kernels {
namespace {

class HistogramTest : public EveryIsa {};

// The bin of width 2^exponent that x lies in, by the definition.
int64_t bin_of(float x, int exponent) {
  return static_cast<int64_t>(std::floor(std::ldexp(static_cast<double>(x), -exponent)));
}

// Values within [lo, hi] and the grid over them.
struct Case {
  std::vector<float> x;
  int exponent = 0;
  HistogramArgs args;
};

// Some bins of width 2^exponent, not further than 2^22 from 0.
Case random_case(Random& random) {
  Case c;
  c.exponent =
      static_cast<int>(random.chance(0.5) ? random.integer(-20, 5) : random.integer(-126, 100));
  const int64_t bins = random.integer(2, 5000);
  const int64_t first = random.chance(0.2)   ? 0
                        : random.chance(0.5) ? -random.integer(0, bins)
                                             : random.integer(-1 << 22, 1 << 22);
  const int64_t n = random.integer(1, random.chance(0.3) ? 5000 : 300);
  const double zeros = random.one_of({0.0, 0.5, 1.0});
  auto value = [&](double bin) { return static_cast<float>(std::ldexp(bin, c.exponent)); };
  const float lo = value(static_cast<double>(first)),
              hi = value(static_cast<double>(first + bins - 1) + 0.5);
  for (int64_t i = 0; i < n; ++i) {
    float v = value(static_cast<double>(first) + random.real(0, 1) * static_cast<float>(bins));
    if (random.chance(0.2))
      v = std::nextafter(value(static_cast<double>(random.integer(first, first + bins))),
                         random.chance(0.5) ? kInf : -kInf);
    if (lo <= 0 && hi >= 0) {
      if (random.chance(zeros)) v = random.one_of({0.0f, -0.0f});
      // whose quotients may underflow
      if (random.chance(0.02)) v = random.one_of({1e-45f, -1e-45f, -1e-38f});
    }
    c.x.push_back(std::clamp(v, lo, hi));
  }
  c.args = {.lo = lo,
            .hi = hi,
            .inverse = std::ldexp(1.0f, -c.exponent),
            .first = static_cast<int32_t>(first),
            .bins = static_cast<int32_t>(bins)};
  return c;
}

TEST_P(HistogramTest, CountsAddUpInTheBinsOfTheDefinition) {
  Random random(20);
  for (int i = 0; i < 600; ++i) {
    Case c = random_case(random);
    const size_t bins = static_cast<size_t>(c.args.bins), room = bins + HistogramArgs::kSpare;
    Guarded counts(4 * room), expected(4 * room);
    std::vector<uint32_t> by_definition(room, 0);
    for (size_t b = 0; b < bins; ++b)
      by_definition[b] = static_cast<uint32_t>(random.integer(0, 3));
    std::memcpy(counts.data(), by_definition.data(), 4 * room);
    for (float v : c.x)
      ++by_definition.at(static_cast<size_t>(bin_of(v, c.exponent) - c.args.first));
    std::memcpy(expected.data(), by_definition.data(), 4 * room);
    c.args.counts = counts.as<uint32_t>();
    ASSERT_TRUE(kernels().histogram(c.args, c.x.data(), static_cast<int64_t>(c.x.size())))
        << "case " << i;
    ASSERT_SAME_BYTES(counts, expected)
        << " in case " << i << ": width 2^" << c.exponent << ", bins from " << c.args.first;
  }
}

TEST_P(HistogramTest, OneValueThatIsNotWithinTheRangeIsNoticed) {
  Random random(21);
  for (int i = 0; i < 600; ++i) {
    Case c = random_case(random);
    std::vector<uint32_t> counts(static_cast<size_t>(c.args.bins) + HistogramArgs::kSpare, 0);
    c.args.counts = counts.data();
    const float bad = random.one_of(
        {std::numeric_limits<float>::quiet_NaN(), kInf, -kInf, std::nextafter(c.args.lo, -kInf),
         std::nextafter(c.args.hi, kInf), std::numeric_limits<float>::max()});
    const size_t at =
        random.chance(0.3)
            ? c.x.size() - 1
            : static_cast<size_t>(random.integer(0, static_cast<int64_t>(c.x.size()) - 1));
    c.x[at] = bad;
    ASSERT_FALSE(kernels().histogram(c.args, c.x.data(), static_cast<int64_t>(c.x.size())))
        << "case " << i << ": " << bad << " at " << at;
  }
}

OCTET_FOR_EVERY_ISA(HistogramTest);

}  // namespace
}  // namespace octet::kernels
