// Products of two matrices of codes, both activations: attention. The second operand of each
// product is packed as weights are, when it is there; its sums are the zero-point terms. Where the
// products are so many that their sum could leave int32 they go in pieces, whose sums are added in
// 64 bits.
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/engine/native/matrix_impl.h"

namespace octet::native {
namespace {

class MatmulKernel final : public Kernel {
 public:
  explicit MatmulKernel(const OpSpec& spec)
      : a(spec.inputs[0]),
        b(spec.inputs[1]),
        y(spec.outputs[0]),
        multiplier(engine_detail::matmul_multiplier(spec)) {}
  std::string name() const override {
    return fmt::format("matmul gemm {}x{} {}", table->gemm_mr, table->gemm_nr,
                       to_string(table->isa));
  }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    KernelDescription d = described(KernelDescription::Arithmetic::integers, kToCodes);
    d.loop =
        fmt::format("gemm_u8s8_{} {}x{}", to_string(table->isa), table->gemm_mr, table->gemm_nr);
    d.accumulator = "int32";
    d.epilogue = "requantize";
    return d;
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& inputs,
                                   const std::vector<Shape>& outputs) const override;

  const kernels::KernelTable* table = &kernels::table();
  CodesOf a, b, y;
  float multiplier;
};

class MatmulPlan final : public KernelPlan {
 public:
  MatmulPlan(const MatmulKernel& kernel, engine_detail::MatmulGeometry g)
      : kernel_(kernel),
        g_(std::move(g)),
        shape_{g_.n, g_.k, 1},
        multipliers_(static_cast<size_t>(g_.n), kernel.multiplier) {
    // The kernels multiply unsigned by signed codes; b's become signed by flipping the top bit, and
    // its zero point moves along.
    za_ = kernel.a.zero_point + (kernel.a.is_signed ? 128 : 0);
    zb_ = kernel.b.zero_point - (kernel.b.is_signed ? 0 : 128);
    b_zero_points_.assign(static_cast<size_t>(g_.n), zb_);
    const int64_t farthest_a = std::max(za_, 255 - za_);
    const int64_t farthest_b = std::max(127 - zb_, zb_ + 128);
    const int64_t fit = std::numeric_limits<int32_t>::max() / (farthest_a * farthest_b);
    pieces_ = (g_.k + fit - 1) / fit;
    shape_.k = pieces_ <= 1 ? g_.k : (g_.k + pieces_ - 1) / pieces_;
    packed_bytes_ = (kernel.table->gemm_packed_bytes(shape_) + 63) / 64 * 64;
    a_at_ = scratch_.take(
        kernel.a.is_signed ? static_cast<size_t>(g_.a_matrices * g_.m * g_.k) + kBufferSlack : 0);
    packed_at_ = scratch_.take(packed_bytes_ * static_cast<size_t>(g_.b_matrices));
    bias_at_ = scratch_.take(static_cast<size_t>(g_.b_matrices * g_.n) * 4);
    sums_at_ = scratch_.take(zb_ ? static_cast<size_t>(g_.a_matrices * g_.m) * 4 : 0);
    const size_t results = pieces_ <= 1 ? 0 : g_.a.size() * static_cast<size_t>(g_.m * g_.n);
    piece_at_ = scratch_.take(results * 4);
    total_at_ = scratch_.take(results * 8);
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    base_ = static_cast<std::byte*>(scratch);
    a_ = static_cast<const uint8_t*>(inputs[0]);
    y_ = static_cast<uint8_t*>(outputs[0]);
    if (kernel_.a.is_signed) {
      auto* flipped = reinterpret_cast<uint8_t*>(base_ + a_at_);
      flip_signs(a_, flipped, g_.a_matrices * g_.m * g_.k);
      a_ = flipped;
    }
    const auto* b = static_cast<const uint8_t*>(inputs[1]);
    if (pieces_ <= 1) return multiply(b);
    const int64_t results = static_cast<int64_t>(g_.a.size()) * g_.m * g_.n, whole = shape_.k;
    const auto* piece = reinterpret_cast<const int32_t*>(base_ + piece_at_);
    auto* total = reinterpret_cast<int64_t*>(base_ + total_at_);
    std::fill_n(total, results, 0);
    const uint8_t* a = a_;
    for (int64_t k = 0; k < g_.k; k += whole) {
      shape_.k = std::min(whole, g_.k - k);
      a_ = a + k;
      multiply(b + k * g_.n);
      parallel_ranges(results, kGrain, [&](int64_t i0, int64_t i1) {
        for (int64_t i = i0; i < i1; ++i) total[i] += piece[i];
      });
    }
    shape_.k = whole;
    parallel_ranges(results, kGrain, [&](int64_t i0, int64_t i1) {
      const CodesOf& y = kernel_.y;
      for (int64_t i = i0; i < i1; ++i)
        y_[i] = static_cast<uint8_t>(
            affine::requantize(total[i], kernel_.multiplier, y.zero_point, y.lo, y.hi));
    });
  }

 private:
  static constexpr int64_t kGrain = 1 << 16;  // bytes

  // The products of shape_.k columns of a from a_ on with as many rows of b: y, or a piece of it.
  void multiply(const uint8_t* b) {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, shape_.k * g_.n));
    parallel_ranges(g_.b_matrices, grain, [&](int64_t i0, int64_t i1) {
      for (int64_t i = i0; i < i1; ++i) pack(b, i);
    });
    if (zb_)
      parallel_ranges(g_.a_matrices * g_.m,
                      std::max<int64_t>(1, kGrain / std::max<int64_t>(1, shape_.k)),
                      [&](int64_t m0, int64_t m1) {
                        kernels::GemmArgs rows;
                        rows.shape = shape_;
                        rows.a = a_;
                        rows.lda = g_.k;
                        kernel_.table->row_sums(rows, sums(), m0, m1);
                      });
    split_matrix(static_cast<int64_t>(g_.a.size()), g_.m, g_.n, kernel_.table->gemm_mr,
                 kernel_.table->gemm_nr, shape_.k,
                 [this](int64_t product, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   kernel_.table->gemm(arguments(product), m0, m1, n0, n1);
                 });
  }

  int32_t* sums() const { return reinterpret_cast<int32_t*>(base_ + sums_at_); }
  int32_t* bias(int64_t matrix) const {
    return reinterpret_cast<int32_t*>(base_ + bias_at_) + matrix * g_.n;
  }

  void pack(const uint8_t* b, int64_t matrix) const {
    int32_t* bias_of = bias(matrix);
    kernel_.table->gemm_pack_columns(
        shape_, b + matrix * g_.k * g_.n, kernel_.b.is_signed ? 0 : 0x80,
        base_ + packed_at_ + packed_bytes_ * static_cast<size_t>(matrix), bias_of);
    // -z_a * sum(q_b) + K * z_a * z_b, wrapping as the accumulator does.
    for (int64_t n = 0; n < g_.n; ++n)
      bias_of[n] = static_cast<int32_t>(za_ * (shape_.k * zb_ - bias_of[n]));
  }

  kernels::GemmArgs arguments(int64_t product) const {
    const int64_t a = g_.a[static_cast<size_t>(product)], b = g_.b[static_cast<size_t>(product)];
    kernels::GemmArgs args;
    args.shape = shape_;
    args.a = a_ + a * g_.m * g_.k;
    args.lda = g_.k;
    args.b = base_ + packed_at_ + packed_bytes_ * static_cast<size_t>(b);
    args.c = y_ + product * g_.m * g_.n;
    if (pieces_ > 1) {
      args.c = reinterpret_cast<int32_t*>(base_ + piece_at_) + product * g_.m * g_.n;
      args.epilogue = kernels::Epilogue::int32;
    }
    args.ldc = g_.n;
    args.bias = bias(b);
    args.multiplier = multipliers_.data();
    args.zero_point = kernel_.y.zero_point;
    args.lo = kernel_.y.lo;
    args.hi = kernel_.y.hi;
    if (zb_) {
      args.row_sums = sums() + a * g_.m;
      args.b_zero_points = b_zero_points_.data();
    }
    return args;
  }

  const MatmulKernel& kernel_;
  engine_detail::MatmulGeometry g_;
  kernels::GemmShape shape_;  // of a piece
  int64_t pieces_ = 1;
  std::vector<float> multipliers_;
  std::vector<int32_t> b_zero_points_;
  int32_t za_, zb_;  // of unsigned, of signed codes
  ScratchParts scratch_;
  size_t packed_bytes_, a_at_, packed_at_, bias_at_, sums_at_, piece_at_, total_at_;
  std::byte* base_ = nullptr;
  const uint8_t* a_ = nullptr;
  uint8_t* y_ = nullptr;
};

std::unique_ptr<KernelPlan> MatmulKernel::plan(const std::vector<Shape>& inputs,
                                               const std::vector<Shape>& outputs) const {
  return std::make_unique<MatmulPlan>(
      *this, engine_detail::MatmulGeometry(inputs[0], inputs[1], outputs[0]));
}

}  // namespace

std::unique_ptr<Kernel> make_matmul(const OpSpec& spec) {
  return engine_detail::is_8_bit_matmul(spec) ? std::make_unique<MatmulKernel>(spec) : nullptr;
}

}  // namespace octet::native
