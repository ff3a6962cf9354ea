#include "octet/quant/modules/float_functional.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"

namespace octet::nn::quantized {

OCTET_MODULE(FloatFunctional)
OCTET_MODULE(QFunctional)

Tensor FloatFunctional::forward(Tensor) {
  OCTET_FAIL(invalid_argument, "{}: forward is not defined: call add, mul, cat, ... instead",
             type_name());
}

Tensor FloatFunctional::operation(const char* op, const std::vector<Tensor>& operands,
                                  const Attrs& attrs) {
  if (attrs.has("value")) return apply_scalar(op, operands.at(0), attrs.get_double("value"));
  return apply(op, operands, attrs);
}

Tensor FloatFunctional::apply(const char* op, const std::vector<Tensor>& given,
                              const Attrs& attrs) {
  tensors_ = true;
  std::vector<Tensor> operands = given;
  if (before_) before_(op, operands);
  Tensor y = ops::call(op, operands, attrs);
  if (has_submodule(quant::kActivationPostProcess))
    y = (*submodule(quant::kActivationPostProcess))(y);
  if (after_) after_(y);
  return y;
}

// What was used so far is part of what calibration learns.
Attrs FloatFunctional::config() const {
  Attrs c;
  if (only_scalars()) c.set("only_scalars", true);
  return c;
}

std::shared_ptr<FloatFunctional> FloatFunctional::from_config(const Attrs& c) {
  auto functional = make<FloatFunctional>();
  functional->scalars_ = c.has("only_scalars") && c.get_bool("only_scalars");
  return functional;
}

Tensor FloatFunctional::apply_scalar(const char* op, const Tensor& x, double y) {
  scalars_ = true;
  return ops::call(op, {x}, {{"value", y}});
}

std::shared_ptr<QFunctional> QFunctional::from_float(Module& module) {
  // One that only adds or scales by numbers has seen nothing, and needs nothing.
  auto* functional = dynamic_cast<FloatFunctional*>(&module);
  if (module.has_submodule(quant::kActivationPostProcess) &&
      !(functional && functional->only_scalars())) {
    quant::QParams q = quant::activation_qparams(module);
    return make<QFunctional>(q.quantizer->scale(), q.quantizer->zero_point(), q.dtype);
  }
  return make<QFunctional>();
}

Tensor QFunctional::apply(const char* op, const std::vector<Tensor>& operands, const Attrs& attrs) {
  check_state();
  for (const Tensor& x : operands)
    OCTET_CHECK(x.is_quantized(), invalid_argument,
                "QFunctional.{}: an operand is {}; expected quantized tensors: put a "
                "QuantStub before it",
                op, octet::to_string(x.type()));
  Tensor y = ops::call(op, operands, attrs, quant::result_type(scale, zero_point, dtype));
  // Nothing of convert's: the numeric suite's logger.
  if (has_submodule(quant::kActivationPostProcess))
    y = (*submodule(quant::kActivationPostProcess))(y);
  return y;
}

std::string QFunctional::extra_repr() const {
  return fmt::format("scale={}, zero_point={}", scale, zero_point);
}

std::map<std::string, Tensor> QFunctional::extra_state() const {
  std::map<std::string, Tensor> state;
  quant::save_qparams(state, scale, zero_point);
  return state;
}
void QFunctional::set_extra_state(const std::map<std::string, Tensor>& state) {
  quant::load_qparams(state, dtype, "QFunctional", scale, zero_point);
}
Attrs QFunctional::config() const { return {{"dtype", std::string(octet::to_string(dtype))}}; }
std::shared_ptr<QFunctional> QFunctional::from_config(const Attrs& c) {
  return make<QFunctional>(1.0, 0, parse_dtype(c.get_string("dtype")));
}

}  // namespace octet::nn::quantized
