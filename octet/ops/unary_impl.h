#pragma once
// The functions behind the unary operators, for float, double and (the exact ones) integers:
// structs that are made from the attributes and called with a number.
//
// What is not exact is computed in double and rounded once. That is more than float32 needs; it is
// there because libm picks its code by the CPU: its float functions may differ in the last bit from
// machine to machine, while its double ones, rounded to float32, practically cannot. Functions that
// networks spend their time in are the kernels' own in float32 (kernels::Function).

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "octet/base/check_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/attrs.h"

namespace octet::ops::unary {

// v as a T; saturates for integers.
template <typename T>
T saturate(double v) {
  if constexpr (std::is_integral_v<T>) {
    if (v <= static_cast<double>(std::numeric_limits<T>::min()))
      return std::numeric_limits<T>::min();
    if (v >= static_cast<double>(std::numeric_limits<T>::max()))
      return std::numeric_limits<T>::max();
  }
  return static_cast<T>(v);
}

template <typename T>
T negate(T x) {
  // wraps
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(x));
  else
    return -x;
}

inline float by_kernel(kernels::Function f, float x) {
  float y = 0;
  kernels::table().function(f, &x, &y, 1);
  return y;
}

// tanh to 14 digits, four times as fast as std::tanh: by exp, and near 0, where that cancels, by
// its series.
inline double fast_tanh(double x) {
  if (std::fabs(x) < 0.05) {
    double s = x * x;
    return x * (1 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835)))));
  }
  return 1 - 2 / (std::exp(2 * x) + 1);
}

// The published constants of selu (Klambauer et al. 2017).
inline constexpr double kSeluScale = 1.0507009873554804934193349852946,
                        kSeluAlpha = 1.6732632423543772848170429916717;

// Functions that are exact in every type (`on integers`: what they are there), and rounded ones: of
// a double x.
#define OCTET_EXACT(Name, on_integers, on_floats) \
  template <typename T>                           \
  struct Name {                                   \
    static constexpr bool kExact = true;          \
    explicit Name(const Attrs&) {}                \
    T operator()(T x) const {                     \
      if constexpr (std::is_integral_v<T>)        \
        return on_integers;                       \
      else                                        \
        return on_floats;                         \
    }                                             \
  };
#define OCTET_ROUNDED(Name, expression)   \
  template <typename T>                   \
  struct Name {                           \
    static constexpr bool kExact = false; \
    explicit Name(const Attrs&) {}        \
    T operator()(T v) const {             \
      const double x = v;                 \
      return static_cast<T>(expression);  \
    }                                     \
  };

// The same, in float32 the function of the kernels.
#define OCTET_KERNEL(Name, function, expression)                              \
  template <typename T>                                                       \
  struct Name {                                                               \
    static constexpr bool kExact = false;                                     \
    static kernels::Function kernel() { return kernels::Function::function; } \
    explicit Name(const Attrs&) {}                                            \
    T operator()(T v) const {                                                 \
      if constexpr (std::is_same_v<T, float>) return by_kernel(kernel(), v);  \
      const double x = v;                                                     \
      return static_cast<T>(expression);                                      \
    }                                                                         \
  };

// NaN passes through: every comparison with it is false.
OCTET_EXACT(Relu, x < 0 ? T(0) : x, x < 0 ? T(0) : x)
OCTET_EXACT(Relu6, x<0 ? T(0) : x> 6 ? T(6) : x, x<0 ? T(0) : x> 6 ? T(6) : x)
OCTET_EXACT(Neg, negate(x), negate(x))
OCTET_EXACT(Abs, x < 0 ? negate(x) : x, std::fabs(x))
OCTET_EXACT(Sign, T((x > 0) - (x < 0)), std::isnan(x) ? x : T((x > 0) - (x < 0)))
OCTET_EXACT(Floor, x, std::floor(x))
OCTET_EXACT(Ceil, x, std::ceil(x))
OCTET_EXACT(Round, x, std::nearbyint(x))

OCTET_KERNEL(Sigmoid, sigmoid, 1 / (1 + std::exp(-x)))
OCTET_KERNEL(Silu, silu, x < -750 ? 0 : x / (1 + std::exp(-x)))
OCTET_KERNEL(Tanh, tanh, fast_tanh(x))
OCTET_KERNEL(Exp, exp, std::exp(x))
OCTET_ROUNDED(Tan, std::tan(x))
OCTET_ROUNDED(Asin, std::asin(x))
OCTET_ROUNDED(Acos, std::acos(x))
OCTET_ROUNDED(Atan, std::atan(x))
OCTET_ROUNDED(Sinh, std::sinh(x))
OCTET_ROUNDED(Cosh, std::cosh(x))
OCTET_ROUNDED(Asinh, std::asinh(x))
OCTET_ROUNDED(Acosh, std::acosh(x))
OCTET_ROUNDED(Atanh, std::atanh(x))
OCTET_ROUNDED(Log, std::log(x))
OCTET_ROUNDED(Sqrt, std::sqrt(x))
OCTET_ROUNDED(Rsqrt, 1 / std::sqrt(x))
OCTET_ROUNDED(Reciprocal, 1 / x)
OCTET_ROUNDED(Erf, std::erf(x))
OCTET_ROUNDED(Sin, std::sin(x))
OCTET_ROUNDED(Cos, std::cos(x))
OCTET_ROUNDED(Softsign, x / (1 + std::fabs(x)))
OCTET_ROUNDED(Selu, kSeluScale*(x > 0 ? x : kSeluAlpha * std::expm1(x)))
#undef OCTET_EXACT
#undef OCTET_ROUNDED
#undef OCTET_KERNEL

// -- with attributes, or with float32 arithmetic that PyTorch fixes step by step ------------------

template <typename T>
struct Hardswish {
  static constexpr bool kExact = false;
  static kernels::Function kernel() { return kernels::Function::hardswish; }
  explicit Hardswish(const Attrs&) {}
  T operator()(T x) const {
    T t = x + T(3);
    t = t < 0 ? T(0) : t > 6 ? T(6) : t;
    return x * t / T(6);
  }
};

template <typename T>
struct Hardsigmoid {
  static constexpr bool kExact = false;
  T alpha, beta;
  explicit Hardsigmoid(const Attrs& a)
      : alpha(static_cast<T>(a.get_double("alpha"))), beta(static_cast<T>(a.get_double("beta"))) {}
  T operator()(T x) const {
    T t = x * alpha + beta;
    return t < 0 ? T(0) : t > 1 ? T(1) : t;
  }
};

template <typename T>
struct Clamp {
  static constexpr bool kExact = true;
  T lo, hi;
  explicit Clamp(const Attrs& a)
      : lo(saturate<T>(a.get_double("min"))), hi(saturate<T>(a.get_double("max"))) {}
  T operator()(T x) const {
    T t = x < lo ? lo : x;
    return t > hi ? hi : t;
  }
};

template <typename T>
struct LeakyRelu {
  static constexpr bool kExact = false;
  T slope;
  explicit LeakyRelu(const Attrs& a) : slope(static_cast<T>(a.get_double("negative_slope"))) {}
  T operator()(T x) const { return x < 0 ? x * slope : x; }
};

template <typename T>
struct Threshold {
  static constexpr bool kExact = true;
  T limit, value;
  explicit Threshold(const Attrs& a)
      : limit(saturate<T>(a.get_double("threshold"))), value(saturate<T>(a.get_double("value"))) {}
  T operator()(T x) const { return x <= limit ? value : x; }
};

template <typename T>
struct Elu {
  static constexpr bool kExact = false;
  double alpha;
  explicit Elu(const Attrs& a) : alpha(a.get_double("alpha")) {}
  T operator()(T x) const {
    return x > 0 ? x : static_cast<T>(alpha * std::expm1(static_cast<double>(x)));
  }
};

template <typename T>
struct Celu {
  static constexpr bool kExact = false;
  double alpha;
  explicit Celu(const Attrs& a) : alpha(a.get_double("alpha")) {
    OCTET_CHECK(alpha != 0, invalid_argument, "celu: alpha is 0; expected another number");
  }
  T operator()(T x) const {
    return x > 0 ? x : static_cast<T>(alpha * std::expm1(static_cast<double>(x) / alpha));
  }
};

template <typename T>
struct Softplus {
  static constexpr bool kExact = false;
  double beta, threshold;
  explicit Softplus(const Attrs& a)
      : beta(a.get_double("beta")), threshold(a.get_double("threshold")) {
    OCTET_CHECK(beta != 0, invalid_argument, "softplus: beta is 0; expected another number");
  }
  T operator()(T x) const {
    double t = static_cast<double>(x) * beta;
    return t > threshold ? x : static_cast<T>(std::log1p(std::exp(t)) / beta);
  }
};

template <typename T>
struct Gelu {
  static constexpr bool kExact = false;
  bool by_tanh;
  explicit Gelu(const Attrs& a) : by_tanh(a.get_string("approximate") == "tanh") {
    OCTET_CHECK(by_tanh || a.get_string("approximate") == "none", invalid_argument,
                "gelu: approximate=\"{}\"; expected \"none\" or \"tanh\"",
                a.get_string("approximate"));
  }
  kernels::Function kernel() const {
    return by_tanh ? kernels::Function::gelu_tanh : kernels::Function::gelu;
  }
  T operator()(T v) const {
    if constexpr (std::is_same_v<T, float>) return by_kernel(kernel(), v);
    const double x = v;
    constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;
    // Hendrycks and Gimpel 2016: x times the normal distribution function of x, or its
    // approximation by tanh.
    double phi =
        by_tanh ? fast_tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x)) : std::erf(x * kSqrtHalf);
    if (x == -std::numeric_limits<double>::infinity()) return T(0);
    return static_cast<T>(x * 0.5 * (1 + phi));
  }
};

}  // namespace octet::ops::unary
