#pragma once
// What native conv2d and linear share: packed weights of one or more groups with the zero-point
// terms folded in.

#include <algorithm>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/base/lasting.h"
#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/native/image_impl.h"
#include "octet/engine/native/native_impl.h"
#include "octet/engine/native/schedule_impl.h"
#include "octet/engine/native/wide_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {

// Where the weights of a layer are read from, some output channels at a time.
class WeightRows {
 public:
  // They lie as [n][taps][k].
  explicit WeightRows(std::span<const int8_t> codes, int64_t length)
      : codes_(codes), taps_(1), k_(length) {}
  // A convolution's: (n, k, kernel...), or if transposed (k of all groups, n of one, kernel...).
  WeightRows(const engine_detail::WeightCodes& weights, const kernels::GemmShape& s,
             bool transposed)
      : codes_(weights.codes), taps_(s.taps), k_(s.k), group_n_(transposed ? s.n : 0) {}

  // Output channels n0..n1 as [n][taps][k]: where they lie, or in `room`.
  const int8_t* get(const kernels::KernelTable& table, int64_t n0, int64_t n1,
                    std::vector<int8_t>& room) const {
    const int8_t* w = codes_.data();
    if (taps_ == 1 && group_n_ == 0) return w + n0 * k_;
    room.resize(static_cast<size_t>((n1 - n0) * taps_ * k_));
    int8_t* to = room.data();
    for (int64_t n = n0; n < n1; ++n, to += taps_ * k_) {
      if (group_n_ == 0) {
        table.transpose(reinterpret_cast<const uint8_t*>(w + n * k_ * taps_), taps_,
                        reinterpret_cast<uint8_t*>(to), k_, k_, taps_);
        continue;
      }
      const int64_t first = n / group_n_ * k_ * group_n_ + n % group_n_;
      for (int64_t i = 0; i < k_; ++i)
        for (int64_t t = 0; t < taps_; ++t) to[t * k_ + i] = w[(first + i * group_n_) * taps_ + t];
    }
    return room.data();
  }

 private:
  std::span<const int8_t> codes_;
  int64_t taps_, k_, group_n_ = 0;  // group_n_: output channels of a group if transposed, else 0
};

// Weights of `groups` matrix products of [n][taps][k], packed for the ISA in force when they were
// made.
struct PackedWeights {
  const kernels::KernelTable* table = nullptr;
  decltype(kernels::KernelTable::gemm) gemm = nullptr;  // of the table, for codes of 8 or of 4 bits
  kernels::GemmShape shape;                             // of one group
  int64_t groups = 1;
  size_t group_bytes = 0;
  Buffer packed;
  std::vector<int32_t> bias;  // quantized bias - z_x*sum(q_w) + K*z_x*z_w, wrapping
  std::vector<float> multiplier;
  std::vector<int32_t> weight_zero_points;  // empty if all are 0
  std::vector<int32_t> weight_sums;         // of q_w per output channel, wrapping
  // [taps][groups * n], the same by tap: of two to 64 taps, where x's zero point is not 0.
  std::vector<int32_t> tap_sums;
  WideChannels wide;         // what a plan runs after the kernel
  int32_t x_zero_point = 0;  // of unsigned codes
  bool flip_x = false;       // x is qint8: flip its sign bit first
  bool four_bit = false;     // weights are packed in 4 bits
  int32_t y_zero_point = 0, lo = 0, hi = 255;

  PackedWeights(const engine_detail::IntegerWeights& weights, const WeightRows& rows,
                const kernels::GemmShape& s, int64_t group_count)
      : table(&kernels::table()),
        shape(s),
        groups(group_count),
        bias(weights.bias.size()),
        multiplier(weights.multiplier) {
    four_bit = weights.four_bit;
    gemm = four_bit ? table->gemm4 : table->gemm;
    const auto packed_bytes = four_bit ? table->gemm4_packed_bytes : table->gemm_packed_bytes;
    const auto pack = four_bit ? table->gemm4_pack : table->gemm_pack;
    group_bytes = (packed_bytes(s) + 63) / 64 * 64;
    packed = allocate_lasting(group_bytes * groups);
    x_zero_point = weights.x_zero_point + (weights.x_signed ? 128 : 0);
    flip_x = weights.x_signed;
    y_zero_point = weights.y_zero_point;
    lo = weights.lo;
    hi = weights.hi;
    if (weights.any_zero_point) weight_zero_points = weights.zero_points;
    weight_sums.resize(groups * s.n);
    if (s.taps > 1 && s.taps <= 64 && x_zero_point != 0) tap_sums.resize(s.taps * groups * s.n);
    const int64_t panels = (s.n + table->gemm_nr - 1) / table->gemm_nr,
                  panel_bytes = table->gemm_nr * s.taps * s.k;
    parallel_ranges(
        groups * panels, (int64_t{1} << 18) / (panel_bytes + 1) + 1, [&](int64_t i0, int64_t i1) {
          PanelSums sums(*this);
          std::vector<int8_t> room;
          for (int64_t i = i0; i < i1; ++i) {
            const int64_t n = i % panels * table->gemm_nr, first = i / panels * s.n + n;
            const int64_t count = std::min(table->gemm_nr, s.n - n);
            auto* to = reinterpret_cast<char*>(packed.data()) + i / panels * group_bytes;
            pack(s, n, n + count, rows.get(*table, first, first + count, room), to);
            const int32_t* sum = sums.of(n, n + count, to);
            for (size_t row = 0; row * groups * s.n < tap_sums.size(); ++row)
              std::copy_n(sum + (row + 1) * s.n, count, &tap_sums[row * groups * s.n + first]);
            for (int64_t c = 0; c < count; ++c) {
              weight_sums[first + c] = sum[c];
              const int64_t fold =
                  -int64_t{x_zero_point} * sum[c] +
                  s.taps * s.k * x_zero_point * int64_t{weights.zero_points[first + c]};
              bias[first + c] = static_cast<int32_t>(weights.bias[first + c] + fold);
            }
          }
        });
    std::vector<int8_t> room;
    wide = WideChannels(*table, s, weights,
                        [&](int64_t n) { return rows.get(*table, n, n + 1, room); });
  }

  // Everything of the arguments that does not depend on the call's operands, for one group.
  kernels::GemmArgs arguments(int64_t group) const {
    kernels::GemmArgs a;
    a.shape = shape;
    a.b = reinterpret_cast<const char*>(packed.data()) + group * group_bytes;
    a.bias = bias.data() + group * shape.n;
    a.multiplier = multiplier.data() + group * shape.n;
    if (!weight_zero_points.empty()) a.b_zero_points = weight_zero_points.data() + group * shape.n;
    a.zero_point = y_zero_point;
    a.lo = lo;
    a.hi = hi;
    return a;
  }

  // What its kernels multiply with, and what they sum in.
  // What a linear layer on floats says of itself that makes whole numbers of its rows and sums in
  // fixed point; `epilogue`: what it does with the sums.
  std::string fixed_point_name(const char* op) const {
    return fmt::format("{} gemm{} {}x{} {}", op, four_bit ? "4" : "", table->gemm_mr,
                       table->gemm_nr, to_string(table->isa));
  }
  KernelDescription fixed_point_description(std::string epilogue) const {
    KernelDescription d = description();
    d.arithmetic = KernelDescription::Arithmetic::fixed_point;
    d.at_run_time =
        "x: float32 to whole numbers of 24 bits, a fixed point for each row; three products of "
        "bytes";
    d.epilogue = std::move(epilogue);
    return d;
  }
  KernelDescription description() const {
    KernelDescription d = described(KernelDescription::Arithmetic::integers);
    d.loop = fmt::format("gemm_u8{}_{} {}x{}", four_bit ? "u4" : "s8", to_string(table->isa),
                         table->gemm_mr, table->gemm_nr);
    d.accumulator = "int32";
    d.weight_bits = four_bit ? 4 : 8;
    d.wide_channels = wide.channels();
    return d;
  }
  // The same of kernels whose results are codes.
  KernelDescription requantizing() const {
    KernelDescription d = description();
    d.epilogue = fmt::format("bias, requantize, codes {}..{}", lo, hi);
    d.rounding = kToCodes;
    return d;
  }

 private:
  // The sum of each channel's weights: the product with a row of ones, which reads a panel just
  // packed from the cache. Where tap_sums are wanted, behind it a row for each tap, which is 0 at
  // the others.
  class PanelSums {
   public:
    explicit PanelSums(const PackedWeights& w)
        : shape_(w.shape),
          gemm_(w.gemm),
          ones_(w.shape.k + kBufferSlack, 1),
          zeros_(w.shape.k + kBufferSlack),
          rows_(w.tap_sums.empty() ? 1 : 1 + w.shape.taps),
          offsets_(rows_ * w.shape.taps),
          bias_(w.shape.n),
          sums_(rows_ * w.shape.n) {
      for (int64_t row = 1; row < rows_; ++row)
        for (int64_t t = 0; t < w.shape.taps; ++t)
          offsets_[row * w.shape.taps + t] = t == row - 1 ? 0 : -1;
    }
    // Of channels n0..n1 of a group; a row has shape.n.
    const int32_t* of(int64_t n0, int64_t n1, const void* packed) {
      kernels::GemmArgs a;
      a.shape = shape_;
      a.a = ones_.data();
      if (shape_.taps > 1) a.offsets = offsets_.data();
      a.pad = zeros_.data();
      a.b = packed;
      a.c = sums_.data();
      a.ldc = shape_.n;
      a.epilogue = kernels::Epilogue::int32;
      a.bias = bias_.data();
      gemm_(a, 0, rows_, n0, n1);
      return sums_.data() + n0;
    }

   private:
    const kernels::GemmShape shape_;
    decltype(kernels::KernelTable::gemm) gemm_;
    std::vector<uint8_t> ones_, zeros_;
    int64_t rows_;
    std::vector<int32_t> offsets_, bias_, sums_;  // bias_: 0
  };
};

// The matrix product of one group of a convolution: n output channels, taps of k input channels
// each.
inline kernels::GemmShape conv_gemm_shape(const engine_detail::WeightCodes& weights,
                                          const OpSpec& spec) {
  const Shape w = spec.inputs[1].shape();
  const int64_t groups = spec.attrs.get_int("groups");
  kernels::GemmShape s;
  s.n = weights.out_channels / groups;
  s.k = spec.transposed ? w[0] / groups : w[1];
  s.taps = engine_detail::conv_window3(spec).taps();
  return s;
}

// The taps of every output pixel of images whose channels lie together; empty for pointwise
// convolutions.
inline engine_detail::TapOffsets conv_offsets(const engine_detail::Window3& w, bool transposed,
                                              const Shape& x, const Shape& y) {
  // (A transposed one's output_padding may add to the image.)
  if (w.is_pointwise() && std::equal(x.begin() + 2, x.end(), y.begin() + 2, y.end())) return {};
  return engine_detail::tap_offsets(w, transposed, engine_detail::with_3_spatial(x),
                                    engine_detail::with_3_spatial(y));
}

}  // namespace octet::native
