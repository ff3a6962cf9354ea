#pragma once
// Where tensors become quantized and float again, and modules around whole models.

#include <string>

#include "octet/nn/module.h"
#include "octet/quant/observe/qconfig.h"

namespace octet::quant {

// Marks where a float tensor becomes quantized: observed by prepare(), a nn::quantized::Quantize
// after convert(). Until then it returns its input.
class QuantStub : public nn::Module {
 public:
  QuantStub() = default;
  explicit QuantStub(QConfig own) { qconfig = std::move(own); }
  Tensor forward(Tensor x) override { return x; }
};

// Marks where a quantized tensor becomes float: a nn::quantized::DeQuantize after convert().
class DeQuantStub : public nn::Module {
 public:
  DeQuantStub() = default;
  Tensor forward(Tensor x) override { return x; }
};

// A module with a QuantStub before and a DeQuantStub behind: quantizes a model whose forward has no
// stubs.
class QuantWrapper : public nn::Module {
 public:
  // Takes over the module's qconfig and mode.
  explicit QuantWrapper(nn::ModulePtr module);
  static std::shared_ptr<QuantWrapper> from_config(const Attrs& config);
  Tensor forward(Tensor x) override { return dequant((*submodule("module"))(quant(x))); }

  nn::Slot quant = slot("quant", QuantStub());
  nn::Slot dequant = slot("dequant", DeQuantStub());
};

}  // namespace octet::quant

namespace octet::nn::quantized {

// quantize_per_tensor with fixed qparams; what a QuantStub becomes.
class Quantize : public Module {
 public:
  explicit Quantize(double scale = 1, int64_t zero_point = 0, DType dtype = DType::quint8);
  // From a prepared QuantStub: the qparams of its activation_post_process. Error if that saw no
  // data.
  static std::shared_ptr<Quantize> from_float(Module& stub);
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  Attrs config() const override;
  static std::shared_ptr<Quantize> from_config(const Attrs& config);

  double scale;
  int64_t zero_point;
  DType dtype;
};

// To float; what a DeQuantStub becomes.
class DeQuantize : public Module {
 public:
  static std::shared_ptr<DeQuantize> from_float(Module&) { return make<DeQuantize>(); }
  Tensor forward(Tensor x) override;
};

}  // namespace octet::nn::quantized
