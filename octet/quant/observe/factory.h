#pragma once
// Making observers by name, and ObserverFactory: how to make one, as a value.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "octet/nn/registry.h"
#include "octet/quant/observe/observer.h"

namespace octet::quant {

// A new observer by PyTorch's class name or its short name:
//  MinMaxObserver "minmax", MovingAverageMinMaxObserver "moving-average",
//  HistogramObserver "histogram", PerChannelMinMaxObserver "per-channel",
//  MovingAveragePerChannelMinMaxObserver "moving-average-per-channel",
//  PerChannelMSEObserver "per-channel-mse" (per_channel_mse.h),
//  EntropyObserver "entropy", PercentileObserver "percentile", MSEObserver "mse" (calibrators.h),
//  FixedQParamsObserver "fixed", PlaceholderObserver "placeholder", NoopObserver "noop",
//  RecordingObserver "recording", ReuseInputObserver "reuse-input",
//  Identity "identity" (passive.h).
// Unknown name: Error listing the known ones and the nearest. Options the class cannot honour:
// Error (observer.h).
ObserverPtr make_observer(std::string_view name, const ObserverOptions& options,
                          std::string label = "");
// With the class's default options (per-channel classes: per_channel_affine). FixedQParamsObserver
// has none (Error).
ObserverPtr make_observer(std::string_view name);
// octet's class names, in the order above; the short names, likewise.
std::vector<std::string> observer_names();
std::vector<std::string> observer_short_names();
// The short names of those that choose one scale per tensor from data, which is what activations
// need.
std::vector<std::string> activation_observer_names();

// A user's own observer: a class derived from Observer with a constructor (ObserverOptions,
// std::string label) is known by its name after
//   OCTET_OBSERVER(MyObserver)  // in a .cpp file, at namespace scope
// to ObserverFactory("MyObserver"), qconfigs and files. It observes a tensor as a whole, or
// channels if it has a member `static constexpr bool per_channel = true`.
#define OCTET_OBSERVER(Class)                                                                 \
  static const ::octet::quant::ObserverRegistration<Class> OCTET_MODULE_JOIN(octet_observer_, \
                                                                             __COUNTER__)(#Class);

namespace detail {
void register_observer(const std::string& name, bool per_channel,
                       std::function<ObserverPtr(const ObserverOptions&, std::string)> make);
}
template <typename T>
struct ObserverRegistration {
  explicit ObserverRegistration(const char* name) {
    bool per_channel = false;
    if constexpr (requires { T::per_channel; }) per_channel = T::per_channel;
    detail::register_observer(name, per_channel,
                              [](const ObserverOptions& options, std::string label) -> ObserverPtr {
                                return nn::make<T>(options, std::move(label));
                              });
    nn::register_module(typeid(T), [](const Attrs& config) -> nn::ModulePtr {
      Attrs options = config;
      options.erase("label");
      return nn::make<T>(options_from(options),
                         config.has("label") ? config.get_string("label") : std::string());
    });
  }
};

// How to make an observer, or a fake-quantize module with an observer inside: the class and its
// options. A value: copy it, compare it. PyTorch's `Observer.with_args(...)` and
// `FakeQuantize.with_args(observer=..., ...)`:
//   auto weights = quant::ObserverFactory("MinMaxObserver")
//                      .with_dtype(DType::qint8)
//                      .with_qscheme(quant::ObserverScheme::per_tensor_symmetric);
//   auto fake = quant::ObserverFactory("MovingAverageMinMaxObserver")
//                   .with_quant_range(0, 255)
//                   .fake_quantize();
// The with_* return a changed copy.
class ObserverFactory {
 public:
  // No observer: the tensor stays float (PyTorch's None).
  ObserverFactory() = default;
  // Class or short name, as make_observer takes it (Error), with the class's default options or
  // those given.
  explicit ObserverFactory(std::string_view name);
  ObserverFactory(std::string_view name, ObserverOptions options);

  ObserverFactory with_dtype(DType dtype) const;
  ObserverFactory with_qscheme(ObserverScheme qscheme) const;
  ObserverFactory with_quant_range(int64_t quant_min, int64_t quant_max) const;
  ObserverFactory with_reduce_range(bool reduce_range) const;
  ObserverFactory with_eps(double eps) const;
  ObserverFactory with_ch_axis(int64_t ch_axis) const;
  ObserverFactory with_averaging_constant(double averaging_constant) const;
  ObserverFactory with_bins(int64_t bins) const;
  ObserverFactory with_percentile(double percentile) const;
  ObserverFactory with_own_averages(bool own_averages) const;
  ObserverFactory with_is_dynamic(bool is_dynamic) const;
  ObserverFactory with_fixed_qparams(double scale, int64_t zero_point) const;
  ObserverFactory with_args(ObserverOptions options) const;  // all of them

  // The same observer inside a fake-quantize module: FakeQuantize, FixedQParamsFakeQuantize
  // (FixedQParamsObserver only), FusedMovingAvgObsFakeQuantize (MovingAverage... observers only) or
  // LearnableFakeQuantize. Error for other names, for an observer that the class cannot use, and
  // for one that chooses no qparams.
  ObserverFactory fake_quantize(std::string_view name = "FakeQuantize") const;
  // LearnableFakeQuantize's use_grad_scaling.
  ObserverFactory with_grad_scaling(bool use_grad_scaling) const;
  // Without the fake-quantize module.
  ObserverFactory without_fake_quantize() const;

  // A new observer of the tensor called `label` (of a fake-quantize factory: the one inside). Error
  // if there is none to make, or if the class cannot honour the options.
  ObserverPtr make(std::string label = "") const;
  // What a QConfig puts into a model: a new observer, or a new fake-quantize module
  // (fake_quantize.h). Errors as make().
  nn::ModulePtr make_module(const std::string& label = "") const;

  explicit operator bool() const { return !name_.empty(); }
  // the observer's class, by PyTorch's name; "" for none
  const std::string& name() const { return name_; }
  // "" for a plain observer
  const std::string& fake_quantize_name() const { return fake_quantize_; }
  bool grad_scaling() const { return grad_scaling_; }
  const ObserverOptions& options() const { return options_; }
  // Does the observer choose qparams (Observer::chooses_qparams)? False for none.
  bool chooses_qparams() const;
  bool operator==(const ObserverFactory&) const = default;

 private:
  std::string name_, fake_quantize_;
  bool grad_scaling_ = false;
  ObserverOptions options_;
};

// "HistogramObserver(reduce_range=true)", "FakeQuantize(observer=MinMaxObserver, dtype=qint8)",
// "None".
std::string to_string(const ObserverFactory& factory);

}  // namespace octet::quant
