// Quantized linear: y = requantize(x * weight^T), a dense matrix product.
#include "octet/base/check_impl.h"
#include "octet/engine/native/matrix_impl.h"

namespace octet::native {
namespace {

class LinearKernel final : public Kernel {
 public:
  explicit LinearKernel(const OpSpec& spec)
      : LinearKernel(engine_detail::integer_weights(spec), spec.inputs[1].shape()[1]) {}

  std::string name() const override {
    return fmt::format("linear gemm {}x{} {}", packed_.table->gemm_mr, packed_.table->gemm_nr,
                       to_string(packed_.table->isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  size_t packed_bytes() const override { return packed_.packed.bytes(); }
  KernelDescription description() const override { return packed_.requantizing(); }
  std::vector<std::string> warnings() const override { return warnings_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& inputs,
                                   const std::vector<Shape>&) const override;

 private:
  LinearKernel(const engine_detail::IntegerWeights& weights, int64_t k)
      : warnings_(weights.warnings),
        packed_(weights, WeightRows(weights.codes, k), {weights.out_channels, k, 1}, 1) {}

  std::vector<std::string> warnings_;
  PackedWeights packed_;
};

class LinearPlan final : public KernelPlan {
 public:
  LinearPlan(const PackedWeights& w, int64_t m) : w_(w), args_(w.arguments(0)), m_(m) {
    args_.lda = w.shape.k;
    args_.ldc = w.shape.n;
    flip_bytes_ = w.flip_x ? (m * w.shape.k + kBufferSlack + 63) / 64 * 64 : 0;
    sum_bytes_ = w.weight_zero_points.empty() ? 0 : m * 4;
  }
  size_t scratch_bytes() const override { return flip_bytes_ + sum_bytes_; }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    auto* bytes = static_cast<uint8_t*>(scratch);
    args_.a = static_cast<const uint8_t*>(inputs[0]);
    if (w_.flip_x) {
      flip_signs(inputs[0], bytes, m_ * w_.shape.k);
      args_.a = bytes;
    }
    if (sum_bytes_) {
      auto* sums = reinterpret_cast<int32_t*>(bytes + flip_bytes_);
      w_.table->row_sums(args_, sums, 0, m_);
      args_.row_sums = sums;
    }
    args_.c = outputs[0];
    split_matrix(1, m_, w_.shape.n, w_.table->gemm_mr, w_.table->gemm_nr, w_.shape.k,
                 [this](int64_t, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   w_.table->gemm(args_, m0, m1, n0, n1);
                 });
    w_.wide.run(1, m_, w_.x_zero_point, [&](int64_t, int64_t) { return args_; });
  }

 private:
  const PackedWeights& w_;
  kernels::GemmArgs args_;
  int64_t m_;
  size_t flip_bytes_ = 0, sum_bytes_ = 0;
};

std::unique_ptr<KernelPlan> LinearKernel::plan(const std::vector<Shape>& inputs,
                                               const std::vector<Shape>&) const {
  return std::make_unique<LinearPlan>(packed_,
                                      numel(inputs[0]) / std::max<int64_t>(1, packed_.shape.k));
}

}  // namespace

std::unique_ptr<Kernel> make_linear(const OpSpec& spec) {
  if (!engine_detail::is_8_bit_call(spec)) return nullptr;
  return std::make_unique<LinearKernel>(spec);
}

}  // namespace octet::native
