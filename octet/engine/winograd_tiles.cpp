#include "octet/engine/winograd_tiles_impl.h"

#include <algorithm>

namespace octet::engine_detail {
std::vector<int32_t> tile_starts(int64_t size, int64_t dilation, int64_t side) {
  std::vector<int32_t> starts;
  for (int64_t phase = 0; phase < dilation; ++phase)
    for (int64_t at = phase; at < size; at += side * dilation)
      starts.push_back(static_cast<int32_t>(at));
  return starts;
}

bool all_finite(const Tensor& t) {
  constexpr int64_t kLanes = 16;  // sums that do not wait for each other
  const auto* x = static_cast<const float*>(t.raw_data());
  float worst[kLanes] = {};
  int64_t i = 0;
  for (const int64_t n = t.numel() / kLanes * kLanes; i < n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) worst[l] += x[i + l] * 0.0f;
  for (; i < t.numel(); ++i) worst[0] += x[i] * 0.0f;
  return std::all_of(std::begin(worst), std::end(worst), [](float w) { return w == 0; });
}

bool may_take_float_winograd(const OpSpec& spec) {
  constexpr int64_t kFewestChannels = 16;
  if (spec.transposed || !spec.constants[1].defined() || spec.inputs[1].dim() != 4 ||
      spec.attrs.get_int("groups") != 1)
    return false;
  const Shape w = spec.inputs[1].shape();
  const Window window = conv_window(spec);
  return w[0] >= kFewestChannels && w[1] >= kFewestChannels && window.kh == 3 && window.kw == 3 &&
         window.sh == 1 && window.sw == 1;
}

bool float_winograd_pays(const Window& w, int64_t oh, int64_t ow) {
  const auto tiles = [](int64_t size, int64_t dilation) {
    return std::ssize(tile_starts(size, dilation, kFloatTile));
  };
  constexpr int64_t kProductsOfTile = 16, kTaps = 9;
  return kProductsOfTile * tiles(oh, w.dh) * tiles(ow, w.dw) * 4 <= kTaps * oh * ow * 3;
}

}  // namespace octet::engine_detail
