// octet reference: docs/cli.md, the manual page and completions are what --help says.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/cli/cli_test_util.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

// docs/cli.md: OCTET_UPDATE_DOCS=1 OCTET_BINARY=build/bin/octet build/bin/test_cli
// --gtest_filter=Reference.* writes it anew.
TEST(Reference, ThePageOfTheCommandLineIsCurrent) {
  const std::string page = run_octet({"reference", "markdown"}).out;
  if (std::getenv("OCTET_UPDATE_DOCS")) std::ofstream("docs/cli.md") << page;
  EXPECT_EQ(slurp("docs/cli.md"), page);
}

TEST(Reference, TheManualPageHasNoWarnings) {
  const std::string page = run_octet({"reference", "man"}).out;
  EXPECT_NE(page.find(".SS octet quantize"), std::string::npos);
  EXPECT_NE(page.find("\\fB\\-\\-calibrate\\fR"), std::string::npos);
  if (!std::filesystem::exists("/usr/bin/groff")) GTEST_SKIP() << "no groff here";
  TempDir dir;
  spill(dir / "octet.1", page);
  const auto groff =
      run_process({"/usr/bin/groff", "-man", "-ww", "-z", "-Tutf8", dir / "octet.1"});
  EXPECT_EQ(groff.err, "");
}

TEST(Reference, BashCompletesCommandsAndOptions) {
  TempDir dir;
  spill(dir / "octet.bash", run_octet({"reference", "bash"}).out);
  const auto completions = [&](const std::string& words, int at) {
    return run_process({"/bin/bash", "-c",
                        "source " + (dir / "octet.bash").string() + "; COMP_WORDS=(" + words +
                            "); COMP_CWORD=" + std::to_string(at) +
                            "; _octet; echo \"${COMPREPLY[@]}\""})
        .out;
  };
  EXPECT_EQ(completions("octet quant", 1), "quantize\n");
  EXPECT_EQ(completions("octet quantize --calib", 2), "--calibrate\n");
  EXPECT_EQ(completions("octet inspect --ht", 2), "--html\n");
}

}  // namespace
}  // namespace octet::testing
