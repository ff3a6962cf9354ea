// Whole models through eager mode against PyTorch 1.13's: tests/golden/eager_*.json, made by
// scripts/oracle/eager.py.
#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/quant/modules/weighted.h"
#include "octet/quant/workflow/eager.h"
#include "tests/quant/eager_golden.h"

namespace octet::testing {
namespace {

void expect_models(const std::string& file, size_t count) {
  autograd::NoGrad no_grad;
  json cases = load_golden(file);
  ASSERT_EQ(cases.size(), count);
  for (const json& c : cases) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["qconfig"].get<std::string>() + " seed " +
                 c["seed"].dump());
    nn::ModulePtr int8 = converted(c);
    models::expect_qparams(c, *int8);
    models::expect_outputs(c, *int8);
  }
}

TEST(GoldenEager, StaticModelsAreQnnpacksBitForBit) { expect_models("eager_qnnpack.json", 121); }
TEST(GoldenEager, StaticModelsAreWithinAStepOfOnednn) { expect_models("eager_onednn.json", 40); }

// Their histogram observer is another one (docs/numerics.md), and so are the qparams. On these
// small models chance decides which rounds better: over all of them (geometric mean) octet's
// squared error is no larger than PyTorch's, in none by half.
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
      std::vector<float> y = int8->forward(models::batch(c, b)).detach().to_vector<float>();
      std::vector<float> expected = model->forward(models::batch(c, b)).detach().to_vector<float>();
      for (size_t i = 0; i < y.size(); ++i)
        sum += std::pow(static_cast<double>(y[i]) - expected[i], 2);
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
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["qconfig"].get<std::string>() + " seed " +
                 c["seed"].dump());
    nn::ModulePtr model = models::make_model(c["model"]);
    models::fill(*model, c["parameters"]);
    model->eval();
    quant::QConfigSpec spec;
    spec.set_type<nn::Linear>(quant::get_default_qconfig(c["qconfig"].get<std::string>()));
    nn::ModulePtr int8 = quant::quantize_dynamic(model, spec);
    for (const auto& [path, codes] : c["weights"].items())
      expect_codes(int8->submodule(path)->as<nn::quantized::WeightedModule>().weight(), codes, 0,
                   path);
    Tensor y = int8->forward(models::batch(c, -1)).detach();
    EXPECT_TRUE(equal(y, floats_from_base64(c["y"], y.shape())));
  }
}

}  // namespace
}  // namespace octet::testing
