#pragma once
// QConfig: which observers watch a module's output and weight. PyTorch's names.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "octet/quant/observe/observer.h"

namespace octet::quant {

// A new observer by PyTorch's class name or its short name:
//   MinMaxObserver "minmax", MovingAverageMinMaxObserver "moving-average", HistogramObserver "histogram",
//   PerChannelMinMaxObserver "per-channel", MovingAveragePerChannelMinMaxObserver "moving-average-per-channel".
// Unknown name: Error listing the known ones and the nearest. Options the class cannot honour: Error (observer.h).
std::unique_ptr<Observer> make_observer(std::string_view name, const ObserverOptions& options, std::string label = "");
// With the class's default options (per-channel classes: per_channel_affine).
std::unique_ptr<Observer> make_observer(std::string_view name);
// The class names, in the order above; the short names, likewise.
std::vector<std::string> observer_names();
std::vector<std::string> observer_short_names();

// How to make an observer: a class and its options. A value: copy it, compare it. PyTorch's `Observer.with_args(...)`:
//   ObserverFactory("MinMaxObserver").with_dtype(DType::qint8).with_qscheme(ObserverScheme::per_tensor_symmetric)
// The with_* return a changed copy.
class ObserverFactory {
 public:
  // No observer: the tensor stays float (PyTorch's None).
  ObserverFactory() = default;
  // Class or short name, as make_observer takes it (Error), with the class's default options or those given.
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
  ObserverFactory with_args(ObserverOptions options) const;  // all of them

  // A new observer of the tensor called `label`. Error if there is none to make, or if the class cannot honour the
  // options.
  std::unique_ptr<Observer> make(std::string label = "") const;

  explicit operator bool() const { return !name_.empty(); }
  const std::string& name() const { return name_; }  // PyTorch's class name; "" for none
  const ObserverOptions& options() const { return options_; }
  bool operator==(const ObserverFactory&) const = default;

 private:
  std::string name_;
  ObserverOptions options_;
};

// "HistogramObserver(reduce_range=true)", "None".
std::string to_string(const ObserverFactory& factory);

// What to observe a module with. Either may be none.
struct QConfig {
  ObserverFactory activation;
  ObserverFactory weight;
  bool operator==(const QConfig&) const = default;
};

// "QConfig(activation=HistogramObserver(), weight=PerChannelMinMaxObserver(dtype=qint8, ...))".
std::string to_string(const QConfig& qconfig);

// The configurations users know (docs/numerics.md "Defaults"):
//   native                      Histogram quint8 affine          per-channel symmetric qint8, -127..127
//   fbgemm, x86                 the same with reduce_range       per-channel symmetric qint8
//   onednn                      Histogram quint8 affine          per-channel symmetric qint8
//   qnnpack                     Histogram quint8 affine          per-tensor symmetric qint8
//   default_qconfig             MinMax quint8 affine, 0..127     per-tensor symmetric qint8
//   default_per_channel_qconfig MinMax quint8 affine, 0..127     per-channel symmetric qint8
// An unknown name is an Error listing these and the nearest (PyTorch silently hands back default_qconfig).
QConfig get_default_qconfig(std::string_view name = "native");
std::vector<std::string> qconfig_names();

// PyTorch's module-level names.
QConfig default_qconfig();
QConfig default_per_channel_qconfig();
ObserverFactory default_observer();                     // MinMax, codes 0..127
ObserverFactory default_histogram_observer();           // Histogram, codes 0..127
ObserverFactory default_weight_observer();              // MinMax qint8, symmetric
ObserverFactory default_per_channel_weight_observer();  // PerChannelMinMax qint8, symmetric

}  // namespace octet::quant
