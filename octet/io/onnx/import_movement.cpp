// Operators that only move data: shapes, transposes, padding, joining and tiling.
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <numeric>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kMaxPad = int64_t{1} << 30;  // also the largest part, repeat and block

void import_reshape(Importer& im, const NodeView& n) {
  n.ignore({"consumed_inputs"});
  ValPtr x = im.in(n, 0);
  bool zero_copies = n.get_int("allowzero", 0) == 0;
  std::vector<Dim> wanted;
  if (n.has("shape")) {
    for (int64_t d : n.get_ints("shape")) wanted.emplace_back(d);
  } else {
    if (im.at_run_time(n, 1))
      return im.out(n, 0,
                    im.call(n, "reshape", {x, im.in(n, 1)},
                            {{"shape", FromOperand{1}}, {"allow_zero", !zero_copies}}));
    wanted = im.known_sizes(n, 1, "shape");
  }
  im.out(n, 0, emit_reshape(im, n, x, wanted, zero_copies));
}

// To a matrix: the dimensions before `axis`, and the rest.
void import_flatten(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  int64_t axis = n.get_int("axis", 1), rank = x->rank();
  if (axis != rank) axis = axis_of(n, axis, rank);
  auto flatten = [&](const ValPtr& v, int64_t from, int64_t to) {
    return from >= to ? v
                      : im.call(n, "flatten", {v},
                                {{"start_dim", from}, {"end_dim", to == v->rank() - 1 ? -1 : to}});
  };
  ValPtr y;
  if (rank == 0) {
    y = im.call(n, "reshape", {x}, {{"shape", std::vector<int64_t>{1, 1}}});
  } else if (axis == 0) {
    y = im.call(n, "unsqueeze", {flatten(x, 0, rank - 1)}, {{"dim", int64_t{0}}});
  } else if (axis == rank) {
    y = im.call(n, "unsqueeze", {flatten(x, 0, rank - 1)}, {{"dim", int64_t{1}}});
  } else {
    y = flatten(flatten(x, axis, rank - 1), 0, axis - 1);
  }
  im.out(n, 0, y);
}

void import_transpose(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  std::vector<int64_t> dims = n.get_ints("perm");
  if (!n.has("perm")) {
    dims.resize(static_cast<size_t>(x->rank()));
    std::iota(dims.rbegin(), dims.rend(), 0);
  }
  std::vector<int64_t> sorted = dims, counting(static_cast<size_t>(x->rank()));
  std::sort(sorted.begin(), sorted.end());
  std::iota(counting.begin(), counting.end(), 0);
  if (sorted != counting)
    n.fail(ErrorCode::corrupt, "perm ({}) of a {}-d value", fmt::join(dims, ", "), x->rank());
  if (dims == counting) return im.out(n, 0, x);
  if (!x->dequantized) return im.out(n, 0, im.call(n, "permute", {x}, {{"dims", dims}}));
  // A quantized weight: transpose the codes, so that it stays a constant.
  im.out(n, 0,
         dequantized_val("", x->codes_name, x->scope, x->constant.permute(dims).contiguous()));
}

std::vector<int64_t> sorted_axes(const NodeView& n, std::vector<int64_t> axes, int64_t rank) {
  for (int64_t& d : axes) d = axis_of(n, d, rank);
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end())
    n.fail(ErrorCode::corrupt, "an axis is named twice");
  return axes;
}

// Axes that the model's run gives, counted from the front and in order; element i of them.
ValPtr ordered_axes(Importer& im, const NodeView& n, int64_t rank, bool ascending) {
  ValPtr axes = im.in(n, 1);
  if (axes->rank() != 1 || !axes->dims()[0].known())
    n.unsupported("axes known only at run time, of which the number is not known either");
  axes =
      im.call(n, "remainder", {im.cast(n, axes, DType::int64), im.scalar(n, rank, DType::int64)});
  return im
      .calls(n, "topk", {axes},
             {{"k", axes->dims()[0].size()}, {"dim", int64_t{0}}, {"largest", !ascending}})
      .at(0);
}

ValPtr element(Importer& im, const NodeView& n, const ValPtr& list, int64_t i) {
  return im.call(n, "slice", {list}, {{"dim", int64_t{0}}, {"start", i}, {"end", i + 1}});
}

void import_unsqueeze(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  if (im.at_run_time(n, 1)) {
    const int64_t count = im.in(n, 1)->type.is_static() ? numel(im.in(n, 1)->type.shape()) : 0;
    ValPtr axes = ordered_axes(im, n, x->rank() + count, true);
    for (int64_t i = 0; i < count; ++i)
      x = im.call(n, "unsqueeze", {x, element(im, n, axes, i)}, {{"dim", FromOperand{1}}});
    return im.out(n, 0, x);
  }
  std::vector<int64_t> axes = im.attr_or_input_ints(n, "axes", 1).value_or(std::vector<int64_t>{});
  axes = sorted_axes(n, axes, x->rank() + static_cast<int64_t>(axes.size()));
  for (int64_t d : axes) x = im.call(n, "unsqueeze", {x}, {{"dim", d}});
  im.out(n, 0, x);
}

void import_squeeze(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  if (im.at_run_time(n, 1)) {
    ValPtr axes = ordered_axes(im, n, x->rank(), false);
    for (int64_t i = 0; i < axes->dims()[0].size(); ++i)
      x = im.call(n, "squeeze", {x, element(im, n, axes, i)}, {{"dim", FromOperand{1}}});
    return im.out(n, 0, x);
  }
  auto given = im.attr_or_input_ints(n, "axes", 1);
  std::vector<int64_t> axes;
  if (given) axes = sorted_axes(n, *given, x->rank());
  bool open = false;  // whether other dimensions may be 1 when it runs, which would go too
  for (int64_t d = 0; !given && d < x->rank(); ++d) {
    const Dim& size = x->dims()[static_cast<size_t>(d)];
    open |= !size.known();
    if (size == Dim(1)) axes.push_back(d);
  }
  if (open && axes.empty()) {
    x = im.call(n, "unsqueeze", {x}, {{"dim", int64_t{0}}});
    axes = {0};
  }
  for (size_t i = axes.size(); i-- > 0;) {
    if (const Dim& size = x->dims()[static_cast<size_t>(axes[i])]; size.known() && size != Dim(1))
      n.fail(ErrorCode::corrupt, "axis {} has size {}, not 1", axes[i],
             to_string(x->dims()[static_cast<size_t>(axes[i])]));
    x = im.call(n, "squeeze", {x}, {{"dim", axes[i]}, {"only", open && i == 0}});
  }
  im.out(n, 0, x);
}

void import_expand(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  std::vector<ValPtr> operands{x};
  if (im.at_run_time(n, 1)) {
    const Attr shape = im.as_attr(n, 1, "shape", operands);
    return im.out(n, 0, im.call(n, "expand", operands, {{"shape", shape}}));
  }
  im.in(n, 1);
  const std::vector<Dim> wanted = im.known_sizes(n, 1, "shape");
  const auto known = expand_attr(n, x->dims(), wanted);
  if (!known) {
    const Attr shape = im.as_attr(n, wanted, operands);
    return im.out(n, 0, im.call(n, "expand", operands, {{"shape", shape}}));
  }
  const std::vector<int64_t>& shape = *known;
  bool same = static_cast<int64_t>(shape.size()) == x->rank();
  for (size_t d = 0; same && d < shape.size(); ++d)
    same = shape[d] == 1 || Dim(shape[d]) == x->dims()[d];
  im.out(n, 0, same ? x : im.call(n, "expand", {x}, {{"shape", shape}}));
}

void import_concat(Importer& im, const NodeView& n) {
  std::vector<ValPtr> xs;
  for (size_t i = 0; i < n.input_count(); ++i) xs.push_back(im.in(n, i));
  if (xs.empty()) n.fail(ErrorCode::corrupt, "has no inputs");
  int64_t axis = axis_of(n, n.get_int("axis", 1), xs[0]->rank());
  im.out(n, 0, xs.size() == 1 ? xs[0] : im.call(n, "cat", xs, {{"dim", axis}}));
}

// Equal parts of a size that is open. With num_outputs (opset 18) the last may be smaller.
void split_open(Importer& im, const NodeView& n, const ValPtr& x, int64_t axis) {
  im.remember_sizes(*x);
  const Dim& all = x->dims()[static_cast<size_t>(axis)];
  const auto count = static_cast<int64_t>(n.output_count());
  Dim part = im.quotient(all, count), last = part;
  if (n.has("num_outputs") && multiply(part, Dim(count)) != all) {
    part = im.quotient(im.combined(all, '+', Dim(count - 1)), count);
    last = im.combined(all, '-', multiply(part, Dim(count - 1)));
  }
  std::vector<Dim> sizes(static_cast<size_t>(count), part);
  sizes.back() = last;
  std::vector<ValPtr> operands{x};
  const Attr attr = im.as_attr(n, sizes, operands);
  std::vector<ValPtr> parts = im.calls(n, "split", operands, {{"sizes", attr}, {"dim", axis}});
  for (size_t i = 0; i < parts.size(); ++i) im.out(n, i, parts[i]);
}

void import_split(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  int64_t axis = axis_of(n, n.get_int("axis", 0), x->rank());
  auto count = static_cast<int64_t>(n.output_count());
  if (im.at_run_time(n, 1)) {
    std::vector<ValPtr> operands{x};
    const Attr sizes = im.as_attr(n, 1, "split", operands);
    if (const Val& given = *operands[1]; given.rank() != 1 || given.dims()[0] != Dim(count))
      n.fail(ErrorCode::corrupt, "split is {} for {} outputs", to_string(given.type), count);
    std::vector<ValPtr> parts = im.calls(n, "split", operands, {{"sizes", sizes}, {"dim", axis}});
    for (size_t i = 0; i < parts.size(); ++i) im.out(n, i, parts[i]);
    return;
  }
  if (n.get_int("num_outputs", count) != count)
    n.fail(ErrorCode::corrupt, "num_outputs differs from its {} outputs", count);
  std::vector<int64_t> sizes =
      im.attr_or_input_ints(n, "split", 1).value_or(std::vector<int64_t>{});
  if (sizes.empty() && count > 1 && !x->dims()[static_cast<size_t>(axis)].known())
    return split_open(im, n, x, axis);
  if (sizes.empty()) {  // equal parts; the last may be smaller
    int64_t all = known_dim(n, *x, axis, "Split"), part = (all + count - 1) / count;
    for (int64_t i = 0; i < count; ++i)
      sizes.push_back(std::clamp<int64_t>(all - i * part, 0, part));
  }
  if (static_cast<int64_t>(sizes.size()) != count)
    n.fail(ErrorCode::corrupt, "{} sizes for {} outputs", sizes.size(), count);
  for (int64_t s : sizes)
    if (s < 0 || s > kMaxPad) n.fail(ErrorCode::corrupt, "a part of size {}", s);
  if (count == 1) return im.out(n, 0, x);
  std::vector<ValPtr> parts = im.calls(n, "split", {x}, {{"sizes", sizes}, {"dim", axis}});
  for (size_t i = 0; i < parts.size(); ++i) im.out(n, i, parts[i]);
}

// Pads or a value that the model's run gives.
void pad_at_run_time(Importer& im, const NodeView& n, const ValPtr& x) {
  if (n.has_input(3)) n.unsupported("axes and pads known only at run time");
  std::vector<ValPtr> operands{x};
  Attrs attrs{{"mode", n.get_string("mode", "constant")}};
  if (ValPtr pads = im.in(n, 1); pads->sizes && !pads->constant.defined())
    attrs.set("pads", im.as_attr(n, *pads->sizes, operands));
  else
    attrs.set("pads", im.as_attr(n, 1, "pads", operands));
  if (im.at_run_time(n, 2)) {
    attrs.set("value", im.as_attr(n, 2, "the padding value", operands));
  } else if (n.has_input(2)) {
    attrs.set("value", im.known(n, 2, "the padding value").item());
  }
  im.out(n, 0, im.call(n, "pad", operands, attrs));
}

void import_pad(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  auto rank = static_cast<size_t>(x->rank());
  if (!n.has("paddings") && !n.has("pads") && n.has_input(1) &&
      (!im.in(n, 1)->constant.defined() || im.at_run_time(n, 2)))
    return pad_at_run_time(im, n, x);
  std::vector<int64_t> pads =
      n.has("paddings") ? n.get_ints("paddings")  // opset 1's name
                        : im.attr_or_input_ints(n, "pads", 1).value_or(std::vector<int64_t>{});
  std::string mode = n.get_string("mode", "constant");
  double value = n.get_float("value", 0);
  if (n.has_input(2)) {
    Tensor given = im.known(n, 2, "the padding value");
    if (given.numel() != 1)
      n.fail(ErrorCode::corrupt, "the padding value has {} elements", given.numel());
    value = given.item();
  }
  if (n.has_input(3)) {  // opset 18: pads of some axes
    std::vector<int64_t> axes = im.known_ints(n, 3, "axes"), all(2 * rank, 0);
    if (pads.size() != 2 * axes.size())
      n.fail(ErrorCode::corrupt, "{} pads for {} axes", pads.size(), axes.size());
    for (size_t i = 0; i < axes.size(); ++i) {
      auto d = static_cast<size_t>(axis_of(n, axes[i], x->rank()));
      all[d] = pads[i];
      all[d + rank] = pads[i + axes.size()];
    }
    pads = all;
  }
  if (pads.size() != 2 * rank)
    n.fail(ErrorCode::corrupt, "{} pads for {} dimensions", pads.size(), rank);
  for (int64_t p : pads)
    if (p < -kMaxPad || p > kMaxPad) n.fail(ErrorCode::corrupt, "a pad of {}", p);
  bool nothing = std::all_of(pads.begin(), pads.end(), [](int64_t p) { return p == 0; });
  if (nothing) return im.out(n, 0, x);
  if (mode != "constant" && mode != "reflect" && mode != "edge" && mode != "wrap")
    n.unsupported("mode {}", mode);
  im.out(n, 0, im.call(n, "pad", {x}, {{"pads", pads}, {"value", value}, {"mode", mode}}));
}

void import_tile(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  if (n.input_count() == 3) n.unsupported("opset 1 operands");
  if (!im.in(n, 1)->constant.defined()) {
    std::vector<ValPtr> operands{x};
    const Attr repeats = im.as_attr(n, 1, "repeats", operands);
    return im.out(n, 0, im.call(n, "tile", operands, {{"repeats", repeats}}));
  }
  std::vector<int64_t> repeats = im.known_ints(n, 1, "repeats");
  if (static_cast<int64_t>(repeats.size()) != x->rank())
    n.fail(ErrorCode::corrupt, "{} repeats for a {}-d value", repeats.size(), x->rank());
  for (int64_t r : repeats)
    if (r < 0 || r > kMaxPad) n.fail(ErrorCode::corrupt, "{} repeats", r);
  im.out(n, 0, im.call(n, "tile", {x}, {{"repeats", repeats}}));
}

// Blocks of b x b pixels to and from channels, as a reshape, a permutation and a reshape. N may be
// symbolic.
void import_depth_to_space(Importer& im, const NodeView& n, bool to_space) {
  ValPtr x = im.in(n, 0);
  int64_t b = n.get_int("blocksize", 0);
  if (x->rank() != 4)
    n.fail(ErrorCode::corrupt, "expected (N, C, H, W), got {}", to_string(x->type));
  int64_t c = known_dim(n, *x, 1, "the block size");
  const Dim h = x->dims()[2], w = x->dims()[3];
  const auto divides = [&](const Dim& d) { return !d.known() || d.size() % b == 0; };
  bool fits = b >= 1 && b <= kMaxPad && (to_space ? c % (b * b) == 0 : divides(h) && divides(w));
  if (!fits) n.fail(ErrorCode::corrupt, "blocksize {} for {}", b, to_string(x->type));
  im.remember_sizes(*x);
  std::vector<Dim> split, join;
  std::vector<int64_t> perm;
  if (to_space) {
    bool crd = n.get_string("mode", "DCR") == "CRD";
    c /= b * b;
    split = crd ? std::vector<Dim>{0, c, b, b, h, w} : std::vector<Dim>{0, b, b, c, h, w};
    perm = crd ? std::vector<int64_t>{0, 1, 4, 2, 5, 3} : std::vector<int64_t>{0, 3, 4, 1, 5, 2};
    join = {0, c, multiply(h, Dim(b)), multiply(w, Dim(b))};
  } else {
    const Dim rows = im.quotient(h, b), columns = im.quotient(w, b);
    split = {0, c, rows, b, columns, b};
    perm = {0, 3, 5, 1, 2, 4};
    join = {0, c * b * b, rows, columns};
  }
  // Its sizes are named after it, as they are where export wrote the parts.
  onnx::NodeProto first;
  first.set_name(n.name());
  first.set_op_type(n.op());
  first.add_output(n.output(0) + ".reshape");
  const NodeView part_of(first, n.opset(), {});
  ValPtr y = emit_reshape(im, part_of, x, split, true);
  if (y != x) im.out(part_of, 0, y);
  y = im.call(n, "permute", {y}, {{"dims", perm}});
  im.out(n, 0, emit_reshape(im, n, y, join, true));
}

void import_trilu(Importer& im, const NodeView& n) {
  if (im.at_run_time(n, 1))
    return im.out(n, 0,
                  im.call(n, n.get_int("upper", 1) != 0 ? "triu" : "tril",
                          {im.in(n, 0), im.in(n, 1)}, {{"diagonal", FromOperand{1}}}));
  std::vector<int64_t> k = im.known_ints(n, 1, "k");
  bool upper = n.get_int("upper", 1) != 0;
  // beyond any matrix it is all the same
  for (int64_t& d : k) d = std::clamp(d, -kMaxPad, kMaxPad);
  im.out(n, 0,
         im.call(n, upper ? "triu" : "tril", {im.in(n, 0)},
                 {{"diagonal", k.empty() ? int64_t{0} : k[0]}}));
}

}  // namespace

// Reshapes that change nothing are left out: they would only stand between operators that belong
// together.
ValPtr emit_reshape(Importer& im, const NodeView& n, const ValPtr& x,
                    const std::vector<Dim>& wanted, bool zero_copies) {
  const auto known = reshape_attr(n, x->dims(), wanted, zero_copies);
  if (!known) {
    im.remember_sizes(*x);
    std::vector<Dim> sizes = wanted;
    for (size_t d = 0; d < sizes.size(); ++d)
      if (zero_copies && sizes[d] == Dim(0)) sizes[d] = x->dims()[d];
    std::vector<ValPtr> operands{x};
    const Attr shape = im.as_attr(n, sizes, operands);
    return im.call(n, "reshape", operands, {{"shape", shape}});
  }
  const std::vector<int64_t>& shape = *known;
  bool same = static_cast<int64_t>(shape.size()) == x->rank();
  for (size_t d = 0; same && d < shape.size(); ++d)
    same = (shape[d] == 0 && zero_copies) || Dim(shape[d]) == x->dims()[d];
  return same ? x : im.call(n, "reshape", {x}, {{"shape", shape}});
}

ValPtr reshape_like(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& like) {
  im.remember_sizes(*like);
  return emit_reshape(im, n, x, like->dims(), false);
}

ValPtr with_size(Importer& im, const NodeView& n, const ValPtr& x, int64_t d, int64_t size) {
  if (d >= x->rank() || x->dims()[static_cast<size_t>(d)].known()) return x;
  std::vector<int64_t> shape(static_cast<size_t>(x->rank()), 0);
  shape[static_cast<size_t>(d)] = size;
  return im.call(n, "reshape", {x}, {{"shape", shape}});
}

void add_movement(Handlers& h) {
  h["Reshape"] = import_reshape;
  h["Flatten"] = import_flatten;
  h["Transpose"] = import_transpose;
  h["Unsqueeze"] = import_unsqueeze;
  h["Squeeze"] = import_squeeze;
  h["Expand"] = import_expand;
  h["Concat"] = import_concat;
  h["Split"] = import_split;
  h["Pad"] = import_pad;
  h["Tile"] = import_tile;
  h["Trilu"] = import_trilu;
  h["DepthToSpace"] = [](Importer& im, const NodeView& n) { import_depth_to_space(im, n, true); };
  h["SpaceToDepth"] = [](Importer& im, const NodeView& n) { import_depth_to_space(im, n, false); };
}

}  // namespace octet::io::onnx_impl
