#pragma once
// What the JSON of qconfig mappings and of backend configs shares.

#include <algorithm>
#include <string>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/json_impl.h"
#include "octet/base/text.h"
#include "octet/quant/observe/qconfig.h"

namespace octet::quant {

// Error unless it is an object with no other keys than these.
inline void check_keys(const Json& json, const std::vector<std::string>& known,
                       const std::string& who) {
  OCTET_CHECK(json.is_object(), invalid_argument, "{}: expected an object, got {}", who,
              brief(json));
  for (const auto& [key, value] : json.items())
    OCTET_CHECK(std::find(known.begin(), known.end(), key) != known.end(), not_found,
                "{}: unknown key '{}'{} (known: '{}')", who, key, did_you_mean(key, known),
                fmt::join(known, "', '"));
}

inline std::string text_of(const Json& json, const std::string& who) {
  OCTET_CHECK(json.is_string(), invalid_argument, "{}: expected text, got {}", who, brief(json));
  return json.get<std::string>();
}

inline int64_t integer_of(const Json& json, const std::string& who) {
  OCTET_CHECK(json.is_number_integer(), invalid_argument, "{}: expected an integer, got {}", who,
              brief(json));
  return json.get<int64_t>();
}

inline int int_of(const Json& json, const std::string& who) {
  int64_t value = integer_of(json, who);
  OCTET_CHECK(value == static_cast<int>(value), invalid_argument, "{}: {} is out of range", who,
              value);
  return static_cast<int>(value);
}

inline double number_of(const Json& json, const std::string& who) {
  OCTET_CHECK(json.is_number(), invalid_argument, "{}: expected a number, got {}", who,
              brief(json));
  return json.get<double>();
}

inline bool bool_of(const Json& json, const std::string& who) {
  OCTET_CHECK(json.is_boolean(), invalid_argument, "{}: expected true or false, got {}", who,
              brief(json));
  return json.get<bool>();
}

inline const Json& list_of(const Json& json, const std::string& who) {
  OCTET_CHECK(json.is_array(), invalid_argument, "{}: expected a list, got {}", who, brief(json));
  return json;
}

// Attributes that are numbers, truth values and texts. `what` names one for an error.
inline OrderedJson attrs_to_json(const Attrs& attrs) {
  OrderedJson json = OrderedJson::object();
  for (const auto& [name, value] : attrs)
    std::visit(
        [&, &key = name](const auto& v) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(v)>, FromOperand>) json[key] = v;
        },
        value);
  return json;
}

inline Attrs attrs_from_json(const Json& json, const std::string& what) {
  Attrs attrs;
  for (const auto& [name, value] : json.items()) {
    if (value.is_boolean())
      attrs.set(name, value.get<bool>());
    else if (value.is_number_integer())
      attrs.set(name, value.get<int64_t>());
    else if (value.is_number())
      attrs.set(name, value.get<double>());
    else
      attrs.set(name, text_of(value, fmt::format("{}'{}'", what, name)));
  }
  return attrs;
}

inline OrderedJson qconfig_to_json(const QConfig& qconfig) {
  return attrs_to_json(to_attrs(qconfig));
}

inline QConfig qconfig_from_json(const Json& json, const std::string& who) {
  try {
    if (json.is_string()) return get_default_qconfig(json.get<std::string>());
    OCTET_CHECK(json.is_object(), invalid_argument,
                "expected the name of a qconfig, its attributes, or null, got {}", brief(json));
    return qconfig_from(attrs_from_json(json, ""));
  } catch (const Error& e) {
    throw Error(e.code(), who + ": " + e.what());
  }
}

}  // namespace octet::quant
