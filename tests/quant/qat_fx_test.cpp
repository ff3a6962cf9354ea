// Quantization-aware training of a graph: what is fake-quantized, and that the converted graph is
// what was trained.
#include "octet/quant/workflow/fx.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "octet/autograd/autograd.h"
#include "octet/graph/trace.h"
#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/linear.h"
#include "octet/nn/loss.h"
#include "octet/nn/optim.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/gptq.h"
#include "octet/quant/algorithms/qat_start.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/tune/precision.h"
#include "octet/quant/workflow/training.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::quant {
namespace {

using testing::expect_error;

// The first random net that has something to quantize.
graph::Graph a_net() {
  for (uint64_t seed = 1;; ++seed) {
    graph::Graph g = testing::random_net(seed);
    for (const auto& node : g.nodes())
      if (node.op == "conv2d") return g;
  }
}

TEST(QatFx, TheConvertedGraphIsTheTrainedOneToAStep) {
  int tried = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    graph::Graph source = testing::random_net(seed);
    std::shared_ptr<ObservedGraphModule> model;
    try {
      model = prepare_qat_fx(source, get_default_qat_qconfig());
    } catch (const Error&) {
      continue;  // nothing to quantize in this net
    }
    ++tried;
    for (uint64_t i = 0; i < 3; ++i)
      model->forward(std::vector<Tensor>{Tensor::randn({2, 3, 6, 6}, 10 * seed + i)});
    model->eval();
    disable_observer(*model);
    graph::Graph int8 = convert_fx(model)->graph();
    Tensor x = Tensor::randn({2, 3, 6, 6}, 1000 + seed);
    auto got = runtime::compile(int8).run({x});
    auto expected = model->forward(std::vector<Tensor>{x});
    for (size_t k = 0; k < got.size(); ++k) {
      double most = 0, range = 0;
      auto a = got[k].dequantize().contiguous().to_vector<float>(),
           b = expected[k].detach().contiguous().to_vector<float>();
      for (size_t i = 0; i < a.size(); ++i) {
        most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
        range = std::max(range, std::abs(static_cast<double>(b[i])));
      }
      // a few steps of 1/255: rounding differs where float sums do
      EXPECT_LE(most, 0.03 * range + 1e-5) << seed;
    }
  }
  EXPECT_GE(tried, 10);
}

TEST(QatFx, GradientsReachEveryWeight) {
  graph::Graph source = a_net();
  auto model = prepare_qat_fx(source, get_default_qat_qconfig());
  Tensor y = model->forward(std::vector<Tensor>{Tensor::randn({2, 3, 6, 6}, 1)})[0];
  autograd::backward(functional::sum(y * y));
  int with = 0;
  for (auto& [name, t] : model->named_parameters()) with += autograd::grad(*t).defined();
  EXPECT_GT(with, 0);
}

TEST(QatFx, TheIntegerForwardIsTheConvertedNetworkToTheBit) {
  int differ = 0, tried = 0;  // from the fake-quantized forward
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    std::shared_ptr<ObservedGraphModule> model;
    try {
      model = prepare_qat_fx(testing::random_net(seed), get_default_qat_qconfig());
    } catch (const Error&) {
      continue;  // nothing to quantize in this net
    }
    ++tried;
    const Tensor x = Tensor::randn({2, 3, 6, 6}, seed);
    const std::vector<Tensor> trained = integer_forward(model, {x});
    const std::vector<Tensor> converted = runtime::compile(convert_fx(model)->graph()).run({x});
    disable_observer(*model);
    const std::vector<Tensor> faked = model->forward(std::vector<Tensor>{x});
    for (size_t i = 0; i < trained.size(); ++i) {
      EXPECT_TRUE(equal(trained[i].detach(), converted[i])) << "seed " << seed << ", result " << i;
      differ += !equal(trained[i].detach(), faked[i].detach());
    }
  }
  EXPECT_GE(tried, 5);
  EXPECT_GT(differ, 0) << "else the test shows nothing";
}

TEST(QatFx, TheIntegerForwardHasTheGradientsOfTheFakeQuantizedOne) {
  const graph::Graph source = a_net();
  const Tensor x = Tensor::randn({2, 3, 6, 6}, 1);
  const auto gradients = [&](bool integer) {
    auto model = prepare_qat_fx(source, get_default_qat_qconfig());
    const Tensor y =
        integer ? integer_forward(model, {x})[0] : model->forward(std::vector<Tensor>{x})[0];
    autograd::backward(functional::sum(y * 3.0));
    std::vector<Tensor> all;
    for (auto& [name, t] : model->named_parameters())
      if (autograd::grad(*t).defined()) all.push_back(autograd::grad(*t));
    return all;
  };
  const std::vector<Tensor> a = gradients(true), b = gradients(false);
  ASSERT_EQ(a.size(), b.size());
  ASSERT_GT(a.size(), 0u);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(equal(a[i], b[i])) << i;
}

TEST(QatFx, TheStateSaysWhatIsOn) {
  auto model = prepare_qat_fx(a_net(), get_default_qat_qconfig());
  const QatState before = qat_state(*model);
  ASSERT_GT(before.fake_quantizers.size(), 1u);
  int weights = 0;
  for (const auto& f : before.fake_quantizers) {
    EXPECT_TRUE(f.observes && f.quantizes && !f.learns) << f.path;
    weights += f.weight;
  }
  EXPECT_GT(weights, 0);
  EXPECT_LT(weights, std::ssize(before.fake_quantizers));
  disable_observer(*model);
  EXPECT_TRUE(summary(qat_state(*model)).starts_with("observers on 0 of ")) << summary(before);
  EXPECT_NE(to_string(before), to_string(qat_state(*model)));
}

TEST(QatFx, TrainingStartsFromACalibratedNetwork) {
  const graph::Graph source = a_net();
  const Tensor x = Tensor::randn({2, 3, 6, 6}, 1);
  auto calibrated = prepare_fx(source, get_default_qconfig("native"));
  calibrated->forward(std::vector<Tensor>{x});
  gptq(*calibrated, {{x}});
  for (const char* name : {"FakeQuantize", "LearnableFakeQuantize"}) {
    QConfig qconfig = get_default_qat_qconfig("native");
    qconfig.weight = qconfig.weight.fake_quantize(name);
    auto model = prepare_qat_fx(source, qconfig);
    start_qat_from(*model, *calibrated);
    const Tensor expected = runtime::compile(convert_fx(calibrated)->graph()).run({x})[0];
    EXPECT_TRUE(equal(integer_forward(model, {x})[0].detach(), expected)) << name;
  }
}

TEST(QatFx, ScalesAreTrainedWithTheWeights) {
  const nn::ModulePtr net =
      nn::make<nn::Sequential>(nn::Linear(64, 64), nn::ReLU(), nn::Linear(64, 8));
  uint64_t seed = 1;
  for (auto& [name, t] : net->named_parameters())
    t->detach().copy_from(Tensor::randn(t->shape(), ++seed));
  const Tensor x = Tensor::randn({32, 64}, 1);
  const graph::Graph source = graph::trace(*net, {x})->to_graph();
  auto calibrated = prepare_fx(source, with_weight_bits(get_default_qconfig("native"), 3));
  calibrated->forward(std::vector<Tensor>{x});
  auto model = prepare_qat_fx(
      source, with_learned_qparams(with_weight_bits(get_default_qat_qconfig("native"), 3)));
  start_qat_from(*model, *calibrated);
  enable_param_learning(*model);
  for (const auto& f : qat_state(*model).fake_quantizers)
    EXPECT_TRUE(f.learns && !f.observes && f.quantizes) << f.path;

  nn::optim::Adam optimizer({});  // steps of a two-hundredth
  std::map<std::string, std::vector<float>> first;
  for (auto& [name, t] : model->named_parameters()) {
    if (name.ends_with("zero_point")) continue;
    const Tensor size = functional::mean(functional::abs(t->detach()));
    optimizer.add_param_group({{*t}, {{"lr", 0.005 * size.item()}}});
    if (name.ends_with(".scale")) first[name] = t->to_vector<float>();
  }
  ASSERT_GE(first.size(), 4u);
  const Tensor expected = runtime::compile(source).run({x})[0];
  const auto loss = [&] {
    return functional::mse_loss(model->forward(std::vector<Tensor>{x})[0], expected);
  };
  const double before = loss().item();
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    autograd::backward(loss());
    optimizer.step();
  }
  EXPECT_LT(loss().item(), 0.5 * before);
  for (auto& [name, t] : model->named_parameters())
    if (first.contains(name)) {
      EXPECT_NE(t->to_vector<float>(), first[name]) << name;
    }
  // What is converted has them.
  EXPECT_TRUE(equal(integer_forward(model, {x})[0].detach(),
                    runtime::compile(convert_fx(model)->graph()).run({x})[0]));
}

TEST(QatFx, ErrorsComeBeforeTheWork) {
  graph::Graph source = a_net();
  expect_error(ErrorCode::invalid_argument, {"must fake-quantize", "get_default_qat_qconfig"},
               [&] { prepare_qat_fx(source, get_default_qconfig()); });
  expect_error(ErrorCode::not_found, {"'nothing.*'"}, [&] {
    prepare_qat_fx(source, get_default_qat_qconfig(), {{"nothing.*"}, ""});
  });
  auto model = prepare_qat_fx(source, get_default_qat_qconfig());
  expect_error(ErrorCode::not_calibrated, {"saw no data"}, [&] { convert_fx(model); });
  expect_error(ErrorCode::invalid_argument, {"no LearnableFakeQuantize", "with_learned_qparams"},
               [&] { enable_param_learning(*model); });
}

}  // namespace
}  // namespace octet::quant
