#pragma once
// Recurrent networks with quantized weights (torch.nn.quantized.dynamic): the float classes with
// other weights. They compute what those compute, in every form (layers, directions, projections,
// without biases, unbatched); x and the hidden state are quantized at each step from their own
// range (docs/numerics.md, "lstm, gru, rnn"). float16 weights compute in float32.
//
// from_float(module) takes the float network with a qconfig whose weight says how.

#include <map>
#include <memory>
#include <string>

#include "octet/nn/rnn.h"

namespace octet::nn::quantized {

// Float is LSTM, GRU, RNN or one of their cells. The weights and biases (not parameters: they are
// not trained) have the names that the float network's parameters have.
template <typename Float>
class QuantizedRecurrent : public Float {
 public:
  // `weights` as Float's parameters by name: the weights quantized or float16, the biases float32.
  QuantizedRecurrent(const Float& network, std::map<std::string, Tensor> weights);
  const std::map<std::string, Tensor>& weights() const { return weights_; }
  // Error unless the names and shapes are those it has, the weights quantized (or of their dtype),
  // the biases float32.
  void set_weights(std::map<std::string, Tensor> weights);
  std::map<std::string, Tensor> extra_state() const override { return weights_; }
  void set_extra_state(const std::map<std::string, Tensor>& state) override { set_weights(state); }
  Attrs config() const override;

 protected:
  Tensor weight_named(const std::string& name) override { return weights_.at(name); }

 private:
  std::map<std::string, Tensor> weights_;
};

namespace dynamic {

template <typename Float>
class DynamicRecurrent : public QuantizedRecurrent<Float> {
 public:
  using QuantizedRecurrent<Float>::QuantizedRecurrent;
  static std::shared_ptr<DynamicRecurrent> from_float(Module& module);
  static std::shared_ptr<DynamicRecurrent> from_config(const Attrs& config);
  std::string type_name() const override;  // "DynamicQuantizedLSTM"
  Attrs config() const override;
  // x and h are quantized to 0..127 instead of 0..255, as PyTorch does for fbgemm.
  void set_reduce_range(bool on) { reduce_range_ = on; }
  bool reduce_range() const { return reduce_range_; }

 protected:
  Attrs op_attrs() const override;

 private:
  bool reduce_range_ = false;
};

using LSTM = DynamicRecurrent<nn::LSTM>;
using GRU = DynamicRecurrent<nn::GRU>;
using RNN = DynamicRecurrent<nn::RNN>;
using LSTMCell = DynamicRecurrent<nn::LSTMCell>;
using GRUCell = DynamicRecurrent<nn::GRUCell>;
using RNNCell = DynamicRecurrent<nn::RNNCell>;

}  // namespace dynamic

// In float arithmetic on the dequantized weights.
namespace reference {

template <typename Float>
class ReferenceRecurrent : public QuantizedRecurrent<Float> {
 public:
  using QuantizedRecurrent<Float>::QuantizedRecurrent;
  static std::shared_ptr<ReferenceRecurrent> from_float(Module& module);
  static std::shared_ptr<ReferenceRecurrent> from_config(const Attrs& config);
  std::string type_name() const override;  // "QuantizedReferenceLSTM"

 protected:
  Tensor weight_named(const std::string& name) override {
    const Tensor& w = this->weights().at(name);
    return w.is_quantized() ? w.dequantize() : w.to(DType::float32);
  }
};

using LSTM = ReferenceRecurrent<nn::LSTM>;
using GRU = ReferenceRecurrent<nn::GRU>;
using RNN = ReferenceRecurrent<nn::RNN>;
using LSTMCell = ReferenceRecurrent<nn::LSTMCell>;
using GRUCell = ReferenceRecurrent<nn::GRUCell>;
using RNNCell = ReferenceRecurrent<nn::RNNCell>;

}  // namespace reference
}  // namespace octet::nn::quantized
