// LSTM, GRU and RNN against ONNX's formulas, one number at a time.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/io/onnx/export.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using Attrs = std::vector<std::pair<std::string, OnnxAttr>>;

constexpr int64_t kSteps = 4, kSequences = 3, kIn = 2, kHidden = 3;

struct RecurrentNode {
  std::string op = "LSTM", direction = "forward";
  bool bias = true, lengths = false, states = false, batch_first = false;
  Attrs attrs = {};
  bool relu = false, reset_after = false;

  int64_t gates() const { return op == "LSTM" ? 4 : op == "GRU" ? 3 : 1; }
  int64_t directions() const { return direction == "bidirectional" ? 2 : 1; }
  std::string what() const {
    return op + " " + direction + (bias ? " bias" : "") + (lengths ? " lengths" : "") +
           (states ? " states" : "") + (batch_first ? " layout" : "") +
           (reset_after ? " linear_before_reset" : "");
  }
};

const std::vector<int32_t> kLengths{4, 1, 2};

struct RecurrentOperands {
  explicit RecurrentOperands(const RecurrentNode& l)
      : x(Tensor::randn({kSteps, kSequences, kIn}, 1)),
        w(Tensor::randn({l.directions(), l.gates() * kHidden, kIn}, 2)),
        r(Tensor::randn({l.directions(), l.gates() * kHidden, kHidden}, 3)),
        b(Tensor::randn({l.directions(), 2 * l.gates() * kHidden}, 4)),
        h(Tensor::randn({l.directions(), kSequences, kHidden}, 5)),
        c(Tensor::randn({l.directions(), kSequences, kHidden}, 6)) {}
  Tensor x, w, r, b, h, c;
};

double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

// Y (steps, directions, batch, hidden), Y_h and Y_c (directions, batch, hidden).
std::vector<Tensor> by_definition(const RecurrentNode& l, const RecurrentOperands& o) {
  const int64_t d_count = l.directions(), rows = l.gates() * kHidden;
  Tensor y = Tensor::zeros({kSteps, d_count, kSequences, kHidden}),
         yh = Tensor::zeros({d_count, kSequences, kHidden}),
         yc = Tensor::zeros({d_count, kSequences, kHidden});
  auto at = [](const Tensor& t, std::vector<int64_t> i) { return static_cast<double>(t.at(i)); };
  for (int64_t d = 0; d < d_count; ++d)
    for (int64_t n = 0; n < kSequences; ++n) {
      std::vector<double> h(kHidden), c(kHidden);
      for (int64_t j = 0; j < kHidden && l.states; ++j)
        h[j] = at(o.h, {d, n, j}), c[j] = at(o.c, {d, n, j});
      const int64_t length = l.lengths ? kLengths[static_cast<size_t>(n)] : kSteps;
      const bool back = l.direction == "reverse" || d == 1;
      for (int64_t step = 0; step < length; ++step) {
        const int64_t t = back ? length - 1 - step : step;
        auto of_x = [&](int64_t row) {
          double sum = l.bias ? at(o.b, {d, row}) : 0;
          for (int64_t k = 0; k < kIn; ++k) sum += at(o.w, {d, row, k}) * at(o.x, {t, n, k});
          return sum;
        };
        auto of_h = [&](int64_t row, const std::vector<double>& state) {
          double sum = l.bias ? at(o.b, {d, rows + row}) : 0;
          for (int64_t k = 0; k < kHidden; ++k) sum += at(o.r, {d, row, k}) * state[k];
          return sum;
        };
        std::vector<double> next(kHidden), reset(kHidden);
        for (int64_t j = 0; j < kHidden; ++j)
          reset[j] = l.op == "GRU" ? sigmoid(of_x(kHidden + j) + of_h(kHidden + j, h)) * h[j] : 0;
        for (int64_t j = 0; j < kHidden; ++j) {
          auto gate = [&](int64_t g) { return of_x(g * kHidden + j) + of_h(g * kHidden + j, h); };
          if (l.op == "LSTM") {  // input, output, forget, candidate
            c[j] = sigmoid(gate(2)) * c[j] + sigmoid(gate(0)) * std::tanh(gate(3));
            next[j] = sigmoid(gate(1)) * std::tanh(c[j]);
          } else if (l.op == "GRU") {  // update, reset, candidate
            const int64_t row = 2 * kHidden + j;
            const double z = sigmoid(gate(0)), r = sigmoid(gate(1));
            const double inner = l.reset_after ? r * of_h(row, h) : of_h(row, reset);
            next[j] = (1 - z) * std::tanh(of_x(row) + inner) + z * h[j];
          } else {
            next[j] = l.relu ? std::max(gate(0), 0.0) : std::tanh(gate(0));
          }
        }
        h = next;
        for (int64_t j = 0; j < kHidden; ++j)
          y.data<float>()[((t * d_count + d) * kSequences + n) * kHidden + j] =
              static_cast<float>(h[j]);
      }
      for (int64_t j = 0; j < kHidden; ++j) {
        yh.data<float>()[(d * kSequences + n) * kHidden + j] = static_cast<float>(h[j]);
        yc.data<float>()[(d * kSequences + n) * kHidden + j] = static_cast<float>(c[j]);
      }
    }
  if (l.batch_first)
    return {y.permute({2, 0, 1, 3}).contiguous(), yh.permute({1, 0, 2}).contiguous(),
            yc.permute({1, 0, 2}).contiguous()};
  return {y, yh, yc};
}

OnnxModel model_of(const RecurrentNode& l, const RecurrentOperands& o,
                   const OnnxDim& batch = static_cast<int>(kSequences)) {
  OnnxModel m(14);
  auto states = [&](const Tensor& t) {
    return l.batch_first ? t.permute({1, 0, 2}).contiguous() : t;
  };
  if (l.batch_first)
    m.input("x", {batch, static_cast<int>(kSteps), static_cast<int>(kIn)});
  else
    m.input("x", {static_cast<int>(kSteps), batch, static_cast<int>(kIn)});
  m.constant("W", o.w)
      .constant("R", o.r)
      .constant("B", o.b)
      .constant("h", states(o.h))
      .constant("c", states(o.c));
  m.constant("lengths", Tensor::from(kLengths, {kSequences}));
  Attrs attrs = l.attrs;
  attrs.push_back({"direction", l.direction});
  attrs.push_back({"hidden_size", kHidden});
  if (l.batch_first) attrs.push_back({"layout", int64_t{1}});
  if (l.reset_after) attrs.push_back({"linear_before_reset", int64_t{1}});
  std::vector<std::string> in{
      "x", "W", "R", l.bias ? "B" : "", l.lengths ? "lengths" : "", l.states ? "h" : ""};
  if (l.op == "LSTM") in.push_back(l.states ? "c" : "");
  std::vector<std::string> out{"Y", "Y_h"};
  if (l.op == "LSTM") out.push_back("Y_c");
  m.node(l.op, in, out, attrs);
  for (const std::string& name : out) m.output(name);
  return m;
}

std::vector<RecurrentNode> layers() {
  std::vector<RecurrentNode> all;
  for (const char* op : {"LSTM", "GRU", "RNN"})
    for (const char* direction : {"forward", "reverse", "bidirectional"}) {
      all.push_back({.op = op, .direction = direction});
      all.push_back({.op = op, .direction = direction, .bias = false, .states = true});
      all.push_back({.op = op, .direction = direction, .lengths = true, .states = true});
      all.push_back({.op = op, .direction = direction, .states = true, .batch_first = true});
    }
  for (const char* direction : {"forward", "bidirectional"})
    all.push_back({.op = "GRU", .direction = direction, .lengths = true, .reset_after = true});
  all.push_back(
      {.op = "RNN", .attrs = {{"activations", std::vector<std::string>{"Relu"}}}, .relu = true});
  return all;
}

TEST(OnnxRecurrent, GivesWhatTheDefinitionGivesAndComesBack) {
  for (const RecurrentNode& l : layers()) {
    SCOPED_TRACE(l.what());
    RecurrentOperands o(l);
    graph::Graph g = model_of(l, o).import();
    Tensor x = l.batch_first ? o.x.permute({1, 0, 2}).contiguous() : o.x;
    std::vector<Tensor> want = by_definition(l, o), got = run_graph(g, {x}),
                        compiled = runtime::compile(g).run({x});
    graph::Graph back = io::import_onnx_bytes(io::to_onnx_bytes(g));
    std::vector<Tensor> again = run_graph(back, {x});
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_TRUE(allclose(got[i], want[i], 1e-5, 1e-5))
          << i << to_string(got[i]) << to_string(want[i]);
      EXPECT_TRUE(allclose(compiled[i], want[i], 1e-5, 1e-5)) << i;
      EXPECT_TRUE(allclose(again[i], want[i], 1e-5, 1e-5)) << i;
    }
  }
}

TEST(OnnxRecurrent, TheBatchMayBeKnownAtRunTimeOnly) {
  RecurrentNode l{.direction = "bidirectional"};
  RecurrentOperands o(l);
  graph::Graph g = model_of(l, o, "N").import();
  std::vector<Tensor> want = by_definition(l, o), got = runtime::compile(g).run({o.x});
  for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(allclose(got[i], want[i], 1e-5, 1e-5)) << i;
}

TEST(OnnxRecurrent, LengthsOfEveryStepAreNoLengths) {
  RecurrentNode l{.op = "GRU"};
  RecurrentOperands o(l);
  OnnxModel m;
  m.input("x", {static_cast<int>(kSteps), static_cast<int>(kSequences), static_cast<int>(kIn)})
      .constant("W", o.w)
      .constant("R", o.r);
  m.constant("n", Tensor::full({kSequences}, kSteps, DType::int32));
  m.node("GRU", {"x", "W", "R", "", "n"}, {"", "Y_h"}, {{"hidden_size", kHidden}}).output("Y_h");
  EXPECT_EQ(node_of(m.import(), "gru").inputs.size(), 4u);
}

TEST(OnnxRecurrent, LengthsMayBeAnInput) {
  RecurrentNode l{.lengths = true};
  RecurrentOperands o(l);
  OnnxModel m;
  m.input("x", {static_cast<int>(kSteps), static_cast<int>(kSequences), static_cast<int>(kIn)})
      .input("n", {static_cast<int>(kSequences)}, kInt32);
  m.constant("W", o.w).constant("R", o.r).constant("B", o.b);
  m.node("LSTM", {"x", "W", "R", "B", "n"}, {"Y"}).output("Y");
  Tensor got = run_one(m.import(), {o.x, Tensor::from(kLengths, {kSequences})});
  EXPECT_TRUE(allclose(got, by_definition(l, o)[0], 1e-5, 1e-5));
  expect_error(ErrorCode::invalid_argument, {"length 5 among 4 steps"}, [&] {
    run_one(m.import(), {o.x, Tensor::full({kSequences}, 5, DType::int32)});
  });
}

TEST(OnnxRecurrent, DynamicQuantizationTakesItsWeights) {
  for (const char* op : {"LSTM", "GRU", "RNN"})
    for (bool lengths : {false, true}) {
      RecurrentNode l{.op = op, .direction = "bidirectional", .lengths = lengths};
      SCOPED_TRACE(l.what());
      RecurrentOperands o(l);
      graph::Graph g = model_of(l, o).import(), dynamic = quant::quantize_dynamic_fx(g);
      std::string lower = op;
      for (char& c : lower) c = static_cast<char>(std::tolower(c));
      const graph::Node& node = node_of(dynamic, lower);
      int codes = 0;
      for (graph::ValueId v : node.inputs)
        codes += v != graph::kNone && dynamic.type(v).is_quantized();
      EXPECT_EQ(codes, 2);
      Tensor want = by_definition(l, o)[0], got = runtime::compile(dynamic).run({o.x})[0];
      EXPECT_TRUE(allclose(got, want, 0, 0.1)) << to_string(got) << to_string(want);
      EXPECT_FALSE(equal(got, want));
      if (l.op == "LSTM") {  // com.microsoft's, whose rule for the scale of x is ONNX's
        const graph::Graph back = io::import_onnx_bytes(io::to_onnx_bytes(dynamic));
        EXPECT_TRUE(allclose(runtime::compile(back).run({o.x})[0], got, 0, 0.02));
        continue;
      }
      expect_error(ErrorCode::unsupported, {lower, "of codes there are LSTMs only"},
                   [&] { io::to_onnx_bytes(dynamic); });
    }
}

TEST(OnnxRecurrent, FormsThatAreNotThereAreNamed) {
  auto import = [](const RecurrentNode& l) {
    return [=] { model_of(l, RecurrentOperands(l)).import(); };
  };
  expect_error(ErrorCode::unsupported, {"LSTM with clip"}, import({.attrs = {{"clip", 3.0}}}));
  expect_error(ErrorCode::unsupported, {"LSTM with input_forget"},
               import({.attrs = {{"input_forget", int64_t{1}}}}));
  expect_error(
      ErrorCode::unsupported, {"GRU with the activation HardSigmoid"},
      import({.op = "GRU",
              .attrs = {{"activations", std::vector<std::string>{"HardSigmoid", "Tanh"}}}}));
  expect_error(ErrorCode::corrupt, {"1 activations for 2 directions; expected 2"},
               import({.op = "RNN",
                       .direction = "bidirectional",
                       .attrs = {{"activations", std::vector<std::string>{"Tanh"}}}}));
  expect_error(ErrorCode::corrupt, {"direction 'both'"}, import({.direction = "both"}));
}

TEST(OnnxRecurrent, PeepholesOfZerosAreNone) {
  RecurrentNode l;
  RecurrentOperands o(l);
  OnnxModel m;
  m.input("x", {4, 3, 2}).constant("W", o.w).constant("R", o.r);
  m.constant("P", Tensor::zeros({1, 3 * kHidden}));
  m.node("LSTM", {"x", "W", "R", "", "", "", "", "P"}, {"Y"}).output("Y");
  EXPECT_EQ(count_ops(m.import(), "lstm"), 1);
}

// Two sequences of 3 and 2 steps, one number each, against the equations.
TEST(OnnxRecurrent, PeepholesLetGatesSeeTheCell) {
  using F = std::vector<float>;
  const F w{0.5f, -0.25f, 0.75f, 1}, r{0.25f, 0.5f, -0.5f, 0.75f}, p{0.5f, -0.75f, 0.25f},
      b{0.1f, 0.2f, 0.3f, 0.4f}, x{1, -1, 2, 0.5f, -0.5f, 3};
  const std::vector<int64_t> lengths{3, 2};
  F bias = b;
  bias.insert(bias.end(), 4, 0);
  for (bool backwards : {false, true}) {
    OnnxModel m;
    m.input("x", {3, 2, 1}).input("l", {2}, kInt32).constant("P", Tensor::from(p, {1, 3}));
    m.constant("W", Tensor::from(w, {1, 4, 1})).constant("R", Tensor::from(r, {1, 4, 1}));
    m.constant("B", Tensor::from(bias, {1, 8}));
    m.node("LSTM", {"x", "W", "R", "B", "l", "", "", "P"}, {"Y", "H", "C"},
           {{"direction", std::string(backwards ? "reverse" : "forward")}});
    for (const char* name : {"Y", "H", "C"}) m.output(name);
    const std::vector<Tensor> y = run_graph(
        m.import(), {Tensor::from(x, {3, 2, 1}), Tensor::from(std::vector<int32_t>{3, 2}, {2})});
    const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
    for (int64_t n : {0, 1}) {
      double h = 0, c = 0;
      const int64_t steps = lengths[static_cast<size_t>(n)];
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t t = backwards ? steps - 1 - i : i;
        const double v = x[static_cast<size_t>(t * 2 + n)];
        const double in = sigmoid(w[0] * v + r[0] * h + b[0] + p[0] * c),
                     forget = sigmoid(w[2] * v + r[2] * h + b[2] + p[2] * c),
                     next = forget * c + in * std::tanh(w[3] * v + r[3] * h + b[3]);
        h = sigmoid(w[1] * v + r[1] * h + b[1] + p[1] * next) * std::tanh(next);
        c = next;
        EXPECT_NEAR(y[0].at({t, 0, n, 0}), h, 1e-6) << backwards << n << t;
      }
      EXPECT_NEAR(y[1].at({0, n, 0}), h, 1e-6);
      EXPECT_NEAR(y[2].at({0, n, 0}), c, 1e-6);
    }
    EXPECT_EQ(y[0].at({2, 0, 1, 0}), 0);
  }
}

TEST(OnnxRecurrent, PeepholesNeedAKnownNumberOfSteps) {
  RecurrentNode l;
  RecurrentOperands o(l);
  OnnxModel m;
  m.input("x", {"T", 3, 2}).constant("W", o.w).constant("R", o.r);
  m.constant("P", Tensor::ones({1, 3 * kHidden}));
  m.node("LSTM", {"x", "W", "R", "", "", "", "", "P"}, {"Y"}).output("Y");
  expect_error(ErrorCode::unsupported, {"an LSTM with peepholes", "'T'"}, [&] { m.import(); });
}

}  // namespace
}  // namespace octet::testing
