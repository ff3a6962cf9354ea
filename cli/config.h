#pragma once
// The JSON files that `octet quantize` reads.

#include <optional>
#include <string>
#include <vector>

#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/qconfig_mapping.h"
#include "octet/quant/observe/qconfig.h"

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

// --qconfig and --observer. Where nothing is chosen ("" both), ranges are percentiles: of the real
// networks in docs/numerics.md those that histograms harm most keep their accuracy so, and the
// others lose 0.6 to 1.8 dB more. A qconfig that is named has the observer that PyTorch gives it.
quant::QConfig chosen_qconfig(const std::string& qconfig, const std::string& observer);

}  // namespace octet::cli
