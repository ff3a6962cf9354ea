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
// channels end. `Tail` is the Dot for a last block that fits in half a vector.
//
// Nine taps are three groups of three: the columns of a 3x3 window. Where windows slide by one or
// two columns from pixel to pixel an interleaved column serves all the pixels whose windows it lies
// in.

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

  // Where the channel-th channel of a block is after interleaving.
  static OCTET_INLINE int vector_of(int channel) { return channel % 16 / 4; }
  static OCTET_INLINE int lane_of(int channel) { return channel / 16 * 4 + channel % 4; }

  static size_t packed_bytes(int64_t taps) {
    return static_cast<size_t>((taps + 3) / 4 * 4 * Dot::kVectorBytes);
  }

  // The i-th tap of a group, or `taps` where it has none.
  static OCTET_INLINE int64_t tap_of(int64_t taps, int64_t group, int i) {
    const int64_t tap = taps == 9 ? group + 3 * i : 4 * group + i;
    return tap < taps ? tap : taps;
  }

  static void pack(int64_t channels, int64_t taps, int64_t c0, const int8_t* w, char* packed) {
    for (int64_t group = 0; group < (taps + 3) / 4; ++group, packed += 4 * Dot::kVectorBytes) {
      for (int c = 0; c < kChannels && c0 + c < channels; ++c) {
        int8_t quad[4] = {};
        for (int i = 0; i < 4; ++i)
          if (const int64_t tap = tap_of(taps, group, i); tap < taps)
            quad[i] = w[tap * channels + c0 + c];
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
  // Their products with the group's weights, `kept` ones or those at w.
  static OCTET_INLINE void accumulate(I (&acc)[4], const I (&quads)[4], const I* kept,
                                      const char* w) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      acc[v] = Dot::dot(acc[v], Dot::template half<0>(quads[v]),
                        kept ? kept[v] : V::load(w + v * Dot::kVectorBytes));
      if constexpr (Dot::kHalves == 2)
        acc[v] = Dot::dot(acc[v], Dot::template half<1>(quads[v]),
                          V::load(w + v * Dot::kVectorBytes + V::kBytes));
    }
  }

  // Pixels p0..p1 of `count` channels from c0 on. kTaps is the number of taps, or 0 where it is
  // only known at run time. `rows` holds the addresses of the taps of all these pixels; it is null
  // where they are too many (kTaps 0 only). kSlide: DepthwiseArgs::slide (9 taps only).
  template <int kTaps, int kSlide = 0>
  static void run(const DepthwiseArgs& d, const char* packed, int64_t c0, int64_t count,
                  const uint8_t* const* rows, int64_t p0, int64_t p1) {
    alignas(64) int32_t bias_in_order[4][V::kLanes] = {};
    alignas(64) float multiplier_in_order[4][V::kLanes] = {};
    for (int c = 0; c < count; c += 4) {  // four channels stay together
      const size_t bytes = 4 * static_cast<size_t>(count - c < 4 ? count - c : 4);
      __builtin_memcpy(&bias_in_order[vector_of(c)][lane_of(c)], d.bias + c0 + c, bytes);
      __builtin_memcpy(&multiplier_in_order[vector_of(c)][lane_of(c)], d.multiplier + c0 + c,
                       bytes);
    }
    I bias[4];
    F multiplier[4];
    bool may_overflow = false;  // int32, before the clamp
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      bias[v] = V::load(bias_in_order[v]);
      multiplier[v] = V::load_f32(multiplier_in_order[v]);
      may_overflow |= !V::all_below_one(multiplier[v]);
    }
    const Codes<V> codes(d.zero_point, d.lo, d.hi);
    const int64_t taps = kTaps ? kTaps : d.taps;
    constexpr int kGroups = (kTaps + 3) / 4;
    // Weights of few taps stay in registers, where there are enough of them; or the columns do.
    constexpr bool kKeep = kTaps > 0 && kTaps <= 12 && kSlide == 0 && Dot::kManyRegisters;
    I kept[kKeep ? kGroups : 1][4];
    if constexpr (kKeep) {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) kept[g][v] = V::load(packed + (g * 4 + v) * Dot::kVectorBytes);
    }
    uint8_t* y = static_cast<uint8_t*>(d.c) + p0 * d.ldc + c0;
    const auto leave = [&](const I(&acc)[4]) OCTET_INLINE_LAMBDA {
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
      const I bytes = codes.pack4(rounded[0], rounded[1], rounded[2], rounded[3]);
      if (count == kChannels) {
        V::store(y, bytes);
      } else {
        V::store_bytes(y, bytes, count);
      }
      y += d.ldc;
    };

    if constexpr (kSlide > 0) {
      I columns[3][4];
      const uint8_t* const* row = rows;
      const auto load = [&](I(&quads)[4], int kx) OCTET_INLINE_LAMBDA {
        interleave(quads, V::load(row[kx] + c0), V::load(row[kx + 3] + c0),
                   V::load(row[kx + 6] + c0), V::zero());
      };
      for (int64_t p = p0; p < p1;) {
        const int64_t row_end = p + d.width - p % d.width, end = row_end < p1 ? row_end : p1;
#pragma GCC unroll 2
        for (int kx = 0; kx < 3 - kSlide; ++kx) load(columns[kx], kx);
        // Three pixels at a time: then every column is where it was, and none is moved.
        while (p < end) {
#pragma GCC unroll 3
          for (int i = 0; i < 3; ++i) {
            if (p == end) break;
#pragma GCC unroll 2
            for (int kx = 3 - kSlide; kx < 3; ++kx) load(columns[(i * kSlide + kx) % 3], kx);
            I acc[4] = {bias[0], bias[1], bias[2], bias[3]};
#pragma GCC unroll 3
            for (int kx = 0; kx < 3; ++kx)
              accumulate(acc, columns[(i * kSlide + kx) % 3], nullptr,
                         packed + kx * 4 * Dot::kVectorBytes);
            leave(acc);
            ++p;
            row += 9;
          }
        }
      }
      return;
    }

    for (int64_t p = p0; p < p1; ++p) {
      I acc[4] = {bias[0], bias[1], bias[2], bias[3]};
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
      for (int64_t g = 0; g < (taps + 3) / 4; ++g, w += 4 * Dot::kVectorBytes) {
        I quads[4];
        interleave(quads, tap(g, 0), tap(g, 1), tap(g, 2), tap(g, 3));
        accumulate(acc, quads, kKeep ? kept[g] : nullptr, w);
      }
      leave(acc);
    }
  }

  static void run_any(const DepthwiseArgs& d, const char* packed, int64_t c0, int64_t count,
                      const uint8_t* const* rows, int64_t p0, int64_t p1) {
    if (d.taps == 9 && d.slide == 1) return run<9, 1>(d, packed, c0, count, rows, p0, p1);
    if (d.taps == 9 && d.slide == 2) return run<9, 2>(d, packed, c0, count, rows, p0, p1);
    if (d.taps == 9) return run<9>(d, packed, c0, count, rows, p0, p1);
    if (d.taps == 25) return run<25>(d, packed, c0, count, rows, p0, p1);
    run<0>(d, packed, c0, count, rows, p0, p1);
  }
};

template <typename Dot, typename Tail>
struct Depthwise {
  using Wide = DepthwiseBlock<Dot>;
  using Narrow = DepthwiseBlock<Tail>;
  using V = typename Dot::V;
  static size_t packed_bytes(int64_t channels, int64_t taps) {
    const int64_t rest = channels % Wide::kChannels;
    return static_cast<size_t>(channels / Wide::kChannels) * Wide::packed_bytes(taps) +
           (rest == 0                   ? 0
            : rest <= Narrow::kChannels ? Narrow::packed_bytes(taps)
                                        : Wide::packed_bytes(taps));
  }

  static void pack(int64_t channels, int64_t taps, const int8_t* w, void* packed) {
    __builtin_memset(packed, 0, packed_bytes(channels, taps));
    char* out = static_cast<char*>(packed);
    for (int64_t c = 0; c < channels; c += Wide::kChannels, out += Wide::packed_bytes(taps)) {
      if (channels - c <= Narrow::kChannels) {
        Narrow::pack(channels, taps, c, w, out);
      } else {
        Wide::pack(channels, taps, c, w, out);
      }
    }
  }

  // Pixels go in chunks: the addresses of a chunk's taps are found once for all blocks of channels.
  static constexpr int64_t kAddresses = 1024;

  static void run(const DepthwiseArgs& d, int64_t p0, int64_t p1) {
    const uint8_t* addresses[kAddresses + 8];
    const int64_t step = d.taps <= kAddresses ? kAddresses / d.taps : p1 - p0;
    const uint8_t* const* rows = d.taps <= kAddresses ? addresses : nullptr;
    for (int64_t p = p0; p < p1; p += step) {
      const int64_t end = p + step < p1 ? p + step : p1;
      const int64_t count = rows ? (end - p) * d.taps : 0;
      const int32_t* offsets = d.offsets + p * d.taps;
      for (int64_t i = 0; i < count; i += 8)
        V::resolve(offsets + i, count - i, d.a, d.pad, addresses + i);
      const char* packed = static_cast<const char*>(d.weights);
      for (int64_t c = 0; c < d.channels;
           c += Wide::kChannels, packed += Wide::packed_bytes(d.taps)) {
        const int64_t rest = d.channels - c;
        if (rest <= Narrow::kChannels) {
          Narrow::run_any(d, packed, c, rest, rows, p, end);
        } else {
          Wide::run_any(d, packed, c, rest < Wide::kChannels ? rest : Wide::kChannels, rows, p,
                        end);
        }
      }
    }
  }
};

}  // namespace
}  // namespace octet::kernels
