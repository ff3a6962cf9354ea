#pragma once
// Calibration, as `quantize` and `check` do it.

#include <string>

#include "cli/common.h"
#include "octet/debug/calibration.h"
#include "octet/quant/workflow/fx.h"

namespace octet::cli {

inline constexpr int64_t kMostAtOnce = 32;  // samples

// How many samples to run at once: 32, or as many as leave the largest value of the network at 128
// MB. Larger values take longer to clear than calls take to start. Sizes that are open count as 1.
int64_t samples_at_once(const graph::Graph& graph, const Dataset& dataset);

// Shows the first `count` samples to the observers, and says whether they are enough. Error that
// names `path` and the samples, where one cannot be used.
debug::CalibrationQuality calibrate(quant::ObservedGraphModule& prepared, const Dataset& dataset,
                                    const std::string& path, int64_t count);

JsonValue calibration_json(const debug::CalibrationQuality& quality);
// One line: "64 samples: 3% of the ranges moved by more than 20% in the last 32 ...".
std::string calibration_text(const debug::CalibrationQuality& quality);

}  // namespace octet::cli
