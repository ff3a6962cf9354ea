// Fake quantization against PyTorch 1.13: tests/golden/fake_quantize_*.json, made by
// scripts/oracle/fake_quantize.py.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "octet/autograd/autograd.h"
#include "octet/ops/op.h"
#include "octet/quant/observe/fake_quantize.h"
#include "tests/quant/golden.h"

namespace octet::quant {
namespace {

// FNV-1a over the float32 values' bits, as the script's.
std::string hash_of(const Tensor& t) {
  uint64_t h = 0xCBF29CE484222325;
  for (float v : t.to_vector<float>()) {
    v += 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    h = (h ^ bits) * 0x100000001B3;
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(h));
  return text;
}

Tensor data(const json& c, uint64_t batch) {
  Shape shape = c["shape"].get<Shape>();
  return Tensor::from(
      values(c["kind"], c["seed"].get<uint64_t>() + batch, numel(shape), c["scale"], c["offset"]),
      shape);
}

Tensor upstream(const json& c) {
  Shape shape = c["shape"].get<Shape>();
  return Tensor::from(values("normal", c["seed"].get<uint64_t>() + 9999, numel(shape), 1, 0),
                      shape);
}

Tensor floats(const json& hexes) {
  std::vector<float> v;
  for (const json& h : hexes) v.push_back(static_cast<float>(exact(h)));
  return Tensor::from(v, {static_cast<int64_t>(v.size())});
}

// Sums of as many terms in another order: equal up to float32 rounding of the largest of them.
void expect_sums(const json& hexes, const Tensor& got, double scale, const char* what) {
  std::vector<float> v = got.to_vector<float>();
  ASSERT_EQ(hexes.size(), v.size());
  for (size_t i = 0; i < v.size(); ++i)
    EXPECT_NEAR(v[i], exact(hexes[i]), 2e-5 * scale + 1e-5 * std::abs(v[i])) << what << i;
}

}  // namespace

TEST(GoldenFakeQuantize, OperatorsForwardAndBackward) {
  json cases = load("fake_quantize_operators.json");
  ASSERT_GE(cases.size(), 175u);
  for (const json& c : cases) {
    SCOPED_TRACE(c.dump());
    const std::string form = c["form"];
    const bool learnable = form.starts_with("learnable"), per_tensor = c["axis"] == -1;
    Tensor x = data(c, 0), scale = floats(c["scales"]), zero_point = floats(c["zero_points"]);
    if (!learnable && form != "float_qparams") zero_point = zero_point.to(DType::int32);
    autograd::set_requires_grad(x);
    Attrs attrs{{"quant_min", c["quant_min"].get<int64_t>()},
                {"quant_max", c["quant_max"].get<int64_t>()}};
    if (!per_tensor) attrs.set("axis", c["axis"].get<int64_t>());
    if (learnable) {
      autograd::set_requires_grad(scale);
      autograd::set_requires_grad(zero_point);
      attrs.set("grad_factor", c["grad_factor"].get<double>());
    }
    const char* op = learnable    ? "fake_quantize_learnable"
                     : per_tensor ? "fake_quantize_per_tensor"
                                  : "fake_quantize_per_channel";
    Tensor y = ops::call(op, {x, scale, zero_point}, attrs);
    autograd::backward(y, upstream(c));
    EXPECT_EQ(hash_of(y.detach()), c["y"]);
    EXPECT_EQ(hash_of(autograd::grad(x)), c["dx"]);
    if (learnable) {
      double codes = static_cast<double>(
          std::max(std::abs(c["quant_min"].get<int64_t>()), c["quant_max"].get<int64_t>()));
      double factor = c["grad_factor"].get<double>();
      expect_sums(c["dscale"], autograd::grad(scale), codes * factor, "dscale");
      expect_sums(c["dzero_point"], autograd::grad(zero_point),
                  scale.to_vector<float>()[0] * factor, "dzero_point");
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(GoldenFakeQuantize, ModulesOverSeveralBatches) {
  json cases = load("fake_quantize_modules.json");
  ASSERT_GE(cases.size(), 200u);
  for (const json& c : cases) {
    SCOPED_TRACE(c.dump());
    auto module = ObserverFactory(c["observer"].get<std::string>(), options_of(c))
                      .fake_quantize(c["module"].get<std::string>())
                      .with_grad_scaling(true)
                      .make_module("golden");
    uint64_t batch = 0;
    for (const json& step : c["steps"]) {
      Tensor x = data(c, batch++);
      autograd::set_requires_grad(x);
      Tensor y = (*module)(x);
      autograd::backward(y, upstream(c));
      auto state = module->state_dict();
      Tensor scale = state.at("scale").detach(), zero_point = state.at("zero_point").detach();
      EXPECT_TRUE(equal(scale, floats(step["scales"]))) << octet::to_string(scale);
      EXPECT_TRUE(equal(zero_point.to(DType::float32), floats(step["zero_points"])))
          << octet::to_string(zero_point);
      EXPECT_EQ(hash_of(y.detach()), step["y"]);
      if (step.contains("dx")) {
        EXPECT_EQ(hash_of(autograd::grad(x)), step["dx"]);
      }
    }
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace octet::quant
