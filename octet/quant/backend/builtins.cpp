// What the backends' own functions do: the modules that take others' places, and fusions.
#include "octet/quant/backend/builtins_impl.h"

#include "octet/base/check_impl.h"
#include "octet/nn/init.h"
#include "octet/quant/modules/attention.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/embedding.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/recurrent.h"
#include "octet/quant/modules/sources_impl.h"

namespace octet::quant {

namespace nni = nn::intrinsic;
namespace nnq = nn::quantized;
namespace nnqat = nn::qat;
namespace nnqd = nn::quantized::dynamic;
namespace nnqr = nn::quantized::reference;
namespace nnqw = nn::quantized::weight_only;
using nn::ModulePtr;

namespace {

// Is there a relu behind the layer that this float, fused, QAT or reference module is?
template <typename Float>
bool has_relu(nn::Module& module) {
  using Norm = typename NormOf<Float, true>::type;
  if constexpr (!std::is_void_v<Norm> && !std::is_same_v<Float, nn::Linear>)
    if (dynamic_cast<nnqat::QatBnLayer<Float, Norm, true>*>(&module)) return true;
  return dynamic_cast<nni::FusedModule*>(&module) ||
         dynamic_cast<nnqat::QatLayer<Float, true>*>(&module) ||
         dynamic_cast<nnqw::WeightOnlyLayer<Float, true>*>(&module);
}

// The float layer of a quantized one, for its options; its weights are not set.
template <typename Float>
std::shared_ptr<Float> float_layer(const Attrs& config) {
  nn::init::Skip skip;
  return Float::from_config(config);
}

// A Q of the weight of a reference (or weight-only) layer, or of a float one's, quantized now.
template <typename Q, typename... Result>
ModulePtr convert_layer(nn::Module& module, const Result&... result) {
  using Float = typename Q::FloatModule;
  OCTET_CHECK(has_relu<Float>(module) == Q::fused_relu, invalid_argument,
              "{}: it has {} relu and cannot become a {}", module.type_name(),
              Q::fused_relu ? "no" : "a", nn::class_name(typeid(Q)));
  ModulePtr made;
  if (auto* reference = dynamic_cast<nnqw::WeightOnlyLayer<Float, Q::fused_relu>*>(&module)) {
    made = nn::make<Q>(*float_layer<Float>(reference->config()), reference->weight(),
                       reference->bias(), result...);
  } else {
    auto source = weight_source<Float, Q::fused_relu>(module, nn::class_name(typeid(Q)));
    Tensor weight = quantize_weight(source.weight, module, source.weight_fake_quant,
                                    weight_scale_axis(*source.layer));
    made = nn::make<Q>(*source.layer, weight, source.bias, result...);
  }
  made->train(module.training());
  return made;
}

// Reference, dynamic and weight-only layers, of float, fused, QAT and reference ones.
template <typename Q>
ModulePtr to_layer(nn::Module& module, const QParams*) {
  return convert_layer<Q>(module);
}

// Static layers, of the same.
template <typename Q>
ModulePtr to_static(nn::Module& module, const QParams* result) {
  QParams qparams = result ? *result : activation_qparams(module);
  return convert_layer<Q>(module, qparams);
}

template <typename Q>
ModulePtr to_dynamic_recurrent(nn::Module& module, const QParams*) {
  using Float = typename Q::FloatModule;
  auto* reference = dynamic_cast<nnqr::ReferenceRecurrent<Float>*>(&module);
  if (!reference) return Q::from_float(module);
  ModulePtr made = nn::make<Q>(*float_layer<Float>(reference->config()), reference->weights());
  made->train(module.training());
  return made;
}

ModulePtr to_embedding(nn::Module& module, const QParams*) {
  if (auto* table = dynamic_cast<nnq::Embedding*>(&module))
    return nn::make<nnq::Embedding>(table->weight());
  return nnq::Embedding::from_float(module);
}

ModulePtr to_embedding_bag(nn::Module& module, const QParams*) {
  if (auto* table = dynamic_cast<nnq::EmbeddingBag*>(&module))
    return nn::make<nnq::EmbeddingBag>(table->weight(), table->options);
  return nnq::EmbeddingBag::from_float(module);
}

// -- fusions --------------------------------------------------------------------------------------

using Parts = std::vector<ModulePtr>;

template <typename Fused>
ModulePtr fuse(bool, const Parts& parts) {
  return nn::make<Fused>(parts);
}

ModulePtr fold(const Parts& parts) {
  return fuse_conv_bn_eval(*parts.at(0), parts.at(1)->as<nn::BatchNorm>());
}

template <typename LayerBn>
ModulePtr fuse_bn(bool qat, const Parts& parts) {
  return qat ? nn::make<LayerBn>(parts) : fold(parts);
}

template <typename LayerBnReLU, typename LayerReLU>
ModulePtr fuse_bn_relu(bool qat, const Parts& parts) {
  if (qat) return nn::make<LayerBnReLU>(parts);
  return nn::make<LayerReLU>(Parts{fold(parts), parts.at(2)});
}

ModulePtr fuse_transposed_bn(bool qat, const Parts& parts) {
  OCTET_CHECK(!qat, unsupported,
              "fuse: {} and {} are fused in eval mode only: train them apart, or call eval() first",
              parts.at(0)->type_name(), parts.at(1)->type_name());
  return fold(parts);
}

}  // namespace

void add_builtins(std::map<std::type_index, MakeModule>& replacements,
                  std::map<std::string, FuserMethod::Fuse, std::less<>>& fusers) {
  auto add = [&]<typename... Ms>(auto make) {
    (replacements.emplace(typeid(Ms), make.template operator()<Ms>()), ...);
  };
  auto from_float = []<typename M>() { return detail::from_float<M>(); };
  auto layer = []<typename M>() { return MakeModule(to_layer<M>); };
  auto stat = []<typename M>() { return MakeModule(to_static<M>); };
  auto recurrent = []<typename M>() { return MakeModule(to_dynamic_recurrent<M>); };

  add.template
  operator()<nnqat::Linear, nnqat::Conv1d, nnqat::Conv2d, nnqat::Conv3d, nnqat::ConvTranspose1d,
             nnqat::ConvTranspose2d, nnqat::ConvTranspose3d, nnqat::LinearReLU, nnqat::ConvReLU1d,
             nnqat::ConvReLU2d, nnqat::ConvReLU3d, nnqat::LinearBn1d, nnqat::ConvBn1d,
             nnqat::ConvBn2d, nnqat::ConvBn3d, nnqat::ConvBnReLU1d, nnqat::ConvBnReLU2d,
             nnqat::ConvBnReLU3d, nnqat::Embedding, nnqat::EmbeddingBag>(from_float);
  add.template operator()<nnqr::LinearReLU, nnqr::ConvReLU1d, nnqr::ConvReLU2d, nnqr::ConvReLU3d>(
      layer);
  add.template operator()<nnqr::Linear, nnqr::Conv1d, nnqr::Conv2d, nnqr::Conv3d,
                          nnqr::ConvTranspose1d, nnqr::ConvTranspose2d, nnqr::ConvTranspose3d>(
      layer);
  add.template operator()<nnqr::LSTM, nnqr::GRU, nnqr::RNN, nnqr::LSTMCell, nnqr::GRUCell,
                          nnqr::RNNCell, nnqr::Embedding, nnqr::EmbeddingBag>(from_float);
  add.template operator()<nnq::Linear, nnq::Conv1d, nnq::Conv2d, nnq::Conv3d, nnq::ConvTranspose1d,
                          nnq::ConvTranspose2d, nnq::ConvTranspose3d, nnq::LinearReLU,
                          nnq::ConvReLU1d, nnq::ConvReLU2d, nnq::ConvReLU3d>(stat);
  add.template
  operator()<nnq::ELU, nnq::CELU, nnq::GELU, nnq::Hardswish, nnq::LeakyReLU, nnq::PReLU,
             nnq::Sigmoid, nnq::Hardsigmoid, nnq::Tanh, nnq::Softmax, nnq::LogSoftmax, nnq::SELU,
             nnq::SiLU, nnq::Softplus, nnq::Softsign, nnq::BatchNorm1d, nnq::BatchNorm2d,
             nnq::BatchNorm3d, nnq::BNReLU2d, nnq::BNReLU3d, nnq::LayerNorm, nnq::GroupNorm,
             nnq::InstanceNorm1d, nnq::InstanceNorm2d, nnq::InstanceNorm3d>(from_float);
  add.template operator()<nnqd::Linear, nnqd::LinearReLU, nnqd::ConvReLU1d, nnqd::ConvReLU2d,
                          nnqd::ConvReLU3d, nnqd::Conv1d, nnqd::Conv2d, nnqd::Conv3d,
                          nnqd::ConvTranspose1d, nnqd::ConvTranspose2d, nnqd::ConvTranspose3d>(
      layer);
  add.template operator()<nnqd::LSTM, nnqd::GRU, nnqd::RNN, nnqd::LSTMCell, nnqd::GRUCell,
                          nnqd::RNNCell>(recurrent);
  add.template operator()<nnqd::MultiheadAttention>(from_float);
  add.template operator()<nnqw::LinearReLU, nnqw::ConvReLU1d, nnqw::ConvReLU2d, nnqw::ConvReLU3d>(
      layer);
  add.template operator()<nnqw::Linear, nnqw::Conv1d, nnqw::Conv2d, nnqw::Conv3d,
                          nnqw::ConvTranspose1d, nnqw::ConvTranspose2d, nnqw::ConvTranspose3d>(
      layer);
  replacements.emplace(typeid(nnq::Embedding), to_embedding);
  replacements.emplace(typeid(nnq::EmbeddingBag), to_embedding_bag);

  fusers["ConvReLU1d"] = fuse<nni::ConvReLU1d>;
  fusers["ConvReLU2d"] = fuse<nni::ConvReLU2d>;
  fusers["ConvReLU3d"] = fuse<nni::ConvReLU3d>;
  fusers["LinearReLU"] = fuse<nni::LinearReLU>;
  fusers["BNReLU2d"] = fuse<nni::BNReLU2d>;
  fusers["BNReLU3d"] = fuse<nni::BNReLU3d>;
  fusers["ConvBn1d"] = fuse_bn<nni::ConvBn1d>;
  fusers["ConvBn2d"] = fuse_bn<nni::ConvBn2d>;
  fusers["ConvBn3d"] = fuse_bn<nni::ConvBn3d>;
  fusers["LinearBn1d"] = fuse_bn<nni::LinearBn1d>;
  fusers["ConvBnReLU1d"] = fuse_bn_relu<nni::ConvBnReLU1d, nni::ConvReLU1d>;
  fusers["ConvBnReLU2d"] = fuse_bn_relu<nni::ConvBnReLU2d, nni::ConvReLU2d>;
  fusers["ConvBnReLU3d"] = fuse_bn_relu<nni::ConvBnReLU3d, nni::ConvReLU3d>;
  fusers["ConvTransposeBn"] = fuse_transposed_bn;
}

}  // namespace octet::quant
