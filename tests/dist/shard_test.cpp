// Parts of a calibration: which samples they are of, how they merge, and their files.
#include "octet/dist/shard.h"

#include "octet/quant/workflow/fx.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using dist::Plan;
using dist::Shard;

Shard part(std::initializer_list<int64_t> batches, const Plan& plan = debug::make_plan(10, 2)) {
  const auto prepared = quant::prepare_fx(random_net(4, true, 5), quant::get_default_qconfig());
  Shard shard{.network = quant::digest_of(*prepared), .data = "somewhere", .plan = plan};
  for (const int64_t b : batches) {
    const int64_t begin = b * plan.step, end = std::min(begin + plan.step, plan.samples);
    prepared->forward({Tensor::randn({end - begin, 3, 6, 6}, static_cast<uint64_t>(b + 1))});
    (begin < plan.half ? shard.first : shard.second)
        .merge(quant::CalibrationStatistics::of(*prepared));
    quant::forget_calibration(*prepared);
    shard.add_seen(begin, end);
  }
  return shard;
}

TEST(Shard, APlanKeepsTheFirstHalfApart) {
  EXPECT_EQ(debug::make_plan(10, 2), (Plan{10, 2, 4}));
  EXPECT_EQ(debug::make_plan(64, 32), (Plan{64, 32, 32}));
  EXPECT_EQ(debug::make_plan(3, 8), (Plan{3, 8, 0}));
  EXPECT_EQ(debug::make_plan(10, 3).batches(), 4);
  expect_error(ErrorCode::invalid_argument, {"0 samples"}, [] { debug::make_plan(0, 1); });
}

TEST(Shard, SamplesThatFollowEachOtherAreOneInterval) {
  Shard s{.plan = {10, 2, 4}};
  s.add_seen(4, 6);
  s.add_seen(0, 2);
  s.add_seen(2, 4);
  EXPECT_EQ(s.seen, (std::vector<std::pair<int64_t, int64_t>>{{0, 6}}));
  EXPECT_TRUE(s.has_seen(5));
  EXPECT_FALSE(s.has_seen(6));
  EXPECT_EQ(s.count(), 6);
}

TEST(Shard, MergesInAnyOrderToTheSameBytes) {
  const Shard a = part({0, 3}), b = part({1, 4}), c = part({2});
  Shard abc = a, cba = c;
  abc.merge(b);
  abc.merge(c);
  cba.merge(b);
  cba.merge(a);
  EXPECT_EQ(abc.to_bytes(), cba.to_bytes());
  EXPECT_EQ(abc.to_bytes(), part({0, 1, 2, 3, 4}).to_bytes());
  abc.require_whole("stats");
}

TEST(Shard, MissingSamplesAreNamed) {
  Shard s = part({0, 3});
  expect_error(ErrorCode::invalid_argument, {"stats", "2 to 5, 8 to 9 of 10", "missing"},
               [&] { s.require_whole("stats"); });
}

TEST(Shard, WhatDoesNotFitTogetherIsAnErrorThatChangesNothing) {
  Shard s = part({0, 1});
  const std::string before = s.to_bytes();
  expect_error(ErrorCode::invalid_argument, {"samples 2 to 3"}, [&] { s.merge(part({1, 2})); });
  expect_error(ErrorCode::invalid_argument, {"different calibrations"},
               [&] { s.merge(part({2}, debug::make_plan(12, 2))); });
  Shard other = part({2});
  other.network = "another";
  expect_error(ErrorCode::invalid_argument, {"different networks"}, [&] { s.merge(other); });
  EXPECT_EQ(s.to_bytes(), before);
}

TEST(Shard, AFileHoldsAllOfIt) {
  TempDir dir;
  const Shard s = part({0, 4});
  dist::save_shard(dir / "stats", s);
  EXPECT_EQ(dist::load_shard(dir / "stats").to_bytes(), s.to_bytes());
}

TEST(Shard, ADamagedFileIsAnErrorThatNamesIt) {
  TempDir dir;
  dist::save_shard(dir / "stats", part({0}));
  const std::string bytes = slurp(dir / "stats");
  for (size_t at = 9; at < bytes.size(); at += 97) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 16);
    spill(dir / "stats", damaged);
    expect_error(ErrorCode::corrupt, {"stats"}, [&] { dist::load_shard(dir / "stats"); });
  }
  spill(dir / "stats", bytes.substr(0, bytes.size() / 2));
  expect_error(ErrorCode::corrupt, {"stats"}, [&] { dist::load_shard(dir / "stats"); });
  expect_error(ErrorCode::not_found, {"none"}, [&] { dist::load_shard(dir / "none"); });
}

TEST(Shard, AMessageThatEndsTooEarlyIsAnError) {
  const std::string bytes = part({0}).to_bytes();
  expect_error(ErrorCode::corrupt, {"message"},
               [&] { Shard::from_bytes(bytes.substr(0, bytes.size() - 3)); });
}

}  // namespace
}  // namespace octet::testing
