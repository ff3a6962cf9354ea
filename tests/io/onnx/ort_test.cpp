// Exported models in ONNX Runtime itself: what its optimized graph computes in float, and its
// results.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "octet/base/file.h"
#include "octet/graph/trace.h"
#include "octet/io/onnx/export.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/example_models.h"
#include "tests/io/onnx/networks.h"
#include "tests/io/onnx/test_util.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

// As `octet quantize` makes it from an ONNX file.
graph::Graph quantized(const nn::ModulePtr& net, const Tensor& x, const std::string& dtype) {
  net->eval();
  Attrs qconfig = quant::to_attrs(quant::get_default_qconfig("native"));
  qconfig.set("activation.dtype", dtype);
  const graph::Graph traced = graph::trace(*net, {x})->to_graph();
  auto prepared =
      quant::prepare_fx(io::import_onnx_bytes(io::to_onnx_bytes(traced)),
                        quant::QConfigMapping().set_global(quant::qconfig_from(qconfig)));
  (*prepared)(x);
  return quant::convert_fx(prepared)->graph();
}

// What ONNX Runtime makes of a graph: the operators it runs, and its first result.
struct InOnnxRuntime {
  std::map<std::string, int> ops;
  std::vector<float> result;
};

InOnnxRuntime run_in_onnx_runtime(const graph::Graph& g, const Tensor& x,
                                  const io::OnnxExportOptions& options = {}) {
  TempDir dir;
  const std::string model = dir.path() / "net.onnx", data = dir.path() / "x.f32",
                    optimized = dir.path() / "optimized.onnx";
  io::export_onnx(g, model, options);
  std::ofstream(data, std::ios::binary)
      .write(static_cast<const char*>(x.raw_data()), static_cast<std::streamsize>(x.nbytes()));
  std::vector<std::string> command{"/usr/bin/env", "node", "tests/run_ort.js", model, data};
  for (int64_t d : x.shape()) command.push_back(std::to_string(d));
  const RunResult run = run_process(command, {.env = {{"ORT_OPTIMIZED", optimized}}});
  if (run.code != 0) throw std::runtime_error(run.err);
  InOnnxRuntime made;
  std::istringstream lines(run.out);
  for (std::string line; std::getline(lines, line);) made.result.push_back(std::stof(line));
  for (const ReadNode& n : read_nodes(read_file(optimized))) ++made.ops[n.op];
  return made;
}

// The largest difference in steps of the output's scale.
double steps_apart(const graph::Graph& g, const Tensor& x, const std::vector<float>& got) {
  const graph::Node& last = g.producer(g.outputs()[0]);
  const double step = last.op == "dequantize" ? g.type(last.inputs[0]).quantizer->scale() : 0;
  const std::vector<float> want = runtime::compile(g).run({x})[0].to_vector<float>();
  EXPECT_EQ(want.size(), got.size());
  double most = 0;
  for (size_t i = 0; i < std::min(want.size(), got.size()); ++i)
    most = std::max(most, std::abs(static_cast<double>(want[i]) - got[i]));
  return step > 0 ? most / step : most;
}

// The same for TensorRT, whose files ONNX Runtime runs too.
graph::Graph symmetric(const nn::ModulePtr& net, const Tensor& x) {
  net->eval();
  const quant::BackendConfig backend = quant::get_tensorrt_backend_config();
  const graph::Graph traced = graph::trace(*net, {x})->to_graph();
  auto prepared = quant::prepare_fx(
      traced, quant::QConfigMapping(quant::fitting_qconfig(quant::get_default_qconfig(), backend)),
      {.backend = backend});
  (*prepared)(x);
  return quant::convert_fx(prepared)->graph();
}

struct OrtExport : ::testing::TestWithParam<const char*> {  // the activations' dtype
  void SetUp() override {
    if (!std::getenv("ORT_DIR"))
      GTEST_SKIP() << "ORT_DIR does not name an onnxruntime-node package";
    manual_seed(3);
  }
  // Whether it makes codes once, at the input, and numbers once, of the result: all between are
  // operators on codes.
  void expect_integers(const nn::ModulePtr& net, const Shape& shape, double most_steps) {
    const Tensor x = Tensor::randn(shape, 5);
    const graph::Graph g = quantized(net, x, GetParam());
    const InOnnxRuntime ort = run_in_onnx_runtime(g, x);
    auto ops = ort.ops;
    EXPECT_EQ(ops["QuantizeLinear"], 1) << ::testing::PrintToString(ort.ops);
    EXPECT_EQ(ops["DequantizeLinear"], 1) << ::testing::PrintToString(ort.ops);
    EXPECT_LE(steps_apart(g, x, ort.result), most_steps + 1e-3);
  }
};

TEST_P(OrtExport, ResNetRunsOnIntegersFromEndToEnd) {
  expect_integers(small_models()[0].model, {1, 3, 32, 32}, 1);
}

TEST_P(OrtExport, MobileNetV2RunsOnIntegersFromEndToEnd) {
  expect_integers(small_models()[1].model, {1, 3, 32, 32}, 1);
}

TEST_P(OrtExport, MobileNetV3RunsOnIntegersFromEndToEnd) {
  // Each hard swish may differ by a step, and there are four in a row.
  expect_integers(nn::make<MobileNetV3>(), {1, 3, 32, 32}, 2);
}

TEST_P(OrtExport, UNetRunsOnIntegersFromEndToEnd) {
  expect_integers(nn::make<UNet>(), {1, 3, 32, 32}, 1);
}

TEST_P(OrtExport, EncoderRunsOnIntegersButForNormsAndGelu) {
  // ONNX Runtime has no integer kernel for these (four norms, two GELUs); their results become
  // codes.
  const Tensor x = Tensor::randn({1, 9, 32}, 5);
  const graph::Graph g = quantized(nn::make<Encoder>(), x, GetParam());
  InOnnxRuntime ort = run_in_onnx_runtime(g, x);
  EXPECT_EQ(ort.ops["QuantizeLinear"], 1 + 4 + 2) << ::testing::PrintToString(ort.ops);
  EXPECT_EQ(ort.ops["Softmax"] + ort.ops["MatMul"] + ort.ops["Gemm"], 0)
      << ::testing::PrintToString(ort.ops);
  EXPECT_LE(steps_apart(g, x, ort.result), 1 + 1e-3);
}

TEST(OrtTensorRt, FilesForItGiveTheSame) {
  if (!std::getenv("ORT_DIR")) GTEST_SKIP() << "ORT_DIR does not name an onnxruntime-node package";
  manual_seed(3);
  const Tensor x = Tensor::randn({1, 3, 32, 32}, 5);
  for (const nn::ModulePtr& net :
       {small_models()[0].model, small_models()[1].model, nn::ModulePtr(nn::make<UNet>())}) {
    const graph::Graph g = symmetric(net, x);
    const auto ort = run_in_onnx_runtime(g, x, {.target = io::OnnxTarget::tensorrt});
    EXPECT_LE(steps_apart(g, x, ort.result), 1 + 1e-3);
  }
}

// ONNX Runtime computes in float between codes of 16 bits: its sums are rounded, and where a value
// is next to a tie it takes the other code. One such code within the network may make the result
// another one of two steps.
TEST(OrtCodes16, NetworksOf16BitsGiveTheSameToTwoSteps) {
  if (!std::getenv("ORT_DIR")) GTEST_SKIP() << "ORT_DIR does not name an onnxruntime-node package";
  manual_seed(3);
  const std::pair<nn::ModulePtr, Shape> nets[] = {{small_models()[0].model, {1, 3, 32, 32}},
                                                  {small_models()[1].model, {1, 3, 32, 32}},
                                                  {nn::make<UNet>(), {1, 3, 32, 32}},
                                                  {nn::make<Encoder>(), {1, 9, 32}}};
  for (const auto& [net, shape] : nets)
    for (const char* dtype : {"quint16", "qint16"}) {
      const Tensor x = Tensor::randn(shape, 5);
      const graph::Graph g = quantized(net, x, dtype);
      EXPECT_LE(steps_apart(g, x, run_in_onnx_runtime(g, x).result), 2 + 1e-2) << dtype;
    }
}

// Files of later opsets say the same to ONNX Runtime.
TEST(OrtOpset, LaterOnesGiveTheSame) {
  if (!std::getenv("ORT_DIR")) GTEST_SKIP() << "ORT_DIR does not name an onnxruntime-node package";
  const TensorType images(DType::float32, {Dim("N"), Dim(1), Dim("H"), Dim("W")});
  graph::Graph triangle, antialias, four_bits;
  triangle.set_outputs({triangle.add_call("y", "triu", {triangle.add_input("x", images)},
                                          {{"diagonal", int64_t{1}}})});
  antialias.set_outputs({antialias.add_call("y", "interpolate", {antialias.add_input("x", images)},
                                            {{"mode", std::string("linear")},
                                             {"antialias", true},
                                             {"scales", std::vector<double>{0.5, 0.5}}})});
  // Of a matrix: for more dimensions ONNX Runtime rounds x to 8 bits (MatMulNBits).
  const TensorType rows(DType::float32, {Dim("N"), Dim(9)});
  const graph::ValueId x = four_bits.add_input("x", rows),
                       w = four_bits.add_constant(
                           "w", quantize_per_channel(Tensor::randn({3, 9}, 1), {0.25, 0.5, 0.125},
                                                     {0, 1, -2}, 0, DType::qint4x2));
  four_bits.set_outputs({four_bits.add_call("y", "linear_weight_only", {x, w})});
  for (const auto& [g, version] : {std::pair{triangle, 14}, {antialias, 18}, {four_bits, 21}}) {
    io::OnnxOpset opset;
    io::to_onnx_bytes(g, {}, &opset);
    EXPECT_EQ(opset.version, version);
    const Tensor in = Tensor::randn(version == 21 ? Shape{8, 9} : Shape{1, 1, 8, 9}, 5);
    EXPECT_LE(steps_apart(g, in, run_in_onnx_runtime(g, in).result), 1e-5) << version;
  }
}

INSTANTIATE_TEST_SUITE_P(Ort, OrtExport, ::testing::Values("quint8", "qint8"));

}  // namespace
}  // namespace octet::testing
