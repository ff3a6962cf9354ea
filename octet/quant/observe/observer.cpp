#include "octet/quant/observe/observer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <typeinfo>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/quant/observe/scan_impl.h"
#include "octet/tensor/affine.h"

namespace octet::quant {
namespace {

constexpr std::array<const char*, 5> kSchemes = {"per_tensor_affine", "per_tensor_symmetric",
                                                 "per_channel_affine", "per_channel_symmetric",
                                                 "per_channel_affine_float_qparams"};

int64_t floor_half(int64_t v) { return v >= 0 ? v / 2 : -((1 - v) / 2); }

// "conv1.weight channel 3", "conv1.weight channels 3, 5, 8, 9, ... (12 of 64)", "conv1" or "the
// tensor".
std::string place(const std::string& label, const std::vector<size_t>& channels, size_t of,
                  bool per_channel) {
  std::string name = label.empty() ? "the tensor" : label;
  if (!per_channel) return name;
  if (channels.size() == 1) return fmt::format("{} channel {}", name, channels[0]);
  std::vector<size_t> shown(
      channels.begin(),
      channels.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(8, channels.size())));
  return fmt::format("{} channels {}{} ({} of {})", name, fmt::join(shown, ", "),
                     shown.size() < channels.size() ? ", ..." : "", channels.size(), of);
}

// What is unusual about a range, as its kind of warning.
enum class Oddity { none, all_zero, tiny, constant, huge, count };

Oddity oddity(float min, float max, float scale, const ObserverOptions& options) {
  if (min == 0 && max == 0) return Oddity::all_zero;
  // The scale that the range asks for, before eps.
  CodeRange codes = code_range(options);
  double wanted = is_symmetric(options.qscheme)
                      ? std::max(-static_cast<double>(min), static_cast<double>(max)) * 2
                      : std::max<double>(max, 0) - std::min<double>(min, 0);
  wanted /= static_cast<double>(codes.quant_max - codes.quant_min);
  if (wanted < options.eps * 0.999) return Oddity::tiny;
  if (wanted > static_cast<double>(scale) * 1.001) return Oddity::huge;
  return min == max ? Oddity::constant : Oddity::none;
}

std::string floats_text(const Tensor& t) {
  std::vector<float> v = t.to_vector<float>();
  if (t.dim() == 0) return fmt::format("{}", v[0]);
  if (v.size() <= 8) return fmt::format("[{}]", fmt::join(v, ", "));
  auto [lo, hi] = std::minmax_element(v.begin(), v.end());
  return fmt::format("[{}: {}..{}]", v.size(), *lo, *hi);
}

}  // namespace

const char* to_string(ObserverScheme scheme) { return kSchemes[static_cast<size_t>(scheme)]; }

ObserverScheme parse_observer_scheme(std::string_view name) {
  for (size_t i = 0; i < kSchemes.size(); ++i)
    if (name == kSchemes[i]) return static_cast<ObserverScheme>(i);
  OCTET_FAIL(invalid_argument, "qscheme '{}': expected one of {}", name, fmt::join(kSchemes, ", "));
}

bool is_per_channel(ObserverScheme scheme) {
  return scheme == ObserverScheme::per_channel_affine ||
         scheme == ObserverScheme::per_channel_symmetric || is_float_qparams(scheme);
}

bool is_symmetric(ObserverScheme scheme) {
  return scheme == ObserverScheme::per_tensor_symmetric ||
         scheme == ObserverScheme::per_channel_symmetric;
}

bool is_float_qparams(ObserverScheme scheme) {
  return scheme == ObserverScheme::per_channel_affine_float_qparams;
}

// -- options by name ------------------------------------------------------------------------------
namespace {

// Calls fn(name, member) for every option, in the order in which they are printed.
template <typename Fn>
void each_option(Fn&& fn) {
  fn("dtype", &ObserverOptions::dtype);
  fn("qscheme", &ObserverOptions::qscheme);
  fn("quant_min", &ObserverOptions::quant_min);
  fn("quant_max", &ObserverOptions::quant_max);
  fn("reduce_range", &ObserverOptions::reduce_range);
  fn("eps", &ObserverOptions::eps);
  fn("ch_axis", &ObserverOptions::ch_axis);
  fn("averaging_constant", &ObserverOptions::averaging_constant);
  fn("bins", &ObserverOptions::bins);
  fn("percentile", &ObserverOptions::percentile);
  fn("own_averages", &ObserverOptions::own_averages);
  fn("is_dynamic", &ObserverOptions::is_dynamic);
  fn("scale", &ObserverOptions::scale);
  fn("zero_point", &ObserverOptions::zero_point);
}

Attr to_attr(DType v) { return octet::to_string(v); }
Attr to_attr(ObserverScheme v) { return std::string(to_string(v)); }
template <typename T>
Attr to_attr(const std::optional<T>& v) {
  return *v;
}
template <typename T>
Attr to_attr(const T& v) {
  return v;
}

void from_attr(const Attrs& a, const std::string& name, DType& v) {
  v = parse_dtype(a.get_string(name));
}
void from_attr(const Attrs& a, const std::string& name, ObserverScheme& v) {
  v = parse_observer_scheme(a.get_string(name));
}
void from_attr(const Attrs& a, const std::string& name, bool& v) { v = a.get_bool(name); }
void from_attr(const Attrs& a, const std::string& name, int64_t& v) { v = a.get_int(name); }
void from_attr(const Attrs& a, const std::string& name, double& v) { v = a.get_double(name); }
template <typename T>
void from_attr(const Attrs& a, const std::string& name, std::optional<T>& v) {
  from_attr(a, name, v.emplace());
}

}  // namespace

Attrs to_attrs(const ObserverOptions& o) {
  const ObserverOptions defaults;
  Attrs a;
  each_option([&](const char* name, auto member) {
    if (o.*member != defaults.*member) a.set(name, to_attr(o.*member));
  });
  return a;
}

ObserverOptions options_from(const Attrs& attrs) {
  ObserverOptions o;
  std::vector<std::string> known;
  each_option([&](const char* name, auto member) {
    known.push_back(name);
    if (attrs.has(name)) from_attr(attrs, name, o.*member);
  });
  for (const auto& [name, value] : attrs)
    OCTET_CHECK(std::find(known.begin(), known.end(), name) != known.end(), invalid_argument,
                "observer options: unknown name '{}'{}", name, did_you_mean(name, known));
  return o;
}

std::string to_string(const ObserverOptions& options) {
  std::vector<std::string> parts;
  const Attrs attrs = to_attrs(options);
  each_option([&](const char* name, auto) {
    if (!attrs.has(name)) return;
    std::visit(
        [&](const auto& v) {
          if constexpr (std::is_arithmetic_v<std::decay_t<decltype(v)>> ||
                        std::is_same_v<std::decay_t<decltype(v)>, std::string>)
            parts.push_back(fmt::format("{}={}", name, v));
        },
        attrs.get(name));
  });
  return fmt::format("{}", fmt::join(parts, ", "));
}

void validate(const ObserverOptions& o, const std::string& who) {
  OCTET_CHECK(is_quantized(o.dtype), invalid_argument,
              "{}: dtype {}; expected quint8, qint8, quint16, qint16 or qint32", who,
              octet::to_string(o.dtype));
  OCTET_CHECK(
      !is_packed(o.dtype) || is_float_qparams(o.qscheme), unsupported,
      "{}: dtype {} with {}; 4 bits are for tables of embeddings, per_channel_affine_float_qparams",
      who, octet::to_string(o.dtype), to_string(o.qscheme));
  OCTET_CHECK(o.quant_min.has_value() == o.quant_max.has_value(), invalid_argument,
              "{}: {} is given without {}; give both or neither", who,
              o.quant_min ? "quant_min" : "quant_max", o.quant_min ? "quant_max" : "quant_min");
  if (o.quant_min) {
    int64_t lo = qmin(o.dtype), hi = qmax(o.dtype);
    OCTET_CHECK(*o.quant_min < *o.quant_max && *o.quant_min <= 0 && *o.quant_max >= 0,
                invalid_argument,
                "{}: codes {}..{}; expected quant_min < quant_max with 0 between them", who,
                *o.quant_min, *o.quant_max);
    OCTET_CHECK(*o.quant_min >= lo && *o.quant_max <= hi, invalid_argument,
                "{}: codes {}..{}; {} holds {}..{}{}", who, *o.quant_min, *o.quant_max,
                octet::to_string(o.dtype), lo, hi,
                is_8_bit(o.dtype) && *o.quant_max - *o.quant_min > 255
                    ? ": for more codes give dtype quint16 or qint16"
                    : "");
  }
  if (o.reduce_range) {
    OCTET_CHECK(o.dtype != DType::qint32, invalid_argument,
                "{}: reduce_range is for 8 and 16 bits; dtype is qint32", who);
    OCTET_CHECK(
        !(is_symmetric(o.qscheme) && qmin(o.dtype) == 0), unsupported,
        "{}: reduce_range with {} and codes from 0 would leave codes without their middle; use "
        "qint8 or give "
        "quant_min and quant_max",
        who, to_string(o.qscheme));
    CodeRange c = code_range(o);
    OCTET_CHECK(c.quant_min < c.quant_max, invalid_argument,
                "{}: reduce_range leaves only the code {}", who, c.quant_min);
  }
  OCTET_CHECK(std::isfinite(o.eps) && o.eps >= 0x1p-126 && o.eps <= 1e30, invalid_argument,
              "{}: eps {}; expected a number >= 2^-126 (1.18e-38) and <= 1e30", who, o.eps);
  OCTET_CHECK(o.ch_axis >= 0, invalid_argument,
              "{}: ch_axis {}; count dimensions from the front, 0 or more", who, o.ch_axis);
  OCTET_CHECK(o.averaging_constant > 0 && o.averaging_constant <= 1, invalid_argument,
              "{}: averaging_constant {}; expected a number > 0 and <= 1", who,
              o.averaging_constant);
  OCTET_CHECK(o.bins >= 16 && o.bins <= 65536, invalid_argument,
              "{}: bins {}; expected 16 to 65536", who, o.bins);
  OCTET_CHECK(o.percentile > 0 && o.percentile <= 100, invalid_argument,
              "{}: percentile {}; expected a number > 0 and <= 100", who, o.percentile);
  OCTET_CHECK(!o.is_dynamic, invalid_argument, "{}: is_dynamic is for PlaceholderObserver", who);
  OCTET_CHECK(
      !o.scale && !o.zero_point, invalid_argument,
      "{}: scale and zero_point are for FixedQParamsObserver; this observer chooses its own", who);
}

CodeRange code_range(const ObserverOptions& o) {
  if (o.quant_min && o.quant_max) {
    if (o.reduce_range) return {floor_half(*o.quant_min), floor_half(*o.quant_max)};
    return {*o.quant_min, *o.quant_max};
  }
  int64_t lo = qmin(o.dtype), hi = qmax(o.dtype);
  if (o.reduce_range && o.dtype != DType::qint32) return {floor_half(lo), floor_half(hi)};
  return {lo, hi};
}

CodeRange running_codes(const ObserverOptions& options) {
  ObserverOptions all = options;
  all.reduce_range = false;
  return code_range(all);
}

ScaleZeroPoint choose_qparams(float min, float max, const ObserverOptions& o) {
  auto [lo, hi] = code_range(o);
  float eps = static_cast<float>(o.eps);
  float neg = std::min(min, 0.0f), pos = std::max(max, 0.0f);
  if (is_symmetric(o.qscheme)) {
    float m = std::max(-neg, pos);
    // In double, then rounded: half of the number of steps need not be whole.
    float steps = static_cast<float>(static_cast<double>(hi - lo) / 2);
    float s = std::max(m / steps, eps);
    const bool from_0 = qmin(o.dtype) == 0;
    int64_t z = !from_0 ? 0 : o.quant_min ? floor_half(lo + hi) : (qmax(o.dtype) + 1) / 2;
    return {std::min(s, std::numeric_limits<float>::max()), z};
  }
  float steps = static_cast<float>(hi - lo);
  float s = (pos - neg) / steps;
  if (!std::isfinite(s)) {  // pos - neg is beyond float32
    double wide =
        (static_cast<double>(pos) - static_cast<double>(neg)) / static_cast<double>(steps);
    s = static_cast<float>(std::min(wide, static_cast<double>(std::numeric_limits<float>::max())));
  }
  s = std::max(s, eps);
  double z = static_cast<double>(lo) - static_cast<double>(affine::rne(neg / s));
  z = std::clamp(z, static_cast<double>(lo), static_cast<double>(hi));
  return {s, static_cast<int64_t>(z)};
}

FloatQParams choose_float_qparams(float min, float max, const ObserverOptions& o) {
  auto [lo, hi] = code_range(o);
  float steps = static_cast<float>(hi - lo);
  float s = (max - min) / steps;
  if (!std::isfinite(s))  // max - min is beyond float32
    s = static_cast<float>(
        std::min((static_cast<double>(max) - static_cast<double>(min)) / static_cast<double>(steps),
                 static_cast<double>(std::numeric_limits<float>::max())));
  if (!(s > static_cast<float>(o.eps))) s = 1;
  return {s, -min / s};
}

QParams make_qparams(std::vector<double> scales, std::vector<double> zero_points,
                     const ObserverOptions& options) {
  QParams q;
  q.dtype = options.dtype;
  CodeRange codes = code_range(options);
  q.quant_min = codes.quant_min;
  q.quant_max = codes.quant_max;
  if (is_float_qparams(options.qscheme)) {
    q.quantizer = Quantizer::per_channel_float(scales, zero_points, options.ch_axis, options.dtype);
  } else {
    std::vector<int64_t> whole(zero_points.begin(), zero_points.end());
    q.quantizer =
        is_per_channel(options.qscheme)
            ? Quantizer::per_channel(scales, std::move(whole), options.ch_axis, options.dtype)
            : Quantizer::per_tensor(scales.at(0), whole.at(0), options.dtype);
  }
  q.scales = std::move(scales);
  q.zero_points = std::move(zero_points);
  return q;
}

QParams calculate_qparams(const std::vector<float>& min, const std::vector<float>& max,
                          const ObserverOptions& options, const std::string& label) {
  const std::string who = label.empty() ? "calculate_qparams" : label;
  validate(options, who);
  bool per_channel = is_per_channel(options.qscheme);
  OCTET_CHECK(min.size() == max.size() && !min.empty() && (per_channel || min.size() == 1),
              invalid_argument, "{}: {} minima and {} maxima; {} needs {}", who, min.size(),
              max.size(), to_string(options.qscheme),
              per_channel ? "one of each per channel" : "one of each");
  const bool float_qparams = is_float_qparams(options.qscheme);
  std::vector<double> scales(min.size()), zero_points(min.size());
  std::array<std::vector<size_t>, static_cast<size_t>(Oddity::count)> odd;
  for (size_t c = 0; c < min.size(); ++c) {
    OCTET_CHECK(std::isfinite(min[c]) && std::isfinite(max[c]) && min[c] <= max[c],
                invalid_argument, "{}: range [{}, {}]{}; expected finite numbers, min <= max", who,
                min[c], max[c], per_channel ? fmt::format(" of channel {}", c) : "");
    if (float_qparams) {  // any range can be quantized well
      auto [s, z] = choose_float_qparams(min[c], max[c], options);
      scales[c] = s;
      zero_points[c] = z;
      continue;
    }
    auto [s, z] = choose_qparams(min[c], max[c], options);
    scales[c] = s;
    zero_points[c] = static_cast<double>(z);
    odd[static_cast<size_t>(oddity(min[c], max[c], s, options))].push_back(c);
  }

  std::vector<std::string> warnings;
  auto warn = [&](Oddity kind, auto&& text) {
    const std::vector<size_t>& channels = odd[static_cast<size_t>(kind)];
    if (channels.empty()) return;
    warnings.push_back(place(label, channels, min.size(), per_channel) + ": " + text(channels[0]));
  };
  // A line each, with the first channel's numbers. A layer of one value per channel is constant by
  // its shape, so constants are only news if they are few.
  warn(Oddity::all_zero,
       [&](size_t c) { return fmt::format("all zeros; scale set to {:.3g}", scales[c]); });
  warn(Oddity::tiny, [&](size_t c) {
    return fmt::format("tiny range [{:.3g}, {:.3g}]; scale raised to eps, {:.3g}", min[c], max[c],
                       scales[c]);
  });
  warn(Oddity::huge, [&](size_t c) {
    return fmt::format("range [{:.3g}, {:.3g}] too wide for float32; scale capped at {:.3g}",
                       min[c], max[c], scales[c]);
  });
  if (!per_channel || 2 * odd[static_cast<size_t>(Oddity::constant)].size() <= min.size())
    warn(Oddity::constant, [&](size_t c) {
      return fmt::format("all values are {:.6g}; scale set to {:.3g}", min[c], scales[c]);
    });

  QParams result = make_qparams(std::move(scales), std::move(zero_points), options);
  result.warnings = std::move(warnings);
  return result;
}

QParams calculate_qparams(const Tensor& min, const Tensor& max, const ObserverOptions& options,
                          const std::string& label) {
  return calculate_qparams(min.to(DType::float32).to_vector<float>(),
                           max.to(DType::float32).to_vector<float>(), options, label);
}

Attrs Observer::config() const {
  Attrs a = to_attrs(options_);
  if (!label_.empty()) a.set("label", label_);
  return a;
}

Tensor Observer::forward(Tensor x) {
  if (!x.is_symbolic()) observe(x);
  return x;
}

void Observer::fail_state(const std::string& why) const {
  OCTET_FAIL(invalid_argument, "{}: its state in the state dict is damaged: {}", title(), why);
}

std::vector<float> Observer::floats_of(const std::map<std::string, Tensor>& state,
                                       const std::string& key, int64_t size) const {
  auto it = state.find(key);
  if (it == state.end()) fail_state(key + " is missing");
  const Tensor& t = it->second;
  if (t.dtype() != DType::float32 || (size >= 0 && t.numel() != size))
    fail_state(fmt::format("{} is {}; expected {} float32 values", key, octet::to_string(t.type()),
                           size >= 0 ? std::to_string(size) : "any number of"));
  return t.to_vector<float>();
}

int64_t Observer::int_of(const std::map<std::string, Tensor>& state, const std::string& key) const {
  auto it = state.find(key);
  if (it == state.end()) fail_state(key + " is missing");
  if (it->second.dtype() != DType::int64 || it->second.numel() != 1)
    fail_state(
        fmt::format("{} is {}; expected one int64", key, octet::to_string(it->second.type())));
  return it->second.to_vector<int64_t>()[0];
}

void Observer::check_range(const std::vector<float>& min, const std::vector<float>& max) const {
  for (size_t c = 0; c < min.size(); ++c)
    if (!std::isfinite(min[c]) || !std::isfinite(max[c]) || min[c] > max[c])
      fail_state(
          fmt::format("range [{}, {}]; expected finite numbers, min <= max", min[c], max[c]));
}

void Observer::observe(const Tensor& given) {
  Tensor x = given.defined() ? given.detach() : given;  // observing is never recorded

  OCTET_CHECK(x.defined(), invalid_argument, "{}: given an undefined tensor", title());
  OCTET_CHECK(!x.is_quantized(), invalid_argument,
              "{}: given a {} tensor, which is quantized already; observe float values", title(),
              octet::to_string(x.dtype()));
  if (x.numel() == 0) return;
  observe_floats(x.dtype() == DType::float32 ? x : x.to(DType::float32));
}

void Observer::merge(const Observer& other) {
  OCTET_CHECK(class_type() == other.class_type(), invalid_argument,
              "{}: cannot merge a {}; the classes must be equal", title(), other.title());
  OCTET_CHECK(options_ == other.options_, invalid_argument,
              "{}: cannot merge an observer with other options: ({}), this one has ({})", title(),
              to_string(other.options_), to_string(options_));
  if (!other.empty()) merge_same(other);
}

Tensor Observer::min_val() const { return Tensor::scalar(std::numeric_limits<float>::infinity()); }
Tensor Observer::max_val() const { return Tensor::scalar(-std::numeric_limits<float>::infinity()); }

std::string Observer::extra_repr() const {
  return fmt::format("min_val={}, max_val={}", floats_text(min_val()), floats_text(max_val()));
}

std::string Observer::title() const {
  return label_.empty() ? type_name() : fmt::format("{} of '{}'", type_name(), label_);
}

void Observer::fail_not_calibrated() const {
  OCTET_FAIL(
      not_calibrated,
      "{} has seen no data; calibrate first: run the prepared model on representative inputs",
      title());
}

void Observer::fail_no_qparams() const {
  OCTET_FAIL(unsupported,
             "{} chooses no qparams; use an observer that does, such as HistogramObserver",
             title());
}

void Observer::fail_not_finite(const Tensor& x) const {
  std::vector<float> values = x.to_vector<float>();
  int64_t nan = 0, inf = 0;
  for (float v : values) {
    nan += std::isnan(v);
    inf += std::isinf(v);
  }
  OCTET_FAIL(invalid_argument,
             "{}: {} NaN and {} infinite among {} values (shape {}); a range cannot be chosen: "
             "find the layer or the input "
             "they come from",
             title(), nan, inf, values.size(), octet::to_string(x.shape()));
}

std::string to_string(const Observer& observer) {
  return fmt::format("{}({})", observer.type_name(), observer.extra_repr());
}

}  // namespace octet::quant
