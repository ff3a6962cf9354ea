#include "octet/quant/modules/qparams.h"

#include <algorithm>
#include <cmath>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/quant/observe/fake_quantize.h"

namespace octet::quant {

bool quantizes_rows(const QConfig& q) {
  return q.weight && is_float_qparams(q.weight.options().qscheme);
}

const QConfig* qconfig_of(const nn::Module& module) {
  return std::any_cast<QConfig>(&module.qconfig);
}

QParams activation_qparams(const nn::Module& module) {
  OCTET_CHECK(module.has_submodule(kActivationPostProcess), invalid_argument,
              "{}: the module has no {}: call prepare() (with a qconfig that reaches it) and "
              "calibrate first",
              module.type_name(), kActivationPostProcess);
  return qparams_of(*module.submodule(kActivationPostProcess));
}

QParams weight_qparams(const Tensor& weight, const nn::Module& module,
                       const nn::ModulePtr& fake_quantize, int64_t channel_axis) {
  autograd::NoGrad no_grad;
  Tensor plain = weight.detach();
  if (fake_quantize) {
    (*fake_quantize)(plain);
    return qparams_of(*fake_quantize);
  }
  const QConfig* qconfig = qconfig_of(module);
  OCTET_CHECK(qconfig && qconfig->weight, invalid_argument,
              "{}: no qconfig says how to quantize its weight: set "
              "module.qconfig before prepare() or quantize_dynamic()",
              module.type_name());
  ObserverFactory factory = qconfig->weight.without_fake_quantize();
  if (is_per_channel(factory.options().qscheme)) factory = factory.with_ch_axis(channel_axis);
  auto observer = factory.make(module.type_name() + ".weight");
  observer->observe(plain);
  return observer->calculate_qparams();
}

Tensor quantize_weight(const Tensor& weight, const nn::Module& module,
                       const nn::ModulePtr& fake_quantize, int64_t channel_axis) {
  if (const QConfig* qconfig = qconfig_of(module);
      !fake_quantize && qconfig && qconfig->weight &&
      qconfig->weight.options().dtype == DType::float16)
    return weight.detach().to(DType::float16);
  QParams q = weight_qparams(weight, module, fake_quantize, channel_axis);
  OCTET_CHECK(!q.quantizer->has_float_zero_points(), invalid_argument,
              "{}: float zero points are for embeddings: give it "
              "another qconfig",
              module.type_name());
  return quantize_to(weight.detach(), q);
}

Tensor quantize_to(const Tensor& x, const QParams& q) {
  Tensor quantized = quantize(x.contiguous(), q.quantizer, q.dtype);
  if (q.quant_min <= qmin(q.dtype) && q.quant_max >= qmax(q.dtype)) return quantized;
  Tensor codes = quantized.int_repr();
  auto clamp = [&](auto* p) {
    for (int64_t i = 0; i < codes.numel(); ++i)
      p[i] = static_cast<std::decay_t<decltype(*p)>>(
          std::clamp<int64_t>(p[i], q.quant_min, q.quant_max));
  };
  if (q.dtype == DType::qint8)
    clamp(codes.data<int8_t>());
  else if (q.dtype == DType::quint8)
    clamp(codes.data<uint8_t>());
  else if (q.dtype == DType::qint16)
    clamp(codes.data<int16_t>());
  else if (q.dtype == DType::quint16)
    clamp(codes.data<uint16_t>());
  return quantized;
}

ops::QType result_type(double scale, int64_t zero_point, DType dtype) {
  return {dtype, Quantizer::per_tensor(scale, zero_point, dtype)};
}

void save_qparams(std::map<std::string, Tensor>& state, double scale, int64_t zero_point) {
  state["scale"] = Tensor::scalar(scale, DType::float64);
  state["zero_point"] = Tensor::scalar(static_cast<double>(zero_point), DType::int64);
}

void load_qparams(const std::map<std::string, Tensor>& state, DType dtype, const std::string& who,
                  double& scale, int64_t& zero_point) {
  const Tensor &s = state.at("scale"), &z = state.at("zero_point");
  OCTET_CHECK(s.numel() == 1 && z.numel() == 1, invalid_argument,
              "{}: scale {} and zero_point {} in the state dict; expected "
              "one value each",
              who, octet::to_string(s.type()), octet::to_string(z.type()));
  double new_scale = s.item();
  auto new_zero = static_cast<int64_t>(z.item());
  result_type(new_scale, new_zero, dtype);  // throws if they cannot be
  scale = new_scale;
  zero_point = new_zero;
}

}  // namespace octet::quant
