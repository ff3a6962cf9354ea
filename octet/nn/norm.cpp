#include "octet/nn/norm.h"

#include <fmt/format.h>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/functional_impl.h"

namespace octet::nn {

OCTET_MODULE(LayerNorm)
OCTET_MODULE(GroupNorm)

namespace {
int64_t checked_features(int64_t n) {
  OCTET_CHECK(n >= 1, invalid_argument, "BatchNorm: {} features; expected 1 or more", n);
  return n;
}

// Of batch and instance norms.
template <typename Options>
std::string repr(int64_t num_features, const Options& o) {
  return fmt::format("{}, eps={}, momentum={}, affine={}, track_running_stats={}", num_features,
                     o.eps, o.momentum, python(o.affine), python(o.track_running_stats));
}
template <typename Options>
Attrs config_of(int64_t num_features, const Options& o) {
  return {{"num_features", num_features},
          {"eps", o.eps},
          {"momentum", o.momentum},
          {"affine", o.affine},
          {"track_running_stats", o.track_running_stats}};
}
}  // namespace

BatchNorm::BatchNorm(int64_t n, BatchNormOptions o)
    : num_features(checked_features(n)),
      options(o),
      weight(parameter("weight", o.affine ? Tensor::ones({n}) : Tensor())),
      bias(parameter("bias", o.affine ? Tensor::zeros({n}) : Tensor())),
      running_mean(buffer("running_mean", o.track_running_stats ? Tensor::zeros({n}) : Tensor())),
      running_var(buffer("running_var", o.track_running_stats ? Tensor::ones({n}) : Tensor())),
      num_batches_tracked(buffer("num_batches_tracked", o.track_running_stats
                                                            ? Tensor::zeros({}, DType::int64)
                                                            : Tensor())) {}

Tensor BatchNorm::forward(Tensor x) {
  check_input(x);
  return normalize(x, training() || !options.track_running_stats);
}

Tensor BatchNorm::normalize(const Tensor& x, bool batch_statistics) {
  OCTET_CHECK(x.size(1) == num_features, invalid_argument,
              "{}: the input {} has {} channels; expected {}", type_name(),
              octet::to_string(x.type()), x.size(1), num_features);
  const bool move = training() && options.track_running_stats;
  Tensor y =
      functional::detail::batch_norm(x, running_mean, running_var, weight, bias, batch_statistics,
                                     move, options.momentum, options.eps, type_name());
  if (batch_statistics && move) ++*num_batches_tracked.data<int64_t>();
  return y;
}

std::string BatchNorm::extra_repr() const { return repr(num_features, options); }

Attrs BatchNorm::config() const { return config_of(num_features, options); }

namespace {
template <typename M, typename Options = BatchNormOptions>
std::shared_ptr<M> batch_norm_from(const Attrs& c) {
  return make<M>(c.get_int("num_features"),
                 Options{.eps = c.get_double("eps"),
                         .momentum = c.get_double("momentum"),
                         .affine = c.get_bool("affine"),
                         .track_running_stats = c.get_bool("track_running_stats")});
}
}  // namespace

template <size_t N>
std::shared_ptr<BatchNormNd<N>> BatchNormNd<N>::from_config(const Attrs& c) {
  return batch_norm_from<BatchNormNd>(c);
}

template <size_t N>
void BatchNormNd<N>::check_input(const Tensor& x) const {
  constexpr const char* expected[] = {"(N, C) or (N, C, L)", "(N, C, H, W)", "(N, C, D, H, W)"};
  OCTET_CHECK(x.dim() == N + 2 || (N == 1 && x.dim() == 2), invalid_argument,
              "{}: the input is {}; expected {}", type_name(), octet::to_string(x.type()),
              expected[N - 1]);
}

template class BatchNormNd<1>;
template class BatchNormNd<2>;
template class BatchNormNd<3>;

// -- LayerNorm and GroupNorm ----------------------------------------------------------------------

LayerNorm::LayerNorm(Shape shape, double eps, bool affine)
    : normalized_shape(std::move(shape)),
      eps(eps),
      weight(parameter("weight", affine ? Tensor::ones(normalized_shape) : Tensor())),
      bias(parameter("bias", affine ? Tensor::zeros(normalized_shape) : Tensor())) {
  OCTET_CHECK(!normalized_shape.empty(), invalid_argument,
              "LayerNorm: normalized_shape is empty; expected a dimension or more");
}

Tensor LayerNorm::forward(Tensor x) {
  auto rank = static_cast<int64_t>(normalized_shape.size());
  OCTET_CHECK(x.dim() >= rank && std::equal(normalized_shape.begin(), normalized_shape.end(),
                                            x.shape().end() - rank),
              invalid_argument, "LayerNorm: the input is {}; expected its last dimensions to be {}",
              octet::to_string(x.type()), octet::to_string(normalized_shape));
  return functional::layer_norm(x, normalized_shape, weight, bias, eps);
}

std::string LayerNorm::extra_repr() const {
  return fmt::format("{}, eps={}, elementwise_affine={}", python(normalized_shape), eps,
                     python(weight.defined()));
}
Attrs LayerNorm::config() const {
  return {{"normalized_shape", normalized_shape},
          {"eps", eps},
          {"elementwise_affine", weight.defined()}};
}
std::shared_ptr<LayerNorm> LayerNorm::from_config(const Attrs& c) {
  return make<LayerNorm>(c.get_ints("normalized_shape"), c.get_double("eps"),
                         c.get_bool("elementwise_affine"));
}

GroupNorm::GroupNorm(int64_t groups, int64_t channels, double eps, bool affine)
    : num_groups(groups),
      num_channels(channels),
      eps(eps),
      weight(parameter("weight", affine ? Tensor::ones({channels}) : Tensor())),
      bias(parameter("bias", affine ? Tensor::zeros({channels}) : Tensor())) {
  OCTET_CHECK(groups >= 1 && channels >= 1 && channels % groups == 0, invalid_argument,
              "GroupNorm: {} channels in {} groups; expected the groups to divide them", channels,
              groups);
}
Tensor GroupNorm::forward(Tensor x) {
  OCTET_CHECK(x.dim() >= 2 && x.size(1) == num_channels, invalid_argument,
              "GroupNorm: the input is {}; expected {} channels", octet::to_string(x.type()),
              num_channels);
  return functional::group_norm(x, num_groups, weight, bias, eps);
}
std::string GroupNorm::extra_repr() const {
  return fmt::format("{}, {}, eps={}, affine={}", num_groups, num_channels, eps,
                     python(weight.defined()));
}
Attrs GroupNorm::config() const {
  return {{"num_groups", num_groups},
          {"num_channels", num_channels},
          {"eps", eps},
          {"affine", weight.defined()}};
}
std::shared_ptr<GroupNorm> GroupNorm::from_config(const Attrs& c) {
  return make<GroupNorm>(c.get_int("num_groups"), c.get_int("num_channels"), c.get_double("eps"),
                         c.get_bool("affine"));
}

// -- InstanceNorm ---------------------------------------------------------------------------------

InstanceNorm::InstanceNorm(int64_t n, InstanceNormOptions o)
    : num_features(checked_features(n)),
      options(o),
      weight(parameter("weight", o.affine ? Tensor::ones({n}) : Tensor())),
      bias(parameter("bias", o.affine ? Tensor::zeros({n}) : Tensor())),
      running_mean(buffer("running_mean", o.track_running_stats ? Tensor::zeros({n}) : Tensor())),
      running_var(buffer("running_var", o.track_running_stats ? Tensor::ones({n}) : Tensor())),
      num_batches_tracked(buffer("num_batches_tracked", o.track_running_stats
                                                            ? Tensor::zeros({}, DType::int64)
                                                            : Tensor())) {}

Tensor InstanceNorm::forward(Tensor x) {
  const bool unbatched = x.dim() == spatial() + 1;
  OCTET_CHECK((unbatched || x.dim() == spatial() + 2) && x.size(unbatched ? 0 : 1) == num_features,
              invalid_argument,
              "{}: the input is {}; expected {} channels and {} spatial dimensions", type_name(),
              octet::to_string(x.type()), num_features, spatial());
  return functional::detail::on_images(
      x, static_cast<size_t>(spatial()), [&](const Tensor& images) {
        return functional::detail::instance_norm(images, running_mean, running_var, weight, bias,
                                                 training() || !options.track_running_stats,
                                                 options.momentum, options.eps, type_name());
      });
}

std::string InstanceNorm::extra_repr() const { return repr(num_features, options); }
Attrs InstanceNorm::config() const { return config_of(num_features, options); }

template <size_t N>
std::shared_ptr<InstanceNormNd<N>> InstanceNormNd<N>::from_config(const Attrs& c) {
  return batch_norm_from<InstanceNormNd, InstanceNormOptions>(c);
}
template class InstanceNormNd<1>;
template class InstanceNormNd<2>;
template class InstanceNormNd<3>;

namespace {
template <size_t N>
bool register_norms() {
  register_module<BatchNormNd<N>>(fmt::format("octet::nn::BatchNorm{}d", N));
  register_module<InstanceNormNd<N>>(fmt::format("octet::nn::InstanceNorm{}d", N));
  return true;
}
[[maybe_unused]] const bool g_norm_registered =
    register_norms<1>() && register_norms<2>() && register_norms<3>();
}  // namespace

}  // namespace octet::nn
