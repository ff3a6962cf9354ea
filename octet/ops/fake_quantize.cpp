// Fake quantization: quantize, then dequantize, with the straight-through gradient
// (docs/numerics.md "Fake quantization and QAT").
#include <algorithm>
#include <cmath>
#include <vector>

#include "octet/ops/define_impl.h"
#include "octet/ops/iterate_impl.h"

namespace octet::ops {
namespace {

// Codes lie within +-kMostCode, so that every number below is exact in float32 and rounding by
// kMagic works.
constexpr int64_t kMostCode = int64_t{1} << 20;
// v + kMagic - kMagic is v rounded half to even for |v| < 2^22: what the compiler can vectorize
// everywhere.
constexpr float kMagic = 12582912.0f;

// The qparams of one slice. With an integer zero point numbers are counted from it: a code stands
// for `q - z`. With a float one they are codes.
struct Grid {
  float inverse, scale, zero;  // zero: 0 unless float
  float lo, hi;
};

// rounded: floats that stand for the nearest code (learnable)
enum class Zeros { integer, real, rounded };

// The rounded number, one beyond lo or hi if it lies outside; NaN is the zero point.
template <bool kReal>
inline float round_to(const Grid& g, float x) {
  float v = x * g.inverse;
  v = v == v ? v : 0.0f;
  if constexpr (kReal) v += g.zero;
  v = v > g.lo - 1 ? v : g.lo - 1;
  v = v < g.hi + 1 ? v : g.hi + 1;
  return (v + kMagic) - kMagic;
}

inline bool inside(const Grid& g, float r) { return r >= g.lo && r <= g.hi; }

template <bool kReal>
inline float fake(const Grid& g, float x) {
  float r = round_to<kReal>(g, x);
  r = r > g.lo ? r : g.lo;
  r = r < g.hi ? r : g.hi;
  if constexpr (kReal)
    return static_cast<float>((static_cast<double>(r) - g.zero) * g.scale);
  else
    return g.scale * r;
}

// The operands of a call, checked: one grid, or one per slice along `axis`.
struct Grids {
  Grids(const Call& c, int64_t axis, Zeros zeros) : axis(axis), real(zeros == Zeros::real) {
    const std::string& who = c.op().name();
    const int64_t lo = c.attrs().get_int("quant_min"), hi = c.attrs().get_int("quant_max");
    std::vector<float> scales = c["scale"].to(DType::float32).to_vector<float>();
    std::vector<double> points = c["zero_point"].to(DType::float64).to_vector<double>();
    const int64_t channels = axis < 0 ? 1 : c[0].size(axis);
    OCTET_CHECK(static_cast<int64_t>(scales.size()) == channels && points.size() == scales.size(),
                invalid_argument, "{}: {} scales and {} zero points; expected {} of each{}", who,
                scales.size(), points.size(), channels,
                axis < 0 ? ""
                         : fmt::format(", one per slice along dimension {} of shape {}", axis,
                                       to_string(c[0].shape())));
    for (size_t i = 0; i < scales.size(); ++i) {
      std::string at = axis < 0 ? "" : fmt::format(" of channel {}", i);
      OCTET_CHECK(std::isnormal(scales[i]) && scales[i] > 0 && std::isfinite(1 / scales[i]),
                  invalid_argument, "{}: the scale{} is {}; expected a positive number", who, at,
                  scales[i]);
      double z = zeros == Zeros::rounded
                     ? std::clamp(std::nearbyint(points[i]), static_cast<double>(lo),
                                  static_cast<double>(hi))
                     : points[i];
      OCTET_CHECK(std::isfinite(z) &&
                      (real || (z >= static_cast<double>(lo) && z <= static_cast<double>(hi))),
                  invalid_argument, "{}: the zero point{} is {}; expected one of the codes {}..{}",
                  who, at, points[i], lo, hi);
      float from = real ? 0.0f : static_cast<float>(z);
      grids.push_back({1.0f / scales[i], scales[i], real ? static_cast<float>(z) : 0.0f,
                       static_cast<float>(lo) - from, static_cast<float>(hi) - from});
    }
  }

  // Calls fn(grid, channel, offset, n) for runs of row-major memory that share a grid, in no order,
  // on all threads. Runs begin and end at the same places whatever the threads.
  template <typename Fn>
  void run(const Shape& shape, Fn&& fn) const {
    int64_t inner = 1;
    for (size_t d = axis < 0 ? 0 : static_cast<size_t>(axis) + 1; d < shape.size(); ++d)
      inner *= shape[d];
    if (numel(shape) == 0) return;
    const int64_t rows = numel(shape) / inner, pieces = (inner + kGrain - 1) / kGrain;
    const int64_t channels = static_cast<int64_t>(grids.size());
    parallel_ranges(rows * pieces, std::max<int64_t>(1, kGrain / inner),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        int64_t row = i / pieces, start = i % pieces * kGrain;
                        fn(grids[static_cast<size_t>(row % channels)], i, row * inner + start,
                           std::min(kGrain, inner - start));
                      }
                    });
  }

  std::vector<Grid> grids;
  int64_t axis;
  bool real;
};

// Row-major float32; any dense layout will do where there is one grid.
Tensor plain(const Tensor& x, int64_t axis) {
  Tensor f = x.dtype() == DType::float32 ? x : x.to(DType::float32);
  return axis < 0 ? f.contiguous(format_of(f)) : f.contiguous();
}

Tensor forward(const Call& c, int64_t axis, Zeros zeros) {
  const Grids grids(c, axis, zeros);
  Tensor x = plain(c[0], axis);
  Tensor y = Tensor::empty(x.shape(), DType::float32, nullptr, format_of(x));
  const float* in = x.data<float>();
  float* out = y.data<float>();
  grids.run(x.shape(), [&](const Grid& grid, int64_t, int64_t at, int64_t n) {
    const Grid g = grid;
    const float* __restrict a = in + at;
    float* __restrict b = out + at;
    if (grids.real) {
      for (int64_t i = 0; i < n; ++i) b[i] = fake<true>(g, a[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) b[i] = fake<false>(g, a[i]);
    }
  });
  return y.to(c.outputs()[0].dtype);
}

// dx = dy where the code of x lies inside, else 0.
Tensor backward(const Call& c, const Tensor& dy, int64_t axis, Zeros zeros) {
  const Grids grids(c, axis, zeros);
  Tensor x = plain(c[0], axis);
  Tensor d = plain(dy, axis).contiguous(format_of(x));
  Tensor dx = Tensor::empty(x.shape(), DType::float32, nullptr, format_of(x));
  const float *in = x.data<float>(), *up = d.data<float>();
  float* out = dx.data<float>();
  grids.run(x.shape(), [&](const Grid& grid, int64_t, int64_t at, int64_t n) {
    const Grid g = grid;
    const float* __restrict a = in + at, * __restrict u = up + at;
    float* __restrict b = out + at;
    if (grids.real) {
      for (int64_t i = 0; i < n; ++i) b[i] = inside(g, round_to<true>(g, a[i])) ? u[i] : 0.0f;
    } else {
      for (int64_t i = 0; i < n; ++i) b[i] = inside(g, round_to<false>(g, a[i])) ? u[i] : 0.0f;
    }
  });
  return dx.to(c[0].dtype());
}

// dscale and dzero_point: sums over each slice, in double and in an order that does not depend on
// threads.
std::vector<Tensor> learn(const Call& c, const Tensor& dy, int64_t axis) {
  const Grids grids(c, axis, Zeros::rounded);
  Tensor x = plain(c[0], 0), d = plain(dy, 0);  // row-major
  const float *in = x.data<float>(), *up = d.data<float>();
  struct Sums {
    size_t channel = 0;
    double scale = 0, zero = 0;
  };
  std::vector<Sums> runs;
  const Grid* first = grids.grids.data();
  int64_t inner = 1;
  for (size_t i = axis < 0 ? 0 : static_cast<size_t>(axis) + 1; i < x.shape().size(); ++i)
    inner *= x.shape()[i];
  if (x.numel() > 0)
    runs.resize(static_cast<size_t>(x.numel() / inner * ((inner + kGrain - 1) / kGrain)));
  grids.run(x.shape(), [&](const Grid& g, int64_t run, int64_t at, int64_t n) {
    double ds = 0, dz = 0;
    for (int64_t i = at; i < at + n; ++i) {
      float r = round_to<false>(g, in[i]);
      float slope = r < g.lo ? g.lo : r > g.hi ? g.hi : (g.scale * r - in[i]) * g.inverse;
      ds += static_cast<double>(slope) * up[i];
      dz -= inside(g, r) ? 0.0 : static_cast<double>(g.scale) * up[i];
    }
    runs[static_cast<size_t>(run)] = {static_cast<size_t>(&g - first), ds, dz};
  });
  std::vector<double> scale(grids.grids.size()), zero(grids.grids.size());
  for (const Sums& s : runs) {
    scale[s.channel] += s.scale;
    zero[s.channel] += s.zero;
  }
  const double factor = c.attrs().get_double("grad_factor");
  auto tensor = [&](const std::vector<double>& sums, const Tensor& like) {
    std::vector<float> values;
    for (double v : sums) values.push_back(static_cast<float>(v * factor));
    return Tensor::from(values, like.shape());
  };
  return {tensor(scale, c["scale"]), tensor(zero, c["zero_point"])};
}

TensorType infer_like_x(const Types& t) {
  need_floating(t);
  const int64_t lo = t.attrs().get_int("quant_min"), hi = t.attrs().get_int("quant_max");
  OCTET_CHECK(lo < hi && lo >= -kMostCode && hi <= kMostCode, invalid_argument,
              "{}: codes {}..{}; expected quant_min < quant_max, within +-2^20", t.op().name(), lo,
              hi);
  return t[0];
}

int64_t axis_of(const Call& c) {
  return normalize_dim(c.attrs().get_int("axis"), c[0].dim(), c.op().name());
}

// -1 for one scale in all.
int64_t learnable_axis(const Call& c) { return c.attrs().get_int("axis") < 0 ? -1 : axis_of(c); }

Zeros zeros_of(const Call& c) {
  return is_floating(c["zero_point"].dtype()) ? Zeros::real : Zeros::integer;
}

}  // namespace

// y = s * (clamp(rne(f(x * f(1/s))) + z, quant_min, quant_max) - z). scale and zero_point hold one
// number.
OCTET_OP(fake_quantize_per_tensor,
         "fake_quantize_per_tensor(x, scale, zero_point, *, quant_min=0, quant_max=255) -> y",
         QRule::float_only,
         Doc{"quantize, then dequantize, with one scale and integer zero point; the gradient "
             "passes where the code is "
             "not clamped"},
         infer([](const Types& t) { return infer_like_x(t); }),
         eval([](const Call& c) { return forward(c, -1, Zeros::integer); }),
         gradient([](const Grad& g) { return backward(g.call(), g.dy(), -1, Zeros::integer); }))

// The same with a scale and zero point per slice along `axis`; float zero points are not rounded
// (float-qparams).
OCTET_OP(
    fake_quantize_per_channel,
    "fake_quantize_per_channel(x, scale, zero_point, *, axis=0, quant_min=0, quant_max=255) -> y",
    QRule::float_only,
    Doc{"the same with a scale and zero point for each slice along axis; zero points may be "
        "floats"},
    infer([](const Types& t) { return infer_like_x(t); }),
    eval([](const Call& c) { return forward(c, axis_of(c), zeros_of(c)); }),
    gradient([](const Grad& g) {
      return backward(g.call(), g.dy(), axis_of(g.call()), zeros_of(g.call()));
    }))

// Learned step size quantization (S. Esser et al., 2020; zero point: S. Jain et al., 2020), as in
// PyTorch. zero_point is a float that stands for the nearest code. Gradients, summed over each
// slice and times grad_factor:
//   dscale: quant_min - z below the range, quant_max - z above it, ((q - z) s - x) / s inside
//   dzero_point: -s outside the range, 0 inside
OCTET_OP(fake_quantize_learnable,
         "fake_quantize_learnable(x, scale, zero_point, *, axis=-1, quant_min=0, quant_max=255, "
         "grad_factor=1.) -> y",
         QRule::float_only,
         Doc{"fake quantization whose scale and (float, rounded) zero point have gradients too, "
             "times grad_factor; "
             "axis -1: one of each"},
         infer([](const Types& t) { return infer_like_x(t); }),
         eval([](const Call& c) { return forward(c, learnable_axis(c), Zeros::rounded); }),
         gradients([](const Grad& g) {
           const int64_t axis = learnable_axis(g.call());
           std::vector<Tensor> d(3);
           if (g.needs(0)) d[0] = backward(g.call(), g.dy(), axis, Zeros::rounded);
           if (g.needs(1) || g.needs(2)) {
             std::vector<Tensor> learned = learn(g.call(), g.dy(), axis);
             for (size_t i : {1, 2})
               if (g.needs(i)) d[i] = learned[i - 1];
           }
           return d;
         }))

}  // namespace octet::ops
