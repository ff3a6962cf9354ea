#pragma once
// Activation ranges chosen tensor by tensor, by what rounding to them does to the network's output.
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig());
//   for (const auto& batch : samples) prepared->forward(batch);  // calibrate
//   quant::choose_ranges(*prepared, samples);
//   graph::Graph int8 = quant::convert_fx(prepared)->graph();

#include <functional>
#include <string>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

// Observers that keep HistogramObserver's histogram, each with its options that choose a range:
// percentiles 99.9, 99.99, 99.999 and 100 (the full range), mse and histogram.
std::vector<ObserverFactory> default_range_candidates();

struct ChooseRangesOptions {
  std::vector<ObserverFactory> candidates = default_range_candidates();
  // Random directions for each batch; one forward and one backward pass each. 1 or more.
  int probes = 1;
  std::function<void(size_t done, size_t all)> progress = {};  // after each pass
};

struct ChosenRange {
  std::string value;         // the observer's label: the first value that it watches
  ObserverFactory observer;  // the candidate that was chosen, with the options of the value's own
  // Estimates of the squared error of all outputs over all samples: with the observer that was
  // there, and with the one chosen.
  double before = 0, after = 0;
};

// Each activation observer of the calibrated graph that keeps a histogram (HistogramObserver and
// those of calibrators.h and aciq.h) is replaced by the candidate whose range costs the outputs
// least; the histogram stays. For the error e that rounding to a candidate's codes makes of a value
// on the float network, and the Jacobian J of the outputs, the cost is
//  E (e . J^T u)^2 + sum over blocks b of E (e_b . (J^T u)_b)^2,  u independent standard normal,
// a block being 64 elements that lie behind one another; summed over batches. The first is the
// noise |J e|^2 of the outputs to first order, as debug::SensitivityMethod::estimate has it: errors
// that have one sign all over a value, as clipping makes them, add up. The second is the same with
// the errors of different blocks taken as independent, and needs far fewer directions u to tell
// candidates apart. One pass measures all candidates of all values. An
// observer that several values share is judged by the sum over those that it is shown. Values that
// no float output depends on keep their observers.
//
// Returned: those that changed. `samples`: batches of inputs in the graph's order; their
// activations and gradients are in memory one batch at a time. Deterministic: the directions are
// seeded. Errors: not_calibrated; invalid_argument without samples, candidates or probes, or for
// candidates without a histogram; unsupported if an operator on the way has no gradient
// (autograd::backward).
std::vector<ChosenRange> choose_ranges(ObservedGraphModule& prepared,
                                       const std::vector<std::vector<Tensor>>& samples,
                                       const ChooseRangesOptions& options = {});

// The observer at `path` of the prepared graph becomes one of this factory's class and range
// options (percentile), with the dtype and codes that it had and all that it has seen. Error
// invalid_argument unless both keep a histogram.
void replace_observer(ObservedGraphModule& prepared, const std::string& path,
                      const ObserverFactory& factory);

}  // namespace octet::quant
