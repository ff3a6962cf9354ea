// GridSample, RoiAlign, NonMaxSuppression and CenterCropPad: the forms of their opsets.
#include <gtest/gtest.h>

#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

using F = std::vector<float>;

TEST(OnnxRegions, GridSampleHasOtherNamesOfModesInOpset16) {
  for (const auto& [mode, octet] :
       {std::pair{"bilinear", "linear"}, {"bicubic", "cubic"}, {"nearest", "nearest"}}) {
    OnnxModel m(16);
    m.input("x", {"N", 1, "H", "W"}).input("g", {"N", 2, 2, 2});
    m.node("GridSample", {"x", "g"}, {"y"},
           {{"mode", std::string(mode)},
            {"padding_mode", std::string("border")},
            {"align_corners", int64_t{1}}});
    graph::Graph g = m.output("y").import();
    const graph::Node& node = node_of(g, "grid_sample");
    EXPECT_EQ(node.attrs.get_string("mode"), octet);
    EXPECT_EQ(node.attrs.get_string("padding_mode"), "border");
    EXPECT_TRUE(node.attrs.get_bool("align_corners"));
    EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(N, 1, 2, 2)");
  }
}

TEST(OnnxRegions, RoiAlignsCoordinatesDependOnTheOpset) {
  for (int64_t opset : {10, 16}) {
    OnnxModel m(opset);
    m.input("x", {1, 1, 4, 4}).input("r", {"R", 4}).input("i", {"R"}, kInt64);
    m.node("RoiAlign", {"x", "r", "i"}, {"y"}, {{"output_width", int64_t{2}}});
    graph::Graph g = m.output("y").import();
    EXPECT_EQ(node_of(g, "roi_align").attrs.get_string("coordinates"),
              opset == 10 ? "output_half_pixel" : "half_pixel");
    EXPECT_EQ(to_string(g.type(g.outputs()[0])), "Float(R, 1, 1, 2)");
  }
}

TEST(OnnxRegions, WhatOpset13HasIsWritten) {
  for (const char* coordinates : {"output_half_pixel", "half_pixel"}) {
    graph::Graph g;
    graph::ValueId x = g.add_input("x", TensorType(DType::float32, Shape{1, 2, 6, 6})),
                   r = g.add_input("r",
                                   TensorType(DType::float32, std::vector<Dim>{Dim("R"), Dim(4)})),
                   i = g.add_input("i", TensorType(DType::int32, std::vector<Dim>{Dim("R")}));
    g.set_outputs({g.add_call("y", "roi_align", {x, r, i},
                              {{"output_size", std::vector<int64_t>{2, 3}},
                               {"sampling_ratio", int64_t{2}},
                               {"spatial_scale", 0.5},
                               {"mode", std::string("max")},
                               {"coordinates", std::string(coordinates)}})});
    io::OnnxOpset opset;
    const std::string bytes = io::to_onnx_bytes(g, {}, &opset);
    EXPECT_EQ(opset.version, std::string(coordinates) == "half_pixel" ? 16 : 13);
    EXPECT_EQ(onnx_ops_of(bytes), "Cast RoiAlign");
    const std::vector<Tensor> inputs{Tensor::randn({1, 2, 6, 6}, 1),
                                     Tensor::from(F{0, 0, 5, 9, 2, 1, 12, 4}, {2, 4}),
                                     Tensor::zeros({2}, DType::int32)};
    EXPECT_TRUE(equal(run_one(io::import_onnx_bytes(bytes), inputs), run_one(g, inputs)));
  }
}

// How many boxes are left is known only at run time, and so are its limits here.
OnnxModel suppressing() {
  OnnxModel m;
  m.input("b", {1, "K", 4}).input("s", {1, 1, "K"}).input("most", {1}, kInt64).input("iou", {1});
  m.constant("least", floats({0.25f}));
  m.node("NonMaxSuppression", {"b", "s", "most", "iou", "least"}, {"picked"});
  m.constant("two", longs({2})).constant("one", longs({1}));
  m.node("Gather", {"picked", "two"}, {"index"}, {{"axis", int64_t{1}}});
  m.node("Squeeze", {"index", "one"}, {"list"}).node("Squeeze", {"s", "axes"}, {"flat"});
  m.constant("axes", longs({0, 1})).node("Gather", {"flat", "list"}, {"y"}).output("y");
  return m;
}

TEST(OnnxRegions, NonMaxSuppressionHasAsManyRowsAsBoxesAreLeft) {
  const Tensor boxes =
      Tensor::from(F{0, 0, 1, 5, 0, 1, 1, 6, 0, 10, 1, 15, 0, 20, 1, 25}, {1, 4, 4});
  const Tensor scores = Tensor::from(F{0.5, 0.75, 0.625, 0.125}, {1, 1, 4});
  graph::Graph g = suppressing().import();
  for (const graph::Graph& each : {g, io::import_onnx_bytes(io::to_onnx_bytes(g))}) {
    const runtime::Program program = runtime::compile(each);
    const auto run = [&](int64_t most, float iou) {
      return program.run({boxes, scores, longs({most}), floats({iou})}).at(0).to_vector<float>();
    };
    EXPECT_EQ(run(9, 0.5), (F{0.75, 0.625}));
    EXPECT_EQ(run(1, 0.5), (F{0.75}));
    EXPECT_EQ(run(9, 0.75), (F{0.75, 0.625, 0.5}));
  }
}

TEST(OnnxRegions, CenterCropPadCutsAndPadsBothEnds) {
  OnnxModel m(18);
  m.input("x", {4, 1}).constant("size", longs({3, 4}));
  m.node("CenterCropPad", {"x", "size"}, {"y"}).output("y");
  EXPECT_EQ(run_one(m.import(), {Tensor::from(F{1, 2, 3, 4}, {4, 1})}).to_vector<float>(),
            (F{0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0}));
}

}  // namespace
}  // namespace octet::testing
