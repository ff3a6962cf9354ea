// Graphs out to ONNX: what is written, and that import gives the graph back. Every export passes
// onnx::checker (the exporter runs it).
#include "octet/io/onnx/export.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::kNone;
using graph::ValueId;

TensorType float_type(const Shape& shape) { return TensorType(DType::float32, shape); }

ops::QType u8(double scale, int64_t zero) {
  return {DType::quint8, Quantizer::per_tensor(scale, zero, DType::quint8)};
}

// -- float operators ------------------------------------------------------------------------------

struct ExportCase {
  std::string op;
  std::vector<Shape> inputs = {{2, 3, 4}};
  Attrs attrs = {};
  std::string back = "";  // the operators after export and import; empty: the same one
  double low = -3, high = 3;
  DType dtype = DType::float32;
  std::vector<Tensor> constants = {};  // operands behind the inputs
};

Graph build(const ExportCase& c) {
  Graph g;
  std::vector<ValueId> operands;
  for (size_t i = 0; i < c.inputs.size(); ++i)
    operands.push_back(g.add_input("x" + std::to_string(i), TensorType(c.dtype, c.inputs[i])));
  for (size_t i = 0; i < c.constants.size(); ++i)
    operands.push_back(
        c.constants[i].defined() ? g.add_constant("c" + std::to_string(i), c.constants[i]) : kNone);
  g.set_outputs(g.add_calls("y", c.op, operands, c.attrs, std::nullopt, "node"));
  return g;
}

Attrs dims(std::vector<int64_t> d, bool keep) { return {{"dim", d}, {"keepdim", keep}}; }

const std::vector<ExportCase>& float_cases() {
  using I = std::vector<int64_t>;
  static const std::vector<ExportCase> cases = [] {
    std::vector<ExportCase> all;
    for (const char* op :
         {"relu",       "relu6", "sigmoid",  "tanh",     "exp",     "neg",        "abs",
          "erf",        "floor", "ceil",     "round",    "sign",    "sin",        "cos",
          "tan",        "atan",  "softsign", "selu",     "gelu",    "hardswish",  "hardsigmoid",
          "leaky_relu", "elu",   "celu",     "softplus", "softmax", "log_softmax"})
      all.push_back({op});
    for (const char* op : {"identity", "dropout"})
      all.push_back({.op = op, .back = "identity"});  // y must not be x itself
    for (const char* op : {"log", "sqrt", "reciprocal"}) all.push_back({.op = op, .low = 0.5});
    all.push_back({.op = "mish", .back = "softplus tanh mul"});
    all.push_back({.op = "silu"});
    all.push_back({.op = "rsqrt", .back = "sqrt reciprocal", .low = 0.5});
    all.push_back({.op = "gelu", .attrs = {{"approximate", std::string("tanh")}}});
    all.push_back({.op = "softplus", .attrs = {{"beta", 2.0}}, .back = "mul softplus div"});
    all.push_back({.op = "clamp", .attrs = {{"min", -1.0}, {"max", 2.0}}});
    all.push_back({.op = "clamp", .attrs = {{"max", 1.0}}});
    all.push_back({.op = "threshold", .attrs = {{"threshold", 0.5}, {"value", 0.0}}});
    all.push_back({.op = "threshold",
                   .attrs = {{"threshold", 0.5}, {"value", 2.0}},
                   .back = "greater where"});
    for (const char* op : {"add", "sub", "mul", "maximum", "minimum", "equal", "greater",
                           "greater_equal", "less", "less_equal"})
      all.push_back({.op = op, .inputs = {{2, 3, 4}, {3, 1}}});
    all.push_back({.op = "not_equal", .inputs = {{3}, {3}}, .back = "equal logical_not"});
    all.push_back({.op = "add",
                   .inputs = {{3}, {3}},
                   .attrs = {{"activation", std::string("relu")}},
                   .back = "add relu"});
    for (const char* op : {"div", "pow", "fmod"})
      all.push_back({.op = op, .inputs = {{2, 3}, {3}}, .low = 0.5});
    all.push_back({.op = "remainder", .inputs = {{2, 3}, {3}}, .back = "div floor mul sub"});
    for (const char* op : {"logical_and", "logical_or", "logical_xor"})
      all.push_back({.op = op, .inputs = {{3}, {3}}, .dtype = DType::bool_});
    all.push_back({.op = "logical_not", .inputs = {{3}}, .dtype = DType::bool_});
    all.push_back({.op = "prelu", .inputs = {{2, 3, 4, 4}}, .constants = {Tensor::randn({3}, 1)}});
    all.push_back({.op = "prelu", .constants = {Tensor::randn({1}, 1)}});
    for (const char* op : {"sum", "mean", "prod", "amax", "amin", "reduce_l1", "reduce_l2",
                           "sum_square", "log_sum_exp"}) {
      all.push_back({.op = op, .attrs = dims({0, 2}, false)});
      all.push_back({.op = op, .attrs = dims({}, true)});
    }
    all.push_back({.op = "log_sum", .attrs = dims({1}, true), .low = 0.1});
    for (const char* op : {"argmax", "argmin"})
      all.push_back({.op = op, .attrs = {{"dim", int64_t{1}}, {"keepdim", false}}});
    all.push_back({.op = "cumsum", .attrs = {{"dim", int64_t{1}}}});
    all.push_back({.op = "matmul", .inputs = {{2, 3, 4}, {4, 5}}});
    all.push_back({.op = "linear",
                   .inputs = {{2, 4}},
                   .constants = {Tensor::randn({5, 4}, 1), Tensor::randn({5}, 2)}});
    all.push_back({.op = "linear",
                   .inputs = {{2, 3, 4}},
                   .constants = {Tensor::randn({5, 4}, 1), Tensor::randn({5}, 2)}});
    all.push_back({.op = "linear", .inputs = {{2, 3, 4}}, .constants = {Tensor::randn({5, 4}, 1)}});
    all.push_back({.op = "conv2d",
                   .inputs = {{1, 4, 6, 6}},
                   .attrs = {{"stride", I{2, 1}},
                             {"padding", I{1, 0, 2, 1}},
                             {"dilation", I{1, 2}},
                             {"groups", int64_t{2}}},
                   .constants = {Tensor::randn({4, 2, 3, 3}, 1), Tensor::randn({4}, 2)}});
    all.push_back({.op = "conv2d",
                   .inputs = {{1, 2, 3, 3}},
                   .attrs = {{"activation", std::string("relu6")}},
                   .back = "conv2d relu6",
                   .constants = {Tensor::randn({4, 2, 1, 1}, 1)}});
    all.push_back({.op = "conv1d",
                   .inputs = {{1, 2, 7}},
                   .constants = {Tensor::randn({4, 2, 3}, 1), Tensor::randn({4}, 2)}});
    all.push_back(
        {.op = "max_pool2d",
         .inputs = {{1, 2, 7, 7}},
         .attrs = {{"kernel", I{3, 2}}, {"stride", I{2, 2}}, {"padding", I{1, 0, 1, 1}}}});
    all.push_back(
        {.op = "avg_pool2d",
         .inputs = {{1, 2, 7, 7}},
         .attrs = {{"kernel", I{3, 3}}, {"stride", I{2, 2}}, {"padding", I{1, 1, 1, 1}}}});
    all.push_back({.op = "avg_pool2d",
                   .inputs = {{1, 2, 7, 7}},
                   .attrs = {{"kernel", I{3, 3}},
                             {"stride", I{2, 2}},
                             {"padding", I{1, 1, 1, 1}},
                             {"count_include_pad", false}}});
    all.push_back({.op = "adaptive_avg_pool2d", .inputs = {{1, 2, 6, 6}}});
    all.push_back({.op = "adaptive_avg_pool2d",
                   .inputs = {{1, 2, 6, 6}},
                   .attrs = {{"output_size", I{3, 2}}},
                   .back = "avg_pool2d"});
    for (const char* op : {"max_pool3d", "avg_pool3d"})
      all.push_back(
          {.op = op,
           .inputs = {{1, 2, 5, 6, 7}},
           .attrs = {
               {"kernel", I{2, 3, 2}}, {"stride", I{1, 2, 2}}, {"padding", I{1, 0, 1, 0, 1, 1}}}});
    for (const char* op : {"max_pool1d", "avg_pool1d"})
      all.push_back(
          {.op = op,
           .inputs = {{1, 2, 7}},
           .attrs = {{"kernel", I{3}}, {"stride", I{2}}, {"padding", I{1, 0}}},
           .back = std::string("unsqueeze ") + std::string(op).substr(0, 8) + "2d squeeze"});
    all.push_back({.op = "adaptive_max_pool2d", .inputs = {{1, 2, 6, 6}}, .back = "amax"});
    all.push_back({.op = "adaptive_max_pool2d",
                   .inputs = {{1, 2, 6, 6}},
                   .attrs = {{"output_size", I{3, 2}}},
                   .back = "max_pool2d"});
    all.push_back({.op = "adaptive_avg_pool3d",
                   .inputs = {{1, 2, 4, 6, 6}},
                   .attrs = {{"output_size", I{2, 3, 2}}},
                   .back = "avg_pool3d"});
    Tensor c = Tensor::rand({3}, 4, 0.5, 2);
    all.push_back({.op = "batch_norm", .constants = {c, c, c, c}});
    all.push_back({.op = "instance_norm", .constants = {c, c}});
    all.push_back({.op = "instance_norm"});
    all.push_back({.op = "group_norm",
                   .inputs = {{2, 4, 3, 3}},
                   .attrs = {{"groups", int64_t{2}}},
                   .back = "reshape instance_norm reshape"});
    all.push_back({.op = "group_norm",
                   .inputs = {{2, 4, 3, 3}},
                   .attrs = {{"groups", int64_t{2}}},
                   .back = "reshape instance_norm reshape mul add",
                   .constants = {Tensor::randn({4}, 1), Tensor::randn({4}, 2)}});
    all.push_back(
        {.op = "layer_norm", .constants = {Tensor::randn({4}, 1), Tensor::randn({4}, 2)}});
    all.push_back({.op = "layer_norm",
                   .attrs = {{"axis", int64_t{1}}},
                   .constants = {Tensor::randn({3, 4}, 1)}});
    all.push_back({.op = "layer_norm"});
    all.push_back({.op = "reshape", .attrs = {{"shape", I{0, -1}}}});
    all.push_back({.op = "flatten"});
    all.push_back({.op = "flatten",
                   .attrs = {{"start_dim", int64_t{0}}, {"end_dim", int64_t{1}}},
                   .back = "reshape"});
    all.push_back({.op = "permute", .attrs = {{"dims", I{2, 0, 1}}}});
    all.push_back({.op = "unsqueeze", .attrs = {{"dim", int64_t{-1}}}});
    all.push_back({.op = "squeeze", .inputs = {{2, 1, 3}}, .attrs = {{"dim", int64_t{1}}}});
    all.push_back({.op = "expand", .inputs = {{3, 1}}, .attrs = {{"shape", I{2, -1, 5}}}});
    all.push_back({.op = "slice",
                   .attrs = {{"dim", int64_t{2}},
                             {"start", int64_t{1}},
                             {"end", int64_t{4}},
                             {"step", int64_t{2}}}});
    all.push_back({.op = "split", .attrs = {{"sizes", I{1, 3}}, {"dim", int64_t{2}}}});
    all.push_back({.op = "cat", .inputs = {{2, 3}, {2, 5}}, .attrs = {{"dim", int64_t{1}}}});
    all.push_back({.op = "pad", .attrs = {{"pads", I{0, 1, 0, 0, 2, 1}}, {"value", 1.5}}});
    all.push_back(
        {.op = "pad", .attrs = {{"pads", I{0, 1, 0, 0, 1, 1}}, {"mode", std::string("reflect")}}});
    all.push_back({.op = "pad",
                   .attrs = {{"pads", I{0, 1, 0, 0, 1, 1}}, {"mode", std::string("wrap")}},
                   .back = "slice slice cat slice cat"});
    all.push_back({.op = "pad",
                   .attrs = {{"pads", I{0, 1, -1, 0, -1, 1}}, {"mode", std::string("wrap")}},
                   .back = "slice slice cat slice slice cat"});
    all.push_back(
        {.op = "index_select", .attrs = {{"dim", int64_t{1}}}, .constants = {longs({2, 0, -1})}});
    all.push_back({.op = "tile", .inputs = {{2, 3}}, .attrs = {{"repeats", I{2, 1}}}});
    all.push_back({.op = "triu", .inputs = {{4, 5}}, .attrs = {{"diagonal", int64_t{1}}}});
    all.push_back({.op = "tril", .inputs = {{2, 4, 3}}});
    all.push_back({.op = "topk", .attrs = {{"k", int64_t{2}}, {"largest", false}}});
    all.push_back({.op = "pixel_shuffle",
                   .inputs = {{1, 8, 2, 3}},
                   .attrs = {{"upscale_factor", int64_t{2}}},
                   .back = "reshape permute reshape"});
    all.push_back(
        {.op = "interpolate",
         .inputs = {{1, 2, 3, 3}},
         .attrs = {{"scales", std::vector<double>{2, 1.5}}, {"mode", std::string("linear")}}});
    all.push_back({.op = "interpolate",
                   .inputs = {{1, 2, 3, 3}},
                   .attrs = {{"size", I{5, 2}}, {"coordinates", std::string("asymmetric")}}});
    all.push_back({.op = "to", .attrs = {{"dtype", std::string("int64")}}});
    return all;
  }();
  return cases;
}

TEST(OnnxExport, FloatOperatorsComeBack) {
  for (const ExportCase& c : float_cases()) {
    SCOPED_TRACE(c.op);
    try {
      Graph g = build(c), back = io::import_onnx_bytes(io::to_onnx_bytes(g));
      EXPECT_EQ(ops_of(back), c.back.empty() ? c.op : c.back) << graph::print(back);
      std::vector<Tensor> inputs;
      for (size_t i = 0; i < c.inputs.size(); ++i)
        inputs.push_back(Tensor::rand(c.inputs[i], 7 + i, c.low, c.high).to(c.dtype));
      auto got = run_graph(back, inputs), want = run_graph(g, inputs);
      ASSERT_EQ(got.size(), want.size());
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(to_string(got[i].type()), to_string(want[i].type()));
        EXPECT_TRUE(allclose(got[i], want[i], 1e-5, 1e-5))
            << to_string(got[i]) << to_string(want[i]);
        EXPECT_EQ(back.value(back.outputs()[i]).name, g.value(g.outputs()[i]).name);
      }
      if (c.back.empty()) {
        EXPECT_EQ(node_of(back, c.op).scope, "node");
      }
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

TEST(OnnxExport, SymbolicDimensionsStay) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(4), Dim(4)}));
  ValueId f = g.add_call("f", "flatten", {x});
  ValueId r = g.add_call("r", "reshape", {f}, {{"shape", std::vector<int64_t>{0, 6, 8}}});
  g.set_outputs(
      {g.add_call("y", "flatten", {r}, {{"start_dim", int64_t{0}}, {"end_dim", int64_t{1}}})});
  Graph back = io::import_onnx_bytes(io::to_onnx_bytes(g));
  EXPECT_EQ(to_string(back.type(back.outputs()[0])), "Float(N*6, 8)");
  EXPECT_EQ(to_string(back.type(back.inputs()[0])), "Float(N, 3, 4, 4)");
}

TEST(OnnxExport, OutputsThatNoNodeMakes) {
  Graph g;
  ValueId x = g.add_input("x", float_type({2})), c = g.add_constant("c", floats({1, 2}));
  ValueId y = g.add_call("y", "relu", {x});
  g.set_outputs({x, c, y, y});
  Graph back = io::import_onnx_bytes(io::to_onnx_bytes(g));
  auto got = run_graph(back, {floats({-1, 5})});
  ASSERT_EQ(got.size(), 4u);
  EXPECT_EQ(got[0].to_vector<float>(), (std::vector<float>{-1, 5}));
  EXPECT_EQ(got[1].to_vector<float>(), (std::vector<float>{1, 2}));
  EXPECT_EQ(got[3].to_vector<float>(), (std::vector<float>{0, 5}));
}

// The names of a graph's inputs (11) or outputs (12).
std::vector<std::string> names_of(const std::string& model, int field) {
  std::vector<std::string> names;
  for (const std::string& info : submessages(submessages(model, 7).at(0), field))
    names.push_back(submessages(info, 1).at(0));
  return names;
}

TEST(OnnxExport, NamesOfInputsAndOutputsStay) {
  Graph g;
  ValueId x = g.add_input("image:0", float_type({2}));
  g.add_input("z", float_type({2}));
  ValueId c = g.add_constant("c", floats({1, 2}));
  ValueId q = g.add_call("codes", "quantize", {x}, {}, u8(0.05f, 128)),
          d = g.add_call("scores/1", "dequantize", {q}), y = g.add_call("y", "add", {d, c});
  g.set_outputs({x, d, c, q, y});
  const std::string bytes = io::to_onnx_bytes(g);
  EXPECT_EQ(names_of(bytes, 11), (std::vector<std::string>{"image:0", "z"}));
  EXPECT_EQ(names_of(bytes, 12),
            (std::vector<std::string>{"image:0", "scores/1", "c", "codes", "y"}));
  const Graph back = io::import_onnx_bytes(bytes);
  for (size_t i = 0; i < g.outputs().size(); ++i)
    EXPECT_EQ(back.value(back.outputs()[i]).name, g.value(g.outputs()[i]).name);
  const std::vector<Tensor> inputs{floats({-1, 5}), floats({0, 0})};
  const auto got = run_graph(back, inputs), want = run_graph(g, inputs);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(to_string(got[i]), to_string(want[i])) << i;
}

// One with a name is one in the file, of quantized networks too.
TEST(OnnxExportQuantized, SymbolicDimensionsStay) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(2), Dim("H"), Dim("W")})),
          q = g.add_call("q", "quantize", {x}, {}, u8(0.05f, 128));
  ValueId p =
      g.add_call("p", "max_pool2d", {q},
                 {{"kernel", std::vector<int64_t>{2, 2}}, {"stride", std::vector<int64_t>{2, 2}}});
  g.set_outputs({p, g.add_call("y", "dequantize", {p})});
  const Graph back = graph::merge_qdq(io::import_onnx_bytes(io::to_onnx_bytes(g)));
  EXPECT_EQ(to_string(back.type(back.inputs()[0])), "Float(N, 2, H, W)");
  for (size_t i : {0, 1})
    EXPECT_EQ(to_string(back.type(back.outputs()[i])), to_string(g.type(g.outputs()[i])));
}

TEST(OnnxExport, AllThatCannotBeWrittenInOneError) {
  Graph g;
  ValueId x = g.add_input("x", float_type({1, 1, 7, 7}));
  ValueId a = g.add_call("a", "adaptive_avg_pool2d", {x},
                         {{"output_size", std::vector<int64_t>{2, 2}}}, std::nullopt, "pool");
  ValueId i = g.add_call("i", "to", {a}, {{"dtype", std::string("int64")}});
  g.set_outputs({g.add_call("y", "clamp", {i}, {{"min", 0.0}}, std::nullopt, "low")});
  expect_error(ErrorCode::unsupported,
               {"2 operators cannot be written", "adaptive_avg_pool2d (node \"pool\"",
                "clamp (node \"low\""},
               [&] { io::to_onnx_bytes(g); });
}

TEST(OnnxExport, WritesTheFileOrNothing) {
  TempDir dir;
  Graph g;
  g.set_outputs({g.add_call("y", "relu", {g.add_input("x", float_type({2}))})});
  io::export_onnx(g, dir / "m.onnx");
  EXPECT_EQ(ops_of(io::import_onnx(dir / "m.onnx")), "relu");
  EXPECT_EQ(count_files(dir.path()), 1u);
  expect_error(ErrorCode::io, {"nowhere"},
               [&] { io::export_onnx(g, dir.path() / "nowhere" / "m.onnx"); });
}

TEST(OnnxExport, IsDeterministic) {
  Graph g =
      build({.op = "layer_norm", .constants = {Tensor::randn({4}, 1), Tensor::randn({4}, 2)}});
  EXPECT_EQ(io::to_onnx_bytes(g), io::to_onnx_bytes(g));
}

// -- quantized graphs -----------------------------------------------------------------------------

Tensor weight(const Shape& shape, int64_t axis = 0) {
  std::vector<double> scales;
  for (int64_t i = 0; i < shape[axis]; ++i) scales.push_back(0.01f * static_cast<float>(i + 1));
  return quantize_per_channel(Tensor::randn(shape, 5), scales,
                              std::vector<int64_t>(scales.size(), 0), axis, DType::qint8);
}

// Import of an export, merged: must be an integer graph of the same operators that gives the same
// bits.
Graph round_trip(const Graph& g, const std::vector<Tensor>& inputs) {
  Graph back =
      graph::merge_qdq(graph::fuse_activations(io::import_onnx_bytes(io::to_onnx_bytes(g))));
  back.check();
  EXPECT_EQ(ops_of(back), ops_of(g)) << graph::print(back);
  auto got = run_graph(back, inputs), want = run_graph(g, inputs);
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_TRUE(equal(got[i], want[i])) << to_string(got[i]) << to_string(want[i]);
  // From then on nothing changes any more.
  Graph again =
      graph::merge_qdq(graph::fuse_activations(io::import_onnx_bytes(io::to_onnx_bytes(back))));
  EXPECT_EQ(graph::print(again, {.full = true}), graph::print(back, {.full = true}));
  return back;
}

// quantize -> conv2d (bias, relu) -> max_pool2d -> adaptive_avg_pool2d -> flatten -> linear ->
// dequantize
Graph small_net() {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(2), Dim(6), Dim(6)}));
  ValueId q = g.add_call("xq", "quantize", {x}, {}, u8(0.05f, 128));
  ValueId w = g.add_constant("conv.weight", weight({4, 2, 3, 3})),
          b = g.add_constant("conv.bias", Tensor::randn({4}, 2));
  ValueId c = g.add_call(
      "c", "conv2d", {q, w, b},
      {{"padding", std::vector<int64_t>{1, 1, 1, 1}}, {"activation", std::string("relu")}},
      u8(0.02f, 0), "conv");
  ValueId p =
      g.add_call("p", "max_pool2d", {c},
                 {{"kernel", std::vector<int64_t>{2, 2}}, {"stride", std::vector<int64_t>{2, 2}}},
                 std::nullopt, "pool");
  ValueId a = g.add_call("a", "adaptive_avg_pool2d", {p}, {}, u8(0.01f, 3), "average");
  ValueId f = g.add_call("f", "flatten", {a}, {}, std::nullopt, "flatten");
  ValueId v = g.add_constant("fc.weight", weight({5, 4})),
          d = g.add_constant("fc.bias", Tensor::randn({5}, 3));
  ValueId l = g.add_call("l", "linear", {f, v, d}, {}, u8(0.1f, 100), "fc");
  g.set_outputs({g.add_call("y", "dequantize", {l})});
  return g;
}

TEST(OnnxExportQuantized, SmallNetComesBack) {
  Graph g = small_net();
  Graph back = round_trip(g, {Tensor::randn({3, 2, 6, 6}, 8)});
  for (const char* name :
       {"xq", "c", "p", "a", "f", "l", "y", "conv.weight", "conv.bias", "fc.weight", "fc.bias"}) {
    ASSERT_TRUE(back.find(name)) << name;
    if (!std::string(name).ends_with("bias")) {
      EXPECT_EQ(to_string(back.type(*back.find(name)), false),
                to_string(g.type(*g.find(name)), false));
    }
  }
  EXPECT_EQ(node_of(back, "conv2d").scope, "conv");
  EXPECT_EQ(node_of(back, "linear").scope, "fc");
  // The bias is the integers that the kernel adds.
  const Tensor& bias = back.constant(*back.find("conv.bias"));
  EXPECT_EQ(bias.dtype(), DType::qint32);
  float first = Tensor::randn({4}, 2).to_vector<float>()[0];
  EXPECT_EQ(bias.int_repr().to_vector<int32_t>()[0],
            static_cast<int32_t>(std::nearbyint(first / (0.05f * 0.01f))));
}

TEST(OnnxExportQuantized, IsWrittenAsPairsAroundFloatOperators) {
  std::string model = io::to_onnx_bytes(small_net());
  EXPECT_EQ(
      onnx_ops_of(model),
      "QuantizeLinear DequantizeLinear DequantizeLinear DequantizeLinear Conv Relu QuantizeLinear "
      "DequantizeLinear MaxPool "
      "QuantizeLinear DequantizeLinear GlobalAveragePool QuantizeLinear DequantizeLinear Flatten "
      "QuantizeLinear "
      "DequantizeLinear DequantizeLinear DequantizeLinear Gemm QuantizeLinear DequantizeLinear");
}

TEST(OnnxExportQuantized, ElementwiseAndJoins) {
  Graph g;
  ValueId x = g.add_input("x", float_type({2, 4})),
          q = g.add_call("q", "quantize", {x}, {}, u8(0.05f, 128));
  ValueId s = g.add_call("s", "sigmoid", {q});
  ValueId a = g.add_call("a", "add", {q, s}, {{"activation", std::string("relu")}}, u8(0.03f, 0));
  ValueId c = g.add_call("c", "cat", {a, s}, {{"dim", int64_t{1}}}, u8(0.02f, 1));
  ValueId m = g.add_call("m", "mul", {a, a}, {}, u8(0.1f, 0));
  ValueId r = g.add_call("r", "requantize", {c}, {}, u8(0.05f, 7));
  ValueId i = g.add_call("i", "quantize", {x}, {},
                         ops::QType{DType::qint8, Quantizer::per_tensor(0.1f, -5, DType::qint8)});
  g.set_outputs({r, g.add_call("y", "dequantize", {m}), i});
  round_trip(g, {Tensor::randn({2, 4}, 1)});
}

TEST(OnnxExportQuantized, LinearOverSequences) {
  for (bool biased : {true, false}) {
    Graph g;
    ValueId x = g.add_input("x", float_type({2, 3, 4})),
            q = g.add_call("q", "quantize", {x}, {}, u8(0.05f, 128));
    ValueId b = biased ? g.add_constant("b", Tensor::randn({5}, 3)) : kNone;
    ValueId l = g.add_call("l", "linear", {q, g.add_constant("w", weight({5, 4})), b}, {},
                           u8(0.1f, 100), "fc");
    g.set_outputs({g.add_call("y", "dequantize", {l})});
    EXPECT_EQ(node_of(round_trip(g, {Tensor::randn({2, 3, 4}, 1)}), "linear").scope, "fc");
  }
}

TEST(OnnxExportQuantized, SharedBiasHasCodesForEachLayer) {
  Graph g;
  ValueId x = g.add_input("x", float_type({2, 4})),
          q = g.add_call("q", "quantize", {x}, {}, u8(0.05f, 128));
  ValueId b = g.add_constant("b", Tensor::randn({4}, 3)), w = g.add_constant("w", weight({4, 4}));
  ValueId one = g.add_call("one", "linear", {q, w, b}, {}, u8(0.1f, 100)),
          two = g.add_call("two", "linear", {one, w, b}, {}, u8(0.2f, 90));
  g.set_outputs({two});
  round_trip(g, {Tensor::randn({2, 4}, 1)});
}

TEST(OnnxExportQuantized, OneValueReadAsCodesAndAsNumbers) {
  Graph g;
  ValueId x = g.add_input("x", float_type({1, 1, 4, 4})),
          q = g.add_call("q", "quantize", {x}, {}, u8(0.05f, 128));
  ValueId p =
      g.add_call("p", "max_pool2d", {q},
                 {{"kernel", std::vector<int64_t>{2, 2}}, {"stride", std::vector<int64_t>{2, 2}}});
  ValueId d = g.add_call("d", "dequantize", {q});
  g.set_outputs({p, g.add_call("e", "exp", {d})});
  round_trip(g, {Tensor::randn({1, 1, 4, 4}, 1)});
}

// quantized weights under a float operator: weight-only
TEST(OnnxExportQuantized, FloatLeftNodes) {
  Graph g;
  ValueId x = g.add_input("x", float_type({2, 4})), w = g.add_constant("w", weight({5, 4}));
  ValueId d = g.add_call("wd", "dequantize", {w});
  g.set_outputs({g.add_call("y", "linear", {x, d})});
  round_trip(g, {Tensor::randn({2, 4}, 1)});
}

// Operators on codes that ONNX Runtime has no integer kernel for are written as some that it has
// one for, and come back as what they were.
TEST(OnnxExportQuantized, FormsOfOnnxRuntimeComeBack) {
  struct ExportCase {
    const char* op;
    Attrs attrs;
    std::optional<Tensor> number;  // the second operand
    ops::QType type;
    std::string nodes;  // between the first and the last pair
  };
  const auto of = [](DType dtype, float scale, int64_t zero_point) {
    return ops::QType{dtype, Quantizer::per_tensor(scale, zero_point, dtype)};
  };
  const Tensor third = Tensor::scalar(-0.3f);
  const std::string number = "DequantizeLinear ", again = "QuantizeLinear DequantizeLinear ";
  const std::vector<ExportCase> cases{
      {"relu", {}, {}, of(DType::quint8, 0.05f, 128), "LeakyRelu"},
      {"relu", {}, {}, of(DType::qint8, 0.05f, -128), "LeakyRelu"},
      {"add", {}, third, of(DType::quint8, 0.04f, 100), number + "Add"},
      {"mul", {}, third, of(DType::qint8, 0.04f, 9), number + "Mul"},
      {"mul",
       {},
       Tensor::from(std::vector<float>{2}, {1}),
       of(DType::quint8, 0.1f, 128),
       number + "Mul"},
      {"mul", {}, Tensor::scalar(0), of(DType::quint8, 0.1f, 128), number + "Mul"},
      {"sub", {}, third, of(DType::quint8, 0.04f, 100), number + "Add"},
      {"div", {}, third, of(DType::quint8, 0.2f, 100), number + "Mul"},
      {"div", {}, Tensor::scalar(8), of(DType::qint8, 0.00625f, 7), number + "Mul"},
      {"div", {}, Tensor::scalar(1e-42f), of(DType::quint8, 0.2f, 100), "Div"},
      {"hardsigmoid",
       {},
       {},
       of(DType::quint8, 1 / 256.f, 0),
       number + "Mul " + again + number + "Add"},
      {"hardsigmoid",
       {{"alpha", 0.2}, {"beta", 0.4}},
       {},
       of(DType::qint8, 1 / 255.f, -128),
       number + "Mul " + again + number + "Add"},
      // Codes of more than 1 and less than 0: nothing would clip.
      {"hardsigmoid", {}, {}, of(DType::quint8, 1 / 128.f, 0), "HardSigmoid"},
      {"hardsigmoid", {}, {}, of(DType::quint8, 1 / 256.f, 1), "HardSigmoid"},
      {"hardswish", {}, {}, of(DType::quint8, 0.03f, 13), number + "Add " + again + "Mul"},
      {"hardswish", {}, {}, of(DType::qint8, 0.03f, -115), number + "Add " + again + "Mul"},
      // So fine that the gate's 8 bits would show.
      {"hardswish", {}, {}, of(DType::quint8, 0.002f, 188), "Add Clip Mul Div"},
  };
  for (const ExportCase& c : cases) {
    SCOPED_TRACE(c.op + (" " + to_string(*c.type.quantizer)));
    Graph g;
    ValueId x = g.add_input("x", float_type({400}));
    const bool same = ops::get(c.op).rule() == ops::QRule::same;
    ValueId q = g.add_call(
        "q", "quantize", {x}, {},
        same ? c.type : of(c.type.dtype, 0.05f, c.type.dtype == DType::quint8 ? 128 : 7));
    std::vector<ValueId> operands{q};
    if (c.number) operands.push_back(g.add_constant("number", *c.number));
    ValueId y = g.add_call("y", c.op, operands, c.attrs,
                           same ? std::nullopt : std::optional(c.type), "node");
    g.set_outputs({g.add_call("z", "dequantize", {y}, {}, std::nullopt, "last")});
    Graph back = round_trip(g, {Tensor::randn({400}, 1)});
    EXPECT_EQ(graph::print(back, {.full = true}), graph::print(g, {.full = true}));
    EXPECT_EQ(onnx_ops_of(io::to_onnx_bytes(g)),
              "QuantizeLinear DequantizeLinear " + c.nodes + " QuantizeLinear DequantizeLinear");
  }
}

// A layer with a relu whose lowest code is below zero: the relu follows on codes.
TEST(OnnxExportQuantized, ReluOfLayersThatGoBelowZero) {
  for (const char* op : {"add", "linear"}) {
    Graph g;
    ValueId x = g.add_input("x", float_type({2, 4})),
            q = g.add_call("q", "quantize", {x}, {}, u8(0.05f, 128));
    ValueId w = std::string(op) == "add" ? q : g.add_constant("w", weight({4, 4}));
    ValueId y =
        g.add_call("y", op, {q, w}, {{"activation", std::string("relu")}}, u8(0.05f, 100), "node");
    g.set_outputs({g.add_call("z", "dequantize", {y}, {}, std::nullopt, "last")});
    Graph back = round_trip(g, {Tensor::randn({2, 4}, 1)});
    EXPECT_EQ(graph::print(back, {.full = true}), graph::print(g, {.full = true}));
    EXPECT_TRUE(onnx_ops_of(io::to_onnx_bytes(g))
                    .ends_with("QuantizeLinear DequantizeLinear LeakyRelu QuantizeLinear "
                               "DequantizeLinear"));
  }
}

// Sizes are those of the codes: nothing is dequantized for them.
TEST(OnnxExportQuantized, SizesOfCodes) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(4)})),
          q = g.add_call("q", "quantize", {x}, {}, u8(0.05f, 128), "first");
  g.set_outputs({g.add_call("n", "shape", {q}, {{"end", int64_t{1}}}, std::nullopt, "sizes"),
                 g.add_call("y", "dequantize", {q}, {}, std::nullopt, "last")});
  const std::string bytes = io::to_onnx_bytes(g);
  EXPECT_EQ(onnx_ops_of(bytes), "QuantizeLinear Shape Slice DequantizeLinear");
  const Graph back = graph::merge_qdq(io::import_onnx_bytes(bytes));
  EXPECT_EQ(back.value(node_of(back, "shape").inputs[0]).name, "q");
}

// -- for TensorRT ---------------------------------------------------------------------------------

ops::QType i8(float scale, int64_t zero_point = 0) {
  return {DType::qint8, Quantizer::per_tensor(scale, zero_point, DType::qint8)};
}

// quantize -> linear over sequences (bias, relu) -> add -> dequantize, in codes of int8.
Graph symmetric_net(int64_t zero_point = 0) {
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(4)}));
  ValueId q = g.add_call("xq", "quantize", {x}, {}, i8(0.05f, zero_point), "first");
  ValueId w = g.add_constant("fc.weight", weight({4, 4})),
          b = g.add_constant("fc.bias", Tensor::randn({4}, 2));
  ValueId l =
      g.add_call("l", "linear", {q, w, b}, {{"activation", std::string("relu")}}, i8(0.1f), "fc");
  ValueId a = g.add_call("a", "add", {l, q}, {}, i8(0.1f), "add");
  g.set_outputs({g.add_call("y", "dequantize", {a}, {}, std::nullopt, "last")});
  return g;
}

TEST(OnnxExportTensorRt, CodesAreSymmetricAndBiasesFloat) {
  const Graph g = symmetric_net();
  const std::string bytes = io::to_onnx_bytes(g, {.target = io::OnnxTarget::tensorrt});
  EXPECT_EQ(onnx_ops_of(bytes),
            "QuantizeLinear DequantizeLinear DequantizeLinear Transpose MatMul Add Relu "
            "QuantizeLinear DequantizeLinear Add QuantizeLinear DequantizeLinear");
  // TensorProto: data_type 2, name 8, raw_data 9.
  for (const std::string& t : submessages(submessages(bytes, 7).at(0), 5)) {
    int64_t type = 0;
    std::string name, data;
    for (const Field& f : fields(t)) {
      if (f.number == 2) type = static_cast<int64_t>(f.value);
      if (f.number == 8) name = f.bytes;
      if (f.number == 9) data = f.bytes;
    }
    EXPECT_NE(type, kInt32) << name;
    EXPECT_NE(type, kUint8) << name;
    if (name.find("zero_point") != std::string::npos) {
      EXPECT_EQ(type, kInt8) << name;
      EXPECT_EQ(data, std::string(data.size(), '\0')) << name;
    }
  }
  const Graph back = graph::merge_qdq(graph::fuse_activations(io::import_onnx_bytes(bytes)));
  EXPECT_EQ(graph::print(back, {.full = true}), graph::print(g, {.full = true}));
}

TEST(OnnxExportTensorRt, BiasesOfCodesAreWrittenAsNumbers) {
  Graph g = symmetric_net();
  Graph imported =
      graph::merge_qdq(graph::fuse_activations(io::import_onnx_bytes(io::to_onnx_bytes(g))));
  ASSERT_EQ(imported.type(*imported.find("fc.bias")).dtype, DType::qint32);
  const Graph back = graph::merge_qdq(graph::fuse_activations(
      io::import_onnx_bytes(io::to_onnx_bytes(imported, {.target = io::OnnxTarget::tensorrt}))));
  const Tensor x = Tensor::randn({2, 3, 4}, 1);
  EXPECT_TRUE(equal(run_one(back, {x}), run_one(imported, {x})));
  EXPECT_EQ(ops_of(back), ops_of(imported));
}

TEST(OnnxExportTensorRt, OtherCodesAreNamed) {
  const io::OnnxExportOptions options{.target = io::OnnxTarget::tensorrt};
  expect_error(ErrorCode::unsupported,
               {"%xq (qint8, zero_point=3) is not that", "backend 'tensorrt'"},
               [&] { io::to_onnx_bytes(symmetric_net(3), options); });
  expect_error(ErrorCode::unsupported, {"%xq (quint8, zero_point=128), %c (quint8), "},
               [&] { io::to_onnx_bytes(small_net(), options); });
  Graph dynamic;
  ValueId x = dynamic.add_input("x", float_type({2, 4}));
  dynamic.set_outputs(
      {dynamic.add_call("y", "linear_dynamic", {x, dynamic.add_constant("w", weight({5, 4}))}, {},
                        std::nullopt, "fc")});
  expect_error(ErrorCode::unsupported,
               {"linear_dynamic (node \"fc\": TensorRT has no such operator)"},
               [&] { io::to_onnx_bytes(dynamic, options); });
}

TEST(OnnxExportTensorRt, TargetsHaveNames) {
  for (const std::string& name : io::onnx_target_names())
    EXPECT_EQ(io::to_string(io::parse_onnx_target(name)), name);
  expect_error(ErrorCode::not_found, {"tensorflow", "tensorrt"},
               [] { io::parse_onnx_target("tensorflow"); });
}

}  // namespace
}  // namespace octet::testing
