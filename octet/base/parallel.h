#pragma once
// Threads: one pool of them per process. Results never depend on the number of threads.
//
// fork() is fine between calls: the child starts threads of its own when it needs them. A fork from
// inside a task of parallel_for is for exec or _exit only.

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace octet {

// For how many threads work is divided, the caller included. Starts as OCTET_NUM_THREADS, or
// usable_cpus() (base/cpu.h): the CPUs that affinity and the cgroup's quota leave to the process.
int num_threads();

// How many of them run at once, in parallel_for and in oneDNN: num_threads(), but never more than
// usable_cpus() was when the number was set. More would only take the CPUs from each other.
int running_threads();

// Sets it; n >= 1, else Error. Takes effect for work started later. Must not be called from inside
// parallel_for.
void set_num_threads(int n);

// Has the pool's threads started meanwhile, if they are not there yet: starting them takes about a
// millisecond. Until they are there, parallel_for runs on the caller alone. For what will need them
// soon: reading a model.
void start_threads();

// Sends the pool's threads to sleep now. After work they spin for some milliseconds to be quick for
// more, which takes a core from whatever else wants to run then (another library's threads).
void rest_threads();

// From now on parallel_for of the calling thread takes OpenMP's threads instead of a pool of our
// own. Called by what runs on OpenMP itself (oneDNN): two pools whose threads wait for work by
// spinning take each other's cores.
void use_openmp_threads();
// Back to the threads of our own: called by what runs nothing on OpenMP (a program of native
// kernels only). OpenMP's are sent to sleep when ours are first given work, if they spin.
void use_own_threads();

// While one exists, OpenMP's threads wait for their next work by spinning for some milliseconds: a
// program's steps follow each other at once. Otherwise they sleep, and waking one takes tens of
// microseconds: between two calls of an eager model or a training step anything may want the cores.
// (GNU's OpenMP decides it by the number of its threads; see parallel.cpp.) They sleep all the same
// where threads of our own were wanted in the last 20 ms: programs of both kinds that take turns
// would wait each time until the others' threads are asleep.
class SpinningThreads {
 public:
  SpinningThreads();
  ~SpinningThreads();
  SpinningThreads(const SpinningThreads&) = delete;

 private:
  const bool spin_;
};

// How many times more work a task should have than where threads spin: 1, or 8 where sleeping ones
// must be woken.
int64_t wake_cost();

namespace detail {
// For tests: as if the process could use so many CPUs from now on; 0: as many as it can.
void assume_cpus(int n);
void parallel_run(int64_t tasks, void (*call)(void*, int64_t), void* context);
}  // namespace detail

// Calls fn(i) for i in [0, tasks), spread over the pool; returns when all are done. Calls from
// inside a task, and calls made while another thread holds the pool, run inline on the caller:
// nesting is allowed and never deadlocks. The first exception that a task throws is rethrown here.
// Allocates nothing.
template <typename Fn>
void parallel_for(int64_t tasks, Fn&& fn) {
  if (tasks <= 1) {
    if (tasks == 1) fn(int64_t{0});
    return;
  }
  detail::parallel_run(
      tasks, [](void* f, int64_t i) { (*static_cast<std::remove_reference_t<Fn>*>(f))(i); },
      const_cast<void*>(static_cast<const void*>(&fn)));
}

// Splits [0, n) into at most num_threads() even ranges of at least `grain` elements and calls
// fn(begin, end) on each.
template <typename Fn>
void parallel_ranges(int64_t n, int64_t grain, Fn&& fn) {
  if (n <= 0) return;
  int64_t parts = grain > 0 ? (n + grain - 1) / grain : n;
  if (parts > 1 && grain > 0) parts = (n + grain * wake_cost() - 1) / (grain * wake_cost());
  if (parts > num_threads()) parts = num_threads();
  if (parts <= 1) {
    fn(int64_t{0}, n);
    return;
  }
  parallel_for(parts, [&](int64_t i) { fn(n * i / parts, n * (i + 1) / parts); });
}

}  // namespace octet
