#pragma once
// The matrix product behind linear and convolution layers, as a template over an ISA's `Dot` (see
// isa/*.cpp): lanes are output channels, and one step multiplies 4 bytes of k of a row, broadcast
// to all lanes, with 4 weights per lane.
//
// Weights are packed into panels of 2 vectors of channels: [panel][tap][k / 4][channel][4], zero
// padded in k and n, so the inner loop reads them in order. A last panel of at most one vector is
// stored (and run) one vector wide.
//
// A tile is up to kRows rows times one panel, its accumulators all in registers: per step 2 loads
// of weights, a broadcast load per row and 2 products per row, so the multipliers are the limit and
// not the loads. Rows are shared out evenly over the tiles (49 rows make 5 tiles of 10, not 4 of 12
// and one of 1). Tiles of one to three rows have too few accumulators to hide the latency of the
// product, so they keep several sets of them over neighbouring steps.
//
// Rows are pointers, one per tap, which makes a convolution the same loop as a product: taps
// outside, k inside. The rows are cut in blocks whose activations stay in L2 while all panels pass
// over them; within a block a panel meets every tile before the next panel is read.
//
// With few k the way out weighs as much as the sum: a tile's last steps are done a few rows at a
// time, so that the requantization of one group of rows overlaps with the products of the next.
// With very few a panel's weights stay in registers and there are no tiles: rows come in pairs, one
// after the other.

#include "octet/kernels/bytes16_impl.h"
#include "octet/kernels/codes_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/kernels/prefetch_impl.h"

namespace octet::kernels {
namespace {

// of[i] = the i-th four bytes of each of four rows.
OCTET_INLINE void transpose_quads(const int8_t* rows, int64_t row_bytes, Bytes16::I (&of)[4]) {
  using B = Bytes16;
  const auto row = [&](int r) OCTET_INLINE_LAMBDA { return B::load(rows + r * row_bytes); };
  const B::I low01 = B::unpacklo32(row(0), row(1)), high01 = B::unpackhi32(row(0), row(1));
  const B::I low23 = B::unpacklo32(row(2), row(3)), high23 = B::unpackhi32(row(2), row(3));
  of[0] = B::unpacklo64(low01, low23);
  of[1] = B::unpackhi64(low01, low23);
  of[2] = B::unpacklo64(high01, high23);
  of[3] = B::unpackhi64(high01, high23);
}

// What a `Dot` says of its panels: they begin with this many bytes a vector, here none.
struct NoHeader {
  static constexpr int64_t kHeaderBytes = 0;
  static OCTET_INLINE void put_header(char*, int /*vectors*/) {}
};

// What a panel holds besides its weights, for tiles of kN vectors, of channels from n on; a `Dot`
// whose products are exact for all weights needs nothing. `half`: how many bytes behind those of
// its first half the weights of the second lie (Dot::kHalves). split_gemm_impl.h has the other.
template <typename Dot, int kN>
struct Excess {
  using I = typename Dot::V::I;
  static constexpr int64_t half = 0;
  const char* weights;
  OCTET_INLINE Excess(const GemmShape&, const char* /*packed*/, const char* panel, int64_t /*n*/)
      : weights(panel + kN * Dot::kHeaderBytes) {}
  template <int kM>
  OCTET_INLINE void begin(I (&)[kM][kN]) {}
  template <int kM>
  OCTET_INLINE void add(I (&)[kM][kN], const uint8_t* const (&)[kM], int64_t /*tap*/) {}
  OCTET_INLINE void skip(int64_t /*tap*/) {}
};

// Where the rows of a tile are stored.
struct EvenRows {
  uint8_t* first;
  int64_t bytes;  // from one to the next
  OCTET_INLINE uint8_t* operator()(int r) const { return first + r * bytes; }
};
template <int kM>
struct ScatteredRows {
  uint8_t* rows[kM];
  OCTET_INLINE uint8_t* operator()(int r) const { return rows[r]; }
};

// kSums: dense rows only, to int32 (what Winograd's algorithm multiplies).
template <typename Dot, bool kSums = false>
struct Gemm {
  using V = typename Dot::V;
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kRows = Dot::kRows;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kPanel = 2 * kLanes;

  static OCTET_INLINE int64_t steps_of(const GemmShape& s) { return (s.k + 3) / 4; }
  static OCTET_INLINE int64_t vector_bytes(const GemmShape& s) {
    return Dot::kHeaderBytes + s.taps * steps_of(s) * Dot::kVectorBytes;
  }
  static OCTET_INLINE int64_t vectors_of(const GemmShape& s) {
    const int64_t rest = s.n % kPanel;
    return s.n / kPanel * 2 + (rest == 0 ? 0 : rest <= kLanes ? 1 : 2);
  }

  static size_t packed_bytes(const GemmShape& s) {
    return static_cast<size_t>(vectors_of(s) * vector_bytes(s));
  }

  static void pack_part(const GemmShape& s, int64_t n0, int64_t n1, const int8_t* w, void* packed) {
    pack({n1 - n0, s.k, s.taps}, w, static_cast<char*>(packed) + packed_bytes({n0, s.k, s.taps}));
  }
  // A panel's weights of some steps at a time: of each channel a cache line is read, and what is
  // written stays in L1. Four channels by four steps are a 4 x 4 transpose of quads; the edges go
  // one by one.
  static void pack(const GemmShape& s, const int8_t* w, void* packed) {
    if (s.n % kLanes != 0 || s.k % 4 != 0) __builtin_memset(packed, 0, packed_bytes(s));
    char* out = static_cast<char*>(packed);
    const int64_t whole = s.k / 4, steps = steps_of(s);
    constexpr int64_t kRun = 16;  // steps
    for (int64_t n0 = 0; n0 < s.n; n0 += kPanel) {
      const int vectors = s.n - n0 <= kLanes ? 1 : 2;
      const int64_t step_bytes = vectors * Dot::kVectorBytes;
      Dot::put_header(out, vectors);
      out += vectors * Dot::kHeaderBytes;
      for (int64_t t = 0; t < s.taps; ++t, out += steps * step_bytes) {
        for (int64_t run = 0; run < steps; run += kRun) {
          const int64_t end = run + kRun < steps ? run + kRun : steps;
          // no four steps begin from here on
          const int64_t fours = (end < whole ? end : whole) - 3;
          for (int c = 0; c < kPanel && n0 + c < s.n; ++c) {
            const int8_t* from = w + ((n0 + c) * s.taps + t) * s.k;
            // a run is a cache line of each row: no stream that the hardware would see
            __builtin_prefetch(from + (run + kRun) * 4);
            char* to = out + c / kLanes * Dot::kVectorBytes;
            int64_t step = run;
            if (const int64_t first = n0 + c / 4 * 4; first + 4 <= s.n) {
              for (; step < fours; step += 4) {
                if (c % 4 != 0) continue;
                Bytes16::I quads[4];
                transpose_quads(from + step * 4, s.taps * s.k, quads);
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i)
                  Dot::put_four(to + (step + i) * step_bytes, c % kLanes, quads[i]);
              }
            }
            for (; step < end; ++step) {
              int8_t quad[4] = {};
              if (step < whole) {
                __builtin_memcpy(quad, from + step * 4, 4);
              } else {
                for (int64_t i = 0; i < s.k % 4; ++i) quad[i] = from[step * 4 + i];
              }
              Dot::put(to + step * step_bytes, c % kLanes, quad);
            }
          }
        }
      }
    }
  }

  // Four rows of B make a step: their bytes are interleaved, a quad per channel.
  static void pack_columns(const GemmShape& s, const uint8_t* b, uint8_t flip, void* packed,
                           int32_t* sums) {
    const int64_t n = s.n, vector = vector_bytes(s);
    using B = Bytes16;
    const B::I flips = B::set8(flip);
    for (int64_t j = 0; j < n; ++j) sums[j] = 0;
    for (int64_t k = 0; k < s.k; ++k)
      for (int64_t j = 0; j < n; ++j) sums[j] += static_cast<int8_t>(b[k * n + j] ^ flip);
    for (int64_t n0 = 0; n0 < n; n0 += kPanel) {
      const int vectors = n - n0 <= kLanes ? 1 : 2;
      char* out = static_cast<char*>(packed) + n0 / kLanes * vector;
      Dot::put_header(out, vectors);
      out += vectors * Dot::kHeaderBytes;
      for (int64_t k = 0; k < s.k; k += 4) {
        alignas(64) int8_t quads[kPanel][4];
        for (int64_t c = 0; c < vectors * kLanes; c += 8) {
          B::I rows[4];
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            rows[i] = B::zero();
            if (k + i >= s.k || n0 + c >= n) continue;
            const uint8_t* from = b + (k + i) * n + n0 + c;
            if (n - n0 - c >= 8) {
              rows[i] = B::load_half(from) ^ flips;
            } else {
              uint8_t some[16] = {};
              for (int64_t j = 0; j < n - n0 - c; ++j) some[j] = from[j] ^ flip;
              rows[i] = B::load(some);
            }
          }
          const B::I low = B::unpacklo8(rows[0], rows[1]), high = B::unpacklo8(rows[2], rows[3]);
          B::store(quads[c], B::unpacklo16(low, high));
          B::store(quads[c + 4], B::unpackhi16(low, high));
        }
        for (int v = 0; v < vectors; ++v, out += Dot::kVectorBytes) {
          if constexpr (Dot::kVectorBytes == 4 * kLanes)
            __builtin_memcpy(out, quads[v * kLanes], Dot::kVectorBytes);
          else
            for (int lane = 0; lane < kLanes; ++lane) Dot::put(out, lane, quads[v * kLanes + lane]);
        }
      }
    }
  }

  // Everything but the common cases of the epilogue, from accumulators (bias included) in memory:
  // [rows][vectors][kLanes].
  static __attribute__((noinline)) void finish(const GemmArgs& g, const int32_t* acc, int64_t m,
                                               int64_t n, int rows, int vectors, int64_t columns) {
    const Codes<V> codes(g.zero_point, g.lo, g.hi);
    for (int r = 0; r < rows; ++r) {
      for (int j = 0; j < vectors; ++j, acc += kLanes) {
        const int64_t first = n + j * kLanes;
        const int64_t count = columns - j * kLanes < kLanes ? columns - j * kLanes : kLanes;
        if (count <= 0) continue;
        I sum = V::load(acc);
        const int64_t at = g.row_of_c(m + r) + first;
        if (g.epilogue == Epilogue::int32) {
          V::store_i32(static_cast<int32_t*>(g.c) + at, sum, count);
          continue;
        }
        F y = V::mul(V::to_float(sum), V::load_f32(g.multiplier + first, count));
        if (g.epilogue == Epilogue::dynamic) {
          if (g.float_bias) y = V::add(y, V::load_f32(g.float_bias + first, count));
          if (g.relu) y = V::max(y, V::set(0.0f));
          V::store_f32(static_cast<float*>(g.c) + at, y, count);
        } else {
          const I rounded = V::round(y);
          V::template store_part<4, 0>(static_cast<uint8_t*>(g.c) + at,
                                       codes.narrow4(rounded, rounded, rounded, rounded), count);
        }
      }
    }
  }

  template <int kM, int kN>
  static OCTET_INLINE void step(I (&acc)[kM][kN], const uint8_t* const (&row)[kM], int64_t i,
                                const char* b, int64_t half) {
    step_half<0, 0, kM>(acc, row, i, b);
    if constexpr (Dot::kHalves == 2) {
      // The activations of many rows are loaded again: kept, they would push accumulators out of
      // the registers.
      if constexpr (kM > 2) asm("" : : : "memory");
      step_half<1, 0, kM>(acc, row, i, b + half);
    }
  }
  template <int kHalf, int kFirst, int kEnd, int kM, int kN>  // rows kFirst..kEnd
  static OCTET_INLINE void step_half(I (&acc)[kM][kN], const uint8_t* const (&row)[kM], int64_t i,
                                     const char* b) {
    I w[kN];
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) w[j] = V::load(b + j * Dot::kVectorBytes);
#pragma GCC unroll 16
    for (int r = kFirst; r < kEnd; ++r) {
      const I x = Dot::template half<kHalf>(V::spread(row[r] + i));
#pragma GCC unroll 2
      for (int j = 0; j < kN; ++j) acc[r][j] = Dot::dot(acc[r][j], x, w[j]);
    }
  }

  // Whether two neighbouring steps, the first of even number in its tap, are added before their sum
  // goes to the accumulator.
  static constexpr bool kTwoSteps = requires(I x) { Dot::dot_two(x, x, x, x, x); };
  template <int kFirst, int kEnd, int kM, int kN>  // rows kFirst..kEnd
  static OCTET_INLINE void two_steps(I (&acc)[kM][kN], const uint8_t* const (&row)[kM], int64_t i,
                                     const char* b) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      // loaded again for the second vector, as in step()
      if constexpr (kEnd - kFirst > 2) asm("" : : : "memory");
      const I w = V::load(b + j * Dot::kVectorBytes),
              w2 = V::load(b + (kN + j) * Dot::kVectorBytes);
#pragma GCC unroll 16
      for (int r = kFirst; r < kEnd; ++r)
        acc[r][j] =
            Dot::dot_two(acc[r][j], V::spread(row[r] + i), w, V::spread(row[r] + i + 4), w2);
    }
  }

  // Where a tile's codes go, and the constants of its channels.
  template <int kN>
  struct Exit {
    static constexpr int kAtOnce = 4 / kN;
    alignas(64) int32_t bias[kN][kLanes];
    alignas(64) float multiplier[kN][kLanes];
    alignas(64) float float_bias[kN][kLanes];
    Codes<V> codes;
    int64_t ldc, columns;       // ldc in bytes
    int64_t element;            // bytes of a result
    bool to_codes, to_words;    // in registers; everything else is finish()'s
    bool to_float, relu;        // of words
    bool may_overflow = false;  // int32, before the clamp

    OCTET_INLINE Exit(const GemmArgs& g, int64_t n, int64_t columns_)
        : codes(g.zero_point, g.lo, g.hi),
          columns(columns_),
          element(g.epilogue == Epilogue::requantize ? 1 : 4),
          to_codes(g.epilogue == Epilogue::requantize),
          to_words(g.epilogue != Epilogue::requantize && columns_ == kN * kLanes),
          to_float(g.epilogue == Epilogue::dynamic),
          relu(g.relu) {
      ldc = g.ldc * element;
#pragma GCC unroll 2
      for (int j = 0; j < kN; ++j) {
        const int64_t first = j * kLanes,
                      some = columns - first < kLanes ? columns - first : kLanes;
        const bool any = some > 0;
        V::store(bias[j], any ? V::load_i32(g.bias + n + first, some) : V::zero());
        const F m = any && (to_codes || to_float) ? V::load_f32(g.multiplier + n + first, some)
                                                  : V::set(0.0f);
        V::store_f32(multiplier[j], m);
        // Adding -0 changes nothing, not even a zero's sign.
        V::store_f32(float_bias[j], any && to_float && g.float_bias
                                        ? V::load_f32(g.float_bias + n + first, some)
                                        : V::set(-0.0f));
        may_overflow |= !V::all_below_one(m);
      }
    }

    // Four vectors of accumulators make one vector of codes: two rows of a panel, or four of a
    // narrow one.
    template <int kM, int kRow, typename Rows>
    OCTET_INLINE void requantize(const I (&acc)[kM][kN], const Rows& y) const {
      F v[4];
      I rounded[4];
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        const int row = kRow + q / kN < kM ? kRow + q / kN : kM - 1;
        v[q] = V::mul(V::to_float(acc[row][q % kN]), V::load_f32(multiplier[q % kN]));
      }
      if (__builtin_expect(may_overflow, 0)) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; ++q) v[q] = V::min(V::set(kAboveEveryCode), v[q]);
      }
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) rounded[q] = V::round_below_2_31(v[q]);
      store<kM, kRow, 0>(codes.narrow4(rounded[0], rounded[1], rounded[2], rounded[3]), y);
    }
    // Rows kRow..kEnd as int32, or as float32.
    template <int kM, int kRow, int kEnd, typename Rows>
    OCTET_INLINE void words(const I (&acc)[kM][kN], const Rows& y) const {
#pragma GCC unroll 4
      for (int r = kRow; r < kEnd; ++r) {
#pragma GCC unroll 2
        for (int j = 0; j < kN; ++j) {
          uint8_t* to = y(r) + j * V::kBytes;
          if (!to_float) {
            V::store(to, acc[r][j]);
            continue;
          }
          F v = V::add(V::mul(V::to_float(acc[r][j]), V::load_f32(multiplier[j])),
                       V::load_f32(float_bias[j]));
          if (relu) v = V::max(v, V::set(0.0f));
          V::store_f32(reinterpret_cast<float*>(to), v);
        }
      }
    }
    template <int kM, int kRow, int kPart, typename Rows>
    OCTET_INLINE void store(I bytes, const Rows& y) const {
      if constexpr (kPart < kAtOnce && kRow + kPart < kM) {
        if (__builtin_expect(columns == kN * kLanes, 1)) {
          V::template store_part<kAtOnce, kPart>(y(kRow + kPart), bytes);
        } else {
          V::template store_part<kAtOnce, kPart>(y(kRow + kPart), bytes, columns);
        }
        store<kM, kRow, kPart + 1>(bytes, y);
      }
    }
  };

  // The last steps (bytes first..bytes of the last tap) and the way out, a few rows at a time.
  // Requantizing all rows at once would leave the multipliers idle: out-of-order execution does not
  // look far enough ahead to the next tile.
  template <int kM, int kN, int kRow = 0, typename Rows>
  static OCTET_INLINE void land(const Exit<kN>& exit, I (&acc)[kM][kN],
                                const uint8_t* const (&row)[kM], int64_t first, int64_t bytes,
                                const char* b, int64_t half, const Rows& y,
                                int32_t (*sums)[kN][kLanes]) {
    if constexpr (kRow < kM) {
      constexpr int kEnd = kRow + 4 / kN < kM ? kRow + 4 / kN : kM;
      const char* w = b;
      int64_t i = first;
      if constexpr (kTwoSteps) {
        if (i % 8 != 0) {
          step_half<0, kRow, kEnd>(acc, row, i, w);
          i += 4, w += kN * Dot::kVectorBytes;
        }
        for (; i + 8 <= bytes; i += 8, w += 2 * kN * Dot::kVectorBytes)
          two_steps<kRow, kEnd>(acc, row, i, w);
      }
      for (; i < bytes; i += 4, w += kN * Dot::kVectorBytes) {
        step_half<0, kRow, kEnd>(acc, row, i, w);
        if constexpr (Dot::kHalves == 2) step_half<1, kRow, kEnd>(acc, row, i, w + half);
      }
      if (exit.to_codes) {
        exit.template requantize<kM, kRow>(acc, y);
      } else if (exit.to_words) {
        exit.template words<kM, kRow, kEnd>(acc, y);
      } else {
#pragma GCC unroll 4
        for (int r = kRow; r < kEnd; ++r)
#pragma GCC unroll 2
          for (int j = 0; j < kN; ++j) V::store(sums[r][j], acc[r][j]);
      }
      land<kM, kN, kEnd>(exit, acc, row, first, bytes, b, half, y, sums);
    }
  }

  // How many sets of accumulators a tile keeps over neighbouring steps. The products of one
  // accumulator wait for each other: a CPU that begins two in a cycle, each of which takes four
  // cycles, needs eight accumulators. With 16 registers there is no room for two sets of six.
  static constexpr int sets_of(int accumulators) {
    return accumulators >= (kLanes == 16 ? 8 : 6) ? 1 : accumulators >= 3 ? 2 : 4;
  }

  template <int kSets, int kM, int kN>
  static OCTET_INLINE void steps(I (&acc)[kSets][kM][kN], const uint8_t* const (&row)[kM],
                                 int64_t end, const char*& b, int64_t half, NextPanel& ahead) {
    constexpr int kStepBytes = kN * Dot::kVectorBytes;
    int64_t i = 0;
    if constexpr (kTwoSteps) {
      if (kSets == 1 && ahead.bytes > 0) {
        for (; i + 8 <= end; i += 8, b += 2 * kStepBytes) {
          two_steps<0, kM>(acc[0], row, i, b);
          ahead.step<kStepBytes>();
          ahead.step<kStepBytes>();
        }
      }
      for (; i + 8 * kSets <= end; i += 8 * kSets, b += 2 * kSets * kStepBytes) {
#pragma GCC unroll 4
        for (int s = 0; s < kSets; ++s)
          two_steps<0, kM>(acc[s], row, i + s * 8, b + 2 * s * kStepBytes);
      }
      if constexpr (kSets > 1)
        for (; i + 8 <= end; i += 8, b += 2 * kStepBytes) two_steps<0, kM>(acc[0], row, i, b);
      if (i < end) {
        step<kM, kN>(acc[0], row, i, b, half);
        b += kStepBytes;
      }
      return;
    }
    if constexpr (kSets == 1) {
      if (ahead.bytes > 0) {
        for (; i < end; i += 4, b += kStepBytes) {
          step<kM, kN>(acc[0], row, i, b, half);
          ahead.step<kStepBytes>();
        }
        return;
      }
    }
    for (; i + 4 * kSets <= end; i += 4 * kSets, b += kSets * kStepBytes) {
#pragma GCC unroll 4
      for (int s = 0; s < kSets; ++s)
        step<kM, kN>(acc[s], row, i + s * 4, b + s * kStepBytes, half);
    }
    if constexpr (kSets > 1)
      for (; i < end; i += 4, b += kStepBytes) step<kM, kN>(acc[0], row, i, b, half);
  }

  // A tile's sums before its products: the bias, in the first set of accumulators, and what
  // row_sums and b_zero_points say.
  template <int kSets, int kM, int kN>
  static OCTET_INLINE void begin(const GemmArgs& g, int64_t m, int64_t n, int64_t columns,
                                 const int32_t (&bias)[kN][kLanes], I (&acc)[kSets][kM][kN]) {
#pragma GCC unroll 4
    for (int s = 0; s < kSets; ++s)
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < kN; ++j) acc[s][r][j] = s == 0 ? V::load(bias[j]) : V::zero();
    if (g.row_sums) take_row_sums(g, m, n, columns, acc[0]);
  }
  // All sets into the first.
  template <int kSets, int kM, int kN>
  static OCTET_INLINE void join(I (&acc)[kSets][kM][kN]) {
#pragma GCC unroll 4
    for (int s = 1; s < kSets; ++s)
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < kN; ++j) acc[0][r][j] = V::add(acc[0][r][j], acc[s][r][j]);
  }

  // -row_sums[m] * b_zero_points[n], for a tile.
  template <int kM, int kN>
  static OCTET_INLINE void take_row_sums(const GemmArgs& g, int64_t m, int64_t n, int64_t columns,
                                         I (&acc)[kM][kN]) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      const int64_t first = j * kLanes, some = columns - first < kLanes ? columns - first : kLanes;
      const I zero_points = some > 0 ? V::load_i32(g.b_zero_points + n + first, some) : V::zero();
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r)
        acc[r][j] = V::sub(acc[r][j], V::mul(V::set(g.row_sums[m + r]), zero_points));
    }
  }

  template <int kM, bool kIndirect>
  static OCTET_INLINE auto rows_of_c(const GemmArgs& g, int64_t m, int64_t n, int64_t element) {
    uint8_t* c = static_cast<uint8_t*>(g.c) + n * element;
    if constexpr (kIndirect) {
      ScatteredRows<kM> y;
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r) y.rows[r] = c + g.row_of_c(m + r) * element;
      return y;
    } else {
      return EvenRows{c + m * g.ldc * element, g.ldc * element};
    }
  }

  // `count` tiles of kM rows from row m on, of one panel of kN vectors, of which `columns` channels
  // from n on are stored.
  template <int kM, int kN, bool kIndirect>
  static void tiles(const GemmArgs& g, const char* panel, int64_t m, int64_t count, int64_t n,
                    int64_t columns) {
    constexpr int kSets = sets_of(kM * kN);
    const int64_t bytes = steps_of(g.shape) * 4, taps = g.shape.taps;
    const uint64_t skipped = g.skipped;
    int64_t last_tap = taps - 1;
    if (skipped != 0)
      while (skipped >> last_tap & 1) --last_tap;
    const int64_t before_landing = bytes > kLandingBytes ? bytes - kLandingBytes : 0;
    const Exit<kN> exit(g, n, columns);
    Excess<Dot, kN> excess(g.shape, static_cast<const char*>(g.b), panel, n);
    NextPanel ahead{panel + kN * vector_bytes(g.shape),
                    count <= g_prefetch_tiles ? kN * Dot::kVectorBytes / count : 0};

    for (; count > 0; --count, m += kM) {
      I acc[kSets][kM][kN];
      begin(g, m, n, columns, exit.bias, acc);

      const auto y = rows_of_c<kM, kIndirect>(g, m, n, exit.element);
      // four times the bytes of codes: have the lines here when they are written
      if (exit.to_words)
        for (int r = 0; r < kM; ++r)
          for (int j = 0; j < kN; ++j) __builtin_prefetch(y(r) + j * V::kBytes, 1);
      const char* b = excess.weights;
      excess.begin(acc[0]);
      const uint8_t* row[kM] = {};
      if constexpr (kIndirect) {
        const int32_t* offsets = g.offsets + m * taps;
        for (int64_t t0 = 0;; t0 += 8) {
          const uint8_t* rows[kM][8];
          const int64_t some = taps - t0 < 8 ? taps - t0 : 8;
          const int32_t* of = offsets + t0;
#pragma GCC unroll 16
          for (int r = 0; r < kM; ++r, of += taps) V::resolve(of, taps - t0, g.a, g.pad, rows[r]);
          for (int64_t t = 0; t < some; ++t) {
            if (skipped != 0 && (skipped >> (t0 + t) & 1)) {
              b += steps_of(g.shape) * kN * Dot::kVectorBytes;
              excess.skip(t0 + t);
              continue;
            }
#pragma GCC unroll 16
            for (int r = 0; r < kM; ++r) row[r] = rows[r][t];
            steps<kSets, kM, kN>(acc, row, t0 + t < last_tap ? bytes : before_landing, b,
                                 excess.half, ahead);
            excess.add(acc[0], row, t0 + t);
            if (t0 + t == last_tap) break;
          }
          if (t0 + 8 > last_tap) break;
        }
      } else {
        const uint8_t* next = g.a + m * g.lda;
#pragma GCC unroll 16
        for (int r = 0; r < kM; ++r, next += g.lda) row[r] = next;
        steps<kSets, kM, kN>(acc, row, before_landing, b, excess.half, ahead);
        excess.add(acc[0], row, 0);
      }
      join(acc);

      alignas(64) int32_t sums[kM][kN][kLanes];
      land<kM, kN>(exit, acc[0], row, before_landing, bytes, b, excess.half, y, sums);
      if (!exit.to_codes && !exit.to_words) finish(g, &sums[0][0][0], m, n, kM, kN, columns);
    }
  }
  static constexpr int64_t kLandingBytes = 16;

  using Tiles = void (*)(const GemmArgs&, const char*, int64_t, int64_t, int64_t, int64_t);
  struct Shapes {
    Tiles of[2][2][kRows + 1] = {};  // [indirect][narrow][rows]
    template <int kM = kRows>
    constexpr void fill() {
      of[0][0][kM] = tiles<kM, 2, false>;
      of[0][1][kM] = tiles<kM, 1, false>;
      if constexpr (!kSums) {
        of[1][0][kM] = tiles<kM, 2, true>;
        of[1][1][kM] = tiles<kM, 1, true>;
      }
      if constexpr (kM > 1) fill<kM - 1>();
    }
    constexpr Shapes() { fill(); }
  };
  static constexpr Shapes kShapes{};

  // Rows m..m + rows of a whole panel, for codes: kTaps taps of kSteps steps, whose weights are
  // kept in registers. Dense if kTaps is 1.
  template <int kTaps, int kSteps>
  static void pairs(const GemmArgs& g, const char* panel, int64_t m, int64_t rows, int64_t n,
                    int64_t columns) {
    const Exit<2> exit(g, n, columns);
    I w[kTaps * kSteps][2];
#pragma GCC unroll 9
    for (int s = 0; s < kTaps * kSteps; ++s)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) w[s][j] = V::load(panel + (2 * s + j) * Dot::kVectorBytes);
    const I bias[2] = {V::load(exit.bias[0]), V::load(exit.bias[1])};
    const auto sum = [&](I(&acc)[2], int64_t r) OCTET_INLINE_LAMBDA {
      acc[0] = bias[0];
      acc[1] = bias[1];
#pragma GCC unroll 3
      for (int t = 0; t < kTaps; ++t) {
        const int64_t offset = kTaps == 1 ? r * g.lda : g.offsets[r * kTaps + t];
        const uint8_t* row = kTaps > 1 && offset < 0 ? g.pad : g.a + offset;
#pragma GCC unroll 8
        for (int s = 0; s < kSteps; ++s) {
          const I x = V::spread(row + 4 * s);
          acc[0] = Dot::dot(acc[0], x, w[t * kSteps + s][0]);
          acc[1] = Dot::dot(acc[1], x, w[t * kSteps + s][1]);
        }
      }
    };
    uint8_t* y = static_cast<uint8_t*>(g.c) + m * g.ldc + n;
    const int64_t end = m + rows;
    if (m + 2 <= end) {
      // A pair's products stand before the way out of the pair before it, which is then ready to
      // go: the two overlap.
      I acc[2][2];
      sum(acc[0], m);
      sum(acc[1], m + 1);
      for (m += 2; m + 2 <= end; m += 2, y += 2 * g.ldc) {
        I next[2][2];
        sum(next[0], m);
        sum(next[1], m + 1);
        exit.template requantize<2, 0>(acc, EvenRows{y, g.ldc});
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r)
#pragma GCC unroll 2
          for (int j = 0; j < 2; ++j) acc[r][j] = next[r][j];
      }
      exit.template requantize<2, 0>(acc, EvenRows{y, g.ldc});
      y += 2 * g.ldc;
    }
    if (m < end) {
      I acc[1][2];
      sum(acc[0], m);
      exit.template requantize<1, 0>(acc, EvenRows{y, g.ldc});
    }
  }
  // Null where weights are too many for registers: dense rows of up to 32 bytes, three taps of 9 to
  // 12 (a first layer's 3x3 windows).
  template <int kSteps = 1>
  static Tiles pairs_of(const GemmArgs& g) {
    if constexpr (Dot::kManyRegisters && kSteps <= 8 && !kSums) {
      if (steps_of(g.shape) != kSteps) return pairs_of<kSteps + 1>(g);
      if (!g.offsets) return pairs<1, kSteps>;
      if constexpr (kSteps == 3) return g.shape.taps == 3 ? pairs<3, 3> : nullptr;
    }
    return nullptr;
  }
  // The rows whose activations and codes stay in L1 while all panels pass over them.
  static void run_pairs(Tiles of, const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0,
                        int64_t n1) {
    const int64_t fit = kPairBytes / (g.shape.k + n1 - n0) / 2 * 2, block = fit < 64 ? 64 : fit;
    for (int64_t m = m0; m < m1; m += block)
      for (int64_t n = n0; n < n1; n += kPanel)
        of(g, static_cast<const char*>(g.b) + n / kLanes * vector_bytes(g.shape), m,
           m1 - m < block ? m1 - m : block, n, n1 - n < kPanel ? n1 - n : kPanel);
  }
  static constexpr int64_t kPairBytes = 24 << 10;

  static void run(const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    const Tiles of = pairs_of(g);
    if (of && g.epilogue == Epilogue::requantize && !g.row_sums && !g.c_rows && !g.cuts) {
      const int64_t narrow = g.shape.n % kPanel,
                    wide = narrow > 0 && narrow <= kLanes ? g.shape.n - narrow : n1;
      run_pairs(of, g, m0, m1, n0, wide < n1 ? wide : n1);
      if (wide >= n1) return;
      if (n0 < wide) n0 = wide;
    }
    for_blocks(g, m0, m1, n0, n1, vector_bytes(g.shape),
               [&](const char* /*panel*/, bool narrow, int64_t rows) {
                 return kShapes.of[g.offsets != nullptr][narrow][rows];
               });
  }

  // All tiles of rows m0..m1 and channels n0..n1, in blocks of rows; `tiles_of(panel, narrow,
  // rows)` computes some of one panel.
  template <typename TilesOf>
  static OCTET_INLINE void for_blocks(const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0,
                                      int64_t n1, int64_t vector_size, TilesOf&& tiles_of) {
    if (!g.cuts) return for_even_blocks(g, m0, m1, n0, n1, vector_size, tiles_of);
    const int64_t fit = kBlockBytes / (g.shape.k + 1), block = fit < kRows ? kRows : fit;
    for (int64_t first = m0; first < m1; first += block) {
      const int64_t last = first + block < m1 ? first + block : m1;
      for (int64_t n = n0; n < n1; n += kPanel) {
        const GemmCut* cut = g.cuts;
        for (int64_t m = first; m < last; ++cut) {
          if (cut->end <= m) continue;
          GemmArgs rows = g;
          rows.cuts = nullptr;
          rows.skipped = cut->skipped;
          rows.bias = cut->bias;
          const int64_t end = cut->end < last ? cut->end : last;
          for_even_blocks(rows, m, end, n, n1 - n < kPanel ? n1 : n + kPanel, vector_size,
                          tiles_of);
          m = end;
        }
      }
    }
  }
  template <typename TilesOf>
  static OCTET_INLINE void for_even_blocks(const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0,
                                           int64_t n1, int64_t vector_size, TilesOf&& tiles_of) {
    if (m1 <= m0 || n1 <= n0) return;
    const GemmShape& s = g.shape;
    // `all` tiles, of which the first `larger` have one row more than the others.
    const int64_t all = (m1 - m0 + kRows - 1) / kRows, rows = (m1 - m0) / all,
                  larger = (m1 - m0) % all;
    int64_t block = kBlockBytes / ((s.k + 1) * kRows);
    if (block < 1) block = 1;
    for (int64_t first = 0; first < all; first += block) {
      const int64_t last = first + block < all ? first + block : all;
      const int64_t split = larger < first ? first : larger > last ? last : larger;
      for (int64_t n = n0; n < n1; n += kPanel) {
        const char* panel = static_cast<const char*>(g.b) + n / kLanes * vector_size;
        const bool narrow = s.n - n <= kLanes;
        const int64_t columns = n1 - n < kPanel ? n1 - n : kPanel;
        if (first < split)
          tiles_of(panel, narrow, rows + 1)(g, panel, m0 + first * (rows + 1), split - first, n,
                                            columns);
        if (split < last)
          tiles_of(panel, narrow, rows)(g, panel, m0 + split * rows + larger, last - split, n,
                                        columns);
      }
    }
  }
  static constexpr int64_t kBlockBytes = 256 << 10;

  // Rows m..m + kM of a panel, from sums in memory.
  template <int kM>
  static OCTET_INLINE void finish_rows(const GemmArgs& g, const Exit<2>& exit, const int32_t* sums,
                                       int64_t m, int64_t n, EvenRows y) {
    I acc[kM][2];
#pragma GCC unroll 2
    for (int r = 0; r < kM; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const int64_t first = j * kLanes, some = exit.columns - first;
        const int32_t* from = sums + (m + r) * g.shape.n + n + first;
        const I sum = some >= kLanes ? V::load(from)
                      : some > 0     ? V::load_i32(from, some)
                                     : V::zero();
        acc[r][j] = V::add(sum, V::load(exit.bias[j]));
      }
    if (g.row_sums) take_row_sums(g, m, n, exit.columns, acc);
    if (exit.to_codes) {
      exit.template requantize<kM, 0>(acc, y);
    } else if (exit.to_words) {
      exit.template words<kM, 0, kM>(acc, y);
    } else {
      alignas(64) int32_t words[kM][2][kLanes];
#pragma GCC unroll 2
      for (int r = 0; r < kM; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) V::store(words[r][j], acc[r][j]);
      finish(g, &words[0][0][0], m, n, kM, 2, exit.columns);
    }
  }

  static void finish_sums(const GemmArgs& g, const int32_t* sums, int64_t m0, int64_t m1) {
    for (int64_t n = 0; n < g.shape.n; n += kPanel) {
      const Exit<2> exit(g, n, g.shape.n - n < kPanel ? g.shape.n - n : kPanel);
      uint8_t* y = static_cast<uint8_t*>(g.c) + m0 * exit.ldc + n * exit.element;
      int64_t m = m0;
      for (; m + 2 <= m1; m += 2, y += 2 * exit.ldc)
        finish_rows<2>(g, exit, sums, m, n, {y, exit.ldc});
      if (m < m1) finish_rows<1>(g, exit, sums, m, n, {y, exit.ldc});
    }
  }

  static void row_sums(const GemmArgs& g, int32_t* sums, int64_t m0, int64_t m1) {
    const int64_t k = g.shape.k, taps = g.shape.taps;
    for (int64_t m = m0; m < m1; ++m) {
      I sum = V::zero();
      for (int64_t t = 0; t < taps; ++t) {
        const uint8_t* x = g.a + m * g.lda;
        if (g.offsets) x = g.offsets[m * taps + t] < 0 ? g.pad : g.a + g.offsets[m * taps + t];
        int64_t i = 0;
        for (; i + V::kBytes <= k; i += V::kBytes) sum = V::sum_bytes(sum, V::load(x + i));
        if (i < k) sum = V::sum_bytes(sum, V::load_bytes(x + i, k - i));
      }
      sums[m] = static_cast<int32_t>(V::total64(sum));
    }
  }
};

}  // namespace
}  // namespace octet::kernels
