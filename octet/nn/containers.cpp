#include "octet/nn/containers.h"

#include "octet/nn/registry.h"

namespace octet::nn {

OCTET_MODULE(Sequential)
OCTET_MODULE(ModuleList)
OCTET_MODULE(ModuleDict)

Tensor Sequential::forward(Tensor x) {
  for (const auto& child : children()) x = (*child.second)(x);
  return x;
}

std::vector<Tensor> Sequential::forward(std::vector<Tensor> inputs) {
  for (const auto& child : children()) inputs = (*child.second)(inputs);
  return inputs;
}

}  // namespace octet::nn
