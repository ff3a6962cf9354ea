// Codes of 16 bits: conversions and the planes of bytes.
#include <cmath>
#include <limits>

#include "octet/tensor/affine.h"
#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

class Codes16Test : public EveryIsa {};

struct Bounds {
  int32_t lo, hi;
};
constexpr Bounds kUnsigned{0, 65535}, kSigned{-32768, 32767};

TEST_P(Codes16Test, QuantizeRoundsToTheNearestCodeTiesToEven) {
  Random random(1);
  const float inf = std::numeric_limits<float>::infinity();
  for (int i = 0; i < 200; ++i) {
    const Bounds b = random.chance(0.5) ? kUnsigned : kSigned;
    const auto z = static_cast<int32_t>(random.integer(b.lo, b.hi));
    const auto n = random.integer(1, 200);
    const float scale = random.one_of({0.25f, 1.0f, 0.001f, 3e-39f, 1e30f});
    std::vector<float> x(static_cast<size_t>(n));
    for (float& v : x) {
      v = static_cast<float>(random.integer(-140000, 140000)) * 0.5f * scale;
      if (random.chance(0.05)) v = random.one_of({inf, -inf, NAN, 3.4e38f, -0.0f});
    }
    std::vector<uint16_t> y(static_cast<size_t>(n));
    kernels().quantize16(x.data(), y.data(), n, 1.0f / scale, z, b.lo, b.hi);
    for (size_t k = 0; k < x.size(); ++k)
      ASSERT_EQ(y[k], static_cast<uint16_t>(affine::quantize(x[k], scale, z, b.lo, b.hi)))
          << x[k] << " / " << scale << " + " << z;
  }
}

TEST_P(Codes16Test, DequantizeIsScaleTimesTheDistanceFromTheZeroPoint) {
  std::vector<uint16_t> x(65536);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint16_t>(i);
  std::vector<float> y(x.size());
  for (bool is_signed : {false, true}) {
    const int32_t z = is_signed ? -1234 : 51234;
    kernels().dequantize16(x.data(), y.data(), 65536, 0.0123f, z, is_signed);
    for (size_t i = 0; i < x.size(); ++i) {
      const int32_t q = is_signed ? static_cast<int16_t>(x[i]) : x[i];
      ASSERT_EQ(y[i], affine::dequantize(q, 0.0123f, z)) << q;
    }
  }
}

TEST_P(Codes16Test, PlanesAreTheBytesOfUnsignedCodes) {
  Random random(2);
  for (int i = 0; i < 50; ++i) {
    const auto n = random.integer(1, 150);
    const auto flip = static_cast<uint16_t>(random.chance(0.5) ? 0x8000 : 0);
    std::vector<uint16_t> x(static_cast<size_t>(n));
    for (uint16_t& v : x) v = static_cast<uint16_t>(random.integer(0, 65535));
    Guarded high(x.size()), low(x.size()), want_high(x.size()), want_low(x.size());
    kernels().split_codes(x.data(), n, flip, high.data(), low.data());
    for (size_t k = 0; k < x.size(); ++k) {
      want_high.put(k, static_cast<uint8_t>((x[k] ^ flip) >> 8));
      want_low.put(k, static_cast<uint8_t>(x[k]));
    }
    ASSERT_SAME_BYTES(high, want_high);
    ASSERT_SAME_BYTES(low, want_low);
  }
}

// In 64 bits: the sum, rounded once, times the multiplier.
TEST_P(Codes16Test, SumsOfPlanesBecomeCodesExactly) {
  Random random(3);
  for (int i = 0; i < 300; ++i) {
    const auto n = static_cast<size_t>(random.integer(1, 70));
    const bool two = random.chance(0.7), wide = random.chance(0.6);
    const Bounds b = wide ? (random.chance(0.5) ? kUnsigned : kSigned)
                          : (random.chance(0.5) ? Bounds{0, 255} : Bounds{-128, 127});
    std::vector<int32_t> high(n), low(n);
    std::vector<double> offsets(n);
    std::vector<float> multiplier(n);
    const int64_t range = random.chance(0.5) ? INT32_MAX : 100'000;
    for (size_t k = 0; k < n; ++k) {
      high[k] = static_cast<int32_t>(random.integer(-range, range));
      low[k] = static_cast<int32_t>(random.integer(-range, range));
      offsets[k] = static_cast<double>(random.integer(-(int64_t{1} << 50), int64_t{1} << 50) >>
                                       random.integer(0, 50));
      multiplier[k] = random.magnitude(1e-12f, 10.0f);
    }
    JoinCodesArgs a;
    a.high = two ? high.data() : nullptr;
    a.low = low.data();
    a.offsets = offsets.data();
    a.multiplier = multiplier.data();
    a.lo = b.lo;
    a.hi = b.hi;
    a.zero_point = static_cast<int32_t>(random.integer(b.lo, b.hi));
    a.wide = wide;
    Guarded y(n * (wide ? 2 : 1)), want(n * (wide ? 2 : 1));
    a.y = y.data();
    kernels().join_codes(a, static_cast<int64_t>(n));
    for (size_t k = 0; k < n; ++k) {
      const int64_t sum =
          (two ? int64_t{high[k]} * 256 : 0) + low[k] + static_cast<int64_t>(offsets[k]);
      const int32_t code = affine::requantize(sum, multiplier[k], a.zero_point, b.lo, b.hi);
      want.put(wide ? 2 * k : k, static_cast<uint8_t>(code));
      if (wide) want.put(2 * k + 1, static_cast<uint8_t>(code >> 8));
    }
    ASSERT_SAME_BYTES(y, want) << "case " << i;
  }
}

TEST_P(Codes16Test, DepthwiseSumsAreExact) {
  Random random(4);
  for (int i = 0; i < 50; ++i) {
    const int64_t channels = random.integer(1, 70), taps = random.integer(1, 128), more = 3;
    const auto flip = static_cast<uint16_t>(random.chance(0.5) ? 0x8000 : 0);
    std::vector<uint16_t> x(static_cast<size_t>(taps * channels)),
        pad(static_cast<size_t>(channels));
    for (uint16_t& v : x) v = static_cast<uint16_t>(random.integer(0, 65535));
    for (uint16_t& v : pad) v = static_cast<uint16_t>(random.integer(0, 65535));
    std::vector<int16_t> w(static_cast<size_t>(taps * (channels + more)));
    for (int16_t& v : w)
      v = static_cast<int16_t>(random.chance(0.5) ? -255 : random.integer(-255, 255));
    std::vector<int32_t> offsets;
    for (int64_t t = 0; t < taps; ++t)
      offsets.push_back(random.chance(0.2) ? -1 : static_cast<int32_t>(t * channels));
    std::vector<int32_t> sums(static_cast<size_t>(channels));
    kernels().depthwise_codes(
        {channels, taps, x.data(), offsets.data(), pad.data(), w.data(), channels + more, flip}, 0,
        sums.data());
    for (int64_t c = 0; c < channels; ++c) {
      int64_t sum = 0;
      for (int64_t t = 0; t < taps; ++t) {
        const uint16_t q = offsets[static_cast<size_t>(t)] < 0
                               ? pad[static_cast<size_t>(c)]
                               : x[static_cast<size_t>(t * channels + c)];
        sum += int64_t{q ^ flip} * w[static_cast<size_t>(t * (channels + more) + c)];
      }
      ASSERT_EQ(sums[static_cast<size_t>(c)], sum);
    }
  }
}

TEST_P(Codes16Test, SumsAndProductsOfCodesAreRoundedAsTheContractSays) {
  Random random(5);
  for (int i = 0; i < 200; ++i) {
    const auto n = static_cast<size_t>(random.integer(1, 100));
    const bool is_signed = random.chance(0.5), mul = random.chance(0.5), one = random.chance(0.3),
               in_place = random.chance(0.3);
    const Bounds bounds = is_signed ? kSigned : kUnsigned;
    std::vector<uint16_t> a(n), b(n), y(n), want(n);
    for (uint16_t& v : a) v = static_cast<uint16_t>(random.integer(0, 65535));
    for (uint16_t& v : b) v = static_cast<uint16_t>(random.integer(0, 65535));
    BinaryArgs g;
    g.qa = {random.magnitude(1e-5f, 1), static_cast<int32_t>(random.integer(bounds.lo, bounds.hi))};
    g.qb = {random.magnitude(1e-5f, 1), static_cast<int32_t>(random.integer(bounds.lo, bounds.hi))};
    g.inv_scale = random.magnitude(1e-2f, 1e4f);
    g.multiplier = random.magnitude(1e-9f, 1);
    g.zero_point = static_cast<int32_t>(random.integer(bounds.lo, bounds.hi));
    g.lo = random.chance(0.5) ? bounds.lo : g.zero_point;
    g.hi = bounds.hi;
    g.is_signed = is_signed;
    g.b_step = one ? 0 : 1;
    const auto value = [&](uint16_t q) { return is_signed ? static_cast<int16_t>(q) : int32_t{q}; };
    for (size_t k = 0; k < n; ++k) {
      const int64_t p = value(a[k]) - g.qa.zero_point, q = value(b[one ? 0 : k]) - g.qb.zero_point;
      const float da = g.qa.scale * static_cast<float>(p), db = g.qb.scale * static_cast<float>(q);
      const float v = mul ? static_cast<float>(p * q) * g.multiplier : (da + db) * g.inv_scale;
      want[k] = static_cast<uint16_t>(affine::round_and_clamp(v, g.zero_point, g.lo, g.hi));
    }
    g.a = a.data();
    g.b = b.data();
    g.y = in_place ? a.data() : y.data();
    (mul ? kernels().mul16 : kernels().add16)(g, 0, static_cast<int64_t>(n));
    ASSERT_EQ(in_place ? a : y, want) << "case " << i;
  }
}

TEST_P(Codes16Test, PoolsTakeTheLargestOrTheAverageOfTheTapsInside) {
  Random random(6);
  for (int i = 0; i < 100; ++i) {
    const int64_t channels = random.chance(0.2) ? random.integer(250, 600) : random.integer(1, 70),
                  taps = random.integer(1, 20), pixels = random.integer(1, 4), places = 30;
    const bool is_signed = random.chance(0.5);
    const Bounds bounds = is_signed ? kSigned : kUnsigned;
    std::vector<uint16_t> x(static_cast<size_t>(places * channels));
    for (uint16_t& v : x) v = static_cast<uint16_t>(random.integer(0, 65535));
    std::vector<int32_t> offsets(static_cast<size_t>(pixels * taps));
    for (size_t t = 0; t < offsets.size(); ++t)
      offsets[t] = t % static_cast<size_t>(taps) != 0 && random.chance(0.2)
                       ? -1
                       : static_cast<int32_t>(random.integer(0, places - 1) * channels);
    std::vector<float> multiplier(static_cast<size_t>(pixels));
    for (float& m : multiplier) m = random.magnitude(1e-2f, 1);
    std::vector<uint16_t> y(static_cast<size_t>(pixels * channels));
    PoolArgs g;
    g.channels = channels;
    g.taps = taps;
    g.a = x.data();
    g.offsets = offsets.data();
    g.y = y.data();
    g.ldy = channels;
    g.is_signed = is_signed;
    g.zx = static_cast<int32_t>(random.integer(bounds.lo, bounds.hi));
    g.multiplier = multiplier.data();
    g.zero_point = static_cast<int32_t>(random.integer(bounds.lo, bounds.hi));
    g.lo = bounds.lo;
    g.hi = bounds.hi;
    for (const bool largest : {true, false}) {
      (largest ? kernels().max_pool16 : kernels().average_pool16)(g, 0, pixels);
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t c = 0; c < channels; ++c) {
          int64_t most = -40000, sum = 0;
          for (int64_t t = 0; t < taps; ++t) {
            const int32_t offset = offsets[static_cast<size_t>(p * taps + t)];
            if (offset < 0) continue;
            const uint16_t bits = x[static_cast<size_t>(offset + c)];
            const int64_t q = is_signed ? static_cast<int16_t>(bits) : int64_t{bits};
            most = std::max(most, q);
            sum += q - g.zx;
          }
          const int64_t code = largest ? most
                                       : affine::requantize(sum, multiplier[static_cast<size_t>(p)],
                                                            g.zero_point, g.lo, g.hi);
          ASSERT_EQ(y[static_cast<size_t>(p * channels + c)], static_cast<uint16_t>(code))
              << "case " << i << (largest ? ", largest" : ", average");
        }
    }
  }
}

OCTET_FOR_EVERY_ISA(Codes16Test);

}  // namespace
}  // namespace octet::kernels
