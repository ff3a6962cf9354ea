#include "octet/graph/passes/fold_batch_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/graph/passes/merge_qdq.h"
#include "tests/graph/random_net.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;

struct Case {
  std::string op = "conv2d";
  Shape x = {2, 4, 5, 5}, weight = {6, 4, 3, 3};
  Attrs attrs = {};
  bool bias = true;
  double eps = 1e-5;
};

struct Built {
  Graph g;
  ValueId layer, norm;
};

Built build(const Case& c) {
  Built b;
  int64_t channels = c.weight[0];
  ValueId x = b.g.add_input("x", TensorType(DType::float32, c.x));
  ValueId w = b.g.add_constant("conv.weight", Tensor::randn(c.weight, 1));
  ValueId bias =
      c.bias ? b.g.add_constant("conv.bias", Tensor::randn({channels}, 2)) : graph::kNone;
  b.layer = b.g.add_call("h", c.op, {x, w, bias}, c.attrs, std::nullopt, "layer.conv");
  std::vector<ValueId> stats;
  for (int i = 0; i < 4; ++i)
    stats.push_back(
        b.g.add_constant("bn." + std::to_string(i), i == 3 ? Tensor::rand({channels}, 9, 0.5, 2)
                                                           : Tensor::randn({channels}, 10 + i)));
  b.norm = b.g.add_call("y", "batch_norm", {b.layer, stats[0], stats[1], stats[2], stats[3]},
                        {{"eps", c.eps}}, std::nullopt, "layer.bn");
  b.g.set_outputs({b.norm});
  return b;
}

void expect_folds(const Case& c, const std::string& ops) {
  Built b = build(c);
  Graph folded = graph::fold_batch_norm(b.g);
  folded.check();
  EXPECT_EQ(ops_of(folded), ops) << c.op;
  Tensor x = Tensor::randn(c.x, 3);
  EXPECT_TRUE(allclose(run_one(folded, {x}), run_one(b.g, {x}), 1e-4, 1e-4)) << c.op;
}

TEST(FoldBatchNorm, IntoEveryLayer) {
  expect_folds({}, "conv2d");
  expect_folds({.bias = false}, "conv2d");
  expect_folds({.weight = {6, 2, 3, 3}, .attrs = {{"groups", int64_t{2}}}}, "conv2d");
  expect_folds({.op = "conv1d", .x = {2, 4, 7}, .weight = {6, 4, 3}}, "conv1d");
  expect_folds({.op = "linear", .x = {3, 4}, .weight = {6, 4}}, "linear");
  expect_folds({.eps = 1e-3}, "conv2d");
}

// PyTorch's order of roundings, as modules are folded.
TEST(FoldBatchNorm, RoundsAsModulesAreFolded) {
  Built b = build({});
  Graph folded = graph::fold_batch_norm(b.g);
  auto value = [&](const char* name) { return b.g.constant(*b.g.find(name)).to_vector<float>(); };
  auto w = value("conv.weight"), bias = value("conv.bias"), gamma = value("bn.0"),
       beta = value("bn.1"), mean = value("bn.2"), var = value("bn.3");
  const float spread = 1.f / std::sqrt(var[1] + 1e-5f), scale = gamma[1] * spread;
  EXPECT_EQ(folded.constant(*folded.find("conv.weight")).to_vector<float>()[36], w[36] * scale);
  EXPECT_EQ(folded.constant(*folded.find("conv.bias")).to_vector<float>()[1],
            (bias[1] - mean[1]) * spread * gamma[1] + beta[1]);
}

TEST(FoldBatchNorm, KeepsNamesAndScopes) {
  Graph folded = graph::fold_batch_norm(build({.bias = false}).g);
  EXPECT_EQ(node_of(folded, "conv2d").scope, "layer.conv");
  EXPECT_EQ(folded.value(folded.outputs()[0]).name, "y");
  EXPECT_TRUE(folded.find("conv.weight"));
  EXPECT_TRUE(folded.find("conv.bias"));  // made up beside "conv.weight"
  EXPECT_EQ(folded.nodes().size(), 4u);   // the norm's constants are gone
}

TEST(FoldBatchNorm, DoesNotTouchTheOriginalWeights) {
  Built b = build({});
  Tensor before = b.g.constant(*b.g.find("conv.weight")).clone();
  graph::fold_batch_norm(b.g);
  EXPECT_TRUE(equal(b.g.constant(*b.g.find("conv.weight")), before));
}

TEST(FoldBatchNorm, NotWhereTheLayersResultIsUsedElsewhere) {
  Built b = build({});
  b.g.set_outputs({b.norm, b.layer});
  EXPECT_EQ(ops_of(graph::fold_batch_norm(b.g)), "conv2d batch_norm");
}

TEST(FoldBatchNorm, NotBehindAnActivation) {
  expect_folds({.attrs = {{"activation", std::string("relu")}}}, "conv2d batch_norm");
}

TEST(FoldBatchNorm, NotBesideABiasThatIsComputed) {
  Built b = build({});
  const ValueId x = b.g.inputs()[0],
                bias = b.g.add_input("bias", TensorType(DType::float32, {Dim(6)}));
  b.layer = b.g.add_call("h2", "conv2d", {x, *b.g.find("conv.weight"), bias});
  std::vector<ValueId> in = b.g.producer(b.norm).inputs;
  in[0] = b.layer;
  b.g.set_outputs({b.g.add_call("y2", "batch_norm", in, {{"eps", 1e-5}})});
  EXPECT_EQ(ops_of(graph::fold_batch_norm(graph::remove_dead(b.g))), "conv2d batch_norm");
}

// its channels are dimension 1, not the features
TEST(FoldBatchNorm, NotOverTheSequenceOfALinearLayer) {
  expect_folds({.op = "linear", .x = {2, 6, 4}, .weight = {6, 4}}, "linear batch_norm");
}

TEST(FoldBatchNorm, SharedWeightsAreFoldedApart) {
  Built b = build({});
  ValueId w = *b.g.find("conv.weight");
  ValueId x = b.g.inputs()[0];
  ValueId z = b.g.add_call("z", "conv2d", {x, w});
  b.g.set_outputs({b.norm, z});
  Graph folded = graph::fold_batch_norm(b.g);
  folded.check();
  Tensor input = Tensor::randn({2, 4, 5, 5}, 3);
  auto got = run_graph(folded, {input}), want = run_graph(b.g, {input});
  EXPECT_TRUE(allclose(got[0], want[0], 1e-4, 1e-4));
  EXPECT_TRUE(equal(got[1], want[1]));
}

TEST(FoldBatchNorm, GammaOfZero) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, Shape{1, 1, 2, 2})),
          w = g.add_constant("w", Tensor::ones({1, 1, 1, 1}));
  ValueId zero = g.add_constant("zero", Tensor::zeros({1})),
          two = g.add_constant("two", Tensor::full({1}, 2));
  ValueId h = g.add_call("h", "conv2d", {x, w});
  g.set_outputs({g.add_call("y", "batch_norm", {h, zero, two, two, two})});
  EXPECT_EQ(run_one(graph::fold_batch_norm(g), {Tensor::ones({1, 1, 2, 2})}).to_vector<float>(),
            (std::vector<float>{2, 2, 2, 2}));
}

}  // namespace
TEST(FoldBiases, AnAddedConstantJoinsTheBias) {
  const struct {
    const char *layer, *constant;
    bool folds;
  } cases[] = {
      {"conv2d(%x, %w)", "Float(2, 1, 1) = constant [1, -2]", true},
      {"conv2d(%x, %w, %b)", "Float(1, 2, 1, 1) = constant [1, -2]", true},
      {"conv2d(%x, %w, %b)", "Float(1) = constant [3]", true},
      {"conv_transpose2d(%x, %w)", "Float(1, 2, 1, 1) = constant [1, -2]", true},
      {"conv2d(%x, %w, activation=\"relu\")", "Float(1) = constant [3]", false},
      {"conv2d(%x, %w)", "Float(2, 2) = constant [1, 2, 3, 4]", false},  // along the image
      {"conv2d(%x, %w)", "Float(2) = constant [1, 2]", false},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(std::string(c.layer) + " + " + c.constant);
    const Graph g = graph::parse(
        std::string("graph g {\n%x: Float(1, 2, 2, 2) = input\n%w: Float(2, 2, 1, 1) = constant "
                    "[1, 2, 3, 4]\n%b: Float(2) = constant [5, 6]\n%y: Float(1, 2, 2, 2) = ") +
        c.layer + "  @ conv\n%c: " + c.constant +
        "\n%z: Float(1, 2, 2, 2) = add(%y, %c)\nreturn (%z)\n}\n");
    const Graph folded = graph::fold_biases(g);
    size_t adds = 0;
    for (const auto& node : folded.nodes()) adds += node.op == "add";
    EXPECT_EQ(adds, c.folds ? 0u : 1u);
    EXPECT_EQ(folded.value(folded.outputs()[0]).name, "z");
    const Tensor x = Tensor::randn({1, 2, 2, 2}, 1);
    EXPECT_TRUE(
        allclose(testing::evaluate(g, {x})[0], testing::evaluate(folded, {x})[0], 1e-6, 1e-6));
  }
}

}  // namespace octet::testing
