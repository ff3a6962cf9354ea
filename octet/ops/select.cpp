// Operators that choose or rearrange elements: triangles, the largest elements, pixel_shuffle.
#include <algorithm>
#include <numeric>

#include "octet/ops/define_impl.h"
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

// -- triangles ------------------------------------------------------------------------------------

TensorType triangle_type(const Types& t) {
  OCTET_CHECK(t[0].dim() >= 2, invalid_argument,
              "{}: the operand has shape {}; expected matrices (..., rows, columns)", t.op().name(),
              dims_text(t[0].dims));
  return t.result(t[0].dims, t[0].dtype);
}

// Keeps the upper or lower triangle of the last two dimensions; the rest becomes 0 (codes: the zero
// point).
template <bool upper>
Tensor triangle(const Call& c) {
  if (c[0].is_quantized() && c[0].quantizer()->is_per_channel()) return through_float(c);
  Tensor y = c[0].clone();
  const int64_t rows = y.size(-2), columns = y.size(-1), diagonal = c.attrs().get_int("diagonal");
  visit_bits(y.dtype(), [&](auto sample) {
    using T = decltype(sample);
    const T zero = static_cast<T>(y.is_quantized() ? y.q_zero_point() : 0);
    auto* data = static_cast<T*>(y.raw_data());
    parallel_ranges(columns ? y.numel() / columns : 0,
                    std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns)),
                    [=](int64_t begin, int64_t end) {
                      for (int64_t r = begin; r < end; ++r) {
                        // Columns before `edge` lie below the diagonal (with tril: columns from
                        // `edge` on above it).
                        int64_t row = r % rows, edge = row + diagonal + (upper ? 0 : 1);
                        edge = std::clamp<int64_t>(edge, 0, columns);
                        T* p = data + r * columns;
                        if (upper)
                          std::fill(p, p + edge, zero);
                        else
                          std::fill(p + edge, p + columns, zero);
                      }
                    });
  });
  return as_result(y, c.outputs()[0]);
}

// With a diagonal that an operand gives: the same type.
OpenAttrs open_diagonal() { return open_attrs({{"diagonal", AttrKind::integer}}, triangle_type); }

// -- topk -----------------------------------------------------------------------------------------

std::vector<TensorType> infer_topk(const Types& t) {
  int64_t k = t.attrs().get_int("k");
  OCTET_CHECK(t[0].dim() > 0, invalid_argument, "topk: the operand has no dimensions");
  int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "topk");
  std::vector<Dim> dims = t[0].dims;
  OCTET_CHECK(k >= 0 && (!dims[dim].known() || k <= dims[dim].size()), invalid_argument,
              "topk: k={} along dimension {} of {}", k, dim, dims_text(dims));
  dims[dim] = Dim(k);
  TensorType values = t.result(dims, t[0].dtype);
  OCTET_CHECK(t.want() || !values.is_quantized() || values.quantizer->axis() != dim,
              invalid_argument,
              "topk: the operand is quantized per channel along dimension {}, whose codes do not "
              "compare: dequantize it",
              dim);
  return {values, TensorType(DType::int64, dims)};
}

std::vector<TensorType> open_topk(const Types& t) {
  OCTET_CHECK(t[0].dim() > 0, invalid_argument, "topk: the operand has no dimensions");
  std::vector<Dim> dims = t[0].dims;
  const auto k = t.sizes("k");
  dims[normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "topk")] =
      k && k->size() == 1 ? (*k)[0] : unknown();
  return {moved(t, dims, [](int64_t) { return -1; }), TensorType(DType::int64, dims)};
}

std::vector<Tensor> eval_topk(const Call& c) {
  Tensor x = c[0].contiguous();
  const DType half = x.dtype();
  const int64_t k = c.attrs().get_int("k"),
                dim = normalize_dim(c.attrs().get_int("dim"), x.dim(), "topk");
  if (half == DType::float16 || half == DType::bfloat16) x = x.to(DType::float32);
  if (x.is_quantized() && x.quantizer()->axis() == dim) return through_float_all(c);
  const bool largest = c.attrs().get_bool("largest");
  Shape shape = x.shape();
  const int64_t n = shape[dim];
  shape[dim] = k;
  Tensor values = Tensor::empty(shape, x.dtype(), x.quantizer()),
         indices = Tensor::empty(shape, DType::int64);
  int64_t inner = 1;
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= shape[d];
  visit_any(x.dtype(), "topk", [&](auto zero) {
    using T = decltype(zero);
    const auto* in = static_cast<const T*>(x.raw_data());
    auto* out = static_cast<T*>(values.raw_data());
    auto* places = indices.data<int64_t>();
    parallel_ranges(k ? values.numel() / k : 0,
                    std::max<int64_t>(1, kGrain / 8 / std::max<int64_t>(1, n)),
                    [&](int64_t begin, int64_t end) {
                      std::vector<int64_t> order(n);
                      for (int64_t row = begin; row < end; ++row) {
                        const T* p = in + row / inner * inner * n + row % inner;
                        std::iota(order.begin(), order.end(), int64_t{0});
                        // NaN counts as the largest number; of equals the first comes first.
                        auto better = [&](int64_t i, int64_t j) {
                          T a = p[i * inner], b = p[j * inner];
                          bool nan_a = a != a, nan_b = b != b;
                          if (nan_a != nan_b) return nan_a == largest;
                          if (a != b && !nan_a) return largest ? a > b : a < b;
                          return i < j;
                        };
                        std::partial_sort(order.begin(), order.begin() + k, order.end(), better);
                        int64_t at = row / inner * inner * k + row % inner;
                        for (int64_t i = 0; i < k; ++i, at += inner) {
                          out[at] = p[order[i] * inner];
                          places[at] = order[i];
                        }
                      }
                    });
  });
  if (values.dtype() != half) values = values.to(half);
  return {as_result(values, c.outputs()[0]), indices};
}

// The same triangle of dy.
Gradient triangle_gradient(const char* op) {
  return gradient([op](const Grad& g) {
    return call(op, {g.dy()}, {{"diagonal", g.attrs().get_int("diagonal")}});
  });
}

// The values' gradients go to where they came from.
Tensor topk_gradient(const Grad& g) {
  const Tensor& x = g[0];
  int64_t dim = normalize_dim(g.attrs().get_int("dim"), x.dim(), "topk");
  Tensor dx = Tensor::zeros(x.shape(), x.dtype()), dy = g.dy().contiguous(),
         index = g.y(1).contiguous();
  int64_t k = dy.size(dim), n = x.size(dim), inner = 1;
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= x.size(d);
  visit_float(x.dtype(), "topk", [&](auto zero) {
    using T = decltype(zero);
    const T* in = dy.data<T>();
    const int64_t* at = index.data<int64_t>();
    T* out = dx.data<T>();
    for (int64_t i = 0; i < dy.numel(); ++i)
      out[(i / (inner * k) * n + at[i]) * inner + i % inner] += in[i];
  });
  return dx;
}

}  // namespace

// The upper and lower triangle of matrices: element (r, c) stays where c - r >= diagonal (tril:
// <=), else it is 0.
OCTET_OP(triu, "triu(x, *, diagonal=0) -> y", QRule::same, infer(triangle_type),
         eval(triangle<true>), open_diagonal(), triangle_gradient("triu"), Traits{.selects = true},
         Doc{"upper triangle of the last two dimensions"})
OCTET_OP(tril, "tril(x, *, diagonal=0) -> y", QRule::same, infer(triangle_type),
         eval(triangle<false>), open_diagonal(), triangle_gradient("tril"), Traits{.selects = true},
         Doc{"lower triangle of the last two dimensions"})

// The k largest (or smallest) elements along `dim`, best first, and their indices (int64); of
// equals the first. Quantized: on codes, qparams unchanged.
OCTET_OP(topk, "topk(x, *, k, dim=-1, largest=true) -> values, indices", QRule::same,
         infer_many(infer_topk), eval_many(eval_topk), gradient(topk_gradient),
         open_attrs_many({{"k", AttrKind::integer}}, open_topk),
         Doc{"the k largest or smallest elements along dim, and their indices"})

// (N, C*r*r, H, W) to (N, C, H*r, W*r): y[n, c, h*r+i, w*r+j] = x[n, c*r*r + i*r + j, h, w] with r
// = upscale_factor.
OCTET_OP(
    pixel_shuffle, "pixel_shuffle(x, *, upscale_factor) -> y", QRule::same,
    infer([](const Types& t) {
      int64_t r = t.attrs().get_int("upscale_factor");
      const std::vector<Dim>& x = t[0].dims;
      OCTET_CHECK(r >= 1 && x.size() == 4 && (!x[1].known() || x[1].size() % (r * r) == 0),
                  invalid_argument,
                  "pixel_shuffle: the operand has shape {}; expected (N, C*{}, H, W)", dims_text(x),
                  r * r);
      Dim channels = x[1].known() ? Dim(x[1].size() / (r * r))
                     : r == 1     ? x[1]
                                  : Dim(fmt::format("[{}/{}]", x[1].name(), r * r));
      return moved(t, {x[0], channels, multiply(x[2], Dim(r)), multiply(x[3], Dim(r))},
                   [](int64_t axis) { return axis == 0 ? axis : -1; });
    }),
    eval([](const Call& c) {
      const Tensor& x = c[0];
      const int64_t r = c.attrs().get_int("upscale_factor"), n = x.size(0), k = x.size(1) / (r * r),
                    h = x.size(2), w = x.size(3);
      if (x.is_quantized() && x.quantizer()->axis() > 0) return through_float(c);
      Tensor y = elements(x)
                     .reshape({n, k, r, r, h, w})
                     .permute({0, 1, 4, 2, 5, 3})
                     .reshape({n, k, h * r, w * r});
      return as_result(with_quantizer(y, x.quantizer()), c.outputs()[0]);
    }),
    gradient([](const Grad& g) {
      const int64_t r = g.attrs().get_int("upscale_factor"), n = g[0].size(0), k = g.y().size(1),
                    h = g[0].size(2), w = g[0].size(3);
      return g.dy().reshape({n, k, h, r, w, r}).permute({0, 1, 3, 5, 2, 4}).reshape(g[0].shape());
    }),
    Traits{.moves = true}, Doc{"(N, C*r*r, H, W) to (N, C, H*r, W*r)"})

}  // namespace octet::ops
