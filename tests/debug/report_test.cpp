// What the reports hold, whether the page is valid HTML, and what a browser makes of it.
#include "octet/debug/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <regex>

#include "tests/debug/compare_networks.h"
#include "tests/debug/page_test_util.h"

namespace octet::testing {
namespace {

using debug::Comparison;
using debug::Fault;
using debug::LayerComparison;

// A chain with branches of so many layers, as compare() might give it.
Comparison many_layers(int n) {
  Comparison c;
  c.samples = 512;
  c.has_top1 = true;
  c.float_top1 = 0.8;
  c.quantized_top1 = 0.79;
  c.agreement = 0.97;
  c.outputs.push_back({"y", 31.5, 0.25, 0.999});
  c.float_ms = 2, c.quantized_ms = 0.5;
  c.float_bytes = 4000000, c.quantized_bytes = 1000000;
  c.float_memory_bytes = 400000, c.quantized_memory_bytes = 100000;
  for (int i = 0; i < n; ++i) {
    LayerComparison l;
    l.name = "block" + std::to_string(i / 4) + ".conv" + std::to_string(i % 4);
    l.op = i % 4 == 3 ? "add" : "conv2d";
    l.value = "v" + std::to_string(i);
    l.shape = "(N, 64, 8, 8)";
    l.matched = l.quantized = true;
    if (i > 0) l.operands.push_back(i - 1);
    if (i % 4 == 3) l.operands.push_back(i - 3);
    l.sqnr = 45 - i % 50, l.own_sqnr = 48 - i % 30, l.inherited_sqnr = 40;
    l.activation_sqnr = 42, l.weight_sqnr = i % 4 == 3 ? NAN : 41, l.weight_error_sqnr = NAN;
    l.cosine = 0.99, l.max_error = 0.1, l.scale = 0.02, l.quant_max = 255, l.own_scale = true;
    l.codes_used = 250, l.clipped = 0.001, l.clipping_share = 0.1;
    l.histogram.assign(512, 0);
    for (size_t k = 100; k < 400; ++k)
      l.histogram[k] = 1 + (k * 7919 + static_cast<size_t>(i)) % 5000;
    l.min = -0.5, l.max = 5.5;
    for (int64_t s = 1; s <= 512; s *= 2)
      l.calibration.push_back({s, -0.5F, static_cast<float>(5 + 0.05 * std::log2(s))});
    l.largest = {5.5F, 5.4F}, l.largest_samples = {17, 3}, l.stretched_by = 17;
    for (int64_t k = 0; k < 8; ++k)
      l.worst_channels.push_back({k, 20.0 + static_cast<double>(k), 40});
    l.noise_share = i < 24 ? 1 / 24.0 : NAN, l.alone_sqnr = NAN, l.time_share = 1.0 / n;
    if (i % 100 == 7) {
      l.fault = Fault::scale_too_large;
      l.sentence = "its scale is about 8 times too large";
      l.trials.push_back({"observer minmax", 33, 1.5});
    }
    c.layers.push_back(std::move(l));
  }
  debug::rank(c);
  return c;
}

TEST(Report, NumbersThatJsonLacksAreWords) {
  Comparison c = many_layers(4);
  c.layers[1].sqnr = INFINITY;
  c.layers[2].own_sqnr = NAN;
  const Json json = Json::parse(debug::to_json(c, {.float_name = "a", .quantized_name = "b"}));
  EXPECT_EQ(json["layers"][1]["sqnr_db"], "exact");
  EXPECT_TRUE(json["layers"][2]["own_sqnr_db"].is_null());
  EXPECT_NEAR(json["drop_points"], 1.0, 1e-9);
  EXPECT_EQ(json["float"], "a");
  EXPECT_FALSE(json["layers"][0].contains("histogram"));
}

TEST(Report, HistogramsKeepAllValues) {
  for (int n : {4, 3000}) {
    const Comparison c = many_layers(n);
    uint64_t all = 0, shown = 0;
    for (uint64_t count : c.layers[0].histogram) all += count;
    const Json data = data_of(debug::html_report(c));
    for (const Json& count : data["layers"][0]["histogram"]) shown += count.get<uint64_t>();
    EXPECT_EQ(shown, all) << n;
  }
}

TEST(Report, NoNameEndsTheScriptOrTheXml) {
  Comparison c = many_layers(2);
  c.layers[0].name = "</script><script>alert(1)</script>\"'&";
  const std::string page = debug::html_report(c);
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_EQ(data_of(page)["layers"][0]["name"], c.layers[0].name);
  const std::string xml = debug::junit_report({{"a<b", "x < \"y\" & z", false}}, "s>");
  EXPECT_NE(xml.find("message=\"x &lt; &quot;y&quot; &amp; z\""), std::string::npos) << xml;
  EXPECT_NE(xml.find("name=\"a&lt;b\""), std::string::npos) << xml;
}

TEST(Report, APageOfThousandsOfLayersStaysUnderFiveMegabytes) {
  EXPECT_LT(debug::html_report(many_layers(3000)).size(), 5'000'000u);
}

TEST(Report, WhatWasTriedIsACurveAndATable) {
  const debug::Comparison c = many_layers(2);
  const std::vector<debug::TriedNetwork> tried{{"<slow>", 0.9, 0.5, 2000, true, false},
                                               {"fast", 0.8, 0.3, 1000, true, true},
                                               {"beaten", 0.7, 0.4, 1000, false, false}};
  const std::string page = debug::html_report(c, {.tried = tried, .score_name = "top-1"});
  expect_valid_html(page);
  for (const char* part :
       {"Networks that were tried", "top-1", "&lt;slow&gt;", "cost 0.5", "polyline"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  EXPECT_EQ(page.find("<slow>"), std::string::npos);
  EXPECT_EQ(debug::html_report(c).find("Networks that were tried"), std::string::npos);
}

TEST(Report, ThePageIsValidHtml) { expect_valid_html(debug::html_report(many_layers(40))); }

TEST(Report, TextHasTheContrastOfWcagAa) { expect_contrast(debug::html_report(many_layers(2)), 5); }

// -- in Debian's Chromium -------------------------------------------------------------------------

TEST(BrowserReport, AnErrorOfTheScriptWouldBeSeen) {
  OCTET_NEED_BROWSER();
  std::string page = debug::html_report(many_layers(4));
  page.replace(page.find("id=\"rows\""), 9, "id=\"gone\"");
  TempDir dir;
  EXPECT_NE(said(dom_of(dir, page), "error"), "");
}

TEST(BrowserReport, ShowsSummaryFindingsDetailsAndTable) {
  OCTET_NEED_BROWSER();
  TempDir dir;
  const std::string dom =
      dom_of(dir, debug::html_report(many_layers(130),
                                     {.float_name = "net.onnx", .quantized_name = "net.octet"}));
  for (const char* part :
       {"net.octet beside net.onnx", "80.0%", "79.0%", "-1.00 points", "4.00 times faster",
        "31.5 dB", "its scale is about 8 times too large", "Tried: observer minmax, +1.5 dB",
        "Layer block1.conv3", "Range against samples", "Worst channels", "<svg",
        "100 of 130 layers", "aria-sort=\"ascending\""})
    EXPECT_NE(dom.find(part), std::string::npos) << part;
}

TEST(BrowserReport, OpensWithoutErrorsWithinTwoSeconds) {
  OCTET_NEED_BROWSER();
  for (int layers : {1, 130, 5000}) expect_opens(debug::html_report(many_layers(layers)));
}

TEST(BrowserReport, WhatTheScriptMakesIsValidHtmlToo) {
  OCTET_NEED_BROWSER();
  expect_valid_html(dom_of(TempDir(), debug::html_report(many_layers(130))));
}

TEST(BrowserReport, ThousandsOfLayersMoveFluidly) {
  OCTET_NEED_BROWSER();
  EXPECT_EQ(move_around(debug::html_report(many_layers(5000))), "Layer block4.conv1")
      << "ten layers behind the worst, number 7";
}

TEST(BrowserReport, LightAndDarkAreDrawn) {
  OCTET_NEED_BROWSER();
  expect_light_and_dark(debug::html_report(many_layers(60)));
}

TEST(BrowserReport, AxeFindsNothing) {
  OCTET_NEED_AXE();
  expect_accessible(debug::html_report(many_layers(130)));
}

}  // namespace
}  // namespace octet::testing
