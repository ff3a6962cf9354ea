// Quantization-aware training against PyTorch 1.13's: tests/golden/qat.json, made by
// scripts/oracle/qat.py.
#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/nn/loss.h"
#include "octet/nn/optim.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "tests/quant/golden_models.h"

namespace octet::testing {
namespace {

nn::ModulePtr prepared(const json& c) {
  nn::ModulePtr model = models::make_model(c["model"]);
  models::fill(*model, c["parameters"]);
  auto fuse = c["fuse"].get<quant::FuseList>();
  if (!fuse.empty()) model = quant::fuse_modules_qat(model, fuse);
  model->qconfig =
      quant::get_default_qat_qconfig(c["backend"].get<std::string>(), c["version"].get<int>());
  return quant::prepare_qat(model);
}

// A prepared model with PyTorch's state. Names are the same; octet's moving averages also keep
// their first batch and how many they saw.
nn::ModulePtr trained(const json& c) {
  nn::ModulePtr model = prepared(c);
  model->forward(models::batch(c, 0));  // so that scales have their sizes
  auto state = model->state_dict();
  for (const auto& [key, value] : c["state"].items()) {
    Tensor& t = state.at(key);
    // of a FloatFunctional that only saw numbers: octet does not observe it
    if (t.numel() == 0) continue;
    if (t.dtype() == DType::float32) {
      t = floats_from_base64(value, t.shape());
    } else {
      std::vector<uint8_t> bytes = from_base64(value);
      std::vector<int32_t> numbers(bytes.size() / 4);
      std::memcpy(numbers.data(), bytes.data(), bytes.size());
      t = Tensor::from(numbers, t.shape()).to(t.dtype());
    }
    const size_t end =
        key.rfind("min_val") == std::string::npos ? key.rfind("max_val") : key.rfind("min_val");
    if (end != std::string::npos) state[key.substr(0, end) + "first_" + key.substr(end)] = t;
  }
  model->load_state_dict(state);
  model->eval();
  model->apply(quant::disable_observer);
  return model;
}

// A float32 sum in another order can fall to the other side of a rounding, and then a value is off
// by a step: losses are compared to a thousandth; the ResNet's, of five values behind ten roundings
// in a row, to two hundredths.
TEST(GoldenQat, FiveStepsOfTrainingLoseAsPyTorchs) {
  json cases = load_golden("qat.json");
  ASSERT_EQ(cases.size(), 40u);
  for (const json& c : cases) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["backend"].get<std::string>() + " " +
                 c["version"].dump());
    nn::ModulePtr model = prepared(c);
    nn::optim::SGD optimizer(model->parameters(), {.lr = c["lr"], .momentum = c["momentum"]});
    for (int step = 0; step < 5; ++step) {
      optimizer.zero_grad();
      Tensor y = model->forward(models::batch(c, step));
      const uint64_t seed = c["seed"].get<uint64_t>() + 8000 + static_cast<uint64_t>(step);
      Tensor target = models::make_tensor("normal", seed, y.shape(), 1, 0);
      Tensor loss = functional::mse_loss(y, target);
      autograd::backward(loss);
      optimizer.step();
      const double expected = c["losses"][static_cast<size_t>(step)];
      EXPECT_NEAR(loss.detach().item(), expected, (c["model"] == "ResNet" ? 2e-2 : 1e-3) * expected)
          << "step " << step;
    }
  }
}

TEST(GoldenQat, TrainedModelsConvertToPyTorchsCodes) {
  json cases = load_golden("qat.json");
  autograd::NoGrad no_grad;
  for (const json& c : cases) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["backend"].get<std::string>() + " " +
                 c["version"].dump());
    nn::ModulePtr model = trained(c);
    Tensor y = model->forward(models::batch(c, -1)).detach();
    EXPECT_TRUE(allclose(y, floats_from_base64(c["fake_y"], y.shape()), 0, 1e-5))
        << octet::to_string(y);
    nn::ModulePtr int8 = quant::convert(model);
    models::expect_qparams(c, *int8);
    models::expect_outputs(c, *int8);
  }
}

TEST(GoldenQat, ObserversInFakeQuantizeModulesAnswerPyTorchsQParams) {
  for (const json& c : load_golden("qat.json")) {
    SCOPED_TRACE(c["model"].get<std::string>() + " " + c["backend"].get<std::string>() + " " +
                 c["version"].dump());
    nn::ModulePtr model = trained(c);
    for (const auto& [path, qparams] : c["observers"].items()) {
      quant::QParams q =
          model->submodule(path)->as<quant::FakeQuantizeBase>().observer().calculate_qparams();
      EXPECT_EQ(q.scales, qparams[0].get<std::vector<double>>()) << path;
      EXPECT_EQ(q.zero_points, qparams[1].get<std::vector<double>>()) << path;
    }
  }
}

}  // namespace
}  // namespace octet::testing
