#pragma once
// Which elements of an operand each element of a resized dimension is made of: what the operator
// interpolate and its kernels share. docs/numerics.md is the contract.

#include <cstdint>
#include <string>
#include <vector>

#include "octet/engine/engine.h"

namespace octet::engine_detail {

// How one dimension is resized: position x of the result is at x * numerator / denominator (of the
// operand's elements), before the coordinate mode's shifts. The part of x that is shown lies
// between the fractions first and last ("tf_crop_and_resize" only).
struct Resize {
  Dim out = Dim(1);
  bool changes = false;
  double numerator = 1, denominator = 1;
  double first = 0, last = 1;
};

// One for each dimension of an operand of these dims, which may be symbolic. Error
// invalid_argument: size, scales or roi do not fit the dims, or are out of range.
std::vector<Resize> resizes(const std::vector<Dim>& x, const Attrs& attrs);

// The attributes that say how positions become elements. Error invalid_argument: an unknown name.
struct ResizeModes {
  std::string mode, coordinates, rounding;
  double cubic;
  bool exclude_outside, antialias, joint;
  explicit ResizeModes(const Attrs& attrs);
  bool nearest() const { return mode == "nearest"; }
  bool crops() const { return coordinates == "tf_crop_and_resize"; }
};

// Whether element x of n_out lies beyond the operand's first and last elements
// ("tf_crop_and_resize" gives those a value of their own).
bool shows_outside(int64_t x, int64_t n_in, int64_t n_out, const Resize& r,
                   const ResizeModes& modes);

// The element that each of n_out positions shows, of n_in. For mode "nearest".
std::vector<int64_t> nearest_index(int64_t n_in, int64_t n_out, const Resize& r,
                                   const ResizeModes& modes);

// The elements and weights that make up each of n_out positions, `count` of each: position x is the
// sum of weight[x * count + k] times element index[x * count + k]. For modes "linear" and "cubic".
// Error invalid_argument: antialias at a scale below 2^-20.
struct ResizeTaps {
  int64_t count = 0;
  std::vector<int64_t> index;  // ascending, but where it is cut at an edge
  std::vector<double> weight;
};
ResizeTaps resize_taps(int64_t n_in, int64_t n_out, const Resize& r, const ResizeModes& modes);

// Whether the last two dimensions, the only ones that change, are resized at once: ONNX Runtime's
// arithmetic for images (docs/numerics.md).
bool is_joint(const std::vector<Resize>& resizes, const ResizeModes& modes);
// The two elements of each of n_out positions then, and their weights along this dimension, in
// float32.
struct ResizePairs {
  std::vector<int64_t> first, second;
  std::vector<float> first_weight, second_weight;
};
ResizePairs resize_pairs(int64_t n_in, int64_t n_out, const Resize& r, const ResizeModes& modes);

}  // namespace octet::engine_detail
