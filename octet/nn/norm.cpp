#include "octet/nn/norm.h"

#include <fmt/format.h>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/python_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"

namespace octet::nn {

OCTET_MODULE(BatchNorm1d)
OCTET_MODULE(BatchNorm2d)
OCTET_MODULE(BatchNorm3d)
OCTET_MODULE(LayerNorm)
OCTET_MODULE(GroupNorm)
OCTET_MODULE(InstanceNorm1d)
OCTET_MODULE(InstanceNorm2d)
OCTET_MODULE(InstanceNorm3d)

namespace {
int64_t checked_features(int64_t n) {
  OCTET_CHECK(n >= 1, invalid_argument, "BatchNorm: {} features; expected 1 or more", n);
  return n;
}

// Of batch and instance norms.
template <typename Options>
std::string repr(int64_t num_features, const Options& o) {
  return fmt::format("{}, eps={}, momentum={}, affine={}, track_running_stats={}", num_features, o.eps, o.momentum,
                     python(o.affine), python(o.track_running_stats));
}
template <typename Options>
Attrs config_of(int64_t num_features, const Options& o) {
  return {{"num_features", num_features},
          {"eps", o.eps},
          {"momentum", o.momentum},
          {"affine", o.affine},
          {"track_running_stats", o.track_running_stats}};
}

// running += momentum * (value - running), for `n` values.
void move_towards(Tensor& running, const float* value, double scale, double momentum, int64_t n) {
  auto m = static_cast<float>(momentum), s = static_cast<float>(scale);
  float* r = running.data<float>();
  for (int64_t c = 0; c < n; ++c) r[c] += m * (value[c] * s - r[c]);
}
}  // namespace

BatchNorm::BatchNorm(int64_t n, BatchNormOptions o)
    : num_features(checked_features(n)),
      options(o),
      weight(parameter("weight", o.affine ? Tensor::ones({n}) : Tensor())),
      bias(parameter("bias", o.affine ? Tensor::zeros({n}) : Tensor())),
      running_mean(buffer("running_mean", o.track_running_stats ? Tensor::zeros({n}) : Tensor())),
      running_var(buffer("running_var", o.track_running_stats ? Tensor::ones({n}) : Tensor())),
      num_batches_tracked(buffer("num_batches_tracked", o.track_running_stats ? Tensor::zeros({}, DType::int64) : Tensor())) {}

Tensor BatchNorm::forward(Tensor x) {
  check_input(x);
  return normalize(x, training() || !options.track_running_stats);
}

Tensor BatchNorm::normalize(const Tensor& x, bool batch_statistics) {
  OCTET_CHECK(x.size(1) == num_features, invalid_argument, "{}: the input {} has {} channels; expected {}", type_name(),
              octet::to_string(x.type()), x.size(1), num_features);
  Tensor gamma = weight.defined() ? weight : Tensor::ones({num_features});
  Tensor beta = bias.defined() ? bias : Tensor::zeros({num_features});
  if (!batch_statistics)
    return ops::call("batch_norm", {x, gamma, beta, running_mean, running_var}, {{"eps", options.eps}});
  int64_t count = x.numel() / num_features;
  OCTET_CHECK(count > 1, invalid_argument, "{}: training needs more than one value per channel, got shape {}", type_name(),
              octet::to_string(x.shape()));
  std::vector<Tensor> results = ops::call_all("batch_norm_training", {x, gamma, beta}, {{"eps", options.eps}});
  if (training() && options.track_running_stats) {
    double unbias = static_cast<double>(count) / static_cast<double>(count - 1);
    move_towards(running_mean, results[1].data<float>(), 1, options.momentum, num_features);
    move_towards(running_var, results[2].data<float>(), unbias, options.momentum, num_features);
    ++*num_batches_tracked.data<int64_t>();
  }
  return results[0];
}

std::string BatchNorm::extra_repr() const {
  return repr(num_features, options);
}

Attrs BatchNorm::config() const {
  return config_of(num_features, options);
}

namespace {
template <typename M, typename Options = BatchNormOptions>
std::shared_ptr<M> batch_norm_from(const Attrs& c) {
  return make<M>(c.get_int("num_features"), Options{.eps = c.get_double("eps"),
                                                    .momentum = c.get_double("momentum"),
                                                    .affine = c.get_bool("affine"),
                                                    .track_running_stats = c.get_bool("track_running_stats")});
}
void check_dims(const Module& m, const Tensor& x, int64_t least, int64_t most, const char* expected) {
  OCTET_CHECK(x.dim() >= least && x.dim() <= most, invalid_argument, "{}: the input is {}; expected {}", m.type_name(),
              octet::to_string(x.type()), expected);
}
}  // namespace

std::shared_ptr<BatchNorm1d> BatchNorm1d::from_config(const Attrs& c) { return batch_norm_from<BatchNorm1d>(c); }
std::shared_ptr<BatchNorm2d> BatchNorm2d::from_config(const Attrs& c) { return batch_norm_from<BatchNorm2d>(c); }
std::shared_ptr<BatchNorm3d> BatchNorm3d::from_config(const Attrs& c) { return batch_norm_from<BatchNorm3d>(c); }
void BatchNorm1d::check_input(const Tensor& x) const { check_dims(*this, x, 2, 3, "(N, C) or (N, C, L)"); }
void BatchNorm2d::check_input(const Tensor& x) const { check_dims(*this, x, 4, 4, "(N, C, H, W)"); }
void BatchNorm3d::check_input(const Tensor& x) const { check_dims(*this, x, 5, 5, "(N, C, D, H, W)"); }


// -- LayerNorm and GroupNorm ---------------------------------------------------------------------------

LayerNorm::LayerNorm(Shape shape, double eps, bool affine)
    : normalized_shape(std::move(shape)), eps(eps),
      weight(parameter("weight", affine ? Tensor::ones(normalized_shape) : Tensor())),
      bias(parameter("bias", affine ? Tensor::zeros(normalized_shape) : Tensor())) {
  OCTET_CHECK(!normalized_shape.empty(), invalid_argument, "LayerNorm: normalized_shape is empty; expected a dimension or more");
}

Tensor LayerNorm::forward(Tensor x) {
  auto rank = static_cast<int64_t>(normalized_shape.size());
  OCTET_CHECK(x.dim() >= rank && std::equal(normalized_shape.begin(), normalized_shape.end(), x.shape().end() - rank),
              invalid_argument, "LayerNorm: the input is {}; expected its last dimensions to be {}", octet::to_string(x.type()),
              octet::to_string(normalized_shape));
  return ops::call("layer_norm", {x, weight, bias}, {{"axis", -rank}, {"eps", eps}});
}

std::string LayerNorm::extra_repr() const {
  return fmt::format("{}, eps={}, elementwise_affine={}", python(normalized_shape), eps, python(weight.defined()));
}
Attrs LayerNorm::config() const {
  return {{"normalized_shape", normalized_shape}, {"eps", eps}, {"elementwise_affine", weight.defined()}};
}
std::shared_ptr<LayerNorm> LayerNorm::from_config(const Attrs& c) {
  return make<LayerNorm>(c.get_ints("normalized_shape"), c.get_double("eps"), c.get_bool("elementwise_affine"));
}

GroupNorm::GroupNorm(int64_t groups, int64_t channels, double eps, bool affine)
    : num_groups(groups), num_channels(channels), eps(eps),
      weight(parameter("weight", affine ? Tensor::ones({channels}) : Tensor())),
      bias(parameter("bias", affine ? Tensor::zeros({channels}) : Tensor())) {
  OCTET_CHECK(groups >= 1 && channels >= 1 && channels % groups == 0, invalid_argument,
              "GroupNorm: {} channels in {} groups; expected the groups to divide them", channels, groups);
}
Tensor GroupNorm::forward(Tensor x) {
  OCTET_CHECK(x.dim() >= 2 && x.size(1) == num_channels, invalid_argument, "GroupNorm: the input is {}; expected {} channels",
              octet::to_string(x.type()), num_channels);
  return ops::call("group_norm", {x, weight, bias}, {{"groups", num_groups}, {"eps", eps}});
}
std::string GroupNorm::extra_repr() const {
  return fmt::format("{}, {}, eps={}, affine={}", num_groups, num_channels, eps, python(weight.defined()));
}
Attrs GroupNorm::config() const {
  return {{"num_groups", num_groups}, {"num_channels", num_channels}, {"eps", eps}, {"affine", weight.defined()}};
}
std::shared_ptr<GroupNorm> GroupNorm::from_config(const Attrs& c) {
  return make<GroupNorm>(c.get_int("num_groups"), c.get_int("num_channels"), c.get_double("eps"), c.get_bool("affine"));
}

// -- InstanceNorm --------------------------------------------------------------------------------------

InstanceNorm::InstanceNorm(int64_t n, InstanceNormOptions o)
    : num_features(checked_features(n)),
      options(o),
      weight(parameter("weight", o.affine ? Tensor::ones({n}) : Tensor())),
      bias(parameter("bias", o.affine ? Tensor::zeros({n}) : Tensor())),
      running_mean(buffer("running_mean", o.track_running_stats ? Tensor::zeros({n}) : Tensor())),
      running_var(buffer("running_var", o.track_running_stats ? Tensor::ones({n}) : Tensor())),
      num_batches_tracked(buffer("num_batches_tracked", o.track_running_stats ? Tensor::zeros({}, DType::int64) : Tensor())) {}

// The samples' statistics as those of a batch norm over samples times channels, averaged over the samples.
void InstanceNorm::track(const Tensor& given) {
  Tensor x = given.detach();
  const int64_t samples = x.size(0), count = x.numel() / (samples * num_features);
  std::vector<Tensor> results =
      ops::call_all("batch_norm_training", {x.reshape({1, samples * num_features, count})}, {{"eps", options.eps}});
  std::vector<float> mean(static_cast<size_t>(num_features)), var(mean);
  for (int64_t i = 0; i < samples * num_features; ++i) {
    mean[static_cast<size_t>(i % num_features)] += results[1].data<float>()[i] / static_cast<float>(samples);
    var[static_cast<size_t>(i % num_features)] += results[2].data<float>()[i] / static_cast<float>(samples);
  }
  move_towards(running_mean, mean.data(), 1, options.momentum, num_features);
  move_towards(running_var, var.data(), static_cast<double>(count) / static_cast<double>(std::max<int64_t>(1, count - 1)),
               options.momentum, num_features);
}

Tensor InstanceNorm::forward(Tensor x) {
  const bool unbatched = x.dim() == spatial() + 1;
  OCTET_CHECK((unbatched || x.dim() == spatial() + 2) && x.size(unbatched ? 0 : 1) == num_features, invalid_argument,
              "{}: the input is {}; expected {} channels and {} spatial dimensions", type_name(), octet::to_string(x.type()),
              num_features, spatial());
  if (unbatched) x = x.unsqueeze(0);
  Tensor y;
  if (!training() && options.track_running_stats) {
    y = ops::call("batch_norm", {x, weight.defined() ? weight : Tensor::ones({num_features}),
                                 bias.defined() ? bias : Tensor::zeros({num_features}), running_mean, running_var},
                  {{"eps", options.eps}});
  } else {
    OCTET_CHECK(x.numel() > x.size(0) * num_features, invalid_argument,
                "{}: needs more than one value per channel, got shape {}", type_name(), octet::to_string(x.shape()));
    if (options.track_running_stats) track(x);
    y = ops::call("instance_norm", {x, weight, bias}, {{"eps", options.eps}});
  }
  return unbatched ? y.squeeze(0) : y;
}

std::string InstanceNorm::extra_repr() const { return repr(num_features, options); }
Attrs InstanceNorm::config() const { return config_of(num_features, options); }
std::shared_ptr<InstanceNorm1d> InstanceNorm1d::from_config(const Attrs& c) {
  return batch_norm_from<InstanceNorm1d, InstanceNormOptions>(c);
}
std::shared_ptr<InstanceNorm2d> InstanceNorm2d::from_config(const Attrs& c) {
  return batch_norm_from<InstanceNorm2d, InstanceNormOptions>(c);
}
std::shared_ptr<InstanceNorm3d> InstanceNorm3d::from_config(const Attrs& c) {
  return batch_norm_from<InstanceNorm3d, InstanceNormOptions>(c);
}

}  // namespace octet::nn
