#include "backend.h"

#include <octet/quant/modules/dynamic.h>

#include <set>
#include <vector>

#include "quantized.h"

namespace sparse {

namespace quant = octet::quant;

namespace {
nn::ModulePtr fuse(bool qat, const std::vector<nn::ModulePtr>& parts) {
  if (qat) octet::fail(octet::ErrorCode::unsupported, "sparse convolutions have no form for quantization-aware training");
  nn::ModulePtr conv = parts[0];
  size_t next = 1;
  if (auto* bn = dynamic_cast<SparseBatchNorm*>(parts[next].get())) {
    conv = fold_batch_norm(conv->as<SparseConv2d>(), *bn);
    ++next;
  }
  if (next == parts.size()) return conv;
  return nn::make<SparseConvReLU>(conv, parts[next]);
}
[[maybe_unused]] const bool g_registered = (quant::register_fuser_method("sparse::fuse", fuse), true);
}  // namespace

quant::BackendConfig sparse_backend() {
  using Config = quant::BackendPatternConfig;
  std::vector<quant::DTypeConfig> dtypes;
  for (DType activation : {DType::quint8, DType::qint8})
    dtypes.push_back({.input_dtype = {activation}, .output_dtype = {activation}, .weight_dtype = {DType::qint8}, .bias_dtype = DType::float32});

  quant::BackendConfig backend = quant::get_native_backend_config();
  backend.set_name("sparse");
  const std::type_info &conv = typeid(SparseConv2d), &bn = typeid(SparseBatchNorm), &relu = typeid(SparseReLU);
  for (const quant::Pattern& sequence : std::vector<quant::Pattern>{{conv, bn, relu}, {conv, relu}, {conv, bn}})
    backend.set_backend_pattern_config(Config(sequence).set_dtype_configs(dtypes).set_fuser_method("sparse::fuse"));
  backend.set_backend_pattern_config(Config(conv)
                                         .set_dtype_configs(dtypes)
                                         .set_root_module<SparseConv2d>()
                                         .set_reference_quantized_module<ReferenceSparseConv>()
                                         .set_quantized_module<QuantizedSparseConv>(quant::QuantMode::statically));
  backend.set_backend_pattern_config(Config(typeid(SparseConvReLU))
                                         .set_dtype_configs(dtypes)
                                         .set_root_module<SparseConv2d>()
                                         .set_reference_quantized_module<ReferenceSparseConvReLU>()
                                         .set_quantized_module<QuantizedSparseConvReLU>(quant::QuantMode::statically));
  std::vector<quant::DTypeConfig> codes;
  for (DType activation : {DType::quint8, DType::qint8}) codes.push_back({.input_dtype = {activation}, .output_dtype = {activation}});
  backend.set_backend_pattern_config(
      Config(typeid(ToDense)).set_dtype_configs(codes).set_observation_type(quant::ObservationType::output_share_observer_with_input));
  return backend;
}

quant::BackendConfig sparse_backend_for_explicit_qdq() {
  quant::BackendConfig backend = sparse_backend();
  backend.set_name("sparse, explicit QDQ");
  // Several patterns (in training, fused ...) come to the same reference layer.
  namespace reference = nn::quantized::reference;
  const std::set<std::type_index> kept{typeid(reference::Linear), typeid(reference::LinearReLU), typeid(reference::Conv2d),
                                       typeid(reference::ConvReLU2d)};
  for (const quant::BackendPatternConfig& config : std::vector(backend.configs()))
    if (config.reference_quantized_module && kept.count(config.reference_quantized_module->type()))
      backend.find(config.pattern)->quantized_modules.erase(quant::QuantMode::statically);
  return backend;
}

octet::graph::Graph export_qdq(const octet::graph::GraphModule& model) {
  namespace graph = octet::graph;
  const graph::Graph operators = model.to_graph();
  graph::Rewriter rewriter(operators);
  // Reference layers call "linear_weight_only" with a weight of codes: "linear" with a dequantized one.
  return rewriter.run([](graph::Rewriter& r, const graph::Node& node) {
    const std::string suffix = "_weight_only";
    if (node.kind != graph::NodeKind::call || !node.op.ends_with(suffix)) return false;
    const std::string op = node.op.substr(0, node.op.size() - suffix.size());
    std::vector<graph::ValueId> operands = r.operands(node);
    operands[1] = r.out().add_call(r.out().value(operands[1]).name + ".dequantized", "dequantize", {operands[1]}, {}, std::nullopt, node.scope);
    r.map(node.outputs[0], r.out().add_call(node.scope + "." + op, op, operands, node.attrs, std::nullopt, node.scope));
    return true;
  });
}

quant::QConfigMapping sparse_qconfig_mapping(DType activation) {
  const quant::QConfig qconfig =
      activation == DType::qint8 ? quant::default_per_channel_symmetric_qnnpack_qconfig() : quant::get_default_qconfig();
  return quant::QConfigMapping(qconfig).set_object_type("log_softmax", std::nullopt);
}

quant::PrepareCustomConfig sparse_leaves(nn::Module& model) {
  quant::PrepareCustomConfig custom;
  const std::set<std::type_index> leaves{typeid(SparseConv2d), typeid(SparseBatchNorm), typeid(SparseReLU), typeid(ToDense)};
  for (auto& [path, module] : model.named_modules())
    if (leaves.count(typeid(*module))) custom.non_traceable_classes.insert(typeid(*module));
  return custom;
}

OCTET_REPLACEMENT(ReferenceSparseConv)
OCTET_REPLACEMENT(ReferenceSparseConvReLU)
OCTET_REPLACEMENT(QuantizedSparseConv)
OCTET_REPLACEMENT(QuantizedSparseConvReLU)

}  // namespace sparse
