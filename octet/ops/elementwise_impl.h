#pragma once
// Arithmetic of two numbers, and the integer forms of add, sub and mul on codes of 8 and 16 bits.

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "octet/base/check_impl.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/iterate_impl.h"
#include "octet/tensor/affine.h"

namespace octet::ops::elementwise {

// -- functions of two floats, doubles, int64s or int32s; integers wrap ----------------------------

template <typename T>
using Wrapping = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                             std::type_identity<T>>::type;

struct Add {
  template <typename T>
  static T of(T a, T b) {
    return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
  }
};
struct Sub {
  template <typename T>
  static T of(T a, T b) {
    return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
  }
};
struct Mul {
  template <typename T>
  static T of(T a, T b) {
    return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
  }
};
// Integers: toward zero, as in C and ONNX. The divisor is not 0 (checked before).
struct Div {
  template <typename T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      return b == T(-1) ? Sub::of(T(0), a) : static_cast<T>(a / b);
    else
      return a / b;
  }
};
// The sign of the dividend, as C's fmod and %.
struct Fmod {
  template <typename T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      return b == T(-1) ? T(0) : static_cast<T>(a % b);
    else
      return std::fmod(a, b);
  }
};
// The sign of the divisor, as Python's %.
struct Remainder {
  template <typename T>
  static T of(T a, T b) {
    T r = Fmod::of(a, b);
    return r != T(0) && (r < T(0)) != (b < T(0)) ? static_cast<T>(r + b) : r;
  }
};
struct Pow {
  template <typename T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      if (b < 0) return a == 1 ? T(1) : a == T(-1) ? (b % 2 ? T(-1) : T(1)) : T(0);
      T y = 1;
      for (T base = a; b > 0; b /= 2, base = Mul::of(base, base))
        if (b % 2) y = Mul::of(y, base);
      return y;
    } else
      return static_cast<T>(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
};
// NaN if either is.
struct Maximum {
  template <typename T>
  static T of(T a, T b) {
    return a > b || a != a ? a : b;
  }
};
struct Minimum {
  template <typename T>
  static T of(T a, T b) {
    return a < b || a != a ? a : b;
  }
};

// -- codes ----------------------------------------------------------------------------------------

struct Codes {
  float scale;
  int32_t zero;
  explicit Codes(const Quantizer& q)
      : scale(static_cast<float>(q.scale())), zero(static_cast<int32_t>(q.zero_point())) {}
};

// Lower and upper clamp of a result's codes under a fused activation.
struct Range {
  int32_t lo, hi;
  Range(const TensorType& out, const std::string& activation)
      : lo(static_cast<int32_t>(qmin(out.dtype))), hi(static_cast<int32_t>(qmax(out.dtype))) {
    Codes y(*out.quantizer);
    int32_t six = affine::quantize(6.0f, y.scale, y.zero, lo, hi);
    if (activation != "none") lo = y.zero;
    if (activation == "relu6") hi = six;
  }
};

// round_and_clamp for a finite or infinite v, in a form that vectorises. With lo - z and hi - z
// whole numbers, clamping before rounding is the same as after, and adding 1.5 * 2^23 rounds what
// is that small half to even.
struct Rounder {
  float low, high;
  int32_t zero;
  Rounder(const Codes& y, const Range& r)
      : low(static_cast<float>(r.lo - y.zero)),
        high(static_cast<float>(r.hi - y.zero)),
        zero(y.zero) {}
  int32_t operator()(float v) const {
    constexpr float kMagic = 12582912.0f;
    v = v < low ? low : v;
    v = v > high ? high : v;
    return static_cast<int32_t>((v + kMagic) - kMagic) + zero;
  }
};

enum class Kind { add, sub, mul };

// The product of two codes less their zero points: of 8 bits it fits int32.
template <typename T>
auto product(int32_t a, int32_t b) {
  return static_cast<std::conditional_t<sizeof(T) == 1, int32_t, int64_t>>(a) * b;
}

// a op b on codes of one dtype with scales that neither overflow nor vanish.
template <typename T, Kind kind>
void codes_into(const Tensor& a, const Tensor& b, Tensor& y, const Range& range) {
  const Codes qa(*a.quantizer()), qb(*b.quantizer()), qy(*y.quantizer());
  const Rounder round(qy, range);
  const float inv = 1.0f / qy.scale, sa = qa.scale, sb = qb.scale;
  const int32_t za = qa.zero, zb = qb.zero;
  if constexpr (kind == Kind::mul) {
    const float m = (sa * sb) * inv;
    zip_into<T, T, T>(a, b, y, [=](T p, T q) {
      return static_cast<T>(round(static_cast<float>(product<T>(p - za, q - zb)) * m));
    });
  } else {
    zip_into<T, T, T>(a, b, y, [=](T p, T q) {
      float da = sa * static_cast<float>(p - za), db = sb * static_cast<float>(q - zb);
      return static_cast<T>(round((kind == Kind::add ? da + db : da - db) * inv));
    });
  }
}

// add, sub and mul of quantized operands.
template <Kind kind>
Tensor codes(const Call& c, const std::string& activation) {
  const Tensor &a = c[0], &b = c[1];
  const TensorType& out = c.outputs()[0];
  if (!is_affine(out) || !is_affine(a.type()) || !is_affine(b.type())) return through_float(c);
  const Codes qa(*a.quantizer()), qb(*b.quantizer()), qy(*out.quantizer);
  Shape shape = out.shape();
  Tensor y = Tensor::empty(shape, out.dtype, out.quantizer, format_of(a, b, shape));
  const Range range(out, activation);
  const float inv = 1.0f / qy.scale, m = (qa.scale * qb.scale) * inv;
  const float most = is_8_bit(out.dtype) ? 0x1p8f : 0x1p16f;
  bool usual = kind == Kind::mul
                   ? std::isfinite(m) && std::isfinite(m * most * most)
                   : std::isfinite(inv) && std::isfinite(most * qa.scale + most * qb.scale);
  if (usual && a.dtype() == b.dtype() && a.dtype() == out.dtype) {
    if (out.dtype == DType::quint8)
      codes_into<uint8_t, kind>(a, b, y, range);
    else if (out.dtype == DType::qint8)
      codes_into<int8_t, kind>(a, b, y, range);
    else if (out.dtype == DType::quint16)
      codes_into<uint16_t, kind>(a, b, y, range);
    else
      codes_into<int16_t, kind>(a, b, y, range);
    return y;
  }
  // Mixed dtypes, or scales at the ends of float32's range: one number at a time, in int32.
  Tensor codes = Tensor::empty(shape, DType::int32);
  zip_into<int32_t, int32_t, int32_t>(
      a.int_repr().to(DType::int32), b.int_repr().to(DType::int32), codes,
      [=](int32_t ia, int32_t ib) {
        float v = 0;
        if (kind == Kind::mul) {
          v = static_cast<float>(product<int32_t>(ia - qa.zero, ib - qb.zero)) * m;
        } else {
          float da = affine::dequantize(ia, qa.scale, qa.zero),
                db = affine::dequantize(ib, qb.scale, qb.zero);
          v = (kind == Kind::add ? da + db : da - db) * inv;
        }
        return affine::round_and_clamp(v, qy.zero, range.lo, range.hi);
      });
  return make_quantized(codes.to(code_dtype(out.dtype)), out.quantizer);
}

}  // namespace octet::ops::elementwise
