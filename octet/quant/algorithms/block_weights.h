#pragma once
// Weights of few bits with a scale and a zero point for each block of inputs, as language models
// have them: rounded to the nearest code, or by GPTQ (gptq.h).
//
//   graph::Graph small = quant::quantize_block_weights(graph, samples, {.bits = 4});

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/quant/observe/factory.h"

namespace octet::quant {

struct BlockWeightOptions {
  int bits = 4;             // 2, 3 (kept in 4), 4 or 8
  int64_t block_size = 32;  // inputs that share a scale; a multiple of 8, or of 4 with 2 bits
  // Rounds by what layers compute, with ranges of blocks that have the least error weighted by h's
  // diagonal (gptq.h); false: to the nearest code, with the range from the least to the greatest.
  bool gptq = true;
  double damping = 0.01;  // these four: as GPTQOptions
  int64_t rows = 16384;
  int sweeps = 20;
  int learn_scales = 3;
  // Makes observers of the layers' operands, which become codes by the range that is observed in
  // the float network; without one they stay float.
  std::optional<ObserverFactory> activation = {};
  std::vector<std::string> skip = {};  // layers that stay float: names, globs, re:expressions
};

struct BlockWeightReport {
  struct Entry {
    std::string layer;  // quant::node_name
    // With gptq: (w - q) h (w - q)^T by the nearest code of the same ranges, and as it is now.
    double nearest_error = 0, error = 0;
  };
  std::vector<Entry> layers;
};

// Each linear layer of a float graph with a constant weight of its own becomes linear_blocks; its
// operand, if `activation` is there, goes through codes before (quantize, dequantize), everything
// else stays as it is. In the order of the graph, each layer sees what the layers before have lost,
// and with gptq makes up for it. `samples`: batches of inputs in the graph's order, all of whose
// live values are kept; the nearest code without `activation` needs none. Errors: invalid_argument
// for options out of range, if no layer is found, and without samples that are needed.
graph::Graph quantize_block_weights(const graph::Graph& graph,
                                    const std::vector<std::vector<Tensor>>& samples,
                                    const BlockWeightOptions& options = {},
                                    BlockWeightReport* report = nullptr);

}  // namespace octet::quant
