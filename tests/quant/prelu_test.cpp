// PReLU's slopes stay float wherever they come from: a module, the functional form, a graph; eager,
// graph mode, QAT.
#include <gtest/gtest.h>

#include "octet/debug/metrics.h"
#include "octet/graph/graph_module.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"

namespace octet::prelu_test {

using graph::Graph;
using graph::Node;

// The first slope is so large that one scale for all would leave nothing of the others.
const std::vector<float> kSlopes{20, 0.05f, 0.06f, 0.03f, 0.07f, 0.04f, 0.02f, 0.08f};

Tensor prelu_batch(uint64_t seed) { return Tensor::randn({4, 3, 6, 6}, seed); }

struct Base : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(3, 8, 3));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
};

struct WithModule : Base {
  nn::Slot act = slot("act", nn::PReLU(8));
  Tensor forward(Tensor x) override { return dequant(act(conv(quant(x)))); }
};
OCTET_MODULE(WithModule)

struct WithFunction : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 8, 3));
  nn::Parameter slopes = parameter("slopes", Tensor::from(kSlopes, {1, 8, 1, 1}));
  Tensor forward(Tensor x) override { return functional::prelu(conv(x), slopes); }
};
OCTET_MODULE(WithFunction)

std::shared_ptr<WithModule> with_module() {
  auto model = nn::make<WithModule>();
  model->act.as<nn::PReLU>().weight.copy_from(Tensor::from(kSlopes, {8}));
  return model;
}

void expect_float_slopes(const Graph& g) {
  int found = 0;
  for (const Node& node : g.nodes()) {
    if (node.op != "prelu") continue;
    ++found;
    EXPECT_TRUE(g.type(node.outputs[0]).is_quantized());
    ASSERT_EQ(g.type(node.inputs[1]).dtype, DType::float32);
    EXPECT_EQ(g.constant(node.inputs[1]).to_vector<float>(), kSlopes);
  }
  EXPECT_EQ(found, 1);
}

void expect_close(const Tensor& expected, const Tensor& actual) {
  EXPECT_GT(debug::compute_sqnr(expected.detach(), actual.detach()), 25);
}

TEST(Prelu, SlopesOfAModuleStayFloatInEagerMode) {
  auto model = with_module();
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(model);
  for (uint64_t i = 0; i < 4; ++i) (*prepared)(prelu_batch(i));
  auto int8 = quant::convert(prepared);
  EXPECT_EQ(int8->submodule("act")->named_parameters().size(), 1u);
  EXPECT_EQ(int8->submodule("act")->state_dict().at("weight").to_vector<float>(), kSlopes);
  expect_close((*model)(prelu_batch(2)), (*int8)(prelu_batch(2)));
}

TEST(Prelu, SlopesOfAModuleAndOfTheFunctionStayFloatInGraphMode) {
  for (const nn::ModulePtr& model :
       {nn::ModulePtr(with_module()), nn::ModulePtr(nn::make<WithFunction>())}) {
    model->eval();
    // Nothing takes the codes of the model's result, so by default its prelu stays float.
    auto prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(),
                                      std::vector<Tensor>{prelu_batch(1)},
                                      quant::PrepareCustomConfig().set_leave_islands_float(false));
    for (uint64_t i = 0; i < 4; ++i) (*prepared)(prelu_batch(i));
    auto int8 = quant::convert_fx(prepared);
    expect_float_slopes(int8->to_graph());
    expect_close((*model)(prelu_batch(2)), (*int8)(prelu_batch(2)));
  }
}

TEST(Prelu, SlopesStayFloatInTraining) {
  auto model = nn::make<WithFunction>();
  model->train();
  // Nothing takes the codes of the prelu, which is a result: it is an island.
  auto prepared = quant::prepare_qat_fx(
      model, quant::get_default_qat_qconfig_mapping(), std::vector<Tensor>{prelu_batch(1)},
      quant::PrepareCustomConfig().set_leave_islands_float(false));
  for (uint64_t i = 0; i < 8; ++i) (*prepared)(prelu_batch(i));
  prepared->eval();
  model->eval();
  auto int8 = quant::convert_fx(prepared);
  expect_float_slopes(int8->to_graph());

  Graph g = graph::parse(
      "graph g {\n%x: Float(N, 3, 6, 6) = input\n%w: Float(8, 3, 3, 3) = constant\n%s: Float(1, 8, "
      "1, 1) = constant\n%v: Float(8, 8, 1, 1) = constant\n"
      "%c: Float(N, 8, 4, 4) = conv2d(%x, %w)\n%p: Float(N, 8, 4, 4) = prelu(%c, %s)\n"
      "%y: Float(N, 8, 4, 4) = conv2d(%p, %v)\nreturn (%y)\n}\n",
      {{"w", Tensor::randn({8, 3, 3, 3}, 3)},
       {"v", Tensor::randn({8, 8, 1, 1}, 4)},
       {"s", Tensor::from(kSlopes, {1, 8, 1, 1})}});
  auto trained = quant::prepare_qat_fx(g, quant::get_default_qat_qconfig());
  for (uint64_t i = 0; i < 8; ++i) trained->forward(std::vector<Tensor>{prelu_batch(i)});
  trained->eval();
  expect_float_slopes(quant::convert_fx(trained)->graph());
}

}  // namespace octet::prelu_test
