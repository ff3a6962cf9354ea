// The models of examples/models through all six types of quantization in graph mode:
// {post-training, QAT} x {weight-only, dynamic, static}.
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "octet/autograd/autograd.h"
#include "octet/nn/optim.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/example_models.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

using quant::QConfigMapping;

enum Kind { weight_only, dynamic, statically };

struct Type {
  std::string name;
  Kind kind;
  bool qat;
  const char* prefix;  // of the classes of quantized layers
  std::function<QConfigMapping()> mapping;
};

const std::vector<Type>& six_types() {
  static const std::vector<Type> types = {
      {"weight-only", weight_only, false, "WeightOnlyQuantized",
       [] {
         return QConfigMapping(
             {quant::ObserverFactory(), quant::default_per_channel_weight_observer()});
       }},
      {"dynamic", dynamic, false, "DynamicQuantized",
       [] { return QConfigMapping(quant::per_channel_dynamic_qconfig()); }},
      {"static", statically, false, "Quantized",
       [] { return quant::get_default_qconfig_mapping(); }},
      {"QAT weight-only", weight_only, true, "WeightOnlyQuantized",
       [] { return QConfigMapping(quant::default_weight_only_qconfig()); }},
      {"QAT dynamic", dynamic, true, "DynamicQuantized",
       [] { return QConfigMapping(quant::default_dynamic_qat_qconfig()); }},
      {"QAT static", statically, true, "Quantized",
       [] { return quant::get_default_qat_qconfig_mapping(); }},
  };
  return types;
}

// A few steps towards results of 0.5.
void train(nn::Module& model, const SmallModel& m, int steps, double lr) {
  nn::optim::SGD optimizer(model.parameters(), {.lr = lr, .momentum = 0.9});
  model.train();
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    Tensor y = model(m.x(8, 100 + static_cast<uint64_t>(step))) - 0.5;
    autograd::backward(functional::mean(y * y));
    optimizer.step();
  }
  model.eval();
}

// Trained for as long as the statistics of batch norms need to settle: what is quantized.
const std::vector<SmallModel>& trained_models() {
  static const std::vector<SmallModel> models = [] {
    std::vector<SmallModel> all = small_models();
    for (const SmallModel& m : all) train(*m.model, m, 25, 0.01);
    return all;
  }();
  return models;
}

struct Quantized {
  std::shared_ptr<graph::GraphModule> model;
  Tensor x, expected;  // what the float model of the same weights makes of x
  Tensor simulated;    // QAT: what the trained model makes of it
  quant::ConversionReport report;
};

Quantized quantize(const SmallModel& m, const Type& type) {
  Quantized q;
  q.x = m.x(8, 1000);
  std::vector<TensorType> types{q.x.type()};
  if (m.name != "BiLSTM")
    // a graph of operators has an LSTM's first states, of one batch's size
    types[0].dims[0] = Dim("N");
  std::shared_ptr<quant::ObservedGraphModule> prepared;
  if (type.qat) {
    nn::ModulePtr model = m.model->clone();
    model->train();
    prepared = quant::prepare_qat_fx(model, type.mapping(), types);
    // As late in training: statistics of 8 samples, of one pixel each in ResNet's last stage, are
    // far from the running ones, and so would be the ranges; in these few steps moving averages
    // keep up with small changes only.
    quant::freeze_bn_stats(*prepared);
    train(*prepared, m, 6, 1e-5);
    quant::disable_observer(*prepared);
    q.simulated = (*prepared)(q.x).detach();
    quant::disable_fake_quant(*prepared);
    q.expected = (*prepared)(q.x).detach();
    quant::enable_fake_quant(*prepared);
  } else {
    prepared = quant::prepare_fx(m.model, type.mapping(), types);
    for (uint64_t batch = 0; batch < 4; ++batch) (*prepared)(m.x(8, 200 + batch));
    q.expected = (*m.model)(q.x).detach();
  }
  q.model = quant::convert_fx(prepared, {}, quant::get_native_backend_config(), &q.report);
  return q;
}

// The calls of quantized layers, by class.
std::map<std::string, int> quantized_layers(const graph::Graph& g, const std::string& prefix) {
  std::map<std::string, int> classes;
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::module && node.op.starts_with(prefix)) ++classes[node.op];
  return classes;
}

// Which layers become quantized ones, without the prefix of the type.
const std::map<std::string, std::map<std::string, int>>& expected_layers() {
  static const std::map<std::string, std::map<std::string, int>> layers = {
      // The first convolution and the first of each of 8 blocks have a ReLU behind them; the others
      // are added to something.
      {"ResNet18", {{"ConvReLU2d", 9}, {"Conv2d", 11}, {"Linear", 1}}},
      // ReLU6 is not fused. Stem, 2 + 3 * 3 in blocks, the last one.
      {"MobileNetV2", {{"Conv2d", 13}, {"Linear", 1}}},
      {"Bert", {{"Linear", 2 * 6}}},
      {"BiLSTM", {{"Linear", 1}}}};  // and the LSTM in the dynamic types
  return layers;
}

class SixTypes : public ::testing::TestWithParam<size_t> {
 protected:
  const Type& type() const { return six_types()[GetParam()]; }
};

// 8 bits over a range of 4 standard deviations on both sides are 41 dB (6.02 * 8 - 20 log10(4 /
// sqrt(3))); the noise of layers one after the other adds up; results and inputs in codes, with
// ranges seen before, cost another 6 dB. Measured: 4 dB above it (Bert, static) to 30 (BiLSTM).
double least_sqnr(const std::string& model, Kind kind) {
  static const std::map<std::string, double> depths = {
      {"ResNet18", 18}, {"MobileNetV2", 14}, {"Bert", 2 * 6}, {"BiLSTM", 3}};
  return 41 - 10 * std::log10(depths.at(model)) - (kind == statically ? 6 : 0);
}

TEST_P(SixTypes, AllModelsAreQuantizedAndRun) {
  for (const SmallModel& m : trained_models()) {
    SCOPED_TRACE(m.name);
    Quantized q = quantize(m, type());
    std::map<std::string, int> layers;
    for (auto [name, n] : expected_layers().at(m.name)) layers[type().prefix + name] = n;
    if (m.name == "BiLSTM" && type().kind == dynamic) layers["DynamicQuantizedLSTM"] = 1;
    // Its average is of one pixel here, and has its operand's range but for moving averages.
    if (m.name == "ResNet18" && type().kind == statically && type().qat)
      layers["QuantizedAdaptiveAvgPool2d"] = 1;
    auto got = quantized_layers(q.model->graph(), type().prefix);
    got.erase("QuantizedLayerNorm");  // Bert's, which have static forms only
    EXPECT_EQ(got, layers);

    for (const graph::Node& node : q.model->graph().nodes())
      EXPECT_TRUE(type().kind == statically || node.op != "quantize")
          << "a range of training before " << node.scope;

    Tensor y = (*q.model)(q.x);
    // The last bits of oneDNN's gradients depend on the number of threads and on the instruction
    // set, and ResNet18's batch norms over 8 single pixels make other weights of them: 21.5 to 37
    // dB over 1 and 2 threads, AVX2 and AVX-512.
    EXPECT_GT(sqnr(q.expected, y), least_sqnr(m.name, type().kind) - (type().qat ? 6 : 0));
    // What was trained is what is converted, to a step of the result. Dynamic ranges are those of x
    // itself.
    if (type().qat && type().kind != dynamic) {
      EXPECT_GT(sqnr(q.simulated, y), type().kind == statically ? 18 : 80);
    }

    Tensor compiled = runtime::compile(q.model->to_graph()).run({q.x})[0];
    if (type().kind == statically)
      EXPECT_TRUE(equal(compiled, y));
    else
      EXPECT_TRUE(allclose(compiled, y, 1e-3, 1e-3));
  }
}

INSTANTIATE_TEST_SUITE_P(, SixTypes, ::testing::Range(size_t{0}, size_t{6}), [](const auto& info) {
  std::string name;
  for (char c : six_types()[info.param].name)
    if (std::isalpha(static_cast<unsigned char>(c))) name += c;
  return name;
});

// As in PyTorch: an LSTM has a static form only as a custom module, and none with float
// activations.
TEST(SixTypesReport, AnLstmLeftFloatIsReported) {
  for (const Type& type : six_types()) {
    if (type.kind == dynamic) continue;
    Quantized q = quantize(trained_models().back(), type);
    std::map<std::string, std::string> reasons;
    for (const auto& entry : q.report.left_float()) reasons[entry.node] = entry.reason;
    ASSERT_TRUE(reasons.count("lstm")) << type.name;
    EXPECT_NE(reasons["lstm"], "") << type.name;
  }
}

}  // namespace
}  // namespace octet::testing
