// The graphs that graph mode makes of small models (fx_models.h), node for node against PyTorch's (scripts/oracle/fx_graphs.py).
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/golden.h"
#include "tests/quant/fx_models.h"

namespace octet::testing {
namespace {

using nlohmann::json;

const json& cases() {
  static const json loaded = load_golden("fx_graphs.json");
  return loaded;
}

const json& golden(const std::string& name) {
  for (const json& c : cases())
    if (c["name"] == name) return c;
  throw std::out_of_range("fx_graphs.json has no " + name);
}

// Inputs as a case lists them: shapes of floats, or ["index", shape, n].
std::vector<Tensor> inputs_of(const json& c) {
  std::vector<Tensor> inputs;
  for (const json& shape : c["inputs"]) {
    if (shape[0].is_string()) {
      const Shape of = shape[1].get<Shape>();
      std::vector<int64_t> index;
      for (int64_t i = 0; i < numel(of); ++i) index.push_back(i % shape[2].get<int64_t>());
      inputs.push_back(Tensor::from(index, of));
    } else {
      inputs.push_back(Tensor::randn(shape.get<Shape>(), 7 + inputs.size()));
    }
  }
  return inputs;
}

nn::ModulePtr model_of(const fx_models::Maker& maker) {
  nn::ModulePtr model = maker.make();
  model->train(golden(maker.name)["config"].value("qat", false));
  return model;
}

class GoldenFxGraphs : public ::testing::TestWithParam<fx_models::Maker> {};

INSTANTIATE_TEST_SUITE_P(, GoldenFxGraphs, ::testing::ValuesIn(fx_models::makers()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(GoldenFxGraphsTable, BothSidesHaveTheSameModels) {
  ASSERT_EQ(cases().size(), fx_models::makers().size());
  for (size_t i = 0; i < cases().size(); ++i) EXPECT_EQ(cases()[i]["name"], fx_models::makers()[i].name);
}

TEST_P(GoldenFxGraphs, TheModelRunsAndHasPyTorchsModules) {
  const json& c = golden(GetParam().name);
  nn::ModulePtr model = model_of(GetParam());
  std::vector<Tensor> results = model->forward(inputs_of(c));
  EXPECT_EQ(results.size(), c["fused"].back()["inputs"].size());
  for (const json& node : c["fused"]) {
    const std::string kind = node["kind"], target = node.value("target", "");
    EXPECT_TRUE(kind != "module" || model->has_submodule(target)) << node;
    EXPECT_TRUE(kind != "constant" || model->state_dict().count(target)) << node;
  }
}

}  // namespace
}  // namespace octet::testing
