#pragma once
// What went wrong in a quantized graph, said in words: results that differ too much, and what
// quant/workflow/findings.h says of ranges. One line each, with the place and the cure:
//
//   for (const std::string& line : debug::find_losses(float_graph, int8_graph, samples))
//     std::cerr << line << "\n";

#include <string>
#include <vector>

#include "octet/debug/metrics.h"
#include "octet/graph/graph.h"

namespace octet::debug {

// In dB. Below this an output is taken for garbage: noise of more than a sixth of the signal, in
// RMS.
inline constexpr double kPoorSqnr = 15;

// The outputs under kPoorSqnr, each with the node where the error grows most, which a run of both
// graphs on `inputs` (one batch, a sample or few) finds. `outputs` has one entry for each output of
// the graphs.
std::vector<std::string> poor_outputs(const graph::Graph& before, const graph::Graph& after,
                                      const std::vector<ErrorStatistics>& outputs,
                                      const std::vector<Tensor>& inputs);

// All of it, for a float graph and what became of it (names of values as convert_fx gives them);
// each sample is a batch of inputs in the graph's order. Both graphs are run on all samples. Error
// without samples, or if the graphs have different numbers of outputs.
std::vector<std::string> find_losses(const graph::Graph& before, const graph::Graph& after,
                                     const std::vector<std::vector<Tensor>>& samples);

}  // namespace octet::debug
