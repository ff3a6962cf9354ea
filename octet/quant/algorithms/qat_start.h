#pragma once
// Quantization-aware training that starts where calibration and algorithms on prepared graphs end
// (GPTQ, say), in place of the float network and empty observers.
//
//   auto calibrated = quant::prepare_fx(graph, quant::get_default_qconfig());
//   for (const auto& batch : samples) calibrated->forward(batch);
//   quant::gptq(*calibrated, samples);
//   auto module = quant::prepare_qat_fx(graph, quant::get_default_qat_qconfig("native"));
//   quant::start_qat_from(*module, *calibrated);

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

// Weights, biases, scales and zero points of `qat` become those of `calibrated`, another
// preparation of the same graph for the same codes. Observers that got them are off: the
// ranges stay until something enables or learns them. Values that only `qat` observes keep their
// observers. Errors: not_calibrated; unsupported for graphs of module calls; invalid_argument where
// the two are of different graphs, or of different codes.
void start_qat_from(ObservedGraphModule& qat, const ObservedGraphModule& calibrated);

}  // namespace octet::quant
