// The kernels alone, on the table of the ISA in force (OCTET_ISA), by Google Benchmark:
//   bench_kernels --benchmark_filter=gemm --benchmark_counters_tabular=true
// Matrix products run through the engine's split_matrix, on the threads their name tells. Between
// the runs of a row the machine's ceiling is measured (ceilings.h); the counters compare medians:
//   Gop/s, peak%   multiplies and adds, and how much of what the multipliers can do that is; best%:
//                  of the shortest times
//   GB/s, read%    bytes read (weights, operands), and how much of reading as many bytes that is
//                  (matrix-vector products)
//   G/s            elements
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bench/ceilings.h"
#include "octet/engine/native/schedule_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/tensor.h"

namespace octet {
namespace {

using kernels::Epilogue;
using kernels::KernelTable;

const KernelTable& table() { return kernels::table(current_isa()); }

// Pseudo-random bytes with the slack that kernels may read.
std::vector<uint8_t> bytes(int64_t n) {
  std::vector<uint8_t> r(static_cast<size_t>(n) + kBufferSlack);
  for (size_t i = 0; i < r.size(); ++i) r[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  return r;
}
std::vector<float> floats(int64_t n) {
  std::vector<float> r(static_cast<size_t>(n));
  for (size_t i = 0; i < r.size(); ++i)
    r[i] = static_cast<float>(static_cast<int>(i * 2654435761u >> 20) - 2048) * 0.002f;
  return r;
}

// Memory that starts on a cache line, for packed weights.
struct Aligned {
  explicit Aligned(size_t n) : memory(n + 64 + kBufferSlack) {}
  void* data() {
    return memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  }
  std::vector<uint8_t> memory;
};

struct Times {
  double median = 0, least = 0;
};

// Runs `kernel` in turns with `ceiling` (of a burst's length in seconds: seconds for a unit of work
// at best; may be empty). Turns are long enough for the clock.
void measure(benchmark::State& state, const std::function<void()>& kernel,
             const std::function<double(double)>& ceiling, Times& ours, Times& best) {
  kernel();
  const double once = std::max(1e-8, bench::seconds_of(kernel));
  const int repeat = std::max(1, static_cast<int>(5e-4 / once));
  std::vector<double> times, ceilings;
  for (auto _ : state) {
    times.push_back(bench::seconds_of([&] {
                      for (int i = 0; i < repeat; ++i) kernel();
                    }) /
                    repeat);
    state.SetIterationTime(times.back());
    if (ceiling) ceilings.push_back(ceiling(std::max(3e-4, once)));
  }
  ours = {bench::median(times), bench::least(times)};
  if (ceiling) best = {bench::median(ceilings), bench::least(ceilings)};
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->UseManualTime()
      ->Iterations(200)
      ->Unit(benchmark::kMicrosecond);
}

// -- matrix products ------------------------------------------------------------------------------

struct Product {
  int64_t m, n, k;
  int64_t kernel = 1, stride = 1, height = 0;  // of a convolution by offsets; height 0: dense
  Epilogue epilogue = Epilogue::requantize;
  // Of normally distributed weights. AVX2's products depend on it (split_gemm_impl.h). 0: weights
  // are -127 and 127, which it has to widen.
  float deviation = 36;
};

std::vector<int8_t> weights(int64_t n, float deviation) {
  std::mt19937 random;
  std::normal_distribution<float> normal(0, deviation);
  std::vector<int8_t> r(static_cast<size_t>(n));
  for (int8_t& w : r)
    w = static_cast<int8_t>(deviation == 0
                                ? (random() % 2 == 0 ? -127 : 127)
                                : std::clamp(std::round(normal(random)), -127.0f, 127.0f));
  return r;
}

void gemm(benchmark::State& state, const Product& p, int threads) {
  set_num_threads(threads);
  // Of few channels a row of the window is a tap, over an image with its padding written out
  // (engine/native/conv.cpp).
  const bool joined = p.height && p.k < 4;
  const int64_t taps = joined ? p.kernel : p.kernel * p.kernel, k = joined ? p.kernel * p.k : p.k;
  const int64_t padded = p.height + 2 * (p.kernel / 2),
                image = joined ? padded * padded : p.height * p.height;
  const int64_t side = p.height ? (p.height + 2 * (p.kernel / 2) - p.kernel) / p.stride + 1 : 0;
  kernels::GemmArgs g;
  g.shape = {p.n, k, taps};
  const auto w = weights(p.n * k * taps, p.deviation);
  const auto pad = bytes(k), a = bytes(p.height ? image * p.k : p.m * k);
  Aligned packed(table().gemm_packed_bytes(g.shape)),
      c(static_cast<size_t>(p.m * p.n * (p.epilogue == Epilogue::requantize ? 1 : 4)));
  table().gemm_pack(g.shape, 0, g.shape.n, w.data(), packed.data());
  std::vector<int32_t> offsets, bias(static_cast<size_t>(p.n), 1);
  const std::vector<float> multiplier(static_cast<size_t>(p.n), 1e-4f);
  for (int64_t i = 0; p.height && i < side * side; ++i)
    for (int64_t t = 0; t < taps; ++t) {
      if (joined) {
        offsets.push_back(
            static_cast<int32_t>(((i / side * p.stride + t) * padded + i % side * p.stride) * p.k));
        continue;
      }
      const int64_t y = i / side * p.stride + t / p.kernel - p.kernel / 2,
                    x = i % side * p.stride + t % p.kernel - p.kernel / 2;
      const bool inside = y >= 0 && x >= 0 && y < p.height && x < p.height;
      offsets.push_back(inside ? static_cast<int32_t>((y * p.height + x) * p.k) : -1);
    }
  g.a = a.data();
  g.lda = p.k;
  g.offsets = offsets.empty() ? nullptr : offsets.data();
  g.pad = pad.data();
  g.b = packed.data();
  g.c = c.data();
  g.ldc = p.n;
  g.epilogue = p.epilogue;
  g.bias = bias.data();
  g.multiplier = multiplier.data();
  g.zero_point = 3;

  const auto run = [&] {
    native::split_matrix(1, p.m, p.n, table().gemm_mr, table().gemm_nr, k * taps,
                         [&](int64_t, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                           table().gemm(g, m0, m1, n0, n1);
                         });
  };
  Times ours, best;
  if (p.m == 1) {  // weights are read once: memory is the limit
    const std::vector<uint8_t> memory(static_cast<size_t>(p.n * p.k));
    const double size = static_cast<double>(p.n * p.k);
    measure(
        state, run, [&](double) { return bench::read_burst(memory, threads); }, ours, best);
    state.counters["GB/s"] = size / ours.median * 1e-9;
    state.counters["read%"] = best.median * size / ours.median * 100;
    return;
  }
  const double operations = 2.0 * static_cast<double>(p.m * p.n * k * taps);
  measure(
      state, run,
      [&](double length) {
        return bench::multiplier_burst(current_isa(), threads, length, p.deviation == 0);
      },
      ours, best);
  state.counters["Gop/s"] = operations / ours.median * 1e-9;
  state.counters["peak%"] = best.median * operations / ours.median * 100;
  state.counters["best%"] = best.least * operations / ours.least * 100;
}

void add_products() {
  const auto both = [](const std::string& name, const Product& p) {
    for (int threads : {1, 2})
      add(fmt::format("gemm/{}/threads:{}", name, threads),
          [=](benchmark::State& s) { gemm(s, p, threads); });
  };
  both("1024x1024x1024/int32", {1024, 1024, 1024, 1, 1, 0, Epilogue::int32});
  both("1024x1024x1024/requantize", {1024, 1024, 1024});
  if (current_isa() == Isa::avx2) {  // the others' products do not depend on the weights
    both("1024x1024x1024/int32/extreme", {1024, 1024, 1024, 1, 1, 0, Epilogue::int32, 0});
    both("1024x1024x1024/int32/narrow", {1024, 1024, 1024, 1, 1, 0, Epilogue::int32, 20});
    both("1024x1024x1024/requantize/narrow", {1024, 1024, 1024, 1, 1, 0, Epilogue::requantize, 20});
  }
  both("1024x1024x1024/dynamic", {1024, 1024, 1024, 1, 1, 0, Epilogue::dynamic});
  both("128x3072x768/dynamic", {128, 3072, 768, 1, 1, 0, Epilogue::dynamic});
  for (int64_t m : {196, 784, 3136})
    for (int64_t n : {64, 256}) both(fmt::format("k64/{}x{}x64", m, n), {m, n, 64});
  for (const auto& [m, n, k] : std::initializer_list<std::array<int64_t, 3>>{
           {12544, 96, 16}, {3136, 144, 24}, {784, 192, 32}, {196, 384, 64}})
    both(fmt::format("mobilenet_v2/{}x{}x{}", m, n, k), {m, n, k});
  both("mobilenet_v2/224x224/3to32/3x3/stride2", {112 * 112, 32, 3, 3, 2, 224});
  both("gemv/1x4096x4096", {1, 4096, 4096, 1, 1, 0, Epilogue::dynamic});
  both("gemv/1x1000x2048", {1, 1000, 2048});

  // ResNet-50's convolutions: input side, channels in and out, kernel, stride.
  struct Layer {
    int64_t side, in, out, kernel, stride;
  };
  for (const Layer& l : std::initializer_list<Layer>{
           {224, 3, 64, 7, 2},    {56, 64, 64, 1, 1},     {56, 64, 64, 3, 1},
           {56, 64, 256, 1, 1},   {56, 256, 64, 1, 1},    {56, 256, 128, 1, 1},
           {56, 128, 128, 3, 2},  {56, 256, 512, 1, 2},   {28, 128, 512, 1, 1},
           {28, 512, 128, 1, 1},  {28, 128, 128, 3, 1},   {28, 512, 256, 1, 1},
           {28, 256, 256, 3, 2},  {28, 512, 1024, 1, 2},  {14, 256, 1024, 1, 1},
           {14, 1024, 256, 1, 1}, {14, 256, 256, 3, 1},   {14, 1024, 512, 1, 1},
           {14, 512, 512, 3, 2},  {14, 1024, 2048, 1, 2}, {7, 512, 2048, 1, 1},
           {7, 2048, 512, 1, 1},  {7, 512, 512, 3, 1}}) {
    const int64_t side = (l.side + l.stride - 1) / l.stride;
    const bool dense = l.kernel == 1 && l.stride == 1;
    both(fmt::format("resnet50/{}x{}/{}to{}/{}x{}{}", l.side, l.side, l.in, l.out, l.kernel,
                     l.kernel, l.stride == 1 ? "" : "/stride2"),
         {side * side, l.out, l.in, l.kernel, l.stride, dense ? 0 : l.side});
  }
}

// -- the others, on one thread: elements a second -------------------------------------------------

// The taps of a 3x3 window with padding 1 around each pixel of the result.
std::vector<int32_t> window_3x3(int64_t side, int64_t stride, int64_t channels) {
  std::vector<int32_t> r;
  for (int64_t i = 0; i < side / stride * (side / stride); ++i)
    for (int64_t t = 0; t < 9; ++t) {
      const int64_t y = i / (side / stride) * stride + t / 3 - 1,
                    x = i % (side / stride) * stride + t % 3 - 1;
      r.push_back(y < 0 || x < 0 || y >= side || x >= side
                      ? -1
                      : static_cast<int32_t>((y * side + x) * channels));
    }
  return r;
}

void report(benchmark::State& state, int64_t elements, const std::function<void()>& run) {
  Times ours, none;
  measure(state, run, nullptr, ours, none);
  state.counters["G/s"] = static_cast<double>(elements) / ours.median * 1e-9;
}

void depthwise(benchmark::State& state, int64_t side, int64_t channels, int64_t stride) {
  kernels::DepthwiseArgs d;
  const int64_t pixels = side / stride * (side / stride);
  const auto a = bytes(side * side * channels), w = bytes(9 * channels), pad = bytes(channels);
  auto c = bytes(pixels * channels);
  Aligned packed(table().depthwise_packed_bytes(channels, 9));
  table().depthwise_pack(channels, 9, reinterpret_cast<const int8_t*>(w.data()), packed.data());
  const std::vector<int32_t> bias(static_cast<size_t>(channels), 1);
  const std::vector<float> multiplier(static_cast<size_t>(channels), 1e-3f);
  d = {channels, 9,        a.data(),    nullptr,           pad.data(), packed.data(),
       c.data(), channels, bias.data(), multiplier.data(), 3};
  d.slide = d.slide_rows = stride;
  d.width = side / stride;
  d.h = d.w = side;
  d.top = d.left = 1;
  report(state, pixels * channels, [&] { table().depthwise(d, 0, pixels); });
}

// Images of side x side of a layer with a padding of 1, in tiles of so many results.
std::vector<kernels::WinogradTile> winograd_tiles(kernels::WinogradImages& images, int64_t side,
                                                  int64_t channels, int32_t step) {
  std::vector<kernels::WinogradTile> tiles;
  for (int32_t y = 0; y < side; y += step)
    for (int32_t x = 0; x < side; x += step) tiles.push_back({0, y, x});
  images.channels = channels;
  images.h = images.w = images.oh = images.ow = side;
  images.top = images.left = 1;
  images.tiles = tiles.data();
  return tiles;
}

// Operations are those of the layer's matrix product, as in gemm's rows.
void report_layer(benchmark::State& state, int64_t side, int64_t channels,
                  const std::function<void()>& run) {
  Times ours, none;
  measure(state, run, nullptr, ours, none);
  state.counters["Gop/s"] =
      18.0 * static_cast<double>(side * side * channels * channels) / ours.median * 1e-9;
}

// 3x3 layers by Winograd's algorithms.
void winograd(benchmark::State& state, int64_t side, int64_t channels) {
  const auto w = weights(9 * channels * channels, false);
  const auto a = bytes(side * side * channels), pad = bytes(channels);
  Aligned packed(table().winograd_packed_bytes(channels, channels)),
      scratch(table().winograd_scratch_bytes(channels)),
      c(static_cast<size_t>(side * side * channels));
  table().winograd_pack(channels, channels, w.data(), 0, channels, packed.data());
  const std::vector<int32_t> bias(static_cast<size_t>(channels), 1);
  const std::vector<float> multiplier(static_cast<size_t>(channels), 1e-4f);
  kernels::WinogradArgs g;
  const auto tiles = winograd_tiles(g, side, channels, 4);
  g.finish.shape.n = g.finish.ldc = channels;
  g.finish.c = c.data();
  g.finish.bias = bias.data();
  g.finish.multiplier = multiplier.data();
  g.a = a.data();
  g.pad = pad.data();
  g.weights = packed.data();
  report_layer(state, side, channels,
               [&] { table().winograd(g, scratch.data(), 0, std::ssize(tiles), 0, channels); });
}

void float_winograd(benchmark::State& state, int64_t side, int64_t channels) {
  const auto w = floats(9 * channels * channels), a = floats(side * side * channels);
  const std::vector<float> pad(static_cast<size_t>(channels));
  Aligned packed(table().float_winograd_packed_bytes(channels, channels)),
      scratch(table().float_winograd_scratch_bytes(channels)),
      c(static_cast<size_t>(side * side * channels) * sizeof(float));
  table().float_winograd_pack(channels, channels, w.data(), 0, channels,
                              static_cast<float*>(packed.data()));
  kernels::FloatWinogradArgs g;
  const auto tiles = winograd_tiles(g, side, channels, 2);
  g.n = g.ldc = channels;
  g.c = static_cast<float*>(c.data());
  g.a = a.data();
  g.pad = pad.data();
  g.weights = static_cast<const float*>(packed.data());
  report_layer(state, side, channels, [&] {
    table().float_winograd(g, scratch.data(), 0, std::ssize(tiles), 0, channels);
  });
}

void pool(benchmark::State& state, bool max) {
  constexpr int64_t kSide = 112, kChannels = 64, kPixels = 56 * 56;
  const auto a = bytes(kSide * kSide * kChannels);
  const auto offsets = window_3x3(kSide, 2, kChannels);
  auto y = bytes(kPixels * kChannels);
  const std::vector<float> multiplier(kPixels, 1.0f / 9);
  kernels::PoolArgs p;
  p.channels = kChannels;
  p.taps = 9;
  p.a = a.data();
  p.offsets = offsets.data();
  p.y = y.data();
  p.ldy = kChannels;
  p.zx = 3;
  p.multiplier = multiplier.data();
  report(state, kPixels * kChannels,
         [&] { (max ? table().max_pool : table().average_pool)(p, 0, kPixels); });
}

void global_average_pool(benchmark::State& state) {
  constexpr int64_t kChannels = 2048, kTaps = 49;
  const auto a = bytes(kTaps * kChannels);
  std::vector<int32_t> offsets;
  for (int32_t t = 0; t < kTaps; ++t) offsets.push_back(t * kChannels);
  auto y = bytes(kChannels);
  const float multiplier = 1.0f / kTaps;
  kernels::PoolArgs p;
  p.channels = kChannels;
  p.taps = kTaps;
  p.a = a.data();
  p.offsets = offsets.data();
  p.y = y.data();
  p.ldy = kChannels;
  p.multiplier = &multiplier;
  report(state, kTaps * kChannels, [&] { table().average_pool(p, 0, 1); });
}

// An elementwise kernel over n elements: codes a and b, floats x, results y (codes) and z (floats).
struct Operands {
  explicit Operands(int64_t n_)
      : n(n_), a(bytes(n)), b(bytes(n)), y(bytes(n)), x(floats(n)), z(floats(n)) {
    args = {a.data(), b.data(), 1, y.data(), {0.1f, 3}, {0.2f, 4}, 5.0f, 1e-3f, 7};
  }
  int64_t n;
  std::vector<uint8_t> a, b, y;
  std::vector<float> x, z;
  kernels::BinaryArgs args;
};

void add_others() {
  for (const auto& [side, channels, stride] :
       std::initializer_list<std::array<int64_t, 3>>{{112, 32, 1},
                                                     {112, 96, 2},
                                                     {56, 144, 1},
                                                     {28, 192, 1},
                                                     {14, 384, 1},
                                                     {14, 576, 1},
                                                     {7, 960, 1}})
    add(fmt::format("depthwise/3x3/{}x{}x{}{}", side, side, channels,
                    stride == 1 ? "" : "/stride2"),
        [side, channels, stride](benchmark::State& s) { depthwise(s, side, channels, stride); });
  for (const auto& [side, channels] : std::initializer_list<std::array<int64_t, 2>>{
           {224, 16}, {112, 32}, {56, 64}, {28, 128}, {14, 256}, {7, 512}}) {
    const std::string layer = fmt::format("{}x{}/{}to{}", side, side, channels, channels);
    if (table().winograd)
      add("winograd/" + layer,
          [side, channels](benchmark::State& s) { winograd(s, side, channels); });
    add("float_winograd/" + layer,
        [side, channels](benchmark::State& s) { float_winograd(s, side, channels); });
  }
  add("max_pool/3x3/112x112x64/stride2", [](benchmark::State& s) { pool(s, true); });
  add("average_pool/3x3/112x112x64/stride2", [](benchmark::State& s) { pool(s, false); });
  add("average_pool/7x7x2048", global_average_pool);

  using Run = void (*)(Operands&);
  const std::initializer_list<std::pair<const char*, Run>> elementwise = {
      {"add", [](Operands& o) { table().add(o.args, 0, o.n); }},
      {"mul", [](Operands& o) { table().mul(o.args, 0, o.n); }},
      {"lookup", [](Operands& o) { table().lookup(o.a.data(), o.y.data(), o.n, o.b.data()); }},
      {"quantize",
       [](Operands& o) { table().quantize(o.x.data(), o.y.data(), o.n, 20, 128, 0, 255); }},
      {"dequantize",
       [](Operands& o) { table().dequantize(o.a.data(), o.z.data(), o.n, 0.1f, 3, false); }},
      {"requantize",
       [](Operands& o) {
         table().requantize(o.a.data(), o.y.data(), o.n, {0.1f, 3}, 9, 4, 0, 255, false);
       }},
      {"min_max",
       [](Operands& o) {
         float least, greatest;
         int64_t not_finite;
         table().min_max(o.x.data(), o.n, &least, &greatest, &not_finite);
         benchmark::DoNotOptimize(least);
       }},
  };
  for (const auto& [name, run] : elementwise)
    for (int64_t n : {int64_t{1} << 14, int64_t{1} << 20})  // in L1 or L2; in L3 or memory
      add(fmt::format("{}/{}", name, n), [n, run = run](benchmark::State& s) {
        Operands o(n);
        report(s, n, [&] { run(o); });
      });
  for (const auto& [channels, pixels] :
       std::initializer_list<std::pair<int64_t, int64_t>>{{3, 224 * 224}, {64, 56 * 56}})
    add(fmt::format("quantize_nchw_to_nhwc/{}x{}", channels, pixels),
        [channels = channels, pixels = pixels](benchmark::State& s) {
          Operands o(channels * pixels);
          report(s, o.n, [&] {
            table().quantize_nchw_to_nhwc(o.x.data(), o.y.data(), channels, pixels, 20, 128, 0, 255,
                                          0, pixels);
          });
        });
  add("softmax/exp_sum/128", [](benchmark::State& s) {
    const auto x = floats(128);
    std::vector<double> y(128);
    report(s, 128,
           [&] { benchmark::DoNotOptimize(table().exp_sum(x.data(), 5.0f, y.data(), 128)); });
  });
  add("lstm_gates/512", [](benchmark::State& s) {
    const auto from = floats(4 * 512), r = floats(4 * 512);
    std::vector<float> g, cell(512), h(512);
    report(s, 512, [&] {
      g = from;
      table().lstm_gates(g.data(), r.data(), 512, cell.data(), h.data(), 512);
    });
  });
}

// -- the ceilings themselves ----------------------------------------------------------------------

void add_ceilings() {
  for (int64_t tasks : {2, 8, 64})  // what a step costs before any work is done
    add(fmt::format("ceiling/hand_out/{}tasks/threads:2", tasks), [tasks](benchmark::State& s) {
      set_num_threads(2);
      report(s, tasks,
             [tasks] { parallel_for(tasks, [](int64_t i) { benchmark::DoNotOptimize(i); }); });
    });
  for (int threads : {1, 2}) {
    for (bool widened : {false, true}) {
      if (widened && current_isa() != Isa::avx2)
        continue;  // the others' is the same for all weights
      add(fmt::format("ceiling/multipliers{}/threads:{}", widened ? "_widened" : "", threads),
          [threads, widened](benchmark::State& s) {
            set_num_threads(threads);
            Times ours, best;
            measure(
                s, [] {},
                [&](double length) {
                  return bench::multiplier_burst(current_isa(), threads, length, widened);
                },
                ours, best);
            s.counters["Gop/s"] = best.median > 0 ? 1e-9 / best.median : 0;
          });
    }
    for (int64_t mb : {16, 256})
      add(fmt::format("ceiling/read/{}MB/threads:{}", mb, threads),
          [threads, mb](benchmark::State& s) {
            set_num_threads(threads);
            const std::vector<uint8_t> memory(static_cast<size_t>(mb << 20), 1);
            Times ours, best;
            measure(
                s, [] {}, [&](double) { return bench::read_burst(memory, threads); }, ours, best);
            s.counters["GB/s"] = 1e-9 / best.median;
          });
  }
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  benchmark::AddCustomContext("octet", octet::cpu_description());
  octet::add_ceilings();
  octet::add_products();
  octet::add_others();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  octet::set_num_threads(1);
}
