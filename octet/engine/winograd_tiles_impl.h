#pragma once
// Tiles of Winograd's algorithms, and which float convolutions are defined by one of them.

#include <cstdint>
#include <vector>

#include "octet/engine/geometry_impl.h"

namespace octet::engine_detail {

// Where tiles of `side` results begin along one dimension of y. Results that lie `dilation` apart
// share elements of x and make tiles together; those between them make others.
std::vector<int32_t> tile_starts(int64_t size, int64_t dilation, int64_t side);

// Whether all values of a float tensor whose data is contiguous are finite.
bool all_finite(const Tensor& t);

// A float convolution is computed by Winograd's F(2x2, 3x3) where both of these hold
// (docs/numerics.md). That is a part of what its results are, on every engine but oneDNN, so
// nothing counts that may differ from call to call: no batch, no layout, no machine.
constexpr int64_t kFloatTile = 2;  // results of a tile in each direction
// 3x3 taps, a stride of 1, one group, 16 channels of x and of y at least, and a weight that is
// constant, all of which the caller knows to be finite.
bool may_take_float_winograd(const OpSpec& spec);
// At most three quarters of the multiplications are left, on images of oh x ow results.
bool float_winograd_pays(const Window& w, int64_t oh, int64_t ow);

}  // namespace octet::engine_detail
