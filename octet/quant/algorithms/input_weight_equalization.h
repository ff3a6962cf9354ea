#pragma once
// Input-weight equalization in graph mode (torch.ao.quantization.fx._equalize): where the channels
// of a layer's input have unlike ranges, one scale for all of them leaves the small ones few codes.
// So input channel i is multiplied by
//  s_i = sqrt((w_max_i - w_min_i) / (x_max_i - x_min_i))
// (1 where that is 0 or not finite) and the weights that meet it are divided by s_i. The model
// computes what it did.
//
//   auto prepared = quant::prepare_fx(model, quant::get_default_qconfig_mapping(), {example});
//   // All layers that can be.
//   prepared = quant::prepare_equalization_fx(prepared, quant::default_equalization_qconfig());
//   for (const Tensor& batch : data) (*prepared)(batch);
//   auto int8 = quant::convert_fx(quant::convert_equalization_fx(prepared));
//
// In PyTorch these are arguments of prepare_fx and a part of convert_fx. Here they are two passes
// of their own between the others, each from prepared model to prepared model: channel ranges have
// to be seen during calibration, and all that follows from them (weights, ranges of observers, a
// mul in the graph) is known before qparams are chosen. So neither prepare_fx nor the three passes
// of convert know of it, and the equalized model can be looked at, run and calibrated on before it
// is converted.

#include <memory>
#include <string>
#include <vector>

#include "octet/quant/observe/min_max.h"
#include "octet/quant/workflow/fx.h"

namespace octet::quant {

// Watches the channels of a layer's input; its label is the name of the layer's result. It chooses
// no qparams: a model that is converted without convert_equalization_fx is quantized as if it were
// not there.
class InputEqualizationObserver : public PerChannelMinMaxObserver {
 public:
  using PerChannelMinMaxObserver::PerChannelMinMaxObserver;
  bool chooses_qparams() const override { return false; }
};

// Ranges of the weights that meet each input channel, with groups those of the channel's group
// only.
struct WeightColumns {
  std::vector<float> min, max;  // [in_channels]
};
// Of a Linear, Conv1d, 2d or 3d; Error for others.
WeightColumns weight_columns(nn::Module& layer);

// The entry of a mapping that says "equalize"; any other QConfig says the same, nullopt says no.
QConfig default_equalization_qconfig();

// The calls that `which` has an entry for and that can be equalized get observers of their input's
// channels; the rest of the prepared model is shared with a copy. Which can: Linear, Conv1d, 2d and
// 3d, alone or fused with ReLU, and the operators linear and conv1d, 2d, 3d on parameters, that
// prepare_fx was to quantize, in any mode, and that the model calls in one place only. Errors: a
// name in `which` that matches nothing; nothing to equalize (with each reason); observers of an
// earlier call.
std::shared_ptr<ObservedGraphModule> prepare_equalization_fx(
    const std::shared_ptr<ObservedGraphModule>& prepared, const QConfigMapping& which);

struct EqualizationReport {
  struct Entry {
    std::string path;          // of the layer; of operators the name of the result
    std::vector<float> scale;  // [in_channels]
    // the layer whose weights have the scale; empty: the graph multiplies the input
    std::string absorbed_by;
  };
  std::vector<Entry> entries;
};

// A copy with the scales: multiplied into the rows of the weight and the bias of the layer (with or
// without ReLU) that makes the input, where nothing else uses its result, otherwise into the input
// by a float mul, which stays float when the model is converted; divided out of the layer's
// weights. Observers of scaled values become MinMaxObservers of the scaled channel ranges. Errors:
// not_calibrated, naming the layer; a model without equalization observers.
//
// PyTorch 1.13 multiplies weights only where the layer before is equalized as well, and otherwise
// leaves both the mul and the scaled weights out, and it keeps the range of values between two
// equalized layers as it was before they were scaled.
std::shared_ptr<ObservedGraphModule> convert_equalization_fx(
    const std::shared_ptr<ObservedGraphModule>& prepared, EqualizationReport* report = nullptr);

}  // namespace octet::quant
