#pragma once
// What the quantized forms of linear and convolution layers share: a quantized weight, and one
// operator called with it.

#include <map>
#include <string>

#include "octet/quant/modules/forms.h"
#include "octet/quant/modules/qparams.h"

namespace octet::nn::quantized {

// weight() is a quantized tensor (per tensor, or per channel along the output channels); bias() is
// float32 or undefined. The operator packs the weight at its first use (ops/op.h), so it must not
// be changed in place: use set_weight_bias.
class WeightedModule : public Module {
 public:
  const Tensor& weight() const { return weight_; }
  const Tensor& bias() const { return bias_; }
  // Error unless the weight has the shape it had and is quantized (or float16 where the class
  // allows it).
  virtual void set_weight_bias(Tensor weight, Tensor bias);

  const std::string& op() const { return op_; }  // "conv2d", "linear_dynamic", ...
  const Attrs& op_attrs() const { return attrs_; }
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;
  // The float layer's, as it was when it was converted, and "weight_dtype" if that is not a
  // quantized one.
  Attrs config() const override;
  std::string extra_repr() const override;

 protected:
  // `op` is the operator to call, `attrs` its attributes, `pads` those of the pad operator before
  // it (empty: none); `repr` and `config` are the float layer's.
  WeightedModule(std::string op, Attrs attrs, Attrs pads, std::string repr, Attrs config,
                 Tensor weight, Tensor bias);
  // The operator on x, which for convolutions may lack the batch dimension.
  Tensor call(const Tensor& x, const std::optional<ops::QType>& want = std::nullopt) const;
  void set_op_attr(const std::string& name, Attr value) { attrs_.set(name, std::move(value)); }
  // What from_float takes from the module beside the weight, and from_config beside the float
  // layer's configuration: nothing, or what a class hides these with.
  static quant::QParams result_of(const Module&) { return {}; }
  void set_result(const quant::QParams&) {}
  void take_config(const Attrs&) {}
  // "qscheme=torch.per_tensor_affine" and the like, as PyTorch prints it.
  std::string qscheme_repr() const;

 private:
  std::string op_;
  Attrs attrs_, pads_;
  std::string repr_;
  Attrs config_;
  Tensor weight_, bias_;
};

// `Float` with a quantized weight, and with a relu behind it if `relu`. Base says how it computes:
// StaticModule (quantized.h), DynamicModule, WeightOnlyModule or ReferenceModule (dynamic.h); these
// headers have the names, as `using Conv2d = StaticLayer<nn::Conv2d>`.
template <typename Base, typename Float, bool relu>
class QuantizedLayer : public Base {
 public:
  QuantizedLayer(const Float& layer, Tensor weight, Tensor bias);
  // Takes the float layer, one fused with a relu, or a QAT one, with a qconfig whose weight says
  // how; or a reference or weight-only layer, whose weight is quantized already. Error naming what
  // it was given and what is missing.
  static std::shared_ptr<QuantizedLayer> from_float(Module& module);
  static std::shared_ptr<QuantizedLayer> from_config(const Attrs& config);
};

}  // namespace octet::nn::quantized
