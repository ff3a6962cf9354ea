#pragma once
// What kernels by rows share: plans over the elements or the rows of a result, and how the operands
// of an elementwise operator are broadcast over it.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "octet/base/parallel.h"
#include "octet/engine/native/native_impl.h"

namespace octet::native {

constexpr int64_t kGrain = 1 << 16;  // elements a thread does in about the time it takes to wake it

// Of an operator element by element: any range of them.
class ElementsPlan : public KernelPlan {
 public:
  explicit ElementsPlan(const Shape& y) : n_(numel(y)), width_(y.empty() ? 1 : y.back()) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) final {
    parallel_ranges(n_, kGrain, [&](int64_t i0, int64_t i1) { range(inputs, outputs[0], i0, i1); });
  }
  void run_rows(std::span<const void* const> inputs, std::span<void* const> outputs, int64_t r0,
                int64_t r1) final {
    range(inputs, outputs[0], r0 * width_, r1 * width_);
  }

 private:
  virtual void range(std::span<const void* const> inputs, void* y, int64_t i0,
                     int64_t i1) const = 0;
  int64_t n_, width_;
};

// Of an operator on whole rows of x.
class RowsPlan : public KernelPlan {
 public:
  explicit RowsPlan(const Shape& x)
      : width_(x.back()), rows_(numel(x) / std::max<int64_t>(1, width_)) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) final {
    parallel_ranges(rows_, std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, width_)),
                    [&](int64_t r0, int64_t r1) { run_rows(inputs, outputs, r0, r1); });
  }

 protected:
  int64_t width_;

 private:
  int64_t rows_;
};

// Whether every operand has the result's shape or is one number, so that elements may be taken in
// any order that all of them share.
inline bool in_any_order(const OpSpec& spec) {
  return std::all_of(spec.inputs.begin(), spec.inputs.end(), [&](const TensorType& t) {
    return t.dims == spec.outputs[0].dims || (t.is_static() && numel(t.shape()) == 1);
  });
}

// Whether elements may be taken in the order of a channels_last result: operands of fewer than four
// dimensions stay row-major, which must be the same for them.
inline bool in_order_of_channels_last(const OpSpec& spec) {
  const Dim one(1);
  return spec.outputs[0].dim() == 4 &&
         std::all_of(spec.inputs.begin(), spec.inputs.end(), [&](const TensorType& t) {
           return t.dim() != 3 || t.dims[0] == one || (t.dims[1] == one && t.dims[2] == one);
         });
}

// How the operands of a kernel element by element are taken.
enum class ElementOrder {
  any,            // as they lie, in whatever layout
  row_major,      // the only way
  either,         // row_major, but channels_last would be as good
  channels_last,  // its other form
};
inline ElementOrder element_order(const OpSpec& spec) {
  if (in_any_order(spec)) return ElementOrder::any;
  return in_order_of_channels_last(spec) ? ElementOrder::either : ElementOrder::row_major;
}
inline Layout layout_of(ElementOrder order) {
  return order == ElementOrder::any             ? Layout::any
         : order == ElementOrder::channels_last ? Layout::channels_last
                                                : Layout::row_major;
}

// How two operands are broadcast over a result, as their elements lie in memory.
class Broadcast {
 public:
  // Operands of fewer dimensions than y have sizes of 1 before theirs. With `channels_last` y lies
  // so, and those operands that have four dimensions (in_order_of_channels_last).
  Broadcast(const Shape& a, const Shape& b, const Shape& y, bool channels_last) {
    std::vector<size_t> order(y.size());
    for (size_t d = 0; d < order.size(); ++d) order[d] = d;
    if (channels_last) order = {0, 2, 3, 1};
    const std::vector<int64_t> step_a = steps(a, y, channels_last),
                               step_b = steps(b, y, channels_last);
    for (size_t i = order.size(); i-- > 0;) {  // the innermost first
      const size_t d = order[i];
      if (y[d] == 1) continue;
      const Axis axis{y[d], step_a[d], step_b[d]};
      // Neighbours along which both operands go on alike are one dimension.
      if (!axes_.empty() && axes_.back().a * axes_.back().size == axis.a &&
          axes_.back().b * axes_.back().size == axis.b)
        axes_.back().size *= axis.size;
      else
        axes_.push_back(axis);
    }
    if (axes_.empty()) axes_.push_back({1, 1, 1});
  }

  // part(i, count, a, a_step, b, b_step): elements i..i + count of the result go with `count`
  // elements at `a`, or one where a_step is 0, and so for b; of so many bytes each. At most one
  // step is 0.
  template <typename Part>
  void each(int64_t i0, int64_t i1, const void* a, int64_t a_bytes, const void* b, int64_t b_bytes,
            Part&& part) const {
    if (i0 >= i1) return;
    const auto *from_a = static_cast<const std::byte*>(a),
               *from_b = static_cast<const std::byte*>(b);
    const Axis& run = axes_[0];
    if (repeats_short_run()) return each_repeated(i0, i1, from_a, a_bytes, from_b, b_bytes, part);
    for (int64_t i = i0; i < i1;) {
      const int64_t inside = i % run.size, count = std::min(run.size - inside, i1 - i);
      const auto [at_a, at_b] = places(i / run.size, 1);
      part(i, count, from_a + (at_a + inside * run.a) * a_bytes, run.a,
           from_b + (at_b + inside * run.b) * b_bytes, run.b);
      i += count;
    }
  }

 private:
  // A dimension of the result, and the steps of the operands along it; 0: repeated.
  struct Axis {
    int64_t size, a, b;
  };
  static constexpr int64_t kTile = 4096;  // bytes

  static std::vector<int64_t> steps(const Shape& x, const Shape& y, bool channels_last) {
    const std::vector<int64_t> own =
        channels_last && x.size() == 4 ? channels_last_strides(x) : contiguous_strides(x);
    std::vector<int64_t> result(y.size(), 0);
    for (size_t d = 0; d < x.size(); ++d)
      if (x[d] != 1) result[d + y.size() - x.size()] = own[d];
    return result;
  }

  // Where the operands are in block i of the dimensions from number `first` outwards.
  std::pair<int64_t, int64_t> places(int64_t i, size_t first) const {
    int64_t a = 0, b = 0;
    for (size_t d = first; d < axes_.size(); ++d) {
      a += i % axes_[d].size * axes_[d].a;
      b += i % axes_[d].size * axes_[d].b;
      i /= axes_[d].size;
    }
    return {a, b};
  }

  // Whether one operand's innermost run comes again and again and is too short to be worth a call:
  // one number for each channel of pixels.
  bool repeats_short_run() const {
    return axes_.size() > 1 && axes_[0].size <= 512 && axes_[0].a == 1 && axes_[0].b == 1 &&
           (axes_[1].a == 0 || axes_[1].b == 0);
  }

  // Such runs are first written behind one another.
  template <typename Part>
  void each_repeated(int64_t i0, int64_t i1, const std::byte* a, int64_t a_bytes,
                     const std::byte* b, int64_t b_bytes, Part&& part) const {
    alignas(64) std::byte tile[kTile + kBufferSlack];
    const int64_t run = axes_[0].size, block = run * axes_[1].size;
    const bool repeats_a = axes_[1].a == 0;
    const int64_t bytes = repeats_a ? a_bytes : b_bytes, own_bytes = repeats_a ? b_bytes : a_bytes,
                  copies = std::clamp<int64_t>(kTile / (run * bytes), 1, axes_[1].size),
                  length = copies * run;
    for (int64_t i = i0; i < i1;) {
      const int64_t end = std::min(i1, (i / block + 1) * block);
      const auto [at_a, at_b] = places(i / block, 2);
      const std::byte* repeated = repeats_a ? a + at_a * bytes : b + at_b * bytes;
      const std::byte* whole = repeats_a ? b + at_b * own_bytes : a + at_a * own_bytes;
      for (int64_t k = 0; k < copies; ++k)
        std::memcpy(tile + k * run * bytes, repeated, static_cast<size_t>(run * bytes));
      while (i < end) {
        const int64_t inside = i % block, phase = inside % run,
                      count = std::min(end - i, length - phase);
        const std::byte *other = tile + phase * bytes, *own = whole + inside * own_bytes;
        part(i, count, repeats_a ? other : own, int64_t{1}, repeats_a ? own : other, int64_t{1});
        i += count;
      }
    }
  }

  std::vector<Axis> axes_;  // the innermost first
};

}  // namespace octet::native
