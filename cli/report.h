#pragma once
// What `compare` and `quantize --report` share.

#include "cli/common.h"
#include "octet/debug/compare.h"

namespace octet::cli {

// debug::compare on the first `count` samples, with size and memory, latency (each runs for so many
// seconds), and advice if that is wanted. Layers are those of quant::float_counterpart().
// Several ranks share the samples, and go on alone from there; what others than the first are given
// says nothing.
debug::Comparison compare_models(const graph::Graph& before, const graph::Graph& after,
                                 const Dataset& dataset, int64_t count, bool advise,
                                 double seconds = 0.2);

}  // namespace octet::cli
