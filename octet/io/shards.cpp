// State dicts in several files, as Hugging Face's tools write them: shards, and an index that says
// which tensor is in which.
#include <algorithm>
#include <set>

#include "octet/base/text.h"
#include "octet/io/fields_impl.h"
#include "octet/io/state_dict_impl.h"

namespace octet::io {
namespace {

namespace fs = std::filesystem;
using State = std::map<std::string, Tensor>;

constexpr size_t kMaxShards = 10'000;
constexpr const char* kIndexNames[] = {"model.safetensors.index.json",
                                       "pytorch_model.bin.index.json"};

// Adds the tensors of a file.
void add_all(State& state, State more, const std::string& file) {
  for (auto& [name, tensor] : more)
    OCTET_CHECK(state.emplace(name, std::move(tensor)).second, corrupt,
                "{}: tensor '{}' is in another file too", file, name);
}

// "model-00002-of-00005.safetensors": the names of all five; else none.
std::vector<std::string> siblings(const std::string& name) {
  const size_t of = name.rfind("-of-"), dot = name.find('.', of == name.npos ? 0 : of);
  if (of == name.npos || dot == name.npos || of < 6) return {};
  const std::string number = name.substr(of - 5, 5), count = name.substr(of + 4, dot - of - 4);
  auto digits = [](const std::string& text) {
    return text.size() == 5 &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!digits(number) || !digits(count) || static_cast<size_t>(std::stoi(count)) > kMaxShards)
    return {};
  std::vector<std::string> result;
  for (int i = 1; i <= std::stoi(count); ++i)
    result.push_back(fmt::format("{}{:05}{}", name.substr(0, of - 5), i, name.substr(of)));
  return result;
}

}  // namespace

bool is_json(std::string_view bytes) {
  // Safetensors begins with a length of 8 bytes, of which the upper ones are 0.
  const std::string_view start = bytes.substr(0, 8);
  const size_t first = start.find_first_not_of(" \t\r\n");
  return first != start.npos && start[first] == '{' && start.find('\0') == start.npos;
}

State load_index(const fs::path& path, const std::string& key, std::vector<std::string>* notes) {
  const std::string file = path.string();
  const JsonDocument json_document = read_json(path);
  const Json& json = *json_document;
  const Fields root(json, file);
  const Json& map = root.raw("weight_map");
  OCTET_CHECK(map.is_object(), corrupt, "{}: 'weight_map' is not an object", file);
  std::map<std::string, std::set<std::string>> shards;  // the tensors of each
  for (const auto& [name, shard] : map.items()) {
    OCTET_CHECK(is_one_line(name), corrupt, "{}: the name of a tensor has control characters",
                file);
    OCTET_CHECK(shard.is_string(), corrupt, "{}: the file of tensor '{}' is {}, no text", file,
                name, brief(shard));
    const auto& text = shard.get_ref<const std::string&>();
    // Only files beside the index.
    OCTET_CHECK(!text.empty() && text != "." && text != ".." &&
                    text.find_first_of("/\\") == text.npos && is_one_line(text),
                corrupt, "{}: the file of tensor '{}' is {}; expected a name without a directory",
                file, name, brief(shard));
    shards[text].insert(name);
    OCTET_CHECK(shards.size() <= kMaxShards, unsupported, "{}: names more than {} files", file,
                kMaxShards);
  }

  std::vector<std::string> no_file, no_tensor, unlisted;
  State state;
  for (const auto& [shard, names] : shards) {
    const fs::path shard_path = path.parent_path() / shard;
    std::error_code none;
    if (!fs::exists(shard_path, none)) {
      no_file.push_back(shard);
      continue;
    }
    State part = load_state_file(shard_path, key, notes);
    for (const std::string& name : names)
      if (!part.count(name)) no_tensor.push_back(fmt::format("{} (in {})", name, shard));
    for (auto& [name, tensor] : part) {
      if (names.count(name))
        state.emplace(name, std::move(tensor));
      else
        unlisted.push_back(fmt::format("{} (in {})", name, shard));
    }
  }
  std::string missing;
  if (!no_file.empty())
    missing += fmt::format("{} of {} files are missing: {}", no_file.size(), shards.size(),
                           listed(no_file));
  if (!no_tensor.empty())
    missing += fmt::format("{}{} tensors are missing in their files: {}",
                           missing.empty() ? "" : "; ", no_tensor.size(), listed(no_tensor));
  OCTET_CHECK(missing.empty(), not_found, "{}: {}; copy or download them again", file, missing);
  if (notes && !unlisted.empty())
    notes->push_back(fmt::format("{}: passed over are tensors that it does not name: {}", file,
                                 listed(unlisted)));
  return state;
}

State load_directory(const fs::path& path, const std::string& key,
                     std::vector<std::string>* notes) {
  const std::string where = path.string();
  std::error_code failed;
  std::vector<std::string> names;
  for (fs::directory_iterator it(path, failed), end; !failed && it != end; it.increment(failed))
    names.push_back(it->path().filename().string());
  OCTET_CHECK(!failed, io, "{}: cannot read the directory: {}", where, failed.message());
  std::sort(names.begin(), names.end());
  auto has = [&](const std::string& name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  for (const char* index : kIndexNames)
    if (has(index)) return load_index(path / index, key, notes);
  std::vector<std::string> indexes;
  for (const std::string& name : names)
    if (name.ends_with(".index.json")) indexes.push_back(name);
  OCTET_CHECK(indexes.size() < 2, invalid_argument, "{}: has several indexes, name one: {}", where,
              listed(indexes));
  if (!indexes.empty()) return load_index(path / indexes[0], key, notes);
  for (const char* whole : {"model.safetensors", "pytorch_model.bin"})
    if (has(whole)) return load_state_file(path / whole, key, notes);
  std::vector<std::string> shards;
  std::set<std::string> missing;
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    shards.push_back(name);
    for (const std::string& other : siblings(name))
      if (!has(other)) missing.insert(other);
  }
  OCTET_CHECK(missing.empty(), not_found, "{}: {} shards are missing: {}", where, missing.size(),
              listed({missing.begin(), missing.end()}));
  OCTET_CHECK(!shards.empty(), not_found,
              "{}: a directory without weights; expected an index (*.index.json), "
              "model.safetensors, pytorch_model.bin or other files *.safetensors",
              where);
  State state;
  for (const std::string& shard : shards)
    add_all(state, load_state_file(path / shard, key, notes), (path / shard).string());
  return state;
}

}  // namespace octet::io
