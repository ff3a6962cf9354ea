// The models of examples/models against torchvision's and PyTorch's
// (tests/golden/example_models.json, made by scripts/oracle/example_models.py).
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "octet/autograd/autograd.h"
#include "tests/example_models.h"
#include "tests/expect_error.h"
#include "tests/golden.h"

namespace octet::testing {
namespace {

using nlohmann::json;

nn::ModulePtr model_of(const json& c) {
  const std::string model = c["model"];
  const json& o = c["options"];
  auto number = [&](const char* key) { return o[key].get<int64_t>(); };
  if (model == "resnet18")
    return nn::make<models::ResNet18>(
        models::ResNet18Options{number("num_classes"), number("width")});
  if (model == "mobilenet_v2") {
    models::MobileNetV2Options options{.num_classes = number("num_classes"),
                                       .width_mult = o["width_mult"]};
    if (o.contains("stages")) {
      options.stages.clear();
      for (const json& s : o["stages"]) options.stages.push_back({s[0], s[1], s[2], s[3]});
    }
    return nn::make<models::MobileNetV2>(options);
  }
  if (model == "bert")
    return nn::make<models::Bert>(models::BertOptions{.vocabulary = number("vocabulary"),
                                                      .hidden = number("hidden"),
                                                      .layers = number("layers"),
                                                      .heads = number("heads"),
                                                      .intermediate = number("intermediate"),
                                                      .max_positions = number("max_positions"),
                                                      .token_types = number("token_types")});
  return nn::make<models::BiLSTM>(models::BiLSTMOptions{.vocabulary = number("vocabulary"),
                                                        .embedding_dim = number("embedding_dim"),
                                                        .hidden = number("hidden"),
                                                        .layers = number("layers"),
                                                        .num_classes = number("num_classes"),
                                                        .pooling = o["pooling"]});
}

// fill() of the script.
void fill(nn::Module& model, uint64_t seed) {
  for (auto& [name, t] : model.state_dict()) {
    const uint64_t k = seed++;
    if (t.dtype() != DType::float32) continue;
    double scale = std::sqrt(3.0 / static_cast<double>(t.numel() / t.size(0))), offset = 0;
    if (name.ends_with("running_var"))
      scale = 0.25, offset = 1.25;
    else if (t.dim() == 1)
      scale = name.ends_with("weight") ? 0.25 : 0.2, offset = name.ends_with("weight") ? 1 : 0;
    t.detach().copy_from(
        Tensor::from(golden_values("uniform", k, t.numel(), scale, offset), t.shape()));
  }
}

std::vector<Tensor> inputs_of(const json& c) {
  const Shape shape = c["shape"].get<Shape>();
  const uint64_t seed = c["seed"].get<uint64_t>() + 1000;
  if (!c["options"].contains("vocabulary"))
    return {Tensor::from(golden_values("normal", seed, numel(shape), 1, 0), shape)};
  Random random(seed);
  std::vector<int64_t> ids(static_cast<size_t>(numel(shape)));
  for (int64_t& id : ids)
    id = static_cast<int64_t>(random.uniform() * c["options"]["vocabulary"].get<double>());
  std::vector<Tensor> inputs{Tensor::from(ids, shape)};
  if (c["mask"]) {
    inputs.push_back(Tensor::zeros({shape[0], 1, 1, shape[1]}));
    for (int64_t t : {1, 2}) inputs[1].data<float>()[2 * shape[1] - t] = -10000;
  }
  return inputs;
}

size_t cases_with(const char* key, const std::function<void(const json&)>& fn) {
  size_t n = 0;
  for (const json& c : load_golden("example_models.json"))
    if (c.contains(key)) {
      SCOPED_TRACE(c["model"].get<std::string>() + " " + c["options"].dump());
      fn(c);
      ++n;
    }
  return n;
}

TEST(GoldenExampleModels, StateDictsHaveTheNamesAndShapesOfTorchvision) {
  nn::init::Skip no_random_numbers;
  size_t n = cases_with("keys", [](const json& c) {
    std::map<std::string, Shape> expected = c["keys"].get<std::map<std::string, Shape>>(), got;
    for (auto& [name, t] : model_of(c)->state_dict()) got[name] = t.shape();
    EXPECT_EQ(got, expected);
  });
  EXPECT_EQ(n, 5u);
}

TEST(GoldenExampleModels, ComputeWhatPyTorchDoes) {
  autograd::NoGrad no_grad;
  size_t n = cases_with("out", [](const json& c) {
    nn::ModulePtr model = model_of(c);
    model->eval();
    fill(*model, c["seed"]);
    Tensor y = (*model)(inputs_of(c)).at(0);
    ASSERT_EQ(y.shape(), c["out_shape"].get<Shape>());
    Tensor expected = Tensor::from(c["out"].get<std::vector<float>>(), y.shape());
    float largest = 0;
    for (float v : expected.to_vector<float>()) largest = std::max(largest, std::abs(v));
    EXPECT_TRUE(allclose(y, expected, 0, 2e-5 * largest)) << to_string(y) << to_string(expected);
  });
  EXPECT_EQ(n, 8u);
}

int64_t parameters(nn::Module& model) {
  int64_t n = 0;
  for (const Tensor& p : model.parameters()) n += p.numel();
  return n;
}

TEST(ExampleModels, HaveAsManyParametersAsThePapersSay) {
  nn::init::Skip no_random_numbers;
  EXPECT_EQ(parameters(*nn::make<models::ResNet18>()), 11'689'512);
  EXPECT_EQ(parameters(*nn::make<models::MobileNetV2>()), 3'504'872);
  // without the pooling layer
  EXPECT_EQ(parameters(*nn::make<models::Bert>()), 109'482'240 - 768 * 769);
}

// The first and the last parameter of each get a gradient, in training mode.
TEST(ExampleModels, Train) {
  for (const SmallModel& m : small_models()) {
    Tensor x = m.x(2, 1), y = m.model->clone()->forward(x);  // copies can be called
    y = (*m.model)(x);
    autograd::backward(functional::sum(y * y));
    auto parameters = m.model->named_parameters();
    for (const auto* p : {&parameters.front(), &parameters.back()})
      EXPECT_TRUE(autograd::grad(*p->second).defined()) << m.name << " " << p->first;
  }
}

TEST(ExampleModels, OptionsThatCannotBeAreErrors) {
  expect_error(ErrorCode::invalid_argument, {"heads = 5", "hidden = 24"},
               [] { nn::make<models::Bert>(models::BertOptions{.hidden = 24, .heads = 5}); });
  expect_error(ErrorCode::invalid_argument, {"pooling", "max"},
               [] { nn::make<models::BiLSTM>(models::BiLSTMOptions{.pooling = "max"}); });
}

}  // namespace
}  // namespace octet::testing
