#pragma once
// What `compare` and `quantize --report` share.

#include "common.h"
#include "octet/debug/compare.h"

namespace octet::cli {

// debug::compare on the first `count` samples, with latency, size and memory measured, and advice
// if that is wanted.
debug::Comparison compare_models(const graph::Graph& before, const graph::Graph& after,
                                 const Dataset& dataset, int64_t count, bool advise);

}  // namespace octet::cli
