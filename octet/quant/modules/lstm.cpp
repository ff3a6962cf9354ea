#include "octet/quant/modules/lstm.h"

#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/nn/containers.h"
#include "octet/nn/init.h"
#include "octet/nn/linear.h"
#include "octet/nn/packed_sequence.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/float_functional.h"

namespace octet::nn {
namespace {

using quantized::FloatFunctional;

FloatFunctional& functional_of(const Slot& slot) { return slot.as<FloatFunctional>(); }

// Zeros of a kind with x: for codes of scale 1, whose code 0 is 0 (as PyTorch's).
Tensor zeros_like_kind(const Tensor& x, const Shape& shape) {
  Tensor zeros = Tensor::zeros(shape);
  return x.is_quantized() ? quantize_per_tensor(zeros, 1, 0, x.dtype()) : zeros;
}

// Tensors put into one along dim; quantized ones with the least range that holds all of theirs.
Tensor joined(const std::vector<Tensor>& parts, int64_t dim) {
  if (!parts[0].is_quantized()) return parts.size() == 1 ? parts[0] : functional::cat(parts, dim);
  const DType dtype = parts[0].dtype();
  const QuantizerPtr first = parts[0].quantizer();
  double low = 0, high = 0;
  for (const Tensor& p : parts) {
    low = std::min(low, p.q_scale() * static_cast<double>(qmin(dtype) - p.q_zero_point()));
    high = std::max(high, p.q_scale() * static_cast<double>(qmax(dtype) - p.q_zero_point()));
  }
  const bool same = std::all_of(parts.begin(), parts.end(),
                                [&](const Tensor& p) { return *p.quantizer() == *first; });
  auto [scale, zero] =
      quant::choose_qparams(static_cast<float>(low), static_cast<float>(high), {.dtype = dtype});
  return ops::call("cat", parts, {{"dim", dim}},
                   same ? ops::QType{dtype, first} : quant::result_type(scale, zero, dtype));
}

// Of codes: with the least range that holds the results for all codes of x, not +-1. Small states
// stay accurate.
Tensor tanh_of(const Tensor& x) {
  if (!x.is_quantized()) return functional::tanh(x);
  auto end = [&](int64_t code) {
    return static_cast<float>(
        std::tanh(x.q_scale() * static_cast<double>(code - x.q_zero_point())));
  };
  auto [scale, zero] =
      quant::choose_qparams(end(qmin(x.dtype())), end(qmax(x.dtype())), {.dtype = x.dtype()});
  return ops::call("tanh", {x}, {}, quant::result_type(scale, zero, x.dtype()));
}

Tensor stacked(const std::vector<Tensor>& parts) {
  std::vector<Tensor> rows;
  for (const Tensor& p : parts) rows.push_back(p.unsqueeze(0));
  return joined(rows, 0);
}

// A state given by the caller, or zeros.
Tensor state_of(const std::vector<Tensor>& inputs, size_t i, const Shape& shape, bool unbatched,
                int64_t batch_at, const std::string& who) {
  if (i >= inputs.size() || !inputs[i].defined()) return zeros_like_kind(inputs[0], shape);
  Tensor state = unbatched ? inputs[i].unsqueeze(batch_at) : inputs[i];
  OCTET_CHECK(state.shape() == shape && state.is_quantized() == inputs[0].is_quantized(),
              invalid_argument, "{}: state {} is {}; expected {} of shape {}, as x is {}", who,
              i - 1, octet::to_string(inputs[i].type()),
              inputs[0].is_quantized() ? "codes" : "floats", octet::to_string(shape),
              octet::to_string(inputs[0].dtype()));
  return state;
}

}  // namespace

namespace quantizable {

OCTET_MODULE(LSTMCell)
OCTET_MODULE(LSTMSingleLayer)
OCTET_MODULE(LSTMLayer)
OCTET_MODULE(LSTM)

// -- one step -------------------------------------------------------------------------------------

LSTMCell::LSTMCell(int64_t in, int64_t hidden, bool bias, int64_t proj)
    : input_size(in),
      hidden_size(hidden),
      proj_size(proj),
      has_bias(bias),
      igates(slot("igates", Linear(in, 4 * hidden, bias))),
      hgates(slot("hgates", Linear(proj > 0 ? proj : hidden, 4 * hidden, bias))),
      gates(slot("gates", FloatFunctional())),
      fgate_cx(slot("fgate_cx", FloatFunctional())),
      igate_cgate(slot("igate_cgate", FloatFunctional())),
      fgate_cx_igate_cgate(slot("fgate_cx_igate_cgate", FloatFunctional())),
      ogate_cy(slot("ogate_cy", FloatFunctional())) {
  if (proj > 0) add_child("projection", make<Linear>(hidden, proj, false));
}

std::vector<Tensor> LSTMCell::step(const Tensor& x, const Tensor& h, const Tensor& c) {
  Tensor sums = functional_of(gates).add(igates(x), hgates(h));
  auto gate = [&](int64_t i) { return sums.slice(1, i * hidden_size, (i + 1) * hidden_size); };
  Tensor in = functional::sigmoid(gate(0)), forget = functional::sigmoid(gate(1)),
         candidate = tanh_of(gate(2)), out = functional::sigmoid(gate(3));
  Tensor kept = functional_of(fgate_cx).mul(forget, c),
         added = functional_of(igate_cgate).mul(in, candidate);
  Tensor cell = functional_of(fgate_cx_igate_cgate).add(kept, added);
  Tensor hidden = functional_of(ogate_cy).mul(out, tanh_of(cell));
  return {proj_size > 0 ? (*submodule("projection"))(hidden) : hidden, cell};
}

std::vector<Tensor> LSTMCell::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(!inputs.empty() && inputs.size() <= 3, invalid_argument,
              "{}: {} inputs given; it takes x and two states", type_name(), inputs.size());
  const bool unbatched = inputs[0].dim() == 1;
  Tensor x = unbatched ? inputs[0].unsqueeze(0) : inputs[0];
  OCTET_CHECK(x.dim() == 2 && x.size(1) == input_size, invalid_argument,
              "{}: the input is {}; expected (N, {}) or ({})", type_name(),
              octet::to_string(inputs[0].type()), input_size, input_size);
  Tensor h = state_of(inputs, 1, {x.size(0), proj_size > 0 ? proj_size : hidden_size}, unbatched, 0,
                      type_name());
  Tensor c = state_of(inputs, 2, {x.size(0), hidden_size}, unbatched, 0, type_name());
  std::vector<Tensor> results = step(x, h, c);
  if (unbatched)
    for (Tensor& r : results) r = r.squeeze(0);
  return results;
}

void LSTMCell::set_weights(const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih,
                           const Tensor& b_hh, const Tensor& w_hr) {
  auto put = [](Module& linear, const Tensor& weight, const Tensor& bias) {
    linear.tensor("weight").detach().copy_from(weight.detach());
    if (bias.defined()) linear.tensor("bias").detach().copy_from(bias.detach());
  };
  put(*igates, w_ih, b_ih);
  put(*hgates, w_hh, b_hh);
  if (proj_size > 0) put(*submodule("projection"), w_hr, Tensor());
}

std::shared_ptr<LSTMCell> LSTMCell::from_float(nn::LSTMCell& cell) {
  init::Skip skip;
  auto made = make<LSTMCell>(cell.input_size, cell.hidden_size, cell.has_bias);
  made->set_weights(cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh, Tensor());
  made->train(cell.training());
  return made;
}

Attrs LSTMCell::config() const {
  return {{"input_size", input_size},
          {"hidden_size", hidden_size},
          {"bias", has_bias},
          {"proj_size", proj_size}};
}
std::shared_ptr<LSTMCell> LSTMCell::from_config(const Attrs& c) {
  return make<LSTMCell>(c.get_int("input_size"), c.get_int("hidden_size"), c.get_bool("bias"),
                        c.get_int("proj_size"));
}

// -- layers ---------------------------------------------------------------------------------------

std::vector<Tensor> LSTMSingleLayer::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(inputs.size() == 3, invalid_argument,
              "{}: {} inputs given; it takes x and two states", type_name(), inputs.size());
  auto& each = cell.as<LSTMCell>();
  std::vector<Tensor> ys, states{inputs[1], inputs[2]};
  for (int64_t t = 0; t < inputs[0].size(0); ++t) {
    states = each.step(inputs[0].select(0, t), states[0], states[1]);
    ys.push_back(states[0]);
  }
  return {stacked(ys), states[0], states[1]};
}

std::shared_ptr<LSTMSingleLayer> LSTMSingleLayer::from_config(const Attrs& c) {
  return make<LSTMSingleLayer>(LSTMCell::from_config(c));
}

LSTMLayer::LSTMLayer(std::shared_ptr<LSTMCell> forward, std::shared_ptr<LSTMCell> backward) {
  add_child("layer_fw", make<LSTMSingleLayer>(std::move(forward)));
  if (backward) add_child("layer_bw", make<LSTMSingleLayer>(std::move(backward)));
}

Attrs LSTMLayer::config() const {
  return direction(false).config().set("bidirectional", has_submodule("layer_bw"));
}

std::shared_ptr<LSTMLayer> LSTMLayer::from_config(const Attrs& c) {
  return make<LSTMLayer>(LSTMCell::from_config(c),
                         c.get_bool("bidirectional") ? LSTMCell::from_config(c) : nullptr);
}

// -- the network ----------------------------------------------------------------------------------

LSTM::LSTM(int64_t in, int64_t hidden, RecurrentOptions o)
    : input_size(in),
      hidden_size(hidden),
      options(std::move(o)),
      layers(slot("layers", ModuleList())) {
  OCTET_CHECK(in >= 1 && hidden >= 1 && options.num_layers >= 1 && options.proj_size >= 0 &&
                  options.proj_size < hidden,
              invalid_argument,
              "LSTM of input_size={}, hidden_size={}, num_layers={}, proj_size={}; expected 1 or "
              "more, and proj_size below hidden_size",
              in, hidden, options.num_layers, options.proj_size);
  for (int64_t i = 0; i < options.num_layers; ++i) {
    auto cell = [&] {
      return make<LSTMCell>(i == 0 ? in : output_size() * directions(), hidden, options.bias,
                            options.proj_size);
    };
    layers.as<ModuleList>().append(
        make<LSTMLayer>(cell(), options.bidirectional ? cell() : nullptr));
  }
}

std::shared_ptr<LSTM> LSTM::from_float(nn::LSTM& network) {
  init::Skip skip;
  auto made = make<LSTM>(network.input_size, network.hidden_size, network.options);
  for (int64_t i = 0; i < network.options.num_layers; ++i)
    for (bool reverse : {false, true}) {
      if (reverse && !network.options.bidirectional) continue;
      auto of = [&](const char* kind) { return network.parameter_of(kind, i, reverse); };
      made->layers.as<ModuleList>()[static_cast<size_t>(i)]
          .as<LSTMLayer>()
          .direction(reverse)
          .cell.as<LSTMCell>()
          .set_weights(of("weight_ih"), of("weight_hh"), of("bias_ih"), of("bias_hh"),
                       of("weight_hr"));
    }
  made->train(network.training());
  return made;
}

std::optional<std::vector<TensorType>> LSTM::infer(const std::vector<TensorType>& inputs) const {
  if (utils::detail::is_packed(inputs)) utils::detail::fail_traced(type_name());
  return std::nullopt;
}

std::vector<Tensor> LSTM::forward(std::vector<Tensor> inputs) {
  if (!utils::detail::is_packed(inputs)) return run(inputs);
  return utils::detail::run_packed(inputs, 2, type_name(),
                                   [this](const std::vector<Tensor>& one) { return run(one); });
}

std::vector<Tensor> LSTM::run(const std::vector<Tensor>& inputs) {
  OCTET_CHECK(!inputs.empty() && inputs.size() <= 3, invalid_argument,
              "{}: {} inputs given; it takes x and two states", type_name(), inputs.size());
  Tensor x = inputs[0];
  OCTET_CHECK((x.dim() == 2 || x.dim() == 3) && x.size(-1) == input_size, invalid_argument,
              "{}: the input is {}; expected ({}{}) or (T, {})", type_name(),
              octet::to_string(x.type()), options.batch_first ? "N, T, " : "T, N, ", input_size,
              input_size);
  const bool unbatched = x.dim() == 2, swapped = options.batch_first && !unbatched;
  if (unbatched) x = x.unsqueeze(1);
  if (swapped) x = x.transpose(0, 1);
  OCTET_CHECK(x.size(0) >= 1, invalid_argument, "{}: the input is {}; expected at least one step",
              type_name(), octet::to_string(inputs[0].type()));
  const int64_t count = options.num_layers * directions();
  Tensor h0 = state_of(inputs, 1, {count, x.size(1), output_size()}, unbatched, 1, type_name());
  Tensor c0 = state_of(inputs, 2, {count, x.size(1), hidden_size}, unbatched, 1, type_name());
  std::vector<Tensor> h, c;
  for (int64_t i = 0; i < options.num_layers; ++i) {
    if (i > 0) x = functional::dropout(x, options.dropout, training());
    auto& layer = layers.as<ModuleList>()[static_cast<size_t>(i)].as<LSTMLayer>();
    std::vector<Tensor> ys;
    for (int64_t d = 0; d < directions(); ++d) {
      auto backwards = [&](const Tensor& t) {
        if (d == 0) return t;
        std::vector<int64_t> order;
        for (int64_t step = t.size(0); step-- > 0;) order.push_back(step);
        const auto steps = static_cast<int64_t>(order.size());
        return ops::call("index_select", {t, Tensor::from(order, {steps})}, {{"dim", int64_t{0}}});
      };
      const int64_t at = i * directions() + d;
      std::vector<Tensor> results =
          layer.direction(d == 1)({backwards(x), h0.select(0, at), c0.select(0, at)});
      ys.push_back(backwards(results[0]));
      h.push_back(results[1]);
      c.push_back(results[2]);
    }
    x = joined(ys, 2);
  }
  if (swapped) x = x.transpose(0, 1);
  if (unbatched) x = x.squeeze(1);
  Tensor hn = stacked(h), cn = stacked(c);
  return {x, unbatched ? hn.squeeze(1) : hn, unbatched ? cn.squeeze(1) : cn};
}

Attrs LSTM::config() const {
  return {{"input_size", input_size},
          {"hidden_size", hidden_size},
          {"num_layers", options.num_layers},
          {"bias", options.bias},
          {"batch_first", options.batch_first},
          {"dropout", options.dropout},
          {"bidirectional", options.bidirectional},
          {"proj_size", options.proj_size}};
}

namespace {
template <typename M>
std::shared_ptr<M> lstm_from(const Attrs& c) {
  return make<M>(c.get_int("input_size"), c.get_int("hidden_size"),
                 RecurrentOptions{.num_layers = c.get_int("num_layers"),
                                  .bias = c.get_bool("bias"),
                                  .batch_first = c.get_bool("batch_first"),
                                  .dropout = c.get_double("dropout"),
                                  .bidirectional = c.get_bool("bidirectional"),
                                  .proj_size = c.get_int("proj_size")});
}
}  // namespace

std::shared_ptr<LSTM> LSTM::from_config(const Attrs& c) { return lstm_from<LSTM>(c); }

}  // namespace quantizable

namespace quantized {

OCTET_MODULE(LSTM)

std::shared_ptr<LSTM> LSTM::from_observed(quantizable::LSTM& observed) {
  init::Skip skip;
  auto made = make<LSTM>(observed.input_size, observed.hidden_size, observed.options);
  made->layers.set(observed.layers.get());
  return made;
}

std::shared_ptr<LSTM> LSTM::from_config(const Attrs& c) { return quantizable::lstm_from<LSTM>(c); }

}  // namespace quantized
}  // namespace octet::nn
