// What the graphs of small models (fx_models.h) compute, against PyTorch
// (scripts/oracle/fx_outputs.py): the ranges and qparams of every observed value, the codes of
// every value of the lowered graph, the results of the lowered and of the reference graph.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/quant/fx_agreement.h"
#include "tests/quant/fx_data.h"
#include "tests/quant/fx_golden.h"

namespace octet::testing {
namespace {

using graph::GraphModule;
using models::hash_of_codes;

const json& all_answers() {
  static const json loaded = load_golden("fx_outputs.json");
  return loaded;
}

// The models that the golden file has.
std::vector<Maker> models_with_answers() {
  std::vector<Maker> makers;
  for (const Maker& maker : fx_models::makers())
    for (const json& c : all_answers())
      if (c["name"] == maker.name) makers.push_back(maker);
  return makers;
}

// -- values by the oracle's keys ------------------------------------------------------------------

std::string base_of(const std::vector<FlatNode>& nodes, std::pair<int, int> at) {
  const FlatNode& n = nodes[static_cast<size_t>(at.first)];
  if (n.target == "quantize") return base_of(nodes, n.inputs.at(0));
  return (n.kind == "input" ? "input " : "") + (n.activation.empty() ? n.target : n.activation) +
         (at.second < 0 ? "" : "." + std::to_string(at.second));
}

struct Keys {
  const std::vector<FlatNode>& nodes;
  std::map<std::string, int> seen = {};
  std::string of(std::pair<int, int> at) {
    const std::string base = base_of(nodes, at);
    const int k = seen[base]++;
    return k ? fmt::format("{}#{}", base, k) : base;
  }
};

// -- what differs on purpose ----------------------------------------------------------------------

// difference: the keys of all values that differ, or how many of the results' values do, and by how
// much.
struct OutputDifference {
  const char *model, *stage, *reason, *difference;
};

const std::vector<OutputDifference> kOutputDifferences = {
#include "tests/quant/fx_output_differences.inc"
};

// Nothing differs, or exactly what the table says.
void expect_difference(const std::string& model, const std::string& stage,
                       const std::string& difference) {
  for (const OutputDifference& d : kOutputDifferences) {
    if (model != d.model || stage != d.stage) continue;
    EXPECT_EQ(difference, d.difference) << "differs from PyTorch: " << d.reason;
    return;
  }
  EXPECT_EQ(difference, "") << "of " << stage << ", against PyTorch's";
}

// -- the tests ------------------------------------------------------------------------------------

class GoldenFxOutputs : public ::testing::TestWithParam<Maker> {
 protected:
  // case() of the oracle.
  GoldenFxOutputs() {
    for (const json& c : all_answers())
      if (c["name"] == name) answers = c;
    const json& c = golden(name);
    nn::ModulePtr model = model_of(GetParam());
    fill(*model);
    prepared = prepared_of(GetParam(), model);
    watch_min_and_max(*prepared);
    prepared->eval();
    inputs = data(c, 8000);
    (*prepared)(data(c, 7000));
    (*prepared)(inputs);
    reference = quant::convert_to_reference_fx(prepared, convert_custom_of(c["config"]));
    lowered = quant::lower(reference);
    for (size_t k = 0; k < inputs.size(); ++k) {
      const TensorType& type = lowered->graph().type(lowered->graph().inputs()[k]);
      if (type.is_quantized()) inputs[k] = quantize(inputs[k], type.quantizer, type.dtype);
    }
  }

  // How the results differ; "" if codes (of the lowered graph), and what dynamic layers give, are
  // equal, reference results but for one in 50 on a tie, floats to 1e-6 of the largest.
  std::string difference_of(GraphModule& model, const json& expected, bool is_reference) {
    std::vector<Tensor> results = model.forward(inputs);
    EXPECT_EQ(results.size(), expected.size());
    std::string text;
    for (size_t k = 0; k < expected.size(); ++k) {
      const graph::Graph& g = model.graph();
      const graph::Node& producer = g.producer(g.outputs()[k]);
      const Tensor y =
          (results[k].is_quantized() ? results[k].dequantize() : results[k]).detach().contiguous();
      const QuantizerPtr quantizer = results[k].is_quantized() ? results[k].quantizer()
                                     : producer.op == "dequantize"
                                         ? g.type(producer.inputs[0]).quantizer
                                         : nullptr;
      // Behind an LSTM they differ as its states do: sigmoid and tanh are approximations in both.
      const bool recurrent = std::any_of(
          g.nodes().begin(), g.nodes().end(),
          [](const graph::Node& node) { return node.op.find("LSTM") != std::string::npos; });
      const bool dynamic = !recurrent && (producer.op.starts_with("DynamicQuantizedLinear") ||
                                          producer.op == "linear_dynamic");
      const std::vector<float> got = y.to_vector<float>(),
                               wanted =
                                   floats_from_base64(expected[k], y.shape()).to_vector<float>();
      double largest = 0, most = 0;
      for (float v : wanted) largest = std::max(largest, std::abs(static_cast<double>(v)));
      // Codes are equal; their scales are to 1e-6 (Observers).
      const double tolerance = is_reference ? 1e-5 * largest : dynamic ? 0 : 1e-6 * largest;
      int64_t differ = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        const double d = std::abs(static_cast<double>(got[i]) - wanted[i]);
        differ += d > tolerance;
        most = std::max(most, d);
      }
      const double steps = quantizer ? most / quantizer->scales()[0] : 0;
      if (differ == 0 || (is_reference && quantizer && steps < 1.001 && 50 * differ <= y.numel()))
        continue;
      text += text.empty() ? "" : "; ";
      text += fmt::format("{} of {} by up to ", differ, got.size());
      text += quantizer ? fmt::format("{:.1f} steps", steps)
                        : fmt::format("{:.4f} of {:.4f}", most, largest);
    }
    return text;
  }

  const std::string name = GetParam().name;
  json answers;
  std::shared_ptr<quant::ObservedGraphModule> prepared;
  std::shared_ptr<GraphModule> reference, lowered;
  std::vector<Tensor> inputs;
};

INSTANTIATE_TEST_SUITE_P(, GoldenFxOutputs, ::testing::ValuesIn(models_with_answers()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(GoldenFxOutputsTable, AllModelsThatCanBeQuantizedHaveAnswers) {
  EXPECT_EQ(all_answers().size(), fx_models::makers().size() - 1);
  EXPECT_EQ(models_with_answers().size(), all_answers().size());  // "Nothing" is an error here
}

// Of every observed value the range and the scale to 1e-6, the zero point exactly.
TEST_P(GoldenFxOutputs, Observers) {
  const std::vector<FlatNode> nodes = flat_of(prepared->graph(), *prepared);
  Keys keys{nodes};
  std::set<std::string> differ;
  const json& expected = answers["observers"];
  for (const auto& item : expected.items()) differ.insert(item.key());
  for (size_t i = 0; i < prepared->graph().nodes().size(); ++i) {
    if (!nodes[i].target.starts_with("observer ")) continue;
    nn::ModulePtr module = prepared->submodule(prepared->graph().nodes()[i].scope);
    auto* fake = dynamic_cast<quant::FakeQuantizeBase*>(module.get());
    const auto& observer = fake ? fake->observer() : module->as<quant::Observer>();
    if (!observer.chooses_qparams() || quant::is_per_channel(observer.options().qscheme)) continue;
    const std::string key = keys.of(nodes[i].inputs.at(0));
    if (!expected.contains(key)) {
      differ.insert(key);
      continue;
    }
    const quant::QParams q = quant::qparams_of(*module);
    const json& e = expected[key];
    // Ranges of float layers' results end in what PyTorch's order of summation gives on its
    // machine.
    bool equal = std::abs(q.scales[0] - e[0].get<double>()) <= 1e-6 * e[0].get<double>() &&
                 q.zero_points[0] == e[1].get<double>();
    if (e.size() > 2) {
      const double least = e[2], greatest = e[3],
                   tolerance = 1e-6 * std::max(std::abs(least), std::abs(greatest));
      equal &= std::abs(observer.min_val().item() - least) <= tolerance &&
               std::abs(observer.max_val().item() - greatest) <= tolerance;
    }
    if (equal) differ.erase(key);
  }
  expect_difference(name, "observers", fmt::format("{}", fmt::join(differ, ", ")));
}

TEST_P(GoldenFxOutputs, Codes) {
  auto recorder = nn::make<Recorder>(*lowered);
  recorder->eval();
  (void)recorder->forward(inputs);
  std::vector<FlatNode> nodes = flat_of(lowered->graph(), *lowered);
  for (FlatNode& n : nodes)  // the second call of a module is a module of its own here
    if (n.kind == "module" && n.target.ends_with("_1") &&
        lowered->has_submodule(n.target.substr(0, n.target.size() - 2)))
      n.target.resize(n.target.size() - 2);
  Keys keys{nodes};
  std::set<std::string> differ;
  const json& expected = answers["codes"];
  for (const auto& item : expected.items()) differ.insert(item.key());
  for (size_t i = 0; i < lowered->graph().nodes().size(); ++i) {
    const graph::Node& node = lowered->graph().nodes()[i];
    if (node.kind == graph::NodeKind::constant) continue;
    for (size_t k = 0; k < node.outputs.size(); ++k) {
      auto it = recorder->seen.find(lowered->graph().value(node.outputs[k]).name);
      const Tensor value = node.kind == graph::NodeKind::input
                               ? inputs.at(static_cast<size_t>(std::stoi(nodes[i].target)))
                           : it == recorder->seen.end() ? Tensor()
                                                        : it->second;
      if (!value.defined() || !value.is_quantized()) continue;
      const std::string key =
          keys.of({static_cast<int>(i), node.outputs.size() > 1 ? static_cast<int>(k) : -1});
      if (expected.contains(key) && expected[key] == hash_of_codes(value.contiguous()))
        differ.erase(key);
      else
        differ.insert(key);
    }
  }
  expect_difference(name, "codes", fmt::format("{}", fmt::join(differ, ", ")));
}

TEST_P(GoldenFxOutputs, Lowered) {
  expect_difference(name, "lowered", difference_of(*lowered, answers["lowered"], false));
}

TEST_P(GoldenFxOutputs, Reference) {
  const json& expected = answers.contains("reference") ? answers["reference"] : answers["lowered"];
  expect_difference(name, "reference", difference_of(*reference, expected, true));
}

// Given the same operands.
TEST_P(GoldenFxOutputs, ReferenceAndLoweredAreWithinOneStepAtEveryValue) {
  auto recorder = nn::make<Recorder>(*lowered);
  recorder->eval();
  (void)recorder->forward(inputs);
  auto compared = nn::make<Compared>(*reference, recorder->seen);
  compared->eval();
  (void)compared->forward(inputs);
  EXPECT_LE(compared->worst, 1) << compared->where;
  EXPECT_LE(compared->differ, compared->values / 50) << "more than ties";
}

}  // namespace
}  // namespace octet::testing
