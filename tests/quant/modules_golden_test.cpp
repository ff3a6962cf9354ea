// Quantized modules against PyTorch 1.13's: tests/golden/modules_*.json, made by
// scripts/oracle/modules.py. A module is made from its class's name, its configuration and its
// state, as a file's is; every engine must give PyTorch's codes (a case's "steps" says where
// PyTorch's own are one step off now and then).
#include <gtest/gtest.h>

#include "octet/engine/engine.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/stubs.h"
#include "tests/quant/golden_modules.h"

namespace octet::testing {
namespace {

Tensor input(const json& c) {
  return golden_codes_of(c["seed"], c["shape"].get<Shape>(), c["x"],
                         dtype_or(c, "dtype", DType::quint8));
}

Tensor weight(const json& c, const Shape& shape, int64_t axis) {
  Tensor w = Tensor::from(golden_codes(c["seed"].get<uint64_t>() + 1, numel(shape)), shape);
  bool per_channel = c["per_channel"];
  auto scales = golden_scales(c["seed"].get<uint64_t>() + 2,
                              per_channel ? shape[static_cast<size_t>(axis)] : 1);
  const std::vector<int64_t> zeros(scales.size(), 0);
  return make_quantized(
      w, per_channel ? Quantizer::per_channel(scales, zeros, axis, DType::qint8)
                     : Quantizer::per_tensor(scales[0], c["weight_zero_point"], DType::qint8));
}

// A module of nn::quantized with the case's weight, bias and qparams.
nn::ModulePtr layer(const json& c) {
  Attrs config = attrs_of(c["config"]);
  config.set("dtype", std::string("quint8"));
  nn::ModulePtr module =
      nn::make_registered("octet::nn::quantized::" + c["module"].get<std::string>(), config);
  auto state = module->state_dict();
  const Shape shape = state.at("weight").shape();
  const uint64_t seed = c["seed"];
  const bool transposed = c["module"].get<std::string>().find("Transpose") != std::string::npos;
  state["weight"] = weight(c, shape, transposed ? 1 : 0);
  if (c["config"]["bias"])
    state["bias"] = Tensor::from(
        golden_values("normal", seed + 3, state.at("bias").numel(), c["bias_scale"], 0),
        state.at("bias").shape());
  state["scale"] = Tensor::scalar(c["y"][0], DType::float64);
  state["zero_point"] = Tensor::scalar(c["y"][1], DType::int64);
  module->load_state_dict(state);
  return module;
}

// Each engine's result against PyTorch's.
void expect_results(const json& c, const std::function<Tensor()>& run) {
  for (const char* engine : {"native", "reference"}) {
    set_engine(engine);
    Tensor y = run();
    set_engine("native");
    expect_codes(y, c["result"], c["steps"], std::string(engine) + ": " + c.dump());
  }
}

// Calls run for each case of a file, in each engine.
void expect_all(const std::string& file, size_t count,
                const std::function<Tensor(const json&)>& run) {
  json cases = load_golden(file);
  ASSERT_EQ(cases.size(), count);
  for (const json& c : cases) {
    expect_results(c, [&] { return run(c); });
    if (::testing::Test::HasFailure()) return;
  }
}

std::optional<ops::QType> result_type(const json& c, const char* key) {
  if (!c.contains(key)) return std::nullopt;
  DType dtype = parse_dtype(c["dtype"].get<std::string>());
  return ops::QType{dtype, Quantizer::per_tensor(c[key][0], c[key][1], dtype)};
}

Tensor normal(const json& c, uint64_t seed, const Shape& shape) {
  return Tensor::from(golden_values("normal", c["seed"].get<uint64_t>() + seed, numel(shape), 1, 0),
                      shape);
}

Tensor run_layer(const json& c) { return layer(c)->forward(input(c)); }

TEST(GoldenModules, LinearLayersGivePyTorchsCodes) {
  expect_all("modules_linear.json", 135, run_layer);
}
TEST(GoldenModules, ConvolutionsGivePyTorchsCodes) {
  expect_all("modules_conv.json", 360, run_layer);
}
TEST(GoldenModules, TransposedConvolutionsGivePyTorchsCodes) {
  expect_all("modules_conv_transpose.json", 140, run_layer);
}

TEST(GoldenModules, ActivationsAndBatchNormsGivePyTorchsCodes) {
  expect_all("modules_activations.json", 200, [](const json& c) {
    Attrs config = attrs_of(c["config"]);
    config.set("dtype", c["dtype"].get<std::string>());
    nn::ModulePtr module =
        nn::make_registered("octet::nn::quantized::" + c["module"].get<std::string>(), config);
    auto state = module->state_dict();
    state["scale"] = Tensor::scalar(c["y"][0], DType::float64);
    state["zero_point"] = Tensor::scalar(c["y"][1], DType::int64);
    if (c.contains("weight"))
      state["weight"] =
          Tensor::from(c["weight"].get<std::vector<float>>(), state["weight"].shape());
    if (state.count("running_var")) {
      const Shape channels = state["weight"].shape();
      state["weight"] = normal(c, 3, channels);
      state["bias"] = normal(c, 4, channels);
      state["running_mean"] = normal(c, 5, channels);
      state["running_var"] = Tensor::from(
          golden_values("uniform", c["seed"].get<uint64_t>() + 6, numel(channels), 0.5, 0.75),
          channels);
    }
    module->load_state_dict(state);
    module->eval();
    return module->forward(input(c));
  });
}

TEST(GoldenModules, OperatorsOnCodesGivePyTorchs) {
  expect_all("modules_operators.json", 232, [](const json& c) {
    Tensor y = ops::call(c["op"].get<std::string>(), {input(c)}, attrs_of(c["attrs"]),
                         result_type(c, "want"));
    EXPECT_EQ(y.q_scale(), c["y"][0].get<double>()) << c;
    EXPECT_EQ(y.q_zero_point(), c["y"][1].get<int64_t>()) << c;
    return y;
  });
}

TEST(GoldenModules, QFunctionalsGivePyTorchsCodes) {
  json cases = load_golden("modules_functional.json");
  size_t seen = 0;
  for (const json& c : cases) {
    if (!c.contains("functional")) continue;
    ++seen;
    expect_results(c, [&] {
      nn::quantized::QFunctional f(c["want"][0], c["want"][1]);
      const std::string name = c["functional"];
      Tensor a = input(c), b = c.contains("b") ? input(c["b"]) : Tensor();
      Tensor y = name == "add"          ? f.add(a, b)
                 : name == "add_relu"   ? f.add_relu(a, b)
                 : name == "mul"        ? f.mul(a, b)
                 : name == "cat"        ? f.cat({a, b}, c["dim"])
                 : name == "matmul"     ? f.matmul(a, b)
                 : name == "add_scalar" ? f.add_scalar(a, c["value"])
                                        : f.mul_scalar(a, c["value"]);
      EXPECT_EQ(y.q_scale(), c["y"][0].get<double>()) << c;
      EXPECT_EQ(y.q_zero_point(), c["y"][1].get<int64_t>()) << c;
      return y;
    });
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_EQ(seen, 160u);
}

TEST(GoldenModules, QuantizeAndDeQuantizeGivePyTorchsBits) {
  size_t seen = 0;
  for (const json& c : load_golden("modules_functional.json")) {
    const Shape shape = c["shape"].get<Shape>();
    if (c.contains("dequantize")) {
      ++seen;
      Tensor y = nn::quantized::DeQuantize().forward(input(c));
      EXPECT_TRUE(equal(y, floats_from_base64(c["result"], shape))) << c;
    } else if (c.contains("quantize")) {
      ++seen;
      Tensor x = Tensor::from(golden_values(c["data"][0], c["seed"], numel(shape), c["data"][1], 0),
                              shape);
      nn::quantized::Quantize module(c["y"][0], c["y"][1],
                                     parse_dtype(c["dtype"].get<std::string>()));
      expect_codes(module.forward(x), c["result"], 0, c.dump());
    }
  }
  EXPECT_EQ(seen, 32u);
}

TEST(GoldenModules, DynamicLinearLayersGivePyTorchsBits) {
  json cases = load_golden("modules_dynamic.json");
  ASSERT_EQ(cases.size(), 40u);
  for (const json& c : cases) {
    Attrs config = attrs_of(c["config"]);
    config.set("reduce_range", false);
    nn::ModulePtr module =
        nn::make_registered("octet::nn::quantized::" + c["module"].get<std::string>(), config);
    auto state = module->state_dict();
    const Shape weight_shape = state.at("weight").shape();
    state["weight"] = weight(c, weight_shape, 0);
    if (c["config"]["bias"])
      state["bias"] = Tensor::from(golden_values("normal", c["seed"].get<uint64_t>() + 3,
                                                 weight_shape[0], c["bias_scale"], 0),
                                   {weight_shape[0]});
    module->load_state_dict(state);
    const Shape shape = c["shape"].get<Shape>();
    Tensor x =
        Tensor::from(golden_values(c["data"][0], c["seed"], numel(shape), c["data"][1], 0), shape);
    Tensor y = module->forward(x);
    EXPECT_TRUE(equal(y, floats_from_base64(c["result"], y.shape()))) << c;
  }
}

TEST(GoldenModules, ReferenceLayersComputeInFloatOnPyTorchsWeights) {
  json cases = load_golden("modules_reference.json");
  ASSERT_EQ(cases.size(), 56u);
  for (const json& c : cases) {
    const std::string name = c["module"];
    nn::ModulePtr module =
        nn::make_registered("octet::nn::quantized::" + name, attrs_of(c["config"]));
    auto state = module->state_dict();
    const Shape weight_shape = state.at("weight").shape(), bias_shape = state.at("bias").shape();
    const uint64_t seed = c["seed"];
    const bool per_channel = c["per_channel"];
    const int64_t axis = c["axis"];
    auto s = golden_scales(seed + 2, per_channel ? weight_shape[static_cast<size_t>(axis)] : 1);
    Tensor w =
        Tensor::from(golden_values("normal", seed + 1, numel(weight_shape), 0.2, 0), weight_shape);
    state["weight"] = per_channel ? quantize_per_channel(w, s, std::vector<int64_t>(s.size(), 0),
                                                         axis, DType::qint8)
                                  : quantize_per_tensor(w, s[0], 0, DType::qint8);
    state["bias"] =
        Tensor::from(golden_values("normal", seed + 3, numel(bias_shape), 0.2, 0), bias_shape);
    EXPECT_TRUE(equal(state["weight"].dequantize(), floats_from_base64(c["weight"], weight_shape)))
        << c;
    module->load_state_dict(state);
    const Shape shape = c["shape"].get<Shape>();
    Tensor y =
        module->forward(Tensor::from(golden_values("normal", seed, numel(shape), 1, 0), shape));
    EXPECT_TRUE(allclose(y, floats_from_base64(c["result"], y.shape()), 1e-5, 1e-5)) << c;
  }
}

}  // namespace
}  // namespace octet::testing
