#pragma once
// When matrix products prefetch their weights.

#include <cstdint>

namespace octet::kernels {

// Weights beyond L2 take longer to come than few rows take to pass over a panel of them. So where
// at most so many register tiles of rows meet a panel, the next one is prefetched meanwhile, a part
// of it with each step. By CPU: 20 where it has AVX-VNNI (measured on Zen 5: up to a third of a
// layer's time), else 4 (on Zen 4 more of them cost up to 5% and gained nothing).
extern const int64_t g_fetch_tiles;

}  // namespace octet::kernels
