// The program under faults: its calls of the system fail, and it is killed at random moments.
#include <fmt/format.h>

#include <chrono>
#include <fstream>

#include "octet/base/random.h"
#include "octet/io/octet_file.h"
#include "tests/cli/cli_test_util.h"
#include "tests/faults/inject.h"
#include "tests/faults/rounds.h"

namespace octet::testing {
namespace {

using faults::Call;
using faults::Fault;

// A command that writes `out`.
using Arguments = std::vector<std::string>;
Arguments command(const std::string& name, const std::string& out) {
  if (name == "convert") return {"convert", kNet, out};
  if (name == "quantize")
    return {"quantize", kNet, "--calibrate", kCalibration, "--samples", "64", "-o", out};
  if (name == "qat")
    return {"qat", kNet,      "--data", kCalibration, "--samples", "64", "--epochs",
            "1",   "--batch", "32",     "--lr",       "0.0005",    "-o", out};
  return {"tune",   kNet,        "--data",    kCalibration, "--samples", "32",
          "-o",     out,         "--metric",  "sqnr",       "--target",  "200",
          "--cost", "operators", "--slowest", "1.5",        "--distill", "50"};
}
// Each command.
class ProgramFaults : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Commands, ProgramFaults,
                         ::testing::Values("convert", "quantize", "qat", "tune"),
                         [](const auto& info) { return info.param; });

RunOptions planned(const faults::Plan& plan, const std::string& counts = "") {
  RunOptions options;
  options.env = {{"LD_PRELOAD", OCTET_FAULTS},
                 {"OCTET_FAULT",
                  fmt::format("{} {} {} {}", static_cast<int>(plan.call),
                              static_cast<int>(plan.fault), plan.nth, static_cast<int>(plan.on))}};
  if (!counts.empty()) options.env.emplace_back("OCTET_FAULT_COUNTS", counts);
  return options;
}

std::vector<long> counts_of(const std::string& file) {
  std::ifstream in(file);
  std::vector<long> counts;
  for (long n; in >> n;) counts.push_back(n);
  return counts;
}

// What was there before, the result, or, of tune, the best so far: a network whose checksums are
// right.
bool whole(const std::string& name, const std::string& file, const std::string& want) {
  const std::string got = slurp(file);
  if (got == "old" || got == want) return true;
  if (name != "tune") return false;
  io::load_octet(file);  // an Error if it is torn
  return true;
}

void clear(const std::filesystem::path& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    std::filesystem::remove_all(entry.path());
}

// A kill leaves a temporary file, which the next write of that file removes.
int leftovers(const std::filesystem::path& directory) {
  int n = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    n += entry.path().extension() == ".tmp";
  return n;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OCTET_NEED_PRELOAD() GTEST_SKIP() << "the sanitizer's library must be the first"
#else
#define OCTET_NEED_PRELOAD() OCTET_NEED_PROGRAM()
#endif

TEST_P(ProgramFaults, EveryWriteFails) {
  OCTET_NEED_PRELOAD();
  const std::string& name = GetParam();
  int tried = 0;
  TempDir dir, apart;
  const std::string out = dir / "out.octet", counts = apart / "counts";
  ASSERT_EQ(run_octet(command(name, apart / "out.octet"), planned({}, counts)).code, 0);
  const std::string want = slurp(apart / "out.octet");
  const std::vector<long> calls = counts_of(counts);
  ASSERT_EQ(calls.size(), static_cast<size_t>(Call::count_));
  Arguments again = command(name, out);
  again.push_back("--force");
  for (const auto& [call, fault] : {std::pair{Call::write, Fault::no_space},
                                    {Call::write, Fault::torn},
                                    {Call::write, Fault::kill},
                                    {Call::sync, Fault::io_error},
                                    {Call::write, Fault::short_count}}) {
    const long all = calls[static_cast<size_t>(call)];
    ASSERT_GT(all, 0);
    const long step = std::max<long>(1, all / fault_rounds(1));
    for (long n = (step + 1) / 2; n <= all; n += step) {
      SCOPED_TRACE(fmt::format("call {}, fault {}, number {} of {}", static_cast<int>(call),
                               static_cast<int>(fault), n, all));
      clear(dir.path());
      spill(out, "old");
      const RunResult r = run_octet(again, planned({call, fault, n, false}));
      ++tried;
      EXPECT_TRUE(whole(name, out, want)) << "a torn file";
      EXPECT_TRUE(r.code != 0 || slurp(out) == want);
      if (fault == Fault::kill) {
        EXPECT_EQ(r.signal, SIGKILL);
        continue;
      }
      EXPECT_EQ(leftovers(dir.path()), 0);
      EXPECT_TRUE(r.code == 0 || (r.code == 1 && fault != Fault::short_count)) << r.err;
    }
  }
  std::printf("faults of the program: %d\n", tried);
}

TEST_P(ProgramFaults, KilledAtRandomMoments) {
  OCTET_NEED_PROGRAM();
  const std::string& name = GetParam();
  const int rounds = fault_rounds(4) / 4;
  Random random(1);
  int killed = 0, done = 0;
  TempDir dir;
  const std::string out = dir / "out.octet";
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(run_octet(command(name, dir / "whole.octet")).code, 0);
  const double duration =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  const std::string want = slurp(dir / "whole.octet");
  for (int i = 0; i < rounds; ++i) {
    std::filesystem::remove_all(out + ".tune");
    spill(out, "old");
    Arguments arguments = command(name, out);
    arguments.push_back("--force");
    const int moment = std::max(1, static_cast<int>(random.uniform() * duration));
    SCOPED_TRACE(fmt::format("killed after {} ms", moment));
    const RunResult r = run_octet(arguments, {.kill_after_ms = moment});
    (r.signal == SIGKILL ? killed : done) += 1;
    EXPECT_TRUE(whole(name, out, want)) << "a torn file";
    // What comes next is not disturbed, and cleans up.
    if (name == "tune" && std::filesystem::exists(out + ".tune")) arguments.push_back("--resume");
    const RunResult after = run_octet(arguments);
    EXPECT_EQ(after.code, 0) << after.err;
    EXPECT_TRUE(slurp(out) == want);
    EXPECT_EQ(leftovers(dir.path()), 0);
  }
  std::printf("killed: %d, done before: %d\n", killed, done);
}

}  // namespace
}  // namespace octet::testing
