// octet doctor.
#include <filesystem>

#include "octet/base/file.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

using Json = nlohmann::json;

// The glyph network, calibrated on images that are 20 times too dark.
struct Dark {
  TempDir dir;
  std::string quantized = dir / "dark.octet", recipe = dir / "cured.json";
  Dark() { quantize_glyphs(quantized, {"--scale", "0.05"}); }
  std::vector<std::string> args(std::vector<std::string> more = {}) const {
    std::vector<std::string> all{"doctor", kNet, quantized, "--data", kTest};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST(CliDoctor, TheTextSaysCauseCureAndGain) {
  OCTET_NEED_PROGRAM();
  const Dark dark;
  const RunResult r = run_octet(dark.args({"--recipe", dark.recipe}));
  expect_success(r);
  for (const std::string part : {"128 samples, each 4th of which judges: ", "top-1 ",
                                 "1. unlike preprocessing (images): ", "samples lie in [0, 255]",
                                 "cure: all ranges anew (percentile): ", "also tried: ",
                                 "\ncured: ", "recipe: octet quantize "})
    EXPECT_TRUE(contains(r.out, part)) << part << "\n" << r.out;
}

TEST(CliDoctor, TheRecipeMakesANetworkThatIsRightAgain) {
  OCTET_NEED_PROGRAM();
  const Dark dark;
  const Json json = json_of(run_octet(dark.args({"--json", "--recipe", dark.recipe})));
  EXPECT_EQ(json["findings"][0]["cause"], "unlike preprocessing");
  EXPECT_EQ(json["findings"][0]["layer"], "images");
  EXPECT_TRUE(json["findings"][0]["kept"]);
  EXPECT_LT(json["before_top1"], 0.2);
  EXPECT_GT(json["after_top1"], 0.9);
  EXPECT_EQ(json["recipe"], dark.recipe);
  const std::string again = dark.dir / "again.octet";
  json_of(run_octet({"quantize", kNet, "--recipe", dark.recipe, "-o", again, "--json"}));
  const Json eval =
      json_of(run_octet({"eval", again, "--data", kTest, "--samples", "128", "--json"}));
  EXPECT_GT(eval["top1"], 0.9);
}

TEST(CliDoctor, WithoutACureNoRecipeIsWritten) {
  OCTET_NEED_PROGRAM();
  const Dark dark;
  const Json json =
      json_of(run_octet(dark.args({"--json", "--recipe", dark.recipe, "--seconds", "0.000001"})));
  EXPECT_FALSE(json["cured"]);
  EXPECT_FALSE(json.contains("recipe"));
  EXPECT_FALSE(std::filesystem::exists(dark.recipe));
  EXPECT_EQ(json["findings"][0]["cause"], "unlike preprocessing");
}

TEST(CliDoctor, SaturatingKeepsWhatHelpsThere) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  const std::string net = dir / "q.octet";
  quantize_glyphs(net);
  const auto finding = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args{"doctor", kNet,        net,  "--data",
                                  kTest,    "--samples", "32", "--json"};
    args.insert(args.end(), more.begin(), more.end());
    const Json json = json_of(run_octet(args));
    for (const Json& f : json["findings"])
      if (f["cause"] == "saturating target") return f;
    return Json();
  };
  const Json told = finding({}), kept = finding({"--saturating"});
  ASSERT_TRUE(told.is_object());
  EXPECT_FALSE(told["kept"]);
  EXPECT_TRUE(kept["kept"]);
  EXPECT_GT(kept["after_db"], kept["before_db"].get<double>() + 8);
}

TEST(CliDoctor, FailsOnOneLine) {
  OCTET_NEED_PROGRAM();
  const Dark dark;
  expect_failure(run_octet({"doctor", dark.quantized, dark.quantized, "--data", kTest}), 1,
                 {"is quantized already", "FLOAT"});
  expect_failure(run_octet({"doctor", kNet, kNet, "--data", kTest}), 1,
                 {"no operator in 8 bits", "QUANT"});
  expect_failure(run_octet({"doctor", kNet, dark.quantized}), 2, {"--data"});
  expect_failure(run_octet(dark.args({"--seconds", "-1"})), 2, {"--seconds"});
  const std::string precious = dark.dir / "precious.json";
  write_file_atomically(precious, "{\"mine\": 1}");
  expect_failure(run_octet(dark.args({"--recipe", precious})), 1,
                 {"precious.json", "no recipe", "--force"});
  EXPECT_EQ(read_file(precious), "{\"mine\": 1}");
}

}  // namespace
}  // namespace octet::testing
