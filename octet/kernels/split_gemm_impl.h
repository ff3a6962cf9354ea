#pragma once
// The matrix product of gemm_impl.h on CPUs whose only product of bytes is vpmaddubsw, which adds
// two products in 16 bits and saturates: 255 * (w0 + w1) fits only while the weights of each sign
// add up to at most 128. Weights are known when they are packed, so they are split there in a safe
// part, which keeps every pair within 128, and the excess, which few pairs have and which is put on
// a list. The products of both are added exactly, whatever the activations are.
//
// A window is 16 bytes of k of one tap. An entry of the list belongs to a vector of channels and
// a window, and holds four weights a channel and, for each of them, which of the window's bytes it
// multiplies: a shuffle brings them together. So one entry takes up to four excesses of each
// channel.
//
// A panel is [header][weights][entries ... positions], in the room that weights of 16 bits would
// take. Where many weights are too large (kMostEntries), splitting gains nothing. Then the panel is
// run by one of two products:
//  - Signed: |x - 128| times the weight with the sign of x - 128, of which no pair is too large.
//    128 times the sum of the weights is added.
//  - Wide: 16-bit weights. It is 4 to 25% faster where reading them does not take the time, and has
//    the weights of -128, whose sign cannot be changed in 8 bits.

#include "octet/kernels/gemm_impl.h"

namespace octet::kernels {
namespace {

// What a panel begins with; kPanelHeader bytes for each of its vectors, so that panels stay on
// 64-byte boundaries.
struct PanelHeader {
  enum : int32_t { split, with_signs, widened } form = split;
  int32_t entries[2] = {};  // by vector
};
inline constexpr int64_t kPanelHeader = 64;
inline constexpr int64_t kSumsAt = 32;  // in each vector's part, with_signs only
OCTET_INLINE void put_panel_header(char* panel, int vectors, const PanelHeader& header) {
  __builtin_memset(panel, 0, static_cast<size_t>(vectors * kPanelHeader));
  __builtin_memcpy(panel, &header, sizeof header);
}
inline constexpr int64_t kEntryBytes = 64;  // 32 of weights, 32 of indices
inline constexpr int64_t kWindow = 16;
inline constexpr int32_t kPairLimit = 128;  // 255 * 128 < 2^15
// Entries for each 4 windows of a vector. More take longer than the widened product, measured on
// layers whose weights are spread evenly over -127..127.
inline constexpr int64_t kMostEntries = 5;
inline constexpr int64_t kSignedFrom = 512;  // k, of one tap

// The lists of a panel, read in the order of taps. `Pairs` is the product of safe pairs.
template <typename Pairs, int kN>
struct ExcessLists {
  using V = typename Pairs::V;
  using I = typename V::I;
  const char* weights;
  const char* entries[kN];       // where each list begins
  const int32_t* positions[kN];  // its (tap, offset) pairs, downwards; behind the last a tap of -1
  const char* entry[kN];
  const int32_t* at[kN];

  OCTET_INLINE ExcessLists(const char* panel, int64_t steps) : weights(panel + kN * kPanelHeader) {
    PanelHeader header;
    __builtin_memcpy(&header, panel, sizeof header);
    const int64_t bytes = kN * steps * Pairs::kVectorBytes;
    const char* next = weights + bytes;
    const auto* position = reinterpret_cast<const int32_t*>(next + bytes) - 2;
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      entries[j] = next;
      positions[j] = position;
      next += header.entries[j] * kEntryBytes;
      position -= 2 * (header.entries[j] + 1);
    }
  }
  template <int kM>
  OCTET_INLINE void begin(I (&)[kM][kN]) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      entry[j] = entries[j];
      at[j] = positions[j];
    }
  }
  template <int kM>
  OCTET_INLINE void add(I (&acc)[kM][kN], const uint8_t* const (&row)[kM], int64_t tap) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      for (; at[j][0] == tap; at[j] -= 2, entry[j] += kEntryBytes) {
        const I w = V::load(entry[j]), order = V::load(entry[j] + 32);
#pragma GCC unroll 16
        for (int r = 0; r < kM; ++r)
          acc[r][j] =
              Pairs::dot(acc[r][j], V::shuffle(V::broadcast128(row[r] + at[j][1]), order), w);
      }
    }
  }
  OCTET_INLINE void skip(int64_t tap) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j)
      for (; at[j][0] == tap; at[j] -= 2) entry[j] += kEntryBytes;
  }
};

// Of panels with_signs: what is added to every sum.
template <typename Signed, int kN>
struct SignedSums {
  using V = typename Signed::V;
  using I = typename V::I;
  const char* weights;
  const char* panel;
  OCTET_INLINE SignedSums(const char* of, int64_t /*steps*/)
      : weights(of + kN * kPanelHeader), panel(of) {}
  template <int kM>
  OCTET_INLINE void begin(I (&acc)[kM][kN]) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      const I sums = V::load(panel + j * kPanelHeader + kSumsAt);
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r) acc[r][j] = V::add(acc[r][j], sums);
    }
  }
  template <int kM>
  OCTET_INLINE void add(I (&)[kM][kN], const uint8_t* const (&)[kM], int64_t /*tap*/) {}
  OCTET_INLINE void skip(int64_t /*tap*/) {}  // there is one tap
};

// Makes a panel of `vectors` packed vectors one with_signs. False if a weight is -128.
template <typename Signed>
bool add_signed_sums(const GemmShape& s, char* panel, int vectors) {
  const int64_t bytes = Signed::kVectorBytes, steps = s.taps * ((s.k + 3) / 4);
  const auto* w = reinterpret_cast<const int8_t*>(panel + vectors * kPanelHeader);
  int32_t sums[2][Signed::V::kLanes] = {};
  for (int64_t step = 0; step < steps; ++step)
    for (int j = 0; j < vectors; ++j)
      for (int64_t i = 0; i < bytes; ++i, ++w) {
        if (*w == -128) return false;
        sums[j][i / 4] += 128 * *w;
      }
  put_panel_header(panel, vectors, {.form = PanelHeader::with_signs});
  for (int j = 0; j < vectors; ++j)
    __builtin_memcpy(panel + j * kPanelHeader + kSumsAt, sums[j], sizeof sums[j]);
  __builtin_memset(panel + vectors * (kPanelHeader + steps * bytes), 0,
                   static_cast<size_t>(vectors * steps * bytes));
  return true;
}

// Takes what is too much out of a packed panel of `vectors` vectors. False if too many entries
// would be needed.
template <typename Pairs>
class Splitter {
 public:
  Splitter(const GemmShape& s, char* panel, int vectors)
      : steps_((s.k + 3) / 4), taps_(s.taps), panel_(panel), vectors_(vectors) {
    const int64_t bytes = vectors * taps_ * steps_ * Pairs::kVectorBytes;
    weights_ = reinterpret_cast<int8_t*>(panel + vectors * kPanelHeader);
    entry_ = weights_ + bytes;
    position_ = reinterpret_cast<int32_t*>(weights_ + 2 * bytes) - 2;
  }

  bool split() {
    PanelHeader header{};
    const int64_t windows = taps_ * ((steps_ * 4 + kWindow - 1) / kWindow);
    for (int j = 0; j < vectors_; ++j) {
      int32_t& entries = header.entries[j];
      for (int64_t tap = 0; tap < taps_; ++tap)
        for (int64_t step = 0; step < steps_; step += kWindow / 4)
          if (!split_window(j, tap, step, entries) || 4 * entries > kMostEntries * windows)
            return false;
      if (!put_position(-1, 0)) return false;
    }
    put_panel_header(panel_, vectors_, header);
    __builtin_memset(entry_, 0, static_cast<size_t>(room()));
    return true;
  }

 private:
  static constexpr int kLanes = Pairs::V::kLanes;

  int8_t* vector(int j, int64_t tap, int64_t step) {
    return weights_ + ((tap * steps_ + step) * vectors_ + j) * Pairs::kVectorBytes;
  }

  bool split_window(int j, int64_t tap, int64_t step, int32_t& entries) {
    const int64_t steps = steps_ - step < kWindow / 4 ? steps_ - step : kWindow / 4;
    first_ = entry_;
    for (int64_t s = 0; s < steps; ++s) {
      int8_t* w = vector(j, tap, step + s);
      uint32_t pairs = Pairs::unsafe(w);
      for (; pairs != 0; pairs &= pairs - 1) {
        const int pair = __builtin_ctz(pairs) / 2;
        int8_t* two = w + 2 * pair;
        const int sum = two[0] + two[1];
        const int excess = sum > 0 ? sum - kPairLimit : sum + kPairLimit;
        const int larger = (two[1] < 0 ? -two[1] : two[1]) > (two[0] < 0 ? -two[0] : two[0]);
        two[larger] = static_cast<int8_t>(two[larger] - excess);
        const int at = static_cast<int>(4 * s) + pair % 2 * 2 + larger;
        if (!put(pair / 2, at, excess)) return false;
      }
    }
    for (const int8_t* e = first_; e != entry_; e += kEntryBytes, ++entries)
      if (!put_position(static_cast<int32_t>(tap), static_cast<int32_t>(4 * step))) return false;
    return true;
  }

  // Into the first entry of the window where the lane has room beside what its pair holds.
  bool put(int lane, int at, int excess) {
    for (int8_t* entry = first_;; entry += kEntryBytes) {
      if (entry == entry_ && !add_entry()) return false;
      int8_t *w = entry + 4 * lane, *order = w + 32;
      for (int i = 0; i < 4; ++i) {
        const int other = order[i ^ 1] < 0 ? 0 : w[i ^ 1];
        const bool fits = (other > 0) != (excess > 0) ||
                          (excess > 0 ? other + excess : -other - excess) <= kPairLimit;
        if (order[i] >= 0 || !fits) continue;
        w[i] = static_cast<int8_t>(excess);
        order[i] = static_cast<int8_t>(at);
        return true;
      }
    }
  }

  bool add_entry() {
    if (room() < kEntryBytes) return false;
    __builtin_memset(entry_, 0, 32);
    __builtin_memset(entry_ + 32, -1, 32);  // a shuffle's index of zero
    entry_ += kEntryBytes;
    return true;
  }
  bool put_position(int32_t tap, int32_t offset) {
    if (room() < 8) return false;
    position_[0] = tap;
    position_[1] = offset;
    position_ -= 2;
    return true;
  }
  // Bytes between the entries and the positions.
  int64_t room() const { return reinterpret_cast<int8_t*>(position_ + 2) - entry_; }

  int64_t steps_, taps_;
  char* panel_;
  int vectors_;
  int8_t *weights_, *entry_, *first_ = nullptr;
  int32_t* position_;
};

// Gemm, of the product that each panel was packed for.
template <typename Pairs, typename Signed, typename Wide>
struct SplitGemm : Gemm<Wide> {
  using Split = Gemm<Pairs>;
  using Widened = Gemm<Wide>;
  static constexpr int64_t kPanel = Widened::kPanel;

  static void pack(const GemmShape& s, const int8_t* w, void* packed) {
    for (int64_t n0 = 0; n0 < s.n; n0 += kPanel) {
      const GemmShape panel{s.n - n0 < kPanel ? s.n - n0 : kPanel, s.k, s.taps};
      const int8_t* from = w + n0 * s.taps * s.k;
      char* to = static_cast<char*>(packed) + n0 / Widened::kLanes * Widened::vector_bytes(s);
      const int vectors = panel.n <= Widened::kLanes ? 1 : 2;
      Split::pack(panel, from, to);
      if (Splitter<Pairs>(panel, to, vectors).split()) continue;
      if (s.taps == 1 && s.k >= kSignedFrom) {
        Split::pack(panel, from, to);
        if (add_signed_sums<Signed>(panel, to, vectors)) continue;
      }
      Widened::pack(panel, from, to);
    }
  }

  static void run(const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    Widened::for_blocks(g, m0, m1, n0, n1, Widened::vector_bytes(g.shape),
                        [&](const char* panel, bool narrow, int64_t rows) {
                          PanelHeader header;
                          __builtin_memcpy(&header, panel, sizeof header);
                          const bool indirect = g.offsets != nullptr;
                          if (header.form == PanelHeader::split)
                            return Split::kShapes.of[indirect][narrow][rows];
                          if (header.form == PanelHeader::with_signs)
                            return Gemm<Signed>::kShapes.of[indirect][narrow][rows];
                          return Widened::kShapes.of[indirect][narrow][rows];
                        });
  }
};

}  // namespace
}  // namespace octet::kernels
