#pragma once
// Calibration, as `quantize` and `check` do it.

#include <optional>
#include <string>
#include <vector>

#include "cli/common.h"
#include "octet/debug/calibration.h"
#include "octet/dist/shard.h"
#include "octet/quant/workflow/fx.h"

namespace octet::cli {

// debug::samples_at_once(), or what the dataset insists on.
int64_t samples_at_once(const graph::Graph& graph, const Dataset& dataset);

// Statistics that a calibration which may be cut off leaves beside its result, as FILE.0, FILE.1,
// ..., one for each rank, and removes when it ends.
struct KeptStatistics {
  std::string file;     // "": none are kept
  bool resume = false;  // go on from those that are there
};

// What the ranks did of a calibration: what the model of docs/scaling.md is held against.
struct RanksReport {
  struct Rank {
    int64_t samples = 0, bytes_sent = 0;
    double working = 0, merging = 0;  // seconds; merging: from the last sample to the handing on
  };
  std::vector<Rank> ranks;
  std::vector<double> batches;  // seconds of each
  int64_t step = 0;             // samples of a batch
  JsonValue to_json() const;
};

// Shows the first `count` samples to the observers, and says whether they are enough. Error that
// names `path` and the samples, where one cannot be used. The ranks share the work: `prepared` has
// seen all samples on the first one then, the others get nothing.
std::optional<debug::CalibrationQuality> calibrate(quant::ObservedGraphModule& prepared,
                                                   const Dataset& dataset, const std::string& path,
                                                   int64_t count, const KeptStatistics& kept = {},
                                                   RanksReport* report = nullptr);

// Removes what calibrate() kept: when the result is on disk.
void remove_statistics(const KeptStatistics& kept);

// Batches i, i + n, i + 2n, ... of those of the first `count` samples, alone.
dist::Shard calibrate_part(quant::ObservedGraphModule& prepared, const Dataset& dataset,
                           const std::string& path, int64_t count, int64_t i, int64_t n);

// The statistics of these files in one. Error that names a file.
dist::Shard merged_statistics(const std::vector<std::string>& files);

// `prepared` has seen what `whole`, which has seen all samples, holds. Error if that is of another
// network.
debug::CalibrationQuality take_statistics(quant::ObservedGraphModule& prepared,
                                          const dist::Shard& whole);

JsonValue calibration_json(const debug::CalibrationQuality& quality);
// One line: "64 samples: 3% of the ranges moved by more than 20% in the last 32 ...".
std::string calibration_text(const debug::CalibrationQuality& quality);

}  // namespace octet::cli
