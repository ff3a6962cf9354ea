#pragma once
// From one layout of a value to the other.

#include <memory>

#include "octet/engine/engine.h"

namespace octet {

// Copies a 4-d value of `shape` (N, C, H, W), elements of 1, 2, 4 or 8 bytes, from row-major to
// channels_last, or back.
std::unique_ptr<KernelPlan> plan_reorder(const Shape& shape, size_t element_bytes,
                                         bool to_channels_last);

}  // namespace octet
