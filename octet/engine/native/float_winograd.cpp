// 3x3 convolutions of floats by Winograd's F(2x2, 3x3) (kernels/float_winograd_impl.h).
#include "octet/engine/native/schedule_impl.h"
#include "octet/engine/native/winograd_impl.h"

namespace octet::native {
namespace {

struct FloatWinogradLayer {
  const kernels::KernelTable* table = &kernels::table();
  Window window;
  int64_t channels, n;
  std::vector<float> bias;  // empty: none
  FloatRange range;
  Buffer weights;

  FloatWinogradLayer(const Window& w, const Tensor& weight, const std::vector<float>& b,
                     const FloatRange& r)
      : window(w), channels(weight.size(1)), n(weight.size(0)), bias(b), range(r) {
    weights = allocate_lasting(table->float_winograd_packed_bytes(channels, n));
    const auto* from = static_cast<const float*>(weight.raw_data());
    const int64_t columns = 2 * table->float_gemm_nr, groups = (n + columns - 1) / columns;
    parallel_ranges(groups, (1 << 13) / (channels * columns) + 1, [&](int64_t g0, int64_t g1) {
      const int64_t n0 = g0 * columns, n1 = std::min(n, g1 * columns);
      table->float_winograd_pack(channels, n, from + n0 * channels * 9, n0, n1,
                                 reinterpret_cast<float*>(weights.data()));
    });
  }
};

class FloatWinogradPlan final : public KernelPlan {
 public:
  FloatWinogradPlan(const FloatWinogradLayer& layer, const ConvShape& s)
      : layer_(layer),
        s_(s),
        tiles_(winograd_tiles(s.images, s.oh, s.ow, layer.window, engine_detail::kFloatTile)),
        zeros_(static_cast<size_t>(layer.channels)),
        scratch_((layer.table->float_winograd_scratch_bytes(layer.channels) + 63) / 64 * 64) {
    constexpr int64_t kProductsOfTile = 16;
    parts_ = winograd_parts(std::ssize(tiles_), layer.n, 2 * layer.table->float_gemm_nr,
                            worthwhile_tasks(std::ssize(tiles_) * kProductsOfTile,
                                             layer.n * layer.channels * kFloatWork));
  }
  size_t scratch_bytes() const override { return scratch_ * static_cast<size_t>(parts_.count()); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    kernels::FloatWinogradArgs a;
    a.channels = layer_.channels;
    a.n = layer_.n;
    a.h = s_.h, a.w = s_.w, a.oh = s_.oh, a.ow = s_.ow;
    a.top = layer_.window.ph, a.left = layer_.window.pw;
    a.dilation_h = layer_.window.dh, a.dilation_w = layer_.window.dw;
    a.tiles = tiles_.data();
    a.a = static_cast<const float*>(inputs[0]);
    a.pad = zeros_.data();
    a.weights = reinterpret_cast<const float*>(layer_.weights.data());
    a.c = static_cast<float*>(outputs[0]);
    a.ldc = layer_.n;
    if (!layer_.bias.empty()) a.bias = layer_.bias.data();
    a.lo = layer_.range.lo;
    a.hi = layer_.range.hi;
    parts_.for_each([&](int64_t part, int64_t t0, int64_t t1, int64_t n0, int64_t n1) {
      layer_.table->float_winograd(
          a, static_cast<std::byte*>(scratch) + part * static_cast<int64_t>(scratch_), t0, t1, n0,
          n1);
    });
  }

 private:
  const FloatWinogradLayer& layer_;
  ConvShape s_;
  std::vector<kernels::WinogradTile> tiles_;
  std::vector<float> zeros_;
  size_t scratch_;  // bytes of a part
  WinogradParts parts_;
};

class FloatWinogradConvolution final : public FloatWinograd {
 public:
  explicit FloatWinogradConvolution(FloatWinogradLayer layer) : layer_(std::move(layer)) {}
  std::unique_ptr<KernelPlan> plan(const ConvShape& s) const override {
    return std::make_unique<FloatWinogradPlan>(layer_, s);
  }
  size_t packed_bytes() const override { return layer_.weights.bytes(); }

 private:
  FloatWinogradLayer layer_;
};

}  // namespace

std::unique_ptr<const FloatWinograd> make_float_winograd(const Window& window, const Tensor& weight,
                                                         const std::vector<float>& bias,
                                                         const FloatRange& range) {
  return std::make_unique<FloatWinogradConvolution>(
      FloatWinogradLayer(window, weight, bias, range));
}

}  // namespace octet::native
