#pragma once
// What lies in memory where no operand does must not reach a result.

#include <cstring>
#include <memory>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet::testing {

// Fills the bytes behind each operand, which kernels may read (kBufferSlack), as memory that a
// program planned has them: with anything. Views into a buffer and constants without an owner are
// left alone.
inline void fill_slack(const std::vector<Tensor>& operands, int byte) {
  for (const Tensor& t : operands)
    if (t.defined() && static_cast<size_t>(t.nbytes()) == t.buffer().bytes())
      std::memset(t.buffer().data() + t.buffer().bytes(), byte, kBufferSlack);
}

// A copy that begins so many bytes behind a 64-byte boundary, as rows of a larger tensor do; what
// is not contiguous, and what has no bytes, stays as it is.
inline Tensor shifted(const Tensor& t, size_t bytes) {
  if (!t.defined() || !t.is_contiguous() || t.nbytes() == 0) return t;
  const auto size = static_cast<size_t>(t.nbytes());
  auto all = std::make_shared<Buffer>(Buffer::allocate(bytes + size));
  std::memcpy(all->data() + bytes, t.raw_data(), size);
  return Tensor::wrap(Buffer::wrap(all->data() + bytes, size, all), t.shape(), t.dtype(),
                      t.quantizer());
}

}  // namespace octet::testing
