// Progress and colour: on a terminal only.
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

RunResult quantize(const TempDir& dir, RunOptions options) {
  return run_octet({"quantize", kNet, "--calibrate", kCalibration, "--json", "-o", dir / "q.octet"},
                   options);
}

TEST(CliTerminal, ABarWithColour) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = quantize(dir, {.terminal = true});
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(contains(r.err, "calibrating")) << r.err;
  EXPECT_TRUE(contains(r.err, "/512")) << r.err;
  EXPECT_TRUE(contains(r.err, "\x1b[32m")) << r.err;
  // results stay apart
  EXPECT_TRUE(nlohmann::json::parse(r.out, nullptr, false).is_object()) << r.out;
  EXPECT_EQ(r.err.back(), '\r') << "the bar is wiped at the end";
}

TEST(CliTerminal, NoColorRemovesTheColourAndLeavesTheBar) {
  OCTET_NEED_PROGRAM();
  for (const std::pair<std::string, std::string> variable :
       {std::pair{"NO_COLOR", "1"}, {"TERM", "dumb"}}) {
    TempDir dir;
    RunResult r = quantize(dir, {.env = {variable}, .terminal = true});
    EXPECT_TRUE(contains(r.err, "calibrating")) << variable.first;
    EXPECT_FALSE(contains(r.err, "\x1b")) << variable.first;
  }
}

TEST(CliTerminal, NothingOfTheKindElsewhere) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  RunResult r = quantize(dir, {});
  EXPECT_EQ(r.err, "");
  EXPECT_FALSE(contains(r.out, "\x1b"));
}

TEST(CliTerminal, AVariableDecidesWhetherThereIsABar) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  EXPECT_TRUE(contains(quantize(dir, {.env = {{"OCTET_PROGRESS", "1"}}}).err, "calibrating"));
  TempDir other;
  EXPECT_EQ(quantize(other, {.env = {{"OCTET_PROGRESS", "0"}}, .terminal = true}).err, "");
  for (const char* wish : {"0", "1"})
    EXPECT_EQ(contains(run_octet({"doctor", kNet, dir / "q.octet", "--data", kTest, "--samples",
                                  "32", "--seconds", "1"},
                                 {.env = {{"OCTET_PROGRESS", wish}}})
                           .err,
                       "octet: "),
              std::string(wish) == "1");
}

TEST(CliTerminal, AnErrorStandsOnALineOfItsOwn) {
  OCTET_NEED_PROGRAM();
  RunResult r = run_octet({"eval", "no/such.onnx", "--data", kTest}, {.terminal = true});
  EXPECT_EQ(r.code, 1);
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(r.err.rfind("octet: error: ", 0), 0u) << r.err;
  EXPECT_FALSE(contains(r.err, "\x1b"));
}

}  // namespace
}  // namespace octet::testing
