#pragma once
// What would become of a quantized network on CPUs without VNNI in libraries whose kernels multiply
// unsigned by signed bytes with vpmaddubsw: ONNX Runtime, FBGEMM and oneDNN (OpenVINO) on AVX2 and
// on AVX-512 without VNNI. That instruction adds two neighbouring products in 16 bits and
// saturates: 255 * 127 + 255 * 127 = 64770 becomes 32767. octet's own kernels never do. The
// forecast follows ONNX Runtime, with which it was compared (docs/explain.md).
//
//   runtime::Program program = runtime::compile(graph);
//   debug::SaturationReport report = debug::forecast_saturation(program, {{x}});
//   for (const debug::SaturationForecast& f : report.layers)
//     std::cout << f.name << ": " << f.risky_pairs << " of " << f.weight_pairs << " pairs\n";
//
// Pairs are neighbours along the order in which those libraries pack: positions of the window
// outside, input channels inside, two by two.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "octet/debug/metrics.h"
#include "octet/runtime/program.h"

namespace octet::debug {

// vpmaddubsw and vpmaddwd with ones, of whole rows: the sum over pairs of saturate16(x[i] * w[i] +
// x[i + 1] * w[i + 1]), i even; a last element without a neighbour is alone. `saturated` is
// increased by the number of pairs that were cut.
int64_t saturating_dot(std::span<const uint8_t> x, std::span<const int8_t> w, int64_t& saturated);

// One layer: a convolution or linear layer on codes, static or dynamic, with a weight of 8 bits.
struct SaturationForecast {
  std::string name, op;
  // Pairs of neighbouring weights; of them those whose sum leaves 16 bits for some codes 0..255.
  int64_t weight_pairs = 0, risky_pairs = 0;
  // Sums of pairs that the samples made, and how many of them saturated.
  int64_t sums = 0, saturated = 0;
  // The layer's results, saturating against exact, from the operands that it had.
  ErrorStatistics error;
  double most_steps = 0;  // the farthest, in steps of the result's scale; NaN of dynamic layers
  std::string note;       // why the layer is exact there whatever its weights; else empty

  // Whether a result is another: by the samples, or without any, whether it can be.
  bool saturates() const { return sums > 0 ? saturated > 0 : risky_pairs > 0; }
};

struct SaturationReport {
  std::vector<SaturationForecast> layers;
  // The network's results by output, all layers saturating, against exact.
  struct Output {
    std::string name;
    ErrorStatistics error;
    int64_t rows = 0, other_class = 0;  // of (N, classes): rows whose largest value moved elsewhere
  };
  std::vector<Output> outputs;
  int64_t samples = 0;
  std::vector<std::string> summary() const;
};
// A table of at most 100 columns, and the summary.
std::string to_string(const SaturationReport& report);

// `samples` are inputs of runs, each in the order of the graph's inputs; without any the forecast
// is made from the weights alone. The first call registers the engine "saturating16" (its kernels
// compute as described above; all else is native's).
SaturationReport forecast_saturation(const runtime::Program& program,
                                     const std::vector<std::vector<Tensor>>& samples);

}  // namespace octet::debug
