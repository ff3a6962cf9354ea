#pragma once
// Output sizes of sliding windows (conv, pools), shared by their type inferences.

#include <algorithm>
#include <string>

#include "octet/base/check_impl.h"
#include "octet/ops/op.h"
#include "octet/ops/symbolic_impl.h"

namespace octet::ops {

// floor or ceil((in + begin + end - dilation*(kernel-1) - 1) / stride) + 1. With ceil_mode the last
// window must start inside the image or its left padding (PyTorch's rule). A symbolic size gives
// floor((in + rest) / stride), "[[H+1]/2]".
inline Dim window_size(const Dim& in, int64_t kernel, int64_t stride, int64_t begin, int64_t end,
                       int64_t dilation, bool ceil_mode, const std::string& who) {
  OCTET_CHECK(stride >= 1 && dilation >= 1 && begin >= 0 && end >= 0 && kernel >= 1,
              invalid_argument,
              "{}: kernel {}, stride {}, dilation {}, padding {}, {}: expected positive sizes and "
              "padding of 0 or more",
              who, kernel, stride, dilation, begin, end);
  const int64_t more = begin + end - dilation * (kernel - 1) - 1;
  if (!in.known()) {
    // With ceil_mode the last window may be left out: that depends on the size.
    if (ceil_mode && stride > 1 && begin > 0)
      return Dim(fmt::format("[ceil:{}:{}:{}:{}]", in.name(), more, stride, begin));
    return divided_sum(in, more + stride + (ceil_mode ? stride - 1 : 0), stride);
  }
  int64_t span = in.size() + begin + end - dilation * (kernel - 1) - 1;
  OCTET_CHECK(span >= 0, invalid_argument,
              "{}: a window of {} does not fit an image of {} padded by {} and {}", who,
              dilation * (kernel - 1) + 1, in.size(), begin, end);
  int64_t out = (ceil_mode ? (span + stride - 1) / stride : span / stride) + 1;
  if (ceil_mode && (out - 1) * stride >= in.size() + begin) --out;
  return out;
}

// (in-1)*stride - begin - end + dilation*(kernel-1) + output_padding + 1: what a transposed
// convolution makes of `in`.
inline Dim transposed_size(const Dim& in, int64_t kernel, int64_t stride, int64_t begin,
                           int64_t end, int64_t dilation, int64_t output_padding,
                           const std::string& who) {
  OCTET_CHECK(stride >= 1 && dilation >= 1 && begin >= 0 && end >= 0 && kernel >= 1,
              invalid_argument,
              "{}: kernel {}, stride {}, dilation {}, padding {}, {}: expected positive sizes and "
              "padding of 0 or more",
              who, kernel, stride, dilation, begin, end);
  OCTET_CHECK(
      output_padding >= 0 && output_padding < std::max(stride, dilation), invalid_argument,
      "{}: output_padding {}; expected 0 or more and less than the stride {} or the dilation {}",
      who, output_padding, stride, dilation);
  if (!in.known())
    return plus(multiply(in, Dim(stride)),
                -stride - begin - end + dilation * (kernel - 1) + output_padding + 1);
  int64_t out =
      (in.size() - 1) * stride - begin - end + dilation * (kernel - 1) + output_padding + 1;
  OCTET_CHECK(out >= 1, invalid_argument,
              "{}: an image of {} with kernel {}, stride {} and padding {}, {} leaves nothing", who,
              in.size(), kernel, stride, begin, end);
  return out;
}

inline void check_list(const Attrs& attrs, const char* name, size_t size, const std::string& who) {
  OCTET_CHECK(attrs.get_ints(name).size() == size, invalid_argument,
              "{}: attribute {}={}: expected {} numbers", who, name, to_string(attrs.get(name)),
              size);
}

}  // namespace octet::ops
