#pragma once
// What the gradients of operators are written with.

#include <string>
#include <vector>

#include "octet/ops/define_impl.h"
#include "octet/ops/functional.h"
#include "octet/ops/iterate_impl.h"

namespace octet::ops {

// dx = fn(x, y, dy) element by element; x, y and dy have one shape. The result lies in memory as x
// does.
template <typename Fn>
Tensor zip_gradient(const Tensor& x, const Tensor& y, const Tensor& dy, std::string_view who,
                    Fn fn) {
  Tensor dx = Tensor::empty(x.shape(), x.dtype(), nullptr, format_of(x));
  visit_float(x.dtype(), who, [&](auto zero) {
    using T = decltype(zero);
    const T *px = x.data<T>(), *py = y.data<T>(), *pdy = dy.data<T>();
    T* out = dx.data<T>();
    Walk<4>(x.shape(), {dx.strides(), x.strides(), y.strides(), dy.strides()})
        .run([=](const auto& at, int64_t n, const auto& step) {
          const T* __restrict a = px + at[1];
          const T* __restrict b = py + at[2];
          const T* __restrict d = pdy + at[3];
          T* __restrict o = out + at[0];
          if (step[0] == 1 && step[1] == 1 && step[2] == 1 && step[3] == 1) {
            for (int64_t i = 0; i < n; ++i) o[i] = fn(a[i], b[i], d[i]);
          } else {
            for (int64_t i = 0; i < n; ++i)
              o[i * step[0]] = fn(a[i * step[1]], b[i * step[2]], d[i * step[3]]);
          }
        });
  });
  return dx;
}

// The gradient before the fused activation ("none", "relu", "relu6") that gave y.
inline Tensor before_activation(const Tensor& dy, const Tensor& y, const std::string& activation) {
  if (activation == "none") return dy;
  if (activation == "relu")
    return zip_gradient(y, y, dy, "relu",
                        [](auto v, auto, auto d) { return v > 0 ? d : decltype(d)(0); });
  return zip_gradient(y, y, dy, "relu6",
                      [](auto v, auto, auto d) { return v > 0 && v < 6 ? d : decltype(d)(0); });
}
// dy() before the activation attribute of the call, if it has one.
inline Tensor plain_dy(const Grad& g) {
  return g.attrs().has("activation")
             ? before_activation(g.dy(), g.y(), g.attrs().get_string("activation"))
             : g.dy();
}

inline Tensor number_like(const Tensor& x, double value) {
  return Tensor::scalar(value, x.dtype());
}
inline Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  return call("where", {condition, a, b});
}
// A bool tensor: "equal", "greater", "less" ...
inline Tensor compare(const char* op, const Tensor& a, const Tensor& b) { return call(op, {a, b}); }

}  // namespace octet::ops
