#include "quantized.h"

#include <octet/autograd/autograd.h>
#include <octet/nn/init.h>
#include <octet/nn/registry.h>
#include <octet/quant/modules/qparams.h>

namespace sparse {

namespace ops = octet::ops;
namespace quant = octet::quant;

SparseConvReLU::SparseConvReLU(nn::ModulePtr conv, nn::ModulePtr relu) {
  append(std::move(conv));
  append(std::move(relu));
  expect_parts<SparseConv2d, SparseReLU>();
  train((*this)[0].training());
}

std::shared_ptr<SparseConv2d> fold_batch_norm(const SparseConv2d& conv, const SparseBatchNorm& bn) {
  octet::autograd::NoGrad no_grad;
  const quant::FoldedWeights folded = quant::fuse_conv_bn_weights(
      conv.weight.detach(), conv.bias.defined() ? conv.bias.detach() : Tensor(), bn);
  SparseConvOptions options = conv.options;
  options.bias = true;
  auto result =
      nn::make<SparseConv2d>(conv.in_channels, conv.out_channels, conv.kernel_size, options);
  result->weight.copy_from(folded.weight);
  result->bias.copy_from(folded.bias);
  result->eval();
  return result;
}

namespace {
// The convolution in a float module, fused or not.
SparseConv2d& conv_in(nn::Module& module) {
  auto* fused = dynamic_cast<SparseConvReLU*>(&module);
  return (fused ? (*fused)[0] : module).as<SparseConv2d>();
}

// A convolution with these arguments; its weight is nobody's concern.
std::shared_ptr<SparseConv2d> shape_from(const Attrs& config) {
  nn::init::Skip skip;
  return SparseConv2d::from_config(config);
}

Tensor no_weight(const SparseConv2d& conv) {
  return quantize_per_tensor(Tensor::zeros(conv.weight.shape()), 1, 0, DType::qint8);
}
}  // namespace

// -- what both have -------------------------------------------------------------------------------

CodedSparseConv::CodedSparseConv(const SparseConv2d& conv, Tensor weight, Tensor bias, bool relu)
    : shape_(conv),
      weight_(std::move(weight)),
      bias_(bias.defined() ? bias.detach() : Tensor()),
      relu_(relu) {
  shape_.weight = Tensor();
  shape_.bias = Tensor();
}

SparseConvTensor CodedSparseConv::forward_value(SparseConvTensor x) {
  const Rules rules = make_rules(x, shape_.kernel_size, shape_.options);
  return {compute(x.features, rules.rows), rules.indices, rules.spatial_shape, x.batch_size};
}

std::optional<std::vector<TensorType>> CodedSparseConv::infer(
    const std::vector<TensorType>& inputs) const {
  return shape_.infer(inputs);
}

std::map<std::string, Tensor> CodedSparseConv::extra_state() const {
  std::map<std::string, Tensor> state{{"weight", weight_}};
  if (bias_.defined()) state["bias"] = bias_;
  return state;
}

void CodedSparseConv::set_extra_state(const std::map<std::string, Tensor>& state) {
  const Tensor& weight = state.at("weight");
  if (!weight.is_quantized() || weight.shape() != weight_.shape() ||
      (bias_.defined() && state.at("bias").shape() != bias_.shape()))
    octet::fail(octet::ErrorCode::invalid_argument,
                type_name() + ": weight " + to_string(weight.type()) + "; expected codes like " +
                    to_string(weight_.type()) + ", and a bias as long");
  weight_ = weight;
  if (bias_.defined()) bias_ = state.at("bias");
}

// -- reference ------------------------------------------------------------------------------------

Tensor ReferenceSparseConv::compute(const Tensor& features, const Tensor& rows) const {
  return ops::call(kSparseConv2d, {features, rows, weight().dequantize(), bias()}, activation());
}

namespace {
template <typename M>
std::shared_ptr<M> reference_from_float(nn::Module& module) {
  SparseConv2d& conv = conv_in(module);
  return nn::make<M>(conv, quant::quantize_weight(conv.weight, module, nullptr, 0), conv.bias);
}
template <typename M>
std::shared_ptr<M> reference_from_config(const Attrs& config) {
  auto conv = shape_from(config);
  return nn::make<M>(*conv, no_weight(*conv), conv->bias);
}
}  // namespace

std::shared_ptr<ReferenceSparseConv> ReferenceSparseConv::from_float(nn::Module& m) {
  return reference_from_float<ReferenceSparseConv>(m);
}
std::shared_ptr<ReferenceSparseConv> ReferenceSparseConv::from_config(const Attrs& c) {
  return reference_from_config<ReferenceSparseConv>(c);
}
std::shared_ptr<ReferenceSparseConvReLU> ReferenceSparseConvReLU::from_float(nn::Module& m) {
  return reference_from_float<ReferenceSparseConvReLU>(m);
}
std::shared_ptr<ReferenceSparseConvReLU> ReferenceSparseConvReLU::from_config(const Attrs& c) {
  return reference_from_config<ReferenceSparseConvReLU>(c);
}

// -- quantized ------------------------------------------------------------------------------------

Tensor QuantizedSparseConv::compute(const Tensor& features, const Tensor& rows) const {
  if (!features.is_quantized())
    octet::fail(
        octet::ErrorCode::invalid_argument,
        type_name() + ": the features are " + to_string(features.type()) + "; expected codes");
  return ops::call(kSparseConv2d, {features, rows, weight(), bias()}, activation(), result_);
}

std::optional<std::vector<TensorType>> QuantizedSparseConv::infer(
    const std::vector<TensorType>& inputs) const {
  auto results = CodedSparseConv::infer(inputs);
  results->at(0) = TensorType(result_.dtype, results->at(0).dims, result_.quantizer);
  return results;
}

std::string QuantizedSparseConv::extra_repr() const {
  return CodedSparseConv::extra_repr() + ", scale=" + std::to_string(scale()) +
         ", zero_point=" + std::to_string(zero_point());
}

Attrs QuantizedSparseConv::config() const {
  return CodedSparseConv::config().set("dtype", octet::to_string(result_.dtype));
}

std::map<std::string, Tensor> QuantizedSparseConv::extra_state() const {
  auto state = CodedSparseConv::extra_state();
  quant::save_qparams(state, scale(), zero_point());
  return state;
}

void QuantizedSparseConv::set_extra_state(const std::map<std::string, Tensor>& state) {
  double scale = 1;
  int64_t zero_point = 0;
  quant::load_qparams(state, result_.dtype, type_name(), scale, zero_point);
  CodedSparseConv::set_extra_state(state);
  result_ = quant::result_type(scale, zero_point, result_.dtype);
}

namespace {
template <typename M>
std::shared_ptr<M> quantized_from_float(nn::Module& module) {
  const quant::QParams result = quant::activation_qparams(module);
  const ops::QType type{result.dtype, result.quantizer};
  if (auto* reference = dynamic_cast<ReferenceSparseConv*>(&module))
    return nn::make<M>(*shape_from(reference->config()), reference->weight(), reference->bias(),
                       type);
  SparseConv2d& conv = conv_in(module);
  return nn::make<M>(conv, quant::quantize_weight(conv.weight, module, nullptr, 0), conv.bias,
                     type);
}
template <typename M>
std::shared_ptr<M> quantized_from_config(const Attrs& config) {
  auto conv = shape_from(config);
  return nn::make<M>(*conv, no_weight(*conv), conv->bias,
                     quant::result_type(1, 0, octet::parse_dtype(config.get_string("dtype"))));
}
}  // namespace

std::shared_ptr<QuantizedSparseConv> QuantizedSparseConv::from_float(nn::Module& m) {
  return quantized_from_float<QuantizedSparseConv>(m);
}
std::shared_ptr<QuantizedSparseConv> QuantizedSparseConv::from_config(const Attrs& c) {
  return quantized_from_config<QuantizedSparseConv>(c);
}
std::shared_ptr<QuantizedSparseConvReLU> QuantizedSparseConvReLU::from_float(nn::Module& m) {
  return quantized_from_float<QuantizedSparseConvReLU>(m);
}
std::shared_ptr<QuantizedSparseConvReLU> QuantizedSparseConvReLU::from_config(const Attrs& c) {
  return quantized_from_config<QuantizedSparseConvReLU>(c);
}

OCTET_MODULE(SparseConvReLU)
OCTET_MODULE(ReferenceSparseConv)
OCTET_MODULE(ReferenceSparseConvReLU)
OCTET_MODULE(QuantizedSparseConv)
OCTET_MODULE(QuantizedSparseConvReLU)

}  // namespace sparse
