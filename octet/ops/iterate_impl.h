#pragma once
// Loops over strided operands: what the operators' plain evaluations are written with.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/tensor/tensor.h"

namespace octet::ops {

// Elements per task below which threads are not worth their start.
inline constexpr int64_t kGrain = 32768;

// N operands walked together over one shape. Dimensions that lie together in every operand are
// merged, so contiguous operands are one row, and a per-channel operand is a row per channel with
// step 0.
template <size_t N>
class Walk {
 public:
  using Offsets = std::array<int64_t, N>;  // in elements, one per operand

  // `any_order`: the order of visits does not matter, so it follows operand 0's memory; else it is
  // row-major.
  Walk(const Shape& shape, const std::array<std::vector<int64_t>, N>& strides,
       bool any_order = true);

  int64_t rows() const { return empty_ ? 0 : rows_; }
  int64_t row_size() const { return row_; }

  // Calls fn(offsets, n, steps) for every row in order; `base` is where element 0 is.
  template <typename Fn>
  void each_row(Fn&& fn, Offsets base = {}) const {
    if (!empty_) some_rows(0, rows_, base, fn);
  }

  // The same on all threads; long rows are cut in pieces.
  template <typename Fn>
  void run(const Fn& fn, int64_t grain = kGrain) const {
    run_rows({[](const void* f, const Offsets& offsets, int64_t n, const Offsets& steps) {
                (*static_cast<const Fn*>(f))(offsets, n, steps);
              },
              &fn},
             grain);
  }

 private:
  // A function of one row. The loops over rows and threads are compiled once, not with each
  // function of a hundred operators.
  struct RowFn {
    void (*call)(const void*, const Offsets&, int64_t, const Offsets&);
    const void* object;
    void operator()(const Offsets& offsets, int64_t n, const Offsets& steps) const {
      call(object, offsets, n, steps);
    }
  };
  void run_rows(RowFn fn, int64_t grain) const;

  template <typename Fn>
  void some_rows(int64_t begin, int64_t end, Offsets offsets, Fn&& fn) const {
    std::vector<int64_t> index(sizes_.size());
    int64_t rest = begin;
    for (size_t d = sizes_.size(); d-- > 0;) {
      index[d] = rest % sizes_[d];
      rest /= sizes_[d];
      for (size_t k = 0; k < N; ++k) offsets[k] += index[d] * steps_[d][k];
    }
    for (int64_t r = begin; r < end; ++r) {
      fn(offsets, row_, step_);
      for (size_t d = sizes_.size(); d-- > 0;) {
        for (size_t k = 0; k < N; ++k) offsets[k] += steps_[d][k];
        if (++index[d] < sizes_[d]) break;
        for (size_t k = 0; k < N; ++k) offsets[k] -= steps_[d][k] * sizes_[d];
        index[d] = 0;
      }
    }
  }

  std::vector<int64_t> sizes_;  // outer dimensions, after merging
  std::vector<Offsets> steps_;
  int64_t row_ = 1, rows_ = 1;
  Offsets step_{};
  bool empty_ = false;
};

// iterate.cpp.
extern template class Walk<1>;
extern template class Walk<2>;
extern template class Walk<3>;
extern template class Walk<4>;

// channels_last where a tensor lies so in memory (and is not row-major too).
inline MemoryFormat format_of(const Tensor& x) {
  return !x.is_contiguous() && x.is_contiguous(MemoryFormat::channels_last)
             ? MemoryFormat::channels_last
             : MemoryFormat::contiguous;
}

// y = f(x), element by element. In and Out are the storage types of x and y.
template <typename In, typename Out, typename Fn>
void map_into(const Tensor& x, Tensor& y, Fn f) {
  const auto* in = static_cast<const In*>(x.raw_data());
  auto* out = static_cast<Out*>(y.raw_data());
  Walk<2>(x.shape(), {y.strides(), x.strides()})
      .run([=](const auto& at, int64_t n, const auto& step) {
        const In* __restrict a = in + at[1];
        Out* __restrict b = out + at[0];
        if (step[0] == 1 && step[1] == 1) {
          for (int64_t i = 0; i < n; ++i) b[i] = f(a[i]);
        } else {
          for (int64_t i = 0; i < n; ++i) b[i * step[0]] = f(a[i * step[1]]);
        }
      });
}

// y = f(a, b), broadcasting a and b to y's shape. A and B are the storage types of a and b.
template <typename A, typename B, typename Out, typename Fn>
void zip_into(const Tensor& a, const Tensor& b, Tensor& y, Fn f) {
  const auto* pa = static_cast<const A*>(a.raw_data());
  const auto* pb = static_cast<const B*>(b.raw_data());
  auto* py = static_cast<Out*>(y.raw_data());
  Walk<3> walk(y.shape(),
               {y.strides(), a.expand(y.shape()).strides(), b.expand(y.shape()).strides()});
  walk.run([=](const auto& at, int64_t n, const auto& step) {
    const A* __restrict p = pa + at[1];
    const B* __restrict q = pb + at[2];
    Out* __restrict out = py + at[0];
    if (step[0] == 1 && step[1] == 1 && step[2] == 1) {
      for (int64_t i = 0; i < n; ++i) out[i] = f(p[i], q[i]);
    } else if (step[0] == 1 && step[1] == 1 && step[2] == 0) {
      for (int64_t i = 0; i < n; ++i) out[i] = f(p[i], q[0]);
    } else if (step[0] == 1 && step[1] == 0 && step[2] == 1) {
      for (int64_t i = 0; i < n; ++i) out[i] = f(p[0], q[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) out[i * step[0]] = f(p[i * step[1]], q[i * step[2]]);
    }
  });
}

// The layout of the result of an elementwise operator of a and b: that of the operand that has the
// result's shape.
inline MemoryFormat format_of(const Tensor& a, const Tensor& b, const Shape& shape) {
  if (a.shape() == shape) return format_of(a);
  return b.shape() == shape ? format_of(b) : MemoryFormat::contiguous;
}

// Calls fn with a value of the storage type of any dtype but float16 and bfloat16 (codes for
// quantized ones).
template <typename Fn>
auto visit_any(DType dtype, std::string_view who, Fn&& fn) {
  switch (dtype) {
    case DType::float32:
      return fn(float{});
    case DType::float64:
      return fn(double{});
    case DType::int64:
      return fn(int64_t{});
    case DType::int32:
    case DType::qint32:
      return fn(int32_t{});
    case DType::int16:
    case DType::qint16:
      return fn(int16_t{});
    case DType::uint16:
    case DType::quint16:
      return fn(uint16_t{});
    case DType::int8:
    case DType::qint8:
      return fn(int8_t{});
    case DType::uint8:
    case DType::quint8:
      return fn(uint8_t{});
    case DType::bool_:
      return fn(bool{});
    default:
      break;
  }
  OCTET_FAIL(unsupported, "{}: {} operands are not supported; convert them to float32", who,
             to_string(dtype));
}

// The four dtypes that arithmetic is done in (see widened() in define_impl.h).
template <typename Fn>
auto visit_arithmetic(DType dtype, std::string_view who, Fn&& fn) {
  switch (dtype) {
    case DType::float32:
      return fn(float{});
    case DType::float64:
      return fn(double{});
    case DType::int64:
      return fn(int64_t{});
    case DType::int32:
      return fn(int32_t{});
    default:
      break;
  }
  OCTET_FAIL(unsupported, "{}: {} operands are not supported; convert them to float32 or int64",
             who, to_string(dtype));
}

template <typename Fn>
auto visit_float(DType dtype, std::string_view who, Fn&& fn) {
  if (dtype == DType::float32) return fn(float{});
  if (dtype == DType::float64) return fn(double{});
  OCTET_FAIL(invalid_argument, "{}: the operand is {}; expected a floating dtype", who,
             to_string(dtype));
}

// Calls fn with an unsigned integer as wide as an element, for code that only moves elements.
template <typename Fn>
auto visit_bits(DType dtype, Fn&& fn) {
  switch (element_size(dtype)) {
    case 1:
      return fn(uint8_t{});
    case 2:
      return fn(uint16_t{});
    case 4:
      return fn(uint32_t{});
    default:
      return fn(uint64_t{});
  }
}

}  // namespace octet::ops
