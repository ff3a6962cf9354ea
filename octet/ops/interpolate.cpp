#include <algorithm>
#include <cmath>

#include "octet/engine/resize_impl.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

using namespace engine_detail;

// y[..., j, ...] = the weighted sum of the taps of j along `dim`.
Tensor blend(const Tensor& input, int64_t dim, int64_t n_out, const ResizeTaps& taps) {
  Tensor x = input.contiguous();
  Shape shape = x.shape();
  const int64_t n_in = shape[dim];
  shape[dim] = n_out;
  Tensor y = Tensor::empty(shape, x.dtype());
  if (y.numel() == 0) return y;
  int64_t inner = 1;
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= shape[d];
  visit_float(x.dtype(), "interpolate", [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const std::vector<T> weights(taps.weight.begin(), taps.weight.end());
    parallel_ranges(y.numel() / inner, std::max<int64_t>(1, kGrain / inner),
                    [&](int64_t begin, int64_t end) {
                      int64_t j = begin % n_out;
                      const T* block = in + begin / n_out * n_in * inner;
                      for (int64_t r = begin; r < end; ++r) {
                        const int64_t* index = taps.index.data() + j * taps.count;
                        const T* w = weights.data() + j * taps.count;
                        T* __restrict q = out + r * inner;
                        if (taps.count == 2) {
                          const T *a = block + index[0] * inner, *b = block + index[1] * inner;
                          for (int64_t i = 0; i < inner; ++i) q[i] = w[0] * a[i] + w[1] * b[i];
                        } else if (taps.count == 4) {
                          const T *a = block + index[0] * inner, *b = block + index[1] * inner,
                                  *c = block + index[2] * inner, *d = block + index[3] * inner;
                          for (int64_t i = 0; i < inner; ++i)
                            q[i] = w[0] * a[i] + w[1] * b[i] + w[2] * c[i] + w[3] * d[i];
                        } else {
                          std::fill_n(q, inner, T(0));
                          for (int64_t k = 0; k < taps.count; ++k) {
                            const T* a = block + index[k] * inner;
                            for (int64_t i = 0; i < inner; ++i) q[i] += w[k] * a[i];
                          }
                        }
                        if (++j == n_out) {
                          j = 0;
                          block += n_in * inner;
                        }
                      }
                    });
  });
  return y;
}

TensorType infer_interpolate(const Types& t) {
  const ResizeModes modes(t.attrs());
  if (!modes.nearest()) need_floating(t);
  std::vector<Dim> dims;
  for (const Resize& r : resizes(t[0].dims, t.attrs())) {
    const Dim& from = t[0].dims[dims.size()];
    OCTET_CHECK(from != Dim(0) || r.out == Dim(0), invalid_argument,
                "interpolate: cannot resize an empty dimension of {}", dims_text(t[0].dims));
    dims.push_back(r.out);
  }
  return moved(t, dims, [&](int64_t axis) { return dims[axis] == t[0].dims[axis] ? axis : -1; });
}

TensorType open_interpolate(const Types& t) {
  const bool by_size = t.attrs().operand("size").has_value();
  const int64_t rank = t[0].dim(), given = t.count(by_size ? "size" : "scales");
  std::vector<Dim> dims(rank, unknown());
  const auto sizes = by_size ? t.sizes("size") : std::nullopt;
  for (int64_t d = 0; d < rank; ++d) {
    if (d < rank - given)
      dims[d] = t[0].dims[d];
    else if (sizes &&
             (!(*sizes)[d - rank + given].name().empty() || (*sizes)[d - rank + given].known()))
      dims[d] = (*sizes)[d - rank + given];
  }
  return moved(t, dims, [&](int64_t axis) { return dims[axis] == t[0].dims[axis] ? axis : -1; });
}

// The last two dimensions at once: of each position the sum of four elements, whose weights are
// products.
Tensor blend_joint(const Tensor& operand, const std::vector<Resize>& plan,
                   const ResizeModes& modes) {
  const Tensor x = operand.contiguous();
  const int64_t rows_in = x.size(-2), columns_in = x.size(-1);
  const int64_t rows = plan[plan.size() - 2].out.size(), columns = plan.back().out.size();
  const engine_detail::ResizePairs down = engine_detail::resize_pairs(rows_in, rows,
                                                                      plan[plan.size() - 2], modes),
                                   along = engine_detail::resize_pairs(columns_in, columns,
                                                                       plan.back(), modes);
  Shape shape = x.shape();
  shape[shape.size() - 2] = rows;
  shape.back() = columns;
  Tensor y = Tensor::empty(shape, x.dtype());
  if (y.numel() == 0) return y;
  visit_float(x.dtype(), "interpolate", [&](auto zero) {
    using T = decltype(zero);
    parallel_ranges(y.numel() / columns, std::max<int64_t>(1, kGrain / columns),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t r = begin; r < end; ++r) {
                        const T* plane = x.data<T>() + r / rows * rows_in * columns_in;
                        const T *a = plane + down.first[r % rows] * columns_in,
                                *b = plane + down.second[r % rows] * columns_in;
                        const float wa = down.first_weight[r % rows],
                                    wb = down.second_weight[r % rows];
                        for (int64_t j = 0; j < columns; ++j) {
                          const int64_t p = along.first[j], q = along.second[j];
                          const float wp = along.first_weight[j], wq = along.second_weight[j];
                          y.data<T>()[r * columns + j] = T(wp * wa) * a[p] + T(wq * wa) * a[q] +
                                                         T(wp * wb) * b[p] + T(wq * wb) * b[q];
                        }
                      }
                    });
  });
  return y;
}

// One dimension after another, the last first: of a bilinear resize, rows are blended before
// columns.
Tensor eval_interpolate(const Call& c) {
  const Tensor& x = c[0];
  const ResizeModes modes(c.attrs());
  const std::vector<Resize> plan = resizes(x.type().dims, c.attrs());
  Tensor y = elements(x);
  if (engine_detail::is_joint(plan, modes))
    return as_result(with_quantizer(blend_joint(y, plan, modes), x.quantizer()), c.outputs()[0]);
  for (int64_t d = x.dim(); d-- > 0;) {
    const Resize& r = plan[d];
    if (!r.changes) continue;
    const int64_t n_in = x.size(d), n_out = r.out.size();
    if (!modes.nearest()) {
      y = blend(y, d, n_out, resize_taps(n_in, n_out, r, modes));
      continue;
    }
    y = take(y, d, nearest_index(n_in, n_out, r, modes));
  }
  if (modes.crops()) {
    y = y.is_contiguous() ? y.clone() : y.contiguous();
    for (int64_t d = 0; d < x.dim(); ++d)
      for (int64_t j = 0; plan[d].changes && j < y.size(d); ++j)
        if (shows_outside(j, x.size(d), y.size(d), plan[d], modes))
          y.select(d, j).copy_from(Tensor::scalar(c.attrs().get_double("extrapolation"), y.dtype())
                                       .expand(y.select(d, j).shape()));
  }
  return as_result(with_quantizer(fresh(y), x.quantizer()), c.outputs()[0]);
}

// The steps of eval_interpolate backwards, each transposed.
Tensor interpolate_gradient(const Grad& g) {
  const Tensor& x = g[0];
  const ResizeModes modes(g.attrs());
  OCTET_CHECK(!modes.crops(), unsupported, "interpolate: no gradient with coordinates=\"{}\"",
              modes.coordinates);
  const std::vector<Resize> plan = resizes(x.type().dims, g.attrs());
  Tensor dx = g.dy();
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (!plan[d].changes) continue;
    const int64_t n_in = x.size(d), n_out = plan[d].out.size();
    if (modes.nearest()) {
      dx = take_gradient(dx, d, nearest_index(n_in, n_out, plan[d], modes), n_in);
      continue;
    }
    const ResizeTaps t = resize_taps(n_in, n_out, plan[d], modes);
    Tensor sum;
    for (int64_t k = 0; k < t.count; ++k) {
      std::vector<int64_t> index(n_out);
      Tensor weight = Tensor::empty({n_out}, DType::float64);
      for (int64_t j = 0; j < n_out; ++j) {
        index[j] = t.index[j * t.count + k];
        weight.data<double>()[j] = t.weight[j * t.count + k];
      }
      Shape along(x.dim() - d, 1);
      along[0] = n_out;
      Tensor part = take_gradient(dx * weight.to(dx.dtype()).reshape(along), d, index, n_in);
      sum = sum.defined() ? sum + part : part;
    }
    dx = sum;
  }
  return dx;
}

}  // namespace

// x resized to `size`, or by `scales` (sizes are rounded down): one number per dimension, or per
// dimension but the first two; a size of -1 stays. With both, the result has `size` and positions
// are computed from `scales`. coordinates: where position i of the result lies in x, as in ONNX's
// Resize: "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"
// or "tf_crop_and_resize" (the part of x between the fractions roi: all beginnings, then all ends;
// what lies outside x is `extrapolation`). mode: "nearest" (nearest_rounding: "round_prefer_floor",
// "round_prefer_ceil", "floor", "ceil"; PyTorch's nearest is "asymmetric" with "floor"), "linear"
// or "cubic" (cubic_coeff; exclude_outside: elements beyond the edge get no weight instead of the
// edge's value). antialias: linear and cubic weights are stretched by as much as a dimension is
// made smaller. joint: linear along the last two dimensions at once in float32, as ONNX Runtime,
// where only they change. Quantized: nearest copies codes, the others go through float32; qparams
// unchanged.
OCTET_OP(interpolate,
         "interpolate(x, *, size=[], scales=[], mode=\"nearest\", coordinates=\"half_pixel\", "
         "nearest_rounding=\"round_prefer_floor\", cubic_coeff=-0.75, exclude_outside=false, "
         "antialias=false, joint=false, roi=[], extrapolation=0.) -> y",
         QRule::same, infer(infer_interpolate), widened(eval_interpolate),
         open_attrs({{"size", AttrKind::integers},
                     {"scales", AttrKind::numbers},
                     {"roi", AttrKind::numbers}},
                    open_interpolate),
         quantized([](const Call& c) {
           const ResizeModes modes(c.attrs());
           bool copies = modes.nearest() && !modes.crops() && c[0].is_quantized();
           if (copies && c[0].quantizer()->is_per_channel() &&
               c.outputs()[0].dims[c[0].quantizer()->axis()] !=
                   Dim(c[0].size(c[0].quantizer()->axis())))
             copies = false;
           return copies ? eval_interpolate(c) : through_float(c);
         }),
         gradient(interpolate_gradient),
         Doc{"x resized to size or by scales; mode: \"nearest\", \"linear\" or \"cubic\""})

}  // namespace octet::ops
