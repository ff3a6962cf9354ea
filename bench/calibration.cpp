// What calibration costs: the float network on some images, and the same images shown to the
// observers of the default qconfig (a HistogramObserver for every value that will be codes), in
// turns, a batch of each at a time.
//   bench_calibration MODEL.onnx [threads] [batch] [images]
// Prints the milliseconds for one image of either (medians), the ratio for all images, the median
// ratio of a turn, the ratio of the process's CPU times (for when the machine is busy), and its
// peak memory after half of the images and after all of them.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "octet/base/error.h"
#include "octet/base/parallel.h"
#include "octet/graph/passes/fuse.h"
#include "octet/io/onnx/import.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"

namespace {

using namespace octet;

struct Times {
  std::vector<double> turns;  // seconds
  double sum = 0, cpu = 0;

  template <typename Fn>
  void measure(Fn&& fn) {
    auto start = std::chrono::steady_clock::now();
    std::clock_t cpu_start = std::clock();
    fn();
    cpu += static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    turns.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    sum += turns.back();
  }
};

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

double peak_rss_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

// Random inputs; an open dimension is the batch.
std::vector<Tensor> inputs_of(const graph::Graph& g, int64_t batch, uint64_t seed) {
  std::vector<Tensor> inputs;
  for (graph::ValueId id : g.inputs()) {
    Shape shape;
    for (const Dim& d : g.type(id).dims) shape.push_back(d.known() ? d.size() : batch);
    inputs.push_back(Tensor::randn(shape, seed++));
  }
  return inputs;
}

void run(int argc, char** argv) {
  set_num_threads(argc > 2 ? std::atoi(argv[2]) : 1);
  const int64_t batch = argc > 3 ? std::atoi(argv[3]) : 1;
  const int64_t images = argc > 4 ? std::atoi(argv[4]) : 64;
  const graph::Graph source = io::import_onnx(argv[1]);
  const runtime::Program plain = runtime::compile(graph::fuse_activations(source));
  auto prepared = quant::prepare_fx(source, quant::get_default_qconfig());
  const int64_t turns = (images + batch - 1) / batch;
  const quant::FixedWeights fixed(*prepared);  // as `octet quantize` does
  for (uint64_t i = 0; i < 2; ++i) {           // memory is planned, ranges are roughly known
    auto x = inputs_of(source, batch, 1000000 + i);
    plain.run(x);
    prepared->forward(x);
  }
  Times plain_times, calibration_times;
  std::vector<double> ratios;
  double half_rss = 0;
  for (int64_t i = 0; i < turns; ++i) {
    auto x = inputs_of(source, batch, static_cast<uint64_t>(i + 1));
    auto calibrate = [&] { calibration_times.measure([&] { prepared->forward(x); }); };
    if (i % 2 == 1) calibrate();  // neither always comes after the other
    plain_times.measure([&] { plain.run(x); });
    if (i % 2 == 0) calibrate();
    ratios.push_back(calibration_times.turns.back() / plain_times.turns.back());
    if (i + 1 == turns / 2) half_rss = peak_rss_mb();
  }
  const double per_image = 1e3 / static_cast<double>(batch);
  std::printf(
      "%d threads, batch %lld, %lld images: float %.2f ms, calibration %.2f ms; ratio %.3f, of a "
      "turn %.3f, of CPU time %.3f; "
      "peak %.1f MB after half, %.1f MB after all\n",
      num_threads(), static_cast<long long>(batch), static_cast<long long>(turns * batch),
      median(plain_times.turns) * per_image, median(calibration_times.turns) * per_image,
      calibration_times.sum / plain_times.sum, median(ratios),
      calibration_times.cpu / plain_times.cpu, half_rss, peak_rss_mb());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_calibration MODEL.onnx [threads] [batch] [images]\n");
    return 2;
  }
  try {
    run(argc, argv);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
