// Milliseconds of linear layers whose weights have 4 or 8 bits, one JSON object a line.
//   bench_weight_only [threads] [seconds] [op] [bits] [M K N]    op: linear_weight_only (default)
//                                                                or linear_dynamic
// Without M K N: the shapes of ONNX Runtime's MatMulNBits that octet is compared with. bits: 4
// (default), 8, or 32 for the float layer.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "octet/base/parallel.h"
#include "octet/graph/graph.h"
#include "octet/runtime/program.h"

namespace {

using namespace octet;

Tensor weight(int64_t n, int64_t k, int bits) {
  Tensor w = Tensor::rand({n, k}, 1, -1, 1);
  if (bits == 32) return w;
  const DType dtype = bits == 4 ? DType::qint4x2 : DType::qint8;
  const double scale = 2.0 / static_cast<double>(qmax(dtype) - qmin(dtype));
  return quantize_per_channel(w, std::vector<double>(n, scale), std::vector<int64_t>(n, 0), 0,
                              dtype);
}

void measure(const std::string& op, int bits, int64_t m, int64_t k, int64_t n, double seconds) {
  graph::Graph g;
  const auto x = g.add_input("x", TensorType(DType::float32, {Dim(m), Dim(k)}));
  const auto w = g.add_constant("w", weight(n, k, bits));
  g.set_outputs({g.add_call("y", bits == 32 ? "linear" : op, {x, w})});
  const runtime::Program program = runtime::compile(g);
  const std::vector<Tensor> inputs{Tensor::randn({m, k}, 2)};
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) program.run(inputs);
  for (const auto end = Clock::now() + std::chrono::duration<double>(seconds);
       Clock::now() < end || times.size() < 5;) {
    const auto start = Clock::now();
    program.run(inputs);
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  std::printf(
      "{\"op\": \"%s\", \"bits\": %d, \"m\": %lld, \"k\": %lld, \"n\": %lld, \"threads\": %d, "
      "\"median_ms\": %.4f, \"min_ms\": %.4f, "
      "\"kernel\": \"%s\"}\n",
      bits == 32 ? "linear" : op.c_str(), bits, static_cast<long long>(m),
      static_cast<long long>(k), static_cast<long long>(n), num_threads(), times[times.size() / 2],
      times[0], program.steps().back().kernel.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  octet::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
  const std::string op = argc > 3 ? argv[3] : "linear_weight_only";
  const int bits = argc > 4 ? std::atoi(argv[4]) : 4;
  if (argc > 7) {
    measure(op, bits, std::atoll(argv[5]), std::atoll(argv[6]), std::atoll(argv[7]), seconds);
    return 0;
  }
  const int64_t shapes[][3] = {
      {1, 4096, 4096}, {16, 4096, 4096}, {128, 768, 3072}, {1024, 1024, 1024}};
  for (const auto& [m, k, n] : shapes) measure(op, bits, m, k, n, seconds);
}
