// Layers whose activations have 16 bits, on the kernels for 8: a code is 256 * high + low, so two
// products of bytes with the weights, each summed exactly in int32, make the exact sum. x is cut
// into a plane of upper bytes and one of lower ones; the two sums of a block of results meet in
// double, where they are exact, and become codes of 8 or 16 bits. x of 8 bits with a result of 16
// is one plane.
#include <cmath>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/engine/native/image_impl.h"
#include "octet/engine/native/matrix_impl.h"

namespace octet::native {
namespace {

using engine_detail::IntegerWeights;
using engine_detail::Window;

// What the results need besides products of planes.
struct WideTerms {
  std::vector<double> offsets;  // bias - z_x * sum(q_w - z_w) by output channel
  std::vector<float> multiplier;
  int32_t x_zero_point = 0;  // of unsigned codes
  bool wide_x = false, flip = false;
  int32_t y_zero_point = 0, lo = 0, hi = 0;
  bool wide_y = false;

  explicit WideTerms(const IntegerWeights& w)
      : multiplier(w.multiplier),
        x_zero_point(w.unsigned_zero_point()),
        wide_x(is_16_bit(w.x_dtype)),
        flip(qmin(w.x_dtype) < 0),
        y_zero_point(w.y_zero_point),
        lo(w.lo),
        hi(w.hi),
        wide_y(is_16_bit(w.y_dtype)) {}
  // `sum` is that of a channel's q_w - z_w.
  void add_offset(const IntegerWeights& w, int64_t sum) {
    offsets.push_back(static_cast<double>(w.bias[offsets.size()] - int64_t{x_zero_point} * sum));
  }
  kernels::JoinCodesArgs arguments(int64_t channel) const {
    kernels::JoinCodesArgs a;
    a.offsets = offsets.data() + channel;
    a.multiplier = multiplier.data() + channel;
    a.zero_point = y_zero_point;
    a.lo = lo;
    a.hi = hi;
    a.wide = wide_y;
    return a;
  }
  // The bytes that padding has in each plane.
  uint8_t high_pad() const { return static_cast<uint8_t>(x_zero_point >> 8); }
  uint8_t low_pad() const { return static_cast<uint8_t>(x_zero_point); }
  KernelDescription description(KernelDescription d) const {
    if (wide_x) d.accumulator = "int32, two planes of bytes joined in double";
    d.epilogue = fmt::format("bias, requantize, codes {}..{}", lo, hi);
    d.rounding = kToCodes;
    return d;
  }
};

// Whether this file computes a call exactly: products of bytes fit int32, all terms 52 bits.
bool fits_planes(const OpSpec& spec) {
  return engine_detail::is_integer_call(spec) && is_8_bit(spec.inputs[1].dtype) &&
         !engine_detail::is_8_bit_call(spec);
}
bool sums_fit(const IntegerWeights& w) {
  const int64_t products = w.out_channels ? w.count() / w.out_channels : 0;
  for (int64_t n = 0; n < w.out_channels; ++n) {
    const int64_t z = w.zero_points[n], farthest = std::max<int64_t>(127 - z, z + 128);
    if (products * 255 * farthest > std::numeric_limits<int32_t>::max()) return false;
    if (std::abs(w.bias[n]) >= int64_t{1} << 51 || !std::isfinite(w.multiplier[n])) return false;
  }
  return true;
}

// The weights as products of planes see them: without bias and without x's zero point.
IntegerWeights of_planes(const IntegerWeights& w) {
  IntegerWeights plain = w;
  plain.bias.assign(w.bias.size(), 0);
  plain.x_zero_point = 0;
  plain.x_signed = false;
  plain.wide.clear();
  return plain;
}

void split(const kernels::KernelTable& table, const WideTerms& t, const void* x, int64_t n,
           uint8_t* high, uint8_t* low) {
  parallel_ranges(n, 1 << 16, [&](int64_t i0, int64_t i1) {
    table.split_codes(static_cast<const uint16_t*>(x) + i0, i1 - i0, t.flip ? 0x8000 : 0, high + i0,
                      low + i0);
  });
}

// -- matrix products ------------------------------------------------------------------------------

struct WideWeights {
  WideTerms terms;
  PackedWeights packed;
  WideWeights(const IntegerWeights& w, const WeightRows& rows, const kernels::GemmShape& s,
              int64_t groups)
      : terms(w), packed(of_planes(w), rows, s, groups) {
    for (int64_t n = 0; n < w.out_channels; ++n)
      terms.add_offset(w, packed.weight_sums[n] - s.taps * s.k * w.zero_points[n]);
  }
};

class WidePlan final : public KernelPlan {
 public:
  // No offsets: rows of x are multiplied as they lie.
  WidePlan(const WideWeights& w, engine_detail::TapOffsets offsets, const ConvShape& s)
      : w_(w),
        s_(s),
        dense_(offsets.empty()),
        offsets_(std::move(offsets)),
        m_(s.pixels()),
        total_(s.images * s.h * s.w * s.c),
        image_(s.h * s.w * s.c) {
    if (!dense_) {
      for (const uint8_t byte : {w.terms.high_pad(), w.terms.low_pad()}) {
        pads_.push_back(Buffer::allocate(static_cast<size_t>(w.packed.shape.k) + kBufferSlack));
        std::memset(pads_.back().data(), byte, static_cast<size_t>(w.packed.shape.k));
      }
    } else if (w.packed.groups == 1) {  // one product over all images
      m_ *= s_.images;
      s_.images = 1;
    }
    plane_bytes_ = (static_cast<size_t>(total_) + kBufferSlack + 63) / 64 * 64;
  }
  size_t scratch_bytes() const override {
    return w_.terms.wide_x ? 2 * plane_bytes_ : w_.terms.flip ? plane_bytes_ : 0;
  }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    auto* bytes = static_cast<uint8_t*>(scratch);
    high_ = nullptr;
    low_ = static_cast<const uint8_t*>(inputs[0]);
    if (w_.terms.wide_x) {
      split(*w_.packed.table, w_.terms, inputs[0], total_, bytes, bytes + plane_bytes_);
      high_ = bytes;
      low_ = bytes + plane_bytes_;
    } else if (w_.terms.flip) {
      flip_signs(low_, bytes, total_);
      low_ = bytes;
    }
    y_ = static_cast<std::byte*>(outputs[0]);
    const kernels::GemmShape& s = w_.packed.shape;
    split_matrix(s_.images * w_.packed.groups, m_, s.n, w_.packed.table->gemm_mr,
                 w_.packed.table->gemm_nr, (high_ ? 2 : 1) * s.k * s.taps,
                 [this](int64_t i, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   for (int64_t n = n0; n < n1; n += kColumns)
                     for (int64_t m = m0; m < m1; m += kRows)
                       block(i, m, std::min(m1, m + kRows), n, std::min(n1, n + kColumns));
                 });
  }

 private:
  static constexpr int64_t kRows = 24, kColumns = 128;  // of a block whose sums wait in the cache

  void block(int64_t i, int64_t m0, int64_t m1, int64_t n0, int64_t n1) const {
    alignas(64) int32_t high[kRows * kColumns], low[kRows * kColumns];
    if (high_) multiply(i, m0, m1, n0, n1, high_, 0, high);
    multiply(i, m0, m1, n0, n1, low_, 1, low);
    const int64_t group = i % w_.packed.groups, channel = group * w_.packed.shape.n + n0;
    kernels::JoinCodesArgs join = w_.terms.arguments(channel);
    for (int64_t m = m0; m < m1; ++m) {
      join.high = high_ ? high + (m - m0) * kColumns : nullptr;
      join.low = low + (m - m0) * kColumns;
      join.y = y_ + ((i / w_.packed.groups * m_ + m) * s_.oc + channel) * (w_.terms.wide_y ? 2 : 1);
      w_.packed.table->join_codes(join, n1 - n0);
    }
  }

  // The sums of rows m0..m1 and channels n0..n1 over one plane of x.
  void multiply(int64_t i, int64_t m0, int64_t m1, int64_t n0, int64_t n1, const uint8_t* plane,
                size_t pad, int32_t* sums) const {
    const PackedWeights& w = w_.packed;
    kernels::GemmArgs a = w.arguments(i % w.groups);
    a.a = plane + i / w.groups * image_ + i % w.groups * w.shape.k + (dense_ ? m0 * s_.c : 0);
    a.lda = s_.c;
    if (!dense_) {
      a.offsets = offsets_.data() + m0 * w.shape.taps;
      a.pad = reinterpret_cast<const uint8_t*>(pads_[pad].data());
    }
    // Channel n0 comes first; only those from there on are written.
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    a.c = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(sums) -
                                  static_cast<uintptr_t>(n0) * sizeof(int32_t));
    a.ldc = kColumns;
    a.epilogue = kernels::Epilogue::int32;
    int32_t row_sums[kRows];
    if (a.b_zero_points) {
      w.table->row_sums(a, row_sums, 0, m1 - m0);
      a.row_sums = row_sums;
    }
    w.gemm(a, 0, m1 - m0, n0, n1);
  }

  const WideWeights& w_;
  ConvShape s_;
  bool dense_;
  engine_detail::TapOffsets offsets_;
  int64_t m_, total_, image_;
  std::vector<Buffer> pads_;  // of the planes
  size_t plane_bytes_ = 0;
  const uint8_t *high_ = nullptr, *low_ = nullptr;
  std::byte* y_ = nullptr;
};

class WideKernel : public Kernel {
 public:
  WideKernel(const OpSpec& spec, const IntegerWeights& weights, const WeightRows& rows,
             const kernels::GemmShape& shape, int64_t groups)
      : op_(spec.op), w_(weights, rows, shape, groups) {}
  std::string name() const override {
    return fmt::format("{} gemm of 16 bits {}x{} {}", op_, w_.packed.table->gemm_mr,
                       w_.packed.table->gemm_nr, to_string(w_.packed.table->isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  size_t packed_bytes() const override { return w_.packed.packed.bytes(); }
  KernelDescription description() const override {
    return w_.terms.description(w_.packed.description());
  }

 protected:
  std::string op_;
  WideWeights w_;
};

class WideLinear final : public WideKernel {
 public:
  WideLinear(const OpSpec& spec, const IntegerWeights& w)
      : WideKernel(spec, w, WeightRows(w.codes, spec.inputs[1].shape()[1]),
                   {w.out_channels, spec.inputs[1].shape()[1], 1}, 1) {}
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    const int64_t k = w_.packed.shape.k, m = numel(in[0]) / std::max<int64_t>(1, k);
    return std::make_unique<WidePlan>(w_, engine_detail::TapOffsets(),
                                      ConvShape{1, m, 1, k, m, 1, w_.packed.shape.n});
  }
};

class WideConv final : public WideKernel {
 public:
  WideConv(const OpSpec& spec, const IntegerWeights& w)
      : WideKernel(spec, w, WeightRows(w, conv_gemm_shape(w, spec), spec.transposed),
                   conv_gemm_shape(w, spec), spec.attrs.get_int("groups")),
        window_(engine_detail::conv_window3(spec)),
        transposed_(spec.transposed) {}
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::row_major;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<WidePlan>(w_, conv_offsets(window_, transposed_, in[0], out[0]),
                                      conv_shape(in, out));
  }

 private:
  engine_detail::Window3 window_;
  bool transposed_;
};

// -- depthwise ------------------------------------------------------------------------------------

struct WideDepthwise {
  WideTerms terms;
  const kernels::KernelTable* table = &kernels::table();
  Window window;
  int64_t channels = 0;
  std::vector<int16_t> weights;  // [taps][channels], less their zero points
};

// Taps for which sums of products of 16 bits with weights less their zero points fit int32.
constexpr int64_t kMostWideTaps = std::numeric_limits<int32_t>::max() / (65535 * 255);

class WideDepthwisePlan final : public KernelPlan {
 public:
  WideDepthwisePlan(const WideDepthwise& w, const ConvShape& s)
      : w_(w),
        s_(s),
        offsets_(engine_detail::tap_offsets(w.window, s.h, s.w, s.c, s.oh, s.ow)),
        pad_(static_cast<size_t>(s.c),
             // (Codes of 8 bits are unsigned by the time that they are read.)
             static_cast<uint16_t>(w.terms.x_zero_point ^
                                   (w.terms.wide_x && w.terms.flip ? 0x8000 : 0))) {}
  size_t scratch_bytes() const override {
    return w_.terms.wide_x ? 0 : static_cast<size_t>(s_.images * s_.h * s_.w * s_.c) * 2;
  }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const int64_t image = s_.h * s_.w * s_.c;
    const auto* x = static_cast<const uint16_t*>(inputs[0]);
    if (!w_.terms.wide_x) {
      auto* wider = static_cast<uint16_t*>(scratch);
      const auto* from = static_cast<const uint8_t*>(inputs[0]);
      const uint8_t flip = w_.terms.flip ? 0x80 : 0;
      parallel_ranges(s_.images * image, 1 << 16, [&](int64_t i0, int64_t i1) {
        for (int64_t i = i0; i < i1; ++i) wider[i] = from[i] ^ flip;
      });
      x = wider;
    }
    auto* y = static_cast<std::byte*>(outputs[0]);
    const int64_t grain = std::max<int64_t>(1, 200'000 / (s_.c * w_.window.taps()));
    for (int64_t n = 0; n < s_.images; ++n)
      for (int64_t c = 0; c < s_.c; c += kChannels)
        parallel_ranges(s_.pixels(), grain, [&](int64_t p0, int64_t p1) {
          pixels(x + n * image + c, y, n, c, std::min(kChannels, s_.c - c), p0, p1);
        });
  }

 private:
  static constexpr int64_t kChannels = 512;  // whose sums wait in the cache

  // `channels` channels from c on, of pixels p0..p1 of image n.
  void pixels(const uint16_t* x, std::byte* y, int64_t n, int64_t c, int64_t channels, int64_t p0,
              int64_t p1) const {
    kernels::DepthwiseCodesArgs a;
    a.channels = channels;
    a.taps = w_.window.taps();
    a.a = x;
    a.offsets = offsets_.data();
    a.pad = pad_.data();
    a.weights = w_.weights.data() + c;
    a.ldw = s_.c;
    a.flip = w_.terms.wide_x && w_.terms.flip ? 0x8000 : 0;
    alignas(64) int32_t sums[kChannels];
    kernels::JoinCodesArgs join = w_.terms.arguments(c);
    join.low = sums;
    for (int64_t p = p0; p < p1; ++p) {
      w_.table->depthwise_codes(a, p, sums);
      join.y = y + ((n * s_.pixels() + p) * s_.c + c) * (w_.terms.wide_y ? 2 : 1);
      w_.table->join_codes(join, channels);
    }
  }

  const WideDepthwise& w_;
  ConvShape s_;
  engine_detail::TapOffsets offsets_;
  std::vector<uint16_t> pad_;
};

class WideDepthwiseKernel final : public Kernel {
 public:
  WideDepthwiseKernel(const OpSpec& spec, const IntegerWeights& weights)
      : w_{.terms = WideTerms(weights), .window = engine_detail::conv_window(spec)} {
    w_.channels = weights.out_channels;
    const int64_t taps = w_.window.taps();
    w_.weights.resize(static_cast<size_t>(taps * w_.channels));
    for (int64_t c = 0; c < w_.channels; ++c) {
      int64_t sum = 0;
      for (int64_t t = 0; t < taps; ++t) {
        const int32_t v = weights.codes[c * taps + t] - weights.zero_points[c];
        w_.weights[static_cast<size_t>(t * w_.channels + c)] = static_cast<int16_t>(v);
        sum += v;
      }
      w_.terms.add_offset(weights, sum);
    }
  }
  std::string name() const override {
    return fmt::format("conv2d depthwise of 16 bits {}", to_string(w_.table->isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::row_major;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t packed_bytes() const override { return w_.weights.size() * sizeof(int16_t); }
  KernelDescription description() const override {
    KernelDescription d = described(KernelDescription::Arithmetic::integers);
    d.loop = fmt::format("depthwise_u16s16_{}", to_string(w_.table->isa));
    d.weight_bits = 16;
    d = w_.terms.description(std::move(d));
    d.accumulator = "int32";
    return d;
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<WideDepthwisePlan>(w_, conv_shape(in, out));
  }

 private:
  WideDepthwise w_;
};

}  // namespace

std::unique_ptr<Kernel> make_codes16_linear(const OpSpec& spec) {
  if (!fits_planes(spec)) return nullptr;
  const IntegerWeights weights = engine_detail::integer_weights(spec);
  return sums_fit(weights) ? std::make_unique<WideLinear>(spec, weights) : nullptr;
}

std::unique_ptr<Kernel> make_codes16_conv(const OpSpec& spec) {
  if (!fits_planes(spec)) return nullptr;
  const IntegerWeights weights = engine_detail::integer_weights(spec);
  if (!sums_fit(weights)) return nullptr;
  const int64_t groups = spec.attrs.get_int("groups"),
                taps = engine_detail::conv_window(spec).taps();
  const bool depthwise = !spec.transposed && groups == weights.out_channels &&
                         spec.inputs[1].shape()[1] == 1 && groups > 1 && taps <= kMostWideTaps;
  if (depthwise) return std::make_unique<WideDepthwiseKernel>(spec, weights);
  return std::make_unique<WideConv>(spec, weights);
}

}  // namespace octet::native
