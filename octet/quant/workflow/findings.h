#pragma once
// What the ranges of a network's values say about codes: operands erased by larger neighbours,
// outliers that leave one code for all other values. One line each, with the place and the cure.
// convert_fx of a graph puts them into ConversionReport::warnings; debug/losses.h finds them in any
// pair of a float and a quantized graph.

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

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
  // Ranges of values that another graph has under other numbers; of values that have none there
  // they are forgotten.
  void renumber(const std::map<graph::ValueId, graph::ValueId>& numbers);
  // Adds what other samples of the same graph have shown. What counts as an outlier depends on the
  // samples before it, so that one that came first elsewhere may be among the outliers or not.
  void merge(const SampleRanges& other);

  const std::map<graph::ValueId, Ranges>& by_value() const { return ranges_; }
  void set(graph::ValueId value, const Ranges& ranges) { ranges_[value] = ranges; }

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

}  // namespace octet::quant
