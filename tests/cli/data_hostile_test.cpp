// Files made to crash a reader, to fill the memory or to keep it busy: each is one line of error,
// at once.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>

#include "tests/cli/cli_test_util.h"
#include "tests/data.h"

namespace octet::testing {
namespace {

std::string hostile(const std::string& name) { return (cases_dir() / "hostile" / name).string(); }

// Runs the program, which must take less than 20 seconds and 500 MB.
RunResult run_within_limits(const std::vector<std::string>& args) {
  auto begin = std::chrono::steady_clock::now();
  RunResult r = run_octet(args);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
#ifndef __SANITIZE_ADDRESS__  // whose shadow memory counts too
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);  // of the largest so far
  EXPECT_LT(usage.ru_maxrss, 500'000) << "kB";
#endif
  return r;
}

// Calibrates with a directory that holds the picture.
RunResult quantize_with_picture(const std::string& name) {
  TempDir dir;
  std::filesystem::copy_file(hostile(name), dir / name);
  return run_within_limits({"quantize", kNet, "--calibrate", dir.path(), "-o", dir / "out.octet"});
}

TEST(DataHostile, HuffmanJpg) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_CASE("hostile/huffman.jpg");
  expect_failure(quantize_with_picture("huffman.jpg"), 1, {"huffman.jpg", "JPEG", "Huffman"});
}

TEST(DataHostile, CutBmp) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_CASE("hostile/cut.bmp");
  expect_failure(quantize_with_picture("cut.bmp"), 1, {"cut.bmp", "truncated"});
}

TEST(DataHostile, BombBmp) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_CASE("hostile/bomb.bmp");
  expect_failure(quantize_with_picture("bomb.bmp"), 1, {"bomb.bmp"});
}

TEST(DataHostile, DeepNestingInAModel) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_CASE("hostile/min_deep.octet");
  for (const char* command : {"inspect", "bench"})
    expect_failure(run_within_limits({command, hostile("min_deep.octet")}), 1,
                   {"min_deep.octet", "octet.graph", "nests deeper"});
}

TEST(DataHostile, NestedObjectsThatGrowInAModel) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_CASE("hostile/quad_15000.octet");
  expect_failure(run_within_limits({"inspect", hostile("quad_15000.octet")}), 1,
                 {"quad_15000.octet", "octet.graph", "nests deeper"});
}

TEST(DataHostile, DeepNestingInAConfig) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_CASE("hostile/deep_config.json");
  TempDir dir;
  expect_failure(run_within_limits({"quantize", kNet, "--calibrate", kCalibration, "--config",
                                    hostile("deep_config.json"), "-o", dir / "o.octet"}),
                 1, {"deep_config.json", "'skip", "nests deeper"});
}

TEST(DataHostile, SkipByExpressionWithALongName) {
  OCTET_NEED_PROGRAM();
  OCTET_NEED_CASE("hostile/longname.onnx");
  TempDir dir;
  RunResult r =
      run_within_limits({"quantize", hostile("longname.onnx"), "--calibrate", kCalibration,
                         "--samples", "32", "--skip", "re:.*head.*", "-o", dir / "o.octet"});
  EXPECT_EQ(r.code, 0) << r.err.substr(0, 500);
  Placed p = placed(dir / "o.octet");
  EXPECT_TRUE(std::any_of(p.left.begin(), p.left.end(),
                          [](const std::string& name) { return contains(name, "head"); }));
  EXPECT_TRUE(std::none_of(p.quantized.begin(), p.quantized.end(),
                           [](const std::string& name) { return contains(name, "head"); }));
}

}  // namespace
}  // namespace octet::testing
