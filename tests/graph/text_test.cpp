// The graph as text, and back.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "octet/base/random.h"
#include "octet/graph/graph.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::graph {
namespace {

using testing::expect_error;

void expect_round_trip(const Graph& g) {
  std::string text = print(g, {.full = true});
  std::map<std::string, Tensor> constants;
  for (const Node& node : g.nodes())
    if (node.kind == NodeKind::constant) constants[g.value(node.outputs[0]).name] = node.value;
  EXPECT_EQ(print(parse(text), {.full = true}), text);
  Graph again = parse(text, constants);
  EXPECT_EQ(print(again, {.full = true}), text);
  ASSERT_EQ(again.nodes().size(), g.nodes().size());
  EXPECT_EQ(again.name, g.name);
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const Node &a = g.nodes()[i], &b = again.nodes()[i];
    EXPECT_EQ(a.attrs, b.attrs) << text;
    EXPECT_EQ(a.scope, b.scope) << text;
    EXPECT_EQ(a.note, b.note) << text;
    for (size_t k = 0; k < a.outputs.size(); ++k)
      EXPECT_EQ(g.type(a.outputs[k]), again.type(b.outputs[k])) << text;
  }
}

const char* const kNet =
    "graph net {\n"
    "  %x: Float(N, 3, 8, 8) = input\n"
    "  %w: QInt8(2, 3, 3, 3) axis=0 scale=[0.5, 0.25] zero_point=0 = constant\n"
    "  %b: Float(2) = constant [0.5, -inf]\n"
    "  %q: QUInt8(N, 3, 8, 8) scale=0.1 zero_point=3 = quantize(%x)\n"
    "  %y: QUInt8(N, 2, 8, 8) scale=0.2 zero_point=0 = conv2d(%q, %w, %b, activation=\"relu\", "
    "padding=[1, 1, 1, 1])  "
    "@ layer.0  # a note\n"
    "  %d: Float(N, 2, 8, 8) = dequantize(%y)\n"
    "  %n: Float(N, 2, 8, 8) = layer_norm(%d, none, none)\n"
    "  %v: Float(N, 2, 8, 2), %i: Long(N, 2, 8, 2) = topk(%n, k=2)\n"
    "  return (%v, %i, %q)\n"
    "}\n";

}  // namespace

TEST(Text, AWrittenGraphReadsAndPrintsTheSame) {
  // A trailing none is dropped by building, but may stand in a text.
  Graph g = parse(kNet);
  EXPECT_EQ(print(g, {.full = true}), kNet);
  EXPECT_EQ(g.name, "net");
  const Node& conv = g.producer(*g.find("y"));
  EXPECT_EQ(conv.scope, "layer.0");
  EXPECT_EQ(conv.note, "a note");
  EXPECT_EQ(conv.attrs.get_string("activation"), "relu");
  EXPECT_EQ(g.constant(*g.find("b")).at({1}), -std::numeric_limits<double>::infinity());
  expect_round_trip(g);
}

TEST(Text, RandomNetworksRoundTrip) {
  for (uint64_t seed = 0; seed < 100; ++seed)
    expect_round_trip(testing::random_net(seed, seed % 2));
}

TEST(Text, ConstantsCanBeLeftOut) {
  EXPECT_EQ(print(parse(kNet), {.full = true, .constants = false}).find("= constant"),
            std::string::npos);
}

TEST(Text, EveryKindOfAttributeRoundTrips) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(4), Dim(4)}));
  const double values[] = {0.1,
                           -0.0,
                           1e300,
                           5e-324,
                           3,
                           std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity()};
  for (double v : values) g.add_call("c", "clamp", {x}, {{"min", v}});
  g.add_call("i", "interpolate", {x},
             {{"scales", std::vector<double>{2, 0.5}}, {"mode", std::string("linear")}});
  g.add_call("i", "interpolate", {x}, {{"size", std::vector<int64_t>{3, 9}}});
  g.add_call("m", "mean", {x}, {{"dim", std::vector<int64_t>{1, -1}}, {"keepdim", false}});
  g.add_call("s", "slice", {x},
             {{"dim", int64_t{1}},
              {"start", std::numeric_limits<int64_t>::min()},
              {"end", std::numeric_limits<int64_t>::max()}});
  g.add_calls("p", "split", {x}, {{"sizes", std::vector<int64_t>{1, 1, 1}}, {"dim", int64_t{1}}});
  g.add_call("t", "to", {x}, {{"dtype", std::string("int64")}});
  g.add_call("a", "adaptive_avg_pool2d", {x});
  g.set_outputs({x});
  g.check();
  expect_round_trip(g);
}

TEST(Text, InlineConstantsKeepEveryBit) {
  Graph g;
  g.add_input("x", TensorType(DType::float32, Shape{1}));
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<Tensor> constants{
      Tensor::from<float>({0.1f, -0.0f, inf, -inf, 1e-45f, 3.4028235e38f, std::nanf("")}),
      Tensor::from<double>({0.1, -0.0, 1e308, 5e-324, 1.0 / 3}),
      Tensor::from<int64_t>({std::numeric_limits<int64_t>::max(),
                             std::numeric_limits<int64_t>::min(), (int64_t{1} << 53) + 1, -1}),
      Tensor::from<int32_t>({INT32_MAX, INT32_MIN, 0}),
      Tensor::from<int16_t>({-32768, 32767}),
      Tensor::from<int8_t>({-128, 127}),
      Tensor::from<uint8_t>({0, 255}),
      Tensor::from<bool>({true, false}),
      Tensor::from<float>({0.1f, 65504, -0.0f}).to(DType::float16),
      Tensor::from<float>({0.1f, 3e38f}).to(DType::bfloat16),
      Tensor::scalar(7, DType::int64),
      Tensor::scalar(-0.5),
      Tensor::from<float>({1, 2, 3, 4, 5, 6}).reshape({2, 3}),
      Tensor::empty({0, 3}),
      Tensor::ones({1, 1, 1}),
  };
  for (const Tensor& t : constants) g.add_constant("c", t);
  Graph again = parse(print(g, {.full = true}));
  EXPECT_EQ(print(again, {.full = true}), print(g, {.full = true}));
  for (size_t i = 0; i < constants.size(); ++i) {
    const Tensor& t = again.nodes()[i + 1].value;
    EXPECT_TRUE(equal(t, constants[i])) << to_string(t) << to_string(constants[i]);
    if (t.dtype() == DType::float32 && t.dim() == 1 && t.numel() == 7) {
      EXPECT_TRUE(std::signbit(t.at({1})));
    }
  }
}

TEST(Text, QparamsRoundTripExactly) {
  Graph g;
  auto input = [&](DType dtype, const QuantizerPtr& q) {
    g.add_input("x", TensorType(dtype, {Dim("N"), Dim(6)}, q));
  };
  for (double scale : {0.1, static_cast<double>(0.1f), 1.0 / 3, 1.0, 1e-30, 123456789.0, 0x1p-23})
    input(DType::quint8, Quantizer::per_tensor(scale, 7, DType::quint8));
  input(DType::qint32, Quantizer::per_tensor(0.1, -2147483648LL, DType::qint32));
  input(DType::qint8, Quantizer::per_channel({0.1, 0.1f, 1, 2, 1e-9, 1.0 / 7},
                                             {0, -128, 127, 1, 2, 3}, 1, DType::qint8));
  input(DType::qint8,
        Quantizer::per_channel({1, 2, 3, 4, 5, 6}, {9, 9, 9, 9, 9, 9}, 1, DType::qint8));
  expect_round_trip(g);
}

TEST(Text, OddCharactersInTextRoundTrip) {
  const std::string odd[] = {"a\"b",       "\"quoted\"",  "back\\slash",
                             "trailing\\", "two  spaces", "  # hash",
                             "  @ at",     "line\nend",   "\ttab",
                             " lead",      "trail ",      "\xc3\xa9t\xc3\xa9",
                             "\x01\x7f\r", "a, b = c)",   "%x: Float(1) = input",
                             "{",          "}",           "\\n",
                             "x\\x41",     "\"",          "a \"b  # c\" d",
                             "return (%x)"};
  for (const std::string& text : odd) {
    for (int where = 0; where < 8; ++where) {
      Graph g;
      g.name = where & 1 ? text : "g";
      ValueId x = g.add_input("x", TensorType(DType::float32, Shape{1}));
      g.add_call("y", "relu", {x}, {}, std::nullopt, where & 2 ? text : "");
      g.node(1).note = where & 4 ? text : "";
      // An attribute that may hold any text: types do not depend on it here.
      ValueId p = g.add_call("p", "pad", {x}, {{"pads", std::vector<int64_t>{0, 0}}});
      g.set_outputs({p});
      expect_round_trip(g);
    }
    Graph g;  // in an attribute; the operator refuses it, so the text is looked at before inference
    ValueId x = g.add_input("x", TensorType(DType::float32, Shape{1}));
    g.add_call("y", "to", {x}, {{"dtype", std::string("int64")}});
    g.node(1).attrs.set("dtype", text);
    std::string printed = print(g, {.full = true});
    EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), 5) << printed;
    expect_error(ErrorCode::corrupt, {"line 3", "%y = to"}, [&] { parse(printed); });
  }
  Graph g;
  g.name = "";
  expect_round_trip(g);
}

TEST(Text, DamageIsAnErrorWithTheLine) {
  const struct {
    const char *from, *to;
    std::vector<std::string> parts;
  } cases[] = {
      {"graph net {", "grph net {", {"line 1", "graph NAME"}},
      {"graph net {", "graph net", {"line 1"}},
      {"graph net {\n", "", {"line 1"}},
      {"= input", "= inputs", {"line 2", "op(...)"}},
      {"Float(N, 3, 8, 8) = input", "Floot(N, 3, 8, 8) = input", {"line 2", "Floot"}},
      {"%x: Float", "x: Float", {"line 2", "value's name"}},
      {"%x: Float(N", "%x Float(N", {"line 2"}},
      {"[0.5, 0.25] zero", "[0.5] zero", {"line 3"}},
      {"zero_point=0 = constant", "zero_point=900 = constant", {"line 3", "900"}},
      {"[0.5, -inf]", "[0.5]", {"line 4", "1 values"}},
      {"[0.5, -inf]", "[0.5, x]", {"line 4", "cannot read"}},
      {"%b: Float(2)", "%w: Float(2)", {"line 4", "%w"}},
      {"quantize(%x)", "quantize(%z)", {"line 5", "%z is not defined"}},
      {"quantize(%x)", "quantise(%x)", {"line 5", "quantize"}},
      {"quantize(%x)", "quantize(%x", {"line 5"}},
      {"quantize(%x)", "quantize(%x,)", {"line 5"}},
      {"quantize(%x)", "quantize(%x) %x", {"line 5"}},
      {"scale=0.1 ", "scale=-0.1 ", {"line 5", "-0.1"}},
      {"QUInt8(N, 2, 8, 8)", "QUInt8(N, 2, 8, 9)", {"line 6", "%y = conv2d", "recorded"}},
      {"\"relu\"", "\"relu", {"line 6", "unterminated"}},
      {"\"relu\"", "\"\\q\"", {"line 6", "escape"}},
      {"padding=", "pading=", {"line 6", "padding"}},
      {"padding=[1, 1, 1, 1]", "padding=[1, 1, 1", {"line 6"}},
      {"padding=", "activation=\"none\", padding=", {"line 6", "twice"}},
      {"k=2", "2", {"line 9", "name=value"}},
      {", %i: Long(N, 2, 8, 2)", "", {"line 9", "1 results"}},
      {"return (%v", "return (%z", {"line 10", "%z"}},
      {"return (%v, ", "return (v, ", {"line 10"}},
      {"return (%v, %i, %q)", "return %v", {"line 10"}},
      {"  return (%v, %i, %q)\n", "", {"line 10"}},
      {"  return (%v, %i, %q)\n}\n", "", {"line 9", "ends"}},
      {"}\n", "}\nmore\n", {"line 12", "after"}},
      {"}\n", "  %k: Float(1) = input\n}\n", {"line 11"}},
  };
  for (const auto& c : cases) {
    std::string text = kNet;
    size_t at = std::string(c.from) == "}\n" ? text.rfind("}\n") : text.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    text.replace(at, std::string(c.from).size(), c.to);
    SCOPED_TRACE(text);
    expect_error(ErrorCode::corrupt, c.parts, [&] { parse(text); });
  }
  expect_error(ErrorCode::corrupt, {"line 0"}, [] { parse(""); });
  expect_error(ErrorCode::corrupt, {"line 2", "4000.00 GB"},
               [] { parse("graph g {\n%c: Float(1000000, 1000000) = constant\nreturn ()\n}"); });
}

TEST(FuzzText, DamagedTextIsReadOrRefused) {
  Random random(1);
  const std::string pieces[] = {"%",
                                "(",
                                ")",
                                "[",
                                "]",
                                "\"",
                                "\\",
                                ",",
                                " = ",
                                ": ",
                                "none",
                                "0",
                                "-1",
                                "9",
                                "inf",
                                "nan",
                                "  # ",
                                "  @ ",
                                "\n",
                                "axis=",
                                "scale=",
                                "constant",
                                "input",
                                "Float(",
                                "QInt8(",
                                "1e",
                                ".",
                                "{",
                                "}",
                                "%x",
                                std::string(1, '\0')};
  std::vector<std::string> seeds{kNet};
  for (uint64_t s = 0; s < 5; ++s) seeds.push_back(print(testing::random_net(s), {.full = true}));
  int read = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string text = seeds[i % seeds.size()];
    for (int64_t edits = random.integer(1, 3); edits > 0; --edits) {
      auto at = static_cast<size_t>(random.integer(0, static_cast<int64_t>(text.size())));
      switch (random.integer(0, 4)) {
        case 0:
          if (at < text.size()) text[at] = static_cast<char>(random.integer(0, 255));
          break;
        case 1:
          text.erase(at, static_cast<size_t>(random.integer(1, 12)));
          break;
        case 2:
          text.insert(at, pieces[random.integer(0, std::size(pieces) - 1)]);
          break;
        case 3:
          text.insert(
              at,
              text.substr(static_cast<size_t>(random.integer(0, static_cast<int64_t>(text.size()))),
                          20));
          break;
        default:
          if (random.integer(0, 9) == 0) text.resize(at);
      }
    }
    try {
      Graph g = parse(text);
      g.check();
      std::string printed = print(g, {.full = true});
      EXPECT_EQ(print(parse(printed), {.full = true}), printed) << text;
      ++read;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::corrupt) << e.what();
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what() << "\n" << text;
    }
  }
  EXPECT_GT(read, 100);
}

}  // namespace octet::graph
