#include <fmt/format.h>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/json_impl.h"
#include "octet/quant/tune/state_impl.h"

namespace octet::quant::tune_detail {
namespace {

OrderedJson json_of(const TuneTrial& t) {
  return {{"name", t.name},
          {"score", t.score},
          {"cost", t.cost},
          {"size", t.size},
          {"seconds", t.seconds},
          {"left_float", t.left_float},
          {"in_16_bits", t.in_16_bits}};
}

TuneTrial trial_of(const Json& t) {
  return {.name = t.at("name").get<std::string>(),
          .score = t.at("score").get<double>(),
          .cost = t.at("cost").get<double>(),
          .size = t.at("size").get<double>(),
          .seconds = t.value("seconds", 0.0),
          .left_float = t.at("left_float").get<std::vector<std::string>>(),
          .in_16_bits = t.at("in_16_bits").get<std::vector<std::string>>()};
}

OrderedJson json_of(const std::vector<PrecisionChange>& changes) {
  OrderedJson json = OrderedJson::array();
  for (const PrecisionChange& c : changes)
    json.push_back(
        {{"layer", c.layer}, {"to", static_cast<int>(c.to)}, {"gain", c.gain}, {"cost", c.cost}});
  return json;
}

std::vector<PrecisionChange> changes_of(const Json& json) {
  std::vector<PrecisionChange> changes;
  for (const Json& c : json)
    changes.push_back({c.at("layer").get<std::string>(),
                       static_cast<Precision>(c.at("to").get<int>()), c.at("gain").get<double>(),
                       c.at("cost").get<double>()});
  return changes;
}

}  // namespace

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

TuneState::TuneState(const std::filesystem::path& directory, std::string of, bool resume)
    : directory_(directory), of_(std::move(of)) {
  if (directory_.empty()) return;
  std::filesystem::create_directories(directory_);
  if (resume && std::filesystem::exists(file()))
    take(
        read_file(file()), [&](size_t i) { return read_file(recipe_file(i)); }, file().string());
  else
    write();
}

const TuneState::Entry* TuneState::find(const std::string& name) const {
  for (const Entry& e : entries_)
    if (e.trial.name == name) return &e;
  return nullptr;
}

const TuneState::Entry& TuneState::add(Entry entry) {
  if (!directory_.empty())
    write_file_atomically(recipe_file(entries_.size()), entry.recipe.to_json());
  entries_.push_back(std::move(entry));
  write();
  return entries_.back();
}

void TuneState::set_changes(std::vector<PrecisionChange> changes) {
  changes_ = std::move(changes);
  write();
}

void TuneState::set_narrowed(std::vector<std::string> layers) {
  narrowed_ = std::move(layers);
  write();
}

std::filesystem::path TuneState::recipe_file(size_t number) const {
  return directory_ / fmt::format("{:03}.json", number);
}

std::string TuneState::state_text() const {
  OrderedJson json{{"of", of_}, {"seconds", seconds()}, {"trials", OrderedJson::array()}};
  for (const Entry& e : entries_) json["trials"].push_back(json_of(e.trial));
  if (changes_) json["changes"] = json_of(*changes_);
  if (narrowed_) json["narrowed"] = *narrowed_;
  return json.dump(1) + "\n";
}

void TuneState::write() const {
  if (!directory_.empty()) write_file_atomically(file(), state_text());
}

void TuneState::take(const std::string& state, const std::function<std::string(size_t)>& recipe,
                     const std::string& who) {
  const JsonDocument json_document = parse_json(state, who);
  const Json& json = *json_document;
  OCTET_CHECK(json.is_object() && json.contains("of") && json["of"] == of_, invalid_argument,
              "{}: it is the work on another network, other samples or options; name another "
              "directory, or start anew",
              who);
  try {
    before_ = json.at("seconds").get<double>();
    for (const Json& t : json.at("trials"))
      entries_.push_back({trial_of(t), Recipe::from_json(recipe(entries_.size()))});
    if (json.contains("changes")) changes_ = changes_of(json.at("changes"));
    if (json.contains("narrowed")) narrowed_ = json.at("narrowed").get<std::vector<std::string>>();
  } catch (const Json::exception& e) {
    OCTET_FAIL(corrupt, "{}: {}", who, e.what());
  }
}

std::string TuneState::to_text() const {
  OrderedJson json{{"state", state_text()}, {"recipes", OrderedJson::array()}};
  for (const Entry& e : entries_) json["recipes"].push_back(e.recipe.to_json());
  return json.dump();
}

void TuneState::take(const std::string& text) {
  const JsonDocument json = parse_json(text, "tune");
  take((*json).at("state").get<std::string>(),
       [&](size_t i) { return (*json).at("recipes").at(i).get<std::string>(); }, "tune");
}

std::string TuneState::to_text(const Entry& entry) {
  return OrderedJson{{"trial", json_of(entry.trial)}, {"recipe", entry.recipe.to_json()}}.dump();
}

TuneState::Entry TuneState::entry_of(const std::string& text) {
  const JsonDocument json = parse_json(text, "tune");
  return {trial_of((*json).at("trial")),
          Recipe::from_json((*json).at("recipe").get<std::string>())};
}

std::string to_text(const std::vector<PrecisionChange>& changes) { return json_of(changes).dump(); }

std::vector<PrecisionChange> changes_of(const std::string& text) {
  const JsonDocument json = parse_json(text, "tune");
  return changes_of(*json);
}

std::string to_text(const std::vector<std::string>& names) { return OrderedJson(names).dump(); }

std::vector<std::string> names_of(const std::string& text) {
  return (*parse_json(text, "tune")).get<std::vector<std::string>>();
}

}  // namespace octet::quant::tune_detail
