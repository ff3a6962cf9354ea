#pragma once
// Which elements of an image each output of a pool takes, of one to three spatial dimensions.

#include <cstdint>
#include <vector>

#include "octet/engine/engine.h"

namespace octet::engine_detail {

struct PoolTaps {
  int64_t taps = 0;  // most of any output
  // [outputs][taps] in an image whose channels lie together; -1: none
  std::vector<int32_t> offsets;
  std::vector<int64_t> counts;  // [outputs], what an average divides by
};

// Of max_pool*, avg_pool* and their adaptive forms. x and y have three spatial dimensions. Error
// unsupported if an image is too large for 32-bit offsets.
PoolTaps pool_taps(const OpSpec& spec, const Shape& x, const Shape& y);

}  // namespace octet::engine_detail
