// What bounds each layer of a model, as a Markdown table:
//   bench_roofline MODEL [threads] [rounds]
// A layer that multiplies (convolution, linear, matrix product) can be no faster than the
// multipliers at their peak, and no layer faster than its operands and its result can be read, all
// in the measure of this machine (ceilings.h). Reading is measured for a few sizes, so that what
// fits a cache is taken to come from it; where it comes from in truth is for the layers before to
// say, which is why a layer can be above 100%. "bound" is the larger of the two times, "%" that
// time by the layer's own. Times are the least of the rounds, on one thread or more; layers of the
// same kind, shape and bound are one line.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "bench/ceilings.h"
#include "octet/octet.h"

namespace octet {
namespace {

struct Layer {
  std::string what;
  double operations = 0, bytes = 0;  // multiplies and adds; read and written
  bool in_bytes = false;             // operands are 8-bit codes: vpdpbusd's peak is theirs
};

double bytes_of(const TensorType& t, int64_t batch) {
  double n = static_cast<double>(element_size(t.dtype));
  for (const Dim& d : t.dims) n *= static_cast<double>(d.known() ? d.size() : batch);
  return n;
}
double elements_of(const TensorType& t, int64_t batch) {
  return bytes_of(t, batch) / static_cast<double>(element_size(t.dtype));
}

std::string dims_of(const TensorType& t) {
  std::string r;
  for (size_t i = 1; i < t.dims.size(); ++i) r += (i > 1 ? "x" : "") + to_string(t.dims[i]);
  return r;
}

Layer layer_of(const graph::Graph& g, const graph::Node& node) {
  const TensorType& y = g.type(node.outputs[0]);
  Layer layer;
  layer.what = node.inputs.empty()  // an input that is reordered
                   ? "input " + dims_of(y)
                   : node.op + " " + dims_of(g.type(node.inputs[0])) + " -> " + dims_of(y);
  for (auto id : node.inputs)
    if (id != graph::kNone) layer.bytes += bytes_of(g.type(id), 1);
  for (auto id : node.outputs) layer.bytes += bytes_of(g.type(id), 1);
  const bool weights = node.op.rfind("conv", 0) == 0 || node.op.rfind("linear", 0) == 0;
  if (weights || node.op == "matmul") {
    const TensorType& w = g.type(node.inputs[1]);
    layer.in_bytes = element_size(w.dtype) == 1 && !w.dims.empty();
    // Each result is a sum over as many products as a weight has elements for its channel; of a
    // matrix product, over a row.
    const double sum = weights ? elements_of(w, 1) / static_cast<double>(w.dims[0].size())
                               : static_cast<double>(g.type(node.inputs[0]).dims.back().size());
    layer.operations = 2 * sum * elements_of(y, 1);
    if (node.op.rfind("conv", 0) == 0 && w.dims.size() == 4)
      layer.what += fmt::format(
          ", {}x{}{}", w.dims[2].size(), w.dims[3].size(),
          node.attrs.get_int("groups") == w.dims[0].size() && w.dims[0].size() > 1 ? " depthwise"
                                                                                   : "");
  }
  return layer;
}

void run(int argc, char** argv) {
  if (argc < 2) throw std::runtime_error("bench_roofline MODEL [threads] [rounds]");
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1,
            rounds = argc > 3 ? std::atoi(argv[3]) : 30;
  set_num_threads(threads);
  const std::string name = argv[1];
  const bool onnx = name.size() > 5 && name.substr(name.size() - 5) == ".onnx";
  const runtime::Program program = runtime::compile(
      onnx ? graph::multiply_codes(graph::merge_qdq(graph::fuse_activations(io::import_onnx(name))))
           : io::load_octet(name));
  const graph::Graph& g = program.graph();
  std::vector<Tensor> inputs;
  for (auto id : g.inputs()) {
    Shape shape;
    for (const Dim& d : g.type(id).dims) shape.push_back(d.known() ? d.size() : 1);
    inputs.push_back(Tensor::randn(shape, 1));
  }
  program.run(inputs);
  std::vector<double> seconds(program.steps().size(), 1e9), peaks;
  std::vector<std::vector<uint8_t>> memory;  // fits L2 well, fits L2, the last cache, ...
  for (size_t kilobytes : {128, 512, 2048, 8192, 65536})
    memory.emplace_back(kilobytes << 10, uint8_t{1});
  std::vector<double> read(memory.size(), 1e9);
  for (int i = 0; i < rounds; ++i) {
    const auto times = program.profile(inputs);
    for (size_t s = 0; s < times.size(); ++s) seconds[s] = std::min(seconds[s], times[s]);
    peaks.push_back(bench::multiplier_burst(current_isa(), threads));
    for (size_t j = 0; j < memory.size(); ++j) {
      bench::read_burst(memory[j], threads);  // into the cache that it fits
      read[j] = std::min(read[j], bench::read_burst(memory[j], threads));
    }
  }
  const double peak = bench::least(peaks);
  const auto reading = [&](double bytes) {  // seconds
    size_t j = 0;
    while (j + 1 < memory.size() && static_cast<double>(memory[j].size()) < bytes) ++j;
    return bytes * read[j];
  };

  struct Line {
    double gop = 0, us = 0, bound_us = 0;
    int count = 0;
    const char* by = "";
  };
  std::vector<std::pair<std::string, Line>> lines;
  Line all;
  double gop_at_peak = 0;
  for (size_t s = 0; s < seconds.size(); ++s) {
    const auto& step = program.steps()[s];
    if (step.node < 0 || step.with_previous) continue;
    // steps that run with this one, a few rows at a time: what they pass to each other stays in the
    // cache
    size_t more = 0;
    while (s + more + 1 < program.steps().size() && program.steps()[s + more + 1].with_previous)
      ++more;
    const Layer layer = layer_of(g, g.node(step.node));
    // (The peak is that of 8-bit products, not of float ones.)
    const double by_multipliers = layer.in_bytes ? layer.operations * peak : 0,
                 by_memory = reading(layer.bytes);
    const std::string what = layer.what +
                             (layer.operations > 0 && !layer.in_bytes ? " (float)" : "") +
                             (more ? fmt::format(", and {} by rows", more) : "");
    auto found =
        std::find_if(lines.begin(), lines.end(), [&](const auto& l) { return l.first == what; });
    if (found == lines.end()) found = lines.insert(lines.end(), {what, {}});
    for (Line* line : {&found->second, &all}) {
      line->gop += layer.operations * 1e-9;
      line->us += seconds[s] * 1e6;
      line->bound_us += std::max(by_multipliers, by_memory) * 1e6;
      line->count++;
      line->by = by_multipliers >= by_memory ? "multipliers" : "memory";
    }
    gop_at_peak += layer.in_bytes ? layer.operations * 1e-9 : 0;
  }
  std::printf(
      "%s on %s, %d thread(s): multipliers %.0f Gop/s, reading 512 KB %.0f, 2 MB %.0f, 64 MB %.0f "
      "GB/s\n\n",
      name.substr(name.rfind('/') + 1).c_str(), cpu_description().c_str(), threads, 1e-9 / peak,
      1e-9 / read[1], 1e-9 / read[2], 1e-9 / read[4]);
  std::printf(
      "| layer | times | Gop | us | bound by | bound us | %% of bound "
      "|\n|---|---|---|---|---|---|---|\n");
  std::sort(lines.begin(), lines.end(),
            [](const auto& a, const auto& b) { return a.second.us > b.second.us; });
  Line rest;
  for (const auto& [what, l] : lines) {
    if (l.us < all.us * 0.005) {
      rest.us += l.us, rest.gop += l.gop, rest.bound_us += l.bound_us, rest.count += l.count;
      continue;
    }
    std::printf("| %s | %d | %.3f | %.0f | %s | %.0f | %.0f |\n", what.c_str(), l.count, l.gop,
                l.us, l.by, l.bound_us, l.bound_us / l.us * 100);
  }
  if (rest.count)
    std::printf("| others, below 0.5%% each | %d | %.3f | %.0f | | %.0f | %.0f |\n", rest.count,
                rest.gop, rest.us, rest.bound_us, rest.bound_us / rest.us * 100);
  std::printf("| all | %d | %.3f | %.0f | | %.0f | %.0f |\n\n", all.count, all.gop, all.us,
              all.bound_us, all.bound_us / all.us * 100);
  std::printf(
      "8-bit products alone: %.3f Gop, at the multipliers' peak %.0f us, %.0f%% of the time.\n",
      gop_at_peak, gop_at_peak * 1e9 * peak * 1e6, gop_at_peak * 1e9 * peak * 1e6 / all.us * 100);
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  try {
    octet::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_roofline: %s\n", e.what());
    return 1;
  }
}
