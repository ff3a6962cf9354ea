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

// Rows along `dim`: exponentials relative to the largest element and their sum in double, in order; rounded once.
template <bool logarithm>
Tensor softmax_rows(const Call& c) {
  Tensor x = c[0].contiguous();
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  const std::string& who = c.op().name();
  int64_t dim = normalize_dim(c.attrs().get_int("dim"), x.dim(), who);
  int64_t n = x.dim() ? x.size(dim) : 1, inner = 1;
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= x.size(d);
  if (x.numel() == 0) return y;
  visit_float(x.dtype(), who, [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_ranges(x.numel() / n, std::max<int64_t>(1, kGrain / 8 / n), [&](int64_t begin, int64_t end) {
      const kernels::KernelTable& table = kernels::table();
      std::vector<double> exps(n);
      std::vector<T> strided(inner == 1 ? 0 : n);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t base = row / inner * inner * n + row % inner;
        const T* p = in + base;
        T* q = out + base;
        T most = p[0];
        for (int64_t j = 1; j < n; ++j) most = p[j * inner] > most ? p[j * inner] : most;
        // A row of -inf alone has no distribution: NaN, as the formula says.
        double sum = 0, top = static_cast<double>(most);
        if constexpr (std::is_same_v<T, float>) {
          if (inner == 1) sum = table.exp_sum(p, most, exps.data(), n);
          else {
            for (int64_t j = 0; j < n; ++j) strided[j] = p[j * inner];
            sum = table.exp_sum(strided.data(), most, exps.data(), n);
          }
        } else {
          for (int64_t j = 0; j < n; ++j) {
            exps[j] = std::exp(static_cast<double>(p[j * inner]) - top);
            sum += exps[j];
          }
        }
        if (logarithm) {
          double shift = top + std::log(sum);
          for (int64_t j = 0; j < n; ++j) q[j * inner] = static_cast<T>(static_cast<double>(p[j * inner]) - shift);
        } else {
          double scale = 1 / sum;
          for (int64_t j = 0; j < n; ++j) q[j * inner] = static_cast<T>(exps[j] * scale);
        }
      }
    });
  });
  return y;
}

}  // namespace

// y = exp(x) / sum of exp(x) along `dim`. Quantized: scale 1/256, zero point 0 (qint8: -128) unless others are given.
OCTET_OP(softmax, "softmax(x, *, dim=-1) -> y", QRule::fixed, softmax_type(), widened(softmax_rows<false>),
         gradient([](const Grad& g) {  // y * (dy - sum of y*dy)
           Tensor part = g.y() * g.dy();
           return part - g.y() * call("sum", {part}, {{"dim", std::vector<int64_t>{g.attrs().get_int("dim")}}});
         }),
         Doc{"exp(x) / sum of exp(x) along dim"})

// y = log(softmax(x)).
OCTET_OP(log_softmax, "log_softmax(x, *, dim=-1) -> y", QRule::own, softmax_type(), widened(softmax_rows<true>),
         gradient([](const Grad& g) {  // dy - softmax * sum of dy
           Tensor dy = g.dy();
           return dy - call("exp", {g.y()}) * call("sum", {dy}, {{"dim", std::vector<int64_t>{g.attrs().get_int("dim")}}});
         }),
         Doc{"log of softmax along dim"})

}  // namespace octet::ops
