// Arithmetic on plain integers: ConvInteger, MatMulInteger, and the quantization whose scale data
// decides. Products of whole numbers are exact in float32 while their sum stays below 2^24, so
// layers are cut into parts that do; the parts are added in int32. MatMulNBits unpacks its weight.
#include <algorithm>
#include <cmath>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr double kExact = 1 << 24;  // whole numbers up to here are float32's

ValPtr number(Importer& im, const NodeView& n, double value) { return im.scalar(n, value); }

// The largest difference from the zero point that a value can have.
double reach(const ValPtr& x, const ValPtr& zero) {
  const bool eight = x->type.dtype == DType::uint8 || x->type.dtype == DType::int8;
  if (!eight) return std::ldexp(1, 31);
  if (zero && !zero->is_constant()) return 255;
  const double low = x->type.dtype == DType::uint8 ? 0 : -128;
  double most = 0;
  for (float z : zero ? zero->constant.to(DType::float32).reshape({-1}).to_vector<float>()
                      : std::vector<float>{0})
    most = std::max({most, z - low, low + 255 - z});
  return most;
}

bool is_zero(const Tensor& t) {
  std::vector<float> values = t.to(DType::float32).reshape({-1}).to_vector<float>();
  return std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
}

struct Centered {
  ValPtr value;  // float32 whole numbers
  double most;   // of their magnitude
};

// x minus its zero point, which may be null and as a vector gets the shape that broadcasts. Error
// unless x is of 8 bits.
Centered centered(Importer& im, const NodeView& n, const ValPtr& codes, ValPtr zero,
                  const std::vector<int64_t>& zero_shape) {
  ValPtr x = plain_codes(im, n, codes);
  if (x->type.dtype != DType::uint8 && x->type.dtype != DType::int8)
    n.fail(ErrorCode::corrupt, "expected int8 or uint8 data, got {}", to_string(x->type));
  if (zero) zero = plain_codes(im, n, zero);
  Centered result{im.cast(n, x, DType::float32), reach(x, zero)};
  if (!zero || (zero->is_constant() && is_zero(zero->constant))) return result;
  if (zero->rank() == 1 && zero->dims()[0] == Dim(1))
    zero = im.call(n, "squeeze", {zero}, {{"dim", int64_t{0}}});
  else if (zero->rank() == 1)
    zero = im.call(n, "reshape", {zero}, {{"shape", zero_shape}});
  result.value = im.call(n, "sub", {result.value, im.cast(n, zero, DType::float32)});
  return result;
}

ValPtr part_of(Importer& im, const NodeView& n, const ValPtr& x, int64_t dim, int64_t start,
               int64_t end) {
  const Dim& size = x->dims()[static_cast<size_t>(dim)];
  if (start == 0 && size == Dim(end)) return x;
  return im.call(n, "slice", {x}, {{"dim", dim}, {"start", start}, {"end", end}});
}

// The largest sum of magnitudes along all dimensions but `dim` of a constant; infinity of others.
double largest_sum(const ValPtr& w, int64_t dim) {
  if (!w->is_constant()) return INFINITY;
  const Tensor t = w->constant.transpose(0, dim).contiguous();
  const int64_t rows = t.size(0), inner = rows ? t.numel() / rows : 0;
  double most = 0;
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t i = 0; i < inner; ++i) sum += std::abs(t.data<float>()[r * inner + i]);
    most = std::max(most, sum);
  }
  return most;
}

// How many of `count` terms a part may have, each of which is a sum of `each` products.
int64_t part_size(const NodeView& n, const Centered& x, const Centered& w, double sum,
                  int64_t count, int64_t each) {
  if (x.most * sum < kExact) return count;
  const double terms =
      std::floor((kExact - 1) / std::max(1.0, x.most * w.most * static_cast<double>(each)));
  if (terms < 1) n.unsupported("a kernel of {} cells", each);
  return std::min<int64_t>(count, static_cast<int64_t>(std::min(terms, 1e9)));
}

ValPtr add_up(Importer& im, const NodeView& n, const ValPtr& sum, const ValPtr& part) {
  ValPtr whole = im.cast(n, part, DType::int32);
  return sum ? im.call(n, "add", {sum, whole}) : whole;
}

// (a - a_zero) x (b - b_zero) in int32.
ValPtr matmul_integer(Importer& im, const NodeView& n, const ValPtr& a_codes, const ValPtr& b_codes,
                      const ValPtr& a_zero, const ValPtr& b_zero) {
  if (a_codes->rank() < 1 || b_codes->rank() < 1)
    n.fail(ErrorCode::corrupt, "an operand is a single number");
  // Zero points of rows of a, and of columns of b.
  Centered a = centered(im, n, a_codes, a_zero, {-1, 1}),
           b = centered(im, n, b_codes, b_zero, {-1});
  const int64_t k_of_a = a.value->rank() - 1, k_of_b = std::max<int64_t>(b.value->rank() - 2, 0);
  const int64_t k = known_dim(n, *a.value, k_of_a, "MatMulInteger");
  const double sum = b.value->rank() == 2 ? largest_sum(b.value, 1) : INFINITY;
  const int64_t size = part_size(n, a, b, sum, k, 1);
  ValPtr y;
  for (int64_t from = 0; from < std::max<int64_t>(k, 1); from += std::max<int64_t>(size, 1)) {
    const int64_t to = std::min(k, from + size);
    y = add_up(im, n, y,
               emit_matmul(im, n, part_of(im, n, a.value, k_of_a, from, to),
                           part_of(im, n, b.value, k_of_b, from, to)));
  }
  return y;
}

void import_conv_integer(Importer& im, const NodeView& n) {
  ValPtr x_codes = im.in(n, 0), w_codes = im.in(n, 1);
  std::vector<int64_t> per_output(static_cast<size_t>(std::max<int64_t>(w_codes->rank(), 1)), 1);
  per_output[0] = -1;
  Centered x = centered(im, n, x_codes, im.optional_in(n, 2), {-1}),
           w = centered(im, n, w_codes, im.optional_in(n, 3), per_output);
  Attrs attrs = conv_attrs(im, n, x.value, *w.value);  // padding is the zero point, here 0
  const std::string op = fmt::format("conv{}d", w.value->rank() - 2);
  const int64_t groups = attrs.get_int("groups"), outputs = known_dim(n, *w.value, 0, "the weight"),
                inputs = known_dim(n, *w.value, 1, "the weight");
  int64_t cells = 1;
  for (int64_t d = 2; d < w.value->rank(); ++d) cells *= known_dim(n, *w.value, d, "the weight");
  const int64_t size = part_size(n, x, w, largest_sum(w.value, 0), inputs, cells);
  if (size == inputs)
    return im.out(n, 0, im.cast(n, im.call(n, op, {x.value, w.value}, attrs), DType::int32));
  if (groups < 1 || outputs % groups != 0)
    n.fail(ErrorCode::corrupt, "{} output channels in {} groups", outputs, groups);
  attrs.set("groups", int64_t{1});
  std::vector<ValPtr> results;
  for (int64_t g = 0; g < groups; ++g) {
    ValPtr rows = part_of(im, n, w.value, 0, g * (outputs / groups), (g + 1) * (outputs / groups)),
           y;
    for (int64_t from = 0; from < inputs; from += size) {
      const int64_t to = std::min(inputs, from + size);
      ValPtr channels = part_of(im, n, x.value, 1, g * inputs + from, g * inputs + to);
      y = add_up(im, n, y, im.call(n, op, {channels, part_of(im, n, rows, 1, from, to)}, attrs));
    }
    results.push_back(y);
  }
  im.out(n, 0,
         results.size() == 1 ? results[0] : im.call(n, "cat", results, {{"dim", int64_t{1}}}));
}

// -- scales that data decides ---------------------------------------------------------------------

struct Dynamic {
  ValPtr codes, scale, zero;
};

// ONNX's definition: the range of x and 0 in 255 steps; all of x 0 has the scale 1.
Dynamic dynamic_quantize(Importer& im, const NodeView& n, const ValPtr& x) {
  const Attrs all{{"dim", std::vector<int64_t>{}}, {"keepdim", false}};
  ValPtr most = im.call(n, "maximum", {im.call(n, "amax", {x}, all), number(im, n, 0)});
  ValPtr least = im.call(n, "minimum", {im.call(n, "amin", {x}, all), number(im, n, 0)});
  ValPtr scale = im.call(n, "div", {im.call(n, "sub", {most, least}), number(im, n, 255)});
  scale = im.call(n, "where",
                  {im.call(n, "equal", {scale, number(im, n, 0)}), number(im, n, 1), scale});
  const Attrs range{{"min", 0.0}, {"max", 255.0}};
  ValPtr zero = im.call(n, "sub", {number(im, n, 0), im.call(n, "div", {least, scale})});
  zero = im.call(n, "round", {im.call(n, "clamp", {zero}, range)});
  ValPtr codes = im.call(n, "add", {im.call(n, "round", {im.call(n, "div", {x, scale})}), zero});
  codes = im.call(n, "clamp", {codes}, range);
  return {im.cast(n, codes, DType::uint8), scale, im.cast(n, zero, DType::uint8)};
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
  ValPtr y =
      matmul_integer(im, n, im.in(n, 0), im.in(n, 1), im.optional_in(n, 4), im.optional_in(n, 5));
  im.out(n, 0, scaled(im, n, y, im.in(n, 2), im.in(n, 3), im.optional_in(n, 6)));
}

void import_dynamic_quantize_matmul(Importer& im, const NodeView& n) {
  Dynamic a = dynamic_quantize(im, n, im.in(n, 0));
  ValPtr y = matmul_integer(im, n, a.codes, im.in(n, 1), a.zero, im.optional_in(n, 3));
  im.out(n, 0, scaled(im, n, y, a.scale, im.in(n, 2), im.optional_in(n, 4)));
}

// -- weights of a few bits ------------------------------------------------------------------------

// Code i of a row of bytes that hold `bits` bits each, the first in the low bits.
int64_t packed_bits(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t per_byte = 8 / bits;
  return row[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1);
}

// B's rows (N), blocks of `block_size` codes with a scale, and a zero point each: (code - zero) *
// scale.
Tensor unpack_blocks(const NodeView& n, const Tensor& b, const Tensor& scales,
                     const Tensor& zeros) {
  const int64_t rows = n.get_int("N", 0), k = n.get_int("K", 0), bits = n.get_int("bits", 4),
                block = n.get_int("block_size", 0);
  if (rows < 1 || k < 1 || block < 1 || rows > 1 << 28 || k > 1 << 28 || block > 1 << 28)
    n.fail(ErrorCode::corrupt, "N={}, K={}, block_size={}: expected positive sizes", rows, k,
           block);
  if ((bits != 2 && bits != 4 && bits != 8) || block * bits % 8 != 0)
    n.unsupported("blocks of {} codes of {} bits", block, bits);
  const int64_t blocks = (k + block - 1) / block, row_bytes = blocks * block * bits / 8;
  if (b.dtype() != DType::uint8 || b.numel() != rows * row_bytes)
    n.fail(ErrorCode::corrupt, "B is {}; expected {} bytes", to_string(b.type()), rows * row_bytes);
  if (!is_floating(scales.dtype()) || scales.numel() != rows * blocks)
    n.fail(ErrorCode::corrupt, "the scales are {}; expected {}", to_string(scales.type()),
           rows * blocks);
  const int64_t zero_bytes = (blocks * bits + 7) / 8;
  const bool packed = zeros.defined() && zeros.dtype() == DType::uint8;
  if (zeros.defined() && zeros.numel() != (packed ? rows * zero_bytes : rows * blocks))
    n.fail(ErrorCode::corrupt, "the zero points are {}; expected {}", to_string(zeros.type()),
           packed ? rows * zero_bytes : rows * blocks);
  const std::vector<float> s = scales.to(DType::float32).reshape({-1}).to_vector<float>();
  const std::vector<float> z = zeros.defined() && !packed
                                   ? zeros.to(DType::float32).reshape({-1}).to_vector<float>()
                                   : std::vector<float>{};
  const Tensor bytes = b.contiguous(), zero_codes = packed ? zeros.contiguous() : Tensor();
  Tensor w = Tensor::empty({rows, k});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = r * blocks + i / block;
      float zero = static_cast<float>(int64_t{1} << (bits - 1));
      if (packed)
        zero = static_cast<float>(
            packed_bits(zero_codes.data<uint8_t>() + r * zero_bytes, i / block, bits));
      if (!z.empty()) zero = z[static_cast<size_t>(at)];
      const auto code =
          static_cast<float>(packed_bits(bytes.data<uint8_t>() + r * row_bytes, i, bits));
      w.data<float>()[r * k + i] = (code - zero) * s[static_cast<size_t>(at)];
    }
  return w;
}

void import_matmul_nbits(Importer& im, const NodeView& n) {
  n.ignore({"accuracy_level"});  // how another program may round its intermediate results
  if (n.has_input(4)) n.unsupported("a group index (g_idx)");
  const Tensor b = im.known(n, 1, "B"), scales = im.known(n, 2, "the scales"),
               zeros = im.known(n, 3, "the zero points");
  if (!b.defined() || !scales.defined()) n.fail(ErrorCode::corrupt, "expected B and its scales");
  ValPtr weight =
      constant_val(im.in(n, 1)->name + ".dequantized", unpack_blocks(n, b, scales, zeros));
  im.out(n, 0, im.call(n, "linear", {im.in(n, 0), weight, im.optional_in(n, 5)}));
}

}  // namespace

void add_integer(Handlers& h) {
  h["ConvInteger"] = import_conv_integer;
  h["MatMulInteger"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0,
           matmul_integer(im, n, im.in(n, 0), im.in(n, 1), im.optional_in(n, 2),
                          im.optional_in(n, 3)));
  };
  h["DynamicQuantizeLinear"] = import_dynamic_quantize;
  h["com.microsoft.MatMulIntegerToFloat"] = import_matmul_integer_to_float;
  h["com.microsoft.DynamicQuantizeMatMul"] = import_dynamic_quantize_matmul;
  h["com.microsoft.MatMulNBits"] = import_matmul_nbits;
}

}  // namespace octet::io::onnx_impl
