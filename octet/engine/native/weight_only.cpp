// Weight-only linear layers: float32 in and out, the weight's codes of 8 or 4 bits as they are.
// Each row of x becomes whole numbers of 24 bits in its own fixed point, three planes of bytes; the
// planes are rows of one integer product, whose exact sums are put together again. That takes 3
// byte products where float32 takes one multiply-add, which is less work where the CPU has dot
// products of bytes (4 to a lane), reads a quarter or an eighth of the weights' floats, and gives
// the same bits everywhere.
#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/engine/native/matrix_impl.h"

namespace octet::native {
namespace {

using engine_detail::WeightCodes;

struct WeightOnlyWeights {
  WeightOnlyWeights(const OpSpec& spec, const WeightCodes& codes, const kernels::GemmShape& shape)
      : packed(without_zero_points(codes), WeightRows(codes.codes, shape.k), shape, 1),
        activation(spec.attrs.get_string("activation")) {
    if (spec.has(2)) bias = spec.constants[2].to_vector<float>();
    for (int64_t n = 0; n < shape.n; ++n) {
      offsets.push_back(
          static_cast<double>(packed.weight_sums[n] - shape.k * codes.zero_points[n]) * (1 << 23));
      zero_points.push_back(codes.zero_points[n]);
      scales.push_back(codes.scales[n]);
    }
  }
  static engine_detail::IntegerWeights without_zero_points(const WeightCodes& codes) {
    engine_detail::IntegerWeights r;
    r.out_channels = codes.out_channels;
    r.four_bit = codes.four_bit;
    r.zero_points.assign(codes.out_channels, 0);
    r.bias.assign(codes.out_channels, 0);
    r.multiplier.assign(codes.out_channels, 1);
    return r;
  }

  PackedWeights packed;
  std::vector<double> zero_points, offsets, scales;
  std::vector<float> bias;  // empty if there is none
  std::string activation;
};

class WeightOnlyPlan final : public KernelPlan {
 public:
  WeightOnlyPlan(const WeightOnlyWeights& w, int64_t m) : w_(w), m_(m) {
    // An odd number of cache lines: rows that lie a power of two apart share a few sets of the
    // cache.
    stride_ = (w.packed.shape.k + 63) / 64 * 64;
    if (stride_ / 64 % 2 == 0) stride_ += 64;
    rows_at_ = static_cast<size_t>(3 * m * stride_ + kBufferSlack + 63) / 64 * 64;
  }
  size_t scratch_bytes() const override { return rows_at_ + static_cast<size_t>(m_) * sizeof(Row); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    x_ = static_cast<const float*>(inputs[0]);
    y_ = static_cast<float*>(outputs[0]);
    planes_ = static_cast<uint8_t*>(scratch);
    rows_ = reinterpret_cast<Row*>(planes_ + rows_at_);
    const kernels::KernelTable& table = *w_.packed.table;
    const int64_t k = w_.packed.shape.k, n = w_.packed.shape.n;
    parallel_ranges(m_, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, k)),
                    [&](int64_t m0, int64_t m1) {
                      for (int64_t m = m0; m < m1; ++m) rows_[m] = split(m);
                    });
    const int64_t rows_of_tile = std::max<int64_t>(1, table.gemm_mr / 3);
    split_matrix(1, m_, n, rows_of_tile, table.gemm_nr, 3 * k,
                 [this](int64_t, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   multiply(m0, m1, n0, n1);
                 });
  }

 private:
  static constexpr int64_t kGrain = 1 << 15;
  // of a block whose sums wait in the cache: 3 * 32 * 128 int32 are 48 KB
  static constexpr int64_t kRows = 32, kColumns = 128;

  struct Row {
    double sum = 0, scale = 1;  // of the 24-bit numbers, 2^23 added; what one of them is worth
    bool finite = true;
  };

  Row split(int64_t m) const {
    const kernels::KernelTable& table = *w_.packed.table;
    const int64_t k = w_.packed.shape.k;
    const float* x = x_ + m * k;
    float lo = 0, hi = 0;
    int64_t not_finite = 0;
    table.min_max(x, k, &lo, &hi, &not_finite);
    Row row;
    row.finite = not_finite == 0;
    const int e = row.finite ? engine_detail::fixed_point_exponent(std::max(-lo, hi)) : 0;
    row.scale = std::ldexp(1.0, -e);
    if (row.finite)
      row.sum = static_cast<double>(
          table.split_planes(x, k, std::ldexp(1.0, e), planes_ + 3 * m * stride_, stride_));
    return row;
  }

  void multiply(int64_t m0, int64_t m1, int64_t n0, int64_t n1) const {
    alignas(64) int32_t sums[3 * kRows * kColumns];
    kernels::GemmArgs g = w_.packed.arguments(0);
    g.epilogue = kernels::Epilogue::int32;
    g.lda = stride_;
    g.ldc = kColumns;
    kernels::JoinArgs join;
    join.ld = kColumns;
    join.zero_points = w_.zero_points.data();
    join.offsets = w_.offsets.data();
    join.scales = w_.scales.data();
    join.bias = w_.bias.empty() ? nullptr : w_.bias.data();
    join.relu = w_.activation != "none";
    join.most = w_.activation == "relu6" ? 6.0f : std::numeric_limits<float>::infinity();
    for (int64_t n = n0; n < n1; n += kColumns) {
      const int64_t end = std::min(n1, n + kColumns);
      for (int64_t m = m0; m < m1; m += kRows) {
        const int64_t rows = std::min(m1 - m, kRows);
        g.a = planes_ + 3 * m * stride_;
        // Channel n comes first; only those from n on are written.
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        g.c = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(sums) -
                                      static_cast<uintptr_t>(n) * sizeof(int32_t));
        w_.packed.gemm(g, 0, 3 * rows, n, end);
        for (int64_t r = 0; r < rows; ++r) {
          const Row& row = rows_[m + r];
          join.y = y_ + (m + r) * w_.packed.shape.n;
          join.sums = sums + 3 * r * kColumns;
          join.row_sum = row.sum;
          join.row_scale = row.scale;
          if (row.finite)
            w_.packed.table->join_planes(join, n, end);
          else
            std::fill(join.y + n, join.y + end, std::numeric_limits<float>::quiet_NaN());
        }
      }
    }
  }

  const WeightOnlyWeights& w_;
  int64_t m_, stride_ = 0;
  size_t rows_at_ = 0;
  const float* x_ = nullptr;
  float* y_ = nullptr;
  uint8_t* planes_ = nullptr;
  Row* rows_ = nullptr;
};

class WeightOnlyLinear final : public Kernel {
 public:
  WeightOnlyLinear(const OpSpec& spec, const WeightCodes& codes)
      : weights_(spec, codes, {codes.out_channels, spec.inputs[1].shape()[1], 1}) {}
  std::string name() const override {
    return weights_.packed.fixed_point_name("linear_weight_only");
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  size_t packed_bytes() const override { return weights_.packed.packed.bytes(); }
  KernelDescription description() const override {
    return weights_.packed.fixed_point_description(
        fmt::format("to float32 in double, rounded once{}{}", weights_.bias.empty() ? "" : ", bias",
                    weights_.activation == "none" ? "" : ", " + weights_.activation));
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    return std::make_unique<WeightOnlyPlan>(weights_, numel(in[0]) / weights_.packed.shape.k);
  }

 private:
  WeightOnlyWeights weights_;
};

}  // namespace

std::unique_ptr<Kernel> make_weight_only(const OpSpec& spec) {
  if (!engine_detail::is_weight_only_call(spec)) return nullptr;
  WeightCodes codes = engine_detail::weight_codes(spec);
  codes.narrow();
  return std::make_unique<WeightOnlyLinear>(spec, codes);
}

}  // namespace octet::native
