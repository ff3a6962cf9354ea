#include "octet/base/buffer.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "octet/base/parallel.h"

namespace octet {
namespace {

constexpr size_t kSize = size_t{1} << 20;

TEST(Buffer, FreedBlocksAreUsedAgainWhileTheyAreKept) {
  KeepFreedBlocks keep;
  const void* first = Buffer::allocate(kSize).data();
  Buffer again = Buffer::allocate(kSize), other = Buffer::allocate(kSize);
  EXPECT_EQ(again.data(), first);
  EXPECT_NE(other.data(), first);
}

TEST(Buffer, KnowsWhetherItIsTheOnlyOne) {
  EXPECT_FALSE(Buffer().is_only_one());
  Buffer buffer = Buffer::allocate(kSize);
  EXPECT_TRUE(buffer.is_only_one());
  {
    const Buffer copy = buffer;
    EXPECT_FALSE(buffer.is_only_one());
  }
  EXPECT_TRUE(buffer.is_only_one());
}

TEST(Buffer, TheLastKeeperGivesBlocksBackAndBuffersOutliveIt) {
  Buffer survivor;
  {
    KeepFreedBlocks outer;
    {
      KeepFreedBlocks inner(outer);
      survivor = Buffer::allocate(kSize);
      Buffer::allocate(2 * kSize);
    }
    Buffer::allocate(2 * kSize);
  }
  survivor.data()[kSize - 1] = std::byte{1};
}

TEST(Buffer, KeepingIsSafeFromManyThreads) {
  KeepFreedBlocks keep;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) {
        Buffer b = Buffer::allocate(kSize / 8);
        b.data()[0] = static_cast<std::byte>(t);
        KeepFreedBlocks more;
        ASSERT_EQ(b.data()[0], static_cast<std::byte>(t));
      }
    });
  for (auto& t : threads) t.join();
}

// From here on this process takes OpenMP's threads: all promises hold there too.
TEST(ZOpenMp, ParallelForIsTheSameOnOpenMpsThreads) {
  use_openmp_threads();
  for (int n : {1, 3}) {
    set_num_threads(n);
    std::vector<int> done(1000);
    parallel_for(1000, [&](int64_t i) {
      parallel_for(3, [&](int64_t) { ++done[static_cast<size_t>(i)]; });
    });
    EXPECT_EQ(done, std::vector<int>(1000, 3));
    EXPECT_THROW(parallel_for(10,
                              [](int64_t i) {
                                if (i == 7) throw std::runtime_error("x");
                              }),
                 std::runtime_error);
  }
  set_num_threads(1);
}

}  // namespace
}  // namespace octet
