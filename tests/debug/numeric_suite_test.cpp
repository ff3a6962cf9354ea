// What the numeric suite does beyond what PyTorch's answers show (numeric_suite_golden_test.cpp).
#include "octet/debug/numeric_suite.h"

#include <gtest/gtest.h>

#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

struct SuiteNet : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot fc1 = slot("fc1", nn::Linear(6, 5));
  nn::Slot fc2 = slot("fc2", nn::Linear(5, 4));
  nn::Slot skip = slot("skip", quant::FloatFunctional());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override {
    Tensor y = fc2(fc1(quant(x)));
    return dequant(skip.add(y, skip.mul_scalar(y, 0.5)));
  }
};

struct Recurrent : nn::Module {
  nn::Slot lstm = slot("lstm", nn::LSTM(5, 6));
  nn::Slot fc = slot("fc", nn::Linear(6, 3));
  Tensor forward(Tensor x) override { return fc(lstm(x)); }
};

struct NumericSuite : ::testing::Test {
  NumericSuite() {
    model->eval();
    model->qconfig = quant::get_default_qconfig("qnnpack");
    auto prepared = quant::prepare(model);
    prepared->forward(x);
    int8 = quant::convert(prepared);
  }
  std::shared_ptr<SuiteNet> model = nn::make<SuiteNet>(), int8;
  Tensor x = Tensor::randn({7, 6}, 3);
};

TEST_F(NumericSuite, WeightsOfLayersThatStayFloatAreEqual) {
  model->fc2->qconfig = nullptr;
  auto weights = debug::compare_weights(*model, *model);
  EXPECT_EQ(weights.size(), 2u);
  EXPECT_TRUE(equal(weights["fc2.weight"]["float"], weights["fc2.weight"]["quantized"]));
}

TEST_F(NumericSuite, PathsArePartsNotLetters) {
  // PyTorch joins the parts of paths without dots, and finds "ab.c" for "a.bc".
  const debug::StateDict floats = {{"ab.c.weight", Tensor::ones({1})}},
                         quantized = {{"a.bc.weight", Tensor::ones({1})}};
  EXPECT_TRUE(debug::compare_weights(floats, quantized).empty());
}

TEST_F(NumericSuite, OutputsOfEveryCallAreKept) {
  debug::prepare_model_outputs(*model, *int8);
  for (int i = 0; i < 3; ++i) model->forward(x), int8->forward(x);
  auto outputs = debug::get_matching_activations(*model, *int8);
  EXPECT_EQ(outputs.at("fc1.stats").at("float").size(), 3u);
  EXPECT_EQ(outputs.at("fc1.stats").at("quantized").size(), 3u);
  EXPECT_TRUE(outputs.at("skip.stats").at("quantized")[0].is_quantized());
}

TEST_F(NumericSuite, LoggersDoNotChangeResults) {
  const Tensor before = int8->forward(x);
  auto copy = std::dynamic_pointer_cast<SuiteNet>(int8->clone());
  debug::prepare_model_outputs(*model, *copy);
  EXPECT_TRUE(equal(copy->forward(x), before));
  debug::prepare_model_with_stubs(*nn::make<SuiteNet>(), *int8,
                                  {typeid(nn::Linear), typeid(quant::FloatFunctional)});
  EXPECT_EQ(int8->fc1->type_name(), "Shadow");
  EXPECT_TRUE(equal(int8->forward(x), before));
}

TEST_F(NumericSuite, ShadowsGiveTheFloatModuleTheQuantizedInput) {
  auto stubs = debug::compare_model_stub(*model, *int8, {typeid(nn::Linear)}, {x});
  EXPECT_EQ(stubs.size(), 2u);
  const auto& fc1 = stubs.at("fc1.stats");
  const Tensor input = (*int8->quant)(x).dequantize();
  EXPECT_TRUE(equal(fc1.at("float")[0], (*model->fc1)(input).detach()));
  EXPECT_EQ(fc1.at("float")[0].shape(), (Shape{7, 5}));  // all rows, not PyTorch's first
}

TEST_F(NumericSuite, ShadowsOfFunctionalsSeeEveryOperation) {
  auto stubs = debug::compare_model_stub(*model, *int8, {typeid(quant::FloatFunctional)}, {x});
  EXPECT_EQ(stubs.at("skip.stats").at("float").size(), 2u);  // mul_scalar and add
}

// PyTorch's has one of an LSTM's two weights, under its packed parameter.
TEST(NumericSuiteDynamic, RecurrentLayersHaveAllTheirWeightsAndTheirSequence) {
  auto model = nn::make<Recurrent>();
  model->eval();
  auto int8 = quant::quantize_dynamic(model);
  const Tensor x = Tensor::randn({4, 2, 5}, 1);
  auto weights = debug::compare_weights(*model, *int8);
  EXPECT_EQ(weights.size(), 3u);
  EXPECT_GT(debug::compute_sqnr(weights.at("lstm.weight_ih_l0").at("float"),
                                weights.at("lstm.weight_ih_l0").at("quantized")),
            35);
  EXPECT_TRUE(weights.count("lstm.weight_hh_l0"));
  auto stubs = debug::compare_model_stub(*model, *int8->clone(), {typeid(nn::LSTM)}, {x});
  EXPECT_EQ(stubs.at("lstm.stats").at("float").at(0).shape(), (Shape{4, 2, 6}));
  auto outputs = debug::compare_model_outputs(*model, *int8, {x});
  EXPECT_EQ(outputs.at("lstm.stats").at("quantized").at(0).shape(), (Shape{4, 2, 6}));
  EXPECT_GT(debug::compute_sqnr(outputs.at("fc.stats").at("float")[0],
                                outputs.at("fc.stats").at("quantized")[0]),
            25);
}

// PyTorch keeps the tuple of an LSTM's results.
TEST(NumericSuiteDynamic, AllResultsOfALayerAreKept) {
  struct States : nn::Module {
    nn::Slot lstm = slot("lstm", nn::LSTM(5, 6));
    Tensor forward(Tensor x) override {
      const std::vector<Tensor> all = lstm(std::vector<Tensor>{x});
      return functional::add(all[1], all[2]);
    }
  };
  auto model = nn::make<States>();
  model->eval();
  auto int8 = quant::quantize_dynamic(model);
  const Tensor x = Tensor::randn({4, 2, 5}, 1);
  const std::vector<Tensor> expected = (*int8->submodule("lstm"))(std::vector<Tensor>{x});
  const auto outputs = debug::compare_model_outputs(*model->clone(), *int8->clone(), {x});
  const debug::LoggerStats& lstm = outputs.at("lstm.stats");
  EXPECT_EQ(lstm.size(), 6u);
  for (size_t k = 0; k < 3; ++k) {
    const std::string number = k ? "." + std::to_string(k) : "";
    EXPECT_TRUE(equal(lstm.at("quantized" + number).at(0), expected.at(k))) << k;
    EXPECT_GT(debug::compute_sqnr(lstm.at("float" + number).at(0), expected.at(k)), 25) << k;
  }
  const auto stubs = debug::compare_model_stub(*model, *int8->clone(), {typeid(nn::LSTM)}, {x});
  EXPECT_TRUE(equal(stubs.at("lstm.stats").at("quantized.2").at(0), expected.at(2)));
  EXPECT_GT(debug::compute_sqnr(stubs.at("lstm.stats").at("float.2").at(0), expected.at(2)), 25);
  debug::prepare_model_with_stubs(*model, *int8, {typeid(nn::LSTM)},
                                  debug::logger_class<debug::ErrorLogger>());
  (void)(*int8)(x);
  const auto& logger = int8->submodule("lstm")->submodule("logger")->as<debug::ErrorLogger>();
  ASSERT_EQ(logger.further.size(), 2u);
  EXPECT_GT(logger.further[1].sqnr(), 25);
}

TEST_F(NumericSuite, ErrorLoggersKeepNoTensors) {
  debug::prepare_model_with_stubs(*model, *int8, {typeid(nn::Linear)},
                                  debug::logger_class<debug::ErrorLogger>());
  for (int i = 0; i < 4; ++i) int8->forward(x);
  EXPECT_TRUE(debug::get_logger_dict(*int8).at("fc1.stats").empty());
  const auto& logger = int8->submodule("fc1.logger")->as<debug::ErrorLogger>();
  EXPECT_EQ(logger.error.count(), 4 * 7 * 5);
  EXPECT_GT(logger.error.sqnr(), 30);
}

TEST_F(NumericSuite, PreparedModelsAreRefused) {
  auto prepared = quant::prepare(model);
  expect_error(ErrorCode::invalid_argument, {"not prepared"},
               [&] { debug::prepare_model_outputs(*prepared, *int8); });
}

TEST_F(NumericSuite, ALoggerOfTheWrongKindSaysWhich) {
  expect_error(ErrorCode::invalid_argument, {"ShadowLogger"}, [&] {
    (void)debug::compare_model_stub(*model, *int8, {typeid(nn::Linear)}, {x},
                                    debug::logger_class<debug::OutputLogger>());
  });
}

}  // namespace
}  // namespace octet::testing
