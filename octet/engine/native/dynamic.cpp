// Dynamic quantization: float32 in and out, codes in between. The input's range is measured, its
// values become quint8 codes in scratch memory, and the matrix product writes y = f(f(f(acc) *
// f(s_x*s_w)) + bias) straight from its accumulators.
#include <algorithm>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/engine/native/dynamic_impl.h"
#include "octet/engine/run_time_codes_impl.h"

namespace octet::native {
namespace {

using engine_detail::WeightCodes;
using engine_detail::Window3;

// `m` rows per image and group: the pixels of an image, or the rows of a linear layer's input (one
// image).
class DynamicPlan final : public KernelPlan {
 public:
  DynamicPlan(const DynamicWeights& w, engine_detail::TapOffsets offsets, int64_t images,
              int64_t image_size, int64_t m)
      : w_(w), offsets_(std::move(offsets)), images_(images), image_size_(image_size), m_(m) {
    codes_at_ = scratch_.take(images * image_size + kBufferSlack);
    pad_at_ = scratch_.take(w.packed.shape.k + kBufferSlack);
    bias_at_ = scratch_.take(w.out_channels() * 4);
    multiplier_at_ = scratch_.take(w.out_channels() * 4);
    sums_at_ =
        scratch_.take(w.packed.weight_zero_points.empty() ? 0 : images * w.packed.groups * m * 4);
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const kernels::KernelTable& table = *w_.packed.table;
    base_ = static_cast<uint8_t*>(scratch);
    y_ = static_cast<float*>(outputs[0]);
    const affine::RunTimeQParams q = to_codes(inputs[0]);
    std::memset(base_ + pad_at_, q.zero_point, w_.packed.shape.k);
    auto* bias = reinterpret_cast<int32_t*>(base_ + bias_at_);
    auto* multiplier = reinterpret_cast<float*>(base_ + multiplier_at_);
    table.dynamic_terms(q.zero_point, static_cast<float>(q.scale), w_.sums.data(),
                        w_.packed.multiplier.data(), bias, multiplier, w_.out_channels());
    const int64_t jobs = images_ * w_.packed.groups;
    if (!w_.packed.weight_zero_points.empty())
      parallel_for(jobs, [&](int64_t i) { table.row_sums(arguments(i), row_sums(i), 0, m_); });
    split_matrix(jobs, m_, w_.packed.shape.n, table.gemm_mr, table.gemm_nr,
                 w_.packed.shape.k * w_.packed.shape.taps,
                 [this](int64_t i, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   w_.packed.gemm(arguments(i), m0, m1, n0, n1);
                 });
    w_.packed.wide.run(images_, m_, q.zero_point, [&](int64_t image, int64_t group) {
      return arguments(image * w_.packed.groups + group);
    });
    if (w_.activation == "relu6")
      parallel_ranges(images_ * m_ * w_.out_channels(), kGrain, [&](int64_t i0, int64_t i1) {
        for (int64_t i = i0; i < i1; ++i) y_[i] = std::min(y_[i], 6.0f);
      });
  }

 private:
  static constexpr int64_t kGrain = 1 << 16;

  // Puts the operand's codes where codes_ says.
  affine::RunTimeQParams to_codes(const void* x) {
    uint8_t* made = base_ + codes_at_;
    codes_ = made;
    const int64_t n = images_ * image_size_;
    if (!w_.x_codes)
      return engine_detail::quantize_at_run_time(*w_.packed.table, static_cast<const float*>(x), n,
                                                 w_.rule, w_.label, made);
    if (w_.flip_x)
      flip_signs(x, made, n);
    else
      codes_ = static_cast<const uint8_t*>(x);
    return *w_.x_codes;
  }

  int32_t* row_sums(int64_t i) const {
    return reinterpret_cast<int32_t*>(base_ + sums_at_) + i * m_;
  }

  // Of image i / groups and group i % groups.
  kernels::GemmArgs arguments(int64_t i) const {
    const PackedWeights& p = w_.packed;
    const int64_t image = i / p.groups, group = i % p.groups, first = group * p.shape.n;
    kernels::GemmArgs a = p.arguments(group);
    a.epilogue = kernels::Epilogue::dynamic;
    a.a = codes_ + image * image_size_ + group * p.shape.k;
    a.lda = p.groups * p.shape.k;
    a.ldc = w_.out_channels();
    a.c = y_ + image * m_ * a.ldc + first;
    a.bias = reinterpret_cast<const int32_t*>(base_ + bias_at_) + first;
    a.multiplier = reinterpret_cast<const float*>(base_ + multiplier_at_) + first;
    a.float_bias = w_.bias.empty() ? nullptr : w_.bias.data() + first;
    a.relu = w_.activation != "none";
    if (!offsets_.empty()) {
      a.offsets = offsets_.data();
      a.pad = base_ + pad_at_;
    }
    if (!p.weight_zero_points.empty()) a.row_sums = row_sums(i);
    return a;
  }

  const DynamicWeights& w_;
  engine_detail::TapOffsets offsets_;
  int64_t images_, image_size_, m_;
  ScratchParts scratch_;
  size_t codes_at_, pad_at_, bias_at_, multiplier_at_, sums_at_;
  uint8_t* base_ = nullptr;
  const uint8_t* codes_ = nullptr;
  float* y_ = nullptr;
};

class DynamicKernel : public Kernel {
 public:
  DynamicKernel(const OpSpec& spec, const WeightCodes& codes, const WeightRows& rows,
                const kernels::GemmShape& shape, int64_t groups)
      : op_(spec.op), weights_(spec, codes, rows, shape, groups) {}
  std::string name() const override {
    const kernels::KernelTable& t = *weights_.packed.table;
    return fmt::format("{} gemm{} {}x{} {}", op_, weights_.packed.four_bit ? "4" : "", t.gemm_mr,
                       t.gemm_nr, to_string(t.isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  size_t packed_bytes() const override { return weights_.packed.packed.bytes(); }
  KernelDescription description() const override { return weights_.description(); }

 protected:
  std::string op_;
  DynamicWeights weights_;
};

class DynamicLinear final : public DynamicKernel {
 public:
  using DynamicKernel::DynamicKernel;
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    const int64_t k = weights_.packed.shape.k, m = k ? numel(in[0]) / k : 0;
    return std::make_unique<DynamicPlan>(weights_, engine_detail::TapOffsets(), 1, m * k, m);
  }
};

class DynamicConv final : public DynamicKernel {
 public:
  DynamicConv(const OpSpec& spec, const WeightCodes& codes)
      : DynamicKernel(spec, codes, WeightRows(codes, conv_gemm_shape(codes, spec), spec.transposed),
                      conv_gemm_shape(codes, spec), spec.attrs.get_int("groups")),
        window_(engine_detail::conv_window3(spec)),
        transposed_(spec.transposed) {}
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::row_major;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<DynamicPlan>(
        weights_, conv_offsets(window_, transposed_, in[0], out[0]), in[0][0],
        in[0][1] * in[0][2] * in[0][3], out[0][2] * out[0][3]);
  }

 private:
  Window3 window_;
  bool transposed_;
};

}  // namespace

std::unique_ptr<Kernel> make_dynamic(const OpSpec& spec) {
  if (!engine_detail::is_dynamic_call(spec)) return nullptr;
  WeightCodes codes = engine_detail::weight_codes(spec);
  if (codes.codes.empty()) return nullptr;
  if (spec.layer != "linear") return std::make_unique<DynamicConv>(spec, codes);
  codes.narrow();
  const kernels::GemmShape shape{codes.out_channels, spec.inputs[1].shape()[1], 1};
  return std::make_unique<DynamicLinear>(spec, codes, WeightRows(codes.codes, shape.k), shape, 1);
}

}  // namespace octet::native
