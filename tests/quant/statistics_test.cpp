// What calibration has seen, as a value: parts merge to the whole.
#include "octet/quant/workflow/statistics.h"

#include "octet/graph/graph.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::testing {
namespace {

using quant::CalibrationStatistics;

std::shared_ptr<quant::ObservedGraphModule> prepared_net(uint64_t seed,
                                                         const std::string& observer = "") {
  const graph::Graph g = random_net(seed, true, 6);
  quant::QConfig qconfig = quant::get_default_qconfig();
  if (!observer.empty()) qconfig.activation = quant::ObserverFactory(observer);
  return quant::prepare_fx(g, qconfig);
}

Tensor sample(int64_t i) { return Tensor::randn({1, 3, 6, 6}, static_cast<uint64_t>(100 + i)); }

void show(quant::ObservedGraphModule& prepared, std::initializer_list<int64_t> samples) {
  for (const int64_t i : samples) {
    prepared.set_next_sample(i);
    prepared.forward({sample(i)});
  }
}

std::string converted(const std::shared_ptr<quant::ObservedGraphModule>& prepared) {
  return graph::print(quant::convert_fx(prepared)->graph());
}

TEST(Statistics, PartsMergeToWhatOneCalibrationSees) {
  for (const std::string observer : {"", "histogram", "minmax", "percentile", "entropy", "mse"})
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      SCOPED_TRACE(::testing::Message() << observer << ", seed " << seed);
      const auto whole = prepared_net(seed, observer);
      show(*whole, {0, 1, 2, 3, 4});
      const auto a = prepared_net(seed, observer), b = prepared_net(seed, observer);
      show(*a, {1, 4});
      show(*b, {0, 2, 3});
      auto merged = CalibrationStatistics::of(*b);
      merged.merge(CalibrationStatistics::of(*a));
      merged.give_to(*a);
      EXPECT_EQ(converted(a), converted(whole));
    }
}

TEST(Statistics, RangesOfPartsNameTheSameSamples) {
  const auto whole = prepared_net(2), a = prepared_net(2), b = prepared_net(2);
  show(*whole, {0, 1, 2, 3});
  show(*a, {0, 3});
  show(*b, {1, 2});
  auto merged = CalibrationStatistics::of(*a);
  merged.merge(CalibrationStatistics::of(*b));
  merged.give_to(*a);
  ASSERT_FALSE(whole->ranges().by_value().empty());
  for (const auto& [value, r] : whole->ranges().by_value()) {
    const auto* got = a->ranges().find(value);
    ASSERT_TRUE(got);
    EXPECT_EQ(got->largest_sample, r.largest_sample) << value;
    EXPECT_EQ(got->values, r.values);
    EXPECT_EQ(got->all().min, r.all().min);
    EXPECT_EQ(got->all().max, r.all().max);
  }
}

TEST(Statistics, TensorsAndDescriptionHoldAllOfThem) {
  const auto a = prepared_net(3), b = prepared_net(3);
  show(*a, {0, 1});
  const auto s = CalibrationStatistics::of(*a);
  CalibrationStatistics::from(s.tensors(), s.description()).give_to(*b);
  EXPECT_EQ(converted(b), converted(a));
}

TEST(Statistics, GivingThemReplacesWhatWasSeen) {
  const auto a = prepared_net(3), b = prepared_net(3);
  show(*a, {0, 1});
  show(*b, {2, 3});
  CalibrationStatistics::of(*a).give_to(*b);
  EXPECT_EQ(converted(b), converted(a));
}

TEST(Statistics, OfAnotherObserverAreAnErrorThatChangesNothing) {
  const auto a = prepared_net(3), b = prepared_net(3, "minmax");
  show(*a, {0});
  show(*b, {1});
  const std::string before = converted(b);
  auto s = CalibrationStatistics::of(*b);
  expect_error(ErrorCode::invalid_argument, {"statistics of", "MinMaxObserver"},
               [&] { CalibrationStatistics::of(*a).give_to(*b); });
  expect_error(ErrorCode::invalid_argument, {"cannot merge"},
               [&] { s.merge(CalibrationStatistics::of(*a)); });
  s.give_to(*b);
  EXPECT_EQ(converted(b), before);
}

TEST(Statistics, DamagedOnesAreAnError) {
  const auto a = prepared_net(3);
  show(*a, {0});
  const auto s = CalibrationStatistics::of(*a);
  auto tensors = s.tensors();
  const std::string victim = tensors.begin()->first;
  tensors.erase(victim);
  expect_error(ErrorCode::corrupt, {"missing"},
               [&] { CalibrationStatistics::from(tensors, s.description()); });
  expect_error(ErrorCode::corrupt, {"calibration statistics"},
               [&] { CalibrationStatistics::from(s.tensors(), "[]"); });
  expect_error(ErrorCode::corrupt, {"class and config"},
               [&] { CalibrationStatistics::from(s.tensors(), R"({"x": {"class": 3}})"); });
}

TEST(Statistics, TheDigestIsOfNetworkAndOptions) {
  const std::string digest = quant::digest_of(*prepared_net(1));
  EXPECT_EQ(digest, quant::digest_of(*prepared_net(1)));
  EXPECT_NE(digest, quant::digest_of(*prepared_net(2)));
  EXPECT_NE(digest, quant::digest_of(*prepared_net(1, "minmax")));
}

TEST(Statistics, MovingAveragesDependOnTheOrder) {
  EXPECT_EQ(quant::order_dependent_observer(*prepared_net(1)), "");
  EXPECT_NE(quant::order_dependent_observer(*prepared_net(1, "moving-average")), "");
}

}  // namespace
}  // namespace octet::testing
