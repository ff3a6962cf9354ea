#include "cli/config.h"

#include <fmt/format.h>

#include "cli/weight_bits.h"
#include "octet/base/error.h"
#include "octet/base/json_impl.h"
#include "octet/base/text.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/tune/precision.h"

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
  const JsonDocument json_document = read_json(path);
  const Json& json = *json_document;
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
  return of_file(name, *read_json(name), quant::BackendConfig::from_json);
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

quant::QConfig chosen_qconfig(const std::string& name, const std::string& observer,
                              const quant::BackendConfig& backend) {
  quant::QConfig qconfig = quant::get_default_qconfig(name.empty() ? "native" : name);
  if (!observer.empty()) {
    const quant::ObserverFactory factory = activation_observer(observer);
    auto options = qconfig.activation.options();
    options.averaging_constant = factory.options().averaging_constant;
    qconfig.activation = factory.with_args(options);
  }
  return name.empty() ? quant::fitting_qconfig(qconfig, backend) : qconfig;
}

void require_all_quantized(const quant::ObservedGraphModule& prepared) {
  const graph::Graph& g = prepared.graph();
  for (const graph::Node& node : g.nodes()) {
    auto d = prepared.decisions().find(g.value(node.outputs[0]).name);
    if (d != prepared.decisions().end() && !d->second.mode)
      fail(ErrorCode::unsupported,
           fmt::format("--strict: {} ({}) stays float: {}", quant::node_name(g, node), node.op,
                       d->second.reason));
  }
}

void QuantizeChoice::add_to(Command& command) {
  command.add_option("--qconfig", qconfig, "native (default), fbgemm, x86, onednn, qnnpack, ...")
      .type_name("NAME")
      .check(accepted_by([](const std::string& name) { quant::get_default_qconfig(name); }));
  command
      .add_option("--observer", observer,
                  "of activations: percentile (default), histogram, minmax, mse, ...")
      .type_name("NAME")
      .check(accepted_by([](const std::string& name) { activation_observer(name); }));
  add_weight_bits(command, weight_bits);
  command.add_option("--skip", skip, "operators to leave float: a name, glob, or re:EXPRESSION")
      .type_name("PATTERN")
      .one_value();
  command
      .add_option("--config", config, "JSON with any of qconfig, observer, skip, strict, mapping")
      .type_name("FILE.json");
  command
      .add_option("--backend", backend,
                  "what may be quantized: native (default), qnnpack, ..., or a .json file")
      .type_name("NAME|FILE.json");
}

void QuantizeChoice::read_config() {
  if (config.empty()) return;
  Config read = cli::read_config(config);
  if (qconfig.empty()) qconfig = read.qconfig;
  if (observer.empty()) observer = read.observer;
  skip.insert(skip.end(), read.skip.begin(), read.skip.end());
  strict |= read.strict;
  mapping = std::move(read.mapping);
}

quant::QConfig QuantizeChoice::static_qconfig() const {
  return quant::with_weight_bits(chosen_qconfig(qconfig, observer, load_backend(backend)),
                                 weight_bits);
}

quant::QConfigMapping QuantizeChoice::static_mapping() const {
  quant::QConfigMapping all = mapping ? *mapping : quant::QConfigMapping(static_qconfig());
  if (!all.global_qconfig()) all.set_global(static_qconfig());
  return all;
}

quant::PrepareOptions QuantizeChoice::prepare_options() const {
  return {.skip = skip, .backend = load_backend(backend)};
}

}  // namespace octet::cli
