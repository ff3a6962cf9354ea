#include "octet/quant/workflow/fx.h"
#include "tests/graph_text.h"
#include "tests/sqnr.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "octet/base/parallel.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using testing::expect_error;
using testing::parse_body;
using testing::random_net;
using testing::sqnr;

const QConfig kNative = get_default_qconfig();

// conv -> relu -> conv -> pool -> linear, 8 channels.
Graph conv_net(uint64_t seed = 1) {
  Graph g;
  auto weight = [&](const std::string& name, const Shape& shape) {
    return g.add_constant(name, Tensor::rand(shape, seed++, -0.5, 0.5));
  };
  Attrs pad{{"padding", std::vector<int64_t>{1, 1, 1, 1}}};
  ValueId x = g.add_input("image", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(8), Dim(8)}));
  ValueId a = g.add_call("a", "conv2d",
                         {x, weight("conv1.weight", {8, 3, 3, 3}), weight("conv1.bias", {8})}, pad,
                         std::nullopt, "conv1");
  ValueId r = g.add_call("r", "relu", {a}, {}, std::nullopt, "relu1");
  ValueId b = g.add_call("b", "conv2d", {r, weight("conv2.weight", {8, 8, 3, 3})}, pad,
                         std::nullopt, "conv2");
  ValueId s = g.add_call("s", "add", {b, r}, {}, std::nullopt, "sum");
  ValueId p = g.add_call("p", "adaptive_avg_pool2d", {s},
                         {{"output_size", std::vector<int64_t>{2, 2}}}, std::nullopt, "pool");
  ValueId f = g.add_call("f", "flatten", {p}, {}, std::nullopt, "flat");
  ValueId y =
      g.add_call("logits", "linear", {f, weight("fc.weight", {10, 32}), weight("fc.bias", {10})},
                 {}, std::nullopt, "fc");
  g.set_outputs({y});
  return g;
}

Tensor batch(int64_t n, uint64_t seed) { return Tensor::randn({n, 3, 8, 8}, seed); }

}  // namespace

TEST(PrepareFx, ForwardReturnsTheFloatResults) {
  Graph g = conv_net();
  auto prepared = prepare_fx(g, kNative);
  Tensor got = prepared->forward(batch(3, 1));
  EXPECT_TRUE(allclose(got, testing::evaluate(g, {batch(3, 1)})[0], 1e-4, 1e-5));
  EXPECT_FALSE(autograd::requires_grad(got)) << "calibration records nothing";
}

TEST(PrepareFx, RefusesBeforeAnyDataIsSeen) {
  Graph g = conv_net();
  expect_error(ErrorCode::invalid_argument, {"nothing in graph can be quantized"},
               [&] { prepare_fx(g, QConfig{}); });
  QConfig q = kNative;
  q.weight = default_float_qparams_observer();
  expect_error(ErrorCode::invalid_argument, {"float zero points", "embeddings"},
               [&] { prepare_fx(g, q); });
  q.activation = ObserverFactory("PerChannelMinMaxObserver");
  expect_error(ErrorCode::invalid_argument,
               {"activations", "per tensor", "PerChannelMinMaxObserver"},
               [&] { prepare_fx(g, q); });
  q = kNative;
  q.activation = ObserverFactory("MinMaxObserver").with_dtype(DType::qint32);
  expect_error(ErrorCode::invalid_argument, {"activation dtype qint32"}, [&] { prepare_fx(g, q); });
  q = kNative;
  q.weight = kNative.weight.with_ch_axis(1);
  expect_error(ErrorCode::invalid_argument, {"axis 0", "ch_axis=1"}, [&] { prepare_fx(g, q); });
  expect_error(ErrorCode::not_found, {"'conv3'", "did you mean"}, [&] {
    prepare_fx(g, kNative, {{"conv3"}, ""});
  });
  expect_error(ErrorCode::invalid_argument,
               {"nothing in g can be quantized", "z: exp could run on codes"}, [&] {
                 prepare_fx(parse_body("%x: Float(2) = input\n%z: Float(2) = exp(%x)\nreturn (%z)"),
                            kNative);
               });
  expect_error(ErrorCode::invalid_argument, {"skipped by"}, [&] {
    prepare_fx(g, kNative, {{"*"}, ""});
  });
  Graph bad = conv_net();
  Tensor w = bad.constant(*bad.find("conv2.weight")).clone();
  w.data<float>()[3] = std::nanf("");
  bad.node(bad.value(*bad.find("conv2.weight")).producer).value = w;
  expect_error(ErrorCode::invalid_argument, {"conv2.weight", "NaN"},
               [&] { prepare_fx(bad, kNative); });
}

TEST(ConvertFx, SlopesOfPreluStayFloatInAnyShape) {
  for (const char* shape : {"1, 8, 1, 1", "8, 1, 1", "8"}) {
    Graph g = conv_net();
    const std::vector<float> slopes{20,    0.05f, 0.06f, 0.03f, 0.07f,
                                    0.04f, 0.02f, 0.08f};  // the first one makes one scale useless
    std::string text = graph::print(g, {.full = true});
    size_t at = text.find("= relu(%a)");
    text.replace(at, 10, "= prelu(%a, %slope)");
    text.insert(text.find("  %r:"), "  %slope: Float(" + std::string(shape) + ") = constant [" +
                                        fmt::format("{}", fmt::join(slopes, ", ")) + "]\n");
    std::map<std::string, Tensor> constants;
    for (const Node& node : g.nodes())
      if (node.kind == NodeKind::constant) constants[g.value(node.outputs[0]).name] = node.value;
    // The codes of the prelu are a result of the graph too.
    Graph net = graph::parse(text, constants);
    net.set_outputs({*net.find("r"), *net.find("logits")});
    auto prepared = prepare_fx(net, kNative);
    for (uint64_t i = 0; i < 4; ++i) prepared->forward({batch(8, i)});
    Graph int8 = convert_fx(prepared)->graph();
    bool found = false;
    for (const Node& node : int8.nodes()) {
      if (node.op != "prelu") continue;
      found = true;
      EXPECT_TRUE(int8.type(node.outputs[0]).is_quantized()) << shape;
      EXPECT_EQ(int8.type(node.inputs[1]).dtype, DType::float32) << shape;
      EXPECT_EQ(int8.constant(node.inputs[1]).to_vector<float>(), slopes) << shape;
    }
    EXPECT_TRUE(found) << shape;
    Tensor x = batch(4, 9);
    EXPECT_GT(
        sqnr(runtime::compile(net).run({x})[0], runtime::compile(int8).run({x})[0].dequantize()),
        25)
        << shape;
  }
}

TEST(PrepareFx, RefusesWhatIsQuantizedAlready) {
  auto prepared = prepare_fx(conv_net(), kNative);
  prepared->forward({batch(2, 1)});
  expect_error(ErrorCode::invalid_argument, {"quantized already", "QUInt8"},
               [&] { prepare_fx(convert_fx(prepared)->graph(), kNative); });
  expect_error(ErrorCode::invalid_argument, {"quantized already"},
               [&] { prepare_fx(convert_to_reference_fx(prepared)->graph(), kNative); });
}

TEST(PrepareFx, BadCalibrationDataNamesTheTensor) {
  auto prepared = prepare_fx(conv_net(), kNative);
  Tensor x = batch(2, 1);
  x.data<float>()[7] = std::nanf("");
  expect_error(ErrorCode::invalid_argument, {"'image'", "1"}, [&] { prepared->forward({x}); });
  EXPECT_NO_THROW(prepared->forward({batch(2, 1)}));
}

TEST(ConvertFx, WithoutCalibrationNamesEveryObserver) {
  auto prepared = prepare_fx(conv_net(), kNative);
  expect_error(ErrorCode::not_calibrated,
               {"6 of 6", "image", "%r", "%b", "%s", "logits", "calibration data"},
               [&] { convert_fx(prepared); });
}

TEST(ConvertFx, Int8ResultsAreCloseToFloat) {
  // Eight bits per activation give 30 dB; the others here use seven, or one scale for all channels
  // of a weight.
  const std::pair<const char*, double> expected[] = {
      {"native", 30}, {"onednn", 30}, {"fbgemm", 25}, {"qnnpack", 25}, {"default_qconfig", 20}};
  for (auto [name, least] : expected) {
    Graph g = conv_net();
    auto prepared = prepare_fx(g, get_default_qconfig(name));
    for (uint64_t i = 0; i < 8; ++i) prepared->forward({batch(8, i)});
    Tensor x = batch(16, 100);
    double quality = sqnr(runtime::compile(g).run({x})[0],
                          runtime::compile(convert_fx(prepared)->graph()).run({x})[0]);
    EXPECT_GT(quality, least) << name;
  }
}

TEST(ConvertFx, SignedActivationsWorkAsWell) {
  Graph g = conv_net();
  QConfig q = kNative;
  q.activation = ObserverFactory("MinMaxObserver").with_dtype(DType::qint8);
  auto prepared = prepare_fx(g, q);
  prepared->forward({batch(8, 1)});
  Graph int8 = convert_fx(prepared, nullptr, true)->graph();
  Tensor x = batch(4, 2);
  EXPECT_GT(sqnr(runtime::compile(g).run({x})[0], runtime::compile(int8).run({x})[0]), 25);
  EXPECT_EQ(int8.type(*int8.find("r")).dtype, DType::qint8);
}

TEST(ConvertFx, InputsAndResultsKeepNamesAndStayFloat) {
  Graph g = conv_net();
  g.set_outputs({*g.find("logits"), *g.find("r"), *g.find("image")});
  auto prepared = prepare_fx(g, kNative);
  prepared->forward({batch(2, 1)});
  for (const Graph& c :
       {convert_fx(prepared)->graph(), convert_to_reference_fx(prepared)->graph()}) {
    c.check();
    ASSERT_EQ(c.outputs().size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(c.value(c.outputs()[i]).name, g.value(g.outputs()[i]).name);
      EXPECT_EQ(c.type(c.outputs()[i]).dtype, DType::float32);
    }
    EXPECT_EQ(c.value(c.inputs()[0]).name, "image");
  }
}

TEST(ConvertFx, IntegerAndReferenceGraphsAgreeWithinAStepPerOperator) {
  auto prepared = prepare_fx(conv_net(), kNative);
  prepared->forward({batch(4, 1)});
  Graph reference = convert_to_reference_fx(prepared)->graph(),
        int8 = convert_fx(prepared)->graph();
  auto want = testing::evaluate_values(reference, {batch(4, 2)});
  int compared = 0;
  for (const Node& node : int8.nodes()) {
    if (node.kind != NodeKind::call || !int8.type(node.outputs[0]).is_quantized()) continue;
    std::vector<Tensor> operands;
    for (ValueId v : node.inputs)
      operands.push_back(v == kNone            ? Tensor()
                         : int8.is_constant(v) ? int8.constant(v)
                                               : want[*reference.find(int8.value(v).name)]);
    const std::string& name = int8.value(node.outputs[0]).name;
    Tensor got = ops::call(node.op, operands, node.attrs, graph::want_of(int8, node)),
           r = want[*reference.find(name)];
    EXPECT_TRUE(allclose(got, r, 0, r.q_scale() * 1.001)) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 7);
}

TEST(ConvertFx, AWeightOfTwoLayersIsQuantizedOnceAndShared) {
  Graph g = parse_body(
      "%x: Float(1, 2, 4, 4) = input\n%w: Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n"
      "%y: Float(1, 2, 4, 4) = conv2d(%x, %w)\n%z: Float(1, 2, 4, 4) = conv2d(%y, %w)\nreturn "
      "(%z)");
  auto prepared = prepare_fx(g, kNative);
  prepared->forward({Tensor::randn({1, 2, 4, 4}, 1)});
  Graph int8 = convert_fx(prepared)->graph();
  int constants = 0;
  for (const Node& node : int8.nodes()) constants += node.kind == NodeKind::constant;
  EXPECT_EQ(constants, 1);
  EXPECT_EQ(int8.users(*int8.find("w")).size(), 2u);
}

TEST(ConvertFx, AQatConfigurationCalibratesWithItsObservers) {
  Graph g = conv_net();
  auto prepared = prepare_fx(g, default_qat_qconfig());
  auto plain = prepare_fx(g, QConfig{default_fake_quant().without_fake_quantize(),
                                     default_weight_fake_quant().without_fake_quantize()});
  Tensor x = Tensor::rand({2, 3, 8, 8}, 3, -1, 1);
  prepared->forward(x);
  plain->forward(x);
  EXPECT_EQ(graph::print(convert_fx(prepared)->graph()), graph::print(convert_fx(plain)->graph()));
}

TEST(ConvertFx, SigmoidHasFixedQparams) {
  Graph g = parse_body(
      "%x: Float(1, 2, 4, 4) = input\n%w: Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n"
      "%y: Float(1, 2, 4, 4) = conv2d(%x, %w)\n%s: Float(1, 2, 4, 4) = sigmoid(%y)\n%z: Float(1, "
      "2, 4, 4) = conv2d(%s, "
      "%w)\nreturn (%z)");
  auto prepared = prepare_fx(g, kNative);
  prepared->forward({Tensor::randn({1, 2, 4, 4}, 1)});
  Graph int8 = convert_fx(prepared)->graph();
  EXPECT_EQ(to_string(int8.type(*int8.find("s"))),
            "QUInt8(1, 2, 4, 4) scale=0.00390625 zero_point=0");
}

TEST(ConvertFx, QparamsDoNotDependOnBatchingOrThreads) {
  for (const char* observer : {"HistogramObserver", "MinMaxObserver"}) {
    QConfig q = kNative;
    q.activation = ObserverFactory(observer);
    int before = num_threads();
    std::set<std::string> texts;
    Tensor data = batch(12, 5);
    for (int64_t size : {1, 5, 12})
      for (int threads : {1, 2, 3}) {
        set_num_threads(threads);
        auto prepared = prepare_fx(conv_net(), q);
        for (int64_t i = 0; i < 12; i += size)
          prepared->forward({data.slice(0, i, i + size).contiguous()});
        texts.insert(graph::print(convert_fx(prepared)->graph(), {.full = true}));
      }
    set_num_threads(before);
    EXPECT_EQ(texts.size(), 1u) << observer;
  }
}

TEST(ConvertFx, AConstantOrZeroRangeIsHandledAndSaid) {
  for (double level : {0.0, 2.5}) {
    auto prepared = prepare_fx(conv_net(), kNative);
    prepared->forward({Tensor::full({1, 3, 8, 8}, level)});
    ConversionReport report;
    Graph int8 = convert_fx(prepared, &report)->graph();
    Tensor y = runtime::compile(int8).run({Tensor::full({1, 3, 8, 8}, level)})[0];
    for (float v : y.to_vector<float>()) EXPECT_TRUE(std::isfinite(v));
    if (level == 0) {
      ASSERT_FALSE(report.warnings.empty());
      EXPECT_NE(report.warnings[0].find("image"), std::string::npos) << report.warnings[0];
    }
  }
}

TEST(ConversionReport, ListsEveryNodeOnce) {
  Graph g = conv_net();
  auto prepared = prepare_fx(g, kNative, {{"conv2"}, ""});
  prepared->forward({batch(2, 1)});
  ConversionReport report;
  convert_fx(prepared, &report);
  convert_fx(prepared, &report);
  std::vector<std::string> lines;
  for (const auto& e : report.entries)
    lines.push_back(e.node + " " + e.op + (e.quantized ? "" : ": " + e.reason));
  EXPECT_EQ(lines,
            (std::vector<std::string>{"conv1 conv2d", "conv2 conv2d: skipped by 'conv2'", "sum add",
                                      "pool adaptive_avg_pool2d", "flat flatten", "fc linear"}));
  EXPECT_EQ(report.quantized(), 5);
  ASSERT_EQ(report.left_float().size(), 1u);
  EXPECT_EQ(report.left_float()[0].node, "conv2");
}

TEST(ConversionReport, WhatIsCalledQuantizedIsInInteger) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Graph g = random_net(seed, true, 12);
    try {
      auto prepared = prepare_fx(g, kNative);
      prepared->forward({Tensor::randn({2, 3, 6, 6}, seed)});
      ConversionReport report;
      Graph int8 = convert_fx(prepared, &report)->graph();
      int8.check();
      int64_t integer = 0;
      for (const Node& node : int8.nodes())
        if (node.kind == NodeKind::call && node.op != "quantize" && node.op != "dequantize" &&
            node.op != "requantize")
          integer += int8.type(node.outputs[0]).is_quantized();
      // Dead nodes are listed but not there; random_net leaves some.
      EXPECT_LE(integer, report.quantized());
      for (const Node& node : int8.nodes())
        if (node.kind == NodeKind::call && node.op != "quantize" && node.op != "dequantize" &&
            !int8.type(node.outputs[0]).is_quantized()) {
          EXPECT_TRUE(node.stays_float && !node.note.empty()) << graph::print(int8);
        }
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("nothing in"), std::string::npos) << e.what();
    }
  }
}

TEST(ConvertFx, StrictRefusesFloat) {
  Graph g = conv_net();
  g.set_outputs({g.add_call("odds", "exp", {*g.find("logits")}, {}, std::nullopt, "head.exp")});
  auto prepared = prepare_fx(g, kNative);
  prepared->forward({batch(2, 1)});
  EXPECT_NO_THROW(convert_fx(prepared));
  expect_error(ErrorCode::unsupported, {"1 nodes stay float", "head.exp (exp)"},
               [&] { convert_fx(prepared, nullptr, true); });
  auto all = prepare_fx(conv_net(), kNative);
  all->forward({batch(2, 1)});
  EXPECT_NO_THROW(convert_fx(all, nullptr, true));
}

TEST(ConvertFx, FloatOperatorsBetweenQuantizedOnesReadNumbers) {
  Graph g = parse_body(
      "%x: Float(1, 2, 4, 4) = input\n%w: Float(2, 2, 1, 1) = constant [0.5, -0.25, 0.125, 1]\n%c: "
      "Float(1) = constant "
      "[0.5]\n"
      "%y: Float(1, 2, 4, 4) = conv2d(%x, %w)\n%m: Float(1, 2, 4, 4) = mul(%y, %c)\n%e: Float(1, "
      "2, 4, 4) = tanh(%m)\n"
      "%z: Float(1, 2, 4, 4) = conv2d(%e, %w)\n%s: Float(1, 1, 4, 4), %t: Float(1, 1, 4, 4) = "
      "split(%z, dim=1, "
      "sizes=[1, 1])\n"
      "%u: Float(1, 1, 4, 4) = add(%s, %t)\nreturn (%u, %y, %y)");
  auto prepared = prepare_fx(g, kNative);
  Tensor x = Tensor::randn({1, 2, 4, 4}, 1);
  prepared->forward({x});
  Graph int8 = convert_fx(prepared)->graph();
  int8.check();
  auto got = runtime::compile(int8).run({x}), want = testing::evaluate(g, {x});
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_GT(sqnr(want[i], got[i]), 25) << i << "\n" << graph::print(int8);
}

}  // namespace octet::quant
