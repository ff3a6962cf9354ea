// Float pools of two and three spatial dimensions, on images whose channels lie together.
#include "octet/engine/geometry_impl.h"
#include "octet/engine/native/float_impl.h"
#include "octet/engine/pool_taps_impl.h"
#include "octet/engine/reorder.h"

namespace octet::native {
namespace {

class FloatPoolPlan final : public KernelPlan {
 public:
  FloatPoolPlan(const OpSpec& spec, bool max, const kernels::KernelTable& table, const Shape& in,
                const Shape& out)
      : kernel_(max ? table.float_max_pool : table.float_average_pool),
        images_(in[0]),
        in_floats_(numel(in) / std::max<int64_t>(1, in[0])),
        pixels_(numel(out) / std::max<int64_t>(1, out[0] * out[1])) {
    const Shape x = engine_detail::with_3_spatial(in), y = engine_detail::with_3_spatial(out);
    engine_detail::PoolTaps taps = engine_detail::pool_taps(spec, x, y);
    args_.channels = args_.ldy = in[1];
    args_.taps = taps.taps;
    offsets_ = std::move(taps.offsets);
    counts_.assign(taps.counts.begin(), taps.counts.end());
    args_.offsets = offsets_.data();
    args_.counts = counts_.data();
    if (in.size() == 5) {  // row-major images become pixels and back
      to_pixels_ = plan_reorder({x[0], x[1], 1, x[2] * x[3] * x[4]}, sizeof(float), true);
      from_pixels_ = plan_reorder({y[0], y[1], 1, pixels_}, sizeof(float), false);
      in_at_ = scratch_.take(static_cast<size_t>(numel(in)) * sizeof(float) + kBufferSlack);
      out_at_ = scratch_.take(static_cast<size_t>(numel(out)) * sizeof(float) + kBufferSlack);
    }
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    auto* base = static_cast<std::byte*>(scratch);
    const auto* x = static_cast<const float*>(inputs[0]);
    auto* y = static_cast<float*>(outputs[0]);
    if (to_pixels_) {
      to_pixels_->run(inputs, std::array<void*, 1>{base + in_at_}, nullptr);
      x = reinterpret_cast<const float*>(base + in_at_);
      y = reinterpret_cast<float*>(base + out_at_);
    }
    const int64_t work = std::max<int64_t>(1, args_.channels * args_.taps),
                  grain = 100'000 / work + 1;
    for (int64_t image = 0; image < images_; ++image) {
      kernels::FloatPoolArgs a = args_;
      a.a = x + image * in_floats_;
      a.y = y + image * pixels_ * args_.channels;
      parallel_ranges(pixels_, grain, [&](int64_t p0, int64_t p1) { kernel_(a, p0, p1); });
    }
    if (from_pixels_) from_pixels_->run(std::array<const void*, 1>{y}, outputs, nullptr);
  }

 private:
  void (*kernel_)(const kernels::FloatPoolArgs&, int64_t, int64_t);
  kernels::FloatPoolArgs args_;
  int64_t images_, in_floats_, pixels_;
  std::vector<int32_t> offsets_;
  std::vector<float> counts_;
  std::unique_ptr<KernelPlan> to_pixels_, from_pixels_;
  ScratchParts scratch_;
  size_t in_at_ = 0, out_at_ = 0;
};

class FloatPoolKernel final : public Kernel {
 public:
  FloatPoolKernel(OpSpec spec, bool max) : spec_(std::move(spec)), max_(max) {}
  std::string name() const override {
    return fmt::format("{} floats {}", spec_.op, to_string(table_->isa));
  }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::floats);
  }
  Layout input_layout(size_t) const override { return layout(); }
  Layout output_layout(size_t) const override { return layout(); }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<FloatPoolPlan>(spec_, max_, *table_, in[0], out[0]);
  }

 private:
  Layout layout() const {
    return spec_.inputs[0].dim() == 4 ? Layout::channels_last : Layout::row_major;
  }
  OpSpec spec_;
  bool max_;
  const kernels::KernelTable* table_ = &kernels::table();
};

}  // namespace

std::unique_ptr<Kernel> make_float_pool(const OpSpec& spec) {
  if (!is_float(spec)) return nullptr;
  if (spec.inputs[0].dim() != 4 && spec.inputs[0].dim() != 5) return nullptr;
  return std::make_unique<FloatPoolKernel>(spec, spec.selects);
}

}  // namespace octet::native
