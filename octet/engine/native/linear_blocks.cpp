// Linear layers whose weight has a scale for each block of inputs (linear_blocks). As weight-only
// layers: rows of x are three planes of bytes of a fixed point, each block is an integer product of
// its own with the codes as they are, and its exact sums, scaled, are added in double.
#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/engine/native/matrix_impl.h"

namespace octet::native {
namespace {

using engine_detail::BlockWeights;

struct PackedBlocks {
  PackedBlocks(const BlockWeights& w, const Tensor& bias_or_none)
      : n(w.n),
        k(w.k),
        block(w.block),
        blocks(w.blocks),
        packed(integer_form(w), WeightRows(w.codes, w.block), {w.n, w.block, 1}, w.blocks),
        scales(w.scales),
        zero_points(w.zero_points) {
    if (bias_or_none.defined()) bias = bias_or_none.to_vector<float>();
    packed.multiplier.clear();  // not of this epilogue
  }
  static engine_detail::IntegerWeights integer_form(const BlockWeights& w) {
    engine_detail::IntegerWeights r;
    r.out_channels = w.blocks * w.n;
    r.four_bit = w.bits < 8;
    r.zero_points.assign(static_cast<size_t>(r.out_channels), 0);
    r.bias.assign(static_cast<size_t>(r.out_channels), 0);
    return r;
  }

  int64_t n, k, block, blocks;
  PackedWeights packed;  // a group for each block
  std::vector<float> scales, zero_points, bias;
};

class BlocksPlan final : public KernelPlan {
 public:
  BlocksPlan(const PackedBlocks& w, int64_t m) : w_(w), m_(m) {
    // An odd number of cache lines, as in weight_only.cpp.
    stride_ = (w.blocks * w.block + 63) / 64 * 64;
    if (stride_ / 64 % 2 == 0) stride_ += 64;
    planes_at_ = parts_.take(static_cast<size_t>(3 * m * stride_) + kBufferSlack);
    sums_at_ = parts_.take(static_cast<size_t>(m * w.blocks) * sizeof(double));
    steps_at_ = parts_.take(static_cast<size_t>(m) * sizeof(double));
  }
  size_t scratch_bytes() const override { return parts_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    x_ = static_cast<const float*>(inputs[0]);
    y_ = static_cast<float*>(outputs[0]);
    auto* base = static_cast<std::byte*>(scratch);
    planes_ = reinterpret_cast<uint8_t*>(base + planes_at_);
    sums_ = reinterpret_cast<double*>(base + sums_at_);
    steps_ = reinterpret_cast<double*>(base + steps_at_);
    const kernels::KernelTable& table = *w_.packed.table;
    parallel_ranges(m_, std::max<int64_t>(1, kGrain / w_.k), [&](int64_t m0, int64_t m1) {
      for (int64_t m = m0; m < m1; ++m) split(m);
    });
    split_matrix(1, m_, w_.n, std::max<int64_t>(1, table.gemm_mr / 3), table.gemm_nr, 3 * w_.k,
                 [this](int64_t, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   multiply(m0, m1, n0, n1);
                 });
  }

 private:
  static constexpr int64_t kGrain = 1 << 15, kRows = 16, kColumns = 128;

  // The planes of row m, the sums of its blocks, and what a step is worth: NaN of a row that is not
  // finite.
  void split(int64_t m) const {
    const kernels::KernelTable& table = *w_.packed.table;
    const float* x = x_ + m * w_.k;
    float lo = 0, hi = 0;
    int64_t not_finite = 0;
    table.min_max(x, w_.k, &lo, &hi, &not_finite);
    const int e = not_finite ? 0 : engine_detail::fixed_point_exponent(std::max(-lo, hi));
    steps_[m] = not_finite ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, -e);
    for (int64_t b = 0; b < w_.blocks && not_finite == 0; ++b) {
      const int64_t first = b * w_.block, count = std::min(w_.block, w_.k - first);
      sums_[m * w_.blocks + b] =
          static_cast<double>(table.split_planes(x + first, count, std::ldexp(1.0, e),
                                                 planes_ + 3 * m * stride_ + first, stride_) -
                              (count << 23));
    }
  }

  void multiply(int64_t m0, int64_t m1, int64_t n0, int64_t n1) const {
    alignas(64) int32_t sums[3 * kRows * kColumns];
    alignas(64) double totals[kRows * kColumns];
    kernels::JoinBlockArgs join;
    join.ld = kColumns;
    for (int64_t n = n0; n < n1; n += kColumns) {
      const int64_t end = std::min(n1, n + kColumns);
      for (int64_t m = m0; m < m1; m += kRows) {
        const int64_t rows = std::min(m1 - m, kRows);
        std::fill_n(totals, rows * kColumns, 0.0);
        for (int64_t b = 0; b < w_.blocks; ++b) {
          kernels::GemmArgs g = w_.packed.arguments(b);
          g.epilogue = kernels::Epilogue::int32;
          g.a = planes_ + 3 * m * stride_ + b * w_.block;
          g.lda = stride_;
          g.ldc = kColumns;
          // Channel n comes first; only those from n on are written.
          // NOLINTNEXTLINE(performance-no-int-to-ptr)
          g.c = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(sums) -
                                        static_cast<uintptr_t>(n) * sizeof(int32_t));
          w_.packed.gemm(g, 0, 3 * rows, n, end);
          join.zero_points = w_.zero_points.data() + b * w_.n;
          join.weight_sums = w_.packed.weight_sums.data() + b * w_.n;
          join.scales = w_.scales.data() + b * w_.n;
          for (int64_t r = 0; r < rows; ++r) {
            join.sums = sums + 3 * r * kColumns;
            join.row_sum = sums_[(m + r) * w_.blocks + b];
            join.total = totals + r * kColumns;
            w_.packed.table->join_block(join, n, end);
          }
        }
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = n; c < end; ++c) {
            double v = totals[r * kColumns + c - n] * steps_[m + r];
            if (!w_.bias.empty()) v += static_cast<double>(w_.bias[c]);
            y_[(m + r) * w_.n + c] = static_cast<float>(v);
          }
      }
    }
  }

  const PackedBlocks& w_;
  int64_t m_, stride_ = 0;
  ScratchParts parts_;
  size_t planes_at_ = 0, sums_at_ = 0, steps_at_ = 0;
  const float* x_ = nullptr;
  float* y_ = nullptr;
  uint8_t* planes_ = nullptr;
  double *sums_ = nullptr, *steps_ = nullptr;
};

class LinearBlocks final : public Kernel {
 public:
  explicit LinearBlocks(const OpSpec& spec)
      : weights_(BlockWeights(spec.attrs, spec.constants[1], spec.constants[2],
                              spec.has(3) ? spec.constants[3] : Tensor()),
                 spec.has(4) ? spec.constants[4] : Tensor()) {}
  std::string name() const override { return weights_.packed.fixed_point_name("linear_blocks"); }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  size_t packed_bytes() const override { return weights_.packed.packed.bytes(); }
  KernelDescription description() const override {
    return weights_.packed.fixed_point_description(
        fmt::format("blocks scaled and added in double, rounded once to float32{}",
                    weights_.bias.empty() ? "" : ", bias"));
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    return std::make_unique<BlocksPlan>(weights_, numel(in[0]) / weights_.k);
  }

 private:
  PackedBlocks weights_;
};

}  // namespace

std::unique_ptr<Kernel> make_linear_blocks(const OpSpec& spec) {
  for (size_t i = 1; i < spec.inputs.size(); ++i)
    if (spec.has(i) && !spec.constants[i].defined()) return nullptr;
  const engine_detail::BlockShape shape(spec.attrs, spec.inputs[1], spec.inputs[2], spec.op);
  // Bytes of a tap lie in fours.
  if (shape.n < 1 || shape.block % 4 != 0) return nullptr;
  return std::make_unique<LinearBlocks>(spec);
}

}  // namespace octet::native
