#include "octet/engine/native/winograd_impl.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace octet::native {
namespace {

using engine_detail::IntegerWeights;
using engine_detail::WeightCodes;

constexpr int64_t kSide = 4;  // results of a tile in each direction

// All sums of (q_x - 128) * q_w over a part of x's channels are within -2^25 .. 2^25 - 1.
bool sums_fit(const WeightCodes& weights, int64_t channels) {
  const int64_t part = kernels::winograd_part(channels) * 9, length = channels * 9;
  for (int64_t n = 0; n < weights.out_channels; ++n)
    for (int64_t first = 0; first < length; first += part) {
      int64_t sum = 0;
      for (int64_t i = first; i < std::min(length, first + part); ++i)
        sum += std::abs(weights.codes[n * length + i]);
      if (sum * 128 >= int64_t{1} << 25) return false;
    }
  return true;
}

struct WinogradWeights {
  const PackedWeights& packed;  // beside them
  Window window;
  Buffer weights;
  std::vector<int32_t> bias;  // of sums of codes less 128

  // Empty weights.
  WinogradWeights(const PackedWeights& beside, const Window& w) : packed(beside), window(w) {}

  void pack(const IntegerWeights& from) {
    const kernels::KernelTable& table = *packed.table;
    const int64_t n = packed.shape.n, k = packed.shape.k,
                  panels = (n + table.gemm_nr - 1) / table.gemm_nr;
    weights = allocate_lasting(table.winograd_packed_bytes(k, n));
    const WeightRows rows(from, packed.shape, false);
    parallel_ranges(panels, (1 << 16) / (k * table.gemm_nr) + 1, [&](int64_t p0, int64_t p1) {
      std::vector<int8_t> room;
      for (int64_t p = p0; p < p1; ++p) {
        const int64_t n0 = p * table.gemm_nr, n1 = std::min(n, n0 + table.gemm_nr);
        table.winograd_pack(k, n, rows.get(table, n0, n1, room), n0, n1, weights.data());
      }
    });
    for (int64_t i = 0; i < n; ++i)
      bias.push_back(static_cast<int32_t>(packed.bias[i] + 128 * int64_t{packed.weight_sums[i]}));
  }
};

class WinogradPlan final : public KernelPlan {
 public:
  WinogradPlan(const WinogradWeights& w, const ConvShape& s)
      : w_(w), s_(s), tiles_(winograd_tiles(s.images, s.oh, s.ow, w.window, kSide)) {
    pad_ = Buffer::allocate(s.c);
    std::memset(pad_.data(), w.packed.x_zero_point ^ (w.packed.flip_x ? 0x80 : 0), s.c);
    scratch_ = (w.packed.table->winograd_scratch_bytes(s.c) + 63) / 64 * 64;
    const kernels::GemmShape& shape = w.packed.shape;
    const int64_t tiles = std::ssize(tiles_);
    parts_ =
        winograd_parts(tiles, shape.n, 2 * w.packed.table->gemm_nr,
                       worthwhile_tasks(tiles * kSide * kSide, shape.n * shape.k * shape.taps));
  }
  size_t scratch_bytes() const override { return scratch_ * parts_.count(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    kernels::WinogradArgs a;
    a.finish = w_.packed.arguments(0);
    a.finish.bias = w_.bias.data();
    a.finish.c = outputs[0];
    a.finish.ldc = s_.oc;
    a.channels = s_.c;
    a.a = static_cast<const uint8_t*>(inputs[0]);
    a.flip = w_.packed.flip_x ? 0 : 0x80;
    a.h = s_.h, a.w = s_.w, a.oh = s_.oh, a.ow = s_.ow;
    a.top = w_.window.ph, a.left = w_.window.pw;
    a.dilation_h = w_.window.dh, a.dilation_w = w_.window.dw;
    a.pad = reinterpret_cast<const uint8_t*>(pad_.data());
    a.weights = w_.weights.data();
    a.tiles = tiles_.data();
    parts_.for_each([&](int64_t part, int64_t t0, int64_t t1, int64_t n0, int64_t n1) {
      w_.packed.table->winograd(a, static_cast<char*>(scratch) + part * scratch_, t0, t1, n0, n1);
    });
  }

 private:
  const WinogradWeights& w_;
  ConvShape s_;
  std::vector<kernels::WinogradTile> tiles_;
  Buffer pad_;
  WinogradParts parts_;
  size_t scratch_ = 0;  // of a part
};

// One image of the sizes that are known; others are large.
ConvShape expected_shape(const OpSpec& spec) {
  constexpr int64_t kLarge = 1024;
  const auto dims = [](const TensorType& t) {
    Shape shape{1};
    for (size_t i = 1; i < t.dims.size(); ++i)
      shape.push_back(t.dims[i].known() ? t.dims[i].size() : kLarge);
    return shape;
  };
  return conv_shape({dims(spec.inputs[0])}, {dims(spec.outputs[0])});
}

class WinogradConvolution final : public Winograd {
 public:
  WinogradConvolution(const PackedWeights& packed, const Window& window) : w_(packed, window) {}
  void pack(const IntegerWeights& weights) { w_.pack(weights); }

  // In multiply-adds of the matrix product that would do the same.
  bool worthwhile(const ConvShape& s) const override {
    // What is expected to take this part of the product's time is worth its weights' memory.
    constexpr double kGain = 0.85;
    constexpr double kPlanes = 36;  // matrices of transformed weights, of 16 bits
    const kernels::KernelTable& table = *w_.packed.table;
    static const bool wide = cpu_supports(Isa::avxvnni);
    const kernels::WinogradCost& cost = wide ? table.wide_winograd_cost : table.winograd_cost;
    const auto count = [](int64_t size, int64_t dilation) {
      return static_cast<double>(engine_detail::tile_starts(size, dilation, kSide).size());
    };
    const auto c = static_cast<double>(s.c), oc = static_cast<double>(s.oc),
               images = static_cast<double>(s.images);
    const double tiles = images * count(s.oh, w_.window.dh) * count(s.ow, w_.window.dw),
                 products = kPlanes * c * oc * std::max(tiles * cost.product, 2 * cost.weight_byte),
                 transforms = tiles * (cost.x * c + cost.y * oc),
                 direct = 9 * c * oc * images * static_cast<double>(s.pixels());
    return products + transforms < kGain * direct;
  }
  std::unique_ptr<KernelPlan> plan(const ConvShape& s) const override {
    return std::make_unique<WinogradPlan>(w_, s);
  }
  size_t packed_bytes() const override { return w_.weights.bytes(); }
  KernelDescription description() const override {
    KernelDescription d = w_.packed.requantizing();
    d.loop = fmt::format("winograd_s16_{}", to_string(w_.packed.table->isa));
    return d;
  }

 private:
  WinogradWeights w_;
};

}  // namespace

std::vector<kernels::WinogradTile> winograd_tiles(int64_t images, int64_t oh, int64_t ow,
                                                  const Window& window, int64_t side) {
  std::vector<kernels::WinogradTile> tiles;
  const std::vector<int32_t> ys = engine_detail::tile_starts(oh, window.dh, side),
                             xs = engine_detail::tile_starts(ow, window.dw, side);
  for (int64_t image = 0; image < images; ++image)
    for (const int32_t y : ys)
      for (const int32_t x : xs) tiles.push_back({static_cast<int32_t>(image), y, x});
  return tiles;
}

WinogradParts winograd_parts(int64_t tiles, int64_t n, int64_t columns, int64_t worth) {
  constexpr int64_t kTilesThatHideWeights = 24;
  WinogradParts p{tiles, n, columns};
  const int64_t parts = std::clamp<int64_t>(worth, 1, num_threads());
  p.by_tiles = std::clamp<int64_t>(tiles / kTilesThatHideWeights, 1, parts);
  p.by_columns = std::min(parts / p.by_tiles, (n + columns - 1) / columns);
  p.by_tiles = std::max<int64_t>(1, std::min(parts / p.by_columns, tiles));
  return p;
}

std::unique_ptr<const Winograd> make_winograd(const OpSpec& spec, const IntegerWeights& weights,
                                              const PackedWeights& packed) {
  if (!packed.table->winograd || spec.transposed || packed.groups != 1 || packed.shape.n == 0 ||
      weights.any_zero_point || packed.wide.channels() != 0 || spec.inputs[1].dim() != 4)
    return nullptr;
  const Window window = engine_detail::conv_window(spec);
  if (window.kh != 3 || window.kw != 3 || window.sh != 1 || window.sw != 1 ||
      !sums_fit(weights, packed.shape.k))
    return nullptr;
  auto w = std::make_unique<WinogradConvolution>(packed, window);
  if (!w->worthwhile(expected_shape(spec))) return nullptr;
  w->pack(weights);
  return w;
}

}  // namespace octet::native
