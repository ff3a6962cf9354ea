// Work that is shared: by statistics files, and by the ranks of mpirun where octet was built with
// MPI and mpirun is there.
#include <fmt/format.h>
#include <signal.h>

#include <fstream>
#include <thread>

#include "octet/quant/tune/precision.h"
#include "octet/quant/tune/recipe.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

std::vector<std::string> with(std::vector<std::string> args, const std::vector<std::string>& more) {
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

std::vector<std::string> quantize_args(const std::string& out) {
  return {"quantize", kNet, "--calibrate", kCalibration, "--samples", "200", "-o", out};
}

std::vector<std::string> part_args(const std::string& shard, const std::string& out) {
  return {"calibrate", kNet,      "--data", kCalibration, "--samples",
          "200",       "--shard", shard,    "-o",         out};
}

TEST(CliRanks, StatisticsOfPartsGiveTheFileOfOneProcess) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_success(run_octet(quantize_args(dir / "one.octet")));
  for (int i = 0; i < 3; ++i)
    expect_success(run_octet(part_args(fmt::format("{}/3", i), dir / fmt::format("stats.{}", i))));
  expect_success(
      run_octet({"stats", "merge", dir / "stats.2", dir / "stats.0", "-o", dir / "stats.merged"}));
  expect_success(
      run_octet({"quantize", kNet, "--stats", dir / "stats.merged", dir / "stats.1", "--calibrate",
                 kCalibration, "--samples", "200", "-o", dir / "parts.octet"}));
  EXPECT_EQ(slurp(dir / "parts.octet"), slurp(dir / "one.octet"));
  // Biases are corrected with samples, which statistics do not hold.
  expect_success(run_octet({"quantize", kNet, "--stats", dir / "stats.merged", dir / "stats.1",
                            "-o", dir / "no_data.octet"}));
  expect_success(run_octet(with(quantize_args(dir / "plain.octet"), {"--bias-samples", "0"})));
  EXPECT_EQ(slurp(dir / "no_data.octet"), slurp(dir / "plain.octet"));
}

TEST(CliRanks, StatsShowSaysWhatIsThere) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_success(run_octet(part_args("1/2", dir / "stats.1")));
  const RunResult r = run_octet({"stats", "show", dir / "stats.1"});
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "of 200 samples")) << r.out;
  EXPECT_TRUE(contains(r.out, "PercentileObserver")) << r.out;
}

TEST(CliRanks, MissingAndForeignStatisticsAreErrors) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_success(run_octet(part_args("0/2", dir / "stats.0")));
  expect_failure(run_octet({"quantize", kNet, "--stats", dir / "stats.0", "-o", dir / "q.octet"}),
                 1, {"of 200 are missing", "give the statistics of all parts"});
  expect_failure(run_octet({"stats", "merge", dir / "stats.0", dir / "stats.0", "-o", dir / "m"}),
                 1, {"both statistics have seen samples"});
  expect_success(run_octet(part_args("0/1", dir / "all")));
  expect_failure(run_octet({"quantize", kNet, "--stats", dir / "all", "--observer", "minmax", "-o",
                            dir / "q.octet"}),
                 1, {"of another network or of other options"});
  expect_failure(run_octet(with(part_args("0/1", dir / "all"), {"--observer", "moving-average"})),
                 1, {"depends on the order of samples"});
  for (const std::string shard : {"2/2", "-1/2", "1", "a/b", "1/0"})
    EXPECT_EQ(run_octet(part_args(shard, dir / "s")).code, 2) << shard;
  EXPECT_FALSE(std::filesystem::exists(dir / "q.octet"));
}

TEST(CliRanks, ACutOffCalibrationGoesOnToTheSameFile) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_success(run_octet(quantize_args(dir / "one.octet")));
  // As two ranks that were killed would have left them.
  expect_success(run_octet(part_args("1/3", dir / "q.octet.stats.0")));
  expect_success(run_octet(part_args("0/3", dir / "q.octet.stats.1")));
  const RunResult r = run_octet(with(quantize_args(dir / "q.octet"), {"--resume"}));
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(contains(r.err, "samples were seen before")) << r.err;
  EXPECT_EQ(slurp(dir / "q.octet"), slurp(dir / "one.octet"));
  EXPECT_EQ(count_files(dir.path()), 2u) << "statistics are left";
}

TEST(CliRanks, GradientsOfChunksAddUpToThoseOfTheBatch) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  // Without batch norms, which see chunks one by one; at a small rate, so that last bits stay last.
  expect_success(run_octet({"convert", kNet, dir / "0.octet"}));
  for (const std::string chunks : {"1", "4"})
    EXPECT_EQ(run_octet({"train", dir / "0.octet", "--data", kCalibration, "--samples", "256",
                         "--epochs", "1", "--batch", "32", "--optimizer", "sgd", "--lr", "1e-6",
                         "--chunks", chunks, "-o", dir / (chunks + ".octet")})
                  .code,
              0);
  const auto sqnr = [&](const std::string& a, const std::string& b) {
    const RunResult r =
        run_octet({"compare", dir / a, dir / b, "--data", kTest, "--samples", "64", "--json"});
    return nlohmann::json::parse(r.out)["outputs"][0]["sqnr_db"].get<double>();
  };
  EXPECT_LT(sqnr("0.octet", "1.octet"), 60) << "nothing was learned";
  EXPECT_GT(sqnr("1.octet", "4.octet"), 100);
}

TEST(CliRanks, ABatchThatDoesNotFallIntoChunksIsWrongUsage) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  for (const std::string chunks : {"5", "3"})
    expect_failure(run_octet({"train", kNet, "--data", kCalibration, "--batch", "32", "--chunks",
                              chunks, "-o", dir / "t.octet"}),
                   2, {"batches of 32 samples", chunks + " chunks"});
}

TEST(CliRanks, OptionsOfOtherWorkAreWrongUsage) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  expect_failure(run_octet(with(quantize_args(dir / "q.octet"), {"--chunks", "2"})), 2,
                 {"--chunks is of the steps of a --recipe"});
  expect_failure(run_octet({"quantize", kNet, "--recipe", "r.json", "--ranks-report",
                            dir / "ranks.json", "-o", dir / "q.octet"}),
                 2, {"--ranks-report is of a calibration"});
  EXPECT_EQ(count_files(dir.path()), 0u);
}

// -- ranks ----------------------------------------------------------------------------------------

bool has_mpi() {
  static const bool has = [] {
    const RunResult r =
        run_process({"/bin/sh", "-c",
                     "command -v mpirun >/dev/null && ldd \"$OCTET_BINARY\" | grep -q libmpi"});
    return r.code == 0;
  }();
  return has;
}

#define OCTET_NEED_MPI() \
  OCTET_NEED_PROGRAM();  \
  if (!has_mpi()) GTEST_SKIP() << "no mpirun, or octet was built without OCTET_MPI"

const RunOptions kMpi{.env = {{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                              {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                              {"OMPI_MCA_mpi_yield_when_idle", "1"},
                              {"OCTET_NUM_THREADS", "1"}}};

RunResult run_ranks(int n, const std::vector<std::string>& args, const RunOptions& options = kMpi) {
  return run_process(
      with({"/usr/bin/env", "mpirun", "--oversubscribe", "-n", std::to_string(n), octet_binary()},
           args),
      options);
}

TEST(CliRanks, TheFirstRankShowsABarWhereTheLauncherHasATerminal) {
  OCTET_NEED_MPI();
  TempDir dir;
  RunOptions terminal = kMpi;
  terminal.terminal = true;
  const RunResult r = run_ranks(2, quantize_args(dir / "q.octet"), terminal);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.err, "\rcalibrating  [")) << r.err;
  EXPECT_EQ(run_ranks(2, with(quantize_args(dir / "q.octet"), {"--force"})).err, "");
}

TEST(CliRanks, AnyNumberOfRanksWritesTheSameFile) {
  OCTET_NEED_MPI();
  TempDir dir;
  expect_success(run_octet(quantize_args(dir / "one.octet")));
  for (const int n : {2, 3, 4, 8}) {
    const std::string out = dir / fmt::format("{}.octet", n);
    const RunResult r = run_ranks(n, quantize_args(out));
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(contains(r.out, "calibrated on 200 samples")) << r.out;
    EXPECT_EQ(r.out.find("calibrated"), r.out.rfind("calibrated")) << "said by several ranks";
    EXPECT_EQ(slurp(out), slurp(dir / "one.octet")) << n << " ranks";
  }
  EXPECT_EQ(count_files(dir.path()), 5u);
}

// Of a recipe the steps that learn are shared, in as many parts as --chunks says.
TEST(CliRanks, LearnedRoundingOnAnyNumberOfRanksWritesTheSameFile) {
  OCTET_NEED_MPI();
  TempDir dir;
  quant::Recipe recipe;
  recipe.mapping.set_global(quant::with_weight_bits(quant::get_default_qconfig(), 5));
  recipe.steps = {{"brecq", {{"iterations", int64_t{20}}}},
                  {"distill", {{"iterations", int64_t{10}}}}};
  std::ofstream(dir / "r.json") << recipe.to_json();
  const auto args = [&](const std::string& out, const std::string& chunks) {
    return std::vector<std::string>{"quantize",    kNet,         "--recipe",  dir / "r.json",
                                    "--calibrate", kCalibration, "--samples", "64",
                                    "--chunks",    chunks,       "-o",        out};
  };
  RunOptions one_thread = kMpi;
  expect_success(run_octet(args(dir / "one.octet", "4"), one_thread));
  for (const int n : {2, 4}) {
    const std::string out = dir / fmt::format("{}.octet", n);
    const RunResult r = run_ranks(n, args(out, "4"));
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(slurp(out), slurp(dir / "one.octet")) << n << " ranks";
  }
  expect_success(run_octet(args(dir / "whole.octet", "1"), one_thread));
  EXPECT_NE(slurp(dir / "whole.octet"), slurp(dir / "one.octet"));
  const RunResult r = run_ranks(2, args(dir / "q.octet", "3"));
  EXPECT_NE(r.code, 0);
  EXPECT_TRUE(contains(r.err, "--chunks 3 do not fit 2 ranks")) << r.err;
}

TEST(CliRanks, RanksOfUnlikeInstructionSetsWriteTheSameFile) {
  OCTET_NEED_MPI();
  TempDir dir;
  expect_success(run_octet(quantize_args(dir / "one.octet")));
  const RunResult r =
      run_process(with(with({"/usr/bin/env", "mpirun", "--oversubscribe", "-n", "1", "-x",
                             "OCTET_ISA=avx2", octet_binary()},
                            quantize_args(dir / "q.octet")),
                       with({":", "-n", "1", octet_binary()}, quantize_args(dir / "q.octet"))),
                  kMpi);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(slurp(dir / "q.octet"), slurp(dir / "one.octet"));
}

TEST(CliRanks, EvalCountsTheSame) {
  OCTET_NEED_MPI();
  const std::vector<std::string> args{"eval", kNet, "--data", kTest, "--json"};
  const auto one = json_of(run_octet(args));
  for (const int n : {2, 3}) {
    const RunResult r = run_ranks(n, args);
    const auto json = nlohmann::json::parse(r.out);
    EXPECT_EQ(json["top1"], one["top1"]);
    EXPECT_EQ(json["samples"], one["samples"]);
  }
}

TEST(CliRanks, CompareSeesTheSame) {
  OCTET_NEED_MPI();
  TempDir dir;
  expect_success(run_octet(quantize_args(dir / "q.octet")));
  const std::vector<std::string> args{"compare", kNet,        dir / "q.octet", "--data",
                                      kTest,     "--samples", "200",           "--json"};
  const auto one = nlohmann::json::parse(run_octet(args).out);
  for (const int n : {2, 3}) {
    const RunResult r = run_ranks(n, args);
    const auto json = nlohmann::json::parse(r.out);
    for (const std::string key :
         {"samples", "float_top1", "quantized_top1", "agreement", "outputs"})
      EXPECT_EQ(json[key], one[key]) << key;
    for (size_t i = 0; i < one["layers"].size(); ++i)
      for (const std::string key : {"name", "sqnr_db", "own_sqnr_db", "range_after",
                                    "largest_samples", "max_error", "fault"})
        EXPECT_EQ(json["layers"][i][key], one["layers"][i][key]) << key << " of layer " << i;
  }
}

// Layers in 16 bits and in float, steps and distillation: each trial is one process's.
TEST(CliRanks, TuningTriesTheSameAndWritesTheSameFile) {
  OCTET_NEED_MPI();
  TempDir dir;
  const auto args = [&](const std::string& out) {
    return std::vector<std::string>{"tune",      kNet,       "--data",   kCalibration, "--samples",
                                    "64",        "-o",       dir / out,  "--cost",     "operators",
                                    "--json",    "--metric", "sqnr",     "--slowest",  "2",
                                    "--distill", "50",       "--target", "200"};
  };
  const auto one = json_of(run_octet(args("one.octet")));
  const RunResult r = run_ranks(3, args("3.octet"));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(nlohmann::json::parse(r.out)["trials"], one["trials"]);
  EXPECT_EQ(slurp(dir / "3.octet"), slurp(dir / "one.octet"));
  EXPECT_EQ(slurp(dir / "3.octet.tune/best.json"), slurp(dir / "one.octet.tune/best.json"));
  // What ranks send each other is not left behind.
  EXPECT_EQ(count_files(dir / "3.octet.tune"), count_files(dir / "one.octet.tune"));
}

TEST(CliRanks, TuningThatWasCutOffGoesOnWithAnotherNumberOfRanks) {
  OCTET_NEED_MPI();
  TempDir dir;
  const auto args = [&](const std::string& out, std::vector<std::string> more) {
    return with({"tune", kNet, "--data", kCalibration, "--samples", "64", "-o", dir / out, "--cost",
                 "operators", "--metric", "sqnr", "--distill", "0", "--target", "200"},
                more);
  };
  ASSERT_EQ(run_octet(args("one.octet", {})).code, 0);
  // Of the ladder's rungs the first is done: its time is up then.
  ASSERT_EQ(run_ranks(2, args("q.octet", {"--minutes", "0.0001"})).code, 0);
  const RunResult r = run_ranks(3, args("q.octet", {"--resume", "--force"}));
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(slurp(dir / "q.octet"), slurp(dir / "one.octet"));
}

TEST(CliRanks, TrainingOnAnyNumberOfRanksGivesTheSameBits) {
  OCTET_NEED_MPI();
  TempDir dir;
  const auto args = [&](const std::string& out) {
    return std::vector<std::string>{
        "qat",      kNet, "--data",   kCalibration, "--samples", "256",    "--batch", "32",
        "--epochs", "2",  "--chunks", "8",          "--lr",      "0.0005", "-o",      out};
  };
  EXPECT_EQ(run_octet(args(dir / "1.octet")).code, 0);
  for (const int n : {2, 4, 8}) {
    const std::string out = dir / fmt::format("{}.octet", n);
    const RunResult r = run_ranks(n, args(out));
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(slurp(out), slurp(dir / "1.octet")) << n << " ranks";
  }
}

TEST(CliRanks, TrainingThatDivergedSaysSoOnAnyNumberOfRanks) {
  OCTET_NEED_MPI();
  TempDir dir;
  for (const int n : {1, 2}) {
    const RunResult r =
        run_ranks(n, {"qat", kNet, "--data", kCalibration, "--samples", "256", "--batch", "32",
                      "--chunks", "2", "--lr", "1e30", "-o", dir / "q.octet"});
    EXPECT_NE(r.code, 0);
    EXPECT_TRUE(contains(r.err, "training diverged in epoch 1")) << r.err;
  }
  EXPECT_EQ(count_files(dir.path()), 0u);
}

TEST(CliRanks, TrainingGoesOnWithAnotherNumberOfRanks) {
  OCTET_NEED_MPI();
  TempDir dir;
  const auto args = [&](const std::string& out) {
    return std::vector<std::string>{"qat",      kNet,      "--data",   kCalibration, "--samples",
                                    "256",      "--batch", "32",       "--lr",       "0.0005",
                                    "--chunks", "4",       "--epochs", "8",          "--schedule",
                                    "constant", "-o",      out};
  };
  EXPECT_EQ(run_octet(args(dir / "one.octet")).code, 0);
  // Killed after the first epoch, when its checkpoint is there.
  const std::string out = dir / "two.octet";
  const std::string script =
      "mpirun --oversubscribe -n 4 \"$@\" & pid=$!; while kill -0 $pid && ! test -e " + out +
      ".train; do sleep 0.01; done; kill -9 $(cat /proc/$pid/task/$pid/children); wait $pid";
  run_process(with({"/bin/sh", "-c", script, "sh", octet_binary()}, args(out)), kMpi);
  ASSERT_TRUE(std::filesystem::exists(out + ".train"));
  const RunResult rest = run_ranks(2, with(args(out), {"--resume"}));
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(slurp(out), slurp(dir / "one.octet"));
}

TEST(CliRanks, AnErrorOfOneRankEndsAllWithOneLineOfOurs) {
  OCTET_NEED_MPI();
  TempDir dir;
  const RunResult r =
      run_ranks(3, {"quantize", kNet, "--calibrate", dir / "none.npz", "-o", dir / "q.octet"});
  EXPECT_NE(r.code, 0);
  const size_t at = r.err.find("octet: error: rank ");
  ASSERT_NE(at, std::string::npos) << r.err;
  EXPECT_TRUE(contains(r.err.substr(at), "of 3: ") && contains(r.err, "none.npz")) << r.err;
  EXPECT_EQ(r.err.find("octet: error", at + 1), std::string::npos) << r.err;
  EXPECT_EQ(count_files(dir.path()), 0u);
}

TEST(CliRanks, CommandsOfOneProcessSayThatRanksAreWrongUsage) {
  OCTET_NEED_MPI();
  const RunResult r = run_ranks(2, {"inspect", kNet});
  EXPECT_NE(r.code, 0);
  EXPECT_TRUE(contains(r.err, "octet inspect runs on one rank")) << r.err;
}

// One of the ranks is killed at a random moment: the others end, and --resume goes on to the file
// of a run that was never cut off. OCTET_RANK_KILLS says how often (2).
TEST(CliRanks, AKilledRankEndsTheOthersAndTheWorkCanBeResumed) {
  OCTET_NEED_MPI();
  TempDir dir;
  const auto args = [&](const std::string& out) {
    return std::vector<std::string>{"quantize", kNet,         "--calibrate", kTest, "--samples",
                                    "2000",     "--observer", "entropy",     "-o",  out};
  };
  expect_success(run_octet(args(dir / "one.octet")));
  const char* rounds = std::getenv("OCTET_RANK_KILLS");
  int clean = 0, killed = 0;
  double slowest = 0;
  const int n = rounds ? std::atoi(rounds) : 2;
  for (int i = 0; i < n; ++i) {
    const std::string out = dir / "q.octet";
    // A shell beside rank 1 kills it.
    const std::string script = fmt::format(
        "if [ \"${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}}\" = 1 ]; then (sleep 0.{:02}; kill -9 $$ "
        "2>/dev/null) & fi; "
        "exec \"$@\"",
        15 + 7 * i % 60);
    const auto start = std::chrono::steady_clock::now();
    const RunResult r = run_process(with({"/usr/bin/env", "mpirun", "--oversubscribe", "-n", "3",
                                          "/bin/sh", "-c", script, "sh", octet_binary()},
                                         args(out)),
                                    kMpi);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (r.code != 0) {
      ++killed;
      slowest = std::max(slowest, seconds);
      EXPECT_LT(seconds, 11);  // the start of three ranks, the second until the kill, and 10
      EXPECT_FALSE(std::filesystem::exists(out));
      EXPECT_EQ(run_octet(with(args(out), {"--resume"})).code, 0);
    }
    const bool same = slurp(out) == slurp(dir / "one.octet");
    EXPECT_TRUE(same) << r.err;
    clean += same;
    EXPECT_EQ(count_files(dir.path()), 2u);
    std::filesystem::remove(out);
  }
  fmt::print(
      "killed ranks: {} of {} rounds, {} ended with the same file; the slowest took {:.1f} s\n",
      killed, n, clean, slowest);
}

}  // namespace
}  // namespace octet::testing
