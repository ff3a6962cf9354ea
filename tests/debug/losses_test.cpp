// What is said of a pair of a float and a quantized graph whose outputs differ too much.
#include "octet/debug/losses.h"
#include "tests/graph_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"

namespace octet::debug {
namespace {

using graph::Graph;
using testing::parse_body;

Tensor images(int64_t n, uint64_t seed, double scale = 1) {
  return Tensor::randn({n, 2, 4, 4}, seed) * scale;
}

TEST(Losses, APoorOutputIsNamedWithTheNodeWhereTheErrorGrows) {
  // The second convolution has one scale for its whole input, whose second channel is 3000 times
  // the first; it uses the first.
  Graph g = parse_body(
      "%x: Float(N, 2, 4, 4) = input\n%v: Float(2, 2, 1, 1) = constant [1, 0, 0, 3000]\n"
      "%w: Float(1, 2, 1, 1) = constant [1, 0]\n"
      "%a: Float(N, 2, 4, 4) = conv2d(%x, %v)  @ conv1\n%y: Float(N, 1, 4, 4) = conv2d(%a, %w)  @ "
      "conv2\n"
      "%z: Float(N, 2, 4, 4) = exp(%x)  @ other\nreturn (%y, %z)");
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
  std::vector<std::vector<Tensor>> samples;
  for (uint64_t i = 0; i < 4; ++i) samples.push_back({images(2, 40 + i)});
  for (const auto& s : samples) prepared->forward(s);
  auto lines =
      find_losses(prepared->watched().graph, quant::convert_fx(prepared)->graph(), samples);
  ASSERT_EQ(lines.size(), 1u) << fmt::format("{}", fmt::join(lines, "\n"));
  for (const char* part :
       {"output %y", "SQNR", "under 15 dB", "grows most at conv2", "--skip 'conv2'"})
    EXPECT_NE(lines[0].find(part), std::string::npos) << "'" << part << "' is not in: " << lines[0];
}

TEST(Losses, FindLossesSaysWhatConvertSays) {
  Graph g = parse_body(
      "%a: Float(N, 2, 4, 4) = input\n%b: Float(N, 2, 4, 4) = input\n%c: Float(N, 4, 4, 4) = "
      "cat(%a, %b, dim=1)  @ join\nreturn (%c)");
  std::vector<std::vector<Tensor>> samples{{images(4, 1, 100), images(4, 2, 0.01)},
                                           {images(2, 3, 100), images(2, 4, 0.01)}};
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
  for (const auto& s : samples) prepared->forward(s);
  quant::ConversionReport report;
  Graph int8 = quant::convert_fx(prepared, &report)->graph();
  EXPECT_EQ(find_losses(prepared->watched().graph, int8, samples), report.warnings);
  EXPECT_EQ(report.warnings.size(), 1u);
}

}  // namespace
}  // namespace octet::debug
