// Activations of 16 bits for layers that a mapping names, 8 bits elsewhere.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using testing::expect_error;

// conv1 -> relu -> conv2 -> sum with relu's result -> sigmoid -> pool -> fc
Graph net() {
  Graph g;
  uint64_t seed = 1;
  auto weight = [&](const std::string& name, const Shape& shape) {
    return g.add_constant(name, Tensor::rand(shape, seed++, -0.5, 0.5));
  };
  const Attrs pad{{"padding", std::vector<int64_t>{1, 1, 1, 1}}};
  auto call = [&](const std::string& name, const std::string& op, std::vector<ValueId> operands,
                  const Attrs& attrs = {}) {
    return g.add_call(name + "_y", op, operands, attrs, std::nullopt, name);
  };
  const ValueId x =
      g.add_input("image", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(8), Dim(8)}));
  const ValueId a =
      call("conv1", "conv2d", {x, weight("w1", {8, 3, 3, 3}), weight("b1", {8})}, pad);
  const ValueId r = call("relu1", "relu", {a});
  const ValueId b = call("conv2", "conv2d", {r, weight("w2", {8, 8, 3, 3})}, pad);
  const ValueId s = call("sum", "add", {b, r});
  const ValueId t = call("gate", "sigmoid", {s});
  const ValueId p =
      call("pool", "adaptive_avg_pool2d", {t}, {{"output_size", std::vector<int64_t>{2, 2}}});
  const ValueId f = call("flat", "flatten", {p});
  g.set_outputs({call("fc", "linear", {f, weight("w3", {10, 32}), weight("b3", {10})})});
  return g;
}

QConfig with_activations(DType dtype) {
  QConfig q = get_default_qconfig("native");
  q.activation = q.activation.with_dtype(dtype);
  return q;
}

Tensor codes16_batch(uint64_t seed) { return Tensor::randn({4, 3, 8, 8}, seed); }

Graph converted(const QConfigMapping& mapping, const PrepareOptions& options = {}) {
  auto prepared = prepare_fx(net(), mapping, options);
  prepared->forward(codes16_batch(1));
  Graph g = convert_fx(prepared)->graph();
  g.check();
  return g;
}

const Node& node_of(const Graph& g, const std::string& scope, const std::string& op) {
  for (const Node& n : g.nodes())
    if (n.kind == NodeKind::call && n.scope == scope && n.op == op) return n;
  throw std::runtime_error("no " + op + " of " + scope + "\n" + graph::print(g));
}

// On the data of the ranges, which nothing leaves.
double sqnr_of(const Graph& quantized) {
  const std::vector<float>
      a = runtime::compile(net()).run({codes16_batch(1)})[0].to_vector<float>(),
      b = runtime::compile(quantized).run({codes16_batch(1)})[0].to_vector<float>();
  double signal = 0, noise = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    signal += double(a[i]) * a[i];
    noise += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
  }
  return 10 * std::log10(signal / noise);
}

void expect_engines_agree(const Graph& g) {
  const Tensor x = codes16_batch(3);
  EXPECT_TRUE(equal(runtime::compile(g, {.engine = "native"}).run({x})[0],
                    runtime::compile(g, {.engine = "reference"}).run({x})[0]));
}

}  // namespace

TEST(Codes16Fx, ANamedLayerHas16BitsAndOthers8) {
  for (DType wide : {DType::quint16, DType::qint16}) {
    const Graph g = converted(QConfigMapping(with_activations(DType::quint8))
                                  .set_module_name("conv2", with_activations(wide)));
    const Node& layer = node_of(g, "conv2", "conv2d");
    EXPECT_EQ(g.type(layer.inputs[0]).dtype, wide);
    EXPECT_EQ(g.type(layer.inputs[1]).dtype, DType::qint8);
    EXPECT_EQ(g.type(layer.outputs[0]).dtype, wide);
    // Codes of 8 bits come in through a requantize, and go out so.
    EXPECT_EQ(g.producer(layer.inputs[0]).op, "requantize");
    for (const char* other : {"conv1", "fc"}) {
      const Node& n = node_of(g, other, std::string(other) == "fc" ? "linear" : "conv2d");
      EXPECT_EQ(g.type(n.outputs[0]).dtype, DType::quint8) << other;
      EXPECT_EQ(g.type(n.inputs[0]).dtype, DType::quint8) << other;
    }
    expect_engines_agree(g);
  }
}

TEST(Codes16Fx, AllOf16BitsLoseNextToNothing) {
  const double eight = sqnr_of(converted(with_activations(DType::quint8)));
  const Graph wide = converted(with_activations(DType::quint16));
  for (const graph::Value& v : wide.values())
    if (v.type.is_quantized() && wide.node(v.producer).kind == NodeKind::call) {
      EXPECT_EQ(v.type.dtype, DType::quint16) << v.name;
    }
  expect_engines_agree(wide);
  EXPECT_GT(sqnr_of(wide), eight);
  QConfig both = with_activations(DType::qint16);
  both.weight = both.weight.with_dtype(DType::qint16).with_quant_range(-32767, 32767);
  const Graph widest = converted(both);
  expect_engines_agree(widest);
  EXPECT_GT(sqnr_of(widest), 60) << "8 bits: " << eight;
}

TEST(Codes16Fx, FixedRangesHaveStepsOf16Bits) {
  const Graph g = converted(with_activations(DType::quint16));
  const Node& gate = node_of(g, "gate", "sigmoid");
  EXPECT_EQ(to_string(*g.type(gate.outputs[0]).quantizer),
            to_string(*Quantizer::per_tensor(1.0 / 65536, 0, DType::quint16)));
}

TEST(Codes16Fx, AMappingOfJsonNamesThem) {
  QConfigMapping mapping(with_activations(DType::quint8));
  mapping.set_module_name("fc", with_activations(DType::qint16));
  const QConfigMapping read = QConfigMapping::from_json(mapping.to_json());
  const Graph g = converted(read);
  EXPECT_EQ(g.type(node_of(g, "fc", "linear").inputs[0]).dtype, DType::qint16);
  EXPECT_EQ(g.type(node_of(g, "conv2", "conv2d").inputs[0]).dtype, DType::quint8);
}

TEST(Codes16Fx, BackendsSayWhetherTheyCan) {
  const QConfig q = with_activations(DType::quint16);
  EXPECT_NE(get_native_backend_config().find_op("conv2d")->find_dtype_config(q), nullptr);
  for (const char* name : {"fbgemm", "onednn", "qnnpack", "tensorrt"})
    EXPECT_EQ(get_backend_config(name).find_op("conv2d")->find_dtype_config(q), nullptr) << name;
}

TEST(Codes16Fx, MoreCodesThanTheDtypeHasNameTheOnesThatHave) {
  QConfig q = get_default_qconfig("native");
  expect_error(ErrorCode::invalid_argument, {"quint8 holds 0..255", "quint16"}, [&] {
    q.activation = q.activation.with_quant_range(0, 65535);
    converted(q);
  });
  q = with_activations(DType::quint16);
  q.activation = q.activation.with_quant_range(0, 4095);  // 12 bits
  const Graph g = converted(q);
  expect_engines_agree(g);
}

}  // namespace octet::quant
