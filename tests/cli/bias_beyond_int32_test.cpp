// Layers whose bias int32 cannot hold in steps of s_x * s_w: what quantize does about its own, and
// what is said of others'.
#include <algorithm>

#include "octet/graph/graph.h"
#include "octet/io/octet_file.h"
#include "octet/ops/op.h"
#include "tests/cli/cli_test_util.h"

namespace octet::testing {
namespace {

// A float layer "fc" of two rows; those of the second are zeros, whose bias is 3.
graph::Graph pruned() {
  graph::Graph g;
  const graph::ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(4)}));
  const graph::ValueId w =
      g.add_constant("w", Tensor::from<float>({1, -1, 0.5f, 2, 0, 0, 0, 0}, {2, 4}));
  g.set_outputs({g.add_call("y", "linear", {x, w, g.add_constant("b", Tensor::from<float>({0, 3}))},
                            {}, std::nullopt, "fc")});
  return g;
}

// The same in codes, with a weight scale that no floor was applied to.
graph::Graph quantized_elsewhere() {
  graph::Graph g;
  const graph::ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(4)}));
  const graph::ValueId q =
      g.add_call("q", "quantize", {x}, {},
                 ops::QType{DType::quint8, Quantizer::per_tensor(0.01, 128, DType::quint8)});
  const graph::ValueId w = g.add_constant(
      "w", quantize_per_channel(Tensor::zeros({2, 4}), {0.01, 1e-9}, {0, 0}, 0, DType::qint8));
  const graph::ValueId y =
      g.add_call("y", "linear", {q, w, g.add_constant("b", Tensor::from<float>({0, 3}))}, {},
                 ops::QType{DType::quint8, Quantizer::per_tensor(0.02, 0, DType::quint8)}, "fc");
  g.set_outputs({g.add_call("out", "dequantize", {y})});
  return g;
}

TEST(CliBiasBeyondInt32, QuantizeSaysWhoseScalesItRaisedAndItsFilesRunWithoutAWord) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  io::save_octet(pruned(), dir / "net.octet");
  const Tensor x = Tensor::rand({16, 4}, 1, -0.01, 0.01);
  write_npz(dir / "x.npz", {{"x", x}});
  write_npy(dir / "x.npy", x);
  const std::string said = "fc: the weights of channel 1 of 2 are next to nothing beside the bias";
  const RunResult text = run_octet(
      {"quantize", dir / "net.octet", "--calibrate", dir / "x.npz", "-o", dir / "q.octet"});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(contains(text.err, "octet: warning: " + said)) << text.err;
  auto json = json_of(run_octet({"quantize", dir / "net.octet", "--calibrate", dir / "x.npz", "-o",
                                 dir / "q.onnx", "--json"}));
  EXPECT_TRUE(std::any_of(json["warnings"].begin(), json["warnings"].end(), [&](const auto& w) {
    return w.template get<std::string>().starts_with(said);
  })) << json["warnings"];
  for (const std::string model : {"q.octet", "q.onnx"}) {
    expect_success(run_octet({"run", dir / model, "--input", "x=" + (dir / "x.npy").string(),
                              "--output", dir / "y.npz"}));
    const Tensor y = read_npz(dir / "y.npz").at("y");
    for (int64_t i = 0; i < 16; ++i) EXPECT_NEAR(y.at({i, 1}), 3, 0.01) << model;
  }
}

TEST(CliBiasBeyondInt32, RunEvalAndBenchSayWhichSumsCanLeaveInt32) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  io::save_octet(quantized_elsewhere(), dir / "net.octet");
  const Tensor x = Tensor::zeros({2, 4});
  write_npy(dir / "x.npy", x);
  write_npz(dir / "data.npz", {{"images", x}, {"labels", Tensor::from<int64_t>({1, 1})}});
  const std::vector<std::vector<std::string>> commands{
      {"run", dir / "net.octet", "--input", "x=" + (dir / "x.npy").string(), "--output",
       dir / "y.npz"},
      {"eval", dir / "net.octet", "--data", dir / "data.npz"},
      {"bench", dir / "net.octet", "--seconds", "0.01"}};
  for (const auto& command : commands) {
    const RunResult r = run_octet(command);
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(r.err.starts_with("octet: warning: fc: channel 1 of 2: sums can leave int32"))
        << command[0] << ": " << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  }
  const Tensor y = read_npz(dir / "y.npz").at("out");
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_FLOAT_EQ(y.data<float>()[2 * i], 0);
    EXPECT_FLOAT_EQ(y.data<float>()[2 * i + 1], 3);
  }
}

}  // namespace
}  // namespace octet::testing
