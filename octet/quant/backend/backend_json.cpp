// BackendConfig as JSON.
#include "octet/nn/registry.h"
#include "octet/ops/op.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/json_impl.h"

namespace octet::quant {
namespace {

constexpr const char* kModes[] = {"static", "dynamic", "weight-only"};
const std::vector<std::string> kConstraintKeys = {"dtype",
                                                  "quant_min_lower_bound",
                                                  "quant_max_upper_bound",
                                                  "scale_min_lower_bound",
                                                  "scale_max_upper_bound",
                                                  "scale_exact_match",
                                                  "zero_point_exact_match"};
const std::vector<std::string> kDtypeKeys = {"input_dtype", "output_dtype", "weight_dtype",
                                             "bias_dtype", "is_dynamic"};
const std::vector<std::string> kPatternKeys = {"pattern",
                                               "observation_type",
                                               "dtype_configs",
                                               "root_module",
                                               "qat_module",
                                               "reference_quantized_module",
                                               "fused_module",
                                               "fuser_method",
                                               "num_tensor_args_to_observation_type",
                                               "input_type_to_index",
                                               "overwrite_output_observer",
                                               "quantized_modules",
                                               "quantized_ops"};

QuantMode mode_at(const std::string& name, const std::string& who) {
  for (QuantMode mode : {QuantMode::statically, QuantMode::dynamically, QuantMode::weight_only})
    if (name == to_string(mode)) return mode;
  OCTET_FAIL(not_found, "{}: unknown way of quantizing '{}' (known: {})", who, name,
             fmt::join(kModes, ", "));
}

// -- writing --------------------------------------------------------------------------------------

template <typename T>
void put(OrderedJson& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}

// A dtype without constraints is its name.
OrderedJson constraints_to_json(const DTypeWithConstraints& d) {
  if (d.dtype && DTypeWithConstraints{.dtype = d.dtype} == d) return octet::to_string(*d.dtype);
  OrderedJson json = OrderedJson::object();
  if (d.dtype) json["dtype"] = octet::to_string(*d.dtype);
  put(json, "quant_min_lower_bound", d.quant_min_lower_bound);
  put(json, "quant_max_upper_bound", d.quant_max_upper_bound);
  put(json, "scale_min_lower_bound", d.scale_min_lower_bound);
  put(json, "scale_max_upper_bound", d.scale_max_upper_bound);
  put(json, "scale_exact_match", d.scale_exact_match);
  put(json, "zero_point_exact_match", d.zero_point_exact_match);
  return json;
}

OrderedJson dtypes_to_json(const DTypeConfig& c) {
  OrderedJson json = OrderedJson::object();
  auto add = [&](const char* key, const DTypeWithConstraints& d) {
    if (d != DTypeWithConstraints{}) json[key] = constraints_to_json(d);
  };
  add("input_dtype", c.input_dtype);
  add("output_dtype", c.output_dtype);
  add("weight_dtype", c.weight_dtype);
  if (c.bias_dtype) json["bias_dtype"] = octet::to_string(*c.bias_dtype);
  if (c.is_dynamic) json["is_dynamic"] = true;
  return json;
}

// Attributes as printed: the types stay apart.
OrderedJson attrs_to_json(const Attrs& attrs) {
  OrderedJson json = OrderedJson::object();
  for (const auto& [name, value] : attrs) json[name] = octet::to_string(value);
  return json;
}

OrderedJson pattern_to_json(const BackendPatternConfig& c) {
  OrderedJson json = OrderedJson::object();
  json["pattern"] = OrderedJson::array();
  for (const ObjectType& type : c.pattern) json["pattern"].push_back(type.name());
  json["observation_type"] = to_string(c.observation_type);
  json["dtype_configs"] = OrderedJson::array();
  for (const DTypeConfig& d : c.dtype_configs) json["dtype_configs"].push_back(dtypes_to_json(d));
  if (c.root_module) json["root_module"] = nn::registered_name(*c.root_module);
  if (c.qat_module) json["qat_module"] = c.qat_module->name();
  if (c.reference_quantized_module)
    json["reference_quantized_module"] = c.reference_quantized_module->name();
  if (c.fused_module) json["fused_module"] = nn::registered_name(*c.fused_module);
  if (c.fuser_method) {
    OCTET_CHECK(!c.fuser_method->name().empty(), unsupported,
                "its fuser method is a function without a name: give it one with "
                "register_fuser_method");
    json["fuser_method"] = c.fuser_method->name();
  }
  for (const auto& [n, type] : c.num_tensor_args_to_observation_type)
    json["num_tensor_args_to_observation_type"][std::to_string(n)] = to_string(type);
  for (const auto& [name, index] : c.input_type_to_index) json["input_type_to_index"][name] = index;
  if (c.overwrite_output_observer)
    json["overwrite_output_observer"] = qconfig_to_json({c.overwrite_output_observer, {}});
  for (const auto& [mode, module] : c.quantized_modules)
    json["quantized_modules"][to_string(mode)] = module.name();
  for (const auto& [mode, lowered] : c.quantized_ops)
    json["quantized_ops"][to_string(mode)] = {{"op", lowered.op},
                                              {"attrs", attrs_to_json(lowered.attrs)}};
  return json;
}

// -- reading --------------------------------------------------------------------------------------

DTypeWithConstraints constraints_from_json(const Json& json, const std::string& who) {
  if (json.is_string()) return {.dtype = parse_dtype(json.get<std::string>())};
  check_keys(json, kConstraintKeys, who);
  DTypeWithConstraints d;
  auto integer = [&](const char* key, std::optional<int64_t>& to) {
    if (json.contains(key)) to = integer_of(json[key], fmt::format("{}: {}", who, key));
  };
  auto number = [&](const char* key, std::optional<double>& to) {
    if (json.contains(key)) to = number_of(json[key], fmt::format("{}: {}", who, key));
  };
  if (json.contains("dtype")) d.dtype = parse_dtype(text_of(json["dtype"], who + ": dtype"));
  integer("quant_min_lower_bound", d.quant_min_lower_bound);
  integer("quant_max_upper_bound", d.quant_max_upper_bound);
  number("scale_min_lower_bound", d.scale_min_lower_bound);
  number("scale_max_upper_bound", d.scale_max_upper_bound);
  number("scale_exact_match", d.scale_exact_match);
  integer("zero_point_exact_match", d.zero_point_exact_match);
  return d;
}

DTypeConfig dtypes_from_json(const Json& json, const std::string& who) {
  check_keys(json, kDtypeKeys, who);
  DTypeConfig c;
  if (json.contains("input_dtype"))
    c.input_dtype = constraints_from_json(json["input_dtype"], who + ": input_dtype");
  if (json.contains("output_dtype"))
    c.output_dtype = constraints_from_json(json["output_dtype"], who + ": output_dtype");
  if (json.contains("weight_dtype"))
    c.weight_dtype = constraints_from_json(json["weight_dtype"], who + ": weight_dtype");
  if (json.contains("bias_dtype"))
    c.bias_dtype = parse_dtype(text_of(json["bias_dtype"], who + ": bias_dtype"));
  if (json.contains("is_dynamic")) c.is_dynamic = bool_of(json["is_dynamic"], who + ": is_dynamic");
  return c;
}

// Calls fn(key, value, where) on the fields of an object that may be missing.
template <typename Fn>
void each_field(const Json& json, const char* key, const std::string& who, Fn fn) {
  if (!json.contains(key)) return;
  std::string where = fmt::format("{}: {}", who, key);
  OCTET_CHECK(json[key].is_object(), invalid_argument, "{}: expected an object, got {}", where,
              brief(json[key]));
  for (const auto& [name, value] : json[key].items()) fn(name, value, where);
}

std::type_index class_from_json(const Json& json, const std::string& who) {
  ObjectType type(text_of(json, who));
  OCTET_CHECK(type.is_module(), invalid_argument,
              "{}: '{}' is an operator; expected a class of modules", who, type.op());
  return *type.type();
}

LoweredOp lowered_from_json(const Json& json, const std::string& who) {
  check_keys(json, {"op", "attrs"}, who);
  OCTET_CHECK(json.contains("op"), invalid_argument, "{}: 'op' is missing", who);
  LoweredOp lowered{ops::get(text_of(json["op"], who + ": op")).name(), {}};
  each_field(json, "attrs", who,
             [&](const std::string& name, const Json& value, const std::string& where) {
               lowered.attrs.set(name, parse_attr(text_of(value, where)));
             });
  return lowered;
}

int number_of_tensors(const std::string& text, const std::string& who) {
  bool digits =
      !text.empty() && text.size() < 9 && text.find_first_not_of("0123456789") == std::string::npos;
  OCTET_CHECK(digits, invalid_argument, "{}: '{}' is not a number of tensors", who, text);
  return std::stoi(text);
}

BackendPatternConfig pattern_from_json(const Json& json, const std::string& who) {
  check_keys(json, kPatternKeys, who);
  OCTET_CHECK(json.contains("pattern"), invalid_argument, "{}: 'pattern' is missing", who);
  BackendPatternConfig c;
  for (const Json& item : list_of(json["pattern"], who + ": pattern"))
    c.pattern.emplace_back(text_of(item, who + ": pattern"));
  auto at = [&](const char* key) { return fmt::format("{}: {}", who, key); };
  auto text = [&](const char* key) { return text_of(json[key], at(key)); };
  if (json.contains("observation_type"))
    c.observation_type = parse_observation_type(text("observation_type"));
  if (json.contains("dtype_configs"))
    for (const Json& d : list_of(json["dtype_configs"], at("dtype_configs")))
      c.dtype_configs.push_back(dtypes_from_json(d, at("dtype_configs")));
  if (json.contains("root_module"))
    c.root_module = class_from_json(json["root_module"], at("root_module"));
  if (json.contains("qat_module")) c.qat_module = Replacement::named(text("qat_module"));
  if (json.contains("reference_quantized_module"))
    c.reference_quantized_module = Replacement::named(text("reference_quantized_module"));
  if (json.contains("fused_module"))
    c.fused_module = class_from_json(json["fused_module"], at("fused_module"));
  if (json.contains("fuser_method")) c.fuser_method = FuserMethod(text("fuser_method"));
  each_field(json, "num_tensor_args_to_observation_type", who,
             [&](const std::string& n, const Json& type, const std::string& where) {
               c.num_tensor_args_to_observation_type[number_of_tensors(n, where)] =
                   parse_observation_type(text_of(type, where));
             });
  each_field(json, "input_type_to_index", who,
             [&](const std::string& name, const Json& index, const std::string& where) {
               c.input_type_to_index[name] = int_of(index, where);
             });
  if (json.contains("overwrite_output_observer"))
    c.overwrite_output_observer =
        qconfig_from_json(json["overwrite_output_observer"], at("overwrite_output_observer"))
            .activation;
  each_field(json, "quantized_modules", who,
             [&](const std::string& mode, const Json& name, const std::string& where) {
               c.set_quantized_module(mode_at(mode, where),
                                      Replacement::named(text_of(name, where)));
             });
  each_field(json, "quantized_ops", who,
             [&](const std::string& mode, const Json& lowered, const std::string& where) {
               c.quantized_ops.insert_or_assign(mode_at(mode, where),
                                                lowered_from_json(lowered, where));
             });
  return c;
}

// fn(), whose errors say where.
template <typename Fn>
auto within(const std::string& where, Fn fn) {
  try {
    return fn();
  } catch (const Error& e) {
    std::string what = e.what();
    throw Error(e.code(), what.starts_with(where) ? what : where + ": " + what);
  }
}

}  // namespace

std::string BackendConfig::to_json() const {
  OrderedJson root = OrderedJson::object();
  root["name"] = name_;
  root["configs"] = OrderedJson::array();
  for (const BackendPatternConfig& c : configs_) {
    std::string where = fmt::format("backend {}: pattern {}", name_, to_string(c.pattern));
    root["configs"].push_back(within(where, [&] { return pattern_to_json(c); }));
  }
  return root.dump(1);
}

BackendConfig BackendConfig::from_json(std::string_view text) {
  const std::string who = "BackendConfig";
  const JsonDocument root_document = parse_json(text, who, ErrorCode::invalid_argument);
  const Json& root = *root_document;
  check_keys(root, {"name", "configs"}, who);
  BackendConfig backend(root.contains("name") ? text_of(root["name"], who + ": name") : "");
  if (!root.contains("configs")) return backend;
  size_t i = 0;
  for (const Json& json : list_of(root["configs"], who + ": configs")) {
    std::string where = fmt::format("{}: configs[{}]", who, i++);
    backend.set_backend_pattern_config(
        within(where, [&] { return pattern_from_json(json, where); }));
  }
  return backend;
}

}  // namespace octet::quant
