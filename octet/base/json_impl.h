#pragma once
// JSON from outside: the one reader of every format that has some (.octet and safetensors headers,
// qconfig mappings, backend configs, --config), with one set of limits. Not public: it brings in
// nlohmann-json, which parses.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "octet/base/error.h"

namespace octet {

// What is read: a member is found in logarithmic time.
using Json = nlohmann::json;
// What is written: members stay in the order they were put in.
using OrderedJson = nlohmann::ordered_json;

// What a text may be. Our formats nest 6 deep at most. Reading takes time linear in the text and
// less than 1 GB of memory.
constexpr size_t kMaxJsonBytes = 100'000'000;  // the limit of the official safetensors reader
constexpr int kMaxJsonDepth = 64;
constexpr size_t kMaxJsonValues = size_t{1} << 22;

// A value that was read, for as long as it is looked at. It goes without taking memory: nlohmann's
// own destructor takes some, and ends the program where there is none.
class JsonDocument {
 public:
  explicit JsonDocument(Json value) : value_(std::move(value)) {}
  JsonDocument(JsonDocument&& other) noexcept : value_(std::move(other.value_)) {}
  JsonDocument& operator=(JsonDocument&&) = delete;
  ~JsonDocument() { empty(value_); }
  const Json& operator*() const& { return value_; }
  // Leaves an object or array without members; its value may nest kMaxJsonDepth deep.
  static void empty(Json& value) noexcept;

 private:
  Json value_;
};

// The value of a JSON text. Errors of `code`, beginning with `who` and naming the field: what is
// not JSON or not UTF-8, beyond the limits above, a name that occurs twice in an object, a number
// beyond the range of double or, if whole, of int64.
JsonDocument parse_json(std::string_view text, const std::string& who,
                        ErrorCode code = ErrorCode::corrupt);

// The value of a JSON file. Errors: not_found and io as MappedFile::open; corrupt as above.
JsonDocument read_json(const std::filesystem::path& path);

// The beginning of a value as text, for errors.
std::string brief(const Json& json);

}  // namespace octet
