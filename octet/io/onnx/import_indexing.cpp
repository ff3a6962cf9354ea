// Operators that pick elements: slices, gathers, the largest k.
#include <limits>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

// x[start:end:step] along `axis`; octet and ONNX mean the same. What changes nothing is left out.
ValPtr slice(Importer& im, const NodeView& n, const ValPtr& x, int64_t axis, int64_t start,
             int64_t end, int64_t step) {
  const Dim& dim = x->dims()[static_cast<size_t>(axis)];
  if (step == 0) n.fail(ErrorCode::corrupt, "a step of 0");
  bool to_end = dim.known() ? end >= dim.size() : end >= std::numeric_limits<int32_t>::max();
  if (start == 0 && to_end && step == 1) return x;
  // the exporters' INT64_MAX reads badly
  if (to_end && step > 0) end = dim.known() ? dim.size() : end;
  return im.call(n, "slice", {x}, {{"dim", axis}, {"start", start}, {"end", end}, {"step", step}});
}

// Starts, ends, axes and steps, some of which the model's run gives.
void slice_at_run_time(Importer& im, const NodeView& n, ValPtr x) {
  constexpr size_t kStarts = 1, kEnds = 2, kAxes = 3, kSteps = 4;
  std::optional<int64_t> count;
  for (size_t i = kStarts; i <= kSteps; ++i) {
    if (!n.has_input(i)) continue;
    const TensorType& t = im.in(n, i)->type;
    if (t.dim() != 1 || !t.is_static()) n.unsupported("bounds of which the number is not known");
    if (count && *count != t.shape()[0]) n.fail(ErrorCode::corrupt, "bounds of unlike number");
    count = t.shape()[0];
  }
  for (int64_t i = 0; i < count.value_or(0); ++i) {
    std::vector<ValPtr> operands{x};
    const auto number = [&](size_t input, int64_t otherwise) -> Attr {
      if (!n.has_input(input)) return otherwise;
      const ValPtr v = im.in(n, input);
      if (v->sizes) return im.as_attr(n, {(*v->sizes)[static_cast<size_t>(i)]}, operands, true);
      if (v->constant.defined()) return im.known_ints(n, input, "bounds")[static_cast<size_t>(i)];
      operands.push_back(
          im.call(n, "slice", {v}, {{"dim", int64_t{0}}, {"start", i}, {"end", i + 1}}));
      return FromOperand{static_cast<int64_t>(operands.size()) - 1};
    };
    Attrs attrs{{"start", number(kStarts, 0)},
                {"end", number(kEnds, 0)},
                {"dim", number(kAxes, i)},
                {"step", number(kSteps, 1)}};
    x = im.call(n, "slice", operands, attrs);
  }
  im.out(n, 0, x);
}

void import_slice(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  std::vector<Dim> starts, ends;
  std::vector<int64_t> axes, steps;
  if (n.has("starts")) {  // opset 9 and older
    for (int64_t v : n.get_ints("starts")) starts.emplace_back(v);
    for (int64_t v : n.get_ints("ends")) ends.emplace_back(v);
    axes = n.get_ints("axes");
  } else {
    for (size_t i : {1, 2, 3, 4})
      if (im.at_run_time(n, i)) return slice_at_run_time(im, n, x);
    im.in(n, 1);
    im.in(n, 2);
    starts = im.known_sizes(n, 1, "starts");
    ends = im.known_sizes(n, 2, "ends");
    axes = im.known_ints(n, 3, "axes");
    steps = im.known_ints(n, 4, "steps");
  }
  if (axes.empty())
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    n.fail(ErrorCode::corrupt, "{} starts, {} ends, {} axes and {} steps", starts.size(),
           ends.size(), axes.size(), steps.size());
  for (size_t i = 0; i < axes.size(); ++i) {
    int64_t axis = axis_of(n, axes[i], x->rank());
    const Dim size = x->dims()[static_cast<size_t>(axis)];
    // The whole of its own dimension is not a bound.
    if (ends[i] == size && !size.known()) ends[i] = Dim(kEnd);
    if (starts[i].name().empty() && ends[i].name().empty()) {
      x = slice(im, n, x, axis, starts[i].size(), ends[i].size(), steps[i]);
      continue;
    }
    std::vector<ValPtr> operands{x};
    const Attr start = im.as_attr(n, {starts[i]}, operands, true),
               end = im.as_attr(n, {ends[i]}, operands, true);
    x = im.call(n, "slice", operands,
                {{"dim", axis}, {"start", start}, {"end", end}, {"step", steps[i]}});
  }
  im.out(n, 0, x);
}

// Result dims: x's before axis, the index's, x's after axis.
void import_gather(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), index = im.in(n, 1);
  int64_t axis = axis_of(n, n.get_int("axis", 0), x->rank());
  if (is_floating(index->type.dtype))
    n.fail(ErrorCode::corrupt, "the indices are {}", to_string(index->type));
  im.out(n, 0, im.call(n, "index_select", {x, index}, {{"dim", axis}}));
}

void import_top_k(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  if (!n.has("k") && !im.in(n, 1)->constant.defined()) {
    n.ignore({"sorted"});
    std::vector<ValPtr> operands{x};
    const Attr k = im.as_attr(n, 1, "k", operands);
    auto made = im.calls(n, "topk", operands,
                         {{"k", k},
                          {"dim", axis_of(n, n.get_int("axis", -1), x->rank())},
                          {"largest", n.get_int("largest", 1) != 0}});
    im.out(n, 0, made.at(0));
    im.out(n, 1, made.at(1));
    return;
  }
  std::vector<int64_t> k =
      n.has("k") ? std::vector<int64_t>{n.get_int("k", 1)} : im.known_ints(n, 1, "k");
  if (k.size() != 1 || k[0] < 0 || k[0] > std::numeric_limits<int32_t>::max())
    n.fail(ErrorCode::corrupt, "expected one k >= 0");
  n.ignore({"sorted"});  // sorted results are unsorted results too
  int64_t axis = axis_of(n, n.get_int("axis", -1), x->rank());
  const Dim& size = x->dims()[static_cast<size_t>(axis)];
  if (size.known() && k[0] > size.size())
    n.fail(ErrorCode::corrupt, "k={} of {} elements", k[0], size.size());
  auto made = im.calls(n, "topk", {x},
                       {{"k", k[0]}, {"dim", axis}, {"largest", n.get_int("largest", 1) != 0}});
  im.out(n, 0, made.at(0));
  im.out(n, 1, made.at(1));
}

}  // namespace

void add_indexing(Handlers& h) {
  h["Slice"] = import_slice;
  h["Gather"] = import_gather;
  h["TopK"] = import_top_k;
  h["NonZero"] = [](Importer& im, const NodeView& n) {
    im.out(n, 0, im.call(n, "nonzero", {im.in(n, 0)}));
  };
}

}  // namespace octet::io::onnx_impl
