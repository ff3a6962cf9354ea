// octet run, inspect, convert, bench and eval.
#include "octet/base/cpu.h"
#include "octet/io/module_file.h"
#include "octet/nn/activation.h"
#include "octet/nn/containers.h"
#include "octet/nn/linear.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

// Three test images as an .npy, and the argument that gives them to the glyph network.
std::string three_images(const TempDir& dir) {
  write_npy(dir / "x.npy", read_npz(kTest, {"images"}).at("images").slice(0, 0, 3));
  return "images=" + (dir / "x.npy").string();
}

TEST(CliRun, WritesEveryOutputUnderItsName) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet({"run", kNet, "--input", three_images(dir), "--output", dir / "y.npz"});
  expect_success(r);
  auto y = read_npz(dir / "y.npz");
  ASSERT_EQ(y.size(), 1u);
  const auto& [name, value] = *y.begin();
  EXPECT_EQ(value.shape(), (Shape{3, 32}));
  EXPECT_EQ(r.out, name + ": Float(3, 32)\n");
}

TEST(CliRun, SameBytesForAnyThreadsAndInstructions) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  std::string input = three_images(dir);
  auto bytes = [&](RunOptions options, std::vector<std::string> more = {}) {
    std::vector<std::string> args{"run", dir / "q.octet", "--input",
                                  input, "--output",      dir / "y.npz"};
    args.insert(args.end(), more.begin(), more.end());
    EXPECT_EQ(run_octet(args, options).err, "");
    return slurp(dir / "y.npz");
  };
  std::string expected = bytes({}, {"--engine", "reference"});
  for (Isa isa : supported_isas())
    for (const std::string threads : {"1", "2"})
      EXPECT_EQ(bytes({.env = {{"OCTET_ISA", to_string(isa)}}}, {"--threads", threads}), expected)
          << to_string(isa) << ", " << threads << " threads";
}

// oneDNN's kernels of codes, and on an instruction set whose sums it would saturate native's in
// their place.
TEST(CliRun, SameBytesOnOneDnnWhateverItsInstructions) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  auto run = [&](const std::string& engine, const std::string& isa) {
    return run_octet({"run", dir / "q.octet", "--input", three_images(dir), "--output",
                      dir / "y.npz", "--engine", engine},
                     {.env = {{"ONEDNN_MAX_CPU_ISA", isa}}});
  };
  expect_success(run("reference", "DEFAULT"));
  const std::string expected = slurp(dir / "y.npz");
  for (const std::string isa : {"DEFAULT", "AVX512_CORE", "AVX2"}) {
    const RunResult r = run("onednn", isa);
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(slurp(dir / "y.npz"), expected) << isa;
    if (isa == "AVX2") {
      EXPECT_TRUE(contains(r.err, "conv2d")) << r.err;
    }
  }
}

TEST(CliRun, SaysWhatAChosenEngineHasNoKernelFor) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  auto run = [&](const std::string& engine) {
    return run_octet({"run", dir / "q.octet", "--input", three_images(dir), "--output",
                      dir / "y.npz", "--engine", engine});
  };
  RunResult r = run("onednn");
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(contains(r.err, "octet: note: onednn has no kernel for ")) << r.err;
  EXPECT_TRUE(contains(r.err, "dequantize")) << r.err;
  EXPECT_TRUE(contains(r.err, "; native runs them")) << r.err;
  EXPECT_EQ(run("x86").err, "");
}

TEST(CliEval, SameAccuracyForAnyBatchOfTheData) {
  OCTET_NEED_PROGRAM();
  auto all = json_of(run_octet({"eval", kNet, "--data", kTest, "--json"}));
  auto some = json_of(run_octet({"eval", kNet, "--data", kTest, "--json", "--samples", "33"}));
  EXPECT_EQ(all["samples"], 2000);
  EXPECT_EQ(some["samples"], 33);
  RunResult text = run_octet({"eval", kNet, "--data", kTest, "--samples", "33"});
  expect_success(text);
  EXPECT_EQ(text.out.rfind("top-1 ", 0), 0u) << text.out;
  EXPECT_TRUE(contains(text.out, "of 33 right")) << text.out;
}

TEST(CliEval, PreprocessingIsApplied) {
  OCTET_NEED_PROGRAM();
  double plain = json_of(run_octet({"eval", kNet, "--data", kTest, "--json"}))["top1"];
  double black =
      json_of(run_octet({"eval", kNet, "--data", kTest, "--json", "--scale", "1e-9"}))["top1"];
  EXPECT_LT(black, 0.1);  // all images look the same
  EXPECT_EQ(json_of(run_octet(
                {"eval", kNet, "--data", kTest, "--json", "--mean=-0", "--std", "1"}))["top1"],
            plain);
}

TEST(CliInspect, FloatAndQuantized) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult before = run_octet({"inspect", kNet});
  expect_success(before);
  EXPECT_EQ(before.out.rfind("graph ", 0), 0u);
  EXPECT_TRUE(contains(before.out, "\n# 0 of ")) << before.out;
  EXPECT_FALSE(contains(before.out, "QUInt8"));
  quantize_glyphs(dir / "q.octet", {"--skip", "/stem/*"});
  RunResult after = run_octet({"inspect", dir / "q.octet"});
  expect_success(after);
  for (const std::string part : {"QUInt8(", "QInt8(", "scale=", "zero_point=", "stays float  @ ",
                                 "# skipped by '/stem/*'", "in 8 bits"})
    EXPECT_TRUE(contains(after.out, part)) << part;
}

TEST(CliInspect, EndsWithATableOfOperators) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  const RunResult r = run_octet({"inspect", dir / "q.octet"});
  const size_t table = r.out.find("\n# operator ");
  ASSERT_NE(table, std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\n# conv2d ", table), std::string::npos) << r.out;
  EXPECT_NE(r.out.find('%', table), std::string::npos) << r.out;
  EXPECT_EQ(r.out.find('\x1b'), std::string::npos);
}

TEST(CliInspect, JsonNamesEveryNode) {
  OCTET_NEED_PROGRAM();
  auto json = json_of(run_octet({"inspect", kNet, "--json"}));
  EXPECT_EQ(json["inputs"][0]["name"], "images");
  EXPECT_EQ(json["inputs"][0]["type"], "Float(N, 1, 28, 28)");
  EXPECT_EQ(json["nodes"].size(), json["operators"]);
  EXPECT_EQ(json["quantized_operators"], 0);
  for (const auto& node : json["nodes"])
    for (const std::string key : {"op", "name", "inputs", "outputs", "attrs", "quantized"})
      EXPECT_TRUE(node.contains(key)) << key;
}

TEST(CliInspect, FullPrintsEveryChannel) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  EXPECT_TRUE(contains(run_octet({"inspect", dir / "q.octet"}).out, ".."));
  EXPECT_FALSE(contains(run_octet({"inspect", dir / "q.octet", "--full"}).out, ".."));
}

TEST(CliInspect, DrawsTheGraphAsAPage) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  const RunResult r = run_octet({"inspect", dir / "q.octet", "--html", dir / "page.html"});
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "operators in 8 bits")) << r.out;
  EXPECT_FALSE(contains(r.out, "graph ")) << "the graph is on the page: " << r.out;
  const std::string page = slurp(dir / "page.html");
  EXPECT_EQ(page.rfind("<!DOCTYPE html>", 0), 0u);
  EXPECT_TRUE(contains(page, "/stem/stem.0/Conv")) << "no node of the network";
  EXPECT_FALSE(contains(page, "https://")) << "a page that needs the network";
  // A page is written over, another file is not.
  expect_success(run_octet({"inspect", kNet, "--html", dir / "page.html"}));
  expect_failure(run_octet({"inspect", kNet, "--html", dir / "q.octet"}), 1, {"q.octet"});
}

TEST(CliInspect, OnlyGraphsAreDrawn) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  save_model(dir / "m.octet", nn::Linear(2, 2));
  expect_failure(run_octet({"inspect", dir / "m.octet", "--html", dir / "p.html"}), 2,
                 {"--html", "a model of modules"});
  EXPECT_FALSE(std::filesystem::exists(dir / "p.html"));
}

TEST(CliInspect, OfASavedModelPrintsTheTreeOfModules) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  nn::Sequential model(nn::Linear(4, 3), nn::ReLU());
  save_model(dir / "m.octet", model);
  RunResult r = run_octet({"inspect", dir / "m.octet"});
  expect_success(r);
  EXPECT_EQ(r.out, nn::to_string(model) + "\n");
  EXPECT_EQ(json_of(run_octet({"inspect", dir / "m.octet", "--json"}))["modules"],
            nn::to_string(model));
  expect_failure(run_octet({"bench", dir / "m.octet"}), 1,
                 {"m.octet", "a model of modules, not a graph", "load_model"});
}

TEST(CliConvert, ThereAndBackComputesTheSame) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  std::string input = three_images(dir);
  for (const std::string& first : {std::string(kNet), (dir / "q.octet").string()}) {
    auto convert = [&](const std::string& from, const std::string& to) {
      RunResult r = run_octet({"convert", from, to});
      expect_success(r);
      EXPECT_EQ(r.out.rfind(to + ": ", 0), 0u) << r.out;
    };
    convert(first, dir / "1.octet");
    convert(dir / "1.octet", dir / "2.onnx");
    convert(dir / "2.onnx", dir / "3.octet");
    auto result = [&](const std::string& model) {
      expect_success(run_octet({"run", model, "--input", input, "--output", dir / "y.npz"}));
      return read_npz(dir / "y.npz").begin()->second;
    };
    Tensor expected = result(first);
    for (const std::string model : {"1.octet", "2.onnx", "3.octet"})
      EXPECT_TRUE(equal(result(dir / model), expected)) << first << " as " << model;
  }
}

TEST(CliBench, JsonHasTheContractsFields) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  auto json = json_of(
      run_octet({"bench", kNet, "--json", "--seconds", "0.05", "--threads", "1", "--batch", "2"}));
  for (const std::string key : {"median_ms", "min_ms", "load_ms", "first_ms", "peak_rss_mb"})
    EXPECT_GT(json[key], 0) << key;
  EXPECT_LE(json["min_ms"], json["median_ms"]);
  quantize_glyphs(dir / "q.octet");
  json =
      json_of(run_octet({"bench", dir / "q.octet", "--vs", kNet, "--json", "--seconds", "0.05"}));
  EXPECT_GT(json["vs"]["median_ms"], 0);
  EXPECT_GT(json["speedup"], 0);
}

TEST(CliBench, TextNamesMachineThreadsAndSteps) {
  OCTET_NEED_PROGRAM();
  RunResult r = run_octet({"bench", kNet, "--seconds", "0.05", "--profile"});
  expect_success(r);
  for (const std::string part : {"1 thread,", "batch 1", "median", "load", "peak memory", "conv2d"})
    EXPECT_TRUE(contains(r.out, part)) << part << " is not in:\n" << r.out;
}

// -- sensitivity ----------------------------------------------------------------------------------

TEST(CliSensitivity, RanksLayersAndGoesOnFromItsState) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::vector<std::string> args{"sensitivity", kNet,        "--calibrate",
                                      kCalibration,  "--samples", "32",
                                      "--state",     dir / "s",   "--json"};
  const RunResult first = run_octet(args), again = run_octet(args);
  expect_success(first);
  nlohmann::json a = json_of(first), b = json_of(again);
  for (nlohmann::json* json : {&a, &b})  // times differ
    for (nlohmann::json& layer : (*json)["layers"]) layer.erase("time_share");
  EXPECT_EQ(a, b);
  EXPECT_NE(first.out.find("\"method\":\"alone\""), std::string::npos) << first.out;
  EXPECT_NE(first.out.find("\"op\":\"conv2d\""), std::string::npos) << first.out;
  RunResult other = run_octet({"sensitivity", kNet, "--calibrate", kCalibration, "--samples", "32",
                               "--state", dir / "s", "--method", "without"});
  EXPECT_EQ(other.code, 1);
  EXPECT_NE(other.err.find("another network, calibration or method"), std::string::npos);
}

TEST(CliSensitivity, TheCurveEndsWithTheFloatNetwork) {
  OCTET_NEED_PROGRAM();
  const RunResult r = run_octet({"sensitivity", kNet, "--calibrate", kCalibration, "--samples",
                                 "32", "--method", "estimate", "--curve"});
  expect_success(r);
  EXPECT_NE(r.out.find("left float"), std::string::npos) << r.out;
  EXPECT_TRUE(contains(r.out, " exact ")) << r.out;
}

// Of 32 samples with labels; without labels there is SQNR only.
TEST(CliSensitivity, TheCurveHasTopOneWhereThereAreLabels) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto curve_of = [&](const std::string& data) {
    return json_of(run_octet({"sensitivity", kNet, "--calibrate", data, "--samples", "32",
                              "--method", "estimate", "--curve", "--json"}));
  };
  const nlohmann::json with = curve_of(kCalibration);
  const nlohmann::json eval =
      json_of(run_octet({"eval", kNet, "--data", kCalibration, "--samples", "32", "--json"}));
  EXPECT_EQ(with["float_top1"], eval["top1"]);
  EXPECT_EQ(with["curve"].back()["top1"], eval["top1"]) << "all layers left float";
  for (const auto& point : with["curve"]) EXPECT_GT(point["top1"], 0.5) << point;
  write_npz(dir / "x.npz",
            {{"images", read_npz(kCalibration, {"images"}).at("images").slice(0, 0, 32)}});
  const nlohmann::json without = curve_of(dir / "x.npz");
  EXPECT_FALSE(without.contains("float_top1"));
  EXPECT_FALSE(without["curve"][0].contains("top1"));
  EXPECT_TRUE(without["curve"][0].contains("sqnr_db"));
}

TEST(CliSensitivity, WhatStaysFloatIsListedWithItsReason) {
  OCTET_NEED_PROGRAM();
  const RunResult r = run_octet({"sensitivity", kNet, "--calibrate", kCalibration, "--samples",
                                 "32", "--skip", "/block2/body/body.0/Conv"});
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "in float: skipped by '/block2/body/body.0/Conv'")) << r.out;
  EXPECT_TRUE(contains(r.out, "it is left float among quantized layers")) << r.out;
}

// -- diff -----------------------------------------------------------------------------------------

TEST(CliDiff, SaysWhatQuantizingChanged) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  const RunResult r = run_octet({"diff", kNet, dir / "q.octet"});
  expect_success(r);
  EXPECT_EQ(r.out.find("A " + std::string(kNet)), 0u) << r.out;
  EXPECT_NE(r.out.find("~ conv2d "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("Float(N, 32) -> QUInt8(N, 32) scale="), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("SQNR "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("+ quantize "), std::string::npos) << r.out;
}

TEST(CliDiff, AModelDoesNotDifferFromItself) {
  OCTET_NEED_PROGRAM();
  const RunResult text = run_octet({"diff", kNet, kNet}),
                  json = run_octet({"diff", kNet, kNet, "--json"});
  expect_success(text);
  EXPECT_NE(text.out.find("# no difference\n"), std::string::npos) << text.out;
  EXPECT_EQ(json.out, "{\"same\":true,\"differences\":[]}\n");
}

}  // namespace
}  // namespace octet::testing
