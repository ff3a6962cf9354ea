// Layers, losses, optimizers and schedules against PyTorch 1.13 (scripts/oracle/layers.py).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "octet/autograd/autograd.h"
#include "octet/nn/nn.h"

namespace octet::nn {
namespace {

using nlohmann::json;

json load(const std::string& name) {
  std::ifstream in("tests/golden/" + name + ".json");
  return json::parse(in);
}

Tensor tensor_of(const json& j) {
  if (j.is_null()) return {};
  Shape shape = j["shape"].get<Shape>();
  std::string dtype = j.value("dtype", "float32");
  if (dtype == "int64") return Tensor::from(j["data"].get<std::vector<int64_t>>(), shape);
  if (dtype == "bool") {
    Tensor t = Tensor::empty(shape, DType::bool_);
    for (int64_t i = 0; i < t.numel(); ++i)
      t.data<bool>()[i] = j["data"][static_cast<size_t>(i)].get<bool>();
    return t;
  }
  return Tensor::from(j["data"].get<std::vector<float>>(), shape);
}

Attr attr_of(const json& j) {
  if (j.is_boolean()) return j.get<bool>();
  if (j.is_number_integer()) return j.get<int64_t>();
  if (j.is_number()) return j.get<double>();
  if (j.is_string()) return j.get<std::string>();
  if (!j.empty() && j[0].is_number_float()) return j.get<std::vector<double>>();
  return j.get<std::vector<int64_t>>();
}

// Every element within `tolerance` of the largest expected one (or of 1).
void expect_close(const Tensor& got, const json& expected, const std::string& what,
                  double tolerance = 1e-5) {
  Tensor e = tensor_of(expected);
  ASSERT_EQ(got.defined(), e.defined()) << what;
  if (!e.defined()) return;
  ASSERT_EQ(got.shape(), e.shape()) << what;
  std::vector<float> g = got.to(DType::float32).to_vector<float>(),
                     w = e.to(DType::float32).to_vector<float>();
  double scale = 1;
  for (float v : w) scale = std::max(scale, std::abs(static_cast<double>(v)));
  for (size_t i = 0; i < w.size(); ++i)
    ASSERT_NEAR(g[i], w[i], tolerance * scale) << what << ", element " << i << "\n"
                                               << octet::to_string(got) << octet::to_string(e);
}

void run_case(const json& c, const std::string& what) {
  Attrs config;
  for (auto& [key, value] : c["config"].items()) config.set(key, attr_of(value));
  ModulePtr module = make_registered("octet::nn::" + c["class"].get<std::string>(), config);
  std::map<std::string, Tensor> state;
  for (auto& [key, value] : c["state"].items()) state[key] = tensor_of(value);
  module->load_state_dict(state);
  module->train(c["training"].get<bool>());
  if (c.contains("printed")) {
    EXPECT_EQ(to_string(*module), c["printed"].get<std::string>()) << what;
  }
  EXPECT_EQ(to_string(*make_registered(registered_name(*module), module->config())),
            to_string(*module))
      << what;

  std::vector<Tensor> inputs;
  for (const json& x : c["inputs"]) {
    inputs.push_back(tensor_of(x));
    if (inputs.back().defined() && is_floating(inputs.back().dtype()))
      autograd::set_requires_grad(inputs.back());
  }
  std::vector<Tensor> outputs = module->clone()->forward(inputs);  // a copy computes the same ...
  std::vector<Tensor> again = (*module)(inputs);                   // ... as the module
  ASSERT_EQ(outputs.size(), c["outputs"].size()) << what;
  for (size_t i = 0; i < outputs.size(); ++i) {
    expect_close(outputs[i], c["outputs"][i], what + " output " + std::to_string(i));
    EXPECT_TRUE(equal(outputs[i], again[i])) << what;
    if (!c["dys"][i].is_null()) autograd::backward(again[i], tensor_of(c["dys"][i]), true);
  }
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined() && !c["input_grads"][i].is_null())
      expect_close(autograd::grad(inputs[i]), c["input_grads"][i],
                   what + " gradient of input " + std::to_string(i), 2e-5);
  for (auto& [name, parameter] : module->named_parameters())
    if (!c["grads"][name].is_null())
      expect_close(autograd::grad(*parameter), c["grads"][name], what + " gradient of " + name,
                   2e-5);
  if (c.contains("buffers"))
    for (auto& [name, expected] : c["buffers"].items())
      expect_close(module->state_dict().at(name), expected, what + " " + name);
}

class GoldenLayers : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenLayers, ComputePrintAndDifferentiateAsPyTorch) {
  json cases = load(std::string("layers_") + GetParam());
  ASSERT_GT(cases.size(), 20u);
  for (size_t i = 0; i < cases.size(); ++i)
    run_case(cases[i], std::string(GetParam()) + "[" + std::to_string(i) + "] " +
                           cases[i]["class"].get<std::string>() + " " + cases[i]["config"].dump());
}

INSTANTIATE_TEST_SUITE_P(, GoldenLayers,
                         ::testing::Values("conv", "linear", "norm", "activation", "pool",
                                           "recurrent", "attention", "loss"),
                         [](const auto& info) { return std::string(info.param); });

TEST(GoldenOptimizers, StepAsPyTorch) {
  json file = load("optimizers");
  for (const json& c : file["optimizers"]) {
    std::vector<Tensor> params;
    for (const json& p : file["start"]) {
      params.push_back(tensor_of(p));
      autograd::set_requires_grad(params.back());
    }
    const json& o = c["options"];
    std::string name = c["optimizer"], what = name + " " + o.dump();
    std::unique_ptr<optim::Optimizer> optimizer;
    if (name == "SGD") {
      optimizer = std::make_unique<optim::SGD>(
          std::vector<Tensor>{params[0]},
          optim::SGDOptions{.lr = o.value("lr", 1e-3),
                            .momentum = o.value("momentum", 0.0),
                            .dampening = o.value("dampening", 0.0),
                            .weight_decay = o.value("weight_decay", 0.0),
                            .nesterov = o.value("nesterov", 0.0) != 0});
    } else {
      optim::AdamOptions a = name == "Adam" ? optim::AdamOptions() : optim::AdamWOptions();
      a.lr = o.value("lr", a.lr);
      a.beta1 = o.value("beta1", a.beta1);
      a.beta2 = o.value("beta2", a.beta2);
      a.eps = o.value("eps", a.eps);
      a.weight_decay = o.value("weight_decay", a.weight_decay);
      a.amsgrad = o.value("amsgrad", 0.0) != 0;
      if (name == "Adam")
        optimizer = std::make_unique<optim::Adam>(std::vector<Tensor>{params[0]}, a);
      else
        optimizer = std::make_unique<optim::AdamW>(std::vector<Tensor>{params[0]}, a);
    }
    optimizer->add_param_group({{params[1]}, {{"weight_decay", 0.05}}});
    for (size_t s = 0; s < c["steps"].size(); ++s) {
      for (size_t p = 0; p < 2; ++p) autograd::set_grad(params[p], tensor_of(file["grads"][s][p]));
      optimizer->step();
      for (size_t p = 0; p < 2; ++p) expect_close(params[p], c["steps"][s][p], what, 2e-7);
    }
  }
}

TEST(GoldenOptimizers, SchedulesAreAsPyTorchs) {
  const json golden = load("optimizers");
  for (const json& c : golden["schedules"]) {
    Tensor a = Tensor::zeros({1}), b = Tensor::zeros({1});
    autograd::set_requires_grad(a);
    autograd::set_requires_grad(b);
    optim::SGD optimizer({a}, {.lr = 0.1, .momentum = 0.9});
    optimizer.add_param_group({{b}, {{"lr", 0.3}}});
    const json& o = c["arguments"];
    std::string name = c["schedule"];
    std::unique_ptr<optim::LRScheduler> schedule;
    if (name == "StepLR")
      schedule = std::make_unique<optim::StepLR>(optimizer, o["step_size"], o.value("gamma", 0.1));
    if (name == "MultiStepLR")
      schedule = std::make_unique<optim::MultiStepLR>(
          optimizer, o["milestones"].get<std::vector<int64_t>>(), o.value("gamma", 0.1));
    if (name == "CosineAnnealingLR")
      schedule = std::make_unique<optim::CosineAnnealingLR>(optimizer, o["T_max"],
                                                            o.value("eta_min", 0.0));
    if (name == "LinearLR")
      schedule =
          std::make_unique<optim::LinearLR>(optimizer, o.value("start_factor", 1.0 / 3),
                                            o.value("end_factor", 1.0), o.value("total_iters", 5));
    if (name == "OneCycleLR")
      schedule = std::make_unique<optim::OneCycleLR>(
          optimizer, optim::OneCycleOptions{
                         .max_lr = o["max_lr"],
                         .total_steps = o["total_steps"],
                         .pct_start = o.value("pct_start", 0.3),
                         .linear = o.value("anneal_strategy", "cos") == std::string("linear"),
                         .div_factor = o.value("div_factor", 25.0),
                         .final_div_factor = o.value("final_div_factor", 1e4)});
    for (size_t i = 0; i < c["lrs"].size(); ++i) {
      if (i > 0) schedule->step();
      for (size_t g = 0; g < 2; ++g)
        EXPECT_NEAR(schedule->get_last_lr()[g], c["lrs"][i][g].get<double>(), 1e-12)
            << name << o.dump() << " step " << i;
      EXPECT_NEAR(optimizer.param_groups()[0].options.at("momentum"), c["momenta"][i].get<double>(),
                  1e-12)
          << name << " step " << i;
    }
  }
}

TEST(GoldenOptimizers, ClippingAndDistillationAreAsPyTorchs) {
  json file = load("optimizers");
  for (const json& c : file["clips"]) {
    std::vector<Tensor> params;
    for (size_t p = 0; p < 2; ++p) {
      params.push_back(tensor_of(file["start"][p]));
      autograd::set_requires_grad(params[p]);
      autograd::set_grad(params[p], tensor_of(file["grads"][0][p]));
    }
    double norm =
        optim::clip_grad_norm(params, c["max_norm"], std::stod(c["norm_type"].get<std::string>()));
    EXPECT_NEAR(norm, c["norm"].get<double>(), 1e-5 * norm);
    for (size_t p = 0; p < 2; ++p)
      expect_close(autograd::grad(params[p]), c["grads"][p], "clip_grad_norm", 1e-6);
  }
  const json& d = file["distillation"];
  Tensor student = tensor_of(d["student"]);
  autograd::set_requires_grad(student);
  Tensor loss = functional::distillation_loss(student, tensor_of(d["teacher"]), d["temperature"]);
  EXPECT_NEAR(loss.item(), d["loss"].get<double>(), 1e-6);
  autograd::backward(loss);
  expect_close(autograd::grad(student), d["grad"], "distillation", 1e-6);
}

}  // namespace
}  // namespace octet::nn
