#include "octet/quant/modules/recurrent.h"

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/modules/sources_impl.h"

namespace octet::nn::quantized {
namespace {

bool is_weight(const std::string& name) { return name.starts_with("weight"); }

// The network's parameters by name, its weights as `quantize` makes them.
template <typename Fn>
std::map<std::string, Tensor> weights_of(Module& network, Fn&& quantize) {
  std::map<std::string, Tensor> weights;
  for (const auto& [name, tensor] : network.own_tensors())
    if (tensor->defined()) weights[name] = is_weight(name) ? quantize(*tensor) : tensor->detach();
  return weights;
}

template <typename Network, typename Float>
std::shared_ptr<Network> network_from_float(Module& module) {
  auto* network = dynamic_cast<Float*>(&module);
  OCTET_CHECK(network, invalid_argument, "{}: from_float was given a {}; expected a {}",
              class_name(typeid(Network)), module.type_name(), class_name(typeid(Float)));
  return make<Network>(*network, weights_of(*network, [&](const Tensor& w) {
    return quant::quantize_weight(w, module, nullptr, 0);
  }));
}

template <typename Network, typename Float>
std::shared_ptr<Network> network_from_config(const Attrs& config) {
  auto network = Float::from_config(config);
  return make<Network>(*network, weights_of(*network, [&](const Tensor& w) {
    return quant::placeholder_weight(w, config);
  }));
}

}  // namespace

template <typename Float>
QuantizedRecurrent<Float>::QuantizedRecurrent(const Float& network,
                                              std::map<std::string, Tensor> weights)
    : Float(network), weights_(std::move(weights)) {
  this->qconfig.reset();
  for (auto& [name, tensor] : this->own_tensors()) *tensor = Tensor();
}

template <typename Float>
void QuantizedRecurrent<Float>::set_weights(std::map<std::string, Tensor> weights) {
  for (const auto& [name, mine] : weights_) {
    auto it = weights.find(name);
    const bool given = it != weights.end() && it->second.defined();
    OCTET_CHECK(
        given && it->second.shape() == mine.shape() &&
            ((is_weight(name) && it->second.is_quantized()) || it->second.dtype() == mine.dtype()),
        invalid_argument, "{}: {} is {}; expected {}{}", this->type_name(), name,
        given ? octet::to_string(it->second.type()) : "none", is_weight(name) ? "codes or " : "",
        octet::to_string(mine.type()));
  }
  OCTET_CHECK(weights.size() == weights_.size(), invalid_argument,
              "{}: {} weights and biases; expected {}", this->type_name(), weights.size(),
              weights_.size());
  weights_ = std::move(weights);
}

template <typename Float>
Attrs QuantizedRecurrent<Float>::config() const {
  Attrs c = Float::config();
  for (const auto& [name, tensor] : weights_)
    if (is_weight(name) && !tensor.is_quantized())
      c.set("weight_dtype", octet::to_string(tensor.dtype()));
  return c;
}

template class QuantizedRecurrent<nn::LSTM>;
template class QuantizedRecurrent<nn::GRU>;
template class QuantizedRecurrent<nn::RNN>;
template class QuantizedRecurrent<nn::LSTMCell>;
template class QuantizedRecurrent<nn::GRUCell>;
template class QuantizedRecurrent<nn::RNNCell>;

namespace dynamic {

template <typename Float>
std::string DynamicRecurrent<Float>::type_name() const {
  return "DynamicQuantized" + class_name(this->class_type());
}

template <typename Float>
Attrs DynamicRecurrent<Float>::config() const {
  return QuantizedRecurrent<Float>::config().set("reduce_range", reduce_range_);
}

template <typename Float>
Attrs DynamicRecurrent<Float>::op_attrs() const {
  return Float::op_attrs().set("reduce_range", reduce_range_);
}

template <typename Float>
std::shared_ptr<DynamicRecurrent<Float>> DynamicRecurrent<Float>::from_float(Module& module) {
  if (auto* reference = dynamic_cast<reference::ReferenceRecurrent<Float>*>(&module)) {
    auto made = make<DynamicRecurrent>(*quant::float_layer<Float>(reference->config()),
                                       reference->weights());
    made->train(module.training());
    return made;
  }
  return network_from_float<DynamicRecurrent, Float>(module);
}

template <typename Float>
std::shared_ptr<DynamicRecurrent<Float>> DynamicRecurrent<Float>::from_config(const Attrs& config) {
  auto made = network_from_config<DynamicRecurrent, Float>(config);
  made->set_reduce_range(config.get_bool("reduce_range"));
  return made;
}

template class DynamicRecurrent<nn::LSTM>;
template class DynamicRecurrent<nn::GRU>;
template class DynamicRecurrent<nn::RNN>;
template class DynamicRecurrent<nn::LSTMCell>;
template class DynamicRecurrent<nn::GRUCell>;
template class DynamicRecurrent<nn::RNNCell>;

}  // namespace dynamic

namespace reference {

template <typename Float>
std::string ReferenceRecurrent<Float>::type_name() const {
  return "QuantizedReference" + class_name(this->class_type());
}

template <typename Float>
std::shared_ptr<ReferenceRecurrent<Float>> ReferenceRecurrent<Float>::from_float(Module& module) {
  return network_from_float<ReferenceRecurrent, Float>(module);
}

template <typename Float>
std::shared_ptr<ReferenceRecurrent<Float>> ReferenceRecurrent<Float>::from_config(
    const Attrs& config) {
  return network_from_config<ReferenceRecurrent, Float>(config);
}

template class ReferenceRecurrent<nn::LSTM>;
template class ReferenceRecurrent<nn::GRU>;
template class ReferenceRecurrent<nn::RNN>;
template class ReferenceRecurrent<nn::LSTMCell>;
template class ReferenceRecurrent<nn::GRUCell>;
template class ReferenceRecurrent<nn::RNNCell>;

}  // namespace reference

namespace {
[[maybe_unused]] const bool g_recurrent_registered = [] {
  for_each_type(
      TypeList<nn::LSTM, nn::GRU, nn::RNN, nn::LSTMCell, nn::GRUCell, nn::RNNCell>(),
      []<typename Float>() {
        const std::string scope = "octet::nn::quantized::", name = class_name(typeid(Float));
        register_module<dynamic::DynamicRecurrent<Float>>(scope + "dynamic::" + name);
        register_module<reference::ReferenceRecurrent<Float>>(scope + "reference::" + name);
      });
  return true;
}();
}  // namespace

}  // namespace octet::nn::quantized
