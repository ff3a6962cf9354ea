#pragma once
// Copies of elements of any dtype by an index along one dimension: what pads, tiles, gathers and
// nearest-neighbour resizing come down to.

#include <bit>
#include <cstring>
#include <vector>

#include "octet/ops/iterate_impl.h"

namespace octet::ops {

// A quantized tensor's codes as a plain tensor; a plain tensor as it is.
inline Tensor elements(const Tensor& x) { return x.is_quantized() ? x.int_repr() : x; }

// The other way round: elements with `quantizer` (null: plain). Shares the memory where they are
// contiguous.
inline Tensor with_quantizer(const Tensor& codes, const QuantizerPtr& quantizer) {
  return quantizer ? make_quantized(codes, quantizer) : codes;
}

// `value` as the bits of one element of a plain dtype.
inline uint64_t element_bits(double value, DType dtype) {
  uint64_t bits = 0;
  const size_t size = element_size(dtype);
  const size_t lowest = std::endian::native == std::endian::big ? sizeof bits - size : 0;
  std::memcpy(reinterpret_cast<std::byte*>(&bits) + lowest, Tensor::scalar(value, dtype).raw_data(),
              size);
  return bits;
}

// y[..., j, ...] = x[..., index[j], ...] along `dim`, or the element with the bits `fill` where
// index[j] < 0. x is a plain tensor; y is row-major.
inline Tensor take(const Tensor& x, int64_t dim, const std::vector<int64_t>& index,
                   uint64_t fill = 0) {
  Tensor source = x.contiguous();
  Shape shape = x.shape();
  const int64_t from = shape[dim], to = static_cast<int64_t>(index.size());
  shape[dim] = to;
  Tensor y = Tensor::empty(shape, x.dtype());
  if (y.numel() == 0) return y;
  int64_t inner = 1;
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= shape[d];
  const int64_t rows = y.numel() / inner;  // of `inner` elements
  visit_bits(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto* in = static_cast<const T*>(source.raw_data());
    auto* out = static_cast<T*>(y.raw_data());
    const T blank = static_cast<T>(fill);
    parallel_ranges(rows, std::max<int64_t>(1, kGrain / inner), [&](int64_t begin, int64_t end) {
      int64_t j = begin % to;
      const T* block = in + begin / to * from * inner;
      T* q = out + begin * inner;
      for (int64_t r = begin; r < end; ++r, q += inner) {
        if (index[j] < 0)
          std::fill_n(q, inner, blank);
        else if (inner == 1)
          *q = block[index[j]];
        else
          std::memcpy(q, block + index[j] * inner, inner * sizeof(T));
        if (++j == to) {
          j = 0;
          block += from * inner;
        }
      }
    });
  });
  return y;
}

// The gradient of take: dx[..., index[j], ...] = the sum of dy[..., j, ...], for a dx of `from`
// elements along `dim`. Adds in the order of j.
inline Tensor take_gradient(const Tensor& gradient, int64_t dim, const std::vector<int64_t>& index,
                            int64_t from) {
  Tensor dy = gradient.contiguous();
  Shape shape = dy.shape();
  shape[dim] = from;
  Tensor dx = Tensor::zeros(shape, dy.dtype());
  if (dy.numel() == 0) return dx;
  int64_t inner = 1;
  for (int64_t d = dim + 1; d < dy.dim(); ++d) inner *= shape[d];
  const auto to = static_cast<int64_t>(index.size());
  visit_float(dy.dtype(), "gradient", [&](auto zero) {
    using T = decltype(zero);
    const T* in = dy.data<T>();
    T* out = dx.data<T>();
    parallel_ranges(dy.numel() / (inner * to), std::max<int64_t>(1, kGrain / (inner * to)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t block = begin; block < end; ++block)
                        for (int64_t j = 0; j < to; ++j) {
                          if (index[j] < 0) continue;
                          const T* __restrict p = in + (block * to + j) * inner;
                          T* __restrict q = out + (block * from + index[j]) * inner;
                          for (int64_t i = 0; i < inner; ++i) q[i] += p[i];
                        }
                    });
  });
  return dx;
}

}  // namespace octet::ops
