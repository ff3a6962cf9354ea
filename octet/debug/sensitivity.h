#pragma once
// Which layer costs the accuracy: each one quantized alone, each one left float alone, or, for
// networks of many layers, an estimate of the first for all layers from one pass.
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig_mapping());
//   for (const auto& batch : samples) prepared->forward(batch);
//   for (const debug::LayerSensitivity& s : debug::sensitivity(*prepared, samples).layers)
//     std::cout << s.name << ": " << s.sqnr << " dB\n";
//
// The network is a graph of operators, prepared for static quantization and calibrated.

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "octet/debug/compare.h"
#include "octet/quant/workflow/fx.h"

namespace octet::debug {

enum class SensitivityMethod {
  // This layer's weights are codes and its result is rounded to its codes, all else is float; the
  // lowest SQNR is the worst. Rounding a value is thus the cost of what makes it: of a layer, an
  // input, or an operator in float whose result layers read.
  alone,
  without,  // this layer runs in float, all others on codes; the highest SQNR is the worst
  // The noise of `alone` to first order: of a value's own error e on the float network's values and
  // the Jacobian J of the outputs, |J e|^2 = E (e . J^T u)^2 over random u with independent
  // standard normal elements (`probes` of them, and one backward pass each). Error if an operator
  // has no gradient.
  estimate,
};
const char* to_string(SensitivityMethod method);  // "alone", "without", "estimate"
SensitivityMethod parse_sensitivity_method(std::string_view name);  // Error for other names

// A layer, an input whose values become codes (op "input"; not with `without`), or an operator that
// stays float and has weights or multiplies matrices, or whose result layers read as codes.
struct LayerSensitivity {
  std::string name, op;  // as quant::node_name() and the graph have them; the input's name
  double sqnr = 0;       // of the graph's outputs, in dB; see SensitivityMethod
  // without: the gain in dB over the network with all layers on codes; else the share of the noise
  // that all layers cause alone, 0..1.
  double share = 0;
  int64_t weight_bytes = 0;  // of its float weights
  bool left_float = false;   // an operator that stays float
  std::string reason;        // why, if it does
  // Of the time of one run of the first batch, with all layers on codes: 0..1.
  double time_share = 0;
  // What is wrong with it, as debug::compare() finds it on these samples; not looked for where the
  // first dimension of an input does not count the samples.
  Fault fault = Fault::none;
  std::string sentence;  // and in words; "" for Fault::none
};

struct Sensitivity {
  SensitivityMethod method = SensitivityMethod::alone;
  double all_sqnr = 0;  // with all layers on codes
  // As debug::compare() ranks them: those with a fault of accuracy, which is to be mended, before
  // the layer is left float; those left float among quantized ones, by their time; the others. The
  // worst share first. What stays float has the noise of its rounded result; `without` says that it
  // gains nothing.
  std::vector<LayerSensitivity> layers;
};

struct SensitivityOptions {
  SensitivityMethod method = SensitivityMethod::alone;
  int probes = 4;  // estimate: random u for each batch
  // Written anew after each layer, and read at the start: what it holds is not measured again. It
  // is of one graph, calibration, method and number of batches; Error if it is of another. "":
  // none.
  std::filesystem::path state;
  std::function<void(size_t done, size_t all)> progress;  // after each layer
};

// `samples`: batches of inputs in the graph's order. Functions that join into one table of codes
// (quant/decide/decide.h) are one layer, named after the last; operators that only move codes are
// none. Runs the network once or, for alone and without, once for each layer on all samples; keeps
// the float outputs of all samples. Errors: not_calibrated; invalid_argument without samples or if
// nothing is quantized statically.
Sensitivity sensitivity(const quant::ObservedGraphModule& prepared,
                        const std::vector<std::vector<Tensor>>& samples,
                        const SensitivityOptions& options = {});

// The 8-bit graph in which the layers of these names (LayerSensitivity::name) stay float. Error
// not_found for other names, inputs and what is float anyway among them.
graph::Graph leaving_float(const quant::ObservedGraphModule& prepared,
                           const std::vector<std::string>& names);

}  // namespace octet::debug
