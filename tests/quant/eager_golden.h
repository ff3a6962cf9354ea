#pragma once
// The models of tests/golden/eager_*.json (scripts/oracle/eager.py), float and quantized.

#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "tests/quant/golden_models.h"

namespace octet::testing {

// qconfig() of scripts/oracle/eager.py.
inline quant::QConfig qconfig_named(const std::string& name) {
  const quant::ObserverFactory full("MinMaxObserver"),
      weight = quant::default_weight_observer(),
      channel = quant::default_per_channel_weight_observer();
  if (name == "minmax") return {full, weight};
  if (name == "minmax_per_channel") return {full, channel};
  if (name == "moving_average")
    return {quant::ObserverFactory("MovingAverageMinMaxObserver").with_averaging_constant(0.25),
            weight};
  return quant::get_default_qconfig(name);
}

// The case's model, fused.
inline nn::ModulePtr float_model(const json& c) {
  nn::ModulePtr model = models::make_model(c["model"]);
  models::fill(*model, c["parameters"]);
  model->eval();
  auto fuse = c["fuse"].get<quant::FuseList>();
  if (!fuse.empty()) model = quant::fuse_modules(model, fuse);
  model->qconfig = qconfig_named(c["qconfig"]);
  if (c["model"] == "Mixed") model->submodule("conv2")->qconfig = nullptr;
  return model;
}

// The case's model, quantized.
inline nn::ModulePtr converted(const json& c) {
  nn::ModulePtr prepared = quant::prepare(float_model(c));
  for (int b = 0; b < c["batches"].get<int>(); ++b) prepared->forward(models::batch(c, b));
  return quant::convert(prepared);
}

}  // namespace octet::testing
