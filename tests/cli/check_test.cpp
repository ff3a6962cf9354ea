// octet check, and what quantize says before it works.
#include <fmt/format.h>

#include <cmath>

#include "octet/graph/graph.h"
#include "octet/io/octet_file.h"
#include "tests/cli/cli_test_util.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

// A layer whose weight holds `value`; its input is `x`.
std::string linear_net(const TempDir& dir, const std::string& name, float value = 1) {
  Tensor w = Tensor::randn({3, 4}, 1);
  w.data<float>()[5] = value;
  io::save_octet(graph::parse("graph net {\n"
                              "  %x: Float(N, 4) = input\n"
                              "  %w: Float(3, 4) = constant\n"
                              "  %y: Float(N, 3) = linear(%x, %w, none)  @ fc\n"
                              "  return (%y)\n"
                              "}\n",
                              {{"w", w}}),
                 dir / name);
  return dir / name;
}

std::string data_of(const TempDir& dir, const std::string& name, const Tensor& x) {
  write_npz(dir / name, {{"x", x}});
  return dir / name;
}

// Exit status 1, results on stdout, and one line of error with these parts.
void expect_problems(const RunResult& r, const std::vector<std::string>& parts) {
  EXPECT_EQ(r.code, 1) << r.err;
  EXPECT_EQ(r.err.rfind("octet: error: ", 0), 0u) << r.err;
  EXPECT_EQ(r.err.find('\n'), r.err.size() - 1) << r.err;
  for (const std::string& part : parts) EXPECT_TRUE(contains(r.err, part)) << part << "\n" << r.err;
}

TEST(CliCheck, SaysWhatWillBeEightBitsAndWhatItGains) {
  OCTET_NEED_PROGRAM();
  const RunResult r = run_octet({"check", kNet, "--calibrate", kCalibration});
  expect_success(r);
  for (const std::string part :
       {"13 of 13 operators in 8 bits\n", "operator ", "in 8 bits", "conv2d ", "weights ",
        "memory ", "latency ", "multiply-adds a sample", "ready: octet quantize "})
    EXPECT_TRUE(contains(r.out, part)) << part << "\n" << r.out;
  EXPECT_FALSE(contains(r.out, "\x1b"));
}

TEST(CliCheck, JsonAgreesWithQuantize) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{}, {"--skip", "/stem/*"}, {"--backend", "qnnpack"}}) {
    std::vector<std::string> args{"check", kNet, "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const auto check = json_of(run_octet(args));
    const auto done = quantize_glyphs(dir / "q.octet", more);
    EXPECT_EQ(check["ok"], true);
    EXPECT_EQ(check["operators"], done["nodes"]);
    EXPECT_EQ(check["quantized_operators"], done["quantized_nodes"]);
    EXPECT_EQ(check["float_weight_bytes"], done["float_weight_bytes"]);
    EXPECT_NEAR(check["int8_weight_bytes"].get<double>(), done["int8_weight_bytes"].get<double>(),
                0.05 * done["int8_weight_bytes"].get<double>());
    size_t left = 0;
    for (const auto& kind : check["kinds"])
      for (const auto& l : kind["left_float"]) left += l["nodes"].size();
    EXPECT_EQ(left, check["operators"].get<size_t>() - check["quantized_operators"].get<size_t>());
  }
  for (const std::string key : {"float_ms", "int8_ms", "float_memory_bytes", "multiply_adds"})
    EXPECT_TRUE(json_of(run_octet({"check", kNet, "--json"})).contains(key)) << key;
}

TEST(CliCheck, SaysWhetherTheSamplesAreEnough) {
  OCTET_NEED_PROGRAM();
  const auto check = [](const std::string& samples, const std::string& format) {
    std::vector<std::string> args{"check", kNet, "--calibrate", kCalibration, "--samples", samples};
    if (!format.empty()) args.push_back(format);
    return run_octet(args);
  };
  const auto enough = json_of(check("256", "--json"));
  EXPECT_EQ(enough["warnings"].size(), 0u) << enough["warnings"];
  EXPECT_EQ(enough["calibration"]["samples"], 256);
  EXPECT_EQ(enough["calibration"]["suggested_samples"], 256);
  EXPECT_LT(enough["calibration"]["clipped"], 0.001);
  EXPECT_GT(enough["calibration"]["values"].size(), 5u);
  const auto few = json_of(check("3", "--json"));
  EXPECT_EQ(few["ok"], true);
  EXPECT_GE(few["calibration"]["suggested_samples"], 32);
  EXPECT_TRUE(contains(few["warnings"][0], "3 samples are few; give 32 or more")) << few;
  const RunResult text = check("3", "");
  expect_success(text);
  EXPECT_TRUE(contains(text.out, "calibration: 3 samples, ")) << text.out;
  EXPECT_TRUE(contains(text.out, "warning: calibration: 3 samples are few")) << text.out;
  // `octet quantize` says the same.
  TempDir dir;
  const auto made = json_of(run_octet({"quantize", kNet, "--calibrate", kCalibration, "--samples",
                                       "3", "-o", dir / "q.octet", "--json"}));
  EXPECT_EQ(made["calibration"], few["calibration"]);
}

TEST(CliCheck, EveryProblemIsInOneError) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = linear_net(dir, "nan.octet", NAN);
  const std::string data = data_of(dir, "data.npz", Tensor::zeros({2, 4}, DType::int64));
  const RunResult r = run_octet({"check", net, "--calibrate", data});
  expect_problems(r, {"2 problems: (1) w of fc (linear): 1 NaN", "; (2) ", "'x' is int64"});
  EXPECT_TRUE(contains(r.out, "linear ")) << "the table is there all the same\n" << r.out;
  const RunResult json = run_octet({"check", net, "--calibrate", data, "--json"});
  expect_problems(json, {});
  const auto found = nlohmann::json::parse(json.out);
  EXPECT_EQ(found["ok"], false);
  EXPECT_EQ(found["problems"].size(), 2u);
  EXPECT_EQ(found["problems"][0]["code"], "invalid_argument");
  // quantize says the same, before it reads the data.
  expect_failure(run_octet({"quantize", net, "--calibrate", data, "-o", dir / "q.octet"}), 1,
                 {"2 problems: (1) w of fc (linear): 1 NaN", "; (2) ", "'x' is int64"});
  EXPECT_FALSE(std::filesystem::exists(dir / "q.octet"));
}

TEST(CliCheck, ExitStatusIsThatOfQuantize) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string good = linear_net(dir, "good.octet");
  const std::string infinite = linear_net(dir, "inf.octet", INFINITY);
  const std::string zero = linear_net(dir, "zero.octet", 0);
  Tensor x = Tensor::rand({70, 4}, 1);
  const std::string data = data_of(dir, "data.npz", x);
  x.data<float>()[4 * 40] = NAN;
  const std::string holed = data_of(dir, "holed.npz", x);
  const std::string wide = data_of(dir, "wide.npz", Tensor::rand({7, 5}, 1));
  for (const std::string& net : {good, infinite, zero})
    for (const std::string& samples : {data, holed, wide, std::string(dir / "none.npz")}) {
      const RunResult check = run_octet({"check", net, "--calibrate", samples});
      const RunResult quantize =
          run_octet({"quantize", net, "--calibrate", samples, "-o", dir / "q.octet", "--force"});
      EXPECT_EQ(check.code, quantize.code) << net << " " << samples << "\n" << check.err;
    }
}

// A NaN that is no weight does not become a number on the way.
TEST(CliCheck, ANaNInABiasIsSaidAndFailsWhereItIsRun) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  io::save_octet(graph::parse("graph net {\n"
                              "  %x: Float(N, 4) = input\n"
                              "  %w: Float(3, 4) = constant\n"
                              "  %b: Float(3) = constant\n"
                              "  %y: Float(N, 3) = linear(%x, %w, %b)  @ fc\n"
                              "  return (%y)\n"
                              "}\n",
                              {{"w", Tensor::ones({3, 4})}, {"b", Tensor::full({3}, NAN)}}),
                 dir / "net.octet");
  const RunResult alone = run_octet({"check", dir / "net.octet"});
  EXPECT_TRUE(contains(alone.out, "warning: b of fc (linear): 3 NaN of 3 values")) << alone.out;
  const std::string data = data_of(dir, "data.npz", Tensor::rand({7, 4}, 1));
  const RunResult check = run_octet({"check", dir / "net.octet", "--calibrate", data});
  const RunResult quantize =
      run_octet({"quantize", dir / "net.octet", "--calibrate", data, "-o", dir / "q.octet"});
  EXPECT_EQ(check.code, 1) << check.out;
  EXPECT_EQ(quantize.code, 1) << quantize.out;
}

TEST(CliCheck, SamplesThatAreNotFiniteAreNamed) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  Tensor x = Tensor::rand({70, 4}, 1);
  for (int64_t sample : {3, 33, 34, 35, 69}) x.data<float>()[4 * sample + 1] = NAN;
  const RunResult r = run_octet(
      {"check", linear_net(dir, "net.octet"), "--calibrate", data_of(dir, "data.npz", x)});
  expect_problems(r,
                  {"sample 3: element 1 is NaN", "sample 33", "sample 34", "and 2 more samples"});
}

// 9 nodes that octet has no operator for, two Relus, one of them behind such a node, and one more
// operator that octet lacks.
std::string odd_net(const TempDir& dir) {
  OnnxModel m;
  m.input("x", {1, 4});
  for (int i = 0; i < 9; ++i)
    m.node("Frobnicate", {"x"}, {fmt::format("a{}", i)}, {}, fmt::format("f{}", i))
        .output(fmt::format("a{}", i));
  m.node("Defenestrate", {"x"}, {"b"}, {}, "second").node("Relu", {"b"}, {"c"}, {}, "behind");
  m.node("Relu", {"x"}, {"d"}, {}, "fine").output("c").output("d");
  spill(dir / "odd.onnx", m.bytes());
  return dir / "odd.onnx";
}

TEST(CliCheck, UnsupportedOperatorsAreAllNamed) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const RunResult r = run_octet({"check", odd_net(dir)});
  expect_problems(r, {"odd.onnx", "Frobnicate", "f0", "Defenestrate", "second"});
}

TEST(CliCheck, ARefusedModelHasATableOfAllItsOperators) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const RunResult r = run_octet({"check", odd_net(dir)});
  for (const char* line :
       {"odd.onnx: 2 of 3 operators are refused, in 10 of 12 nodes\n",
        "operator      nodes  supported  refused   behind\n",
        "Frobnicate        9          0        9        0\n",
        "Defenestrate      1          0        1        0\n",
        "Relu              2          1        0        1\n",
        "  refused: f0, f1, f2, f3, f4, f5, f6, f7, f8 (Frobnicate): octet has no such operator\n",
        "cure: octet supports opset 7-23"})
    EXPECT_TRUE(contains(r.out, line)) << line << "\n" << r.out;
}

TEST(CliCheck, JsonOfARefusedModelNamesAllItsNodes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const RunResult r = run_octet({"check", odd_net(dir), "--json"});
  EXPECT_EQ(r.code, 1);
  const auto json = nlohmann::json::parse(r.out);
  EXPECT_EQ(json["ok"], false);
  ASSERT_EQ(json["onnx_operators"].size(), 3u) << r.out;
  const auto& frobnicate = json["onnx_operators"][0];
  EXPECT_EQ(frobnicate["op"], "Frobnicate");
  EXPECT_EQ(frobnicate["refused"][0]["nodes"].size(), 9u);
  const auto& relu = json["onnx_operators"][2];
  EXPECT_EQ(relu["op"], "Relu");
  EXPECT_EQ(relu["behind"], 1);
}

TEST(CliCheck, WhereASizeIsMissingTheCureIsShape) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  spill(dir / "open.onnx",
        OnnxModel()
            .input("x", {1, "C", 8, "W"})
            .node("MaxPool", {"x"}, {"y", "places"}, {{"kernel_shape", ints({2, 2})}}, "pool")
            .output("y")
            .output("places", kInt64)
            .bytes());
  const RunResult r = run_octet({"check", dir / "open.onnx"});
  expect_problems(r, {"open sizes are fixed by --shape x=1xCx8xW, with numbers for C, W"});
  EXPECT_TRUE(contains(r.out, "--shape x=1xCx8xW")) << r.out;
  EXPECT_EQ(run_octet({"check", dir / "open.onnx", "--shape", "x=1x3x8x6"}).code, 0);
}

TEST(CliCheck, SizesLeftOpenAreNamedAndMayBeGiven) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  io::save_octet(graph::parse("graph net {\n"
                              "  %x: Float(N, T, 4) = input\n"
                              "  %w: Float(3, 4) = constant\n"
                              "  %y: Float(N, T, 3) = linear(%x, %w, none)\n"
                              "  return (%y)\n"
                              "}\n",
                              {{"w", Tensor::randn({3, 4}, 1)}}),
                 dir / "net.octet");
  const RunResult r = run_octet({"check", dir / "net.octet"});
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "not run: sizes are open in x (N, T, 4)")) << r.out;
  const auto json = json_of(run_octet({"check", dir / "net.octet", "--shape", "?x5x4", "--json"}));
  EXPECT_EQ(json["multiply_adds"], 5 * 4 * 3);
}

TEST(CliCheck, ConfigAndStrictAreHonoured) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  spill(dir / "c.json", R"({"skip": ["/stem/*"], "strict": true})");
  const RunResult r = run_octet({"check", kNet, "--config", dir / "c.json"});
  expect_problems(r, {"--strict", "/stem/", "skipped by '/stem/*'"});
  EXPECT_TRUE(contains(r.out, "stays float: ")) << r.out;
}

}  // namespace
}  // namespace octet::testing
