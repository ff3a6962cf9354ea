#include "octet/engine/native/schedule_impl.h"

#include <gtest/gtest.h>

#include <array>
#include <mutex>
#include <vector>

namespace octet::native {
namespace {

TEST(SplitMatrix, EveryElementIsInOneTask) {
  for (const int64_t m : {1, 7, 49, 300})
    for (const int64_t n : {1, 16, 100}) {
      constexpr int64_t kImages = 3;
      std::vector<int> times(static_cast<size_t>(kImages * m * n));
      std::mutex mutex;
      split_matrix(kImages, m, n, 4, 16, 100'000,
                   [&](int64_t image, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                     const std::lock_guard lock(mutex);
                     for (int64_t i = m0; i < m1; ++i)
                       for (int64_t j = n0; j < n1; ++j)
                         ++times[static_cast<size_t>((image * m + i) * n + j)];
                   });
      EXPECT_EQ(times, std::vector<int>(times.size(), 1)) << m << " x " << n;
    }
}

TEST(SplitMatrix, OfNothingThereIsNoTask) {
  for (const auto& [images, m, n] : {std::array{0, 4, 16}, {1, 0, 16}, {1, 4, 0}})
    split_matrix(images, m, n, 4, 16, 1,
                 [](int64_t, int64_t, int64_t, int64_t, int64_t) { ADD_FAILURE(); });
}

}  // namespace
}  // namespace octet::native
