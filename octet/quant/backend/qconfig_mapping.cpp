#include "octet/quant/backend/qconfig_mapping.h"

#include <algorithm>
#include <set>

#include "octet/nn/activation.h"
#include "octet/quant/backend/json_impl.h"

namespace octet::quant {
namespace {

using MaybeQConfig = QConfigMapping::MaybeQConfig;
using Target = QConfigMapping::Target;

// Replaces the entry with the same key, or adds this one.
template <typename Entry, typename SameKey>
void put(std::vector<Entry>& entries, Entry entry, SameKey same_key) {
  for (Entry& e : entries)
    if (same_key(e)) {
      e = std::move(entry);
      return;
    }
  entries.push_back(std::move(entry));
}

bool is_inside(const std::string& path, const std::string& parent) {
  return path == parent || (path.starts_with(parent) && path[parent.size()] == '.');
}

// "layer1.0.conv" -> "layer1.0"; "conv" -> "".
std::string parent_of(const std::string& path) {
  size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

// The module whose forward makes the call.
const std::string& caller(const Target& t) { return t.op.empty() ? t.parent_path : t.module_path; }

bool is_type(const Target& t, const ObjectType& type) {
  return t.op.empty() ? t.module_type && type.type() == t.module_type : type.op() == t.op;
}

bool is_order(const Target& t, const QConfigMapping::ByOrder& entry) {
  return caller(t) == entry.path && t.index == entry.index && is_type(t, entry.type);
}

std::string describe(const QConfigMapping::ByOrder& e) {
  return fmt::format("module_name_object_type_order ('{}', {}, {})", e.path, to_string(e.type),
                     e.index);
}

// Equal, in any order. Keys are unique, so equal sizes and one inclusion do.
template <typename Entry>
bool same_entries(const std::vector<Entry>& a, const std::vector<Entry>& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const Entry& e) {
           return std::find(b.begin(), b.end(), e) != b.end();
         });
}

}  // namespace

QConfigMapping& QConfigMapping::set_global(MaybeQConfig qconfig) {
  global_ = std::move(qconfig);
  return *this;
}

QConfigMapping& QConfigMapping::set_object_type(const ObjectType& type, MaybeQConfig qconfig) {
  put(types_, {type, std::move(qconfig)}, [&](const ByType& e) { return e.type == type; });
  return *this;
}

QConfigMapping& QConfigMapping::set_module_name_regex(const std::string& regex,
                                                      MaybeQConfig qconfig) {
  try {
    Regex compiled(regex);
    put(regexes_, {regex, std::move(qconfig)}, [&](const ByName& e) { return e.name == regex; });
    if (compiled_.size() < regexes_.size()) compiled_.push_back(std::move(compiled));
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("set_module_name_regex: {}", e.what()));
  }
  return *this;
}

QConfigMapping& QConfigMapping::set_module_name(const std::string& path, MaybeQConfig qconfig) {
  OCTET_CHECK(!path.empty(), invalid_argument,
              "set_module_name: \"\" is the whole model; use set_global");
  put(names_, {path, std::move(qconfig)}, [&](const ByName& e) { return e.name == path; });
  return *this;
}

QConfigMapping& QConfigMapping::set_module_name_object_type_order(const std::string& path,
                                                                  const ObjectType& type, int index,
                                                                  MaybeQConfig qconfig) {
  OCTET_CHECK(index >= 0, invalid_argument,
              "set_module_name_object_type_order('{}', {}): index {}; calls are counted from 0",
              path, to_string(type), index);
  put(orders_, {path, type, index, std::move(qconfig)},
      [&](const ByOrder& e) { return e.path == path && e.type == type && e.index == index; });
  return *this;
}

const MaybeQConfig* QConfigMapping::find_type(const ObjectType& type) const {
  for (const ByType& e : types_)
    if (e.type == type) return &e.qconfig;
  return nullptr;
}

MaybeQConfig QConfigMapping::find(const Target& t) const {
  for (const ByOrder& e : orders_)
    if (is_order(t, e)) return e.qconfig;
  for (std::string path = t.module_path; !path.empty(); path = parent_of(path))
    for (const ByName& e : names_)
      if (e.name == path) return e.qconfig;
  for (size_t i = 0; i < regexes_.size(); ++i)
    if (compiled_[i].begins(t.module_path)) return regexes_[i].qconfig;
  if (t.module_type)
    if (const MaybeQConfig* q = find_type(*t.module_type)) return *q;
  for (const ByType& e : types_)
    if (!t.op.empty() && e.type.op() == t.op) return e.qconfig;
  return global_;
}

std::vector<std::string> QConfigMapping::unmatched(const std::vector<Target>& targets) const {
  std::vector<std::string> result;
  auto check = [&](const std::string& entry, auto&& fits) {
    if (std::none_of(targets.begin(), targets.end(), fits)) result.push_back(entry);
  };
  for (const ByName& e : names_)
    check(fmt::format("module_name '{}'", e.name),
          [&](const Target& t) { return is_inside(t.module_path, e.name); });
  for (size_t i = 0; i < regexes_.size(); ++i)
    check(fmt::format("module_name_regex '{}'", regexes_[i].name),
          [&](const Target& t) { return compiled_[i].begins(t.module_path); });
  for (const ByOrder& e : orders_)
    check(describe(e), [&](const Target& t) { return is_order(t, e); });
  return result;
}

void QConfigMapping::require_matched(const std::vector<Target>& targets) const {
  std::vector<std::string> missing = unmatched(targets);
  if (missing.empty()) return;
  // All modules: those called, and those around them.
  std::set<std::string> paths;
  for (const Target& t : targets)
    for (std::string path = t.module_path; !path.empty() && paths.insert(path).second;
         path = parent_of(path)) {
    }
  std::vector<std::string> known(paths.begin(), paths.end());
  auto hint = [&](const std::string& entry) -> std::string {
    for (const ByName& e : names_)
      if (entry == fmt::format("module_name '{}'", e.name)) return did_you_mean(e.name, known);
    for (const ByOrder& e : orders_) {
      if (entry != describe(e)) continue;
      auto calls = std::count_if(targets.begin(), targets.end(), [&](const Target& t) {
        return caller(t) == e.path && is_type(t, e.type);
      });
      if (e.path.empty() || paths.count(e.path))
        return fmt::format(": it makes {} such call{}", calls, calls == 1 ? "" : "s");
      return did_you_mean(e.path, known);
    }
    return "";
  };
  for (std::string& entry : missing) entry += hint(entry);
  OCTET_FAIL(not_found, "QConfigMapping: no call of the model fits {}",
             fmt::join(missing, "; nor "));
}

bool QConfigMapping::operator==(const QConfigMapping& other) const {
  return global_ == other.global_ && same_entries(types_, other.types_) &&
         regexes_ == other.regexes_ && same_entries(names_, other.names_) &&
         same_entries(orders_, other.orders_);
}

// -- JSON -----------------------------------------------------------------------------------------

namespace {

constexpr const char* kTypes = "object_type";
constexpr const char* kRegexes = "module_name_regex";
constexpr const char* kNames = "module_name";
constexpr const char* kOrders = "module_name_object_type_order";
const std::string kWho = "QConfigMapping";

OrderedJson to_json(const MaybeQConfig& qconfig) {
  return qconfig ? qconfig_to_json(*qconfig) : OrderedJson(nullptr);
}

MaybeQConfig maybe_qconfig(const Json& json, const std::string& who) {
  if (json.is_null()) return std::nullopt;
  return qconfig_from_json(json, who);
}

// Calls fn(entry, where) on the entries of a list, each of `size` elements.
template <typename Fn>
void each_entry(const Json& root, const char* key, size_t size, Fn fn) {
  if (!root.contains(key)) return;
  size_t i = 0;
  for (const Json& entry : list_of(root[key], fmt::format("{}: '{}'", kWho, key))) {
    std::string where = fmt::format("{}: {}[{}]", kWho, key, i++);
    OCTET_CHECK(entry.is_array() && entry.size() == size, invalid_argument,
                "{}: expected a list of {}, got {}", where,
                size == 2 ? "a name and a qconfig" : "a path, a type, an index and a qconfig",
                brief(entry));
    fn(entry, where);
  }
}

}  // namespace

QConfigMapping QConfigMapping::from_json(std::string_view text) {
  const JsonDocument root_document = parse_json(text, kWho, ErrorCode::invalid_argument);
  const Json& root = *root_document;
  check_keys(root, {"", kTypes, kRegexes, kNames, kOrders}, kWho);
  QConfigMapping m;
  if (root.contains("")) m.set_global(maybe_qconfig(root[""], kWho + ": ''"));
  each_entry(root, kTypes, 2, [&](const Json& e, const std::string& where) {
    m.set_object_type(text_of(e[0], where), maybe_qconfig(e[1], where));
  });
  each_entry(root, kRegexes, 2, [&](const Json& e, const std::string& where) {
    m.set_module_name_regex(text_of(e[0], where), maybe_qconfig(e[1], where));
  });
  each_entry(root, kNames, 2, [&](const Json& e, const std::string& where) {
    m.set_module_name(text_of(e[0], where), maybe_qconfig(e[1], where));
  });
  each_entry(root, kOrders, 4, [&](const Json& e, const std::string& where) {
    m.set_module_name_object_type_order(text_of(e[0], where), text_of(e[1], where),
                                        int_of(e[2], where), maybe_qconfig(e[3], where));
  });
  return m;
}

std::string QConfigMapping::to_json() const {
  OrderedJson root = OrderedJson::object();
  root[""] = quant::to_json(global_);
  auto add = [&](const char* key, OrderedJson entry) { root[key].push_back(std::move(entry)); };
  for (const ByType& e : types_)
    add(kTypes, OrderedJson::array({e.type.name(), quant::to_json(e.qconfig)}));
  for (const ByName& e : regexes_)
    add(kRegexes, OrderedJson::array({e.name, quant::to_json(e.qconfig)}));
  for (const ByName& e : names_)
    add(kNames, OrderedJson::array({e.name, quant::to_json(e.qconfig)}));
  for (const ByOrder& e : orders_)
    add(kOrders, OrderedJson::array({e.path, e.type.name(), e.index, quant::to_json(e.qconfig)}));
  return root.dump(2);
}

// -- defaults -------------------------------------------------------------------------------------

namespace {

// What sigmoid and its like give lies in a range known beforehand.
void set_fixed_qparams(QConfigMapping& m, const ObserverFactory& weight, bool qat) {
  auto fixed = [&](const ObserverFactory& observer) {
    return QConfig{qat ? observer.fake_quantize("FixedQParamsFakeQuantize") : observer, weight};
  };
  QConfig unit = fixed(default_fixed_qparams_range_0to1_observer());
  QConfig signed_unit = fixed(default_fixed_qparams_range_neg1to1_observer());
  m.set_object_type<nn::Hardsigmoid>(unit).set_object_type("hardsigmoid", unit);
  m.set_object_type<nn::Sigmoid>(unit).set_object_type("sigmoid", unit);
  m.set_object_type<nn::Softmax>(unit).set_object_type("softmax", unit);
  m.set_object_type<nn::Tanh>(signed_unit).set_object_type("tanh", signed_unit);
}

QConfigMapping default_mapping(const QConfig& qconfig, bool qat) {
  QConfigMapping m(qconfig);
  m.set_object_type("reshape", default_reuse_input_qconfig());
  set_fixed_qparams(m, qat ? default_weight_fake_quant() : default_weight_observer(), qat);
  return m;
}

}  // namespace

QConfigMapping get_default_qconfig_mapping(std::string_view name) {
  static const std::vector<std::string> known = {"native", "fbgemm", "x86", "onednn", "qnnpack"};
  OCTET_CHECK(std::find(known.begin(), known.end(), name) != known.end(), not_found,
              "get_default_qconfig_mapping: unknown backend '{}'{} (known: {}); of another qconfig "
              "make QConfigMapping(qconfig)",
              name, did_you_mean(name, known), fmt::join(known, ", "));
  return default_mapping(get_default_qconfig(name), false);
}

QConfigMapping get_default_qat_qconfig_mapping(std::string_view name, int version) {
  return default_mapping(get_default_qat_qconfig(name, version), true);
}

}  // namespace octet::quant
