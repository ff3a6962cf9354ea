// octet quantize: what it writes and what it says.
#include <algorithm>
#include <functional>

#include "octet/base/file.h"
#include "octet/io/octet_file.h"
#include "octet/quant/backend/backend_config.h"
#include "tests/cli/cli_test_util.h"
#include "tests/io/pictures.h"

namespace octet::testing {
namespace {

TEST(CliQuantize, AccuracySizeAndSpeedStandBesideTheFloatOnes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = run_octet(
      {"quantize", kNet, "--calibrate", kCalibration, "--samples", "64", "-o", dir / "q.octet"});
  expect_success(r);
  for (const std::string part :
       {"in 8 bits", "calibrated on 64 samples", "float", "int8", "weights", "x smaller", "latency",
        "1 thread", "top-1", "SQNR", "peak memory"})
    EXPECT_TRUE(contains(r.out, part)) << part << " is not in:\n" << r.out;
  EXPECT_EQ(count_files(dir.path()), 1u);
}

TEST(CliQuantize, JsonHasTheSame) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  auto json = quantize_glyphs(dir / "q.octet");
  EXPECT_EQ(json["output"], (dir / "q.octet").string());
  EXPECT_EQ(json["samples"], 64);
  EXPECT_EQ(json["nodes"], json["quantized_nodes"]);
  EXPECT_TRUE(json["left_float"].empty());
  EXPECT_EQ(json["file_bytes"], std::filesystem::file_size(dir / "q.octet"));
  EXPECT_GT(json["float_weight_bytes"], 3.5 * json["int8_weight_bytes"].get<double>());
  EXPECT_NEAR(json["float_top1"], json["int8_top1"], 0.05);
  EXPECT_EQ(json["top1_samples"], 64);
  EXPECT_GT(json["output_sqnr_db"], 20);
  for (const std::string key : {"float_ms", "int8_ms", "peak_rss_mb"})
    EXPECT_GT(json[key], 0) << key;
}

TEST(CliQuantize, TheQuantizedNetworkIsAsGoodOnNewImages) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "q.octet");
  quantize_glyphs(dir / "q.onnx");
  auto top1 = [](const std::string& model) {
    auto json = json_of(run_octet({"eval", model, "--data", kTest, "--json"}));
    EXPECT_EQ(json["samples"], 2000);
    EXPECT_GT(json["seconds"], 0);
    return json["top1"].get<double>();
  };
  double before = top1(kNet), after = top1(dir / "q.octet");
  EXPECT_GT(before, 0.95);
  EXPECT_GE(after, before - 0.007);
  EXPECT_EQ(top1(dir / "q.onnx"), after);  // QDQ comes back as the same integers
}

TEST(CliQuantize, BiasesAreCorrectedWhereTheOutputsComeNearerToFloat) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto quantize = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> args{"quantize", kNet,      "--calibrate", kCalibration,
                                  "-o",       dir / out, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return json_of(run_octet(args));
  };
  const auto metadata = [&](const std::string& out) { return io::load_octet(dir / out).metadata; };
  const auto plain = quantize("plain.octet", {"--bias-samples", "0"});
  EXPECT_FALSE(plain.contains("bias_correction"));
  EXPECT_FALSE(metadata("plain.octet").contains("bias_correction"));
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{}, {"--bias-samples", "3"}, {"--weight-bits", "4"}}) {
    const auto json = quantize("q.octet", more)["bias_correction"];
    const bool kept = json["sqnr_db"] > json["sqnr_db_without"];
    EXPECT_EQ(json["kept"], kept);
    EXPECT_EQ(json["samples"], more.empty() || more[0] == "--weight-bits" ? 32 : 3);
    EXPECT_EQ(metadata("q.octet").contains("bias_correction"), kept);
    if (more.empty() && !kept)
      EXPECT_EQ(read_file(dir / "q.octet"), read_file(dir / "plain.octet"));
    std::filesystem::remove(dir / "q.octet");
  }
  // Whole batches of a network that takes no others.
  const auto fives = quantize("fives.octet", {"--shape", "5x1x28x28", "--samples", "40"});
  EXPECT_EQ(fives["bias_correction"]["samples"], 30);
  // What PyTorch does is not changed unless that is asked for.
  EXPECT_FALSE(quantize("f.octet", {"--qconfig", "fbgemm"}).contains("bias_correction"));
  EXPECT_TRUE(quantize("g.octet", {"--qconfig", "fbgemm", "--bias-samples", "8"})
                  .contains("bias_correction"));
  expect_failure(run_octet({"quantize", kNet, "--mode", "dynamic", "--bias-samples", "8", "-o",
                            dir / "x.octet"}),
                 2, {"--bias-samples", "--mode static"});
}

TEST(CliQuantize, DynamicAndWeightOnlyNeedNoData) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  double before =
      json_of(run_octet({"eval", kNet, "--data", kTest, "--samples", "500", "--json"}))["top1"];
  for (const std::string mode : {"dynamic", "weight-only"}) {
    auto json =
        json_of(run_octet({"quantize", kNet, "--mode", mode, "-o", dir / "q.octet", "--json"}));
    EXPECT_EQ(json["nodes"], json["quantized_nodes"]) << mode;
    EXPECT_GT(json["float_weight_bytes"], 3.5 * json["int8_weight_bytes"].get<double>()) << mode;
    EXPECT_FALSE(json.contains("output_sqnr_db")) << "nothing to compare on";
    double after = json_of(run_octet(
        {"eval", dir / "q.octet", "--data", kTest, "--samples", "500", "--json"}))["top1"];
    EXPECT_GE(after, before - 0.01) << mode;
    run_octet({"quantize", kNet, "--mode", mode, "-o", dir / "q.onnx", "--force"});
    double onnx = json_of(
        run_octet({"eval", dir / "q.onnx", "--data", kTest, "--samples", "500", "--json"}))["top1"];
    EXPECT_NEAR(onnx, after, 0.004) << mode;  // ONNX's rule for zero points: two samples of 500
  }
}

TEST(CliQuantize, LinearWeightsOfFourBitsLieTwoToAByte) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::string mode : {"dynamic", "weight-only"}) {
    auto bytes = [&](const std::string& bits) {
      auto json = json_of(run_octet({"quantize", kNet, "--mode", mode, "--weight-bits", bits, "-o",
                                     dir / (bits + ".octet"), "--json"}));
      return json["int8_weight_bytes"].get<int64_t>();
    };
    EXPECT_LT(bytes("4"), bytes("8")) << mode;
    auto json = json_of(
        run_octet({"eval", dir / "4.octet", "--data", kTest, "--samples", "500", "--json"}));
    EXPECT_GT(json["top1"].get<double>(), 0.5) << mode;
  }
}

TEST(CliQuantize, BlocksOfWeightsAreSmallerAndTheirRecipeIsReplayed) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto quantize = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> args{"quantize", kNet, "-o", dir / out, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    return json_of(run_octet(args));
  };
  const std::vector<std::string> data{"--calibrate", kCalibration, "--samples", "64"};
  std::vector<std::string> blocks{"--mode", "weight-only",  "--weight-bits",
                                  "4",      "--block-size", "16"};
  EXPECT_EQ(quantize("nearest.octet", blocks)["quantized_nodes"], 1);
  blocks.insert(blocks.end(), data.begin(), data.end());
  const auto json = quantize("gptq.octet", blocks);
  EXPECT_LT(json["int8_weight_bytes"], json["float_weight_bytes"]);
  EXPECT_NE(read_file(dir / "gptq.octet"), read_file(dir / "nearest.octet"));
  write_file_atomically(dir / "r.json", io::load_octet(dir / "gptq.octet").metadata.at("recipe"));
  std::vector<std::string> again{"--recipe", dir / "r.json"};
  again.insert(again.end(), data.begin(), data.end());
  quantize("again.octet", again);
  EXPECT_EQ(read_file(dir / "again.octet"), read_file(dir / "gptq.octet"));
  expect_failure(run_octet({"quantize", kNet, "-o", dir / "x.octet", "--calibrate", kCalibration,
                            "--block-size", "16"}),
                 2, {"--block-size", "weight-only"});
}

TEST(CliQuantize, InspectAgreesWithTheReport) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::string name : {"q.octet", "q.onnx"}) {
    auto report = quantize_glyphs(dir / name);
    auto json = json_of(run_octet({"inspect", dir / name, "--json"}));
    EXPECT_EQ(json["quantized_operators"], report["quantized_nodes"]);
    EXPECT_EQ(json["operators"], report["nodes"]);
    EXPECT_EQ(json["weight_bytes"], report["int8_weight_bytes"]);
  }
}

TEST(CliQuantize, TheSameAgainGivesTheSameBytes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "a.octet");
  quantize_glyphs(dir / "b.octet", {"--threads", "2"});
  EXPECT_EQ(slurp(dir / "a.octet"), slurp(dir / "b.octet"));
}

TEST(CliQuantize, SkipByNameGlobAndExpression) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quantize_glyphs(dir / "all.octet");
  std::vector<std::string> names = placed(dir / "all.octet").quantized;
  ASSERT_FALSE(names.empty());
  struct Case {
    std::string pattern;
    std::function<bool(const std::string&)> skipped;
  };
  const std::vector<Case> cases{
      {names[0], [&](const std::string& n) { return n == names[0]; }},
      {"/block1/*Conv",
       [](const std::string& n) { return n.rfind("/block1/", 0) == 0 && n.ends_with("Conv"); }},
      {"re:^/stem/.*Conv$",
       [](const std::string& n) { return n.rfind("/stem/", 0) == 0 && n.ends_with("Conv"); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.pattern);
    auto report = quantize_glyphs(dir / "q.octet", {"--skip", c.pattern});
    Placed p = placed(dir / "q.octet");
    for (const std::string& name : names)
      if (c.skipped(name)) {
        EXPECT_NE(std::find(p.left.begin(), p.left.end(), name), p.left.end()) << name;
      }
    bool reason = false;
    for (const auto& e : report["left_float"])
      reason |= e["reason"] == "skipped by '" + c.pattern + "'";
    EXPECT_TRUE(reason) << report["left_float"];
    EXPECT_TRUE(
        contains(run_octet({"inspect", dir / "q.octet"}).out, "# skipped by '" + c.pattern + "'"));
  }
}

TEST(CliQuantize, SkipMayBeRepeated) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  auto report = quantize_glyphs(dir / "q.octet", {"--skip", "/block1/*", "--skip", "/stem/*"});
  for (const std::string& name : placed(dir / "q.octet").quantized)
    EXPECT_FALSE(name.rfind("/block1/", 0) == 0 || name.rfind("/stem/", 0) == 0) << name;
}

TEST(CliQuantize, StrictFailsBeforeTheDataIsReadAndNamesTheOperator) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_failure(run_octet({"quantize", kNet, "--calibrate", "no/such.npz", "-o", dir / "q.octet",
                            "--strict", "--skip", "/stem/*"}),
                 1, {"--strict", "/stem/", "stays float", "skipped"});
  quantize_glyphs(dir / "q.octet", {"--strict"});
}

TEST(CliQuantize, EveryQConfigAndObserver) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::string q : {"native", "fbgemm", "x86", "onednn", "qnnpack", "default_qconfig"})
    EXPECT_GT(quantize_glyphs(dir / "q.octet", {"--qconfig", q})["int8_top1"], 0.85) << q;
  for (const std::string o :
       {"minmax", "moving-average", "histogram", "entropy", "percentile", "mse", "MinMaxObserver"})
    EXPECT_GT(quantize_glyphs(dir / "q.octet", {"--observer", o})["int8_top1"], 0.85) << o;
}

TEST(CliQuantize, ConfigFileGivesWhatTheCommandLineDoesNot) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  spill(dir / "c.json",
        R"({"qconfig": "qnnpack", "observer": "minmax", "skip": ["/stem/*"], "strict": false})");
  auto report = quantize_glyphs(dir / "q.octet", {"--config", dir / "c.json"});
  EXPECT_FALSE(report["left_float"].empty());
  auto qconfig = [&] {
    return json_of(run_octet({"inspect", dir / "q.octet", "--json"}))["metadata"]["qconfig"]
        .get<std::string>();
  };
  EXPECT_TRUE(contains(qconfig(), "activation=MinMaxObserver")) << qconfig();
  EXPECT_FALSE(contains(qconfig(), "PerChannel")) << qconfig();
  quantize_glyphs(dir / "q.octet",
                  {"--config", dir / "c.json", "--qconfig", "native", "--observer", "histogram"});
  EXPECT_TRUE(contains(qconfig(), "activation=HistogramObserver")) << qconfig();
  EXPECT_TRUE(contains(qconfig(), "PerChannel")) << qconfig();
}

TEST(CliQuantize, AMappingSaysWhatStaysFloat) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  spill(dir / "c.json", R"({"mapping": {"object_type": [["conv2d", null]]}})");
  auto report = quantize_glyphs(dir / "q.octet", {"--config", dir / "c.json"});
  size_t convolutions = 0;
  for (const auto& e : report["left_float"])
    if (e["op"] == "conv2d") {
      ++convolutions;
      EXPECT_EQ(e["reason"], "it has no qconfig");
    }
  EXPECT_GT(convolutions, 1u);
  EXPECT_GT(report["quantized_nodes"], 0);
}

TEST(CliQuantize, AMappingNamesLayersOf16Bits) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  spill(dir / "c.json", R"({"mapping": {"object_type": [["linear", "a16w8"]]}})");
  quantize_glyphs(dir / "q.octet", {"--config", dir / "c.json"});
  const std::string text = run_octet({"inspect", dir / "q.octet", "--full"}).out;
  for (const char* part : {"QUInt16(", "QUInt8(", "requantize("})
    EXPECT_TRUE(contains(text, part)) << part << "\n" << text;
}

TEST(CliQuantize, ABackendSaysWhatCanBeQuantized) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  quant::BackendConfig mine = quant::get_native_backend_config().set_name("mine");
  mine.remove({"linear"});
  spill(dir / "mine.json", mine.to_json());
  auto report = quantize_glyphs(dir / "q.octet", {"--backend", dir / "mine.json"});
  bool found = false;
  for (const auto& e : report["left_float"])
    if (e["op"] == "linear") {
      found = true;
      EXPECT_EQ(e["reason"], "linear has no quantized form in the backend 'mine'");
    }
  EXPECT_TRUE(found) << report["left_float"];
  EXPECT_GT(quantize_glyphs(dir / "q.octet", {"--backend", "qnnpack"})["quantized_nodes"], 3);
}

TEST(CliQuantize, DirectoryOfImagesAsData) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  std::filesystem::create_directory(dir / "my pictures");
  for (int i = 0; i < 5; ++i) {
    std::vector<uint8_t> pixels;
    for (int k = 0; k < 40 * 30 * 3; ++k)
      pixels.push_back(static_cast<uint8_t>((k * (i + 3) * 7) % 256));
    spill(dir / "my pictures" / ("picture " + std::to_string(i) + ".bmp"), bmp(40, 30, pixels));
  }
  auto json = json_of(run_octet(
      {"quantize", kNet, "--calibrate", dir / "my pictures", "-o", dir / "q.octet", "--json"}));
  EXPECT_EQ(json["samples"], 5);
  EXPECT_FALSE(json.contains("float_top1"));  // there are no labels
  expect_failure(run_octet({"eval", dir / "q.octet", "--data", dir / "my pictures"}), 1,
                 {"my pictures", "no labels"});
}

TEST(CliQuantize, OddFileNames) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::string name : {"with space.octet", "käse-模型.octet", "a=b;c'd\"e.octet",
                                 "%s {} \\n.octet", "not utf8 \xff.octet"}) {
    SCOPED_TRACE(name);
    auto json = quantize_glyphs(dir / name);
    EXPECT_TRUE(std::filesystem::exists(dir / name));
    expect_success(run_octet({"eval", dir / name, "--data", kTest, "--samples", "8"}));
  }
}

TEST(CliQuantize, AnExistingFileIsReplacedAsAWhole) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  ASSERT_EQ(run_octet({"convert", kNet, dir / "q.octet"}).code, 0);
  const std::string old = slurp(dir / "q.octet");
  expect_failure(run_octet({"quantize", kNet, "--calibrate", "no/such.npz", "-o", dir / "q.octet"}),
                 1, {"no/such.npz"});
  EXPECT_TRUE(slurp(dir / "q.octet") == old);
  quantize_glyphs(dir / "q.octet");
  EXPECT_TRUE(contains(run_octet({"inspect", dir / "q.octet"}).out, "QUInt8"));
  EXPECT_EQ(count_files(dir.path()), 1u);
}

// A backend that takes less gets observers that fit; so does a target that has one.
TEST(CliQuantize, TensorRtGetsSymmetricCodes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto report = quantize_glyphs(dir / "q.octet", {"--backend", "tensorrt"});
  EXPECT_TRUE(report["left_float"].empty());
  quantize_glyphs(dir / "a.onnx", {"--backend", "tensorrt"});
  quantize_glyphs(dir / "b.onnx", {"--target", "tensorrt"});
  EXPECT_EQ(slurp(dir / "a.onnx"), slurp(dir / "b.onnx"));
  expect_success(run_octet({"convert", dir / "q.octet", dir / "c.onnx", "--target", "tensorrt"}));
  const RunResult shown = run_octet({"inspect", dir / "b.onnx"});
  EXPECT_TRUE(contains(shown.out, "QInt8(")) << shown.out;
  EXPECT_FALSE(contains(shown.out, "QUInt8(")) << shown.out;
}

TEST(CliQuantize, WhatATargetDoesNotTakeFailsBeforeCalibrating) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const auto& [more, part] : {std::pair<std::vector<std::string>, std::string>{
                                       {"--qconfig", "fbgemm"}, "--qconfig fbgemm"},
                                   {{"--backend", "native"}, "--backend native"},
                                   {{"--mode", "dynamic"}, "--mode dynamic"}}) {
    std::vector<std::string> command{"quantize", kNet,       "--calibrate", kCalibration,
                                     "--target", "tensorrt", "-o",          dir / "q.onnx"};
    command.insert(command.end(), more.begin(), more.end());
    const RunResult r = run_octet(command);
    EXPECT_NE(r.code, 0);
    EXPECT_TRUE(contains(r.err, part)) << r.err;
    EXPECT_FALSE(contains(r.err, "calibrating")) << r.err;
  }
  EXPECT_EQ(count_files(dir.path()), 0u);
}

}  // namespace
}  // namespace octet::testing
