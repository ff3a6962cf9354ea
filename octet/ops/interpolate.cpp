#include <algorithm>
#include <cmath>

#include "octet/ops/define_impl.h"
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

// How one dimension is resized: position x of the result is at x * numerator / denominator (of the
// operand's elements), before the coordinate mode's shifts. The part of x that is shown lies
// between the fractions first and last ("tf_crop_and_resize" only).
struct Resize {
  Dim out = Dim(1);
  bool changes = false;
  double numerator = 1, denominator = 1;
  double first = 0, last = 1;
};

constexpr const char* kCrop = "tf_crop_and_resize";

// size, scales and roi: one per dimension, or one per dimension but the first two.
std::vector<Resize> resizes(const std::vector<Dim>& x, const Attrs& attrs) {
  const std::vector<int64_t> sizes =
      attrs.get_doubles("size").empty() ? std::vector<int64_t>{} : attrs.get_ints("size");
  const std::vector<double> scales = attrs.get_doubles("scales"), roi = attrs.get_doubles("roi");
  OCTET_CHECK(!sizes.empty() || !scales.empty(), invalid_argument,
              "interpolate: give size or scales");
  const size_t given = std::max(sizes.size(), scales.size());
  OCTET_CHECK(given == x.size() || given + 2 == x.size(), invalid_argument,
              "interpolate: {} sizes or scales for an operand of shape {}; expected {} (or one per "
              "dimension)",
              given, dims_text(x), x.size() < 2 ? x.size() : x.size() - 2);
  OCTET_CHECK(sizes.empty() || scales.empty() || sizes.size() == scales.size(), invalid_argument,
              "interpolate: {} sizes and {} scales; expected as many", sizes.size(), scales.size());
  const bool crops = attrs.get_string("coordinates") == kCrop;
  OCTET_CHECK(crops ? roi.size() == 2 * given : roi.empty(), invalid_argument,
              "interpolate: a roi of {} numbers; expected {} (beginnings, then ends; "
              "coordinates=\"{}\" only)",
              roi.size(), crops ? 2 * given : 0, kCrop);
  std::vector<Resize> result(x.size());
  for (size_t d = 0; d < x.size(); ++d) {
    Resize& r = result[d];
    r.out = x[d];
    if (d + given < x.size()) continue;
    const size_t i = d + given - x.size();
    if (!sizes.empty()) {
      OCTET_CHECK(sizes[i] >= -1, invalid_argument,
                  "interpolate: size {}; expected 0 or more, or -1 to keep a size", sizes[i]);
      if (sizes[i] < 0) continue;
      r.out = Dim(sizes[i]);
      r.changes = r.out != x[d];
      r.numerator = static_cast<double>(x[d].known() ? x[d].size() : 1);
      r.denominator = static_cast<double>(sizes[i]);
    }
    if (!scales.empty()) {
      OCTET_CHECK(std::isfinite(scales[i]) && scales[i] > 0, invalid_argument,
                  "interpolate: scale {}; expected more than 0", scales[i]);
      r.changes |= scales[i] != 1;
      r.numerator = 1;
      r.denominator = scales[i];
      if (!sizes.empty() || scales[i] == 1) continue;
      if (x[d].known())
        r.out = Dim(static_cast<int64_t>(std::floor(static_cast<double>(x[d].size()) * scales[i])));
      else if (scales[i] == std::floor(scales[i]))
        r.out = multiply(x[d], Dim(static_cast<int64_t>(scales[i])));
      else
        r.out = Dim(fmt::format("[{}*{}]", x[d].name(), scales[i]));
    }
  }
  for (size_t i = 0; crops && i < given; ++i) {
    Resize& r = result[x.size() - given + i];
    r.first = roi[i];
    r.last = roi[i + given];
    OCTET_CHECK(std::isfinite(r.first) && std::isfinite(r.last), invalid_argument,
                "interpolate: a roi from {} to {}; expected finite fractions", r.first, r.last);
    r.changes |= r.first != 0 || r.last != 1;
  }
  return result;
}

struct Modes {
  std::string mode, coordinates, rounding;
  double cubic;
  bool exclude_outside, antialias;
  explicit Modes(const Attrs& a)
      : mode(a.get_string("mode")),
        coordinates(a.get_string("coordinates")),
        rounding(a.get_string("nearest_rounding")),
        cubic(a.get_double("cubic_coeff")),
        exclude_outside(a.get_bool("exclude_outside")),
        antialias(a.get_bool("antialias")) {
    auto need = [](const char* what, const std::string& value,
                   std::initializer_list<const char*> known) {
      OCTET_CHECK(std::find(known.begin(), known.end(), value) != known.end(), invalid_argument,
                  "interpolate: {}=\"{}\"; expected one of {}", what, value,
                  fmt::join(known, ", "));
    };
    need("mode", mode, {"nearest", "linear", "cubic"});
    need("coordinates", coordinates,
         {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
          kCrop});
    need("nearest_rounding", rounding,
         {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  }
};

// Where position x of n_out lies among n_in elements. In double: positions of whole numbers are
// exact.
double position(int64_t x, int64_t n_in, int64_t n_out, const Resize& r,
                const std::string& coordinates) {
  auto v = static_cast<double>(x);
  if (coordinates == "align_corners")
    return n_out > 1 ? v * static_cast<double>(n_in - 1) / static_cast<double>(n_out - 1) : 0;
  if (coordinates == "asymmetric") return v * r.numerator / r.denominator;
  if (coordinates == "pytorch_half_pixel" && n_out <= 1) return 0;
  if (coordinates == kCrop) {
    const auto span = static_cast<double>(n_in - 1);
    if (n_out == 1) return 0.5 * (r.first + r.last) * span;
    return r.first * span + v * (r.last - r.first) * span / static_cast<double>(n_out - 1);
  }
  double shift = 0;
  // what rounding the size down left off is shared by both ends
  if (coordinates == "half_pixel_symmetric") {
    const auto size = static_cast<double>(n_in);
    shift = size / 2 * (1 - static_cast<double>(n_out) / (size * r.denominator / r.numerator));
  }
  return shift + (v + 0.5) * r.numerator / r.denominator - 0.5;
}

// Whether a position lies beyond x's first and last elements ("tf_crop_and_resize" gives those a
// value of their own).
bool is_outside(double at, int64_t n_in) {
  return at < -1e-9 || at > static_cast<double>(n_in - 1) + 1e-9;
}

int64_t nearest(double at, const std::string& rounding) {
  if (rounding == "round_prefer_floor") return static_cast<int64_t>(std::ceil(at - 0.5));
  if (rounding == "round_prefer_ceil") return static_cast<int64_t>(std::floor(at + 0.5));
  return static_cast<int64_t>(rounding == "floor" ? std::floor(at) : std::ceil(at));
}

// The elements and weights that make up each position: `count` of each.
struct Taps {
  int64_t count;
  std::vector<int64_t> index;
  std::vector<double> weight;
};

// The weight of an element at distance d >= 0 from the position. Cubic: Keys 1981, "Cubic
// convolution interpolation for digital image processing".
double weight_at(double d, const Modes& modes) {
  if (modes.mode == "linear") return std::max(0.0, 1 - d);
  const double a = modes.cubic;
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

// With antialias the weights are stretched by as much as the image is made smaller.
Taps taps(int64_t n_in, int64_t n_out, const Resize& r, const Modes& modes) {
  const double stretch = modes.antialias ? std::max(1.0, r.numerator / r.denominator) : 1;
  OCTET_CHECK(stretch <= 1 << 20, invalid_argument,
              "interpolate: antialias at a scale of {}; expected 1e-6 or more", 1 / stretch);
  const auto reach = static_cast<int64_t>(std::ceil((modes.mode == "linear" ? 1 : 2) * stretch));
  Taps t{2 * reach, {}, {}};
  std::vector<double> weights(t.count);
  for (int64_t x = 0; x < n_out; ++x) {
    double at = position(x, n_in, n_out, r, modes.coordinates);
    if (modes.mode == "linear" && stretch == 1)
      at = std::clamp(at, 0.0, static_cast<double>(n_in - 1));
    const auto first = static_cast<int64_t>(std::floor(at)) - reach + 1;
    double sum = 0;
    for (int64_t k = 0; k < t.count; ++k) {
      const int64_t i = first + k;
      weights[k] = weight_at(std::abs(static_cast<double>(i) - at) / stretch, modes);
      if (modes.exclude_outside && (i < 0 || i >= n_in)) weights[k] = 0;
      sum += weights[k];
      t.index.push_back(std::clamp<int64_t>(i, 0, n_in - 1));
    }
    const bool normalize = (modes.exclude_outside || stretch != 1) && sum != 0;
    for (double w : weights) t.weight.push_back(normalize ? w / sum : w);
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
std::vector<int64_t> nearest_index(int64_t n_in, int64_t n_out, const Resize& r,
                                   const Modes& modes) {
  std::vector<int64_t> index(n_out);
  for (int64_t i = 0; i < n_out; ++i)
    index[i] = std::clamp<int64_t>(
        nearest(position(i, n_in, n_out, r, modes.coordinates), modes.rounding), 0, n_in - 1);
  return index;
}

// One dimension after another, the last first: of a bilinear resize, rows are blended before
// columns.
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
  if (modes.coordinates == kCrop) {
    y = y.is_contiguous() ? y.clone() : y.contiguous();
    for (int64_t d = 0; d < x.dim(); ++d)
      for (int64_t j = 0; plan[d].changes && j < y.size(d); ++j)
        if (is_outside(position(j, x.size(d), y.size(d), plan[d], modes.coordinates), x.size(d)))
          y.select(d, j).copy_from(Tensor::scalar(c.attrs().get_double("extrapolation"), y.dtype())
                                       .expand(y.select(d, j).shape()));
  }
  return as_result(with_quantizer(fresh(y), x.quantizer()), c.outputs()[0]);
}

// The steps of eval_interpolate backwards, each transposed.
Tensor interpolate_gradient(const Grad& g) {
  const Tensor& x = g[0];
  const Modes modes(g.attrs());
  OCTET_CHECK(modes.coordinates != kCrop, unsupported,
              "interpolate: no gradient with coordinates=\"{}\"", kCrop);
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

// x resized to `size`, or by `scales` (sizes are rounded down): one number per dimension, or per
// dimension but the first two; a size of -1 stays. With both, the result has `size` and positions
// are computed from `scales`. coordinates: where position i of the result lies in x, as in ONNX's
// Resize: "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"
// or "tf_crop_and_resize" (the part of x between the fractions roi: all beginnings, then all ends;
// what lies outside x is `extrapolation`). mode: "nearest" (nearest_rounding: "round_prefer_floor",
// "round_prefer_ceil", "floor", "ceil"; PyTorch's nearest is "asymmetric" with "floor"), "linear"
// or "cubic" (cubic_coeff; exclude_outside: elements beyond the edge get no weight instead of the
// edge's value). antialias: linear and cubic weights are stretched by as much as a dimension is
// made smaller. Quantized: nearest copies codes, the others go through float32; qparams unchanged.
OCTET_OP(interpolate,
         "interpolate(x, *, size=[], scales=[], mode=\"nearest\", coordinates=\"half_pixel\", "
         "nearest_rounding=\"round_prefer_floor\", cubic_coeff=-0.75, exclude_outside=false, "
         "antialias=false, roi=[], "
         "extrapolation=0.) -> y",
         QRule::same, infer(infer_interpolate), widened(eval_interpolate),
         quantized([](const Call& c) {
           bool copies = c.attrs().get_string("mode") == "nearest" && c[0].is_quantized() &&
                         c.attrs().get_string("coordinates") != kCrop;
           if (copies && c[0].quantizer()->is_per_channel() &&
               c.outputs()[0].dims[c[0].quantizer()->axis()] !=
                   Dim(c[0].size(c[0].quantizer()->axis())))
             copies = false;
           return copies ? eval_interpolate(c) : through_float(c);
         }),
         gradient(interpolate_gradient),
         Doc{"x resized to size or by scales; mode: \"nearest\", \"linear\" or \"cubic\""})

}  // namespace octet::ops
