#include "octet/ops/unary.h"

#include <map>

#include "octet/base/parallel.h"
#include "octet/kernels/kernels.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/gradient_impl.h"
#include "octet/ops/iterate_impl.h"
#include "octet/ops/unary_impl.h"
#include "octet/tensor/affine.h"

namespace octet::ops {
namespace {

template <template <typename> class F>
FloatFunction make_float_function(const Attrs& attrs) {
  const F<float> f(attrs);
  if constexpr (requires { f.kernel(); })
    return [kernel = f.kernel()](const float* x, float* y, int64_t n) {
      kernels::table().function(kernel, x, y, n);
    };
  else
    return [f](const float* x, float* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) y[i] = f(x[i]);
    };
}

template <template <typename> class F>
Scalar scalar() {
  return {make_float_function<F>};
}

// -- parts of the definitions ---------------------------------------------------------------------

// The type of x; functions that are not exact need a floating x. Making the function checks the
// attributes.
template <template <typename> class F>
Infer unary_type() {
  return infer([](const Types& t) {
    if (!F<float>::kExact) need_floating(t);
    F<float> checked(t.attrs());
    return t.result(t[0].dims, t[0].dtype);
  });
}

// What lies together in memory, by the function of many numbers.
Tensor float_eval(const Call& c) {
  const bool dense = c[0].is_contiguous() || c[0].is_contiguous(MemoryFormat::channels_last);
  const Tensor x = dense ? c[0] : c[0].contiguous();
  Tensor y = Tensor::empty(x.shape(), x.dtype(), nullptr, format_of(x));
  const FloatFunction f = c.op().scalar()(c.attrs());
  const float* in = x.data<float>();
  float* out = y.data<float>();
  parallel_ranges(x.numel(), kGrain,
                  [&](int64_t i0, int64_t i1) { f(in + i0, out + i0, i1 - i0); });
  return y;
}

template <template <typename> class F>
Eval unary_eval() {
  return widened([](const Call& c) {
    const Tensor& x = c[0];
    if (x.dtype() == DType::float32) return float_eval(c);
    Tensor y = Tensor::empty(x.shape(), x.dtype(), nullptr, format_of(x));
    const std::string& who = c.op().name();
    auto run = [&](auto zero) {
      using T = decltype(zero);
      map_into<T, T>(x, y, F<T>(c.attrs()));
    };
    if constexpr (F<float>::kExact)
      visit_arithmetic(x.dtype(), who, run);
    else
      visit_float(x.dtype(), who, run);
    return y;
  });
}

// Codes of more than 8 bits or with qparams per channel, for the operators that clamp: no table has
// room for these.
Tensor clamp_codes(const Call& c) {
  const Tensor& x = c[0];
  const Quantizer& q = *x.quantizer();
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.quantizer(), format_of(x));
  auto f = unary_function(c.op().name(), c.attrs());
  const float infinity = std::numeric_limits<float>::infinity();
  auto lo = static_cast<int32_t>(qmin(x.dtype())), hi = static_cast<int32_t>(qmax(x.dtype()));
  int64_t channels = q.is_per_channel() ? x.size(q.axis()) : 1;
  for (int64_t channel = 0; channel < channels; ++channel) {
    Tensor from = x.int_repr(), to = y.int_repr();
    if (q.is_per_channel()) {
      from = from.slice(q.axis(), channel, channel + 1);
      to = to.slice(q.axis(), channel, channel + 1);
    }
    auto scale = static_cast<float>(q.scale(channel));
    auto zero = static_cast<int32_t>(q.zero_point(channel));
    int32_t low = affine::quantize(f(-infinity), scale, zero, lo, hi);
    int32_t high = affine::quantize(f(infinity), scale, zero, lo, hi);
    visit_any(x.dtype(), c.op().name(), [&](auto sample) {
      using T = decltype(sample);
      map_into<T, T>(from, to, [low, high](T v) {
        return static_cast<T>(v < low ? low : v > high ? high : v);
      });
    });
  }
  return y;
}

// Bytes by a table of quantize(f(dequantize(q))); the same arithmetic number by number otherwise.
Tensor unary_codes(const Call& c) {
  const Tensor& x = c[0];
  const TensorType& out = c.outputs()[0];
  if (!is_byte_affine(x.type()) || !is_byte_affine(out))
    return c.op().rule() == QRule::same && same_qparams(x, out) ? clamp_codes(c) : through_float(c);
  auto f = unary_function(c.op().name(), c.attrs());
  auto sx = static_cast<float>(x.q_scale()), sy = static_cast<float>(out.quantizer->scale());
  auto zx = static_cast<int32_t>(x.q_zero_point()),
       zy = static_cast<int32_t>(out.quantizer->zero_point());
  auto lo = static_cast<int32_t>(qmin(out.dtype)), hi = static_cast<int32_t>(qmax(out.dtype));
  uint8_t table[256];
  for (auto q = static_cast<int32_t>(qmin(x.dtype())); q <= qmax(x.dtype()); ++q)
    table[static_cast<uint8_t>(q)] =
        static_cast<uint8_t>(affine::quantize(f(affine::dequantize(q, sx, zx)), sy, zy, lo, hi));
  Tensor y = Tensor::empty(x.shape(), out.dtype, out.quantizer, format_of(x));
  map_into<uint8_t, uint8_t>(x, y, [&table](uint8_t q) { return table[q]; });
  return y;
}

// The gradient dx = fn(x, y, dy), element by element.
template <typename Fn>
Gradient slope(Fn fn) {
  return gradient(
      [fn](const Grad& g) { return zip_gradient(g[0], g.y(), g.dy(), g.call().op().name(), fn); });
}
// The same for a function of the attributes that gives fn.
template <typename Make>
Gradient slope_of(Make make) {
  return gradient([make](const Grad& g) {
    return zip_gradient(g[0], g.y(), g.dy(), g.call().op().name(), make(g.attrs()));
  });
}
// Steps are flat between their jumps.
Gradient flat() {
  return slope([](auto, auto, auto dy) { return dy * 0; });
}

// d gelu / dx.
double gelu_slope(double x, bool by_tanh) {
  constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwoOverPi = 0.79788456080286535588;
  constexpr double kInvSqrtTwoPi = 0.39894228040143267794;
  if (!by_tanh)
    return 0.5 * (1 + std::erf(x * kSqrtHalf)) + x * kInvSqrtTwoPi * std::exp(-0.5 * x * x);
  double t = unary::fast_tanh(kSqrtTwoOverPi * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kSqrtTwoOverPi * (1 + 3 * 0.044715 * x * x);
}

}  // namespace

bool is_unary(std::string_view op) {
  const Op* known = find(op);
  return known && known->scalar();
}

std::function<float(float)> unary_function(std::string_view op, const Attrs& attrs) {
  const Op& known = get(op);
  OCTET_CHECK(known.scalar(), invalid_argument, "{} is not an operator of one number", op);
  return [f = known.scalar()(attrs)](float x) {
    float y = 0;
    f(&x, &y, 1);
    return y;
  };
}

float apply_unary(std::string_view op, const Attrs& attrs, float x) {
  return unary_function(op, attrs)(x);
}

std::optional<QType> fixed_qtype(std::string_view op, DType dtype) {
  if (!is_activation_dtype(dtype)) return std::nullopt;
  const Op* known = find(op);
  if (!known || known->rule() != QRule::fixed) return std::nullopt;
  const Traits& t = known->traits();
  // Those of quint8, in steps a 256th as large where there are 16 bits.
  const int64_t steps = is_16_bit(dtype) ? 256 : 1;
  const int64_t zero_point = t.fixed_zero_point * steps + qmin(dtype);
  return QType{
      dtype, Quantizer::per_tensor(t.fixed_scale / static_cast<double>(steps), zero_point, dtype)};
}

// -- the operators --------------------------------------------------------------------------------

// The parts that all unary operators share: type, float evaluation, table on codes.
#define OCTET_UNARY(Function)                                                           \
  unary_type<unary::Function>(), unary_eval<unary::Function>(), quantized(unary_codes), \
      scalar<unary::Function>()

// y = max(x, 0). Quantized: clamps codes at the zero point, qparams unchanged.
OCTET_OP(relu, "relu(x) -> y", QRule::same, OCTET_UNARY(Relu),
         slope([](auto x, auto, auto dy) { return x > 0 ? dy : 0; }),
         Traits{.narrows = true, .onnx = "Relu"}, Doc{"max(x, 0)"})

// y = min(max(x, 0), 6). Quantized: clamps codes at the zero point and at quantize(6), qparams
// unchanged.
OCTET_OP(relu6, "relu6(x) -> y", QRule::same, OCTET_UNARY(Relu6),
         slope([](auto x, auto, auto dy) { return x > 0 && x < 6 ? dy : 0; }),
         Traits{.narrows = true}, Doc{"min(max(x, 0), 6)"})

// y = min(max(x, min), max): PyTorch's hardtanh with min=-1, max=1. NaN stays NaN; min > max gives
// max everywhere. Quantized: clamps codes at quantize(min) and quantize(max), qparams unchanged.
OCTET_OP(clamp, "clamp(x, *, min=-inf, max=inf) -> y", QRule::same, OCTET_UNARY(Clamp),
         slope_of([](const Attrs& a) {
           return [lo = a.get_double("min"), hi = a.get_double("max")](auto x, auto, auto dy) {
             return x >= static_cast<decltype(x)>(lo) && x <= static_cast<decltype(x)>(hi) ? dy : 0;
           };
         }),
         Traits{.narrows = true},
         Doc{"min(max(x, min), max); hardtanh is clamp with min=-1, max=1"})

// y = 1 / (1 + exp(-x)). Quantized: scale 1/256, zero point 0 (qint8: -128) unless others are
// given.
OCTET_OP(sigmoid, "sigmoid(x) -> y", QRule::fixed, OCTET_UNARY(Sigmoid),
         slope([](auto, auto y, auto dy) { return dy * y * (1 - y); }),
         Traits{.fixed_scale = 1.0 / 256, .onnx = "Sigmoid"}, Doc{"1 / (1 + exp(-x))"})

// Hyperbolic tangent. Quantized: scale 1/128, zero point 128 (qint8: 0) unless others are given.
OCTET_OP(tanh, "tanh(x) -> y", QRule::fixed, OCTET_UNARY(Tanh),
         slope([](auto, auto y, auto dy) { return dy * (1 - y * y); }),
         Traits{.fixed_scale = 1.0 / 128, .fixed_zero_point = 128, .onnx = "Tanh"},
         Doc{"hyperbolic tangent"})

// y = x / (1 + exp(-x)) (Hendrycks and Gimpel 2016; swish).
OCTET_OP(silu, "silu(x) -> y", QRule::own, OCTET_UNARY(Silu), slope([](auto x, auto, auto dy) {
           const double sigmoid = 1 / (1 + std::exp(-double(x)));
           return dy * sigmoid * (1 + x * (1 - sigmoid));
         }),
         Traits{.onnx_form = "Mul(x, Sigmoid(x))"}, Doc{"x * sigmoid(x)"})

// y = min(max(alpha*x + beta, 0), 1). Quantized as sigmoid.
OCTET_OP(hardsigmoid, "hardsigmoid(x, *, alpha=0.16666667, beta=0.5) -> y", QRule::fixed,
         OCTET_UNARY(Hardsigmoid), slope_of([](const Attrs& a) {
           return [alpha = a.get_double("alpha")](auto, auto y, auto dy) {
             return y > 0 && y < 1 ? dy * alpha : 0;
           };
         }),
         Traits{.fixed_scale = 1.0 / 256}, Doc{"min(max(alpha*x + beta, 0), 1)"})

// y = x * min(max(x + 3, 0), 6) / 6 (Howard et al. 2019).
OCTET_OP(hardswish, "hardswish(x) -> y", QRule::own, OCTET_UNARY(Hardswish),
         slope([](auto x, auto, auto dy) {
           return x < -3 ? dy * 0 : x < 3 ? dy * (x / 3 + decltype(x)(0.5)) : dy;
         }),
         Traits{.onnx = "HardSwish"}, Doc{"x * min(max(x + 3, 0), 6) / 6"})

// y = x * P(Z <= x) for a standard normal Z, by erf ("none"; float32: the kernel's) or by its
// approximation with tanh ("tanh").
OCTET_OP(gelu, "gelu(x, *, approximate=\"none\") -> y", QRule::own, OCTET_UNARY(Gelu),
         slope_of([](const Attrs& a) {
           return [by_tanh = a.get_string("approximate") == "tanh"](auto x, auto, auto dy) {
             return dy * gelu_slope(x, by_tanh);
           };
         }),
         Doc{"x times the normal distribution function of x; approximate: \"none\" or \"tanh\""})

// y = x where x >= 0, else negative_slope * x.
OCTET_OP(leaky_relu, "leaky_relu(x, *, negative_slope=0.01) -> y", QRule::own,
         OCTET_UNARY(LeakyRelu), slope_of([](const Attrs& a) {
           return [slope = a.get_double("negative_slope")](auto x, auto, auto dy) {
             return x > 0 ? dy : dy * static_cast<decltype(dy)>(slope);
           };
         }),
         Doc{"x where x >= 0, else negative_slope * x"})

// y = x where x > 0, else alpha * (exp(x) - 1).
OCTET_OP(elu, "elu(x, *, alpha=1.) -> y", QRule::own, OCTET_UNARY(Elu),
         slope_of([](const Attrs& a) {
           return [alpha = a.get_double("alpha")](auto x, auto, auto dy) {
             return x > 0 ? dy : dy * alpha * std::exp(static_cast<double>(x));
           };
         }),
         Doc{"x where x > 0, else alpha * (exp(x) - 1)"})

// y = x where x > 0, else alpha * (exp(x/alpha) - 1).
OCTET_OP(celu, "celu(x, *, alpha=1.) -> y", QRule::own, OCTET_UNARY(Celu),
         slope_of([](const Attrs& a) {
           return [alpha = a.get_double("alpha")](auto x, auto, auto dy) {
             return x > 0 ? dy : dy * std::exp(static_cast<double>(x) / alpha);
           };
         }),
         Doc{"x where x > 0, else alpha * (exp(x/alpha) - 1)"})

// elu with the self-normalizing scale and alpha (Klambauer et al. 2017).
OCTET_OP(selu, "selu(x) -> y", QRule::own, OCTET_UNARY(Selu), slope([](auto x, auto, auto dy) {
           return dy * unary::kSeluScale *
                  (x > 0 ? 1 : unary::kSeluAlpha * std::exp(static_cast<double>(x)));
         }),
         Traits{.onnx_form = "Selu(x)"},
         Doc{"1.0507 * (x where x > 0, else 1.6733 * (exp(x) - 1))"})

// y = log(1 + exp(beta*x)) / beta; x itself where beta*x > threshold.
OCTET_OP(softplus, "softplus(x, *, beta=1., threshold=20.) -> y", QRule::own, OCTET_UNARY(Softplus),
         slope_of([](const Attrs& a) {
           return [beta = a.get_double("beta"), threshold = a.get_double("threshold")](auto x, auto,
                                                                                       auto dy) {
             return x * beta > threshold ? dy : dy / (1 + std::exp(-x * beta));
           };
         }),
         Doc{"log(1 + exp(beta*x)) / beta; x where beta*x > threshold"})

// y = x / (1 + |x|).
OCTET_OP(softsign, "softsign(x) -> y", QRule::own, OCTET_UNARY(Softsign),
         slope([](auto x, auto, auto dy) {
           auto t = 1 + std::fabs(x);
           return dy / (t * t);
         }),
         Traits{.onnx = "Softsign"}, Doc{"x / (1 + |x|)"})

namespace unary {
// tanh(log(1 + exp(x))), without a logarithm: with e = exp(x) it is (e^2 + 2e) / (e^2 + 2e + 2).
inline double mish_gate(double x) {
  if (x > 20) return 1;  // to the last bit of a double
  const double e = std::exp(x), n = e * (e + 2);
  return n / (n + 2);
}

template <typename T>
struct Mish {
  static constexpr bool kExact = false;
  explicit Mish(const Attrs&) {}
  static kernels::Function kernel() { return kernels::Function::mish; }
  T operator()(T v) const {
    if constexpr (std::is_same_v<T, float>) return by_kernel(kernel(), v);
    const double x = v;
    return static_cast<T>(x * mish_gate(x));
  }
};
}  // namespace unary

// y = x * tanh(log(1 + exp(x))) (Misra 2019).
OCTET_OP(mish, "mish(x) -> y", QRule::own, OCTET_UNARY(Mish), slope([](auto x, auto, auto dy) {
           const double gate = unary::mish_gate(x), sigmoid = 1 / (1 + std::exp(-double(x)));
           return dy * (gate + x * (1 - gate * gate) * sigmoid);
         }),
         Traits{.onnx = "Mish", .onnx_form = "Mul(x, Tanh(Softplus(x)))"},
         Doc{"x * tanh(log(1 + exp(x)))"})

// y = x where x > threshold, else value.
OCTET_OP(threshold, "threshold(x, *, threshold, value) -> y", QRule::own, OCTET_UNARY(Threshold),
         slope_of([](const Attrs& a) {
           return [limit = a.get_double("threshold")](auto x, auto, auto dy) {
             return x > limit ? dy : 0;
           };
         }),
         Doc{"x where x > threshold, else value"})

// e to the power x.
OCTET_OP(exp, "exp(x) -> y", QRule::own, OCTET_UNARY(Exp),
         slope([](auto, auto y, auto dy) { return dy * y; }),
         Traits{.wide_range = true, .onnx = "Exp"}, Doc{"e to the power x"})

// Natural logarithm; NaN below 0.
OCTET_OP(log, "log(x) -> y", QRule::own, OCTET_UNARY(Log),
         slope([](auto x, auto, auto dy) { return dy / x; }),
         Traits{.wide_range = true, .onnx = "Log"}, Doc{"natural logarithm"})

// Square root; NaN below 0.
OCTET_OP(sqrt, "sqrt(x) -> y", QRule::own, OCTET_UNARY(Sqrt),
         slope([](auto, auto y, auto dy) { return dy / (2 * y); }),
         Traits{.wide_range = true, .onnx = "Sqrt"}, Doc{"square root"})

// y = 1 / sqrt(x).
OCTET_OP(rsqrt, "rsqrt(x) -> y", QRule::own, OCTET_UNARY(Rsqrt),
         slope([](auto, auto y, auto dy) { return dy * y * y * y * decltype(y)(-0.5); }),
         Traits{.wide_range = true, .onnx_form = "Reciprocal(Sqrt(x))"}, Doc{"1 / sqrt(x)"})

// y = 1 / x.
OCTET_OP(reciprocal, "reciprocal(x) -> y", QRule::own, OCTET_UNARY(Reciprocal),
         slope([](auto, auto y, auto dy) { return -dy * y * y; }),
         Traits{.wide_range = true, .onnx = "Reciprocal"}, Doc{"1 / x"})

// The error function.
OCTET_OP(erf, "erf(x) -> y", QRule::own, OCTET_UNARY(Erf), slope([](auto x, auto, auto dy) {
           return dy * 1.1283791670955126 * std::exp(-static_cast<double>(x) * x);
         }),
         Traits{.onnx = "Erf"}, Doc{"error function"})

// Sine and cosine of x in radians.
OCTET_OP(sin, "sin(x) -> y", QRule::own, OCTET_UNARY(Sin),
         slope([](auto x, auto, auto dy) { return dy * std::cos(x); }), Traits{.onnx = "Sin"},
         Doc{"sine, x in radians"})
OCTET_OP(cos, "cos(x) -> y", QRule::own, OCTET_UNARY(Cos),
         slope([](auto x, auto, auto dy) { return -dy * std::sin(x); }), Traits{.onnx = "Cos"},
         Doc{"cosine, x in radians"})

// Tangent of x in radians, and the inverse functions: angles in radians, NaN outside -1..1.
OCTET_OP(tan, "tan(x) -> y", QRule::own, OCTET_UNARY(Tan),
         slope([](auto, auto y, auto dy) { return dy * (1 + y * y); }),
         Traits{.wide_range = true, .onnx = "Tan"}, Doc{"tangent, x in radians"})
OCTET_OP(asin, "asin(x) -> y", QRule::own, OCTET_UNARY(Asin),
         slope([](auto x, auto, auto dy) { return dy / std::sqrt(1 - x * x); }),
         Traits{.onnx = "Asin"}, Doc{"the angle in radians whose sine is x"})
OCTET_OP(acos, "acos(x) -> y", QRule::own, OCTET_UNARY(Acos),
         slope([](auto x, auto, auto dy) { return -dy / std::sqrt(1 - x * x); }),
         Traits{.onnx = "Acos"}, Doc{"the angle in radians whose cosine is x"})
OCTET_OP(atan, "atan(x) -> y", QRule::own, OCTET_UNARY(Atan),
         slope([](auto x, auto, auto dy) { return dy / (1 + x * x); }), Traits{.onnx = "Atan"},
         Doc{"the angle in radians whose tangent is x"})

// The hyperbolic functions and their inverses; acosh is NaN below 1, atanh outside -1..1.
OCTET_OP(sinh, "sinh(x) -> y", QRule::own, OCTET_UNARY(Sinh),
         slope([](auto x, auto, auto dy) { return dy * std::cosh(x); }),
         Traits{.wide_range = true, .onnx = "Sinh"}, Doc{"hyperbolic sine"})
OCTET_OP(cosh, "cosh(x) -> y", QRule::own, OCTET_UNARY(Cosh),
         slope([](auto x, auto, auto dy) { return dy * std::sinh(x); }),
         Traits{.wide_range = true, .onnx = "Cosh"}, Doc{"hyperbolic cosine"})
OCTET_OP(asinh, "asinh(x) -> y", QRule::own, OCTET_UNARY(Asinh),
         slope([](auto x, auto, auto dy) { return dy / std::sqrt(1 + x * x); }),
         Traits{.onnx = "Asinh"}, Doc{"inverse hyperbolic sine"})
OCTET_OP(acosh, "acosh(x) -> y", QRule::own, OCTET_UNARY(Acosh),
         slope([](auto x, auto, auto dy) { return dy / std::sqrt(x * x - 1); }),
         Traits{.onnx = "Acosh"}, Doc{"inverse hyperbolic cosine"})
OCTET_OP(atanh, "atanh(x) -> y", QRule::own, OCTET_UNARY(Atanh),
         slope([](auto x, auto, auto dy) { return dy / (1 - x * x); }),
         Traits{.wide_range = true, .onnx = "Atanh"}, Doc{"inverse hyperbolic tangent"})

// y = -x. Integers wrap.
OCTET_OP(neg, "neg(x) -> y", QRule::own, OCTET_UNARY(Neg),
         slope([](auto, auto, auto dy) { return -dy; }), Traits{.onnx = "Neg"}, Doc{"-x"})

// |x|. Integers wrap.
OCTET_OP(abs, "abs(x) -> y", QRule::own, OCTET_UNARY(Abs), slope([](auto x, auto, auto dy) {
           return x > 0 ? dy : x < 0 ? -dy : 0;
         }),
         Traits{.onnx = "Abs"}, Doc{"absolute value"})

// -1, 0 or 1; NaN stays NaN.
OCTET_OP(sign, "sign(x) -> y", QRule::own, OCTET_UNARY(Sign), flat(), Traits{.onnx = "Sign"},
         Doc{"-1, 0 or 1"})

// To whole numbers: down, up, and to the nearest with halves to even. Integers pass unchanged.
OCTET_OP(floor, "floor(x) -> y", QRule::own, OCTET_UNARY(Floor), flat(), Traits{.onnx = "Floor"},
         Doc{"largest whole number <= x"})
OCTET_OP(ceil, "ceil(x) -> y", QRule::own, OCTET_UNARY(Ceil), flat(), Traits{.onnx = "Ceil"},
         Doc{"smallest whole number >= x"})
OCTET_OP(round, "round(x) -> y", QRule::own, OCTET_UNARY(Round), flat(), Traits{.onnx = "Round"},
         Doc{"nearest whole number, halves to even"})

// y = (x == 0), bool.
OCTET_OP(logical_not, "logical_not(x) -> y", QRule::own,
         infer([](const Types& t) { return TensorType(DType::bool_, t[0].dims); }),
         widened([](const Call& c) {
           Tensor y = Tensor::empty(c[0].shape(), DType::bool_, nullptr, format_of(c[0]));
           visit_arithmetic(c[0].dtype(), "logical_not", [&](auto zero) {
             using T = decltype(zero);
             map_into<T, bool>(c[0], y, [](T v) { return v == T(0); });
           });
           return y;
         }),
         Traits{.onnx = "Not"}, Doc{"whether x is 0"})

}  // namespace octet::ops
