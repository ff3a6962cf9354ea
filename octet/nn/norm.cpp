#include "octet/nn/norm.h"

#include <fmt/format.h>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"

namespace octet::nn {

OCTET_MODULE(BatchNorm1d)
OCTET_MODULE(BatchNorm2d)
OCTET_MODULE(BatchNorm3d)

namespace {
int64_t checked_features(int64_t n) {
  OCTET_CHECK(n >= 1, invalid_argument, "BatchNorm: {} features; expected 1 or more", n);
  return n;
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
    auto m = static_cast<float>(options.momentum);
    auto unbias = static_cast<float>(static_cast<double>(count) / static_cast<double>(count - 1));
    const float *mean = results[1].data<float>(), *var = results[2].data<float>();
    float *running = running_mean.data<float>(), *spread = running_var.data<float>();
    for (int64_t c = 0; c < num_features; ++c) {
      running[c] += m * (mean[c] - running[c]);
      spread[c] += m * (var[c] * unbias - spread[c]);
    }
    ++*num_batches_tracked.data<int64_t>();
  }
  return results[0];
}

std::string BatchNorm::extra_repr() const {
  auto text = [](bool b) { return b ? "True" : "False"; };
  return fmt::format("{}, eps={}, momentum={}, affine={}, track_running_stats={}", num_features, options.eps, options.momentum,
                     text(options.affine), text(options.track_running_stats));
}

Attrs BatchNorm::config() const {
  return {{"num_features", num_features},
          {"eps", options.eps},
          {"momentum", options.momentum},
          {"affine", options.affine},
          {"track_running_stats", options.track_running_stats}};
}

namespace {
template <typename M>
std::shared_ptr<M> batch_norm_from(const Attrs& c) {
  return make<M>(c.get_int("num_features"), BatchNormOptions{.eps = c.get_double("eps"),
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

}  // namespace octet::nn
