#pragma once
// Recurrent networks. Names, arguments and parameter names are torch.nn's: weight_ih_l0,
// weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0 (projections), ..._l1, ..._l0_reverse.

#include <string>

#include "octet/nn/module.h"

namespace octet::nn {

struct RecurrentOptions {
  int64_t num_layers = 1;
  bool bias = true;
  bool batch_first = false;  // x and y are (N, T, features) instead of (T, N, features)
  double dropout = 0;        // between layers, in training
  bool bidirectional = false;
  int64_t proj_size = 0;              // LSTM: the hidden state is projected to this size
  std::string nonlinearity = "tanh";  // RNN: or "relu"
};

// What RNN, LSTM and GRU share. Inputs: x (T, N, input_size) or, of one sequence, (T, input_size);
// then optionally the first hidden state (layers * directions, N, hidden) and, of an LSTM, the
// first cell state. Results: y (T, N, directions * hidden), the last hidden state, and of an LSTM
// the last cell state. All weights start uniform in +-1/sqrt(hidden_size). Instead of x they take a
// PackedSequence (nn/packed_sequence.h).
class RNNBase : public Module {
 public:
  // y only.
  Tensor forward(Tensor x) override;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  // Error for a PackedSequence: it cannot be traced.
  std::optional<std::vector<TensorType>> infer(
      const std::vector<TensorType>& inputs) const override;
  std::string extra_repr() const override;
  Attrs config() const override;

  int64_t directions() const { return options.bidirectional ? 2 : 1; }
  // The size of what a layer gives in one direction.
  int64_t output_size() const { return options.proj_size > 0 ? options.proj_size : hidden_size; }
  // A parameter by kind ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"), layer and
  // direction; undefined if the network has none of that kind.
  Tensor parameter_of(const std::string& kind, int64_t layer, bool reverse);
  static std::string parameter_name(const std::string& kind, int64_t layer, bool reverse);

  // "lstm", "gru" or "rnn": the operator that runs one layer in one direction.
  virtual const char* op_name() const = 0;
  virtual int64_t gates() const = 0;

  int64_t input_size, hidden_size;
  RecurrentOptions options;

 protected:
  RNNBase(int64_t input_size, int64_t hidden_size, RecurrentOptions options, int64_t gates);
  virtual Attrs op_attrs() const { return {}; }
  // Where forward gets its weights and biases: the parameters, unless the class keeps others
  // (quantized ones).
  virtual Tensor weight_named(const std::string& name) { return tensor(name); }

 private:
  std::vector<Tensor> run(const std::vector<Tensor>& inputs);  // forward of what is not packed
};

class LSTM : public RNNBase {
 public:
  LSTM(int64_t input_size, int64_t hidden_size, RecurrentOptions options = {})
      : RNNBase(input_size, hidden_size, std::move(options), 4) {}
  const char* op_name() const override { return "lstm"; }
  int64_t gates() const override { return 4; }
  static std::shared_ptr<LSTM> from_config(const Attrs& c);
};

class GRU : public RNNBase {
 public:
  GRU(int64_t input_size, int64_t hidden_size, RecurrentOptions options = {})
      : RNNBase(input_size, hidden_size, std::move(options), 3) {}
  const char* op_name() const override { return "gru"; }
  int64_t gates() const override { return 3; }
  static std::shared_ptr<GRU> from_config(const Attrs& c);
};

class RNN : public RNNBase {
 public:
  RNN(int64_t input_size, int64_t hidden_size, RecurrentOptions options = {})
      : RNNBase(input_size, hidden_size, std::move(options), 1) {}
  const char* op_name() const override { return "rnn"; }
  int64_t gates() const override { return 1; }
  static std::shared_ptr<RNN> from_config(const Attrs& c);

 protected:
  Attrs op_attrs() const override;
};

// One step. Inputs: x (N, input_size) or (input_size); then optionally the hidden state and, of an
// LSTMCell, the cell state, (N, hidden_size); zeros if they are left off. Results: the next hidden
// state (and cell state).
class RNNCellBase : public Module {
 public:
  Tensor forward(Tensor x) override;  // the hidden state only
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  virtual const char* op_name() const = 0;

  int64_t input_size, hidden_size;
  // (gates * hidden_size, input_size), (gates * hidden_size, hidden_size)
  Parameter weight_ih, weight_hh;
  Parameter bias_ih, bias_hh;  // (gates * hidden_size); undefined without biases
  bool has_bias;

 protected:
  RNNCellBase(int64_t input_size, int64_t hidden_size, bool bias, int64_t gates);
  virtual Attrs op_attrs() const { return {}; }
  virtual Tensor weight_named(const std::string& name) { return tensor(name); }  // as RNNBase's
};

class LSTMCell : public RNNCellBase {
 public:
  LSTMCell(int64_t input_size, int64_t hidden_size, bool bias = true)
      : RNNCellBase(input_size, hidden_size, bias, 4) {}
  const char* op_name() const override { return "lstm"; }
  static std::shared_ptr<LSTMCell> from_config(const Attrs& c);
};

class GRUCell : public RNNCellBase {
 public:
  GRUCell(int64_t input_size, int64_t hidden_size, bool bias = true)
      : RNNCellBase(input_size, hidden_size, bias, 3) {}
  const char* op_name() const override { return "gru"; }
  static std::shared_ptr<GRUCell> from_config(const Attrs& c);
};

class RNNCell : public RNNCellBase {
 public:
  RNNCell(int64_t input_size, int64_t hidden_size, bool bias = true,
          std::string nonlinearity = "tanh");
  const char* op_name() const override { return "rnn"; }
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<RNNCell> from_config(const Attrs& c);
  std::string nonlinearity;

 protected:
  Attrs op_attrs() const override;
};

}  // namespace octet::nn
