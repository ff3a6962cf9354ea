#pragma once
// The float layers with a weight, and the classes that each becomes on its way to 8 bits: one list.
// The module headers name these classes (nn::quantized::Conv2d), their .cpp files register them,
// and the backends and their module mappings are made from the list.

#include <type_traits>

#include "octet/base/type_list.h"
#include "octet/nn/activation.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"

namespace octet::nn {

namespace intrinsic {
template <typename... Parts>
class Fused;
}
namespace qat {
template <typename Float, bool relu = false>
class QatLayer;
template <typename Float, typename Norm, bool relu = false>
class QatBnLayer;
}  // namespace qat

// QuantizedLayer<Base, Float, relu>: `Float`, with a relu behind it if `relu`, as Base computes it.
namespace quantized {
template <typename Base, typename Float, bool relu = false>
class QuantizedLayer;
class StaticModule;
class WeightOnlyModule;
class ReferenceModule;
class DynamicModule;

template <typename Float, bool relu = false>
using StaticLayer = QuantizedLayer<StaticModule, Float, relu>;
template <typename Float, bool relu = false>
using DynamicLayer = QuantizedLayer<DynamicModule, Float, relu>;
template <typename Float, bool relu = false>
using WeightOnlyLayer = QuantizedLayer<WeightOnlyModule, Float, relu>;
template <typename Float, bool relu = false>
using ReferenceLayer = QuantizedLayer<ReferenceModule, Float, relu>;
}  // namespace quantized

}  // namespace octet::nn

namespace octet::quant {

// What `Float`, with a relu behind it if `with_relu`, becomes. `Layer` is the float class of both,
// `Norm` the batch norm that can be folded into it. A specialization of FormsOf adds `name`, what
// all of these classes are called in their namespaces (nn::intrinsic, nn::qat, nn::quantized ...).
template <typename FloatLayer, typename BatchNorm, bool with_relu>
struct LayerForms {
  using Float = FloatLayer;
  using Norm = BatchNorm;
  static constexpr bool relu = with_relu;
  using Layer = std::conditional_t<relu, nn::intrinsic::Fused<Float, nn::ReLU>, Float>;
  using Qat = nn::qat::QatLayer<Float, relu>;
  using Static = nn::quantized::StaticLayer<Float, relu>;
  using Dynamic = nn::quantized::DynamicLayer<Float, relu>;
  using WeightOnly = nn::quantized::WeightOnlyLayer<Float, relu>;
  using Reference = nn::quantized::ReferenceLayer<Float, relu>;
};

// Of layers that keep the batch norm (before the relu) until training is over: the two classes
// called `bn_name`.
template <typename Float, typename Norm, bool relu>
struct LayerBnForms : LayerForms<Float, Norm, relu> {
  using LayerBn = std::conditional_t<relu, nn::intrinsic::Fused<Float, Norm, nn::ReLU>,
                                     nn::intrinsic::Fused<Float, Norm>>;
  using QatBn = nn::qat::QatBnLayer<Float, Norm, relu>;
};
template <typename Forms>
inline constexpr bool has_bn = requires {
  typename Forms::QatBn;
};

// The name for N dimensions.
template <size_t N>
constexpr const char* one_of(const char* d1, const char* d2, const char* d3) {
  return N == 1 ? d1 : N == 2 ? d2 : d3;
}

template <typename Float, bool relu = false>
struct FormsOf;
template <size_t N>
struct FormsOf<nn::ConvNd<N, false>, false>
    : LayerBnForms<nn::ConvNd<N, false>, nn::BatchNormNd<N>, false> {
  static constexpr const char* name = one_of<N>("Conv1d", "Conv2d", "Conv3d");
  static constexpr const char* bn_name = one_of<N>("ConvBn1d", "ConvBn2d", "ConvBn3d");
};
template <size_t N>
struct FormsOf<nn::ConvNd<N, false>, true>
    : LayerBnForms<nn::ConvNd<N, false>, nn::BatchNormNd<N>, true> {
  static constexpr const char* name = one_of<N>("ConvReLU1d", "ConvReLU2d", "ConvReLU3d");
  static constexpr const char* bn_name = one_of<N>("ConvBnReLU1d", "ConvBnReLU2d", "ConvBnReLU3d");
};
template <size_t N>
struct FormsOf<nn::ConvNd<N, true>, false>
    : LayerForms<nn::ConvNd<N, true>, nn::BatchNormNd<N>, false> {
  static constexpr const char* name =
      one_of<N>("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d");
};
template <size_t N>
struct FormsOf<nn::ConvNd<N, true>, true>
    : LayerForms<nn::ConvNd<N, true>, nn::BatchNormNd<N>, true> {
  static constexpr const char* name =
      one_of<N>("ConvTransposeReLU1d", "ConvTransposeReLU2d", "ConvTransposeReLU3d");
};
template <>
struct FormsOf<nn::Linear, false> : LayerBnForms<nn::Linear, nn::BatchNorm1d, false> {
  static constexpr const char *name = "Linear", *bn_name = "LinearBn1d";
};
template <>
struct FormsOf<nn::Linear, true> : LayerForms<nn::Linear, nn::BatchNorm1d, true> {
  static constexpr const char* name = "LinearReLU";
};

template <typename Float>
inline constexpr bool fuses_relu = requires {
  FormsOf<Float, true>::name;
};

using WeightedForms =
    TypeList<FormsOf<nn::Conv1d>, FormsOf<nn::Conv1d, true>, FormsOf<nn::Conv2d>,
             FormsOf<nn::Conv2d, true>, FormsOf<nn::Conv3d>, FormsOf<nn::Conv3d, true>,
             FormsOf<nn::ConvTranspose1d>, FormsOf<nn::ConvTranspose1d, true>,
             FormsOf<nn::ConvTranspose2d>, FormsOf<nn::ConvTranspose2d, true>,
             FormsOf<nn::ConvTranspose3d>, FormsOf<nn::ConvTranspose3d, true>, FormsOf<nn::Linear>,
             FormsOf<nn::Linear, true>>;

}  // namespace octet::quant
