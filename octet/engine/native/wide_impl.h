#pragma once
// Output channels whose sums can leave int32: a bias far beyond what its products can give, or more
// products than int32 holds. The matrix kernels sum in wrapping int32, so these channels' results
// are computed again here and written over the kernel's: the products in pieces that fit int32, by
// the same kernel, and all else in 64 bits.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "octet/base/lasting.h"
#include "octet/base/parallel.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::native {

class WideChannels {
 public:
  WideChannels() = default;
  // weights.wide, of groups of the given shape; codes_of(channel) are a channel's [taps][k], valid
  // until it is called again.
  template <typename CodesOf>
  WideChannels(const kernels::KernelTable& table, const kernels::GemmShape& shape,
               const engine_detail::IntegerWeights& weights, CodesOf&& codes_of)
      : table_(&table), taps_(shape.taps) {
    const int64_t taps = std::min(shape.taps, kFit);
    const int64_t k = std::clamp<int64_t>(kFit / taps, 1, std::max<int64_t>(1, shape.k));
    for (int64_t t0 = 0; t0 < shape.taps; t0 += taps)
      for (int64_t k0 = 0; k0 < shape.k; k0 += k)
        pieces_.push_back({t0, k0, std::min(taps, shape.taps - t0), std::min(k, shape.k - k0)});
    std::vector<int8_t> codes;  // of a group's channels
    for (size_t i = 0; i < weights.wide.size(); ++i) {
      const int64_t channel = weights.wide[i], group = channel / shape.n;
      if (i == 0 || groups_.back().group != group) groups_.push_back({group, {}, {}});
      const int8_t* w = codes_of(channel);
      const int32_t z = weights.zero_points[channel];
      int64_t sum = 0;
      for (int64_t j = 0; j < shape.taps * shape.k; ++j) sum += w[j] - z;
      groups_.back().channels.push_back({channel % shape.n, weights.bias[channel], sum, z});
      any_zero_point_ |= z != 0;
      codes.insert(codes.end(), w, w + shape.taps * shape.k);
      if (i + 1 < weights.wide.size() && weights.wide[i + 1] / shape.n == group) continue;
      pack(groups_.back(), codes, shape.k);
      codes.clear();
    }
  }

  // Writes their results for the m rows of each of `images` images. arguments(image, group) are
  // what the kernel is given for them, with the group's first channel as channel 0; their epilogue
  // is requantize or dynamic. x_zero_point is of unsigned codes. Takes the threads, allocates
  // nothing.
  template <typename Arguments>
  void run(int64_t images, int64_t m, int32_t x_zero_point, Arguments&& arguments) const {
    for (const Group& group : groups_) {
      int64_t products = 1;
      for (const Piece& p : pieces_) products += p.taps * p.k * std::ssize(group.channels);
      const int64_t grain = std::max<int64_t>(kRows, 1'000'000 / products);
      for (int64_t image = 0; image < images; ++image) {
        const kernels::GemmArgs a = arguments(image, group.group);
        parallel_ranges(m, grain,
                        [&](int64_t m0, int64_t m1) { rows(group, a, x_zero_point, m0, m1); });
      }
    }
  }

  int64_t channels() const {
    int64_t count = 0;
    for (const Group& group : groups_) count += std::ssize(group.channels);
    return count;
  }

 private:
  static constexpr int64_t kFit = std::numeric_limits<int32_t>::max() / (255 * 128);  // products
  static constexpr int64_t kRows = 24, kColumns = 128;  // of a block whose sums wait in the cache

  // Taps t0..t0 + taps and bytes k0..k0 + k of each.
  struct Piece {
    int64_t t0, k0, taps, k;
  };
  struct Channel {
    int64_t n;  // within the group
    int64_t bias;
    int64_t sum;  // of q_w - z_w
    int32_t zero_point;
  };
  struct Group {
    int64_t group;
    std::vector<Channel> channels;
    std::vector<Buffer> packed;  // by piece
  };

  void pack(Group& group, const std::vector<int8_t>& codes, int64_t k) {
    const int64_t n = std::ssize(group.channels);
    no_bias_.resize(std::max(no_bias_.size(), group.channels.size()));
    for (const Piece& p : pieces_) {
      std::vector<int8_t> part;  // [n][taps][k] of the piece
      for (int64_t row = 0; row < n; ++row)
        for (int64_t t = p.t0; t < p.t0 + p.taps; ++t) {
          const auto first = codes.begin() + (row * taps_ + t) * k + p.k0;
          part.insert(part.end(), first, first + p.k);
        }
      const kernels::GemmShape shape{n, p.k, p.taps};
      group.packed.push_back(allocate_lasting(table_->gemm_packed_bytes(shape)));
      table_->gemm_pack(shape, 0, n, part.data(), group.packed.back().data());
    }
  }

  void rows(const Group& group, const kernels::GemmArgs& a, int32_t x_zero_point, int64_t m0,
            int64_t m1) const {
    alignas(64) int32_t part[kRows * kColumns];
    int64_t total[kRows * kColumns];
    const int64_t channels = std::ssize(group.channels);
    // Pieces of the taps are found in the offsets of one row at a time.
    const int64_t at_once = pieces_.empty() || pieces_[0].taps == taps_ ? kRows : 1;
    for (int64_t n0 = 0; n0 < channels; n0 += kColumns)
      for (int64_t m = m0; m < m1; m += at_once) {
        const int64_t n = std::min(channels - n0, kColumns), count = std::min(m1 - m, at_once);
        const Channel* channel = &group.channels[static_cast<size_t>(n0)];
        for (int64_t r = 0; r < count; ++r)
          for (int64_t c = 0; c < n; ++c)
            total[r * kColumns + c] = channel[c].bias - x_zero_point * channel[c].sum;
        for (size_t i = 0; i < pieces_.size(); ++i)
          add(pieces_[i], group.packed[i], channel, a, m, count, n0, n0 + n, channels, part, total);
        for (int64_t r = 0; r < count; ++r)
          for (int64_t c = 0; c < n; ++c) store(a, m + r, channel[c].n, total[r * kColumns + c]);
      }
  }

  // Adds a piece's sums of q_x * (q_w - z_w) to the totals of `count` rows from m on, channels
  // n0..n1.
  void add(const Piece& p, const Buffer& packed, const Channel* channel, const kernels::GemmArgs& a,
           int64_t m, int64_t count, int64_t n0, int64_t n1, int64_t channels, int32_t* part,
           int64_t* total) const {
    kernels::GemmArgs g;
    g.shape = {channels, p.k, p.taps};
    g.a = a.a + p.k0 + (a.offsets ? 0 : m * a.lda);
    g.lda = a.lda;
    if (a.offsets) {
      g.offsets = a.offsets + m * taps_ + p.t0;
      g.pad = a.pad + p.k0;
    }
    g.b = packed.data();
    // Channel n0 comes first; only those from there on are written.
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    g.c = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(part) -
                                  static_cast<uintptr_t>(n0) * sizeof(int32_t));
    g.ldc = kColumns;
    g.epilogue = kernels::Epilogue::int32;
    g.bias = no_bias_.data();
    table_->gemm(g, 0, count, n0, n1);
    int32_t row_sums[kRows] = {};
    if (any_zero_point_) table_->row_sums(g, row_sums, 0, count);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t c = 0; c < n1 - n0; ++c)
        total[r * kColumns + c] +=
            part[r * kColumns + c] - int64_t{channel[c].zero_point} * row_sums[r];
  }

  static void store(const kernels::GemmArgs& a, int64_t row, int64_t n, int64_t sum) {
    const int64_t at = a.row_of_c(row) + n;
    if (a.epilogue == kernels::Epilogue::requantize) {
      static_cast<uint8_t*>(a.c)[at] =
          static_cast<uint8_t>(affine::requantize(sum, a.multiplier[n], a.zero_point, a.lo, a.hi));
      return;
    }
    float v = static_cast<float>(sum) * a.multiplier[n];
    if (a.float_bias) v += a.float_bias[n];
    static_cast<float*>(a.c)[at] = a.relu && !(v > 0) ? 0 : v;
  }

  const kernels::KernelTable* table_ = nullptr;
  int64_t taps_ = 1;
  bool any_zero_point_ = false;
  std::vector<Piece> pieces_;
  std::vector<Group> groups_;
  std::vector<int32_t> no_bias_;
};

}  // namespace octet::native
