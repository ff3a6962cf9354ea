#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/debug/compare_impl.h"
#include "octet/quant/algorithms/choose_ranges.h"
#include "octet/quant/observe/passive.h"
#include "octet/quant/tune/doctor_impl.h"

namespace octet::quant::doctor_detail {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;

namespace {

// The observer of a value that is no constant, which chooses a range from data; null for others.
Observer* range_observer(const ObservedGraphModule& prepared,
                         const ObservedGraphModule::Watched& watched, size_t v) {
  const std::string& path = watched.observer[v];
  if (path.empty() || watched.graph.is_constant(static_cast<ValueId>(v))) return nullptr;
  auto* observer = dynamic_cast<Observer*>(prepared.submodule(path).get());
  if (!observer || !observer->chooses_qparams() || dynamic_cast<FixedQParamsObserver*>(observer))
    return nullptr;
  return observer;
}

// Per tensor, what quantizes a value in the network; null if nothing does.
const TensorType* codes_of(const Graph& q, const debug::detail::Match& match, ValueId v) {
  const ValueId codes = match.codes[static_cast<size_t>(v)];
  if (codes == kNone || q.type(codes).quantizer->is_per_channel()) return nullptr;
  return &q.type(codes);
}

QConfig qconfig_for(DType activation) {
  QConfig q = get_default_qconfig("native");
  q.activation =
      ObserverFactory("percentile").with_args(q.activation.options()).with_dtype(activation);
  return q;
}

// The dtype that most calls of the network give.
DType usual_dtype(const Graph& q) {
  std::map<DType, int> count;
  for (const Node& node : q.nodes())
    if (node.kind == NodeKind::call && q.type(node.outputs[0]).is_quantized())
      ++count[q.type(node.outputs[0]).dtype];
  DType most = DType::quint8;
  for (const auto& [dtype, n] : count)
    if (n > count[most]) most = dtype;
  return most;
}

}  // namespace

std::map<std::string, std::string> labels_of(const ObservedGraphModule& prepared) {
  const auto watched = prepared.watched();
  std::map<std::string, std::string> labels;
  for (size_t v = 0; v < watched.observer.size(); ++v)
    if (const Observer* observer = range_observer(prepared, watched, v))
      labels[watched.graph.value(static_cast<ValueId>(v)).name] = observer->label();
  return labels;
}

Recipe recipe_of(const Graph& f, const Graph& q, std::vector<std::string>& notes) {
  if (const auto text = q.metadata.find("recipe"); text != q.metadata.end()) {
    try {
      return Recipe::from_json(text->second);
    } catch (const Error& e) {
      notes.push_back(fmt::format("the recipe in the metadata cannot be read: {}", e.what()));
    }
  }
  const DType dtype = usual_dtype(q);
  Recipe recipe;
  recipe.mapping = get_default_qconfig_mapping("native");
  recipe.mapping.set_global(qconfig_for(dtype));
  const Graph first = prepare_fx(f, recipe.mapping)->watched().graph;
  debug::detail::Match match = debug::detail::match(first, q);
  for (size_t n = 0; n < first.nodes().size(); ++n) {
    const Node& node = first.nodes()[n];
    if (node.kind != NodeKind::call || match.node[n] < 0) continue;
    const Node& other = q.node(match.node[n]);
    const std::string name = node_name(first, node);
    const auto i = debug::detail::weight_operand(first, node),
               j = debug::detail::weight_operand(q, other);
    if (i && j) {
      const Tensor& weight = q.constant(other.inputs[*j]);
      if (!weight.is_quantized()) {
        recipe.skip.push_back(name);
        continue;
      }
      if (!weight.quantizer()->is_per_channel() && weight.dim() > 1) {
        QConfig per_tensor = qconfig_for(dtype);
        per_tensor.weight = weight_observer_range_neg_127_to_127();
        recipe.mapping.set_module_name(name, per_tensor);
      }
    }
    const TensorType* type = codes_of(q, match, node.outputs[0]);
    if (type && type->dtype != dtype && type->dtype != DType::qint32)
      recipe.mapping.set_module_name(name, qconfig_for(type->dtype));
  }
  std::shared_ptr<ObservedGraphModule> prepared;
  try {
    prepared = prepare_fx(f, recipe.mapping, {.skip = recipe.skip});
  } catch (const Error& e) {
    notes.push_back(
        fmt::format("what stays float could not be read off the network: {}", e.what()));
    recipe.skip.clear();
    prepared = prepare_fx(f, recipe.mapping);
  }
  const auto watched = prepared->watched();
  match = debug::detail::match(watched.graph, q);
  for (size_t v = 0; v < watched.observer.size(); ++v) {
    const Observer* observer = range_observer(*prepared, watched, v);
    const TensorType* type = observer ? codes_of(q, match, static_cast<ValueId>(v)) : nullptr;
    if (!type || type->dtype != observer->options().dtype) continue;
    // Of values that share an observer the one that it is named after counts.
    const std::string& label = observer->label();
    if (recipe.ranges.count(label) && watched.graph.value(static_cast<ValueId>(v)).name != label)
      continue;
    recipe.ranges[label] = {type->quantizer->scale(), type->quantizer->zero_point(),
                            "the given network"};
  }
  return recipe;
}

Ranges fresh_ranges(const Graph& graph, const Recipe& recipe, const Batches& samples) {
  Recipe plain = recipe;
  plain.ranges.clear();
  const std::vector<RecipeStep> known = recipe_steps();
  std::erase_if(plain.steps, [&](const Recipe::Step& step) {
    return std::any_of(known.begin(), known.end(),
                       [&](const RecipeStep& k) { return k.name == step.name && k.on_prepared; });
  });
  const auto prepared = prepare(graph, plain, samples);
  const auto watched = prepared->watched();
  std::map<std::string, std::string> paths;  // by label
  for (size_t v = 0; v < watched.observer.size(); ++v)
    if (const Observer* observer = range_observer(*prepared, watched, v))
      if (dynamic_cast<const HistogramObserver*>(observer) && !observer->empty())
        paths[observer->label()] = watched.observer[v];
  Ranges ranges;
  for (const auto& [policy, factory] :
       {std::pair{"minmax", ObserverFactory("percentile").with_percentile(100)},
        {"percentile", ObserverFactory("percentile")},
        {"mse", ObserverFactory("mse")},
        {"histogram", ObserverFactory("histogram")}})
    for (const auto& [label, path] : paths) {
      replace_observer(*prepared, path, factory);
      const QParams p = prepared->submodule(path)->as<Observer>().calculate_qparams();
      ranges[policy][label] = {p.scales[0], static_cast<int64_t>(p.zero_points[0]),
                               to_string(factory)};
    }
  return ranges;
}

}  // namespace octet::quant::doctor_detail
