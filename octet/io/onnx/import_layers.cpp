// Convolutions and matrix products: the operators with weights.
#include <algorithm>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// no real kernel, stride or padding is larger; keeps sums far from overflow
constexpr int64_t kMaxWindow = 1 << 20;

void check_range(const NodeView& n, const char* what, const std::vector<int64_t>& values,
                 size_t count, int64_t least) {
  if (values.size() != count)
    n.fail(ErrorCode::corrupt, "{}: {} values; expected {}", what, values.size(), count);
  for (int64_t v : values) {
    if (v < 0 && least == 0) n.unsupported("negative {}", what);
    if (v < least || v > kMaxWindow) n.fail(ErrorCode::corrupt, "{}: {}", what, v);
  }
}

void import_conv(Importer& im, const NodeView& n) {
  im.out(n, 0, emit_conv(im, n, im.in(n, 0), im.in(n, 1), im.optional_in(n, 2)));
}

// A constant bias of Gemm as linear takes it: (out) from (out), (1, out), (1) or (); null if it is
// none of these.
ValPtr vector_bias(const NodeView& n, const ValPtr& c, int64_t out, double beta) {
  if (!c->is_weight() || beta == 0) return nullptr;
  const Shape& shape = c->constant.shape();
  bool row = shape == Shape{out} || shape == Shape{1, out};
  if (!row && c->constant.numel() != 1) return nullptr;
  if (c->dequantized) {  // int32 codes of a QDQ model
    if (beta != 1 || !row) return nullptr;
    if (shape.size() == 1) return c;
    const QuantizerPtr& q = c->constant.quantizer();
    if (q->is_per_channel() && q->axis() != 1) return nullptr;
    Tensor codes = make_quantized(c->constant.int_repr().reshape({out}), q->with_axis(0));
    return dequantized_val(c->name, c->codes_name, c->scope, codes);
  }
  if (c->constant.dtype() != DType::float32) return nullptr;
  if (beta == 1 && shape == Shape{out}) return c;
  Tensor scaled = c->constant.reshape({-1}).expand({out}).clone();
  for (int64_t i = 0; i < out; ++i) scaled.data<float>()[i] *= static_cast<float>(beta);
  return constant_val(c->name.empty() ? n.output(0) + ".bias" : c->name, scaled);
}

// alpha * weight for a constant matrix; null if that has to be a multiplication.
ValPtr scaled_weight(const ValPtr& w, double alpha) {
  if (alpha == 1) return w;
  if (w->dequantized || w->constant.dtype() != DType::float32) return nullptr;
  Tensor scaled = w->constant.clone();
  for (int64_t i = 0; i < scaled.numel(); ++i) scaled.data<float>()[i] *= static_cast<float>(alpha);
  return constant_val(w->name, scaled);
}

}  // namespace

// alpha * A * B + beta * C. With a constant B it is linear, with alpha and beta folded into the
// constants.
ValPtr emit_gemm(Importer& im, const NodeView& n, ValPtr a, ValPtr b, ValPtr c) {
  double alpha = n.get_float("alpha", 1), beta = n.get_float("beta", 1);
  bool trans_a = n.get_int("transA", 0) != 0, trans_b = n.get_int("transB", 0) != 0;
  if (a->rank() != 2 || b->rank() != 2)
    n.fail(ErrorCode::corrupt, "expected matrices, got {} and {}", to_string(a->type),
           to_string(b->type));
  const Attrs swap{{"dims", std::vector<int64_t>{1, 0}}};
  if (trans_a) a = im.call(n, "permute", {a}, swap);
  if (alpha == 1) {
    const int64_t out = b->blocks ? b->constant.size(trans_b ? 0 : 1) : 0;
    const bool plain = !c || beta == 0;
    const ValPtr bias = plain || !b->blocks ? nullptr : vector_bias(n, c, out, beta);
    if (plain || (bias && !bias->dequantized))
      if (ValPtr y = emit_linear_blocks(im, n, a, b, trans_b, bias)) return y;
  }
  bool bias_done = !c || beta == 0;
  ValPtr y;
  ValPtr weight = b->is_weight() && !a->is_weight() ? scaled_weight(b, alpha) : nullptr;
  if (weight) {
    int64_t out = weight->constant.size(trans_b ? 0 : 1);
    ValPtr bias = bias_done ? nullptr : vector_bias(n, c, out, beta);
    if (!trans_b) weight = im.transposed(weight);
    bias_done |= bias != nullptr;
    a = with_size(im, n, a, 1, weight->constant.size(1));
    y = im.call(n, "linear", {a, weight, bias});
  } else {
    if (trans_b) b = im.call(n, "permute", {b}, swap);
    y = im.call(n, "matmul", {a, b});
    if (alpha != 1) y = im.call(n, "mul", {y, im.scalar(n, alpha)});
  }
  if (!bias_done) {
    if (beta != 1) c = im.call(n, "mul", {c, im.scalar(n, beta)});
    y = im.call(n, "add", {y, c});
  }
  return y;
}

namespace {

// The window as the attributes give it, before auto_pad.
Window read_attributes(const NodeView& n, const Val& x, const std::vector<int64_t>& kernel) {
  int64_t spatial = x.rank() - 2;
  if (spatial < 1)
    n.fail(ErrorCode::corrupt, "expected data of 3 or more dimensions, got {}", to_string(x.type));
  auto count = static_cast<size_t>(spatial);
  Window w;
  w.kernel = n.get_ints("kernel_shape", kernel);
  w.stride = n.get_ints("strides", std::vector<int64_t>(count, 1));
  w.dilation = n.get_ints("dilations", std::vector<int64_t>(count, 1));
  w.pads = n.get_ints("pads", std::vector<int64_t>(2 * count, 0));
  check_range(n, "kernel_shape", w.kernel, count, 1);
  check_range(n, "strides", w.stride, count, 1);
  check_range(n, "dilations", w.dilation, count, 1);
  if (!kernel.empty() && w.kernel != kernel)
    n.fail(ErrorCode::corrupt, "kernel_shape ({}) differs from the weight's ({})",
           fmt::join(w.kernel, ", "), fmt::join(kernel, ", "));
  return w;
}

enum class AutoPad { none, valid, same_upper, same_lower };

AutoPad read_auto_pad(const NodeView& n) {
  std::string mode = n.get_string("auto_pad", "NOTSET");
  if (mode == "VALID") return AutoPad::valid;
  if (mode == "SAME_UPPER") return AutoPad::same_upper;
  if (mode == "SAME_LOWER") return AutoPad::same_lower;
  if (mode != "NOTSET" && !mode.empty()) n.fail(ErrorCode::corrupt, "auto_pad '{}'", mode);
  return AutoPad::none;
}

// The kernel's size, after checking that data and weight belong to a convolution of at most three
// dimensions.
std::vector<int64_t> kernel_of(const NodeView& n, const Val& x, const Val& w) {
  if (w.rank() != x.rank() || w.rank() < 3)
    n.fail(ErrorCode::corrupt,
           "expected data and weight of the same 3 or more dimensions, got {} and {}",
           to_string(x.type), to_string(w.type));
  if (w.rank() > 5) n.unsupported("{} spatial dimensions", w.rank() - 2);
  std::vector<int64_t> kernel;
  for (int64_t d = 2; d < w.rank(); ++d) kernel.push_back(known_dim(n, w, d, "the weight"));
  return kernel;
}

// The result is cut at both ends until it has the size of output_shape, or with auto_pad stride
// times the data's; an odd cell goes to the beginning unless auto_pad is SAME_UPPER. Where nothing
// is to be cut, what is missing is added at the end (output_shape) or not at all (auto_pad): ONNX
// Runtime's rules.
void import_conv_transpose(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), w = im.in(n, 1), b = im.optional_in(n, 2);
  Window window = read_attributes(n, *x, kernel_of(n, *x, *w));
  const size_t count = window.kernel.size();
  std::vector<int64_t> more = n.get_ints("output_padding", std::vector<int64_t>(count, 0));
  check_range(n, "output_padding", more, count, 0);
  std::vector<int64_t> shape = n.get_ints("output_shape");
  // N and C are written by some exporters
  if (shape.size() == count + 2) shape.erase(shape.begin(), shape.begin() + 2);
  if (!shape.empty()) check_range(n, "output_shape", shape, count, 1);
  const AutoPad mode = read_auto_pad(n);
  const bool same = mode == AutoPad::same_upper || mode == AutoPad::same_lower;
  if (mode == AutoPad::valid) window.pads.assign(2 * count, 0);
  for (size_t i = 0; i < count && (same || !shape.empty()); ++i) {
    // What remains of stride * size is the same for every size.
    const int64_t overlap =
        (window.kernel[i] - 1) * window.dilation[i] + 1 + more[i] - window.stride[i];
    int64_t total = overlap;
    if (!shape.empty())
      total += window.stride[i] * known_dim(n, *x, static_cast<int64_t>(i) + 2, "output_shape") -
               shape[i];
    if (total < 0 && !shape.empty()) {
      more[i] -= total;
      if (more[i] >= std::max(window.stride[i], window.dilation[i]))
        n.unsupported("an output_shape that no window reaches the end of");
    }
    total = std::max<int64_t>(total, 0);
    const int64_t less = total / 2;
    window.pads[i] = mode == AutoPad::same_upper ? less : total - less;
    window.pads[i + count] = total - window.pads[i];
  }
  check_range(n, "pads", window.pads, 2 * count, 0);
  x = with_size(im, n, x, 1, known_dim(n, *w, 0, "the weight"));
  Attrs attrs{{"stride", window.stride},
              {"padding", window.pads},
              {"output_padding", more},
              {"dilation", window.dilation},
              {"groups", n.get_int("group", 1)}};
  im.out(n, 0, im.call(n, fmt::format("conv_transpose{}d", count), {x, w, b}, attrs));
}

// With auto_pad SAME and a stride, the padding depends on the size: where that is open, x is padded
// by a call of its own when the model runs.
ValPtr padded_same(Importer& im, const NodeView& n, const ValPtr& x, const Window& w, AutoPad mode,
                   double value) {
  const size_t count = w.kernel.size();
  // max((ceil(in / stride) - 1) * stride + span - in, 0), half of it on each side.
  const auto number = [&](int64_t v) {
    return constant_val("", Tensor::from(std::vector<int64_t>{v}, {1}));
  };
  std::vector<ValPtr> before{number(0), number(0)}, after{number(0), number(0)};
  for (size_t i = 0; i < count; ++i) {
    const int64_t s = w.stride[i], span = (w.kernel[i] - 1) * w.dilation[i] + 1;
    const auto d = static_cast<int64_t>(i) + 2;
    const ValPtr in = im.call(n, "shape", {x}, {{"start", d}, {"end", d + 1}});
    const ValPtr out = im.call(n, "div", {im.call(n, "add", {in, number(s - 1)}), number(s)});
    ValPtr total = im.call(n, "mul", {out, number(s)});
    total = im.call(n, "sub", {im.call(n, "add", {total, number(span - s)}), in});
    total = im.call(n, "maximum", {total, number(0)});
    const ValPtr less = im.call(n, "div", {total, number(2)}),
                 more = im.call(n, "sub", {total, less});
    before.push_back(mode == AutoPad::same_upper ? less : more);
    after.push_back(mode == AutoPad::same_upper ? more : less);
  }
  before.insert(before.end(), after.begin(), after.end());
  const ValPtr pads = im.call(n, "cat", before, {{"dim", int64_t{0}}});
  return im.call(n, "pad", {x, pads}, {{"pads", FromOperand{1}}, {"value", value}});
}

}  // namespace

Window read_window(Importer& im, const NodeView& n, ValPtr& x, const std::vector<int64_t>& kernel,
                   std::optional<double> fill) {
  Window w = read_attributes(n, *x, kernel);
  const size_t count = w.kernel.size();
  const AutoPad mode = read_auto_pad(n);
  if (mode != AutoPad::none) w.pads.assign(2 * count, 0);
  if (mode == AutoPad::same_upper || mode == AutoPad::same_lower) {
    for (size_t i = 0; i < count; ++i) {
      if (w.stride[i] == 1 || x->dims()[i + 2].known()) continue;
      if (!fill)
        n.needs_size("auto_pad with strides over '{}', a size that is known only at run time",
                     x->dims()[i + 2].name());
      x = padded_same(im, n, x, w, mode, *fill);
      return w;
    }
    for (size_t i = 0; i < count; ++i) {
      int64_t span = (w.kernel[i] - 1) * w.dilation[i] + 1, total = span - 1;
      if (w.stride[i] != 1) {  // out = ceil(in / stride), so the padding depends on the size
        int64_t in = known_dim(n, *x, static_cast<int64_t>(i) + 2, "auto_pad");
        int64_t out = (in + w.stride[i] - 1) / w.stride[i];
        total = std::max<int64_t>((out - 1) * w.stride[i] + span - in, 0);
      }
      int64_t less = total / 2, more = total - less;
      w.pads[i] = mode == AutoPad::same_upper ? less : more;
      w.pads[i + count] = mode == AutoPad::same_upper ? more : less;
    }
  }
  check_range(n, "pads", w.pads, 2 * count, 0);
  return w;
}

Attrs conv_attrs(Importer& im, const NodeView& n, ValPtr& x, const Val& w,
                 std::optional<double> fill) {
  Window window = read_window(im, n, x, kernel_of(n, *x, w), fill);
  return {{"stride", window.stride},
          {"padding", window.pads},
          {"dilation", window.dilation},
          {"groups", n.get_int("group", 1)}};
}

ValPtr emit_conv(Importer& im, const NodeView& n, ValPtr x, const ValPtr& w, const ValPtr& b) {
  const Attrs attrs = conv_attrs(im, n, x, *w, 0);
  x = with_size(im, n, x, 1, known_dim(n, *w, 1, "the weight") * n.get_int("group", 1));
  return im.call(n, fmt::format("conv{}d", w->rank() - 2), {x, w, b}, attrs);
}

ValPtr emit_conv_integer(Importer& im, const NodeView& n, ValPtr x, const ValPtr& w,
                         const ValPtr& x_zero, const ValPtr& w_zero) {
  // What an open size is padded with would be the zero point: that is no number yet.
  const Attrs attrs = conv_attrs(im, n, x, *w, std::nullopt);
  return im.call(n, "conv_integer", {x, w, x_zero, w_zero}, attrs);
}

ValPtr emit_linear_blocks(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& w,
                          bool out_first, const ValPtr& bias) {
  if (!w->blocks || w->rank() != 2 || x->rank() < 2 || x->is_weight() ||
      x->type.dtype != DType::float32 || w->blocks->axis != (out_first ? 1 : 0) ||
      w->blocks->block * w->blocks->bits % 8 != 0)
    return nullptr;
  const BlockCodes& from = *w->blocks;
  const auto rows = [&](const Tensor& t) {  // (out, ...) as int64 or float32
    const Tensor wide = t.to(is_floating(t.dtype()) ? DType::float32 : DType::int64);
    return (out_first ? wide : wide.transpose(0, 1)).contiguous();
  };
  // Unsigned codes, and zero points that go with them.
  const int64_t middle = int64_t{1} << (from.bits - 1),
                shift = from.codes.dtype() == DType::int8 ? middle : 0, per_byte = 8 / from.bits;
  const Tensor codes = rows(from.codes), scales = rows(from.scales);
  const int64_t out = codes.size(0), in = codes.size(1), blocks = scales.size(1),
                row_bytes = from.block / per_byte;
  Tensor packed = Tensor::zeros({out, blocks, row_bytes}, DType::uint8),
         zeros = Tensor::full(scales.shape(), static_cast<double>(shift));
  for (int64_t i = 0; i < out * in; ++i) {
    const int64_t at = i / in * blocks + i % in / from.block, place = i % in % from.block;
    packed.data<uint8_t>()[at * row_bytes + place / per_byte] |=
        static_cast<uint8_t>((codes.data<int64_t>()[i] + shift) << (place % per_byte * from.bits));
  }
  bool usual = true;
  const Tensor given = from.zero_points.defined() ? rows(from.zero_points) : Tensor();
  for (int64_t i = 0; i < zeros.numel(); ++i) {
    if (given.defined()) zeros.data<float>()[i] += static_cast<float>(given.data<int64_t>()[i]);
    usual = usual && zeros.data<float>()[i] == static_cast<float>(middle);
  }
  return im.call(n, "linear_blocks",
                 {with_size(im, n, x, x->rank() - 1, in), constant_val(w->name + ".codes", packed),
                  constant_val(w->name + ".scales", scales),
                  usual ? nullptr : constant_val(w->name + ".zero_points", zeros), bias},
                 {{"in_features", in}, {"block_size", from.block}, {"bits", from.bits}});
}

ValPtr emit_matmul(Importer& im, const NodeView& n, const ValPtr& a, const ValPtr& b) {
  if (ValPtr y = emit_linear_blocks(im, n, a, b, false, nullptr)) return y;
  bool matrix = b->is_weight() && b->rank() == 2 && a->rank() >= 2 && !a->is_weight();
  bool real = is_floating(b->type.dtype) && is_floating(a->type.dtype);
  if (matrix && real)
    return im.call(n, "linear",
                   {with_size(im, n, a, a->rank() - 1, b->constant.size(0)), im.transposed(b)});
  return im.call(n, "matmul", {a, b});
}

void add_layers(Handlers& h) {
  h["Conv"] = import_conv;
  h["ConvTranspose"] = import_conv_transpose;
  h["Gemm"] = [](Importer& im, const NodeView& n) {
    n.ignore({"broadcast"});  // opset 6; what it says follows from the shapes
    im.out(n, 0, emit_gemm(im, n, im.in(n, 0), im.in(n, 1), im.optional_in(n, 2)));
  };
  h["MatMul"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0, emit_matmul(im, n, im.in(n, 0), im.in(n, 1)));
  };
}

}  // namespace octet::io::onnx_impl
