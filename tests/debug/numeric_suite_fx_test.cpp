// What the numeric suite of graph mode does beyond what PyTorch's answers show
// (numeric_suite_fx_golden_test.cpp), and several qconfigs side by side.
#include "octet/debug/numeric_suite_fx.h"

#include <gtest/gtest.h>

#include <sstream>

#include "octet/autograd/autograd.h"
#include "octet/debug/n_shadows.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

namespace ns = debug::fx;

struct SuiteFxNet : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot skip = slot("skip", nn::Conv2d(3, 4, 1));
  nn::Slot fc = slot("fc", nn::Linear(4, 2));
  Tensor forward(Tensor x) override {
    Tensor y = relu(conv(x));
    return fc(functional::mean(y + skip(x), {2, 3}));
  }
};

struct Other : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  Tensor forward(Tensor x) override { return functional::sigmoid(conv(x)); }
};

struct NumericSuiteFx : ::testing::Test {
  NumericSuiteFx() {
    model->eval();
    prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(), {x});
    (*prepared)(x);
    lowered = quant::convert_fx(prepared);
  }
  std::shared_ptr<SuiteFxNet> model = nn::make<SuiteFxNet>();
  Tensor x = Tensor::randn({2, 3, 5, 5}, 3);
  std::shared_ptr<quant::ObservedGraphModule> prepared;
  ns::GraphModulePtr lowered;
  autograd::NoGrad no_grad;
};

TEST_F(NumericSuiteFx, LoggersChangeNeitherResultsNorTheGraphsGiven) {
  const Tensor y = (*lowered)(x), z = (*prepared)(x);
  const std::string before = graph::print(lowered->graph());
  auto [a, b] = ns::add_loggers("a", prepared, "b", lowered);
  EXPECT_TRUE(equal((*a)(x), z));
  EXPECT_TRUE(equal((*b)(x), y));
  EXPECT_TRUE(equal((*ns::add_shadow_loggers("a", prepared, "b", lowered))(x), y));
  EXPECT_EQ(graph::print(lowered->graph()), before);
}

// Of split and topk, indices too.
TEST_F(NumericSuiteFx, AllResultsOfALayerAreLogged) {
  struct Several : nn::Module {
    nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
    nn::Slot next = slot("next", nn::Conv2d(2, 4, 1));
    Tensor forward(Tensor x) override {
      const std::vector<Tensor> halves = ops::call_all(
          "split", {conv(x)}, {{"dim", int64_t{1}}, {"sizes", std::vector<int64_t>{2, 2}}});
      return next(functional::add(halves[0], halves[1]));
    }
  };
  auto several = nn::make<Several>();
  several->eval();
  auto p = quant::prepare_fx(several, quant::get_default_qconfig_mapping(), {x});
  (*p)(x);
  auto q = quant::convert_fx(p);
  auto [a, b] = ns::add_loggers("a", p, "b", q);
  EXPECT_TRUE(equal((*b)(x), (*q)(x)));
  (*a)(x);
  auto results = ns::extract_logger_info(*a, *b, "b");
  ns::extend_logger_results_with_comparison(results, "a", "b", debug::compute_sqnr, "sqnr");
  const auto& of_b = results.at("split").at("node_output").at("b");
  ASSERT_EQ(of_b.size(), 2u);
  for (size_t k = 0; k < 2; ++k) {
    EXPECT_EQ(of_b[k].index_within_arg, static_cast<int64_t>(k));
    EXPECT_EQ(of_b[k].ref_node_name, of_b[0].ref_node_name);
    ASSERT_EQ(of_b[k].values.size(), 1u);
    EXPECT_EQ(of_b[k].values[0].shape(), (Shape{2, 2, 5, 5}));
    EXPECT_GT(of_b[k].comparisons.at("sqnr").at(0), 25) << k;
  }
  EXPECT_FALSE(equal(of_b[0].values[0], of_b[1].values[0]));
  const auto errors = ns::split_layer_errors(p, q, {{x}});
  EXPECT_TRUE(errors.count("split") && errors.count("split:1"));
}

TEST_F(NumericSuiteFx, LookingDoesNotCalibrate) {
  auto state = prepared->state_dict();
  std::map<std::string, Tensor> before;
  for (auto& [name, tensor] : state) before[name] = tensor.clone();
  auto [a, b] = ns::add_loggers("a", prepared, "b", lowered);
  (*a)(x * 100);
  for (auto& [name, tensor] : prepared->state_dict())
    EXPECT_TRUE(equal(tensor, before.at(name))) << name;
}

TEST_F(NumericSuiteFx, ResultsHavePyTorchsFields) {
  auto [a, b] = ns::add_loggers("fp32", prepared, "int8", lowered,
                                ns::logger_class<ns::OutputLogger>(), true);
  (*a)(x), (*b)(x);
  auto results = ns::extract_logger_info(*a, *b, "int8");
  const ns::NSSingleResultType& conv = results.at("conv").at("node_output").at("int8").at(0);
  EXPECT_EQ(conv.type, "node_output");
  EXPECT_EQ(conv.ref_node_name, "conv");
  EXPECT_EQ(conv.prev_node_name, "conv");
  EXPECT_EQ(conv.ref_node_target_type, "octet::nn::quantized::ConvReLU2d");
  EXPECT_EQ(conv.fqn, "conv");
  EXPECT_EQ(conv.values.size(), 1u);
  // The float layer ends with its observer, as in PyTorch.
  const ns::NSSingleResultType& of_a = results.at("conv").at("node_output").at("fp32").at(0);
  EXPECT_EQ(of_a.ref_node_target_type, "octet::nn::intrinsic::ConvReLU2d");
  EXPECT_EQ(of_a.prev_node_target_type, "octet::quant::PercentileObserver");
  const auto& inputs = results.at("add").at("node_input").at("int8");
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_EQ(inputs[0].prev_node_name, "conv");
  EXPECT_EQ(inputs[1].prev_node_name, "skip");
  EXPECT_EQ(inputs[1].index_of_arg, 1);
}

TEST_F(NumericSuiteFx, ComparisonsAreAddedUnderTheirName) {
  auto weights = ns::extract_weights("fp32", *prepared, "int8", *lowered);
  EXPECT_EQ(weights.size(), 3u);
  ns::extend_logger_results_with_comparison(weights, "fp32", "int8", debug::compute_sqnr, "sqnr");
  for (auto& [layer, by_type] : weights) {
    EXPECT_GT(by_type["weight"]["int8"][0].comparisons["sqnr"].at(0), 35) << layer;
    EXPECT_TRUE(by_type["weight"]["fp32"][0].comparisons.empty()) << layer;
  }
  expect_error(ErrorCode::not_found, {"no weight of model 'int4'"}, [&] {
    ns::extend_logger_results_with_comparison(weights, "fp32", "int4", debug::compute_sqnr, "s");
  });
}

TEST_F(NumericSuiteFx, FloatGraphsAreMatchedBeforeTheyAreFused) {
  const auto traced = graph::trace(*model, std::vector<Tensor>{x});
  const auto pairs = ns::get_matching_subgraph_pairs(*traced, *lowered);
  ASSERT_EQ(pairs.size(), 5u);  // conv, skip, add, mean, fc
  bool conv_with_relu = false;
  for (const auto& [name, pair] : pairs)
    conv_with_relu |= pair.first.start_node != pair.first.end_node &&
                      traced->graph().node(pair.first.start_node).scope == "conv" &&
                      traced->graph().node(pair.first.end_node).scope == "relu";
  EXPECT_TRUE(conv_with_relu);
}

// As networks from ONNX files are.
TEST_F(NumericSuiteFx, GraphsOfOperatorsAreComparedToo) {
  graph::TraceOptions options;
  options.into_layers = true;
  const graph::Graph g = graph::trace(*model, std::vector<Tensor>{x}, options)->graph();
  ASSERT_FALSE(g.has_modules());
  auto of_operators = quant::prepare_fx(g, quant::get_default_qconfig_mapping());
  (*of_operators)(x);
  auto codes = quant::convert_fx(of_operators);
  auto weights = ns::extract_weights("fp32", *of_operators, "int8", *codes);
  EXPECT_EQ(weights.size(), 3u);
  for (auto& [layer, by_type] : weights)
    EXPECT_TRUE(by_type["weight"]["int8"].at(0).values.at(0).is_quantized()) << layer;
  auto [a, b] = ns::add_loggers("fp32", of_operators, "int8", codes);
  (*a)(x), (*b)(x);
  EXPECT_EQ(ns::extract_logger_info(*a, *b, "int8").size(), 5u);
  EXPECT_EQ(ns::split_layer_errors(of_operators, codes, {{x}}).size(), 5u);
}

TEST_F(NumericSuiteFx, GraphsOfOtherModelsAreRefused) {
  auto other = nn::make<Other>();
  other->eval();
  const auto traced = graph::trace(*other, std::vector<Tensor>{x});
  expect_error(ErrorCode::invalid_argument, {"%fc", "%sigmoid", "not related"},
               [&] { (void)ns::get_matching_subgraph_pairs(*traced, *lowered); });
}

TEST_F(NumericSuiteFx, RelatedTypesCanBeAdded) {
  ns::RelatedOps sets = ns::get_base_name_to_sets_of_related_ops();
  const size_t count = sets.size();
  ns::add_op_to_sets_of_related_ops(sets, typeid(SuiteFxNet), std::nullopt);
  EXPECT_EQ(sets.size(), count + 1);
  ns::add_op_to_sets_of_related_ops(sets, typeid(Other), quant::ObjectType(typeid(SuiteFxNet)));
  EXPECT_EQ(sets.size(), count + 1);
  expect_error(ErrorCode::not_found, {"in no set"}, [&] {
    ns::add_op_to_sets_of_related_ops(sets, typeid(SuiteFxNet),
                                      quant::ObjectType(typeid(NumericSuiteFx)));
  });
}

TEST_F(NumericSuiteFx, LayerErrorsAreOwnAndInherited) {
  std::vector<std::vector<Tensor>> samples;
  for (uint64_t seed = 0; seed < 8; ++seed) samples.push_back({Tensor::randn({8, 3, 5, 5}, seed)});
  // With a qconfig whose average shares its operand's qparams, what fc gets has a large error.
  prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping("onednn"), {x});
  (*prepared)(x);
  lowered = quant::convert_fx(prepared);
  const auto errors = ns::split_layer_errors(prepared, lowered, samples);
  EXPECT_EQ(errors.size(), 5u);
  // The first layers get the same codes in both models; what fc gets has an error already.
  EXPECT_EQ(errors.at("conv").inherited(), 0);
  EXPECT_GT(errors.at("fc").own, 0);
  EXPECT_GT(errors.at("fc").inherited(), 0);
  // Its total is that of the model's result.
  debug::ErrorStatistics whole;
  for (const auto& sample : samples) whole.add((*model)(sample[0]), (*lowered)(sample[0]));
  EXPECT_NEAR(errors.at("fc").total_sqnr(), whole.sqnr(), 1e-4);
}

// -- n shadows ------------------------------------------------------------------------------------

quant::QConfig bits(int64_t least, int64_t greatest) {
  const quant::ObserverFactory weight(
      "MinMaxObserver",
      quant::ObserverOptions{.dtype = DType::qint8,
                             .qscheme = quant::ObserverScheme::per_tensor_symmetric,
                             .quant_min = least,
                             .quant_max = greatest});
  return {quant::ObserverFactory("MinMaxObserver"), weight};
}

TEST_F(NumericSuiteFx, QConfigMultiMappingsHoldOneMappingForEachQConfig) {
  ns::QConfigMultiMapping m;
  const quant::QConfig eight = bits(-128, 127), four = bits(-8, 7);
  m.set_global({eight, std::nullopt, four, eight});
  ASSERT_EQ(m.qconfig_mappings_list.size(), 2u);  // no duplicates, no nullopt
  EXPECT_EQ(m.qconfig_mappings_list[1].global_qconfig(), four);
  m.set_module_name("fc", {four});
  EXPECT_EQ(m.qconfig_mappings_list[0].module_name_qconfigs()[0].qconfig, four);
  EXPECT_EQ(m.qconfig_mappings_list[1].module_name_qconfigs()[0].qconfig, std::nullopt);
  m.set_module_name("conv", {bits(-4, 3), four, eight});
  ASSERT_EQ(m.qconfig_mappings_list.size(), 3u);
  EXPECT_EQ(m.qconfig_mappings_list[2].global_qconfig(), std::nullopt);
  EXPECT_EQ(m.qconfig_mappings_list[2].module_name_qconfigs().size(), 2u);  // fc left float, conv
}

struct NShadows : NumericSuiteFx {
  NShadows() {
    ns::QConfigMultiMapping qconfigs;
    qconfigs.set_global({bits(-128, 127), bits(-8, 7)}).set_module_name("skip", {bits(-128, 127)});
    shadowed = ns::prepare_n_shadows_model(model, {x}, qconfigs);
  }
  ns::GraphModulePtr shadowed;
};

TEST_F(NShadows, ResultsAreTheModels) {
  EXPECT_TRUE(allclose((*shadowed)(x), (*model)(x), 1e-5, 1e-6));
  ns::convert_n_shadows_model(*shadowed);
  EXPECT_TRUE(allclose((*shadowed)(x), (*model)(x), 1e-5, 1e-6));
}

TEST_F(NShadows, EveryLayerIsComparedForEachOfItsQConfigs) {
  (*shadowed)(x);
  ns::convert_n_shadows_model(*shadowed);
  (*shadowed)(x);  // loggers start disabled
  ns::loggers_set_enabled(*shadowed, true);
  for (int i = 0; i < 3; ++i) (*shadowed)(x);
  auto results = ns::extract_results_n_shadows_model(*shadowed);
  auto& outputs = results.at("model").at("node_output");
  EXPECT_EQ(outputs.size(), 14u);  // conv, skip, add, mean, fc, each beside two; skip beside one
  std::map<std::string, std::vector<double>> sqnr;  // by layer
  for (auto& [name, list] : outputs) {
    ASSERT_EQ(list.size(), 1u) << name;
    EXPECT_TRUE(list[0].values.empty()) << name;
    if (list[0].candidate == 0) continue;
    EXPECT_FALSE(list[0].qconfig_str.empty());
    ASSERT_EQ(list[0].comparisons.at("sqnr").size(), 3u) << name;
    sqnr[list[0].ref_node_name].push_back(list[0].comparisons.at("sqnr")[0]);
  }
  ASSERT_EQ(sqnr.at("fc").size(), 2u);
  EXPECT_GT(sqnr.at("fc")[0], sqnr.at("fc")[1] + 10);  // 8 bits, 4 bits
  EXPECT_GT(sqnr.at("conv")[0], sqnr.at("conv")[1] + 10);
  EXPECT_EQ(sqnr.at("skip").size(), 1u);
}

TEST_F(NShadows, ShadowsAreWhatPrepareAndConvertMakeOfTheLayerAlone) {
  (*shadowed)(x);
  ns::convert_n_shadows_model(*shadowed);
  ns::loggers_set_enabled(*shadowed, true);
  ns::loggers_set_save_activations(*shadowed, true);
  (*shadowed)(x);
  auto results = ns::extract_results_n_shadows_model(*shadowed);
  for (auto& [name, list] : results.at("model").at("node_output")) {
    if (list[0].ref_node_name != "skip" || list[0].candidate == 0) continue;
    auto prepared_skip = quant::prepare_fx(model->skip.get(), bits(-128, 127), {x});
    (*prepared_skip)(x);
    EXPECT_TRUE(equal(list[0].values.at(0), (*quant::convert_fx(prepared_skip))(x)));
  }
}

TEST_F(NShadows, TheTableHasARowForEachLayerAndAColumnForEachQConfig) {
  (*shadowed)(x);
  ns::convert_n_shadows_model(*shadowed);
  ns::loggers_set_enabled(*shadowed, true);
  (*shadowed)(x);
  std::ostringstream out;
  ns::print_comparisons_n_shadows_model(ns::extract_results_n_shadows_model(*shadowed), out);
  std::istringstream in(out.str());
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 6u) << out.str();
  std::istringstream head(lines[0]);
  std::vector<std::string> words{std::istream_iterator<std::string>(head), {}};
  EXPECT_EQ(words, (std::vector<std::string>{"node_name", "node_type", "fqn", "0", "1"}));
  EXPECT_EQ(lines[1].rfind("conv ", 0), 0u) << out.str();
}

TEST_F(NShadows, ConvertingBeforeCalibratingIsAnError) {
  expect_error(ErrorCode::not_calibrated, {}, [&] { ns::convert_n_shadows_model(*shadowed); });
}

TEST_F(NShadows, WithoutQConfigsThereIsNothingToCompare) {
  expect_error(ErrorCode::invalid_argument, {"no qconfigs"},
               [&] { (void)ns::prepare_n_shadows_model(model, {x}, {}); });
}

}  // namespace
}  // namespace octet::testing
