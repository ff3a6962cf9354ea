#include "octet/quant/algorithms/weight_ranges.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/base/random.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;

// A linear layer of 2 outputs; the first has one weight far larger than all others.
Graph outlier_net() {
  std::vector<float> w = Tensor::randn({2, 256}, 1).to_vector<float>();
  w[7] = 6;
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(256)}));
  const ValueId y =
      g.add_call("y", "linear", {x, g.add_constant("y.weight", Tensor::from(w, {2, 256}))});
  g.set_outputs({y});
  return g;
}

std::shared_ptr<quant::ObservedGraphModule> prepared_with(bool per_channel) {
  quant::QConfig q = quant::get_default_qconfig(per_channel ? "native" : "qnnpack");
  const quant::ObserverFactory of_all =
      per_channel ? quant::default_per_channel_weight_observer() : quant::default_weight_observer();
  q.weight = of_all.with_quant_range(-8, 7);
  auto prepared = quant::prepare_fx(outlier_net(), quant::QConfigMapping(q));
  prepared->forward(Tensor::randn({8, 256}, 2));
  return prepared;
}

// The weight that convert_fx gives the layer, in float.
std::vector<float> converted_weight(const std::shared_ptr<quant::ObservedGraphModule>& prepared) {
  const Graph g = quant::convert_fx(prepared)->graph();
  return g.constant(*g.find("y.weight")).dequantize().to_vector<float>();
}

double error_of(const std::vector<float>& got, size_t begin, size_t end) {
  const std::vector<float> w = outlier_net().constant(1).to_vector<float>();
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += std::pow(double(w[i]) - double(got[i]), 2);
  return sum;
}

TEST(WeightRanges, TheLeastErrorOfAllRangesTried) {
  for (bool per_channel : {true, false}) {
    auto prepared = prepared_with(per_channel);
    const double before = error_of(converted_weight(prepared), 0, 512);
    quant::choose_weight_ranges(*prepared);
    const double after = error_of(converted_weight(prepared), 0, 512);
    EXPECT_LT(after, 0.95 * before);
    // None of the ranges of a grid is better.
    for (int percent = 1; percent <= 100; ++percent) {
      auto other = prepared_with(per_channel);
      const std::vector<float> w = outlier_net().constant(1).to_vector<float>();
      std::vector<float> min, max;
      for (size_t c = 0; c < (per_channel ? 2u : 1u); ++c) {
        const auto begin = w.begin() + (per_channel ? static_cast<std::ptrdiff_t>(256 * c) : 0),
                   end = per_channel ? begin + 256 : w.end();
        min.push_back(*std::min_element(begin, end) * 0.01F * static_cast<float>(percent));
        max.push_back(*std::max_element(begin, end) * 0.01F * static_cast<float>(percent));
      }
      other->set_weight("y", {}, min, max);
      EXPECT_GE(error_of(converted_weight(other), 0, 512), after - 1e-3) << percent;
    }
  }
}

TEST(WeightRanges, WeightsStayAsTheyAre) {
  auto prepared = prepared_with(true);
  quant::choose_weight_ranges(*prepared, {.criterion = quant::WeightRangeCriterion::octav});
  const Graph now = prepared->watched().graph;
  EXPECT_TRUE(equal(now.constant(*now.find("y.weight")), outlier_net().constant(1)));
}

// The fixed point is where the derivative of 4^-b/3 s^2 P(|w| <= s) + E[(|w| - s)^2, |w| > s]
// vanishes but for what the limit of P adds, which few bits make visible.
TEST(WeightRanges, OctavHasTheLeastExpectedError) {
  const std::vector<float> w = Tensor::randn({20000}, 3).to_vector<float>();
  for (double bits : {3.0, 4.0, 8.0}) {
    const auto expected_error = [&](double s) {
      double sum = 0;
      for (float v : w) {
        const double x = std::abs(double(v));
        sum += x > s ? (x - s) * (x - s) : std::pow(4.0, -bits) / 3 * s * s;
      }
      return sum;
    };
    const double clip = quant::octav_clip(w, bits);
    for (double factor : {0.7, 0.9, 1.1, 1.3})
      EXPECT_LT(expected_error(clip), expected_error(factor * clip)) << bits << " " << factor;
  }
  EXPECT_EQ(quant::octav_clip({0, 0}, 4), 0);
}

}  // namespace
}  // namespace octet::testing
