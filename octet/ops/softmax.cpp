#include <algorithm>
#include <cmath>

#include "octet/kernels/kernels.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/gradient_impl.h"
#include "octet/ops/iterate_impl.h"

namespace octet::ops {
namespace {

Infer softmax_type() {
  return infer([](const Types& t) {
    need_floating(t);
    normalize_dim(t.attrs().get_int("dim"), t[0].dim(), t.op().name());
    return t.result(t[0].dims, plain_dtype(t[0]));
  });
}

// Calls row(p, q, n) for every row along `dim`, gathered where its elements do not lie together.
template <typename T, typename Row>
Tensor by_rows(const Call& c, const Row& row) {
  Tensor x = c[0].contiguous();
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  int64_t dim = normalize_dim(c.attrs().get_int("dim"), x.dim(), c.op().name());
  int64_t n = x.dim() ? x.size(dim) : 1, inner = 1;
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= x.size(d);
  if (x.numel() == 0) return y;
  const T* in = x.data<T>();
  T* out = y.data<T>();
  parallel_ranges(x.numel() / n, std::max<int64_t>(1, kGrain / 8 / n),
                  [&](int64_t begin, int64_t end) {
                    std::vector<T> gathered(inner == 1 ? 0 : n), result(gathered.size());
                    for (int64_t i = begin; i < end; ++i) {
                      const int64_t base = i / inner * inner * n + i % inner;
                      if (inner == 1) {
                        row(in + base, out + base, n);
                        continue;
                      }
                      for (int64_t j = 0; j < n; ++j) gathered[j] = in[base + j * inner];
                      row(gathered.data(), result.data(), n);
                      for (int64_t j = 0; j < n; ++j) out[base + j * inner] = result[j];
                    }
                  });
  return y;
}

// float64: in double, in order. float32: the kernel's exponentials.
Tensor softmax_rows(const Call& c) {
  if (c[0].dtype() == DType::float32)
    return by_rows<float>(
        c, [](const float* p, float* q, int64_t n) { kernels::table().softmax(p, q, n); });
  OCTET_CHECK(c[0].dtype() == DType::float64, unsupported,
              "softmax: operand of dtype {}; expected a float one", to_string(c[0].dtype()));
  return by_rows<double>(c, [](const double* p, double* q, int64_t n) {
    const double top = *std::max_element(p, p + n);
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += q[j] = std::exp(p[j] - top);
    for (int64_t j = 0; j < n; ++j) q[j] /= sum;
  });
}

// x - log(sum of exp(x)), both in double.
Tensor log_softmax_rows(const Call& c) {
  if (c[0].dtype() == DType::float32)
    return by_rows<float>(c, [](const float* p, float* q, int64_t n) {
      std::vector<double> exps(n);
      const float top = *std::max_element(p, p + n);
      const double shift =
          static_cast<double>(top) + std::log(kernels::table().exp_sum(p, top, exps.data(), n));
      for (int64_t j = 0; j < n; ++j) q[j] = static_cast<float>(static_cast<double>(p[j]) - shift);
    });
  OCTET_CHECK(c[0].dtype() == DType::float64, unsupported,
              "log_softmax: operand of dtype {}; expected a float one", to_string(c[0].dtype()));
  return by_rows<double>(c, [](const double* p, double* q, int64_t n) {
    const double top = *std::max_element(p, p + n);
    double sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += std::exp(p[j] - top);
    const double shift = top + std::log(sum);
    for (int64_t j = 0; j < n; ++j) q[j] = p[j] - shift;
  });
}

}  // namespace

// y = exp(x) / sum of exp(x) along `dim`. Quantized: scale 1/256, zero point 0 (qint8: -128) unless
// others are given.
OCTET_OP(softmax, "softmax(x, *, dim=-1) -> y", QRule::fixed, softmax_type(), widened(softmax_rows),
         gradient([](const Grad& g) {  // y * (dy - sum of y*dy)
           Tensor part = g.y() * g.dy();
           return part - g.y() * call("sum", {part},
                                      {{"dim", std::vector<int64_t>{g.attrs().get_int("dim")}}});
         }),
         Traits{.computes_in_float = true, .fixed_scale = 1.0 / 256},
         Doc{"exp(x) / sum of exp(x) along dim"})

// y = log(softmax(x)).
OCTET_OP(log_softmax, "log_softmax(x, *, dim=-1) -> y", QRule::own, softmax_type(),
         widened(log_softmax_rows),
         gradient([](const Grad& g) {  // dy - softmax * sum of dy
           Tensor dy = g.dy();
           return dy -
                  call("exp", {g.y()}) *
                      call("sum", {dy}, {{"dim", std::vector<int64_t>{g.attrs().get_int("dim")}}});
         }),
         Traits{.computes_in_float = true}, Doc{"log of softmax along dim"})

}  // namespace octet::ops
