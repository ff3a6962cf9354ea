// Quantizing gives the same file, byte by byte, wherever it runs.
#include "octet/base/cpu.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

TEST(CliSameFile, OnEveryInstructionSetAndNumberOfThreads) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  using Environment = std::vector<std::pair<std::string, std::string>>;
  // oneDNN and octet held to the same instruction set; "" leaves them what the machine has,
  // whatever the tests run under.
  std::vector<std::pair<std::string, Environment>> settings{
      {"the machine's best", {{"OCTET_ISA", ""}, {"ONEDNN_MAX_CPU_ISA", "ALL"}}},
      {"scalar", {{"OCTET_ISA", "scalar"}, {"ONEDNN_MAX_CPU_ISA", "SSE41"}}}};
  if (cpu_supports(Isa::avx2))
    settings.push_back({"AVX2", {{"OCTET_ISA", "avx2"}, {"ONEDNN_MAX_CPU_ISA", "AVX2"}}});
  const std::string out = dir / "q.octet";  // one name: it is in the file's metadata
  std::string expected;
  settings.push_back({settings[0].first + ", again", settings[0].second});
  for (const auto& [name, setting] : settings)
    for (const char* threads : {"1", "2"}) {
      Environment env = setting;
      env.emplace_back("OCTET_NUM_THREADS", threads);
      RunResult r = run_octet(
          {"quantize", kNet, "--calibrate", kCalibration, "--samples", "64", "-o", out, "--json"},
          {.env = env});
      ASSERT_EQ(r.code, 0) << r.err;
      if (expected.empty()) expected = slurp(out);
      EXPECT_TRUE(slurp(out) == expected) << name << ", " << threads << " threads: another file";
    }
}

}  // namespace
}  // namespace octet::testing
