#include "octet/engine/engine.h"
#include "tests/golden.h"
#include "tests/ops/gradient_check.h"

namespace octet::testing {
namespace {

using Ints = std::vector<int64_t>;

struct RecurrentLayer {
  std::string op;
  int64_t gates;
  Attrs attrs;
};
const std::vector<RecurrentLayer> kLayers{
    {"lstm", 4, {}}, {"gru", 3, {}}, {"rnn", 1, {}}, {"rnn", 1, {{"nonlinearity", "relu"}}}};

// x, states, weights and biases of a layer; `projected` numbers of h if that is not 0.
std::vector<Tensor> operands(const RecurrentLayer& l, int64_t t, int64_t n, int64_t in,
                             int64_t hidden, int64_t projected = 0, uint64_t seed = 1) {
  const int64_t state = projected ? projected : hidden, width = l.gates * hidden;
  auto small = [&](const Shape& shape) { return Tensor::rand(shape, ++seed, -0.6, 0.6); };
  std::vector<Tensor> all{Tensor::randn({t, n, in}, seed), small({n, state})};
  if (l.op == "lstm") all.push_back(small({n, hidden}));
  for (const Shape& shape : {Shape{width, in}, Shape{width, state}, Shape{width}, Shape{width}})
    all.push_back(small(shape));
  if (projected) all.push_back(small({projected, hidden}));
  return all;
}
size_t first_weight(const RecurrentLayer& l) { return l.op == "lstm" ? 3 : 2; }

Tensor op(const char* name, std::vector<Tensor> inputs, const Attrs& attrs = {}) {
  return ops::call(name, std::move(inputs), attrs);
}

// The layer written with operators, step by step; `project` is linear or linear_dynamic.
std::vector<Tensor> by_operators(const RecurrentLayer& l, const std::vector<Tensor>& in,
                                 bool reverse) {
  const size_t w = first_weight(l);
  auto project = [&](const Tensor& x, size_t weight, const Tensor& bias) {
    return op(in[weight].is_quantized() ? "linear_dynamic" : "linear", {x, in[weight], bias});
  };
  const int64_t steps = in[0].size(0), hidden = in[w].size(0) / l.gates;
  Tensor of_x = project(in[0], w, in[w + 2]), h = in[1], c = l.op == "lstm" ? in[2] : Tensor();
  Tensor y = Tensor::empty({steps, in[0].size(1), h.size(1)});
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t t = reverse ? steps - 1 - i : i;
    Tensor gx = of_x.select(0, t), gh = project(h, w + 1, in[w + 3]);
    auto part = [&](const Tensor& g, int64_t k) {
      return g.slice(1, k * hidden, (k + 1) * hidden);
    };
    auto sum = [&](int64_t k) { return op("add", {part(gh, k), part(gx, k)}); };
    if (l.op == "lstm") {
      c = op("add", {op("mul", {op("sigmoid", {sum(1)}), c}),
                     op("mul", {op("sigmoid", {sum(0)}), op("tanh", {sum(2)})})});
      h = op("mul", {op("sigmoid", {sum(3)}), op("tanh", {c})});
      if (in.size() > w + 4) h = project(h, w + 4, {});
    } else if (l.op == "gru") {
      Tensor n =
          op("tanh", {op("add", {part(gx, 2), op("mul", {part(gh, 2), op("sigmoid", {sum(0)})})})});
      h = op("add", {op("mul", {op("sub", {h, n}), op("sigmoid", {sum(1)})}), n});
    } else {
      h = op(l.attrs.has("nonlinearity") ? "relu" : "tanh", {sum(0)});
    }
    y.select(0, t).copy_from(h.contiguous());
  }
  std::vector<Tensor> result{y, h};
  if (c.defined()) result.push_back(c);
  return result;
}

TEST(Recurrent, LayersEqualTheirFormulas) {
  for (const char* engine : {"native", "reference"}) {
    set_engine(engine);
    for (const RecurrentLayer& l : kLayers)
      for (bool reverse : {false, true})
        for (int64_t projected : {int64_t{0}, int64_t{3}}) {
          if (projected && l.op != "lstm") continue;
          Attrs attrs = Attrs(l.attrs).set("reverse", reverse);
          auto in = operands(l, 4, 3, 6, 5, projected);
          auto got = ops::call_all(l.op, in, attrs), expected = by_operators(l, in, reverse);
          ASSERT_EQ(got.size(), expected.size());
          for (size_t k = 0; k < got.size(); ++k)
            EXPECT_TRUE(allclose(got[k], expected[k], 1e-6, 1e-6))
                << engine << " " << l.op << " result " << k;
          // Codes for weights: the same arithmetic as linear_dynamic, to the bit.
          for (size_t i = first_weight(l); i < in.size(); ++i)
            if (in[i].dim() == 2) in[i] = quantize_per_tensor(in[i], 0.005, 0, DType::qint8);
          got = ops::call_all(l.op, in, attrs);
          expected = by_operators(l, in, reverse);
          for (size_t k = 0; k < got.size(); ++k)
            expect_equal(got[k], expected[k], l.op + " on codes");
        }
    set_engine("native");
  }
}

TEST(Recurrent, BiasesMayBeLeftOff) {
  for (const RecurrentLayer& l : kLayers) {
    auto in = operands(l, 2, 2, 3, 4);
    auto without =
        std::vector<Tensor>(in.begin(), in.begin() + static_cast<int64_t>(first_weight(l)) + 2);
    for (size_t k : {2u, 3u}) in[first_weight(l) + k] = Tensor::zeros({l.gates * 4});
    expect_equal(ops::call_all(l.op, without, l.attrs)[0], ops::call_all(l.op, in, l.attrs)[0],
                 l.op);
  }
}

TEST(Recurrent, Float16WeightsComputeInFloat32) {
  for (const RecurrentLayer& l : kLayers) {
    auto half = operands(l, 3, 2, 3, 4), wide = half;
    for (size_t i = first_weight(l); i < first_weight(l) + 2; ++i) {
      half[i] = half[i].to(DType::float16);
      wide[i] = half[i].to(DType::float32);
    }
    expect_equal(ops::call_all(l.op, half, l.attrs)[0], ops::call_all(l.op, wide, l.attrs)[0],
                 l.op);
  }
}

// A sequence of a shorter length gives what it gives alone, in both directions; behind its end y is
// 0.
TEST(Recurrent, LengthsEndSequences) {
  for (const RecurrentLayer& l : kLayers)
    for (int64_t projected : {0, 2})
      for (bool reverse : {false, true}) {
        if (projected && l.op != "lstm") continue;
        auto in = operands(l, 4, 3, 2, 5, projected);
        const size_t states = first_weight(l);
        auto with = in;
        if (l.op == "lstm" && !projected) with.emplace_back();
        const Ints lengths{4, 0, 2};
        with.push_back(Tensor::from(lengths, {3}));
        const Attrs attrs = Attrs(l.attrs).set("reverse", reverse);
        std::vector<Tensor> all = ops::call_all(l.op, with, attrs);
        for (int64_t n = 0; n < 3; ++n) {
          const int64_t length = lengths[static_cast<size_t>(n)];
          expect_equal(all[0].slice(0, length, 4).slice(1, n, n + 1),
                       Tensor::zeros({4 - length, 1, all[0].size(2)}), l.op);
          auto alone = in;
          for (size_t i = 1; i < states; ++i) alone[i] = in[i].slice(0, n, n + 1);
          if (length == 0) {
            for (size_t i = 1; i < states; ++i)
              expect_equal(all[i].slice(0, n, n + 1), alone[i], l.op);
            continue;
          }
          alone[0] = in[0].slice(0, 0, length).slice(1, n, n + 1);
          std::vector<Tensor> want = ops::call_all(l.op, alone, attrs);
          expect_equal(all[0].slice(0, 0, length).slice(1, n, n + 1), want[0], l.op);
          for (size_t i = 1; i < states; ++i)
            expect_equal(all[i].slice(0, n, n + 1), want[i], l.op);
        }
      }
}

TEST(Recurrent, AGruMayResetItsStateBeforeTheProduct) {
  const RecurrentLayer gru{"gru", 3, {}};
  for (bool codes : {false, true}) {
    auto in = operands(gru, 3, 2, 4, 5);
    for (size_t i : {2u, 3u})
      if (codes)
        in[i] = quantize_per_channel(in[i], std::vector<double>(15, 0.01), Ints(15, 0), 0,
                                     DType::qint8);
    auto project = [&](const Tensor& x, const Tensor& weight, const Tensor& bias) {
      return op(codes ? "linear_dynamic" : "linear", {x, weight, bias});
    };
    auto rows = [](const Tensor& t, int64_t first, int64_t last) {
      return t.slice(0, first * 5, last * 5).clone();
    };
    Tensor of_x = project(in[0], in[2], in[4]), h = in[1];
    for (int64_t t = 0; t < 3; ++t) {
      Tensor gx = of_x.select(0, t), gh = project(h, rows(in[3], 0, 2), rows(in[5], 0, 2));
      Tensor reset = op("sigmoid", {op("add", {gh.slice(1, 0, 5), gx.slice(1, 0, 5)})});
      Tensor update = op("sigmoid", {op("add", {gh.slice(1, 5, 10), gx.slice(1, 5, 10)})});
      Tensor of_reset = project(op("mul", {reset, h}), rows(in[3], 2, 3), rows(in[5], 2, 3));
      Tensor candidate = op("tanh", {op("add", {gx.slice(1, 10, 15), of_reset})});
      h = op("add", {op("mul", {op("sub", {h, candidate}), update}), candidate});
    }
    std::vector<Tensor> got = ops::call_all("gru", in, {{"reset_after", false}});
    EXPECT_TRUE(allclose(got[1], h, 0, codes ? 1e-3 : 1e-6)) << to_string(got[1]) << to_string(h);
    EXPECT_FALSE(allclose(ops::call_all("gru", in)[1], h, 0, 1e-2));
  }
}

TEST(Recurrent, GradientsEqualDifferenceQuotients) {
  for (const RecurrentLayer& l : kLayers)
    for (bool reverse : {false, true}) {
      check_op_gradient(l.op, operands(l, 3, 2, 3, 4), Attrs(l.attrs).set("reverse", reverse));
      if (l.op == "lstm")
        check_op_gradient(l.op, operands(l, 3, 2, 3, 4, 2), Attrs(l.attrs).set("reverse", reverse));
    }
}

TEST(RecurrentTypes, SymbolicDimsPass) {
  auto text = [](const std::string& name, const std::vector<std::string>& in) {
    std::string all;
    for (const TensorType& t : infer_types(name, in)) all += to_string(t) + " ";
    return all;
  };
  EXPECT_EQ(text("lstm", {"Float(T, N, 3)", "Float(N, 2)", "Float(N, 5)", "Float(20, 3)",
                          "Float(20, 2)", "Float(20)", "Float(20)", "Float(2, 5)"}),
            "Float(T, N, 2) Float(N, 2) Float(N, 5) ");
  EXPECT_EQ(text("gru", {"Float(T, N, 3)", "Float(N, 5)", "QInt8(15, 3) scale=1.0 zero_point=0",
                         "QInt8(15, 5) scale=1.0 zero_point=0"}),
            "Float(T, N, 5) Float(N, 5) ");
}

TEST(RecurrentTypes, ErrorsSayWhatIsExpected) {
  auto fails = [](const std::string& name, const std::vector<std::string>& inputs,
                  const Attrs& attrs, const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts, [&] { infer_types(name, inputs, attrs); });
  };
  fails("rnn", {"Float(4, 2, 3)", "Float(2, 5)", "Float(5, 4)", "Float(5, 5)"}, {},
        {"rnn", "w_ih is Float(5, 4)", "expected (5, 3)"});
  fails("gru", {"Float(4, 2, 3)", "Float(2, 5)", "Float(16, 3)", "Float(16, 5)"}, {},
        {"gru", "3 gates", "Float(16, 3)"});
  fails("gru", {"Float(4, 2, 3)", "Float(2, 4)", "Float(15, 3)", "Float(15, 5)"}, {},
        {"h0 is Float(2, 4)", "expected (2, 5)"});
  fails("rnn", {"Float(4, 3)", "Float(2, 5)", "Float(5, 3)", "Float(5, 5)"}, {},
        {"x (steps, batch, features)", "Float(4, 3)"});
  fails("rnn",
        {"Float(4, 2, 3)", "Float(2, 5)", "Float(5, 3)", "QInt8(5, 5) scale=1.0 zero_point=0"}, {},
        {"w_hh is qint8 and w_ih float32"});
  fails("rnn", {"Float(4, 2, 3)", "Float(2, 5)", "Float(5, 3)", "Float(5, 5)", "Float(4)"}, {},
        {"b_ih is Float(4)", "Float(5)"});
  fails("rnn", {"Float(4, 2, 3)", "Float(2, 5)", "Float(5, 3)", "Float(5, 5)"},
        {{"nonlinearity", "gelu"}}, {"nonlinearity=\"gelu\""});
  fails("rnn",
        {"Float(4, 2, 3)", "Float(2, 5)", "Float(5, 3)", "Float(5, 5)", "Float(5)", "Float(5)",
         "Long(3)"},
        {}, {"lengths is Long(3)", "expected Long(2)"});
  fails("rnn", {"Float(0, 2, 3)", "Float(2, 5)", "Float(5, 3)", "Float(5, 5)"}, {},
        {"at least one step"});
}

// tests/golden/dynamic_recurrent.json, made by scripts/oracle/dynamic.py. Sigmoid and tanh may
// differ in the last bits (both are approximations in float32), so states may by
// a few units of 1e-7. In the dynamic form such a difference could make
// h's code another one where it lies on a tie; none of these cases does.
TEST(GoldenRecurrent, LayersAndCellsArePyTorchs) {
  auto cases = load_golden("dynamic_recurrent.json");
  ASSERT_EQ(cases.size(), 150u);
  for (const auto& c : cases) {
    const std::string kind = c["kind"], name = kind.starts_with("LSTM")  ? "lstm"
                                               : kind.starts_with("GRU") ? "gru"
                                                                         : "rnn";
    const int64_t gates = name == "lstm"  ? 4
                          : name == "gru" ? 3
                                          : 1,
                  t = c["t"], n = c["n"], features = c["features"], hidden = c["hidden"];
    const uint64_t seed = c["seed"];
    const int64_t directions = c["bidirectional"] ? 2 : 1;
    auto uniform = [](uint64_t s, const Shape& shape, double scale) {
      return Tensor::from(golden_values("uniform", s, numel(shape), scale, 0), shape);
    };
    Tensor x =
        Tensor::from(golden_values("normal", seed, t * n * features, 1, 0), {t, n, features});
    Tensor h = uniform(seed + 1, {directions, n, hidden}, 0.7),
           s = uniform(seed + 2, {directions, n, hidden}, 0.7);
    for (const char* form : {"float", "dynamic"}) {
      const auto& stored = c[form];
      for (int64_t d = 0; d < directions; ++d) {
        std::vector<Tensor> in{x, h.select(0, d)};
        if (name == "lstm") in.push_back(s.select(0, d));
        const Shape shapes[] = {{gates * hidden, features},
                                {gates * hidden, hidden},
                                {gates * hidden},
                                {gates * hidden}};
        for (size_t k = 0; k < 4; ++k) {
          const size_t number = static_cast<size_t>(d) * 4 + k;
          Tensor w = uniform(seed + 10 + number, shapes[k], 0.5);
          const auto& q = c["qparams"][number];
          if (form == std::string("dynamic") && k < 2)
            w = quantize_per_tensor(w, std::strtod(q[0].get<std::string>().c_str(), nullptr),
                                    q[1].get<int64_t>(), DType::qint8);
          in.push_back(w);
        }
        Attrs attrs{{"reverse", d == 1}};
        if (c.contains("nonlinearity"))
          attrs.set("nonlinearity", c["nonlinearity"].get<std::string>());
        auto out = ops::call_all(name, in, attrs);
        auto near = [&](const Tensor& got, const Tensor& expected, const char* what) {
          EXPECT_TRUE(allclose(got, expected, 0, 5e-7))
              << form << " " << what << "\n"
              << c << to_string(got) << to_string(expected);
        };
        if (kind.ends_with("Cell")) {
          for (size_t k = 0; k < stored.size(); ++k)
            near(out[k + 1], Tensor::from(from_bits(stored[k]), {n, hidden}), "state");
        } else {
          Tensor y = Tensor::from(from_bits(stored[0]), {t, n, directions * hidden});
          near(out[0], y.slice(2, d * hidden, (d + 1) * hidden), "y");
          for (size_t k = 1; k < stored.size(); ++k)
            near(out[k], Tensor::from(from_bits(stored[k]), {directions, n, hidden}).select(0, d),
                 "state");
        }
      }
    }
  }
}

}  // namespace
}  // namespace octet::testing
