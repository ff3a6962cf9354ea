#include "backend.h"

#include <octet/graph/passes/explicit_weights.h>
#include <octet/quant/modules/dynamic.h>

#include <vector>

#include "quantized.h"

namespace sparse {

namespace quant = octet::quant;

namespace {
nn::ModulePtr fuse(bool qat, const std::vector<nn::ModulePtr>& parts) {
  if (qat)
    octet::fail(octet::ErrorCode::unsupported,
                "sparse convolutions have no form for quantization-aware training");
  nn::ModulePtr conv = parts[0];
  size_t next = 1;
  if (auto* bn = dynamic_cast<SparseBatchNorm*>(parts[next].get())) {
    conv = fold_batch_norm(conv->as<SparseConv2d>(), *bn);
    ++next;
  }
  if (next == parts.size()) return conv;
  return nn::make<SparseConvReLU>(conv, parts[next]);
}
[[maybe_unused]] const bool g_registered =
    (quant::register_fuser_method("sparse::fuse", fuse), true);
}  // namespace

quant::BackendConfig sparse_backend() {
  using Config = quant::BackendPatternConfig;
  std::vector<quant::DTypeConfig> dtypes;
  for (DType activation : {DType::quint8, DType::qint8})
    dtypes.push_back({.input_dtype = {activation},
                      .output_dtype = {activation},
                      .weight_dtype = {DType::qint8},
                      .bias_dtype = DType::float32});

  quant::BackendConfig backend = quant::get_native_backend_config();
  backend.set_name("sparse");
  const std::type_info &conv = typeid(SparseConv2d), &bn = typeid(SparseBatchNorm),
                       &relu = typeid(SparseReLU);
  for (const quant::Pattern& sequence :
       std::vector<quant::Pattern>{{conv, bn, relu}, {conv, relu}, {conv, bn}})
    backend.set_backend_pattern_config(
        Config(sequence).set_dtype_configs(dtypes).set_fuser_method("sparse::fuse"));
  backend.set_backend_pattern_config(
      Config(conv)
          .set_dtype_configs(dtypes)
          .set_root_module<SparseConv2d>()
          .set_reference_quantized_module<ReferenceSparseConv>()
          .set_quantized_module<QuantizedSparseConv>(quant::QuantMode::statically));
  backend.set_backend_pattern_config(
      Config(typeid(SparseConvReLU))
          .set_dtype_configs(dtypes)
          .set_root_module<SparseConv2d>()
          .set_reference_quantized_module<ReferenceSparseConvReLU>()
          .set_quantized_module<QuantizedSparseConvReLU>(quant::QuantMode::statically));
  std::vector<quant::DTypeConfig> codes;
  for (DType activation : {DType::quint8, DType::qint8})
    codes.push_back({.input_dtype = {activation}, .output_dtype = {activation}});
  backend.set_backend_pattern_config(
      Config(typeid(ToDense))
          .set_dtype_configs(codes)
          .set_observation_type(quant::ObservationType::output_share_observer_with_input));
  return backend;
}

quant::BackendConfig sparse_backend_for_explicit_qdq() {
  quant::BackendConfig backend = sparse_backend();
  backend.set_name("sparse, explicit QDQ");
  namespace reference = nn::quantized::reference;
  backend.do_not_lower<reference::Linear>().do_not_lower<reference::LinearReLU>();
  backend.do_not_lower<reference::Conv2d>().do_not_lower<reference::ConvReLU2d>();
  return backend;
}

octet::graph::Graph export_qdq(const octet::graph::GraphModule& model) {
  return octet::graph::explicit_weights(model.to_graph());
}

quant::QConfigMapping sparse_qconfig_mapping(DType activation) {
  const quant::QConfig qconfig = activation == DType::qint8
                                     ? quant::default_per_channel_symmetric_qnnpack_qconfig()
                                     : quant::get_default_qconfig();
  return quant::QConfigMapping(qconfig).set_object_type("log_softmax", std::nullopt);
}

OCTET_REPLACEMENT(ReferenceSparseConv)
OCTET_REPLACEMENT(ReferenceSparseConvReLU)
OCTET_REPLACEMENT(QuantizedSparseConv)
OCTET_REPLACEMENT(QuantizedSparseConvReLU)

}  // namespace sparse
