#pragma once
// What --json prints. nlohmann-json writes it; json.cpp alone includes that.

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace octet::cli {

// A JSON value. Members of an object stay in the order they were put in.
class JsonValue {
 public:
  using Member = std::pair<std::string, JsonValue>;

  JsonValue() = default;                                       // null
  JsonValue(bool value) : value_(value) {}                     // NOLINT: a value is a JsonValue
  JsonValue(double value) : value_(value) {}                   // NOLINT; not finite: null
  JsonValue(const char* text) : value_(std::string(text)) {}   // NOLINT
  JsonValue(std::string text) : value_(std::move(text)) {}     // NOLINT
  JsonValue(const std::vector<std::string>& texts);            // NOLINT
  JsonValue(const std::map<std::string, std::string>& texts);  // NOLINT
  template <std::integral T>
  JsonValue(T value) : value_(static_cast<int64_t>(value)) {}  // NOLINT
  static JsonValue object(std::initializer_list<Member> members = {});
  static JsonValue array();

  void set(const std::string& key, JsonValue value);  // a new member of an object
  void push_back(JsonValue value);                    // a new element of an array

  // One line; bytes that are not UTF-8 (of a file's name) become U+FFFD.
  std::string dump() const;

  using Array = std::vector<JsonValue>;
  using Object = std::vector<Member>;
  using Any = std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object>;
  const Any& value() const { return value_; }

 private:
  Any value_;
};

}  // namespace octet::cli
