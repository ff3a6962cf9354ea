#pragma once
// How the models of scripts/oracle/fx_graphs.py are filled, fed and observed where it matters what
// they compute (fx_outputs.py, numeric_suite.py).

#include <string>
#include <utility>
#include <vector>

#include "octet/quant/observe/factory.h"
#include "tests/quant/fx_golden.h"
#include "tests/quant/golden_models.h"

namespace octet::testing {

// fill() of scripts/oracle/fx_outputs.py.
inline void fill(nn::Module& model) {
  auto state = model.state_dict();
  uint64_t seed = 100;
  for (auto& [name, value] : state) {
    if (!is_floating(value.dtype())) continue;
    const Shape shape = value.shape();
    if (name.ends_with("running_var")) {
      std::vector<float> power = models::make_tensor("power", seed, shape, 1, 0).to_vector<float>();
      for (float& p : power) p = static_cast<float>(static_cast<double>(p) * p - 1e-5);
      value = Tensor::from(power, shape);
    } else if (name.ends_with("weight") && shape.size() == 1) {
      value = models::make_tensor("power", seed, shape, 1, 0);
    } else {
      value = models::make_tensor("steps", seed, shape, shape.size() > 1 ? 0.25 : 0.5, 0);
    }
    ++seed;
  }
  model.load_state_dict(state);
}

// data() of scripts/oracle/fx_outputs.py; whole numbers as inputs_of() makes them.
inline std::vector<Tensor> data(const json& c, uint64_t seed) {
  std::vector<Tensor> inputs = inputs_of(c);
  for (size_t k = 0; k < inputs.size(); ++k)
    if (is_floating(inputs[k].dtype()))
      inputs[k] = models::make_tensor("steps", seed + k, inputs[k].shape(), 1, 0);
  return inputs;
}

// replace_observers() of scripts/oracle/fx_outputs.py.
inline void watch_min_and_max(nn::Module& prepared) {
  std::vector<std::pair<std::string, nn::ModulePtr>> made;
  for (auto& [path, m] : prepared.named_modules()) {
    auto* observer = dynamic_cast<quant::Observer*>(m);
    auto* fake = dynamic_cast<quant::FakeQuantizeBase*>(m);
    if (observer && observer->type_name() == "HistogramObserver")
      made.emplace_back(
          path, quant::ObserverFactory("MinMaxObserver", observer->options()).make_module());
    if (fake && fake->type_name() == "FusedMovingAvgObsFakeQuantize")
      made.emplace_back(
          path,
          quant::ObserverFactory("MinMaxObserver", fake->options()).fake_quantize().make_module());
  }
  for (auto& [path, m] : made) prepared.set_submodule(path, m);
}

}  // namespace octet::testing
