#include "octet/quant/modules/weighted.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/ops/functional_impl.h"

namespace octet::nn::quantized {

WeightedModule::WeightedModule(std::string op, Attrs attrs, Attrs pads, std::string repr,
                               Attrs config, Tensor weight, Tensor bias)
    : op_(std::move(op)),
      attrs_(std::move(attrs)),
      pads_(std::move(pads)),
      repr_(std::move(repr)),
      config_(std::move(config)),
      weight_(std::move(weight)),
      bias_(bias.defined() ? bias.detach() : Tensor()) {}

void WeightedModule::set_weight_bias(Tensor weight, Tensor bias) {
  OCTET_CHECK(weight.defined() && weight.shape() == weight_.shape() &&
                  (weight.is_quantized() || weight.dtype() == weight_.dtype()),
              invalid_argument, "{}: weight {}; expected a quantized tensor of shape {}",
              type_name(), weight.defined() ? octet::to_string(weight.type()) : "none",
              octet::to_string(weight_.shape()));
  OCTET_CHECK(
      bias.defined() == bias_.defined() &&
          (!bias.defined() || (bias.shape() == bias_.shape() && bias.dtype() == DType::float32)),
      invalid_argument, "{}: bias {}; expected {}", type_name(),
      bias.defined() ? octet::to_string(bias.type()) : "none",
      bias_.defined() ? octet::to_string(bias_.type()) : "none");
  weight_ = std::move(weight);
  bias_ = bias.defined() ? bias.detach() : Tensor();
}

std::map<std::string, Tensor> WeightedModule::extra_state() const {
  std::map<std::string, Tensor> state{{"weight", weight_}};
  if (bias_.defined()) state["bias"] = bias_;
  return state;
}

void WeightedModule::set_extra_state(const std::map<std::string, Tensor>& state) {
  set_weight_bias(state.at("weight"), bias_.defined() ? state.at("bias") : Tensor());
}

Attrs WeightedModule::config() const {
  Attrs c = config_;
  if (!weight_.is_quantized()) c.set("weight_dtype", octet::to_string(weight_.dtype()));
  return c;
}

std::string WeightedModule::extra_repr() const { return repr_; }

Tensor WeightedModule::call(const Tensor& x, const std::optional<ops::QType>& want) const {
  if (weight_.dim() == 2) return ops::call(op_, {x, weight_, bias_}, attrs_, want);
  return functional::detail::call_conv(op_, static_cast<size_t>(weight_.dim()) - 2, x, weight_,
                                       bias_, attrs_, pads_, want);
}

std::string WeightedModule::qscheme_repr() const {
  if (!weight_.is_quantized()) return "";
  return weight_.quantizer()->is_per_channel() ? "torch.per_channel_affine"
                                               : "torch.per_tensor_affine";
}

}  // namespace octet::nn::quantized
