#pragma once
// One pass over a batch: minimum, maximum, and whether all values are finite.

#include <cstdint>

#include "octet/tensor/tensor.h"

namespace octet::quant::detail {

struct Extent {
  float min, max;  // -0 reads as 0, so that they do not depend on the order of the values
  bool finite;     // false: min and max mean nothing
};

// n >= 1. Large arrays are split over the threads.
Extent scan(const float* x, int64_t n);

// The same for each of `channels` columns of a row-major [rows][channels] block, merged into min[],
// max[]; false if a value is not finite. -0 may remain.
bool scan_columns(const float* x, int64_t rows, int64_t channels, float* min, float* max);

// x, or a copy of it, as float32 values that lie densely in memory, in any order.
Tensor dense(const Tensor& x);

}  // namespace octet::quant::detail
