// Resize and its forerunner Upsample.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// What a node asks for, by dimension of the data. Empty: not given.
struct Wanted {
  std::vector<double> scales, roi;  // roi: all beginnings, then all ends
  std::vector<Dim> sizes;
};

std::vector<double> known_doubles(Importer& im, const NodeView& n, size_t i, const char* what) {
  Tensor t = im.known(n, i, what);
  if (!t.defined()) return {};
  std::vector<float> values = t.to(DType::float32).reshape({-1}).to_vector<float>();
  return {values.begin(), values.end()};
}

// The axes that scales, sizes and roi speak of (opset 18); all of them otherwise.
std::vector<size_t> read_axes(const NodeView& n, int64_t rank) {
  std::vector<size_t> axes(static_cast<size_t>(rank));
  std::iota(axes.begin(), axes.end(), 0);
  if (!n.has("axes")) return axes;
  axes.clear();
  for (int64_t d : n.get_ints("axes")) axes.push_back(static_cast<size_t>(axis_of(n, d, rank)));
  return axes;
}

Wanted read_wanted(Importer& im, const NodeView& n, const Val& x, bool modern) {
  const auto rank = static_cast<size_t>(x.rank());
  const std::vector<size_t> axes = read_axes(n, x.rank());
  Wanted wanted;
  std::vector<double> scales;
  if (n.has("scales"))
    scales = n.get_floats("scales");  // Upsample 7
  else if (size_t i = modern ? 2 : 1; n.has_input(i))
    scales = known_doubles(im, n, i, "scales");
  if (!scales.empty()) {
    if (scales.size() != axes.size())
      n.fail(ErrorCode::corrupt, "{} scales for {} axes", scales.size(), axes.size());
    wanted.scales.assign(rank, 1);
    for (size_t i = 0; i < axes.size(); ++i) {
      if (!(scales[i] > 0) || !(scales[i] < 1e6))
        n.fail(ErrorCode::corrupt, "a scale of {}", scales[i]);
      wanted.scales[axes[i]] = scales[i];
    }
  } else {
    if (!modern || !n.has_input(3))
      n.fail(ErrorCode::corrupt, "neither scales nor sizes are given");
    std::vector<Dim> sizes = im.known_sizes(n, 3, "sizes");
    if (sizes.size() != axes.size())
      n.fail(ErrorCode::corrupt, "{} sizes for {} axes", sizes.size(), axes.size());
    wanted.sizes = x.dims();
    for (size_t i = 0; i < axes.size(); ++i) {
      if (sizes[i].name().empty() && (sizes[i].size() < 1 || sizes[i].size() > 1 << 20))
        n.fail(ErrorCode::corrupt, "a size of {}", sizes[i].size());
      wanted.sizes[axes[i]] = sizes[i];
    }
  }
  if (n.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize") {
    std::vector<double> roi = known_doubles(im, n, 1, "roi");
    if (roi.size() != 2 * axes.size())
      n.fail(ErrorCode::corrupt, "a roi of {} numbers for {} axes", roi.size(), axes.size());
    wanted.roi.assign(2 * rank, 0);
    std::fill(wanted.roi.begin() + static_cast<std::ptrdiff_t>(rank), wanted.roi.end(), 1.0);
    for (size_t i = 0; i < axes.size(); ++i) {
      wanted.roi[axes[i]] = roi[i];
      wanted.roi[axes[i] + rank] = roi[i + axes.size()];
    }
  }
  return wanted;
}

// keep_aspect_ratio_policy (opset 18): one scale for all axes, the smallest or the largest of those
// the sizes ask for.
void keep_aspect_ratio(const NodeView& n, const Val& x, Wanted& wanted) {
  const std::string policy = n.get_string("keep_aspect_ratio_policy", "stretch");
  if (policy == "stretch" || wanted.sizes.empty()) return;
  if (policy != "not_larger" && policy != "not_smaller")
    n.fail(ErrorCode::corrupt, "keep_aspect_ratio_policy '{}'", policy);
  const std::vector<size_t> axes = read_axes(n, x.rank());
  std::optional<double> scale;
  for (size_t d : axes) {
    if (!wanted.sizes[d].known())
      n.unsupported("keep_aspect_ratio_policy and a size known only at run time");
    const double one =
        static_cast<double>(wanted.sizes[d].size()) /
        static_cast<double>(known_dim(n, x, static_cast<int64_t>(d), "keep_aspect_ratio_policy"));
    scale = !scale ? one : policy == "not_larger" ? std::min(*scale, one) : std::max(*scale, one);
  }
  wanted.scales.assign(static_cast<size_t>(x.rank()), 1);
  for (size_t d : axes) {
    wanted.scales[d] = scale.value_or(1);
    wanted.sizes[d] =
        static_cast<int64_t>(std::floor(*scale * static_cast<double>(x.dims()[d].size()) + 0.5));
  }
}

// Sizes as octet takes them: -1 keeps a dimension. Those that are a whole multiple of a dimension
// known only at run time become scales, if all that change are; others are computed when the model
// runs.
void set_sizes(Importer& im, const NodeView& n, const Val& x, const std::vector<Dim>& sizes,
               Attrs& attrs, std::vector<ValPtr>& operands) {
  std::vector<Dim> wanted(sizes.size(), Dim(-1));
  std::vector<double> times(sizes.size(), 1);
  bool all_times = true, changes = false;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == x.dims()[d]) continue;
    changes = true;
    wanted[d] = sizes[d];
    std::optional<int64_t> factor =
        sizes[d].known() ? std::nullopt : multiple_of(sizes[d], x.dims()[d]);
    all_times = all_times && factor;
    if (factor) times[d] = static_cast<double>(*factor);
  }
  if (changes && all_times) {
    attrs.set("scales", times);
    return;
  }
  const bool open =
      std::any_of(wanted.begin(), wanted.end(), [](const Dim& d) { return !d.name().empty(); });
  if (!open) {
    attrs.set("size", im.as_attr(n, wanted, operands));
    return;
  }
  // -1 is no size in ONNX: all of them are computed.
  im.remember_sizes(x);
  const bool images = wanted.size() > 2 && wanted[0] == Dim(-1) && wanted[1] == Dim(-1);
  attrs.set("size", im.as_attr(n, {sizes.begin() + (images ? 2 : 0), sizes.end()}, operands));
}

// Without the first two dimensions, N and C, where nothing happens to them.
void trim(Attrs& attrs, size_t rank) {
  if (rank < 3 || attrs.any_operand()) return;
  const std::vector<int64_t> sizes =
      attrs.has("size") ? attrs.get_ints("size") : std::vector<int64_t>{};
  const std::vector<double> scales =
      attrs.has("scales") ? attrs.get_doubles("scales") : std::vector<double>{};
  std::vector<double> roi = attrs.has("roi") ? attrs.get_doubles("roi") : std::vector<double>{};
  for (size_t d : {size_t{0}, size_t{1}}) {
    if (!sizes.empty() && sizes[d] != -1) return;
    if (!scales.empty() && scales[d] != 1) return;
    if (!roi.empty() && (roi[d] != 0 || roi[d + rank] != 1)) return;
  }
  if (!sizes.empty()) attrs.set("size", std::vector<int64_t>(sizes.begin() + 2, sizes.end()));
  if (!scales.empty()) attrs.set("scales", std::vector<double>(scales.begin() + 2, scales.end()));
  if (roi.empty()) return;
  const auto ends = roi.begin() + static_cast<std::ptrdiff_t>(rank);
  roi.erase(ends, ends + 2);
  roi.erase(roi.begin(), roi.begin() + 2);
  attrs.set("roi", roi);
}

// Sizes, scales or a region that the model's run gives. False if it gives none of them.
bool resized_at_run_time(Importer& im, const NodeView& n, const ValPtr& x, bool modern, Attrs attrs,
                         double extrapolation) {
  const size_t scales = modern ? 2 : 1;
  const bool crops = std::get<std::string>(attrs.get("coordinates")) == "tf_crop_and_resize";
  const auto given = [&](size_t i) {
    return n.has_input(i) && im.in(n, i)->type != TensorType(DType::float32, Shape{0});
  };
  if (!(given(scales) && im.at_run_time(n, scales)) &&
      !(modern && given(3) && im.at_run_time(n, 3)) && !(crops && im.at_run_time(n, 1)))
    return false;
  if (n.has("axes")) n.unsupported("axes and sizes known only at run time");
  if (n.get_string("keep_aspect_ratio_policy", "stretch") != "stretch")
    n.unsupported("keep_aspect_ratio_policy and sizes known only at run time");
  if (!modern && attrs.get_string("mode") == "nearest")
    n.unsupported("scales known only at run time in this opset");
  std::vector<ValPtr> operands{x};
  if (given(scales))
    attrs.set("scales", im.as_attr(n, scales, "scales", operands));
  else
    attrs.set("size", im.as_attr(n, 3, "sizes", operands));
  if (crops) {
    attrs.set("roi", im.as_attr(n, 1, "roi", operands));
    attrs.set("extrapolation", extrapolation);
  }
  im.out(n, 0, im.call(n, "interpolate", operands, attrs));
  return true;
}

void import_resize(Importer& im, const NodeView& n) {
  const bool upsample = n.op() == "Upsample", modern = !upsample && n.opset() >= 11;
  ValPtr x = im.in(n, 0);
  std::string mode = n.get_string("mode", "nearest");
  if (mode == "bilinear") mode = "linear";  // Upsample 1
  // Before opset 11 there was one rule, which later got these names.
  const std::string coordinates =
      modern ? n.get_string("coordinate_transformation_mode", "half_pixel") : "asymmetric";
  const std::string rounding =
      modern ? n.get_string("nearest_mode", "round_prefer_floor") : "floor";
  Attrs attrs{{"mode", mode},
              {"coordinates", coordinates},
              {"nearest_rounding", rounding},
              {"cubic_coeff", n.get_float("cubic_coeff_a", -0.75)},
              {"exclude_outside", n.get_int("exclude_outside", 0) != 0},
              {"antialias", n.get_int("antialias", 0) != 0}};
  // ONNX Runtime's arithmetic of images: what is quantized after them by its own range magnifies
  // the last bits.
  if (mode == "linear" && (x->rank() == 4 || x->rank() == 2) && !attrs.get_bool("antialias") &&
      (coordinates == "half_pixel" || coordinates == "pytorch_half_pixel" ||
       coordinates == "align_corners" || coordinates == "asymmetric"))
    attrs.set("joint", true);
  const double extrapolation = n.get_float("extrapolation_value", 0);
  if (resized_at_run_time(im, n, x, modern, attrs, extrapolation)) return;
  Wanted wanted = read_wanted(im, n, *x, modern);
  keep_aspect_ratio(n, *x, wanted);
  std::vector<ValPtr> operands{x};
  if (!wanted.roi.empty()) attrs.set("roi", wanted.roi).set("extrapolation", extrapolation);
  if (!wanted.sizes.empty()) set_sizes(im, n, *x, wanted.sizes, attrs, operands);
  if (!wanted.scales.empty() && (modern || mode != "nearest")) attrs.set("scales", wanted.scales);
  auto emit = [&] {
    trim(attrs, static_cast<size_t>(x->rank()));
    operands[0] = x;
    x = im.call(n, "interpolate", operands, attrs);
  };
  if (modern || mode != "nearest") {
    emit();
    return im.out(n, 0, x);
  }
  // What makes an image smaller was rounded the other way before opset 11.
  for (bool smaller : {false, true}) {
    std::vector<double> scales = wanted.scales;
    for (double& s : scales) s = (s < 1) == smaller ? s : 1;
    if (std::all_of(scales.begin(), scales.end(), [](double s) { return s == 1; })) continue;
    attrs.set("scales", scales).set("nearest_rounding", smaller ? "ceil" : "floor");
    emit();
  }
  im.out(n, 0, x);
}

}  // namespace

void add_resize(Handlers& h) {
  h["Resize"] = import_resize;
  h["Upsample"] = import_resize;
}

}  // namespace octet::io::onnx_impl
