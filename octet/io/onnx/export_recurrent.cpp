// Writers of recurrent layers: one direction each, the gates in ONNX's order.
#include <onnx/onnx_pb.h>

#include <algorithm>

#include "octet/io/onnx/exporter_impl.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// A float32 constant operand; the call is unsupported otherwise.
const Tensor& constant_operand(const CallView& c, size_t i, const char* what) {
  graph::ValueId id = c.node.inputs[i];
  if (!c.graph.is_constant(id) || c.graph.type(id).dtype != DType::float32)
    throw Exporter::Unsupported{fmt::format(
        "{} that is no float32 constant: of codes there are LSTMs only (com.microsoft's)", what)};
  return c.graph.constant(id);
}

// Blocks of `hidden` rows of (gates * hidden, ...) in ONNX's order: block i is octet's block
// order[i].
Tensor reordered(const Tensor& weight, const std::vector<int64_t>& order) {
  Tensor from = weight.contiguous(), to = Tensor::empty(from.shape(), from.dtype());
  const int64_t rows = from.size(0) / std::ssize(order);
  for (size_t i = 0; i < order.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    to.slice(0, at * rows, (at + 1) * rows)
        .copy_from(from.slice(0, order[i] * rows, (order[i] + 1) * rows));
  }
  return to;
}

// A weight of 8-bit codes as DynamicQuantizeLSTM has it: the codes as (directions, columns, rows),
// and a scale and a zero point for the direction or for each row.
struct CodesOfWeight {
  CodesOfWeight(const CallView& c, size_t i, const std::vector<int64_t>& order) {
    const graph::ValueId id = c.node.inputs[i];
    if (!c.graph.is_constant(id) || !is_8_bit(c.graph.type(id).dtype))
      throw Exporter::Unsupported{"a weight that is no constant of 8 bits"};
    const Tensor& weight = c.graph.constant(id);
    const Quantizer& q = *weight.quantizer();
    codes = reordered(weight.int_repr(), order).transpose(0, 1).contiguous().unsqueeze(0);
    const auto count = std::ssize(q.scales());
    scale = Tensor::from(std::vector<float>(q.scales().begin(), q.scales().end()), {count});
    zero_point = Tensor::from(q.zero_points(), {count}).to(codes.dtype());
    if (!q.is_per_channel()) return;
    scale = reordered(scale, order).unsqueeze(0);
    zero_point = reordered(zero_point, order).unsqueeze(0);
  }
  Tensor codes, scale, zero_point;
};

// A state to begin with that ONNX need not be told.
bool is_zeros(const CallView& c, size_t i) {
  const graph::ValueId id = c.node.inputs[i];
  if (!c.graph.is_constant(id) || c.type(i).dtype != DType::float32) return false;
  const std::vector<float> values = c.graph.constant(id).to_vector<float>();
  return std::all_of(values.begin(), values.end(), [](float v) { return v == 0; });
}

void write_recurrent(Exporter& ex, const CallView& c) {
  const bool lstm = c.node.op == "lstm", gru = c.node.op == "gru";
  const size_t weights = lstm ? 3 : 2, lengths = weights + (lstm ? 5 : 4);
  if (lstm && c.has(weights + 4)) throw Exporter::Unsupported{"an LSTM with a projection"};
  // octet: input, forget, candidate, output; reset, update, new. ONNX: input, output, forget,
  // candidate; update, reset, new.
  const std::vector<int64_t> order = lstm  ? std::vector<int64_t>{0, 3, 1, 2}
                                     : gru ? std::vector<int64_t>{1, 0, 2}
                                           : std::vector<int64_t>{0};
  const int64_t rows = c.type(weights).dims[0].size(), hidden = c.type(weights + 1).dims[1].size();
  const bool codes = lstm && c.type(weights).is_quantized();
  if (codes && c.attrs().get_bool("reduce_range"))
    throw Exporter::Unsupported{
        "it quantizes its operands to 7 bits, which ONNX has no operator for"};
  Names in{c.in[0]}, qparams;
  for (const auto& [i, name] : {std::pair{weights, ".W"}, {weights + 1, ".R"}}) {
    if (!codes) {
      const Tensor w = reordered(constant_operand(c, i, "a weight"), order);
      in.push_back(ex.initializer(c.out[0] + name, w.unsqueeze(0)));
      continue;
    }
    const CodesOfWeight w(c, i, order);
    in.push_back(ex.initializer(c.out[0] + name, w.codes));
    qparams.push_back(ex.initializer(c.out[0] + name + ".scale", w.scale));
    qparams.push_back(ex.initializer(c.out[0] + name + ".zero_point", w.zero_point));
  }
  in.resize(7);
  if (c.has(weights + 2) || c.has(weights + 3)) {
    Tensor b = Tensor::zeros({1, 2 * rows});
    for (int64_t half : {0, 1})
      if (const size_t i = weights + 2 + static_cast<size_t>(half); c.has(i))
        b.slice(1, half * rows, (half + 1) * rows)
            .copy_from(reordered(constant_operand(c, i, "a bias"), order).unsqueeze(0));
    in[3] = ex.initializer(c.out[0] + ".B", b);
  }
  if (c.has(lengths))
    in[4] = ex.step(c, "Cast", {c.in[lengths]}, {{"to", int64_t{onnx::TensorProto::INT32}}});
  const Names axis{ex.ints(c, "axes", {0})};
  for (size_t i = 1; i < weights; ++i)
    if (!is_zeros(c, i)) in[4 + i] = ex.step(c, "Unsqueeze", {c.in[i], axis[0]});
  OnnxAttrs attrs{{"direction", std::string(c.attrs().get_bool("reverse") ? "reverse" : "forward")},
                  {"hidden_size", hidden}};
  if (gru)
    attrs.push_back(
        {"linear_before_reset", static_cast<int64_t>(c.attrs().get_bool("reset_after"))});
  if (c.node.op == "rnn" && c.attrs().get_string("nonlinearity") == "relu")
    attrs.push_back({"activations", std::vector<std::string>{"Relu"}});
  Names results;
  for (size_t i = 0; i < c.out.size(); ++i)
    results.push_back(ex.fresh(c, i == 0 ? "Y" : i == 1 ? "Y_h" : "Y_c"));
  if (codes) {
    in.emplace_back();  // no peepholes
    in.insert(in.end(), qparams.begin(), qparams.end());
    ex.add_microsoft(c, "DynamicQuantizeLSTM", in, results, attrs);
  } else {
    ex.add_many(c, lstm ? "LSTM" : gru ? "GRU" : "RNN", in, results, attrs);
  }
  // Y is (steps, directions, batch, hidden), the states (directions, batch, hidden).
  for (size_t i = 0; i < c.out.size(); ++i) {
    const std::string where = i == 0 ? ex.ints(c, "axes", {1}) : axis[0];
    ex.add_many(c, "Squeeze", {results[i], where}, {c.out[i]}, {});
  }
}

}  // namespace

void add_recurrent_writers(std::unordered_map<std::string, Writer>& w) {
  for (const char* op : {"lstm", "gru", "rnn"}) w[op] = write_recurrent;
}

}  // namespace octet::io::onnx_impl
