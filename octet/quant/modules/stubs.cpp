#include "octet/quant/modules/stubs.h"

#include <fmt/format.h>

#include "octet/nn/linear.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/qparams.h"

namespace octet::quant {

OCTET_MODULE(QuantStub)
OCTET_MODULE(DeQuantStub)
OCTET_MODULE(QuantWrapper)

QuantWrapper::QuantWrapper(nn::ModulePtr module) {
  qconfig = module->qconfig;
  bool training = module->training();
  add_child("module", std::move(module));
  train(training);
}

// What it wraps is put in afterwards.
std::shared_ptr<QuantWrapper> QuantWrapper::from_config(const Attrs&) {
  return nn::make<QuantWrapper>(nn::make<nn::Identity>());
}

}  // namespace octet::quant

namespace octet::nn::quantized {

OCTET_MODULE(Quantize)
OCTET_MODULE(DeQuantize)

Quantize::Quantize(double scale, int64_t zero_point, DType dtype)
    : scale(scale), zero_point(zero_point), dtype(dtype) {}

std::shared_ptr<Quantize> Quantize::from_float(Module& stub) {
  quant::QParams q = quant::activation_qparams(stub);
  return make<Quantize>(q.quantizer->scale(), q.quantizer->zero_point(), q.dtype);
}

Tensor Quantize::forward(Tensor x) {
  return ops::call("quantize", {x}, {}, quant::result_type(scale, zero_point, dtype));
}

std::string Quantize::extra_repr() const {
  return fmt::format("scale={}, zero_point={}, dtype={}", scale, zero_point,
                     octet::to_string(dtype));
}

std::map<std::string, Tensor> Quantize::extra_state() const {
  std::map<std::string, Tensor> state;
  quant::save_qparams(state, scale, zero_point);
  return state;
}
void Quantize::set_extra_state(const std::map<std::string, Tensor>& state) {
  quant::load_qparams(state, dtype, type_name(), scale, zero_point);
}
Attrs Quantize::config() const { return {{"dtype", std::string(octet::to_string(dtype))}}; }
std::shared_ptr<Quantize> Quantize::from_config(const Attrs& c) {
  return make<Quantize>(1.0, 0, parse_dtype(c.get_string("dtype")));
}

Tensor DeQuantize::forward(Tensor x) { return x.is_quantized() ? ops::call("dequantize", {x}) : x; }

}  // namespace octet::nn::quantized
