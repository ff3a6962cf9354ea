// Networks of public reports whose biases int32 cannot hold beside their weights, or hardly.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/io/npz.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/data.h"
#include "tests/sqnr.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

struct BiasCase {
  explicit BiasCase(const std::string& name) {
    const std::filesystem::path path = data_dir() / ".." / "cases" / name;
    graph = graph::fuse_activations(io::import_onnx(path.string() + ".onnx"));
    for (auto& [key, value] : read_npz(path.string() + ".npz")) {
      if (key.starts_with("in."))
        inputs.push_back(value);
      else
        expected = value;
    }
  }
  graph::Graph graph;
  std::vector<Tensor> inputs;
  Tensor expected;
};

TEST(DataBiasCases, PrunedChannelsKeepTheirBias) {
  OCTET_NEED_DATA("../cases");
  for (const std::string name : {"m_zero", "m_1e-6", "net"}) {
    const BiasCase c("dead-channel-bias." + name);
    auto prepared = quant::prepare_fx(c.graph, quant::get_default_qconfig());
    prepared->forward(c.inputs);
    quant::ConversionReport report;
    const graph::Graph int8 = quant::convert_fx(prepared, &report)->graph();
    std::string said;
    for (const std::string& w : report.warnings) said += w + "\n";
    EXPECT_NE(said.find("are next to nothing beside the bias"), std::string::npos) << said;
    const runtime::Program program = runtime::compile(int8);
    EXPECT_TRUE(program.warnings().empty()) << program.warnings()[0];
    const Tensor y = program.run(c.inputs)[0];
    EXPECT_GE(sqnr(c.expected, y), 35) << name;
    TempDir dir;
    io::export_onnx(int8, dir / "net.onnx");
    const graph::Graph imported =
        graph::merge_qdq(graph::fuse_activations(io::import_onnx(dir / "net.onnx")));
    EXPECT_TRUE(equal(runtime::compile(imported).run(c.inputs)[0], y)) << name;
  }
}

TEST(DataBiasCases, AQdqBiasAtTheEndsOfInt32DoesNotWrap) {
  OCTET_NEED_DATA("../cases");
  const BiasCase c("qdq-conv-bias.m_231-1");
  const graph::Graph merged = graph::merge_qdq(c.graph);
  for (const std::string engine : {"native", "reference"}) {
    const runtime::Program program = runtime::compile(merged, {.engine = engine});
    ASSERT_EQ(program.warnings().size(), 1u) << engine;
    EXPECT_TRUE(program.warnings()[0].find("channels 1, 2 of 3") != std::string::npos)
        << program.warnings()[0];
    EXPECT_TRUE(equal(program.run(c.inputs)[0], c.expected)) << engine;
  }
}

}  // namespace
}  // namespace octet::testing
