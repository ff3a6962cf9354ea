// octet compare, and octet quantize --report.
#include <filesystem>

#include "octet/io/octet_file.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

using Json = nlohmann::json;

// The glyph network in 8 bits, and what to compare it on.
struct Glyphs {
  TempDir dir;
  std::string quantized = dir / "q.octet";
  Glyphs() { quantize_glyphs(quantized); }
  std::vector<std::string> args(std::vector<std::string> more = {}) const {
    std::vector<std::string> all{"compare", kNet, quantized, "--data", kTest, "--samples", "128"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST(CliCompare, ShowsEveryLayerAndBothAccuracies) {
  OCTET_NEED_PROGRAM();
  const Glyphs glyphs;
  const Json json = json_of(run_octet(glyphs.args({"--json"})));
  EXPECT_EQ(json["samples"], 128);
  for (const char* of : {"float", "quantized"}) {
    const std::string model = of == std::string("float") ? kNet : glyphs.quantized;
    const Json eval =
        json_of(run_octet({"eval", model, "--data", kTest, "--samples", "128", "--json"}));
    EXPECT_EQ(json[of + std::string("_top1")], eval["top1"]) << of;
  }
  EXPECT_GT(json["outputs"][0]["sqnr_db"], 20);
  EXPECT_GT(json["float_weight_bytes"], 3 * json["quantized_weight_bytes"].get<int64_t>());
  EXPECT_EQ(json["unmatched"], 0);
  // Every 8-bit operator has its numbers.
  std::map<std::string, Json> layers;
  for (const Json& layer : json["layers"]) layers[layer["name"]] = layer;
  for (const std::string& name : placed(glyphs.quantized).quantized) {
    ASSERT_TRUE(layers.count(name)) << name;
    EXPECT_TRUE(layers[name]["matched"]) << name;
    EXPECT_TRUE(layers[name]["sqnr_db"].is_number()) << name;
    EXPECT_TRUE(layers[name]["fault"].is_null()) << layers[name];
  }
  EXPECT_EQ(json["ranking"].size(), json["layers"].size());
}

TEST(CliCompare, TheTextHasTheWorstLayersFirst) {
  OCTET_NEED_PROGRAM();
  const Glyphs glyphs;
  const Json json = json_of(run_octet(glyphs.args({"--json"})));
  const RunResult r = run_octet(glyphs.args({"--top", "2"}));
  expect_success(r);
  for (const char* part : {"top-1", "latency", "SQNR", "weights", "memory", "own", "clipped"})
    EXPECT_TRUE(contains(r.out, part)) << part << " is not in: " << r.out;
  const std::string first = json["layers"][json["ranking"][0].get<size_t>()]["name"],
                    third = json["layers"][json["ranking"][2].get<size_t>()]["name"];
  EXPECT_TRUE(contains(r.out, "\n" + first + " ")) << r.out;
  EXPECT_FALSE(contains(r.out, "\n" + third + " ")) << r.out;
  EXPECT_TRUE(contains(r.out, "more (--top N)")) << r.out;
}

TEST(CliCompare, ANetworkIsExactlyItself) {
  OCTET_NEED_PROGRAM();
  const Json json =
      json_of(run_octet({"compare", kNet, kNet, "--data", kTest, "--samples", "32", "--json"}));
  EXPECT_EQ(json["outputs"][0]["sqnr_db"], "exact");
  for (const Json& layer : json["layers"]) EXPECT_EQ(layer["sqnr_db"], "exact") << layer;
}

TEST(CliCompare, GatesThatHoldPass) {
  OCTET_NEED_PROGRAM();
  const Glyphs glyphs;
  const RunResult r =
      run_octet(glyphs.args({"--max-drop", "100", "--min-sqnr", "1", "--min-speedup", "0.01",
                             "--junit", glyphs.dir / "out.xml"}));
  expect_success(r);
  for (const char* gate : {"ok: max-drop", "ok: min-sqnr", "ok: min-speedup"})
    EXPECT_TRUE(contains(r.out, gate)) << r.out;
  const std::string xml = slurp(glyphs.dir / "out.xml");
  EXPECT_TRUE(contains(xml, "tests=\"3\" failures=\"0\"")) << xml;
}

TEST(CliCompare, GatesThatDoNotHoldFailWithTheReason) {
  OCTET_NEED_PROGRAM();
  const Glyphs glyphs;
  const RunResult r =
      run_octet(glyphs.args({"--min-sqnr", "120", "--min-speedup", "10000", "--max-drop", "100",
                             "--junit", glyphs.dir / "out.xml"}));
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.out, "top-1")) << "the table is printed all the same: " << r.out;
  for (const char* part : {"octet: error: --min-sqnr: the SQNR of output", "(at least 120)",
                           "--min-speedup: ", "(at least 10000)"})
    EXPECT_TRUE(contains(r.err, part)) << part << " is not in: " << r.err;
  EXPECT_FALSE(contains(r.err, "max-drop")) << r.err;
  EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << "not one line: " << r.err;
  const std::string xml = slurp(glyphs.dir / "out.xml");
  EXPECT_TRUE(contains(xml, "tests=\"3\" failures=\"2\"")) << xml;
  EXPECT_TRUE(contains(xml, "<failure message=\"the SQNR of output")) << xml;
}

TEST(CliCompare, WhatCannotBeComparedIsSaid) {
  OCTET_NEED_PROGRAM();
  const Glyphs glyphs;
  expect_failure(run_octet(glyphs.args({"--junit", glyphs.dir / "out.xml"})), 2, {"--junit"});
  expect_failure(run_octet({"compare", kNet, glyphs.quantized, "--data", "no.npz"}), 1, {"no.npz"});
  // Calibration data without labels.
  TempDir dir;
  write_npz(dir / "x.npz", {{"images", read_npz(kTest, {"images"}).at("images").slice(0, 0, 4)}});
  expect_failure(
      run_octet({"compare", kNet, glyphs.quantized, "--data", dir / "x.npz", "--max-drop", "1"}), 1,
      {"--max-drop needs labels"});
  // Another network.
  graph::Graph other;
  const auto x =
      other.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(1), Dim(5), Dim(5)}));
  other.set_outputs({other.add_call("y", "relu", {x})});
  io::save_octet(other, dir / "other.octet");
  expect_failure(run_octet({"compare", kNet, dir / "other.octet", "--data", kTest}), 1,
                 {"compare: ", "input"});
}

TEST(CliCompare, NothingElseIsWrittenOver) {
  OCTET_NEED_PROGRAM();
  const Glyphs glyphs;
  const std::string before = slurp(glyphs.quantized);
  expect_failure(run_octet(glyphs.args({"--html", glyphs.quantized})), 1, {"is also the input"});
  write_npz(glyphs.dir / "x.npz", {{"a", Tensor::ones({2})}});
  expect_failure(run_octet(glyphs.args({"--html", glyphs.dir / "x.npz"})), 1,
                 {"is no page of HTML"});
  expect_failure(run_octet(glyphs.args({"--min-sqnr", "1", "--junit", glyphs.dir / "x.npz"})), 1,
                 {"is no XML"});
  EXPECT_EQ(slurp(glyphs.quantized), before);
  // A page of before is.
  expect_success(run_octet(glyphs.args({"--html", glyphs.dir / "page.html"})));
  expect_success(run_octet(glyphs.args({"--html", glyphs.dir / "page.html"})));
}

TEST(CliCompare, ThePageIsOneFileWithoutLinks) {
  OCTET_NEED_PROGRAM();
  const Glyphs glyphs;
  const RunResult r = run_octet(glyphs.args({"--html", glyphs.dir / "page.html"}));
  expect_success(r);
  const std::string page = slurp(glyphs.dir / "page.html");
  EXPECT_EQ(page.rfind("<!DOCTYPE html>", 0), 0u);
  EXPECT_FALSE(contains(page, "src=")) << "a page that needs other files";
  EXPECT_FALSE(contains(page, "https://")) << "a page that needs the network";
  const size_t begin = page.find("id=\"data\">") + 10, end = page.find("</script>", begin);
  const Json data = Json::parse(page.substr(begin, end - begin), nullptr, false);
  ASSERT_TRUE(data.is_object());
  size_t histograms = 0, trials = 0;
  for (const Json& layer : data["layers"]) {
    if (layer.contains("histogram")) {
      ++histograms;
      uint64_t sum = 0;
      for (const Json& n : layer["histogram"]) sum += n.get<uint64_t>();
      EXPECT_GT(sum, 0u);
    }
    trials += layer.contains("trials");
  }
  EXPECT_GT(histograms, 3u);
  EXPECT_GT(trials, 0u) << "advice is tried for a page";
}

TEST(CliQuantizeReport, WritesThePageOfWhatItMade) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet", {"--report", dir / "page.html"});
  EXPECT_TRUE(contains(slurp(dir / "page.html"), "</html>"));
  EXPECT_TRUE(std::filesystem::exists(dir / "q.octet"));
  expect_failure(run_octet({"quantize", kNet, "--mode", "dynamic", "-o", dir / "d.octet",
                            "--report", dir / "d.html"}),
                 2, {"--report", "--calibrate"});
}

}  // namespace
}  // namespace octet::testing
