// The numeric suite of eager mode against PyTorch 1.13's: tests/golden/numeric_suite_eager.json,
// made by scripts/oracle/numeric_suite.py.
#include <algorithm>
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/debug/numeric_suite.h"
#include "octet/quant/modules/intrinsic.h"
#include "tests/debug/numeric_suite_golden.h"
#include "tests/quant/eager_golden.h"

namespace octet::testing {
namespace {

// PyTorch keeps a linear layer's weight packed.
std::string key_here(std::string key) {
  const std::string packed = "._packed_params._packed_params";
  if (key.ends_with(packed)) key = key.substr(0, key.size() - packed.size()) + ".weight";
  return key;
}

const json& eager_suite_cases() {
  static const json loaded = load_golden("numeric_suite_eager.json");
  return loaded;
}

const std::set<std::type_index> kSwapped = {typeid(nn::Linear),
                                            typeid(nn::Conv1d),
                                            typeid(nn::Conv2d),
                                            typeid(nn::Conv3d),
                                            typeid(nn::ConvTranspose2d),
                                            typeid(nn::BatchNorm2d),
                                            typeid(quant::FloatFunctional),
                                            typeid(nn::intrinsic::LinearReLU),
                                            typeid(nn::intrinsic::ConvReLU1d),
                                            typeid(nn::intrinsic::ConvReLU2d),
                                            typeid(nn::intrinsic::ConvReLU3d),
                                            typeid(nn::intrinsic::BNReLU2d)};

// What differs on purpose (tests/quant/conformance_differences.md): of a model, the comparison and
// the keys that PyTorch lacks, or whose values differ.
struct SuiteDifference {
  const char *model, *what, *reason;
  std::set<std::string> more, values;
};
const std::vector<SuiteDifference> kSuiteDifferences = {
    {"Mlp", "outputs", "PyTorch's logs no nniq.LinearReLU", {"fc1.stats", "fc2.stats"}, {}},
    {"Activations", "outputs", "eager mode quantizes Sigmoid", {"sigmoid.stats"}, {}},
    {"Residual_12", "outputs", "add has one formula", {}, {"add.stats"}},
    {"Residual_12", "stubs", "add has one formula", {}, {"add.stats", "mul.stats"}},
    {"Norms_28", "outputs", "batch norms of codes are float ones", {}, {"bn2.stats"}},
    {"Norms_28", "stubs", "batch norms of codes are float ones", {}, {"bn2.stats"}},
};

class GoldenNumericSuite : public ::testing::TestWithParam<int> {
 protected:
  GoldenNumericSuite() : golden(eager_suite_cases()[static_cast<size_t>(GetParam())]) {
    autograd::NoGrad no_grad;
    static const json files[] = {load_golden("eager_qnnpack.json"),
                                 load_golden("eager_dynamic.json")};
    const bool dynamic = golden["file"] == "eager_dynamic.json";
    c = files[dynamic ? 1 : 0][golden["number"].get<size_t>()];
    if (dynamic) {
      float_model = models::make_model(c["model"]);
      models::fill(*float_model, c["parameters"]);
      float_model->eval();
      quant::QConfigSpec spec;
      spec.set_type<nn::Linear>(quant::get_default_qconfig(c["qconfig"].get<std::string>()));
      int8 = quant::quantize_dynamic(float_model, spec);
    } else {
      float_model = testing::float_model(c);
      int8 = converted(c);
      models::expect_qparams(c, *int8);  // and puts PyTorch's in
    }
  }

  // Equal keys, and values to 1e-5. `pair_of` gives the two tensors by key.
  template <typename Found, typename PairOf>
  void expect_same(const char* what, const Found& found, PairOf&& pair_of) {
    std::set<std::string> keys, expected_keys;
    for (const auto& [key, value] : found) keys.insert(key);
    for (const auto& [key, value] : golden[what].items()) expected_keys.insert(key_here(key));
    SuiteDifference known{};
    const std::string model = golden["model"], number = "_" + std::to_string(GetParam());
    for (const SuiteDifference& d : kSuiteDifferences)
      if ((model == d.model || model + number == d.model) && what == std::string(d.what)) known = d;
    expected_keys.insert(known.more.begin(), known.more.end());
    EXPECT_EQ(keys, expected_keys) << what;
    std::set<std::string> differ;
    for (const auto& [key, value] : golden[what].items()) {
      if (!found.count(key_here(key))) continue;
      const std::pair<Tensor, Tensor> xy = pair_of(found.at(key_here(key)), value);
      const std::string difference = difference_of(xy.first, xy.second, value);
      if (!difference.empty()) differ.insert(key);
      EXPECT_TRUE(difference.empty() || known.values.count(key))
          << what << " " << key << ": " << difference;
    }
    EXPECT_EQ(differ, known.values) << what;
  }
  void expect_same(const char* what, const debug::LoggerDict& found) {
    expect_same(what, found, [](const debug::LoggerStats& stats, const json& expected) {
      EXPECT_EQ(stats.at("float").size(), 1u);
      EXPECT_EQ(stats.at("quantized").size(), 1u);
      Tensor x = stats.at("float").at(0), y = stats.at("quantized").at(0);
      // PyTorch's ShadowLogger keeps the first row of several.
      if (static_cast<size_t>(x.dim()) > expected["float"]["shape"].size())
        x = x.select(0, 0), y = y.select(0, 0);
      return std::pair(x, y);
    });
  }

  json golden, c;
  nn::ModulePtr float_model, int8;
};

INSTANTIATE_TEST_SUITE_P(, GoldenNumericSuite,
                         ::testing::Range(0, static_cast<int>(eager_suite_cases().size())),
                         [](const auto& info) {
                           const json& g = eager_suite_cases()[static_cast<size_t>(info.param)];
                           return g["model"].get<std::string>() + "_" + std::to_string(info.param);
                         });

TEST(GoldenNumericSuiteTable, HasItsModels) { EXPECT_EQ(eager_suite_cases().size(), 36u); }

TEST_P(GoldenNumericSuite, Weights) {
  const debug::ComparedWeights found = debug::compare_weights(*float_model, *int8);
  if (!golden.contains("weights")) {  // PyTorch cannot unpack them
    EXPECT_FALSE(found.empty());
    return;
  }
  expect_same("weights", found, [](const std::map<std::string, Tensor>& w, const json&) {
    return std::pair(w.at("float"), w.at("quantized"));
  });
}

TEST_P(GoldenNumericSuite, Outputs) {
  expect_same("outputs", debug::compare_model_outputs(*float_model, *int8, {models::batch(c, -1)}));
}

TEST_P(GoldenNumericSuite, Stubs) {
  expect_same("stubs",
              debug::compare_model_stub(*float_model, *int8, kSwapped, {models::batch(c, -1)}));
}

}  // namespace
}  // namespace octet::testing
