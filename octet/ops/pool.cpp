// Pools over images of one to three dimensions. Their kernels are the engines'; 1-d pools are 2-d
// ones on images of height 1.
#include <array>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/ops/op.h"
#include "octet/ops/window_impl.h"

namespace octet::ops {
namespace {

TensorType infer_pool(const Types& t, int64_t spatial) {
  const std::string& who = t.op().name();
  const TensorType& x = t[0];
  OCTET_CHECK(x.dim() == spatial + 2, invalid_argument,
              "{}: expected a {}-d input (N, C, {}), got {}", who, spatial + 2,
              spatial == 1   ? "L"
              : spatial == 2 ? "H, W"
                             : "D, H, W",
              to_string(x));
  check_list(t.attrs(), "kernel", spatial, who);
  check_list(t.attrs(), "stride", spatial, who);
  check_list(t.attrs(), "padding", 2 * spatial, who);
  const auto &k = t.attrs().get_ints("kernel"), &s = t.attrs().get_ints("stride"),
             &p = t.attrs().get_ints("padding");
  std::vector<int64_t> d(spatial, 1);
  if (t.attrs().has("dilation")) {
    check_list(t.attrs(), "dilation", spatial, who);
    d = t.attrs().get_ints("dilation");
  }
  if (t.attrs().has("divisor_override"))
    OCTET_CHECK(
        t.attrs().get_int("divisor_override") >= 0, invalid_argument,
        "{}: divisor_override={}; expected a positive number, or 0 for the number of elements", who,
        t.attrs().get_int("divisor_override"));
  bool ceil_mode = t.attrs().get_bool("ceil_mode");
  std::vector<Dim> dims{x.dims[0], x.dims[1]};
  for (int64_t i = 0; i < spatial; ++i) {
    const int64_t most = std::max(p[i], p[i + spatial]), window = d[i] * (k[i] - 1) + 1;
    OCTET_CHECK(most < std::max<int64_t>(1, window), invalid_argument,
                "{}: padding {} is not smaller than the window {}", who, most, window);
    dims.push_back(
        window_size(x.dims[i + 2], k[i], s[i], p[i], p[i + spatial], d[i], ceil_mode, who));
  }
  return t.result(std::move(dims));
}

TensorType infer_adaptive(const Types& t, int64_t spatial) {
  const std::string& who = t.op().name();
  check_list(t.attrs(), "output_size", spatial, who);
  OCTET_CHECK(t[0].dim() == spatial + 2, invalid_argument,
              "{}: expected a {}-d input (N, C, {}), got {}", who, spatial + 2,
              spatial == 1   ? "L"
              : spatial == 2 ? "H, W"
                             : "D, H, W",
              to_string(t[0]));
  std::vector<Dim> dims{t[0].dims[0], t[0].dims[1]};
  for (int64_t n : t.attrs().get_ints("output_size")) {
    OCTET_CHECK(n >= 1, invalid_argument, "{}: output_size {}; expected 1 or more", who, n);
    OCTET_CHECK(t[0].dims[dims.size()] != Dim(0), invalid_argument, "{}: the image {} is empty",
                who, to_string(t[0]));
    dims.push_back(n);
  }
  return t.result(std::move(dims));
}

// The 2-d pool `op` on an image of height 1.
Tensor as_pool2d(const Call& c, const char* op) {
  Attrs attrs = c.attrs();
  for (const char* name : {"kernel", "stride", "dilation", "output_size"})
    if (attrs.has(name)) attrs.set(name, std::vector<int64_t>{1, c.attrs().get_ints(name)[0]});
  if (attrs.has("padding")) {
    const auto& padding = c.attrs().get_ints("padding");
    attrs.set("padding", std::vector<int64_t>{0, padding[0], 0, padding[1]});
  }
  const TensorType& y = c.outputs()[0];
  std::optional<QType> want;
  if (y.is_quantized()) want = QType{y.dtype, y.quantizer};
  return call(op, {c[0].unsqueeze(2)}, attrs, want).squeeze(2);
}

Infer pool_type(int64_t spatial) {
  return infer([spatial](const Types& t) { return infer_pool(t, spatial); });
}
Infer adaptive_type(int64_t spatial) {
  return infer([spatial](const Types& t) { return infer_adaptive(t, spatial); });
}

// -- gradients ------------------------------------------------------------------------------------

// One output's window along one dimension: the places inside the image, and how many places with
// the padding.
struct Span {
  std::vector<int64_t> inside;
  int64_t padded = 0;
};

// The windows of spatial dimension d of a pool, one per output.
std::vector<Span> spans(const Attrs& a, int64_t d, int64_t spatial, int64_t size, int64_t outputs) {
  std::vector<Span> result(outputs);
  for (int64_t o = 0; o < outputs; ++o) {
    Span& s = result[o];
    if (a.has("output_size")) {
      for (int64_t i = o * size / outputs; i < ((o + 1) * size + outputs - 1) / outputs; ++i)
        s.inside.push_back(i);
      s.padded = static_cast<int64_t>(s.inside.size());
      continue;
    }
    const auto& padding = a.get_ints("padding");
    const int64_t dilation = a.has("dilation") ? a.get_ints("dilation")[d] : 1;
    for (int64_t k = 0; k < a.get_ints("kernel")[d]; ++k) {
      const int64_t i = o * a.get_ints("stride")[d] - padding[d] + k * dilation;
      if (i >= 0 && i < size) s.inside.push_back(i);
      if (i < size + padding[d + spatial]) ++s.padded;
    }
  }
  return result;
}

// dx of a pool, channels last. A maximum's gradient goes to the first element of the window that
// equals it.
template <bool maximum>
Tensor pool_gradient(const Grad& g) {
  const Attrs& a = g.attrs();
  const int64_t spatial = g[0].dim() - 2, images = g[0].size(0), channels = g[0].size(1);
  std::array<std::vector<Span>, 3> windows;
  std::array<int64_t, 3> size{1, 1, 1};
  for (int64_t d = 0; d < 3; ++d) {
    if (d < 3 - spatial) {
      windows[d] = {Span{{0}, 1}};
      continue;
    }
    const int64_t at = d - (3 - spatial);
    size[d] = g[0].size(at + 2);
    windows[d] = spans(a, at, spatial, size[d], g.y().size(at + 2));
  }
  const bool include_pad = a.has("count_include_pad") && a.get_bool("count_include_pad");
  const int64_t divisor = a.has("divisor_override") ? a.get_int("divisor_override") : 0;
  Tensor x = g[0].contiguous(MemoryFormat::channels_last),
         y = g.y().contiguous(MemoryFormat::channels_last);
  Tensor dy = g.dy().contiguous(MemoryFormat::channels_last);
  Tensor dx = Tensor::empty(x.shape(), DType::float32, nullptr, MemoryFormat::channels_last);
  if (x.numel() == 0) return dx;
  const int64_t in = x.numel() / images, out = y.numel() / images;  // elements of one image
  const float *px = x.data<float>(), *py = y.data<float>(), *pdy = dy.data<float>();
  float* pdx = dx.data<float>();
  parallel_for(images, [&](int64_t n) {
    std::vector<uint32_t> given(channels);
    std::fill_n(pdx + n * in, in, 0.0f);
    const float *best = py + n * out, *d = pdy + n * out;
    for (const Span& z : windows[0])
      for (const Span& r : windows[1])
        for (const Span& c : windows[2]) {
          const auto inside =
              static_cast<int64_t>(z.inside.size() * r.inside.size() * c.inside.size());
          const int64_t count = divisor > 0   ? divisor
                                : include_pad ? z.padded * r.padded * c.padded
                                              : inside;
          const float share = 1.0f / static_cast<float>(count);
          std::fill(given.begin(), given.end(), 0);
          for (int64_t iz : z.inside)
            for (int64_t iy : r.inside)
              for (int64_t ix : c.inside) {
                const int64_t at = n * in + ((iz * size[1] + iy) * size[2] + ix) * channels;
                const float* __restrict v = px + at;
                float* __restrict o = pdx + at;
                uint32_t* __restrict taken = given.data();
                for (int64_t k = 0; k < channels; ++k) {
                  if constexpr (maximum) {
                    const bool here = (v[k] == best[k]) & (taken[k] == 0);
                    o[k] += here ? d[k] : 0.0f;
                    taken[k] |= here;
                  } else {
                    o[k] += d[k] * share;
                  }
                }
              }
          best += channels;
          d += channels;
        }
  });
  return dx;
}

}  // namespace

// Quantized: the maximum of the codes; qparams unchanged.
OCTET_OP(
    max_pool2d,
    "max_pool2d(x, *, kernel, stride, padding=[0, 0, 0, 0], dilation=[1, 1], ceil_mode=false) -> y",
    QRule::same, Traits{.selects = true},
    Doc{"maximum over windows; padding is [top, left, bottom, right] and never wins"}, pool_type(2),
    gradient(pool_gradient<true>))

OCTET_OP(max_pool1d,
         "max_pool1d(x, *, kernel, stride, padding=[0, 0], dilation=[1], ceil_mode=false) -> y",
         QRule::same, Traits{.selects = true},
         Doc{"maximum over windows of (N, C, L); padding is [left, right] and never wins"},
         pool_type(1), eval([](const Call& c) { return as_pool2d(c, "max_pool2d"); }),
         gradient(pool_gradient<true>))

OCTET_OP(max_pool3d,
         "max_pool3d(x, *, kernel, stride, padding=[0, 0, 0, 0, 0, 0], dilation=[1, 1, 1], "
         "ceil_mode=false) -> y",
         QRule::same, Traits{.selects = true},
         Doc{"maximum over windows of (N, C, D, H, W); padding is [front, top, left, back, bottom, "
             "right] and never wins"},
         pool_type(3), gradient(pool_gradient<true>))

// Quantized: y = clamp(rne(f(f(sum(q - z)) * f(1/count))) + z), with the result's own multiplier if
// its qparams differ. The count is divisor_override if that is not 0.
OCTET_OP(avg_pool2d,
         "avg_pool2d(x, *, kernel, stride, padding=[0, 0, 0, 0], ceil_mode=false, "
         "count_include_pad=true, "
         "divisor_override=0) -> y",
         QRule::same,
         Doc{"mean over windows; count_include_pad counts padding as zeros, divisor_override "
             "replaces the count"},
         pool_type(2), gradient(pool_gradient<false>))

OCTET_OP(avg_pool1d,
         "avg_pool1d(x, *, kernel, stride, padding=[0, 0], ceil_mode=false, "
         "count_include_pad=true) -> y",
         QRule::same,
         Doc{"mean over windows of (N, C, L); count_include_pad counts padding as zeros"},
         pool_type(1), eval([](const Call& c) { return as_pool2d(c, "avg_pool2d"); }),
         gradient(pool_gradient<false>))

OCTET_OP(avg_pool3d,
         "avg_pool3d(x, *, kernel, stride, padding=[0, 0, 0, 0, 0, 0], ceil_mode=false, "
         "count_include_pad=true, "
         "divisor_override=0) -> y",
         QRule::same, Doc{"mean over windows of (N, C, D, H, W); as avg_pool2d"}, pool_type(3),
         gradient(pool_gradient<false>))

// Cell i of n covers floor(i*H/n) to ceil((i+1)*H/n). Quantized as avg_pool2d.
OCTET_OP(adaptive_avg_pool2d, "adaptive_avg_pool2d(x, *, output_size=[1, 1]) -> y", QRule::same,
         Traits{.averages = true},
         Doc{"mean over an even grid of output_size cells; [1, 1] is the global average"},
         adaptive_type(2), gradient(pool_gradient<false>))

OCTET_OP(adaptive_avg_pool1d, "adaptive_avg_pool1d(x, *, output_size=[1]) -> y", QRule::same,
         Traits{.averages = true}, Doc{"mean over output_size even cells of (N, C, L)"},
         adaptive_type(1), eval([](const Call& c) { return as_pool2d(c, "adaptive_avg_pool2d"); }),
         gradient(pool_gradient<false>))

OCTET_OP(adaptive_avg_pool3d, "adaptive_avg_pool3d(x, *, output_size=[1, 1, 1]) -> y", QRule::same,
         Traits{.averages = true},
         Doc{"mean over an even grid of output_size cells of (N, C, D, H, W)"}, adaptive_type(3),
         gradient(pool_gradient<false>))

// The same cells as adaptive_avg_pool2d. Quantized as max_pool2d.
OCTET_OP(adaptive_max_pool2d, "adaptive_max_pool2d(x, *, output_size=[1, 1]) -> y", QRule::same,
         Traits{.selects = true}, Doc{"maximum over an even grid of output_size cells"},
         adaptive_type(2), gradient(pool_gradient<true>))

OCTET_OP(adaptive_max_pool1d, "adaptive_max_pool1d(x, *, output_size=[1]) -> y", QRule::same,
         Traits{.selects = true}, Doc{"maximum over output_size even cells of (N, C, L)"},
         adaptive_type(1), eval([](const Call& c) { return as_pool2d(c, "adaptive_max_pool2d"); }),
         gradient(pool_gradient<true>))

OCTET_OP(adaptive_max_pool3d, "adaptive_max_pool3d(x, *, output_size=[1, 1, 1]) -> y", QRule::same,
         Traits{.selects = true},
         Doc{"maximum over an even grid of output_size cells of (N, C, D, H, W)"}, adaptive_type(3),
         gradient(pool_gradient<true>))

}  // namespace octet::ops
