#pragma once
// When and how matrix products prefetch their weights.

#include <cstdint>

#include "octet/kernels/codes_impl.h"

namespace octet::kernels {

// Weights beyond L2 take longer to come than few rows take to pass over a panel of them. So where
// at most so many register tiles of rows meet a panel, the next one is prefetched meanwhile, a part
// of it with each step. By CPU: 20 where it has AVX-VNNI (measured on Zen 5: up to a quarter of a
// layer's time), else 4 (on Zen 4 more of them cost up to 5% and gained nothing).
extern const int64_t g_prefetch_tiles;

namespace {

// The weights of the next panel. A step goes `bytes` further and asks for the cache lines of
// kStepBytes, as many as it takes of this panel.
struct NextPanel {
  const char* next;
  int64_t bytes;

  template <int kStepBytes>
  OCTET_INLINE void step() {
#pragma GCC unroll 2
    for (int line = 0; line < kStepBytes; line += 64) __builtin_prefetch(next + line, 0, 2);
    next += bytes;
  }
};

}  // namespace
}  // namespace octet::kernels
