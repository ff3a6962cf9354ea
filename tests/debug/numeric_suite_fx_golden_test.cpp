// The numeric suite of graph mode against PyTorch 1.13's: tests/golden/numeric_suite_fx.json, made by
// scripts/oracle/numeric_suite.py.
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/debug/numeric_suite_fx.h"
#include "tests/debug/numeric_suite_golden.h"
#include "tests/quant/fx_data.h"

namespace octet::testing {
namespace {

namespace ns = debug::fx;

const json& suite_cases() {
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
  for (const json& golden : suite_cases())
    for (const Maker& maker : fx_models::makers())
      if (golden["model"] == maker.name) result.push_back({golden, maker});
  return result;
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

  static std::vector<std::string> entries(const std::vector<ns::NSSingleResultType>& results) {
    std::vector<std::string> texts;
    for (const auto& r : results)
      texts.push_back(fmt::format("{}:{}:{}", r.fqn, r.index_of_arg, r.index_within_arg));
    return texts;
  }

  // What differs from PyTorch's: layers that it has and octet lacks ("-"), the reverse ("+"), and
  // layers whose entries or values differ.
  std::string difference(const char* what, const ns::NSResultsType& found) const {
    std::vector<std::string> lines;
    std::map<std::string, std::set<std::string>> kinds;
    for (const auto& [layer, by_type] : found)
      for (const auto& [type, by_model] : by_type) {
        EXPECT_EQ(by_model.size(), 2u) << layer;
        if (!golden[what].contains(layer) || !golden[what][layer].contains(type))
          lines.push_back(fmt::format("+{} {}", layer, type));
      }
    for (const auto& [layer, by_type] : golden[what].items())
      for (const auto& [type, expected] : by_type.items()) {
        if (!found.count(layer) || !found.at(layer).count(type)) {
          lines.push_back(fmt::format("-{} {}", layer, type));
          continue;
        }
        const auto& x = found.at(layer).at(type).at("fp32");
        const auto& y = found.at(layer).at(type).at("int8");
        std::vector<std::string> want_x, want_y;
        for (const json& e : expected["float"])
          want_x.push_back(fmt::format("{}:{}:{}", e[0].get<std::string>(), e[1].get<int>(),
                                       e[2].get<int>()));
        for (const json& e : expected["quantized"])
          want_y.push_back(fmt::format("{}:{}:{}", e[0].get<std::string>(), e[1].get<int>(),
                                       e[2].get<int>()));
        if (entries(x) != want_x || entries(y) != want_y) {
          lines.push_back(fmt::format("{} {} entries {} | {}, not {} | {}", layer, type,
                                      fmt::join(entries(x), ","), fmt::join(entries(y), ","),
                                      fmt::join(want_x, ","), fmt::join(want_y, ",")));
          continue;
        }
        std::vector<std::pair<Tensor, Tensor>> pairs;
        for (size_t i = 0; i < x.size(); ++i)
          for (size_t k = 0; k < std::min(x[i].values.size(), y[i].values.size()); ++k)
            pairs.emplace_back(x[i].values[k], y[i].values[k]);
        if (pairs.size() != expected["pairs"].size())
          lines.push_back(fmt::format("{} {} {} pairs, not {}", layer, type, pairs.size(),
                                      expected["pairs"].size()));
        else
          for (size_t i = 0; i < pairs.size(); ++i)
            if (std::string d =
                    difference_of(pairs[i].first, pairs[i].second, expected["pairs"][i]);
                !d.empty())
              lines.push_back(fmt::format("{} {} {}: {}", layer, type, i, d));
      }
    return fmt::format("{}", fmt::join(lines, "; "));
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

TEST_P(GoldenNumericSuiteFx, Weights) {
  if (!golden.contains("weights")) GTEST_SKIP() << "PyTorch cannot unpack them";
  EXPECT_EQ(difference("weights", ns::extract_weights("fp32", *prepared, "int8", *lowered)), "");
}

TEST_P(GoldenNumericSuiteFx, Outputs) {
  auto [a, b] = ns::add_loggers("fp32", prepared, "int8", lowered,
                                ns::logger_class<ns::OutputLogger>(), true);
  (*a)(inputs);
  (*b)(inputs);
  EXPECT_EQ(difference("outputs", ns::extract_logger_info(*a, *b, "int8")), "");
}

TEST_P(GoldenNumericSuiteFx, Shadows) {
  auto both = ns::add_shadow_loggers("fp32", prepared, "int8", lowered);
  (*both)(inputs);
  const ns::NSResultsType found = ns::extract_shadow_logger_info(*both, "int8");
  if (!golden.contains("shadows")) GTEST_SKIP() << "PyTorch has an error";
  EXPECT_EQ(difference("shadows", found), "");
}

}  // namespace
}  // namespace octet::testing
