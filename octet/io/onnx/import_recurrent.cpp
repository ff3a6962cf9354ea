// LSTM, GRU and RNN. ONNX stacks the directions in one operand, octet's operators have one each;
// ONNX orders the gates in another way. Weights are cut and joined by ordinary calls, which fold
// where they are constants.
#include <algorithm>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// What differs between the three operators.
struct CellKind {
  const char* op;              // octet's
  std::vector<int64_t> order;  // octet's gates, by their places in ONNX's
  bool has_cell = false;       // a second state
};

CellKind kind_of(const NodeView& n) {
  // ONNX: input, output, forget, candidate
  if (n.op() == "LSTM" || n.op() == "DynamicQuantizeLSTM") return {"lstm", {0, 2, 3, 1}, true};
  if (n.op() == "GRU") return {"gru", {1, 0, 2}};  // ONNX: update, reset, candidate
  return {"rnn", {0}};
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text;
}

// The activations of a direction: those that octet has, or the node is unsupported. Returns RNN's.
std::string activation_of(const NodeView& n, size_t direction, size_t directions) {
  std::vector<std::string> usual = kind_of(n).has_cell
                                       ? std::vector<std::string>{"sigmoid", "tanh", "tanh"}
                                   : n.op() == "GRU" ? std::vector<std::string>{"sigmoid", "tanh"}
                                                     : std::vector<std::string>{"tanh"};
  std::vector<std::string> given = n.get_strings("activations");
  if (given.empty()) return usual.back();
  if (given.size() != usual.size() * directions)
    n.fail(ErrorCode::corrupt, "{} activations for {} directions; expected {}", given.size(),
           directions, usual.size() * directions);
  for (size_t i = 0; i < usual.size(); ++i) {
    std::string name = lower(given[direction * usual.size() + i]);
    bool relu = n.op() == "RNN" && name == "relu";
    if (name != usual[i] && !relu)
      n.unsupported("the activation {}", given[direction * usual.size() + i]);
    usual[i] = name;
  }
  return usual.back();
}

class Recurrent {
 public:
  Recurrent(Importer& im, const NodeView& n)
      : im_(im), n_(n), kind_(kind_of(n)), gates_(std::ssize(kind_.order)) {}

  void run() {
    ValPtr x = im_.in(n_, 0);
    codes_ = n_.op() == "DynamicQuantizeLSTM";
    w_ = weights(1);
    r_ = weights(2);
    b_ = n_.has_input(3) ? weights(3) : nullptr;
    if (x->rank() != 3 || w_->rank() != 3 || r_->rank() != 3)
      n_.fail(ErrorCode::corrupt, "expected X, W and R of 3 dimensions, got {}, {} and {}",
              to_string(x->type), to_string(w_->type), to_string(r_->type));
    const std::string direction = n_.get_string("direction", "forward");
    if (direction != "forward" && direction != "reverse" && direction != "bidirectional")
      n_.fail(ErrorCode::corrupt, "direction '{}'", direction);
    directions_ = direction == "bidirectional" ? 2 : 1;
    reverse_ = direction == "reverse";
    hidden_ = known_dim(n_, *r_, 2, "R");
    x = with_size(im_, n_, x, 2, known_dim(n_, *w_, 2, "W"));
    check_shapes();
    batch_first_ = n_.get_int("layout", 0) != 0;
    if (batch_first_) x = im_.call(n_, "permute", {x}, {{"dims", std::vector<int64_t>{1, 0, 2}}});
    refuse_what_octet_lacks();

    ValPtr lengths = read_lengths(*x);
    std::vector<std::vector<ValPtr>> results;  // of each direction: y, hn and perhaps cn
    for (int64_t d = 0; d < directions_; ++d) {
      Attrs attrs{{"reverse", direction == "reverse" || d == 1}};
      const std::string activation =
          activation_of(n_, static_cast<size_t>(d), static_cast<size_t>(directions_));
      if (n_.op() == "RNN") attrs.set("nonlinearity", activation);
      if (n_.op() == "GRU") attrs.set("reset_after", n_.get_int("linear_before_reset", 0) != 0);
      std::vector<ValPtr> operands{x, state(x, 5, d)};
      if (kind_.has_cell) operands.push_back(state(x, 6, d));
      operands.push_back(weight(w_, 8, ".w_ih", d));
      operands.push_back(weight(r_, 10, ".w_hh", d));
      if (codes_) attrs.set("rule", std::string("onnx"));
      for (int64_t half : {0, 1}) operands.push_back(bias(d, half));
      if (kind_.has_cell) operands.push_back(nullptr);  // no projection
      operands.push_back(lengths);
      results.push_back(peepholes_ ? with_peepholes(operands, d, attrs.get_bool("reverse"))
                                   : im_.calls(n_, kind_.op, operands, attrs));
    }
    // Y is (steps, directions, batch, hidden), the states (directions, batch, hidden); with
    // layout=1 batch comes first.
    for (size_t i = 0; i < results[0].size(); ++i) {
      if (!im_.wants_output(n_, i)) continue;
      const int64_t dim = i == 0 ? (batch_first_ ? 2 : 1) : (batch_first_ ? 1 : 0);
      std::vector<ValPtr> parts;
      for (const auto& of_direction : results)
        parts.push_back(im_.call(n_, "unsqueeze", {of_direction[i]}, {{"dim", dim}}));
      ValPtr y = parts.size() == 1 ? parts[0] : im_.call(n_, "cat", parts, {{"dim", dim}});
      if (i == 0 && batch_first_)
        y = im_.call(n_, "permute", {y}, {{"dims", std::vector<int64_t>{1, 0, 2, 3}}});
      im_.out(n_, i, y);
    }
  }

 private:
  // Dequantized codes as the numbers they stand for. DynamicQuantizeLSTM has codes, transposed.
  ValPtr weights(size_t i) {
    ValPtr v = im_.in(n_, i);
    if (codes_ && i < 3) {
      v = plain_codes(im_, n_, v);
      if (!v->is_constant() || v->rank() != 3) n_.unsupported("a weight that is not a constant");
      return im_.call(n_, "permute", {v}, {{"dims", std::vector<int64_t>{0, 2, 1}}});
    }
    return v->dequantized ? constant_val(v->name, v->constant.dequantize()) : v;
  }

  void check_shapes() const {
    const int64_t rows = gates_ * hidden_;
    auto check = [&](const Val& v, const char* what, const std::vector<Dim>& dims) {
      if (v.dims() != dims)
        n_.fail(ErrorCode::corrupt, "{} is {}; expected shape {}", what, to_string(v.type),
                to_string(TensorType(DType::float32, dims)));
    };
    if (n_.get_int("hidden_size", hidden_) != hidden_)
      n_.fail(ErrorCode::corrupt, "hidden_size={}, but R is {}", n_.get_int("hidden_size", 0),
              to_string(r_->type));
    check(*w_, "W", {directions_, rows, w_->dims()[2]});
    check(*r_, "R", {directions_, rows, hidden_});
    if (b_) check(*b_, "B", {directions_, 2 * rows});
  }

  void refuse_what_octet_lacks() {
    n_.ignore(
        // of activations that are refused; opset 1's
        {"activation_alpha", "activation_beta", "output_sequence"});
    if (n_.has("clip") && n_.get_float("clip", 0) != 0) n_.unsupported("clip");
    if (n_.get_int("input_forget", 0) != 0) n_.unsupported("input_forget");
    peepholes_ = kind_.has_cell ? im_.optional_in(n_, 7) : nullptr;
    if (peepholes_ && peepholes_->dims() != std::vector<Dim>{directions_, 3 * hidden_})
      n_.fail(ErrorCode::corrupt, "P is {}", to_string(peepholes_->type));
    if (peepholes_ && peepholes_->is_constant()) {
      const std::vector<float> values =
          peepholes_->constant.to(DType::float32).reshape({-1}).to_vector<float>();
      if (std::all_of(values.begin(), values.end(), [](float v) { return v == 0; }))
        peepholes_ = nullptr;
    }
  }

  // An LSTM whose gates also see the cell, step by step: octet's operator has none. Operands as
  // those of "lstm". Results: y, hn and cn.
  std::vector<ValPtr> with_peepholes(const std::vector<ValPtr>& operands, int64_t d,
                                     bool backwards) {
    const auto call = [&](const char* op, const std::vector<ValPtr>& in, const Attrs& attrs = {}) {
      return im_.call(n_, op, in, attrs);
    };
    const auto part = [&](const ValPtr& v, int64_t dim, int64_t i) {
      return call("slice", {v}, {{"dim", dim}, {"start", i * hidden_}, {"end", (i + 1) * hidden_}});
    };
    const ValPtr &x = operands[0], &w_hh = operands[4], &b_ih = operands[5], &b_hh = operands[6],
                 &lengths = operands.back();
    const int64_t steps = known_dim(n_, *x, 0, "an LSTM with peepholes");
    constexpr int64_t kMostSteps = 4096;
    if (steps < 1 || steps > kMostSteps) n_.unsupported("peepholes and {} steps", steps);
    ValPtr h = operands[1], c = operands[2], of_d = slice_of(peepholes_, d);
    ValPtr to_input = part(of_d, 0, 0), to_output = part(of_d, 0, 1), to_forget = part(of_d, 0, 2);
    ValPtr projected = call("linear", {x, operands[3], b_ih});
    std::vector<ValPtr> ys(static_cast<size_t>(steps));
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t t = backwards ? steps - 1 - i : i;
      ValPtr gates =
          call("slice", {projected}, {{"dim", int64_t{0}}, {"start", t}, {"end", t + 1}});
      gates = call("squeeze", {gates}, {{"dim", int64_t{0}}});
      gates = call("add", {gates, call("linear", {h, w_hh, b_hh})});
      const auto gate = [&](int64_t k, const ValPtr& cell, const ValPtr& peephole) {
        return call("sigmoid", {call("add", {part(gates, 1, k), call("mul", {cell, peephole})})});
      };
      // octet's order: input, forget, candidate, output
      ValPtr kept = call("mul", {gate(1, c, to_forget), c});
      ValPtr fresh = call("mul", {gate(0, c, to_input), call("tanh", {part(gates, 1, 2)})});
      ValPtr cell = call("add", {kept, fresh});
      ValPtr out = call("mul", {gate(3, cell, to_output), call("tanh", {cell})}), y = out;
      if (lengths) {  // what is behind a sequence's end changes nothing and gives 0
        ValPtr alive =
            call("greater", {lengths, im_.scalar(n_, static_cast<double>(t), DType::int64)});
        alive = call("unsqueeze", {alive}, {{"dim", int64_t{1}}});
        y = call("where", {alive, out, im_.scalar(n_, 0)});
        out = call("where", {alive, out, h});
        cell = call("where", {alive, cell, c});
      }
      h = out;
      c = cell;
      ys[static_cast<size_t>(t)] = call("unsqueeze", {y}, {{"dim", int64_t{0}}});
    }
    return {steps == 1 ? ys[0] : call("cat", ys, {{"dim", int64_t{0}}}), h, c};
  }

  // How many steps of each sequence count; null if all do.
  ValPtr read_lengths(const Val& x) {
    ValPtr lengths = im_.optional_in(n_, 4);
    if (!lengths) return nullptr;
    if (lengths->is_constant() && x.dims()[0].known()) {
      std::vector<int64_t> values =
          lengths->constant.to(DType::int64).reshape({-1}).to_vector<int64_t>();
      const int64_t steps = x.dims()[0].size();
      if (std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == steps; }))
        return nullptr;
    }
    return im_.cast(n_, lengths, DType::int64);
  }

  // Direction d of a weight or a state that stacks them along dimension 0.
  ValPtr slice_of(const ValPtr& v, int64_t d) {
    ValPtr part = v;
    if (directions_ > 1)
      part = im_.call(n_, "slice", {part}, {{"dim", int64_t{0}}, {"start", d}, {"end", d + 1}});
    return im_.call(n_, "squeeze", {part}, {{"dim", int64_t{0}}});
  }

  // The gates along dimension 0 in octet's order.
  ValPtr in_order(ValPtr v, const char* suffix, int64_t d) {
    if (gates_ > 1) {
      std::vector<ValPtr> parts;
      for (int64_t gate : kind_.order)
        parts.push_back(im_.call(
            n_, "slice", {v},
            {{"dim", int64_t{0}}, {"start", gate * hidden_}, {"end", (gate + 1) * hidden_}}));
      v = im_.call(n_, "cat", parts, {{"dim", int64_t{0}}});
    }
    if (v->is_constant()) v->name = n_.name() + suffix + (d == 1 || reverse_ ? "_reverse" : "");
    return v;
  }

  // Direction d of W or R; codes with the scale and zero point of inputs `scale` and the next.
  ValPtr weight(const ValPtr& v, size_t scale, const char* suffix, int64_t d) {
    ValPtr w = in_order(slice_of(v, d), suffix, d);
    if (!codes_) return w;
    // One for the direction, or one for each row.
    const auto numbers = [&](size_t i, const char* what) {
      const Tensor all = im_.known(n_, i, what);
      if (!all.defined()) return std::vector<double>{0};
      const int64_t rows = gates_ * hidden_, each = all.numel() / directions_;
      if (all.numel() != directions_ && all.numel() != directions_ * rows)
        n_.fail(ErrorCode::corrupt, "{} is {}; expected {} or {} numbers", what,
                to_string(all.type()), directions_, directions_ * rows);
      ValPtr part = constant_val(what, all.to(DType::float32).reshape({directions_, each}));
      part = slice_of(part, d);
      if (each > 1) part = in_order(part, suffix, d);
      return part->constant.to(DType::float64).reshape({-1}).to_vector<double>();
    };
    const std::vector<double> scales = numbers(scale, "the weight's scale");
    std::vector<int64_t> zeros;
    for (double z : numbers(scale + 1, "the weight's zero point"))
      zeros.push_back(static_cast<int64_t>(z));
    const DType dtype = w->type.dtype == DType::uint8 ? DType::quint8 : DType::qint8;
    if (zeros.size() == 1) zeros.resize(scales.size(), zeros[0]);
    if (zeros.size() != scales.size())
      n_.fail(ErrorCode::corrupt, "{} scales and {} zero points", scales.size(), zeros.size());
    return constant_val(
        w->name,
        make_quantized(w->constant, scales.size() == 1
                                        ? Quantizer::per_tensor(scales[0], zeros[0], dtype)
                                        : Quantizer::per_channel(scales, zeros, 0, dtype)));
  }

  // One half of B: the input's biases, or the state's.
  ValPtr bias(int64_t d, int64_t half) {
    if (!b_) return nullptr;
    const int64_t rows = gates_ * hidden_;
    ValPtr both = slice_of(b_, d);
    ValPtr one =
        im_.call(n_, "slice", {both},
                 {{"dim", int64_t{0}}, {"start", half * rows}, {"end", (half + 1) * rows}});
    return in_order(one, half == 0 ? ".b_ih" : ".b_hh", d);
  }

  // The state (batch, hidden) that direction d begins with: input i, or zeros.
  ValPtr state(const ValPtr& x, size_t i, int64_t d) {
    if (ValPtr given = im_.optional_in(n_, i)) {
      if (given->rank() != 3)
        n_.fail(ErrorCode::corrupt, "an initial state is {}", to_string(given->type));
      if (batch_first_)
        given = im_.call(n_, "permute", {given}, {{"dims", std::vector<int64_t>{1, 0, 2}}});
      return slice_of(given, d);
    }
    if (const Dim& batch = x->dims()[1]; batch.known())
      return constant_val(n_.name() + ".zeros", Tensor::zeros({batch.size(), hidden_}));
    // No number is less than itself: zeros of a batch whose size is known at run time.
    ValPtr one = x;
    for (int64_t dim : {0, 2})
      one =
          im_.call(n_, "slice", {one}, {{"dim", dim}, {"start", int64_t{0}}, {"end", int64_t{1}}});
    one = im_.call(n_, "squeeze", {one}, {{"dim", int64_t{0}}});
    ValPtr zero = im_.cast(n_, im_.call(n_, "less", {one, one}), DType::float32);
    return im_.call(n_, "expand", {zero}, {{"shape", std::vector<int64_t>{1, hidden_}}});
  }

  Importer& im_;
  const NodeView& n_;
  CellKind kind_;
  int64_t gates_, hidden_ = 0, directions_ = 1;
  bool batch_first_ = false, codes_ = false, reverse_ = false;
  ValPtr w_, r_, b_, peepholes_;
};

}  // namespace

void add_recurrent(Handlers& h) {
  for (const char* op : {"LSTM", "GRU", "RNN", "com.microsoft.DynamicQuantizeLSTM"})
    h[op] = [](Importer& im, const NodeView& n) { Recurrent(im, n).run(); };
}

}  // namespace octet::io::onnx_impl
