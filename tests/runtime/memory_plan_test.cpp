#include "octet/runtime/memory_plan.h"

#include <gtest/gtest.h>

#include "octet/base/buffer.h"
#include "octet/base/random.h"

namespace octet::runtime {
namespace {

size_t padded(size_t bytes) { return (bytes + kBufferSlack + 63) / 64 * 64; }

std::vector<Lifetime> random_blocks(Random& random) {
  std::vector<Lifetime> blocks(random.integer(0, 30));
  for (Lifetime& b : blocks) {
    b.bytes = random.integer(0, 3) ? random.integer(0, 300) : random.integer(0, 100000);
    b.first = static_cast<int>(random.integer(0, 20));
    b.last = b.first + static_cast<int>(random.integer(0, 6));
  }
  return blocks;
}

}  // namespace

TEST(MemoryPlan, BlocksThatLiveAtTheSameTimeAreDisjointAndHaveSlack) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    auto blocks = random_blocks(random);
    MemoryPlan plan = plan_memory(blocks);
    ASSERT_EQ(plan.offsets.size(), blocks.size());
    size_t sum = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
      sum += padded(blocks[i].bytes);
      ASSERT_EQ(plan.offsets[i] % 64, 0u) << seed;
      ASSERT_LE(plan.offsets[i] + blocks[i].bytes + kBufferSlack, plan.total) << seed;
      for (size_t j = 0; j < i; ++j) {
        if (blocks[i].last < blocks[j].first || blocks[j].last < blocks[i].first) continue;
        bool apart = plan.offsets[i] + blocks[i].bytes + kBufferSlack <= plan.offsets[j] ||
                     plan.offsets[j] + blocks[j].bytes + kBufferSlack <= plan.offsets[i];
        ASSERT_TRUE(apart) << "seed " << seed << " blocks " << j << " and " << i;
      }
    }
    ASSERT_LE(plan.total, sum) << seed;
  }
}

TEST(MemoryPlan, NeedsAtLeastWhatLivesAtOnceAndForAChainNoMore) {
  // x0 -> x1 -> x2 ...: two live at any time.
  std::vector<Lifetime> chain;
  for (int i = 0; i < 10; ++i) chain.push_back({1000, i, i + 1});
  EXPECT_EQ(plan_memory(chain).total, 2 * padded(1000));
}

TEST(MemoryPlan, BlocksThatNeverLiveTakeNoRoom) {
  EXPECT_EQ(plan_memory({}).total, 0u);
  EXPECT_EQ(plan_memory({{100, -1, -2}, {5000, 3, 2}}).total, 0u);
  EXPECT_EQ(plan_memory({{100, 0, 0}, {5000, -1, -2}}).total, padded(100));
}

TEST(MemoryPlan, IsTheSameEveryTime) {
  Random random(7);
  auto blocks = random_blocks(random);
  EXPECT_EQ(plan_memory(blocks).offsets, plan_memory(blocks).offsets);
}

}  // namespace octet::runtime
