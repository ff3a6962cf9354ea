#include "cli/config.h"

#include <fmt/format.h>

#include "octet/base/error.h"
#include "octet/base/json_impl.h"
#include "octet/base/text.h"

namespace octet::cli {
namespace {

// What reads JSON text that came from a file: its errors name the file.
template <typename Read>
auto of_file(const std::string& path, const Json& json, Read&& read) {
  try {
    return read(json.dump());
  } catch (const Error& e) {
    fail(e.code(), fmt::format("{}: {}", path, e.what()));
  }
}

}  // namespace

Config read_config(const std::string& path) {
  const Json json = read_json(path);
  if (!json.is_object()) fail(ErrorCode::corrupt, fmt::format("{}: expected a JSON object", path));
  const std::vector<std::string> known{"qconfig", "observer", "skip", "strict", "mapping"};
  Config config;
  for (const auto& [key, value] : json.items()) {
    try {
      if (key == "qconfig")
        config.qconfig = value.get<std::string>();
      else if (key == "observer")
        config.observer = value.get<std::string>();
      else if (key == "skip")
        for (const auto& s : value) config.skip.push_back(s.get<std::string>());
      else if (key == "strict")
        config.strict = value.get<bool>();
      else if (key == "mapping")
        config.mapping = of_file(path, value, quant::QConfigMapping::from_json);
      else
        fail(ErrorCode::invalid_argument,
             fmt::format("{}: unknown key '{}': expected one of {}{}", path, key,
                         fmt::join(known, ", "), did_you_mean(key, known)));
    } catch (const nlohmann::json::exception&) {
      fail(ErrorCode::corrupt,
           fmt::format("{}: '{}' is {}, not of the expected type", path, key, brief(value)));
    }
  }
  return config;
}

quant::BackendConfig load_backend(const std::string& name) {
  if (name.empty()) return quant::get_native_backend_config();
  if (!name.ends_with(".json")) return quant::get_backend_config(name);
  return of_file(name, read_json(name), quant::BackendConfig::from_json);
}

quant::ObserverFactory activation_observer(const std::string& name) {
  quant::ObserverFactory observer(name);
  for (const std::string& known : quant::activation_observer_names())
    if (quant::ObserverFactory(known).name() == observer.name()) return observer;
  fail(ErrorCode::invalid_argument,
       fmt::format("observer '{}': activations are quantized per tensor, by qparams from "
                   "data; use one of {}",
                   name, fmt::join(quant::activation_observer_names(), ", ")));
}

quant::QConfig chosen_qconfig(const std::string& name, const std::string& observer) {
  quant::QConfig qconfig = quant::get_default_qconfig(name.empty() ? "native" : name);
  const std::string chosen = !observer.empty() ? observer : name.empty() ? "percentile" : "";
  if (chosen.empty()) return qconfig;
  const quant::ObserverFactory factory = activation_observer(chosen);
  auto options = qconfig.activation.options();
  options.averaging_constant = factory.options().averaging_constant;
  qconfig.activation = factory.with_args(options);
  return qconfig;
}

}  // namespace octet::cli
