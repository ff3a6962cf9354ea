#include "octet/quant/observe/scan_impl.h"

namespace octet::quant::detail {

Extent scan(const float* x, int64_t n) {
  constexpr int64_t kLanes = 32;
  float lo[kLanes], hi[kLanes], zero[kLanes];
  for (int64_t j = 0; j < kLanes; ++j) {
    lo[j] = hi[j] = x[0];
    zero[j] = 0;
  }
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) {
      float v = x[i + j];
      lo[j] = v < lo[j] ? v : lo[j];
      hi[j] = v > hi[j] ? v : hi[j];
      zero[j] += v * 0.0f;  // stays 0 until a NaN or an infinity makes it NaN
    }
  }
  for (; i < n; ++i) {
    float v = x[i];
    lo[0] = v < lo[0] ? v : lo[0];
    hi[0] = v > hi[0] ? v : hi[0];
    zero[0] += v * 0.0f;
  }
  for (int64_t j = 1; j < kLanes; ++j) {
    lo[0] = lo[j] < lo[0] ? lo[j] : lo[0];
    hi[0] = hi[j] > hi[0] ? hi[j] : hi[0];
    zero[0] += zero[j];
  }
  return {lo[0] + 0.0f, hi[0] + 0.0f, zero[0] == 0};
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
