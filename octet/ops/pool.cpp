// Pools over images. Their kernels are the engines'.
#include "octet/base/check_impl.h"
#include "octet/ops/op.h"
#include "octet/ops/window_impl.h"

namespace octet::ops {
namespace {

TensorType infer_pool(const Types& t, bool dilated) {
  const std::string& who = t.op().name();
  const TensorType& x = t[0];
  OCTET_CHECK(x.dim() == 4, invalid_argument, "{}: expected a 4-d input (N, C, H, W), got {}", who, to_string(x));
  check_list(t.attrs(), "kernel", 2, who);
  check_list(t.attrs(), "stride", 2, who);
  check_list(t.attrs(), "padding", 4, who);
  const auto &k = t.attrs().get_ints("kernel"), &s = t.attrs().get_ints("stride"), &p = t.attrs().get_ints("padding");
  std::vector<int64_t> d{1, 1};
  if (dilated) {
    check_list(t.attrs(), "dilation", 2, who);
    d = t.attrs().get_ints("dilation");
  }
  for (int i : {0, 1})
    OCTET_CHECK(std::max(p[i], p[i + 2]) < std::max<int64_t>(1, d[i] * (k[i] - 1) + 1), invalid_argument,
                "{}: padding {} is not smaller than the window {}", who, std::max(p[i], p[i + 2]), d[i] * (k[i] - 1) + 1);
  bool ceil_mode = t.attrs().get_bool("ceil_mode");
  return t.result({x.dims[0], x.dims[1], window_size(x.dims[2], k[0], s[0], p[0], p[2], d[0], ceil_mode, who),
                   window_size(x.dims[3], k[1], s[1], p[1], p[3], d[1], ceil_mode, who)});
}

}  // namespace

// Quantized: the maximum of the codes; qparams unchanged.
OCTET_OP(max_pool2d,
         "max_pool2d(x, *, kernel, stride, padding=[0, 0, 0, 0], dilation=[1, 1], ceil_mode=false) -> y", QRule::same,
         Doc{"maximum over windows; padding is [top, left, bottom, right] and never wins"},
         infer([](const Types& t) { return infer_pool(t, true); }))

// Quantized: y = clamp(rne(f(f(sum(q - z)) * f(1/count))) + z), with the result's own multiplier if its qparams differ.
OCTET_OP(avg_pool2d,
         "avg_pool2d(x, *, kernel, stride, padding=[0, 0, 0, 0], ceil_mode=false, count_include_pad=true) -> y", QRule::same,
         Doc{"mean over windows; count_include_pad counts padding as zeros"},
         infer([](const Types& t) { return infer_pool(t, false); }))

// Cell i of n covers floor(i*H/n) to ceil((i+1)*H/n). Quantized as avg_pool2d.
OCTET_OP(adaptive_avg_pool2d, "adaptive_avg_pool2d(x, *, output_size=[1, 1]) -> y", QRule::same,
         Doc{"mean over an even grid of output_size cells; [1, 1] is the global average"},
         infer([](const Types& t) {
           check_list(t.attrs(), "output_size", 2, "adaptive_avg_pool2d");
           const auto& size = t.attrs().get_ints("output_size");
           OCTET_CHECK(t[0].dim() == 4 && size[0] >= 1 && size[1] >= 1, invalid_argument,
                       "adaptive_avg_pool2d: expected (N, C, H, W) and a positive output_size, got {} and ({}, {})",
                       to_string(t[0]), size[0], size[1]);
           return t.result({t[0].dims[0], t[0].dims[1], size[0], size[1]});
         }))

}  // namespace octet::ops
