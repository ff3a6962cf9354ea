// A few key kernels may not take 5% more instructions than the committed figures
// (tests/perf/instructions.json): valgrind counts them, so the machine's mood does not matter. It
// has no AVX-512; the kernels are the same templates on every instruction set.
// To write the figures anew:
//   OCTET_UPDATE_INSTRUCTIONS=1 ctest --test-dir build -R PerfInstructions
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "octet/base/cpu.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

const std::string kFigures = "tests/perf/instructions.json";

std::string compiler() {
#ifdef __clang__
  return "clang " + std::to_string(__clang_major__);
#else
  return "GCC " + std::to_string(__GNUC__);
#endif
}

// Instructions of each measured_NAME (tests/perf/kernels.cpp), what it calls included, from a
// profile of callgrind:
//   cfn=measured_gemm
//   calls=1 0
//   0 1688126
std::map<std::string, int64_t> counts(const std::string& file) {
  std::map<std::string, int64_t> result;
  std::ifstream profile(file);
  const std::string prefix = "cfn=measured_";
  for (std::string line; std::getline(profile, line);) {
    if (line.rfind(prefix, 0) != 0) continue;
    std::string calls, position;
    int64_t instructions = 0;
    std::getline(profile, calls);
    profile >> position >> instructions;
    result[line.substr(prefix.size())] += instructions;
  }
  return result;
}

TEST(PerfInstructions, OfKeyKernelsAreAtMost5PercentMoreThanCommitted) {
#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "only release builds are counted";
#endif
  if (std::system("valgrind --version >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "valgrind is not installed; scripts/setup.sh installs it";
  if (!cpu_supports(Isa::avx2)) GTEST_SKIP() << "this CPU does not have avx2";
  const bool update = std::getenv("OCTET_UPDATE_INSTRUCTIONS") != nullptr;
  nlohmann::json figures;
  if (!update) {
    figures = nlohmann::json::parse(std::ifstream(kFigures), nullptr, false);
    ASSERT_TRUE(figures.is_object())
        << kFigures << " cannot be read; run the tests from the repository's root";
    if (figures["compiler"] != compiler())
      GTEST_SKIP() << "the figures are of code made by " << figures["compiler"].get<std::string>()
                   << ", this is " << compiler();
  }

  TempDir dir;
  const std::string profile = (dir / "callgrind.out").string();
  const RunResult run =
      run_process({"/usr/bin/env", "valgrind", "--tool=callgrind",
                   "--callgrind-out-file=" + profile, "--compress-strings=no", "--compress-pos=no",
                   "--toggle-collect=measured_*", OCTET_PERF_KERNELS},
                  {.env = {{"LD_BIND_NOW", "1"}}});
  ASSERT_EQ(run.code, 0) << run.err;
  const auto counted = counts(profile);
  ASSERT_EQ(counted.size(), 7u) << run.err;

  if (update) {
    figures = {
        {"made_by", "OCTET_UPDATE_INSTRUCTIONS=1 ctest --test-dir build -R PerfInstructions"},
        {"compiler", compiler()},
        {"instructions", counted}};
    std::ofstream(kFigures) << figures.dump(1) << "\n";
  }
  const auto committed = figures["instructions"].get<std::map<std::string, int64_t>>();
  ASSERT_EQ(committed.size(), counted.size());
  for (const auto& [name, instructions] : counted) {
    ASSERT_TRUE(committed.contains(name)) << name;
    const int64_t before = committed.at(name);
    EXPECT_LE(instructions, before + before / 20)
        << name << " takes " << instructions << " instructions, " << before
        << " were committed. If more is right, renew " << kFigures << ": "
        << figures["made_by"].get<std::string>();
  }
}

}  // namespace
}  // namespace octet::testing
