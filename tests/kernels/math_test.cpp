// Exponentials: the same bits on every instruction set, and what libm gives to within float
// rounding.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/kernels/kernel_test_util.h"

namespace octet::kernels {
namespace {

class MathTest : public EveryIsa {};

std::vector<float> numbers(size_t n) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i)
    x[i] = -0.37f * static_cast<float>(i % 300) + 0.011f * static_cast<float>(i);
  return x;
}

TEST_P(MathTest, ExponentialsAreLibmsAndTheSameBitsEverywhere) {
  for (size_t n : {1, 7, 8, 9, 64, 1000}) {
    const std::vector<float> x = numbers(n);
    std::vector<double> y(n), plain(n);
    const double sum = kernels().exp_sum(x.data(), 12.5f, y.data(), static_cast<int64_t>(n));
    const double expected =
        table(Isa::scalar).exp_sum(x.data(), 12.5f, plain.data(), static_cast<int64_t>(n));
    EXPECT_EQ(sum, expected);
    EXPECT_EQ(y, plain);
    for (size_t i = 0; i < n; ++i)
      EXPECT_NEAR(y[i] / std::exp(static_cast<double>(x[i]) - 12.5), 1, 1e-15) << x[i];
  }
}

TEST_P(MathTest, ExponentialsOfTheEndsOfTheLine) {
  constexpr float kInf = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x{0, -kInf, -800, kNan, -700, -0.0f};
  std::vector<double> y(x.size());
  EXPECT_TRUE(std::isnan(kernels().exp_sum(x.data(), 0, y.data(), static_cast<int64_t>(x.size()))));
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[2], 0);
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_NEAR(y[4] / std::exp(-700.0), 1, 1e-14);
  EXPECT_EQ(y[5], 1);
}

TEST_P(MathTest, SoftmaxIsLibmsToFloatRoundingAndTheSameBitsEverywhere) {
  for (size_t n : {1, 7, 16, 17, 128, 1000}) {
    const std::vector<float> x = numbers(n);
    std::vector<float> y(n), plain(n), in_place = x;
    kernels().softmax(x.data(), y.data(), static_cast<int64_t>(n));
    table(Isa::scalar).softmax(x.data(), plain.data(), static_cast<int64_t>(n));
    kernels().softmax(in_place.data(), in_place.data(), static_cast<int64_t>(n));
    EXPECT_EQ(y, plain);
    EXPECT_EQ(y, in_place);
    double sum = 0;
    const auto top = static_cast<double>(*std::max_element(x.begin(), x.end()));
    for (float v : x) sum += std::exp(static_cast<double>(v) - top);
    for (size_t i = 0; i < n; ++i) {
      // A unit of the exponential, half of one of the scale and the product; and what half a unit
      // of the difference is worth.
      const double difference = static_cast<double>(x[i]) - top;
      const double expected = std::exp(difference) / sum;
      EXPECT_NEAR(y[i], expected, (2 * 0x1p-23 - difference * 0x1p-24) * expected + 1e-38) << x[i];
    }
  }
}

TEST_P(MathTest, SoftmaxOfRowsWithoutANumberIsNan) {
  constexpr float kInf = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& x :
       {std::vector<float>{-kInf, -kInf}, {1, kNan, 2}, {kNan}, {kInf, 0}}) {
    std::vector<float> y(x.size());
    kernels().softmax(x.data(), y.data(), static_cast<int64_t>(x.size()));
    for (float v : y) EXPECT_TRUE(std::isnan(v));
  }
  const std::vector<float> masked{3, -kInf, 3};
  std::vector<float> y(3);
  kernels().softmax(masked.data(), y.data(), 3);
  EXPECT_EQ(y, (std::vector<float>{0.5f, 0, 0.5f}));
}

TEST_P(MathTest, ArithmeticIsOneRoundedOperation) {
  const std::vector<float> a = numbers(37);
  for (int64_t n : {1, 16, 37})
    for (auto op : {Arithmetic::add, Arithmetic::sub, Arithmetic::mul, Arithmetic::div})
      for (auto [sa, sb] : {std::pair<int64_t, int64_t>{1, 1}, {1, 0}, {0, 1}}) {
        std::vector<float> second(a.rbegin(), a.rend()), y(a.size(), -1);
        second[0] = 0.3f;
        kernels().arithmetic(op, a.data(), sa, second.data(), sb, y.data(), n);
        for (int64_t i = 0; i < n; ++i) {
          const float p = a[static_cast<size_t>(i * sa)], q = second[static_cast<size_t>(i * sb)];
          const float expected = op == Arithmetic::add   ? p + q
                                 : op == Arithmetic::sub ? p - q
                                 : op == Arithmetic::mul ? p * q
                                                         : p / q;
          const float got = y[static_cast<size_t>(i)];
          EXPECT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected)));
        }
      }
}

TEST_P(MathTest, GeluIsItsDefinitionAndTheSameBitsEverywhere) {
  std::vector<float> x;
  for (float v = -14; v < 14; v += 0.0173f) x.push_back(v);
  std::vector<float> y(x.size()), plain(x.size());
  kernels().function(Function::gelu, x.data(), y.data(), static_cast<int64_t>(x.size()));
  table(Isa::scalar)
      .function(Function::gelu, x.data(), plain.data(), static_cast<int64_t>(x.size()));
  EXPECT_EQ(y, plain);
  for (size_t i = 0; i < x.size(); ++i) {
    const auto v = static_cast<double>(x[i]), expected = 0.5 * v * std::erfc(-v * std::sqrt(0.5));
    // 3 units; results below the smallest normal number may be 0.
    EXPECT_NEAR(y[i], expected, 3 * 0x1p-23 * std::fabs(expected) + 1e-36) << x[i];
  }
}

TEST_P(MathTest, SigmoidSiluAndTanhAreTheirDefinitionsAndTheSameBitsEverywhere) {
  std::vector<float> x{0, 1e-20f, -1e-4f};
  for (float v = -95; v < 95; v += 0.0173f) x.push_back(v);
  for (float v = -1; v < 1; v += 0.000173f) x.push_back(v);
  const auto n = static_cast<int64_t>(x.size());
  for (const Function f : {Function::sigmoid, Function::silu, Function::tanh}) {
    std::vector<float> y(x.size()), plain(x.size()), in_place = x;
    kernels().function(f, x.data(), y.data(), n);
    kernels().function(f, in_place.data(), in_place.data(), n);
    table(Isa::scalar).function(f, x.data(), plain.data(), n);
    EXPECT_EQ(y, plain);
    EXPECT_EQ(y, in_place);
    for (size_t i = 0; i < x.size(); ++i) {
      const auto v = static_cast<double>(x[i]), sigmoid = 1 / (1 + std::exp(-v)),
                 expected = f == Function::tanh   ? std::tanh(v)
                            : f == Function::silu ? v * sigmoid
                                                  : sigmoid;
      // 2 units; below -88, where exp(-x) leaves float32, they are 0.
      EXPECT_NEAR(y[i], expected, 2 * 0x1p-23 * std::fabs(expected) + (v < -87.9 ? 1e-36 : 0))
          << x[i];
    }
  }
}

// Rounded once from double: half a unit in the last place, and a little for the double's own error.
TEST_P(MathTest, FunctionsInDoubleAreTheirDefinitionsAndTheSameBitsEverywhere) {
  const auto tanh_of = [](double v) { return std::tanh(v); };
  const std::vector<std::pair<Function, std::function<double(double)>>> all{
      {Function::exp, [](double v) { return std::exp(v); }},
      {Function::gelu_tanh,
       [&](double v) {
         return v / 2 * (1 + tanh_of(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
       }},
      {Function::mish, [&](double v) { return v * tanh_of(std::log1p(std::exp(v))); }}};
  std::vector<float> x;
  for (float v = -30; v < 30; v += 0.0173f) x.push_back(v);
  for (const auto& [f, definition] : all) {
    std::vector<float> y(x.size()), plain(x.size()), in_place = x;
    const auto n = static_cast<int64_t>(x.size());
    kernels().function(f, x.data(), y.data(), n);
    kernels().function(f, in_place.data(), in_place.data(), n);
    table(Isa::scalar).function(f, x.data(), plain.data(), n);
    EXPECT_EQ(y, plain);
    EXPECT_EQ(y, in_place);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = definition(static_cast<double>(x[i]));
      // gelu_tanh cancels where tanh is nearly -1: what is left there is of doubles near 1.
      const double lost = f == Function::gelu_tanh ? std::fabs(x[i]) * 0x1p-50 : 0;
      EXPECT_NEAR(y[i], expected, 0.501 * 0x1p-23 * std::fabs(expected) + lost + 1e-38)
          << static_cast<int>(f) << " of " << x[i];
    }
  }
}

TEST_P(MathTest, HardswishRoundsEachStep) {
  const std::vector<float> x{-4, -3, -2.9f, -1.3f, 0, 0.7f, 2.9f, 3, 5.1f};
  std::vector<float> y(x.size());
  kernels().function(Function::hardswish, x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_EQ(y[i], x[i] * std::clamp(x[i] + 3, 0.0f, 6.0f) / 6) << x[i];
}

TEST_P(MathTest, FunctionsAtTheEndsOfTheLine) {
  constexpr float kInf = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN(), kMax = 3e38f;
  struct Ends {
    Function f;
    float least, greatest, at_minus_infinity, at_infinity;
  };
  for (const Ends& e : {Ends{Function::exp, 0, kInf, 0, kInf},
                        {Function::sigmoid, 0, 1, 0, 1},
                        {Function::silu, 0, kMax, 0, kInf},
                        {Function::tanh, -1, 1, -1, 1},
                        {Function::gelu_tanh, 0, kMax, 0, kInf},
                        {Function::mish, 0, kMax, 0, kInf}}) {
    const std::vector<float> x{-kMax, kMax, -kInf, kInf, kNan};
    std::vector<float> y(x.size());
    kernels().function(e.f, x.data(), y.data(), static_cast<int64_t>(x.size()));
    const int f = static_cast<int>(e.f);
    EXPECT_EQ(y[0], e.least) << f;
    EXPECT_EQ(y[1], e.greatest) << f;
    EXPECT_EQ(y[2], e.at_minus_infinity) << f;
    EXPECT_EQ(y[3], e.at_infinity) << f;
    EXPECT_TRUE(std::isnan(y[4])) << f;
  }
}

TEST_P(MathTest, GeluAtTheEndsOfTheLine) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> x{0,     -0.0f, kInf, -kInf, std::numeric_limits<float>::quiet_NaN(),
                             3e38f, -3e38f};
  std::vector<float> y(x.size());
  kernels().function(Function::gelu, x.data(), y.data(), static_cast<int64_t>(x.size()));
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[2], kInf);
  EXPECT_EQ(y[3], 0);
  EXPECT_TRUE(std::isnan(y[4]));
  EXPECT_EQ(y[5], 3e38f);
  EXPECT_EQ(y[6], 0);
}

TEST_P(MathTest, LayerNormIsItsFormulaInDouble) {
  for (size_t n : {1, 7, 8, 20, 96}) {
    const std::vector<float> x = numbers(n), weight(x.rbegin(), x.rend());
    std::vector<float> y(n), bias(n, 0.25f);
    for (bool affine : {false, true}) {
      kernels().layer_norm(x.data(), affine ? weight.data() : nullptr,
                           affine ? bias.data() : nullptr, 1e-5, y.data(), static_cast<int64_t>(n));
      double mean = 0, variance = 0;
      for (float v : x) mean += static_cast<double>(v) / static_cast<double>(n);
      for (float v : x)
        variance += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean) /
                    static_cast<double>(n);
      for (size_t i = 0; i < n; ++i) {
        const double normal = (static_cast<double>(x[i]) - mean) / std::sqrt(variance + 1e-5);
        const double expected = affine ? normal * static_cast<double>(weight[i]) + 0.25 : normal;
        EXPECT_NEAR(y[i], expected, 1e-7 * std::fabs(expected) + 1e-10);
      }
    }
  }
}

TEST_P(MathTest, LayerNormInPartsGivesTheSameBits) {
  for (size_t n : {1, 7, 8, 20, 96}) {
    const auto count = static_cast<int64_t>(n);
    const std::vector<float> x = numbers(n), weight(n, 0.3f), bias(n, -0.7f);
    std::vector<float> whole(n), parts(n);
    kernels().layer_norm(x.data(), weight.data(), bias.data(), 1e-5, whole.data(), count);
    double mean = 0, inverse = 0;
    kernels().moments(x.data(), 1e-5, &mean, &inverse, count);
    kernels().normalize(x.data(), mean, inverse, 0.3f, -0.7f, parts.data(), count);
    EXPECT_EQ(parts, whole);
  }
}

TEST_P(MathTest, SquaredErrorsAreTheFormulasInEightSums) {
  constexpr float kRound = 12582912;
  for (int64_t n : {1, 7, 8, 9, 100, 1003}) {
    const std::vector<float> x = numbers(static_cast<size_t>(n));
    const CodeGrid grid{.scale = 0.037f, .inverse = 1 / 0.037f, .lo = -100, .hi = 155};
    double all[8] = {}, clipped[8] = {};
    for (size_t i = 0; i < x.size(); ++i) {
      const float code = x[i] * grid.inverse, inside = std::min(grid.hi, std::max(grid.lo, code)),
                  e = x[i] - (inside + kRound - kRound) * grid.scale,
                  c = (code - inside) * grid.scale;
      all[i % 8] += static_cast<double>(e * e);
      clipped[i % 8] += static_cast<double>(c * c);
    }
    const SquaredErrors got = kernels().squared_errors(grid, x.data(), n);
    EXPECT_EQ(got.all, std::accumulate(all, all + 8, 0.0)) << n;
    EXPECT_EQ(got.clipped, std::accumulate(clipped, clipped + 8, 0.0)) << n;
  }
}

TEST_P(MathTest, PartsOfAnLstmsUnitsAreTheBitsOfAllOfThem) {
  constexpr size_t kUnits = 40;
  std::vector<float> g = numbers(4 * kUnits), r(4 * kUnits), cell = numbers(kUnits), h(kUnits);
  for (size_t i = 0; i < r.size(); ++i) r[i] = 0.2f * static_cast<float>(i % 41) - 3;
  std::vector<float> g2 = g, cell2 = cell, h2(kUnits);
  kernels().lstm_gates(g.data(), r.data(), kUnits, cell.data(), h.data(), kUnits);
  for (size_t j : {size_t{0}, size_t{23}})
    kernels().lstm_gates(g2.data() + j, r.data() + j, kUnits, cell2.data() + j, h2.data() + j,
                         j == 0 ? 23 : kUnits - 23);
  EXPECT_EQ(g, g2);
  EXPECT_EQ(cell, cell2);
  EXPECT_EQ(h, h2);
}

TEST_P(MathTest, DynamicTermsWrapAndRoundOnce) {
  const std::vector<int32_t> sums{0, 7, -3, 1 << 30, -(1 << 30), 2147483647};
  const std::vector<float> scales{0.1f, 0.2f, 0.3f, 1e-3f, 7, 0.7f};
  std::vector<int32_t> bias(6);
  std::vector<float> multiplier(6);
  kernels().dynamic_terms(255, 0.037f, sums.data(), scales.data(), bias.data(), multiplier.data(),
                          6);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(static_cast<uint32_t>(bias[i]), static_cast<uint32_t>(int64_t{-255} * sums[i]));
    EXPECT_EQ(multiplier[i], 0.037f * scales[i]);
  }
}

TEST_P(MathTest, SumsAreTakenInSixteenParts) {
  for (size_t n : {1, 15, 16, 33, 1000}) {
    const std::vector<float> x = numbers(n);
    double parts[16] = {};
    for (size_t i = 0; i < n; ++i) parts[i % 16] += static_cast<double>(x[i]);
    for (size_t half : {8, 4, 2, 1})
      for (size_t j = 0; j < half; ++j) parts[j] += parts[j + half];
    EXPECT_EQ(kernels().sum(x.data(), static_cast<int64_t>(n)), parts[0]);
  }
}

TEST_P(MathTest, AStepOfAnLstmIsItsFormulaAndTheSameBitsEverywhere) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (size_t n : {1, 5, 16, 100}) {
    std::vector<float> g = numbers(4 * n), r(4 * n), cell = numbers(n), h(n);
    for (size_t i = 0; i < r.size(); ++i) r[i] = 0.13f * static_cast<float>(i % 37) - 2;
    if (n > 4)
      g[0] = kInf, g[n + 1] = -kInf, g[2 * n + 2] = 1e-3f, r[2 * n + 2] = 0, g[3 * n + 3] = 900;
    std::vector<float> g2 = g, cell2 = cell, h2(n), g3 = g, cell3 = cell;
    kernels().lstm_gates(g.data(), r.data(), static_cast<int64_t>(n), cell.data(), h.data(),
                         static_cast<int64_t>(n));
    table(Isa::scalar)
        .lstm_gates(g2.data(), r.data(), static_cast<int64_t>(n), cell2.data(), h2.data(),
                    static_cast<int64_t>(n));
    EXPECT_EQ(g, g2);
    EXPECT_EQ(cell, cell2);
    EXPECT_EQ(h, h2);
    auto sigmoid = [](float x) {
      return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x))));
    };
    auto tanh = [](float x) { return static_cast<float>(std::tanh(static_cast<double>(x))); };
    for (size_t j = 0; j < n; ++j) {
      const float in = sigmoid(r[j] + g3[j]), forget = sigmoid(r[n + j] + g3[n + j]),
                  out = sigmoid(r[3 * n + j] + g3[3 * n + j]);
      const float c = forget * cell3[j] + in * tanh(r[2 * n + j] + g3[2 * n + j]);
      EXPECT_NEAR(cell[j], c, 1e-6f * std::fabs(c) + 1e-12f);
      EXPECT_NEAR(h[j], out * tanh(c), 1e-6f);
    }
  }
}

OCTET_FOR_EVERY_ISA(MathTest);

}  // namespace
}  // namespace octet::kernels
