// What is around the operators of a model: names, inputs and outputs, types, initializers, options.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"
#include "tests/io/zip_bytes.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

TEST(OnnxImport, KeepsNamesAndScopes) {
  graph::Graph g = OnnxModel()
                       .input("in put", {"batch size", 3})
                       .node("Relu", {"in put"}, {"/a/Relu_0"}, {}, "/a/Relu")
                       .output("/a/Relu_0")
                       .import();
  EXPECT_EQ(g.value(g.inputs()[0]).name, "in_put");
  EXPECT_EQ(to_string(g.type(g.inputs()[0])), "Float(batch_size, 3)");
  EXPECT_EQ(g.value(g.outputs()[0]).name, "/a/Relu_0");
  EXPECT_EQ(node_of(g, "relu").scope, "/a/Relu");
}

TEST(OnnxImport, ScopeOfAnUnnamedNodeIsItsOutput) {
  EXPECT_EQ(
      node_of(OnnxModel().input("x", {2}).node("Relu", {"x"}, {"y"}).output("y").import(), "relu")
          .scope,
      "y");
}

TEST(OnnxImport, NamesThatBecomeTheSameAreToldApart) {
  graph::Graph g = OnnxModel()
                       .input("a b", {2})
                       .node("Relu", {"a b"}, {"a_b"})
                       .node("Abs", {"a_b"}, {"a,b"})
                       .output("a,b")
                       .import();
  EXPECT_EQ(ops_of(g), "relu abs");
  EXPECT_EQ(g.value(g.inputs()[0]).name, "a_b");
}

TEST(OnnxImport, UnnamedDimensionsGetTheInputsName) {
  graph::Graph g =
      OnnxModel().input("x", {"", 3, ""}).node("Relu", {"x"}, {"y"}).output("y").import();
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(x_0, 3, x_2)");
}

TEST(OnnxImport, SymbolicDimensionsCanBeGivenSizes) {
  OnnxModel m = OnnxModel().input("x", {"N", 3}).node("Relu", {"x"}, {"y"}).output("y");
  io::OnnxImportOptions options;
  options.dims["N"] = 8;
  EXPECT_EQ(to_string(m.import(options).type(0)), "Float(8, 3)");
}

TEST(OnnxImport, InputsCanBeMadeConstants) {
  OnnxModel m = OnnxModel()
                    .input("x", {2, 3})
                    .input("shape", {1}, kInt64)
                    .node("Reshape", {"x", "shape"}, {"y"})
                    .output("y");
  EXPECT_EQ(m.import().inputs().size(), 2u);  // read at run time
  io::OnnxImportOptions options;
  options.constants["shape"] = longs({6});
  graph::Graph g = m.import(options);
  EXPECT_EQ(g.inputs().size(), 1u);
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(6)");
}

TEST(OnnxImport, WeightsListedAmongInputsAreConstants) {  // IR versions below 4
  OnnxModel m(9, 3);
  m.input("x", {1, 2})
      .input("w", {2})
      .constant("w", floats({1, 2}))
      .node("Add", {"x", "w"}, {"y"})
      .output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(g.inputs().size(), 1u);
  EXPECT_TRUE(g.is_constant(*g.find("w")));
}

TEST(OnnxImport, DeadNodesAndUnusedInitializersVanish) {
  OnnxModel m;
  m.input("x", {2})
      .constant("unused", floats({1}))
      .node("Abs", {"x"}, {"dead"})
      .node("Relu", {"x"}, {"y"})
      .output("y");
  EXPECT_EQ(m.import().nodes().size(), 2u);
}

TEST(OnnxImport, UnusedInputsStay) {
  EXPECT_EQ(OnnxModel()
                .input("x", {2})
                .input("z", {2})
                .node("Relu", {"x"}, {"y"})
                .output("y")
                .import()
                .inputs()
                .size(),
            2u);
}

TEST(OnnxImport, NodesMayStandInAnyOrder) {
  OnnxModel m;
  m.input("x", {2})
      .node("Relu", {"b"}, {"c"})
      .node("Neg", {"x"}, {"a"})
      .node("Exp", {"a"}, {"b"})
      .output("c");
  EXPECT_EQ(ops_of(m.import()), "neg exp relu");
}

TEST(OnnxImport, IdentityAndDropoutVanish) {
  OnnxModel m;
  m.input("x", {2})
      .node("Identity", {"x"}, {"a"})
      .node("Dropout", {"a"}, {"b"})
      .node("Relu", {"b"}, {"c"})
      .node("Identity", {"c"}, {"y"});
  graph::Graph g = m.output("y").import();
  EXPECT_EQ(ops_of(g), "relu");
  EXPECT_EQ(g.value(g.outputs()[0]).name, "y");
}

TEST(OnnxImport, AnInputThatIsAnOutput) {
  graph::Graph g = OnnxModel().input("x", {2}).node("Identity", {"x"}, {"y"}).output("y").import();
  EXPECT_EQ(ops_of(g), "identity");
  EXPECT_EQ(g.value(g.outputs()[0]).name, "y");
}

TEST(OnnxImport, OneValueUnderTwoOutputNames) {
  OnnxModel m;
  m.input("x", {2})
      .node("Relu", {"x"}, {"a"})
      .node("Identity", {"a"}, {"b"})
      .output("a")
      .output("b");
  graph::Graph g = m.import();
  EXPECT_EQ(g.value(g.outputs()[0]).name, "a");
  EXPECT_EQ(g.value(g.outputs()[1]).name, "b");
}

TEST(OnnxImport, ConstantOutput) {
  graph::Graph g = OnnxModel()
                       .input("x", {2})
                       .constant("c", floats({1, 2}))
                       .node("Neg", {"c"}, {"y"})
                       .output("y")
                       .import();
  EXPECT_EQ(run_one(g, {Tensor::zeros({2})}).to_vector<float>(), (std::vector<float>{-1, -2}));
}

TEST(OnnxImport, HalfAndDoubleAreComputedInFloat) {
  for (int64_t type : {kHalf, kDouble}) {
    OnnxModel m;
    DType dtype = type == kHalf ? DType::float16 : DType::float64;
    m.input("x", {2}, type)
        .constant("c", Tensor::full({2}, 0.5, dtype))
        .node("Mul", {"x", "c"}, {"y"})
        .output("y", type);
    graph::Graph g = m.import();
    EXPECT_EQ(ops_of(g), "to mul to");
    EXPECT_EQ(g.type(*g.find("c")).dtype, DType::float32);
    Tensor y = run_one(g, {Tensor::full({2}, 3, dtype)});
    EXPECT_EQ(y.dtype(), dtype);
    EXPECT_EQ(y.at({1}), 1.5);
    EXPECT_EQ(g.value(g.outputs()[0]).name, "y");
  }
}

TEST(OnnxImport, InitializersInTypedFields) {
  // packed float_data
  Message t =
      Message().number(1, 2).number(2, kFloat).text(8, "w").text(4, bytes<float>({1.5f, -2}));
  Message i = Message().number(1, 2).number(2, kInt64).text(8, "s").number(7, 2).number(7, 1);
  OnnxModel m;
  m.input("x", {2})
      .raw_initializer(t)
      .raw_initializer(i)
      .node("Add", {"x", "w"}, {"a"})
      .node("Reshape", {"a", "s"}, {"y"})
      .output("y");
  Tensor y = run_one(m.import(), {floats({1, 1})});
  EXPECT_EQ(y.shape(), (Shape{2, 1}));
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{2.5f, -1}));
}

TEST(OnnxImport, ExternalData) {
  TempDir dir;
  spill(dir / "w.bin", "pad!" + bytes<float>({3, 4}));
  auto entry = [](const char* key, const char* value) {
    return Message().text(1, key).text(2, value);
  };
  Message t = Message().number(1, 2).number(2, kFloat).text(8, "w").number(14, 1);
  t.message(13, entry("location", "w.bin"))
      .message(13, entry("offset", "4"))
      .message(13, entry("length", "8"));
  spill(dir / "m.onnx", OnnxModel()
                            .input("x", {2})
                            .raw_initializer(t)
                            .node("Add", {"x", "w"}, {"y"})
                            .output("y")
                            .bytes());
  EXPECT_EQ(run_one(io::import_onnx(dir / "m.onnx"), {floats({1, 1})}).to_vector<float>(),
            (std::vector<float>{4, 5}));
}

TEST(OnnxImport, OperatorListIsSortedAndHasTheBasics) {
  auto names = io::onnx_operators();
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  for (const char* name : {"Conv", "Gemm", "QuantizeLinear", "Resize"})
    EXPECT_TRUE(std::binary_search(names.begin(), names.end(), name)) << name;
}

}  // namespace
}  // namespace octet::testing
