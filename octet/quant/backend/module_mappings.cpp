#include "octet/quant/backend/module_mappings.h"

#include <algorithm>

#include "octet/quant/modules/attention.h"
#include "octet/quant/modules/dynamic.h"
#include "octet/quant/modules/embedding.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/recurrent.h"
#include "octet/quant/modules/stubs.h"

namespace octet::quant {

namespace nni = nn::intrinsic;
namespace nnq = nn::quantized;
namespace nnqat = nn::qat;
namespace nnqd = nn::quantized::dynamic;
namespace nnqr = nn::quantized::reference;
namespace nnqw = nn::quantized::weight_only;

nn::ModulePtr ModuleMapping::make(nn::Module& module) const {
  auto it = entries_.find(std::type_index(module.class_type()));
  return it == entries_.end() ? nullptr : it->second.make(module);
}

std::vector<std::pair<std::string, std::string>> ModuleMapping::names() const {
  std::vector<std::pair<std::string, std::string>> result;
  for (const auto& [type, entry] : entries_) result.emplace_back(entry.from, entry.to);
  std::sort(result.begin(), result.end());
  return result;
}

const ModuleMapping& get_default_static_quant_module_mappings() {
  static const ModuleMapping mapping = [] {
    ModuleMapping m;
    m.map<QuantStub, nnq::Quantize>()
        .map<DeQuantStub, nnq::DeQuantize>()
        .map<nnq::FloatFunctional, nnq::QFunctional>();
    m.map<nn::Linear, nnq::Linear>()
        .map<nn::Conv1d, nnq::Conv1d>()
        .map<nn::Conv2d, nnq::Conv2d>()
        .map<nn::Conv3d, nnq::Conv3d>();
    m.map<nn::ConvTranspose1d, nnq::ConvTranspose1d>()
        .map<nn::ConvTranspose2d, nnq::ConvTranspose2d>();
    m.map<nn::ConvTranspose3d, nnq::ConvTranspose3d>();
    m.map<nni::LinearReLU, nnq::LinearReLU>().map<nni::ConvReLU1d, nnq::ConvReLU1d>();
    m.map<nni::ConvReLU2d, nnq::ConvReLU2d>().map<nni::ConvReLU3d, nnq::ConvReLU3d>();
    m.map<nni::BNReLU2d, nnq::BNReLU2d>().map<nni::BNReLU3d, nnq::BNReLU3d>();
    m.map<nn::BatchNorm1d, nnq::BatchNorm1d>()
        .map<nn::BatchNorm2d, nnq::BatchNorm2d>()
        .map<nn::BatchNorm3d, nnq::BatchNorm3d>();
    m.map<nn::ELU, nnq::ELU>()
        .map<nn::CELU, nnq::CELU>()
        .map<nn::GELU, nnq::GELU>()
        .map<nn::Hardswish, nnq::Hardswish>();
    m.map<nn::LeakyReLU, nnq::LeakyReLU>()
        .map<nn::PReLU, nnq::PReLU>()
        .map<nn::Sigmoid, nnq::Sigmoid>();
    m.map<nn::Hardsigmoid, nnq::Hardsigmoid>()
        .map<nn::Tanh, nnq::Tanh>()
        .map<nn::Softmax, nnq::Softmax>();
    m.map<nn::LogSoftmax, nnq::LogSoftmax>().map<nn::SELU, nnq::SELU>().map<nn::SiLU, nnq::SiLU>();
    m.map<nn::Softplus, nnq::Softplus>().map<nn::Softsign, nnq::Softsign>();
    m.map<nn::LayerNorm, nnq::LayerNorm>()
        .map<nn::GroupNorm, nnq::GroupNorm>()
        .map<nn::InstanceNorm1d, nnq::InstanceNorm1d>();
    m.map<nn::InstanceNorm2d, nnq::InstanceNorm2d>().map<nn::InstanceNorm3d, nnq::InstanceNorm3d>();
    m.map<nn::NonDynamicallyQuantizableLinear, nnq::Linear>();
    m.map<nnqat::Linear, nnq::Linear>()
        .map<nnqat::Conv1d, nnq::Conv1d>()
        .map<nnqat::Conv2d, nnq::Conv2d>();
    m.map<nnqat::Conv3d, nnq::Conv3d>().map<nnqat::ConvTranspose1d, nnq::ConvTranspose1d>();
    m.map<nnqat::ConvTranspose2d, nnq::ConvTranspose2d>()
        .map<nnqat::ConvTranspose3d, nnq::ConvTranspose3d>();
    m.map<nnqat::LinearReLU, nnq::LinearReLU>().map<nnqat::ConvReLU1d, nnq::ConvReLU1d>();
    m.map<nnqat::ConvReLU2d, nnq::ConvReLU2d>().map<nnqat::ConvReLU3d, nnq::ConvReLU3d>();
    m.map<nnqat::ConvBn1d, nnq::Conv1d>()
        .map<nnqat::ConvBn2d, nnq::Conv2d>()
        .map<nnqat::ConvBn3d, nnq::Conv3d>();
    m.map<nnqat::ConvBnReLU1d, nnq::ConvReLU1d>().map<nnqat::ConvBnReLU2d, nnq::ConvReLU2d>();
    m.map<nnqat::ConvBnReLU3d, nnq::ConvReLU3d>().map<nnqat::LinearBn1d, nnq::Linear>();
    m.map<nn::Embedding, nnq::Embedding>().map<nn::EmbeddingBag, nnq::EmbeddingBag>();
    m.map<nnqat::Embedding, nnq::Embedding>().map<nnqat::EmbeddingBag, nnq::EmbeddingBag>();
    return m;
  }();
  return mapping;
}

const ModuleMapping& get_default_qat_module_mappings() {
  static const ModuleMapping mapping = [] {
    ModuleMapping m;
    m.map<nn::Linear, nnqat::Linear>()
        .map<nn::Conv1d, nnqat::Conv1d>()
        .map<nn::Conv2d, nnqat::Conv2d>();
    m.map<nn::Conv3d, nnqat::Conv3d>().map<nn::ConvTranspose1d, nnqat::ConvTranspose1d>();
    m.map<nn::ConvTranspose2d, nnqat::ConvTranspose2d>()
        .map<nn::ConvTranspose3d, nnqat::ConvTranspose3d>();
    m.map<nn::NonDynamicallyQuantizableLinear, nnqat::Linear>();
    m.map<nni::LinearReLU, nnqat::LinearReLU>().map<nni::ConvReLU1d, nnqat::ConvReLU1d>();
    m.map<nni::ConvReLU2d, nnqat::ConvReLU2d>().map<nni::ConvReLU3d, nnqat::ConvReLU3d>();
    m.map<nni::ConvBn1d, nnqat::ConvBn1d>()
        .map<nni::ConvBn2d, nnqat::ConvBn2d>()
        .map<nni::ConvBn3d, nnqat::ConvBn3d>();
    m.map<nni::ConvBnReLU1d, nnqat::ConvBnReLU1d>().map<nni::ConvBnReLU2d, nnqat::ConvBnReLU2d>();
    m.map<nni::ConvBnReLU3d, nnqat::ConvBnReLU3d>().map<nni::LinearBn1d, nnqat::LinearBn1d>();
    m.map<nn::Embedding, nnqat::Embedding>().map<nn::EmbeddingBag, nnqat::EmbeddingBag>();
    return m;
  }();
  return mapping;
}

const ModuleMapping& get_default_dynamic_quant_module_mappings() {
  static const ModuleMapping mapping = [] {
    ModuleMapping m;
    m.map<nn::Linear, nnqd::Linear>()
        .map<nni::LinearReLU, nnqd::LinearReLU>()
        .map<nnqat::Linear, nnqd::Linear>();
    m.map<nn::Conv1d, nnqd::Conv1d>()
        .map<nn::Conv2d, nnqd::Conv2d>()
        .map<nn::Conv3d, nnqd::Conv3d>();
    m.map<nn::ConvTranspose1d, nnqd::ConvTranspose1d>()
        .map<nn::ConvTranspose2d, nnqd::ConvTranspose2d>();
    m.map<nn::ConvTranspose3d, nnqd::ConvTranspose3d>();
    m.map<nn::LSTM, nnqd::LSTM>().map<nn::GRU, nnqd::GRU>().map<nn::RNN, nnqd::RNN>();
    m.map<nn::MultiheadAttention, nnqd::MultiheadAttention>();
    m.map<nn::LSTMCell, nnqd::LSTMCell>()
        .map<nn::GRUCell, nnqd::GRUCell>()
        .map<nn::RNNCell, nnqd::RNNCell>();
    m.map<nnqat::LinearReLU, nnqd::LinearReLU>().map<nnqat::LinearBn1d, nnqd::Linear>();
    m.map<nni::ConvReLU1d, nnqd::ConvReLU1d>()
        .map<nni::ConvReLU2d, nnqd::ConvReLU2d>()
        .map<nni::ConvReLU3d, nnqd::ConvReLU3d>();
    m.map<nnqat::ConvReLU1d, nnqd::ConvReLU1d>().map<nnqat::ConvReLU2d, nnqd::ConvReLU2d>();
    m.map<nnqat::ConvReLU3d, nnqd::ConvReLU3d>().map<nnqat::ConvBnReLU1d, nnqd::ConvReLU1d>();
    m.map<nnqat::ConvBnReLU2d, nnqd::ConvReLU2d>().map<nnqat::ConvBnReLU3d, nnqd::ConvReLU3d>();
    m.map<nnqat::ConvTranspose1d, nnqd::ConvTranspose1d>()
        .map<nnqat::ConvTranspose2d, nnqd::ConvTranspose2d>();
    m.map<nnqat::ConvTranspose3d, nnqd::ConvTranspose3d>();
    m.map<nnqat::Conv1d, nnqd::Conv1d>()
        .map<nnqat::Conv2d, nnqd::Conv2d>()
        .map<nnqat::Conv3d, nnqd::Conv3d>();
    m.map<nnqat::ConvBn1d, nnqd::Conv1d>()
        .map<nnqat::ConvBn2d, nnqd::Conv2d>()
        .map<nnqat::ConvBn3d, nnqd::Conv3d>();
    m.map<nn::Embedding, nnq::Embedding>().map<nn::EmbeddingBag, nnq::EmbeddingBag>();
    m.map<nnqat::Embedding, nnq::Embedding>().map<nnqat::EmbeddingBag, nnq::EmbeddingBag>();
    return m;
  }();
  return mapping;
}

const ModuleMapping& get_default_weight_only_quant_module_mappings() {
  static const ModuleMapping mapping = [] {
    ModuleMapping m;
    m.map<nn::Linear, nnqw::Linear>()
        .map<nn::Conv1d, nnqw::Conv1d>()
        .map<nn::Conv2d, nnqw::Conv2d>();
    m.map<nn::Conv3d, nnqw::Conv3d>().map<nn::ConvTranspose1d, nnqw::ConvTranspose1d>();
    m.map<nn::ConvTranspose2d, nnqw::ConvTranspose2d>()
        .map<nn::ConvTranspose3d, nnqw::ConvTranspose3d>();
    m.map<nni::LinearReLU, nnqw::LinearReLU>().map<nni::ConvReLU1d, nnqw::ConvReLU1d>();
    m.map<nni::ConvReLU2d, nnqw::ConvReLU2d>().map<nni::ConvReLU3d, nnqw::ConvReLU3d>();
    m.map<nnqat::LinearReLU, nnqw::LinearReLU>().map<nnqat::ConvReLU1d, nnqw::ConvReLU1d>();
    m.map<nnqat::ConvReLU2d, nnqw::ConvReLU2d>().map<nnqat::ConvReLU3d, nnqw::ConvReLU3d>();
    m.map<nnqat::ConvBnReLU1d, nnqw::ConvReLU1d>().map<nnqat::ConvBnReLU2d, nnqw::ConvReLU2d>();
    m.map<nnqat::ConvBnReLU3d, nnqw::ConvReLU3d>();
    m.map<nnqat::ConvTranspose1d, nnqw::ConvTranspose1d>()
        .map<nnqat::ConvTranspose2d, nnqw::ConvTranspose2d>();
    m.map<nnqat::ConvTranspose3d, nnqw::ConvTranspose3d>();
    m.map<nnqat::Linear, nnqw::Linear>().map<nnqat::LinearBn1d, nnqw::Linear>();
    m.map<nnqat::Conv1d, nnqw::Conv1d>()
        .map<nnqat::Conv2d, nnqw::Conv2d>()
        .map<nnqat::Conv3d, nnqw::Conv3d>();
    m.map<nnqat::ConvBn1d, nnqw::Conv1d>()
        .map<nnqat::ConvBn2d, nnqw::Conv2d>()
        .map<nnqat::ConvBn3d, nnqw::Conv3d>();
    m.map<nn::Embedding, nnq::Embedding>().map<nn::EmbeddingBag, nnq::EmbeddingBag>();
    m.map<nnqat::Embedding, nnq::Embedding>().map<nnqat::EmbeddingBag, nnq::EmbeddingBag>();
    return m;
  }();
  return mapping;
}

const ModuleMapping& get_default_static_quant_reference_module_mappings() {
  static const ModuleMapping mapping = [] {
    ModuleMapping m;
    m.map<nn::Linear, nnqr::Linear>()
        .map<nn::Conv1d, nnqr::Conv1d>()
        .map<nn::Conv2d, nnqr::Conv2d>();
    m.map<nn::Conv3d, nnqr::Conv3d>().map<nn::ConvTranspose1d, nnqr::ConvTranspose1d>();
    m.map<nn::ConvTranspose2d, nnqr::ConvTranspose2d>()
        .map<nn::ConvTranspose3d, nnqr::ConvTranspose3d>();
    m.map<nni::LinearReLU, nnqr::LinearReLU>().map<nni::ConvReLU1d, nnqr::ConvReLU1d>();
    m.map<nni::ConvReLU2d, nnqr::ConvReLU2d>().map<nni::ConvReLU3d, nnqr::ConvReLU3d>();
    m.map<nnqat::LinearReLU, nnqr::LinearReLU>().map<nnqat::ConvReLU1d, nnqr::ConvReLU1d>();
    m.map<nnqat::ConvReLU2d, nnqr::ConvReLU2d>().map<nnqat::ConvReLU3d, nnqr::ConvReLU3d>();
    m.map<nnqat::ConvBnReLU1d, nnqr::ConvReLU1d>().map<nnqat::ConvBnReLU2d, nnqr::ConvReLU2d>();
    m.map<nnqat::ConvBnReLU3d, nnqr::ConvReLU3d>();
    m.map<nnqat::Linear, nnqr::Linear>()
        .map<nnqat::LinearBn1d, nnqr::Linear>()
        .map<nnqat::Conv1d, nnqr::Conv1d>();
    m.map<nnqat::Conv2d, nnqr::Conv2d>()
        .map<nnqat::Conv3d, nnqr::Conv3d>()
        .map<nnqat::ConvBn1d, nnqr::Conv1d>();
    m.map<nnqat::ConvBn2d, nnqr::Conv2d>().map<nnqat::ConvBn3d, nnqr::Conv3d>();
    m.map<nnqat::ConvTranspose1d, nnqr::ConvTranspose1d>()
        .map<nnqat::ConvTranspose2d, nnqr::ConvTranspose2d>();
    m.map<nnqat::ConvTranspose3d, nnqr::ConvTranspose3d>()
        .map<nn::NonDynamicallyQuantizableLinear, nnqr::Linear>();
    m.map<nn::LSTM, nnqr::LSTM>().map<nn::GRU, nnqr::GRU>().map<nn::RNN, nnqr::RNN>();
    m.map<nn::LSTMCell, nnqr::LSTMCell>()
        .map<nn::GRUCell, nnqr::GRUCell>()
        .map<nn::RNNCell, nnqr::RNNCell>();
    m.map<nn::Embedding, nnqr::Embedding>().map<nn::EmbeddingBag, nnqr::EmbeddingBag>();
    m.map<nnqat::Embedding, nnqr::Embedding>().map<nnqat::EmbeddingBag, nnqr::EmbeddingBag>();
    return m;
  }();
  return mapping;
}

}  // namespace octet::quant
