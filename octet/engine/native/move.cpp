// slice, split, pad, tile and nearest-neighbour interpolate: copies of elements by an index along
// each dimension, of codes as of floats, in the order in which they lie in memory.
#include <algorithm>
#include <cstring>
#include <optional>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/moves_impl.h"
#include "octet/engine/native/native_impl.h"
#include "octet/engine/resize_impl.h"
#include "octet/tensor/affine.h"

namespace octet::native {
namespace {

using engine_detail::MoveIndices;

// One result. Its memory is rows, each made of one row of the operand, or of the constant alone.
class Move {
 public:
  // `order`: the dimensions as they lie in memory, the outermost first. `fill`: the bits of the
  // constant.
  Move(const MoveIndices& indices, const Shape& x, const Shape& y, const std::vector<size_t>& order,
       int64_t element_bytes, uint32_t fill)
      : element_bytes_(element_bytes), fill_(fill) {
    if (numel(y) == 0) return;
    // The innermost dimensions that stay as they are go along with the one around them.
    int64_t inner = element_bytes;
    size_t last = order.size();
    while (last > 1 && !indices[order[last - 1]]) inner *= x[order[--last]];
    if (last > 0) cut(indices[order[last - 1]], x[order[last - 1]], inner);
    int64_t step = last > 0 ? x[order[last - 1]] * inner : inner;
    if (last == 0) cut(std::nullopt, 1, inner);
    rows_ = 1;
    for (size_t i = last > 0 ? last - 1 : 0; i-- > 0;) {
      const size_t d = order[i];
      rows_ *= y[d];
      if (!indices[d] && !outer_.empty() && outer_.back().index.empty())
        outer_.back().size *= y[d];
      else
        outer_.push_back({y[d], step, indices[d].value_or(std::vector<int64_t>())});
      step *= x[d];
    }
  }

  void run(const void* x, void* y) const {
    if (rows_ == 0) return;
    parallel_ranges(rows_, std::max<int64_t>(1, kGrain / row_bytes_), [&](int64_t r0, int64_t r1) {
      const auto* from = static_cast<const std::byte*>(x);
      auto* to = static_cast<std::byte*>(y) + r0 * row_bytes_;
      int64_t before = kNone;
      for (int64_t r = r0; r < r1; ++r, to += row_bytes_) {
        const int64_t at = source(r);
        if (at == kConstant)
          fill(to, row_bytes_);
        else if (at == before)  // the same again
          std::memcpy(to, to - row_bytes_, static_cast<size_t>(row_bytes_));
        else
          copy_row(from + at, to);
        before = at;
      }
    });
  }

 private:
  static constexpr int64_t kGrain = 1 << 16;  // bytes
  static constexpr int64_t kConstant = -1, kNone = -2;

  // Bytes of a row that lie together in the operand too; from: kConstant.
  struct Part {
    int64_t from, bytes;
  };
  struct Axis {
    int64_t size, step;          // step: bytes in the operand
    std::vector<int64_t> index;  // empty: all, in their order
  };

  // A row's parts: n elements of `bytes` bytes by the index.
  void cut(const std::optional<std::vector<int64_t>>& index, int64_t n, int64_t bytes) {
    if (!index) {
      row_bytes_ = n * bytes;
      parts_.push_back({0, row_bytes_});
      return;
    }
    row_bytes_ = static_cast<int64_t>(index->size()) * bytes;
    for (int64_t i : *index) {
      const bool follows =
          !parts_.empty() && (i < 0 ? parts_.back().from == kConstant
                                    : parts_.back().from != kConstant &&
                                          parts_.back().from + parts_.back().bytes == i * bytes);
      if (follows)
        parts_.back().bytes += bytes;
      else
        parts_.push_back({i < 0 ? kConstant : i * bytes, bytes});
    }
    // Many parts of an element or two: one by one is faster.
    const bool constant =
        std::any_of(index->begin(), index->end(), [](int64_t i) { return i < 0; });
    if (!constant && (bytes == 1 || bytes == 2 || bytes == 4) &&
        static_cast<int64_t>(parts_.size()) * 16 > row_bytes_)
      elements_.assign(index->begin(), index->end());
    width_ = bytes;
  }

  int64_t source(int64_t row) const {
    int64_t at = 0;
    for (const Axis& a : outer_) {
      const int64_t i = row % a.size, from = a.index.empty() ? i : a.index[i];
      if (from < 0) return kConstant;
      at += from * a.step;
      row /= a.size;
    }
    return at;
  }

  void fill(std::byte* to, int64_t bytes) const {
    if (element_bytes_ == 1 || fill_ == 0) {
      std::memset(to, static_cast<int>(fill_), static_cast<size_t>(bytes));
    } else if (element_bytes_ == 2) {
      std::fill_n(reinterpret_cast<uint16_t*>(to), bytes / 2, static_cast<uint16_t>(fill_));
    } else {
      std::fill_n(reinterpret_cast<uint32_t*>(to), bytes / 4, fill_);
    }
  }

  template <int64_t kBytes>
  void copy_elements(const std::byte* from, std::byte* to) const {
    for (int64_t i : elements_) {
      std::memcpy(to, from + i * kBytes, kBytes);
      to += kBytes;
    }
  }

  void copy_row(const std::byte* from, std::byte* to) const {
    if (!elements_.empty())
      return width_ == 1   ? copy_elements<1>(from, to)
             : width_ == 2 ? copy_elements<2>(from, to)
                           : copy_elements<4>(from, to);
    for (const Part& p : parts_) {
      if (p.from == kConstant)
        fill(to, p.bytes);
      else
        std::memcpy(to, from + p.from, static_cast<size_t>(p.bytes));
      to += p.bytes;
    }
  }

  int64_t element_bytes_;
  uint32_t fill_;
  int64_t rows_ = 0, row_bytes_ = 1, width_ = 1;
  std::vector<Part> parts_;
  std::vector<int32_t> elements_;  // in place of parts_: the elements of `width_` bytes of a row
  std::vector<Axis> outer_;        // what the rows are numbered by, the innermost first
};

class MovePlan final : public KernelPlan {
 public:
  explicit MovePlan(std::vector<Move> moves) : moves_(std::move(moves)) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    for (size_t i = 0; i < moves_.size(); ++i) moves_[i].run(inputs[0], outputs[i]);
  }

 private:
  std::vector<Move> moves_;  // by result
};

class MoveKernel final : public Kernel {
 public:
  MoveKernel(std::string op, const Attrs& attrs, int64_t element_bytes, uint32_t fill,
             bool channels_last)
      : op_(std::move(op)),
        attrs_(attrs),
        element_bytes_(element_bytes),
        fill_(fill),
        channels_last_(channels_last) {}
  std::string name() const override { return op_; }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::moves);
  }
  Layout input_layout(size_t) const override { return layout(); }
  Layout output_layout(size_t) const override { return layout(); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    return std::make_unique<MoveKernel>(op_, attrs_, element_bytes_, fill_, true);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    std::vector<size_t> order(in[0].size());
    for (size_t d = 0; d < order.size(); ++d) order[d] = d;
    if (channels_last_ && order.size() == 4) order = {0, 2, 3, 1};
    std::vector<Move> moves;
    for (size_t i = 0; i < out.size(); ++i)
      moves.emplace_back(engine_detail::move_indices(op_, attrs_, in[0], i), in[0], out[i], order,
                         element_bytes_, fill_);
    return std::make_unique<MovePlan>(std::move(moves));
  }

 private:
  Layout layout() const { return channels_last_ ? Layout::channels_last : Layout::row_major; }
  std::string op_;
  Attrs attrs_;
  int64_t element_bytes_;
  uint32_t fill_;
  bool channels_last_;
};

// The constant of a pad, as the bits of an element.
uint32_t fill_bits(const OpSpec& spec) {
  if (spec.op != "pad") return 0;
  const auto value = static_cast<float>(spec.attrs.get_double("value"));
  uint32_t bits = 0;
  if (!spec.inputs[0].is_quantized()) {
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
  }
  const CodesOf x(spec.inputs[0]);
  const int32_t code = affine::quantize(value, x.scale, x.zero_point, x.lo, x.hi);
  return x.bytes == 1 ? static_cast<uint8_t>(code) : static_cast<uint16_t>(code);
}

}  // namespace

std::unique_ptr<Kernel> make_move(const OpSpec& spec) {
  const TensorType& x = spec.inputs[0];
  if (x.dtype != DType::float32 && !codes_per_tensor(x)) return nullptr;
  for (const TensorType& y : spec.outputs)
    if (y.dtype != x.dtype || (x.is_quantized() && !(*y.quantizer == *x.quantizer))) return nullptr;
  if (spec.op == "interpolate") {
    const engine_detail::ResizeModes modes(spec.attrs);
    if (!modes.nearest() || modes.crops()) return nullptr;
  }
  return std::make_unique<MoveKernel>(
      spec.op, spec.attrs, static_cast<int64_t>(element_size(x.dtype)), fill_bits(spec), false);
}

}  // namespace octet::native
