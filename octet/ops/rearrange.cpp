// Operators that rearrange channels and pixels, and the bilinear layer.
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

// A reordering of elements given by views of x's elements; channels lose their places, so
// per-channel codes go through float.
Tensor rearranged(const Call& c, const std::function<Tensor(const Tensor&)>& views) {
  const Tensor& x = c[0];
  if (x.is_quantized() && x.quantizer()->axis() > 0) return through_float(c);
  return as_result(with_quantizer(fresh(views(elements(x))), x.quantizer()), c.outputs()[0]);
}

int64_t positive(const Types& t, const char* name) {
  const int64_t v = t.attrs().get_int(name);
  OCTET_CHECK(v >= 1, invalid_argument, "{}: {}={}; expected 1 or more", t.op().name(), name, v);
  return v;
}

Tensor unshuffle(const Tensor& x, int64_t r) {
  const int64_t n = x.size(0), c = x.size(1), h = x.size(2) / r, w = x.size(3) / r;
  return x.reshape({n, c, h, r, w, r}).permute({0, 1, 3, 5, 2, 4}).reshape({n, c * r * r, h, w});
}

Tensor shuffle_channels(const Tensor& x, int64_t groups) {
  Shape split = x.shape();
  split[1] = groups;
  split.insert(split.begin() + 2, x.size(1) / groups);
  std::vector<int64_t> order(split.size());
  for (size_t d = 0; d < order.size(); ++d) order[d] = static_cast<int64_t>(d);
  std::swap(order[1], order[2]);
  return x.reshape(split).permute(order).reshape(x.shape());
}

TensorType infer_bilinear(const Types& t) {
  const TensorType &a = t[0], &b = t[1], &w = t[2];
  OCTET_CHECK(w.dim() == 3 && w.is_static() && a.dim() >= 1 && a.dim() == b.dim(), invalid_argument,
              "bilinear: expected x1 (..., in1), x2 (..., in2) and weight (out, in1, in2), got {}, "
              "{} and {}",
              to_string(a), to_string(b), to_string(w));
  for (size_t i = 0; i < t.size(); ++i)
    OCTET_CHECK(!t.has(i) || t[i].dtype == DType::float32, invalid_argument,
                "bilinear: {} is {}; expected float32", t.op().params()[i].name, to_string(t[i]));
  OCTET_CHECK(a.dims.back() == w.dims[1] && b.dims.back() == w.dims[2], invalid_argument,
              "bilinear: x1 and x2 have {} and {} features; weight {} expects {} and {}",
              to_string(a.dims.back()), to_string(b.dims.back()), to_string(w),
              to_string(w.dims[1]), to_string(w.dims[2]));
  if (t.has(3))
    OCTET_CHECK(t[3].dim() == 1 && t[3].dims[0] == w.dims[0], invalid_argument,
                "bilinear: bias {}: expected one value for each of the {} outputs", to_string(t[3]),
                to_string(w.dims[0]));
  std::vector<Dim> dims = a.dims;
  for (size_t d = 0; d + 1 < dims.size(); ++d) {
    OCTET_CHECK(dims[d] == b.dims[d] || !dims[d].known() || !b.dims[d].known(), invalid_argument,
                "bilinear: x1 {} and x2 {} differ before their features", to_string(a),
                to_string(b));
    if (!dims[d].known()) dims[d] = b.dims[d];
  }
  dims.back() = w.dims[0];
  return TensorType(DType::float32, std::move(dims));
}

Tensor rows_of(const Tensor& x) { return x.contiguous().reshape({-1, x.size(-1)}); }
Tensor matmul(const Tensor& a, const Tensor& b) { return call("matmul", {a, b}); }
// a (N, I) and b (N, J) as (N, I*J): all products of a row of one with the same row of the other.
Tensor products(const Tensor& a, const Tensor& b) {
  return call("mul", {a.unsqueeze(2), b.unsqueeze(1)}).reshape({a.size(0), a.size(1) * b.size(1)});
}

Tensor eval_bilinear(const Call& c) {
  const Tensor& w = c[2];
  const Shape shape = c.outputs()[0].shape();
  if (numel(shape) == 0) return Tensor::empty(shape);
  Tensor y = matmul(products(rows_of(c[0]), rows_of(c[1])),
                    w.reshape({w.size(0), w.size(1) * w.size(2)}).transpose(0, 1));
  if (c.has(3)) y = call("add", {y, c[3]});
  return y.reshape(shape);
}

std::vector<Tensor> bilinear_gradients(const Grad& g) {
  const Tensor &w = g[2], a = rows_of(g[0]), b = rows_of(g[1]), dy = rows_of(g.dy());
  const int64_t n = a.size(0), i = w.size(1), j = w.size(2);
  std::vector<Tensor> result(g.size());
  if (g.needs(0) || g.needs(1)) {
    // (N, I, J): dy through the weight
    Tensor through = matmul(dy, w.reshape({w.size(0), i * j})).reshape({n, i, j});
    if (g.needs(0)) result[0] = matmul(through, b.unsqueeze(2)).reshape(g[0].shape());
    if (g.needs(1)) result[1] = matmul(a.unsqueeze(1), through).reshape(g[1].shape());
  }
  if (g.needs(2)) result[2] = matmul(dy.transpose(0, 1), products(a, b)).reshape(w.shape());
  if (g.needs(3)) result[3] = sum_to(dy, g[3].shape());
  return result;
}

}  // namespace

// (N, C, H*r, W*r) to (N, C*r*r, H, W), the inverse of pixel_shuffle, with r = downscale_factor.
OCTET_OP(pixel_unshuffle, "pixel_unshuffle(x, *, downscale_factor) -> y", QRule::same,
         infer([](const Types& t) {
           const int64_t r = positive(t, "downscale_factor");
           const std::vector<Dim>& x = t[0].dims;
           auto divides = [&](const Dim& d) { return !d.known() || d.size() % r == 0; };
           OCTET_CHECK(x.size() == 4 && divides(x[2]) && divides(x[3]), invalid_argument,
                       "pixel_unshuffle: the operand has shape {}; expected (N, C, H*{}, W*{})",
                       dims_text(x), r, r);
           auto part = [&](const Dim& d) {
             return d.known() ? Dim(d.size() / r)
                    : r == 1  ? d
                              : Dim(fmt::format("[{}/{}]", d.name(), r));
           };
           return moved(t, {x[0], multiply(x[1], Dim(r * r)), part(x[2]), part(x[3])},
                        [](int64_t axis) { return axis == 0 ? axis : -1; });
         }),
         eval([](const Call& c) {
           return rearranged(c, [&](const Tensor& x) {
             return unshuffle(x, c.attrs().get_int("downscale_factor"));
           });
         }),
         gradient([](const Grad& g) {
           return call("pixel_shuffle", {g.dy()},
                       {{"upscale_factor", g.attrs().get_int("downscale_factor")}});
         }),
         Traits{.moves = true}, Doc{"(N, C, H*r, W*r) to (N, C*r*r, H, W)"})

// The channels of (N, C, ...) as (groups, C/groups) transposed: channel g*C/groups + k moves to
// k*groups + g.
OCTET_OP(
    channel_shuffle, "channel_shuffle(x, *, groups) -> y", QRule::same, infer([](const Types& t) {
      const int64_t groups = positive(t, "groups");
      const std::vector<Dim>& x = t[0].dims;
      OCTET_CHECK(
          x.size() >= 2 && x[1].known() && x[1].size() % groups == 0, invalid_argument,
          "channel_shuffle: the operand has shape {}; expected (N, C, ...) with C a multiple of {}",
          dims_text(x), groups);
      return moved(t, x, [](int64_t axis) { return axis == 1 ? -1 : axis; });
    }),
    eval([](const Call& c) {
      return rearranged(
          c, [&](const Tensor& x) { return shuffle_channels(x, c.attrs().get_int("groups")); });
    }),
    gradient([](const Grad& g) {
      return shuffle_channels(g.dy(), g[0].size(1) / g.attrs().get_int("groups"));
    }),
    Traits{.moves = true}, Doc{"the channels of groups interleaved"})

// y_o = x1^T W_o x2 + b_o.
OCTET_OP(bilinear, "bilinear(x1, x2, weight, bias?) -> y", QRule::float_only,
         Doc{"y[o] = x1 * weight[o] * x2 + bias[o]; weight is (out, in1, in2)"},
         infer(infer_bilinear), eval(eval_bilinear), gradients(bilinear_gradients))

}  // namespace octet::ops
