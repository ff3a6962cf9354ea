#include "octet/ops/iterate_impl.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace octet::ops {

template <size_t N>
Walk<N>::Walk(const Shape& shape, const std::array<std::vector<int64_t>, N>& strides,
              bool any_order) {
  std::vector<size_t> order;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 0) empty_ = true;
    if (shape[d] != 1) order.push_back(d);
  }
  if (any_order)
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return std::abs(strides[0][a]) > std::abs(strides[0][b]);
    });
  for (size_t d : order) {
    Offsets step;
    for (size_t k = 0; k < N; ++k) step[k] = strides[k][d];
    bool merges = !sizes_.empty();
    for (size_t k = 0; k < N && merges; ++k) merges = steps_.back()[k] == step[k] * shape[d];
    if (merges) {
      sizes_.back() *= shape[d];
      steps_.back() = step;
    } else {
      sizes_.push_back(shape[d]);
      steps_.push_back(step);
    }
  }
  if (!sizes_.empty()) {
    row_ = sizes_.back();
    step_ = steps_.back();
    sizes_.pop_back();
    steps_.pop_back();
  } else
    step_.fill(1);  // one element: any step will do, and 1 is the fast one
  rows_ = std::accumulate(sizes_.begin(), sizes_.end(), int64_t{1}, std::multiplies<>());
}

template <size_t N>
void Walk<N>::run_rows(RowFn fn, int64_t grain) const {
  if (empty_) return;
  if (rows_ == 1) {
    parallel_ranges(row_, grain, [&](int64_t begin, int64_t end) {
      Offsets offsets;
      for (size_t k = 0; k < N; ++k) offsets[k] = begin * step_[k];
      fn(offsets, end - begin, step_);
    });
  } else {
    parallel_ranges(rows_, std::max<int64_t>(1, grain / row_),
                    [&](int64_t begin, int64_t end) { some_rows(begin, end, Offsets{}, fn); });
  }
}

template class Walk<1>;
template class Walk<2>;
template class Walk<3>;
template class Walk<4>;

}  // namespace octet::ops
