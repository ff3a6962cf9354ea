#include "octet/nn/dropout.h"

#include "octet/base/check_impl.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"

namespace octet::nn {

OCTET_MODULE(Dropout)
OCTET_MODULE(Dropout1d)
OCTET_MODULE(Dropout2d)
OCTET_MODULE(Dropout3d)

Dropout::Dropout(double p) : p(p) {
  OCTET_CHECK(p >= 0 && p <= 1, invalid_argument, "Dropout: p={}; expected a probability, 0 to 1", p);
}
Tensor Dropout::forward(Tensor x) { return functional::dropout(x, p, training()); }
std::string Dropout::extra_repr() const { return fmt::format("p={}, inplace=False", python(p)); }

Tensor FeatureDropout::forward(Tensor x) {
  if (!training() || p == 0) return x;
  OCTET_CHECK(x.dim() == spatial() + 1 || x.dim() == spatial() + 2, invalid_argument, "{}: the input is {}; expected {} or {} "
              "dimensions", type_name(), octet::to_string(x.type()), spatial() + 1, spatial() + 2);
  Shape channels(x.shape().begin(), x.shape().end() - spatial());
  channels.insert(channels.end(), static_cast<size_t>(spatial()), 1);
  return x * functional::dropout(Tensor::ones(channels), p, true);
}

}  // namespace octet::nn
