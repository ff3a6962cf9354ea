// Random graphs of all operators that import knows, against ONNX Runtime: scripts/random_graphs.py.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/process.h"

namespace octet::testing {
namespace {

struct OrtRandomGraphs : ::testing::TestWithParam<int> {};  // the first of 60 seeds

TEST_P(OrtRandomGraphs, AgreeWithOnnxRuntime) {
  OCTET_NEED_PROGRAM();
  if (!std::getenv("ORT_DIR")) GTEST_SKIP() << "ORT_DIR does not name an onnxruntime-node package";
  if (run_process({"/usr/bin/env", "/usr/bin/python3", "-c", "import numpy, onnx"}).code)
    GTEST_SKIP() << "/usr/bin/python3 has no numpy or no onnx";
  const std::string seeds = fmt::format("{}:{}", GetParam(), GetParam() + 60);
  const RunResult r = run_process(
      {"/usr/bin/python3", "scripts/random_graphs.py", "check", seeds, "--octet", octet_binary()},
      {.env = {{"OCTET_NUM_THREADS", "1"}}});
  EXPECT_EQ(r.code, 0) << r.out << r.err;
}

INSTANTIATE_TEST_SUITE_P(Ort, OrtRandomGraphs, ::testing::Range(0, 360, 60));

}  // namespace
}  // namespace octet::testing
