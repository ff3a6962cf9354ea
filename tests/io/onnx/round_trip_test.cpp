// Import, export, import: the typed graph is the same, to the name, for networks of many kinds.
#include <gtest/gtest.h>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/passes/multiply_codes.h"
#include "octet/graph/trace.h"
#include "octet/io/onnx/export.h"
#include "octet/quant/workflow/fx.h"
#include "tests/example_models.h"
#include "tests/io/onnx/networks.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using graph::Graph;
using Ints = std::vector<int64_t>;

void expect_identity(const Graph& imported, const std::string& what) {
  SCOPED_TRACE(what);
  const Graph back = load_onnx(io::to_onnx_bytes(imported));
  EXPECT_EQ(graph::print(back, {.full = true}), graph::print(imported, {.full = true}));
}

struct Network {
  std::string name;
  nn::ModulePtr model;
  Tensor x;
};

std::vector<Network> networks() {
  std::vector<Network> all;
  for (SmallModel& m : small_models())
    if (m.name != "BiLSTM") all.push_back({m.name, m.model, m.x(2, 1)});
  const Tensor image = Tensor::randn({2, 3, 32, 32}, 1);
  all.push_back({"MobileNetV3", nn::make<MobileNetV3>(), image});
  all.push_back({"UNet", nn::make<UNet>(), image});
  all.push_back({"Encoder", nn::make<Encoder>(), Tensor::randn({1, 9, 32}, 1)});
  for (Network& n : all) n.model->eval();
  return all;
}

// As a file from elsewhere would be read.
Graph float_graph(const Network& n) {
  return load_onnx(io::to_onnx_bytes(graph::trace(*n.model, {n.x})->to_graph()));
}

TEST(OnnxRoundTrip, FloatNetworks) {
  for (const Network& n : networks()) expect_identity(float_graph(n), n.name);
}

TEST(OnnxRoundTrip, StaticallyQuantizedNetworks) {
  for (const Network& n : networks())
    for (const auto target : {io::OnnxTarget::onnxruntime, io::OnnxTarget::tensorrt}) {
      SCOPED_TRACE(n.name + " for " + io::to_string(target));
      const bool symmetric = target == io::OnnxTarget::tensorrt;
      const quant::BackendConfig backend =
          quant::get_backend_config(symmetric ? "tensorrt" : "native");
      auto prepared = quant::prepare_fx(
          float_graph(n),
          quant::QConfigMapping(quant::fitting_qconfig(quant::get_default_qconfig(), backend)),
          {.backend = backend});
      (*prepared)(n.x);
      const Graph made = quant::convert_fx(prepared)->graph();
      const io::OnnxExportOptions options{.target = target};
      const Graph imported = load_onnx(io::to_onnx_bytes(made, options));
      EXPECT_EQ(graph::print(load_onnx(io::to_onnx_bytes(imported, options)), {.full = true}),
                graph::print(imported, {.full = true}));
      for (size_t i = 0; i < made.outputs().size(); ++i)
        EXPECT_TRUE(equal(run_graph(imported, {n.x})[i], run_graph(made, {n.x})[i]));
    }
}

TEST(OnnxRoundTrip, DynamicAndWeightOnlyNetworks) {
  for (const Network& n : networks()) {
    const Graph g = float_graph(n);
    expect_identity(load_onnx(io::to_onnx_bytes(
                        quant::quantize_dynamic_fx(g, quant::per_channel_dynamic_qconfig()))),
                    n.name + ", dynamic");
    const auto weight = quant::per_channel_dynamic_qconfig().weight;
    const Graph bytes = quant::quantize_weight_only_fx(g, weight),
                four = quant::quantize_weight_only_fx(g, weight.with_quant_range(-8, 7));
    expect_identity(bytes, n.name + ", weight-only");
    expect_identity(four, n.name + ", weight-only of 4 bits");
  }
}

// The layer's own results, its states too, squeezed as PyTorch writes them.
TEST(OnnxRoundTrip, RecurrentLayers) {
  const struct {
    const char* op;
    int64_t gates;
    size_t states;
  } cells[] = {{"LSTM", 4, 2}, {"GRU", 3, 1}, {"RNN", 1, 1}};
  for (const auto& cell : cells)
    for (const std::string direction : {"forward", "reverse", "bidirectional"})
      for (const bool given : {false, true})
        for (const bool read : {false, true}) {
          const int64_t d = direction == "bidirectional" ? 2 : 1, rows = cell.gates * 4;
          OnnxModel m;
          m.input("x", {"T", "N", 3});
          m.constant("w", Tensor::randn({d, rows, 3}, 1))
              .constant("r", Tensor::randn({d, rows, 4}, 2));
          m.constant("b", Tensor::randn({d, 2 * rows}, 3))
              .constant("one", longs({1}))
              .constant("zero", longs({0}));
          std::vector<std::string> in{"x", "w", "r", "b", ""}, out{"y"};
          for (size_t i = 0; i < cell.states && given; ++i) {
            in.push_back("h" + std::to_string(i));
            m.input(in.back(), {static_cast<int>(d), "N", 4});
          }
          for (size_t i = 0; i < cell.states; ++i) out.push_back("s" + std::to_string(i));
          m.node(cell.op, in, out, {{"hidden_size", int64_t{4}}, {"direction", direction}},
                 "/cell");
          if (d == 1) {
            m.node("Squeeze", {"y", "one"}, {"all"}, {}, "/squeeze")
                .node("Relu", {"all"}, {"z"}, {}, "/relu");
          } else {
            m.node("Relu", {"y"}, {"z"}, {}, "/relu");
          }
          m.output("z");
          if (read && d == 1)
            m.node("Squeeze", {"s0", "zero"}, {"last"}, {}, "/last").output("last");
          if (read && d == 2) m.output("s0");
          expect_identity(load_onnx(m.bytes()), std::string(cell.op) + " " + direction);
        }
}

// LSTMs whose weights are codes: com.microsoft's DynamicQuantizeLSTM, with a scale for a direction
// or for each row.
TEST(OnnxRoundTrip, LstmsOfCodes) {
  for (const DType dtype : {DType::int8, DType::uint8})
    for (const bool per_row : {false, true})
      for (const std::string direction : {"forward", "reverse", "bidirectional"})
        for (const bool bias : {false, true}) {
          const int64_t d = direction == "bidirectional" ? 2 : 1, rows = 16;
          const Shape of_scales = per_row ? Shape{d, rows} : Shape{d};
          OnnxModel m;
          m.input("x", {"T", per_row ? OnnxDim("N") : OnnxDim(2), 3});
          m.constant("w", Tensor::rand({d, 3, rows}, 1, 0, 100).to(dtype))
              .constant("r", Tensor::rand({d, 4, rows}, 2, 0, 100).to(dtype))
              .constant("b", Tensor::randn({d, 2 * rows}, 3))
              .constant("ws", Tensor::rand(of_scales, 5, 0.01, 0.02))
              .constant("rs", Tensor::rand(of_scales, 6, 0.01, 0.02))
              .constant("z", Tensor::full(of_scales, 50, dtype))
              .constant("one", longs({1}));
          m.node("DynamicQuantizeLSTM",
                 {"x", "w", "r", bias ? "b" : "", "", "", "", "", "ws", "z", "rs", "z"}, {"y"},
                 {{"hidden_size", int64_t{4}}, {"direction", direction}}, "/cell", kMicrosoft);
          if (d == 1) m.node("Squeeze", {"y", "one"}, {"all"}, {}, "/squeeze");
          m.node("Relu", {d == 1 ? "all" : "y"}, {"z_"}, {}, "/relu").output("z_");
          const Graph g = load_onnx(m.bytes());
          EXPECT_EQ(count_ops(g, "lstm"), d);
          expect_identity(g, direction + (per_row ? ", by row" : ""));
        }
}

// Two layers whose weights are one constant.
TEST(OnnxRoundTrip, TiedWeights) {
  OnnxModel m;
  m.input("x", {"N", 5, 4})
      .constant("w", Tensor::randn({4, 4}, 1))
      .constant("b", Tensor::randn({4}, 2));
  m.node("MatMul", {"x", "w"}, {"p"}, {}, "/p").node("Add", {"p", "b"}, {"q"}, {}, "/q");
  m.node("MatMul", {"q", "w"}, {"r"}, {}, "/r")
      .node("Add", {"r", "b"}, {"y"}, {}, "/y")
      .output("y");
  expect_identity(load_onnx(m.bytes()), "linear");
}

TEST(OnnxRoundTrip, MovesOfOpenSizes) {
  for (const std::string mode : {"CRD", "DCR"}) {
    OnnxModel m;
    m.input("x", {"N", 12, "H", "W"});
    m.node("DepthToSpace", {"x"}, {"y"}, {{"blocksize", int64_t{2}}, {"mode", mode}}, "/shuffle");
    expect_identity(load_onnx(m.output("y").bytes()), "DepthToSpace " + mode);
  }
  OnnxModel pool;
  pool.input("x", {"N", 3, 8, 7, 6});
  pool.node("MaxPool", {"x"}, {"y"},
            {{"kernel_shape", ints({2, 2, 2})}, {"strides", ints({2, 2, 2})}}, "/pool");
  expect_identity(load_onnx(pool.output("y").bytes()), "MaxPool of volumes");
}

TEST(OnnxRoundTrip, WeightsOfBlocks) {
  for (const bool zeros : {false, true}) {
    OnnxModel m;
    m.input("x", {"N", 64}).constant("q", Tensor::zeros({3, 2, 16}, DType::uint8));
    m.constant("s", Tensor::rand({3, 2}, 1, 0.1, 1))
        .constant("z", Tensor::ones({3, 1}, DType::uint8));
    std::vector<std::string> in{"x", "q", "s"};
    if (zeros) in.push_back("z");
    m.node(
        "MatMulNBits", in, {"y"},
        {{"K", int64_t{64}}, {"N", int64_t{3}}, {"bits", int64_t{4}}, {"block_size", int64_t{32}}},
        "/blocks", kMicrosoft);
    expect_identity(load_onnx(m.output("y").bytes()), "MatMulNBits");
  }
}

}  // namespace
}  // namespace octet::testing
