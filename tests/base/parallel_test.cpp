#include "octet/base/parallel.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "octet/base/cpu.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

// Sets the number of threads for a test, which run also where there are fewer CPUs, and puts it
// back.
struct Threads {
  int before = num_threads();
  explicit Threads(int n) {
    detail::assume_cpus(n);
    set_num_threads(n);
  }
  ~Threads() {
    use_own_threads();
    detail::assume_cpus(0);
    set_num_threads(before);
  }
};

// The threads that come to 64 tasks, each of which waits a moment for others.
size_t threads_seen() {
  std::mutex mutex;
  std::set<std::thread::id> ids;
  parallel_for(64, [&](int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  return ids.size();
}

// What fn returns in a child; -1 if the child does not end within 20 seconds or ends otherwise.
int in_child(const std::function<int()>& fn) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    _exit(fn());
  }
  int status = 0;
  return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Parallel, RunsEveryTaskOnce) {
  for (int threads : {1, 2, 3, 8}) {
    Threads scope(threads);
    for (int64_t n : {0, 1, 2, 3, 7, 1000}) {
      std::vector<std::atomic<int>> count(static_cast<size_t>(n));
      parallel_for(n, [&](int64_t i) { ++count[static_cast<size_t>(i)]; });
      for (auto& c : count) EXPECT_EQ(c.load(), 1) << threads << " threads, " << n << " tasks";
    }
  }
}

TEST(Parallel, RoundsThatFollowAtOnceDoNotMix) {
  for (int threads : {2, 5}) {
    Threads scope(threads);
    std::vector<int> last(7, -1);
    for (int round = 0; round < 2000; ++round) {
      parallel_for(7, [&](int64_t i) {
        last[static_cast<size_t>(i)] += last[static_cast<size_t>(i)] == round - 1 ? 1 : 1000000;
      });
      ASSERT_EQ(last, std::vector<int>(7, round)) << threads << " threads";
    }
  }
}

TEST(Parallel, ThreadsComeBackFromSleep) {
  Threads scope(3);
  for (int round = 0; round < 3; ++round) {
    start_threads();
    rest_threads();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> waiting{0};
    // Each waits for the others (for a while).
    parallel_for(3, [&](int64_t) {
      ++waiting;
      for (int i = 0; i < 5000 && waiting < 3; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      EXPECT_EQ(waiting, 3);
    });
  }
}

TEST(Parallel, UsesSeveralThreads) {
  Threads scope(2);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  std::atomic<int> waiting{0};
  parallel_for(2, [&](int64_t) {
    ++waiting;
    // Each waits for the other (for a while): both can only get here together if there are two
    // threads.
    for (int i = 0; i < 5000 && waiting < 2; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(ids.size(), 2u);
}

TEST(Parallel, NestsWithoutDeadlock) {
  Threads scope(4);
  std::atomic<int> total{0};
  parallel_for(8, [&](int64_t) {
    parallel_for(8, [&](int64_t) {
      parallel_ranges(4, 1, [&](int64_t b, int64_t e) { total += static_cast<int>(e - b); });
    });
  });
  EXPECT_EQ(total, 8 * 8 * 4);
}

TEST(Parallel, SeveralCallersAtOnce) {
  Threads scope(3);
  std::atomic<int> total{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t)
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) parallel_for(10, [&](int64_t) { ++total; });
    });
  for (auto& c : callers) c.join();
  EXPECT_EQ(total, 4 * 50 * 10);
}

TEST(Parallel, WhatHasNotBegunWhenATaskFailsIsLeftOut) {
  const Threads threads(2);
  std::atomic<int> ran{0};
  EXPECT_THROW(parallel_for(1000,
                            [&](int64_t) {
                              if (ran++ == 0) fail(ErrorCode::io, "x");
                              std::this_thread::sleep_for(std::chrono::milliseconds(1));
                            }),
               Error);
  EXPECT_LT(ran, 900);
}

TEST(Parallel, RethrowsTheTasksError) {
  for (int threads : {1, 4}) {
    Threads scope(threads);
    testing::expect_error(ErrorCode::corrupt, {"task 5"}, [] {
      parallel_for(100, [](int64_t i) {
        if (i == 5) fail(ErrorCode::corrupt, "task 5");
      });
    });
    std::atomic<int> n{0};  // and the pool still works
    parallel_for(10, [&](int64_t) { ++n; });
    EXPECT_EQ(n, 10);
  }
}

TEST(Parallel, ANestedErrorReachesTheOutside) {
  Threads scope(2);
  EXPECT_THROW(parallel_for(4,
                            [](int64_t) {
                              parallel_for(4, [](int64_t i) {
                                if (i == 2) fail(ErrorCode::io, "x");
                              });
                            }),
               Error);
}

TEST(Parallel, RangesCoverEverythingInOrderAndAreCoarse) {
  for (int threads : {1, 2, 5}) {
    Threads scope(threads);
    for (int64_t n : {0, 1, 9, 100, 1001})
      for (int64_t grain : {0, 1, 10, 2000}) {
        std::mutex mutex;
        std::set<std::pair<int64_t, int64_t>> ranges;
        parallel_ranges(n, grain, [&](int64_t begin, int64_t end) {
          std::lock_guard lock(mutex);
          ranges.insert({begin, end});
        });
        EXPECT_LE(static_cast<int>(ranges.size()), threads);
        int64_t at = 0;
        for (auto [begin, end] : ranges) {
          EXPECT_EQ(begin, at);
          EXPECT_LT(begin, end);
          at = end;
        }
        EXPECT_EQ(at, n) << n << " by " << grain;
      }
  }
}

TEST(Parallel, NoMoreThreadsRunThanThereAreCpus) {
  Threads scope(64);
  detail::assume_cpus(2);
  EXPECT_EQ(num_threads(), 64);
  EXPECT_EQ(running_threads(), 2);
  EXPECT_LE(threads_seen(), 2u);
  detail::assume_cpus(1);
  EXPECT_EQ(threads_seen(), 1u);
  detail::assume_cpus(0);
  EXPECT_EQ(running_threads(), std::min(64, usable_cpus()));
}

TEST(ParallelFork, AChildHasThreadsOfItsOwn) {
  for (bool openmp : {false, true}) {
#ifdef __SANITIZE_THREAD__
    if (openmp) GTEST_SKIP() << "ThreadSanitizer takes a child's OpenMP threads for the parent's";
#endif
    Threads scope(3);
    if (openmp) use_openmp_threads();
    EXPECT_GT(threads_seen(), 1u);
    // Twice, and a child of a child; the parent's go on.
    for (int round = 0; round < 2; ++round) {
      EXPECT_EQ(in_child([] {
                  const bool several = threads_seen() > 1;
                  return several && in_child([] { return threads_seen() > 1 ? 7 : 8; }) == 7 ? 7
                                                                                             : 8;
                }),
                7)
          << (openmp ? "OpenMP's" : "our own");
      EXPECT_GT(threads_seen(), 1u);
    }
    use_own_threads();
  }
}

TEST(ParallelFork, AlsoWhileAnotherThreadWorks) {
#ifdef __SANITIZE_ADDRESS__
  // The other thread may hold that lock at the moment of the fork. A new thread of the child then
  // waits for it for ever, before it runs any code of octet's.
  GTEST_SKIP() << "GCC 12's AddressSanitizer does not free its allocator's lock in a child";
#endif
  Threads scope(2);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop)
      parallel_for(4, [](int64_t) { std::this_thread::sleep_for(std::chrono::microseconds(50)); });
  });
  // The first call does not wait for a thread that has not started: ThreadSanitizer makes it slow.
  const auto sees_two = [] {
    for (int call = 0; call < 20; ++call)
      if (threads_seen() == 2) return 7;
    return 8;
  };
  for (int round = 0; round < 20; ++round) EXPECT_EQ(in_child(sees_two), 7);
  stop = true;
  other.join();
}

TEST(Parallel, RejectsImpossibleThreadCounts) {
  int before = num_threads();
  for (int n : {0, -1, 100000})
    testing::expect_error(ErrorCode::invalid_argument, {std::to_string(n)},
                          [&] { set_num_threads(n); });
  EXPECT_EQ(num_threads(), before);
}

}  // namespace
// wake_cost() is 8 where OpenMP's threads are taken and sleep.
TEST(Parallel, OpenMPsThreadsAreTakenByTheThreadThatAskedForThem) {
  const Threads scope(2);
  std::thread other([] {
    use_openmp_threads();
    EXPECT_EQ(wake_cost(), 8);
  });
  other.join();
  EXPECT_EQ(wake_cost(), 1);
}

TEST(Parallel, OpenMPsThreadsSpinOnlyWhereOurOwnWereNotWantedJustNow) {
  const Threads scope(2);
  use_own_threads();
  use_openmp_threads();
  {
    const SpinningThreads taking_turns;
    EXPECT_EQ(wake_cost(), 8);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(25));
  const SpinningThreads alone;
  EXPECT_EQ(wake_cost(), 1);
}

// Whoever takes OpenMP's threads where they should sleep has more of them started and waits until
// they are there; whoever wants them to spin ends those, perhaps before they are there.
TEST(Parallel, ThreadsTakenAndGivenBackByManyAtOnceDoNotWaitForever) {
  const Threads scope(2);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      for (int round = 0; round < 800; ++round) {
        use_openmp_threads();
        const SpinningThreads spin;
      }
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace octet
