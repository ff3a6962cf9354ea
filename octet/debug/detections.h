#pragma once
// What detectors find, and how well one network finds what another one does.
//
//   auto truth = debug::detections(scores, boxes), mine = debug::detections(scores8, boxes8);
//   double kept = debug::found_again(truth, mine).value();  // 1: all of them

#include <cstdint>
#include <vector>

#include "octet/debug/metrics.h"

namespace octet::debug {

// A thing in a picture. Corners are in any unit, x0 <= x1 and y0 <= y1.
struct Detection {
  int64_t category = 0;  // the column of its score
  float score = 0, x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};
// Of one picture, the best first.
using Detections = std::vector<Detection>;

struct DetectionOptions {
  float min_score = 0.5F;    // a detection has it or more
  float max_overlap = 0.5F;  // with a better detection of the same category (see overlap())
  bool background = false;   // column 0 of the scores is that of nothing being there
};

// Area of the intersection over that of the union (IoU) of two boxes; 0 if both are empty.
float overlap(const Detection& a, const Detection& b);

// Of N pictures, from scores (N, boxes, categories) and corners (N, boxes, 4: x0, y0, x1, y1), both
// float32: boxes whose score is large enough and which no better one of the same category overlaps
// (greedy non-maximum suppression; of equal scores the first box is the better one). Error if the
// shapes do not fit.
std::vector<Detections> detections(const Tensor& scores, const Tensor& corners,
                                   const DetectionOptions& options = {});

// How many of `expected` (count) are in `got`, each with a detection of its own of the same picture
// and category that overlaps it by `least` or more (hits; pairs are made from the most to the least
// overlap). Error if the numbers of pictures differ.
Share found_again(const std::vector<Detections>& expected, const std::vector<Detections>& got,
                  float least = 0.5F);

// Mean average precision (M. Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010;
// with the area under all points of the curve as since 2010): for each category of `expected`, the
// detections of `got` from the best score down over all pictures; one is right if a detection of
// `expected` that none before took overlaps it by `least` or more; precision made to fall only,
// integrated over recall. 0..1; NaN if nothing is expected. Error as above.
double mean_average_precision(const std::vector<Detections>& expected,
                              const std::vector<Detections>& got, float least = 0.5F);

}  // namespace octet::debug
