// octet tune, and recipes that octet quantize replays.
#include <fmt/format.h>

#include <fstream>

#include "octet/base/file.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

// No trial reaches this bar, so that all of the ladder is gone through.
std::vector<std::string> tune_args(const std::string& out, std::vector<std::string> more = {}) {
  std::vector<std::string> args{"tune",     kNet,        "--data", kCalibration, "--samples",
                                "32",       "-o",        out,      "--metric",   "sqnr",
                                "--target", "200",       "--cost", "operators",  "--slowest",
                                "1.5",      "--distill", "20",     "--json"};
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
                       "--calibrate", kCalibration, "--samples", "32", "-o", dir / "t.octet",
                       "--json"}));
  json_of(run_octet({"quantize", kNet, "--recipe", state + "/best.json", "--calibrate",
                     kCalibration, "--samples", "32", "-o", dir / "again.octet", "--json"}));
  EXPECT_EQ(read_file(dir / "again.octet"), read_file(dir / "n.octet"));
}

TEST(CliTune, WeightsOfFourBitsReachLearnedRoundingAndAreReplayedToTheSameBytes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto json =
      json_of(run_octet({"tune", kNet, "--data", kCalibration, "--samples", "16", "-o",
                         dir / "n.octet", "--weight-bits", "4", "--slowest", "1", "--target", "2",
                         "--cost", "operators", "--distill", "0", "--json"}));
  size_t learned = SIZE_MAX;
  for (size_t i = 0; i < json["trials"].size(); ++i)
    if (contains(json["trials"][i]["name"], "brecq of 100")) learned = i;
  ASSERT_NE(learned, SIZE_MAX) << json;
  const std::string state = dir / "n.octet.tune";
  for (const std::string& name : {std::string("best"), fmt::format("{:03}", learned)})
    json_of(run_octet({"quantize", kNet, "--recipe", fmt::format("{}/{}.json", state, name),
                       "--calibrate", kCalibration, "--samples", "16", "-o",
                       dir / (name + ".octet"), "--json"}));
  EXPECT_EQ(read_file(dir / "best.octet"), read_file(dir / "n.octet"));
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

TEST(CliTune, PerplexityIsOfTheLabels) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::vector<std::string> args{
      "tune",          kNet,         "--data", kCalibration, "--samples", "32",        "-o",
      dir / "n.octet", "--max-drop", "5%",     "--json",     "--metric",  "perplexity"};
  const auto json = json_of(run_octet(args));
  // Less than 1 is none, and 32 that of a network that knows nothing of its 32 classes.
  EXPECT_LE(json["float_score"].get<double>(), -1);
  EXPECT_GT(json["float_score"].get<double>(), -2);
  EXPECT_TRUE(json["above"].get<bool>()) << json;
}

TEST(CliTune, WordsAreOfNetworksThatReadSequences) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_failure(run_octet({"tune", kNet, "--data", kCalibration, "--samples", "32", "-o",
                            dir / "n.octet", "--metric", "words", "--space", "3"}),
                 1, {"word_agreement", "(N, steps, classes)"});
}

TEST(CliTune, WhatIsWrittenIsNoLargerThanItMayBe) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string out = dir / "n.octet";
  const auto tuned = [&](const std::string& size) {
    return run_octet({"tune", kNet, "--data", kCalibration, "--samples", "32", "-o", out,
                      "--max-size", size, "--target", "0.5", "--cost", "operators", "--json"});
  };
  const auto eight = json_of(tuned("100%"));
  const double whole = eight["trials"][0]["bytes"].get<double>();
  EXPECT_EQ(static_cast<double>(std::filesystem::file_size(out)), whole);
  const double most = std::floor(0.8 * whole);
  const auto json = json_of(tuned(fmt::format("{}", most)));
  for (const auto& trial : json["trials"]) EXPECT_LE(trial["bytes"].get<double>(), most) << trial;
  EXPECT_LE(static_cast<double>(std::filesystem::file_size(out)), most);
  EXPECT_GT(static_cast<double>(std::filesystem::file_size(out)), 0.7 * whole)
      << "layers keep 8 bits where there is room";
  expect_failure(tuned("10kB"), 1, {"with weights of 8 bits", "with 4 bits", "10000"});
}

TEST(CliTune, TheParetoCurveIsWritten) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const auto json = json_of(run_octet(tune_args(dir / "n.octet")));
  const std::string csv = read_file(dir / "n.octet.tune/pareto.csv");
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'),
            static_cast<std::ptrdiff_t>(json["pareto"].size()) + 1);
  EXPECT_EQ(csv.rfind("trial,score,cost,bytes\n", 0), 0u);
  EXPECT_TRUE(contains(csv, "\"" + json["pareto"][0].get<std::string>() + "\","));
}

TEST(CliTune, WrongUsageIsSaid) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string out = dir / "n.octet";
  expect_failure(run_octet({"tune", kNet, "-o", out}), 2, {"--data is required"});
  expect_failure(run_octet({"tune", kNet, "--data", kTest, "-o", out, "--max-drop", "much"}), 2,
                 {"--max-drop", "percent", "'much'"});
  for (const std::string size : {"2 MB", "-1", "much", "2MiB"})
    expect_failure(run_octet({"tune", kNet, "--data", kTest, "-o", out, "--max-size", size}), 2,
                   {"--max-size", "2MB", "'" + size + "'"});
  expect_failure(run_octet({"tune", kNet, "--data", kTest, "-o", out, "--max-time", "0.4"}), 2,
                 {"--max-time", "40%"});
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
