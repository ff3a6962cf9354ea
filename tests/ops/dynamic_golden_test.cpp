// Dynamic quantization against PyTorch 1.13: tests/golden/dynamic_*.json, made by
// scripts/oracle/dynamic.py.
#include <gtest/gtest.h>

#include "octet/engine/engine.h"
#include "tests/golden.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using nlohmann::json;

Tensor golden_tensor(const json& c, const Shape& shape) {
  return Tensor::from(golden_values(c["kind"], c["seed"], numel(shape), c["scale"], c["offset"]),
                      shape);
}

TEST(GoldenDynamic, RunTimeQparamsAndCodesArePyTorchs) {
  json cases = load_golden("dynamic_qparams.json");
  ASSERT_EQ(cases.size(), 360u);
  for (const json& c : cases) {
    Tensor x = golden_tensor(c, {c["n"].get<int64_t>()});
    const float* v = x.data<float>();
    auto [min, max] = std::minmax_element(v, v + x.numel());
    auto q = affine::choose_qparams_dynamic(*min, *max, 0, 255, c["reduce_range"]);
    EXPECT_EQ(q.scale, std::strtod(c["s"].get<std::string>().c_str(), nullptr)) << c;
    EXPECT_EQ(q.zero_point, c["z"].get<int32_t>()) << c;
    for (int64_t i = 0; i < x.numel(); ++i)
      EXPECT_EQ(affine::quantize(v[i], static_cast<float>(q.scale), q.zero_point, 0, 255),
                c["codes"][i].get<int32_t>())
          << c;
  }
}

TEST(GoldenDynamic, LinearEqualsQnnpacksBitForBit) {
  json cases = load_golden("dynamic_linear.json");
  ASSERT_EQ(cases.size(), 400u);
  for (const char* engine : {"native", "reference"}) {
    set_engine(engine);
    for (const json& c : cases) {
      const int64_t m = c["m"], k = c["k"], n = c["n"];
      const uint64_t seed = c["seed"];
      Tensor w = Tensor::from(golden_codes(seed + 1, n * k), {n, k});
      auto scales = golden_scales(seed + 2, c["per_channel"] ? n : 1);
      w = make_quantized(
          w, c["per_channel"]
                 ? Quantizer::per_channel(scales, std::vector<int64_t>(n, 0), 0, DType::qint8)
                 : Quantizer::per_tensor(scales[0], 0, DType::qint8));
      Tensor bias =
          c["bias"] ? Tensor::from(golden_values("normal", seed + 3, n, 1, 0), {n}) : Tensor();
      Tensor y = ops::call("linear_dynamic", {golden_tensor(c, {m, k}), w, bias},
                           {{"activation", c["relu"] ? "relu" : "none"}});
      expect_equal(y, Tensor::from(from_bits(c["y"]), {m, n}),
                   std::string(engine) + " " + c.dump());
    }
    set_engine("native");
  }
}

}  // namespace
}  // namespace octet::testing
