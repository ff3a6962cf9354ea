// What is said of a quantized network that is garbage, and that nothing is said of one that is not.
#include "octet/quant/workflow/findings.h"
#include "tests/graph_text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::ValueId;
using testing::parse_body;

std::string lines_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

void expect_parts(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
}

// The warnings of quantizing `g` with samples given as batches.
std::vector<std::string> warnings(const Graph& g, const std::vector<std::vector<Tensor>>& batches,
                                  const std::string& observer = "HistogramObserver",
                                  const std::vector<std::string>& skip = {}) {
  QConfig qconfig = get_default_qconfig();
  qconfig.activation = ObserverFactory(observer);
  auto prepared = prepare_fx(g, qconfig, {skip, ""});
  for (const auto& inputs : batches) prepared->forward(inputs);
  ConversionReport report;
  convert_fx(prepared, &report);
  return report.warnings;
}

// y = conv2(relu(conv1(x))).
Graph two_convs() {
  return parse_body(
      "%x: Float(N, 2, 4, 4) = input\n%v: Float(2, 2, 1, 1) = constant [1, -1, 0.5, 0.25]\n"
      "%w: Float(2, 2, 1, 1) = constant [0.5, 1, -1, 1]\n"
      "%a: Float(N, 2, 4, 4) = conv2d(%x, %v)  @ conv1\n%r: Float(N, 2, 4, 4) = relu(%a)  @ act\n"
      "%y: Float(N, 2, 4, 4) = conv2d(%r, %w)  @ conv2\nreturn (%y)");
}

const std::string kTwoInputs = "%a: Float(N, 2, 4, 4) = input\n%b: Float(N, 2, 4, 4) = input\n";

Tensor images(int64_t n, uint64_t seed, double scale = 1) {
  return Tensor::randn({n, 2, 4, 4}, seed) * scale;
}

TEST(Findings, AnOperandThatTheCommonScaleErasesIsNamed) {
  Graph g =
      parse_body(kTwoInputs + "%c: Float(N, 4, 4, 4) = cat(%a, %b, dim=1)  @ join\nreturn (%c)");
  auto text = lines_of(warnings(g, {{images(4, 1, 100), images(4, 2, 0.01)}}));
  expect_parts(
      text, {"join (cat)", "operand %b", "%a", "within one step", "common scale", "--skip 'join'"});
  EXPECT_EQ(lines_of(warnings(g, {{images(4, 1), images(4, 2, 0.2)}})), "");
  EXPECT_EQ(lines_of(warnings(g, {{images(4, 1, 100), images(4, 2, 0)}})), "")
      << "nothing but zeros is lost";
}

TEST(Findings, SoIsOneOfASumAndOneOfAFloatCatThatALayerQuantizes) {
  Graph sum = parse_body(kTwoInputs + "%c: Float(N, 2, 4, 4) = add(%a, %b)  @ sum\nreturn (%c)");
  expect_parts(lines_of(warnings(sum, {{images(4, 1, 0.01), images(4, 2, 100)}})),
               {"sum (add)", "operand %a", "result's scale", "%b"});
  Graph layer =
      parse_body(kTwoInputs +
                 "%c: Float(N, 4, 4, 4) = cat(%a, %b, dim=1)  @ join\n%w: Float(1, 4, 1, 1) = "
                 "constant [1, 1, 1, 1]\n"
                 "%y: Float(N, 1, 4, 4) = conv2d(%c, %w)  @ conv\nreturn (%y)");
  expect_parts(lines_of(warnings(layer, {{images(4, 1, 100), images(4, 2, 0.01)}})),
               {"join (cat)", "--skip 'join' --skip 'conv'"});
}

TEST(Findings, AnOutlierThatLeavesOneCodeForTheRestIsNamedWithItsSample) {
  for (const std::string observer : {"HistogramObserver", "MinMaxObserver", "MSEObserver"})
    for (int64_t batch : {1, 3, 20}) {
      Tensor x = images(20, 3);
      x.data<float>()[13 * 32 + 7] = 1e37f;
      std::vector<std::vector<Tensor>> batches;
      for (int64_t i = 0; i < 20; i += batch)
        batches.push_back({x.slice(0, i, std::min<int64_t>(20, i + batch)).contiguous()});
      auto text = lines_of(warnings(two_convs(), batches, observer));
      expect_parts(text, {"%x", "sample 13", "1e+37", "one code", "behind it", "--skip 'conv1'"});
      EXPECT_EQ(text.find("percentile"), std::string::npos)
          << "its histogram cannot tell the rest from 0 either: " << text;
    }
}

TEST(Findings, ASampleOfAnotherMagnitudeIsNamed) {
  Tensor x = images(20, 4);
  for (int64_t i = 0; i < 32; ++i) x.data<float>()[9 * 32 + i] *= 1e6f;
  expect_parts(lines_of(warnings(two_convs(), {{x}})),
               {"%x", "sample 9 has the range", "one code"});
}

TEST(Findings, PercentileIsACureWhereItIs) {
  Tensor x = Tensor::randn({64, 2, 32, 32}, 5);
  x.data<float>()[100] = 3000;
  Graph g = parse_body(
      "%x: Float(N, 2, 32, 32) = input\n%w: Float(2, 2, 1, 1) = constant [1, -1, 0.5, 0.25]\n"
      "%y: Float(N, 2, 32, 32) = conv2d(%x, %w)  @ conv\nreturn (%y)");
  expect_parts(lines_of(warnings(g, {{x}}, "MinMaxObserver")),
               {"%x", "sample 0 holds 3000", "--observer percentile"});
  EXPECT_EQ(lines_of(warnings(g, {{x}}, "PercentileObserver")), "");
}

TEST(Findings, OrdinaryDataGivesNone) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    std::vector<std::vector<Tensor>> batches;
    for (uint64_t i = 0; i < 6; ++i) batches.push_back({images(4, 10 * seed + i, i == 0 ? 3 : 1)});
    EXPECT_EQ(lines_of(warnings(two_convs(), batches)), "") << seed;
  }
  Tensor sparse = Tensor::zeros({8, 2, 4, 4});
  sparse.data<float>()[77] = 5;
  EXPECT_EQ(lines_of(warnings(two_convs(), {{sparse}})), "")
      << "one value among zeros: nothing is lost";
}

}  // namespace
}  // namespace octet::quant
