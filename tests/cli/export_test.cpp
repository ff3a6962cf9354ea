// octet export: files and messages; what the files compute is tested in tests/runtime.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

TEST(Export, WritesTheNetworkItsHeaderAndTheRuntime) {
  TempDir dir;
  const std::string model = dir / "q.octet", out = dir / "c";
  quantize_glyphs(model);
  const auto json = json_of(run_octet({"export", model, "--c", out, "--name", "glyphs", "--json"}));
  EXPECT_EQ(json["files"].size(), 4u);
  for (const char* name : {"glyphs.c", "glyphs.h", "octet_runtime.c", "octet_runtime.h"})
    EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(out) / name)) << name;
  EXPECT_GT(json["constant_bytes"], 1000);
}

TEST(Export, FloatNetworksAreRefusedAndNothingIsWritten) {
  TempDir dir;
  const std::string out = dir / "c";
  expect_failure(run_octet({"export", kNet, "--c", out}), 1, {"quantize it statically first"});
  EXPECT_FALSE(std::filesystem::exists(out));
}

}  // namespace
}  // namespace octet::testing
