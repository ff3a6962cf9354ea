#include "octet/quant/observe/factory.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <utility>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/nn/registry.h"
#include "octet/quant/observe/aciq.h"
#include "octet/quant/observe/calibrators.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/observe/histogram.h"
#include "octet/quant/observe/min_max.h"
#include "octet/quant/observe/passive.h"
#include "octet/quant/observe/per_channel_mse.h"

namespace octet::quant {
namespace {

// Where an observer's qparams come from.
enum class Source { data, data_per_channel, fixed, none };

// One row per observer class: adding an observer is adding its row.
struct ObserverClass {
  std::string name, short_name;
  Source source;
  std::function<ObserverOptions()> defaults;
  std::function<ObserverPtr(const ObserverOptions&, std::string label)> make;
  bool users_own = false;
};

template <typename T>
ObserverPtr make(const ObserverOptions& options, std::string label) {
  return nn::make<T>(options, std::move(label));
}

ObserverOptions plain() { return {}; }

// octet's own, then those of users.
std::list<ObserverClass>& classes() {
  static std::list<ObserverClass> all = {
      {"MinMaxObserver", "minmax", Source::data, plain, make<MinMaxObserver>},
      {"MovingAverageMinMaxObserver", "moving-average", Source::data, plain,
       make<MovingAverageMinMaxObserver>},
      {"HistogramObserver", "histogram", Source::data, plain, make<HistogramObserver>},
      {"PerChannelMinMaxObserver", "per-channel", Source::data_per_channel,
       PerChannelMinMaxObserver::default_options, make<PerChannelMinMaxObserver>},
      {"MovingAveragePerChannelMinMaxObserver", "moving-average-per-channel",
       Source::data_per_channel, PerChannelMinMaxObserver::default_options,
       make<MovingAveragePerChannelMinMaxObserver>},
      {"PerChannelMSEObserver", "per-channel-mse", Source::data_per_channel,
       PerChannelMinMaxObserver::default_options, make<PerChannelMSEObserver>},
      {"EntropyObserver", "entropy", Source::data, plain, make<EntropyObserver>},
      {"PercentileObserver", "percentile", Source::data, plain, make<PercentileObserver>},
      {"MSEObserver", "mse", Source::data, plain, make<MSEObserver>},
      {"ACIQObserver", "aciq", Source::data, plain, make<ACIQObserver>},
      {"FixedQParamsObserver", "fixed", Source::fixed, plain, make<FixedQParamsObserver>},
      {"PlaceholderObserver", "placeholder", Source::none, PlaceholderObserver::default_options,
       make<PlaceholderObserver>},
      {"NoopObserver", "noop", Source::none, NoopObserver::default_options, make<NoopObserver>},
      {"RecordingObserver", "recording", Source::none, plain, make<RecordingObserver>},
      {"ReuseInputObserver", "reuse-input", Source::none, plain, make<ReuseInputObserver>},
      {"Identity", "identity", Source::none, IdentityObserver::default_options,
       make<IdentityObserver>},
  };
  return all;
}
std::mutex g_classes_mutex;

// The classes as nn::make_registered knows them, for models that are saved whole.
template <typename... T>
bool register_all() {
  (nn::register_module(typeid(T),
                       [](const Attrs& config) -> nn::ModulePtr {
                         Attrs options = config;
                         options.erase("label");
                         return nn::make<T>(options_from(options), config.has("label")
                                                                       ? config.get_string("label")
                                                                       : std::string());
                       }),
   ...);
  return true;
}
[[maybe_unused]] const bool g_factory_registered =
    register_all<MinMaxObserver, MovingAverageMinMaxObserver, HistogramObserver,
                 PerChannelMinMaxObserver, MovingAveragePerChannelMinMaxObserver,
                 PerChannelMSEObserver, EntropyObserver, PercentileObserver, MSEObserver,
                 ACIQObserver, FixedQParamsObserver, PlaceholderObserver, NoopObserver,
                 RecordingObserver, ReuseInputObserver, IdentityObserver>();

template <typename Pick>
std::vector<std::string> names_of(Pick pick) {
  std::vector<std::string> names;
  std::lock_guard lock(g_classes_mutex);
  for (const ObserverClass& c : classes())
    if (std::string name = pick(c); !name.empty()) names.push_back(name);
  return names;
}

const ObserverClass& find_class(std::string_view name) {
  {
    std::lock_guard lock(g_classes_mutex);
    for (const ObserverClass& c : classes())
      if (name == c.name || (!c.short_name.empty() && name == c.short_name)) return c;
  }
  std::vector<std::string> known = observer_short_names(),
                           all = names_of([](const ObserverClass&c) { return c.name; });
  all.insert(all.end(), known.begin(), known.end());
  OCTET_FAIL(not_found, "unknown observer '{}'{} (known: {}; or PyTorch's names: {})", name,
             did_you_mean(name, all), fmt::join(known, ", "), fmt::join(observer_names(), ", "));
}

// A changed copy of a factory.
template <typename Change>
ObserverFactory changed(const ObserverFactory& factory, Change change) {
  ObserverOptions options = factory.options();
  change(options);
  return factory.with_args(options);
}

}  // namespace

void detail::register_observer(
    const std::string& name, bool per_channel,
    std::function<ObserverPtr(const ObserverOptions&, std::string)> make) {
  ObserverOptions defaults;
  if (per_channel) defaults = PerChannelMinMaxObserver::default_options();
  std::lock_guard lock(g_classes_mutex);
  for (const ObserverClass& c : classes())
    OCTET_CHECK(c.name != name, invalid_argument,
                "OCTET_OBSERVER: there is an observer named {} already", name);
  classes().push_back({name, "", per_channel ? Source::data_per_channel : Source::data,
                       [defaults] { return defaults; }, std::move(make), true});
}

ObserverPtr make_observer(std::string_view name, const ObserverOptions& options,
                          std::string label) {
  return find_class(name).make(options, std::move(label));
}

ObserverPtr make_observer(std::string_view name) {
  const ObserverClass& c = find_class(name);
  return c.make(c.defaults(), "");
}

std::vector<std::string> observer_names() {
  return names_of([](const ObserverClass& c) { return c.users_own ? std::string() : c.name; });
}

std::vector<std::string> observer_short_names() {
  return names_of([](const ObserverClass& c) { return c.short_name; });
}

std::vector<std::string> activation_observer_names() {
  return names_of([](const ObserverClass& c) {
    return c.source == Source::data ? c.short_name : std::string();
  });
}

ObserverFactory::ObserverFactory(std::string_view name)
    : ObserverFactory(name, find_class(name).defaults()) {}

ObserverFactory::ObserverFactory(std::string_view name, ObserverOptions options)
    : name_(find_class(name).name), options_(options) {}

ObserverFactory ObserverFactory::with_args(ObserverOptions options) const {
  ObserverFactory copy = *this;
  copy.options_ = options;
  return copy;
}

ObserverFactory ObserverFactory::with_dtype(DType dtype) const {
  return changed(*this, [&](ObserverOptions& o) { o.dtype = dtype; });
}

ObserverFactory ObserverFactory::with_qscheme(ObserverScheme qscheme) const {
  return changed(*this, [&](ObserverOptions& o) { o.qscheme = qscheme; });
}

ObserverFactory ObserverFactory::with_quant_range(int64_t quant_min, int64_t quant_max) const {
  return changed(*this, [&](ObserverOptions& o) {
    o.quant_min = quant_min;
    o.quant_max = quant_max;
  });
}

ObserverFactory ObserverFactory::with_reduce_range(bool reduce_range) const {
  return changed(*this, [&](ObserverOptions& o) { o.reduce_range = reduce_range; });
}

ObserverFactory ObserverFactory::with_eps(double eps) const {
  return changed(*this, [&](ObserverOptions& o) { o.eps = eps; });
}

ObserverFactory ObserverFactory::with_ch_axis(int64_t ch_axis) const {
  return changed(*this, [&](ObserverOptions& o) { o.ch_axis = ch_axis; });
}

ObserverFactory ObserverFactory::with_averaging_constant(double averaging_constant) const {
  return changed(*this, [&](ObserverOptions& o) { o.averaging_constant = averaging_constant; });
}

ObserverFactory ObserverFactory::with_bins(int64_t bins) const {
  return changed(*this, [&](ObserverOptions& o) { o.bins = bins; });
}

ObserverFactory ObserverFactory::with_percentile(double percentile) const {
  return changed(*this, [&](ObserverOptions& o) { o.percentile = percentile; });
}

ObserverFactory ObserverFactory::with_own_averages(bool own_averages) const {
  return changed(*this, [&](ObserverOptions& o) { o.own_averages = own_averages; });
}

ObserverFactory ObserverFactory::with_is_dynamic(bool is_dynamic) const {
  return changed(*this, [&](ObserverOptions& o) { o.is_dynamic = is_dynamic; });
}

ObserverFactory ObserverFactory::with_fixed_qparams(double scale, int64_t zero_point) const {
  return changed(*this, [&](ObserverOptions& o) {
    o.scale = scale;
    o.zero_point = zero_point;
  });
}

ObserverFactory ObserverFactory::fake_quantize(std::string_view name) const {
  static const std::vector<std::string> known = {"FakeQuantize", "FixedQParamsFakeQuantize",
                                                 "FusedMovingAvgObsFakeQuantize",
                                                 "LearnableFakeQuantize"};
  OCTET_CHECK(std::find(known.begin(), known.end(), name) != known.end(), not_found,
              "unknown fake-quantize class '{}'{} (known: {})", name, did_you_mean(name, known),
              fmt::join(known, ", "));
  OCTET_CHECK(chooses_qparams(), invalid_argument,
              "{}: needs an observer that chooses qparams, got {}", name, to_string(*this));
  OCTET_CHECK(
      (name == "FixedQParamsFakeQuantize") == (name_ == "FixedQParamsObserver"), invalid_argument,
      "{}: its observer is {}; FixedQParamsObserver and FixedQParamsFakeQuantize go together", name,
      name_);
  OCTET_CHECK(name != "FusedMovingAvgObsFakeQuantize" || name_.starts_with("MovingAverage"),
              invalid_argument,
              "{}: its observer is {}; expected MovingAverageMinMaxObserver or "
              "MovingAveragePerChannelMinMaxObserver",
              name, name_);
  ObserverFactory copy = *this;
  copy.fake_quantize_ = name;
  return copy;
}

ObserverFactory ObserverFactory::with_grad_scaling(bool use_grad_scaling) const {
  ObserverFactory copy = *this;
  copy.grad_scaling_ = use_grad_scaling;
  return copy;
}

ObserverFactory ObserverFactory::without_fake_quantize() const {
  ObserverFactory copy = *this;
  copy.fake_quantize_.clear();
  copy.grad_scaling_ = false;
  return copy;
}

nn::ModulePtr ObserverFactory::make_module(const std::string& label) const {
  if (fake_quantize_ == "FakeQuantize") return nn::make<FakeQuantize>(*this, label);
  if (fake_quantize_ == "FixedQParamsFakeQuantize")
    return nn::make<FixedQParamsFakeQuantize>(*this, label);
  if (fake_quantize_ == "FusedMovingAvgObsFakeQuantize")
    return nn::make<FusedMovingAvgObsFakeQuantize>(*this, label);
  if (fake_quantize_ == "LearnableFakeQuantize")
    return nn::make<LearnableFakeQuantize>(*this, label, grad_scaling_);
  return make(label);
}

ObserverPtr ObserverFactory::make(std::string label) const {
  OCTET_CHECK(!name_.empty(), invalid_argument,
              "{}: asked for an observer, but its qconfig has none",
              label.empty() ? "ObserverFactory" : label);
  return find_class(name_).make(options_, std::move(label));
}

bool ObserverFactory::chooses_qparams() const {
  return *this && find_class(name_).source != Source::none;
}

std::string to_string(const ObserverFactory& factory) {
  if (!factory) return "None";
  std::string options = to_string(factory.options());
  if (factory.fake_quantize_name().empty()) return fmt::format("{}({})", factory.name(), options);
  return fmt::format("{}(observer={}{}{})", factory.fake_quantize_name(), factory.name(),
                     options.empty() ? "" : ", ", options);
}

}  // namespace octet::quant
