#include <array>
#include <cmath>

#include "octet/ops/define_impl.h"
#include "octet/ops/gradient_impl.h"
#include "octet/ops/iterate_impl.h"

namespace octet::ops {
namespace {

// Error unless operand `name`, if given, is a vector of `n` numbers.
void need_vector(const Types& t, const char* name, const Dim& n) {
  if (!t.has(name)) return;
  const std::vector<Dim>& dims = t[name].dims;
  OCTET_CHECK(
      dims.size() == 1 && (dims[0] == n || !dims[0].known() || !n.known()), invalid_argument,
      "{}: {} has shape {}; expected one number per channel, ({}), for an input of shape {}",
      t.op().name(), name, dims_text(dims), to_string(n), dims_text(t[0].dims));
}

void need_channels(const Types& t) {
  need_floating(t);
  OCTET_CHECK(t[0].dim() >= 2, invalid_argument, "{}: the input has shape {}; expected (N, C, ...)",
              t.op().name(), dims_text(t[0].dims));
}

// Operand `name` as doubles; n times `fallback` if it is omitted.
std::vector<double> numbers(const Call& c, const char* name, int64_t n, double fallback) {
  return c.has(name) ? c[name].to(DType::float64).to_vector<double>()
                     : std::vector<double>(n, fallback);
}

// Sums in eight fixed lanes: fast, and the same whatever the threads.
template <typename T, typename Fn>
double lane_sum(const T* p, int64_t n, Fn&& f) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) lanes[j] += f(static_cast<double>(p[i + j]));
  for (; i < n; ++i) lanes[i % 8] += f(static_cast<double>(p[i]));
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// Each row of `size` numbers to mean 0 and variance 1, then element i of row r times weight(r, i)
// plus bias(r, i). All in double, rounded once.
template <typename T, typename Scale>
void normalize_rows(const T* in, T* out, int64_t rows, int64_t size, double eps,
                    const Scale& scale) {
  parallel_ranges(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t r = begin; r < end; ++r) {
                      const T* p = in + r * size;
                      const double mean =
                          lane_sum(p, size, [](double v) { return v; }) / static_cast<double>(size);
                      const double variance =
                          lane_sum(p, size, [mean](double v) { return (v - mean) * (v - mean); }) /
                          static_cast<double>(size);
                      scale(p, out + r * size, r, mean, 1 / std::sqrt(variance + eps));
                    }
                  });
}

// Normalizes each of `groups` runs of channels of each image.
Tensor normalize_groups(const Call& c, int64_t groups) {
  Tensor x = c[0].contiguous();
  Tensor y = Tensor::empty(x.shape(), x.dtype());
  if (x.numel() == 0) return y;
  const int64_t channels = x.size(1), per_group = channels / groups;
  const int64_t plane = x.numel() / (x.size(0) * channels);
  const std::vector<double> weight = numbers(c, "weight", channels, 1),
                            bias = numbers(c, "bias", channels, 0);
  visit_float(x.dtype(), c.op().name(), [&](auto zero) {
    using T = decltype(zero);
    auto scale = [&](const T* p, T* q, int64_t row, double mean, double inverse) {
      for (int64_t k = 0; k < per_group; ++k) {
        const double w = weight[row % groups * per_group + k],
                     b = bias[row % groups * per_group + k];
        for (int64_t i = k * plane; i < (k + 1) * plane; ++i)
          q[i] = static_cast<T>((static_cast<double>(p[i]) - mean) * inverse * w + b);
      }
    };
    normalize_rows(x.data<T>(), y.data<T>(), x.size(0) * groups, per_group * plane,
                   c.attrs().get_double("eps"), scale);
  });
  return y;
}

// -- batch norm, channel by channel ---------------------------------------------------------------

// How the elements of dense (N, C, ...) tensors lie in memory: channels innermost, or behind one
// another in planes.
struct Channels {
  bool last;
  int64_t images, channels, places;
  explicit Channels(const Tensor& x)
      : last(x.dim() == 2 || format_of(x) == MemoryFormat::channels_last),
        images(x.size(0)),
        channels(x.size(1)),
        places(images * channels > 0 ? x.numel() / (images * channels) : 0) {}
  Tensor laid_out(const Tensor& x) const {
    return last && x.dim() > 2 ? x.contiguous(MemoryFormat::channels_last) : x.contiguous();
  }
  Tensor empty_like(const Tensor& x) const {
    return Tensor::empty(
        x.shape(), x.dtype(), nullptr,
        last && x.dim() > 2 ? MemoryFormat::channels_last : MemoryFormat::contiguous);
  }
};

// The sums over each channel of `term`(element, channel), which gives K numbers. In double and in
// an order that only the layout decides: elements are cut into parts of one size, whose sums are
// added in order.
template <size_t K, typename Term>
std::vector<std::array<double, K>> channel_sums(const Channels& s, Term&& term) {
  std::vector<std::array<double, K>> total(s.channels);
  if (!s.last) {
    parallel_ranges(
        s.channels, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.images * s.places)),
        [&](int64_t begin, int64_t end) {
          constexpr int64_t kLanes = 8;
          for (int64_t c = begin; c < end; ++c) {
            double lanes[K][kLanes] = {};
            for (int64_t n = 0; n < s.images; ++n) {
              const int64_t first = (n * s.channels + c) * s.places;
              for (int64_t i = 0; i < s.places; i += kLanes)
                for (int64_t j = 0, most = std::min(kLanes, s.places - i); j < most; ++j) {
                  const std::array<double, K> v = term(first + i + j, c);
                  for (size_t k = 0; k < K; ++k) lanes[k][j] += v[k];
                }
            }
            for (size_t k = 0; k < K; ++k)
              for (double lane : lanes[k]) total[c][k] += lane;
          }
        });
    return total;
  }
  const int64_t rows = s.images * s.places, part = std::max<int64_t>(1, 8192 / s.channels),
                parts = (rows + part - 1) / part;
  std::vector<double> sums(parts * K * s.channels, 0.0);
  parallel_ranges(parts, 4, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      double* own = sums.data() + p * K * s.channels;
      for (int64_t row = p * part, last_row = std::min(rows, row + part); row < last_row; ++row) {
#pragma GCC ivdep
        for (int64_t c = 0; c < s.channels; ++c) {
          const std::array<double, K> v = term(row * s.channels + c, c);
          for (size_t k = 0; k < K; ++k) own[k * s.channels + c] += v[k];
        }
      }
    }
  });
  for (int64_t p = 0; p < parts; ++p)
    for (size_t k = 0; k < K; ++k)
      for (int64_t c = 0; c < s.channels; ++c) total[c][k] += sums[(p * K + k) * s.channels + c];
  return total;
}

// out[i] = fn(i, channel of i) for every element i.
template <typename T, typename Fn>
void channel_map(const Channels& s, T* out, Fn&& fn) {
  const int64_t rows = s.last ? s.images * s.places : s.images * s.channels,
                size = s.last ? s.channels : s.places;
  parallel_ranges(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size)),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t row = begin; row < end; ++row) {
                      const int64_t first = row * size, channel = row % s.channels;
                      if (s.last) {
#pragma GCC ivdep
                        for (int64_t c = 0; c < size; ++c) out[first + c] = fn(first + c, c);
                      } else {
#pragma GCC ivdep
                        for (int64_t i = 0; i < size; ++i) out[first + i] = fn(first + i, channel);
                      }
                    }
                  });
}

// y, mean and biased variance of batch_norm in training.
std::vector<Tensor> train_batch_norm(const Call& c) {
  const Channels s(c[0]);
  Tensor x = s.laid_out(c[0]), y = s.empty_like(x);
  Tensor mean = Tensor::empty({s.channels}, x.dtype()),
         var = Tensor::empty({s.channels}, x.dtype());
  const std::vector<double> w = numbers(c, "weight", s.channels, 1),
                            b = numbers(c, "bias", s.channels, 0);
  const double eps = c.attrs().get_double("eps"), count = static_cast<double>(s.images * s.places);
  visit_float(x.dtype(), "batch_norm_training", [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.data<T>();
    // In double the squares of float32 numbers are exact and their sums nearly so: one pass over x
    // is enough.
    auto sums = channel_sums<2>(s, [in](int64_t i, int64_t) {
      const double v = in[i];
      return std::array{v, v * v};
    });
    std::vector<T> scale(s.channels), shift(s.channels);
    for (int64_t k = 0; k < s.channels; ++k) {
      const double m = sums[k][0] / count, v = std::max(0.0, sums[k][1] / count - m * m),
                   a = w[k] / std::sqrt(v + eps);
      mean.data<T>()[k] = static_cast<T>(m);
      var.data<T>()[k] = static_cast<T>(v);
      scale[k] = static_cast<T>(a);
      shift[k] = static_cast<T>(b[k] - m * a);
    }
    channel_map(s, y.data<T>(), [in, a = scale.data(), d = shift.data()](int64_t i, int64_t k) {
      return in[i] * a[k] + d[k];
    });
  });
  return {y, mean, var};
}

// Gradients of x, weight and bias: of the batch's own statistics if `training`, of given ones
// otherwise.
std::vector<Tensor> batch_norm_gradients(const Grad& g, const Tensor& mean_of, const Tensor& var_of,
                                         bool training) {
  const Channels s(g[0]);
  Tensor x = s.laid_out(g[0]), dy = s.laid_out(g.dy());
  std::vector<Tensor> d(g.size());
  const int64_t channels = s.channels;
  auto values = [](const Tensor& t) { return t.to(DType::float64).to_vector<double>(); };
  const std::vector<double> mean = values(mean_of), var = values(var_of),
                            w = numbers(g.call(), "weight", channels, 1);
  const double eps = g.attrs().get_double("eps"), count = static_cast<double>(s.images * s.places);
  visit_float(x.dtype(), "batch_norm", [&](auto zero) {
    using T = decltype(zero);
    const T *in = x.data<T>(), *up = dy.data<T>();
    const double* m = mean.data();
    auto sums = channel_sums<2>(s, [=](int64_t i, int64_t k) {
      const double v = up[i];
      return std::array{v, v * (in[i] - m[k])};
    });
    if (g.needs(1)) d[1] = Tensor::empty({channels}, x.dtype());
    if (g.needs(2)) d[2] = Tensor::empty({channels}, x.dtype());
    // dx = a * (dy - mean of dy - (x - mean) * mean of dy*(x - mean) / (var + eps)); with given
    // statistics only a * dy.
    std::vector<T> a(channels), by_x(channels), center(channels), shift(channels);
    for (int64_t k = 0; k < channels; ++k) {
      const double inverse = 1 / std::sqrt(var[k] + eps);
      if (g.needs(1)) d[1].template data<T>()[k] = static_cast<T>(sums[k][1] * inverse);
      if (g.needs(2)) d[2].template data<T>()[k] = static_cast<T>(sums[k][0]);
      a[k] = static_cast<T>(w[k] * inverse);
      center[k] = static_cast<T>(mean[k]);
      by_x[k] = static_cast<T>(-w[k] * inverse * inverse * inverse * sums[k][1] / count);
      shift[k] = static_cast<T>(-w[k] * inverse * sums[k][0] / count);
    }
    if (!g.needs(0)) return;
    d[0] = s.empty_like(x);
    const T *pa = a.data(), *pb = by_x.data(), *pc = center.data(), *ps = shift.data();
    if (training)
      channel_map(s, d[0].template data<T>(), [=](int64_t i, int64_t k) {
        return up[i] * pa[k] + (in[i] - pc[k]) * pb[k] + ps[k];
      });
    else
      channel_map(s, d[0].template data<T>(), [=](int64_t i, int64_t k) { return up[i] * pa[k]; });
  });
  return d;
}

// -- gradients of the normalizations by rows ------------------------------------------------------

// Gradients of x, weight and bias where rows of `size` elements were normalized; `parameter`(row,
// i) is the index in weight and bias of element i of a row.
template <typename Index>
std::vector<Tensor> row_gradients(const Grad& g, int64_t size, int64_t parameters,
                                  const Shape& parameter_shape, const Index& parameter) {
  Tensor x = g[0].contiguous(), dy = g.dy().contiguous(), dx = Tensor::empty(x.shape(), x.dtype());
  const std::vector<double> w = numbers(g.call(), "weight", parameters, 1);
  std::vector<double> dw(parameters, 0.0), db(parameters, 0.0);
  const double eps = g.attrs().get_double("eps"), count = static_cast<double>(size);
  std::vector<Tensor> d(g.size());
  visit_float(x.dtype(), g.call().op().name(), [&](auto zero) {
    using T = decltype(zero);
    const T* up = dy.data<T>();
    auto backward = [&](const T* p, T* q, int64_t row, double mean, double inverse) {
      const T* e = up + row * size;
      double sum = 0, product = 0;
      for (int64_t i = 0; i < size; ++i) {
        const double v = e[i] * w[parameter(row, i)];
        sum += v;
        product += v * (p[i] - mean) * inverse;
      }
      for (int64_t i = 0; i < size; ++i) {
        const double normal = (p[i] - mean) * inverse;
        q[i] = static_cast<T>(
            inverse * (e[i] * w[parameter(row, i)] - sum / count - normal * product / count));
      }
    };
    if (x.numel()) normalize_rows(x.data<T>(), dx.data<T>(), x.numel() / size, size, eps, backward);
    if (!g.needs(1) && !g.needs(2)) return;
    // On one thread: rows add to the same sums.
    auto add = [&](const T* p, T*, int64_t row, double mean, double inverse) {
      for (int64_t i = 0; i < size; ++i) {
        const double v = up[row * size + i];
        db[parameter(row, i)] += v;
        dw[parameter(row, i)] += v * (p[i] - mean) * inverse;
      }
    };
    for (int64_t row = 0; x.numel() && row < x.numel() / size; ++row)
      normalize_rows(x.data<T>() + row * size, dx.data<T>(), 1, size, eps,
                     [&](const T* p, T* q, int64_t, double mean, double inverse) {
                       add(p, q, row, mean, inverse);
                     });
  });
  d[0] = dx;
  if (g.needs(1)) d[1] = Tensor::from(dw, parameter_shape).to(x.dtype());
  if (g.needs(2)) d[2] = Tensor::from(db, parameter_shape).to(x.dtype());
  return d;
}

std::vector<Tensor> group_gradients(const Grad& g, int64_t groups) {
  const int64_t channels = g[0].size(1), per_group = channels / groups;
  const int64_t plane = g[0].numel() / std::max<int64_t>(1, g[0].size(0) * channels);
  return row_gradients(g, per_group * plane, channels, {channels}, [=](int64_t row, int64_t i) {
    return row % groups * per_group + i / plane;
  });
}

}  // namespace

// y = (x - running_mean) / sqrt(running_var + eps) * weight + bias per channel (dimension 1):
// inference. Computed as f(f(x * f(a)) + f(b)) with a = weight / sqrt(running_var + eps) and b =
// bias - running_mean * a in double.
OCTET_OP(batch_norm, "batch_norm(x, weight, bias, running_mean, running_var, *, eps=1e-05) -> y",
         QRule::own, infer([](const Types& t) {
           need_channels(t);
           for (const char* name : {"weight", "bias", "running_mean", "running_var"})
             need_vector(t, name, t[0].dims[1]);
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) {
           const Tensor& x = c[0];
           Tensor y = Tensor::empty(x.shape(), x.dtype(), nullptr, format_of(x));
           const int64_t channels = x.size(1);
           const std::vector<double> w = numbers(c, "weight", channels, 1),
                                     b = numbers(c, "bias", channels, 0),
                                     mean = numbers(c, "running_mean", channels, 0),
                                     var = numbers(c, "running_var", channels, 1);
           const double eps = c.attrs().get_double("eps");
           visit_float(x.dtype(), "batch_norm", [&](auto zero) {
             using T = decltype(zero);
             std::vector<T> scale(channels), shift(channels);
             for (int64_t k = 0; k < channels; ++k) {
               double a = w[k] / std::sqrt(var[k] + eps);
               scale[k] = static_cast<T>(a);
               shift[k] = static_cast<T>(b[k] - mean[k] * a);
             }
             std::vector<int64_t> along(x.dim(), 0);
             along[1] = 1;
             const T* in = x.data<T>();
             T* out = y.data<T>();
             Walk<3>(x.shape(), {y.strides(), x.strides(), along})
                 .run([&](const auto& at, int64_t n, const auto& step) {
                   const T* __restrict p = in + at[1];
                   T* __restrict q = out + at[0];
                   const T* __restrict a = scale.data() + at[2], * __restrict d =
                                                                     shift.data() + at[2];
                   if (step[0] == 1 && step[1] == 1 && step[2] == 0) {
                     for (int64_t i = 0; i < n; ++i) q[i] = p[i] * a[0] + d[0];
                   } else if (step[0] == 1 && step[1] == 1 && step[2] == 1) {
                     for (int64_t i = 0; i < n; ++i) q[i] = p[i] * a[i] + d[i];
                   } else {
                     for (int64_t i = 0; i < n; ++i)
                       q[i * step[0]] = p[i * step[1]] * a[i * step[2]] + d[i * step[2]];
                   }
                 });
           });
           return y;
         }),
         gradients([](const Grad& g) { return batch_norm_gradients(g, g[3], g[4], false); }),
         Doc{"(x - running_mean) / sqrt(running_var + eps) * weight + bias, per channel"})

// The same with the mean and the biased variance of x itself, which are results too (no gradient
// flows through them). Sums in double; y as batch_norm computes it.
OCTET_OP(batch_norm_training,
         "batch_norm_training(x, weight?, bias?, *, eps=1e-05) -> y, mean, var", QRule::float_only,
         infer_many([](const Types& t) {
           need_channels(t);
           for (const char* name : {"weight", "bias"}) need_vector(t, name, t[0].dims[1]);
           TensorType each(t[0].dtype, std::vector<Dim>{t[0].dims[1]});
           return std::vector<TensorType>{t.result(t[0].dims, t[0].dtype), each, each};
         }),
         eval_many(train_batch_norm),
         gradients([](const Grad& g) { return batch_norm_gradients(g, g.y(1), g.y(2), true); }),
         Doc{"(x - mean) / sqrt(var + eps) * weight + bias with each channel's own mean and biased "
             "variance"})

// y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and var over the dimensions
// axis..end; weight and bias have the shape of these dimensions.
OCTET_OP(layer_norm, "layer_norm(x, weight?, bias?, *, axis=-1, eps=1e-05) -> y", QRule::own,
         infer([](const Types& t) {
           need_floating(t);
           int64_t axis = normalize_dim(t.attrs().get_int("axis"), t[0].dim(), "layer_norm");
           std::vector<Dim> inner(t[0].dims.begin() + std::min<int64_t>(axis, t[0].dim()),
                                  t[0].dims.end());
           for (const char* name : {"weight", "bias"}) {
             if (!t.has(name)) continue;
             bool fits = t[name].dims.size() == inner.size();
             for (size_t d = 0; d < inner.size() && fits; ++d)
               fits = t[name].dims[d] == inner[d] || !t[name].dims[d].known() || !inner[d].known();
             OCTET_CHECK(fits, invalid_argument,
                         "layer_norm: {} has shape {}; expected {}, the dimensions {} and on of {}",
                         name, dims_text(t[name].dims), dims_text(inner), axis,
                         dims_text(t[0].dims));
           }
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) {
           Tensor x = c[0].contiguous();
           Tensor y = Tensor::empty(x.shape(), x.dtype());
           if (x.numel() == 0) return y;
           int64_t size = 1;
           for (int64_t d = normalize_dim(c.attrs().get_int("axis"), x.dim(), "layer_norm");
                d < x.dim(); ++d)
             size *= x.size(d);
           const std::vector<double> weight = numbers(c, "weight", size, 1),
                                     bias = numbers(c, "bias", size, 0);
           visit_float(x.dtype(), "layer_norm", [&](auto zero) {
             using T = decltype(zero);
             auto scale = [&](const T* p, T* q, int64_t, double mean, double inverse) {
               for (int64_t i = 0; i < size; ++i)
                 q[i] = static_cast<T>((static_cast<double>(p[i]) - mean) * inverse * weight[i] +
                                       bias[i]);
             };
             normalize_rows(x.data<T>(), y.data<T>(), x.numel() / size, size,
                            c.attrs().get_double("eps"), scale);
           });
           return y;
         }),
         gradients([](const Grad& g) {
           int64_t size = 1,
                   axis = normalize_dim(g.attrs().get_int("axis"), g[0].dim(), "layer_norm");
           for (int64_t d = axis; d < g[0].dim(); ++d) size *= g[0].size(d);
           Shape inner(g[0].shape().begin() + axis, g[0].shape().end());
           return row_gradients(g, size, size, inner, [](int64_t, int64_t i) { return i; });
         }),
         Doc{"normalizes the dimensions axis..end, then * weight + bias"})

// Each channel of each image to mean 0 and variance 1, then * weight + bias of the channel.
OCTET_OP(instance_norm, "instance_norm(x, weight?, bias?, *, eps=1e-05) -> y", QRule::own,
         infer([](const Types& t) {
           need_channels(t);
           for (const char* name : {"weight", "bias"}) need_vector(t, name, t[0].dims[1]);
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) { return normalize_groups(c, c[0].size(1)); }),
         gradients([](const Grad& g) { return group_gradients(g, g[0].size(1)); }),
         Doc{"normalizes each channel of each image, then * weight + bias"})

// Each of `groups` equal runs of channels of each image to mean 0 and variance 1, then * weight +
// bias of the channel.
OCTET_OP(group_norm, "group_norm(x, weight?, bias?, *, groups, eps=1e-05) -> y", QRule::own,
         infer([](const Types& t) {
           need_channels(t);
           int64_t groups = t.attrs().get_int("groups");
           const Dim& channels = t[0].dims[1];
           OCTET_CHECK(
               groups >= 1 && (!channels.known() || channels.size() % groups == 0),
               invalid_argument,
               "group_norm: groups={} does not divide the {} channels of an input of shape {}",
               groups, to_string(channels), dims_text(t[0].dims));
           for (const char* name : {"weight", "bias"}) need_vector(t, name, channels);
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) { return normalize_groups(c, c.attrs().get_int("groups")); }),
         gradients([](const Grad& g) { return group_gradients(g, g.attrs().get_int("groups")); }),
         Doc{"normalizes groups of channels of each image, then * weight + bias"})

}  // namespace octet::ops
