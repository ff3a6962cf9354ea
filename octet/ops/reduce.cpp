#include <cmath>
#include <limits>

#include "octet/ops/define_impl.h"
#include "octet/ops/gradient_impl.h"
#include "octet/ops/iterate_impl.h"
#include "octet/tensor/affine.h"

namespace octet::ops {
namespace {

// -- dimensions -----------------------------------------------------------------------------------

// Which dimensions `dim` names; all if it is empty.
std::vector<bool> reduced_dims(const Attrs& attrs, int64_t rank, const std::string& who) {
  const std::vector<int64_t>& dims = attrs.get_ints("dim");
  std::vector<bool> reduced(rank, dims.empty());
  for (int64_t d : dims) {
    int64_t at = normalize_dim(d, rank, who);
    if (rank == 0) continue;
    OCTET_CHECK(!reduced[at], invalid_argument, "{}: dimension {} is given twice", who, d);
    reduced[at] = true;
  }
  return reduced;
}

std::vector<Dim> reduced_shape(const std::vector<Dim>& dims, const std::vector<bool>& reduced,
                               bool keepdim) {
  std::vector<Dim> result;
  for (size_t d = 0; d < dims.size(); ++d) {
    if (!reduced[d])
      result.push_back(dims[d]);
    else if (keepdim)
      result.emplace_back(1);
  }
  return result;
}

// Where the channel axis goes: -1 if it is reduced.
int64_t reduced_axis(int64_t axis, const std::vector<bool>& reduced, bool keepdim) {
  if (reduced[axis]) return -1;
  int64_t before = 0;
  for (int64_t d = 0; d < axis; ++d) before += reduced[d] && !keepdim;
  return axis - before;
}

Infer reduced_type(bool floating) {
  return infer([floating](const Types& t) {
    const std::string& who = t.op().name();
    if (floating) need_floating(t);
    std::vector<bool> reduced = reduced_dims(t.attrs(), t[0].dim(), who);
    bool keepdim = t.attrs().get_bool("keepdim");
    return moved(t, reduced_shape(t[0].dims, reduced, keepdim),
                 [&](int64_t axis) { return reduced_axis(axis, reduced, keepdim); });
  });
}

// Over dimensions that an operand names.
OpenAttrs open_dims() {
  return open_attrs({{"dim", AttrKind::integers}}, [](const Types& t) {
    const int64_t named = t.count("dim"), rank = t[0].dim();
    const bool keepdim = t.attrs().get_bool("keepdim");
    const int64_t left = keepdim ? rank : named == 0 ? 0 : rank - named;
    OCTET_CHECK(left >= 0, invalid_argument, "{}: {} dimensions to reduce of {}", t.op().name(),
                named, dims_text(t[0].dims));
    return moved(t, std::vector<Dim>(left, unknown()), [](int64_t) { return -1; });
  });
}

// -- loops ----------------------------------------------------------------------------------------

// For every element i of the result, out(i, each, count): each(fn) calls fn on the `count` elements
// that are reduced to it, always in row-major order, so that results do not depend on layout and
// threads.
template <typename T, typename Out>
void for_each_result(const Tensor& x, const std::vector<bool>& reduced, Out&& out) {
  Shape kept, inner;
  std::vector<int64_t> kept_strides, inner_strides;
  for (int64_t d = 0; d < x.dim(); ++d) {
    (reduced[d] ? inner : kept).push_back(x.shape()[d]);
    (reduced[d] ? inner_strides : kept_strides).push_back(x.strides()[d]);
  }
  const Walk<1> elements(inner, {inner_strides}, false);
  const auto* data = static_cast<const T*>(x.raw_data());
  const int64_t count = numel(inner);
  parallel_ranges(numel(kept), std::max<int64_t>(1, kGrain / std::max<int64_t>(1, count)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      int64_t offset = 0, rest = i;
                      for (size_t d = kept.size(); d-- > 0; rest /= kept[d])
                        offset += rest % kept[d] * kept_strides[d];
                      auto each = [&](auto&& fn) {
                        elements.each_row(
                            [&](const auto& at, int64_t n, const auto& step) {
                              const T* p = data + at[0];
                              for (int64_t j = 0; j < n; ++j) fn(p[j * step[0]]);
                            },
                            {offset});
                      };
                      out(i, each, count);
                    }
                  });
}

template <typename T>
using Sum = std::conditional_t<std::is_integral_v<T>, uint64_t, double>;  // integers wrap

template <typename T>
bool is_nan(T v) {
  return v != v;
}

// The kernels' order (KernelTable::sum): sixteen sums, of element i modulo 16, whose upper half is
// added to the lower until one is left.
template <typename T, typename Each>
Sum<T> sum_of(const Each& each) {
  Sum<T> sums[16] = {};
  size_t i = 0;
  each([&](T v) { sums[i++ % 16] += static_cast<Sum<T>>(v); });
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}

// Functions of (each, count) giving a T.
struct SumOf {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t) {
    return static_cast<T>(sum_of<T>(each));
  }
};
struct MeanOf {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t count) {
    const Sum<T> sum = sum_of<T>(each);
    if constexpr (std::is_integral_v<T>)
      return count ? static_cast<T>(static_cast<int64_t>(sum) / count) : T(0);
    else
      return static_cast<T>(sum / static_cast<double>(count));
  }
};
struct ProdOf {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t) {
    Sum<T> product = 1;
    each([&](T v) { product *= static_cast<Sum<T>>(v); });
    return static_cast<T>(product);
  }
};
struct L1Of {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t) {
    Sum<T> sum = 0;
    each([&](T v) { sum += v < 0 ? Sum<T>(0) - static_cast<Sum<T>>(v) : static_cast<Sum<T>>(v); });
    return static_cast<T>(sum);
  }
};
struct SumSquareOf {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t) {
    Sum<T> sum = 0;
    each([&](T v) { sum += static_cast<Sum<T>>(v) * static_cast<Sum<T>>(v); });
    return static_cast<T>(sum);
  }
};
struct L2Of {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t) {
    double sum = 0;
    each([&](T v) { sum += static_cast<double>(v) * static_cast<double>(v); });
    return static_cast<T>(std::sqrt(sum));
  }
};
struct LogSumOf {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t) {
    double sum = 0;
    each([&](T v) { sum += static_cast<double>(v); });
    return static_cast<T>(std::log(sum));
  }
};
struct LogSumExpOf {
  template <typename T, typename Each>
  static T of(const Each& each, int64_t) {
    double most = -std::numeric_limits<double>::infinity(), sum = 0;
    each([&](T v) { most = v > most || is_nan(v) ? static_cast<double>(v) : most; });
    if (!std::isfinite(most)) return static_cast<T>(most);
    each([&](T v) { sum += std::exp(static_cast<double>(v) - most); });
    return static_cast<T>(most + std::log(sum));
  }
};

template <typename F>
Eval reducing() {
  return widened([](const Call& c) {
    const Tensor& x = c[0];
    const std::string& who = c.op().name();
    Tensor y = Tensor::empty(c.outputs()[0].shape(), x.dtype());
    visit_arithmetic(x.dtype(), who, [&](auto zero) {
      using T = decltype(zero);
      T* out = y.data<T>();
      for_each_result<T>(x, reduced_dims(c.attrs(), x.dim(), who),
                         [out](int64_t i, const auto& each, int64_t count) {
                           out[i] = F::template of<T>(each, count);
                         });
    });
    return y;
  });
}

// -- extremes: on the elements as they are, codes too ---------------------------------------------

template <bool largest>
Tensor extreme(const Call& c) {
  const std::string& who = c.op().name();
  const TensorType& out = c.outputs()[0];
  const Tensor& x = c[0];
  if (x.dtype() == DType::float16 || x.dtype() == DType::bfloat16) {
    Call wide(c.op(), {x.to(DType::float32)}, c.attrs(), {TensorType(DType::float32, out.dims)});
    return as_result(extreme<largest>(wide).to(x.dtype()), out);
  }
  std::vector<bool> reduced = reduced_dims(c.attrs(), x.dim(), who);
  QuantizerPtr quantizer = x.quantizer();
  if (quantizer && quantizer->is_per_channel()) {
    int64_t axis = reduced_axis(quantizer->axis(), reduced, c.attrs().get_bool("keepdim"));
    if (axis < 0) return through_float(c);  // codes of several channels do not compare
    quantizer = quantizer->with_axis(axis);
  }
  Tensor y = Tensor::empty(out.shape(), x.dtype(), quantizer);
  visit_any(x.dtype(), who, [&](auto zero) {
    using T = decltype(zero);
    T* data = y.data<T>();
    for_each_result<T>(x, reduced, [&](int64_t i, const auto& each, int64_t count) {
      OCTET_CHECK(count > 0, invalid_argument, "{}: no elements to reduce in shape {}", who,
                  to_string(x.shape()));
      bool first = true;
      T best{};
      each([&](T v) {
        if (first || (largest ? v > best : v < best) || is_nan(v)) best = v;
        first = false;
        // A NaN stays: no comparison with it is true.
      });
      data[i] = best;
    });
  });
  return as_result(y, out);
}

Infer arg_type() {
  return infer([](const Types& t) {
    std::vector<bool> reduced(t[0].dim());
    int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), t.op().name());
    if (!reduced.empty()) reduced[dim] = true;
    return TensorType(DType::int64,
                      reduced_shape(t[0].dims, reduced, t.attrs().get_bool("keepdim")));
  });
}

template <bool largest>
Tensor arg_extreme(const Call& c) {
  const std::string& who = c.op().name();
  Tensor x = c[0];
  bool by_value = x.dtype() == DType::float16 || x.dtype() == DType::bfloat16 ||
                  (x.is_quantized() && x.quantizer()->is_per_channel());
  if (by_value) x = x.dequantize();
  std::vector<bool> reduced(x.dim());
  int64_t dim = normalize_dim(c.attrs().get_int("dim"), x.dim(), who);
  if (!reduced.empty()) reduced[dim] = true;
  bool last = c.attrs().get_bool("select_last");
  Tensor y = Tensor::empty(c.outputs()[0].shape(), DType::int64);
  int64_t* out = y.data<int64_t>();
  visit_any(x.dtype(), who, [&](auto zero) {
    using T = decltype(zero);
    for_each_result<T>(x, reduced, [&](int64_t i, const auto& each, int64_t count) {
      OCTET_CHECK(count > 0, invalid_argument, "{}: no elements along dimension {} of shape {}",
                  who, dim, to_string(x.shape()));
      int64_t index = 0, best_index = 0;
      T best{};
      each([&](T v) {
        bool better = (largest ? v > best : v < best) || (is_nan(v) && !is_nan(best));
        if (index == 0 || better || (last && v == best)) best = v, best_index = index;
        ++index;
      });
      out[i] = best_index;
    });
  });
  return y;
}

// -- mean on codes --------------------------------------------------------------------------------

// y = clamp(rne(f(f(sum of (q - z)) * m)) + z_y); m = f(1/count), or f(f(s_x * f(1/count)) / s_y)
// for other qparams.
Tensor mean_codes(const Call& c) {
  const Tensor& x = c[0];
  const TensorType& out = c.outputs()[0];
  if (!is_affine(x.type()) || !is_affine(out)) return through_float(c);
  std::vector<bool> reduced = reduced_dims(c.attrs(), x.dim(), "mean");
  Tensor codes = Tensor::empty(out.shape(), DType::int32);
  auto* y = codes.data<int32_t>();
  auto sx = static_cast<float>(x.q_scale()), sy = static_cast<float>(out.quantizer->scale());
  auto zy = static_cast<int32_t>(out.quantizer->zero_point());
  auto lo = static_cast<int32_t>(qmin(out.dtype)), hi = static_cast<int32_t>(qmax(out.dtype));
  int64_t zx = x.q_zero_point();
  bool unchanged = same_qparams(x, out);
  visit_any(x.dtype(), "mean", [&](auto zero) {
    using T = decltype(zero);
    for_each_result<T>(x, reduced, [&](int64_t i, const auto& each, int64_t count) {
      int64_t sum = -zx * count;
      each([&](T v) { sum += static_cast<int64_t>(v); });
      float m = 1.0f / static_cast<float>(count);
      if (!unchanged) m = (sx * m) / sy;
      y[i] = affine::round_and_clamp(static_cast<float>(sum) * m, zy, lo, hi);
    });
  });
  return make_quantized(codes.to(code_dtype(out.dtype)), out.quantizer);
}

// -- gradients ------------------------------------------------------------------------------------

// A result of the call (or its gradient), with the reduced dimensions back and repeated along them.
Tensor spread(const Grad& g, const Tensor& y) {
  const Tensor& x = g[0];
  std::vector<bool> reduced = reduced_dims(g.attrs(), x.dim(), g.call().op().name());
  Shape shape = x.shape();
  for (size_t d = 0; d < shape.size(); ++d)
    if (reduced[d]) shape[d] = 1;
  return y.reshape(shape).expand(x.shape());
}

// dx = dy * slope(x, y) with y and dy spread over the reduced dimensions.
template <typename Fn>
Gradient reducing_gradient(Fn fn) {
  return gradient([fn](const Grad& g) {
    return zip_gradient(g[0], spread(g, g.y()), spread(g, g.dy()), g.call().op().name(), fn);
  });
}

// The elements that equal the extreme share its gradient evenly, as in PyTorch.
Tensor extreme_gradient(const Grad& g) {
  Tensor equal = compare("equal", g[0], spread(g, g.y())).to(g[0].dtype());
  Tensor count = call("sum", {equal}, {{"dim", g.attrs().get_ints("dim")}});
  return equal * (spread(g, g.dy()) / count);
}

// The product of the others: of all of them but the one element that is 0, if there is just one.
Tensor prod_gradient(const Grad& g) {
  const Tensor& x = g[0];
  Attrs dims{{"dim", g.attrs().get_ints("dim")}};
  Tensor zero = number_like(x, 0), is_zero = compare("equal", x, zero), ones = number_like(x, 1);
  Tensor zeros = call("sum", {is_zero.to(x.dtype())}, dims),
         others = call("prod", {where(is_zero, ones, x)}, dims);
  Tensor slope =
      where(is_zero, where(compare("equal", zeros, ones), others, zero),
            where(compare("equal", zeros, zero), others / where(is_zero, ones, x), zero));
  return spread(g, g.dy()) * slope;
}

}  // namespace

// Means over the dimensions `dim` (none given: all). Integers divide toward zero. Quantized: exact
// integer sums, y = clamp(rne(f(f(sum of (q - z)) * f(1/count))) + z), qparams unchanged unless
// others are given.
OCTET_OP(mean, "mean(x, *, dim=[], keepdim=true) -> y", QRule::same, Traits{.averages = true},
         reduced_type(false), open_dims(), reducing<MeanOf>(), quantized(mean_codes),
         gradient([](const Grad& g) {
           auto count = static_cast<double>(g[0].numel()) /
                        static_cast<double>(std::max<int64_t>(1, g.y().numel()));
           return spread(g, g.dy() * (1 / count));
         }),
         Doc{"mean over dim (all if empty)"})

// Sums and products over `dim`, in float64 (integers: wrapping) and an order that does not depend
// on layout.
OCTET_OP(sum, "sum(x, *, dim=[], keepdim=true) -> y", QRule::own, reduced_type(false), open_dims(),
         reducing<SumOf>(), gradient([](const Grad& g) { return spread(g, g.dy()); }),
         Doc{"sum over dim (all if empty)"})
OCTET_OP(prod, "prod(x, *, dim=[], keepdim=true) -> y", QRule::own, reduced_type(false),
         open_dims(), reducing<ProdOf>(), gradient(prod_gradient), Traits{.wide_range = true},
         Doc{"product over dim (all if empty)"})

// The largest and smallest element over `dim`; NaN if there is one. Quantized: on codes, qparams
// unchanged.
OCTET_OP(amax, "amax(x, *, dim=[], keepdim=true) -> y", QRule::same, reduced_type(false),
         open_dims(), eval(extreme<true>), gradient(extreme_gradient), Traits{.selects = true},
         Doc{"largest element over dim (all if empty)"})
OCTET_OP(amin, "amin(x, *, dim=[], keepdim=true) -> y", QRule::same, reduced_type(false),
         open_dims(), eval(extreme<false>), gradient(extreme_gradient), Traits{.selects = true},
         Doc{"smallest element over dim (all if empty)"})

// sum |x|, sqrt(sum x^2), sum x^2, log(sum x), log(sum exp(x)) over `dim`.
OCTET_OP(reduce_l1, "reduce_l1(x, *, dim=[], keepdim=true) -> y", QRule::own, reduced_type(false),
         open_dims(), reducing<L1Of>(), reducing_gradient([](auto x, auto, auto dy) {
           return x > 0 ? dy : x < 0 ? -dy : 0;
         }),
         Doc{"sum of |x| over dim"})
OCTET_OP(reduce_l2, "reduce_l2(x, *, dim=[], keepdim=true) -> y", QRule::own, reduced_type(false),
         open_dims(), reducing<L2Of>(),
         reducing_gradient([](auto x, auto y, auto dy) { return y != 0 ? dy * x / y : 0; }),
         Doc{"square root of the sum of x*x over dim"})
OCTET_OP(sum_square, "sum_square(x, *, dim=[], keepdim=true) -> y", QRule::own, reduced_type(false),
         open_dims(), reducing<SumSquareOf>(),
         reducing_gradient([](auto x, auto, auto dy) { return dy * x * 2; }),
         Traits{.wide_range = true}, Doc{"sum of x*x over dim"})
OCTET_OP(log_sum, "log_sum(x, *, dim=[], keepdim=true) -> y", QRule::own, reduced_type(true),
         open_dims(), reducing<LogSumOf>(),
         reducing_gradient([](auto, auto y, auto dy) { return dy / std::exp(y); }),
         Traits{.wide_range = true}, Doc{"log of the sum over dim"})
OCTET_OP(log_sum_exp, "log_sum_exp(x, *, dim=[], keepdim=true) -> y", QRule::own,
         reduced_type(true), open_dims(), reducing<LogSumExpOf>(),
         reducing_gradient([](auto x, auto y, auto dy) { return dy * std::exp(x - y); }),
         Traits{.wide_range = true}, Doc{"log of the sum of exp(x) over dim, without overflow"})

// The index (int64) of the largest or smallest element along `dim`: the first of equals, or the
// last. Quantized: on codes.
OCTET_OP(argmax, "argmax(x, *, dim, keepdim=true, select_last=false) -> index", QRule::same,
         arg_type(), eval(arg_extreme<true>), Doc{"index of the largest element along dim"})
OCTET_OP(argmin, "argmin(x, *, dim, keepdim=true, select_last=false) -> index", QRule::same,
         arg_type(), eval(arg_extreme<false>), Doc{"index of the smallest element along dim"})

// y[i] = x[0] + ... + x[i] along `dim`.
OCTET_OP(cumsum, "cumsum(x, *, dim) -> y", QRule::own,
         open_attrs({{"dim", AttrKind::integer}},
                    [](const Types& t) { return t.result(t[0].dims, plain_dtype(t[0])); }),
         infer([](const Types& t) {
           normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "cumsum");
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) {
           Tensor x = c[0].contiguous();
           Tensor y = Tensor::empty(x.shape(), x.dtype());
           int64_t dim = normalize_dim(c.attrs().get_int("dim"), x.dim(), "cumsum");
           int64_t n = x.dim() ? x.size(dim) : 1, inner = 1;
           for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= x.size(d);
           visit_arithmetic(x.dtype(), "cumsum", [&](auto zero) {
             using T = decltype(zero);
             const T* in = x.data<T>();
             T* out = y.data<T>();
             for (int64_t row = 0, rows = n ? x.numel() / n : 0; row < rows; ++row) {
               int64_t at = row / inner * inner * n + row % inner;
               Sum<T> sum = 0;
               for (int64_t j = 0; j < n; ++j, at += inner) {
                 sum += static_cast<Sum<T>>(in[at]);
                 out[at] = static_cast<T>(sum);
               }
             }
           });
           return y;
         }),
         gradient([](const Grad& g) {  // the running sum from the end
           Tensor dy = g.dy();
           int64_t dim = normalize_dim(g.attrs().get_int("dim"), dy.dim(), "cumsum");
           Attrs backwards{{"dim", dim},
                           {"start", -1},
                           {"end", std::numeric_limits<int64_t>::min() / 2},
                           {"step", -1}};
           if (dy.dim() == 0) return dy;
           Tensor sum = call("cumsum", {call("slice", {dy}, backwards)}, {{"dim", dim}});
           return call("slice", {sum}, backwards);
         }),
         Traits{.wide_range = true}, Doc{"running sum along dim"})

}  // namespace octet::ops
