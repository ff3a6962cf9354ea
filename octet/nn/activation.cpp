#include "octet/nn/activation.h"

#include <fmt/format.h>

#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"

namespace octet::nn {

OCTET_MODULE(ReLU)
OCTET_MODULE(ReLU6)
OCTET_MODULE(Sigmoid)
OCTET_MODULE(Tanh)
OCTET_MODULE(Hardsigmoid)
OCTET_MODULE(Hardswish)
OCTET_MODULE(LeakyReLU)
OCTET_MODULE(ELU)
OCTET_MODULE(CELU)
OCTET_MODULE(GELU)
OCTET_MODULE(Hardtanh)
OCTET_MODULE(Softmax)
OCTET_MODULE(LogSoftmax)
OCTET_MODULE(Softplus)
OCTET_MODULE(SELU)
OCTET_MODULE(Softsign)
OCTET_MODULE(SiLU)
OCTET_MODULE(PReLU)

Tensor Activation::forward(Tensor x) { return ops::call(op_name(), {x}, op_attrs()); }

std::string Activation::extra_repr() const {
  std::string s;
  for (const auto& [name, value] : op_attrs())
    s += (s.empty() ? "" : ", ") + name + "=" + python(value);
  return s;
}

std::string Hardtanh::extra_repr() const {
  return fmt::format("min_val={}, max_val={}", python(min_val), python(max_val));
}

std::string Softplus::extra_repr() const {
  return fmt::format("beta={}, threshold={}", beta, threshold);
}

Tensor SiLU::forward(Tensor x) { return functional::silu(x); }

PReLU::PReLU(int64_t count, double init)
    : weight(parameter("weight", Tensor::full({count}, init))) {}
Tensor PReLU::forward(Tensor x) { return functional::prelu(x, weight); }
std::string PReLU::extra_repr() const { return fmt::format("num_parameters={}", weight.numel()); }

}  // namespace octet::nn
