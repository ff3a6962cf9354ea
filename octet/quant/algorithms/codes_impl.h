#pragma once
// The codes of a layer's weights as the unknowns of its least-squares problem
// (reconstruction_impl.h): their grids, and ways to choose them.

#include <cstdint>
#include <vector>

#include "octet/quant/algorithms/reconstruction_impl.h"

namespace octet::quant {

// The grids of a weight (outputs, k): `block` inputs of a row share a scale (k: all of them). A
// code c stands for scale * c, c an integer within lo..hi (zero points are taken off).
struct Grids {
  int64_t block = 1, blocks = 1;     // inputs of a scale; scales of a row
  std::vector<float> scale, lo, hi;  // by row, then by block
  bool per_channel = false;

  Grids() = default;
  // One for each channel, or one for all.
  Grids(const QParams& q, int64_t channels, int64_t k);
  size_t at(int64_t row, int64_t column) const {
    return static_cast<size_t>(row * blocks + column / block);
  }
  float code(size_t at, float value) const;  // the nearest to a value
};

// One group of a layer: its problem, and the codes of its outputs (floats that are integers).
struct GroupCodes {
  LayerProblem problem;
  int64_t first = 0;  // its first output channel, a row of the grids
  std::vector<float> codes;

  Tensor error(const Grids& grids) const;          // w - scale * codes
  double squared_error(const Grids& grids) const;  // e h e^T
  void round_to_nearest(const Grids& grids);
  // GPTQ, as the nearest plane of h's lattice: with h = l l^T, column i is rounded to
  // w_i + sum over k > i of e_k l_ki / l_ii, from the last to the first.
  void round_by_columns(const Grids& grids);
  // Turns of coordinate descent, until no code changes, but at most so many.
  void descend(const Grids& grids, int turns);

 private:
  int64_t sweep(const Grids& grids);  // one turn; how many codes changed
};

// The problems of a layer's groups, without codes.
std::vector<GroupCodes> make_groups(const LayerStep& step, int64_t rows, double damping);

// Sets the range with the least squared error of the weights, weighted by h's diagonal, among the
// full one shrunk to 1/100, 2/100, ... of itself; each output's, or one for all.
void search_ranges(ObservedGraphModule& prepared, const PreparedLayer& layer,
                   const std::vector<GroupCodes>& groups);
// Sets the range of each scale so that it is the best one for the codes: s = c h w / c h c.
void fit_scales(ObservedGraphModule& prepared, const PreparedLayer& layer, const Grids& grids,
                const std::vector<GroupCodes>& groups);
// Sets the ranges of the layer's weight so that its scales are these, whatever the weight is.
void set_scales(ObservedGraphModule& prepared, const PreparedLayer& layer,
                const std::vector<double>& scales);
// Keeps the ranges that the weight's observer has chosen, or would choose of the weight as it is
// now, when the weight changes.
void keep_range(ObservedGraphModule& prepared, const PreparedLayer& layer);
// Sets the layer's weight, with the ranges as they are.
void set_weight_only(ObservedGraphModule& prepared, const PreparedLayer& layer,
                     const Tensor& weight);
// The weight of these codes, with the ranges that are set.
void set_codes(ObservedGraphModule& prepared, const LayerStep& step, const Grids& grids,
               const std::vector<GroupCodes>& groups);

}  // namespace octet::quant
