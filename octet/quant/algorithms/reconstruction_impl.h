#pragma once
// A layer as a least-squares problem: rows of its operand (what one element of the result is
// computed from) in the float and in the quantized network.

#include <cstdint>
#include <vector>

#include "octet/quant/algorithms/layerwise_impl.h"

namespace octet::quant {

// Conv1d, 2d, 3d and linear; transposed convolutions have no such rows.
bool has_rows(const PreparedLayer& layer);

// Elements of a layer's results on all samples, by batch and number: all, or `count` of them spread
// evenly and drawn by a fixed seed. The same in both networks.
std::vector<std::vector<int64_t>> choose_rows(const LayerStep& step, int64_t count);

// The rows of x (the layer's operand on a batch) of one group: (rows, in / groups * taps), in the
// weight's order.
Tensor gather_rows(const PreparedLayer& layer, const Tensor& x, const Shape& weight, int64_t group,
                   const std::vector<int64_t>& rows);

// One group's problem: the quantized weight q (outputs, k) is to have the least
//  (w - q) h (w - q)^T,
// where h = E[x' x'^T] is centred (the bias takes the means) and damped, and w solves
// w h = E[y x'^T]: the float weight, mended for what the layers before have lost.
struct LayerProblem {
  int64_t outputs = 0, k = 0;
  Tensor w, h;
};
LayerProblem make_problem(const LayerStep& step, int64_t group,
                          const std::vector<std::vector<int64_t>>& rows, double damping);

// The lower triangle l of h = l l^T, zeros above; h is positive definite. In float32.
Tensor cholesky(const Tensor& h);
// The x of x h = b for h = l l^T; b (rows, k).
Tensor solve_cholesky(const Tensor& l, const Tensor& b);

}  // namespace octet::quant
