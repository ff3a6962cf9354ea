// --shape: sizes for what a model leaves open.
#include "octet/graph/graph.h"
#include "octet/io/octet_file.h"
#include "tests/cli/cli_test_util.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

// A convolution, a relu and a mean over pictures of any size.
std::string conv_net(const TempDir& dir) {
  spill(dir / "net.onnx", OnnxModel()
                              .input("images", {"N", 3, "H", "W"})
                              .constant("w", Tensor::randn({8, 3, 3, 3}, 1))
                              .node("Conv", {"images", "w"}, {"a"}, {}, "conv")
                              .node("Relu", {"a"}, {"b"}, {}, "relu")
                              .node("GlobalAveragePool", {"b"}, {"c"}, {}, "pool")
                              .node("Flatten", {"c"}, {"y"}, {}, "flat")
                              .output("y")
                              .bytes());
  return dir / "net.onnx";
}

// Elementwise: runs at any sizes.
std::string open_net(const TempDir& dir) {
  io::save_octet(graph::parse("graph net {\n"
                              "  %x: Float(N, T, 4) = input\n"
                              "  %y: Float(N, T, 4) = relu(%x)\n"
                              "  return (%y)\n"
                              "}\n"),
                 dir / "open.octet");
  return dir / "open.octet";
}

TEST(CliShape, EveryCommandThatReadsAModelTakesIt) {
  OCTET_NEED_PROGRAM();
  for (const std::string command : {"bench", "compare", "convert", "diff", "eval", "explain",
                                    "inspect", "qat", "quantize", "run", "sensitivity", "train"}) {
    const RunResult help = run_octet({command, "--help"});
    EXPECT_TRUE(contains(help.out, "--shape [NAME=]1x3x640x640")) << command << "\n" << help.out;
  }
}

TEST(CliShape, FixesWhatAModelLeavesOpen) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = conv_net(dir);
  for (const std::string shape : {"images=?x3x12x9", "Nx3x12x9"}) {
    const auto json = json_of(run_octet({"inspect", net, "--shape", shape, "--json"}));
    EXPECT_EQ(json["inputs"][0]["type"], "Float(N, 3, 12, 9)");
  }
  json_of(run_octet({"bench", net, "--shape", "1x3x12x9", "--seconds", "0.01", "--json"}));
  expect_success(run_octet({"convert", net, dir / "fixed.octet", "--shape", "1x3x12x9"}));
  EXPECT_EQ(json_of(run_octet({"inspect", dir / "fixed.octet", "--json"}))["inputs"][0]["type"],
            "Float(1, 3, 12, 9)");
}

TEST(CliShape, OctetFilesToo) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = open_net(dir);
  const auto json = json_of(run_octet({"inspect", net, "--shape", "x=2x7x4", "--json"}));
  EXPECT_EQ(json["outputs"][0]["type"], "Float(2, 7, 4)");
  expect_failure(run_octet({"inspect", net, "--shape", "x=2x7x5"}), 1,
                 {"open.octet", "input 'x'", "expected (N, T, 4), got (2, 7, 5)"});
}

TEST(CliShape, AConflictSaysExpectedAndGot) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = conv_net(dir);
  expect_failure(run_octet({"inspect", net, "--shape", "images=1x4x12x9"}), 1,
                 {"net.onnx", "input 'images'", "expected (N, 3, H, W), got (1, 4, 12, 9)",
                  "dimension 1 is fixed at 3"});
  expect_failure(run_octet({"inspect", net, "--shape", "image=1x3x12x9"}), 1,
                 {"net.onnx", "did you mean 'images'"});
  for (const std::string bad : {"images=", "=1x3", "1x-3", "1xx3", "1x3x0", "9999999999"})
    expect_failure(run_octet({"inspect", net, "--shape", bad}), 2, {"--shape", bad});
  expect_failure(
      run_octet({"inspect", net, "--shape", "images=1x3x9x9", "--shape", "images=1x3x8x8"}), 2,
      {"--shape", "twice", "'images'"});
}

TEST(CliShape, BenchSaysWhichSizesItNeeds) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = open_net(dir);
  expect_failure(run_octet({"bench", net}), 1, {"x (N, T, 4)", "--shape"});
  const RunResult r = run_octet({"bench", net, "--shape", "3x7x4", "--seconds", "0.01"});
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "batch 3\n")) << r.out;
  json_of(
      run_octet({"bench", net, "--shape", "?x7x4", "--batch", "2", "--seconds", "0.01", "--json"}));
}

TEST(CliShape, QuantizesAndComparesAtTheSizesGiven) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = conv_net(dir), data = dir / "data.npz";
  write_npz(data, {{"images", Tensor::rand({8, 3, 12, 9}, 1)}});
  const std::string shape = "images=?x3x12x9";
  json_of(run_octet(
      {"quantize", net, "--shape", shape, "--calibrate", data, "-o", dir / "q.octet", "--json"}));
  EXPECT_EQ(json_of(run_octet({"inspect", dir / "q.octet", "--json"}))["inputs"][0]["type"],
            "Float(N, 3, 12, 9)");
  json_of(run_octet({"compare", net, dir / "q.octet", "--shape", shape, "--data", data, "--json"}));
  expect_success(run_octet({"diff", net, dir / "q.octet", "--shape", shape}));
}

// Without data there is nothing of the right sizes to measure on: that is no reason to fail.
TEST(CliShape, WeightsAreQuantizedWithSizesLeftOpen) {
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
  const std::vector<std::string> args{"quantize", dir / "net.octet", "--mode", "dynamic",
                                      "-o",       dir / "q.octet"};
  const RunResult r = run_octet(args);
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "latency  not measured")) << r.out;
  auto with = args;
  with.insert(with.end(), {"--shape", "?x5x4", "--json"});
  EXPECT_TRUE(json_of(run_octet(with)).contains("float_ms"));
}

}  // namespace
}  // namespace octet::testing
