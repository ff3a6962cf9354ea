// Quantized convolutions of one to three spatial dimensions, plain and transposed, also grouped and
// depthwise ones.
//
// oneDNN is given the image as it is and leaves out the taps outside of it, as if the padding's
// codes were 0. A tap inside the image takes zero point times the sum of its weights from the sum
// of products; which taps are inside is the same for most pixels, so every set of them has a bias
// of its own.
#include <algorithm>
#include <map>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/onednn/int8_impl.h"
#include "octet/engine/scratch_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::onednn {
namespace {

using engine_detail::IntegerWeights;
using engine_detail::Window3;

// What a call's kernel and its plans share.
struct Int8Conv {
  Int8Conv(const OpSpec& spec, IntegerWeights weights, CodeSums code_sums)
      : w(std::move(weights)),
        sums(std::move(code_sums)),
        window(engine_detail::conv_window3(spec)),
        transposed(spec.transposed),
        shape(spec.inputs[1].shape()),
        bias(w.bias.begin(), w.bias.end()),
        x_zero_point(w.x_zero_point + (w.x_signed ? 128 : 0)) {
    const int64_t groups = spec.attrs.get_int("groups");
    // oneDNN has 1-d images too; as 2-d ones of one row they take the same kernels as others.
    spatial = shape.size() == 3 ? 2 : shape.size() - 2;
    Shape wide = engine_detail::with_3_spatial(shape);
    wide.erase(wide.begin() + 2, wide.end() - static_cast<int64_t>(spatial));
    const ConvWeight numbered(wide, groups, transposed);
    any_weight = any_layout(numbered.shape, memory::data_type::s8);
    cache = std::make_unique<WeightCache>(w.owner, w.codes.data(),
                                          numbered.laid_out(memory::data_type::s8));
    dims.stride = last(window.stride);
    dims.dilation = last(window.dilation);
    for (int64_t& d : dims.dilation) --d;
    dims.begin = last(window.begin);
    dims.end = last(window.end);
    if (spec.attrs.has("output_padding")) {
      const auto& more = spec.attrs.get_ints("output_padding");
      for (size_t d = 0; d < more.size(); ++d) dims.end[spatial - more.size() + d] -= more[d];
    }
  }
  template <typename T>
  memory::dims last(const T& of_3) const {
    return memory::dims(of_3.end() - static_cast<int64_t>(spatial), of_3.end());
  }

  IntegerWeights w;
  CodeSums sums;
  Window3 window;
  bool transposed;
  Shape shape;                // of the weight
  std::vector<int32_t> bias;  // they fit: no sum leaves int32
  int32_t x_zero_point;       // of unsigned codes
  size_t spatial = 2;         // dimensions that oneDNN is told of
  ConvDims dims;
  memory::desc any_weight;
  std::unique_ptr<WeightCache> cache;
};

// Along one dimension: the set of taps inside the image of every output, by its number among the
// sets.
struct TapSets {
  TapSets(const Int8Conv& c, size_t d, int64_t size, int64_t outputs) {
    std::map<std::vector<bool>, size_t> known;
    for (int64_t o = 0; o < outputs; ++o) {
      std::vector<bool> inside;
      for (int64_t k = 0; k < c.window.kernel[d]; ++k)
        inside.push_back(engine_detail::input_place(c.window, c.transposed, d, o, k, size) >= 0);
      const auto [found, is_new] = known.emplace(inside, sets.size());
      if (is_new) sets.push_back(std::move(inside));
      of.push_back(found->second);
    }
  }
  std::vector<std::vector<bool>> sets;
  std::vector<size_t> of;  // by output
};

class Int8ConvPlan final : public KernelPlan {
 public:
  Int8ConvPlan(const Int8Conv& c, const Shape& in, const Shape& out)
      : c_(c), table_(kernels::table()), channels_last_(in.size() == 4) {
    const Shape x = engine_detail::with_3_spatial(in), y = engine_detail::with_3_spatial(out);
    images_ = x[0];
    in_channels_ = x[1];
    in_pixels_ = x[2] * x[3] * x[4];
    args_.shape.n = y[1];
    pixels_ = y[2] * y[3] * y[4];
    if (numel(out) == 0) return;
    threads_ = threads_for(layer_work(c.transposed ? in : out, c.shape) / 4);
    use_threads(threads_);
    choose_images_at_once();
    make_primitive(x, y);
    find_pieces(x, y);
    args_.ldc = y[1];
    args_.multiplier = c.w.multiplier.data();
    args_.zero_point = c.w.y_zero_point;
    args_.lo = c.w.lo;
    args_.hi = c.w.hi;
    const bool copies_x = c.w.x_signed || !channels_last_;
    const auto codes = [&](bool needed, int64_t bytes) {
      return scratch_.take(needed ? static_cast<size_t>(bytes) + kBufferSlack : 0);
    };
    x_at_ = codes(copies_x, at_once_ * in_channels_ * in_pixels_);
    y_at_ = codes(!channels_last_, at_once_ * y[1] * pixels_);
    sums_at_ = scratch_.take(primitive_.sums_bytes());
    primitive_at_ = scratch_.take(primitive_.scratch_bytes());
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    if (at_once_ == 0) return;
    use_threads(threads_);
    base_ = static_cast<std::byte*>(scratch);
    const int64_t x_bytes = at_once_ * in_channels_ * in_pixels_,
                  y_bytes = at_once_ * args_.shape.n * pixels_;
    auto* sums = reinterpret_cast<int32_t*>(base_ + sums_at_);
    for (int64_t image = 0; image < images_; image += at_once_) {
      const auto* x = static_cast<const uint8_t*>(inputs[0]) + image / at_once_ * x_bytes;
      auto* y = static_cast<uint8_t*>(outputs[0]) + image / at_once_ * y_bytes;
      primitive_.run(laid_out(x, x_bytes), sums, base_ + primitive_at_);
      finish(sums, channels_last_ ? y : reinterpret_cast<uint8_t*>(base_ + y_at_));
      if (!channels_last_) transpose(base_ + y_at_, y, pixels_, args_.shape.n);
    }
  }

 private:
  static constexpr int64_t kGrain = 1 << 15;  // numbers

  // So that the sums of those images wait in the cache for their way to codes.
  void choose_images_at_once() {
    constexpr int64_t kMost = 1 << 18;  // sums
    at_once_ = 1;
    for (int64_t n = 2; n <= images_; ++n)
      if (images_ % n == 0 && n * pixels_ * args_.shape.n <= kMost) at_once_ = n;
  }

  void make_primitive(const Shape& x, const Shape& y) {
    auto image_of = [&](const Shape& s, memory::data_type type) {
      memory::dims d = c_.last(s);
      d.insert(d.begin(), {at_once_, s[1]});
      return memory::desc(d, type, c_.spatial == 2 ? Tag::nhwc : Tag::ndhwc);
    };
    const memory::desc from = image_of(x, memory::data_type::u8),
                       to = image_of(y, memory::data_type::s32);
    const ConvDims& d = c_.dims;
    auto make = [&]<typename Forward>(dnnl::algorithm algorithm, Forward) {
      const typename Forward::desc desc(dnnl::prop_kind::forward_inference, algorithm, from,
                                        c_.any_weight, to, d.stride, d.dilation, d.begin, d.end);
      typename Forward::primitive_desc pd(desc, attributes("none"), cpu());
      // Its kernels for transposed convolutions give other sums where strides leave gaps between
      // taps (2.6: a kernel of 1 x 2 with strides of 2, say).
      take_exact(pd,
                 {.pairs_fit = c_.sums.pairs_fit, .fits_float = true, .only_gemm = c_.transposed});
      primitive_ = SumsPrimitive(pd, Forward(pd), c_.cache->get(pd.weights_desc()));
    };
    if (c_.transposed)
      make(dnnl::algorithm::deconvolution_direct, dnnl::deconvolution_forward());
    else
      make(dnnl::algorithm::convolution_direct, dnnl::convolution_forward());
  }

  // A run of pixels with the same taps inside the image.
  struct Piece {
    int64_t first, end;
    size_t bias;  // where theirs begins
  };

  void find_pieces(const Shape& x, const Shape& y) {
    const int64_t n = args_.shape.n;
    const int64_t most = std::max<int64_t>(1, kGrain / n);
    const TapSets sets[3] = {{c_, 0, x[2], y[2]}, {c_, 1, x[3], y[3]}, {c_, 2, x[4], y[4]}};
    std::map<std::array<size_t, 3>, size_t> known;
    auto bias_of = [&](const std::array<size_t, 3>& of) {
      if (c_.x_zero_point == 0) return size_t{0};  // the taps do not matter
      const auto [found, is_new] = known.emplace(of, bias_.size());
      if (is_new) add_bias(sets[0].sets[of[0]], sets[1].sets[of[1]], sets[2].sets[of[2]]);
      return found->second;
    };
    if (c_.x_zero_point == 0) bias_ = c_.bias;
    int64_t pixel = 0;
    for (size_t z : sets[0].of)
      for (size_t r : sets[1].of)
        for (size_t column : sets[2].of) {
          const size_t bias = bias_of({z, r, column});
          if (pieces_.empty() || pieces_.back().bias != bias ||
              pixel - pieces_.back().first >= most)
            pieces_.push_back({pixel, pixel, bias});
          pieces_.back().end = ++pixel;
        }
  }

  void add_bias(const std::vector<bool>& z, const std::vector<bool>& r,
                const std::vector<bool>& column) {
    const size_t n = c_.bias.size(), at = bias_.size();
    bias_.insert(bias_.end(), c_.bias.begin(), c_.bias.end());
    size_t tap = 0;
    for (bool in_z : z)
      for (bool in_r : r)
        for (bool in_column : column) {
          const int32_t* sums = &c_.sums.taps[tap++ * n];
          if (!(in_z && in_r && in_column)) continue;
          for (size_t i = 0; i < n; ++i)  // wrapping
            bias_[at + i] =
                static_cast<int32_t>(bias_[at + i] - int64_t{c_.x_zero_point} * sums[i]);
        }
  }

  // Unsigned codes whose channels lie together.
  const uint8_t* laid_out(const uint8_t* x, int64_t bytes) {
    auto* to = reinterpret_cast<uint8_t*>(base_ + x_at_);
    if (!channels_last_) {
      transpose(x, to, in_channels_, in_pixels_);
      x = to;
    }
    if (!c_.w.x_signed) return x;
    engine_detail::flip_signs(x, to, bytes);
    return to;
  }

  // The bytes [rows][columns] of every image as [columns][rows].
  void transpose(const void* from, uint8_t* to, int64_t rows, int64_t columns) const {
    const auto* x = static_cast<const uint8_t*>(from);
    const int64_t size = rows * columns;
    parallel_ranges(at_once_, kGrain / (size + 1) + 1, [&](int64_t i0, int64_t i1) {
      for (int64_t i = i0; i < i1; ++i)
        table_.transpose(x + i * size, columns, to + i * size, rows, rows, columns);
    });
  }

  void finish(const int32_t* sums, uint8_t* y) const {
    const auto pieces = static_cast<int64_t>(pieces_.size());
    const int64_t size = pixels_ * args_.shape.n;
    parallel_ranges(at_once_ * pieces, kGrain * pieces / size + 1, [&](int64_t i0, int64_t i1) {
      kernels::GemmArgs a = args_;
      for (int64_t i = i0; i < i1; ++i) {
        const Piece& p = pieces_[static_cast<size_t>(i % pieces)];
        a.bias = &bias_[p.bias];
        a.c = y + i / pieces * size;
        table_.gemm_finish(a, sums + i / pieces * size, p.first, p.end);
      }
    });
  }

  const Int8Conv& c_;
  const kernels::KernelTable& table_;
  bool channels_last_;
  int threads_ = 1;
  int64_t images_, at_once_ = 0, in_channels_, in_pixels_, pixels_;
  SumsPrimitive primitive_;
  kernels::GemmArgs args_;
  std::vector<int32_t> bias_;  // [set of taps][channel]
  std::vector<Piece> pieces_;
  engine_detail::ScratchParts scratch_;
  size_t x_at_ = 0, y_at_ = 0, sums_at_ = 0, primitive_at_ = 0;
  std::byte* base_ = nullptr;
};

}  // namespace

std::unique_ptr<Kernel> make_int8_conv(const OpSpec& spec) {
  if (!engine_detail::is_8_bit_call(spec)) return nullptr;
  IntegerWeights w = engine_detail::integer_weights(spec);
  if (!w.wide.empty() || w.any_zero_point || w.codes.empty()) return nullptr;
  CodeSums sums(w, spec);
  // Its convolutions turn sums into floats and back.
  if (sums.farthest > kExactInFloat || !(sums.pairs_fit || sums_in_32_bits())) return nullptr;
  const Layout layout = image_layout(static_cast<size_t>(spec.inputs[0].dim()));
  const size_t bytes = w.codes.size();
  auto conv = std::make_shared<const Int8Conv>(spec, std::move(w), std::move(sums));
  if (!conv->dims.taken()) return nullptr;
  return std::make_unique<OneDnnKernel>(
      OneDnnKernel::Traits{.name = spec.op + " int8",
                           .input = layout,
                           .output = layout,
                           .packs = OneDnnKernel::Packs::all_but_first,
                           .packed_bytes = bytes,
                           .description = describe_sums("bias, requantize")},
      [conv](const std::vector<Shape>& in, const std::vector<Shape>& out) {
        return std::make_unique<Int8ConvPlan>(*conv, in[0], out[0]);
      });
}

}  // namespace octet::onednn
