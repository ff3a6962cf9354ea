// Batch norms folded into the layer before them, against PyTorch 1.13: tests/golden/fold.json, made
// by scripts/oracle/fold.py.
#include <gtest/gtest.h>

#include "octet/nn/norm.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/intrinsic.h"
#include "tests/quant/golden_modules.h"

namespace octet::testing {
namespace {

Tensor data(const json& c, const char* kind, uint64_t turn, const Shape& shape, double scale = 1) {
  return Tensor::from(golden_values(kind, c["seed"].get<uint64_t>() + turn, numel(shape), scale, 0),
                      shape);
}

TEST(GoldenFold, WeightsAndBiasesArePyTorchsBitForBit) {
  json cases = load_golden("fold.json");
  ASSERT_EQ(cases.size(), 140u);
  for (const json& c : cases) {
    const std::string name = c["module"],
                      dims = name == "Linear" ? "1d" : name.substr(name.size() - 2);
    nn::ModulePtr layer = nn::make_registered("octet::nn::" + name, attrs_of(c["config"]));
    nn::ModulePtr norm = nn::make_registered("octet::nn::BatchNorm" + dims, attrs_of(c["bn"]));
    for (auto& [key, parameter] : layer->named_parameters())
      *parameter = data(c, "normal", key == "weight" ? 0 : 1, parameter->shape());
    auto& bn = norm->as<nn::BatchNorm>();
    const Shape channels{bn.num_features};
    if (bn.options.affine) {
      bn.weight = data(c, c["gamma"].get<std::string>().c_str(), 2, channels);
      bn.bias = data(c, "normal", 3, channels);
    }
    bn.running_mean = data(c, "normal", 4, channels);
    bn.running_var = data(c, "relu", 5, channels, c["var_scale"]);
    auto state = quant::fuse_conv_bn_eval(*layer, bn)->state_dict();
    EXPECT_TRUE(equal(state.at("weight").detach(),
                      floats_from_base64(c["weight"], state.at("weight").shape())))
        << c;
    EXPECT_TRUE(equal(state.at("bias").detach(), floats_from_base64(c["result_bias"], channels)))
        << c;
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace octet::testing
