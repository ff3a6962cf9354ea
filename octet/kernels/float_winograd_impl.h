#pragma once
// 3x3 convolutions of floats by Winograd's F(2x2, 3x3) (kernels.h, FloatWinogradArgs), as a
// template over an ISA's vector V and its matrix product (float_gemm_impl.h). Vector lanes are
// channels. A block of tiles goes through three stages, whose results stay in L2: the 16 planes of
// transformed x, [tiles][channels] each; for some output channels at a time 16 matrix products; the
// results' transform. No step depends on the block, the vector or the thread.

#include "octet/kernels/winograd_tiles_impl.h"

namespace octet::kernels {
namespace {

template <typename V, typename Product>
struct FloatWinograd : WinogradTiles {
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kPlanes = 16;
  static constexpr int64_t kWithBias = 5;  // m[1][1] adds to all four results

  // -- sizes --------------------------------------------------------------------------------------

  // Output channels that are multiplied at a time. Their 16 matrices lie one after the other.
  static constexpr int64_t kColumns = 2 * Product::kPanel;
  static OCTET_INLINE int64_t matrix_floats(int64_t channels, int64_t columns) {
    return static_cast<int64_t>(Product::packed_bytes({columns, channels, 1}) / sizeof(float));
  }
  // Where those of channel n begin, a multiple of kColumns.
  static OCTET_INLINE int64_t matrices_at(int64_t channels, int64_t n) {
    return kPlanes * channels * n;
  }
  static size_t packed_bytes(int64_t channels, int64_t n) {
    const int64_t last = n / kColumns * kColumns;
    return static_cast<size_t>(matrices_at(channels, last) +
                               kPlanes * matrix_floats(channels, n - last)) *
           sizeof(float);
  }

  struct Block {
    int64_t row, tiles, x_plane, y_plane;  // floats, but for `tiles`
    explicit Block(int64_t channels) : row(round_up(channels, kLanes)) {
      tiles = kCacheFloats / (kPlanes * (row + kColumns));
      tiles = tiles < kFewestTiles ? kFewestTiles : tiles < kMostTiles ? tiles : kMostTiles;
      tiles = round_up(tiles, Product::kRows);
      x_plane = plane(tiles * row * 4) / 4;
      y_plane = plane(tiles * kColumns * 4) / 4;
    }
  };
  static constexpr int64_t kFewestTiles = 24, kMostTiles = 96;
  static constexpr int64_t kCacheFloats = 128 << 10;  // part of L2
  static size_t scratch_bytes(int64_t channels) {
    const Block block(channels);
    return static_cast<size_t>(kPlanes * (block.x_plane + block.y_plane)) * sizeof(float);
  }

  // -- weights ------------------------------------------------------------------------------------

  static OCTET_INLINE void weights_1d(const float (&g)[3], float (&u)[4]) {
    const float ends = g[0] + g[2];
    u[0] = g[0];
    u[1] = (ends + g[1]) * 0.5f;
    u[2] = (ends - g[1]) * 0.5f;
    u[3] = g[2];
  }
  static OCTET_INLINE void transform_window(const float* w, float (&u)[kPlanes]) {
    float columns[3][4];
    for (int j = 0; j < 3; ++j) weights_1d({w[j], w[3 + j], w[6 + j]}, columns[j]);
    for (int i = 0; i < 4; ++i) {
      float row[4];
      weights_1d({columns[0][i], columns[1][i], columns[2][i]}, row);
      for (int j = 0; j < 4; ++j) u[i * 4 + j] = row[j];
    }
  }

  static void pack(int64_t channels, int64_t /*n*/, const float* w, int64_t n0, int64_t n1,
                   float* packed) {
    for (int64_t first = n0; first < n1; first += kColumns) {
      const int64_t columns = n1 - first < kColumns ? n1 - first : kColumns;
      float* const matrices = packed + matrices_at(channels, first);
      for (int64_t n = 0; n < columns; n += Product::kPanel)
        pack_panel(channels, w + (first - n0 + n) * channels * 9,
                   columns - n < Product::kPanel ? columns - n : Product::kPanel,
                   matrices + n * channels, matrix_floats(channels, columns));
    }
  }
  // Some channels of x at a time, so that what is transformed stays in L1.
  static void pack_panel(int64_t channels, const float* w, int64_t columns, float* to,
                         int64_t matrix) {
    constexpr int64_t kRun = 4;
    const int64_t width = columns <= kLanes ? kLanes : Product::kPanel;
    float u[kPlanes][Product::kPanel * kRun];
    for (int64_t c = 0; c < channels; c += kRun) {
      const int64_t run = channels - c < kRun ? channels - c : kRun;
      for (int64_t i = 0; i < columns; ++i)
        for (int64_t k = 0; k < run; ++k) {
          float window[kPlanes];
          transform_window(w + (i * channels + c + k) * 9, window);
          for (int64_t p = 0; p < kPlanes; ++p) u[p][i * kRun + k] = window[p];
        }
      for (int64_t p = 0; p < kPlanes; ++p)
        Product::pack({columns, run, 1}, {u[p], kRun, 0, 1}, to + p * matrix + c * width);
    }
  }

  // -- x ------------------------------------------------------------------------------------------

  static OCTET_INLINE void x_1d(F d0, F d1, F d2, F d3, F (&v)[4]) {
    v[0] = d0 - d2;
    v[1] = d1 + d2;
    v[2] = d2 - d1;
    v[3] = d1 - d3;
  }

  template <bool kWhole>
  static OCTET_INLINE void transform_channels(const float* const (&at)[kPlanes], int64_t c,
                                              int64_t count, float* to, int64_t plane) {
    F columns[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      F d[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        d[i] = kWhole ? V::load_f32(at[i * 4 + j] + c) : V::load_f32(at[i * 4 + j] + c, count);
      x_1d(d[0], d[1], d[2], d[3], columns[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      F v[4];
      x_1d(columns[0][i], columns[1][i], columns[2][i], columns[3][i], v);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) V::store_f32(to + (i * 4 + j) * plane, v[j]);
    }
  }

  static OCTET_INLINE void transform_x(const FloatWinogradArgs& g, const WinogradTile& tile,
                                       const Block& block, float* to) {
    const float* at[kPlanes];
    locate<4>(g, g.a, g.pad, tile, at);
    int64_t c = 0;
    for (; c + kLanes <= g.channels; c += kLanes)
      transform_channels<true>(at, c, kLanes, to + c, block.x_plane);
    if (c < g.channels) transform_channels<false>(at, c, g.channels - c, to + c, block.x_plane);
  }

  // -- y ------------------------------------------------------------------------------------------

  static OCTET_INLINE void y_1d(F m0, F m1, F m2, F m3, F (&y)[2]) {
    y[0] = (m0 + m1) + m2;
    y[1] = (m1 - m2) - m3;
  }

  // Of one vector of channels, from their products to the pixels that lie in the image.
  struct Pixels {
    float* y;
    int64_t row, column;    // floats from one to the next
    int64_t rows, columns;  // at most 2
  };
  template <bool kWhole>
  static OCTET_INLINE void transform_y(const float* from, int64_t plane, F lo, F hi,
                                       const Pixels& to, int64_t c, int64_t count) {
    F columns[4][2];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      y_1d(V::load_f32(from + j * plane), V::load_f32(from + (4 + j) * plane),
           V::load_f32(from + (8 + j) * plane), V::load_f32(from + (12 + j) * plane), columns[j]);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      F y[2];
      y_1d(columns[0][i], columns[1][i], columns[2][i], columns[3][i], y);
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        if (i >= to.rows || j >= to.columns) continue;
        const F v = V::min(hi, V::max(lo, y[j] + V::set(0.0f)));  // + 0 makes -0 to 0
        float* const at = to.y + i * to.row + j * to.column + c;
        if (kWhole)
          V::store_f32(at, v);
        else
          V::store_f32(at, v, count);
      }
    }
  }

  static OCTET_INLINE void leave(const FloatWinogradArgs& a, const WinogradTile& tile,
                                 const float* products, int64_t plane, int64_t n, int64_t columns) {
    const F lo = V::set(a.lo), hi = V::set(a.hi);
    const Pixels to{a.c + ((tile.image * a.oh + tile.y) * a.ow + tile.x) * a.ldc + n,
                    a.dilation_h * a.ow * a.ldc, a.dilation_w * a.ldc,
                    inside(tile.y, a.dilation_h, a.oh, 2), inside(tile.x, a.dilation_w, a.ow, 2)};
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes)
      transform_y<true>(products + c, plane, lo, hi, to, c, kLanes);
    if (c < columns) transform_y<false>(products + c, plane, lo, hi, to, c, columns - c);
  }

  // -- all of it ----------------------------------------------------------------------------------

  static void run(const FloatWinogradArgs& a, void* scratch, int64_t t0, int64_t t1, int64_t n0,
                  int64_t n1) {
    const Block block(a.channels);
    float* const x = static_cast<float*>(scratch);
    float* const products = x + kPlanes * block.x_plane;
    const int64_t blocks = (t1 - t0 + block.tiles - 1) / block.tiles;
    for (int64_t b = 0; b < blocks; ++b) {  // of even sizes
      const int64_t first = t0 + (t1 - t0) * b / blocks,
                    tiles = t0 + (t1 - t0) * (b + 1) / blocks - first;
      for (int64_t t = 0; t < tiles; ++t)
        transform_x(a, a.tiles[first + t], block, x + t * block.row);
      for (int64_t n = n0; n < n1; n += kColumns) {
        FloatGemmArgs g;
        const int64_t columns = n1 - n < kColumns ? n1 - n : kColumns;
        const int64_t matrix = matrix_floats(a.channels, columns);
        g.shape = {columns, a.channels, 1};
        g.lda = block.row;
        g.ldc = kColumns;
        for (int64_t p = 0; p < kPlanes; ++p) {
          g.a = x + p * block.x_plane;
          g.b = a.weights + matrices_at(a.channels, n) + p * matrix;
          g.c = products + p * block.y_plane;
          g.bias = p == kWithBias && a.bias ? a.bias + n : nullptr;
          Product::run(g, 0, tiles, 0, columns);
        }
        for (int64_t t = 0; t < tiles; ++t)
          leave(a, a.tiles[first + t], products + t * kColumns, block.y_plane, n, columns);
      }
    }
  }
};

}  // namespace
}  // namespace octet::kernels
