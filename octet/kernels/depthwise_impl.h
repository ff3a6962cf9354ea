#pragma once
// Depthwise convolution: one weight per channel and tap, channels in lanes, the taps of a pixel
// anywhere in the image.
//
// Four taps at a time: their bytes are interleaved, channel by channel, so that every 32-bit lane
// holds one channel's four activations, and the same dot product as in gemm_impl.h multiplies them
// with the channel's four weights. Interleaving in 128-bit groups scatters the channels over four
// vectors in just the order in which Codes::pack4 puts them together again; weights, bias and
// multipliers are brought into that order once, for a whole run of pixels.
//
// Packed weights: [block of kBytes channels][group of 4 taps][4 vectors], zero where taps or
// channels end. `Tail` is the Dot for a last block that fits in half a vector, but of nine taps.
//
// Nine taps are three groups of three: the columns of a 3x3 window. Where windows slide by one or
// two columns from pixel to pixel an interleaved column serves all the pixels whose windows it lies
// in; where they slide by one row too, a column of four rows serves two rows of pixels, for which
// the weights are there twice: (w0, w1, w2, 0) and (0, w0, w1, w2). A last block that fits in half
// a vector then takes two pixels of a row at a time, one in each half. These loops are bound by the
// number of vector instructions.

#include "octet/kernels/codes_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

template <typename Dot>
struct DepthwiseBlock {
  using V = typename Dot::V;
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kChannels = V::kBytes;
  static constexpr int64_t kGroupBytes = 4 * Dot::kVectorBytes;
  // Whether the halves of a vector are interleaved each by itself.
  static constexpr bool kHasHalves = V::kBytes > 16;

  // Where the channel-th channel of a block is after interleaving.
  static OCTET_INLINE int vector_of(int channel) { return channel % 16 / 4; }
  static OCTET_INLINE int lane_of(int channel) { return channel / 16 * 4 + channel % 4; }

  static size_t packed_bytes(int64_t taps) {
    return static_cast<size_t>((taps == 9 ? 6 : (taps + 3) / 4) * kGroupBytes);
  }
  // Whether the channels of a block are there twice, once in each half of a vector.
  static OCTET_INLINE bool twice(int64_t taps, int64_t count) {
    return kHasHalves && taps == 9 && count <= kChannels / 2;
  }

  // The i-th tap of a group, or `taps` where it has none. Of nine taps groups 3 to 5 are 0 to 2 for
  // a pixel one row further down.
  static OCTET_INLINE int64_t tap_of(int64_t taps, int64_t group, int i) {
    if (taps != 9) return 4 * group + i < taps ? 4 * group + i : taps;
    const int64_t row = i - group / 3;
    return row >= 0 && row < 3 ? group % 3 + 3 * row : taps;
  }

  static void pack(int64_t channels, int64_t taps, int64_t c0, const int8_t* w, char* packed) {
    const int64_t groups = static_cast<int64_t>(packed_bytes(taps)) / kGroupBytes;
    const int repeat = twice(taps, channels - c0) ? kChannels / 2 : kChannels;
    for (int64_t group = 0; group < groups; ++group, packed += kGroupBytes) {
      for (int c = 0; c < kChannels; ++c) {
        const int64_t channel = c0 + c % repeat;
        if (channel >= channels) continue;
        int8_t quad[4] = {};
        for (int i = 0; i < 4; ++i)
          if (const int64_t tap = tap_of(taps, group, i); tap < taps)
            quad[i] = w[tap * channels + channel];
        Dot::put(packed + vector_of(c) * Dot::kVectorBytes, lane_of(c), quad);
      }
    }
  }

  // Four taps' activations, a channel's together.
  static OCTET_INLINE void interleave(I (&quads)[4], I x0, I x1, I x2, I x3) {
    const I low01 = V::unpacklo8(x0, x1), high01 = V::unpackhi8(x0, x1);
    const I low23 = V::unpacklo8(x2, x3), high23 = V::unpackhi8(x2, x3);
    quads[0] = V::unpacklo16(low01, low23);
    quads[1] = V::unpackhi16(low01, low23);
    quads[2] = V::unpacklo16(high01, high23);
    quads[3] = V::unpackhi16(high01, high23);
  }
  // Adds their products with the group's weights, `kept` ones or those at w, to a pixel's sums. Of
  // two rows the lower one's weights are three groups further on.
  template <int kRows>
  static OCTET_INLINE void accumulate(I (&acc)[kRows][4], const I (&quads)[4], const I* kept,
                                      const char* w) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v, w += Dot::kVectorBytes) {
      const I x = Dot::template half<0>(quads[v]);
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r)
        acc[r][v] = Dot::dot(acc[r][v], x, kept ? kept[v] : V::load(w + r * 3 * kGroupBytes));
      if constexpr (Dot::kHalves == 2) {
        const I odd = Dot::template half<1>(quads[v]);
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r)
          acc[r][v] = Dot::dot(acc[r][v], odd, V::load(w + r * 3 * kGroupBytes + V::kBytes));
      }
    }
  }

  // From sums to codes, for `count` channels from c0 on.
  struct Exit {
    I bias[4];
    F multiplier[4];
    Codes<V> codes;
    bool may_overflow = false;  // int32, before the clamp

    OCTET_INLINE Exit(const DepthwiseArgs& d, int64_t c0, int64_t count, bool twice)
        : codes(d.zero_point, d.lo, d.hi) {
      alignas(64) int32_t bias_in_order[4][V::kLanes] = {};
      alignas(64) float multiplier_in_order[4][V::kLanes] = {};
      const auto put = [&](int at, int64_t c, size_t bytes) OCTET_INLINE_LAMBDA {
        __builtin_memcpy(&bias_in_order[vector_of(at)][lane_of(at)], d.bias + c, bytes);
        __builtin_memcpy(&multiplier_in_order[vector_of(at)][lane_of(at)], d.multiplier + c, bytes);
      };
      for (int c = 0; c < count; c += 4) {  // four channels stay together
        const size_t bytes = 4 * static_cast<size_t>(count - c < 4 ? count - c : 4);
        put(c, c0 + c, bytes);
        if (twice) put(c + kChannels / 2, c0 + c, bytes);
      }
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        bias[v] = V::load(bias_in_order[v]);
        multiplier[v] = V::load_f32(multiplier_in_order[v]);
        may_overflow |= !V::all_below_one(multiplier[v]);
      }
    }

    OCTET_INLINE I operator()(const I (&acc)[4]) const {
      F value[4];
      I rounded[4];
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) value[v] = V::mul(V::to_float(acc[v]), multiplier[v]);
      if (__builtin_expect(may_overflow, 0)) {
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) value[v] = V::min(V::set(kAboveEveryCode), value[v]);
      }
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) rounded[v] = V::round_below_2_31(value[v]);
      return codes.pack4(rounded[0], rounded[1], rounded[2], rounded[3]);
    }
  };

  // Pixels p0..p1 of `count` channels from c0 on. kTaps is the number of taps, or 0 where it is
  // only known at run time. `rows` holds the addresses of the taps of all these pixels; it is null
  // where they are too many (kTaps 0 only).
  template <int kTaps>
  static void run(const DepthwiseArgs& d, const char* packed, int64_t c0, int64_t count,
                  const uint8_t* const* rows, int64_t p0, int64_t p1) {
    const Exit exit(d, c0, count, false);
    const int64_t taps = kTaps ? kTaps : d.taps;
    constexpr int kGroups = (kTaps + 3) / 4;
    // Weights of few taps stay in registers, where there are enough of them.
    constexpr bool kKeep = kTaps > 0 && kTaps <= 12 && Dot::kManyRegisters;
    I kept[kKeep ? kGroups : 1][4];
    if constexpr (kKeep) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v)
          kept[g][v] = V::load(packed + g * kGroupBytes + v * Dot::kVectorBytes);
    }
    uint8_t* y = static_cast<uint8_t*>(d.c) + p0 * d.ldc + c0;
    for (int64_t p = p0; p < p1; ++p, y += d.ldc) {
      I acc[1][4] = {{exit.bias[0], exit.bias[1], exit.bias[2], exit.bias[3]}};
      const int64_t first = (p - p0) * taps;
      const auto tap = [&](int64_t group, int i) OCTET_INLINE_LAMBDA {
        const int64_t t = tap_of(taps, group, i);
        if (t == taps) return V::zero();
        if (kTaps == 0 && !rows) {
          const int32_t offset = d.offsets[p * taps + t];
          return V::load((offset < 0 ? d.pad : d.a + offset) + c0);
        }
        return V::load(rows[first + t] + c0);
      };
      const char* w = packed;
#pragma GCC unroll 8
      for (int64_t g = 0; g < (taps + 3) / 4; ++g, w += kGroupBytes) {
        I quads[4];
        interleave(quads, tap(g, 0), tap(g, 1), tap(g, 2), tap(g, 3));
        accumulate(acc, quads, kKeep ? kept[g] : nullptr, w);
      }
      const I bytes = exit(acc[0]);
      if (count == kChannels) {
        V::store(y, bytes);
      } else {
        V::store_bytes(y, bytes, count);
      }
    }
  }
  // kNine: taps may be nine.
  template <bool kNine>
  static void run_any(const DepthwiseArgs& d, const char* packed, int64_t c0, int64_t count,
                      const uint8_t* const* rows, int64_t p0, int64_t p1) {
    if constexpr (kNine)
      if (d.taps == 9) return run<9>(d, packed, c0, count, rows, p0, p1);
    if (d.taps == 25) return run<25>(d, packed, c0, count, rows, p0, p1);
    run<0>(d, packed, c0, count, rows, p0, p1);
  }
};

// The addresses of a column of pixels, from the top one down.
using Column = const uint8_t* [4];

// 3x3 windows that slide by kSlide columns from pixel to pixel. kRows is how many rows of pixels
// are computed at a time: two where windows slide by one row from one to the next.
template <typename Dot, int kSlide, int kRows>
struct SlidingBlock : DepthwiseBlock<Dot> {
  using Block = DepthwiseBlock<Dot>;
  using typename Block::I;
  using typename Block::V;

  // Pixels of one row, or of it and the one below.
  struct Strip {
    int64_t first, pixels;  // the first one's number, and how many there are in a row
    const Column* columns;  // from the left one of the first pixel's window on
  };

  // `count` channels from c0 on, all of a block if kFull. kTwice: two pixels at a time.
  template <bool kTwice, bool kFull>
  static void run(const DepthwiseArgs& d, const char* packed, int64_t c0, int64_t count,
                  const Strip* strip, const Strip* end) {
    constexpr int kPixels = kTwice ? 2 : 1;
    const typename Block::Exit exit(d, c0, count, kTwice);
    for (; strip < end; ++strip) {
      const Column* columns = strip->columns;
      uint8_t* y = static_cast<uint8_t*>(d.c) + strip->first * d.ldc + c0;
      int64_t left = strip->pixels;
      const auto load = [&](I(&quads)[4], int k) OCTET_INLINE_LAMBDA {
        const auto row = [&](int i) OCTET_INLINE_LAMBDA {
          if constexpr (kTwice) {
            return V::load_halves(columns[k][i] + c0, columns[k + kSlide][i] + c0);
          } else {
            return V::load(columns[k][i] + c0);
          }
        };
        Block::interleave(quads, row(0), row(1), row(2), kRows == 2 ? row(3) : V::zero());
      };
      const auto store = [&](uint8_t* to, I bytes) OCTET_INLINE_LAMBDA {
        if constexpr (!kTwice) {
          if constexpr (kFull) {
            V::store(to, bytes);
          } else {
            V::store_bytes(to, bytes, count);
          }
        } else if constexpr (kFull) {
          V::template store_part<2, 0>(to, bytes);
          if (left > 1) V::template store_part<2, 1>(to + d.ldc, bytes);
        } else {
          V::template store_part<2, 0>(to, bytes, count);
          if (left > 1) V::template store_part<2, 1>(to + d.ldc, bytes, count);
        }
      };
      const auto leave = [&](const I(&first)[4], const I(&second)[4],
                             const I(&third)[4]) OCTET_INLINE_LAMBDA {
        I acc[kRows][4];
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
          for (int v = 0; v < 4; ++v) acc[r][v] = exit.bias[v];
        Block::accumulate(acc, first, nullptr, packed);
        Block::accumulate(acc, second, nullptr, packed + Block::kGroupBytes);
        Block::accumulate(acc, third, nullptr, packed + 2 * Block::kGroupBytes);
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) store(y + r * d.width * d.ldc, exit(acc[r]));
        y += kPixels * d.ldc;
        columns += kPixels * kSlide;
        left -= kPixels;
      };

      if constexpr (!kTwice) {
        I quads[3][4];
#pragma GCC unroll 2
        for (int k = 0; k < 3 - kSlide; ++k) load(quads[k], k);
        // Three pixels at a time: then every column is where it was, and none is moved.
        while (left > 0) {
#pragma GCC unroll 3
          for (int i = 0; i < 3; ++i) {
            if (left == 0) break;
#pragma GCC unroll 2
            for (int k = 3 - kSlide; k < 3; ++k) load(quads[(i * kSlide + k) % 3], k);
            leave(quads[i * kSlide % 3], quads[(i * kSlide + 1) % 3], quads[(i * kSlide + 2) % 3]);
          }
        }
      } else if constexpr (kSlide == 1) {
        I outer[2][4], middle[4];
        load(outer[0], 0);
        while (left > 0) {
#pragma GCC unroll 2
          for (int i = 0; i < 2; ++i) {
            if (left <= 0) break;
            load(outer[1 - i], 2);
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) middle[v] = V::join_halves(outer[i][v], outer[1 - i][v]);
            leave(outer[i], middle, outer[1 - i]);
          }
        }
      } else {
        while (left > 0) {
          I quads[3][4];
#pragma GCC unroll 3
          for (int k = 0; k < 3; ++k) load(quads[k], k);
          leave(quads[0], quads[1], quads[2]);
        }
      }
    }
  }

  static void run_any(const DepthwiseArgs& d, const char* packed, int64_t c0, int64_t count,
                      const Strip* strips, const Strip* end) {
    if constexpr (Block::kHasHalves) {
      if (Block::twice(9, count))
        return count == Block::kChannels / 2 ? run<true, true>(d, packed, c0, count, strips, end)
                                             : run<true, false>(d, packed, c0, count, strips, end);
    }
    if (count == Block::kChannels) return run<false, true>(d, packed, c0, count, strips, end);
    run<false, false>(d, packed, c0, count, strips, end);
  }
};

template <typename Dot, typename Tail>
struct Depthwise {
  using Wide = DepthwiseBlock<Dot>;
  using Narrow = DepthwiseBlock<Tail>;
  using V = typename Dot::V;
  // Whether a block of so many channels is Narrow's.
  static OCTET_INLINE bool is_narrow(int64_t taps, int64_t count) {
    return count <= Narrow::kChannels && (taps != 9 || !Wide::kHasHalves);
  }
  static OCTET_INLINE size_t block_bytes(int64_t taps, int64_t count) {
    return is_narrow(taps, count) ? Narrow::packed_bytes(taps) : Wide::packed_bytes(taps);
  }
  static size_t packed_bytes(int64_t channels, int64_t taps) {
    const int64_t rest = channels % Wide::kChannels;
    return static_cast<size_t>(channels / Wide::kChannels) * Wide::packed_bytes(taps) +
           (rest == 0 ? 0 : block_bytes(taps, rest));
  }

  static void pack(int64_t channels, int64_t taps, const int8_t* w, void* packed) {
    __builtin_memset(packed, 0, packed_bytes(channels, taps));
    char* out = static_cast<char*>(packed);
    for (int64_t c = 0; c < channels; c += Wide::kChannels, out += Wide::packed_bytes(taps)) {
      if (is_narrow(taps, channels - c)) {
        Narrow::pack(channels, taps, c, w, out);
      } else {
        Wide::pack(channels, taps, c, w, out);
      }
    }
  }

  // All blocks of channels: fn(first channel, how many, packed weights).
  template <typename Fn>
  static OCTET_INLINE void for_blocks(const DepthwiseArgs& d, Fn&& fn) {
    const char* packed = static_cast<const char*>(d.weights);
    for (int64_t c = 0; c < d.channels; c += Wide::kChannels, packed += Wide::packed_bytes(d.taps))
      fn(c, d.channels - c < Wide::kChannels ? d.channels - c : Wide::kChannels, packed);
  }

  // Pixels go in chunks: the addresses of a chunk's taps are found once for all blocks of channels.
  static constexpr int64_t kAddresses = 1024;

  // `count` columns, from the left one of pixel p's window on.
  static OCTET_INLINE void put_columns(const DepthwiseArgs& d, int64_t p, int64_t count,
                                       Column* to) {
    const int64_t y = p / d.width * d.slide_rows - d.top, x = p % d.width * d.slide - d.left;
    const uint8_t* next[4];
    int64_t step[4];
    for (int i = 0; i < 4; ++i) {
      const bool inside = y + i >= 0 && y + i < d.h;
      step[i] = inside ? d.channels : 0;
      next[i] = inside ? d.a + ((y + i) * d.w + (x < 0 ? 0 : x)) * d.channels : d.pad;
    }
    for (int64_t k = 0; k < count; ++k) {
      const bool inside = x + k >= 0 && x + k < d.w;
      for (int i = 0; i < 4; ++i) to[k][i] = inside ? next[i] : d.pad;
      if (inside)
        for (int i = 0; i < 4; ++i) next[i] += step[i];
    }
  }

  template <int kSlide, int kRows>
  static void slide(const DepthwiseArgs& d, int64_t p0, int64_t p1) {
    using Block = SlidingBlock<Dot, kSlide, kRows>;
    constexpr int64_t kColumns = kAddresses / 4, kStrips = kColumns / 8;
    Column columns[kColumns];
    typename Block::Strip strips[kStrips];
    int64_t used = 0, some = 0;
    const auto flush = [&] {
      for_blocks(d, [&](int64_t c, int64_t count, const char* packed) {
        Block::run_any(d, packed, c, count, strips, strips + some);
      });
      used = some = 0;
    };
    for (int64_t p = p0; p < p1;) {
      // A strip has the columns of its windows and of one more: where pixels are computed in pairs
      // and their number is odd, the last pair ends behind them.
      const int64_t in_row = d.width - p % d.width, left = in_row < p1 - p ? in_row : p1 - p,
                    fit = (kColumns - used - 3) / kSlide;
      if (some == kStrips || (left > fit && used > 0)) {
        flush();
        continue;
      }
      const int64_t pixels = left < fit ? left : fit, count = pixels * kSlide + 3;
      put_columns(d, p, count, columns + used);
      strips[some++] = {p, pixels, columns + used};
      used += count;
      p += pixels;
      if (kRows == 2 && p % d.width == 0) p += d.width;
    }
    if (some > 0) flush();
  }
  // Two rows at a time where both are whole.
  static void slide_by_one(const DepthwiseArgs& d, int64_t p0, int64_t p1) {
    const int64_t row = d.width, first = d.slide_rows == 1 ? (p0 + row - 1) / row * row : p1,
                  pairs = first < p1 ? (p1 - first) / (2 * row) * (2 * row) : 0;
    if (pairs == 0) return slide<1, 1>(d, p0, p1);
    slide<1, 1>(d, p0, first);
    slide<1, 2>(d, first, first + pairs);
    slide<1, 1>(d, first + pairs, p1);
  }

  static void run(const DepthwiseArgs& d, int64_t p0, int64_t p1) {
    if (d.slide == 1) return slide_by_one(d, p0, p1);
    if (d.slide == 2) return slide<2, 1>(d, p0, p1);
    const uint8_t* addresses[kAddresses + 8];
    const int64_t step = d.taps <= kAddresses ? kAddresses / d.taps : p1 - p0;
    const uint8_t* const* rows = d.taps <= kAddresses ? addresses : nullptr;
    for (int64_t p = p0; p < p1; p += step) {
      const int64_t end = p + step < p1 ? p + step : p1;
      const int64_t count = rows ? (end - p) * d.taps : 0;
      const int32_t* offsets = d.offsets + p * d.taps;
      for (int64_t i = 0; i < count; i += 8)
        V::resolve(offsets + i, count - i, d.a, d.pad, addresses + i);
      for_blocks(d, [&](int64_t c, int64_t count, const char* packed) {
        if (is_narrow(d.taps, count)) {
          Narrow::template run_any<!Wide::kHasHalves>(d, packed, c, count, rows, p, end);
        } else {
          Wide::template run_any<true>(d, packed, c, count, rows, p, end);
        }
      });
    }
  }
};

}  // namespace
}  // namespace octet::kernels
