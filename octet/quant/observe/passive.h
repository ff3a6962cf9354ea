#pragma once
// Observers that do not look at values: they carry a configuration, known qparams, or copies of
// what they saw.

#include <vector>

#include "octet/quant/observe/observer.h"

namespace octet::quant {

// Qparams known beforehand, options.scale and options.zero_point (Error unless both are given and
// fit the dtype): for operators of bounded range, such as sigmoid (1/256, 0). Needs no data and
// looks at none. Per tensor only (Error).
class FixedQParamsObserver : public Observer {
 public:
  explicit FixedQParamsObserver(ObserverOptions options, std::string label = "");
  void observe(const Tensor&) override {}
  bool empty() const override { return false; }
  QParams calculate_qparams() const override;
  std::string extra_repr() const override { return to_string(options()); }
  void reset() override {}

 protected:
  void observe_floats(const Tensor&) override {}
  void merge_same(const Observer&) override {}
};

// An observer that does nothing: what it says lies in its class and options, any dtype among them.
// It has no qparams.
class PassiveObserver : public Observer {
 public:
  void observe(const Tensor&) override {}
  bool empty() const override { return false; }
  bool chooses_qparams() const override { return false; }
  QParams calculate_qparams() const override;  // Error unsupported
  std::string extra_repr() const override { return to_string(options()); }
  void reset() override {}

 protected:
  PassiveObserver(ObserverOptions options, std::string label)
      : Observer(options, std::move(label)) {}
  void observe_floats(const Tensor&) override {}
  void merge_same(const Observer&) override {}
};

// Stands for a dtype: a tensor to be converted to float16, or (is_dynamic) to be quantized at run
// time with qparams chosen for each batch. float32 leaves it as it is.
class PlaceholderObserver : public PassiveObserver {
 public:
  static ObserverOptions default_options() { return {.dtype = DType::float32}; }
  explicit PlaceholderObserver(ObserverOptions options = default_options(), std::string label = "")
      : PassiveObserver(options, std::move(label)) {}
};

// Nothing is to be done with the tensor.
class NoopObserver : public PassiveObserver {
 public:
  static ObserverOptions default_options() { return {.dtype = DType::float16}; }
  explicit NoopObserver(ObserverOptions options = default_options(), std::string label = "")
      : PassiveObserver(options, std::move(label)) {}
};

// An operator's result has the qparams of its operand: reshape, transpose ...
class ReuseInputObserver : public PassiveObserver {
 public:
  explicit ReuseInputObserver(ObserverOptions options = {}, std::string label = "")
      : PassiveObserver(options, std::move(label)) {}
};

// PyTorch's torch.nn.Identity where a QConfig wants an observer: this side is not observed at all.
class IdentityObserver : public PassiveObserver {
 public:
  static ObserverOptions default_options() { return {.dtype = DType::float32}; }
  explicit IdentityObserver(ObserverOptions options = default_options(), std::string label = "")
      : PassiveObserver(options, std::move(label)) {}
  std::string type_name() const override { return "Identity"; }
};

// Keeps a copy of every tensor it is shown, NaN, empty and quantized ones included, for debugging.
// Memory grows with the data. It has no qparams. merge() appends the other's tensors.
class RecordingObserver : public Observer {
 public:
  explicit RecordingObserver(ObserverOptions options = {}, std::string label = "")
      : Observer(options, std::move(label)) {}
  void observe(const Tensor& x) override;
  bool empty() const override { return tensors_.empty(); }
  bool chooses_qparams() const override { return false; }
  QParams calculate_qparams() const override;  // Error unsupported
  std::string extra_repr() const override;
  void reset() override { tensors_.clear(); }

  // The copies, in the order seen.
  const std::vector<Tensor>& get_tensor_value() const { return tensors_; }

 protected:
  void observe_floats(const Tensor&) override {}
  void merge_same(const Observer& other) override;

 private:
  std::vector<Tensor> tensors_;
};

}  // namespace octet::quant
