// Resize and its forerunner Upsample.
#include <cmath>

#include "octet/io/onnx_impl.h"

namespace octet::io::onnx_impl {
namespace {

// The spatial part of full-rank scales or sizes; the others must leave N and C alone.
void import_resize(Importer& im, const NodeView& n) {
  bool upsample = n.op() == "Upsample", modern = !upsample && n.opset() >= 11;
  ValPtr x = im.in(n, 0);
  if (x->rank() < 3 || x->rank() > 4) n.unsupported("{}-d data", x->rank());
  auto rank = static_cast<size_t>(x->rank());
  Attrs attrs{{"mode", n.get_string("mode", "nearest")}};
  if (attrs.get_string("mode") == "bilinear") attrs.set("mode", std::string("linear"));  // Upsample 1
  // Before opset 11 there was one rule, which later got these names.
  std::string coordinates = modern ? n.get_string("coordinate_transformation_mode", "half_pixel") : "asymmetric";
  std::string rounding = modern ? n.get_string("nearest_mode", "round_prefer_floor") : "floor";
  if (coordinates == "tf_crop_and_resize" || coordinates == "half_pixel_symmetric") n.unsupported("{}", coordinates);
  n.ignore({"extrapolation_value"});  // of tf_crop_and_resize only
  if (n.get_int("antialias", 0) != 0) n.unsupported("antialias");
  attrs.set("coordinates", coordinates);
  attrs.set("nearest_rounding", rounding);
  attrs.set("cubic_coeff", n.get_float("cubic_coeff_a", -0.75));
  attrs.set("exclude_outside", n.get_int("exclude_outside", 0) != 0);

  std::vector<double> scales;
  if (n.has("scales")) {
    scales = n.get_floats("scales");  // Upsample 7
  } else if (size_t i = modern ? 2 : 1; n.has_input(i)) {
    Tensor t = im.known(n, i, "scales");
    for (float s : t.to(DType::float32).reshape({-1}).to_vector<float>()) scales.push_back(s);
  }
  if (!scales.empty()) {
    if (scales.size() != rank) n.fail(ErrorCode::corrupt, "{} scales for {}-d data", scales.size(), rank);
    for (double s : scales)
      if (!(s > 0) || !(s < 1e6)) n.fail(ErrorCode::corrupt, "a scale of {}", s);
    if (scales[0] != 1 || scales[1] != 1) n.unsupported("scales of the first two dimensions");
    attrs.set("scales", std::vector<double>(scales.begin() + 2, scales.end()));
  } else {
    if (!modern || !n.has_input(3)) n.fail(ErrorCode::corrupt, "neither scales nor sizes are given");
    std::vector<Dim> sizes = im.known_sizes(n, 3, "sizes");
    if (sizes.size() != rank) n.fail(ErrorCode::corrupt, "{} sizes for {}-d data", sizes.size(), rank);
    if (sizes[0] != x->dims()[0] || sizes[1] != x->dims()[1]) n.unsupported("sizes of the first two dimensions");
    std::vector<int64_t> spatial;
    for (size_t d = 2; d < rank; ++d) {
      if (!sizes[d].known())
        n.unsupported("a size '{}' that is known only at run time; import with a fixed size", to_string(sizes[d]));
      if (sizes[d].size() < 1 || sizes[d].size() > 1 << 20) n.fail(ErrorCode::corrupt, "a size of {}", sizes[d].size());
      spatial.push_back(sizes[d].size());
    }
    attrs.set("size", spatial);
  }
  im.out(n, 0, im.call(n, "interpolate", {x}, attrs));
}

}  // namespace

void add_resize(Handlers& h) {
  h["Resize"] = import_resize;
  h["Upsample"] = import_resize;
}

}  // namespace octet::io::onnx_impl
