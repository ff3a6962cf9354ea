#include "octet/ops/elementwise_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

using namespace elementwise;

// -- types ----------------------------------------------------------------------------------------

void need_same_dtype(const Types& t, size_t i, size_t j) {
  OCTET_CHECK(plain_dtype(t[i]) == plain_dtype(t[j]), invalid_argument,
              "{}: operands are {} and {}; expected one dtype: convert one with to()",
              t.op().name(), to_string(t[i]), to_string(t[j]));
}

void need_activation(const Types& t) {
  const std::string& activation = t.attrs().get_string("activation");
  OCTET_CHECK(activation == "none" || activation == "relu" || activation == "relu6",
              invalid_argument, "{}: activation=\"{}\"; expected \"none\", \"relu\" or \"relu6\"",
              t.op().name(), activation);
}

// Dims broadcast, one dtype.
Infer binary_type() {
  return infer([](const Types& t) {
    need_same_dtype(t, 0, 1);
    need_want(t);
    if (t.attrs().has("activation")) need_activation(t);
    return t.result(broadcast(t[0].dims, t[1].dims, t.op().name()), plain_dtype(t[0]));
  });
}

// Dims broadcast; bool. Quantized operands are compared by value.
Infer compare_type() {
  return infer([](const Types& t) {
    need_same_dtype(t, 0, 1);
    return TensorType(DType::bool_, broadcast(t[0].dims, t[1].dims, t.op().name()));
  });
}

Infer logical_type() {
  return infer([](const Types& t) {
    return TensorType(DType::bool_, broadcast(t[0].dims, t[1].dims, t.op().name()));
  });
}

// -- evaluation -----------------------------------------------------------------------------------

Tensor empty_result(const Call& c, DType dtype) {
  Shape shape = c.outputs()[0].shape();
  return Tensor::empty(shape, dtype, nullptr, format_of(c[0], c[1], shape));
}

void activate(Tensor& y, const std::string& activation) {
  if (activation == "none") return;
  visit_arithmetic(y.dtype(), activation, [&](auto zero) {
    using T = decltype(zero);
    T high = activation == "relu6" ? T(6) : std::numeric_limits<T>::max();
    if constexpr (std::is_floating_point_v<T>)
      if (activation == "relu") high = std::numeric_limits<T>::infinity();
    T* out = y.data<T>();
    parallel_ranges(y.numel(), kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        out[i] = out[i] < T(0) ? T(0) : out[i] > high ? high : out[i];
    });
  });
}

template <typename F>
Eval binary() {
  return widened([](const Call& c) {
    Tensor y = empty_result(c, c[0].dtype());
    visit_arithmetic(y.dtype(), c.op().name(), [&](auto zero) {
      using T = decltype(zero);
      zip_into<T, T, T>(c[0], c[1], y, [](T a, T b) { return F::of(a, b); });
    });
    if (c.attrs().has("activation")) activate(y, c.attrs().get_string("activation"));
    return y;
  });
}

// For div and the remainders: integers must not be divided by 0.
template <typename F>
Eval dividing() {
  return widened([](const Call& c) {
    Tensor y = empty_result(c, c[0].dtype());
    visit_arithmetic(y.dtype(), c.op().name(), [&](auto zero) {
      using T = decltype(zero);
      if constexpr (std::is_integral_v<T>) {
        std::vector<T> divisors = c[1].to_vector<T>();
        OCTET_CHECK(std::find(divisors.begin(), divisors.end(), T(0)) == divisors.end(),
                    invalid_argument, "{}: integer division by zero", c.op().name());
      }
      zip_into<T, T, T>(c[0], c[1], y, [](T a, T b) { return F::of(a, b); });
    });
    return y;
  });
}

// `compare` is std::less<> and such.
template <typename F>
Eval comparing() {
  return widened([](const Call& c) {
    Tensor y = empty_result(c, DType::bool_);
    visit_arithmetic(c[0].dtype(), c.op().name(), [&](auto zero) {
      using T = decltype(zero);
      zip_into<T, T, bool>(c[0], c[1], y, [](T a, T b) { return F{}(a, b); });
    });
    return y;
  });
}

template <typename F>
Eval logical() {
  return eval([](const Call& c) {
    Tensor y = empty_result(c, DType::bool_);
    zip_into<bool, bool, bool>(c[0].to(DType::bool_), c[1].to(DType::bool_), y,
                               [](bool a, bool b) { return F{}(a, b); });
    return y;
  });
}

// Codes are compared where both operands and the result have the same qparams.
template <typename F>
Tensor extreme_codes(const Call& c) {
  const TensorType& out = c.outputs()[0];
  if (!same_qparams(c[0], out) || !same_qparams(c[1], out) || out.quantizer->is_per_channel())
    return through_float(c);
  Shape shape = out.shape();
  Tensor y = Tensor::empty(shape, out.dtype, out.quantizer, format_of(c[0], c[1], shape));
  visit_any(out.dtype, c.op().name(), [&](auto zero) {
    using T = decltype(zero);
    zip_into<T, T, T>(c[0], c[1], y, [](T a, T b) { return F::of(a, b); });
  });
  return y;
}

template <Kind kind>
Quantized on_codes() {
  return quantized([](const Call& c) {
    return codes<kind>(c,
                       c.attrs().has("activation") ? c.attrs().get_string("activation") : "none");
  });
}

// y = condition ? a : b, for elements of any dtype; a and b have the same one.
Tensor choose(const Tensor& condition, const Tensor& a, const Tensor& b, const TensorType& out) {
  Shape shape = out.shape();
  Tensor y = Tensor::empty(shape, a.dtype(), a.quantizer(), format_of(a, b, shape));
  Tensor mask = condition.to(DType::bool_);
  visit_bits(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto* pm = mask.data<bool>();
    const auto *pa = static_cast<const T*>(a.raw_data()), *pb = static_cast<const T*>(b.raw_data());
    auto* py = static_cast<T*>(y.raw_data());
    Walk<4> walk(shape, {y.strides(), mask.expand(shape).strides(), a.expand(shape).strides(),
                         b.expand(shape).strides()});
    walk.run([=](const auto& at, int64_t n, const auto& step) {
      for (int64_t i = 0; i < n; ++i)
        py[at[0] + i * step[0]] =
            pm[at[1] + i * step[1]] ? pa[at[2] + i * step[2]] : pb[at[3] + i * step[3]];
    });
  });
  return y;
}

// -- gradients ------------------------------------------------------------------------------------

// Of a function of two operands that broadcast: da and db give the gradients in the result's shape.
Gradient binary_gradient(std::function<Tensor(const Grad&, const Tensor& dy)> da,
                         std::function<Tensor(const Grad&, const Tensor& dy)> db) {
  return gradients([da = std::move(da), db = std::move(db)](const Grad& g) {
    Tensor dy = plain_dy(g);
    return std::vector<Tensor>{g.needs(0) ? sum_to(da(g, dy), g[0].shape()) : Tensor(),
                               g.needs(1) ? sum_to(db(g, dy), g[1].shape()) : Tensor()};
  });
}

// dy where `relation` ("greater", "less") holds between a and b, and half of it where they are
// equal, as in PyTorch.
Tensor share(const char* relation, const Tensor& a, const Tensor& b, const Tensor& dy) {
  return where(compare(relation, a, b), dy,
               where(compare("equal", a, b), dy * 0.5, number_like(dy, 0)));
}

// A prelu weight in the form that broadcasts to x.
Tensor prelu_weight(const Tensor& x, Tensor w) {
  if (w.numel() == 1) return w.reshape({});
  if (w.dim() != 1) return w;
  Shape shape(x.dim() - 1, 1);
  shape[0] = w.numel();
  return w.reshape(shape);
}

Tensor pass(const Grad&, const Tensor& dy) { return dy; }
Tensor negated(const Grad&, const Tensor& dy) { return -dy; }

}  // namespace

// y = activation(a + b). Quantized: y = clamp(rne(f(f(da + db) * f(1/s))) + z) with da, db
// dequantized; the activation narrows the clamp.
OCTET_OP(add, "add(a, b, *, activation=\"none\") -> y", QRule::own, binary_type(), binary<Add>(),
         on_codes<Kind::add>(), binary_gradient(pass, pass), Traits{.onnx = "Add"},
         Doc{"a + b, then activation: \"none\", \"relu\" or \"relu6\""})

// y = a - b. Quantized as add.
OCTET_OP(sub, "sub(a, b) -> y", QRule::own, binary_type(), binary<Sub>(), on_codes<Kind::sub>(),
         binary_gradient(pass, negated), Traits{.onnx = "Sub"}, Doc{"a - b"})

// y = activation(a * b). Quantized: y = clamp(rne(f(f((qa-za)*(qb-zb)) * m)) + z) with m =
// f(f(s_a*s_b) * f(1/s)).
OCTET_OP(mul, "mul(a, b, *, activation=\"none\") -> y", QRule::own, binary_type(), binary<Mul>(),
         on_codes<Kind::mul>(),
         binary_gradient([](const Grad& g, const Tensor& dy) { return dy * g[1]; },
                         [](const Grad& g, const Tensor& dy) { return dy * g[0]; }),
         Traits{.onnx = "Mul"}, Doc{"a * b, then activation: \"none\", \"relu\" or \"relu6\""})

// y = a / b; integers are divided toward zero, and dividing them by 0 is an Error.
OCTET_OP(div, "div(a, b) -> y", QRule::own, binary_type(), dividing<Div>(),
         binary_gradient([](const Grad& g, const Tensor& dy) { return dy / g[1]; },
                         [](const Grad& g, const Tensor& dy) { return -(dy * g.y() / g[1]); }),
         Traits{.wide_range = true, .onnx = "Div"}, Doc{"a / b; integers toward zero"})

// The remainder of a / b with the sign of a (C's fmod), and with the sign of b (Python's %).
OCTET_OP(fmod, "fmod(a, b) -> y", QRule::own, binary_type(), dividing<Fmod>(),
         Traits{.wide_range = true}, Doc{"remainder of a / b, sign of a"})
OCTET_OP(remainder, "remainder(a, b) -> y", QRule::own, binary_type(), dividing<Remainder>(),
         Traits{.wide_range = true}, Doc{"remainder of a / b, sign of b"})

// y = a to the power b, of a's dtype; b may be of another dtype.
OCTET_OP(pow, "pow(a, b) -> y", QRule::own, infer([](const Types& t) {
           need_want(t);
           return t.result(broadcast(t[0].dims, t[1].dims, "pow"), plain_dtype(t[0]));
         }),
         widened([](const Call& c) {
           const Tensor &a = c[0], &b = c[1];
           Tensor y = empty_result(c, a.dtype());
           visit_arithmetic(a.dtype(), "pow", [&](auto zero) {
             using T = decltype(zero);
             if (is_floating(b.dtype()) && std::is_integral_v<T>) {  // 2 ^ 0.5, truncated
               Tensor real = Tensor::empty(y.shape(), DType::float64);
               zip_into<T, double, double>(a, b.to(DType::float64), real, [](T p, double q) {
                 return std::pow(static_cast<double>(p), q);
               });
               y = real.to(y.dtype());
             } else if (is_floating(a.dtype()) && b.numel() == 1 &&
                        b.at(std::vector<int64_t>(static_cast<size_t>(b.dim()), 0)) == 2) {
               // the same number, rounded once too
               zip_into<T, T, T>(a, b.to(a.dtype()), y, [](T p, T) { return p * p; });
             } else {
               zip_into<T, T, T>(a, b.to(a.dtype()), y, [](T p, T q) { return Pow::of(p, q); });
             }
           });
           return y;
         }),
         binary_gradient(
             [](const Grad& g, const Tensor& dy) {  // b * a^(b-1), and 0 where b is 0
               Tensor b = g[1].to(g[0].dtype()), zero = number_like(b, 0);
               return dy * where(compare("equal", b, zero), zero, b * call("pow", {g[0], b - 1}));
             },
             // a^b * log(a), and 0 where a is 0 and b is not negative
             [](const Grad& g, const Tensor& dy) {
               const Tensor& a = g[0];
               Tensor zero = number_like(a, 0), b = g[1].to(a.dtype());
               Tensor flat = compare("logical_and", compare("equal", a, zero),
                                     compare("greater_equal", b, zero));
               return (dy * where(flat, zero, g.y() * call("log", {a}))).to(g[1].dtype());
             }),
         Traits{.wide_range = true, .onnx = "Pow"}, Doc{"a to the power b"})

// The larger and the smaller of a and b; NaN if either is. Quantized with one set of qparams: on
// codes.
OCTET_OP(maximum, "maximum(a, b) -> y", QRule::same, binary_type(), binary<Maximum>(),
         quantized(extreme_codes<Maximum>),
         binary_gradient(
             [](const Grad& g, const Tensor& dy) { return share("greater", g[0], g[1], dy); },
             [](const Grad& g, const Tensor& dy) { return share("greater", g[1], g[0], dy); }),
         Traits{.onnx = "Max"}, Doc{"the larger of a and b"})
OCTET_OP(
    minimum, "minimum(a, b) -> y", QRule::same, binary_type(), binary<Minimum>(),
    quantized(extreme_codes<Minimum>),
    binary_gradient([](const Grad& g, const Tensor& dy) { return share("less", g[0], g[1], dy); },
                    [](const Grad& g, const Tensor& dy) { return share("less", g[1], g[0], dy); }),
    Traits{.onnx = "Min"}, Doc{"the smaller of a and b"})

// y = a where condition is true (not 0), else b. All three broadcast.
OCTET_OP(where, "where(condition, a, b) -> y", QRule::own, infer([](const Types& t) {
           need_same_dtype(t, 1, 2);
           OCTET_CHECK(!t[0].is_quantized(), invalid_argument,
                       "where: the condition is {}; expected bool", to_string(t[0]));
           need_want(t);
           return t.result(broadcast(t[0].dims, broadcast(t[1].dims, t[2].dims, "where"), "where"),
                           plain_dtype(t[1]));
         }),
         eval([](const Call& c) { return choose(c[0], c[1], c[2], c.outputs()[0]); }),
         quantized([](const Call& c) {
           // Codes of the result's qparams, then a choice among them: what quantizing the numbers
           // that are chosen gives.
           const TensorType& out = c.outputs()[0];
           if (!is_affine(out) || !c[1].is_quantized() || !c[2].is_quantized())
             return through_float(c);
           const auto as_out = [&](const Tensor& x) {
             return same_qparams(x, out)
                        ? x
                        : call("requantize", {x}, {}, QType{out.dtype, out.quantizer});
           };
           return choose(c[0], as_out(c[1]), as_out(c[2]), out);
         }),
         gradients([](const Grad& g) {
           Tensor dy = g.dy(), zero = number_like(dy, 0);
           return std::vector<Tensor>{
               Tensor(), g.needs(1) ? sum_to(where(g[0], dy, zero), g[1].shape()) : Tensor(),
               g.needs(2) ? sum_to(where(g[0], zero, dy), g[2].shape()) : Tensor()};
         }),
         Traits{.onnx = "Where"}, Doc{"a where condition is true, else b"})

// Comparisons; the result is bool. Quantized operands are compared as the numbers they stand for.
OCTET_OP(equal, "equal(a, b) -> y", QRule::own, compare_type(), comparing<std::equal_to<>>(),
         Traits{.onnx = "Equal"}, Doc{"a == b"})
OCTET_OP(not_equal, "not_equal(a, b) -> y", QRule::own, compare_type(),
         comparing<std::not_equal_to<>>(), Traits{.onnx_form = "Not(Equal(a, b))"}, Doc{"a != b"})
OCTET_OP(greater, "greater(a, b) -> y", QRule::own, compare_type(), comparing<std::greater<>>(),
         Traits{.onnx = "Greater"}, Doc{"a > b"})
OCTET_OP(greater_equal, "greater_equal(a, b) -> y", QRule::own, compare_type(),
         comparing<std::greater_equal<>>(), Traits{.onnx = "GreaterOrEqual"}, Doc{"a >= b"})
OCTET_OP(less, "less(a, b) -> y", QRule::own, compare_type(), comparing<std::less<>>(),
         Traits{.onnx = "Less"}, Doc{"a < b"})
OCTET_OP(less_equal, "less_equal(a, b) -> y", QRule::own, compare_type(),
         comparing<std::less_equal<>>(), Traits{.onnx = "LessOrEqual"}, Doc{"a <= b"})

// Logic; what is not 0 is true, the result is bool.
OCTET_OP(logical_and, "logical_and(a, b) -> y", QRule::own, logical_type(),
         logical<std::logical_and<>>(), Traits{.onnx = "And"}, Doc{"a and b"})
OCTET_OP(logical_or, "logical_or(a, b) -> y", QRule::own, logical_type(),
         logical<std::logical_or<>>(), Traits{.onnx = "Or"}, Doc{"a or b"})
OCTET_OP(logical_xor, "logical_xor(a, b) -> y", QRule::own, logical_type(),
         logical<std::not_equal_to<>>(), Traits{.onnx = "Xor"}, Doc{"either a or b, not both"})

// y = x where x >= 0, else weight * x. A 1-d weight is one number, or one per channel (dimension
// 1), as in PyTorch; one of more dimensions broadcasts to x.
OCTET_OP(prelu, "prelu(x, weight) -> y", QRule::own, infer([](const Types& t) {
           need_floating(t);
           need_same_dtype(t, 0, 1);
           need_want(t);
           const std::vector<Dim>&x = t[0].dims, &w = t[1].dims;
           bool fits = true;
           if (w.size() == 1) {
             Dim channels = x.size() > 1 ? x[1] : Dim(1);
             fits = w[0] == Dim(1) || w[0] == channels || !w[0].known() || !channels.known();
           } else {
             std::vector<Dim> both = broadcast(x, w, "prelu");
             fits = both.size() == x.size();
             for (size_t d = 0; d < x.size() && fits; ++d) fits = both[d] == x[d] || !x[d].known();
           }
           OCTET_CHECK(fits, invalid_argument,
                       "prelu: weight has shape {}; expected 1 or one per channel (dim 1) of {}",
                       dims_text(w), dims_text(x));
           return t.result(x, plain_dtype(t[0]));
         }),
         widened([](const Call& c) {
           const Tensor& x = c[0];
           Tensor w = prelu_weight(x, c[1]);
           Tensor y = Tensor::empty(x.shape(), x.dtype(), nullptr, format_of(x));
           visit_float(x.dtype(), "prelu", [&](auto zero) {
             using T = decltype(zero);
             zip_into<T, T, T>(x, w, y, [](T v, T slope) { return v < 0 ? v * slope : v; });
           });
           return y;
         }),
         gradients([](const Grad& g) {
           Tensor dy = g.dy(), w = prelu_weight(g[0], g[1]), zero = number_like(dy, 0);
           Tensor positive = compare("greater", g[0], zero);
           return std::vector<Tensor>{
               g.needs(0) ? where(positive, dy, dy * w) : Tensor(),
               g.needs(1)
                   ? sum_to(where(positive, zero, dy * g[0]), w.shape()).reshape(g[1].shape())
                   : Tensor()};
         }),
         Traits{.computes_in_float = true},
         Doc{"x where x >= 0, else weight * x; weight: one number, or one per channel"})

}  // namespace octet::ops
