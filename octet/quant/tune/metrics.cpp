// The metrics that tune() judges by.
#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/debug/detections.h"
#include "octet/debug/metrics.h"
#include "octet/nn/loss.h"
#include "octet/ops/functional.h"
#include "octet/quant/tune/tune.h"

namespace octet::quant {
namespace {

debug::ErrorStatistics error_of(const Batches& expected, const Batches& got) {
  debug::ErrorStatistics error;
  for (size_t b = 0; b < expected.size(); ++b)
    for (size_t i = 0; i < expected[b].size(); ++i)
      if (is_floating(expected[b][i].dtype())) error.add(expected[b][i], got[b][i]);
  return error;
}

template <typename Of>
double agreement_of(const Batches& expected, const Batches& got, Of&& of) {
  debug::Share share;
  for (size_t b = 0; b < expected.size(); ++b) share += of(expected[b].at(0), got[b].at(0));
  return share.value();
}

// Of each sample's mask; where both are empty they agree.
double mean_overlap(const Batches& x, const Batches& y) {
  double sum = 0;
  int64_t count = 0;
  for (size_t b = 0; b < x.size(); ++b)
    for (int64_t n = 0; n < x[b].at(0).size(0); ++n, ++count) {
      const debug::Share share =
          debug::mask_overlap(x[b][0].slice(0, n, n + 1), y[b].at(0).slice(0, n, n + 1));
      sum += share.count ? share.value() : 1;
    }
  return sum / static_cast<double>(count);
}

// Where a detector's results have its scores and its boxes.
struct DetectorOutputs {
  size_t scores = 0, corners = 0;
  bool background = false;
};

// Boxes: the result with rows of 4 numbers, of whose number there is another result, the scores.
// Where all scores of a box sum to 1, their first is that of no thing (SSD).
DetectorOutputs detector_outputs(const std::vector<Tensor>& results) {
  const auto is_rows = [](const Tensor& t) { return t.dtype() == DType::float32 && t.dim() == 3; };
  for (size_t c = 0; c < results.size(); ++c)
    for (size_t s = 0; s < results.size(); ++s) {
      const Tensor &corners = results[c], &scores = results[s];
      if (s == c || !is_rows(corners) || !is_rows(scores) || corners.size(2) != 4 ||
          scores.size(1) != corners.size(1))
        continue;
      const std::vector<float> sums = functional::sum(scores.detach(), {2}).to_vector<float>();
      const bool background = scores.size(2) > 1 && std::ranges::all_of(sums, [](float sum) {
                                return std::abs(sum - 1) < 1e-3F;
                              });
      return {s, c, background};
    }
  OCTET_FAIL(invalid_argument,
             "metric: the network has no scores (N, boxes, categories) beside corners (N, boxes, "
             "4); give a function of your own, or --metric-command");
}

// Detections of both networks in all pictures, down to `min_score` in `got`.
using Found = std::vector<debug::Detections>;
std::pair<Found, Found> detections_of(const Batches& expected, const Batches& got,
                                      float min_score) {
  const DetectorOutputs at = detector_outputs(expected.at(0));
  const auto all = [&](const Batches& results, float score) {
    Found found;
    for (const std::vector<Tensor>& batch : results)
      for (debug::Detections& picture :
           debug::detections(batch.at(at.scores), batch.at(at.corners),
                             {.min_score = score, .background = at.background}))
        found.push_back(std::move(picture));
    return found;
  };
  return {all(expected, debug::DetectionOptions().min_score), all(got, min_score)};
}

// What both find over what one of them finds.
double shared_detections(const Batches& expected, const Batches& got) {
  const auto [x, y] = detections_of(expected, got, debug::DetectionOptions().min_score);
  debug::Share share = debug::found_again(x, y);
  for (const debug::Detections& picture : y) share.count += std::ssize(picture);
  share.count -= share.hits;
  return share.value();
}

double average_precision(const Batches& expected, const Batches& got) {
  constexpr float kLeastScore = 0.05F;  // detections below it change no precision that counts
  const auto [x, y] = detections_of(expected, got, kLeastScore);
  return debug::mean_average_precision(x, y);
}

const std::vector<TuneMetric>& named_metrics() {
  static const std::vector<TuneMetric> all = {
      {"cosine",
       [](const Batches& x, const Batches& y) { return error_of(x, y).cosine_similarity(); }},
      {"sqnr", [](const Batches& x, const Batches& y) { return error_of(x, y).sqnr(); }},
      {"agreement",
       [](const Batches& x, const Batches& y) {
         return agreement_of(
             x, y, [](const Tensor& a, const Tensor& b) { return debug::argmax_agreement(a, b); });
       }},
      {"sequence",
       [](const Batches& x, const Batches& y) {
         return agreement_of(x, y, [](const Tensor& a, const Tensor& b) {
           return debug::sequence_agreement(a, b);
         });
       }},
      {"characters",
       [](const Batches& x, const Batches& y) {
         return agreement_of(x, y, [](const Tensor& a, const Tensor& b) {
           return debug::character_agreement(a, b);
         });
       }},
      words_metric(-1),
      {"iou", mean_overlap},
      {"detections", shared_detections},
      {"map", average_precision}};
  return all;
}

}  // namespace

TuneMetric tune_metric(std::string_view name) {
  for (const TuneMetric& metric : named_metrics())
    if (metric.name == name) return metric;
  const std::vector<std::string> names = tune_metric_names();
  OCTET_FAIL(invalid_argument, "unknown metric '{}'{} (known: {})", name, did_you_mean(name, names),
             fmt::join(names, ", "));
}

std::vector<std::string> tune_metric_names() {
  std::vector<std::string> names;
  for (const TuneMetric& metric : named_metrics()) names.push_back(metric.name);
  return names;
}

TuneMetric words_metric(int64_t space) {
  return {"words", [space](const Batches& x, const Batches& y) {
            return agreement_of(x, y, [space](const Tensor& a, const Tensor& b) {
              return debug::word_agreement(a, b, space < 0 ? a.size(a.dim() - 1) - 1 : space);
            });
          }};
}

TuneMetric top_k_metric(int64_t k, std::vector<Tensor> labels) {
  return {fmt::format("top-{}", k),
          [k, labels = std::move(labels)](const Batches&, const Batches& got) {
            OCTET_CHECK(labels.size() == got.size(), invalid_argument,
                        "top_k_metric: labels of {} batches, results of {}", labels.size(),
                        got.size());
            debug::Share share;
            for (size_t b = 0; b < got.size(); ++b)
              share += debug::top_k(got[b].at(0), labels[b], k);
            return share.value();
          }};
}

TuneMetric perplexity_metric(std::vector<Tensor> labels) {
  return {"perplexity", [labels = std::move(labels)](const Batches&, const Batches& got) {
            OCTET_CHECK(labels.size() == got.size(), invalid_argument,
                        "perplexity_metric: labels of {} batches, results of {}", labels.size(),
                        got.size());
            double sum = 0, count = 0;
            for (size_t b = 0; b < got.size(); ++b) {
              const Tensor& scores = got[b].at(0);
              OCTET_CHECK(scores.dim() >= 2, invalid_argument,
                          "perplexity: the first output is {}; expected scores (..., classes)",
                          to_string(scores.type()));
              const int64_t places =
                  scores.numel() / std::max<int64_t>(scores.size(scores.dim() - 1), 1);
              OCTET_CHECK(labels[b].numel() == places, invalid_argument,
                          "perplexity: {} labels for scores {}; expected one for each of {} places",
                          labels[b].numel(), octet::to_string(scores.shape()), places);
              const Tensor rows = scores.reshape({-1, scores.size(scores.dim() - 1)}),
                           wanted = labels[b].reshape({-1});
              const functional::CrossEntropyOptions sums{.reduction = "sum"};
              sum += functional::cross_entropy(rows, wanted, sums).item();
              for (const int64_t label : wanted.to_vector<int64_t>())
                count += label != sums.ignore_index ? 1 : 0;
            }
            return -std::exp(sum / std::max(1.0, count));
          }};
}

}  // namespace octet::quant
