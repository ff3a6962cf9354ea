#include "octet/nn/rnn.h"

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/packed_sequence.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"

namespace octet::nn {

OCTET_MODULE(RNN)
OCTET_MODULE(LSTM)
OCTET_MODULE(GRU)
OCTET_MODULE(RNNCell)
OCTET_MODULE(LSTMCell)
OCTET_MODULE(GRUCell)

namespace {

void check_nonlinearity(const std::string& name) {
  OCTET_CHECK(name == "tanh" || name == "relu", invalid_argument,
              "nonlinearity=\"{}\"; expected \"tanh\" or \"relu\"", name);
}

// A state given by the caller, or zeros. `row`: (N, features), for its N: a model that is traced is
// to hold for any.
Tensor state_or_zeros(const std::vector<Tensor>& inputs, size_t i, const Shape& shape,
                      bool unbatched, int64_t batch_at, const std::string& who, const Tensor& row) {
  if (i >= inputs.size() || !inputs[i].defined())
    return row.is_symbolic() ? functional::clamp(row.slice(1, 0, 1), 0, 0).expand(shape)
                             : Tensor::zeros(shape);
  Tensor state = unbatched ? inputs[i].unsqueeze(batch_at) : inputs[i];
  OCTET_CHECK(state.shape() == shape, invalid_argument, "{}: state {} has shape {}; expected {}",
              who, i - 1, octet::to_string(inputs[i].shape()), octet::to_string(shape));
  return state;
}

}  // namespace

RNNBase::RNNBase(int64_t in, int64_t hidden, RecurrentOptions o, int64_t gates)
    : input_size(in), hidden_size(hidden), options(std::move(o)) {
  OCTET_CHECK(
      in >= 1 && hidden >= 1 && options.num_layers >= 1, invalid_argument,
      "recurrent network of input_size={}, hidden_size={}, num_layers={}; expected 1 or more", in,
      hidden, options.num_layers);
  OCTET_CHECK(options.proj_size >= 0 && options.proj_size < hidden &&
                  (options.proj_size == 0 || gates == 4),
              invalid_argument, "proj_size={}: expected 0, or less than hidden_size={} of an LSTM",
              options.proj_size, hidden);
  OCTET_CHECK(options.dropout >= 0 && options.dropout <= 1, invalid_argument,
              "dropout={}; expected a probability, 0 to 1", options.dropout);
  check_nonlinearity(options.nonlinearity);
  for (int64_t layer = 0; layer < options.num_layers; ++layer)
    for (int64_t d = 0; d < directions(); ++d) {
      auto add = [&](const char* kind, const Shape& shape) {
        register_parameter(parameter_name(kind, layer, d == 1),
                           init::uniform_fan_in(shape, hidden));
      };
      add("weight_ih", {gates * hidden, layer == 0 ? in : output_size() * directions()});
      add("weight_hh", {gates * hidden, output_size()});
      if (options.bias) {
        add("bias_ih", {gates * hidden});
        add("bias_hh", {gates * hidden});
      }
      if (options.proj_size > 0) add("weight_hr", {options.proj_size, hidden});
    }
}

std::string RNNBase::parameter_name(const std::string& kind, int64_t layer, bool reverse) {
  return fmt::format("{}_l{}{}", kind, layer, reverse ? "_reverse" : "");
}

Tensor RNNBase::parameter_of(const std::string& kind, int64_t layer, bool reverse) {
  bool none =
      kind == "weight_hr" ? options.proj_size == 0 : kind.starts_with("bias") && !options.bias;
  return none ? Tensor() : weight_named(parameter_name(kind, layer, reverse));
}

Tensor RNNBase::forward(Tensor x) { return forward(std::vector<Tensor>{std::move(x)}).at(0); }

std::vector<Tensor> RNNBase::forward(std::vector<Tensor> inputs) {
  if (!utils::detail::is_packed(inputs)) return run(inputs);
  return utils::detail::run_packed(inputs, gates() == 4 ? 2 : 1, type_name(),
                                   [this](const std::vector<Tensor>& one) { return run(one); });
}

std::vector<Tensor> RNNBase::run(const std::vector<Tensor>& inputs) {
  const bool has_cell = gates() == 4;
  OCTET_CHECK(!inputs.empty() && inputs.size() <= (has_cell ? 3 : 2), invalid_argument,
              "{}: {} inputs given; it takes x and {}", type_name(), inputs.size(),
              has_cell ? "two states" : "a state");
  Tensor x = inputs[0];
  OCTET_CHECK((x.dim() == 2 || x.dim() == 3) && x.size(-1) == input_size, invalid_argument,
              "{}: the input is {}; expected ({}{}) or (T, {})", type_name(),
              octet::to_string(x.type()), options.batch_first ? "N, T, " : "T, N, ", input_size,
              input_size);
  const bool unbatched = x.dim() == 2, swapped = options.batch_first && !unbatched;
  if (unbatched) x = x.unsqueeze(1);
  if (swapped) x = x.transpose(0, 1);
  const int64_t batch = x.size(1), count = options.num_layers * directions();
  const Tensor first = x.is_symbolic() ? x.select(0, 0) : x;
  Tensor h0 =
      state_or_zeros(inputs, 1, {count, batch, output_size()}, unbatched, 1, type_name(), first);
  Tensor c0 = has_cell ? state_or_zeros(inputs, 2, {count, batch, hidden_size}, unbatched, 1,
                                        type_name(), first)
                       : Tensor();
  std::vector<Tensor> h, c;
  for (int64_t layer = 0; layer < options.num_layers; ++layer) {
    if (layer > 0) x = functional::dropout(x, options.dropout, training());
    std::vector<Tensor> ys;
    for (int64_t d = 0; d < directions(); ++d) {
      const int64_t at = layer * directions() + d;
      std::vector<Tensor> operands{x, h0.select(0, at)};
      if (has_cell) operands.push_back(c0.select(0, at));
      for (const char* kind : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"})
        operands.push_back(parameter_of(kind, layer, d == 1));
      if (options.proj_size > 0) operands.push_back(parameter_of("weight_hr", layer, d == 1));
      std::vector<Tensor> results =
          ops::call_all(op_name(), operands, op_attrs().set("reverse", d == 1));
      ys.push_back(results[0]);
      h.push_back(results[1]);
      if (has_cell) c.push_back(results[2]);
    }
    x = ys.size() == 1 ? ys[0] : functional::cat(ys, 2);
  }
  if (swapped) x = x.transpose(0, 1);
  if (unbatched) x = x.squeeze(1);
  auto stacked = [&](const std::vector<Tensor>& states) {
    Tensor s = functional::stack(states, 0);
    return unbatched ? s.squeeze(1) : s;
  };
  if (has_cell) return {x, stacked(h), stacked(c)};
  return {x, stacked(h)};
}

std::optional<std::vector<TensorType>> RNNBase::infer(const std::vector<TensorType>& inputs) const {
  if (utils::detail::is_packed(inputs)) utils::detail::fail_traced(type_name());
  return std::nullopt;
}

std::string RNNBase::extra_repr() const {
  std::string s = fmt::format("{}, {}", input_size, hidden_size);
  if (options.proj_size != 0) s += fmt::format(", proj_size={}", options.proj_size);
  if (options.num_layers != 1) s += fmt::format(", num_layers={}", options.num_layers);
  if (!options.bias) s += ", bias=False";
  if (options.batch_first) s += ", batch_first=True";
  if (options.dropout != 0) s += fmt::format(", dropout={}", options.dropout);
  if (options.bidirectional) s += ", bidirectional=True";
  return s;
}

Attrs RNNBase::config() const {
  return {{"input_size", input_size},
          {"hidden_size", hidden_size},
          {"num_layers", options.num_layers},
          {"bias", options.bias},
          {"batch_first", options.batch_first},
          {"dropout", options.dropout},
          {"bidirectional", options.bidirectional},
          {"proj_size", options.proj_size},
          {"nonlinearity", options.nonlinearity}};
}

namespace {
template <typename M>
std::shared_ptr<M> recurrent_from(const Attrs& c) {
  return make<M>(c.get_int("input_size"), c.get_int("hidden_size"),
                 RecurrentOptions{.num_layers = c.get_int("num_layers"),
                                  .bias = c.get_bool("bias"),
                                  .batch_first = c.get_bool("batch_first"),
                                  .dropout = c.get_double("dropout"),
                                  .bidirectional = c.get_bool("bidirectional"),
                                  .proj_size = c.get_int("proj_size"),
                                  .nonlinearity = c.get_string("nonlinearity")});
}
}  // namespace

std::shared_ptr<LSTM> LSTM::from_config(const Attrs& c) { return recurrent_from<LSTM>(c); }
std::shared_ptr<GRU> GRU::from_config(const Attrs& c) { return recurrent_from<GRU>(c); }
std::shared_ptr<RNN> RNN::from_config(const Attrs& c) { return recurrent_from<RNN>(c); }

// -- cells ----------------------------------------------------------------------------------------

RNNCellBase::RNNCellBase(int64_t in, int64_t hidden, bool bias, int64_t gates)
    : input_size(in),
      hidden_size(hidden),
      weight_ih(parameter("weight_ih", init::uniform_fan_in({gates * hidden, in}, hidden))),
      weight_hh(parameter("weight_hh", init::uniform_fan_in({gates * hidden, hidden}, hidden))),
      bias_ih(
          parameter("bias_ih", bias ? init::uniform_fan_in({gates * hidden}, hidden) : Tensor())),
      bias_hh(
          parameter("bias_hh", bias ? init::uniform_fan_in({gates * hidden}, hidden) : Tensor())),
      has_bias(bias) {
  OCTET_CHECK(in >= 1 && hidden >= 1, invalid_argument,
              "recurrent cell of input_size={}, hidden_size={}; expected 1 or more", in, hidden);
}

Tensor RNNCellBase::forward(Tensor x) { return forward(std::vector<Tensor>{std::move(x)}).at(0); }

std::vector<Tensor> RNNCellBase::forward(std::vector<Tensor> inputs) {
  const bool has_cell = std::string_view(op_name()) == "lstm";
  OCTET_CHECK(!inputs.empty() && inputs.size() <= (has_cell ? 3 : 2), invalid_argument,
              "{}: {} inputs given; it takes x and {}", type_name(), inputs.size(),
              has_cell ? "two states" : "a state");
  Tensor x = inputs[0];
  OCTET_CHECK((x.dim() == 1 || x.dim() == 2) && x.size(-1) == input_size, invalid_argument,
              "{}: the input is {}; expected (N, {}) or ({})", type_name(),
              octet::to_string(x.type()), input_size, input_size);
  const bool unbatched = x.dim() == 1;
  if (unbatched) x = x.unsqueeze(0);
  std::vector<Tensor> operands{x.unsqueeze(0)};  // a sequence of one step
  for (size_t i = 1; i <= (has_cell ? 2 : 1); ++i)
    operands.push_back(
        state_or_zeros(inputs, i, {x.size(0), hidden_size}, unbatched, 0, type_name(), x));
  for (const char* name : {"weight_ih", "weight_hh"}) operands.push_back(weight_named(name));
  for (const char* name : {"bias_ih", "bias_hh"})
    operands.push_back(has_bias ? weight_named(name) : Tensor());
  std::vector<Tensor> results = ops::call_all(op_name(), operands, op_attrs());
  results.erase(results.begin());  // y is the hidden state
  if (unbatched)
    for (Tensor& r : results) r = r.squeeze(0);
  return results;
}

std::string RNNCellBase::extra_repr() const {
  return fmt::format("{}, {}{}", input_size, hidden_size, has_bias ? "" : ", bias=False");
}
Attrs RNNCellBase::config() const {
  return {{"input_size", input_size}, {"hidden_size", hidden_size}, {"bias", has_bias}};
}

namespace {
template <typename M>
std::shared_ptr<M> cell_from(const Attrs& c) {
  return make<M>(c.get_int("input_size"), c.get_int("hidden_size"), c.get_bool("bias"));
}
}  // namespace
std::shared_ptr<LSTMCell> LSTMCell::from_config(const Attrs& c) { return cell_from<LSTMCell>(c); }
std::shared_ptr<GRUCell> GRUCell::from_config(const Attrs& c) { return cell_from<GRUCell>(c); }

RNNCell::RNNCell(int64_t in, int64_t hidden, bool bias, std::string name)
    : RNNCellBase(in, hidden, bias, 1), nonlinearity(std::move(name)) {
  check_nonlinearity(nonlinearity);
}
std::string RNNCell::extra_repr() const {
  return RNNCellBase::extra_repr() +
         (nonlinearity == "tanh" ? "" : ", nonlinearity=" + nonlinearity);
}
Attrs RNNCell::config() const { return RNNCellBase::config().set("nonlinearity", nonlinearity); }
std::shared_ptr<RNNCell> RNNCell::from_config(const Attrs& c) {
  return make<RNNCell>(c.get_int("input_size"), c.get_int("hidden_size"), c.get_bool("bias"),
                       c.get_string("nonlinearity"));
}

Attrs RNN::op_attrs() const { return {{"nonlinearity", options.nonlinearity}}; }
Attrs RNNCell::op_attrs() const { return {{"nonlinearity", nonlinearity}}; }

}  // namespace octet::nn
