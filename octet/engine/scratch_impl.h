#pragma once
// What plans of several engines do with their operands and their scratch memory.

#include <cstddef>
#include <cstdint>

#include "octet/base/parallel.h"

namespace octet::engine_detail {

// How a plan divides its scratch memory: parts begin on cache lines.
class ScratchParts {
 public:
  size_t take(size_t bytes) {  // where the part begins
    const size_t at = total_;
    total_ += (bytes + 63) / 64 * 64;
    return at;
  }
  size_t bytes() const { return total_; }

 private:
  size_t total_ = 0;
};

// dst = src with the sign bit of every byte flipped: qint8 codes as quint8 ones. flip_signs_here:
// on the calling thread. dst may be src.
inline void flip_signs_here(const uint8_t* src, uint8_t* dst, int64_t n) {
  constexpr int64_t kAtOnce = 32;  // a loop of known length, which the compiler makes vectors of
  for (; n >= kAtOnce; n -= kAtOnce, src += kAtOnce, dst += kAtOnce)
    for (int64_t i = 0; i < kAtOnce; ++i) dst[i] = src[i] ^ 0x80;
  for (int64_t i = 0; i < n; ++i) dst[i] = src[i] ^ 0x80;
}
inline void flip_signs(const void* src, uint8_t* dst, int64_t n) {
  const auto* s = static_cast<const uint8_t*>(src);
  parallel_ranges(n, 1 << 16,
                  [&](int64_t i0, int64_t i1) { flip_signs_here(s + i0, dst + i0, i1 - i0); });
}

}  // namespace octet::engine_detail
