// Operators that read and write elements at listed places, and what is made of such places.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using F = std::vector<float>;
using I = std::vector<int64_t>;

Tensor counting(const Shape& shape) {
  return Tensor::arange(numel(shape), DType::float32).reshape(shape);
}
Tensor longs_of(const I& values, const Shape& shape) { return Tensor::from(values, shape); }

// Runs a compiled program, as sizes known only at run time need.
Tensor run_compiled(const OnnxModel& m, const std::vector<Tensor>& inputs) {
  return runtime::compile(m.import()).run(inputs).at(0);
}

TEST(OnnxPlaces, GatherElementsTakesOneElementPerIndex) {
  OnnxModel m;
  m.input("x", {"N", 3}).input("i", {"N", "K"}, kInt64);
  m.node("GatherElements", {"x", "i"}, {"y"}, {{"axis", int64_t{1}}}).output("y");
  EXPECT_EQ(run_compiled(m, {counting({2, 3}), longs_of({2, 0, -1, 1}, {2, 2})}).to_vector<float>(),
            (F{2, 0, 5, 4}));
}

TEST(OnnxPlaces, AnIndexOutOfRangeIsAnError) {
  OnnxModel m;
  m.input("x", {2, 3}).input("i", {2, 1}, kInt64);
  m.node("GatherElements", {"x", "i"}, {"y"}, {{"axis", int64_t{1}}}).output("y");
  expect_error(ErrorCode::invalid_argument, {"index 3", "size 3"}, [&] {
    run_compiled(m, {counting({2, 3}), longs_of({0, 3}, {2, 1})});
  });
}

TEST(OnnxPlaces, GatherNDTakesSlices) {
  for (int64_t batch : {0, 1}) {
    OnnxModel m;
    m.input("x", {2, 2, 2}).constant("i", longs_of({1, 0}, {2, 1}));
    m.node("GatherND", {"x", "i"}, {"y"}, {{"batch_dims", batch}}).output("y");
    EXPECT_EQ(run_one(m.import(), {counting({2, 2, 2})}).to_vector<float>(),
              batch == 0 ? (F{4, 5, 6, 7, 0, 1, 2, 3}) : (F{2, 3, 4, 5}));
  }
}

TEST(OnnxPlaces, ScatterElementsReplacesOrJoins) {
  struct {
    const char* reduction;
    F want;
  } cases[] = {{"none", {1, 7, 5}},
               {"add", {1, 2 + 7, 3 + 4 + 5}},
               {"mul", {1, 14, 60}},
               {"max", {1, 7, 5}},
               {"min", {1, 2, 3}}};
  for (const auto& c : cases) {
    OnnxModel m(18);
    m.input("x", {1, 3}).constant("i", longs_of({-1, 1, 2}, {1, 3}));
    m.constant("u", Tensor::from(F{4, 7, 5}, {1, 3}));
    m.node("ScatterElements", {"x", "i", "u"}, {"y"},
           {{"axis", int64_t{1}}, {"reduction", std::string(c.reduction)}});
    graph::Graph g = m.output("y").import();
    EXPECT_EQ(run_one(g, {Tensor::from(F{1, 2, 3}, {1, 3})}).to_vector<float>(), c.want)
        << c.reduction;
  }
}

TEST(OnnxPlaces, ScatterNDWritesSlices) {
  OnnxModel m(16);
  m.input("x", {"N", 2}).input("u", {2, 2}).constant("i", longs_of({2, 0}, {2, 1}));
  m.node("ScatterND", {"x", "i", "u"}, {"y"}, {{"reduction", std::string("add")}}).output("y");
  EXPECT_EQ(run_compiled(m, {counting({3, 2}), Tensor::from(F{10, 20, 30, 40}, {2, 2})})
                .to_vector<float>(),
            (F{30, 41, 2, 3, 14, 25}));
}

TEST(OnnxPlaces, TheyAreWrittenAsOnnxHasThem) {
  OnnxModel m;
  m.input("x", {3, 2}).input("u", {1, 2}).constant("i", longs_of({1, 0}, {1, 2}));
  m.constant("r", longs_of({1}, {1, 1}));
  m.node("GatherElements", {"x", "i"}, {"a"}, {{"axis", int64_t{1}}});
  m.node("ScatterElements", {"x", "i", "u"}, {"b"});
  m.node("GatherND", {"b", "r"}, {"c"});
  m.node("ScatterND", {"b", "r", "c"}, {"d"});
  graph::Graph g = m.output("a").output("d").import();
  const std::string bytes = io::to_onnx_bytes(g);
  EXPECT_EQ(onnx_ops_of(bytes), "GatherElements ScatterElements GatherND ScatterND");
  const std::vector<Tensor> inputs{counting({3, 2}), Tensor::from(F{7, 8}, {1, 2})};
  const std::vector<Tensor> want = run_graph(g, inputs),
                            got = run_graph(io::import_onnx_bytes(bytes), inputs);
  for (size_t i : {0, 1}) EXPECT_EQ(got[i].to_vector<float>(), want[i].to_vector<float>());
}

TEST(OnnxPlaces, OneHotSetsWhatTheIndicesName) {
  OnnxModel m;
  m.input("i", {"N"}, kInt64).input("depth", {}, kInt64).constant("v", floats({-1, 2}));
  m.node("OneHot", {"i", "depth", "v"}, {"y"}, {{"axis", int64_t{0}}}).output("y");
  // Index 3 is out of range, -1 is the last.
  const Tensor y = run_compiled(m, {longs_of({1, -1, 3}, {3}), Tensor::from(I{3}, {})});
  EXPECT_EQ(y.shape(), (Shape{3, 3}));
  EXPECT_EQ(y.to_vector<float>(), (F{-1, -1, -1, 2, -1, -1, -1, 2, -1}));
}

TEST(OnnxPlaces, ReverseSequenceTurnsTheFirstSteps) {
  OnnxModel m;
  m.input("x", {"N", "T", 1}).input("l", {"N"}, kInt64);
  m.node("ReverseSequence", {"x", "l"}, {"y"},
         {{"batch_axis", int64_t{0}}, {"time_axis", int64_t{1}}})
      .output("y");
  EXPECT_EQ(run_compiled(m, {counting({2, 3, 1}), longs_of({2, 3}, {2})}).to_vector<float>(),
            (F{1, 0, 2, 5, 4, 3}));
}

TEST(OnnxPlaces, CompressKeepsWhatIsFlagged) {
  OnnxModel m;
  m.input("x", {2, 3}).input("c", {"K"}, kBool);
  m.node("Compress", {"x", "c"}, {"y"}, {{"axis", int64_t{1}}}).output("y");
  const Tensor flags = Tensor::from(I{0, 1, 1}, {3}).to(DType::bool_);
  EXPECT_EQ(run_compiled(m, {counting({2, 3}), flags}).to_vector<float>(), (F{1, 2, 4, 5}));
}

TEST(OnnxPlaces, MaxUnpoolPutsElementsBack) {
  OnnxModel m;
  m.input("x", {1, 1, 1, 2}).constant("i", longs_of({1, 6}, {1, 1, 1, 2}));
  m.node("MaxUnpool", {"x", "i"}, {"y"},
         {{"kernel_shape", ints({2, 2})}, {"strides", ints({2, 2})}});
  const Tensor y = run_one(m.output("y").import(), {Tensor::from(F{5, 7}, {1, 1, 1, 2})});
  EXPECT_EQ(y.shape(), (Shape{1, 1, 2, 4}));
  EXPECT_EQ(y.to_vector<float>(), (F{0, 5, 0, 0, 0, 0, 7, 0}));
}

TEST(OnnxPlaces, EyeLikeHasOnesOnADiagonal) {
  for (int64_t k : {0, 1, -1}) {
    OnnxModel m;
    m.input("x", {"N", "M"}).node("EyeLike", {"x"}, {"y"}, {{"k", k}, {"dtype", int64_t{7}}});
    m.output("y", kInt64);
    EXPECT_EQ(run_compiled(m, {counting({2, 3})}).to_vector<int64_t>(),
              k == 0   ? (I{1, 0, 0, 0, 1, 0})
              : k == 1 ? (I{0, 1, 0, 0, 0, 1})
                       : (I{0, 0, 0, 1, 0, 0}));
  }
}

TEST(OnnxPlaces, HardmaxMarksTheFirstLargest) {
  for (int64_t opset : {11, 13}) {
    OnnxModel m(opset);
    m.input("x", {1, 2, 2}).node("Hardmax", {"x"}, {"y"}, {{"axis", int64_t{1}}}).output("y");
    EXPECT_EQ(run_one(m.import(), {Tensor::from(F{1, 4, 3, 4}, {1, 2, 2})}).to_vector<float>(),
              opset == 13 ? (F{0, 1, 1, 0}) : (F{0, 1, 0, 0}));
  }
}

TEST(OnnxPlaces, ShrinkMovesTowardsZero) {
  OnnxModel m;
  m.input("x", {4}).node("Shrink", {"x"}, {"y"}, {{"lambd", 1.5}, {"bias", 1.0}}).output("y");
  EXPECT_EQ(run_one(m.import(), {floats({-3, -1, 1, 2})}).to_vector<float>(), (F{-2, 0, 0, 1}));
}

TEST(OnnxPools, LrnDividesBySquaresOfNeighbouringChannels) {
  for (int rank : {2, 3, 4, 5}) {
    std::vector<OnnxDim> dims{"N", 3};
    Shape shape{1, 3};
    for (int d = 2; d < rank; ++d) dims.emplace_back("D" + std::to_string(d)), shape.push_back(1);
    OnnxModel m;
    m.input("x", dims);
    m.node("LRN", {"x"}, {"y"},
           {{"size", int64_t{3}}, {"alpha", 3.0}, {"beta", 0.5}, {"bias", 2.0}})
        .output("y");
    const std::vector<float> y =
        run_compiled(m, {Tensor::from(F{1, 2, 3}, shape)}).to_vector<float>();
    const double want[] = {1 / std::sqrt(2 + 5.0), 2 / std::sqrt(2 + 14.0),
                           3 / std::sqrt(2 + 13.0)};
    for (size_t i : {0, 1, 2}) EXPECT_NEAR(y[i], want[i], 1e-6) << rank;
  }
}

TEST(OnnxPools, LpPoolsAddPowers) {
  const Tensor x = Tensor::from(F{3, -4, 1, 0}, {1, 1, 4});
  OnnxModel m;
  m.input("x", {1, 1, 4})
      .node("LpPool", {"x"}, {"y"}, {{"kernel_shape", ints({2})}, {"strides", ints({2})}});
  EXPECT_EQ(run_one(m.output("y").import(), {x}).to_vector<float>(), (F{5, 1}));
  OnnxModel all;
  all.input("x", {1, 1, 4}).node("GlobalLpPool", {"x"}, {"y"}, {{"p", int64_t{1}}}).output("y");
  EXPECT_EQ(run_one(all.import(), {x}).to_vector<float>(), (F{8}));
}

TEST(OnnxPools, VolumesHaveMeansToo) {
  OnnxModel m;
  m.input("x", {1, 1, 2, 2, 2})
      .node("AveragePool", {"x"}, {"y"}, {{"kernel_shape", ints({2, 2, 2})}});
  EXPECT_EQ(run_one(m.output("y").import(), {counting({1, 1, 2, 2, 2})}).to_vector<float>(),
            (F{3.5}));
}

TEST(OnnxReductions, CumSumsAxisMayBeKnownOnlyAtRunTime) {
  OnnxModel m;
  m.input("x", {2, 2}).input("axis", {}, kInt64);
  m.node("CumSum", {"x", "axis"}, {"y"}, {{"reverse", int64_t{1}}, {"exclusive", int64_t{1}}});
  graph::Graph g = m.output("y").import();
  for (const graph::Graph& each : {g, io::import_onnx_bytes(io::to_onnx_bytes(g))}) {
    const runtime::Program program = runtime::compile(each);
    const Tensor x = Tensor::from(F{1, 2, 3, 4}, {2, 2});
    for (int64_t axis : {0, 1})
      EXPECT_EQ(program.run({x, Tensor::from(I{axis}, {})})[0].to_vector<float>(),
                axis == 0 ? (F{3, 4, 0, 0}) : (F{2, 0, 4, 0}));
  }
}

// Of equal elements the first counts; the place is counted over the whole of x.
TEST(OnnxPools, MaxPoolSaysWhereItsMaximaAre) {
  const Tensor x = Tensor::from(F{1, 9, 2, 3, 3, 9, 5, 4, 6, 7, 8, 0}, {2, 1, 2, 3});
  for (bool columns_first : {false, true}) {
    OnnxModel m;
    m.input("x", {"N", 1, 2, 3});
    m.node("MaxPool", {"x"}, {"y", "i"},
           {{"kernel_shape", ints({2, 2})},
            {"pads", ints({0, 1, 0, 0})},
            {"storage_order", static_cast<int64_t>(columns_first)}});
    graph::Graph g = m.output("y").output("i", kInt64).import();
    const std::vector<Tensor> y = runtime::compile(g).run({x});
    EXPECT_EQ(y[0].to_vector<float>(), (F{3, 9, 9, 7, 8, 8}));
    EXPECT_EQ(y[1].to_vector<int64_t>(),
              columns_first ? (I{1, 2, 2, 7, 9, 9}) : (I{3, 1, 1, 9, 10, 10}));
  }
}

TEST(OnnxNorms, BatchNormalizationsTrainingModeMovesTheRunningStatistics) {
  OnnxModel m(15);
  m.input("x", {2, 1, 2}).constant("s", floats({2})).constant("b", floats({1}));
  m.constant("m", floats({10})).constant("v", floats({100}));
  m.node("BatchNormalization", {"x", "s", "b", "m", "v"}, {"y", "rm", "rv"},
         {{"training_mode", int64_t{1}}, {"momentum", 0.75}, {"epsilon", 0.0}});
  for (const char* name : {"y", "rm", "rv"}) m.output(name);
  // mean 3, variance 4
  const std::vector<Tensor> y = run_graph(m.import(), {Tensor::from(F{1, 5, 5, 1}, {2, 1, 2})});
  EXPECT_EQ(y[0].to_vector<float>(), (F{-1, 3, 3, -1}));
  EXPECT_FLOAT_EQ(y[1].item(), 10 * 0.75f + 3 * 0.25f);
  EXPECT_FLOAT_EQ(y[2].item(), 100 * 0.75f + 4 * 0.25f);
}

// Before opset 21 scale and bias are those of groups.
TEST(OnnxNorms, GroupNormalizationsScaleIsPerGroupOrPerChannel) {
  for (int64_t opset : {18, 21}) {
    OnnxModel m(opset);
    const int64_t count = opset == 18 ? 2 : 4;
    m.input("x", {1, 4, 2}).constant("s", Tensor::arange(count, DType::float32));
    m.constant("b", Tensor::arange(count, DType::float32));
    m.node("GroupNormalization", {"x", "s", "b"}, {"y"},
           {{"num_groups", int64_t{2}}, {"epsilon", 0.0}});
    // Each group is -1, -1, 1, 1 once normalized.
    const Tensor x = Tensor::from(F{2, 2, 4, 4, -3, -3, 7, 7}, {1, 4, 2});
    const std::vector<float> y = run_one(m.output("y").import(), {x}).to_vector<float>(),
                             want = opset == 18 ? F{0, 0, 0, 0, 0, 0, 2, 2}
                                                : F{0, 0, 2, 2, 0, 0, 6, 6};
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(y[i], want[i], 1e-5) << opset;
  }
}

}  // namespace
}  // namespace octet::testing
