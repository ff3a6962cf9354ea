// Constant folding and shape arithmetic at import, with known and symbolic dimensions.
#include <gtest/gtest.h>

#include "octet/io/onnx/export.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

const std::pair<std::string, OnnxAttr> kAxis0{"axis", int64_t{0}};

Tensor long_scalar(int64_t v) { return Tensor::from(std::vector<int64_t>{v}, {}); }

// x: (N, 4, 6); "n" is its first size as a scalar, "s" its shape.
OnnxModel shape_model() {
  OnnxModel m;
  m.input("x", {"N", 4, 6})
      .node("Shape", {"x"}, {"s"})
      .constant("i0", long_scalar(0))
      .constant("ax0", longs({0}));
  return m.node("Gather", {"s", "i0"}, {"n"}, {kAxis0});
}

std::string result_type(const graph::Graph& g) { return to_string(g.type(g.outputs()[0])); }

TEST(OnnxShapes, ConstantsAreFolded) {
  OnnxModel m;
  m.input("x", {2, 2})
      .constant("a", floats({1, 2}))
      .constant("b", floats({10, 20}))
      .node("Mul", {"a", "b"}, {"c"});
  m.node("Neg", {"c"}, {"d"}).node("Add", {"x", "d"}, {"y"}).output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(ops_of(g), "add");
  EXPECT_EQ(g.constant(*g.find("d")).to_vector<float>(), (std::vector<float>{-10, -40}));
}

TEST(OnnxShapes, KnownDimensionsAreConstants) {
  OnnxModel m;
  m.input("x", {2, 3, 4})
      .node("Shape", {"x"}, {"s"})
      .constant("i", longs({2, 0}))
      .node("Gather", {"s", "i"}, {"t"}, {kAxis0});
  m.constant("m1", longs({-1}))
      .node("Concat", {"t", "m1"}, {"u"}, {kAxis0})
      .node("Reshape", {"x", "u"}, {"y"})
      .output("y");
  EXPECT_EQ(result_type(m.import()), "Float(4, 2, 3)");
}

TEST(OnnxShapes, ShapeOfAConstantChainFoldsToAnOutput) {
  OnnxModel m;
  m.input("x", {2, 3})
      .node("Shape", {"x"}, {"s"})
      .node("Cast", {"s"}, {"f"}, {{"to", kFloat}})
      .node("ReduceProd", {"f"}, {"y"}, {{"keepdims", int64_t{0}}});
  EXPECT_EQ(run_one(m.output("y").import(), {Tensor::zeros({2, 3})}).item(), 6);
}

TEST(OnnxShapes, ShapeWithStartAndEnd) {
  OnnxModel m(15);
  m.input("x", {"N", 4, 6}).node("Shape", {"x"}, {"y"}, {{"start", int64_t{-2}}}).output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(run_one(g, {Tensor::zeros({1, 4, 6})}).to_vector<int64_t>(),
            (std::vector<int64_t>{4, 6}));
}

TEST(OnnxShapes, SymbolicSizeInItsPlaceIsCopied) {  // x.view(x.size(0), -1)
  OnnxModel m = shape_model();
  m.node("Unsqueeze", {"n", "ax0"}, {"n1"})
      .constant("m1", longs({-1}))
      .node("Concat", {"n1", "m1"}, {"t"}, {kAxis0});
  graph::Graph g = m.node("Reshape", {"x", "t"}, {"y"}).output("y").import();
  EXPECT_EQ(node_of(g, "reshape").attrs.get_ints("shape"), (std::vector<int64_t>{0, -1}));
  EXPECT_EQ(result_type(g), "Float(N, 24)");
}

TEST(OnnxShapes, OneSymbolicSizeElsewhereIsInferred) {  // x.view(x.size(0) * 4, 6)
  OnnxModel m = shape_model();
  m.constant("four", long_scalar(4))
      .node("Mul", {"n", "four"}, {"p"})
      .node("Unsqueeze", {"p", "ax0"}, {"p1"});
  m.constant("six", longs({6})).node("Concat", {"p1", "six"}, {"t"}, {kAxis0});
  graph::Graph g = m.node("Reshape", {"x", "t"}, {"y"}).output("y").import();
  EXPECT_EQ(node_of(g, "reshape").attrs.get_ints("shape"), (std::vector<int64_t>{-1, 6}));
  EXPECT_EQ(result_type(g), "Float(N*4, 6)");
}

TEST(OnnxShapes, ProductsAreUndone) {  // (N*4) / 4 is N, and back to (N, 4, 6)
  OnnxModel m = shape_model();
  m.constant("four", long_scalar(4))
      .node("Mul", {"four", "n"}, {"p"})
      .node("Div", {"p", "four"}, {"q"})
      .node("Unsqueeze", {"q", "ax0"}, {"q1"});
  m.constant("rest", longs({6, 4}))
      .node("Concat", {"q1", "rest"}, {"t"}, {kAxis0})
      .node("Reshape", {"x", "t"}, {"y"})
      .output("y");
  EXPECT_EQ(result_type(m.import()), "Float(N, 6, 4)");
}

TEST(OnnxShapes, ASymbolicSizeBesideMinusOne) {  // [-1, N, 4]: what ONNX infers is 6 whatever N is
  OnnxModel m = shape_model();
  m.node("Unsqueeze", {"n", "ax0"}, {"n1"})
      .constant("m1", longs({-1}))
      .constant("four", longs({4}));
  m.node("Concat", {"m1", "n1", "four"}, {"t"}, {kAxis0})
      .node("Reshape", {"x", "t"}, {"y"})
      .output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(node_of(g, "reshape").attrs.get_ints("shape"), (std::vector<int64_t>{6, -1, 4}));
}

TEST(OnnxShapes, SeveralSymbolicSizesAreComputedAtRunTime) {
  OnnxModel m;
  m.input("x", {"A", "B", "C"})
      .node("Shape", {"x"}, {"s"})
      .constant("i", longs({2, 1, 0}))
      .node("Gather", {"s", "i"}, {"t"}, {kAxis0});
  graph::Graph g = m.node("Reshape", {"x", "t"}, {"y"}).output("y").import();
  EXPECT_EQ(result_type(g), "Float(C, B, A)");
  EXPECT_EQ(run_one(g, {Tensor::zeros({2, 3, 4})}).shape(), (Shape{4, 3, 2}));
}

TEST(OnnxShapes, SymbolicArithmeticThatIsNeededAsDataIsComputedAtRunTime) {
  OnnxModel m = shape_model();
  m.node("Cast", {"n"}, {"f"}, {{"to", kFloat}}).node("Mul", {"x", "f"}, {"y"}).output("y");
  EXPECT_EQ(run_one(m.import(), {Tensor::ones({3, 4, 6})}).at({0, 0, 0}), 3);
}

TEST(OnnxShapes, SliceToASymbolicEnd) {  // x[:, :, 1:] written with the shape's own sizes
  OnnxModel m;
  m.input("x", {"N", "L"})
      .node("Shape", {"x"}, {"s"})
      .constant("1", longs({1}))
      .constant("2", longs({2}))
      .node("Slice", {"s", "1", "2"}, {"l"});
  m.constant("0", longs({0}))
      .node("Slice", {"x", "0", "l", "1"}, {"all"})
      .node("Relu", {"all"}, {"y"})
      .output("y");
  EXPECT_EQ(ops_of(m.import()), "relu");
}

TEST(OnnxShapes, ExpandToOnesOwnSizeVanishes) {
  OnnxModel m = shape_model();
  m.node("Expand", {"x", "s"}, {"e"}).node("Relu", {"e"}, {"y"}).output("y");
  EXPECT_EQ(ops_of(m.import()), "relu");
}

// x.expand(-1, 4, 6): ConstantOfShape, Mul, Equal and Where on the shape
TEST(OnnxShapes, ExpandAsPyTorchWritesIt) {
  OnnxModel m;
  m.input("x", {"N", 1, 6}).constant("want", longs({-1, 4, 6})).constant("rank", longs({3}));
  m.node("ConstantOfShape", {"rank"}, {"ones"}, {{"value", longs({1})}})
      .constant("m1", long_scalar(-1))
      .node("Mul", {"ones", "m1"}, {"neg"});
  m.node("Equal", {"want", "neg"}, {"is"})
      .node("Where", {"is", "ones", "want"}, {"t"})
      .node("Expand", {"x", "t"}, {"y"})
      .output("y");
  EXPECT_EQ(result_type(m.import()), "Float(N, 4, 6)");
}

TEST(OnnxShapes, WhereAndEqualOnSymbolicSizes) {
  OnnxModel m = shape_model();
  m.constant("neg", longs({-1, -1, -1}))
      .node("Equal", {"s", "neg"}, {"is"})
      .constant("ones", longs({1, 1, 1}));
  m.node("Where", {"is", "ones", "s"}, {"t"})
      .node("Reshape", {"x", "t"}, {"r"})
      .node("Relu", {"r"}, {"y"})
      .output("y");
  EXPECT_EQ(ops_of(m.import()), "relu");  // the reshape changes nothing
}

TEST(OnnxShapes, IntegerArithmeticIsExact) {
  auto eval = [](const char* op, int64_t a, int64_t b) {
    OnnxModel m;
    m.input("x", {1})
        .constant("a", longs({a}))
        .constant("b", longs({b}))
        .node(op, {"a", "b"}, {"y"})
        .output("y");
    return run_one(m.import(), {Tensor::zeros({1})}).to_vector<int64_t>()[0];
  };
  // beyond what a double holds
  EXPECT_EQ(eval("Add", (int64_t{1} << 60) + 1, 1), (int64_t{1} << 60) + 2);
  EXPECT_EQ(eval("Div", -7, 2), -3);
  EXPECT_EQ(eval("Mod", -7, 2), 1);
  EXPECT_EQ(eval("Sub", 3, 5), -2);
  expect_error(ErrorCode::corrupt, {"'y' (Div)", "division by 0"}, [&] { eval("Div", 1, 0); });
  expect_error(ErrorCode::corrupt, {"overflows"}, [&] { eval("Mul", INT64_MAX, 2); });
  expect_error(ErrorCode::corrupt, {"overflows"}, [&] { eval("Div", INT64_MIN, -1); });
}

TEST(OnnxShapes, RangeOfConstants) {
  OnnxModel m;
  m.input("x", {1})
      .constant("a", Tensor::scalar(1))
      .constant("b", Tensor::scalar(2.2))
      .constant("c", Tensor::scalar(0.5));
  m.node("Range", {"a", "b", "c"}, {"r"}).node("Mul", {"x", "r"}, {"y"}).output("y");
  EXPECT_EQ(run_one(m.import(), {floats({2})}).to_vector<float>(), (std::vector<float>{2, 3, 4}));
}

TEST(OnnxShapes, FlattenForms) {
  struct Case {
    int64_t axis;
    const char *ops, *type;
  } cases[] = {{1, "flatten", "Float(N, 24)"},
               {-1, "flatten", "Float(N*4, 6)"},
               {0, "flatten unsqueeze", "Float(1, N*24)"},
               {3, "flatten unsqueeze", "Float(N*24, 1)"}};
  for (const Case& c : cases) {
    graph::Graph g = OnnxModel()
                         .input("x", {"N", 4, 6})
                         .node("Flatten", {"x"}, {"y"}, {{"axis", c.axis}})
                         .output("y")
                         .import();
    EXPECT_EQ(ops_of(g), c.ops) << c.axis;
    EXPECT_EQ(result_type(g), c.type) << c.axis;
  }
  graph::Graph matrix = OnnxModel()
                            .input("x", {"N", 4})
                            .node("Flatten", {"x"}, {"f"})
                            .node("Relu", {"f"}, {"y"})
                            .output("y")
                            .import();
  EXPECT_EQ(ops_of(matrix), "relu");
}

// auto_pad with strides over an image of this size.
graph::Graph same_net(const std::string& mode, const OnnxDim& height, const OnnxDim& width) {
  OnnxModel m;
  m.input("x", {1, 2, height, width}).constant("w", Tensor::randn({3, 2, 3, 3}, 1));
  m.node("Conv", {"x", "w"}, {"c"}, {{"auto_pad", mode}, {"strides", std::vector<int64_t>{2, 2}}});
  m.node("MaxPool", {"c"}, {"y"},
         {{"auto_pad", mode},
          {"kernel_shape", std::vector<int64_t>{2, 2}},
          {"strides", std::vector<int64_t>{2, 2}}});
  return m.output("y").import();
}

TEST(OnnxShapes, SameKeepsItsMeaningOverSymbolicImages) {
  for (const char* mode : {"SAME_UPPER", "SAME_LOWER"}) {
    const graph::Graph open = same_net(mode, "H", "W");
    for (auto [h, w] : {std::pair{8, 9}, std::pair{7, 12}, std::pair{5, 5}}) {
      const Tensor x = Tensor::randn({1, 2, h, w}, 2);
      EXPECT_TRUE(equal(run_one(open, {x}), run_one(same_net(mode, h, w), {x})))
          << mode << " " << h << "x" << w;
    }
  }
}

TEST(OnnxShapes, RunTimeOperandsOfMovesComeBackFromAFile) {
  OnnxModel m;
  m.input("x", {2, 3, 4}).input("s", {2}, kInt64).input("e", {1}, kInt64);
  m.constant("0", longs({0})).constant("1", longs({1}));
  m.node("Slice", {"x", "0", "e", "1"}, {"part"}).node("Reshape", {"part", "s"}, {"y"});
  const graph::Graph g = m.output("y").import(), back = io::import_onnx_bytes(io::to_onnx_bytes(g));
  const std::vector<Tensor> inputs{Tensor::randn({2, 3, 4}, 3), longs({4, -1}), longs({2})};
  EXPECT_EQ(run_one(g, inputs).shape(), (Shape{4, 4}));
  EXPECT_TRUE(equal(run_one(back, inputs), run_one(g, inputs)));
  EXPECT_EQ(ops_of(back), ops_of(g));
}

// Sizes for inputs make of a model that leaves them open what it would be with them.
TEST(OnnxShapes, InputsMayBeGivenTheirSizes) {
  const auto model = [](const std::vector<OnnxDim>& dims) {
    return OnnxModel()
        .input("in:put", dims)
        .constant("w", Tensor::rand({5, 3, 3, 3}, 1))
        .node("Conv", {"in:put", "w"}, {"y"}, {{"strides", ints({2, 2})}})
        .output("y");
  };
  const graph::Graph fixed = model({1, 3, 9, 11}).import();
  const OnnxModel open = model({"batch", 3, "height", ""});
  for (const std::string name : {"in:put", ""}) {
    io::OnnxImportOptions options;
    options.shapes = {{name, {1, 3, 9, 11}}};
    EXPECT_EQ(graph::print(open.import(options)), graph::print(fixed)) << name;
  }
  io::OnnxImportOptions options;
  options.shapes = {{"in:put", {graph::kOpenSize, 3, 9, 11}}};
  EXPECT_EQ(result_type(open.import(options)), "Float(batch, 5, 4, 5)");
}

TEST(OnnxShapes, SizesThatConflictAreNamed) {
  const OnnxModel model = OnnxModel().input("x", {"N", 3}).node("Relu", {"x"}, {"y"}).output("y");
  const auto import = [&](const graph::InputShapes& shapes, std::map<std::string, int64_t> dims) {
    io::OnnxImportOptions options;
    options.shapes = shapes;
    options.dims = std::move(dims);
    model.import(options);
  };
  expect_error(ErrorCode::invalid_argument,
               {"test.onnx", "input 'x'", "expected (N, 3), got (2, 4)", "fixed at 3"}, [&] {
                 import({{ "x", { 2, 4 } }}, {});
               });
  expect_error(ErrorCode::invalid_argument, {"expected (1, 3), got (2, 3)"}, [&] {
    import({{ "x", { 2, 3 } }}, {{ "N", 1 }});
  });
  expect_error(ErrorCode::not_found, {"test.onnx", "'x'"}, [&] {
    import({{ "X", { 2, 3 } }}, {});
  });
}

}  // namespace
}  // namespace octet::testing
