#include "octet/quant/workflow/training.h"

#include <algorithm>
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx_impl.h"
#include "octet/runtime/program.h"

namespace octet::quant {

std::vector<Tensor> integer_forward(const std::shared_ptr<ObservedGraphModule>& model,
                                    const std::vector<Tensor>& inputs) {
  std::vector<Tensor> results = model->forward(inputs);
  std::vector<Tensor> exact;
  {
    autograd::NoGrad no_grad;
    exact = runtime::compile(convert_fx(model)->to_graph()).run(inputs);
  }
  for (size_t i = 0; i < results.size(); ++i) {
    const Tensor codes = exact[i].is_quantized() ? exact[i].dequantize() : exact[i];
    // The bracket is 0 in every element, and its gradient is that of the result.
    results[i] = codes + (results[i] - results[i].detach());
  }
  return results;
}

QConfig with_learned_qparams(const QConfig& qconfig) {
  const auto learned = [](const ObserverFactory& f) {
    return f.fake_quantize("LearnableFakeQuantize").with_grad_scaling(true);
  };
  return {learned(qconfig.activation), learned(qconfig.weight)};
}

void enable_param_learning(nn::Module& model) {
  bool any = false;
  for (auto& [path, module] : model.named_modules())
    if (auto* learnable = dynamic_cast<LearnableFakeQuantize*>(module)) {
      learnable->enable_param_learning();
      any = true;
    }
  OCTET_CHECK(any, invalid_argument,
              "enable_param_learning: {} has no LearnableFakeQuantize; prepare it with "
              "with_learned_qparams(qconfig)",
              model.type_name());
}

QatState qat_state(nn::Module& model) {
  QatState state;
  std::set<std::string> at_constants;
  if (const auto* graph = dynamic_cast<const GraphModule*>(&model))
    for (const graph::Node& node : graph->graph().nodes())
      if (is_observer_call(*graph, node) && graph->graph().is_constant(node.inputs[0]))
        at_constants.insert(node.scope);
  for (auto& [path, module] : model.named_modules()) {
    if (const auto* f = dynamic_cast<const FakeQuantizeBase*>(module)) {
      const auto* learnable = dynamic_cast<const LearnableFakeQuantize*>(f);
      state.fake_quantizers.push_back(
          {.path = path,
           .value = f->observer().label(),
           .weight = at_constants.contains(path) || path.ends_with("weight_fake_quant"),
           .observes = f->is_observer_enabled(),
           .quantizes = f->is_fake_quant_enabled(),
           .learns = learnable && autograd::requires_grad(learnable->scale)});
    }
    if (const auto* norm = dynamic_cast<const nn::qat::FreezableBatchNorm*>(module))
      state.batch_norms.push_back({path, norm->is_bn_frozen()});
  }
  return state;
}

std::string to_string(const QatState& state) {
  const auto flag = [](bool on) { return on ? "on" : "off"; };
  std::string text = fmt::format("{:<44} {:<10} {:>8} {:>14} {:>8}\n", "value", "kind", "observer",
                                 "fake quantize", "learned");
  for (const QatState::FakeQuantizer& f : state.fake_quantizers)
    text += fmt::format("{:<44} {:<10} {:>8} {:>14} {:>8}\n", f.value.empty() ? f.path : f.value,
                        f.weight ? "weight" : "activation", flag(f.observes), flag(f.quantizes),
                        flag(f.learns));
  for (const QatState::BatchNorm& norm : state.batch_norms)
    text += fmt::format("{:<44} {:<10} {}\n", norm.path, "batch norm",
                        norm.frozen ? "frozen" : "moves with the batches");
  return text;
}

std::string summary(const QatState& state) {
  const auto count = [](const auto& all, auto flag) { return std::ranges::count(all, true, flag); };
  const auto& f = state.fake_quantizers;
  std::string text = fmt::format("observers on {} of {}, fake quantization on {}, learned {}",
                                 count(f, &QatState::FakeQuantizer::observes), f.size(),
                                 count(f, &QatState::FakeQuantizer::quantizes),
                                 count(f, &QatState::FakeQuantizer::learns));
  if (!state.batch_norms.empty())
    text += fmt::format("; batch norms frozen {} of {}",
                        count(state.batch_norms, &QatState::BatchNorm::frozen),
                        state.batch_norms.size());
  return text;
}

}  // namespace octet::quant
