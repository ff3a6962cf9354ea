#include "octet/base/parallel.h"

#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#include "octet/base/check_impl.h"
#include "octet/base/cpu.h"

namespace octet {
namespace {

// The cores that the calling thread may run on; none if the system does not say.
cpu_set_t allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
  return set;
}

int initial_threads() {
  if (const char* text = std::getenv("OCTET_NUM_THREADS"); text && *text) {
    char* end = nullptr;
    long n = std::strtol(text, &end, 10);
    OCTET_CHECK(*end == 0 && n >= 1 && n <= 1024, invalid_argument,
                "OCTET_NUM_THREADS={}: expected a whole number from 1 to 1024", text);
    return static_cast<int>(n);
  }
  return usable_cpus();
}

thread_local bool t_inside = false;

struct Work {
  void (*call)(void*, int64_t);
  void* context;
  std::exception_ptr error;
  std::atomic<bool> failed{false};
};

void run_task(Work& work, int64_t i) {
  bool outer = t_inside;
  t_inside = true;
  try {
    if (!work.failed.load(std::memory_order_relaxed)) work.call(work.context, i);
  } catch (...) {
    if (!work.failed.exchange(true)) work.error = std::current_exception();
  }
  t_inside = outer;
}

// What OpenMP's threads do for parallel_run. ThreadSanitizer does not see how libgomp orders them
// (libgomp is not built for it), so it is told: a task comes after the region was entered, and what
// follows the region comes after the task.
#if defined(__SANITIZE_THREAD__)
void before_region(Work& work) { __tsan_release(&work); }
void after_region(Work& work) { __tsan_acquire(&work); }
void run_in_region(Work& work, int64_t i) {
  __tsan_acquire(&work);
  run_task(work, i);
  __tsan_release(&work);
}
#else
void before_region(Work&) {}
void after_region(Work&) {}
void run_in_region(Work& work, int64_t i) { run_task(work, i); }
#endif

// The regions themselves are not looked at: their threads read on the caller's stack what they are
// to do, and add to it.
#define OCTET_REGION __attribute__((no_sanitize("thread")))

OCTET_REGION void run_region(Work& work, int64_t tasks, int threads) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < tasks; ++i) run_in_region(work, i);
}

// Returns how many threads OpenMP has for it.
OCTET_REGION int run_nothing(int wanted) {
  int threads = 0;
#pragma omp parallel num_threads(wanted) reduction(+ : threads)
  ++threads;
  return threads;
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Threads that take part in the work of a caller, who takes part too and waits for no thread that
// has not come: one that is not awake yet, or that the system has given its core to somebody else,
// does not hold up the others, who do its tasks.
//
// Tasks are dealt out evenly, neighbours together, the same to the same thread each time (what it
// wrote last is in its cache). Who has done its own takes others' from their end.
class Team {
 public:
  // `threads`: with the caller. Fewer if the system refuses.
  explicit Team(int threads) : threads_(threads), shares_(static_cast<size_t>(threads)) {
    // The system may put a new thread on the core of its maker, to wait there for milliseconds
    // while the maker is busy, and leave it there. So each starts on a core of its own, other than
    // the caller's if there are that many; then it is free to move.
    all_ = allowed_cores();
    const int own = sched_getcpu();
    std::vector<int> cores;
    workers_.reserve(static_cast<size_t>(threads));  // no thread may start for a team that fails
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &all_) && core != own) cores.push_back(core);
    for (int i = 1; i < threads; ++i) {
      pthread_attr_t attributes;
      pthread_attr_init(&attributes);
      if (!cores.empty()) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cores[static_cast<size_t>(i - 1) % cores.size()], &one);
        pthread_attr_setaffinity_np(&attributes, sizeof one, &one);
      }
      pthread_t thread{};
      const bool started = pthread_create(
                               &thread, &attributes,
                               [](void* self) -> void* {
                                 static_cast<Team*>(self)->work();
                                 return nullptr;
                               },
                               this) == 0;
      pthread_attr_destroy(&attributes);
      if (!started) break;
      workers_.push_back(thread);
    }
  }
  ~Team() {
    stop_ = true;
    publish(round_.load() + 1);
    for (pthread_t worker : workers_) pthread_join(worker, nullptr);
  }
  Team(const Team&) = delete;

  int threads() const { return threads_; }

  // run_task of each task. By one caller at a time.
  void run(Work& work, int64_t tasks) {
    constexpr int64_t kMost = int64_t{1} << 30;  // as many as a share can say
    for (first_ = 0; first_ < tasks; first_ += kMost) {
      const int64_t count = std::min(kMost, tasks - first_);
      for (int64_t i = 0; i < threads_; ++i)
        shares_[static_cast<size_t>(i)].tasks.store(
            share(count * i / threads_, count * (i + 1) / threads_), std::memory_order_relaxed);
      work_ = &work;
      rest_.store(false, std::memory_order_relaxed);
      inside_.store(kOpen);
      publish(round_.load(std::memory_order_relaxed) + 1);
      take_tasks(0);
      inside_.fetch_sub(kOpen);
      for (int i = 0; inside_.load(std::memory_order_acquire) != 0; ++i)
        i < kSpinsOfCaller ? relax() : (void)sched_yield();
    }
  }

  // Has the threads sleep that wait for work.
  void rest() { rest_ = true; }

 private:
  static constexpr int kOpen = 1 << 24, kSpinsOfCaller = 300;
  static constexpr auto kSpinTime = std::chrono::milliseconds(2);

  // Tasks begin..end-1 that nobody has taken yet; from both ends they are taken one by one.
  struct alignas(64) Share {
    std::atomic<uint64_t> tasks{0};
  };
  static uint64_t share(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(end) << 32 | static_cast<uint64_t>(begin);
  }

  void take_tasks(size_t own) {
    for (size_t i = 0; i < shares_.size(); ++i) {
      auto& tasks = shares_[(own + i) % shares_.size()].tasks;
      uint64_t now = tasks.load(std::memory_order_relaxed);
      while (true) {
        const auto begin = static_cast<int64_t>(now & 0xffffffff),
                   end = static_cast<int64_t>(now >> 32);
        if (begin >= end) break;
        if (!tasks.compare_exchange_weak(now,
                                         i == 0 ? share(begin + 1, end) : share(begin, end - 1),
                                         std::memory_order_relaxed))
          continue;
        run_task(*work_, first_ + (i == 0 ? begin : end - 1));
        now = tasks.load(std::memory_order_relaxed);
      }
    }
  }

  void publish(uint32_t round) {
    round_.store(round);
    if (asleep_.load() > 0)
      syscall(SYS_futex, &round_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  }

  // Until there is another round than that one.
  uint32_t wait(uint32_t last) {
    using Clock = std::chrono::steady_clock;
    uint32_t round = last;
    const auto end = Clock::now() + kSpinTime;
    for (int i = 1; (round = round_.load(std::memory_order_acquire)) == last; ++i) {
      relax();
      if (i % 64 != 0) continue;
      if (rest_.load(std::memory_order_relaxed) || Clock::now() > end) break;
      sched_yield();  // to the caller, say, if the system has both on one core
    }
    while (round == last) {
      ++asleep_;
      syscall(SYS_futex, &round_, FUTEX_WAIT_PRIVATE, last, nullptr, nullptr, 0);
      --asleep_;
      round = round_.load(std::memory_order_acquire);
    }
    return round;
  }

  void work() {
    sched_setaffinity(0, sizeof all_, &all_);
    const size_t own = static_cast<size_t>(++started_);
    for (uint32_t round = 0; !stop_;) {
      round = wait(round);
      int inside = inside_.load();
      while (inside >= kOpen)
        if (inside_.compare_exchange_weak(inside, inside + 1)) {
          take_tasks(own);
          inside_.fetch_sub(1, std::memory_order_release);
          break;
        }
    }
  }

  const int threads_;
  cpu_set_t all_;
  std::vector<pthread_t> workers_;
  std::vector<Share> shares_;  // of the caller and each worker
  Work* work_ = nullptr;       // of the round
  int64_t first_ = 0;
  alignas(64) std::atomic<uint32_t> round_{0};  // what sleepers wait on
  std::atomic<int> asleep_{0}, started_{0};
  std::atomic<bool> rest_{false}, stop_{false};
  // workers that take part; kOpen more while others may come
  alignas(64) std::atomic<int> inside_{0};
};

// The team is made at its first use, or when start_threads asks for it, and replaced when the
// thread count changes. The mutex lets one caller in; any other (a second thread, or a nested call)
// runs its work inline.
struct Pool {
  std::mutex mutex;
  std::atomic<int> threads{0}, running{0};
  std::atomic<int> assumed_cpus{0};  // 0: what usable_cpus() says
  std::unique_ptr<Team> team;

  // With the mutex.
  void set(int n) {
    running = std::min(n, assumed_cpus > 0 ? assumed_cpus.load() : usable_cpus());
    threads = n;
    omp_set_num_threads(running);
  }

  Team& of(int wanted) {
    if (!team || team->threads() != wanted) {
      team.reset();
      team = std::make_unique<Team>(wanted);
    }
    return *team;
  }
};

void before_fork();
void after_fork_in_child();

Pool& the_pool() {
  static Pool& pool = *[] {
    static Pool made;
    pthread_atfork(before_fork, nullptr, after_fork_in_child);
    return &made;
  }();
  return pool;
}

thread_local bool t_openmp = false;       // parallel_for takes OpenMP's threads
std::atomic<bool> g_openmp_used{false};   // there may be some
std::atomic<bool> g_openmp_spins{false};  // they were left, and nobody has sent them to sleep yet
std::atomic<bool> g_openmp_spun{false};   // there were SpinningThreads since they were taken

// When our own threads were wanted last. For kTakeTurns after that OpenMP's do not spin.
std::atomic<std::chrono::steady_clock::time_point> g_own_time;
constexpr auto kTakeTurns = std::chrono::milliseconds(20);

bool own_threads_were_wanted_just_now() {
  return std::chrono::steady_clock::now() - g_own_time.load(std::memory_order_relaxed) < kTakeTurns;
}

}  // namespace

int num_threads() {
  auto& pool = the_pool();
  int n = pool.threads.load(std::memory_order_acquire);
  if (n == 0) {
    std::lock_guard lock(pool.mutex);
    n = pool.threads.load();
    if (n == 0) {
      n = initial_threads();
      pool.set(n);
    }
  }
  return n;
}

int running_threads() {
  num_threads();  // sets both, at first
  return the_pool().running.load(std::memory_order_relaxed);
}

void set_num_threads(int n) {
  OCTET_CHECK(n >= 1 && n <= 1024, invalid_argument, "set_num_threads({}): expected 1 to 1024", n);
  auto& pool = the_pool();
  std::lock_guard lock(pool.mutex);
  pool.set(n);
}

void detail::assume_cpus(int n) {
  const int threads = num_threads();
  the_pool().assumed_cpus = n;
  set_num_threads(threads);
}

namespace {
// GNU's OpenMP lets threads that wait for work spin for milliseconds, unless there are more of them
// than cores: then for a microsecond. On a machine that has anything else to do, spinning takes the
// cores from the very work that is waited for (a training step on two threads took ten times as
// long as on one). There is no call to change that, only environment variables that are read before
// we are loaded. So, where threads should sleep, there are more of them: a team of two that does
// nothing.
class SleepingTeam {
 public:
  // Returns when the team is there.
  void start() {
    if (running_.load(std::memory_order_relaxed)) return;
    std::unique_lock lock(mutex_);
    if (running_.exchange(true)) return;
    const int life = life_;
    std::thread([this, life] {
      const int threads = run_nothing(2);
      std::unique_lock own(mutex_);
      there_ = std::max(there_, life);  // a team that was ended may be there after the next one
      changed_.notify_all();
      changed_.wait(own, [&] { return threads == 0 || life_ != life; });
    }).detach();
    changed_.wait(lock, [&] { return there_ >= life || life_ != life; });
  }
  void end() {
    if (!running_.load(std::memory_order_relaxed)) return;
    {
      std::lock_guard lock(mutex_);
      running_ = false;
      ++life_;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> running_{false};
  int life_ = 0, there_ = -1;
};

SleepingTeam& sleeping_team() {
  static auto* team = new SleepingTeam;  // never destroyed: its thread may outlive main
  return *team;
}

std::atomic<int> g_spinning{0};

// A child has the thread that forked and no other, but all that others left in memory. OpenMP would
// wait there for threads that do not exist, so its own are ended first (those of the thread that
// forks; others have theirs): they come back with the next work on either side. Ours are forgotten
// in the child, with the mutex that one of them may have held.
void before_fork() {
  if (!t_inside && g_openmp_used.load(std::memory_order_relaxed))
    omp_pause_resource_all(omp_pause_soft);
}

void after_fork_in_child() {
  Pool& pool = the_pool();
  new (&pool.mutex) std::mutex;
  (void)pool.team.release();  // to end it would be to wait for its threads
  new (&sleeping_team()) SleepingTeam;
}
}  // namespace

void use_openmp_threads() {
  if (g_spinning.load(std::memory_order_relaxed) == 0 && running_threads() > 1)
    sleeping_team().start();
  if (t_openmp) return;
  rest_threads();
  g_openmp_used = t_openmp = true;
}

void use_own_threads() {
  t_openmp = false;
  if (running_threads() == 1) return;
  g_own_time.store(std::chrono::steady_clock::now(), std::memory_order_relaxed);
  if (g_openmp_spun.load(std::memory_order_relaxed) && g_openmp_spun.exchange(false))
    g_openmp_spins = true;
}

namespace {
// OpenMP's threads may still spin for what they did last. They look how to wait only when they
// begin to: so they are called once more. That takes a tenth of a millisecond, so it is done when
// our own first have work: programs that take turns and are too small for threads do not pay.
void send_openmp_to_sleep() {
  if (!g_openmp_spins.load(std::memory_order_relaxed) || !g_openmp_spins.exchange(false)) return;
  if (g_spinning.load(std::memory_order_relaxed) != 0) return;
  sleeping_team().start();
  run_nothing(running_threads());
}
}  // namespace

SpinningThreads::SpinningThreads() : spin_(!own_threads_were_wanted_just_now()) {
  if (!spin_) return;
  ++g_spinning;
  g_openmp_spun = true;
  sleeping_team().end();
}
SpinningThreads::~SpinningThreads() {
  if (spin_) --g_spinning;
}

int64_t wake_cost() { return t_openmp && g_spinning.load(std::memory_order_relaxed) == 0 ? 8 : 1; }

void start_threads() {
  const int threads = running_threads();
  auto& pool = the_pool();
  if (threads == 1 || t_inside || t_openmp || !pool.mutex.try_lock()) return;
  std::lock_guard lock(pool.mutex, std::adopt_lock);
  pool.of(threads);
}

void rest_threads() {
  auto& pool = the_pool();
  if (t_inside || !pool.mutex.try_lock()) return;
  std::lock_guard lock(pool.mutex, std::adopt_lock);
  if (pool.team) pool.team->rest();
}

void detail::parallel_run(int64_t tasks, void (*call)(void*, int64_t), void* context) {
  int threads = running_threads();
  auto& pool = the_pool();
  if (threads > 1 && !t_inside && pool.mutex.try_lock()) {
    std::lock_guard lock(pool.mutex, std::adopt_lock);
    Work work{call, context, nullptr};
    if (t_openmp) {
      before_region(work);
      run_region(work, tasks, threads);
      after_region(work);
      if (work.error) std::rethrow_exception(work.error);
      return;
    }
    send_openmp_to_sleep();
    pool.of(threads).run(work, tasks);
    if (work.error) std::rethrow_exception(work.error);
    return;
  }
  for (int64_t i = 0; i < tasks; ++i) call(context, i);
}

}  // namespace octet
