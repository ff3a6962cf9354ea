#pragma once
// The JSON files that `octet quantize` reads.

#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/qconfig_mapping.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/workflow/fx.h"

namespace octet::cli {

// --config FILE.json: {"qconfig": "native", "observer": "minmax", "skip": ["head.*"], "strict":
// true, "mapping": MAPPING}, the last as QConfigMapping::from_json takes it. All may be left out.
struct Config {
  std::string qconfig, observer;
  std::vector<std::string> skip;
  bool strict = false;
  std::optional<quant::QConfigMapping> mapping;
};
Config read_config(const std::string& path);

// --backend: one of octet's by name ("": the native one), or a JSON file as BackendConfig::to_json
// writes it.
quant::BackendConfig load_backend(const std::string& name);

// --observer: the observer of that name, for activations. Error if it is none.
quant::ObserverFactory activation_observer(const std::string& name);

// --qconfig and --observer, for a backend. Where no qconfig is named, the observers choose what the
// backend's layers take (quant::fitting_qconfig).
quant::QConfig chosen_qconfig(const std::string& qconfig, const std::string& observer,
                              const quant::BackendConfig& backend);

// --strict: Error naming the first operator that stays float.
void require_all_quantized(const quant::ObservedGraphModule& prepared);

// What is to be quantized, and how: options of `quantize` and `check`.
struct QuantizeChoice {
  std::string qconfig, observer, config, backend;
  std::vector<std::string> skip;
  std::optional<quant::QConfigMapping> mapping;  // of --config
  bool strict = false;                           // --config may ask for it too
  int64_t weight_bits = 8;
  void add_to(Command& command);
  // Reads --config, for what the command line says nothing of.
  void read_config();
  // Of static quantization: --qconfig, --observer and --weight-bits, and those with the mapping of
  // --config, whose qconfigs are for what it names.
  quant::QConfig static_qconfig() const;
  quant::QConfigMapping static_mapping() const;
  quant::PrepareOptions prepare_options() const;
};

}  // namespace octet::cli
