#pragma once
// Whether the samples that calibrated a network are enough: how much ranges still move, how much
// of other samples they cut off, and which sample sets a range alone (docs/check.md). It costs no
// pass of its own: observers are asked half way and at the end. calibrate() does all of it:
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig());
//   debug::CalibrationQuality quality = debug::calibrate(
//       *prepared, {.count = static_cast<int64_t>(samples.size()),
//                   .fixed_batch = 1,
//                   .get = [&](int64_t i, int64_t) { return samples[static_cast<size_t>(i)]; }});
//
// and where the samples are shown by something else:
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig());
//   debug::CalibrationWatch watch(*prepared);
//   for (size_t i = 0; i < samples.size(); ++i) {
//     if (i == samples.size() / 2) watch.half_way(static_cast<int64_t>(i));
//     prepared->forward(samples[i]);
//   }
//   for (const std::string& line : watch.finish(static_cast<int64_t>(samples.size())).warnings)
//     std::cout << line << "\n";

#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::debug {

struct CalibrationQuality {
  struct Value {
    std::string name;  // of the observer: the first value that it watches
    // By how much of the final range its ends together moved in the second half of the samples.
    double moved = 0;
    // The share of the second half's values that lie beyond the range of the first half, less that
    // which this range cuts off the first half itself: 0..1, to the bins of a histogram; NaN of
    // observers that keep none.
    double clipped = NAN;
    // The sample with the largest value, and how many times wider it makes the range (1: not at
    // all; infinite: all others are 0). Only what the chosen range holds counts.
    int64_t sample = -1;
    double times = 1;
  };
  // A sample that alone makes ranges kAlone times wider, or more.
  struct Influence {
    int64_t sample = -1;
    int64_t values = 0;  // so many ranges
    std::string value;   // the one that it widens most, and how many times
    double times = 1;
  };

  int64_t samples = 0, half = 0;
  std::vector<Value> values;          // those that moved most first
  double moving = NAN;                // the share of values that moved by more than kMoves: 0..1
  double clipped = NAN;               // of all values' elements together
  std::vector<Influence> influences;  // those with the most values first
  // How many samples may do, were each doubling to halve what ranges move by; `samples` if these
  // are enough.
  int64_t suggested = 0;
  std::vector<std::string> warnings;  // why they are not enough; empty if they are

  static constexpr double kMoves = 0.2, kAlone = 2;
};

// Watches the observers of a prepared graph that is calibrated meanwhile.
class CalibrationWatch {
 public:
  // `prepared`, which lives longer, has seen no samples.
  explicit CalibrationWatch(const quant::ObservedGraphModule& prepared) : prepared_(prepared) {}
  // After the first `samples` of them, 1 or more: about half. Once.
  void half_way(int64_t samples);
  // After all of them. Without half_way() before, only what single samples do is told. No values
  // and no warnings where no range depends on samples. Error not_calibrated if there were none.
  CalibrationQuality finish(int64_t samples) const;

 private:
  struct Half {
    float low = 0, high = 0;  // of the chosen range
    uint64_t values = 0, beyond = 0;
  };
  const quant::ObservedGraphModule& prepared_;
  int64_t half_ = 0;
  std::map<std::string, Half> at_half_;  // by path of the observer
};

struct CalibrationData {
  std::string name = "samples";  // where they come from, for errors
  int64_t count = 0;             // of samples, 1 or more
  int64_t fixed_batch = 0;       // the size that batches must have (Dataset::fixed_batch); 0: any
  // Samples [begin, begin + size), fewer at the end: inputs in the graph's order.
  std::function<std::vector<Tensor>(int64_t begin, int64_t size)> get;
  std::function<void(int64_t size)> progress = {};  // after each batch
};

// How a calibration is cut, which does not depend on who does which part: `samples` in batches of
// `step` from sample 0 on. After the first batches, of `half` samples together, a CalibrationWatch
// is told that it is half way; 0: all samples are one batch, and there is no half.
struct CalibrationPlan {
  int64_t samples = 0, step = 1, half = 0;
  int64_t batches() const { return (samples + step - 1) / step; }
  bool operator==(const CalibrationPlan&) const = default;
};
// Error invalid_argument unless both are 1 or more.
CalibrationPlan make_plan(int64_t samples, int64_t step);
// As calibrate() cuts it. Error invalid_argument without samples.
CalibrationPlan make_plan(const quant::ObservedGraphModule& prepared, const CalibrationData& data);
// Shows one batch to the observers. Errors as of calibrate().
void show(quant::ObservedGraphModule& prepared, const CalibrationData& data, int64_t begin,
          int64_t size);

// Shows the samples to the observers of a prepared graph that has seen none, and says whether they
// are enough. Errors: invalid_argument without samples; one that names data.name and the samples,
// where a batch cannot be used.
CalibrationQuality calibrate(quant::ObservedGraphModule& prepared, const CalibrationData& data);

// How many samples to run at once: 32, or as many as leave the largest value of the network at 128
// MB; larger values take longer to clear than calls take to start. Sizes that are open count as 1.
int64_t samples_at_once(const graph::Graph& graph);

}  // namespace octet::debug
