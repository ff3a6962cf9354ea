#pragma once
// The matrix product of gemm_impl.h on CPUs whose only product of bytes is vpmaddubsw, which adds
// two products in 16 bits and saturates: 255 * (w0 + w1) fits only while the weights of each sign
// add up to at most 128. Weights are known when they are packed, so they are split there in a safe
// part, which keeps every sum within 128, and the excess, which few sums have and which is put on a
// list. The products of both are added exactly, whatever the activations are.
//
// A sum is that of a pair of weights (split), or of the same pair of two steps (split_by_two),
// whose products are then added in 16 bits before they are widened: 5 instructions in place of 6,
// but more excess. The panel takes what is faster (worth_of_two_steps).
//
// A window is 16 bytes of k of one tap. An entry of the list belongs to a vector of channels and
// a window, and holds some weights of each channel and, for each of them, which of the window's
// bytes it multiplies: a shuffle brings them together. So one entry takes up to one excess of each
// channel, or of two steps, where there are more of them, up to four.
//
// A panel is a header and weights of 8 bits. What else it has, [entries ... places], lies behind
// all panels (SplitLayout), in the room that weights of 16 bits would take, so that the weights of
// one panel follow those of another: hardware fetches them ahead, and they use all of a cache.
// Where many weights are too large (kMostEntries), splitting gains nothing. Then the panel is run
// by one of two products:
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
  enum Form : int32_t { split, split_by_two, with_signs, widened } form = split;
  int32_t entries[2] = {};  // by vector
};
inline constexpr int64_t kPanelHeader = 64;
inline constexpr int64_t kSumsAt = 32;  // in each vector's part, with_signs only
OCTET_INLINE void put_panel_header(char* panel, int vectors, const PanelHeader& header) {
  __builtin_memset(panel, 0, static_cast<size_t>(vectors * kPanelHeader));
  __builtin_memcpy(panel, &header, sizeof header);
}
inline constexpr int64_t kWindow = 16;
inline constexpr int32_t kSumLimit = 128;    // 255 * 128 < 2^15
inline constexpr int64_t kSignedFrom = 512;  // k, of one tap
// Weights of more bytes do not stay in a core's L2 from one row to the next.
OCTET_INLINE bool is_far(const GemmShape& s) { return s.n * s.taps * s.k > int64_t{4} << 20; }
// How many entries more, for each 8 windows of a vector, the addition of two steps in 16 bits is
// worth, which saves a quarter of a window's instructions: nearly those of an entry. With few k the
// branches of a list weigh more, with fewer than 32 a tile has too few steps, and lists of far
// weights have to be read. Measured on Zen 5.
OCTET_INLINE int64_t worth_of_two_steps(const GemmShape& s) {
  return s.k < 32 ? -1 : is_far(s) ? 1 : s.k < 64 ? 2 : s.k < 128 ? 4 : 7;
}

// Where the panels of a product lie, for vectors of kLanes channels.
template <int kLanes>
struct SplitLayout {
  static OCTET_INLINE int64_t rest_bytes(const GemmShape& s) {  // of a vector
    return s.taps * ((s.k + 3) / 4) * 4 * kLanes;
  }
  static OCTET_INLINE int64_t vector_bytes(const GemmShape& s) {
    return kPanelHeader + rest_bytes(s);
  }
  static OCTET_INLINE int64_t vectors(const GemmShape& s) { return (s.n + kLanes - 1) / kLanes; }
  static OCTET_INLINE int64_t rests_at(const GemmShape& s) {
    return (vectors(s) * vector_bytes(s) + 63) / 64 * 64;
  }
  // of the panel of channels from n on
  static OCTET_INLINE int64_t panel_at(const GemmShape& s, int64_t n) {
    return n / kLanes * vector_bytes(s);
  }
  static OCTET_INLINE int64_t rest_at(const GemmShape& s, int64_t n) {
    return rests_at(s) + n / kLanes * rest_bytes(s);
  }
};

// The window that an entry belongs to; a list ends with that of no tap.
struct EntryPlace {
  static constexpr uint16_t kNoTap = 0xffff;
  uint16_t tap, window;
};

// An entry has Pairs::kSlots weights of each channel, then their indices.
template <typename Pairs>
inline constexpr int64_t entry_bytes = Pairs::V::kLanes* Pairs::kSlots * 2;

// The lists of a panel, read in the order of taps. `Pairs` is the product of safe weights.
template <typename Pairs, int kN>
struct ExcessLists {
  using V = typename Pairs::V;
  using I = typename V::I;
  static constexpr int64_t kEntryBytes = entry_bytes<Pairs>, half = 0;
  const char* weights;
  const char* entries[kN];       // where each list begins
  const EntryPlace* places[kN];  // and where those of its entries begin, downwards
  const char *last_entry, *last_place;
  bool far;
  const char* entry[kN];
  const EntryPlace* at[kN];

  OCTET_INLINE ExcessLists(const GemmShape& s, const char* packed, const char* panel, int64_t n)
      : weights(panel + kN * kPanelHeader), far(is_far(s)) {
    using Layout = SplitLayout<V::kLanes>;
    PanelHeader header;
    __builtin_memcpy(&header, panel, sizeof header);
    const char* next = packed + Layout::rest_at(s, n);
    const auto* place = reinterpret_cast<const EntryPlace*>(next + kN * Layout::rest_bytes(s)) - 1;
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      entries[j] = next;
      places[j] = place;
      next += header.entries[j] * kEntryBytes;
      place -= header.entries[j] + 1;
    }
    last_entry = next;
    last_place = reinterpret_cast<const char*>(place);
  }
  template <int kM>
  OCTET_INLINE void begin(I (&)[kM][kN]) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      entry[j] = entries[j];
      at[j] = places[j];
    }
    // A row does not wait for its panel's lists, which nothing else asks for early enough.
    if (kM == 1 && far) {
      for (const char* line = entries[0]; line < last_entry; line += 64)
        __builtin_prefetch(line, 0, 2);
      for (const char* line = last_place; line < reinterpret_cast<const char*>(places[0]);
           line += 64)
        __builtin_prefetch(line, 0, 2);
    }
  }
  template <int kM>
  OCTET_INLINE void add(I (&acc)[kM][kN], const uint8_t* const (&row)[kM], int64_t tap) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j) {
      for (; at[j]->tap == tap; --at[j], entry[j] += kEntryBytes) {
        const I w = Pairs::slots(entry[j]), order = Pairs::slots(entry[j] + kEntryBytes / 2);
#pragma GCC unroll 16
        for (int r = 0; r < kM; ++r)
          acc[r][j] = Pairs::dot(
              acc[r][j], V::shuffle(V::broadcast128(row[r] + at[j]->window * kWindow), order), w);
      }
    }
  }
  OCTET_INLINE void skip(int64_t tap) {
#pragma GCC unroll 2
    for (int j = 0; j < kN; ++j)
      for (; at[j]->tap == tap; --at[j]) entry[j] += kEntryBytes;
  }
};

// Of panels with_signs: what is added to every sum.
template <typename Signed, int kN>
struct SignedSums {
  using V = typename Signed::V;
  using I = typename V::I;
  static constexpr int64_t half = 0;
  const char* weights;
  const char* panel;
  OCTET_INLINE SignedSums(const GemmShape&, const char* /*packed*/, const char* of, int64_t /*n*/)
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

// Of panels that are widened: the odd halves of their weights are the rest.
template <typename Wide, int kN>
struct OddHalves {
  using I = typename Wide::V::I;
  const char* weights;
  int64_t half;
  OCTET_INLINE OddHalves(const GemmShape& s, const char* packed, const char* panel, int64_t n)
      : weights(panel + kN * kPanelHeader),
        half(packed + SplitLayout<Wide::V::kLanes>::rest_at(s, n) - weights) {}
  template <int kM>
  OCTET_INLINE void begin(I (&)[kM][kN]) {}
  template <int kM>
  OCTET_INLINE void add(I (&)[kM][kN], const uint8_t* const (&)[kM], int64_t /*tap*/) {}
  OCTET_INLINE void skip(int64_t /*tap*/) {}
};

// Makes a panel of `vectors` packed vectors one with_signs. False if a weight is -128.
template <typename Signed>
bool add_signed_sums(const GemmShape& s, char* panel, char* rest, int vectors) {
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
  __builtin_memset(rest, 0, static_cast<size_t>(vectors * steps * bytes));
  return true;
}

// Takes what is too much out of a packed panel of `vectors` vectors. False if too many entries
// would be needed.
template <typename Pairs>
class Splitter {
 public:
  Splitter(const GemmShape& s, char* panel, char* rest, int vectors)
      : steps_((s.k + 3) / 4),
        taps_(s.taps),
        panel_(panel),
        vectors_(vectors),
        weights_(reinterpret_cast<int8_t*>(panel + vectors * kPanelHeader)),
        entry_(reinterpret_cast<int8_t*>(rest)),
        place_(
            reinterpret_cast<EntryPlace*>(rest + vectors * taps_ * steps_ * Pairs::kVectorBytes) -
            1) {}

  bool split() {
    PanelHeader header{};
    const int64_t per_tap = (steps_ * 4 + kWindow - 1) / kWindow, windows = taps_ * per_tap;
    if (taps_ >= EntryPlace::kNoTap || per_tap > 0x10000) return false;
    for (int j = 0; j < vectors_; ++j) {
      int32_t& entries = header.entries[j];
      for (int64_t tap = 0; tap < taps_; ++tap)
        for (int64_t step = 0; step < steps_; step += kWindow / 4)
          if (!split_window(j, tap, step, entries) || 4 * entries > Pairs::kMostEntries * windows)
            return false;
      entries_ += entries;
      if (!put_place(EntryPlace::kNoTap, 0)) return false;
    }
    header.form = Pairs::kForm;
    put_panel_header(panel_, vectors_, header);
    __builtin_memset(entry_, 0, static_cast<size_t>(room()));
    return true;
  }
  // After it, of two steps together: whether that is faster than one by one.
  bool is_worth_it(int64_t entries_for_8) const {
    const int64_t windows = vectors_ * taps_ * ((steps_ * 4 + kWindow - 1) / kWindow);
    return 8 * (entries_ - entries_by_one_) <= entries_for_8 * windows;
  }

 private:
  static constexpr int kLanes = Pairs::V::kLanes, kSlots = Pairs::kSlots;
  static constexpr int64_t kEntryBytes = entry_bytes<Pairs>;

  int8_t* vector(int j, int64_t tap, int64_t step) {
    return weights_ + ((tap * steps_ + step) * vectors_ + j) * Pairs::kVectorBytes;
  }

  bool split_window(int j, int64_t tap, int64_t step, int32_t& entries) {
    const int64_t end = steps_ - step < kWindow / 4 ? steps_ : step + kWindow / 4;
    static constexpr int8_t kNone[Pairs::kVectorBytes] = {};
    uint32_t by_one = 0;
    for (int64_t s = step; s < end; ++s) by_one |= Pairs::unsafe(vector(j, tap, s), kNone);
    entries_by_one_ += by_one != 0;  // or more, which is rare
    first_ = entry_;
    for (int64_t s = step; s < end; s += Pairs::kTogether) {
      const bool second = Pairs::kTogether == 2 && s + 1 < end;
      int8_t* const two[2] = {vector(j, tap, s), second ? vector(j, tap, s + 1) : nullptr};
      uint32_t pairs = Pairs::unsafe(two[0], two[1] ? two[1] : kNone);
      for (; pairs != 0; pairs &= pairs - 1) {
        const int pair = __builtin_ctz(pairs) / 2;
        const int at = static_cast<int>(4 * (s - step));
        if (!make_safe(two, pair, 1, at) || !make_safe(two, pair, -1, at)) return false;
      }
    }
    for (const int8_t* e = first_; e != entry_; e += kEntryBytes, ++entries)
      if (!put_place(tap, step / (kWindow / 4))) return false;
    return true;
  }

  // Takes from the largest weights of a sign, of the same pair of two steps (the second null where
  // there is none), what they have too much. `at`: where in its window the first step begins.
  bool make_safe(int8_t* const (&two)[2], int pair, int sign, int at) {
    int sum = 0;
    for (int i = 0; i < 4; ++i) sum += part_of(two, pair, sign, i);
    while (sum > kSumLimit) {
      int largest = 0;
      for (int i = 1; i < 4; ++i)
        if (part_of(two, pair, sign, i) > part_of(two, pair, sign, largest)) largest = i;
      const int much = sum - kSumLimit, has = part_of(two, pair, sign, largest),
                excess = much < has ? much : has;
      two[largest / 2][2 * pair + largest % 2] -= static_cast<int8_t>(sign * excess);
      sum -= excess;
      const int place = at + largest / 2 * 4 + pair % 2 * 2 + largest % 2;
      if (!put(pair / 2, place, sign * excess)) return false;
    }
    return true;
  }
  // The magnitude of the i-th of four weights if it has the sign; else 0.
  static int part_of(int8_t* const (&two)[2], int pair, int sign, int i) {
    const int w = two[i / 2] ? sign * two[i / 2][2 * pair + i % 2] : 0;
    return w > 0 ? w : 0;
  }

  // Into the first entry of the window where the lane has room beside what its pair holds.
  bool put(int lane, int at, int excess) {
    for (int8_t* entry = first_;; entry += kEntryBytes) {
      if (entry == entry_ && !add_entry()) return false;
      int8_t *w = entry + kSlots * lane, *order = w + kEntryBytes / 2;
      for (int i = 0; i < kSlots; ++i) {
        const int other = kSlots == 1 || order[i ^ 1] < 0 ? 0 : w[i ^ 1];
        const bool fits = (other > 0) != (excess > 0) ||
                          (excess > 0 ? other + excess : -other - excess) <= kSumLimit;
        if (order[i] >= 0 || !fits) continue;
        w[i] = static_cast<int8_t>(excess);
        order[i] = static_cast<int8_t>(at);
        return true;
      }
    }
  }

  bool add_entry() {
    if (room() < kEntryBytes) return false;
    __builtin_memset(entry_, 0, kEntryBytes / 2);
    __builtin_memset(entry_ + kEntryBytes / 2, -1, kEntryBytes / 2);  // a shuffle's index of zero
    entry_ += kEntryBytes;
    return true;
  }
  bool put_place(int64_t tap, int64_t window) {
    if (room() < static_cast<int64_t>(sizeof(EntryPlace))) return false;
    *place_-- = {static_cast<uint16_t>(tap), static_cast<uint16_t>(window)};
    return true;
  }
  // Bytes between the entries and their places.
  int64_t room() const { return reinterpret_cast<int8_t*>(place_ + 1) - entry_; }

  int64_t steps_, taps_, entries_ = 0, entries_by_one_ = 0;
  char* panel_;
  int vectors_;
  int8_t *weights_, *entry_, *first_ = nullptr;
  EntryPlace* place_;
};

// Gemm, of the product that each panel was packed for.
template <typename Pairs, typename TwoSteps, typename Signed, typename Wide>
struct SplitGemm : Gemm<Wide> {
  using Split = Gemm<Pairs>;
  using Widened = Gemm<Wide>;
  static constexpr int64_t kPanel = Widened::kPanel;
  static constexpr int kLanes = Widened::kLanes;
  using Layout = SplitLayout<kLanes>;

  static size_t packed_bytes(const GemmShape& s) {
    return static_cast<size_t>(Layout::rests_at(s) + Layout::vectors(s) * Layout::rest_bytes(s));
  }

  static void pack_part(const GemmShape& s, int64_t n0, int64_t n1, const int8_t* w, void* packed) {
    char* const base = static_cast<char*>(packed);
    for (int64_t n = n0; n < n1; n += kPanel, w += kPanel * s.taps * s.k) {
      const GemmShape panel{s.n - n < kPanel ? s.n - n : kPanel, s.k, s.taps};
      char *const to = base + Layout::panel_at(s, n), *const rest = base + Layout::rest_at(s, n);
      const int vectors = panel.n <= kLanes ? 1 : 2;
      Split::pack(panel, w, to);
      Splitter<TwoSteps> by_two(panel, to, rest, vectors);
      if (by_two.split() && by_two.is_worth_it(worth_of_two_steps(s))) continue;
      Split::pack(panel, w, to);
      if (Splitter<Pairs>(panel, to, rest, vectors).split()) continue;
      Split::pack(panel, w, to);
      if (s.taps == 1 && s.k >= kSignedFrom && add_signed_sums<Signed>(panel, to, rest, vectors))
        continue;
      widen(panel, to, rest, vectors);
    }
    if (n1 == s.n) clear_gap(s, base);
  }

  static void pack_columns(const GemmShape& s, const uint8_t* b, uint8_t flip, void* packed,
                           int32_t* sums) {
    Split::pack_columns(s, b, flip, packed, sums);
    char* const base = static_cast<char*>(packed);
    for (int64_t n = 0; n < s.n; n += kPanel)
      widen(s, base + Layout::panel_at(s, n), base + Layout::rest_at(s, n),
            s.n - n <= kLanes ? 1 : 2);
    clear_gap(s, base);
  }

  static void run(const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    Widened::for_blocks(g, m0, m1, n0, n1, Layout::vector_bytes(g.shape),
                        [&](const char* panel, bool narrow, int64_t rows) {
                          PanelHeader header;
                          __builtin_memcpy(&header, panel, sizeof header);
                          const bool indirect = g.offsets != nullptr;
                          if (header.form == PanelHeader::split)
                            return Split::kShapes.of[indirect][narrow][rows];
                          if (header.form == PanelHeader::split_by_two)
                            return Gemm<TwoSteps>::kShapes.of[indirect][narrow][rows];
                          if (header.form == PanelHeader::with_signs)
                            return Gemm<Signed>::kShapes.of[indirect][narrow][rows];
                          return Widened::kShapes.of[indirect][narrow][rows];
                        });
  }

 private:
  // A packed panel's weights to 16 bits, in place and behind all panels.
  static void widen(const GemmShape& s, char* panel, char* rest, int vectors) {
    put_panel_header(panel, vectors, {.form = PanelHeader::widened});
    char* w = panel + vectors * kPanelHeader;
    const int64_t bytes = vectors * Layout::rest_bytes(s);
    for (int64_t i = 0; i < bytes; i += Wide::kVectorBytes) Wide::widen(w + i, w + i, rest + i);
  }
  static void clear_gap(const GemmShape& s, char* base) {
    const int64_t end = Layout::vectors(s) * Layout::vector_bytes(s);
    __builtin_memset(base + end, 0, static_cast<size_t>(Layout::rests_at(s) - end));
  }
};

}  // namespace
}  // namespace octet::kernels
