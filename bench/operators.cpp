// octet's side of the rows of bench/compare.py that are no file of octet's program: dynamic and
// 4-bit layers.
//   bench_operators ROW [threads] [seconds]
//     -> {"median_ms": ..., "min_ms": ..., "load_ms": ..., "peak_rss_mb": ...}
//   ROW: dynamic_linear_MxKxN, int4_linear_MxKxN (4-bit weights, float activations),
//   int4_dynamic_linear_MxKxN (activations quantized to 8 bits at run time, as ONNX Runtime does at
//   accuracy_level 4), dynamic_lstm (2 layers of 512, 64 tokens), or a float ONNX file, which is
//   quantized dynamically
#include <sys/resource.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/ceilings.h"
#include "octet/octet.h"

namespace octet {
namespace {

// What of `name` follows `prefix`; nullptr if it has another.
const char* after(const std::string& name, const std::string& prefix) {
  return name.rfind(prefix, 0) == 0 ? name.c_str() + prefix.size() : nullptr;
}

graph::Graph linear(const char* sizes, bool weight_only, bool four_bits) {
  int64_t m = 0, k = 0, n = 0;
  if (std::sscanf(sizes, "%ldx%ldx%ld", &m, &k, &n) != 3)
    throw std::runtime_error(std::string("expected MxKxN, got ") + sizes);
  graph::Graph g;
  const auto x = g.add_input("x", TensorType(DType::float32, Shape{m, k}));
  const auto w = g.add_constant("w", Tensor::randn({n, k}, 1));
  g.set_outputs({g.add_call("y", "linear", {x, w})});
  quant::QConfig qconfig = quant::default_dynamic_qconfig();
  quant::ObserverFactory weight = quant::default_per_channel_weight_observer();
  if (four_bits) weight = weight.with_quant_range(-8, 7);
  qconfig.weight = weight;
  return weight_only ? quant::quantize_weight_only_fx(g, weight)
                     : quant::quantize_dynamic_fx(g, qconfig);
}

struct Recurrent : nn::Module {
  Recurrent()
      : lstm(slot("lstm", nn::make<nn::LSTM>(512, 512, nn::RecurrentOptions{.num_layers = 2}))) {}
  Tensor forward(Tensor x) override { return lstm(std::vector<Tensor>{x})[0]; }
  nn::Slot lstm;
};

graph::Graph lstm() {
  auto net = nn::make<Recurrent>();
  net->eval();
  return quant::convert_fx(quant::prepare_fx(net, quant::default_dynamic_qconfig(),
                                             std::vector<Tensor>{Tensor::randn({64, 1, 512}, 1)}))
      ->to_graph();
}

graph::Graph row(const std::string& name) {
  if (const char* sizes = after(name, "dynamic_linear_")) return linear(sizes, false, false);
  if (const char* sizes = after(name, "int4_linear_")) return linear(sizes, true, true);
  if (const char* sizes = after(name, "int4_dynamic_linear_")) return linear(sizes, false, true);
  if (name == "dynamic_lstm") return lstm();
  return quant::quantize_dynamic_fx(graph::fuse_activations(io::import_onnx(name)));
}

void run(int argc, char** argv) {
  if (argc < 2) throw std::runtime_error("bench_operators ROW [threads] [seconds]");
  set_num_threads(argc > 2 ? std::atoi(argv[2]) : 1);
  const double seconds = argc > 3 ? std::atof(argv[3]) : 1;
  const graph::Graph g = row(argv[1]);
  const double start = bench::now();
  const runtime::Program program = runtime::compile(g);
  const double loaded = bench::now();
  const bool tokens = !g.type(g.inputs()[0]).is_static();  // the LSTM's number of them
  const std::vector<Tensor> inputs{
      Tensor::randn(tokens ? Shape{64, 1, 512} : g.type(g.inputs()[0]).shape(), 2)};
  for (int i = 0; i < 3; ++i) program.run(inputs);
  std::vector<double> times;
  for (const double end = bench::now() + seconds; bench::now() < end || times.size() < 5;)
    times.push_back(bench::seconds_of([&] { program.run(inputs); }) * 1e3);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::cout << nlohmann::ordered_json{{"median_ms", bench::median(times)},
                                      {"min_ms", bench::least(times)},
                                      {"load_ms", (loaded - start) * 1e3},
                                      {"peak_rss_mb", static_cast<double>(usage.ru_maxrss) / 1024}}
            << "\n";
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  try {
    octet::run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << "bench_operators: " << e.what() << "\n";
    return 1;
  }
}
