#pragma once
// What went wrong in a quantized graph, said in words: results that differ too much, operands
// erased by larger neighbours, outliers that leave one code for all other values. One line each,
// with the place and the cure:
//
//   for (const std::string& line : quant::find_losses(float_graph, int8_graph, samples))
//     std::cerr << line << "\n";
//
// convert_fx of a PreparedGraph puts what it finds about ranges into ConversionReport::warnings by
// itself.

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

// How far a quantized result is from the float one, over all tensors that were added.
struct SignalToNoise {
  double signal = 0, noise = 0;  // sums of squares of the float values, and of the differences
  // Tensors of one shape, float or quantized; elements whose float value is not finite are left
  // out.
  void add(const Tensor& expected, const Tensor& actual);
  // 10 log10(signal / noise): infinite without noise, NaN where the quantized result is.
  double db() const;
};

// Below this an output is taken for garbage: noise of more than a sixth of the signal, in RMS.
inline constexpr double kPoorSqnr = 15;

// The ranges of some of a float graph's values over all samples that were shown: what streams
// through calibration. Memory does not depend on the number of samples; a pass over each value is
// what it costs.
class SampleRanges {
 public:
  struct Range {
    float min = 0, max = -1;  // empty while min > max
    bool empty() const { return min > max; }
    float magnitude() const { return empty() ? 0 : std::max(-min, max); }
    void add(const Range& other);
  };
  struct Ranges {
    // Of all samples but the one with the largest values, and of that. Both are without outliers:
    // the elements, at most 1 in 1000 (or one) of their sample, next to which all others of that
    // sample are less than 1/256.
    Range rest, largest;
    int64_t largest_sample = -1;
    Range outliers;
    float outlier = 0;  // the largest of them, and its sample
    int64_t outlier_sample = -1;
    int64_t values = 0, outlier_count = 0;
    Range all() const;
  };

  // `x` is the value of `batch` samples along dimension 0, the first of which is number `first`;
  // where dimension 0 has another size, it counts as one sample.
  void add(graph::ValueId value, const Tensor& x, int64_t first, int64_t batch);
  // Null for values that were never shown.
  const Ranges* find(graph::ValueId value) const;

 private:
  std::map<graph::ValueId, Ranges> ranges_;
};

// The operands whose ranges lost_ranges() compares with the scale of their result: those of cat,
// add and sub.
std::vector<graph::ValueId> compared_operands(const graph::Graph& graph);

// Operands of cat, add and sub all of whose values lie within one step of the result's scale; and
// tensors in which an outlier, or one sample, leaves a single code for all the rest. `qtype_of`
// gives the codes of a float graph's value, if it has any.
std::vector<std::string> lost_ranges(
    const graph::Graph& graph, const SampleRanges& ranges,
    const std::function<std::optional<ops::QType>(graph::ValueId)>& qtype_of);

// The outputs under kPoorSqnr, each with the node where the error grows most, which a run of both
// graphs on `inputs` (one batch, a sample or few) finds. `outputs` has one entry for each output of
// the graphs.
std::vector<std::string> poor_outputs(const graph::Graph& before, const graph::Graph& after,
                                      const std::vector<SignalToNoise>& outputs,
                                      const std::vector<Tensor>& inputs);

// All of it, for a float graph and what became of it (names of values as convert_fx gives them);
// each sample is a batch of inputs in the graph's order. Both graphs are run on all samples.
std::vector<std::string> find_losses(const graph::Graph& before, const graph::Graph& after,
                                     const std::vector<std::vector<Tensor>>& samples);

}  // namespace octet::quant
