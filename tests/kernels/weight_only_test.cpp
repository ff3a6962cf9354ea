#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

class WeightOnlyTest : public EveryIsa {};

TEST_P(WeightOnlyTest, PlanesHoldTheFixedPointNumbersByteByByte) {
  Random random(1);
  for (int i = 0; i < 200; ++i) {
    const int64_t n = random.chance(0.3) ? random.integer(250, 1030) : random.integer(1, 70),
                  stride = n + random.integer(0, 9);
    const int exponent = static_cast<int>(random.integer(-100, 140));  // of the scale
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) {
      double number = static_cast<double>(random.integer(-8388607, 8388607));
      if (random.chance(0.3)) number = static_cast<double>(random.integer(-100, 100)) + 0.5;
      if (random.chance(0.1))
        number = random.one_of({0.0, -0.0, 8388607.0, 8388607.5, -8388607.5, 1e-9});
      v = static_cast<float>(std::ldexp(number, -exponent));
    }
    Guarded planes(static_cast<size_t>(2 * stride + n)),
        expected(static_cast<size_t>(2 * stride + n));
    const int64_t sum =
        kernels().split_planes(x.data(), n, std::ldexp(1.0, exponent), planes.data(), stride);
    int64_t expected_sum = 0;
    for (int64_t k = 0; k < n; ++k) {
      const double number =
          std::nearbyint(std::ldexp(static_cast<double>(x[k]), exponent)) + 8388608;
      const auto u = std::min<int64_t>(static_cast<int64_t>(number), 16777215);
      expected_sum += u;
      for (int p = 0; p < 3; ++p)
        expected.put(static_cast<size_t>(p * stride + k), static_cast<uint8_t>(u >> 8 * p));
    }
    ASSERT_SAME_BYTES(planes, expected) << n << " numbers, case " << i;
    ASSERT_EQ(sum, expected_sum);
  }
}

TEST_P(WeightOnlyTest, SumsOfPlanesBecomeFloatsExactly) {
  Random random(2);
  for (int i = 0; i < 300; ++i) {
    const int64_t n0 = random.integer(0, 40), n1 = n0 + random.integer(1, 70),
                  ld = n1 - n0 + random.integer(0, 5);
    std::vector<int32_t> sums(static_cast<size_t>(3 * ld));
    for (auto& s : sums) s = static_cast<int32_t>(random.integer(INT32_MIN, INT32_MAX));
    std::vector<double> zero_points, offsets, scales;
    std::vector<float> bias;
    for (int64_t n = 0; n < n1; ++n) {
      zero_points.push_back(static_cast<double>(random.integer(-128, 255)));
      offsets.push_back(static_cast<double>(random.integer(-(1 << 24), 1 << 24)) * (1 << 23));
      scales.push_back(random.magnitude(1e-6f, 1e2f));
      bias.push_back(random.real(-100, 100));
    }
    JoinArgs a;
    a.sums = sums.data(), a.ld = ld;
    a.row_sum = static_cast<double>(random.integer(0, int64_t{1} << 40));
    a.row_scale = std::ldexp(1.0, static_cast<int>(random.integer(-60, 20)));
    a.zero_points = zero_points.data(), a.offsets = offsets.data(), a.scales = scales.data();
    a.bias = random.chance(0.7) ? bias.data() : nullptr;
    a.relu = random.chance(0.5);
    a.most = random.chance(0.5) ? 6.0f : INFINITY;
    Guarded y(static_cast<size_t>(n1) * 4), expected(static_cast<size_t>(n1) * 4);
    a.y = y.as<float>();
    kernels().join_planes(a, n0, n1);
    for (int64_t n = n0; n < n1; ++n) {
      const int64_t k = n - n0, z = static_cast<int64_t>(zero_points[n]);
      const int64_t exact = sums[k] + 256 * int64_t{sums[ld + k]} +
                            65536 * int64_t{sums[2 * ld + k]} -
                            z * static_cast<int64_t>(a.row_sum) - static_cast<int64_t>(offsets[n]);
      double v = static_cast<double>(exact) * scales[n] * a.row_scale;
      if (a.bias) v += static_cast<double>(bias[n]);
      auto f = static_cast<float>(v);
      if (a.relu) f = std::min(f > 0 ? f : 0.0f, a.most);
      expected.put(static_cast<size_t>(n), f);
    }
    ASSERT_SAME_BYTES(y, expected) << "case " << i;
  }
}

TEST_P(WeightOnlyTest, SumsOfABlockAreAddedInDouble) {
  Random random(3);
  for (int i = 0; i < 300; ++i) {
    const int64_t n0 = random.integer(0, 40), n1 = n0 + random.integer(1, 70),
                  ld = n1 - n0 + random.integer(0, 5);
    std::vector<int32_t> sums(static_cast<size_t>(3 * ld)), weight_sums;
    for (auto& s : sums) s = static_cast<int32_t>(random.integer(INT32_MIN, INT32_MAX));
    std::vector<float> zero_points, scales;
    for (int64_t n = 0; n < n1; ++n) {
      weight_sums.push_back(static_cast<int32_t>(random.integer(-(1 << 20), 1 << 20)));
      zero_points.push_back(random.real(-128, 255));
      scales.push_back(random.magnitude(1e-6f, 1e2f));
    }
    JoinBlockArgs a;
    a.sums = sums.data(), a.ld = ld;
    a.row_sum = static_cast<double>(random.integer(-(int64_t{1} << 36), int64_t{1} << 36));
    a.zero_points = zero_points.data(), a.scales = scales.data();
    a.weight_sums = weight_sums.data();
    const auto count = static_cast<size_t>(n1 - n0);
    Guarded total(count * 8), expected(count * 8);
    for (size_t k = 0; k < count; ++k) {
      const double before = random.real(-1e6f, 1e6f);
      const size_t n = static_cast<size_t>(n0) + k, step = static_cast<size_t>(ld);
      total.as<double>()[k] = before;
      const int64_t exact = sums[k] + 256 * int64_t{sums[step + k]} +
                            65536 * int64_t{sums[2 * step + k]} - (int64_t{weight_sums[n]} << 23);
      const double shifted =
          static_cast<double>(exact) - static_cast<double>(zero_points[n]) * a.row_sum;
      const double part = shifted * static_cast<double>(scales[n]);
      expected.as<double>()[k] = before + part;
    }
    a.total = total.as<double>();
    kernels().join_block(a, n0, n1);
    ASSERT_SAME_BYTES(total, expected) << "case " << i;
  }
}

OCTET_FOR_EVERY_ISA(WeightOnlyTest);

}  // namespace
}  // namespace octet::kernels
