// What import says of files that are not models, models it cannot run, and damaged ones.
#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/io/onnx/export.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

void expect_import_error(ErrorCode code, const std::vector<std::string>& parts,
                         const OnnxModel& model) {
  expect_error(code, parts, [&] { model.import(); });
}

TEST(OnnxErrors, NoFile) {
  expect_error(ErrorCode::not_found, {"/nowhere/model.onnx"},
               [] { io::import_onnx("/nowhere/model.onnx"); });
}

TEST(OnnxErrors, Directory) {
  TempDir dir;
  expect_error(ErrorCode::io, {dir.path().string()}, [&] { io::import_onnx(dir.path()); });
}

TEST(OnnxErrors, EmptyFile) {
  TempDir dir;
  spill(dir / "empty.onnx", "");
  expect_error(ErrorCode::corrupt, {"empty.onnx", "not an ONNX model"},
               [&] { io::import_onnx(dir / "empty.onnx"); });
}

TEST(OnnxErrors, GarbageSaysSoAndPrintsNothing) {
  TempDir dir;
  spill(dir / "text.onnx", "this is not a model\nat all\n");
  ::testing::internal::CaptureStderr();
  expect_error(ErrorCode::corrupt, {"text.onnx", "not an ONNX model"},
               [&] { io::import_onnx(dir / "text.onnx"); });
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(OnnxErrors, Truncated) {
  std::string bytes = OnnxModel().input("x", {2}).node("Relu", {"x"}, {"y"}).output("y").bytes();
  ::testing::internal::CaptureStderr();
  expect_error(ErrorCode::corrupt, {"cut.onnx", "truncated"},
               [&] { io::import_onnx_bytes(bytes.substr(0, bytes.size() / 2), "cut.onnx"); });
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(OnnxErrors, AProtobufThatIsNoModel) {
  expect_error(ErrorCode::corrupt, {"no graph"},
               [] { io::import_onnx_bytes(Message().number(1, 7).bytes()); });
}

TEST(OnnxErrors, AllUnsupportedOperatorsInOneLine) {
  OnnxModel m;
  m.input("x", {2, 2})
      .node("MaxRoiPool", {"x"}, {"a"}, {}, "nms_1")
      .node("Unique", {"x"}, {"b"}, {}, "a");
  m.node("Unique", {"x"}, {"c"}, {}, "b")
      .node("Add", {"a", "b"}, {"d"})
      .node("Add", {"d", "c"}, {"e"})
      .output("e");
  expect_error(ErrorCode::unsupported,
               {"model.onnx: 2 operators are not supported: MaxRoiPool (node \"nms_1\"), "
                "Unique (nodes \"a\", \"b\"); octet "
                "supports opset 7-23 inference operators listed in docs/operators.md"},
               [&] { io::import_onnx_bytes(m.bytes(), "model.onnx"); });
}

TEST(OnnxErrors, UnsupportedOperatorsThatReadFromEachOtherAreAllNamed) {
  expect_import_error(ErrorCode::unsupported,
                      {"2 operators are not supported: Det (node \"y\"), Unique (node \"z\")"},
                      OnnxModel()
                          .input("x", {2})
                          .node("Det", {"x"}, {"y"})
                          .node("Unique", {"y"}, {"z"})
                          .output("z"));
}

TEST(OnnxErrors, OneUnsupportedOperatorInTheSingular) {
  expect_import_error(ErrorCode::unsupported,
                      {"test.onnx: 1 operator is not supported: Det (node \"y\")"},
                      OnnxModel().input("x", {2}).node("Det", {"x"}, {"y"}).output("y"));
}

TEST(OnnxErrors, UnsupportedFormsAreNamedWithOperators) {
  OnnxModel m;
  m.input("x", {1, 1, 4, 4}).node("Cast", {"x"}, {"y"}, {{"to", int64_t{8}}}, "text");
  m.node("Foo", {"x"}, {"z"}, {}, "foo", "com.example").output("y").output("z");
  expect_import_error(ErrorCode::unsupported,
                      {"2 operators", "Cast with a cast to STRING (node \"text\")",
                       "com.example.Foo (node \"foo\")"},
                      m);
}

TEST(OnnxErrors, UnsupportedNodesThatNothingNeedsDoNotMatter) {
  OnnxModel m;
  m.input("x", {2}).node("MaxRoiPool", {"x"}, {"unused"}).node("Relu", {"x"}, {"y"}).output("y");
  EXPECT_EQ(ops_of(m.import()), "relu");
}

TEST(OnnxErrors, UnknownAttributesAreNotPassedOver) {
  expect_import_error(ErrorCode::unsupported, {"Relu with attribute strange", "\"r\""},
                      OnnxModel()
                          .input("x", {2})
                          .node("Relu", {"x"}, {"y"}, {{"strange", int64_t{1}}}, "r")
                          .output("y"));
}

TEST(OnnxErrors, NewOpset) {
  expect_import_error(ErrorCode::unsupported, {"opset 99"},
                      OnnxModel(99).input("x", {2}).node("Relu", {"x"}, {"y"}).output("y"));
}

TEST(OnnxErrors, MissingValue) {
  expect_import_error(ErrorCode::corrupt, {"node 'r' (Relu)", "'z'", "not made"},
                      OnnxModel().input("x", {2}).node("Relu", {"z"}, {"y"}, {}, "r").output("y"));
}

TEST(OnnxErrors, MissingOutput) {
  expect_import_error(ErrorCode::corrupt, {"'q'", "not made"},
                      OnnxModel().input("x", {2}).node("Relu", {"x"}, {"y"}).output("q"));
}

TEST(OnnxErrors, MissingOperand) {
  expect_import_error(ErrorCode::corrupt, {"node 'y' (Add)", "input 1 is missing"},
                      OnnxModel().input("x", {2}).node("Add", {"x"}, {"y"}).output("y"));
}

TEST(OnnxErrors, Cycle) {
  OnnxModel m;
  m.input("x", {2})
      .node("Add", {"x", "b"}, {"a"}, {}, "first")
      .node("Relu", {"a"}, {"b"}, {}, "second")
      .output("b");
  expect_import_error(ErrorCode::corrupt, {"node 'first' (Add)", "cycle"}, m);
}

TEST(OnnxErrors, ValueMadeTwice) {
  OnnxModel m;
  m.input("x", {2}).node("Relu", {"x"}, {"y"}).node("Abs", {"x"}, {"y"}).output("y");
  expect_import_error(ErrorCode::corrupt, {"'y'", "made twice"}, m);
}

TEST(OnnxErrors, AttributeOfTheWrongKind) {
  expect_import_error(ErrorCode::corrupt, {"node 't' (Transpose)", "perm", "list of integers"},
                      OnnxModel()
                          .input("x", {2, 3})
                          .node("Transpose", {"x"}, {"y"}, {{"perm", 1.5}}, "t")
                          .output("y"));
}

TEST(OnnxErrors, AxisOutOfRange) {
  expect_import_error(ErrorCode::corrupt, {"node 'c' (Concat)", "axis 7"},
                      OnnxModel()
                          .input("x", {2})
                          .node("Concat", {"x", "x"}, {"y"}, {{"axis", int64_t{7}}}, "c")
                          .output("y"));
}

TEST(OnnxErrors, PermOfTheWrongLength) {
  expect_import_error(ErrorCode::corrupt, {"'y' (Transpose)", "perm"},
                      OnnxModel()
                          .input("x", {2, 3})
                          .node("Transpose", {"x"}, {"y"}, {{"perm", ints({0, 0})}})
                          .output("y"));
}

TEST(OnnxErrors, ShapesThatDoNotFit) {
  OnnxModel m;
  m.input("x", {2, 3})
      .constant("w", Tensor::zeros({4, 5}))
      .node("MatMul", {"x", "w"}, {"y"}, {}, "mm")
      .output("y");
  expect_import_error(ErrorCode::invalid_argument, {"test.onnx", "mm", "features"}, m);
}

TEST(OnnxErrors, InitializerWithTooLittleData) {
  Message t = Message().number(1, 4).number(2, kFloat).text(8, "w").text(9, "12345678");
  expect_import_error(
      ErrorCode::corrupt, {"initializer 'w'", "2 elements", "(4)"},
      OnnxModel().input("x", {4}).raw_initializer(t).node("Add", {"x", "w"}, {"y"}).output("y"));
}

TEST(OnnxErrors, InitializerOfAstronomicSize) {
  Message t = Message()
                  .number(1, int64_t{1} << 62)
                  .number(1, 4)
                  .number(2, kFloat)
                  .text(8, "w")
                  .text(9, "1234");
  expect_import_error(
      ErrorCode::corrupt, {"initializer 'w'", "shape"},
      OnnxModel().input("x", {4}).raw_initializer(t).node("Add", {"x", "w"}, {"y"}).output("y"));
}

TEST(OnnxErrors, NegativeDimension) {
  Message t = Message().number(1, -4).number(2, kFloat).text(8, "w").text(9, "1234");
  expect_import_error(
      ErrorCode::corrupt, {"initializer 'w'", "-4"},
      OnnxModel().input("x", {4}).raw_initializer(t).node("Add", {"x", "w"}, {"y"}).output("y"));
}

TEST(OnnxErrors, HugeConstantsAreNotMade) {
  OnnxModel m;
  m.input("x", {1})
      .constant("s", longs({1 << 20, 1 << 20}))
      .node("ConstantOfShape", {"s"}, {"c"})
      .node("Add", {"x", "c"}, {"y"});
  expect_import_error(ErrorCode::unsupported, {"'c' (ConstantOfShape)"}, m.output("y"));
}

TEST(OnnxErrors, InputsWithoutShape) {
  Message tensor = Message().number(1, kFloat);
  Message info = Message().text(1, "x").message(2, Message().message(1, tensor));
  Message graph =
      Message().message(1, Message().text(1, "x").text(2, "y").text(4, "Relu")).message(11, info);
  graph.message(12, Message().text(1, "y"));
  std::string bytes =
      Message().number(1, 7).message(7, graph).message(8, Message().number(2, 13)).bytes();
  expect_error(ErrorCode::unsupported, {"input 'x'", "no shape"},
               [&] { io::import_onnx_bytes(bytes); });
}

TEST(OnnxErrors, TypesOctetLacks) {
  expect_import_error(ErrorCode::unsupported, {"input 'x'", "STRING"},
                      OnnxModel().input("x", {4}, 8).node("Identity", {"x"}, {"y"}).output("y"));
}

TEST(OnnxErrors, NamesWithLineBreaksStayOnOneLine) {
  expect_import_error(
      ErrorCode::unsupported, {"Bad"},
      OnnxModel().input("x", {2}).node("Bad", {"x"}, {"y"}, {}, "a\nb").output("y"));
}

TEST(OnnxErrors, ExternalDataOutsideTheDirectory) {
  Message entry = Message().text(1, "location").text(2, "../../etc/passwd");
  Message t =
      Message().number(1, 1).number(2, kFloat).text(8, "w").message(13, entry).number(14, 1);
  OnnxModel m =
      OnnxModel().input("x", {1}).raw_initializer(t).node("Add", {"x", "w"}, {"y"}).output("y");
  TempDir dir;
  spill(dir / "m.onnx", m.bytes());
  expect_error(ErrorCode::corrupt, {"initializer 'w'", "own directory"},
               [&] { io::import_onnx(dir / "m.onnx"); });
  expect_error(ErrorCode::unsupported, {"initializer 'w'"}, [&] { m.import(); });
}

// -- damaged models -------------------------------------------------------------------------------

// Imports bytes; anything but success and octet::Error of one line fails the test. What is imported
// must be whole.
void import_damaged(const std::string& bytes, uint64_t seed) {
  try {
    graph::Graph g = io::import_onnx_bytes(bytes, "fuzz.onnx");
    g.check();
    graph::print(g);
  } catch (const Error& e) {
    ASSERT_EQ(std::string(e.what()).find('\n'), std::string::npos) << seed << ": " << e.what();
    ASSERT_NE(to_string(e.code()), std::string("internal")) << seed << ": " << e.what();
  } catch (const std::exception& e) {
    FAIL() << seed << ": " << e.what();
  }
}

void fuzz(const std::string& good, int rounds, uint64_t seed_base) {
  io::import_onnx_bytes(good);  // valid to begin with
  for (int i = 0; i < rounds; ++i) {
    uint64_t seed = seed_base + static_cast<uint64_t>(i);
    Random random(seed);
    std::string bytes = good;
    for (int64_t k = random.integer(1, 4); k > 0; --k) {
      auto at = static_cast<size_t>(random.integer(0, static_cast<int64_t>(bytes.size()) - 1));
      switch (random.integer(0, 3)) {
        case 0:
          bytes[at] = static_cast<char>(random.integer(0, 255));
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.integer(0, 7)));
          break;
        case 2:
          bytes[at] = static_cast<char>(bytes[at] + random.integer(-2, 2));
          break;
        default:
          bytes.insert(at, 1, static_cast<char>(random.integer(0, 255)));
          break;
      }
    }
    if (random.integer(0, 19) == 0)
      bytes.resize(static_cast<size_t>(random.integer(1, static_cast<int64_t>(bytes.size()))));
    import_damaged(bytes, seed);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(FuzzOnnx, ConvolutionsAndPools) {
  OnnxModel m;
  m.input("x", {"N", 3, 8, 8})
      .constant("w", Tensor::randn({4, 3, 3, 3}, 1))
      .constant("b", Tensor::randn({4}, 2));
  m.node("Conv", {"x", "w", "b"}, {"c"},
         {{"pads", ints({1, 1, 1, 1})}, {"kernel_shape", ints({3, 3})}, {"group", int64_t{1}}});
  m.constant("g", Tensor::ones({4})).constant("v", Tensor::ones({4}));
  m.node("BatchNormalization", {"c", "g", "b", "b", "v"}, {"n"}, {{"epsilon", 1e-5}})
      .node("Relu", {"n"}, {"r"});
  m.node("MaxPool", {"r"}, {"p"}, {{"kernel_shape", ints({2, 2})}, {"strides", ints({2, 2})}});
  m.node("AveragePool", {"p"}, {"q"},
         {{"kernel_shape", ints({2, 2})}, {"auto_pad", std::string("SAME_UPPER")}});
  m.node("Flatten", {"q"}, {"f"})
      .constant("k", Tensor::randn({64, 5}, 3))
      .constant("l", Tensor::randn({5}, 4));
  m.node("Gemm", {"f", "k", "l"}, {"o"}, {{"alpha", 0.5}})
      .node("Softmax", {"o"}, {"y"}, {{"axis", int64_t{-1}}})
      .output("y");
  fuzz(m.bytes(), 4000, 1000);
}

TEST(FuzzOnnx, ShapeArithmetic) {
  OnnxModel m;
  m.input("x", {"N", 4, 6})
      .node("Shape", {"x"}, {"s"})
      .constant("0", longs({0}))
      .constant("1", longs({1}));
  m.constant("zero", Tensor::from(std::vector<int64_t>{0}, {})).constant("axes", longs({0}));
  m.node("Gather", {"s", "zero"}, {"n"}, {{"axis", int64_t{0}}})
      .node("Unsqueeze", {"n", "axes"}, {"n1"});
  m.constant("big", longs({9223372036854775807})).node("Slice", {"s", "1", "big"}, {"rest"});
  m.node("ReduceProd", {"rest"}, {"flat"})
      .node("Concat", {"n1", "flat"}, {"shape"}, {{"axis", int64_t{0}}});
  m.node("Reshape", {"x", "shape"}, {"r"})
      .constant("two", longs({2}))
      .node("Div", {"flat", "two"}, {"half"});
  m.node("Split", {"r"}, {"a", "b"}, {{"axis", int64_t{1}}})
      .node("Concat", {"a", "b"}, {"c"}, {{"axis", int64_t{1}}});
  m.node("ConstantOfShape", {"half"}, {"z"})
      .node("Transpose", {"c"}, {"t"}, {{"perm", ints({1, 0})}});
  m.constant("p", longs({0, 1, 0, 1}))
      .node("Pad", {"c", "p"}, {"q"})
      .constant("tr", longs({1, 2}))
      .node("Tile", {"q", "tr"}, {"u"});
  m.constant("k", longs({3}))
      .node("TopK", {"u", "k"}, {"v", "i"})
      .output("v")
      .output("i")
      .output("t")
      .output("z");
  fuzz(m.bytes(), 4000, 9000);
}

TEST(FuzzOnnx, Quantized) {
  OnnxModel m;
  m.input("x", {2, 8})
      .constant("s", Tensor::scalar(0.1))
      .constant("z", Tensor::scalar(3, DType::uint8));
  m.node("QuantizeLinear", {"x", "s", "z"}, {"q"}).node("DequantizeLinear", {"q", "s", "z"}, {"d"});
  m.constant("w", Tensor::ones({4, 8}, DType::int8))
      .constant("ws", floats({0.1f, 0.2f, 0.3f, 0.4f}));
  m.constant("wz", Tensor::zeros({4}, DType::int8))
      .node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {{"axis", int64_t{0}}});
  m.constant("b", Tensor::zeros({4}, DType::int32))
      .node("DequantizeLinear", {"b", "ws"}, {"bd"}, {{"axis", int64_t{0}}});
  m.node("Gemm", {"d", "wd", "bd"}, {"g"}, {{"transB", int64_t{1}}});
  m.node("QuantizeLinear", {"g", "s", "z"}, {"gq"})
      .node("DequantizeLinear", {"gq", "s", "z"}, {"y"})
      .output("y");
  fuzz(m.bytes(), 3000, 20000);
}

}  // namespace
}  // namespace octet::testing
