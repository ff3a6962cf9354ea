#pragma once
// Output channels whose sums can leave int32: a bias far beyond what its products can give, or more
// products than int32 holds. The matrix kernels sum in wrapping int32, so these channels' results
// are computed again here, in 64 bits, and written over the kernels'. Such channels are rare: plain
// loops do.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "octet/base/parallel.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::native {

class WideChannels {
 public:
  // Groups of `group_channels` output channels, each with taps of k products.
  WideChannels(int64_t group_channels, int64_t taps, int64_t k)
      : group_channels_(group_channels), taps_(taps), k_(k) {}

  // Output channel `channel` (of all groups), whose weights are w [taps][k], less the zero point.
  void add(int64_t channel, const int8_t* w, int32_t zero_point, int64_t bias) {
    channels_.push_back({channel / group_channels_, channel % group_channels_, bias, 0});
    for (int64_t i = 0; i < taps_ * k_; ++i) {
      weights_.push_back(static_cast<int16_t>(w[i] - zero_point));
      channels_.back().sum += weights_.back();
    }
  }

  bool empty() const { return channels_.empty(); }

  // Writes their results for the m rows of each of `images` images. arguments(image, group) are
  // what the kernel is given for them, with the group's first channel as channel 0; their epilogue
  // is requantize or dynamic. x_zero_point is of unsigned codes. Takes the threads.
  template <typename Arguments>
  void run(int64_t images, int64_t m, int32_t x_zero_point, Arguments&& arguments) const {
    if (empty()) return;
    const int64_t grain = std::max<int64_t>(1, 200'000 / std::max<int64_t>(1, taps_ * k_));
    for (int64_t image = 0; image < images; ++image)
      for (size_t i = 0; i < channels_.size(); ++i) {
        const Channel& c = channels_[i];
        const kernels::GemmArgs a = arguments(image, c.group);
        const std::span<const int16_t> w(weights_.data() + static_cast<int64_t>(i) * taps_ * k_,
                                         static_cast<size_t>(taps_ * k_));
        const int64_t offset = c.bias - x_zero_point * c.sum;
        parallel_ranges(m, grain, [&](int64_t m0, int64_t m1) {
          for (int64_t row = m0; row < m1; ++row) store(a, row, c.n, offset + product(a, row, w));
        });
      }
  }

 private:
  struct Channel {
    int64_t group, n;  // n: within the group
    int64_t bias, sum;
  };

  int64_t product(const kernels::GemmArgs& a, int64_t row, std::span<const int16_t> w) const {
    if (!a.offsets) return dot(a.a + row * a.lda, w.data(), k_);
    int64_t sum = 0;
    for (int64_t t = 0; t < taps_; ++t) {
      const int32_t offset = a.offsets[row * taps_ + t];
      sum += dot(offset < 0 ? a.pad : a.a + offset, w.data() + t * k_, k_);
    }
    return sum;
  }

  static int64_t dot(const uint8_t* x, const int16_t* w, int64_t k) {
    constexpr int64_t kFitsInt32 = 32768;  // 255 * 255 * 32768 < 2^31
    int64_t sum = 0;
    for (int64_t k0 = 0; k0 < k; k0 += kFitsInt32) {
      int32_t part = 0;
      for (int64_t i = k0; i < std::min(k, k0 + kFitsInt32); ++i) part += x[i] * w[i];
      sum += part;
    }
    return sum;
  }

  static void store(const kernels::GemmArgs& a, int64_t row, int64_t n, int64_t sum) {
    const int64_t at = row * a.ldc + n;
    if (a.epilogue == kernels::Epilogue::requantize) {
      static_cast<uint8_t*>(a.c)[at] =
          static_cast<uint8_t>(affine::requantize(sum, a.multiplier[n], a.zero_point, a.lo, a.hi));
      return;
    }
    float v = static_cast<float>(sum) * a.multiplier[n];
    if (a.float_bias) v += a.float_bias[n];
    static_cast<float*>(a.c)[at] = a.relu && !(v > 0) ? 0 : v;
  }

  int64_t group_channels_, taps_, k_;
  std::vector<Channel> channels_;
  std::vector<int16_t> weights_;  // [channel][taps][k]
};

}  // namespace octet::native
