// Faults that were planted are found, named and put first; nothing is found in sound networks.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "octet/ops/op.h"
#include "tests/debug/compare_networks.h"

namespace octet::testing {
namespace {

using debug::Comparison;
using debug::Fault;
using debug::LayerComparison;
using graph::Graph;
using graph::Node;
using graph::ValueId;

std::string describe(const Comparison& c) {
  std::string text;
  for (size_t i : c.ranking) {
    const LayerComparison& l = c.layers[i];
    text += fmt::format("  {} ({}): {}, noise {:.3f}, own {:.1f}, weight {:.1f}: {}\n", l.name,
                        l.op, debug::to_string(l.fault), l.noise_share, l.own_sqnr, l.weight_sqnr,
                        l.sentence);
  }
  return text;
}

// The first layer of the ranking has this name and fault, and says `part`.
void expect_first(const Comparison& c, const std::string& name, Fault fault,
                  const std::string& part) {
  ASSERT_FALSE(c.ranking.empty());
  const LayerComparison& first = c.layers[c.ranking[0]];
  EXPECT_EQ(first.name, name) << describe(c);
  EXPECT_STREQ(debug::to_string(first.fault), debug::to_string(fault)) << describe(c);
  EXPECT_NE(first.sentence.find(part), std::string::npos) << first.sentence;
}

ValueId result_of(const Graph& g, const std::string& scope) {
  for (const Node& node : g.nodes())
    if (node.scope == scope && g.type(node.outputs[0]).is_quantized()) return node.outputs[0];
  ADD_FAILURE() << "no " << scope;
  return 0;
}

// The graph with one constant replaced.
Graph with_constant(const Graph& g, const std::string& name, const Tensor& value) {
  graph::Rewriter rewriter(g);
  return rewriter.run([&](graph::Rewriter& r, const Node& node) {
    if (node.kind != graph::NodeKind::constant || g.value(node.outputs[0]).name != name)
      return false;
    r.map(node.outputs[0], r.out().add_constant(name, value));
    return true;
  });
}

class CompareFaults : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Networks, CompareFaults, ::testing::ValuesIn(fault_net_kinds()),
                         [](const auto& info) { return info.param; });

TEST_P(CompareFaults, NothingIsWrongWithASoundNetwork) {
  for (const char* observer : {"MinMaxObserver", "HistogramObserver"})
    for (Uneven uneven : {Uneven{}, Uneven{.channels = true}}) {
      const FaultNet net = make_fault_net(GetParam(), uneven);
      const Tensor data = fault_samples(net);
      const auto [before, after] = quantize_fault_net(net, data, observer);
      const Comparison c = debug::compare(before, after, as_samples(data));
      for (const LayerComparison& l : c.layers)
        EXPECT_EQ(l.fault, Fault::none) << observer << " " << l.name << ": " << l.sentence;
    }
}

TEST_P(CompareFaults, AScaleEightTimesTooLarge) {
  const FaultNet net = make_fault_net(GetParam());
  const Tensor data = fault_samples(net);
  auto [before, after] = quantize_fault_net(net, data);
  const ValueId v = result_of(after, net.victim);
  const TensorType& type = after.type(v);
  after.set_quantizer(v, Quantizer::per_tensor(8 * type.quantizer->scale(),
                                               type.quantizer->zero_point(), type.dtype));
  after.check();
  expect_first(debug::compare(before, after, as_samples(data)), net.victim, Fault::scale_too_large,
               "about 8 times too large");
}

TEST_P(CompareFaults, ARangeStretchedByOneOutlier) {
  const FaultNet net = make_fault_net(GetParam());
  Tensor data = fault_samples(net);
  data.data<float>()[17 * (data.numel() / data.size(0)) + 5] = 200;
  const auto [before, after] = quantize_fault_net(net, data);
  expect_first(debug::compare(before, after, as_samples(data)), "x", Fault::outlier,
               "sample 17 holds 200");
}

TEST_P(CompareFaults, ALayerLeftFloat) {
  const FaultNet net = make_fault_net(GetParam());
  const Tensor data = fault_samples(net);
  const auto [before, after] = quantize_fault_net(net, data, "MinMaxObserver", {net.victim});
  expect_first(debug::compare(before, after, as_samples(data)), net.victim, Fault::left_float,
               "left float");
}

TEST_P(CompareFaults, OperandsOfACatOfUnlikeScale) {
  const FaultNet net = make_fault_net(GetParam(), {.branches = true});
  const Tensor data = fault_samples(net);
  const auto [before, after] = quantize_fault_net(net, data);
  expect_first(debug::compare(before, after, as_samples(data)), net.cat, Fault::unlike_scales,
               "%small");
}

TEST_P(CompareFaults, ADeadChannel) {
  const FaultNet net = make_fault_net(GetParam());
  const Tensor data = fault_samples(net);
  const auto [before, after] = quantize_fault_net(net, data);
  const std::string name = net.victim + ".weight";
  Tensor weight = after.constant(*after.find(name)).clone();
  const int64_t row = weight.numel() / weight.size(0);
  Tensor codes = weight.int_repr();
  for (int64_t i = 0; i < row; ++i) codes.data<int8_t>()[3 * row + i] = 0;
  const Graph dead = with_constant(after, name, make_quantized(codes, weight.quantizer()));
  expect_first(debug::compare(before, dead, as_samples(data)), net.victim, Fault::dead_channel,
               "channel 3 is dead");
}

TEST_P(CompareFaults, PerTensorWeightsOfADepthwiseLayer) {
  const FaultNet net = make_fault_net(GetParam(), {.channels = true});
  const Tensor data = fault_samples(net);
  const auto [before, after] = quantize_fault_net(net, data, "MinMaxObserver", {}, net.depthwise);
  expect_first(debug::compare(before, after, as_samples(data)), net.depthwise,
               Fault::per_tensor_weights, "scales per channel");
}

}  // namespace
}  // namespace octet::testing
