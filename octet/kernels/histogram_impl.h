#pragma once
// Counting floats by bin, for a vector type V (simd512_impl.h).
//
// One store per value is the pace; all else is made to fit beside it. Bins are computed for a block
// at a time, which leaves no branch that depends on the data. Values in the bin of 0 (every other
// one after a ReLU) are counted by lane: runs of increments of one counter would wait for each
// other. What is counted was just written by another operator and lies in a far cache, and hardware
// gives up at every page, so it is asked for ahead.

#include <cstdint>

#include "octet/kernels/codes_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

template <typename V>
struct Histograms {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int64_t kLanes = V::kLanes;
  static_assert(kLanes <= HistogramArgs::kSpare);

  static bool run(const HistogramArgs& h, const float* x, int64_t n) {
    return h.inverse < 1 ? count<true>(h, x, n) : count<false>(h, x, n);
  }

 private:
  // Where the width is above 1 (kMayVanish), products with its inverse may underflow to 0 from
  // below, whose floor is -1.
  template <bool kMayVanish>
  static bool count(const HistogramArgs& h, const float* x, int64_t n) {
    constexpr int64_t kBlock = 128;
    constexpr uintptr_t kAhead = 2048;  // bytes
    alignas(64) static constexpr int32_t kNumbers[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                         8, 9, 10, 11, 12, 13, 14, 15};
    alignas(64) int32_t bins[kBlock];
    const F lo = V::set(h.lo), hi = V::set(h.hi), inverse = V::set(h.inverse),
            width = V::set(1 / h.inverse);
    const I first = V::set(h.first), zero_bin = V::set(-h.first),
            by_lane = V::add(V::load(kNumbers), V::set(h.bins));
    uint32_t* const counts = h.counts;
    int64_t i = 0;
    for (; i + kBlock <= n; i += kBlock) {
      for (int64_t j = 0; j < kBlock; j += kLanes) {
        __builtin_prefetch(
            reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(x + i + j) + kAhead));
        const F value = V::load_f32(x + i + j);
        if (!V::within(value, lo, hi)) return false;
        I k = V::floor(V::mul(value, inverse));
        if constexpr (kMayVanish) k = V::minus_where_less(k, value, V::mul(V::to_float(k), width));
        k = V::sub(k, first);
        V::store(bins + j, V::replace(k, zero_bin, by_lane));
      }
#pragma GCC unroll 8
      for (int64_t j = 0; j < kBlock; j += 2) {  // two bins per load
        uint64_t two;
        __builtin_memcpy(&two, bins + j, 8);
        ++counts[two & 0xffffffff];
        ++counts[two >> 32];
      }
    }
    for (int64_t lane = 0; lane < kLanes; ++lane)
      if (uint32_t& count = counts[h.bins + lane]; count > 0) {
        counts[-h.first] += count;
        count = 0;
      }
    for (; i < n; ++i) {
      if (!(x[i] >= h.lo && x[i] <= h.hi)) return false;
      int32_t k = static_cast<int32_t>(__builtin_floorf(x[i] * h.inverse));
      if (kMayVanish && x[i] < 0 && k == 0) k = -1;
      ++counts[k - h.first];
    }
    return true;
  }
};

}  // namespace
}  // namespace octet::kernels
