// interpolate by weights (linear, cubic) of codes and of floats: along the last dimension first,
// then along the one before. The values of codes go through float32 in the order that the operator
// defines, a block of columns at a time, so that what lies between the two passes stays in the
// cache.
#include <algorithm>
#include <optional>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/native/native_impl.h"
#include "octet/engine/resize_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {
namespace {

using engine_detail::Resize;
using engine_detail::ResizeModes;

// One dimension's elements and weights; of one that stays as it is, each element itself.
struct ResizeAxis {
  int64_t from = 1, to = 1, taps = 1;
  bool changes = false;
  std::vector<int32_t> index;  // [to][taps]
  std::vector<float> weight;

  ResizeAxis(int64_t n_in, int64_t n_out, const Resize& r, const ResizeModes& modes)
      : from(n_in), to(n_out), changes(r.changes) {
    if (changes) {
      const engine_detail::ResizeTaps t = engine_detail::resize_taps(n_in, n_out, r, modes);
      taps = t.count;
      index.assign(t.index.begin(), t.index.end());
      weight.assign(t.weight.begin(), t.weight.end());
    } else {
      weight.assign(static_cast<size_t>(to), 1.0f);
      for (int64_t i = 0; i < to; ++i) index.push_back(static_cast<int32_t>(i));
    }
  }
};

// Null: floats.
struct ResizeCodes {
  std::optional<CodesOf> x, y;
};

// Columns j0..j1 of the result, and the columns s0..s1 of the operand that they are made of.
struct Block {
  int64_t j0, j1, s0, s1;
};

class ResizePlan final : public KernelPlan {
 public:
  // Images of `planes` times rows.from x columns.from pixels of `channels` each.
  ResizePlan(const ResizeCodes& codes, int64_t planes, ResizeAxis rows, ResizeAxis columns,
             int64_t channels)
      : codes_(codes),
        planes_(planes),
        channels_(channels),
        rows_(std::move(rows)),
        columns_(std::move(columns)) {
    if (planes_ * rows_.to * columns_.to * channels_ == 0) return;
    cut_columns();
    tasks_ = std::clamp<int64_t>(planes_ * rows_.to * columns_.to * channels_ / kGrain, 1,
                                 std::min<int64_t>(num_threads(), planes_ * rows_.to));
    auto part = [this](int64_t bytes) { return parts_.take(static_cast<size_t>(bytes)); };
    blended_at_ = part(rows_.taps * row_floats_ * 4 + kSlack);
    values_at_ = part(source_floats_ * 4 + kSlack);
    held_at_ = part(rows_.taps * 8);
    places_at_ = part(rows_.taps * 8);
    taps_at_ = part(rows_.taps * 8);
  }
  size_t scratch_bytes() const override { return parts_.bytes() * static_cast<size_t>(tasks_); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const int64_t total = planes_ * rows_.to;
    parallel_for(tasks_, [&](int64_t task) {
      auto* part = static_cast<std::byte*>(scratch) + static_cast<size_t>(task) * parts_.bytes();
      for (int64_t r = total * task / tasks_, end = total * (task + 1) / tasks_; r < end;) {
        const int64_t plane = r / rows_.to, y0 = r % rows_.to,
                      y1 = std::min(rows_.to, y0 + (end - r));
        for (const Block& block : blocks_)
          run_block(inputs[0], outputs[0], plane, y0, y1, block, part);
        r += y1 - y0;
      }
    });
  }

 private:
  static constexpr int64_t kGrain = 1 << 15;
  static constexpr int64_t kSlack = static_cast<int64_t>(kBufferSlack);

  // Blocks whose rows of floats fit into the first cache together.
  void cut_columns() {
    constexpr int64_t kFloats = 8192;
    const int64_t per_column =
        channels_ * (rows_.taps + 1 + std::max<int64_t>(1, columns_.from / columns_.to));
    const int64_t most = std::max<int64_t>(1, kFloats / per_column),
                  count = (columns_.to + most - 1) / most;
    for (int64_t i = 0; i < count; ++i) {
      Block b{columns_.to * i / count, columns_.to * (i + 1) / count, 0, 0};
      auto first = columns_.index.begin() + b.j0 * columns_.taps,
           last = columns_.index.begin() + b.j1 * columns_.taps;
      b.s0 = *std::min_element(first, last);
      b.s1 = *std::max_element(first, last) + 1;
      for (auto it = first; it != last; ++it) *it -= static_cast<int32_t>(b.s0);
      row_floats_ = std::max(row_floats_, (b.j1 - b.j0) * channels_);
      source_floats_ = std::max(source_floats_, (b.s1 - b.s0) * channels_);
      blocks_.push_back(b);
    }
  }

  // The block's columns of the operand's row, blended along the row: in `to`, or where they lie.
  const float* blended(const void* x, int64_t row, const Block& b, float* to, float* values) const {
    const int64_t first = (row * columns_.from + b.s0) * channels_, n = (b.s1 - b.s0) * channels_;
    const kernels::KernelTable& table = kernels::table();
    const float* source = static_cast<const float*>(x) + first;
    if (codes_.x) {
      float* target = columns_.changes ? values : to;
      table.dequantize(static_cast<const uint8_t*>(x) + first, target, n, codes_.x->scale,
                       codes_.x->zero_point, codes_.x->is_signed);
      source = target;
    }
    if (!columns_.changes) return source;
    table.blend_columns(source, channels_, columns_.index.data() + b.j0 * columns_.taps,
                        columns_.weight.data() + b.j0 * columns_.taps, columns_.taps, to,
                        b.j1 - b.j0);
    return to;
  }

  void run_block(const void* x, void* y, int64_t plane, int64_t y0, int64_t y1, const Block& b,
                 std::byte* part) const {
    const kernels::KernelTable& table = kernels::table();
    auto* rows = reinterpret_cast<float*>(part + blended_at_);
    auto* values = reinterpret_cast<float*>(part + values_at_);
    // The operand's rows that were blended last, by their number modulo the taps: those of one
    // result follow each other, so that no two take one place.
    auto* held = reinterpret_cast<int64_t*>(part + held_at_);
    auto** taps = reinterpret_cast<const float**>(part + taps_at_);
    const int64_t n = (b.j1 - b.j0) * channels_;
    std::fill_n(held, rows_.taps, int64_t{-1});
    auto** places = reinterpret_cast<const float**>(part + places_at_);
    for (int64_t r = y0; r < y1; ++r) {
      for (int64_t t = 0; t < rows_.taps; ++t) {
        const int64_t source = rows_.index[r * rows_.taps + t], place = source % rows_.taps;
        if (held[place] != source) {
          places[place] =
              blended(x, plane * rows_.from + source, b, rows + place * row_floats_, values);
          held[place] = source;
        }
        taps[t] = places[place];
      }
      const float* w = rows_.weight.data() + r * rows_.taps;
      const int64_t at = ((plane * rows_.to + r) * columns_.to + b.j0) * channels_;
      if (codes_.y)
        table.blend_rows_quantize(taps, w, rows_.taps, static_cast<uint8_t*>(y) + at, n,
                                  codes_.y->inv_scale, codes_.y->zero_point, codes_.y->lo,
                                  codes_.y->hi);
      else
        table.blend_rows(taps, w, rows_.taps, static_cast<float*>(y) + at, n);
    }
  }

  ResizeCodes codes_;
  int64_t planes_, channels_, tasks_ = 0;
  ResizeAxis rows_, columns_;  // the columns' indices count from their block's s0
  std::vector<Block> blocks_;
  int64_t row_floats_ = 0, source_floats_ = 0;
  ScratchParts parts_;  // of one task
  size_t blended_at_ = 0, values_at_ = 0, held_at_ = 0, places_at_ = 0, taps_at_ = 0;
};

// The last two dimensions at once: each element is the sum of four, whose weights are products.
class JointPlan final : public KernelPlan {
 public:
  JointPlan(const ResizeCodes& codes, int64_t planes, int64_t rows_in, int64_t columns_in,
            engine_detail::ResizePairs rows, engine_detail::ResizePairs columns, int64_t channels)
      : codes_(codes),
        planes_(planes),
        rows_in_(rows_in),
        columns_in_(columns_in),
        channels_(channels),
        rows_(std::move(rows)),
        columns_(std::move(columns)) {
    const auto results = planes_ * std::ssize(rows_.first);
    tasks_ = std::clamp<int64_t>(results * std::ssize(columns_.first) * channels_ / kGrain, 1,
                                 std::min<int64_t>(num_threads(), std::max<int64_t>(results, 1)));
    auto part = [&](int64_t floats) {
      return parts_.take(static_cast<size_t>(codes_.x ? floats : 0) * 4 + kBufferSlack);
    };
    for (size_t& at : source_at_) at = part(columns_in_ * channels_);
    result_at_ = part(std::ssize(columns_.first) * channels_);
  }
  size_t scratch_bytes() const override { return parts_.bytes() * static_cast<size_t>(tasks_); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const int64_t rows = std::ssize(rows_.first), total = planes_ * rows,
                  n = std::ssize(columns_.first) * channels_;
    if (total * n == 0) return;
    parallel_for(tasks_, [&](int64_t task) {
      auto* part = static_cast<std::byte*>(scratch) + static_cast<size_t>(task) * parts_.bytes();
      // The operand's rows whose floats lie in the task's memory.
      int64_t held[2] = {-1, -1};
      for (int64_t r = total * task / tasks_; r < total * (task + 1) / tasks_; ++r) {
        const int64_t plane = r / rows * rows_in_, at = r % rows;
        const float* a = row(inputs[0], plane + rows_.first[at], held, part);
        const float* b = row(inputs[0], plane + rows_.second[at], held, part);
        float* to = codes_.y ? reinterpret_cast<float*>(part + result_at_)
                             : static_cast<float*>(outputs[0]) + r * n;
        blend(a, b, rows_.first_weight[at], rows_.second_weight[at], to);
        if (codes_.y)
          kernels::table().quantize(to, static_cast<uint8_t*>(outputs[0]) + r * n, n,
                                    codes_.y->inv_scale, codes_.y->zero_point, codes_.y->lo,
                                    codes_.y->hi);
      }
    });
  }

 private:
  static constexpr int64_t kGrain = 1 << 15;

  // Row r of the operand as floats. Rows r and r + 1 have different places.
  const float* row(const void* x, int64_t r, int64_t* held, std::byte* part) const {
    const int64_t n = columns_in_ * channels_;
    if (!codes_.x) return static_cast<const float*>(x) + r * n;
    auto* to = reinterpret_cast<float*>(part + source_at_[r % 2]);
    if (held[r % 2] != r)
      kernels::table().dequantize(static_cast<const uint8_t*>(x) + r * n, to, n, codes_.x->scale,
                                  codes_.x->zero_point, codes_.x->is_signed);
    held[r % 2] = r;
    return to;
  }

  void blend(const float* a, const float* b, float wa, float wb, float* y) const {
    const auto& [first, second, first_weight, second_weight] = columns_;
    for (int64_t j = 0; j < std::ssize(first); ++j) {
      const int64_t p = first[j] * channels_, q = second[j] * channels_;
      const float wp = first_weight[j], wq = second_weight[j];
      const float w[] = {wp * wa, wq * wa, wp * wb, wq * wb};
      if (channels_ == 1) {
        y[j] = w[0] * a[p] + w[1] * a[q] + w[2] * b[p] + w[3] * b[q];
        continue;
      }
      const float* const taps[] = {a + p, a + q, b + p, b + q};
      kernels::table().blend_rows(taps, w, 4, y + j * channels_, channels_);
    }
  }

  ResizeCodes codes_;
  int64_t planes_, rows_in_, columns_in_, channels_, tasks_ = 1;
  engine_detail::ResizePairs rows_, columns_;
  ScratchParts parts_;  // of one task
  size_t source_at_[2] = {0, 0}, result_at_ = 0;
};

class ResizeKernel final : public Kernel {
 public:
  ResizeKernel(const Attrs& attrs, const ResizeCodes& codes, bool channels_last)
      : attrs_(attrs), codes_(codes), channels_last_(channels_last) {}
  std::string name() const override {
    return fmt::format("interpolate{} {}", codes_.y ? "" : " floats",
                       to_string(kernels::table().isa));
  }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    return codes_.y ? described(KernelDescription::Arithmetic::codes_in_float, kOneToCodes)
                    : described(KernelDescription::Arithmetic::floats);
  }
  Layout input_layout(size_t) const override { return layout(); }
  Layout output_layout(size_t) const override { return layout(); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    return std::make_unique<ResizeKernel>(attrs_, codes_, true);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    const Shape &x = in[0], &y = out[0];
    const std::vector<Resize> resizes =
        engine_detail::resizes(TensorType(DType::float32, x).dims, attrs_);
    const ResizeModes modes(attrs_);
    const size_t last = x.size() - 1, before = last - 1;
    const bool pixels = channels_last_ && x.size() == 4;
    if (engine_detail::is_joint(resizes, modes)) {
      int64_t planes = 1;
      for (size_t d = 0; d + 2 < x.size(); ++d) planes *= d == 1 && pixels ? 1 : x[d];
      return std::make_unique<JointPlan>(
          codes_, planes, x[before], x[last],
          engine_detail::resize_pairs(x[before], y[before], resizes[before], modes),
          engine_detail::resize_pairs(x[last], y[last], resizes[last], modes), pixels ? x[1] : 1);
    }
    const ResizeAxis columns(x[last], y[last], resizes[last], modes);
    const ResizeAxis rows = x.size() < 2 ? ResizeAxis(1, 1, Resize(), modes)
                                         : ResizeAxis(x[before], y[before], resizes[before], modes);
    int64_t planes = 1;
    for (size_t d = 0; d + 2 < x.size(); ++d) planes *= x[d];
    if (!pixels) return std::make_unique<ResizePlan>(codes_, planes, rows, columns, 1);
    return std::make_unique<ResizePlan>(codes_, x[0], rows, columns, x[1]);
  }

 private:
  Layout layout() const { return channels_last_ ? Layout::channels_last : Layout::row_major; }
  Attrs attrs_;
  ResizeCodes codes_;
  bool channels_last_;
};

}  // namespace

std::unique_ptr<Kernel> make_resize(const OpSpec& spec) {
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  auto takes = [](const TensorType& t) {
    return t.is_quantized() ? eight_bit_per_tensor(t) : t.dtype == DType::float32;
  };
  if (!takes(x) || !takes(y) || x.is_quantized() != y.is_quantized() || x.dim() < 1) return nullptr;
  const ResizeModes modes(spec.attrs);
  if (modes.nearest() || modes.crops()) return nullptr;
  const std::vector<Resize> resizes = engine_detail::resizes(x.dims, spec.attrs);
  for (size_t d = 0; d + 2 < resizes.size(); ++d)
    if (resizes[d].changes) return nullptr;
  ResizeCodes codes;
  if (x.is_quantized()) codes = {CodesOf(x), CodesOf(y)};
  return std::make_unique<ResizeKernel>(spec.attrs, codes, false);
}

}  // namespace octet::native
