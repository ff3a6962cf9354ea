// compare(): its numbers are those of the layers run by hand; layers are found under other names.
#include "octet/debug/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/parallel.h"
#include "octet/debug/metrics.h"
#include "octet/runtime/program.h"
#include "tests/debug/compare_networks.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using debug::Comparison;
using debug::Fault;
using debug::LayerComparison;
using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

struct Pair {
  FaultNet net;
  Tensor data;
  Graph before, after;
};
Pair make_pair(const std::string& kind = "plain", Uneven uneven = {}) {
  Pair p{make_fault_net(kind, uneven), {}, {}, {}};
  p.data = fault_samples(p.net);
  auto [before, after, prepared] = quantize_fault_net(p.net, p.data);
  p.before = std::move(before);
  p.after = std::move(after);
  return p;
}

const LayerComparison& layer_of(const Comparison& c, const std::string& name) {
  for (const LayerComparison& l : c.layers)
    if (l.name == name) return l;
  throw std::runtime_error("no layer " + name);
}

Tensor value_of(const Graph& g, const std::string& scope, const Tensor& x) {
  for (const Node& node : g.nodes()) {
    if (node.kind != NodeKind::call || node.scope != scope) continue;
    Tensor value;
    runtime::compile(g, {.engine = {}, .every_value = true})
        .run_watched({x}, {node.outputs[0]}, [&](ValueId, const Tensor& y) { value = y.clone(); });
    return value;
  }
  throw std::runtime_error("no node " + scope);
}

// Each half of a split, and topk's values; its indices are no values.
TEST(Compare, EveryResultOfACallIsALayer) {
  NetBuilder b(5, {});
  ValueId x = b.layer("conv", "conv2d", b.input({3, 6, 6}), 8, {.activation = "relu"});
  const std::vector<ValueId> halves = b.g.add_calls(
      "halves", "split", {x}, {{"dim", int64_t{1}}, {"sizes", std::vector<int64_t>{4, 4}}},
      std::nullopt, "halves");
  ValueId y = b.layer("next", "conv2d", halves[1], 4, {.kernel = 3});
  y = b.call("sum", "add", {y, halves[0]});
  y = b.call("flat", "flatten", {y});
  const std::vector<ValueId> best =
      b.g.add_calls("best", "topk", {y}, {{"k", int64_t{3}}}, std::nullopt, "best");
  b.g.set_outputs({best[0], best[1]});
  FaultNet net;
  net.input = {3, 6, 6};
  net.graph = std::move(b.g);
  const Tensor data = fault_samples(net);
  const auto [before, after, prepared] = quantize_fault_net(net, data);
  const Comparison c = debug::compare(before, after, as_samples(data));
  std::vector<std::string> names;
  for (const LayerComparison& l : c.layers) names.push_back(l.name);
  EXPECT_EQ(names, (std::vector<std::string>{"x", "conv", "halves", "halves:1", "next", "sum",
                                             "flat", "best"}));
  for (const char* name : {"halves", "halves:1"}) {
    EXPECT_TRUE(layer_of(c, name).matched) << name;
    EXPECT_GT(layer_of(c, name).sqnr, 25) << name;
    EXPECT_EQ(layer_of(c, name).fault, Fault::none) << name;
  }
  EXPECT_NE(layer_of(c, "halves").max, layer_of(c, "halves:1").max);
  // Each reads the half that it reads.
  EXPECT_EQ(layer_of(c, "next").operands, (std::vector<int>{3}));
  EXPECT_EQ(layer_of(c, "sum").operands, (std::vector<int>{4, 2}));
}

TEST(Compare, NumbersAreThoseOfTheValues) {
  const Pair p = make_pair();
  const Comparison c = debug::compare(p.before, p.after, as_samples(p.data));
  EXPECT_EQ(c.samples, kFaultSamples);
  EXPECT_EQ(c.unmatched, 0);
  const Tensor x = runtime::compile(p.before).run({p.data})[0],
               y = runtime::compile(p.after).run({p.data})[0];
  EXPECT_NEAR(c.outputs.at(0).sqnr, debug::compute_sqnr(x, y), 1e-4);
  EXPECT_NEAR(c.outputs[0].max_error, debug::compute_max_abs_error(x, y), 1e-6);
  for (const std::string name : {"stem", "sep.depth", "join", "victim", "fc"}) {
    const LayerComparison& l = layer_of(c, name);
    const Tensor a = value_of(p.before, name, p.data), b = value_of(p.after, name, p.data);
    EXPECT_NEAR(l.sqnr, debug::compute_sqnr(a, b), 1e-3) << name;
    EXPECT_NEAR(l.cosine, debug::compute_cosine_similarity(a, b), 1e-6) << name;
    EXPECT_NEAR(l.max_error, debug::compute_max_abs_error(a, b), 1e-6) << name;
    EXPECT_TRUE(l.quantized) << name;
    const Tensor rounded = quantize(a, b.quantizer(), b.dtype());
    EXPECT_NEAR(l.activation_sqnr, debug::compute_sqnr(a, rounded), 1e-3) << name;
    int64_t clipped = 0;
    for (float v : a.to_vector<float>()) {
      const double code = std::nearbyint(v / b.q_scale()) + static_cast<double>(b.q_zero_point());
      clipped += code < 0 || code > 255;
    }
    EXPECT_NEAR(l.clipped, static_cast<double>(clipped) / static_cast<double>(a.numel()), 1e-4)
        << name;
    uint64_t all = 0;
    for (uint64_t n : l.histogram) all += n;
    EXPECT_EQ(all, static_cast<uint64_t>(a.numel())) << name;
  }
}

TEST(Compare, OwnIsTheLayerOnTheFloatNetworksValues) {
  const Pair p = make_pair();
  const Comparison c = debug::compare(p.before, p.after, as_samples(p.data));
  // The victim reads the cat.
  const Tensor given = value_of(p.before, "join", p.data),
               expected = value_of(p.before, "victim", p.data);
  for (const Node& node : p.after.nodes()) {
    if (node.scope != "victim") continue;
    const TensorType &in = p.after.type(node.inputs[0]), &out = p.after.type(node.outputs[0]);
    const Tensor alone =
        ops::call(node.op,
                  {quantize(given, in.quantizer, in.dtype), p.after.constant(node.inputs[1]),
                   p.after.constant(node.inputs[2])},
                  node.attrs, ops::QType{out.dtype, out.quantizer});
    const LayerComparison& l = layer_of(c, "victim");
    EXPECT_NEAR(l.own_sqnr, debug::compute_sqnr(expected, alone), 1e-3);
    EXPECT_GT(l.own_sqnr, l.sqnr) << "what is inherited comes on top";
    return;
  }
  FAIL();
}

TEST(Compare, BatchesAndThreadsDoNotMatter) {
  const Pair p = make_pair("squeeze");
  std::vector<Comparison> all;
  for (const auto& [batch, threads] : {std::pair{8, 1}, {1, 1}, {24, 1}, {8, 3}}) {
    set_num_threads(threads);
    debug::Samples samples = as_samples(p.data);
    samples.batch = batch;
    all.push_back(debug::compare(p.before, p.after, samples, {.probe_layers = 0}));
  }
  set_num_threads(1);
  for (const Comparison& c : all) {
    ASSERT_EQ(c.layers.size(), all[0].layers.size());
    for (size_t i = 0; i < c.layers.size(); ++i) {
      const LayerComparison &a = all[0].layers[i], &b = c.layers[i];
      if (std::isfinite(a.sqnr)) {
        EXPECT_NEAR(a.sqnr, b.sqnr, 1e-5) << a.name;
      }
      EXPECT_EQ(a.histogram, b.histogram) << a.name;
      EXPECT_EQ(a.largest_samples, b.largest_samples) << a.name;
      ASSERT_EQ(a.calibration.size(), b.calibration.size()) << a.name;
      for (size_t k = 0; k < a.calibration.size(); ++k) {
        EXPECT_EQ(a.calibration[k].samples, b.calibration[k].samples);
        EXPECT_EQ(a.calibration[k].max, b.calibration[k].max);
      }
    }
  }
}

TEST(Compare, TheRangeIsKnownAfterPowersOfTwoOfSamples) {
  Pair p = make_pair();
  p.data.data<float>()[9 * (p.data.numel() / p.data.size(0))] = 50;
  const Comparison c = debug::compare(p.before, p.after, as_samples(p.data));
  const LayerComparison& x = layer_of(c, "x");
  std::vector<int64_t> at;
  for (const debug::RangeAfter& r : x.calibration) {
    at.push_back(r.samples);
    EXPECT_EQ(r.max == 50, r.samples > 9) << r.samples;
  }
  EXPECT_EQ(at, (std::vector<int64_t>{1, 2, 4, 8, 16, 24}));
  EXPECT_EQ(x.stretched_by, 9);
  EXPECT_EQ(x.largest.at(0), 50);
}

// The graph with other names everywhere, as if another tool had written it.
Graph renamed(const Graph& g) {
  graph::Rewriter rewriter(g);
  int n = 0;
  return rewriter.run([&](graph::Rewriter& r, const Node& node) {
    if (node.kind == NodeKind::input) return false;
    const std::string name = "t" + std::to_string(n++);
    if (node.kind == NodeKind::constant) {
      r.map(node.outputs[0], r.out().add_constant(name, node.value));
      return true;
    }
    const auto results = r.out().add_calls(name, node.op, r.operands(node), node.attrs,
                                           graph::want_of(g, node), name);
    for (size_t i = 0; i < results.size(); ++i) r.map(node.outputs[i], results[i]);
    return true;
  });
}

class CompareNames : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Networks, CompareNames, ::testing::ValuesIn(fault_net_kinds()),
                         [](const auto& info) { return info.param; });

TEST_P(CompareNames, DoNotMatter) {
  const Pair p = make_pair(GetParam());
  const Comparison named =
                       debug::compare(p.before, p.after, as_samples(p.data), {.probe_layers = 0}),
                   other = debug::compare(p.before, renamed(p.after), as_samples(p.data),
                                          {.probe_layers = 0});
  ASSERT_EQ(named.layers.size(), other.layers.size());
  for (size_t i = 0; i < named.layers.size(); ++i) {
    const LayerComparison &a = named.layers[i], &b = other.layers[i];
    EXPECT_EQ(a.matched, b.matched) << a.name;
    if (std::isfinite(a.sqnr)) {
      EXPECT_NEAR(a.sqnr, b.sqnr, 1e-9) << a.name;
    }
    if (std::isfinite(a.own_sqnr)) {
      EXPECT_NEAR(a.own_sqnr, b.own_sqnr, 1e-9) << a.name;
    }
  }
}

TEST(Compare, ABiasMayBeAddedBehindTheLayer) {
  Graph f, q;
  const Tensor w = Tensor::randn({6, 8}, 1), b = Tensor::randn({6}, 2),
               data = Tensor::randn({24, 8}, 3);
  const ops::QType in{DType::quint8, Quantizer::per_tensor(0.03, 128, DType::quint8)},
      sum{DType::quint8, Quantizer::per_tensor(0.1, 128, DType::quint8)};
  ValueId x = f.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(8)}));
  f.set_outputs({f.add_call("y", "linear", {x, f.add_constant("w", w), f.add_constant("b", b)})});
  x = q.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(8)}));
  ValueId v = q.add_call("q1", "quantize", {x}, {}, in);
  v = q.add_call("m", "linear",
                 {v, q.add_constant("c", quantize_per_tensor(w, 0.03, 0, DType::qint8))}, {}, sum);
  v = q.add_call("d1", "dequantize", {v});
  v = q.add_call("s", "add", {v, q.add_constant("bb", b)});
  v = q.add_call("q2", "quantize", {v}, {}, sum);
  q.set_outputs({q.add_call("d2", "dequantize", {v})});
  const Comparison c = debug::compare(f, q, as_samples(data));
  EXPECT_EQ(c.unmatched, 0);
  EXPECT_NEAR(layer_of(c, "y").sqnr, c.outputs[0].sqnr, 0.5);
  EXPECT_GT(layer_of(c, "y").sqnr, 20);
  EXPECT_GT(layer_of(c, "y").weight_sqnr, 30);
}

TEST(Compare, OneLayersCostIsThatOfTheNetworkWithOnlyItQuantized) {
  const Pair p = make_pair("conv1d");
  const Comparison c = debug::compare(p.before, p.after, as_samples(p.data),
                                      {.probe_samples = 24, .probe_seconds = INFINITY});
  // The last layer's weights and result, by hand.
  const Tensor given = value_of(p.before, "flat", p.data), y = value_of(p.before, "fc", p.data);
  for (const Node& node : p.after.nodes()) {
    if (node.scope != "fc") continue;
    const TensorType& type = p.after.type(node.outputs[0]);
    const Tensor changed = ops::call(
        "linear",
        {given, p.after.constant(node.inputs[1]).dequantize(), p.after.constant(node.inputs[2])});
    EXPECT_NEAR(layer_of(c, "fc").alone_sqnr,
                debug::compute_sqnr(y, quantize(changed, type.quantizer, type.dtype)), 0.01);
    EXPECT_NEAR(layer_of(c, "fc").weight_error_sqnr, debug::compute_sqnr(y, changed), 0.01);
    break;
  }
  double all = 0;
  for (const LayerComparison& l : c.layers) all += std::isnan(l.noise_share) ? 0 : l.noise_share;
  EXPECT_NEAR(all, 1, 1e-9);
  // Those that add up to all of it rank by it.
  for (size_t i = 1; i < c.ranking.size(); ++i) {
    const double before = c.layers[c.ranking[i - 1]].noise_share,
                 after = c.layers[c.ranking[i]].noise_share;
    if (!std::isnan(after)) {
      EXPECT_GE(before, after);
    }
  }
}

TEST(Compare, TheWidestChannelIsSetAgainstTheMedianOne) {
  FaultNet net = make_fault_net("plain");
  const graph::ValueId w = *net.graph.find("victim.weight"), b = *net.graph.find("victim.bias");
  Tensor weight = net.graph.constant(w).clone(), bias = net.graph.constant(b).clone();
  const int64_t row = weight.numel() / weight.size(0);
  for (int64_t i = 0; i < row; ++i) weight.data<float>()[5 * row + i] *= 50;
  bias.data<float>()[5] *= 50;
  net.graph.node(net.graph.value(w).producer).value = weight;
  net.graph.node(net.graph.value(b).producer).value = bias;
  const Tensor data = fault_samples(net);
  const auto [before, after, prepared] = quantize_fault_net(net, data);
  for (const debug::LayerComparison& l : debug::compare(before, after, as_samples(data)).layers) {
    if (l.name == "victim") {
      EXPECT_EQ(l.widest_channel, 5);
      EXPECT_GT(l.widest_ratio, 20);
      EXPECT_LT(l.widest_ratio, 125);
    } else if (l.name == "stem") {
      EXPECT_LT(l.widest_ratio, 5);
    }
  }
}

TEST(Compare, FixedScalesAreMarkedAndTheirCostIsMeasured) {
  for (const char* kind : {"glu", "transformer", "recurrent"}) {
    const FaultNet net = make_fault_net(kind);
    const Tensor data = fault_samples(net);
    const auto [before, after, prepared] = quantize_fault_net(net, data);
    int fixed = 0;
    for (const debug::LayerComparison& l : debug::compare(before, after, as_samples(data)).layers) {
      EXPECT_EQ(l.fixed_scale, l.op == "sigmoid" || l.op == "softmax" || l.op == "tanh") << l.name;
      if (!l.fixed_scale) continue;
      ++fixed;
      EXPECT_GT(l.noise_share, 0) << l.name;
    }
    EXPECT_GT(fixed, 0) << kind;
  }
}

TEST(Compare, AScaleThatIsTooSmallClips) {
  Pair p = make_pair();
  for (const Node& node : p.after.nodes())
    if (node.scope == "victim") {
      const TensorType type = p.after.type(node.outputs[0]);
      p.after.set_quantizer(node.outputs[0],
                            Quantizer::per_tensor(type.quantizer->scale() / 8,
                                                  type.quantizer->zero_point(), type.dtype));
      break;
    }
  const Comparison c = debug::compare(p.before, p.after, as_samples(p.data));
  const LayerComparison& first = c.layers[c.ranking[0]];
  EXPECT_EQ(first.name, "victim");
  EXPECT_EQ(first.fault, Fault::clipped) << first.sentence;
  EXPECT_GT(first.clipping_share, 0.9);
}

TEST(Compare, WeightOnlyAndDynamicNetworksHaveNoLayerLeftFloat) {
  const FaultNet net = make_fault_net("plain");
  const Tensor data = fault_samples(net);
  for (const Graph& after :
       {quant::quantize_dynamic_fx(net.graph), quant::quantize_weight_only_fx(net.graph)}) {
    const Comparison c = debug::compare(net.graph, after, as_samples(data));
    EXPECT_EQ(c.unmatched, 0);
    for (const LayerComparison& l : c.layers)
      EXPECT_EQ(l.fault, Fault::none) << l.name << l.sentence;
    EXPECT_GT(layer_of(c, "victim").weight_sqnr, 30);
    EXPECT_LT(layer_of(c, "victim").sqnr, 60);
  }
}

TEST(Compare, WhatDoesNotBelongTogetherIsAnError) {
  const Pair p = make_pair();
  const FaultNet other = make_fault_net("decoder");
  expect_error(ErrorCode::invalid_argument, {"input %x"},
               [&] { (void)debug::compare(p.before, other.graph, as_samples(p.data)); });
  debug::Samples none = as_samples(p.data);
  none.count = 0;
  expect_error(ErrorCode::invalid_argument, {"0 samples"},
               [&] { (void)debug::compare(p.before, p.after, none); });
}

// -- advice ---------------------------------------------------------------------------------------

Comparison advised(const Graph& before, const Graph& after, const Tensor& data) {
  Comparison c = debug::compare(before, after, as_samples(data));
  debug::advise(c, before, after, as_samples(data), {.layers = 2});
  return c;
}

class CompareAdvice : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Networks, CompareAdvice, ::testing::ValuesIn(fault_net_kinds()),
                         [](const auto& info) { return info.param; });

TEST_P(CompareAdvice, AnotherObserverMendsAScale) {
  Pair p = make_pair(GetParam());
  const Graph sound_after = p.after;
  for (const Node& node : p.after.nodes())
    if (node.scope == p.net.victim) {
      const TensorType type = p.after.type(node.outputs[0]);
      p.after.set_quantizer(node.outputs[0],
                            Quantizer::per_tensor(8 * type.quantizer->scale(),
                                                  type.quantizer->zero_point(), type.dtype));
      break;
    }
  // One of the observers mends it: the output is as good as it was.
  const double sound = debug::compare(p.before, sound_after, as_samples(p.data)).outputs[0].sqnr,
               spoilt = debug::compare(p.before, p.after, as_samples(p.data)).outputs[0].sqnr;
  const Comparison c = advised(p.before, p.after, p.data);
  const LayerComparison& first = c.layers[c.ranking[0]];
  double best = -INFINITY;
  for (const debug::Trial& t : first.trials) {
    EXPECT_NEAR(t.sqnr - t.gain, spoilt, 1e-3) << "the gain is over what there was";
    if (t.what.starts_with("observer ")) best = std::max(best, t.sqnr);
  }
  EXPECT_GT(best, sound - 1) << "spoilt: " << spoilt;
}

TEST(Compare, WeightsOfFewBitsAreNoFault) {
  const FaultNet net = make_fault_net("residual");
  const Tensor data = fault_samples(net);
  for (const int64_t most : {3, 7}) {
    const auto [before, after, prepared] = quantize_fault_net(
        net, data, "MinMaxObserver", {}, "", {}, whole_weights().with_quant_range(-most, most));
    for (const LayerComparison& l : debug::compare(before, after, as_samples(data)).layers)
      EXPECT_NE(l.fault, debug::Fault::scale_too_large) << l.name << ": " << l.sentence;
  }
}

TEST_P(CompareAdvice, ScalesPerChannelMendADepthwiseLayer) {
  const FaultNet net = make_fault_net(GetParam(), {.channels = true});
  const Tensor data = fault_samples(net);
  const auto [before, after, prepared] =
      quantize_fault_net(net, data, "MinMaxObserver", {}, net.depthwise, {}, whole_weights());
  const Comparison c = advised(before, after, data);
  const LayerComparison& first = c.layers[c.ranking[0]];
  bool tried = false;
  for (const debug::Trial& t : first.trials)
    if (t.what == "per-channel weights") {
      tried = true;
      EXPECT_GT(t.gain, 1) << "of " << first.trials[0].gain;
    }
  EXPECT_TRUE(tried);
}

TEST_P(CompareAdvice, ADeadChannelComesBackWithTheFloatWeights) {
  const Pair p = make_pair(GetParam());
  const std::string name = p.net.victim + ".weight";
  const Tensor weight = p.after.constant(*p.after.find(name));
  Tensor codes = weight.clone().int_repr();
  const int64_t row = codes.numel() / codes.size(0);
  for (int64_t i = 0; i < row; ++i) codes.data<int8_t>()[3 * row + i] = 0;
  graph::Rewriter rewriter(p.after);
  const Graph dead = rewriter.run([&](graph::Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::constant || p.after.value(node.outputs[0]).name != name)
      return false;
    r.map(node.outputs[0], r.out().add_constant(name, make_quantized(codes, weight.quantizer())));
    return true;
  });
  const double sound = debug::compare(p.before, p.after, as_samples(p.data)).outputs[0].sqnr;
  const Comparison c = advised(p.before, dead, p.data);
  const LayerComparison& first = c.layers[c.ranking[0]];
  ASSERT_FALSE(first.trials.empty());
  double mended = -INFINITY;
  for (const debug::Trial& t : first.trials)
    if (t.what == "per-channel weights") mended = t.sqnr;
  EXPECT_GT(mended, sound - 1);
}

TEST_P(CompareAdvice, UnlikeOperandsOfACatAreTriedInFloat) {
  const FaultNet net = make_fault_net(GetParam(), {.branches = true});
  const Tensor data = fault_samples(net);
  const auto [before, after, prepared] = quantize_fault_net(net, data);
  const Comparison c = advised(before, after, data);
  const LayerComparison& first = c.layers[c.ranking[0]];
  bool tried = false;
  for (const debug::Trial& t : first.trials) tried |= t.what.starts_with("leave it, its operands");
  EXPECT_TRUE(tried) << first.name;
}

TEST_P(CompareAdvice, ALayerLeftFloatIsTriedOnCodes) {
  const FaultNet net = make_fault_net(GetParam());
  const Tensor data = fault_samples(net);
  const double sound = [&] {
    const auto [before, after, prepared] = quantize_fault_net(net, data);
    return debug::compare(before, after, as_samples(data)).outputs[0].sqnr;
  }();
  const auto [before, after, prepared] =
      quantize_fault_net(net, data, "MinMaxObserver", {net.victim});
  const Comparison c = advised(before, after, data);
  const LayerComparison& first = c.layers[c.ranking[0]];
  ASSERT_EQ(first.trials.size(), 1u) << first.name;
  EXPECT_EQ(first.trials[0].what, "quantize it");
  EXPECT_GT(first.trials[0].sqnr, sound - 1.5) << "as good as quantized from the start";
  EXPECT_GT(first.trials[0].speedup, 0);
}

TEST_P(CompareAdvice, AnOutlierIsTriedWithOtherObservers) {
  const FaultNet net = make_fault_net(GetParam());
  Tensor data = fault_samples(net);
  data.data<float>()[17 * (data.numel() / data.size(0)) + 5] = 200;
  const auto [before, after, prepared] = quantize_fault_net(net, data);
  const Comparison c = advised(before, after, data);
  const LayerComparison& first = c.layers[c.ranking[0]];
  int observers = 0;
  for (const debug::Trial& t : first.trials) observers += t.what.starts_with("observer ");
  EXPECT_GE(observers, 1) << first.name;
}

}  // namespace
}  // namespace octet::testing
