#include <cmath>

#include "octet/ops/define_impl.h"
#include "octet/ops/iterate_impl.h"

namespace octet::ops {
namespace {

// Error unless operand `name`, if given, is a vector of `n` numbers.
void need_vector(const Types& t, const char* name, const Dim& n) {
  if (!t.has(name)) return;
  const std::vector<Dim>& dims = t[name].dims;
  OCTET_CHECK(dims.size() == 1 && (dims[0] == n || !dims[0].known() || !n.known()), invalid_argument,
              "{}: {} has shape {}; expected one number per channel, ({}), for an input of shape {}", t.op().name(),
              name, dims_text(dims), to_string(n), dims_text(t[0].dims));
}

void need_channels(const Types& t) {
  need_floating(t);
  OCTET_CHECK(t[0].dim() >= 2, invalid_argument, "{}: the input has shape {}; expected (N, C, ...)", t.op().name(),
              dims_text(t[0].dims));
}

// Operand `name` as doubles; n times `fallback` if it is omitted.
std::vector<double> numbers(const Call& c, const char* name, int64_t n, double fallback) {
  return c.has(name) ? c[name].to(DType::float64).to_vector<double>() : std::vector<double>(n, fallback);
}

// Sums in eight fixed lanes: fast, and the same whatever the threads.
template <typename T, typename Fn>
double lane_sum(const T* p, int64_t n, Fn&& f) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int64_t j = 0; j < 8; ++j) lanes[j] += f(static_cast<double>(p[i + j]));
  for (; i < n; ++i) lanes[i % 8] += f(static_cast<double>(p[i]));
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

// Each row of `size` numbers to mean 0 and variance 1, then element i of row r times weight(r, i) plus bias(r, i). All
// in double, rounded once.
template <typename T, typename Scale>
void normalize_rows(const T* in, T* out, int64_t rows, int64_t size, double eps, const Scale& scale) {
  parallel_ranges(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* p = in + r * size;
      const double mean = lane_sum(p, size, [](double v) { return v; }) / static_cast<double>(size);
      const double variance =
          lane_sum(p, size, [mean](double v) { return (v - mean) * (v - mean); }) / static_cast<double>(size);
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
  const std::vector<double> weight = numbers(c, "weight", channels, 1), bias = numbers(c, "bias", channels, 0);
  visit_float(x.dtype(), c.op().name(), [&](auto zero) {
    using T = decltype(zero);
    auto scale = [&](const T* p, T* q, int64_t row, double mean, double inverse) {
      for (int64_t k = 0; k < per_group; ++k) {
        const double w = weight[row % groups * per_group + k], b = bias[row % groups * per_group + k];
        for (int64_t i = k * plane; i < (k + 1) * plane; ++i)
          q[i] = static_cast<T>((static_cast<double>(p[i]) - mean) * inverse * w + b);
      }
    };
    normalize_rows(x.data<T>(), y.data<T>(), x.size(0) * groups, per_group * plane, c.attrs().get_double("eps"), scale);
  });
  return y;
}

}  // namespace

// y = (x - running_mean) / sqrt(running_var + eps) * weight + bias per channel (dimension 1): inference. Computed as
// f(f(x * f(a)) + f(b)) with a = weight / sqrt(running_var + eps) and b = bias - running_mean * a in double.
OCTET_OP(batch_norm, "batch_norm(x, weight, bias, running_mean, running_var, *, eps=1e-05) -> y", QRule::own,
         infer([](const Types& t) {
           need_channels(t);
           for (const char* name : {"weight", "bias", "running_mean", "running_var"})
             need_vector(t, name, t[0].dims[1]);
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) {
           const Tensor& x = c[0];
           Tensor y = Tensor::empty(x.shape(), x.dtype(), nullptr, format_of(x));
           const int64_t channels = x.size(1);
           const std::vector<double> w = numbers(c, "weight", channels, 1), b = numbers(c, "bias", channels, 0),
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
                   const T* __restrict a = scale.data() + at[2], * __restrict d = shift.data() + at[2];
                   if (step[0] == 1 && step[1] == 1 && step[2] == 0) {
                     for (int64_t i = 0; i < n; ++i) q[i] = p[i] * a[0] + d[0];
                   } else if (step[0] == 1 && step[1] == 1 && step[2] == 1) {
                     for (int64_t i = 0; i < n; ++i) q[i] = p[i] * a[i] + d[i];
                   } else {
                     for (int64_t i = 0; i < n; ++i) q[i * step[0]] = p[i * step[1]] * a[i * step[2]] + d[i * step[2]];
                   }
                 });
           });
           return y;
         }),
         Doc{"(x - running_mean) / sqrt(running_var + eps) * weight + bias, per channel"})

// y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and var over the dimensions axis..end; weight and bias
// have the shape of these dimensions.
OCTET_OP(layer_norm, "layer_norm(x, weight?, bias?, *, axis=-1, eps=1e-05) -> y", QRule::own,
         infer([](const Types& t) {
           need_floating(t);
           int64_t axis = normalize_dim(t.attrs().get_int("axis"), t[0].dim(), "layer_norm");
           std::vector<Dim> inner(t[0].dims.begin() + std::min<int64_t>(axis, t[0].dim()), t[0].dims.end());
           for (const char* name : {"weight", "bias"}) {
             if (!t.has(name)) continue;
             bool fits = t[name].dims.size() == inner.size();
             for (size_t d = 0; d < inner.size() && fits; ++d)
               fits = t[name].dims[d] == inner[d] || !t[name].dims[d].known() || !inner[d].known();
             OCTET_CHECK(fits, invalid_argument,
                         "layer_norm: {} has shape {}; expected {}, the dimensions {} and on of {}", name,
                         dims_text(t[name].dims), dims_text(inner), axis, dims_text(t[0].dims));
           }
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) {
           Tensor x = c[0].contiguous();
           Tensor y = Tensor::empty(x.shape(), x.dtype());
           if (x.numel() == 0) return y;
           int64_t size = 1;
           for (int64_t d = normalize_dim(c.attrs().get_int("axis"), x.dim(), "layer_norm"); d < x.dim(); ++d)
             size *= x.size(d);
           const std::vector<double> weight = numbers(c, "weight", size, 1), bias = numbers(c, "bias", size, 0);
           visit_float(x.dtype(), "layer_norm", [&](auto zero) {
             using T = decltype(zero);
             auto scale = [&](const T* p, T* q, int64_t, double mean, double inverse) {
               for (int64_t i = 0; i < size; ++i)
                 q[i] = static_cast<T>((static_cast<double>(p[i]) - mean) * inverse * weight[i] + bias[i]);
             };
             normalize_rows(x.data<T>(), y.data<T>(), x.numel() / size, size, c.attrs().get_double("eps"), scale);
           });
           return y;
         }),
         Doc{"normalizes the dimensions axis..end, then * weight + bias"})

// Each channel of each image to mean 0 and variance 1, then * weight + bias of the channel.
OCTET_OP(instance_norm, "instance_norm(x, weight?, bias?, *, eps=1e-05) -> y", QRule::own, infer([](const Types& t) {
           need_channels(t);
           for (const char* name : {"weight", "bias"}) need_vector(t, name, t[0].dims[1]);
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) { return normalize_groups(c, c[0].size(1)); }),
         Doc{"normalizes each channel of each image, then * weight + bias"})

// Each of `groups` equal runs of channels of each image to mean 0 and variance 1, then * weight + bias of the channel.
OCTET_OP(group_norm, "group_norm(x, weight?, bias?, *, groups, eps=1e-05) -> y", QRule::own, infer([](const Types& t) {
           need_channels(t);
           int64_t groups = t.attrs().get_int("groups");
           const Dim& channels = t[0].dims[1];
           OCTET_CHECK(groups >= 1 && (!channels.known() || channels.size() % groups == 0), invalid_argument,
                       "group_norm: groups={} does not divide the {} channels of an input of shape {}", groups,
                       to_string(channels), dims_text(t[0].dims));
           for (const char* name : {"weight", "bias"}) need_vector(t, name, channels);
           return t.result(t[0].dims, plain_dtype(t[0]));
         }),
         widened([](const Call& c) { return normalize_groups(c, c.attrs().get_int("groups")); }),
         Doc{"normalizes groups of channels of each image, then * weight + bias"})

}  // namespace octet::ops
