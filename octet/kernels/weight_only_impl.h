#pragma once
// The way in and out of weight-only layers: floats to the three byte planes of fixed-point numbers,
// and exact sums back to floats. Plain loops for the compiler to vectorize: all of it is exact, or
// one IEEE operation at a time.

#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

inline int64_t split_planes(const float* __restrict x, int64_t n, double scale,
                            uint8_t* __restrict planes, int64_t stride) {
  constexpr double kShift = 0x1.8p52;  // adding it leaves the nearest integer in the low bits
  constexpr int64_t kChunk = 256;
  int64_t sum = 0;
  for (int64_t first = 0; first < n; first += kChunk) {
    const int64_t some = n - first < kChunk ? n - first : kChunk;
    uint32_t fixed[kChunk];
    for (int64_t i = 0; i < some; ++i) {
      const double shifted = static_cast<double>(x[first + i]) * scale + kShift;
      const uint32_t u = static_cast<uint32_t>(__builtin_bit_cast(uint64_t, shifted)) + (1u << 23);
      fixed[i] = u < (1u << 24) ? u : (1u << 24) - 1;
    }
    uint32_t chunk_sum = 0;  // of 256 numbers below 2^24
    for (int64_t i = 0; i < some; ++i) chunk_sum += fixed[i];
    sum += chunk_sum;
    for (int p = 0; p < 3; ++p) {
      uint8_t* to = planes + p * stride + first;
      for (int64_t i = 0; i < some; ++i) to[i] = static_cast<uint8_t>(fixed[i] >> 8 * p);
    }
  }
  return sum;
}

inline void join_planes(const JoinArgs& a, int64_t n0, int64_t n1) {
  const int32_t* __restrict low = a.sums;
  const int32_t* __restrict middle = low + a.ld;
  const int32_t* __restrict high = middle + a.ld;
  const double* __restrict zero_points = a.zero_points;
  const double* __restrict offsets = a.offsets;
  const double* __restrict scales = a.scales;
  float* __restrict y = a.y;
  const double row_sum = a.row_sum, row_scale = a.row_scale;
  auto number = [&](int64_t n) {
    const int64_t i = n - n0;
    const double all = static_cast<double>(high[i]) * 65536.0 +
                       static_cast<double>(middle[i]) * 256.0 + static_cast<double>(low[i]);
    const double exact = all - zero_points[n] * row_sum - offsets[n];
    return exact * scales[n] * row_scale;
  };
  if (a.bias) {
    const float* __restrict bias = a.bias;
    for (int64_t n = n0; n < n1; ++n)
      y[n] = static_cast<float>(number(n) + static_cast<double>(bias[n]));
  } else {
    for (int64_t n = n0; n < n1; ++n) y[n] = static_cast<float>(number(n));
  }
  if (!a.relu) return;
  const float most = a.most;
  for (int64_t n = n0; n < n1; ++n) {
    const float v = y[n] > 0 ? y[n] : 0;
    y[n] = v > most ? most : v;
  }
}

inline void join_block(const JoinBlockArgs& a, int64_t n0, int64_t n1) {
  const int32_t* __restrict low = a.sums;
  const int32_t* __restrict middle = low + a.ld;
  const int32_t* __restrict high = middle + a.ld;
  const float* __restrict zero_points = a.zero_points;
  const int32_t* __restrict weight_sums = a.weight_sums;
  const float* __restrict scales = a.scales;
  double* __restrict total = a.total;
  const double row_sum = a.row_sum;
  for (int64_t n = n0; n < n1; ++n) {
    const int64_t i = n - n0;
    const double all = static_cast<double>(high[i]) * 65536.0 +
                       static_cast<double>(middle[i]) * 256.0 + static_cast<double>(low[i]);
    const double exact = all - static_cast<double>(weight_sums[n]) * 8388608.0;
    total[i] +=
        (exact - static_cast<double>(zero_points[n]) * row_sum) * static_cast<double>(scales[n]);
  }
}

}  // namespace
}  // namespace octet::kernels
