#pragma once
// What this machine can do at best, measured: the multipliers (register-only loops of the
// instruction that the matrix kernels of an ISA are made of) and reading memory. Measured in short
// bursts between the runs of what is compared with them: clocks, and what else the machine does,
// change all the time, so only figures of the same moments may be compared.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"

namespace octet::bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename F>
double seconds_of(F&& run) {
  const double start = now();
  run();
  return now() - start;
}

inline double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}
inline double least(const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); }

#if defined(__x86_64__)
namespace detail {
// `loops` times one instruction on 24 or 12 accumulators: more than the latency of any x86 needs.
#define OCTET_BENCH_LOOP(name, isa, body, registers, ...)                              \
  __attribute__((target(isa), noinline)) inline void name(int64_t loops) {             \
    asm volatile("1:\n\t.irp r," registers "\n\t" body "\n\t.endr\n\tdec %0\n\tjnz 1b" \
                 : "+r"(loops)                                                         \
                 :                                                                     \
                 : __VA_ARGS__, "cc");                                                 \
  }
#define OCTET_BENCH_LOW_12                                                                 \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13"
OCTET_BENCH_LOOP(vpdpbusd_512, "avx512f,avx512vnni", "vpdpbusd %%zmm0, %%zmm1, %%zmm\\r",
                 "2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25",
                 OCTET_BENCH_LOW_12, "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20",
                 "xmm21", "xmm22", "xmm23", "xmm24", "xmm25")
OCTET_BENCH_LOOP(vpdpbusd_256, "avxvnni", "%{vex%} vpdpbusd %%ymm0, %%ymm1, %%ymm\\r",
                 "2,3,4,5,6,7,8,9,10,11,12,13", OCTET_BENCH_LOW_12)
// AVX2 has no exact product of bytes. Of weights whose sums cannot saturate 16 bits: bytes summed
// in pairs, two such sums of two steps, these in pairs, and added. Of others: operands widened to
// 16 bits, summed in pairs, and added.
OCTET_BENCH_LOOP(vpmaddubsw_256, "avx2",
                 "vpmaddubsw %%ymm0, %%ymm1, %%ymm14\n\tvpmaddubsw %%ymm0, %%ymm1, %%ymm15\n\t"
                 "vpaddw %%ymm14, %%ymm15, %%ymm14\n\tvpmaddwd %%ymm14, %%ymm1, %%ymm14\n\t"
                 "vpaddd %%ymm14, %%ymm\\r, %%ymm\\r",
                 "2,3,4,5,6,7,8,9,10,11,12,13", OCTET_BENCH_LOW_12, "xmm14", "xmm15")
OCTET_BENCH_LOOP(vpmaddwd_256, "avx2",
                 "vpmaddwd %%ymm0, %%ymm1, %%ymm14\n\tvpaddd %%ymm14, %%ymm\\r, %%ymm\\r",
                 "2,3,4,5,6,7,8,9,10,11,12,13", OCTET_BENCH_LOW_12, "xmm14")
#undef OCTET_BENCH_LOW_12
#undef OCTET_BENCH_LOOP
}  // namespace detail
#endif

// Seconds that one multiply or add (half a multiply-add) of bytes takes `threads` cores at best,
// from a burst of about `length` seconds: about as long as what is compared with it, so that both
// are interrupted as often. 0 if nothing is known of the ISA. `widened`: on AVX2, of weights that
// have to be widened to 16 bits; elsewhere all weights are alike.
inline double multiplier_burst(Isa isa, int threads, double length = 4e-4, bool widened = false) {
  struct Loop {
    void (*run)(int64_t) = nullptr;
    double operations = 0;  // in a loop
  };
#if defined(__x86_64__)
  const Loop loop = isa == Isa::avx512vnni ? Loop{detail::vpdpbusd_512, 24 * 128.0}
                    : isa == Isa::avxvnni  ? Loop{detail::vpdpbusd_256, 12 * 64.0}
                    : isa != Isa::avx2     ? Loop{}
                    : widened              ? Loop{detail::vpmaddwd_256, 12 * 32.0}
                                           : Loop{detail::vpmaddubsw_256, 12 * 128.0};
#else
  (void)isa, (void)widened;
  const Loop loop;
#endif
  if (!loop.run) return 0;
  const auto loops = static_cast<int64_t>(length * 3e9 / 24) + 1;
  const double seconds =
      seconds_of([&] { parallel_for(threads, [&](int64_t) { loop.run(loops); }); });
  return seconds / (loop.operations * static_cast<double>(loops * threads));
}

// Seconds that a byte takes when `bytes` are read once by all threads together. The same memory is
// read each time: what fits in a cache comes from there.
inline double read_burst(const std::vector<uint8_t>& memory, int threads) {
  // 16 bytes each: eight sums and the load fit every x86's registers.
  using V = uint64_t __attribute__((vector_size(16), aligned(1), may_alias));
  const int64_t part = static_cast<int64_t>(memory.size()) / threads / 128 * 128;
  const double seconds = seconds_of([&] {
    parallel_for(threads, [&](int64_t i) {
      V sum[8] = {};
      const uint8_t* p = memory.data() + i * part;
      for (int64_t at = 0; at < part; at += 128)
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) sum[k] ^= *reinterpret_cast<const V*>(p + at + k * 16);
      const V all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
      asm volatile("" : : "r"(all[0] ^ all[1]));
    });
  });
  return seconds / static_cast<double>(part * threads);
}

}  // namespace octet::bench
