// Operators that pick elements: slices, gathers, the largest k.
#include <limits>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

// One bound of a slice: a number, or a symbolic size, which only makes sense as the whole of its
// own dimension.
int64_t bound(const NodeView& n, const Dim& given, const Dim& size) {
  if (given.name().empty()) return given.size();
  if (given == size) return kEnd;
  n.unsupported("a bound '{}' that is known only at run time; import with a fixed size",
                given.name());
}

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

void import_slice(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  std::vector<Dim> starts, ends;
  std::vector<int64_t> axes, steps;
  if (n.has("starts")) {  // opset 9 and older
    for (int64_t v : n.get_ints("starts")) starts.emplace_back(v);
    for (int64_t v : n.get_ints("ends")) ends.emplace_back(v);
    axes = n.get_ints("axes");
  } else {
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
    x = slice(im, n, x, axis, bound(n, starts[i], size), bound(n, ends[i], size), steps[i]);
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
}

}  // namespace octet::io::onnx_impl
