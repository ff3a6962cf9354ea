#pragma once
// 3x3 convolutions by Winograd's algorithms: of codes (kernels/winograd_impl.h) when they may be,
// when they are worth it, and what runs them; what those of floats (float_winograd.cpp) share.

#include <algorithm>
#include <memory>
#include <vector>

#include "octet/engine/native/float_impl.h"
#include "octet/engine/native/matrix_impl.h"
#include "octet/engine/winograd_tiles_impl.h"

namespace octet::native {

// Tiles of side x side results of all images of oh x ow of them.
std::vector<kernels::WinogradTile> winograd_tiles(int64_t images, int64_t oh, int64_t ow,
                                                  const Window& window, int64_t side);

// How tiles and output channels are divided among the threads: by tiles, or by channels where there
// are few tiles, for each part by tiles reads all weights, and each by channels transforms all of
// x. n0 and n1 of a part are multiples of `columns`, but for the last one's n1.
struct WinogradParts {
  int64_t tiles = 0, n = 0, columns = 1;
  int64_t by_tiles = 1, by_columns = 1;

  int64_t count() const { return by_tiles * by_columns; }
  // Calls run(part, t0, t1, n0, n1) for all of them.
  template <typename Run>
  void for_each(Run&& run) const {
    const int64_t all = (n + columns - 1) / columns;
    parallel_for(count(), [&](int64_t part) {
      const int64_t i = part / by_columns, j = part % by_columns;
      run(part, tiles * i / by_tiles, tiles * (i + 1) / by_tiles, all * j / by_columns * columns,
          std::min(n, all * (j + 1) / by_columns * columns));
    });
  }
};

// As many as `worth`, if the threads are that many.
WinogradParts winograd_parts(int64_t tiles, int64_t n, int64_t columns, int64_t worth);

// A convolution's weights in Winograd's form. Immutable.
class Winograd {
 public:
  virtual ~Winograd() = default;
  // Whether images of that shape gain by it.
  virtual bool worthwhile(const ConvShape& s) const = 0;
  virtual std::unique_ptr<KernelPlan> plan(const ConvShape& s) const = 0;
  virtual size_t packed_bytes() const = 0;
  virtual KernelDescription description() const = 0;
};

// Null if the convolution is not of 3x3 with a stride of 1, if its sums may be too large for the
// exact form, if the instruction set has no kernel for it, or if one image, as large as the spec
// says (large where it does not), would not gain. `packed` is the convolution's and outlives it.
std::unique_ptr<const Winograd> make_winograd(const OpSpec& spec,
                                              const engine_detail::IntegerWeights& weights,
                                              const PackedWeights& packed);

// Of floats, all of which are computed so (engine/winograd_tiles_impl.h says which).
class FloatWinograd {
 public:
  virtual ~FloatWinograd() = default;
  virtual std::unique_ptr<KernelPlan> plan(const ConvShape& s) const = 0;
  virtual size_t packed_bytes() const = 0;
};
std::unique_ptr<const FloatWinograd> make_float_winograd(const Window& window, const Tensor& weight,
                                                         const std::vector<float>& bias,
                                                         const FloatRange& range);

}  // namespace octet::native
