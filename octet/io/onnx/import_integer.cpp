// Arithmetic on plain integers: ConvInteger, MatMulInteger, and the quantization whose scale data
// decides. What follows them in dynamically quantized networks makes them dynamic layers
// (import_dynamic.cpp).
#include <algorithm>
#include <cmath>

#include "octet/io/onnx/importer_impl.h"
#include "octet/ops/op.h"

namespace octet::io::onnx_impl {
namespace {

// A zero point that is constant and 0 throughout is none.
ValPtr zero_point(Importer& im, const NodeView& n, size_t i) {
  ValPtr zero = im.optional_in(n, i);
  if (!zero) return nullptr;
  zero = plain_codes(im, n, zero);
  if (zero->is_constant()) {
    const std::vector<float> values =
        zero->constant.to(DType::float32).reshape({-1}).to_vector<float>();
    if (std::all_of(values.begin(), values.end(), [](float v) { return v == 0; })) return nullptr;
  }
  return zero;
}

ValPtr codes(Importer& im, const NodeView& n, size_t i) {
  ValPtr x = plain_codes(im, n, im.in(n, i));
  if (x->type.dtype != DType::uint8 && x->type.dtype != DType::int8)
    n.fail(ErrorCode::corrupt, "expected int8 or uint8 data, got {}", to_string(x->type));
  return x;
}

ValPtr matmul_integer(Importer& im, const NodeView& n, const ValPtr& a, const ValPtr& b,
                      const ValPtr& a_zero, const ValPtr& b_zero) {
  if (a->rank() < 1 || b->rank() < 1) n.fail(ErrorCode::corrupt, "an operand is a single number");
  return im.call(n, "matmul_integer", {a, b, a_zero, b_zero});
}

void import_conv_integer(Importer& im, const NodeView& n) {
  im.out(n, 0,
         emit_conv_integer(im, n, codes(im, n, 0), codes(im, n, 1), zero_point(im, n, 2),
                           zero_point(im, n, 3)));
}

// -- scales that data decides ---------------------------------------------------------------------

struct Dynamic {
  ValPtr codes, scale, zero;
};

Dynamic dynamic_quantize(Importer& im, const NodeView& n, const ValPtr& x) {
  std::vector<ValPtr> made = im.calls(n, "quantize_dynamic", {x});
  return {made[0], made[1], made[2]};
}

void import_dynamic_quantize(Importer& im, const NodeView& n) {
  Dynamic q = dynamic_quantize(im, n, im.in(n, 0));
  im.out(n, 0, q.codes);
  im.out(n, 1, q.scale);
  im.out(n, 2, q.zero);
}

// product * (a_scale * b_scale) + bias in float32; the bias may be null.
ValPtr scaled(Importer& im, const NodeView& n, const ValPtr& product, const ValPtr& a_scale,
              const ValPtr& b_scale, const ValPtr& bias) {
  ValPtr y = im.call(n, "mul",
                     {im.cast(n, product, DType::float32), im.call(n, "mul", {a_scale, b_scale})});
  return bias ? im.call(n, "add", {y, bias}) : y;
}

void import_matmul_integer_to_float(Importer& im, const NodeView& n) {
  ValPtr y = matmul_integer(im, n, codes(im, n, 0), codes(im, n, 1), zero_point(im, n, 4),
                            zero_point(im, n, 5));
  im.out(n, 0, scaled(im, n, y, im.in(n, 2), im.in(n, 3), im.optional_in(n, 6)));
}

void import_dynamic_quantize_matmul(Importer& im, const NodeView& n) {
  Dynamic a = dynamic_quantize(im, n, im.in(n, 0));
  ValPtr y = matmul_integer(im, n, a.codes, codes(im, n, 1), a.zero, zero_point(im, n, 3));
  im.out(n, 0, scaled(im, n, y, a.scale, im.in(n, 2), im.optional_in(n, 4)));
}

// -- attention ------------------------------------------------------------------------------------

// Float attention of `heads` heads on what one product of codes gives for queries, keys and values.
void import_qattention(Importer& im, const NodeView& n) {
  const int64_t heads = n.get_int("num_heads", 0);
  ValPtr x = codes(im, n, 0), w = codes(im, n, 1);
  if (x->rank() != 3 || w->rank() != 2)
    n.fail(ErrorCode::corrupt, "expected data and a weight of 3 and 2 dimensions, got {} and {}",
           to_string(x->type), to_string(w->type));
  const int64_t width = known_dim(n, *w, 1, "the weight") / 3;
  if (heads < 1 || width < 1 || width % heads != 0)
    n.fail(ErrorCode::corrupt, "{} heads of a weight {}", heads, to_string(w->type));
  if (n.has_input(8) || im.wants_output(n, 1)) n.unsupported("past keys and values");
  if (n.get_int("do_rotary", 0) != 0) n.unsupported("rotary embedding");
  n.ignore({"past_present_share_buffer"});
  ValPtr y = matmul_integer(im, n, x, w, zero_point(im, n, 6), zero_point(im, n, 7));
  y = scaled(im, n, y, im.in(n, 3), im.in(n, 4), im.in(n, 2));
  const auto part = [&](int64_t i, const std::vector<int64_t>& order) {
    ValPtr p = im.call(n, "slice", {y},
                       {{"dim", int64_t{2}}, {"start", i * width}, {"end", (i + 1) * width}});
    p = im.call(n, "reshape", {p}, {{"shape", std::vector<int64_t>{0, 0, heads, width / heads}}});
    return im.call(n, "permute", {p}, {{"dims", order}});
  };
  const double usual = 1 / std::sqrt(static_cast<double>(width / heads));
  const double scale = n.get_float("scale", 0);
  ValPtr scores = im.call(n, "matmul", {part(0, {0, 2, 1, 3}), part(1, {0, 2, 3, 1})});
  scores = im.call(n, "mul", {scores, im.scalar(n, scale == 0 ? usual : scale)});
  const double filter = n.get_float("mask_filter_value", -10000);
  if (ValPtr mask = im.optional_in(n, 5)) {
    // Of each key, or of each query and key: 1 counts, 0 does not.
    if (mask->rank() != 2 && mask->rank() != 3)
      n.unsupported("a mask of {} dimensions", mask->rank());
    mask = im.call(n, "sub", {im.scalar(n, 1), im.cast(n, mask, DType::float32)});
    mask = im.call(n, "mul", {mask, im.scalar(n, filter)});
    for (int64_t d = mask->rank(); d < 4; ++d)
      mask = im.call(n, "unsqueeze", {mask}, {{"dim", int64_t{1}}});
    scores = im.call(n, "add", {scores, mask});
  }
  if (n.get_int("unidirectional", 0) != 0) {
    const int64_t steps = known_dim(n, *x, 1, "unidirectional attention");
    const Tensor later =
        ops::call("triu", {Tensor::ones({steps, steps})}, {{"diagonal", int64_t{1}}});
    scores = im.call(n, "add",
                     {scores, constant_val(n.output(0) + ".mask",
                                           ops::call("mul", {later, Tensor::scalar(filter)}))});
  }
  scores = im.call(n, "softmax", {scores}, {{"dim", int64_t{3}}});
  y = im.call(n, "matmul", {scores, part(2, {0, 2, 1, 3})});
  y = im.call(n, "permute", {y}, {{"dims", std::vector<int64_t>{0, 2, 1, 3}}});
  im.out(n, 0, im.call(n, "reshape", {y}, {{"shape", std::vector<int64_t>{0, 0, width}}}));
}

// -- weights of a few bits ------------------------------------------------------------------------

// Code i of a row of bytes that hold `bits` bits each, the first in the low bits.
int64_t packed_bits(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t per_byte = 8 / bits;
  return row[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1);
}

// The zero points as floats (rows, blocks): packed like the codes, or numbers.
Tensor block_zeros(const NodeView& n, const Tensor& zeros, int64_t rows, int64_t blocks,
                   int64_t bits) {
  const int64_t row_bytes = (blocks * bits + 7) / 8;
  const bool packed = zeros.dtype() == DType::uint8;
  if (zeros.numel() != (packed ? rows * row_bytes : rows * blocks))
    n.fail(ErrorCode::corrupt, "the zero points are {}; expected {}", to_string(zeros.type()),
           packed ? rows * row_bytes : rows * blocks);
  if (!packed) return zeros.to(DType::float32).reshape({rows, blocks}).contiguous();
  const Tensor bytes = zeros.contiguous();
  Tensor z = Tensor::empty({rows, blocks});
  for (int64_t i = 0; i < z.numel(); ++i)
    z.data<float>()[i] = static_cast<float>(
        packed_bits(bytes.data<uint8_t>() + i / blocks * row_bytes, i % blocks, bits));
  return z;
}

void import_matmul_nbits(Importer& im, const NodeView& n) {
  n.ignore({"accuracy_level"});  // how another program may round its intermediate results
  if (n.has_input(4)) n.unsupported("a group index (g_idx)");
  const Tensor b = im.known(n, 1, "B"), scales = im.known(n, 2, "the scales"),
               zeros = im.known(n, 3, "the zero points");
  if (!b.defined() || !scales.defined()) n.fail(ErrorCode::corrupt, "expected B and its scales");
  const int64_t rows = n.get_int("N", 0), k = n.get_int("K", 0), bits = n.get_int("bits", 4),
                block = n.get_int("block_size", 0);
  if (rows < 1 || k < 1 || block < 1 || rows > 1 << 28 || k > 1 << 28 || block > 1 << 16)
    n.fail(ErrorCode::corrupt, "N={}, K={}, block_size={}: expected positive sizes", rows, k,
           block);
  if ((bits != 2 && bits != 4 && bits != 8) || block * bits % 8 != 0)
    n.unsupported("blocks of {} codes of {} bits", block, bits);
  const int64_t blocks = (k + block - 1) / block, block_bytes = block * bits / 8;
  if (b.dtype() != DType::uint8 || b.numel() != rows * blocks * block_bytes)
    n.fail(ErrorCode::corrupt, "B is {}; expected {} bytes", to_string(b.type()),
           rows * blocks * block_bytes);
  if (!is_floating(scales.dtype()) || scales.numel() != rows * blocks)
    n.fail(ErrorCode::corrupt, "the scales are {}; expected {}", to_string(scales.type()),
           rows * blocks);
  const auto constant = [&](size_t i, const std::string& what, const Tensor& value) {
    std::string name = im.in(n, i)->name;  // as octet wrote it, or another program
    if (name.ends_with(kPackedSuffix))
      name.resize(name.size() - std::string_view(kPackedSuffix).size());
    return constant_val(name.ends_with(what) ? name : name + what, value);
  };
  std::vector<ValPtr> operands{
      with_size(im, n, im.in(n, 0), im.in(n, 0)->rank() - 1, k),
      constant(1, ".codes", b.reshape({rows, blocks, block_bytes})),
      constant(2, ".scales", scales.to(DType::float32).reshape({rows, blocks})), nullptr,
      im.optional_in(n, 5)};
  if (zeros.defined())
    operands[3] = constant(3, ".zero_points", block_zeros(n, zeros, rows, blocks, bits));
  im.out(n, 0,
         im.call(n, "linear_blocks", operands,
                 {{"in_features", k}, {"block_size", block}, {"bits", bits}}));
}

}  // namespace

void add_integer(Handlers& h) {
  h["ConvInteger"] = import_conv_integer;
  h["MatMulInteger"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0,
           matmul_integer(im, n, codes(im, n, 0), codes(im, n, 1), zero_point(im, n, 2),
                          zero_point(im, n, 3)));
  };
  h["DynamicQuantizeLinear"] = import_dynamic_quantize;
  h["com.microsoft.MatMulIntegerToFloat"] = import_matmul_integer_to_float;
  h["com.microsoft.DynamicQuantizeMatMul"] = import_dynamic_quantize_matmul;
  h["com.microsoft.MatMulNBits"] = import_matmul_nbits;
  h["com.microsoft.QAttention"] = import_qattention;
}

}  // namespace octet::io::onnx_impl
