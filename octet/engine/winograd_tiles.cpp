#include "octet/engine/winograd_tiles_impl.h"

namespace octet::engine_detail {
std::vector<int32_t> tile_starts(int64_t size, int64_t dilation, int64_t side) {
  std::vector<int32_t> starts;
  for (int64_t phase = 0; phase < dilation; ++phase)
    for (int64_t at = phase; at < size; at += side * dilation)
      starts.push_back(static_cast<int32_t>(at));
  return starts;
}

bool all_finite(const Tensor& t) {
  const auto* x = static_cast<const float*>(t.raw_data());
  float worst = 0;
  for (int64_t i = 0, n = t.numel(); i < n; ++i) worst += x[i] * 0.0f;
  return worst == 0;
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
