// Layers whose weights are next to nothing beside their bias (pruned channels): every workflow
// raises their weights' scales, so that the bias is an int32 in the exported file, and says so by
// layer and channel.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "octet/base/random.h"
#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/trace.h"
#include "octet/io/module_file.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/modules/weighted.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "octet/tensor/affine.h"
#include "tests/sqnr.h"
#include "tests/temp_dir.h"

namespace octet::weight_scales_test {

using quant::ConversionReport;
using testing::sqnr;
using testing::TempDir;
namespace F = functional;

constexpr int64_t kChannels = 6;

// Of small inputs, so that scales are small; stubs do nothing in graph mode.
struct Net : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(3, kChannels, 3));
  nn::Slot pool = slot("pool", nn::MaxPool2d(2));
  nn::Slot fc = slot("fc", nn::Linear(kChannels * 4, 4));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(fc(pool(conv(quant(x))).flatten(1))); }
};
OCTET_MODULE(Net)

// The same with functions.
struct FunctionalNet : Net {
  Tensor forward(Tensor x) override {
    auto& c = conv.as<nn::Conv2d>();
    auto& l = fc.as<nn::Linear>();
    return F::linear(pool(F::conv2d(x, c.weight, c.bias)).flatten(1), l.weight, l.bias);
  }
};
OCTET_MODULE(FunctionalNet)

// Channels 2 and 4 of the convolution have weights of +-`tiny` and a bias of +-`bias`, row 1 of the
// linear layer half of it.
template <typename M = Net>
std::shared_ptr<M> pruned(float tiny, float bias = 2) {
  manual_seed(3);
  auto net = nn::make<M>();
  auto& c = net->conv.template as<nn::Conv2d>();
  auto& l = net->fc.template as<nn::Linear>();
  for (int64_t n : {2, 4}) {
    for (int64_t i = 0; i < 27; ++i)
      c.weight.template data<float>()[n * 27 + i] = i % 2 ? tiny : -tiny;
    c.bias.template data<float>()[n] = n == 2 ? bias : -bias;
  }
  for (int64_t i = 0; i < kChannels * 4; ++i)
    l.weight.template data<float>()[kChannels * 4 + i] = tiny;
  l.bias.template data<float>()[1] = bias / 2;
  net->eval();
  return net;
}

Tensor batch(uint64_t seed) { return Tensor::rand({4, 3, 6, 6}, seed, -0.03, 0.03); }

// That what was said and done is right; `graph` is the quantized network, of the float results
// `expected` for batch(9).
void expect_representable(const graph::Graph& quantized, const ConversionReport& report,
                          const Tensor& expected, const std::string& layer = "conv") {
  std::string said;
  for (const std::string& w : report.warnings) said += w + "\n";
  EXPECT_NE(
      said.find(layer + ": the weights of channels 2, 4 of 6 are next to nothing beside the bias"),
      std::string::npos)
      << said;
  int layers = 0;
  for (const graph::Node& node : quantized.nodes()) {
    if (node.op != "conv2d" && node.op != "linear") continue;
    ++layers;
    ASSERT_TRUE(quantized.type(node.inputs[0]).is_quantized());
    const Tensor bias = quantized.constant(node.inputs[2]),
                 weight = quantized.constant(node.inputs[1]);
    const auto sx = static_cast<float>(quantized.type(node.inputs[0]).quantizer->scale());
    for (int64_t n = 0; n < bias.numel(); ++n) {
      const auto sw = static_cast<float>(
          weight.quantizer()->scale(weight.quantizer()->is_per_channel() ? n : 0));
      EXPECT_LE(std::abs(affine::quantize_bias(bias.data<float>()[n], sx, sw)),
                std::numeric_limits<int32_t>::max())
          << node.op << " channel " << n;
    }
  }
  EXPECT_EQ(layers, 2);
  const Tensor x = batch(9);
  runtime::Program program = runtime::compile(quantized);
  EXPECT_TRUE(program.warnings().empty()) << program.warnings()[0];
  const Tensor got = program.run({x})[0];
  EXPECT_GT(sqnr(expected, got), 30);
  // Through the file for other tools, whose biases are int32 codes, and back: the same bits.
  TempDir dir;
  io::export_onnx(quantized, dir / "net.onnx");
  const graph::Graph imported =
      graph::merge_qdq(graph::fuse_activations(io::import_onnx(dir / "net.onnx")));
  for (const graph::Node& node : imported.nodes())
    if (node.op == "conv2d" || node.op == "linear") {
      EXPECT_EQ(imported.type(node.inputs[2]).dtype, DType::qint32);
    }
  EXPECT_TRUE(equal(runtime::compile(imported).run({x})[0], got));
}

const float kTiny[] = {0, 1e-6f};

TEST(WeightScales, GraphsWithObservers) {
  for (float tiny : kTiny) {
    auto net = pruned(tiny);
    const graph::Graph g = graph::trace(*net, std::vector<Tensor>{batch(1)})->to_graph();
    auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
    for (uint64_t i = 0; i < 4; ++i) prepared->forward({batch(i)});
    ConversionReport report;
    expect_representable(quant::convert_fx(prepared, &report)->graph(), report, (*net)(batch(9)));
  }
}

TEST(WeightScales, GraphsInTraining) {
  auto net = pruned(1e-6f, 2000);  // in training no scale is below 6.1e-5
  const graph::Graph g = graph::trace(*net, std::vector<Tensor>{batch(1)})->to_graph();
  auto model = quant::prepare_qat_fx(g, quant::get_default_qat_qconfig());
  for (uint64_t i = 0; i < 4; ++i) model->forward(std::vector<Tensor>{batch(i)});
  model->eval();
  ConversionReport report;
  expect_representable(quant::convert_fx(model, &report)->graph(), report, (*net)(batch(9)));
}

template <typename M>
void graph_mode(float tiny, const std::string& layer) {
  auto net = pruned<M>(tiny);
  auto prepared =
      quant::prepare_fx(net, quant::get_default_qconfig_mapping(), std::vector<Tensor>{batch(1)});
  for (uint64_t i = 0; i < 4; ++i) (*prepared)(batch(i));
  ConversionReport report;
  auto int8 = quant::convert_fx(prepared, {}, quant::get_native_backend_config(), &report);
  expect_representable(int8->to_graph(), report, (*net)(batch(9)), layer);
}

TEST(WeightScales, GraphModeOnModules) {
  for (float tiny : kTiny) graph_mode<Net>(tiny, "conv");
}

TEST(WeightScales, GraphModeOnFunctions) {
  for (float tiny : kTiny) graph_mode<FunctionalNet>(tiny, "conv2d");
}

TEST(WeightScales, EagerMode) {
  for (float tiny : kTiny) {
    auto net = pruned(tiny);
    const Tensor expected = (*net)(batch(9));
    net->qconfig = quant::get_default_qconfig();
    auto prepared = quant::prepare(net);
    for (uint64_t i = 0; i < 4; ++i) (*prepared)(batch(i));
    ConversionReport report;
    auto int8 = quant::convert(prepared, {.report = &report});
    expect_representable(graph::trace(*int8, std::vector<Tensor>{batch(1)})->to_graph(), report,
                         expected);
  }
}

TEST(WeightScales, EagerModeInTraining) {
  auto net = pruned(1e-6f, 2000);  // in training no scale is below 6.1e-5
  const Tensor expected = (*net)(batch(9));
  net->train();
  net->qconfig = quant::get_default_qat_qconfig();
  auto prepared = quant::prepare_qat(net);
  for (uint64_t i = 0; i < 4; ++i) (*prepared)(batch(i));
  prepared->eval();
  ConversionReport report;
  auto int8 = quant::convert(prepared, {.report = &report});
  expect_representable(graph::trace(*int8, std::vector<Tensor>{batch(1)})->to_graph(), report,
                       expected);
}

TEST(WeightScales, APreparedModelKnowsItsScalesAfterSaving) {
  auto net = pruned(0);
  const Tensor expected = (*net)(batch(9));
  net->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(net);
  for (uint64_t i = 0; i < 4; ++i) (*prepared)(batch(i));
  TempDir dir;
  save_model(dir / "prepared.octet", *prepared);
  ConversionReport report;
  auto int8 = quant::convert(load_model(dir / "prepared.octet"), {.report = &report});
  expect_representable(graph::trace(*int8, std::vector<Tensor>{batch(1)})->to_graph(), report,
                       expected);
}

TEST(WeightScales, OneScaleForTheWholeWeightIsRaisedToo) {
  auto net = pruned(0);
  auto& c = net->conv.as<nn::Conv2d>();
  for (int64_t i = 0; i < c.weight.numel(); ++i) c.weight.data<float>()[i] = 1e-6f;
  const Tensor expected = (*net)(batch(9));
  const graph::Graph g = graph::trace(*net, std::vector<Tensor>{batch(1)})->to_graph();
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig("qnnpack"));
  for (uint64_t i = 0; i < 4; ++i) prepared->forward({batch(i)});
  ConversionReport report;
  const graph::Graph int8 = quant::convert_fx(prepared, &report)->graph();
  EXPECT_TRUE(runtime::compile(int8).warnings().empty());
  EXPECT_GT(sqnr(expected, runtime::compile(int8).run({batch(9)})[0]), 30);
}

TEST(WeightScales, OrdinaryWeightsKeepTheirScales) {
  manual_seed(3);
  auto net = nn::make<Net>();
  net->eval();
  const graph::Graph g = graph::trace(*net, std::vector<Tensor>{batch(1)})->to_graph();
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
  prepared->forward({batch(1)});
  ConversionReport report;
  const graph::Graph int8 = quant::convert_fx(prepared, &report)->graph();
  EXPECT_TRUE(report.warnings.empty()) << report.warnings[0];
  const auto& weight = net->conv.as<nn::Conv2d>().weight;
  for (const graph::Node& node : int8.nodes()) {
    if (node.op != "conv2d") continue;
    const Quantizer& q = *int8.constant(node.inputs[1]).quantizer();
    for (int64_t n = 0; n < kChannels; ++n) {
      float most = 0;
      for (int64_t i = 0; i < 27; ++i)
        most = std::max(most, std::abs(weight.data<float>()[n * 27 + i]));
      EXPECT_FLOAT_EQ(static_cast<float>(q.scale(n)), most / 127);
    }
  }
}

// A graph from elsewhere may have such biases all the same: they are added exactly, said when it is
// compiled, and float in the exported file, where int32 cannot hold them.
TEST(WeightScales, BiasesBeyondInt32OfOtherFilesComputeExactlyAndAreSaid) {
  for (const auto& [scale, bias] :
       {std::pair(1e-8, 3.0f), std::pair(1e-30, 3.0f), std::pair(1e-30, -2.0f)}) {
    graph::Graph g;
    const graph::ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(4)}));
    const graph::ValueId q =
        g.add_call("q", "quantize", {x}, {},
                   ops::QType{DType::quint8, Quantizer::per_tensor(0.01, 0, DType::quint8)});
    const graph::ValueId w =
        g.add_constant("w", quantize_per_tensor(Tensor::zeros({2, 4}), scale, 0, DType::qint8));
    const graph::ValueId b = g.add_constant("b", Tensor::from<float>({bias, 0}));
    const graph::ValueId y = g.add_call(
        "y", "linear", {q, w, b}, {},
        ops::QType{DType::quint8, Quantizer::per_tensor(0.02, 128, DType::quint8)}, "fc");
    g.set_outputs({g.add_call("out", "dequantize", {y})});
    runtime::Program program = runtime::compile(g);
    ASSERT_EQ(program.warnings().size(), 1u);
    EXPECT_TRUE(program.warnings()[0].starts_with("fc: channel 0 of 2: ")) << program.warnings()[0];
    const Tensor got = program.run({Tensor::ones({1, 4})})[0];
    EXPECT_FLOAT_EQ(got.data<float>()[0], std::min(bias, 2.54f));
    EXPECT_FLOAT_EQ(got.data<float>()[1], 0);
    TempDir dir;
    io::export_onnx(g, dir / "net.onnx");
    const graph::Graph imported =
        graph::merge_qdq(graph::fuse_activations(io::import_onnx(dir / "net.onnx")));
    EXPECT_TRUE(equal(runtime::compile(imported).run({Tensor::ones({1, 4})})[0], got));
  }
}

}  // namespace octet::weight_scales_test
