#pragma once
// The models of scripts/oracle/fx_graphs.py, under the same names and with the same member names
// (fx_models.cpp, compiled once for all tests that use them).

#include <memory>
#include <ostream>
#include <utility>
#include <vector>

#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/quantized.h"

namespace octet::testing::fx_models {

namespace F = functional;

// Cannot be traced.
struct DependsOnData : nn::Module {
  nn::Slot fc = slot("fc", nn::Linear(4, 4));
  Tensor forward(Tensor x) override { return F::sum(x).item() > 0 ? fc(x) : x; }
};

// A custom module, as its users write one, and what it is replaced by.
struct CustomModule : nn::Module {
  nn::Slot linear = slot("linear", nn::Linear(3, 3));
  Tensor forward(Tensor x) override { return linear(x); }
};

struct ObservedCustomModule : nn::Module {
  explicit ObservedCustomModule(nn::ModulePtr float_linear)
      : linear(slot("linear", std::move(float_linear))) {}
  Tensor forward(Tensor x) override { return linear(x); }
  static std::shared_ptr<ObservedCustomModule> from_float(CustomModule& float_module) {
    auto observed = nn::make<ObservedCustomModule>(float_module.linear.get());
    observed->qconfig = float_module.qconfig;
    return observed;
  }
  nn::Slot linear;
};

struct StaticQuantCustomModule : nn::Module {
  explicit StaticQuantCustomModule(nn::ModulePtr quantized_linear)
      : linear(slot("linear", std::move(quantized_linear))) {}
  Tensor forward(Tensor x) override { return linear(x); }
  static std::shared_ptr<StaticQuantCustomModule> from_observed(
      ObservedCustomModule& observed_module) {
    observed_module.linear->add_child("activation_post_process",
                                      observed_module.submodule("activation_post_process"));
    return nn::make<StaticQuantCustomModule>(
        nn::quantized::Linear::from_float(*observed_module.linear));
  }
  nn::Slot linear;
};

// All models, by name, in the order of the oracle's.
struct Maker {
  const char* name;
  nn::ModulePtr (*make)();
  friend void PrintTo(const Maker& maker, std::ostream* out) { *out << maker.name; }
};
const std::vector<Maker>& makers();

}  // namespace octet::testing::fx_models
