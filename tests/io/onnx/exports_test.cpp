// Networks as exporters write them: OCTET_EXPORTS names a directory of NAME.onnx files with
// NAME.npz beside each ("in.X", "out.Y"), which scripts/exports/pytorch.py makes.
// OCTET_UPDATE_DOCS=1 writes docs/onnx_exports.md anew.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include "octet/io/npz.h"
#include "octet/runtime/program.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

namespace fs = std::filesystem;

// The largest difference, as a share of the range of what is wanted.
double difference(const Tensor& got, const Tensor& want) {
  if (got.shape() != want.shape() || got.dtype() != want.dtype()) return INFINITY;
  const auto a = got.to(DType::float64).contiguous().to_vector<double>(),
             b = want.to(DType::float64).contiguous().to_vector<double>();
  if (b.empty()) return 0;
  const auto [lo, hi] = std::minmax_element(b.begin(), b.end());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most / std::max(*hi - *lo, 1e-30);
}

TEST(DataOnnxExports, GiveWhatTheFrameworkGave) {
  const char* dir = std::getenv("OCTET_EXPORTS");
  if (!dir) GTEST_SKIP() << "OCTET_EXPORTS does not name a directory of exported networks";
  std::vector<fs::path> models;
  for (const auto& entry : fs::directory_iterator(dir))
    if (entry.path().extension() == ".onnx") models.push_back(entry.path());
  std::sort(models.begin(), models.end());
  ASSERT_GE(models.size(), 60u);
  std::string text =
      "# Networks as PyTorch exports them\nMade by `OCTET_EXPORTS=DIR OCTET_UPDATE_DOCS=1 "
      "build/bin/test_io --gtest_filter='DataOnnxExports.*'` from what\n"
      "`scripts/exports/pytorch.py DIR` writes with Debian's PyTorch 1.13 (random weights); do not "
      "edit. The difference is the\nlargest from PyTorch's results, as a share of their range.\n\n"
      "| network | inputs | operators | difference below |\n|---|---|---|---|\n";
  for (fs::path path : models) {
    const graph::Graph g = io::import_onnx(path);
    const auto arrays = read_npz(path.replace_extension(".npz"));
    std::map<std::string, Tensor> inputs;
    std::string types;
    for (graph::ValueId id : g.inputs()) {
      inputs[g.value(id).name] = arrays.at("in." + g.value(id).name);
      types += (types.empty() ? "" : ", ") + to_string(g.type(id));
    }
    double most = 0;
    for (const auto& [name, got] : runtime::compile(g).run(inputs))
      most = std::max(most, difference(got, arrays.at("out." + name)));
    // Sums of floats in another order: 1e-4 of the range is what ONNX networks are held to.
    EXPECT_LT(most, 1e-4) << path;
    const auto calls = std::count_if(g.nodes().begin(), g.nodes().end(), [](const auto& node) {
      return node.kind == graph::NodeKind::call;
    });
    text += fmt::format("| {} | {} | {} | 1e{:.0f} |\n", path.stem().string(), types, calls,
                        most == 0 ? -9 : std::max(-9.0, std::ceil(std::log10(most))));
  }
  if (std::getenv("OCTET_UPDATE_DOCS")) std::ofstream("docs/onnx_exports.md") << text;
}

}  // namespace
}  // namespace octet::testing
