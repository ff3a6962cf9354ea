// Float convolutions, plain and transposed, of two and three spatial dimensions, on images whose
// channels lie together. As those of codes they are matrix products whose rows are found through a
// table of offsets; images of few channels are copied with their padding written out, so that a row
// of the window is one tap. A transposed convolution is a plain one for each residue of the
// output's place modulo the stride: outputs of one residue meet the same taps of the window.
#include "octet/engine/native/float_impl.h"
#include "octet/engine/native/image_impl.h"
#include "octet/engine/native/schedule_impl.h"
#include "octet/engine/native/winograd_impl.h"
#include "octet/engine/reorder.h"

namespace octet::native {
namespace {

using engine_detail::TapOffsets;
using engine_detail::Window3;
using Places = std::array<std::vector<int64_t>, 3>;  // along each spatial dimension

// What a layer is, before any image is seen.
struct ConvSpec {
  std::string op;
  Window3 window;
  bool transposed = false, depthwise = false;
  bool joined = false;  // a row of the window is one tap, of an image with its padding written out
  int64_t groups = 1;
  int64_t in_channels = 0, out_channels = 0;  // of one group
  std::vector<float> bias;                    // empty: none
  FloatRange range{"none"};
};

// The taps that outputs of one residue meet, and their weights.
struct Residue {
  std::array<int64_t, 3> of{};  // (output place + begin) modulo stride
  Places taps;                  // along each dimension
  std::unique_ptr<PackedFloats> weights;
  int64_t count() const {
    return static_cast<int64_t>(taps[0].size() * taps[1].size() * taps[2].size());
  }
};

// A row of kw taps of c floats as one tap. Finding a tap's addresses takes about as long as one or
// two steps of k; the copy takes as long as a few multiply-adds for each float.
bool joins_rows(const Window3& w, int64_t c, int64_t oc) {
  const int64_t kw = w.kernel[2], apart = 3 * w.taps() + 2 * w.taps() * c;
  const int64_t saved = 3 * (w.taps() - w.taps() / kw);
  return w.kernel[0] == 1 && kw > 1 && w.dilation[2] == 1 && saved * 10 > apart &&
         saved * oc > 16 * c * w.stride[1] * w.stride[2];
}

Window flat(const Window3& w) {
  return {w.kernel[1], w.kernel[2], w.stride[1], w.stride[2],   w.begin[1],
          w.begin[2],  w.end[1],    w.end[2],    w.dilation[1], w.dilation[2]};
}

// By which algorithms a layer is computed: by the matrix product, by Winograd's, or as the sizes of
// an image decide.
enum class By { product, winograd, both };

By algorithm_of(const OpSpec& spec) {
  if (!engine_detail::may_take_float_winograd(spec)) return By::product;
  const TensorType& y = spec.outputs[0];
  if (!y.dims[2].known() || !y.dims[3].known()) return By::both;
  return engine_detail::float_winograd_pays(engine_detail::conv_window(spec), y.dims[2].size(),
                                            y.dims[3].size())
             ? By::winograd
             : By::product;
}

class FloatConvKernel final : public Kernel {
 public:
  FloatConvKernel(ConvSpec spec, const Tensor& weight, By by)
      : spec_(std::move(spec)), rank_(weight.dim()), by_(by) {
    if (by_ != By::product)
      winograd_ = make_float_winograd(flat(spec_.window), weight, spec_.bias, spec_.range);
    if (by_ == By::winograd) return;
    const auto* w = static_cast<const float*>(weight.raw_data());
    const int64_t taps = spec_.window.taps();
    if (spec_.depthwise) {
      by_tap_.resize(static_cast<size_t>(spec_.groups * taps));
      for (int64_t c = 0; c < spec_.groups; ++c)
        for (int64_t t = 0; t < taps; ++t) by_tap_[t * spec_.groups + c] = w[c * taps + t];
      return;
    }
    // A plain weight is (n of all groups, k, taps), a transposed one (k of all groups, n, taps).
    const int64_t k = spec_.in_channels, n = spec_.out_channels;
    for (Residue& r : residues(spec_)) {
      kernels::GemmShape shape{n, k, r.count()};
      kernels::FloatWeights from{w, spec_.transposed ? taps : k * taps, 1,
                                 spec_.transposed ? n * taps : taps};
      std::vector<float> chosen;
      if (r.count() != taps) {  // those taps alone
        chosen = choose(r, w, weight.numel() / taps, taps);
        from = {chosen.data(), from.n_stride / taps * r.count(), 1,
                from.k_stride / taps * r.count()};
      }
      if (spec_.joined) {  // [n][kh][kw * c]
        chosen.resize(static_cast<size_t>(weight.numel()));
        for (int64_t i = 0; i < n; ++i)
          for (int64_t t = 0; t < taps; ++t)
            for (int64_t c = 0; c < k; ++c)
              chosen[(i * taps + t) * k + c] = w[(i * k + c) * taps + t];
        const int64_t row = k * spec_.window.kernel[2];
        shape = {n, row, taps / spec_.window.kernel[2]};
        from = {chosen.data(), taps * k, row, 1};
      }
      r.weights = std::make_unique<PackedFloats>(shape, spec_.groups, from, n * k * r.count());
      residues_.push_back(std::move(r));
    }
  }
  std::string name() const override {
    if (spec_.depthwise)
      return fmt::format("{} float depthwise {}", spec_.op, to_string(table_->isa));
    if (winograd_) return fmt::format("{} float winograd 2x2 {}", spec_.op, to_string(table_->isa));
    return fmt::format("{} float {} {}x{} {}", spec_.op,
                       spec_.window.is_pointwise() ? "gemm"
                       : spec_.joined              ? "row gemm"
                                                   : "indirect gemm",
                       table_->float_gemm_mr, table_->float_gemm_nr, to_string(table_->isa));
  }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    KernelDescription d = described(KernelDescription::Arithmetic::floats);
    d.loop = spec_.depthwise ? fmt::format("float_depthwise_{}", to_string(table_->isa))
             : winograd_     ? fmt::format("float_winograd_{}", to_string(table_->isa))
                             : float_loop(*table_);
    d.accumulator = "float32";
    return d;
  }
  bool packs(size_t i) const override { return i > 0; }
  Layout input_layout(size_t i) const override {
    return i == 0 && rank_ == 4 ? Layout::channels_last : Layout::row_major;
  }
  Layout output_layout(size_t) const override {
    return rank_ == 4 ? Layout::channels_last : Layout::row_major;
  }
  size_t packed_bytes() const override {
    size_t bytes = by_tap_.size() * sizeof(float) + (winograd_ ? winograd_->packed_bytes() : 0);
    for (const Residue& r : residues_) bytes += r.weights->packed.bytes();
    return bytes;
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override;

 private:
  friend class FloatConvPlan;

  static std::vector<Residue> residues(const ConvSpec& s) {
    std::vector<Residue> all;
    const Window3& w = s.window;
    const auto steps = [&](size_t d) { return s.transposed ? w.stride[d] : 1; };
    for (int64_t z = 0; z < steps(0); ++z)
      for (int64_t y = 0; y < steps(1); ++y)
        for (int64_t x = 0; x < steps(2); ++x) {
          Residue r;
          r.of = {z, y, x};
          for (size_t d = 0; d < 3; ++d)
            for (int64_t k = 0; k < w.kernel[d]; ++k)
              if (k * w.dilation[d] % steps(d) == r.of[d]) r.taps[d].push_back(k);
          all.push_back(std::move(r));
        }
    return all;
  }
  // Of `rows` windows the taps of a residue.
  std::vector<float> choose(const Residue& r, const float* w, int64_t rows, int64_t taps) const {
    std::vector<float> chosen;
    chosen.reserve(static_cast<size_t>(rows * r.count()));
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t z : r.taps[0])
        for (int64_t y : r.taps[1])
          for (int64_t x : r.taps[2])
            chosen.push_back(
                w[i * taps + (z * spec_.window.kernel[1] + y) * spec_.window.kernel[2] + x]);
    return chosen;
  }

  ConvSpec spec_;
  int64_t rank_;
  By by_;
  std::unique_ptr<const FloatWinograd> winograd_;
  const kernels::KernelTable* table_ = &kernels::table();
  std::vector<Residue> residues_;
  std::vector<float> by_tap_;  // depthwise: [taps][channels]
};

class FloatConvPlan final : public KernelPlan {
 public:
  FloatConvPlan(const FloatConvKernel& kernel, const Shape& in, const Shape& out)
      : kernel_(kernel),
        s_(kernel.spec_),
        x_(engine_detail::with_3_spatial(in)),
        y_(engine_detail::with_3_spatial(out)),
        in_floats_(x_[1] * x_[2] * x_[3] * x_[4]),
        out_pixels_(y_[2] * y_[3] * y_[4]) {
    const int64_t pad = std::max(s_.depthwise ? s_.groups : s_.in_channels, int64_t{1});
    zeros_.assign(static_cast<size_t>(pad), 0.0f);
    if (kernel.rank_ == 5) {  // row-major images become pixels and back
      to_pixels_ = plan_reorder({x_[0], x_[1], 1, x_[2] * x_[3] * x_[4]}, sizeof(float), true);
      from_pixels_ = plan_reorder({y_[0], y_[1], 1, out_pixels_}, sizeof(float), false);
      in_at_ =
          scratch_.take(static_cast<size_t>(x_[0] * in_floats_) * sizeof(float) + kBufferSlack);
      out_at_ = scratch_.take(static_cast<size_t>(y_[0] * y_[1] * out_pixels_) * sizeof(float) +
                              kBufferSlack);
    }
    if (s_.depthwise) {
      offsets_.push_back(engine_detail::tap_offsets(s_.window, s_.transposed, x_, y_));
    } else if (s_.joined) {
      padded_ = PaddedImage(flat(s_.window), in_bytes());
      in_floats_ = padded_.bytes() / 4;
      padded_at_ = scratch_.take(static_cast<size_t>(x_[0] * padded_.bytes()));
      parts_.push_back({0, out_pixels_, {}});
      const auto& w = s_.window;
      offsets_.push_back(engine_detail::tap_offsets(
          {w.kernel[1], 1, w.stride[1], w.stride[2], 0, 0, 0, 0, w.dilation[1], 1}, padded_.h,
          padded_.w, x_[1], y_[3], y_[4]));
    } else if (s_.window.is_pointwise() && std::equal(x_.begin() + 2, x_.end(), y_.begin() + 2)) {
      dense_ = true;
      const bool together = s_.groups == 1;  // one product over all images
      parts_.push_back({0, out_pixels_ * (together ? x_[0] : 1), {}});
      images_at_once_ = together ? std::max<int64_t>(1, x_[0]) : 1;
      offsets_.emplace_back();
    } else if (kernel.residues_.size() == 1) {
      parts_.push_back({0, out_pixels_, {}});
      const engine_detail::PixelGroups order =
          engine_detail::pixel_groups(s_.window, s_.transposed, x_, y_);
      for (const int32_t p : order.pixels) parts_.back().rows.push_back(p * y_[1]);
      for (const auto& group : order.groups) parts_.back().cuts.push_back(group.end);
      offsets_.push_back(order.in_order(
          engine_detail::tap_offsets(s_.window, s_.transposed, x_, y_), s_.window.taps()));
    } else {
      for (size_t i = 0; i < kernel.residues_.size(); ++i) add_residue(i);
    }
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    auto* base = static_cast<std::byte*>(scratch);
    in_ = static_cast<const float*>(inputs[0]);
    out_ = static_cast<float*>(outputs[0]);
    if (to_pixels_) {
      auto* pixels = reinterpret_cast<float*>(base + in_at_);
      to_pixels_->run(inputs, std::array<void*, 1>{pixels}, nullptr);
      in_ = pixels;
      out_ = reinterpret_cast<float*>(base + out_at_);
    }
    if (padded_.h) {
      padded_.write(flat(s_.window), in_bytes(), reinterpret_cast<const uint8_t*>(in_), false, 0,
                    reinterpret_cast<uint8_t*>(base + padded_at_));
      in_ = reinterpret_cast<const float*>(base + padded_at_);
    }
    if (s_.depthwise) {
      run_depthwise();
    } else {
      for (part_ = 0; part_ < parts_.size(); ++part_) {
        const kernels::GemmShape& shape = residue().weights->shape;
        split_matrix(x_[0] / images_at_once_ * s_.groups, parts_[part_].m, shape.n,
                     kernel_.table_->float_gemm_mr, kernel_.table_->float_gemm_nr,
                     std::max<int64_t>(1, shape.k * shape.taps) * kFloatWork,
                     [this](int64_t i, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                       kernel_.table_->float_gemm(arguments(i), m0, m1, n0, n1);
                     });
      }
    }
    if (from_pixels_) from_pixels_->run(std::array<const void*, 1>{out_}, outputs, nullptr);
  }

 private:
  // A pixel is its bytes where images are padded.
  ConvShape in_bytes() const { return {x_[0], x_[3], x_[4], x_[1] * 4, y_[3], y_[4], y_[1]}; }

  // The outputs of one residue.
  struct Part {
    size_t residue = 0;
    int64_t m = 0;              // pixels
    std::vector<int64_t> rows;  // where they begin in an image; empty: one after the other
    std::vector<int64_t> cuts;  // as in FloatGemmArgs
  };

  void add_residue(size_t index) {
    const Residue& r = kernel_.residues_[index];
    const Window3& w = s_.window;
    Places outputs;
    for (size_t d = 0; d < 3; ++d)
      for (int64_t o = 0; o < y_[d + 2]; ++o)
        if ((o + w.begin[d]) % w.stride[d] == r.of[d]) outputs[d].push_back(o);
    Part part{index, 0, {}};
    TapOffsets offsets;
    const auto place = [&](size_t d, int64_t o, int64_t k) {
      return engine_detail::input_place(w, true, d, o, k, x_[d + 2]);
    };
    for (int64_t oz : outputs[0])
      for (int64_t oy : outputs[1])
        for (int64_t ox : outputs[2]) {
          part.rows.push_back(((oz * y_[3] + oy) * y_[4] + ox) * y_[1]);
          for (int64_t kz : r.taps[0])
            for (int64_t ky : r.taps[1])
              for (int64_t kx : r.taps[2]) {
                const int64_t z = place(0, oz, kz), y = place(1, oy, ky), x = place(2, ox, kx);
                const bool inside = z >= 0 && y >= 0 && x >= 0;
                offsets.push_back(
                    inside ? static_cast<int32_t>(((z * x_[3] + y) * x_[4] + x) * x_[1]) : -1);
              }
        }
    part.m = static_cast<int64_t>(part.rows.size());
    if (part.m == 0) return;
    parts_.push_back(std::move(part));
    offsets_.push_back(std::move(offsets));
  }

  const Residue& residue() const { return kernel_.residues_[parts_[part_].residue]; }

  // Of image i / groups and group i % groups.
  kernels::FloatGemmArgs arguments(int64_t i) const {
    const int64_t image = i / s_.groups, group = i % s_.groups;
    const Part& part = parts_[part_];
    const PackedFloats& weights = *residue().weights;
    kernels::FloatGemmArgs args;
    args.shape = weights.shape;
    args.a = in_ + image * in_floats_ + group * s_.in_channels;
    args.lda = x_[1];
    if (!dense_) args.offsets = offsets_[part_].data();
    if (residue().count() == 0) args.shape.k = 0, args.offsets = nullptr;  // nothing but the bias
    args.pad = zeros_.data();
    args.b = weights.group(group);
    args.c = out_ + image * out_pixels_ * y_[1] + group * s_.out_channels;
    args.ldc = y_[1];
    if (!part.rows.empty()) args.c_rows = part.rows.data();
    args.cuts = part.cuts.data();
    args.cut_count = static_cast<int64_t>(part.cuts.size());
    if (!s_.bias.empty()) args.bias = s_.bias.data() + group * s_.out_channels;
    args.lo = s_.range.lo;
    args.hi = s_.range.hi;
    return args;
  }

  void run_depthwise() const {
    const int64_t channels = s_.groups, taps = s_.window.taps();
    const int64_t grain = std::max<int64_t>(1, 100'000 / (channels * taps));
    for (int64_t image = 0; image < x_[0]; ++image) {
      kernels::FloatDepthwiseArgs args;
      args.channels = channels;
      args.taps = taps;
      args.a = in_ + image * in_floats_;
      args.offsets = offsets_[0].data();
      args.pad = zeros_.data();
      args.weights = kernel_.by_tap_.data();
      args.c = out_ + image * out_pixels_ * channels;
      args.ldc = channels;
      args.bias = s_.bias.empty() ? nullptr : s_.bias.data();
      args.lo = s_.range.lo;
      args.hi = s_.range.hi;
      const Window3& w = s_.window;
      if (!s_.transposed && w.kernel == std::array<int64_t, 3>{1, 3, 3} && w.dilation[2] == 1 &&
          w.stride[2] <= 2) {
        args.slide = w.stride[2];
        args.width = y_[4];
      }
      parallel_ranges(out_pixels_, grain, [&](int64_t p0, int64_t p1) {
        kernel_.table_->float_depthwise(args, p0, p1);
      });
    }
  }

  const FloatConvKernel& kernel_;
  const ConvSpec& s_;
  Shape x_, y_;  // with three spatial dimensions
  int64_t in_floats_, out_pixels_;
  std::vector<float> zeros_;
  bool dense_ = false;
  int64_t images_at_once_ = 1;
  std::vector<Part> parts_;
  std::vector<TapOffsets> offsets_;  // of each part
  size_t part_ = 0;                  // the one that runs
  PaddedImage padded_;               // h is 0 where images are read as they lie
  std::unique_ptr<KernelPlan> to_pixels_, from_pixels_;
  ScratchParts scratch_;
  size_t in_at_ = 0, out_at_ = 0, padded_at_ = 0;
  const float* in_ = nullptr;
  float* out_ = nullptr;
};

std::unique_ptr<KernelPlan> FloatConvKernel::plan(const std::vector<Shape>& in,
                                                  const std::vector<Shape>& out) const {
  if (by_ == By::winograd || (by_ == By::both && engine_detail::float_winograd_pays(
                                                     flat(spec_.window), out[0][2], out[0][3])))
    return winograd_->plan(conv_shape(in, out));
  return std::make_unique<FloatConvPlan>(*this, in[0], out[0]);
}

}  // namespace

std::unique_ptr<Kernel> make_float_conv(const OpSpec& spec) {
  if (!is_float(spec) || !spec.constants[1].defined() ||
      (spec.has(2) && !spec.constants[2].defined()))
    return nullptr;
  const Tensor weight = spec.constants[1].contiguous();
  if (weight.numel() == 0 || !engine_detail::all_finite(weight)) return nullptr;
  ConvSpec s;
  s.op = spec.op;
  s.window = engine_detail::conv_window3(spec);
  s.transposed = spec.transposed;
  s.groups = spec.attrs.get_int("groups");
  s.in_channels = s.transposed ? weight.size(0) / s.groups : weight.size(1);
  s.out_channels = s.transposed ? weight.size(1) : weight.size(0) / s.groups;
  s.depthwise = s.groups > 1 && s.in_channels == 1 && s.out_channels == 1;
  s.joined = !s.transposed && s.groups == 1 && spec.inputs[0].dim() == 4 &&
             joins_rows(s.window, s.in_channels, s.out_channels);
  if (spec.has(2)) s.bias = spec.constants[2].to_vector<float>();
  s.range = FloatRange(spec.attrs.get_string("activation"));
  return std::make_unique<FloatConvKernel>(std::move(s), weight, algorithm_of(spec));
}

}  // namespace octet::native
