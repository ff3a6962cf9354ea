#include "octet/quant/algorithms/cross_layer_equalization.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/nn/nn.h"
#include "octet/quant/algorithms/equalize.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;

// A weight whose output channels have very unlike magnitudes.
Tensor uneven(const Shape& shape, uint64_t seed) {
  Tensor w = Tensor::randn(shape, seed);
  const int64_t inner = w.numel() / shape[0];
  for (int64_t i = 0; i < w.numel(); ++i)
    w.data<float>()[i] *= std::pow(3.F, static_cast<float>(i / inner % 5) - 2);
  return w;
}

struct Builder {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(8), Dim(8)}));
  uint64_t seed = 1;

  ValueId conv(const std::string& name, ValueId in, const Shape& shape, int64_t groups = 1,
               const std::string& activation = "none") {
    const int64_t pad = shape[2] / 2;
    return g.add_call(name, "conv2d",
                      {in, g.add_constant(name + ".weight", uneven(shape, seed++)),
                       g.add_constant(name + ".bias", Tensor::randn({shape[0]}, seed++))},
                      {{"padding", std::vector<int64_t>{pad, pad, pad, pad}},
                       {"groups", groups},
                       {"activation", activation}});
  }
  ValueId call(const std::string& op, std::vector<ValueId> in, const Attrs& attrs = {}) {
    return g.add_call(op + std::to_string(seed++), op, std::move(in), attrs);
  }
};

std::vector<std::vector<Tensor>> batches(double scale = 1) {
  return {{Tensor::rand({4, 3, 8, 8}, 50, -scale, scale)},
          {Tensor::rand({2, 3, 8, 8}, 51, -scale, scale)}};
}

void expect_same_function(const Graph& a, const Graph& b, double scale = 1) {
  for (const auto& batch : batches(scale)) {
    const Tensor want = runtime::compile(a).run(batch)[0], got = runtime::compile(b).run(batch)[0];
    double most = 0;
    for (float v : want.to_vector<float>()) most = std::max<double>(most, std::abs(v));
    EXPECT_TRUE(allclose(got, want, 0, 2e-5 * most));
  }
}

// The range of each output channel of a weight.
std::vector<double> row_ranges(const Tensor& w) {
  std::vector<double> ranges;
  for (int64_t o = 0; o < w.size(0); ++o) {
    double low = 0, high = 0;
    for (float v : w.select(0, o).to_vector<float>()) {
      low = std::min<double>(low, v);
      high = std::max<double>(high, v);
    }
    ranges.push_back(high - low);
  }
  return ranges;
}

TEST(CrossLayerEqualization, FollowsWhatLetsAFactorPass) {
  Builder b;
  ValueId y = b.conv("a", b.x, {10, 3, 3, 3});
  y = b.call("leaky_relu", {y}, {{"negative_slope", 0.1}});
  y = b.conv("dw", y, {10, 1, 3, 3}, 10, "relu");
  y = b.call("max_pool2d", {y},
             {{"kernel", std::vector<int64_t>{2, 2}}, {"stride", std::vector<int64_t>{2, 2}}});
  y = b.conv("b", y, {6, 10, 1, 1});
  y = b.call("prelu", {y, b.g.add_constant("slopes", Tensor::rand({6}, 9))});
  y = b.call("flatten", {y});
  y = b.g.add_call("fc", "linear", {y, b.g.add_constant("fc.weight", uneven({5, 96}, 40))});
  b.g.set_outputs({y});
  quant::CrossLayerEqualizationReport report;
  const Graph equal = quant::cross_layer_equalization(b.g, {}, {}, &report);
  EXPECT_EQ(report.groups.size(), 3u);
  expect_same_function(b.g, equal);
  // As section 4.1 has it: both sides have the same ranges.
  const Tensor& w = equal.constant(*equal.find("a.weight"));
  const Tensor& dw = equal.constant(*equal.find("dw.weight"));
  const auto before = row_ranges(w), behind = row_ranges(dw);
  for (size_t c = 0; c < before.size(); ++c) EXPECT_NEAR(before[c] / behind[c], 1, 1e-2) << c;
}

TEST(CrossLayerEqualization, ResidualsShareTheirFactors) {
  Builder b;
  const ValueId a = b.conv("a", b.x, {8, 3, 3, 3}, 1, "relu");
  const ValueId c = b.conv("c", a, {8, 8, 3, 3});
  const ValueId s = b.g.add_call("s", "add", {c, a}, {{"activation", "relu"}});
  ValueId y = b.conv("d", s, {8, 8, 1, 1});
  y = b.call("add", {y, s});
  b.g.set_outputs({b.conv("e", y, {4, 8, 3, 3})});
  quant::CrossLayerEqualizationReport report;
  const Graph equal = quant::cross_layer_equalization(b.g, {}, {}, &report);
  ASSERT_EQ(report.groups.size(), 1u);
  EXPECT_EQ(report.groups[0].producers, (std::vector<std::string>{"a", "c", "d"}));
  EXPECT_EQ(report.groups[0].consumers, (std::vector<std::string>{"c", "d", "e"}));
  expect_same_function(b.g, equal);
}

TEST(CrossLayerEqualization, StopsAtWhatDoesNot) {
  for (const char* op : {"sigmoid", "relu6", "hardswish"}) {
    Builder b;
    ValueId y = b.conv("a", b.x, {8, 3, 3, 3});
    y = b.call(op, {y});
    b.g.set_outputs({b.conv("b", y, {4, 8, 1, 1})});
    quant::CrossLayerEqualizationReport report;
    const Graph equal = quant::cross_layer_equalization(b.g, {}, {}, &report);
    EXPECT_TRUE(report.groups.empty()) << op;
    expect_same_function(b.g, equal);
  }
  {  // A weight that another layer has too.
    Builder b;
    const ValueId a = b.conv("a", b.x, {3, 3, 3, 3});
    const ValueId c = b.conv("c", a, {4, 3, 1, 1});
    const ValueId again = b.g.add_call("again", "conv2d", {b.x, *b.g.find("a.weight")},
                                       {{"padding", std::vector<int64_t>{1, 1, 1, 1}}});
    b.g.set_outputs({c, again});
    quant::CrossLayerEqualizationReport report;
    const Graph equal = quant::cross_layer_equalization(b.g, {}, {}, &report);
    EXPECT_TRUE(report.groups.empty());
    const std::vector<Tensor> want = runtime::compile(b.g).run(batches()[0]),
                              got = runtime::compile(equal).run(batches()[0]);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(octet::equal(got[i], want[i])) << i;
  }
  // A result that is an output of the graph, too, and one that something else reads.
  Builder b;
  const ValueId a = b.conv("a", b.x, {8, 3, 3, 3});
  const ValueId c = b.conv("c", a, {4, 8, 1, 1});
  b.g.set_outputs({c, a});
  quant::CrossLayerEqualizationReport report;
  expect_same_function(b.g, quant::cross_layer_equalization(b.g, {}, {}, &report));
  EXPECT_TRUE(report.groups.empty());
}

TEST(CrossLayerEqualization, Relu6BecomesReluOrALimitForEachChannel) {
  for (double scale : {0.01, 3.0}) {  // never reached; reached
    Builder b;
    ValueId y = b.conv("a", b.x, {10, 3, 3, 3}, 1, scale < 1 ? "relu6" : "none");
    if (scale > 1) y = b.call("relu6", {y});
    b.g.set_outputs({b.conv("b", y, {4, 10, 3, 3})});
    quant::CrossLayerEqualizationReport report;
    const Graph equal = quant::cross_layer_equalization(b.g, batches(scale), {}, &report);
    EXPECT_EQ(report.groups.size(), 1u);
    EXPECT_EQ(report.replaced_relu6.size(), 1u);
    expect_same_function(b.g, equal, scale);
    bool limited = false;
    for (const auto& node : equal.nodes()) {
      limited = limited || node.op == "minimum";
      EXPECT_NE(node.op, "relu6");
    }
    EXPECT_EQ(limited, scale > 1);
    // And it can be quantized.
    auto prepared = quant::prepare_fx(equal, quant::get_default_qconfig("qnnpack"));
    for (const auto& batch : batches(scale)) prepared->forward(batch);
    EXPECT_NO_THROW(runtime::compile(quant::convert_fx(prepared)->graph()));
  }
}

// Two layers: the result is that of quant::equalize on modules (which PyTorch's is compared with).
TEST(CrossLayerEqualization, IsWhatEqualizeDoesToModules) {
  auto model = nn::make<nn::Sequential>(nn::Conv2d(3, 10, 3), nn::ReLU(), nn::Conv2d(10, 4, 1));
  const auto set = [&](const char* path, const Tensor& value) {
    model->load_state_dict([&] {
      auto state = model->state_dict();
      state[path] = value;
      return state;
    }());
  };
  set("0.weight", uneven({10, 3, 3, 3}, 1));
  set("2.weight", uneven({4, 10, 1, 1}, 2));
  model->eval();
  const auto trace = [](const nn::ModulePtr& m) {
    return graph::trace(*m, {TensorType(DType::float32, {Dim("N"), Dim(3), Dim(8), Dim(8)})},
                        {.into_layers = true})
        ->to_graph();
  };
  const Graph modules = trace(quant::equalize(model, {{"0", "2"}}));
  const Graph equal = quant::cross_layer_equalization(trace(model));
  const auto weights = [](const Graph& g) {
    std::vector<Tensor> all;
    for (const auto& node : g.nodes())
      if (node.op == "conv2d") all.push_back(g.constant(node.inputs[1]));
    return all;
  };
  const auto want = weights(modules), got = weights(equal);
  ASSERT_EQ(got.size(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(allclose(got[i], want[i], 1e-3, 1e-4)) << i;
}

TEST(AbsorbHighBiases, LowersRangesAndKeepsTheFunction) {
  Builder b;
  ValueId y = b.conv("a", b.x, {6, 3, 3, 3}, 1, "relu");
  b.g.node(b.g.value(*b.g.find("a.bias")).producer).value =
      Tensor::from<float>({500, 400, 0, 0, 300, 0});
  y = b.conv("b", y, {4, 6, 1, 1});
  b.g.set_outputs({y});
  const Graph absorbed = quant::absorb_high_biases(b.g, batches());
  expect_same_function(b.g, absorbed);
  const auto largest = [](const Graph& g) {
    float most = 0;
    const auto program = runtime::compile(g, {.every_value = true});
    for (const auto& batch : batches())
      program.run_watched(batch, {*g.find("a")}, [&](ValueId, const Tensor& t) {
        for (float v : t.contiguous().to_vector<float>()) most = std::max(most, v);
      });
    return most;
  };
  EXPECT_LT(largest(absorbed), 0.6F * largest(b.g));
  // A padded reader sees zeros beside the channel: nothing moves.
  Builder padded;
  y = padded.conv("a", padded.x, {6, 3, 3, 3}, 1, "relu");
  padded.g.set_outputs({padded.conv("b", y, {4, 6, 3, 3})});
  const Graph kept = quant::absorb_high_biases(padded.g, batches());
  EXPECT_TRUE(
      equal(kept.constant(*kept.find("a.bias")), padded.g.constant(*padded.g.find("a.bias"))));
  expect_error(ErrorCode::invalid_argument, {"no samples"},
               [&] { quant::absorb_high_biases(padded.g, {}); });
}

}  // namespace
}  // namespace octet::testing
