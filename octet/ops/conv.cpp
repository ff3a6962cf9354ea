// Convolutions, plain and transposed. Their kernels are the engines'; an engine answers every
// float32 call, so no eval stands here, but for the 1-d ones, which are 2-d ones on images of
// height 1.
//
// Quantized: acc = sum (q_x - z_x)(q_w - z_w) in int32, bias in int32, then requantized
// (docs/numerics.md).
#include "octet/ops/conv_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

// The attributes of a convolution that its gradient operators take too.
Attrs window_attrs(const Attrs& a) {
  Attrs window;
  for (const char* name : {"stride", "padding", "dilation", "groups"})
    window.set(name, a.get(name));
  return window;
}

// Gradients of x, weight and bias of a convolution.
std::vector<Tensor> conv_gradients(const Grad& g) {
  Tensor dy = plain_dy(g);
  Attrs window = window_attrs(g.attrs());
  std::vector<Tensor> d(g.size());
  if (g.needs(0))
    d[0] = call("conv_backward_data", {dy, g[1]}, Attrs(window).set("input_shape", g[0].shape()));
  if (g.needs(1) || g.needs(2)) {
    const Shape& w = g[1].shape();
    window.set("kernel", Shape(w.begin() + 2, w.end())).set("bias", g.needs(2));
    std::vector<Tensor> weights = call_all("conv_backward_weight", {g[0], dy}, window);
    d[1] = weights[0];
    if (g.needs(2)) d[2] = weights[1];
  }
  return d;
}

// A transposed convolution is the gradient of a plain one from y to x with the same weight, so its
// gradients are that convolution's results.
std::vector<Tensor> transposed_gradients(const Grad& g) {
  Tensor dy = plain_dy(g);
  const Shape &x = g[0].shape(), &w = g[1].shape();
  Attrs window = window_attrs(g.attrs());
  std::vector<Tensor> d(g.size());
  if (g.needs(2)) {
    std::vector<int64_t> others{0};
    for (int64_t i = 2; i < dy.dim(); ++i) others.push_back(i);
    d[2] = call("sum", {dy}, {{"dim", others}, {"keepdim", false}});
  }
  // Cells of output_padding that no window of the plain convolution reaches with a stride as large
  // are left off.
  Tensor reached = dy;
  const auto &s = window.get_ints("stride"), &p = window.get_ints("padding"),
             &dilation = window.get_ints("dilation");
  const size_t spatial = s.size();
  for (size_t i = 0; i < spatial; ++i) {
    int64_t most =
        (x[i + 2] - 1) * s[i] + dilation[i] * (w[i + 2] - 1) + 1 - p[i] - p[i + spatial] + s[i] - 1;
    reached = reached.slice(static_cast<int64_t>(i) + 2, 0, most);
  }
  if (g.needs(0)) d[0] = call(spatial == 2 ? "conv2d" : "conv3d", {reached, g[1]}, window);
  if (g.needs(1))
    d[1] = call_all("conv_backward_weight", {reached, g[0]},
                    Attrs(window).set("kernel", Shape(w.begin() + 2, w.end())))[0];
  return d;
}

// Of a 1-d convolution that was evaluated as a 2-d one on images of height 1.
Gradient gradients_of_2d(std::vector<Tensor> (*fn)(const Grad&)) {
  return gradients([fn](const Grad& g) {
    auto flat = [](const Tensor& t) { return t.defined() && t.dim() == 3 ? t.unsqueeze(2) : t; };
    std::vector<Tensor> inputs, outputs{flat(g.y())}, dys{flat(g.dy())};
    std::vector<bool> needs;
    for (size_t i = 0; i < g.size(); ++i) {
      inputs.push_back(g.has(i) ? flat(g[i]) : Tensor());
      needs.push_back(g.needs(i));
    }
    Call wide(g.call().op(), inputs, with_height(g.attrs()), {});
    std::vector<Tensor> d = fn(Grad(wide, outputs, dys, needs));
    for (Tensor& t : d)
      if (t.defined() && t.dim() == 4) t = t.squeeze(2);
    return d;
  });
}

// What both gradient operators check; x, y: the images, w: the weight.
void check_backward(const Types& t, const std::vector<Dim>& x, const std::vector<Dim>& w,
                    const std::vector<Dim>& y) {
  need_float32(t);
  const std::string& who = t.op().name();
  OCTET_CHECK((x.size() == 4 || x.size() == 5) && w.size() == x.size() && y.size() == x.size(),
              invalid_argument,
              "{}: expected images and a weight of 4 or 5 dimensions, got {}, {} and {}", who,
              x.size(), y.size(), w.size());
  const size_t spatial = x.size() - 2;
  check_list(t.attrs(), "stride", spatial, who);
  check_list(t.attrs(), "dilation", spatial, who);
  check_list(t.attrs(), "padding", 2 * spatial, who);
  const int64_t groups = t.attrs().get_int("groups");
  OCTET_CHECK(x[0] == y[0] && groups >= 1 && w[0] == y[1] && multiply(w[1], Dim(groups)) == x[1],
              invalid_argument,
              "{}: images {} and {} and weight {} with groups={} do not belong to one convolution",
              who, dims_text(x), dims_text(y), dims_text(w), groups);
  const auto &s = t.attrs().get_ints("stride"), &p = t.attrs().get_ints("padding"),
             &d = t.attrs().get_ints("dilation");
  for (size_t i = 0; i < spatial; ++i) {
    Dim size = window_size(x[i + 2], w[i + 2].size(), s[i], p[i], p[i + spatial], d[i], false, who);
    OCTET_CHECK(size == y[i + 2], invalid_argument,
                "{}: a convolution of {} gives size {} at dimension {}, but dy is {}", who,
                dims_text(x), to_string(size), i + 2, dims_text(y));
  }
}

}  // namespace

// The gradient of conv2d and conv3d by their input: dx of shape input_shape from dy and the weight.
OCTET_OP(conv_backward_data,
         "conv_backward_data(dy, weight, *, input_shape, stride=[1, 1], padding=[0, 0, 0, 0], "
         "dilation=[1, 1], groups=1) -> dx",
         QRule::float_only, Doc{"gradient of a convolution by its input, which has input_shape"},
         infer([](const Types& t) {
           const Shape& shape = t.attrs().get_ints("input_shape");
           std::vector<Dim> x(shape.begin(), shape.end());
           check_backward(t, x, t[1].dims, t[0].dims);
           return t.result(std::move(x));
         }))

// The gradients of conv2d and conv3d by weight and bias, from x and dy. db is empty unless `bias`.
OCTET_OP(conv_backward_weight,
         "conv_backward_weight(x, dy, *, kernel, stride=[1, 1], padding=[0, 0, 0, 0], dilation=[1, "
         "1], groups=1, bias=false) "
         "-> dweight, dbias",
         QRule::float_only,
         Doc{"gradients of a convolution by its weight, of size `kernel`, and by its bias (empty "
             "unless bias)"},
         infer_many([](const Types& t) {
           const int64_t groups = t.attrs().get_int("groups");
           OCTET_CHECK(t[0].dim() >= 2 && t[1].dim() >= 2 && groups >= 1 && t[0].dims[1].known() &&
                           t[1].dims[1].known(),
                       invalid_argument, "conv_backward_weight: x {} and dy {} with groups={}",
                       to_string(t[0]), to_string(t[1]), groups);
           std::vector<Dim> w{t[1].dims[1], t[0].dims[1].size() / groups};
           for (int64_t k : t.attrs().get_ints("kernel")) w.push_back(k);
           check_backward(t, t[0].dims, w, t[1].dims);
           return std::vector<TensorType>{t.result(w),
                                          t.result({t.attrs().get_bool("bias") ? w[0] : Dim(0)})};
         }))

// Cross-correlation over (N, C, H, W); weight (O, C/groups, KH, KW); padding is [top, left, bottom,
// right].
OCTET_OP(
    conv2d,
    "conv2d(x, weight, bias?, *, stride=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, "
    "activation=\"none\") -> y",
    QRule::own,
    Doc{"2-d convolution with fused activation (none, relu, relu6); padding is [top, left, bottom, "
        "right]"},
    infer([](const Types& t) { return infer_conv(t, {.spatial = 2}); }), gradients(conv_gradients))

// The same over (N, C, L).
OCTET_OP(conv1d,
         "conv1d(x, weight, bias?, *, stride=[1], padding=[0, 0], dilation=[1], groups=1, "
         "activation=\"none\") -> y",
         QRule::own, Doc{"1-d convolution with fused activation; padding is [left, right]"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 1}); }),
         eval([](const Call& c) { return as_conv2d(c, "conv2d"); }),
         quantized([](const Call& c) { return as_conv2d(c, "conv2d"); }),
         gradients_of_2d(conv_gradients))

// The same over (N, C, D, H, W).
OCTET_OP(conv3d,
         "conv3d(x, weight, bias?, *, stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], dilation=[1, "
         "1, 1], groups=1, "
         "activation=\"none\") -> y",
         QRule::own,
         Doc{"3-d convolution with fused activation; padding is [front, top, left, back, bottom, "
             "right]"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 3}); }),
         gradients(conv_gradients))

// Every element of x adds weight * x to the window of y at element * stride: the gradient of conv2d
// by its input. weight (C, O/groups, KH, KW), as PyTorch has it; y's size is (in-1)*stride -
// padding + dilation*(k-1) + output_padding + 1.
OCTET_OP(conv_transpose2d,
         "conv_transpose2d(x, weight, bias?, *, stride=[1, 1], padding=[0, 0, 0, 0], "
         "output_padding=[0, 0], "
         "dilation=[1, 1], groups=1, activation=\"none\") -> y",
         QRule::own, Traits{.transposed = true},
         Doc{"2-d transposed convolution; weight is (in, out/groups, height, width), per channel "
             "along axis 1"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 2, .transposed = true}); }),
         gradients(transposed_gradients))

OCTET_OP(
    conv_transpose1d,
    "conv_transpose1d(x, weight, bias?, *, stride=[1], padding=[0, 0], output_padding=[0], "
    "dilation=[1], groups=1, "
    "activation=\"none\") -> y",
    QRule::own, Traits{.transposed = true},
    Doc{"1-d transposed convolution; weight is (in, out/groups, length), per channel along axis 1"},
    infer([](const Types& t) { return infer_conv(t, {.spatial = 1, .transposed = true}); }),
    eval([](const Call& c) { return as_conv2d(c, "conv_transpose2d"); }),
    quantized([](const Call& c) { return as_conv2d(c, "conv_transpose2d"); }),
    gradients_of_2d(transposed_gradients))

OCTET_OP(conv_transpose3d,
         "conv_transpose3d(x, weight, bias?, *, stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], "
         "output_padding=[0, 0, 0], "
         "dilation=[1, 1, 1], groups=1, activation=\"none\") -> y",
         QRule::own, Traits{.transposed = true},
         Doc{"3-d transposed convolution; weight is (in, out/groups, depth, height, width), per "
             "channel along axis 1"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 3, .transposed = true}); }),
         gradients(transposed_gradients))

}  // namespace octet::ops
