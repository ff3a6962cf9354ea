#pragma once
// JSON text, written as it comes. Memory may run out at any place: nlohmann's objects and arrays,
// of which a text would be made otherwise, take memory when they are destroyed, and end the program
// where there is none.

#include <concepts>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "octet/base/json_impl.h"
#include "octet/tensor/attrs.h"

namespace octet::io {

// A list begins and ends with '[' and ']', an object with '{' and '}'; its members are key() and
// what comes next. As nlohmann's dump(): no spaces, numbers in the fewest digits.
class JsonText {
 public:
  JsonText& begin(char bracket) {
    separate();
    text_ += bracket;
    return *this;
  }
  JsonText& end(char bracket) {
    text_ += bracket;
    return *this;
  }
  JsonText& key(std::string_view name) {
    value(name);
    text_ += ':';
    return *this;
  }
  // Json::exception if it is not UTF-8.
  JsonText& value(std::string_view text) { return scalar(Json(text)); }
  JsonText& value(const std::string& text) { return scalar(Json(text)); }
  JsonText& value(const char* text) { return scalar(Json(text)); }
  template <typename T>
  requires std::integral<T> || std::floating_point<T> JsonText& value(T number) {
    return scalar(Json(number));
  }
  JsonText& null() { return scalar(Json()); }
  template <typename T>
  JsonText& value(const std::vector<T>& list) {
    begin('[');
    for (const T& item : list) value(item);
    return end(']');
  }
  template <typename T>
  JsonText& value(const std::map<std::string, T>& members) {
    begin('{');
    for (const auto& [name, item] : members) member(name, item);
    return end('}');
  }
  template <typename T>
  JsonText& member(std::string_view name, const T& what) {
    return key(name).value(what);
  }
  // A text of another of these.
  JsonText& value(const JsonText& other) {
    separate();
    text_ += other.text_;
    return *this;
  }
  std::string take() { return std::move(text_); }

 private:
  JsonText& scalar(const Json& json) {
    separate();
    text_ += json.dump();
    return *this;
  }
  // A comma, but for the first of a list and after a key. A text ends with its quote, so the last
  // character says which it is.
  void separate() {
    if (!text_.empty() && std::string_view("[{:").find(text_.back()) == std::string_view::npos)
      text_ += ',';
  }

  std::string text_;
};

// Attributes as an object of texts, as printed: the types stay apart.
inline void put_attrs(JsonText& json, const Attrs& attrs) {
  json.begin('{');
  for (const auto& [key, value] : attrs) json.member(key, to_string(value));
  json.end('}');
}

}  // namespace octet::io
