#include "octet/quant/backend/backend_config.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"
#include "octet/quant/modules/qparams.h"

namespace octet::quant {

// -- dtypes ---------------------------------------------------------------------------------------

namespace {

// The dtype that no dtype stands for.
DType dtype_or_float(const DTypeWithConstraints& d) { return d.dtype.value_or(DType::float32); }

// Are qparams taken anew from each batch?
bool each_batch(const ObserverFactory& f) {
  const ObserverOptions& o = f.options();
  if (o.is_dynamic || (f.name() == "PlaceholderObserver" && is_quantized(o.dtype))) return true;
  return !f.fake_quantize_name().empty() && o.averaging_constant == 1;
}

bool reuses_input(const ObserverFactory& f) { return f.name() == "ReuseInputObserver"; }

// The dtype of what an observer stands for.
DType observed_dtype(const ObserverFactory& f) {
  if (!f || f.name() == "Identity" || f.name() == "NoopObserver") return DType::float32;
  return f.options().dtype;
}

bool fail_check(std::string* why, std::string reason) {
  if (why) *why = std::move(reason);
  return false;
}

// The zero point that an observer always chooses; nullopt: it depends on the data.
std::optional<int64_t> known_zero_point(const ObserverFactory& f) {
  const ObserverOptions& o = f.options();
  if (o.zero_point) return o.zero_point;
  if (!is_symmetric(o.qscheme)) return std::nullopt;
  return choose_qparams(-1, 1, o).zero_point;
}

bool check_scale(double scale, const std::string& what, const DTypeWithConstraints& c,
                 std::string* why) {
  if (c.scale_min_lower_bound && scale < *c.scale_min_lower_bound)
    return fail_check(why, fmt::format("{} {}; the backend takes scales of {} and more", what,
                                       scale, *c.scale_min_lower_bound));
  if (c.scale_max_upper_bound && scale > *c.scale_max_upper_bound)
    return fail_check(why, fmt::format("{} {}; the backend takes scales of {} and less", what,
                                       scale, *c.scale_max_upper_bound));
  if (c.scale_exact_match && scale != *c.scale_exact_match)
    return fail_check(
        why, fmt::format("{} {}; the backend takes {}", what, scale, *c.scale_exact_match));
  return true;
}

bool check_codes(int64_t quant_min, int64_t quant_max, const std::string& who,
                 const DTypeWithConstraints& c, std::string* why) {
  bool fits = (!c.quant_min_lower_bound || quant_min >= *c.quant_min_lower_bound) &&
              (!c.quant_max_upper_bound || quant_max <= *c.quant_max_upper_bound);
  if (fits) return true;
  auto bound = [](const std::optional<int64_t>& b) {
    return b ? std::to_string(*b) : std::string();
  };
  return fail_check(
      why, fmt::format("{} codes {}..{}; the backend takes {}..{}", who, quant_min, quant_max,
                       bound(c.quant_min_lower_bound), bound(c.quant_max_upper_bound)));
}

// What an observer is known to choose before it has seen data.
bool check_observer(const ObserverFactory& f, const std::string& who, const DTypeWithConstraints& c,
                    std::string* why) {
  if (DTypeWithConstraints{.dtype = c.dtype} == c) return true;
  if (!f.chooses_qparams())
    return fail_check(
        why, fmt::format("{} {} chooses no qparams; the backend restricts them", who, f.name()));
  const ObserverOptions& o = f.options();
  CodeRange codes = code_range(o);
  if (!check_codes(codes.quant_min, codes.quant_max, who, c, why)) return false;
  if (o.scale) {
    if (!check_scale(*o.scale, who + " scale", c, why)) return false;
  } else if (c.scale_exact_match) {
    return fail_check(why, fmt::format("{} scale is chosen from data; the backend takes {}", who,
                                       *c.scale_exact_match));
  } else if (c.scale_min_lower_bound && o.eps < *c.scale_min_lower_bound) {
    return fail_check(why, fmt::format("{} eps {}; the backend takes scales of {} and more", who,
                                       o.eps, *c.scale_min_lower_bound));
  }
  if (!c.zero_point_exact_match) return true;
  std::optional<int64_t> zero = known_zero_point(f);
  if (!zero)
    return fail_check(
        why,
        fmt::format(
            "{} {} chooses its zero point from data; the backend takes {}: use a symmetric qscheme",
            who, to_string(o.qscheme), *c.zero_point_exact_match));
  if (*zero != *c.zero_point_exact_match)
    return fail_check(why, fmt::format("{} zero point {}; the backend takes {}", who, *zero,
                                       *c.zero_point_exact_match));
  return true;
}

bool check_dtype(DType got, DType expected, const std::string& who, std::string* why) {
  if (got == expected) return true;
  return fail_check(why, fmt::format("{} dtype {}; the backend takes {}", who,
                                     octet::to_string(got), octet::to_string(expected)));
}

}  // namespace

const char* to_string(QuantMode mode) {
  switch (mode) {
    case QuantMode::statically:
      return "static";
    case QuantMode::dynamically:
      return "dynamic";
    case QuantMode::weight_only:
      return "weight-only";
  }
  return "?";
}

QuantMode mode_of(const DTypeConfig& c) {
  if (c.is_dynamic) return QuantMode::dynamically;
  bool weights = c.weight_dtype.dtype && *c.weight_dtype.dtype != DType::float32;
  return weights && dtype_or_float(c.input_dtype) == DType::float32 ? QuantMode::weight_only
                                                                    : QuantMode::statically;
}

std::optional<QuantMode> mode_of(const QConfig& q) {
  if (activation_dtype(q) != DType::float32)
    return each_batch(q.activation) ? QuantMode::dynamically : QuantMode::statically;
  if (weight_dtype(q) != DType::float32) return QuantMode::weight_only;
  return std::nullopt;
}

DType activation_dtype(const QConfig& q) { return observed_dtype(q.activation); }
DType weight_dtype(const QConfig& q) { return observed_dtype(q.weight); }

bool check(const QConfig& q, const DTypeConfig& c, std::string* why) {
  DType input = dtype_or_float(c.input_dtype), output = dtype_or_float(c.output_dtype),
        activation = activation_dtype(q);
  if (!reuses_input(q.activation)) {
    if (!check_dtype(activation, input, "activation", why)) return false;
    if (activation != DType::float32 && each_batch(q.activation) != c.is_dynamic)
      return fail_check(
          why,
          c.is_dynamic
              ? "activations with qparams from calibration; the backend quantizes them at run time"
              : "activations quantized at run time; the backend takes qparams from calibration");
    if (!check_observer(q.activation, "activation", c.input_dtype, why)) return false;
    bool fits = c.is_dynamic || (check_dtype(activation, output, "result", why) &&
                                 check_observer(q.activation, "result", c.output_dtype, why));
    if (!fits) return false;
  }
  if (c.weight_dtype.dtype) {
    DType weight = weight_dtype(q);
    if (!check_dtype(weight, *c.weight_dtype.dtype, "weight", why)) return false;
    if (weight != DType::float32 && !check_observer(q.weight, "weight", c.weight_dtype, why))
      return false;
  }
  // A bias is float but where all of the layer is float16.
  DType bias = activation == DType::float16 && weight_dtype(q) == DType::float16 && !c.is_dynamic
                   ? DType::float16
                   : DType::float32;
  return !c.bias_dtype || check_dtype(bias, *c.bias_dtype, "bias", why);
}

namespace {

ObserverFactory fitted(const ObserverFactory& f, const DTypeWithConstraints& c) {
  ObserverOptions o = f.options();
  if (c.dtype && o.dtype != *c.dtype) {
    o.dtype = *c.dtype;
    o.quant_min = o.quant_max = std::nullopt;
  }
  if (c.zero_point_exact_match)
    o.qscheme = is_per_channel(o.qscheme) ? ObserverScheme::per_channel_symmetric
                                          : ObserverScheme::per_tensor_symmetric;
  const CodeRange codes = code_range(o);
  const int64_t low = std::max(codes.quant_min, c.quant_min_lower_bound.value_or(codes.quant_min)),
                high = std::min(codes.quant_max, c.quant_max_upper_bound.value_or(codes.quant_max));
  if (low != codes.quant_min || high != codes.quant_max) o.quant_min = low, o.quant_max = high;
  o.eps = std::max(o.eps, c.scale_min_lower_bound.value_or(o.eps));
  return f.with_args(o);
}

}  // namespace

QConfig fitting_qconfig(const QConfig& qconfig, const BackendConfig& backend) {
  if (mode_of(qconfig) != QuantMode::statically || !qconfig.weight) return qconfig;
  std::vector<DTypeConfig> layers;
  for (const BackendPatternConfig& pattern : backend.configs())
    for (const DTypeConfig& c : pattern.dtype_configs)
      if (c.weight_dtype.dtype && mode_of(c) == QuantMode::statically) layers.push_back(c);
  for (const DTypeConfig& c : layers)
    if (check(qconfig, c)) return qconfig;
  for (const DTypeConfig& c : layers) {
    const QConfig changed{fitted(qconfig.activation, c.input_dtype),
                          fitted(qconfig.weight, c.weight_dtype)};
    if (check(changed, c)) return changed;
  }
  return qconfig;
}

bool satisfies(const QParams& q, const DTypeWithConstraints& c, std::string* why) {
  if (c.dtype && !check_dtype(q.dtype, *c.dtype, "qparams:", why)) return false;
  if (!check_codes(q.quant_min, q.quant_max, "qparams:", c, why)) return false;
  for (double scale : q.scales)
    if (!check_scale(scale, "scale", c, why)) return false;
  for (double zero : q.zero_points)
    if (c.zero_point_exact_match && zero != static_cast<double>(*c.zero_point_exact_match))
      return fail_check(
          why, fmt::format("zero point {}; the backend takes {}", zero, *c.zero_point_exact_match));
  return true;
}

// -- functions by name ----------------------------------------------------------------------------

namespace {

struct Functions {
  std::mutex mutex;
  std::map<std::type_index, Replacement> replacements;  // of users
  std::map<std::string, FuserMethod::Fuse, std::less<>> fusers;
};
Functions& functions() {
  static Functions f;
  return f;
}

// All that the native backend puts in place of other modules.
const std::map<std::type_index, Replacement>& own_replacements() {
  static const std::map<std::type_index, Replacement> own = [] {
    std::map<std::type_index, Replacement> all;
    const BackendConfig native = get_native_backend_config();
    for (const BackendPatternConfig& c : native.configs()) {
      for (const auto& r : {c.qat_module, c.reference_quantized_module})
        if (r) all.emplace(r->type(), *r);
      for (const auto& [mode, r] : c.quantized_modules) all.emplace(r.type(), r);
    }
    return all;
  }();
  return own;
}

std::optional<Replacement> find_replacement(std::type_index type) {
  {
    Functions& f = functions();
    std::lock_guard lock(f.mutex);
    if (auto it = f.replacements.find(type); it != f.replacements.end()) return it->second;
  }
  auto it = own_replacements().find(type);
  return it == own_replacements().end() ? std::nullopt : std::optional(it->second);
}

}  // namespace

namespace detail {

nn::ModulePtr with_result(nn::Module& module, const QParams* result,
                          nn::ModulePtr (*make)(nn::Module& module)) {
  if (!result) return make(module);
  OCTET_CHECK(result->scales.size() == 1, invalid_argument,
              "{}: its result has {} scales; results have one", module.type_name(),
              result->scales.size());
  ObserverOptions options{
      .dtype = result->dtype, .quant_min = result->quant_min, .quant_max = result->quant_max};
  options.scale = result->scales[0];
  options.zero_point = static_cast<int64_t>(result->zero_points[0]);
  nn::ModulePtr before = module.has_submodule(kActivationPostProcess)
                             ? module.submodule(kActivationPostProcess)
                             : nullptr;
  struct Restore {
    nn::Module& module;
    nn::ModulePtr before;
    ~Restore() {
      module.remove_child(kActivationPostProcess);
      if (before) module.add_child(kActivationPostProcess, before);
    }
  } restore{module, before};
  module.remove_child(kActivationPostProcess);
  module.add_child(kActivationPostProcess, make_observer("FixedQParamsObserver", options));
  return make(module);
}

}  // namespace detail

void register_replacement(const Replacement& replacement) {
  Functions& f = functions();
  std::lock_guard lock(f.mutex);
  OCTET_CHECK(f.replacements.emplace(replacement.type(), replacement).second, invalid_argument,
              "OCTET_REPLACEMENT: {} is registered twice",
              to_string(ObjectType(replacement.type())));
}

Replacement Replacement::named(std::string_view class_name) {
  ObjectType type(class_name);
  auto found = type.is_module() ? find_replacement(*type.type()) : std::nullopt;
  OCTET_CHECK(found, not_found,
              "nothing says how to make a {0} of another module: write OCTET_REPLACEMENT({0}) in "
              "its .cpp file",
              class_name);
  return *found;
}

std::string Replacement::name() const {
  std::string name = nn::registered_name(type_);
  OCTET_CHECK(by_class_, unsupported,
              "{0} is made by a function of its own, which has no name: give the class a "
              "from_float and write "
              "OCTET_REPLACEMENT({0}) in its .cpp file",
              name);
  OCTET_CHECK(
      find_replacement(type_), unsupported,
      "nothing says by name how to make a {0}: write OCTET_REPLACEMENT({0}) in its .cpp file",
      name);
  return name;
}

FuserMethod::FuserMethod(std::string_view name) : name_(name) {
  Functions& f = functions();
  {
    std::lock_guard lock(f.mutex);
    auto it = f.fusers.find(name);
    if (it != f.fusers.end()) fuse_ = std::make_shared<Fuse>(it->second);
  }
  OCTET_CHECK(fuse_, not_found, "there is no fuser method '{}'{} (known: {})", name,
              did_you_mean(name, fuser_method_names()), fmt::join(fuser_method_names(), ", "));
}

void register_fuser_method(const std::string& name, FuserMethod::Fuse fuse) {
  Functions& f = functions();
  std::lock_guard lock(f.mutex);
  OCTET_CHECK(!name.empty() && f.fusers.emplace(name, std::move(fuse)).second, invalid_argument,
              "register_fuser_method: the name '{}' is {}", name, name.empty() ? "empty" : "taken");
}

std::vector<std::string> fuser_method_names() {
  Functions& f = functions();
  std::lock_guard lock(f.mutex);
  std::vector<std::string> names;
  for (const auto& item : f.fusers) names.push_back(item.first);
  return names;
}

// -- patterns -------------------------------------------------------------------------------------

namespace {

struct NamedObservationType {
  const char* name;
  ObservationType type;
};
constexpr std::array<NamedObservationType, 3> kObservationTypes = {{
    {"output_use_different_observer_as_input",
     ObservationType::output_use_different_observer_as_input},
    {"output_share_observer_with_input", ObservationType::output_share_observer_with_input},
    {"input_output_not_observed", ObservationType::input_output_not_observed},
}};

}  // namespace

const char* to_string(ObservationType type) {
  for (const auto& named : kObservationTypes)
    if (named.type == type) return named.name;
  return "?";
}

ObservationType parse_observation_type(std::string_view name) {
  std::vector<std::string> known;
  for (const auto& named : kObservationTypes) {
    if (name == named.name) return named.type;
    known.push_back(named.name);
  }
  OCTET_FAIL(not_found, "unknown observation type '{}'{} (known: {})", name,
             did_you_mean(name, known), fmt::join(known, ", "));
}

BackendPatternConfig& BackendPatternConfig::set_observation_type(ObservationType type) {
  observation_type = type;
  return *this;
}
BackendPatternConfig& BackendPatternConfig::add_dtype_config(DTypeConfig config) {
  dtype_configs.push_back(config);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_dtype_configs(std::vector<DTypeConfig> configs) {
  dtype_configs = std::move(configs);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_qat_module(Replacement module) {
  qat_module = std::move(module);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_reference_quantized_module(Replacement module) {
  reference_quantized_module = std::move(module);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_fuser_method(FuserMethod method) {
  fuser_method = std::move(method);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_num_tensor_args_to_observation_type(
    std::map<int, ObservationType> types) {
  num_tensor_args_to_observation_type = std::move(types);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_input_type_to_index(
    std::map<std::string, int> indices) {
  input_type_to_index = std::move(indices);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_overwrite_output_observer(
    ObserverFactory observer) {
  overwrite_output_observer = std::move(observer);
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_quantized_module(QuantMode mode,
                                                                 Replacement module) {
  quantized_modules.insert_or_assign(mode, std::move(module));
  return *this;
}
BackendPatternConfig& BackendPatternConfig::set_quantized_op(QuantMode mode, const std::string& op,
                                                             Attrs attrs) {
  quantized_ops.insert_or_assign(mode, LoweredOp{ops::get(op).name(), std::move(attrs)});
  return *this;
}

const Replacement* BackendPatternConfig::quantized_module(QuantMode mode) const {
  auto it = quantized_modules.find(mode);
  return it == quantized_modules.end() ? nullptr : &it->second;
}
const LoweredOp* BackendPatternConfig::quantized_op(QuantMode mode) const {
  auto it = quantized_ops.find(mode);
  return it == quantized_ops.end() ? nullptr : &it->second;
}

ObservationType BackendPatternConfig::observation_type_of(int tensor_args) const {
  auto it = num_tensor_args_to_observation_type.find(tensor_args);
  return it == num_tensor_args_to_observation_type.end() ? observation_type : it->second;
}

const DTypeConfig* BackendPatternConfig::find_dtype_config(const QConfig& qconfig,
                                                           std::string* why) const {
  std::vector<std::string> reasons;
  for (const DTypeConfig& config : dtype_configs) {
    std::string reason;
    if (check(qconfig, config, &reason)) return &config;
    if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end())
      reasons.push_back(std::move(reason));
  }
  if (why && reasons.empty())
    *why = "the backend has no dtypes for " + to_string(pattern);
  else if (why)
    *why = fmt::format("{}", fmt::join(reasons, ", or "));
  return nullptr;
}

ObserverFactory result_observer(const BackendPatternConfig& config, const QConfig& qconfig) {
  const ObserverFactory& given = qconfig.activation;
  ObserverFactory fixed = config.overwrite_output_observer;
  if (!fixed || !given.chooses_qparams() || given.name() == "FixedQParamsObserver") return given;
  const ObserverOptions& o = fixed.options();
  DType dtype = given.options().dtype;
  if (o.scale && o.zero_point && dtype != o.dtype) {
    // The same range in the steps that the dtype has.
    const int64_t steps = is_16_bit(dtype) && is_8_bit(o.dtype) ? 256 : 1;
    fixed = fixed.with_dtype(dtype).with_fixed_qparams(
        *o.scale / static_cast<double>(steps),
        (*o.zero_point - qmin(o.dtype)) * steps + qmin(dtype));
  }
  return given.fake_quantize_name().empty() ? fixed
                                            : fixed.fake_quantize("FixedQParamsFakeQuantize");
}

// -- backends -------------------------------------------------------------------------------------

BackendConfig& BackendConfig::set_name(std::string name) {
  name_ = std::move(name);
  return *this;
}

BackendConfig& BackendConfig::set_backend_pattern_config(BackendPatternConfig config) {
  OCTET_CHECK(!config.pattern.empty(), invalid_argument,
              "backend {}: a pattern config needs a pattern", name_);
  if (BackendPatternConfig* known = find(config.pattern))
    *known = std::move(config);
  else
    configs_.push_back(std::move(config));
  return *this;
}

BackendConfig& BackendConfig::set_backend_pattern_configs(
    std::vector<BackendPatternConfig> configs) {
  for (BackendPatternConfig& config : configs) set_backend_pattern_config(std::move(config));
  return *this;
}

BackendConfig& BackendConfig::do_not_lower(std::type_index type) {
  size_t removed = 0;
  for (BackendPatternConfig& config : configs_) {
    bool reference =
        config.reference_quantized_module && config.reference_quantized_module->type() == type;
    bool itself = config.pattern.size() == 1 && config.pattern[0] == ObjectType(type);
    if (reference || itself) removed += config.quantized_modules.erase(QuantMode::statically);
  }
  OCTET_CHECK(removed > 0, not_found, "backend '{}': nothing is lowered from the class {}", name_,
              to_string(ObjectType(type)));
  return *this;
}

BackendConfig& BackendConfig::remove(const Pattern& pattern) {
  auto it = std::find_if(configs_.begin(), configs_.end(),
                         [&](const auto& c) { return c.pattern == pattern; });
  if (it != configs_.end()) {
    configs_.erase(it);
    return *this;
  }
  std::vector<std::string> near;
  for (const auto& c : configs_)
    if (!pattern.empty() && c.pattern[0] == pattern[0]) near.push_back(to_string(c.pattern));
  OCTET_FAIL(not_found, "backend {} has no pattern {}{}", name_, to_string(pattern),
             near.empty() ? "" : fmt::format(" (it has {})", fmt::join(near, ", ")));
}

std::vector<const BackendPatternConfig*> BackendConfig::by_length() const {
  std::vector<const BackendPatternConfig*> result;
  for (auto it = configs_.rbegin(); it != configs_.rend(); ++it) result.push_back(&*it);
  std::stable_sort(result.begin(), result.end(), [](const auto* a, const auto* b) {
    return a->pattern.size() > b->pattern.size();
  });
  return result;
}

const BackendPatternConfig* BackendConfig::find(const Pattern& pattern) const {
  for (const BackendPatternConfig& c : configs_)
    if (c.pattern == pattern) return &c;
  return nullptr;
}

BackendPatternConfig* BackendConfig::find(const Pattern& pattern) {
  return const_cast<BackendPatternConfig*>(static_cast<const BackendConfig*>(this)->find(pattern));
}

const BackendPatternConfig* BackendConfig::find_module(std::type_index type) const {
  return find(Pattern{type});
}

const BackendPatternConfig* BackendConfig::find_op(std::string_view op) const {
  for (const BackendPatternConfig& c : configs_)
    if (c.pattern.size() == 1 && !c.pattern[0].is_module() && c.pattern[0].op() == op) return &c;
  return nullptr;
}

}  // namespace octet::quant
