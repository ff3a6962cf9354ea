// How ONNX operators, in the forms of several opsets, become octet's.
#include <gtest/gtest.h>

#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

const graph::Node& only_call(const graph::Graph& g) {
  const graph::Node* found = nullptr;
  for (const graph::Node& n : g.nodes()) {
    if (n.kind != graph::NodeKind::call) continue;
    EXPECT_EQ(found, nullptr) << graph::print(g);
    found = &n;
  }
  if (!found) throw std::runtime_error("no call in " + graph::print(g));
  return *found;
}

TEST(OnnxImport, ConvAttributes) {
  OnnxModel m;
  m.input("x", {"N", 4, 9, 9})
      .constant("w", Tensor::zeros({6, 2, 3, 2}))
      .constant("b", Tensor::zeros({6}));
  m.node("Conv", {"x", "w", "b"}, {"y"},
         {{"pads", ints({1, 2, 3, 4})},
          {"strides", ints({2, 1})},
          {"dilations", ints({1, 2})},
          {"group", int64_t{2}}});
  graph::Graph g = m.output("y").import();
  const graph::Node& n = only_call(g);
  EXPECT_EQ(n.op, "conv2d");
  // top, left, bottom, right
  EXPECT_EQ(n.attrs.get_ints("padding"), (std::vector<int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(n.attrs.get_ints("stride"), (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(n.attrs.get_ints("dilation"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(n.attrs.get_int("groups"), 2);
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(N, 6, 6, 13)");
}

TEST(OnnxImport, Conv1d) {
  OnnxModel m;
  m.input("x", {1, 2, 9})
      .constant("w", Tensor::zeros({3, 2, 3}))
      .node("Conv", {"x", "w"}, {"y"}, {{"pads", ints({1, 0})}})
      .output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(only_call(g).op, "conv1d");
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(1, 3, 8)");
}

TEST(OnnxImport, AutoPadBecomesExplicit) {
  struct Case {
    const char* mode;
    int size, stride;
    std::vector<int64_t> pads;
  } cases[] = {{"SAME_UPPER", 8, 2, {0, 0, 1, 1}},
               {"SAME_LOWER", 8, 2, {1, 1, 0, 0}},
               {"SAME_UPPER", 7, 2, {1, 1, 1, 1}},
               {"SAME_UPPER", 8, 1, {1, 1, 1, 1}},
               {"VALID", 8, 1, {0, 0, 0, 0}}};
  for (const Case& c : cases) {
    OnnxModel m;
    m.input("x", {1, 1, c.size, c.size}).constant("w", Tensor::zeros({1, 1, 3, 3}));
    m.node("Conv", {"x", "w"}, {"y"},
           {{"auto_pad", std::string(c.mode)}, {"strides", ints({c.stride, c.stride})}})
        .output("y");
    EXPECT_EQ(only_call(m.import()).attrs.get_ints("padding"), c.pads)
        << c.mode << " " << c.size << "/" << c.stride;
  }
}

TEST(OnnxImport, GemmFoldsItsAttributesIntoConstants) {
  Tensor w = Tensor::randn({3, 2}, 1), b = floats({1, 2}), x = Tensor::randn({4, 3}, 2);
  OnnxModel m;
  m.input("x", {4, 3}).constant("w", w).constant("b", b);
  m.node("Gemm", {"x", "w", "b"}, {"y"}, {{"alpha", 2.0}, {"beta", 0.5}}).output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(ops_of(g), "linear");
  EXPECT_EQ(g.constant(*g.find("w")).shape(), (Shape{2, 3}));
  Tensor want = ops::call(
      "add",
      {ops::call("mul", {ops::call("matmul", {x, w}), Tensor::scalar(2)}), floats({0.5f, 1})});
  EXPECT_TRUE(allclose(run_one(g, {x}), want, 1e-6, 1e-6));
}

TEST(OnnxImport, GemmBiasOfOtherShapes) {
  for (const Tensor& b : {Tensor::scalar(2), Tensor::full({1, 2}, 2), Tensor::full({2}, 2),
                          Tensor::full({1, 1}, 2)}) {
    OnnxModel m;
    m.input("x", {1, 3})
        .constant("w", Tensor::ones({2, 3}))
        .constant("b", b)
        .node("Gemm", {"x", "w", "b"}, {"y"}, {{"transB", int64_t{1}}});
    graph::Graph g = m.output("y").import();
    EXPECT_EQ(ops_of(g), "linear");
    EXPECT_EQ(run_one(g, {Tensor::ones({1, 3})}).to_vector<float>(), (std::vector<float>{5, 5}));
  }
  OnnxModel column;
  column.input("x", {2, 3})
      .constant("w", Tensor::ones({2, 3}))
      .constant("b", Tensor::from(std::vector<float>{1, 2}, {2, 1}));
  graph::Graph g =
      column.node("Gemm", {"x", "w", "b"}, {"y"}, {{"transB", int64_t{1}}}).output("y").import();
  EXPECT_EQ(ops_of(g), "linear add");
}

TEST(OnnxImport, GemmOfValuesIsMatmul) {
  OnnxModel m;
  m.input("a", {3, 4})
      .input("b", {5, 3})
      .node("Gemm", {"a", "b"}, {"y"}, {{"transA", int64_t{1}}, {"transB", int64_t{1}}})
      .output("y");
  EXPECT_EQ(ops_of(m.import()), "permute permute matmul");
}

TEST(OnnxImport, MatMulWithAConstantMatrixIsLinear) {
  OnnxModel m;
  Tensor w = Tensor::randn({4, 5}, 1), x = Tensor::randn({2, 3, 4}, 2);
  m.input("x", {2, 3, 4}).constant("w", w).node("MatMul", {"x", "w"}, {"y"}).output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(ops_of(g), "linear");
  EXPECT_TRUE(allclose(run_one(g, {x}), ops::call("matmul", {x, w}), 1e-5, 1e-6));
  OnnxModel batch;
  batch.input("x", {2, 3, 4})
      .constant("w", Tensor::randn({2, 4, 5}, 1))
      .node("MatMul", {"x", "w"}, {"y"})
      .output("y");
  EXPECT_EQ(ops_of(batch.import()), "matmul");
}

TEST(OnnxImport, SharedMatricesAreTransposedOnce) {
  OnnxModel m;
  m.input("x", {2, 4})
      .constant("w", Tensor::randn({4, 4}, 1))
      .node("MatMul", {"x", "w"}, {"a"})
      .node("MatMul", {"a", "w"}, {"y"})
      .output("y");
  graph::Graph g = m.import();
  EXPECT_EQ(g.nodes().size(), 4u);
}

TEST(OnnxImport, ClipForms) {
  auto clip = [](std::vector<std::pair<std::string, double>> bounds, int64_t opset) {
    OnnxModel m(opset);
    m.input("x", {2});
    std::vector<std::pair<std::string, OnnxAttr>> attrs;
    std::vector<std::string> in{"x", "", ""};
    for (auto& [name, value] : bounds) {
      if (opset < 11)
        attrs.emplace_back(name, value);
      else
        m.constant(name, Tensor::scalar(value)), in[name == "min" ? 1 : 2] = name;
    }
    if (opset < 11) in.resize(1);
    graph::Graph g = m.node("Clip", in, {"y"}, attrs).output("y").import();
    const graph::Node& n = only_call(g);
    return n.op == "clamp" ? to_string(n.attrs.get("min")) + " " + to_string(n.attrs.get("max"))
                           : n.op;
  };
  for (int64_t opset : {7, 13}) {
    EXPECT_EQ(clip({{"min", 0}, {"max", 6}}, opset), "relu6");
    EXPECT_EQ(clip({{"min", 0}}, opset), "relu");
    EXPECT_EQ(clip({{"min", -1}, {"max", 1}}, opset), "-1. 1.");
    EXPECT_EQ(clip({{"max", 2}}, opset), "-inf 2.");
    EXPECT_EQ(clip({{"min", -3.4028234663852886e38}, {"max", 2}}, opset), "-inf 2.");
    EXPECT_EQ(clip({}, opset), "identity");
  }
}

TEST(OnnxImport, ClipWithComputedBounds) {
  OnnxModel m;
  m.input("x", {2}).input("lo", {}).node("Clip", {"x", "lo"}, {"y"}).output("y");
  EXPECT_EQ(ops_of(m.import()), "maximum");
}

TEST(OnnxImport, AxesAsAttributesOrInputs) {
  for (int64_t opset : {11, 13}) {
    OnnxModel m(opset);
    m.input("x", {2, 3}).constant("axes", longs({-1}));
    auto axes = [&](const char* op, const char* in, const char* out) {
      if (opset < 13)
        m.node(op, {in}, {out}, {{"axes", ints({-1})}});
      else
        m.node(op, {in, "axes"}, {out});
    };
    axes("ReduceSum", "x", "s");
    axes("Squeeze", "s", "q");
    axes("Unsqueeze", "q", "u");
    graph::Graph g = m.output("u").import();
    EXPECT_EQ(ops_of(g), "sum squeeze unsqueeze");
    EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(2, 1)");
  }
}

TEST(OnnxImport, ReduceOverNothing) {
  OnnxModel all, none;
  all.input("x", {2, 3}).node("ReduceMean", {"x"}, {"y"}, {{"keepdims", int64_t{0}}}).output("y");
  EXPECT_EQ(to_string(all.import().type(1)), "Float()");
  none.input("x", {2, 3})
      .node("ReduceSum", {"x"}, {"s"}, {{"noop_with_empty_axes", int64_t{1}}})
      .node("Relu", {"s"}, {"y"})
      .output("y");
  EXPECT_EQ(ops_of(none.import()), "relu");
}

// "No reduction is applied, but other operations will be performed."
TEST(OnnxImport, ReduceOverNothingStillSquaresAndTakesMagnitudes) {
  const std::vector<std::pair<const char*, std::vector<float>>> table = {
      {"ReduceL1", {4, 3}},
      {"ReduceL2", {4, 3}},
      {"ReduceSumSquare", {16, 9}},
      {"ReduceMax", {-4, 3}}};
  for (const auto& [op, want] : table) {
    OnnxModel m(18);
    m.input("x", {2}).node(op, {"x"}, {"y"}, {{"noop_with_empty_axes", int64_t{1}}}).output("y");
    EXPECT_EQ(run_one(m.import(), {floats({-4, 3})}).to_vector<float>(), want) << op;
  }
}

TEST(OnnxImport, OldSoftmaxRunsOverAllFollowingDimensions) {
  OnnxModel old(9), current(13);
  for (OnnxModel* m : {&old, &current})
    m->input("x", {2, 3, 4}).node("Softmax", {"x"}, {"y"}, {{"axis", int64_t{1}}}).output("y");
  EXPECT_EQ(ops_of(old.import()), "flatten softmax reshape");
  EXPECT_EQ(ops_of(current.import()), "softmax");
  Tensor x = Tensor::randn({2, 3, 4}, 1);
  EXPECT_NEAR(ops::call("sum", {run_one(old.import(), {x})}, {}).item(), 2, 1e-5);
  EXPECT_NEAR(ops::call("sum", {run_one(current.import(), {x})}, {}).item(), 8, 1e-5);
}

TEST(OnnxImport, OldSoftmaxOverOneRealDimensionIsDirect) {
  OnnxModel m(9);
  m.input("x", {2, 3, 1, 1}).node("Softmax", {"x"}, {"y"}).output("y");
  EXPECT_EQ(ops_of(m.import()), "softmax");
}

TEST(OnnxImport, GlobalPools) {
  OnnxModel m;
  m.input("x", {1, 2, 3, 4})
      .node("GlobalAveragePool", {"x"}, {"a"})
      .node("GlobalMaxPool", {"x"}, {"b"})
      .output("a")
      .output("b");
  EXPECT_EQ(ops_of(m.import()), "adaptive_avg_pool2d amax");
}

TEST(OnnxImport, AWindowAsLargeAsTheImagesIsAGlobalPool) {
  const auto imported = [](std::variant<int, std::string> width, std::vector<int64_t> pads) {
    OnnxModel m;
    m.input("x", {"N", 2, 3, width})
        .node("AveragePool", {"x"}, {"y"}, {{"kernel_shape", ints({3, 4})}, {"pads", ints(pads)}})
        .output("y");
    return m.import();
  };
  const graph::Graph whole = imported(4, {0, 0, 0, 0});
  EXPECT_EQ(ops_of(whole), "adaptive_avg_pool2d");
  EXPECT_EQ(to_string(whole.type(whole.outputs()[0])), "Float(N, 2, 1, 1)");
  EXPECT_EQ(ops_of(imported(5, {0, 0, 0, 0})), "avg_pool2d");
  EXPECT_EQ(ops_of(imported(4, {0, 1, 0, 1})), "avg_pool2d");
  EXPECT_EQ(ops_of(imported("W", {0, 0, 0, 0})), "avg_pool2d");
}

TEST(OnnxImport, PoolsOverOtherRanks) {
  OnnxModel line, volume;
  line.input("x", {1, 2, 8})
      .node("AveragePool", {"x"}, {"y"}, {{"kernel_shape", ints({2})}, {"strides", ints({2})}})
      .output("y");
  EXPECT_EQ(ops_of(line.import()), "unsqueeze avg_pool2d squeeze");
  volume.input("x", {"N", 2, 4, 6, 8})
      .node("MaxPool", {"x"}, {"y"},
            {{"kernel_shape", ints({2, 3, 4})}, {"strides", ints({2, 3, 4})}});
  graph::Graph g = volume.output("y").import();
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(N, 2, 2, 2, 2)");
}

TEST(OnnxImport, SplitForms) {
  OnnxModel equal, old(11);
  equal.input("x", {5, 2}).node("Split", {"x"}, {"a", "b"}).output("a").output("b");
  EXPECT_EQ(node_of(equal.import(), "split").attrs.get_ints("sizes"), (std::vector<int64_t>{3, 2}));
  old.input("x", {5, 2}).node("Split", {"x"}, {"a", "b"}, {{"split", ints({1, 4})}}).output("b");
  graph::Graph g = old.import();
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(4, 2)");
  EXPECT_EQ(g.value(g.outputs()[0]).name, "b");
}

TEST(OnnxImport, SlicesThatTakeEverythingVanish) {
  OnnxModel m(9);
  m.input("x", {"N", 4})
      .node("Slice", {"x"}, {"a"},
            {{"starts", ints({0, 0})}, {"ends", ints({INT64_MAX, 4})}, {"axes", ints({0, 1})}});
  EXPECT_EQ(ops_of(m.node("Relu", {"a"}, {"y"}).output("y").import()), "relu");
}

TEST(OnnxImport, ResizeForms) {
  OnnxModel upsample(9), sizes(13);
  upsample.input("x", {1, 2, 3, 3})
      .constant("s", floats({1, 1, 2, 2}))
      .node("Upsample", {"x", "s"}, {"y"}, {{"mode", std::string("nearest")}});
  graph::Graph g = upsample.output("y").import();
  EXPECT_EQ(only_call(g).attrs.get_string("coordinates"), "asymmetric");
  EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(1, 2, 6, 6)");
  sizes.input("x", {"N", 2, 3, 3})
      .node("Shape", {"x"}, {"sh"})
      .constant("0", longs({0}))
      .constant("2", longs({2}));
  sizes.node("Slice", {"sh", "0", "2"}, {"nc"})
      .constant("hw", longs({5, 7}))
      .node("Concat", {"nc", "hw"}, {"sz"}, {{"axis", int64_t{0}}});
  sizes.node("Resize", {"x", "", "", "sz"}, {"y"}, {{"mode", std::string("linear")}}).output("y");
  EXPECT_EQ(to_string(sizes.import().type(1)), "Float(N, 2, 5, 7)");
}

TEST(OnnxImport, DepthToSpaceIsPixelShuffleInItsCrdMode) {
  OnnxModel m;
  m.input("x", {"N", 8, 2, 3})
      .node("DepthToSpace", {"x"}, {"y"}, {{"blocksize", int64_t{2}}, {"mode", std::string("CRD")}})
      .output("y");
  Tensor x = Tensor::randn({1, 8, 2, 3}, 1);
  EXPECT_TRUE(
      equal(run_one(m.import(), {x}),
            ops::call("pixel_shuffle", {x}, {{"upscale_factor", int64_t{2}}}).contiguous()));
  OnnxModel back;
  back.input("x", {1, 2, 4, 6}).node("SpaceToDepth", {"x"}, {"d"}, {{"blocksize", int64_t{2}}});
  back.node("DepthToSpace", {"d"}, {"y"}, {{"blocksize", int64_t{2}}}).output("y");
  Tensor z = Tensor::randn({1, 2, 4, 6}, 2);
  EXPECT_TRUE(equal(run_one(back.import(), {z}), z));
}

TEST(OnnxImport, CumSumForms) {
  for (int exclusive : {0, 1})
    for (int reverse : {0, 1}) {
      OnnxModel m;
      m.input("x", {3}).constant("axis", Tensor::from(std::vector<int64_t>{0}, {}));
      m.node("CumSum", {"x", "axis"}, {"y"},
             {{"exclusive", int64_t{exclusive}}, {"reverse", int64_t{reverse}}})
          .output("y");
      std::vector<float> want =
          reverse ? (exclusive ? std::vector<float>{5, 3, 0} : std::vector<float>{6, 5, 3})
                  : (exclusive ? std::vector<float>{0, 1, 3} : std::vector<float>{1, 3, 6});
      EXPECT_EQ(run_one(m.import(), {floats({1, 2, 3})}).to_vector<float>(), want)
          << exclusive << reverse;
    }
}

TEST(OnnxImport, BatchNormStaysWhereItCannotBeFolded) {
  OnnxModel m;
  Tensor c = Tensor::ones({2});
  m.input("x", {1, 2, 3, 3})
      .constant("c", c)
      .node("BatchNormalization", {"x", "c", "c", "c", "c"}, {"y"})
      .output("y");
  EXPECT_EQ(ops_of(m.import()), "batch_norm");
}

TEST(OnnxImport, EpsilonsReadAsTheyWereWritten) {
  OnnxModel m;
  Tensor c = Tensor::ones({2});
  m.input("x", {1, 2, 3, 3})
      .constant("c", c)
      .node("InstanceNormalization", {"x", "c", "c"}, {"y"}, {{"epsilon", 1e-3}})
      .output("y");
  EXPECT_EQ(only_call(m.import()).attrs.get_double("eps"), 1e-3);  // not 0.0010000000474974513
}

TEST(OnnxImport, FoldingCanBeTurnedOff) {
  OnnxModel m;
  Tensor c = Tensor::ones({2});
  m.input("x", {1, 1, 3, 3})
      .constant("w", Tensor::ones({2, 1, 1, 1}))
      .constant("c", c)
      .node("Conv", {"x", "w"}, {"h"});
  m.node("BatchNormalization", {"h", "c", "c", "c", "c"}, {"y"}).output("y");
  EXPECT_EQ(ops_of(m.import()), "conv2d");
  io::OnnxImportOptions options;
  options.fold_batch_norm = false;
  EXPECT_EQ(ops_of(m.import(options)), "conv2d batch_norm");
}

}  // namespace
}  // namespace octet::testing
