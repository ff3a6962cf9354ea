#include "octet/engine/moves_impl.h"

#include <algorithm>

#include "octet/engine/resize_impl.h"

namespace octet::engine_detail {

std::vector<int64_t> Span::indices() const {
  std::vector<int64_t> index(count);
  for (int64_t i = 0; i < count; ++i) index[i] = start + i * step;
  return index;
}

Span slice_span(int64_t start, int64_t end, int64_t step, int64_t n) {
  if (start < 0) start += n;
  if (end < 0) end += n;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, n);
    end = std::clamp<int64_t>(end, start, n);
    return {start, step, end > start ? (end - start - 1) / step + 1 : 0};
  }
  start = std::clamp<int64_t>(start, -1, n - 1);
  end = std::clamp<int64_t>(end, -1, start);
  // -step may not be representable: |step| - 1 is.
  auto less_one = static_cast<uint64_t>(-(step + 1));
  return {start, step,
          start > end
              ? static_cast<int64_t>(static_cast<uint64_t>(start - end - 1) / (less_one + 1)) + 1
              : 0};
}

std::vector<int64_t> pad_index(int64_t n, int64_t before, int64_t after, const std::string& mode) {
  std::vector<int64_t> index;
  for (int64_t i = -before; i < n + after; ++i) {
    bool inside = i >= 0 && i < n;
    if (inside)
      index.push_back(i);
    else if (mode == "constant")
      index.push_back(-1);
    else if (mode == "edge")
      index.push_back(i < 0 ? 0 : n - 1);
    else if (mode == "wrap")
      index.push_back(i < 0 ? i + n + std::min<int64_t>(after, 0)
                            : i - n - std::min<int64_t>(before, 0));
    else
      index.push_back(i < 0 ? -i : 2 * (n - 1) - i);
  }
  return index;
}

std::vector<int64_t> tile_index(int64_t n, int64_t repeats) {
  std::vector<int64_t> index(n * repeats);
  for (int64_t i = 0; i < n * repeats; ++i) index[i] = i % n;
  return index;
}

MoveIndices move_indices(const std::string& op, const Attrs& attrs, const Shape& x, size_t result) {
  MoveIndices indices(x.size());
  auto dimension = [&] {
    const int64_t dim = attrs.get_int("dim");
    return static_cast<size_t>(dim < 0 ? dim + static_cast<int64_t>(x.size()) : dim);
  };
  if (op == "slice") {
    const size_t d = dimension();
    indices[d] =
        slice_span(attrs.get_int("start"), attrs.get_int("end"), attrs.get_int("step"), x[d])
            .indices();
  } else if (op == "split") {
    const std::vector<int64_t>& sizes = attrs.get_ints("sizes");
    int64_t start = 0;
    for (size_t i = 0; i < result; ++i) start += sizes[i];
    indices[dimension()] = Span{start, 1, sizes[result]}.indices();
  } else if (op == "pad") {
    const std::vector<int64_t>& pads = attrs.get_ints("pads");
    for (size_t d = 0; d < x.size(); ++d)
      if (const int64_t before = pads[d], after = pads[d + x.size()]; before != 0 || after != 0)
        indices[d] = pad_index(x[d], before, after, attrs.get_string("mode"));
  } else if (op == "tile") {
    const std::vector<int64_t>& repeats = attrs.get_ints("repeats");
    for (size_t d = 0; d < x.size(); ++d)
      if (repeats[d] != 1) indices[d] = tile_index(x[d], repeats[d]);
  } else if (op == "interpolate") {
    const ResizeModes modes(attrs);
    if (!modes.nearest() || modes.crops()) return {};
    const std::vector<Resize> plan = resizes(TensorType(DType::float32, x).dims, attrs);
    for (size_t d = 0; d < x.size(); ++d)
      if (plan[d].changes) indices[d] = nearest_index(x[d], plan[d].out.size(), plan[d], modes);
  } else {
    return {};
  }
  return indices;
}

}  // namespace octet::engine_detail
