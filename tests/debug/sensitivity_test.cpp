#include "octet/debug/sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/random.h"
#include "octet/debug/metrics.h"
#include "octet/graph/trace.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/temp_dir.h"

namespace octet::sensitivity_test {

namespace F = functional;
using debug::LayerSensitivity;
using debug::Sensitivity;
using debug::SensitivityMethod;
using Batches = std::vector<std::vector<Tensor>>;

struct SensitiveNet : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(8, 8, 3, {.padding = 1}));
  nn::Slot conv3 = slot("conv3", nn::Conv2d(16, 8, 3, {.padding = 1}));
  nn::Slot fc = slot("fc", nn::Linear(8 * 16, 5));
  Tensor forward(Tensor x) override {
    const Tensor a = F::relu(conv1(x)), b = F::hardswish(conv2(a) * 0.5);
    const Tensor c = F::relu(conv3(F::cat({a, b}, 1)));
    return fc(F::flatten(F::max_pool2d(c, 3), 1));
  }
};

Batches batches() {
  Batches all;
  for (uint64_t i = 0; i < 3; ++i) all.push_back({Tensor::randn({4, 3, 12, 12}, i)});
  return all;
}

// With qparams of the convolution `coarse` that leave its weight 8 codes.
std::shared_ptr<quant::ObservedGraphModule> prepared(const std::string& coarse) {
  manual_seed(3);
  auto model = nn::make<SensitiveNet>();
  model->eval();
  const graph::Graph g = graph::trace(*model, std::vector<Tensor>{batches()[0][0]})->to_graph();
  quant::QConfigMapping mapping = quant::get_default_qconfig_mapping();
  if (!coarse.empty()) {
    quant::QConfig q = quant::get_default_qconfig();
    q.weight = q.weight.with_quant_range(-4, 3);
    mapping.set_module_name(coarse, q);
  }
  auto result = quant::prepare_fx(g, mapping);
  for (const auto& batch : batches()) (*result)(batch[0]);
  return result;
}

Sensitivity measure(const quant::ObservedGraphModule& p, SensitivityMethod method) {
  return debug::sensitivity(p, batches(), {.method = method, .probes = 16});
}

const LayerSensitivity& layer(const Sensitivity& s, const std::string& name) {
  for (const LayerSensitivity& l : s.layers)
    if (l.name == name) return l;
  throw std::out_of_range(name);
}

TEST(Sensitivity, EveryMethodRanksTheLayerWithFewCodesFirst) {
  for (const char* coarse : {"conv1", "conv2", "conv3"}) {
    SCOPED_TRACE(coarse);
    const auto p = prepared(coarse);
    for (auto method :
         {SensitivityMethod::alone, SensitivityMethod::without, SensitivityMethod::estimate})
      EXPECT_EQ(measure(*p, method).layers[0].name, coarse) << to_string(method);
  }
}

// The float network's error where one convolution's weight and result are rounded to their codes,
// and that of its first layer, which alone reads the input, on a rounded input.
TEST(Sensitivity, AloneIsTheErrorOfRoundingAWeightAndAResult) {
  const auto p = prepared("");
  const Sensitivity s = measure(*p, SensitivityMethod::alone);
  const auto watched = p->watched();
  const graph::Graph& g = watched.graph;
  const auto rounded = [&](graph::ValueId v, const Tensor& x) {
    const nn::ModulePtr observer = p->submodule(watched.observer[static_cast<size_t>(v)])->clone();
    auto& as_observer = dynamic_cast<quant::Observer&>(*observer);
    if (as_observer.empty()) as_observer.observe(x);
    return quant::quantize_to(x, quant::qparams_of(*observer)).dequantize();
  };
  const runtime::Program all_float = runtime::compile(g);
  for (const std::string name : {"conv2", "x"}) {
    debug::ErrorStatistics error;
    for (const auto& batch : batches()) {
      // Call by call.
      std::vector<Tensor> values(g.values().size());
      for (const graph::Node& node : g.nodes()) {
        std::vector<Tensor> operands;
        for (graph::ValueId v : node.inputs) operands.push_back(values[static_cast<size_t>(v)]);
        if (node.scope == name) operands[1] = rounded(node.inputs[1], operands[1]);
        std::vector<Tensor> results;
        if (node.kind == graph::NodeKind::input)
          results = batch;
        else if (node.kind == graph::NodeKind::constant)
          results = {node.value};
        else
          results = ops::call_all(node.op, operands, node.attrs);
        const graph::ValueId made = node.outputs[0];
        if (node.scope == name || (node.kind == graph::NodeKind::input && name == "x"))
          results[0] = rounded(made, results[0]);
        for (size_t i = 0; i < results.size(); ++i)
          values[static_cast<size_t>(node.outputs[i])] = results[i];
      }
      error.add(all_float.run(batch)[0], values[static_cast<size_t>(g.outputs()[0])]);
    }
    EXPECT_NEAR(layer(s, name).sqnr, error.sqnr(), 0.01) << name;
  }
  EXPECT_EQ(layer(s, "x").op, "input");
}

TEST(Sensitivity, BatchesMayDifferInSize) {
  const auto p = prepared("conv2");
  const Tensor x = Tensor::randn({11, 3, 12, 12}, 5);
  const auto measured = [&](const std::vector<int64_t>& sizes) {
    Batches all;
    int64_t at = 0;
    for (int64_t size : sizes) {
      all.push_back({x.slice(0, at, at + size).contiguous()});
      at += size;
    }
    return debug::sensitivity(*p, all);
  };
  const Sensitivity one = measured({11}), several = measured({4, 3, 4});
  ASSERT_EQ(one.layers.size(), several.layers.size());
  for (const LayerSensitivity& l : one.layers) {
    EXPECT_NEAR(layer(several, l.name).sqnr, l.sqnr, 1e-6) << l.name;
    EXPECT_EQ(layer(several, l.name).fault, l.fault) << l.name;
    EXPECT_EQ(layer(several, l.name).sentence, l.sentence) << l.name;
  }
}

TEST(Sensitivity, SharesOfTheTimeAddUpToLessThanAll) {
  const auto p = prepared("");
  double sum = 0;
  for (const LayerSensitivity& l : measure(*p, SensitivityMethod::estimate).layers) {
    EXPECT_GE(l.time_share, 0);
    EXPECT_EQ(l.time_share > 0, l.op != "input") << l.name;
    sum += l.time_share;
  }
  EXPECT_LE(sum, 1 + 1e-9);
}

// A skipped layer is listed with its reason; its rounded result is its noise, and what leaving it
// float gains is nothing.
TEST(Sensitivity, WhatStaysFloatIsListed) {
  manual_seed(3);
  auto model = nn::make<SensitiveNet>();
  model->eval();
  const graph::Graph g = graph::trace(*model, std::vector<Tensor>{batches()[0][0]})->to_graph();
  auto p = quant::prepare_fx(g, quant::get_default_qconfig_mapping(), {.skip = {"conv1"}});
  for (const auto& batch : batches()) (*p)(batch[0]);
  for (auto method :
       {SensitivityMethod::alone, SensitivityMethod::without, SensitivityMethod::estimate}) {
    const Sensitivity s = measure(*p, method);
    const LayerSensitivity& l = layer(s, "conv1");
    EXPECT_TRUE(l.left_float);
    EXPECT_NE(l.reason.find("skipped"), std::string::npos) << l.reason;
    EXPECT_EQ(l.weight_bytes, 4 * (8 * 3 * 9 + 8));
    EXPECT_GT(l.time_share, 0);
    if (method == SensitivityMethod::without)
      EXPECT_EQ(l.share, 0);
    else
      EXPECT_GT(l.share, 0);
    for (const LayerSensitivity& other : s.layers)
      EXPECT_NE(other.op, "input") << "it reads floats";
  }
}

// The noise of the layers alone is small, so that the network is nearly linear in it.
TEST(Sensitivity, TheEstimateIsNearWhatEachLayerAloneDoes) {
  const auto p = prepared("");
  const Sensitivity measured = measure(*p, SensitivityMethod::alone),
                    estimated = measure(*p, SensitivityMethod::estimate);
  ASSERT_EQ(measured.layers.size(), estimated.layers.size());
  for (const LayerSensitivity& l : measured.layers)
    EXPECT_NEAR(layer(estimated, l.name).sqnr, l.sqnr, 3) << l.name;
}

TEST(Sensitivity, WithoutSaysWhatLeavingALayerFloatGains) {
  const auto p = prepared("conv3");
  const Sensitivity s = measure(*p, SensitivityMethod::without);
  EXPECT_NEAR(s.layers[0].sqnr, s.all_sqnr + s.layers[0].share, 1e-9);
  EXPECT_GT(s.layers[0].share, 3);
  const runtime::Program program = runtime::compile(debug::leaving_float(*p, {"conv3"})),
                         all_float = runtime::compile(p->watched().graph);
  debug::ErrorStatistics error;
  for (const auto& batch : batches()) error.add(all_float.run(batch)[0], program.run(batch)[0]);
  EXPECT_NEAR(s.layers[0].sqnr, error.sqnr(), 1e-9);
}

TEST(Sensitivity, LeavingNothingFloatGivesTheGraphThatConvertGives) {
  const auto p = prepared("");
  const Tensor x = batches()[0][0];
  EXPECT_TRUE(equal(runtime::compile(debug::leaving_float(*p, {})).run({x})[0],
                    runtime::compile(quant::convert_fx(p)->graph()).run({x})[0]));
}

TEST(Sensitivity, FunctionsThatJoinAreOneLayer) {
  const auto p = prepared("");
  for (const LayerSensitivity& l : measure(*p, SensitivityMethod::alone).layers)
    EXPECT_NE(l.op, "mul") << l.name;
}

TEST(Sensitivity, GoesOnFromWhatIsOnDisk) {
  testing::TempDir dir;
  const auto p = prepared("conv2");
  size_t calls = 0;
  debug::SensitivityOptions options{.state = dir / "state.json"};
  options.progress = [&](size_t, size_t) {
    if (++calls == 2) fail(ErrorCode::internal, "cut off");
  };
  EXPECT_THROW(debug::sensitivity(*p, batches(), options), Error);
  options.progress = nullptr;
  const Sensitivity resumed = debug::sensitivity(*p, batches(), options),
                    at_once = debug::sensitivity(*p, batches());
  ASSERT_EQ(resumed.layers.size(), at_once.layers.size());
  for (size_t i = 0; i < at_once.layers.size(); ++i) {
    EXPECT_EQ(resumed.layers[i].name, at_once.layers[i].name);
    EXPECT_EQ(resumed.layers[i].sqnr, at_once.layers[i].sqnr);
  }
  options.method = SensitivityMethod::without;
  testing::expect_error(ErrorCode::invalid_argument,
                        {"state.json", "another network, calibration or method"},
                        [&] { debug::sensitivity(*p, batches(), options); });
}

TEST(Sensitivity, ErrorsSayWhatIsMissing) {
  const auto p = prepared("");
  testing::expect_error(ErrorCode::invalid_argument, {"no samples"},
                        [&] { debug::sensitivity(*p, {}); });
  testing::expect_error(ErrorCode::not_found, {"conv9"},
                        [&] { debug::leaving_float(*p, {"conv9"}); });
}

}  // namespace octet::sensitivity_test
