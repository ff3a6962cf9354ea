#include "octet/debug/detections.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using debug::Detection;
using debug::Detections;

// A square of side 10.
Detection square(int64_t category, float score, float x, float y) {
  return {category, score, x, y, x + 10, y + 10};
}

TEST(Detections, OverlapIsIntersectionOverUnion) {
  const Detection a = square(0, 1, 0, 0);
  EXPECT_FLOAT_EQ(debug::overlap(a, a), 1);
  EXPECT_FLOAT_EQ(debug::overlap(a, square(0, 1, 5, 0)), 50.0F / 150);
  EXPECT_FLOAT_EQ(debug::overlap(a, square(0, 1, 5, 5)), 25.0F / 175);
  EXPECT_EQ(debug::overlap(a, square(0, 1, 10, 0)), 0);
  EXPECT_EQ(debug::overlap({}, {}), 0);
}

TEST(Detections, BoxesThatABetterOneOverlapsAreLeftOut) {
  // Two categories behind the background; boxes 0 and 1 overlap by 9/11, box 2 lies apart.
  const Tensor scores =
      Tensor::from<float>({0.1F, 0.7F, 0.2F, 0.1F, 0.8F, 0.1F, 0.2F, 0.2F, 0.6F}, {1, 3, 3});
  const Tensor corners =
      Tensor::from<float>({0, 0, 10, 10, 1, 0, 11, 10, 40, 40, 50, 50}, {1, 3, 4});
  const Detections found = debug::detections(scores, corners, {.background = true}).at(0);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].category, 1);
  EXPECT_FLOAT_EQ(found[0].score, 0.8F);
  EXPECT_FLOAT_EQ(found[0].x0, 1);
  EXPECT_EQ(found[1].category, 2);
  const auto count = [&](const debug::DetectionOptions& o) {
    return debug::detections(scores, corners, o).at(0).size();
  };
  EXPECT_EQ(count({.max_overlap = 0.9F, .background = true}), 3u) << "boxes 0 and 1 both stay";
  EXPECT_EQ(count({.min_score = 0.65F, .background = true}), 1u);
  EXPECT_EQ(count({.min_score = 0.15F, .background = true}), 4u)
      << "a box may be of two categories; of category 1 boxes 1 and 2, of category 2 boxes 0 and 2";
  EXPECT_EQ(count({.min_score = 0.15F}), 5u) << "and box 2 of category 0";
  expect_error(ErrorCode::invalid_argument, {"detections", "(N, boxes, 4)"},
               [&] { debug::detections(scores, scores); });
}

TEST(Detections, AreFoundAgainOnceInTheSamePictureAndCategory) {
  const Detections truth{square(0, 1, 0, 0), square(0, 1, 4, 0), square(1, 1, 50, 50)};
  const auto hits = [&](const Detections& got) {
    const debug::Share share = debug::found_again({truth, {}}, {got, {}});
    EXPECT_EQ(share.count, 3);
    return share.hits;
  };
  EXPECT_EQ(hits(truth), 3);
  EXPECT_EQ(hits({}), 0);
  EXPECT_EQ(hits({square(0, 1, 1, 0)}), 1) << "near two of them, but it is one";
  EXPECT_EQ(hits({square(0, 1, 50, 50)}), 0) << "another category";
  EXPECT_EQ(hits({square(0, 1, 3, 0), square(0, 1, 1, 0)}), 2) << "each with the nearest";
  EXPECT_EQ(debug::found_again({truth, {}}, {{}, truth}).hits, 0) << "another picture";
  expect_error(ErrorCode::invalid_argument, {"1 and 2 pictures"}, [&] {
    debug::found_again({truth}, {truth, truth});
  });
}

TEST(Detections, MeanAveragePrecisionIsTheAreaUnderTheCurve) {
  const std::vector<Detections> truth{{square(0, 1, 0, 0), square(0, 1, 100, 0)},
                                      {square(0, 1, 0, 0), square(1, 1, 50, 50)}};
  EXPECT_DOUBLE_EQ(debug::mean_average_precision(truth, truth), 1);
  EXPECT_DOUBLE_EQ(debug::mean_average_precision(truth, {{}, {}}), 0);
  EXPECT_TRUE(std::isnan(debug::mean_average_precision({{}}, {{}})));
  // Category 0, best first: right, wrong, right, (third never found): precision 1, 1/2, 2/3, of
  // which falls only 1, 2/3, 2/3; recall 1/3, 1/3, 2/3: 1/3 + 2/3 * 1/3. Category 1: 1.
  const std::vector<Detections> got{{square(0, 0.9F, 1, 0), square(0, 0.7F, 101, 0)},
                                    {square(0, 0.8F, 30, 30), square(1, 0.4F, 50, 50)}};
  EXPECT_NEAR(debug::mean_average_precision(truth, got), (1.0 / 3 + 2.0 / 9 + 1) / 2, 1e-12);
  // A thing found twice is right once.
  EXPECT_NEAR(debug::mean_average_precision(
                  {{square(0, 1, 0, 0), square(0, 1, 100, 0)}},
                  {{square(0, 0.9F, 0, 0), square(0, 0.8F, 0, 0), square(0, 0.7F, 100, 0)}}),
              0.5 + 0.5 * 2 / 3, 1e-12);
}

}  // namespace
}  // namespace octet::testing
