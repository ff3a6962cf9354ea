#pragma once
// Reading JSON objects of files that may be damaged.

#include <cstdint>
#include <string>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/json_impl.h"
#include "octet/tensor/attrs.h"

namespace octet::io {

// Fields of a JSON object, with errors that say where.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    OCTET_CHECK(json.is_object(), corrupt, "{}: expected an object", where_);
  }
  bool has(const char* name) const { return json_.contains(name); }
  const Json& raw(const char* name) const {
    auto it = json_.find(name);
    OCTET_CHECK(it != json_.end(), corrupt, "{}: '{}' is missing", where_, name);
    return *it;
  }
  template <typename T>
  T get(const char* name) const {
    try {
      return raw(name).get<T>();
    } catch (const nlohmann::json::exception&) {
      OCTET_FAIL(corrupt, "{}: '{}' is {}, not of the expected type", where_, name,
                 brief(raw(name)));
    }
  }
  template <typename T>
  T get(const char* name, T fallback) const {
    return has(name) ? get<T>(name) : fallback;
  }
  // Integers only: nlohmann would take 2.7 for one.
  int64_t integer(const char* name) const {
    OCTET_CHECK(raw(name).is_number_integer(), corrupt, "{}: '{}' is not an integer", where_, name);
    return get<int64_t>(name);
  }
  // Sizes of dimensions.
  std::vector<int64_t> sizes(const char* name) const {
    const Json& list = raw(name);
    OCTET_CHECK(list.is_array(), corrupt, "{}: '{}' is not a list", where_, name);
    std::vector<int64_t> result;
    for (const Json& item : list) {
      OCTET_CHECK(item.is_number_integer() && item.get<int64_t>() >= 0, corrupt,
                  "{}: '{}' holds {}, which is not a size", where_, name, brief(item));
      result.push_back(item.get<int64_t>());
    }
    return result;
  }
  // Numbers of things, of which there are `count`; -1 for none.
  std::vector<int> ids(const char* name, size_t count) const {
    const Json& list = raw(name);
    OCTET_CHECK(list.is_array(), corrupt, "{}: '{}' is not a list", where_, name);
    std::vector<int> result;
    for (const Json& item : list) {
      OCTET_CHECK(item.is_number_integer(), corrupt,
                  "{}: '{}' holds something that is not an integer", where_, name);
      auto id = item.get<int64_t>();
      OCTET_CHECK(id >= -1 && id < static_cast<int64_t>(count), corrupt,
                  "{}: '{}' names value {} of {}", where_, name, id, count);
      result.push_back(static_cast<int>(id));
    }
    return result;
  }
  const std::string& where() const { return where_; }

 private:
  const Json& json_;
  std::string where_;
};

// Our formats' number: since 2 files carry checksums.
constexpr int64_t kFormat = 2;

// Error corrupt if the file has no format number, or one that promises checksums and none of them;
// unsupported if it is beyond `newest`. Adds a note if the file is older.
inline void check_format(const Fields& root, const std::string& path, bool has_checksums,
                         std::vector<std::string>* notes, int64_t newest = kFormat) {
  int64_t format = root.integer("format");
  OCTET_CHECK(format >= 1, corrupt, "{}: 'format' is {}; there is none below 1", root.where(),
              format);
  OCTET_CHECK(format <= newest, unsupported,
              "{}: file format {}; this octet reads up to {}: update octet", path, format, newest);
  OCTET_CHECK(format < 2 || has_checksums, corrupt,
              "{}: its checksums are missing; copy or save the file again", path);
  if (!has_checksums && notes)
    notes->push_back(
        fmt::format("{}: is of an older octet and has no checksums: damage to it would go "
                    "unnoticed; save it again",
                    path));
}

// What put_attrs wrote. Error corrupt unless the field is an object of texts.
inline Attrs parse_attrs(const Fields& f, const char* name) {
  const Json& json = f.raw(name);
  OCTET_CHECK(json.is_object(), corrupt, "{}: '{}' is not an object", f.where(), name);
  Attrs attrs;
  for (const auto& [key, text] : json.items()) {
    OCTET_CHECK(text.is_string(), corrupt, "{}: attribute '{}' is not text", f.where(), key);
    try {
      attrs.set(key, parse_attr(text.get<std::string>()));
    } catch (const Error& e) {
      OCTET_FAIL(corrupt, "{}: attribute '{}': {}", f.where(), key, e.what());
    }
  }
  return attrs;
}

}  // namespace octet::io
