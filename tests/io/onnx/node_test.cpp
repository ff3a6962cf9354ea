// ONNX's own backend node tests: one operator per model, with inputs and the outputs they must
// give. OCTET_UPDATE_DOCS=1 build/bin/test_io --gtest_filter='DataOnnxNodes.*' writes
// docs/onnx_node_tests.md anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "octet/base/error.h"
#include "tests/data.h"
#include "tests/io/onnx/test_util.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

namespace fs = std::filesystem;

// Those that import refuses, each with a word of its reason that the message must hold: the list
// cannot go stale.
const std::map<std::string, std::string> kUnsupported = {
    // Results of types that octet does not have.
    {"test_max_uint32", "UINT32"},
    {"test_max_uint64", "UINT64"},
    {"test_min_uint32", "UINT32"},
};

// Where octet computes something else, on purpose.
const std::map<std::string, std::string> kDifferent = {
    {"test_resize_downsample_scales_cubic_align_corners",
     "ONNX's reference aligns the corners of a result of in * scale = 3.2 pixels; octet, PyTorch "
     "and ONNX Runtime "
     "(which "
     "leaves this test out too) those of the 3 pixels there are"},
};

std::vector<Tensor> read_all(const fs::path& dir, const std::string& prefix) {
  std::vector<Tensor> tensors;
  for (int i = 0; fs::exists(dir / (prefix + std::to_string(i) + ".pb")); ++i)
    tensors.push_back(io::read_onnx_tensor(dir / (prefix + std::to_string(i) + ".pb")));
  return tensors;
}

std::string difference_of(const Tensor& got_any, const Tensor& want) {
  // Codes are compared as the plain integers ONNX has.
  Tensor got = got_any.is_quantized() ? got_any.int_repr() : got_any;
  if (got.dtype() != want.dtype())
    return "dtype " + to_string(got.dtype()) + ", expected " + to_string(want.dtype());
  if (got.shape() != want.shape())
    return "shape " + to_string(got.shape()) + ", expected " + to_string(want.shape());
  // ONNX's own runner (onnx/backend/test/runner) compares with rtol=1e-3, atol=1e-7; its expected
  // values come from NumPy in float64 at places, and 1e-5 absolute is what float32 sums of a few
  // hundred numbers around 1 can differ by.
  if (!allclose(got, want, 1e-3, 1e-5))
    return "values\n" + to_string(got) + "\nexpected\n" + to_string(want);
  return "";
}

TEST(DataOnnxNodes, GiveTheExpectedOutputs) {
  OCTET_NEED_DATA("onnx-node-tests");
  size_t passed = 0;
  std::vector<fs::path> dirs;
  for (const auto& entry : fs::directory_iterator(data_dir() / "onnx-node-tests"))
    dirs.push_back(entry.path());
  std::sort(dirs.begin(), dirs.end());
  for (const fs::path& dir : dirs) {
    std::string name = dir.filename().string();
    if (kUnsupported.count(name) || kDifferent.count(name)) continue;
    try {
      fs::path data = dir / "test_data_set_0";
      std::vector<Tensor> inputs = read_all(data, "input_");
      graph::Graph g = io::import_onnx(dir / "model.onnx");
      std::vector<Tensor> got = run_graph(g, inputs), want = read_all(data, "output_");
      ASSERT_EQ(got.size(), want.size()) << name;
      for (size_t i = 0; i < want.size(); ++i) {
        std::string text = difference_of(got[i], want[i]);
        EXPECT_EQ(text, "") << name << ", output " << i << "\n" << graph::print(g);
      }
      ++passed;
    } catch (const std::exception& e) {
      ADD_FAILURE() << name << ": " << e.what();
    }
  }
  EXPECT_EQ(passed + kUnsupported.size() + kDifferent.size(), dirs.size());
}

// docs/onnx_node_tests.md: how many tests of each operator pass, and why the others do not.
std::string table() {
  struct Row {
    int passed = 0;
    std::vector<std::string> others;
  };
  std::map<std::string, Row> rows;
  for (const auto& entry : fs::directory_iterator(data_dir() / "onnx-node-tests")) {
    const std::string name = entry.path().filename().string();
    const std::string nodes = slurp(entry.path() / "model.onnx");
    const std::string op = submessages(submessages(submessages(nodes, 7).at(0), 1).back(), 4).at(0);
    Row& row = rows[op];
    if (auto it = kUnsupported.find(name); it != kUnsupported.end())
      row.others.push_back("`" + name + "` is refused: " + it->second);
    else if (auto it = kDifferent.find(name); it != kDifferent.end())
      row.others.push_back("`" + name + "` gives something else: " + it->second);
    else
      ++row.passed;
  }
  std::string text =
      "# ONNX's node tests\nMade by `OCTET_UPDATE_DOCS=1 build/bin/test_io "
      "--gtest_filter='DataOnnxNodes.*'` from the node tests of ONNX 1.12; do not edit. Every one "
      "that\npasses is run as it is: shapes, axes and scales that are inputs of the model are read "
      "when it runs.\n\n| operator | pass | others |\n|---|---|---|\n";
  int passed = 0, all = 0;
  for (auto& [op, row] : rows) {
    std::sort(row.others.begin(), row.others.end());
    std::string others;
    for (const std::string& o : row.others) others += (others.empty() ? "" : "; ") + o;
    text += "| " + op + " | " + std::to_string(row.passed) + " | " + others + " |\n";
    passed += row.passed;
    all += row.passed + static_cast<int>(row.others.size());
  }
  return text + "\n" + std::to_string(passed) + " of " + std::to_string(all) + " pass.\n";
}

TEST(DataOnnxNodes, TheTableInTheDocsIsCurrent) {
  OCTET_NEED_DATA("onnx-node-tests");
  const char* path = "docs/onnx_node_tests.md";
  if (std::getenv("OCTET_UPDATE_DOCS")) std::ofstream(path) << table();
  EXPECT_EQ(slurp(path), table());
}

TEST(DataOnnxNodes, UnsupportedOnesAreRefusedWithAReason) {
  OCTET_NEED_DATA("onnx-node-tests");
  for (const auto& [name, reason] : kUnsupported) {
    try {
      io::import_onnx(data_dir() / "onnx-node-tests" / name / "model.onnx");
      ADD_FAILURE() << name << " imports now: take it off the list";
    } catch (const Error& e) {
      EXPECT_EQ(to_string(e.code()), std::string("unsupported")) << name << ": " << e.what();
      EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << name << ": " << e.what();
    }
  }
}

}  // namespace
}  // namespace octet::testing
