#include "octet/quant/observe/per_channel_mse.h"

#include <algorithm>

#include "octet/base/parallel.h"
#include "octet/quant/observe/range_search.h"

namespace octet::quant {

void PerChannelMSEObserver::observe_floats(const Tensor& x) {
  scan(x);
  const Tensor w = x.contiguous();
  const int64_t axis = options().ch_axis, channels = w.size(axis);
  int64_t inner = 1;
  for (int64_t d = axis + 1; d < w.dim(); ++d) inner *= w.size(d);
  const int64_t outer = w.numel() / std::max<int64_t>(1, channels * inner);
  parallel_for(channels, [&](int64_t c) {
    std::vector<float> values;
    values.reserve(static_cast<size_t>(outer * inner));
    for (int64_t o = 0; o < outer; ++o) {
      const float* p = w.data<float>() + (o * channels + c) * inner;
      values.insert(values.end(), p, p + inner);
    }
    const RangeChoice range = least_error_range(values, options());
    const auto i = static_cast<size_t>(c);
    batch_min_[i] = range.min;
    batch_max_[i] = range.max;
  });
  update(batch_min_, batch_max_);
}

}  // namespace octet::quant
