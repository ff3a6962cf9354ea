// Quantized conv2d and conv_transpose2d on NHWC images. Pointwise convolutions are dense matrix
// products; depthwise ones have their own kernel; all others are matrix products whose rows are
// addressed through a table of offsets (an indirection buffer, as in XNNPACK: Dukhan, "The Indirect
// Convolution Algorithm", 2019), so that no im2col copy is made. Images of few channels are copied
// with their padding written out, for then a row of the window lies together and is one tap.
#include "octet/base/check_impl.h"
#include "octet/engine/native/image_impl.h"
#include "octet/engine/native/matrix_impl.h"
#include "octet/engine/native/winograd_impl.h"

namespace octet::native {
namespace {

using engine_detail::IntegerWeights;
using engine_detail::Window;

// -- padding --------------------------------------------------------------------------------------

// Whether a row of the window should be one tap of all its kw * c bytes rather than kw taps of c.
// The matrix kernel pads every tap to 4 bytes, and finding its addresses takes about as long as 2
// more; the copy takes 8 bytes in the time of 64 multiply-adds.
bool joins_rows(const Window& w, int64_t c, int64_t oc) {
  const auto cost = [](int64_t taps, int64_t k) { return taps * ((k + 3) / 4 * 4 + 2); };
  const int64_t apart = cost(w.taps(), c), saved = apart - cost(w.kh, w.kw * c);
  return w.kw > 1 && w.dw == 1 && saved * 10 > apart && saved * oc > 8 * c * w.sh * w.sw;
}

// -- matrix product -------------------------------------------------------------------------------

class ConvPlan final : public KernelPlan {
 public:
  // A plain convolution whose taps are rows of the window.
  ConvPlan(const PackedWeights& w, const Window& window, const ConvShape& s)
      : ConvPlan(w, row_offsets(window, s), s) {
    window_ = window;
    padded_ = PaddedImage(window, s);
    image_bytes_ = padded_.bytes();
    copy_bytes_ = (s.images * image_bytes_ + kBufferSlack + 63) / 64 * 64;
  }
  // No offsets: a pointwise convolution.
  ConvPlan(const PackedWeights& w, engine_detail::TapOffsets offsets, const ConvShape& s,
           engine_detail::PixelGroups order = {})
      : w_(w),
        s_(s),
        dense_(offsets.empty()),
        offsets_(order.in_order(std::move(offsets), w.shape.taps)),
        pixels_(std::move(order.pixels)) {
    if (!order.groups.empty()) make_cuts(order);
    m_ = s.pixels();
    if (!dense_) {
      pad_ = Buffer::allocate(w.shape.k);
      std::memset(pad_.data(), w.x_zero_point, w.shape.k);
    } else if (w.groups == 1) {  // one product over all images
      m_ *= s_.images;
      s_.images = 1;
    }
    image_bytes_ = s_.h * s_.w * s_.c;
    int64_t total = s.images * s.h * s.w * s.c;
    copy_bytes_ = w.flip_x ? (total + kBufferSlack + 63) / 64 * 64 : 0;
    sums_ = w.weight_zero_points.empty() ? 0 : m_;
    total_ = total;
  }
  size_t scratch_bytes() const override { return copy_bytes_ + sums_ * s_.images * w_.groups * 4; }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    x_ = static_cast<const uint8_t*>(inputs[0]);
    y_ = static_cast<uint8_t*>(outputs[0]);
    row_sums_ = reinterpret_cast<int32_t*>(static_cast<uint8_t*>(scratch) + copy_bytes_);
    if (copy_bytes_) {
      auto* copy = static_cast<uint8_t*>(scratch);
      if (padded_.h)
        padded_.write(window_, s_, x_, w_.flip_x, static_cast<uint8_t>(w_.x_zero_point), copy);
      else
        flip_signs(x_, copy, total_);
      x_ = copy;
    }
    if (sums_)
      parallel_for(s_.images * w_.groups, [&](int64_t i) {
        w_.table->row_sums(arguments(i), row_sums_ + i * sums_, 0, m_);
      });
    split_matrix(s_.images * w_.groups, m_, w_.shape.n, w_.table->gemm_mr, w_.table->gemm_nr,
                 w_.shape.k * w_.shape.taps,
                 [this](int64_t i, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   w_.table->gemm(arguments(i), m0, m1, n0, n1);
                 });
    w_.wide.run(s_.images, m_, w_.x_zero_point,
                [&](int64_t image, int64_t group) { return arguments(image * w_.groups + group); });
  }

 private:
  static engine_detail::TapOffsets row_offsets(const Window& w, const ConvShape& s) {
    const PaddedImage image(w, s);
    return engine_detail::tap_offsets({w.kh, 1, w.sh, w.sw, 0, 0, 0, 0, w.dh, 1}, image.h, image.w,
                                      image.c, s.oh, s.ow);
  }
  void make_cuts(const engine_detail::PixelGroups& order) {
    const int64_t channels = std::ssize(w_.bias), taps = w_.shape.taps;
    if (!w_.tap_sums.empty()) {
      for (const auto& cut : order.groups)
        for (int64_t c = 0; c < channels; ++c) {
          int64_t sum = w_.bias[c];
          for (int64_t t = 0; t < taps; ++t)
            if (cut.skipped >> t & 1)
              sum += int64_t{w_.x_zero_point} * w_.tap_sums[t * channels + c];
          cut_bias_.push_back(static_cast<int32_t>(sum));
        }
    }
    for (int64_t group = 0; group < w_.groups; ++group) {
      const int32_t* bias = (cut_bias_.empty() ? w_.bias : cut_bias_).data() + group * w_.shape.n;
      for (const auto& cut : order.groups) {
        cuts_.push_back({cut.end, cut.skipped, bias});
        if (!cut_bias_.empty()) bias += channels;
      }
    }
  }

  // Of image i / groups and group i % groups.
  kernels::GemmArgs arguments(int64_t i) const {
    int64_t image = i / w_.groups, group = i % w_.groups;
    kernels::GemmArgs a = w_.arguments(group);
    a.a = x_ + image * image_bytes_ + group * w_.shape.k;
    a.lda = s_.c;
    a.ldc = s_.oc;
    a.c = y_ + image * m_ * s_.oc + group * w_.shape.n;
    if (!dense_) {
      a.offsets = offsets_.data();
      a.pad = reinterpret_cast<const uint8_t*>(pad_.data());
      if (!pixels_.empty()) a.c_rows = pixels_.data();
      if (!cuts_.empty()) a.cuts = cuts_.data() + group * (std::ssize(cuts_) / w_.groups);
    }
    if (sums_) a.row_sums = row_sums_ + i * sums_;
    return a;
  }

  const PackedWeights& w_;
  ConvShape s_;
  bool dense_ = false;
  int64_t m_ = 0, image_bytes_ = 0, total_ = 0;
  int64_t sums_ = 0;
  size_t copy_bytes_ = 0;
  Window window_;
  PaddedImage padded_;  // h is 0 where the image is read as it lies
  engine_detail::TapOffsets offsets_;
  std::vector<int32_t> pixels_;         // as in PixelGroups
  std::vector<kernels::GemmCut> cuts_;  // [groups][cuts]
  std::vector<int32_t> cut_bias_;       // [cuts][groups * n]; empty: the weights' bias is right
  Buffer pad_;
  const uint8_t* x_ = nullptr;
  uint8_t* y_ = nullptr;
  int32_t* row_sums_ = nullptr;
};

class ConvKernel final : public Kernel {
 public:
  ConvKernel(const OpSpec& spec, const IntegerWeights& weights)
      : op_(spec.op),
        window_(engine_detail::conv_window3(spec)),
        transposed_(spec.transposed),
        joined_(!transposed_ && spec.attrs.get_int("groups") == 1 &&
                joins_rows(engine_detail::conv_window(spec), spec.inputs[1].shape()[1],
                           weights.out_channels)),
        warnings_(weights.warnings),
        packed_(weights, WeightRows(weights, conv_gemm_shape(weights, spec), transposed_),
                gemm_shape(weights, spec), spec.attrs.get_int("groups")) {
    if (joined_)
      rows_of_ = engine_detail::conv_window(spec);
    else
      winograd_ = make_winograd(spec, weights, packed_);
    // Then all its plans are Winograd's: more images gain no less.
    const auto known = [&](const TensorType& t) { return t.dims[2].known() && t.dims[3].known(); };
    if (winograd_ && known(spec.inputs[0]) && known(spec.outputs[0])) packed_.packed = Buffer();
  }
  std::string name() const override {
    if (winograd_) return fmt::format("{} winograd 4x4 {}", op_, to_string(packed_.table->isa));
    return fmt::format("{} {} {}x{} {}", op_,
                       window_.is_pointwise() ? "gemm"
                       : joined_              ? "row gemm"
                                              : "indirect gemm",
                       packed_.table->gemm_mr, packed_.table->gemm_nr,
                       to_string(packed_.table->isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::row_major;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t packed_bytes() const override {
    return packed_.packed.bytes() + (winograd_ ? winograd_->packed_bytes() : 0);
  }
  KernelDescription description() const override {
    return winograd_ ? winograd_->description() : packed_.requantizing();
  }
  std::vector<std::string> warnings() const override { return warnings_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    if (joined_) return std::make_unique<ConvPlan>(packed_, rows_of_, conv_shape(in, out));
    if (winograd_ && (packed_.packed.bytes() == 0 || winograd_->worthwhile(conv_shape(in, out))))
      return winograd_->plan(conv_shape(in, out));
    return std::make_unique<ConvPlan>(
        packed_, conv_offsets(window_, transposed_, in[0], out[0]), conv_shape(in, out),
        engine_detail::pixel_groups(window_, transposed_, engine_detail::with_3_spatial(in[0]),
                                    engine_detail::with_3_spatial(out[0])));
  }

 private:
  // Weights lie as [n][kh][kw][c], whatever is called a tap.
  kernels::GemmShape gemm_shape(const IntegerWeights& weights, const OpSpec& spec) const {
    kernels::GemmShape s = conv_gemm_shape(weights, spec);
    if (joined_) s = {s.n, s.k * window_.kernel[2], s.taps / window_.kernel[2]};
    return s;
  }

  std::string op_;
  engine_detail::Window3 window_;
  bool transposed_, joined_;
  Window rows_of_;  // if joined
  std::vector<std::string> warnings_;
  PackedWeights packed_;
  // Null: none. Where the sizes of images are known, packed_ has no matrices beside it.
  std::unique_ptr<const Winograd> winograd_;
};

// -- depthwise ------------------------------------------------------------------------------------

struct DepthwiseWeights {
  const kernels::KernelTable* table = &kernels::table();
  Window window;
  int64_t channels = 0;
  Buffer packed;
  std::vector<int32_t> bias;  // wrapping, as the kernel's sums do
  std::vector<float> multiplier;
  std::vector<std::string> warnings;
  WideChannels wide;
  int32_t x_zero_point = 0, y_zero_point = 0, lo = 0, hi = 255;
  bool flip_x = false;
};

class DepthwisePlan final : public KernelPlan {
 public:
  DepthwisePlan(const DepthwiseWeights& w, const ConvShape& s) : w_(w), s_(s) {
    const Window& v = w.window;
    slides_ = v.kh == 3 && v.kw == 3 && v.dh == 1 && v.dw == 1 && v.sw <= 2;
    if (!slides_ || w.wide.channels() > 0)
      offsets_ = engine_detail::tap_offsets(v, s.h, s.w, s.c, s.oh, s.ow);
    pad_ = Buffer::allocate(s.c);
    std::memset(pad_.data(), w.x_zero_point, s.c);
  }
  size_t scratch_bytes() const override {
    return w_.flip_x ? s_.images * s_.h * s_.w * s_.c + kBufferSlack : 0;
  }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const auto* x = static_cast<const uint8_t*>(inputs[0]);
    int64_t image_bytes = s_.h * s_.w * s_.c;
    if (w_.flip_x) {
      flip_signs(x, static_cast<uint8_t*>(scratch), s_.images * image_bytes);
      x = static_cast<const uint8_t*>(scratch);
    }
    // Windows that slide are computed two rows at a time where both are whole.
    const int64_t unit = slides_ && s_.oh >= 4 * num_threads() ? s_.ow : 1,
                  grain = std::max<int64_t>(1, 400'000 / (s_.c * w_.window.taps() * unit));
    for (int64_t image = 0; image < s_.images; ++image) {
      kernels::DepthwiseArgs a{s_.c,
                               w_.window.taps(),
                               x + image * image_bytes,
                               offsets_.data(),
                               reinterpret_cast<const uint8_t*>(pad_.data()),
                               w_.packed.data(),
                               static_cast<uint8_t*>(outputs[0]) + image * s_.pixels() * s_.c,
                               s_.c,
                               w_.bias.data(),
                               w_.multiplier.data(),
                               w_.y_zero_point,
                               w_.lo,
                               w_.hi};
      if (slides_) slide(a);
      parallel_ranges((s_.pixels() + unit - 1) / unit, grain, [&](int64_t first, int64_t last) {
        w_.table->depthwise(a, first * unit, std::min(last * unit, s_.pixels()));
      });
    }
    auto* y = static_cast<uint8_t*>(outputs[0]);
    w_.wide.run(s_.images, s_.pixels(), w_.x_zero_point, [&](int64_t image, int64_t channel) {
      kernels::GemmArgs a;
      a.a = x + image * image_bytes + channel;
      a.offsets = offsets_.data();
      a.pad = reinterpret_cast<const uint8_t*>(pad_.data());
      a.c = y + image * s_.pixels() * s_.c + channel;
      a.ldc = s_.c;
      a.multiplier = &w_.multiplier[channel];
      a.zero_point = w_.y_zero_point;
      a.lo = w_.lo;
      a.hi = w_.hi;
      return a;
    });
  }

 private:
  void slide(kernels::DepthwiseArgs& a) const {
    const Window& v = w_.window;
    a.slide = v.sw, a.slide_rows = v.sh;
    a.width = s_.ow, a.h = s_.h, a.w = s_.w, a.top = v.ph, a.left = v.pw;
  }

  const DepthwiseWeights& w_;
  ConvShape s_;
  bool slides_ = false;
  engine_detail::TapOffsets offsets_;
  Buffer pad_;
};

class DepthwiseKernel final : public Kernel {
 public:
  DepthwiseKernel(const OpSpec& spec, const IntegerWeights& weights) {
    w_.window = engine_detail::conv_window(spec);
    w_.channels = weights.out_channels;
    w_.multiplier = weights.multiplier;
    w_.warnings = weights.warnings;
    w_.flip_x = weights.x_signed;
    w_.x_zero_point = weights.x_zero_point + (weights.x_signed ? 128 : 0);
    w_.y_zero_point = weights.y_zero_point;
    w_.lo = weights.lo;
    w_.hi = weights.hi;
    int64_t taps = w_.window.taps();
    w_.bias.resize(w_.channels);
    std::vector<int8_t> by_tap(weights.codes.size());
    for (int64_t c = 0; c < w_.channels; ++c) {
      int64_t sum = 0;
      for (int64_t t = 0; t < taps; ++t) {
        by_tap[t * w_.channels + c] = weights.codes[c * taps + t];
        sum += weights.codes[c * taps + t];
      }
      w_.bias[c] = static_cast<int32_t>(weights.bias[c] - w_.x_zero_point * sum);
    }
    w_.wide = WideChannels(*w_.table, {1, 1, taps}, weights,
                           [&](int64_t c) { return weights.codes.data() + c * taps; });
    w_.packed = Buffer::allocate(w_.table->depthwise_packed_bytes(w_.channels, taps));
    w_.table->depthwise_pack(w_.channels, taps, by_tap.data(), w_.packed.data());
  }
  std::string name() const override {
    return fmt::format("conv2d depthwise {}", to_string(w_.table->isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  Layout input_layout(size_t i) const override {
    return i == 0 ? Layout::channels_last : Layout::row_major;
  }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  size_t packed_bytes() const override { return w_.packed.bytes(); }
  KernelDescription description() const override {
    KernelDescription d = described(KernelDescription::Arithmetic::integers, kToCodes);
    d.loop = fmt::format("depthwise_u8s8_{}", to_string(w_.table->isa));
    d.accumulator = "int32";
    d.weight_bits = 8;
    d.wide_channels = w_.wide.channels();
    d.epilogue = fmt::format("bias, requantize, codes {}..{}", w_.lo, w_.hi);
    return d;
  }
  std::vector<std::string> warnings() const override { return w_.warnings; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<DepthwisePlan>(w_, conv_shape(in, out));
  }

 private:
  DepthwiseWeights w_;
};

}  // namespace

std::unique_ptr<Kernel> make_conv(const OpSpec& spec) {
  if (!engine_detail::is_8_bit_call(spec)) return nullptr;
  IntegerWeights weights = engine_detail::integer_weights(spec);
  int64_t groups = spec.attrs.get_int("groups");
  bool depthwise = !spec.transposed && groups == weights.out_channels &&
                   spec.inputs[1].shape()[1] == 1 && groups > 1;
  if (depthwise && !weights.any_zero_point) return std::make_unique<DepthwiseKernel>(spec, weights);
  return std::make_unique<ConvKernel>(spec, weights);
}

}  // namespace octet::native
