// Convolutions. Their kernels are the engines'; an engine answers every float32 call, so no eval stands here.
#include "octet/base/check_impl.h"
#include "octet/ops/op.h"
#include "octet/ops/window_impl.h"

namespace octet::ops {
namespace {

// Checks that conv operands fit: x (N, C, spatial...), weight (O, C/groups, kernel...), bias (O).
void check_conv(const Types& t, int64_t spatial) {
  const std::string& who = t.op().name();
  const TensorType &x = t[0], &w = t[1];
  int64_t groups = t.attrs().get_int("groups");
  OCTET_CHECK(x.dim() == spatial + 2 && w.dim() == spatial + 2, invalid_argument,
              "{}: expected {}-d input and weight, got {} and {}", who, spatial + 2, to_string(x), to_string(w));
  check_list(t.attrs(), "stride", spatial, who);
  check_list(t.attrs(), "dilation", spatial, who);
  check_list(t.attrs(), "padding", 2 * spatial, who);
  for (const Dim& d : w.dims)
    OCTET_CHECK(d.known(), invalid_argument, "{}: the weight's shape must be known, got {}", who, to_string(w));
  OCTET_CHECK(groups >= 1 && w.dims[0].size() % groups == 0, invalid_argument, "{}: {} output channels in {} groups", who,
              w.dims[0].size(), groups);
  OCTET_CHECK(x.dims[1].known() && x.dims[1].size() == w.dims[1].size() * groups, invalid_argument,
              "{}: the input has {} channels; weight {} with groups={} expects {}", who, to_string(x.dims[1]), to_string(w),
              groups, w.dims[1].size() * groups);
  if (t.has(2))
    OCTET_CHECK(t[2].dim() == 1 && t[2].dims[0] == w.dims[0], invalid_argument,
                "{}: bias {}: expected one value for each of the {} output channels", who, to_string(t[2]), w.dims[0].size());
  if (w.quantizer && w.quantizer->is_per_channel())
    OCTET_CHECK(w.quantizer->axis() == 0, invalid_argument,
                "{}: per-channel weight along axis {}: weight has shape {} and its output channels are axis 0 (ch_axis=0)",
                who, w.quantizer->axis(), to_string(w.shape()));
  OCTET_CHECK(x.is_quantized() == w.is_quantized(), invalid_argument,
              "{}: input is {} and weight is {}: quantize both or neither (a QuantStub before the layer, or its qconfig)", who,
              to_string(x), to_string(w));
  OCTET_CHECK(x.is_quantized() || !t.want(), invalid_argument,
              "{}: a quantized result was asked for, but the input is {}: quantize it first, or quantize the result", who,
              to_string(x));
}

// conv1d as conv2d on images of height 1.
Tensor as_conv2d(const Call& c, const std::optional<QType>& want) {
  const Attrs& a = c.attrs();
  Attrs attrs{{"stride", std::vector<int64_t>{1, a.get_ints("stride")[0]}},
              {"padding", std::vector<int64_t>{0, a.get_ints("padding")[0], 0, a.get_ints("padding")[1]}},
              {"dilation", std::vector<int64_t>{1, a.get_ints("dilation")[0]}},
              {"groups", a.get_int("groups")},
              {"activation", a.get_string("activation")}};
  return call("conv2d", {c[0].unsqueeze(2), c[1].unsqueeze(2), c.has(2) ? c[2] : Tensor()}, attrs, want).squeeze(2);
}

}  // namespace

// Cross-correlation over (N, C, H, W); weight (O, C/groups, KH, KW); padding is [top, left, bottom, right].
// Quantized: acc = sum (q_x - z_x)(q_w - z_w) in int32, bias in int32, then requantized (docs/numerics.md).
OCTET_OP(conv2d,
         "conv2d(x, weight, bias?, *, stride=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, "
         "activation=\"none\") -> y",
         QRule::own, Doc{"2-d convolution with fused activation (none, relu, relu6); padding is [top, left, bottom, right]"},
         infer([](const Types& t) {
           check_conv(t, 2);
           const auto &s = t.attrs().get_ints("stride"), &p = t.attrs().get_ints("padding"), &d = t.attrs().get_ints("dilation");
           const TensorType &x = t[0], &w = t[1];
           return t.result({x.dims[0], w.dims[0],
                            window_size(x.dims[2], w.dims[2].size(), s[0], p[0], p[2], d[0], false, "conv2d"),
                            window_size(x.dims[3], w.dims[3].size(), s[1], p[1], p[3], d[1], false, "conv2d")});
         }))

// The same over (N, C, L).
OCTET_OP(conv1d,
         "conv1d(x, weight, bias?, *, stride=[1], padding=[0, 0], dilation=[1], groups=1, activation=\"none\") -> y",
         QRule::own, Doc{"1-d convolution with fused activation; padding is [left, right]"},
         infer([](const Types& t) {
           check_conv(t, 1);
           const auto &s = t.attrs().get_ints("stride"), &p = t.attrs().get_ints("padding"), &d = t.attrs().get_ints("dilation");
           return t.result({t[0].dims[0], t[1].dims[0],
                            window_size(t[0].dims[2], t[1].dims[2].size(), s[0], p[0], p[1], d[0], false, "conv1d")});
         }),
         eval([](const Call& c) { return as_conv2d(c, std::nullopt); }),
         quantized([](const Call& c) { return as_conv2d(c, QType{c.outputs()[0].dtype, c.outputs()[0].quantizer}); }))

}  // namespace octet::ops
