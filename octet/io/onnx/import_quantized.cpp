// QuantizeLinear, DequantizeLinear and the operators on codes. Nothing is merged here: a pass on
// the graph turns dequantize -> op -> quantize into integer operators.
#include <onnx/onnx_pb.h>

#include <algorithm>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

DType quantized_of(const NodeView& n, DType code) {
  for (DType dtype : {DType::quint8, DType::qint8, DType::quint16, DType::qint16, DType::qint32})
    if (code_dtype(dtype) == code) return dtype;
  n.unsupported("codes of type {}", to_string(code));
}

// The type of codes as plain integers: the zero point's, else uint8.
DType code_type(const ValPtr& zero) {
  if (!zero) return DType::uint8;
  return zero->type.is_quantized() ? code_dtype(zero->type.dtype) : zero->type.dtype;
}

// Whether an input is a constant, or omitted.
bool is_known(Importer& im, const NodeView& n, size_t i) {
  const ValPtr v = im.optional_in(n, i);
  return !v || v->constant.defined();
}

// Codes that no octet type of quantized tensors has: of scales per block, or of scales that data
// decides. They are plain integers, and their arithmetic is spelled out.
struct PlainCodes {
  DType dtype;
  double low, high;
};

PlainCodes plain_codes_of(const NodeView& n, DType dtype, int32_t narrow) {
  if (narrow == kUint4) return {DType::uint8, 0, 15};
  if (narrow == kInt4) return {DType::int8, -8, 7};
  if (dtype == DType::int16) return {dtype, -32768, 32767};
  if (dtype == DType::uint16) return {dtype, 0, 65535};
  if (dtype == DType::uint8) return {dtype, 0, 255};
  if (dtype == DType::int8) return {dtype, -128, 127};
  n.unsupported("codes of type {}", to_string(dtype));
}

// The axis along which scales of shape `v` lie in blocks; Error if they do not fit the data.
int64_t axis_of_blocks(const NodeView& n, const TensorType& v, int64_t axis, int64_t block,
                       const std::vector<Dim>& dims) {
  const auto rank = static_cast<int64_t>(dims.size());
  const int64_t d = axis_of(n, axis, rank);
  const Dim& along = dims[static_cast<size_t>(d)];
  if (!along.known())
    n.unsupported("blocks along a dimension '{}' known only at run time", along.name());
  std::vector<Dim> expected = dims;
  expected[static_cast<size_t>(d)] = Dim((along.size() + block - 1) / block);
  if (v.dims != expected)
    n.fail(ErrorCode::corrupt, "scales of shape {} for blocks of {} along axis {} of size {}",
           to_string(v), block, d, along.size());
  return d;
}

// A scale or zero point as it broadcasts over data of dims `dims`: one number, one for each slice
// along `axis`, or one for each block of `block` of them.
ValPtr over_data(Importer& im, const NodeView& n, ValPtr v, int64_t axis, int64_t block,
                 const std::vector<Dim>& dims) {
  const auto rank = static_cast<int64_t>(dims.size());
  if (v->rank() == 0) return v;
  if (v->rank() == 1 && v->dims()[0] == Dim(1) && block == 0)
    return im.call(n, "squeeze", {v}, {{"dim", int64_t{0}}});
  const int64_t d = axis_of(n, axis, rank);
  const Dim& along = dims[static_cast<size_t>(d)];
  if (block == 0) {
    if (v->rank() != 1 || v->dims()[0] != along)
      n.fail(ErrorCode::corrupt, "scales of shape {} along axis {}, which has size {}",
             to_string(v->type), d, to_string(along));
    std::vector<int64_t> shape(static_cast<size_t>(rank), 1);
    shape[static_cast<size_t>(d)] = -1;
    return im.call(n, "reshape", {v}, {{"shape", shape}});
  }
  axis_of_blocks(n, v->type, axis, block, dims);
  std::vector<int64_t> index;
  for (int64_t i = 0; i < along.size(); ++i) index.push_back(i / block);
  ValPtr places = constant_val(n.output(0) + ".blocks", Tensor::from(index, {along.size()}));
  return im.call(n, "index_select", {v, places}, {{"dim", d}});
}

int64_t block_size(const NodeView& n) {
  const int64_t block = n.get_int("block_size", 0);
  if (block < 0) n.fail(ErrorCode::corrupt, "block_size {}", block);
  return block;
}

// The codes of x as plain numbers.
ValPtr quantize_plain(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& scale,
                      const ValPtr& zero, const PlainCodes& codes, int32_t narrow, int64_t axis,
                      int64_t block) {
  ValPtr y = im.call(
      n, "div", {im.cast(n, x, DType::float32), over_data(im, n, scale, axis, block, x->dims())});
  y = im.call(n, "round", {y});
  if (zero) {
    ValPtr z = im.cast(n, plain_codes(im, n, zero), DType::float32);
    y = im.call(n, "add", {y, over_data(im, n, z, axis, block, x->dims())});
  }
  y = im.cast(n, im.call(n, "clamp", {y}, {{"min", codes.low}, {"max", codes.high}}), codes.dtype);
  y->narrow = narrow;
  return y;
}

// Codes of the zero point's type, or of `code` where that is omitted.
ValPtr quantize_to(Importer& im, const NodeView& n, const ValPtr& x, size_t scale, size_t zero,
                   int64_t axis, DType code = DType::uint8) {
  if (const ValPtr z = im.optional_in(n, zero)) code = code_type(z);
  const DType dtype = quantized_of(n, code);
  if (dtype == DType::qint32) n.unsupported("int32 results");
  if (!is_known(im, n, scale) || !is_known(im, n, zero))
    return quantize_plain(im, n, x, im.in(n, scale), im.optional_in(n, zero),
                          plain_codes_of(n, code, 0), 0, axis, 0);
  QuantizerPtr q = read_quantizer(n, im.known(n, scale, "scale"), im.known(n, zero, "zero_point"),
                                  axis, x->dims(), dtype);
  return im.call(n, "quantize", {im.cast(n, x, DType::float32)}, {}, ops::QType{dtype, q});
}

void import_quantize(Importer& im, const NodeView& n) {
  n.ignore({"saturate"});                               // of float8
  const int64_t precision = n.get_int("precision", 0);  // of the division: 0 is the scale's
  if (precision != 0 && precision != onnx::TensorProto::FLOAT)
    n.unsupported("precision {}", precision);
  const int64_t axis = n.get_int("axis", 1), block = block_size(n);
  ValPtr x = im.in(n, 0), scale = im.in(n, 1), zero = im.optional_in(n, 2);
  // opset 21, where there is no zero point
  const auto wanted = static_cast<int32_t>(n.get_int("output_dtype", 0));
  const int32_t narrow = zero ? zero->narrow : is_narrow(wanted) ? wanted : 0;
  DType dtype = code_type(zero);
  if (!zero && wanted != 0 && narrow == 0) dtype = dtype_of(wanted, "output_dtype");
  const bool known = scale->constant.defined() && (!zero || zero->constant.defined());
  if (known && narrow == 0 && block == 0)
    return im.out(n, 0, quantize_to(im, n, x, 1, 2, axis, dtype));
  im.out(
      n, 0,
      quantize_plain(im, n, x, scale, zero, plain_codes_of(n, dtype, narrow), narrow, axis, block));
}

// scale * (x - zero_point), spelled out; the zero point may be omitted.
ValPtr dequantize_plain(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& scale,
                        const ValPtr& zero, int64_t axis, int64_t block) {
  ValPtr y = im.cast(n, plain_codes(im, n, x), DType::float32);
  if (zero) {
    ValPtr z = im.cast(n, plain_codes(im, n, zero), DType::float32);
    bool shifts = true;
    if (z->is_constant()) {
      std::vector<float> values = z->constant.reshape({-1}).to_vector<float>();
      shifts = std::any_of(values.begin(), values.end(), [](float v) { return v != 0; });
    }
    if (shifts) y = im.call(n, "sub", {y, over_data(im, n, z, axis, block, x->dims())});
  }
  return im.call(n, "mul", {y, over_data(im, n, scale, axis, block, x->dims())});
}

// The numbers of constant codes with a scale, and perhaps a zero point, per block.
Tensor dequantized_blocks(const Tensor& codes, const Tensor& scale, const Tensor& zero, int64_t d,
                          int64_t block) {
  const Tensor q = codes.to(DType::float32).contiguous(), s = scale.to(DType::float32).contiguous();
  const Tensor z = zero.defined() ? zero.to(DType::float32).contiguous() : Tensor::zeros(s.shape());
  Tensor y = Tensor::empty(q.shape());
  const Shape& shape = q.shape();
  const int64_t along = shape[static_cast<size_t>(d)], blocks = s.size(d),
                inner = numel({shape.begin() + d + 1, shape.end()});
  const int64_t rows = inner > 0 ? q.numel() / inner : 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t from = (row / along * blocks + row % along / block) * inner;
    for (int64_t i = 0; i < inner; ++i)
      y.data<float>()[row * inner + i] =
          (q.data<float>()[row * inner + i] - z.data<float>()[from + i]) *
          s.data<float>()[from + i];
  }
  return y;
}

// What a number stands for, where the mark says so and is right.
void read_number_mark(const NodeView& n, float value, Val& number) {
  std::string_view text = n.doc();
  if (!text.starts_with(kNumberMark)) return;
  text.remove_prefix(std::string_view(kNumberMark).size());
  const size_t space = std::min(text.find(' '), text.size());
  const std::string op(text.substr(0, space)), digits(text.substr(space));
  const float original = std::strtof(digits.c_str(), nullptr);
  if ((op == "div" && 1 / original == value) || (op == "sub" && -original == value))
    number.stands_for = op, number.original = original;
}

// The float value of x's codes.
ValPtr dequantize_from(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& scale,
                       const ValPtr& zero, int64_t axis, int64_t block) {
  if (x->dequantized) n.fail(ErrorCode::corrupt, "its data is not quantized");
  DType code = x->type.is_quantized() ? code_dtype(x->type.dtype) : x->type.dtype;
  if (zero) {
    DType of_zero = zero->type.is_quantized() ? code_dtype(zero->type.dtype) : zero->type.dtype;
    if (of_zero != code)
      n.fail(ErrorCode::corrupt, "the zero point is {}, the data {}", to_string(of_zero),
             to_string(code));
  }
  const bool known = scale->constant.defined() && (!zero || zero->constant.defined());
  if (known && block != 0 && x->is_constant() && !x->type.is_quantized() && scale->rank() > 0) {
    const int64_t d = axis_of_blocks(n, scale->type, axis, block, x->dims());
    if (zero) axis_of_blocks(n, zero->type, axis, block, x->dims());
    const Tensor zeros = zero ? zero->constant : Tensor();
    ValPtr y = constant_val("", dequantized_blocks(x->constant, scale->constant, zeros, d, block));
    if (code == DType::uint8 || code == DType::int8)
      y->blocks = std::make_shared<BlockCodes>(
          BlockCodes{x->constant, scale->constant, zeros, d, block, x->narrow != 0 ? 4 : 8});
    return y;
  }
  if (!known || block != 0) return dequantize_plain(im, n, x, scale, zero, axis, block);
  DType dtype = quantized_of(n, code);
  // A number beside codes, as export writes it: nothing is computed with its codes.
  if (x->is_constant() && x->rank() <= 1 && numel(x->type.shape()) == 1 &&
      numel(scale->type.shape()) == 1 && dtype != DType::qint32) {
    const Tensor codes = x->type.is_quantized() ? x->constant.int_repr() : x->constant;
    const double z = zero ? zero->constant.reshape({}).to(DType::float32).item() : 0;
    const auto value = static_cast<float>(scale->constant.reshape({}).item()) *
                       static_cast<float>(codes.reshape({}).to(DType::float32).item() - z);
    ValPtr number = constant_val("", Tensor::full(codes.shape(), value));
    read_number_mark(n, value, *number);
    return number;
  }
  QuantizerPtr q =
      read_quantizer(n, scale->constant, zero ? zero->constant : Tensor(), axis, x->dims(), dtype);
  if (x->is_constant()) {
    Tensor codes = x->type.is_quantized() ? x->constant.int_repr() : x->constant;
    return dequantized_val("", x->name, n.scope(), make_quantized(codes, q));
  }
  if (x->type.is_quantized() && *x->type.quantizer == *q) return im.call(n, "dequantize", {x});
  // Plain integers, or codes that were made with other qparams.
  ValPtr codes = im.call(n, "make_quantized", {plain_codes(im, n, x)}, {}, ops::QType{dtype, q});
  return im.call(n, "dequantize", {codes});
}

ValPtr dequantize_input(Importer& im, const NodeView& n, size_t x, int64_t axis) {
  return dequantize_from(im, n, im.in(n, x), im.in(n, x + 1), im.optional_in(n, x + 2), axis, 0);
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
  std::vector<double> scales = w->dequantized
                                   ? w->constant.quantizer()->scales()
                                   : std::vector<double>{sw.numel() == 1 ? sw.item() : 1.0};
  auto x_scale = static_cast<float>(sx.item());
  for (double& s : scales) s = static_cast<float>(x_scale * static_cast<float>(s));
  if (scales.size() != 1 && static_cast<int64_t>(scales.size()) != b->constant.numel())
    n.fail(ErrorCode::corrupt, "{} bias values for {} weight scales", b->constant.numel(),
           scales.size());
  QuantizerPtr q = scales.size() == 1
                       ? Quantizer::per_tensor(scales[0], 0, DType::qint32)
                       : Quantizer::per_channel(scales, std::vector<int64_t>(scales.size(), 0), 0,
                                                DType::qint32);
  return dequantized_val(b->name + ".dequantized", b->name, n.scope(),
                         make_quantized(b->constant, q));
}

// clamp(rne(f(f(sum) * f(f(a_scale * b_scale) / y_scale))) + y_zero) for sums of products of codes:
// what the kernels compute, of scales that need not be known. b_scale, and y_zero, may be vectors
// that `shape` makes broadcast.
ValPtr requantize_plain(Importer& im, const NodeView& n, const ValPtr& sum, const ValPtr& a_scale,
                        const ValPtr& b_scale, size_t y_scale) {
  const ValPtr zero = im.optional_in(n, y_scale + 1);
  const PlainCodes codes = plain_codes_of(n, code_type(zero), 0);
  const auto single = [&](const ValPtr& v) {
    return v->rank() == 1 && v->dims()[0] == Dim(1)
               ? im.call(n, "squeeze", {v}, {{"dim", int64_t{0}}})
               : v;
  };
  ValPtr m = im.call(n, "mul", {a_scale, b_scale});
  m = im.call(n, "div", {m, single(im.in(n, y_scale))});
  ValPtr y = im.call(n, "round", {im.call(n, "mul", {im.cast(n, sum, DType::float32), m})});
  if (zero)
    y = im.call(n, "add", {y, single(im.cast(n, plain_codes(im, n, zero), DType::float32))});
  return im.cast(n, im.call(n, "clamp", {y}, {{"min", codes.low}, {"max", codes.high}}),
                 codes.dtype);
}

// A scale or zero point: one number as such, a vector as one that has `shape`.
ValPtr vector_as(Importer& im, const NodeView& n, const ValPtr& v,
                 const std::vector<int64_t>& shape) {
  if (!v || v->rank() == 0) return v;
  if (v->rank() == 1 && v->dims()[0] == Dim(1))
    return im.call(n, "squeeze", {v}, {{"dim", int64_t{0}}});
  return v->rank() == 1 ? im.call(n, "reshape", {v}, {{"shape", shape}}) : v;
}

// Input i's codes as plain integers.
ValPtr plain_in(Importer& im, const NodeView& n, size_t i) {
  return plain_codes(im, n, im.in(n, i));
}

// Likewise those of a zero point; null if it is omitted.
ValPtr plain_optional_in(Importer& im, const NodeView& n, size_t i) {
  const ValPtr v = im.optional_in(n, i);
  return v ? plain_codes(im, n, v) : nullptr;
}

// Where the weight, or what scales codes, is known at run time only: sums in int32, then the
// kernels' arithmetic spelled out.
void import_qlinear_conv_plain(Importer& im, const NodeView& n) {
  const ValPtr w = plain_in(im, n, 3);
  std::vector<int64_t> per_channel(static_cast<size_t>(std::max<int64_t>(w->rank() - 1, 1)), 1);
  per_channel[0] = -1;
  ValPtr y = emit_conv_integer(im, n, plain_in(im, n, 0), w, plain_optional_in(im, n, 2),
                               plain_optional_in(im, n, 5));
  if (n.has_input(8)) y = im.call(n, "add", {y, vector_as(im, n, im.in(n, 8), per_channel)});
  im.out(n, 0,
         requantize_plain(im, n, y, vector_as(im, n, im.in(n, 1), {}),
                          vector_as(im, n, im.in(n, 4), per_channel), 6));
}

void import_qlinear_conv(Importer& im, const NodeView& n) {
  for (size_t i = 1; i < 9; ++i)
    if (!is_known(im, n, i)) return import_qlinear_conv_plain(im, n);
  if (Tensor scale = im.known(n, 1, "x_scale"); !scale.defined() || scale.numel() != 1)
    n.fail(ErrorCode::corrupt, "expected one x_scale");
  ValPtr x = dequantize_input(im, n, 0, 1), w = dequantize_input(im, n, 3, 0);
  name_unnamed(w, im.in(n, 3)->name + ".dequantized");
  ValPtr y = emit_conv(im, n, x, w, dequantize_bias(im, n, 8, w));
  im.out(n, 0, quantize_to(im, n, y, 6, 7, 1));
}

void import_qlinear_matmul(Importer& im, const NodeView& n) {
  bool known = im.in(n, 1)->type.is_static() && numel(im.in(n, 1)->type.shape()) == 1;
  for (size_t i : {1, 2, 4, 5, 6, 7}) known = known && is_known(im, n, i);
  if (!known) {  // or a scale for each row of a
    const ValPtr y = im.call(n, "matmul_integer",
                             {plain_in(im, n, 0), plain_in(im, n, 3), plain_optional_in(im, n, 2),
                              plain_optional_in(im, n, 5)});
    return im.out(n, 0,
                  requantize_plain(im, n, y, vector_as(im, n, im.in(n, 1), {-1, 1}),
                                   vector_as(im, n, im.in(n, 4), {-1}), 6));
  }
  ValPtr a = dequantize_input(im, n, 0, -2), b = dequantize_input(im, n, 3, -1);
  name_unnamed(a, im.in(n, 0)->name + ".dequantized");
  name_unnamed(b, im.in(n, 3)->name + ".dequantized");
  im.out(n, 0, quantize_to(im, n, emit_matmul(im, n, a, b), 6, 7, -1));
}

// -- com.microsoft's operators on codes: dequantize, the float operator, quantize -----------------

using Emit = std::function<ValPtr(Importer&, const NodeView&, const std::vector<ValPtr>&)>;

// Operands of a data value, its scale and its zero point each, then the result's scale and zero
// point.
Handler on_codes(size_t operands, Emit emit) {
  return [operands, emit](Importer& im, const NodeView& n) {
    std::vector<ValPtr> xs;
    for (size_t i = 0; i < operands; ++i) {
      xs.push_back(dequantize_input(im, n, 3 * i, 1));
      name_unnamed(xs.back(), im.in(n, 3 * i)->name + ".dequantized");
    }
    im.out(n, 0, quantize_to(im, n, emit(im, n, xs), 3 * operands, 3 * operands + 1, 1));
  };
}

Emit plain_call(const char* op) {
  return [op](Importer& im, const NodeView& n, const std::vector<ValPtr>& xs) {
    return im.call(n, op, xs);
  };
}

// x through codes of the scale and zero point that inputs `scale` and the next give, so that what
// stands before and behind it are operators on codes; x itself if these are known at run time only.
ValPtr through_codes(Importer& im, const NodeView& n, const ValPtr& x, size_t scale) {
  if (!is_known(im, n, scale) || !is_known(im, n, scale + 1)) return x;
  return im.call(n, "dequantize", {quantize_to(im, n, x, scale, scale + 1, 1)});
}

// A pool's result of x, whose channels may lie last.
ValPtr pooled(Importer& im, const NodeView& n, ValPtr x,
              const std::function<ValPtr(const ValPtr&)>& pool) {
  if (n.get_int("channels_last", 0) == 0) return pool(x);
  std::vector<int64_t> first{0, x->rank() - 1}, last{0};
  for (int64_t d = 1; d < x->rank() - 1; ++d) first.push_back(d), last.push_back(d + 1);
  last.push_back(1);
  const ValPtr image = through_codes(im, n, im.call(n, "permute", {x}, {{"dims", first}}), 1);
  return im.call(n, "permute", {through_codes(im, n, pool(image), 3)}, {{"dims", last}});
}

// The result's scale and zero point come first.
void import_qlinear_concat(Importer& im, const NodeView& n) {
  std::vector<ValPtr> xs;
  for (size_t i = 2; i + 2 < n.input_count(); i += 3) {
    xs.push_back(dequantize_input(im, n, i, 1));
    name_unnamed(xs.back(), im.in(n, i)->name + ".dequantized");
  }
  if (xs.empty()) n.fail(ErrorCode::corrupt, "has no inputs");
  const int64_t axis = axis_of(n, n.get_int("axis", 1), xs[0]->rank());
  ValPtr y = xs.size() == 1 ? xs[0] : im.call(n, "cat", xs, {{"dim", axis}});
  im.out(n, 0, quantize_to(im, n, y, 0, 1, 1));
}

// The operands get the result's scale first.
void import_qlinear_where(Importer& im, const NodeView& n) {
  std::vector<ValPtr> operands{im.in(n, 0)};
  for (size_t i : {1, 4}) {
    ValPtr x = dequantize_input(im, n, i, 1);
    name_unnamed(x, im.in(n, i)->name + ".dequantized");
    operands.push_back(x);
  }
  im.out(n, 0, quantize_to(im, n, im.call(n, "where", operands), 7, 8, 1));
}

// Gemm of codes with an int32 bias of scale a_scale * b_scale; float without a scale of the result.
void import_qgemm(Importer& im, const NodeView& n) {
  const bool trans_a = n.get_int("transA", 0) != 0, trans_b = n.get_int("transB", 0) != 0;
  const double alpha = n.get_float("alpha", 1);
  bool known = alpha == 1 && n.has_input(7);
  for (size_t i = 1; i < 9; ++i) known = known && (i == 3 || is_known(im, n, i));
  if (known && im.in(n, 3)->constant.defined()) {
    // b_scale may have an entry for each column of B as the product has it.
    ValPtr a = dequantize_input(im, n, 0, 1), b = dequantize_input(im, n, 3, trans_b ? 0 : 1);
    name_unnamed(a, im.in(n, 0)->name + ".dequantized");
    name_unnamed(b, im.in(n, 3)->name + ".dequantized");
    return im.out(
        n, 0, quantize_to(im, n, emit_gemm(im, n, a, b, dequantize_bias(im, n, 6, b)), 7, 8, 1));
  }
  const Attrs swap{{"dims", std::vector<int64_t>{1, 0}}};
  ValPtr a = plain_in(im, n, 0), b = plain_in(im, n, 3);
  if (trans_a) a = im.call(n, "permute", {a}, swap);
  if (trans_b) b = im.call(n, "permute", {b}, swap);
  ValPtr y = im.call(n, "matmul_integer",
                     {a, b, plain_optional_in(im, n, 2), plain_optional_in(im, n, 5)});
  if (n.has_input(6)) y = im.call(n, "add", {y, im.in(n, 6)});
  ValPtr a_scale = vector_as(im, n, im.in(n, 1), {}), b_scale = vector_as(im, n, im.in(n, 4), {-1});
  if (alpha != 1) a_scale = im.call(n, "mul", {a_scale, im.scalar(n, alpha)});
  if (n.has_input(7)) return im.out(n, 0, requantize_plain(im, n, y, a_scale, b_scale, 7));
  im.out(n, 0,
         im.call(n, "mul", {im.cast(n, y, DType::float32), im.call(n, "mul", {a_scale, b_scale})}));
}

// Rows of codes with a scale per block of each, as numbers.
void import_gather_block_quantized(Importer& im, const NodeView& n) {
  ValPtr data = im.in(n, 0), index = im.in(n, 1), scale = im.in(n, 2), zero = im.optional_in(n, 3);
  const int64_t bits = n.get_int("bits", 4), block = n.get_int("block_size", 128);
  const bool packed = data->narrow == 0 && data->type.dtype == DType::uint8;
  if (!data->is_constant() || data->type.is_quantized() || (zero && !zero->is_constant()))
    n.unsupported("data that is not a constant");
  if (packed && bits != 8) {
    // Several codes in a byte along the last dimension, the first in the low bits.
    if (bits != 2 && bits != 4) n.unsupported("{} bits", bits);
    const auto unpacked = [&](const ValPtr& v, int64_t columns) {
      const Tensor bytes = v->constant.contiguous();
      const int64_t per_byte = 8 / bits,
                    rows = bytes.numel() / std::max<int64_t>(1, bytes.size(-1));
      if (bytes.dim() < 1 || (columns + per_byte - 1) / per_byte != bytes.size(-1))
        n.fail(ErrorCode::corrupt, "the zero points are {}", to_string(v->type));
      Shape shape = bytes.shape();
      shape.back() = columns;
      Tensor codes = Tensor::empty(shape, DType::uint8);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < columns; ++i)
          codes.data<uint8_t>()[r * columns + i] = static_cast<uint8_t>(
              bytes.data<uint8_t>()[r * bytes.size(-1) + i / per_byte] >> (i % per_byte * bits) &
              ((1 << bits) - 1));
      return constant_val(v->name + ".unpacked", codes);
    };
    if (data->rank() < 1 || scale->rank() != data->rank())
      n.fail(ErrorCode::corrupt, "data {} and scales {}", to_string(data->type),
             to_string(scale->type));
    if (zero) zero = unpacked(zero, known_dim(n, *scale, scale->rank() - 1, "the scales"));
    data = unpacked(data, data->constant.size(-1) * (8 / bits));
  }
  const int64_t rank = data->rank(), axis = axis_of(n, n.get_int("quantize_axis", 1), rank),
                gather = axis_of(n, n.get_int("gather_axis", 0), rank);
  if (axis == gather) n.unsupported("blocks along the axis that is gathered");
  if (!zero && packed)
    zero = constant_val(n.output(0) + ".zero_point",
                        Tensor::scalar(int64_t{1} << (bits - 1), DType::uint8));
  axis_of_blocks(n, scale->type, axis, block, data->dims());
  const auto chosen = [&](const ValPtr& v) {
    return !v || v->rank() == 0 ? v : im.call(n, "index_select", {v, index}, {{"dim", gather}});
  };
  const int64_t shift = axis > gather ? index->rank() - 1 : 0;
  im.out(n, 0,
         dequantize_plain(im, n, chosen(data), chosen(scale), chosen(zero), axis + shift, block));
}

void add_microsoft(Handlers& h) {
  const std::string ms = "com.microsoft.";
  h[ms + "QLinearAdd"] = on_codes(2, plain_call("add"));
  h[ms + "QLinearMul"] = on_codes(2, plain_call("mul"));
  h[ms + "QLinearSigmoid"] = on_codes(1, plain_call("sigmoid"));
  h[ms + "QLinearLeakyRelu"] =
      on_codes(1, [](Importer& im, const NodeView& n, const std::vector<ValPtr>& xs) {
        return im.call(n, "leaky_relu", xs, {{"negative_slope", n.get_float("alpha", 0.01f)}});
      });
  h[ms + "QLinearSoftmax"] =
      on_codes(1, [](Importer& im, const NodeView& n, const std::vector<ValPtr>& xs) {
        const int64_t axis = axis_of(n, n.get_int("axis", -1), xs[0]->rank());
        if (n.get_int("opset", 13) < 13 && axis != xs[0]->rank() - 1)
          n.unsupported("softmax over several dimensions");
        return im.call(n, "softmax", xs, {{"dim", axis}});
      });
  h[ms + "QLinearGlobalAveragePool"] = on_codes(1, [](Importer& im, const NodeView& n,
                                                      const std::vector<ValPtr>& xs) {
    return pooled(im, n, xs[0], [&](const ValPtr& x) { return emit_global_pool(im, n, x, false); });
  });
  h[ms + "QLinearAveragePool"] =
      on_codes(1, [](Importer& im, const NodeView& n, const std::vector<ValPtr>& xs) {
        return pooled(im, n, xs[0], [&](const ValPtr& x) { return emit_pool(im, n, x, false); });
      });
  h[ms + "QLinearReduceMean"] =
      on_codes(1, [](Importer& im, const NodeView& n, const std::vector<ValPtr>& xs) {
        std::vector<int64_t> dims = n.get_ints("axes");
        for (int64_t& d : dims) d = axis_of(n, d, xs[0]->rank());
        return im.call(n, "mean", xs, {{"dim", dims}, {"keepdim", n.get_int("keepdims", 1) != 0}});
      });
  h[ms + "QGemm"] = import_qgemm;
  h[ms + "QLinearWhere"] = import_qlinear_where;
  h[ms + "GatherBlockQuantized"] = import_gather_block_quantized;
  h[ms + "QLinearConcat"] = import_qlinear_concat;
  h[ms + "QuantizeLinear"] = h["QuantizeLinear"];
  h[ms + "DequantizeLinear"] = h["DequantizeLinear"];
}

}  // namespace

ValPtr plain_codes(Importer& im, const NodeView& n, const ValPtr& v) {
  if (v->dequantized)
    n.fail(ErrorCode::corrupt, "'{}' is float; expected codes", one_line(v->name));
  if (!v->type.is_quantized()) return v;
  if (v->constant.defined()) return constant_val(v->name, v->constant.int_repr());
  return im.call(n, "int_repr", {v});
}

QuantizerPtr read_quantizer(const NodeView& n, const Tensor& scale, const Tensor& zero,
                            int64_t axis, const std::vector<Dim>& dims, DType dtype) {
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
  // One scale in a vector is per tensor as well, but where the axis has one slice it does not
  // matter.
  if (scales.size() == 1) return Quantizer::per_tensor(scales[0], zeros[0], dtype);
  int64_t d = axis_of(n, axis, static_cast<int64_t>(dims.size()));
  const Dim& along = dims[static_cast<size_t>(d)];
  if (along != Dim(static_cast<int64_t>(scales.size())))
    n.fail(ErrorCode::corrupt, "{} scales along axis {}, which has size {}", scales.size(), d,
           to_string(along));
  return Quantizer::per_channel(std::move(scales), std::move(zeros), d, dtype);
}

void add_quantization(Handlers& h) {
  h["QuantizeLinear"] = import_quantize;
  h["DequantizeLinear"] = [](Importer& im, const NodeView& n) {
    const int64_t axis = n.get_int("axis", 1), block = block_size(n);
    n.ignore({"output_dtype"});  // everything float is computed in float32
    im.out(n, 0,
           dequantize_from(im, n, im.in(n, 0), im.in(n, 1), im.optional_in(n, 2), axis, block));
  };
  // A product with, or a sum of, a number that stands for what is divided by, or subtracted.
  for (const auto& [onnx, op] : {std::pair{"Mul", "div"}, {"Add", "sub"}})
    h[onnx] = [plain = h.at(onnx), op = std::string(op)](Importer& im, const NodeView& n) {
      const ValPtr number = n.input_count() == 2 ? im.in(n, 1) : nullptr;
      if (!number || number->stands_for != op) return plain(im, n);
      const Tensor original = Tensor::full(number->constant.shape(), number->original);
      im.out(n, 0, im.call(n, op, {im.in(n, 0), constant_val(number->name, original)}));
    };
  h["QLinearConv"] = import_qlinear_conv;
  h["QLinearMatMul"] = import_qlinear_matmul;
  add_microsoft(h);
}

}  // namespace octet::io::onnx_impl
