#include "octet/quant/observe/per_channel_mse.h"

#include "octet/base/parallel.h"
#include "octet/quant/observe/range_search.h"

namespace octet::quant {

void PerChannelMSEObserver::observe_floats(const Tensor& x) {
  scan(x);
  const int64_t axis = options().ch_axis;
  parallel_for(x.size(axis), [&](int64_t c) {
    const RangeChoice range =
        least_error_range(x.slice(axis, c, c + 1).contiguous().to_vector<float>(), options());
    const auto i = static_cast<size_t>(c);
    batch_min_[i] = range.min;
    batch_max_[i] = range.max;
  });
  update(batch_min_, batch_max_);
}

}  // namespace octet::quant
