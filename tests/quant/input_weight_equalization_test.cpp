// Input-weight equalization in graph mode: against PyTorch
// (tests/golden/input_weight_equalization.json, made by
// scripts/oracle/input_weight_equalization.py), and what octet does where PyTorch cannot.
#include "octet/quant/algorithms/input_weight_equalization.h"

#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/debug/model_report.h"
#include "octet/io/module_file.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/runtime/program.h"
#include "tests/debug/model_report_models.h"
#include "tests/expect_error.h"
#include "tests/sqnr.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

namespace F = functional;
using quant::convert_equalization_fx;
using quant::convert_fx;
using quant::default_equalization_qconfig;
using quant::ObservedGraphModule;
using quant::prepare_equalization_fx;
using quant::QConfigMapping;
using Prepared = std::shared_ptr<ObservedGraphModule>;

struct Functional : nn::Module {
  nn::Parameter w1 = parameter("w1", Tensor::zeros({6, 8}));
  nn::Parameter b1 = parameter("b1", Tensor::zeros({6}));
  nn::Parameter w2 = parameter("w2", Tensor::zeros({3, 6}));
  nn::Parameter b2 = parameter("b2", Tensor::zeros({3}));
  Tensor forward(Tensor x) override { return F::linear(F::relu(F::linear(x, w1, b1)), w2, b2); }
};

// One scale per weight, which makes unlike channels hard.
quant::QConfig per_tensor() {
  return {quant::ObserverFactory("MinMaxObserver"), quant::default_weight_observer()};
}

Prepared calibrated(const nn::ModulePtr& model, const std::vector<Tensor>& batches,
                    const QConfigMapping& which = QConfigMapping(default_equalization_qconfig()),
                    const QConfigMapping& mapping = QConfigMapping(per_tensor())) {
  model->eval();
  auto prepared = prepare_equalization_fx(quant::prepare_fx(model, mapping, {batches[0]}), which);
  for (const Tensor& x : batches) (*prepared)(x);
  return prepared;
}

void expect_floats(const Tensor& got, const std::string& packed) {
  EXPECT_TRUE(allclose(got.detach(), floats_from_base64(packed, got.shape()), 1e-6, 1e-9))
      << to_string(got);
}

nn::Module& layer_of(ObservedGraphModule& model, const std::string& path) {
  nn::Module* module = model.submodule(path).get();
  auto* fused = dynamic_cast<nn::intrinsic::FusedModule*>(module);
  return fused ? (*fused)[0] : *module;
}
std::string calls(const graph::Graph& g) {
  std::string text;
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call || node.kind == graph::NodeKind::module)
      text += (text.empty() ? "" : " ") + node.op;
  return text;
}

TEST(GoldenInputWeightEqualization, ScalesAndWeightsArePyTorchs) {
  json cases = load_golden("input_weight_equalization.json");
  ASSERT_EQ(cases.size(), 13u);
  for (const json& c : cases) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const bool functional = c.contains("functional");
    nn::ModulePtr model =
        functional ? nn::ModulePtr(nn::make<Functional>()) : build_model(c["layers"]);
    set_parameters(*model, c["seed"]);
    const auto batches = golden_batches(c);
    auto prepared = calibrated(model, batches);
    quant::EqualizationReport report;
    auto equalized = convert_equalization_fx(prepared, &report);
    ASSERT_EQ(report.entries.size(), c["layers_after"].size());
    for (size_t i = 0; i < report.entries.size(); ++i) {
      const json& l = c["layers_after"][i];
      const auto& entry = report.entries[i];
      SCOPED_TRACE(entry.path);
      if (!functional) {
        EXPECT_EQ(entry.path, l["path"].get<std::string>());
      }
      expect_floats(Tensor::from(entry.scale, {static_cast<int64_t>(entry.scale.size())}),
                    l["scale"]);
      EXPECT_EQ(entry.absorbed_by.empty(), l["mul"].get<bool>());
      nn::Module& owner = functional ? *equalized : layer_of(*equalized, entry.path);
      const std::string k = functional ? std::to_string(i + 1) : "";
      expect_floats(owner.tensor(functional ? "w" + k : "weight"), l["weight"]);
      if (l.contains("bias")) expect_floats(owner.tensor(functional ? "b" + k : "bias"), l["bias"]);
      if (!l.contains("range")) continue;
      const graph::Graph& g = equalized->graph();
      auto call = std::find_if(g.nodes().begin(), g.nodes().end(), [&](const graph::Node& node) {
        return functional ? !node.outputs.empty() && g.value(node.outputs[0]).name == entry.path
                          : node.kind == graph::NodeKind::module && node.scope == entry.path;
      });
      auto& observer =
          equalized->submodule(g.producer(call->inputs[0]).scope)->as<quant::Observer>();
      EXPECT_NEAR(observer.min_val().item(), l["range"][0].get<double>(), 1e-5);
      EXPECT_NEAR(observer.max_val().item(), l["range"][1].get<double>(), 1e-5);
    }
  }
}

std::vector<Tensor> unlike(int64_t channels, Shape shape, int64_t axis, float factor = 100) {
  std::vector<float> f;
  for (int64_t c = 0; c < channels; ++c) f.push_back(c % 2 ? factor : 1.0f);
  Shape of(shape.size(), 1);
  of[static_cast<size_t>(axis)] = channels;
  std::vector<Tensor> batches;
  for (uint64_t s = 1; s < 4; ++s) batches.push_back(Tensor::randn(shape, s) * Tensor::from(f, of));
  return batches;
}

struct ResidualLinears : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(4, 8, 3, {.padding = 1}));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv2d(8, 8, 3, {.padding = 1, .groups = 4}));
  nn::Slot conv3 = slot("conv3", nn::Conv2d(8, 8, 1));
  nn::Slot pool = slot("pool", nn::MaxPool2d(2));
  nn::Slot conv4 = slot("conv4", nn::Conv2d(8, 3, 1));
  Tensor forward(Tensor x) override {
    x = relu(conv1(x));
    return conv4(pool(conv3(x) + conv2(x)));
  }
};
OCTET_MODULE(ResidualLinears)

struct Tokens : nn::Module {
  nn::Slot up = slot("up", nn::Linear(6, 12));
  nn::Slot down = slot("down", nn::Linear(12, 6));
  Tensor forward(Tensor x) override { return down(F::gelu(up(x))); }
};

TEST(InputWeightEqualization, TheFloatModelComputesWhatItDid) {
  autograd::NoGrad no_grad;
  struct Case {
    nn::ModulePtr model;
    std::vector<Tensor> batches;
  };
  for (const Case& c : {Case{nn::make<ResidualLinears>(), unlike(4, {2, 4, 6, 6}, 1)},
                        Case{nn::make<Tokens>(), unlike(6, {2, 5, 6}, 2)},
                        Case{nn::make<Functional>(), unlike(8, {7, 8}, 1)}}) {
    set_parameters(*c.model, 3);
    auto prepared = calibrated(c.model, c.batches);
    Tensor before = (*c.model)(c.batches[0]);
    auto state = prepared->state_dict();
    auto equalized = convert_equalization_fx(prepared);
    EXPECT_GT(sqnr(before, (*equalized)(c.batches[0])), 110) << calls(equalized->graph());
    EXPECT_TRUE(equal((*prepared)(c.batches[0]), before)) << "the prepared model was changed";
    equalized->graph().check();
  }
}

TEST(InputWeightEqualization, HelpsWhereChannelsOfTheInputAreUnlike) {
  autograd::NoGrad no_grad;
  auto model = nn::make<nn::Sequential>();
  model->append(nn::Linear(16, 32)).append(nn::ReLU()).append(nn::Linear(32, 8));
  set_parameters(*model, 3);
  // Small inputs count as much as large ones.
  Tensor& w = model->submodule("0")->tensor("weight");
  for (int64_t i = 0; i < w.numel(); ++i)
    if (i % 2) w.data<float>()[i] /= 100;
  const auto batches = unlike(16, {64, 16}, 1);
  auto prepared = calibrated(model, batches);
  Tensor expected = (*model)(batches[0]);
  const double before = sqnr(expected, (*convert_fx(prepared))(batches[0])),
               after = sqnr(expected, (*convert_fx(convert_equalization_fx(prepared)))(batches[0]));
  EXPECT_GT(after, before + 15) << before << " dB before";
  EXPECT_GT(after, 30);
}

TEST(InputWeightEqualization, TheLayerBeforeTakesTheScaleEvenIfItIsNotEqualized) {
  auto model = build_model(json::parse(R"([["Linear", 8, 6], ["ReLU"], ["Linear", 6, 3]])"));
  set_parameters(*model, 5);
  const auto batches = unlike(8, {16, 8}, 1);
  quant::EqualizationReport report;
  auto equalized = convert_equalization_fx(
      calibrated(model, batches,
                 QConfigMapping().set_module_name("2", default_equalization_qconfig())),
      &report);
  ASSERT_EQ(report.entries.size(), 1u);
  EXPECT_EQ(report.entries[0].absorbed_by, "0");
  EXPECT_EQ(calls(equalized->graph()).find("mul"), std::string::npos);
  EXPECT_GT(sqnr((*model)(batches[0]), (*equalized)(batches[0])), 110);
}

// The equalized model sees the data again: its observers must have known the ranges.
TEST(InputWeightEqualization, ObserversKnowTheScaledRanges) {
  auto model = build_model(
      json::parse(R"([["Linear", 8, 6], ["Linear", 6, 5], ["ReLU"], ["Linear", 5, 3]])"));
  set_parameters(*model, 5);
  const auto batches = unlike(8, {16, 8}, 1);
  auto equalized = convert_equalization_fx(calibrated(model, batches));
  auto ranges = [&] {
    std::map<std::string, std::pair<double, double>> result;
    for (auto& [path, module] : equalized->named_modules())
      if (auto* o = dynamic_cast<quant::Observer*>(module))
        result[path] = {o->min_val().item(), o->max_val().item()};
    return result;
  };
  auto before = ranges();
  ASSERT_EQ(before.size(), 4u);
  for (auto& [path, module] : equalized->named_modules())
    if (auto* o = dynamic_cast<quant::Observer*>(module)) o->reset();
  for (const Tensor& x : batches) (*equalized)(x);
  for (const auto& [path, range] : ranges()) {
    EXPECT_NEAR(range.first, before.at(path).first, 1e-4 * std::abs(range.first)) << path;
    EXPECT_NEAR(range.second, before.at(path).second, 1e-4 * std::abs(range.second)) << path;
  }
}

TEST(InputWeightEqualization, ValuesWithOtherUsersKeepTheirObserver) {
  auto model = nn::make<ResidualLinears>();
  set_parameters(*model, 3);
  const auto batches = unlike(4, {2, 4, 6, 6}, 1);
  quant::EqualizationReport report;
  auto equalized = convert_equalization_fx(
      calibrated(model, batches,
                 QConfigMapping().set_module_name("conv2", default_equalization_qconfig())),
      &report);
  EXPECT_EQ(report.entries.at(0).absorbed_by, "") << "conv3 uses conv1's result, too";
  EXPECT_NE(calls(equalized->graph()).find("ConvReLU2d MinMaxObserver"), std::string::npos)
      << calls(equalized->graph());
  auto int8 = convert_fx(equalized);
  EXPECT_GT(sqnr((*model)(batches[0]), (*int8)(batches[0])), 15);
}

// A user's Linear computes what it likes: nothing is multiplied into its weights.
struct Shifted : nn::Linear {
  using nn::Linear::Linear;
  Tensor forward(Tensor x) override { return nn::Linear::forward(x) + 1.0; }
};
struct AroundShifted : nn::Module {
  nn::Slot shifted = slot("shifted", nn::make<Shifted>(6, 6));
  nn::Slot fc = slot("fc", nn::Linear(6, 3));
  Tensor forward(Tensor x) override { return fc(shifted(x)); }
};

TEST(InputWeightEqualization, UsersLayersDoNotTakeTheScale) {
  autograd::NoGrad no_grad;
  auto model = nn::make<AroundShifted>();
  set_parameters(*model, 3);
  model->eval();
  const auto batches = unlike(6, {16, 6}, 1);
  quant::PrepareCustomConfig custom;
  custom.set_non_traceable_module_classes<Shifted>();
  auto prepared = prepare_equalization_fx(
      quant::prepare_fx(model, QConfigMapping(per_tensor()), {batches[0]}, custom),
      QConfigMapping().set_object_type<nn::Linear>(default_equalization_qconfig()));
  for (const Tensor& x : batches) (*prepared)(x);
  quant::EqualizationReport report;
  auto equalized = convert_equalization_fx(prepared, &report);
  ASSERT_EQ(report.entries.size(), 1u);
  EXPECT_EQ(report.entries[0].path, "fc");
  EXPECT_EQ(report.entries[0].absorbed_by, "");
  EXPECT_GT(sqnr((*model)(batches[0]), (*equalized)(batches[0])), 110);
}

TEST(InputWeightEqualization, DynamicLayersAreEqualizedToo) {
  autograd::NoGrad no_grad;
  auto model = nn::make<Tokens>();
  set_parameters(*model, 3);
  const auto batches = unlike(6, {2, 5, 6}, 2);
  auto prepared = calibrated(model, batches, QConfigMapping(default_equalization_qconfig()),
                             QConfigMapping(quant::default_dynamic_qconfig()));
  auto int8 = convert_fx(convert_equalization_fx(prepared));
  EXPECT_NE(print(int8->graph()).find("mul"), std::string::npos);
  EXPECT_GT(sqnr((*model)(batches[0]), (*int8)(batches[0])), 20);
}

struct FunctionalConv : nn::Module {
  nn::Parameter w1 = parameter("w1", Tensor::zeros({8, 4, 3, 3}));
  nn::Parameter b1 = parameter("b1", Tensor::zeros({8}));
  nn::Parameter w2 = parameter("w2", Tensor::zeros({6, 4, 1, 1}));
  Tensor forward(Tensor x) override {
    return F::conv2d(F::relu(F::conv2d(x, w1, b1, 1, 1)), w2, {}, 1, 0, 1, 2);
  }
};

TEST(InputWeightEqualization, OperatorsOnParametersAreEqualizedWithTheirGroups) {
  autograd::NoGrad no_grad;
  auto model = nn::make<FunctionalConv>();
  set_parameters(*model, 3);
  const auto batches = unlike(4, {2, 4, 6, 6}, 1);
  quant::EqualizationReport report;
  auto equalized = convert_equalization_fx(calibrated(model, batches), &report);
  ASSERT_EQ(report.entries.size(), 2u);
  EXPECT_EQ(report.entries[1].absorbed_by, report.entries[0].path);
  EXPECT_GT(sqnr((*model)(batches[0]), (*equalized)(batches[0])), 110);
  EXPECT_GT(sqnr((*model)(batches[0]), (*convert_fx(equalized))(batches[0])), 25);
}

TEST(InputWeightEqualization, TheQuantizedModelCompiles) {
  autograd::NoGrad no_grad;
  auto model = nn::make<ResidualLinears>();
  set_parameters(*model, 3);
  const auto batches = unlike(4, {2, 4, 6, 6}, 1);
  auto int8 = convert_fx(convert_equalization_fx(
      calibrated(model, batches, QConfigMapping(default_equalization_qconfig()),
                 quant::get_default_qconfig_mapping())));
  runtime::Program program = runtime::compile(int8->to_graph());
  EXPECT_TRUE(equal(program.run({batches[0]})[0], (*int8)(batches[0])));
  EXPECT_GT(sqnr((*model)(batches[0]), (*int8)(batches[0])), 25);
}

TEST(InputWeightEqualization, GoesTogetherWithAModelReport) {
  auto model = nn::make<ResidualLinears>();
  set_parameters(*model, 3);
  model->eval();
  const auto batches = unlike(4, {2, 4, 6, 6}, 1);
  quant::ModelReport report(quant::prepare_fx(model, QConfigMapping(per_tensor()), {batches[0]}),
                            {std::make_shared<quant::OutlierDetector>(),
                             std::make_shared<quant::DynamicStaticDetector>()});
  auto both = prepare_equalization_fx(report.prepare_detailed_calibration(),
                                      QConfigMapping(default_equalization_qconfig()));
  for (const Tensor& x : batches) (*both)(x);
  auto expected = convert_fx(convert_equalization_fx(calibrated(model, batches)));
  EXPECT_TRUE(
      equal((*convert_fx(convert_equalization_fx(both)))(batches[0]), (*expected)(batches[0])));
}

TEST(InputWeightEqualization, WithoutConvertingItTheModelIsQuantizedAsBefore) {
  auto model = nn::make<ResidualLinears>();
  set_parameters(*model, 3);
  model->eval();
  const auto batches = unlike(4, {2, 4, 6, 6}, 1);
  auto plain = quant::prepare_fx(model, QConfigMapping(per_tensor()), {batches[0]});
  for (const Tensor& x : batches) (*plain)(x);
  EXPECT_EQ(print(convert_fx(calibrated(model, batches))->graph()),
            print(convert_fx(plain)->graph()));
}

TEST(InputWeightEqualization, APreparedModelCanBeSavedInBetween) {
  TempDir dir;
  auto model = nn::make<ResidualLinears>();
  set_parameters(*model, 3);
  const auto batches = unlike(4, {2, 4, 6, 6}, 1);
  auto prepared = calibrated(model, batches);
  save_model(dir / "prepared.octet", *prepared);
  auto loaded = std::dynamic_pointer_cast<ObservedGraphModule>(load_model(dir / "prepared.octet"));
  ASSERT_TRUE(loaded);
  Tensor expected = (*convert_fx(convert_equalization_fx(prepared)))(batches[0]);
  EXPECT_TRUE(equal((*convert_fx(convert_equalization_fx(loaded)))(batches[0]), expected));
  auto equalized = convert_equalization_fx(prepared);
  save_model(dir / "equalized.octet", *equalized);
  EXPECT_TRUE(equal((*load_model(dir / "equalized.octet"))(batches[0]), (*equalized)(batches[0])));
}

struct Twice : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(4, 4));
  Tensor forward(Tensor x) override { return fc(fc(x)); }
};

TEST(InputWeightEqualization, WhatCannotBeEqualizedIsAnErrorThatSaysWhy) {
  const auto bad = ErrorCode::invalid_argument;
  const QConfigMapping all(default_equalization_qconfig());
  auto prepare = [](nn::ModulePtr model, Shape shape,
                    const QConfigMapping& mapping = QConfigMapping(per_tensor())) {
    model->eval();
    return quant::prepare_fx(model, mapping, {Tensor::randn(shape, 1)});
  };
  expect_error(bad, {"fc: it is called in several places"}, [&] {
    prepare_equalization_fx(prepare(nn::make<Twice>(), {2, 4}), all);
  });
  auto net = prepare(nn::make<Tokens>(), {2, 5, 6});
  expect_error(bad, {"nothing to equalize", "the mapping names nothing"},
               [&] { prepare_equalization_fx(net, QConfigMapping()); });
  expect_error(ErrorCode::not_found, {"upp", "up"}, [&] {
    prepare_equalization_fx(
        net, QConfigMapping().set_module_name("upp", default_equalization_qconfig()));
  });
  auto float_up = QConfigMapping(per_tensor()).set_module_name("up", std::nullopt);
  expect_error(bad, {"up: it stays float"}, [&] {
    prepare_equalization_fx(prepare(nn::make<Tokens>(), {2, 5, 6}, float_up),
                            QConfigMapping().set_module_name("up", default_equalization_qconfig()));
  });
  auto watched = prepare_equalization_fx(net, all);
  expect_error(bad, {"observers already"}, [&] { prepare_equalization_fx(watched, all); });
  expect_error(ErrorCode::not_calibrated, {"'up'", "calibration data"},
               [&] { convert_equalization_fx(watched); });
  expect_error(bad, {"prepare_equalization_fx before calibration"},
               [&] { convert_equalization_fx(net); });
  auto qat = nn::make<Tokens>();
  auto prepared_qat = quant::prepare_qat_fx(qat, quant::get_default_qat_qconfig_mapping(),
                                            {Tensor::randn({2, 5, 6}, 1)});
  expect_error(bad, {"being trained"}, [&] { prepare_equalization_fx(prepared_qat, all); });
}

}  // namespace
}  // namespace octet::testing
