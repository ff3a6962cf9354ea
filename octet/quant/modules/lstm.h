#pragma once
// LSTMs whose every step is made of modules that can be observed (torch.nn.quantizable), and what
// convert() makes of them: quantized tensors in, between and out.
//
//  nn::quantizable::LSTM, LSTMCell   as prepare() observes them; in float they compute what
//                                    nn::LSTM does
//  nn::quantized::LSTM               the converted network (a converted cell stays an LSTMCell)
//
// Inputs, results and options are nn::LSTM's, projections too. States that are given must be
// quantized like x. Where two directions, or the last states of several layers, are put into one
// tensor, that has the range of all of them.

#include <memory>
#include <string>

#include "octet/nn/rnn.h"

namespace octet::nn {

namespace quantizable {

// One step. Inputs: x (N, input_size) or (input_size), then optionally the hidden and the cell
// state; results: both.
class LSTMCell : public Module {
 public:
  LSTMCell(int64_t input_size, int64_t hidden_size, bool bias = true, int64_t proj_size = 0);
  static std::shared_ptr<LSTMCell> from_float(nn::LSTMCell& cell);
  static std::shared_ptr<LSTMCell> from_config(const Attrs& config);
  Tensor forward(Tensor x) override { return forward(std::vector<Tensor>{std::move(x)}).at(0); }
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  // The same for batches, with both states.
  std::vector<Tensor> step(const Tensor& x, const Tensor& h, const Tensor& c);
  // Copies of these; biases and weight_hr as the cell has them.
  void set_weights(const Tensor& weight_ih, const Tensor& weight_hh, const Tensor& bias_ih,
                   const Tensor& bias_hh, const Tensor& weight_hr);
  std::string type_name() const override { return "QuantizableLSTMCell"; }
  Attrs config() const override;

  int64_t input_size, hidden_size, proj_size;
  bool has_bias;
  // Linear layers and sums, the gates in PyTorch's order: input, forget, candidate, output.
  Slot igates, hgates;
  Slot gates, fgate_cx, igate_cgate, fgate_cx_igate_cgate, ogate_cy;  // FloatFunctional
  // Child "projection": a Linear without bias, if proj_size > 0.
};

// One layer in one direction; and one layer in all directions (children layer_fw, layer_bw).
class LSTMSingleLayer : public Module {
 public:
  explicit LSTMSingleLayer(std::shared_ptr<LSTMCell> cell) : cell(slot("cell", std::move(cell))) {}
  static std::shared_ptr<LSTMSingleLayer> from_config(const Attrs& config);
  Attrs config() const override { return cell->config(); }
  // x (T, N, features), h, c; results: y (T, N, h's size), h, c.
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  std::string type_name() const override { return "_LSTMSingleLayer"; }
  Slot cell;
};
class LSTMLayer : public Module {
 public:
  // `backward` is null if there is one direction only.
  LSTMLayer(std::shared_ptr<LSTMCell> forward, std::shared_ptr<LSTMCell> backward);
  static std::shared_ptr<LSTMLayer> from_config(const Attrs& config);
  Attrs config() const override;
  std::string type_name() const override { return "_LSTMLayer"; }
  LSTMSingleLayer& direction(bool reverse) const {
    return submodule(reverse ? "layer_bw" : "layer_fw")->as<LSTMSingleLayer>();
  }
};

class LSTM : public Module {
 public:
  LSTM(int64_t input_size, int64_t hidden_size, RecurrentOptions options = {});
  // With copies of its weights.
  static std::shared_ptr<LSTM> from_float(nn::LSTM& network);
  static std::shared_ptr<LSTM> from_config(const Attrs& config);
  Tensor forward(Tensor x) override { return forward(std::vector<Tensor>{std::move(x)}).at(0); }
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  // Error for a PackedSequence: it cannot be traced.
  std::optional<std::vector<TensorType>> infer(
      const std::vector<TensorType>& inputs) const override;
  std::string type_name() const override { return "QuantizableLSTM"; }
  Attrs config() const override;
  int64_t directions() const { return options.bidirectional ? 2 : 1; }
  int64_t output_size() const { return options.proj_size > 0 ? options.proj_size : hidden_size; }

  int64_t input_size, hidden_size;
  RecurrentOptions options;
  Slot layers;  // ModuleList of LSTMLayer

 private:
  std::vector<Tensor> run(const std::vector<Tensor>& inputs);  // forward of what is not packed
};

}  // namespace quantizable

namespace quantized {

class LSTM : public quantizable::LSTM {
 public:
  using quantizable::LSTM::LSTM;
  // Takes over the observed network's children, which were converted before.
  static std::shared_ptr<LSTM> from_observed(quantizable::LSTM& observed);
  static std::shared_ptr<LSTM> from_config(const Attrs& config);
  std::string type_name() const override { return "QuantizedLSTM"; }
};

}  // namespace quantized
}  // namespace octet::nn
