#include "octet/quant/modules/intrinsic.h"

#include <cmath>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/visit_impl.h"

namespace octet::nn::intrinsic {

namespace {
[[maybe_unused]] const bool g_intrinsic_registered = [] {
  for_each_type(quant::WeightedForms(), []<typename Forms>() {
    const std::string scope = "octet::nn::intrinsic::";
    if constexpr (Forms::relu) register_module<typename Forms::Layer>(scope + Forms::name);
    if constexpr (quant::has_bn<Forms>)
      register_module<typename Forms::LayerBn>(scope + Forms::bn_name);
  });
  register_module<BNReLU2d>("octet::nn::intrinsic::BNReLU2d");
  register_module<BNReLU3d>("octet::nn::intrinsic::BNReLU3d");
  return true;
}();
}  // namespace

size_t FusedModule::size() const {
  size_t n = 0;
  while (n < children().size() && children()[n].first == std::to_string(n)) ++n;
  return n;
}

Tensor FusedModule::forward(Tensor x) {
  for (size_t i = 0; i < size(); ++i) x = (*this)[i](x);
  return x;
}

void FusedModule::expect_part(size_t i, bool (*fits)(Module&), const std::string& expected) const {
  OCTET_CHECK(fits((*this)[i]), invalid_argument, "{}: part {} is a {}; expected a {}", type_name(),
              i, children()[i].second->type_name(), expected);
}

void FusedModule::expect_count(size_t given, size_t expected) {
  OCTET_CHECK(given == expected, invalid_argument, "a fused module of {} parts was given {}",
              expected, given);
}

}  // namespace octet::nn::intrinsic

namespace octet::quant {

FoldedWeights fuse_conv_bn_weights(const Tensor& weight, const Tensor& bias,
                                   const nn::BatchNorm& bn, int64_t axis, int64_t groups) {
  autograd::NoGrad no_grad;
  OCTET_CHECK(bn.running_var.defined(), invalid_argument,
              "fuse: {} keeps no running statistics (track_running_stats is off): "
              "it cannot be folded",
              bn.type_name());
  int64_t channels = weight.size(axis) * (axis == 1 ? groups : 1);
  OCTET_CHECK(channels == bn.num_features, invalid_argument,
              "fuse: the layer has {} output channels and {} has {} features", channels,
              bn.type_name(), bn.num_features);
  Tensor w = weight.detach().clone(), b = Tensor::empty({channels});
  auto eps = static_cast<float>(bn.options.eps);
  std::vector<float> factor(static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    float spread = 1.f / std::sqrt(bn.running_var.data<float>()[c] + eps);
    float gamma = bn.weight.defined() ? bn.weight.data<float>()[c] : 1.f;
    float beta = bn.bias.defined() ? bn.bias.data<float>()[c] : 0.f;
    float mean = bn.running_mean.data<float>()[c];
    factor[c] = gamma * spread;
    float centered = (bias.defined() ? bias.data<float>()[c] : 0.f) - mean;
    // PyTorch rounds the two in another order; so the same bits.
    b.data<float>()[c] =
        (weight.dim() == 2 ? centered * factor[c] : centered * spread * gamma) + beta;
  }
  int64_t inner = 1, here = w.size(axis), outer = axis == 0 ? 1 : w.size(0);
  for (int64_t d = axis + 1; d < w.dim(); ++d) inner *= w.size(d);
  float* p = w.data<float>();
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t c = 0; c < here; ++c) {
      int64_t group = axis == 1 ? o / (outer / groups) : 0;
      for (int64_t i = 0; i < inner; ++i) p[(o * here + c) * inner + i] *= factor[group * here + c];
    }
  return {w, b};
}

nn::ModulePtr fuse_conv_bn_eval(nn::Module& layer, const nn::BatchNorm& bn) {
  nn::ModulePtr fused;
  bool known = visit_layer(layer, [&](auto& typed) {
    using Layer = std::decay_t<decltype(typed)>;
    int64_t groups = 1;
    if constexpr (is_conv<Layer>) groups = typed.options.groups;
    FoldedWeights f =
        fuse_conv_bn_weights(typed.weight, typed.bias, bn, channel_axis<Layer>(), groups);
    auto copy = std::static_pointer_cast<Layer>(typed.clone());
    copy->weight = f.weight;
    copy->bias = f.bias;
    copy->requires_grad(true);
    fused = copy;
  });
  OCTET_CHECK(known, invalid_argument,
              "fuse: a batch norm cannot be folded into a {}; expected a conv or linear layer",
              layer.type_name());
  return fused;
}

}  // namespace octet::quant
