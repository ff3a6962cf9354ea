// QuantizeLinear, DequantizeLinear and the operators on codes. Nothing is merged here: a pass on the graph turns
// dequantize -> op -> quantize into integer operators.
#include "octet/io/onnx_impl.h"

namespace octet::io::onnx_impl {
namespace {

DType quantized_of(const NodeView& n, DType code) {
  switch (code) {
    case DType::uint8:
      return DType::quint8;
    case DType::int8:
      return DType::qint8;
    case DType::int32:
      return DType::qint32;
    default:
      n.unsupported("codes of type {}", to_string(code));
  }
}

// The dtype of codes: the zero point's, else uint8.
DType zero_point_dtype(Importer& im, const NodeView& n, size_t i) {
  Tensor zero = im.known(n, i, "zero_point");
  return quantized_of(n, zero.defined() ? zero.dtype() : DType::uint8);
}

ValPtr quantize_to(Importer& im, const NodeView& n, const ValPtr& x, size_t scale, size_t zero, int64_t axis) {
  DType dtype = zero_point_dtype(im, n, zero);
  if (dtype == DType::qint32) n.unsupported("int32 results");
  QuantizerPtr q =
      read_quantizer(n, im.known(n, scale, "scale"), im.known(n, zero, "zero_point"), axis, x->dims(), dtype);
  return im.call(n, "quantize", {im.cast(n, x, DType::float32)}, {}, ops::QType{dtype, q});
}

// scale * (x - zero_point) of plain integers that no QuantizeLinear made, e.g. an input of the graph.
ValPtr dequantize_plain(Importer& im, const NodeView& n, const ValPtr& x, const Quantizer& q) {
  ValPtr y = im.cast(n, x, DType::float32);
  std::vector<float> scales(q.scales().begin(), q.scales().end());
  std::vector<float> zeros(q.zero_points().begin(), q.zero_points().end());
  Shape shape(static_cast<size_t>(q.is_per_channel() ? x->rank() : 0), 1);
  if (q.is_per_channel()) shape[static_cast<size_t>(q.axis())] = static_cast<int64_t>(scales.size());
  bool shifted = false;
  for (float z : zeros) shifted |= z != 0;
  if (shifted) y = im.call(n, "sub", {y, constant_val(n.output(0) + ".zero_point", Tensor::from(zeros, shape))});
  return im.call(n, "mul", {y, constant_val(n.output(0) + ".scale", Tensor::from(scales, shape))});
}

// The float value of x's codes.
ValPtr dequantize_from(Importer& im, const NodeView& n, const ValPtr& x, const Tensor& scale, const Tensor& zero,
                       int64_t axis) {
  if (x->dequantized) n.fail(ErrorCode::corrupt, "its data is not quantized");
  DType code = x->type.is_quantized() ? code_dtype(x->type.dtype) : x->type.dtype;
  if (zero.defined() && zero.dtype() != code)
    n.fail(ErrorCode::corrupt, "the zero point is {}, the data {}", to_string(zero.dtype()), to_string(code));
  DType dtype = quantized_of(n, code);
  QuantizerPtr q = read_quantizer(n, scale, zero, axis, x->dims(), dtype);
  if (x->is_constant()) {
    Tensor codes = x->type.is_quantized() ? x->constant.int_repr() : x->constant;
    return dequantized_val("", x->name, n.name(), make_quantized(codes, q));
  }
  if (!x->type.is_quantized()) return dequantize_plain(im, n, x, *q);
  if (!(*x->type.quantizer == *q))
    n.unsupported("another scale or zero point ({}) than its data was quantized with ({})", to_string(*q),
                  to_string(*x->type.quantizer));
  return im.call(n, "dequantize", {x});
}

ValPtr dequantize_input(Importer& im, const NodeView& n, size_t x, int64_t axis) {
  return dequantize_from(im, n, im.in(n, x), im.known(n, x + 1, "scale"), im.known(n, x + 2, "zero_point"), axis);
}

void name_unnamed(const ValPtr& v, const std::string& name) {
  if (v && v->name.empty()) v->name = name;
}

// int32 codes with scale s_x * s_w, one per output channel if the weight has several.
ValPtr dequantize_bias(Importer& im, const NodeView& n, size_t i, const ValPtr& w) {
  ValPtr b = im.optional_in(n, i);
  if (!b) return nullptr;
  if (!b->is_constant() || b->constant.dtype() != DType::int32 || b->rank() != 1)
    n.unsupported("a bias that is not a constant");
  Tensor sx = im.known(n, 1, "x_scale"), sw = w->dequantized ? Tensor() : im.known(n, 4, "w_scale");
  std::vector<double> scales =
      w->dequantized ? w->constant.quantizer()->scales() : std::vector<double>{sw.numel() == 1 ? sw.item() : 1.0};
  auto x_scale = static_cast<float>(sx.item());
  for (double& s : scales) s = static_cast<float>(x_scale * static_cast<float>(s));
  if (scales.size() != 1 && static_cast<int64_t>(scales.size()) != b->constant.numel())
    n.fail(ErrorCode::corrupt, "{} bias values for {} weight scales", b->constant.numel(), scales.size());
  QuantizerPtr q = scales.size() == 1
                       ? Quantizer::per_tensor(scales[0], 0, DType::qint32)
                       : Quantizer::per_channel(scales, std::vector<int64_t>(scales.size(), 0), 0, DType::qint32);
  return dequantized_val(b->name + ".dequantized", b->name, n.name(), make_quantized(b->constant, q));
}

void import_qlinear_conv(Importer& im, const NodeView& n) {
  if (Tensor scale = im.known(n, 1, "x_scale"); !scale.defined() || scale.numel() != 1)
    n.fail(ErrorCode::corrupt, "expected one x_scale");
  ValPtr x = dequantize_input(im, n, 0, 1), w = dequantize_input(im, n, 3, 0);
  name_unnamed(w, im.in(n, 3)->name + ".dequantized");
  ValPtr y = emit_conv(im, n, x, w, dequantize_bias(im, n, 8, w));
  im.out(n, 0, quantize_to(im, n, y, 6, 7, 1));
}

void import_qlinear_matmul(Importer& im, const NodeView& n) {
  ValPtr a = dequantize_input(im, n, 0, -2), b = dequantize_input(im, n, 3, -1);
  name_unnamed(a, im.in(n, 0)->name + ".dequantized");
  name_unnamed(b, im.in(n, 3)->name + ".dequantized");
  im.out(n, 0, quantize_to(im, n, emit_matmul(im, n, a, b), 6, 7, -1));
}

}  // namespace

QuantizerPtr read_quantizer(const NodeView& n, const Tensor& scale, const Tensor& zero, int64_t axis,
                            const std::vector<Dim>& dims, DType dtype) {
  if (!scale.defined()) n.fail(ErrorCode::corrupt, "the scale is missing");
  if (scale.dtype() != DType::float32 || scale.dim() > 1 || (zero.defined() && zero.dim() > 1))
    n.unsupported("scales of shape {}", to_string(scale.shape()));
  if (zero.defined() && (is_floating(zero.dtype()) || zero.is_quantized()))
    n.fail(ErrorCode::corrupt, "a zero point of type {}", to_string(zero.dtype()));
  std::vector<double> scales;
  for (float s : scale.to_vector<float>()) scales.push_back(s);
  std::vector<int64_t> zeros(scales.size(), 0);
  if (zero.defined()) {
    std::vector<int64_t> given = zero.to(DType::int64).reshape({-1}).to_vector<int64_t>();
    if (given.size() == 1) given.resize(scales.size(), given[0]);
    if (given.size() != scales.size())
      n.fail(ErrorCode::corrupt, "{} scales and {} zero points", scales.size(), given.size());
    zeros = given;
  }
  // One scale in a vector is per tensor as well, but where the axis has one slice it does not matter.
  if (scales.size() == 1) return Quantizer::per_tensor(scales[0], zeros[0], dtype);
  int64_t d = axis_of(n, axis, static_cast<int64_t>(dims.size()));
  const Dim& along = dims[static_cast<size_t>(d)];
  if (along != Dim(static_cast<int64_t>(scales.size())))
    n.fail(ErrorCode::corrupt, "{} scales along axis {}, which has size {}", scales.size(), d, to_string(along));
  return Quantizer::per_channel(std::move(scales), std::move(zeros), d, dtype);
}

void add_quantization(Handlers& h) {
  h["QuantizeLinear"] = [](Importer& im, const NodeView& n) {
    n.ignore({"saturate"});  // float8 only
    int64_t axis = n.get_int("axis", 1);
    im.out(n, 0, quantize_to(im, n, im.in(n, 0), 1, 2, axis));
  };
  h["DequantizeLinear"] = [](Importer& im, const NodeView& n) {
    int64_t axis = n.get_int("axis", 1);
    im.out(n, 0, dequantize_input(im, n, 0, axis));
  };
  h["QLinearConv"] = import_qlinear_conv;
  h["QLinearMatMul"] = import_qlinear_matmul;
}

}  // namespace octet::io::onnx_impl
