// QDQ networks of 16 bits (ONNX's opset 21, and com.microsoft's pairs before it): in as codes, out
// at opset 21.
#include <gtest/gtest.h>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/passes/multiply_codes.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "tests/io/onnx/test_util.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using graph::Graph;

// name -> name.q -> name.dq
OnnxModel& pair(OnnxModel& m, const std::string& name, double scale, int64_t zero,
                DType codes = DType::uint16, const std::string& domain = "") {
  m.constant(name + ".s", Tensor::scalar(scale))
      .constant(name + ".z", Tensor::scalar(static_cast<double>(zero), codes));
  m.node("QuantizeLinear", {name, name + ".s", name + ".z"}, {name + ".q"}, {}, "", domain);
  return m.node("DequantizeLinear", {name + ".q", name + ".s", name + ".z"}, {name + ".dq"}, {}, "",
                domain);
}

OnnxModel& weight(OnnxModel& m, const std::string& name, const Shape& shape, int64_t axis,
                  DType codes = DType::int8) {
  std::vector<float> scales;
  for (int64_t i = 0; i < shape[static_cast<size_t>(axis)]; ++i)
    scales.push_back(0.001f * static_cast<float>(i + 1));
  const double most = codes == DType::int8 ? 127 : 32767;
  m.constant(name, Tensor::rand(shape, 5, -most, most).to(codes))
      .constant(name + ".s", floats(scales))
      .constant(name + ".z", Tensor::zeros({shape[static_cast<size_t>(axis)]}, codes));
  return m.node("DequantizeLinear", {name, name + ".s", name + ".z"}, {name + ".dq"},
                {{"axis", axis}});
}

// A convolution with a bias and a relu, a pool, an addition, a matrix product, a sigmoid.
OnnxModel network(DType codes, DType weights = DType::int8, const std::string& domain = "") {
  const int64_t zero = codes == DType::uint16 ? 32768 : 0,
                least = codes == DType::uint16 ? 0 : -32768;
  OnnxModel m(21, 10);
  m.input("x", {"N", 3, 8, 8});
  pair(m, "x", 1e-4, zero, codes, domain);
  weight(m, "w1", {4, 3, 3, 3}, 0, weights).constant("b1", Tensor::arange(4, DType::float32));
  m.node("Conv", {"x.dq", "w1.dq", "b1"}, {"c"}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}}});
  m.node("Relu", {"c"}, {"r"});
  pair(m, "r", 2e-4, least, codes, domain);
  m.node("MaxPool", {"r.dq"}, {"p"},
         {{"kernel_shape", std::vector<int64_t>{2, 2}}, {"strides", std::vector<int64_t>{2, 2}}});
  pair(m, "p", 2e-4, least, codes, domain);
  m.node("Add", {"p.dq", "p.dq"}, {"a"});
  pair(m, "a", 4e-4, least, codes, domain);
  m.constant("shape", longs({-1, 64})).node("Reshape", {"a.dq", "shape"}, {"f"});
  pair(m, "f", 4e-4, least, codes, domain);
  weight(m, "w2", {64, 10}, 1, weights).node("MatMul", {"f.dq", "w2.dq"}, {"l"});
  pair(m, "l", 1e-2, zero, codes, domain);
  m.node("Sigmoid", {"l.dq"}, {"s"});
  pair(m, "s", 1.0 / 65536, least, codes, domain);
  m.output("s.dq");
  return m;
}

TEST(OnnxCodes16, NetworksRunOnCodes) {
  for (const std::string domain : {"", kMicrosoft})
    for (DType codes : {DType::uint16, DType::int16})
      for (DType weights : {DType::int8, DType::int16}) {
        const Graph g = load_onnx(network(codes, weights, domain).bytes());
        EXPECT_EQ(ops_of(g), "quantize conv2d max_pool2d add reshape linear sigmoid dequantize");
        for (const graph::Value& v : g.values())
          if (v.type.is_quantized() && g.node(v.producer).kind == graph::NodeKind::call) {
            EXPECT_EQ(v.type.dtype, quantized_dtype(codes)) << v.name;
          }
      }
}

// Operators in float between rounding to codes, as the nodes say it: all that the sums' order and
// the multiplier's rounding can move is a code.
TEST(OnnxCodes16, CodesAreThoseOfTheNodes) {
  const Tensor x = Tensor::randn({2, 3, 8, 8}, 1);
  for (DType codes : {DType::uint16, DType::int16})
    for (DType weights : {DType::int8, DType::int16}) {
      const OnnxModel m = network(codes, weights);
      const Tensor want = run_one(m.import(), {x});
      const Graph g = load_onnx(m.bytes());
      for (const char* engine : {"native", "reference"}) {
        const Tensor got = runtime::compile(g, {.engine = engine}).run({x})[0];
        EXPECT_TRUE(allclose(got, want, 0, 4.0 / 65536)) << engine;
        EXPECT_FALSE(allclose(got, Tensor::zeros(got.shape()), 0, 0.01));
      }
      EXPECT_TRUE(equal(runtime::compile(g, {.engine = "native"}).run({x})[0],
                        runtime::compile(g, {.engine = "reference"}).run({x})[0]));
    }
}

TEST(OnnxCodes16, GoOutAtOpset21AndComeBackTheSame) {
  for (DType codes : {DType::uint16, DType::int16})
    for (DType weights : {DType::int8, DType::int16}) {
      const Graph g = load_onnx(network(codes, weights).bytes());
      io::OnnxOpset opset;
      const std::string bytes = io::to_onnx_bytes(g, {}, &opset);
      EXPECT_EQ(opset.version, 21);
      EXPECT_EQ(opset.reasons, std::vector<std::string>{"codes of 16 bits"});
      EXPECT_EQ(graph::print(load_onnx(bytes), {.full = true}), graph::print(g, {.full = true}));
    }
}

TEST(OnnxCodes16, OctetFilesHoldThem) {
  TempDir dir;
  for (DType codes : {DType::uint16, DType::int16}) {
    const Graph g = load_onnx(network(codes, codes).bytes());
    io::save_octet(g, dir / "net.octet");
    const Graph back = io::load_octet(dir / "net.octet");
    EXPECT_EQ(graph::print(back, {.full = true}), graph::print(g, {.full = true}));
    const Tensor x = Tensor::randn({1, 3, 8, 8}, 2);
    EXPECT_TRUE(equal(run_one(back, {x}), run_one(g, {x})));
  }
}

// Codes of 16 bits that are an input, an output, and of a dtype that an attribute gives.
TEST(OnnxCodes16, PlainCodesAreInputsAndOutputs) {
  OnnxModel m(21, 10);
  m.input("q", {4}, kUint16);
  m.constant("s", Tensor::scalar(0.5)).constant("z", Tensor::scalar(40000, DType::uint16));
  m.node("DequantizeLinear", {"q", "s", "z"}, {"x"}).node("Neg", {"x"}, {"y"});
  m.node("QuantizeLinear", {"y", "s"}, {"p"}, {{"output_dtype", int64_t{kInt16}}});
  m.output("p", kInt16);
  const Graph g = m.import();
  const Tensor p = run_one(g, {Tensor::from<uint16_t>({0, 39999, 40001, 65535})});
  EXPECT_EQ(p.dtype(), DType::qint16);
  EXPECT_EQ(p.to_vector<int16_t>(), (std::vector<int16_t>{32767, 1, -1, -25535}));
}

// 8 bits on one side, 16 on the other: codes are requantized between.
TEST(OnnxCodes16, RequantizesBetween8And16Bits) {
  OnnxModel m(21, 10);
  m.input("x", {"N", 64});
  pair(m, "x", 0.02, 128, DType::uint8);
  m.node("Identity", {"x.dq"}, {"i"});
  pair(m, "i", 1e-4, 32768, DType::uint16);
  weight(m, "w", {64, 10}, 1).node("MatMul", {"i.dq", "w.dq"}, {"y"});
  pair(m, "y", 0.05, 128, DType::uint8).output("y.dq");
  const Graph g = load_onnx(m.bytes());
  EXPECT_EQ(count_ops(g, "requantize"), 1);
  EXPECT_EQ(count_ops(g, "linear"), 1);
  EXPECT_EQ(count_ops(g, "dequantize"), 1);
  EXPECT_EQ(graph::print(load_onnx(io::to_onnx_bytes(g)), {.full = true}),
            graph::print(g, {.full = true}));
}

}  // namespace
}  // namespace octet::testing
