#pragma once
// What kernels by rows share: plans over the elements or the rows of a result, and how one operand
// of an elementwise operator is repeated over it.

#include <algorithm>
#include <optional>

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

enum class Repeat {
  none,     // it has the result's shape
  number,   // one element for all
  tail,     // it has the result's last dimensions (a bias)
  per_row,  // one element for each row of the result (a mean with keepdim)
};

// Null: in another way.
inline std::optional<Repeat> repeat_of(const TensorType& operand, const TensorType& y) {
  if (operand.dims == y.dims) return Repeat::none;
  if (operand.dims.size() == y.dims.size() && !y.dims.empty() && operand.dims.back() == Dim(1) &&
      std::equal(operand.dims.begin(), operand.dims.end() - 1, y.dims.begin()))
    return Repeat::per_row;
  if (!operand.is_static()) return std::nullopt;
  if (numel(operand.shape()) == 1) return Repeat::number;
  size_t first = 0;
  while (operand.dims[first] == Dim(1)) ++first;
  const size_t tail = operand.dims.size() - first;
  if (tail > y.dims.size() ||
      !std::equal(operand.dims.begin() + static_cast<std::ptrdiff_t>(first), operand.dims.end(),
                  y.dims.end() - static_cast<std::ptrdiff_t>(tail)))
    return std::nullopt;
  return Repeat::tail;
}

// Cuts a range of the result's elements where the repeated operand starts again.
class RepeatedParts {
 public:
  RepeatedParts(Repeat repeat, const Shape& operand, const Shape& y)
      : repeat_(repeat),
        period_(repeat == Repeat::per_row ? std::max<int64_t>(1, y.back())
                                          : std::max<int64_t>(1, numel(operand))) {}

  // part(i, count, j, one): elements i..i + count of the result go with element j of the operand if
  // `one`, else with j..j + count.
  template <typename Part>
  void each(int64_t i0, int64_t i1, Part&& part) const {
    if (repeat_ == Repeat::none) return part(i0, i1 - i0, i0, false);
    if (repeat_ == Repeat::number) return part(i0, i1 - i0, int64_t{0}, true);
    for (int64_t i = i0; i < i1;) {
      const int64_t inside = i % period_, count = std::min(period_ - inside, i1 - i);
      if (repeat_ == Repeat::per_row)
        part(i, count, i / period_, true);
      else
        part(i, count, inside, false);
      i += count;
    }
  }

 private:
  Repeat repeat_;
  int64_t period_;
};

}  // namespace octet::native
