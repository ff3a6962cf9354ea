// Whole models through eager mode against PyTorch 1.13's: tests/golden/eager_*.json, made by scripts/oracle/eager.py.
#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/quant/modules/weighted.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "tests/quant/golden_models.h"

namespace octet::testing {
namespace {

using quant::ObserverFactory;
using quant::ObserverScheme;
using quant::QConfig;

// qconfig() of scripts/oracle/eager.py.
QConfig qconfig_named(const std::string& name) {
  const ObserverFactory full("MinMaxObserver"), weight = quant::default_weight_observer(),
                        channel = quant::default_per_channel_weight_observer();
  if (name == "minmax") return {full, weight};
  if (name == "minmax_per_channel") return {full, channel};
  if (name == "moving_average") return {ObserverFactory("MovingAverageMinMaxObserver").with_averaging_constant(0.25), weight};
  return quant::get_default_qconfig(name);
}

Tensor batch(const json& c, int index) {
  return models::make_tensor(c["exact"] ? "steps" : "normal", c["seed"].get<uint64_t>() + 7000 + static_cast<uint64_t>(index),
                             c["shape"].get<Shape>(), 1, 0);
}

// The case's model, fused.
nn::ModulePtr float_model(const json& c) {
  nn::ModulePtr model = models::make_model(c["model"]);
  models::fill(*model, c["parameters"]);
  model->eval();
  auto fuse = c["fuse"].get<quant::FuseList>();
  if (!fuse.empty()) model = quant::fuse_modules(model, fuse);
  model->qconfig = qconfig_named(c["qconfig"]);
  if (c["model"] == "Mixed") model->submodule("conv2")->qconfig = nullptr;
  return model;
}

nn::ModulePtr converted(const json& c) {
  nn::ModulePtr prepared = quant::prepare(float_model(c));
  for (int b = 0; b < c["batches"].get<int>(); ++b) prepared->forward(batch(c, b));
  return quant::convert(prepared);
}

// Weights bit for bit; scales and zero points so too, or (where calibration sums floats in another order) up to the
// rounding of float32. Then PyTorch's qparams are put in.
void expect_qparams(const json& c, nn::Module& int8) {
  auto state = int8.state_dict();
  for (const auto& [path, m] : c["modules"].items()) {
    const double scale = m["scale"];
    ASSERT_TRUE(state.count(path + ".scale")) << path << " is a " << int8.submodule(path)->type_name();
    EXPECT_NEAR(state.at(path + ".scale").item(), scale, c["exact"] ? 0 : 2e-6 * scale) << path;
    EXPECT_EQ(state.at(path + ".zero_point").item(), m["zero_point"].get<double>()) << path;
    state[path + ".scale"] = Tensor::scalar(scale, DType::float64);
    if (!m.contains("weight")) continue;
    const Tensor& w = int8.submodule(path)->as<nn::quantized::WeightedModule>().weight();
    expect_codes(w, m["weight"], 0, path + ".weight");
    EXPECT_EQ(w.quantizer()->scales(), m["weight_scales"].get<std::vector<double>>()) << path;
  }
  int8.load_state_dict(state);
}

// Every module's codes, and the model's output. steps > 0: each module is then given PyTorch's inputs, so that steps do not
// add up.
void expect_outputs(const json& c, nn::Module& int8) {
  const int steps = c["steps"];
  for (const auto& item : c["modules"].items()) {
    const std::string path = item.key();
    const json& m = item.value();
    if (!m.contains("codes")) continue;
    int8.submodule(path)->add_forward_hook("golden", [&m, path, steps](nn::Module&, const auto&, std::vector<Tensor>& outputs) {
      Tensor& y = outputs.at(0);
      if (m["codes"].get<std::string>().size() == 16) {
        EXPECT_EQ(models::hash_of_codes(y), m["codes"]) << path;
        return;
      }
      expect_codes(y, m["codes"], steps, path);
      y = make_quantized(Tensor::from(from_base64(m["codes"]), y.shape()), y.quantizer());
    });
  }
  Tensor y = int8.forward(batch(c, -1)).detach(), expected = floats_from_base64(c["y"], y.shape());
  EXPECT_TRUE(steps > 0 || equal(y, expected)) << octet::to_string(y) << octet::to_string(expected);
}

void expect_models(const std::string& file, size_t count) {
  autograd::NoGrad no_grad;
  json cases = load_golden(file);
  ASSERT_EQ(cases.size(), count);
  for (const json& c : cases) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["qconfig"].get<std::string>() + " seed " + c["seed"].dump());
    nn::ModulePtr int8 = converted(c);
    expect_qparams(c, *int8);
    expect_outputs(c, *int8);
  }
}

TEST(GoldenEager, StaticModelsAreQnnpacksBitForBit) { expect_models("eager_qnnpack.json", 121); }
TEST(GoldenEager, StaticModelsAreWithinAStepOfOnednn) { expect_models("eager_onednn.json", 40); }

// Their histogram observer is another one (docs/numerics.md), and so are the qparams. On these small models chance decides
// which rounds better: over all of them (geometric mean) octet's squared error is no larger than PyTorch's, in none by half.
TEST(GoldenEager, NamedQconfigsAreAsAccurateAsPyTorchs) {
  autograd::NoGrad no_grad;
  json cases = load_golden("eager_named.json");
  ASSERT_EQ(cases.size(), 24u);
  double all = 1;
  for (const json& c : cases) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["qconfig"].get<std::string>());
    nn::ModulePtr model = float_model(c), int8 = converted(c);
    double sum = 0, n = 0;
    for (int b = 0; b < c["batches"].get<int>(); ++b) {
      std::vector<float> y = int8->forward(batch(c, b)).detach().to_vector<float>();
      std::vector<float> expected = model->forward(batch(c, b)).detach().to_vector<float>();
      for (size_t i = 0; i < y.size(); ++i) sum += std::pow(static_cast<double>(y[i]) - expected[i], 2);
      n += static_cast<double>(y.size());
    }
    const double ratio = sum / n / c["error"].get<double>();
    EXPECT_LE(ratio, 1.5);
    all *= std::pow(ratio, 1.0 / static_cast<double>(cases.size()));
  }
  EXPECT_LE(all, 1);
}

TEST(GoldenEager, DynamicModelsAreQnnpacksBitForBit) {
  autograd::NoGrad no_grad;
  json cases = load_golden("eager_dynamic.json");
  ASSERT_EQ(cases.size(), 36u);
  for (const json& c : cases) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["qconfig"].get<std::string>() + " seed " + c["seed"].dump());
    nn::ModulePtr model = models::make_model(c["model"]);
    models::fill(*model, c["parameters"]);
    model->eval();
    quant::QConfigSpec spec;
    spec.set_type<nn::Linear>(quant::get_default_qconfig(c["qconfig"].get<std::string>()));
    nn::ModulePtr int8 = quant::quantize_dynamic(model, spec);
    for (const auto& [path, codes] : c["weights"].items())
      expect_codes(int8->submodule(path)->as<nn::quantized::WeightedModule>().weight(), codes, 0, path);
    Tensor y = int8->forward(batch(c, -1)).detach();
    EXPECT_TRUE(equal(y, floats_from_base64(c["y"], y.shape())));
  }
}

}  // namespace
}  // namespace octet::testing
