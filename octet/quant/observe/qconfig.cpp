#include "octet/quant/observe/qconfig.h"

#include <array>
#include <utility>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/quant/observe/histogram.h"
#include "octet/quant/observe/min_max.h"

namespace octet::quant {
namespace {

// One row per observer class: adding an observer is adding its row.
struct ObserverClass {
  const char* name;
  const char* short_name;
  ObserverOptions (*defaults)();
  std::unique_ptr<Observer> (*make)(const ObserverOptions&, std::string label);
};

template <typename T>
std::unique_ptr<Observer> make(const ObserverOptions& options, std::string label) {
  return std::make_unique<T>(options, std::move(label));
}

ObserverOptions plain() { return {}; }

constexpr std::array<ObserverClass, 5> kClasses = {{
    {"MinMaxObserver", "minmax", plain, make<MinMaxObserver>},
    {"MovingAverageMinMaxObserver", "moving-average", plain, make<MovingAverageMinMaxObserver>},
    {"HistogramObserver", "histogram", plain, make<HistogramObserver>},
    {"PerChannelMinMaxObserver", "per-channel", PerChannelMinMaxObserver::default_options,
     make<PerChannelMinMaxObserver>},
    {"MovingAveragePerChannelMinMaxObserver", "moving-average-per-channel", PerChannelMinMaxObserver::default_options,
     make<MovingAveragePerChannelMinMaxObserver>},
}};

const ObserverClass& find_class(std::string_view name) {
  for (const ObserverClass& c : kClasses)
    if (name == c.name || name == c.short_name) return c;
  std::vector<std::string> known = observer_short_names(), all = observer_names();
  all.insert(all.end(), known.begin(), known.end());
  OCTET_FAIL(not_found, "unknown observer '{}'{} (known: {}; or PyTorch's names: {})", name, did_you_mean(name, all),
             fmt::join(known, ", "), fmt::join(observer_names(), ", "));
}

ObserverFactory histogram() { return ObserverFactory("HistogramObserver"); }

ObserverFactory reduced_histogram() { return histogram().with_reduce_range(true); }

ObserverFactory native_weight_observer() { return default_per_channel_weight_observer().with_quant_range(-127, 127); }

struct NamedQConfig {
  const char* name;
  ObserverFactory (*activation)();
  ObserverFactory (*weight)();
};

constexpr std::array<NamedQConfig, 7> kQConfigs = {{
    {"native", histogram, native_weight_observer},
    {"fbgemm", reduced_histogram, default_per_channel_weight_observer},
    {"x86", reduced_histogram, default_per_channel_weight_observer},
    {"onednn", histogram, default_per_channel_weight_observer},
    {"qnnpack", histogram, default_weight_observer},
    {"default_qconfig", default_observer, default_weight_observer},
    {"default_per_channel_qconfig", default_observer, default_per_channel_weight_observer},
}};

}  // namespace

std::unique_ptr<Observer> make_observer(std::string_view name, const ObserverOptions& options, std::string label) {
  return find_class(name).make(options, std::move(label));
}

std::unique_ptr<Observer> make_observer(std::string_view name) {
  const ObserverClass& c = find_class(name);
  return c.make(c.defaults(), "");
}

std::vector<std::string> observer_names() {
  std::vector<std::string> names;
  for (const ObserverClass& c : kClasses) names.push_back(c.name);
  return names;
}

std::vector<std::string> observer_short_names() {
  std::vector<std::string> names;
  for (const ObserverClass& c : kClasses) names.push_back(c.short_name);
  return names;
}

// -- ObserverFactory -----------------------------------------------------------------------------------
ObserverFactory::ObserverFactory(std::string_view name)
    : name_(find_class(name).name), options_(find_class(name).defaults()) {}

ObserverFactory::ObserverFactory(std::string_view name, ObserverOptions options)
    : name_(find_class(name).name), options_(std::move(options)) {}

ObserverFactory ObserverFactory::with_args(ObserverOptions options) const {
  ObserverFactory copy = *this;
  copy.options_ = std::move(options);
  return copy;
}

ObserverFactory ObserverFactory::with_dtype(DType dtype) const {
  ObserverFactory copy = *this;
  copy.options_.dtype = dtype;
  return copy;
}

ObserverFactory ObserverFactory::with_qscheme(ObserverScheme qscheme) const {
  ObserverFactory copy = *this;
  copy.options_.qscheme = qscheme;
  return copy;
}

ObserverFactory ObserverFactory::with_quant_range(int64_t quant_min, int64_t quant_max) const {
  ObserverFactory copy = *this;
  copy.options_.quant_min = quant_min;
  copy.options_.quant_max = quant_max;
  return copy;
}

ObserverFactory ObserverFactory::with_reduce_range(bool reduce_range) const {
  ObserverFactory copy = *this;
  copy.options_.reduce_range = reduce_range;
  return copy;
}

ObserverFactory ObserverFactory::with_eps(double eps) const {
  ObserverFactory copy = *this;
  copy.options_.eps = eps;
  return copy;
}

ObserverFactory ObserverFactory::with_ch_axis(int64_t ch_axis) const {
  ObserverFactory copy = *this;
  copy.options_.ch_axis = ch_axis;
  return copy;
}

ObserverFactory ObserverFactory::with_averaging_constant(double averaging_constant) const {
  ObserverFactory copy = *this;
  copy.options_.averaging_constant = averaging_constant;
  return copy;
}

ObserverFactory ObserverFactory::with_bins(int64_t bins) const {
  ObserverFactory copy = *this;
  copy.options_.bins = bins;
  return copy;
}

std::unique_ptr<Observer> ObserverFactory::make(std::string label) const {
  OCTET_CHECK(!name_.empty(), invalid_argument, "{}: asked for an observer, but its qconfig has none",
              label.empty() ? "ObserverFactory" : label);
  return find_class(name_).make(options_, std::move(label));
}

std::string to_string(const ObserverFactory& factory) {
  return factory ? fmt::format("{}({})", factory.name(), to_string(factory.options())) : "None";
}

// -- QConfig -------------------------------------------------------------------------------------------
std::string to_string(const QConfig& qconfig) {
  return fmt::format("QConfig(activation={}, weight={})", to_string(qconfig.activation), to_string(qconfig.weight));
}

ObserverFactory default_observer() { return ObserverFactory("MinMaxObserver").with_quant_range(0, 127); }

ObserverFactory default_histogram_observer() { return histogram().with_quant_range(0, 127); }

ObserverFactory default_weight_observer() {
  return ObserverFactory("MinMaxObserver").with_dtype(DType::qint8).with_qscheme(ObserverScheme::per_tensor_symmetric);
}

ObserverFactory default_per_channel_weight_observer() {
  return ObserverFactory("PerChannelMinMaxObserver")
      .with_dtype(DType::qint8)
      .with_qscheme(ObserverScheme::per_channel_symmetric);
}

QConfig default_qconfig() { return {default_observer(), default_weight_observer()}; }

QConfig default_per_channel_qconfig() { return {default_observer(), default_per_channel_weight_observer()}; }

QConfig get_default_qconfig(std::string_view name) {
  for (const NamedQConfig& q : kQConfigs)
    if (name == q.name) return {q.activation(), q.weight()};
  OCTET_FAIL(not_found, "unknown qconfig '{}'{} (known: {})", name, did_you_mean(name, qconfig_names()),
             fmt::join(qconfig_names(), ", "));
}

std::vector<std::string> qconfig_names() {
  std::vector<std::string> names;
  for (const NamedQConfig& q : kQConfigs) names.push_back(q.name);
  return names;
}

}  // namespace octet::quant
