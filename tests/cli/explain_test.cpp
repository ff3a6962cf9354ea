// octet explain
#include <regex>
#include <sstream>

#include "cli_test_util.h"
#include "octet/io/module_file.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"

namespace octet::testing {
namespace {

struct CliExplain : ::testing::Test {
  CliExplain() { quantize_glyphs(net); }
  TempDir dir;
  const std::string net = dir / "net.octet";
};

TEST_F(CliExplain, JsonSaysOfEveryStepWhatRan) {
  const auto json = json_of(run_octet({"explain", net, "--json"}));
  ASSERT_GE(json["steps"].size(), 12u);
  int integers = 0;
  for (const auto& step : json["steps"]) {
    for (const char* key : {"name", "op", "numbers", "kernel", "loop", "engine", "arithmetic"})
      EXPECT_FALSE(step[key].get<std::string>().empty()) << key << " of " << step;
    EXPECT_GT(step["bytes"].get<double>(), 0);
    if (step["numbers"] != "integers" || step["multiply_adds"] == 0) continue;
    ++integers;
    EXPECT_EQ(step["accumulator"], "int32");
    EXPECT_GT(step["largest_sum"].get<int64_t>(), 0);
    EXPECT_LT(step["largest_sum"].get<int64_t>(), int64_t{1} << 31);
    EXPECT_FALSE(step["rounding"].get<std::string>().empty());
    EXPECT_FALSE(step["isa"].get<std::string>().empty());
    EXPECT_EQ(step["weight_bits"], 8);
    EXPECT_TRUE(contains(step["inputs"][1]["scheme"], "per channel")) << step["inputs"];
  }
  EXPECT_EQ(integers, 8);  // convolutions and the linear layer
}

TEST_F(CliExplain, VerifyFindsEveryStepIdenticalToTheReference) {
  const auto json =
      json_of(run_octet({"explain", net, "--data", kTest, "--samples", "3", "--verify", "--json"}));
  EXPECT_EQ(json["samples"], 3);
  for (const auto& step : json["steps"])
    EXPECT_TRUE(step["numbers"] == "layout" || step["verified"] == "identical") << step;
}

TEST_F(CliExplain, RequireFailsWithTheNamesOfWhatRanInFloat) {
  expect_success(run_octet({"explain", net, "--require", "int8"}));
  const std::string partly = dir / "partly.octet";
  quantize_glyphs(partly, {"--skip", "/block2/body/body.3/Conv"});
  const RunResult r = run_octet({"explain", partly, "--require", "int8"});
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "--require int8")) << r.err;
  EXPECT_TRUE(contains(r.err, "/block2/body/body.3/Conv (conv2d)")) << r.err;
  EXPECT_FALSE(contains(r.err, "body.0/Conv")) << r.err;
  expect_success(run_octet({"explain", partly, "--require", "int8", "--part", "/block1/*"}));
  EXPECT_EQ(run_octet({"explain", partly, "--require", "int8", "--part", "/block2/*"}).code, 1);
  const RunResult unknown = run_octet({"explain", net, "--require", "int8", "--part", "/blok1/x"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_TRUE(contains(unknown.err, "no operator is called '/blok1/x'")) << unknown.err;
  expect_failure(run_octet({"explain", net, "--part", "/block2/*"}), 2, {"--part", "--require"});
}

TEST_F(CliExplain, TheFloatNetworkIsFloatAndSaysWhy) {
  const auto json = json_of(run_octet({"explain", kNet, "--json"}));
  for (const auto& step : json["steps"]) {
    EXPECT_EQ(step["numbers"], "floats");
    EXPECT_FALSE(step["why_float"].get<std::string>().empty());
  }
  const RunResult r = run_octet({"explain", kNet});
  EXPECT_TRUE(contains(r.out, "0 of 12 operators ran on 8-bit codes")) << r.out;
}

TEST_F(CliExplain, DetailsSayOfEachOperatorHowItComputes) {
  const RunResult r = run_octet({"explain", net, "--data", kTest, "--samples", "3", "--details"});
  expect_success(r);
  const auto json = json_of(run_octet({"explain", net, "--json"}));
  for (const auto& step : json["steps"])
    EXPECT_TRUE(contains(r.out, "\n" + step["name"].get<std::string>() + " (" +
                                    step["op"].get<std::string>() + ")\n"))
        << step["name"];
  const size_t begin = r.out.find("\n/stem/stem.0/Conv (conv2d)\n");
  ASSERT_NE(begin, std::string::npos) << r.out;
  const std::string stem = r.out.substr(begin, r.out.find("\n\n", begin) - begin);
  for (const char* part :
       {"\n  operand      %", "\n  constant     %", "\n  result       %",
        "\n  numbers      integers\n", "\n  accumulator  int32; |sum| <= ",
        "proven from the weights: int32 holds it\n", "\n  epilogue     bias, requantize",
        "\n  rounding     ", "\n  kernel       native: ", "\n  weight       codes of 8 bits\n",
        "\n  threads      up to ", " multiply-adds\n", "\n  bytes        "})
    EXPECT_TRUE(contains(stem, part)) << part << "\n" << stem;
}

TEST_F(CliExplain, IsaForecastsTheLayersThatSaturate) {
  const auto json = json_of(
      run_octet({"explain", net, "--data", kTest, "--samples", "32", "--isa", "avx2", "--json"}));
  const auto& layers = json["saturation"]["layers"];
  ASSERT_EQ(layers.size(), 8u);
  EXPECT_EQ(layers[0]["name"], "/stem/stem.0/Conv");
  EXPECT_GT(layers[0]["saturated"].get<int64_t>(), 0);  // pictures: codes of 0 and 255
  EXPECT_LT(layers[0]["sqnr_db"].get<double>(), 30);
  EXPECT_FALSE(json["saturation"]["outputs"][0]["sqnr_db"].is_null());
  // Weights alone, where there is no data.
  const auto blind = json_of(run_octet({"explain", net, "--isa", "saturating", "--json"}));
  EXPECT_EQ(blind["saturation"]["samples"], 0);
  EXPECT_GT(blind["saturation"]["layers"][0]["risky_pairs"].get<int64_t>(), 0);
}

TEST_F(CliExplain, TextFitsATerminalOf100Columns) {
  const RunResult r =
      run_octet({"explain", net, "--data", kTest, "--samples", "2", "--verify", "--isa", "avx2"});
  expect_success(r);
  std::istringstream lines(r.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

// -- models of modules ----------------------------------------------------------------------------

// A class that the program does not have.
struct Unknown : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(3, 2));
  Tensor forward(Tensor x) override { return fc(x); }
};
OCTET_MODULE(Unknown);

std::string saved_modules(const TempDir& dir) {
  auto model = nn::make<nn::Sequential>(quant::QuantStub(), nn::Conv2d(3, 8, 3), nn::ReLU(),
                                        quant::DeQuantStub());
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(quant::fuse_modules(model, {{"1", "2"}}));
  (*prepared)(Tensor::randn({4, 3, 8, 8}, 1));
  const std::string path = dir / "m.octet";
  save_model(path, *quant::convert(prepared));
  return path;
}

TEST(CliExplainModules, AreCalledAndExplained) {
  OCTET_NEED_PROGRAM();
  const TempDir dir;
  const std::string model = saved_modules(dir);
  const auto json =
      json_of(run_octet({"explain", model, "--shape", "x=2x3x8x8", "--verify", "--json"}));
  std::vector<std::string> ops;
  for (const auto& step : json["steps"]) {
    ops.push_back(step["op"]);
    EXPECT_EQ(step["verified"], "identical") << step;
    if (step["op"] == "conv2d") {
      EXPECT_EQ(step["numbers"], "integers");
      EXPECT_TRUE(contains(step["inputs"][0]["type"], "QUInt8(2, 3, 8, 8)")) << step;
    }
  }
  EXPECT_EQ(ops, (std::vector<std::string>{"quantize", "conv2d", "dequantize"}));
  expect_success(run_octet({"explain", model, "--shape", "x=2x3x8x8", "--require", "int8"}));
  // Samples of DATA, of an open batch.
  write_npz(dir / "x.npz", {{"pictures", Tensor::randn({6, 3, 8, 8}, 2)}});
  const auto on_data =
      json_of(run_octet({"explain", model, "--shape", "pictures=?x3x8x8", "--data", dir / "x.npz",
                         "--samples", "6", "--batch", "2", "--json"}));
  EXPECT_EQ(on_data["samples"], 3) << "runs, of two samples each";
}

TEST(CliExplainModules, ErrorsSayWhatToDo) {
  OCTET_NEED_PROGRAM();
  const TempDir dir;
  const std::string model = saved_modules(dir);
  expect_failure(run_octet({"explain", model}), 1, {"m.octet", "--shape x=1x3x32x32"});
  expect_failure(run_octet({"explain", model, "--shape", "x=1x3x8x8", "--isa", "avx2"}), 2,
                 {"--isa is for graphs"});
  expect_failure(run_octet({"explain", model, "--shape", "x=1x5x8x8"}), 1, {"conv2d"});
  save_model(dir / "u.octet", Unknown());
  expect_failure(run_octet({"explain", dir / "u.octet", "--shape", "x=1x3"}), 1,
                 {"u.octet", "Unknown", "debug::explain", "io::save_octet"});
}

}  // namespace
}  // namespace octet::testing
