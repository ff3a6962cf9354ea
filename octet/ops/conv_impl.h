#pragma once
// What the type inferences of linear layers and convolutions share.

#include "octet/base/check_impl.h"
#include "octet/ops/op.h"
#include "octet/ops/window_impl.h"

namespace octet::ops {

// How a layer's weight may be quantized.
enum class WeightRule {
  as_input,  // x and weight both float or both quantized; a quantized result has qparams of its own
  // x float (of dynamic layers also codes), weight codes of 8 bits (linear: or 4) or float16:
  // dynamic and weight-only layers; the result is float
  codes,
};

struct ConvForm {
  int64_t spatial = 2;  // dimensions the window slides over
  bool transposed = false;
  WeightRule weight = WeightRule::as_input;
};

// Checks what linear layers and convolutions share; `axis` is the weight's output channels.
inline void check_weight_types(const Types& t, WeightRule rule, int64_t axis) {
  const std::string& who = t.op().name();
  const TensorType &x = t[0], &w = t[1];
  if (w.quantizer && w.quantizer->is_per_channel())
    OCTET_CHECK(w.quantizer->axis() == axis, invalid_argument,
                "{}: per-channel weight along axis {}: weight has shape {} and its output channels "
                "are axis {} (ch_axis={})",
                who, w.quantizer->axis(), to_string(w.shape()), axis, axis);
  if (rule == WeightRule::as_input) {
    OCTET_CHECK(x.is_quantized() == w.is_quantized(), invalid_argument,
                "{}: input is {} and weight is {}: quantize both or neither (a QuantStub before "
                "the layer, or its qconfig)",
                who, to_string(x), to_string(w));
    OCTET_CHECK(x.is_quantized() || !t.want(), invalid_argument,
                "{}: a quantized result was asked for, but the input is {}: quantize it first, or "
                "quantize the result",
                who, to_string(x));
    return;
  }
  const bool dynamic = who.ends_with("_dynamic");
  const bool codes =
      dynamic && is_8_bit(x.dtype) && !x.quantizer->is_per_channel() && w.is_quantized();
  OCTET_CHECK(x.dtype == DType::float32 || codes, invalid_argument,
              "{}: input is {}; expected float32, which it {}", who, to_string(x),
              dynamic ? "quantizes itself, or codes of 8 bits with one scale" : "computes in");

  const bool linear = who.starts_with("linear");
  OCTET_CHECK(
      w.dtype == DType::qint8 || w.dtype == DType::quint8 || w.dtype == DType::float16 ||
          (linear && is_packed(w.dtype)),
      invalid_argument,
      "{}: weight is {}; expected qint8, quint8{} or float16: quantize it, or use the float layer",
      who, to_string(w), linear ? ", qint4x2, quint4x2" : "");
}

// The result type of a linear layer on x (..., K), weight (N, K), bias (N).
inline TensorType infer_linear(const Types& t, WeightRule rule) {
  const std::string& who = t.op().name();
  const TensorType &x = t[0], &w = t[1];
  OCTET_CHECK(w.dim() == 2 && w.is_static() && x.dim() >= 1, invalid_argument,
              "{}: expected x (..., in) and weight (out, in), got {} and {}", who, to_string(x),
              to_string(w));
  OCTET_CHECK(x.dims.back() == w.dims[1], invalid_argument,
              "{}: x {} has {} features; weight {} expects {}", who, to_string(x),
              to_string(x.dims.back()), to_string(w), w.dims[1].size());
  if (t.has(2))
    OCTET_CHECK(t[2].dim() == 1 && t[2].dims[0] == w.dims[0], invalid_argument,
                "{}: bias {}: expected one value for each of the {} outputs", who, to_string(t[2]),
                w.dims[0].size());
  check_weight_types(t, rule, 0);
  auto dims = x.dims;
  dims.back() = w.dims[0];
  return rule == WeightRule::codes ? TensorType(DType::float32, dims) : t.result(dims);
}

// Whether a transposed convolution makes each output channel of one input channel alone: then its
// weight (C, 1, kernel...) may have a scale per input channel, along axis 0.
inline bool is_depthwise_transposed(const TensorType& weight, int64_t groups) {
  return weight.dim() > 2 && weight.dims[1] == Dim(1) && weight.dims[0] == Dim(groups);
}

// The axis that per-channel scales of a convolution's weight lie along by default: its output
// channels, or the input channels of a depthwise transposed one, whose other axis has the size 1.
inline int64_t weight_scale_axis(bool transposed, const TensorType& weight, int64_t groups) {
  return transposed && !is_depthwise_transposed(weight, groups) ? 1 : 0;
}

// The result type of a convolution of x (N, C, spatial...) with weight (O, C/groups, kernel...),
// transposed: (C, O/groups, kernel...), and bias (O), all checked. Transposed with per-channel
// weights, channel j of each group has the scale j, and of a depthwise one channel c the scale c
// where they lie along axis 0.
inline TensorType infer_conv(const Types& t, const ConvForm& form) {
  const std::string& who = t.op().name();
  const TensorType &x = t[0], &w = t[1];
  const int64_t spatial = form.spatial, groups = t.attrs().get_int("groups");
  OCTET_CHECK(x.dim() == spatial + 2 && w.dim() == spatial + 2, invalid_argument,
              "{}: expected {}-d input and weight, got {} and {}", who, spatial + 2, to_string(x),
              to_string(w));
  check_list(t.attrs(), "stride", spatial, who);
  check_list(t.attrs(), "dilation", spatial, who);
  check_list(t.attrs(), "padding", 2 * spatial, who);
  if (form.transposed) check_list(t.attrs(), "output_padding", spatial, who);
  for (const Dim& d : w.dims)
    OCTET_CHECK(d.known(), invalid_argument, "{}: the weight's shape must be known, got {}", who,
                to_string(w));
  const int64_t rows = w.dims[0].size(), columns = w.dims[1].size();
  OCTET_CHECK(groups >= 1 && rows % groups == 0, invalid_argument,
              "{}: {} {} channels in {} groups", who, rows, form.transposed ? "input" : "output",
              groups);
  const int64_t in = form.transposed ? rows : columns * groups,
                out = form.transposed ? columns * groups : rows;
  OCTET_CHECK(x.dims[1].known() && x.dims[1].size() == in, invalid_argument,
              "{}: the input has {} channels; weight {} with groups={} expects {}", who,
              to_string(x.dims[1]), to_string(w), groups, in);
  if (t.has(2))
    OCTET_CHECK(t[2].dim() == 1 && t[2].dims[0] == Dim(out), invalid_argument,
                "{}: bias {}: expected one value for each of the {} output channels", who,
                to_string(t[2]), out);
  const bool by_input = form.transposed && w.quantizer && w.quantizer->axis() == 0 &&
                        is_depthwise_transposed(w, groups);
  check_weight_types(t, form.weight, form.transposed && !by_input ? 1 : 0);
  const auto &s = t.attrs().get_ints("stride"), &p = t.attrs().get_ints("padding"),
             &d = t.attrs().get_ints("dilation");
  std::vector<Dim> dims{x.dims[0], out};
  for (int64_t i = 0; i < spatial; ++i) {
    const int64_t kernel = w.dims[i + 2].size();
    dims.push_back(
        form.transposed
            ? transposed_size(x.dims[i + 2], kernel, s[i], p[i], p[i + spatial], d[i],
                              t.attrs().get_ints("output_padding")[i], who)
            : window_size(x.dims[i + 2], kernel, s[i], p[i], p[i + spatial], d[i], false, who));
  }
  return form.weight == WeightRule::codes ? TensorType(DType::float32, dims) : t.result(dims);
}

// The attributes of a 1-d convolution for the 2-d one on images of height 1.
inline Attrs with_height(const Attrs& flat) {
  Attrs attrs = flat;
  for (const char* name : {"stride", "dilation"})
    attrs.set(name, std::vector<int64_t>{1, flat.get_ints(name)[0]});
  const auto& padding = flat.get_ints("padding");
  attrs.set("padding", std::vector<int64_t>{0, padding[0], 0, padding[1]});
  if (attrs.has("output_padding"))
    attrs.set("output_padding", std::vector<int64_t>{0, flat.get_ints("output_padding")[0]});
  return attrs;
}

// The weight of a 1-d convolution for the 2-d one. A quantized one is the same handle at every
// call, so that what it is packed into is kept (op.cpp).
Tensor weight_with_height(const Tensor& weight);

// A 1-d convolution as the 2-d one `op` on images of height 1.
inline Tensor as_conv2d(const Call& c, const char* op) {
  Attrs attrs = with_height(c.attrs());
  const TensorType& y = c.outputs()[0];
  std::optional<QType> want;
  if (y.is_quantized()) want = QType{y.dtype, y.quantizer};
  return call(op, {c[0].unsqueeze(2), weight_with_height(c[1]), c.has(2) ? c[2] : Tensor()}, attrs,
              want)
      .squeeze(2);
}

}  // namespace octet::ops
