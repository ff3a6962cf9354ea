// Reductions along axes, and the softmax family.
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr const char* kReductions[][2] = {
    {"ReduceSum", "sum"},        {"ReduceMean", "mean"},
    {"ReduceProd", "prod"},      {"ReduceMax", "amax"},
    {"ReduceMin", "amin"},       {"ReduceL1", "reduce_l1"},
    {"ReduceL2", "reduce_l2"},   {"ReduceSumSquare", "sum_square"},
    {"ReduceLogSum", "log_sum"}, {"ReduceLogSumExp", "log_sum_exp"},
};

// axes: an attribute, or input 1 (ReduceSum from opset 13, all from 18). None means all, or with
// noop_with_empty_axes none.
void import_reduction(Importer& im, const NodeView& n, const char* op) {
  ValPtr x = im.in(n, 0);
  if (!n.has("axes") && im.at_run_time(n, 1)) {
    const ValPtr axes = im.in(n, 1);
    const bool none = axes->type.is_static() && numel(axes->type.shape()) == 0;
    n.ignore({"keepdims"});  // nothing is reduced
    if (n.get_int("noop_with_empty_axes", 0) != 0 && none) return im.out(n, 0, x);
    return im.out(n, 0,
                  im.call(n, op, {x, axes},
                          {{"dim", FromOperand{1}}, {"keepdim", n.get_int("keepdims", 1) != 0}}));
  }
  std::vector<int64_t> dims = im.attr_or_input_ints(n, "axes", 1).value_or(std::vector<int64_t>{});
  bool keep = n.get_int("keepdims", 1) != 0, noop = n.get_int("noop_with_empty_axes", 0) != 0;
  // each element is reduced alone: to its magnitude, its square, its logarithm
  if (dims.empty() && noop) {
    static const std::set<std::string> kChange = {"reduce_l1", "reduce_l2", "sum_square",
                                                  "log_sum"};
    if (!kChange.count(op)) return im.out(n, 0, x);
    ValPtr alone = im.call(n, "unsqueeze", {x}, {{"dim", int64_t{0}}});
    return im.out(n, 0,
                  im.call(n, op, {alone}, {{"dim", std::vector<int64_t>{0}}, {"keepdim", false}}));
  }
  if (x->rank() == 0) dims.clear();
  for (int64_t& d : dims) d = axis_of(n, d, x->rank());
  im.out(n, 0, im.call(n, op, {x}, {{"dim", dims}, {"keepdim", keep}}));
}

void import_arg(Importer& im, const NodeView& n, const char* op) {
  ValPtr x = im.in(n, 0);
  im.out(n, 0,
         im.call(n, op, {x},
                 {{"dim", axis_of(n, n.get_int("axis", 0), x->rank())},
                  {"keepdim", n.get_int("keepdims", 1) != 0},
                  {"select_last", n.get_int("select_last_index", 0) != 0}}));
}

// Before opset 13 softmax runs over everything from `axis` on, as if the data were flattened to two
// dimensions.
void import_softmax(Importer& im, const NodeView& n, const char* op) {
  ValPtr x = im.in(n, 0);
  bool flattens = n.opset() < 13;
  int64_t axis = axis_of(n, n.get_int("axis", flattens ? 1 : -1), x->rank());
  bool only_ones_follow = true;
  for (int64_t d = axis + 1; d < x->rank(); ++d)
    only_ones_follow &= x->dims()[static_cast<size_t>(d)] == Dim(1);
  if (!flattens || only_ones_follow) return im.out(n, 0, im.call(n, op, {x}, {{"dim", axis}}));
  ValPtr flat = im.call(n, "flatten", {x}, {{"start_dim", axis}, {"end_dim", int64_t{-1}}});
  im.out(n, 0, reshape_like(im, n, im.call(n, op, {flat}, {{"dim", axis}}), x));
}

// 1 at the first largest element along the axis (before opset 13: of all that follows it), else 0.
void import_hardmax(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), flat = x;
  const bool flattens = n.opset() < 13;
  const int64_t axis = axis_of(n, n.get_int("axis", flattens ? 1 : -1), x->rank());
  if (flattens && axis + 1 < x->rank())
    flat = im.call(n, "flatten", {x}, {{"start_dim", axis}, {"end_dim", int64_t{-1}}});
  ValPtr best = im.call(n, "argmax", {flat}, {{"dim", axis}, {"keepdim", true}});
  ValPtr places = count_up(im, n, flat, axis);
  for (int64_t d = axis + 1; d < flat->rank(); ++d)
    places = im.call(n, "unsqueeze", {places}, {{"dim", int64_t{1}}});
  ValPtr y = im.cast(n, im.call(n, "equal", {places, best}), x->type.dtype);
  im.out(n, 0, flat == x ? y : reshape_like(im, n, y, x));
}

// Inclusive and forward is octet's; reversed = total - cumsum + x, exclusive = that without x.
void import_cumsum(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  // The axis as attributes of calls, whose operands are x and perhaps what gives it.
  std::vector<ValPtr> operands{x};
  Attr dim, dims;
  if (im.at_run_time(n, 1)) {
    dim = dims = im.as_attr(n, 1, "axis", operands);
  } else {
    Tensor axis = im.known(n, 1, "axis");
    if (!axis.defined() || axis.numel() != 1) n.fail(ErrorCode::corrupt, "expected one axis");
    const int64_t d = axis_of(n, static_cast<int64_t>(axis.item()), x->rank());
    dim = d;
    dims = std::vector<int64_t>{d};
  }
  bool exclusive = n.get_int("exclusive", 0) != 0, reverse = n.get_int("reverse", 0) != 0;
  ValPtr y = im.call(n, "cumsum", operands, {{"dim", dim}});
  if (reverse) {
    ValPtr total = im.call(n, "sum", operands, {{"dim", dims}, {"keepdim", true}});
    y = im.call(n, "sub", {total, y});
    if (!exclusive) y = im.call(n, "add", {y, x});
  } else if (exclusive) {
    y = im.call(n, "sub", {y, x});
  }
  im.out(n, 0, y);
}

void import_lp_normalization(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  int64_t p = n.get_int("p", 2), axis = axis_of(n, n.get_int("axis", -1), x->rank());
  if (p != 1 && p != 2) n.fail(ErrorCode::corrupt, "p={}: expected 1 or 2", p);
  ValPtr norm = im.call(n, p == 1 ? "reduce_l1" : "reduce_l2", {x},
                        {{"dim", std::vector<int64_t>{axis}}, {"keepdim", true}});
  im.out(n, 0, im.call(n, "div", {x, norm}));
}

}  // namespace

void add_reductions(Handlers& h) {
  for (const auto& [onnx, octet] : kReductions)
    h[onnx] = [octet = octet](Importer& im, const NodeView& n) { import_reduction(im, n, octet); };
  h["ArgMax"] = [](Importer& im, const NodeView& n) { import_arg(im, n, "argmax"); };
  h["ArgMin"] = [](Importer& im, const NodeView& n) { import_arg(im, n, "argmin"); };
  h["Softmax"] = [](Importer& im, const NodeView& n) { import_softmax(im, n, "softmax"); };
  h["LogSoftmax"] = [](Importer& im, const NodeView& n) { import_softmax(im, n, "log_softmax"); };
  h["Hardmax"] = import_hardmax;
  h["CumSum"] = import_cumsum;
  h["LpNormalization"] = import_lp_normalization;
}

}  // namespace octet::io::onnx_impl
