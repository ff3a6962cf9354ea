// The numeric suite of graph mode against PyTorch 1.13's: tests/golden/numeric_suite_fx.json, made
// by scripts/oracle/numeric_suite.py.
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/debug/numeric_suite_fx.h"
#include "tests/debug/numeric_suite_golden.h"
#include "tests/quant/fx_data.h"

namespace octet::testing {
namespace {

namespace ns = debug::fx;

const json& fx_suite_cases() {
  static const json loaded = load_golden("numeric_suite_fx.json");
  return loaded;
}

struct Case {
  json golden;
  Maker maker;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.maker.name; }
};
std::vector<Case> all_cases() {
  std::vector<Case> result;
  for (const json& golden : fx_suite_cases())
    for (const Maker& maker : fx_models::makers())
      if (golden["model"] == maker.name) result.push_back({golden, maker});
  return result;
}

struct Difference {
  const char *model, *what, *reason, *difference;
};
const std::vector<Difference> kDifferences = {
#include "tests/debug/numeric_suite_fx_differences.inc"
};

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(", ", begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 2;
  }
  return lines;
}

class GoldenNumericSuiteFx : public ::testing::TestWithParam<Case> {
 protected:
  GoldenNumericSuiteFx() {
    const json& c = testing::golden(name);
    nn::ModulePtr model = model_of(GetParam().maker);
    fill(*model);
    prepared = prepared_of(GetParam().maker, model);
    watch_min_and_max(*prepared);
    prepared->eval();
    inputs = data(c, 8000);
    (*prepared)(data(c, 7000));
    (*prepared)(inputs);
    lowered = quant::convert_fx(prepared, convert_custom_of(c["config"]));
  }

  // What differs from PyTorch's results: layers and operands that octet has more ("+"), that it
  // lacks ("-"), and those whose paths or values differ, to 1e-5.
  std::string difference(const char* what, const ns::NSResultsType& found) const {
    std::set<std::string> lines;
    for (const auto& [layer, by_type] : found)
      for (const auto& [type, by_model] : by_type) {
        EXPECT_EQ(by_model.size(), 2u) << layer;
        if (!golden[what].contains(layer) || !golden[what][layer].contains(type))
          lines.insert(fmt::format("+{} {}", layer, type));
      }
    for (const auto& [layer, by_type] : golden[what].items())
      for (const auto& [type, expected] : by_type.items()) {
        const std::string line = fmt::format("{} {}", layer, type);
        if (!found.count(layer) || !found.at(layer).count(type))
          lines.insert("-" + line);
        else
          compare(line, found.at(layer).at(type).at("fp32"), found.at(layer).at(type).at("int8"),
                  expected, lines);
      }
    return fmt::format("{}", fmt::join(lines, ", "));
  }

  static void compare(const std::string& line, const std::vector<ns::NSSingleResultType>& x,
                      const std::vector<ns::NSSingleResultType>& y, const json& expected,
                      std::set<std::string>& lines) {
    const size_t count = expected["float"].size();
    size_t pair = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(x[i].index_of_arg, y[i].index_of_arg) << line;
      EXPECT_EQ(x[i].index_within_arg, y[i].index_within_arg) << line;
      // Of an LSTM's states PyTorch has the tensors with those of the sequence.
      const bool is_result = line.ends_with("node_output") && x[i].index_within_arg > 0;
      if (i >= count && !(is_result && pair < expected["pairs"].size())) {
        lines.insert(fmt::format("+{} {}:{}", line, x[i].index_of_arg, x[i].index_within_arg));
        continue;
      }
      for (const auto& [result, side] : {std::pair(&x[i], "float"), std::pair(&y[i], "quantized")})
        if (i < count && json({result->fqn, result->index_of_arg, result->index_within_arg}) !=
                             expected[side][i])
          lines.insert(fmt::format("{} at {}", line, result->fqn));
      EXPECT_EQ(x[i].values.size(), y[i].values.size()) << line;
      for (size_t k = 0; k < x[i].values.size() && k < y[i].values.size(); ++k, ++pair) {
        if (pair >= expected["pairs"].size()) {
          lines.insert("+" + line + " values");
          continue;
        }
        if (!difference_of(x[i].values[k], y[i].values[k], expected["pairs"][pair]).empty())
          lines.insert(line);
      }
    }
    if (pair < expected["pairs"].size()) lines.insert("-" + line + " values");
  }

  // Nothing differs, or exactly what the table says.
  void expect_difference(const char* what, const ns::NSResultsType& found) const {
    const std::string got = difference(what, found);
    for (const Difference& d : kDifferences) {
      if (name != d.model || std::string(what) != d.what) continue;
      EXPECT_EQ(got, d.difference) << "differs from PyTorch: " << d.reason;
      return;
    }
    EXPECT_EQ(got, "") << name << " " << what;
  }

  const std::string name = GetParam().maker.name;
  const json golden = GetParam().golden;
  std::shared_ptr<quant::ObservedGraphModule> prepared;
  std::shared_ptr<graph::GraphModule> lowered;
  std::vector<Tensor> inputs;
  autograd::NoGrad no_grad;
};

INSTANTIATE_TEST_SUITE_P(, GoldenNumericSuiteFx, ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return std::string(info.param.maker.name); });

TEST(GoldenNumericSuiteFxTable, HasItsModels) {
  EXPECT_EQ(fx_suite_cases().size(), 82u);
  EXPECT_EQ(all_cases().size(), 82u);
}

// Every layer, operand and path of PyTorch's, with its values to 1e-5; octet may have more.
TEST(GoldenNumericSuiteFxTable, AgreesOnAllButElevenModels) {
  std::set<std::string> differ;
  for (const Difference& d : kDifferences)
    for (const std::string& line : split_lines(d.difference))
      if (line[0] != '+') differ.insert(d.model);
  EXPECT_EQ(differ.size(), 11u);
}

TEST_P(GoldenNumericSuiteFx, Weights) {
  const auto found = ns::extract_weights("fp32", *prepared, "int8", *lowered);
  if (!golden.contains("weights")) {  // PyTorch cannot unpack them
    EXPECT_FALSE(found.empty());
    return;
  }
  expect_difference("weights", found);
}

TEST_P(GoldenNumericSuiteFx, Outputs) {
  auto [a, b] = ns::add_loggers("fp32", prepared, "int8", lowered,
                                ns::logger_class<ns::OutputLogger>(), true);
  (*a)(inputs);
  (*b)(inputs);
  expect_difference("outputs", ns::extract_logger_info(*a, *b, "int8"));
}

TEST_P(GoldenNumericSuiteFx, Shadows) {
  auto both = ns::add_shadow_loggers("fp32", prepared, "int8", lowered);
  (*both)(inputs);
  const ns::NSResultsType found = ns::extract_shadow_logger_info(*both, "int8");
  if (!golden.contains("shadows")) {  // PyTorch has an error; each of its layers has a shadow here
    for (const auto& [layer, by_type] : golden["outputs"].items())
      EXPECT_TRUE(found.count(layer) && found.at(layer).at("node_output").size() == 2) << layer;
    return;
  }
  expect_difference("shadows", found);
}

// All models but one without anything to quantize, also those on which PyTorch has errors.
TEST(NumericSuiteFxModels, EveryModelIsMatchedLayerByLayer) {
  autograd::NoGrad no_grad;
  int models = 0;
  ns::MatchOptions options;  // users' own classes are known to them
  ns::add_op_to_sets_of_related_ops(options.base_name_to_sets_of_related_ops,
                                    typeid(fx_models::ObservedCustomModule), std::nullopt);
  ns::add_op_to_sets_of_related_ops(options.base_name_to_sets_of_related_ops,
                                    typeid(fx_models::StaticQuantCustomModule),
                                    quant::ObjectType(typeid(fx_models::ObservedCustomModule)));
  const ns::MakeLogger logger = ns::logger_class<ns::OutputLogger>();
  for (const Maker& maker : fx_models::makers()) {
    if (std::string(maker.name) == "Nothing") continue;
    SCOPED_TRACE(maker.name);
    const json& c = testing::golden(maker.name);
    auto prepared = prepared_of(maker, model_of(maker));
    prepared->eval();
    (*prepared)(inputs_of(c));
    auto lowered = quant::convert_fx(prepared, convert_custom_of(c["config"]));
    EXPECT_FALSE(ns::get_matching_subgraph_pairs(*prepared, *lowered, options).empty());
    auto [a, b] = ns::add_loggers("fp32", prepared, "int8", lowered, logger, true, options);
    auto both = ns::add_shadow_loggers("fp32", prepared, "int8", lowered, logger, true, options);
    std::vector<Tensor> inputs = inputs_of(c), codes = inputs;
    for (size_t k = 0; k < codes.size(); ++k)
      if (const TensorType& type = lowered->graph().type(lowered->graph().inputs()[k]);
          type.is_quantized())
        codes[k] = quantize(codes[k], type.quantizer, type.dtype);
    (*a)(inputs), (*b)(codes), (*both)(codes);
    for (auto results :
         {ns::extract_logger_info(*a, *b, "int8"), ns::extract_shadow_logger_info(*both, "int8")})
      for (auto& [layer, by_type] : results)
        for (auto& [type, by_model] : by_type) EXPECT_EQ(by_model.size(), 2u) << layer;
    ++models;
  }
  EXPECT_EQ(models, 92);
}

}  // namespace
}  // namespace octet::testing
