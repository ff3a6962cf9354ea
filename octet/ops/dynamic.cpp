// Layers whose weights alone are quantized beforehand. *_dynamic quantizes x when its values are
// known and multiplies codes; *_weight_only multiplies x by the weight's numbers. A float16 weight
// is computed with in float32 by both.
//
// Dynamic: x becomes quint8 codes with the scale and zero point of its range (docs/numerics.md,
// "Run-time choice"; one range for the whole tensor, reduce_range halves the codes), acc = sum (q_x
// - z_x)(q_w - z_w) in int32, and y = f(f(f(acc) * f(s_x*s_w)) + bias), as QNNPACK's. Values that
// are not finite are an error. With rule="onnx" the qparams and codes are those that ONNX defines
// for DynamicQuantizeLinear. x may be codes already, which are taken as they are.
#include "octet/ops/conv_impl.h"
#include "octet/ops/define_impl.h"

namespace octet::ops {
namespace {

// The float layer with the weight's numbers.
Tensor in_float(const Call& c) {
  Attrs attrs = c.attrs();
  attrs.erase("reduce_range");
  attrs.erase("rule");
  const Tensor x = c[0].is_quantized() ? c[0].dequantize() : c[0];
  return call(c.op().traits().layer, {x, c[1].dequantize(), c.has(2) ? c[2] : Tensor()}, attrs);
}

Tensor by_engine(const Call& c) {
  auto results = try_engine(c);
  OCTET_CHECK(results, unsupported, "{}: no engine has a kernel for input {}, weight {}{}",
              c.op().name(), to_string(c[0].type()), to_string(c[1].type()),
              c.has(2) ? " and bias " + to_string(c[2].type()) : "");
  return (*results)[0];
}

// Engines keep the weight packed (linear; docs/numerics.md says what is summed how) or dequantized;
// where none has a kernel it is dequantized at each call.
Tensor weight_only(const Call& c) {
  if (auto results = try_engine(c)) return (*results)[0];
  return in_float(c);
}

void check_rule(const Types& t) {
  if (!t.attrs().has("rule")) return;  // weight-only
  const std::string& rule = t.attrs().get_string("rule");
  OCTET_CHECK(rule == "pytorch" || rule == "onnx", invalid_argument,
              "{}: rule=\"{}\"; expected \"pytorch\" or \"onnx\"", t.op().name(), rule);
  OCTET_CHECK(rule == "pytorch" || !t.attrs().get_bool("reduce_range"), invalid_argument,
              "{}: reduce_range is not part of ONNX's rule", t.op().name());
}

Infer conv_type(int64_t spatial, bool transposed = false) {
  return infer([=](const Types& t) {
    check_rule(t);
    return infer_conv(t,
                      {.spatial = spatial, .transposed = transposed, .weight = WeightRule::codes});
  });
}

Infer linear_type() {
  return infer([](const Types& t) {
    check_rule(t);
    return infer_linear(t, WeightRule::codes);
  });
}

}  // namespace

OCTET_OP(
    linear_dynamic,
    "linear_dynamic(x, weight, bias?, *, activation=\"none\", reduce_range=false, "
    "rule=\"pytorch\") -> y",
    QRule::weights, Traits{.layer = "linear", .form = WeightForm::dynamic},
    Doc{"linear on x quantized at run time; weight of 8 or 4 bits or float16, x and y float32"},
    linear_type(), eval(in_float), quantized(by_engine))

OCTET_OP(linear_weight_only, "linear_weight_only(x, weight, bias?, *, activation=\"none\") -> y",
         QRule::weights, Traits{.layer = "linear", .form = WeightForm::weight_only},
         Doc{"y = x * dequantize(weight)^T + bias as exact as in float32; weight of 8 or 4 bits or "
             "float16"},
         linear_type(), eval(in_float), quantized(weight_only))

OCTET_OP(conv1d_dynamic,
         "conv1d_dynamic(x, weight, bias?, *, "
         "stride=[1], padding=[0, 0], dilation=[1], groups=1, activation=\"none\", "
         "reduce_range=false, rule=\"pytorch\") -> y",
         QRule::weights, Traits{.layer = "conv1d", .form = WeightForm::dynamic},
         Doc{"conv1d on x quantized at run time, as linear_dynamic"}, conv_type(1), eval(in_float),
         quantized([](const Call& c) { return as_conv2d(c, "conv2d_dynamic"); }))

OCTET_OP(conv2d_dynamic,
         "conv2d_dynamic(x, weight, bias?, *, "
         "stride=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, activation=\"none\", "
         "reduce_range=false, rule=\"pytorch\") -> y",
         QRule::weights, Traits{.layer = "conv2d", .form = WeightForm::dynamic},
         Doc{"conv2d on x quantized at run time, as linear_dynamic"}, conv_type(2), eval(in_float),
         quantized(by_engine))

OCTET_OP(conv3d_dynamic,
         "conv3d_dynamic(x, weight, bias?, *, "
         "stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], dilation=[1, 1, 1], groups=1, "
         "activation=\"none\", reduce_range=false, rule=\"pytorch\") -> y",
         QRule::weights, Traits{.layer = "conv3d", .form = WeightForm::dynamic},
         Doc{"conv3d on x quantized at run time, as linear_dynamic"}, conv_type(3), eval(in_float),
         quantized(by_engine))

OCTET_OP(conv_transpose1d_dynamic,
         "conv_transpose1d_dynamic(x, weight, bias?, *, "
         "stride=[1], padding=[0, 0], output_padding=[0], dilation=[1], groups=1, "
         "activation=\"none\", reduce_range=false, rule=\"pytorch\") -> y",
         QRule::weights,
         Traits{.transposed = true, .layer = "conv_transpose1d", .form = WeightForm::dynamic},
         Doc{"conv_transpose1d on x quantized at run time, as linear_dynamic"}, conv_type(1, true),
         eval(in_float),
         quantized([](const Call& c) { return as_conv2d(c, "conv_transpose2d_dynamic"); }))

OCTET_OP(conv_transpose2d_dynamic,
         "conv_transpose2d_dynamic(x, weight, bias?, *, "
         "stride=[1, 1], padding=[0, 0, 0, 0], output_padding=[0, 0], dilation=[1, 1], groups=1, "
         "activation=\"none\", reduce_range=false, rule=\"pytorch\") -> y",
         QRule::weights,
         Traits{.transposed = true, .layer = "conv_transpose2d", .form = WeightForm::dynamic},
         Doc{"conv_transpose2d on x quantized at run time, as linear_dynamic"}, conv_type(2, true),
         eval(in_float), quantized(by_engine))

OCTET_OP(conv_transpose3d_dynamic,
         "conv_transpose3d_dynamic(x, weight, bias?, *, "
         "stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], output_padding=[0, 0, 0], dilation=[1, 1, "
         "1], groups=1, activation=\"none\", reduce_range=false, rule=\"pytorch\") -> y",
         QRule::weights,
         Traits{.transposed = true, .layer = "conv_transpose3d", .form = WeightForm::dynamic},
         Doc{"conv_transpose3d on x quantized at run time, as linear_dynamic"}, conv_type(3, true),
         eval(in_float), quantized(by_engine))

OCTET_OP(conv1d_weight_only,
         "conv1d_weight_only(x, weight, bias?, *, "
         "stride=[1], padding=[0, 0], dilation=[1], groups=1, activation=\"none\") -> y",
         QRule::weights, Traits{.layer = "conv1d", .form = WeightForm::weight_only},
         Doc{"conv1d with the dequantized weight, in float32"}, conv_type(1), eval(in_float),
         quantized([](const Call& c) { return as_conv2d(c, "conv2d_weight_only"); }))

OCTET_OP(
    conv2d_weight_only,
    "conv2d_weight_only(x, weight, bias?, *, "
    "stride=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, activation=\"none\") -> y",
    QRule::weights, Traits{.layer = "conv2d", .form = WeightForm::weight_only},
    Doc{"conv2d with the dequantized weight, in float32"}, conv_type(2), eval(in_float),
    quantized(weight_only))

OCTET_OP(conv3d_weight_only,
         "conv3d_weight_only(x, weight, bias?, *, "
         "stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], dilation=[1, 1, 1], groups=1, "
         "activation=\"none\") -> y",
         QRule::weights, Traits{.layer = "conv3d", .form = WeightForm::weight_only},
         Doc{"conv3d with the dequantized weight, in float32"}, conv_type(3), eval(in_float),
         quantized(weight_only))

OCTET_OP(conv_transpose1d_weight_only,
         "conv_transpose1d_weight_only(x, weight, bias?, *, "
         "stride=[1], padding=[0, 0], output_padding=[0], dilation=[1], groups=1, "
         "activation=\"none\") -> y",
         QRule::weights,
         Traits{.transposed = true, .layer = "conv_transpose1d", .form = WeightForm::weight_only},
         Doc{"conv_transpose1d with the dequantized weight, in float32"}, conv_type(1, true),
         eval(in_float),
         quantized([](const Call& c) { return as_conv2d(c, "conv_transpose2d_weight_only"); }))

OCTET_OP(conv_transpose2d_weight_only,
         "conv_transpose2d_weight_only(x, weight, bias?, *, "
         "stride=[1, 1], padding=[0, 0, 0, 0], output_padding=[0, 0], dilation=[1, 1], groups=1, "
         "activation=\"none\") -> y",
         QRule::weights,
         Traits{.transposed = true, .layer = "conv_transpose2d", .form = WeightForm::weight_only},
         Doc{"conv_transpose2d with the dequantized weight, in float32"}, conv_type(2, true),
         eval(in_float), quantized(weight_only))

OCTET_OP(conv_transpose3d_weight_only,
         "conv_transpose3d_weight_only(x, weight, bias?, *, "
         "stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], output_padding=[0, 0, 0], dilation=[1, 1, "
         "1], groups=1, activation=\"none\") -> y",
         QRule::weights,
         Traits{.transposed = true, .layer = "conv_transpose3d", .form = WeightForm::weight_only},
         Doc{"conv_transpose3d with the dequantized weight, in float32"}, conv_type(3, true),
         eval(in_float), quantized(weight_only))

}  // namespace octet::ops
