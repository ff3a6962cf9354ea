#include "octet/engine/run_time_codes_impl.h"

#include <algorithm>
#include <mutex>

#include "octet/base/parallel.h"

namespace octet::engine_detail {

affine::RunTimeQParams quantize_at_run_time(const kernels::KernelTable& table, const float* x,
                                            int64_t n, const RunTimeRule& rule,
                                            const std::string& label, uint8_t* codes) {
  constexpr int64_t kGrain = 1 << 16;
  float min = 0, max = 0;  // the range holds 0 whatever the values are
  int64_t not_finite = 0;
  std::mutex mutex;
  parallel_ranges(n, kGrain, [&](int64_t i0, int64_t i1) {
    float lo = 0, hi = 0;
    int64_t bad = 0;
    table.min_max(x + i0, i1 - i0, &lo, &hi, &bad);
    std::lock_guard lock(mutex);
    min = std::min(min, lo);
    max = std::max(max, hi);
    not_finite += bad;
  });
  const affine::RunTimeQParams q = rule.qparams(min, max, not_finite, label);
  parallel_ranges(n, kGrain, [&](int64_t i0, int64_t i1) {
    rule.codes(table, x + i0, codes + i0, i1 - i0, q);
  });
  return q;
}

}  // namespace octet::engine_detail
