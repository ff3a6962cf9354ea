#include "octet/nn/dropout.h"

#include "octet/base/check_impl.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/functional_impl.h"

namespace octet::nn {

OCTET_MODULE(Dropout)
OCTET_MODULE(Dropout1d)
OCTET_MODULE(Dropout2d)
OCTET_MODULE(Dropout3d)

Dropout::Dropout(double p) : p(p) {
  OCTET_CHECK(p >= 0 && p <= 1, invalid_argument, "Dropout: p={}; expected a probability, 0 to 1",
              p);
}
Tensor Dropout::forward(Tensor x) { return functional::dropout(x, p, training()); }
std::string Dropout::extra_repr() const { return fmt::format("p={}, inplace=False", python(p)); }

Tensor FeatureDropout::forward(Tensor x) {
  return functional::detail::channel_dropout(x, spatial(), p, training(), type_name());
}

}  // namespace octet::nn
