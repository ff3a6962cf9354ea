// The models of examples/models, traced.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>

#include "octet/autograd/autograd.h"
#include "octet/graph/trace.h"
#include "octet/runtime/program.h"
#include "tests/example_models.h"

namespace octet::testing {
namespace {

size_t module_calls(const graph::Graph& g) {
  return static_cast<size_t>(
      std::count_if(g.nodes().begin(), g.nodes().end(),
                    [](const auto& node) { return node.kind == graph::NodeKind::module; }));
}

TEST(TraceExampleModels, ComputeWhatTheModelsDoForAnyBatch) {
  autograd::NoGrad no_grad;
  for (const SmallModel& m : small_models()) {
    SCOPED_TRACE(m.name);
    m.model->eval();
    TensorType type = m.x(2, 1).type();
    type.dims[0] = Dim("N");
    auto traced = graph::trace(*m.model, {type});
    for (int64_t n : {1, 3}) {
      Tensor x = m.x(n, 5);
      EXPECT_TRUE(equal((*traced)(x), (*m.model)(x))) << n;
    }
  }
}

TEST(TraceExampleModels, LayersAreModuleCalls) {
  const std::map<std::string, size_t> expected = {
      {"ResNet18", 20 + 20 + 17 + 2 + 1},  // convolutions, batch norms, ReLUs, pools, Linear
      {"MobileNetV2",
       3 + 5 + 3 * 8 + 3 +
           // stem, a block without and three with expansion, the last convolution, Dropout and
           // Linear
           2},
      // embeddings, norm and dropout; layers of 6 Linear, 2 norms and 3 dropouts
      {"Bert", 3 + 2 + 2 * (6 + 2 + 3)},
      {"BiLSTM", 3}};
  for (const SmallModel& m : small_models()) {
    m.model->eval();
    auto traced = graph::trace(*m.model, std::vector<Tensor>{m.x(2, 1)});
    EXPECT_EQ(module_calls(traced->graph()), expected.at(m.name)) << m.name << "\n"
                                                                  << print(traced->graph());
  }
}

// Bert's positions are made for one length.
TEST(TraceExampleModels, SequencesOfAnyLengthGoThroughOneLstm) {
  autograd::NoGrad no_grad;
  const SmallModel m = small_models().back();
  m.model->eval();
  auto traced = graph::trace(*m.model, {TensorType(DType::int64, {Dim("N"), Dim("T")})});
  for (int64_t steps : {1, 4, 11}) {
    Tensor ids = token_ids(3, steps, 40, 7);
    EXPECT_TRUE(equal((*traced)(ids), (*m.model)(ids))) << steps;
  }
}

TEST(TraceExampleModels, BertTakesAMask) {
  autograd::NoGrad no_grad;
  const SmallModel m = small_models()[2];
  m.model->eval();
  auto traced = graph::trace(*m.model, {TensorType(DType::int64, {Dim("N"), 6}),
                                        TensorType(DType::float32, {Dim("N"), 1, 1, 6})});
  std::vector<Tensor> inputs{token_ids(3, 6, 40, 7), Tensor::zeros({3, 1, 1, 6})};
  inputs[1].data<float>()[0] = -10000;
  EXPECT_TRUE(equal(traced->forward(inputs)[0], m.model->forward(inputs)[0]));
}

// Those of Bert's tables of positions and token types too, whose rows are known beforehand.
TEST(TraceExampleModels, ParametersAreTheModelsAndAreTrained) {
  for (const SmallModel& m : small_models()) {
    SCOPED_TRACE(m.name);
    auto traced = graph::trace(*m.model, std::vector<Tensor>{m.x(2, 1)});
    auto state = traced->state_dict();  // in which the numbers made in forward are too
    for (auto& [name, t] : m.model->state_dict()) {
      ASSERT_TRUE(state.count(name)) << name;
      EXPECT_EQ(state.at(name).id(), t.id()) << name;
    }
    Tensor y = (*traced)(m.x(2, 1));
    autograd::backward(functional::sum(y * y));
    for (auto& [name, p] : traced->named_parameters())
      EXPECT_TRUE(autograd::grad(*p).defined()) << name;
  }
}

TEST(TraceExampleModels, TheirGraphsOfOperatorsCompile) {
  autograd::NoGrad no_grad;
  for (const SmallModel& m : small_models()) {
    SCOPED_TRACE(m.name);
    m.model->eval();
    Tensor x = m.x(2, 1);
    // of one batch: an LSTM's first states are made for it
    auto traced = graph::trace(*m.model, {x.type()});
    Tensor got = runtime::compile(traced->to_graph()).run({x})[0];
    EXPECT_TRUE(allclose(got, (*m.model)(x), 1e-4, 1e-5));
  }
}

}  // namespace
}  // namespace octet::testing
