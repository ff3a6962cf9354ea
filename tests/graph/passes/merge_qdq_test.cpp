#include "octet/graph/passes/merge_qdq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/quant/workflow/fx.h"
#include "tests/graph/random_net.h"

namespace octet::graph {
namespace {

std::string body(const Graph& g) {
  std::string text = print(g, {.full = true});
  return text.substr(10, text.size() - 12);
}
Graph parsed(const std::string& text) { return parse("graph g {\n" + text + "}\n"); }
std::string merged(const std::string& text) { return body(merge_qdq(parsed(text))); }

// %a: codes of an image and %d, their numbers; weights %w.
const std::string kCodes = "  %a: QUInt8(1, 2, 4, 4) scale=0.5 zero_point=128 = input\n";
const std::string kD = "  %d: Float(1, 2, 4, 4) = dequantize(%a)\n";
const std::string kWeight =
    "  %w: QInt8(2, 2, 1, 1) axis=0 scale=[0.5, 0.25] zero_point=0 = constant\n";
const std::string kW = "  %wd: Float(2, 2, 1, 1) = dequantize(%w)\n";
const std::string kOut = "QUInt8(1, 2, 4, 4) scale=0.25 zero_point=3";

}  // namespace

TEST(MergeQdq, BecomesIntegerOperators) {
  const struct {
    const char* name;
    std::string before, after;
  } cases[] = {
      {"conv with per-channel weights and a float bias",
       kCodes + kD + kWeight + kW +
           "  %b: Float(2) = constant [1, 2]\n  %f: Float(1, 2, 4, 4) = conv2d(%d, %wd, %b, "
           "activation=\"relu\")  @ "
           "conv\n  %y: " +
           kOut + " = quantize(%f)\n  return (%y)\n",
       kCodes + kWeight + "  %b: Float(2) = constant [1, 2]\n  %y: " + kOut +
           " = conv2d(%a, %w, %b, activation=\"relu\")  @ conv\n  return (%y)\n"},
      {"conv with a QInt32 bias",
       kCodes + kD + kWeight + kW +
           "  %b: QInt32(2) axis=0 scale=[0.25, 0.125] zero_point=0 = constant\n  %bd: Float(2) = "
           "dequantize(%b)\n  "
           "%f: Float(1, 2, 4, 4) = conv2d(%d, %wd, %bd)\n  %y: " +
           kOut + " = quantize(%f)\n  return (%y)\n",
       kCodes + kWeight +
           "  %b: QInt32(2) axis=0 scale=[0.25, 0.125] zero_point=0 = constant\n  %y: " + kOut +
           " = conv2d(%a, %w, %b)\n  return (%y)\n"},
      {"a dequantize shared by two operators",
       kCodes + kD + "  %f: Float(1, 2, 4, 4) = add(%d, %d)\n  %y: " + kOut +
           " = quantize(%f)\n  %h: Float(1, 2, 4, 4) = mul(%d, %d)\n  %z: " + kOut +
           " = quantize(%h)\n  return (%y, %z)\n",
       kCodes + "  %y: " + kOut + " = add(%a, %a)\n  %z: " + kOut +
           " = mul(%a, %a)\n  return (%y, %z)\n"},
      {"sizes of codes",
       kCodes + kD + "  %n: Long(2) = shape(%d, start=2)  @ sizes\n  return (%n)\n",
       kCodes + "  %n: Long(2) = shape(%a, start=2)  @ sizes\n  return (%n)\n"},
      {"moving codes with equal qparams",
       kCodes + kD +
           "  %f: Float(1, 32) = flatten(%d)\n  %y: QUInt8(1, 32) scale=0.5 zero_point=128 = "
           "quantize(%f)\n  return "
           "(%y)\n",
       kCodes + "  %y: QUInt8(1, 32) scale=0.5 zero_point=128 = flatten(%a)\n  return (%y)\n"},
      {"moving codes to other qparams",
       kCodes + kD +
           "  %f: Float(1, 32) = flatten(%d)\n  %y: QUInt8(1, 32) scale=0.25 zero_point=3 = "
           "quantize(%f)\n  return "
           "(%y)\n",
       kCodes + "  %y.codes: QUInt8(1, 32) scale=0.5 zero_point=128 = flatten(%a)\n  %y: QUInt8(1, "
                "32) scale=0.25 "
                "zero_point=3 = requantize(%y.codes)\n  return (%y)\n"},
      {"an activation to other qparams is one table",
       kCodes + kD + "  %f: Float(1, 2, 4, 4) = relu6(%d)\n  %y: " + kOut +
           " = quantize(%f)\n  return (%y)\n",
       kCodes + "  %y: " + kOut + " = relu6(%a)\n  return (%y)\n"},
      {"quantize of dequantize, equal qparams",
       kCodes + kD +
           "  %y: QUInt8(1, 2, 4, 4) scale=0.5 zero_point=128 = quantize(%d)\n  return (%y)\n",
       kCodes + "  return (%a)\n"},
      {"quantize of dequantize, other qparams",
       kCodes + kD + "  %y: " + kOut + " = quantize(%d)\n  return (%y)\n",
       kCodes + "  %y: " + kOut + " = requantize(%a)\n  return (%y)\n"},
      {"a chain through equal pairs",
       kCodes + kD +
           "  %p: QUInt8(1, 2, 4, 4) scale=0.5 zero_point=128 = quantize(%d)\n  %e: Float(1, 2, 4, "
           "4) = "
           "dequantize(%p)\n  %f: Float(1, 2, 4, 4) = add(%e, %d)\n  %y: " +
           kOut + " = quantize(%f)\n  return (%y)\n",
       kCodes + "  %y: " + kOut + " = add(%a, %a)\n  return (%y)\n"},
      {"two quantize nodes of equal qparams",
       kCodes + kD + "  %f: Float(1, 2, 4, 4) = add(%d, %d)\n  %y: " + kOut +
           " = quantize(%f)\n  %z: " + kOut + " = quantize(%f)\n  return (%y, %z)\n",
       kCodes + "  %y: " + kOut + " = add(%a, %a)\n  return (%y, %y)\n"},
      {"an index is taken as it is",
       kCodes + kD +
           "  %i: Long(1) = constant [1]\n  %f: Float(1, 1, 4, 4) = index_select(%d, %i, dim=1)\n  "
           "%y: QUInt8(1, 1, 4, "
           "4) scale=0.5 zero_point=128 = quantize(%f)\n  return (%y)\n",
       kCodes + "  %i: Long(1) = constant [1]\n  %y: QUInt8(1, 1, 4, 4) scale=0.5 zero_point=128 = "
                "index_select(%a, "
                "%i, dim=1)\n  return (%y)\n"},
      {"a split, whose parts are codes of one scale",
       kCodes + kD +
           "  %f: Float(1, 1, 4, 4), %h: Float(1, 1, 4, 4) = split(%d, dim=1, sizes=[1, 1])\n  %y: "
           "QUInt8(1, 1, 4, 4) scale=0.5 "
           "zero_point=128 = quantize(%f)\n  %z: QUInt8(1, 1, 4, 4) scale=0.25 zero_point=3 = "
           "quantize(%h)\n  return (%y, %z, %h)\n",
       kCodes + "  %y: QUInt8(1, 1, 4, 4) scale=0.5 zero_point=128, %h.codes: QUInt8(1, 1, 4, 4) "
                "scale=0.5 zero_point=128 = split(%a, "
                "dim=1, sizes=[1, 1])\n  %h: Float(1, 1, 4, 4) = dequantize(%h.codes)\n  %z: "
                "QUInt8(1, 1, 4, 4) scale=0.25 "
                "zero_point=3 = requantize(%h.codes)\n  return (%y, %z, %h)\n"},
      {"prelu with slopes that are float",
       kCodes + kD +
           "  %s: Float(2, 1, 1) = constant [0.5, 3]\n  %f: Float(1, 2, 4, 4) = prelu(%d, %s)\n  "
           "%y: " +
           kOut + " = quantize(%f)\n  return (%y)\n",
       kCodes + "  %s: Float(2, 1, 1) = constant [0.5, 3]\n  %y: " + kOut +
           " = prelu(%a, %s)\n  return (%y)\n"},
      {"the number is a result of the graph too",
       kCodes + kD + "  %f: Float(1, 2, 4, 4) = add(%d, %d)\n  %y: " + kOut +
           " = quantize(%f)\n  return (%y, %d)\n",
       kCodes + kD + "  %y: " + kOut + " = add(%a, %a)\n  return (%y, %d)\n"},
  };
  for (const auto& c : cases) EXPECT_EQ(merged(c.before), c.after) << c.name;
}

TEST(MergeQdq, StaysFloat) {
  const struct {
    const char* name;
    std::string text;
  } cases[] = {
      {"the float result is a result of the graph",
       kCodes + kD + "  %f: Float(1, 2, 4, 4) = add(%d, %d)\n  %y: " + kOut +
           " = quantize(%f)\n  return (%y, %f)\n"},
      {"the float result has another use",
       kCodes + kD + "  %f: Float(1, 2, 4, 4) = add(%d, %d)\n  %y: " + kOut +
           " = quantize(%f)\n  %e: Float(1, 2, 4, 4) = exp(%f)\n  return (%y, %e)\n"},
      {"two quantize nodes that differ",
       kCodes + kD + "  %f: Float(1, 2, 4, 4) = add(%d, %d)\n  %y: " + kOut +
           " = quantize(%f)\n  %z: QUInt8(1, 2, 4, 4) scale=0.125 zero_point=3 = quantize(%f)\n  "
           "return (%y, %z)\n"},
      {"an operand is float",
       kCodes + kD +
           "  %x: Float(1, 2, 4, 4) = input\n  %f: Float(1, 2, 4, 4) = add(%d, %x)\n  %y: " + kOut +
           " = quantize(%f)\n  return (%y)\n"},
      {"per-channel weights along the inputs",
       "  %a: QUInt8(1, 2) scale=0.5 zero_point=128 = input\n  %d: Float(1, 2) = dequantize(%a)\n  "
       "%w: QInt8(2, 2) "
       "axis=1 scale=[0.5, 0.25] zero_point=0 = constant\n  %wd: Float(2, 2) = dequantize(%w)\n"
       "  %f: Float(1, 2) = linear(%d, %wd)\n  %y: QUInt8(1, 2) scale=0.5 zero_point=128 = "
       "quantize(%f)\n  return "
       "(%y)\n"},
      {"per-channel activations",
       "  %a: QUInt8(1, 2) axis=1 scale=[0.5, 0.25] zero_point=128 = input\n  %d: Float(1, 2) = "
       "dequantize(%a)\n  %f: "
       "Float(1, 2) = relu(%d)\n  %y: QUInt8(1, 2) scale=0.5 zero_point=128 = quantize(%f)\n  "
       "return (%y)\n"},
      {"nothing is quantized",
       "  %x: Float(2) = input\n  %y: Float(2) = relu(%x)\n  return (%y)\n"},
  };
  for (const auto& c : cases) EXPECT_EQ(merged(c.text), c.text) << c.name;
}

TEST(MergeQdq, ThePredicateDecides) {
  Graph g = parsed(kCodes + kD + "  %f: Float(1, 2, 4, 4) = add(%d, %d)\n  %y: " + kOut +
                   " = quantize(%f)\n  %e: Float(1, 2, 4, 4) = dequantize(%y)\n  %h: Float(1, 2, "
                   "4, 4) = mul(%e, %e)\n  %z: " +
                   kOut + " = quantize(%h)\n  return (%z)\n");
  EXPECT_EQ(body(merge_qdq(g, [](const Graph&, const Node& node) { return node.op != "mul"; })),
            kCodes + "  %y: " + kOut +
                " = add(%a, %a)\n  %e: Float(1, 2, 4, 4) = dequantize(%y)\n  %h: Float(1, 2, 4, 4) "
                "= mul(%e, %e)\n  %z: " +
                kOut + " = quantize(%h)\n  return (%z)\n");
}

TEST(RemoveDead, DropsWhatNothingUsesButKeepsInputs) {
  EXPECT_EQ(
      body(remove_dead(parsed(
          "  %x: Float(4) = input\n  %u: Float(1) = input\n  %c: Float(1) = constant [1]\n  %a: "
          "Float(4) = exp(%x)\n  %b: Float(4) = relu(%a)\n"
          "  %v: Float(2), %i: Long(2) = topk(%x, k=2)\n  return (%i)\n"))),
      "  %x: Float(4) = input\n  %u: Float(1) = input\n  %v: Float(2), %i: Long(2) = topk(%x, "
      "k=2)\n  return (%i)\n");
}

// One operator between codes: merged and unmerged differ by a step at most, for qparams that are
// alike or far apart.
TEST(MergeQdq, OperatorsStayWithinOneStep) {
  const char* const calls[] = {
      "relu(%d)",
      "relu6(%d)",
      "clamp(%d, max=1.3, min=0.7)",
      "sigmoid(%d)",
      "hardswish(%d)",
      "leaky_relu(%d)",
      "add(%d, %e)",
      "add(%d, %e, activation=\"relu\")",
      "sub(%d, %e)",
      "mul(%d, %e)",
      "div(%d, %e)",
      "maximum(%d, %e)",
      "minimum(%e, %d)",
      "cat(%d, %e)",
      "softmax(%d)",
      "exp(%d)",
      "max_pool2d(%d, kernel=[3, 3], padding=[1, 1, 1, 1], stride=[1, 1])",
      "avg_pool2d(%d, kernel=[3, 3], padding=[1, 1, 1, 1], stride=[1, 1])",
      "avg_pool2d(%d, count_include_pad=false, kernel=[3, 3], padding=[1, 1, 1, 1], stride=[1, 1])",
      "adaptive_avg_pool2d(%d)",
      "mean(%d, dim=[1])",
      "amax(%d, dim=[1])",
      "sum(%d, dim=[1])",
      "pad(%d, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=40.)",
      "pad(%d, pads=[0, 0, 1, 1, 0, 0, 1, 1])",
      "pad(%d, mode=\"edge\", pads=[0, 0, 1, 1, 0, 0, 1, 1])",
      "interpolate(%d, mode=\"linear\", scales=[2., 2.])",
      "interpolate(%d, scales=[2., 2.])",
      "permute(%d, dims=[0, 2, 3, 1])",
      "slice(%d, dim=2, end=3, start=1)",
      "reshape(%d, shape=[2, -1])",
      "expand(%d, shape=[2, 2, 2, 4, 4])",
      "tile(%d, repeats=[1, 2, 1, 1])",
      "triu(%d)",
      "pixel_shuffle(%d, upscale_factor=1)",
      "matmul(%d, %e)",
      "unsqueeze(%d, dim=0)",
      "identity(%d)",
      "prelu(%d, %s)",
  };
  const char* const qparams[][3] = {
      {"QUInt8", "scale=0.05 zero_point=100", "scale=0.05 zero_point=100"},
      {"QUInt8", "scale=0.05 zero_point=128", "scale=0.004 zero_point=100"},
      {"QInt8", "scale=0.02 zero_point=-3", "scale=0.4 zero_point=5"}};
  for (const char* call : calls)
    for (const auto& q : qparams)
      for (const char* out : {"QUInt8", "QInt8"}) {
        Graph g;
        DType in = parse_type_name(q[0]), to = parse_type_name(out);
        auto quantizer = [](const char* text, DType dtype) {
          return parse_type(type_name(dtype) + "(1) " + text).quantizer;
        };
        ValueId a = g.add_input("a", TensorType(in, Shape{2, 2, 4, 4}, quantizer(q[1], in)));
        ValueId b = g.add_input(
            "b", TensorType(in, Shape{2, 2, 4, 4}, quantizer("scale=0.3 zero_point=10", in)));
        ValueId d = g.add_call("d", "dequantize", {a}), e = g.add_call("e", "dequantize", {b});
        ValueId s = g.add_call(
            "s", "dequantize",
            {g.add_constant(
                "slope", quantize_per_tensor(Tensor::from<float>({0.2f}), 0.01, 0, DType::qint8))});
        std::string name(call, std::string(call).find('('));
        std::string list(call);
        std::vector<ValueId> operands;
        for (size_t i = 0; (i = list.find('%', i)) != std::string::npos; ++i)
          operands.push_back(list[i + 1] == 'd' ? d : list[i + 1] == 'e' ? e : s);
        Attrs attrs;
        size_t eq = 0;
        std::string rest = list.substr(list.find('(') + 1);
        while ((eq = rest.find('=')) != std::string::npos) {
          size_t start = rest.find_last_of(' ', eq),
                 end = rest[eq + 1] == '[' ? rest.find(']', eq) + 1 : rest.find_first_of(",)", eq);
          attrs.set(rest.substr(start + 1, eq - start - 1),
                    parse_attr(rest.substr(eq + 1, end - eq - 1)));
          rest = rest.substr(end);
        }
        ValueId f = g.add_call("f", name, operands, attrs);
        ValueId y = g.add_call("y", "quantize", {f}, {}, ops::QType{to, quantizer(q[2], to)});
        g.set_outputs({y});
        Graph m = merge_qdq(g);
        m.check();
        for (const Node& node : m.nodes())
          EXPECT_NE(node.op, "dequantize") << call << "\n" << print(m);
        std::vector<Tensor> inputs{
            quantize(Tensor::rand({2, 2, 4, 4}, 1, -5, 5), g.type(a).quantizer, in),
            quantize(Tensor::rand({2, 2, 4, 4}, 2, -30, 30), g.type(b).quantizer, in)};
        Tensor want = testing::evaluate(g, inputs)[0], got = testing::evaluate(m, inputs)[0];
        ASSERT_EQ(got.type(), want.type()) << call;
        double step = want.q_scale() * 1.001;
        EXPECT_TRUE(allclose(got, want, 0, step))
            << call << " " << q[0] << " " << q[1] << " -> " << out << " " << q[2];
      }
}

TEST(MergeQdq, NetworksStayWithinOneStepPerOperator) {
  int compared = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Graph net = testing::random_net(seed);
    Tensor x = Tensor::randn({2, 3, 6, 6}, seed);
    Graph reference;
    try {
      auto prepared = quant::prepare_fx(net, quant::get_default_qconfig());
      prepared->forward({x});
      reference = quant::convert_to_reference_fx(prepared)->graph();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("nothing in"), std::string::npos) << e.what();
      continue;
    }
    Graph m = merge_qdq(reference);
    m.check();
    // Each integer operator on the reference's own operands, so that steps do not add up.
    auto want = testing::evaluate_values(reference, {x});
    for (const Node& node : m.nodes()) {
      if (node.kind != NodeKind::call || !m.type(node.outputs[0]).is_quantized()) continue;
      std::vector<Tensor> operands;
      for (ValueId v : node.inputs) {
        if (v == kNone)
          operands.push_back({});
        else if (m.is_constant(v))
          operands.push_back(m.constant(v));
        else
          operands.push_back(want[*reference.find(m.value(v).name)]);
      }
      Tensor y = ops::call(node.op, operands, node.attrs, want_of(m, node)),
             r = want[*reference.find(m.value(node.outputs[0]).name)];
      EXPECT_TRUE(allclose(y, r, 0, r.q_scale() * 1.001))
          << seed << " " << node.op << " %" << m.value(node.outputs[0]).name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 200);
}

}  // namespace octet::graph
