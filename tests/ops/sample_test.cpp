// grid_sample, roi_align and non_max_suppression.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/ops/op.h"
#include "tests/expect_error.h"
#include "tests/ops/ops_test_util.h"

namespace octet::testing {
namespace {

using F = std::vector<float>;

// A row of 4 elements 0, 1, 2, 3 at places along it.
F sampled(const F& places, const Attrs& attrs) {
  const Tensor x = Tensor::arange(4, DType::float32).reshape({1, 1, 4});
  const auto n = static_cast<int64_t>(places.size());
  return ops::call("grid_sample", {x, Tensor::from(places, {1, n, 1})}, attrs)
      .reshape({-1})
      .to_vector<float>();
}

TEST(GridSample, CornersAreCentersOrEdges) {
  EXPECT_EQ(sampled({-1, 0, 1}, {{"align_corners", true}}), (F{0, 1.5, 3}));
  // Half of what is outside is 0.
  EXPECT_EQ(sampled({-1, 0, 1}, {{"align_corners", false}}), (F{0, 1.5, 1.5}));
}

TEST(GridSample, WhatIsOutsideIsZeroTheBorderOrMirrored) {
  // Place 4.5 of elements that lie on 0 to 3.
  const F far{2};
  for (bool align : {true, false}) {
    const auto at = [&](const char* padding) {
      return sampled(far, {{"padding_mode", padding}, {"align_corners", align}})[0];
    };
    EXPECT_EQ(at("zeros"), 0);
    EXPECT_EQ(at("border"), 3);
    // Mirrored at 3 or at 3.5; without corners aligned the place is 5.5.
    EXPECT_FLOAT_EQ(at("reflection"), 1.5);
  }
}

TEST(GridSample, NearestTakesTheEvenOneOfTwo) {
  EXPECT_EQ(sampled({0, 1.0f / 3}, {{"mode", "nearest"}, {"align_corners", true}}), (F{2, 2}));
}

TEST(GridSample, CubicGoesThroughTheElements) {
  const F y = sampled({-1.0f / 3, 0}, {{"mode", "cubic"}, {"align_corners", true}});
  EXPECT_NEAR(y[0], 1, 1e-6);
  // weights -0.09375 and 0.59375 of the neighbours
  EXPECT_NEAR(y[1], 0.59375 * 3 - 0.09375 * 3, 1e-6);
}

TEST(GridSample, TheGridNamesTheInnermostDimensionFirst) {
  const Tensor x = Tensor::arange(6, DType::float32).reshape({1, 1, 2, 3});
  const Tensor grid = Tensor::from(F{1, -1}, {1, 1, 1, 2});
  EXPECT_EQ(ops::call("grid_sample", {x, grid}, {{"align_corners", true}}).item(), 2);
}

TEST(GridSample, PlacesThatAreNoNumbersAreSafe) {
  const float nan = std::nanf("");
  for (const char* padding : {"zeros", "border", "reflection"})
    for (const char* mode : {"nearest", "linear", "cubic"})
      for (float v :
           sampled({nan, 1e30f, -1e30f, INFINITY}, {{"mode", mode}, {"padding_mode", padding}}))
        EXPECT_TRUE(v >= 0 && v <= 3) << mode << " " << padding << " " << v;
}

TEST(GridSample, WrongShapesAreNamed) {
  expect_error(ErrorCode::invalid_argument, {"grid_sample", "(1, 2, 3)"}, [] {
    ops::call("grid_sample", {Tensor::zeros({1, 1, 2, 2}), Tensor::zeros({1, 2, 3})});
  });
  expect_error(ErrorCode::invalid_argument, {"mode=\"bilinear\""}, [] {
    sampled({0}, {{"mode", "bilinear"}});
  });
}

TEST(RoiAlign, CellsAreMeansOfSamples) {
  // Elements are their column: the mean over a region is its middle.
  const Tensor x = Tensor::arange(8, DType::float32).expand({1, 1, 8, 8}).contiguous();
  const Tensor rois = Tensor::from(F{1, 1, 5, 5, 1, 1, 5, 5}, {2, 4}),
               images = Tensor::zeros({2}, DType::int64);
  const std::vector<int64_t> size{1, 2};
  const auto run = [&](const char* coordinates) {
    return ops::call("roi_align", {x, rois, images},
                     {{"output_size", size}, {"sampling_ratio", 2}, {"coordinates", coordinates}})
        .to_vector<float>();
  };
  EXPECT_EQ(run("output_half_pixel"), (F{2, 4, 2, 4}));
  EXPECT_EQ(run("half_pixel"), (F{1.5, 3.5, 1.5, 3.5}));
}

TEST(RoiAlign, ImagesMustExist) {
  expect_error(ErrorCode::invalid_argument, {"roi_align", "image 1 of 1"}, [] {
    ops::call("roi_align",
              {Tensor::zeros({1, 1, 2, 2}), Tensor::zeros({1, 4}), Tensor::ones({1}, DType::int64)},
              {{"output_size", std::vector<int64_t>{1, 1}}});
  });
}

TEST(NonMaxSuppression, KeepsTheBestOfOverlappingBoxes) {
  // Boxes 0 and 1 share 2/3 of what they cover; 2 is apart. Corners may be in any order.
  const Tensor boxes = Tensor::from(F{0, 0, 1, 5, 1, 6, 0, 1, 0, 10, 1, 15}, {1, 3, 4});
  const Tensor scores = Tensor::from(F{0.5f, 0.9f, 0.7f, 0.3f, 0.2f, 0.1f}, {1, 2, 3});
  const auto run = [&](int64_t most, double iou, double score) {
    return ops::call("non_max_suppression", {boxes, scores},
                     {{"max_output", most}, {"iou_threshold", iou}, {"score_threshold", score}})
        .to_vector<int64_t>();
  };
  using I = std::vector<int64_t>;
  EXPECT_EQ(run(9, 0.5, 0.0), (I{0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 1, 2}));
  EXPECT_EQ(run(1, 0.5, 0.0), (I{0, 0, 1, 0, 1, 0}));
  EXPECT_EQ(run(9, 0.7, 0.6), (I{0, 0, 1, 0, 0, 2}));
  EXPECT_EQ(run(0, 0.5, 0.0), (I{}));
}

}  // namespace
}  // namespace octet::testing
