#pragma once
// 3x3 convolutions by Winograd's F(4x4, 3x3) in whole numbers (kernels.h, WinogradArgs), as a
// template over an ISA's `Dot` of 16-bit numbers: one step multiplies 2 numbers of a row, broadcast
// to all lanes, with 2 per lane.
//
// A block of tiles goes through three stages, whose results stay in L2: the 36 transformed numbers
// of each tile and channel of x; for some output channels at a time 36 products of matrices [tiles]
// x [channels] (gemm_impl.h, two bytes a number); the results' transform and the requantization.
//
// With B', G' and A' in place of Lavin and Gray's B, G and A (G' = diag(24, 24, 24, 24, 24, 8) G is
// whole, and A' takes the rest of 24 back):
//  576 Y = A'^T [(G' g G'^T) * (B^T d B)] A'
// for a tile d of 6x6 numbers and weights g. d is -128..127, so B^T d B, whose rows have absolute
// sums of at most 10, is 12,800 at most; G' g G'^T is 128 * 12 * 12 = 18,432 at most: both have 16
// bits. All sums are taken modulo 2^32. 576 is 9 * 64, and 9 has an inverse modulo 2^32, so that
// 64 Y is known modulo 2^32: Y is what an arithmetic shift makes of it if -2^25 <= Y < 2^25. Many
// channels of x are summed in parts, so that it is.

#include "octet/kernels/gemm_impl.h"
#include "octet/kernels/winograd_tiles_impl.h"

namespace octet::kernels {
namespace {

template <typename Dot>
struct Winograd : WinogradTiles {
  using V = typename Dot::V;
  using Product = Gemm<Dot, true>;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kPanel = Product::kPanel;
  static constexpr int64_t kPlanes = 36;

  // -- sizes --------------------------------------------------------------------------------------

  // The channels of x that are summed at a time (winograd_part()), and their weights. Channels of y
  // are filled up to whole vectors, those of x to pairs. The weights lie in the order in which they
  // are read, [columns / kColumns][36] matrices; behind those of all parts zeros, the products'
  // bias.
  struct Part {
    int64_t first, end;  // channels
    GemmShape s;
    int64_t at, bytes;  // of weights
    Part(int64_t channels, int64_t n, int64_t number) {
      const int64_t size = winograd_part(channels);
      first = number * size;
      end = first + size < channels ? first + size : channels;
      s = product_of(end - first, n);
      at = number * bytes_of(product_of(size, n));
      bytes = bytes_of(s);
    }
    static GemmShape product_of(int64_t channels, int64_t n) {
      return {round_up(n, kLanes), round_up(channels, 2) * 2, 1};
    }
    static int64_t bytes_of(const GemmShape& s) {
      return kPlanes * static_cast<int64_t>(Product::packed_bytes(s));
    }
  };
  static OCTET_INLINE int64_t parts_of(int64_t channels) {
    const int64_t size = winograd_part(channels);
    return (channels + size - 1) / size;
  }
  static OCTET_INLINE int64_t weight_bytes(int64_t channels, int64_t n) {
    const Part last(channels, n, parts_of(channels) - 1);
    return last.at + last.bytes;
  }
  static size_t packed_bytes(int64_t channels, int64_t n) {
    return static_cast<size_t>(weight_bytes(channels, n) + round_up(n, kLanes) * 4);
  }
  // The matrices of the kColumns channels (or what is left) that channel n belongs to.
  struct Matrices {
    int64_t first, bytes;  // where the first begins, and from one to the next
    Matrices(const GemmShape& s, int64_t n) {
      const int64_t n0 = n / kColumns * kColumns, rest = s.n - n0;
      first = n0 / kLanes * Product::vector_bytes(s) * kPlanes;
      bytes = (rest < kColumns ? rest : kColumns) / kLanes * Product::vector_bytes(s);
    }
  };

  // Output channels that are multiplied at a time, and tiles of a block.
  static constexpr int64_t kColumns = 2 * kPanel;
  struct Block {
    int64_t row, x_plane, y_plane, sums, tiles;  // bytes, but for `tiles`
    explicit Block(int64_t channels)
        : row(round_up(channels * 2, V::kBytes)), tiles(kCache / (36 * (row + kColumns * 4))) {
      tiles = tiles < kMostTiles ? tiles : kMostTiles;
      tiles = tiles < Product::kRows ? Product::kRows : tiles / Product::kRows * Product::kRows;
      x_plane = plane(tiles * row);
      y_plane = plane(tiles * kColumns * 4);
      sums = parts_of(channels) > 1 ? tiles * 16 * kColumns * 4 : 0;
    }
    int64_t bytes() const { return kPlanes * (x_plane + y_plane) + sums; }
  };
  static constexpr int64_t kMostTiles = 24;
  static constexpr int64_t kCache = V::kBytes == 64 ? 512 << 10 : 384 << 10;  // part of L2
  static size_t scratch_bytes(int64_t channels) {
    return static_cast<size_t>(Block(channels).bytes());
  }

  // -- weights ------------------------------------------------------------------------------------

  using Halves = typename V::Halves;

  static OCTET_INLINE void weights_1d(const Halves& a, const Halves& b, const Halves& c,
                                      Halves (&u)[6]) {
    const Halves ends = a + c, far = a + (c << 2), twice = b + b;
    u[0] = a * 6;
    u[1] = (ends + b) * -4;
    u[2] = (ends - b) * -4;
    u[3] = far + twice;
    u[4] = far - twice;
    u[5] = c << 3;
  }

  // Of one vector of the matrices: kLanes output channels (or `count`), whose weights begin at w,
  // and channels c and c + 1 of x.
  static OCTET_INLINE void transform_weights(int64_t channels, const int8_t* w, int64_t count,
                                             int64_t c, char* to, int64_t matrix_bytes) {
    int16_t codes[9][2 * kLanes] = {};
    for (int64_t lane = 0; lane < count; ++lane)
      for (int64_t t = 0; t < 9; ++t) {
        const int8_t* from = w + (lane * 9 + t) * channels + c;
        codes[t][2 * lane] = from[0];
        if (c + 1 < channels) codes[t][2 * lane + 1] = from[1];
      }
    Halves columns[3][6];
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      Halves g[3];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) __builtin_memcpy(&g[i], codes[i * 3 + j], sizeof g[i]);
      weights_1d(g[0], g[1], g[2], columns[j]);
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      Halves u[6];
      weights_1d(columns[0][i], columns[1][i], columns[2][i], u);
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j)
        __builtin_memcpy(to + (i * 6 + j) * matrix_bytes, &u[j], sizeof u[j]);
    }
  }

  static void pack(int64_t channels, int64_t n, const int8_t* w, int64_t n0, int64_t n1,
                   void* packed) {
    char* const out = static_cast<char*>(packed);
    if (n0 == 0)
      __builtin_memset(out + weight_bytes(channels, n), 0,
                       static_cast<size_t>(round_up(n, kLanes) * 4));
    for (int64_t q = 0; q < parts_of(channels); ++q) {
      const Part part(channels, n, q);
      for (int64_t first = n0; first < n1; first += kPanel) {
        const Matrices m(part.s, first);
        const int64_t vectors = part.s.n - first <= kLanes ? 1 : 2;
        char* to =
            out + part.at + m.first + first % kColumns / kLanes * Product::vector_bytes(part.s);
        for (int64_t c = part.first; c < part.end; c += 2)
          for (int64_t v = first; v < first + vectors * kLanes; v += kLanes, to += V::kBytes)
            transform_weights(channels, w + (v - n0) * 9 * channels,
                              n1 - v < kLanes ? n1 - v : kLanes, c, to, m.bytes);
      }
    }
  }

  // -- x ------------------------------------------------------------------------------------------

  static OCTET_INLINE void x_1d(const Halves& d0, const Halves& d1, const Halves& d2,
                                const Halves& d3, const Halves& d4, const Halves& d5,
                                Halves (&v)[6]) {
    const Halves a = d4 - (d2 << 2), b = d3 - (d1 << 2), c = d4 - d2, e = d3 - d1, twice = e + e;
    v[0] = c - ((d2 - d0) << 2);
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + twice;
    v[4] = c - twice;
    v[5] = (d5 - d3) - (twice + twice);
  }

  static OCTET_INLINE void transform_x(const WinogradArgs& g, const WinogradTile& tile,
                                       const Block& block, uint8_t* to) {
    const uint8_t* at[kPlanes];
    locate<6>(g, g.a, g.pad, tile, at);
    const auto flip = V::set_half8(g.flip);
    for (int64_t c = 0; c < g.channels; c += V::kBytes / 2, to += V::kBytes) {
      Halves columns[6][6];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        Halves d[6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) d[i] = (Halves)V::widen_half(at[i * 6 + j] + c, flip);
        x_1d(d[0], d[1], d[2], d[3], d[4], d[5], columns[j]);
      }
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) {
        Halves v[6];
        x_1d(columns[0][i], columns[1][i], columns[2][i], columns[3][i], columns[4][i],
             columns[5][i], v);
#pragma GCC unroll 6
        for (int j = 0; j < 6; ++j)
          __builtin_memcpy(to + (i * 6 + j) * block.x_plane, &v[j], sizeof v[j]);
      }
    }
  }

  // -- y ------------------------------------------------------------------------------------------

  using Words = typename V::Words;

  static OCTET_INLINE void y_1d(const Words (&m)[6], Words (&y)[4]) {
    const Words s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = d1 + (d2 + d2);
    y[2] = s1 + (s2 << 2);
    y[3] = d1 + (d2 << 3) + (m[5] + (m[5] + m[5]));
  }

  // Of one vector of channels: the sums of 16 pixels, or what is added to them.
  static OCTET_INLINE void transform_y(const uint8_t* from, int64_t plane_bytes, bool add,
                                       int32_t* sums) {
    constexpr uint32_t kInverseOf9 = 954437177;  // modulo 2^32
    Words columns[6][4];
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
      Words m[6];
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i)
        __builtin_memcpy(&m[i], from + (i * 6 + j) * plane_bytes, sizeof m[i]);
      y_1d(m, columns[j]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Words row[6] = {columns[0][i], columns[1][i], columns[2][i],
                            columns[3][i], columns[4][i], columns[5][i]};
      Words y[4];
      y_1d(row, y);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        auto sum = (typename V::SignedWords)(y[j] * kInverseOf9) >> 6;
        if (add) {
          typename V::SignedWords before;
          __builtin_memcpy(&before, sums + (i * 4 + j) * kPanel, sizeof before);
          sum += before;
        }
        __builtin_memcpy(sums + (i * 4 + j) * kPanel, &sum, sizeof sum);
      }
    }
  }

  // The codes of a tile's pixels that lie in the image, of one panel; `g`: its channels alone.
  static OCTET_INLINE void leave(const WinogradArgs& a, const GemmArgs& g,
                                 const typename Product::template Exit<2>& exit,
                                 const WinogradTile& tile, const int32_t* sums) {
    const int64_t rows = inside(tile.y, a.dilation_h, a.oh, 4),
                  columns = inside(tile.x, a.dilation_w, a.ow, 4);
    uint8_t* y =
        static_cast<uint8_t*>(g.c) + ((tile.image * a.oh + tile.y) * a.ow + tile.x) * exit.ldc;
    const int64_t step = a.dilation_w * exit.ldc;
    for (int64_t i = 0; i < rows; ++i, y += a.dilation_h * a.ow * exit.ldc) {
      int64_t j = 0;
      for (; j + 2 <= columns; j += 2)
        Product::template finish_rows<2>(g, exit, sums, i * 4 + j, 0, {y + j * step, step});
      if (j < columns)
        Product::template finish_rows<1>(g, exit, sums, i * 4 + j, 0, {y + j * step, step});
    }
  }

  // -- all of it ----------------------------------------------------------------------------------

  static void run(const WinogradArgs& a, void* scratch, int64_t t0, int64_t t1, int64_t n0,
                  int64_t n1) {
    const char* const weights = static_cast<const char*>(a.weights);
    const Block block(a.channels);
    const int64_t parts = parts_of(a.channels);
    uint8_t* const x = static_cast<uint8_t*>(scratch);
    uint8_t* const products = x + kPlanes * block.x_plane;
    auto* const sums = reinterpret_cast<int32_t*>(products + kPlanes * block.y_plane);
    // Even blocks.
    const int64_t blocks = (t1 - t0 + block.tiles - 1) / block.tiles;
    // Few tiles meet weights that L2 does not keep beside a block.
    const bool far = blocks <= 4 && weight_bytes(a.channels, a.finish.shape.n) > kCache;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = t0 + (t1 - t0) * b / blocks,
                    tiles = t0 + (t1 - t0) * (b + 1) / blocks - first;
      for (int64_t t = 0; t < tiles; ++t)
        transform_x(a, a.tiles[first + t], block, x + t * block.row);
      for (int64_t n = n0; n < n1; n += kColumns) {
        const int64_t end = n + kColumns < n1 ? n + kColumns : n1;
        for (int64_t q = 0; q < parts; ++q) {
          const Part part(a.channels, a.finish.shape.n, q);
          const Matrices m(part.s, n);
          GemmArgs g;
          g.shape = {part.s.n - n, part.s.k, 1};
          g.lda = block.row;
          g.ldc = kColumns;
          g.epilogue = Epilogue::int32;
          g.bias = reinterpret_cast<const int32_t*>(weights +
                                                    weight_bytes(a.channels, a.finish.shape.n));
          for (int64_t p = 0; p < kPlanes; ++p) {
            g.a = x + p * block.x_plane + part.first * 2;
            g.b = weights + part.at + m.first + p * m.bytes;
            g.c = products + p * block.y_plane;
            multiply(g, tiles, round_up(end - n, kLanes), far ? m.bytes : 0);
          }
          for (int64_t panel = n; panel < end; panel += kPanel)
            leave_panel(a, block, products + (panel - n) * 4,
                        parts > 1 ? sums + (panel - n) * 16 * block.tiles : nullptr, q > 0,
                        q == parts - 1, first, tiles, panel,
                        end - panel < kPanel ? end - panel : kPanel);
        }
      }
    }
  }
  // The product of a matrix. Before each register tile of it a share of the next matrix, which
  // lies `ahead` bytes behind this one (0: none is fetched), is prefetched, unless a share is more
  // than a tile hides.
  static OCTET_INLINE void multiply(const GemmArgs& g, int64_t rows, int64_t columns,
                                    int64_t ahead) {
    constexpr int64_t kMostLines = 64;
    const int64_t heights = (rows + Product::kRows - 1) / Product::kRows,
                  share = ahead * kPanel / (heights * round_up(columns, kPanel)),
                  lines = round_up(share, 64) / 64;
    if (ahead == 0 || lines > kMostLines) return Product::run(g, 0, rows, 0, columns);
    const char* next = static_cast<const char*>(g.b) + ahead;
    for (int64_t n = 0; n < columns; n += kPanel)
      for (int64_t i = 0; i < heights; ++i) {
        for (int64_t line = 0; line < lines; ++line, next += 64) __builtin_prefetch(next, 0, 2);
        Product::run(g, rows * i / heights, rows * (i + 1) / heights, n,
                     columns - n < kPanel ? columns : n + kPanel);
      }
  }

  // A panel's products to sums, in `kept` where there are several parts: the first one's, or added
  // to those before; after the last one to codes.
  static void leave_panel(const WinogradArgs& a, const Block& block, const uint8_t* products,
                          int32_t* kept, bool add, bool last, int64_t first, int64_t tiles,
                          int64_t n, int64_t columns) {
    GemmArgs g = a.finish;
    g.c = static_cast<uint8_t*>(g.c) + n;
    g.bias += n;
    g.multiplier += n;
    g.shape.n = kPanel;
    const typename Product::template Exit<2> exit(g, 0, columns);
    alignas(64) int32_t of_tile[16 * kPanel];
    for (int64_t t = 0; t < tiles; ++t) {
      const uint8_t* from = products + t * kColumns * 4;
      int32_t* sums = kept ? kept + t * 16 * kPanel : of_tile;
      transform_y(from, block.y_plane, add, sums);
      if (columns > kLanes) transform_y(from + V::kBytes, block.y_plane, add, sums + kLanes);
      if (last) leave(a, g, exit, a.tiles[first + t], sums);
    }
  }
};

}  // namespace
}  // namespace octet::kernels
