#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/json_impl.h"

namespace octet {
namespace {

constexpr size_t kShown = 120;  // bytes of a name or of the parser's words that errors show

std::string shorten(std::string text) {
  if (text.size() > kShown) text.replace(kShown, std::string::npos, "...");
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) > 126) c = '?';
  return text;
}

// Takes the parser's events and builds the value, checking the limits on the way. The parser itself
// does not recurse.
class Builder {
 public:
  Builder(const std::string& who, ErrorCode code) : who_(who), code_(code) {}
  ~Builder() { JsonDocument::empty(root_); }
  Builder(const Builder&) = delete;
  JsonDocument take() { return JsonDocument(std::move(root_)); }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(int64_t value) { return add(value); }
  bool number_unsigned(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail(fmt::format("the number {} is out of range", value));
    return add(value);
  }
  bool number_float(double value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }  // not of text
  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    auto [member, is_new] = levels_.back().value->get_ref<Json::object_t&>().emplace(name, nullptr);
    if (!is_new) fail(fmt::format("'{}' occurs twice", shorten(name)));
    levels_.back().member = &*member;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    std::string what = e.what();
    if (size_t end = what.find("] "); end != std::string::npos) what = what.substr(end + 2);
    fail(fmt::format("not valid JSON at byte {}: {}", position, shorten(what)));
  }

 private:
  struct Level {
    Json* value;                                   // an object or array that is open
    Json::object_t::value_type* member = nullptr;  // of an object: the one that is read
  };

  Json& place(Json value) {
    if (++values_ > kMaxJsonValues) fail(fmt::format("more than {} values", kMaxJsonValues));
    if (levels_.empty()) return root_ = std::move(value);
    Level& level = levels_.back();
    if (level.member) return level.member->second = std::move(value);
    auto& list = level.value->get_ref<Json::array_t&>();
    list.push_back(std::move(value));
    return list.back();
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (levels_.size() >= kMaxJsonDepth)
      fail(fmt::format("nests deeper than {} levels", kMaxJsonDepth));
    levels_.push_back({&place(std::move(value))});
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }

  // "values[3].scale": the field that is read.
  std::string field() const {
    std::string path;
    for (const Level& level : levels_) {
      if (level.member)
        path += (path.empty() ? "" : ".") + shorten(level.member->first);
      else if (level.value->is_array())  // what is open in an outer list is its last element
        path += fmt::format("[{}]", level.value->size() - (&level == &levels_.back() ? 0 : 1));
    }
    return path.size() <= kShown ? path : path.substr(0, kShown) + "...";
  }
  [[noreturn]] void fail(const std::string& what) const {
    std::string at = field();
    octet::fail(code_, fmt::format("{}{}: {}", who_, at.empty() ? "" : ": '" + at + "'", what));
  }

  const std::string& who_;
  ErrorCode code_;
  Json root_;
  std::vector<Level> levels_;
  size_t values_ = 0;
};

}  // namespace

void JsonDocument::empty(Json& value) noexcept {
  if (auto* object = value.get_ptr<Json::object_t*>()) {
    for (auto& member : *object) empty(member.second);
    object->clear();
  } else if (auto* array = value.get_ptr<Json::array_t*>()) {
    for (Json& item : *array) empty(item);
    array->clear();
  }
}

JsonDocument parse_json(std::string_view text, const std::string& who, ErrorCode code) {
  if (text.size() > kMaxJsonBytes)
    fail(code,
         fmt::format("{}: {} bytes of JSON; expected at most {}", who, text.size(), kMaxJsonBytes));
  Builder builder(who, code);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

JsonDocument read_json(const std::filesystem::path& path) {
  auto file = MappedFile::open(path);
  return parse_json({reinterpret_cast<const char*>(file->data()), file->size()}, path.string());
}

std::string brief(const Json& json) {
  std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text.replace(60, std::string::npos, "...");
  return text;
}

}  // namespace octet
