#pragma once
// The dense matrix product of gemm_impl.h with weights of 4 bits, codes 0..15: they stay in 4 bits
// in memory and become bytes in registers, so products of few rows, which wait for the weights,
// read half as much.
//
// A panel is as gemm_impl.h's, two vectors of channels, in strides of 8 of k: [panel][k /
// 8][vector][channel][4 bytes], byte i of which holds the codes i (low) and 4 + i: a mask, and a
// shift and a mask, give the operands of two products.

#include "octet/kernels/gemm_impl.h"

namespace octet::kernels {
namespace {

template <typename Dot>
struct NibbleGemm {
  using Bytes = Gemm<Dot>;
  using V = typename Dot::V;
  using I = typename V::I;
  static constexpr int kRows = Dot::kRows;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kPanel = Bytes::kPanel;

  static OCTET_INLINE int64_t strides_of(const GemmShape& s) { return (s.k + 7) / 8; }
  static OCTET_INLINE int64_t vector_bytes(const GemmShape& s) { return strides_of(s) * V::kBytes; }
  static size_t packed_bytes(const GemmShape& s) {
    return static_cast<size_t>(Bytes::vectors_of(s) * vector_bytes(s));
  }

  static void pack_part(const GemmShape& s, int64_t n0, int64_t n1, const int8_t* w, void* packed) {
    pack({n1 - n0, s.k, s.taps}, w, static_cast<char*>(packed) + packed_bytes({n0, s.k, s.taps}));
  }
  static void pack(const GemmShape& s, const int8_t* w, void* packed) {
    __builtin_memset(packed, 0, packed_bytes(s));
    auto* out = static_cast<uint8_t*>(packed);
    const int64_t strides = strides_of(s);
    constexpr int64_t kRun = 8;  // strides: a cache line of a channel's weights is read at once
    for (int64_t n0 = 0; n0 < s.n; n0 += kPanel) {
      const int64_t stride_bytes = (s.n - n0 <= kLanes ? 1 : 2) * V::kBytes;
      for (int64_t run = 0; run < strides; run += kRun) {
        const int64_t end = run + kRun < strides ? run + kRun : strides;
        for (int c = 0; c < kPanel && n0 + c < s.n; ++c) {
          const int8_t* from = w + (n0 + c) * s.k;
          uint8_t* to = out + c / kLanes * V::kBytes + c % kLanes * 4;
          for (int64_t stride = run; stride < end; ++stride) {
            uint8_t q[8] = {};
            for (int64_t i = 0; i < 8 && stride * 8 + i < s.k; ++i)
              q[i] = static_cast<uint8_t>(from[stride * 8 + i]);
            for (int i = 0; i < 4; ++i)
              to[stride * stride_bytes + i] = static_cast<uint8_t>(q[i] | q[4 + i] << 4);
          }
        }
      }
      out += strides * stride_bytes;
    }
  }

  static_assert(Dot::kHalves == 1, "a product takes 4 bytes of a row");
  template <int kPart, int kM, int kN>  // the low codes or the high ones
  static OCTET_INLINE void part(I (&acc)[kM][kN], const uint8_t* const (&row)[kM], int64_t i,
                                const I (&nibbles)[kN], I mask) {
    I w[kN];
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j)
      w[j] = V::bit_and(kPart == 0 ? nibbles[j] : V::template shift_right16<4>(nibbles[j]), mask);
#pragma GCC unroll 16
    for (int r = 0; r < kM; ++r) {
      const I x = V::spread(row[r] + i + 4 * kPart);
#pragma GCC unroll 2
      for (int j = 0; j < kN; ++j) acc[r][j] = Dot::dot(acc[r][j], x, w[j]);
    }
  }

  template <int kM, int kN>  // the low codes and the high ones
  static OCTET_INLINE void both(I (&acc)[kM][kN], const uint8_t* const (&row)[kM], int64_t i,
                                const I (&nibbles)[kN], I mask) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      const I low = V::bit_and(nibbles[j], mask),
              high = V::bit_and(V::template shift_right16<4>(nibbles[j]), mask);
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r)
        acc[r][j] =
            Dot::dot_two(acc[r][j], V::spread(row[r] + i), low, V::spread(row[r] + i + 4), high);
    }
  }

  static constexpr int64_t kAhead = 8192;  // bytes

  // `count` tiles of kM rows from row m on, of one panel of kN vectors, of which `columns` channels
  // from n on are stored.
  template <int kM, int kN>
  static void tiles(const GemmArgs& g, const char* panel, int64_t m, int64_t count, int64_t n,
                    int64_t columns) {
    constexpr int kSets = Bytes::sets_of(kM * kN);
    constexpr int kAtOnce = kSets == 4 ? 2 : 1;  // strides
    const int64_t strides = strides_of(g.shape);
    const I mask = V::set8(15);
    alignas(64) int32_t bias[kN][kLanes];
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      const int64_t some = columns - j * kLanes < kLanes ? columns - j * kLanes : kLanes;
      V::store(bias[j], some > 0 ? V::load_i32(g.bias + n + j * kLanes, some) : V::zero());
    }
    // Weights come from beyond L2 while others are used: where few rows use them once, those a
    // little further on; else the next panel, a part of it for each tile.
    NextPanel ahead{panel + kN * vector_bytes(g.shape), kN * V::kBytes / count};
    for (; count > 0; --count, m += kM) {
      I acc[kSets][kM][kN];
      Bytes::begin(g, m, n, columns, bias, acc);
      const uint8_t* row[kM];
      const uint8_t* next = g.a + m * g.lda;
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r, next += g.lda) row[r] = next;
      const char* b = panel;
      int64_t i = 0;
      const int64_t end = strides * 8;
      if constexpr (kAtOnce == 2) {
        for (; i + 16 <= end; i += 16) {
          stride<kSets, 0>(acc, row, i, b, mask);
          stride<kSets, 2>(acc, row, i + 8, b, mask);
        }
      }
      for (; i < end; i += 8) {
        stride<kSets, 0>(acc, row, i, b, mask);
        if constexpr (kSets == 2 && requires { V::keep(acc[0][0][0]); })
#pragma GCC unroll 16
          for (int r = 0; r < kM; ++r)
#pragma GCC unroll 2
            for (int j = 0; j < kN; ++j) {
              V::keep(acc[0][r][j]);
              V::keep(acc[1][r][j]);
            }
        if constexpr (kM >= 3 && 2 * kM <= kRows) {
#pragma GCC unroll 2
          for (int j = 0; j < kN; ++j) __builtin_prefetch(b + kAhead + j * V::kBytes);
        } else if constexpr (kM >= 3) {
          ahead.template step<kN * V::kBytes>();
        }
      }
      Bytes::join(acc);
      alignas(64) int32_t sums[kM][kN][kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < kN; ++j) V::store(sums[r][j], acc[0][r][j]);
      Bytes::finish(g, &sums[0][0][0], m, n, kM, kN, columns);
    }
  }
  // One stride; its products go to the sets kFirst, kFirst + 1 ... by turns, or both to kFirst
  // where the instruction set adds two of them before it widens.
  template <int kSets, int kFirst, int kM, int kN>
  static OCTET_INLINE void stride(I (&acc)[kSets][kM][kN], const uint8_t* const (&row)[kM],
                                  int64_t i, const char*& b, I mask) {
    I nibbles[kN];
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) nibbles[j] = V::load(b + j * V::kBytes);
    b += kN * V::kBytes;
    if constexpr (requires { Dot::dot_two(acc[0][0][0], nibbles[0], mask, nibbles[0], mask); }) {
      both(acc[kFirst % kSets], row, i, nibbles, mask);
      return;
    }
    part<0>(acc[kFirst % kSets], row, i, nibbles, mask);
    part<1>(acc[(kFirst + 1) % kSets], row, i, nibbles, mask);
  }

  using Tiles = void (*)(const GemmArgs&, const char*, int64_t, int64_t, int64_t, int64_t);
  struct Shapes {
    Tiles of[2][kRows + 1] = {};  // [narrow][rows]
    template <int kM = kRows>
    constexpr void fill() {
      of[0][kM] = tiles<kM, 2>;
      of[1][kM] = tiles<kM, 1>;
      if constexpr (kM > 1) fill<kM - 1>();
    }
    constexpr Shapes() { fill(); }
  };
  static constexpr Shapes kShapes{};

  static void run(const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    Bytes::for_blocks(
        g, m0, m1, n0, n1, vector_bytes(g.shape),
        [](const char* /*panel*/, bool narrow, int64_t rows) { return kShapes.of[narrow][rows]; });
  }
};

}  // namespace
}  // namespace octet::kernels
