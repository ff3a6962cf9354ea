#pragma once
// Where the operands of each result of a convolution, a pool or a batched matrix product lie.

#include <array>
#include <cstdint>
#include <vector>

#include "octet/base/lasting.h"
#include "octet/engine/engine.h"

namespace octet::engine_detail {

// A window sliding over up to three spatial dimensions; missing ones are leading dimensions of size
// 1.
struct Window3 {
  std::array<int64_t, 3> kernel{1, 1, 1}, stride{1, 1, 1}, begin{}, end{}, dilation{1, 1, 1};
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  bool is_pointwise() const;
};
// Of a convolution of 1 to 3 spatial dimensions (kernel from the weight's shape), and of a pool.
Window3 conv_window3(const OpSpec& spec);
Window3 conv_window3(const OpSpec& spec, const Shape& weight);
Window3 pool_window3(const OpSpec& spec);
// (N, C, spatial...) with leading spatial dimensions of 1 up to three.
Shape with_3_spatial(const Shape& shape);

// Where in x output o's tap k lies along spatial dimension d, -1 if outside the image or between
// its elements. A plain convolution has i = o*stride - begin + k*dilation; a transposed one swaps
// the parts of i and o.
int64_t input_place(const Window3& w, bool transposed, size_t d, int64_t o, int64_t k,
                    int64_t size);
// Byte offsets of the taps of every output pixel in an image whose channels lie together:
// [pixels][taps], -1 outside. x and y have three spatial dimensions.
using TapOffsets = std::vector<int32_t, LastingAllocator<int32_t>>;
TapOffsets tap_offsets(const Window3& w, bool transposed, const Shape& x, const Shape& y);

// Output pixels in groups whose windows meet no element of x at the same taps, which a matrix
// product then skips: at the edges those outside the image; of a transposed convolution those
// between its elements.
struct PixelGroups {
  struct Group {
    int64_t end;       // the place in the order behind its last pixel
    uint64_t skipped;  // bit t: tap t, of at most 64. Never all of them
  };
  std::vector<Group> groups;    // none: no taps are skipped
  std::vector<int32_t> pixels;  // in their order; empty: as they lie

  // Rows of `taps` offsets, one for each pixel, into the order.
  TapOffsets in_order(TapOffsets offsets, int64_t taps) const;
};
// Of images of two spatial dimensions; x and y have three, as above.
PixelGroups pixel_groups(const Window3& w, bool transposed, const Shape& x, const Shape& y);

// A 2-d window sliding over an image. Padding and dilation as in conv2d's attributes: [top, left,
// bottom, right].
struct Window {
  int64_t kh = 1, kw = 1, sh = 1, sw = 1, ph = 0, pw = 0, ph_end = 0, pw_end = 0, dh = 1, dw = 1;
  int64_t taps() const { return kh * kw; }
  bool is_pointwise() const {
    return taps() == 1 && sh == 1 && sw == 1 && ph == 0 && pw == 0 && ph_end == 0 && pw_end == 0;
  }
  bool operator==(const Window&) const = default;
};

// Reads stride, padding, dilation (if there) from the attributes; kernel from `kernel` or the
// weight's shape.
Window conv_window(const OpSpec& spec);  // weight shape from the spec's inputs
Window pool_window(const OpSpec& spec);

// Byte offsets of the taps of every output pixel in an NHWC image: [oh*ow][taps], -1 outside the
// image.
TapOffsets tap_offsets(const Window& w, int64_t h, int64_t width, int64_t channels, int64_t oh,
                       int64_t ow);

// The sizes of a batched matrix product, (..., M, K) x (..., K, N), and where the operands of each
// product start. Batch dimensions broadcast.
struct MatmulGeometry {
  MatmulGeometry(const Shape& a, const Shape& b, const Shape& y);
  int64_t m, n, k;
  std::vector<int64_t> a, b;  // by product: which matrix of the operand
  int64_t a_matrices, b_matrices;
};

}  // namespace octet::engine_detail
