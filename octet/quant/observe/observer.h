#pragma once
// Observers watch the tensors of a model during calibration and choose qparams (scale and zero
// point) for them.
//
//   quant::HistogramObserver observer({.dtype = DType::quint8}, "conv1");
//   for (const Tensor& batch : data) observer.observe(batch);
//   quant::QParams qparams = observer.calculate_qparams();
//   Tensor q = quantize(x, qparams.quantizer, qparams.dtype);
//
// Names and meanings are PyTorch's (torch.ao.quantization.observer); the arithmetic is
// docs/numerics.md's, in float32. Observers are modules: forward(x) observes x and returns it, and
// state_dict holds all they have seen, so that a prepared model that is saved and loaded again goes
// on calibrating where it was. An observer is not thread-safe: let each thread fill its own and
// merge() them, which loses nothing.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/error.h"
#include "octet/nn/module.h"
#include "octet/tensor/tensor.h"

namespace octet::quant {

// PyTorch's qschemes. Symmetric puts the zero point in the middle of the codes (0 for qint8, 128
// for quint8). Float qparams, for embeddings, keep the zero point as a float and do not widen the
// range to 0.
enum class ObserverScheme {
  per_tensor_affine,
  per_tensor_symmetric,
  per_channel_affine,
  per_channel_symmetric,
  per_channel_affine_float_qparams,
};

// "per_tensor_affine", ... and back; an unknown name is an Error listing the known ones.
const char* to_string(ObserverScheme scheme);
ObserverScheme parse_observer_scheme(std::string_view name);
bool is_per_channel(ObserverScheme scheme);
bool is_symmetric(ObserverScheme scheme);
bool is_float_qparams(ObserverScheme scheme);

// The arguments of PyTorch's observers, with its defaults, and those of the observers beyond it.
struct ObserverOptions {
  // Of the quantized tensor: quint8, qint8, quint16, qint16, qint32 or (float qparams) quint4x2.
  // Observers that choose no qparams (passive.h) take any.
  DType dtype = DType::quint8;
  ObserverScheme qscheme = ObserverScheme::per_tensor_affine;
  // The codes to use, inclusive, within the dtype's and holding 0; both or neither. Default: all
  // the dtype has.
  std::optional<int64_t> quant_min = {}, quant_max = {};
  // one bit less: quint8 0..127, qint8 -64..63; given codes are halved, rounding down
  bool reduce_range = false;
  double eps = 0x1p-23;  // the smallest scale; a float32 >= 2^-126
  // per-channel schemes: the channels' dimension, counted from the front
  int64_t ch_axis = 0;
  double averaging_constant = 0.01;  // moving averages: the weight of a new batch, in (0, 1]
  // histograms: at least so many bins over the data's range, 16..65536
  int64_t bins = 2048;
  // PercentileObserver: so much of the data, in percent, lies in the range, (0, 100]
  double percentile = 99.99;
  // Of a QConfig's activations: the result of an average (adaptive_avg_pool, mean) has qparams of
  // its own, chosen from its values; in eager mode that of a module (nn::AdaptiveAvgPool*d).
  // Without it the result shares its operand's, as in PyTorch, whose step is coarse for it:
  // averages of a whole image vary less.
  bool own_averages = false;
  // PlaceholderObserver: qparams are chosen for each batch at run time
  bool is_dynamic = false;
  // FixedQParamsObserver: its qparams; both needed there, none elsewhere
  std::optional<double> scale = {};
  std::optional<int64_t> zero_point = {};

  bool operator==(const ObserverOptions&) const = default;
};

// Only what differs from the defaults: "dtype=qint8, qscheme=per_channel_symmetric, quant_min=-127,
// quant_max=127".
std::string to_string(const ObserverOptions& options);

// What can be known to be wrong before any data is seen by an observer that chooses qparams: Error
// naming `who` and the option.
void validate(const ObserverOptions& options, const std::string& who);

// The codes in use after quant_min, quant_max and reduce_range (PyTorch's calculate_qmin_qmax).
struct CodeRange {
  int64_t quant_min, quant_max;
  bool operator==(const CodeRange&) const = default;
};
CodeRange code_range(const ObserverOptions& options);
// The codes that such a quantizer clamps to when it runs: reduce_range makes the scale one for half
// as many codes (which kernels that saturate at 16 bits asked for), but quantized operators use all
// that the options would have without it. (Fake-quantize modules do clamp to code_range, and tell
// their observer so.)
CodeRange running_codes(const ObserverOptions& options);

// What calculate_qparams returns.
struct QParams {
  QuantizerPtr quantizer;
  DType dtype = DType::quint8;
  int64_t quant_min = 0, quant_max = 255;  // the codes in use; may be fewer than the dtype's
  // One of each, or one per channel; zero points are whole numbers but for float qparams.
  std::vector<double> scales, zero_points;
  // Ranges that cannot be quantized well, one line each: "conv1.weight channel 3: all zeros; scale
  // set to 1.19e-07". `warnings` says nothing about ordinary data.
  std::vector<std::string> warnings;
};

struct ScaleZeroPoint {
  float scale;
  int64_t zero_point;
  bool operator==(const ScaleZeroPoint&) const = default;
};

// The qparams of values in [min, max], widened to hold 0 (docs/numerics.md "qparams from a range",
// PyTorch's _calculate_qparams, bit for bit). neg = min(min, 0), pos = max(max, 0):
//  affine     s = max(f(f(pos - neg) / f(qmax - qmin)), eps), z = clamp(qmin - rne(f(neg / s)))
//  symmetric  s = max(f(max(-neg, pos) / f((qmax - qmin) / 2)), eps), z = 0, or for quint8 128, or
//             the middle of given codes rounded down
// min <= max, both finite. The scale is always a normal float32: where pos - neg overflows, s is
// computed in double.
ScaleZeroPoint choose_qparams(float min, float max, const ObserverOptions& options);

// These as QParams, one of each or one per channel. Errors as Quantizer's.
QParams make_qparams(std::vector<double> scales, std::vector<double> zero_points,
                     const ObserverOptions& options);

struct FloatQParams {
  float scale;
  float zero_point;
  bool operator==(const FloatQParams&) const = default;
};

// The qparams of per_channel_affine_float_qparams (PyTorch's, bit for bit): code 0 stands for min,
//  s = f(f(max - min) / f(qmax - qmin)), or 1 where that is not above eps;  z = f(-min / s)
// min <= max, both finite; nothing is widened.
FloatQParams choose_float_qparams(float min, float max, const ObserverOptions& options);

// The same as a Quantizer: one value per tensor, or one per channel along options.ch_axis for
// per-channel schemes. `label` names the tensor in errors and warnings. Error unless min and max
// have equal sizes (1 for per-tensor schemes), are finite, and min <= max.
QParams calculate_qparams(const std::vector<float>& min, const std::vector<float>& max,
                          const ObserverOptions& options, const std::string& label = "");
QParams calculate_qparams(const Tensor& min, const Tensor& max, const ObserverOptions& options,
                          const std::string& label = "");

// The interface of all observers. type_name() is PyTorch's class name. Those made by make_observer,
// ObserverFactory or nn::make can be cloned.
class Observer : public nn::Module {
 public:
  using nn::Module::forward;

  const ObserverOptions& options() const { return options_; }
  // The tensor's name, for messages: "features.0.conv". May be empty.
  const std::string& label() const { return label_; }
  void set_label(std::string label) { label_ = std::move(label); }

  // Takes in one batch: any shape and strides, floating (or a plain integer dtype, converted to
  // float32). An empty tensor is ignored. Error, with nothing taken in, if a value is NaN or
  // infinite (says how many), if x is quantized, or, per channel, if x has no dimension ch_axis or
  // another number of channels than before.
  virtual void observe(const Tensor& x);
  // observe(x), then x itself.
  Tensor forward(Tensor x) override;

  // No data seen (since the last reset)? False for observers that need none.
  virtual bool empty() const = 0;
  // Does it choose qparams? Placeholder, Noop, Recording and ReuseInput observers do not.
  virtual bool chooses_qparams() const { return true; }
  // Qparams for the data seen. Error not_calibrated, naming observer and label, if there was none;
  // unsupported unless chooses_qparams().
  virtual QParams calculate_qparams() const = 0;

  // The least and greatest value seen (or their moving averages): shape (), or (channels) for
  // per-channel observers. Empty: +inf and -inf, or shape (0), as in PyTorch; likewise of observers
  // that look at no values.
  virtual Tensor min_val() const;
  virtual Tensor max_val() const;
  // What to_string shows in parentheses: "min_val=-1.5, max_val=2.25"; long per-channel lists are
  // abridged.
  std::string extra_repr() const override;
  // The options that differ from ObserverOptions', as PyTorch's keyword arguments, and the label.
  Attrs config() const override;

  // Makes this what one observer of both data sets would be: this one's data first, then other's.
  // Error if the class or the options differ, or the number of channels. Labels may differ; this
  // one's stays.
  void merge(const Observer& other);
  // Forgets all data.
  virtual void reset() = 0;

 protected:
  Observer(ObserverOptions options, std::string label)
      : options_(options), label_(std::move(label)) {}
  Observer(const Observer&) = default;

  // x is float32 and not empty.
  virtual void observe_floats(const Tensor& x) = 0;
  // other has the same class and options and is not empty.
  virtual void merge_same(const Observer& other) = 0;

  // "HistogramObserver of 'conv1'".
  std::string title() const;
  // state.at(key) as float32 values, one per channel. Error unless it holds `size` (any number for
  // -1).
  std::vector<float> floats_of(const std::map<std::string, Tensor>& state, const std::string& key,
                               int64_t size) const;
  int64_t int_of(const std::map<std::string, Tensor>& state, const std::string& key) const;
  // Error unless these are ranges, as a state dict should hold them.
  void check_range(const std::vector<float>& min, const std::vector<float>& max) const;
  [[noreturn]] void fail_state(const std::string& why) const;
  [[noreturn]] void fail_not_calibrated() const;
  [[noreturn]] void fail_no_qparams() const;
  // Counts the NaN and infinite values of x and throws.
  [[noreturn]] void fail_not_finite(const Tensor& x) const;

 private:
  ObserverOptions options_;
  std::string label_;
};

using ObserverPtr = std::shared_ptr<Observer>;

// Options as named attributes (those that differ from the defaults) and back; unknown names are an
// Error.
Attrs to_attrs(const ObserverOptions& options);
ObserverOptions options_from(const Attrs& attrs);

// "HistogramObserver(min_val=-1.5, max_val=2.25)".
std::string to_string(const Observer& observer);

}  // namespace octet::quant
