#pragma once
// Exponentials and sums: plain arithmetic in one order, so that every instruction set gives the
// same bits (which libm does not promise), written for the compiler to vectorize.

#include <cstdint>

#include "octet/kernels/kernels.h"

// In front of a loop over elements whose result may be its operand: the compiler need not look for
// other overlaps, at which it would run a scalar loop.
#ifdef __clang__
#define OCTET_EACH_ON_ITS_OWN _Pragma("clang loop vectorize(assume_safety)")
#else
#define OCTET_EACH_ON_ITS_OWN _Pragma("GCC ivdep")
#endif

namespace octet::kernels {
namespace {

// exp(x) to 2 units in the last place of double, for |x| <= 708: x = n*ln2 + r with |r| <= ln2/2,
// exp(r) by its series to r^12 (Cody and Waite 1980). Multiply-adds are written out: every
// instruction set has them, or rounds as they do.
inline double exp_within(double x) {
  constexpr double kLog2e = 1.4426950408889634, kLn2High = 0x1.62e42fefa3800p-1,
                   kLn2Low = 0x1.ef35793c76730p-45;
  constexpr double kShift = 0x1.8p52;  // adding it leaves the nearest integer in the low bits
  const double shifted = __builtin_fma(x, kLog2e, kShift), n = shifted - kShift;
  const double r = __builtin_fma(-n, kLn2Low, __builtin_fma(-n, kLn2High, x));
  double p = 1.0 / 479001600;
  p = __builtin_fma(p, r, 1.0 / 39916800);
  p = __builtin_fma(p, r, 1.0 / 3628800);
  p = __builtin_fma(p, r, 1.0 / 362880);
  p = __builtin_fma(p, r, 1.0 / 40320);
  p = __builtin_fma(p, r, 1.0 / 5040);
  p = __builtin_fma(p, r, 1.0 / 720);
  p = __builtin_fma(p, r, 1.0 / 120);
  p = __builtin_fma(p, r, 1.0 / 24);
  p = __builtin_fma(p, r, 1.0 / 6);
  p = __builtin_fma(p, r, 0.5);
  p = __builtin_fma(p, r, 1.0);
  p = __builtin_fma(p, r, 1.0);
  const int64_t bits =
      __builtin_bit_cast(int64_t, p) + (__builtin_bit_cast(int64_t, shifted) << 52);
  return __builtin_bit_cast(double, bits);
}

// The same for every x: 0 below -708, exp(708) above; NaN stays NaN.
inline double exp_of(double x) {
  const double low = x < -708 ? -708 : x, y = exp_within(low > 708 ? 708 : low),
               zeroed = x < -708 ? 0 : y;
  return x != x ? x : zeroed;
}

// y[i] = exp(x[i] - top); returns their sum, taken in eight sums (of i modulo 8) that are then
// added in order.
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

// exp(x) in float32 to a unit in the last place, for -87 <= x <= 88. The same reduction, the series
// to r^7.
inline float exp_within(float x) {
  constexpr float kLog2e = 1.44269504f, kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  constexpr float kShift = 0x1.8p23f;
  const float shifted = __builtin_fmaf(x, kLog2e, kShift), n = shifted - kShift;
  const float r = __builtin_fmaf(-n, kLn2Low, __builtin_fmaf(-n, kLn2High, x));
  float p = 1.0f / 5040;
  p = __builtin_fmaf(p, r, 1.0f / 720);
  p = __builtin_fmaf(p, r, 1.0f / 120);
  p = __builtin_fmaf(p, r, 1.0f / 24);
  p = __builtin_fmaf(p, r, 1.0f / 6);
  p = __builtin_fmaf(p, r, 0.5f);
  p = __builtin_fmaf(p, r, 1.0f);
  p = __builtin_fmaf(p, r, 1.0f);
  const uint32_t bits =
      __builtin_bit_cast(uint32_t, p) + (__builtin_bit_cast(uint32_t, shifted) << 23);
  return __builtin_bit_cast(float, bits);
}

// The same for every x: 0 below -87, exp(88) above; NaN stays NaN.
inline float exp_of(float x) {
  const float low = x < -87 ? -87 : x, y = exp_within(low > 88 ? 88 : low),
              zeroed = x < -87 ? 0 : y;
  return x != x ? x : zeroed;
}

// kLanes numbers in vectors of the instruction set's own width: of wider ones GCC makes scalar code
// that goes through memory.
#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif
template <typename T, int kLanes>
struct Lanes {
  static constexpr int kOfAll = kVectorBytes / sizeof(T),
                       kOfVector = kOfAll < kLanes ? kOfAll : kLanes, kVectors = kLanes / kOfVector;
  typedef T Vector __attribute__((vector_size(kOfVector * sizeof(T))));
  Vector v[kVectors] = {};

  // From floats, which are widened where T is double.
  static Lanes load(const float* x) {
    typedef float Floats __attribute__((vector_size(kOfVector * sizeof(float))));
    Lanes r;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      Floats floats;
      __builtin_memcpy(&floats, x + i * kOfVector, sizeof floats);
      r.v[i] = __builtin_convertvector(floats, Vector);
    }
    return r;
  }
  // fn(vector, vector) of both.
  template <typename Fn>
  static Lanes of(const Lanes& a, const Lanes& b, Fn fn) {
    Lanes r;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) r.v[i] = fn(a.v[i], b.v[i]);
    return r;
  }
  static Lanes all(T x) {
    Lanes r;
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) r.v[i] = Vector{} + x;
    return r;
  }
  friend Lanes operator+(const Lanes& a, const Lanes& b) {
    return of(a, b, [](Vector p, Vector q) { return p + q; });
  }
  friend Lanes operator-(const Lanes& a, const Lanes& b) {
    return of(a, b, [](Vector p, Vector q) { return p - q; });
  }
  friend Lanes operator*(const Lanes& a, const Lanes& b) {
    return of(a, b, [](Vector p, Vector q) { return p * q; });
  }
  void store(T (&to)[kLanes]) const { __builtin_memcpy(to, v, sizeof to); }
  // fn of the lower half and the upper, again and again until one number is left. (Half a vector
  // is left to the compiler, which shuffles.)
  template <typename Fn>
  T halved(Fn fn) const {
    Lanes r = *this;
#pragma GCC unroll 4
    for (int half = kVectors / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) r.v[i] = fn(r.v[i], r.v[i + half]);
    T s[kOfVector];
    __builtin_memcpy(s, r.v, sizeof s);
#pragma GCC unroll 4
    for (int half = kOfVector / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int i = 0; i < half; ++i) s[i] = fn(s[i], s[i + half]);
    return s[0];
  }
};

// The sum of n floats in double: sixteen sums, of i modulo 16, whose upper half is then added to
// the lower until one is left.
inline double sum(const float* x, int64_t n) {
  using Sums = Lanes<double, 16>;
  Sums sums;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) sums = sums + Sums::load(x + i);
  if (i < n) {
    float rest[16] = {};
    for (int64_t j = 0; i < n; ++i, ++j) rest[j] = x[i];
    sums = sums + Sums::load(rest);
  }
  return sums.halved([](auto p, auto q) { return p + q; });
}

// The largest of n numbers; NaN is passed over.
inline float largest(const float* x, int64_t n) {
  using Tops = Lanes<float, 16>;
  const auto larger = [](auto p, auto q) { return p > q ? p : q; };
  Tops tops = Tops::all(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) tops = Tops::of(Tops::load(x + i), tops, larger);
  float result = tops.halved(larger);
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

// y = exp(x - max(x)) / sum of them: exponentials in float32, their sum as above. NaN anywhere, or
// nothing but -inf: all NaN.
inline void softmax(const float* x, float* y, int64_t n) {
  const float top = largest(x, n);
  OCTET_EACH_ON_ITS_OWN
  for (int64_t i = 0; i < n; ++i) y[i] = exp_of(x[i] - top);
  const float scale = static_cast<float>(1 / sum(y, n));
  OCTET_EACH_ON_ITS_OWN
  for (int64_t i = 0; i < n; ++i) y[i] *= scale;
}

// y = x * P(Z <= x) for a standard normal Z: x * erfc(-x/sqrt(2)) / 2, to 3 units in the last
// place. erfc(z) = t * p(t) * exp(-z^2) with t = 2 / (2 + z), p interpolated at Chebyshev's points
// for z up to 10.5 (to 5e-9); what x^2 was rounded by is made good.
inline float gelu_of(float x) {
  const float a = __builtin_fabsf(x) < 14 ? __builtin_fabsf(x) : 14, t = 2 / (2 + a * 0.70710678f);
  float p = 0.0334850395415f;
  p = __builtin_fmaf(p, t, -0.178156419244f);
  p = __builtin_fmaf(p, t, 0.349765884336f);
  p = __builtin_fmaf(p, t, -0.245094426935f);
  p = __builtin_fmaf(p, t, -0.0614391187314f);
  p = __builtin_fmaf(p, t, 0.0584197041905f);
  p = __builtin_fmaf(p, t, 0.0459849899356f);
  p = __builtin_fmaf(p, t, 0.187835739646f);
  p = __builtin_fmaf(p, t, 0.244828028134f);
  p = __builtin_fmaf(p, t, 0.282283207705f);
  p = __builtin_fmaf(p, t, 0.282087373596f);
  const float square = a * a, rest = __builtin_fmaf(a, a, -square);
  const float half_tail = 0.5f * a * (t * p * (exp_of(-0.5f * square) * (1 - 0.5f * rest)));
  const float y = x < 0 ? -half_tail : x - half_tail;
  return y;
}

// 1 / (1 + exp(-x)) and x / (1 + exp(-x)) to 2 units in the last place; 0 below -88, where exp(-x)
// leaves float32. Of NaN: any number.
inline float over_one_plus_exp(float numerator, float x) {
  const float low = x < -88 ? -88 : x, y = numerator / (1 + exp_within(-(low > 87 ? 87 : low)));
  return x < -88 ? 0 : y;
}
inline float sigmoid_of(float x) { return over_one_plus_exp(1, x); }
inline float silu_of(float x) { return over_one_plus_exp(x, x); }

// tanh(x) = 1 - 2/(exp(2x) + 1) to 2 units in the last place; where the difference cancels,
// x + x^3 p(x^2), p interpolated at Chebyshev's points for |x| up to 0.64 (to 3e-8). Of NaN: any
// number.
inline float tanh_of(float x) {
  const float a = __builtin_fabsf(x), s = x * x;
  float p = -0.00599296f;
  p = __builtin_fmaf(p, s, 0.02092415f);
  p = __builtin_fmaf(p, s, -0.05383514f);
  p = __builtin_fmaf(p, s, 0.13332663f);
  p = __builtin_fmaf(p, s, -0.33333328f);
  const float near = __builtin_fmaf(x * s, p, x);
  const float far = 1 - 2 / (1 + exp_within(2 * (a < 10 ? a : 10)));
  return a < 0.64f ? near : __builtin_copysignf(far, x);
}

// The functions that are computed in double. Beyond the bounds each has reached its limit in
// float32, or has left float32's range.
inline double within(double x, double bound) {
  const double low = x < -bound ? -bound : x;
  return low > bound ? bound : low;
}
// Near 0, where the difference of tanh_of above cancels, by its series.
inline double tanh_of(double x) {
  const double s = x * x,
               near = x *
                      (1 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835)))));
  const double far = 1 - 2 / (1 + exp_within(2 * within(x, 20)));
  return __builtin_fabs(x) < 0.05 ? near : far;
}
inline double gelu_tanh_of(double x) {
  constexpr double kSqrtTwoOverPi = 0.79788456080286535588;
  const double v = x < -40 ? -40 : x;  // where the result is 0
  return v * 0.5 * (1 + tanh_of(kSqrtTwoOverPi * (v + 0.044715 * v * v * v)));
}
// tanh(log(1 + e)) = (e^2 + 2e) / (e^2 + 2e + 2) with e = exp(x): no logarithm.
inline double mish_of(double x) {
  const double v = x < -150 ? -150 : x, e = exp_within(v > 20 ? 20 : v), n = e * (e + 2);
  return v * (n / (n + 2));
}
inline float hardswish_of(float x) {
  float t = x + 3;
  t = t < 0 ? 0 : t > 6 ? 6 : t;
  return x * t / 6;
}

template <typename Fn>
inline void each(const float* x, float* y, int64_t n, Fn fn) {
  OCTET_EACH_ON_ITS_OWN
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i];
    const auto r = static_cast<float>(fn(v));
    y[i] = v != v ? v : r;
  }
}
inline void function(Function f, const float* x, float* y, int64_t n) {
  switch (f) {
    case Function::exp:
      return each(x, y, n, [](double v) { return exp_within(within(v, 150)); });
    case Function::sigmoid:
      return each(x, y, n, [](float v) { return sigmoid_of(v); });
    case Function::silu:
      return each(x, y, n, [](float v) { return silu_of(v); });
    case Function::tanh:
      return each(x, y, n, [](float v) { return tanh_of(v); });
    case Function::gelu:
      return each(x, y, n, [](float v) { return gelu_of(v); });
    case Function::gelu_tanh:
      return each(x, y, n, [](double v) { return gelu_tanh_of(v); });
    case Function::mish:
      return each(x, y, n, [](double v) { return mish_of(v); });
    case Function::hardswish:
      return each(x, y, n, [](float v) { return hardswish_of(v); });
  }
}

// One row with mean 0 and variance 1, times weight plus bias: y = f((x - mean) * (1 / sqrt(variance
// + eps)) * weight + bias), all in double. Sums in eight parts, of i modulo 8, added pairwise.
inline double in_pairs(const double (&s)[8]) {
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

inline void moments(const float* x, double eps, double* mean, double* inverse, int64_t n) {
  using Eight = Lanes<double, 8>;
  const int64_t whole = n / 8 * 8;
  Eight sums, squares;
  double s[8];
  for (int64_t i = 0; i < whole; i += 8) sums = sums + Eight::load(x + i);
  sums.store(s);
  for (int64_t i = whole; i < n; ++i) s[i % 8] += static_cast<double>(x[i]);
  const double m = in_pairs(s) / static_cast<double>(n);
  const Eight mean_of_all = Eight::all(m);
  for (int64_t i = 0; i < whole; i += 8) {
    const Eight v = Eight::load(x + i) - mean_of_all;
    squares = squares + v * v;
  }
  squares.store(s);
  for (int64_t i = whole; i < n; ++i)
    s[i % 8] += (static_cast<double>(x[i]) - m) * (static_cast<double>(x[i]) - m);
  *mean = m;
  *inverse = 1 / __builtin_sqrt(in_pairs(s) / static_cast<double>(n) + eps);
}

inline SquaredErrors squared_errors(const CodeGrid& grid, const float* x, int64_t n) {
  using Floats = Lanes<float, 8>;
  using Sums = Lanes<double, 8>;
  constexpr float kRound = 12582912;  // 1.5 * 2^23: adding and subtracting it rounds half to even
  const Floats lo = Floats::all(grid.lo), hi = Floats::all(grid.hi),
               scale = Floats::all(grid.scale), inverse = Floats::all(grid.inverse),
               round = Floats::all(kRound);
  const auto larger = [](auto p, auto q) { return p < q ? q : p; };
  const auto smaller = [](auto p, auto q) { return p < q ? p : q; };
  const auto widened = [](const Floats& squares) {
    float parts[8];
    squares.store(parts);
    return Sums::load(parts);
  };
  Sums all, clipped;
  const auto add = [&](const float* from) {
    const Floats v = Floats::load(from), code = v * inverse,
                 inside = Floats::of(Floats::of(lo, code, larger), hi, smaller),
                 e = v - ((inside + round) - round) * scale, c = (code - inside) * scale;
    all = all + widened(e * e);
    clipped = clipped + widened(c * c);
  };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) add(x + i);
  if (i < n) {  // a 0 is a code
    float rest[8] = {};
    for (int64_t j = 0; i < n; ++i, ++j) rest[j] = x[i];
    add(rest);
  }
  double of_all[8], of_clipped[8];
  all.store(of_all);
  clipped.store(of_clipped);
  SquaredErrors sum;
  for (int j = 0; j < 8; ++j) sum.all += of_all[j], sum.clipped += of_clipped[j];
  return sum;
}

inline void normalize(const float* x, double mean, double inverse, float weight, float bias,
                      float* y, int64_t n) {
  const auto w = static_cast<double>(weight), b = static_cast<double>(bias);
  OCTET_EACH_ON_ITS_OWN
  for (int64_t i = 0; i < n; ++i)
    y[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * inverse * w + b);
}

inline void layer_norm(const float* x, const float* weight, const float* bias, double eps, float* y,
                       int64_t n) {
  double mean = 0, inverse = 1;
  moments(x, eps, &mean, &inverse, n);
  if (weight && bias) {
    OCTET_EACH_ON_ITS_OWN
    for (int64_t i = 0; i < n; ++i)
      y[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * inverse *
                                    static_cast<double>(weight[i]) +
                                static_cast<double>(bias[i]));
  } else {
    OCTET_EACH_ON_ITS_OWN
    for (int64_t i = 0; i < n; ++i)
      y[i] = static_cast<float>((static_cast<double>(x[i]) - mean) * inverse *
                                    static_cast<double>(weight ? weight[i] : 1.0f) +
                                static_cast<double>(bias ? bias[i] : 0.0f));
  }
}

// y[i] = a[i * a_step] op b[i * b_step], steps 0 or 1.
template <typename Op>
inline void arithmetic_of(const float* a, int64_t a_step, const float* b, int64_t b_step, float* y,
                          int64_t n, Op op) {
  if (a_step == 0) {
    const float number = *a;
    OCTET_EACH_ON_ITS_OWN
    for (int64_t i = 0; i < n; ++i) y[i] = op(number, b[i * b_step]);
  } else if (b_step == 0) {
    const float number = *b;
    OCTET_EACH_ON_ITS_OWN
    for (int64_t i = 0; i < n; ++i) y[i] = op(a[i], number);
  } else {
    OCTET_EACH_ON_ITS_OWN
    for (int64_t i = 0; i < n; ++i) y[i] = op(a[i], b[i]);
  }
}
inline void arithmetic(Arithmetic op, const float* a, int64_t a_step, const float* b,
                       int64_t b_step, float* y, int64_t n) {
  switch (op) {
    case Arithmetic::add:
      return arithmetic_of(a, a_step, b, b_step, y, n, [](float p, float q) { return p + q; });
    case Arithmetic::sub:
      return arithmetic_of(a, a_step, b, b_step, y, n, [](float p, float q) { return p - q; });
    case Arithmetic::mul:
      return arithmetic_of(a, a_step, b, b_step, y, n, [](float p, float q) { return p * q; });
    case Arithmetic::div:
      return arithmetic_of(a, a_step, b, b_step, y, n, [](float p, float q) { return p / q; });
  }
}

// The gate fn(a + b), which is put in the place of b.
template <typename Fn>
inline void gate(const float* __restrict a, float* __restrict b, int64_t n, Fn fn) {
  for (int64_t j = 0; j < n; ++j) {
    const float x = a[j] + b[j], y = fn(x);
    b[j] = x != x ? x : y;
  }
}

inline void lstm_gates(float* __restrict g, const float* __restrict r, int64_t stride,
                       float* __restrict cell, float* __restrict h, int64_t n) {
  const auto sigmoid = [](float x) { return sigmoid_of(x); };
  float *in = g, *forget = g + stride, *candidate = g + 2 * stride, *out = g + 3 * stride;
  gate(r, in, n, sigmoid);
  gate(r + stride, forget, n, sigmoid);
  gate(r + 2 * stride, candidate, n, [](float x) { return tanh_of(x); });
  gate(r + 3 * stride, out, n, sigmoid);
  for (int64_t j = 0; j < n; ++j) {
    const float kept = forget[j] * cell[j], added = in[j] * candidate[j], c = kept + added,
                bounded = tanh_of(c);
    cell[j] = c;
    h[j] = out[j] * (c != c ? c : bounded);
  }
}

inline void dynamic_terms(int32_t zero_point, float scale, const int32_t* sums, const float* scales,
                          int32_t* bias, float* multiplier, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    bias[i] =
        static_cast<int32_t>(static_cast<uint32_t>(-zero_point) * static_cast<uint32_t>(sums[i]));
  for (int64_t i = 0; i < n; ++i) multiplier[i] = scale * scales[i];
}

}  // namespace
}  // namespace octet::kernels
