// What the reports hold, whether the page is valid HTML, and what a browser makes of it.
#include "octet/debug/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "tests/debug/compare_networks.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using debug::Comparison;
using debug::Fault;
using debug::LayerComparison;
using Json = nlohmann::json;

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

Json data_of(const std::string& page) {
  const size_t begin = page.find("id=\"data\">") + 10, end = page.find("</script>", begin);
  return Json::parse(page.substr(begin, end - begin), nullptr, false);
}

void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string program(const std::string& name) {
  for (const char* folder : {"/usr/bin/", "/usr/local/bin/"})
    if (std::ifstream(folder + name).good()) return folder + name;
  return "";
}

RunResult run_program(const std::string& name, const std::vector<std::string>& options) {
  std::vector<std::string> args{name};
  args.insert(args.end(), options.begin(), options.end());
  return run_process(args);
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

TEST(Report, ThePageIsValidHtml) {
  const std::string tidy = program("tidy");
  if (tidy.empty()) GTEST_SKIP() << "tidy, Debian's package of that name, is not installed";
  TempDir dir;
  write(dir / "page.html", debug::html_report(many_layers(40)));
  const RunResult r = run_program(tidy, {"-q", "-e", dir / "page.html"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.err, "");
}

// WCAG 2's contrast of two colours "#rrggbb".
double contrast(const std::string& a, const std::string& b) {
  const auto luminance = [](const std::string& colour) {
    double sum = 0;
    for (int c = 0; c < 3; ++c) {
      const double v =
          std::stoi(colour.substr(static_cast<size_t>(1 + 2 * c), 2), nullptr, 16) / 255.0;
      sum += (v <= 0.03928 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4)) * (c == 0   ? 0.2126
                                                                                : c == 1 ? 0.7152
                                                                                         : 0.0722);
    }
    return sum;
  };
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

TEST(Report, TextHasTheContrastOfWcagAa) {
  const std::string page = debug::html_report(many_layers(2));
  EXPECT_NEAR(contrast("#000000", "#ffffff"), 21, 1e-9);
  // Light, dark and print each define all colours.
  int palettes = 0;
  for (size_t at = page.find(":root {"); at != std::string::npos;
       at = page.find(":root {", at + 1)) {
    const std::string block = page.substr(at, page.find('}', at) - at);
    std::map<std::string, std::string> colours;
    const std::regex variable("--([a-z]+): (#[0-9a-f]{6})");
    for (std::sregex_iterator i(block.begin(), block.end(), variable), end; i != end; ++i)
      colours[(*i)[1]] = (*i)[2];
    ++palettes;
    for (const char* ground : {"page", "panel", "grid"})
      for (const char* ink : {"text", "quiet", "link", "bad", "good"}) {
        if (ground == std::string("grid") && ink != std::string("text") &&
            ink != std::string("link"))
          continue;
        EXPECT_GE(contrast(colours.at(ink), colours.at(ground)), 4.5)
            << ink << " on " << ground << " of palette " << palettes;
      }
    // Parts of charts.
    for (const char* part : {"bar", "cut"})
      EXPECT_GE(contrast(colours.at(part), colours.at("panel")), 3)
          << part << " of palette " << palettes;
  }
  EXPECT_EQ(palettes, 3);
  int layers = 0;
  const std::regex kind("fill: '(#[0-9a-f]{6})', ink: '(#[0-9a-f]{6})'");
  for (std::sregex_iterator i(page.begin(), page.end(), kind), end; i != end; ++i, ++layers)
    EXPECT_GE(contrast((*i)[1], (*i)[2]), 4.5) << (*i)[0];
  EXPECT_EQ(layers, 5);
}

// -- in Debian's Chromium -------------------------------------------------------------------------

#define OCTET_NEED_BROWSER()       \
  if (program("chromium").empty()) \
  GTEST_SKIP() << "chromium is not installed: scripts/setup.sh browser"

std::vector<std::string> browser_options(const TempDir& dir) {
  return {"--headless",
          "--no-sandbox",
          "--disable-gpu",
          "--hide-scrollbars",
          "--window-size=1300,2400",
          "--user-data-dir=" + (dir / "profile").string()};
}

// The document after its scripts have run.
std::string dom_of(const TempDir& dir, const std::string& page,
                   std::vector<std::string> more = {}) {
  write(dir / "page.html", page);
  std::vector<std::string> args = browser_options(dir);
  args.insert(args.end(), more.begin(), more.end());
  args.insert(args.end(), {"--dump-dom", "file://" + (dir / "page.html").string()});
  const RunResult r = run_program(program("chromium"), args);
  EXPECT_EQ(r.code, 0) << r.err;
  return r.out;
}

// What the page says of itself: <html data-NAME="...">.
std::string said(const std::string& dom, const std::string& name) {
  std::smatch found;
  const std::string head = dom.substr(0, 2000);
  return std::regex_search(head, found, std::regex("data-" + name + "=\"([^\"]*)\""))
             ? found[1].str()
             : "";
}

TEST(BrowserReport, OpensWithoutErrorsWithinTwoSeconds) {
  OCTET_NEED_BROWSER();
  for (int layers : {1, 130, 5000}) {
    TempDir dir;
    const std::string dom = dom_of(dir, debug::html_report(many_layers(layers)));
    EXPECT_EQ(said(dom, "error"), "") << layers;
    ASSERT_NE(said(dom, "ready"), "") << layers;
    EXPECT_LT(std::stoi(said(dom, "ready")), 2000) << layers << " layers, milliseconds";
  }
}

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

TEST(BrowserReport, WhatTheScriptMakesIsValidHtmlToo) {
  OCTET_NEED_BROWSER();
  const std::string tidy = program("tidy");
  if (tidy.empty()) GTEST_SKIP() << "tidy, Debian's package of that name, is not installed";
  TempDir dir;
  const std::string dom = dom_of(dir, debug::html_report(many_layers(130)));
  write(dir / "dom.html", dom);
  const RunResult r = run_program(tidy, {"-q", "-e", dir / "dom.html"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.err, "");
}

// Key and mouse events as a user gives them, in a page of thousands of layers; each frame is drawn
// at once and read back, so that its time is known.
TEST(BrowserReport, ThousandsOfLayersMoveFluidly) {
  OCTET_NEED_BROWSER();
  std::string page = debug::html_report(many_layers(5000));
  const std::string first =
      "<script>window.requestAnimationFrame = f => { f(); return 0; };</script>\n";
  page.insert(page.find("<script type=\"application/json\""), first);
  page.insert(page.find("</body>"), R"(<script>
(() => {
const canvas = document.getElementById('graph'), pen = canvas.getContext('2d');
const out = document.documentElement.dataset;
const frame = e => {
  const t = performance.now();
  canvas.dispatchEvent(e);
  pen.getImageData(1, 1, 1, 1);
  return performance.now() - t;
};
const wheel = d =>
  new WheelEvent('wheel', {deltaY: d, clientX: 400, clientY: 500, cancelable: true});
const key = k => new KeyboardEvent('keydown', {key: k, cancelable: true});
const times = [];
frame(key('0'));  // all layers in sight
for (let i = 0; i < 20; ++i) times.push(frame(wheel(-100)));
for (let i = 0; i < 20; ++i) times.push(frame(wheel(100)));
for (let i = 0; i < 10; ++i) times.push(frame(key('ArrowRight')));
times.sort((a, b) => a - b);
out.median = Math.round(times[times.length >> 1]);
out.chosen = document.getElementById('detail-title').textContent;
})();
</script>
)");
  TempDir dir;
  const std::string dom = dom_of(dir, page);
  EXPECT_EQ(said(dom, "error"), "");
  ASSERT_NE(said(dom, "median"), "");
  EXPECT_LT(std::stoi(said(dom, "median")), 50) << "milliseconds a frame";
  EXPECT_EQ(said(dom, "chosen"), "Layer block4.conv1") << "ten layers behind the worst, number 7";
}

TEST(BrowserReport, LightAndDarkAreDrawn) {
  OCTET_NEED_BROWSER();
  TempDir dir;
  write(dir / "page.html", debug::html_report(many_layers(60)));
  std::vector<std::string> shots;
  for (const std::string scheme : {"1", "0"}) {
    std::vector<std::string> args = browser_options(dir);
    const std::string shot = dir / ("shot" + scheme + ".png");
    args.insert(args.end(),
                {"--virtual-time-budget=3000", "--blink-settings=preferredColorScheme=" + scheme,
                 "--screenshot=" + shot, "file://" + (dir / "page.html").string()});
    EXPECT_EQ(run_program(program("chromium"), args).code, 0);
    shots.push_back(slurp(shot));
    EXPECT_GT(shots.back().size(), 50'000u) << "an empty page is smaller";
  }
  EXPECT_NE(shots[0], shots[1]);
}

}  // namespace
}  // namespace octet::testing
