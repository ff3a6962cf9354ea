#include "cli/json.h"

#include <nlohmann/json.hpp>

namespace octet::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_nlohmann(const JsonValue& value) {
  if (const auto* array = std::get_if<JsonValue::Array>(&value.value())) {
    Json json = Json::array();
    for (const JsonValue& element : *array) json.push_back(to_nlohmann(element));
    return json;
  }
  if (const auto* object = std::get_if<JsonValue::Object>(&value.value())) {
    Json json = Json::object();
    for (const auto& [key, member] : *object) json[key] = to_nlohmann(member);
    return json;
  }
  if (const auto* text = std::get_if<std::string>(&value.value())) return *text;
  if (const auto* number = std::get_if<double>(&value.value())) return *number;
  if (const auto* integer = std::get_if<int64_t>(&value.value())) return *integer;
  if (const auto* truth = std::get_if<bool>(&value.value())) return *truth;
  return nullptr;
}

}  // namespace

JsonValue::JsonValue(const std::vector<std::string>& texts) : value_(Array()) {
  for (const std::string& text : texts) push_back(text);
}

JsonValue::JsonValue(const std::map<std::string, std::string>& texts) : value_(Object()) {
  for (const auto& [key, text] : texts) set(key, text);
}

JsonValue JsonValue::object(std::initializer_list<Member> members) {
  JsonValue json;
  json.value_ = Object(members);
  return json;
}

JsonValue JsonValue::array() {
  JsonValue json;
  json.value_ = Array();
  return json;
}

void JsonValue::set(const std::string& key, JsonValue value) {
  std::get<Object>(value_).push_back({key, std::move(value)});
}

void JsonValue::push_back(JsonValue value) { std::get<Array>(value_).push_back(std::move(value)); }

std::string JsonValue::dump() const {
  return to_nlohmann(*this).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace octet::cli
