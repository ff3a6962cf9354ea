#include "octet/tensor/attrs.h"

#include <cmath>
#include <cstdlib>

#include "octet/base/check_impl.h"

namespace octet {
namespace {

std::string print(double v) {
  std::string text = fmt::format("{}", v);
  // "1" -> "1."; 1e30, inf and nan are clear already
  if (text.find_first_of(".en") == std::string::npos) text += ".";
  return text;
}

template <typename T>
const T& as(const Attrs& attrs, const std::string& name, const char* kind) {
  const Attr& attr = attrs.get(name);
  const T* value = std::get_if<T>(&attr);
  OCTET_CHECK(value, invalid_argument, "attribute {}={}: expected {}", name, to_string(attr), kind);
  return *value;
}

Attr parse_number(const std::string& text) {
  char* end = nullptr;
  if (text.find_first_of(".en") == std::string::npos) {
    errno = 0;
    long long i = std::strtoll(text.c_str(), &end, 10);
    if (!text.empty() && *end == 0 && errno == 0) return int64_t{i};
  } else {
    double d = std::strtod(text.c_str(), &end);
    if (*end == 0) return d;
  }
  OCTET_FAIL(invalid_argument, "cannot read attribute value '{}'", text);
}

}  // namespace

std::string to_string(const Attr& attr) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, bool>)
          return v ? "true" : "false";
        else if constexpr (std::is_same_v<T, FromOperand>)
          return fmt::format("${}", v.index);
        else if constexpr (std::is_same_v<T, int64_t>)
          return std::to_string(v);
        else if constexpr (std::is_same_v<T, double>)
          return print(v);
        else if constexpr (std::is_same_v<T, std::string>) {
          std::string out = "\"";
          for (char c : v) {
            if (c == '"' || c == '\\') out += '\\';
            out += c;
          }
          return out + "\"";
        } else if constexpr (std::is_same_v<T, std::vector<int64_t>>)
          return fmt::format("[{}]", fmt::join(v, ", "));
        else {
          std::vector<std::string> parts;
          for (double d : v) parts.push_back(print(d));
          return fmt::format("[{}]", fmt::join(parts, ", "));
        }
      },
      attr);
}

Attr parse_attr(const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  OCTET_CHECK(!text.empty(), invalid_argument, "an attribute's value is empty");
  if (text[0] == '"') {
    OCTET_CHECK(text.size() >= 2 && text.back() == '"', invalid_argument, "unterminated string {}",
                text);
    std::string out;
    for (size_t i = 1; i + 1 < text.size(); ++i) {
      if (text[i] == '\\' && i + 2 < text.size()) ++i;
      out += text[i];
    }
    return out;
  }
  if (text[0] == '$') {
    const Attr index = parse_number(text.substr(1));
    const auto* i = std::get_if<int64_t>(&index);
    OCTET_CHECK(i && *i >= 0 && *i < (int64_t{1} << 31), invalid_argument,
                "{}: expected an operand's number", text);
    return FromOperand{*i};
  }
  if (text[0] != '[') return parse_number(text);
  OCTET_CHECK(text.back() == ']', invalid_argument, "unterminated list {}", text);
  std::vector<int64_t> ints;
  std::vector<double> doubles;
  for (size_t i = 1; i < text.size() - 1;) {
    size_t comma = std::min(text.find(',', i), text.size() - 1);
    size_t first = text.find_first_not_of(' ', i), last = text.find_last_not_of(' ', comma - 1);
    OCTET_CHECK(first <= last && first < comma, invalid_argument, "an item of {} is empty", text);
    Attr item = parse_number(text.substr(first, last - first + 1));
    if (auto* v = std::get_if<int64_t>(&item))
      ints.push_back(*v);
    else
      doubles.push_back(std::get<double>(item));
    i = comma + 1;
  }
  if (doubles.empty()) return ints;
  OCTET_CHECK(ints.empty(), invalid_argument, "list {} mixes integers and reals", text);
  return doubles;
}

const Attr& Attrs::get(const std::string& name) const {
  auto it = map_.find(name);
  if (it == map_.end()) {
    std::vector<std::string> known;
    for (const auto& [key, value] : map_) known.push_back(key);
    OCTET_FAIL(invalid_argument, "attribute '{}' is missing; there are: {}", name,
               fmt::join(known, ", "));
  }
  return it->second;
}

std::optional<size_t> Attrs::operand(const std::string& name) const {
  auto it = map_.find(name);
  const auto* given = it == map_.end() ? nullptr : std::get_if<FromOperand>(&it->second);
  return given ? std::optional(static_cast<size_t>(given->index)) : std::nullopt;
}

bool Attrs::any_operand() const {
  for (const auto& [name, value] : map_)
    if (std::holds_alternative<FromOperand>(value)) return true;
  return false;
}

Attrs::Attrs() = default;
Attrs::Attrs(std::initializer_list<std::pair<const std::string, Attr>> items) : map_(items) {}
Attrs::Attrs(const Attrs& other) = default;
Attrs::Attrs(Attrs&& other) noexcept = default;
Attrs& Attrs::operator=(const Attrs& other) = default;
Attrs& Attrs::operator=(Attrs&& other) noexcept = default;
Attrs::~Attrs() = default;

bool Attrs::has(const std::string& name) const { return map_.count(name) != 0; }

Attrs& Attrs::set(const std::string& name, Attr value) {
  map_[name] = std::move(value);
  return *this;
}

void Attrs::erase(const std::string& name) { map_.erase(name); }

bool Attrs::operator==(const Attrs& other) const { return map_ == other.map_; }

int64_t Attrs::get_int(const std::string& name) const {
  return as<int64_t>(*this, name, "an integer");
}
double Attrs::get_double(const std::string& name) const {
  if (auto* i = std::get_if<int64_t>(&get(name))) return static_cast<double>(*i);
  return as<double>(*this, name, "a number");
}
bool Attrs::get_bool(const std::string& name) const {
  return as<bool>(*this, name, "true or false");
}
const std::string& Attrs::get_string(const std::string& name) const {
  return as<std::string>(*this, name, "a string");
}
const std::vector<int64_t>& Attrs::get_ints(const std::string& name) const {
  return as<std::vector<int64_t>>(*this, name, "a list of integers");
}
std::vector<double> Attrs::get_doubles(const std::string& name) const {
  if (auto* ints = std::get_if<std::vector<int64_t>>(&get(name)))
    return {ints->begin(), ints->end()};
  return as<std::vector<double>>(*this, name, "a list of numbers");
}

}  // namespace octet
