// Samples and regions of images, and boxes in them.
#include <algorithm>
#include <limits>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

void import_grid_sample(Importer& im, const NodeView& n) {
  std::string mode = n.get_string("mode", "linear");
  if (mode == "bilinear") mode = "linear";  // their names in opset 16
  if (mode == "bicubic") mode = "cubic";
  im.out(n, 0,
         im.call(n, "grid_sample", {im.in(n, 0), im.in(n, 1)},
                 {{"mode", mode},
                  {"padding_mode", n.get_string("padding_mode", "zeros")},
                  {"align_corners", n.get_int("align_corners", 0) != 0}}));
}

void import_roi_align(Importer& im, const NodeView& n) {
  const char* usual = n.opset() < 16 ? "output_half_pixel" : "half_pixel";
  im.out(n, 0,
         im.call(n, "roi_align", {im.in(n, 0), with_size(im, n, im.in(n, 1), 1, 4), im.in(n, 2)},
                 {{"output_size", std::vector<int64_t>{n.get_int("output_height", 1),
                                                       n.get_int("output_width", 1)}},
                  {"sampling_ratio", n.get_int("sampling_ratio", 0)},
                  {"spatial_scale", n.get_float("spatial_scale", 1)},
                  {"mode", n.get_string("mode", "avg")},
                  {"coordinates", n.get_string("coordinate_transformation_mode", usual)}}));
}

void import_suppression(Importer& im, const NodeView& n) {
  std::vector<ValPtr> operands{with_size(im, n, im.in(n, 0), 2, 4), im.in(n, 1)};
  Attrs attrs{{"center_point_box", n.get_int("center_point_box", 0) != 0}};
  const auto option = [&](size_t i, const char* name, bool integer) {
    if (!n.has_input(i)) return;
    if (im.at_run_time(n, i)) {
      attrs.set(name, im.as_attr(n, i, name, operands));
      return;
    }
    const Tensor given = im.known(n, i, name);
    if (given.numel() != 1) n.fail(ErrorCode::corrupt, "{}: {} numbers", name, given.numel());
    if (integer)
      attrs.set(name, static_cast<int64_t>(given.item()));
    else
      attrs.set(name, given.item());
  };
  option(2, "max_output", true);
  option(3, "iou_threshold", false);
  option(4, "score_threshold", false);
  im.out(n, 0, im.call(n, "non_max_suppression", operands, attrs));
}

// Each axis cut or padded with zeros to its size, half of it at either end; an odd element is added
// or cut at the end.
void import_center_crop_pad(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  const std::vector<int64_t> sizes = im.known_ints(n, 1, "shape");
  std::vector<int64_t> axes = n.get_ints("axes");
  if (!n.has("axes"))
    for (int64_t d = 0; d < x->rank(); ++d) axes.push_back(d);
  if (axes.size() != sizes.size())
    n.fail(ErrorCode::corrupt, "{} sizes for {} axes", sizes.size(), axes.size());
  const auto rank = static_cast<size_t>(x->rank());
  std::vector<int64_t> pads(2 * rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = axis_of(n, axes[i], x->rank()),
                  size = known_dim(n, *x, axis, "CenterCropPad");
    if (sizes[i] < 0) n.fail(ErrorCode::corrupt, "a size of {}", sizes[i]);
    if (sizes[i] < size) {
      const int64_t start = (size - sizes[i]) / 2;
      x = im.call(n, "slice", {x}, {{"dim", axis}, {"start", start}, {"end", start + sizes[i]}});
    } else {
      const auto d = static_cast<size_t>(axis);
      pads[d] = (sizes[i] - size) / 2;
      pads[d + rank] = sizes[i] - size - pads[d];
    }
  }
  if (std::any_of(pads.begin(), pads.end(), [](int64_t p) { return p != 0; }))
    x = im.call(n, "pad", {x}, {{"pads", pads}});
  im.out(n, 0, x);
}

}  // namespace

void add_regions(Handlers& h) {
  h["GridSample"] = import_grid_sample;
  h["RoiAlign"] = import_roi_align;
  h["NonMaxSuppression"] = import_suppression;
  h["CenterCropPad"] = import_center_crop_pad;
}

}  // namespace octet::io::onnx_impl
