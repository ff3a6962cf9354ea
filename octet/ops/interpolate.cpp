#include <algorithm>
#include <cmath>

#include "octet/ops/define_impl.h"
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

// How one dimension is resized: position x of the result is at x * numerator / denominator (of the operand's elements),
// before the coordinate mode's shifts.
struct Resize {
  Dim out = Dim(1);
  bool changes = false;
  double numerator = 1, denominator = 1;
};

// size and scales: one per dimension, or one per dimension but the first two.
std::vector<Resize> resizes(const std::vector<Dim>& x, const Attrs& attrs) {
  const std::vector<int64_t> sizes =
      attrs.get_doubles("size").empty() ? std::vector<int64_t>{} : attrs.get_ints("size");
  const std::vector<double> scales = attrs.get_doubles("scales");
  OCTET_CHECK(sizes.empty() != scales.empty(), invalid_argument, "interpolate: give either size or scales");
  const size_t given = std::max(sizes.size(), scales.size());
  OCTET_CHECK(given == x.size() || given + 2 == x.size(), invalid_argument,
              "interpolate: {} sizes or scales for an operand of shape {}; expected {} (or one per dimension)", given,
              dims_text(x), x.size() < 2 ? x.size() : x.size() - 2);
  std::vector<Resize> result(x.size());
  for (size_t d = 0; d < x.size(); ++d) {
    Resize& r = result[d];
    r.out = x[d];
    if (d + given < x.size()) continue;
    const size_t i = d + given - x.size();
    if (!sizes.empty()) {
      OCTET_CHECK(sizes[i] >= -1, invalid_argument, "interpolate: size {}; expected 0 or more, or -1 to keep a size",
                  sizes[i]);
      if (sizes[i] < 0) continue;
      r.out = Dim(sizes[i]);
      r.changes = r.out != x[d];
      r.numerator = static_cast<double>(x[d].known() ? x[d].size() : 1);
      r.denominator = static_cast<double>(sizes[i]);
    } else {
      OCTET_CHECK(std::isfinite(scales[i]) && scales[i] > 0, invalid_argument,
                  "interpolate: scale {}; expected more than 0", scales[i]);
      r.changes = scales[i] != 1;
      r.denominator = scales[i];
      if (!r.changes) continue;
      if (x[d].known()) r.out = Dim(static_cast<int64_t>(std::floor(static_cast<double>(x[d].size()) * scales[i])));
      else if (scales[i] == std::floor(scales[i])) r.out = multiply(x[d], Dim(static_cast<int64_t>(scales[i])));
      else r.out = Dim(fmt::format("[{}*{}]", x[d].name(), scales[i]));
    }
  }
  return result;
}

struct Modes {
  std::string mode, coordinates, rounding;
  double cubic;
  bool exclude_outside;
  explicit Modes(const Attrs& a)
      : mode(a.get_string("mode")),
        coordinates(a.get_string("coordinates")),
        rounding(a.get_string("nearest_rounding")),
        cubic(a.get_double("cubic_coeff")),
        exclude_outside(a.get_bool("exclude_outside")) {
    auto need = [](const char* what, const std::string& value, std::initializer_list<const char*> known) {
      OCTET_CHECK(std::find(known.begin(), known.end(), value) != known.end(), invalid_argument,
                  "interpolate: {}=\"{}\"; expected one of {}", what, value, fmt::join(known, ", "));
    };
    need("mode", mode, {"nearest", "linear", "cubic"});
    need("coordinates", coordinates, {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"});
    need("nearest_rounding", rounding, {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  }
};

// Where position x of n_out lies among n_in elements. In double: positions of whole numbers are exact.
double position(int64_t x, int64_t n_in, int64_t n_out, const Resize& r, const std::string& coordinates) {
  auto v = static_cast<double>(x);
  if (coordinates == "align_corners")
    return n_out > 1 ? v * static_cast<double>(n_in - 1) / static_cast<double>(n_out - 1) : 0;
  if (coordinates == "asymmetric") return v * r.numerator / r.denominator;
  if (coordinates == "pytorch_half_pixel" && n_out <= 1) return 0;
  return (v + 0.5) * r.numerator / r.denominator - 0.5;
}

int64_t nearest(double at, const std::string& rounding) {
  if (rounding == "round_prefer_floor") return static_cast<int64_t>(std::ceil(at - 0.5));
  if (rounding == "round_prefer_ceil") return static_cast<int64_t>(std::floor(at + 0.5));
  return static_cast<int64_t>(rounding == "floor" ? std::floor(at) : std::ceil(at));
}

// The elements and weights that make up each position: 2 (linear) or 4 (cubic) of each.
struct Taps {
  int64_t count;
  std::vector<int64_t> index;
  std::vector<double> weight;
};

Taps taps(int64_t n_in, int64_t n_out, const Resize& r, const Modes& modes) {
  Taps t{modes.mode == "linear" ? 2 : 4, {}, {}};
  for (int64_t x = 0; x < n_out; ++x) {
    double at = position(x, n_in, n_out, r, modes.coordinates);
    if (t.count == 2) {
      at = std::clamp(at, 0.0, static_cast<double>(n_in - 1));
      auto first = static_cast<int64_t>(at);
      double part = at - static_cast<double>(first);
      t.index.insert(t.index.end(), {first, std::min(first + 1, n_in - 1)});
      t.weight.insert(t.weight.end(), {1 - part, part});
      continue;
    }
    // Keys 1981, "Cubic convolution interpolation for digital image processing".
    const double floor = std::floor(at), p = at - floor, a = modes.cubic;
    auto far = [a](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
    auto near = [a](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
    double weights[4] = {far(p + 1), near(p), near(1 - p), far(2 - p)}, sum = 0;
    for (int64_t k = 0; k < 4; ++k) {
      int64_t i = static_cast<int64_t>(floor) - 1 + k;
      if (modes.exclude_outside && (i < 0 || i >= n_in)) weights[k] = 0;
      sum += weights[k];
      t.index.push_back(std::clamp<int64_t>(i, 0, n_in - 1));
    }
    for (double w : weights) t.weight.push_back(modes.exclude_outside ? w / sum : w);
  }
  return t;
}

// y[..., j, ...] = the weighted sum of the taps of j along `dim`.
Tensor blend(const Tensor& input, int64_t dim, int64_t n_out, const Taps& taps) {
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
    parallel_ranges(y.numel() / inner, std::max<int64_t>(1, kGrain / inner), [&](int64_t begin, int64_t end) {
      int64_t j = begin % n_out;
      const T* block = in + begin / n_out * n_in * inner;
      for (int64_t r = begin; r < end; ++r) {
        const int64_t* index = taps.index.data() + j * taps.count;
        const T* w = weights.data() + j * taps.count;
        T* __restrict q = out + r * inner;
        if (taps.count == 2) {
          const T *a = block + index[0] * inner, *b = block + index[1] * inner;
          for (int64_t i = 0; i < inner; ++i) q[i] = w[0] * a[i] + w[1] * b[i];
        } else {
          const T *a = block + index[0] * inner, *b = block + index[1] * inner, *c = block + index[2] * inner,
                  *d = block + index[3] * inner;
          for (int64_t i = 0; i < inner; ++i) q[i] = w[0] * a[i] + w[1] * b[i] + w[2] * c[i] + w[3] * d[i];
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
  const Modes modes(t.attrs());
  if (modes.mode != "nearest") need_floating(t);
  std::vector<Dim> dims;
  for (const Resize& r : resizes(t[0].dims, t.attrs())) {
    const Dim& from = t[0].dims[dims.size()];
    OCTET_CHECK(from != Dim(0) || r.out == Dim(0), invalid_argument,
                "interpolate: cannot resize an empty dimension of {}", dims_text(t[0].dims));
    dims.push_back(r.out);
  }
  return moved(t, dims, [&](int64_t axis) { return dims[axis] == t[0].dims[axis] ? axis : -1; });
}

// The element that each position shows.
std::vector<int64_t> nearest_index(int64_t n_in, int64_t n_out, const Resize& r, const Modes& modes) {
  std::vector<int64_t> index(n_out);
  for (int64_t i = 0; i < n_out; ++i)
    index[i] = std::clamp<int64_t>(nearest(position(i, n_in, n_out, r, modes.coordinates), modes.rounding), 0, n_in - 1);
  return index;
}

// One dimension after another, the last first: of a bilinear resize, rows are blended before columns.
Tensor eval_interpolate(const Call& c) {
  const Tensor& x = c[0];
  const Modes modes(c.attrs());
  const std::vector<Resize> plan = resizes(x.type().dims, c.attrs());
  Tensor y = elements(x);
  for (int64_t d = x.dim(); d-- > 0;) {
    const Resize& r = plan[d];
    if (!r.changes) continue;
    const int64_t n_in = x.size(d), n_out = r.out.size();
    if (modes.mode != "nearest") {
      y = blend(y, d, n_out, taps(n_in, n_out, r, modes));
      continue;
    }
    y = take(y, d, nearest_index(n_in, n_out, r, modes));
  }
  return as_result(with_quantizer(fresh(y), x.quantizer()), c.outputs()[0]);
}

// The steps of eval_interpolate backwards, each transposed.
Tensor interpolate_gradient(const Grad& g) {
  const Tensor& x = g[0];
  const Modes modes(g.attrs());
  const std::vector<Resize> plan = resizes(x.type().dims, g.attrs());
  Tensor dx = g.dy();
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (!plan[d].changes) continue;
    const int64_t n_in = x.size(d), n_out = plan[d].out.size();
    if (modes.mode == "nearest") {
      dx = take_gradient(dx, d, nearest_index(n_in, n_out, plan[d], modes), n_in);
      continue;
    }
    const Taps t = taps(n_in, n_out, plan[d], modes);
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

// x resized to `size`, or by `scales` (sizes are rounded down): one number per dimension, or per dimension but the
// first two; a size of -1 stays. coordinates: where position i of the result lies in x, as in ONNX's Resize:
// "half_pixel", "pytorch_half_pixel", "align_corners" or "asymmetric". mode: "nearest" (nearest_rounding:
// "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"; PyTorch's nearest is "asymmetric" with "floor"), "linear"
// or "cubic" (cubic_coeff; exclude_outside: elements beyond the edge get no weight instead of the edge's value).
// Quantized: nearest copies codes, the others go through float32; qparams unchanged.
OCTET_OP(interpolate,
         "interpolate(x, *, size=[], scales=[], mode=\"nearest\", coordinates=\"half_pixel\", "
         "nearest_rounding=\"round_prefer_floor\", cubic_coeff=-0.75, exclude_outside=false) -> y",
         QRule::same, infer(infer_interpolate), widened(eval_interpolate), quantized([](const Call& c) {
           bool copies = c.attrs().get_string("mode") == "nearest" && c[0].is_quantized();
           if (copies && c[0].quantizer()->is_per_channel() && c.outputs()[0].dims[c[0].quantizer()->axis()] !=
                                                                   Dim(c[0].size(c[0].quantizer()->axis())))
             copies = false;
           return copies ? eval_interpolate(c) : through_float(c);
         }),
         gradient(interpolate_gradient),
         Doc{"x resized to size or by scales; mode: \"nearest\", \"linear\" or \"cubic\""})

}  // namespace octet::ops
