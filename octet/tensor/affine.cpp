#include "octet/tensor/affine.h"

#include <algorithm>

#include "octet/base/check_impl.h"

namespace octet::affine {

RunTimeQParams choose_qparams_dynamic(float min, float max, int32_t lo, int32_t hi,
                                      bool reduce_range, bool symmetric) {
  OCTET_CHECK(std::isfinite(min) && std::isfinite(max) && min <= max, invalid_argument,
              "choose_qparams_dynamic: range {}..{}; expected two finite numbers in order", min,
              max);
  OCTET_CHECK(lo < hi, invalid_argument,
              "choose_qparams_dynamic: codes {}..{}; expected two numbers in order", lo, hi);
  if (reduce_range) {
    lo /= 2;
    hi /= 2;
  }
  symmetric = symmetric && min < 0 && max > 0;
  if (symmetric) {
    const int32_t below = -((hi - lo) / 2 + 1), above = (hi - lo) / 2;
    const double widest = std::max(std::abs(static_cast<double>(min / static_cast<float>(below))),
                                   std::abs(static_cast<double>(max / static_cast<float>(above))));
    min = static_cast<float>(widest * below);
    max = static_cast<float>(widest * above);
  }
  min = std::min(min, 0.0f);
  max = std::max(max, 0.0f);
  double scale = (static_cast<double>(max) - static_cast<double>(min)) / (hi - lo);
  const auto rounded = static_cast<float>(scale);
  if (rounded == 0 || std::isinf(1.0f / rounded)) scale = 0.1;
  constexpr float kSmallest = 6.1e-5f;  // a scale whose inverse float16 can hold
  if (scale < 6.1e-5) {
    const auto before = static_cast<float>(scale);
    scale = kSmallest;
    if (min == 0)
      max = kSmallest * static_cast<float>(hi - lo);
    else if (max == 0)
      min = -kSmallest * static_cast<float>(hi - lo);
    else {
      const float wider = kSmallest / before;
      min *= wider;
      max *= wider;
    }
  }
  // The end of the range that gives the smaller rounding error decides.
  const double from_min = lo - min / scale, from_max = hi - max / scale;
  const double error_min = std::abs(static_cast<double>(lo)) - std::abs(min / scale);
  const double error_max = std::abs(static_cast<double>(hi)) - std::abs(max / scale);
  double zero = error_min < error_max ? from_min : from_max;
  if (symmetric) zero = (static_cast<double>(lo) + hi) / 2;
  const int32_t zero_point = zero < lo   ? lo
                             : zero > hi ? hi
                                         : static_cast<int32_t>(std::nearbyint(zero));
  return {scale, zero_point};
}

RunTimeQParams choose_qparams_onnx(float min, float max) {
  OCTET_CHECK(std::isfinite(min) && std::isfinite(max) && min <= max, invalid_argument,
              "choose_qparams_onnx: range {}..{}; expected two finite numbers in order", min, max);
  min = std::min(min, 0.0f);
  max = std::max(max, 0.0f);
  float scale = (max - min) / 255;
  if (scale == 0) scale = 1;
  return {scale, static_cast<int32_t>(rne(std::clamp(0 - min / scale, 0.0f, 255.0f)))};
}

}  // namespace octet::affine
