#include "octet/quant/observe/scan_impl.h"

#include <algorithm>
#include <limits>
#include <mutex>

#include "octet/base/parallel.h"
#include "octet/kernels/kernels.h"

namespace octet::quant::detail {

Extent scan(const float* x, int64_t n) {
  constexpr int64_t kGrain = 1 << 16;  // values for a thread
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Extent all{kInf, -kInf, true};
  std::mutex mutex;
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    float min = 0, max = 0;
    int64_t not_finite = 0;
    kernels::table().min_max(x + begin, end - begin, &min, &max, &not_finite);
    std::lock_guard lock(mutex);
    all = {std::min(all.min, min), std::max(all.max, max), all.finite && not_finite == 0};
  });
  return all;
}

bool scan_columns(const float* x, int64_t rows, int64_t channels, float* min, float* max) {
  float zero = 0;
  for (int64_t r = 0; r < rows; ++r, x += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      min[c] = x[c] < min[c] ? x[c] : min[c];
      max[c] = x[c] > max[c] ? x[c] : max[c];
    }
    for (int64_t c = 0; c < channels; ++c) zero += x[c] * 0.0f;
  }
  return zero == 0;
}

Tensor dense(const Tensor& x) {
  Tensor f = x.dtype() == DType::float32 ? x : x.to(DType::float32);
  if (f.is_contiguous()) return f;
  if (f.dim() >= 3 && f.dim() <= 5 && f.is_contiguous(MemoryFormat::channels_last)) return f;
  return f.contiguous();
}

}  // namespace octet::quant::detail
