#include "octet/nn/upsample.h"

#include "octet/base/check_impl.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"

namespace octet::functional {

Tensor interpolate(const Tensor& x, const InterpolateOptions& o) {
  const auto spatial = static_cast<size_t>(std::max<int64_t>(x.dim() - 2, 0));
  const bool nearest = o.mode.starts_with("nearest");
  const size_t wanted = o.mode == "linear"                            ? 1
                        : o.mode == "bilinear" || o.mode == "bicubic" ? 2
                        : o.mode == "trilinear"                       ? 3
                                                                      : 0;
  OCTET_CHECK(nearest ? o.mode == "nearest" || o.mode == "nearest-exact" : wanted > 0,
              invalid_argument,
              "interpolate: mode=\"{}\"; expected nearest, nearest-exact, linear, bilinear, "
              "bicubic or trilinear",
              o.mode);
  OCTET_CHECK(spatial >= 1 && (nearest || spatial == wanted), invalid_argument,
              "interpolate: mode=\"{}\" on an input {}", o.mode, to_string(x.type()));
  OCTET_CHECK(o.size.empty() != o.scale_factor.empty(), invalid_argument,
              "interpolate: give either size or scale_factor");
  OCTET_CHECK(!nearest || !o.align_corners, invalid_argument,
              "interpolate: align_corners does not go with mode=\"{}\"", o.mode);
  Attrs attrs{{"mode", nearest               ? "nearest"
                       : o.mode == "bicubic" ? "cubic"
                                             : "linear"},
              {"coordinates", o.mode == "nearest" ? "asymmetric"
                              : o.align_corners   ? "align_corners"
                                                  : "half_pixel"},
              {"nearest_rounding", o.mode == "nearest" ? "floor" : "round_prefer_ceil"}};
  auto each = [&](auto list) {
    if (list.size() == 1) list.resize(spatial, list[0]);
    OCTET_CHECK(list.size() == spatial, invalid_argument,
                "interpolate: {} sizes or scales for an input {}", list.size(),
                to_string(x.type()));
    return list;
  };
  if (!o.size.empty())
    attrs.set("size", each(o.size));
  else
    attrs.set("scales", each(o.scale_factor));
  return ops::call("interpolate", {x}, attrs);
}

}  // namespace octet::functional

namespace octet::nn {

OCTET_MODULE(Upsample)

Upsample::Upsample(functional::InterpolateOptions o) : options(std::move(o)) {
  OCTET_CHECK(options.size.empty() != options.scale_factor.empty(), invalid_argument,
              "Upsample: give either size or scale_factor");
}
Tensor Upsample::forward(Tensor x) { return functional::interpolate(x, options); }

std::string Upsample::extra_repr() const {
  auto text = [](const auto& list) { return list.size() == 1 ? python(list[0]) : python(list); };
  return fmt::format("{}, mode={}",
                     options.size.empty() ? "scale_factor=" + text(options.scale_factor)
                                          : "size=" + text(options.size),
                     options.mode);
}
Attrs Upsample::config() const {
  return {{"size", options.size},
          {"scale_factor", options.scale_factor},
          {"mode", options.mode},
          {"align_corners", options.align_corners}};
}
std::shared_ptr<Upsample> Upsample::from_config(const Attrs& c) {
  // An empty list reads back as integers, whatever it was.
  std::vector<double> scale = c.get_doubles("scale_factor");
  return make<Upsample>(functional::InterpolateOptions{
      .size = scale.empty() ? c.get_ints("size") : std::vector<int64_t>{},
      .scale_factor = scale,
      .mode = c.get_string("mode"),
      .align_corners = c.get_bool("align_corners")});
}

}  // namespace octet::nn
