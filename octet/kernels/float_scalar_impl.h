#pragma once
// The definition of the float kernels, one plain loop each (isa/scalar.cpp): chains of std::fma in
// the order of k. The other tables give the same bits (float_gemm_impl.h).

#include <cmath>
#include <limits>

#include "octet/kernels/float_winograd_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::kernels {
namespace {

// NaN passes; -0 becomes 0.
inline float clamp_sum(float sum, float lo, float hi) {
  sum += 0.0f;
  const float above = lo > sum ? lo : sum;
  return hi < above ? hi : above;
}

size_t float_gemm_packed_bytes(const GemmShape& s) {
  return static_cast<size_t>(s.n * s.taps * s.k) * sizeof(float);
}

void float_gemm_pack(const GemmShape& s, const FloatWeights& w, float* packed) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t t = 0; t < s.taps; ++t)
      for (int64_t i = 0; i < s.k; ++i)
        *packed++ = w.data[n * w.n_stride + t * w.tap_stride + i * w.k_stride];
}

void float_gemm(const FloatGemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  const int64_t k = g.shape.k, taps = g.offsets ? g.shape.taps : 1;
  for (int64_t m = m0; m < m1; ++m)
    for (int64_t n = n0; n < n1; ++n) {
      const float* w = static_cast<const float*>(g.b) + n * taps * k;
      float sum = g.bias ? g.bias[n] : 0.0f;
      for (int64_t t = 0; t < taps; ++t, w += k) {
        const float* x = g.a + m * g.lda;
        if (g.offsets) x = g.offsets[m * taps + t] < 0 ? g.pad : g.a + g.offsets[m * taps + t];
        for (int64_t i = 0; i < k; ++i) sum = std::fma(x[i], w[i], sum);
      }
      g.c[(g.c_rows ? g.c_rows[m] : m * g.ldc) + n] = clamp_sum(sum, g.lo, g.hi);
    }
}

// One number as a vector, and the product above, for the one template that is shared.
struct OneFloat {
  using F = float;
  static constexpr int kLanes = 1;
  static F set(float x) { return x; }
  static F load_f32(const float* p) { return *p; }
  static F load_f32(const float* p, int64_t n) { return n > 0 ? *p : 0; }
  static void store_f32(float* p, F x) { *p = x; }
  static void store_f32(float* p, F x, int64_t n) {
    if (n > 0) *p = x;
  }
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
};
struct OneFloatGemm {
  static constexpr int64_t kPanel = 1;
  static constexpr int kRows = 1;
  static constexpr auto packed_bytes = float_gemm_packed_bytes;
  static constexpr auto pack = float_gemm_pack;
  static constexpr auto run = float_gemm;
};

void float_depthwise(const FloatDepthwiseArgs& d, int64_t p0, int64_t p1) {
  for (int64_t p = p0; p < p1; ++p)
    for (int64_t c = 0; c < d.channels; ++c) {
      float sum = d.bias ? d.bias[c] : 0.0f;
      for (int64_t t = 0; t < d.taps; ++t) {
        const int32_t offset = d.offsets[p * d.taps + t];
        sum = std::fma((offset < 0 ? d.pad : d.a + offset)[c], d.weights[t * d.channels + c], sum);
      }
      d.c[p * d.ldc + c] = clamp_sum(sum, d.lo, d.hi);
    }
}

void float_max_pool(const FloatPoolArgs& a, int64_t p0, int64_t p1) {
  for (int64_t p = p0; p < p1; ++p)
    for (int64_t c = 0; c < a.channels; ++c) {
      float best = -std::numeric_limits<float>::infinity();
      for (int64_t t = 0; t < a.taps; ++t) {
        const int32_t offset = a.offsets[p * a.taps + t];
        if (offset >= 0 && a.a[offset + c] > best) best = a.a[offset + c];
      }
      a.y[p * a.ldy + c] = best;
    }
}

void float_average_pool(const FloatPoolArgs& a, int64_t p0, int64_t p1) {
  for (int64_t p = p0; p < p1; ++p)
    for (int64_t c = 0; c < a.channels; ++c) {
      float sum = 0;
      for (int64_t t = 0; t < a.taps; ++t) {
        const int32_t offset = a.offsets[p * a.taps + t];
        if (offset >= 0) sum += a.a[offset + c];
      }
      a.y[p * a.ldy + c] = sum / a.counts[p];
    }
}

void float_clamp(const float* x, float* y, int64_t n, float lo, float hi) {
  for (int64_t i = 0; i < n; ++i) {
    const float above = lo > x[i] ? lo : x[i];
    y[i] = hi < above ? hi : above;
  }
}

}  // namespace
}  // namespace octet::kernels
