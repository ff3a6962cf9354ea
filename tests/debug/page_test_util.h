#pragma once
// What tests of pages for a browser share: programs that may be installed, the page's data, and
// what Debian's Chromium makes of it.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {

using Json = nlohmann::json;

inline Json data_of(const std::string& page) {
  const size_t begin = page.find("id=\"data\">") + 10, end = page.find("</script>", begin);
  return Json::parse(page.substr(begin, end - begin), nullptr, false);
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string program(const std::string& name) {
  for (const char* folder : {"/usr/bin/", "/usr/local/bin/"})
    if (std::ifstream(folder + name).good()) return folder + name;
  return "";
}

inline RunResult run_program(const std::string& name, const std::vector<std::string>& options) {
  std::vector<std::string> args{name};
  args.insert(args.end(), options.begin(), options.end());
  return run_process(args);
}

// WCAG 2's contrast of two colours "#rrggbb".
inline double contrast(const std::string& a, const std::string& b) {
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

#define OCTET_NEED_BROWSER()       \
  if (program("chromium").empty()) \
  GTEST_SKIP() << "chromium is not installed: scripts/setup.sh browser"

inline std::vector<std::string> browser_options(const TempDir& dir, int width = 1300) {
  return {"--headless",
          "--no-sandbox",
          "--disable-gpu",
          "--hide-scrollbars",
          fmt::format("--window-size={},2400", width),
          "--user-data-dir=" + (dir / "profile").string()};
}

// The document after its scripts have run.
inline std::string dom_of(const TempDir& dir, const std::string& page,
                          std::vector<std::string> more = {}, int width = 1300) {
  write_text(dir / "page.html", page);
  std::vector<std::string> args = browser_options(dir, width);
  args.insert(args.end(), more.begin(), more.end());
  args.insert(args.end(), {"--dump-dom", "file://" + (dir / "page.html").string()});
  const RunResult r = run_program(program("chromium"), args);
  EXPECT_EQ(r.code, 0) << r.err;
  return r.out;
}

// What the page says of itself: <html data-NAME="...">.
inline std::string said(const std::string& dom, const std::string& name) {
  std::smatch found;
  const std::string head = dom.substr(0, 2000);
  return std::regex_search(head, found, std::regex("data-" + name + "=\"([^\"]*)\""))
             ? found[1].str()
             : "";
}

// -- what holds of every page ---------------------------------------------------------------------

inline void expect_valid_html(const std::string& page) {
  const std::string tidy = program("tidy");
  if (tidy.empty()) GTEST_SKIP() << "tidy, Debian's package of that name, is not installed";
  TempDir dir;
  write_text(dir / "page.html", page);
  const RunResult r = run_program(tidy, {"-q", "-e", dir / "page.html"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.err, "");
}

// WCAG AA: 4.5 for text, 3 for parts of charts, in light, dark and print, and in the picture, whose
// nodes have so many colours.
inline void expect_contrast(const std::string& page, int kinds) {
  EXPECT_NEAR(contrast("#000000", "#ffffff"), 21, 1e-9);
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
    for (const char* part : {"bar", "cut"})
      EXPECT_GE(contrast(colours.at(part), colours.at("panel")), 3)
          << part << " of palette " << palettes;
  }
  EXPECT_EQ(palettes, 3);
  int found = 0;
  const std::regex kind("fill: '(#[0-9a-f]{6})', ink: '(#[0-9a-f]{6})'");
  for (std::sregex_iterator i(page.begin(), page.end(), kind), end; i != end; ++i, ++found)
    EXPECT_GE(contrast((*i)[1], (*i)[2]), 4.5) << (*i)[0];
  EXPECT_EQ(found, kinds);
}

// Opens the page, whose script says a time in milliseconds of itself: without an error, and below
// the limit in the best of three openings, as other tests run beside this one. The last document.
inline std::string expect_time_below(const std::string& page, const std::string& name, int limit) {
  TempDir dir;
  std::string dom;
  int least = std::numeric_limits<int>::max();
  for (int opening = 0; opening < 3 && least >= limit; ++opening) {
    dom = dom_of(dir, page);
    EXPECT_EQ(said(dom, "error"), "");
    const std::string time = said(dom, name);
    EXPECT_NE(time, "") << name;
    if (time.empty()) return dom;
    least = std::min(least, std::stoi(time));
  }
  EXPECT_LT(least, limit) << "milliseconds, " << name;
  return dom;
}

inline void expect_opens(const std::string& page) { expect_time_below(page, "ready", 2000); }

// Gives the page key and mouse events as a user does; each frame is drawn at once and read back, so
// that its time is known. The heading of the details after ten times an arrow key to the right.
inline std::string move_around(std::string page) {
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
  return said(expect_time_below(page, "median", 50), "chosen");
}

inline void expect_light_and_dark(const std::string& page) {
  TempDir dir;
  write_text(dir / "page.html", page);
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

// -- axe-core, a checker of accessibility ---------------------------------------------------------

#define OCTET_NEED_AXE()      \
  OCTET_NEED_BROWSER();       \
  if (!std::getenv("AXE_JS")) \
  GTEST_SKIP() << "AXE_JS does not name an axe.min.js (npm install --ignore-scripts axe-core)"

// The rules of axe-core that the page breaks, each with an element that does; or "none".
inline std::string broken_rules(std::string page, bool light = true, int width = 1300) {
  page.insert(page.find("</body>"), "<script>" + slurp(std::getenv("AXE_JS")) + R"(</script><script>
axe.run().then(result => {
  const out = document.documentElement.dataset;
  out.axe = result.violations.map(v => v.id + ' (' + v.nodes[0].target + ')').join('; ') || 'none';
  out.passes = result.passes.length;
});
</script>
)");
  const std::string dom =
      dom_of(TempDir(), page,
             {"--virtual-time-budget=20000",
              "--blink-settings=preferredColorScheme=" + std::string(light ? "1" : "0")},
             width);
  EXPECT_GT(std::atoi(said(dom, "passes").c_str()), 40) << "rules that were checked";
  return said(dom, "axe");
}

inline void expect_accessible(const std::string& page) {
  for (const bool light : {true, false})
    for (const int width : {1300, 500})
      EXPECT_EQ(broken_rules(page, light, width), "none") << (light ? "light " : "dark ") << width;
}

}  // namespace octet::testing
