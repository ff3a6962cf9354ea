#pragma once
// The models and data of scripts/oracle/model_report.py and input_weight_equalization.py.

#include <cmath>

#include "octet/nn/nn.h"
#include "tests/quant/golden_modules.h"

namespace octet::testing {

// build()
inline std::shared_ptr<nn::Sequential> build_model(const json& layers) {
  auto model = nn::make<nn::Sequential>();
  for (const json& l : layers) {
    const std::string name = l[0];
    auto arg = [&](size_t i) { return l[i].get<int64_t>(); };
    if (name == "Linear")
      model->append(nn::Linear(arg(1), arg(2), l.size() < 4 || l[3].get<bool>()));
    else if (name == "Conv1d")
      model->append(nn::Conv1d(arg(1), arg(2), arg(3)));
    else if (name == "Conv2d")
      model->append(nn::Conv2d(arg(1), arg(2), arg(3)));
    else if (name == "Conv3d")
      model->append(nn::Conv3d(arg(1), arg(2), arg(3)));
    else if (name == "MaxPool2d")
      model->append(nn::MaxPool2d(arg(1)));
    else if (name == "Flatten")
      model->append(nn::Flatten());
    else if (name == "ReLU")
      model->append(nn::ReLU());
    else
      throw std::out_of_range(name);
  }
  return model;
}

// parameters()
inline void set_parameters(nn::Module& model, uint64_t seed) {
  for (auto& [name, p] : model.named_parameters())
    *p = Tensor::from(golden_values("normal", seed++, p->numel(), 1, 0), p->shape());
}

// batches()
inline std::vector<Tensor> golden_batches(const json& c) {
  const Shape shape = c["input"].get<Shape>();
  const int64_t inner = numel(shape) / (shape[0] * shape[1]);
  const float spread = c.value("spread", 0.0f);
  std::vector<Tensor> result;
  uint64_t seed = c["seed"].get<uint64_t>() + 100;
  for (const json& d : c["data"]) {
    std::vector<float> x = golden_values(d[0], seed++, numel(shape), d[1], d[2]);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] *=
          std::exp2(spread * static_cast<float>(static_cast<int64_t>(i) / inner % shape[1] % 8));
    result.push_back(Tensor::from(x, shape));
  }
  return result;
}

}  // namespace octet::testing
