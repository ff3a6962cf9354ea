// How the program is called: help, exit status, wrong usage.
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

const std::vector<std::string> kCommands{"quantize", "tune",  "eval",   "run",
                                         "inspect",  "bench", "convert"};

TEST(CliUsage, HelpGoesToStdoutAndNamesEveryCommand) {
  OCTET_NEED_PROGRAM();
  RunResult r = run_octet({"--help"});
  expect_success(r);
  for (const std::string& command : kCommands)
    EXPECT_TRUE(contains(r.out, "\n  " + command + " ")) << command;
}

TEST(CliUsage, EveryCommandHasHelpWithAnExample) {
  OCTET_NEED_PROGRAM();
  for (const std::string& command : kCommands) {
    RunResult r = run_octet({command, "--help"});
    expect_success(r);
    EXPECT_TRUE(contains(r.out, "Usage: octet " + command)) << r.out;
    EXPECT_TRUE(contains(r.out, "Example: octet " + command)) << r.out;
  }
}

TEST(CliUsage, HelpFitsATerminalOf100Columns) {
  OCTET_NEED_PROGRAM();
  for (const std::string& command : kCommands) {
    std::string line;
    for (char c : run_octet({command, "--help"}).out) {
      if (c != '\n')
        line += c;
      else
        EXPECT_LE(line.size(), 100u) << command << ": " << line;
      if (c == '\n') line.clear();
    }
  }
}

TEST(CliUsage, VersionIsOneLine) {
  OCTET_NEED_PROGRAM();
  RunResult r = run_octet({"--version"});
  expect_success(r);
  EXPECT_EQ(r.out.rfind("octet ", 0), 0u);
  EXPECT_EQ(r.out.find('\n'), r.out.size() - 1);
}

TEST(CliUsage, WrongUsageIsOneLineAndExitsWith2) {
  OCTET_NEED_PROGRAM();
  struct Case {
    std::vector<std::string> args, parts;
  };
  const std::vector<Case> cases{
      {{}, {"no command given", "octet --help"}},
      {{"quantise"}, {"unknown command 'quantise'", "did you mean 'quantize'", "known: bench, "}},
      {{"--frobnicate"}, {"octet --help"}},
      {{"eval"}, {"MODEL is required", "octet eval --help"}},
      {{"eval", kNet}, {"--data is required"}},
      {{"eval", kNet, "--data", kTest, "--fast"}, {"--fast", "octet eval --help"}},
      {{"eval", kNet, "--data", kTest, "--threads", "0"}, {"--threads", "from 1 to 1024", "'0'"}},
      {{"eval", kNet, "--data", kTest, "--threads", "two"}, {"--threads", "'two'"}},
      {{"eval", kNet, "--data", kTest, "--samples", "-1"}, {"--samples", "1 or more", "'-1'"}},
      {{"eval", kNet, "--data", kTest, "--mean", "grey"}, {"--mean", "grey"}},
      {{"eval", kNet, "--data", kTest, "--engine", "steam"},
       {"--engine", "'steam'", "native (also called fbgemm, x86", "onednn", "reference"}},
      {{"bench", kNet, "--seconds", "0"}, {"--seconds", "above 0"}},
      {{"bench", kNet, "--batch", "1.5"}, {"--batch", "'1.5'"}},
      {{"run", kNet, "--input", "x.npy", "--output", "y.npz"},
       {"--input", "NAME=FILE.npy", "'x.npy'"}},
      {{"run", kNet, "--input", "x.npy"}, {"--input"}},
      {{"convert", kNet}, {"OUT is required"}},
      {{"convert", kNet, "net.tflite"}, {"net.tflite", ".onnx or .octet"}},
      {{"quantize", kNet, "--calibrate", kCalibration}, {"--output is required"}},
      {{"quantize", kNet, "--calibrate", kCalibration, "-o", "net"}, {"net", ".onnx or .octet"}},
      {{"quantize", kNet, "-o", "net.octet"}, {"--calibrate DATA is required", "images"}},
      {{"quantize", kNet, "--calibrate", kCalibration, "-o", "n.octet", "--mode", "magic"},
       {"--mode", "static", "dynamic"}},
      {{"quantize", kNet, "--calibrate", kCalibration, "-o", "n.octet", "--qconfig", "fbgem"},
       {"'fbgem'", "did you mean 'fbgemm'", "known: native, a16w8, fbgemm, x86, onednn, qnnpack"}},
      {{"quantize", kNet, "--calibrate", kCalibration, "-o", "n.octet", "--observer", "histogam"},
       {"'histogam'", "did you mean 'histogram'", "known: minmax, moving-average, histogram"}},
      {{"quantize", kNet, "--calibrate", kCalibration, "-o", "n.octet", "--observer",
        "per-channel"},
       {"per tensor"}},
      {{"quantize", kNet, "--calibrate", kCalibration, "-o", "n.octet", "--observer", "noop"},
       {"'noop'", "minmax, moving-average, histogram, entropy, percentile, mse"}},
      {{"eval", "two\nlines.onnx", "--data", kTest, "--nope\nno"}, {}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.args.empty() ? "octet" : "octet " + c.args[0] + " ... " + c.args.back());
    expect_failure(run_octet(c.args), 2, c.parts);
  }
}

TEST(CliUsage, AnOptionTakesOneValueAndLeavesTheRestAlone) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_success(
      run_octet({"eval", "--mean", "0", "--std", "1", kNet, "--samples", "8", "--data", kTest}));
  expect_success(run_octet({"quantize", "--skip", "*block1*", kNet, "--samples", "32",
                            "--calibrate", kCalibration, "-o", dir / "n.octet"}));
}

TEST(CliUsage, AFullDiskUnderStdoutIsAnError) {
  OCTET_NEED_PROGRAM();
  expect_failure(run_octet({"inspect", kNet}, {.stdout_file = "/dev/full"}), 1,
                 {"cannot write to standard output"});
}

TEST(CliUsage, WrongEnvironmentIsSaid) {
  OCTET_NEED_PROGRAM();
  expect_failure(run_octet({"eval", kNet, "--data", kTest}, {.env = {{"OCTET_ISA", "mmx"}}}), 1,
                 {"mmx", "scalar, avx2"});
  expect_failure(
      run_octet({"eval", kNet, "--data", kTest}, {.env = {{"OCTET_NUM_THREADS", "many"}}}), 1,
      {"OCTET_NUM_THREADS", "many"});
}

}  // namespace
}  // namespace octet::testing
