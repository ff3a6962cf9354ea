#include "octet/quant/algorithms/qat_start.h"

#include <algorithm>
#include <map>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/quant/algorithms/layerwise_impl.h"
#include "octet/quant/modules/qparams.h"
#include "octet/quant/observe/fake_quantize.h"

namespace octet::quant {
namespace {

// The module fake-quantizes with these qparams, whatever comes.
void fix(FakeQuantizeBase& module, const QParams& q) {
  const CodeRange codes = code_range(module.options());
  for (const double z : q.zero_points)
    OCTET_CHECK(
        z >= static_cast<double>(codes.quant_min) && z <= static_cast<double>(codes.quant_max),
        invalid_argument,
        "start_qat_from: zero point {} of '{}' is none of the codes {}..{}; prepare both "
        "networks for the same codes",
        z, module.observer().label(), codes.quant_min, codes.quant_max);
  const Shape shape{static_cast<int64_t>(q.scales.size())};
  const Tensor scale = Tensor::from(q.scales, shape),
               zero_point = Tensor::from(q.zero_points, shape);
  if (auto* learnable = dynamic_cast<LearnableFakeQuantize*>(&module)) {
    learnable->set_channels(shape[0]);
    learnable->scale.detach().copy_from(scale.to(DType::float32));
    learnable->zero_point.detach().copy_from(zero_point.to(DType::float32));
  } else {
    module.set_extra_state({{"scale", scale}, {"zero_point", zero_point}});
  }
  module.disable_observer();
}

}  // namespace

void start_qat_from(ObservedGraphModule& qat, const ObservedGraphModule& calibrated) {
  std::map<std::string, PreparedLayer> known;
  for (PreparedLayer& layer : static_layers(calibrated, "start_qat_from"))
    known[layer.name] = std::move(layer);
  const std::vector<PreparedLayer> layers = static_layers(qat, "start_qat_from");
  for (const PreparedLayer& layer : layers) {
    const auto at = known.find(layer.name);
    OCTET_CHECK(at != known.end(), invalid_argument,
                "start_qat_from: the calibrated network has no layer '{}'; expected two "
                "preparations of one graph",
                layer.label);
    const PreparedLayer& from = at->second;
    const Tensor weight = constant_now(calibrated, from.weight);
    const Tensor old = constant_now(qat, layer.weight);
    OCTET_CHECK(weight.shape() == old.shape(), invalid_argument,
                "start_qat_from: the weights of '{}' are {} and {}", layer.label,
                to_string(old.type()), to_string(weight.type()));
    qat.tensor(layer.weight).detach().copy_from(weight);
    if (!from.bias.empty()) qat.set_bias(layer.name, constant_now(calibrated, from.bias));
  }
  const auto of = calibrated.watched(), to = qat.watched();
  for (size_t v = 0; v < to.observer.size(); ++v) {
    if (to.observer[v].empty()) continue;
    auto* module = dynamic_cast<FakeQuantizeBase*>(qat.submodule(to.observer[v]).get());
    const auto same = of.graph.find(to.graph.values()[v].name);
    if (!module || !same || of.observer[static_cast<size_t>(*same)].empty()) continue;
    const std::string& path = of.observer[static_cast<size_t>(*same)];
    if (!to.graph.is_constant(static_cast<graph::ValueId>(v)))
      fix(*module, qparams_of(*calibrated.submodule(path)));
  }
  for (const PreparedLayer& layer : layers) {
    const graph::Graph& g = qat.graph();
    const std::string path = g.producer(g.producer(g.find(layer.name).value()).inputs[1]).scope;
    if (auto* module = dynamic_cast<FakeQuantizeBase*>(qat.submodule(path).get()))
      fix(*module, calibrated.weight_qparams(layer.name));
  }
}

}  // namespace octet::quant
