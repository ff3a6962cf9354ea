#include "octet/nn/dropout.h"

#include "octet/base/check_impl.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/functional_impl.h"

namespace octet::nn {

OCTET_MODULE(Dropout)
[[maybe_unused]] const bool g_dropout_registered =
    (register_module<Dropout1d>("octet::nn::Dropout1d"),
     register_module<Dropout2d>("octet::nn::Dropout2d"),
     register_module<Dropout3d>("octet::nn::Dropout3d"), true);

Dropout::Dropout(double p) : p(p) {
  OCTET_CHECK(p >= 0 && p <= 1, invalid_argument, "Dropout: p={}; expected a probability, 0 to 1",
              p);
}
Tensor Dropout::forward(Tensor x) { return functional::dropout(x, p, training()); }
std::string Dropout::extra_repr() const { return fmt::format("p={}, inplace=False", python(p)); }

template <size_t N>
Tensor DropoutNd<N>::forward(Tensor x) {
  return functional::detail::channel_dropout(x, N, p, training(), type_name());
}
template class DropoutNd<1>;
template class DropoutNd<2>;
template class DropoutNd<3>;

Attrs Dropout::config() const { return {{"p", p}}; }
std::shared_ptr<Dropout> Dropout::from_config(const Attrs& c) {
  return make<Dropout>(c.get_double("p"));
}

}  // namespace octet::nn
