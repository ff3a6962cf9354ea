// Pools. octet has them over images; other ranks are brought to that.
#include <algorithm>
#include <limits>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

bool pools_directly(const Val& x) { return is_floating(x.type.dtype) || x.type.is_quantized(); }

Attrs pool_attrs(const std::vector<int64_t>& kernel, const std::vector<int64_t>& stride,
                 const std::vector<int64_t>& pads, bool ceil) {
  return {{"kernel", kernel}, {"stride", stride}, {"padding", pads}, {"ceil_mode", ceil}};
}

// A volume's maximum is separable: over (H, W) with the depth among the channels, then over the
// depth.
ValPtr max_pool3d(Importer& im, const NodeView& n, const ValPtr& x, const Window& w, bool ceil) {
  int64_t channels = known_dim(n, *x, 1, "a 3-d pool"), depth = known_dim(n, *x, 2, "a 3-d pool");
  ValPtr flat = im.call(n, "flatten", {x}, {{"start_dim", int64_t{1}}, {"end_dim", int64_t{2}}});
  Attrs inner = pool_attrs({w.kernel[1], w.kernel[2]}, {w.stride[1], w.stride[2]},
                           {w.pads[1], w.pads[2], w.pads[4], w.pads[5]}, ceil);
  inner.set("dilation", std::vector<int64_t>{w.dilation[1], w.dilation[2]});
  ValPtr image = im.call(n, "max_pool2d", {flat}, inner);
  int64_t h = known_dim(n, *image, 2, "a 3-d pool"), width = known_dim(n, *image, 3, "a 3-d pool");
  ValPtr column = im.call(n, "reshape", {image},
                          {{"shape", std::vector<int64_t>{0, channels, depth, h * width}}});
  Attrs outer = pool_attrs({w.kernel[0], 1}, {w.stride[0], 1}, {w.pads[0], 0, w.pads[3], 0}, ceil);
  outer.set("dilation", std::vector<int64_t>{w.dilation[0], 1});
  ValPtr y = im.call(n, "max_pool2d", {column}, outer);
  return im.call(
      n, "reshape", {y},
      {{"shape", std::vector<int64_t>{0, channels, known_dim(n, *y, 2, "a 3-d pool"), h, width}}});
}

}  // namespace

ValPtr emit_pool(Importer& im, const NodeView& n, ValPtr x, bool max) {
  DType dtype = x->type.dtype;
  // Plain 8 and 16 bit integers are exact in float32.
  if (!pools_directly(*x)) x = im.cast(n, x, DType::float32);
  constexpr double kNeverWins = -std::numeric_limits<float>::max();
  Window w = read_window(im, n, x, {}, max ? std::optional(kNeverWins) : std::nullopt);
  bool ceil = n.get_int("ceil_mode", 0) != 0;
  n.ignore({"storage_order"});  // orders the Indices output only
  if (max && im.wants_output(n, 1)) n.unsupported("the Indices output");
  bool padded = std::any_of(w.pads.begin(), w.pads.end(), [](int64_t p) { return p != 0; });
  bool count_pad =
      // without pads it is the same
      !max && (n.get_int("count_include_pad", 0) != 0 || (!padded && !ceil));
  if (!max)
    for (int64_t d : w.dilation)
      if (d != 1) n.unsupported("dilations");
  if (dtype == DType::int32 || dtype == DType::int64)
    n.unsupported("data of type {}", to_string(dtype));
  const char* op = max ? "max_pool2d" : "avg_pool2d";
  auto finish = [&](Attrs attrs, std::vector<int64_t> dilation) {
    if (max)
      attrs.set("dilation", dilation);
    else
      attrs.set("count_include_pad", count_pad);
    return attrs;
  };
  ValPtr y;
  if (w.kernel.size() == 2) {
    y = im.call(n, op, {x}, finish(pool_attrs(w.kernel, w.stride, w.pads, ceil), w.dilation));
  } else if (w.kernel.size() == 1) {  // as images of height 1
    ValPtr image = im.call(n, "unsqueeze", {x}, {{"dim", int64_t{2}}});
    Attrs attrs =
        pool_attrs({1, w.kernel[0]}, {1, w.stride[0]}, {0, w.pads[0], 0, w.pads[1]}, ceil);
    y = im.call(n, op, {image}, finish(attrs, {1, w.dilation[0]}));
    y = im.call(n, "squeeze", {y}, {{"dim", int64_t{2}}});
  } else if (w.kernel.size() == 3 && max) {
    y = max_pool3d(im, n, x, w, ceil);
  } else {
    n.unsupported("{} spatial dimensions", w.kernel.size());
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

void add_pools(Handlers& h) {
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
