#include "octet/base/parallel.h"

#include <omp.h>
#include <pthread.h>
#include <pthreadpool.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

// The cores that the calling thread may run on; none if the system does not say.
cpu_set_t allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
  return set;
}

int usable_cores() {
  const cpu_set_t set = allowed_cores();
  return std::max(1, CPU_COUNT(&set));
}

int initial_threads() {
  if (const char* text = std::getenv("OCTET_NUM_THREADS"); text && *text) {
    char* end = nullptr;
    long n = std::strtol(text, &end, 10);
    OCTET_CHECK(*end == 0 && n >= 1 && n <= 1024, invalid_argument,
                "OCTET_NUM_THREADS={}: expected a whole number from 1 to 1024", text);
    return static_cast<int>(n);
  }
  return usable_cores();
}

// Makes a pool of threads. The system may put a new thread on the core of its maker, where it waits for milliseconds while its maker
// spins, waiting for it, and leave it there. So another thread makes the pool, which starts on another core than the caller's, and each
// worker of the pool moves to a core of its own; afterwards they are free to move.
class PoolMaker {
 public:
  explicit PoolMaker(int threads) : threads_(threads), all_(allowed_cores()), others_(all_) {
    if (const int core = sched_getcpu(); core >= 0 && core < CPU_SETSIZE) CPU_CLR(core, &others_);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    const bool spread = CPU_COUNT(&others_) > 0 && pthread_attr_setaffinity_np(&attributes, sizeof others_, &others_) == 0;
    auto run = [](void* self) -> void* {
      static_cast<PoolMaker*>(self)->make(true);
      return nullptr;
    };
    running_ = spread && pthread_create(&thread_, &attributes, run, this) == 0;
    pthread_attr_destroy(&attributes);
    if (!running_) make(false);
  }
  ~PoolMaker() {
    if (pthreadpool_t pool = take()) pthreadpool_destroy(pool);
  }
  PoolMaker(const PoolMaker&) = delete;

  int threads() const { return threads_; }
  bool done() const { return done_.load(std::memory_order_acquire); }
  // The pool, once; waits for it. Null if there can be none.
  pthreadpool_t take() {
    if (running_) pthread_join(thread_, nullptr);
    running_ = false;
    return std::exchange(pool_, nullptr);
  }

 private:
  void make(bool spread) {
    pool_ = pthreadpool_create(static_cast<size_t>(threads_));
    if (pool_ && spread && pthreadpool_get_threads_count(pool_) == static_cast<size_t>(threads_)) {
      maker_ = pthread_self();
      auto settle = [](void* self, size_t) { static_cast<PoolMaker*>(self)->settle(); };
      pthreadpool_parallelize_1d(pool_, settle, this, static_cast<size_t>(threads_), 0);
    }
    done_.store(true, std::memory_order_release);
  }
  // A task for each thread of the pool: none returns before all have come, so that none gets two.
  void settle() {
    std::unique_lock lock(mutex_);
    if (!pthread_equal(pthread_self(), maker_)) {
      int n = workers_++ % CPU_COUNT(&others_), core = 0;
      while (!CPU_ISSET(core, &others_) || n-- > 0) ++core;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(core, &one);
      sched_setaffinity(0, sizeof one, &one);
      sched_setaffinity(0, sizeof all_, &all_);
    }
    if (++settled_ == threads_) all_settled_.notify_all();
    all_settled_.wait(lock, [&] { return settled_ == threads_; });
  }

  const int threads_;
  const cpu_set_t all_;
  cpu_set_t others_;
  pthread_t thread_{}, maker_{};
  bool running_ = false;
  pthreadpool_t pool_ = nullptr;
  std::atomic<bool> done_{false};
  std::mutex mutex_;
  std::condition_variable all_settled_;
  int workers_ = 0, settled_ = 0;
};

// The pool is made at its first use, or when start_threads asks for it, and replaced when the thread count changes. The mutex lets one
// caller in; any other (a second thread, or a nested call) runs its work inline.
struct Pool {
  std::mutex mutex;
  std::atomic<int> threads{0};
  std::unique_ptr<PoolMaker> maker;  // while a pool is made
  pthreadpool_t pool = nullptr;
  int pool_threads = 0;

  // Starts making a pool of this size unless there is one.
  void start(int wanted) {
    if (pool_threads == wanted || (maker && maker->threads() == wanted)) return;
    maker = std::make_unique<PoolMaker>(wanted);
  }
  // Whether the pool has this size now. One that was asked for in time is not waited for.
  bool ready(int wanted) {
    if (pool_threads == wanted) return pool != nullptr;
    const bool asked_before = maker != nullptr && maker->threads() == wanted;
    start(wanted);
    if (asked_before && !maker->done()) return false;
    if (pool) pthreadpool_destroy(pool);
    pool = maker->take();
    pool_threads = wanted;
    maker.reset();
    return pool != nullptr;
  }
  ~Pool() {
    maker.reset();
    if (pool) pthreadpool_destroy(pool);
  }
};

Pool& the_pool() {
  static Pool pool;
  return pool;
}

thread_local bool t_inside = false;
std::atomic<bool> g_openmp{false};

struct Work {
  void (*call)(void*, int64_t);
  void* context;
  std::exception_ptr error;
  std::atomic<bool> failed{false};
};

void run_task(void* context, size_t i) {
  auto& work = *static_cast<Work*>(context);
  bool outer = t_inside;
  t_inside = true;
  try {
    if (!work.failed.load(std::memory_order_relaxed)) work.call(work.context, static_cast<int64_t>(i));
  } catch (...) {
    if (!work.failed.exchange(true)) work.error = std::current_exception();
  }
  t_inside = outer;
}

}  // namespace

int num_threads() {
  auto& pool = the_pool();
  int n = pool.threads.load(std::memory_order_relaxed);
  if (n == 0) {
    std::lock_guard lock(pool.mutex);
    n = pool.threads.load();
    if (n == 0) {
      n = initial_threads();
      omp_set_num_threads(n);
      pool.threads.store(n);
    }
  }
  return n;
}

void set_num_threads(int n) {
  OCTET_CHECK(n >= 1 && n <= 1024, invalid_argument, "set_num_threads({}): expected 1 to 1024", n);
  auto& pool = the_pool();
  std::lock_guard lock(pool.mutex);
  pool.threads.store(n);
  omp_set_num_threads(n);
}

namespace {
// GNU's OpenMP lets threads that wait for work spin for milliseconds, unless there are more of them than cores: then for a
// microsecond. On a machine that has anything else to do, spinning takes the cores from the very work that is waited for (a
// training step on two threads took ten times as long as on one). There is no call to change that, only environment variables
// that are read before we are loaded. So, where threads should sleep, there are more of them: a team of two that does nothing.
class SleepingTeam {
 public:
  void start() {
    if (running_.load(std::memory_order_relaxed)) return;
    std::lock_guard lock(mutex_);
    if (running_.exchange(true)) return;
    std::thread([this, life = life_] {
      int threads = 0;
#pragma omp parallel num_threads(2) reduction(+ : threads)
      ++threads;
      std::unique_lock own(mutex_);
      ended_.wait(own, [&] { return threads == 0 || life_ != life; });
    }).detach();
  }
  void end() {
    if (!running_.load(std::memory_order_relaxed)) return;
    {
      std::lock_guard lock(mutex_);
      running_ = false;
      ++life_;
    }
    ended_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  std::atomic<bool> running_{false};
  int life_ = 0;
};

SleepingTeam& sleeping_team() {
  static auto* team = new SleepingTeam;  // never destroyed: its thread may outlive main
  return *team;
}

std::atomic<int> g_spinning{0};
}  // namespace

void use_openmp_threads() {
  if (g_spinning.load(std::memory_order_relaxed) == 0 && num_threads() > 1) sleeping_team().start();
  if (g_openmp.load(std::memory_order_relaxed)) return;
  rest_threads();
  g_openmp = true;
}

void use_own_threads() {
  if (g_openmp.load(std::memory_order_relaxed)) g_openmp = false;
}

SpinningThreads::SpinningThreads() {
  ++g_spinning;
  sleeping_team().end();
}
SpinningThreads::~SpinningThreads() { --g_spinning; }

int64_t wake_cost() {
  return g_openmp.load(std::memory_order_relaxed) && g_spinning.load(std::memory_order_relaxed) == 0 ? 8 : 1;
}

void start_threads() {
  const int threads = num_threads();
  auto& pool = the_pool();
  if (threads == 1 || t_inside || g_openmp.load(std::memory_order_relaxed) || !pool.mutex.try_lock()) return;
  std::lock_guard lock(pool.mutex, std::adopt_lock);
  pool.start(threads);
}

void rest_threads() {
  auto& pool = the_pool();
  if (t_inside || !pool.mutex.try_lock()) return;
  std::lock_guard lock(pool.mutex, std::adopt_lock);
  if (pool.pool)
    pthreadpool_parallelize_1d(pool.pool, [](void*, size_t) {}, nullptr, static_cast<size_t>(pool.pool_threads),
                               PTHREADPOOL_FLAG_YIELD_WORKERS);
}

void detail::parallel_run(int64_t tasks, void (*call)(void*, int64_t), void* context) {
  int threads = num_threads();
  auto& pool = the_pool();
  if (threads > 1 && !t_inside && pool.mutex.try_lock()) {
    std::lock_guard lock(pool.mutex, std::adopt_lock);
    Work work{call, context, nullptr};
    if (g_openmp.load(std::memory_order_relaxed)) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
      for (int64_t i = 0; i < tasks; ++i) run_task(&work, static_cast<size_t>(i));
      if (work.error) std::rethrow_exception(work.error);
      return;
    }
    if (pool.ready(threads)) {
      pthreadpool_parallelize_1d(pool.pool, run_task, &work, static_cast<size_t>(tasks), 0);
      if (work.error) std::rethrow_exception(work.error);
      return;
    }
  }
  for (int64_t i = 0; i < tasks; ++i) call(context, i);
}

}  // namespace octet
