// A graph as a module: the same results, and trainable.
#include "octet/graph/graph_module.h"

#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/nn/optim.h"
#include "octet/ops/functional.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::graph {
namespace {

using testing::expect_error;

// y = softmax(linear(relu(batch_norm(x))))
Graph small() {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3)}));
  auto constant = [&](const char* name, const Tensor& t) { return g.add_constant(name, t); };
  ValueId n = g.add_call(
      "n", "batch_norm",
      {x, constant("bn.weight", Tensor::ones({3})), constant("bn.bias", Tensor::zeros({3})),
       constant("bn.mean", Tensor::zeros({3})), constant("bn.var", Tensor::ones({3}))});
  ValueId r = g.add_call("r", "relu", {n});
  ValueId y = g.add_call("y", "linear",
                         {r, constant("fc.weight", Tensor::randn({2, 3}, 1)),
                          constant("fc.bias", Tensor::zeros({2}))});
  g.set_outputs({g.add_call("p", "softmax", {y}, {{"dim", int64_t{1}}})});
  return g;
}

TEST(GraphModule, ComputesWhatTheGraphDoes) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Graph g = testing::random_net(seed);
    auto module = nn::make<GraphModule>(g);
    module->eval();
    Tensor x = Tensor::randn({2, 3, 6, 6}, seed);
    auto expected = testing::evaluate(g, {x}), got = module->forward(std::vector<Tensor>{x});
    ASSERT_EQ(expected.size(), got.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(allclose(got[i].detach(), expected[i], 1e-5, 1e-5)) << seed;
  }
}

TEST(GraphModule, WeightsAreParametersAndStatisticsBuffers) {
  auto module = nn::make<GraphModule>(small());
  std::vector<std::string> parameters, buffers;
  for (auto& [name, t] : module->named_parameters()) parameters.push_back(name);
  for (auto& [name, t] : module->named_buffers()) buffers.push_back(name);
  EXPECT_EQ(parameters, (std::vector<std::string>{"bn.weight", "bn.bias", "fc.weight", "fc.bias"}));
  EXPECT_EQ(buffers, (std::vector<std::string>{"bn.mean", "bn.var"}));
}

TEST(GraphModule, TrainingChangesTheGraphThatComesBackAndNotTheOneGiven) {
  Graph g = small(), scores = without_final_softmax(g);
  EXPECT_EQ(scores.outputs(), std::vector<ValueId>{*scores.find("y")});
  auto module = nn::make<GraphModule>(scores);
  nn::optim::SGD optimizer(module->parameters(), {.lr = 0.1});
  Tensor x = Tensor::randn({8, 3}, 3) + 2.0, before = g.constant(*g.find("fc.weight")).clone();
  double first = 0, last = 0;
  for (int i = 0; i < 20; ++i) {
    Tensor y = module->forward(x), loss = functional::mean((y - 1.0) * (y - 1.0));
    optimizer.zero_grad();
    autograd::backward(loss);
    optimizer.step();
    last = loss.detach().item();
    if (i == 0) first = last;
  }
  EXPECT_LT(last, 0.5 * first);
  EXPECT_TRUE(equal(before, g.constant(*g.find("fc.weight"))));
  Graph trained = module->with_values(g);
  EXPECT_EQ(trained.value(trained.outputs()[0]).name, "p") << "the softmax is there again";
  EXPECT_FALSE(equal(before, trained.constant(*trained.find("fc.weight"))));
  EXPECT_GT(trained.constant(*trained.find("bn.mean")).at({0}), 1)
      << "running statistics followed the data";
}

TEST(GraphModule, TellsWhetherItsValuesAreThoseOfAGraph) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3)}));
  const ValueId weight = g.add_constant("weight", Tensor::randn({700, 3}, 1));
  const ValueId bias = g.add_constant("bias", Tensor::zeros({700}));
  g.set_outputs({g.add_call("y", "linear", {x, weight, bias})});
  auto module = nn::make<GraphModule>(g);
  const Graph before = module->with_values(g);
  EXPECT_TRUE(module->has_values_of(before));
  Tensor w = module->tensor("weight").detach();
  const float kept = w.data<float>()[75];
  w.data<float>()[75] = 9;
  EXPECT_FALSE(module->has_values_of(before)) << "one element";
  w.data<float>()[75] = kept;
  EXPECT_TRUE(module->has_values_of(before));
  for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] *= 2;
  EXPECT_FALSE(module->has_values_of(before)) << "the whole tensor";
}

TEST(GraphModule, AQuantizedGraphIsRefused) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, Shape{1}));
  g.set_outputs(
      {g.add_call("q", "quantize", {x}, {},
                  ops::QType{DType::quint8, Quantizer::per_tensor(1, 0, DType::quint8)})});
  expect_error(ErrorCode::invalid_argument, {"%q", "QUInt8", "cannot be trained"},
               [&] { GraphModule module(g); });
}

}  // namespace
}  // namespace octet::graph
