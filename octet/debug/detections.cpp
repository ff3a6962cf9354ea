#include "octet/debug/detections.h"

#include <algorithm>
#include <functional>
#include <set>

#include "octet/base/check_impl.h"

namespace octet::debug {
namespace {

void expect_same_pictures(const std::vector<Detections>& x, const std::vector<Detections>& y,
                          const char* who) {
  OCTET_CHECK(x.size() == y.size(), invalid_argument, "{}: detections of {} and {} pictures", who,
              x.size(), y.size());
}

// Candidates of one category in one picture, the best first, without those that a better one
// overlaps.
void append_best(const float* scores, const float* corners, int64_t boxes, int64_t categories,
                 int64_t category, const DetectionOptions& options, Detections& all) {
  Detections candidates, kept;
  for (int64_t i = 0; i < boxes; ++i) {
    const float score = scores[i * categories + category];
    const float* c = corners + 4 * i;
    if (score >= options.min_score) candidates.push_back({category, score, c[0], c[1], c[2], c[3]});
  }
  std::ranges::stable_sort(candidates, std::greater(), &Detection::score);
  for (const Detection& d : candidates)
    if (std::ranges::none_of(
            kept, [&](const Detection& k) { return overlap(k, d) > options.max_overlap; }))
      kept.push_back(d);
  all.insert(all.end(), kept.begin(), kept.end());
}

// Average precision of one category.
double average_precision(const std::vector<Detections>& expected,
                         const std::vector<Detections>& got, int64_t category, float least) {
  struct Candidate {
    size_t picture;
    Detection found;
  };
  std::vector<Candidate> candidates;
  std::vector<Detections> open(expected.size());  // what no candidate took yet
  size_t wanted = 0;
  for (size_t p = 0; p < expected.size(); ++p) {
    for (const Detection& d : expected[p])
      if (d.category == category) open[p].push_back(d);
    wanted += open[p].size();
    for (const Detection& d : got[p])
      if (d.category == category) candidates.push_back({p, d});
  }
  std::ranges::stable_sort(candidates, std::greater(),
                           [](const Candidate& c) { return c.found.score; });
  std::vector<double> precision, recall;
  size_t right = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    Detections& left = open[candidates[i].picture];
    const auto most = std::ranges::max_element(
        left, {}, [&](const Detection& d) { return overlap(d, candidates[i].found); });
    if (most != left.end() && overlap(*most, candidates[i].found) >= least) {
      left.erase(most);
      ++right;
    }
    precision.push_back(static_cast<double>(right) / static_cast<double>(i + 1));
    recall.push_back(static_cast<double>(right) / static_cast<double>(wanted));
  }
  for (size_t i = precision.size(); i-- > 1;)
    precision[i - 1] = std::max(precision[i - 1], precision[i]);
  double area = 0;
  for (size_t i = 0; i < precision.size(); ++i)
    area += precision[i] * (recall[i] - (i ? recall[i - 1] : 0));
  return area;
}

}  // namespace

float overlap(const Detection& a, const Detection& b) {
  const float w = std::min(a.x1, b.x1) - std::max(a.x0, b.x0),
              h = std::min(a.y1, b.y1) - std::max(a.y0, b.y0);
  if (w <= 0 || h <= 0) return 0;
  return w * h / ((a.x1 - a.x0) * (a.y1 - a.y0) + (b.x1 - b.x0) * (b.y1 - b.y0) - w * h);
}

std::vector<Detections> detections(const Tensor& scores, const Tensor& corners,
                                   const DetectionOptions& options) {
  OCTET_CHECK(scores.defined() && corners.defined() && scores.dtype() == DType::float32 &&
                  corners.dtype() == DType::float32 && scores.dim() == 3 && corners.dim() == 3 &&
                  scores.size(0) == corners.size(0) && scores.size(1) == corners.size(1) &&
                  corners.size(2) == 4,
              invalid_argument,
              "detections: {} and {}; expected float32 scores (N, boxes, categories) and corners "
              "(N, boxes, 4)",
              scores.defined() ? to_string(scores.type()) : "none",
              corners.defined() ? to_string(corners.type()) : "none");
  const Tensor s = scores.detach().contiguous(), c = corners.detach().contiguous();
  const int64_t boxes = s.size(1), categories = s.size(2);
  std::vector<Detections> all(static_cast<size_t>(s.size(0)));
  for (int64_t n = 0; n < s.size(0); ++n) {
    Detections& picture = all[static_cast<size_t>(n)];
    for (int64_t k = options.background ? 1 : 0; k < categories; ++k)
      append_best(s.data<float>() + n * boxes * categories, c.data<float>() + n * boxes * 4, boxes,
                  categories, k, options, picture);
    std::ranges::stable_sort(picture, std::greater(), &Detection::score);
  }
  return all;
}

Share found_again(const std::vector<Detections>& expected, const std::vector<Detections>& got,
                  float least) {
  expect_same_pictures(expected, got, "found_again");
  struct Pair {
    float overlap;
    size_t expected, got;
  };
  Share share;
  for (size_t p = 0; p < expected.size(); ++p) {
    std::vector<Pair> pairs;
    for (size_t i = 0; i < expected[p].size(); ++i)
      for (size_t j = 0; j < got[p].size(); ++j)
        if (expected[p][i].category == got[p][j].category)
          pairs.push_back({overlap(expected[p][i], got[p][j]), i, j});
    std::ranges::stable_sort(pairs, std::greater(), &Pair::overlap);
    std::set<size_t> found, used;
    for (const Pair& pair : pairs) {
      if (pair.overlap < least || found.contains(pair.expected) || used.contains(pair.got))
        continue;
      found.insert(pair.expected);
      used.insert(pair.got);
    }
    share += {.hits = std::ssize(found), .count = std::ssize(expected[p])};
  }
  return share;
}

double mean_average_precision(const std::vector<Detections>& expected,
                              const std::vector<Detections>& got, float least) {
  expect_same_pictures(expected, got, "mean_average_precision");
  std::set<int64_t> categories;
  for (const Detections& picture : expected)
    for (const Detection& d : picture) categories.insert(d.category);
  double sum = 0;
  for (const int64_t category : categories)
    sum += average_precision(expected, got, category, least);
  return sum / static_cast<double>(categories.size());
}

}  // namespace octet::debug
