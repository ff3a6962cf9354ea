// Averages with qparams of their own (ObserverOptions::own_averages).
#include <gtest/gtest.h>

#include "octet/nn/containers.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/pooling.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fx.h"
#include "tests/graph_text.h"

namespace octet::quant {
namespace {

using testing::parse_body;

Tensor images(uint64_t seed) { return Tensor::randn({4, 3, 8, 8}, seed); }

// The scale of the result of the one call of an operator.
double scale_of(const graph::Graph& g, const std::string& op) {
  for (const graph::Node& node : g.nodes())
    if (node.op == op) return g.type(node.outputs[0]).quantizer->scale();
  ADD_FAILURE() << "no " << op;
  return 0;
}

// A convolution and an average of its result, calibrated.
graph::Graph int8_graph(const std::string& average, const QConfigMapping& mapping) {
  const std::string body =
      "%x: Float(N, 3, 8, 8) = input\n%w: Float(4, 3, 3, 3) = constant\n"
      "%y: Float(N, 4, 6, 6) = conv2d(%x, %w)\n";
  const auto prepared = prepare_fx(parse_body(body + "%a: " + average + "\nreturn (%a)",
                                              {{"w", Tensor::randn({4, 3, 3, 3}, 5)}}),
                                   mapping);
  for (uint64_t seed = 1; seed < 4; ++seed) prepared->forward({images(seed)});
  return convert_fx(prepared)->to_graph();
}

constexpr const char* kGlobal = "Float(N, 4, 1, 1) = adaptive_avg_pool2d(%y)";

}  // namespace

TEST(OwnAverages, TheDefaultGivesAnAverageTheRangeOfItsOwnValues) {
  const graph::Graph pool = int8_graph(kGlobal, get_default_qconfig_mapping());
  EXPECT_LT(scale_of(pool, "adaptive_avg_pool2d"), 0.5 * scale_of(pool, "conv2d"));
  const graph::Graph mean =
      int8_graph("Float(N, 4, 1, 1) = mean(%y, dim=[2, 3])", get_default_qconfig_mapping());
  EXPECT_LT(scale_of(mean, "mean"), 0.5 * scale_of(mean, "conv2d"));
}

TEST(OwnAverages, PyTorchsQConfigsShareTheOperandsQParams) {
  for (const char* name : {"fbgemm", "x86", "onednn", "qnnpack"}) {
    const graph::Graph g = int8_graph(kGlobal, get_default_qconfig_mapping(name));
    EXPECT_EQ(scale_of(g, "adaptive_avg_pool2d"), scale_of(g, "conv2d")) << name;
  }
}

TEST(OwnAverages, WindowsShareTheOperandsQParams) {
  const graph::Graph g =
      int8_graph("Float(N, 4, 3, 3) = avg_pool2d(%y, kernel=[2, 2], stride=[2, 2])",
                 get_default_qconfig_mapping());
  EXPECT_EQ(scale_of(g, "avg_pool2d"), scale_of(g, "conv2d"));
}

TEST(OwnAverages, AMappingChoosesForOneCall) {
  const QConfig x86 = get_default_qconfig("x86");
  const QConfig own{x86.activation.with_own_averages(true), x86.weight};
  const graph::Graph g = int8_graph(
      kGlobal, get_default_qconfig_mapping("x86").set_object_type("adaptive_avg_pool2d", own));
  EXPECT_LT(scale_of(g, "adaptive_avg_pool2d"), 0.5 * scale_of(g, "conv2d"));
}

// -- modules --------------------------------------------------------------------------------------

namespace {

std::shared_ptr<nn::Sequential> network() {
  auto model = nn::make<nn::Sequential>();
  model->append(nn::make<QuantStub>());
  model->append(nn::make<nn::Conv2d>(3, 4, 3));
  model->append(nn::make<nn::AdaptiveAvgPool2d>(1));
  model->append(nn::make<DeQuantStub>());
  model->eval();
  return model;
}

std::string eager_average(const std::string& qconfig) {
  auto model = network();
  model->qconfig = get_default_qconfig(qconfig);
  auto prepared = prepare(model);
  (*prepared)(images(1));
  return convert(prepared)->submodule("2")->type_name();
}

}  // namespace

TEST(OwnAverages, EagerModeSwapsTheModuleWhereTheQConfigAsksForIt) {
  EXPECT_EQ(eager_average("native"), "QuantizedAdaptiveAvgPool2d");
  EXPECT_EQ(eager_average("x86"), "AdaptiveAvgPool2d");
}

TEST(OwnAverages, TheSwappedModuleIsNearerToFloat) {
  auto model = network();
  const Tensor x = images(9), expected = (*model)(x);
  const auto error_with = [&](bool own_averages) {
    QConfig qconfig = get_default_qconfig("onednn");
    qconfig.activation = qconfig.activation.with_own_averages(own_averages);
    model->qconfig = qconfig;
    auto prepared = prepare(model);
    for (uint64_t seed = 1; seed < 9; ++seed) (*prepared)(images(seed));
    const Tensor difference = (*convert(prepared))(x)-expected;
    return functional::mean(difference * difference).item();
  };
  EXPECT_LT(error_with(true), 0.5 * error_with(false));
}

}  // namespace octet::quant
