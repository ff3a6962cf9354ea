#pragma once
// Quantization-aware training of a graph.
//
//   auto model = quant::prepare_qat_fx(graph, quant::get_default_qat_qconfig());
//   nn::optim::SGD optimizer(model->parameters(), {.lr = 0.01});
//   for (const Batch& batch : loader) {
//     optimizer.zero_grad();
//     autograd::backward(loss(model->forward(batch.inputs.at("images")), batch.labels));
//     optimizer.step();
//   }
//   model->eval();
//   graph::Graph int8 = quant::convert_fx(*model);
//
// Weights and the values that will be codes go through fake-quantize modules, in the places where
// prepare_fx puts observers.

#include <memory>
#include <string>
#include <vector>

#include "octet/graph/graph_module.h"
#include "octet/quant/workflow/quantize_fx.h"

namespace octet::quant {

// A float graph in quantization-aware training. Its fake-quantize modules are children:
// "activation_post_process_0", ... by group of the decisions, "weight_fake_quant_0", ... by weight.
class QatGraph : public graph::GraphModule {
 public:
  // For prepare_qat_fx.
  QatGraph(graph::Graph graph, GraphDecisions decisions, BackendConfig backend);
  const GraphDecisions& decisions() const { return decisions_; }
  const BackendConfig& backend() const { return backend_; }
  // The qparams of a constant and of a group of values, as they are now.
  QParams constant_qparams(graph::ValueId constant) const;
  ops::QType group_qtype(int group) const;
  bool has_seen_data() const { return batches_ > 0; }
  using GraphModule::forward;
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override;

 protected:
  Tensor operand(const graph::Node& node, size_t i, const std::vector<Tensor>& values) override;

 private:
  Tensor fake_quantized(graph::ValueId id, const Tensor& value);

  GraphDecisions decisions_;
  BackendConfig backend_;
  std::map<graph::ValueId, std::string> constant_modules_;
  // by value: shown to an observer; made by a quantized operator
  std::vector<bool> watched_, by_quantized_;
  // by value, during forward: what quantized operators read
  std::vector<Tensor> fake_;
  int64_t batches_ = 0;
};

// Fuses, chooses what is quantized (as prepare_fx) and puts the qconfig's fake-quantize modules
// there. Batch norms should be folded first (graph::fold_batch_norm). Errors as prepare_fx, and for
// a qconfig that does not fake-quantize.
std::shared_ptr<QatGraph> prepare_qat_fx(const graph::Graph& graph, const QConfigMapping& mapping,
                                         const PrepareOptions& options = {});
// With QConfigMapping(qconfig): this one for every call.
std::shared_ptr<QatGraph> prepare_qat_fx(const graph::Graph& graph, const QConfig& qconfig,
                                         const PrepareOptions& options = {});

// The trained graph as a reference graph, and lowered to integer operators, as for calibrated ones
// (quantize_fx.h).
graph::Graph convert_to_reference_fx(const QatGraph& trained, ConversionReport* report = nullptr);
graph::Graph convert_fx(const QatGraph& trained, ConversionReport* report = nullptr,
                        bool strict = false);

}  // namespace octet::quant
