#pragma once
// Weighted sums of rows of floats: what a linear or cubic resize does along each dimension. Every
// product and every sum is rounded by itself, taps in order.

#include "octet/kernels/elementwise_impl.h"

namespace octet::kernels {
namespace {

// Whether a sum of so many taps begins with +0 and not with the first product.
constexpr bool begins_with_zero(int64_t taps) { return taps != 1 && taps != 2 && taps != 4; }

// One element of the sum; tap(t) is that of tap t.
template <typename Tap>
OCTET_INLINE float blend_one(const float* w, int64_t taps, Tap tap) {
  float sum = w[0] * tap(0);
  if (begins_with_zero(taps)) sum = 0.0f + sum;
  for (int64_t t = 1; t < taps; ++t) sum = sum + w[t] * tap(t);
  return sum;
}

template <typename V>
struct Blend {
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes;

  static OCTET_INLINE F load(const float* x, int64_t count) {
    return Elementwise<V>::load(x, count);
  }

  // Elements i..i + count of the sum; row(t) is where those of tap t begin.
  template <typename Row>
  static OCTET_INLINE F sum(const float* w, int64_t taps, int64_t count, Row row) {
    F total = V::mul(V::set(w[0]), load(row(0), count));
    if (taps == 2) return V::add(total, V::mul(V::set(w[1]), load(row(1), count)));
    if (begins_with_zero(taps)) total = V::add(V::set(0.0f), total);
    for (int64_t t = 1; t < taps; ++t)
      total = V::add(total, V::mul(V::set(w[t]), load(row(t), count)));
    return total;
  }

  static void rows(const float* const* x, const float* w, int64_t taps, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t count = n - i < kLanes ? n - i : kLanes;
      const F v = sum(w, taps, count, [=](int64_t t) OCTET_INLINE_LAMBDA { return x[t] + i; });
      if (count == kLanes)
        V::store_f32(y + i, v);
      else
        V::store_f32(y + i, v, count);
    }
  }

  static void quantize_rows(const float* const* x, const float* w, int64_t taps, void* y, int64_t n,
                            float inv_scale, int32_t zp, int32_t lo, int32_t hi) {
    const F inverse = V::set(inv_scale);
    const Codes<V> codes(zp, lo, hi);
    if (taps == 2) {
      const float *a = x[0], *b = x[1];
      const F wa = V::set(w[0]), wb = V::set(w[1]);
      Elementwise<V>::map(y, 0, n, codes, [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
        const F v = V::add(V::mul(wa, load(a + i, count)), V::mul(wb, load(b + i, count)));
        return V::round_or_zero(V::mul(v, inverse));
      });
      return;
    }
    Elementwise<V>::map(y, 0, n, codes, [=](int64_t i, int64_t count) OCTET_INLINE_LAMBDA {
      const F v = sum(w, taps, count, [=](int64_t t) OCTET_INLINE_LAMBDA { return x[t] + i; });
      return V::round_or_zero(V::mul(v, inverse));
    });
  }

  static void columns(const float* x, int64_t channels, const int32_t* index, const float* w,
                      int64_t taps, float* y, int64_t columns) {
    if (channels == 1 && taps == 2) {
      for (int64_t j = 0; j < columns; ++j)
        y[j] = w[2 * j] * x[index[2 * j]] + w[2 * j + 1] * x[index[2 * j + 1]];
      return;
    }
    for (int64_t j = 0; j < columns; ++j, index += taps, w += taps, y += channels) {
      if (2 * channels < kLanes) {
        for (int64_t c = 0; c < channels; ++c)
          y[c] = blend_one(
              w, taps, [=](int64_t t) OCTET_INLINE_LAMBDA { return x[index[t] * channels + c]; });
        continue;
      }
      for (int64_t c = 0; c < channels; c += kLanes) {
        const int64_t count = channels - c < kLanes ? channels - c : kLanes;
        const F v = sum(w, taps, count,
                        [=](int64_t t) OCTET_INLINE_LAMBDA { return x + index[t] * channels + c; });
        if (count == kLanes)
          V::store_f32(y + c, v);
        else
          V::store_f32(y + c, v, count);
      }
    }
  }
};

}  // namespace
}  // namespace octet::kernels
