#include "octet/debug/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/ops/functional.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using debug::ErrorStatistics;
using debug::KlDivergence;

const Tensor kX = Tensor::from<float>({3, 0, -4, 0}), kY = Tensor::from<float>({3, 1, -4, 0});

TEST(Metrics, AreThoseOfTheirFormulas) {
  EXPECT_NEAR(debug::compute_sqnr(kX, kY), 20 * std::log10(5.0), 1e-12);
  EXPECT_NEAR(debug::compute_normalized_l2_error(kX, kY), 0.2, 1e-12);
  EXPECT_NEAR(debug::compute_cosine_similarity(kX, kY), 25 / (5 * std::sqrt(26.0)), 1e-12);
  EXPECT_EQ(debug::compute_max_abs_error(kX, kY), 1);
}

TEST(Metrics, OfEqualTensorsAndOfZeros) {
  const Tensor zeros = Tensor::zeros({4});
  EXPECT_EQ(debug::compute_sqnr(kX, kX), INFINITY);
  EXPECT_EQ(debug::compute_normalized_l2_error(kX, kX), 0);
  EXPECT_NEAR(debug::compute_cosine_similarity(kX, kX), 1, 1e-12);
  EXPECT_EQ(debug::compute_cosine_similarity(zeros, kX), 0);
  EXPECT_EQ(debug::compute_sqnr(zeros, kX), -INFINITY);
}

TEST(Metrics, ANanIsNotLost) {
  ErrorStatistics e;
  e.add(kX, Tensor::from<float>({3, NAN, -4, 0}));
  e.add(kX, kY);
  EXPECT_TRUE(std::isnan(e.max_abs_error()));
  EXPECT_TRUE(std::isnan(e.sqnr()));
}

TEST(Metrics, QuantizedTensorsAreDequantized) {
  const Tensor q = quantize(kX, Quantizer::per_tensor(2, 8, DType::quint8), DType::quint8);
  EXPECT_EQ(debug::compute_max_abs_error(kX, q), 1);
  EXPECT_EQ(debug::compute_sqnr(kX, q), debug::compute_sqnr(kX, q.dequantize()));
}

TEST(Metrics, OfIndicesAreNan) {
  const Tensor index = Tensor::arange(4);
  EXPECT_TRUE(std::isnan(debug::compute_sqnr(index, index)));
  EXPECT_TRUE(std::isnan(debug::compute_kl_divergence(index, index)));
}

TEST(Metrics, DifferentSizesAreAnError) {
  expect_error(ErrorCode::invalid_argument, {"different numbers"},
               [&] { (void)debug::compute_sqnr(kX, Tensor::zeros({3})); });
}

TEST(Metrics, StreamedAreThoseOfAllData) {
  const Tensor x = Tensor::randn({6, 50}, 1), y = x + Tensor::randn({6, 50}, 2) * 0.1;
  ErrorStatistics all, parts, merged;
  KlDivergence kl, kl_parts, kl_merged;
  all.add(x, y);
  kl.add(x, y);
  for (int i = 0; i < 6; ++i) {
    (i % 2 ? parts : merged).add(x.select(0, i), y.select(0, i));
    (i % 2 ? kl_parts : kl_merged).add(x.select(0, i), y.select(0, i));
  }
  merged.merge(parts);
  kl_merged.merge(kl_parts);
  EXPECT_EQ(merged.count(), 300);
  EXPECT_NEAR(merged.sqnr(), all.sqnr(), 1e-9);
  EXPECT_NEAR(merged.cosine_similarity(), all.cosine_similarity(), 1e-12);
  EXPECT_EQ(merged.max_abs_error(), all.max_abs_error());
  EXPECT_NEAR(kl_merged.value(), kl.value(), 1e-12);
}

// 17 bins of width 1; x is in the first but for one value, y in the first two.
TEST(Metrics, KlDivergenceIsThatOfItsFormula) {
  std::vector<float> x(64, 0.5f), y(64, 0.5f);
  x[0] = y[0] = 16.6f;
  for (int i = 1; i < 32; ++i) y[static_cast<size_t>(i)] = 1.5f;
  const double n = 64 + 17 / 2.0;
  double expected = 63.5 / n * std::log(63.5 / 32.5) + 0.5 / n * std::log(0.5 / 31.5);
  EXPECT_NEAR(debug::compute_kl_divergence(Tensor::from(x, {64}), Tensor::from(y, {64}), 16),
              expected, 1e-12);
}

TEST(Metrics, KlDivergenceOfTheSameValuesIsZero) {
  const Tensor x = Tensor::randn({100}, 1);
  EXPECT_EQ(debug::compute_kl_divergence(x, x), 0);
  EXPECT_EQ(debug::compute_kl_divergence(Tensor::ones({3}), Tensor::ones({5})), 0);
  EXPECT_GT(debug::compute_kl_divergence(Tensor::ones({3}), Tensor::zeros({3})), 0);
}

TEST(QuantizationError, IsSplitByItsCause) {
  // codes 0..255 of scale 1, zero point 0: 300 is cut to 255, 1.25 is rounded to 1
  const Tensor x = Tensor::from<float>({300, -2, 1.25, 255.25, 7});
  const auto e =
      debug::split_quantization_error(x, Quantizer::per_tensor(1, 0, DType::quint8), DType::quint8);
  EXPECT_DOUBLE_EQ(e.clipping, 45.0 * 45 + 4 + 0.0625);
  EXPECT_DOUBLE_EQ(e.rounding, 0.0625);
  EXPECT_EQ(e.clipped, 3);
  EXPECT_EQ(e.count, 5);
}

TEST(QuantizationError, AddsUpToTheWholeErrorPerChannelToo) {
  const Tensor x = Tensor::randn({3, 4, 5}, 3);
  const auto quantizer =
      Quantizer::per_channel({0.01, 0.02, 0.002, 0.1}, {0, 5, -3, 1}, 1, DType::qint8);
  const auto e = debug::split_quantization_error(x, quantizer, DType::qint8);
  ErrorStatistics all;
  all.add(x, quantize(x, quantizer, DType::qint8));
  EXPECT_NEAR(e.total(), all.noise(), 1e-6 * all.noise());
  EXPECT_GT(e.clipping, 0);
  EXPECT_GT(e.rounding, 0);
}

TEST(QuantizationError, FewerCodesClipMore) {
  const Tensor x = Tensor::from<float>({60, -70});
  const auto e = debug::split_quantization_error(x, Quantizer::per_tensor(1, 0, DType::qint8),
                                                 DType::qint8, -64, 63);
  EXPECT_EQ(e.clipped, 1);
  EXPECT_EQ(e.clipping, 36);
}

TEST(QuantizationError, OfAWrongQuantizerIsAnError) {
  expect_error(ErrorCode::invalid_argument, {"does not fit"}, [&] {
    (void)debug::split_quantization_error(
        kX, Quantizer::per_channel({1, 1}, {0, 0}, 0, DType::qint8), DType::qint8);
  });
}

TEST(OperandError, IsTheWeightsOrTheActivationsWhereOnlyTheyAreQuantized) {
  const Tensor x = Tensor::randn({8, 16}, 1), w = Tensor::randn({4, 16}, 2);
  const Tensor xq = quantize(x, Quantizer::per_tensor(0.05, 128, DType::quint8), DType::quint8),
               wq = quantize(w, Quantizer::per_tensor(0.05, 0, DType::qint8), DType::qint8);
  auto linear = [](const Tensor& a, const Tensor& b) { return functional::linear(a, b); };
  const auto both = debug::split_operand_error(linear, x, xq, w, wq),
             weights = debug::split_operand_error(linear, x, x, w, wq),
             activations = debug::split_operand_error(linear, x, xq, w, w);
  EXPECT_EQ(weights.activations, 0);
  EXPECT_EQ(weights.total, weights.weights);
  EXPECT_EQ(activations.weights, 0);
  EXPECT_EQ(activations.total, activations.activations);
  EXPECT_EQ(both.weights, weights.weights);
  EXPECT_EQ(both.activations, activations.activations);
  // Independent errors add as power.
  EXPECT_LT(std::abs(both.interaction()), 0.3 * both.total);
}

TEST(LayerError, InheritedIsWhatIsNotTheLayersOwn) {
  const auto e = debug::split_layer_error(
      Tensor::from<float>({10, 0}), Tensor::from<float>({10, 1}), Tensor::from<float>({8, 1}));
  EXPECT_EQ(e.own, 1);
  EXPECT_EQ(e.total, 5);
  EXPECT_EQ(e.inherited(), 4);
  EXPECT_NEAR(e.own_sqnr(), 20, 1e-12);
}

// Scores whose largest is at these classes, of 4.
Tensor scores_of(const std::vector<int64_t>& classes, const Shape& shape) {
  std::vector<float> v;
  for (const int64_t c : classes)
    for (int64_t k = 0; k < 4; ++k) v.push_back(k == c ? 1.0f : 0.1f * static_cast<float>(k));
  return Tensor::from(v, shape);
}

TEST(Decisions, AgreeWhereTheLargestScoreIsInTheSameClass) {
  const Tensor x = scores_of({0, 1, 2, 3, 3, 3}, {2, 3, 4}),
               y = scores_of({0, 1, 1, 3, 0, 3}, {2, 3, 4});
  const debug::Share share = debug::argmax_agreement(x, y);
  EXPECT_EQ(share.hits, 4);
  EXPECT_EQ(share.count, 6);
  EXPECT_NEAR(share.value(), 4 / 6.0, 1e-12);
  EXPECT_TRUE(std::isnan(debug::Share().value()));
  expect_error(ErrorCode::invalid_argument, {"argmax_agreement", "equal shapes"}, [&] {
    debug::argmax_agreement(x, scores_of({0}, {1, 4}));
  });
}

TEST(Decisions, SequencesAreReadWithoutRepetitionsAndBlanks) {
  const Tensor x = scores_of({1, 1, 0, 1, 2}, {1, 5, 4});  // 1 1 2
  const auto same = [&](const std::vector<int64_t>& classes) {
    return debug::sequence_agreement(x, scores_of(classes, {1, 5, 4})).hits == 1;
  };
  EXPECT_TRUE(same({1, 0, 1, 2, 2}));
  EXPECT_TRUE(same({0, 1, 0, 1, 2}));
  EXPECT_FALSE(same({1, 1, 1, 1, 2})) << "1 2";
  EXPECT_FALSE(same({1, 0, 1, 2, 3}));
  EXPECT_EQ(debug::sequence_agreement(x, scores_of({1, 1, 1, 1, 2}, {1, 5, 4}), 3).hits, 0);
  expect_error(ErrorCode::invalid_argument, {"(N, steps, classes)"}, [&] {
    debug::sequence_agreement(scores_of({1}, {1, 4}), scores_of({1}, {1, 4}));
  });
}

TEST(Metrics, CharactersAgreeButForTheEdits) {
  // float reads 1 2 3; the others 1 3 (one left out), 1 2 2 3 (one put in), 3 2 3 (one changed)
  const Tensor x = scores_of({1, 0, 2, 0, 3}, {1, 5, 4});
  const auto hits = [&](const std::vector<int64_t>& classes) {
    const debug::Share share = debug::character_agreement(x, scores_of(classes, {1, 5, 4}));
    EXPECT_EQ(share.count, 3);
    return share.hits;
  };
  EXPECT_EQ(hits({1, 1, 2, 2, 3}), 3);
  EXPECT_EQ(hits({1, 0, 0, 0, 3}), 2);
  EXPECT_EQ(hits({1, 2, 0, 2, 3}), 2);
  EXPECT_EQ(hits({3, 0, 2, 0, 3}), 2);
  EXPECT_EQ(hits({0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(hits({3, 0, 3, 0, 3}), 1);
}

TEST(Metrics, WordsAgreeButForTheEdits) {
  // float reads "1", "2 2", "1" between spaces (class 3); two spaces end one word, and none is
  // empty
  const Tensor x = scores_of({3, 1, 3, 2, 0, 2, 3, 0, 3, 1}, {1, 10, 4});
  const auto hits = [&](const std::vector<int64_t>& classes) {
    const debug::Share share = debug::word_agreement(x, scores_of(classes, {1, 10, 4}), 3);
    EXPECT_EQ(share.count, 3);
    return share.hits;
  };
  EXPECT_EQ(hits({1, 0, 3, 2, 0, 2, 3, 1, 1, 3}), 3);
  EXPECT_EQ(hits({1, 0, 3, 2, 2, 2, 3, 1, 1, 3}), 2) << "2 for 2 2: one word is changed";
  EXPECT_EQ(hits({1, 0, 3, 2, 3, 2, 3, 1, 1, 3}), 1) << "2, 2 for 2 2: one changed, one put in";
  EXPECT_EQ(hits({1, 0, 0, 2, 0, 2, 3, 1, 1, 3}), 1) << "two words are read as one";
  EXPECT_EQ(hits({0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), 0);
  for (const int64_t space : {0, 4, -1})
    expect_error(ErrorCode::invalid_argument, {"separates words"},
                 [&] { debug::word_agreement(x, x, space); });
}

TEST(Metrics, MasksOverlapByIntersectionOverUnion) {
  const Tensor x = Tensor::from(std::vector<float>{0.9F, 0.5F, 0.1F, 0.4F}, {1, 2, 2}),
               y = Tensor::from(std::vector<float>{0.6F, 0.2F, 0.7F, 0.1F}, {1, 2, 2});
  EXPECT_EQ(debug::mask_overlap(x, y).hits, 1);
  EXPECT_EQ(debug::mask_overlap(x, y).count, 3);
  EXPECT_DOUBLE_EQ(debug::mask_overlap(x, y, 0.4F).value(), 0.25);
  EXPECT_EQ(debug::mask_overlap(x, y, 2).count, 0);
  EXPECT_THROW(debug::mask_overlap(x, y.reshape({4})), Error);
}

TEST(Decisions, TopKCountsLabelsWithFewerThanKLargerScores) {
  const Tensor scores =
      Tensor::from<float>({0.1f, 0.4f, 0.3f, 0.2f, 0.4f, 0.4f, 0.1f, 0.1f}).reshape({2, 4});
  const auto hits = [&](std::vector<int64_t> labels, int64_t k) {
    return debug::top_k(scores, Tensor::from(labels, {2}), k).hits;
  };
  EXPECT_EQ(hits({1, 0}, 1), 2);
  EXPECT_EQ(hits({2, 1}, 1), 0) << "of equal scores the first is the largest";
  EXPECT_EQ(hits({2, 1}, 2), 2);
  EXPECT_EQ(hits({0, 3}, 3), 0);
  EXPECT_EQ(hits({0, 3}, 4), 2);
  expect_error(ErrorCode::invalid_argument, {"label 4 of sample 0"}, [&] { hits({4, 0}, 1); });
  expect_error(ErrorCode::invalid_argument, {"k is 0"}, [&] { hits({1, 0}, 0); });
}

}  // namespace
}  // namespace octet::testing
