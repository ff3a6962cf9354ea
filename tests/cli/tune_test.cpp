// octet tune, and recipes that octet quantize replays.
#include <fmt/format.h>

#include <fstream>

#include "octet/base/file.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

// No trial reaches this bar, so that all of the ladder is gone through.
std::vector<std::string> tune_args(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> args{"tune",     kNet,    "--data", kCalibration, "--samples",
                                "64",       "-o",    out,      "--metric",   "sqnr",
                                "--target", "200",   "--cost", "operators",  "--slowest",
                                "1.5",      "--json"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

TEST(CliTune, BestIsAboveTheBarAndEvaluates) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto json = json_of(run_octet(
      {"tune", kNet, "--data", kCalibration, "-o", dir / "n.octet", "--max-drop", "1%", "--json"}));
  EXPECT_TRUE(json["above"].get<bool>()) << json;
  EXPECT_GE(json["best_score"].get<double>(), json["bar"].get<double>());
  EXPECT_NEAR(json["bar"].get<double>(), 0.99 * json["float_score"].get<double>(), 1e-9);
  const auto top1 = json_of(run_octet({"eval", dir / "n.octet", "--data", kTest, "--json"}));
  EXPECT_GT(top1["top1"].get<double>(), 0.95);
}

TEST(CliTune, EveryRecipeIsReplayedAndTheBestToTheSameBytes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto json = json_of(run_octet(tune_args(dir / "n.octet")));
  const size_t trials = json["trials"].size();
  EXPECT_GE(trials, 4u) << "calibrated, ranges, layers left float";
  const std::string state = dir / "n.octet.tune";
  for (size_t i = 0; i < trials; ++i)
    json_of(run_octet({"quantize", kNet, "--recipe", fmt::format("{}/{:03}.json", state, i),
                       "--calibrate", kCalibration, "--samples", "64", "-o", dir / "t.octet",
                       "--json"}));
  json_of(run_octet({"quantize", kNet, "--recipe", state + "/best.json", "--calibrate",
                     kCalibration, "--samples", "64", "-o", dir / "again.octet", "--json"}));
  EXPECT_EQ(read_file(dir / "again.octet"), read_file(dir / "n.octet"));
}

TEST(CliTune, KilledAtAnyMomentItGoesOnToTheSameFile) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto start = std::chrono::steady_clock::now();
  json_of(run_octet(tune_args(dir / "whole.octet")));
  const auto whole =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  for (const double share : {0.1, 0.3, 0.5, 0.7, 0.9}) {
    SCOPED_TRACE(share);
    const std::string out = dir / fmt::format("cut{}.octet", share);
    const RunResult cut =
        run_octet(tune_args(out), {.kill_after_ms = std::max(1, static_cast<int>(share * whole))});
    if (cut.code != 0) {
      EXPECT_EQ(cut.signal, 9);
    }
    json_of(run_octet(tune_args(out, {"--resume"})));
    EXPECT_EQ(read_file(out), read_file(dir / "whole.octet"));
  }
}

TEST(CliTune, TheUsersCommandJudges) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  {
    std::ofstream script(dir / "judge.sh");
    // Its size, which is above 0, if the file is there.
    script << "test -s \"$1\" && echo \"score: 0.75\"\n";
  }
  const auto json = json_of(
      run_octet({"tune", kNet, "--data", kCalibration, "--samples", "32", "-o", dir / "n.octet",
                 "--metric-command", "sh " + (dir / "judge.sh").string(), "--json"}));
  EXPECT_EQ(json["float_score"].get<double>(), 0.75);
  EXPECT_EQ(json["best_score"].get<double>(), 0.75);
  expect_failure(run_octet({"tune", kNet, "--data", kCalibration, "--samples", "32", "-o",
                            dir / "m.octet", "--metric-command", "echo none; false", "--json"}),
                 1, {"--metric-command", "failed with status 1"});
  expect_failure(run_octet({"tune", kNet, "--data", kCalibration, "--samples", "32", "-o",
                            dir / "m.octet", "--metric-command", "echo none #", "--json"}),
                 1, {"--metric-command", "printed no number", "'none'"});
}

TEST(CliTune, WrongUsageIsSaid) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string out = dir / "n.octet";
  expect_failure(run_octet({"tune", kNet, "-o", out}), 2, {"--data is required"});
  expect_failure(run_octet({"tune", kNet, "--data", kTest, "-o", out, "--max-drop", "much"}), 2,
                 {"--max-drop", "percent", "'much'"});
  expect_failure(run_octet({"tune", kNet, "--data", kTest, "-o", out, "--metric", "cosin"}), 2,
                 {"--metric", "cosine"});
  expect_failure(run_octet({"tune", kNet, "--data", kTest, "-o", out, "--samples", "3"}), 1,
                 {"3 samples", "a fourth of them judges", "--eval"});
  expect_failure(
      run_octet({"quantize", kNet, "--recipe", "r.json", "--observer", "mse", "-o", out}), 2,
      {"--recipe", "--observer"});
  json_of(run_octet({"tune", kNet, "--data", kTest, "--samples", "16", "-o", out, "--json"}));
  expect_failure(
      run_octet({"tune", kNet, "--data", kTest, "--samples", "12", "-o", out, "--resume"}), 1,
      {"state.json", "other samples"});
}

}  // namespace
}  // namespace octet::testing
