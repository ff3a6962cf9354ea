// Pools. octet has them over images; other ranks are brought to that.
#include <algorithm>
#include <limits>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr double kUnbounded = std::numeric_limits<double>::infinity();

bool pools_directly(const Val& x) { return is_floating(x.type.dtype) || x.type.is_quantized(); }

Attrs pool_attrs(const std::vector<int64_t>& kernel, const std::vector<int64_t>& stride,
                 const std::vector<int64_t>& pads, bool ceil) {
  return {{"kernel", kernel}, {"stride", stride}, {"padding", pads}, {"ceil_mode", ceil}};
}

// Where the maximum of each window is, counted over the whole of x: the elements of the windows as
// slices of x behind one another, the place of the largest among them, and from that its place in
// x.
ValPtr max_places(Importer& im, const NodeView& n, const ValPtr& x, const Window& w, bool ceil) {
  const size_t spatial = w.kernel.size();
  const bool columns_first = n.get_int("storage_order", 0) != 0;
  std::vector<int64_t> size, out, pads(2 * spatial + 4, 0), step(spatial, 1);
  int64_t plane = 1;
  for (size_t d = 0; d < spatial; ++d) {
    size.push_back(known_dim(n, *x, static_cast<int64_t>(d) + 2, "the Indices output"));
    const int64_t span = (w.kernel[d] - 1) * w.dilation[d] + 1, end = w.pads[d + spatial],
                  room = size[d] + w.pads[d] + end - span;
    if (room < 0) n.fail(ErrorCode::corrupt, "a window of {} over {} elements", span, size[d]);
    int64_t count = (room + (ceil ? w.stride[d] - 1 : 0)) / w.stride[d] + 1;
    // No window begins behind the last element.
    if (ceil && (count - 1) * w.stride[d] >= size[d] + w.pads[d]) --count;
    out.push_back(count);
    pads[d + 2] = w.pads[d];
    pads[d + spatial + 4] = std::max(end, (count - 1) * w.stride[d] + span - size[d] - w.pads[d]);
    plane *= size[d];
  }
  for (size_t d = 1; d < spatial; ++d) {  // the distance of neighbours along each dimension
    if (columns_first)
      step[d] = step[d - 1] * size[d - 1];
    else
      step[spatial - 1 - d] = step[spatial - d] * size[spatial - d];
  }
  ValPtr padded = im.call(n, "pad", {x}, {{"pads", pads}, {"value", -kUnbounded}});
  std::vector<ValPtr> parts;
  std::vector<int64_t> places, at(spatial, 0);
  int64_t cells = 1;
  for (int64_t k : w.kernel) cells *= k;
  constexpr int64_t kMostCells = 4096;
  if (cells > kMostCells) n.unsupported("the Indices output of windows of {} elements", cells);
  for (int64_t cell = 0; cell < cells; ++cell) {
    ValPtr part = padded;
    int64_t place = 0;
    for (size_t d = 0; d < spatial; ++d) {
      const int64_t start = at[d] * w.dilation[d];
      part = im.call(n, "slice", {part},
                     {{"dim", static_cast<int64_t>(d) + 2},
                      {"start", start},
                      {"end", start + (out[d] - 1) * w.stride[d] + 1},
                      {"step", w.stride[d]}});
      place += (start - w.pads[d]) * step[d];
    }
    places.push_back(place);
    parts.push_back(im.call(n, "unsqueeze", {part}, {{"dim", int64_t{0}}}));
    for (size_t d = spatial; d-- > 0;) {
      if (++at[d] < w.kernel[d]) break;
      at[d] = 0;
    }
  }
  ValPtr all = im.call(n, "cat", parts, {{"dim", int64_t{0}}});
  ValPtr best = im.call(n, "argmax", {all}, {{"dim", int64_t{0}}, {"keepdim", false}});
  ValPtr y = im.call(n, "index_select", {constant_val("", Tensor::from(places, {cells})), best});
  const auto add = [&](ValPtr numbers, int64_t times, int64_t dims_behind) {
    numbers = im.call(n, "mul", {numbers, im.scalar(n, static_cast<double>(times), DType::int64)});
    for (int64_t d = 0; d < dims_behind; ++d)
      numbers = im.call(n, "unsqueeze", {numbers}, {{"dim", int64_t{1}}});
    y = im.call(n, "add", {y, numbers});
  };
  const auto rank = static_cast<int64_t>(spatial) + 2;
  for (size_t d = 0; d < spatial; ++d)
    add(constant_val("", Tensor::arange(out[d])), w.stride[d] * step[d],
        rank - 3 - static_cast<int64_t>(d));
  add(count_up(im, n, x, 0), known_dim(n, *x, 1, "the Indices output") * plane, rank - 1);
  add(count_up(im, n, x, 1), plane, rank - 2);
  return y;
}

// Whether a window is as large as the images.
bool covers_image(const Val& x, const std::vector<int64_t>& kernel) {
  const std::vector<Dim>& dims = x.type.dims;
  return dims.size() == 4 && kernel.size() == 2 && dims[2] == Dim(kernel[0]) &&
         dims[3] == Dim(kernel[1]);
}

}  // namespace

ValPtr emit_pool(Importer& im, const NodeView& n, ValPtr x, bool max, bool sum) {
  DType dtype = x->type.dtype;
  // Plain 8 and 16 bit integers are exact in float32.
  if (!pools_directly(*x)) x = im.cast(n, x, DType::float32);
  constexpr double kNeverWins = -std::numeric_limits<float>::max();
  const ValPtr unpadded = x;
  Window w = read_window(im, n, x, {}, max ? kNeverWins : 0);
  bool ceil = n.get_int("ceil_mode", 0) != 0;
  n.ignore({"storage_order"});  // orders the Indices output only
  bool padded = std::any_of(w.pads.begin(), w.pads.end(), [](int64_t p) { return p != 0; });
  bool count_pad =
      // without pads it is the same
      !max && (n.get_int("count_include_pad", 0) != 0 || (!padded && !ceil));
  if (!max)
    for (int64_t d : w.dilation)
      if (d != 1) n.unsupported("dilations");
  if (dtype == DType::int32 || dtype == DType::int64)
    n.unsupported("data of type {}", to_string(dtype));
  if (max && im.wants_output(n, 1)) im.out(n, 1, max_places(im, n, x, w, ceil));
  const char* op = max ? "max_pool2d" : "avg_pool2d";
  auto finish = [&](Attrs attrs, std::vector<int64_t> dilation) {
    if (max)
      attrs.set("dilation", dilation);
    else
      attrs.set("count_include_pad", count_pad);
    if (sum) attrs.set("divisor_override", int64_t{1});
    return attrs;
  };
  const auto pooled = [&](const ValPtr& data) -> ValPtr {
    const Attrs attrs = finish(pool_attrs(w.kernel, w.stride, w.pads, ceil), w.dilation);
    if (w.kernel.size() == 2) return im.call(n, op, {data}, attrs);
    if (w.kernel.size() == 3) return im.call(n, max ? "max_pool3d" : "avg_pool3d", {data}, attrs);
    if (w.kernel.size() > 3) n.unsupported("{} spatial dimensions", w.kernel.size());
    ValPtr image = im.call(n, "unsqueeze", {data}, {{"dim", int64_t{2}}});  // of height 1
    const Attrs flat =
        finish(pool_attrs({1, w.kernel[0]}, {1, w.stride[0]}, {0, w.pads[0], 0, w.pads[1]}, ceil),
               {1, w.dilation[0]});
    return im.call(n, "squeeze", {im.call(n, op, {image}, flat)}, {{"dim", int64_t{2}}});
  };
  const bool whole = !max && !sum && !padded && covers_image(*x, w.kernel);
  ValPtr y = whole ? emit_global_pool(im, n, x, max) : pooled(x);
  // The zeros of a padding that the model's run decides are in the mean, which is divided by the
  // share of each window that is not padding.
  if (x != unpadded && !max && !sum && n.get_int("count_include_pad", 0) == 0) {
    ValPtr ones = expand_like(im, n, im.scalar(n, 1), unpadded);
    read_window(im, n, ones, {}, 0);
    y = im.call(n, "div", {y, pooled(ones)});
  }
  return x->type.dtype == dtype ? y : im.cast(n, y, dtype);
}

ValPtr emit_global_pool(Importer& im, const NodeView& n, const ValPtr& x, bool max) {
  if (x->rank() < 3)
    n.fail(ErrorCode::corrupt, "expected data of 3 or more dimensions, got {}", to_string(x->type));
  if (!max && x->rank() == 4)
    return im.call(n, "adaptive_avg_pool2d", {x}, {{"output_size", std::vector<int64_t>{1, 1}}});
  std::vector<int64_t> dims;
  for (int64_t d = 2; d < x->rank(); ++d) dims.push_back(d);
  return im.call(n, max ? "amax" : "mean", {x}, {{"dim", dims}, {"keepdim", true}});
}

namespace {

// |x| to the power p, and back.
ValPtr powered(Importer& im, const NodeView& n, const ValPtr& x, double p) {
  ValPtr size = im.call(n, "abs", {x});
  return p == 1 ? size : im.call(n, "pow", {size, im.scalar(n, p)});
}
ValPtr rooted(Importer& im, const NodeView& n, const ValPtr& x, double p) {
  if (p == 1) return x;
  return p == 2 ? im.call(n, "sqrt", {x}) : im.call(n, "pow", {x, im.scalar(n, 1 / p)});
}

// The sum over each window of |x| to the power p, and the p-th root of it.
void import_lp_pool(Importer& im, const NodeView& n, bool global) {
  ValPtr x = im.in(n, 0);
  const double p = static_cast<double>(n.get_int("p", 2));
  if (p < 1) n.fail(ErrorCode::corrupt, "p={}: expected 1 or more", p);
  ValPtr powers = powered(im, n, x, p), sums;
  if (global) {
    std::vector<int64_t> dims;
    for (int64_t d = 2; d < x->rank(); ++d) dims.push_back(d);
    sums = im.call(n, "sum", {powers}, {{"dim", dims}, {"keepdim", true}});
  } else {
    sums = emit_pool(im, n, powers, false, true);
  }
  im.out(n, 0, rooted(im, n, sums, p));
}

// x / (bias + alpha * m)^beta, m the mean of the squares over `size` neighbouring channels, those
// beyond the ends being 0.
void import_lrn(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  const int64_t size = n.get_int("size", 0), rank = x->rank();
  constexpr int64_t kMostChannels = 1 << 20;
  if (size < 1 || size > kMostChannels || rank < 2)
    n.fail(ErrorCode::corrupt, "size={} for {}", size, to_string(x->type));
  const int64_t before = (size - 1) / 2, after = size - 1 - before;
  // The channels as the height or the depth of one channel.
  ValPtr m = im.call(n, "mul", {x, x});
  if (rank == 2) m = im.call(n, "unsqueeze", {m}, {{"dim", int64_t{2}}});
  if (rank > 4) m = im.call(n, "flatten", {m}, {{"start_dim", int64_t{2}}});
  m = im.call(n, "unsqueeze", {m}, {{"dim", int64_t{1}}});
  Attrs window = rank == 4 ? pool_attrs({size, 1, 1}, {1, 1, 1}, {before, 0, 0, after, 0, 0}, false)
                           : pool_attrs({size, 1}, {1, 1}, {before, 0, after, 0}, false);
  window.set("count_include_pad", true);
  m = im.call(n, rank == 4 ? "avg_pool3d" : "avg_pool2d", {m}, window);
  m = im.call(n, "squeeze", {m}, {{"dim", int64_t{1}}});
  if (rank == 2) m = im.call(n, "squeeze", {m}, {{"dim", int64_t{2}}});
  if (rank > 4) m = reshape_like(im, n, m, x);
  m = im.call(n, "mul", {m, im.scalar(n, n.get_float("alpha", 0.0001f))});
  m = im.call(n, "add", {m, im.scalar(n, n.get_float("bias", 1))});
  im.out(n, 0,
         im.call(n, "div", {x, im.call(n, "pow", {m, im.scalar(n, n.get_float("beta", 0.75))})}));
}

}  // namespace

void add_pools(Handlers& h) {
  h["LpPool"] = [](Importer& im, const NodeView& n) { import_lp_pool(im, n, false); };
  h["GlobalLpPool"] = [](Importer& im, const NodeView& n) { import_lp_pool(im, n, true); };
  h["LRN"] = import_lrn;
  for (bool max : {true, false}) {
    h[max ? "MaxPool" : "AveragePool"] = [max](Importer& im, const NodeView& n) {
      im.out(n, 0, emit_pool(im, n, im.in(n, 0), max));
    };
    h[max ? "GlobalMaxPool" : "GlobalAveragePool"] = [max](Importer& im, const NodeView& n) {
      im.out(n, 0, emit_global_pool(im, n, im.in(n, 0), max));
    };
  }
}

}  // namespace octet::io::onnx_impl
