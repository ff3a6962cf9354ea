#pragma once
// Calibration, as `quantize` and `check` do it.

#include <string>

#include "cli/common.h"
#include "octet/debug/calibration.h"
#include "octet/quant/workflow/fx.h"

namespace octet::cli {

// debug::samples_at_once(), or what the dataset insists on.
int64_t samples_at_once(const graph::Graph& graph, const Dataset& dataset);

// debug::calibrate() on the first `count` samples of what `path` names, with a bar.
debug::CalibrationQuality calibrate(quant::ObservedGraphModule& prepared, const Dataset& dataset,
                                    const std::string& path, int64_t count);

JsonValue calibration_json(const debug::CalibrationQuality& quality);
// One line: "64 samples: 3% of the ranges moved by more than 20% in the last 32 ...".
std::string calibration_text(const debug::CalibrationQuality& quality);

}  // namespace octet::cli
