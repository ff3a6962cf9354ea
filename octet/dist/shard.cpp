#include "octet/dist/shard.h"

#include <algorithm>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/base/json_impl.h"
#include "octet/io/safetensors.h"

namespace octet::dist {

using quant::CalibrationStatistics;

namespace {

constexpr int kFormat = 1;
constexpr const char* kEntry = "octet.statistics";
constexpr const char* kHalves[] = {"first/", "second/"};

std::string intervals_text(const std::vector<std::pair<int64_t, int64_t>>& intervals) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(intervals.size(), kShown); ++i)
    text += fmt::format("{}{} to {}", i ? ", " : "", intervals[i].first, intervals[i].second - 1);
  if (intervals.size() > kShown) text += fmt::format(" and {} more", intervals.size() - kShown);
  return text;
}

struct Parts {
  std::map<std::string, Tensor> tensors;
  std::string description;
};

Parts parts_of(const Shard& shard) {
  Parts parts;
  const CalibrationStatistics* halves[] = {&shard.first, &shard.second};
  for (int h = 0; h < 2; ++h)
    for (const auto& [name, tensor] : halves[h]->tensors())
      parts.tensors[kHalves[h] + name] = tensor;
  const Json json = {{"format", kFormat},
                     {"network", shard.network},
                     {"data", shard.data},
                     {"samples", shard.plan.samples},
                     {"step", shard.plan.step},
                     {"half", shard.plan.half},
                     {"seen", shard.seen},
                     {"first", shard.first.description()},
                     {"second", shard.second.description()}};
  parts.description = json.dump();
  return parts;
}

int64_t number_in(const Json& json, const char* key, int64_t least, const std::string& who) {
  OCTET_CHECK(json.contains(key) && json[key].is_number_integer() && json[key] >= least, corrupt,
              "{}: '{}' is not a number of at least {}", who, key, least);
  return json[key].get<int64_t>();
}

std::string text_in(const Json& json, const char* key, const std::string& who) {
  OCTET_CHECK(json.contains(key) && json[key].is_string(), corrupt, "{}: '{}' is not a text", who,
              key);
  return json[key].get<std::string>();
}

Shard shard_from(const Parts& parts, const std::string& who) {
  const JsonDocument document = parse_json(parts.description, who);
  const Json& json = *document;
  OCTET_CHECK(json.is_object(), corrupt, "{}: expected an object, got {}", who, brief(json));
  const int64_t format = number_in(json, "format", 1, who);
  OCTET_CHECK(format <= kFormat, unsupported,
              "{}: is of format {}, of a newer octet; this one reads up to {}", who, format,
              kFormat);
  Shard shard{.network = text_in(json, "network", who),
              .data = text_in(json, "data", who),
              .plan = {number_in(json, "samples", 1, who), number_in(json, "step", 1, who),
                       number_in(json, "half", 0, who)}};
  OCTET_CHECK(json.contains("seen") && json["seen"].is_array(), corrupt, "{}: 'seen' is not a list",
              who);
  int64_t before = -1;
  for (const Json& pair : json["seen"]) {
    OCTET_CHECK(pair.is_array() && pair.size() == 2 && pair[0].is_number_integer() &&
                    pair[1].is_number_integer() && pair[0] > before && pair[1] > pair[0] &&
                    pair[1] <= shard.plan.samples,
                corrupt, "{}: 'seen' holds {}, which is not a part of the samples", who,
                brief(pair));
    before = pair[1].get<int64_t>();
    shard.seen.emplace_back(pair[0].get<int64_t>(), before);
  }
  CalibrationStatistics* halves[] = {&shard.first, &shard.second};
  for (int h = 0; h < 2; ++h) {
    std::map<std::string, Tensor> tensors;
    const std::string prefix = kHalves[h];
    for (const auto& [name, tensor] : parts.tensors)
      if (name.starts_with(prefix)) tensors[name.substr(prefix.size())] = tensor;
    try {
      *halves[h] = CalibrationStatistics::from(tensors, text_in(json, h ? "second" : "first", who));
    } catch (const Error& e) {
      fail(e.code(), fmt::format("{}: {}", who, e.what()));
    }
  }
  return shard;
}

}  // namespace

bool Shard::has_seen(int64_t sample) const {
  return std::any_of(seen.begin(), seen.end(),
                     [&](const auto& i) { return i.first <= sample && sample < i.second; });
}

int64_t Shard::count() const {
  int64_t n = 0;
  for (const auto& [begin, end] : seen) n += end - begin;
  return n;
}

void Shard::add_seen(int64_t begin, int64_t end) {
  seen.emplace_back(begin, end);
  std::sort(seen.begin(), seen.end());
  std::vector<std::pair<int64_t, int64_t>> joined;
  for (const auto& i : seen)
    if (!joined.empty() && joined.back().second == i.first)
      joined.back().second = i.second;
    else
      joined.push_back(i);
  seen = std::move(joined);
}

void Shard::merge(const Shard& other) {
  OCTET_CHECK(network == other.network, invalid_argument,
              "statistics are of different networks or qconfigs ({} and {}): calibrate all parts "
              "with the same model and options",
              network, other.network);
  OCTET_CHECK(plan == other.plan, invalid_argument,
              "statistics are of different calibrations: of {} samples in batches of {}, and of {} "
              "in batches of {}",
              plan.samples, plan.step, other.plan.samples, other.plan.step);
  for (const auto& a : seen)
    for (const auto& b : other.seen)
      OCTET_CHECK(a.second <= b.first || b.second <= a.first, invalid_argument,
                  "both statistics have seen samples {} to {}: leave one of them out",
                  std::max(a.first, b.first), std::min(a.second, b.second) - 1);
  CalibrationStatistics merged = first;
  merged.merge(other.first);
  second.merge(other.second);
  first = std::move(merged);
  for (const auto& [begin, end] : other.seen) add_seen(begin, end);
}

void Shard::require_whole(const std::string& who) const {
  std::vector<std::pair<int64_t, int64_t>> missing;
  int64_t at = 0;
  for (const auto& [begin, end] : seen) {
    if (begin > at) missing.emplace_back(at, begin);
    at = end;
  }
  if (at < plan.samples) missing.emplace_back(at, plan.samples);
  OCTET_CHECK(missing.empty(), invalid_argument,
              "{}: samples {} of {} are missing: give the statistics of all parts", who,
              intervals_text(missing), plan.samples);
}

CalibrationStatistics Shard::all() const {
  CalibrationStatistics both = first;
  both.merge(second);
  return both;
}

// -- messages and files ---------------------------------------------------------------------------

namespace {

void put(std::string& out, std::string_view bytes) {
  const uint64_t n = bytes.size();
  out.append(reinterpret_cast<const char*>(&n), sizeof n);
  out.append(bytes);
}

std::string_view take(std::string_view& in) {
  uint64_t n = 0;
  OCTET_CHECK(in.size() >= sizeof n, corrupt, "a message of statistics ends too early");
  std::memcpy(&n, in.data(), sizeof n);
  in.remove_prefix(sizeof n);
  OCTET_CHECK(in.size() >= n, corrupt, "a message of statistics ends too early");
  const std::string_view bytes = in.substr(0, n);
  in.remove_prefix(n);
  return bytes;
}

}  // namespace

std::string Shard::to_bytes() const {
  const Parts parts = parts_of(*this);
  std::string out;
  put(out, parts.description);
  for (const auto& [name, tensor] : parts.tensors) {
    const Tensor dense = tensor.contiguous();
    put(out, name);
    put(out, to_string(dense.dtype()));
    put(out, {reinterpret_cast<const char*>(dense.shape().data()),
              dense.shape().size() * sizeof(int64_t)});
    put(out, {static_cast<const char*>(dense.raw_data()), static_cast<size_t>(dense.nbytes())});
  }
  return out;
}

Shard Shard::from_bytes(const std::string& bytes) {
  std::string_view in = bytes;
  Parts parts;
  parts.description = take(in);
  while (!in.empty()) {
    const std::string name(take(in));
    const DType dtype = parse_dtype(take(in));
    const std::string_view sizes = take(in), data = take(in);
    Shape shape(sizes.size() / sizeof(int64_t));
    std::memcpy(shape.data(), sizes.data(), sizes.size());
    Tensor tensor = Tensor::empty(shape, dtype);
    OCTET_CHECK(static_cast<size_t>(tensor.nbytes()) == data.size(), corrupt,
                "a message of statistics: tensor '{}' has {} bytes, expected {}", name, data.size(),
                tensor.nbytes());
    if (!data.empty()) std::memcpy(tensor.raw_data(), data.data(), data.size());
    parts.tensors.emplace(name, std::move(tensor));
  }
  return shard_from(parts, "a message of statistics");
}

void save_shard(const std::filesystem::path& path, const Shard& shard) {
  const Parts parts = parts_of(shard);
  write_safetensors(path, parts.tensors, {{kEntry, parts.description}});
}

Shard load_shard(const std::filesystem::path& path) {
  SafetensorsFile file = read_safetensors(path);
  const auto entry = file.metadata.find(kEntry);
  OCTET_CHECK(entry != file.metadata.end(), corrupt,
              "{}: holds no statistics of a calibration; expected what `octet calibrate` wrote",
              path.string());
  OCTET_CHECK(file.has_checksums, corrupt, "{}: its checksums are missing", path.string());
  return shard_from({std::move(file.tensors), entry->second}, path.string());
}

}  // namespace octet::dist
