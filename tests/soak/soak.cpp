// A service that lives: many threads run networks that other threads unload, load again and give
// to other engines, while the number of threads and the instruction set change.
//
//   soak SECONDS [RATE [THREADS [RUNS]]]
//     SECONDS   10 or more: memory is looked at every two
//     RATE      runs a second of all threads together, at random moments; 0: as many as can be
//     THREADS   16
//     RUNS      so many for each time a model is loaded: 700
//
// Ends in one line of figures; exits with 1 if a result differed from the first or memory grew.
// Times are compared among runs of one kind: of one network on one batch size, by one engine with
// kernels of one instruction set, on so many threads. Left out are the first run of a network on a
// batch size, which plans it, and those during which the number of threads changes. Meanwhile no
// CPU halts (AwakeCpus).
#include <fmt/format.h>
#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "octet/base/cpu.h"
#include "octet/base/error.h"
#include "octet/base/parallel.h"
#include "octet/io/octet_file.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/graph/random_net.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kModels = 8;
// Inputs of so many images for each model.
constexpr int kBatchSizes[] = {1, 4, 16, 32};
constexpr size_t kBatches = std::size(kBatchSizes);
constexpr int kMostThreads = 4;
constexpr const char* kEngineNames[] = {"native", "onednn", "xnnpack"};
constexpr size_t kEngines = std::size(kEngineNames), kTables = std::size(kIsas);
constexpr size_t kKinds = kModels * kBatches * kEngines * kTables * kMostThreads;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double resident_mb() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// Keeps CPUs from halting, as the kernel's option idle=poll does: a virtual machine's CPU that
// halts is given to other guests and comes back with cold caches, so that times would depend on
// them. Its threads spin only where no other thread is ready to run.
class AwakeCpus {
 public:
  AwakeCpus() {
    cpu_set_t all;
    if (sched_getaffinity(0, sizeof all, &all) != 0) return;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &all)) threads_.emplace_back([this, cpu] { spin(cpu); });
  }
  ~AwakeCpus() {
    stop_ = true;
    for (std::thread& t : threads_) t.join();
  }
  AwakeCpus(const AwakeCpus&) = delete;

 private:
  void spin(int cpu) const {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_param none{};
    if (sched_setaffinity(0, sizeof one, &one) != 0 ||
        sched_setscheduler(0, SCHED_IDLE, &none) != 0)
      return;
    while (!stop_.load(std::memory_order_relaxed)) {
    }
  }

  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// A network as it is loaded, and which of the kEngines * kTables ways of running it this is.
struct Loaded {
  Loaded(runtime::Program p, size_t w) : program(std::move(p)), way(w) {}
  runtime::Program program;
  size_t way;
  mutable std::atomic<bool> planned[kBatches] = {};
};

// One network, in a file; the program that runs now; what it gives for each input.
struct Model {
  std::filesystem::path file;
  std::vector<Tensor> inputs;
  std::vector<std::vector<Tensor>> results;
  std::mutex mutex;
  std::shared_ptr<const Loaded> loaded;  // null while it is unloaded

  std::shared_ptr<const Loaded> current() {
    std::lock_guard lock(mutex);
    return loaded;
  }
  void put(std::shared_ptr<const Loaded> other) {
    std::lock_guard lock(mutex);
    loaded.swap(other);  // the old one is destroyed without the lock, perhaps by who runs it
  }
};

// A quantized network that has no float operator left: all engines give its bits.
std::optional<graph::Graph> network(uint64_t seed) {
  try {
    const graph::Graph g = random_net(seed, true, 12);
    auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
    prepared->forward({Tensor::randn({4, 3, 6, 6}, seed + 1)});
    graph::Graph codes = quant::convert_fx(prepared)->graph();
    for (const graph::Node& node : codes.nodes())
      if (node.kind == graph::NodeKind::call && !node.note.empty()) return std::nullopt;
    return codes;
  } catch (const Error&) {
    return std::nullopt;  // nothing in it to quantize
  }
}

class Soak {
 public:
  struct Options {
    double seconds = 0, rate = 0;
    int threads = 16, runs_of_a_load = 700;
  };

  explicit Soak(const Options& options) : options_(options), models_(kModels) {
    uint64_t seed = 1;
    for (int i = 0; i < kModels; ++i) {
      std::optional<graph::Graph> g;
      while (!(g = network(seed++))) {
      }
      Model& m = models_[static_cast<size_t>(i)];
      m.file = directory_ / fmt::format("{}.octet", i);
      io::save_octet(*g, m.file);
      const auto reference = runtime::compile(*g, {.engine = "reference"});
      for (const int batch : kBatchSizes) {
        m.inputs.push_back(Tensor::randn({batch, 3, 6, 6}, seed + static_cast<uint64_t>(batch)));
        m.results.push_back(reference.run({m.inputs.back()}));
      }
    }
  }

  bool run() {
    const auto start = Clock::now();
    set_num_threads(1);  // at most kMostThreads from the start
    const AwakeCpus awake;
    std::vector<std::thread> all;
    for (int t = 0; t < options_.threads; ++t) all.emplace_back([this, t] { serve(t); });
    std::vector<double> memory;
    for (size_t quarter = 1; seconds_since(start) < options_.seconds; ++quarter) {
      std::this_thread::sleep_for(std::chrono::milliseconds(250));
      set_num_threads(1 + static_cast<int>(quarter / 3) % kMostThreads);
      const auto isas = supported_isas();
      set_isa(isas[quarter % isas.size()]);
      // What is free but kept by the allocator is no growth. Whoever allocates next waits for the
      // pages that it gave back, so this is seldom.
      if (quarter % 8 != 0) continue;
      malloc_trim(0);
      memory.push_back(resident_mb());
    }
    end_ = true;
    for (std::thread& t : all) t.join();
    return report(memory);
  }

 private:
  // Mostly runs; now and then unloads a model, loads it, or gives it to another engine.
  void serve(int thread) {
    Random random(static_cast<uint64_t>(thread));
    std::vector<Run> runs;
    auto next = Clock::now();
    while (!end_) {
      if (options_.rate > 0) {
        // Between two requests of this thread lies an exponentially distributed time, as between
        // those of independent clients. What came too late is not made up for.
        const double mean = options_.threads / options_.rate;
        next += std::chrono::duration_cast<Clock::duration>(
            std::chrono::duration<double>(-std::log(1 - random.uniform()) * mean));
        next = std::max(next, Clock::now());
        std::this_thread::sleep_until(next);
      }
      const auto which = static_cast<size_t>(random.integer(0, kModels - 1));
      Model& m = models_[which];
      const int64_t what = random.integer(0, 3 * options_.runs_of_a_load - 1);
      if (what == 0) {
        m.put(nullptr);
      } else if (what <= 2 || !m.current()) {
        const auto engine = static_cast<size_t>(random.integer(0, kEngines - 1));
        const auto table = [] { return std::ranges::find(kIsas, current_isa()) - kIsas; };
        const auto before = table();
        auto program = runtime::compile(io::load_octet(m.file), {.engine = kEngineNames[engine]});
        if (table() != before) continue;  // it may have kernels of either
        m.put(std::make_shared<const Loaded>(std::move(program),
                                             engine * kTables + static_cast<size_t>(before)));
        ++loads_;
      } else if (const auto loaded = m.current()) {
        const auto i = static_cast<size_t>(random.integer(0, static_cast<int64_t>(kBatches) - 1));
        const int before = num_threads();
        const auto start = Clock::now();
        const auto got = loaded->program.run({m.inputs[i]});
        const auto ms = static_cast<float>(1e3 * seconds_since(start));
        const bool odd = !loaded->planned[i].exchange(true) || num_threads() != before;
        const auto way = loaded->way * kMostThreads + static_cast<size_t>(before - 1);
        runs.push_back({(which * kBatches + i) * kEngines * kTables * kMostThreads + way, ms, odd});
        for (size_t r = 0; r < got.size(); ++r)
          if (!equal(got[r], m.results[i][r])) ++wrong_;
      }
      if (runs.size() == kKept) collect(runs);
    }
    collect(runs);
  }

  struct Run {
    size_t kind;
    float ms;
    bool odd;  // the first one, or settings changed meanwhile
  };
  void collect(std::vector<Run>& runs) {
    std::lock_guard lock(mutex_);
    runs_ += static_cast<int64_t>(runs.size());
    // So many times of a kind are enough for its percentiles, and memory stays what it is.
    for (const Run& run : runs)
      if (!run.odd && times_[run.kind].size() < kMost) times_[run.kind].push_back(run.ms);
    runs.clear();
  }

  static double percentile(std::vector<float>& values, double p) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[static_cast<size_t>(p * static_cast<double>(values.size() - 1))];
  }

  bool report(const std::vector<double>& memory) {
    // The times of each kind by their median; of an engine's all together the 99th percentile.
    std::vector<float> medians, ratios[kEngines];
    for (size_t kind = 0; kind < times_.size(); ++kind)
      if (std::vector<float>& times = times_[kind]; times.size() >= kFew) {
        medians.push_back(static_cast<float>(percentile(times, 0.5)));
        for (const float ms : times)
          ratios[kind / kMostThreads / kTables % kEngines].push_back(ms / medians.back());
      }
    std::string tail;
    for (size_t e = 0; e < kEngines; ++e)
      tail +=
          fmt::format("{}{} {:.1f}", e ? ", " : "", kEngineNames[e], percentile(ratios[e], 0.99));
    // The most of the second quarter of the time, when all is warm, against the last quarter's.
    const auto most = [&](size_t from, size_t to) {
      double result = 0;
      for (size_t i = from; i < to; ++i) result = std::max(result, memory[i]);
      return result;
    };
    const size_t n = memory.size();
    const double early = most(n / 4, n / 2), late = most(n * 3 / 4, n);
    const bool flat = late <= 1.05 * early + 4, good = wrong_ == 0 && flat && runs_ > 0;
    const std::string rate =
        options_.rate > 0 ? fmt::format(", {:.0f} runs a second asked for", options_.rate) : "";
    fmt::print(
        "soak: {:.0f} s, {} threads, {} models{}: {} runs, {} loads, {} wrong; {} kinds of runs, "
        "of {:.3f} to {:.3f} ms (median); 99 of 100 took at most so many medians: {}; "
        "memory {:.1f} MB, then {:.1f} MB{}\n",
        options_.seconds, options_.threads, kModels, rate, runs_, loads_.load(), wrong_.load(),
        medians.size(), percentile(medians, 0), percentile(medians, 1), tail, early, late,
        good ? "" : ": FAILED");
    return good;
  }

  static constexpr size_t kKept = 1024, kMost = 1000, kFew = 100;
  Options options_;
  TempDir directory_;
  std::vector<Model> models_;
  std::atomic<bool> end_{false};
  std::atomic<int64_t> loads_{0}, wrong_{0};
  std::mutex mutex_;
  int64_t runs_ = 0;
  std::vector<std::vector<float>> times_ = std::vector<std::vector<float>>(kKinds);
};

}  // namespace
}  // namespace octet::testing

int main(int argc, char** argv) {
  octet::testing::Soak::Options options;
  if (argc > 1) options.seconds = std::atof(argv[1]);
  if (argc > 2) options.rate = std::atof(argv[2]);
  if (argc > 3) options.threads = std::atoi(argv[3]);
  if (argc > 4) options.runs_of_a_load = std::atoi(argv[4]);
  if (!(options.seconds >= 10) || !(options.rate >= 0) || options.threads < 1 ||
      options.runs_of_a_load < 1) {
    std::fprintf(stderr, "usage: soak SECONDS [RATE [THREADS [RUNS]]], SECONDS >= 10\n");
    return 2;
  }
  try {
    return octet::testing::Soak(options).run() ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "soak: %s\n", e.what());
    return 1;
  }
}
