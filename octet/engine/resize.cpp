#include "octet/engine/resize_impl.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"

namespace octet::engine_detail {
namespace {

constexpr const char* kCrop = "tf_crop_and_resize";

std::string dims_text(const std::vector<Dim>& dims) {  // "(2, N, 8)"
  std::vector<std::string> parts;
  for (const Dim& d : dims) parts.push_back(to_string(d));
  return fmt::format("({})", fmt::join(parts, ", "));
}

// Where position x of n_out lies among n_in elements. In double: positions of whole numbers are
// exact.
double position(int64_t x, int64_t n_in, int64_t n_out, const Resize& r,
                const std::string& coordinates) {
  auto v = static_cast<double>(x);
  if (coordinates == "align_corners")
    return n_out > 1 ? v * static_cast<double>(n_in - 1) / static_cast<double>(n_out - 1) : 0;
  if (coordinates == "asymmetric") return v * r.numerator / r.denominator;
  if (coordinates == "pytorch_half_pixel" && n_out <= 1) return 0;
  if (coordinates == kCrop) {
    const auto span = static_cast<double>(n_in - 1);
    if (n_out == 1) return 0.5 * (r.first + r.last) * span;
    return r.first * span + v * (r.last - r.first) * span / static_cast<double>(n_out - 1);
  }
  double shift = 0;
  // what rounding the size down left off is shared by both ends
  if (coordinates == "half_pixel_symmetric") {
    const auto size = static_cast<double>(n_in);
    shift = size / 2 * (1 - static_cast<double>(n_out) / (size * r.denominator / r.numerator));
  }
  return shift + (v + 0.5) * r.numerator / r.denominator - 0.5;
}

int64_t nearest(double at, const std::string& rounding) {
  if (rounding == "round_prefer_floor") return static_cast<int64_t>(std::ceil(at - 0.5));
  if (rounding == "round_prefer_ceil") return static_cast<int64_t>(std::floor(at + 0.5));
  return static_cast<int64_t>(rounding == "floor" ? std::floor(at) : std::ceil(at));
}

// The weight of an element at distance d >= 0 from the position. Cubic: Keys 1981, "Cubic
// convolution interpolation for digital image processing".
double weight_at(double d, const ResizeModes& modes) {
  if (modes.mode == "linear") return std::max(0.0, 1 - d);
  const double a = modes.cubic;
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

}  // namespace

// size, scales and roi have one number per dimension, or one per dimension but the first two.
std::vector<Resize> resizes(const std::vector<Dim>& x, const Attrs& attrs) {
  const std::vector<int64_t> sizes =
      attrs.get_doubles("size").empty() ? std::vector<int64_t>{} : attrs.get_ints("size");
  const std::vector<double> scales = attrs.get_doubles("scales"), roi = attrs.get_doubles("roi");
  OCTET_CHECK(!sizes.empty() || !scales.empty(), invalid_argument,
              "interpolate: give size or scales");
  const size_t given = std::max(sizes.size(), scales.size());
  OCTET_CHECK(given == x.size() || given + 2 == x.size(), invalid_argument,
              "interpolate: {} sizes or scales for an operand of shape {}; expected {} (or one per "
              "dimension)",
              given, dims_text(x), x.size() < 2 ? x.size() : x.size() - 2);
  OCTET_CHECK(sizes.empty() || scales.empty() || sizes.size() == scales.size(), invalid_argument,
              "interpolate: {} sizes and {} scales; expected as many", sizes.size(), scales.size());
  const bool crops = attrs.get_string("coordinates") == kCrop;
  OCTET_CHECK(crops ? roi.size() == 2 * given : roi.empty(), invalid_argument,
              "interpolate: a roi of {} numbers; expected {} (beginnings, then ends; "
              "coordinates=\"{}\" only)",
              roi.size(), crops ? 2 * given : 0, kCrop);
  std::vector<Resize> result(x.size());
  for (size_t d = 0; d < x.size(); ++d) {
    Resize& r = result[d];
    r.out = x[d];
    if (d + given < x.size()) continue;
    const size_t i = d + given - x.size();
    if (!sizes.empty()) {
      OCTET_CHECK(sizes[i] >= -1, invalid_argument,
                  "interpolate: size {}; expected 0 or more, or -1 to keep a size", sizes[i]);
      if (sizes[i] < 0) continue;
      r.out = Dim(sizes[i]);
      r.changes = r.out != x[d];
      r.numerator = static_cast<double>(x[d].known() ? x[d].size() : 1);
      r.denominator = static_cast<double>(sizes[i]);
    }
    if (!scales.empty()) {
      OCTET_CHECK(std::isfinite(scales[i]) && scales[i] > 0, invalid_argument,
                  "interpolate: scale {}; expected more than 0", scales[i]);
      r.changes |= scales[i] != 1;
      r.numerator = 1;
      r.denominator = scales[i];
      if (!sizes.empty() || scales[i] == 1) continue;
      if (x[d].known())
        r.out = Dim(static_cast<int64_t>(std::floor(static_cast<double>(x[d].size()) * scales[i])));
      else if (scales[i] == std::floor(scales[i]))
        r.out = multiply(x[d], Dim(static_cast<int64_t>(scales[i])));
      else
        r.out = Dim(fmt::format("[{}*{}]", x[d].name(), scales[i]));
    }
  }
  for (size_t i = 0; crops && i < given; ++i) {
    Resize& r = result[x.size() - given + i];
    r.first = roi[i];
    r.last = roi[i + given];
    OCTET_CHECK(std::isfinite(r.first) && std::isfinite(r.last), invalid_argument,
                "interpolate: a roi from {} to {}; expected finite fractions", r.first, r.last);
    r.changes |= r.first != 0 || r.last != 1;
  }
  return result;
}

ResizeModes::ResizeModes(const Attrs& a)
    : mode(a.get_string("mode")),
      coordinates(a.get_string("coordinates")),
      rounding(a.get_string("nearest_rounding")),
      cubic(a.get_double("cubic_coeff")),
      exclude_outside(a.get_bool("exclude_outside")),
      antialias(a.get_bool("antialias")),
      joint(a.get_bool("joint")) {
  auto need = [](const char* what, const std::string& value,
                 std::initializer_list<const char*> known) {
    OCTET_CHECK(std::find(known.begin(), known.end(), value) != known.end(), invalid_argument,
                "interpolate: {}=\"{}\"; expected one of {}", what, value, fmt::join(known, ", "));
  };
  need("mode", mode, {"nearest", "linear", "cubic"});
  need("coordinates", coordinates,
       {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
        kCrop});
  need("nearest_rounding", rounding, {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
}

bool is_joint(const std::vector<Resize>& resizes, const ResizeModes& modes) {
  if (!modes.joint || modes.mode != "linear" || modes.antialias || resizes.size() < 2) return false;
  if (modes.crops() || modes.coordinates == "half_pixel_symmetric") return false;
  return std::none_of(resizes.begin(), resizes.end() - 2,
                      [](const Resize& r) { return r.changes; });
}

ResizePairs resize_pairs(int64_t n_in, int64_t n_out, const Resize& r, const ResizeModes& modes) {
  const float scale = static_cast<float>(r.denominator) / static_cast<float>(r.numerator);
  const auto last = static_cast<float>(n_in - 1);
  ResizePairs pairs;
  for (int64_t i = 0; i < n_out; ++i) {
    const auto x = static_cast<float>(i);
    float at = 0;
    if (modes.coordinates == "align_corners")
      at = n_out > 1 ? x * last / static_cast<float>(n_out - 1) : 0;
    else if (modes.coordinates == "asymmetric")
      at = x / scale;
    else if (modes.coordinates == "half_pixel" || n_out > 1)
      at = (x + 0.5f) / scale - 0.5f;
    at = std::clamp(at, 0.0f, last);
    const auto first = std::min(static_cast<int64_t>(at), n_in - 1),
               second = std::min(first + 1, n_in - 1);
    pairs.first.push_back(first);
    pairs.second.push_back(second);
    pairs.first_weight.push_back(first == second ? 0.5f
                                                 : std::abs(at - static_cast<float>(second)));
    pairs.second_weight.push_back(first == second ? 0.5f
                                                  : std::abs(at - static_cast<float>(first)));
  }
  return pairs;
}

bool shows_outside(int64_t x, int64_t n_in, int64_t n_out, const Resize& r,
                   const ResizeModes& modes) {
  const double at = position(x, n_in, n_out, r, modes.coordinates);
  return at < -1e-9 || at > static_cast<double>(n_in - 1) + 1e-9;
}

std::vector<int64_t> nearest_index(int64_t n_in, int64_t n_out, const Resize& r,
                                   const ResizeModes& modes) {
  std::vector<int64_t> index(n_out);
  for (int64_t i = 0; i < n_out; ++i)
    index[i] = std::clamp<int64_t>(
        nearest(position(i, n_in, n_out, r, modes.coordinates), modes.rounding), 0, n_in - 1);
  return index;
}

// With antialias the weights are stretched by as much as the image is made smaller.
ResizeTaps resize_taps(int64_t n_in, int64_t n_out, const Resize& r, const ResizeModes& modes) {
  const double stretch = modes.antialias ? std::max(1.0, r.numerator / r.denominator) : 1;
  OCTET_CHECK(stretch <= 1 << 20, invalid_argument,
              "interpolate: antialias at a scale of {}; expected 1e-6 or more", 1 / stretch);
  const auto reach = static_cast<int64_t>(std::ceil((modes.mode == "linear" ? 1 : 2) * stretch));
  ResizeTaps t{2 * reach, {}, {}};
  std::vector<double> weights(t.count);
  for (int64_t x = 0; x < n_out; ++x) {
    double at = position(x, n_in, n_out, r, modes.coordinates);
    if (modes.mode == "linear" && stretch == 1)
      at = std::clamp(at, 0.0, static_cast<double>(n_in - 1));
    const auto first = static_cast<int64_t>(std::floor(at)) - reach + 1;
    double sum = 0;
    for (int64_t k = 0; k < t.count; ++k) {
      const int64_t i = first + k;
      weights[k] = weight_at(std::abs(static_cast<double>(i) - at) / stretch, modes);
      if (modes.exclude_outside && (i < 0 || i >= n_in)) weights[k] = 0;
      sum += weights[k];
      t.index.push_back(std::clamp<int64_t>(i, 0, n_in - 1));
    }
    const bool normalize = (modes.exclude_outside || stretch != 1) && sum != 0;
    for (double w : weights) t.weight.push_back(normalize ? w / sum : w);
  }
  return t;
}

}  // namespace octet::engine_detail
