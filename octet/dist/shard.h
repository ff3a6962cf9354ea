#pragma once
// Calibration in parts: what one process has seen of the samples, as a value and as a file
// (docs/scaling.md). Parts merge, in any order, to what one process would have seen of all samples,
// to the last bit.
//
//   dist::Shard shard = dist::load_shard("stats.0");
//   shard.merge(dist::load_shard("stats.1"));
//   shard.require_whole("stats.0, stats.1");
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig());
//   shard.all().give_to(*prepared);

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "octet/debug/calibration.h"
#include "octet/quant/workflow/statistics.h"

namespace octet::dist {

using Plan = debug::CalibrationPlan;

struct Shard {
  std::string network;  // quant::digest_of the prepared network
  std::string data;     // what the samples are, for messages
  Plan plan;
  // Which samples were seen, [begin, end) each: sorted, apart from one another.
  std::vector<std::pair<int64_t, int64_t>> seen;
  quant::CalibrationStatistics first, second;  // of the samples before plan.half, and from it on

  bool has_seen(int64_t sample) const;
  int64_t count() const;  // samples seen
  // Adds [begin, end), none of which was seen.
  void add_seen(int64_t begin, int64_t end);
  // Error invalid_argument, with nothing changed, if `other` is of another network or plan, or if
  // both have seen a sample, and those of CalibrationStatistics::merge.
  void merge(const Shard& other);
  // Error invalid_argument, beginning with `who` and naming samples that are missing, unless all of
  // the plan's were seen.
  void require_whole(const std::string& who) const;
  // Of both halves.
  quant::CalibrationStatistics all() const;

  // A flat form, for messages: of this process's byte order and octet's version.
  std::string to_bytes() const;
  static Shard from_bytes(const std::string& bytes);
};

// As a safetensors file with the metadata entry "octet.statistics" (docs/file-format.md), written
// atomically. Errors: io.
void save_shard(const std::filesystem::path& path, const Shard& shard);
// Errors: not_found, io, corrupt (naming the file and the field), unsupported for files of a newer
// octet.
Shard load_shard(const std::filesystem::path& path);

}  // namespace octet::dist
