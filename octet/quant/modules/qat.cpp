#include "octet/quant/modules/qat.h"

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/modules/visit_impl.h"
#include "octet/quant/observe/fake_quantize.h"

namespace octet::nn::qat {
namespace {

template <typename Float>
Tensor layer_forward(const Float& layer, const Tensor& x, const Tensor& weight,
                     const Tensor& bias) {
  if constexpr (quant::is_conv<Float>)
    return layer.conv_forward(x, weight, bias);
  else
    return functional::linear(x, weight, bias);
}

// The fake-quantize module for a weight, per the qconfig of the module that holds it.
template <typename Float>
ModulePtr make_weight_fake_quant(const Float& layer, const Module& module, const std::string& who) {
  const quant::QConfig* qconfig = quant::qconfig_of(module);
  OCTET_CHECK(qconfig && qconfig->weight, invalid_argument,
              "{}: from_float needs a module with a qconfig that says how to "
              "quantize its weight",
              who);
  quant::ObserverFactory factory = qconfig->weight;
  OCTET_CHECK(!factory.fake_quantize_name().empty(), invalid_argument,
              "{}: the qconfig's weight is {}, which does not fake-quantize: "
              "use get_default_qat_qconfig(), or .fake_quantize() on the factory",
              who, to_string(factory));
  if (is_per_channel(factory.options().qscheme))
    factory = factory.with_ch_axis(quant::weight_scale_axis(layer));
  return factory.make_module(who + ".weight");
}

template <typename Float>
const Float& expect_layer(Module& module, const std::string& who, size_t part, bool fused) {
  Module* place = &module;
  if (fused) {
    auto* sequence = dynamic_cast<intrinsic::FusedModule*>(&module);
    OCTET_CHECK(sequence && part < sequence->size(), invalid_argument,
                "{}: from_float was given a {}; expected a fused module", who, module.type_name());
    place = &(*sequence)[part];
  }
  auto* layer = dynamic_cast<Float*>(place);
  OCTET_CHECK(layer, invalid_argument, "{}: from_float was given a {}; expected a {}", who,
              place->type_name(), class_name(typeid(Float)));
  return *layer;
}

// A fake-quantize module to be replaced when the state is loaded: the config names the class and
// options of the real one.
ModulePtr placeholder_fake_quant() {
  return quant::default_weight_fake_quant().make_module("weight");
}

template <typename Layer>
std::shared_ptr<Layer> adopt(std::shared_ptr<Layer> layer, const Module& source) {
  layer->qconfig = source.qconfig;
  layer->train(source.training());
  return layer;
}

}  // namespace

template <typename Float, bool relu>
QatLayer<Float, relu>::QatLayer(const Float& layer, ModulePtr fake_quant)
    : Float(layer), weight_fake_quant(Module::slot("weight_fake_quant", std::move(fake_quant))) {}

template <typename Float, bool relu>
Tensor QatLayer<Float, relu>::forward(Tensor x) {
  Tensor y = layer_forward<Float>(*this, x, weight_fake_quant(this->weight), this->bias);
  return relu ? functional::relu(y) : y;
}

template <typename Float, bool relu>
std::shared_ptr<QatLayer<Float, relu>> QatLayer<Float, relu>::from_float(Module& module) {
  const std::string who = class_name(typeid(QatLayer));
  const auto& layer = expect_layer<Float>(module, who, 0, relu);
  return adopt(make<QatLayer>(layer, make_weight_fake_quant<Float>(layer, module, who)), module);
}

template <typename Float, bool relu>
std::shared_ptr<QatLayer<Float, relu>> QatLayer<Float, relu>::from_config(const Attrs& config) {
  return make<QatLayer>(*Float::from_config(config), placeholder_fake_quant());
}

// -- with batch norm ------------------------------------------------------------------------------

template <typename Float, typename Norm, bool relu>
QatBnLayer<Float, Norm, relu>::QatBnLayer(const Float& layer, const Norm& norm,
                                          ModulePtr fake_quant, bool freeze_bn)
    : Float(layer),
      bn(Module::slot("bn", make<Norm>(norm))),
      weight_fake_quant(Module::slot("weight_fake_quant", std::move(fake_quant))),
      frozen_(freeze_bn) {
  OCTET_CHECK(norm.options.affine && norm.options.track_running_stats, invalid_argument,
              "qat: the batch norm needs affine parameters and running statistics, got {}",
              nn::to_string(norm));
}

template <typename Float, typename Norm, bool relu>
Tensor QatBnLayer<Float, Norm, relu>::forward(Tensor x) {
  auto& norm = bn.template as<Norm>();
  Tensor factor = norm.weight / functional::sqrt(norm.running_var + norm.options.eps);
  Tensor zero = ops::call("equal", {factor.detach(), Tensor::zeros({1})});
  factor = ops::call("where", {zero, Tensor::ones({1}), factor});
  Shape along_weight(static_cast<size_t>(this->weight.dim()), 1), along_result = along_weight;
  along_weight[0] = norm.num_features;
  along_result[this->weight.dim() > 2 ? 1 : along_result.size() - 1] = norm.num_features;
  Tensor y = layer_forward<Float>(
      *this, x, weight_fake_quant(this->weight * factor.reshape(along_weight)), Tensor());
  y = y / factor.reshape(along_result);
  if (this->bias.defined()) y = y + this->bias.reshape(along_result);
  y = bn(y);
  return relu ? functional::relu(y) : y;
}

template <typename Float, typename Norm, bool relu>
Attrs QatBnLayer<Float, Norm, relu>::config() const {
  Attrs c = Float::config();
  c.set("freeze_bn", frozen_);
  for (const auto& [name, value] : bn->config()) c.set("bn." + name, value);
  return c;
}

template <typename Float, typename Norm, bool relu>
void QatBnLayer<Float, Norm, relu>::train(bool mode) {
  Float::train(mode);
  if (frozen_) bn->train(false);
}

template <typename Float, typename Norm, bool relu>
void QatBnLayer<Float, Norm, relu>::freeze_bn_stats() {
  frozen_ = true;
  bn->train(false);
}

template <typename Float, typename Norm, bool relu>
void QatBnLayer<Float, Norm, relu>::update_bn_stats() {
  frozen_ = false;
  bn->train(this->training());
}

template <typename Float, typename Norm, bool relu>
quant::FoldedWeights QatBnLayer<Float, Norm, relu>::folded() const {
  return quant::fuse_conv_bn_weights(this->weight, this->bias, bn.template as<Norm>());
}

namespace {
Attrs part_of(const Attrs& config, const std::string& prefix) {
  Attrs part;
  for (const auto& [name, value] : config)
    if (name.rfind(prefix, 0) == 0) part.set(name.substr(prefix.size()), value);
  return part;
}
}  // namespace

template <typename Float, typename Norm, bool relu>
std::shared_ptr<QatBnLayer<Float, Norm, relu>> QatBnLayer<Float, Norm, relu>::from_float(
    Module& module) {
  const std::string who = class_name(typeid(QatBnLayer));
  const auto& layer = expect_layer<Float>(module, who, 0, true);
  const auto& norm = expect_layer<Norm>(module, who, 1, true);
  return adopt(make<QatBnLayer>(layer, norm, make_weight_fake_quant<Float>(layer, module, who)),
               module);
}

template <typename Float, typename Norm, bool relu>
std::shared_ptr<QatBnLayer<Float, Norm, relu>> QatBnLayer<Float, Norm, relu>::from_config(
    const Attrs& config) {
  return make<QatBnLayer>(*Float::from_config(config), *Norm::from_config(part_of(config, "bn.")),
                          placeholder_fake_quant(), config.get_bool("freeze_bn"));
}

namespace {
[[maybe_unused]] const bool g_qat_registered = [] {
  for_each_type(quant::WeightedForms(), []<typename Forms>() {
    const std::string scope = "octet::nn::qat::";
    quant::register_form<typename Forms::Qat>(scope + Forms::name);
    if constexpr (quant::has_bn<Forms>)
      quant::register_form<typename Forms::QatBn>(scope + Forms::bn_name);
  });
  return true;
}();
}  // namespace

}  // namespace octet::nn::qat

namespace octet::quant {

void freeze_bn_stats(nn::Module& model) {
  for (auto& [path, module] : model.named_modules())
    if (auto* bn = dynamic_cast<nn::qat::FreezableBatchNorm*>(module)) bn->freeze_bn_stats();
}

void update_bn_stats(nn::Module& model) {
  for (auto& [path, module] : model.named_modules())
    if (auto* bn = dynamic_cast<nn::qat::FreezableBatchNorm*>(module)) bn->update_bn_stats();
}

}  // namespace octet::quant
