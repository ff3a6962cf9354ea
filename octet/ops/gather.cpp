// Operators that copy elements to other places: cat, pad, gathers, tiles, triangles and the largest
// elements.
#include <algorithm>
#include <numeric>

#include "octet/engine/moves_impl.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/gather_impl.h"
#include "octet/ops/gradient_impl.h"
#include "octet/tensor/affine.h"

namespace octet::ops {
namespace {

using namespace engine_detail;

// The codes (or plain elements) `y` that were made of x's, as the wanted type. `axis_of` as in
// moved().
Tensor finish(const Call& c, const Tensor& y, const std::function<int64_t(int64_t)>& axis_of) {
  const Tensor& x = c[0];
  if (!x.is_quantized()) return as_result(y, c.outputs()[0]);
  QuantizerPtr quantizer = x.quantizer();
  if (quantizer->is_per_channel()) {
    int64_t axis = axis_of(quantizer->axis());
    if (axis < 0) return through_float(c);
    quantizer = quantizer->with_axis(axis);
  }
  return as_result(with_quantizer(y, quantizer), c.outputs()[0]);
}

// The bits of `value` as an element of x: its code, for quantized tensors (per tensor).
uint64_t fill_bits(const Tensor& x, double value) {
  if (!x.is_quantized() || x.quantizer()->is_per_channel())
    return element_bits(value, elements(x).dtype());
  int32_t code = affine::quantize(static_cast<float>(value), static_cast<float>(x.q_scale()),
                                  static_cast<int32_t>(x.q_zero_point()),
                                  static_cast<int32_t>(qmin(x.dtype())),
                                  static_cast<int32_t>(qmax(x.dtype())));
  return element_bits(code, code_dtype(x.dtype()));
}

// -- cat ------------------------------------------------------------------------------------------

TensorType infer_cat(const Types& t) {
  OCTET_CHECK(t[0].dim() > 0, invalid_argument, "cat: operands need at least one dimension");
  int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "cat");
  std::vector<Dim> dims = t[0].dims;
  bool alike = true;  // all operands have one quantized type
  for (size_t i = 1; i < t.size(); ++i) {
    OCTET_CHECK(plain_dtype(t[i]) == plain_dtype(t[0]), invalid_argument,
                "cat: operands 0 and {} are {} and {}; expected one dtype", i, to_string(t[0]),
                to_string(t[i]));
    bool fits = t[i].dim() == t[0].dim();
    for (int64_t d = 0; d < t[0].dim() && fits; ++d) {
      const Dim& n = t[i].dims[d];
      if (d == dim)
        dims[d] = plus(dims[d], n);
      else if (!dims[d].known())
        dims[d] = n.known() ? n : dims[d];
      else
        fits = !n.known() || n == dims[d];
    }
    OCTET_CHECK(
        fits, invalid_argument,
        "cat: operands 0 and {} have shapes {} and {}; expected the same but for dimension {}", i,
        dims_text(t[0].dims), dims_text(t[i].dims), dim);
    alike = alike && same_qparams(t[i], t[0]);
  }
  need_want(t);
  // Operands of one scale and zero point leave no choice: the result has them too.
  if (!t.want() && t[0].is_quantized() && alike && !t[0].quantizer->is_per_channel())
    return TensorType(t[0].dtype, std::move(dims), t[0].quantizer);
  return t.result(std::move(dims), plain_dtype(t[0]));
}

// Copies elements of one plain dtype behind one another along `dim`.
Tensor join(const std::vector<Tensor>& parts, int64_t dim, const Shape& shape) {
  Tensor y = Tensor::empty(shape, parts[0].dtype());
  int64_t outer = 1, start = 0;
  for (int64_t d = 0; d < dim; ++d) outer *= shape[d];
  if (y.numel() == 0) return y;
  const int64_t row = y.nbytes() / outer;
  for (const Tensor& part : parts) {
    if (part.numel() == 0) continue;
    Tensor x = part.contiguous();
    const int64_t size = x.nbytes() / outer;
    const auto* in = static_cast<const std::byte*>(x.raw_data());
    auto* out = static_cast<std::byte*>(y.raw_data()) + start;
    parallel_ranges(outer, std::max<int64_t>(1, 4 * kGrain / size),
                    [=](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i)
                        std::memcpy(out + i * row, in + i * size, size);
                    });
    start += size;
  }
  return y;
}

Tensor eval_cat(const Call& c) {
  return join(c.inputs(), normalize_dim(c.attrs().get_int("dim"), c[0].dim(), "cat"),
              c.outputs()[0].shape());
}

// Operands with the result's qparams are copied; others are requantized first.
Tensor cat_codes(const Call& c) {
  const TensorType& out = c.outputs()[0];
  if (!out.is_quantized() || out.quantizer->is_per_channel()) return through_float(c);
  std::vector<Tensor> parts;
  for (const Tensor& x : c.inputs()) {
    if (same_qparams(x, out)) {
      parts.push_back(x.int_repr());
    } else if (is_byte_affine(x.type()) && is_byte_affine(out)) {
      // quantize(dequantize(q)) has 256 values.
      auto lo = static_cast<int32_t>(qmin(out.dtype)), hi = static_cast<int32_t>(qmax(out.dtype));
      uint8_t table[256];
      for (auto q = static_cast<int32_t>(qmin(x.dtype())); q <= qmax(x.dtype()); ++q)
        table[static_cast<uint8_t>(q)] = static_cast<uint8_t>(
            affine::quantize(affine::dequantize(q, static_cast<float>(x.q_scale()),
                                                static_cast<int32_t>(x.q_zero_point())),
                             static_cast<float>(out.quantizer->scale()),
                             static_cast<int32_t>(out.quantizer->zero_point()), lo, hi));
      Tensor part = Tensor::empty(x.shape(), code_dtype(out.dtype));
      map_into<uint8_t, uint8_t>(x, part, [&table](uint8_t q) { return table[q]; });
      parts.push_back(part);
    } else {
      parts.push_back(as_result(x, out).int_repr());
    }
  }
  int64_t dim = normalize_dim(c.attrs().get_int("dim"), c[0].dim(), "cat");
  return with_quantizer(join(parts, dim, out.shape()), out.quantizer);
}

// -- pad ------------------------------------------------------------------------------------------

TensorType infer_pad(const Types& t) {
  const std::vector<int64_t>& pads = t.attrs().get_ints("pads");
  const std::string& mode = t.attrs().get_string("mode");
  auto rank = static_cast<size_t>(t[0].dim());
  OCTET_CHECK(pads.size() == 2 * rank, invalid_argument,
              "pad: {} pads for an operand of shape {}; expected {}: the beginnings of every "
              "dimension, then the ends",
              pads.size(), dims_text(t[0].dims), 2 * rank);
  OCTET_CHECK(mode == "constant" || mode == "reflect" || mode == "edge" || mode == "wrap",
              invalid_argument,
              "pad: mode=\"{}\"; expected \"constant\", \"reflect\", \"edge\" or \"wrap\"", mode);
  std::vector<Dim> dims;
  for (size_t d = 0; d < rank; ++d) {
    int64_t before = pads[d], after = pads[d + rank];
    const Dim& n = t[0].dims[d];
    if (n.known()) {
      int64_t most = std::max(before, after);
      bool fits = n.size() + before + after >= 0 && n.size() + std::min(before, after) >= 0;
      if (mode == "reflect") fits = fits && (most <= 0 || most < n.size());
      if (mode == "edge") fits = fits && (most <= 0 || n.size() > 0);
      if (mode == "wrap")
        fits = fits && (most <= 0 || most <= n.size() + std::min<int64_t>({before, after, 0}));
      OCTET_CHECK(fits, invalid_argument,
                  "pad: dimension {} of {} cannot be padded by {} and {} (mode \"{}\")", d,
                  dims_text(t[0].dims), before, after, mode);
    }
    dims.push_back(plus(n, before + after));
  }
  return moved(t, std::move(dims), [&](int64_t axis) {
    return pads[axis] == 0 && pads[axis + rank] == 0 &&
                   (mode != "constant" || t.attrs().get_double("value") == 0)
               ? axis
               : -1;
  });
}

TensorType open_pad(const Types& t) {
  const auto pads = t.sizes("pads");
  const size_t rank = t[0].dims.size();
  std::vector<Dim> dims(rank, unknown());
  for (size_t d = 0; pads && pads->size() == 2 * rank && d < rank; ++d) {
    const Dim &before = (*pads)[d], &after = (*pads)[d + rank];
    if (before.name().empty() && after.name().empty())
      dims[d] = plus(t[0].dims[d], before.size() + after.size());
  }
  return moved(t, std::move(dims), [](int64_t) { return -1; });
}

Tensor eval_pad(const Call& c) {
  const Tensor& x = c[0];
  const std::vector<int64_t>& pads = c.attrs().get_ints("pads");
  const std::string& mode = c.attrs().get_string("mode");
  const double value = c.attrs().get_double("value");
  // Constants go the long way where zero points differ from channel to channel, and where they
  // would be rounded twice.
  bool other = value != 0 && !same_qparams(x, c.outputs()[0]);
  if (x.is_quantized() && mode == "constant" && (x.quantizer()->is_per_channel() || other))
    return through_float(c);
  const uint64_t fill = fill_bits(x, value);
  Tensor y = elements(x);
  for (int64_t d = 0; d < x.dim(); ++d) {
    int64_t before = pads[d], after = pads[d + x.dim()], n = x.size(d);
    if (before == 0 && after == 0) continue;
    y = take(y, d, pad_index(n, before, after, mode), fill);
  }
  return finish(c, fresh(y), [](int64_t axis) { return axis; });
}

Tensor pad_gradient(const Grad& g) {
  const Tensor& x = g[0];
  const std::vector<int64_t>& pads = g.attrs().get_ints("pads");
  Tensor dx = g.dy();
  for (int64_t d = x.dim(); d-- > 0;) {
    int64_t before = pads[d], after = pads[d + x.dim()];
    if (before == 0 && after == 0) continue;
    dx = take_gradient(dx, d, pad_index(x.size(d), before, after, g.attrs().get_string("mode")),
                       x.size(d));
  }
  return dx;
}

// -- gathers --------------------------------------------------------------------------------------

void need_index(const Types& t, const char* name) {
  OCTET_CHECK(
      !t[name].is_quantized() && !is_floating(t[name].dtype) && t[name].dtype != DType::bool_,
      invalid_argument, "{}: {} is {}; expected integers", t.op().name(), name, to_string(t[name]));
}

// The indices as numbers in 0..n-1; negatives count from the end.
std::vector<int64_t> wrapped(const Tensor& index, int64_t n, const std::string& who) {
  std::vector<int64_t> result = index.to(DType::int64).to_vector<int64_t>();
  for (int64_t& i : result) {
    OCTET_CHECK(i >= -n && i < n, invalid_argument,
                "{}: index {} is out of range for a dimension of size {}", who, i, n);
    if (i < 0) i += n;
  }
  return result;
}

std::vector<Dim> indexed(const std::vector<Dim>& x, int64_t dim, const std::vector<Dim>& index) {
  std::vector<Dim> dims(x.begin(), x.begin() + dim);
  dims.insert(dims.end(), index.begin(), index.end());
  dims.insert(dims.end(), x.begin() + dim + 1, x.end());
  return dims;
}

TensorType infer_index_select(const Types& t) {
  need_index(t, "index");
  OCTET_CHECK(t[0].dim() > 0, invalid_argument, "index_select: the operand has no dimensions");
  int64_t dim = normalize_dim(t.attrs().get_int("dim"), t[0].dim(), "index_select"),
          extra = t[1].dim() - 1;
  return moved(t, indexed(t[0].dims, dim, t[1].dims), [=](int64_t axis) {
    return axis == dim ? -1 : axis < dim ? axis : axis + extra;
  });
}

Tensor eval_index_select(const Call& c) {
  const Tensor &x = c[0], &index = c[1];
  int64_t dim = normalize_dim(c.attrs().get_int("dim"), x.dim(), "index_select"),
          extra = index.dim() - 1;
  Tensor y = take(elements(x), dim, wrapped(index, x.size(dim), "index_select"))
                 .reshape(c.outputs()[0].shape());
  return finish(c, y, [=](int64_t axis) {
    return axis == dim ? -1 : axis < dim ? axis : axis + extra;
  });
}

// Of x[index] along dim: the index's dimensions as one, then back to where the slices came from.
// Slice `without` (-1: none) gets nothing.
Tensor select_gradient(const Tensor& dy, const Shape& x, const Tensor& index, int64_t dim,
                       const std::string& who, int64_t without = -1) {
  Shape flat = x;
  flat[dim] = index.numel();
  std::vector<int64_t> at = wrapped(index, x[dim], who);
  if (without >= 0) std::replace(at.begin(), at.end(), without, int64_t{-1});
  return take_gradient(dy.reshape(flat), dim, at, x[dim]);
}

TensorType infer_embedding(const Types& t) {
  need_index(t, "index");
  OCTET_CHECK(t[0].dim() == 2, invalid_argument,
              "embedding: weight has shape {}; expected (rows, numbers per row)",
              dims_text(t[0].dims));
  const int64_t padding = t.attrs().get_int("padding_idx");
  OCTET_CHECK(padding >= -1 && (!t[0].dims[0].known() || padding < t[0].dims[0].size()),
              invalid_argument, "embedding: padding_idx={}; expected a row of {}, or -1 for none",
              padding, to_string(t[0]));
  std::vector<Dim> dims = indexed(t[0].dims, 0, t[1].dims);
  // Quantized rows are dequantized unless a quantized result is asked for: weights may have a scale
  // per row.
  if (!t.want()) return TensorType(plain_dtype(t[0]), std::move(dims));
  return t.result(std::move(dims));
}

Tensor eval_embedding(const Call& c) {
  const Tensor& weight = c[0];
  const TensorType& out = c.outputs()[0];
  if (weight.is_quantized() && weight.quantizer()->has_float_zero_points())
    return as_result(call("embedding_byte", {weight, c[1]}), out);
  const std::vector<int64_t> rows = wrapped(c[1], weight.size(0), "embedding");
  Tensor y = take(elements(weight), 0, rows);
  QuantizerPtr quantizer = weight.quantizer();
  if (quantizer && quantizer->axis() == 0) {
    if (rows.empty()) return as_result(Tensor::empty(out.shape()), out);
    std::vector<double> scales;
    std::vector<int64_t> zeros;
    for (int64_t r : rows) {
      scales.push_back(quantizer->scale(r));
      zeros.push_back(quantizer->zero_point(r));
    }
    quantizer = Quantizer::per_channel(scales, zeros, 0, weight.dtype());
  }
  if (!quantizer) return as_result(y.reshape(out.shape()), out);
  y = with_quantizer(y, quantizer);
  if (quantizer->is_per_channel()) y = y.dequantize();
  return as_result(y.reshape(out.shape()), out);
}

TensorType infer_tile(const Types& t) {
  const std::vector<int64_t>& repeats = t.attrs().get_ints("repeats");
  OCTET_CHECK(static_cast<int64_t>(repeats.size()) == t[0].dim(), invalid_argument,
              "tile: repeats [{}] for an operand of shape {}; expected one per dimension",
              fmt::join(repeats, ", "), dims_text(t[0].dims));
  std::vector<Dim> dims;
  for (size_t d = 0; d < repeats.size(); ++d) {
    OCTET_CHECK(repeats[d] >= 0, invalid_argument, "tile: repeat {} in [{}]; expected 0 or more",
                repeats[d], fmt::join(repeats, ", "));
    dims.push_back(multiply(t[0].dims[d], Dim(repeats[d])));
  }
  return moved(t, std::move(dims), [&](int64_t axis) { return repeats[axis] == 1 ? axis : -1; });
}

TensorType open_tile(const Types& t) {
  const auto repeats = t.sizes("repeats");
  std::vector<Dim> dims(t[0].dims.size(), unknown());
  for (size_t d = 0; repeats && repeats->size() == dims.size() && d < dims.size(); ++d)
    if ((*repeats)[d] != unknown()) dims[d] = multiply(t[0].dims[d], (*repeats)[d]);
  return moved(t, std::move(dims), [](int64_t) { return -1; });
}

Tensor eval_tile(const Call& c) {
  const std::vector<int64_t>& repeats = c.attrs().get_ints("repeats");
  Tensor y = elements(c[0]);
  for (int64_t d = 0; d < c[0].dim(); ++d)
    if (repeats[d] != 1) y = take(y, d, tile_index(c[0].size(d), repeats[d]));
  return finish(c, fresh(y), [&](int64_t axis) { return repeats[axis] == 1 ? axis : -1; });
}

}  // namespace

// The operands behind one another along `dim`. Quantized: operands with the result's scale and zero
// point are copied, others are dequantized and quantized. Without a wanted type the operands must
// all have the same qparams.
OCTET_OP(cat, "cat(xs..., *, dim=0) -> y", QRule::own, infer(infer_cat), eval(eval_cat),
         quantized(cat_codes), gradients([](const Grad& g) {
           int64_t dim = normalize_dim(g.attrs().get_int("dim"), g[0].dim(), "cat"), start = 0;
           Tensor dy = g.dy();
           std::vector<Tensor> parts;
           for (size_t i = 0; i < g.size(); start += g[i++].size(dim))
             parts.push_back(dy.slice(dim, start, start + g[i].size(dim)));
           return parts;
         }),
         Traits{.moves = true}, Doc{"the operands behind one another along dim"})

// x with borders. pads: what is added before every dimension, then what is added after every
// dimension (negative: taken off). Modes: "constant" (value), "reflect" (mirrored without the
// edge), "edge" (repeated), "wrap" (from the other end of what is left of x). Quantized: pads with
// quantize(value), qparams unchanged.
OCTET_OP(pad, "pad(x, *, pads, value=0., mode=\"constant\") -> y", QRule::same, infer(infer_pad),
         eval(eval_pad), gradient(pad_gradient),
         open_attrs({{"pads", AttrKind::integers}, {"value", AttrKind::number}}, open_pad),
         Doc{"borders around x; pads: begins, then ends; mode: \"constant\", \"reflect\", \"edge\" "
             "or \"wrap\""})

// ONNX's Gather: y[a..., i..., b...] = x[a..., index[i...], b...] with `dim` behind a. Negative
// indices count from the end; one out of range is an Error.
OCTET_OP(index_select, "index_select(x, index, *, dim=0) -> y", QRule::same,
         infer(infer_index_select), eval(eval_index_select), gradient([](const Grad& g) {
           int64_t dim = normalize_dim(g.attrs().get_int("dim"), g[0].dim(), "index_select");
           return select_gradient(g.dy(), g[0].shape(), g[1], dim, "index_select");
         }),
         Traits{.moves = true}, Doc{"the slices of x at index along dim"})

// Row index[i...] of weight, for every i. The rows of a quantized weight (per tensor, or one scale
// per row) are dequantized; if a quantized result is asked for they are quantized to that. Row
// padding_idx (-1: none) gets no gradient.
OCTET_OP(embedding, "embedding(weight, index, *, padding_idx=-1) -> y", QRule::own,
         infer(infer_embedding), eval(eval_embedding), quantized(eval_embedding),
         gradient([](const Grad& g) {
           return select_gradient(g.dy(), g[0].shape(), g[1], 0, "embedding",
                                  g.attrs().get_int("padding_idx"));
         }),
         Doc{"the rows of weight at index; row padding_idx gets no gradient"})

// x repeated along every dimension.
OCTET_OP(tile, "tile(x, *, repeats) -> y", QRule::same, infer(infer_tile), eval(eval_tile),
         gradient([](const Grad& g) {
           const std::vector<int64_t>& repeats = g.attrs().get_ints("repeats");
           Tensor dx = g.dy();
           for (int64_t d = g[0].dim(); d-- > 0;)
             if (repeats[d] != 1)
               dx = take_gradient(dx, d, tile_index(g[0].size(d), repeats[d]), g[0].size(d));
           return dx;
         }),
         open_attrs({{"repeats", AttrKind::integers}}, open_tile), Traits{.moves = true},
         Doc{"x repeated along every dimension"})

}  // namespace octet::ops
