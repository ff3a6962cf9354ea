#pragma once
// The float matrix product behind linear, matmul and convolution layers, as a template over an
// ISA's vector. Lanes are output channels. Every result is one chain of fused multiply-adds in the
// order of k, whatever the tile it is computed in: no chain is ever split, so all vector widths,
// tile shapes and thread counts give the same bits (docs/numerics.md).
//
// Weights are packed into panels of 2 vectors of channels: [panel][tap][k][channel], zero padded in
// n. A last panel of at most one vector is stored (and run) one vector wide. A tile is up to kRows
// rows times one panel, with its accumulators in registers: each step of k loads 2 vectors of
// weights and broadcasts one float per row. Tiles of few rows would wait for the latency of each
// chain, so they take several panels at once.

#include "octet/kernels/codes_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/kernels/prefetch_impl.h"

namespace octet::kernels {
namespace {

template <typename V, int kMaxRows>
struct FloatGemm {
  using F = typename V::F;
  static constexpr int kRows = kMaxRows;
  // enough chains to hide their latency
  static constexpr int kNarrowRows = kMaxRows > 8 ? kMaxRows : 8;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kPanel = 2 * kLanes;

  static OCTET_INLINE int64_t vector_floats(const GemmShape& s) { return s.taps * s.k * kLanes; }
  static size_t packed_bytes(const GemmShape& s) {
    const int64_t rest = s.n % kPanel;
    const int64_t vectors = s.n / kPanel * 2 + (rest == 0 ? 0 : rest <= kLanes ? 1 : 2);
    return static_cast<size_t>(vectors * vector_floats(s)) * sizeof(float);
  }

  // Some steps of k at a time, so that what is written stays in L1 while each channel is read.
  static void pack(const GemmShape& s, const FloatWeights& w, float* packed) {
    constexpr int64_t kRun = 16;
    for (int64_t n0 = 0; n0 < s.n; n0 += kPanel) {
      const int64_t width = s.n - n0 <= kLanes ? kLanes : kPanel;
      const int64_t channels = s.n - n0 < width ? s.n - n0 : width;
      for (int64_t run = 0; run < s.k; run += kRun) {
        const int64_t end = run + kRun < s.k ? run + kRun : s.k;
        for (int64_t t = 0; t < s.taps; ++t) {
          float* to = packed + t * s.k * width;
          const float* from = w.data + n0 * w.n_stride + t * w.tap_stride;
          if (w.n_stride == 1) {
            for (int64_t i = run; i < end; ++i)
              __builtin_memcpy(to + i * width, from + i * w.k_stride, channels * sizeof(float));
          } else {
            for (int64_t c = 0; c < channels; ++c)
              for (int64_t i = run; i < end; ++i)
                to[i * width + c] = from[c * w.n_stride + i * w.k_stride];
          }
          for (int64_t i = run; i < end && channels < width; ++i)
            for (int64_t c = channels; c < width; ++c) to[i * width + c] = 0;
        }
      }
      packed += s.taps * s.k * width;
    }
  }

  // + 0 makes -0 to 0. NaN passes: min and max return their second operand then.
  static OCTET_INLINE F clamp(F sum, F lo, F hi) {
    return V::min(hi, V::max(lo, V::add(sum, V::set(0.0f))));
  }

  // One step of k: x(r) is what row r has there, b the weights of the first panel.
  template <int kM, int kN, typename X>
  static OCTET_INLINE void step(F (&acc)[kM][kN], X&& x, const float* b, int64_t panel_floats) {
    F w[kN];
#pragma GCC unroll 8
    for (int j = 0; j < kN; ++j) w[j] = V::load_f32(b + j / 2 * panel_floats + j % 2 * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kM; ++r) {
      const F v = V::set(x(r));
#pragma GCC unroll 8
      for (int j = 0; j < kN; ++j) V::add_product(acc[r][j], v, w[j]);
    }
  }

  // Steps k0..k1 of dense rows. Chains that do not begin at 0 go on from what C holds, those that
  // do not end at shape.k leave their sums there. Of indirect rows always all of them.
  struct Steps {
    int64_t k0, k1;
    int64_t m0 = 0, rows = 0;  // of the block that passes over each panel
  };

  // `count` tiles of kM rows from row m on, times kN vectors of channels from n on: of a narrow
  // panel if kN is 1, else of kN / 2 panels. `columns` channels are stored.
  template <int kM, int kN, bool kIndirect>
  static void tiles(const FloatGemmArgs& g, const Steps& steps, const float* panel, int64_t m,
                    int64_t count, int64_t n, int64_t columns) {
    constexpr int64_t kWidth = kN == 1 ? kLanes : kPanel;
    const int64_t k = steps.k1, taps = kIndirect ? g.shape.taps : 1;
    const int64_t panel_floats = 2 * vector_floats(g.shape);
    const bool last = kIndirect || k == g.shape.k;
    panel += steps.k0 * kWidth;
    // Stores to C could change what g holds, as far as the compiler knows.
    const float *const a = g.a, *const pad = g.pad;
    float* const c = g.c + n;
    const int32_t* const all_offsets = g.offsets;
    const int64_t* const c_rows = g.c_rows;
    const int64_t lda = g.lda, ldc = g.ldc;
    alignas(64) float bias[kN][kLanes];
#pragma GCC unroll 8
    for (int j = 0; j < kN; ++j) {
      const int64_t first = j * kLanes;
      const int64_t some = columns - first < kLanes ? columns - first : kLanes;
      V::store_f32(bias[j],
                   g.bias && some > 0 ? V::load_f32(g.bias + n + first, some) : V::set(0.0f));
    }
    for (; count > 0; --count, m += kM) {
      F acc[kM][kN];
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < kN; ++j) acc[r][j] = V::load_f32(bias[j]);
      const auto row_of_c = [&](int r) OCTET_INLINE_LAMBDA {
        return c + (c_rows ? c_rows[m + r] : (m + r) * ldc);
      };
      if (!kIndirect && steps.k0 > 0) {
#pragma GCC unroll 16
        for (int r = 0; r < kM; ++r)
#pragma GCC unroll 8
          for (int j = 0; j < kN; ++j) {
            const int64_t some = columns - j * kLanes;
            acc[r][j] = V::load_f32(row_of_c(r) + j * kLanes, some < 0        ? 0
                                                              : some < kLanes ? some
                                                                              : kLanes);
          }
      }
      const float* b = panel;
      if constexpr (kIndirect) {
        for (int64_t t = 0; t < taps; ++t) {
          const float* row[kM];
          const int32_t* offsets = all_offsets + m * taps + t;
          int32_t outside = -1;
#pragma GCC unroll 16
          for (int r = 0; r < kM; ++r, offsets += taps) {
            row[r] = *offsets < 0 ? pad : a + *offsets;
            outside &= *offsets;
          }
          if (outside < 0) {  // of all rows: products with zeros change nothing
            b += k * kWidth;
            continue;
          }
#pragma GCC unroll 1
          for (int64_t i = 0; i < k; ++i, b += kWidth)
            step(
                acc, [&](int r) OCTET_INLINE_LAMBDA { return row[r][i]; }, b, panel_floats);
        }
      } else {
        // Three rows at a time share a pointer that the compiler cannot relate to others: one for
        // each row is more than there are registers.
        constexpr int kPointers = (kM + 2) / 3;
        const char* rows[kPointers];
#pragma GCC unroll 6
        for (int p = 0; p < kPointers; ++p) {
          rows[p] = reinterpret_cast<const char*>(a + (m + 3 * p) * lda + steps.k0);
          asm("" : "+r"(rows[p]));
        }
        const int64_t ahead_of_row =
            kN <= 2 && steps.rows <= g_prefetch_tiles * kRows ? kWidth * 4 / steps.rows : 0;
        NextPanel ahead{
            reinterpret_cast<const char*>(panel + vector_floats(g.shape) * kWidth / kLanes) +
                (m - steps.m0) * (k - steps.k0) * ahead_of_row,
            kM * ahead_of_row};
        const auto all_steps = [&]<bool kAhead>() OCTET_INLINE_LAMBDA {
#pragma GCC unroll 1
          for (int64_t i = steps.k0; i < k; ++i, b += kWidth) {
            if constexpr (kAhead) ahead.template step<kWidth * 4>();
            step(
                acc,
                [&](int r) OCTET_INLINE_LAMBDA {
                  float x;
                  __builtin_memcpy(&x, rows[r / 3] + r % 3 * lda * 4, sizeof x);
                  return x;
                },
                b, panel_floats);
#pragma GCC unroll 6
            for (int p = 0; p < kPointers; ++p) rows[p] += sizeof(float);
          }
        };
        if (ahead.bytes > 0)
          all_steps.template operator()<true>();
        else
          all_steps.template operator()<false>();
      }
      const F lo = V::set(g.lo), hi = V::set(g.hi);
#pragma GCC unroll 16
      for (int r = 0; r < kM; ++r) {
        float* y = row_of_c(r);
#pragma GCC unroll 8
        for (int j = 0; j < kN; ++j) {
          const F v = last ? clamp(acc[r][j], lo, hi) : acc[r][j];
          if (__builtin_expect(columns >= (j + 1) * kLanes, 1)) {
            V::store_f32(y + j * kLanes, v);
          } else if (columns > j * kLanes) {
            V::store_f32(y + j * kLanes, v, columns - j * kLanes);
          }
        }
      }
    }
  }

  // How many panels tiles of that many rows take at once.
  static constexpr int panels_at_once(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }

  using Tiles = void (*)(const FloatGemmArgs&, const Steps&, const float*, int64_t, int64_t,
                         int64_t, int64_t);
  struct Shapes {
    Tiles narrow[2][kNarrowRows + 1] = {};  // [indirect][rows]
    Tiles wide[2][kRows + 1] = {};
    Tiles several[2][kRows + 1] = {};  // panels_at_once(rows) of them; null where that is one
    template <int kM = kNarrowRows>
    constexpr void fill() {
      narrow[0][kM] = tiles<kM, 1, false>;
      narrow[1][kM] = tiles<kM, 1, true>;
      if constexpr (kM <= kRows) {
        wide[0][kM] = tiles<kM, 2, false>;
        wide[1][kM] = tiles<kM, 2, true>;
      }
      if constexpr (constexpr int kAtOnce = panels_at_once(kM); kAtOnce > 1) {
        several[0][kM] = tiles<kM, 2 * kAtOnce, false>;
        several[1][kM] = tiles<kM, 2 * kAtOnce, true>;
      }
      if constexpr (kM > 1) fill<kM - 1>();
    }
    constexpr Shapes() { fill(); }
  };
  static constexpr Shapes kShapes{};

  static void run(const FloatGemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    for (int64_t i = 0; i < g.cut_count && m0 < m1; ++i) {
      const int64_t cut = g.cuts[i] < m1 ? g.cuts[i] : m1;
      if (cut <= m0) continue;
      run_rows(g, m0, cut, n0, n1);
      m0 = cut;
    }
    run_rows(g, m0, m1, n0, n1);
  }

  // Dense rows of many steps are computed some steps at a time, so that both operands stay in L2.
  static void run_rows(const FloatGemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    if (m1 <= m0 || n1 <= n0) return;
    const int64_t k = g.shape.k;
    if (g.offsets || k < 2 * kStepsAtOnce || m1 - m0 <= kRows)
      return run_steps(g, {0, k}, m0, m1, n0, n1);
    for (int64_t k0 = 0; k0 < k; k0 += kStepsAtOnce)
      run_steps(g, {k0, k - k0 < kStepsAtOnce ? k : k0 + kStepsAtOnce}, m0, m1, n0, n1);
  }

  // Rows cut into as many tiles as they need, shared out evenly: 49 rows make 5 tiles of 10, not 4
  // of 12 and one of 1.
  struct Cut {
    int64_t rows, larger;  // the first `larger` tiles have one row more than `rows`
    Cut(int64_t m, int64_t most) {
      const int64_t count = (m + most - 1) / most;
      rows = m / count;
      larger = m % count;
    }
  };

  // The rows are cut in blocks whose operands stay in L2 while all panels pass over them.
  static void run_steps(const FloatGemmArgs& g, const Steps& steps, int64_t m0, int64_t m1,
                        int64_t n0, int64_t n1) {
    const int64_t fit = kBlockBytes / ((steps.k1 - steps.k0 + 1) * kRows * 4) * kRows;
    const int64_t block = fit < kRows ? kRows : fit, blocks = (m1 - m0 + block - 1) / block;
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t begin = m0 + (m1 - m0) * i / blocks, end = m0 + (m1 - m0) * (i + 1) / blocks;
      run_block(g, {steps.k0, steps.k1, begin, end - begin}, begin, end, n0, n1);
    }
  }
  static void run_block(const FloatGemmArgs& g, const Steps& steps, int64_t m0, int64_t m1,
                        int64_t n0, int64_t n1) {
    const GemmShape& s = g.shape;
    const bool indirect = g.offsets != nullptr;
    const auto run_tiles = [&](const Tiles* shapes, const Cut& cut, const float* panel, int64_t n,
                               int64_t columns) {
      const int64_t split = m0 + cut.larger * (cut.rows + 1);
      if (cut.larger > 0) shapes[cut.rows + 1](g, steps, panel, m0, cut.larger, n, columns);
      shapes[cut.rows](g, steps, panel, split, (m1 - split) / cut.rows, n, columns);
    };
    const Cut cut(m1 - m0, kRows);
    for (int64_t n = n0; n < n1;) {
      const float* panel = g.b + n / kLanes * vector_floats(s);
      const int64_t columns = n1 - n;
      // Several panels at once only where all tiles are of the same few rows.
      const int64_t several = panels_at_once(static_cast<int>(cut.rows)) * kPanel;
      if (s.n - n <= kLanes) {
        run_tiles(kShapes.narrow[indirect], Cut(m1 - m0, kNarrowRows), panel, n,
                  columns < kLanes ? columns : kLanes);
        n += kPanel;
      } else if (cut.larger == 0 && several > kPanel && columns >= several) {
        run_tiles(kShapes.several[indirect], cut, panel, n, several);
        n += several;
      } else {
        run_tiles(kShapes.wide[indirect], cut, panel, n, columns < kPanel ? columns : kPanel);
        n += kPanel;
      }
    }
  }
  static constexpr int64_t kBlockBytes = 256 << 10;
  static constexpr int64_t kStepsAtOnce = 512;
};

// Depthwise convolution and pools: channels in lanes, one chain per channel in the order of the
// taps.
template <typename V>
struct FloatPixels {
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kPixels = 4;
  static constexpr int64_t kMaxTaps = 64;  // of which addresses are kept

  // Pixels p..p + kP of vectors c..c + kN.
  template <int kP, int kN>
  static OCTET_INLINE void depthwise_tile(const FloatDepthwiseArgs& d, const float* const* x,
                                          int64_t p, int64_t c, int64_t count) {
    F acc[kP][kN];
#pragma GCC unroll 4
    for (int j = 0; j < kN; ++j) {
      const int64_t some = count - j * kLanes < kLanes ? count - j * kLanes : kLanes;
      const F bias = d.bias ? V::load_f32(d.bias + c + j * kLanes, some) : V::set(0.0f);
#pragma GCC unroll 4
      for (int r = 0; r < kP; ++r) acc[r][j] = bias;
    }
    for (int64_t t = 0; t < d.taps; ++t) {
      const float* w = d.weights + t * d.channels + c;
#pragma GCC unroll 4
      for (int j = 0; j < kN; ++j) {
        const int64_t some = count - j * kLanes;
        const bool whole = kN > 1 || some >= kLanes;
        const F weight = whole ? V::load_f32(w + j * kLanes) : V::load_f32(w + j * kLanes, some);
#pragma GCC unroll 4
        for (int r = 0; r < kP; ++r) {
          const float* from = x[r * d.taps + t] + c + j * kLanes;
          V::add_product(acc[r][j], whole ? V::load_f32(from) : V::load_f32(from, some), weight);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kP; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < kN; ++j) {
        float* y = d.c + (p + r) * d.ldc + c + j * kLanes;
        const F v = V::min(V::set(d.hi), V::max(V::set(d.lo), V::add(acc[r][j], V::set(0.0f))));
        if (kN > 1 || count >= kLanes)
          V::store_f32(y, v);
        else
          V::store_f32(y, v, count);
      }
  }

  // Pixels p..p + kP of one row of results, under 3x3 windows that move by kSlide columns: an
  // element is loaded once for all windows it lies in. x[i][j] is column j of those that the pixels
  // see, in row i; if kInside, all lie inside the image and so `channels` apart.
  template <int kSlide, int kP, bool kInside, bool kWhole>
  static OCTET_INLINE void slide_tile(const FloatDepthwiseArgs& d, const float* const* x,
                                      const float* weights, float* y, F lo, F hi, int64_t c,
                                      int64_t count) {
    constexpr int kColumns = (kP - 1) * kSlide + 3;
    const int64_t channels = d.channels;
    const auto load = [&](const float* from) OCTET_INLINE_LAMBDA {
      return kWhole ? V::load_f32(from) : V::load_f32(from, count);
    };
    const F bias = d.bias ? load(d.bias + c) : V::set(0.0f);
    F acc[kP];
#pragma GCC unroll 8
    for (int r = 0; r < kP; ++r) acc[r] = bias;
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      F w[3];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) w[j] = load(weights + (3 * i + j) * channels + c);
      const float* next = x[i * kColumns] + c;
#pragma GCC unroll 17
      for (int column = 0; column < kColumns; ++column) {
        const F v = load(kInside ? next : x[i * kColumns + column] + c);
        next += channels;
#pragma GCC unroll 3
        for (int j = 2; j >= 0; --j)
          if (column >= j && (column - j) % kSlide == 0 && (column - j) / kSlide < kP)
            V::add_product(acc[(column - j) / kSlide], v, w[j]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kP; ++r) {
      const F v = V::min(hi, V::max(lo, V::add(acc[r], V::set(0.0f))));
      if (kWhole)
        V::store_f32(y + r * d.ldc + c, v);
      else
        V::store_f32(y + r * d.ldc + c, v, count);
    }
  }
  template <int kSlide, int kP, bool kInside>
  static OCTET_INLINE void slide_channels(const FloatDepthwiseArgs& d, const float* const* x,
                                          int64_t p) {
    const F lo = V::set(d.lo), hi = V::set(d.hi);
    const float* const weights = d.weights;
    float* const y = d.c + p * d.ldc;
    const int64_t channels = d.channels;
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes)
      slide_tile<kSlide, kP, kInside, true>(d, x, weights, y, lo, hi, c, kLanes);
    if (c < channels)
      slide_tile<kSlide, kP, kInside, false>(d, x, weights, y, lo, hi, c, channels - c);
  }
  template <int kSlide, int kP>
  static void slide_pixels(const FloatDepthwiseArgs& d, int64_t p) {
    constexpr int kColumns = (kP - 1) * kSlide + 3;
    const float* x[3 * kColumns];
    int32_t outside = 0;
    for (int i = 0; i < 3; ++i)
      for (int column = 0; column < kColumns; ++column) {
        const int pixel = column / kSlide < kP ? column / kSlide : kP - 1;
        const int32_t offset = d.offsets[(p + pixel) * 9 + 3 * i + column - pixel * kSlide];
        x[i * kColumns + column] = offset < 0 ? d.pad : d.a + offset;
        outside |= offset;
      }
    if (outside < 0)
      slide_channels<kSlide, kP, false>(d, x, p);
    else
      slide_channels<kSlide, kP, true>(d, x, p);
  }
  // Rows of results are cut evenly: 7 pixels make one tile, 14 make two. Windows that move by two
  // columns see so many that long rows take half of the pixels at once, whose columns stay in L1.
  template <int kSlide>
  static void slide(const FloatDepthwiseArgs& d, int64_t p0, int64_t p1) {
    constexpr void (*kTiles[])(const FloatDepthwiseArgs&, int64_t) = {
        slide_pixels<kSlide, 1>, slide_pixels<kSlide, 2>, slide_pixels<kSlide, 3>,
        slide_pixels<kSlide, 4>, slide_pixels<kSlide, 5>, slide_pixels<kSlide, 6>,
        slide_pixels<kSlide, 7>, slide_pixels<kSlide, 8>};
    while (p0 < p1) {
      const int64_t row = (p0 / d.width + 1) * d.width, end = row < p1 ? row : p1;
      const int64_t most = kSlide == 1 || end - p0 <= 8 ? 8 : 4;
      for (int64_t tiles = (end - p0 + most - 1) / most; tiles > 0; --tiles) {
        const int64_t pixels = (end - p0 + tiles - 1) / tiles;
        kTiles[pixels - 1](d, p0);
        p0 += pixels;
      }
    }
  }

  template <int kP>
  static void depthwise_pixels(const FloatDepthwiseArgs& d, const float* const* x, int64_t p) {
    int64_t c = 0;
    for (; c + 2 * kLanes <= d.channels; c += 2 * kLanes)
      depthwise_tile<kP, 2>(d, x, p, c, 2 * kLanes);
    for (; c < d.channels; c += kLanes) depthwise_tile<kP, 1>(d, x, p, c, d.channels - c);
  }

  static void depthwise(const FloatDepthwiseArgs& d, int64_t p0, int64_t p1) {
    if (d.slide == 1) return slide<1>(d, p0, p1);
    if (d.slide == 2) return slide<2>(d, p0, p1);
    if (d.taps > kMaxTaps) return depthwise_many_taps(d, p0, p1);
    const float* x[kPixels * kMaxTaps];
    for (int64_t p = p0; p < p1;) {
      const int64_t pixels = p1 - p < kPixels ? 1 : kPixels;
      const int32_t* offsets = d.offsets + p * d.taps;
      for (int64_t i = 0; i < pixels * d.taps; ++i)
        x[i] = offsets[i] < 0 ? d.pad : d.a + offsets[i];
      if (pixels == kPixels)
        depthwise_pixels<kPixels>(d, x, p);
      else
        depthwise_pixels<1>(d, x, p);
      p += pixels;
    }
  }

  // Windows of more taps than addresses are kept for.
  static __attribute__((noinline)) void depthwise_many_taps(const FloatDepthwiseArgs& d, int64_t p0,
                                                            int64_t p1) {
    for (int64_t p = p0; p < p1; ++p)
      for (int64_t c = 0; c < d.channels; c += kLanes) {
        const int64_t some = d.channels - c < kLanes ? d.channels - c : kLanes;
        F acc = d.bias ? V::load_f32(d.bias + c, some) : V::set(0.0f);
        for (int64_t t = 0; t < d.taps; ++t) {
          const int32_t offset = d.offsets[p * d.taps + t];
          const float* x = offset < 0 ? d.pad : d.a + offset;
          V::add_product(acc, V::load_f32(x + c, some),
                         V::load_f32(d.weights + t * d.channels + c, some));
        }
        acc = V::min(V::set(d.hi), V::max(V::set(d.lo), V::add(acc, V::set(0.0f))));
        V::store_f32(d.c + p * d.ldc + c, acc, some);
      }
  }

  template <bool kMax, int kN>
  static OCTET_INLINE void pool_block(const FloatPoolArgs& a, const int32_t* offsets, float count,
                                      int64_t c, float* y, int64_t some) {
    F acc[kN];
#pragma GCC unroll 4
    for (int j = 0; j < kN; ++j) acc[j] = V::set(kMax ? -__builtin_inff() : 0.0f);
    for (int64_t t = 0; t < a.taps; ++t) {
      if (offsets[t] < 0) continue;
      const float* x = a.a + offsets[t] + c;
#pragma GCC unroll 4
      for (int j = 0; j < kN; ++j) {
        const F v = kN > 1 || some >= kLanes ? V::load_f32(x + j * kLanes) : V::load_f32(x, some);
        acc[j] = kMax ? V::max(v, acc[j]) : V::add(acc[j], v);
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < kN; ++j) {
      const F v = kMax ? acc[j] : V::div(acc[j], V::set(count));
      if (kN > 1 || some >= kLanes)
        V::store_f32(y + j * kLanes, v);
      else
        V::store_f32(y, v, some);
    }
  }

  template <bool kMax>
  static void pool(const FloatPoolArgs& a, int64_t p0, int64_t p1) {
    for (int64_t p = p0; p < p1; ++p) {
      const int32_t* offsets = a.offsets + p * a.taps;
      const float count = kMax ? 1 : a.counts[p];
      float* y = a.y + p * a.ldy;
      int64_t c = 0;
      for (; c + 4 * kLanes <= a.channels; c += 4 * kLanes)
        pool_block<kMax, 4>(a, offsets, count, c, y + c, 4 * kLanes);
      for (; c < a.channels; c += kLanes)
        pool_block<kMax, 1>(a, offsets, count, c, y + c, a.channels - c);
    }
  }

  // y = min(hi, max(lo, x)); NaN stays NaN.
  static void clamp(const float* x, float* y, int64_t n, float lo, float hi) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      V::store_f32(y + i, V::min(V::set(hi), V::max(V::set(lo), V::load_f32(x + i))));
    if (i < n)
      V::store_f32(y + i, V::min(V::set(hi), V::max(V::set(lo), V::load_f32(x + i, n - i))), n - i);
  }
};

}  // namespace
}  // namespace octet::kernels
