#pragma once
// What lies in memory where no operand does must not reach a result.

#include <cstring>
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

}  // namespace octet::testing
