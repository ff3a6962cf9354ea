#include "octet/nn/pooling.h"

#include "octet/base/check_impl.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional_impl.h"

namespace octet::nn {

namespace {
// The beginnings of the operators' paddings: all are even.
template <size_t N>
Sizes<N> padding_of(const Attrs& c) {
  const auto& both = c.get_ints("padding");
  OCTET_CHECK(both.size() == 2 * N, invalid_argument,
              "padding: {} numbers given; expected {}, the borders before and behind", both.size(),
              2 * N);
  return std::vector<int64_t>(both.begin(), both.begin() + N);
}
}  // namespace

template <size_t N>
Tensor PoolNd<N>::forward(Tensor x) {
  return functional::detail::call_pool<N>(kind(), x, op_attrs());
}

template <size_t N>
MaxPoolNd<N>::MaxPoolNd(Sizes<N> kernel, MaxPoolOptions<N> o)
    : kernel_size(kernel),
      stride(o.stride.value_or(kernel)),
      padding(o.padding),
      dilation(o.dilation),
      ceil_mode(o.ceil_mode) {}

template <size_t N>
Attrs MaxPoolNd<N>::op_attrs() const {
  return functional::detail::max_pool_attrs<N>(kernel_size, stride, padding, dilation, ceil_mode);
}

template <size_t N>
std::string MaxPoolNd<N>::extra_repr() const {
  return fmt::format("kernel_size={}, stride={}, padding={}, dilation={}, ceil_mode={}",
                     python(kernel_size), python(stride), python(padding), python(dilation),
                     python(ceil_mode));
}

template <size_t N>
AvgPoolNd<N>::AvgPoolNd(Sizes<N> kernel, AvgPoolOptions<N> o)
    : kernel_size(kernel),
      stride(o.stride.value_or(kernel)),
      padding(o.padding),
      ceil_mode(o.ceil_mode),
      count_include_pad(o.count_include_pad),
      divisor_override(o.divisor_override) {
  OCTET_CHECK(N > 1 || divisor_override == 0, invalid_argument,
              "AvgPool1d: it has no divisor_override");
}

template <size_t N>
Attrs AvgPoolNd<N>::op_attrs() const {
  return functional::detail::avg_pool_attrs<N>(kernel_size, stride, padding, ceil_mode,
                                               count_include_pad, divisor_override);
}

template <size_t N>
Attrs AvgPoolNd<N>::config() const {
  return op_attrs().set("divisor_override", divisor_override);
}

template <size_t N>
std::string AvgPoolNd<N>::extra_repr() const {
  // PyTorch's AvgPool1d prints tuples, which it makes of its arguments.
  auto text = [](const Sizes<N>& s) { return N == 1 ? s.text() : python(s); };
  return fmt::format("kernel_size={}, stride={}, padding={}", text(kernel_size), text(stride),
                     text(padding));
}

template <size_t N, bool maximum>
Tensor AdaptivePoolNd<N, maximum>::forward(Tensor x) {
  return functional::detail::adaptive_pool<N>(kind(), x, output_size);
}

template <size_t N, bool maximum>
std::string AdaptivePoolNd<N, maximum>::extra_repr() const {
  std::string s = python(output_size);
  for (size_t at = 0; (at = s.find("-1")) != std::string::npos;) s.replace(at, 2, "None");
  return "output_size=" + s;
}

template <size_t N>
std::shared_ptr<MaxPoolNd<N>> MaxPoolNd<N>::from_config(const Attrs& c) {
  return make<MaxPoolNd>(Sizes<N>(c.get_ints("kernel")),
                         MaxPoolOptions<N>{.stride = Sizes<N>(c.get_ints("stride")),
                                           .padding = padding_of<N>(c),
                                           .dilation = c.get_ints("dilation"),
                                           .ceil_mode = c.get_bool("ceil_mode")});
}

template <size_t N>
std::shared_ptr<AvgPoolNd<N>> AvgPoolNd<N>::from_config(const Attrs& c) {
  return make<AvgPoolNd>(Sizes<N>(c.get_ints("kernel")),
                         AvgPoolOptions<N>{.stride = Sizes<N>(c.get_ints("stride")),
                                           .padding = padding_of<N>(c),
                                           .ceil_mode = c.get_bool("ceil_mode"),
                                           .count_include_pad = c.get_bool("count_include_pad"),
                                           .divisor_override = c.get_int("divisor_override")});
}

template class PoolNd<1>;
template class MaxPoolNd<1>;
template class AvgPoolNd<1>;
template class AdaptivePoolNd<1, false>;
template class AdaptivePoolNd<1, true>;
template class PoolNd<2>;
template class MaxPoolNd<2>;
template class AvgPoolNd<2>;
template class AdaptivePoolNd<2, false>;
template class AdaptivePoolNd<2, true>;
template class PoolNd<3>;
template class MaxPoolNd<3>;
template class AvgPoolNd<3>;
template class AdaptivePoolNd<3, false>;
template class AdaptivePoolNd<3, true>;

namespace {
template <size_t N>
bool register_pools() {
  register_module<MaxPoolNd<N>>(fmt::format("octet::nn::MaxPool{}d", N));
  register_module<AvgPoolNd<N>>(fmt::format("octet::nn::AvgPool{}d", N));
  register_module<AdaptivePoolNd<N, false>>(fmt::format("octet::nn::AdaptiveAvgPool{}d", N));
  register_module<AdaptivePoolNd<N, true>>(fmt::format("octet::nn::AdaptiveMaxPool{}d", N));
  return true;
}
[[maybe_unused]] const bool g_pooling_registered =
    register_pools<1>() && register_pools<2>() && register_pools<3>();
}  // namespace

}  // namespace octet::nn
