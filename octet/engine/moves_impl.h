#pragma once
// Operators that copy elements by an index along each dimension: which element each position shows.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/engine/engine.h"

namespace octet::engine_detail {

// Elements start, start + step, ... (count of them) of a dimension.
struct Span {
  int64_t start, step, count;
  std::vector<int64_t> indices() const;
};
// start:end:step of n elements, as NumPy and ONNX have it: negatives count from the end, what is
// outside is clamped. step is not 0.
Span slice_span(int64_t start, int64_t end, int64_t step, int64_t n);

// Which of n elements each position of the padded dimension shows; -1: the constant. Modes
// "constant", "reflect", "edge" and "wrap", as the operator pad has them.
std::vector<int64_t> pad_index(int64_t n, int64_t before, int64_t after, const std::string& mode);

// n elements, `repeats` times over.
std::vector<int64_t> tile_index(int64_t n, int64_t repeats);

// By dimension; null: all elements, in their order.
using MoveIndices = std::vector<std::optional<std::vector<int64_t>>>;
// Of result number `result` of a call of slice, split, pad, tile or interpolate (mode "nearest") on
// an operand of this shape. Empty: another operator, or one that cannot be said so.
MoveIndices move_indices(const std::string& op, const Attrs& attrs, const Shape& x, size_t result);

}  // namespace octet::engine_detail
