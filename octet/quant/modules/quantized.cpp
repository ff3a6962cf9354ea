#include "octet/quant/modules/quantized.h"

#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/functional_impl.h"
#include "octet/quant/modules/sources_impl.h"
#include "octet/quant/modules/with_qparams_impl.h"

namespace octet::nn::quantized {

using quant::QParams;

// -- layers with a weight -------------------------------------------------------------------------

Tensor StaticModule::forward(Tensor x) {
  OCTET_CHECK(x.is_quantized(), invalid_argument,
              "{}: the input is {}; expected a quantized tensor: put a QuantStub before "
              "the layer, or leave it float (qconfig = nullptr)",
              type_name(), octet::to_string(x.type()));
  return call(x, quant::result_type(scale, zero_point, dtype));
}

std::string StaticModule::type_name() const { return "Quantized" + class_name(this->class_type()); }

std::string StaticModule::extra_repr() const {
  std::string s =
      WeightedModule::extra_repr() + fmt::format(", scale={}, zero_point={}", scale, zero_point);
  return op() == "linear" ? s + ", qscheme=" + qscheme_repr() : s;
}

std::map<std::string, Tensor> StaticModule::extra_state() const {
  auto state = WeightedModule::extra_state();
  quant::save_qparams(state, scale, zero_point);
  return state;
}

void StaticModule::set_extra_state(const std::map<std::string, Tensor>& state) {
  double new_scale = scale;
  int64_t new_zero = zero_point;
  quant::load_qparams(state, dtype, type_name(), new_scale, new_zero);
  WeightedModule::set_extra_state(state);
  scale = new_scale;
  zero_point = new_zero;
}

Attrs StaticModule::config() const {
  Attrs c = WeightedModule::config();
  return c.set("dtype", std::string(octet::to_string(dtype)));
}

void StaticModule::set_result(const QParams& result) {
  scale = result.quantizer->scale();
  zero_point = result.quantizer->zero_point();
  dtype = result.dtype;
}

void StaticModule::take_config(const Attrs& config) {
  dtype = parse_dtype(config.get_string("dtype"));
}

// -- layers without a quantized weight ------------------------------------------------------------

// What they compute.

Tensor compute(const Activation& activation, const Tensor& x, const ops::QType& result) {
  return ops::call(activation.op_name(), {x}, activation.op_attrs(), result);
}

Tensor compute(const nn::PReLU& prelu, const Tensor& x, const ops::QType& result) {
  return ops::call("prelu", {x, prelu.weight.detach()}, {}, result);
}

Tensor compute(const nn::LayerNorm& norm, const Tensor& x, const ops::QType& result) {
  return ops::call(
      "layer_norm", {x, norm.weight, norm.bias},
      {{"axis", -static_cast<int64_t>(norm.normalized_shape.size())}, {"eps", norm.eps}}, result);
}

Tensor compute(const nn::GroupNorm& norm, const Tensor& x, const ops::QType& result) {
  return ops::call("group_norm", {x, norm.weight, norm.bias},
                   {{"groups", norm.num_groups}, {"eps", norm.eps}}, result);
}

// Of a batch norm, or an instance norm with running statistics.
template <typename Norm>
Tensor with_running_statistics(const Norm& norm, const Tensor& x, const ops::QType& result) {
  Tensor gamma = norm.weight.defined() ? Tensor(norm.weight) : Tensor::ones({norm.num_features});
  Tensor beta = norm.bias.defined() ? Tensor(norm.bias) : Tensor::zeros({norm.num_features});
  return ops::call("batch_norm", {x, gamma, beta, norm.running_mean, norm.running_var},
                   {{"eps", norm.options.eps}}, result);
}

Tensor compute(const BatchNorm& norm, const Tensor& x, const ops::QType& result) {
  return with_running_statistics(norm, x, result);
}

template <size_t N>
Tensor compute(const InstanceNormNd<N>& norm, const Tensor& given, const ops::QType& result) {
  const bool unbatched = given.dim() == N + 1;
  const Tensor x = unbatched ? given.unsqueeze(0) : given;
  Tensor y = norm.options.track_running_stats
                 ? with_running_statistics(norm, x, result)
                 : ops::call("instance_norm", {x, norm.weight, norm.bias},
                             {{"eps", norm.options.eps}}, result);
  return unbatched ? y.squeeze(0) : y;
}

template Tensor compute(const InstanceNormNd<1>&, const Tensor&, const ops::QType&);
template Tensor compute(const InstanceNormNd<2>&, const Tensor&, const ops::QType&);
template Tensor compute(const InstanceNormNd<3>&, const Tensor&, const ops::QType&);

template <size_t N>
Tensor compute(const AdaptivePoolNd<N, false>& average, const Tensor& x, const ops::QType& result) {
  return functional::detail::adaptive_pool<N>("adaptive_avg_pool", x, average.output_size, result);
}

template Tensor compute(const AdaptivePoolNd<1, false>&, const Tensor&, const ops::QType&);
template Tensor compute(const AdaptivePoolNd<2, false>&, const Tensor&, const ops::QType&);
template Tensor compute(const AdaptivePoolNd<3, false>&, const Tensor&, const ops::QType&);

// -- names ----------------------------------------------------------------------------------------

namespace {

template <typename M>
void add(const char* name) {
  quant::register_form<M>(std::string("octet::nn::quantized::") + name);
}

[[maybe_unused]] const bool g_quantized_registered = [] {
  for_each_type(quant::WeightedForms(),
                []<typename Forms>() { add<typename Forms::Static>(Forms::name); });
  for_each_type(Activations(), []<typename Activation>() {
    add<WithQParams<Activation>>(class_name(typeid(Activation)).c_str());
  });
  add<PReLU>("PReLU");
  add<BatchNorm1d>("BatchNorm1d");
  add<BatchNorm2d>("BatchNorm2d");
  add<BatchNorm3d>("BatchNorm3d");
  add<LayerNorm>("LayerNorm");
  add<GroupNorm>("GroupNorm");
  add<InstanceNorm1d>("InstanceNorm1d");
  add<InstanceNorm2d>("InstanceNorm2d");
  add<InstanceNorm3d>("InstanceNorm3d");
  add<AdaptiveAvgPool1d>("AdaptiveAvgPool1d");
  add<AdaptiveAvgPool2d>("AdaptiveAvgPool2d");
  add<AdaptiveAvgPool3d>("AdaptiveAvgPool3d");
  add<BNReLU2d>("BNReLU2d");
  add<BNReLU3d>("BNReLU3d");
  return true;
}();

}  // namespace

}  // namespace octet::nn::quantized
