#pragma once
// Exponentials, in double: plain arithmetic in one order, so that every instruction set gives the same bits (which libm does not
// promise), written for the compiler to vectorize.

#include <cstdint>

namespace octet::kernels {
namespace {

// exp(x) to 2 units in the last place of double, for x <= 709; 0 below -708; NaN stays NaN. x = n*ln2 + r with |r| <= ln2/2, exp(r) by its
// series (Cody and Waite 1980).
inline double exp_of(double x) {
  constexpr double kLog2e = 1.4426950408889634, kLn2High = 0x1.62e42fefa3800p-1, kLn2Low = 0x1.ef35793c76730p-45;
  constexpr double kShift = 0x1.8p52;  // adding it leaves the nearest integer in the low bits
  const double bounded = x < -708 ? -708 : x;
  const double shifted = bounded * kLog2e + kShift, n = shifted - kShift;
  const double r = (bounded - n * kLn2High) - n * kLn2Low;
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const int64_t bits = __builtin_bit_cast(int64_t, p) + (__builtin_bit_cast(int64_t, shifted) << 52);
  const double y = __builtin_bit_cast(double, bits);
  return x != x ? x : x < -708 ? 0 : y;
}

// y[i] = exp(x[i] - top); returns their sum, taken in eight sums (of i modulo 8) that are then added in order.
inline double exp_sum(const float* __restrict x, float top, double* __restrict y, int64_t n) {
  const double t = static_cast<double>(top);
  for (int64_t i = 0; i < n; ++i) y[i] = exp_of(static_cast<double>(x[i]) - t);
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) sums[j] += y[i + j];
  for (int64_t j = 0; i < n; ++i, ++j) sums[j] += y[i];
  double sum = 0;
  for (double s : sums) sum += s;
  return sum;
}

}  // namespace
}  // namespace octet::kernels
