// Pools on NHWC codes: maxima keep qparams, averages are requantized sums.
#include <cstring>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/native/native_impl.h"
#include "octet/engine/pool_taps_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::native {
namespace {

class PoolPlan final : public KernelPlan {
 public:
  PoolPlan(const OpSpec& spec, bool max, const kernels::KernelTable& table, const Shape& in,
           const Shape& out)
      : max_(max),
        table_(table),
        images_(in[0]),
        element_bytes_(static_cast<int64_t>(element_size(spec.inputs[0].dtype))),
        in_bytes_(in[1] * in[2] * in[3] * element_bytes_),
        pixels_(out[2] * out[3]) {
    const Quantizer &qx = *spec.inputs[0].quantizer, &qy = *spec.outputs[0].quantizer;
    args_.channels = in[1];
    args_.ldy = in[1];
    args_.is_signed = qmin(spec.inputs[0].dtype) < 0;
    args_.zx = static_cast<int32_t>(qx.zero_point());
    args_.zero_point = static_cast<int32_t>(qy.zero_point());
    args_.lo = static_cast<int32_t>(qmin(spec.outputs[0].dtype));
    args_.hi = static_cast<int32_t>(qmax(spec.outputs[0].dtype));
    engine_detail::PoolTaps taps = engine_detail::pool_taps(spec, engine_detail::with_3_spatial(in),
                                                            engine_detail::with_3_spatial(out));
    args_.taps = taps.taps;
    offsets_ = std::move(taps.offsets);
    args_.offsets = offsets_.data();
    float sx = static_cast<float>(qx.scale()), sy = static_cast<float>(qy.scale());
    bool same = qx == qy;
    for (int64_t count : taps.counts) {
      float inverse = 1.0f / static_cast<float>(count);
      multiplier_.push_back(same ? inverse : sx * inverse / sy);
    }
    args_.multiplier = multiplier_.data();
    const int64_t most_code = element_bytes_ == 1 ? 255 : 65535;
    wide_ = !max && args_.taps > std::numeric_limits<int32_t>::max() / most_code;
  }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    int64_t out_bytes = pixels_ * args_.channels * element_bytes_;
    const auto pool = element_bytes_ == 1 ? (max_ ? table_.max_pool : table_.average_pool)
                                          : (max_ ? table_.max_pool16 : table_.average_pool16);
    int64_t grain =
        std::max<int64_t>(1, 400'000 / std::max<int64_t>(1, args_.channels * args_.taps));
    for (int64_t image = 0; image < images_; ++image) {
      kernels::PoolArgs a = args_;
      a.a = static_cast<const uint8_t*>(inputs[0]) + image * in_bytes_;
      a.y = static_cast<uint8_t*>(outputs[0]) + image * out_bytes;
      parallel_ranges(pixels_, grain, [&](int64_t p0, int64_t p1) {
        if (wide_)
          average_wide(a, element_bytes_, p0, p1);
        else
          pool(a, p0, p1);
      });
    }
  }

 private:
  static int32_t code(const kernels::PoolArgs& a, int64_t bytes, int64_t i) {
    if (bytes == 1)
      return a.is_signed ? static_cast<const int8_t*>(a.a)[i] : static_cast<const uint8_t*>(a.a)[i];
    return a.is_signed ? static_cast<const int16_t*>(a.a)[i] : static_cast<const uint16_t*>(a.a)[i];
  }

  // What table_.average_pool does, with sums of 64 bits.
  static void average_wide(const kernels::PoolArgs& a, int64_t bytes, int64_t p0, int64_t p1) {
    for (int64_t p = p0; p < p1; ++p)
      for (int64_t c = 0; c < a.channels; ++c) {
        int64_t sum = 0;
        for (int64_t t = p * a.taps; t < (p + 1) * a.taps; ++t) {
          if (a.offsets[t] < 0) continue;
          sum += code(a, bytes, a.offsets[t] + c) - a.zx;
        }
        const int32_t q = affine::requantize(sum, a.multiplier[p], a.zero_point, a.lo, a.hi);
        if (bytes == 1)
          static_cast<uint8_t*>(a.y)[p * a.ldy + c] = static_cast<uint8_t>(q);
        else
          static_cast<uint16_t*>(a.y)[p * a.ldy + c] = static_cast<uint16_t>(q);
      }
  }

  bool max_;
  const kernels::KernelTable& table_;
  kernels::PoolArgs args_;
  int64_t images_, element_bytes_, in_bytes_, pixels_;
  std::vector<int32_t> offsets_;
  std::vector<float> multiplier_;
  bool wide_ = false;  // a window's sum can leave int32
};

class PoolKernel final : public Kernel {
 public:
  PoolKernel(OpSpec spec, bool max)
      : spec_(std::move(spec)), max_(max), table_(&kernels::table()) {}
  std::string name() const override {
    return fmt::format("{} {}", spec_.op, to_string(table_->isa));
  }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    if (max_) return described(KernelDescription::Arithmetic::moves);
    KernelDescription d = described(KernelDescription::Arithmetic::integers, kToCodes);
    d.accumulator = "int32, or int64 where so many codes need it";
    d.epilogue = "f(1/count), requantize";
    return d;
  }
  Layout input_layout(size_t) const override { return Layout::channels_last; }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<PoolPlan>(spec_, max_, *table_, in[0], out[0]);
  }

 private:
  OpSpec spec_;
  bool max_;
  const kernels::KernelTable* table_;
};

}  // namespace

std::unique_ptr<Kernel> make_pool(const OpSpec& spec) {
  const bool max = spec.selects;
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  if (!codes_per_tensor(x) || x.dtype != y.dtype || x.dim() != 4) return nullptr;
  if (max && *x.quantizer != *y.quantizer) return nullptr;
  return std::make_unique<PoolKernel>(spec, max);
}

}  // namespace octet::native
