// Graph mode on models whose layers are functions: convolutions and norms are quantized as modules
// are.
#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/nn/module.h"
#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/sqnr.h"

namespace octet::quant {
namespace {

namespace F = functional;
using testing::sqnr;

std::vector<std::string> calls(const graph::Graph& g) {
  std::vector<std::string> ops;
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call) ops.push_back(node.op);
  return ops;
}

// prepare_fx, some batches, convert_fx; the quantized model is close to the float one, and compiled
// it gives the same bits.
std::shared_ptr<GraphModule> quantized(const nn::ModulePtr& model, const Shape& shape, double least,
                                       ConversionReport* report) {
  model->eval();
  auto prepared = prepare_fx(model, get_default_qconfig_mapping(),
                             std::vector<Tensor>{Tensor::randn(shape, 1)});
  for (uint64_t seed = 1; seed < 12; ++seed) (*prepared)(Tensor::randn(shape, seed));
  auto int8 = convert_fx(prepared, {}, get_native_backend_config(), report);
  const Tensor x = Tensor::randn(shape, 9), y = (*int8)(x);
  EXPECT_GT(sqnr((*model)(x).detach(), y), least);
  EXPECT_TRUE(equal(runtime::compile(int8->to_graph()).run({x})[0], y));
  return int8;
}

struct Volumes : nn::Module {
  nn::Parameter w1 = parameter("w1", Tensor::rand({4, 3, 3, 3, 3}, 1, -0.3, 0.3)),
                b1 = parameter("b1", Tensor::rand({4}, 2));
  nn::Parameter w2 = parameter("w2", Tensor::rand({4, 5, 2, 2, 2}, 3, -0.3, 0.3));
  Tensor forward(Tensor x) override {
    x = F::relu(F::conv3d(x, w1, b1, 1, "same"));
    x = F::max_pool3d(x, 2);
    x = F::conv_transpose3d(x, w2, {}, 2);
    return F::adaptive_avg_pool3d(x, {-1, 1, 1});
  }
};

TEST(FunctionalFx, VolumesAreQuantizedThroughout) {
  ConversionReport report;
  auto int8 = quantized(nn::make<Volumes>(), {4, 3, 4, 6, 4}, 25, &report);
  EXPECT_EQ(calls(int8->graph()),
            (std::vector<std::string>{"quantize", "conv3d", "max_pool3d", "conv_transpose3d",
                                      "adaptive_avg_pool3d", "dequantize"}));
  EXPECT_TRUE(report.left_float().empty());
}

struct Lines : nn::Module {
  nn::Parameter w1 = parameter("w1", Tensor::rand({4, 3, 3}, 1, -0.5, 0.5));
  nn::Parameter w2 = parameter("w2", Tensor::rand({4, 4, 4}, 3, -0.5, 0.5));
  nn::Parameter gamma = parameter("gamma", Tensor::rand({4}, 4, 0.5, 2)),
                beta = parameter("beta", Tensor::rand({4}, 5));
  nn::Parameter mean = buffer("mean", Tensor::rand({4}, 6)),
                var = buffer("var", Tensor::rand({4}, 7, 0.5, 2));
  Tensor forward(Tensor x) override {
    x = F::conv1d(F::pad(x, {1, 1}, "circular"), w1);
    x = F::relu(F::batch_norm(x, mean, var, gamma, beta));
    x = F::avg_pool1d(x, 2);
    x = F::conv_transpose1d(x, w2, {}, 2, 1);
    x = F::instance_norm(x);
    return F::adaptive_max_pool1d(x, 4);
  }
};

TEST(FunctionalFx, LinesAreQuantizedThroughout) {
  ConversionReport report;
  auto int8 = quantized(nn::make<Lines>(), {16, 3, 24}, 25, &report);
  EXPECT_TRUE(report.left_float().empty())
      << report.left_float().at(0).op << ": " << report.left_float().at(0).reason;
  for (const graph::Node& node : int8->graph().nodes())
    if (node.kind == graph::NodeKind::call && node.op != "dequantize") {
      EXPECT_TRUE(int8->graph().type(node.outputs[0]).is_quantized()) << node.op;
    }
}

struct Table : nn::Module {
  nn::Parameter table = parameter("table", Tensor::rand({7, 4}, 1));
  nn::Parameter w = parameter("w", Tensor::rand({3, 4}, 2));
  Tensor forward(Tensor index) override {
    Tensor x = F::layer_norm(F::embedding(index, table, 0), {4});
    const Tensor classes = F::one_hot(index, 3).to(DType::float32);
    return F::linear(x, w) * classes;
  }
};

TEST(FunctionalFx, TablesAndClassesAreTraced) {
  auto model = nn::make<Table>();
  model->eval();
  const Tensor index = Tensor::from<int64_t>({0, 2, 1, 1}).reshape({2, 2});
  auto traced = graph::trace(*model, {index});
  EXPECT_EQ(calls(traced->graph()),
            (std::vector<std::string>{"embedding", "layer_norm", "unsqueeze", "equal", "to", "to",
                                      "linear", "mul"}));
  EXPECT_TRUE(equal((*traced)(index).detach(), (*model)(index).detach()));
}

struct Drops : nn::Module {
  nn::Parameter w = parameter("w", Tensor::rand({3, 50}, 2));
  bool channels = false;
  Tensor forward(Tensor x) override {
    return F::linear(channels ? F::dropout1d(x, 0.5, training()) : F::dropout(x, 0.5, training()),
                     w);
  }
};

TEST(FunctionalFx, ATracedDropoutDrawsAnewInTraining) {
  auto model = nn::make<Drops>();
  const Tensor x = Tensor::ones({4, 50});
  auto traced = graph::trace(*model, {x});
  EXPECT_EQ(calls(traced->graph()), (std::vector<std::string>{"dropout", "linear"}));
  traced->train();
  EXPECT_FALSE(equal((*traced)(x).detach(), (*traced)(x).detach()));
  traced->eval();
  model->eval();
  EXPECT_TRUE(equal((*traced)(x).detach(), (*model)(x).detach()));
  model->train();
  model->channels = true;
  testing::expect_error(ErrorCode::unsupported, {"dropout1d", "nn::Dropout1d"},
                        [&] { graph::trace(*model, {x}); });
}

}  // namespace
}  // namespace octet::quant
