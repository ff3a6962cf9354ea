#include "cli/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>

#include "cli/team.h"
#include "octet/base/error.h"
#include "octet/base/progress.h"

namespace octet::cli {
int64_t samples_at_once(const graph::Graph& graph, const Dataset& dataset) {
  return batch_size(dataset, debug::samples_at_once(graph));
}

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// `bar` lives longer.
debug::CalibrationData data_of(const quant::ObservedGraphModule& prepared, const Dataset& dataset,
                               const std::string& path, int64_t count, Progress& bar) {
  return {.name = path,
          .count = count,
          .fixed_batch = dataset.fixed_batch(),
          .get =
              [&](int64_t begin, int64_t size) {
                return ordered_inputs(prepared.graph(), dataset.get(begin, size));
              },
          .progress = [&](int64_t size) { bar.advance(size); }};
}

// What one process sees of a calibration.
class Part {
 public:
  Part(quant::ObservedGraphModule& prepared, debug::CalibrationData data)
      : prepared_(prepared), data_(std::move(data)) {
    const std::string dependent = quant::order_dependent_observer(prepared);
    if (!dependent.empty())
      fail(ErrorCode::unsupported,
           fmt::format("{} depends on the order of samples, so that its parts do not merge: choose "
                       "another --observer or --qconfig, or calibrate in one process",
                       prepared.submodule(dependent)->type_name()));
    shard_.network = quant::digest_of(prepared);
    shard_.data = data_.name;
    shard_.plan = debug::make_plan(prepared, data_);
  }

  dist::Shard& shard() { return shard_; }
  const dist::Shard& shard() const { return shard_; }
  const std::map<int64_t, double>& seconds() const { return seconds_; }  // by batch
  // Statistics are saved there while the samples are shown.
  void keep_at(std::string file) { file_ = std::move(file); }

  // Shows the batches that `next` gives, in ascending order, until there are no more; those that
  // were seen before are left out.
  void show_batches(const std::function<int64_t()>& next) {
    const dist::Plan& plan = shard_.plan;
    const quant::FixedWeights fixed(prepared_);
    for (int64_t b = next(); b < plan.batches(); b = next()) {
      const int64_t begin = b * plan.step, end = std::min(begin + plan.step, plan.samples);
      if (shard_.has_seen(begin)) continue;
      if (begin >= plan.half && half_ == &shard_.first && plan.half > 0) {
        collect();
        half_ = &shard_.second;
      }
      prepared_.set_next_sample(begin);
      const auto start = Clock::now();
      debug::show(prepared_, data_, begin, end - begin);
      seconds_[b] = seconds_since(start);
      shard_.add_seen(begin, end);
      save_sometimes();
    }
    collect();
  }

 private:
  void collect() {
    half_->merge(quant::CalibrationStatistics::of(prepared_));
    quant::forget_calibration(prepared_);
  }

  // As often as takes a fiftieth of the time.
  void save_sometimes() {
    if (file_.empty() || Clock::now() < next_save_) return;
    const auto start = Clock::now();
    collect();
    dist::save_shard(file_, shard_);
    next_save_ = Clock::now() + 50 * (Clock::now() - start);
  }

  quant::ObservedGraphModule& prepared_;
  debug::CalibrationData data_;
  dist::Shard shard_;
  quant::CalibrationStatistics* half_ = &shard_.first;  // what is shown belongs to it
  std::string file_;
  Clock::time_point next_save_{};
  std::map<int64_t, double> seconds_;
};

// FILE.0, FILE.1, ... that are there.
std::vector<std::string> kept_files(const std::string& file) {
  std::vector<std::string> files;
  std::error_code ignored;
  const std::filesystem::path path(file);
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const std::string prefix = path.filename().string() + ".";
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.size() > prefix.size() &&
        std::all_of(name.begin() + static_cast<std::ptrdiff_t>(prefix.size()), name.end(),
                    [](char c) { return c >= '0' && c <= '9'; }))
      files.push_back((folder / name).string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// What was kept, in one; FILE.0 holds it then and the others are gone. Of a run that was cut off
// while it did this, FILE.0 holds what the others have too.
void resume_from(const std::string& file, dist::Shard& shard) {
  const std::vector<std::string> files = kept_files(file);
  for (const std::string& f : files) {
    const dist::Shard kept = dist::load_shard(f);
    if (std::all_of(kept.seen.begin(), kept.seen.end(),
                    [&](const auto& i) { return shard.has_seen(i.first); }))
      continue;
    try {
      shard.merge(kept);
    } catch (const Error& e) {
      fail(e.code(), fmt::format("{}: {}; to begin anew, leave --resume out", f, e.what()));
    }
  }
  if (shard.seen.empty()) return;
  const std::filesystem::path first(file + ".0");
  dist::save_shard(first, shard);
  for (const std::string& f : files)
    if (std::filesystem::path(f).filename() != first.filename()) std::filesystem::remove(f);
  say(fmt::format("octet: {} of {} samples were seen before", shard.count(), shard.plan.samples));
}

// What all ranks did, on all of them: sums of tables in which each has filled its own places.
RanksReport report_of(const Part& part, int64_t samples, double working, double merging) {
  constexpr size_t kNumbers = 4;
  constexpr double kMicro = 1e6;
  const auto rank = static_cast<size_t>(team().rank()), ranks = static_cast<size_t>(team().size());
  std::vector<int64_t> table(ranks * kNumbers);
  int64_t* mine = table.data() + rank * kNumbers;
  mine[0] = samples, mine[1] = team().bytes_sent();
  mine[2] = std::llround(kMicro * working), mine[3] = std::llround(kMicro * merging);
  std::vector<int64_t> batches(static_cast<size_t>(part.shard().plan.batches()));
  for (const auto& [b, seconds] : part.seconds())
    batches[static_cast<size_t>(b)] = std::llround(kMicro * seconds);
  team().sum(table.data(), table.size());
  team().sum(batches.data(), batches.size());
  RanksReport report;
  report.step = part.shard().plan.step;
  for (size_t r = 0; r < ranks; ++r)
    report.ranks.push_back({table[kNumbers * r], table[kNumbers * r + 1],
                            static_cast<double>(table[kNumbers * r + 2]) / kMicro,
                            static_cast<double>(table[kNumbers * r + 3]) / kMicro});
  for (const int64_t micro : batches) report.batches.push_back(static_cast<double>(micro) / kMicro);
  return report;
}

// By all ranks; what the first one has is whole then.
void calibrate_together(Part& part, const KeptStatistics& kept, RanksReport* report) {
  dist::Team& ranks = team();
  dist::Shard& shard = part.shard();
  if (ranks.is_first()) {
    if (kept.resume)
      resume_from(kept.file, shard);
    else if (!kept.file.empty())
      for (const std::string& f : kept_files(kept.file)) std::filesystem::remove(f);
  }
  // All ranks know what is done; the first one alone holds the statistics of it.
  dist::Shard done{.plan = shard.plan, .seen = shard.seen};
  done = dist::Shard::from_bytes(ranks.broadcast(done.to_bytes()));
  if (!kept.file.empty()) part.keep_at(fmt::format("{}.{}", kept.file, ranks.rank()));
  ranks.restart_counter();
  const auto next = [&] {
    int64_t b = ranks.next();
    while (done.has_seen(b * shard.plan.step)) b = ranks.next();
    return b;
  };
  const int64_t before = shard.count();
  const auto start = Clock::now();
  part.show_batches(next);
  const double working = seconds_since(start);
  const int64_t samples = shard.count() - before;
  ranks.reduce([&] { return shard.to_bytes(); },
               [&](const std::string& theirs) { shard.merge(dist::Shard::from_bytes(theirs)); });
  if (report) *report = report_of(part, samples, working, seconds_since(start) - working);
}

}  // namespace

std::optional<debug::CalibrationQuality> calibrate(quant::ObservedGraphModule& prepared,
                                                   const Dataset& dataset, const std::string& path,
                                                   int64_t count, const KeptStatistics& kept,
                                                   RanksReport* report) {
  Progress bar("calibrating", count);
  const debug::CalibrationData data = data_of(prepared, dataset, path, count, bar);
  if (team().size() == 1 && kept.file.empty() && !report) return debug::calibrate(prepared, data);
  Part part(prepared, data);
  calibrate_together(part, kept, report);
  if (!team().is_first()) return std::nullopt;
  part.shard().require_whole(path);
  return take_statistics(prepared, part.shard());
}

void remove_statistics(const KeptStatistics& kept) {
  if (kept.file.empty()) return;
  for (const std::string& f : kept_files(kept.file)) std::filesystem::remove(f);
}

dist::Shard merged_statistics(const std::vector<std::string>& files) {
  dist::Shard all = dist::load_shard(files.at(0));
  for (size_t i = 1; i < files.size(); ++i) try {
      all.merge(dist::load_shard(files[i]));
    } catch (const Error& e) {
      fail(e.code(), fmt::format("{}: {}", files[i], e.what()));
    }
  return all;
}

dist::Shard calibrate_part(quant::ObservedGraphModule& prepared, const Dataset& dataset,
                           const std::string& path, int64_t count, int64_t i, int64_t n) {
  Progress bar("calibrating", (count + n - 1) / n);
  Part part(prepared, data_of(prepared, dataset, path, count, bar));
  part.show_batches([&, b = i - n]() mutable { return b += n; });
  return part.shard();
}

debug::CalibrationQuality take_statistics(quant::ObservedGraphModule& prepared,
                                          const dist::Shard& whole) {
  const std::string network = quant::digest_of(prepared);
  if (network != whole.network)
    fail(ErrorCode::invalid_argument,
         fmt::format("the statistics are of another network or of other options ({}, this is {}): "
                     "give the same MODEL, --qconfig, --observer, --config, --skip, --shape and "
                     "--weight-bits as to octet calibrate",
                     whole.network, network));
  debug::CalibrationWatch watch(prepared);
  if (whole.plan.half > 0) {
    whole.first.give_to(prepared);
    watch.half_way(whole.plan.half);
  }
  whole.all().give_to(prepared);
  prepared.set_next_sample(whole.plan.samples);
  return watch.finish(whole.plan.samples);
}

JsonValue RanksReport::to_json() const {
  JsonValue all = JsonValue::array();
  for (const Rank& r : ranks)
    all.push_back(JsonValue::object({{"samples", r.samples},
                                     {"bytes_sent", r.bytes_sent},
                                     {"working_seconds", r.working},
                                     {"merging_seconds", r.merging}}));
  JsonValue seconds = JsonValue::array();
  for (const double s : batches) seconds.push_back(s);
  return JsonValue::object({{"step", step}, {"ranks", all}, {"batch_seconds", seconds}});
}

JsonValue calibration_json(const debug::CalibrationQuality& q) {
  JsonValue values = JsonValue::array(), influences = JsonValue::array();
  for (const debug::CalibrationQuality::Value& v : q.values)
    values.push_back(JsonValue::object({{"value", v.name},
                                        {"moved", v.moved},
                                        {"clipped", v.clipped},
                                        {"largest_sample", v.sample},
                                        {"times", v.times}}));
  for (const debug::CalibrationQuality::Influence& i : q.influences)
    influences.push_back(JsonValue::object(
        {{"sample", i.sample}, {"ranges", i.values}, {"value", i.value}, {"times", i.times}}));
  return JsonValue::object({{"samples", q.samples},
                            {"half", q.half},
                            {"moving", q.moving},
                            {"clipped", q.clipped},
                            {"suggested_samples", q.suggested},
                            {"influences", influences},
                            {"values", values}});
}

std::string calibration_text(const debug::CalibrationQuality& q) {
  std::string text =
      fmt::format("{} sample{}, {} ranges", q.samples, q.samples == 1 ? "" : "s", q.values.size());
  if (!std::isnan(q.moving))
    text +=
        fmt::format("; {:.0f}% of them moved by more than {:.0f}% in the last {} samples",
                    100 * q.moving, 100 * debug::CalibrationQuality::kMoves, q.samples - q.half);
  if (!std::isnan(q.clipped))
    text += fmt::format(", of which the first {} samples' ranges cut off {:.2g}%", q.half,
                        100 * q.clipped);
  if (!q.influences.empty())
    text += fmt::format("; sample {} alone sets {} of them", q.influences[0].sample,
                        q.influences[0].values);
  return text;
}

}  // namespace octet::cli
